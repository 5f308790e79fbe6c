/* load_main.h - what the load clients' main() does: the command line taken, one run, and how it ends.
 *
 * Threads    one.
 * Errors     printed; the exit status is 0, 1 (failed, or wrong data) or 2 (usage).
 */
#pragma once
#include <getopt.h>
#include "common/error.h"
#include "tests/bench/load_options.h"

#define LOAD_CLIENT_OPTION 256 /* the first value of a client's own options */

struct load_client {
        const char *name;
        const char *help;             /* of its own options; load_options_help follows */
        const char *examples;         /* behind them; may be NULL */
        const struct option *options; /* its own, ended by {0} */
        unsigned depth_max;
        struct load_options *load;
        void *arg; /* of the calls below, which give 0, or -errno with a sentence */
        /* One of its own options. */
        int (*take)(void *arg, int option, const char *value, struct error *err);
        /* All options are taken: do they go together? */
        int (*check)(void *arg, struct error *err);
        /* Run, and print what was done. */
        int (*run)(void *arg, struct error *err);
};

int load_main(const struct load_client *client, int argc, char **argv);
