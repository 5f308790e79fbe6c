/* load_options.h - what the load clients have in common, whatever the protocol: the plan, how long it
 * runs, contents and their stamps; as options of their command lines.
 *
 * Units      as the names say.
 * Threads    [any thread]
 * Errors     -EINVAL or -ERANGE with a sentence.
 * Ownership  texts stay the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/error.h"
#include "tests/bench/plan.h"
#include "tests/bench/stamp.h"

struct load_options {
        const char *op;
        uint64_t range_offset, range_bytes; /* range_bytes 0: to the volume's end */
        uint32_t block_bytes;
        unsigned depth; /* requests in flight, in each connection or queue */
        unsigned read_percent;
        bool random, once; /* see plan.h */
        bool only_flushes; /* no reads and writes at all */
        /* writes of a connection or queue between two flushes; 0 never. The writes before it are
         * waited for, and none begins until it is answered: what fsync() does */
        unsigned flush_every;
        bool end_flush; /* one flush after the last answer, outside what is measured */
        bool verify;
        bool after_crash;        /* the first look after the server was killed, */
        bool after_client;       /* or the client: see stamp.h */
        const char *stamps_path; /* NULL: stamps are forgotten at the end */
        uint64_t seed;
        bool has_seconds;
        uint64_t run_ns;    /* 0: until the plan ends */
        uint64_t warmup_ns; /* at the start, not measured */
        pid_t server_pid;   /* 0: unknown */
};
#define LOAD_OPTIONS_INIT                                                                          \
        {                                                                                          \
                .op = "randread", .block_bytes = 4096, .depth = 32, .read_percent = 70, .seed = 1, \
                .run_ns = 1000000000                                                               \
        }

struct load_option {
        const char *name;
        bool has_value;
};
extern const struct load_option load_option_names[]; /* ends with {0} */

extern const char load_options_help[]; /* what a client's help says of them */

/* Take the option --@name, which is one of these. */
int load_take_option(struct load_options *options, const char *name, const char *value,
                     unsigned depth_max, struct error *err);
/* All are taken: what they come to, and whether they go together. */
int load_check_options(struct load_options *options, struct error *err);
/* What may have happened since the stamps were last written in. */
enum stamp_since load_since(const struct load_options *options);
/* The range in a volume of @size bytes, and the plan of it. */
int load_plan_range(struct load_options *options, uint64_t size, struct plan *ret_plan,
                    struct error *err);
