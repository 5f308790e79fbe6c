/* sample.c - see sample.h: the pool is made here, spots.c says what lies where. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "pool/engine.h"
#include "tests/crash/loops.h"
#include "tests/rot/spots.h"
#include "tests/rot/trial.h"
#include "tests/sim/sim_random.h"

#define MEMBER_BYTES (UINT64_C(6) << 20)
#define WIDE_BYTES   (UINT64_C(300) << 20) /* three levels of map */
#define SMALL_BLOCKS 64u                   /* of the other volumes: all that is there is read */
#define N_ROW        36u /* snapshots in a row: more than a root's block has buckets */

const struct shape shapes[] = {
    {"one", 1, POOL_LAYOUT_STRIPE, false},
    {"stripe", 2, POOL_LAYOUT_STRIPE, false},
    {"concat", 2, POOL_LAYOUT_CONCAT, false},
    {"row", 2, POOL_LAYOUT_STRIPE, true},
};
const unsigned n_shapes = sizeof(shapes) / sizeof(shapes[0]);

struct maker {
        struct sample *sample;
        struct spots *spots;
        struct sim_disk *disk[SAMPLE_MEMBERS_MAX];
        struct pool *pool;
        struct sim_random random;
        size_t room;
};

/* What blocks held before: damage may bring it back. */
static void moment_keep(struct maker *m)
{
        struct sample *sample = m->sample;

        for (unsigned i = 0; i < sample->shape->n_members; i++) {
                sample->history[i] = realloc(sample->history[i],
                                             (sample->n_history + 1) * sizeof(*sample->history[i]));
                if (sample->history[i] == NULL)
                        abort();
                sample->history[i][sample->n_history] = sim_disk_visible(m->disk[i]);
        }
        sample->n_history++;
}

/* ---- steps ---- */

/* @n blocks from @block on, of which no two are alike. */
static int co_write(struct maker *m, const char *name, uint64_t block, uint64_t n, bool flush)
{
        struct volume *volume;
        uint64_t *data = aligned_alloc(POOL_BLOCK, n * POOL_BLOCK);
        int r = co_volume_open(m->pool, name, &volume, NULL);

        if (r < 0 || data == NULL) {
                free(data);
                return r < 0 ? r : -ENOMEM;
        }
        for (uint64_t i = 0; i < n * POOL_BLOCK / 8; i++)
                data[i] = i % 16 ? i : sim_random_next(&m->random);
        r = co_volume_write(volume, data, n * POOL_BLOCK, block * POOL_BLOCK, 0);
        if (r == 0 && flush)
                r = co_volume_flush(volume);
        co_volume_close(volume);
        free(data);
        return r;
}

static int co_discard(struct maker *m, const char *name, uint64_t block, uint64_t n, bool zero)
{
        struct volume *volume;
        int r = co_volume_open(m->pool, name, &volume, NULL);

        if (r < 0)
                return r;
        r = zero ? co_volume_zero(volume, block * POOL_BLOCK, n * POOL_BLOCK, 0)
                 : co_volume_discard(volume, block * POOL_BLOCK, n * POOL_BLOCK, 0);
        co_volume_close(volume);
        return r;
}

static int co_row(struct maker *m)
{
        int r = co_volume_create(m->pool, "row", N_ROW * POOL_BLOCK, NULL);

        for (unsigned i = 0; i < N_ROW && r == 0; i++) {
                char name[32];
                const char *names = name;

                snprintf(name, sizeof(name), "row@s%u", i);
                r = co_write(m, "row", i, 1, false);
                if (r == 0)
                        r = co_snapshot_create(m->pool, &names, 1, NULL);
        }
        /* Each block is of another snapshot's time: as many buckets. */
        return r ? r : co_write(m, "row", 0, N_ROW, false);
}

/* Volumes, a group of snapshots, clones of clones, a restore, holes, a volume of three levels. */
static int co_family(struct maker *m)
{
        static const char *const group[] = {"web@one", "wide@one"}, *const two = "web@two",
                                 *const three = "copy@three";
        struct pool *pool = m->pool;
        int r = co_volume_create(pool, "web", SMALL_BLOCKS * POOL_BLOCK, NULL);

        r = r ? r : co_volume_create(pool, "wide", WIDE_BYTES, NULL);
        r = r ? r : co_write(m, "web", 0, 24, false);
        r = r ? r : co_write(m, "wide", 3, 2, false);
        r = r ? r : co_write(m, "wide", WIDE_BYTES / POOL_BLOCK - 2, 2, false);
        r = r ? r : co_snapshot_create(pool, group, 2, NULL);
        moment_keep(m);
        r = r ? r : co_write(m, "web", 8, 9, false);
        r = r ? r : co_discard(m, "web", 2, 3, false);
        r = r ? r : co_write(m, "wide", 4, 1, false);
        r = r ? r : co_snapshot_create(pool, &two, 1, NULL);
        r = r ? r : co_pool_checkpoint(pool, NULL);
        moment_keep(m);
        r = r ? r : co_snapshot_clone(pool, "web@one", "copy", NULL);
        r = r ? r : co_write(m, "copy", 5, 6, false);
        r = r ? r : co_snapshot_create(pool, &three, 1, NULL);
        r = r ? r : co_snapshot_clone(pool, "copy@three", "copy2", NULL);
        r = r ? r : co_discard(m, "copy2", 7, 3, true);
        r = r ? r : co_write(m, "copy2", 50, 2, false);
        r = r ? r : co_volume_set(pool, "copy2", "iops", "1000000", NULL);
        r = r ? r : co_snapshot_restore(pool, "web@one", "kept", NULL);
        r = r ? r : co_write(m, "web", 1, 5, false);
        return r ? r : co_volume_resize(pool, "copy2", SMALL_BLOCKS * POOL_BLOCK - 512, NULL);
}

/* What only the log has: some of everything, page by page, and at last what no flush covers. */
static int co_tail(struct maker *m)
{
        static const char *const last = "web@last";
        struct pool *pool = m->pool;
        int r = co_write(m, "web", 20, 6, true);

        r = r ? r : co_snapshot_create(pool, &last, 1, NULL);
        r = r ? r : co_write(m, "web", 3, 4, true);
        r = r ? r : co_discard(m, "copy", 0, 9, false);
        r = r ? r : co_snapshot_clone(pool, "web@last", "late", NULL);
        r = r ? r : co_snapshot_delete(pool, "web@two", NULL);
        r = r ? r : co_write(m, "late", 40, 5, true);
        r = r ? r : co_volume_resize(pool, "wide", WIDE_BYTES - (UINT64_C(1) << 20), NULL);
        r = r ? r : co_volume_set(pool, "late", "bandwidth", "1G", NULL);
        r = r ? r : co_write(m, "wide", 4, 3, true);
        r = r ? r : co_write(m, "late", 60, 2, true);
        return r ? r : co_write(m, "late", 61, 2, false);
}

/* ---- making ---- */

static int co_create(struct maker *m)
{
        static const uint8_t uuid[16] = "tarn's rotten po";
        const struct shape *shape = m->sample->shape;
        struct pool_create_options create = {.name = "tank",
                                             .layout = shape->layout,
                                             .slab_bytes = SAMPLE_SLAB_BYTES,
                                             .log_slabs = 1,
                                             .uuid = uuid};
        struct pool_options options = {.cache_bytes = 2 << 20, .manual_checkpoints = true};
        struct member *members[SAMPLE_MEMBERS_MAX];
        int r = 0;

        for (unsigned i = 0; i < shape->n_members && r == 0; i++)
                r = sim_disk_open(m->disk[i], loop_borrow(), &members[i]);
        if (r == 0)
                r = co_pool_create(members, shape->n_members, &create, NULL);
        return r ? r
                 : co_pool_open(loop_borrow(), members, shape->n_members, &options, &m->pool, NULL);
}

static void co_make(void *arg)
{
        struct maker *m = arg;
        struct sample *sample = m->sample;
        int r = co_create(m);

        moment_keep(m);
        r = r ? r : sample->shape->row ? co_row(m) : co_family(m);
        r = r ? r : co_pool_checkpoint(m->pool, NULL);
        moment_keep(m);
        r = r ? r : co_pool_settle(m->pool, NULL);
        /* Every slot of a superblock has been used, and copies have taken turns. */
        for (unsigned i = 0; i < SUPER_SLOTS + MAP_COPIES && r == 0; i++) {
                moment_keep(m);
                r = co_write(m, sample->shape->row ? "row" : "web", 30 + i % 2, 1, false);
                r = r ? r : co_pool_checkpoint(m->pool, NULL);
        }
        r = r ? r : co_pool_settle(m->pool, NULL);
        if (r == 0)
                spots_note_checkpoint(m->spots, m->pool);
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                sample->before[i] = sim_disk_visible(m->disk[i]);
        r = r ? r : sample->shape->row ? co_write(m, "row", 5, 4, true) : co_tail(m);
        if (r < 0) {
                fprintf(stderr, "rot: the sample cannot be made: %s\n", strerror(-r));
                exit(1);
        }
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                sample->image[i] = sim_disk_visible(m->disk[i]);
        co_pool_abandon(m->pool);
}

void sample_make(const struct shape *shape, struct sample *ret_sample)
{
        struct maker m = {.sample = ret_sample};
        struct sim_image *empty = sim_image_new(MEMBER_BYTES);
        const char *reason;

        *ret_sample = (struct sample){.shape = shape};
        log_set_sink(NULL);
        m.spots = spots_new();
        sim_random_init(&m.random, 7);
        for (unsigned i = 0; i < shape->n_members; i++)
                m.disk[i] = sim_disk_new(
                    empty, &(struct sim_disk_options){.seed = i + 1, .discard = SIM_DISCARD_KEEP});
        sim_image_free(empty);
        if (!loop_run_entry(1, co_make, &m, &reason)) {
                fprintf(stderr, "rot: the sample cannot be made: %s\n", reason);
                exit(1);
        }
        for (unsigned i = 0; i < shape->n_members; i++)
                sim_disk_free(m.disk[i]);
        trial_truth(ret_sample->image, shape->n_members, &ret_sample->truth);
        spots_find(m.spots, ret_sample);
        spots_free(m.spots);
}

void sample_free(struct sample *sample)
{
        for (unsigned i = 0; i < sample->shape->n_members; i++) {
                sim_image_free(sample->image[i]);
                sim_image_free(sample->before[i]);
                for (size_t k = 0; k < sample->n_history; k++)
                        sim_image_free(sample->history[i][k]);
                free(sample->history[i]);
        }
        truth_free(&sample->truth);
        free(sample->spot);
        *sample = (struct sample){0};
}
