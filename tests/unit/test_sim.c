/* test_sim.c - the simulator's clock and images. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/coroutine.h"
#include "tests/sim/sim_image.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_random.h"

#define DISK_BYTES (UINT64_C(64) << 20)
#define PAGE       4096u

/* ---- the loop ---- */

struct step {
        struct loop_task task;
        struct loop_timer timer;
        struct loop *loop;
        int *log, *n;
        int name;
        bool stops;
};

static void step_log(struct step *s)
{
        s->log[(*s->n)++] = s->name;
        if (s->stops)
                loop_stop(s->loop);
}

static void step_task(struct loop_task *task)
{
        step_log(container_of(task, struct step, task));
}

static void step_timer(struct loop_timer *timer)
{
        step_log(container_of(timer, struct step, timer));
}

static struct loop *new_loop(uint64_t seed, bool shuffle)
{
        struct loop *loop;

        assert_int_equal(sim_loop_new(seed, shuffle, &loop), 0);
        return loop;
}

#define STEPS 16
static void make_steps(struct step *steps, struct loop *loop, int *log, int *n)
{
        *n = 0;
        for (int i = 0; i < STEPS; i++)
                steps[i] = (struct step){.task.run = step_task,
                                         .timer.fire = step_timer,
                                         .loop = loop,
                                         .log = log,
                                         .n = n,
                                         .name = i};
}

static void test_time_jumps_to_the_next_timer(void **state)
{
        struct loop *loop = new_loop(1, false);
        struct step s[STEPS];
        int log[STEPS], n;
        uint64_t start_ns = loop_now_ns(loop);

        make_steps(s, loop, log, &n);
        loop_timer_set(loop, &s[2].timer, start_ns + 3600 * UINT64_C(1000000000));
        loop_timer_set(loop, &s[1].timer, start_ns + 5);
        loop_timer_set(loop, &s[3].timer, start_ns + 7);
        loop_timer_cancel(loop, &s[3].timer);
        loop_timer_cancel(loop, &s[4].timer);
        loop_post(loop, &s[0].task);
        loop_run(loop);
        assert_int_equal(sim_loop_end(loop), SIM_LOOP_IDLE);
        assert_int_equal(n, 3);
        for (int i = 0; i < 3; i++)
                assert_int_equal(log[i], i);
        assert_int_equal(loop_now_ns(loop) - start_ns, 3600 * UINT64_C(1000000000));
        loop_free(loop);
}

static void test_moved_timer_fires_once_at_its_new_time(void **state)
{
        struct loop *loop = new_loop(1, false);
        struct step s[STEPS];
        int log[STEPS], n;
        uint64_t now_ns = loop_now_ns(loop);

        make_steps(s, loop, log, &n);
        for (int i = 0; i < STEPS; i++)
                loop_timer_set(loop, &s[i].timer, now_ns + (uint64_t)(i * 7 % STEPS));
        for (int i = 0; i < STEPS; i++)
                loop_timer_set(loop, &s[i].timer, now_ns + (uint64_t)(STEPS - i));
        loop_run(loop);
        assert_int_equal(n, STEPS);
        for (int i = 0; i < STEPS; i++)
                assert_int_equal(log[i], STEPS - 1 - i);
        loop_free(loop);
}

static void equal_timers(uint64_t seed, bool shuffle, int *log)
{
        struct loop *loop = new_loop(seed, shuffle);
        struct step s[STEPS];
        int n;

        make_steps(s, loop, log, &n);
        for (int i = 0; i < STEPS; i++)
                loop_timer_set(loop, &s[i].timer, loop_now_ns(loop) + 10);
        loop_run(loop);
        assert_int_equal(n, STEPS);
        loop_free(loop);
}

static void test_equal_timers_keep_their_order_unless_shuffled_by_the_seed(void **state)
{
        int plain[STEPS], a[STEPS], again[STEPS], b[STEPS];

        equal_timers(1, false, plain);
        for (int i = 0; i < STEPS; i++)
                assert_int_equal(plain[i], i);
        equal_timers(1, true, a);
        equal_timers(1, true, again);
        equal_timers(2, true, b);
        assert_memory_equal(a, again, sizeof(a));
        assert_memory_not_equal(a, b, sizeof(a));
        assert_memory_not_equal(a, plain, sizeof(a));
}

static void test_posting_twice_runs_once_and_stop_ends_after_its_callback(void **state)
{
        struct loop *loop = new_loop(1, false);
        struct step s[STEPS];
        int log[STEPS], n;

        make_steps(s, loop, log, &n);
        s[0].stops = true;
        loop_post(loop, &s[0].task);
        loop_post_remote(loop, &s[1].task);
        loop_post(loop, &s[0].task);
        loop_run(loop);
        assert_int_equal(sim_loop_end(loop), SIM_LOOP_STOPPED);
        assert_int_equal(n, 1);
        loop_run(loop);
        assert_int_equal(sim_loop_end(loop), SIM_LOOP_IDLE);
        assert_int_equal(n, 2);
        loop_free(loop);
}

static void repost(struct loop_task *task)
{
        struct step *s = container_of(task, struct step, task);

        loop_post(s->loop, task);
}

static void test_livelock_ends_at_the_step_limit(void **state)
{
        struct loop *loop = new_loop(1, false);
        struct step s = {.task.run = repost, .loop = loop};

        sim_loop_set_step_limit(loop, 1000);
        loop_post(loop, &s.task);
        loop_run(loop);
        assert_int_equal(sim_loop_end(loop), SIM_LOOP_LIMIT);
        assert_int_equal(sim_loop_steps(loop), 1000);
        loop_free(loop);
}

static void sleep_a_day(void *arg)
{
        co_sleep_ns(86400 * UINT64_C(1000000000));
        *(bool *)arg = true;
}

static void wait_for_nobody(void *arg)
{
        struct co **self = arg;

        *self = co_self();
        co_suspend();
}

static void test_coroutine_that_nobody_wakes_is_a_deadlock(void **state)
{
        struct loop *loop = new_loop(1, false);
        struct co *stuck = NULL;
        bool ended = false;

        assert_int_equal(sim_loop_co_run(loop, sleep_a_day, &ended), 0);
        assert_true(ended);
        assert_int_equal(sim_loop_co_run(loop, wait_for_nobody, &stuck), -EDEADLK);
        /* For this test's own tidiness: let it end after all. */
        co_wake(stuck);
        loop_run(loop);
        loop_free(loop);
}

/* ---- images ---- */

static void fill(uint8_t *to, size_t length, uint64_t seed)
{
        struct sim_random r;

        sim_random_init(&r, seed);
        for (size_t i = 0; i < length; i++)
                to[i] = (uint8_t)sim_random_next(&r);
}

static void test_image_holds_what_was_written(void **state)
{
        enum { BYTES = 3 * 1024 * 1024 + 4096, ROUNDS = 3000 };
        struct sim_image *image = sim_image_new(BYTES);
        uint8_t *expected = calloc(1, BYTES), *got = malloc(BYTES);
        static uint8_t data[3 * PAGE];
        struct sim_random r;

        sim_random_init(&r, 7);
        for (unsigned i = 0; i < ROUNDS; i++) {
                uint64_t length = sim_random_below(&r, sizeof(data)) + 1;
                uint64_t offset = sim_random_below(&r, BYTES - length + 1);

                fill(data, length, i);
                if (i % 4 == 0) {
                        sim_image_zero(image, offset, length);
                        memset(expected + offset, 0, length);
                } else {
                        sim_image_write(image, offset, data, length);
                        memcpy(expected + offset, data, length);
                }
        }
        sim_image_read(image, 0, got, BYTES);
        assert_memory_equal(got, expected, BYTES);
        sim_image_zero(image, 0, BYTES);
        assert_int_equal(sim_image_used(image), 0);
        sim_image_free(image);
        free(expected);
        free(got);
}

static void test_clones_share_nothing_that_one_can_see_of_the_other(void **state)
{
        struct sim_image *a = sim_image_new(DISK_BYTES), *b, *c;
        uint8_t byte;

        sim_image_write(a, 5000, "a", 1);
        b = sim_image_clone(a);
        c = sim_image_clone(b);
        sim_image_write(b, 5000, "b", 1);
        sim_image_write(c, DISK_BYTES - 1, "c", 1);
        sim_image_read(a, 5000, &byte, 1);
        assert_int_equal(byte, 'a');
        sim_image_read(b, 5000, &byte, 1);
        assert_int_equal(byte, 'b');
        sim_image_read(a, DISK_BYTES - 1, &byte, 1);
        assert_int_equal(byte, 0);
        sim_image_free(a);
        sim_image_read(c, 5000, &byte, 1);
        assert_int_equal(byte, 'a');
        sim_image_read(c, DISK_BYTES - 1, &byte, 1);
        assert_int_equal(byte, 'c');
        sim_image_free(b);
        sim_image_free(c);
}

static void test_hash_is_of_the_content_only(void **state)
{
        struct sim_image *a = sim_image_new(DISK_BYTES), *b = sim_image_new(DISK_BYTES);

        assert_int_equal(sim_image_hash(a), sim_image_hash(b));
        sim_image_write(a, 100 * PAGE, "x", 1);
        assert_int_not_equal(sim_image_hash(a), sim_image_hash(b));
        sim_image_write(b, 100 * PAGE, "y", 1);
        sim_image_write(b, 200 * PAGE, "z", 1);
        sim_image_write(b, 100 * PAGE, "x", 1);
        assert_int_not_equal(sim_image_hash(a), sim_image_hash(b));
        sim_image_write(b, 200 * PAGE, "\0", 1);
        assert_int_equal(sim_image_hash(a), sim_image_hash(b));
        /* The same page elsewhere, in the same node and in another. */
        sim_image_zero(b, 100 * PAGE, PAGE);
        sim_image_write(b, 101 * PAGE, "x", 1);
        assert_int_not_equal(sim_image_hash(a), sim_image_hash(b));
        sim_image_zero(b, 101 * PAGE, PAGE);
        sim_image_write(b, (100 + 64) * PAGE, "x", 1);
        assert_int_not_equal(sim_image_hash(a), sim_image_hash(b));
        sim_image_free(a);
        sim_image_free(b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_time_jumps_to_the_next_timer),
            cmocka_unit_test(test_moved_timer_fires_once_at_its_new_time),
            cmocka_unit_test(test_equal_timers_keep_their_order_unless_shuffled_by_the_seed),
            cmocka_unit_test(test_posting_twice_runs_once_and_stop_ends_after_its_callback),
            cmocka_unit_test(test_livelock_ends_at_the_step_limit),
            cmocka_unit_test(test_coroutine_that_nobody_wakes_is_a_deadlock),
            cmocka_unit_test(test_image_holds_what_was_written),
            cmocka_unit_test(test_clones_share_nothing_that_one_can_see_of_the_other),
            cmocka_unit_test(test_hash_is_of_the_content_only),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
