/* throttle.c - a limit of operations and of bytes a second.
 *
 * A bucket is kept as the time at which all that was taken will have come in: it is full when that
 * has passed, and empty when that is a burst's time ahead (the generic cell rate algorithm of ITU-T
 * I.371, except that what is larger than the bucket may overdraw). Nothing runs while nobody asks. */
#include "pool/throttle.h"

#define SECOND_NS UINT64_C(1000000000)

static void bucket_set(struct throttle_bucket *b, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
        uint64_t paid_ns = b->paid_ns;
        *b = (struct throttle_bucket){.rate = rate};
        if (!rate)
                return;
        if (burst == 0)
                b->burst_ns = SECOND_NS / 10;
        else if (burst / rate >= THROTTLE_BURST_S_MAX)
                b->burst_ns = THROTTLE_BURST_S_MAX * SECOND_NS;
        else
                b->burst_ns = (uint64_t)((unsigned __int128)burst * SECOND_NS / rate);
        if (b->burst_ns == 0)
                b->burst_ns = 1;
        b->paid_ns = paid_ns < now_ns + b->burst_ns ? paid_ns : now_ns + b->burst_ns;
}

void throttle_set(struct throttle *t, const struct throttle_limits *limits, uint64_t now_ns)
{
        bucket_set(&t->ops, limits->iops, limits->iops_burst, now_ns);
        bucket_set(&t->bytes, limits->bandwidth, limits->bandwidth_burst, now_ns);
}

static uint64_t bucket_when(const struct throttle_bucket *b, uint64_t n, uint64_t from_ns)
{
        if (!b->rate || !n)
                return from_ns;
        uint64_t cost_ns = n * SECOND_NS / b->rate; /* n is at most VOLUME_REQUEST_MAX: it fits */
        uint64_t need_ns = cost_ns < b->burst_ns ? cost_ns : b->burst_ns;
        return b->paid_ns + need_ns <= from_ns + b->burst_ns ? from_ns
                                                             : b->paid_ns + need_ns - b->burst_ns;
}

uint64_t throttle_when(const struct throttle *t, uint64_t bytes, uint64_t from_ns)
{
        uint64_t ops_ns = bucket_when(&t->ops, 1, from_ns);
        uint64_t bytes_ns = bucket_when(&t->bytes, bytes, from_ns);
        return ops_ns > bytes_ns ? ops_ns : bytes_ns;
}

static void bucket_take(struct throttle_bucket *b, uint64_t n, uint64_t at_ns)
{
        if (!b->rate || !n)
                return;
        if (b->paid_ns < at_ns)
                b->paid_ns = at_ns;
        uint64_t whole = n * SECOND_NS + b->rest;
        b->paid_ns += whole / b->rate;
        b->rest = whole % b->rate;
}

void throttle_take(struct throttle *t, uint64_t bytes, uint64_t at_ns)
{
        bucket_take(&t->ops, 1, at_ns);
        bucket_take(&t->bytes, bytes, at_ns);
}
