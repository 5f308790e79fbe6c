/* image_map.c - tarn image map, tarn image check. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/files.h"
#include "cli/image.h"
#include "common/coroutine.h"
#include "server/session.h"

/* Both open the image and walk through it. */
struct walk_work {
        struct session_work work;
        const struct image_options *options;
        const char *path;
        bool json;
        int fd;
        struct files *files;
        int (*co_walk)(struct walk_work *w, struct image *image, struct error *err);
        json_t *list;
        struct image_check check;
        const char *format;
};

static int co_open_and_walk(struct loop *loop, struct session_work *work, struct error *err)
{
        struct walk_work *w = container_of(work, struct walk_work, work);
        struct image *image;
        int r = co_image_open_place(w->fd, w->path, w->options, &work->cancelled, &image, err);

        if (r == 0) {
                w->format = image->driver->name;
                r = w->co_walk(w, image, err);
                image_close(image);
        }
        files_close_exports(w->files);
        return r;
}

static int walk(struct walk_work *w, const struct cli_args *args, struct error *err)
{
        int r;

        w->work.co_run = co_open_and_walk;
        r = image_open_place(args, w->path, &w->fd, err);
        if (r < 0)
                return r;
        w->list = json_array();
        r = w->list ? session_do(&w->work, err) : error_set(err, -ENOMEM, "out of memory");
        if (w->fd >= 0)
                close(w->fd);
        return r;
}

/* ---- map ---- */

static bool joins(const struct image_extent *a, const struct image_extent *b)
{
        return a->zero == b->zero && a->present == b->present && a->compressed == b->compressed &&
               a->depth == b->depth && a->has_offset == b->has_offset &&
               (!a->has_offset || a->file_offset + a->length == b->file_offset);
}

/* Printed as they are found: a hostile file of a few bytes can have more of them than there is memory. */
struct printer {
        bool json;
        uint64_t n;
        int width; /* of a place on the disk, in digits */
};

static const char *kind_of(const struct image_extent *x)
{
        if (x->compressed)
                return "compressed";
        if (!x->zero && x->present)
                return "data";
        return x->present ? "zero" : "absent";
}

static void print_row(const struct printer *p, uint64_t start, const struct image_extent *x)
{
        if (p->n == 0)
                printf("%*s %*s %-10s %5s  OFFSET\n", p->width, "START", p->width, "LENGTH", "IS",
                       "DEPTH");
        printf("%*" PRIu64 " %*" PRIu64 " %-10s %5u", p->width, start, p->width, x->length,
               kind_of(x), x->depth);
        if (x->has_offset)
                printf("  %" PRIu64, x->file_offset);
        printf("\n");
}

/* As 'qemu-img map' names things, and as it has a line for each. */
static int print_object(const struct printer *p, uint64_t start, const struct image_extent *x,
                        struct error *err)
{
        json_t *o = json_pack("{s:I, s:I, s:I, s:b, s:b, s:b, s:b}", "start", (json_int_t)start,
                              "length", (json_int_t)x->length, "depth", (json_int_t)x->depth,
                              "present", (int)x->present, "zero", (int)x->zero, "data",
                              !x->zero && x->present, "compressed", (int)x->compressed);

        if (o && x->has_offset)
                json_object_set_new(o, "offset", json_integer((json_int_t)x->file_offset));
        if (!o)
                return error_set(err, -ENOMEM, "out of memory");
        printf("%s", p->n == 0 ? "[" : ",\n ");
        json_dumpf(o, stdout, 0);
        json_decref(o);
        return 0;
}

static int print_extent(struct printer *p, uint64_t start, const struct image_extent *x,
                        struct error *err)
{
        int r = 0;

        if (p->json)
                r = print_object(p, start, x, err);
        else
                print_row(p, start, x);
        p->n++;
        if (r == 0 && ferror(stdout))
                r = error_set(err, -errno, "cannot write the output: %s", strerror(errno));
        return r;
}

static int co_map(struct walk_work *w, struct image *image, struct error *err)
{
        struct printer p = {.json = w->json,
                            .width = snprintf(NULL, 0, "%" PRIu64, image->virtual_bytes)};
        struct image_extent last = {0};
        uint64_t at = 0, last_start = 0;
        int r = 0;

        if (p.width < (int)strlen("LENGTH"))
                p.width = (int)strlen("LENGTH");
        while (at < image->virtual_bytes && r == 0) {
                struct image_extent x = {0};

                if (w->work.cancelled)
                        return error_set(err, -ECANCELED, "interrupted");
                r = image->driver->co_extent(image, at, &x, err);
                if (r == 0 && x.length == 0)
                        r = error_set(err, -EIO, "'%s' has an extent of no length at offset %llu",
                                      image->path, (unsigned long long)at);
                if (r < 0)
                        break;
                if (last.length > 0 && joins(&last, &x)) {
                        last.length += x.length;
                } else {
                        if (last.length > 0)
                                r = print_extent(&p, last_start, &last, err);
                        last = x;
                        last_start = at;
                }
                at += x.length;
        }
        if (r == 0 && last.length > 0)
                r = print_extent(&p, last_start, &last, err);
        if (r == 0 && p.json)
                printf("%s]\n", p.n == 0 ? "[" : "");
        return r;
}

int cli_image_map(const struct cli_verb *verb, const struct cli_args *args)
{
        struct files files;
        const struct image_options options = {.format = args->format,
                                              .snapshot = args->snapshot,
                                              .backing_format = args->backing_format,
                                              .opener = &files.opener};
        struct walk_work w = {.path = args->words[0],
                              .options = &options,
                              .files = &files,
                              .json = args->given & CLI_JSON,
                              .co_walk = co_map};
        struct error e = ERROR_INIT;
        int r;

        files_init(&files, args);
        files_follow_exports(&files, &w.work.cancelled);
        r = walk(&w, args, &e);
        files_close(&files);
        json_decref(w.list);
        if (r == -EPIPE) { /* who reads it has seen enough */
                errno = EPIPE;
                return EXIT_SUCCESS;
        }
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

/* ---- check ---- */

static void keep_finding(struct image_check *check, const char *sentence)
{
        struct walk_work *w = container_of(check, struct walk_work, check);

        json_array_append_new(w->list, image_text(sentence));
}

static int co_check(struct walk_work *w, struct image *image, struct error *err)
{
        if (!image->driver->co_check)
                return error_set(err, -ENOTSUP,
                                 "'%s' cannot be checked: there is nothing in %s images that could "
                                 "be compared",
                                 image->path, image->driver->name);
        w->check.report = keep_finding;
        w->check.cancelled = &w->work.cancelled;
        return image->driver->co_check(image, &w->check, err);
}

static void print_check(const struct walk_work *w)
{
        const struct image_check *c = &w->check;
        char leaks[96] = "", leaked[SIZE_TEXT_MAX];
        json_t *sentence;
        size_t i;

        json_array_foreach (w->list, i, sentence)
                cli_say("%s", json_string_value(sentence));
        if (c->n_errors + c->n_leaks == 0) {
                cli_say("'%s' (%s): nothing wrong was found", w->path, w->format);
                return;
        }
        if (c->n_leaks > 0)
                snprintf(leaks, sizeof(leaks), ", %llu leaks, which are harmless and take %s",
                         (unsigned long long)c->n_leaks, size_format(c->leaked_bytes, leaked));
        cli_say("'%s' (%s): %llu errors%s", w->path, w->format, (unsigned long long)c->n_errors,
                leaks);
}

int cli_image_check(const struct cli_verb *verb, const struct cli_args *args)
{
        struct files files;
        const struct image_options options = {
            .format = args->format, .alone = true, .opener = &files.opener};
        struct walk_work w = {
            .path = args->words[0], .options = &options, .files = &files, .co_walk = co_check};
        struct error e = ERROR_INIT;
        bool clean;
        int r;

        files_init(&files, args);
        r = walk(&w, args, &e);
        files_close(&files);
        if (r < 0) {
                json_decref(w.list);
                cli_fail(&e);
                return EXIT_NOT_CHECKED;
        }
        clean = w.check.n_errors + w.check.n_leaks == 0;
        if (args->given & CLI_JSON) {
                json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:O}", "file", w.path,
                                      "format", w.format, "errors", (json_int_t)w.check.n_errors,
                                      "leaks", (json_int_t)w.check.n_leaks, "leaked",
                                      (json_int_t)w.check.leaked_bytes, "allocated",
                                      (json_int_t)w.check.allocated_bytes, "end",
                                      (json_int_t)w.check.end_bytes, "findings", w.list);

                cli_print_json(o);
                json_decref(o);
        } else {
                print_check(&w);
        }
        json_decref(w.list);
        return clean ? EXIT_SUCCESS : EXIT_FINDINGS;
}
