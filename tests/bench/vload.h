/* vload.h - one run of load on a vhost-user-blk device: what is asked for, and what was measured.
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
#include "tests/bench/load_options.h"
#include "tests/bench/load_result.h"

#define VLOAD_QUEUES_MAX 16u
#define VLOAD_DEPTH_MAX  256u

struct vload_options {
        const char *path;
        struct load_options load;               /* block_bytes: a multiple of 512 */
        unsigned queues, segments;              /* of the data of a request */
        unsigned zero_percent, discard_percent; /* of what is not read, the rest is written */
        bool packed, no_indirect, no_event_index, no_inflight;
        /* FLUSH and CONFIG_WCE are not agreed on: a write that is answered is durable */
        bool write_through;
        bool reconnect; /* the server may be killed under it: connect again, and go on */
        /* what was answered and not flushed may be gone then; else it may not, for whoever had the
         * answers still lives */
        bool lossy;
};

struct vload_result {
        struct load_result load;
        uint64_t kicks, calls; /* all that were sent and awaited */
        unsigned reconnects;
};

/* *ret_result is filled only on success, and is large: not for the stack.
 *
 * -EILSEQ     the volume holds wrong data
 * -ENOTSUP    the device lacks what is asked for
 * -ETIMEDOUT  the device does not answer */
int vload_run(const struct vload_options *options, struct vload_result *ret_result,
              struct error *err);
