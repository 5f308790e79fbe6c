/* catalog.c - roots on disk: index blocks read at open, root blocks read when wanted, both
 * rewritten by the cut of a checkpoint. The catalog's nodes are few and stay in memory once they
 * were read, so that a cut never waits for them. */
#include <errno.h>
#include <stdlib.h>
#include "pool/codec.h"

/* Keep all nodes on the path to @block. */
static void path_keep(struct pool *pool, uint64_t block)
{
        struct entry e = pool->catalog.root;
        for (unsigned level = pool->catalog.height; level >= 1 && e.type == ENTRY_NODE; level--) {
                struct node *node = cache_find(pool, &e);
                if (!node)
                        return;
                if (!node->forever) {
                        node->forever = true;
                        list_remove(&node->lru);
                }
                e = entry_get(
                    &((struct node_disk *)node->page)->entry[(block >> (8 * (level - 1))) & 255]);
        }
}

static int co_catalog_leaf(struct pool *pool, uint64_t block, struct node **ret_leaf)
{
        struct entry e;
        int r = co_tree_leaf(pool, &pool->catalog, block, ret_leaf, &e);
        if (r < 0)
                return r;
        path_keep(pool, block);
        if (*ret_leaf)
                node_unpin(pool, *ret_leaf);
        return 0;
}

/* ---- loading ---- */

static int index_enter(struct pool *pool, const struct index *x, uint32_t slot, struct error *err)
{
        if (root_by_id(pool, x->id))
                return error_set(err, -EUCLEAN, "two roots of the catalog have id %llu",
                                 (unsigned long long)x->id);
        struct root *root = root_enter(pool, x->id, slot);
        if (!root)
                return error_set(err, -ENOMEM, "out of memory");
        root->epoch = x->epoch;
        root->shrinking = x->shrinking;
        root->complete = x->complete;
        root_identify(pool, root, x->state, x->volume_id, x->name);
        return 0;
}

/* What a slot's root stands on, by id, until all of them are there. */
struct named {
        uint64_t parent, base;
};

static int co_index_block_load(struct pool *pool, uint64_t block, const struct entry *e,
                               struct index_disk *page, struct named **named, struct error *err)
{
        int r = co_metadata_read(pool, e->address, e->crc, page);
        if (r < 0)
                return error_set(err, r,
                                 "a block of the catalog is damaged on every member that holds it");
        struct named *grown = realloc(*named, (block + 1) * INDEX_PER_BLOCK * sizeof(*grown));
        if (!grown)
                return error_set(err, -ENOMEM, "out of memory");
        *named = grown;
        for (uint32_t i = 0; i < INDEX_PER_BLOCK; i++) {
                struct index x;
                uint32_t slot = (uint32_t)block * INDEX_PER_BLOCK + i;
                r = index_decode(&page[i], &x, err);
                if (r == 0 && x.state != ROOT_FREE)
                        r = index_enter(pool, &x, slot, err);
                if (r < 0)
                        return r;
                (*named)[slot] = (struct named){x.parent_id, x.base_id};
        }
        return 0;
}

static int base_link(struct pool *pool, struct root *root, uint64_t base_id, struct error *err)
{
        struct root *base = root_by_id(pool, base_id);
        if (!base || base->state != ROOT_BASE ||
            (root->state != ROOT_LIVE && root->state != ROOT_FROZEN))
                return error_set(err, -EUCLEAN, "root %llu of the catalog has an impossible base",
                                 (unsigned long long)root->id);
        root_set_base(root, base);
        return 0;
}

static int roots_link(struct pool *pool, const struct named *named, struct error *err)
{
        for (uint32_t slot = 0; slot < pool->n_slots; slot++) {
                struct root *root = pool->slot[slot];
                if (root && named[slot].base && base_link(pool, root, named[slot].base, err) < 0)
                        return -EUCLEAN;
                if (!root || !named[slot].parent)
                        continue;
                struct root *parent = root_by_id(pool, named[slot].parent);
                if (!parent || parent->state != ROOT_FROZEN || root->state == ROOT_ORPHAN ||
                    (root->state == ROOT_FROZEN && parent->epoch >= root->epoch))
                        return error_set(err, -EUCLEAN,
                                         "root %llu of the catalog has an impossible parent",
                                         (unsigned long long)root->id);
                root_set_parent(pool, root, parent);
        }
        return 0;
}

int co_catalog_load(struct pool *pool, struct error *err)
{
        struct named *named = NULL;
        void *page = page_alloc();
        int r = page ? 0 : error_set(err, -ENOMEM, "out of memory");
        for (uint64_t block = 0; block < SLOTS_MAX / INDEX_PER_BLOCK && r == 0;
             block += LEAF_BLOCKS) {
                struct node *leaf;
                r = co_catalog_leaf(pool, block, &leaf);
                if (r < 0)
                        error_set(err, r, "the catalog is damaged on every member that holds it");
                for (uint64_t i = 0; r == 0 && leaf && i < LEAF_BLOCKS; i++) {
                        struct entry e = leaf_entry(leaf, block + i);
                        if (e.type == ENTRY_DATA)
                                r = co_index_block_load(pool, block + i, &e, page, &named, err);
                }
        }
        if (r == 0 && named)
                r = roots_link(pool, named, err);
        free(named);
        free(page);
        return r;
}

static int co_buckets_load(struct pool *pool, struct root_body *body, size_t n, struct entry more,
                           struct error *err)
{
        struct buckets_disk *page = page_alloc();
        if (!page)
                return error_set(err, -ENOMEM, "out of memory");
        int r = 0;
        while (body->n_buckets < n && r == 0) {
                if (more.type != ENTRY_NODE) {
                        r = error_set(err, -EUCLEAN, "a chain of bucket pages ends early");
                        break;
                }
                r = co_metadata_read(pool, more.address, more.crc, page);
                if (r < 0) {
                        error_set(err, r, "a bucket page is damaged on every member that holds it");
                        break;
                }
                struct entry *pages =
                    realloc(body->bucket_page, (body->n_bucket_pages + 1) * sizeof(*pages));
                if (!pages) {
                        r = error_set(err, -ENOMEM, "out of memory");
                        break;
                }
                body->bucket_page = pages;
                pages[body->n_bucket_pages++] = more;
                uint32_t here = le32_get(page->n);
                if (le64_get(page->magic) != BUCKETS_MAGIC || here < 1 || here > PAGE_BUCKETS ||
                    here > n - body->n_buckets)
                        r = error_set(err, -EUCLEAN, "a bucket page holds impossible values");
                for (uint32_t i = 0; i < here && r == 0; i++)
                        if (bucket_decode(&page->bucket[i], &body->bucket[body->n_buckets++]) < 0)
                                r = error_set(err, -EUCLEAN,
                                              "a bucket page holds impossible values");
                more = entry_get(&page->next);
        }
        free(page);
        return r;
}

static int co_body_read(struct pool *pool, struct root *root, struct root_body *body, void *page,
                        struct error *err)
{
        uint64_t block = CATALOG_ROOT_BASE + root->slot;
        struct node *leaf;
        int r = co_catalog_leaf(pool, block, &leaf);
        if (r < 0)
                return error_set(err, r, "the catalog is damaged on every member that holds it");
        struct entry e = leaf ? leaf_entry(leaf, block) : (struct entry){0};
        if (e.type != ENTRY_DATA)
                return error_set(err, -EUCLEAN, "root %llu has no block in the catalog",
                                 (unsigned long long)root->id);
        r = co_metadata_read(pool, e.address, e.crc, page);
        if (r < 0)
                return error_set(err, r,
                                 "the block of root %llu is damaged on every member that holds it",
                                 (unsigned long long)root->id);
        size_t n_buckets;
        struct entry more;
        r = root_decode(page, root->id, body, &n_buckets, &more, err);
        return r < 0 ? r : co_buckets_load(pool, body, n_buckets, more, err);
}

static int co_body_load(struct pool *pool, struct root *root, struct error *err)
{
        uint64_t interval = reader_enter(pool);
        struct root_body *body = calloc(1, sizeof(*body));
        void *page = page_alloc();
        int r = body && page ? co_body_read(pool, root, body, page, err)
                             : error_set(err, -ENOMEM, "out of memory");
        free(page);
        reader_exit(pool, interval);
        if (r < 0 || root->loaded) { /* somebody else was faster */
                body_free(body);
                return r < 0 ? error_prefix(err, "pool '%s'", pool->name) : 0;
        }
        root->body = body;
        root->loaded = true;
        /* Its index block is rewritten with it. */
        struct node *leaf;
        return co_catalog_leaf(pool, root->slot / INDEX_PER_BLOCK, &leaf);
}

int co_root_load(struct pool *pool, struct root *root, struct error *err)
{
        int r = root->loaded ? 0 : co_body_load(pool, root, err);
        return r == 0 && root->base && !root->base->loaded ? co_body_load(pool, root->base, err)
                                                           : r;
}

int co_catalog_prepare(struct pool *pool, unsigned n, struct error *err)
{
        uint32_t slot = pool->slot_cursor;
        if (pool->n_volumes + pool->n_snapshots + n > POOL_ROOTS_MAX)
                return error_set(err, -ENOSPC,
                                 "pool '%s' holds %u volumes and snapshots, which is the limit",
                                 pool->name, POOL_ROOTS_MAX);
        for (; n > 0; n--, slot++) {
                struct node *leaf;
                while (slot < pool->n_slots && pool->slot[slot])
                        slot++;
                if (slot >= SLOTS_MAX)
                        return error_set(err, -ENOSPC, "the catalog of pool '%s' is full",
                                         pool->name);
                int r = co_catalog_leaf(pool, slot / INDEX_PER_BLOCK, &leaf);
                if (r == 0)
                        r = co_catalog_leaf(pool, CATALOG_ROOT_BASE + slot, &leaf);
                if (r < 0)
                        return error_set(err, r, "the catalog of pool '%s' cannot be read",
                                         pool->name);
        }
        return 0;
}

/* ---- freezing ---- */

/* [sync] @page (owned from now on; NULL: nothing) becomes block @block of the catalog. */
static int catalog_put(struct pool *pool, uint64_t block, void *page, struct frozen *frozen)
{
        struct node *leaf;
        struct entry e, missing;
        int r = tree_leaf_writable(pool, NULL, &pool->catalog, block, &leaf, &missing);
        if (r < 0)
                goto fail;
        path_keep(pool, block);
        struct entry_disk *at = &((struct node_disk *)leaf->page)->entry[block % LEAF_BLOCKS];
        struct entry old = entry_get(at);
        e = (struct entry){.type = ENTRY_ABSENT, .birth = pool->epoch};
        if (page) {
                e.type = ENTRY_DATA;
                e.crc = crc32c(0, page, BLOCK);
                r = space_take_metadata(pool, &e.address);
                if (r < 0)
                        goto fail;
                struct slab *slab = address_slab(pool, e.address);
                r = frozen_add(frozen, page, NULL, slab->leg, slab->n_legs,
                               (e.address & (pool->slab_blocks - 1)) * BLOCK);
                if (r < 0)
                        goto fail;
        }
        if (old.type == ENTRY_DATA)
                space_free(pool, old.address);
        entry_put(at, &e);
        return 0;
fail:
        free(page);
        return r;
}

/* [sync] The buckets that do not fit into the root's block, as a chain written from its end. */
static int buckets_freeze(struct pool *pool, struct root_body *body, struct entry *ret_more,
                          struct frozen *frozen)
{
        for (size_t i = 0; i < body->n_bucket_pages; i++)
                space_free(pool, body->bucket_page[i].address);
        body->n_bucket_pages = 0;
        *ret_more = (struct entry){.type = ENTRY_ABSENT};
        if (body->n_buckets <= ROOT_BUCKETS)
                return 0;
        size_t over = body->n_buckets - ROOT_BUCKETS,
               n_pages = (over + PAGE_BUCKETS - 1) / PAGE_BUCKETS;
        struct entry *pages = realloc(body->bucket_page, n_pages * sizeof(*pages));
        if (!pages)
                return -ENOMEM;
        body->bucket_page = pages;
        for (size_t p = n_pages; p-- > 0;) {
                size_t first = ROOT_BUCKETS + p * PAGE_BUCKETS;
                size_t n = min_u64(PAGE_BUCKETS, body->n_buckets - first);
                struct buckets_disk *d = page_alloc();
                if (!d)
                        return -ENOMEM;
                d->magic = le64_make(BUCKETS_MAGIC);
                d->n = le32_make((uint32_t)n);
                entry_put(&d->next, ret_more);
                for (size_t i = 0; i < n; i++)
                        bucket_encode(&body->bucket[first + i], &d->bucket[i]);
                struct entry e = {
                    .type = ENTRY_NODE, .birth = pool->epoch, .crc = crc32c(0, d, BLOCK)};
                int r = space_take_metadata(pool, &e.address);
                struct slab *slab = r == 0 ? address_slab(pool, e.address) : NULL;
                if (r == 0)
                        r = frozen_add(frozen, d, NULL, slab->leg, slab->n_legs,
                                       (e.address & (pool->slab_blocks - 1)) * BLOCK);
                if (r < 0) {
                        free(d);
                        return r;
                }
                pages[body->n_bucket_pages++] = e;
                *ret_more = e;
        }
        return 0;
}

static int root_freeze(struct pool *pool, struct root *root, struct frozen *frozen)
{
        uint64_t block = CATALOG_ROOT_BASE + root->slot;
        if (root->state == ROOT_FREE) {
                for (size_t i = 0; i < root->body->n_bucket_pages; i++)
                        space_free(pool, root->body->bucket_page[i].address);
                return catalog_put(pool, block, NULL, frozen);
        }
        struct entry more;
        int r =
            tree_seal(pool, &root->body->map, root->state == ROOT_ORPHAN ? root->epoch : 0, frozen);
        if (r == 0)
                r = deadlist_seal(pool, root, frozen);
        if (r == 0)
                r = buckets_freeze(pool, root->body, &more, frozen);
        if (r < 0)
                return r;
        void *page = page_alloc();
        if (!page)
                return -ENOMEM;
        root_encode(root, &more, page);
        return catalog_put(pool, block, page, frozen);
}

static int index_freeze(struct pool *pool, uint32_t block, struct frozen *frozen)
{
        struct index_disk *page = page_alloc();
        if (!page)
                return -ENOMEM;
        for (uint32_t i = 0; i < INDEX_PER_BLOCK; i++) {
                uint32_t slot = block * INDEX_PER_BLOCK + i;
                struct root *root = slot < pool->n_slots ? pool->slot[slot] : NULL;
                if (root && root->state != ROOT_FREE)
                        index_encode(root, &page[i]);
        }
        return catalog_put(pool, block, page, frozen);
}

static int compare_u32(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
        return x < y ? -1 : x > y;
}

int catalog_freeze(struct pool *pool, struct frozen *frozen)
{
        uint32_t *blocks = malloc((pool->n_dirty_roots + 1) * sizeof(*blocks));
        size_t n = 0;
        int r = blocks ? 0 : -ENOMEM;
        list_for_each_safe (it, &pool->dirty_roots) {
                struct root *root = container_of(it, struct root, dirty_link);
                if (r == 0)
                        r = root_freeze(pool, root, frozen);
                if (r < 0)
                        break;
                blocks[n++] = root->slot / INDEX_PER_BLOCK;
                list_remove(it);
                pool->n_dirty_roots--;
                root->dirty = false;
                if (root->state == ROOT_FREE)
                        root_destroy(pool, root);
        }
        if (r == 0)
                qsort(blocks, n, sizeof(*blocks), compare_u32);
        for (size_t i = 0; i < n && r == 0; i++)
                if (i == 0 || blocks[i] != blocks[i - 1])
                        r = index_freeze(pool, blocks[i], frozen);
        free(blocks);
        pool->cut_pages = 0;
        if (r == 0)
                r = deadlist_seal_finished(pool, frozen);
        return r < 0 ? r : tree_seal(pool, &pool->catalog, 0, frozen);
}
