/* qcow2_write.c - making qcow2 files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/offload.h"
#include "formats/qcow2_writer.h"

#define CLUSTER_BYTES_USUAL (UINT32_C(64) << 10)
/* QEMU counts a disk in these, and would cut the rest off. */
#define SECTOR_BYTES UINT64_C(512)

static struct qcow2_writer *writer_of(struct image *image)
{
        return qcow2_of(image)->writer;
}

/* ---- beginning ---- */

static int choose(struct qcow2_writer *w, const struct image *image,
                  const struct image_create_options *options, struct error *err)
{
        const char *variant = options->variant ? options->variant : "v3";
        const char *compression = options->compression;
        uint32_t cluster = options->cluster_bytes ? options->cluster_bytes : CLUSTER_BYTES_USUAL;

        if (strcmp(variant, "v3") != 0 && strcmp(variant, "v2") != 0)
                return error_set(err, -EINVAL, "qcow2 has no variant '%s': they are v3, v2",
                                 variant);
        w->version = strcmp(variant, "v3") == 0 ? 3 : 2;
        if (cluster & (cluster - 1) || cluster >> QCOW2_CLUSTER_BITS_MIN == 0 ||
            cluster > UINT32_C(1) << QCOW2_CLUSTER_BITS_MAX)
                return error_set(err, -EINVAL,
                                 "qcow2 has no clusters of %u bytes: a power of two from 512 bytes "
                                 "to 2 MiB",
                                 cluster);
        w->cluster_bits = (unsigned)__builtin_ctz(cluster);
        w->cluster_bytes = cluster;
        w->table_covers = w->cluster_bytes * (w->cluster_bytes / QCOW2_L2_ENTRY);
        if (!compression)
                return 0;
        if (strcmp(compression, "zlib") != 0 && strcmp(compression, "zstd") != 0)
                return error_set(err, -EINVAL, "qcow2 has no compression '%s': it is zlib or zstd",
                                 compression);
        w->packs = true;
        w->compression = strcmp(compression, "zlib") == 0 ? QCOW2_ZLIB : QCOW2_ZSTD;
        if (w->compression != QCOW2_ZLIB && w->version < 3)
                return error_set(err, -EINVAL, "qcow2's variant v2 has no compression but zlib");
        return 0;
}

/* Room for the L1 table of a disk of that size: QEMU wants it whole. */
static int make_l1(struct qcow2_writer *w, const struct image *image, struct error *err)
{
        uint64_t size = image->virtual_bytes, most = QCOW2_L1_BYTES_MAX / QCOW2_L1_ENTRY;
        uint64_t n;

        if (size > IMAGE_SIZE_MAX)
                return error_set(err, -EFBIG, "'%s': a disk may not be larger than 4 PiB",
                                 image->path);
        w->disk_bytes = (size + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
        n = (w->disk_bytes + w->table_covers - 1) / w->table_covers;
        if (n > most) {
                int r = error_set(err, -EFBIG,
                                  "'%s': qcow2 with clusters of %llu bytes holds at most %llu "
                                  "bytes, not %llu",
                                  image->path, (unsigned long long)w->cluster_bytes,
                                  (unsigned long long)(most * w->table_covers),
                                  (unsigned long long)size);
                error_hint(err, "larger clusters hold more; 128 KiB are enough for every disk");
                return r;
        }
        w->l1_size = n > 0 ? (uint32_t)n : 1;
        w->l1 = calloc(w->l1_size, sizeof(*w->l1));
        return w->l1 ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* Nothing of what was there before may be taken for this image's header. */
static int co_clear(struct image *image, uint64_t header_bytes, struct error *err)
{
        uint8_t *zeroes;
        int r;

        if (!image->is_block_device)
                return ftruncate(image->fd, 0) == 0
                           ? 0
                           : error_set(err, -errno, "cannot empty '%s': %s", image->path,
                                       strerror(errno));
        zeroes = calloc(1, header_bytes);
        if (!zeroes)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pwrite(image, zeroes, header_bytes, 0, err);
        free(zeroes);
        return r == 0 ? co_qcow2_sync(image, err) : r;
}

int co_qcow2_create(struct image *image, const struct image_create_options *options,
                    struct error *err)
{
        struct qcow2 *q = calloc(1, sizeof(*q));
        struct qcow2_writer *w = calloc(1, sizeof(*w));
        uint64_t header;
        int r;

        image->state = q;
        if (!q || !w) {
                free(w);
                return error_set(err, -ENOMEM, "out of memory");
        }
        q->writer = w;
        list_init(&w->tables);
        co_queue_init(&w->turns);
        qcow2_alloc_init(&w->alloc, image->path, 0);
        r = choose(w, image, options, err);
        if (r == 0)
                r = make_l1(w, image, err);
        if (r == 0)
                r = co_clear(image, w->cluster_bytes, err);
        if (r < 0)
                return r;
        qcow2_alloc_init(&w->alloc, image->path, w->cluster_bits);
        image->write_unit = (uint32_t)w->cluster_bytes;
        return qcow2_alloc_clusters(&w->alloc, 1, &header, err);
}

void qcow2_writer_free(struct qcow2_writer *w)
{
        if (!w)
                return;
        qcow2_tables_clear(w);
        qcow2_alloc_clear(&w->alloc);
        for (unsigned i = 0; i < w->n_packers; i++)
                qcow2_packer_free(w->packers[i]);
        free(w->l1);
        free(w);
}

/* ---- writing ---- */

/* Some clusters of a call: where they are in memory, and on the disk. */
struct piece {
        const uint8_t *data;
        uint64_t offset;
        size_t n;
        bool is_last;           /* of its call */
        struct qcow2_pack pack; /* from NULL: not compressed */
};

/* A run of bytes that lie next to each other in memory and in the file. */
struct run {
        const uint8_t *data;
        uint64_t host;
        size_t length;
};

/* Write @run, unless @n bytes at @data for @host can be added to it. */
static int co_add_to_run(struct image *image, struct run *run, const uint8_t *data, uint64_t host,
                         size_t n, struct error *err)
{
        int r = 0;

        if (run->length > 0 && run->data + run->length == data && run->host + run->length == host) {
                run->length += n;
                return 0;
        }
        if (run->length > 0)
                r = co_image_pwrite(image, run->data, run->length, run->host, err);
        *run = (struct run){data, host, n};
        return r;
}

static uint64_t entry_of(struct image *image, const struct piece *p, size_t i)
{
        struct qcow2_writer *w = writer_of(image);

        return qcow2_tables_get(w, p->offset + i * w->cluster_bytes);
}

static int give_place(struct image *image, struct piece *p, size_t i, size_t packed_bytes,
                      struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        uint64_t offset = p->offset + i * w->cluster_bytes;
        uint64_t host;
        int r;

        if (packed_bytes == w->cluster_bytes) {
                r = qcow2_alloc_clusters(&w->alloc, 1, &host, err);
                if (r == 0)
                        qcow2_tables_set(w, offset, QCOW2_COPIED | host);
                return r;
        }
        r = qcow2_alloc_bytes(&w->alloc, packed_bytes, &host, err);
        if (r == 0 && host >> qcow2_compressed_offset_bits(w->cluster_bits) != 0)
                r = error_set(err, -EFBIG,
                              "'%s' becomes too long for compressed clusters of %llu bytes",
                              image->path, (unsigned long long)w->cluster_bytes);
        if (r == 0)
                qcow2_tables_set(w, offset,
                                 qcow2_compressed_make(host, packed_bytes, w->cluster_bits));
        return r;
}

/* All at once, and before anything suspends: so that data lie in the disk's order. */
static int give_places(struct image *image, struct piece *p, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        int r = 0;

        for (size_t i = 0; r == 0 && i < p->n; i++) {
                const uint8_t *data = p->data + i * w->cluster_bytes;
                size_t bytes = w->cluster_bytes;

                if (p->pack.from)
                        bytes = p->pack.bytes[i];
                else if (image_is_zero(data, bytes))
                        bytes = 0;
                if (bytes > 0)
                        r = give_place(image, p, i, bytes, err);
        }
        return r;
}

static int co_write_data(struct image *image, struct piece *p, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        const uint8_t *packed = p->pack.to;
        const uint32_t *bytes = p->pack.bytes;
        struct run plain = {0}, small = {0};
        int r = 0;

        for (size_t i = 0; r == 0 && i < p->n; i++) {
                const uint8_t *data = p->data + i * w->cluster_bytes;
                uint64_t entry = entry_of(image, p, i);

                if (bytes && entry & QCOW2_COMPRESSED) {
                        r = co_add_to_run(image, &small, packed,
                                          qcow2_compressed_offset(entry, w->cluster_bits), bytes[i],
                                          err);
                        packed += bytes[i];
                } else if (entry) {
                        r = co_add_to_run(image, &plain, data, entry & QCOW2_OFFSET_MASK,
                                          w->cluster_bytes, err);
                }
        }
        if (r == 0 && plain.length > 0)
                r = co_image_pwrite(image, plain.data, plain.length, plain.host, err);
        if (r == 0 && small.length > 0)
                r = co_image_pwrite(image, small.data, small.length, small.host, err);
        return r;
}

/* ---- compressing ---- */

static struct qcow2_packer *get_packer(struct qcow2_writer *w)
{
        return w->n_packers > 0 ? w->packers[--w->n_packers] : qcow2_packer_new(w->compression);
}

static void put_packer(struct qcow2_writer *w, struct qcow2_packer *packer)
{
        if (packer && w->n_packers < QCOW2_PACKERS_MAX)
                w->packers[w->n_packers++] = packer;
        else
                qcow2_packer_free(packer);
}

static int co_pack_piece(struct image *image, struct piece *p, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);

        p->pack = (struct qcow2_pack){.packer = get_packer(w),
                                      .from = p->data,
                                      .n = p->n,
                                      .cluster_bytes = w->cluster_bytes,
                                      .to = malloc(p->n * w->cluster_bytes),
                                      .bytes = malloc(p->n * sizeof(*p->pack.bytes))};
        if (!p->pack.packer || !p->pack.to || !p->pack.bytes) {
                put_packer(w, p->pack.packer);
                return error_set(err, -ENOMEM, "out of memory");
        }
        co_offload(image->offload, qcow2_pack, &p->pack);
        put_packer(w, p->pack.packer);
        return p->pack.failed ? error_set(err, -EIO, "cannot compress for '%s'", image->path) : 0;
}

/* ---- turns ---- */

/* A call's turn to get space. */
struct turn {
        uint64_t ticket;
        bool over;
};

static void co_await_turn(struct qcow2_writer *w, const struct turn *turn)
{
        while (!turn->over && w->turn != turn->ticket)
                co_wait(&w->turns);
}

static void end_turn(struct qcow2_writer *w, struct turn *turn)
{
        if (turn->over)
                return;
        turn->over = true;
        w->turn++;
        co_wake_all(&w->turns);
}

/* ---- a call ---- */

static int co_write_piece(struct image *image, struct piece *p, struct turn *turn,
                          struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        int r = 0;

        if (w->packs) {
                r = co_pack_piece(image, p, err);
                co_await_turn(w, turn);
        }
        if (r == 0)
                r = give_places(image, p, err);
        if (p->is_last)
                end_turn(w, turn);
        if (r == 0)
                r = co_write_data(image, p, err);
        free(p->pack.to);
        free(p->pack.bytes);
        return r;
}

/* The disk's end, within a cluster: that becomes whole with zeroes. */
static int co_write_end(struct image *image, const uint8_t *data, size_t n, uint64_t offset,
                        struct turn *turn, struct error *err)
{
        uint8_t *cluster = calloc(1, writer_of(image)->cluster_bytes);
        struct piece p = {.data = cluster, .offset = offset, .n = 1, .is_last = true};
        int r;

        if (!cluster)
                return error_set(err, -ENOMEM, "out of memory");
        memcpy(cluster, data, n);
        r = co_write_piece(image, &p, turn, err);
        free(cluster);
        return r;
}

static int co_write_pieces(struct image *image, const uint8_t *data, size_t length, uint64_t offset,
                           struct turn *turn, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        size_t end = length % w->cluster_bytes;
        int r = 0;

        for (length -= end; r == 0 && length > 0;) {
                size_t n = length;

                if (w->packs && n > QCOW2_PACK_BYTES)
                        n = QCOW2_PACK_BYTES;
                r = co_write_piece(image,
                                   &(struct piece){.data = data,
                                                   .offset = offset,
                                                   .n = n >> w->cluster_bits,
                                                   .is_last = n == length && end == 0},
                                   turn, err);
                data += n;
                offset += n;
                length -= n;
        }
        if (r == 0 && end > 0)
                r = co_write_end(image, data, end, offset, turn, err);
        return r;
}

int co_qcow2_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                   struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        struct turn turn = {.ticket = w->next_ticket};
        int r;

        if (length == 0)
                return 0;
        r = qcow2_tables_begin(w, offset, length, err);
        if (r == 0) {
                w->next_ticket++;
                r = co_write_pieces(image, buffer, length, offset, &turn, err);
                co_await_turn(w, &turn);
                end_turn(w, &turn);
                qcow2_tables_end(w, offset, length);
        }
        if (r == 0)
                r = co_qcow2_tables_write(image, err);
        if (r == 0)
                r = co_qcow2_blocks_write(image, err);
        if (r < 0)
                w->failed = true;
        return r;
}

/* What nobody wrote is not there, and reads as zeroes. */
int co_qcow2_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        return 0;
}
