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
    {NULL, "serve", "POOL... [--nbd unix:PATH|tcp:ADDRESS:PORT]... [--control PATH] [--group G]",
     "serve the volumes of pools over NBD, until SIGTERM",
     "Runs in the foreground and says what it serves once it does. Exports are named\n"
     "POOL/VOLUME and POOL/VOLUME@SNAPSHOT (read-only); VOLUME alone where only one pool has\n"
     "it; the empty name is a server's only volume. Other commands go on working, and ask the\n"
     "server.\n\n"
     "  --nbd unix:PATH          listen on a Unix socket (default: POOL.nbd in the socket folder)\n"
     "  --nbd tcp:ADDRESS:PORT   listen on TCP; tcp:[::1]:10809 for IPv6\n"
     "  --control PATH           the control socket (default: POOL.control in the socket folder)\n"
     "  --group G                sockets are for this group too (0660 in place of 0600)\n\n"
     "The socket folder is $TARN_RUNTIME_DIR, /run/tarn for root, $XDG_RUNTIME_DIR/tarn for\n"
     "others.\n\n"
     "Example:\n"
     "  tarn serve tank &\n"
     "  qemu-img info 'nbd+unix:///tank/web?socket=/run/tarn/tank.nbd'\n",
     CLI_NBD | CLI_CONTROL | CLI_GROUP | CLI_LATER, 1, -1, run_serve},
    {NULL, "stat", "[POOL[/VOLUME]] [--interval S] [--count N] [--exports] [--members] [--json]",
     "show what volumes do, as iostat shows disks",
     "Of one volume, of a pool that is served, or of all that are. The first report is since the\n"
     "pool was opened, each later one since the report before.\n\n"
     "  --interval S   a report every S seconds, until it is stopped\n"
     "  --count N      end after N reports (without --interval: one a second)\n"
     "  --exports      also each connection\n"
     "  --members      also each member\n"
     "  --json         one object a line for each report\n\n"
     "  r/s w/s        reads and writes a second; rMB/s and wMB/s what they moved, in MiB\n"
     "  f/s d/s        flushes a second; discards and zeroes a second\n"
     "  r_await        what a read took on average, in milliseconds, waiting for the volume's\n"
     "                 limits included; w_await a write; p99 what 99 of 100 of them took at most\n"
     "  aqu-sz %util   how many requests were under way on average; the share of the time in\n"
     "                 which there was one\n",
     CLI_INTERVAL | CLI_COUNT | CLI_EXPORTS | CLI_MEMBERS | CLI_JSON, 0, 1, cli_run_stat},
    {NULL, "vm", "run|start|stop|list|show|... ", "virtual machines from a file", "", 0, 0, -1,
     NULL},
    {0},
};
