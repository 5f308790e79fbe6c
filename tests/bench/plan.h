/* plan.h - which block comes next, and whether it is read or written.
 *
 * Same seed, same sequence, on every machine.
 *
 * Units      blocks of the run's block size, counted from the start of its range.
 * Threads    a plan belongs to one thread.
 * Errors     none.
 * Ownership  plain memory of the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct plan_options {
        uint64_t n_blocks; /* more than 0 */
        uint64_t seed;
        unsigned read_percent; /* 0 writes only, 100 reads only */
        bool random;           /* else one block after the other */
        bool once;             /* each block exactly once, then the plan ends; else for ever */
};

struct plan {
        struct plan_options options;
        uint64_t cursor;   /* of sequential and once */
        uint64_t state[4]; /* of the random numbers */
};

void plan_init(struct plan *p, const struct plan_options *options);

/* False at the end. */
bool plan_next(struct plan *p, uint64_t *ret_block, bool *ret_is_read);

/* 64 random bits from the plan's generator. */
uint64_t plan_random(struct plan *p);
