/* acpi_dsdt.c - the code of the DSDT. */
#include "vmm-glue/vmm/acpi_dsdt.h"

#include <stdio.h>

#include "vmm-glue/vmm/acpi_pm.h"
#include "vmm-glue/vmm/aml.h"
#include "vmm-glue/vmm/machine.h"

#define PCI_PINS      4u
#define ANY_FUNCTION  0xffffu
#define NOTIFY_COME   1u /* look at the device */
#define NOTIFY_GO     3u /* it is asked for */
#define PVPANIC_HID   "QEMU0001"
#define PROCESSOR_HID "ACPI0007"

/* \_PIC says by which controllers interrupts come: 0 the PICs, 1 the IOAPIC. */
#define NAME_PIC_MODE "PICM"
#define NAME_BY_APIC  "PRTA"
#define NAME_BY_PIC   "PRTP"
/* The registers of pci_hotplug.c. */
#define NAME_UP    "PCIU"
#define NAME_DOWN  "PCID"
#define NAME_EJECT "PCIE"

static void name_slot(char name[5], unsigned slot)
{
        snprintf(name, 5, "S%03X", slot & 0xfff);
}

static void put_sleep(struct aml *aml)
{
        size_t package;

        aml_name(aml, "_S5");
        package = aml_open_package(aml, 4);
        aml_integer(aml, ACPI_PM_SLEEP_S5);
        aml_integer(aml, ACPI_PM_SLEEP_S5);
        aml_integer(aml, 0);
        aml_integer(aml, 0);
        aml_close(aml, package);
}

static void put_interrupt_model(struct aml *aml)
{
        size_t method;

        aml_name(aml, NAME_PIC_MODE);
        aml_integer(aml, 0);
        method = aml_open_method(aml, "_PIC", 1);
        aml_op(aml, AML_STORE);
        aml_op(aml, AML_ARG0);
        aml_path(aml, NAME_PIC_MODE);
        aml_close(aml, method);
}

static void put_processors(struct aml *aml, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                char name[5];
                size_t device;

                snprintf(name, sizeof(name), "C%03X", i & 0xfff);
                device = aml_open_device(aml, name);
                aml_name(aml, "_HID");
                aml_string(aml, PROCESSOR_HID);
                aml_name(aml, "_UID");
                aml_integer(aml, i);
                aml_close(aml, device);
        }
}

/* ---- PCI ---- */

static void put_bridge_resources(struct aml *aml)
{
        size_t resources;

        aml_name(aml, "_CRS");
        resources = aml_open_resources(aml);
        aml_window_buses(aml, 0, 0);
        aml_window_ports(aml, 0, PORT_PCI_ADDRESS - 1);
        aml_ports(aml, PORT_PCI_ADDRESS, PORT_PCI_DATA + 4 - PORT_PCI_ADDRESS);
        aml_window_ports(aml, PORT_PCI_DATA + 4, UINT16_MAX);
        aml_window_memory(aml, LAYOUT_PCI32, LAYOUT_PCI32_END - 1);
        aml_close_resources(aml, resources);
}

static void put_route(struct aml *aml, unsigned slot, unsigned pin, unsigned gsi)
{
        size_t package = aml_open_package(aml, 4);

        aml_integer(aml, slot << 16 | ANY_FUNCTION);
        aml_integer(aml, pin);
        aml_integer(aml, 0); /* no link device between: the number is a GSI */
        aml_integer(aml, gsi);
        aml_close(aml, package);
}

static void put_routes(struct aml *aml, const char *name, bool apic)
{
        size_t package;

        aml_name(aml, name);
        package = aml_open_package(aml, (PCI_SLOTS - 1) * PCI_PINS);
        for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
                for (unsigned pin = 0; pin < PCI_PINS; pin++) {
                        unsigned by_pic = (slot + pin) % 2 ? IRQ_PCI_PIC_B : IRQ_PCI_PIC_A;
                        unsigned by_apic = GSI_PCI_FIRST + (slot + pin) % GSI_PCI_COUNT;

                        put_route(aml, slot, pin, apic ? by_apic : by_pic);
                }
        aml_close(aml, package);
}

static void put_routing(struct aml *aml)
{
        size_t method, if_apic;

        put_routes(aml, NAME_BY_APIC, true);
        put_routes(aml, NAME_BY_PIC, false);
        method = aml_open_method(aml, "_PRT", 0);
        if_apic = aml_open_if(aml);
        aml_path(aml, NAME_PIC_MODE);
        aml_op(aml, AML_RETURN);
        aml_path(aml, NAME_BY_APIC);
        aml_close(aml, if_apic);
        aml_op(aml, AML_RETURN);
        aml_path(aml, NAME_BY_PIC);
        aml_close(aml, method);
}

static void put_slot(struct aml *aml, unsigned slot)
{
        char name[5];
        size_t device, method;

        name_slot(name, slot);
        device = aml_open_device(aml, name);
        aml_name(aml, "_ADR");
        aml_integer(aml, slot << 16);
        aml_name(aml, "_SUN");
        aml_integer(aml, slot);
        method = aml_open_method(aml, "_EJ0", 1);
        aml_op(aml, AML_STORE);
        aml_integer(aml, UINT32_C(1) << slot);
        aml_path(aml, NAME_EJECT);
        aml_close(aml, method);
        aml_close(aml, device);
}

static void put_notify(struct aml *aml, uint8_t local, unsigned slot, unsigned what)
{
        size_t if_set = aml_open_if(aml);
        char name[5];

        name_slot(name, slot);
        aml_op(aml, AML_AND);
        aml_op(aml, local);
        aml_integer(aml, UINT32_C(1) << slot);
        aml_op(aml, AML_NOWHERE);
        aml_op(aml, AML_NOTIFY);
        aml_path(aml, name);
        aml_integer(aml, what);
        aml_close(aml, if_set);
}

/* What the event's method calls: a read of the registers takes their bits. */
static void put_hotplug(struct aml *aml)
{
        static const char *const registers[] = {NAME_UP, NAME_DOWN, NAME_EJECT};
        size_t method;

        aml_port_registers(aml, "PCIH", PORT_PCI_HOTPLUG, registers, 3);
        for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
                put_slot(aml, slot);
        method = aml_open_method(aml, "PCNT", 0);
        aml_op(aml, AML_STORE);
        aml_path(aml, NAME_UP);
        aml_op(aml, AML_LOCAL0);
        aml_op(aml, AML_STORE);
        aml_path(aml, NAME_DOWN);
        aml_op(aml, AML_LOCAL1);
        for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
                put_notify(aml, AML_LOCAL0, slot, NOTIFY_COME);
                put_notify(aml, AML_LOCAL1, slot, NOTIFY_GO);
        }
        aml_close(aml, method);
}

/* A conventional bridge: one of PCI Express would be asked by _OSC who does hotplug. */
static void put_bridge(struct aml *aml)
{
        size_t device = aml_open_device(aml, "PCI0");

        aml_name(aml, "_HID");
        aml_eisa_id(aml, "PNP0A03");
        aml_name(aml, "_UID");
        aml_integer(aml, 0);
        put_bridge_resources(aml);
        put_routing(aml);
        put_hotplug(aml);
        aml_close(aml, device);
}

/* ---- the rest ---- */

/* Ports, and an interrupt where @irq is not 0. */
static void put_isa_resources(struct aml *aml, uint16_t port, uint8_t n_ports, unsigned irq)
{
        size_t resources;

        aml_name(aml, "_CRS");
        resources = aml_open_resources(aml);
        aml_ports(aml, port, n_ports);
        if (irq != 0)
                aml_irq(aml, irq);
        aml_close_resources(aml, resources);
}

static void put_serial(struct aml *aml)
{
        size_t device = aml_open_device(aml, "COM1");

        aml_name(aml, "_HID");
        aml_eisa_id(aml, "PNP0501");
        aml_name(aml, "_UID");
        aml_integer(aml, 1);
        put_isa_resources(aml, PORT_COM1, 8, GSI_COM1);
        aml_close(aml, device);
}

static void put_clock(struct aml *aml)
{
        size_t device = aml_open_device(aml, "RTC");

        aml_name(aml, "_HID");
        aml_eisa_id(aml, "PNP0B00");
        put_isa_resources(aml, PORT_RTC, 2, GSI_RTC);
        aml_close(aml, device);
}

static void put_pvpanic(struct aml *aml)
{
        size_t device = aml_open_device(aml, "PEVT");

        aml_name(aml, "_HID");
        aml_string(aml, PVPANIC_HID);
        put_isa_resources(aml, PORT_PVPANIC, 1, 0);
        aml_close(aml, device);
}

/* What is no device's, and must not be given to one: registers that only tables and firmware name, and
 * the configuration space in memory. */
static void put_board(struct aml *aml)
{
        size_t device = aml_open_device(aml, "BORD"), resources;

        aml_name(aml, "_HID");
        aml_eisa_id(aml, "PNP0C02");
        aml_name(aml, "_CRS");
        resources = aml_open_resources(aml);
        aml_ports(aml, PORT_FW_CFG, 12);
        aml_ports(aml, PORT_PM1_EVENT, 12);
        aml_ports(aml, PORT_GPE0, PORT_GPE0_SIZE);
        aml_ports(aml, PORT_PCI_HOTPLUG, 12);
        aml_fixed_memory(aml, LAYOUT_ECAM, LAYOUT_ECAM_SIZE);
        aml_close_resources(aml, resources);
        aml_close(aml, device);
}

static void put_events(struct aml *aml)
{
        size_t scope = aml_open_scope(aml, "\\_GPE"), method;
        char name[5];

        snprintf(name, sizeof(name), "_E%02X", GPE_PCI_HOTPLUG & 0xff);
        method = aml_open_method(aml, name, 0);
        aml_path(aml, "\\_SB.PCI0.PCNT");
        aml_close(aml, method);
        aml_close(aml, scope);
}

void acpi_dsdt_write(const struct machine *machine, struct aml *aml)
{
        size_t scope;

        put_sleep(aml);
        put_interrupt_model(aml);
        scope = aml_open_scope(aml, "\\_SB");
        put_processors(aml, machine->config->cpus);
        put_bridge(aml);
        put_serial(aml);
        put_clock(aml);
        put_pvpanic(aml);
        put_board(aml);
        aml_close(aml, scope);
        put_events(aml);
}
