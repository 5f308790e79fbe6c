/* fuzz_vmm_boot.c - kernels that are none: a bzImage and an ELF file as they are right, with any of their
 * bytes changed, cut off, with an initrd and a command line of any size, for machines of several. */
#include <assert.h>
#include <asm/bootparam.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILE_SIZE   8192u
#define CHANGES_MAX 64u
#define HEADER      offsetof(struct boot_params, hdr)

static struct loop *loop;

static void make_bzimage(uint8_t *file)
{
        struct setup_header h = {.setup_sects = 4,
                                 .jump = 0x6aeb,
                                 .header = 0x53726448,
                                 .version = 0x020f,
                                 .loadflags = LOADED_HIGH,
                                 .xloadflags = XLF_KERNEL_64,
                                 .kernel_alignment = 0x200000,
                                 .relocatable_kernel = 1,
                                 .pref_address = 0x1000000,
                                 .init_size = 0x100000,
                                 .initrd_addr_max = 0x7fffffff,
                                 .cmdline_size = 2047};

        memcpy(file + HEADER, &h, sizeof(h));
}

/* Head, program headers, a note at 512, a segment at 4096. */
static void make_elf(uint8_t *file)
{
        const Elf64_Ehdr head = {
            .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
            .e_type = ET_EXEC,
            .e_machine = EM_X86_64,
            .e_version = EV_CURRENT,
            .e_phoff = sizeof(head),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 3};
        const Elf64_Phdr segments[3] = {
            {.p_type = PT_LOAD,
             .p_offset = 4096,
             .p_paddr = MIB(1),
             .p_filesz = 4096,
             .p_memsz = MIB(2)},
            {.p_type = PT_NOTE, .p_offset = 512, .p_filesz = 40, .p_memsz = 40},
            {.p_type = PT_LOAD,
             .p_offset = 0,
             .p_paddr = MIB(16),
             .p_filesz = 100,
             .p_memsz = 100}};
        const uint32_t notes[10] = {4, 4, 6, 0x006e6558, 0, 4, 4, 18, 0x006e6558, MIB(1)};

        memcpy(file, &head, sizeof(head));
        memcpy(file + sizeof(head), segments, sizeof(segments));
        memcpy(file + 512, notes, sizeof(notes));
}

static int file_of(const uint8_t *bytes, size_t size)
{
        int fd = memfd_create("fuzz", MFD_CLOEXEC);

        assert(fd >= 0 && (!bytes || write(fd, bytes, size) == (ssize_t)size));
        assert(ftruncate(fd, (off_t)size) == 0);
        return fd;
}

static int make_kernel(struct input *in, uint8_t kind)
{
        uint8_t file[FILE_SIZE];
        size_t size = FILE_SIZE;

        memset(file, 0x90, sizeof(file));
        if (kind & 1)
                make_elf(file);
        else
                make_bzimage(file);
        if (kind & 2)
                size = input_number(in, HEADER) % (FILE_SIZE + 1);
        for (unsigned i = 0; i < CHANGES_MAX && in->left > 0; i++) {
                const size_t base = kind & 1 ? (input_u8(in) & 1 ? 512 : 0) : HEADER;
                const size_t at = base + input_u8(in);
                uint64_t value = input_number(in, MIB(32));

                memcpy(file + at, &value, 1u << (input_u8(in) & 3));
        }
        return file_of(file, size);
}

/* What the kernel is told of an initrd lies in RAM, behind the kernel and in front of ACPI's tables. */
static void check_initrd(struct machine *machine, uint64_t kernel, uint64_t gpa, uint64_t size)
{
        if (machine->config->initrd < 0) {
                assert(size == 0);
                return;
        }
        assert(size > 0 && gpa % 4096 == 0 && gpa > kernel);
        assert(guest_range(&machine->memory, gpa, size) && gpa + size <= boot_ram_end(machine));
}

static void check(struct machine *machine, const struct vcpu_start *start)
{
        if (start->mode == VCPU_START_LONG) {
                const struct boot_params *p =
                    guest_range(&machine->memory, BOOT_ZERO_PAGE, sizeof(*p));

                assert(guest_range(&machine->memory, start->rip, 1) &&
                       start->rsi == BOOT_ZERO_PAGE);
                check_initrd(machine, start->rip, p->hdr.ramdisk_image, p->hdr.ramdisk_size);
        } else {
                const uint64_t *info = guest_range(&machine->memory, BOOT_PVH_INFO, 56);
                const uint64_t *module =
                    info[2] ? guest_range(&machine->memory, info[2], 16) : NULL;

                assert(start->mode == VCPU_START_PVH && start->rip <= UINT32_MAX);
                check_initrd(machine, 0, module ? module[0] : 0, module ? module[1] : 0);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        const uint8_t kind = input_u8(&in);
        static char cmdline[1u << 17];
        struct vcpu_start start = {0};
        struct error err = ERROR_INIT;
        struct machine_fixture *f;
        int fd = fuzz_lowest_fd();
        size_t length;

        if (!loop) {
                fuzz_quiet();
                loop = fuzz_loop_new();
        }
        fuzz_loop_reset(loop);
        f = fixture_new(kind & 8 ? LAYOUT_RAM_LOW_MAX + MIB(2) : LAYOUT_RAM_MIN, loop);
        assert(pci_create(&f->machine, NULL) == 0);
        length = input_number(&in, BOOT_CMDLINE_MAX) % sizeof(cmdline);
        memset(cmdline, 'x', length);
        cmdline[length] = '\0';
        f->config.cmdline = cmdline;
        if (kind & 4)
                f->config.initrd = file_of(NULL, input_number(&in, MIB(31)) % MIB(48));
        f->config.kernel = make_kernel(&in, kind);

        machine_lock(&f->machine);
        if (boot_load(&f->machine, &start, &err) == 0)
                check(&f->machine, &start);
        else
                assert(err.message[0] != '\0');
        machine_unlock(&f->machine);

        if (f->config.initrd >= 0)
                close(f->config.initrd);
        close(f->config.kernel);
        fixture_free(f);
        fuzz_loop_settle(loop);
        assert(fuzz_lowest_fd() == fd);
        return 0;
}
