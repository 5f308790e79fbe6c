/* state.h - what this user knows of pools: one small JSON file a pool, in the state folder.
 *
 * It says which members a pool has and where they were last, and who serves it. Nothing that a pool
 * needs lives here: 'tarn pool import' makes the file anew from the members' labels.
 *
 * Units      none.
 * Threads    [any thread]; several processes may work on the folder: writers hold state_lock().
 * Errors     0 or -errno with a sentence.
 * Durability files are written under another name, fsynced and renamed.
 * Ownership  a struct pool_state is malloc'ed with all it points to; release with state_free().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "pool/pool.h"

#define STATE_FILE_MAX        (4u << 20) /* 1,024 members of 4 KiB of path each fit */
#define STATE_SOCKETS_MAX     64u
#define STATE_ATTACHMENTS_MAX 1024u

struct state_member {
        char *path;
        uint8_t uuid[16];
};

/* A volume that is offered over vhost-user until it is detached. */
#define STATE_GROUP_SIZE 64u /* Linux's tools take 32 characters */
struct state_attachment {
        char target[2 * (POOL_NAME_MAX + 1)]; /* VOL or VOL@SNAP */
        char *path;                           /* of the socket, absolute */
        unsigned n_queues;
        bool readonly;
        char group[STATE_GROUP_SIZE]; /* whose the socket is too; empty: the server's group */
};

struct pool_state {
        char name[POOL_NAME_MAX + 1];
        uint8_t uuid[16];
        size_t n_members;
        struct state_member *members;
        /* Who serves it; control NULL where nobody does. Only a claim: a killed server leaves it
         * behind. */
        char *server_control;
        pid_t server_pid;
        size_t n_server_nbd;
        char **server_nbd; /* "nbd+unix:///?socket=..." */
        bool
            server_while_used; /* it was started for a virtual machine, and is to be again if it dies */
        size_t n_attachments;
        struct state_attachment *attachments;
};

/* $TARN_STATE_DIR, else by user. Makes it where it is not there. */
int state_dir(char *ret_path, size_t size, struct error *err);
/* $TARN_RUNTIME_DIR, else by user: where sockets are. Makes it. */
int runtime_dir(char *ret_path, size_t size, struct error *err);

/* -ENOENT  no pool of that name is known: the sentence says so and hints at import
 * -EINVAL  the file is not a state file */
int state_load(const char *name, struct pool_state **ret_state, struct error *err);
/* The same by the pool's uuid. */
int state_find_uuid(const uint8_t uuid[16], struct pool_state **ret_state, struct error *err);
int state_save(const struct pool_state *state, struct error *err);
int state_remove(const char *name, struct error *err);

/* All names, sorted, malloc'ed; release with state_names_free(). */
int state_names(char ***ret_names, size_t *ret_n, struct error *err);
void state_names_free(char **names, size_t n);

/* Wait for and take the folder's lock; the descriptor is the lock. */
int state_lock(struct error *err);
void state_unlock(int lock);

struct pool_state *state_new(const char *name, const uint8_t uuid[16]);
void state_free(struct pool_state *state); /* NULL is fine */
/* Add a member, or change the path of one that is known by its uuid. -ENOMEM */
int state_set_member(struct pool_state *state, const char *path, const uint8_t uuid[16]);
void state_drop_member(struct pool_state *state, const uint8_t uuid[16]);
int state_set_server(struct pool_state *state, const char *control, pid_t pid, char *const *nbd,
                     size_t n_nbd);
void state_clear_server(struct pool_state *state);
/* Add an attachment, or change the one of that target.
 *
 * -ENOSPC  there are STATE_ATTACHMENTS_MAX
 * -ENOMEM */
int state_set_attachment(struct pool_state *state, const struct state_attachment *attachment);
/* NULL: there is none. */
struct state_attachment *state_find_attachment(const struct pool_state *state, const char *target);
void state_drop_attachment(struct pool_state *state, const char *target);

/* In the usual form of 36 characters; -EINVAL. */
#define UUID_TEXT_SIZE 37
void uuid_format(const uint8_t uuid[16], char text[UUID_TEXT_SIZE]);
int uuid_parse_text(const char *text, uint8_t uuid[16]);
