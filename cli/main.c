/* main.c - from the words of the command line to a verb; help. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const struct noun {
        const char *name;
        const char *summary;
        const struct cli_verb *verbs;
} nouns[] = {
    {"pool", "disks that are used together", pool_verbs},
    {"volume", "thin disks in a pool", volume_verbs},
    {"snapshot", "what volumes held at some instant", snapshot_verbs},
    {"image", "image files in and out", image_verbs},
    {"vm", "virtual machines from a file", vm_verbs},
};
#define N_NOUNS (sizeof(nouns) / sizeof(nouns[0]))

static bool is_help(const char *word)
{
        return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Anywhere among a verb's arguments, up to a lone "--". */
static bool asks_help(int argc, char **argv)
{
        for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
                if (is_help(argv[i]))
                        return true;
        return false;
}

static void list_verbs(const struct cli_verb *verbs)
{
        for (; verbs->name; verbs++) {
                char words[32];

                snprintf(words, sizeof(words), "%s%s%s", verbs->noun ? verbs->noun : "",
                         verbs->noun ? " " : "", verbs->name);
                printf("  %-18s %s%s\n", words, verbs->summary,
                       verbs->run ? "" : " (not built yet)");
        }
}

static int help_all(void)
{
        printf("tarn pools disks and gives thin, checksummed volumes with snapshots.\n\n"
               "Usage: tarn NOUN VERB ARGUMENTS...\n\n");
        for (size_t i = 0; i < N_NOUNS; i++) {
                list_verbs(nouns[i].verbs);
                printf("\n");
        }
        list_verbs(other_verbs);
        printf(
            "\n"
            "Things are named POOL, POOL/VOLUME and POOL/VOLUME@SNAPSHOT; for POOL the path of "
            "any\n"
            "of its members serves too. Sizes take K, M, G, T (1024); plain numbers are bytes.\n"
            "Lists, shows and diffs take --json. 'tarn NOUN VERB --help' says more.\n\n"
            "A start:\n"
            "  tarn pool create tank /srv/d1.img /srv/d2.img --file-size 20G\n"
            "  tarn volume create tank/web 40G\n"
            "  tarn serve tank\n\n"
            "Exit status: 0; 1 where it failed, with a sentence on stderr; 2 for wrong usage; of\n"
            "'pool check' 1 for findings and 3 where it could not check.\n");
        return EXIT_SUCCESS;
}

static int help_noun(const struct noun *noun)
{
        printf("tarn %s: %s\n\n", noun->name, noun->summary);
        list_verbs(noun->verbs);
        printf("\n'tarn %s VERB --help' says more.\n", noun->name);
        return EXIT_SUCCESS;
}

static int help_verb(const struct cli_verb *verb)
{
        printf("Usage: tarn %s%s%s %s\n\n%s%s.\n", verb->noun ? verb->noun : "",
               verb->noun ? " " : "", verb->name, verb->usage, verb->summary,
               verb->run ? "" : " (not built yet)");
        if (verb->help[0])
                printf("\n%s", verb->help);
        return EXIT_SUCCESS;
}

static int usage(const char *sentence, const char *word, const char *hint)
{
        struct error e = ERROR_INIT;

        error_set(&e, -EINVAL, sentence, word);
        error_hint(&e, "'%s' lists what there is", hint);
        cli_fail(&e);
        return EXIT_USAGE;
}

/* argv[0] is the verb. */
static int run_verb(const struct cli_verb *verb, int argc, char **argv)
{
        struct cli_args args;
        int r;

        if (asks_help(argc, argv))
                return help_verb(verb);
        if (!verb->run) {
                fprintf(stderr, "tarn: '%s%s%s' is not built yet\n", verb->noun ? verb->noun : "",
                        verb->noun ? " " : "", verb->name);
                return EXIT_FAILURE;
        }
        r = cli_parse(verb, argc, argv, &args);
        return r != 0 ? r : verb->run(verb, &args);
}

static const struct cli_verb *find_verb(const struct cli_verb *verbs, const char *name)
{
        for (; verbs->name; verbs++)
                if (strcmp(verbs->name, name) == 0)
                        return verbs;
        return NULL;
}

static int run_noun(const struct noun *noun, int argc, char **argv)
{
        const struct cli_verb *verb;
        char hint[32];

        snprintf(hint, sizeof(hint), "tarn %s --help", noun->name);
        if (argc < 2)
                return usage("'tarn %s' lacks a verb", noun->name, hint);
        if (is_help(argv[1]))
                return help_noun(noun);
        verb = find_verb(noun->verbs, argv[1]);
        if (!verb)
                return usage("there is no such command: '%s'", argv[1], hint);
        return run_verb(verb, argc - 1, argv + 1);
}

static int run_words(int argc, char **argv)
{
        const struct cli_verb *verb;

        if (argc < 2)
                return usage("'%s' lacks a command", "tarn", "tarn --help");
        if (is_help(argv[1]) || strcmp(argv[1], "help") == 0)
                return help_all();
        if (strcmp(argv[1], "--version") == 0) {
                printf("tarn %s\n", TARN_VERSION);
                return EXIT_SUCCESS;
        }
        for (size_t i = 0; i < N_NOUNS; i++)
                if (strcmp(nouns[i].name, argv[1]) == 0)
                        return run_noun(&nouns[i], argc - 1, argv + 1);
        verb = find_verb(other_verbs, argv[1]);
        if (!verb)
                return usage("there is no such command: '%s'", argv[1], "tarn --help");
        return run_verb(verb, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
        cli_begin();
        return cli_end(run_words(argc, argv));
}
