/* attach_internal.h - what attach.c and attach_handover.c share.
 *
 * Threads    the pool's loop.
 */
#pragma once
#include "server/attach.h"

struct attachment {
        struct list link; /* hp->attachments */
        struct host_pool *hp;
        char target[2 * (POOL_NAME_MAX + 1)];
        char *path;
        unsigned n_queues;
        bool readonly;
        bool remembered; /* in the state file; false: of the folder, or passing */
        /* attach_passing.c */
        bool passing; /* ends with its front end */
        bool kept;    /* not now: another server goes on with it */
        bool has_had_client;
        struct loop_timer end;
        char serial[VHOST_SERIAL_MAX + 1];
        char machine[POOL_NAME_MAX + 1];     /* empty: nobody said */
        char identity[ATTACH_IDENTITY_SIZE]; /* front ends get nothing else; empty: no matter */
        char group[STATE_GROUP_SIZE];
        bool made_here; /* the socket, which goes with the attachment */
        dev_t device_number;
        ino_t inode;
        struct vhost_device *device;
        /* attach_handover.c: front ends between two servers; whether the socket is to be ours then */
        struct vhost_saved *saved;
        json_t *entry; /* attach_prepare()'s of it, which has it */
        size_t n_saved, n_lost;
        bool to_be_ours;
};

/* Takes over @fd. @held: until vhost_device_go(). */
int attachment_new(struct host_pool *hp, const struct state_attachment *wanted, int fd,
                   bool remembered, bool held, struct attachment **ret, struct error *err);
/* The uuid of a volume or snapshot, which stays over a restore, and its root's number in the pool, which
 * no other root ever has. Both stay over a rename. */
void attach_identity(const struct root_info *info, char identity[ATTACH_IDENTITY_SIZE]);
/* -ESTALE  @is is not @wanted, which may be empty */
int attach_check_identity(const struct host_pool *hp, const char *target, const char *wanted,
                          const char *is, struct error *err);
/* -ENOTCONN  this process serves nobody; -ENOENT  there is no such volume */
int co_attach_check(struct host_pool *hp, const char *target,
                    char ret_identity[ATTACH_IDENTITY_SIZE], struct error *err);
void co_attachment_free(struct attachment *a);

/* ---- attach_passing.c ---- */

/* From now on it ends as co_attach_passing() says. */
void passing_start(struct attachment *a, const char *serial, const char *machine,
                   const char *identity);
/* A front end for sentences: "machine 'web' (pid 4711)", "vhost-user front end pid 4711". */
#define PASSING_USER_SIZE (POOL_NAME_MAX + 40u)
void passing_user_text(const struct attachment *a, pid_t pid, char text[PASSING_USER_SIZE]);
/* Its front end is about to go. */
void passing_left(struct attachment *a);
bool passing_is_ending(const struct attachment *a); /* for its front end has gone */
/* Until those that are ending have ended. */
void co_passing_settle(struct host_pool *hp);
struct attachment *passing_find(const struct host_pool *hp, const char *target);
