/* image_base_open.c - the files and exports that images consist of: opened, kept, recognised. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/offload.h"
#include "formats/nbd.h"
#include "server/image_base_internal.h"

/* ---- opening an image and what belongs to it ---- */

/* Where it is, by its path: whether that is still the file that a user once allowed to be read is what
 * the identity tells, before a byte of it reaches anybody. */
static int open_by_path(const char *from, const char *name, int *ret_fd, char **ret_path,
                        struct error *err)
{
        const char *slash = name[0] == '/' ? NULL : strrchr(from, '/');
        int r = asprintf(ret_path, "%.*s%s", slash ? (int)(slash - from + 1) : 0, from, name);

        if (r < 0)
                return error_set(err, -ENOMEM, "out of memory");
        *ret_fd = open(*ret_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (*ret_fd >= 0)
                return 0;
        r = error_set(err, -errno, "cannot open '%s': %s", *ret_path, strerror(errno));
        free(*ret_path);
        *ret_path = NULL;
        return r;
}

/* @ret_file is what the host has kept, or, NULL, has not. */
static int open_again(struct host *host, const char *from, const char *name, int *ret_fd,
                      char **ret_path, struct image_file **ret_file, struct error *err)
{
        int r = image_file_get(host, from, name, ret_fd, ret_path, ret_file, err);

        return r < 0 || *ret_file ? r : open_by_path(from, name, ret_fd, ret_path, err);
}

/* @file, of image_file_get(), is taken over. */
static int keep_part(struct image_base *b, const char *from, const char *name, const char *path,
                     int fd, struct image_file *file, struct error *err)
{
        struct base_opener *o = &b->opener;
        int r = file ? 0 : image_file_keep(o->host, from, name, path, fd, &file, err);

        if (r < 0)
                return r;
        r = image_part_add(b, fd, path, file, o->identity, err);
        if (r < 0)
                image_file_put(o->host, file, false);
        return r;
}

/* What came along with a request is taken from there, what the host has from the host, and only the
 * rest by its path. All of it counts for the identity. */
static int open_other(struct image_opener *opener, const char *from, const char *name,
                      enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct base_opener *o = container_of(opener, struct base_opener, opener);
        struct image_base *b = container_of(o, struct image_base, opener);
        struct image_file *file = NULL;
        int r = 0;

        if (use == IMAGE_NEW_PART)
                return error_set(err, -EROFS, "'%s' is read only", from);
        if (o->request)
                r = o->request->opener.open(&o->request->opener, from, name, use, ret_fd, ret_path,
                                            err);
        else
                r = open_again(o->host, from, name, ret_fd, ret_path, &file, err);
        if (r < 0)
                return r;
        r = keep_part(b, from, name, *ret_path, *ret_fd, file, err);
        if (r < 0) {
                close(*ret_fd);
                free(*ret_path);
        }
        return r;
}

/* The image itself: nothing names it. */
static int open_image_file(struct image_base *b, const char *path, struct error *err)
{
        struct base_opener *o = &b->opener;
        struct image_file *file = NULL;
        char *same = NULL;
        int r = 0;

        if (o->request)
                b->fd = fcntl(o->request->command->fds[0], F_DUPFD_CLOEXEC, 3);
        if (o->request && b->fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        if (!o->request)
                r = open_again(o->host, "", path, &b->fd, &same, &file, err);
        free(same);
        return r < 0 ? r : keep_part(b, "", path, path, b->fd, file, err);
}

int co_image_base_open_file(struct image_base *b, struct image_request *request, const char *path,
                            const struct image_options *how, struct image_identity *identity,
                            struct error *err)
{
        struct base_opener *o = &b->opener;
        struct image_options options = *how;
        int r;

        *identity = (struct image_identity){0};
        *o = (struct base_opener){
            .opener = {open_other}, .host = b->hp->host, .request = request, .identity = identity};
        r = open_image_file(b, path, err);
        if (r < 0)
                return r;
        b->offload = offload_new(0);
        options.opener = &o->opener;
        options.offload = b->offload;
        r = co_image_open(b->fd, path, &options, &b->image, err);
        if (r == 0 && (request || b->image->is_block_device))
                r = co_image_sample(b->image, &identity->sample, err);
        o->request = NULL;
        return r;
}

/* ---- exports ---- */

void image_base_problem(struct image_base *b, const struct error *e)
{
        if (strcmp(b->problem, e->message) == 0)
                return;
        snprintf(b->problem, sizeof(b->problem), "%s", e->message);
        log_error("pool '%s': %s", b->hp->name, e->message);
}

static void connected_or_not(void *arg, const struct error *problem)
{
        struct image_base *b = arg;

        if (problem && b->hp->host->control_path) {
                image_base_problem(b, problem);
                return;
        }
        if (problem) { /* a command's own error says it */
                snprintf(b->problem, sizeof(b->problem), "%s", problem->message);
                return;
        }
        if (b->problem[0])
                log_info("pool '%s': '%s' is connected again", b->hp->name, b->image->path);
        b->problem[0] = 0;
}

int image_base_remote(struct image_base *b, const char *uri, const struct image_identity *identity,
                      struct image *connection, struct error *err)
{
        const struct remote_options options = {.host = b->hp->host,
                                               .uri = uri,
                                               .size_bytes = identity->size,
                                               .sample = identity->sample,
                                               .connection = connection,
                                               .tell = connected_or_not,
                                               .arg = b};

        return remote_image_new(&options, &b->image, err);
}

/* The connection came along, so that nobody gets at what he could not connect to himself; later ones the
 * server makes, which finds by the identity that it is still what it was. */
static int co_open_export(struct image_base *b, struct image_request *request,
                          struct image_identity *identity, struct error *err)
{
        struct image *connection;
        int r;

        if (!nbd_is_uri(request->path))
                return error_set(err, -EINVAL, "'%s' is no NBD URI", request->path);
        r = co_image_request_open(request, NULL, &connection, err);
        if (r < 0)
                return r;
        *identity = (struct image_identity){.size = connection->virtual_bytes};
        r = co_image_sample(connection, &identity->sample, err);
        identity->crc = identity->sample;
        if (r == 0)
                r = image_base_remote(b, request->path, identity, connection, err);
        if (r < 0)
                image_close(connection);
        return r;
}

int co_image_base_open_request(struct image_base *b, struct image_request *request,
                               struct image_identity *identity, struct error *err)
{
        const struct image_options options = image_request_options(request);

        if (image_request_text(request, "export"))
                return co_open_export(b, request, identity, err);
        return co_image_base_open_file(b, request, request->path, &options, identity, err);
}
