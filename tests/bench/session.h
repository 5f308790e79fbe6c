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
#include <sys/types.h>
#include "common/error.h"
#include "tests/bench/latency.h"
#include "tests/bench/link.h"
#include "tests/bench/plan.h"

#define SESSION_CONNECTIONS_MAX 64u

struct session_options {
        struct link_target target;
        uint64_t range_offset, range_bytes; /* range_bytes 0: to the export's end */
        uint32_t block_bytes;
        unsigned depth; /* requests in flight, a connection */
        unsigned connections;
        unsigned read_percent;
        bool random, once; /* see plan.h */
        bool only_flushes; /* no reads and writes at all */
        /* writes of a connection between two flushes; 0 never. The writes before it are waited for,
         * and none begins until it is answered: what fsync() does */
        unsigned flush_every;
        bool fua;
        bool end_flush; /* one flush after the last answer, outside what is measured */
        bool structured;
        bool verify;
        bool after_crash;        /* the first look after the server was killed; see stamp.h */
        const char *stamps_path; /* NULL: stamps are forgotten at the end */
        uint64_t seed;
        uint64_t run_ns;    /* 0: until the plan ends */
        uint64_t warmup_ns; /* at the start, not measured */
        pid_t server_pid;   /* 0: unknown */
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
