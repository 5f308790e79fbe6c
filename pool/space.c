/* space.c - taking and freeing blocks.
 *
 * Two bitmaps a slab. live is what the trees, lists and tables refer to as of now, and goes to
 * disk. busy is what may not be taken: live, or taken by a write under way, or freed and not yet
 * allocatable [I3]. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"
#include "pool/full.h"

static uint32_t block_in_slab(const struct pool *pool, uint64_t address)
{
        return (uint32_t)(address & (pool->slab_blocks - 1));
}

static bool bit_get(const uint64_t *map, uint32_t i)
{
        return map[i / 64] >> (i % 64) & 1;
}

static void bit_set(uint64_t *map, uint32_t i)
{
        map[i / 64] |= UINT64_C(1) << (i % 64);
}

static void bit_clear(uint64_t *map, uint32_t i)
{
        map[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

/* ---- counting ---- */

static void count_alloc(struct pool *pool, struct slab *slab, int32_t delta)
{
        slab->alloc_free = (uint32_t)((int32_t)slab->alloc_free + delta);
        if (slab->kind == SLAB_DATA) {
                pool->data_free += (uint64_t)(int64_t)delta;
                pool->disk[slab->leg[0].member]->data_free += (uint64_t)(int64_t)delta;
        } else {
                pool->metadata_free += (uint64_t)(int64_t)delta;
        }
        if (slab->alloc_free == 0) {
                list_remove(&slab->avail);
                if (pool->stripe_slab == slab)
                        pool->stripe_slab = NULL;
        } else if (list_empty(&slab->avail)) {
                list_append(slab->kind == SLAB_DATA ? &pool->disk[slab->leg[0].member]->avail
                                                    : &pool->metadata_avail,
                            &slab->avail);
        }
}

static void count_live(struct pool *pool, struct slab *slab, int32_t delta)
{
        slab->live_free = (uint32_t)((int32_t)slab->live_free - delta);
        slab->dirty = slab->map_dirty = true;
        *(slab->kind == SLAB_DATA ? &pool->data_live : &pool->metadata_live) +=
            (uint64_t)(int64_t)delta;
        if (slab->kind == SLAB_DATA && pool->data_live > pool->filling_next)
                filling_look(pool);
}

void space_add_slab(struct pool *pool, struct slab *slab)
{
        if (!slab_has_map(slab))
                return;
        uint32_t n = slab->alloc_free;
        slab->alloc_free = 0;
        *(slab->kind == SLAB_DATA ? &pool->data_total : &pool->metadata_total) += pool->slab_blocks;
        count_alloc(pool, slab, (int32_t)n);
}

/* ---- taking ---- */

static void touch(struct slab *slab, uint32_t first, uint32_t n)
{
        for (uint32_t mib = first / LEAF_BLOCKS; mib <= (first + n - 1) / LEAF_BLOCKS; mib++)
                slab->touched[mib / 64] |= UINT64_C(1) << (mib % 64);
}

/* A free block from the cursor on, once round; the caller knows that there is one. */
static uint32_t slab_next_free(const struct pool *pool, const struct slab *slab)
{
        uint32_t i = slab->cursor;
        for (;;) {
                if (i >= pool->slab_blocks)
                        i = 0;
                uint64_t word = ~slab->busy[i / 64] >> (i % 64);
                if (word)
                        return i + (uint32_t)__builtin_ctzll(word);
                i = (i / 64 + 1) * 64;
        }
}

static uint32_t slab_take(struct pool *pool, struct slab *slab, uint32_t want,
                          uint64_t *ret_address)
{
        assert(slab->alloc_free > 0 && want > 0);
        uint32_t first = slab_next_free(pool, slab), n = 0;
        while (n < want && first + n < pool->slab_blocks && !bit_get(slab->busy, first + n))
                bit_set(slab->busy, first + n++);
        slab->cursor = first + n;
        touch(slab, first, n);
        count_alloc(pool, slab, -(int32_t)n);
        *ret_address = (uint64_t)slab->index << pool->slab_shift | first;
        return n;
}

static uint64_t disk_weight(const struct pool *pool, const struct disk *disk)
{
        return disk->data_free +
               (data_may_grow(pool, disk) ? (uint64_t)disk->free_units << pool->slab_shift : 0);
}

/* Smooth weighted round robin: each turn a member gains its weight, the richest is chosen and pays
 * the sum. */
static struct disk *stripe_next(struct pool *pool)
{
        struct disk *best = NULL;
        int64_t sum = 0;
        for (size_t i = 0; i < pool->n_disks; i++) {
                struct disk *disk = pool->disk[i];
                int64_t weight = (int64_t)disk_weight(pool, disk);
                if (weight == 0) {
                        disk->credit = 0;
                        continue;
                }
                disk->credit += weight;
                sum += weight;
                if (!best || disk->credit > best->credit)
                        best = disk;
        }
        if (best)
                best->credit -= sum;
        return best;
}

static struct disk *concat_next(struct pool *pool)
{
        for (size_t i = 0; i < pool->n_disks; i++)
                if (disk_weight(pool, pool->disk[i]))
                        return pool->disk[i];
        return NULL;
}

/* A slab of @disk with room: the one in use, or a new one. */
static int disk_data_slab(struct pool *pool, struct disk *disk, struct slab **ret_slab)
{
        if (list_empty(&disk->avail)) {
                struct slab *slab;
                int r = slab_place(pool, SLAB_DATA, disk, &slab);
                if (r < 0)
                        return r;
                r = slab_enter(pool, slab, pool->recovering);
                if (r < 0) {
                        slab_unplace(pool, slab);
                        return r;
                }
                maker_kick(pool);
        }
        *ret_slab = container_of(disk->avail.next, struct slab, avail);
        return 0;
}

static int stripe_turn(struct pool *pool)
{
        struct disk *disk =
            pool->layout == POOL_LAYOUT_CONCAT ? concat_next(pool) : stripe_next(pool);
        if (!disk)
                return -ENOSPC;
        int r = disk_data_slab(pool, disk, &pool->stripe_slab);
        if (r < 0)
                return r;
        pool->stripe_left = pool->stripe_blocks;
        return 0;
}

int space_take_data(struct pool *pool, uint32_t want, uint64_t *ret_address, uint32_t *ret_n)
{
        if (!pool->stripe_slab || pool->stripe_left == 0) {
                pool->stripe_slab = NULL;
                int r = stripe_turn(pool);
                if (r < 0)
                        return r;
        }
        uint32_t n = want < pool->stripe_left ? want : pool->stripe_left;
        *ret_n = slab_take(pool, pool->stripe_slab, n, ret_address);
        pool->stripe_left -= *ret_n;
        return 0;
}

int space_take_metadata(struct pool *pool, uint64_t *ret_address)
{
        if (list_empty(&pool->metadata_avail)) {
                /* A replay may make slabs as it goes: they become real with its checkpoint. */
                struct slab *made;
                if (!pool->recovering || slab_place(pool, SLAB_METADATA, NULL, &made) < 0)
                        return -ENOSPC;
                if (slab_enter(pool, made, true) < 0) {
                        slab_unplace(pool, made);
                        return -ENOSPC;
                }
        }
        struct slab *slab = container_of(pool->metadata_avail.next, struct slab, avail);
        slab_take(pool, slab, 1, ret_address);
        bit_set(slab->live, block_in_slab(pool, *ret_address));
        count_live(pool, slab, 1);
        maker_kick(pool);
        return 0;
}

void space_untake(struct pool *pool, uint64_t address, uint32_t n)
{
        struct slab *slab = address_slab(pool, address);
        uint32_t first = block_in_slab(pool, address);
        for (uint32_t i = 0; i < n; i++)
                bit_clear(slab->busy, first + i);
        count_alloc(pool, slab, (int32_t)n);
}

void space_commit(struct pool *pool, uint64_t address, uint32_t n)
{
        struct slab *slab = address_slab(pool, address);
        uint32_t first = block_in_slab(pool, address);
        for (uint32_t i = 0; i < n; i++) {
                assert(bit_get(slab->busy, first + i) && !bit_get(slab->live, first + i));
                bit_set(slab->live, first + i);
        }
        count_live(pool, slab, (int32_t)n);
}

/* ---- freeing ---- */

void space_free(struct pool *pool, uint64_t address)
{
        struct slab *slab = address_slab(pool, address);
        uint32_t i = block_in_slab(pool, address);
        if (!slab || !slab_has_map(slab) || !bit_get(slab->live, i)) {
                pool_fail(pool, "block %llu is freed and was not in use: the metadata is damaged",
                          (unsigned long long)address);
                return;
        }
        bit_clear(slab->live, i);
        count_live(pool, slab, -1);
        slab->freed_interval = pool->interval;
        if (slab->kind == SLAB_DATA)
                pool->discard_after = pool->interval + DISCARD_CHECKPOINTS;
        struct interval *now = &pool->intervals[pool->interval % INTERVALS];
        if (now->n == now->room) {
                size_t room = now->room ? now->room * 2 : 1024;
                uint64_t *grown = realloc(now->address, room * sizeof(*grown));
                if (!grown)
                        /* stays busy until the pool is opened again: space lost for a while,
                         * nothing else */
                        return;
                now->address = grown;
                now->room = room;
        }
        now->address[now->n++] = address;
        pool->waiting_frees++;
}

static void interval_release(struct pool *pool, struct interval *old)
{
        for (size_t i = 0; i < old->n; i++)
                space_untake(pool, old->address[i], 1);
        pool->waiting_frees -= old->n;
        free(old->address);
        *old = (struct interval){0};
}

void space_release(struct pool *pool)
{
        while (!pool->hold_frees && pool->released_interval < pool->committed_interval) {
                struct interval *old = &pool->intervals[(pool->released_interval + 1) % INTERVALS];
                if (old->readers)
                        return;
                interval_release(pool, old);
                pool->released_interval++;
                stalled_wake(pool);
        }
}

void reader_exit(struct pool *pool, uint64_t interval)
{
        struct interval *i = &pool->intervals[interval % INTERVALS];
        assert(i->readers > 0);
        if (--i->readers == 0 && interval == pool->released_interval + 1)
                space_release(pool);
}

bool space_is_live(struct pool *pool, uint64_t address)
{
        struct slab *slab = address_slab(pool, address);
        return slab && slab_has_map(slab) && bit_get(slab->live, block_in_slab(pool, address));
}

/* ---- replay ---- */

int space_mark_busy(struct pool *pool, uint64_t address, uint32_t n)
{
        struct slab *slab = address_slab(pool, address);
        uint32_t first = block_in_slab(pool, address);
        if (!slab || slab->kind != SLAB_DATA || first + n > pool->slab_blocks)
                return -EUCLEAN;
        for (uint32_t i = first; i < first + n; i++) {
                if (bit_get(slab->busy, i))
                        return -EUCLEAN; /* in use since before the log's start, or named twice */
                bit_set(slab->busy, i);
                count_alloc(pool, slab, -1);
        }
        touch(slab, first, n);
        return 0;
}

void space_recount_busy(struct pool *pool)
{
        for (uint32_t s = 0; s < pool->n_slabs; s++) {
                struct slab *slab = pool->slab[s];
                if (!slab_has_map(slab))
                        continue;
                memcpy(slab->busy, slab->live, pool->slab_blocks / 8);
                count_alloc(pool, slab, (int32_t)slab->live_free - (int32_t)slab->alloc_free);
        }
        for (size_t k = 0; k < INTERVALS; k++) {
                for (size_t i = 0; i < pool->intervals[k].n; i++) {
                        uint64_t address = pool->intervals[k].address[i];
                        struct slab *slab = address_slab(pool, address);
                        if (bit_get(slab->busy, block_in_slab(pool, address)))
                                continue;
                        bit_set(slab->busy, block_in_slab(pool, address));
                        count_alloc(pool, slab, -1);
                }
        }
}

/* ---- metadata in reserve ---- */

uint64_t metadata_reserve(const struct pool *pool)
{
        return min_u64(1024, pool->metadata_total / 4);
}

int64_t metadata_available(const struct pool *pool)
{
        return (int64_t)pool->metadata_free - (int64_t)pool->metadata_reserved -
               (int64_t)(pool->cut_pages + catalog_blocks(pool->n_dirty_roots, pool->n_slots));
}
