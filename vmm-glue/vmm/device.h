/* device.h - what all devices of a machine have in common.
 *
 * A device embeds a struct device and is one file. Those that every machine has stand in a static
 * table (machine.c), each with a function that makes it; disks, networks and what else a
 * configuration names is made from that.
 *
 * Threads    everything in device_ops, and every access that a bus hands on, happens under the
 *            machine's lock (machine.h): by a vCPU's thread, or by the loop's.
 * Errors     restore() 0 or -errno with a sentence; the others do not fail.
 * Ownership  a machine owns its devices and frees them in reverse order.
 */
#pragma once
#include "common/list.h"
#include "vmm-glue/vmm/state.h"

struct machine;
struct device;

struct device_ops {
        uint32_t version; /* of what save() writes */
        /* As the machine's reset line: the state that it was made with. Guest memory is not touched
         * any more when it returns. */
        void (*reset)(struct device *device);
        /* The vCPUs rest. When pause() returns guest memory is not touched, and what save() writes is
         * all there is to know; resume() goes on. May be NULL. */
        void (*pause)(struct device *device);
        void (*resume)(struct device *device);
        /* The memory's log (memory.h) has begun, or is about to end: of those whose work another process
         * does. May be NULL. */
        int (*log)(struct device *device, bool on, struct error *err);
        void (*save)(struct device *device, struct state_writer *w);
        /* Into a device that was just made and never ran. Nothing that the state says is believed. */
        int (*restore)(struct device *device, struct state_reader *r, struct error *err);
        void (*free)(struct device *device);
};

struct device {
        const struct device_ops *ops;
        struct machine *machine;
        struct list link;
        char id[STATE_ID_MAX]; /* "serial", "disk0": unique, and the same in the next machine */
};
