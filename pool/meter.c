/* meter.c - what is counted about requests. */
#include "pool/meter.h"

uint64_t meter_bucket_end_ns(unsigned i)
{
        if (i == 0)
                return UINT64_C(1) << METER_OCTAVE_FIRST;
        if (i >= METER_BUCKETS - 1)
                return UINT64_MAX;
        unsigned octave = METER_OCTAVE_FIRST + (i - 1) / METER_STEPS;
        uint64_t quarter = UINT64_C(1) << (octave - 2);
        return (METER_STEPS + (i - 1) % METER_STEPS + 1) * quarter;
}

uint64_t meter_errors(const struct meter *meter)
{
        uint64_t sum = 0;
        for (unsigned k = 0; k < METER_KINDS; k++)
                sum += meter->line[k].errors;
        return sum;
}

void meter_line_add(struct meter_line *to, const struct meter_line *from)
{
        to->requests += from->requests;
        to->errors += from->errors;
        to->bytes += from->bytes;
        to->latency_ns += from->latency_ns;
        for (unsigned i = 0; i < METER_BUCKETS; i++)
                to->bucket[i] += from->bucket[i];
}

void meter_read(const struct meter *meter, uint64_t now_ns, struct meter_stats *stats)
{
        *stats = (struct meter_stats){
            .depth = meter->queue.depth,
            .depth_ns = meter_queue_depth_ns(&meter->queue, now_ns),
            .busy_ns = meter_queue_busy_ns(&meter->queue, now_ns),
        };
        for (unsigned k = 0; k < METER_KINDS; k++)
                stats->line[k] = meter->line[k];
}
