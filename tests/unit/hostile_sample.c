/* hostile_sample.c - see hostile_sample.h. */
#include "tests/unit/hostile_sample.h"

/* ---- where metadata lies ---- */

static struct spot *spot_add(struct sample *sample, enum spot_kind kind, unsigned disk,
                             uint64_t offset)
{
        if (sample->n_spots == sample->room) {
                sample->room = sample->room ? 2 * sample->room : 1024;
                sample->spot = realloc(sample->spot, sample->room * sizeof(*sample->spot));
        }
        struct spot *spot = &sample->spot[sample->n_spots++];
        *spot = (struct spot){.kind = kind, .disk = disk, .offset = offset};
        return spot;
}

static void spots_of_slab(struct sample *sample, const struct pool *pool, const struct slab *slab)
{
        static const enum spot_kind kind[] = {
            [SLAB_METADATA] = SPOT_NODE, [SLAB_SYSTEM] = SPOT_TABLE, [SLAB_LOG] = SPOT_LOG};
        for (uint32_t b = 0; b < pool->slab_blocks; b++) {
                uint64_t shift = (uint64_t)b * BLOCK;
                bool wanted = slab->kind == SLAB_METADATA ? slab->live[b / 64] >> (b % 64) & 1
                              : slab->kind == SLAB_SYSTEM ? b < pool->slab_blocks - slab->live_free
                              : slab->kind == SLAB_LOG    ? b < pool->log.next
                                                          : false;
                if (!wanted)
                        continue;
                struct spot *spot = spot_add(sample, kind[slab->kind], slab->leg[0].member,
                                             slab->leg[0].offset + shift);
                spot->has_other = slab->n_legs > 1;
                spot->other_disk = slab->leg[1].member;
                spot->other_offset = slab->leg[1].offset + shift;
        }
}

static void spots_of_labels(struct sample *sample, uint64_t slot)
{
        for (unsigned i = 0; i < 2 * HOSTILE_DISKS; i++) {
                uint64_t area = i % 2 ? SIM_MEMBER_SIZE - LABEL_AREA_BYTES : 0;
                spot_add(sample, SPOT_LABEL, i / 2, area);
                for (unsigned k = 0; k < 8; k++) /* there is one, and much of it is reserved */
                        spot_add(sample, SPOT_SUPER, i / 2,
                                 area + SUPER_RING_OFFSET + slot + k % 2 * BLOCK);
        }
}

static int by_kind(const void *a, const void *b)
{
        const struct spot *x = a, *y = b;
        if (x->kind != y->kind)
                return x->kind < y->kind ? -1 : 1;
        if (x->disk != y->disk)
                return x->disk < y->disk ? -1 : 1;
        return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Half a slab; 0 where no slab has so many in a row at its end. */
static uint64_t free_blocks(const struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slabs; i++) {
                const struct slab *slab = pool->slab[i];
                uint32_t half = pool->slab_blocks / 2;
                uint64_t taken = 0;
                if (slab->kind != SLAB_DATA)
                        continue;
                for (uint32_t b = half; b < pool->slab_blocks; b++)
                        taken |= (slab->live[b / 64] | slab->busy[b / 64]) >> (b % 64) & 1;
                if (!taken)
                        return (uint64_t)i * pool->slab_blocks + half;
        }
        return 0;
}

static void spots_find(struct sample *sample, struct pool *pool)
{
        uint64_t shift;
        unsigned n_legs;
        uint64_t slot = pool->generation % SUPER_SLOTS * SUPER_SLOT_BYTES;
        const struct slab_extent *table = &pool->table[0];
        const struct leg *log = log_page_legs(pool, pool->log.start, &n_legs, &shift);
        sample->super_slot = SUPER_RING_OFFSET + slot;
        sample->table =
            (struct spot){.kind = SPOT_TABLE,
                          .disk = table->leg[0].member,
                          .offset = table->leg[0].offset + (uint64_t)table->copy * BLOCK};
        sample->n_table = pool->n_slabs < SLABS_PER_PAGE ? pool->n_slabs : SLABS_PER_PAGE;
        sample->log = (struct spot){.kind = SPOT_LOG,
                                    .disk = log->member,
                                    .offset = log->offset + shift,
                                    .has_other = n_legs > 1,
                                    .other_disk = log[1].member,
                                    .other_offset = log[1].offset + shift};
        sample->n_log =
            (unsigned)min_u64(pool->log.next - pool->log.start, pool->slab_blocks - shift / BLOCK);
        sample->free_block = free_blocks(pool);
        spots_of_labels(sample, slot);
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                spots_of_slab(sample, pool, pool->slab[i]);
}

/* By what the pages say that they are. */
static void spots_sort(struct sample *sample)
{
        for (size_t i = 0; i < sample->n_spots; i++) {
                struct spot *spot = &sample->spot[i];
                le64 magic;
                if (spot->kind != SPOT_NODE)
                        continue;
                sim_image_read(sample->image[spot->disk], spot->offset, &magic, sizeof(magic));
                spot->kind = le64_get(magic) == ROOT_MAGIC       ? SPOT_ROOT
                             : le64_get(magic) == DEADLIST_MAGIC ? SPOT_DEADLIST
                             : le64_get(magic) == BUCKETS_MAGIC  ? SPOT_BUCKETS
                                                                 : SPOT_NODE;
        }
        qsort(sample->spot, sample->n_spots, sizeof(*sample->spot), by_kind);
        for (size_t i = 0; i < sample->n_spots; i++)
                sample->first[sample->spot[i].kind + 1] = i + 1;
        for (unsigned k = 1; k <= SPOT_KINDS; k++) /* of a kind there may be none */
                if (sample->first[k] < sample->first[k - 1])
                        sample->first[k] = sample->first[k - 1];
}

/* ---- the sample ---- */

struct sampling {
        struct sample *sample;
        enum sample_end end;
};
static struct sampling sampling; /* sim_pool_run() takes no argument */

/* What a checkpoint in progress would change stays. */
static void co_settled(struct sim_pool *s)
{
        while (s->pool->checkpoint_running || s->pool->checkpoint_wanted || s->pool->worker_running)
                co_sleep_ns(1000000);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        for (unsigned i = 0; i < 3; i++) {
                expect(s, co_sim_pool_write(s, "row", 30 * i, 8) == 0);
                expect(s, co_commit(s->pool) == 0);
        }
        expect(s, !s->pool->checkpoint_running && !s->pool->checkpoint_wanted);
}

/* A pool of many shapes. */
static void co_sample(void *arg)
{
        struct sim_pool *s = arg;
        struct sample *sample = sampling.sample;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_snapshots_in_a_row(s) == 0);
        expect(s, co_family(s) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_snapshot_delete(s->pool, "web@two", NULL) == 0);
        expect(s, co_sim_pool_write(s, "web", 40, 200) == 0);
        expect(s, co_sim_pool_discard(s, "copy", 10, 90) == 0);
        expect(s, co_sim_pool_snapshot(s, "copy@last") == 0);
        expect(s, co_sim_pool_write(s, "row", 0, 90) == 0);
        struct volume *v;
        expect(s, co_volume_open(s->pool, "row", &v, NULL) == 0);
        expect(s, co_volume_flush(v) == 0);
        co_volume_close(v);
        if (sampling.end == SAMPLE_SETTLED)
                co_settled(s);
        if (sampling.end == SAMPLE_CLOSED) {
                expect(s, co_sim_pool_close(s) == 0);
                expect(s, co_sim_pool_open(s, true) == 0);
        }
        spots_find(sample, s->pool);
        for (unsigned i = 0; i < s->n_disks; i++)
                sample->image[i] = sim_disk_visible(s->disk[i]);
        spots_sort(sample);
        co_pool_abandon(s->pool);
}

void sample_make(struct sample *sample, enum sample_end end)
{
        *sample = (struct sample){0};
        sampling = (struct sampling){sample, end};
        sim_pool_run(HOSTILE_DISKS, 1, co_sample);
        assert_true(sample->n_spots > 200);
        assert_true(sample->free_block > 0);
}

void sample_free(struct sample *sample)
{
        for (unsigned i = 0; i < HOSTILE_DISKS; i++)
                sim_image_free(sample->image[i]);
        free(sample->spot);
}

/* ---- use ---- */

#define USE_BYTES (256u << 10) /* more than any request of an ordinary file system */

static int name_note(const struct root_info *info, void *arg)
{
        struct hostile_names *names = arg;
        if (names->n < HOSTILE_NAMES)
                snprintf(names->name[names->n++], sizeof(names->name[0]), "%s%s%s", info->volume,
                         info->snapshot ? "@" : "", info->snapshot ? info->snapshot : "");
        return 0;
}

void co_hostile_list(struct sim_pool *s, struct hostile_names *names)
{
        co_pool_list(s->pool, name_note, names, NULL);
}

static void ignored(void *arg, const char *sentence)
{
}

void co_hostile_check(struct sim_pool *s, bool read_data)
{
        struct pool_check_callbacks callbacks = {.finding = ignored};
        uint64_t n;
        co_pool_check(s->pool, read_data, &callbacks, &n, NULL);
}

void co_hostile_use_volume(struct sim_pool *s, const char *name, uint64_t number)
{
        struct volume *v;
        struct volume_extent extent[8];
        size_t n;
        if (co_volume_open(s->pool, name, &v, NULL) < 0)
                return;
        uint64_t size = volume_size(v), length = size < USE_BYTES ? size : USE_BYTES;
        uint64_t at = number % (size - length + 1);
        char *data = calloc(1, USE_BYTES);
        co_volume_read(v, data, length, 0);
        co_volume_read(v, data, length, at);
        co_volume_status(v, 0, size, extent, 8, &n);
        co_volume_write(v, data, length < 9000 ? length : 9000, at, VOLUME_FUA);
        co_volume_discard(v, at / 2, length, 0);
        co_volume_flush(v);
        free(data);
        co_volume_close(v);
}

static int nothing_each(uint64_t offset, uint64_t length, void *arg)
{
        return 0;
}

void co_hostile_operate(struct sim_pool *s, unsigned kind, const char *name, uint64_t number)
{
        switch (kind) {
        case 0:
                co_snapshot_delete(s->pool, name, NULL);
                break;
        case 1:
                co_volume_delete(s->pool, name, true, NULL);
                break;
        case 2:
                co_snapshot_clone(s->pool, name, "another", NULL);
                break;
        case 3:
                co_snapshot_restore(s->pool, name, NULL, NULL);
                break;
        case 4:
                co_volume_resize(s->pool, name, number, NULL);
                break;
        case 5:
                co_pool_diff(s->pool, name, "web", nothing_each, NULL, NULL);
                break;
        default:
                co_pool_checkpoint(s->pool, NULL);
        }
}
