/* slab.c - the slab table: records in table pages, named by index pages, named by the superblock;
 * each page in three copies that take turns, so that writing allocation state allocates nothing. */
#include <errno.h>
#include <stdlib.h>
#include "pool/codec.h"

void slab_free(struct slab *slab)
{
        if (!slab)
                return;
        free(slab->live);
        free(slab->busy);
        free(slab);
}

/* ---- units of members ---- */

static uint64_t slab_bytes(const struct pool *pool)
{
        return (uint64_t)pool->slab_blocks * BLOCK;
}

static bool unit_is_taken(const struct disk *disk, uint32_t unit)
{
        return disk->units[unit / 64] >> (unit % 64) & 1;
}

static void unit_take(struct disk *disk, uint32_t unit)
{
        disk->units[unit / 64] |= UINT64_C(1) << (unit % 64);
        disk->free_units--;
}

static struct leg disk_take_unit(struct pool *pool, struct disk *disk)
{
        assert(disk->free_units);
        while (unit_is_taken(disk, disk->unit_cursor))
                disk->unit_cursor = (disk->unit_cursor + 1) % disk->n_units;
        unit_take(disk, disk->unit_cursor);
        return (struct leg){disk->index, LABEL_AREA_BYTES + disk->unit_cursor * slab_bytes(pool)};
}

/* The unit a leg claims, taken; -EUCLEAN where it is none or has an owner. */
static int leg_claim_unit(struct pool *pool, const struct leg *leg)
{
        struct disk *disk = pool->disk[leg->member];
        uint64_t at = leg->offset - LABEL_AREA_BYTES;
        if (leg->offset < LABEL_AREA_BYTES || at % slab_bytes(pool) ||
            at / slab_bytes(pool) >= disk->n_units ||
            unit_is_taken(disk, (uint32_t)(at / slab_bytes(pool))))
                return -EUCLEAN;
        unit_take(disk, (uint32_t)(at / slab_bytes(pool)));
        return 0;
}

static void leg_release_unit(struct pool *pool, const struct leg *leg)
{
        struct disk *disk = pool->disk[leg->member];
        uint32_t unit = (uint32_t)((leg->offset - LABEL_AREA_BYTES) / slab_bytes(pool));
        disk->units[unit / 64] &= ~(UINT64_C(1) << (unit % 64));
        disk->free_units++;
}

/* The member with the most free units, other than @not. */
static struct disk *roomiest(struct pool *pool, const struct disk * not )
{
        struct disk *best = NULL;
        for (size_t i = 0; i < pool->n_disks; i++) {
                struct disk *disk = pool->disk[i];
                if (disk != not &&disk->free_units &&
                    (!best || disk->free_units > best->free_units))
                        best = disk;
        }
        return best;
}

/* ---- making slabs ---- */

static int slab_maps_alloc(struct pool *pool, struct slab *slab)
{
        slab->live = calloc(pool->slab_blocks / 64, sizeof(uint64_t));
        slab->busy = calloc(pool->slab_blocks / 64, sizeof(uint64_t));
        return slab->live && slab->busy ? 0 : -ENOMEM;
}

int slab_place(struct pool *pool, enum slab_kind kind, struct disk *disk, struct slab **ret_slab)
{
        struct slab *slab = calloc(1, sizeof(*slab));
        if (!slab)
                return -ENOMEM;
        slab->kind = (uint8_t)kind;
        list_init(&slab->avail);
        slab->live_free = slab->alloc_free = pool->slab_blocks;
        if (slab_has_map(slab) && slab_maps_alloc(pool, slab) < 0) {
                slab_free(slab);
                return -ENOMEM;
        }
        struct disk *first = kind == SLAB_DATA ? disk : roomiest(pool, NULL);
        struct disk *second = kind == SLAB_DATA || !first ? NULL : roomiest(pool, first);
        if (!first || !first->free_units) {
                slab_free(slab);
                return -ENOSPC;
        }
        slab->leg[slab->n_legs++] = disk_take_unit(pool, first);
        if (second)
                slab->leg[slab->n_legs++] = disk_take_unit(pool, second);
        *ret_slab = slab;
        return 0;
}

void slab_unplace(struct pool *pool, struct slab *slab)
{
        for (unsigned i = 0; i < slab->n_legs; i++)
                leg_release_unit(pool, &slab->leg[i]);
        slab_free(slab);
}

/* Three adjacent pages of a system slab. */
static int triple_take(struct pool *pool, struct slab_extent *extent)
{
        for (uint32_t i = 0; i < pool->n_slabs; i++) {
                struct slab *slab = pool->slab[i];
                if (slab->kind != SLAB_SYSTEM || slab->live_free < MAP_COPIES)
                        continue;
                uint64_t shift = (uint64_t)(pool->slab_blocks - slab->live_free) * BLOCK;
                *extent = (struct slab_extent){.n_legs = slab->n_legs, .dirty = true};
                for (unsigned k = 0; k < slab->n_legs && k < 2; k++)
                        extent->leg[k] =
                            (struct leg){slab->leg[k].member, slab->leg[k].offset + shift};
                slab->live_free -= MAP_COPIES;
                pool->system_room -= MAP_COPIES;
                slab->dirty = true;
                return 0;
        }
        return -ENOSPC;
}

static int extents_reserve(struct pool *pool, struct slab_extent **array, uint32_t *n,
                           uint32_t wanted)
{
        while (*n < wanted) {
                struct slab_extent *grown = realloc(*array, (*n + 1) * sizeof(**array));
                if (!grown)
                        return -ENOMEM;
                *array = grown;
                int r = triple_take(pool, &grown[*n]);
                if (r < 0)
                        return r;
                ++*n;
        }
        return 0;
}

/* The table and index pages for record @index exist. A system slab makes room for its own. */
static int table_reserve(struct pool *pool, uint32_t index)
{
        uint32_t page = index / SLABS_PER_PAGE, root = page / EXTENTS_PER_PAGE;
        if (root >= INDEX_PAGES_MAX)
                return -ENOSPC;
        int r = extents_reserve(pool, &pool->index, &pool->n_index, root + 1);
        return r < 0 ? r : extents_reserve(pool, &pool->table, &pool->n_table, page + 1);
}

static int slab_array_put(struct pool *pool, uint32_t index, struct slab *slab)
{
        if (index >= pool->slab_room) {
                uint32_t room = pool->slab_room ? pool->slab_room : 64;
                while (room <= index)
                        room *= 2;
                struct slab **grown = realloc(pool->slab, room * sizeof(*grown));
                if (!grown)
                        return -ENOMEM;
                pool->slab = grown;
                pool->slab_room = room;
        }
        assert(index == pool->n_slabs);
        slab->index = index;
        pool->slab[index] = slab;
        pool->n_slabs++;
        if (slab->kind == SLAB_SYSTEM)
                pool->system_room += slab->live_free;
        return 0;
}

static void bit_set_both(struct slab *slab, uint32_t i)
{
        slab->live[i / 64] |= UINT64_C(1) << (i % 64);
        slab->busy[i / 64] |= UINT64_C(1) << (i % 64);
        slab->live_free--;
        slab->alloc_free--;
}

int slab_enter(struct pool *pool, struct slab *slab, bool quiet)
{
        uint64_t taken[MAP_COPIES];
        unsigned n_taken = 0;
        int r = 0;
        if (slab->kind == SLAB_DATA) {
                for (; n_taken < MAP_COPIES; n_taken++) {
                        r = space_take_metadata(pool, &taken[n_taken]);
                        if (r < 0)
                                goto fail;
                        slab->map_address[n_taken] = taken[n_taken];
                }
        }
        r = slab_array_put(pool, pool->n_slabs, slab);
        if (r < 0)
                goto fail;
        r = table_reserve(pool, slab->index);
        if (r < 0) {
                pool->n_slabs--;
                if (slab->kind == SLAB_SYSTEM)
                        pool->system_room -= slab->live_free;
                goto fail;
        }
        if (slab->kind == SLAB_METADATA) {
                for (uint32_t i = 0; i < MAP_COPIES; i++) {
                        slab->map_address[i] = (uint64_t)slab->index << pool->slab_shift | i;
                        bit_set_both(slab, i);
                }
                pool->metadata_live += MAP_COPIES;
        }
        slab->dirty = slab->map_dirty = true;
        if (!quiet) {
                struct log_slab_disk *d = log_append(pool, sizeof(*d), LOG_SLAB, 0);
                d->index = le32_make(slab->index);
                slab_encode(slab, &d->slab);
        }
        space_add_slab(pool, slab);
        return 0;
fail:
        while (n_taken > 0)
                space_free(pool, taken[--n_taken]);
        return r;
}

/* ---- entering slabs that the disk names ---- */

static int slab_claim_units(struct pool *pool, struct slab *slab, struct error *err)
{
        for (unsigned i = 0; i < slab->n_legs; i++) {
                if (leg_claim_unit(pool, &slab->leg[i]) == 0)
                        continue;
                while (i > 0)
                        leg_release_unit(pool, &slab->leg[--i]);
                return error_set(err, -EUCLEAN,
                                 "slab %u lies outside its member or on another slab", slab->index);
        }
        return 0;
}

/* The slab of record @disk, with its units; not in the pool's array yet. */
static int slab_read(struct pool *pool, uint32_t index, const struct slab_disk *disk,
                     struct slab **ret, struct error *err)
{
        struct slab *slab = calloc(1, sizeof(*slab));
        if (!slab)
                return error_set(err, -ENOMEM, "out of memory");
        slab->index = index;
        list_init(&slab->avail);
        int r = slab_decode(disk, pool->n_disks, pool->slab_blocks, slab, err);
        if (r == 0 && slab->kind == SLAB_NONE)
                r = error_set(err, -EUCLEAN, "the record of slab %u is empty", index);
        if (r == 0)
                r = slab_claim_units(pool, slab, err);
        if (r < 0) {
                slab_free(slab);
                return r;
        }
        *ret = slab;
        return 0;
}

/* Into the array, with room for its map; frees it where there is no memory. */
static int slab_keep(struct pool *pool, uint32_t index, struct slab *slab, struct error *err)
{
        int r = slab_has_map(slab) ? slab_maps_alloc(pool, slab) : 0;
        if (r == 0)
                r = slab_array_put(pool, index, slab);
        if (r == 0)
                return 0;
        slab_free(slab);
        return error_set(err, r, "out of memory");
}

static int map_blocks_claim(struct pool *pool, struct slab *slab, struct error *err)
{
        for (unsigned i = 0; i < MAP_COPIES; i++) {
                uint64_t address = slab->map_address[i];
                struct slab *home = address_slab(pool, address);
                uint32_t bit = (uint32_t)(address & (pool->slab_blocks - 1));
                if (!home || home->kind != SLAB_METADATA ||
                    (home->live[bit / 64] >> (bit % 64) & 1))
                        return error_set(err, -EUCLEAN,
                                         "the space map of slab %u lies on something else",
                                         slab->index);
                if (home != slab) /* @slab itself is counted when it is added */
                        pool->metadata_free--;
                pool->metadata_live++;
                bit_set_both(home, bit);
                home->dirty = home->map_dirty = true;
                if (home->alloc_free == 0)
                        list_remove(&home->avail);
        }
        return 0;
}

int slab_replay(struct pool *pool, uint32_t index, const struct slab_disk *disk, struct error *err)
{
        if (index < pool->n_slabs)
                return error_set(err, -EUCLEAN, "the log makes slab %u, which exists", index);
        if (index > pool->n_slabs)
                return error_set(err, -EUCLEAN, "the log makes slab %u before slab %u", index,
                                 pool->n_slabs);
        struct slab *slab;
        int r = slab_read(pool, index, disk, &slab, err);
        if (r < 0)
                return r;
        slab->live_free = slab->alloc_free = pool->slab_blocks;
        slab->touched[0] = slab->touched[1] = 0;
        r = slab_keep(pool, index, slab, err);
        if (r < 0)
                return r;
        r = table_reserve(pool, index);
        if (r < 0)
                return error_set(err, r, "no room for the record of slab %u", index);
        if (slab_has_map(slab))
                r = map_blocks_claim(pool, slab, err);
        slab->dirty = slab->map_dirty = true;
        if (r == 0)
                space_add_slab(pool, slab);
        return r;
}

/* ---- loading ---- */

static bool extent_lies_inside(const struct pool *pool, const struct slab_extent *x)
{
        for (unsigned i = 0; i < x->n_legs; i++)
                if (x->leg[i].offset >
                    pool->disk[x->leg[i].member]->size_bytes - MAP_COPIES * BLOCK)
                        return false;
        return true;
}

static int co_extent_page(struct pool *pool, const struct slab_extent *x, void *page,
                          const char *what, struct error *err)
{
        if (!extent_lies_inside(pool, x))
                return error_set(err, -EUCLEAN, "an extent of the slab table lies nowhere");
        int r =
            co_legs_read(pool, x->leg, x->n_legs, (uint64_t)x->copy * BLOCK, x->crc, page, what);
        return r == 0
                   ? 0
                   : error_set(err, r, "%s of pool '%s' is damaged on every member that holds it",
                               what, pool->name);
}

static int co_table_extents_load(struct pool *pool, uint32_t n_table, void *page, struct error *err)
{
        pool->table = calloc(n_table ? n_table : 1, sizeof(*pool->table));
        if (!pool->table)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < pool->n_index; i++)
                if (!extent_lies_inside(pool, &pool->index[i]))
                        return error_set(err, -EUCLEAN, "an extent of the slab table lies nowhere");
        for (uint32_t i = 0; i < n_table; i++) {
                const struct extent_disk *x = page;
                if (i % EXTENTS_PER_PAGE == 0) {
                        int r = co_extent_page(pool, &pool->index[i / EXTENTS_PER_PAGE], page,
                                               "an index page of the slab table", err);
                        if (r < 0)
                                return r;
                }
                int r =
                    extent_decode(&x[i % EXTENTS_PER_PAGE], pool->n_disks, &pool->table[i], err);
                if (r < 0)
                        return r;
                pool->n_table = i + 1;
        }
        return 0;
}

static int slab_from_disk(struct pool *pool, uint32_t index, const struct slab_disk *disk,
                          struct error *err)
{
        struct slab *slab;
        int r = slab_read(pool, index, disk, &slab, err);
        return r < 0 ? r : slab_keep(pool, index, slab, err);
}

static uint32_t bits_set(const uint64_t *map, uint32_t n)
{
        uint32_t sum = 0;
        for (uint32_t i = 0; i < n / 64; i++)
                sum += (uint32_t)__builtin_popcountll(map[i]);
        return sum;
}

static int co_slab_map_load(struct pool *pool, struct slab *slab, void *page, struct error *err)
{
        int r = co_metadata_read(pool, slab->map_address[slab->map_copy], slab->map_crc, page);
        if (r < 0)
                return error_set(
                    err, r, "the space map of slab %u is damaged on every member that holds it",
                    slab->index);
        memcpy(slab->live, page, pool->slab_blocks / 8);
        memcpy(slab->busy, page, pool->slab_blocks / 8);
        uint32_t used = bits_set(slab->live, pool->slab_blocks);
        if (used + slab->live_free != pool->slab_blocks)
                return error_set(err, -EUCLEAN,
                                 "slab %u says %u blocks are free, its space map says %u",
                                 slab->index, slab->live_free, pool->slab_blocks - used);
        slab->alloc_free = slab->live_free;
        *(slab->kind == SLAB_DATA ? &pool->data_live : &pool->metadata_live) += used;
        space_add_slab(pool, slab);
        return 0;
}

/* All copies of a space map are written one day, so none may lie elsewhere. */
static int map_addresses_check(struct pool *pool, const struct slab *slab, struct error *err)
{
        for (unsigned i = 0; i < MAP_COPIES; i++) {
                const struct slab *home = address_slab(pool, slab->map_address[i]);
                if (!home || home->kind != SLAB_METADATA ||
                    !space_is_live(pool, slab->map_address[i]))
                        return error_set(err, -EUCLEAN,
                                         "the space map of slab %u lies on something else",
                                         slab->index);
        }
        return 0;
}

int co_slabs_load(struct pool *pool, uint32_t n_slabs, struct error *err)
{
        void *page = page_alloc();
        if (!page)
                return error_set(err, -ENOMEM, "out of memory");
        int r =
            co_table_extents_load(pool, (n_slabs + SLABS_PER_PAGE - 1) / SLABS_PER_PAGE, page, err);
        for (uint32_t i = 0; i < n_slabs && r == 0; i++) {
                const struct slab_disk *record = page;
                if (i % SLABS_PER_PAGE == 0)
                        r = co_extent_page(pool, &pool->table[i / SLABS_PER_PAGE], page,
                                           "a page of the slab table", err);
                if (r == 0)
                        r = slab_from_disk(pool, i, &record[i % SLABS_PER_PAGE], err);
        }
        for (uint32_t i = 0; i < n_slabs && r == 0; i++)
                if (slab_has_map(pool->slab[i]))
                        r = co_slab_map_load(pool, pool->slab[i], page, err);
        for (uint32_t i = 0; i < n_slabs && r == 0; i++)
                if (slab_has_map(pool->slab[i]))
                        r = map_addresses_check(pool, pool->slab[i], err);
        free(page);
        return r;
}

/* ---- freezing ---- */

static int map_freeze(struct pool *pool, struct slab *slab, struct frozen *frozen)
{
        void *page = page_alloc();
        if (!page)
                return -ENOMEM;
        memcpy(page, slab->live, pool->slab_blocks / 8);
        slab->map_copy = (slab->map_copy + 1) % MAP_COPIES;
        slab->map_crc = crc32c(0, page, BLOCK);
        slab->map_dirty = false;
        uint64_t address = slab->map_address[slab->map_copy];
        struct slab *home = address_slab(pool, address);
        int r = frozen_add(frozen, page, NULL, home->leg, home->n_legs,
                           (address & (pool->slab_blocks - 1)) * BLOCK);
        if (r < 0)
                free(page);
        return r;
}

static int extent_freeze(struct slab_extent *x, void *page, struct frozen *frozen)
{
        x->copy = (x->copy + 1) % MAP_COPIES;
        x->crc = crc32c(0, page, BLOCK);
        x->dirty = false;
        int r = frozen_add(frozen, page, NULL, x->leg, x->n_legs, (uint64_t)x->copy * BLOCK);
        if (r < 0)
                free(page);
        return r;
}

static int table_freeze(struct pool *pool, uint32_t t, struct frozen *frozen)
{
        struct slab_disk *record = page_alloc();
        if (!record)
                return -ENOMEM;
        for (uint32_t i = 0; i < SLABS_PER_PAGE && t * SLABS_PER_PAGE + i < pool->n_slabs; i++) {
                struct slab *slab = pool->slab[t * SLABS_PER_PAGE + i];
                slab_encode(slab, &record[i]);
                slab->dirty = false;
        }
        pool->index[t / EXTENTS_PER_PAGE].dirty = true;
        return extent_freeze(&pool->table[t], record, frozen);
}

static int index_freeze(struct pool *pool, uint32_t n, struct frozen *frozen)
{
        struct extent_disk *x = page_alloc();
        if (!x)
                return -ENOMEM;
        for (uint32_t i = 0; i < EXTENTS_PER_PAGE && n * EXTENTS_PER_PAGE + i < pool->n_table; i++)
                extent_encode(&pool->table[n * EXTENTS_PER_PAGE + i], &x[i]);
        return extent_freeze(&pool->index[n], x, frozen);
}

int slabs_freeze(struct pool *pool, struct frozen *frozen)
{
        int r = 0;
        for (uint32_t i = 0; i < pool->n_slabs && r == 0; i++) {
                struct slab *slab = pool->slab[i];
                if (slab->map_dirty && slab_has_map(slab))
                        r = map_freeze(pool, slab, frozen);
                if (slab->dirty)
                        pool->table[i / SLABS_PER_PAGE].dirty = true;
        }
        for (uint32_t i = 0; i < pool->n_table && r == 0; i++)
                if (pool->table[i].dirty)
                        r = table_freeze(pool, i, frozen);
        for (uint32_t i = 0; i < pool->n_index && r == 0; i++)
                if (pool->index[i].dirty)
                        r = index_freeze(pool, i, frozen);
        return r;
}
