/* test_diff.c - the ranges in which two volumes or snapshots differ, against a comparison byte by
 * byte. */
#include <errno.h>
#include "common/log.h"
#include "tests/unit/content_fixture.h"

static int co_content_of(struct sim_pool *s, const char *name, struct content *c)
{
        struct volume *v;
        int r = co_volume_open(s->pool, name, &v, NULL);

        if (r < 0)
                return r;
        r = co_content(v, c);
        co_volume_close(v);
        return r;
}

/* Every block that differs is reported, and none that is equal, but where one is the other's
 * ancestor: there a block may have been written with what it was. Nothing lies behind both ends. */
static void co_compare(struct sim_pool *s, const char *a, const char *b, bool exact)
{
        struct content ca = {0}, cb = {0};
        struct diff_map *map = calloc(1, sizeof(*map));
        struct error err = ERROR_INIT;
        char text[200] = "";
        int r = co_content_of(s, a, &ca);
        r = r ? r : co_content_of(s, b, &cb);
        r = r ? r : co_pool_diff(s->pool, a, b, each_range, map, &err);
        uint64_t end = ca.size > cb.size ? ca.size : cb.size;
        for (uint64_t i = 0; i < BLOCKS_MAX && r == 0; i++) {
                bool differs =
                    memcmp(ca.data + i * POOL_BLOCK, cb.data + i * POOL_BLOCK, POOL_BLOCK) != 0;
                if (differs && !map->changed[i])
                        snprintf(text, sizeof(text), "%s to %s: block %u differs and is not told",
                                 a, b, (unsigned)i);
                if (exact && !differs && map->changed[i])
                        snprintf(text, sizeof(text), "%s to %s: block %u is told and is equal", a,
                                 b, (unsigned)i);
        }
        if (r < 0)
                snprintf(text, sizeof(text), "%s to %s: %.150s", a, b, err.message);
        else if (map->malformed || map->last_end > end)
                snprintf(text, sizeof(text), "%s to %s: ranges are malformed", a, b);
        if (text[0])
                sim_pool_fails(s, __FILE__, __LINE__, text);
        free(ca.data);
        free(cb.data);
        free(map);
}

/* ---- histories ---- */

#define NAMES_MAX 24u

struct history {
        struct sim_pool *s;
        char name[NAMES_MAX][32];
        unsigned n_names, n_volumes; /* volumes come first: "v0" ... */
        unsigned n_made;
};

static const char *random_name(struct history *h)
{
        return h->name[sim_random_below(&h->s->random, h->n_names)];
}

static int co_history_step(struct history *h)
{
        struct sim_random *rnd = &h->s->random;
        struct pool *pool = h->s->pool;
        const char *volume = h->name[sim_random_below(rnd, h->n_volumes)];
        char name[48];
        switch (sim_random_below(rnd, 12)) {
        case 0: /* a snapshot; its name is kept */
        case 1:
                if (h->n_names == NAMES_MAX)
                        return 0;
                snprintf(name, sizeof(name), "%.20s@s%u", volume, h->n_made++);
                memcpy(h->name[h->n_names++], name, 32);
                return co_sim_pool_snapshot(h->s, name);
        case 2: { /* a volume goes back to one of its snapshots */
                const char *from = random_name(h);
                if (!strchr(from, '@') || h->n_names == NAMES_MAX)
                        return 0;
                char keep[16];
                snprintf(keep, sizeof(keep), "b%u", h->n_made++);
                snprintf(name, sizeof(name), "%.2s@%s", from, keep); /* volumes are v0 and v1 */
                int r = co_snapshot_restore(pool, from, keep, NULL);
                if (r == 0)
                        memcpy(h->name[h->n_names++], name, 32);
                return r;
        }
        case 3:
                return co_volume_resize(pool, volume,
                                        512 * (1 + sim_random_below(rnd, BLOCKS_MAX * 8)), NULL);
        case 4:
                return co_pool_checkpoint(pool, NULL);
        default:
                return co_write_some(h->s, volume);
        }
}

static void co_history(void *arg)
{
        struct sim_pool *s = arg;
        struct history h = {.s = s, .n_names = 2, .n_volumes = 2, .name = {"v0", "v1"}};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v0", 200 * POOL_BLOCK + 512, NULL) == 0);
        for (unsigned i = 0; i < 6; i++)
                expect(s, co_write_some(s, "v0") == 0);
        expect(s, co_sim_pool_snapshot(s, "v0@origin") == 0);
        expect(s, co_snapshot_clone(s->pool, "v0@origin", "v1", NULL) == 0);
        for (unsigned i = 0; i < 60 && !s->failure[0]; i++) {
                expect(s, co_history_step(&h) == 0);
                if (i % 4 == 0)
                        co_compare(s, random_name(&h), random_name(&h), false);
        }
        for (unsigned i = 0; i < h.n_names && !s->failure[0]; i++)
                co_compare(s, h.name[i], h.name[(i + 1) % h.n_names], false);
        expect(s, co_sim_pool_close(s) == 0);
        /* and from a pool in which nothing is written */
        expect(s, co_sim_pool_open(s, true) == 0);
        for (unsigned i = 0; i < 5 && !s->failure[0]; i++)
                co_compare(s, random_name(&h), random_name(&h), false);
        expect(s, co_sim_pool_close(s) == 0);
}

static void tells_what_differs_over_random_histories(void **state)
{
        for (uint64_t seed = 1; seed <= 12; seed++)
                sim_pool_run(1 + seed % 2, seed, co_history);
}

/* ---- exactness ---- */

/* Two clones that were written apart: blocks of equal content are equal, wherever they lie. */
static void co_siblings(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 600 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 100, 300) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_snapshot_clone(s->pool, "v@s", "v0", NULL) == 0);
        expect(s, co_snapshot_clone(s->pool, "v@s", "v1", NULL) == 0);
        for (unsigned i = 0; i < 30 && !s->failure[0]; i++) {
                expect(s, co_write_some(s, i % 2 ? "v0" : "v1") == 0);
                co_compare(s, "v0", "v1", true);
        }
        expect(s, co_volume_resize(s->pool, "v0", 700 * POOL_BLOCK - 512, NULL) == 0);
        co_compare(s, "v0", "v1", true);
        expect(s, co_volume_resize(s->pool, "v1", 300 * POOL_BLOCK + 512, NULL) == 0);
        co_compare(s, "v0", "v1", true);
        co_compare(s, "v1", "v0", true);
        expect(s, co_sim_pool_close(s) == 0);
}

static void equal_content_is_no_difference_between_siblings(void **state)
{
        for (uint64_t seed = 1; seed <= 6; seed++)
                sim_pool_run(2, seed, co_siblings);
}

/* What a volume wrote since its snapshot, to the block. */
static void co_since(void *arg)
{
        struct sim_pool *s = arg;
        struct diff_map map = {0};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1000 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 600) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_pool_diff(s->pool, "v@s", "v", each_range, &map, NULL) == 0);
        expect(s, map.n_bytes == 0);
        expect(s, co_sim_pool_write(s, "v", 255, 2) == 0);
        expect(s, co_sim_pool_write(s, "v", 700, 1) == 0);
        expect(s, co_sim_pool_discard(s, "v", 300, 1) == 0);
        expect(s, co_sim_pool_discard(s, "v", 900, 50) == 0); /* was a hole before */
        expect(s, co_pool_diff(s->pool, "v@s", "v", each_range, &map, NULL) == 0);
        expect(s, map.n_bytes == 4 * POOL_BLOCK && map.changed[255] && map.changed[256] &&
                      map.changed[300] && map.changed[700] && !map.malformed);
        /* behind a smaller end there are zeroes */
        expect(s, co_volume_resize(s->pool, "v", 590 * POOL_BLOCK + 512, NULL) == 0);
        co_compare(s, "v@s", "v", false);
        expect(s, co_sim_pool_close(s) == 0);
}

static void tells_what_changed_since_a_snapshot(void **state)
{
        sim_pool_run(2, 1, co_since);
}

/* What a shrink gave up and has not discarded yet is no content. */
static void co_shrunk(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 100000 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1000) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_snapshot_clone(s->pool, "v@s", "w", NULL) == 0);
        expect(s, co_sim_pool_write(s, "w", 500, 500) == 0);
        expect(s, co_volume_resize(s->pool, "w", 400 * POOL_BLOCK, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        /* Discarded from the far end on: the record of the last slice is not durable yet. */
        expect(s, co_volume_resize(s->pool, "v", 300 * POOL_BLOCK, NULL) == 0);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, true) == 0); /* where nothing is discarded */
        co_compare(s, "v", "w", true);
        co_compare(s, "w", "v", true);
        expect(s, co_sim_pool_close(s) == 0);
}

/* Two clones of one end, with the same content before it: one of them has grown and was shrunk
 * again, which made zeroes of what lies behind. */
static void co_same_end(void *arg)
{
        struct sim_pool *s = arg;
        const uint64_t end = POOL_BLOCK + 512;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 2 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 2) == 0);
        expect(s, co_volume_resize(s->pool, "v", end, NULL) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_snapshot_clone(s->pool, "v@s", "c", NULL) == 0);
        expect(s, co_volume_resize(s->pool, "c", 2 * POOL_BLOCK, NULL) == 0);
        expect(s, co_volume_resize(s->pool, "c", end, NULL) == 0);
        co_compare(s, "v", "c", true);
        co_compare(s, "c", "v", true);
        expect(s, co_sim_pool_close(s) == 0);
}

static void what_lies_behind_the_end_is_no_content(void **state)
{
        sim_pool_run(1, 1, co_same_end);
        for (uint64_t seed = 1; seed <= 4; seed++)
                sim_pool_run(2, seed, co_shrunk);
}

/* ---- while the other end is deleted ---- */

struct comparing {
        struct sim_pool *s;
        struct co *waiter;
        int result;
        bool done;
};

static void comparing_main(void *arg)
{
        struct comparing *c = arg;
        struct diff_map map = {0};
        c->result = co_pool_diff(c->s->pool, "v@a", "v", each_range, &map, NULL);
        c->done = true;
        co_wake(c->waiter);
}

/* The root is read for the diff, slowly, and for its deletion, fast. */
static void co_deleted(void *arg)
{
        struct sim_pool *s = arg;
        struct comparing c = {.s = s, .waiter = co_self()};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 100 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 9) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0); /* the catalog is in memory now */
        sim_disk_set_latency(s->disk[0], UINT64_C(1000000000), UINT64_C(1000000000));
        expect(s, co_spawn(s->loop, comparing_main, &c) == 0);
        co_yield_loop();
        sim_disk_set_latency(s->disk[0], 20000, 200000);
        expect(s, co_snapshot_delete(s->pool, "v@a", NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        while (!c.done)
                co_suspend();
        expect(s, c.result == 0 || c.result == -ENOENT);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_root_may_be_deleted_while_it_is_read_for_a_diff(void **state)
{
        sim_pool_run(1, 1, co_deleted);
}

/* ---- arguments, ends ---- */

static int stop(uint64_t offset, uint64_t length, void *arg)
{
        return 7;
}

static void co_answers(void *arg)
{
        struct sim_pool *s = arg;
        struct diff_map map = {0};
        struct error err = ERROR_INIT;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 100 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_write(s, "v", 10, 2) == 0);
        expect(s, co_pool_diff(s->pool, "v@s", "v", stop, NULL, &err) == 7);
        expect(s, co_pool_diff(s->pool, "v@s", "v@none", each_range, &map, &err) == -ENOENT);
        expect(s, strstr(err.message, "v@none"));
        expect(s, co_pool_diff(s->pool, "v", "v", each_range, &map, &err) == 0);
        expect(s, map.n_bytes == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void answers_what_it_is_asked(void **state)
{
        sim_pool_run(1, 1, co_answers);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(tells_what_differs_over_random_histories),
            cmocka_unit_test(equal_content_is_no_difference_between_siblings),
            cmocka_unit_test(tells_what_changed_since_a_snapshot),
            cmocka_unit_test(what_lies_behind_the_end_is_no_content),
            cmocka_unit_test(a_root_may_be_deleted_while_it_is_read_for_a_diff),
            cmocka_unit_test(answers_what_it_is_asked),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
