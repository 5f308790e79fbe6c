/* loop.h - an event loop: one thread, its timers, its I/O.
 *
 * Units      times are nanoseconds of CLOCK_MONOTONIC (the virtual clock in a simulation).
 * Threads    a loop belongs to the thread that runs it; [any thread] marks the exception.
 * Errors     of an operation: in its result, as the system call's; nothing else fails once the
 *            loop is made.
 * Callbacks  run from loop_run() only, never from inside loop_submit() or loop_post(), so that a
 *            caller may submit while holding half-changed state.
 * Ownership  tasks, timers and ios are the caller's memory and must live until they ran.
 *
 * Back ends: io_uring (opcodes probed); worker threads and poll(2) where io_uring is refused; and,
 * for tests, a virtual clock with no I/O (tests/sim). Which one serves is logged at debug level.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "common/error.h"
#include "common/list.h"

struct loop;
struct co;

/* A callback to run soon. It may be posted again from its own run(). Posting what is queued is a
 * no-op. */
struct loop_task {
        void (*run)(struct loop_task *task);
        struct loop_task *next;
        bool queued;
};

struct loop_timer {
        void (*fire)(struct loop_timer *timer);
        uint64_t deadline_ns;
        /* the back end's */
        uint64_t order;   /* among equal deadlines, first armed fires first */
        struct list link; /* in the list of those that are due */
        struct loop_timer *child, *sibling, *prev; /* in timer_heap.h */
        uint32_t heap_index;                       /* of a back end with a heap of its own */
        uint32_t state; /* enum loop_timer_state, where timer_heap.h is used */
};

enum loop_timer_state { LOOP_TIMER_IDLE, LOOP_TIMER_ARMED, LOOP_TIMER_DUE };

enum loop_io_op {
        LOOP_READV,  /* iov at offset */
        LOOP_WRITEV, /* iov at offset */
        LOOP_SIGNAL, /* add one to an eventfd, without waiting where that is full */
        LOOP_FDATASYNC,
        LOOP_FALLOCATE, /* mode = flags, offset, length */
        LOOP_RECV,      /* into iov[0]; flags as recv(2) */
        LOOP_RECVMSG,   /* the same; what comes beside the bytes, into msg's control */
        LOOP_SENDMSG,   /* iov, flags as sendmsg(2); MSG_NOSIGNAL is implied */
        /* result is the new descriptor: close-on-exec, non-blocking where polling needs it */
        LOOP_ACCEPT,
        LOOP_POLL, /* flags are POLLIN etc.; result the events */
};

/* One asynchronous operation. result: as the system call's, or -errno (-ECANCELED after
 * loop_cancel). Short counts are passed on, not repeated. */
struct loop_io {
        enum loop_io_op op;
        int fd;
        uint32_t flags;
        const struct iovec *iov; /* must live until done; at most IOV_MAX entries */
        unsigned n_iov;
        /* READV, WRITEV: so much to copy that another thread is to do it, and not hold the loop up */
        bool bulk;
        uint64_t offset, length;
        void (*done)(struct loop_io *io, int result);
        /* the back end's, but for RECVMSG's msg_control and msg_controllen, which are set each time */
        struct msghdr msg;
        /* the back end's */
        struct list link;
        int result;
        uint32_t state;
        struct co *waiter; /* co_io()'s */
};

struct loop_ops {
        bool batches; /* all that one iteration submits costs one system call */
        uint64_t (*now_ns)(struct loop *loop);
        void (*submit)(struct loop *loop, struct loop_io *io);
        void (*cancel)(struct loop *loop, struct loop_io *io);
        void (*timer_set)(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns);
        void (*timer_cancel)(struct loop *loop, struct loop_timer *timer);
        void (*post)(struct loop *loop, struct loop_task *task);
        void (*post_remote)(struct loop *loop, struct loop_task *task);
        void (*run)(struct loop *loop);
        void (*stop)(struct loop *loop);
        void (*free)(struct loop *loop);
};

struct loop {
        const struct loop_ops *ops;
        struct list idle_coroutines; /* coroutine.c's cache of stacks */
        unsigned n_idle_coroutines;
        uint64_t time_ns; /* loop_time_ns()'s; 0: to be read. Back ends forget it */
};

enum loop_backend { LOOP_BACKEND_AUTO, LOOP_BACKEND_URING, LOOP_BACKEND_THREADS };

/* AUTO takes io_uring where the kernel gives it, otherwise threads; the environment variable
 * TARN_LOOP=uring|threads decides for AUTO (for tests). Release with loop_free().
 *
 * -EINVAL  TARN_LOOP is something else
 * -ENOSYS  io_uring was asked for by name and is refused */
int loop_new(enum loop_backend backend, struct loop **ret_loop, struct error *err);
void loop_free(struct loop *loop); /* NULL is fine; nothing may be pending */

/* Until loop_stop(): which takes effect after the callback that calls it. */
static inline void loop_run(struct loop *loop)
{
        loop->ops->run(loop);
}
static inline void loop_stop(struct loop *loop)
{
        loop->ops->stop(loop);
}
static inline uint64_t loop_now_ns(struct loop *loop)
{
        return loop->ops->now_ns(loop);
}

/* The clock as it was when somebody first asked in this half of the iteration (what has ended; timers
 * and tasks): for counting, where reading the clock for each of a batch would cost more than what is
 * counted. */
static inline uint64_t loop_time_ns(struct loop *loop)
{
        if (!loop->time_ns)
                loop->time_ns = loop_now_ns(loop);
        return loop->time_ns;
}

/* Starts when control returns to the loop: everything submitted in one iteration goes to the kernel
 * in one call. */
static inline void loop_submit(struct loop *loop, struct loop_io *io)
{
        loop->ops->submit(loop, io);
}
/* Ask for an early end; done() still runs, with the result or -ECANCELED. Only RECV, RECVMSG,
 * SENDMSG, ACCEPT and POLL. */
static inline void loop_cancel(struct loop *loop, struct loop_io *io)
{
        loop->ops->cancel(loop, io);
}

/* Arm (or move) a timer; cancel one that may be armed. Zeroed timers are valid and not armed. */
static inline void loop_timer_set(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns)
{
        loop->ops->timer_set(loop, t, deadline_ns);
}
static inline void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
        loop->ops->timer_cancel(loop, t);
}

/* Run @task in this iteration, after the callbacks already queued. */
static inline void loop_post(struct loop *loop, struct loop_task *task)
{
        loop->ops->post(loop, task);
}
/* The same from [any thread]; wakes the loop; one wake-up serves many. */
static inline void loop_post_remote(struct loop *loop, struct loop_task *task)
{
        loop->ops->post_remote(loop, task);
}
