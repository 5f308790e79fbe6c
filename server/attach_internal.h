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
        bool remembered; /* in the state file; false: of the folder */
        char group[STATE_GROUP_SIZE];
        bool made_here; /* the socket, which goes with the attachment */
        dev_t device_number;
        ino_t inode;
        struct vhost_device *device;
        /* attach_handover.c: front ends between two servers; whether the socket is to be ours then */
        struct vhost_saved *saved;
        size_t n_saved;
        bool to_be_ours;
};

/* Takes over @fd. @held: until vhost_device_go(). */
int attachment_new(struct host_pool *hp, const struct state_attachment *wanted, int fd,
                   bool remembered, bool held, struct attachment **ret, struct error *err);
