/* sim_run.h - one pool of a simulation, from its creation through all its lives.
 *
 * Threads    one.
 * Errors     a promise broken is in the result.
 */
#pragma once
#include "tests/sim/sim_plan.h"

#define SIM_REASON_MAX 1400

struct sim_result {
        bool failed;
        char reason[SIM_REASON_MAX];
        uint32_t step;  /* the last begun; all there were where it did not fail */
        uint64_t trace; /* a hash of all that the disks saw and all that was answered */
};

void sim_run(const struct sim_plan *plan, struct sim_result *ret_result);
