/* deadlist.c - blocks that a root no longer has and its ancestors still do.
 *
 * A superseded block born after the parent's epoch is the root's own and is freed. Any other is
 * listed, in the bucket of the newest ancestor older than it: key < birth <= the next ancestor's
 * epoch. When a snapshot goes, whole buckets are freed or handed on, by their heads [I6]. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"

/* ---- which bucket ---- */

int ancestry_refresh(struct pool *pool, struct root *root)
{
        if (root->ancestry_version == pool->ancestry_version)
                return 0;
        size_t n = 0;
        for (const struct root *r = root->parent; r; r = r->parent)
                n++;
        uint64_t *epochs = realloc(root->ancestors, (n + 1) * sizeof(*epochs));
        if (!epochs)
                return -ENOMEM;
        root->ancestors = epochs;
        root->n_ancestors = n;
        for (const struct root *r = root->parent; r; r = r->parent)
                epochs[--n] = r->epoch;
        root->ancestry_version = pool->ancestry_version;
        return 0;
}

size_t ancestors_before(const struct root *root, uint64_t birth)
{
        size_t low = 0, high = root->n_ancestors;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (root->ancestors[middle] < birth)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* The greatest ancestor's epoch below @birth; 0 where there is none. */
static uint64_t bucket_key(const struct root *root, uint64_t birth)
{
        size_t n = ancestors_before(root, birth);
        return n ? root->ancestors[n - 1] : 0;
}

/* Behind those with no greater key. */
static size_t bucket_place(const struct root_body *body, uint64_t key)
{
        size_t i = body->n_buckets;
        while (i > 0 && body->bucket[i - 1].key > key)
                i--;
        return i;
}

static struct bucket *bucket_insert(struct root_body *body, uint64_t key)
{
        size_t i = bucket_place(body, key);
        if (body->n_buckets == body->bucket_room) {
                size_t room = body->bucket_room ? body->bucket_room * 2 : 4;
                struct bucket *grown = realloc(body->bucket, room * sizeof(*grown));
                if (!grown)
                        return NULL;
                body->bucket = grown;
                body->bucket_room = room;
        }
        memmove(&body->bucket[i + 1], &body->bucket[i],
                (body->n_buckets - i) * sizeof(struct bucket));
        body->bucket[i] = (struct bucket){.key = key};
        body->n_buckets++;
        return &body->bucket[i];
}

struct bucket *bucket_add(struct root_body *body, uint64_t key)
{
        size_t i = bucket_place(body, key);
        if (i > 0 && body->bucket[i - 1].key == key && !body->bucket[i - 1].flags)
                return &body->bucket[i - 1];
        return bucket_insert(body, key);
}

/* ---- pages ---- */

static struct entry dirty_key(const struct pool *pool, const struct node *node)
{
        return (struct entry){.address = node->address, .birth = pool->epoch, .type = ENTRY_NODE};
}

/* A page that is no longer a head never changes again: its CRC is known now, and the next cut takes
 * it from this list. (Sealing a chain from its head at the cut would have to go down all of it.) */
static void page_finish(struct pool *pool, struct entry *e)
{
        struct node *node = e->type == ENTRY_NODE ? cache_find(pool, e) : NULL;
        if (!node || !node->dirty || node->sealed)
                return;
        node->crc = crc32c(0, node->page, BLOCK);
        e->crc = node->crc;
        list_append(&pool->cache.finished, &node->lru);
}

/* A page at the bucket's head with room for one more: as it is, a copy of it, or a new one. A page
 * that is not in memory is not read for it: a new one is begun. */
static int bucket_page(struct pool *pool, struct bucket *bucket, struct node **ret_node)
{
        struct node *head =
            bucket->head.type == ENTRY_NODE ? cache_find(pool, &bucket->head) : NULL;
        bool room = head && le32_get(((struct deadlist_disk *)head->page)->n) < DEAD_ENTRIES;
        if (room && bucket->head.birth == pool->epoch) {
                *ret_node = head;
                return 0;
        }
        struct node *made;
        if (room)
                node_pin(head);
        int r = node_make(pool, room ? head : NULL, &made);
        if (room)
                node_unpin(pool, head);
        if (r < 0)
                return r;
        if (room) {
                node_free_block(pool, &bucket->head);
        } else {
                struct deadlist_disk *d = made->page;
                d->magic = le64_make(DEADLIST_MAGIC);
                page_finish(pool, &bucket->head);
                entry_put(&d->prev, &bucket->head);
                bucket->n_pages++;
        }
        bucket->head = dirty_key(pool, made);
        *ret_node = made;
        return 0;
}

int root_supersede(struct pool *pool, struct root *root, const struct entry *entry)
{
        if (!root || !root->parent || entry->birth > root->parent->epoch) {
                if (root)
                        root->body->own_blocks--;
                if (entry->type == ENTRY_NODE)
                        node_free_block(pool, entry);
                else
                        space_free(pool, entry->address);
                return 0;
        }
        int r = ancestry_refresh(pool, root);
        if (r < 0)
                return r;
        size_t before = root->body->n_buckets;
        struct bucket *bucket = bucket_add(root->body, bucket_key(root, entry->birth));
        if (!bucket)
                return -ENOMEM;
        buckets_grown(pool, root, before);
        struct node *node;
        r = bucket_page(pool, bucket, &node);
        if (r < 0)
                return r;
        struct deadlist_disk *d = node->page;
        uint32_t n = le32_get(d->n);
        entry_put(&d->entry[n], entry);
        d->n = le32_make(n + 1);
        bucket->n_blocks++;
        return 0;
}

/* The lists differ only by the ancestor they are for. One may begin with a copy of its head, and be
 * full of that: two pages for the first entries, and then one for as many as a page holds. And the
 * lists themselves are named in pages, at the cut. */
uint64_t deadlist_needs(struct pool *pool, struct root *root, uint64_t n)
{
        if (!root->parent)
                return 0;
        uint64_t n_lists = ancestry_refresh(pool, root) < 0 ? n : root->n_ancestors + 1;
        uint64_t n_buckets = root->body->n_buckets;
        return min_u64(n, 2 * n_lists + n / DEAD_ENTRIES) +
               bucket_pages(n_buckets + min_u64(n, n_lists)) - bucket_pages(n_buckets);
}

/* ---- merging ---- */

/* What is left of the metadata in reserve is for what cannot do without: a merge can. */
static bool joins_may_take_blocks(const struct pool *pool)
{
        return metadata_available(pool) > (int64_t)metadata_reserve(pool) / 2;
}

/* Chains of one key become one: a new head names both. */
static int chains_join(struct pool *pool, struct bucket *into, const struct bucket *from)
{
        if (from->head.type != ENTRY_NODE)
                return 0;
        if (into->head.type == ENTRY_NODE) {
                struct node *made;
                int r = node_make(pool, NULL, &made);
                if (r < 0)
                        return r;
                struct deadlist_disk *d = made->page;
                d->magic = le64_make(DEADLIST_MAGIC);
                struct entry other = from->head;
                page_finish(pool, &into->head);
                page_finish(pool, &other);
                entry_put(&d->prev, &into->head);
                entry_put(&d->join, &other);
                into->head = dirty_key(pool, made);
                into->n_pages++;
        } else {
                into->head = from->head;
        }
        into->n_blocks += from->n_blocks;
        into->n_pages += from->n_pages;
        return 0;
}

int deadlist_merge(struct pool *pool, struct root_body *into, struct root_body *from)
{
        for (size_t i = 0; i < from->n_buckets; i++) {
                uint64_t key = from->bucket[i].key;
                struct bucket *bucket =
                    joins_may_take_blocks(pool) ? bucket_add(into, key) : bucket_insert(into, key);
                int r = bucket ? chains_join(pool, bucket, &from->bucket[i]) : -ENOMEM;
                if (r < 0)
                        return r;
        }
        from->n_buckets = 0;
        return 0;
}

uint64_t deadlist_blocks_above(const struct root_body *body, uint64_t epoch)
{
        uint64_t sum = 0;
        for (size_t i = 0; i < body->n_buckets; i++)
                if (body->bucket[i].key >= epoch)
                        sum += body->bucket[i].n_blocks;
        return sum;
}

/* ---- sealing ---- */

static int page_freeze(struct pool *pool, struct node *node, struct frozen *frozen)
{
        struct slab *slab = address_slab(pool, node->address);
        int r = frozen_add(frozen, node->page, node, slab->leg, slab->n_legs,
                           (node->address & (pool->slab_blocks - 1)) * BLOCK);
        if (r < 0)
                return r;
        node->sealed = true;
        node_pin(node);
        return 0;
}

int deadlist_seal(struct pool *pool, struct root *root, struct frozen *frozen)
{
        for (size_t i = 0; i < root->body->n_buckets; i++) {
                struct entry *e = &root->body->bucket[i].head;
                if (e->type != ENTRY_NODE || e->birth <= pool->last_cut_epoch)
                        continue;
                struct node *node = cache_find(pool, e);
                if (!node) /* dirty nodes stay in the cache [I5]: the disk says it is of tomorrow */
                        return -EUCLEAN;
                if (node->dirty && !node->sealed) {
                        /* a chain that was handed on may have been finished */
                        list_remove(&node->lru);
                        node->crc = crc32c(0, node->page, BLOCK);
                        int r = page_freeze(pool, node, frozen);
                        if (r < 0)
                                return r;
                }
                e->crc = node->crc;
        }
        return 0;
}

int deadlist_seal_finished(struct pool *pool, struct frozen *frozen)
{
        list_for_each_safe (it, &pool->cache.finished) {
                struct node *node = container_of(it, struct node, lru);
                list_remove(it);
                int r = page_freeze(pool, node, frozen);
                if (r < 0)
                        return r;
        }
        return 0;
}
