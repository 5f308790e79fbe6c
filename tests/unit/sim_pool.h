/* sim_pool.h - for tests of the engine: a small pool over simulated disks, used from one coroutine.
 *
 * A test is a co_entry on a struct sim_pool. cmocka's asserts jump, and must not jump out of a
 * coroutine: expect() notes the first failure and returns, and the test fails when the coroutine
 * has ended.
 *
 * Units      blocks of 4096 bytes where an argument is called block or n.
 * Threads    one.
 * Errors     0 or -errno; those of opening, closing and creating also fail the test.
 * Ownership  sim_pool_run() makes and releases loop and disks; a test closes its pool.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "pool/meter.h"
#include "pool/pool.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_random.h"

#define SIM_MEMBERS_MAX 3u
#define SIM_MEMBER_SIZE (UINT64_C(16) << 20)
#define SIM_SLAB_BYTES  (UINT32_C(256) << 10)

struct sim_pool {
        struct loop *loop;
        struct sim_disk *disk[SIM_MEMBERS_MAX];
        unsigned n_disks;
        struct pool *pool; /* NULL: not open */
        struct sim_random random;
        char failure[512];
        int (*each)(struct sim_pool *s);
};

#define expect(s, condition)                                                                       \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        sim_pool_fails(s, __FILE__, __LINE__, #condition);                         \
                        return;                                                                    \
                }                                                                                  \
        } while (0)

static inline void sim_pool_fails(struct sim_pool *s, const char *file, int line, const char *what)
{
        if (!s->failure[0])
                snprintf(s->failure, sizeof(s->failure), "%s:%d: %.300s", file, line, what);
}

static inline struct sim_disk *sim_pool_disk(const struct sim_image *image, unsigned i)
{
        static const char *const name[SIM_MEMBERS_MAX] = {"disk0", "disk1", "disk2"};
        struct sim_disk_options options = {.seed = i + 1, .name = name[i]};
        return sim_disk_new(image, &options);
}

/* The members, opened; 0 or -ENOMEM. */
static inline int sim_pool_members(struct sim_pool *s, struct member *members[SIM_MEMBERS_MAX])
{
        int r = 0;
        for (unsigned i = 0; i < s->n_disks && r == 0; i++)
                r = sim_disk_open(s->disk[i], s->loop, &members[i]);
        return r;
}

static inline int co_sim_pool_open(struct sim_pool *s, bool readonly)
{
        struct member *members[SIM_MEMBERS_MAX];
        struct pool_options options = {
            .cache_bytes = 2 << 20, .readonly = readonly, .manual_checkpoints = true};
        struct error err = ERROR_INIT;
        int r = sim_pool_members(s, members);
        if (r == 0)
                r = co_pool_open(s->loop, members, s->n_disks, &options, &s->pool, &err);
        if (r < 0)
                sim_pool_fails(s, "open", r, err.message);
        return r;
}

static inline int co_sim_pool_close(struct sim_pool *s)
{
        struct error err = ERROR_INIT;
        int r = co_pool_close(s->pool, &err);
        s->pool = NULL;
        if (r < 0)
                sim_pool_fails(s, "close", r, err.message);
        return r;
}

static inline int co_sim_pool_create(struct sim_pool *s)
{
        static const uint8_t uuid[16] = "tarn's unit test";
        struct pool_create_options options = {
            .name = "tank", .slab_bytes = SIM_SLAB_BYTES, .log_slabs = 2, .uuid = uuid};
        struct member *members[SIM_MEMBERS_MAX];
        struct error err = ERROR_INIT;
        int r = sim_pool_members(s, members);
        if (r == 0)
                r = co_pool_create(members, s->n_disks, &options, &err);
        if (r < 0)
                sim_pool_fails(s, "create", r, err.message);
        for (unsigned i = 0; i < s->n_disks; i++)
                member_close(members[i]);
        return r < 0 ? r : co_sim_pool_open(s, false);
}

/* The power fails; what was pending is there or not, by lot. The pool is not open afterwards. */
static inline void co_sim_pool_crash(struct sim_pool *s)
{
        struct sim_image *image[SIM_MEMBERS_MAX];
        for (unsigned i = 0; i < s->n_disks; i++) {
                size_t n = sim_disk_n_pending(s->disk[i]);
                uint8_t *choice = malloc(n + 1);
                for (size_t k = 0; k < n; k++)
                        choice[k] = (uint8_t)sim_random_below(&s->random, 6);
                image[i] = sim_disk_crash(s->disk[i], choice);
                free(choice);
        }
        co_pool_abandon(s->pool);
        s->pool = NULL;
        for (unsigned i = 0; i < s->n_disks; i++) {
                sim_disk_free(s->disk[i]);
                s->disk[i] = sim_pool_disk(image[i], i);
                sim_image_free(image[i]);
        }
}

/* @n blocks of @volume, each filled by lot. */
static inline int co_sim_pool_write(struct sim_pool *s, const char *volume, uint64_t block,
                                    uint64_t n)
{
        struct volume *v;
        int r = co_volume_open(s->pool, volume, &v, NULL);
        char *data = aligned_alloc(4096, n * POOL_BLOCK);
        if (r < 0 || !data) {
                free(data);
                return r;
        }
        for (uint64_t i = 0; i < n * POOL_BLOCK / 8; i++)
                ((uint64_t *)data)[i] = i % 64 ? i : sim_random_next(&s->random);
        r = co_volume_write(v, data, n * POOL_BLOCK, block * POOL_BLOCK, 0);
        co_volume_close(v);
        free(data);
        return r;
}

static inline int co_sim_pool_discard(struct sim_pool *s, const char *volume, uint64_t block,
                                      uint64_t n)
{
        struct volume *v;
        int r = co_volume_open(s->pool, volume, &v, NULL);
        if (r < 0)
                return r;
        r = co_volume_discard(v, block * POOL_BLOCK, n * POOL_BLOCK, 0);
        co_volume_close(v);
        return r;
}

static inline int co_sim_pool_snapshot(struct sim_pool *s, const char *name)
{
        return co_snapshot_create(s->pool, &name, 1, NULL);
}

/* What all members have done of one kind. */
static inline struct meter_line sim_pool_done(struct sim_pool *s, enum meter_kind kind)
{
        struct meter_line sum = {0};
        for (unsigned i = 0; i < s->n_disks; i++) {
                struct pool_member_info info;
                pool_get_member_info(s->pool, i, &info);
                meter_line_add(&sum, &info.meter->line[kind]);
        }
        return sum;
}

/* Run @entry, a co_entry on the sim_pool, over @n_disks empty disks. @each is for its use. */
static inline void sim_pool_run_each(unsigned n_disks, uint64_t seed, co_entry *entry,
                                     int (*each)(struct sim_pool *s))
{
        struct sim_pool s = {.n_disks = n_disks, .each = each};
        struct sim_image *empty = sim_image_new(SIM_MEMBER_SIZE);
        sim_random_init(&s.random, seed);
        assert_int_equal(sim_loop_new(seed, true, &s.loop), 0);
        for (unsigned i = 0; i < n_disks; i++)
                s.disk[i] = sim_pool_disk(empty, i);
        sim_image_free(empty);
        assert_int_equal(sim_loop_co_run(s.loop, entry, &s), 0);
        if (s.failure[0])
                fail_msg("seed %llu: %s", (unsigned long long)seed, s.failure);
        loop_free(s.loop);
        for (unsigned i = 0; i < n_disks; i++)
                sim_disk_free(s.disk[i]);
}

static inline void sim_pool_run(unsigned n_disks, uint64_t seed, co_entry *entry)
{
        sim_pool_run_each(n_disks, seed, entry, NULL);
}
