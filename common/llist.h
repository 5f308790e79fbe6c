/* llist.h - a lock-less list that threads add to and that one of them takes whole.
 *
 * Threads    any may give, any may take; who takes a node sees all that was written before it was
 *            given.
 * Errors     none: nothing is allocated.
 * Ownership  nodes lie in the caller's structs. One is in one list at a time.
 */
#pragma once
#include <stdatomic.h>
#include <stddef.h>

struct llist_node {
        struct llist_node *next;
};
typedef struct llist_node *_Atomic llist; /* NULL: empty */

/* To a thread's own list, the newest first. */
static inline void llist_prepend(struct llist_node **list, struct llist_node *node)
{
        node->next = *list;
        *list = node;
}

/* All of *from, whose newest is first, in front of what lies in @to. */
static inline void llist_give(llist *to, struct llist_node **from)
{
        struct llist_node *first = *from, *last = first;
        struct llist_node *top = atomic_load_explicit(to, memory_order_relaxed);

        if (!first)
                return;
        while (last->next)
                last = last->next;
        do
                last->next = top;
        while (!atomic_compare_exchange_weak(to, &top, first));
        *from = NULL;
}

/* All of it, the oldest first. */
static inline struct llist_node *llist_take(llist *from)
{
        struct llist_node *newest = atomic_exchange(from, NULL), *oldest = NULL;

        while (newest) {
                struct llist_node *next = newest->next;

                newest->next = oldest;
                oldest = newest;
                newest = next;
        }
        return oldest;
}
