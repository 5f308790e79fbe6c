/* boot.c - which way to boot, and what goes into guest memory either way. */
#include "vmm-glue/vmm/boot.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "vmm-glue/vmm/pci.h"
#include "vmm-glue/vmm/smbios.h"

int boot_read_guest(struct machine *machine, int fd, uint64_t offset, uint64_t gpa, uint64_t size,
                    const char *name, struct error *err)
{
        void *at = guest_range(&machine->memory, gpa, size);

        if (!at)
                return error_set(err, -EINVAL,
                                 "the %s needs %llu KiB of memory at 0x%llx, and the machine has "
                                 "none there",
                                 name, (unsigned long long)(size >> 10), (unsigned long long)gpa);
        return machine->preloaded ? 0 : boot_read(fd, offset, at, size, name, err);
}

uint64_t boot_ram_end(const struct machine *machine)
{
        return machine->memory.low_size - LAYOUT_ACPI_SIZE;
}

int boot_load_initrd(struct machine *machine, uint64_t kernel_end, uint64_t end, uint64_t *ret_gpa,
                     uint64_t *ret_size, struct error *err)
{
        const int fd = machine->config->initrd;
        uint64_t size, gpa;
        int r;

        *ret_gpa = *ret_size = 0;
        if (fd < 0)
                return 0;
        r = boot_file_size(fd, "initrd", &size, err);
        if (r < 0)
                return r;
        if (size == 0)
                return error_set(err, -EINVAL, "the initrd is empty");
        if (end > boot_ram_end(machine))
                end = boot_ram_end(machine);
        gpa = size < end ? (end - size) & ~UINT64_C(4095) : 0;
        if (gpa < kernel_end) {
                r = error_set(err, -ENOMEM,
                              "the initrd of %llu MiB does not fit into the machine's memory",
                              (unsigned long long)((size + MIB(1) - 1) >> 20));
                error_hint(err, "give the machine more memory");
                return r;
        }
        r = boot_read_guest(machine, fd, 0, gpa, size, "initrd", err);
        if (r < 0)
                return r;
        *ret_gpa = gpa;
        *ret_size = size;
        return 0;
}

int boot_put_cmdline(struct machine *machine, size_t max, struct error *err)
{
        const char *cmdline = machine->config->cmdline ? machine->config->cmdline : "";
        const size_t length = strlen(cmdline);

        if (max > BOOT_CMDLINE_MAX - 1)
                max = BOOT_CMDLINE_MAX - 1;
        if (length > max)
                return error_set(err, -EINVAL,
                                 "the kernel takes a command line of %zu bytes, and not of %zu",
                                 max, length);
        /* As small as a machine may be, this is RAM. */
        memcpy(guest_range(&machine->memory, BOOT_CMDLINE, length + 1), cmdline, length + 1);
        return 0;
}

static int is_elf(const struct machine *machine, bool *ret, struct error *err)
{
        uint8_t magic[SELFMAG];
        int r = boot_read(machine->config->kernel, 0, magic, sizeof(magic), "kernel", err);

        *ret = r == 0 && memcmp(magic, ELFMAG, SELFMAG) == 0;
        return r;
}

int boot_preload(struct machine *machine, struct error *err)
{
        bool elf = true;
        int r = machine->config->kernel < 0 ? 0 : is_elf(machine, &elf, err);

        if (r < 0 || elf)
                return r;
        r = boot_linux_files(machine, err);
        machine->preloaded = r == 0;
        return r;
}

int boot_load(struct machine *machine, struct vcpu_start *ret_start, struct error *err)
{
        bool elf;
        int r;

        if (machine->config->kernel < 0)
                return boot_firmware(machine, ret_start, err);
        pci_assign_bars(machine);
        smbios_write(machine);
        r = is_elf(machine, &elf, err);
        if (r < 0)
                return r;
        return elf ? boot_pvh(machine, ret_start, err) : boot_linux(machine, ret_start, err);
}
