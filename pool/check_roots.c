/* check_roots.c - the catalog, and each root that it names: parents before children. */
#include <errno.h>
#include <stdlib.h>
#include "pool/check.h"
#include "pool/codec.h"

/* ---- the roots as of the cut ---- */

static unsigned state_order(uint8_t state)
{
        return state == ROOT_FROZEN ? 0 : state == ROOT_LIVE ? 1 : 2;
}

/* A parent is frozen, in an earlier epoch than a child that is frozen as well. */
static int compare_roots(const void *a, const void *b)
{
        const struct check_root *x = a, *y = b;
        unsigned kx = state_order(x->state), ky = state_order(y->state);
        if (kx != ky)
                return kx < ky ? -1 : 1;
        if (x->epoch != y->epoch)
                return x->epoch < y->epoch ? -1 : 1;
        return x->id < y->id ? -1 : x->id > y->id;
}

int check_roots_copy(struct check *c)
{
        struct pool *pool = c->pool;
        c->n_slots = pool->n_slots;
        c->root = malloc((c->n_slots + 1) * sizeof(*c->root));
        c->slot = calloc(c->n_slots + 1, sizeof(struct check_root *));
        if (!c->root || !c->slot)
                return -ENOMEM;
        for (uint32_t i = 0; i < c->n_slots; i++) {
                const struct root *root = pool->slot[i];
                if (!root || root->state == ROOT_FREE)
                        continue;
                c->root[c->n_roots++] = (struct check_root){
                    .id = root->id,
                    .volume_id = root->volume_id,
                    .epoch = root->epoch,
                    .name_crc = crc32c(0, root->name, strlen(root->name)),
                    .slot = i,
                    .state = root->state,
                    .complete = root->complete,
                    .base_id = root->base ? root->base->id : 0,
                    .shrinking = root->loaded ? root->body->high_bytes > 0 : root->shrinking,
                    .parent_slot = root->parent ? root->parent->slot : UINT32_MAX,
                    .newer = c->memory && root->dirty,
                };
        }
        qsort(c->root, c->n_roots, sizeof(*c->root), compare_roots);
        for (size_t i = 0; i < c->n_roots; i++)
                c->slot[c->root[i].slot] = &c->root[i];
        for (size_t i = 0; i < c->n_roots; i++)
                if (c->root[i].parent_slot != UINT32_MAX)
                        c->root[i].parent = c->slot[c->root[i].parent_slot];
        return 0;
}

/* ---- the catalog ---- */

static void index_compare(struct check *c, uint32_t slot, const struct index_disk *d)
{
        struct index x;
        struct error e = ERROR_INIT;
        if (index_decode(d, &x, &e) < 0) {
                check_finding(c, "slot %u of the catalog: %s", slot, e.message);
                return;
        }
        const struct check_root *r = slot < c->n_slots ? c->slot[slot] : NULL;
        if (r && r->newer)
                return;
        uint64_t parent = r && r->parent ? r->parent->id : 0;
        bool same = r ? x.state == r->state && x.id == r->id && x.epoch == r->epoch &&
                            x.parent_id == parent && x.volume_id == r->volume_id &&
                            x.shrinking == r->shrinking && x.complete == r->complete &&
                            x.base_id == r->base_id &&
                            crc32c(0, x.name, strlen(x.name)) == r->name_crc
                      : x.state == ROOT_FREE;
        if (!same)
                check_finding(c, "slot %u of the catalog differs from the root that is in memory",
                              slot);
}

static int co_index_block(struct check *c, const struct entry *e, uint64_t block)
{
        struct index_disk *page = page_alloc();
        struct check_read read = {
            .e = *e, .place = {"an index block of the catalog", NULL, NO_BLOCK}, .page = page};
        int r = page ? co_check_read(c, &read) : -ENOMEM;
        for (uint32_t i = 0; i < INDEX_PER_BLOCK && r == 0 && read.good; i++)
                index_compare(c, (uint32_t)block * INDEX_PER_BLOCK + i, &page[i]);
        free(page);
        return r;
}

static int co_catalog_block(struct check_walk *w, const struct entry *e, uint64_t block)
{
        struct check *c = w->c;
        if (block < CATALOG_ROOT_BASE)
                return co_index_block(c, e, block);
        uint64_t slot = block - CATALOG_ROOT_BASE;
        if (slot < c->n_slots && c->slot[slot])
                c->slot[slot]->block = *e;
        else
                check_finding(c, "slot %llu of the catalog holds a block, and no root",
                              (unsigned long long)slot);
        return 0;
}

int co_check_catalog(struct check *c)
{
        struct tree tree = {.root = c->catalog, .height = CATALOG_HEIGHT};
        struct check_walk w = {.c = c,
                               .newest = c->epoch,
                               .end_block = CATALOG_ROOT_BASE + SLOTS_MAX,
                               .exact = true,
                               .co_block = co_catalog_block};
        return co_check_tree(&w, &tree);
}

/* ---- one root ---- */

/* Its block, and the bucket pages behind it. */
static int co_body_from_disk(struct check *c, struct check_root *root, struct root_body *body,
                             bool *ret_good)
{
        struct check_place place = {"the block", root, NO_BLOCK};
        struct check_read read = {.e = root->block, .place = place, .page = page_alloc()};
        struct error e = ERROR_INIT;
        size_t n_buckets = 0;
        struct entry more;
        int r = read.page ? co_check_read(c, &read) : -ENOMEM;
        *ret_good = r == 0 && read.good;
        int decoded = *ret_good ? root_decode(read.page, root->id, body, &n_buckets, &more, &e) : 0;
        if (decoded == -ENOMEM) { /* says nothing about the block */
                r = -ENOMEM;
        } else if (decoded < 0) {
                check_finding(c, "%s: %s", check_place_text(c, &place).s, e.message);
                *ret_good = false;
                c->incomplete = true;
        }
        free(read.page);
        if (r < 0 || !*ret_good || body->n_buckets == n_buckets)
                return r;
        struct bucket *grown = realloc(body->bucket, n_buckets * sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        body->bucket = grown;
        body->bucket_room = n_buckets;
        return co_check_buckets(c, root, body, n_buckets, more, ret_good);
}

/* Epochs of the ancestors, ascending. */
static int ancestors_of(const struct check_root *root, uint64_t **ret_epochs, size_t *ret_n)
{
        size_t n = 0;
        for (const struct check_root *r = root->parent; r; r = r->parent)
                n++;
        uint64_t *epochs = malloc((n + 1) * sizeof(*epochs));
        if (!epochs)
                return -ENOMEM;
        *ret_n = n;
        for (const struct check_root *r = root->parent; r; r = r->parent)
                epochs[--n] = r->epoch;
        *ret_epochs = epochs;
        return 0;
}

static void counters_compare(struct check *c, const struct check_root *root,
                             const struct root_body *b, const struct check_walk *w,
                             const struct check_list *list)
{
        struct check_text of =
            check_place_text(c, &(struct check_place){"the block", root, NO_BLOCK});
        uint64_t listed = 0;
        for (size_t i = 0; i < b->n_buckets; i++)
                listed += b->bucket[i].n_blocks;
        if (b->data_blocks != root->data_blocks)
                check_finding(c, "%s counts %llu blocks of data, and there are %llu", of.s,
                              (unsigned long long)b->data_blocks,
                              (unsigned long long)root->data_blocks);
        if (b->own_blocks != w->n_data + w->n_nodes)
                check_finding(c, "%s counts %llu blocks of its own, and there are %llu", of.s,
                              (unsigned long long)b->own_blocks,
                              (unsigned long long)(w->n_data + w->n_nodes));
        if (listed != w->n_dead)
                check_finding(c, "%s lists %llu blocks as dead, and there are %llu", of.s,
                              (unsigned long long)listed, (unsigned long long)w->n_dead);
        else if (list->exact && list->sum != w->sum_dead)
                check_finding(c, "%s lists other blocks as dead than those that are", of.s);
}

static uint64_t end_block(const struct root_body *b)
{
        return (max_u64(b->size_bytes, b->high_bytes) + BLOCK - 1) / BLOCK;
}

static int co_check_content(struct check *c, struct check_root *root, const struct root_body *b)
{
        bool orphan = root->state == ROOT_ORPHAN;
        struct check_walk w = {
            .c = c,
            .root = root,
            .threshold = orphan         ? root->epoch
                         : root->parent ? root->parent->epoch
                                        : 0,
            .newest = root->state == ROOT_FROZEN ? root->epoch : c->epoch,
            .end_block = orphan ? UINT64_MAX : end_block(b),
            .cursor = orphan ? b->cursor : 0,
            .exact = !root->parent || root->parent->exact,
        };
        root->map = b->map;
        int r = co_check_tree(&w, &b->map);
        root->exact = w.exact;
        root->data_blocks =
            (root->parent ? root->parent->data_blocks : 0) - w.n_dead_data + w.n_data;
        uint64_t *ancestor = NULL;
        size_t n_ancestors;
        struct check_list list;
        if (r == 0)
                r = ancestors_of(root, &ancestor, &n_ancestors);
        if (r == 0)
                r = co_check_deadlist(c, root, b, ancestor, n_ancestors, &list);
        if (r == 0 && w.exact && !orphan)
                counters_compare(c, root, b, &w, &list);
        free(ancestor);
        return r;
}

/* Where memory is newer than the disk, and the root was read before: nothing changes it now. */
static const struct root_body *body_in_memory(const struct check *c, const struct check_root *root)
{
        const struct root *r = c->memory ? root_by_id(c->pool, root->id) : NULL;
        return r && r->loaded ? r->body : NULL;
}

static int co_check_root(struct check *c, struct check_root *root)
{
        struct root_body *body = calloc(1, sizeof(*body));
        const struct root_body *memory = body_in_memory(c, root);
        bool good = memory != NULL;
        int r = body ? 0 : -ENOMEM;
        if (r == 0 && root->block.type == ENTRY_DATA) {
                bool on_disk;
                r = co_body_from_disk(c, root, body, &on_disk);
                good = good || on_disk;
        } else if (r == 0 && !good) {
                check_finding(c, "root %llu has no block in the catalog",
                              (unsigned long long)root->id);
                c->incomplete = true;
        }
        if (r == 0 && good)
                r = co_check_content(c, root, memory ? memory : body);
        body_free(body);
        return r;
}

int co_check_roots(struct check *c)
{
        int r = 0;
        for (size_t i = 0; i < c->n_roots && r == 0; i++)
                r = co_check_root(c, &c->root[i]);
        return r;
}
