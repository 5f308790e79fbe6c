/* memory_map.c - the memory map: what of the guest's memory is whose. Memory that comes later, by
 * virtio-mem, is not in it: its driver asks for it. */
#include <assert.h>

#include "vmm-glue/vmm/machine.h"

unsigned memory_map(const struct machine *machine, struct e820_entry *entries)
{
        const uint64_t low_end = machine->memory.low_size - LAYOUT_ACPI_SIZE;
        const struct e820_entry all[] = {
            {0, LAYOUT_EBDA, E820_RAM},
            {LAYOUT_EBDA, KIB(640) - LAYOUT_EBDA, E820_RESERVED},
            {LAYOUT_BIOS_AREA, LAYOUT_BIOS_END - LAYOUT_BIOS_AREA, E820_RESERVED},
            {MIB(1), low_end - MIB(1), E820_RAM},
            {low_end, LAYOUT_ACPI_SIZE, E820_RESERVED},
            {LAYOUT_ECAM, LAYOUT_ECAM_SIZE, E820_RESERVED},
            {LAYOUT_IDENTITY_MAP, KIB(16), E820_RESERVED}, /* and the TSS: KVM's own */
            {LAYOUT_RAM_HIGH, machine->memory.high_size, E820_RAM},
        };
        unsigned n = 0;

        static_assert(sizeof(all) / sizeof(all[0]) <= E820_ENTRIES, "machine.h");
        for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                if (all[i].size > 0)
                        entries[n++] = all[i];
        return n;
}
