/* loop_core.c - timers, tasks and the iteration, the same for every real back end. */
#include "common/loop_core.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Tasks that tasks post are run in the same iteration, so that what a chain of them submits leaves
 * in one system call; but only so many rounds, so that one that posts itself again and again cannot
 * keep I/O and timers waiting. */
#define TASK_ROUNDS_MAX 8

static struct loop_core *core_of(struct loop *loop)
{
        return container_of(loop, struct loop_core, loop);
}

int loop_core_init(struct loop_core *core, struct error *err)
{
        core->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (core->wake_fd < 0)
                return error_set(err, -errno, "cannot make an eventfd for an event loop: %s",
                                 strerror(errno));
        list_init(&core->loop.idle_coroutines);
        list_init(&core->due);
        list_init(&core->ended);
        core->tasks_end = &core->tasks;
        atomic_init(&core->remote, NULL);
        atomic_init(&core->sleeping, false);
        return 0;
}

void loop_core_fini(struct loop_core *core)
{
        if (core->wake_fd >= 0)
                close(core->wake_fd);
        core->wake_fd = -1;
}

uint64_t loop_core_now_ns(struct loop *loop)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void loop_core_run_ended(struct loop_core *core)
{
        struct list ended;

        list_init(&ended);
        list_splice(&ended, &core->ended);
        while (!list_empty(&ended) && !core->stopped) {
                struct loop_io *io = container_of(ended.next, struct loop_io, link);

                list_remove(&io->link);
                loop_core_finish(core, io, io->result);
        }
        list_splice(&ended, &core->ended); /* the old in front of the new */
        list_splice(&core->ended, &ended);
}

/* Timers */

void loop_core_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
        if (timer->state == LOOP_TIMER_ARMED)
                timer_heap_remove(&core_of(loop)->timers, timer);
        else if (timer->state == LOOP_TIMER_DUE)
                list_remove(&timer->link);
        timer->state = LOOP_TIMER_IDLE;
}

void loop_core_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
        loop_core_timer_cancel(loop, timer);
        timer_heap_insert(&core_of(loop)->timers, timer, deadline_ns);
}

/* What is due is taken out first: a timer that its own callback arms again for "now" fires in the
 * next iteration, not for ever in this one. */
static void fire_timers(struct loop_core *core)
{
        struct loop_timer *timer = timer_heap_first(&core->timers);

        if (timer) {
                uint64_t now_ns = loop_core_now_ns(&core->loop);

                while (timer && timer->deadline_ns <= now_ns) {
                        timer_heap_remove(&core->timers, timer);
                        timer->state = LOOP_TIMER_DUE;
                        list_append(&core->due, &timer->link);
                        timer = timer_heap_first(&core->timers);
                }
        }
        while (!list_empty(&core->due) && !core->stopped) {
                timer = container_of(core->due.next, struct loop_timer, link);
                list_remove(&timer->link);
                timer->state = LOOP_TIMER_IDLE;
                timer->fire(timer);
        }
}

static uint64_t wait_ns(struct loop_core *core)
{
        struct loop_timer *first = timer_heap_first(&core->timers);
        uint64_t now_ns;

        if (core->n_tasks > 0 || !list_empty(&core->due))
                return 0;
        if (!first)
                return LOOP_WAIT_FOREVER;
        now_ns = loop_core_now_ns(&core->loop);
        return first->deadline_ns > now_ns ? first->deadline_ns - now_ns : 0;
}

/* Tasks
 *
 * task->queued is exchanged atomically since any thread may post. The exchange in run_tasks() is
 * ordered against the one in mark_queued(): either a poster finds the task not queued and queues it
 * again, or the run that follows sees all that the poster wrote before. */

static bool mark_queued(struct loop_task *task)
{
        return !__atomic_exchange_n(&task->queued, true, __ATOMIC_ACQ_REL);
}

static void append_task(struct loop_core *core, struct loop_task *task)
{
        task->next = NULL;
        *core->tasks_end = task;
        core->tasks_end = &task->next;
        core->n_tasks++;
}

void loop_core_post(struct loop *loop, struct loop_task *task)
{
        if (mark_queued(task))
                append_task(core_of(loop), task);
}

/* Sequentially consistent with loop_core_may_sleep(): either the loop sees what the caller left for
 * it before it waits, or this sees that it waits. Of many callers one clears the flag and pays for
 * the system call. */
void loop_core_wake(struct loop_core *core)
{
        ssize_t n;

        if (!atomic_load(&core->sleeping) || !atomic_exchange(&core->sleeping, false))
                return;
        do
                n = write(core->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
        while (n < 0 && errno == EINTR);
}

void loop_core_drain_wake(struct loop_core *core)
{
        uint64_t value;
        ssize_t n = read(core->wake_fd, &value, sizeof(value));

        (void)n; /* -EAGAIN: nothing there, which is what is wanted */
}

void loop_core_post_remote(struct loop *loop, struct loop_task *task)
{
        struct loop_core *core = core_of(loop);
        struct loop_task *top;

        if (!mark_queued(task))
                return;
        top = atomic_load_explicit(&core->remote, memory_order_relaxed);
        do
                task->next = top;
        while (!atomic_compare_exchange_weak(&core->remote, &top, task));
        loop_core_wake(core);
}

bool loop_core_may_sleep(struct loop_core *core)
{
        atomic_store(&core->sleeping, true);
        return !atomic_load(&core->remote);
}

/* Move what other threads posted to the end of our own tasks, oldest first. */
static void take_remote(struct loop_core *core)
{
        struct loop_task *task, *ordered = NULL;

        if (!atomic_load_explicit(&core->remote, memory_order_relaxed))
                return;
        task = atomic_exchange(&core->remote, NULL);
        while (task) {
                struct loop_task *next = task->next;

                task->next = ordered;
                ordered = task;
                task = next;
        }
        while (ordered) {
                struct loop_task *next = ordered->next;

                append_task(core, ordered);
                ordered = next;
        }
}

static struct loop_task *pop_task(struct loop_core *core)
{
        struct loop_task *task = core->tasks;

        core->tasks = task->next;
        if (!core->tasks)
                core->tasks_end = &core->tasks;
        core->n_tasks--;
        (void)__atomic_exchange_n(&task->queued, false, __ATOMIC_ACQ_REL);
        return task;
}

static void run_tasks(struct loop_core *core)
{
        for (int round = 0; round < TASK_ROUNDS_MAX && core->n_tasks > 0; round++)
                for (unsigned left = core->n_tasks; left > 0; left--) {
                        struct loop_task *task;

                        if (core->stopped)
                                return;
                        task = pop_task(core);
                        task->run(task);
                }
}

void loop_core_run(struct loop *loop)
{
        struct loop_core *core = core_of(loop);

        assert(!core->running);
        core->running = true;
        while (!core->stopped) {
                core->loop.time_ns = 0; /* no callback runs before poll() has waited */
                core->driver->poll(core, wait_ns(core));
                core->loop.time_ns = 0;
                if (!core->stopped)
                        fire_timers(core);
                take_remote(core);
                run_tasks(core);
        }
        /* Cleared here and not on entry, so that a stop that came before the run counts. */
        core->stopped = false;
        core->running = false;
}

void loop_core_stop(struct loop *loop)
{
        core_of(loop)->stopped = true;
}
