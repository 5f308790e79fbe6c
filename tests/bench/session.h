/* session.h - one run of load on an export: what is asked for, and what was measured.
 *
 * Units      bytes and nanoseconds, as the names say; counts are requests.
 * Threads    one; blocking.
 * Errors     0 or -errno with a sentence.
 * Ownership  options and their strings stay the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/bench/latency.h"
#include "tests/bench/link.h"
#include "tests/bench/load_options.h"

#define SESSION_CONNECTIONS_MAX 64u

struct session_options {
        struct link_target target;
        struct load_options load;
        unsigned connections;
        bool fua;
        bool structured;
};

struct session_result {
        uint64_t elapsed_ns; /* of what is measured */
        uint64_t reads, writes, flushes;
        uint64_t bytes;
        uint64_t all_flushes;   /* warm-up and end included */
        uint64_t checked_bytes; /* compared with their stamps, warm-up included */
        struct latency latency, flush_latency;
        uint64_t client_cpu_ns;
        uint64_t server_cpu_ns; /* 0 without server_pid */
        bool plan_ended;
};

/* *ret_result is filled only on success, and is large: not for the stack.
 *
 * -EILSEQ     the volume holds wrong data
 * -ENOTSUP    the export lacks what is asked for
 * -ETIMEDOUT  the server does not answer */
int session_run(const struct session_options *options, struct session_result *ret_result,
                struct error *err);
