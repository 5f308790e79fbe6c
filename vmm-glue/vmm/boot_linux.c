/* boot_linux.c - a Linux kernel (bzImage), by its 64-bit boot protocol.
 *
 * Source: Linux, Documentation/arch/x86/boot.rst: "The real-mode kernel header", "64-bit boot
 * protocol"; asm/bootparam.h. */
#include <errno.h>
#include <string.h>

/* As the kernel's own header has it. */
#include <asm/bootparam.h>

#include "vmm-glue/vmm/boot.h"

#define BOOT_MAGIC       0x53726448u /* "HdrS" */
#define PROTOCOL_MIN     0x020cu
#define SECTOR           512u
#define ENTRY_64         0x200u
#define LOADER_UNDEFINED 0xffu

struct kernel {
        struct setup_header header;
        uint64_t offset, size; /* of the protected-mode kernel in the file */
        uint64_t gpa, end;     /* where it goes, and where the memory that it needs ends */
};

static int check(const struct setup_header *h, struct error *err)
{
        if (h->header != BOOT_MAGIC)
                return error_set(err, -EINVAL, "the kernel is neither a bzImage nor an ELF file");
        if (h->version < PROTOCOL_MIN)
                return error_set(err, -EINVAL,
                                 "the kernel speaks version %u.%u of the boot protocol, and not "
                                 "2.12",
                                 h->version >> 8, h->version & 0xff);
        if (!(h->xloadflags & XLF_KERNEL_64) || !(h->loadflags & LOADED_HIGH))
                return error_set(err, -EINVAL, "the kernel is not one of 64 bits");
        return 0;
}

/* Where it wants to be, if the machine's memory reaches that far; else as low as it can be. */
static int place(const struct machine *machine, struct kernel *k, struct error *err)
{
        const uint64_t alignment = k->header.kernel_alignment;
        const uint64_t needs = k->header.init_size > k->size ? k->header.init_size : k->size;
        const uint64_t end = boot_ram_end(machine);

        k->gpa = k->header.pref_address;
        if (k->header.relocatable_kernel &&
            (k->gpa < BOOT_KERNEL_MIN || k->gpa > end || needs > end - k->gpa)) {
                if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > GIB(1))
                        return error_set(err, -EINVAL, "the kernel's header makes no sense");
                k->gpa = (BOOT_KERNEL_MIN + alignment - 1) & ~(alignment - 1);
        }
        if (k->gpa < BOOT_KERNEL_MIN || k->gpa > end || needs > end - k->gpa) {
                error_set(err, -ENOMEM, "the kernel needs %llu MiB of memory at 0x%llx",
                          (unsigned long long)((needs + MIB(1) - 1) >> 20),
                          (unsigned long long)k->gpa);
                error_hint(err, "give the machine more memory");
                return -ENOMEM;
        }
        k->end = k->gpa + needs;
        return 0;
}

static int look(struct machine *machine, struct kernel *k, struct error *err)
{
        const int fd = machine->config->kernel;
        uint64_t size;
        unsigned sectors;
        int r = boot_file_size(fd, "kernel", &size, err);

        if (r == 0)
                r = boot_read(fd, offsetof(struct boot_params, hdr), &k->header, sizeof(k->header),
                              "kernel", err);
        if (r == 0)
                r = check(&k->header, err);
        if (r < 0)
                return r;
        sectors = k->header.setup_sects ? k->header.setup_sects : 4;
        k->offset = (uint64_t)(sectors + 1) * SECTOR;
        if (size <= k->offset + ENTRY_64)
                return error_set(err, -EINVAL, "the kernel ends too early");
        k->size = size - k->offset;
        return place(machine, k, err);
}

/* The first 4 GiB mapped to themselves, by pages of 2 MiB. */
static void write_page_tables(struct machine *machine)
{
        enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80 };
        const uint64_t n = 512, gibs = 4, page = 4096;
        uint64_t *table = guest_range(&machine->memory, BOOT_PAGE_TABLE, (2 + gibs) * page);

        memset(table, 0, (2 + gibs) * page);
        table[0] = (BOOT_PAGE_TABLE + page) | PRESENT | WRITABLE;
        for (uint64_t gib = 0; gib < gibs; gib++)
                table[n + gib] = (BOOT_PAGE_TABLE + (2 + gib) * page) | PRESENT | WRITABLE;
        for (uint64_t i = 0; i < gibs * n; i++)
                table[2 * n + i] = i << 21 | PRESENT | WRITABLE | LARGE;
}

static void write_zero_page(struct machine *machine, const struct kernel *k, uint64_t initrd,
                            uint64_t initrd_size)
{
        struct boot_params *p = guest_range(&machine->memory, BOOT_ZERO_PAGE, sizeof(*p));
        struct e820_entry map[E820_ENTRIES];
        /* Up to the end that the jump over the header tells. */
        size_t header_size = (size_t)(k->header.jump >> 8) + offsetof(struct setup_header, header) -
                             offsetof(struct setup_header, setup_sects);

        memset(p, 0, sizeof(*p));
        if (header_size > sizeof(k->header))
                header_size = sizeof(k->header);
        memcpy(&p->hdr, &k->header, header_size);
        p->hdr.type_of_loader = LOADER_UNDEFINED;
        p->hdr.code32_start = (uint32_t)k->gpa;
        p->hdr.cmd_line_ptr = BOOT_CMDLINE;
        p->hdr.ramdisk_image = (uint32_t)initrd;
        p->hdr.ramdisk_size = (uint32_t)initrd_size;
        p->acpi_rsdp_addr = machine->rsdp_gpa;
        p->e820_entries = (uint8_t)memory_map(machine, map);
        for (unsigned i = 0; i < p->e820_entries; i++)
                p->e820_table[i] = (struct boot_e820_entry){
                    .addr = map[i].start, .size = map[i].size, .type = map[i].type};
}

static int load_files(struct machine *machine, struct kernel *k, uint64_t *ret_initrd,
                      uint64_t *ret_initrd_size, struct error *err)
{
        int r = look(machine, k, err);

        if (r == 0)
                r = boot_read_guest(machine, machine->config->kernel, k->offset, k->gpa, k->size,
                                    "kernel", err);
        if (r == 0)
                r = boot_load_initrd(machine, k->end, (uint64_t)k->header.initrd_addr_max + 1,
                                     ret_initrd, ret_initrd_size, err);
        return r;
}

int boot_linux_files(struct machine *machine, struct error *err)
{
        struct kernel k = {0};
        uint64_t initrd, initrd_size;

        return load_files(machine, &k, &initrd, &initrd_size, err);
}

int boot_linux(struct machine *machine, struct vcpu_start *ret_start, struct error *err)
{
        struct kernel k = {0};
        uint8_t rsdp[ACPI_RSDP_SIZE];
        uint64_t initrd = 0, initrd_size = 0;
        int r = load_files(machine, &k, &initrd, &initrd_size, err);

        if (r == 0)
                r = boot_put_cmdline(machine, k.header.cmdline_size, err);
        if (r == 0)
                r = acpi_tables_write(machine, LAYOUT_BIOS_AREA, rsdp, err);
        if (r < 0)
                return r;
        write_zero_page(machine, &k, initrd, initrd_size);
        write_page_tables(machine);
        *ret_start = (struct vcpu_start){
            .mode = VCPU_START_LONG, .rip = k.gpa + ENTRY_64, .rsi = BOOT_ZERO_PAGE};
        return 0;
}
