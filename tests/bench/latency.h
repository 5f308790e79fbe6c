/* latency.h - a histogram of durations: 64 steps to the power of two, so within 1.6 %.
 *
 * Units      nanoseconds; beyond LATENCY_MAX_NS all falls into the last step.
 * Threads    a histogram belongs to one thread.
 * Errors     none.
 * Ownership  plain memory of the caller's, zeroed at the start.
 */
#pragma once
#include <stdint.h>

#define LATENCY_STEP_BITS 6
#define LATENCY_STEPS     (1u << LATENCY_STEP_BITS)
#define LATENCY_POWERS    32u
#define LATENCY_MAX_NS    ((UINT64_C(1) << (LATENCY_POWERS + LATENCY_STEP_BITS - 1)) - 1)

struct latency {
        uint64_t count, sum_ns, max_ns;
        uint64_t steps[LATENCY_POWERS * LATENCY_STEPS];
};

void latency_add(struct latency *l, uint64_t duration_ns);

/* The duration that @fraction (0 to 1) of the samples do not exceed; 0 without samples. */
uint64_t latency_percentile(const struct latency *l, double fraction);

/* Print it as a member of a JSON object that has members before, in microseconds. */
void latency_print(const char *name, const struct latency *l);
