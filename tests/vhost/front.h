/* front.h - one connection to a vhost-user back end: messages, right or wrong, and their replies.
 *
 * Units      bytes.
 * Threads    one a connection; blocking, FRONT_HANG_S seconds at most for one message.
 * Errors     0 or -errno with a sentence. -ECONNRESET: the back end has closed; -ETIMEDOUT: it
 *            does not answer; -EBADMSG: it answered no (REPLY_ACK).
 * Ownership  release with front_close(). Descriptors that are sent stay the caller's.
 * Source     QEMU, docs/interop/vhost-user.rst.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/vhost/guest.h"
#include "tests/vhost/message.h"

#define FRONT_HANG_S 60

struct front {
        int fd;
        uint64_t offered, features; /* of the device; what was agreed */
        uint64_t offered_protocol, protocol;
        int channel; /* our end of the back end's own channel; -1: none */
};

/* Connect and do nothing else. */
int front_connect(const char *path, struct front **ret_front, struct error *err);
void front_close(struct front *f); /* NULL is fine */

/* ---- messages ---- */

/* Send a message of any kind, with its header's size being @size, and descriptors. */
int front_send(struct front *f, uint32_t request, uint32_t flags, const void *payload,
               uint32_t size, const int *fds, unsigned n_fds, struct error *err);
/* Send just these bytes, with descriptors at the first of them. */
int front_send_bytes(struct front *f, const void *data, size_t n_bytes, const int *fds,
                     unsigned n_fds, struct error *err);

struct front_reply {
        struct vu_header header;
        union {
                uint64_t u64;
                struct vu_vring_state state;
                struct vu_config config;
                struct vu_inflight inflight;
                struct vu_single_region region;
                uint8_t bytes[4096];
        };
        int fds[VU_FDS_MAX]; /* the caller's */
        unsigned n_fds;
};
/* The reply to @request, checked for its version and REPLY flag. */
int front_reply(struct front *f, uint32_t request, struct front_reply *ret_reply,
                struct error *err);

/* Send a message that has no reply of its own. Where REPLY_ACK is agreed the answer is asked for
 * and awaited: the back end has acted when this returns. Without it, see front_sync(). */
int front_tell(struct front *f, uint32_t request, const void *payload, uint32_t size,
               const int *fds, unsigned n_fds, struct error *err);
int front_tell_u64(struct front *f, uint32_t request, uint64_t value, struct error *err);
/* Send a message that is answered with a number. */
int front_ask_u64(struct front *f, uint32_t request, uint64_t *ret_value, struct error *err);
/* Wait until the back end has worked off all that was sent: messages are served in order. */
int front_sync(struct front *f, struct error *err);
/* Has the back end closed? Waits for it. True as well if it closes after replies not yet read. */
bool front_is_closed(struct front *f);
/* Is it still there, with nothing said? Does not wait. */
bool front_is_open(struct front *f);

/* ---- what a front end does at the start ---- */

/* Owner, features and protocol features: those of @features and @protocol that are offered. With
 * BACKEND_REQ agreed the channel is made. */
int front_negotiate(struct front *f, uint64_t features, uint64_t protocol, struct error *err);
/* The whole memory, by one table, or, with @by_slots, by one message a region. */
int front_set_memory(struct front *f, const struct guest *m, bool by_slots, struct error *err);
int front_add_region(struct front *f, const struct guest_part *region, struct error *err);
int front_remove_region(struct front *f, const struct guest_part *region, struct error *err);
int front_get_config(struct front *f, uint32_t offset, uint32_t size, void *data,
                     struct error *err);
int front_set_config(struct front *f, uint32_t offset, uint32_t size, const void *data,
                     struct error *err);
/* The next request on the back end's channel, waiting up to @timeout_ms; answered if it asks to be.
 * -ETIMEDOUT  none came */
int front_channel_next(struct front *f, int timeout_ms, uint32_t *ret_request, struct error *err);
