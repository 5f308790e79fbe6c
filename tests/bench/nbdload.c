/* nbdload - a lean NBD load client: one thread, batched sends and receives, contents checked if
 * asked. */
#include <errno.h>
#include <stdio.h>
#include "common/error.h"
#include "tests/bench/args.h"
#include "tests/bench/conn.h"
#include "tests/bench/load_main.h"
#include "tests/bench/session.h"
#include "tests/bench/stamp.h"

static const char help_text[] =
    "usage: nbdload --uri URI [OPTION]...\n"
    "Put load on an NBD export and print what it did as one line of JSON.\n"
    "\n"
    "  --uri URI         nbd+unix:///EXPORT?socket=PATH or nbd://HOST[:PORT]/EXPORT\n"
    "  --connections N   default 1\n"
    "  --fua             writes with FUA\n"
    "  --structured      ask for structured replies\n";

static const char examples[] =
    "\n"
    "Each block once in random order, then check all of it:\n"
    "  nbdload --uri 'nbd+unix:///tank/web?socket=tank.nbd' --op randwrite --once --verify \\\n"
    "          --stamps /tmp/web.stamps\n"
    "  nbdload --uri 'nbd+unix:///tank/web?socket=tank.nbd' --op read --once --verify \\\n"
    "          --stamps /tmp/web.stamps\n";

enum option_id {
        OPT_URI = LOAD_CLIENT_OPTION,
        OPT_CONNECTIONS,
        OPT_FUA,
        OPT_STRUCTURED,
};

static const struct option long_options[] = {
    {"uri", required_argument, NULL, OPT_URI},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"fua", no_argument, NULL, OPT_FUA},
    {"structured", no_argument, NULL, OPT_STRUCTURED},
    {0},
};

struct command {
        struct session_options session;
        const char *uri;
};

static int take_option(void *arg, int option, const char *value, struct error *err)
{
        struct command *c = arg;

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

static int check_options(void *arg, struct error *err)
{
        struct command *c = arg;
        int r;

        if (!c->uri)
                return error_set(err, -EINVAL, "--uri is missing");
        r = check_stamped(&c->session.load, err);
        return r < 0 ? r : link_parse_uri(c->uri, &c->session.target, err);
}

static int run(void *arg, struct error *err)
{
        static struct load_result result;
        const struct command *c = arg;
        int r = session_run(&c->session, &result, err);

        if (r < 0)
                return r;
        load_print_result(&c->session.load, &result);
        printf(", \"connections\": %u}\n", c->session.connections);
        return 0;
}

int main(int argc, char **argv)
{
        struct command c = {.session = {.load = LOAD_OPTIONS_INIT, .connections = 1}};
        const struct load_client client = {.name = "nbdload",
                                           .help = help_text,
                                           .examples = examples,
                                           .options = long_options,
                                           .depth_max = CONN_DEPTH_MAX,
                                           .load = &c.session.load,
                                           .take = take_option,
                                           .check = check_options,
                                           .run = run,
                                           .arg = &c};

        return load_main(&client, argc, argv);
}
