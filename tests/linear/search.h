/* search.h - is there an order that explains what was seen of one register, in one life of a server?
 *
 * Every operation takes effect at one instant between its beginning and its end; one that is optional, at one after its
 * beginning or not at all. A read gives what the last write before it has written. With a goal: some moment after all
 * durable writes must be there at which the register held that value, which is what a crash goes back to.
 *
 * Units      nanoseconds.
 * Threads    [any thread]
 * Errors     1: yes; 0: no; -errno with a sentence.
 * Ownership  all stays the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

struct search_op {
        uint64_t begin_ns, end_ns; /* UINT64_MAX: optional */
        uint64_t value;
        bool is_write, durable; /* optional ones are writes, and not durable */
};

/* @ops are in the order of their beginnings. @start: what the register holds at first. @goal may be NULL.
 *
 * -E2BIG  too many orders to try: nothing is known */
int search_order(const struct search_op *ops, size_t n, uint64_t start, const uint64_t *goal,
                 struct error *err);
