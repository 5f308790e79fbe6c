/* output.h - the file or block device that an export writes.
 *
 * A regular file, also one that exists, is made beside its name and takes the name only when all of
 * it is durable: whatever ends the export before that, the name stands for what it stood for. A
 * block device is written in place.
 *
 * Threads    blocking.
 * Errors     0 or -errno with a sentence that names the file.
 * Ownership  an output_open() that succeeded is followed by output_close(), which takes away what
 *            output_finish() did not give its name.
 */
#pragma once
#include <limits.h>
#include <stdbool.h>

#include "common/error.h"

struct output {
        int fd;                    /* where the image goes */
        int folder_fd;             /* of the file; -1: written in place */
        char path[PATH_MAX];       /* of the file itself, not of links to it */
        const char *name;          /* its last part */
        char beside[NAME_MAX + 1]; /* the other name in that folder */
        bool replaces;             /* there was a file */
        bool has_other_name;       /* @beside is there; else the file has no name at all */
};

/* @force takes what exists already, other than a member of a pool and what is in use. */
int output_open(struct output *o, const char *path, bool force, struct error *err);
/* A file without a name in the same folder, for what is made on the way; the descriptor is the caller's.
 * Not of one that is written in place. */
int output_scratch(const struct output *o, struct error *err);
int output_finish(struct output *o, struct error *err);
void output_close(struct output *o);
