/* timer_heap.h - armed timers by deadline: a pairing heap through the timers themselves, so that
 * arming one allocates nothing and cannot fail. For the back ends of the loop; no clock of its own.
 *
 * Units      deadlines are nanoseconds of the loop's clock.
 * Threads    a heap belongs to its loop's thread.
 * Errors     none.
 * Ownership  timers are the caller's memory, and must live while they are armed. A zeroed heap is
 *            empty.
 * Source     Fredman, Sedgewick, Sleator, Tarjan: The pairing heap (1986).
 */
#pragma once
#include "common/loop.h"

struct timer_heap {
        struct loop_timer *root;
        uint64_t next_order;
};

/* The earliest; among equal deadlines the one armed first. NULL while none is armed. O(1). */
static inline struct loop_timer *timer_heap_first(const struct timer_heap *heap)
{
        return heap->root;
}

/* O(1). The timer must not be in a heap. */
void timer_heap_insert(struct timer_heap *heap, struct loop_timer *timer, uint64_t deadline_ns);
/* O(log n), amortized. The timer must be in this heap. */
void timer_heap_remove(struct timer_heap *heap, struct loop_timer *timer);
