/* open_try.h - for tests of which members make a pool: a pool to be opened, and trying to.
 *
 * Units      none.
 * Threads    one.
 * Errors     0 or -errno with a sentence.
 * Ownership  members are closed whatever comes.
 */
#pragma once
#include "common/coroutine.h"
#include "tests/unit/sim_pool.h"

/* Open with @members; the pool is closed again. The error is left in @err. */
static inline int co_try(struct sim_pool *s, struct member *const *members, size_t n,
                         struct error *err)
{
        struct pool *pool;
        struct pool_options options = {.cache_bytes = 2 << 20, .manual_checkpoints = true};
        *err = ERROR_INIT;
        int r = co_pool_open(s->loop, members, n, &options, &pool, err);
        if (r < 0) {
                for (size_t i = 0; i < n; i++)
                        member_close(members[i]);
                return r;
        }
        return co_pool_close(pool, err);
}

static inline int co_try_all(struct sim_pool *s, struct error *err)
{
        struct member *members[SIM_MEMBERS_MAX] = {0};
        int r = sim_pool_members(s, members);
        return r < 0 ? r : co_try(s, members, s->n_disks, err);
}

/* A pool with a volume "v", closed. */
static inline void co_new(struct sim_pool *s)
{
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}
