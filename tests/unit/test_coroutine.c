/* Coroutines: waiting and waking, operations, queues, locks; on both back ends. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/coroutine.h"
#include "common/loop_thread.h"
#include "common/sanitizers.h"
#include "tests/unit/loop_fixture.h"

/* More than a loop keeps for reuse. ThreadSanitizer takes milliseconds to make a fiber. */
enum { CROWD = 5000, CROWD_UNDER_TSAN = 300 };
#define N_CROWD (WITH_TSAN ? CROWD_UNDER_TSAN : CROWD)

static char trace[256];

static void say(const char *what)
{
        assert_true(strlen(trace) + strlen(what) < sizeof(trace));
        strcat(trace, what);
}

/* Run @entry as the main coroutine of the test's loop. */
static void run(void **state, co_entry *entry, void *arg)
{
        trace[0] = '\0';
        assert_int_equal(co_run(*state, entry, arg), 0);
        assert_null(co_self());
}

static void sleeping_child(void *arg)
{
        say("b");
        co_sleep_ns(1000);
        say("d");
        *(bool *)arg = true;
}

static void spawns(void *arg)
{
        bool done = false;
        struct co *self = co_self();

        say("a");
        assert_int_equal(co_spawn(co_loop(), sleeping_child, &done), 0);
        assert_ptr_equal(co_self(), self);
        say("c");
        while (!done)
                co_yield_loop();
        say("e");
}

static void a_coroutine_runs_at_once_until_it_suspends(void **state)
{
        run(state, spawns, NULL);
        assert_string_equal(trace, "abcde");
}

static void does_nothing(void *arg)
{
        (*(int *)arg)++;
}

static void one_that_never_suspends_ends_co_run(void **state)
{
        int count = 0;

        for (int i = 0; i < 3; i++)
                run(state, does_nothing, &count);
        assert_int_equal(count, 3);
}

/* Suspend and wake */

struct sleeper {
        struct co *co;
        int wakes;
        bool ended;
};

static void suspends_twice(void *arg)
{
        struct sleeper *s = arg;

        s->co = co_self();
        co_suspend();
        s->wakes++;
        co_suspend();
        s->wakes++;
        s->ended = true;
}

static void yield_some(void)
{
        for (int i = 0; i < 5; i++)
                co_yield_loop();
}

static void wakes_a_sleeper(void *arg)
{
        struct sleeper s = {0};

        co_spawn(co_loop(), suspends_twice, &s);
        yield_some();
        assert_int_equal(s.wakes, 0);
        co_wake(s.co);
        assert_int_equal(s.wakes, 0); /* posted, not switched to at once */
        yield_some();
        assert_int_equal(s.wakes, 1);
        co_wake(s.co);
        yield_some();
        assert_true(s.ended);
}

static void a_wake_lets_a_suspended_one_go_on(void **state)
{
        run(state, wakes_a_sleeper, NULL);
}

static void wakes_itself_first(void *arg)
{
        struct co **co = arg;

        *co = co_self();
        co_wake(co_self());
        co_wake(co_self());
        co_suspend();
        say("a");
        co_suspend();
        say("b");
}

static void checks_remembered_once(void *arg)
{
        struct co *co;

        co_spawn(co_loop(), wakes_itself_first, &co);
        yield_some();
        assert_string_equal(trace, "a");
        co_wake(co);
        yield_some();
        assert_string_equal(trace, "ab");
}

static void a_wake_that_comes_first_is_remembered_once(void **state)
{
        run(state, checks_remembered_once, NULL);
}

static void sleeps_then_suspends(void *arg)
{
        struct sleeper *s = arg;
        uint64_t until = loop_now_ns(co_loop()) + 2000000;

        s->co = co_self();
        co_sleep_ns(2000000);
        assert_true(loop_now_ns(co_loop()) >= until);
        s->wakes++;
        co_suspend();
        s->ended = true;
}

static void wakes_during_sleep(void *arg)
{
        struct sleeper s = {0};

        co_spawn(co_loop(), sleeps_then_suspends, &s);
        co_wake(s.co);
        while (s.wakes == 0)
                co_yield_loop();
        yield_some();
        assert_true(s.ended);
}

static void a_wake_neither_cuts_a_sleep_short_nor_is_lost_in_it(void **state)
{
        run(state, wakes_during_sleep, NULL);
}

/* Operations */

struct receiver {
        int fd;
        struct loop_io *io;
        int result;
        bool ended;
};

static void receives(void *arg)
{
        struct receiver *r = arg;
        char buffer[16];
        struct iovec iov = {buffer, sizeof(buffer)};
        struct loop_io io = {.op = LOOP_RECV, .fd = r->fd, .iov = &iov, .n_iov = 1};

        r->io = &io;
        r->result = co_io(&io);
        r->ended = true;
}

static void awaits_and_cancels_io(void *arg)
{
        struct receiver r[2] = {{0}};
        int sv[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
        r[0].fd = sv[0];
        r[1].fd = sv[1];
        co_spawn(co_loop(), receives, &r[0]);
        co_spawn(co_loop(), receives, &r[1]);
        yield_some();
        assert_false(r[0].ended || r[1].ended);
        assert_int_equal(write(sv[1], "tarn", 4), 4);
        loop_cancel(co_loop(), r[1].io);
        while (!r[0].ended || !r[1].ended)
                co_yield_loop();
        assert_int_equal(r[0].result, 4);
        assert_int_equal(r[1].result, -ECANCELED);
        close(sv[0]);
        close(sv[1]);
}

static void co_io_gives_the_result_and_can_be_cancelled(void **state)
{
        run(state, awaits_and_cancels_io, NULL);
}

/* Queues and locks */

struct queuer {
        struct co_queue *queue;
        const char *name;
};

static void queues(void *arg)
{
        struct queuer *q = arg;

        co_wait(q->queue);
        say(q->name);
}

static void wakes_queue(void *arg)
{
        struct co_queue queue;
        struct queuer q[4] = {{&queue, "a"}, {&queue, "b"}, {&queue, "c"}, {&queue, "d"}};

        co_queue_init(&queue);
        co_wake_one(&queue); /* of nobody */
        co_wake_all(&queue);
        for (int i = 0; i < 4; i++)
                co_spawn(co_loop(), queues, &q[i]);
        yield_some();
        assert_string_equal(trace, "");
        co_wake_one(&queue);
        yield_some();
        assert_string_equal(trace, "a");
        co_wake_one(&queue);
        co_wake_all(&queue);
        assert_true(co_queue_empty(&queue));
        yield_some();
        assert_string_equal(trace, "abcd");
}

static void a_queue_wakes_in_the_order_of_arrival(void **state)
{
        run(state, wakes_queue, NULL);
}

struct locker {
        struct co_mutex *mutex;
        int *inside, *turns;
        int last_turn, max_gap, rounds, *running;
};

static void locks_often(void *arg)
{
        struct locker *l = arg;

        for (int i = 0; i < l->rounds; i++) {
                int turn;

                co_lock(l->mutex);
                assert_int_equal((*l->inside)++, 0);
                turn = (*l->turns)++;
                if (i > 0 && turn - l->last_turn > l->max_gap)
                        l->max_gap = turn - l->last_turn;
                l->last_turn = turn;
                co_yield_loop();
                assert_int_equal(--(*l->inside), 0);
                co_unlock(l->mutex);
        }
        --*l->running;
}

static void fights_for_lock(void *arg)
{
        enum { N = 10 };
        struct locker lockers[N];
        struct co_mutex mutex;
        int inside = 0, turns = 0, running = N;

        co_mutex_init(&mutex);
        for (int i = 0; i < N; i++) {
                lockers[i] = (struct locker){.mutex = &mutex,
                                             .inside = &inside,
                                             .turns = &turns,
                                             .rounds = 50,
                                             .running = &running};
                co_spawn(co_loop(), locks_often, &lockers[i]);
        }
        while (running > 0)
                co_yield_loop();
        assert_int_equal(turns, N * 50);
        assert_false(mutex.held);
        for (int i = 0; i < N; i++)
                assert_true(lockers[i].max_gap <= N);
}

static void a_mutex_lets_in_one_at_a_time_and_everyone_in_turn(void **state)
{
        run(state, fights_for_lock, NULL);
}

/* Many */

struct crowd {
        unsigned left;
        uint64_t sum;
};

struct member_of_crowd {
        struct crowd *crowd;
        unsigned number;
};

/* Uses some stack, so that a mix-up of stacks shows. */
static void sleeps_in_crowd(void *arg)
{
        struct member_of_crowd *m = arg;
        volatile unsigned local[256];

        for (unsigned i = 0; i < 256; i++)
                local[i] = m->number + i;
        co_sleep_ns(m->number * UINT64_C(7919) % 3000000);
        co_yield_loop();
        for (unsigned i = 0; i < 256; i++)
                assert_int_equal(local[i], m->number + i);
        m->crowd->sum += m->number;
        m->crowd->left--;
}

static void spawns_crowd(void *arg)
{
        enum { N = N_CROWD };
        struct member_of_crowd *members = calloc(N, sizeof(*members));

        for (int pass = 0; pass < 2; pass++) {
                struct crowd crowd = {.left = N};

                for (unsigned i = 0; i < N; i++) {
                        members[i] = (struct member_of_crowd){&crowd, i};
                        assert_int_equal(co_spawn(co_loop(), sleeps_in_crowd, &members[i]), 0);
                }
                while (crowd.left > 0)
                        co_sleep_ns(100000);
                assert_int_equal(crowd.sum, (uint64_t)N * (N - 1) / 2);
        }
        free(members);
}

static void thousands_at_once_keep_their_stacks_apart(void **state)
{
        struct loop *loop = *state;

        run(state, spawns_crowd, NULL);
        assert_true(loop->n_idle_coroutines > 0 && loop->n_idle_coroutines <= 256);
}

static void spawns_in_turn(void *arg)
{
        int count = 0;

        for (int i = 0; i < 1000; i++)
                co_spawn(co_loop(), does_nothing, &count);
        assert_int_equal(count, 1000);
}

static void ended_ones_give_their_stacks_to_the_next(void **state)
{
        struct loop *loop = *state;

        run(state, spawns_in_turn, NULL);
        assert_int_equal(loop->n_idle_coroutines, 2);
}

static void descends(void *arg)
{
        int *depth = arg;

        if (--*depth > 0)
                co_spawn(co_loop(), descends, depth);
        co_yield_loop();
        ++*depth;
}

static void spawns_nested(void *arg)
{
        int depth = 100;

        co_spawn(co_loop(), descends, &depth);
        assert_int_equal(depth, 0);
        while (depth < 100)
                co_yield_loop();
}

static void coroutines_may_spawn_coroutines_deeply(void **state)
{
        run(state, spawns_nested, NULL);
}

/* The page below a stack ends the process before it writes into somebody else's memory. */
static unsigned descend_deeply(volatile unsigned depth)
{
        volatile char frame[1024];

        if (depth == 100000) /* 100 MB */
                return 0;
        frame[0] = (char)depth;
        return descend_deeply(depth + 1) + (unsigned)frame[0];
}

static void overflows(void *arg)
{
        *(unsigned *)arg = descend_deeply(0);
}

static void an_overflow_of_the_stack_ends_the_process(void **state)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                unsigned depth;

                close(STDERR_FILENO); /* what a sanitizer has to say */
                prctl(PR_SET_DUMPABLE, 0);
                co_run(*state, overflows, &depth);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

/* Threads: each with its own loop and its own coroutines. */

static void *thread_main(void *arg)
{
        struct loop *loop;

        if (loop_new(fixture_backend, &loop, NULL) < 0)
                return (void *)1;
        if (co_run(loop, spawns_nested, NULL) < 0)
                return (void *)1;
        loop_free(loop);
        return NULL;
}

static void loops_in_threads_do_not_disturb_each_other(void **state)
{
        pthread_t threads[4];

        for (int i = 0; i < 4; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, thread_main, NULL), 0);
        for (int i = 0; i < 4; i++) {
                void *result;

                pthread_join(threads[i], &result);
                assert_null(result);
        }
}

/* Coroutines that move between the test's loop and that of a thread. */

enum { MOVERS = 8, MOVES = 200 };

struct mover {
        struct loop *here, *there;
        pid_t main_thread; /* not pthread_self(): compilers take it for a constant */
        unsigned *n_ended;
        bool failed;
};

static void moves_to_and_fro(void *arg)
{
        struct mover *m = arg;

        for (int i = 0; i < MOVES; i++) {
                struct loop *from = co_move(m->there);

                m->failed |= from != m->here || co_loop() != m->there;
                m->failed |= gettid() == m->main_thread;
                if (i % 16 == 0)
                        co_sleep_ns(1000); /* it is a coroutine like any other there */
                m->failed |= co_move(m->there) != m->there;
                m->failed |= co_move(m->here) != m->there || co_loop() != m->here;
                m->failed |= gettid() != m->main_thread;
        }
        if (++*m->n_ended == MOVERS)
                loop_stop(m->here);
}

static void coroutines_move_between_loops(void **state)
{
        struct loop_thread *thread;
        struct mover movers[MOVERS];
        unsigned n_ended = 0;

        setenv("TARN_LOOP", fixture_backend == LOOP_BACKEND_URING ? "uring" : "threads", 1);
        assert_int_equal(loop_thread_start("a name beyond 15", &thread, NULL), 0);
        unsetenv("TARN_LOOP");
        for (int i = 0; i < MOVERS; i++) {
                movers[i] = (struct mover){.here = *state,
                                           .there = loop_thread_loop(thread),
                                           .main_thread = gettid(),
                                           .n_ended = &n_ended};
                assert_int_equal(co_spawn(*state, moves_to_and_fro, &movers[i]), 0);
        }
        loop_run(*state);
        loop_thread_stop(thread);
        for (int i = 0; i < MOVERS; i++)
                assert_false(movers[i].failed);
}

struct ender {
        struct loop *here, *there;
        struct loop_task stop;
};

static void stop_here(struct loop_task *task)
{
        loop_stop(container_of(task, struct ender, stop)->here);
}

static void ends_elsewhere(void *arg)
{
        struct ender *e = arg;

        co_move(e->there);
        loop_post_remote(e->here, &e->stop);
}

static void one_may_end_on_another_loop(void **state)
{
        struct ender e = {.here = *state, .stop.run = stop_here};
        struct loop_thread *thread;

        assert_int_equal(loop_thread_start("ends", &thread, NULL), 0);
        e.there = loop_thread_loop(thread);
        assert_int_equal(co_spawn(*state, ends_elsewhere, &e), 0);
        loop_run(*state);
        loop_thread_stop(thread);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(a_coroutine_runs_at_once_until_it_suspends),
            loop_test(one_that_never_suspends_ends_co_run),
            loop_test(a_wake_lets_a_suspended_one_go_on),
            loop_test(a_wake_that_comes_first_is_remembered_once),
            loop_test(a_wake_neither_cuts_a_sleep_short_nor_is_lost_in_it),
            loop_test(co_io_gives_the_result_and_can_be_cancelled),
            loop_test(a_queue_wakes_in_the_order_of_arrival),
            loop_test(a_mutex_lets_in_one_at_a_time_and_everyone_in_turn),
            loop_test(thousands_at_once_keep_their_stacks_apart),
            loop_test(ended_ones_give_their_stacks_to_the_next),
            loop_test(coroutines_may_spawn_coroutines_deeply),
            loop_test(an_overflow_of_the_stack_ends_the_process),
            loop_test(loops_in_threads_do_not_disturb_each_other),
            loop_test(coroutines_move_between_loops),
            loop_test(one_may_end_on_another_loop),
        };

        return run_on_each_backend(tests);
}
