/* virtio_net.h - what the two kinds of network cards share: frames processed here, and by vhost-net.
 *
 * Units      bytes.
 * Threads    under the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Ownership  a struct net is its transport's.
 */
#pragma once
#include "common/loop.h"
#include "vmm-glue/vmm/net_backend.h"
#include "vmm-glue/vmm/virtqueue.h"

enum { NET_QUEUE_RX, NET_QUEUE_TX, NET_QUEUES };

#define NET_BIT(n) (UINT64_C(1) << (n))

struct net {
        struct virtio_device v;
        struct net_backend *backend;
        uint8_t mac[6];
        uint16_t mtu;      /* 0: not told */
        bool link;         /* the other end is there */
        struct list among; /* machine->nics */

        /* virtio_net.c's, where frames are processed here. */
        struct virtqueue rx, tx;
        struct loop_io readable, writable;
        bool readable_wanted, writable_wanted; /* a poll is under way */
        bool blocked;                          /* a frame of the guest's waits for the other end */
        bool freed;                            /* all but the polls that are still to end */
        bool stream;                           /* another may take the other end's place: */
        bool told;                             /* events->nic_lost() was called */
        struct virtqueue_chain first, chain;   /* of a frame: the one looked at */

        /* vhost_net.c's. */
        int vhost;
        uint64_t vhost_features;
};

static inline struct net *net_of(struct virtio_device *v)
{
        return container_of(v, struct net, v);
}

void net_read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size);
uint64_t net_features(const struct net *n);

/* By /dev/vhost-net: the table, and what of @n it needs. @fd is taken over, also on failure. */
extern const struct virtio_ops vhost_net_ops;
int vhost_net_init(struct net *n, int fd, struct error *err);
