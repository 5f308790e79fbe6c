/* fuzz_arguments.c - the words of a command line behind its verb: options, their values, names of pools and
 * volumes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "tests/fuzz/input.h"

#define ARGUMENTS_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {
    "--json",  "--size", "--size=",  "--nbd", "--count=3", "--readonly", "--no",
    "--s",     "--tls",  "--tls-ca", "--",    "-",         "-5",         "-x",
    "5G",      "1",      "tank",     "/",     "web",       "@",          "one",
    "--json=", "\xff",   "=",        "a",     " ",         "%s",         "--yes"};

static unsigned n_failures;

int cli_fail(const struct error *e)
{
        assert(e->code < 0 && e->message[0]);
        n_failures++;
        return EXIT_FAILURE;
}

static void split(const char *word)
{
        struct error err = ERROR_INIT;
        const char *rest;
        char *pool;

        if (cli_split(word, &pool, &rest, &err) < 0) {
                assert(err.message[0]);
                return;
        }
        assert(pool[0] && rest[0] && !strchr(rest, '/'));
        assert(strlen(pool) + 1 + strlen(rest) == strlen(word));
        free(pool);
}

static void parse(const struct cli_verb *verb, int argc, char **argv)
{
        struct cli_args args;

        n_failures = 0;
        if (cli_parse(verb, argc, argv, &args) != 0)
                return;
        assert(n_failures == 0 && !(args.given & ~verb->options));
        /* With --autostart there may be none: those that the files name. */
        assert(args.n_words >= verb->min_words || (args.given & CLI_AUTOSTART));
        assert(args.n_words < argc);
        assert(verb->max_words < 0 || args.n_words <= verb->max_words);
        assert(!(args.given & CLI_SIZE) == !args.size && args.n_nbd <= CLI_NBD_MAX);
        for (int i = 0; i < args.n_words; i++)
                split(args.words[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct output out;
        struct input in = {data, size};
        struct cli_verb verb = {.noun = "volume", .name = "create", .usage = "POOL/VOLUME SIZE"};
        char *argv[ARGUMENTS_MAX + 2] = {strdup("create")};
        int argc = 1;

        verb.options = input_u32(&in);
        verb.options |= verb.options << 32; /* those that came later */
        verb.min_words = input_u8(&in) % 4;
        verb.max_words = input_u8(&in) % 8 - 1;
        while (in.left > 0 && argc <= ARGUMENTS_MAX) {
                out.n = 0;
                for (unsigned n = input_u8(&in) % 4; n > 0; n--)
                        input_words(&in, words, sizeof(words) / sizeof(words[0]), &out);
                /* Of the very length, so that reading past the end is seen. */
                argv[argc++] = strndup((const char *)out.bytes, out.n < 2000 ? out.n : 2000);
        }
        parse(&verb, argc, argv);
        for (int i = 0; i < argc; i++)
                free(argv[i]);
        return 0;
}
