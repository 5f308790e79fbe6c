/* checkpoint.c - making a moment durable, while I/O goes on.
 *
 * The cut is one step without suspension: CRCs are filled in, roots, maps and tables are frozen
 * into a list of pages, and the epoch is raised, so that nothing frozen changes any more. Then:
 * write the pages; flush; superblock on every member; flush; only then is it committed [I1]. */
#include <errno.h>
#include <stdlib.h>
#include "pool/codec.h"

/* Addresses of freed blocks that a held checkpoint may keep in memory: 128 MiB of them. */
#define HELD_FREES_MAX (UINT64_C(1) << 24)

#define DIRTY_MAX 8192u /* nodes: the cut computes their CRCs in one step, some 0.5 us each */

void epoch_raise(struct pool *pool)
{
        log_seal(pool);
        if (pool->epoch < BIRTH_MAX)
                pool->epoch++;
        else
                pool_fail(pool, "its epochs are used up");
}

/* What is dirty has a second copy on disk until the checkpoint commits: half of what metadata is
 * free may be. */
static uint64_t dirty_limit(const struct pool *pool)
{
        int64_t room = metadata_available(pool) + (int64_t)pool->cache.n_dirty;
        return min_u64(min_u64(pool->cache.n_max / 4, DIRTY_MAX),
                       room > 64 ? (uint64_t)room / 2 : 32);
}

static bool frees_pile_up(const struct pool *pool)
{
        return pool->waiting_frees > max_u64(pool->data_free, 64) ||
               pool->waiting_frees > (1 << 20);
}

bool checkpoint_due(struct pool *pool)
{
        /* A held checkpoint keeps the frees: another would bring none of them back. */
        return log_pages_used(pool) > pool->log.ring_pages / 2 ||
               pool->cache.n_dirty > dirty_limit(pool) ||
               (frees_pile_up(pool) && !pool->hold_frees);
}

static int super_fill(struct pool *pool, struct super *s)
{
        *s = (struct super){
            .generation = pool->generation + 1,
            .epoch = pool->epoch + 1,
            .incompat = pool->incompat,
            .ro_compat = pool->ro_compat,
            .compat = pool->compat,
            .created_ns = pool->created_ns,
            .layout = pool->layout,
            .stripe_blocks = pool->stripe_blocks,
            .slab_blocks = pool->slab_blocks,
            .n_slabs = pool->n_slabs,
            .log_pages = pool->log.ring_pages,
            .log_incarnation = pool->log.incarnation,
            .log_start = pool->log.next,
            .log_chain = pool->log.chain,
            .catalog_height = pool->catalog.height,
            .catalog = pool->catalog.root,
            .next_root_id = pool->next_root_id,
            .next_record = pool->log.next_record,
            .n_members = (uint32_t)pool->n_disks,
            .n_index = pool->n_index,
        };
        memcpy(s->pool_uuid, pool->uuid, 16);
        memcpy(s->name, pool->name, sizeof(s->name));
        s->member = calloc(s->n_members, sizeof(*s->member));
        s->index = calloc(s->n_index ? s->n_index : 1, sizeof(*s->index));
        if (!s->member || !s->index)
                return -ENOMEM;
        for (uint32_t i = 0; i < s->n_members; i++) {
                memcpy(s->member[i].uuid, pool->disk[i]->uuid, 16);
                s->member[i].index = i;
                s->member[i].state = MEMBER_STATE_IN;
                s->member[i].size_bytes = pool->disk[i]->size_bytes;
        }
        memcpy(s->index, pool->index, s->n_index * sizeof(*s->index));
        return 0;
}

/* A holder sees the cut once. */
struct held {
        const struct checkpoint_hold *hold;
        int result;
};

static void held_see(struct held *held)
{
        if (held)
                held->result = held->hold->at_cut(held->hold->arg);
}

/* [sync] The cut. */
static int cut(struct pool *pool, bool fresh_log, struct frozen *frozen, struct super *super,
               struct held *held)
{
        if (pool->epoch >= BIRTH_MAX)
                return pool_fail(pool, "its epochs are used up");
        pool->touched_dirty = false;
        int r = catalog_freeze(pool, frozen);
        if (r == 0)
                r = slabs_freeze(pool, frozen);
        if (r < 0)
                return r;
        log_seal(pool);
        if (fresh_log) {
                pool->log.incarnation++;
                pool->log.next = 0;
                pool->log.chain = 0;
        }
        r = super_fill(pool, super);
        if (r < 0)
                return r;
        held_see(held);
        pool->last_cut_epoch = pool->epoch;
        epoch_raise(pool);
        /* Where every place of the ring is taken by an interval whose frees still wait, this one
         * goes on, and its frees wait for the next checkpoint as well. */
        if (pool->interval - pool->released_interval < INTERVALS)
                pool->interval++;
        return 0;
}

static int compare_pages(const void *a, const void *b)
{
        const struct leg *x = &((const struct frozen_page *)a)->target[0];
        const struct leg *y = &((const struct frozen_page *)b)->target[0];
        if (x->member != y->member)
                return x->member < y->member ? -1 : 1;
        return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* In the order of the disk, so that neighbours become one write. */
static int co_write_out(struct pool *pool, struct frozen *frozen, const struct super *super)
{
        struct error e = ERROR_INIT;
        if (frozen->n)
                qsort(frozen->page, frozen->n, sizeof(*frozen->page), compare_pages);
        int r = co_write_frozen(pool, frozen);
        if (r == 0)
                r = co_flush_members(pool);
        if (r == 0 && co_super_write_all(pool, super, &e) < 0)
                r = pool_fail(pool, "%s", e.message);
        if (r == 0)
                r = co_flush_members(pool);
        return r < 0 && !pool_failed(pool) ? pool_fail(pool, "out of memory for a checkpoint") : r;
}

static bool nothing_to_do(const struct pool *pool)
{
        return pool->n_dirty_roots == 0 && pool->log.next == pool->log.start &&
               pool->log.open_used == 0 && pool->n_disks == pool->n_disks_committed &&
               pool->intervals[pool->interval % INTERVALS].n == 0 && !pool->touched_dirty &&
               pool->committed_interval >= pool->discard_after && pool->generation > 0;
}

static void committed(struct pool *pool, struct frozen *frozen, const struct super *super,
                      uint64_t interval)
{
        pool->generation = super->generation;
        pool->n_disks_committed = super->n_members;
        pool->committed_interval = interval;
        for (size_t i = 0; i < frozen->n; i++)
                if (frozen->page[i].node)
                        node_written(pool, frozen->page[i].node);
        log_advance(pool, super->log_start);
}

static int co_checkpoint_locked(struct pool *pool, bool fresh_log, struct held *held,
                                struct error *err)
{
        if (pool_failed(pool))
                return error_set(err, -EIO, "pool '%s' has stopped writing: %s", pool->name,
                                 pool->failed);
        if (pool->readonly || (nothing_to_do(pool) && !fresh_log)) {
                held_see(held);
                return 0;
        }
        if (pool->hold_frees && pool->waiting_frees > HELD_FREES_MAX)
                pool->check_disturbed = true;
        struct frozen frozen = {0};
        struct super super = {0};
        int r = cut(pool, fresh_log, &frozen, &super, held);
        uint64_t interval = pool->interval - 1; /* the last whose frees this checkpoint holds */
        if (r < 0)
                r = pool_fail(pool, r == -ENOSPC    ? "no metadata block is left for a checkpoint"
                                    : r == -EUCLEAN ? "its metadata is damaged"
                                                    : "out of memory for a checkpoint");
        else
                r = co_write_out(pool, &frozen, &super);
        if (r == 0)
                committed(pool, &frozen, &super, interval);
        frozen_release(pool, &frozen);
        super_free(&super);
        if (r < 0)
                return error_set(err, r, "pool '%s' has stopped writing: %s", pool->name,
                                 pool->failed);
        space_release(pool);
        while (cache_trim(pool, 1024)) /* what has been written may go */
                co_yield_loop();
        return 0;
}

static int co_checkpoint_with(struct pool *pool, bool fresh_log, struct held *held,
                              struct error *err)
{
        co_lock(&pool->checkpoint_lock);
        pool->checkpoint_wanted = false;
        pool->checkpoint_running = true;
        int r = co_checkpoint_locked(pool, fresh_log, held, err);
        if (r == 0 && held && held->result == 0 && held->hold->co_then)
                held->result = held->hold->co_then(held->hold->arg);
        pool->checkpoint_running = false;
        pool->n_checkpoints++;
        co_unlock(&pool->checkpoint_lock);
        co_wake_all(&pool->checkpoint_ended);
        stalled_wake(pool);
        return r;
}

int co_checkpoint(struct pool *pool, struct error *err)
{
        return co_checkpoint_with(pool, false, NULL, err);
}

int co_checkpoint_fresh(struct pool *pool, struct error *err)
{
        return co_checkpoint_with(pool, true, NULL, err);
}

int co_checkpoint_hold(struct pool *pool, const struct checkpoint_hold *hold, struct error *err)
{
        struct held held = {.hold = hold};
        if (pool->hold_frees++ == 0)
                pool->check_disturbed = false;
        int r = co_checkpoint_with(pool, false, &held, err);
        if (r == 0)
                r = held.result;
        if (r < 0)
                checkpoint_unhold(pool);
        return r;
}

void checkpoint_unhold(struct pool *pool)
{
        assert(pool->hold_frees > 0);
        if (--pool->hold_frees)
                return;
        space_release(pool);
        stalled_wake(pool);
}

void co_checkpoint_wait(struct pool *pool)
{
        co_wait(&pool->checkpoint_ended);
}

static void checkpoint_main(void *arg)
{
        struct pool *pool = arg;
        co_checkpoint(pool, NULL);
        co_discard_free(pool);
        engine_coroutine_ends(pool);
}

void checkpoint_kick(struct pool *pool)
{
        if (pool->checkpoint_wanted || pool->readonly || pool->recovering || pool->options.held ||
            pool_failed(pool))
                return;
        pool->checkpoint_wanted = true;
        if (engine_spawn(pool, checkpoint_main, pool) < 0)
                pool->checkpoint_wanted = false;
}

void checkpoint_kick_if_useful(struct pool *pool)
{
        if (!nothing_to_do(pool))
                checkpoint_kick(pool);
}
