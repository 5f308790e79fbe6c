/* saved.h - snapshots of whole machines: a folder for each in the machine's, snapshots/NAME/.
 *
 *     vm.yaml   the machine as it had been started, but with the disks that it had at that instant;
 *               without its memory: as its file was then
 *     memory    of its guest, as vmm-glue/vmm/vmm.h has it
 *     state     of its processors and devices, likewise
 *     disks     what the state knows the disks of vm.yaml by, in that order: numbers, a JSON array. Where
 *               there is none, as of a tarn that saved no machine whose disks had changed, their places
 *
 * One that is made has the name .NAME meanwhile, one that is removed ..NAME; what is left of it goes when
 * the next one of its name is made or removed, and with the machine.
 *
 * Its disks are in their pools: a snapshot of that name of each volume. Without memory and state the
 * machine did not run, or only its disks were wanted.
 *
 * Units      none.
 * Threads    [any thread]; who makes or removes one holds the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Durability a snapshot is there, whole and on the disk, or it is not: it is made under another name.
 * Ownership  paths and names are the caller's.
 */
#pragma once
#include <jansson.h>
#include <limits.h>

#include "vm/known.h"

/* A file of it; NULL: its folder. */
int saved_path(const char *machine, const char *snapshot, const char *file, char *path, size_t size,
               struct error *err);
bool saved_is_there(const char *machine, const char *snapshot);
bool saved_has_memory(const char *machine, const char *snapshot);

/* One that is being made. */
struct saving {
        const char *machine, *snapshot;
        char folder[PATH_MAX]; /* under its other name; empty: there is nothing to undo */
        int memory, state;     /* -1: not made */
};
/* -EEXIST  there is a snapshot of that name */
int saving_begin(struct saving *saving, const char *machine, const char *snapshot,
                 struct error *err);
int saving_open_memory(struct saving *saving, struct error *err);
/* @text is its vm.yaml; @numbers are of the disks in it, NULL without memory. */
int saving_commit(struct saving *saving, const char *text, const unsigned *numbers, size_t n_disks,
                  struct error *err);
void saving_abandon(struct saving *saving); /* what was begun is no more; fine after a commit */

/* -ENOENT  there is none of that name */
int saved_load(const char *machine, const char *snapshot, struct vm_file **ret_file,
               struct error *err);
/* Of the @n_disks of its file. -EINVAL: they are damaged */
int saved_load_numbers(const char *machine, const char *snapshot, size_t n_disks,
                       unsigned numbers[VM_DISKS_MAX], struct error *err);
int saved_remove(const char *machine, const char *snapshot, struct error *err);
/* All names, sorted; release with state_names_free(). */
int saved_names(const char *machine, char ***ret_names, size_t *ret_n, struct error *err);
/* What there is, for people: [{"name", "created", "memory"}]; memory: bytes on the disk, null where there
 * is none. New. */
int saved_list(const char *machine, json_t **ret_list, struct error *err);
/* All of a machine that is forgotten. */
int saved_remove_all(const char *machine, struct error *err);

/* Is it a volume that the machine writes to? One that it only reads is left as it is. */
bool saved_disk_is_written(const struct vm_disk *disk);
/* The names of the snapshots of one pool's volumes that belong to it: ["VOL@SNAP"]; NULL: no memory. */
json_t *saved_disks(const struct vm_file *file, const char *pool, const char *snapshot);
/* Is @file's disk @i the first one of its pool that would be in it? */
bool saved_disk_leads(const struct vm_file *file, size_t i);
