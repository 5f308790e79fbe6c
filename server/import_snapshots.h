/* import_snapshots.h - the snapshots inside of an image, each as one of the volume that is filled.
 *
 * Threads    coroutines of the pool's loop.
 * Errors     0 or -errno with a sentence; what was made until then stays on the volume.
 */
#pragma once
#include "server/image_request.h"

#define IMPORT_SNAPSHOTS_MAX 4096u

/* What @image holds, opened as @snapshot, goes into volume @name, and is compared with it where the request
 * says "verify". @over: of what it holds already, what is the same stays as it is, and is shared with its
 * snapshots. */
int co_import_state(struct image_request *q, struct image *image, const char *snapshot,
                    const char *name, bool over, struct error *err);

/* All that @image says it has, oldest first. The volume is empty, and of any size; afterwards it has
 * the content and size of the last one. They are called as they were as far as names allow:
 * ret_snapshots holds "name" and "snapshot" of each. */
int co_import_snapshots(struct image_request *q, const struct image *image, const char *name,
                        json_t *ret_snapshots, struct error *err);

/* A whole number of sectors. */
uint64_t import_bytes(const struct image *image);
