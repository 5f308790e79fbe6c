/* log_fixture.h - for tests of what a recovery makes of the log: a volume whose last writes are in it,
 * and its pages changed by hand.
 *
 * Threads    coroutines of a sim_pool's loop.
 * Errors     0 or -errno; what fails beyond that fails the test (expect).
 */
#pragma once
#include "common/crc32c.h"
#include "pool/engine.h"
#include "tests/unit/sim_pool.h"

static char data[8 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));

static inline int co_fill(struct sim_pool *s, char content, unsigned flags)
{
        struct volume *v;
        int r = co_volume_open(s->pool, "v", &v, NULL);
        if (r < 0)
                return r;
        memset(data, content, sizeof(data));
        r = co_volume_write(v, data, sizeof(data), 0, flags);
        co_volume_close(v);
        return r;
}

/* A pool with volume "v", and 'a' in it. */
static inline int co_create_filled(struct sim_pool *s, unsigned flags)
{
        int r = co_sim_pool_create(s);
        r = r ? r : co_volume_create(s->pool, "v", 1 << 20, NULL);
        return r ? r : co_fill(s, 'a', flags);
}

/* A volume of 'a' in a checkpoint, and of 'b' in the log: flushed, and the process is killed. Where
 * the log's open page lies is returned by leg. */
static inline void co_killed(struct sim_pool *s, struct leg legs[SLAB_LEGS_MAX])
{
        uint64_t shift;
        unsigned n_legs;
        expect(s, co_create_filled(s, 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        struct leg *from = log_page_legs(s->pool, s->pool->log.next, &n_legs, &shift);
        expect(s, n_legs == (s->n_disks > 1 ? 2 : 1));
        for (unsigned i = 0; i < n_legs; i++)
                legs[i] = (struct leg){from[i].member, from[i].offset + shift};
        expect(s, co_fill(s, 'b', VOLUME_FUA) == 0);
        co_pool_abandon(s->pool);
}

/* How many of the volume's blocks hold @content; -1 where something else was read. */
static inline int co_blocks_with(struct sim_pool *s, char content)
{
        struct volume *v;
        int n = 0;
        if (co_volume_open(s->pool, "v", &v, NULL) < 0)
                return -1;
        for (unsigned i = 0; i < 8 && n >= 0; i++) {
                int r = co_volume_read(v, data, POOL_BLOCK, (uint64_t)i * POOL_BLOCK);
                if (r < 0 && r != -EIO)
                        n = -1;
                for (unsigned k = 0; r == 0 && n >= 0 && k < POOL_BLOCK; k++)
                        n = data[k] == content ? n : -1;
                n += n >= 0 && r == 0;
        }
        co_volume_close(v);
        return n;
}

/* ---- pages of the log ---- */

static inline void page_missing(struct log_page_disk *d)
{
        *d = (struct log_page_disk){0};
}

/* Its checksum is not mended. */
static inline void page_damaged(struct log_page_disk *d)
{
        d->first_record = le64_make(le64_get(d->first_record) ^ (UINT64_C(1) << 60));
}

static void (*page_change)(struct log_page_disk *d);

/* The one disk, with the page at @offset changed. */
static inline void page_patch(struct sim_pool *s, uint64_t offset)
{
        struct log_page_disk d;
        struct sim_image *image = sim_disk_visible(s->disk[0]);
        sim_image_read(image, offset, &d, sizeof(d));
        page_change(&d);
        if (page_change != page_damaged)
                d.crc32c = le32_make(crc32c(0, (const char *)&d + 8, sizeof(d) - 8));
        sim_image_write(image, offset, &d, sizeof(d));
        sim_disk_free(s->disk[0]);
        s->disk[0] = sim_pool_disk(image, 0);
        sim_image_free(image);
}
