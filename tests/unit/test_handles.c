/* What is in use is kept as long, and not longer: snapshots that are deleted while they are open,
 * blocks that are written anew while they are read. */
#include <errno.h>
#include "tests/unit/check_fixture.h"

#define N_BLOCKS 64u

static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));

/* Every block of the volume holds @letter. */
static int co_letters(struct sim_pool *s, const char *volume, char letter)
{
        struct volume *v;
        int r = co_volume_open(s->pool, volume, &v, NULL);
        memset(block, letter, sizeof(block));
        for (unsigned i = 0; i < N_BLOCKS && r == 0; i++)
                r = co_volume_write(v, block, POOL_BLOCK, i * POOL_BLOCK, 0);
        co_volume_close(r < 0 ? NULL : v);
        return r;
}

static bool co_holds(struct volume *v, char letter)
{
        for (unsigned i = 0; i < N_BLOCKS; i++) {
                if (co_volume_read(v, block, POOL_BLOCK, i * POOL_BLOCK) < 0 ||
                    block[0] != letter || memcmp(block, block + 1, POOL_BLOCK - 1))
                        return false;
        }
        return true;
}

static uint64_t co_used_blocks(struct sim_pool *s)
{
        struct pool_info info;
        co_pool_settle(s->pool, NULL);
        pool_get_info(s->pool, &info);
        return info.used_bytes / POOL_BLOCK;
}

/* "v" with snapshots a, b, c of other content each, of which b is open. */
static int co_three(struct sim_pool *s, struct volume **ret_b)
{
        int r = co_volume_create(s->pool, "v", N_BLOCKS * POOL_BLOCK, NULL);
        r = r ? r : co_letters(s, "v", 'a');
        r = r ? r : co_sim_pool_snapshot(s, "v@a");
        r = r ? r : co_letters(s, "v", 'b');
        r = r ? r : co_sim_pool_snapshot(s, "v@b");
        r = r ? r : co_letters(s, "v", 'c');
        r = r ? r : co_sim_pool_snapshot(s, "v@c");
        r = r ? r : co_letters(s, "v", 'd');
        return r ? r : co_volume_open(s->pool, "v@b", ret_b, NULL);
}

static void co_keeps(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *b, *again;
        expect(s, co_sim_pool_create(s) == 0 && co_three(s, &b) == 0);
        expect(s, co_used_blocks(s) == 4 * N_BLOCKS);
        expect(s, co_snapshot_delete(s->pool, "v@b", NULL) == 0);
        expect(s, co_volume_open(s->pool, "v@b", &again, NULL) == -ENOENT);
        expect(s, !strcmp(volume_name(b), "v@(deleted)"));
        expect(s, co_used_blocks(s) == 4 * N_BLOCKS && co_holds(b, 'b'));
        /* its name may be used again, and its neighbours may go */
        expect(s, co_sim_pool_snapshot(s, "v@b") == 0);
        expect(s, co_volume_open(s->pool, "v@b", &again, NULL) == 0);
        expect(s, co_snapshot_delete(s->pool, "v@a", NULL) == 0);
        expect(s, co_snapshot_delete(s->pool, "v@c", NULL) == 0);
        expect(s, co_used_blocks(s) == 2 * N_BLOCKS);
        expect(s, co_holds(b, 'b') && co_holds(again, 'd'));
        co_expect_sound_here(s);
        co_volume_close(b);
        expect(s, co_used_blocks(s) == N_BLOCKS && co_holds(again, 'd'));
        co_volume_close(again);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_deleted_snapshot_is_kept_while_it_is_open(void **state)
{
        sim_pool_run(1, 1, co_keeps);
}

/* The head goes another way, and then all of it goes. */
static void co_alone(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *b;
        expect(s, co_sim_pool_create(s) == 0 && co_three(s, &b) == 0);
        expect(s, co_snapshot_restore(s->pool, "v@a", NULL, NULL) == 0);
        expect(s, co_used_blocks(s) == 3 * N_BLOCKS && co_holds(b, 'b'));
        expect(s, co_volume_delete(s->pool, "v", true, NULL) == 0);
        expect(s, !strcmp(volume_name(b), "(deleted)@(deleted)"));
        expect(s, co_volume_create(s->pool, "v", N_BLOCKS * POOL_BLOCK, NULL) == 0);
        expect(s, co_used_blocks(s) == N_BLOCKS && co_holds(b, 'b'));
        co_expect_sound_here(s);
        co_volume_close(b);
        expect(s, co_used_blocks(s) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void an_open_snapshot_outlives_its_volume(void **state)
{
        sim_pool_run(1, 2, co_alone);
}

/* Nobody has it open after a crash. What is written in between is listed as long as it is kept, and
 * replayed without it. */
static void co_crashed(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *b;
        bool checkpoint = s->each != NULL;
        expect(s, co_sim_pool_create(s) == 0 && co_three(s, &b) == 0);
        expect(s, co_snapshot_delete(s->pool, "v@b", NULL) == 0);
        if (checkpoint)
                expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_letters(s, "v", 'e') == 0);
        expect(s, co_sim_pool_snapshot(s, "v@e") == 0);
        expect(s, co_letters(s, "v", 'f') == 0 && co_volume_flush(b) == 0);
        co_volume_close(b);
        expect(s, co_letters(s, "v", 'g') == 0);
        expect(s, co_sim_pool_snapshot(s, "v@g") == 0);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        co_expect_sound_here(s);
        expect(s, co_used_blocks(s) == 4 * N_BLOCKS);
        const char *const names[] = {"v@a", "v@c", "v@e", "v@g"};
        for (unsigned i = 0; i < 4; i++) {
                struct volume *v;
                expect(s, co_volume_open(s->pool, names[i], &v, NULL) == 0);
                bool right = co_holds(v, names[i][2]);
                co_volume_close(v);
                expect(s, right);
        }
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static int with_a_checkpoint(struct sim_pool *s)
{
        return 0;
}

static void a_deleted_snapshot_is_gone_after_a_crash(void **state)
{
        for (uint64_t seed = 1; seed <= 8; seed++) {
                sim_pool_run(2, seed, co_crashed);
                sim_pool_run_each(2, seed, co_crashed, with_a_checkpoint);
        }
}

/* ---- what cannot be collected at once ---- */

static unsigned n_left; /* until the pool is opened again */

static void count_left(enum log_level level, const char *message)
{
        n_left += strstr(message, "is freed when the pool is opened again") != NULL;
}

/* A snapshot is deleted while the volume, which takes over what it holds, cannot be read: it is gone
 * all the same, at once and after a restart, and its space comes back then. */
static void co_cannot_collect(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_READ), .error = -EIO};
        struct volume *snapshot;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", N_BLOCKS * POOL_BLOCK, NULL) == 0);
        expect(s, co_letters(s, "v", 'a') == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_letters(s, "v", 'b') == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v@s", &snapshot, NULL) == 0); /* so that it is read */
        co_volume_close(snapshot);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_snapshot_delete(s->pool, "v@s", NULL) == 0);
        expect(s, n_left == 1);
        sim_disk_clear_faults(s->disk[0]);
        expect(s, co_volume_open(s->pool, "v@s", &snapshot, NULL) == -ENOENT);
        if (s->each(s) < 0)
                return;
        expect(s, co_volume_open(s->pool, "v@s", &snapshot, NULL) == -ENOENT);
        expect(s, co_used_blocks(s) == N_BLOCKS);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static int co_closed_and_opened(struct sim_pool *s)
{
        int r = co_sim_pool_close(s);
        return r ? r : co_sim_pool_open(s, false);
}

static int co_crashed_and_opened(struct sim_pool *s)
{
        co_sim_pool_crash(s);
        return co_sim_pool_open(s, false);
}

static void a_deletion_has_succeeded_though_what_it_frees_cannot_be_collected_yet(void **state)
{
        log_set_sink(count_left);
        n_left = 0;
        sim_pool_run_each(1, 1, co_cannot_collect, co_closed_and_opened);
        n_left = 0;
        sim_pool_run_each(1, 1, co_cannot_collect, co_crashed_and_opened);
        log_set_sink(NULL);
}

/* ---- blocks that are being read ---- */

struct reading {
        struct sim_pool *s;
        struct volume *v;
        struct co *waiter;
        char *data;
        int result;
        bool done;
};

static void reading_main(void *arg)
{
        struct reading *r = arg;
        r->result = co_volume_read(r->v, r->data, POOL_BLOCK, 0);
        r->done = true;
        co_wake(r->waiter);
}

/* A read goes straight into its caller's memory. Somebody else's data must never lie there, also not
 * until the checksum is looked at. */
static void co_read_slowly(void *arg)
{
        struct sim_pool *s = arg;
        struct reading r = {.s = s, .waiter = co_self(), .data = page_alloc()};
        expect(s, r.data && co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", N_BLOCKS * POOL_BLOCK, NULL) == 0);
        expect(s, co_volume_create(s->pool, "w", POOL_BLOCK, NULL) == 0);
        expect(s, co_letters(s, "v", 'a') == 0);
        expect(s, co_sim_pool_write(s, "w", 0, 1) == 0); /* so that "v" need not begin a slab */
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &r.v, NULL) == 0);
        uint64_t free_blocks = s->pool->data_free;

        sim_disk_set_latency(s->disk[0], UINT64_C(1000000000), UINT64_C(1000000000));
        expect(s, co_spawn(s->loop, reading_main, &r) == 0);
        co_yield_loop();
        sim_disk_set_latency(s->disk[0], 20000, 200000);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        for (unsigned i = 0; i < 3; i++)
                expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, !r.done && s->pool->data_free == free_blocks - 1);
        while (!r.done)
                co_suspend();
        expect(s, r.result == 0);
        expect(s, s->pool->data_free == free_blocks);
        co_volume_close(r.v);
        free(r.data);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_block_that_is_being_read_is_not_given_to_a_write(void **state)
{
        sim_pool_run(1, 1, co_read_slowly);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_deleted_snapshot_is_kept_while_it_is_open),
            cmocka_unit_test(an_open_snapshot_outlives_its_volume),
            cmocka_unit_test(a_deleted_snapshot_is_gone_after_a_crash),
            cmocka_unit_test(a_deletion_has_succeeded_though_what_it_frees_cannot_be_collected_yet),
            cmocka_unit_test(a_block_that_is_being_read_is_not_given_to_a_write),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
