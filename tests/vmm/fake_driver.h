/* fake_driver.h - a machine without KVM and a transport without PCI, for tests of a virtio device
 * alone: virtio.h's functions that a transport has, and what a driver does with rings.
 *
 * Link it beside the VMM's library, of which it replaces virtio_pci.c and machine.c.
 *
 * Units      bytes; guest-physical addresses; indices of queues and descriptors.
 * Threads    one.
 * Errors     none: what goes wrong here aborts.
 * Ownership  a fake owns the machine and the device that was attached to it.
 */
#pragma once
#include <linux/virtio_ring.h>

#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/virtio.h"

#define FAKE_MEMORY     MIB(64)
#define FAKE_QUEUE_SIZE 256u
#define FAKE_DATA       MIB(1) /* rings lie below; memory from here on is the test's */

struct fake_ring {
        struct vring_desc *descriptors;
        struct vring_avail *available;
        struct vring_used *used;
        uint16_t next_descriptor, next_used; /* the driver's */
};

struct fake {
        struct machine machine;
        struct vmm_config config;
        struct virtio_device *v; /* NULL until it is attached */
        struct fake_ring rings[VIRTIO_QUEUES_MAX];
        unsigned n_config_changes;
        bool needs_reset;
};

/* @loop: NULL for devices that use none. */
void fake_init(struct fake *fake, struct loop *loop);
void fake_fini(struct fake *fake); /* the device, too */

/* The driver's part up to DRIVER_OK: queues of FAKE_QUEUE_SIZE, or what the device has at most. */
int fake_start(struct fake *fake, uint64_t features, struct error *err);
void fake_stop(struct fake *fake);
/* The driver resets it. */
void fake_reset(struct fake *fake);

struct fake_piece {
        uint64_t gpa;
        uint32_t length;
        bool writable;
};
/* Make a chain available. Returns its head. */
uint16_t fake_give(struct fake *fake, unsigned queue, const struct fake_piece *pieces, unsigned n);
void fake_kick(struct fake *fake, unsigned queue);
/* Kick each queue whose eventfd was signalled, until none is, or for some time. */
void fake_kick_signalled(struct fake *fake);
/* The next chain that came back. */
bool fake_take(struct fake *fake, unsigned queue, uint32_t *ret_head, uint32_t *ret_length);

void *fake_at(struct fake *fake, uint64_t gpa); /* one byte of memory that there is */
