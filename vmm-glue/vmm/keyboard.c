/* keyboard.c - of a keyboard controller only what old kernels restart a computer with: 0xfe to its
 * command port. There is no keyboard, and ACPI says so (FADT, IAPC_BOOT_ARCH).
 *
 * Port 0x61 is KVM's (KVM_PIT_SPEAKER_DUMMY): its bits are its PIT's.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm-glue/vmm/machine.h"

#define COMMAND_RESET 0xfeu

struct keyboard {
        struct device device;
        struct bus_range range;
};

/* Status: no byte waits on either side, so that nobody who wants to command waits for us. */
static uint64_t keyboard_read(void *owner, uint64_t offset, unsigned size)
{
        return 0;
}

static void keyboard_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct keyboard *keyboard = owner;

        if (value == COMMAND_RESET)
                machine_ask_reset(keyboard->device.machine);
}

static const struct bus_ops keyboard_ports = {keyboard_read, keyboard_write};

static void keyboard_reset(struct device *device)
{
}

static void keyboard_save(struct device *device, struct state_writer *w)
{
}

static int keyboard_restore(struct device *device, struct state_reader *r, struct error *err)
{
        return 0;
}

static void keyboard_free(struct device *device)
{
        struct keyboard *keyboard = container_of(device, struct keyboard, device);

        bus_remove(&device->machine->ports, &keyboard->range);
        free(keyboard);
}

static const struct device_ops keyboard_ops = {
    .version = 1,
    .reset = keyboard_reset,
    .save = keyboard_save,
    .restore = keyboard_restore,
    .free = keyboard_free,
};

int keyboard_create(struct machine *machine, struct error *err)
{
        struct keyboard *keyboard = calloc(1, sizeof(*keyboard));
        int r;

        if (!keyboard)
                return error_set(err, -ENOMEM, "no memory for a device");
        keyboard->device = (struct device){&keyboard_ops, machine, .id = "keyboard"};
        keyboard->range = (struct bus_range){PORT_KEYBOARD, 1, &keyboard_ports, keyboard};
        r = bus_add(&machine->ports, &keyboard->range, err);
        if (r < 0) {
                free(keyboard);
                return r;
        }
        machine_add_device(machine, &keyboard->device);
        return 0;
}
