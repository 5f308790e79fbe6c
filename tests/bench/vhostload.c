/* vhostload - a load client over vhost-user-blk: a guest without a machine, one thread, batched
 * rings, contents checked if asked. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include "common/error.h"
#include "tests/bench/args.h"
#include "tests/bench/load_main.h"
#include "tests/bench/stamp.h"
#include "tests/bench/vload.h"

static const char help_text[] =
    "usage: vhostload --socket PATH [OPTION]...\n"
    "Put load on a vhost-user-blk device and print what it did as one line of JSON.\n"
    "\n"
    "  --socket PATH     where the device's server listens\n"
    "  --zero-percent N, --discard-percent N\n"
    "                    so many of the writes write zeroes, or discard; default 0\n"
    "  --segments N      buffers of a block, which is a multiple of 512; default 1\n"
    "  --queues N        default 1\n"
    "  --packed          packed rings\n"
    "  --no-indirect, --no-event-idx, --no-inflight\n"
    "                    without these features\n"
    "  --write-through   without FLUSH and CONFIG_WCE: what is answered is durable\n"
    "  --reconnect       the server may be killed meanwhile: connect to the next and go on, as a\n"
    "                    virtual machine does; what was answered stays\n"
    "  --lossy           then unflushed writes may be old or new\n";

enum option_id {
        OPT_SOCKET = LOAD_CLIENT_OPTION,
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
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"zero-percent", required_argument, NULL, OPT_ZERO_PERCENT},
    {"discard-percent", required_argument, NULL, OPT_DISCARD_PERCENT},
    {"segments", required_argument, NULL, OPT_SEGMENTS},
    {"queues", required_argument, NULL, OPT_QUEUES},
    {"packed", no_argument, NULL, OPT_PACKED},
    {"no-indirect", no_argument, NULL, OPT_NO_INDIRECT},
    {"no-event-idx", no_argument, NULL, OPT_NO_EVENT_IDX},
    {"no-inflight", no_argument, NULL, OPT_NO_INFLIGHT},
    {"write-through", no_argument, NULL, OPT_WRITE_THROUGH},
    {"reconnect", no_argument, NULL, OPT_RECONNECT},
    {"lossy", no_argument, NULL, OPT_LOSSY},
    {0},
};

static bool take_switch(struct vload_options *o, int option)
{
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
        };

        for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
                if (switches[i].option == option) {
                        *switches[i].value = true;
                        return true;
                }
        return false;
}

static int take_option(void *arg, int option, const char *value, struct error *err)
{
        struct vload_options *o = arg;

        if (take_switch(o, option))
                return 0;
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

static int check_options(void *arg, struct error *err)
{
        const struct vload_options *o = arg;
        uint32_t block_bytes = o->load.block_bytes;
        bool verifiable = block_bytes <= STAMP_UNIT_MAX || block_bytes % STAMP_UNIT_MAX == 0;

        if (!o->path)
                return error_set(err, -EINVAL, "--socket is missing");
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

static int run(void *arg, struct error *err)
{
        static struct vload_result result;
        const struct vload_options *o = arg;
        int r = vload_run(o, &result, err);

        if (r < 0)
                return r;
        load_print_result(&o->load, &result.load);
        printf(", \"queues\": %u, \"kicks\": %" PRIu64 ", \"calls\": %" PRIu64
               ", \"reconnects\": %u}\n",
               o->queues, result.kicks, result.calls, result.reconnects);
        return 0;
}

int main(int argc, char **argv)
{
        struct vload_options o = {.load = LOAD_OPTIONS_INIT, .queues = 1, .segments = 1};
        const struct load_client client = {.name = "vhostload",
                                           .help = help_text,
                                           .options = long_options,
                                           .depth_max = VLOAD_DEPTH_MAX,
                                           .load = &o.load,
                                           .take = take_option,
                                           .check = check_options,
                                           .run = run,
                                           .arg = &o};

        return load_main(&client, argc, argv);
}
