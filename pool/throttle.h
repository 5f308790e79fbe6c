/* throttle.h - a limit of operations and of bytes a second, with bursts: token buckets.
 *
 * A bucket holds a burst's worth when it is full, and fills at the rate. A request goes when the
 * bucket holds what it costs. One that costs more than the bucket ever holds goes when it is full,
 * and leaves a debt, which later ones wait for.
 *
 * Units      nanoseconds of the loop's clock; operations, bytes.
 * Threads    the loop's.
 * Errors     none.
 * Ownership  the caller's memory; zeroed there is no limit. Who waits, and its timer, are the
 *            caller's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define THROTTLE_IOPS_MAX      UINT64_C(1000000000)
#define THROTTLE_BANDWIDTH_MIN UINT64_C(4096) /* a request of 64 MiB then takes four hours */
#define THROTTLE_BANDWIDTH_MAX (UINT64_C(1) << 50)
#define THROTTLE_BURST_MAX     (UINT64_C(1) << 60)
/* A burst's worth of time is bounded by this, so that no sum overflows. */
#define THROTTLE_BURST_S_MAX UINT64_C(86400)

struct throttle_limits {
        uint64_t iops, bandwidth; /* a second; 0: no limit */
        /* what may go at once after a pause; 0: a tenth of a second's worth */
        uint64_t iops_burst, bandwidth_burst;
};

struct throttle_bucket {
        uint64_t rate;     /* 0: no limit */
        uint64_t burst_ns; /* the time in which a full bucket's worth comes in */
        uint64_t paid_ns;  /* when what was taken so far will have come in */
        uint64_t rest;     /* of the division by rate: the next one's */
};

struct throttle {
        struct throttle_bucket ops, bytes;
};

/* New limits count at once: of what was taken before at most a full bucket is held against what
 * comes. */
void throttle_set(struct throttle *throttle, const struct throttle_limits *limits, uint64_t now_ns);
static inline bool throttle_is_on(const struct throttle *throttle)
{
        return throttle->ops.rate || throttle->bytes.rate;
}
/* When an operation on @bytes may go: @from_ns or later. */
uint64_t throttle_when(const struct throttle *throttle, uint64_t bytes, uint64_t from_ns);
/* It goes as of @at_ns: of one that waited, when it might have gone, so that a timer that fires late
 * does not lower the rate. */
void throttle_take(struct throttle *throttle, uint64_t bytes, uint64_t at_ns);
