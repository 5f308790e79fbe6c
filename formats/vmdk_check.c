/* vmdk_check.c - whether an image's tables are right: every grain inside of its file and in a place of
 * its own, both copies of the tables the same. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vmdk_internal.h"

#define USED_MAX ((size_t)32 << 20) /* bytes of a bit map of places in the file */

struct walk {
        struct image_check *check;
        struct vmdk_cache *cache;
        const struct vmdk_sparse *s;
        uint8_t *used; /* a bit for each grain's length of the file; NULL: not looked at */
        uint64_t n_used_bits;
        unsigned n_reported;
        uint64_t table_bytes; /* of the tables of an extent that were looked into */
        uint64_t n_looked;    /* entries, of tables and directories */
};

static void finding(struct walk *w, uint64_t at, const char *what)
{
        char sentence[512];

        w->check->n_errors++;
        if (!w->check->report || w->n_reported++ >= IMAGE_FINDINGS_MAX)
                return;
        snprintf(sentence, sizeof(sentence), "'%s': the entry at offset %llu %s", w->s->file->path,
                 (unsigned long long)at, what);
        w->check->report(w->check, sentence);
}

/* Grains need not lie at multiples of their size: one takes its place in two bits then, and only
 * those that begin at the same place are sure to collide; so places are counted from the first
 * grain's remainder, and files of mixed ones are let be. */
static void take_place(struct walk *w, uint64_t entry_at, uint64_t at, uint64_t *remainder)
{
        uint64_t bit;

        if (!w->used)
                return;
        if (*remainder == UINT64_MAX)
                *remainder = at % w->s->grain_bytes;
        if (at % w->s->grain_bytes != *remainder) {
                free(w->used);
                w->used = NULL;
                return;
        }
        bit = at / w->s->grain_bytes;
        if (bit >= w->n_used_bits)
                return;
        if (w->used[bit / 8] & (1u << bit % 8))
                finding(w, entry_at, "has a grain that another entry has, too");
        w->used[bit / 8] |= (uint8_t)(1u << bit % 8);
}

static void check_grain(struct walk *w, uint64_t entry_at, uint32_t gte, uint64_t length,
                        uint64_t *remainder)
{
        const struct vmdk_sparse *s = w->s;
        uint64_t at = (uint64_t)gte * VMDK_SECTOR;

        if (gte == 0 || (gte == VMDK_GTE_ZERO && s->zero_grains))
                return;
        if (s->compressed)
                length = 1; /* how much more is only known by inflating it */
        if (at >= s->file->file_bytes || length > s->file->file_bytes - at) {
                finding(w, entry_at, "has a grain outside of the file");
                return;
        }
        if (at < s->overhead_bytes)
                finding(w, entry_at, "has a grain among the file's tables");
        w->check->allocated_bytes += s->compressed ? 0 : s->grain_bytes;
        if (at + length > w->check->end_bytes)
                w->check->end_bytes = at + length;
        if (!s->compressed)
                take_place(w, entry_at, at, remainder);
}

static int co_check_copy(struct walk *w, uint64_t gde, uint64_t table, uint64_t *ret_copy,
                         struct error *err)
{
        const struct vmdk_sparse *s = w->s;
        uint32_t sector;
        int r;

        *ret_copy = 0;
        if (!s->rgd_offset)
                return 0;
        r = co_vmdk_entry(w->cache, s, s->rgd_offset + gde * 4, &sector, err);
        if (r < 0)
                return r;
        *ret_copy = (uint64_t)sector * VMDK_SECTOR;
        if ((sector == 0) != (table == 0) ||
            (sector && *ret_copy + (uint64_t)s->gtes_per_gt * 4 > s->file->file_bytes)) {
                finding(w, s->rgd_offset + gde * 4, "of the redundant directory is not right");
                *ret_copy = 0;
        }
        return 0;
}

/* Entries of a directory that lead to the same table, or into each other's, could keep us busy for ever. */
static int take_table(struct walk *w, struct error *err)
{
        const struct vmdk_sparse *s = w->s;

        w->table_bytes += (uint64_t)s->gtes_per_gt * 4;
        return w->table_bytes <= s->file->file_bytes
                   ? 0
                   : error_set(err, -EBADMSG,
                               "the grain tables of '%s' are together longer than the file",
                               s->file->path);
}

static int co_check_table(struct walk *w, uint64_t gde, uint64_t *remainder, struct error *err)
{
        const struct vmdk_sparse *s = w->s;
        uint64_t table, copy, disk = gde * s->gtes_per_gt * s->grain_bytes,
                              end = s->capacity_sectors * VMDK_SECTOR;
        struct error e = ERROR_INIT;
        int r = co_vmdk_table(w->cache, s, gde, &table, &e);

        if (r == -EBADMSG) {
                finding(w, s->gd_offset + gde * 4, "has a grain table outside of the file");
                return 0;
        }
        if (r < 0) {
                if (err)
                        *err = e;
                return r;
        }
        r = co_check_copy(w, gde, table, &copy, err);
        if (r == 0 && table)
                r = take_table(w, err);
        for (uint32_t i = 0; r == 0 && table && i < s->gtes_per_gt && disk < end; i++) {
                uint64_t left = end - disk;
                uint32_t gte = 0, other = 0;

                r = co_image_check_pause(w->check, w->n_looked++, err);
                if (r == 0)
                        r = co_vmdk_entry(w->cache, s, table + UINT64_C(4) * i, &gte, err);
                if (r == 0 && copy)
                        r = co_vmdk_entry(w->cache, s, copy + UINT64_C(4) * i, &other, err);
                if (r < 0)
                        break;
                check_grain(w, table + UINT64_C(4) * i, gte,
                            left < s->grain_bytes ? left : s->grain_bytes, remainder);
                if (copy && other != gte)
                        finding(w, copy + UINT64_C(4) * i,
                                "of the redundant tables is another one");
                disk += s->grain_bytes;
        }
        return r;
}

static int co_check_sparse(struct walk *w, struct error *err)
{
        const struct vmdk_sparse *s = w->s;
        uint64_t remainder = UINT64_MAX;
        int r = 0;

        if (s->by_copy)
                finding(w, 56,
                        "of the header leads to no grain directory; the redundant one is used");
        w->n_used_bits = s->file->file_bytes / s->grain_bytes + 1;
        if (w->n_used_bits / 8 < USED_MAX)
                w->used = calloc(w->n_used_bits / 8 + 1, 1);
        w->table_bytes = 0;
        for (uint64_t gde = 0; r == 0 && gde < s->n_gdes; gde++) {
                r = co_image_check_pause(w->check, w->n_looked++, err);
                if (r == 0)
                        r = co_check_table(w, gde, &remainder, err);
        }
        free(w->used);
        w->used = NULL;
        return r;
}

int co_vmdk_check(struct image *image, struct image_check *check, struct error *err)
{
        struct vmdk *v = image->state;
        struct walk w = {.check = check, .cache = &v->cache};
        int r = 0;

        for (size_t i = 0; r == 0 && i < v->n_extents; i++) {
                w.s = &v->extents[i].sparse;
                r = vmdk_part_check(image, &v->extents[i], err);
                if (r == 0 && w.s->file)
                        r = co_check_sparse(&w, err);
        }
        return r;
}
