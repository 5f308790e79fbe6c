/* guest.h - what a driver does with a virtio device on PCI: configuration space, registers, split rings
 * in guest memory. It is as obedient as its caller.
 *
 * Units      bytes, guest-physical addresses.
 * Threads    one.
 * Errors     what must not fail aborts.
 * Ownership  none: all lies in the fixture's machine.
 */
#pragma once
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "tests/vmm/machine_fixture.h"

/* By ECAM; and by ports. */
uint32_t guest_config_read(struct machine_fixture *f, unsigned slot, unsigned offset,
                           unsigned size);
void guest_config_write(struct machine_fixture *f, unsigned slot, unsigned offset, unsigned size,
                        uint32_t value);
uint32_t guest_port_config_read(struct machine_fixture *f, unsigned slot, unsigned offset,
                                unsigned size);
void guest_port_config_write(struct machine_fixture *f, unsigned slot, unsigned offset,
                             unsigned size, uint32_t value);
/* Where a capability lies: the first with this id, and of virtio's those of the type. 0: nowhere. */
unsigned guest_capability(struct machine_fixture *f, unsigned slot, uint8_t id, uint8_t type);

struct guest_device {
        struct machine_fixture *f;
        unsigned slot;
        uint64_t bar, msix_bar;
};
#define GUEST_BAR UINT64_C(0xd0000000) /* of slot 1; each slot has 64 KiB */

/* Place the BARs of the device of @slot, and switch memory and bus mastering on. */
struct guest_device guest_device(struct machine_fixture *f, unsigned slot);
uint64_t guest_common(const struct guest_device *d, unsigned field, unsigned size);
void guest_set_common(const struct guest_device *d, unsigned field, unsigned size, uint64_t value);
uint8_t guest_status(const struct guest_device *d);
void guest_set_status(const struct guest_device *d, uint8_t status);
uint64_t guest_features(const struct guest_device *d);
/* Up to FEATURES_OK; false: it was refused. */
bool guest_agree(const struct guest_device *d, uint64_t features);
/* Reset, agree on what is offered among @features (and VERSION_1). */
void guest_begin(const struct guest_device *d, uint64_t features);
void guest_ready(const struct guest_device *d); /* DRIVER_OK */

/* MSI-X on, and vector i with message @address, 0x40 + i. */
#define GUEST_MESSAGE UINT64_C(0xfee01000)
void guest_msix_on(const struct guest_device *d, unsigned n_vectors);
void guest_msix_mask(const struct guest_device *d, unsigned vector, bool masked);
uint32_t guest_msix_pending(const struct guest_device *d);

struct guest_ring {
        struct guest_device *d;
        unsigned index, size;
        struct vring_desc *descriptors;
        struct vring_avail *available;
        struct vring_used *used;
        uint64_t gpa;
        uint16_t next_descriptor, seen; /* of used */
};
#define GUEST_RING_SIZE(n) (UINT64_C(3) * 4096 + (n)*16u) /* at most */

/* Rings at @gpa, enabled. */
struct guest_ring guest_ring(struct guest_device *d, unsigned index, unsigned size, uint64_t gpa);
struct guest_piece {
        uint64_t gpa;
        uint32_t length;
        bool writable;
};
/* Make a chain of @n pieces available; its head. */
uint16_t guest_add(struct guest_ring *r, const struct guest_piece *pieces, unsigned n);
/* A chain that begins at @head, as it is. */
void guest_make_available(struct guest_ring *r, uint16_t head);
void guest_kick(struct guest_ring *r);
/* The next used one. */
bool guest_used(struct guest_ring *r, uint32_t *ret_id, uint32_t *ret_length);
void *guest_memory_at(struct machine_fixture *f, uint64_t gpa, uint64_t length);
