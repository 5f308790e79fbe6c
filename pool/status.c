/* status.c - which parts of a volume hold data. */
#include <errno.h>
#include "pool/engine.h"

/* Nodes that one call looks at: freed blocks are not reused while it does, and a volume may have
 * millions. */
#define STATUS_LEAVES_MAX 4096u

static unsigned flags_of(const struct entry *e)
{
        return e->type == ENTRY_ABSENT ? EXTENT_HOLE | EXTENT_ZERO
               : e->type == ENTRY_ZERO ? EXTENT_ZERO | EXTENT_HOLE
                                       : 0;
}

/* Neighbours with equal flags become one; false: there is no room for another. */
static bool extent_add(struct volume_extent *extents, size_t n_max, size_t *n, uint64_t length,
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

static int co_status(struct volume *v, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        uint64_t size = volume_size(v), at = offset, end = offset + length;
        if (offset > size || length > size - offset || length == 0 || n_max == 0)
                return -EINVAL;
        size_t n = 0;
        uint64_t interval = reader_enter(v->pool);
        int r = 0;
        bool room = true;
        for (unsigned leaves = 0; at < end && room && leaves < STATUS_LEAVES_MAX; leaves++) {
                struct node *leaf;
                struct entry e;
                uint64_t block = at / BLOCK;
                r = co_tree_leaf(v->pool, &v->root->body->map, block, &leaf, &e);
                if (r < 0)
                        break;
                if (!leaf) {
                        uint64_t next =
                            min_u64(hole_end(v->pool, &v->root->body->map, block) * BLOCK, end);
                        room = extent_add(extents, n_max, &n, next - at, flags_of(&e));
                        at = next;
                        continue;
                }
                for (unsigned i = block % LEAF_BLOCKS; i < LEAF_BLOCKS && at < end && room; i++) {
                        struct entry one = entry_get(&((struct node_disk *)leaf->page)->entry[i]);
                        uint64_t next = min_u64((at / BLOCK + 1) * BLOCK, end);
                        room = extent_add(extents, n_max, &n, next - at, flags_of(&one));
                        at = next;
                }
                node_unpin(v->pool, leaf);
        }
        reader_exit(v->pool, interval);
        if (r < 0)
                return r == -EUCLEAN ? -EIO : r;
        *ret_n = n;
        return 0;
}

int co_volume_status(struct volume *v, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        struct loop *from = co_move(v->pool->loop);
        int r = co_status(v, offset, length, extents, n_max, ret_n);
        co_move(from);
        return r;
}
