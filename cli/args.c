/* args.c - options and words of a verb. */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum { TABLE_MAX = 64 };

static const struct {
        const char *name;
        int has_argument;
        enum cli_option option;
} known[] = {
    {"json", no_argument, CLI_JSON},
    {"yes", no_argument, CLI_YES},
    {"force", no_argument, CLI_FORCE},
    {"data", no_argument, CLI_DATA},
    {"snapshots", no_argument, CLI_SNAPSHOTS},
    {"discard-current", no_argument, CLI_DISCARD_CURRENT},
    {"layout", required_argument, CLI_LAYOUT},
    {"file-size", required_argument, CLI_FILE_SIZE},
    {"size", required_argument, CLI_SIZE},
    {"format", required_argument, CLI_FORMAT},
    {"nbd", required_argument, CLI_NBD},
    {"control", required_argument, CLI_CONTROL},
    {"group", required_argument, CLI_GROUP},
    {"interval", required_argument, CLI_INTERVAL},
    {"count", required_argument, CLI_COUNT},
    {"exports", no_argument, CLI_EXPORTS},
    {"members", no_argument, CLI_MEMBERS},
    {"threads", required_argument, CLI_THREADS},
    {"vhost-user", required_argument, CLI_VHOST_USER},
    {"queues", required_argument, CLI_QUEUES},
    {"readonly", no_argument, CLI_READONLY},
    {"takeover", no_argument, CLI_TAKEOVER},
    {"tls", required_argument, CLI_TLS},
    {"tls-cert", required_argument, CLI_TLS_CERT},
    {"tls-key", required_argument, CLI_TLS_KEY},
    {"tls-ca", required_argument, CLI_TLS_CA},
    {"tls-verify-peer", no_argument, CLI_TLS_VERIFY},
    {"tls-psk", required_argument, CLI_TLS_PSK},
    {"tls-access", required_argument, CLI_TLS_ACCESS},
    {"max-connections", required_argument, CLI_MAX_CONNECTIONS},
    {"handshake-timeout", required_argument, CLI_HANDSHAKE_TIMEOUT},
    {"idle-timeout", required_argument, CLI_IDLE_TIMEOUT},
    {"while-used", no_argument, CLI_WHILE_USED},
    {"timeout", required_argument, CLI_TIMEOUT},
    {"volumes", no_argument, CLI_VOLUMES},
    {"disks-only", no_argument, CLI_DISKS_ONLY},
    {"from-format", required_argument, CLI_FROM_FORMAT},
    {"variant", required_argument, CLI_VARIANT},
    {"compression", required_argument, CLI_COMPRESSION},
    {"cluster-size", required_argument, CLI_CLUSTER_SIZE},
    {"snapshot", required_argument, CLI_SNAPSHOT},
    {"base", required_argument, CLI_BASE},
    {"hydrate", no_argument, CLI_HYDRATE},
    {"bandwidth", required_argument, CLI_BANDWIDTH},
    {"stop", no_argument, CLI_STOP},
    {"allow", required_argument, CLI_ALLOW},
    {"backing-format", required_argument, CLI_BACKING_FORMAT},
    {"name", required_argument, CLI_NAME},
    {"vm-file", required_argument, CLI_VM_FILE},
    {"verify", no_argument, CLI_VERIFY},
    {"autostart", no_argument, CLI_AUTOSTART},
};
#define N_KNOWN (sizeof(known) / sizeof(known[0]))

static void verb_words(const struct cli_verb *verb, char *text, size_t size)
{
        snprintf(text, size, "tarn %s%s%s", verb->noun ? verb->noun : "", verb->noun ? " " : "",
                 verb->name);
}

static int not_text(const char *word)
{
        struct error e = ERROR_INIT;

        error_set(&e, -EILSEQ, "'%s' is not UTF-8 text", word);
        return cli_fail(&e);
}

__attribute__((format(printf, 2, 3))) static int usage_error(const struct cli_verb *verb,
                                                             const char *format, ...)
{
        struct error e = ERROR_INIT;
        char words[64], sentence[sizeof(e.message)];
        va_list ap;

        va_start(ap, format);
        vsnprintf(sentence, sizeof(sentence), format, ap);
        va_end(ap);
        verb_words(verb, words, sizeof(words));
        error_set(&e, -EINVAL, "%s", sentence);
        error_hint(&e, "usage is '%s %s'; '%s --help' says more", words, verb->usage, words);
        cli_fail(&e);
        return EXIT_USAGE;
}

/* "-5" looks like an option, and is meant as a size. */
static int negative(const char *word)
{
        struct error e = ERROR_INIT;

        error_set(&e, -EINVAL, "'%s' is negative: sizes and numbers start at zero", word);
        return cli_fail(&e);
}

static int keep(const struct cli_verb *verb, struct cli_args *args, enum cli_option option,
                const char *value)
{
        args->given |= option;
        switch (option) {
        case CLI_LAYOUT:
                args->layout = value;
                break;
        case CLI_FILE_SIZE:
                args->file_size = value;
                break;
        case CLI_SIZE:
                args->size = value;
                break;
        case CLI_FORMAT:
                args->format = value;
                break;
        case CLI_CONTROL:
                args->control = value;
                break;
        case CLI_GROUP:
                args->group = value;
                break;
        case CLI_THREADS:
                args->threads = value;
                break;
        case CLI_TLS:
                args->tls = value;
                break;
        case CLI_TLS_CERT:
                args->tls_cert = value;
                break;
        case CLI_TLS_KEY:
                args->tls_key = value;
                break;
        case CLI_TLS_CA:
                args->tls_ca = value;
                break;
        case CLI_TLS_PSK:
                args->tls_psk = value;
                break;
        case CLI_TLS_ACCESS:
                args->tls_access = value;
                break;
        case CLI_MAX_CONNECTIONS:
                args->max_connections = value;
                break;
        case CLI_HANDSHAKE_TIMEOUT:
                args->handshake_timeout = value;
                break;
        case CLI_IDLE_TIMEOUT:
                args->idle_timeout = value;
                break;
        case CLI_BASE:
                args->base = value;
                break;
        case CLI_BANDWIDTH:
                args->bandwidth = value;
                break;
        case CLI_TIMEOUT:
                args->timeout = value;
                break;
        case CLI_INTERVAL:
                args->interval = value;
                break;
        case CLI_COUNT:
                args->count = value;
                break;
        case CLI_VHOST_USER:
                args->vhost_user = value;
                break;
        case CLI_QUEUES:
                args->queues = value;
                break;
        case CLI_FROM_FORMAT:
                args->from_format = value;
                break;
        case CLI_VARIANT:
                args->variant = value;
                break;
        case CLI_COMPRESSION:
                args->compression = value;
                break;
        case CLI_CLUSTER_SIZE:
                args->cluster_size = value;
                break;
        case CLI_SNAPSHOT:
                args->snapshot = value;
                break;
        case CLI_BACKING_FORMAT:
                args->backing_format = value;
                break;
        case CLI_NAME:
                args->name = value;
                break;
        case CLI_VM_FILE:
                args->vm_file = value;
                break;
        case CLI_NBD:
                if (args->n_nbd == CLI_NBD_MAX)
                        return usage_error(verb, "there are too many options '--%s'", "nbd");
                args->nbd[args->n_nbd++] = value;
                break;
        case CLI_ALLOW:
                if (args->n_allow == CLI_ALLOW_MAX)
                        return usage_error(verb, "there are too many options '--%s'", "allow");
                args->allow[args->n_allow++] = value;
                break;
        default:
                break;
        }
        return 0;
}

/* The word that getopt(3) has found wrong. There are no options of one letter, so "-x" is wrong at its
 * only letter, and gone past, but "-xy" is not yet. */
static const char *wrong_word(char **argv)
{
        const char *last = argv[optind - 1];
        bool is_letter = optopt > 0 && optopt < 256;
        const char alone[] = {'-', (char)optopt, '\0'};

        return is_letter && strcmp(last, alone) != 0 ? argv[optind] : last;
}

static int parse_options(const struct cli_verb *verb, int argc, char **argv, struct cli_args *args)
{
        struct option table[TABLE_MAX] = {0};
        size_t n = 0;
        int c;

        for (size_t i = 0; i < N_KNOWN; i++)
                if (verb->options & known[i].option)
                        table[n++] = (struct option){known[i].name, known[i].has_argument, NULL,
                                                     (int)i + 256};
        /* argv[0] stands for the verb; ':' tells a missing argument from an unknown option. */
        opterr = 0;
        optind = 0; /* glibc begins anew, whatever is left of a scan before */
        while ((c = getopt_long(argc, argv, ":", table, NULL)) != -1) {
                int r;

                if (c == ':')
                        return usage_error(verb, "option '%s' needs a value", argv[optind - 1]);
                if (c < 256 && optopt >= '0' && optopt <= '9')
                        return negative(wrong_word(argv));
                if (c < 256)
                        return usage_error(verb, "there is no option '%s' here", wrong_word(argv));
                if (optarg && !cli_is_text(optarg))
                        return not_text(optarg);
                r = keep(verb, args, known[c - 256].option, optarg);
                if (r != 0)
                        return r;
        }
        args->words = argv + optind;
        args->n_words = argc - optind;
        return 0;
}

int cli_parse(const struct cli_verb *verb, int argc, char **argv, struct cli_args *args)
{
        int r;

        *args = (struct cli_args){0};
        r = parse_options(verb, argc, argv, args);
        if (r != 0)
                return r;
        for (int i = 0; i < args->n_words; i++)
                if (!cli_is_text(args->words[i]))
                        return not_text(args->words[i]);
        if (args->n_words < verb->min_words && !(args->given & CLI_AUTOSTART))
                return usage_error(verb, "'%s' needs more arguments", verb->name);
        if (verb->max_words >= 0 && args->n_words > verb->max_words)
                return usage_error(verb, "there is one argument too many: '%s'",
                                   args->words[verb->max_words]);
        return 0;
}

int cli_split(const char *word, char **ret_pool, const char **ret_rest, struct error *err)
{
        const char *slash = strrchr(word, '/');

        if (!slash || slash == word || slash[1] == '\0') {
                error_set(err, -EINVAL, "'%s' does not name a pool and a volume", word);
                return error_hint(err, "write POOL/VOLUME, or POOL/VOLUME@SNAPSHOT");
        }
        *ret_pool = strndup(word, (size_t)(slash - word));
        if (!*ret_pool)
                return error_set(err, -ENOMEM, "out of memory");
        *ret_rest = slash + 1;
        return 0;
}
