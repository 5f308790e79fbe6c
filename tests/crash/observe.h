/* observe.h - read everything that a pool holds.
 *
 * Threads    coroutines of the pool's loop.
 * Errors     0, or -errno and @text.
 * Ownership  release what was observed with observed_free().
 */
#pragma once
#include "pool/pool.h"
#include "tests/crash/model.h"

/* Every block of every volume and snapshot; of those above OBSERVE_WHOLE_BYTES what block status
 * calls data. 0, or -errno and @text. */
#define OBSERVE_WHOLE_BYTES (UINT64_C(1) << 20)
int co_observe(struct pool *pool, struct observed *ret_observed, char *text, size_t text_size);

/* The same where disks are damaged: a block that answers -EIO is observed as VERSION_UNREADABLE. */
int co_observe_damaged(struct pool *pool, struct observed *ret_observed, char *text,
                       size_t text_size);

/* co_pool_check() with data; findings are failures.
 *
 * -EUCLEAN  there are some: the first is in @text */
int co_check(struct pool *pool, char *text, size_t text_size);
