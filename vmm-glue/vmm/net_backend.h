/* net_backend.h - where the frames of a network card go to, and come from.
 *
 * A frame has a header of NET_HEADER_SIZE bytes before it (struct virtio_net_hdr_v1), on both ways.
 * The other end is no more trusted than the guest is.
 *
 * Units      bytes; the length of a frame does not count its header.
 * Threads    under the machine's lock.
 * Errors     0 or -errno; -EAGAIN: not now, wait for the descriptor. Another: the link is gone, and
 *            nothing is called any more but free().
 * Ownership  a back end owns its descriptor, also where it could not be made.
 * Source     Linux, Documentation/networking/tuntap.rst; passt(1); QEMU's -netdev stream.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/error.h"

#define NET_HEADER_SIZE 12u
#define NET_FRAME_MIN   14u
/* An IP packet, its Ethernet header, and two VLAN tags. */
#define NET_FRAME_MAX (65535u + 14u + 8u)
/* Of a frame that is sent, its header among them: one less than IOV_MAX. */
#define NET_PIECES_MAX 1023u

struct net_frame {
        const uint8_t *header, *data; /* data may not be the header's end */
        size_t length;                /* at most NET_FRAME_MAX */
};

struct net_backend;

struct net_backend_ops {
        /* A header and a frame of at most NET_FRAME_MAX bytes. What is not -EAGAIN was taken, though it
         * may have been dropped. @iov may be changed. */
        int (*send)(struct net_backend *b, struct iovec *iov, unsigned n_iov);
        /* Whether what was taken has left: 0. */
        int (*flush)(struct net_backend *b);
        /* 1: the next frame, which stays the next one until consume(). */
        int (*receive)(struct net_backend *b, struct net_frame *ret_frame);
        void (*consume)(struct net_backend *b);
        /* The features that were negotiated. May be NULL. */
        int (*set_features)(struct net_backend *b, uint64_t features);
        void (*free)(struct net_backend *b);
};

struct net_backend {
        const struct net_backend_ops *ops;
        int fd;            /* to be waited for */
        uint64_t features; /* of VIRTIO_NET_F_*: what it can do beside plain frames */
};

int net_tap_new(int fd, struct net_backend **ret_backend, struct error *err);
int net_stream_new(int fd, struct net_backend **ret_backend, struct error *err);
