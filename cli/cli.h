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
#define CLI_ALLOW_MAX    64
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
        CLI_WHILE_USED = UINT64_C(1) << 32,
        CLI_TIMEOUT = UINT64_C(1) << 33,
        CLI_VOLUMES = UINT64_C(1) << 34,
        CLI_DISKS_ONLY = UINT64_C(1) << 35,
        CLI_FROM_FORMAT = UINT64_C(1) << 36,
        CLI_VARIANT = UINT64_C(1) << 37,
        CLI_COMPRESSION = UINT64_C(1) << 38,
        CLI_CLUSTER_SIZE = UINT64_C(1) << 39,
        CLI_SNAPSHOT = UINT64_C(1) << 40,
        CLI_ALLOW = UINT64_C(1) << 41,
        CLI_BACKING_FORMAT = UINT64_C(1) << 42,
        CLI_NAME = UINT64_C(1) << 43,
        CLI_VM_FILE = UINT64_C(1) << 44,
        CLI_VERIFY = UINT64_C(1) << 45,
        CLI_BASE = UINT64_C(1) << 46,
        CLI_HYDRATE = UINT64_C(1) << 47,
        CLI_BANDWIDTH = UINT64_C(1) << 48,
        CLI_STOP = UINT64_C(1) << 49,
        CLI_AUTOSTART = UINT64_C(1) << 50, /* in place of the word that names one */
};
#define CLI_TLS_ALL                                                                                \
        (CLI_TLS | CLI_TLS_CERT | CLI_TLS_KEY | CLI_TLS_CA | CLI_TLS_VERIFY | CLI_TLS_PSK |        \
         CLI_TLS_ACCESS)

struct cli_args {
        uint64_t given; /* of enum cli_option */
        const char *layout, *file_size, *size, *format, *control, *group, *threads;
        const char *interval, *count, *vhost_user, *queues;
        const char *tls, *tls_cert, *tls_key, *tls_ca, *tls_psk, *tls_access;
        const char *max_connections, *handshake_timeout, *idle_timeout;
        const char *timeout, *base, *bandwidth;
        const char *from_format, *variant, *compression, *cluster_size, *snapshot;
        const char *backing_format, *name, *vm_file;
        const char *nbd[CLI_NBD_MAX];
        size_t n_nbd;
        const char *allow[CLI_ALLOW_MAX];
        size_t n_allow;
        char **words; /* what is no option */
        int n_words;
};

struct cli_verb {
        const char *noun; /* NULL where the verb stands alone ('serve') */
        const char *name;
        const char *usage;   /* what follows the words in the usage line */
        const char *summary; /* one line */
        const char *help;    /* the rest of --help */
        uint64_t options;
        int min_words, max_words; /* -1: any number */
        /* the exit status; NULL: not built yet */
        int (*run)(const struct cli_verb *verb, const struct cli_args *args);
};

/* each ends with a name of NULL */
extern const struct cli_verb pool_verbs[], volume_verbs[], snapshot_verbs[], image_verbs[],
    vm_verbs[], other_verbs[];

int cli_run_events(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_create(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_rebase(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_hydrate(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_console(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_stat(const struct cli_verb *verb, const struct cli_args *args);

/* Arguments after the words that named the verb. 0, or the exit status after a message. */
int cli_parse(const struct cli_verb *verb, int argc, char **argv, struct cli_args *args);

/* ---- the process ---- */

/* Before anything is opened; and last, with the exit status, which it returns or makes another. */
void cli_begin(void);
int cli_end(int status);

/* ---- names ---- */

/* "POOL/VOL[@SNAP]" at its last slash: so that a path serves as POOL too. ret_pool is malloc'ed. */
int cli_split(const char *word, char **ret_pool, const char **ret_rest, struct error *err);

/* Where a word with a slash may be a member's path or POOL/VOLUME: whether it is the path. */
bool cli_is_member_path(const char *word);

/* Whether two names or members' paths are of one pool. */
bool cli_same_pool(const char *a, const char *b);

/* Names are kept and passed on as JSON, which is UTF-8; jansson knows what that is. */
bool cli_is_text(const char *word);

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
/* Run @request, which is taken over, about POOL/REST: the rest goes into its field @key. */
int cli_call_about(const char *word, const char *key, json_t *request, json_t **ret_reply);
/* Add @value, which is taken, to a request. Without memory for it *request is NULL afterwards, which
 * the calls above answer with -ENOMEM: a request that lacks something would ask for something else. */
void cli_put(json_t **request, const char *key, json_t *value);
/* A request that says whether --force was given; NULL: no memory. */
json_t *cli_request_with_force(const char *command, const struct cli_args *args);

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
/* Ends the process, with a sentence: what is to be printed cannot be. */
void cli_no_memory(void) __attribute__((noreturn));
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line on stdout, without its end in @format. Whatever it quotes (names of files, and what files say)
 * stays in that line, with what a terminal would obey escaped. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_print_json(json_t *value);
void cli_print_json_line(json_t *value);
/* Fields of replies, as text for tables; ring buffers of the library's own, good for a line's
 * cells. */
const char *cli_text(const json_t *object, const char *key);
uint64_t cli_number(const json_t *object, const char *key);
const char *cli_count(const json_t *object, const char *key); /* a number, in full */
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
/* From here on, @done of it, it is of something else. */
void cli_progress_label(struct cli_progress *p, const char *label, uint64_t done);
void cli_progress_show(void *progress, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *p);
