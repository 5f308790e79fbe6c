/* vhost_kernel.h - virtio devices whose rings the kernel processes: /dev/vhost-net, /dev/vhost-vsock.
 *
 * What all of them have in common; how a device begins and ends to work is its own ioctl, between
 * vhost_kernel_start() and vhost_kernel_stop().
 *
 * Units      as in virtio.h.
 * Threads    under the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Ownership  the descriptor is the caller's.
 * Source     Linux, include/uapi/linux/vhost.h and drivers/vhost/vhost.c.
 */
#pragma once
#include "vmm-glue/vmm/virtio.h"

/* Once for each descriptor: it is ours from now on, and can do *ret_features. @what it is, for the
 * sentence. */
int vhost_kernel_own(int fd, const char *what, uint64_t *ret_features, struct error *err);

/* What was negotiated, as far as it is among @features; the guest's memory; and the first @n_queues
 * rings of @v, with their descriptors.
 *
 * -EFAULT  a ring is not in the guest's memory */
int vhost_kernel_start(int fd, struct virtio_device *v, unsigned n_queues, uint64_t features,
                       struct error *err);
/* The memory's log has begun, or is about to end, while the device works. */
int vhost_kernel_log(int fd, struct virtio_device *v, unsigned n_queues, uint64_t features, bool on,
                     struct error *err);
/* The device works no more: next_available of the queues is where it goes on. */
void vhost_kernel_stop(int fd, struct virtio_device *v, unsigned n_queues);
/* While there is a log: all that the device may have written to the buffers of a queue, of one that notes
 * only what it writes to the used ring. */
void vhost_kernel_mark_buffers(const struct virtio_device *v, unsigned index);
