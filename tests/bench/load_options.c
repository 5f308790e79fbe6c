/* load_options.c - see load_options.h. */
#include "tests/bench/load_options.h"
#include <errno.h>
#include <string.h>
#include "common/size.h"
#include "tests/bench/args.h"

const struct load_option load_option_names[] = {
    {"op", true},           {"read-percent", true},
    {"once", false},        {"bs", true},
    {"depth", true},        {"seconds", true},
    {"warmup", true},       {"offset", true},
    {"length", true},       {"flush-every", true},
    {"end-flush", false},   {"seed", true},
    {"verify", false},      {"stamps", true},
    {"after-crash", false}, {"after-client", false},
    {"server-pid", true},   {0},
};

const char load_options_help[] =
    "  --op OP           read, write (sequential), randread, randwrite, rw, randrw, flush;\n"
    "                    default randread\n"
    "  --read-percent N  of rw and randrw; default 70\n"
    "  --once            each block once (of a random OP: in random order), then stop\n"
    "  --bs SIZE         block size; default 4K\n"
    "  --depth N         requests in flight in each connection or queue; default 32\n"
    "  --seconds S       how long; default 1, and without end with --once\n"
    "  --warmup S        run before measuring; default 0\n"
    "  --offset SIZE     where the range begins; default 0\n"
    "  --length SIZE     the range's length; default to the end of the volume\n"
    "  --flush-every N   after N writes wait for them and flush, as fsync() does\n"
    "  --end-flush       flush when all is done (not measured)\n"
    "  --seed N          of the order and of the contents; default 1\n"
    "  --verify          write stamped blocks and check what is read; the range must begin as\n"
    "                    zeroes, or be as the stamps say\n"
    "  --stamps FILE     keep the stamps, to go on with --verify in another run\n"
    "  --after-crash     the server was killed since: unflushed writes may be old or new\n"
    "  --after-client    the client was killed since: what it had in flight may be old or new\n"
    "  --server-pid PID  measure this process's CPU time\n"
    "\n"
    "Exit status: 0, 1 (failed, or wrong data), 2 (usage).\n";

static bool take_switch(struct load_options *o, const char *name)
{
        const struct {
                const char *name;
                bool *value;
        } switches[] = {
            {"once", &o->once},
            {"end-flush", &o->end_flush},
            {"verify", &o->verify},
            {"after-crash", &o->after_crash},
            {"after-client", &o->after_client},
        };

        for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
                if (strcmp(switches[i].name, name) == 0) {
                        *switches[i].value = true;
                        return true;
                }
        return false;
}

static bool take_text(struct load_options *o, const char *name, const char *value)
{
        bool is_op = strcmp(name, "op") == 0, is_stamps = strcmp(name, "stamps") == 0;

        if (is_op)
                o->op = value;
        if (is_stamps)
                o->stamps_path = value;
        return is_op || is_stamps;
}

static int take_pid(struct load_options *o, const char *value, struct error *err)
{
        unsigned pid = 0;
        int r = args_unsigned(value, 1, INT32_MAX, &pid, err);

        o->server_pid = (pid_t)pid;
        return r;
}

int load_take_option(struct load_options *o, const char *name, const char *value,
                     unsigned depth_max, struct error *err)
{
        int r;

        if (take_switch(o, name) || take_text(o, name, value))
                return 0;
        if (strcmp(name, "read-percent") == 0)
                r = args_unsigned(value, 0, 100, &o->read_percent, err);
        else if (strcmp(name, "bs") == 0)
                r = args_block_bytes(value, &o->block_bytes, err);
        else if (strcmp(name, "depth") == 0)
                r = args_unsigned(value, 1, depth_max, &o->depth, err);
        else if (strcmp(name, "seconds") == 0) {
                o->has_seconds = true;
                r = args_seconds(value, &o->run_ns, err);
        } else if (strcmp(name, "warmup") == 0)
                r = args_seconds(value, &o->warmup_ns, err);
        else if (strcmp(name, "offset") == 0)
                r = size_parse(value, &o->range_offset, err);
        else if (strcmp(name, "length") == 0)
                r = size_parse(value, &o->range_bytes, err);
        else if (strcmp(name, "flush-every") == 0)
                r = args_unsigned(value, 1, 1000000, &o->flush_every, err);
        else if (strcmp(name, "seed") == 0)
                r = args_number(value, 0, UINT64_MAX, &o->seed, err);
        else if (strcmp(name, "server-pid") == 0)
                r = take_pid(o, value, err);
        else
                r = error_set(err, -EINVAL, "unknown option");
        return r;
}

static int choose_operation(struct load_options *o, struct error *err)
{
        const char *op = o->op;

        if (strcmp(op, "flush") == 0) {
                o->only_flushes = true;
                return 0;
        }
        if (strncmp(op, "rand", 4) == 0) {
                o->random = true;
                op += 4;
        }
        if (strcmp(op, "read") == 0)
                o->read_percent = 100;
        else if (strcmp(op, "write") == 0)
                o->read_percent = 0;
        else if (strcmp(op, "rw") != 0)
                return error_set(err, -EINVAL, "'%s' is not an operation", o->op);
        return 0;
}

int load_check_options(struct load_options *o, struct error *err)
{
        int r;

        if (o->once && !o->has_seconds)
                o->run_ns = 0;
        if (!o->once && o->run_ns == 0)
                return error_set(err, -EINVAL, "--seconds 0 never ends without --once");
        r = choose_operation(o, err);
        if (r < 0)
                return r;
        if ((o->stamps_path || o->after_crash || o->after_client) && !o->verify)
                return error_set(err, -EINVAL, "stamps need --verify");
        if (o->after_crash && o->after_client)
                return error_set(err, -EINVAL,
                                 "--after-crash is for clients that were killed, too");
        if ((o->after_crash || o->after_client) &&
            !(o->read_percent == 100 && o->once && o->stamps_path))
                return error_set(err, -EINVAL,
                                 "after a crash everything is looked at first: --after-crash and "
                                 "--after-client go with --stamps, --op read and --once");
        return 0;
}

enum stamp_since load_since(const struct load_options *o)
{
        return o->after_crash    ? STAMP_SINCE_CRASH
               : o->after_client ? STAMP_SINCE_CLIENT_END
                                 : STAMP_SINCE_ANSWERED;
}

int load_plan_range(struct load_options *o, uint64_t size, struct plan *ret_plan, struct error *err)
{
        if (o->range_offset > size || o->range_bytes > size - o->range_offset)
                return error_set(err, -ERANGE, "the range ends beyond the volume's %llu bytes",
                                 (unsigned long long)size);
        if (o->range_bytes == 0)
                o->range_bytes = size - o->range_offset;
        o->range_bytes -= o->range_bytes % o->block_bytes;
        if (o->range_bytes == 0)
                return error_set(err, -ERANGE, "the range is smaller than one block");
        struct plan_options plan = {.n_blocks = o->range_bytes / o->block_bytes,
                                    .seed = o->seed,
                                    .read_percent = o->read_percent,
                                    .random = o->random,
                                    .once = o->once};
        plan_init(ret_plan, &plan);
        return 0;
}
