/* cache.c - map nodes, deadlist pages and catalog blocks in memory, keyed by address and birth.
 *
 * Clean nodes are in the lru list and may go; dirty ones (made since the last cut, or being written
 * by a checkpoint) stay [I5]. A node that was freed while pinned is dead: it goes with its last
 * pin. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"

#define SPARE_MAX 64u

static size_t hash_of(const struct cache *cache, uint64_t address, uint64_t birth)
{
        uint64_t h = (address ^ birth << 40) * UINT64_C(0x9e3779b97f4a7c15);
        return (h >> 32) & (cache->n_buckets - 1);
}

int cache_init(struct cache *cache, uint64_t bytes)
{
        *cache = (struct cache){.n_buckets = 1024, .n_max = max_u64(bytes / BLOCK, 256)};
        list_init(&cache->lru);
        list_init(&cache->finished);
        list_init(&cache->spare);
        cache->bucket = calloc(cache->n_buckets, sizeof(*cache->bucket));
        return cache->bucket ? 0 : -ENOMEM;
}

static void node_destroy(struct node *node)
{
        free(node->page);
        free(node);
}

void cache_destroy(struct cache *cache)
{
        for (size_t i = 0; cache->bucket && i < cache->n_buckets; i++) {
                for (struct node *node = cache->bucket[i], *next; node; node = next) {
                        next = node->hash_next;
                        node_destroy(node);
                }
        }
        free(cache->bucket);
        cache->bucket = NULL;
        if (cache->spare.next)
                list_for_each_safe (it, &cache->spare)
                        node_destroy(container_of(it, struct node, lru));
}

/* ---- the table ---- */

static void cache_grow(struct cache *cache)
{
        struct cache grown = *cache;
        grown.n_buckets *= 2;
        grown.bucket = calloc(grown.n_buckets, sizeof(*grown.bucket));
        if (!grown.bucket)
                return; /* longer chains */
        for (size_t i = 0; i < cache->n_buckets; i++) {
                for (struct node *node = cache->bucket[i], *next; node; node = next) {
                        next = node->hash_next;
                        struct node **at =
                            &grown.bucket[hash_of(&grown, node->address, node->birth)];
                        node->hash_next = *at;
                        *at = node;
                }
        }
        free(cache->bucket);
        cache->bucket = grown.bucket;
        cache->n_buckets = grown.n_buckets;
}

static struct node *cache_lookup(struct cache *cache, const struct entry *entry)
{
        struct node *node = cache->bucket[hash_of(cache, entry->address, entry->birth)];
        while (node && (node->address != entry->address || node->birth != entry->birth))
                node = node->hash_next;
        return node;
}

static struct node *node_new(struct cache *cache, uint64_t address, uint64_t birth)
{
        struct node *node;
        if (cache->n_spare) {
                node = container_of(cache->spare.next, struct node, lru);
                list_remove(&node->lru);
                cache->n_spare--;
                void *page = node->page;
                *node = (struct node){.page = page};
        } else {
                node = calloc(1, sizeof(*node));
                if (!node)
                        return NULL;
                node->page = aligned_alloc(BLOCK, BLOCK);
                if (!node->page) {
                        free(node);
                        return NULL;
                }
        }
        node->address = address;
        node->birth = birth;
        list_init(&node->lru);
        co_queue_init(&node->waiting);
        if (cache->n_nodes > cache->n_buckets)
                cache_grow(cache);
        struct node **at = &cache->bucket[hash_of(cache, address, birth)];
        node->hash_next = *at;
        *at = node;
        cache->n_nodes++;
        return node;
}

static void cache_unhash(struct cache *cache, struct node *node)
{
        struct node **at = &cache->bucket[hash_of(cache, node->address, node->birth)];
        while (*at != node)
                at = &(*at)->hash_next;
        *at = node->hash_next;
        cache->n_nodes--;
}

static void node_retire(struct cache *cache, struct node *node)
{
        list_remove(&node->lru);
        if (cache->n_spare >= SPARE_MAX) {
                node_destroy(node);
                return;
        }
        list_append(&cache->spare, &node->lru);
        cache->n_spare++;
}

void cache_trim(struct pool *pool)
{
        struct cache *cache = &pool->cache;
        for (unsigned looked = 0;
             cache->n_nodes > cache->n_max && looked < 64 && !list_empty(&cache->lru); looked++) {
                struct node *node = container_of(cache->lru.next, struct node, lru);
                list_remove(&node->lru);
                if (node->pins || node->referenced || node->forever) {
                        node->referenced = false;
                        if (!node->forever)
                                list_append(&cache->lru, &node->lru);
                        continue;
                }
                cache_unhash(cache, node);
                node_retire(cache, node);
        }
}

/* ---- finding and loading ---- */

struct node *cache_find(struct pool *pool, const struct entry *entry)
{
        struct node *node = cache_lookup(&pool->cache, entry);
        if (!node || node->loading)
                return NULL;
        node->referenced = true;
        return node;
}

static int co_node_load(struct pool *pool, const struct entry *entry, struct node **ret_node)
{
        struct node *node = node_new(&pool->cache, entry->address, entry->birth);
        if (!node)
                return -ENOMEM;
        node->loading = true;
        node->pins = 1;
        node->crc = entry->crc;
        node->error = co_metadata_read(pool, entry->address, entry->crc, node->page);
        node->loading = false;
        co_wake_all(&node->waiting);
        if (node->error < 0 && !node->dead) {
                cache_unhash(&pool->cache, node);
                node->dead = true;
        }
        if (node->error < 0) {
                int r = node->error;
                node_unpin(pool, node);
                return r;
        }
        list_append(&pool->cache.lru, &node->lru);
        cache_trim(pool);
        *ret_node = node;
        return 0;
}

int co_node_get(struct pool *pool, const struct entry *entry, struct node **ret_node)
{
        struct node *node = cache_lookup(&pool->cache, entry);
        if (!node)
                return co_node_load(pool, entry, ret_node);
        node->pins++;
        while (node->loading)
                co_wait(&node->waiting);
        if (node->error < 0) {
                int r = node->error;
                node_unpin(pool, node);
                return r;
        }
        node->referenced = true;
        *ret_node = node;
        return 0;
}

void node_unpin(struct pool *pool, struct node *node)
{
        assert(node->pins > 0);
        if (--node->pins == 0 && node->dead)
                node_retire(&pool->cache, node);
}

/* ---- making and forgetting ---- */

int node_make(struct pool *pool, const struct node *from, struct node **ret_node)
{
        uint64_t address;
        int r = space_take_metadata(pool, &address);
        if (r < 0)
                return r;
        struct entry key = {.address = address, .birth = pool->epoch};
        node_forget(pool, &key);
        struct node *node = node_new(&pool->cache, address, pool->epoch);
        if (!node) {
                space_free(pool, address);
                return -ENOMEM;
        }
        if (from)
                memcpy(node->page, from->page, BLOCK);
        else
                memset(node->page, 0, BLOCK);
        node->dirty = true;
        pool->cache.n_dirty++;
        *ret_node = node;
        return 0;
}

void node_forget(struct pool *pool, const struct entry *entry)
{
        struct cache *cache = &pool->cache;
        struct node *node = cache_lookup(cache, entry);
        if (!node)
                return;
        cache_unhash(cache, node);
        if (node->dirty && !node->sealed) {
                node->dirty = false;
                cache->n_dirty--;
        }
        list_remove(&node->lru);
        node->dead = true;
        if (node->pins == 0)
                node_retire(cache, node);
}

void node_free_block(struct pool *pool, const struct entry *entry)
{
        node_forget(pool, entry);
        space_free(pool, entry->address);
}

void node_written(struct pool *pool, struct node *node)
{
        assert(node->dirty && node->sealed);
        node->dirty = node->sealed = false;
        pool->cache.n_dirty--;
        if (!node->dead && !node->forever)
                list_append(&pool->cache.lru, &node->lru);
}
