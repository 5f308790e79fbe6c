/* vhdx_map.c - where a range of a VHDX disk is: the block allocation table [2.5] and the sector
 * bitmaps [2.4]; extents and reads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

/* What is looked at in one step: entries of the BAT, bytes of a sector bitmap. */
#define STEP_ENTRIES     512u
#define STEP_BITMAP      4096u
#define STEP_BITMAP_BITS (UINT64_C(8) * STEP_BITMAP)

enum kind {
        IN_FILE,
        ZERO,   /* the file says so */
        BEHIND, /* the parent's */
};

struct run {
        enum kind kind;
        uint64_t length;
        uint64_t file_offset; /* IN_FILE */
        bool nobody;          /* zero because nobody says anything */
};

/* ---- tables ---- */

static const struct vhdx_page *find_page(struct vhdx *v, uint64_t offset)
{
        for (size_t i = 0; i < VHDX_PAGES_MAX; i++)
                if (v->pages[i].bytes && v->pages[i].offset == offset) {
                        v->pages[i].used = ++v->clock;
                        return &v->pages[i];
                }
        return NULL;
}

/* In the place of the one that was not used for the longest time. Nobody holds one while he is
 * suspended: so any may go, and it does no harm if two bring the same. */
static void keep_page(struct vhdx *v, uint64_t offset, uint8_t *bytes)
{
        struct vhdx_page *oldest = &v->pages[0];

        for (size_t i = 1; i < VHDX_PAGES_MAX && oldest->bytes; i++)
                if (!v->pages[i].bytes || v->pages[i].used < oldest->used)
                        oldest = &v->pages[i];
        free(oldest->bytes);
        *oldest = (struct vhdx_page){offset, ++v->clock, bytes};
}

static int co_copy(struct image *image, void *buffer, size_t n, uint64_t offset, struct error *err)
{
        struct vhdx *v = image->state;
        uint64_t begin = offset / VHDX_PAGE_SIZE * VHDX_PAGE_SIZE, left = v->file_end - begin;
        const struct vhdx_page *page = find_page(v, begin);
        uint8_t *bytes;
        int r;

        if (page) {
                memcpy(buffer, page->bytes + (offset - begin), n);
                return 0;
        }
        bytes = calloc(1, VHDX_PAGE_SIZE);
        if (!bytes)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_vhdx_pread(image, bytes, left < VHDX_PAGE_SIZE ? left : VHDX_PAGE_SIZE, begin, err);
        if (r < 0) {
                free(bytes);
                return r;
        }
        memcpy(buffer, bytes + (offset - begin), n);
        keep_page(v, begin, bytes);
        return 0;
}

int co_vhdx_table(struct image *image, void *buffer, size_t length, uint64_t offset,
                  struct error *err)
{
        uint8_t *at = buffer;
        int r = 0;

        while (r == 0 && length > 0) {
                size_t left = VHDX_PAGE_SIZE - offset % VHDX_PAGE_SIZE;
                size_t n = length < left ? length : left;

                r = co_copy(image, at, n, offset, err);
                at += n;
                offset += n;
                length -= n;
        }
        return r;
}

/* ---- entries ---- */

static bool is_in_file(const struct vhdx *v, uint64_t offset, uint64_t length)
{
        return offset >= VHDX_HEADER_END && offset <= v->file_end && length <= v->file_end - offset;
}

int vhdx_entry_check(const struct image *image, uint64_t block, uint64_t entry, struct error *err)
{
        const struct vhdx *v = image->state;
        enum vhdx_state state = vhdx_entry_state(entry);
        uint64_t at = v->bat.offset + vhdx_block_entry(v, block) * 8;

        if (state == 4 || state == 5)
                return error_set(
                    err, -EBADMSG,
                    "block %llu of '%s' has state %u, by its entry at %llu: the format "
                    "has none such",
                    (unsigned long long)block, image->path, (unsigned)state,
                    (unsigned long long)at);
        if (state == VHDX_PARTIAL && !v->has_parent)
                return error_set(err, -EBADMSG,
                                 "block %llu of '%s' is partly its parent's, by its entry at %llu, "
                                 "and there is no parent",
                                 (unsigned long long)block, image->path, (unsigned long long)at);
        if ((state == VHDX_PRESENT || state == VHDX_PARTIAL) &&
            !is_in_file(v, vhdx_entry_offset(entry), vhdx_block_length(image, block)))
                return error_set(err, -EBADMSG,
                                 "block %llu of '%s' is at %llu, by its entry at %llu: that is not "
                                 "within the file, which has %llu bytes",
                                 (unsigned long long)block, image->path,
                                 (unsigned long long)vhdx_entry_offset(entry),
                                 (unsigned long long)at, (unsigned long long)v->file_end);
        return 0;
}

int vhdx_bitmap_check(const struct image *image, uint64_t block, uint64_t entry, struct error *err)
{
        const struct vhdx *v = image->state;
        uint64_t at = v->bat.offset + vhdx_bitmap_entry(v, block) * 8;

        if (vhdx_entry_state(entry) == VHDX_PRESENT &&
            is_in_file(v, vhdx_entry_offset(entry), VHDX_BITMAP_BLOCK))
                return 0;
        return error_set(err, -EBADMSG,
                         "block %llu of '%s' is partly its parent's, and its sector bitmap, by the "
                         "entry at %llu, has state %u and is at %llu",
                         (unsigned long long)block, image->path, (unsigned long long)at,
                         (unsigned)vhdx_entry_state(entry),
                         (unsigned long long)vhdx_entry_offset(entry));
}

/* ---- runs ---- */

static struct run run_of(const struct vhdx *v, uint64_t entry)
{
        switch (vhdx_entry_state(entry)) {
        case VHDX_PRESENT:
        case VHDX_PARTIAL:
                return (struct run){.kind = IN_FILE, .file_offset = vhdx_entry_offset(entry)};
        case VHDX_NOT_PRESENT:
                return (struct run){.kind = v->has_parent ? BEHIND : ZERO,
                                    .nobody = !v->has_parent};
        default:
                return (struct run){.kind = ZERO};
        }
}

static bool continues(const struct run *run, const struct run *next)
{
        return run->kind == next->kind && run->nobody == next->nobody &&
               (run->kind != IN_FILE || next->file_offset == run->file_offset + run->length);
}

/* How many bits from @bit on are as that one is. */
static uint64_t same_bits(const uint8_t *bitmap, uint64_t bit, uint64_t end, bool *ret_set)
{
        bool set = bitmap[bit / 8] >> bit % 8 & 1;
        uint64_t at = bit + 1;

        while (at < end)
                if (at % 8 == 0 && end - at >= 8 && bitmap[at / 8] == (set ? 0xff : 0))
                        at += 8;
                else if ((bitmap[at / 8] >> at % 8 & 1) == set)
                        at++;
                else
                        break;
        *ret_set = set;
        return at - bit;
}

/* A block that is partly the parent's: the run of sectors at @within that are alike. */
static int co_run_of_sectors(struct image *image, uint64_t block, uint64_t within, uint64_t entry,
                             struct run *run, struct error *err)
{
        struct vhdx *v = image->state;
        uint64_t sectors = vhdx_block_length(image, block) / v->sector_bytes;
        uint64_t first = within / v->sector_bytes, from, n, bitmap;
        uint8_t bits[STEP_BITMAP];
        le64 bitmap_entry;
        bool set = false;
        int r;

        r = co_vhdx_table(image, &bitmap_entry, 8, v->bat.offset + vhdx_bitmap_entry(v, block) * 8,
                          err);
        if (r == 0)
                r = vhdx_bitmap_check(image, block, le64_get(bitmap_entry), err);
        if (r < 0)
                return r;
        /* A block has at least 256 sectors: its part of the bitmap is whole bytes. */
        bitmap = vhdx_entry_offset(le64_get(bitmap_entry)) +
                 block % v->chunk_blocks * (v->block_bytes / v->sector_bytes) / 8;
        from = first / 8 * 8;
        n = sectors - from < STEP_BITMAP_BITS ? sectors - from : STEP_BITMAP_BITS;
        r = co_vhdx_table(image, bits, (n + 7) / 8, bitmap + from / 8, err);
        if (r < 0)
                return r;
        n = same_bits(bits, first - from, n, &set);
        *run = (struct run){.kind = set ? IN_FILE : BEHIND,
                            .length = (first + n) * v->sector_bytes - within,
                            .file_offset = vhdx_entry_offset(entry) + within};
        return 0;
}

/* What is at @offset of the disk, and how far that goes on. Not inlined: its tables must not lie on
 * the stack as often as a chain has files. */
__attribute__((noinline)) static int co_map(struct image *image, uint64_t offset,
                                            struct run *ret_run, struct error *err)
{
        struct vhdx *v = image->state;
        uint64_t block = offset / v->block_bytes, within = offset % v->block_bytes;
        uint64_t first = vhdx_block_entry(v, block), n = v->n_entries - first;
        le64 entries[STEP_ENTRIES];
        struct run run;
        int r;

        n = n < STEP_ENTRIES ? n : STEP_ENTRIES;
        r = co_vhdx_table(image, entries, n * 8, v->bat.offset + first * 8, err);
        if (r == 0)
                r = vhdx_entry_check(image, block, le64_get(entries[0]), err);
        if (r < 0)
                return r;
        if (vhdx_entry_state(le64_get(entries[0])) == VHDX_PARTIAL)
                return co_run_of_sectors(image, block, within, le64_get(entries[0]), ret_run, err);
        run = run_of(v, le64_get(entries[0]));
        run.file_offset += within;
        run.length = vhdx_block_length(image, block) - within;
        while (++block < v->n_blocks && vhdx_block_entry(v, block) - first < n) {
                uint64_t entry = le64_get(entries[vhdx_block_entry(v, block) - first]);
                struct run next = run_of(v, entry);

                if (vhdx_entry_state(entry) == VHDX_PARTIAL || !continues(&run, &next) ||
                    vhdx_entry_check(image, block, entry, NULL) < 0)
                        break;
                run.length += vhdx_block_length(image, block);
        }
        *ret_run = run;
        return 0;
}

static int co_extent_behind(struct image *image, uint64_t offset, struct image_extent *extent,
                            struct error *err)
{
        const struct vhdx *v = image->state;
        struct image *parent = v->parent;
        uint64_t length = extent->length;
        int r;

        extent->zero = true;
        if (!parent || offset >= parent->virtual_bytes)
                return 0;
        r = parent->driver->co_extent(parent, offset, extent, err);
        if (r < 0)
                return r;
        if (extent->length > length)
                extent->length = length;
        extent->depth++;
        return 0;
}

/* Of a run within the file: which bytes they are, unless the log has some of them or the file ends
 * before; and whether they are a hole, which a fixed disk's blocks are at first. */
static void look_at_file(struct image *image, const struct run *run, struct image_extent *extent)
{
        const struct vhdx *v = image->state;
        uint64_t begin = run->file_offset, end = begin + run->length;
        size_t i = vhdx_overlay_find(v, begin);
        struct image_extent there;

        if (end > image->file_bytes || (i < v->n_replayed && v->replayed[i].begin < end))
                return;
        image_file_extent(image, begin, end, &there);
        extent->file_offset = begin;
        extent->has_offset = true;
        extent->length = there.length;
        extent->zero = there.zero;
}

int co_vhdx_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                   struct error *err)
{
        struct image_extent extent = {0};
        struct run run;
        int r = co_map(image, offset, &run, err);

        if (r < 0)
                return r;
        extent.length = run.length;
        if (run.kind == BEHIND) {
                r = co_extent_behind(image, offset, &extent, err);
        } else {
                extent.zero = run.kind == ZERO;
                extent.present = !run.nobody;
        }
        if (r < 0)
                return r;
        if (run.kind == IN_FILE)
                look_at_file(image, &run, &extent);
        *ret_extent = extent;
        return 0;
}

static int co_read_behind(struct image *image, void *buffer, size_t length, uint64_t offset,
                          struct error *err)
{
        const struct vhdx *v = image->state;
        struct image *parent = v->parent;
        size_t n = length;

        if (!parent || offset >= parent->virtual_bytes)
                n = 0;
        else if (n > parent->virtual_bytes - offset)
                n = parent->virtual_bytes - offset;
        memset((char *)buffer + n, 0, length - n);
        return n > 0 ? parent->driver->co_read(parent, buffer, n, offset, err) : 0;
}

int co_vhdx_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                 struct error *err)
{
        char *at = buffer;
        int r = 0;

        while (r == 0 && length > 0) {
                struct run run;
                size_t n;

                r = co_map(image, offset, &run, err);
                if (r < 0)
                        return r;
                n = run.length < length ? run.length : length;
                if (run.kind == IN_FILE)
                        r = co_vhdx_pread(image, at, n, run.file_offset, err);
                else if (run.kind == BEHIND)
                        r = co_read_behind(image, at, n, offset, err);
                else
                        memset(at, 0, n);
                at += n;
                offset += n;
                length -= n;
        }
        return r;
}
