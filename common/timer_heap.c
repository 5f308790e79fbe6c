/* timer_heap.c - a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986).
 *
 * prev is the parent for a first child, and the left sibling for every other node. */
#include "common/timer_heap.h"
#include <assert.h>

static bool is_before(const struct loop_timer *a, const struct loop_timer *b)
{
        if (a->deadline_ns != b->deadline_ns)
                return a->deadline_ns < b->deadline_ns;
        return a->order < b->order;
}

/* Join two trees whose roots have no siblings; either may be NULL. */
static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
        if (!a)
                return b;
        if (!b)
                return a;
        if (is_before(b, a)) {
                struct loop_timer *t = a;
                a = b;
                b = t;
        }
        b->sibling = a->child;
        if (b->sibling)
                b->sibling->prev = b;
        b->prev = a;
        a->child = b;
        return a;
}

/* Join a list of siblings: pairs from left to right, then the pairs from right to left. This order
 * is what makes removal O(log n) amortized. */
static struct loop_timer *meld_siblings(struct loop_timer *first)
{
        struct loop_timer *pairs = NULL, *all = NULL;

        while (first) {
                struct loop_timer *a = first, *b = a->sibling, *pair;

                first = b ? b->sibling : NULL;
                a->sibling = a->prev = NULL;
                if (b)
                        b->sibling = b->prev = NULL;
                pair = meld(a, b);
                pair->sibling = pairs;
                pairs = pair;
        }
        while (pairs) {
                struct loop_timer *next = pairs->sibling;

                pairs->sibling = NULL;
                all = meld(all, pairs);
                pairs = next;
        }
        return all;
}

void timer_heap_insert(struct timer_heap *heap, struct loop_timer *timer, uint64_t deadline_ns)
{
        assert(timer->state != LOOP_TIMER_ARMED);
        timer->deadline_ns = deadline_ns;
        timer->order = heap->next_order++;
        timer->child = timer->sibling = timer->prev = NULL;
        timer->state = LOOP_TIMER_ARMED;
        heap->root = meld(heap->root, timer);
}

void timer_heap_remove(struct timer_heap *heap, struct loop_timer *timer)
{
        struct loop_timer *children = meld_siblings(timer->child);

        assert(timer->state == LOOP_TIMER_ARMED);
        if (heap->root == timer) {
                heap->root = children;
        } else {
                if (timer->prev->child == timer)
                        timer->prev->child = timer->sibling;
                else
                        timer->prev->sibling = timer->sibling;
                if (timer->sibling)
                        timer->sibling->prev = timer->prev;
                heap->root = meld(heap->root, children);
        }
        timer->child = timer->sibling = timer->prev = NULL;
        timer->state = LOOP_TIMER_IDLE;
}
