/* image_request.c - what requests about image files have in common. */
#include "server/image_request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/offload.h"
#include "formats/nbd.h"

static const char *text_of(const json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));

        return text ? text : "";
}

/* Only what has come with the request, and as an export what has come as one: its place in "files". */
static int find_passed(const struct command *c, const char *from, const char *name, bool is_export,
                       size_t *ret_i, struct error *err)
{
        const json_t *file;
        size_t i;

        json_array_foreach (json_object_get(c->request, "files"), i, file) {
                if (strcmp(text_of(file, "from"), from) != 0 ||
                    strcmp(text_of(file, "name"), name) != 0 ||
                    (is_export && !json_is_string(json_object_get(file, "export"))))
                        continue;
                *ret_i = i;
                return 0;
        }
        return error_set(
            err, -EPERM,
            "'%s' needs '%s', which has not come with the request: it has been changed "
            "meanwhile",
            from, name);
}

static int open_passed(struct image_opener *opener, const char *from, const char *name,
                       enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        const struct command *c = container_of(opener, struct image_request, opener)->command;
        size_t i;
        int r = find_passed(c, from, name, false, &i, err);

        if (r < 0)
                return r;
        *ret_fd = fcntl(c->fds[i + 1], F_DUPFD_CLOEXEC, 3);
        if (*ret_fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", name, strerror(errno));
        *ret_path =
            strdup(text_of(json_array_get(json_object_get(c->request, "files"), i), "path"));
        if (*ret_path)
                return 0;
        close(*ret_fd);
        return error_set(err, -ENOMEM, "out of memory");
}

/* Connected to by whoever asks, once for each: it is given again where the image is opened again. */
static int co_passed_export(struct image_opener *opener, const char *from, const char *name,
                            struct image **ret_image, struct error *err)
{
        struct image_request *q = container_of(opener, struct image_request, opener);
        const struct command *c = q->command;
        const json_t *files = json_object_get(c->request, "files"), *file;
        size_t i;
        int r = find_passed(c, from, name, true, &i, err);

        if (r < 0)
                return r;
        if (!q->exports && !(q->exports = calloc(json_array_size(files), sizeof(*q->exports))))
                return error_set(err, -ENOMEM, "out of memory");
        file = json_array_get(files, i);
        if (q->exports[i]) {
                nbd_forget_map(q->exports[i]);
        } else {
                const struct nbd_target target = {.uri = text_of(file, "path"),
                                                  .fd = c->fds[i + 1],
                                                  .export_name = text_of(file, "export"),
                                                  .cancelled = c->caller->cancelled,
                                                  .opened = &q->opened};

                r = co_nbd_open(&target, false, &q->exports[i], err);
                if (r < 0)
                        return r;
                q->exports[i]->is_shared = true;
        }
        *ret_image = q->exports[i];
        return 0;
}

static void pass_progress(struct transfer_watch *watch, uint64_t done, uint64_t total)
{
        struct image_request *q = container_of(watch, struct image_request, watch);
        struct command_caller *caller = q->command->caller;

        /* All states count as large as the one that is being copied. */
        if (caller->progress)
                caller->progress(caller, q->n_done * total + done, q->n_states * total,
                                 watch->verifying);
}

int image_request_init(struct image_request *q, const struct command *c, struct error *err)
{
        json_t *files = json_object_get(c->request, "files");
        size_t n_files = json_array_size(files);

        *q = (struct image_request){
            .command = c,
            .opener = {.open = open_passed, .co_export = co_passed_export},
            .watch = {.progress = pass_progress, .cancelled = c->caller->cancelled}};
        list_init(&q->opened);
        if (c->n_fds == 0 || c->n_fds - 1 != n_files)
                return error_set(err, -EINVAL,
                                 "the request has %zu descriptors, not one for the image and one "
                                 "for each of %zu other files",
                                 c->n_fds, n_files);
        q->path = image_request_text(q, "path");
        if (!q->path)
                q->path = "image";
        q->n_states = 1;
        q->offload = offload_new(0);
        return 0;
}

void image_request_end(struct image_request *q)
{
        size_t n = q->exports ? json_array_size(json_object_get(q->command->request, "files")) : 0;

        for (size_t i = 0; i < n; i++)
                image_close_shared(q->exports[i]);
        nbd_outlive(&q->opened);
        free(q->exports);
        offload_free(q->offload);
}

const char *image_request_text(const struct image_request *q, const char *key)
{
        return json_string_value(json_object_get(q->command->request, key));
}

static struct nbd_target target_of(struct image_request *q)
{
        return (struct nbd_target){.uri = q->path,
                                   .fd = q->command->fds[0],
                                   .export_name = image_request_text(q, "export"),
                                   .cancelled = q->command->caller->cancelled,
                                   .opened = &q->opened};
}

struct image_options image_request_options(struct image_request *q)
{
        return (struct image_options){.format = image_request_text(q, "format"),
                                      .backing_format = image_request_text(q, "backing_format"),
                                      .snapshot = image_request_text(q, "snapshot"),
                                      .opener = &q->opener,
                                      .offload = q->offload};
}

/* In an archive. */
static int co_open_within(const struct image_request *q, const struct image_options *options,
                          struct image **ret_image, struct error *err)
{
        uint64_t offset = 0, length = 0;
        int r = command_size(q->command, "offset", &offset, err);

        if (r == 0)
                r = command_size(q->command, "length", &length, err);
        return r < 0 ? r
                     : co_image_open_within(q->command->fds[0], q->path, offset, length, options,
                                            ret_image, err);
}

int co_image_request_open(struct image_request *q, const char *snapshot, struct image **ret_image,
                          struct error *err)
{
        struct image_options options = image_request_options(q);
        const struct nbd_target target = target_of(q);

        options.snapshot = snapshot;
        if (target.export_name)
                return co_nbd_open(&target, false, ret_image, err);
        if (json_object_get(q->command->request, "offset"))
                return co_open_within(q, &options, ret_image, err);
        return co_image_open(target.fd, q->path, &options, ret_image, err);
}

int co_image_request_create(struct image_request *q, const struct image_create_options *options,
                            struct image **ret_image, struct error *err)
{
        const struct nbd_target target = target_of(q);

        if (target.export_name)
                return co_nbd_open(&target, true, ret_image, err);
        return co_image_create(target.fd, q->path, options, ret_image, err);
}
