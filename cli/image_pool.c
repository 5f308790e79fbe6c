/* image_pool.c - tarn image import, tarn image export: between image files and pools. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/files.h"
#include "cli/image.h"
#include "cli/image_ova.h"
#include "formats/nbd.h"
#include "formats/nbd_uri.h"
#include "server/session.h"

/* Opening an image, or making one, to learn which other files it needs. */
struct rehearsal {
        struct session_work work;
        const char *path;
        int fd;
        const struct image_options *options;
        const struct image_create_options *create;
        const char *flaw;
};

static int co_rehearse(struct loop *loop, struct session_work *work, struct error *err)
{
        struct rehearsal *h = container_of(work, struct rehearsal, work);
        struct image *image;
        int r = h->create ? co_image_create(h->fd, h->path, h->create, &image, err)
                          : co_image_open(h->fd, h->path, h->options, &image, err);

        if (r == 0) {
                h->flaw = image_flaw(image);
                image_close(image);
        }
        return r;
}

int image_open_export(const char *uri, json_t **request, struct error *err)
{
        char *name;
        int fd, r = nbd_uri_connect(uri, &fd, &name, err);

        if (r < 0)
                return r;
        cli_put(request, "export", json_string(name));
        free(name);
        return fd;
}

void image_tell_flaw(const char *path, const char *flaw)
{
        if (flaw)
                cli_note("'%s' %s", path, flaw);
}

static int open_place(const char *path, json_t **request, struct error *err)
{
        return nbd_is_uri(path) ? image_open_export(path, request, err)
                                : image_open_input(path, err);
}

static void put_text(json_t **request, const char *key, const char *text)
{
        if (text)
                cli_put(request, key, json_string(text));
}

int image_put_files(const struct cli_args *args, const char *path, const char *format, int fd,
                    struct files *files, json_t **request, int fds[FILES_MAX + 1], size_t *ret_n,
                    struct error *err)
{
        const struct image_options options = {.format = format,
                                              .backing_format = args->backing_format,
                                              .snapshot = args->snapshot,
                                              .opener = &files->opener};
        struct rehearsal h = {
            .work = {.co_run = co_rehearse}, .path = path, .fd = fd, .options = &options};
        int r = session_do(&h.work, err);

        if (r < 0)
                return r;
        image_tell_flaw(path, h.flaw);
        r = files_connect(files, err);
        if (r < 0)
                return r;
        put_text(request, "path", path);
        put_text(request, "format", format);
        put_text(request, "backing_format", args->backing_format);
        put_text(request, "snapshot", args->snapshot);
        fds[0] = fd;
        *ret_n = 1;
        files_put(files, request, fds, ret_n);
        return 0;
}

/* ---- import ---- */

static json_t *import_request(const struct cli_args *args, const char *volume, struct error *err)
{
        json_t *request = json_pack("{s:s, s:s, s:s}", "command", "image-import", "path",
                                    args->words[0], "volume", volume);
        uint64_t size;

        if (args->given & CLI_SNAPSHOTS)
                cli_put(&request, "snapshots", json_true());
        if (args->given & CLI_VERIFY)
                cli_put(&request, "verify", json_true());
        if (args->size && size_parse(args->size, &size, err) < 0) {
                error_prefix(err, "--size");
                json_decref(request);
                return NULL;
        }
        if (args->size)
                cli_put(&request, "size", json_integer((json_int_t)size));
        if (!request)
                error_set(err, -ENOMEM, "out of memory");
        return request;
}

/* Takes @request over. */
static int import_with(const struct cli_args *args, const char *pool, json_t *request, int fd,
                       struct files *files, json_t **ret_reply, struct error *err)
{
        int fds[FILES_MAX + 1] = {fd};
        size_t n_fds = 1;
        int r;

        if (nbd_is_uri(args->words[0]))
                r = image_check_export(args, args->words[0], err);
        else
                r = image_put_files(args, args->words[0], args->format, fd, files, &request, fds,
                                    &n_fds, err);
        if (r < 0) {
                json_decref(request);
                return r;
        }
        return cli_try(&(struct cli_call){.pool = pool,
                                          .request = request,
                                          .fds = fds,
                                          .n_fds = n_fds,
                                          .progress = "importing"},
                       ret_reply, err);
}

static int import(const struct cli_args *args, json_t **ret_reply, struct error *err)
{
        struct files files;
        json_t *request;
        const char *volume;
        char *pool;
        int fd, r;

        r = cli_split(args->words[1], &pool, &volume, err);
        if (r < 0)
                return r;
        request = import_request(args, volume, err);
        fd = request ? open_place(args->words[0], &request, err) : -1;
        if (fd < 0) {
                json_decref(request);
                free(pool);
                return -1;
        }
        files_init(&files, args);
        files_follow_exports(&files, NULL);
        files.keep = true;
        r = import_with(args, pool, request, fd, &files, ret_reply, err);
        files_close(&files);
        close(fd);
        free(pool);
        return r;
}

static void tell_snapshots(const struct cli_args *args, const json_t *list)
{
        json_t *s;
        size_t i;

        json_array_foreach (list, i, s) {
                const char *was = cli_text(s, "name"), *is = cli_text(s, "snapshot");

                if (strcmp(was, is) != 0)
                        cli_note("snapshot '%s' is called '%s@%s': names of pools have no other "
                                 "characters, and each once",
                                 was, args->words[1], is);
        }
        if (json_array_size(list) > 0)
                printf("with %zu snapshots\n", json_array_size(list));
}

int cli_image_import(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;
        json_t *reply = NULL;
        int r;

        if (!args->format && !nbd_is_uri(args->words[0]) && image_is_machine(args->words[0]))
                return image_import_machine(args);
        if (args->given & (CLI_NAME | CLI_VM_FILE)) {
                error_set(&e, -EINVAL, "'%s' is no OVA or OVF, which --%s is for", args->words[0],
                          args->name ? "name" : "vm-file");
                return cli_fail(&e);
        }
        r = import(args, &reply, &e);
        if (r == 0)
                r = image_check_verified(args, reply, &e);
        if (r < 0) {
                json_decref(reply);
                return cli_fail(&e);
        }
        if (json_is_true(json_object_get(reply, "guessed")) && !args->format)
                cli_note("'%s' is taken as raw: nothing else was recognised", args->words[0]);
        cli_say("imported '%s' as volume '%s' of %s%s", args->words[0], args->words[1],
                cli_size(reply, "size"), args->given & CLI_VERIFY ? ", verified" : "");
        tell_snapshots(args, json_object_get(reply, "snapshots"));
        json_decref(reply);
        return EXIT_SUCCESS;
}

/* ---- export ---- */

struct export
{
        const struct cli_args *args;
        const char *pool, *name, *format;
        uint32_t cluster_bytes;
        struct files files; /* zeroes: none */
};

/* The size of a volume, or of a snapshot. */
static int root_size(const struct export *x, uint64_t *ret_bytes, struct error *err)
{
        const char *at = strchr(x->name, '@');
        json_t *reply = NULL, *list, *s, *request;
        size_t i;
        int r;

        request = at ? json_pack("{s:s}", "command", "snapshot-list")
                     : json_pack("{s:s, s:s}", "command", "volume-show", "volume", x->name);
        r = cli_try(&(struct cli_call){.pool = x->pool, .request = request}, &reply, err);
        if (r < 0)
                return r;
        *ret_bytes = cli_number(reply, "size");
        list = at ? json_object_get(reply, "snapshots") : NULL;
        json_array_foreach (list, i, s) {
                if (strcmp(cli_text(s, "name"), x->name) == 0)
                        *ret_bytes = cli_number(s, "size");
        }
        json_decref(reply);
        return *ret_bytes
                   ? 0
                   : error_set(err, -ENOENT, "there is no snapshot '%s/%s'", x->pool, x->name);
}

/* A variant may be of several files, whose names its driver knows: have it make an image of the same
 * size in memory, and the files beside the real one. */
static int make_parts(struct export *x, struct error *err)
{
        struct image_create_options create = {.format = x->format,
                                              .variant = x->args->variant,
                                              .compression = x->args->compression,
                                              .cluster_bytes = x->cluster_bytes,
                                              .opener = &x->files.opener};
        struct rehearsal h = {
            .work = {.co_run = co_rehearse}, .path = x->args->words[1], .create = &create};
        int r = root_size(x, &create.virtual_bytes, err);

        if (r < 0)
                return r;
        h.fd = memfd_create("rehearsal", MFD_CLOEXEC);
        if (h.fd < 0)
                return error_set(err, -errno, "cannot make a file in memory: %s", strerror(errno));
        r = session_do(&h.work, err);
        close(h.fd);
        for (size_t i = 0; r == 0 && i < x->files.n; i++)
                if (ftruncate(x->files.entry[i].fd, 0) < 0)
                        r = error_set(err, -errno, "cannot empty '%s': %s", x->files.entry[i].path,
                                      strerror(errno));
        return r;
}

/* Takes @request over. */
static int export_to(struct export *x, json_t *request, int fd, json_t **ret_reply,
                     struct error *err)
{
        const struct cli_args *args = x->args;
        int fds[FILES_MAX + 1] = {fd};
        size_t n_fds = 1;

        if (args->given & CLI_VERIFY)
                cli_put(&request, "verify", json_true());
        put_text(&request, "variant", args->variant);
        put_text(&request, "compression", args->compression);
        if (x->cluster_bytes)
                cli_put(&request, "cluster_size", json_integer(x->cluster_bytes));
        files_put(&x->files, &request, fds, &n_fds);
        return cli_try(&(struct cli_call){.pool = x->pool,
                                          .request = request,
                                          .fds = fds,
                                          .n_fds = n_fds,
                                          .progress = "exporting"},
                       ret_reply, err);
}

static json_t *export_request(const struct export *x)
{
        return json_pack("{s:s, s:s, s:s, s:s}", "command", "image-export", "name", x->name, "path",
                         x->args->words[1], "format", x->format);
}

static int export_to_file(struct export *x, json_t **ret_reply, struct error *err)
{
        struct output output;
        int r;

        files_init(&x->files, x->args);
        r = output_open(&output, x->args->words[1], x->args->given & CLI_FORCE, err);
        if (r < 0)
                return r;
        if (x->args->variant)
                r = make_parts(x, err);
        if (r == 0)
                r = export_to(x, export_request(x), output.fd, ret_reply, err);
        if (r == 0)
                r = image_check_verified(x->args, *ret_reply, err);
        if (r == 0)
                r = files_finish(&x->files, err);
        if (r == 0)
                r = output_finish(&output, err);
        files_close(&x->files);
        output_close(&output);
        return r;
}

/* It holds what it holds: that is to be said. */
static int export_to_nbd(struct export *x, json_t **ret_reply, struct error *err)
{
        json_t *request;
        int fd, r;

        request = export_request(x);
        fd = open_place(x->args->words[1], &request, err);
        if (fd < 0) {
                json_decref(request);
                return fd;
        }
        r = export_to(x, request, fd, ret_reply, err);
        if (r == 0)
                r = image_check_verified(x->args, *ret_reply, err);
        close(fd);
        return r;
}

int cli_image_export(const struct cli_verb *verb, const struct cli_args *args)
{
        struct export x = {.args = args, .format = args->format ? args->format : "raw"};
        struct error e = ERROR_INIT;
        json_t *reply = NULL;
        char *pool = NULL;
        int r = image_check_output(args, &e);

        if (r == 0)
                r = image_cluster_size(args, &x.cluster_bytes, &e);
        if (r == 0)
                r = cli_split(args->words[0], &pool, &x.name, &e);
        if (r == 0) {
                x.pool = pool;
                r = nbd_is_uri(args->words[1]) ? export_to_nbd(&x, &reply, &e)
                                               : export_to_file(&x, &reply, &e);
        }
        free(pool);
        if (r < 0) {
                json_decref(reply);
                return cli_fail(&e);
        }
        cli_say("exported '%s' to '%s', %s%s", args->words[0], args->words[1],
                cli_size(reply, "size"), args->given & CLI_VERIFY ? ", verified" : "");
        json_decref(reply);
        return EXIT_SUCCESS;
}
