/* judge.h - is a history one that disks may have?
 *
 * Each unit of each volume is judged alone:
 * - In each life an order of its operations explains what was read (search.h).
 * - A write that was not answered may have taken effect at any time until its life's end, or never. Where it is
 *   submitted anew in a later life, both: perhaps in each life before, and once in the one in which it was answered.
 * - A kill goes back to some content of the life that has ended: not to one before a write that was durable when it
 *   was answered, nor before one that was answered before the beginning of a flush that was answered.
 *
 * Units      nanoseconds.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  a history stays the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/error.h"
#include "tests/linear/history.h"

struct judgement {
        bool good;
        /* Otherwise: where, and in which life no order is left. The operations of that unit and its
         * volume's flushes, fewer of which would be in order. */
        uint16_t volume, life;
        uint32_t unit;
        struct history least;
        uint64_t n_registers, n_operations; /* looked at */
};

/* Release with judgement_free(). The first register that is wrong ends it.
 *
 * -E2BIG  too many orders to try */
int judge(const struct history *h, struct judgement *ret_judgement, struct error *err);
void judgement_free(struct judgement *j);
void judgement_print(const struct judgement *j, FILE *file);
