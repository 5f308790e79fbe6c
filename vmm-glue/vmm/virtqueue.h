/* virtqueue.h - the rings of devices that are processed here.
 *
 * From a device's start() to its stop():
 *
 *         while (virtqueue_pop(&vq, &chain)) {
 *                 ... chain.iov, virtqueue_in(&chain): memory of the guest ...
 *                 virtqueue_push(&vq, &chain, written);
 *         }
 *         virtqueue_flush(&vq);
 *
 * A guest that breaks the rules of a ring gets NEEDS_RESET, and nothing is popped any more. What lies in
 * a chain's pieces is the guest's and may change at any moment: copy, then look.
 *
 * Units      bytes.
 * Threads    under the machine's lock.
 * Errors     -errno with a sentence.
 * Ownership  a struct virtqueue and a chain are the device's memory; a chain needs no end.
 * Source     VIRTIO 1.2, section 2.7.
 */
#pragma once
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "vmm-glue/vmm/virtio.h"

/* What a device that uses this may offer. */
#define VIRTQUEUE_FEATURES                                                                         \
        (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

/* Pieces of one chain; one with more is a broken one. Drivers use as many descriptors as a ring has, or
 * as SEG_MAX and its like allow. */
#define VIRTQUEUE_PIECES_MAX 1024u

struct virtqueue {
        struct virtio_device *v;
        struct virtio_queue *queue; /* next_available, next_used: the device may look at them */
        struct vring_desc *descriptors;
        struct vring_avail *available;
        struct vring_used *used;
        bool event_idx, indirect;
        bool broken;
        uint16_t flushed; /* next_used at the last flush */
};

struct virtqueue_chain {
        uint16_t head;
        unsigned n_out, n_in; /* readable pieces, then writable ones */
        uint64_t out_bytes, in_bytes;
        struct iovec iov[VIRTQUEUE_PIECES_MAX];
};

static inline struct iovec *virtqueue_in(struct virtqueue_chain *chain)
{
        return chain->iov + chain->n_out;
}

/* Queue @index of @v, where it is now. A queue that is not enabled is not popped from.
 *
 * -EFAULT  its rings are not in RAM */
int virtqueue_start(struct virtqueue *vq, struct virtio_device *v, unsigned index,
                    struct error *err);

/* The next chain; false: there is none. */
bool virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);
/* The last one popped was not: it comes again. Not where it was pushed. */
void virtqueue_unpop(struct virtqueue *vq);
/* Done with, @written bytes from the first writable piece on, which are marked as such in the memory's log.
 * The guest sees it at the next flush. */
void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written);
/* The same, by who has marked what it wrote. */
void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written);
/* Show the guest all that was pushed, at once, and interrupt it where it wants that. */
void virtqueue_flush(struct virtqueue *vq);

/* Whether the guest shall kick when it makes something available: yes, at first. After switching it on
 * something may be there already: true then. */
bool virtqueue_want_kicks(struct virtqueue *vq);
void virtqueue_want_no_kicks(struct virtqueue *vq);

/* Copy @size bytes from, or to, the pieces of @iov, from @skip on. How many there were: less at the end
 * of the pieces. */
size_t virtqueue_gather(const struct iovec *iov, unsigned n, size_t skip, void *data, size_t size);
size_t virtqueue_scatter(const struct iovec *iov, unsigned n, size_t skip, const void *data,
                         size_t size);
