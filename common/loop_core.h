/* loop_core.h - what the back ends of the loop share: clock, timers, tasks, wake-up, the order of
 * one iteration. A back end embeds a loop_core and brings poll(): hand over what was submitted,
 * wait, and run the done() callbacks of what has ended.
 *
 * One iteration: poll() with its callbacks, timers that are due, tasks from other threads, tasks.
 * All that these submit leaves together in the poll() of the next iteration.
 *
 * Units      nanoseconds of CLOCK_MONOTONIC.
 * Threads    the loop's; [any thread] marks the exceptions.
 * Errors     0 or -errno with a sentence, from making a loop only.
 * Ownership  a loop_core lies in the back end's struct; operations, timers and tasks as in loop.h.
 */
#pragma once
#include <stdatomic.h>
#include "common/loop.h"
#include "common/timer_heap.h"

#define LOOP_WAIT_FOREVER UINT64_MAX

struct loop_core;

struct loop_driver {
        /* Submit, wait at most @timeout_ns (0: not at all; LOOP_WAIT_FOREVER) for something to end
         * or for the wake descriptor, and run callbacks until core->stopped. */
        void (*poll)(struct loop_core *core, uint64_t timeout_ns);
};

struct loop_core {
        struct loop loop;
        const struct loop_driver *driver;
        bool running, stopped;
        struct timer_heap timers;
        struct list due; /* timers taken from the heap that have not fired yet */
        struct loop_task *tasks, **tasks_end;
        unsigned n_tasks;
        size_t in_flight;  /* operations submitted whose done() has not run */
        struct list ended; /* operations whose done() is due, with their results */
        int wake_fd;       /* an eventfd, readable when post_remote() wants attention */
        /* Written by other threads: on a cache line of their own. */
        _Alignas(64) _Atomic(struct loop_task *) remote; /* a stack: newest first */
        atomic_bool sleeping; /* the loop waits: whoever clears this writes wake_fd */
};

/* Everything but loop.ops and driver. -errno */
int loop_core_init(struct loop_core *core, struct error *err);
void loop_core_fini(struct loop_core *core);

/* To be called by poll() right before it waits: false where a task has come from another thread
 * meanwhile, so that it must not wait. Either way loop_core_awake() after the wait, or instead of
 * it. */
bool loop_core_may_sleep(struct loop_core *core);
static inline void loop_core_awake(struct loop_core *core)
{
        atomic_store_explicit(&core->sleeping, false, memory_order_relaxed);
}

/* [any thread] End a wait that has begun or is about to. What it is for must be visible before the
 * call. */
void loop_core_wake(struct loop_core *core);
/* Make wake_fd unreadable again. */
void loop_core_drain_wake(struct loop_core *core);

/* The operation is the caller's again, and its done() runs. */
static inline void loop_core_finish(struct loop_core *core, struct loop_io *io, int result)
{
        io->state = 0;
        core->in_flight--;
        io->done(io, result);
}
/* Finish what is in core->ended, until core->stopped. What joins it meanwhile waits for the next
 * iteration. */
void loop_core_run_ended(struct loop_core *core);

/* Entries of struct loop_ops. */
uint64_t loop_core_now_ns(struct loop *loop);
void loop_core_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns);
void loop_core_timer_cancel(struct loop *loop, struct loop_timer *timer);
void loop_core_post(struct loop *loop, struct loop_task *task);
void loop_core_post_remote(struct loop *loop, struct loop_task *task);
void loop_core_run(struct loop *loop);
void loop_core_stop(struct loop *loop);

/* The back ends. */
int loop_uring_new(struct loop **ret_loop, struct error *err);
int loop_threads_new(struct loop **ret_loop, struct error *err);
