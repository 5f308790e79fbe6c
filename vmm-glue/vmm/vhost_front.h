/* vhost_front.h - a vhost-user front end's connection to a back end: messages and their answers.
 *
 * Each call sends a message, and returns when the back end has done it (REPLY_ACK). A back end is
 * another process, and may be anybody's: what it answers is checked, and it has to answer in time. A
 * failure ends the connection, whatever it was: nothing more is said, and the socket is shut down, so
 * that whoever polls it learns of it. The descriptors stay open until vhost_front_close().
 *
 * Units      bytes; milliseconds where a name says so.
 * Threads    one at a time: the machine's lock. Calls wait, for vhost_front_allow()'s time at most.
 * Errors     0 or -errno with a sentence: -ECONNRESET, it has gone; -ETIMEDOUT, it does not answer;
 *            -EPROTO, it says what makes no sense; -EBADMSG, it says no.
 * Ownership  the connection's descriptors are the front's. Those sent stay the caller's.
 * Source     docs/interop/vhost-user.rst of QEMU.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "vmm-glue/vhost-user/protocol.h"
#include "vmm-glue/vmm/memory.h"

struct vhost_front {
        int fd;      /* -1: there is none */
        int channel; /* our end of the one on which the back end speaks; -1: none */
        uint64_t deadline_ns;
        uint64_t features; /* the back end offers these, */
        uint64_t protocol; /* and these are agreed on */
        unsigned n_queues; /* it has so many */
        bool failed;

        /* of a message on the channel */
        uint8_t partial[sizeof(struct vhost_header) + sizeof(uint64_t)];
        unsigned n_partial;
};

/* Make a front of @fd and agree on the protocol, within @patience_ms; the descriptor is the front's,
 * also on failure. A back end has to know VIRTIO_F_VERSION_1, and the protocol features CONFIG,
 * REPLY_ACK and INFLIGHT_SHMFD: without the last nobody could go on for one that dies.
 *
 * -EOPNOTSUPP  it does not
 * -ENOTSOCK    @fd is no connected Unix socket */
int vhost_front_open(struct vhost_front *front, int fd, unsigned patience_ms, struct error *err);
void vhost_front_close(struct vhost_front *front); /* one that is closed is fine */
/* All that is said from now on has to be answered within @patience_ms, altogether. */
void vhost_front_allow(struct vhost_front *front, unsigned patience_ms);
/* Nothing more is said. */
void vhost_front_fail(struct vhost_front *front);
/* Does it go on, as far as one can see without asking? */
bool vhost_front_is_up(const struct vhost_front *front);

int vhost_front_set_features(struct vhost_front *front, uint64_t features, struct error *err);
int vhost_front_get_config(struct vhost_front *front, void *data, uint32_t size, struct error *err);
int vhost_front_set_config(struct vhost_front *front, uint32_t offset, const void *data,
                           uint32_t size, struct error *err);
/* All regions that are shared; "user" addresses are those here. */
int vhost_front_set_memory(struct vhost_front *front, const struct guest_memory *memory,
                           struct error *err);

/* Where the back end notes which pages it has written, while VHOST_F_LOG_ALL is among the features.
 * Only where vhost_front_can_log(). */
bool vhost_front_can_log(const struct vhost_front *front);
int vhost_front_set_log(struct vhost_front *front, const struct memory_log *log, struct error *err);

/* In-flight regions, as the back end describes them; they are never looked into here. */
int vhost_front_get_inflight(struct vhost_front *front, unsigned n_queues, unsigned queue_size,
                             struct vhost_inflight *ret_inflight, int *ret_fd, struct error *err);
int vhost_front_set_inflight(struct vhost_front *front, const struct vhost_inflight *inflight,
                             int fd, struct error *err);

struct vhost_ring {
        unsigned index;
        uint32_t size, base;
        uint64_t descriptors, available, used; /* user addresses */
        bool log;                              /* note what is written to the used ring, */
        uint64_t log_address;                  /* which lies there for the guest */
        int kick, call, error;                 /* eventfds */
};
/* Tell of a ring, and enable it. */
int vhost_front_start_ring(struct vhost_front *front, const struct vhost_ring *ring,
                           struct error *err);
/* Of one that is started: its addresses and log again. */
int vhost_front_set_ring(struct vhost_front *front, const struct vhost_ring *ring,
                         struct error *err);
/* Waits for what is in flight in it. */
int vhost_front_stop_ring(struct vhost_front *front, unsigned index, uint16_t *ret_base,
                          struct error *err);

/* Take what has come on the channel, without waiting. ret_changed: the configuration is another.
 * A failure ends the channel, not the connection. */
int vhost_front_listen(struct vhost_front *front, bool *ret_changed, struct error *err);
