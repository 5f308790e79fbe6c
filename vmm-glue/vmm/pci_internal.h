/* pci_internal.h - what the files of the PCI bus share.
 *
 * Threads    under the machine's lock.
 * Errors     none.
 * Ownership  the bus is a device of the machine, and frees itself.
 */
#pragma once
#include "vmm-glue/vmm/device.h"
#include "vmm-glue/vmm/pci.h"

/* pci_hotplug.c's registers. */
struct pci_hotplug {
        struct machine *machine;
        struct bus_range range;
        uint32_t up, down; /* slots that the guest has not yet heard of */
};

struct pci_bus {
        struct device device;
        struct machine *machine;
        struct pci_device *slots[PCI_SLOTS];
        struct pci_device bridge;
        struct bus_range ports, ecam;
        uint32_t address; /* PORT_PCI_ADDRESS */
        struct pci_hotplug hotplug;
};

int pci_hotplug_init(struct pci_hotplug *hotplug, struct error *err);
void pci_hotplug_fini(struct pci_hotplug *hotplug);
void pci_hotplug_came(struct pci_hotplug *hotplug, unsigned slot);
void pci_hotplug_asked(struct pci_hotplug *hotplug, unsigned slot);
void pci_hotplug_gone(struct pci_hotplug *hotplug, unsigned slot);
void pci_hotplug_reset(struct pci_hotplug *hotplug);
