/* volume_base.c - tarn volume create ... --base, tarn volume hydrate */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/files.h"
#include "cli/image.h"
#include "formats/nbd.h"
#include "formats/nbd_uri.h"

static int fail(json_t *request, const struct error *e)
{
        json_decref(request);
        return cli_fail(e);
}

/* "--bandwidth 50M", of --hydrate: what it may read of the image a second; 0 without. */
static int put_bandwidth(const struct cli_args *args, json_t **request, struct error *err)
{
        uint64_t bandwidth = 0;

        if (args->bandwidth && size_parse(args->bandwidth, &bandwidth, err) < 0)
                return error_prefix(err, "--bandwidth");
        cli_put(request, "bandwidth", json_integer((json_int_t)bandwidth));
        return 0;
}

static int create_request(const struct cli_args *args, json_t **ret, struct error *err)
{
        json_t *request = json_pack("{s:s}", "command", "volume-create");
        uint64_t size;
        int r = 0;

        if (args->n_words > 1) {
                r = size_parse(args->words[1], &size, err);
                if (r == 0)
                        cli_put(&request, "size", json_integer((json_int_t)size));
        }
        if (r == 0 && args->given & CLI_HYDRATE)
                r = put_bandwidth(args, &request, err);
        *ret = request;
        return r;
}

/* What is asked about an image that volumes are to stand on. */
struct base_call {
        const struct cli_args *args;
        const char *pool, *image;
        json_t *request; /* taken over */
        struct files files;
        int fds[FILES_MAX + 1];
        size_t n_fds;
};

static int put_file(struct base_call *call, struct error *err)
{
        char path[PATH_MAX];

        if (!realpath(call->image, path))
                return error_set(err, -errno, "cannot open '%s': %s", call->image, strerror(errno));
        if (!cli_is_text(path)) {
                error_set(err, -EILSEQ, "'%s' is not UTF-8 text, which a pool cannot remember",
                          path);
                return error_hint(err, "give the file or its folder another name");
        }
        call->fds[0] = image_open_input(path, err);
        if (call->fds[0] < 0)
                return call->fds[0];
        return image_put_files(call->args, path, call->args->format, call->fds[0], &call->files,
                               &call->request, call->fds, &call->n_fds, err);
}

static int put_export(struct base_call *call, struct error *err)
{
        int r = image_check_export(call->args, call->image, err);

        if (r == 0)
                r = nbd_uri_check(call->image, NULL, err);
        if (r < 0)
                return r;
        call->n_fds = 1;
        call->fds[0] = image_open_export(call->image, &call->request, err);
        cli_put(&call->request, "path", json_string(call->image));
        return call->fds[0] < 0 ? call->fds[0] : 0;
}

/* The server gets the image's files, or the connection, from here, and finds them by their paths or
 * the URI when it is started again. */
static int call_with(struct base_call *call, json_t **ret_reply, struct error *err)
{
        int r;

        files_init(&call->files, call->args);
        call->files.keep = true;
        call->fds[0] = -1;
        r = nbd_is_uri(call->image) ? put_export(call, err) : put_file(call, err);
        if (r == 0)
                r = cli_try(&(struct cli_call){.pool = call->pool,
                                               .request = call->request,
                                               .fds = call->fds,
                                               .n_fds = call->n_fds,
                                               .progress = call->args->given & CLI_HYDRATE
                                                               ? "copying"
                                                               : NULL},
                            ret_reply, err);
        else
                json_decref(call->request);
        files_close(&call->files);
        if (call->fds[0] >= 0)
                close(call->fds[0]);
        return r;
}

static int create_on(const struct cli_args *args, const char *pool, json_t *request,
                     json_t **ret_reply, struct error *err)
{
        struct base_call call = {
            .args = args, .pool = pool, .image = args->base, .request = request};

        cli_put(&call.request, "base", json_true());
        return call_with(&call, ret_reply, err);
}

static int create(const struct cli_args *args, json_t **ret_reply, struct error *err)
{
        json_t *request = NULL;
        const char *volume;
        char *pool;
        int r = cli_split(args->words[0], &pool, &volume, err);

        if (r < 0)
                return r;
        r = create_request(args, &request, err);
        cli_put(&request, "volume", json_string(volume));
        if (r == 0 && args->base) {
                r = create_on(args, pool, request, ret_reply, err);
                request = NULL;
        } else if (r == 0) {
                r = cli_try(&(struct cli_call){.pool = pool, .request = request}, ret_reply, err);
                request = NULL;
        }
        json_decref(request);
        free(pool);
        return r;
}

int cli_run_create(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;
        json_t *reply = NULL;

        if (!args->base && args->n_words < 2) {
                error_set(&e, -EINVAL, "'create' needs more arguments: a size, or an image");
                error_hint(&e, "tarn volume create %s SIZE", args->words[0]);
                cli_fail(&e);
                return EXIT_USAGE;
        }
        if (create(args, &reply, &e) < 0)
                return cli_fail(&e);
        printf("created volume '%s' of %s%s%s%s\n", args->words[0], cli_size(reply, "size"),
               args->base ? " on '" : "", args->base ? args->base : "", args->base ? "'" : "");
        json_decref(reply);
        return EXIT_SUCCESS;
}

static int rebase(const struct cli_args *args, struct error *err)
{
        struct base_call call = {.args = args, .image = args->words[1]};
        json_t *reply = NULL;
        const char *volume;
        char *pool;
        int r = cli_split(args->words[0], &pool, &volume, err);

        if (r < 0)
                return r;
        call.pool = pool;
        call.request = json_pack("{s:s, s:s}", "command", "volume-rebase", "volume", volume);
        r = call_with(&call, &reply, err);
        json_decref(reply);
        free(pool);
        return r;
}

int cli_run_rebase(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;

        if (rebase(args, &e) < 0)
                return cli_fail(&e);
        printf("volume '%s' stands on '%s', which has the same content\n", args->words[0],
               args->words[1]);
        return EXIT_SUCCESS;
}

int cli_run_hydrate(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *request = json_pack("{s:s}", "command", "volume-hydrate"), *reply = NULL;
        struct error e = ERROR_INIT;
        const char *volume;
        char *pool = NULL;
        int r = cli_split(args->words[0], &pool, &volume, &e);

        if (r == 0)
                r = put_bandwidth(args, &request, &e);
        if (r < 0) {
                free(pool);
                return fail(request, &e);
        }
        cli_put(&request, "volume", json_string(volume));
        if (args->given & CLI_STOP)
                cli_put(&request, "stop", json_true());
        r = cli_try(&(struct cli_call){.pool = pool, .request = request, .progress = "copying"},
                    &reply, &e);
        free(pool);
        if (r < 0)
                return cli_fail(&e);
        if (json_is_true(json_object_get(reply, "complete")))
                printf("all of volume '%s' is in the pool: its image is not needed any more\n",
                       args->words[0]);
        else if (args->given & CLI_STOP)
                printf("the image of volume '%s' is not copied any further\n", args->words[0]);
        else
                printf(
                    "the image of volume '%s' is being copied; 'tarn volume show' tells how far\n",
                    args->words[0]);
        json_decref(reply);
        return EXIT_SUCCESS;
}
