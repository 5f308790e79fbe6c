#include "tests/bench/latency.h"
#include <inttypes.h>
#include <stdio.h>

/* Below 64 ns a step is 1 ns; above, each power of two has 64 equal steps. */
static unsigned step_of(uint64_t ns)
{
        if (ns < LATENCY_STEPS)
                return (unsigned)ns;
        unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - LATENCY_STEP_BITS;
        return (shift + 1) * LATENCY_STEPS + (unsigned)((ns >> shift) & (LATENCY_STEPS - 1));
}

static uint64_t step_end_ns(unsigned step)
{
        if (step < LATENCY_STEPS)
                return step;
        unsigned shift = step / LATENCY_STEPS - 1;
        return ((UINT64_C(1) << shift) * (LATENCY_STEPS + step % LATENCY_STEPS + 1)) - 1;
}

void latency_add(struct latency *l, uint64_t duration_ns)
{
        l->count++;
        l->sum_ns += duration_ns;
        if (duration_ns > l->max_ns)
                l->max_ns = duration_ns;
        l->steps[step_of(duration_ns < LATENCY_MAX_NS ? duration_ns : LATENCY_MAX_NS)]++;
}

uint64_t latency_percentile(const struct latency *l, double fraction)
{
        uint64_t wanted = (uint64_t)(fraction * (double)l->count), seen = 0;

        for (unsigned i = 0; i < LATENCY_POWERS * LATENCY_STEPS; i++) {
                seen += l->steps[i];
                if (seen > wanted || (seen && seen == l->count))
                        return step_end_ns(i) < l->max_ns ? step_end_ns(i) : l->max_ns;
        }
        return l->max_ns;
}

void latency_print(const char *name, const struct latency *l)
{
        double mean = l->count ? (double)l->sum_ns / (double)l->count : 0;

        printf(", \"%s\": {\"count\": %" PRIu64 ", \"mean\": %.1f, \"p50\": %.1f, \"p90\": %.1f, "
               "\"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}",
               name, l->count, mean / 1e3, (double)latency_percentile(l, 0.5) / 1e3,
               (double)latency_percentile(l, 0.9) / 1e3, (double)latency_percentile(l, 0.99) / 1e3,
               (double)latency_percentile(l, 0.999) / 1e3, (double)l->max_ns / 1e3);
}
