/* serve.c - tarn serve, and the words that stand alone. */
#include <errno.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>

#include "cli/cli.h"
#include "server/serve.h"

static void announce(const struct host *host)
{
        list_for_each (it, &host->pools) {
                const struct host_pool *hp = container_of(it, struct host_pool, link);

                printf("serving pool '%s'\n", hp->state->name);
        }
        for (size_t i = 0; i < host->n_nbd_addresses; i++)
                printf("  NBD      %s\n", host->nbd_addresses[i]);
        if (host->vhost_folder)
                printf("  vhost    %s\n", host->vhost_folder);
        printf("  control  %s\n", host->control_path);
        /* A server is none the worse where nobody can read what it says. */
        if (fflush(stdout) != 0) {
                __fpurge(stdout);
                clearerr(stdout);
        }
}

static int run_serve(const struct cli_verb *verb, const struct cli_args *args)
{
        const struct serve_options options = {.pools = (const char *const *)args->words,
                                              .n_pools = (size_t)args->n_words,
                                              .nbd = args->nbd,
                                              .n_nbd = args->n_nbd,
                                              .control = args->control,
                                              .group = args->group,
                                              .vhost_folder = args->vhost_user,
                                              .ready = announce};
        struct error e = ERROR_INIT;
        int r = 0;

        if (args->later)
                r = error_set(&e, -ENOTSUP, "'serve --%s' is not built yet", args->later);
        else if (options.n_pools > SERVE_POOLS_MAX)
                r = error_set(&e, -EINVAL, "one server serves at most %u pools", SERVE_POOLS_MAX);
        if (r == 0)
                r = serve_run(&options, &e);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

const struct cli_verb other_verbs[] = {
    {NULL, "serve",
     "POOL... [--nbd unix:PATH|tcp:ADDRESS:PORT]... [--vhost-user FOLDER] [--control PATH] "
     "[--group G]",
     "serve the volumes of pools over NBD and vhost-user, until SIGTERM",
     "Runs in the foreground and says what it serves once it does. Exports are named\n"
     "POOL/VOLUME and POOL/VOLUME@SNAPSHOT (read-only); VOLUME alone where only one pool has\n"
     "it; the empty name is a server's only volume. What 'volume attach' offers is offered\n"
     "again. Other commands go on working, and ask the server.\n\n"
     "  --nbd unix:PATH          listen on a Unix socket (default: POOL.nbd in the socket folder)\n"
     "  --nbd tcp:ADDRESS:PORT   listen on TCP; tcp:[::1]:10809 for IPv6\n"
     "  --vhost-user FOLDER      offer each volume to virtual machines, on FOLDER/VOLUME.sock;\n"
     "                           on FOLDER/POOL/VOLUME.sock where several pools are served\n"
     "  --control PATH           the control socket (default: POOL.control in the socket folder)\n"
     "  --group G                sockets are for this group too (0660 in place of 0600)\n\n"
     "The socket folder is $TARN_RUNTIME_DIR, /run/tarn for root, $XDG_RUNTIME_DIR/tarn for\n"
     "others.\n\n"
     "Example:\n"
     "  tarn serve tank &\n"
     "  qemu-img info 'nbd+unix:///tank/web?socket=/run/tarn/tank.nbd'\n",
     CLI_NBD | CLI_VHOST_USER | CLI_CONTROL | CLI_GROUP | CLI_LATER, 1, -1, run_serve},
    {NULL, "stat", "[POOL[/VOLUME]]", "I/O statistics", "", 0, 0, -1, NULL},
    {NULL, "vm", "run|start|stop|list|show|... ", "virtual machines from a file", "", 0, 0, -1,
     NULL},
    {0},
};
