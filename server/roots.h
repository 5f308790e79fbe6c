/* roots.h - the pool's volumes and snapshots as JSON, with what only the whole list can tell: how
 * many snapshots a volume has, which clones a snapshot has.
 *
 * Units      sizes are bytes.
 * Threads    coroutines of the pool's loop.
 * Errors     0 or -errno with a sentence.
 * Ownership  both arrays are the caller's until roots_release().
 */
#pragma once
#include "server/command.h"

struct roots {
        json_t *volumes;   /* array, by name */
        json_t *snapshots; /* array, by volume and age */
};

/* Release with roots_release(), also after a failure. */
int co_roots_list(struct host_pool *hp, struct roots *roots, struct error *err);
void roots_release(struct roots *roots);

/* One of them; NULL where there is none. Borrowed. */
json_t *roots_find(json_t *array, const char *full_name);
