/* files.c - the other files that an image needs. */
#include "cli/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/list.h"
#include "formats/nbd.h"
#include "formats/nbd_uri.h"
#include "formats/opener.h"

static void entry_clear(struct file_entry *e)
{
        if (e->output) {
                output_close(e->output);
                free(e->output);
        } else if (e->fd >= 0) {
                close(e->fd);
        }
        free(e->from);
        free(e->name);
        free(e->path);
        free(e->export);
}

/* Whoever does the request finds a file by its name. */
static int check_text(const char *from, const char *name, struct error *err)
{
        if (cli_is_text(name))
                return 0;
        error_set(err, -EILSEQ, "'%s' names '%s', which is not UTF-8 text", from, name);
        return error_hint(err, "'tarn image convert' makes an image that needs no other files");
}

/* Keep a descriptor of what was opened; an export has none. */
static int remember(struct files *f, const char *from, const char *name, const char *path, int fd,
                    struct output *output, struct error *err)
{
        struct file_entry *e = &f->entry[f->n];
        int r = f->keep ? check_text(from, name, err) : 0;

        if (r == 0 && f->keep)
                r = check_text(from, path, err); /* its folder */
        if (r < 0)
                return r;
        *e = (struct file_entry){.from = strdup(from),
                                 .name = strdup(name),
                                 .path = strdup(path),
                                 .fd = output   ? output->fd
                                       : fd < 0 ? -1
                                                : fcntl(fd, F_DUPFD_CLOEXEC, 3)};
        if (e->from && e->name && e->path && (e->fd >= 0 || fd < 0)) {
                e->output = output;
                f->n++;
                return 0;
        }
        if (output)
                e->fd = -1; /* the caller's */
        entry_clear(e);
        return error_set(err, -ENOMEM, "out of memory");
}

/* ---- exports ---- */

/* For a request: whoever does it has the connection, and what is opened here is only closed again. */
static int meet_export(struct image **ret_image, const char *name, struct error *err)
{
        static const struct image_driver unread = {.name = "nbd"};
        struct image *image = calloc(1, sizeof(*image));

        if (!image || !(image->path = strdup(name))) {
                free(image);
                return error_set(err, -ENOMEM, "out of memory");
        }
        image->driver = &unread;
        image->fd = -1;
        *ret_image = image;
        return 0;
}

static struct image *find_export(struct files *f, const char *from, const char *name)
{
        for (size_t i = 0; i < f->n; i++)
                if (f->entry[i].image && strcmp(f->entry[i].from, from) == 0 &&
                    strcmp(f->entry[i].name, name) == 0)
                        return f->entry[i].image;
        return NULL;
}

/* One connection, however often the image is opened: a server may take no second one. */
static int co_open_export(struct image_opener *opener, const char *from, const char *name,
                          struct image **ret_image, struct error *err)
{
        struct files *f = container_of(opener, struct files, opener);
        const struct nbd_target target = {.uri = name, .fd = -1, .cancelled = f->cancelled};
        struct image *image = find_export(f, from, name);
        int r = opener_export(from, name, f->allowed, f->n_allowed, err);

        if (r < 0)
                return r;
        if (image) {
                if (!f->keep)
                        nbd_forget_map(image);
                *ret_image = image;
                return 0;
        }
        if (f->n == FILES_MAX)
                return error_set(err, -EMFILE, "'%s' needs more than %u other files", from,
                                 FILES_MAX);
        r = f->keep ? meet_export(&image, name, err) : co_nbd_open(&target, false, &image, err);
        if (r < 0)
                return r;
        r = remember(f, from, name, name, -1, NULL, err);
        if (r < 0) {
                image_close(image);
                return r;
        }
        image->is_shared = true;
        f->entry[f->n - 1].image = image;
        *ret_image = image;
        return 0;
}

void files_follow_exports(struct files *f, const atomic_bool *cancelled)
{
        f->cancelled = cancelled;
        f->opener.co_export = co_open_export;
}

void files_close_exports(struct files *f)
{
        for (size_t i = 0; i < f->n; i++) {
                image_close_shared(f->entry[i].image);
                f->entry[i].image = NULL;
        }
}

int files_connect(struct files *f, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < f->n; i++)
                if (f->entry[i].image)
                        r = nbd_uri_connect(f->entry[i].path, &f->entry[i].fd, &f->entry[i].export,
                                            err);
        return r;
}

/* ---- files ---- */

/* A part has its name from the image's own, and lies beside it. */
static int open_new(struct files *f, const char *from, const char *name, int *ret_fd,
                    char **ret_path, struct error *err)
{
        const char *slash = strrchr(from, '/');
        struct output *output;
        char path[PATH_MAX];
        int n, r;

        if (name[0] == '\0' || strchr(name, '/'))
                return error_set(err, -EINVAL, "'%s' cannot have a part named '%s'", from, name);
        n = snprintf(path, sizeof(path), "%.*s%s", slash ? (int)(slash - from + 1) : 0, from, name);
        if (n < 0 || (size_t)n >= sizeof(path))
                return error_set(err, -ENAMETOOLONG, "cannot make '%s': %s", name,
                                 strerror(ENAMETOOLONG));
        output = malloc(sizeof(*output));
        if (!output || !(*ret_path = strdup(path))) {
                free(output);
                return error_set(err, -ENOMEM, "out of memory");
        }
        r = output_open(output, path, f->force, err);
        if (r == 0) {
                *ret_fd = fcntl(output->fd, F_DUPFD_CLOEXEC, 3);
                r = *ret_fd < 0
                        ? error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno))
                        : remember(f, from, name, path, -1, output, err);
                if (r < 0 && *ret_fd >= 0)
                        close(*ret_fd);
                if (r < 0)
                        output_close(output);
        }
        if (r < 0) {
                free(output);
                free(*ret_path);
        }
        return r;
}

static int open_file(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct files *f = container_of(opener, struct files, opener);
        int r;

        if (f->n == FILES_MAX)
                return error_set(err, -EMFILE, "'%s' needs more than %u other files", from,
                                 FILES_MAX);
        if (use == IMAGE_NEW_PART)
                return open_new(f, from, name, ret_fd, ret_path, err);
        r = opener_open(from, name, use, f->allowed, f->n_allowed, ret_fd, ret_path, err);
        if (r < 0 || !f->keep)
                return r;
        r = remember(f, from, name, *ret_path, *ret_fd, NULL, err);
        if (r < 0) {
                close(*ret_fd);
                free(*ret_path);
        }
        return r;
}

/* What was made here, and nothing else: what a file says is no permission. */
static int open_made(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        const struct files *f = container_of(opener, struct files, made);

        for (size_t i = 0; i < f->n; i++) {
                const struct file_entry *e = &f->entry[i];

                if (!e->output || strcmp(e->from, from) != 0 || strcmp(e->name, name) != 0)
                        continue;
                *ret_fd = fcntl(e->fd, F_DUPFD_CLOEXEC, 3);
                if (*ret_fd < 0)
                        return error_set(err, -errno, "cannot open '%s': %s", e->path,
                                         strerror(errno));
                *ret_path = strdup(e->path);
                if (*ret_path)
                        return 0;
                close(*ret_fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        return error_set(err, -EILSEQ, "'%s' names '%s', which was not made with it", from, name);
}

void files_init(struct files *f, const struct cli_args *args)
{
        *f = (struct files){.opener = {.open = open_file},
                            .made = {.open = open_made},
                            .allowed = args->allow,
                            .n_allowed = args->n_allow,
                            .force = args->given & CLI_FORCE};
}

int files_finish(struct files *f, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < f->n; i++)
                if (f->entry[i].output)
                        r = output_finish(f->entry[i].output, err);
        return r;
}

void files_close(struct files *f)
{
        files_close_exports(f);
        for (size_t i = 0; i < f->n; i++)
                entry_clear(&f->entry[i]);
        f->n = 0;
}

void files_put(const struct files *f, json_t **request, int fds[FILES_MAX + 1], size_t *n_fds)
{
        json_t *list = json_array();

        for (size_t i = 0; list && i < f->n; i++) {
                const struct file_entry *e = &f->entry[i];

                if (json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s*}", "from", e->from,
                                                          "name", e->name, "path", e->path,
                                                          "export", e->export)) < 0) {
                        json_decref(list);
                        list = NULL;
                        break;
                }
                fds[(*n_fds)++] = e->fd;
        }
        cli_put(request, "files", list);
}
