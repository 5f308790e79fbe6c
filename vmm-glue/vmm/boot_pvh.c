/* boot_pvh.c - a kernel in an ELF file with a PVH entry: Linux's vmlinux, Xen's and BSDs' kernels, test
 * programs.
 *
 * Sources: Xen, docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h; System V ABI,
 * ELF. */
#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/boot.h"

#define PVH_MAGIC         0x336ec578u
#define NOTE_PHYS32_ENTRY 18u
#define SEGMENTS_MAX      64u
#define NOTES_MAX         65536u

struct pvh_start_info {
        le32 magic, version, flags, n_modules;
        le64 modules, cmdline, rsdp, memory_map;
        le32 n_memory_map, reserved;
};
struct pvh_module {
        le64 address, size, cmdline, reserved;
};
struct pvh_memory {
        le64 address, size;
        le32 type, reserved;
};
/* All that is told, at BOOT_PVH_INFO. */
struct pvh_page {
        struct pvh_start_info info;
        struct pvh_module initrd;
        struct pvh_memory map[E820_ENTRIES];
};
static_assert(sizeof(struct pvh_start_info) == 56, "of version 1");
static_assert(sizeof(struct pvh_page) < BOOT_ZERO_PAGE - BOOT_PVH_INFO, "layout.h");

struct elf {
        int fd;
        unsigned n_segments;
        Elf64_Phdr segments[SEGMENTS_MAX];
        uint64_t entry, end; /* where it begins, and where its memory ends */
};

static int read_heads(struct elf *elf, struct error *err)
{
        Elf64_Ehdr head;
        int r = boot_read(elf->fd, 0, &head, sizeof(head), "kernel", err);

        if (r < 0)
                return r;
        if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
            head.e_machine != EM_X86_64)
                return error_set(err, -EINVAL, "the kernel is an ELF file, but not of x86-64");
        if (head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum == 0 ||
            head.e_phnum > SEGMENTS_MAX)
                return error_set(err, -EINVAL, "the kernel's ELF header makes no sense");
        elf->n_segments = head.e_phnum;
        return boot_read(elf->fd, head.e_phoff, elf->segments,
                         head.e_phnum * sizeof(elf->segments[0]), "kernel", err);
}

/* The entry in one segment of notes; 0: it is not there. */
static uint64_t find_entry(const uint8_t *notes, size_t size)
{
        while (size >= sizeof(Elf64_Nhdr)) {
                Elf64_Nhdr note;
                uint64_t name_size, all;

                memcpy(&note, notes, sizeof(note));
                name_size = ((uint64_t)note.n_namesz + 3) & ~UINT64_C(3);
                all = sizeof(note) + name_size + (((uint64_t)note.n_descsz + 3) & ~UINT64_C(3));
                if (all > size)
                        return 0;
                if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 &&
                    memcmp(notes + sizeof(note), "Xen", 4) == 0 &&
                    (note.n_descsz == 4 || note.n_descsz == 8)) {
                        uint64_t entry = 0;

                        memcpy(&entry, notes + sizeof(note) + name_size, note.n_descsz);
                        return entry;
                }
                notes += all;
                size -= all;
        }
        return 0;
}

static int look_for_entry(struct elf *elf, struct error *err)
{
        for (unsigned i = 0; i < elf->n_segments && elf->entry == 0; i++) {
                const Elf64_Phdr *s = &elf->segments[i];
                uint8_t notes[4096];
                size_t size = s->p_filesz < sizeof(notes) ? s->p_filesz : sizeof(notes);
                int r;

                if (s->p_type != PT_NOTE || s->p_filesz > NOTES_MAX)
                        continue;
                r = boot_read(elf->fd, s->p_offset, notes, size, "kernel", err);
                if (r < 0)
                        return r;
                elf->entry = find_entry(notes, size);
        }
        if (elf->entry == 0 || elf->entry > UINT32_MAX)
                return error_set(err, -EINVAL,
                                 "the kernel is an ELF file without a PVH entry (CONFIG_PVH)");
        return 0;
}

static int load_segments(struct machine *machine, struct elf *elf, struct error *err)
{
        for (unsigned i = 0; i < elf->n_segments; i++) {
                const Elf64_Phdr *s = &elf->segments[i];
                void *at;
                int r;

                if (s->p_type != PT_LOAD || s->p_memsz == 0)
                        continue;
                at = s->p_paddr >= BOOT_KERNEL_MIN && s->p_memsz >= s->p_filesz
                         ? guest_range(&machine->memory, s->p_paddr, s->p_memsz)
                         : NULL;
                if (!at || s->p_paddr + s->p_memsz > boot_ram_end(machine))
                        return error_set(
                            err, -EINVAL,
                            "a part of the kernel belongs at 0x%llx, where the machine "
                            "has no memory for it",
                            (unsigned long long)s->p_paddr);
                r = boot_read(elf->fd, s->p_offset, at, s->p_filesz, "kernel", err);
                if (r < 0)
                        return r;
                memory_zero(&machine->memory, (uint8_t *)at + s->p_filesz,
                            s->p_memsz - s->p_filesz);
                if (s->p_paddr + s->p_memsz > elf->end)
                        elf->end = s->p_paddr + s->p_memsz;
        }
        return 0;
}

static void tell(struct machine *machine, uint64_t initrd, uint64_t initrd_size)
{
        struct pvh_page *page = guest_range(&machine->memory, BOOT_PVH_INFO, sizeof(*page));
        struct e820_entry map[E820_ENTRIES];
        const unsigned n = memory_map(machine, map);

        memset(page, 0, sizeof(*page));
        page->info.magic = le32_make(PVH_MAGIC);
        page->info.version = le32_make(1);
        page->info.cmdline = le64_make(BOOT_CMDLINE);
        page->info.rsdp = le64_make(machine->rsdp_gpa);
        page->info.memory_map = le64_make(BOOT_PVH_INFO + offsetof(struct pvh_page, map));
        page->info.n_memory_map = le32_make(n);
        for (unsigned i = 0; i < n; i++)
                page->map[i] = (struct pvh_memory){.address = le64_make(map[i].start),
                                                   .size = le64_make(map[i].size),
                                                   .type = le32_make(map[i].type)};
        if (initrd_size == 0)
                return;
        page->info.n_modules = le32_make(1);
        page->info.modules = le64_make(BOOT_PVH_INFO + offsetof(struct pvh_page, initrd));
        page->initrd.address = le64_make(initrd);
        page->initrd.size = le64_make(initrd_size);
}

int boot_pvh(struct machine *machine, struct vcpu_start *ret_start, struct error *err)
{
        struct elf elf = {.fd = machine->config->kernel};
        uint8_t rsdp[ACPI_RSDP_SIZE];
        uint64_t initrd = 0, initrd_size = 0;
        int r = read_heads(&elf, err);

        if (r == 0)
                r = look_for_entry(&elf, err);
        if (r == 0)
                r = load_segments(machine, &elf, err);
        if (r == 0)
                r = boot_load_initrd(machine, elf.end, LAYOUT_RAM_LOW_MAX, &initrd, &initrd_size,
                                     err);
        if (r == 0)
                r = boot_put_cmdline(machine, BOOT_CMDLINE_MAX, err);
        if (r == 0)
                r = acpi_tables_write(machine, LAYOUT_BIOS_AREA, rsdp, err);
        if (r < 0)
                return r;
        tell(machine, initrd, initrd_size);
        *ret_start =
            (struct vcpu_start){.mode = VCPU_START_PVH, .rip = elf.entry, .rbx = BOOT_PVH_INFO};
        return 0;
}
