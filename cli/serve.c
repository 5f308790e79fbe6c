/* serve.c - tarn serve, and the words that stand alone. */
#include <errno.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>

#include "cli/cli.h"
#include "server/serve.h"

#define CONNECTIONS_MAX 100000u /* descriptors set a lower limit on most machines */
#define HANDSHAKE_S_MAX 3600u
#define IDLE_S_MAX      1000000u

static void announce(const struct host *host)
{
        list_for_each (it, &host->pools) {
                const struct host_pool *hp = container_of(it, struct host_pool, link);

                printf("serving pool '%s'\n", hp->name);
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

/* --tls; where it is not said, what there are credentials for is required. */
static int take_tls_mode(const struct cli_args *args, enum nbd_tls_mode *ret_mode,
                         struct error *err)
{
        static const char *const modes[] = {[NBD_TLS_OFF] = "off",
                                            [NBD_TLS_ALLOW] = "allow",
                                            [NBD_TLS_REQUIRE_NETWORK] = "require-network",
                                            [NBD_TLS_REQUIRE] = "require"};
        const uint64_t credentials = CLI_TLS_ALL & ~(CLI_TLS | CLI_TLS_ACCESS);
        size_t mode = args->given & credentials ? NBD_TLS_REQUIRE : NBD_TLS_OFF;

        if (args->tls) {
                for (mode = 0; mode < sizeof(modes) / sizeof(modes[0]); mode++)
                        if (strcmp(args->tls, modes[mode]) == 0)
                                break;
                if (mode == sizeof(modes) / sizeof(modes[0])) {
                        error_set(err, -EINVAL, "'%s' is no mode of TLS", args->tls);
                        return error_hint(err, "say off, allow, require-network or require");
                }
        }
        if (mode == NBD_TLS_OFF && args->given & CLI_TLS_ACCESS) {
                error_set(err, -EINVAL,
                          "--tls-access is about who clients are by TLS, which is off");
                return error_hint(err, "say --tls-cert and --tls-ca, or --tls-psk");
        }
        *ret_mode = (enum nbd_tls_mode)mode;
        return 0;
}

static int take_tls(const struct cli_args *args, struct serve_options *options, struct error *err)
{
        int r = take_tls_mode(args, &options->tls_mode, err);

        if (r < 0)
                return r;
        options->tls = (struct nbd_tls_options){.certificate = args->tls_cert,
                                                .key = args->tls_key,
                                                .ca = args->tls_ca,
                                                .verify_peer = args->given & CLI_TLS_VERIFY,
                                                .psk = args->tls_psk};
        options->tls_access = args->tls_access;
        options->tls_chosen = args->tls != NULL;
        if (options->tls_mode != NBD_TLS_OFF && !args->tls_cert && !args->tls_psk) {
                error_set(err, -EINVAL, "TLS needs a certificate or pre-shared keys");
                return error_hint(err, "say --tls-cert FILE --tls-key FILE, or --tls-psk FILE");
        }
        return 0;
}

/* A number from 1 to @most. */
static int take_number(const char *text, const char *what, unsigned most, unsigned *ret_number,
                       struct error *err)
{
        size_t n = strspn(text, "0123456789");
        unsigned long number = strtoul(text, NULL, 10);

        if (n == 0 || n > 9 || text[n] != '\0' || number == 0 || number > most)
                return error_set(err, -EINVAL, "'%s' is no %s: it is a number from 1 to %u", text,
                                 what, most);
        *ret_number = (unsigned)number;
        return 0;
}

static int take_limits(const struct cli_args *args, struct serve_options *options,
                       struct error *err)
{
        unsigned seconds = 0;
        int r = 0;

        if (args->max_connections)
                r = take_number(args->max_connections, "number of connections", CONNECTIONS_MAX,
                                &options->max_connections, err);
        if (r == 0 && args->handshake_timeout)
                r = take_number(args->handshake_timeout, "time in seconds", HANDSHAKE_S_MAX,
                                &seconds, err);
        if (r == 0 && args->threads)
                r = take_number(args->threads, "number of threads", SERVE_THREADS_MAX,
                                &options->threads, err);
        options->handshake_timeout_ms = 1000 * seconds;
        seconds = 0;
        if (r == 0 && args->idle_timeout)
                r = take_number(args->idle_timeout, "time in seconds", IDLE_S_MAX, &seconds, err);
        options->idle_timeout_ms = 1000 * seconds;
        return r;
}

/* Where to listen the other server knows. */
static int check_takeover(const struct cli_args *args, struct error *err)
{
        const char *option = args->n_nbd > 0    ? "--nbd"
                             : args->vhost_user ? "--vhost-user"
                             : args->control    ? "--control"
                             : args->group      ? "--group"
                                                : NULL;

        if (!option)
                return 0;
        error_set(err, -EINVAL,
                  "--takeover goes on with the sockets of the server, so '%s' is "
                  "not for it",
                  option);
        return error_hint(err, "leave it out: '%s' stays as the server has it", option);
}

static int run_serve(const struct cli_verb *verb, const struct cli_args *args)
{
        struct serve_options options = {.pools = (const char *const *)args->words,
                                        .n_pools = (size_t)args->n_words,
                                        .nbd = args->nbd,
                                        .n_nbd = args->n_nbd,
                                        .control = args->control,
                                        .group = args->group,
                                        .vhost_folder = args->vhost_user,
                                        .takeover = args->given & CLI_TAKEOVER,
                                        .while_used = args->given & CLI_WHILE_USED,
                                        .ready = announce};
        struct error e = ERROR_INIT;
        int r = 0;

        if (options.takeover && check_takeover(args, &e) < 0) {
                cli_fail(&e);
                return EXIT_USAGE;
        }
        if (options.n_pools > SERVE_POOLS_MAX)
                r = error_set(&e, -EINVAL, "one server serves at most %u pools", SERVE_POOLS_MAX);
        if (r == 0)
                r = take_tls(args, &options, &e);
        if (r == 0)
                r = take_limits(args, &options, &e);
        if (r == 0)
                r = serve_run(&options, &e);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

const struct cli_verb other_verbs[] = {
    {NULL, "serve",
     "POOL... [--nbd unix:PATH|tcp:ADDRESS:PORT|vsock:PORT]... [--vhost-user FOLDER] "
     "[--control PATH] [--threads N] [--group G] [--takeover] [--while-used] [--tls MODE] "
     "[--tls-...]",
     "serve the volumes of pools over NBD and vhost-user, until SIGTERM",
     "Runs in the foreground and says what it serves once it does. Exports are named\n"
     "POOL/VOLUME and POOL/VOLUME@SNAPSHOT (read-only); VOLUME alone where only one pool has\n"
     "it; the empty name is a server's only volume. What 'volume attach' offers is offered\n"
     "again. Other commands go on working, and ask the server.\n\n"
     "  --nbd unix:PATH          listen on a Unix socket (default: POOL.nbd in the socket folder)\n"
     "  --nbd tcp:ADDRESS:PORT   listen on TCP; tcp:[::1]:10809 for IPv6\n"
     "  --nbd vsock:[CID:]PORT   listen for virtual machines, or in one\n"
     "  --vhost-user FOLDER      offer each volume to virtual machines, on FOLDER/VOLUME.sock;\n"
     "                           on FOLDER/POOL/VOLUME.sock where several pools are served\n"
     "  --control PATH           the control socket (default: POOL.control in the socket folder)\n"
     "  --takeover               go on in the place of the pools' server, with its sockets, its\n"
     "                           virtual machines and all: for an upgrade while guests run. It\n"
     "                           ends; NBD clients connect again\n"
     "  --while-used             end once nobody uses a volume any more: so 'tarn vm' starts\n"
     "                           servers\n"
     "  --threads N              event loops (default: one a processor)\n"
     "  --group G                sockets are for this group too (0660 in place of 0600)\n"
     "  --max-connections N      of NBD at a time (default 1024)\n"
     "  --handshake-timeout S    seconds a client may take to choose its export (default 10)\n"
     "  --idle-timeout S         seconds after which a client that asks for nothing is cut off\n"
     "                           (default: never)\n\n"
     "TLS, by a certificate, pre-shared keys or both:\n"
     "  --tls MODE               off, allow, require, or require-network (not on Unix sockets);\n"
     "                           default: require where a file is given, else off\n"
     "  --tls-cert FILE          the server's certificate, and those up to its CA (PEM)\n"
     "  --tls-key FILE           the certificate's private key (PEM)\n"
     "  --tls-ca FILE            the CA of clients' certificates: a client may show one\n"
     "  --tls-verify-peer        and must, unless it has a key\n"
     "  --tls-psk FILE           lines NAME:HEXKEY, as psktool writes them\n"
     "  --tls-access FILE        lines IDENTITY POOL/VOLUME[@SNAPSHOT] [ro]: who may open what, "
     "the\n"
     "                           first line that fits decides; * fits anything. IDENTITY is a "
     "key's\n"
     "                           name, or one in a certificate (CN, DN, DNS name, e-mail, URI);\n"
     "                           psk:NAME, cn:NAME and so on say which; - is whoever has none\n"
     "SIGHUP makes it read these files anew, for connections that come from then on.\n\n"
     "Sockets passed by systemd are used where they are called 'nbd' or 'control'\n"
     "(FileDescriptorName=), in place of the defaults.\n\n"
     "The socket folder is $TARN_RUNTIME_DIR, /run/tarn for root, $XDG_RUNTIME_DIR/tarn for\n"
     "others.\n\n"
     "Example:\n"
     "  tarn serve tank &\n"
     "  qemu-img info 'nbd+unix:///tank/web?socket=/run/tarn/tank.nbd'\n",
     CLI_NBD | CLI_VHOST_USER | CLI_CONTROL | CLI_GROUP | CLI_THREADS | CLI_TAKEOVER | CLI_TLS_ALL |
         CLI_MAX_CONNECTIONS | CLI_HANDSHAKE_TIMEOUT | CLI_IDLE_TIMEOUT | CLI_WHILE_USED,
     1, -1, run_serve},
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
    {0},
};
