/* observe.c - see observe.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/base.h"
#include "tests/crash/images.h"
#include "tests/crash/model_impl.h"
#include "tests/crash/observe.h"

#define READ_BLOCKS 64u
#define N_EXTENTS   64u

static int list_root(const struct root_info *info, void *arg)
{
        struct observed *observed = arg;
        struct observed_root *root;
        const char *volume = info->volume;

        observed->roots = model_grow(observed->roots, observed->n_roots, sizeof(*observed->roots));
        root = &observed->roots[observed->n_roots++];
        *root = (struct observed_root){
            .is_snapshot = info->kind == ROOT_SNAPSHOT,
            .size_bytes = info->size_bytes,
            .image = images_find(observed, root_base(info)),
        };
        if (root->is_snapshot)
                snprintf(root->name, sizeof(root->name), "%s@%s", volume, info->snapshot);
        else
                snprintf(root->name, sizeof(root->name), "%s", volume);
        return 0;
}

static bool is_zeroes(const uint8_t *bytes, size_t length)
{
        return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static void observe_block(struct observed_root *root, const uint8_t *bytes, uint64_t block)
{
        struct observed_block *observed;

        if (is_zeroes(bytes, BLOCK_SIZE))
                return;
        root->blocks = model_grow(root->blocks, root->n_blocks, sizeof(*root->blocks));
        observed = &root->blocks[root->n_blocks++];
        observed->block = block;
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                observed->content.grain[g] = content_decode(bytes + g * GRAIN, g);
}

struct observer {
        struct observed observed;
        uint8_t *buffer;
        bool damaged; /* a block may be unreadable */
};

/* Block by block, where not all of a range could be read. */
static int co_observe_damaged_range(struct volume *volume, struct observed_root *root,
                                    uint64_t offset, uint64_t length, uint8_t *buffer)
{
        for (uint64_t at = 0; at < length; at += BLOCK_SIZE) {
                uint64_t part = length - at < BLOCK_SIZE ? length - at : BLOCK_SIZE;
                int r;

                memset(buffer, 0, BLOCK_SIZE);
                r = co_volume_read(volume, buffer, part, offset + at);
                if (r < 0 && r != -EIO)
                        return r;
                if (r == 0) {
                        observe_block(root, buffer, (offset + at) / BLOCK_SIZE);
                        continue;
                }
                root->blocks = model_grow(root->blocks, root->n_blocks, sizeof(*root->blocks));
                root->blocks[root->n_blocks].block = (offset + at) / BLOCK_SIZE;
                for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                        root->blocks[root->n_blocks].content.grain[g] = VERSION_UNREADABLE;
                root->n_blocks++;
        }
        return 0;
}

/* @offset is a multiple of a block; the volume may end inside the last one. */
static int co_observe_range(struct observer *observer, struct volume *volume,
                            struct observed_root *root, uint64_t offset, uint64_t length)
{
        uint8_t *buffer = observer->buffer;

        while (length > 0) {
                uint64_t part =
                    length < READ_BLOCKS * BLOCK_SIZE ? length : READ_BLOCKS * BLOCK_SIZE;
                uint64_t n_blocks = (part + BLOCK_SIZE - 1) / BLOCK_SIZE;
                int r;

                memset(buffer + part, 0, n_blocks * BLOCK_SIZE - part);
                r = co_volume_read(volume, buffer, part, offset);
                if (r == -EIO && observer->damaged) {
                        r = co_observe_damaged_range(volume, root, offset, part, buffer);
                        n_blocks = 0;
                }
                if (r < 0)
                        return r;
                for (uint64_t i = 0; i < n_blocks; i++)
                        observe_block(root, buffer + i * BLOCK_SIZE, offset / BLOCK_SIZE + i);
                offset += part;
                length -= part;
        }
        return 0;
}

static int co_observe_extents(struct observer *observer, struct volume *volume,
                              struct observed_root *root)
{
        uint64_t offset = 0;

        while (offset < root->size_bytes) {
                struct volume_extent extents[N_EXTENTS];
                size_t n;
                int r = co_volume_status(volume, offset, root->size_bytes - offset, extents,
                                         N_EXTENTS, &n);

                if (r < 0)
                        return r;
                for (size_t i = 0; i < n; i++) {
                        if (extents[i].length == 0 || extents[i].length > root->size_bytes - offset)
                                return -ERANGE;
                        if (!(extents[i].flags & EXTENT_ZERO))
                                r = co_observe_range(observer, volume, root, offset,
                                                     extents[i].length);
                        if (r < 0)
                                return r;
                        offset += extents[i].length;
                }
        }
        return 0;
}

static int co_observe_root(struct observer *observer, struct pool *pool, struct observed_root *root,
                           char *text, size_t text_size)
{
        struct error err = ERROR_INIT;
        struct volume *volume;
        int r = co_volume_open(pool, root->name, &volume, &err);

        if (r < 0) {
                snprintf(text, text_size, "cannot open %s: %s", root->name, err.message);
                return r;
        }
        if (root->size_bytes <= OBSERVE_WHOLE_BYTES)
                r = co_observe_range(observer, volume, root, 0, root->size_bytes);
        else
                r = co_observe_extents(observer, volume, root);
        if (r < 0)
                snprintf(text, text_size, "cannot read %s: %s", root->name, strerror(-r));
        else if (volume_size(volume) != root->size_bytes) {
                r = -EUCLEAN;
                snprintf(text, text_size, "%s is listed with another size than it has", root->name);
        }
        co_volume_close(volume);
        return r;
}

static int compare_names(const void *a, const void *b)
{
        return strcmp(((const struct observed_root *)a)->name,
                      ((const struct observed_root *)b)->name);
}

static int co_observe_all(struct observer *observer, struct pool *pool, char *text,
                          size_t text_size)
{
        struct observed *observed = &observer->observed;
        struct error err = ERROR_INIT;
        int r;

        observer->buffer = aligned_alloc(BLOCK_SIZE, READ_BLOCKS * BLOCK_SIZE);
        r = observer->buffer == NULL ? -ENOMEM : co_images_observe(pool, observed, &err);
        if (r == 0)
                r = co_pool_list(pool, list_root, observed, &err);
        if (r < 0)
                snprintf(text, text_size, "cannot list: %s",
                         observer->buffer == NULL ? "no memory" : err.message);
        if (r == 0 && observed->n_roots > 0)
                qsort(observed->roots, observed->n_roots, sizeof(*observed->roots), compare_names);
        for (size_t i = 0; r == 0 && i < observed->n_roots; i++)
                r = co_observe_root(observer, pool, &observed->roots[i], text, text_size);
        free(observer->buffer);
        if (r < 0)
                observed_free(observed);
        return r;
}

int co_observe(struct pool *pool, struct observed *ret_observed, char *text, size_t text_size)
{
        struct observer observer = {.damaged = false};
        int r = co_observe_all(&observer, pool, text, text_size);

        if (r == 0)
                *ret_observed = observer.observed;
        return r;
}

int co_observe_damaged(struct pool *pool, struct observed *ret_observed, char *text,
                       size_t text_size)
{
        struct observer observer = {.damaged = true};
        int r = co_observe_all(&observer, pool, text, text_size);

        if (r == 0)
                *ret_observed = observer.observed;
        return r;
}

struct findings {
        char *text;
        size_t text_size;
        uint64_t n;
};

static void on_finding(void *arg, const char *sentence)
{
        struct findings *findings = arg;

        if (findings->n++ == 0)
                snprintf(findings->text, findings->text_size, "check: %s", sentence);
}

int co_check(struct pool *pool, char *text, size_t text_size)
{
        struct findings findings = {.text = text, .text_size = text_size};
        struct pool_check_callbacks callbacks = {.finding = on_finding, .arg = &findings};
        struct error err = ERROR_INIT;
        uint64_t n = 0;
        int r = co_pool_check(pool, true, &callbacks, &n, &err);

        if (r == -EAGAIN) /* low on space: allowed to give up */
                return 0;
        if (r < 0)
                snprintf(text, text_size, "check failed: %s", err.message);
        else if (n > 0)
                r = -EUCLEAN;
        return r;
}
