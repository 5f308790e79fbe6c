/* operate.h - between volume.c and snapshot.c: one operation on the catalog at a time. */
#pragma once
#include "pool/engine.h"

/* Under the catalog's lock, where writing is possible. */
int co_operate_begin(struct pool *pool, struct error *err);
/* Durable, garbage collected, unlocked: @r is passed through where it is an error already. */
int co_operate_end(struct pool *pool, int r, struct error *err);
/* Room for an operation that changes @n roots. What @adds to the catalog leaves half of the reserve
 * to what takes away from it, so that a full pool can be deleted from. */
int co_operate_admit(struct pool *pool, uint64_t n, bool adds, struct error *err);
/* Prepare one operation: what it names is in memory, and there is room for it. */
int co_operate_prepare(struct pool *pool, const struct catalog_op *op, struct error *err);
/* [sync] Apply and log; failing half way is out of memory, and stops the pool. */
int operate(struct pool *pool, const struct catalog_op *op, bool more, struct error *err);
/* A new operation of @type with a time and, where @uuid, a random uuid. */
int op_begin(struct catalog_op *op, uint8_t type, bool uuid, struct error *err);
int volume_size_check(uint64_t size_bytes, struct error *err);
int volume_name_is_new(struct pool *pool, const char *name, struct error *err);
/* NULL: no such thing */
struct root *root_require(struct pool *pool, const char *name, struct error *err);
int snapshot_name_split(const char *name, char volume[POOL_NAME_MAX + 1], const char **ret_snapshot,
                        struct error *err);
