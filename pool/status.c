/* status.c - what stands in a range of a volume, extent by extent: whether there are data, and of
 * which of its ancestors they are. */
#include <errno.h>
#include "pool/engine.h"

/* Nodes that one call looks at: freed blocks are not reused while it does, and a volume may have
 * millions. */
#define STATUS_LEAVES_MAX 4096u

/* What an entry is in an extent's flags. [sync] */
typedef unsigned entry_flags(const struct root *root, const struct entry *e);

bool extent_add(struct volume_extent *extents, size_t n_max, size_t *n, uint64_t length,
                unsigned flags)
{
        if (*n && extents[*n - 1].flags == flags) {
                extents[*n - 1].length += length;
                return true;
        }
        if (*n == n_max)
                return false;
        extents[(*n)++] = (struct volume_extent){length, flags};
        return true;
}

/* The hole that covers @block stands for its whole subtree: how far does it go? */
static uint64_t hole_end(struct pool *pool, const struct tree *tree, uint64_t block)
{
        struct entry e;
        unsigned level = tree_cover(pool, tree, block, &e);
        if (e.type == ENTRY_NODE && level > 0) /* one that was evicted meanwhile */
                return block / LEAF_BLOCKS * LEAF_BLOCKS + LEAF_BLOCKS;
        return (block / tree_span(level) + 1) * tree_span(level);
}

struct walk {
        struct volume *volume;
        entry_flags *flags;
        uint64_t at, end;
        struct volume_extent *extents;
        size_t n, n_max;
        bool full;
};

static void walk_add(struct walk *w, uint64_t next, const struct entry *e)
{
        next = min_u64(next, w->end);
        w->full =
            !extent_add(w->extents, w->n_max, &w->n, next - w->at, w->flags(w->volume->root, e));
        w->at = next;
}

static int co_walk_leaf(struct walk *w)
{
        struct pool *pool = w->volume->pool;
        struct root *root = w->volume->root;
        struct node *leaf;
        struct entry e;
        int r = ancestry_refresh(pool, root);
        if (r == 0)
                r = co_tree_leaf(pool, &root->body->map, w->at / BLOCK, &leaf, &e);
        if (r < 0)
                return r;
        if (!leaf) {
                walk_add(w, hole_end(pool, &root->body->map, w->at / BLOCK) * BLOCK, &e);
                return 0;
        }
        for (unsigned i = w->at / BLOCK % LEAF_BLOCKS;
             i < LEAF_BLOCKS && w->at < w->end && !w->full; i++) {
                e = entry_get(&((struct node_disk *)leaf->page)->entry[i]);
                walk_add(w, (w->at / BLOCK + 1) * BLOCK, &e);
        }
        node_unpin(pool, leaf);
        return 0;
}

static int co_walk_here(struct volume *v, entry_flags *flags, uint64_t offset, uint64_t length,
                        struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        uint64_t size = volume_size(v);
        struct walk w = {.volume = v,
                         .flags = flags,
                         .at = offset,
                         .end = offset + length,
                         .extents = extents,
                         .n_max = n_max};
        if (offset > size || length > size - offset || length == 0 || n_max == 0)
                return -EINVAL;
        uint64_t interval = reader_enter(v->pool);
        int r = 0;
        for (unsigned i = 0; r == 0 && w.at < w.end && !w.full && i < STATUS_LEAVES_MAX; i++)
                r = co_walk_leaf(&w);
        reader_exit(v->pool, interval);
        if (r < 0)
                return r == -EUCLEAN ? -EIO : r;
        *ret_n = w.n;
        return 0;
}

static int co_walk(struct volume *v, entry_flags *flags, uint64_t offset, uint64_t length,
                   struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        struct loop *from = co_move(v->pool->loop);
        int r = co_walk_here(v, flags, offset, length, extents, n_max, ret_n);
        co_move(from);
        return r;
}

/* ---- data and holes ---- */

static unsigned allocation_flags(const struct root *root, const struct entry *e)
{
        return entry_is_hole(e) ? EXTENT_HOLE | EXTENT_ZERO : 0;
}

int co_volume_status(struct volume *v, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_walk(v, allocation_flags, offset, length, extents, n_max, ret_n);
}

/* ---- whose ---- */

/* How many ancestors are no older than @birth: those between the root and the one that wrote it. */
static size_t ancestors_since(const struct root *root, uint64_t birth)
{
        size_t low = 0, high = root->n_ancestors;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (root->ancestors[middle] < birth)
                        low = middle + 1;
                else
                        high = middle;
        }
        return root->n_ancestors - low;
}

/* What is absent was never written, or was discarded: then it may hide what an older root has. */
static unsigned depth_flags(const struct root *root, const struct entry *e)
{
        size_t above = ancestors_since(root, e->birth);
        if (e->type == ENTRY_ABSENT && above == root->n_ancestors)
                return 0;
        return (unsigned)above + 1;
}

int co_volume_depth(struct volume *v, uint64_t offset, uint64_t length,
                    struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_walk(v, depth_flags, offset, length, extents, n_max, ret_n);
}
