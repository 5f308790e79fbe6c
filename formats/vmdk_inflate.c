/* vmdk_inflate.c - compressed grains for reading ("Compressed Grains": a zlib stream each, RFC 1950). */
#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "common/offload.h"
#include "formats/vmdk_internal.h"

#define BATCH_GRAINS 64u

/* One of the grains that are inflated together. */
struct grain {
        uint64_t file_offset;
        uint64_t disk_offset; /* of its begin, in the extent */
        const uint8_t *in;
        size_t in_length;
        uint8_t *out; /* a whole grain's room */
        size_t out_length;
        bool is_whole; /* out is the caller's buffer */
        bool is_damaged;
};

struct batch {
        struct grain grains[BATCH_GRAINS];
        unsigned n;
        size_t grain_bytes;
        uint8_t *span; /* what lies in the file from the first to the last */
        uint8_t *room; /* for a grain of which only a part is wanted, at most two: first and last */
};

static void inflate_batch(void *arg)
{
        struct batch *b = arg;
        struct libdeflate_decompressor *inflater = libdeflate_alloc_decompressor();

        for (unsigned i = 0; i < b->n; i++) {
                struct grain *g = &b->grains[i];
                size_t in; /* a stream may end before what lies there does */

                g->is_damaged = !inflater ||
                                libdeflate_zlib_decompress_ex(inflater, g->in, g->in_length, g->out,
                                                              b->grain_bytes, &in,
                                                              &g->out_length) != LIBDEFLATE_SUCCESS;
        }
        libdeflate_free_decompressor(inflater);
}

/* The most that a grain can take: none is worth compressing to more than itself. Twice that is what
 * readers allow. */
static uint64_t grain_bound(const struct vmdk_sparse *s)
{
        return 2 * (uint64_t)s->grain_bytes + VMDK_GRAIN_MARKER;
}

static int damaged(const struct vmdk_sparse *s, const struct grain *g, const char *what,
                   struct error *err)
{
        return error_set(err, -EBADMSG, "'%s': the compressed grain at offset %llu %s",
                         s->file->path, (unsigned long long)g->file_offset, what);
}

static int co_grain_offset(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t offset,
                           uint64_t *ret, struct error *err)
{
        uint64_t index = offset / s->grain_bytes, table;
        uint32_t gte = 0;
        int r = co_vmdk_table(cache, s, index / s->gtes_per_gt, &table, err);

        if (r == 0 && table)
                r = co_vmdk_entry(cache, s, table + index % s->gtes_per_gt * 4, &gte, err);
        *ret = (uint64_t)gte * VMDK_SECTOR;
        return r;
}

/* Grains from @offset on that lie one behind the other in the file, so that one read has them all;
 * and where the last one must end. */
static int co_gather(struct batch *b, struct vmdk_cache *cache, const struct vmdk_sparse *s,
                     uint64_t offset, uint64_t length, uint64_t *ret_end, struct error *err)
{
        uint64_t bound = grain_bound(s), begin = offset - offset % s->grain_bytes, at = 0,
                 first = 0;
        uint64_t most = bound > VMDK_SPAN_MAX ? bound : VMDK_SPAN_MAX;

        for (b->n = 0; b->n < BATCH_GRAINS; b->n++) {
                uint64_t last = at, disk = begin + (uint64_t)b->n * s->grain_bytes;
                bool wanted = disk < offset + length;

                if (disk >= s->capacity_sectors * VMDK_SECTOR)
                        break;
                int r = co_grain_offset(cache, s, disk, &at, err);
                if (r < 0)
                        return r;
                if (b->n == 0)
                        first = at;
                if (b->n > 0 && (at <= last || at - last > bound))
                        break;
                if (b->n > 0 && (!wanted || at - first + bound > most)) {
                        *ret_end = at; /* the next one's: this must not reach into it */
                        return 0;
                }
                b->grains[b->n] = (struct grain){.file_offset = at, .disk_offset = disk};
        }
        *ret_end = b->grains[b->n - 1].file_offset + bound;
        return 0;
}

static int take_marker(const struct vmdk_sparse *s, struct grain *g, const uint8_t *at,
                       size_t length, struct error *err)
{
        le64 value;
        le32 size;

        if (!s->markers) { /* the stream says itself where it ends */
                g->in = at;
                g->in_length = length;
                return 0;
        }
        if (length < VMDK_GRAIN_MARKER)
                return damaged(s, g, "is cut off", err);
        memcpy(&value, at, sizeof(value));
        memcpy(&size, at + 8, sizeof(size));
        if (le64_get(value) != g->disk_offset / VMDK_SECTOR)
                return damaged(s, g, "is marked as another one", err);
        if (le32_get(size) == 0 || le32_get(size) > 2 * (uint64_t)s->grain_bytes)
                return damaged(s, g, "is marked with a length that none can have", err);
        if (le32_get(size) > length - VMDK_GRAIN_MARKER)
                return damaged(s, g, "reaches into what lies behind it", err);
        g->in = at + VMDK_GRAIN_MARKER;
        g->in_length = le32_get(size);
        return 0;
}

/* What lies in the file, and each grain's part of it. */
static int co_read_span(struct batch *b, const struct vmdk_sparse *s, uint64_t end,
                        struct error *err)
{
        uint64_t begin = b->grains[0].file_offset, file_end = s->file->file_bytes;
        int r;

        if (end > file_end)
                end = file_end;
        if (b->grains[b->n - 1].file_offset >= end)
                return damaged(s, &b->grains[b->n - 1], "lies outside of the file", err);
        b->span = malloc(end - begin);
        if (!b->span)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(s->file, b->span, end - begin, begin, err);
        for (unsigned i = 0; r == 0 && i < b->n; i++) {
                struct grain *g = &b->grains[i];
                uint64_t grain_end = i + 1 < b->n ? b->grains[i + 1].file_offset : end;

                r = take_marker(s, g, b->span + (g->file_offset - begin),
                                grain_end - g->file_offset, err);
        }
        return r;
}

/* Where each grain is inflated to: the caller's buffer, where all of it is wanted. */
static int place_outputs(struct batch *b, uint8_t *buffer, uint64_t offset, uint64_t length,
                         struct error *err)
{
        unsigned n_partial = 0;

        b->room = malloc(2 * b->grain_bytes);
        if (!b->room)
                return error_set(err, -ENOMEM, "out of memory");
        for (unsigned i = 0; i < b->n; i++) {
                struct grain *g = &b->grains[i];

                g->is_whole =
                    g->disk_offset >= offset && g->disk_offset + b->grain_bytes <= offset + length;
                if (g->is_whole)
                        g->out = buffer + (g->disk_offset - offset);
                else
                        g->out = b->room + b->grain_bytes * n_partial++;
        }
        return 0;
}

static const uint8_t *find_kept(const struct vmdk_cache *cache, const struct vmdk_sparse *s,
                                uint64_t file_offset)
{
        for (unsigned i = 0; i < VMDK_KEPT; i++)
                if (cache->kept[i].bytes && cache->kept[i].file_offset == file_offset &&
                    cache->kept[i].id == s->id)
                        return cache->kept[i].bytes;
        return NULL;
}

/* Who reads small pieces in order would inflate the same grain over and over. */
static void keep(struct vmdk_cache *cache, const struct vmdk_sparse *s, const struct grain *g)
{
        unsigned n = (unsigned)(VMDK_KEPT_MAX / s->grain_bytes);
        struct vmdk_kept *kept;
        uint8_t *bytes;

        if (find_kept(cache, s, g->file_offset))
                return;
        n = n > VMDK_KEPT ? VMDK_KEPT : n;
        bytes = malloc(s->grain_bytes);
        if (!bytes) /* then it is inflated again */
                return;
        memcpy(bytes, g->out, g->out_length);
        memset(bytes + g->out_length, 0, s->grain_bytes - g->out_length);
        cache->next_kept = (cache->next_kept + 1) % n;
        kept = &cache->kept[cache->next_kept];
        free(kept->bytes);
        kept->bytes = bytes;
        kept->file_offset = g->file_offset;
        kept->id = s->id;
}

/* What was inflated is as long as a grain, or at least reaches the disk's end. */
static int deliver(struct batch *b, struct vmdk_cache *cache, const struct vmdk_sparse *s,
                   uint8_t *buffer, uint64_t offset, uint64_t length, struct error *err)
{
        uint64_t end = offset + length, disk_end = s->capacity_sectors * VMDK_SECTOR;

        for (unsigned i = 0; i < b->n; i++) {
                struct grain *g = &b->grains[i];
                uint64_t least = disk_end - g->disk_offset;
                uint64_t from = g->disk_offset > offset ? g->disk_offset : offset;
                uint64_t to = g->disk_offset + b->grain_bytes;

                least = least < b->grain_bytes ? least : b->grain_bytes;
                if (g->is_damaged)
                        return damaged(s, g, "cannot be inflated", err);
                if (g->out_length < least)
                        return damaged(s, g, "holds less than a grain", err);
                if (g->is_whole)
                        continue;
                to = to < end ? to : end;
                memcpy(buffer + (from - offset), g->out + (from - g->disk_offset), to - from);
                keep(cache, s, g);
        }
        return 0;
}

static int co_read_batch(struct image *image, struct vmdk_cache *cache, const struct vmdk_sparse *s,
                         struct batch *b, uint8_t *buffer, uint64_t *length, uint64_t offset,
                         struct error *err)
{
        uint64_t end, batch_end;
        int r = co_gather(b, cache, s, offset, *length, &end, err);

        if (r < 0)
                return r;
        batch_end = b->grains[b->n - 1].disk_offset + s->grain_bytes;
        if (batch_end < offset + *length)
                *length = batch_end - offset;
        r = co_read_span(b, s, end, err);
        if (r == 0)
                r = place_outputs(b, buffer, offset, *length, err);
        if (r < 0)
                return r;
        co_offload(image->offload, inflate_batch, b);
        return deliver(b, cache, s, buffer, offset, *length, err);
}

static int co_read_kept(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint8_t *buffer,
                        uint64_t *length, uint64_t offset, bool *ret_found, struct error *err)
{
        uint64_t in_grain = offset % s->grain_bytes, file_offset;
        const uint8_t *kept;
        int r;

        *ret_found = false;
        if (in_grain == 0 && *length >= s->grain_bytes)
                return 0;
        r = co_grain_offset(cache, s, offset, &file_offset, err);
        if (r < 0)
                return r;
        kept = find_kept(cache, s, file_offset);
        if (!kept)
                return 0;
        if (*length > s->grain_bytes - in_grain)
                *length = s->grain_bytes - in_grain;
        memcpy(buffer, kept + in_grain, *length);
        *ret_found = true;
        return 0;
}

int co_vmdk_read_deflated(struct image *image, struct vmdk_cache *cache,
                          const struct vmdk_sparse *s, void *buffer, uint64_t length,
                          uint64_t offset, struct error *err)
{
        struct batch *b = calloc(1, sizeof(*b));
        uint8_t *at = buffer;
        int r = 0;

        if (!b)
                return error_set(err, -ENOMEM, "out of memory");
        b->grain_bytes = s->grain_bytes;
        while (r == 0 && length > 0) {
                uint64_t n = length;
                bool found;

                r = co_read_kept(cache, s, at, &n, offset, &found, err);
                if (r == 0 && !found) {
                        r = co_read_batch(image, cache, s, b, at, &n, offset, err);
                        free(b->span);
                        free(b->room);
                        b->span = b->room = NULL;
                }
                at += n;
                offset += n;
                length -= n;
        }
        free(b);
        return r;
}
