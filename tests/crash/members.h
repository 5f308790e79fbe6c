/* members.h - the members that a user would open a pool with, found as a user would.
 *
 * Threads    coroutines of @loop.
 * Errors     0 or -errno with a sentence; then no member stays open.
 * Ownership  the members are the caller's, each to be closed or handed to a pool.
 */
#pragma once
#include "pool/pool.h"
#include "tests/sim/sim_disk.h"

/* Open members on those of @disks that the newest superblock of any of them names: a disk whose
 * 'add' did not come to its superblock is no member. *kept has a bit for each disk; @members is in
 * the order of the disks. */
int co_members_open(struct loop *loop, struct sim_disk *const *disks, unsigned n_disks,
                    struct member **members, unsigned *ret_n, unsigned *kept, struct error *err);

/* Do the others name the last of @disks as a member, where any names it? One that was being added when
 * the power went may be gone for good, and nobody misses it but those that name it. */
bool co_members_agree(struct loop *loop, struct sim_disk *const *disks, unsigned n_disks);
