/* status.c - what stands in a range of a volume, extent by extent: whether there are data, and of
 * which of its ancestors they are. */
#include <errno.h>
#include "pool/engine.h"

/* Nodes that one call looks at: freed blocks are not reused while it does, and a volume may have
 * millions. */
#define STATUS_LEAVES_MAX 4096u

/* What an entry is in an extent's flags: one of the root's own, or of its base. [sync] */
typedef unsigned entry_flags(const struct root *root, const struct entry *e, bool of_base);

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

static void walk_add(struct walk *w, uint64_t next, const struct entry *e, bool of_base)
{
        next = min_u64(next, w->end);
        w->full = !extent_add(w->extents, w->n_max, &w->n, next - w->at,
                              w->flags(w->volume->root, e, of_base));
        w->at = next;
}

/* Where the root's base shows through: block by block, but where both maps have large holes. */
static void walk_on_base(struct walk *w, const struct cover *own, const struct cover *base)
{
        struct pool *pool = w->volume->pool;
        const struct root *root = w->volume->root;
        uint64_t block = w->at / BLOCK, base_end = root_base_end(root),
                 leaf_end = (block / LEAF_BLOCKS + 1) * LEAF_BLOCKS;
        if (!own->leaf && (!base->leaf || own->hole.type == ENTRY_ZERO)) {
                bool shows = hole_shows(root, &own->hole, block);
                uint64_t end = hole_end(pool, &root->body->map, block);
                if (shows)
                        end = min_u64(min_u64(end, base_end),
                                      hole_end(pool, &root->base->body->map, block));
                walk_add(w, end * BLOCK, shows ? &base->hole : &own->hole, shows);
                return;
        }
        for (; block < leaf_end && w->at < w->end && !w->full; block++) {
                struct entry e = cover_entry(own, block);
                bool shows = hole_shows(root, &e, block);
                if (shows)
                        e = cover_entry(base, block);
                walk_add(w, (block + 1) * BLOCK, &e, shows);
        }
}

static int co_walk_on_base(struct walk *w)
{
        struct pool *pool = w->volume->pool;
        struct root *root = w->volume->root;
        struct cover own = {0}, base = {0};
        int r = co_tree_leaf(pool, &root->body->map, w->at / BLOCK, &own.leaf, &own.hole);
        if (r == 0)
                r = co_tree_leaf(pool, &root->base->body->map, w->at / BLOCK, &base.leaf,
                                 &base.hole);
        if (r == 0)
                walk_on_base(w, &own, &base);
        if (own.leaf)
                node_unpin(pool, own.leaf);
        if (base.leaf)
                node_unpin(pool, base.leaf);
        return r;
}

static int co_walk_leaf(struct walk *w)
{
        struct pool *pool = w->volume->pool;
        struct root *root = w->volume->root;
        struct node *leaf;
        struct entry e;
        int r = ancestry_refresh(pool, root);
        if (r == 0 && w->at / BLOCK < root_base_end(root))
                return co_walk_on_base(w);
        if (r == 0)
                r = co_tree_leaf(pool, &root->body->map, w->at / BLOCK, &leaf, &e);
        if (r < 0)
                return r;
        if (!leaf) {
                walk_add(w, hole_end(pool, &root->body->map, w->at / BLOCK) * BLOCK, &e, false);
                return 0;
        }
        for (unsigned i = w->at / BLOCK % LEAF_BLOCKS;
             i < LEAF_BLOCKS && w->at < w->end && !w->full; i++) {
                e = entry_get(&((struct node_disk *)leaf->page)->entry[i]);
                walk_add(w, (w->at / BLOCK + 1) * BLOCK, &e, false);
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

/* What only the image has may be data. */
static unsigned allocation_flags(const struct root *root, const struct entry *e, bool of_base)
{
        if (of_base && e->type == ENTRY_ABSENT)
                return 0;
        return entry_is_hole(e) ? EXTENT_HOLE | EXTENT_ZERO : 0;
}

int co_volume_status(struct volume *v, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_walk(v, allocation_flags, offset, length, extents, n_max, ret_n);
}

/* ---- whose ---- */

/* What is absent was never written, or was discarded: then it may hide what an older root has. */
static unsigned depth_flags(const struct root *root, const struct entry *e, bool of_base)
{
        if (of_base)
                return (unsigned)root->n_ancestors + 2;
        /* Those no older than the block: they lie between the root and the one that wrote it. */
        size_t above = root->n_ancestors - ancestors_before(root, e->birth);
        if (e->type == ENTRY_ABSENT && above == root->n_ancestors)
                return 0;
        return (unsigned)above + 1;
}

int co_volume_depth(struct volume *v, uint64_t offset, uint64_t length,
                    struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_walk(v, depth_flags, offset, length, extents, n_max, ret_n);
}
