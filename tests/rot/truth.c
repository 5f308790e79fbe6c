/* truth.c - see truth.h */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/crc32c.h"
#include "tests/rot/truth.h"

#define WHOLE_BYTES (UINT64_C(1) << 20) /* larger roots are read where they hold something */
#define CHUNK       (64u * POOL_BLOCK)
#define RUBBISH     0xa5 /* in buffers before a read: neither data nor zeroes */

/* What cannot be had is memory of the tool's own. */
static void *must(void *memory)
{
        if (memory == NULL)
                abort();
        return memory;
}

/* ---- what is listed ---- */

static uint32_t about_add(uint32_t about, const void *data, size_t length)
{
        return crc32c(about, data, length);
}

static int about_property(const char *key, const char *value, void *arg)
{
        uint32_t *about = arg;

        *about = about_add(*about, key, strlen(key) + 1);
        *about = about_add(*about, value, strlen(value) + 1);
        return 0;
}

static void listed_name(const struct root_info *info, char name[2 * POOL_NAME_MAX + 2])
{
        snprintf(name, 2 * POOL_NAME_MAX + 2, "%s%s%s", info->volume, info->snapshot ? "@" : "",
                 info->snapshot ? info->snapshot : "");
}

static uint32_t listed_about(const struct root_info *info)
{
        const uint64_t numbers[] = {info->kind,
                                    info->id,
                                    info->parent_id,
                                    info->volume_id,
                                    info->referenced_bytes,
                                    info->n_children,
                                    info->n_clones,
                                    (uint64_t)info->created_ns,
                                    info->freed_if_deleted_bytes};
        uint32_t about = about_add(0, numbers, sizeof(numbers));

        if (info->origin_volume)
                about = about_add(about, info->origin_volume, strlen(info->origin_volume));
        if (info->origin_snapshot)
                about = about_add(about, info->origin_snapshot, strlen(info->origin_snapshot));
        return about_add(about, info->uuid, sizeof(info->uuid));
}

static int take_listed(const struct root_info *info, void *arg)
{
        struct truth *truth = arg;
        struct truth_root *root;

        truth->root = must(realloc(truth->root, (truth->n_roots + 1) * sizeof(*truth->root)));
        root = &truth->root[truth->n_roots++];
        memset(root, 0, sizeof(*root));
        listed_name(info, root->name);
        root->size_bytes = info->size_bytes;
        root->about = listed_about(info);
        return 0;
}

/* ---- block status ---- */

/* -E2BIG  more extents than a truth has room for */
static int co_status(struct volume *volume, struct volume_extent extent[TRUTH_EXTENTS],
                     size_t *ret_n)
{
        uint64_t at = 0, size = volume_size(volume);

        *ret_n = 0;
        while (at < size) {
                struct volume_extent part[16];
                size_t n;
                int r = co_volume_status(volume, at, size - at, part, 16, &n);

                if (r < 0)
                        return r;
                for (size_t i = 0; i < n; i++) {
                        at += part[i].length;
                        if (*ret_n > 0 && extent[*ret_n - 1].flags == part[i].flags) {
                                extent[*ret_n - 1].length += part[i].length;
                                continue;
                        }
                        if (*ret_n == TRUTH_EXTENTS)
                                return -E2BIG;
                        extent[(*ret_n)++] = part[i];
                }
        }
        return 0;
}

/* ---- taking ---- */

static void range_add(struct truth_root *root, uint64_t offset, uint64_t length)
{
        root->range = must(realloc(root->range, (root->n_ranges + 1) * sizeof(*root->range)));
        root->range[root->n_ranges++] =
            (struct truth_range){.offset = offset, .length = length, .data = must(malloc(length))};
}

static void ranges_choose(struct truth_root *root)
{
        uint64_t at = 0;

        if (root->size_bytes <= WHOLE_BYTES) {
                range_add(root, 0, root->size_bytes);
                return;
        }
        for (size_t i = 0; i < root->n_extents; at += root->extent[i++].length) {
                uint64_t length = root->extent[i].length, edge = POOL_BLOCK;

                if (!(root->extent[i].flags & EXTENT_ZERO) || length <= 2 * edge) {
                        range_add(root, at, length);
                } else {
                        range_add(root, at, edge);
                        range_add(root, at + length - edge, edge);
                }
        }
}

static int co_root_take(struct pool *pool, struct truth_root *root)
{
        struct volume *volume;
        int r = co_volume_get_properties(pool, root->name, about_property, &root->about, NULL);

        if (r == 0)
                r = co_volume_open(pool, root->name, &volume, NULL);
        if (r < 0)
                return r;
        r = co_status(volume, root->extent, &root->n_extents);
        if (r == 0)
                ranges_choose(root);
        for (size_t i = 0; i < root->n_ranges && r == 0; i++)
                r = co_volume_read(volume, root->range[i].data, root->range[i].length,
                                   root->range[i].offset);
        co_volume_close(volume);
        return r;
}

int co_truth_take(struct pool *pool, struct truth *ret_truth)
{
        struct truth truth = {0};
        int r = co_pool_list(pool, take_listed, &truth, NULL);

        for (size_t i = 0; i < truth.n_roots && r == 0; i++)
                r = co_root_take(pool, &truth.root[i]);
        if (r < 0)
                truth_free(&truth);
        else
                *ret_truth = truth;
        return r;
}

void truth_free(struct truth *truth)
{
        for (size_t i = 0; i < truth->n_roots; i++) {
                for (size_t k = 0; k < truth->root[i].n_ranges; k++)
                        free(truth->root[i].range[k].data);
                free(truth->root[i].range);
        }
        free(truth->root);
        *truth = (struct truth){0};
}

/* ---- comparing ---- */

static void __attribute__((format(printf, 2, 3)))
wrong(struct comparison *c, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        if (c->n_wrong++ == 0)
                vsnprintf(c->wrong, sizeof(c->wrong), format, ap);
        va_end(ap);
}

/* An answer that is no success: the errors that damage is told by, with a sentence where the call
 * has one. */
static void failed(struct comparison *c, int r, const struct error *err, const char *what,
                   const char *name)
{
        if (r != -EIO && r != -EUCLEAN)
                wrong(c, "%s '%s' fails with '%s'", what, name, strerror(-r));
        else if (err != NULL && err->message[0] == '\0')
                wrong(c, "%s '%s' fails without a sentence", what, name);
        else
                c->n_errors++;
}

struct listing {
        const struct truth *truth;
        struct comparison *c;
        size_t n;
};

static int compare_listed(const struct root_info *info, void *arg)
{
        struct listing *listing = arg;
        const struct truth_root *root = &listing->truth->root[listing->n];
        char name[2 * POOL_NAME_MAX + 2];

        listed_name(info, name);
        if (listing->n++ >= listing->truth->n_roots)
                wrong(listing->c, "'%s' is listed and there is no such", name);
        else if (strcmp(name, root->name) != 0)
                wrong(listing->c, "'%s' is listed in place of '%s'", name, root->name);
        else if (info->size_bytes != root->size_bytes)
                wrong(listing->c, "'%s' is listed with another size", name);
        return 0;
}

static void co_compare_list(struct pool *pool, const struct truth *truth, struct comparison *c)
{
        struct listing listing = {.truth = truth, .c = c};
        struct error err = ERROR_INIT;
        int r = co_pool_list(pool, compare_listed, &listing, &err);

        if (r < 0)
                failed(c, r, &err, "the list of", "all");
        else if (listing.n < truth->n_roots)
                wrong(c, "'%s' is not listed", truth->root[listing.n].name);
}

static int compute_about(const struct root_info *info, void *arg)
{
        uint32_t *about = arg;

        *about = listed_about(info);
        return 0;
}

static void co_compare_about(struct pool *pool, const struct truth_root *root, struct comparison *c)
{
        struct error err = ERROR_INIT;
        uint32_t about = 0;
        int r = co_root_get(pool, root->name, compute_about, &about, &err);

        if (r == 0)
                r = co_volume_get_properties(pool, root->name, about_property, &about, &err);
        if (r < 0)
                failed(c, r, &err, "what is told of", root->name);
        else if (about != root->about)
                wrong(c, "what is told of '%s' is not so", root->name);
}

static bool is_only(const uint8_t *bytes, size_t length, uint8_t value)
{
        return bytes[0] == value && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* A part of a range that could not be read as a whole: block by block. */
static void co_compare_blocks(struct volume *volume, const struct truth_root *root,
                              const struct truth_range *range, uint64_t at, uint64_t length,
                              uint8_t *buffer, struct comparison *c)
{
        for (uint64_t end = at + length; at < end; at += POOL_BLOCK) {
                uint64_t n = end - at < POOL_BLOCK ? end - at : POOL_BLOCK;
                int r;

                memset(buffer, RUBBISH, n);
                r = co_volume_read(volume, buffer, n, range->offset + at);
                if (r < 0)
                        failed(c, r, NULL, "reading", root->name);
                if (r < 0 && !is_only(buffer, n, 0))
                        wrong(c, "'%s' at byte %llu: an error, and a buffer that is not zero",
                              root->name, (unsigned long long)(range->offset + at));
                if (r == 0 && memcmp(buffer, range->data + at, n) != 0)
                        wrong(c, "'%s' holds other data at byte %llu", root->name,
                              (unsigned long long)(range->offset + at));
        }
}

static void co_compare_range(struct volume *volume, const struct truth_root *root,
                             const struct truth_range *range, uint8_t *buffer, struct comparison *c)
{
        for (uint64_t at = 0; at < range->length; at += CHUNK) {
                uint64_t n = range->length - at < CHUNK ? range->length - at : CHUNK;
                int r;

                memset(buffer, RUBBISH, n);
                r = co_volume_read(volume, buffer, n, range->offset + at);
                if (r == 0 && memcmp(buffer, range->data + at, n) == 0)
                        continue;
                co_compare_blocks(volume, root, range, at, n, buffer, c);
        }
}

static bool extents_equal(const struct volume_extent *a, size_t n_a, const struct volume_extent *b,
                          size_t n_b)
{
        bool equal = n_a == n_b;

        for (size_t i = 0; i < n_a && equal; i++)
                equal = a[i].length == b[i].length && a[i].flags == b[i].flags;
        return equal;
}

static void co_compare_root(struct pool *pool, const struct truth_root *root, uint8_t *buffer,
                            struct comparison *c)
{
        struct volume_extent extent[TRUTH_EXTENTS];
        struct error err = ERROR_INIT;
        struct volume *volume;
        size_t n;
        int r = co_volume_open(pool, root->name, &volume, &err);

        if (r < 0) {
                failed(c, r, &err, "opening", root->name);
                return;
        }
        if (volume_size(volume) != root->size_bytes) {
                wrong(c, "'%s' has another size", root->name);
                co_volume_close(volume);
                return;
        }
        r = co_status(volume, extent, &n);
        if (r < 0)
                failed(c, r, NULL, "block status of", root->name);
        else if (!extents_equal(extent, n, root->extent, root->n_extents))
                wrong(c, "the block status of '%s' is not so", root->name);
        for (size_t i = 0; i < root->n_ranges; i++)
                co_compare_range(volume, root, &root->range[i], buffer, c);
        co_volume_close(volume);
}

void co_truth_compare(struct pool *pool, const struct truth *truth, struct comparison *c)
{
        uint8_t *buffer = must(aligned_alloc(POOL_BLOCK, CHUNK));

        co_compare_list(pool, truth, c);
        for (size_t i = 0; i < truth->n_roots; i++) {
                co_compare_about(pool, &truth->root[i], c);
                co_compare_root(pool, &truth->root[i], buffer, c);
        }
        free(buffer);
}
