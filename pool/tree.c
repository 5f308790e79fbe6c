/* tree.c - map trees: radix trees of 4 KiB nodes with 256 entries, copied on write by epoch.
 *
 * Levels count from the leaves: an entry at level 0 is a block, at level 1 it stands for a leaf. A
 * node born in the current epoch is changed in place; any other is first copied to a newly taken
 * block [I4]. */
#include <errno.h>
#include "pool/engine.h"

unsigned tree_height_for(uint64_t size_bytes)
{
        unsigned height = 1;
        while (tree_span(height) * BLOCK < size_bytes)
                height++;
        return height;
}

static unsigned index_at(uint64_t block, unsigned level)
{
        return (block >> (8 * level)) & (NODE_ENTRIES - 1);
}

static struct entry_disk *node_entry(const struct node *node, unsigned i)
{
        return &((struct node_disk *)node->page)->entry[i];
}

int tree_leaf(struct pool *pool, const struct tree *tree, uint64_t block, struct node **ret_leaf,
              struct entry *ret_entry)
{
        struct entry e = tree->root;
        for (unsigned level = tree->height;; level--) {
                if (e.type != ENTRY_NODE) {
                        *ret_entry = e;
                        *ret_leaf = NULL;
                        return entry_is_hole(&e) ? 0 : -EUCLEAN;
                }
                struct node *node = cache_find(pool, &e);
                if (!node) {
                        *ret_entry = e;
                        return -EAGAIN;
                }
                if (level == 1) {
                        *ret_leaf = node;
                        return 0;
                }
                e = entry_get(node_entry(node, index_at(block, level - 1)));
        }
}

int co_tree_leaf(struct pool *pool, const struct tree *tree, uint64_t block, struct node **ret_leaf,
                 struct entry *ret_entry)
{
        for (;;) {
                int r = tree_leaf(pool, tree, block, ret_leaf, ret_entry);
                if (r == 0 && *ret_leaf)
                        node_pin(*ret_leaf);
                if (r != -EAGAIN)
                        return r;
                struct node *node;
                r = co_node_get(pool, ret_entry, &node);
                if (r < 0)
                        return r;
                node_unpin(pool, node);
        }
}

unsigned tree_cover(struct pool *pool, const struct tree *tree, uint64_t block,
                    struct entry *ret_entry)
{
        struct entry e = tree->root;
        unsigned level = tree->height;
        while (e.type == ENTRY_NODE && level > 0) {
                struct node *node = cache_find(pool, &e);
                if (!node)
                        break;
                level--;
                e = entry_get(node_entry(node, index_at(block, level)));
        }
        *ret_entry = e;
        return level;
}

uint64_t tree_absent_start(struct pool *pool, const struct tree *tree, uint64_t block)
{
        struct entry e;
        unsigned level = tree_cover(pool, tree, block, &e);
        return e.type == ENTRY_ABSENT ? block / tree_span(level) * tree_span(level) : block + 1;
}

/* ---- changing ---- */

static void own_count(struct root *root, int64_t delta)
{
        if (root)
                root->body->own_blocks += (uint64_t)delta;
}

/* A node that may be changed now stands at *e afterwards: *e itself where it was born now, else a
 * copy; for a hole a node full of that hole. */
static int entry_make_writable(struct pool *pool, struct root *root, struct entry *e,
                               struct node **ret_node)
{
        struct node *old = NULL, *made;
        if (e->type == ENTRY_NODE) {
                old = cache_find(pool, e);
                if (!old) /* the caller looked: it is named twice on this path, and was freed */
                        return pool_fail(pool, "a map names a block twice");
                if (e->birth == pool->epoch) {
                        *ret_node = old;
                        return 0;
                }
                node_pin(old);
        }
        int r = node_make(pool, old, &made);
        if (r < 0)
                goto out;
        own_count(root, 1);
        struct entry at = {.address = made->address, .birth = pool->epoch, .type = ENTRY_NODE};
        if (old) {
                r = root_supersede(pool, root, e);
                if (r < 0) {
                        own_count(root, -1);
                        node_free_block(pool, &at);
                        goto out;
                }
        } else {
                for (unsigned i = 0; i < NODE_ENTRIES; i++)
                        entry_put(node_entry(made, i), e);
        }
        *e = at;
        *ret_node = made;
out:
        if (old)
                node_unpin(pool, old);
        return r;
}

/* Everything on the path is in the cache, and there is room for what must be copied. */
static int path_check(struct pool *pool, const struct root *root, const struct tree *tree,
                      uint64_t block, struct entry *ret_entry)
{
        struct entry e = tree->root;
        for (unsigned level = tree->height; level >= 1; level--) {
                if (e.type != ENTRY_NODE && !entry_is_hole(&e))
                        return -EUCLEAN;
                if (e.type != ENTRY_NODE)
                        break;
                struct node *node = cache_find(pool, &e);
                if (!node) {
                        *ret_entry = e;
                        return -EAGAIN;
                }
                e = entry_get(node_entry(node, index_at(block, level - 1)));
        }
        /* A copied node may want a deadlist page for the one before it. */
        unsigned wanted = tree->height * (root && root->parent ? 2u : 1u) + 1;
        return pool->recovering || pool->metadata_free > wanted ? 0 : -ENOSPC;
}

int tree_leaf_writable(struct pool *pool, struct root *root, struct tree *tree, uint64_t block,
                       struct node **ret_leaf, struct entry *ret_entry)
{
        int r = path_check(pool, root, tree, block, ret_entry);
        if (r < 0)
                return r;
        struct node *node;
        r = entry_make_writable(pool, root, &tree->root, &node);
        for (unsigned level = tree->height - 1; r == 0 && level >= 1; level--) {
                struct entry_disk *at = node_entry(node, index_at(block, level));
                struct entry e = entry_get(at);
                r = entry_make_writable(pool, root, &e, &node);
                if (r == 0)
                        entry_put(at, &e);
        }
        if (r == 0)
                *ret_leaf = node;
        return r;
}

int tree_grow(struct pool *pool, struct root *root, struct tree *tree, uint64_t size_bytes)
{
        unsigned height = tree_height_for(size_bytes);
        while (tree->height < height) {
                if (tree->root.type == ENTRY_NODE) {
                        struct node *made;
                        int r = node_make(pool, NULL, &made);
                        if (r < 0)
                                return r;
                        own_count(root, 1);
                        struct entry hole = {.type = ENTRY_ABSENT};
                        for (unsigned i = 1; i < NODE_ENTRIES; i++)
                                entry_put(node_entry(made, i), &hole);
                        entry_put(node_entry(made, 0), &tree->root);
                        tree->root = (struct entry){made->address, pool->epoch, 0, ENTRY_NODE};
                }
                tree->height++;
        }
        return 0;
}

/* ---- clearing ---- */

struct clear {
        struct pool *pool;
        struct root *root;
        uint64_t first, end; /* blocks */
        uint8_t type;
        bool any;     /* something in the range would change */
        bool changed; /* something did */
        struct entry *missing;
};

/* What is absent is not zero in a base, and over one. */
static bool clear_is_noop(const struct clear *c, const struct entry *e)
{
        bool differs = c->root && (c->root->base || c->root->state == ROOT_BASE);
        return e->type == c->type || (e->type == ENTRY_ABSENT && !differs);
}

/* Look for what lacks in the cache, so that the change itself cannot stop half way, and whether
 * there is anything to change: what changes nothing must copy nothing. */
static int clear_look(struct clear *c, const struct entry *e, unsigned level, uint64_t base)
{
        if (clear_is_noop(c, e))
                return 0;
        bool whole = c->first <= base && c->end >= base + tree_span(level);
        c->any = c->any || whole || entry_is_hole(e);
        if (entry_is_hole(e))
                return 0;
        if (e->type != (level ? ENTRY_NODE : ENTRY_DATA))
                return -EUCLEAN;
        if (level == 0)
                return 0;
        struct node *node = cache_find(c->pool, e);
        if (!node) {
                *c->missing = *e;
                return -EAGAIN;
        }
        uint64_t span = tree_span(level - 1);
        uint64_t from = c->first > base ? (c->first - base) / span : 0;
        for (uint64_t i = from; i < NODE_ENTRIES && base + i * span < c->end; i++) {
                struct entry child = entry_get(node_entry(node, (unsigned)i));
                int r = clear_look(c, &child, level - 1, base + i * span);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Everything under @e, and @e's own block. Nothing here may fail half way: the tree would still
 * name what is freed. So running out of memory stops the pool, before anything of it is written. */
static int drop_entry(struct clear *c, const struct entry *e, unsigned level)
{
        if (entry_is_hole(e))
                return 0;
        if (level > 0) {
                struct node *node = cache_find(c->pool, e);
                if (!node) /* clear_look() saw it: it is named twice, and was freed */
                        return pool_fail(c->pool, "a map names a block twice");
                node_pin(node);
                int r = 0;
                for (unsigned i = 0; i < NODE_ENTRIES && r == 0; i++) {
                        struct entry child = entry_get(node_entry(node, i));
                        r = drop_entry(c, &child, level - 1);
                }
                node_unpin(c->pool, node);
                if (r < 0)
                        return r;
        } else if (c->root) {
                c->root->body->data_blocks--;
        }
        int r = root_supersede(c->pool, c->root, e);
        return r == 0 ? 0 : pool_fail(c->pool, "out of memory while space was being freed");
}

static bool node_is_one_hole(const struct node *node, struct entry *ret_hole)
{
        *ret_hole = entry_get(node_entry(node, 0));
        for (unsigned i = 0; i < NODE_ENTRIES; i++) {
                struct entry e = entry_get(node_entry(node, i));
                if (!entry_is_hole(&e) || e.type != ret_hole->type)
                        return false;
        }
        return true;
}

static int clear_entry(struct clear *c, struct entry *e, unsigned level, uint64_t base);

static int clear_children(struct clear *c, struct node *node, unsigned level, uint64_t base)
{
        uint64_t span = tree_span(level - 1);
        uint64_t from = c->first > base ? (c->first - base) / span : 0;
        for (uint64_t i = from; i < NODE_ENTRIES && base + i * span < c->end; i++) {
                struct entry_disk *at = node_entry(node, (unsigned)i);
                struct entry child = entry_get(at);
                int r = clear_entry(c, &child, level - 1, base + i * span);
                entry_put(at, &child); /* also on failure: its node may have been copied */
                if (r < 0)
                        return r;
        }
        return 0;
}

static int clear_entry(struct clear *c, struct entry *e, unsigned level, uint64_t base)
{
        if (clear_is_noop(c, e))
                return 0;
        bool whole = c->first <= base && c->end >= base + tree_span(level);
        if (whole && entry_is_hole(e)) { /* from one kind to the other */
                *e = (struct entry){.type = c->type, .birth = c->pool->epoch};
                c->changed = true;
                return 0;
        }
        int r;
        if (whole) {
                r = drop_entry(c, e, level);
                if (r == 0)
                        *e = (struct entry){.type = c->type, .birth = c->pool->epoch};
                c->changed = true;
                return r;
        }
        struct node *node;
        r = entry_make_writable(c->pool, c->root, e, &node);
        if (r < 0)
                return r;
        node_pin(node);
        r = clear_children(c, node, level, base);
        struct entry hole;
        if (r == 0 && node_is_one_hole(node, &hole)) {
                r = root_supersede(c->pool, c->root, e);
                if (r == 0)
                        *e = (struct entry){.type = hole.type, .birth = c->pool->epoch};
        }
        node_unpin(c->pool, node);
        return r;
}

int tree_clear(struct pool *pool, struct root *root, struct tree *tree, uint64_t first, uint64_t n,
               uint8_t type, bool *ret_changed, struct entry *ret_missing)
{
        struct clear c = {.pool = pool,
                          .root = root,
                          .first = first,
                          .end = first + n,
                          .type = type,
                          .missing = ret_missing};
        int r = clear_look(&c, &tree->root, tree->height, 0);
        if (r == 0 && c.any) {
                root_dirty(pool, root);
                r = clear_entry(&c, &tree->root, tree->height, 0);
        }
        *ret_changed = c.changed;
        return r;
}

/* ---- sealing ---- */

static int entry_seal(struct pool *pool, struct entry *e, unsigned level, uint64_t above,
                      struct frozen *frozen)
{
        if (e->type != ENTRY_NODE || e->birth <= above)
                return 0;
        struct node *node = cache_find(pool, e);
        if (!node) /* dirty nodes stay in the cache [I5]: the disk says that it is of tomorrow */
                return -EUCLEAN;
        if (node->dirty && !node->sealed) {
                for (unsigned i = 0; level > 1 && i < NODE_ENTRIES; i++) {
                        struct entry_disk *at = node_entry(node, i);
                        struct entry child = entry_get(at);
                        if (child.type != ENTRY_NODE || child.birth <= above)
                                continue;
                        int r = entry_seal(pool, &child, level - 1, above, frozen);
                        if (r < 0)
                                return r;
                        entry_put(at, &child);
                }
                node->crc = crc32c(0, node->page, BLOCK);
                struct slab *slab = address_slab(pool, e->address);
                int r = frozen_add(frozen, node->page, node, slab->leg, slab->n_legs,
                                   (e->address & (pool->slab_blocks - 1)) * BLOCK);
                if (r < 0)
                        return r;
                node->sealed = true;
                node_pin(node);
        }
        e->crc = node->crc;
        return 0;
}

int tree_seal(struct pool *pool, struct tree *tree, uint64_t above, struct frozen *frozen)
{
        return entry_seal(pool, &tree->root, tree->height, max_u64(above, pool->last_cut_epoch),
                          frozen);
}
