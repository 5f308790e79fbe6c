/* vhost_link.h - a disk's connection, watched by the machine's loop.
 *
 * A link lives as long as the loop knows of it, which is longer than its disk wants it: a disk drops
 * its link from any thread and is rid of it at once, and so may the machine be. The loop sees the socket
 * end, and frees it.
 *
 * Threads    under the machine's lock; vhost_link_new() on the loop's thread. The owner's functions
 *            are called on the loop's thread under the lock, events->disk_lost() without.
 * Errors     0 or -errno with a sentence.
 * Ownership  a link's descriptors are its own.
 */
#pragma once
#include "common/loop.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/vhost_front.h"

/* How long a back end may take for all that one step of ours says to it, and for what is in flight
 * to end: longer ones are lost. The guest's processors wait for the machine's lock meanwhile. */
#define VHOST_PATIENCE_MS 10000u

struct vhost_link;

struct vhost_link_owner {
        /* It has ended, and is not the owner's any more. @id is told to events->disk_lost(). */
        void (*lost)(struct vhost_link_owner *owner, char id[STATE_ID_MAX]);
        /* The back end says that its configuration has changed. */
        void (*changed)(struct vhost_link_owner *owner);
        /* It cannot go on with a queue. */
        void (*broken)(struct vhost_link_owner *owner);
        /* It has ended its channel, or says there what makes no sense: the configuration stays. */
        void (*silent)(struct vhost_link_owner *owner, const struct error *why);
};

struct vhost_link {
        struct loop *loop;
        struct machine *machine; /* may be gone when nobody owns the link */
        /* Set under the machine's lock. NULL: nobody's any more, and only the loop touches it. */
        struct vhost_link_owner *_Atomic owner;
        struct vhost_front front;
        int broken; /* eventfd: the back end signals it for queues that make no sense */
        bool ended; /* the loop has seen it */
        struct vhost_watch {
                struct vhost_link *link;
                struct loop_io io;
                bool pending;
        } hang_up, channel, error;
};

/* Agree on the protocol with whoever is at the other end of @fd, which is taken also on failure. It
 * has no owner yet: set it, or drop the link. */
int vhost_link_new(struct machine *machine, int fd, struct vhost_link **ret_link,
                   struct error *err);
void vhost_link_set_owner(struct vhost_link *link, struct vhost_link_owner *owner);
/* [any thread] Hang up, and have no more to do with it; NULL is fine. */
void vhost_link_drop(struct vhost_link *link);
