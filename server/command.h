/* command.h - the operations on an open pool, each a JSON request with descriptors and a JSON
 * reply.
 *
 * The same functions run in a one-shot command's own process and behind a server's control socket,
 * so that the user sees no difference. docs/control.md states every request and reply.
 *
 * Units      sizes and offsets in requests and replies are bytes.
 * Threads    coroutines; several may run at a time. co_command_run() is called on the host's loop
 *            and takes the command to its pool's, where it runs; caller's progress is called there.
 * Errors     0 or -errno with a sentence and perhaps a hint. A request is not trusted: what it
 *            lacks, or holds of the wrong kind, is -EINVAL.
 * Ownership  descriptors stay the caller's, unless a command says that it takes them over (by dup).
 *            A reply is the caller's reference.
 */
#pragma once
#include <jansson.h>

#include "server/host.h"

#define COMMAND_FDS_MAX 250u /* SCM_MAX_FD is 253 (linux/include/net/scm.h) */

/* Who asked. */
struct command_caller {
        /* Now and then from long commands; may be NULL. */
        void (*progress)(struct command_caller *caller, uint64_t done, uint64_t total,
                         bool verifying);
        /* true when the caller has gone or changed his mind; long commands look */
        const atomic_bool *cancelled;
};

/* Run the command that request's "command" names, on the pool that its "pool" names.
 *
 * -EOPNOTSUPP  there is no such command */
int co_command_run(struct host *host, json_t *request, const int *fds, size_t n_fds,
                   struct command_caller *caller, json_t **ret_reply, struct error *err);

/* True where the command changes nothing, so that a one-shot opens the pool without writing. */
bool command_is_readonly(const char *name);
/* True where space comes back by work in the background, for which a one-shot waits. */
bool command_frees_space(const char *name);

/* ---- for the commands themselves ---- */

struct command {
        struct host *host;
        struct host_pool *hp;
        json_t *request;
        const int *fds;
        size_t n_fds;
        struct command_caller *caller;
        json_t *reply; /* an object, to be filled */
};

/* Fields of the request. -EINVAL where missing or of another kind. */
int command_string(const struct command *c, const char *key, const char **ret, struct error *err);
int command_size(const struct command *c, const char *key, uint64_t *ret, struct error *err);
bool command_flag(const struct command *c, const char *key);
/* "volume": a volume's name that holds to the rules. */
int command_volume(const struct command *c, const char *key, const char **ret, struct error *err);
/* VOLUME@SNAPSHOT, split; both hold to the rules. */
struct snapshot_name {
        char volume[POOL_NAME_MAX + 1], snapshot[POOL_NAME_MAX + 1];
};
int snapshot_name_parse(const char *text, struct snapshot_name *ret, struct error *err);
/* Field @key likewise, whole and split. */
int command_snapshot(const struct command *c, const char *key, const char **ret_name,
                     struct snapshot_name *ret, struct error *err);
/* VOLUME or VOLUME@SNAPSHOT. */
int command_root(const struct command *c, const char *key, const char **ret, struct error *err);

/* Tell the caller how far it is. -ECANCELED where he has gone. */
int command_progress(const struct command *c, uint64_t done, uint64_t total, struct error *err);

/* "2026-11-22T10:20:30Z" */
json_t *json_time(int64_t time_ns);
json_t *json_uuid(const uint8_t uuid[16]);
/* Is @text in an array of them? Anything else has none. */
bool json_lists(const json_t *texts, const char *text);

/* Whether this is not a volume yet: one that is being filled, or what a killed import has left. */
bool import_is_under_way(const struct root_info *info);

typedef int co_command(struct command *c, struct error *err);
co_command co_pool_status, co_pool_add_members, co_pool_check_all;
co_command co_volume_create_one, co_volume_list_all, co_volume_show, co_volume_resize_one,
    co_volume_rename_one, co_volume_delete_one, co_volume_set_all, co_volume_clone_one,
    co_volume_attach, co_volume_detach;
co_command co_snapshot_create_all, co_snapshot_list_all, co_snapshot_restore_one,
    co_snapshot_delete_one, co_snapshot_diff;
co_command co_image_import, co_image_export;
co_command co_stats;
