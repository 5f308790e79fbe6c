/* pci_hotplug.c - the registers by which slots come and go, as QEMU's (docs/specs/acpi_pci_hotplug.rst):
 * which slots have come, which are asked for, which the guest has let go of. The methods of the ACPI
 * tables read and write them, told to by GPE_PCI_HOTPLUG. */
#include <errno.h>

#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/pci_internal.h"

#define REGISTER_UP    0u
#define REGISTER_DOWN  4u
#define REGISTER_EJECT 8u
#define REGISTERS_SIZE 12u

static uint64_t hotplug_read(void *owner, uint64_t offset, unsigned size)
{
        struct pci_hotplug *hotplug = owner;
        uint32_t value;

        if (size != 4)
                return UINT64_MAX >> (64 - 8 * size);
        switch (offset) {
        case REGISTER_UP:
                value = hotplug->up;
                hotplug->up = 0;
                return value;
        case REGISTER_DOWN:
                value = hotplug->down;
                hotplug->down = 0;
                return value;
        case REGISTER_EJECT:
                return 0;
        }
        return UINT32_MAX;
}

static void eject(struct pci_device *pci)
{
        /* The guest lets go of what it was asked for: what else the machine is made of stays. */
        if (!pci || !pci->leaving)
                return;
        pci_remove(pci);
        pci->ops->ejected(pci);
}

static void hotplug_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct pci_hotplug *hotplug = owner;

        if (offset != REGISTER_EJECT || size != 4)
                return;
        for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
                if (value >> slot & 1)
                        eject(hotplug->machine->pci->slots[slot]);
}

static const struct bus_ops hotplug_ops = {hotplug_read, hotplug_write};

int pci_hotplug_init(struct pci_hotplug *hotplug, struct error *err)
{
        hotplug->range =
            (struct bus_range){PORT_PCI_HOTPLUG, REGISTERS_SIZE, &hotplug_ops, hotplug};
        return bus_add(&hotplug->machine->ports, &hotplug->range, err);
}

void pci_hotplug_fini(struct pci_hotplug *hotplug)
{
        bus_remove(&hotplug->machine->ports, &hotplug->range);
}

void pci_hotplug_came(struct pci_hotplug *hotplug, unsigned slot)
{
        hotplug->up |= UINT32_C(1) << slot;
        acpi_pm_raise_gpe(hotplug->machine, GPE_PCI_HOTPLUG);
}

void pci_hotplug_asked(struct pci_hotplug *hotplug, unsigned slot)
{
        hotplug->down |= UINT32_C(1) << slot;
        acpi_pm_raise_gpe(hotplug->machine, GPE_PCI_HOTPLUG);
}

void pci_hotplug_gone(struct pci_hotplug *hotplug, unsigned slot)
{
        hotplug->up &= ~(UINT32_C(1) << slot);
        hotplug->down &= ~(UINT32_C(1) << slot);
}

/* Who starts anew finds all that there is by looking; and has let go of what it was asked for. */
void pci_hotplug_reset(struct pci_hotplug *hotplug)
{
        hotplug->up = hotplug->down = 0;
        for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
                eject(hotplug->machine->pci->slots[slot]);
}
