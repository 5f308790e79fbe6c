/* probe.c - see probe.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"
#include "tests/crash/observe.h"
#include "tests/crash/probe.h"

/* ---- differences ---- */

struct range {
        uint64_t offset, length;
};

struct ranges {
        struct range *range;
        size_t n;
        uint64_t size_bytes; /* of the larger of the two */
        bool in_order;
};

static int on_range(uint64_t offset, uint64_t length, void *arg)
{
        struct ranges *ranges = arg;
        const struct range *last = ranges->n > 0 ? &ranges->range[ranges->n - 1] : NULL;

        if (length == 0 || offset >= ranges->size_bytes || length > ranges->size_bytes - offset ||
            (last != NULL && last->offset + last->length >= offset))
                ranges->in_order = false;
        ranges->range = model_grow(ranges->range, ranges->n, sizeof(*ranges->range));
        ranges->range[ranges->n++] = (struct range){offset, length};
        return 0;
}

static const struct content *content_at(const struct observed_root *root, uint64_t block)
{
        static const struct content zeroes;

        for (size_t i = 0; i < root->n_blocks; i++)
                if (root->blocks[i].block == block)
                        return &root->blocks[i].content;
        return &zeroes;
}

static bool is_reported(const struct ranges *ranges, uint64_t block)
{
        for (size_t i = 0; i < ranges->n; i++)
                if (ranges->range[i].offset < (block + 1) * BLOCK_SIZE &&
                    ranges->range[i].offset + ranges->range[i].length > block * BLOCK_SIZE)
                        return true;
        return false;
}

/* Is every block of @a that differs from @b's among the ranges? */
static bool all_reported(const struct ranges *ranges, const struct observed_root *a,
                         const struct observed_root *b, uint64_t *ret_block)
{
        for (size_t i = 0; i < a->n_blocks; i++) {
                uint64_t block = a->blocks[i].block;

                if (memcmp(&a->blocks[i].content, content_at(b, block), sizeof(struct content)) ==
                        0 ||
                    is_reported(ranges, block))
                        continue;
                *ret_block = block;
                return false;
        }
        return true;
}

int co_probe_diff(struct pool *pool, const struct observed *observed, struct sim_random *random,
                  char *text, size_t text_size)
{
        struct ranges ranges = {.in_order = true};
        struct error err = ERROR_INIT;
        const struct observed_root *a, *b;
        uint64_t block = 0;
        int r;

        if (observed->n_roots == 0)
                return 0;
        a = &observed->roots[sim_random_below(random, observed->n_roots)];
        b = &observed->roots[sim_random_below(random, observed->n_roots)];
        ranges.size_bytes = a->size_bytes > b->size_bytes ? a->size_bytes : b->size_bytes;
        r = co_pool_diff(pool, a->name, b->name, on_range, &ranges, &err);
        if (r < 0)
                snprintf(text, text_size, "diff %s %s: %s", a->name, b->name, err.message);
        else if (!ranges.in_order)
                snprintf(text, text_size, "diff %s %s: its ranges are not in order", a->name,
                         b->name);
        else if (!all_reported(&ranges, a, b, &block) || !all_reported(&ranges, b, a, &block))
                snprintf(text, text_size, "diff %s %s: block %llu differs and is not reported",
                         a->name, b->name, (unsigned long long)block);
        else if (a == b && ranges.n > 0)
                snprintf(text, text_size, "diff %s %s: a root differs from itself", a->name,
                         b->name);
        else
                text[0] = '\0';
        free(ranges.range);
        return text[0] == '\0' ? 0 : -EUCLEAN;
}

/* ---- deletion ---- */

#define CATALOG_GROWTH (8 * (int64_t)BLOCK_SIZE)

static bool has_snapshots(const struct observed *observed, const struct observed_root *volume)
{
        size_t length = strlen(volume->name);

        for (size_t i = 0; i < observed->n_roots; i++)
                if (strncmp(observed->roots[i].name, volume->name, length) == 0 &&
                    observed->roots[i].name[length] == '@')
                        return true;
        return false;
}

static int on_info(const struct root_info *info, void *arg)
{
        *(uint64_t *)arg = info->freed_if_deleted_bytes;
        return 0;
}

struct used {
        uint64_t data, metadata;
};

static struct used used_bytes(struct pool *pool)
{
        struct pool_info info;

        pool_get_info(pool, &info);
        return (struct used){info.used_bytes, info.metadata_used_bytes};
}

/* What was foretold counts blocks of data, and nodes of maps; the metadata that came free holds
 * other things as well: lists, and the catalog, which may have grown meanwhile. */
static bool is_as_foretold(struct used before, struct used after, uint64_t foretold)
{
        int64_t data = (int64_t)(before.data - after.data);
        int64_t metadata = (int64_t)(before.metadata - after.metadata);

        return data >= 0 && (int64_t)foretold >= data &&
               (int64_t)foretold <= data + metadata + CATALOG_GROWTH;
}

static int co_delete(struct pool *pool, struct images *images, const struct observed_root *root,
                     struct error *err)
{
        int r = root->is_snapshot ? co_snapshot_delete(pool, root->name, err)
                                  : co_volume_delete(pool, root->name, false, err);

        co_images_tidy(images, pool); /* what is attached is not freed */
        return r < 0 ? r : co_pool_settle(pool, err);
}

/* What is there now must be @before without @deleted. */
static int co_see_the_rest(struct pool *pool, const struct observed *before, size_t deleted,
                           char *text, size_t text_size)
{
        struct observed now = {.n_roots = 0}, rest = {.n_roots = 0};
        int r = co_observe(pool, &now, text, text_size);

        for (size_t i = 0; i < before->n_roots; i++)
                if (i != deleted) {
                        rest.roots = model_grow(rest.roots, rest.n_roots, sizeof(*rest.roots));
                        rest.roots[rest.n_roots++] = before->roots[i];
                }
        if (r == 0 && !observed_equal(&rest, &now, text, text_size))
                r = -EUCLEAN;
        free(rest.roots); /* the blocks are @before's */
        observed_free(&now);
        return r < 0 ? r : co_check(pool, text, text_size);
}

int co_probe_delete(struct pool *pool, struct images *images, const struct observed *observed,
                    struct sim_random *random, char *text, size_t text_size)
{
        const struct observed_root *root;
        struct error err = ERROR_INIT;
        struct used before, after;
        uint64_t foretold = 0;
        char reason[400];
        int r;

        if (observed->n_roots == 0)
                return 0;
        root = &observed->roots[sim_random_below(random, observed->n_roots)];
        if (!root->is_snapshot && has_snapshots(observed, root))
                return 0;
        before = used_bytes(pool);
        r = co_root_get(pool, root->name, on_info, &foretold, &err);
        if (r == 0)
                r = co_delete(pool, images, root, &err);
        if (r < 0) {
                snprintf(text, text_size, "deleting %s: %s", root->name, err.message);
                return r;
        }
        after = used_bytes(pool);
        if (!is_as_foretold(before, after, foretold)) {
                snprintf(
                    text, text_size,
                    "deleting %s freed %lld bytes of data and %lld of metadata, %llu were foretold",
                    root->name, (long long)(before.data - after.data),
                    (long long)(before.metadata - after.metadata), (unsigned long long)foretold);
                return -EUCLEAN;
        }
        r = co_see_the_rest(pool, observed, (size_t)(root - observed->roots), reason,
                            sizeof(reason));
        if (r < 0)
                snprintf(text, text_size, "after deleting %s: %s", root->name, reason);
        return r;
}
