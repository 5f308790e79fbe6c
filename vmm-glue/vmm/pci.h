/* pci.h - the PCI bus: configuration space, BARs, interrupts; slots that come and go.
 *
 * One bus, 32 slots, one function each, slot 0 the host bridge. Devices are conventional PCI (256 bytes
 * of configuration space), their BARs are of memory, below 4 GiB. A BAR answers while its device decodes
 * memory and the BAR lies as a whole within the host bridge's window (LAYOUT_PCI32): elsewhere, over RAM
 * or an interrupt controller, it does not. Where two lie on one another the first one there answers, and
 * the other one as soon as that has gone.
 *
 * Units      bytes; guest-physical addresses. Slots from 0.
 * Threads    under the machine's lock; where marked [loop], on the loop's thread.
 * Errors     0 or -errno with a sentence.
 * Ownership  a device is its maker's memory, and has to be taken out of the bus before that goes.
 * Source     PCI Local Bus Specification 3.0: sections 6.1, 6.2 (configuration), 6.8.2 (MSI-X); PCI
 *            Firmware Specification 3.0 for ECAM.
 */
#pragma once
#include <linux/pci_regs.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "common/le.h"
#include "common/list.h"
#include "vmm-glue/vmm/bus.h"
#include "vmm-glue/vmm/irq.h"
#include "vmm-glue/vmm/layout.h"
#include "vmm-glue/vmm/state.h"

#define PCI_CONFIG_SIZE 256u
#define PCI_BARS        6u

struct machine;
struct pci_device;
struct pci_msix;

struct pci_device_ops {
        /* BAR @bar has come to answer at bars[bar].range.start, or is about to answer there no more. */
        void (*bar_mapped)(struct pci_device *pci, unsigned bar, bool mapped);
        /* Before the guest reads of the configuration space, and after it wrote. May be NULL. */
        void (*config_read)(struct pci_device *pci, unsigned offset, unsigned size);
        void (*config_written)(struct pci_device *pci, unsigned offset, unsigned size);
        /* The guest has let go of it: it is out of the bus already. */
        void (*ejected)(struct pci_device *pci);
};

struct pci_bar {
        uint32_t size; /* a power of two from 4 KiB up; 0: there is none */
        const struct bus_ops *ops;
        void *owner;
        struct bus_range range; /* where it answers, while it is mapped */
        bool mapped;
};

struct pci_device {
        const struct pci_device_ops *ops;
        struct machine *machine;
        unsigned slot;
        uint8_t config[PCI_CONFIG_SIZE];
        uint8_t writable[PCI_CONFIG_SIZE]; /* the bits that the guest may change */
        struct pci_bar bars[PCI_BARS];
        unsigned capabilities_end; /* where the next one goes */
        uint8_t last_capability;
        struct irq_line intx, intx_pic; /* INTA#: by IOAPIC, and by PIC */
        bool intx_wanted;
        struct pci_msix *msix; /* NULL: it has none */
        int boot_order;        /* as in vmm.h */
        bool leaving;          /* the guest was asked to let go of it */
};

struct pci_identity {
        uint16_t vendor, device, subsystem_vendor, subsystem;
        uint32_t class_code; /* class, subclass, interface */
        uint8_t revision;
        bool interrupt; /* it has INTA# */
};

/* A configuration space without BARs and capabilities. */
void pci_device_init(struct pci_device *pci, struct machine *machine,
                     const struct pci_device_ops *ops, const struct pci_identity *identity);
void pci_add_bar(struct pci_device *pci, unsigned bar, uint32_t size, const struct bus_ops *ops,
                 void *owner);
/* @body follows the two bytes of its head. Returns where it lies. */
unsigned pci_add_capability(struct pci_device *pci, uint8_t id, const void *body, unsigned size);

static inline uint16_t pci_get16(const struct pci_device *pci, unsigned offset)
{
        le16 le;

        memcpy(&le, pci->config + offset, sizeof(le));
        return le16_get(le);
}
static inline uint32_t pci_get32(const struct pci_device *pci, unsigned offset)
{
        le32 le;

        memcpy(&le, pci->config + offset, sizeof(le));
        return le32_get(le);
}
static inline void pci_put16(uint8_t *to, uint16_t value)
{
        const le16 le = le16_make(value);

        memcpy(to, &le, sizeof(le));
}
static inline void pci_put32(uint8_t *to, uint32_t value)
{
        const le32 le = le32_make(value);

        memcpy(to, &le, sizeof(le));
}

/* Into the first free slot; and out of it. @hotplugged: the guest is told.
 *
 * -ENOSPC  all are used */
int pci_insert(struct pci_device *pci, bool hotplugged, struct error *err);
void pci_remove(struct pci_device *pci);
/* Ask the guest to let go of it: ejected() is called when it has, or at a reset. */
void pci_ask_eject(struct pci_device *pci);

/* As after a reset: BARs at 0, nothing decoded, no interrupt. */
void pci_device_reset(struct pci_device *pci);
void pci_device_save(const struct pci_device *pci, struct state_writer *w);
int pci_device_restore(struct pci_device *pci, struct state_reader *r, struct error *err);

bool pci_may_access_memory(const struct pci_device *pci); /* the guest made it a bus master */
/* INTA#; it has no effect while the guest has switched it off, or MSI-X on. */
void pci_intx_set(struct pci_device *pci, bool high);

/* ---- of the machine's bus ---- */

uint32_t pci_slot_used_mask(const struct machine *machine);
/* Where there is no firmware: addresses for all BARs, the same each time. Memory decoding stays off. */
void pci_assign_bars(struct machine *machine);
/* Slots of the devices to boot from, in the order in which that is tried. */
unsigned pci_boot_slots(const struct machine *machine, uint8_t *slots, unsigned max);
/* INTA# of a slot: by the IOAPIC, and by the PIC. The ACPI tables say the same. */
unsigned pci_intx_gsi(unsigned slot);
unsigned pci_intx_pic_irq(unsigned slot);

/* ---- MSI-X (pci_msix.c) ----
 *
 * A vector is live while MSI-X is on and neither it nor the function is masked: then the eventfds of its
 * sources are KVM's irqfds. While it is not, what they signal is collected in the vector's pending bit,
 * and sent when it goes live. */

#define PCI_MSIX_VECTORS_MAX 128u
#define PCI_MSIX_NONE        0xffffu
#define PCI_MSIX_BAR_SIZE    4096u

/* What may interrupt by a vector: an eventfd, non-blocking. */
struct pci_source {
        struct list link;
        struct pci_device *pci;
        int fd;
        uint16_t vector; /* PCI_MSIX_NONE: none */
        bool attached;
};

/* A table of @n_vectors and its pending bits in @bar. */
int pci_msix_new(struct pci_device *pci, unsigned bar, unsigned n_vectors, struct error *err);
void pci_msix_free(struct pci_device *pci);
bool pci_msix_enabled(const struct pci_device *pci);
/* @vector is as the guest wrote it; what there is not becomes PCI_MSIX_NONE. Returns what it became. */
uint16_t pci_msix_check_vector(const struct pci_device *pci, uint16_t vector);

void pci_source_init(struct pci_source *source, struct pci_device *pci, int fd);
void pci_source_set_vector(struct pci_source *source, uint16_t vector);
/* Take away what it has signalled, and whether there was something. While MSI-X is on, of one that is no
 * irqfd at the moment, it is sent or noted. */
bool pci_source_collect(struct pci_source *source);
/* Interrupt by a vector without an eventfd. */
void pci_msix_notify(struct pci_device *pci, uint16_t vector);

/* For pci.c: after a write to the capability; reset; saved state. */
void pci_msix_config_written(struct pci_device *pci, unsigned offset, unsigned size);
void pci_msix_reset(struct pci_device *pci);
void pci_msix_save(const struct pci_device *pci, struct state_writer *w);
int pci_msix_restore(struct pci_device *pci, struct state_reader *r, struct error *err);
