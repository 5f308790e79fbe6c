/* test_changed.c - what changed since a snapshot, and whose data stand where, asked piece by piece:
 * against a comparison byte by byte, against co_pool_diff(), and against a model of depths. */
#include <errno.h>
#include "common/log.h"
#include "tests/unit/content_fixture.h"

/* ---- asking ---- */

typedef int co_ask(struct volume *v, struct volume *since, uint64_t offset, uint64_t length,
                   struct volume_extent *extents, size_t n_max, size_t *ret_n);

static int co_ask_changed(struct volume *v, struct volume *since, uint64_t offset, uint64_t length,
                          struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_volume_changed(v, since, offset, length, extents, n_max, ret_n);
}

static int co_ask_depth(struct volume *v, struct volume *since, uint64_t offset, uint64_t length,
                        struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_volume_depth(v, offset, length, extents, n_max, ret_n);
}

/* The flags of each block, by calls that begin where the one before ended and ask for any length and
 * number. -EBADMSG: extents that are not what is promised. */
static int co_flags(struct sim_pool *s, co_ask *co_one, struct volume *v, struct volume *since,
                    uint64_t from, uint64_t to, unsigned flags[BLOCKS_MAX])
{
        struct volume_extent extents[40];
        int r = 0;

        for (uint64_t at = from; at < to && r == 0;) {
                uint64_t length = 1 + sim_random_below(&s->random, to - at), sum = 0;
                size_t n = 0, n_max = 1 + sim_random_below(&s->random, 40);
                r = co_one(v, since, at, length, extents, n_max, &n);
                if (r == 0 && (n == 0 || n > n_max))
                        return -EBADMSG;
                for (size_t i = 0; i < n && r == 0; i++) {
                        uint64_t end = at + sum + extents[i].length;
                        if (extents[i].length == 0 ||
                            (i > 0 && extents[i].flags == extents[i - 1].flags))
                                return -EBADMSG;
                        for (uint64_t b = (at + sum) / POOL_BLOCK; b * POOL_BLOCK < end; b++)
                                flags[b] |= extents[i].flags;
                        sum += extents[i].length;
                }
                if (r == 0 && sum > length)
                        return -EBADMSG;
                at += sum;
        }
        return r;
}

/* ---- comparing ---- */

struct comparing {
        struct volume *v, *since;
        struct content a, b;
        struct diff_map diff;
        unsigned flags[BLOCKS_MAX];
};

/* What differs must be told; what is told and equal may only be what was written anew. That is just
 * what co_pool_diff() tells where one is the other's ancestor, but for the block in which one ends. */
static void compare(struct sim_pool *s, struct comparing *c, const char *name, const char *since,
                    bool related)
{
        uint64_t size = c->b.size;
        char text[200] = "";

        for (uint64_t i = 0; i * POOL_BLOCK < size; i++) {
                bool told = c->flags[i] == EXTENT_CHANGED;
                uint64_t n =
                    size - i * POOL_BLOCK < POOL_BLOCK ? size - i * POOL_BLOCK : POOL_BLOCK;
                bool differs = memcmp(c->a.data + i * POOL_BLOCK, c->b.data + i * POOL_BLOCK, n);
                bool tail = i == c->a.size / POOL_BLOCK || i == size / POOL_BLOCK;
                if (differs && !told)
                        snprintf(text, sizeof(text), "%s since %s: block %u differs, untold", name,
                                 since, (unsigned)i);
                if (related && !tail && told != c->diff.changed[i])
                        snprintf(text, sizeof(text), "%s since %s: block %u told otherwise by diff",
                                 name, since, (unsigned)i);
        }
        if (text[0])
                sim_pool_fails(s, __FILE__, __LINE__, text);
}

static void co_compare(struct sim_pool *s, const char *name, const char *since, bool related)
{
        struct comparing *c = calloc(1, sizeof(*c));
        int r = co_volume_open(s->pool, name, &c->v, NULL);

        r = r ? r : co_volume_open(s->pool, since, &c->since, NULL);
        r = r ? r : co_content(c->since, &c->a);
        r = r ? r : co_content(c->v, &c->b);
        r = r ? r : co_pool_diff(s->pool, since, name, each_range, &c->diff, NULL);
        r = r ? r : co_flags(s, co_ask_changed, c->v, c->since, 0, c->b.size, c->flags);
        if (r < 0)
                sim_pool_fails(s, name, r, since);
        else
                compare(s, c, name, since, related);
        co_volume_close(c->v);
        co_volume_close(c->since);
        free(c->a.data);
        free(c->b.data);
        free(c);
}

/* ---- histories ---- */

/* One line of snapshots, with resizes and restores: a restore makes the one before a branch. */
static void co_history(void *arg)
{
        struct sim_pool *s = arg;
        char name[12][16];
        unsigned n = 0, trunk = 0; /* [trunk, n) are ancestors of the volume */

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 700 * POOL_BLOCK + 512, NULL) == 0);
        for (unsigned i = 0; i < 80 && !s->failure[0]; i++) {
                unsigned what = (unsigned)sim_random_below(&s->random, 10);
                if (what == 0 && n < 11) {
                        snprintf(name[n], sizeof(name[n]), "v@s%u", n);
                        expect(s, co_sim_pool_snapshot(s, name[n++]) == 0);
                } else if (what == 1) {
                        uint64_t blocks = 1 + sim_random_below(&s->random, BLOCKS_MAX - 1);
                        uint64_t size = blocks * POOL_BLOCK - 512 * sim_random_below(&s->random, 8);
                        expect(s, co_volume_resize(s->pool, "v", size, NULL) == 0);
                } else if (what == 2 && i % 3 == 0 && n > 0 && n < 11) {
                        unsigned to = (unsigned)sim_random_below(&s->random, n);
                        char keep[8];
                        snprintf(keep, sizeof(keep), "s%u", n);
                        snprintf(name[n], sizeof(name[n]), "v@%s", keep);
                        n++;
                        expect(s, co_snapshot_restore(s->pool, name[to], keep, NULL) == 0);
                        trunk = n;
                } else if (what == 3) {
                        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
                } else {
                        expect(s, co_write_some(s, "v") == 0);
                }
                if (n > 0 && i % 4 == 0) {
                        unsigned a = (unsigned)sim_random_below(&s->random, n),
                                 b = (unsigned)sim_random_below(&s->random, n);
                        co_compare(s, "v", name[a], a >= trunk);
                        co_compare(s, name[b], name[a], false);
                }
        }
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0); /* nothing in the cache */
        for (unsigned i = 0; i < n && !s->failure[0]; i++)
                co_compare(s, "v", name[i], i >= trunk);
        expect(s, co_sim_pool_close(s) == 0);
}

static void tells_what_changed_over_random_histories(void **state)
{
        for (uint64_t seed = 1; seed <= 12; seed++)
                sim_pool_run(1 + seed % 2, seed, co_history);
}

/* ---- while it is written to ---- */

struct writing {
        struct sim_pool *s;
        struct co *waiter;
        bool stop, done;
        int result;
};

/* Blocks 512 and up are written and discarded; those before stay as they are. */
static void writing_main(void *arg)
{
        struct writing *w = arg;
        struct volume *v;
        char *data = aligned_alloc(4096, 8 * POOL_BLOCK);

        memset(data, 9, 8 * POOL_BLOCK);
        w->result = co_volume_open(w->s->pool, "v", &v, NULL);
        for (unsigned i = 0; !w->stop && w->result == 0; i++) {
                uint64_t at = (512 + i * 37 % 700) * (uint64_t)POOL_BLOCK;
                w->result = i % 3 ? co_volume_write(v, data, 8 * POOL_BLOCK, at, 0)
                                  : co_volume_discard(v, at, 8 * POOL_BLOCK, 0);
                if (w->result == 0 && i % 50 == 0)
                        w->result = co_pool_checkpoint(w->s->pool, NULL);
        }
        co_volume_close(v);
        free(data);
        w->done = true;
        co_wake(w->waiter);
}

static void co_meanwhile(void *arg)
{
        struct sim_pool *s = arg;
        struct writing w = {.s = s, .waiter = co_self()};
        struct volume *v, *since;

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", BLOCKS_MAX * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 600) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_write(s, "v", 100, 50) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v@s", &since, NULL) == 0);
        expect(s, co_spawn(s->loop, writing_main, &w) == 0);
        for (unsigned i = 0; i < 60 && !s->failure[0]; i++) {
                unsigned flags[BLOCKS_MAX] = {0};
                int r = co_flags(s, co_ask_changed, v, since, 0, volume_size(v), flags);
                for (unsigned b = 0; b < 512 && r == 0; b++)
                        if ((flags[b] != 0) != (b >= 100 && b < 150))
                                r = -EILSEQ;
                expect(s, r == 0);
                co_sleep_ns(300000);
        }
        w.stop = true;
        while (!w.done)
                co_suspend();
        expect(s, w.result == 0);
        co_volume_close(v);
        co_volume_close(since);
        expect(s, co_sim_pool_close(s) == 0);
}

static void tells_what_changed_while_the_volume_is_written_to(void **state)
{
        for (uint64_t seed = 1; seed <= 4; seed++)
                sim_pool_run(2, seed, co_meanwhile);
}

/* ---- exactness, ends, answers ---- */

static void co_exact(void *arg)
{
        struct sim_pool *s = arg;
        struct volume_extent extent[8];
        struct volume *v, *since;
        size_t n;

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1000 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 600) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_write(s, "v", 255, 2) == 0);
        expect(s, co_sim_pool_discard(s, "v", 300, 1) == 0);
        expect(s, co_sim_pool_discard(s, "v", 900, 50) == 0); /* was a hole before */
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v@s", &since, NULL) == 0);
        expect(s, co_volume_changed(v, since, 100, 1000 * POOL_BLOCK - 100, extent, 8, &n) == 0);
        expect(s, n == 5 && extent[0].flags == 0 && extent[0].length == 255 * POOL_BLOCK - 100);
        expect(s, extent[1].flags == EXTENT_CHANGED && extent[1].length == 2 * POOL_BLOCK);
        expect(s, extent[3].flags == EXTENT_CHANGED && extent[3].length == POOL_BLOCK);
        expect(s, extent[4].flags == 0 && extent[4].length == 699 * POOL_BLOCK);
        expect(s, co_volume_changed(v, since, 256 * POOL_BLOCK + 7, 9, extent, 1, &n) == 0);
        expect(s, n == 1 && extent[0].length == 9 && extent[0].flags == EXTENT_CHANGED);
        expect(s, co_volume_changed(v, v, 0, 1000 * POOL_BLOCK, extent, 8, &n) == 0);
        expect(s, n == 1 && extent[0].flags == 0);
        expect(s, co_volume_changed(v, since, 1000 * POOL_BLOCK, 1, extent, 8, &n) == -EINVAL);
        expect(s, co_volume_changed(v, since, 0, 0, extent, 8, &n) == -EINVAL);
        expect(s, co_volume_changed(v, since, 4096, UINT64_MAX, extent, 8, &n) == -EINVAL);
        /* A snapshot that is held stays, named or not. */
        expect(s, co_snapshot_delete(s->pool, "v@s", NULL) == 0);
        expect(s, co_volume_changed(v, since, 255 * POOL_BLOCK, POOL_BLOCK, extent, 8, &n) == 0);
        expect(s, n == 1 && extent[0].flags == EXTENT_CHANGED);
        co_volume_close(since);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void tells_to_the_block_and_from_anywhere(void **state)
{
        sim_pool_run(2, 1, co_exact);
}

/* What a shrink gave up and has not discarded yet is no content. It is found after a crash only, and
 * where nothing is discarded then. */
static void co_shrunk(void *arg)
{
        struct sim_pool *s = arg;
        struct volume_extent extent[8];
        struct volume *v, *since;
        size_t n;

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 100000 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1000) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s,
               co_sim_pool_open(s, false) == 0); /* so that discarding has to read the map first */
        expect(s, co_volume_resize(s->pool, "v", 300 * POOL_BLOCK, NULL) == 0);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, true) == 0);
        expect(s, co_volume_open(s->pool, "v@s", &v, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &since, NULL) == 0);
        for (unsigned i = 0; i < 2; i++) { /* from the start, and from behind the end */
                uint64_t at = i * 700 * POOL_BLOCK;
                expect(s, co_volume_changed(v, since, at, 100000 * POOL_BLOCK - at, extent, 8,
                                            &n) == 0);
                expect(s, n == 3 - i && extent[0].length == 300 * POOL_BLOCK);
                expect(s, extent[1 - i].flags == EXTENT_CHANGED && extent[2 - i].flags == 0);
        }
        co_volume_close(since);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void what_lies_behind_the_end_is_no_content(void **state)
{
        for (uint64_t seed = 1; seed <= 4; seed++)
                sim_pool_run(2, seed, co_shrunk);
}

/* Volumes so large that their maps are of different heights. */
static void co_large(void *arg)
{
        struct sim_pool *s = arg;
        struct volume_extent extent[8];
        struct volume *v, *since;
        const uint64_t size = UINT64_C(1) << 50, far = (UINT64_C(1) << 49) + 3 * POOL_BLOCK;
        uint64_t at = 0;
        size_t n;

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 3 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 3) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_volume_resize(s->pool, "v", size, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", far / POOL_BLOCK, 1) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v@s", &since, NULL) == 0);
        for (unsigned i = 0; at < size && i < 10; i++, at += extent[0].length) {
                expect(s, co_volume_changed(v, since, at, size - at, extent, 1, &n) == 0);
                expect(s, (extent[0].flags != 0) == (at == far));
                expect(s, at != far || extent[0].length == POOL_BLOCK);
        }
        expect(s, at == size);
        expect(s, co_volume_changed(since, v, 0, 3 * POOL_BLOCK, extent, 8, &n) == 0);
        expect(s, n == 1 && extent[0].flags == 0);
        co_volume_close(since);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void maps_of_different_heights_are_compared(void **state)
{
        sim_pool_run(1, 1, co_large);
}

/* ---- depths ---- */

struct layers {
        bool exists[32];        /* snapshot i */
        unsigned n;             /* snapshots taken */
        int writer[BLOCKS_MAX]; /* snapshots that there were when it was written; -1: never */
};

static unsigned depth_of(const struct layers *l, unsigned block)
{
        unsigned depth = 1;

        if (l->writer[block] < 0)
                return 0;
        for (unsigned i = (unsigned)l->writer[block]; i < l->n; i++)
                depth += l->exists[i];
        return depth;
}

static void co_check_depths(struct sim_pool *s, const struct layers *l)
{
        unsigned flags[BLOCKS_MAX] = {0};
        struct volume *v;

        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        int r = co_flags(s, co_ask_depth, v, NULL, 0, volume_size(v), flags);
        co_volume_close(v);
        for (unsigned b = 0; b < BLOCKS_MAX && r == 0; b++)
                if (flags[b] != depth_of(l, b))
                        r = -EILSEQ;
        expect(s, r == 0);
}

static void co_depths(void *arg)
{
        struct sim_pool *s = arg;
        struct layers l = {0};

        memset(l.writer, 0xff, sizeof(l.writer));
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", BLOCKS_MAX * POOL_BLOCK, NULL) == 0);
        for (unsigned i = 0; i < 150 && !s->failure[0]; i++) {
                unsigned what = (unsigned)sim_random_below(&s->random, 8);
                char name[16];
                if (what == 0 && l.n < 20) {
                        snprintf(name, sizeof(name), "v@s%u", l.n);
                        expect(s, co_sim_pool_snapshot(s, name) == 0);
                        l.exists[l.n++] = true;
                } else if (what == 1 && l.n > 0) {
                        unsigned one = (unsigned)sim_random_below(&s->random, l.n);
                        snprintf(name, sizeof(name), "v@s%u", one);
                        expect(s, co_snapshot_delete(s->pool, name, NULL) ==
                                      (l.exists[one] ? 0 : -ENOENT));
                        l.exists[one] = false;
                } else {
                        uint64_t at = sim_random_below(&s->random, BLOCKS_MAX - 40),
                                 n = 1 + sim_random_below(&s->random, 40);
                        expect(s, co_sim_pool_write(s, "v", at, n) == 0);
                        for (uint64_t b = at; b < at + n; b++)
                                l.writer[b] = (int)l.n;
                }
                if (i % 5 == 0)
                        co_check_depths(s, &l);
        }
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        co_check_depths(s, &l);
        expect(s, co_sim_pool_close(s) == 0);
}

static void depth_is_that_of_the_root_whose_data_they_are(void **state)
{
        for (uint64_t seed = 1; seed <= 8; seed++)
                sim_pool_run(3, seed, co_depths);
}

static unsigned co_depth_at(struct sim_pool *s, const char *name, uint64_t block)
{
        struct volume_extent extent;
        struct volume *v;
        size_t n;
        int r = co_volume_open(s->pool, name, &v, NULL);

        if (r == 0)
                r = co_volume_depth(v, block * POOL_BLOCK, POOL_BLOCK, &extent, 1, &n);
        co_volume_close(v);
        return r < 0 ? 99 : extent.flags;
}

static void co_hidden(void *arg)
{
        struct sim_pool *s = arg;

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 100 * POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 10, 10) == 0);
        expect(s, co_sim_pool_discard(s, "v", 15, 1) == 0);
        expect(s, co_depth_at(s, "v", 15) == 0); /* hides nothing */
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_depth_at(s, "v", 15) == 0);
        expect(s, co_sim_pool_discard(s, "v", 12, 1) == 0);
        expect(s, co_depth_at(s, "v", 12) == 1); /* hides what the snapshot has */
        expect(s, co_depth_at(s, "v@s", 12) == 1);
        expect(s, co_snapshot_clone(s->pool, "v@s", "w", NULL) == 0);
        expect(s, co_depth_at(s, "w", 12) == 2);
        expect(s, co_depth_at(s, "w", 15) == 0);
        expect(s, co_volume_resize(s->pool, "v", 100000 * POOL_BLOCK, NULL) == 0);
        expect(s, co_depth_at(s, "v", 99999) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_hole_has_a_depth_only_where_it_hides_an_ancestors_data(void **state)
{
        sim_pool_run(1, 1, co_hidden);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(tells_what_changed_over_random_histories),
            cmocka_unit_test(tells_what_changed_while_the_volume_is_written_to),
            cmocka_unit_test(tells_to_the_block_and_from_anywhere),
            cmocka_unit_test(what_lies_behind_the_end_is_no_content),
            cmocka_unit_test(maps_of_different_heights_are_compared),
            cmocka_unit_test(depth_is_that_of_the_root_whose_data_they_are),
            cmocka_unit_test(a_hole_has_a_depth_only_where_it_hides_an_ancestors_data),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
