/* The event loop: timers, tasks, stop, tasks from other threads; on both back ends. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "tests/unit/loop_fixture.h"

/* A timer or a task that writes down that it ran, and does what it is told. */
struct event {
        struct loop *loop;
        struct loop_timer timer;
        struct loop_task task;
        int name;
        int *trace, *n_trace;
        void (*then)(struct event *event);
        struct event *other;
        unsigned repeats;
};

static int trace[20000], n_trace;

static void happened(struct event *event)
{
        event->trace[(*event->n_trace)++] = event->name;
        if (event->then)
                event->then(event);
}

static void on_timer(struct loop_timer *timer)
{
        happened(container_of(timer, struct event, timer));
}

static void on_task(struct loop_task *task)
{
        happened(container_of(task, struct event, task));
}

static struct event event_make(struct loop *loop, int name, void (*then)(struct event *event))
{
        return (struct event){
            .loop = loop,
            .timer.fire = on_timer,
            .task.run = on_task,
            .name = name,
            .trace = trace,
            .n_trace = &n_trace,
            .then = then,
        };
}

static void stop(struct event *event)
{
        loop_stop(event->loop);
}

static void assert_trace(const int *expected, int n)
{
        assert_int_equal(n_trace, n);
        assert_memory_equal(trace, expected, (size_t)n * sizeof(int));
}
#define assert_happened(...)                                                                       \
        assert_trace((int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)))

static void next_iteration(struct event *event)
{
        if (event->repeats-- > 0)
                loop_timer_set(event->loop, &event->timer, 0);
        else
                loop_stop(event->loop);
}

/* Run fifty iterations: enough for all that a test posts, however slow the machine. */
static void run_some_iterations(struct loop *loop)
{
        struct event clock = event_make(loop, -1, next_iteration);
        int ignored[51], n_ignored = 0;

        clock.trace = ignored;
        clock.n_trace = &n_ignored;
        clock.repeats = 50;
        loop_timer_set(loop, &clock.timer, 0);
        loop_run(loop);
        loop_timer_cancel(loop, &clock.timer); /* something else may have stopped the loop */
}

static void timers_fire_by_deadline_and_equal_ones_in_the_order_armed(void **state)
{
        struct loop *loop = *state;
        uint64_t base = loop_now_ns(loop) + 1000000;
        struct event e[6];

        n_trace = 0;
        for (int i = 0; i < 6; i++)
                e[i] = event_make(loop, i, i == 5 ? stop : NULL);
        loop_timer_set(loop, &e[5].timer, base + 300);
        loop_timer_set(loop, &e[2].timer, base + 100);
        loop_timer_set(loop, &e[3].timer, base + 100);
        loop_timer_set(loop, &e[4].timer, base + 200);
        loop_timer_set(loop, &e[0].timer, 0);
        loop_timer_set(loop, &e[1].timer, base + 50);
        loop_run(loop);
        assert_happened(0, 1, 2, 3, 4, 5);
}

static void a_timer_never_fires_early(void **state)
{
        struct loop *loop = *state;
        uint64_t deadline = loop_now_ns(loop) + 3000000;
        struct event e = event_make(loop, 1, stop);

        n_trace = 0;
        loop_timer_set(loop, &e.timer, deadline);
        loop_run(loop);
        assert_true(loop_now_ns(loop) >= deadline);
        assert_happened(1);
}

static uint64_t times[4];

static void note_time(struct event *event)
{
        struct timespec wait = {.tv_nsec = 1000000};

        times[event->name] = loop_time_ns(event->loop);
        clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, NULL); /* a callback that takes its time */
        if (event->name == 3)
                loop_stop(event->loop);
        else if (event->name == 2)
                loop_timer_set(event->loop, &event->other->timer, 0);
}

static void the_time_stands_still_for_a_batch_and_goes_on_with_the_next(void **state)
{
        struct loop *loop = *state;
        struct event e[4];

        for (int i = 0; i < 4; i++)
                e[i] = event_make(loop, i, note_time);
        n_trace = 0;
        e[2].other = &e[3];
        for (int i = 0; i < 3; i++)
                loop_timer_set(loop, &e[i].timer, (uint64_t)i);
        loop_run(loop);
        assert_happened(0, 1, 2, 3);
        assert_int_equal(times[1], times[0]);
        assert_int_equal(times[2], times[0]);
        assert_true(times[3] >= times[0] + 3000000);
        assert_true(times[3] <= loop_now_ns(loop));
}

static void a_timer_can_be_moved_and_cancelled(void **state)
{
        struct loop *loop = *state;
        uint64_t base = loop_now_ns(loop);
        struct event e[4];

        n_trace = 0;
        for (int i = 0; i < 4; i++)
                e[i] = event_make(loop, i, i == 3 ? stop : NULL);
        loop_timer_cancel(loop, &e[0].timer); /* never armed */
        for (int i = 0; i < 4; i++)
                loop_timer_set(loop, &e[i].timer, base + 1000 + (uint64_t)i);
        loop_timer_set(loop, &e[0].timer, base + 2000000);
        loop_timer_set(loop, &e[3].timer, base + 3000000);
        loop_timer_cancel(loop, &e[1].timer);
        loop_timer_cancel(loop, &e[1].timer);
        loop_run(loop);
        assert_happened(2, 0, 3);
}

static void cancel_other(struct event *event)
{
        loop_timer_cancel(event->loop, &event->other->timer);
}

static void a_due_timer_cancelled_by_one_before_it_does_not_fire(void **state)
{
        struct loop *loop = *state;
        struct event first = event_make(loop, 1, cancel_other), second = event_make(loop, 2, NULL),
                     third = event_make(loop, 3, stop);

        n_trace = 0;
        first.other = &second;
        loop_timer_set(loop, &first.timer, 1);
        loop_timer_set(loop, &second.timer, 2);
        loop_timer_set(loop, &third.timer, 3);
        loop_run(loop);
        assert_happened(1, 3);
}

static int compare_u64(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static uint64_t random_next(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}

static void thousands_of_timers_armed_moved_and_cancelled_keep_their_order(void **state)
{
        enum { N = 10000 };
        struct loop *loop = *state;
        struct event *e = calloc(N, sizeof(*e)), last = event_make(loop, N, stop);
        uint64_t *expected = calloc(N, sizeof(*expected)), seed = 88172645463325252u;
        int n_expected = 0;

        n_trace = 0;
        for (int i = 0; i < N; i++) {
                e[i] = event_make(loop, i, NULL);
                loop_timer_set(loop, &e[i].timer, 1 + random_next(&seed) % 1000);
        }
        for (int i = 0; i < N; i++) {
                uint64_t kind = random_next(&seed) % 4;

                if (kind == 0)
                        loop_timer_cancel(loop, &e[i].timer);
                else if (kind == 1)
                        loop_timer_set(loop, &e[i].timer, 1 + random_next(&seed) % 1000);
        }
        for (int i = 0; i < N; i++)
                if (e[i].timer.state == LOOP_TIMER_ARMED)
                        expected[n_expected++] = e[i].timer.deadline_ns << 32 | e[i].timer.order;
        qsort(expected, (size_t)n_expected, sizeof(*expected), compare_u64);
        loop_timer_set(loop, &last.timer, 2000);
        loop_run(loop);
        assert_int_equal(n_trace, n_expected + 1);
        for (int i = 0; i < n_expected; i++) {
                const struct loop_timer *fired = &e[trace[i]].timer;

                assert_int_equal(fired->deadline_ns << 32 | fired->order, expected[i]);
        }
        free(expected);
        free(e);
}

static void tasks_run_in_the_order_posted_and_once(void **state)
{
        struct loop *loop = *state;
        struct event a = event_make(loop, 1, NULL), b = event_make(loop, 2, NULL),
                     c = event_make(loop, 3, stop);

        n_trace = 0;
        loop_post(loop, &a.task);
        loop_post(loop, &b.task);
        loop_post(loop, &a.task);
        loop_post(loop, &c.task);
        assert_int_equal(n_trace, 0); /* never from inside loop_post() */
        loop_run(loop);
        assert_happened(1, 2, 3);
}

static void post_self_while_repeats(struct event *event)
{
        if (event->repeats-- > 0)
                loop_post(event->loop, &event->task);
}

static void a_task_may_post_itself(void **state)
{
        struct loop *loop = *state;
        struct event e = event_make(loop, 1, post_self_while_repeats);

        n_trace = 0;
        e.repeats = 99;
        loop_post(loop, &e.task);
        run_some_iterations(loop);
        assert_int_equal(n_trace, 100);
}

static void stop_on_recv(struct loop_io *io, int result)
{
        assert_int_equal(result, 1);
        loop_stop((struct loop *)(uintptr_t)io->offset);
}

static void post_self(struct event *event)
{
        *event->n_trace = 0;
        loop_post(event->loop, &event->task);
}

static void tasks_that_post_themselves_starve_neither_io_nor_timers(void **state)
{
        struct loop *loop = *state;
        struct event e = event_make(loop, 1, post_self), t = event_make(loop, 2, stop);
        char byte;
        struct iovec iov = {&byte, 1};
        struct loop_io io = {
            .op = LOOP_RECV,
            .iov = &iov,
            .n_iov = 1,
            .done = stop_on_recv,
            .offset = (uintptr_t)loop,
        };
        int sv[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
        io.fd = sv[0];
        loop_submit(loop, &io);
        loop_post(loop, &e.task);
        loop_timer_set(loop, &t.timer, loop_now_ns(loop) + 1000000);
        loop_run(loop); /* ended by the timer */
        assert_int_equal(write(sv[1], "x", 1), 1);
        loop_run(loop); /* ended by the byte */
        assert_int_equal(byte, 'x');
        close(sv[0]);
        close(sv[1]);
}

static void rearm_now(struct event *event)
{
        *event->n_trace = 0;
        if (event->repeats-- > 0)
                loop_timer_set(event->loop, &event->timer, 0);
        else
                loop_stop(event->loop);
}

static void a_timer_that_is_always_due_does_not_starve_tasks(void **state)
{
        struct loop *loop = *state;
        struct event t = event_make(loop, 1, rearm_now), e = event_make(loop, 2, stop);

        t.repeats = 1000000;
        loop_timer_set(loop, &t.timer, 0);
        loop_post(loop, &e.task);
        loop_run(loop);
        assert_true(t.repeats > 999000);
        loop_timer_cancel(loop, &t.timer);
}

static void stop_leaves_what_is_queued_for_the_next_run(void **state)
{
        struct loop *loop = *state;
        struct event a = event_make(loop, 1, stop), b = event_make(loop, 2, NULL),
                     c = event_make(loop, 3, stop), t = event_make(loop, 4, stop),
                     u = event_make(loop, 5, NULL);

        n_trace = 0;
        loop_post(loop, &a.task);
        loop_post(loop, &b.task);
        loop_post(loop, &c.task);
        loop_run(loop);
        assert_happened(1);
        loop_run(loop);
        assert_happened(1, 2, 3);
        loop_timer_set(loop, &t.timer, 1);
        loop_timer_set(loop, &u.timer, 2);
        loop_run(loop);
        assert_happened(1, 2, 3, 4);
        run_some_iterations(loop);
        assert_happened(1, 2, 3, 4, 5);
}

static void a_stop_before_the_run_ends_it_at_once(void **state)
{
        struct loop *loop = *state;

        loop_stop(loop);
        loop_run(loop);
}

/* Tasks from other threads */

enum { N_POSTERS = 4, N_POSTS = 5000 };

struct remote {
        struct loop_task task;
        struct poster *poster;
        int number;
};

struct poster {
        pthread_t thread;
        struct loop *loop;
        struct remote *remotes;
        int next_expected;
        int *n_left;
        bool in_order;
};

static void on_remote(struct loop_task *task)
{
        struct remote *remote = container_of(task, struct remote, task);
        struct poster *poster = remote->poster;

        if (remote->number != poster->next_expected++)
                poster->in_order = false;
        if (--*poster->n_left == 0)
                loop_stop(poster->loop);
}

static void *post_all(void *arg)
{
        struct poster *poster = arg;

        for (int i = 0; i < N_POSTS; i++) {
                loop_post_remote(poster->loop, &poster->remotes[i].task);
                if (i % 100 == 0)
                        usleep(50); /* let the loop fall asleep now and then */
        }
        return NULL;
}

static void tasks_of_other_threads_all_arrive_in_each_threads_order(void **state)
{
        struct loop *loop = *state;
        struct poster posters[N_POSTERS];
        int n_left = N_POSTERS * N_POSTS;

        for (int p = 0; p < N_POSTERS; p++) {
                posters[p] = (struct poster){.loop = loop, .n_left = &n_left, .in_order = true};
                posters[p].remotes = calloc(N_POSTS, sizeof(struct remote));
                for (int i = 0; i < N_POSTS; i++)
                        posters[p].remotes[i] = (struct remote){
                            .task.run = on_remote, .poster = &posters[p], .number = i};
        }
        for (int p = 0; p < N_POSTERS; p++)
                assert_int_equal(pthread_create(&posters[p].thread, NULL, post_all, &posters[p]),
                                 0);
        loop_run(loop);
        for (int p = 0; p < N_POSTERS; p++) {
                pthread_join(posters[p].thread, NULL);
                assert_true(posters[p].in_order);
                free(posters[p].remotes);
        }
        assert_int_equal(n_left, 0);
}

/* One task posted again and again by two threads at once: a post may find it queued, but what was
 * written before the last post must be seen by a run after it. */
struct signal {
        struct loop_task task;
        struct loop *loop;
        _Atomic int written[2];
        int seen[2];
};

static void on_signal(struct loop_task *task)
{
        struct signal *s = container_of(task, struct signal, task);

        for (int i = 0; i < 2; i++)
                s->seen[i] = atomic_load_explicit(&s->written[i], memory_order_relaxed);
        if (s->seen[0] == N_POSTS && s->seen[1] == N_POSTS)
                loop_stop(s->loop);
}

struct signaller {
        struct signal *signal;
        int index;
};

static void *signal_often(void *arg)
{
        struct signaller *s = arg;

        for (int i = 1; i <= N_POSTS; i++) {
                atomic_store_explicit(&s->signal->written[s->index], i, memory_order_relaxed);
                loop_post_remote(s->signal->loop, &s->signal->task);
        }
        return NULL;
}

static void a_task_posted_by_many_is_seen_after_the_last_post(void **state)
{
        for (int round = 0; round < 20; round++) {
                struct signal s = {.task.run = on_signal, .loop = *state};
                struct signaller one = {&s, 0}, two = {&s, 1};
                pthread_t a, b;

                assert_int_equal(pthread_create(&a, NULL, signal_often, &one), 0);
                assert_int_equal(pthread_create(&b, NULL, signal_often, &two), 0);
                loop_run(*state); /* hangs where a post is lost */
                pthread_join(a, NULL);
                pthread_join(b, NULL);
                run_some_iterations(*state); /* the last posts may be still on their way */
        }
}

static void a_name_in_the_environment_chooses_the_back_end(void **state)
{
        struct error err = ERROR_INIT;
        struct loop *loop = NULL;

        setenv("TARN_LOOP", "magic", 1);
        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &loop, &err), -EINVAL);
        assert_string_equal(err.message, "TARN_LOOP is 'magic', but must be 'uring' or 'threads'");
        assert_null(loop);
        setenv("TARN_LOOP", "threads", 1);
        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &loop, &err), 0);
        loop_free(loop);
        unsetenv("TARN_LOOP");
        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &loop, &err), 0);
        loop_free(loop);
        loop_free(NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(timers_fire_by_deadline_and_equal_ones_in_the_order_armed),
            loop_test(a_timer_never_fires_early),
            loop_test(the_time_stands_still_for_a_batch_and_goes_on_with_the_next),
            loop_test(a_timer_can_be_moved_and_cancelled),
            loop_test(a_due_timer_cancelled_by_one_before_it_does_not_fire),
            loop_test(thousands_of_timers_armed_moved_and_cancelled_keep_their_order),
            loop_test(tasks_run_in_the_order_posted_and_once),
            loop_test(a_task_may_post_itself),
            loop_test(tasks_that_post_themselves_starve_neither_io_nor_timers),
            loop_test(a_timer_that_is_always_due_does_not_starve_tasks),
            loop_test(stop_leaves_what_is_queued_for_the_next_run),
            loop_test(a_stop_before_the_run_ends_it_at_once),
            loop_test(tasks_of_other_threads_all_arrive_in_each_threads_order),
            loop_test(a_task_posted_by_many_is_seen_after_the_last_post),
            cmocka_unit_test(a_name_in_the_environment_chooses_the_back_end),
        };

        return run_on_each_backend(tests);
}
