/* memory_size.c - how much memory the guest has. */
#include "vmm-glue/vmm/memory_size.h"

#include <errno.h>

#include "vmm-glue/vmm/machine.h"

int machine_memory_set(struct machine *machine, uint64_t bytes, struct error *err)
{
        const struct vmm_config *config = machine->config;
        uint64_t more = bytes > config->memory ? bytes - config->memory : 0;
        uint64_t less = bytes < config->memory ? config->memory - bytes : 0;

        if (bytes % LAYOUT_RAM_UNIT != 0)
                return error_set(err, -EINVAL, "memory comes in units of %llu MiB",
                                 (unsigned long long)(LAYOUT_RAM_UNIT >> 20));
        if (bytes < LAYOUT_RAM_MIN)
                return error_set(err, -EINVAL, "a machine has at least %llu MiB of memory",
                                 (unsigned long long)(LAYOUT_RAM_MIN >> 20));
        if (more > 0 && (!machine->mem || bytes > config->memory_max))
                return error_set(err, -EINVAL,
                                 "the machine was started with room for %llu MiB of memory",
                                 (unsigned long long)(config->memory_max >> 20));
        if (less > 0 && !machine->balloon)
                return error_set(err, -EOPNOTSUPP,
                                 "the machine was started without a balloon, which "
                                 "it would take to give memory back");
        if (machine->mem)
                virtio_mem_want(machine->mem, more);
        if (machine->balloon)
                virtio_balloon_want(machine->balloon, less);
        return 0;
}

uint64_t machine_memory_size(const struct machine *machine)
{
        uint64_t plugged = machine->mem ? virtio_mem_size(machine->mem) : 0;
        uint64_t ballooned = machine->balloon ? virtio_balloon_size(machine->balloon) : 0;
        uint64_t all = machine->config->memory + plugged;

        return ballooned < all ? all - ballooned : 0;
}
