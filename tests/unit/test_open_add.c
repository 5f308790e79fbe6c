/* A pool grows by a member: while it is used, in crashes, with disks that fail, and when it is full. */
#include <errno.h>
#include "common/log.h"
#include "pool/codec.h"
#include "tests/unit/open_try.h"

static void co_add(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        struct pool_info before, after;
        s->n_disks = 2;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 64 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 64) == 0);
        pool_get_info(s->pool, &before);
        s->n_disks = 3;
        expect(s, sim_disk_open(s->disk[2], s->loop, &members[2]) == 0);
        expect(s, co_pool_add(s->pool, &members[2], 1, &err) == 0);
        pool_get_info(s->pool, &after);
        expect(s, after.n_members == 3 && after.size_bytes > before.size_bytes);
        for (uint64_t block = 0; block < 1024; block += 64)
                expect(s, co_sim_pool_write(s, "v", block, 64) == 0);
        struct pool_member_info info;
        pool_get_member_info(s->pool, 2, &info);
        expect(s, info.data_bytes > 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_try_all(s, &err) == 0);
        s->n_disks = 2;
        expect(s, co_try_all(s, &err) == -ENXIO);
        s->n_disks = 3;
}

static void a_pool_grows_by_a_member_while_it_is_used(void **state)
{
        sim_pool_run(3, 1, co_add);
}

#define ADD_EVENTS_MAX 256u

struct watched_add {
        struct sim_disk *old, *added;
        struct sim_snapshot *old_at[ADD_EVENTS_MAX], *added_at[ADD_EVENTS_MAX];
        unsigned n;
};

static void watch_add(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct watched_add *w = arg;
        if (w->n == ADD_EVENTS_MAX)
                return;
        w->old_at[w->n] = sim_disk_snapshot(w->old);
        w->added_at[w->n++] = sim_disk_snapshot(w->added);
}

/* The generation of the superblock that is found: 0 where there is none. */
static uint64_t co_generation(struct sim_pool *s, const struct sim_snapshot *snapshot,
                              const uint8_t *choice)
{
        struct sim_image *image = sim_snapshot_crash(snapshot, choice);
        struct sim_disk *disk = sim_pool_disk(image, 0);
        struct pool_label label = {0};
        struct member *member;
        if (sim_disk_open(disk, s->loop, &member) == 0) {
                co_pool_read_label(member, &label, NULL);
                member_close(member);
        }
        sim_disk_free(disk);
        sim_image_free(image);
        return label.generation;
}

/* The power fails at every moment of an 'add'; of what was not flushed the old member loses all and
 * the new one has all. Who then leaves the new one out must have the pool that it was. */
static void co_add_and_crash(void *arg)
{
        static uint8_t whole[4096];
        struct sim_pool *s = arg;
        struct watched_add *w = calloc(1, sizeof(*w));
        struct member *member;
        struct error err;
        memset(whole, SIM_WHOLE, sizeof(whole));
        s->n_disks = 1;
        expect(s, w && co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, sim_disk_open(s->disk[1], s->loop, &member) == 0);
        *w = (struct watched_add){.old = s->disk[0], .added = s->disk[1]};
        sim_disk_set_hook(s->disk[0], watch_add, w);
        sim_disk_set_hook(s->disk[1], watch_add, w);
        expect(s, co_pool_add(s->pool, &member, 1, &err) == 0);
        sim_disk_set_hook(s->disk[0], NULL, NULL);
        sim_disk_set_hook(s->disk[1], NULL, NULL);
        expect(s, w->n > 0 && w->n < ADD_EVENTS_MAX);
        bool added = false;
        for (unsigned i = 0; i < w->n; i++) {
                uint64_t generation = co_generation(s, w->added_at[i], whole);
                expect(s, w->added_at[i]->n_pending <= sizeof(whole));
                expect(s, co_generation(s, w->old_at[i], NULL) >= generation);
                added = added || generation > 0;
                sim_snapshot_free(w->old_at[i]);
                sim_snapshot_free(w->added_at[i]);
        }
        expect(s, added);
        free(w);
        expect(s, co_sim_pool_close(s) == 0);
        s->n_disks = 2;
}

static void a_member_that_is_added_has_no_superblock_that_the_others_may_lose(void **state)
{
        sim_pool_run(2, 1, co_add_and_crash);
}

/* The power failed during an 'add': the new member has its labels, and not all that comes with
 * them.
 */
static void co_add_cut_short(void *arg)
{
        struct sim_pool *s = arg;
        struct member *member;
        struct label label;
        struct error err;
        s->n_disks = 2;
        co_new(s);
        expect(s, sim_disk_open(s->disk[0], s->loop, &member) == 0);
        expect(s, co_label_read(member, &label, NULL) == 0);
        member_close(member);
        label.index = 2;
        label.member_uuid[0] ^= 1;
        expect(s, sim_disk_open(s->disk[2], s->loop, &member) == 0);
        expect(s, co_label_write(member, &label, NULL) == 0);
        member_close(member);
        s->n_disks = 3;
        expect(s, co_try_all(s, &err) == 0);
        struct sim_disk *first = s->disk[0];
        s->disk[0] = s->disk[2];
        s->disk[2] = first;
        expect(s, co_try_all(s, &err) == 0);
}

static void what_an_add_that_was_cut_short_left_is_ignored(void **state)
{
        sim_pool_run(3, 1, co_add_cut_short);
}

/* A new member starts from the superblock of now; from an older one it would be stale after a
 * crash.
 */
static void co_add_after_rot(void *arg)
{
        struct sim_pool *s = arg;
        struct member *member;
        struct error err = ERROR_INIT;
        s->n_disks = 1;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        uint64_t at =
            SUPER_RING_OFFSET + s->pool->generation % SUPER_SLOTS * SUPER_SLOT_BYTES + 300;
        sim_disk_corrupt(s->disk[0], at, 1, 1);
        sim_disk_corrupt(s->disk[0], SIM_MEMBER_SIZE - LABEL_AREA_BYTES + at, 1, 1);
        expect(s, sim_disk_open(s->disk[1], s->loop, &member) == 0);
        expect(s, co_pool_add(s->pool, &member, 1, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "'disk0'"));
        /* The next checkpoint mends it. */
        expect(s, co_volume_create(s->pool, "w", 1 << 20, NULL) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_pool_add(s->pool, &member, 1, &err) == 0);
        s->n_disks = 2;
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_try_all(s, &err) == 0);
}

static void a_member_is_not_added_with_a_superblock_of_yesterday(void **state)
{
        sim_pool_run(2, 1, co_add_after_rot);
}

struct flusher {
        struct sim_pool *s;
        bool stop, stopped;
        struct co *waiter;
};

static void flusher_main(void *arg)
{
        struct flusher *f = arg;
        struct volume *v;
        if (co_volume_open(f->s->pool, "v", &v, NULL) == 0) {
                static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
                int r = 0;
                while (!f->stop && r == 0) {
                        r = co_volume_write(v, block, POOL_BLOCK, 0, VOLUME_FUA);
                        co_sleep_ns(sim_random_below(&f->s->random, 4000000));
                }
                if (r < 0)
                        sim_pool_fails(f->s, "flusher", r, "a write failed");
                co_volume_close(v);
        }
        f->stopped = true;
        co_wake(f->waiter);
}

/* One of two new members cannot be written to, while guests flush: both are given back with nothing
 * in flight on them, and the pool is what it was. */
static void co_add_fails(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[2];
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .error = -EIO};
        struct error err;
        struct pool_info info;
        s->n_disks = 1;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        struct flusher flusher = {.s = s, .waiter = co_self()};
        expect(s, co_spawn(s->loop, flusher_main, &flusher) == 0);
        sim_disk_set_latency(s->disk[1], 1000000, 9000000);
        sim_disk_add_fault(s->disk[2], &fault);
        for (unsigned i = 0; i < 2; i++)
                expect(s, sim_disk_open(s->disk[1 + i], s->loop, &members[i]) == 0);
        expect(s, co_pool_add(s->pool, members, 2, &err) == -EIO);
        for (unsigned i = 0; i < 2; i++)
                member_close(members[i]);
        flusher.stop = true;
        while (!flusher.stopped)
                co_suspend();
        pool_get_info(s->pool, &info);
        expect(s, info.n_members == 1 && !info.failed);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_try_all(s, &err) == 0);
}

static void members_that_cannot_be_added_are_given_back(void **state)
{
        for (uint64_t seed = 1; seed <= 20; seed++)
                sim_pool_run(3, seed, co_add_fails);
}

/* A pool that is full gets a disk: all of it can be used, though no other has room for a second leg
 * of metadata. */
static void co_add_to_full(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        unsigned n = s->n_disks;
        uint64_t block = 0;
        s->n_disks = n - 1;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 64 << 20, NULL) == 0);
        while (co_sim_pool_write(s, "v", block, 32) == 0)
                block += 32;
        uint64_t before = block;
        s->n_disks = n;
        expect(s, sim_disk_open(s->disk[n - 1], s->loop, &members[0]) == 0);
        expect(s, co_pool_add(s->pool, &members[0], 1, &err) == 0);
        while (co_sim_pool_write(s, "v", block, 32) == 0)
                block += 32;
        expect(s, (block - before) * POOL_BLOCK > SIM_MEMBER_SIZE * 3 / 4);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_try_all(s, &err) == 0);
}

static void a_full_pool_can_use_all_of_a_member_that_it_gets(void **state)
{
        sim_pool_run(2, 1, co_add_to_full);
        sim_pool_run(3, 1, co_add_to_full);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_pool_grows_by_a_member_while_it_is_used),
            cmocka_unit_test(a_member_that_is_added_has_no_superblock_that_the_others_may_lose),
            cmocka_unit_test(what_an_add_that_was_cut_short_left_is_ignored),
            cmocka_unit_test(a_member_is_not_added_with_a_superblock_of_yesterday),
            cmocka_unit_test(members_that_cannot_be_added_are_given_back),
            cmocka_unit_test(a_full_pool_can_use_all_of_a_member_that_it_gets),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
