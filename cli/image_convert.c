/* image_convert.c - tarn image convert: from one image file to another, without a pool. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/files.h"
#include "cli/image.h"
#include "common/coroutine.h"
#include "common/offload.h"
#include "formats/nbd.h"
#include "server/session.h"
#include "server/verify.h"

static const char CONVERTING[] = "converting", VERIFYING[] = "verifying";

struct convert_work {
        struct session_work work;
        struct transfer_watch watch;
        struct cli_progress progress;
        const char *from_path, *to_path;
        int from_fd, to_fd;
        struct files files;
        struct image_options options;
        struct image_create_options create;
        uint64_t bytes;
        bool guessed, verify;
        const char *flaw;
};

static void show_progress(struct transfer_watch *watch, uint64_t done, uint64_t total)
{
        struct convert_work *w = container_of(watch, struct convert_work, watch);

        cli_progress_label(&w->progress, watch->verifying ? VERIFYING : CONVERTING, done);
        cli_progress_show(&w->progress, done, total);
}

/* Disks have whole sectors; only raw images can have any length. */
static uint64_t size_for(const char *format, uint64_t bytes)
{
        return strcmp(format, "raw") == 0 ? bytes : (bytes + 511) / 512 * 512;
}

static int co_open_to(struct convert_work *w, struct image **ret_image, struct error *err)
{
        const struct nbd_target target = {
            .uri = w->to_path, .fd = -1, .cancelled = &w->work.cancelled};

        if (w->to_fd < 0)
                return co_nbd_open(&target, true, ret_image, err);
        return co_image_create(w->to_fd, w->to_path, &w->create, ret_image, err);
}

/* Files are read as they are now, and exports over the connections that there are: a server may take no
 * second one. */
static int co_verify_convert(struct convert_work *w, struct image *from, struct image *to,
                             struct error *err)
{
        struct transfer_side source = {.image = from};
        struct image *again = NULL;
        int r = 0;

        if (w->from_fd >= 0)
                r = co_image_open(w->from_fd, w->from_path, &w->options, &again, err);
        else
                nbd_forget_map(from);
        if (again)
                source.image = again;
        if (r == 0)
                r = co_verify_image(source, to, &w->files.made, &w->watch, err);
        image_close(again);
        return r;
}

static int co_convert_from(struct convert_work *w, struct image *from, struct error *err)
{
        struct transfer_side source = {.image = from}, target = {0};
        struct image *to = NULL;
        int r;

        w->guessed = from->guessed;
        w->flaw = image_flaw(from);
        w->create.virtual_bytes = size_for(w->create.format, from->virtual_bytes);
        r = co_open_to(w, &to, err);
        if (r < 0)
                return r;
        target.image = to;
        r = co_transfer(source, target, &w->watch, err);
        if (r == 0 && w->verify)
                r = co_verify_convert(w, from, to, err);
        w->bytes = to->virtual_bytes;
        image_close(to);
        return r;
}

static int co_convert(struct loop *loop, struct session_work *work, struct error *err)
{
        struct convert_work *w = container_of(work, struct convert_work, work);
        struct offload *offload = offload_new(0);
        struct image *from;
        int r;

        w->options.offload = w->create.offload = offload;
        r = co_image_open_place(w->from_fd, w->from_path, &w->options, &w->work.cancelled, &from,
                                err);
        if (r == 0) {
                r = co_convert_from(w, from, err);
                image_close(from);
        }
        files_close_exports(&w->files);
        offload_free(offload);
        return r;
}

static int do_convert(struct convert_work *w, struct error *err)
{
        int r;

        w->watch =
            (struct transfer_watch){.progress = show_progress, .cancelled = &w->work.cancelled};
        cli_progress_begin(&w->progress, CONVERTING, false);
        r = session_do(&w->work, err);
        cli_progress_end(&w->progress);
        return r;
}

/* A file that replaces itself is made beside itself; a device would be read as it is overwritten. */
static int refuse_itself(const struct convert_work *w, struct error *err)
{
        struct stat from, to;

        if (w->from_fd < 0 || fstat(w->from_fd, &from) < 0 || fstat(w->to_fd, &to) < 0 ||
            !S_ISBLK(from.st_mode) || !S_ISBLK(to.st_mode) || from.st_rdev != to.st_rdev)
                return 0;
        return error_set(err, -EINVAL, "'%s' and '%s' are the same device", w->from_path,
                         w->to_path);
}

static int convert_to_file(struct convert_work *w, const struct cli_args *args, struct error *err)
{
        struct output output;
        int r = output_open(&output, w->to_path, args->given & CLI_FORCE, err);

        if (r < 0)
                return r;
        w->to_fd = output.fd;
        r = refuse_itself(w, err);
        if (r == 0)
                r = do_convert(w, err);
        if (r == 0)
                r = files_finish(&w->files, err);
        if (r == 0)
                r = output_finish(&output, err);
        output_close(&output);
        return r;
}

static int convert(struct convert_work *w, const struct cli_args *args, struct error *err)
{
        int r = image_check_output(args, err);

        if (r == 0)
                r = image_cluster_size(args, &w->create.cluster_bytes, err);
        if (r < 0)
                return r;
        files_init(&w->files, args);
        files_follow_exports(&w->files, &w->work.cancelled);
        w->options.opener = w->create.opener = &w->files.opener;
        w->from_fd = w->to_fd = -1;
        if (!nbd_is_uri(w->from_path)) {
                w->from_fd = image_open_input(w->from_path, err);
                if (w->from_fd < 0)
                        return w->from_fd;
        }
        r = nbd_is_uri(w->to_path) ? do_convert(w, err) : convert_to_file(w, args, err);
        files_close(&w->files);
        if (w->from_fd >= 0)
                close(w->from_fd);
        return r;
}

int cli_image_convert(const struct cli_verb *verb, const struct cli_args *args)
{
        struct convert_work w = {
            .work = {.co_run = co_convert},
            .from_path = args->words[0],
            .to_path = args->words[1],
            .verify = args->given & CLI_VERIFY,
            .options = {.format = args->from_format,
                        .snapshot = args->snapshot,
                        .backing_format = args->backing_format},
            .create = {.format = args->format ? args->format : "raw",
                       .variant = args->variant,
                       .compression = args->compression},
        };
        struct error e = ERROR_INIT;
        char size[SIZE_TEXT_MAX];

        if (convert(&w, args, &e) < 0)
                return cli_fail(&e);
        if (w.guessed && !args->from_format)
                cli_note("'%s' is taken as raw: nothing else was recognised", w.from_path);
        image_tell_flaw(w.from_path, w.flaw);
        cli_say("converted '%s' to '%s' (%s), %s%s", w.from_path, w.to_path, w.create.format,
                size_format(w.bytes, size), w.verify ? ", verified" : "");
        return EXIT_SUCCESS;
}
