/* sim_loop.h - a struct loop with a virtual clock and no I/O.
 *
 * Time stands still while callbacks are posted and jumps to the next timer when none is: a
 * checkpoint interval of five seconds costs nothing. All that happens is decided by the seed, so
 * that a run can be repeated. loop_submit() is a mistake of the caller's here (an assert):
 * simulated disks complete by timers.
 *
 * loop_run() ends at loop_stop(), and also when nothing is posted and no timer is armed, or when
 * the step limit is reached: the first is a deadlock of what is under test, the second a livelock,
 * and sim_loop_end() tells which.
 *
 * Units      nanoseconds of the virtual clock.
 * Threads    one.
 * Errors     0 or -errno.
 * Ownership  release with loop_free().
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/coroutine.h"
#include "common/loop.h"

enum sim_loop_end {
        SIM_LOOP_STOPPED, /* loop_stop() was called; also before the first run */
        SIM_LOOP_IDLE,    /* nothing was left that could ever happen */
        SIM_LOOP_LIMIT,   /* the step limit was reached */
};

/* Where @shuffle, timers of equal deadline fire in an order drawn from the seed, otherwise first
 * armed first. -ENOMEM */
int sim_loop_new(uint64_t seed, bool shuffle, struct loop **ret_loop);

/* As new, with @seed, but for the coroutines' stacks, which are kept: for those who run many
 * thousand short simulations. What is posted or armed is forgotten. Returns how many timers were
 * armed: where everything was closed before, one is a mistake. */
uint32_t sim_loop_reset(struct loop *loop, uint64_t seed, bool shuffle);

/* Why the last loop_run() returned. */
enum sim_loop_end sim_loop_end(const struct loop *loop);

/* End every loop_run() after this many callbacks; 0 (the default): no limit. */
void sim_loop_set_step_limit(struct loop *loop, uint64_t max_steps);

/* Callbacks run since the loop was made. */
uint64_t sim_loop_steps(const struct loop *loop);

/* Run entry(arg) as a coroutine until it has ended, as co_run() does, but notice when it never
 * will:
 *
 * -EDEADLK    nothing is left that could wake it
 * -ETIMEDOUT  the step limit was reached
 *
 * It then stays suspended, and the loop can only be left alone: neither run nor freed. co_run()
 * works as well; on a deadlock it aborts. */
int sim_loop_co_run(struct loop *loop, co_entry *entry, void *arg);
