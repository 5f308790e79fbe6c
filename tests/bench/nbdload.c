/* nbdload - a lean NBD load client: one thread, batched sends and receives, contents checked if
 * asked. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/error.h"
#include "common/size.h"
#include "tests/bench/args.h"
#include "tests/bench/conn.h"
#include "tests/bench/nbd_wire.h"
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
        OPT_URI = 256,
        OPT_OP,
        OPT_READ_PERCENT,
        OPT_ONCE,
        OPT_BS,
        OPT_DEPTH,
        OPT_CONNECTIONS,
        OPT_SECONDS,
        OPT_WARMUP,
        OPT_OFFSET,
        OPT_LENGTH,
        OPT_FLUSH_EVERY,
        OPT_END_FLUSH,
        OPT_FUA,
        OPT_STRUCTURED,
        OPT_SEED,
        OPT_VERIFY,
        OPT_STAMPS,
        OPT_AFTER_CRASH,
        OPT_SERVER_PID,
        OPT_HELP,
};

static const struct option long_options[] = {
    {"uri", required_argument, NULL, OPT_URI},
    {"op", required_argument, NULL, OPT_OP},
    {"read-percent", required_argument, NULL, OPT_READ_PERCENT},
    {"once", no_argument, NULL, OPT_ONCE},
    {"bs", required_argument, NULL, OPT_BS},
    {"depth", required_argument, NULL, OPT_DEPTH},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"warmup", required_argument, NULL, OPT_WARMUP},
    {"offset", required_argument, NULL, OPT_OFFSET},
    {"length", required_argument, NULL, OPT_LENGTH},
    {"flush-every", required_argument, NULL, OPT_FLUSH_EVERY},
    {"end-flush", no_argument, NULL, OPT_END_FLUSH},
    {"fua", no_argument, NULL, OPT_FUA},
    {"structured", no_argument, NULL, OPT_STRUCTURED},
    {"seed", required_argument, NULL, OPT_SEED},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"stamps", required_argument, NULL, OPT_STAMPS},
    {"after-crash", no_argument, NULL, OPT_AFTER_CRASH},
    {"server-pid", required_argument, NULL, OPT_SERVER_PID},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

struct command {
        struct session_options session;
        const char *uri, *op;
        bool has_seconds;
        bool help;
};

static int take_option(struct command *c, int option, const char *value, struct error *err)
{
        struct session_options *s = &c->session;
        unsigned pid = 0;
        int r = 0;

        switch (option) {
        case OPT_URI:
                c->uri = value;
                return 0;
        case OPT_OP:
                c->op = value;
                return 0;
        case OPT_READ_PERCENT:
                return args_unsigned(value, 0, 100, &s->read_percent, err);
        case OPT_ONCE:
                s->once = true;
                return 0;
        case OPT_BS:
                return args_block_bytes(value, &s->block_bytes, err);
        case OPT_DEPTH:
                return args_unsigned(value, 1, CONN_DEPTH_MAX, &s->depth, err);
        case OPT_CONNECTIONS:
                return args_unsigned(value, 1, SESSION_CONNECTIONS_MAX, &s->connections, err);
        case OPT_SECONDS:
                c->has_seconds = true;
                return args_seconds(value, &s->run_ns, err);
        case OPT_WARMUP:
                return args_seconds(value, &s->warmup_ns, err);
        case OPT_OFFSET:
                return size_parse(value, &s->range_offset, err);
        case OPT_LENGTH:
                return size_parse(value, &s->range_bytes, err);
        case OPT_FLUSH_EVERY:
                return args_unsigned(value, 1, 1000000, &s->flush_every, err);
        case OPT_END_FLUSH:
                s->end_flush = true;
                return 0;
        case OPT_FUA:
                s->fua = true;
                return 0;
        case OPT_STRUCTURED:
                s->structured = true;
                return 0;
        case OPT_SEED:
                return args_number(value, 0, UINT64_MAX, &s->seed, err);
        case OPT_VERIFY:
                s->verify = true;
                return 0;
        case OPT_STAMPS:
                s->stamps_path = value;
                return 0;
        case OPT_AFTER_CRASH:
                s->after_crash = true;
                return 0;
        case OPT_SERVER_PID:
                r = args_unsigned(value, 1, INT32_MAX, &pid, err);
                s->server_pid = (pid_t)pid;
                return r;
        case OPT_HELP:
                c->help = true;
                return 0;
        default:
                return error_set(err, -EINVAL, "unknown option");
        }
}

static int choose_operation(struct command *c, struct error *err)
{
        struct session_options *s = &c->session;
        const char *op = c->op;

        if (strcmp(op, "flush") == 0) {
                s->only_flushes = true;
                return 0;
        }
        if (strncmp(op, "rand", 4) == 0) {
                s->random = true;
                op += 4;
        }
        if (strcmp(op, "read") == 0)
                s->read_percent = 100;
        else if (strcmp(op, "write") == 0)
                s->read_percent = 0;
        else if (strcmp(op, "rw") != 0)
                return error_set(err, -EINVAL, "'%s' is not an operation", c->op);
        return 0;
}

static int check_together(const struct session_options *s, struct error *err)
{
        bool verifiable =
            s->block_bytes >= STAMP_UNIT_MIN && s->block_bytes % 8 == 0 &&
            (s->block_bytes <= STAMP_UNIT_MAX || s->block_bytes % STAMP_UNIT_MAX == 0);

        if (s->verify && !verifiable)
                return error_set(err, -EINVAL,
                                 "blocks of %u bytes cannot be stamped: 512 to 4096, or a multiple "
                                 "of 4096",
                                 s->block_bytes);
        if (s->verify && s->range_offset % STAMP_UNIT_MIN != 0)
                return error_set(err, -EINVAL, "the offset is not a multiple of 512");
        if ((s->stamps_path || s->after_crash) && !s->verify)
                return error_set(err, -EINVAL, "stamps need --verify");
        if (s->after_crash && !(s->read_percent == 100 && s->once && s->stamps_path))
                return error_set(err, -EINVAL,
                                 "after a crash everything is looked at first: --after-crash goes "
                                 "with --stamps, --op read and --once");
        return 0;
}

static int parse_command(int argc, char **argv, struct command *ret_command, struct error *err)
{
        struct command c = {.op = "randread",
                            .session = {.block_bytes = 4096,
                                        .depth = 32,
                                        .connections = 1,
                                        .read_percent = 70,
                                        .seed = 1,
                                        .run_ns = 1000000000}};
        int option, r;

        while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
                if (option == '?')
                        return -EINVAL; /* getopt has said why */
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
        if (c.session.once && !c.has_seconds)
                c.session.run_ns = 0;
        if (!c.session.once && c.session.run_ns == 0)
                return error_set(err, -EINVAL, "--seconds 0 never ends without --once");
        r = choose_operation(&c, err);
        if (r == 0)
                r = check_together(&c.session, err);
        if (r == 0)
                r = link_parse_uri(c.uri, &c.session.target, err);
        if (r == 0)
                *ret_command = c;
        return r;
}

static void print_result(const struct command *c, const struct session_result *r)
{
        const struct session_options *s = &c->session;
        uint64_t transfers = r->reads + r->writes;
        uint64_t ios = s->only_flushes ? r->flushes : transfers;
        double seconds = (double)r->elapsed_ns / 1e9;
        double per_second = seconds > 0 ? 1 / seconds : 0, per_io = ios ? 1.0 / (double)ios : 0;

        printf("{\"op\": \"%s\", \"block_bytes\": %u, \"depth\": %u, \"connections\": %u, "
               "\"seconds\": %.6f, \"ios\": %" PRIu64 ", \"reads\": %" PRIu64
               ", \"writes\": %" PRIu64 ", \"flushes\": %" PRIu64 ", \"iops\": %.1f, "
               "\"mib_per_s\": %.2f",
               c->op, s->block_bytes, s->depth, s->connections, seconds, ios, r->reads, r->writes,
               r->flushes, (double)ios * per_second, (double)r->bytes * per_second / 1048576);
        latency_print("latency_us", &r->latency);
        latency_print("flush_latency_us", &r->flush_latency);
        printf(", \"client_cpu_us_per_io\": %.3f", (double)r->client_cpu_ns * per_io / 1e3);
        if (s->server_pid)
                printf(", \"server_cpu_us_per_io\": %.3f", (double)r->server_cpu_ns * per_io / 1e3);
        printf(", \"all_flushes\": %" PRIu64 ", \"checked_bytes\": %" PRIu64
               ", \"plan_ended\": %s}\n",
               r->all_flushes, r->checked_bytes, r->plan_ended ? "true" : "false");
}

static void print_error(const struct error *err)
{
        if (err->message[0])
                fprintf(stderr, "nbdload: %s\n", err->message);
        if (err->hint[0])
                fprintf(stderr, "hint: %s\n", err->hint);
}

int main(int argc, char **argv)
{
        static struct session_result result;
        struct error err = ERROR_INIT;
        struct command c;

        if (parse_command(argc, argv, &c, &err) < 0) {
                print_error(&err);
                fputs("Try 'nbdload --help'.\n", stderr);
                return 2;
        }
        if (c.help) {
                fputs(help_text, stdout);
                return 0;
        }
        if (session_run(&c.session, &result, &err) < 0) {
                print_error(&err);
                return 1;
        }
        print_result(&c, &result);
        return fflush(stdout) == 0 ? 0 : 1;
}
