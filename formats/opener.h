/* opener.h - which other files an image may have opened: the one place where that is decided.
 *
 * What an image says is no permission: it may come from anybody, and be read by root. Without more
 * it may name regular files in its own folder, or below. What else, the user says: a file, or a
 * folder and what is below it. Where a file really is counts, behind "..", and behind symbolic links
 * too. A name is relative to the folder of the image that has it. URIs and protocols ("nbd:",
 * "json:", "file:") are no files. The URI of an NBD export is followed where the user has said that URI,
 * or "nbd://HOST/" for all that are of that server and say nothing more: an image names no keys and no
 * sockets.
 *
 * Threads    blocking; [any thread].
 * Errors     0 or -errno with a sentence that names both files.
 * Ownership  ret_fd and ret_path (malloc'ed) are the caller's.
 * Source     openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS.
 */
#pragma once
#include "formats/image.h"

/* Open @name, which the image at @from has, for reading.
 *
 * -EPERM   it is elsewhere, or of another kind, and the user has not named it
 * -EINVAL  it is no name of a file */
int opener_open(const char *from, const char *name, enum image_use use, const char *const *allowed,
                size_t n_allowed, int *ret_fd, char **ret_path, struct error *err);

/* Whether @name, the URI of an NBD export that the image at @from has, may be connected to.
 *
 * -EPERM  the user has not named it */
int opener_export(const char *from, const char *name, const char *const *allowed, size_t n_allowed,
                  struct error *err);

/* "nbd:", "json:", "file:": what stands before a colon and has no slash. */
bool opener_has_protocol(const char *name);
