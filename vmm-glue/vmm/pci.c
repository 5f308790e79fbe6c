/* pci.c - the PCI bus and its host bridge: configuration space by ports and by ECAM, BARs, INTA#. */
#include "vmm-glue/vmm/pci.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/vmm/acpi_pm.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/pci_internal.h"

/* "PCIe host bridge" of Red Hat: with one that it knows, firmware would look for its registers. */
#define BRIDGE_VENDOR 0x1b36u
#define BRIDGE_DEVICE 0x0008u
#define BRIDGE_CLASS  0x060000u

#define ADDRESS_ENABLED  UINT32_C(0x80000000)
#define ADDRESS_WRITABLE UINT32_C(0x80fffffc)

#define COMMAND_WRITABLE (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)

/* ---- BARs ---- */

static size_t bar_offset(unsigned bar)
{
        return PCI_BASE_ADDRESS_0 + (size_t)4 * bar;
}

static uint64_t bar_address(const struct pci_device *pci, unsigned bar)
{
        return pci_get32(pci, (unsigned)bar_offset(bar)) & PCI_BASE_ADDRESS_MEM_MASK & UINT32_MAX;
}

static bool bar_answers(const struct pci_device *pci, unsigned bar)
{
        uint64_t address = bar_address(pci, bar);
        uint32_t size = pci->bars[bar].size;

        return size > 0 && (pci_get16(pci, PCI_COMMAND) & PCI_COMMAND_MEMORY) &&
               address >= LAYOUT_PCI32 && address <= LAYOUT_PCI32_END - size;
}

static void unmap_bar(struct pci_device *pci, unsigned bar)
{
        struct pci_bar *b = &pci->bars[bar];

        if (!b->mapped)
                return;
        pci->ops->bar_mapped(pci, bar, false);
        bus_remove(&pci->machine->addresses, &b->range);
        b->mapped = false;
}

static void map_bar(struct pci_device *pci, unsigned bar)
{
        struct pci_bar *b = &pci->bars[bar];

        if (b->mapped || !bar_answers(pci, bar))
                return;
        b->range = (struct bus_range){bar_address(pci, bar), b->size, b->ops, b->owner};
        /* Where it lies on another one, that one goes on answering. */
        if (bus_add(&pci->machine->addresses, &b->range, NULL) < 0)
                return;
        b->mapped = true;
        pci->ops->bar_mapped(pci, bar, true);
}

/* What the configuration space says of @changed holds from now on. What it leaves may have hidden a
 * BAR of any device. */
static void update_bars(struct pci_device *changed)
{
        struct pci_bus *bus = changed->machine->pci;

        for (unsigned i = 0; i < PCI_BARS; i++) {
                const struct pci_bar *b = &changed->bars[i];

                if (b->mapped &&
                    (!bar_answers(changed, i) || b->range.start != bar_address(changed, i)))
                        unmap_bar(changed, i);
        }
        for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
                for (unsigned i = 0; bus->slots[slot] && i < PCI_BARS; i++)
                        map_bar(bus->slots[slot], i);
}

/* ---- INTA# ---- */

unsigned pci_intx_gsi(unsigned slot)
{
        return GSI_PCI_FIRST + slot % GSI_PCI_COUNT;
}

unsigned pci_intx_pic_irq(unsigned slot)
{
        return slot % 2 ? IRQ_PCI_PIC_B : IRQ_PCI_PIC_A;
}

static void update_intx(struct pci_device *pci)
{
        bool high = pci->intx_wanted && !pci_msix_enabled(pci) &&
                    !(pci_get16(pci, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);

        pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
        if (pci->intx_wanted)
                pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
        irq_line_set(&pci->intx, high);
        irq_line_set(&pci->intx_pic, high);
}

void pci_intx_set(struct pci_device *pci, bool high)
{
        pci->intx_wanted = high;
        update_intx(pci);
}

bool pci_may_access_memory(const struct pci_device *pci)
{
        return pci_get16(pci, PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* ---- devices ---- */

void pci_device_init(struct pci_device *pci, struct machine *machine,
                     const struct pci_device_ops *ops, const struct pci_identity *identity)
{
        *pci = (struct pci_device){.ops = ops, .machine = machine, .capabilities_end = 0x40};
        pci->intx = pci->intx_pic = (struct irq_line){.machine = machine};
        pci_put16(pci->config + PCI_VENDOR_ID, identity->vendor);
        pci_put16(pci->config + PCI_DEVICE_ID, identity->device);
        pci_put32(pci->config + PCI_CLASS_REVISION, identity->class_code << 8 | identity->revision);
        pci_put16(pci->config + PCI_SUBSYSTEM_VENDOR_ID, identity->subsystem_vendor);
        pci_put16(pci->config + PCI_SUBSYSTEM_ID, identity->subsystem);
        pci_put16(pci->writable + PCI_COMMAND, COMMAND_WRITABLE);
        pci->writable[PCI_CACHE_LINE_SIZE] = pci->writable[PCI_LATENCY_TIMER] = 0xff;
        if (identity->interrupt) {
                pci->config[PCI_INTERRUPT_PIN] = 1;
                pci->writable[PCI_INTERRUPT_LINE] = 0xff;
        }
}

void pci_add_bar(struct pci_device *pci, unsigned bar, uint32_t size, const struct bus_ops *ops,
                 void *owner)
{
        assert(bar < PCI_BARS && pci->bars[bar].size == 0 && size >= 4096 &&
               (size & (size - 1)) == 0);
        pci->bars[bar] = (struct pci_bar){.size = size, .ops = ops, .owner = owner};
        pci_put32(pci->writable + bar_offset(bar), ~(size - 1));
}

unsigned pci_add_capability(struct pci_device *pci, uint8_t id, const void *body, unsigned size)
{
        unsigned at = pci->capabilities_end;

        assert(at + 2 + size <= PCI_CONFIG_SIZE);
        pci->config[at + PCI_CAP_LIST_ID] = id;
        memcpy(pci->config + at + 2, body, size);
        pci->config[pci->last_capability ? pci->last_capability + PCI_CAP_LIST_NEXT
                                         : PCI_CAPABILITY_LIST] = (uint8_t)at;
        pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
        pci->last_capability = (uint8_t)at;
        pci->capabilities_end = (at + 2 + size + 3) & ~3u;
        return at;
}

static void take_slot(struct pci_device *pci, unsigned slot)
{
        pci->machine->pci->slots[slot] = pci;
        pci->slot = slot;
        pci->intx.gsi = pci_intx_gsi(slot);
        pci->intx_pic.gsi = pci_intx_pic_irq(slot);
}

int pci_insert(struct pci_device *pci, bool hotplugged, struct error *err)
{
        struct pci_bus *bus = pci->machine->pci;
        unsigned slot = 1;

        while (slot < PCI_SLOTS && bus->slots[slot])
                slot++;
        if (slot == PCI_SLOTS)
                return error_set(err, -ENOSPC, "all %u PCI slots are used", PCI_SLOTS - 1);
        take_slot(pci, slot);
        pci_device_reset(pci);
        if (hotplugged)
                pci_hotplug_came(&bus->hotplug, slot);
        return 0;
}

void pci_remove(struct pci_device *pci)
{
        struct pci_bus *bus = pci->machine->pci;

        if (bus->slots[pci->slot] != pci)
                return;
        pci_device_reset(pci);
        bus->slots[pci->slot] = NULL;
        pci_hotplug_gone(&bus->hotplug, pci->slot);
}

void pci_ask_eject(struct pci_device *pci)
{
        pci->leaving = true;
        pci_hotplug_asked(&pci->machine->pci->hotplug, pci->slot);
}

void pci_device_reset(struct pci_device *pci)
{
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
                pci->config[i] &= (uint8_t)~pci->writable[i];
        if (pci->config[PCI_INTERRUPT_PIN])
                pci->config[PCI_INTERRUPT_LINE] = (uint8_t)pci_intx_pic_irq(pci->slot);
        pci_msix_reset(pci);
        pci_intx_set(pci, false);
        update_bars(pci);
}

/* ---- configuration space ---- */

static uint32_t ones(unsigned size)
{
        return size < 4 ? (UINT32_C(1) << 8 * size) - 1 : UINT32_MAX;
}

/* The device, where an access is one that a device answers: within one of its dwords. */
static struct pci_device *find(const struct pci_bus *bus, unsigned slot, unsigned function,
                               unsigned offset, unsigned size)
{
        if (function != 0 || offset >= PCI_CONFIG_SIZE || size > 4 || offset % 4 + size > 4)
                return NULL;
        return bus->slots[slot];
}

static uint32_t config_read(const struct pci_bus *bus, unsigned slot, unsigned function,
                            unsigned offset, unsigned size)
{
        struct pci_device *pci = find(bus, slot, function, offset, size);
        uint32_t value = 0;

        if (!pci)
                return ones(size);
        if (pci->ops->config_read)
                pci->ops->config_read(pci, offset, size);
        for (unsigned i = 0; i < size; i++)
                value |= (uint32_t)pci->config[offset + i] << 8 * i;
        return value;
}

static void config_write(const struct pci_bus *bus, unsigned slot, unsigned function,
                         unsigned offset, unsigned size, uint32_t value)
{
        struct pci_device *pci = find(bus, slot, function, offset, size);

        if (!pci)
                return;
        for (unsigned i = 0; i < size; i++) {
                uint8_t mask = pci->writable[offset + i];

                pci->config[offset + i] &= (uint8_t)~mask;
                pci->config[offset + i] |= (uint8_t)(value >> 8 * i) & mask;
        }
        pci_msix_config_written(pci, offset, size);
        update_intx(pci);
        if (offset < PCI_BASE_ADDRESS_5 + 4)
                update_bars(pci);
        if (pci->ops->config_written)
                pci->ops->config_written(pci, offset, size);
}

/* ---- ECAM ---- */

static uint64_t ecam_read(void *owner, uint64_t offset, unsigned size)
{
        if (size > 4)
                return UINT64_MAX;
        return config_read(owner, offset >> 15 & 31, offset >> 12 & 7, offset & 0xfff, size);
}

static void ecam_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        config_write(owner, offset >> 15 & 31, offset >> 12 & 7, offset & 0xfff, size,
                     (uint32_t)value);
}

static const struct bus_ops ecam_ops = {ecam_read, ecam_write};

/* ---- ports: PCI 3.0, section 3.2.2.3.2 ---- */

#define OFFSET_RESET (PORT_RESET - PORT_PCI_ADDRESS)
#define OFFSET_DATA  (PORT_PCI_DATA - PORT_PCI_ADDRESS)

/* Bus 0 is the only one. */
static bool address_is_ours(const struct pci_bus *bus)
{
        return (bus->address & ADDRESS_ENABLED) && (bus->address >> 16 & 0xff) == 0;
}

static uint64_t ports_read(void *owner, uint64_t offset, unsigned size)
{
        struct pci_bus *bus = owner;

        if (offset == 0 && size == 4)
                return bus->address;
        if (offset == OFFSET_RESET && size == 1)
                return acpi_pm_reset_read(bus->machine);
        if (offset < OFFSET_DATA || size > 4 || !address_is_ours(bus))
                return ones(size);
        return config_read(bus, bus->address >> 11 & 31, bus->address >> 8 & 7,
                           (bus->address & 0xfc) + (unsigned)(offset - OFFSET_DATA), size);
}

static void ports_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct pci_bus *bus = owner;

        if (offset == 0 && size == 4)
                bus->address = (uint32_t)value & ADDRESS_WRITABLE;
        else if (offset == OFFSET_RESET && size == 1)
                acpi_pm_reset_write(bus->machine, (uint8_t)value);
        else if (offset >= OFFSET_DATA && size <= 4 && address_is_ours(bus))
                config_write(bus, bus->address >> 11 & 31, bus->address >> 8 & 7,
                             (bus->address & 0xfc) + (unsigned)(offset - OFFSET_DATA), size,
                             (uint32_t)value);
}

static const struct bus_ops ports_ops = {ports_read, ports_write};

/* ---- saved state ----
 *
 * That the guest was asked to let go of something is not kept: who asked asks again. */

void pci_device_save(const struct pci_device *pci, struct state_writer *w)
{
        state_put8(w, (uint8_t)pci->slot);
        state_put(w, pci->config, sizeof(pci->config));
        state_put8(w, pci->intx_wanted);
        pci_msix_save(pci, w);
}

/* In a machine that was made anew devices may lie in other slots, where some had come and gone. */
static void move(struct pci_device *pci, unsigned slot)
{
        struct pci_bus *bus = pci->machine->pci;
        struct pci_device *other = bus->slots[slot];
        unsigned from = pci->slot;

        if (slot == from)
                return;
        bus->slots[from] = NULL;
        take_slot(pci, slot);
        if (other)
                take_slot(other, from);
}

static bool same_device(const struct pci_device *pci, const uint8_t *config)
{
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
                if (i != PCI_STATUS && ((pci->config[i] ^ config[i]) & ~pci->writable[i]))
                        return false;
        return true;
}

int pci_device_restore(struct pci_device *pci, struct state_reader *r, struct error *err)
{
        uint8_t config[PCI_CONFIG_SIZE];
        unsigned slot = state_get8(r);
        bool wanted;
        int ret;

        state_get(r, config, sizeof(config));
        wanted = state_get8(r);
        if (slot >= PCI_SLOTS || (slot == 0) != (pci == &pci->machine->pci->bridge))
                return error_set(err, -EINVAL, "there is no PCI slot %u for a device", slot);
        if (!same_device(pci, config))
                return error_set(err, -EINVAL, "the PCI device of slot %u was another one", slot);
        move(pci, slot);
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
                pci->config[i] &= (uint8_t)~pci->writable[i];
                pci->config[i] |= config[i] & pci->writable[i];
        }
        ret = pci_msix_restore(pci, r, err);
        if (ret < 0)
                return ret;
        pci_intx_set(pci, wanted);
        update_bars(pci);
        return 0;
}

/* ---- the bus as a device of the machine ---- */

static struct pci_bus *bus_of(struct device *device)
{
        return container_of(device, struct pci_bus, device);
}

static void bus_reset(struct device *device)
{
        struct pci_bus *bus = bus_of(device);

        bus->address = 0;
        pci_device_reset(&bus->bridge);
        pci_hotplug_reset(&bus->hotplug);
}

static void bus_save(struct device *device, struct state_writer *w)
{
        struct pci_bus *bus = bus_of(device);

        state_put32(w, bus->address);
        state_put32(w, bus->hotplug.up);
        pci_device_save(&bus->bridge, w);
}

static int bus_restore(struct device *device, struct state_reader *r, struct error *err)
{
        struct pci_bus *bus = bus_of(device);

        bus->address = state_get32(r) & ADDRESS_WRITABLE;
        bus->hotplug.up = state_get32(r) & ~UINT32_C(1);
        return pci_device_restore(&bus->bridge, r, err);
}

static void bus_free(struct device *device)
{
        struct pci_bus *bus = bus_of(device);

        bus_remove(&bus->machine->ports, &bus->ports);
        bus_remove(&bus->machine->addresses, &bus->ecam);
        pci_hotplug_fini(&bus->hotplug);
        bus->machine->pci = NULL;
        free(bus);
}

static const struct device_ops bus_device_ops = {
    .version = 1,
    .reset = bus_reset,
    .save = bus_save,
    .restore = bus_restore,
    .free = bus_free,
};

static const struct pci_device_ops bridge_ops = {0};

int pci_create(struct machine *machine, struct error *err)
{
        static const struct pci_identity identity = {
            .vendor = BRIDGE_VENDOR, .device = BRIDGE_DEVICE, .class_code = BRIDGE_CLASS};
        struct pci_bus *bus = calloc(1, sizeof(*bus));
        int r;

        if (!bus)
                return error_set(err, -ENOMEM, "no memory for the PCI bus");
        bus->device = (struct device){.ops = &bus_device_ops, .machine = machine, .id = "pci"};
        bus->machine = machine;
        bus->ports = (struct bus_range){PORT_PCI_ADDRESS, 8, &ports_ops, bus};
        bus->ecam = (struct bus_range){LAYOUT_ECAM, LAYOUT_ECAM_SIZE, &ecam_ops, bus};
        bus->hotplug.machine = machine;
        machine->pci = bus;
        pci_device_init(&bus->bridge, machine, &bridge_ops, &identity);
        take_slot(&bus->bridge, 0);
        r = bus_add(&machine->ports, &bus->ports, err);
        if (r == 0)
                r = bus_add(&machine->addresses, &bus->ecam, err);
        if (r == 0)
                r = pci_hotplug_init(&bus->hotplug, err);
        if (r < 0) {
                bus_free(&bus->device);
                return r;
        }
        machine_add_device(machine, &bus->device);
        return 0;
}

/* ---- for the rest of the machine ---- */

uint32_t pci_slot_used_mask(const struct machine *machine)
{
        uint32_t mask = 0;

        for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
                if (machine->pci->slots[slot])
                        mask |= UINT32_C(1) << slot;
        return mask;
}

void pci_assign_bars(struct machine *machine)
{
        uint64_t at = LAYOUT_PCI32;

        for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
                struct pci_device *pci = machine->pci->slots[slot];

                for (unsigned i = 0; pci && i < PCI_BARS; i++) {
                        uint64_t size = pci->bars[i].size;

                        if (size == 0)
                                continue;
                        at = (at + size - 1) & ~(size - 1);
                        if (at + size > LAYOUT_PCI32_END)
                                return; /* the guest finds this one without an address */
                        pci_put32(pci->config + bar_offset(i), (uint32_t)at);
                        at += size;
                }
                if (pci)
                        update_bars(pci);
        }
}

unsigned pci_boot_slots(const struct machine *machine, uint8_t *slots, unsigned max)
{
        unsigned n = 0;

        for (unsigned slot = 0; slot < PCI_SLOTS && n < max; slot++) {
                const struct pci_device *pci = machine->pci->slots[slot];
                unsigned at = n;

                if (!pci || pci->boot_order <= 0)
                        continue;
                for (; at > 0 && machine->pci->slots[slots[at - 1]]->boot_order > pci->boot_order;
                     at--)
                        slots[at] = slots[at - 1];
                slots[at] = (uint8_t)slot;
                n++;
        }
        return n;
}
