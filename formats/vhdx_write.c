/* vhdx_write.c - new VHDX files, dynamic and fixed.
 *
 * The layout: headers, log, metadata, BAT, blocks. Blocks come one after the other in the order of
 * the disk, since writes do: which of them there are, a bit each, is all that is remembered, and the
 * BAT is made of it at the end. What is not written of a block is a hole of the file. Headers are
 * written last: a file without is known for VHDX, and refused. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "formats/vhdx_internal.h"

#define WRITE_UNIT      4096u
#define LOG_OFFSET      (1 * VHDX_MIB)
#define METADATA_OFFSET (2 * VHDX_MIB)
#define BAT_OFFSET      (3 * VHDX_MIB)
#define BAT_STEP        65536u /* bytes of it written at a time */
#define LOGICAL_SECTOR  512u
#define PHYSICAL_SECTOR 4096u

struct vhdx_writer {
        uint64_t block_bytes, chunk_blocks, n_blocks, n_entries;
        uint64_t bat_bytes, data_offset;
        bool fixed;
        uint8_t *written;         /* dynamic: a bit a block */
        uint64_t n_written, last; /* dynamic: how many, and the last of them */
};

/* As QEMU does; Windows always takes 32 MiB. */
static uint64_t usual_block(uint64_t bytes)
{
        if (bytes > UINT64_C(32) << 40)
                return 64 << 20;
        if (bytes > UINT64_C(100) << 30)
                return 32 << 20;
        return bytes > UINT64_C(1) << 30 ? 16 << 20 : 8 << 20;
}

static int check_options(struct image *image, const struct image_create_options *options,
                         struct error *err)
{
        uint32_t block = options->cluster_bytes;

        if (options->compression)
                return error_set(err, -EINVAL, "VHDX images have no compression");
        if (options->variant && strcmp(options->variant, "dynamic") != 0 &&
            strcmp(options->variant, "fixed") != 0) {
                error_set(err, -EINVAL, "there is no variant '%s' of VHDX images",
                          options->variant);
                return error_hint(err, "variants are dynamic, fixed");
        }
        if (block != 0 &&
            (block < VHDX_BLOCK_MIN || block > VHDX_BLOCK_MAX || (block & (block - 1)) != 0))
                return error_set(err, -EINVAL,
                                 "VHDX images have blocks of 1 to 256 MiB, a power of two, and not "
                                 "of %u bytes",
                                 block);
        if (image->virtual_bytes > VHDX_VIRTUAL_MAX)
                return error_set(err, -EFBIG,
                                 "'%s' would have %llu bytes; VHDX images have at most 64 TiB",
                                 image->path, (unsigned long long)image->virtual_bytes);
        if (image->is_block_device)
                return error_set(err, -EINVAL,
                                 "'%s' is a block device; a VHDX image must be a file",
                                 image->path);
        return 0;
}

static void lay_out(struct image *image, const struct image_create_options *options,
                    struct vhdx_writer *w)
{
        w->fixed = options->variant && strcmp(options->variant, "fixed") == 0;
        w->block_bytes =
            options->cluster_bytes ? options->cluster_bytes : usual_block(image->virtual_bytes);
        w->chunk_blocks = VHDX_SECTORS_PER_CHUNK * LOGICAL_SECTOR / w->block_bytes;
        w->n_blocks = (image->virtual_bytes + w->block_bytes - 1) / w->block_bytes;
        if (w->n_blocks > 0)
                w->n_entries = w->n_blocks + (w->n_blocks - 1) / w->chunk_blocks;
        w->bat_bytes = (w->n_entries * 8 + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB;
        if (w->bat_bytes == 0)
                w->bat_bytes = VHDX_MIB;
        w->data_offset = BAT_OFFSET + w->bat_bytes;
}

static int set_length(struct image *image, uint64_t length, struct error *err)
{
        if (ftruncate(image->fd, (off_t)length) < 0)
                return error_set(err, -errno, "cannot make '%s' %llu bytes long: %s", image->path,
                                 (unsigned long long)length, strerror(errno));
        return 0;
}

/* [2.2.1] Signature, and who made it, in UTF-16. */
static int co_write_identifier(struct image *image, struct error *err)
{
        uint8_t bytes[520] = VHDX_IDENTIFIER;
        const char *creator = "tarn";

        for (size_t i = 0; creator[i]; i++)
                bytes[8 + 2 * i] = (uint8_t)creator[i];
        return co_image_pwrite(image, bytes, sizeof(bytes), 0, err);
}

int co_vhdx_create(struct image *image, const struct image_create_options *options,
                   struct error *err)
{
        struct vhdx *v = image->state = calloc(1, sizeof(*v));
        struct vhdx_writer *w;
        int r;

        if (!v || !(w = v->writer = calloc(1, sizeof(*w))))
                return error_set(err, -ENOMEM, "out of memory");
        r = check_options(image, options, err);
        if (r < 0)
                return r;
        /* A disk has whole sectors. */
        image->virtual_bytes =
            (image->virtual_bytes + LOGICAL_SECTOR - 1) / LOGICAL_SECTOR * LOGICAL_SECTOR;
        image->write_unit = WRITE_UNIT;
        lay_out(image, options, w);
        if (!w->fixed && !(w->written = calloc(1, w->n_blocks / 8 + 1)))
                return error_set(err, -ENOMEM, "out of memory");
        /* Down to nothing first: what a file held before must not show through. */
        r = set_length(image, 0, err);
        if (r == 0)
                r = set_length(image,
                               w->data_offset + (w->fixed ? w->n_blocks * w->block_bytes : 0), err);
        return r < 0 ? r : co_write_identifier(image, err);
}

void vhdx_writer_free(struct vhdx_writer *w)
{
        if (w)
                free(w->written);
        free(w);
}

static bool is_written(const struct vhdx_writer *w, uint64_t block)
{
        return w->fixed || w->written[block / 8] >> block % 8 & 1;
}

/* Calls begin in ascending order, and nothing here waits: so blocks are taken in the disk's order,
 * and what one call writes lies in one piece. */
static uint64_t take_blocks(struct vhdx_writer *w, uint64_t offset, size_t length)
{
        uint64_t first = offset / w->block_bytes, last = (offset + length - 1) / w->block_bytes;
        uint64_t first_number;

        if (w->fixed)
                return w->data_offset + offset;
        assert(w->n_written == 0 || first >= w->last);
        first_number = is_written(w, first) ? w->n_written - 1 : w->n_written;
        for (uint64_t block = first; block <= last; block++)
                if (!is_written(w, block)) {
                        w->written[block / 8] |= (uint8_t)(1 << block % 8);
                        w->n_written++;
                }
        w->last = last;
        return w->data_offset + first_number * w->block_bytes + offset % w->block_bytes;
}

int co_vhdx_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                  struct error *err)
{
        struct vhdx *v = image->state;

        if (length == 0)
                return 0;
        return co_image_pwrite(image, buffer, length, take_blocks(v->writer, offset, length), err);
}

int co_vhdx_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        return 0;
}

/* ---- the end ---- */

static int co_write_bat(struct image *image, struct error *err)
{
        const struct vhdx_writer *w = ((const struct vhdx *)image->state)->writer;
        le64 *entries = malloc(BAT_STEP);
        uint64_t next = w->data_offset, block = 0;
        int r = 0;

        if (!entries)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint64_t i = 0; r == 0 && i < w->n_entries;) {
                uint64_t begin = i, n;

                for (n = 0; n < BAT_STEP / 8 && i < w->n_entries; n++, i++) {
                        uint64_t entry = VHDX_ZERO;

                        if (i % (w->chunk_blocks + 1) == w->chunk_blocks) {
                                entry = VHDX_NOT_PRESENT; /* a sector bitmap's */
                        } else if (is_written(w, block++)) {
                                entry = next | VHDX_PRESENT;
                                next += w->block_bytes;
                        }
                        entries[n] = le64_make(entry);
                }
                r = co_image_pwrite(image, entries, n * 8, BAT_OFFSET + begin * 8, err);
        }
        free(entries);
        return r;
}

static int random_guid(struct vhdx_guid *guid, struct error *err)
{
        if (getrandom(guid, sizeof(*guid), 0) != sizeof(*guid))
                return error_set(err, -EIO, "the kernel gives no random numbers");
        guid->b[7] = (guid->b[7] & 0x0f) | 0x40; /* RFC 9562: version 4 */
        guid->b[8] = (guid->b[8] & 0x3f) | 0x80;
        return 0;
}

struct metadata {
        uint8_t table[VHDX_TABLE_SIZE];
        uint8_t values[4096];
        size_t n, used;
};

static void add_item(struct metadata *m, struct vhdx_guid id, uint32_t flags, const void *value,
                     uint32_t length)
{
        struct vhdx_item_disk item = {.id = id,
                                      .offset = le32_make(VHDX_TABLE_SIZE + (uint32_t)m->used),
                                      .length = le32_make(length),
                                      .flags = le32_make(flags | VHDX_ITEM_REQUIRED)};

        memcpy(m->table + sizeof(struct vhdx_metadata_disk) + m->n * sizeof(item), &item,
               sizeof(item));
        memcpy(m->values + m->used, value, length);
        m->used += length;
        m->n++;
}

static int co_write_metadata(struct image *image, struct error *err)
{
        const struct vhdx_writer *w = ((const struct vhdx *)image->state)->writer;
        struct metadata *m = calloc(1, sizeof(*m));
        struct vhdx_metadata_disk head = {.signature = {'m', 'e', 't', 'a', 'd', 'a', 't', 'a'}};
        le32 parameters[2] = {le32_make((uint32_t)w->block_bytes),
                              le32_make(w->fixed ? VHDX_LEAVE_ALLOCATED : 0)};
        le32 logical = le32_make(LOGICAL_SECTOR), physical = le32_make(PHYSICAL_SECTOR);
        le64 size = le64_make(image->virtual_bytes);
        struct vhdx_guid page_83;
        int r;

        if (!m)
                return error_set(err, -ENOMEM, "out of memory");
        r = random_guid(&page_83, err);
        add_item(m, VHDX_ITEM_PARAMETERS, 0, parameters, sizeof(parameters));
        add_item(m, VHDX_ITEM_SIZE, VHDX_ITEM_DISK, &size, sizeof(size));
        add_item(m, VHDX_ITEM_PAGE_83, VHDX_ITEM_DISK, &page_83, sizeof(page_83));
        add_item(m, VHDX_ITEM_LOGICAL_SECTOR, VHDX_ITEM_DISK, &logical, sizeof(logical));
        add_item(m, VHDX_ITEM_PHYSICAL_SECTOR, VHDX_ITEM_DISK, &physical, sizeof(physical));
        head.n_entries = le16_make((uint16_t)m->n);
        memcpy(m->table, &head, sizeof(head));
        if (r == 0)
                r = co_image_pwrite(image, m->table, sizeof(m->table) + sizeof(m->values),
                                    METADATA_OFFSET, err);
        free(m);
        return r;
}

static int co_write_regions(struct image *image, struct error *err)
{
        const struct vhdx_writer *w = ((const struct vhdx *)image->state)->writer;
        uint8_t *bytes = calloc(1, VHDX_TABLE_SIZE);
        const struct vhdx_table_disk head = {.signature = {'r', 'e', 'g', 'i'},
                                             .n_entries = le32_make(2)};
        const struct vhdx_region_disk regions[2] = {
            {VHDX_REGION_BAT, le64_make(BAT_OFFSET), le32_make((uint32_t)w->bat_bytes),
             le32_make(1)},
            {VHDX_REGION_METADATA, le64_make(METADATA_OFFSET), le32_make(VHDX_MIB), le32_make(1)},
        };
        int r = 0;

        if (!bytes)
                return error_set(err, -ENOMEM, "out of memory");
        memcpy(bytes, &head, sizeof(head));
        memcpy(bytes + sizeof(head), regions, sizeof(regions));
        vhdx_sum(bytes, VHDX_TABLE_SIZE);
        for (unsigned i = 0; r == 0 && i < 2; i++)
                r = co_image_pwrite(image, bytes, VHDX_TABLE_SIZE, VHDX_TABLE_OFFSET(i), err);
        free(bytes);
        return r;
}

static int co_write_headers(struct image *image, struct error *err)
{
        struct vhdx_header_disk *h = calloc(1, sizeof(*h));
        int r;

        if (!h)
                return error_set(err, -ENOMEM, "out of memory");
        memcpy(h->signature, "head", sizeof(h->signature));
        h->version = le16_make(1);
        h->log_offset = le64_make(LOG_OFFSET);
        h->log_length = le32_make(VHDX_MIB);
        r = random_guid(&h->file_write, err);
        if (r == 0)
                r = random_guid(&h->data_write, err);
        for (unsigned i = 0; r == 0 && i < 2; i++) {
                h->sequence = le64_make(1 + i);
                vhdx_sum(h, sizeof(*h));
                r = co_image_pwrite(image, h, sizeof(*h), VHDX_HEADER_OFFSET(i), err);
        }
        free(h);
        return r;
}

static int co_flush(struct image *image, struct error *err)
{
        struct loop_io io = {.op = LOOP_FDATASYNC, .fd = image->fd};
        int r = co_io(&io);

        if (r < 0)
                return error_set(err, r, "cannot write '%s' to its disk: %s", image->path,
                                 strerror(-r));
        return 0;
}

int co_vhdx_finish(struct image *image, struct error *err)
{
        const struct vhdx_writer *w = ((const struct vhdx *)image->state)->writer;
        int r = 0;

        if (!w->fixed) /* the last block may end with a hole */
                r = set_length(image, w->data_offset + w->n_written * w->block_bytes, err);
        if (r == 0)
                r = co_write_bat(image, err);
        if (r == 0)
                r = co_write_metadata(image, err);
        if (r == 0)
                r = co_write_regions(image, err);
        if (r == 0)
                r = co_flush(image, err);
        if (r == 0)
                r = co_write_headers(image, err);
        return r < 0 ? r : co_flush(image, err);
}
