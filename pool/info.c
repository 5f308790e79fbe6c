/* info.c - roots, described. */
#include <errno.h>
#include <stdlib.h>
#include "pool/operate.h"

/* ---- freed if deleted ---- */

/* What the merge of @root into its only child would free. */
static int co_merge_frees(struct pool *pool, const struct root *root, const struct root *child,
                          uint64_t *sum, struct error *err)
{
        int r = co_root_load(pool, (struct root *)child, err);
        if (r == 0)
                *sum += deadlist_blocks_above(child->body, root->parent ? root->parent->epoch : 0);
        return r;
}

/* With the last @n_gone roots on it, what was copied of an image. */
static int co_base_frees(struct pool *pool, struct root *base, unsigned n_gone, uint64_t *sum,
                         struct error *err)
{
        int r = n_gone < base->n_dependents ? 0 : co_root_load(pool, base, err);
        if (r == 0 && n_gone == base->n_dependents)
                *sum += base->body->own_blocks;
        return r;
}

/* Up the tree: each root that loses its last reason to stay goes too. Exact: the counters are those
 * by which the blocks will be freed. */
static int co_freed_if_deleted(struct pool *pool, struct root *root, uint64_t *ret_blocks,
                               struct error *err)
{
        uint64_t sum = 0;
        unsigned n_gone = 0;
        const struct root *gone = NULL;
        int r = 0;
        for (struct root *at = root; at && r == 0; gone = at, at = at->parent) {
                if (at != root && (at->name[0] || at->n_handles))
                        break;
                unsigned left = at->n_children - (gone != NULL);
                if (left > 1)
                        break;
                if (left == 1) {
                        struct list *it = at->children.next;
                        if (container_of(it, struct root, sibling) == gone)
                                it = it->next;
                        r = co_merge_frees(pool, at, container_of(it, struct root, sibling), &sum,
                                           err);
                        break;
                }
                r = co_root_load(pool, at, err);
                n_gone++;
                if (r == 0)
                        sum += at->body->own_blocks;
        }
        *ret_blocks = sum;
        return r == 0 && root->base ? co_base_frees(pool, root->base, n_gone, ret_blocks, err) : r;
}

/* ---- one root ---- */

static unsigned count_clones(const struct root *root)
{
        unsigned n = 0;
        list_for_each (it, &root->children)
                n += container_of(it, struct root, sibling)->volume_id != root->volume_id;
        return n;
}

static int co_describe(struct pool *pool, struct root *root,
                       int (*each)(const struct root_info *, void *), void *arg, struct error *err)
{
        uint64_t freed = 0;
        int r = co_root_load(pool, root, err);
        if (r == 0)
                r = co_freed_if_deleted(pool, root, &freed, err);
        if (r < 0)
                return r;
        const struct root *head =
            root->state == ROOT_LIVE ? root : root_head(pool, root->volume_id);
        const struct root *origin = root->parent;
        while (origin && !origin->name[0])
                origin = origin->parent;
        const struct root *origin_head = origin ? root_head(pool, origin->volume_id) : NULL;
        struct root_info info = {
            .kind = root->state == ROOT_LIVE ? ROOT_VOLUME : ROOT_SNAPSHOT,
            .volume = head ? head->name : "",
            .snapshot = root->state == ROOT_LIVE ? NULL : root->name,
            .id = root->id,
            .parent_id = root->parent ? root->parent->id : 0,
            .volume_id = root->volume_id,
            .origin_volume = origin_head ? origin_head->name : NULL,
            .origin_snapshot = origin_head ? origin->name : NULL,
            .size_bytes = root->body->size_bytes,
            .created_ns = root->body->created_ns,
            .referenced_bytes = root->body->data_blocks * BLOCK,
            .freed_if_deleted_bytes = freed * BLOCK,
            .n_children = root->n_children,
            .n_clones = count_clones(root),
            .n_handles = root->n_handles,
            .root = root,
        };
        memcpy(info.uuid, root->body->uuid, 16);
        return each(&info, arg);
}

const char *root_property(const struct root_info *info, const char *key)
{
        const struct root_body *body = info->root->body;
        for (unsigned i = 0; i < body->n_properties; i++)
                if (strcmp(body->property[i].key, key) == 0)
                        return body->property[i].value;
        return NULL;
}

int co_root_get(struct pool *pool, const char *name, int (*each)(const struct root_info *, void *),
                void *arg, struct error *err)
{
        co_lock(&pool->catalog_lock);
        struct root *root = root_require(pool, name, err);
        int r = root ? co_describe(pool, root, each, arg, err) : -ENOENT;
        co_unlock(&pool->catalog_lock);
        return r;
}

/* ---- all of them ---- */

struct listed {
        const char *volume;
        struct root *root;
};

/* By volume's name; the volume first, then its snapshots in the order they were taken. */
static int compare_listed(const void *a, const void *b)
{
        const struct listed *x = a, *y = b;
        int by_name = strcmp(x->volume, y->volume);
        if (by_name)
                return by_name;
        if (x->root->state != y->root->state)
                return x->root->state == ROOT_LIVE ? -1 : 1;
        if (x->root->epoch != y->root->epoch)
                return x->root->epoch < y->root->epoch ? -1 : 1;
        return x->root->id < y->root->id ? -1 : x->root->id > y->root->id;
}

int co_pool_list(struct pool *pool, int (*each)(const struct root_info *, void *), void *arg,
                 struct error *err)
{
        co_lock(&pool->catalog_lock);
        struct listed *listed = malloc((pool->n_slots + 1) * sizeof(*listed));
        size_t n = 0;
        int r = listed ? 0 : error_set(err, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < pool->n_slots && listed; i++) {
                struct root *root = pool->slot[i];
                if (!root || !root->name[0] ||
                    (root->state != ROOT_LIVE && root->state != ROOT_FROZEN))
                        continue;
                const struct root *head = root_head(pool, root->volume_id);
                if (head)
                        listed[n++] = (struct listed){head->name, root};
        }
        if (listed)
                qsort(listed, n, sizeof(*listed), compare_listed);
        for (size_t i = 0; i < n && r == 0; i++)
                r = co_describe(pool, listed[i].root, each, arg, err);
        free(listed);
        co_unlock(&pool->catalog_lock);
        return r;
}
