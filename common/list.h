/* list.h - an intrusive doubly linked list.
 *
 * A head is a node itself. A node that is in no list points to itself once list_init() or
 * list_remove() ran on it.
 *
 * Threads    no locks: a list belongs to one thread, or to its owner's lock.
 * Errors     none: nothing is allocated.
 * Ownership  nodes lie in the caller's structs, which must outlive their place in the list.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *next, *prev;
};

#define LIST_INIT(name)                                                                            \
        {                                                                                          \
                &(name), &(name)                                                                   \
        }
#define container_of(ptr, type, field) ((type *)((char *)(ptr)-offsetof(type, field)))
#define list_for_each(it, head)        for (struct list *it = (head)->next; it != (head); it = it->next)
/* The current node may be removed while walking. */
#define list_for_each_safe(it, head)                                                               \
        for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                  \
             it = it##_next, it##_next = it->next)

static inline void list_init(struct list *l)
{
        l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
        return l->next == l;
}
static inline void list_insert_before(struct list *at, struct list *node)
{
        node->next = at;
        node->prev = at->prev;
        at->prev->next = node;
        at->prev = node;
}
static inline void list_append(struct list *head, struct list *node)
{
        list_insert_before(head, node);
}
static inline void list_prepend(struct list *head, struct list *node)
{
        list_insert_before(head->next, node);
}
static inline void list_remove(struct list *node)
{
        node->prev->next = node->next;
        node->next->prev = node->prev;
        list_init(node);
}
/* Move all of @from to the end of @to; @from is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from)
{
        if (list_empty(from))
                return;
        from->next->prev = to->prev;
        to->prev->next = from->next;
        from->prev->next = to;
        to->prev = from->prev;
        list_init(from);
}
