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
#include "tests/bench/link.h"
#include "tests/bench/load_options.h"
#include "tests/bench/load_result.h"

#define SESSION_CONNECTIONS_MAX 64u

struct session_options {
        struct link_target target;
        struct load_options load;
        unsigned connections;
        bool fua;
        bool structured;
};

/* *ret_result is filled only on success.
 *
 * -EILSEQ     the volume holds wrong data
 * -ENOTSUP    the export lacks what is asked for
 * -ETIMEDOUT  the server does not answer */
int session_run(const struct session_options *options, struct load_result *ret_result,
                struct error *err);
