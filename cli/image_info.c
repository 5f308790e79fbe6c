/* image_info.c - tarn image info. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/image.h"
#include "cli/image_ova.h"
#include "formats/nbd.h"
#include "formats/ova.h"
#include "server/command.h"
#include "server/session.h"

struct info_work {
        struct session_work work;
        const char *path, *format;
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

static json_t *snapshots_of(const struct image_info *info)
{
        json_t *list = json_array();

        for (size_t i = 0; i < info->n_snapshots; i++) {
                const struct image_snapshot *s = &info->snapshots[i];

                json_array_append_new(list,
                                      json_pack("{s:o, s:o, s:I, s:I, s:o}", "id",
                                                image_text(s->id), "name", image_text(s->name),
                                                "virtual_size", (json_int_t)s->virtual_bytes,
                                                "vm_state_size", (json_int_t)s->vm_state_bytes,
                                                "created", json_time(s->date_s * 1000000000)));
        }
        return list;
}

static json_t *bitmaps_of(const struct image_info *info)
{
        json_t *list = json_array();

        for (size_t i = 0; i < info->n_bitmaps; i++) {
                const struct image_bitmap *b = &info->bitmaps[i];

                json_array_append_new(
                    list, json_pack("{s:o, s:I, s:b, s:b}", "name", image_text(b->name),
                                    "granularity", (json_int_t)b->granularity_bytes, "in_use",
                                    (int)b->in_use, "automatic", (int)b->automatic));
        }
        return list;
}

static json_t *describe(const struct image *image)
{
        const struct image_info *info = &image->info;
        json_t *o = json_pack(
            "{s:o, s:s, s:b, s:b, s:o, s:o, s:I, s:I, s:I, s:o, s:o}", "file",
            image_text(image->path), "format", image->driver->name, "guessed", (int)image->guessed,
            "supported", 1, "variant", image_text(info->variant), "version",
            image_text(info->version[0] ? info->version : NULL), "virtual_size",
            (json_int_t)image->virtual_bytes, "file_size", (json_int_t)image->file_bytes,
            "allocated", (json_int_t)image->allocated_bytes, "cluster_size",
            info->cluster_bytes ? json_integer((json_int_t)info->cluster_bytes) : json_null(),
            "compression", image_text(info->compression));
        json_t *more = json_pack(
            "{s:o, s:o, s:o, s:b, s:b, s:o, s:o}", "backing_file", image_text(info->backing),
            "backing_format", image_text(info->backing_format), "data_file",
            image_text(info->data_file), "dirty", (int)info->dirty, "corrupt", (int)info->corrupt,
            "snapshots", snapshots_of(info), "bitmaps", bitmaps_of(info));

        if (!o || !more || json_object_update(o, more) < 0) {
                json_decref(o);
                o = NULL;
        }
        json_decref(more);
        return o;
}

/* There is no file that could have a size of its own. */
static void put_offer(json_t *info, const struct image *image)
{
        const struct nbd_offer o = nbd_offer(image);
        json_t *export =
            json_pack("{s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:I, s:I, s:I}", "read_only",
                      (int)o.read_only, "trim", (int)o.can_trim, "write_zeroes", (int)o.can_zero,
                      "flush", (int)o.can_flush, "fua", (int)o.can_fua, "multi_conn",
                      (int)o.multi_conn, "block_status", (int)o.block_status, "tls", (int)o.tls,
                      "block_min", (json_int_t)o.block_min, "block_preferred",
                      (json_int_t)o.block_preferred, "block_max", (json_int_t)o.block_max);

        json_object_set_new(info, "export", export);
        json_object_set_new(info, "file_size", json_null());
        json_object_set_new(info, "allocated", json_null());
}

static int co_info(struct loop *loop, struct session_work *work, struct error *err)
{
        struct info_work *w = container_of(work, struct info_work, work);
        const struct image_options options = {.format = w->format, .alone = true};
        struct error e = ERROR_INIT;
        struct image *image;
        int r = co_image_open_place(w->fd, w->path, &options, &work->cancelled, &image, &e);

        /* A format that is known by its head alone; or one thing in it that is not read, which the
         * sentence names. */
        if (r == -ENOTSUP && !w->format) {
                const struct image_driver *driver;
                bool guessed;

                if (co_image_probe(w->fd, w->path, &driver, &guessed, NULL) == 0 &&
                    driver->is_not_image)
                        return ova_is_probed(driver)
                                   ? co_image_describe_machine(w->fd, w->path, &w->info, err)
                                   : co_recognise(w, err);
        }
        if (r < 0) {
                if (err)
                        *err = e;
                return r;
        }
        w->info = describe(image);
        if (w->fd < 0)
                put_offer(w->info, image);
        image_close(image);
        return w->info ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* ---- as text ---- */

static void print_if(const char *label, const json_t *info, const char *key)
{
        if (json_is_string(json_object_get(info, key)))
                cli_say("%-13s %s", label, cli_text(info, key));
}

static void print_backing(const json_t *info)
{
        const char *format = cli_text(info, "backing_format");

        if (!json_is_string(json_object_get(info, "backing_file")))
                return;
        cli_say("backing file  %s%s%s%s", cli_text(info, "backing_file"), *format ? " (" : "",
                format, *format ? ")" : "");
}

static void print_snapshots(const json_t *list)
{
        static const struct cli_column columns[] = {{"ID", CLI_LEFT},
                                                    {"SNAPSHOT", CLI_LEFT},
                                                    {"SIZE", CLI_RIGHT},
                                                    {"VM STATE", CLI_RIGHT},
                                                    {"CREATED", CLI_LEFT}};
        struct cli_table *table;
        json_t *s;
        size_t i;

        if (json_array_size(list) == 0)
                return;
        table = cli_table_new(columns, 5);
        json_array_foreach (list, i, s) {
                struct cli_line *line = cli_table_line(table, NULL);

                cli_table_cell(line, 0, cli_text(s, "id"));
                cli_table_cell(line, 1, cli_text(s, "name"));
                cli_table_cell(line, 2, cli_size(s, "virtual_size"));
                cli_table_cell(line, 3, cli_size(s, "vm_state_size"));
                cli_table_cell(line, 4, cli_time(s, "created"));
        }
        printf("\n");
        cli_table_finish(table);
}

static void print_bitmaps(const json_t *list)
{
        static const struct cli_column columns[] = {
            {"BITMAP", CLI_LEFT}, {"GRANULARITY", CLI_RIGHT}, {"STATE", CLI_LEFT}};
        struct cli_table *table;
        json_t *b;
        size_t i;

        if (json_array_size(list) == 0)
                return;
        table = cli_table_new(columns, 3);
        json_array_foreach (list, i, b) {
                struct cli_line *line = cli_table_line(table, NULL);
                bool in_use = json_is_true(json_object_get(b, "in_use"));

                cli_table_cell(line, 0, cli_text(b, "name"));
                cli_table_cell(line, 1, cli_size(b, "granularity"));
                cli_table_cell(line, 2,
                               in_use                                          ? "not saved"
                               : json_is_true(json_object_get(b, "automatic")) ? "records"
                                                                               : "stands still");
        }
        printf("\n");
        cli_table_finish(table);
}

static void print_more(const json_t *info)
{
        print_if("variant", info, "variant");
        print_if("version", info, "version");
        if (json_is_integer(json_object_get(info, "cluster_size")))
                printf("cluster size  %s\n", cli_size(info, "cluster_size"));
        print_if("compression", info, "compression");
        print_backing(info);
        print_if("data file", info, "data_file");
        if (json_is_true(json_object_get(info, "dirty")))
                printf("              it was not closed\n");
        if (json_is_true(json_object_get(info, "corrupt")))
                printf("              it is marked as corrupt\n");
        print_snapshots(json_object_get(info, "snapshots"));
        print_bitmaps(json_object_get(info, "bitmaps"));
}

static void print_size_if(const char *label, const json_t *export, const char *key)
{
        if (cli_number(export, key) > 0)
                printf("%-13s %s\n", label, cli_size(export, key));
}

static void print_export(const json_t *info)
{
        static const char *const offers[][2] = {
            {"flush", "flush"},
            {"fua", "fua"},
            {"trim", "trim"},
            {"write_zeroes", "write zeroes"},
            {"multi_conn", "several connections"},
            {"block_status", "block status"},
            {"tls", "tls"},
        };
        const json_t *export = json_object_get(info, "export");
        const char *separator = "";

        cli_say("file          %s", cli_text(info, "file"));
        printf("format        nbd (export of an NBD server, %s)\n",
               json_is_true(json_object_get(export, "read_only")) ? "read-only" : "writable");
        printf("virtual size  %s (%llu bytes)\n", cli_size(info, "virtual_size"),
               (unsigned long long)cli_number(info, "virtual_size"));
        print_size_if("smallest", export, "block_min");
        print_size_if("preferred", export, "block_preferred");
        print_size_if("largest", export, "block_max");
        printf("offers        ");
        for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++)
                if (json_is_true(json_object_get(export, offers[i][0]))) {
                        printf("%s%s", separator, offers[i][1]);
                        separator = ", ";
                }
        printf("%s\n", *separator ? "" : "nothing but to read");
}

static void print_info(const json_t *info)
{
        const struct image_driver *driver = image_driver_find(cli_text(info, "format"));

        cli_say("file          %s", cli_text(info, "file"));
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
        print_more(info);
}

int cli_image_info(const struct cli_verb *verb, const struct cli_args *args)
{
        struct info_work w = {
            .work = {.co_run = co_info}, .path = args->words[0], .format = args->format};
        struct error e = ERROR_INIT;
        int r;

        r = image_open_place(args, w.path, &w.fd, &e);
        if (r < 0)
                return cli_fail(&e);
        r = session_do(&w.work, &e);
        if (w.fd >= 0)
                close(w.fd);
        if (r < 0)
                return cli_fail(&e);
        if (args->given & CLI_JSON)
                cli_print_json(w.info);
        else if (json_object_get(w.info, "machine"))
                image_print_machine(w.info);
        else if (w.fd < 0)
                print_export(w.info);
        else
                print_info(w.info);
        json_decref(w.info);
        return EXIT_SUCCESS;
}
