/* files.h - the other files that an image needs, opened by whoever gives the command.
 *
 * Those that are read are opened as formats/opener.h allows; those that are made come to be as
 * output.h says, all or none of them.
 *
 * Threads    one; blocking.
 * Errors     0 or -errno with a sentence that names the files.
 * Ownership  files_init() is followed by files_close(), which closes what is kept and takes away new
 *            files that files_finish() did not give their names.
 */
#pragma once
#include <stdatomic.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "formats/image.h"

/* With the image itself they all go into one request. */
#define FILES_MAX 249u

struct file_entry {
        char *from, *name, *path;
        int fd;
        struct output *output; /* of a new one */
        struct image *image;   /* an NBD export, whose URI is the name; connected to */
        char *export;          /* its name, where @fd is such a connection, for a request */
};

struct files {
        struct image_opener opener;
        struct image_opener made; /* of new ones that were written, to read them */
        const char *const *allowed;
        size_t n_allowed;
        bool force;
        bool keep; /* descriptors, for a request */
        const atomic_bool *cancelled;
        struct file_entry entry[FILES_MAX];
        size_t n;
};

void files_init(struct files *files, const struct cli_args *args);
/* NBD exports are followed as well, where they are allowed. Without @keep they are closed before the loop
 * that they were opened on ends. @cancelled as in nbd.h; NULL with @keep. */
void files_follow_exports(struct files *files, const atomic_bool *cancelled);
void files_close_exports(struct files *files);
/* Connect to those that were met, for a request. */
int files_connect(struct files *files, struct error *err);

int files_finish(struct files *files, struct error *err);
void files_close(struct files *files);

/* For a request: field "files", and the descriptors after the first one of fds[]. NULL where there is
 * no memory. */
void files_put(const struct files *files, json_t **request, int fds[FILES_MAX + 1], size_t *n_fds);
