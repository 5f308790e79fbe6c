/* toy_volume.c - see toy_impl.h: what is read and written, and questions about it. */
#include "tests/crash/toy_impl.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- I/O ---- */

int co_volume_open(struct pool *pool, const char *name, struct volume **ret_volume,
                   struct error *err)
{
        struct root *root = root_find(pool, name);
        struct volume *volume;

        if (root == NULL)
                return error_set(err, -ENOENT, "no '%s'", name);
        volume = toy_must(calloc(1, sizeof(*volume)));
        *volume = (struct volume){.pool = pool, .id = root->id};
        *ret_volume = volume;
        return 0;
}

void co_volume_close(struct volume *volume)
{
        free(volume);
}

uint64_t volume_size(const struct volume *volume)
{
        return root_find_id(volume->pool, volume->id)->size_bytes;
}

int co_volume_read(struct volume *volume, void *buffer, uint64_t length, uint64_t offset)
{
        const struct root *root = root_find_id(volume->pool, volume->id);
        uint8_t *bytes = buffer;

        memset(bytes, 0, length);
        for (size_t i = 0; i < root->n_entries; i++) {
                uint64_t start = root->entries[i].block * POOL_BLOCK, end = start + POOL_BLOCK;
                uint64_t from = start > offset ? start : offset;
                uint64_t to = end < offset + length ? end : offset + length;

                if (from < to)
                        memcpy(bytes + (from - offset),
                               root->entries[i].page->bytes + (from - start), to - from);
        }
        return 0;
}

static int co_change(struct volume *volume, const uint8_t *data, uint64_t length, uint64_t offset,
                     unsigned flags)
{
        struct pool *pool = volume->pool;
        int r = 0;

        co_lock(&pool->lock);
        if (toy_defect() == DEFECT_BLOCK_IN_PARTS && data != NULL && length > 2048) {
                root_write(root_find_id(pool, volume->id), data, offset, 2048);
                r = co_toy_commit(pool, false);
        }
        root_write(root_find_id(pool, volume->id), data, offset, length);
        if (r == 0 && flags & VOLUME_FUA && toy_defect() != DEFECT_FUA)
                r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_volume_write(struct volume *volume, const void *buffer, uint64_t length, uint64_t offset,
                    unsigned flags)
{
        return co_change(volume, buffer, length, offset, flags);
}

int co_volume_discard(struct volume *volume, uint64_t offset, uint64_t length, unsigned flags)
{
        return co_change(volume, NULL, length, offset, flags);
}

int co_volume_zero(struct volume *volume, uint64_t offset, uint64_t length, unsigned flags)
{
        return co_change(volume, NULL, length, offset, flags);
}

int co_volume_flush(struct volume *volume)
{
        if (toy_defect() == DEFECT_FLUSH_ANSWERS_EARLY)
                return 0;
        if (toy_defect() == DEFECT_HANG)
                co_suspend();
        return co_toy_commit_locked(volume->pool, false);
}

int co_volume_status(struct volume *volume, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        const struct root *root = root_find_id(volume->pool, volume->id);
        size_t at = root_position(root, offset / POOL_BLOCK);
        uint64_t end = offset + length, start;

        start = at < root->n_entries ? root->entries[at].block * POOL_BLOCK : end;
        *ret_n = 1;
        if (start > offset)
                extents[0] =
                    (struct volume_extent){(start < end ? start : end) - offset, EXTENT_ZERO};
        else
                extents[0] = (struct volume_extent){
                    start + POOL_BLOCK < end ? start + POOL_BLOCK - offset : length, 0};
        return 0;
}

/* ---- questions ---- */

static const struct page *page_at(const struct root *root, uint64_t block)
{
        size_t at = root_position(root, block);

        return at < root->n_entries && root->entries[at].block == block ? root->entries[at].page
                                                                        : NULL;
}

/* Everything that either holds, but for pages that both share. */
int co_pool_diff(struct pool *pool, const char *a, const char *b,
                 int (*each)(uint64_t offset, uint64_t length, void *arg), void *arg,
                 struct error *err)
{
        const struct root *x = root_find(pool, a), *y = root_find(pool, b);
        uint64_t size = x->size_bytes > y->size_bytes ? x->size_bytes : y->size_bytes, from = 0,
                 to = 0;
        size_t i = 0, k = 0;

        while (i < x->n_entries || k < y->n_entries) {
                uint64_t p = i < x->n_entries ? x->entries[i].block : UINT64_MAX;
                uint64_t q = k < y->n_entries ? y->entries[k].block : UINT64_MAX,
                         block = p < q ? p : q;

                i += block == p;
                k += block == q;
                if (page_at(x, block) == page_at(y, block) || block * POOL_BLOCK >= size)
                        continue;
                if (to > from && to != block * POOL_BLOCK)
                        each(from, to - from, arg);
                if (to != block * POOL_BLOCK || to == from)
                        from = block * POOL_BLOCK;
                to = (block + 1) * POOL_BLOCK < size ? (block + 1) * POOL_BLOCK : size;
        }
        if (to > from)
                each(from, to - from, arg);
        return 0;
}

int co_root_get(struct pool *pool, const char *name,
                int (*each)(const struct root_info *info, void *arg), void *arg, struct error *err)
{
        struct root_info info = {.freed_if_deleted_bytes = 0};

        return each(&info, arg);
}
