/* test_hostile.c - a pool whose metadata has right checksums and wrong content: whatever it says,
 * nothing crashes, hangs or runs wild.
 *
 * Here every checksum is right, for crc32c() is this file's: what is changed at random anywhere in
 * labels, superblocks, slab table, space maps, log, catalog, maps and deadlists reaches the code
 * that has to judge it. The pool is then opened and used. Errors are fine, and so is a pool that
 * stops writing. */
#include "common/crc32c.h"
#include "tests/unit/hostile_sample.h"

#define ROUNDS    120u
#define STEPS_MAX UINT64_C(3000000)

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
        return 0;
}

static struct sample sample;

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

static void co_use(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_random *rnd = &s->random;
        struct hostile_names *names = calloc(1, sizeof(*names));
        if (co_sim_pool_open(s, sim_random_chance(rnd, 3)) == 0) {
                co_hostile_check(s, true);
                co_hostile_list(s, names);
                for (unsigned i = 0; i < names->n; i++)
                        if (sim_random_chance(rnd, 3))
                                co_hostile_use_volume(s, names->name[i], sim_random_next(rnd));
                for (unsigned i = 0; i < 6 && names->n; i++)
                        co_hostile_operate(s, (unsigned)sim_random_below(rnd, HOSTILE_OPERATIONS),
                                           names->name[sim_random_below(rnd, names->n)],
                                           512 * (1 + sim_random_below(rnd, 1 << 20)));
                co_hostile_check(s, true);
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
        sample_make(&sample, SAMPLE_SETTLED);
        chosen_run(no_epoch, NULL);
        chosen_run(last_epoch, NULL);
        chosen_run(last_page, NULL);
        chosen_run(large_log, NULL);
        chosen_run(one_member_twice, NULL);
        chosen_run(NULL, maps_lie_nowhere);
        chosen_run(NULL, blocks_taken_twice);
        sample_free(&sample);
}

static void whatever_metadata_says_is_judged(void **state)
{
        const char *text = getenv("HOSTILE_SEED"), *rounds = getenv("HOSTILE_ROUNDS");
        uint64_t first = text ? strtoull(text, NULL, 0) : 1;
        uint64_t n = rounds ? strtoull(rounds, NULL, 0) : text ? 1 : ROUNDS;
        sample_make(&sample, SAMPLE_KILLED);
        for (uint64_t seed = first; seed < first + n; seed++)
                round_run(seed);
        sample_free(&sample);
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
