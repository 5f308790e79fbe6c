/* test_hostile.c - a pool whose metadata has right checksums and wrong content: whatever it says,
 * nothing crashes, hangs or runs wild.
 *
 * Here every checksum is right, for crc32c() is this file's: what is changed at random anywhere in
 * labels, superblocks, slab table, space maps, log, catalog, maps and deadlists reaches the code
 * that has to judge it. The pool is then opened and used. Errors are fine, and so is a pool that
 * stops writing. */
#include "common/crc32c.h"
#include "tests/unit/check_fixture.h"

#define ROUNDS    120u
#define STEPS_MAX UINT64_C(3000000)

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
        return 0;
}

/* ---- where metadata lies ---- */

struct spot {
        unsigned disk;
        uint64_t offset;
};

struct sample {
        struct sim_image *image[SIM_MEMBERS_MAX];
        uint64_t super_slot;     /* in each label area */
        struct spot table, log;  /* the first page of each */
        unsigned n_table, n_log; /* of its records and pages */
        bool settled;            /* no checkpoint is on its way */
        struct spot *spot;
        size_t n_spots, room;
};

static struct sample sample;

static void spot_add(unsigned disk, uint64_t offset)
{
        if (sample.n_spots == sample.room) {
                sample.room = sample.room ? 2 * sample.room : 1024;
                sample.spot = realloc(sample.spot, sample.room * sizeof(*sample.spot));
        }
        sample.spot[sample.n_spots++] = (struct spot){disk, offset};
}

static void spots_of_slab(const struct pool *pool, const struct slab *slab)
{
        for (uint32_t b = 0; b < pool->slab_blocks; b++) {
                bool wanted = slab->kind == SLAB_METADATA ? slab->live[b / 64] >> (b % 64) & 1
                              : slab->kind == SLAB_SYSTEM ? b < pool->slab_blocks - slab->live_free
                              : slab->kind == SLAB_LOG    ? b < pool->log.next
                                                          : false;
                if (wanted) /* the first leg: with every checksum right no other is read */
                        spot_add(slab->leg[0].member, slab->leg[0].offset + (uint64_t)b * BLOCK);
        }
}

static void spots_find(const struct sim_pool *s)
{
        struct pool *pool = s->pool;
        uint64_t shift;
        unsigned n_legs;
        uint64_t slot = pool->generation % SUPER_SLOTS * SUPER_SLOT_BYTES;
        const struct slab_extent *table = &pool->table[0];
        const struct leg *log = log_page_legs(pool, pool->log.start, &n_legs, &shift);
        sample.super_slot = SUPER_RING_OFFSET + slot;
        sample.table = (struct spot){table->leg[0].member,
                                     table->leg[0].offset + (uint64_t)table->copy * BLOCK};
        sample.n_table = pool->n_slabs < SLABS_PER_PAGE ? pool->n_slabs : SLABS_PER_PAGE;
        sample.log = (struct spot){log->member, log->offset + shift};
        sample.n_log =
            (unsigned)min_u64(pool->log.next - pool->log.start, pool->slab_blocks - shift / BLOCK);
        for (unsigned i = 0; i < 2 * s->n_disks; i++) {
                uint64_t area = i % 2 ? SIM_MEMBER_SIZE - LABEL_AREA_BYTES : 0;
                spot_add(i / 2, area);
                for (unsigned k = 0; k < 8; k++) /* there is one, and much of it is reserved */
                        spot_add(i / 2, area + SUPER_RING_OFFSET + slot + k % 2 * BLOCK);
        }
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                spots_of_slab(pool, pool->slab[i]);
}

/* What a checkpoint in progress would change stays; the log holds writes only, a page each. */
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

/* A pool of many shapes, killed: some of it is only in the log. */
static void co_sample(void *arg)
{
        struct sim_pool *s = arg;
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
        if (sample.settled)
                co_settled(s);
        spots_find(s);
        for (unsigned i = 0; i < s->n_disks; i++)
                sample.image[i] = sim_disk_visible(s->disk[i]);
        co_pool_abandon(s->pool);
}

/* ---- changes ---- */

/* A word becomes something that is often telling: a little more or less, a bit, nothing, all ones,
 * anything, or another word of the block. */
static uint64_t word_change(struct sim_random *rnd, uint64_t word, const uint8_t *page)
{
        switch (sim_random_below(rnd, 8)) {
        case 0:
                return word + 1;
        case 1:
                return word - 1;
        case 2:
                return 0;
        case 3:
                return UINT64_MAX;
        case 4:
                return sim_random_next(rnd);
        case 5:
                memcpy(&word, page + 8 * sim_random_below(rnd, BLOCK / 8), 8);
                return word;
        default:
                return word ^ UINT64_C(1) << sim_random_below(rnd, 64);
        }
}

static void spot_change(struct sim_random *rnd, struct sim_image *const image[])
{
        const struct spot *spot = &sample.spot[sim_random_below(rnd, sample.n_spots)];
        uint8_t page[BLOCK];
        sim_image_read(image[spot->disk], spot->offset, page, BLOCK);
        for (uint64_t n = 1 + sim_random_below(rnd, 3); n > 0; n--) {
                /* Where something is: most of most blocks is zeroes. */
                size_t at = 0;
                for (unsigned tries = 0; tries < 64; tries++) {
                        at = 4 * sim_random_below(rnd, BLOCK / 4 - 1);
                        if (page[at] | page[at + 1] | page[at + 2] | page[at + 3])
                                break;
                }
                uint64_t word;
                memcpy(&word, page + at, 8);
                word = word_change(rnd, word, page);
                memcpy(page + at, &word, 8);
        }
        sim_image_write(image[spot->disk], spot->offset, page, BLOCK);
}

/* ---- use ---- */

struct names {
        char name[24][140];
        unsigned n;
};

static int name_note(const struct root_info *info, void *arg)
{
        struct names *names = arg;
        if (names->n < 24)
                snprintf(names->name[names->n++], sizeof(names->name[0]), "%s%s%s", info->volume,
                         info->snapshot ? "@" : "", info->snapshot ? info->snapshot : "");
        return 0;
}

static int nothing_each(uint64_t offset, uint64_t length, void *arg)
{
        return 0;
}

static void ignored(void *arg, const char *sentence)
{
}

static void co_use_volume(struct sim_pool *s, const char *name)
{
        struct volume *v;
        struct volume_extent extent[8];
        size_t n;
        if (co_volume_open(s->pool, name, &v, NULL) < 0)
                return;
        uint64_t size = volume_size(v), length = size < 1 << 20 ? size : 1 << 20;
        uint64_t at = sim_random_below(&s->random, size - length + 1);
        char *data = calloc(1, 1 << 20);
        co_volume_read(v, data, length, 0);
        co_volume_read(v, data, length, at);
        co_volume_status(v, 0, size, extent, 8, &n);
        co_volume_write(v, data, length < 9000 ? length : 9000, at, VOLUME_FUA);
        co_volume_discard(v, at / 2, length, 0);
        co_volume_flush(v);
        free(data);
        co_volume_close(v);
}

static void co_operate(struct sim_pool *s, const char *name)
{
        struct sim_random *rnd = &s->random;
        switch (sim_random_below(rnd, 7)) {
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
                co_volume_resize(s->pool, name, 512 * (1 + sim_random_below(rnd, 1 << 20)), NULL);
                break;
        case 5:
                co_pool_diff(s->pool, name, "web", nothing_each, NULL, NULL);
                break;
        default:
                co_pool_checkpoint(s->pool, NULL);
        }
}

static void co_use(void *arg)
{
        struct sim_pool *s = arg;
        struct names *names = calloc(1, sizeof(*names));
        struct pool_check_callbacks callbacks = {.finding = ignored};
        uint64_t n;
        if (co_sim_pool_open(s, sim_random_chance(&s->random, 3)) == 0) {
                co_pool_check(s->pool, true, &callbacks, &n, NULL);
                co_pool_list(s->pool, name_note, names, NULL);
                for (unsigned i = 0; i < names->n; i++)
                        if (sim_random_chance(&s->random, 3))
                                co_use_volume(s, names->name[i]);
                for (unsigned i = 0; i < 6 && names->n; i++)
                        co_operate(s, names->name[sim_random_below(&s->random, names->n)]);
                co_pool_check(s->pool, true, &callbacks, &n, NULL);
                co_pool_settle(s->pool, NULL);
                co_pool_close(s->pool, NULL);
        }
        free(names);
}

static void image_run(uint64_t seed, struct sim_image *const image[])
{
        struct sim_pool s = {.n_disks = 2};
        sim_random_init(&s.random, seed);
        assert_int_equal(sim_loop_new(seed, false, &s.loop), 0);
        sim_loop_set_step_limit(s.loop, STEPS_MAX);
        for (unsigned i = 0; i < s.n_disks; i++)
                s.disk[i] = sim_pool_disk(image[i], i);
        int r = sim_loop_co_run(s.loop, co_use, &s);
        if (r < 0)
                fail_msg("seed %llu: %s", (unsigned long long)seed, strerror(-r));
        loop_free(s.loop);
        for (unsigned i = 0; i < s.n_disks; i++)
                sim_disk_free(s.disk[i]);
}

static void round_run(uint64_t seed)
{
        struct sim_random random;
        struct sim_image *image[SIM_MEMBERS_MAX];
        sim_random_init(&random, seed);
        for (unsigned i = 0; i < 2; i++)
                image[i] = sim_image_clone(sample.image[i]);
        for (uint64_t n = 1 + sim_random_below(&random, 12); n > 0; n--)
                spot_change(&random, image);
        image_run(seed ^ UINT64_C(1) << 63, image);
        for (unsigned i = 0; i < 2; i++)
                sim_image_free(image[i]);
}

static void sample_make(bool settled)
{
        sample = (struct sample){.settled = settled};
        sim_pool_run(2, 1, co_sample);
        assert_true(sample.n_spots > 200);
}

static void sample_free(void)
{
        for (unsigned i = 0; i < 2; i++)
                sim_image_free(sample.image[i]);
        free(sample.spot);
}

/* ---- what has a particular answer ---- */

static void supers_change(struct sim_image *const image[], void (*change)(struct super_disk *))
{
        static struct super_disk page[2];
        for (unsigned i = 0; i < 4; i++) {
                uint64_t at = (i % 2 ? SIM_MEMBER_SIZE - LABEL_AREA_BYTES : 0) + sample.super_slot;
                sim_image_read(image[i / 2], at, page, sizeof(page));
                change(page);
                sim_image_write(image[i / 2], at, page, sizeof(page));
        }
}

static void no_epoch(struct super_disk *d)
{
        d->epoch = le64_make(0);
}

static void last_epoch(struct super_disk *d)
{
        d->epoch = le64_make(BIRTH_MAX);
}

static void last_page(struct super_disk *d)
{
        d->log_start = le64_make(UINT64_MAX - 1);
}

static void large_log(struct super_disk *d)
{
        d->log_pages = le32_make(UINT32_MAX / 64 * 64);
}

static void one_member_twice(struct super_disk *d)
{
        struct super_member_disk *m = (void *)(d + 1);
        memcpy(m[1].uuid, m[0].uuid, 16);
}

/* Space maps that lie nowhere, all but those that are read at open. */
static void maps_lie_nowhere(struct sim_image *const image[])
{
        struct slab_disk page[SLABS_PER_PAGE];
        sim_image_read(image[sample.table.disk], sample.table.offset, page, sizeof(page));
        for (unsigned i = 0; i < sample.n_table; i++)
                for (unsigned k = 0; k < MAP_COPIES; k++)
                        if (k != page[i].map_copy)
                                page[i].map_address[k] = le64_make(ADDRESS_MAX);
        sim_image_write(image[sample.table.disk], sample.table.offset, page, sizeof(page));
}

/* Writes of the log to the blocks of one before. */
static void blocks_taken_twice(struct sim_image *const image[])
{
        const uint64_t slab_blocks = SIM_SLAB_BYTES / BLOCK;
        uint64_t taken = 0;
        unsigned n_changed = 0;
        for (unsigned p = 0; p < sample.n_log; p++) {
                struct log_page_disk d;
                uint64_t offset = sample.log.offset + (uint64_t)p * BLOCK;
                sim_image_read(image[sample.log.disk], offset, &d, sizeof(d));
                for (uint32_t at = 0; at < le16_get(d.used);) {
                        struct log_write_disk *w = (void *)(d.records + at);
                        at += le16_get(w->head.length);
                        if (w->head.type != LOG_WRITE)
                                continue;
                        if (taken && taken % slab_blocks + le32_get(w->n_blocks) <= slab_blocks) {
                                w->address = le64_make(taken);
                                n_changed++;
                        }
                        taken = le64_get(w->address);
                }
                sim_image_write(image[sample.log.disk], offset, &d, sizeof(d));
        }
        assert_true(n_changed > 1);
}

static void chosen_run(void (*super)(struct super_disk *),
                       void (*other)(struct sim_image *const image[]))
{
        struct sim_image *image[SIM_MEMBERS_MAX];
        for (unsigned i = 0; i < 2; i++)
                image[i] = sim_image_clone(sample.image[i]);
        if (super)
                supers_change(image, super);
        else
                other(image);
        for (uint64_t seed = 1; seed <= 6; seed++)
                image_run(seed, image);
        for (unsigned i = 0; i < 2; i++)
                sim_image_free(image[i]);
}

static void what_cannot_be_is_refused(void **state)
{
        sample_make(true);
        chosen_run(no_epoch, NULL);
        chosen_run(last_epoch, NULL);
        chosen_run(last_page, NULL);
        chosen_run(large_log, NULL);
        chosen_run(one_member_twice, NULL);
        chosen_run(NULL, maps_lie_nowhere);
        chosen_run(NULL, blocks_taken_twice);
        sample_free();
}

static void whatever_metadata_says_is_judged(void **state)
{
        const char *text = getenv("HOSTILE_SEED"), *rounds = getenv("HOSTILE_ROUNDS");
        uint64_t first = text ? strtoull(text, NULL, 0) : 1;
        uint64_t n = rounds ? strtoull(rounds, NULL, 0) : text ? 1 : ROUNDS;
        sample_make(false);
        for (uint64_t seed = first; seed < first + n; seed++)
                round_run(seed);
        sample_free();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(what_cannot_be_is_refused),
            cmocka_unit_test(whatever_metadata_says_is_judged),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
