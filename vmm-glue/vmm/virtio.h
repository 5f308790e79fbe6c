/* virtio.h - what stands between a virtio device and the way by which the guest sees it.
 *
 * A device (disk, network, rng ...) embeds a struct virtio_device, and knows nothing of PCI; the
 * transport (virtio_pci.c) knows nothing of what devices do.
 *
 * Two kinds of devices: those whose rings somebody else processes (a vhost-user server, vhost in the
 * kernel) hand on the kick and call descriptors of their queues and their addresses; those that
 * process them here are called by kick() and use virtqueue.h.
 *
 * Rings are split ones (VIRTIO_F_RING_PACKED is not offered): there is one kind of code to trust.
 *
 * Units      addresses are guest-physical; sizes of queues are descriptors.
 * Threads    under the machine's lock, but virtio_signal().
 * Errors     0 or -errno with a sentence.
 * Ownership  queues and their eventfds are the transport's; it frees the device.
 * Source     Virtual I/O Device (VIRTIO) 1.2, sections 2 and 4.1.
 */
#pragma once
#include "vmm-glue/vmm/device.h"
#include "vmm-glue/vmm/layout.h"
#include "vmm-glue/vmm/vmm.h"

#define VIRTIO_QUEUES_MAX     (VCPUS_MAX + 3)
#define VIRTIO_QUEUE_SIZE_MAX 1024u

struct virtio_device;

struct virtio_queue {
        uint16_t size_max; /* the device's, before it is attached: a power of two */
        uint16_t size;     /* the driver's: a power of two, at most that */
        bool enabled;
        uint64_t descriptors, available, used; /* checked only for alignment: range them */
        int kick; /* eventfd, non-blocking: the guest has made something available */
        int call; /* the same: what we signal to interrupt the guest */
        /* Where a ring goes on, for whoever processes it: the next index to look at, and for those
         * that are processed here the next to use. Begins with 0 at a reset; save and restore take
         * it along. */
        uint16_t next_available, next_used;
};

struct virtio_ops {
        uint16_t type; /* VIRTIO_ID_* */
        /* Offered beside VIRTIO_F_VERSION_1. Asked once, and again after each reset. */
        uint64_t (*features)(struct virtio_device *v);
        /* The device's configuration space; beyond its end reads are zero. write may be NULL. */
        void (*read_config)(struct virtio_device *v, uint32_t offset, void *data, uint32_t size);
        void (*write_config)(struct virtio_device *v, uint32_t offset, const void *data,
                             uint32_t size);
        /* DRIVER_OK was set: v->features and the enabled queues are the driver's. Again after stop(),
         * by a resume. -errno: the device says NEEDS_RESET, and the sentence is logged. */
        int (*start)(struct virtio_device *v, struct error *err);
        /* The other way round; by a reset of the device or a pause. When it returns guest memory is not
         * touched, and next_available of each queue is right. */
        void (*stop)(struct virtio_device *v);
        /* On the loop's thread: a queue was kicked. NULL: the kicks are another's. */
        void (*kick)(struct virtio_device *v, unsigned queue);
        /* As device_ops' log(), of a device that is started; start() looks at memory->log itself. May be
         * NULL. */
        int (*log)(struct virtio_device *v, bool on, struct error *err);
        /* What a reset by the driver forgets beside the queues. May be NULL. */
        void (*reset)(struct virtio_device *v);
        /* What the transport does not know. May be NULL. */
        void (*save)(struct virtio_device *v, struct state_writer *w);
        int (*restore)(struct virtio_device *v, struct state_reader *r, struct error *err);
        void (*free)(struct virtio_device *v);
};

struct virtio_device {
        const struct virtio_ops *ops;
        struct machine *machine;
        char id[STATE_ID_MAX]; /* "disk0" */
        struct virtio_queue *queues;
        unsigned n_queues;
        uint64_t features; /* negotiated */
        bool started;      /* between start() and stop() */
        struct virtio_pci *transport;
};

struct virtio_options {
        int boot_order;              /* as in vmm.h */
        bool hotplugged;             /* the guest is to be told of it */
        const uint16_t *queue_sizes; /* one a queue */
        unsigned n_queues;
};

/* Put the device into the first free PCI slot: makes its queues, is its struct device (with @v->id as
 * id), and owns it, also on failure. On the loop's thread.
 *
 * -ENOSPC  no slot is free */
int virtio_attach(struct machine *machine, struct virtio_device *v,
                  const struct virtio_options *options, struct error *err);
/* Ask the guest to let go of it. When it has, or is reset, @removed (may be NULL) is called, once, on the
 * loop's thread; the device is freed after it. A guest may take its time
 * and can be asked again; a machine that was restored is to be asked anew. */
void virtio_detach(struct virtio_device *v, void (*removed)(struct virtio_device *v));

/* [any thread] Interrupt the guest for a queue. */
void virtio_signal(struct virtio_queue *queue);
/* The configuration space has changed: its generation is raised, and the guest interrupted. */
void virtio_config_changed(struct virtio_device *v);
/* The device cannot go on until the driver resets it: it is kicked no more. It is stopped by the reset,
 * not here, so that it may say so from anywhere. */
void virtio_needs_reset(struct virtio_device *v);
/* A line in the log, about something that a guest may cause as often as it likes. */
void virtio_log(struct virtio_device *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- devices that a configuration may name: each made, and attached, by its file ---- */

/* On the loop's thread; the descriptor is taken also on failure. What a disk that is freed leaves on the
 * loop ends by itself, soon.
 *
 * -EOPNOTSUPP, -EROFS  the back end is not one for this disk
 * -ECONNRESET, -ETIMEDOUT, -EPROTO, -EBADMSG  it does not do what it is told
 * -EBUSY  the disk has a back end; -ENOENT, -EEXIST */
int vhost_blk_create(struct machine *machine, const struct vmm_disk *disk, bool hotplugged,
                     struct error *err);
int vhost_blk_connect(struct machine *machine, const char *id, int fd, struct error *err);
/* The guest is asked; events->disk_removed() follows when it has agreed, which may be never. */
int vhost_blk_remove(struct machine *machine, const char *id, struct error *err);
/* All disks are freed, and the machine is about to be: nobody is told of removals any more. */
void vhost_blk_end(struct machine *machine);
int virtio_net_create(struct machine *machine, const struct vmm_nic *nic, struct error *err);
/* As vmm_nic_connect(). */
int virtio_net_connect(struct machine *machine, const char *id, int fd, struct error *err);
int virtio_rng_create(struct machine *machine, struct error *err);
int virtio_vsock_create(struct machine *machine, struct error *err);
int virtio_balloon_create(struct machine *machine, struct error *err);
int virtio_mem_create(struct machine *machine, struct error *err);
int seed_blk_create(struct machine *machine, struct error *err);
