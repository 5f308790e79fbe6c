/* sim_ways.h - which ways an opening took, told by what lay on the disks: what the engine itself says
 * nothing of.
 *
 * Threads    one.
 * Errors     none.
 */
#pragma once
#include "pool/pool.h"
#include "tests/sim/sim_disk.h"

/* What the disks hold before they are opened. */
struct sim_found {
        uint64_t generation;                 /* of the newest superblock; 0: there is none */
        uint64_t log_incarnation, log_start; /* of that */
        unsigned n_labels_lost,
            n_ends_lost;   /* labels, newest superblocks, of which one copy is bad */
        unsigned n_behind; /* members with an older one */
        bool torn;         /* something is left of a newer one */
};

void sim_ways_before(struct sim_disk *const *disks, unsigned n_disks, struct sim_found *ret_found);
/* They were opened as @pool, a moment ago: count. */
void sim_ways_after(struct pool *pool, const struct sim_found *found);
