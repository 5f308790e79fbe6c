/* restore.h - what is done with snapshots of machines that do not run: taking one of the disks, going
 * back to one, making another machine of it, deleting it.
 *
 * Threads    blocking; the only thread of the process (server/session.h).
 * Errors     0 or -errno with a sentence.
 * Ownership  all stays the caller's but for what is marked.
 */
#pragma once
#include "vm/saved.h"

/* A snapshot of the disks of @k, whose lock is held. -EEXIST */
int restore_take_disks(const struct known *k, const char *snapshot, struct error *err);

/* The volumes of @k, whose lock is held, and its file become what they were; where its memory was
 * saved, its next run goes on from there. What the volumes held is kept as snapshots of their own.
 *
 * -EBUSY  somebody else uses a volume */
int restore_machine(struct known *k, const char *snapshot, struct error *err);

/* A new machine of that name, with clones of the volumes: "NAME" for the first, "NAME-VOLUME" for the
 * others. It has a uuid, MAC addresses and no forwarded ports of its own, and begins by booting from
 * its disks: two guests with one memory would be one in all that they hold for unique.
 *
 * -EEXIST  there is such a machine, or a volume */
int restore_clone(const char *machine, const char *snapshot, const char *name,
                  struct known **ret_known, struct error *err);

/* The machine's, and its volumes' of that name. Its lock is held, or it runs and is not about to take
 * one of that name. */
int restore_delete(const char *machine, const char *snapshot, struct error *err);
