/* probe.h - questions to a pool whose answers can be held against what it holds.
 *
 * They change the pool, and so come last.
 *
 * Threads    coroutines of the pool's loop.
 * Errors     0, or -errno and @text.
 */
#pragma once
#include "pool/pool.h"
#include "tests/crash/images.h"
#include "tests/sim/sim_random.h"

/* Two roots are compared: every block that differs must be in a range, and the ranges be in order
 * and apart. */
int co_probe_diff(struct pool *pool, const struct observed *observed, struct sim_random *random,
                  char *text, size_t text_size);
/* A snapshot, or a volume without any, is deleted: what comes free must be what was foretold, the
 * check find nothing, and all else stay what it was. @pool must be settled. */
int co_probe_delete(struct pool *pool, struct images *images, const struct observed *observed,
                    struct sim_random *random, char *text, size_t text_size);
