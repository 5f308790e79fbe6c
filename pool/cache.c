/* cache.c - map nodes, deadlist pages and catalog blocks in memory, keyed by address and birth.
 *
 * Clean nodes are in the lru list and may go; dirty ones (made since the last cut, or being written
 * by a checkpoint) stay [I5]. A node that was freed while pinned is dead: it goes with its last
 * pin. Making a node makes none go: whoever makes one is in the middle of a change that has looked
 * at all the nodes it needs, and has pinned few of them. cache_trim() follows the change. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "common/sanitizers.h"
#include "pool/engine.h"

#if WITH_ASAN /* sees what goes past a piece of memory, not past a page in it */
#define CHUNK_PAGES_MIN 1u
#define CHUNK_PAGES_MAX 1u
#else
#define CHUNK_PAGES_MIN 16u
#define CHUNK_PAGES_MAX 512u /* 2 MiB, a huge page: a large cache misses the TLB less */
#endif
#define TRIM_A_NODE 4u /* nodes looked at for each that is added */

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

/* ---- memory ---- */

/* Pages come from pieces that are kept until the end, each as large as all before it: a page alone
 * costs malloc two of them, and a small pool wants few. */
struct chunk_of_nodes {
        struct chunk_of_nodes *next;
        size_t n;
        void *pages;
        struct node node[];
};

static int chunk_new(struct cache *cache)
{
        size_t n = cache->chunks ? 2 * cache->chunks->n : CHUNK_PAGES_MIN;
        if (n > CHUNK_PAGES_MAX)
                n = CHUNK_PAGES_MAX;
        struct chunk_of_nodes *chunk = calloc(1, sizeof(*chunk) + n * sizeof(struct node));
        void *pages = chunk ? aligned_alloc(n * BLOCK, n * BLOCK) : NULL;
        if (!pages) {
                free(chunk);
                return -ENOMEM;
        }
        if (n > 1 && n == CHUNK_PAGES_MAX)
                madvise(pages, n * BLOCK, MADV_HUGEPAGE);
        *chunk = (struct chunk_of_nodes){.next = cache->chunks, .n = n, .pages = pages};
        cache->chunks = chunk;
        for (size_t i = 0; i < n; i++) {
                chunk->node[i].page = (char *)pages + i * BLOCK;
                list_append(&cache->spare, &chunk->node[i].lru);
        }
        return 0;
}

void cache_destroy(struct cache *cache)
{
        for (struct chunk_of_nodes *chunk = cache->chunks, *next; chunk; chunk = next) {
                next = chunk->next;
                free(chunk->pages);
                free(chunk);
        }
        free(cache->bucket);
        cache->bucket = NULL;
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
        if (list_empty(&cache->spare) && chunk_new(cache) < 0)
                return NULL;
        struct node *node = container_of(cache->spare.next, struct node, lru);
        list_remove(&node->lru);
        void *page = node->page;
        *node = (struct node){.page = page};
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
        list_prepend(&cache->spare, &node->lru);
}

/* Let go of what was not used for longest, looking at @n nodes at most. False: there is no more to
 * be done. */
bool cache_trim(struct pool *pool, unsigned n)
{
        struct cache *cache = &pool->cache;
        for (; n > 0 && cache->n_nodes > cache->n_max && !list_empty(&cache->lru); n--) {
                struct node *node = container_of(cache->lru.next, struct node, lru);
                list_remove(&node->lru);
                if (node->pins || node->referenced) {
                        node->referenced = false;
                        list_append(&cache->lru, &node->lru);
                        continue;
                }
                cache_unhash(cache, node);
                node_retire(cache, node);
        }
        return n == 0;
}

bool cache_is_dirty(const struct pool *pool)
{
        return pool->cache.n_dirty > pool->cache.n_max / 2 &&
               (pool->checkpoint_running || pool->checkpoint_wanted);
}

/* ---- finding and loading ---- */

struct node *cache_find(struct pool *pool, const struct entry *entry)
{
        struct node *node = cache_lookup(&pool->cache, entry);
        if (!node || node->loading)
                return NULL;
        node->referenced = true;
        pool->cache.hits++;
        return node;
}

static int co_node_load(struct pool *pool, const struct entry *entry, struct node **ret_node)
{
        struct node *node = node_new(&pool->cache, entry->address, entry->birth);
        if (!node)
                return -ENOMEM;
        pool->cache.misses++;
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
        cache_trim(pool, TRIM_A_NODE);
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
