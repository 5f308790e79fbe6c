/* toy_catalog.c - see toy_impl.h: volumes and snapshots come, change and go. */
#include "tests/crash/toy_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int co_pool_list(struct pool *pool, int (*each)(const struct root_info *info, void *arg), void *arg,
                 struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < pool->n_roots; i++) {
                struct root *root = &pool->roots[i];
                char volume[sizeof(root->name)], *at;
                struct root_info info = {.size_bytes = root->size_bytes, .id = root->id};

                memcpy(volume, root->name, sizeof(volume));
                at = strchr(volume, '@');
                info.kind = at != NULL ? ROOT_SNAPSHOT : ROOT_VOLUME;
                if (at != NULL) {
                        *at = '\0';
                        info.snapshot = at + 1;
                }
                info.volume = volume;
                r = each(&info, arg);
        }
        return r;
}

int co_volume_create(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        struct root *root;
        int r;

        co_lock(&pool->lock);
        root = root_add(pool, name);
        root->size_bytes = size_bytes;
        for (size_t i = 0; i < pool->n_remains; i++)
                if (pool->remains[i].block * POOL_BLOCK < size_bytes) {
                        pool->remains[i].page->references++;
                        root_put(root, pool->remains[i].block, pool->remains[i].page);
                }
        r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

static bool is_of(const struct root *root, const char *volume)
{
        size_t length = strlen(volume);

        return strncmp(root->name, volume, length) == 0 && strchr("@", root->name[length]) != NULL;
}

int co_volume_delete(struct pool *pool, const char *name, bool with_snapshots, struct error *err)
{
        struct root *root;
        int r;

        co_lock(&pool->lock);
        root = root_find(pool, name);
        if (toy_defect() == DEFECT_ANOTHER_VOLUME && pool->remains == NULL) {
                struct root copy = {.n_entries = 0};

                root_copy(&copy, root);
                pool->remains = copy.entries;
                pool->n_remains = copy.n_entries;
        }
        for (size_t i = pool->n_roots; i-- > 0;)
                if (is_of(&pool->roots[i], name))
                        root_remove(pool, &pool->roots[i]);
        r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_volume_rename(struct pool *pool, const char *name, const char *new_name, struct error *err)
{
        int r;

        co_lock(&pool->lock);
        for (size_t i = 0; i < pool->n_roots; i++)
                if (is_of(&pool->roots[i], name)) {
                        char text[sizeof(pool->roots[i].name) + POOL_NAME_MAX];

                        snprintf(text, sizeof(text), "%s%s", new_name,
                                 pool->roots[i].name + strlen(name));
                        memcpy(pool->roots[i].name, text, sizeof(pool->roots[i].name));
                }
        r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_volume_resize(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        struct root *root;
        int r = 0;

        co_lock(&pool->lock);
        root = root_find(pool, name);
        if (size_bytes < root->size_bytes)
                root_write(root, NULL, size_bytes, root->size_bytes - size_bytes);
        if (toy_defect() == DEFECT_SHRINK_IN_PARTS)
                r = co_toy_commit(pool, false);
        root->size_bytes = size_bytes;
        if (r == 0)
                r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_create(struct pool *pool, const char *const *names, size_t n_names,
                       struct error *err)
{
        int r = 0;

        co_lock(&pool->lock);
        for (size_t i = 0; r == 0 && i < n_names; i++) {
                char volume[2 * POOL_NAME_MAX];

                snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(names[i], "@"), names[i]);
                root_copy(root_add(pool, names[i]), root_find(pool, volume));
                if (toy_defect() == DEFECT_GROUP_IN_PARTS)
                        r = co_toy_commit(pool, false);
                if (toy_defect() == DEFECT_NO_CUT) {
                        co_unlock(&pool->lock);
                        co_sleep_ns(1000000);
                        co_lock(&pool->lock);
                }
        }
        if (r == 0)
                r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_delete(struct pool *pool, const char *name, struct error *err)
{
        int r;

        co_lock(&pool->lock);
        root_remove(pool, root_find(pool, name));
        r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_restore(struct pool *pool, const char *name, const char *keep_as, struct error *err)
{
        char volume[POOL_NAME_MAX + 1], keep[2 * POOL_NAME_MAX];
        struct root *root;
        int r;

        snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(name, "@"), name);
        co_lock(&pool->lock);
        root = root_find(pool, volume);
        if (keep_as != NULL) {
                if (snprintf(keep, sizeof(keep), "%s@%s", volume, keep_as) >= (int)sizeof(keep))
                        abort();
                root_copy(root_add(pool, keep), root);
        }
        root_clear(root);
        root_copy(root, root_find(pool, name));
        r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_clone(struct pool *pool, const char *snapshot, const char *new_volume,
                      struct error *err)
{
        int r;

        co_lock(&pool->lock);
        root_copy(root_add(pool, new_volume), root_find(pool, snapshot));
        r = co_toy_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}
