/* vhostload - a load client over vhost-user-blk: a guest without a machine, one thread, batched
 * rings, contents checked if asked. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include "common/error.h"
#include "tests/bench/args.h"
#include "tests/bench/stamp.h"
#include "tests/bench/vload.h"

static const char help_text[] =
    "usage: vhostload --socket PATH [OPTION]...\n"
    "Put load on a vhost-user-blk device and print what it did as one line of JSON.\n"
    "\n"
    "  --socket PATH     where the device's server listens\n"
    "  --op OP           read, write (sequential), randread, randwrite, rw, randrw, flush;\n"
    "                    default randread\n"
    "  --read-percent N  of rw and randrw; default 70\n"
    "  --zero-percent N, --discard-percent N\n"
    "                    so many of the writes write zeroes, or discard; default 0\n"
    "  --once            each block once (of a random OP: in random order), then stop\n"
    "  --bs SIZE         block size, a multiple of 512; default 4K\n"
    "  --segments N      buffers of a block; default 1\n"
    "  --depth N         requests in flight in each queue; default 32\n"
    "  --queues N        default 1\n"
    "  --packed          packed rings\n"
    "  --no-indirect, --no-event-idx, --no-inflight\n"
    "                    without these features\n"
    "  --write-through   without FLUSH and CONFIG_WCE: what is answered is durable\n"
    "  --seconds S       how long; default 1, and without end with --once\n"
    "  --warmup S        run before measuring; default 0\n"
    "  --offset SIZE     where the range begins; default 0\n"
    "  --length SIZE     the range's length; default to the end of the device\n"
    "  --flush-every N   after N writes wait for them and flush, as fsync() does\n"
    "  --end-flush       flush when all is done (not measured)\n"
    "  --seed N          of the order and of the contents; default 1\n"
    "  --verify          write stamped blocks and check what is read; the range must begin as\n"
    "                    zeroes, or be as the stamps say\n"
    "  --stamps FILE     keep the stamps, to go on with --verify in another run\n"
    "  --after-crash     the server was killed since: unflushed writes may be old or new\n"
    "  --reconnect       the server may be killed meanwhile: connect to the next and go on, as a\n"
    "                    virtual machine does; what was answered stays\n"
    "  --lossy           then unflushed writes may be old or new\n"
    "  --server-pid PID  measure this process's CPU time\n"
    "\n"
    "Exit status: 0, 1 (failed, or wrong data), 2 (usage).\n";

enum option_id {
        OPT_SHARED = 256, /* load_options.h's */
        OPT_SOCKET,
        OPT_ZERO_PERCENT,
        OPT_DISCARD_PERCENT,
        OPT_SEGMENTS,
        OPT_QUEUES,
        OPT_PACKED,
        OPT_NO_INDIRECT,
        OPT_NO_EVENT_IDX,
        OPT_WRITE_THROUGH,
        OPT_RECONNECT,
        OPT_LOSSY,
        OPT_NO_INFLIGHT,
        OPT_HELP,
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"op", required_argument, NULL, OPT_SHARED},
    {"read-percent", required_argument, NULL, OPT_SHARED},
    {"zero-percent", required_argument, NULL, OPT_ZERO_PERCENT},
    {"discard-percent", required_argument, NULL, OPT_DISCARD_PERCENT},
    {"once", no_argument, NULL, OPT_SHARED},
    {"bs", required_argument, NULL, OPT_SHARED},
    {"segments", required_argument, NULL, OPT_SEGMENTS},
    {"depth", required_argument, NULL, OPT_SHARED},
    {"queues", required_argument, NULL, OPT_QUEUES},
    {"packed", no_argument, NULL, OPT_PACKED},
    {"no-indirect", no_argument, NULL, OPT_NO_INDIRECT},
    {"no-event-idx", no_argument, NULL, OPT_NO_EVENT_IDX},
    {"no-inflight", no_argument, NULL, OPT_NO_INFLIGHT},
    {"write-through", no_argument, NULL, OPT_WRITE_THROUGH},
    {"seconds", required_argument, NULL, OPT_SHARED},
    {"warmup", required_argument, NULL, OPT_SHARED},
    {"offset", required_argument, NULL, OPT_SHARED},
    {"length", required_argument, NULL, OPT_SHARED},
    {"flush-every", required_argument, NULL, OPT_SHARED},
    {"end-flush", no_argument, NULL, OPT_SHARED},
    {"seed", required_argument, NULL, OPT_SHARED},
    {"verify", no_argument, NULL, OPT_SHARED},
    {"stamps", required_argument, NULL, OPT_SHARED},
    {"after-crash", no_argument, NULL, OPT_SHARED},
    {"reconnect", no_argument, NULL, OPT_RECONNECT},
    {"lossy", no_argument, NULL, OPT_LOSSY},
    {"server-pid", required_argument, NULL, OPT_SHARED},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

struct command {
        struct vload_options vload;
        bool help;
};

static bool take_switch(struct command *c, int option)
{
        struct vload_options *o = &c->vload;
        const struct {
                int option;
                bool *value;
        } switches[] = {
            {OPT_PACKED, &o->packed},
            {OPT_NO_INDIRECT, &o->no_indirect},
            {OPT_NO_EVENT_IDX, &o->no_event_index},
            {OPT_NO_INFLIGHT, &o->no_inflight},
            {OPT_WRITE_THROUGH, &o->write_through},
            {OPT_RECONNECT, &o->reconnect},
            {OPT_LOSSY, &o->lossy},
            {OPT_HELP, &c->help},
        };

        for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
                if (switches[i].option == option) {
                        *switches[i].value = true;
                        return true;
                }
        return false;
}

static int take_option(struct command *c, int option, const char *value, struct error *err)
{
        struct vload_options *o = &c->vload;

        switch (option) {
        case OPT_SOCKET:
                o->path = value;
                return 0;
        case OPT_ZERO_PERCENT:
                return args_unsigned(value, 0, 100, &o->zero_percent, err);
        case OPT_DISCARD_PERCENT:
                return args_unsigned(value, 0, 100, &o->discard_percent, err);
        case OPT_SEGMENTS:
                return args_unsigned(value, 1, 64, &o->segments, err);
        case OPT_QUEUES:
                return args_unsigned(value, 1, VLOAD_QUEUES_MAX, &o->queues, err);
        default:
                return error_set(err, -EINVAL, "unknown option");
        }
}

static int check_together(const struct vload_options *o, struct error *err)
{
        uint32_t block_bytes = o->load.block_bytes;
        bool verifiable = block_bytes <= STAMP_UNIT_MAX || block_bytes % STAMP_UNIT_MAX == 0;

        if (block_bytes % 512 != 0 || o->load.range_offset % 512 != 0)
                return error_set(err, -EINVAL, "blocks and ranges are whole sectors of 512 bytes");
        if (o->segments > block_bytes / 512)
                return error_set(err, -EINVAL, "a segment has 512 bytes at least");
        if (o->load.verify && !verifiable)
                return error_set(err, -EINVAL, "blocks of %u bytes cannot be stamped", block_bytes);
        if (o->zero_percent + o->discard_percent > 100)
                return error_set(err, -EINVAL, "more than all writes cannot be zeroes");
        return 0;
}

static int parse_command(int argc, char **argv, struct command *ret_command, struct error *err)
{
        struct command c = {.vload = {.load = LOAD_OPTIONS_INIT, .queues = 1, .segments = 1}};
        struct load_options *load = &c.vload.load;
        int option, at = 0, r;

        while ((option = getopt_long(argc, argv, "", long_options, &at)) != -1) {
                if (option == '?')
                        return -EINVAL; /* getopt has said why */
                if (take_switch(&c, option))
                        continue;
                if (option == OPT_SHARED)
                        r = load_take_option(load, long_options[at].name, optarg, VLOAD_DEPTH_MAX,
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
        if (!c.vload.path)
                return error_set(err, -EINVAL, "--socket is missing");
        r = check_together(&c.vload, err);
        if (r == 0)
                r = load_check_options(load, err);
        if (r == 0)
                *ret_command = c;
        return r;
}

static void print_result(const struct command *c, const struct vload_result *r)
{
        const struct load_options *o = &c->vload.load;
        uint64_t transfers = r->reads + r->writes + r->zeroes + r->discards;
        uint64_t ios = o->only_flushes ? r->flushes : transfers;
        double seconds = (double)r->elapsed_ns / 1e9;
        double per_second = seconds > 0 ? 1 / seconds : 0, per_io = ios ? 1.0 / (double)ios : 0;

        printf("{\"op\": \"%s\", \"block_bytes\": %u, \"depth\": %u, \"queues\": %u, "
               "\"seconds\": %.6f, \"ios\": %" PRIu64 ", \"reads\": %" PRIu64
               ", \"writes\": %" PRIu64 ", \"zeroes\": %" PRIu64 ", \"discards\": %" PRIu64
               ", \"flushes\": %" PRIu64 ", \"iops\": %.1f, \"mib_per_s\": %.2f",
               o->op, o->block_bytes, o->depth, c->vload.queues, seconds, ios, r->reads, r->writes,
               r->zeroes, r->discards, r->flushes, (double)ios * per_second,
               (double)r->bytes * per_second / 1048576);
        latency_print("latency_us", &r->latency);
        latency_print("flush_latency_us", &r->flush_latency);
        printf(", \"client_cpu_us_per_io\": %.3f", (double)r->client_cpu_ns * per_io / 1e3);
        if (o->server_pid)
                printf(", \"server_cpu_us_per_io\": %.3f", (double)r->server_cpu_ns * per_io / 1e3);
        printf(", \"all_flushes\": %" PRIu64 ", \"checked_bytes\": %" PRIu64 ", \"kicks\": %" PRIu64
               ", \"calls\": %" PRIu64 ", \"reconnects\": %u, \"plan_ended\": %s}\n",
               r->all_flushes, r->checked_bytes, r->kicks, r->calls, r->reconnects,
               r->plan_ended ? "true" : "false");
}

int main(int argc, char **argv)
{
        static struct vload_result result;
        struct error err = ERROR_INIT;
        struct command c;

        if (parse_command(argc, argv, &c, &err) < 0) {
                load_print_error("vhostload", &err);
                fputs("Try 'vhostload --help'.\n", stderr);
                return 2;
        }
        if (c.help) {
                fputs(help_text, stdout);
                return 0;
        }
        if (vload_run(&c.vload, &result, &err) < 0) {
                load_print_error("vhostload", &err);
                return 1;
        }
        print_result(&c, &result);
        return fflush(stdout) == 0 ? 0 : 1;
}
