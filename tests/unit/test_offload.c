/* test_offload.c - work in other threads: beside the loop and beside other work, and in the loop's own
 * thread where there is no other. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include "common/coroutine.h"
#include "common/loop_thread.h"
#include "common/offload.h"
#include "tests/unit/loop_fixture.h"

enum { LOOPS = 3, COROUTINES = 8, ROUNDS = 50 };

static atomic_bool no_threads;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg)
{
        return no_threads ? EAGAIN : __real_pthread_create(thread, attr, start, arg);
}

/* Coroutines under test fail by a count: cmocka's jump out of one would leave its stack. */
struct test {
        struct loop *loop;
        struct offload *offload;
        unsigned n_running, n_wrong;
        struct co *waiter;
        struct test *above; /* which waits for this one */
};

#define must(condition) ((condition) ? (void)0 : must_failed(t, #condition, __LINE__))

static void must_failed(struct test *t, const char *what, int line)
{
        fprintf(stderr, "line %d: %s\n", line, what);
        t->n_wrong++;
}

static void run(struct test *t, co_entry *co_test)
{
        assert_int_equal(co_run(t->loop, co_test, t), 0);
        offload_free(t->offload);
        assert_int_equal(t->n_wrong, 0);
}

static void tell_thread(void *arg)
{
        *(pthread_t *)arg = pthread_self();
}

static bool elsewhere(struct offload *offload)
{
        pthread_t thread = pthread_self();

        co_offload(offload, tell_thread, &thread);
        return !pthread_equal(thread, pthread_self());
}

/* ---- where ---- */

static void co_where(void *arg)
{
        struct test *t = arg;

        must(elsewhere(t->offload));
        must(co_loop() == t->loop);
        must(!elsewhere(NULL));
}

static void work_runs_in_another_thread(void **state)
{
        run(&(struct test){.loop = *state, .offload = offload_new(1)}, co_where);
        run(&(struct test){.loop = *state, .offload = offload_new(0)}, co_where);
}

static void co_here(void *arg)
{
        struct test *t = arg;

        no_threads = true;
        must(!elsewhere(t->offload));
        no_threads = false;
        /* The next work tries anew. */
        must(elsewhere(t->offload));
        no_threads = true;
        must(elsewhere(t->offload));
        no_threads = false;
}

static void work_runs_here_where_no_thread_can_be_started(void **state)
{
        run(&(struct test){.loop = *state, .offload = offload_new(2)}, co_here);
}

static void no_work_needs_no_thread(void **state)
{
        no_threads = true;
        offload_free(offload_new(4));
        no_threads = false;
        offload_free(NULL);
}

static void ask_signals(void *arg)
{
        pthread_sigmask(SIG_SETMASK, NULL, arg);
}

static void co_signals(void *arg)
{
        struct test *t = arg;
        sigset_t there, here;

        co_offload(t->offload, ask_signals, &there);
        pthread_sigmask(SIG_SETMASK, NULL, &here);
        must(sigismember(&there, SIGTERM) == 1 && sigismember(&there, SIGINT) == 1);
        must(sigismember(&there, SIGSEGV) == 0);
        must(sigismember(&here, SIGTERM) == 0);
}

static void threads_take_no_signals(void **state)
{
        run(&(struct test){.loop = *state, .offload = offload_new(1)}, co_signals);
}

/* ---- side by side ---- */

static void ended(struct test *t)
{
        if (--t->n_running == 0 && t->waiter)
                co_wake(t->waiter);
}

static void co_wait_all(struct test *t)
{
        t->waiter = co_self();
        while (t->n_running > 0)
                co_suspend();
}

static void spawn(struct test *t, co_entry *co)
{
        t->n_running++;
        must(co_spawn(co_loop(), co, t) == 0);
}

static pthread_barrier_t barrier;

static void meet(void *arg)
{
        pthread_barrier_wait(&barrier);
}

static void co_meet(void *arg)
{
        struct test *t = arg;

        co_offload(t->offload, meet, NULL);
        ended(t);
}

static void co_side_by_side(void *arg)
{
        struct test *t = arg;

        /* One thread is there already, and idle. */
        must(elsewhere(t->offload));
        for (int i = 0; i < 3; i++)
                spawn(t, co_meet);
        co_wait_all(t);
}

/* Each waits for the others: fewer threads, or a job behind one that could run beside it, would hang. */
static void as_many_works_as_threads_run_side_by_side(void **state)
{
        pthread_barrier_init(&barrier, NULL, 3);
        for (int i = 0; i < 20; i++)
                run(&(struct test){.loop = *state, .offload = offload_new(3)}, co_side_by_side);
        pthread_barrier_destroy(&barrier);
}

static atomic_int n_now, n_most, n_done;

static void count(void *arg)
{
        const struct timespec pause = {.tv_nsec = 200000};
        int now = ++n_now, most = n_most;

        while (now > most && !atomic_compare_exchange_weak(&n_most, &most, now))
                ;
        nanosleep(&pause, NULL);
        n_now--;
        n_done++;
}

static void co_count(void *arg)
{
        struct test *t = arg;

        co_offload(t->offload, count, NULL);
        ended(t);
}

static void co_crowd(void *arg)
{
        struct test *t = arg;

        for (int i = 0; i < 100; i++)
                spawn(t, co_count);
        co_wait_all(t);
}

static void no_more_threads_than_were_allowed(void **state)
{
        n_now = n_most = n_done = 0;
        run(&(struct test){.loop = *state, .offload = offload_new(2)}, co_crowd);
        assert_int_equal(n_done, 100);
        assert_int_equal(n_most, 2);
}

/* ---- the loop goes on ---- */

static atomic_bool let_go;

static void wait_for_loop(void *arg)
{
        const struct timespec pause = {.tv_nsec = 1000000};

        while (!let_go)
                nanosleep(&pause, NULL);
}

static void co_long(void *arg)
{
        struct test *t = arg;

        co_offload(t->offload, wait_for_loop, NULL);
        must(let_go);
        ended(t);
}

static void co_goes_on(void *arg)
{
        struct test *t = arg;

        let_go = false;
        spawn(t, co_long);
        for (int i = 0; i < 10; i++)
                co_sleep_ns(1000000);
        let_go = true;
        co_wait_all(t);
}

static void the_loop_goes_on_meanwhile(void **state)
{
        run(&(struct test){.loop = *state, .offload = offload_new(1)}, co_goes_on);
}

/* ---- several loops ---- */

struct sum {
        uint64_t from, result;
};

static void add_up(void *arg)
{
        struct sum *s = arg;

        for (uint64_t i = 0; i < 1000; i++)
                s->result += s->from + i;
}

static void co_adds(void *arg)
{
        struct test *t = arg;
        struct loop *loop = co_loop();
        pthread_t thread = pthread_self();

        for (uint64_t i = 0; i < ROUNDS; i++) {
                struct sum s = {.from = i};

                co_offload(t->offload, add_up, &s);
                must(s.result == 1000 * i + 499500);
                must(co_loop() == loop && pthread_equal(pthread_self(), thread));
        }
        ended(t);
}

static void co_on_another_loop(void *arg)
{
        struct test *t = arg;
        struct loop *home = co_move(t->loop);

        for (int i = 0; i < COROUTINES; i++)
                spawn(t, co_adds);
        co_wait_all(t);
        co_move(home);
        ended(t->above);
}

struct loops {
        struct test main, other[LOOPS];
};

static void co_loops(void *arg)
{
        struct test *t = arg;
        struct loops *all = container_of(t, struct loops, main);

        for (int i = 0; i < LOOPS; i++) {
                t->n_running++;
                must(co_spawn(co_loop(), co_on_another_loop, &all->other[i]) == 0);
        }
        co_wait_all(t);
}

static void one_offload_serves_several_loops(void **state)
{
        struct loop_thread *thread[LOOPS];
        struct loops all = {.main = {.loop = *state}};

        all.main.offload = offload_new(3);
        for (int i = 0; i < LOOPS; i++) {
                assert_int_equal(loop_thread_start("loop", &thread[i], NULL), 0);
                all.other[i] = (struct test){.loop = loop_thread_loop(thread[i]),
                                             .offload = all.main.offload,
                                             .above = &all.main};
        }
        assert_int_equal(co_run(*state, co_loops, &all.main), 0);
        offload_free(all.main.offload);
        for (int i = 0; i < LOOPS; i++) {
                loop_thread_stop(thread[i]);
                assert_int_equal(all.other[i].n_wrong, 0);
        }
        assert_int_equal(all.main.n_wrong, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(work_runs_in_another_thread),
            loop_test(work_runs_here_where_no_thread_can_be_started),
            loop_test(no_work_needs_no_thread),
            loop_test(threads_take_no_signals),
            loop_test(as_many_works_as_threads_run_side_by_side),
            loop_test(no_more_threads_than_were_allowed),
            loop_test(the_loop_goes_on_meanwhile),
            loop_test(one_offload_serves_several_loops),
        };

        return run_on_each_backend(tests);
}
