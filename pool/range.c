/* range.c - overlapping writes: a write of part of a block reads, merges and writes, and nothing
 * may come between; whole blocks may overlap each other, since each takes its place at once. First
 * come, first served. */
#include "pool/engine.h"

static bool ranges_conflict(const struct range *a, const struct range *b)
{
        return (a->exclusive || b->exclusive) && a->first <= b->last && b->first <= a->last;
}

static bool range_is_free(const struct root *root, const struct range *range)
{
        for (const struct list *it = range->link.prev; it != &root->ranges; it = it->prev)
                if (ranges_conflict(container_of(it, struct range, link), range))
                        return false;
        return true;
}

bool range_lock(struct root *root, struct range *range)
{
        list_append(&root->ranges, &range->link);
        if (range->exclusive)
                root->n_exclusive++;
        range->granted = root->n_exclusive == 0 || range_is_free(root, range);
        return range->granted;
}

void range_unlock(struct root *root, struct range *range)
{
        assert(range->granted);
        list_remove(&range->link);
        if (range->exclusive)
                root->n_exclusive--;
        else if (root->n_exclusive == 0)
                return;
        list_for_each_safe (it, &root->ranges) {
                struct range *waiting = container_of(it, struct range, link);
                if (!waiting->granted && range_is_free(root, waiting)) {
                        waiting->granted = true;
                        waiting->grant(waiting);
                }
        }
}

static void co_range_grant(struct range *range)
{
        co_wake(container_of(range, struct co_range, range)->co);
}

void co_range_lock(struct root *root, struct co_range *range)
{
        range->co = co_self();
        range->range.grant = co_range_grant;
        if (range_lock(root, &range->range))
                return;
        while (!range->range.granted)
                co_suspend();
}
