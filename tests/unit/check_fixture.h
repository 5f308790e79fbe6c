/* check_fixture.h - for tests of the check: what it found, and pools of many shapes.
 *
 * Threads    coroutines of a sim_pool's loop.
 * Errors     0 or -errno; what must be sound and is not fails the test (sim_pool_fails).
 */
#pragma once
#include <errno.h>
#include "pool/engine.h"
#include "tests/unit/sim_pool.h"

/* ---- checking ---- */

struct findings {
        uint64_t n;
        char text[2048]; /* the first ones */
        uint64_t done, total;
};

static inline void finding(void *arg, const char *sentence)
{
        struct findings *f = arg;
        size_t at = strlen(f->text);
        f->n++;
        snprintf(f->text + at, sizeof(f->text) - at, "%s\n", sentence);
}

static inline void progress(void *arg, uint64_t done, uint64_t total)
{
        struct findings *f = arg;
        f->done = done;
        f->total = total;
}

static inline int co_check(struct sim_pool *s, bool read_data, struct findings *f)
{
        struct pool_check_callbacks callbacks = {finding, progress, f};
        uint64_t n = 0;
        struct error err = ERROR_INIT;
        *f = (struct findings){0};
        int r = co_pool_check(s->pool, read_data, &callbacks, &n, &err);
        if (r == 0 && n != f->n)
                sim_pool_fails(s, __FILE__, __LINE__, "the number of findings is wrong");
        return r;
}

/* Nothing may be found. */
static inline void co_expect_sound(struct sim_pool *s, int line)
{
        struct findings f;
        int r = co_check(s, true, &f);
        if (r < 0)
                sim_pool_fails(s, __FILE__, line, "the check gave up");
        else if (f.n)
                sim_pool_fails(s, __FILE__, line, f.text);
        else if (f.done != f.total || !f.total)
                sim_pool_fails(s, __FILE__, line, "the check was not told to be done");
}

#define co_expect_sound_here(s)                                                                    \
        do {                                                                                       \
                co_expect_sound(s, __LINE__);                                                      \
                if ((s)->failure[0])                                                               \
                        return;                                                                    \
        } while (0)

/* ---- shapes ---- */

#define MANY_SNAPSHOTS 40u /* more buckets than a root's block holds */

static inline int co_snapshots_in_a_row(struct sim_pool *s)
{
        int r = co_volume_create(s->pool, "row", 4 << 20, NULL);
        for (unsigned i = 0; i < MANY_SNAPSHOTS && r == 0; i++) {
                char name[32];
                snprintf(name, sizeof(name), "row@s%u", i);
                r = co_sim_pool_write(s, "row", 3 * i, 2);
                if (r == 0)
                        r = co_sim_pool_snapshot(s, name);
        }
        for (unsigned i = 0; i < MANY_SNAPSHOTS && r == 0; i++)
                r = co_sim_pool_write(s, "row", 3 * i, 1);
        return r;
}

/* Volumes, snapshots, clones, clones of clones, a restore, discards, shrinks. */
static inline int co_family(struct sim_pool *s)
{
        int r = co_volume_create(s->pool, "web", 3 << 20, NULL);
        r = r ? r : co_sim_pool_write(s, "web", 0, 300);
        r = r ? r : co_sim_pool_snapshot(s, "web@one");
        r = r ? r : co_sim_pool_write(s, "web", 100, 50);
        r = r ? r : co_volume_resize(s->pool, "web", UINT64_C(2) << 30, NULL);
        r = r ? r : co_sim_pool_write(s, "web", 300000, 20);
        r = r ? r : co_sim_pool_snapshot(s, "web@two");
        r = r ? r : co_snapshot_clone(s->pool, "web@one", "copy", NULL);
        r = r ? r : co_sim_pool_write(s, "copy", 90, 20);
        r = r ? r : co_sim_pool_snapshot(s, "copy@three");
        r = r ? r : co_snapshot_clone(s->pool, "copy@three", "copy2", NULL);
        r = r ? r : co_sim_pool_discard(s, "copy2", 0, 260);
        r = r ? r : co_sim_pool_write(s, "copy2", 10, 3);
        r = r ? r : co_sim_pool_discard(s, "web", 95, 180);
        r = r ? r : co_snapshot_restore(s->pool, "web@one", "before", NULL);
        r = r ? r : co_sim_pool_write(s, "web", 0, 7);
        r = r ? r : co_volume_resize(s->pool, "copy2", (1 << 20) + 512, NULL);
        return r;
}
