/* known.h - the virtual machines that this user has started before: a folder for each in the state
 * folder, vm/NAME/.
 *
 *     vm.yaml   the file as it was started last, with the uuid that was made for it
 *     lock      held by the machine's supervisor while it runs; holds its process id
 *     log       what a supervisor in the background says
 *
 * Units      none.
 * Threads    [any thread]; several processes may work on the folder: who changes one holds its lock.
 * Errors     0 or -errno with a sentence.
 * Durability vm.yaml is written under another name, fsynced and renamed.
 * Ownership  release with known_free(), which lets the lock go.
 */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "vm/file.h"

struct known {
        char name[POOL_NAME_MAX + 1];
        char folder[PATH_MAX];
        int lock; /* -1: not held */
        /* The snapshot that its next run goes on from; empty: it begins anew. */
        char resume[POOL_NAME_MAX + 1];
        unsigned disk_numbers[VM_DISKS_MAX]; /* that its disks had there */
        struct vm_file *file;
};

/* What the VMM knows the file's disk @i by: its place, or its number of then. */
static inline unsigned known_disk_number(const struct known *k, size_t i)
{
        return k->resume[0] ? k->disk_numbers[i] : (unsigned)i;
}

/* The machine of @file, which is taken over also on failure, from now on ours to run: it gets the uuid
 * that it had before, or a new one, and is written down.
 *
 * -EBUSY  it runs */
int known_take(struct vm_file *file, struct known **ret, struct error *err);
/* The machine as it is written down; not locked.
 *
 * -ENOENT  no such machine is known */
int known_open(const char *name, struct known **ret, struct error *err);
/* Likewise, and locked: as it is from then on. -EBUSY */
int known_lock(const char *name, struct known **ret, struct error *err);
/* Write a changed k->file down. */
int known_save(const struct known *k, struct error *err);
/* All of @text, and to the disk. No sentence. */
int known_write(int fd, const char *text);
/* Forget it. It is locked. */
int known_remove(struct known *k, struct error *err);
void known_free(struct known *k); /* NULL is fine */

/* This process is the one that has the lock: a child of who has taken it. */
int known_is_ours(const struct known *k, struct error *err);

/* Whether a supervisor has its lock, and which process that is; 0: none. */
pid_t known_runner(const char *name);
/* Its control socket. */
int known_socket(const char *name, char *path, size_t size, struct error *err);
/* A file of its folder: "log". */
int known_path(const char *name, const char *file, char *path, size_t size, struct error *err);

/* The folders in @path that hold a machine's file: their names, sorted; release with state_names_free().
 * There may be others' files, and no @path. */
int known_list(const char *path, char ***ret_names, size_t *ret_n, struct error *err);
/* All names, sorted; release with state_names_free(). */
int known_names(char ***ret_names, size_t *ret_n, struct error *err);
