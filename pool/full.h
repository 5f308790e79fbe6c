/* full.h - a pool without space; and what its observer is told.
 *
 * Units      as the names say.
 * Threads    the pool's loop.
 */
#pragma once
#include "pool/engine.h"

/* A request has failed with -ENOSPC and holds nothing any more. 0: it waits, and will be started
 * again; otherwise what it is to be answered with. */
int full_wait(struct volume_request *req);
void full_look(struct pool *pool);    /* some room may have come, or gone */
void filling_look(struct pool *pool); /* tell, where a level has been passed */
void full_written(struct pool *pool); /* one that waited has found space */
/* Those that are no longer to wait end: of handles that were cancelled or hurried, of volumes that were set
 * otherwise, all where the pool has stopped. */
void full_give_up(struct pool *pool);

/* ---- telling ---- */

static inline void pool_tell(struct pool *pool, const struct pool_event *event)
{
        if (pool->observer)
                pool->observer(event, pool->observer_arg);
}

/* "VOL" or "VOL@SNAP", "(deleted)" in the place of a name that there is no more. In usage.c. */
#define ROOT_LABEL_MAX (2 * POOL_NAME_MAX + 12)
void root_label(struct pool *pool, const struct root *root, char text[ROOT_LABEL_MAX]);
