/* virtio_pci.h - what the files of the PCI transport share: virtio_pci.c has the device's life,
 * virtio_pci_regs.c what the guest reads and writes.
 *
 * Threads    under the machine's lock.
 * Errors     none.
 * Ownership  a transport owns its device (virtio.h), queues and eventfds.
 * Source     VIRTIO 1.2, section 4.1.
 */
#pragma once
#include "common/log.h"
#include "vmm-glue/vmm/pci.h"
#include "vmm-glue/vmm/virtio.h"

/* BAR 0 has the structures, each in a page of its own; BAR 1 MSI-X. */
#define VIRTIO_PCI_BAR        0u
#define VIRTIO_PCI_MSIX_BAR   1u
#define VIRTIO_PCI_PAGE       0x1000u
#define VIRTIO_PCI_COMMON     0x0000u
#define VIRTIO_PCI_ISR_PAGE   0x1000u
#define VIRTIO_PCI_DEVICE     0x2000u
#define VIRTIO_PCI_NOTIFY     0x3000u
#define VIRTIO_PCI_BAR_SIZE   0x4000u
#define VIRTIO_PCI_NOTIFY_GAP 4u /* notify_off_multiplier: each queue has its own address */

struct virtio_pci;
struct watch;

struct virtio_pci_queue {
        struct virtio_pci *transport;
        unsigned index;
        struct pci_source source; /* of its call eventfd */
        struct watch *kick,
            *call;     /* own the eventfds; no kick where somebody else processes them */
        bool notified; /* KVM signals kick, by a write to */
        uint64_t notify_address;
};

/* What is left to do when the guest has let go: on the loop's thread. It may outlive the device. */
struct virtio_pci_farewell {
        struct loop_task task;
        struct virtio_pci *transport; /* NULL: it is gone */
        bool posted;
};

struct virtio_pci {
        struct device device;
        struct pci_device pci;
        struct virtio_device *v;
        struct virtio_pci_queue *queues;
        struct virtio_pci_farewell *farewell;
        void (*removed)(struct virtio_device *v);
        struct log_limit log_limit;
        unsigned window; /* where the capability of section 4.1.4.9 lies */
        bool paused;

        /* section 4.1.4.3 */
        uint64_t offered, driver_features;
        uint32_t device_feature_select, driver_feature_select;
        uint16_t config_vector, queue_select;
        uint8_t status, generation, isr;
};

/* ---- virtio_pci_regs.c ---- */

/* BAR 0 and the capabilities that tell of it. */
void virtio_pci_add_registers(struct virtio_pci *p);
/* Before the guest reads, and after it wrote, the window within the configuration space. */
void virtio_pci_window_read(struct virtio_pci *p, unsigned offset, unsigned size);
void virtio_pci_window_written(struct virtio_pci *p, unsigned offset, unsigned size);

/* ---- virtio_pci.c ---- */

void virtio_pci_write_status(struct virtio_pci *p, uint8_t value);
void virtio_pci_enable_queue(struct virtio_pci *p, unsigned index);
void virtio_pci_set_isr(struct virtio_pci *p, uint8_t isr);
