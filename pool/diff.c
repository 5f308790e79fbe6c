/* diff.c - where two roots differ: both maps are walked at once, and what is equal is skipped.
 *
 * An entry of the same address and birth is the same block, whichever roots name it: blocks are
 * never changed in place [I4]. So two roots that share most of their maps are compared by what they
 * do not share. */
#include <errno.h>
#include <stdlib.h>
#include "pool/operate.h"

struct side {
        const char *name;
        uint64_t id;
        struct tree map;
        uint64_t size_bytes;
        struct root *base;   /* held meanwhile; NULL: none */
        uint64_t base_bytes; /* of it that show through */
};

struct diff {
        struct pool *pool;
        struct side side[2];
        bool related;      /* one is the other's ancestor: another block is another content */
        uint64_t end;      /* bytes: of the larger */
        uint64_t from, to; /* bytes: the range that is not reported yet */
        int (*each)(uint64_t offset, uint64_t length, void *arg);
        void *arg;
        char *page[2];
        uint32_t zero_crc;
        struct error *err;
};

/* An entry of either side: where one map is lower than the other it stands above its top. */
struct at {
        bool above;
        struct entry e;
};

/* ---- ranges ---- */

static int range_report(struct diff *d)
{
        uint64_t from = d->from, to = min_u64(d->to, d->end);
        d->from = d->to = 0;
        return from < to ? d->each(from, to - from, d->arg) : 0;
}

static int range_add(struct diff *d, uint64_t block)
{
        uint64_t from = block * BLOCK;
        int r = 0;
        if (d->to != from || d->to == 0) {
                r = range_report(d);
                d->from = from;
        }
        d->to = from + BLOCK;
        return r;
}

/* ---- blocks ---- */

/* A volume ends inside the block: what the block holds behind that is not its content. */
static bool ends_inside(const struct side *s, uint64_t block)
{
        return s->size_bytes > block * BLOCK && s->size_bytes < (block + 1) * BLOCK;
}

/* A hole that shows the base. */
static bool shows(const struct side *s, const struct entry *e, uint64_t block)
{
        return e->type == ENTRY_ABSENT && s->base && block * BLOCK < s->base_bytes;
}

static int co_base_content(struct diff *d, const struct side *s, uint64_t block, char *page)
{
        int r = co_base_read(d->pool, s->base, block, page);
        if (r < 0)
                return error_set(d->err, -EIO, "'%s' cannot be read at offset %llu: %s", s->name,
                                 (unsigned long long)block * BLOCK, strerror(-r));
        if (s->base_bytes < (block + 1) * BLOCK)
                memset(page + s->base_bytes % BLOCK, 0, BLOCK - s->base_bytes % BLOCK);
        return 0;
}

static int co_content(struct diff *d, unsigned which, const struct entry *e, uint64_t block)
{
        struct pool *pool = d->pool;
        const struct side *s = &d->side[which];
        char *page = d->page[which];
        if (shows(s, e, block))
                return co_base_content(d, s, block, page);
        if (entry_is_hole(e)) {
                memset(page, 0, BLOCK);
                return 0;
        }
        const struct slab *slab = address_slab(pool, e->address);
        int r = slab && slab->kind == SLAB_DATA
                    ? co_legs_read(pool, slab->leg, slab->n_legs,
                                   (e->address & (pool->slab_blocks - 1)) * BLOCK, e->crc, page,
                                   "a block of data")
                    : -EUCLEAN;
        if (r < 0)
                return error_set(d->err, -EIO, "'%s' cannot be read at offset %llu: %s", s->name,
                                 (unsigned long long)block * BLOCK, strerror(-r));
        if (ends_inside(s, block))
                memset(page + s->size_bytes % BLOCK, 0, BLOCK - s->size_bytes % BLOCK);
        return 0;
}

static bool same_block(const struct entry *a, const struct entry *b)
{
        return a->type == b->type && a->address == b->address && a->birth == b->birth;
}

static int co_diff_block(struct diff *d, const struct entry *a, const struct entry *b,
                         uint64_t block)
{
        bool tail = ends_inside(&d->side[0], block) || ends_inside(&d->side[1], block);
        bool one_end = d->side[0].size_bytes == d->side[1].size_bytes;
        bool on_base = shows(&d->side[0], a, block) || shows(&d->side[1], b, block);
        if ((!tail || one_end) && !on_base && same_block(a, b))
                return 0;
        uint32_t crc_a = entry_is_hole(a) ? d->zero_crc : a->crc,
                 crc_b = entry_is_hole(b) ? d->zero_crc : b->crc;
        if (!tail && !on_base && (d->related || crc_a != crc_b))
                return range_add(d, block);
        int r = co_content(d, 0, a, block);
        if (r == 0)
                r = co_content(d, 1, b, block);
        if (r == 0 && memcmp(d->page[0], d->page[1], BLOCK))
                r = range_add(d, block);
        return r;
}

/* ---- nodes ---- */

static struct at at_child(const struct diff *d, unsigned which, const struct at *at,
                          const struct node *node, unsigned i, unsigned level)
{
        const struct tree *map = &d->side[which].map;
        if (at->above && i > 0)
                return (struct at){.e.type = ENTRY_ABSENT};
        if (at->above)
                return level > map->height ? *at : (struct at){.e = map->root};
        if (node)
                return (struct at){.e = entry_get(&((struct node_disk *)node->page)->entry[i])};
        return *at; /* a hole, all the way down */
}

static const struct entry *at_entry(const struct diff *d, unsigned which, const struct at *at)
{
        return at->above ? &d->side[which].map.root : &at->e;
}

/* Two holes of one content, from @block on for all that they stand for. */
static bool equal_holes(const struct diff *d, const struct at *a, const struct at *b,
                        uint64_t block)
{
        const struct side *sa = &d->side[0], *sb = &d->side[1];
        const struct entry *ea = at_entry(d, 0, a), *eb = at_entry(d, 1, b);
        if (!entry_is_hole(ea) || !entry_is_hole(eb))
                return false;
        if (!shows(sa, ea, block) && !shows(sb, eb, block))
                return true;
        return sa->base == sb->base && sa->base_bytes == sb->base_bytes && ea->type == eb->type;
}

static int co_diff_at(struct diff *d, struct at a, struct at b, unsigned level, uint64_t base);

static int co_node_pin(struct diff *d, unsigned which, const struct at *at, struct node **ret_node)
{
        *ret_node = NULL;
        if (at->above || entry_is_hole(&at->e))
                return 0;
        int r = at->e.type == ENTRY_NODE ? co_node_get(d->pool, &at->e, ret_node) : -EUCLEAN;
        return r == 0 ? 0
                      : error_set(d->err, -EIO, "the map of '%s' cannot be read: %s",
                                  d->side[which].name, strerror(-r));
}

static int co_diff_children(struct diff *d, const struct at *a, const struct at *b, unsigned level,
                            uint64_t base)
{
        struct node *na, *nb = NULL;
        int r = co_node_pin(d, 0, a, &na);
        if (r == 0)
                r = co_node_pin(d, 1, b, &nb);
        for (unsigned i = 0; i < NODE_ENTRIES && r == 0; i++)
                r = co_diff_at(d, at_child(d, 0, a, na, i, level - 1),
                               at_child(d, 1, b, nb, i, level - 1), level - 1,
                               base + i * tree_span(level - 1));
        if (na)
                node_unpin(d->pool, na);
        if (nb)
                node_unpin(d->pool, nb);
        return r;
}

static int co_diff_at(struct diff *d, struct at a, struct at b, unsigned level, uint64_t base)
{
        uint64_t first = base * BLOCK, end = (base + tree_span(level)) * BLOCK;
        struct at hole = {.e.type = ENTRY_ABSENT};
        if (first >= d->end)
                return 0;
        if (d->pool->hold_frees && d->pool->check_disturbed)
                return error_set(d->err, -EAGAIN,
                                 "pool '%s' is too full to be compared while it is written to",
                                 d->pool->name);
        if (first >= d->side[0].size_bytes)
                a = hole;
        if (first >= d->side[1].size_bytes)
                b = hole;
        if (equal_holes(d, &a, &b, base))
                return 0;
        bool whole = min_u64(d->side[0].size_bytes, d->side[1].size_bytes) >= end ||
                     d->side[0].size_bytes == d->side[1].size_bytes;
        if (whole && !a.above && !b.above && !entry_is_hole(&a.e) && same_block(&a.e, &b.e))
                return 0;
        return level ? co_diff_children(d, &a, &b, level, base)
                     : co_diff_block(d, &a.e, &b.e, base);
}

/* ---- the cut ---- */

static bool is_ancestor(const struct root *of, const struct root *maybe)
{
        for (const struct root *r = of; r; r = r->parent)
                if (r == maybe)
                        return true;
        return false;
}

/* [sync] */
static int see_cut(void *arg)
{
        struct diff *d = arg;
        struct root *root[2];
        for (unsigned i = 0; i < 2; i++) {
                struct side *s = &d->side[i];
                root[i] = root_by_id(d->pool, s->id);
                if (!root[i] || !root[i]->loaded || root[i]->state == ROOT_ORPHAN ||
                    root[i]->state == ROOT_FREE)
                        return error_set(d->err, -ENOENT, "'%s' was deleted meanwhile", s->name);
                s->map = root[i]->body->map;
                s->size_bytes = root[i]->body->size_bytes;
                s->base_bytes = root[i]->body->base_bytes;
        }
        d->related = is_ancestor(root[0], root[1]) || is_ancestor(root[1], root[0]);
        d->end = max_u64(d->side[0].size_bytes, d->side[1].size_bytes);
        return 0;
}

static int co_diff(struct diff *d)
{
        unsigned top = max_u64(d->side[0].map.height, d->side[1].map.height);
        struct at at[2];
        for (unsigned i = 0; i < 2; i++)
                at[i] = (struct at){.above = d->side[i].map.height < top, .e = d->side[i].map.root};
        int r = co_diff_at(d, at[0], at[1], top, 0);
        return r == 0 ? range_report(d) : r;
}

/* A pool that is not written to does not change: it is read as it is. */
static int co_diff_held(struct diff *d)
{
        if (pool_failed(d->pool)) {
                int r = see_cut(d);
                return r < 0 ? r : co_diff(d);
        }
        struct checkpoint_hold hold = {.at_cut = see_cut, .arg = d};
        int r = co_checkpoint_hold(d->pool, &hold, d->err);
        if (r < 0)
                return r;
        r = co_diff(d);
        checkpoint_unhold(d->pool);
        return r;
}

int co_pool_diff(struct pool *pool, const char *a, const char *b,
                 int (*each)(uint64_t offset, uint64_t length, void *arg), void *arg,
                 struct error *err)
{
        struct diff d = {.pool = pool, .each = each, .arg = arg, .err = err};
        int r = 0;
        co_lock(&pool->catalog_lock); /* a root that is being read is not to be deleted */
        for (unsigned i = 0; i < 2 && r == 0; i++) {
                struct root *root = root_require(pool, i ? b : a, err);
                r = root ? co_root_load(pool, root, err) : -ENOENT;
                if (r == 0)
                        d.side[i] =
                            (struct side){.name = i ? b : a, .id = root->id, .base = root->base};
                if (r == 0 && root->base)
                        root->base->n_handles++;
        }
        co_unlock(&pool->catalog_lock);
        d.page[0] = page_alloc();
        d.page[1] = page_alloc();
        if (r < 0) {
                /* with its sentence */
        } else if (d.page[0] && d.page[1]) {
                d.zero_crc = crc32c(0, d.page[0], BLOCK);
                r = co_diff_held(&d);
        } else {
                r = error_set(err, -ENOMEM, "out of memory");
        }
        free(d.page[0]);
        free(d.page[1]);
        for (unsigned i = 0; i < 2; i++)
                if (d.side[i].base)
                        co_base_let_go(pool, d.side[i].base);
        return r;
}
