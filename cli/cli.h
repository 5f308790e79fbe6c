/* cli.h - what the files of the 'tarn' command share: verbs, arguments, asking, printing.
 *
 * A verb takes its arguments apart, lets server/ do the work and shows the reply. Only this folder
 * prints: results on stdout; errors, hints, notes, questions and progress on stderr.
 *
 * Exit status: 0, EXIT_FAILURE (it failed: one sentence), EXIT_USAGE; 'check' has its own.
 *
 * Units      bytes, printed as common/size.h does.
 * Threads    the program has one.
 * Errors     verbs return an exit status; cli_split() and cli_try() 0 or -errno with a sentence.
 * Ownership  strings are the command line's and live as long as the program; json_t as marked.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/error.h"
#include "common/size.h"

#define EXIT_USAGE       2
#define EXIT_FINDINGS    1
#define EXIT_NOT_CHECKED 3
#define CLI_NBD_MAX      64
/* for a pool that another process holds, where others are listed too */
#define CLI_LIST_WAIT_MS 2000u

/* Options a verb may take. */
enum cli_option {
        CLI_JSON = 1 << 0,
        CLI_YES = 1 << 1,
        CLI_FORCE = 1 << 2,
        CLI_DATA = 1 << 3,
        CLI_SNAPSHOTS = 1 << 4,
        CLI_DISCARD_CURRENT = 1 << 5,
        CLI_LAYOUT = 1 << 6,
        CLI_FILE_SIZE = 1 << 7,
        CLI_SIZE = 1 << 8,
        CLI_FORMAT = 1 << 9,
        CLI_NBD = 1 << 10,
        CLI_CONTROL = 1 << 11,
        CLI_GROUP = 1 << 12,
        CLI_INTERVAL = 1 << 24,
        CLI_COUNT = 1 << 25,
        CLI_EXPORTS = 1 << 26,
        CLI_MEMBERS = 1 << 27,
        CLI_TAKEOVER = 1 << 13,
        CLI_TLS = 1 << 14,
        CLI_TLS_CERT = 1 << 15,
        CLI_TLS_KEY = 1 << 16,
        CLI_TLS_CA = 1 << 17,
        CLI_TLS_VERIFY = 1 << 18,
        CLI_TLS_PSK = 1 << 19,
        CLI_TLS_ACCESS = 1 << 20,
        CLI_MAX_CONNECTIONS = 1 << 21,
        CLI_HANDSHAKE_TIMEOUT = 1 << 22,
        CLI_THREADS = 1 << 23,
        CLI_VHOST_USER = 1 << 28,
        CLI_QUEUES = 1 << 29,
        CLI_READONLY = 1 << 30,
        CLI_IDLE_TIMEOUT = 1u << 31,
};
#define CLI_TLS_ALL                                                                                \
        (CLI_TLS | CLI_TLS_CERT | CLI_TLS_KEY | CLI_TLS_CA | CLI_TLS_VERIFY | CLI_TLS_PSK |        \
         CLI_TLS_ACCESS)

struct cli_args {
        unsigned given; /* of enum cli_option */
        const char *layout, *file_size, *size, *format, *control, *group, *threads;
        const char *interval, *count, *vhost_user, *queues;
        const char *tls, *tls_cert, *tls_key, *tls_ca, *tls_psk, *tls_access;
        const char *max_connections, *handshake_timeout, *idle_timeout;
        const char *nbd[CLI_NBD_MAX];
        size_t n_nbd;
        char **words; /* what is no option */
        int n_words;
};

struct cli_verb {
        const char *noun; /* NULL where the verb stands alone ('serve') */
        const char *name;
        const char *usage;   /* what follows the words in the usage line */
        const char *summary; /* one line */
        const char *help;    /* the rest of --help */
        unsigned options;
        int min_words, max_words; /* -1: any number */
        /* the exit status; NULL: not built yet */
        int (*run)(const struct cli_verb *verb, const struct cli_args *args);
};

/* each ends with a name of NULL */
extern const struct cli_verb pool_verbs[], volume_verbs[], snapshot_verbs[], image_verbs[],
    other_verbs[];

int cli_run_events(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_stat(const struct cli_verb *verb, const struct cli_args *args);

/* Arguments after the words that named the verb. 0, or the exit status after a message. */
int cli_parse(const struct cli_verb *verb, int argc, char **argv, struct cli_args *args);

/* ---- names ---- */

/* "POOL/VOL[@SNAP]" at its last slash: so that a path serves as POOL too. ret_pool is malloc'ed. */
int cli_split(const char *word, char **ret_pool, const char **ret_rest, struct error *err);

/* Where a word with a slash may be a member's path or POOL/VOLUME: whether it is the path. */
bool cli_is_member_path(const char *word);

/* Whether two names or members' paths are of one pool. */
bool cli_same_pool(const char *a, const char *b);

/* ---- doing ---- */

struct cli_call {
        const char *pool;
        json_t *request; /* taken over */
        const int *fds;
        size_t n_fds;
        const char *progress;   /* "importing"; NULL: no bar */
        bool progress_is_share; /* not of bytes: only the share is shown */
        unsigned wait_ms;
        bool served_only; /* by the pool's server or not at all: -ENOTCONN */
};
/* Run one command; a failure is printed. */
int cli_call(const struct cli_call *call, json_t **ret_reply);
/* The same, failing silently. */
int cli_try(const struct cli_call *call, json_t **ret_reply, struct error *err);

/* ---- asking ---- */

/* True to go on: --yes was given, or the user says so. On false the exit status is EXIT_FAILURE. */
bool cli_confirm(const struct cli_args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What would be refused anyway is not asked about: -EBUSY, with the server's sentence, where
 * @volume (the reply of volume-show) is in use and there is no --force. */
int cli_refuse_used(const struct cli_args *args, const char *verb, const char *name,
                    const json_t *volume);

/* ---- printing ---- */

int cli_fail(const struct error *err);
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_print_json(json_t *value);
/* Fields of replies, as text for tables; ring buffers of the library's own, good for a line's
 * cells. */
const char *cli_text(const json_t *object, const char *key);
uint64_t cli_number(const json_t *object, const char *key);
const char *cli_size(const json_t *object, const char *key);
const char *cli_time(const json_t *object, const char *key);

struct cli_column {
        const char *name;
        enum { CLI_LEFT, CLI_RIGHT, CLI_TREE } kind;
};
struct cli_table;
struct cli_line;
struct cli_table *cli_table_new(const struct cli_column *columns, size_t n_columns);
/* @parent NULL: a root. */
struct cli_line *cli_table_line(struct cli_table *table, struct cli_line *parent);
void cli_table_cell(struct cli_line *line, size_t column, const char *text);
/* Print and free. */
void cli_table_finish(struct cli_table *table);

/* ---- progress ---- */

struct cli_progress {
        const char *label;
        uint64_t begin_ns, begin_done, shown_ns;
        bool on_terminal, shown, is_share;
};
void cli_progress_begin(struct cli_progress *p, const char *label, bool is_share);
void cli_progress_show(void *progress, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *p);
