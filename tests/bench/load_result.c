/* load_result.c - see load_result.h. */
#include "tests/bench/load_result.h"
#include <inttypes.h>
#include <stdio.h>

void load_print_result(const struct load_options *o, const struct load_result *r)
{
        uint64_t transfers = r->reads + r->writes + r->zeroes + r->discards;
        uint64_t ios = o->only_flushes ? r->flushes : transfers;
        double seconds = (double)r->elapsed_ns / 1e9;
        double per_second = seconds > 0 ? 1 / seconds : 0, per_io = ios ? 1.0 / (double)ios : 0;

        printf("{\"op\": \"%s\", \"block_bytes\": %u, \"depth\": %u, \"seconds\": %.6f, "
               "\"ios\": %" PRIu64 ", \"reads\": %" PRIu64 ", \"writes\": %" PRIu64
               ", \"zeroes\": %" PRIu64 ", \"discards\": %" PRIu64 ", \"flushes\": %" PRIu64
               ", \"iops\": %.1f, \"mib_per_s\": %.2f",
               o->op, o->block_bytes, o->depth, seconds, ios, r->reads, r->writes, r->zeroes,
               r->discards, r->flushes, (double)ios * per_second,
               (double)r->bytes * per_second / 1048576);
        latency_print("latency_us", &r->latency);
        latency_print("flush_latency_us", &r->flush_latency);
        printf(", \"client_cpu_us_per_io\": %.3f", (double)r->client_cpu_ns * per_io / 1e3);
        if (o->server_pid)
                printf(", \"server_cpu_us_per_io\": %.3f", (double)r->server_cpu_ns * per_io / 1e3);
        printf(", \"all_flushes\": %" PRIu64 ", \"checked_bytes\": %" PRIu64 ", \"plan_ended\": %s",
               r->all_flushes, r->checked_bytes, r->plan_ended ? "true" : "false");
}
