/* content_fixture.h - for tests of what differs and what changed: the content of volumes, writes that
 * change it by lot, and what co_pool_diff() tells of it.
 *
 * Units      bytes; blocks where a name says so.
 * Threads    coroutines of a sim_pool's loop.
 * Errors     0 or -errno.
 * Ownership  content's data are the caller's to free.
 */
#pragma once
#include "tests/unit/sim_pool.h"

#define BLOCKS_MAX 1300u /* more than five leaves */

struct content {
        char *data; /* BLOCKS_MAX; zeroes behind the end */
        uint64_t size;
};

static inline int co_content(struct volume *v, struct content *c)
{
        int r = 0;

        c->size = volume_size(v);
        c->data = calloc(BLOCKS_MAX, POOL_BLOCK);
        for (uint64_t at = 0; at < c->size && r == 0; at += 1 << 20) {
                uint64_t n = c->size - at < 1 << 20 ? c->size - at : 1 << 20;
                r = co_volume_read(v, c->data + at, n, at);
        }
        return r;
}

/* Few different contents, so that different blocks are equal now and then; zeroes too. */
static inline int co_write_some(struct sim_pool *s, const char *volume)
{
        struct sim_random *rnd = &s->random;
        struct volume *v;
        int r = co_volume_open(s->pool, volume, &v, NULL);

        if (r < 0)
                return r;
        uint64_t size = volume_size(v), at = sim_random_below(rnd, size),
                 n = 1 + sim_random_below(rnd, 60 * POOL_BLOCK);
        n = n < size - at ? n : size - at;
        char *data = calloc(1, n);
        memset(data, (int)sim_random_below(rnd, 3), n);
        switch (sim_random_below(rnd, 4)) {
        case 0:
                r = co_volume_discard(v, at, n, 0);
                break;
        case 1:
                r = co_volume_zero(v, at, n, 0);
                break;
        default:
                r = co_volume_write(v, data, n, at, 0);
        }
        free(data);
        co_volume_close(v);
        return r;
}

struct diff_map {
        bool changed[BLOCKS_MAX];
        uint64_t last_end, n_bytes;
        bool malformed; /* out of order, not merged, empty */
};

/* For co_pool_diff(), on a struct diff_map. */
static inline int each_range(uint64_t offset, uint64_t length, void *arg)
{
        struct diff_map *map = arg;

        if (length == 0 || offset % POOL_BLOCK || (map->last_end && offset <= map->last_end))
                map->malformed = true;
        for (uint64_t b = offset / POOL_BLOCK; b * POOL_BLOCK < offset + length; b++)
                if (b < BLOCKS_MAX)
                        map->changed[b] = true;
        map->last_end = offset + length;
        map->n_bytes += length;
        return 0;
}
