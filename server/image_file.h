/* image_file.h - the files that images consist of, kept open for the next time that they are needed: by then a
 * server has given its paths up.
 *
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  the descriptors and paths that are given out are the caller's. image_file_get() and
 *            image_file_keep() are followed by image_file_put().
 */
#pragma once
#include "server/host.h"

struct image_file;

/* What the image at path @from has as @name; the image itself has its path as a name, and no @from (""). *ret_file
 * is NULL, and nothing else set, where that is not kept. */
int image_file_get(struct host *host, const char *from, const char *name, int *ret_fd,
                   char **ret_path, struct image_file **ret_file, struct error *err);
/* From now on it is what @fd is. */
int image_file_keep(struct host *host, const char *from, const char *name, const char *path, int fd,
                    struct image_file **ret_file, struct error *err);
/* @needed: it stays, also where nobody else has it. */
void image_file_put(struct host *host, struct image_file *file, bool needed);
void image_files_close(struct host *host);
