/* load_main.c - see load_main.h. */
#include "tests/bench/load_main.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#define OPTIONS_MAX 64u

enum { OPT_SHARED = 1, OPT_HELP };

/* All that @client takes, ended by {0}. */
static void gather(const struct load_client *client, struct option options[OPTIONS_MAX])
{
        size_t n = 0;

        for (const struct option *own = client->options; own->name; own++, n++) {
                assert(n < OPTIONS_MAX && own->val >= LOAD_CLIENT_OPTION);
                options[n] = *own;
        }
        for (const struct load_option *shared = load_option_names; shared->name; shared++, n++) {
                assert(n < OPTIONS_MAX);
                options[n] = (struct option){shared->name,
                                             shared->has_value ? required_argument : no_argument,
                                             NULL, OPT_SHARED};
        }
        assert(n + 2 <= OPTIONS_MAX);
        options[n++] = (struct option){"help", no_argument, NULL, OPT_HELP};
        options[n] = (struct option){0};
}

static int parse(const struct load_client *client, int argc, char **argv, bool *ret_help,
                 struct error *err)
{
        struct option options[OPTIONS_MAX];
        int option, at = 0, r;

        gather(client, options);
        while ((option = getopt_long(argc, argv, "", options, &at)) != -1) {
                if (option == '?')
                        return -EINVAL; /* getopt has said why */
                if (option == OPT_HELP) {
                        *ret_help = true;
                        return 0;
                }
                if (option == OPT_SHARED)
                        r = load_take_option(client->load, options[at].name, optarg,
                                             client->depth_max, err);
                else
                        r = client->take(client->arg, option, optarg, err);
                if (r < 0)
                        return r;
        }
        if (optind != argc)
                return error_set(err, -EINVAL, "'%s' is not an option", argv[optind]);
        r = client->check(client->arg, err);
        return r < 0 ? r : load_check_options(client->load, err);
}

static void print_error(const struct load_client *client, const struct error *err)
{
        if (err->message[0])
                fprintf(stderr, "%s: %s\n", client->name, err->message);
        if (err->hint[0])
                fprintf(stderr, "hint: %s\n", err->hint);
}

int load_main(const struct load_client *client, int argc, char **argv)
{
        struct error err = ERROR_INIT;
        bool help = false;

        if (parse(client, argc, argv, &help, &err) < 0) {
                print_error(client, &err);
                fprintf(stderr, "Try '%s --help'.\n", client->name);
                return 2;
        }
        if (help) {
                printf("%s%s%s", client->help, load_options_help,
                       client->examples ? client->examples : "");
                return 0;
        }
        if (client->run(client->arg, &err) < 0) {
                print_error(client, &err);
                return 1;
        }
        return fflush(stdout) == 0 ? 0 : 1;
}
