/* image.c - tarn image ... */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "formats/image.h"
#include "server/session.h"

static int open_input(const char *path, struct error *err)
{
        /* O_NONBLOCK: a named pipe is refused later, not waited for. */
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        return fd;
}

/* ---- info ---- */

struct info_work {
        struct session_work work;
        const char *path;
        int fd;
        json_t *info;
};

/* What is known of a format that can only be recognised. */
static int co_recognise(struct info_work *w, struct error *err)
{
        const struct image_driver *driver;
        bool guessed;
        struct stat st;
        int r = co_image_probe(w->fd, w->path, &driver, &guessed, err);

        if (r < 0)
                return r;
        if (fstat(w->fd, &st) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", w->path, strerror(errno));
        w->info = json_pack("{s:s, s:s, s:b, s:b, s:n, s:I, s:I}", "file", w->path, "format",
                            driver->name, "guessed", (int)guessed, "supported", 0, "virtual_size",
                            "file_size", (json_int_t)st.st_size, "allocated",
                            (json_int_t)st.st_blocks * 512);
        return 0;
}

static int co_info(struct loop *loop, struct session_work *work, struct error *err)
{
        struct info_work *w = container_of(work, struct info_work, work);
        struct error e = ERROR_INIT;
        struct image *image;
        int r = co_image_open(w->fd, w->path, NULL, &image, &e);

        if (r == -ENOTSUP)
                return co_recognise(w, err);
        if (r < 0) {
                if (err)
                        *err = e;
                return r;
        }
        w->info = json_pack("{s:s, s:s, s:b, s:b, s:I, s:I, s:I}", "file", w->path, "format",
                            image->driver->name, "guessed", (int)image->guessed, "supported", 1,
                            "virtual_size", (json_int_t)image->virtual_bytes, "file_size",
                            (json_int_t)image->file_bytes, "allocated",
                            (json_int_t)image->allocated_bytes);
        image_close(image);
        return 0;
}

static void print_info(json_t *info)
{
        const struct image_driver *driver = image_driver_find(cli_text(info, "format"));

        printf("file          %s\n", cli_text(info, "file"));
        printf("format        %s (%s)%s\n", cli_text(info, "format"),
               driver ? driver->description : "",
               json_is_true(json_object_get(info, "guessed"))
                   ? ", a guess: nothing else was recognised"
                   : "");
        if (!json_is_true(json_object_get(info, "supported")))
                printf("              this version of tarn does not read it yet\n");
        if (json_is_integer(json_object_get(info, "virtual_size")))
                printf("virtual size  %s (%llu bytes)\n", cli_size(info, "virtual_size"),
                       (unsigned long long)cli_number(info, "virtual_size"));
        printf("file size     %s, takes %s\n", cli_size(info, "file_size"),
               cli_size(info, "allocated"));
}

static int run_info(const struct cli_verb *verb, const struct cli_args *args)
{
        struct info_work w = {.work = {.co_run = co_info}, .path = args->words[0]};
        struct error e = ERROR_INIT;
        int r;

        w.fd = open_input(w.path, &e);
        if (w.fd < 0)
                return cli_fail(&e);
        r = session_do(&w.work, &e);
        close(w.fd);
        if (r < 0)
                return cli_fail(&e);
        if (args->given & CLI_JSON)
                cli_print_json(w.info);
        else
                print_info(w.info);
        json_decref(w.info);
        return EXIT_SUCCESS;
}

/* ---- import ---- */

static json_t *import_request(const struct cli_args *args, const char *volume, struct error *err)
{
        json_t *request = json_pack("{s:s, s:s, s:s}", "command", "image-import", "path",
                                    args->words[0], "volume", volume);
        uint64_t size;

        if (args->format)
                json_object_set_new(request, "format", json_string(args->format));
        if (!args->size)
                return request;
        if (size_parse(args->size, &size, err) < 0) {
                error_prefix(err, "--size");
                json_decref(request);
                return NULL;
        }
        json_object_set_new(request, "size", json_integer((json_int_t)size));
        return request;
}

static int run_import(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;
        json_t *request, *reply = NULL;
        const char *volume;
        char *pool;
        int fd, r;

        if (cli_split(args->words[1], &pool, &volume, &e) < 0)
                return cli_fail(&e);
        request = import_request(args, volume, &e);
        fd = request ? open_input(args->words[0], &e) : -1;
        if (fd < 0) {
                json_decref(request);
                free(pool);
                return cli_fail(&e);
        }
        r = cli_try(
            &(struct cli_call){
                .pool = pool, .request = request, .fds = &fd, .n_fds = 1, .progress = "importing"},
            &reply, &e);
        close(fd);
        free(pool);
        if (r < 0)
                return cli_fail(&e);
        if (json_is_true(json_object_get(reply, "guessed")))
                cli_note("'%s' is taken as raw: nothing else was recognised", args->words[0]);
        printf("imported '%s' as volume '%s' of %s\n", args->words[0], args->words[1],
               cli_size(reply, "size"));
        json_decref(reply);
        return EXIT_SUCCESS;
}

/* ---- export ---- */

static int export_to(const struct cli_args *args, const char *pool, const char *name,
                     struct output *output, struct error *err)
{
        json_t *reply = NULL;
        json_t *request =
            json_pack("{s:s, s:s, s:s, s:s}", "command", "image-export", "name", name, "path",
                      args->words[1], "format", args->format ? args->format : "raw");
        const struct cli_call call = {.pool = pool,
                                      .request = request,
                                      .fds = &output->fd,
                                      .n_fds = 1,
                                      .progress = "exporting"};
        int r = cli_try(&call, &reply, err);

        if (r == 0)
                r = output_finish(output, err);
        if (r == 0)
                printf("exported '%s' to '%s', %s\n", args->words[0], args->words[1],
                       cli_size(reply, "size"));
        json_decref(reply);
        return r;
}

static int check_format(const char *format, struct error *err)
{
        const struct image_driver *driver = format ? image_driver_find(format) : &image_raw;

        if (!driver || driver->is_not_image) {
                error_set(err, -EINVAL, "there is no image format '%s'", format);
                return error_hint(err, "formats that can be written: %s", image_formats_writable());
        }
        if (!driver->co_create)
                return error_set(err, -ENOTSUP, "exporting as %s is not built yet", format);
        return 0;
}

static int run_export(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;
        struct output output;
        const char *name;
        char *pool = NULL;
        int r;

        r = check_format(args->format, &e);
        if (r == 0)
                r = cli_split(args->words[0], &pool, &name, &e);
        if (r == 0)
                r = output_open(&output, args->words[1], args->given & CLI_FORCE, &e);
        if (r == 0) {
                r = export_to(args, pool, name, &output, &e);
                output_close(&output);
        }
        free(pool);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

const struct cli_verb image_verbs[] = {
    {"image", "info", "FILE [--json]", "which format an image file has, and how large it is",
     "  --json   {\"file\", \"format\", \"guessed\", \"supported\", \"virtual_size\", "
     "\"file_size\",\n"
     "           \"allocated\"}\n",
     CLI_JSON, 1, 1, run_info},
    {"image", "import", "FILE POOL/VOLUME [--size SIZE] [--format raw]",
     "make a volume of an image file",
     "FILE is a raw image or a block device. Zeroes and holes take no space. The volume must\n"
     "not exist; it has its name only once all of it is there.\n\n"
     "  --size SIZE    make the volume larger than the image\n"
     "  --format raw   take the file as raw, whatever it looks like\n",
     CLI_SIZE | CLI_FORMAT, 2, 2, run_import},
    {"image", "export", "POOL/VOLUME[@SNAPSHOT] FILE [--format raw] [--force]",
     "make an image file of a volume or a snapshot",
     "The file is sparse: zeroes take no space in it. A volume that is in use is exported as it\n"
     "was at one instant. The file has its name only once all of it is there; until then one\n"
     "that it replaces stays as it is, and takes its space.\n\n"
     "  --format raw   the only format so far\n"
     "  --force        overwrite a file that exists, or a block device\n",
     CLI_FORMAT | CLI_FORCE, 2, 2, run_export},
    {"image", "convert", "IN OUT [--format F]", "make another format of an image", "", 0, 0, -1,
     NULL},
    {"image", "map", "FILE", "which parts of an image hold data", "", 0, 0, -1, NULL},
    {"image", "check", "FILE", "look for damage in an image", "", 0, 0, -1, NULL},
    {0},
};
