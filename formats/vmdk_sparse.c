/* vmdk_sparse.c - sparse extents for reading: headers, and the tables that say where grains are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vmdk_internal.h"

#define SECTORS_MAX  (IMAGE_SIZE_MAX / VMDK_SECTOR)
#define FOOTER_BYTES ((size_t)3 * VMDK_SECTOR)
#define COWD_GTES    4096u
#define GDES_AT_ONCE 4096u /* entries that a search for the end of a gap looks at */

static unsigned long long ull(uint64_t n)
{
        return n;
}

/* ---- headers ---- */

static int bad_header(const struct vmdk_sparse *s, uint64_t at, const char *what, uint64_t value,
                      struct error *err)
{
        return error_set(err, -EBADMSG, "'%s': the header at offset %llu %s (%llu)", s->file->path,
                         ull(at), what, ull(value));
}

/* Sectors to bytes; false where they do not lie inside of the file with @length bytes behind. */
static bool inside(const struct vmdk_sparse *s, uint64_t sector, uint64_t length,
                   uint64_t *ret_offset)
{
        if (sector > SECTORS_MAX || sector * VMDK_SECTOR > s->file->file_bytes ||
            length > s->file->file_bytes - sector * VMDK_SECTOR)
                return false;
        *ret_offset = sector * VMDK_SECTOR;
        return true;
}

/* What all kinds of sparse extents have. */
static int take_geometry(struct vmdk_sparse *s, uint64_t at, uint64_t capacity, uint64_t grain,
                         uint64_t gtes, struct error *err)
{
        uint64_t per_gde;

        if (capacity > SECTORS_MAX)
                return bad_header(s, at, "has a capacity of too many sectors", capacity, err);
        if (grain == 0 || (grain & (grain - 1)) || grain > VMDK_GRAIN_MAX / VMDK_SECTOR)
                return bad_header(s, at,
                                  "has a grain size that is no power of two from 1 to 4096 sectors",
                                  grain, err);
        if (gtes == 0 || gtes > VMDK_GTES_MAX)
                return bad_header(s, at, "has grain tables that are not of 1 to 4096 entries", gtes,
                                  err);
        s->capacity_sectors = capacity;
        s->grain_bytes = (uint32_t)grain * VMDK_SECTOR;
        s->gtes_per_gt = (uint32_t)gtes;
        per_gde = grain * gtes;
        s->n_gdes = (capacity + per_gde - 1) / per_gde;
        if (s->n_gdes > VMDK_GDES_MAX)
                return bad_header(s, at, "needs a grain directory of more than 33554432 entries",
                                  s->n_gdes, err);
        return 0;
}

/* A directory that is needed is not at the file's beginning, where the header is. */
static bool take_directory(const struct vmdk_sparse *s, uint64_t sector, uint64_t *ret_offset)
{
        return inside(s, sector, s->n_gdes * 4, ret_offset) && (sector > 0 || s->n_gdes == 0);
}

static int no_directory(const struct vmdk_sparse *s, uint64_t at, uint64_t sector,
                        struct error *err)
{
        return bad_header(s, at, "has a grain directory outside of the file, at sector", sector,
                          err);
}

/* Of the two directories that a file may have, either will do: one that is not there is not missed, it
 * is what the other one is for. */
static int take_directories(struct vmdk_sparse *s, const struct vmdk_header_disk *h, uint64_t at,
                            struct error *err)
{
        bool redundant = le32_get(h->flags) & VMDK_FLAG_REDUNDANT;

        if (!redundant || !take_directory(s, le64_get(h->rgd_offset), &s->rgd_offset))
                s->rgd_offset = 0;
        s->by_copy = !take_directory(s, le64_get(h->gd_offset), &s->gd_offset);
        if (!s->by_copy)
                return 0;
        if (s->rgd_offset == 0)
                return no_directory(s, at, le64_get(h->gd_offset), err);
        s->gd_offset = s->rgd_offset;
        s->rgd_offset = 0;
        s->dirty = true;
        return 0;
}

static int check_kind(struct vmdk_sparse *s, const struct vmdk_header_disk *h, uint64_t at,
                      struct error *err)
{
        static const uint8_t newlines[4] = {'\n', ' ', '\r', '\n'};
        uint32_t flags = le32_get(h->flags);

        s->version = le32_get(h->version);
        if (le32_get(h->magic) != VMDK_MAGIC)
                return bad_header(s, at, "has no magic number", le32_get(h->magic), err);
        if (s->version == VMDK_UNFINISHED)
                return error_set(err, -EBADMSG, "'%s' was not written to its end", s->file->path);
        if (s->version < 1 || s->version > 3)
                return error_set(err, -ENOTSUP, "'%s' is VMDK of version %u, which is not known",
                                 s->file->path, s->version);
        if ((flags & VMDK_FLAG_NEWLINES) && memcmp(h->newlines, newlines, 4) != 0)
                return error_set(err, -EBADMSG, "'%s' was damaged by a transfer as text",
                                 s->file->path);
        s->zero_grains = flags & VMDK_FLAG_ZERO_GRAINS;
        s->compressed = flags & VMDK_FLAG_COMPRESSED;
        s->markers = flags & VMDK_FLAG_MARKERS;
        s->dirty = h->unclean_shutdown != 0;
        if (s->compressed && le16_get(h->compress_algorithm) != VMDK_COMPRESS_DEFLATE)
                return error_set(err, -ENOTSUP,
                                 "'%s' is compressed by algorithm %u, which is not known",
                                 s->file->path, le16_get(h->compress_algorithm));
        return 0;
}

static int take_header(struct vmdk_sparse *s, const struct vmdk_header_disk *h, uint64_t at,
                       struct error *err)
{
        uint64_t size = le64_get(h->descriptor_size), overhead = le64_get(h->overhead);
        int r = check_kind(s, h, at, err);

        if (r == 0)
                r = take_geometry(s, at, le64_get(h->capacity), le64_get(h->grain_size),
                                  le32_get(h->gtes_per_gt), err);
        if (r == 0)
                r = take_directories(s, h, at, err);
        if (r < 0)
                return r;
        s->overhead_bytes = overhead < SECTORS_MAX ? overhead * VMDK_SECTOR : IMAGE_SIZE_MAX;
        if (le64_get(h->descriptor_offset) == 0 || size == 0)
                return 0;
        if (size > VMDK_DESCRIPTOR_MAX / VMDK_SECTOR)
                return bad_header(s, at, "has a descriptor of too many sectors", size, err);
        s->descriptor_bytes = size * VMDK_SECTOR;
        if (!inside(s, le64_get(h->descriptor_offset), s->descriptor_bytes, &s->descriptor_offset))
                return bad_header(s, at, "has a descriptor outside of the file, at sector",
                                  le64_get(h->descriptor_offset), err);
        return 0;
}

/* "Stream-Optimized Compressed Sparse Extents": a file that was written from its beginning to its end
 * has its true header in the second last sector, between two markers. */
static int co_take_footer(struct vmdk_sparse *s, struct error *err)
{
        struct {
                struct vmdk_marker_disk marker;
                struct vmdk_header_disk header;
                struct vmdk_marker_disk end;
        } * footer;
        uint64_t end = s->file->file_bytes / VMDK_SECTOR * VMDK_SECTOR, at;
        int r;

        if (end < VMDK_SECTOR + FOOTER_BYTES)
                return error_set(err, -EBADMSG, "'%s' ends before its footer", s->file->path);
        footer = malloc(sizeof(*footer));
        if (!footer)
                return error_set(err, -ENOMEM, "out of memory");
        _Static_assert(sizeof(*footer) == FOOTER_BYTES, "three sectors");
        at = end - FOOTER_BYTES;
        r = co_image_pread(s->file, footer, FOOTER_BYTES, at, err);
        if (r == 0 && (le32_get(footer->marker.size) != 0 ||
                       le32_get(footer->marker.type) != VMDK_MARKER_FOOTER ||
                       le64_get(footer->end.value) != 0 || le32_get(footer->end.size) != 0 ||
                       le32_get(footer->end.type) != VMDK_MARKER_EOS)) {
                error_set(err, -EBADMSG, "'%s' has no footer at offset %llu", s->file->path,
                          ull(at));
                r = error_hint(err, "it was not copied or downloaded to its end");
        }
        if (r == 0)
                r = take_header(s, &footer->header, at + VMDK_SECTOR, err);
        free(footer);
        return r;
}

static int take_cowd(struct vmdk_sparse *s, const struct vmdk_cowd_disk *h, struct error *err)
{
        int r;

        s->version = le32_get(h->version);
        if (s->version != 1)
                return error_set(err, -ENOTSUP, "'%s' is COWD of version %u, which is not known",
                                 s->file->path, s->version);
        r = take_geometry(s, 0, le32_get(h->capacity), le32_get(h->grain_size), COWD_GTES, err);
        if (r == 0 && !take_directory(s, le32_get(h->gd_offset), &s->gd_offset))
                r = no_directory(s, 0, le32_get(h->gd_offset), err);
        if (r == 0 && le32_get(h->n_gdes) < s->n_gdes)
                return bad_header(s, 0, "has too few entries in its grain directory",
                                  le32_get(h->n_gdes), err);
        return r;
}

int co_vmdk_sparse_open(struct vmdk_sparse *s, struct error *err)
{
        union {
                struct vmdk_header_disk hosted;
                struct vmdk_cowd_disk cowd;
        } h;
        int r;

        if (s->file->file_bytes < sizeof(h))
                return error_set(err, -EBADMSG, "'%s' is shorter than a header", s->file->path);
        r = co_image_pread(s->file, &h, sizeof(h), 0, err);
        if (r < 0)
                return r;
        if (le32_get(h.cowd.magic) == VMDK_COWD_MAGIC)
                return take_cowd(s, &h.cowd, err);
        if (le32_get(h.hosted.magic) == VMDK_MAGIC &&
            le64_get(h.hosted.gd_offset) == VMDK_GD_AT_END) {
                r = check_kind(s, &h.hosted, 0, err);
                return r < 0 ? r : co_take_footer(s, err);
        }
        return take_header(s, &h.hosted, 0, err);
}

/* ---- tables ---- */

void vmdk_cache_clear(struct vmdk_cache *cache)
{
        for (unsigned i = 0; i < VMDK_PAGES; i++)
                free(cache->pages[i].bytes);
        for (unsigned i = 0; i < VMDK_KEPT; i++)
                free(cache->kept[i].bytes);
        *cache = (struct vmdk_cache){0};
}

/* No page is used across a suspension: what a reader wants is copied, so that another coroutine may
 * put a page in its place meanwhile, or twice the same. */
int co_vmdk_entry(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t offset,
                  uint32_t *ret_entry, struct error *err)
{
        uint64_t number = offset / VMDK_PAGE;
        struct vmdk_page *page = &cache->pages[(number + s->id) % VMDK_PAGES];
        uint8_t *bytes;
        le32 entry;
        int r;

        if (!page->bytes || page->number != number || page->id != s->id) {
                bytes = malloc(VMDK_PAGE);
                if (!bytes)
                        return error_set(err, -ENOMEM, "out of memory");
                r = co_image_pread_padded(s->file, bytes, VMDK_PAGE, number * VMDK_PAGE, err);
                if (r < 0) {
                        free(bytes);
                        return r;
                }
                free(page->bytes);
                *page = (struct vmdk_page){bytes, number, s->id};
        }
        memcpy(&entry, page->bytes + offset % VMDK_PAGE, sizeof(entry));
        *ret_entry = le32_get(entry);
        return 0;
}

int co_vmdk_table(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t gde,
                  uint64_t *ret_offset, struct error *err)
{
        uint32_t sector, other = 0;
        int r = co_vmdk_entry(cache, s, s->gd_offset + gde * 4, &sector, err);

        if (r < 0)
                return r;
        if (sector == 0) { /* none, however short the file is */
                *ret_offset = 0;
                return 0;
        }
        if (inside(s, sector, (uint64_t)s->gtes_per_gt * 4, ret_offset))
                return 0;
        if (s->rgd_offset) { /* "redundant grain directory": what it is for */
                r = co_vmdk_entry(cache, s, s->rgd_offset + gde * 4, &other, err);
                if (r < 0)
                        return r;
                if (other && inside(s, other, (uint64_t)s->gtes_per_gt * 4, ret_offset))
                        return 0;
        }
        return error_set(err, -EBADMSG,
                         "'%s': the grain directory's entry at offset %llu has a grain table "
                         "outside of the file, at sector %u",
                         s->file->path, ull(s->gd_offset + gde * 4), sector);
}

static enum vmdk_content content_of(const struct vmdk_sparse *s, uint32_t gte)
{
        if (gte == 0)
                return VMDK_ABSENT;
        if (gte == VMDK_GTE_ZERO && s->zero_grains)
                return VMDK_ZEROES;
        return s->compressed ? VMDK_DEFLATED : VMDK_PLAIN;
}

/* Grain tables that are not there, from @gde on, up to a bound. */
static int co_map_gap(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t gde,
                      uint64_t offset, uint64_t length, struct vmdk_run *ret_run, struct error *err)
{
        uint64_t per_gde = (uint64_t)s->gtes_per_gt * s->grain_bytes, end = offset + length, table;
        unsigned left = GDES_AT_ONCE;

        for (gde++; gde * per_gde < end && left > 0; gde++, left--) {
                int r = co_vmdk_table(cache, s, gde, &table, err);

                if (r < 0)
                        return r;
                if (table != 0)
                        break;
        }
        if (gde * per_gde < end)
                length = gde * per_gde - offset;
        *ret_run = (struct vmdk_run){.content = VMDK_ABSENT, .length = length};
        return 0;
}

/* How much of the grain at @offset is wanted. */
static uint64_t piece(const struct vmdk_sparse *s, uint64_t offset, uint64_t end)
{
        uint64_t left = s->grain_bytes - offset % s->grain_bytes;

        return left < end - offset ? left : end - offset;
}

static bool grain_is_inside(const struct vmdk_sparse *s, uint64_t at, uint64_t length)
{
        return at < s->file->file_bytes && length <= s->file->file_bytes - at;
}

int co_vmdk_map(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t offset,
                uint64_t length, struct vmdk_run *ret_run, struct error *err)
{
        uint64_t per_gde = (uint64_t)s->gtes_per_gt * s->grain_bytes, gde = offset / per_gde, table,
                 end = offset + length, at = offset;
        struct vmdk_run run = {0};
        int r = co_vmdk_table(cache, s, gde, &table, err);

        if (r < 0)
                return r;
        if (table == 0)
                return co_map_gap(cache, s, gde, offset, length, ret_run, err);
        if (end > (gde + 1) * per_gde)
                end = (gde + 1) * per_gde;
        while (at < end) {
                uint64_t n = piece(s, at, end), entry_at, in_file;
                enum vmdk_content content;
                uint32_t gte;

                entry_at = table + at / s->grain_bytes % s->gtes_per_gt * 4;
                r = co_vmdk_entry(cache, s, entry_at, &gte, err);
                if (r < 0)
                        return r;
                content = content_of(s, gte);
                in_file = (uint64_t)gte * VMDK_SECTOR + at % s->grain_bytes;
                if (at > offset &&
                    (content != run.content ||
                     (content == VMDK_PLAIN && (in_file != run.file_offset + run.length ||
                                                !grain_is_inside(s, in_file, n)))))
                        break;
                if (content == VMDK_PLAIN && !grain_is_inside(s, in_file, n))
                        return error_set(err, -EBADMSG,
                                         "'%s': the grain table's entry at offset %llu has a "
                                         "grain outside of the file, at sector %u",
                                         s->file->path, ull(entry_at), gte);
                if (at == offset)
                        run = (struct vmdk_run){.content = content, .file_offset = in_file};
                run.length += n;
                at += n;
        }
        *ret_run = run;
        return 0;
}
