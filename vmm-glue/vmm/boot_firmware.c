/* boot_firmware.c - begin with a firmware image, as a PC does: mapped up to 4 GiB, and its end once more
 * below 1 MiB, where it is RAM: firmware that shadows itself writes there. So a reset copies it anew.
 *
 * What the firmware is told it reads by fw_cfg. The ACPI tables are ours, and ready: all that it has to
 * do is to place the RSDP where kernels look for it.
 *
 * Source     SeaBIOS, src/fw/paravirt.c and src/fw/romfile_loader.h (table-loader); src/boot.c
 *            (bootorder).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/boot.h"
#include "vmm-glue/vmm/fw_cfg.h"
#include "vmm-glue/vmm/pci.h"
#include "vmm-glue/vmm/smbios.h"

#define FIRMWARE_END  GIB(4)
#define FIRMWARE_UNIT 4096u
#define BOOT_SLOT_MAX 48u /* bytes of one line of bootorder */

#define FILE_RSDP "etc/acpi/rsdp"

struct loader_allocate {
        le32 command;
        char file[FW_CFG_NAME_MAX + 1];
        le32 align;
        uint8_t zone, zero[63];
};
static_assert(sizeof(struct loader_allocate) == 128, "table-loader");
#define LOADER_ALLOCATE 1u
#define LOADER_LOW      2u /* the zone where an RSDP is looked for */
#define RSDP_ALIGN      16u

struct e820_file_entry {
        le64 start, size;
        le32 type;
};
static_assert(sizeof(struct e820_file_entry) == 20, "etc/e820");

/* The firmware's region; NULL: there is none yet. */
static struct guest_region *find_firmware(struct machine *machine)
{
        for (unsigned i = 0; i < machine->memory.n; i++) {
                struct guest_region *region = &machine->memory.regions[i];

                if (region->gpa + region->size == FIRMWARE_END && !region->shared)
                        return region;
        }
        return NULL;
}

/* Once: what the file becomes meanwhile does not matter to a machine that runs. */
static int load(struct machine *machine, struct guest_region **ret_region, struct error *err)
{
        const int fd = machine->config->firmware;
        struct guest_region *region;
        uint64_t size;
        int r = boot_file_size(fd, "firmware", &size, err);

        if (r < 0)
                return r;
        if (size == 0 || size > LAYOUT_FIRMWARE_MAX || size % FIRMWARE_UNIT != 0)
                return error_set(err, -EINVAL,
                                 "a firmware image is of 4 KiB to 16 MiB, in steps of 4 KiB, and "
                                 "this one of %llu bytes",
                                 (unsigned long long)size);
        r = memory_add(&machine->memory, FIRMWARE_END - size, size, false, true, &region, err);
        if (r < 0)
                return r;
        r = boot_read(fd, 0, region->host, size, "firmware", err);
        if (r == 0)
                *ret_region = region;
        return r;
}

static void copy_low(struct machine *machine, const struct guest_region *region)
{
        uint64_t size = LAYOUT_FIRMWARE_LOW;
        void *low;

        assert(region);
        if (size > region->size)
                size = region->size;
        low = guest_range(&machine->memory, LAYOUT_BIOS_END - size, size);
        assert(low);
        memcpy(low, region->host + (region->size - size), size);
}

static int tell_memory(struct machine *machine, struct error *err)
{
        struct e820_entry map[E820_ENTRIES];
        struct e820_file_entry file[E820_ENTRIES];
        unsigned n = memory_map(machine, map);

        for (unsigned i = 0; i < n; i++)
                file[i] = (struct e820_file_entry){le64_make(map[i].start), le64_make(map[i].size),
                                                   le32_make(map[i].type)};
        return fw_cfg_add(machine, "etc/e820", file, n * sizeof(file[0]), err);
}

static int tell_tables(struct machine *machine, struct error *err)
{
        const struct loader_allocate allocate = {.command = le32_make(LOADER_ALLOCATE),
                                                 .file = FILE_RSDP,
                                                 .align = le32_make(RSDP_ALIGN),
                                                 .zone = LOADER_LOW};
        uint8_t rsdp[ACPI_RSDP_SIZE];
        int r = acpi_tables_write(machine, 0, rsdp, err);

        if (r == 0)
                r = fw_cfg_add(machine, FILE_RSDP, rsdp, sizeof(rsdp), err);
        if (r == 0)
                r = fw_cfg_add(machine, "etc/table-loader", &allocate, sizeof(allocate), err);
        return r;
}

/* A line for each device, as Open Firmware names it; the text ends with a NUL. */
static int tell_boot_order(struct machine *machine, struct error *err)
{
        uint8_t slots[PCI_SLOTS];
        unsigned n = pci_boot_slots(machine, slots, PCI_SLOTS);
        char text[PCI_SLOTS * BOOT_SLOT_MAX] = "";
        size_t used = 0;

        for (unsigned i = 0; i < n; i++)
                used +=
                    (size_t)snprintf(text + used, sizeof(text) - used,
                                     "%s/pci@i0cf8/scsi@%x/disk@0,0", i > 0 ? "\n" : "", slots[i]);
        return fw_cfg_add(machine, "bootorder", text, used + 1, err);
}

int boot_firmware(struct machine *machine, struct vcpu_start *ret_start, struct error *err)
{
        struct guest_region *region = find_firmware(machine);
        int r = 0;

        if (!region)
                r = load(machine, &region, err);
        if (r == 0)
                r = tell_memory(machine, err);
        if (r == 0)
                r = tell_tables(machine, err);
        if (r == 0)
                r = tell_boot_order(machine, err);
        if (r == 0)
                r = smbios_tell(machine, err);
        if (r < 0)
                return r;
        copy_low(machine, region);
        *ret_start = (struct vcpu_start){.mode = VCPU_START_REAL};
        return 0;
}
