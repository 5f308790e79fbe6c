/* roots.c - roots in memory: found by id, by name and by volume; the tree of parents. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"
#include "pool/usage.h"

enum { BY_ID, BY_NAME, BY_VOLUME };

/* ---- tables ---- */

static uint64_t mix(uint64_t x)
{
        x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
        return x ^ x >> 29;
}

/* A snapshot's name counts within its volume, a volume's within the pool. */
static uint64_t name_hash(uint8_t state, uint64_t volume_id, const char *name)
{
        return mix(crc32c(0, name, strlen(name)) ^ (state == ROOT_LIVE ? 0 : mix(volume_id)));
}

static uint64_t root_hash(const struct root *root, int table)
{
        return table == BY_ID       ? mix(root->id)
               : table == BY_VOLUME ? mix(root->volume_id)
                                    : name_hash(root->state, root->volume_id, root->name);
}

static bool root_belongs(const struct root *root, int table)
{
        return table == BY_ID ? true
               : table == BY_VOLUME
                   ? root->state == ROOT_LIVE
                   : root->name[0] && (root->state == ROOT_LIVE || root->state == ROOT_FROZEN);
}

static void table_grow(struct pool *pool, int which)
{
        struct root_table *t = &pool->table_of[which],
                          grown = {.n_buckets = t->n_buckets * 2, .n = t->n};
        grown.bucket = calloc(grown.n_buckets, sizeof(*grown.bucket));
        if (!grown.bucket)
                return; /* longer chains */
        for (size_t i = 0; i < t->n_buckets; i++) {
                for (struct root *root = t->bucket[i], *next; root; root = next) {
                        next = root->hash_next[which];
                        struct root **at =
                            &grown.bucket[root_hash(root, which) & (grown.n_buckets - 1)];
                        root->hash_next[which] = *at;
                        *at = root;
                }
        }
        free(t->bucket);
        *t = grown;
}

static void table_insert(struct pool *pool, int which, struct root *root)
{
        if (!root_belongs(root, which))
                return;
        struct root_table *t = &pool->table_of[which];
        if (t->n >= t->n_buckets)
                table_grow(pool, which);
        struct root **at = &t->bucket[root_hash(root, which) & (t->n_buckets - 1)];
        root->hash_next[which] = *at;
        *at = root;
        t->n++;
}

static void table_remove(struct pool *pool, int which, struct root *root)
{
        if (!root_belongs(root, which))
                return;
        struct root_table *t = &pool->table_of[which];
        struct root **at = &t->bucket[root_hash(root, which) & (t->n_buckets - 1)];
        while (*at != root)
                at = &(*at)->hash_next[which];
        *at = root->hash_next[which];
        t->n--;
}

int roots_init(struct pool *pool)
{
        for (int i = 0; i < 3; i++) {
                pool->table_of[i] = (struct root_table){.n_buckets = 64};
                pool->table_of[i].bucket = calloc(64, sizeof(struct root *));
                if (!pool->table_of[i].bucket)
                        return -ENOMEM;
        }
        return 0;
}

static void count_named(struct pool *pool, const struct root *root, int delta)
{
        if (root->state == ROOT_LIVE)
                pool->n_volumes += (uint64_t)(int64_t)delta;
        else if (root->state == ROOT_FROZEN && root->name[0])
                pool->n_snapshots += (uint64_t)(int64_t)delta;
}

void root_identify(struct pool *pool, struct root *root, uint8_t state, uint64_t volume_id,
                   const char *name)
{
        char copy[POOL_NAME_MAX + 1];
        memcpy(copy, name, strlen(name) + 1);
        table_remove(pool, BY_NAME, root);
        table_remove(pool, BY_VOLUME, root);
        count_named(pool, root, -1);
        root->state = state;
        root->volume_id = volume_id;
        memcpy(root->name, copy, sizeof(copy));
        count_named(pool, root, 1);
        table_insert(pool, BY_NAME, root);
        table_insert(pool, BY_VOLUME, root);
}

/* ---- finding ---- */

struct root *root_by_id(struct pool *pool, uint64_t id)
{
        struct root_table *t = &pool->table_of[BY_ID];
        struct root *root = t->bucket[mix(id) & (t->n_buckets - 1)];
        while (root && root->id != id)
                root = root->hash_next[BY_ID];
        return root;
}

struct root *root_head(struct pool *pool, uint64_t volume_id)
{
        struct root_table *t = &pool->table_of[BY_VOLUME];
        struct root *root = t->bucket[mix(volume_id) & (t->n_buckets - 1)];
        while (root && root->volume_id != volume_id)
                root = root->hash_next[BY_VOLUME];
        return root;
}

static struct root *root_named(struct pool *pool, uint8_t state, uint64_t volume_id,
                               const char *name)
{
        struct root_table *t = &pool->table_of[BY_NAME];
        struct root *root = t->bucket[name_hash(state, volume_id, name) & (t->n_buckets - 1)];
        while (root && (root->state != state || strcmp(root->name, name) ||
                        (state == ROOT_FROZEN && root->volume_id != volume_id)))
                root = root->hash_next[BY_NAME];
        return root;
}

struct root *root_snapshot(struct pool *pool, uint64_t volume_id, const char *name)
{
        return root_named(pool, ROOT_FROZEN, volume_id, name);
}

struct root *root_by_name(struct pool *pool, const char *name)
{
        const char *at = strchr(name, '@');
        if (!at)
                return root_named(pool, ROOT_LIVE, 0, name);
        char volume[POOL_NAME_MAX + 1];
        size_t n = (size_t)(at - name);
        if (n > POOL_NAME_MAX)
                return NULL;
        memcpy(volume, name, n);
        volume[n] = 0;
        struct root *head = root_named(pool, ROOT_LIVE, 0, volume);
        return head ? root_snapshot(pool, head->volume_id, at + 1) : NULL;
}

/* ---- making and letting go ---- */

void body_free(struct root_body *body)
{
        if (!body)
                return;
        free(body->bucket);
        free(body->bucket_page);
        free(body->description);
        free(body);
}

static void root_free(struct root *root)
{
        usage_free(root->usage);
        body_free(root->body);
        free(root->ancestors);
        free(root->image);
        free(root);
}

static int slots_grow(struct pool *pool, uint32_t slot)
{
        if (slot < pool->slot_room)
                return 0;
        uint32_t room = pool->slot_room ? pool->slot_room : 64;
        while (room <= slot)
                room *= 2;
        struct root **grown = realloc(pool->slot, room * sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        memset(grown + pool->slot_room, 0, (room - pool->slot_room) * sizeof(*grown));
        pool->slot = grown;
        pool->slot_room = room;
        return 0;
}

struct root *root_enter(struct pool *pool, uint64_t id, uint32_t slot)
{
        if (slots_grow(pool, slot) < 0)
                return NULL;
        struct root *root = calloc(1, sizeof(*root));
        if (!root)
                return NULL;
        root->id = id;
        root->slot = slot;
        root->ancestry_version = UINT64_MAX;
        list_init(&root->children);
        list_init(&root->sibling);
        list_init(&root->dirty_link);
        list_init(&root->ranges);
        list_init(&root->held);
        co_queue_init(&root->drained);
        co_queue_init(&root->unheld);
        pool->slot[slot] = root;
        if (slot >= pool->n_slots)
                pool->n_slots = slot + 1;
        table_insert(pool, BY_ID, root);
        return root;
}

struct root *root_new(struct pool *pool, uint64_t id)
{
        uint32_t slot = pool->slot_cursor;
        while (slot < pool->n_slots && pool->slot[slot])
                slot++;
        if (slot >= SLOTS_MAX)
                return NULL;
        struct root_body *body = calloc(1, sizeof(*body));
        struct root *root = body ? root_enter(pool, id, slot) : NULL;
        if (!root) {
                free(body);
                return NULL;
        }
        pool->slot_cursor = slot + 1;
        body->map.height = 1;
        root->body = body;
        root->loaded = true;
        if (id >= pool->next_root_id)
                pool->next_root_id = id + 1;
        return root;
}

void root_set_parent(struct pool *pool, struct root *root, struct root *parent)
{
        if (root->parent) {
                list_remove(&root->sibling);
                root->parent->n_children--;
        }
        root->parent = parent;
        if (parent) {
                list_append(&parent->children, &root->sibling);
                parent->n_children++;
        }
        pool->ancestry_version++;
}

void root_set_base(struct root *root, struct root *base)
{
        if (root->base)
                root->base->n_dependents--;
        root->base = base;
        if (base)
                base->n_dependents++;
}

void root_release(struct pool *pool, struct root *root)
{
        root_set_parent(pool, root, NULL);
        root_identify(pool, root, ROOT_FREE, 0, "");
        root_dirty(pool, root);
}

void root_destroy(struct pool *pool, struct root *root)
{
        assert(root->state == ROOT_FREE && !root->n_handles && !root->n_children);
        table_remove(pool, BY_ID, root);
        pool->slot[root->slot] = NULL;
        if (root->slot < pool->slot_cursor)
                pool->slot_cursor = root->slot;
        root_free(root);
}

void roots_destroy(struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slots; i++)
                if (pool->slot[i])
                        root_free(pool->slot[i]);
        free(pool->slot);
        for (int i = 0; i < 3; i++)
                free(pool->table_of[i].bucket);
}

uint64_t catalog_blocks(uint64_t n, uint64_t n_slots)
{
        if (n == 0)
                return 0;
        uint64_t index_blocks = n_slots / INDEX_PER_BLOCK + 1,
                 index_leaves = index_blocks / LEAF_BLOCKS + 1,
                 root_leaves = n_slots / LEAF_BLOCKS + 1,
                 root_nodes = root_leaves / NODE_ENTRIES + 1;
        /* The blocks of the roots themselves; one node over all index blocks, and the top. */
        return n + min_u64(n, index_blocks) + min_u64(n, index_leaves) + min_u64(n, root_leaves) +
               min_u64(n, root_nodes) + 2;
}

void buckets_grown(struct pool *pool, const struct root *root, size_t before)
{
        if (root->dirty && root->body->n_buckets > before)
                pool->cut_pages += bucket_pages(root->body->n_buckets) - bucket_pages(before);
}

void root_dirty(struct pool *pool, struct root *root)
{
        if (root->dirty)
                return;
        assert(root->loaded);
        root->dirty = true;
        list_append(&pool->dirty_roots, &root->dirty_link);
        pool->n_dirty_roots++;
        pool->cut_pages += bucket_pages(root->body->n_buckets);
}
