/* meter.h - what is counted about requests: how many, how large, how long, how many at a time.
 *
 * Counters only grow: who wants a rate reads twice and takes the difference. A latency is the time
 * from the request to its answer, in a histogram of fixed size.
 *
 * Units      nanoseconds of the loop's clock (loop_time_ns()); bytes.
 * Threads    a meter belongs to the loop of what it measures; no locks, no atomics.
 * Errors     none.
 * Ownership  the caller's memory; zeroed is empty.
 */
#pragma once
#include <stdint.h>

/* In the order of enum volume_op and, but for the last, of enum member_op. */
enum meter_kind { METER_READ, METER_WRITE, METER_FLUSH, METER_DISCARD, METER_ZERO };
#define METER_KINDS 5u

/* Log-linear: each power of two from 1,024 ns (1 µs) to 2^36 ns (69 s) is cut in four, so that a
 * latency is known to within a quarter; one bucket below, one for all that took longer. */
#define METER_OCTAVE_FIRST 10u
#define METER_OCTAVES      26u
#define METER_STEPS        4u
#define METER_BUCKETS      (METER_OCTAVES * METER_STEPS + 2u)

/* One kind of request. */
struct meter_line {
        uint64_t requests, errors;
        uint64_t bytes;      /* of those that succeeded */
        uint64_t latency_ns; /* the sum */
        uint64_t bucket[METER_BUCKETS];
};

/* How many are under way. */
struct meter_queue {
        uint64_t depth;
        uint64_t sum_ns; /* modulo 2^64: ends less begins; see meter_queue_depth_ns() */
        uint64_t busy_ns, busy_since_ns;
};

struct meter {
        struct meter_line line[METER_KINDS];
        struct meter_queue queue;
};

/* What a reader gets. */
struct meter_stats {
        struct meter_line line[METER_KINDS];
        uint64_t depth;    /* under way now */
        uint64_t depth_ns; /* the integral of depth over time: over a second's, the mean depth */
        uint64_t busy_ns;  /* while anything was under way */
};

/* The bucket that @latency_ns is counted in. */
static inline unsigned meter_bucket(uint64_t latency_ns)
{
        if (latency_ns >> METER_OCTAVE_FIRST == 0)
                return 0;
        if (latency_ns >> (METER_OCTAVE_FIRST + METER_OCTAVES))
                return METER_BUCKETS - 1;
        unsigned octave = 63u - (unsigned)__builtin_clzll(latency_ns);
        unsigned step = (unsigned)(latency_ns >> (octave - 2)) & (METER_STEPS - 1);
        return 1 + (octave - METER_OCTAVE_FIRST) * METER_STEPS + step;
}
/* All in bucket @i took less than this; UINT64_MAX for the last. */
uint64_t meter_bucket_end_ns(unsigned i);

static inline void meter_queue_begin(struct meter_queue *q, uint64_t now_ns)
{
        if (q->depth++ == 0)
                q->busy_since_ns = now_ns;
        q->sum_ns -= now_ns;
}
static inline void meter_queue_end(struct meter_queue *q, uint64_t now_ns)
{
        q->sum_ns += now_ns;
        if (--q->depth == 0)
                q->busy_ns += now_ns - q->busy_since_ns;
}
/* The integral needs no multiplication at each change: it is what every request has lasted so far,
 * summed up. */
static inline uint64_t meter_queue_depth_ns(const struct meter_queue *q, uint64_t now_ns)
{
        return q->sum_ns + q->depth * now_ns;
}
static inline uint64_t meter_queue_busy_ns(const struct meter_queue *q, uint64_t now_ns)
{
        return q->busy_ns + (q->depth ? now_ns - q->busy_since_ns : 0);
}

/* A request has ended, after @latency_ns. */
static inline void meter_count(struct meter_line *line, uint64_t bytes, int result,
                               uint64_t latency_ns)
{
        line->requests++;
        if (result < 0)
                line->errors++;
        else
                line->bytes += bytes;
        line->latency_ns += latency_ns;
        line->bucket[meter_bucket(latency_ns)]++;
}

uint64_t meter_errors(const struct meter *meter); /* of all kinds */
void meter_line_add(struct meter_line *to, const struct meter_line *from);
void meter_read(const struct meter *meter, uint64_t now_ns, struct meter_stats *ret_stats);
