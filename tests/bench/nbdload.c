/* nbdload - a lean NBD load client: one thread, batched sends and receives, contents checked if
 * asked. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include "common/error.h"
#include "tests/bench/args.h"
#include "tests/bench/conn.h"
#include "tests/bench/session.h"
#include "tests/bench/stamp.h"

static const char help_text[] =
    "usage: nbdload --uri URI [OPTION]...\n"
    "Put load on an NBD export and print what it did as one line of JSON.\n"
    "\n"
    "  --uri URI         nbd+unix:///EXPORT?socket=PATH or nbd://HOST[:PORT]/EXPORT\n"
    "  --op OP           read, write (sequential), randread, randwrite, rw, randrw, flush;\n"
    "                    default randread\n"
    "  --read-percent N  of rw and randrw; default 70\n"
    "  --once            each block once (of a random OP: in random order), then stop\n"
    "  --bs SIZE         block size; default 4K\n"
    "  --depth N         requests in flight on each connection; default 32\n"
    "  --connections N   default 1\n"
    "  --seconds S       how long; default 1, and without end with --once\n"
    "  --warmup S        run before measuring; default 0\n"
    "  --offset SIZE     where the range begins; default 0\n"
    "  --length SIZE     the range's length; default to the end of the export\n"
    "  --flush-every N   after N writes wait for them and flush, as fsync() does\n"
    "  --end-flush       flush when all is done (not measured)\n"
    "  --fua             writes with FUA\n"
    "  --structured      ask for structured replies\n"
    "  --seed N          of the order and of the contents; default 1\n"
    "  --verify          write stamped blocks and check what is read; the range must begin as\n"
    "                    zeroes, or be as the stamps say\n"
    "  --stamps FILE     keep the stamps, to go on with --verify in another run\n"
    "  --after-crash     the server was killed since: unflushed writes may be old or new\n"
    "  --server-pid PID  measure this process's CPU time\n"
    "\n"
    "Exit status: 0, 1 (failed, or wrong data), 2 (usage).\n"
    "\n"
    "Each block once in random order, then check all of it:\n"
    "  nbdload --uri 'nbd+unix:///tank/web?socket=tank.nbd' --op randwrite --once --verify \\\n"
    "          --stamps /tmp/web.stamps\n"
    "  nbdload --uri 'nbd+unix:///tank/web?socket=tank.nbd' --op read --once --verify \\\n"
    "          --stamps /tmp/web.stamps\n";

enum option_id {
        OPT_SHARED = 256, /* load_options.h's */
        OPT_URI,
        OPT_CONNECTIONS,
        OPT_FUA,
        OPT_STRUCTURED,
        OPT_HELP,
};

static const struct option long_options[] = {
    {"uri", required_argument, NULL, OPT_URI},
    {"op", required_argument, NULL, OPT_SHARED},
    {"read-percent", required_argument, NULL, OPT_SHARED},
    {"once", no_argument, NULL, OPT_SHARED},
    {"bs", required_argument, NULL, OPT_SHARED},
    {"depth", required_argument, NULL, OPT_SHARED},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"seconds", required_argument, NULL, OPT_SHARED},
    {"warmup", required_argument, NULL, OPT_SHARED},
    {"offset", required_argument, NULL, OPT_SHARED},
    {"length", required_argument, NULL, OPT_SHARED},
    {"flush-every", required_argument, NULL, OPT_SHARED},
    {"end-flush", no_argument, NULL, OPT_SHARED},
    {"fua", no_argument, NULL, OPT_FUA},
    {"structured", no_argument, NULL, OPT_STRUCTURED},
    {"seed", required_argument, NULL, OPT_SHARED},
    {"verify", no_argument, NULL, OPT_SHARED},
    {"stamps", required_argument, NULL, OPT_SHARED},
    {"after-crash", no_argument, NULL, OPT_SHARED},
    {"server-pid", required_argument, NULL, OPT_SHARED},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

struct command {
        struct session_options session;
        const char *uri;
        bool help;
};

static int take_option(struct command *c, int option, const char *value, struct error *err)
{
        switch (option) {
        case OPT_URI:
                c->uri = value;
                return 0;
        case OPT_CONNECTIONS:
                return args_unsigned(value, 1, SESSION_CONNECTIONS_MAX, &c->session.connections,
                                     err);
        case OPT_FUA:
                c->session.fua = true;
                return 0;
        case OPT_STRUCTURED:
                c->session.structured = true;
                return 0;
        case OPT_HELP:
                c->help = true;
                return 0;
        default:
                return error_set(err, -EINVAL, "unknown option");
        }
}

static int check_stamped(const struct load_options *o, struct error *err)
{
        bool verifiable =
            o->block_bytes >= STAMP_UNIT_MIN && o->block_bytes % 8 == 0 &&
            (o->block_bytes <= STAMP_UNIT_MAX || o->block_bytes % STAMP_UNIT_MAX == 0);

        if (o->verify && !verifiable)
                return error_set(err, -EINVAL,
                                 "blocks of %u bytes cannot be stamped: 512 to 4096, or a multiple "
                                 "of 4096",
                                 o->block_bytes);
        if (o->verify && o->range_offset % STAMP_UNIT_MIN != 0)
                return error_set(err, -EINVAL, "the offset is not a multiple of 512");
        return 0;
}

static int parse_command(int argc, char **argv, struct command *ret_command, struct error *err)
{
        struct command c = {.session = {.load = LOAD_OPTIONS_INIT, .connections = 1}};
        struct load_options *load = &c.session.load;
        int option, at = 0, r;

        while ((option = getopt_long(argc, argv, "", long_options, &at)) != -1) {
                if (option == '?')
                        return -EINVAL; /* getopt has said why */
                if (option == OPT_SHARED)
                        r = load_take_option(load, long_options[at].name, optarg, CONN_DEPTH_MAX,
                                             err);
                else
                        r = take_option(&c, option, optarg, err);
                if (r < 0)
                        return r;
        }
        if (c.help) {
                *ret_command = c;
                return 0;
        }
        if (optind != argc)
                return error_set(err, -EINVAL, "'%s' is not an option", argv[optind]);
        if (!c.uri)
                return error_set(err, -EINVAL, "--uri is missing");
        r = check_stamped(load, err);
        if (r == 0)
                r = load_check_options(load, err);
        if (r == 0)
                r = link_parse_uri(c.uri, &c.session.target, err);
        if (r == 0)
                *ret_command = c;
        return r;
}

static void print_result(const struct command *c, const struct session_result *r)
{
        const struct load_options *o = &c->session.load;
        uint64_t transfers = r->reads + r->writes;
        uint64_t ios = o->only_flushes ? r->flushes : transfers;
        double seconds = (double)r->elapsed_ns / 1e9;
        double per_second = seconds > 0 ? 1 / seconds : 0, per_io = ios ? 1.0 / (double)ios : 0;

        printf("{\"op\": \"%s\", \"block_bytes\": %u, \"depth\": %u, \"connections\": %u, "
               "\"seconds\": %.6f, \"ios\": %" PRIu64 ", \"reads\": %" PRIu64
               ", \"writes\": %" PRIu64 ", \"flushes\": %" PRIu64 ", \"iops\": %.1f, "
               "\"mib_per_s\": %.2f",
               o->op, o->block_bytes, o->depth, c->session.connections, seconds, ios, r->reads,
               r->writes, r->flushes, (double)ios * per_second,
               (double)r->bytes * per_second / 1048576);
        latency_print("latency_us", &r->latency);
        latency_print("flush_latency_us", &r->flush_latency);
        printf(", \"client_cpu_us_per_io\": %.3f", (double)r->client_cpu_ns * per_io / 1e3);
        if (o->server_pid)
                printf(", \"server_cpu_us_per_io\": %.3f", (double)r->server_cpu_ns * per_io / 1e3);
        printf(", \"all_flushes\": %" PRIu64 ", \"checked_bytes\": %" PRIu64
               ", \"plan_ended\": %s}\n",
               r->all_flushes, r->checked_bytes, r->plan_ended ? "true" : "false");
}

int main(int argc, char **argv)
{
        static struct session_result result;
        struct error err = ERROR_INIT;
        struct command c;

        if (parse_command(argc, argv, &c, &err) < 0) {
                load_print_error("nbdload", &err);
                fputs("Try 'nbdload --help'.\n", stderr);
                return 2;
        }
        if (c.help) {
                fputs(help_text, stdout);
                return 0;
        }
        if (session_run(&c.session, &result, &err) < 0) {
                load_print_error("nbdload", &err);
                return 1;
        }
        print_result(&c, &result);
        return fflush(stdout) == 0 ? 0 : 1;
}
