/* fuzz_loop.h - a struct loop for fuzzers: real descriptors, no waiting, a clock that the input
 * moves. What happens is decided by the input alone, so that a finding can be repeated.
 *
 * Units      nanoseconds of the virtual clock, which also goes on by 1,000 with each step.
 * Threads    one.
 * Errors     none: what must not happen aborts, and is a finding.
 * Ownership  one loop a process, kept between inputs for its coroutines' stacks.
 */
#pragma once
#include <stdbool.h>
#include "common/coroutine.h"
#include "common/loop.h"

struct loop *fuzz_loop_new(void);
/* For a new input: the clock begins anew. Nothing may be left of the last one: an operation, a
 * timer or a task that is, is a finding. */
void fuzz_loop_reset(struct loop *loop);

/* Try each operation once, run the callbacks of those that ended, timers that are due, tasks. False:
 * nothing happened. */
bool fuzz_loop_step(struct loop *loop);
/* Step until nothing happens. A loop that never rests is a finding. */
void fuzz_loop_settle(struct loop *loop);
/* From now on, or no more, somebody may keep the loop busy for ever: settling then ends after
 * FUZZ_BUSY_STEPS, and whoever comes next has his turn. */
#define FUZZ_BUSY_STEPS 3000u
void fuzz_loop_allow_busy(struct loop *loop, bool allow);
/* Let time pass, and settle after each timer. */
void fuzz_loop_advance(struct loop *loop, uint64_t ns);
/* Run a coroutine to its end, timers as they come; one that has not ended after @limit_ns is a
 * finding. */
void fuzz_loop_co_run(struct loop *loop, co_entry *entry, void *arg, uint64_t limit_ns);
/* From now on receives and sends of the loop move no more than this at once; 256 of them. 0: no
 * limit. */
void fuzz_loop_set_io_max(struct loop *loop, size_t n_bytes);
