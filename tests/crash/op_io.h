/* op_io.h - what one operation of a plan is to the model and to the pool: for the crash explorer
 * and the simulator.
 *
 * Units      as in ops.h.
 * Threads    one; co_* in coroutines of the pool's loop.
 * Errors     0 or -errno.
 * Ownership  lists of blocks are malloc'ed, the caller's.
 */
#pragma once
#include "pool/pool.h"
#include "tests/crash/model.h"
#include "tests/crash/ops.h"

bool op_is_io(const struct op *op);
bool op_is_catalog(const struct op *op);
bool op_is_copy(const struct op *op); /* of an image */
/* More blocks than are recorded one by one: it must be alone on its volume. */
bool op_is_wide(const struct op *op);
void op_volume(const struct op *op, char name[MODEL_NAME_MAX]);
void op_request(const struct op *op, struct catalog_request *ret_request);
int co_op_catalog(struct pool *pool, const struct catalog_request *request, struct error *err);

/* A write, discard or zeroing of @op's range; @logged where it is not FUA: VOLUME_LOGGED. */
int co_op_submit(struct volume *volume, const struct op *op, const uint8_t *buffer, bool logged);

/* The grains of @block in the range. */
uint16_t op_mask(const struct op *op, uint64_t block);
/* The blocks that a request changes, as far as the model must know: of a wide one those that hold
 * anything. */
size_t op_blocks(const struct model *model, const struct op *op, uint64_t **ret_blocks);
/* What a write puts into @block, in the request's buffer. */
void op_fill(const struct op *op, uint8_t *buffer, uint64_t block, uint32_t version);
/* What a read found of @block in the request's buffer. */
void op_content(const struct op *op, const uint8_t *buffer, uint64_t block,
                struct content *ret_content);

/* ---- what may go on at once ---- */

/* What goes on with the volume of a slot. */
struct slot {
        struct volume *handle;
        unsigned io;      /* requests in flight */
        unsigned catalog; /* operations of the catalog in flight: at most one */
        bool exclusive;   /* one that tolerates no I/O, or a request that tolerates no other */
};

/* Does a catalog operation need its volumes without I/O: a restore, a deletion, a shrink, a change
 * of slots. */
bool op_needs_quiet(const struct model *model, const struct op *op);
/* May it overlap with what goes on in @slots, as a user of pool.h must keep them apart? */
bool slots_may_start(const struct slot slots[VOLUME_SLOTS], const struct model *model,
                     const struct op *op);
void slots_mark(struct slot slots[VOLUME_SLOTS], const struct op *op, bool quiet, bool on);
/* Is it possible at all, as things are now? */
bool op_is_possible(const struct model *model, const struct op *op);
