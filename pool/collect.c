/* collect.c - roots that nobody needs, and giving their blocks back.
 *
 * Names, open handles and children keep a root. With neither name nor handle: a root without
 * children becomes an orphan; one with a single child merges into it; one with more waits, hidden
 * [I6]. A base is kept by the roots on it. An orphan is nobody's child; the worker frees it piece by piece, and its cursor and the
 * frees are committed by the same checkpoint. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"

#define WAITING_FREES_MAX (UINT64_C(1) << 20)

/* ---- collecting ---- */

/* [sync] No child: its own blocks go; what its deadlist names belongs to ancestors, so only the
 * pages go. */
static void root_orphan(struct pool *pool, struct root *root)
{
        uint64_t threshold = root->parent ? root->parent->epoch : 0;
        for (size_t i = 0; i < root->body->n_buckets; i++)
                root->body->bucket[i].flags = BUCKET_PAGES_ONLY;
        root->body->cursor = 0;
        root->broken = root->starved = false; /* of a shrink: this is another way */
        root->epoch = threshold;
        root_set_parent(pool, root, NULL);
        root_set_base(root, NULL);
        root_identify(pool, root, ROOT_ORPHAN, root->volume_id, "");
        root_dirty(pool, root);
}

/* [sync] One child: of the child's deadlist, what only @root still had is freed (as the list of an
 * orphan, for which @root itself serves); the rest, and @root's own list, become the child's. */
static int root_merge(struct pool *pool, struct root *root)
{
        struct root *child = container_of(root->children.next, struct root, sibling);
        struct root_body *c = child->body, *p = root->body;
        uint64_t bound = root->parent ? root->parent->epoch : 0;
        size_t keep = 0, n_freed, all = c->n_buckets, own = p->n_buckets;
        while (keep < all && c->bucket[keep].key < bound)
                keep++;
        n_freed = all - keep;
        struct bucket *freed = malloc((n_freed + 1) * sizeof(*freed));
        if (!freed)
                return -ENOMEM;
        uint64_t n_blocks = deadlist_blocks_above(c, bound);
        if (n_freed)
                memcpy(freed, c->bucket + keep, n_freed * sizeof(*freed));
        c->n_buckets = keep;
        int r = deadlist_merge(pool, c, p);
        if (r < 0) {
                free(freed);
                return pool_fail(pool, "out of memory while snapshots were being merged");
        }
        free(p->bucket);
        p->bucket = freed;
        p->n_buckets = n_freed;
        p->bucket_room = n_freed + 1;
        c->own_blocks += p->own_blocks - n_blocks;
        p->map = (struct tree){.root = {.type = ENTRY_ABSENT}, .height = 1};
        p->size_bytes = p->high_bytes = p->data_blocks = p->own_blocks = p->cursor = 0;
        p->base_bytes = 0;
        root->broken = root->starved = false;
        root_set_parent(pool, child, root->parent);
        root_set_parent(pool, root, NULL);
        root_set_base(root, NULL);
        root_identify(pool, root, ROOT_ORPHAN, root->volume_id, "");
        buckets_grown(pool, root, own);
        buckets_grown(pool, child, all);
        root_dirty(pool, root);
        root_dirty(pool, child);
        return 0;
}

static bool root_is_garbage(const struct root *root)
{
        if (root->n_handles > 0)
                return false;
        return root->state == ROOT_BASE
                   ? root->n_dependents == 0
                   : root->state == ROOT_FROZEN && !root->name[0] && root->n_children <= 1;
}

/* ret_base_id: of a base that a root which goes stood on; else untouched. All above it stand on the
 * same. */
static int co_collect_up(struct pool *pool, struct root *root, uint64_t *ret_base_id,
                         struct error *err)
{
        while (root && root_is_garbage(root)) {
                uint64_t id = root->id;
                struct root *child = root->n_children
                                         ? container_of(root->children.next, struct root, sibling)
                                         : NULL;
                uint64_t child_id = child ? child->id : 0;
                int r = co_root_load(pool, root, err);
                if (r == 0 && child)
                        r = co_root_load(pool, child, err);
                if (r < 0)
                        return r;
                /* Loading may have suspended: look again. */
                root = root_by_id(pool, id);
                if (!root || !root_is_garbage(root) ||
                    (root->n_children &&
                     container_of(root->children.next, struct root, sibling)->id != child_id))
                        continue;
                struct root *parent = root->parent;
                if (root->base)
                        *ret_base_id = root->base->id;
                if (root->n_children)
                        r = root_merge(pool, root);
                else
                        root_orphan(pool, root);
                if (r < 0)
                        return error_set(err, r, "out of memory");
                worker_kick(pool);
                root = parent;
        }
        return 0;
}

int co_collect(struct pool *pool, struct root *root, struct error *err)
{
        uint64_t base_id = 0, none;
        int r = co_collect_up(pool, root, &base_id, err);
        /* In a replay records may follow that fill it: those come first, and all bases are looked at
         * in the end. */
        if (r == 0 && base_id && !pool->recovering)
                r = co_collect_up(pool, root_by_id(pool, base_id), &none, err);
        return r;
}

void co_collect_after(struct pool *pool, struct root *root)
{
        struct error e = ERROR_INIT;
        uint64_t id = root ? root->id : 0;
        if (root && co_collect(pool, root, &e) < 0 && !pool_failed(pool))
                log_error(
                    "pool '%s': what root %llu held is freed when the pool is opened again: %s",
                    pool->name, (unsigned long long)id, e.message);
}

int co_collect_all(struct pool *pool, struct error *err)
{
        int r = 0;
        /* Bases last: what stood on one may go only now, whichever has the lower slot. */
        for (unsigned bases = 0; bases < 2; bases++)
                for (uint32_t i = 0; i < pool->n_slots && r == 0; i++)
                        if (pool->slot[i] && (pool->slot[i]->state == ROOT_BASE) == (bases == 1))
                                r = co_collect(pool, pool->slot[i], err);
        return r;
}

void co_shrinks_find(struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slots; i++) {
                struct root *root = pool->slot[i];
                struct error e = ERROR_INIT;
                if (root && root->state == ROOT_LIVE && root->shrinking &&
                    co_root_load(pool, root, &e) < 0)
                        log_error(
                            "%s; what shrinking volume '%s' gave up is freed when it is opened",
                            e.message, root->name);
        }
}

/* ---- freeing an orphan ---- */

static int free_entry(struct pool *pool, const struct entry *e)
{
        if (e->type == ENTRY_NODE)
                node_free_block(pool, e);
        else if (e->type == ENTRY_DATA)
                space_free(pool, e->address);
        else
                return -EUCLEAN;
        return pool_failed(pool) ? -EIO : 0;
}

static int bucket_push(struct root_body *body, const struct bucket *like, const struct entry *head)
{
        if (head->type != ENTRY_NODE)
                return 0;
        if (body->n_buckets == body->bucket_room) {
                struct bucket *grown =
                    realloc(body->bucket, (body->bucket_room + 8) * sizeof(*grown));
                if (!grown)
                        return -ENOMEM;
                body->bucket = grown;
                body->bucket_room += 8;
        }
        body->bucket[body->n_buckets++] =
            (struct bucket){.key = like->key, .head = *head, .flags = like->flags};
        return 0;
}

/* The newest page of the last bucket: what it lists, then itself. */
static int co_free_page(struct pool *pool, struct root *root)
{
        struct root_body *body = root->body;
        struct bucket bucket = body->bucket[body->n_buckets - 1];
        if (bucket.head.type != ENTRY_NODE) {
                body->n_buckets--;
                root_dirty(pool, root);
                return 0;
        }
        struct node *node;
        int r = co_node_get(pool, &bucket.head, &node);
        if (r < 0)
                return r;
        /* [sync] from here on */
        bucket = body->bucket[body->n_buckets - 1]; /* a cut may have filled in the CRC */
        const struct deadlist_disk *d = node->page;
        uint32_t n = le32_get(d->n);
        struct entry prev = entry_get(&d->prev), join = entry_get(&d->join);
        if (le64_get(d->magic) != DEADLIST_MAGIC || n > DEAD_ENTRIES) {
                node_unpin(pool, node);
                return -EUCLEAN;
        }
        body->n_buckets--;
        r = bucket_push(body, &bucket, &prev);
        if (r == 0)
                r = bucket_push(body, &bucket, &join);
        for (uint32_t i = 0; i < n && r == 0 && !(bucket.flags & BUCKET_PAGES_ONLY); i++) {
                struct entry e = entry_get(&d->entry[i]);
                r = free_entry(pool, &e);
        }
        node_unpin(pool, node);
        if (r == 0)
                r = free_entry(pool, &bucket.head);
        root_dirty(pool, root);
        return r < 0 ? pool_fail(pool, "a deadlist of an orphan is damaged") : 0;
}

struct orphan_path {
        struct node *node[HEIGHT_MAX + 1]; /* by level, pinned */
        struct entry entry[HEIGHT_MAX + 1];
        unsigned lowest; /* the level the way ends at: 1 for a leaf */
        uint64_t skip;   /* blocks that the way's end stands for */
};

static void path_release(struct pool *pool, struct orphan_path *path)
{
        for (unsigned i = 0; i <= HEIGHT_MAX; i++)
                if (path->node[i])
                        node_unpin(pool, path->node[i]);
}

/* Down to the leaf at the cursor, or to what is a hole or belongs to an ancestor. */
static int co_path_get(struct pool *pool, struct root *root, struct orphan_path *path)
{
        struct entry e = root->body->map.root;
        for (unsigned level = root->body->map.height;; level--) {
                path->skip = tree_span(level);
                path->lowest = level + 1;
                if (entry_is_hole(&e) || e.birth <= root->epoch)
                        return 0;
                if (e.type != ENTRY_NODE)
                        return -EUCLEAN;
                int r = co_node_get(pool, &e, &path->node[level]);
                if (r < 0)
                        return r;
                path->entry[level] = e;
                path->lowest = level;
                if (level == 1)
                        return 0;
                const struct node_disk *d = path->node[level]->page;
                e = entry_get(&d->entry[(root->body->cursor >> (8 * (level - 1))) & 255]);
        }
}

static int leaf_free(struct pool *pool, struct root *root, const struct node *leaf)
{
        const struct node_disk *d = leaf->page;
        for (unsigned i = 0; i < LEAF_BLOCKS; i++) {
                struct entry e = entry_get(&d->entry[i]);
                if (entry_is_hole(&e) || e.birth <= root->epoch)
                        continue;
                int r = free_entry(pool, &e);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* One leaf, or one stretch that holds nothing to free,
 * and the nodes above that are done with it. */
static int co_free_leaf(struct pool *pool, struct root *root)
{
        struct orphan_path path = {0};
        struct root_body *body = root->body;
        int r = co_path_get(pool, root, &path);
        /* [sync] from here on */
        if (r == 0 && path.lowest == 1)
                r = leaf_free(pool, root, path.node[1]);
        if (r == 0) {
                uint64_t next = body->cursor / path.skip * path.skip + path.skip;
                for (unsigned level = 1; level <= body->map.height && r == 0; level++)
                        if (path.node[level] && next % tree_span(level) == 0)
                                r = free_entry(pool, &path.entry[level]);
                body->cursor = next;
                if (next >= tree_span(body->map.height)) {
                        body->map.root = (struct entry){.type = ENTRY_ABSENT};
                        body->cursor = 0;
                }
                root_dirty(pool, root);
        }
        path_release(pool, &path);
        return r;
}

static bool orphan_is_done(const struct root *root)
{
        return root->body->n_buckets == 0 && (root->body->map.root.type != ENTRY_NODE ||
                                              root->body->map.root.birth <= root->epoch);
}

static int co_orphan_step(struct pool *pool, struct root *root)
{
        if (root->body->n_buckets)
                return co_free_page(pool, root);
        /* Nodes go one by one while those above still name them: none of them may be waiting to be
         * sealed. A parent's birth is never below its children's. */
        if (root->body->map.root.birth > pool->last_cut_epoch)
                return co_checkpoint(pool, NULL);
        return co_free_leaf(pool, root);
}

/* ---- shrinking ---- */

/* Not while writes are held back: what the hold waits for may itself wait for the worker to end. */
static bool wants_shrinking(const struct root *root)
{
        return root->state == ROOT_LIVE && root->loaded && root->body->high_bytes && !root->n_holds;
}

/* A slice of what lies behind the end of a volume that was shrunk. */
static int co_shrink_step(struct pool *pool, struct root *root)
{
        struct root_body *body = root->body;
        co_write_begin(root); /* at once: nobody holds it */
        uint64_t first = (body->size_bytes + BLOCK - 1) / BLOCK,
                 end = (body->high_bytes + BLOCK - 1) / BLOCK, hole;
        /* A volume that was large is mostly holes: four pebibytes are 67 million slices. No node is
         * passed over: one with nothing but absent entries does not exist. (One with zero ones
         * does.) */
        while (end > first && (hole = tree_absent_start(pool, &body->map, end - 1)) < end)
                end = max_u64(first, hole);
        uint64_t n =
            end > first ? min_u64(end - first, clear_slice_blocks(pool, root, 0, true)) : 0;
        int r = n ? co_root_clear(pool, root, end - n, n, ENTRY_ABSENT, true) : 0;
        if (r == 0) {
                body->high_bytes = end - n > first ? (end - n) * BLOCK : 0;
                root_dirty(pool, root);
        }
        write_end(root);
        return r;
}

/* ---- the worker ---- */

static struct root *next_job(struct pool *pool)
{
        struct root *first = pool->job_first ? root_by_id(pool, pool->job_first) : NULL;
        if (first && !first->broken && !first->starved && wants_shrinking(first))
                return first;
        for (uint32_t i = 0; i < pool->n_slots; i++) {
                struct root *root = pool->slot[i];
                if (!root || root->broken || root->starved)
                        continue;
                if (root->state == ROOT_ORPHAN || wants_shrinking(root))
                        return root;
        }
        return NULL;
}

static void co_job(struct pool *pool, struct root *root)
{
        struct error e = ERROR_INIT;
        uint64_t id = root->id;
        int r = co_root_load(pool, root, &e);
        while (r == 0 && !pool->closing && !pool_failed(pool)) {
                if (pool->waiting_frees > WAITING_FREES_MAX && co_checkpoint(pool, NULL) < 0)
                        return;
                root = root_by_id(pool, id); /* a restore may have taken a shrinking head away */
                if (!root || (root->state != ROOT_ORPHAN && !wants_shrinking(root)) ||
                    (pool->job_first && pool->job_first != id && next_job(pool) != root))
                        return;
                if (root->state == ROOT_ORPHAN && orphan_is_done(root)) {
                        root_release(pool, root);
                        return;
                }
                r = root->state == ROOT_ORPHAN ? co_orphan_step(pool, root)
                                               : co_shrink_step(pool, root);
                co_yield_loop();
        }
        root = root_by_id(pool, id);
        if (r == -ENOSPC && root && !pool->closing) {
                root->starved = true;
                root->starved_with = metadata_available(pool);
                log_warning(
                    "pool '%s': what shrinking volume '%s' gave up is freed when there is more "
                    "space for metadata",
                    pool->name, root->name);
        } else if (r < 0 && root && !pool->closing) {
                root->broken = true;
                log_error("pool '%s': space of root %llu cannot be freed: %s", pool->name,
                          (unsigned long long)id, e.message[0] ? e.message : strerror(-r));
        }
}

static void worker_main(void *arg)
{
        struct pool *pool = arg;
        struct root *root;
        while (!pool->closing && !pool_failed(pool) && (root = next_job(pool)))
                co_job(pool, root);
        pool->worker_running = false;
        co_wake_all(&pool->worker_done);
        stalled_wake(pool);
        engine_coroutine_ends(pool);
}

void worker_feed(struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slots; i++) {
                struct root *root = pool->slot[i];
                if (root && root->starved && metadata_available(pool) > root->starved_with)
                        root->starved = false;
        }
        worker_kick(pool);
}

void worker_kick(struct pool *pool)
{
        if (pool->worker_running || pool->closing || pool->readonly || pool->recovering ||
            pool->options.held || pool_failed(pool) || !next_job(pool))
                return;
        pool->worker_running = true;
        if (engine_spawn(pool, worker_main, pool) < 0)
                pool->worker_running = false;
}
