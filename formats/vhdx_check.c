/* vhdx_check.c - whether all parts of a VHDX file are where they can be, and none lies on another. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

/* A bit for each MiB: all structures and blocks are aligned to that. 16 MiB of bits. */
#define FILE_MAX  (UINT64_C(128) << 40)
#define STEP      65536u /* bytes of the BAT at a time */
#define START_GAP (8 * VHDX_MIB)

struct checker {
        struct image *image;
        struct vhdx *v;
        struct image_check *check;
        uint8_t *used;
        uint64_t n_mib;
        uint64_t first_block; /* where the first one in the file is */
        unsigned n_findings;
};

__attribute__((format(printf, 2, 3))) static void finding(struct checker *c, const char *format,
                                                          ...)
{
        char sentence[512];
        va_list args;

        if (c->n_findings++ >= IMAGE_FINDINGS_MAX)
                return;
        va_start(args, format);
        vsnprintf(sentence, sizeof(sentence), format, args);
        va_end(args);
        c->check->report(c->check, sentence);
}

/* What lies past the file's end is somebody else's finding. */
static bool mark(struct checker *c, uint64_t offset, uint64_t length)
{
        uint64_t first = offset / VHDX_MIB, end = (offset + length + VHDX_MIB - 1) / VHDX_MIB;
        bool free = true;

        for (uint64_t i = first; i < end && i < c->n_mib; i++) {
                free &= !(c->used[i / 8] >> i % 8 & 1);
                c->used[i / 8] |= (uint8_t)(1 << i % 8);
        }
        return free;
}

static bool is_used(const struct checker *c, uint64_t mib)
{
        return c->used[mib / 8] >> mib % 8 & 1;
}

/* ---- copies ---- */

static int co_check_copy(struct checker *c, uint64_t offset, size_t length, const char *signature,
                         uint8_t *bytes, bool *ret_right, struct error *err)
{
        int r = co_vhdx_pread(c->image, bytes, length, offset, err);

        if (r < 0)
                return r;
        *ret_right = vhdx_sum_is_right(bytes, length, signature);
        if (!*ret_right) {
                c->check->n_errors++;
                finding(c, "the %s of '%s' at %llu is damaged; its copy is in use",
                        length == VHDX_HEADER_SIZE ? "header" : "region table", c->image->path,
                        (unsigned long long)offset);
        }
        return 0;
}

static int co_check_copies(struct checker *c, struct error *err)
{
        uint8_t *bytes = malloc((size_t)2 * VHDX_TABLE_SIZE);
        bool right[2] = {false};
        int r = 0;

        if (!bytes)
                return error_set(err, -ENOMEM, "out of memory");
        for (unsigned i = 0; r == 0 && i < 2; i++)
                r = co_check_copy(c, VHDX_HEADER_OFFSET(i), VHDX_HEADER_SIZE, "head", bytes,
                                  &right[i], err);
        for (unsigned i = 0; r == 0 && i < 2; i++)
                r = co_check_copy(c, VHDX_TABLE_OFFSET(i), VHDX_TABLE_SIZE, "regi",
                                  bytes + (size_t)i * VHDX_TABLE_SIZE, &right[i], err);
        if (r == 0 && right[0] && right[1] &&
            memcmp(bytes, bytes + VHDX_TABLE_SIZE, VHDX_TABLE_SIZE) != 0) {
                c->check->n_errors++;
                finding(c, "the region tables of '%s' at %llu and %llu differ", c->image->path,
                        (unsigned long long)VHDX_TABLE_OFFSET(0),
                        (unsigned long long)VHDX_TABLE_OFFSET(1));
        }
        free(bytes);
        return r;
}

/* ---- blocks ---- */

static void check_space(struct checker *c, const char *what, uint64_t number, uint64_t offset,
                        uint64_t length)
{
        if (mark(c, offset, length))
                return;
        c->check->n_errors++;
        finding(c, "%s %llu of '%s' at %llu lies on something else", what,
                (unsigned long long)number, c->image->path, (unsigned long long)offset);
}

static int co_check_block(struct checker *c, uint64_t block, uint64_t entry, struct error *err)
{
        enum vhdx_state state = vhdx_entry_state(entry);
        struct error why = ERROR_INIT;
        le64 bitmap;
        int r = vhdx_entry_check(c->image, block, entry, &why);

        if (r == 0 && state == VHDX_PARTIAL) {
                r = co_vhdx_table(c->image, &bitmap, sizeof(bitmap),
                                  c->v->bat.offset + vhdx_bitmap_entry(c->v, block) * 8, err);
                if (r < 0)
                        return r;
                r = vhdx_bitmap_check(c->image, block, le64_get(bitmap), &why);
        }
        if (r < 0) {
                c->check->n_errors++;
                finding(c, "%s", why.message);
        } else if (state == VHDX_PRESENT || state == VHDX_PARTIAL) {
                if (vhdx_entry_offset(entry) < c->first_block)
                        c->first_block = vhdx_entry_offset(entry);
                check_space(c, "block", block, vhdx_entry_offset(entry), c->v->block_bytes);
        }
        return 0;
}

static void check_bitmap(struct checker *c, uint64_t chunk, uint64_t entry)
{
        enum vhdx_state state = vhdx_entry_state(entry);
        uint64_t offset = vhdx_entry_offset(entry);

        if (state == VHDX_NOT_PRESENT)
                return;
        if (state != VHDX_PRESENT || !c->v->has_parent || offset < VHDX_HEADER_END ||
            offset > c->v->file_end || VHDX_BITMAP_BLOCK > c->v->file_end - offset) {
                c->check->n_errors++;
                finding(c, "sector bitmap %llu of '%s' has state %u and is at %llu%s",
                        (unsigned long long)chunk, c->image->path, (unsigned)state,
                        (unsigned long long)offset,
                        c->v->has_parent ? "" : ", and there is no parent");
                return;
        }
        check_space(c, "sector bitmap", chunk, offset, VHDX_BITMAP_BLOCK);
}

/* Space that a block keeps though its content is not there counts as used, if nothing else is in
 * it. */
static void keep_space(struct checker *c, uint64_t entry)
{
        enum vhdx_state state = vhdx_entry_state(entry);

        if (vhdx_entry_offset(entry) >= VHDX_HEADER_END && vhdx_entry_offset(entry) < FILE_MAX &&
            (state == VHDX_UNDEFINED || state == VHDX_ZERO || state == VHDX_UNMAPPED))
                mark(c, vhdx_entry_offset(entry), c->v->block_bytes);
}

/* Twice: what is there, and then what is kept. */
static int co_check_bat(struct checker *c, bool kept, struct error *err)
{
        const struct vhdx *v = c->v;
        le64 *entries = malloc(STEP);
        int r = 0;

        if (!entries)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint64_t i = 0; r == 0 && i < v->n_entries; i += STEP / 8) {
                uint64_t n = v->n_entries - i < STEP / 8 ? v->n_entries - i : STEP / 8;

                r = co_image_check_pause(c->check, i, err);
                if (r == 0)
                        r = co_vhdx_pread(c->image, entries, n * 8, v->bat.offset + i * 8, err);
                for (uint64_t k = 0; r == 0 && k < n; k++) {
                        uint64_t chunk = (i + k) / (v->chunk_blocks + 1);
                        uint64_t within = (i + k) % (v->chunk_blocks + 1);
                        uint64_t block = chunk * v->chunk_blocks + within;

                        if (within == v->chunk_blocks) {
                                if (!kept)
                                        check_bitmap(c, chunk, le64_get(entries[k]));
                        } else if (block < v->n_blocks) {
                                if (kept)
                                        keep_space(c, le64_get(entries[k]));
                                else
                                        r = co_check_block(c, block, le64_get(entries[k]), err);
                        }
                }
        }
        free(entries);
        return r;
}

/* ---- space ---- */

/* Gaps shorter than a block are left by those who align; a lost block leaves a longer one. QEMU
 * puts the first block at 8 MiB. */
static uint64_t blocks_lost(const struct checker *c, uint64_t gap, uint64_t end)
{
        if (end <= c->first_block && gap < START_GAP)
                return 0;
        return gap / c->v->block_bytes;
}

static int co_count_space(struct checker *c, struct error *err)
{
        struct image_check *check = c->check;
        uint64_t gap = 0;

        for (uint64_t i = 0; i <= c->n_mib; i++) {
                uint64_t lost;
                int r = co_image_check_pause(check, i, err);

                if (r < 0)
                        return r;
                if (i < c->n_mib && !is_used(c, i)) {
                        gap += VHDX_MIB;
                        continue;
                }
                lost = blocks_lost(c, gap, i * VHDX_MIB);
                if (lost > 0) {
                        check->n_leaks += lost;
                        check->leaked_bytes += lost * c->v->block_bytes;
                        finding(c, "nothing of '%s' is in the %llu bytes at %llu", c->image->path,
                                (unsigned long long)gap, (unsigned long long)(i * VHDX_MIB - gap));
                }
                gap = 0;
                if (i < c->n_mib) {
                        check->allocated_bytes += VHDX_MIB;
                        check->end_bytes = (i + 1) * VHDX_MIB;
                }
        }
        return 0;
}

int co_vhdx_check(struct image *image, struct image_check *check, struct error *err)
{
        struct vhdx *v = image->state;
        struct checker c = {.image = image, .v = v, .check = check, .first_block = UINT64_MAX};
        int r;

        if (v->file_end > FILE_MAX)
                return error_set(err, -ENOTSUP,
                                 "'%s' has %llu bytes: files of up to 128 TiB can be checked",
                                 image->path, (unsigned long long)v->file_end);
        c.n_mib = (v->file_end + VHDX_MIB - 1) / VHDX_MIB;
        c.used = calloc(1, c.n_mib / 8 + 1);
        if (!c.used)
                return error_set(err, -ENOMEM, "out of memory");
        if (image->info.dirty)
                finding(&c,
                        "'%s' has %llu log entries that were not written back; what they say is "
                        "checked",
                        image->path, (unsigned long long)v->n_log_entries);
        if (v->lacks_items) {
                check->n_errors++;
                finding(&c, "the metadata of '%s' lacks page 83 data or a physical sector size",
                        image->path);
        }
        r = co_check_copies(&c, err);
        mark(&c, 0, VHDX_HEADER_END);
        for (size_t i = 0; i < v->n_regions; i++) /* apart from one another, as opening saw */
                mark(&c, v->regions[i].offset, v->regions[i].length);
        if (r == 0)
                r = co_check_bat(&c, false, err);
        if (r == 0)
                r = co_check_bat(&c, true, err);
        if (r == 0)
                r = co_count_space(&c, err);
        free(c.used);
        return r;
}
