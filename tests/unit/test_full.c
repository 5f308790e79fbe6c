/* A pool whose metadata is used up can still be deleted from; and what must not go wrong while it
 * is. */
#include <errno.h>
#include "tests/unit/check_fixture.h"

/* Data until there is no space. */
static void co_fill(struct sim_pool *s, const char *volume, uint64_t block)
{
        while (co_sim_pool_write(s, volume, block, 64) == 0)
                block += 64;
        while (co_sim_pool_write(s, volume, block, 1) == 0)
                block++;
}

/* As many volumes as there can be. */
static unsigned co_name_all(struct sim_pool *s)
{
        struct error err = ERROR_INIT;
        unsigned n = 0;
        char name[32];
        do
                snprintf(name, sizeof(name), "n%u", n);
        while (co_volume_create(s->pool, name, 1 << 20, &err) == 0 && ++n);
        if (err.code != -ENOSPC)
                sim_pool_fails(s, "making volumes", err.code, err.message);
        return n;
}

static void co_expect_deleted(struct sim_pool *s, const char *name)
{
        struct error err = ERROR_INIT;
        int r = strchr(name, '@') ? co_snapshot_delete(s->pool, name, &err)
                                  : co_volume_delete(s->pool, name, true, &err);
        if (r < 0)
                sim_pool_fails(s, name, r, err.message);
}

static void co_names(void *arg)
{
        struct sim_pool *s = arg;
        char name[32];
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "data", 1 << 30, NULL) == 0);
        co_fill(s, "data", 0);
        unsigned n = co_name_all(s);
        expect(s, n > 10 && !s->failure[0]);
        for (unsigned i = 0; i < n && !s->failure[0]; i++) {
                snprintf(name, sizeof(name), "n%u", i);
                co_expect_deleted(s, name);
        }
        expect(s, !s->failure[0]);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void names_can_be_deleted_when_no_more_can_be_made(void **state)
{
        sim_pool_run(1, 1, co_names);
}

/* Each of @n snapshots has a page in the list of each epoch before it. */
static void co_many_lists(struct sim_pool *s, unsigned n)
{
        char name[32];
        expect(s, co_volume_create(s->pool, "v", 16 << 20, NULL) == 0);
        for (unsigned i = 0; i < n; i++) {
                for (unsigned k = 0; k <= n; k++)
                        expect(s, co_sim_pool_write(s, "v", 64 * i + k, 1) == 0);
                snprintf(name, sizeof(name), "v@e%u", i);
                expect(s, co_sim_pool_snapshot(s, name) == 0);
        }
        for (unsigned k = 0; k < n; k++) {
                for (unsigned i = 0; i < n; i++)
                        expect(s, co_sim_pool_write(s, "v", 64 * i + k, 1) == 0);
                snprintf(name, sizeof(name), "v@l%u", k);
                expect(s, co_sim_pool_snapshot(s, name) == 0);
        }
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
}

static void co_merges(void *arg)
{
        struct sim_pool *s = arg;
        const unsigned n = 24;
        char name[32];
        expect(s, co_sim_pool_create(s) == 0);
        co_many_lists(s, n);
        expect(s, co_volume_create(s->pool, "data", 1 << 30, NULL) == 0);
        co_fill(s, "data", 0);
        co_name_all(s);
        expect(s, !s->failure[0]);
        for (unsigned k = 0; k < n && !s->failure[0]; k++) {
                snprintf(name, sizeof(name), "v@l%u", k);
                co_expect_deleted(s, name);
        }
        expect(s, !s->failure[0]);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        co_expect_sound_here(s);
        co_expect_deleted(s, "v");
        expect(s, !s->failure[0] && co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void snapshots_merge_when_there_is_no_room_for_their_lists(void **state)
{
        sim_pool_run(1, 2, co_merges);
}

static void co_all_at_once(void *arg)
{
        struct sim_pool *s = arg;
        char name[32];
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        for (unsigned i = 0; i < 70; i++) {
                snprintf(name, sizeof(name), "v@s%u", i);
                expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
                expect(s, co_sim_pool_snapshot(s, name) == 0);
        }
        co_fill(s, "v", 0);
        co_name_all(s);
        expect(s, !s->failure[0]);
        struct error err = ERROR_INIT;
        int r = co_volume_delete(s->pool, "v", true, &err);
        expect(s, r == 0 || r == -ENOSPC); /* one by one it goes in any case */
        for (unsigned i = 0; i < 70 && r < 0 && !s->failure[0]; i++) {
                snprintf(name, sizeof(name), "v@s%u", i);
                co_expect_deleted(s, name);
        }
        if (r < 0)
                co_expect_deleted(s, "v");
        expect(s, !s->failure[0] && co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_volume_with_many_snapshots_is_deleted_or_refused(void **state)
{
        sim_pool_run(1, 3, co_all_at_once);
}

/* As if the block had never been taken. */
static void give_back(struct pool *pool, uint64_t address)
{
        struct slab *slab = address_slab(pool, address);
        uint64_t i = address % pool->slab_blocks;
        slab->live[i / 64] &= ~(UINT64_C(1) << i % 64);
        slab->live_free++;
        pool->metadata_live--;
        space_untake(pool, address, 1);
}

/* Room for one of the two nodes that growing wants on top of the map. */
static void co_grow_half_way(void *arg)
{
        struct sim_pool *s = arg;
        static uint64_t taken[4096];
        unsigned n = 0;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_create(s->pool, "w", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        while (n < 4096 && space_take_metadata(s->pool, &taken[n]) == 0)
                n++;
        expect(s, n > 10 && n < 4096);
        give_back(s->pool, taken[--n]);
        struct catalog_op op = {.type = LOG_RESIZE,
                                .root_id = root_by_name(s->pool, "v")->id,
                                .size_bytes = UINT64_C(64) << 30};
        expect(s, op_apply(s->pool, &op) == -ENOSPC);
        while (n)
                give_back(s->pool, taken[--n]);
        expect(s, co_sim_pool_write(s, "w", 0, 1) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void growing_that_fails_half_way_leaves_a_sound_map(void **state)
{
        sim_pool_run(1, 7, co_grow_half_way);
}

/* ---- requests in flight ---- */

struct flight {
        struct volume_request req;
        struct iovec iov;
        unsigned *n_left;
        struct co *waiter;
        int result;
};

static void flight_done(struct volume_request *req, int result)
{
        struct flight *f = container_of(req, struct flight, req);
        f->result = result;
        if (--*f->n_left == 0)
                co_wake(f->waiter);
}

static void flight_submit(struct flight *f, struct volume *v, enum volume_op op, void *memory,
                          uint64_t offset, uint64_t length, unsigned *n_left)
{
        *f = (struct flight){.iov = {memory, length}, .n_left = n_left, .waiter = co_self()};
        f->req = (struct volume_request){.op = op,
                                         .offset = offset,
                                         .length = length,
                                         .iov = &f->iov,
                                         .n_iov = 1,
                                         .done = flight_done};
        volume_submit(v, &f->req);
}

static void flights_wait(unsigned *n_left)
{
        while (*n_left)
                co_suspend();
}

/* Discards of the whole volume at once, when there is little metadata left and none of the map in
 * memory. */
static void co_discards(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        struct flight flight[32];
        const uint64_t leaf = 1 << 20;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        for (unsigned i = 0; i < 32; i++)
                expect(s, co_sim_pool_write(s, "v", 4096 * i, 70) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        co_name_all(s);
        expect(s, !s->failure[0] && co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        unsigned n_left = 32;
        for (unsigned i = 0; i < 32; i++)
                flight_submit(&flight[i], v, VOLUME_DISCARD, NULL, 16 * i * leaf + 4096,
                              leaf - 4096, &n_left);
        flights_wait(&n_left);
        struct pool_info info;
        pool_get_info(s->pool, &info);
        if (info.failed)
                sim_pool_fails(s, "stopped", 0, info.failed);
        co_volume_close(v);
        expect(s, !s->failure[0]);
        co_expect_deleted(s, "v");
        expect(s, !s->failure[0]);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void discards_at_once_do_not_use_up_the_metadata(void **state)
{
        sim_pool_run(1, 4, co_discards);
}

static void settler_main(void *arg)
{
        struct sim_pool *s = arg;
        co_pool_settle(s->pool, NULL);
}

/* Everything was freed, and is discarded slab by slab: nobody can take the blocks that the disk is
 * busy with, and it gives them back in a moment. */
static void co_write_amid_discards(void *arg)
{
        struct sim_pool *s = arg;
        const uint64_t minute_ns = UINT64_C(60000000000);
        uint64_t n;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 64 << 20, NULL) == 0);
        co_fill(s, "v", 0);
        n = s->pool->data_live;
        expect(s, co_sim_pool_discard(s, "v", 0, (64 << 20) / POOL_BLOCK) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, s->pool->data_live == 0);
        sim_disk_set_latency(s->disk[0], minute_ns, minute_ns);
        expect(s, co_spawn(s->loop, settler_main, s) == 0);
        for (unsigned i = 0; i < 10000 && !s->pool->discard_in_flight; i++)
                co_sleep_ns(minute_ns / 60);
        expect(s, s->pool->discard_in_flight);
        sim_disk_set_latency(s->disk[0], 20000, 200000);
        for (uint64_t at = 0; at < n; at++)
                expect(s, co_sim_pool_write(s, "v", at, 1) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void what_a_disk_is_discarding_is_waited_for(void **state)
{
        sim_pool_run(1, 4, co_write_amid_discards);
}

/* Blocks of hundreds of births go at once: each takes a page of a list of its own. */
static void co_discard_all_births(void *arg)
{
        enum { N = 600 };
        struct sim_pool *s = arg;
        struct volume *v;
        char name[32];
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 4 << 20, NULL) == 0);
        /* The last snapshot is the newest change: no list is begun yet. */
        unsigned n = 0;
        do
                snprintf(name, sizeof(name), "v@s%u", n);
        while (co_sim_pool_write(s, "v", n, 1) == 0 && co_sim_pool_snapshot(s, name) == 0 &&
               ++n < N);
        expect(s, n > 100 && !pool_failed(s->pool));
        expect(s, co_volume_create(s->pool, "data", 1 << 30, NULL) == 0);
        co_fill(s, "data", 0);
        co_name_all(s);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        for (unsigned i = 0; i < 4 && !s->failure[0]; i++) {
                int r = co_volume_discard(v, 0, 4 << 20, 0);
                expect(s, r == 0 || r == -ENOSPC);
                expect(s, !pool_failed(s->pool));
        }
        co_volume_close(v);
        expect(s, co_volume_resize(s->pool, "v", POOL_BLOCK, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0 && !pool_failed(s->pool));
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, true) == 0); /* it is too full for a check beside writers */
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

/* What many lists may want of metadata is more than is left of it, and more than is used. */
static void co_write_over_births(void *arg)
{
        enum { N = 200 };
        struct sim_pool *s = arg;
        struct volume *v;
        char name[32], *data = aligned_alloc(POOL_BLOCK, 1 << 20);
        expect(s, data != NULL);
        memset(data, 1, 1 << 20);
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 16 << 20, NULL) == 0);
        for (unsigned i = 0; i < N; i++) {
                snprintf(name, sizeof(name), "v@s%u", i);
                expect(s, co_sim_pool_snapshot(s, name) == 0);
                if (i % 16 == 0)
                        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        }
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        /* So much that the maker makes no more. */
        uint64_t keep = max_u64(2 * metadata_reserve(s->pool), s->pool->metadata_total / 2) + 8;
        expect(s, metadata_available(s->pool) > (int64_t)keep);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        uint64_t taken = (uint64_t)metadata_available(s->pool) - keep;
        s->pool->metadata_reserved += taken; /* by others */
        /* As it lies in memory, and by way of a buffer. */
        expect(s, co_volume_write(v, data, 1 << 20, 0, 0) == 0);
        expect(s, co_volume_write(v, data + 16, (1 << 20) - POOL_BLOCK, 2 << 20, 0) == 0);
        expect(s, co_volume_flush(v) == 0);
        s->pool->metadata_reserved -= taken;
        co_volume_close(v);
        free(data);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_large_write_over_many_snapshots_is_done_in_parts(void **state)
{
        sim_pool_run(1, 3, co_write_over_births);
}

static void a_discard_of_many_births_does_not_stop_a_full_pool(void **state)
{
        sim_pool_run(1, 3, co_discard_all_births);
}

struct shrinker {
        struct sim_pool *s;
        unsigned *n_left;
        struct co *waiter;
        int result;
};

static void shrinker_main(void *arg)
{
        struct shrinker *sh = arg;
        sh->result = co_volume_resize(sh->s->pool, "v", 1 << 20, NULL);
        if (--*sh->n_left == 0)
                co_wake(sh->waiter);
}

/* Writes that were submitted while a shrink waits for those before them. */
static void co_shrink(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        struct flight flight[8];
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK))), got[POOL_BLOCK];
        memset(block, 'x', sizeof(block));
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 4 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        unsigned n_left = 9;
        struct shrinker sh = {s, &n_left, co_self(), 0};
        flight_submit(&flight[0], v, VOLUME_WRITE, block, 0, POOL_BLOCK, &n_left);
        expect(s, co_spawn(s->loop, shrinker_main, &sh) == 0);
        co_sleep_ns(30000);
        for (unsigned i = 1; i < 8; i++)
                flight_submit(&flight[i], v, VOLUME_WRITE, block, (3 << 20) + i * POOL_BLOCK,
                              POOL_BLOCK - i % 2 * 512, &n_left);
        flights_wait(&n_left);
        expect(s, sh.result == 0 && flight[0].result == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_volume_resize(s->pool, "v", 4 << 20, NULL) == 0);
        for (unsigned i = 0; i < 8; i++) {
                uint64_t at = (3 << 20) + i * POOL_BLOCK;
                expect(s, co_volume_read(v, got, POOL_BLOCK, at) == 0);
                expect(s, got[0] == 0 && !memcmp(got, got + 1, POOL_BLOCK - 1));
        }
        co_volume_close(v);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_write_that_waited_for_a_shrink_is_not_done_behind_the_end(void **state)
{
        sim_pool_run(1, 5, co_shrink);
}

/* A full pool; a write of part of a block that waits for space; a shrink that is being worked off
 * and brings none; and a snapshot, which waits for the write. */
static void co_snapshot_amid_a_shrink(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        struct flight flight;
        const uint64_t slice = 64 * 256; /* blocks: of a shrink's step */
        static char block[POOL_BLOCK];
        unsigned n_left = 1;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", UINT64_C(8) << 30, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        for (unsigned i = 64; i < 128; i++)
                expect(s, co_sim_pool_write(s, "v", i * slice, 1) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, co_volume_create(s->pool, "data", 1 << 30, NULL) == 0);
        co_fill(s, "data", 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_resize(s->pool, "v", UINT64_C(4) << 30, NULL) == 0);
        flight_submit(&flight, v, VOLUME_WRITE, block, POOL_BLOCK, 512, &n_left);
        for (unsigned i = 0; i < 4; i++)
                co_yield_loop();
        expect(s, s->pool->worker_running && n_left == 1);
        expect(s, co_sim_pool_snapshot(s, "v@b") == 0);
        flights_wait(&n_left);
        expect(s, flight.result == -ENOSPC);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, co_volume_resize(s->pool, "v", UINT64_C(8) << 30, NULL) == 0);
        co_volume_close(v);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_snapshot_amid_a_shrink_does_not_wait_for_ever(void **state)
{
        sim_pool_run(1, 6, co_snapshot_amid_a_shrink);
}

/* A volume that has shrunk, and whose disk gives back nothing to work that off. */
static void co_shrink_under_fault(struct sim_pool *s, struct volume **ret_volume)
{
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_READ), .error = -EIO};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 8 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        expect(s, co_sim_pool_write(s, "v", 2000, 1) == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", ret_volume, NULL) == 0);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_volume_resize(s->pool, "v", 4 << 20, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
}

/* A shrink that cannot be worked off, and could be later. */
static void co_shrink_again(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        co_shrink_under_fault(s, &v);
        expect(s, co_volume_resize(s->pool, "v", 8 << 20, NULL) == -EIO);
        sim_disk_clear_faults(s->disk[0]);
        expect(s, co_volume_resize(s->pool, "v", 8 << 20, NULL) == 0);
        co_volume_close(v);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void growing_tries_a_shrink_that_failed_again(void **state)
{
        sim_pool_run(1, 8, co_shrink_again);
}

/* Growing waits for what an earlier shrink gave up, and for nothing else that is being freed. */
static void co_grow_amid_frees(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "big", UINT64_C(1) << 30, NULL) == 0);
        for (unsigned i = 0; i < 500; i++)
                expect(s, co_sim_pool_write(s, "big", i * UINT64_C(256), 1) == 0);
        expect(s, co_volume_create(s->pool, "v", 8 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 2000, 1) == 0);
        expect(s, co_sim_pool_close(s) == 0); /* nodes are to be read again */
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_delete(s->pool, "big", false, NULL) == 0);
        expect(s, co_volume_resize(s->pool, "v", 4 << 20, NULL) == 0);
        expect(s, co_volume_grow(s->pool, "v", 2 << 20, NULL) == -EBUSY);
        expect(s, co_volume_grow(s->pool, "v", 8 << 20, NULL) == 0);
        expect(s, s->pool->worker_running && !s->pool->job_first);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, s->pool->data_live == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void grower_main(void *arg)
{
        struct shrinker *sh = arg;
        sh->result = co_volume_resize(sh->s->pool, "v", UINT64_C(2) << 30, NULL);
        if (--*sh->n_left == 0)
                co_wake(sh->waiter);
}

/* A restore takes the volume that was shrunk out of the way of who waits for that. */
static void co_grow_amid_a_restore(void *arg)
{
        struct sim_pool *s = arg;
        unsigned n_left = 1;
        struct shrinker grower = {s, &n_left, co_self(), 0};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", UINT64_C(1) << 30, NULL) == 0);
        for (unsigned i = 0; i < 500; i++)
                expect(s, co_sim_pool_write(s, "v", i * UINT64_C(256), 1) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_resize(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_spawn(s->loop, grower_main, &grower) == 0);
        co_yield_loop();
        expect(s, s->pool->job_first);
        expect(s, co_snapshot_restore(s->pool, "v@s", "kept", NULL) == 0);
        flights_wait(&n_left);
        expect(s, grower.result == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void growing_ends_when_a_restore_takes_the_volume(void **state)
{
        sim_pool_run(1, 2, co_grow_amid_a_restore);
}

static void growing_does_not_wait_for_what_others_free(void **state)
{
        sim_pool_run(1, 2, co_grow_amid_frees);
}

/* Growing shows zeroes where an earlier shrink left data in the last block; what is nothing but
 * zeroes then takes no space. */
static void co_grow_over_nothing(void *arg)
{
        struct sim_pool *s = arg;
        static char got[POOL_BLOCK];
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", POOL_BLOCK, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        expect(s, co_volume_resize(s->pool, "v", 1536, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_discard(v, 0, 1536, 0) == 0);
        expect(s, s->pool->data_live == 1);
        expect(s, co_volume_resize(s->pool, "v", 2 * POOL_BLOCK, NULL) == 0);
        expect(s, s->pool->data_live == 0);
        co_volume_close(v);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(got, 1, sizeof(got));
        expect(s, co_volume_read(v, got, POOL_BLOCK, 0) == 0);
        expect(s, got[0] == 0 && !memcmp(got, got + 1, POOL_BLOCK - 1));
        co_volume_close(v);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_block_of_nothing_but_zeroes_is_not_written_by_growing(void **state)
{
        for (uint64_t seed = 1; seed <= 4; seed++)
                sim_pool_run(2, seed, co_grow_over_nothing);
}

static unsigned n_told;

static void count_told(enum log_level level, const char *message)
{
        n_told +=
            strstr(message, "what shrinking volume 'v' gave up is freed when it is opened") != NULL;
}

/* Where the block of @root lies. */
static int co_root_place(struct sim_pool *s, const struct root *root, struct leg *ret_leg)
{
        struct pool *pool = s->pool;
        uint64_t block = CATALOG_ROOT_BASE + root->slot;
        struct node *leaf;
        struct entry e;
        int r = co_tree_leaf(pool, &pool->catalog, block, &leaf, &e);
        if (r < 0 || !leaf)
                return -ENOENT;
        e = entry_get(&((struct node_disk *)leaf->page)->entry[block % LEAF_BLOCKS]);
        node_unpin(pool, leaf);
        const struct slab *slab = address_slab(pool, e.address);
        *ret_leg =
            (struct leg){slab->leg[0].member, leg_offset(slab, 0, e.address, pool->slab_blocks)};
        return 0;
}

/* A shrink that was not worked off when the pool was closed, and whose volume cannot be read when it
 * is opened. */
static void co_shrink_unreadable(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(MEMBER_READ),
                                  .error = -EIO,
                                  .length = POOL_BLOCK};
        struct pool_info info;
        struct volume *v;
        struct leg leg;
        co_shrink_under_fault(s, &v);
        co_volume_close(v);
        expect(s, co_root_place(s, root_by_name(s->pool, "v"), &leg) == 0);
        expect(s, co_sim_pool_close(s) == 0);
        sim_disk_clear_faults(s->disk[0]);

        fault.offset = leg.offset;
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, n_told == 1);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        pool_get_info(s->pool, &info);
        expect(s, info.used_bytes == 2 * POOL_BLOCK);
        sim_disk_clear_faults(s->disk[0]);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        co_volume_close(v);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        pool_get_info(s->pool, &info);
        expect(s, info.used_bytes == POOL_BLOCK);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_shrink_that_cannot_go_on_when_the_pool_is_opened_is_told(void **state)
{
        n_told = 0;
        log_set_sink(count_told);
        sim_pool_run(1, 10, co_shrink_unreadable);
        log_set_sink(NULL);
}

/* Blocks here and there in the largest volume there can be. */
static void co_shrink_the_largest(void *arg)
{
        struct sim_pool *s = arg;
        const uint64_t blocks = VOLUME_SIZE_MAX / POOL_BLOCK;
        const uint64_t at[] = {0, 255, 256, 300, 65536, blocks / 3, blocks - 257, blocks - 1};
        struct volume *v;
        static char got[POOL_BLOCK];
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", VOLUME_SIZE_MAX, NULL) == 0);
        for (unsigned i = 0; i < 8; i++)
                expect(s, co_sim_pool_write(s, "v", at[i], 1) == 0);
        uint64_t zeroes = (at[5] / 256 + 2) * 256; /* and absent entries in the same leaf */
        expect(s, co_sim_pool_write(s, "v", zeroes, 100) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_zero(v, zeroes * POOL_BLOCK, 100 * POOL_BLOCK, 0) == 0);
        co_volume_close(v);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_write(s, "v", at[5], 1) == 0);
        uint64_t steps = sim_loop_steps(s->loop);
        expect(s, co_volume_resize(s->pool, "v", 256 * POOL_BLOCK + 512, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, sim_loop_steps(s->loop) - steps < 10000);
        co_expect_sound_here(s);
        expect(s, co_volume_resize(s->pool, "v", VOLUME_SIZE_MAX, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        for (unsigned i = 3; i < 8; i++) {
                expect(s, co_volume_read(v, got, POOL_BLOCK, at[i] * POOL_BLOCK) == 0);
                expect(s, got[0] == 0 && !memcmp(got, got + 1, POOL_BLOCK - 1));
        }
        co_volume_close(v);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void shrinking_steps_over_holes(void **state)
{
        sim_pool_run(1, 9, co_shrink_the_largest);
}

/* ---- the cache ---- */

/* More leaves written at once than the cache is to hold, in a map of three levels, with a snapshot
 * behind it. */
static void co_cache(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        enum { N = 200, NODES = 64 };
        static struct flight flight[N];
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        expect(s, co_sim_pool_create(s) == 0);
        s->pool->cache.n_max = NODES;
        expect(s, co_volume_create(s->pool, "v", UINT64_C(2) << 30, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        for (unsigned round = 0; round < 6; round++) {
                unsigned n_left = N;
                for (unsigned i = 0; i < N; i++)
                        flight_submit(&flight[i], v, VOLUME_WRITE, block,
                                      sim_random_below(&s->random, N) << 20, POOL_BLOCK, &n_left);
                flights_wait(&n_left);
                for (unsigned i = 0; i < N; i++)
                        expect(s, flight[i].result == 0);
                if (round)
                        expect(s, co_snapshot_delete(s->pool, "v@s", NULL) == 0);
                expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
                expect(s, co_pool_settle(s->pool, NULL) == 0);
        }
        co_volume_close(v);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void more_is_written_at_once_than_the_cache_holds(void **state)
{
        for (unsigned seed = 0; seed < 8; seed++)
                sim_pool_run(2, seed, co_cache);
}

struct stream {
        struct sim_pool *s;
        struct volume *v;
        size_t *most_dirty;
        unsigned *n_left;
        struct co *waiter;
};

static void stream_main(void *arg)
{
        struct stream *stream = arg;
        struct sim_pool *s = stream->s;
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        for (unsigned i = 0; i < 100; i++) {
                uint64_t leaf = sim_random_below(&s->random, 300);
                if (co_volume_write(stream->v, block, POOL_BLOCK, leaf << 20, 0) < 0)
                        sim_pool_fails(s, "write", __LINE__, "failed");
                if (s->pool->cache.n_dirty > *stream->most_dirty)
                        *stream->most_dirty = s->pool->cache.n_dirty;
        }
        if (--*stream->n_left == 0)
                co_wake(stream->waiter);
}

/* Writers that are never done: what a checkpoint cleans, they make dirty meanwhile. */
static void co_streams(void *arg)
{
        struct sim_pool *s = arg;
        enum { N = 8, NODES = 64, A_WRITE = 4 };
        struct stream stream[N];
        struct volume *v;
        size_t most_dirty = 0;
        unsigned n_left = N;
        expect(s, co_sim_pool_create(s) == 0);
        s->pool->cache.n_max = NODES;
        expect(s, co_volume_create(s->pool, "v", UINT64_C(2) << 30, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        for (unsigned i = 0; i < N; i++) {
                stream[i] = (struct stream){s, v, &most_dirty, &n_left, co_self()};
                expect(s, co_spawn(s->loop, stream_main, &stream[i]) == 0);
        }
        flights_wait(&n_left);
        co_volume_close(v);
        expect(s, most_dirty <= NODES / 2 + N * A_WRITE);
        expect(s, co_sim_pool_close(s) == 0);
}

static void writers_wait_for_the_checkpoint_when_half_the_cache_is_dirty(void **state)
{
        for (unsigned seed = 0; seed < 4; seed++)
                sim_pool_run(2, seed, co_streams);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(names_can_be_deleted_when_no_more_can_be_made),
            cmocka_unit_test(snapshots_merge_when_there_is_no_room_for_their_lists),
            cmocka_unit_test(a_volume_with_many_snapshots_is_deleted_or_refused),
            cmocka_unit_test(growing_that_fails_half_way_leaves_a_sound_map),
            cmocka_unit_test(discards_at_once_do_not_use_up_the_metadata),
            cmocka_unit_test(a_large_write_over_many_snapshots_is_done_in_parts),
            cmocka_unit_test(a_discard_of_many_births_does_not_stop_a_full_pool),
            cmocka_unit_test(what_a_disk_is_discarding_is_waited_for),
            cmocka_unit_test(a_write_that_waited_for_a_shrink_is_not_done_behind_the_end),
            cmocka_unit_test(a_snapshot_amid_a_shrink_does_not_wait_for_ever),
            cmocka_unit_test(growing_tries_a_shrink_that_failed_again),
            cmocka_unit_test(growing_ends_when_a_restore_takes_the_volume),
            cmocka_unit_test(growing_does_not_wait_for_what_others_free),
            cmocka_unit_test(a_block_of_nothing_but_zeroes_is_not_written_by_growing),
            cmocka_unit_test(a_shrink_that_cannot_go_on_when_the_pool_is_opened_is_told),
            cmocka_unit_test(shrinking_steps_over_holes),
            cmocka_unit_test(more_is_written_at_once_than_the_cache_holds),
            cmocka_unit_test(writers_wait_for_the_checkpoint_when_half_the_cache_is_dirty),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
