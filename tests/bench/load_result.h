/* load_result.h - what a run of load has measured, whatever the protocol.
 *
 * Units      bytes and nanoseconds, as the names say; counts are requests.
 * Threads    one.
 * Errors     none.
 * Ownership  plain memory of the caller's, zeroed at the start; large: not for the stack.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "tests/bench/latency.h"
#include "tests/bench/load_options.h"

struct load_result {
        uint64_t elapsed_ns; /* of what is measured */
        uint64_t reads, writes, zeroes, discards, flushes;
        uint64_t bytes;
        uint64_t all_flushes;   /* warm-up and end included */
        uint64_t checked_bytes; /* compared with their stamps, warm-up included */
        struct latency latency, flush_latency;
        uint64_t client_cpu_ns;
        uint64_t server_cpu_ns; /* 0 without server_pid */
        bool plan_ended;
};

/* On stdout, as members of a JSON object that begins here and that the caller ends. */
void load_print_result(const struct load_options *options, const struct load_result *result);
