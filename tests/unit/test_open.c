/* Which members make a pool, and what each that does not is told. */
#include <errno.h>
#include "common/coroutine.h"
#include "common/crc32c.h"
#include "common/le.h"
#include "common/log.h"
#include "pool/codec.h"
#include "tests/unit/sim_pool.h"

/* Open with @members; the pool is closed again. The error is left in @err. */
static int co_try(struct sim_pool *s, struct member *const *members, size_t n, struct error *err)
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

static int co_try_all(struct sim_pool *s, struct error *err)
{
        struct member *members[SIM_MEMBERS_MAX] = {0};
        int r = sim_pool_members(s, members);
        return r < 0 ? r : co_try(s, members, s->n_disks, err);
}

static void co_new(struct sim_pool *s)
{
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

/* ---- members ---- */

static void co_missing(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        co_new(s);
        expect(s, sim_pool_members(s, members) == 0);
        member_close(members[1]);
        members[1] = members[2];
        expect(s, co_try(s, members, 2, &err) == -ENXIO);
        expect(s, strstr(err.message, "misses member 2 of 3") && err.hint[0]);
        expect(s, co_try_all(s, &err) == 0);
}

static void a_missing_member_is_named(void **state)
{
        sim_pool_run(3, 1, co_missing);
}

static void co_any_order(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        co_new(s);
        expect(s, sim_pool_members(s, members) == 0);
        struct member *first = members[0];
        members[0] = members[2];
        members[2] = first;
        expect(s, co_try(s, members, 3, &err) == 0);
}

static void members_come_in_any_order(void **state)
{
        sim_pool_run(3, 1, co_any_order);
}

static void co_other_pool(void *arg)
{
        struct sim_pool *s = arg;
        struct pool_create_options options = {
            .name = "other", .slab_bytes = SIM_SLAB_BYTES, .log_slabs = 1};
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        co_new(s);
        expect(s, sim_pool_members(s, members) == 0);
        expect(s, co_pool_create(&members[2], 1, &options, NULL) == 0);
        expect(s, co_try(s, members, 3, &err) == -EMEDIUMTYPE);
        expect(s, strstr(err.message, "'other'") && strstr(err.message, "'tank'") &&
                      strstr(err.message, "disk2"));
}

static void a_member_of_another_pool_is_named(void **state)
{
        sim_pool_run(3, 1, co_other_pool);
}

static void co_no_member(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        expect(s, co_try_all(s, &err) == -ENODATA);
        expect(s, strstr(err.message, "'disk0' is not a member"));
}

static void a_disk_without_a_label_is_no_member(void **state)
{
        sim_pool_run(1, 1, co_no_member);
}

static void co_stale(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        struct sim_image *old = sim_disk_visible(s->disk[1]);
        for (unsigned i = 0; i < 3; i++) {
                expect(s, co_sim_pool_open(s, false) == 0);
                expect(s, co_sim_pool_write(s, "v", i, 1) == 0);
                expect(s, co_sim_pool_close(s) == 0);
        }
        sim_disk_free(s->disk[1]);
        s->disk[1] = sim_pool_disk(old, 1);
        sim_image_free(old);
        expect(s, co_try_all(s, &err) == -ESTALE);
        expect(s, strstr(err.message, "'disk1' is at generation"));
}

static void a_member_that_missed_writes_is_refused(void **state)
{
        sim_pool_run(2, 1, co_stale);
}

static void co_twice(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        struct sim_image *copy = sim_disk_visible(s->disk[0]);
        sim_disk_free(s->disk[1]);
        s->disk[1] = sim_pool_disk(copy, 1);
        sim_image_free(copy);
        expect(s, co_try_all(s, &err) == -EINVAL);
        expect(s, strstr(err.message, "the same member"));
}

static void a_copy_of_a_member_is_noticed(void **state)
{
        sim_pool_run(2, 1, co_twice);
}

/* ---- labels ---- */

/* Change the label at one end, with its CRC made right again. */
static void label_edit(struct sim_disk *disk, unsigned end, void (*edit)(struct label_disk *))
{
        uint64_t at = end ? SIM_MEMBER_SIZE - LABEL_AREA_BYTES : 0;
        struct label_disk old, new;
        struct sim_image *image = sim_disk_visible(disk);
        sim_image_read(image, at, &old, sizeof(old));
        sim_image_free(image);
        new = old;
        edit(&new);
        new.crc32c = le32_make(crc32c(0, &new, sizeof(new) - 4));
        for (size_t i = 0; i < sizeof(new); i++) {
                uint8_t bits = ((uint8_t *)&old)[i] ^ ((uint8_t *)&new)[i];
                if (bits)
                        sim_disk_corrupt(disk, at + i, 1, bits);
        }
}

static void newer(struct label_disk *d)
{
        d->version = le32_make(FORMAT_VERSION + 1);
}

static void unknown_feature(struct label_disk *d)
{
        d->incompat = le64_make(UINT64_C(1) << 17);
}

static void unknown_when_written(struct label_disk *d)
{
        d->ro_compat = le64_make(2);
}

static void larger(struct label_disk *d)
{
        d->size_bytes = le64_make(SIM_MEMBER_SIZE * 2);
}

static void co_labels(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        sim_disk_corrupt(s->disk[0], 100, 1, 1);
        expect(s, co_try_all(s, &err) == 0);
        sim_disk_corrupt(s->disk[0], SIM_MEMBER_SIZE - LABEL_AREA_BYTES + 100, 1, 1);
        expect(s, co_try_all(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "'disk0': its label fails its checksum"));
}

static void a_label_lives_at_both_ends(void **state)
{
        sim_pool_run(2, 1, co_labels);
}

static void co_newer(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, newer);
        label_edit(s->disk[0], 1, newer);
        expect(s, co_try_all(s, &err) == -ENOTSUP);
        expect(s, strstr(err.message, "version 2") && strstr(err.hint, "newer tarn"));
}

static void co_feature(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, unknown_feature);
        label_edit(s->disk[0], 1, unknown_feature);
        expect(s, co_try_all(s, &err) == -ENOTSUP);
        expect(s, strstr(err.message, "feature 0x20000"));
}

static void co_read_only_feature(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, unknown_when_written);
        expect(s, co_try_all(s, &err) == -ENOTSUP);
        expect(s, strstr(err.message, "cannot write"));
        expect(s, co_sim_pool_open(s, true) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void co_truncated(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, larger);
        expect(s, co_try_all(s, &err) == -EIO);
        expect(s, strstr(err.message, "truncated"));
}

static void a_newer_format_and_a_truncated_disk_are_refused(void **state)
{
        sim_pool_run(1, 1, co_newer);
        sim_pool_run(1, 1, co_feature);
        sim_pool_run(1, 1, co_read_only_feature);
        sim_pool_run(1, 1, co_truncated);
}

/* ---- superblocks ---- */

static void co_super_damaged(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        /* All of them at one end: the other end has them. */
        sim_disk_corrupt(s->disk[0], SUPER_RING_OFFSET, SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        expect(s, co_try_all(s, &err) == 0);
        sim_disk_corrupt(s->disk[1], SUPER_RING_OFFSET, SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        sim_disk_corrupt(s->disk[1], SIM_MEMBER_SIZE - LABEL_AREA_BYTES + SUPER_RING_OFFSET,
                         SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        expect(s, co_try_all(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "'disk1' has no readable superblock"));
}

static void a_superblock_lives_at_both_ends(void **state)
{
        sim_pool_run(2, 1, co_super_damaged);
}

/* ---- growing by a member ---- */

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

/* ---- held ---- */

static int co_open_held(struct sim_pool *s, struct error *err)
{
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct pool_options options = {.cache_bytes = 2 << 20, .held = true};
        int r = sim_pool_members(s, members);
        if (r == 0)
                r = co_pool_open(s->loop, members, s->n_disks, &options, &s->pool, err);
        for (unsigned i = 0; r < 0 && i < s->n_disks; i++)
                member_close(members[i]);
        return r;
}

/* Of all that is on them. */
static uint64_t hash_of_disks(const struct sim_pool *s)
{
        uint64_t hash = 0;
        for (unsigned i = 0; i < s->n_disks; i++) {
                struct sim_image *image = sim_disk_visible(s->disk[i]);
                hash = 31 * hash + sim_image_hash(image);
                sim_image_free(image);
        }
        return hash;
}

static bool has_orphan(const struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slots; i++)
                if (pool->slot[i] && pool->slot[i]->state == ROOT_ORPHAN)
                        return true;
        return false;
}

/* With a deleted volume to be worked off, which an open pool begins at once. */
static void co_hold(void *arg)
{
        struct sim_pool *s = arg;
        struct error err = ERROR_INIT;
        struct volume *v;
        uint64_t before;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_create(s->pool, "gone", 8 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        expect(s, co_sim_pool_write(s, "gone", 0, 1024) == 0);
        expect(s, co_volume_delete(s->pool, "gone", true, NULL) == 0);
        expect(s, co_sim_pool_close(s) == 0);
        before = hash_of_disks(s);
        for (unsigned i = 0; i < 2; i++) {
                expect(s, co_open_held(s, &err) == 0);
                expect(s, has_orphan(s->pool));
                expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
                co_sleep_ns(UINT64_C(60000000000));
                co_volume_close(v);
                expect(s, has_orphan(s->pool));
                expect(s, co_sim_pool_close(s) == 0);
                expect(s, hash_of_disks(s) == before);
        }
        expect(s, co_open_held(s, &err) == 0);
        co_pool_go(s->pool);
        expect(s, co_sim_pool_write(s, "v", 8, 8) == 0);
        expect(s, co_pool_settle(s->pool, &err) == 0);
        expect(s, !has_orphan(s->pool));
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, hash_of_disks(s) != before);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_held_pool_writes_nothing_before_it_may(void **state)
{
        sim_pool_run(1, 1, co_hold);
        sim_pool_run(3, 2, co_hold);
}

static void co_hold_unclean(void *arg)
{
        struct sim_pool *s = arg;
        struct error err = ERROR_INIT;
        struct volume *v;
        char *data = calloc(1, POOL_BLOCK);
        uint64_t before;
        co_new(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, data && co_volume_write(v, data, POOL_BLOCK, 0, VOLUME_FUA) == 0);
        co_volume_close(v);
        free(data);
        co_pool_abandon(s->pool);
        before = hash_of_disks(s);
        expect(s, co_open_held(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "was not closed cleanly"));
        expect(s, hash_of_disks(s) == before);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_pool_that_was_not_closed_cannot_be_held(void **state)
{
        sim_pool_run(1, 1, co_hold_unclean);
        sim_pool_run(3, 1, co_hold_unclean);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_missing_member_is_named),
            cmocka_unit_test(members_come_in_any_order),
            cmocka_unit_test(a_member_of_another_pool_is_named),
            cmocka_unit_test(a_disk_without_a_label_is_no_member),
            cmocka_unit_test(a_member_that_missed_writes_is_refused),
            cmocka_unit_test(a_copy_of_a_member_is_noticed),
            cmocka_unit_test(a_label_lives_at_both_ends),
            cmocka_unit_test(a_newer_format_and_a_truncated_disk_are_refused),
            cmocka_unit_test(a_superblock_lives_at_both_ends),
            cmocka_unit_test(a_pool_grows_by_a_member_while_it_is_used),
            cmocka_unit_test(what_an_add_that_was_cut_short_left_is_ignored),
            cmocka_unit_test(a_member_is_not_added_with_a_superblock_of_yesterday),
            cmocka_unit_test(members_that_cannot_be_added_are_given_back),
            cmocka_unit_test(a_full_pool_can_use_all_of_a_member_that_it_gets),
            cmocka_unit_test(a_held_pool_writes_nothing_before_it_may),
            cmocka_unit_test(a_pool_that_was_not_closed_cannot_be_held),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
