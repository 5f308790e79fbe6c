/* machine.h - what the files of the VMM share: the machine, its lock, and what devices ask of it.
 *
 * Locks      one, machine_lock(): held by a vCPU's thread while it handles an exit, and by the loop's
 *            thread in each callback. Data does not pass under it: disks are processed by the pool's
 *            server, kicks and signals are eventfds that KVM knows.
 * Threads    the loop's (the process's first), and one a vCPU.
 * Errors     0 or -errno with a sentence.
 * Ownership  a machine owns what it points to.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "common/loop.h"
#include "vmm-glue/vmm/bus.h"
#include "vmm-glue/vmm/device.h"
#include "vmm-glue/vmm/irq.h"
#include "vmm-glue/vmm/layout.h"
#include "vmm-glue/vmm/memory.h"
#include "vmm-glue/vmm/run.h"
#include "vmm-glue/vmm/vmm.h"

struct memory_copy;
struct pci_bus;
struct chips_state;
struct vcpu;
struct fw_cfg;
struct virtio_device;

struct machine {
        int kvm, vm; /* -1 in tests without KVM: interrupts and eventfds go nowhere then */
        const struct vmm_config *config; /* the caller's, as long as the machine lives */
        const struct vmm_events *events;
        void *events_arg;
        struct loop *loop;
        pthread_mutex_t lock;

        struct guest_memory memory;
        struct memory_copy *copy; /* of memory into a file, under way; NULL: none */
        struct bus ports, addresses;
        struct irqs irqs;
        struct list devices; /* of struct device, in the order in which they were made */
        struct list disks, disks_removed; /* vhost_blk.c's; zeroed until there is one */
        struct list nics;                 /* virtio_net.c's; the same */
        struct pci_bus *pci;
        struct fw_cfg *fw_cfg;
        struct virtio_device *balloon, *mem; /* memory_size.h; NULL: there is none */

        struct vcpu *vcpus;
        unsigned n_vcpus;
        struct chips_state *new_chips; /* KVM's own devices, as they were made */
        struct run run;
        bool preloaded;    /* boot_preload()'s: until the first reset */
        uint64_t acpi_gpa; /* of the tables; 0: not placed yet */
        uint64_t rsdp_gpa;
};

void machine_lock(struct machine *machine);
void machine_unlock(struct machine *machine);

/* Devices come to be known here, once they are complete; their ops are called from then on. */
void machine_add_device(struct machine *machine, struct device *device);
/* Hot unplug: forgotten and freed. */
void machine_remove_device(struct machine *machine, struct device *device);

/* All devices, KVM's chips and the vCPUs as they were made, and what is booted loaded anew. With the
 * vCPUs at rest and without the lock. */
int machine_reset(struct machine *machine, struct error *err);

/* Of a machine at rest; and into one that was just made and never ran, of the same shape. With the lock
 * held. -EINVAL: the state is damaged, or another machine's. */
int machine_save(struct machine *machine, struct state_writer *w, struct error *err);
int machine_restore(struct machine *machine, const void *data, size_t size, struct error *err);

/* ---- what a device asks for; it happens on the loop's thread, soon ---- */

/* Reset as by the button: memory stays, firmware or kernel is loaded anew, all begins. */
void machine_ask_reset(struct machine *machine);
/* The guest has switched itself off (S5). */
void machine_ask_power_off(struct machine *machine);
/* The guest's kernel says that it has come to its end. */
void machine_guest_panicked(struct machine *machine);
/* Something that this machine cannot go on with: it is ended, and @sentence told. */
void machine_fail(struct machine *machine, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Register @fd: a write of @size bytes (0: of any) to @address signals it, in the guest, without an
 * exit to us. @value: only where the write's value is *value (NULL: any). */
int machine_ioeventfd(struct machine *machine, bool port, uint64_t address, unsigned size,
                      const uint64_t *value, int fd, bool remove, struct error *err);

/* The power button (acpi_pm.c), and a general purpose event. */
void acpi_pm_power_button(struct machine *machine);
void acpi_pm_raise_gpe(struct machine *machine, unsigned bit);

/* ---- devices that every machine has: each made by its file ---- */
int serial_create(struct machine *machine, struct error *err);
int rtc_create(struct machine *machine, struct error *err);
int keyboard_create(struct machine *machine, struct error *err); /* 0x64's reset, 0x61 */
int fw_cfg_create(struct machine *machine, struct error *err);
int acpi_pm_create(struct machine *machine, struct error *err);
int pvpanic_create(struct machine *machine, struct error *err);
int pci_create(struct machine *machine, struct error *err);

/* ---- booting: fill memory, and say where vCPU 0 begins. Called at start and after each reset ---- */

struct vcpu_start {
        enum {
                VCPU_START_REAL, /* as KVM made it: at 0xfffffff0 */
                VCPU_START_LONG, /* 64 bits, paging by BOOT_PAGE_TABLE, rip, rsi */
                VCPU_START_PVH,  /* 32 bits, no paging, rip, rbx */
        } mode;
        uint64_t rip, rsi, rbx;
};
int boot_linux(struct machine *machine, struct vcpu_start *ret_start, struct error *err);
/* Its files alone. */
int boot_linux_files(struct machine *machine, struct error *err);
int boot_pvh(struct machine *machine, struct vcpu_start *ret_start, struct error *err);
int boot_firmware(struct machine *machine, struct vcpu_start *ret_start, struct error *err);

/* ---- tables (acpi_tables.c) ---- */

/* Write ACPI tables for this machine at the end of low RAM; sets acpi_gpa, and with @rsdp_gpa not 0
 * puts an RSDP there. ret_rsdp: 36 bytes, for fw_cfg. */
#define ACPI_RSDP_SIZE 36u
int acpi_tables_write(struct machine *machine, uint64_t rsdp_gpa, uint8_t *ret_rsdp,
                      struct error *err);

/* The memory map, as the kernel and the firmware are to know it. Types are e820's. */
struct e820_entry {
        uint64_t start, size;
        uint32_t type;
};
#define E820_RAM      1u
#define E820_RESERVED 2u
#define E820_ENTRIES  16u
unsigned memory_map(const struct machine *machine, struct e820_entry *entries);
