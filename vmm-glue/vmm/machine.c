/* machine.c - the machine as its devices know it: the lock, who is there, reset. */
#include "vmm-glue/vmm/machine.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm-glue/vmm/boot.h"
#include "vmm-glue/vmm/vcpu.h"

void machine_lock(struct machine *machine)
{
        pthread_mutex_lock(&machine->lock);
}

void machine_unlock(struct machine *machine)
{
        pthread_mutex_unlock(&machine->lock);
}

void machine_add_device(struct machine *machine, struct device *device)
{
        assert(device->id[0] != '\0');
        device->machine = machine;
        list_append(&machine->devices, &device->link);
}

void machine_remove_device(struct machine *machine, struct device *device)
{
        assert(device->machine == machine);
        list_remove(&device->link);
        device->ops->free(device);
}

int machine_ioeventfd(struct machine *machine, bool port, uint64_t address, unsigned size,
                      const uint64_t *value, int fd, bool remove, struct error *err)
{
        struct kvm_ioeventfd request = {
            .datamatch = value ? *value : 0,
            .addr = address,
            .len = size,
            .fd = fd,
            .flags = (value ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0U) |
                     (port ? KVM_IOEVENTFD_FLAG_PIO : 0U) |
                     (remove ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0U),
        };

        if (machine->vm >= 0 && ioctl(machine->vm, KVM_IOEVENTFD, &request) < 0)
                return error_set(err, -errno, "KVM does not %s an eventfd for 0x%llx: %s",
                                 remove ? "give back" : "take", (unsigned long long)address,
                                 strerror(errno));
        return 0;
}

int machine_reset(struct machine *machine, struct error *err)
{
        struct vcpu_start start;
        int r;

        machine_lock(machine);
        list_for_each (it, &machine->devices) {
                struct device *device = container_of(it, struct device, link);

                device->ops->reset(device);
        }
        r = chips_reset(machine, err);
        if (r == 0)
                r = boot_load(machine, &start, err);
        machine->preloaded = false;
        if (r == 0)
                r = vcpus_reset(machine, &start, err);
        /* What was loaded is in many places. */
        memory_log_touched(&machine->memory);
        machine_unlock(machine);
        return r;
}
