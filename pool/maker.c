/* maker.c - slabs made ahead of need, and free space given back to the members. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"

/* Metadata that a pool this full of data will want: a leaf for each 256 blocks, twice while a
 * checkpoint holds both versions, and something over. */
static bool metadata_is_ample(const struct pool *pool, uint64_t more_data)
{
        uint64_t wanted = (pool->data_total + more_data) / 80 + min_u64(256, pool->slab_blocks / 2);
        return pool->metadata_total >= wanted;
}

static unsigned members_with_room(const struct pool *pool, const struct disk *without)
{
        unsigned n = 0;
        for (size_t i = 0; i < pool->n_disks; i++)
                if (pool->disk[i]->free_units > (pool->disk[i] == without))
                        n++;
        return n;
}

/* Whether a slab of metadata could be made, were a unit of @without gone. Two legs are not given up
 * where two members have room; where only one has any, space that nobody could use is worse. */
static bool metadata_slab_fits(const struct pool *pool, const struct disk *without)
{
        unsigned legs = (unsigned)min_u64(members_with_room(pool, NULL), SLAB_LEGS);
        return legs && members_with_room(pool, without) >= legs;
}

bool data_may_grow(const struct pool *pool, const struct disk *disk)
{
        if (!disk->free_units)
                return false;
        /* The last units are kept for metadata until there is enough of it. */
        return metadata_is_ample(pool, pool->slab_blocks) || metadata_slab_fits(pool, disk);
}

/* Half of it free lets a checkpoint take its time.
 * When the pool is filling up an eighth has to do. */
static bool metadata_is_low(const struct pool *pool)
{
        uint64_t units = 0, free_units = 0;
        for (size_t i = 0; i < pool->n_disks; i++) {
                units += pool->disk[i]->n_units;
                free_units += pool->disk[i]->free_units;
        }
        uint64_t share = free_units > units / 4 ? 2 : 8;
        int64_t available = metadata_available(pool);
        return !metadata_is_ample(pool, 0) || available < (int64_t)(2 * metadata_reserve(pool)) ||
               available < (int64_t)(pool->metadata_total / share);
}

static bool system_is_low(const struct pool *pool)
{
        return pool->system_room < 4 * MAP_COPIES;
}

static int co_make(struct pool *pool, enum slab_kind kind)
{
        struct slab *slab;
        int r = slab_place(pool, kind, NULL, &slab);
        if (r < 0)
                return r;
        r = co_slab_write_out(pool, slab);
        if (r == 0)
                r = slab_enter(pool, slab, false);
        if (r < 0)
                slab_unplace(pool, slab);
        return r;
}

static void maker_main(void *arg)
{
        struct pool *pool = arg;
        int r = 0;
        while (r == 0 && !pool->closing && !pool_failed(pool)) {
                if (system_is_low(pool))
                        r = co_make(pool, SLAB_SYSTEM);
                else if (metadata_is_low(pool))
                        r = co_make(pool, SLAB_METADATA);
                else
                        break;
        }
        if (r == -ENOSPC)
                pool->maker_waits = pool->n_checkpoints + 1;
        if (r < 0 && r != -ENOSPC) {
                pool->maker_broken = true; /* until the next open */
                log_error("pool '%s': a slab for metadata cannot be made: %s", pool->name,
                          strerror(-r));
        }
        pool->maker_running = false;
        co_wake_all(&pool->maker_done);
        stalled_wake(pool);
        engine_coroutine_ends(pool);
}

void maker_kick(struct pool *pool)
{
        if (pool->maker_running || pool->maker_broken || pool->closing || pool->readonly ||
            pool->recovering || pool->options.held || pool_failed(pool) ||
            !metadata_slab_fits(pool, NULL))
                return;
        /* Whoever waits for it waits for a checkpoint as well, and gives up when neither helped. */
        if (pool->n_checkpoints < pool->maker_waits)
                return;
        if (!metadata_is_low(pool) && !system_is_low(pool))
                return;
        pool->maker_running = true;
        if (engine_spawn(pool, maker_main, pool) < 0)
                pool->maker_running = false;
}

/* ---- discards ---- */

static bool run_is_free(const struct slab *slab, uint32_t first, uint32_t n)
{
        for (uint32_t i = first / 64; i < (first + n) / 64; i++)
                if (slab->busy[i])
                        return false;
        return true;
}

/* The run is held back from allocation while the member discards it. */
static int co_run_discard(struct pool *pool, struct slab *slab, uint32_t first, uint32_t n)
{
        uint64_t address = (uint64_t)slab->index << pool->slab_shift | first;
        if (space_mark_busy(pool, address, n) < 0)
                return -EUCLEAN;
        struct disk *disk = pool->disk[slab->leg[0].member];
        pool->discard_in_flight = true;
        int r = co_member_discard(disk->member, leg_offset(slab, 0, address, pool->slab_blocks),
                                  (uint64_t)n * BLOCK);
        pool->discard_in_flight = false;
        uint32_t mib = first / LEAF_BLOCKS;
        slab->touched[mib / 64] &= ~(UINT64_C(1) << (mib % 64));
        slab->dirty = pool->touched_dirty = true;
        space_untake(pool, address, n);
        stalled_wake(pool);
        return r;
}

static void co_discard_slab(struct pool *pool, struct slab *slab)
{
        uint32_t n = (uint32_t)min_u64(LEAF_BLOCKS, pool->slab_blocks);
        for (uint32_t first = 0; first < pool->slab_blocks && !pool->closing; first += n) {
                uint32_t mib = first / LEAF_BLOCKS;
                if ((slab->touched[mib / 64] >> (mib % 64) & 1) && run_is_free(slab, first, n) &&
                    co_run_discard(pool, slab, first, n) < 0)
                        return;
        }
}

void co_discard_free(struct pool *pool)
{
        if (pool->discarder_running || pool->readonly)
                return;
        pool->discarder_running = true;
        for (uint32_t s = 0; s < pool->n_slabs && !pool_failed(pool); s++) {
                struct slab *slab = pool->slab[s];
                if (slab->kind == SLAB_DATA && (slab->touched[0] | slab->touched[1]) &&
                    slab->freed_interval + DISCARD_CHECKPOINTS <= pool->committed_interval &&
                    pool->disk[slab->leg[0].member]->member->can_discard)
                        co_discard_slab(pool, slab);
        }
        pool->discarder_running = false;
}
