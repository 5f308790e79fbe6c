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

                printf("serving pool '%s'\n", hp->name);
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

static int parse_threads(const char *text, unsigned *ret_threads, struct error *err)
{
        char *end;
        unsigned long n;

        errno = 0;
        n = strtoul(text, &end, 10);
        if (text[0] < '0' || text[0] > '9' || *end || errno || n < 1 || n > SERVE_THREADS_MAX)
                return error_set(err, -EINVAL, "--threads takes a number from 1 to %u, not '%s'",
                                 SERVE_THREADS_MAX, text);
        *ret_threads = (unsigned)n;
        return 0;
}

static int run_serve(const struct cli_verb *verb, const struct cli_args *args)
{
        struct serve_options options = {.pools = (const char *const *)args->words,
                                        .n_pools = (size_t)args->n_words,
                                        .nbd = args->nbd,
                                        .n_nbd = args->n_nbd,
                                        .control = args->control,
                                        .group = args->group,
                                        .ready = announce};
        struct error e = ERROR_INIT;
        int r = 0;

        if (args->threads)
                r = parse_threads(args->threads, &options.threads, &e);
        if (r == 0 && args->later)
                r = error_set(&e, -ENOTSUP, "'serve --%s' is not built yet", args->later);
        if (r == 0 && options.n_pools > SERVE_POOLS_MAX)
                r = error_set(&e, -EINVAL, "one server serves at most %u pools", SERVE_POOLS_MAX);
        if (r == 0)
                r = serve_run(&options, &e);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

const struct cli_verb other_verbs[] = {
    {NULL, "serve",
     "POOL... [--nbd unix:PATH|tcp:ADDRESS:PORT]... [--control PATH] [--threads N] [--group G]",
     "serve the volumes of pools over NBD, until SIGTERM",
     "Runs in the foreground and says what it serves once it does. Exports are named\n"
     "POOL/VOLUME and POOL/VOLUME@SNAPSHOT (read-only); VOLUME alone where only one pool has\n"
     "it; the empty name is a server's only volume. Other commands go on working, and ask the\n"
     "server.\n\n"
     "  --nbd unix:PATH          listen on a Unix socket (default: POOL.nbd in the socket folder)\n"
     "  --nbd tcp:ADDRESS:PORT   listen on TCP; tcp:[::1]:10809 for IPv6\n"
     "  --control PATH           the control socket (default: POOL.control in the socket folder)\n"
     "  --threads N              event loops (default: one a processor)\n"
     "  --group G                sockets are for this group too (0660 in place of 0600)\n\n"
     "The socket folder is $TARN_RUNTIME_DIR, /run/tarn for root, $XDG_RUNTIME_DIR/tarn for\n"
     "others.\n\n"
     "Example:\n"
     "  tarn serve tank &\n"
     "  qemu-img info 'nbd+unix:///tank/web?socket=/run/tarn/tank.nbd'\n",
     CLI_NBD | CLI_CONTROL | CLI_GROUP | CLI_THREADS | CLI_LATER, 1, -1, run_serve},
    {NULL, "stat", "[POOL[/VOLUME]]", "I/O statistics", "", 0, 0, -1, NULL},
    {NULL, "vm", "run|start|stop|list|show|... ", "virtual machines from a file", "", 0, 0, -1,
     NULL},
    {0},
};
