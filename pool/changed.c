/* changed.c - which parts of a volume changed since a snapshot, piece by piece while it is written
 * to. diff.c compares two roots in one go, as of one instant; here a call begins anywhere, looks at
 * a bounded number of nodes, and holds nothing between two calls.
 *
 * Both maps are descended to the same place at once. Where one entry is found on both sides, all
 * below is equal and skipped: blocks are never changed in place [I4], so the same address and birth
 * are the same content. The descent does not suspend: a node that is not in memory is read, and the
 * descent begins anew. */
#include <errno.h>
#include "pool/engine.h"

/* Nodes of both maps that one call looks at: freed blocks are not reused while it does. */
#define CHANGED_STEPS_MAX 1024u

struct side {
        const struct tree *map;
        uint64_t size_bytes;
        /* the entry that stands for the place at the level that the descent has come to, or, while
         * @above, none yet: the map is not that high */
        struct entry e;
        bool above;
        struct node *node; /* of e, in the cache; NULL: a hole */
};

/* Nodes that were read for one descent stay until it has come through. */
#define PINNED_MAX (4 * HEIGHT_MAX)
struct pinned {
        struct node *node[PINNED_MAX];
        unsigned n;
};

struct changed {
        struct pool *pool;
        struct volume *volume, *since;
        uint64_t at, end; /* bytes */
        struct volume_extent *extents;
        size_t n, n_max;
        bool full;
        struct side side[2]; /* of the volume and of @since, while they are descended */
        struct pinned pinned;
};

static void add(struct changed *c, uint64_t next_block, bool changed)
{
        uint64_t next = min_u64(next_block * BLOCK, c->end);

        c->full =
            !extent_add(c->extents, c->n_max, &c->n, next - c->at, changed ? EXTENT_CHANGED : 0);
        c->at = next;
}

/* ---- two entries ---- */

/* [sync] Are these holes of equal content, from @block on for all that they stand for? */
static bool equal_holes(const struct changed *c, const struct entry *a, const struct entry *b,
                        uint64_t block)
{
        const struct root *ra = c->volume->root, *rb = c->since->root;

        if (!entry_is_hole(a) || !entry_is_hole(b))
                return false;
        if (!hole_shows(ra, a, block) && !hole_shows(rb, b, block))
                return true;
        return ra->base == rb->base && a->type == b->type &&
               ra->body->base_bytes == rb->body->base_bytes;
}

static bool same_block(const struct entry *a, const struct entry *b)
{
        return !entry_is_hole(a) && a->type == b->type && a->address == b->address &&
               a->birth == b->birth;
}

/* [sync] Is the content of a block equal? Where @since ends inside the block and the volume does
 * not, what follows is not @since's content, and the whole block is told as changed. */
static bool block_is_equal(const struct changed *c, const struct entry *a, const struct entry *b,
                           uint64_t block)
{
        uint64_t end = c->side[1].size_bytes;
        bool ends_inside =
            end > block * BLOCK && end < (block + 1) * BLOCK && c->side[0].size_bytes > end;

        return equal_holes(c, a, b, block) || (same_block(a, b) && !ends_inside);
}

/* ---- descending ---- */

static void side_begin(struct side *s, const struct volume *v, unsigned top)
{
        const struct root_body *body = v->root->body;

        *s = (struct side){
            .map = &body->map,
            .size_bytes = body->size_bytes,
            .e = body->map.root,
            .above = body->map.height < top,
        };
}

static void side_make_hole(struct side *s)
{
        s->e = (struct entry){.type = ENTRY_ABSENT};
        s->above = false;
        s->node = NULL;
}

/* The node under the entry. -EAGAIN: it is to be read. */
static int side_node(struct pool *pool, struct side *s, struct entry *ret_missing)
{
        s->node = NULL;
        if (s->above || entry_is_hole(&s->e))
                return 0;
        if (s->e.type != ENTRY_NODE)
                return -EUCLEAN;
        s->node = cache_find(pool, &s->e);
        if (s->node)
                return 0;
        *ret_missing = s->e;
        return -EAGAIN;
}

/* Down to the entry at @level over @block. */
static void side_descend(struct side *s, uint64_t block, unsigned level)
{
        unsigned i = (block >> (8 * level)) & (NODE_ENTRIES - 1);

        if (s->above && i > 0)
                side_make_hole(s);
        else if (s->above)
                s->above = s->map->height < level;
        else if (s->node)
                s->e = entry_get(&((struct node_disk *)s->node->page)->entry[i]);
}

/* [sync] The blocks of one leaf, from where we are on. A side without a leaf is a hole. */
static void compare_leaves(struct changed *c)
{
        uint64_t block = c->at / BLOCK, leaf_end = (block / LEAF_BLOCKS + 1) * LEAF_BLOCKS;

        for (; block < leaf_end && c->at < c->end && !c->full; block++) {
                struct entry e[2];
                for (unsigned i = 0; i < 2; i++) {
                        const struct side *s = &c->side[i];
                        e[i] = (struct entry){.type = ENTRY_ABSENT};
                        if (block * BLOCK >= s->size_bytes)
                                continue;
                        e[i] = s->node ? entry_get(&((struct node_disk *)s->node->page)
                                                        ->entry[block % LEAF_BLOCKS])
                                       : s->e;
                }
                add(c, block + 1, !block_is_equal(c, &e[0], &e[1], block));
        }
}

/* [sync] Do the entries at @level, over the blocks from @first on, tell that all is equal? */
static bool side_by_side_equal(struct changed *c, uint64_t first, unsigned level)
{
        struct side *a = &c->side[0], *b = &c->side[1];

        /* Behind its end a side has zeroes, whatever its map still holds. */
        for (unsigned i = 0; i < 2; i++)
                if (first * BLOCK >= c->side[i].size_bytes)
                        side_make_hole(&c->side[i]);
        if (a->above || b->above)
                return false;
        bool whole =
            (first + tree_span(level)) * BLOCK <= b->size_bytes || a->size_bytes <= b->size_bytes;
        return equal_holes(c, &a->e, &b->e, first) || (whole && same_block(&a->e, &b->e));
}

/* [sync] From the roots down to where both sides are one, or to the leaves. -EAGAIN: *ret_missing is
 * to be read first. */
static int step(struct changed *c, struct entry *ret_missing)
{
        unsigned level =
            (unsigned)max_u64(c->volume->root->body->map.height, c->since->root->body->map.height);
        uint64_t block = c->at / BLOCK;

        side_begin(&c->side[0], c->volume, level);
        side_begin(&c->side[1], c->since, level);
        for (;; level--) {
                uint64_t first = block / tree_span(level) * tree_span(level);
                if (side_by_side_equal(c, first, level)) {
                        add(c, first + tree_span(level), false);
                        return 0;
                }
                for (unsigned i = 0; i < 2; i++) {
                        int r = side_node(c->pool, &c->side[i], ret_missing);
                        if (r < 0)
                                return r;
                }
                if (level == 1) {
                        compare_leaves(c);
                        return 0;
                }
                side_descend(&c->side[0], block, level - 1);
                side_descend(&c->side[1], block, level - 1);
        }
}

/* ---- reading what lacks ---- */

static void unpin_all(struct changed *c)
{
        for (unsigned i = 0; i < c->pinned.n; i++)
                node_unpin(c->pool, c->pinned.node[i]);
        c->pinned.n = 0;
}

static int co_step(struct changed *c)
{
        struct entry missing;
        int r;

        while ((r = step(c, &missing)) == -EAGAIN) {
                if (c->pinned.n == PINNED_MAX) /* the maps have changed a lot meanwhile */
                        unpin_all(c);
                r = co_node_get(c->pool, &missing, &c->pinned.node[c->pinned.n]);
                if (r < 0)
                        break;
                c->pinned.n++;
        }
        unpin_all(c);
        return r;
}

static int co_changed(struct volume *v, struct volume *since, uint64_t offset, uint64_t length,
                      struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        uint64_t size = volume_size(v);
        struct changed c = {
            .pool = v->pool,
            .volume = v,
            .since = since,
            .at = offset,
            .end = offset + length,
            .extents = extents,
            .n_max = n_max,
        };

        if (v->pool != since->pool)
                return -EXDEV;
        if (offset > size || length > size - offset || length == 0 || n_max == 0)
                return -EINVAL;
        uint64_t interval = reader_enter(v->pool);
        int r = 0;
        for (unsigned i = 0; r == 0 && c.at < c.end && !c.full && i < CHANGED_STEPS_MAX; i++)
                r = co_step(&c);
        reader_exit(v->pool, interval);
        if (r < 0)
                return r == -EUCLEAN ? -EIO : r;
        *ret_n = c.n;
        return 0;
}

int co_volume_changed(struct volume *v, struct volume *since, uint64_t offset, uint64_t length,
                      struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        struct loop *from = co_move(v->pool->loop);
        int r = co_changed(v, since, offset, length, extents, n_max, ret_n);
        co_move(from);
        return r;
}
