/* coroutine.h - stackful coroutines, so that I/O code reads straight down the page.
 *
 * A function named co_* may suspend and must be called from a coroutine. The hot path of the engine
 * does not use coroutines.
 *
 * Units      durations are nanoseconds. A stack has 128 KiB and a guard page.
 * Threads    a coroutine runs on its loop's thread only, and is woken from there; co_move() takes
 *            it to another loop.
 * Errors     -ENOMEM where there is no memory for a stack; nothing else here fails.
 * Ownership  a struct co is its own and valid until its entry returns; stacks are kept by the loop
 *            for reuse. Queues and mutexes are the caller's memory, without a release.
 *
 * Switches are announced to ASan and TSan.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/list.h"
#include "common/loop.h"

struct co;

typedef void co_entry(void *arg);

/* Run entry(arg) as a coroutine on @loop, at once, until it first suspends. -ENOMEM */
int co_spawn(struct loop *loop, co_entry *entry, void *arg);

struct co *co_self(void);   /* NULL outside */
struct loop *co_loop(void); /* of the running coroutine */

/* Suspend until someone calls co_wake() on this coroutine. A wake that comes first is remembered
 * (once). */
void co_suspend(void);
/* [loop thread] Let @co go on: it is posted to its loop, not switched to at once. */
void co_wake(struct co *co);

/* One loop operation; returns its result. done is taken by this call. */
int co_io(struct loop_io *io);
void co_sleep_ns(uint64_t duration_ns);
/* Let everything else that is ready run first. */
void co_yield_loop(void);

/* Go on as a coroutine of @loop, on its thread, once that comes to it; returns the loop that was
 * left. At once where it is the same. Nobody may wake the coroutine by co_wake() on the way.
 *
 * What the thread keeps for itself (errno, other thread-locals) is another's afterwards: a function
 * that looks at such things does not look both before and after. */
struct loop *co_move(struct loop *loop);

/* A queue of waiting coroutines: first come, first woken. */
struct co_queue {
        struct list waiting;
};
static inline void co_queue_init(struct co_queue *q)
{
        list_init(&q->waiting);
}
static inline bool co_queue_empty(const struct co_queue *q)
{
        return list_empty(&q->waiting);
}
void co_wait(struct co_queue *q);
void co_wake_one(struct co_queue *q);
void co_wake_all(struct co_queue *q);

/* A lock between coroutines of one loop; first come, first served. */
struct co_mutex {
        bool held;
        struct co_queue queue;
};
static inline void co_mutex_init(struct co_mutex *m)
{
        m->held = false;
        co_queue_init(&m->queue);
}
void co_lock(struct co_mutex *m);
void co_unlock(struct co_mutex *m);

/* Run entry(arg) as a coroutine and the loop until it has ended, then stop the loop: for programs
 * whose whole work is one coroutine, and for tests. -ENOMEM */
int co_run(struct loop *loop, co_entry *entry, void *arg);

/* loop_free()'s: give the stacks kept for reuse back. */
void co_free_idle(struct loop *loop);
