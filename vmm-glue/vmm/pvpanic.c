/* pvpanic.c - the port by which a guest's kernel says that it has come to its end.
 *
 * Source     QEMU, docs/specs/pvpanic.rst: one byte; bit 0 "panicked", bit 1 "crash kernel loaded".
 *            A read says which of them are understood.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm-glue/vmm/machine.h"

#define PVPANIC_PANICKED     0x01u
#define PVPANIC_CRASH_LOADED 0x02u /* it goes on with another kernel, which will restart */

struct pvpanic {
        struct device device;
        struct bus_range range;
        bool told; /* once until the next reset is enough, however often the guest says so */
};

static uint64_t pvpanic_read(void *owner, uint64_t offset, unsigned size)
{
        return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

static void pvpanic_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct pvpanic *pvpanic = owner;

        if (pvpanic->told || !(value & (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)))
                return;
        pvpanic->told = true;
        machine_guest_panicked(pvpanic->device.machine);
}

static const struct bus_ops pvpanic_ports = {pvpanic_read, pvpanic_write};

static void pvpanic_reset(struct device *device)
{
        container_of(device, struct pvpanic, device)->told = false;
}

static void pvpanic_save(struct device *device, struct state_writer *w)
{
}

static int pvpanic_restore(struct device *device, struct state_reader *r, struct error *err)
{
        return 0;
}

static void pvpanic_free(struct device *device)
{
        struct pvpanic *pvpanic = container_of(device, struct pvpanic, device);

        bus_remove(&device->machine->ports, &pvpanic->range);
        free(pvpanic);
}

static const struct device_ops pvpanic_ops = {
    .version = 1,
    .reset = pvpanic_reset,
    .save = pvpanic_save,
    .restore = pvpanic_restore,
    .free = pvpanic_free,
};

int pvpanic_create(struct machine *machine, struct error *err)
{
        struct pvpanic *pvpanic = calloc(1, sizeof(*pvpanic));
        int r;

        if (!pvpanic)
                return error_set(err, -ENOMEM, "no memory for a device");
        pvpanic->device = (struct device){&pvpanic_ops, machine, .id = "pvpanic"};
        pvpanic->range = (struct bus_range){PORT_PVPANIC, 1, &pvpanic_ports, pvpanic};
        r = bus_add(&machine->ports, &pvpanic->range, err);
        if (r < 0) {
                free(pvpanic);
                return r;
        }
        machine_add_device(machine, &pvpanic->device);
        return 0;
}
