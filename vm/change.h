/* change.h - changes to a machine's file, for its next start.
 *
 * Threads    blocking; known.h's.
 * Errors     0 or -errno with a sentence. What cannot be is refused before anything is written.
 * Ownership  a struct known stays the caller's; its file may be another afterwards.
 */
#pragma once
#include "vm/known.h"

/* "cpus=4", "memory=2G": any key of a VM file that has one value. A path is absolute: whoever is asked to
 * change the file need not be where it was written. */
int change_set(struct known *k, const char *word, struct error *err);
/* @word, with a path made absolute from the working folder. Release with free(). */
int change_absolute(const char *word, char **ret_word, struct error *err);

/* POOL/VOLUME, or POOL/VOLUME@SNAPSHOT, which is read-only. */
int change_parse_disk(const char *word, bool readonly, struct vm_disk *ret, struct error *err);
/* One more, last; or that one no more. A file that has it, or has it not, already is no error. */
int change_add_disk(struct known *k, const struct vm_disk *disk, struct error *err);
int change_drop_disk(struct known *k, const struct vm_disk *disk, struct error *err);
