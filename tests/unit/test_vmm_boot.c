/* test_vmm_boot.c - kernels in guest memory: each part where the boot protocol says, and each file that is
 * no kernel refused with a sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/boot.h"

#define RAM       MIB(64)
#define FILE_SIZE 16384u
#define SECTORS   4u
#define KERNEL    ((SECTORS + 1) * 512u) /* where a bzImage's 64-bit part lies in the file */
#define HEADER    offsetof(struct boot_params, hdr)
#define PREFERRED MIB(16)

static struct machine_fixture *f;
static uint8_t file[FILE_SIZE];
static size_t file_size;
static struct setup_header header; /* of the bzImage to be made */
static Elf64_Ehdr elf; /* of the ELF file, and its segments: two of memory, one of notes */
static Elf64_Phdr segments[3];
static uint32_t notes[10];
static struct vcpu_start start;
static struct error err;

static void fill(void)
{
        for (size_t i = 0; i < sizeof(file); i++)
                file[i] = (uint8_t)(i * 7 + i / 256);
}

static int set_up(void **state)
{
        f = fixture_new(RAM, NULL);
        assert_int_equal(pci_create(&f->machine, NULL), 0);
        fill();
        file_size = sizeof(file);
        header = (struct setup_header){.setup_sects = SECTORS,
                                       .jump = 0x6aeb,
                                       .header = 0x53726448,
                                       .version = 0x020f,
                                       .loadflags = LOADED_HIGH,
                                       .xloadflags = XLF_KERNEL_64,
                                       .kernel_alignment = 0x200000,
                                       .relocatable_kernel = 1,
                                       .pref_address = PREFERRED,
                                       .init_size = 0x100000,
                                       .initrd_addr_max = 0x7fffffff,
                                       .cmdline_size = 2047};
        elf = (Elf64_Ehdr){
            .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
            .e_type = ET_EXEC,
            .e_machine = EM_X86_64,
            .e_version = EV_CURRENT,
            .e_phoff = sizeof(elf),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 3};
        segments[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_offset = 4096,
                                   .p_paddr = MIB(1),
                                   .p_filesz = 5000,
                                   .p_memsz = 9000};
        segments[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = 512, .p_filesz = 40};
        segments[2] = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_offset = 10000,
                                   .p_paddr = MIB(20) + 3,
                                   .p_filesz = 0,
                                   .p_memsz = 100};
        /* A note of somebody else's, then the entry. */
        memcpy(notes, (uint32_t[]){4, 4, 6, 0x006e6558, 0, 4, 4, 18, 0x006e6558, 0x100200},
               sizeof(notes));
        err = (struct error)ERROR_INIT;
        return 0;
}

static void close_files(void)
{
        int *fds[] = {&f->config.kernel, &f->config.initrd};

        for (size_t i = 0; i < 2; i++) {
                if (*fds[i] >= 0)
                        close(*fds[i]);
                *fds[i] = -1;
        }
}

static int tear_down(void **state)
{
        close_files();
        fixture_free(f);
        return 0;
}

static int file_of(const void *bytes, size_t size)
{
        int fd = memfd_create("file", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, size), size);
        return fd;
}

static int boot(void)
{
        int r;

        machine_lock(&f->machine);
        r = boot_load(&f->machine, &start, &err);
        machine_unlock(&f->machine);
        return r;
}

static int boot_bzimage(void)
{
        memcpy(file + HEADER, &header, sizeof(header));
        if (f->config.kernel >= 0)
                close(f->config.kernel);
        f->config.kernel = file_of(file, file_size);
        return boot();
}

static int boot_elf(void)
{
        memcpy(file, &elf, sizeof(elf));
        memcpy(file + sizeof(elf), segments, sizeof(segments));
        memcpy(file + 512, notes, sizeof(notes));
        if (f->config.kernel >= 0)
                close(f->config.kernel);
        f->config.kernel = file_of(file, file_size);
        return boot();
}

static void *at(uint64_t gpa, uint64_t size)
{
        void *range = guest_range(&f->machine.memory, gpa, size);

        assert_non_null(range);
        return range;
}

static void set_initrd(size_t size)
{
        uint8_t *bytes = malloc(size);

        assert_non_null(bytes);
        memset(bytes, 0xa5, size);
        f->config.initrd = file_of(bytes, size);
        free(bytes);
}

/* ---- bzImage ---- */

static void test_a_bzimage_is_where_it_wants_to_be(void **state)
{
        struct e820_entry map[E820_ENTRIES];
        const struct boot_params *p;
        const uint64_t *tables;
        unsigned n;

        f->config.cmdline = "console=ttyS0";
        memset(at(BOOT_ZERO_PAGE, 4096), 0xee, 4096);
        assert_int_equal(boot_bzimage(), 0);
        assert_int_equal(start.mode, VCPU_START_LONG);
        assert_true(start.rip == PREFERRED + 0x200 && start.rsi == BOOT_ZERO_PAGE);
        assert_memory_equal(at(PREFERRED, 1), file + KERNEL, FILE_SIZE - KERNEL);
        assert_string_equal(at(BOOT_CMDLINE, 14), "console=ttyS0");

        p = at(BOOT_ZERO_PAGE, sizeof(*p));
        assert_int_equal(p->hdr.header, header.header);
        assert_int_equal(p->hdr.init_size, header.init_size);
        assert_int_equal(p->hdr.type_of_loader, 0xff);
        assert_int_equal(p->hdr.code32_start, PREFERRED);
        assert_int_equal(p->hdr.cmd_line_ptr, BOOT_CMDLINE);
        assert_int_equal(p->hdr.ramdisk_image, 0);
        assert_int_equal(p->hdr.ramdisk_size, 0);
        assert_int_equal(p->acpi_rsdp_addr, LAYOUT_BIOS_AREA);
        assert_memory_equal(at(LAYOUT_BIOS_AREA, 8), "RSD PTR ", 8);
        assert_memory_equal(at(LAYOUT_SMBIOS, 4), "_SM_", 4);
        n = memory_map(&f->machine, map);
        assert_int_equal(p->e820_entries, n);
        for (unsigned i = 0; i < n; i++) {
                assert_true(p->e820_table[i].addr == map[i].start);
                assert_true(p->e820_table[i].size == map[i].size);
                assert_int_equal(p->e820_table[i].type, map[i].type);
        }
        /* The rest is zero, whatever was there. */
        for (size_t i = 0; i < HEADER; i++)
                assert_true(((const uint8_t *)p)[i] == 0 || i == 0x1e8 || (i >= 0x70 && i < 0x78));

        /* 4 GiB, each page at its own address. */
        tables = at(BOOT_PAGE_TABLE, 6 * 4096);
        assert_true(tables[0] == (BOOT_PAGE_TABLE + 4096) + 3 && tables[1] == 0);
        for (uint64_t i = 0; i < 2048; i++) {
                const uint64_t *directory = at(tables[512 + i / 512] & ~UINT64_C(0xfff), 4096);

                assert_true(directory[i % 512] == (i << 21) + 0x83);
        }
}

/* What lies behind the header in the file is the kernel's code, and none of the kernel's business. */
static void test_of_the_header_no_more_than_there_is(void **state)
{
        const struct boot_params *p = at(BOOT_ZERO_PAGE, sizeof(*p));

        header.jump = 0x2eeb; /* up to 0x230 */
        header.kernel_alignment = 0x200000;
        assert_int_equal(boot_bzimage(), 0);
        assert_int_equal(p->hdr.initrd_addr_max, 0x7fffffff);
        assert_int_equal(p->hdr.kernel_alignment, 0);
        assert_int_equal(p->hdr.init_size, 0);
        header.jump = 0xffeb; /* more than we know */
        assert_int_equal(boot_bzimage(), 0);
        assert_int_equal(p->hdr.init_size, header.init_size);
        assert_int_equal(((const uint8_t *)p)[HEADER + sizeof(header)], 0);
}

static void test_a_kernel_goes_where_there_is_room(void **state)
{
        header.pref_address = MIB(63);
        assert_int_equal(boot_bzimage(), 0);
        assert_true(start.rip == MIB(2) + 0x200);
        header.pref_address = 0;
        header.kernel_alignment = 0x1000;
        assert_int_equal(boot_bzimage(), 0);
        assert_true(start.rip == MIB(1) + 0x200);
        assert_memory_equal(at(MIB(1), 1), file + KERNEL, FILE_SIZE - KERNEL);
        /* To the last byte in front of ACPI's tables, and not one more. */
        header.init_size = (uint32_t)(RAM - LAYOUT_ACPI_SIZE - MIB(1));
        assert_int_equal(boot_bzimage(), 0);
        header.init_size++;
        assert_int_equal(boot_bzimage(), -ENOMEM);
        assert_string_equal(err.message, "the kernel needs 63 MiB of memory at 0x100000");
        assert_string_equal(err.hint, "give the machine more memory");
}

static void test_a_kernel_that_cannot_move(void **state)
{
        static const uint64_t places[] = {MIB(64), UINT64_MAX, 0, MIB(1) - 1,
                                          RAM - LAYOUT_ACPI_SIZE - 0xfffff};

        header.relocatable_kernel = 0;
        assert_int_equal(boot_bzimage(), 0);
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                header.pref_address = places[i];
                assert_int_equal(boot_bzimage(), -ENOMEM);
        }
}

static void test_files_that_are_no_bzimage(void **state)
{
        header.header ^= 1;
        assert_int_equal(boot_bzimage(), -EINVAL);
        assert_string_equal(err.message, "the kernel is neither a bzImage nor an ELF file");
        header.header ^= 1;
        header.version = 0x020b;
        assert_int_equal(boot_bzimage(), -EINVAL);
        assert_string_equal(err.message,
                            "the kernel speaks version 2.11 of the boot protocol, and not 2.12");
        header.version = 0x020c;
        header.xloadflags = 0;
        assert_int_equal(boot_bzimage(), -EINVAL);
        assert_string_equal(err.message, "the kernel is not one of 64 bits");
        header.xloadflags = XLF_KERNEL_64;
        header.loadflags = 0;
        assert_int_equal(boot_bzimage(), -EINVAL);
        header.loadflags = LOADED_HIGH;
        assert_int_equal(boot_bzimage(), 0);
        header.pref_address = 0;
        for (uint32_t alignment = 0; alignment < 7; alignment += 3) {
                header.kernel_alignment = alignment;
                assert_int_equal(boot_bzimage(), -EINVAL);
                assert_string_equal(err.message, "the kernel's header makes no sense");
        }
        header.kernel_alignment = 0x80000000;
        assert_int_equal(boot_bzimage(), -EINVAL);
}

static void test_a_bzimage_that_was_cut_off(void **state)
{
        for (file_size = 0; file_size < KERNEL + 0x200; file_size += 100) {
                assert_int_equal(boot_bzimage(), -EINVAL);
                assert_string_equal(err.message, "the kernel ends too early");
        }
        file_size = KERNEL + 0x200;
        assert_int_equal(boot_bzimage(), -EINVAL);
        file_size++;
        assert_int_equal(boot_bzimage(), 0);
        /* No sectors are four, as ever. */
        header.setup_sects = 0;
        assert_int_equal(boot_bzimage(), 0);
        header.setup_sects = 255;
        assert_int_equal(boot_bzimage(), -EINVAL);
}

static void test_what_is_no_file(void **state)
{
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        f->config.kernel = fds[0];
        assert_true(boot() < 0);
        close(fds[0]);
        close(fds[1]);
        f->config.kernel = open("/", O_RDONLY | O_CLOEXEC);
        assert_int_equal(boot(), -EISDIR);
        assert_string_equal(err.message, "cannot read the kernel: Is a directory");
        close(f->config.kernel);
        f->config.kernel = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        assert_int_equal(boot(), -EINVAL);
        assert_string_equal(err.message, "the kernel is not a file");
}

static void test_an_initrd_lies_as_high_as_can_be(void **state)
{
        const struct boot_params *p = at(BOOT_ZERO_PAGE, sizeof(*p));
        const uint64_t end = RAM - LAYOUT_ACPI_SIZE;

        set_initrd(5000);
        assert_int_equal(boot_bzimage(), 0);
        assert_int_equal(p->hdr.ramdisk_image, end - 8192);
        assert_int_equal(p->hdr.ramdisk_size, 5000);
        for (size_t i = 0; i < 5000; i++)
                assert_int_equal(((uint8_t *)at(end - 8192, 5000))[i], 0xa5);
        /* Not above what the kernel can reach. */
        header.initrd_addr_max = (uint32_t)MIB(40) - 1;
        assert_int_equal(boot_bzimage(), 0);
        assert_int_equal(p->hdr.ramdisk_image, MIB(40) - 8192);
        /* Nor in the kernel's own memory: just behind it is fine. */
        header.initrd_addr_max = (uint32_t)(PREFERRED + header.init_size + 5000 - 1);
        assert_int_equal(boot_bzimage(), 0);
        assert_int_equal(p->hdr.ramdisk_image, PREFERRED + header.init_size);
        header.initrd_addr_max--;
        assert_int_equal(boot_bzimage(), -ENOMEM);
        assert_string_equal(err.message,
                            "the initrd of 1 MiB does not fit into the machine's memory");
        header.initrd_addr_max = 0;
        assert_int_equal(boot_bzimage(), -ENOMEM);
}

static void test_initrds_that_are_none(void **state)
{
        f->config.initrd = file_of("", 0);
        assert_int_equal(boot_bzimage(), -EINVAL);
        assert_string_equal(err.message, "the initrd is empty");
        assert_int_equal(ftruncate(f->config.initrd, (off_t)1 << 40), 0);
        assert_int_equal(boot_bzimage(), -ENOMEM);
        close(f->config.initrd);
        f->config.initrd = open("/", O_RDONLY | O_CLOEXEC);
        assert_int_equal(boot_bzimage(), -EINVAL);
        assert_string_equal(err.message, "the initrd is not a file");
}

static void test_the_longest_command_line(void **state)
{
        static char text[BOOT_CMDLINE_MAX + 1];

        f->config.cmdline = text;
        memset(text, 'x', 2047);
        assert_int_equal(boot_bzimage(), 0);
        assert_string_equal(at(BOOT_CMDLINE, 2048), text);
        text[2047] = 'x';
        assert_int_equal(boot_bzimage(), -EINVAL);
        assert_string_equal(err.message,
                            "the kernel takes a command line of 2047 bytes, and not of 2048");
        /* Whatever the kernel says: what lies behind ours is not ours. */
        header.cmdline_size = UINT32_MAX;
        memset(text, 'x', BOOT_CMDLINE_MAX - 1);
        assert_int_equal(boot_bzimage(), 0);
        text[BOOT_CMDLINE_MAX - 1] = 'x';
        assert_int_equal(boot_bzimage(), -EINVAL);
}

/* ---- ELF ---- */

static void test_an_elf_kernel_by_its_segments(void **state)
{
        struct e820_entry map[E820_ENTRIES];
        const uint32_t *info = at(BOOT_PVH_INFO, 56);
        const uint64_t *info64 = (const uint64_t *)info, *module;
        unsigned n;

        f->config.cmdline = "hello";
        set_initrd(100);
        memset(at(MIB(1), 9001), 0xee, 9001);
        memset(at(MIB(20) + 2, 102), 0xee, 102);
        assert_int_equal(boot_elf(), 0);
        assert_int_equal(start.mode, VCPU_START_PVH);
        assert_true(start.rip == 0x100200 && start.rbx == BOOT_PVH_INFO);
        assert_memory_equal(at(MIB(1), 5000), file + 4096, 5000);
        for (unsigned i = 5000; i < 9000; i++)
                assert_int_equal(((uint8_t *)at(MIB(1), 9000))[i], 0);
        assert_int_equal(((uint8_t *)at(MIB(1), 9001))[9000], 0xee);
        assert_memory_equal(at(MIB(20) + 2, 3), "\xee\0\0", 3);

        assert_int_equal(info[0], 0x336ec578);
        assert_int_equal(info[1], 1);
        assert_int_equal(info[3], 1);
        assert_string_equal(at(info64[3], 6), "hello");
        assert_memory_equal(at(info64[4], 8), "RSD PTR ", 8);
        n = memory_map(&f->machine, map);
        assert_int_equal(info[12], n);
        for (unsigned i = 0; i < n; i++) {
                const uint64_t *entry = at(info64[5] + i * 24, 24);

                assert_true(entry[0] == map[i].start && entry[1] == map[i].size);
                assert_int_equal((uint32_t)entry[2], map[i].type);
        }
        module = at(info64[2], 32);
        assert_true(module[0] == RAM - LAYOUT_ACPI_SIZE - 4096 && module[1] == 100);
        assert_int_equal(*(uint8_t *)at(module[0], 1), 0xa5);
}

static void test_an_entry_of_eight_bytes(void **state)
{
        memcpy(notes, (uint32_t[]){4, 8, 18, 0x006e6558, 0x200000, 0, 0, 0, 0, 0}, sizeof(notes));
        assert_int_equal(boot_elf(), 0);
        assert_true(start.rip == MIB(2));
        notes[5] = 1; /* no address of 32 bits */
        assert_int_equal(boot_elf(), -EINVAL);
}

static void test_notes_of_nothing(void **state)
{
        static const uint32_t wrong[][10] = {
            {4, 4, 17, 0x006e6558, 1},          /* another note */
            {4, 4, 18, 0x006e6559, 1},          /* another's */
            {5, 4, 18, 0x006e6558, 0, 1},       /* a longer name */
            {4, 4, 18, 0x006e6558, 0},          /* an entry at 0 */
            {4, 2, 18, 0x006e6558, 1},          /* half an entry */
            {0xffffffff, 4, 18, 0x006e6558, 1}, /* names and contents that go beyond */
            {4, 0xffffffff, 18, 0x006e6558, 1}, {0xfffffffd, 0xfffffffd, 18, 1},
            {0, 20, 0, 1, 1, 1, 1, 1, 4, 4}, /* a head that is cut off */
        };

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                memcpy(notes, wrong[i], sizeof(notes));
                assert_int_equal(boot_elf(), -EINVAL);
                assert_string_equal(err.message,
                                    "the kernel is an ELF file without a PVH entry (CONFIG_PVH)");
        }
}

static void test_elf_heads_that_make_no_sense(void **state)
{
        static const struct {
                unsigned offset, size;
                uint64_t value;
                const char *sentence;
        } wrong[] = {
            {EI_CLASS, 1, ELFCLASS32, "the kernel is an ELF file, but not of x86-64"},
            {EI_DATA, 1, ELFDATA2MSB, "the kernel is an ELF file, but not of x86-64"},
            {18, 2, EM_AARCH64, "the kernel is an ELF file, but not of x86-64"},
            {54, 2, 55, "the kernel's ELF header makes no sense"},
            {56, 2, 0, "the kernel's ELF header makes no sense"},
            {56, 2, 65, "the kernel's ELF header makes no sense"},
            {32, 8, FILE_SIZE, "the kernel ends too early"},
            {32, 8, UINT64_MAX, "cannot read the kernel: Invalid argument"},
        };

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                const Elf64_Ehdr right = elf;

                memcpy((uint8_t *)&elf + wrong[i].offset, &wrong[i].value, wrong[i].size);
                assert_int_equal(boot_elf(), -EINVAL);
                assert_string_equal(err.message, wrong[i].sentence);
                elf = right;
        }
        file_size = 63;
        assert_int_equal(boot_elf(), -EINVAL);
        assert_string_equal(err.message, "the kernel ends too early");
}

/* A file of a few bytes can name as much as the guest has. */
static void test_zeroes_of_a_segment_cost_no_memory(void **state)
{
        struct guest_memory *memory = &f->machine.memory;
        struct stat st;

        segments[0].p_memsz = MIB(15) + 100;
        memset(at(MIB(1), MIB(15) + 101), 0xee, MIB(15) + 101);
        assert_int_equal(boot_elf(), 0);
        /* Before they are read: that gives them pages. */
        assert_int_equal(fstat(memory->regions[0].fd, &st), 0);
        assert_true(st.st_blocks * 512 < (off_t)MIB(1));
        assert_memory_equal(at(MIB(1), 5000), file + 4096, 5000);
        for (unsigned i = 5000; i < MIB(15) + 100; i++)
                assert_int_equal(((uint8_t *)guest_range(memory, MIB(1), MIB(16)))[i], 0);
        assert_int_equal(*(uint8_t *)at(MIB(16) + 100, 1), 0xee);
}

static void test_segments_where_there_is_no_memory(void **state)
{
        static const struct {
                uint64_t paddr, memsz, filesz;
        } wrong[] = {
            {MIB(1) - 1, 9000, 10}, /* where our own data lies */
            {0, 9000, 10},
            {RAM - LAYOUT_ACPI_SIZE, 1, 1}, /* over ACPI's tables */
            {RAM - LAYOUT_ACPI_SIZE - 1, 2, 2},
            {RAM - 1, 2, 1},
            {RAM, 1, 1},
            {LAYOUT_ECAM, 4096, 1}, /* over devices and firmware */
            {GIB(4) - MIB(2), 4096, 1},
            {GIB(4), 4096, 1},
            {UINT64_MAX, 2, 1},
            {MIB(1), UINT64_MAX, 1},
            {MIB(1), 100, 101}, /* more in the file than in memory */
            {MIB(1), 100, UINT64_MAX},
        };

        /* As if there were firmware, and memory behind it. */
        assert_int_equal(
            memory_add(&f->machine.memory, GIB(4) - MIB(2), MIB(2), false, true, NULL, NULL), 0);
        assert_int_equal(memory_add(&f->machine.memory, GIB(4), MIB(2), false, false, NULL, NULL),
                         0);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                segments[0].p_paddr = wrong[i].paddr;
                segments[0].p_memsz = wrong[i].memsz;
                segments[0].p_filesz = wrong[i].filesz;
                assert_int_equal(boot_elf(), -EINVAL);
                assert_memory_equal(err.message, "a part of the kernel belongs at 0x", 34);
        }
        /* To the last byte. */
        segments[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_paddr = RAM - LAYOUT_ACPI_SIZE - 100,
                                   .p_memsz = 100,
                                   .p_filesz = 100};
        assert_int_equal(boot_elf(), 0);
        segments[0].p_offset = FILE_SIZE - 99;
        assert_int_equal(boot_elf(), -EINVAL);
        assert_string_equal(err.message, "the kernel ends too early");
}

/* ---- ahead of the rest ---- */

static void put(int fd, off_t offset, uint8_t byte)
{
        assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
}

static uint8_t *first_of_initrd(void)
{
        const struct boot_params *p = at(BOOT_ZERO_PAGE, sizeof(*p));

        return at(p->hdr.ramdisk_image, p->hdr.ramdisk_size);
}

static void test_what_was_read_ahead_is_not_read_again(void **state)
{
        memcpy(file + HEADER, &header, sizeof(header));
        f->config.kernel = file_of(file, file_size);
        set_initrd(10000);
        assert_int_equal(boot_preload(&f->machine, &err), 0);
        assert_memory_equal(at(PREFERRED, 1), file + KERNEL, FILE_SIZE - KERNEL);
        put(f->config.kernel, KERNEL, 0x5a);
        put(f->config.initrd, 0, 0x5a);
        assert_int_equal(boot(), 0);
        assert_memory_equal(at(PREFERRED, 1), file + KERNEL, FILE_SIZE - KERNEL);
        assert_int_equal(*first_of_initrd(), 0xa5);

        /* But at each reset. */
        f->machine.preloaded = false;
        assert_int_equal(boot(), 0);
        assert_int_equal(*(uint8_t *)at(PREFERRED, 1), 0x5a);
        assert_int_equal(*first_of_initrd(), 0x5a);
}

static void test_an_elf_file_and_firmware_are_read_in_their_turn(void **state)
{
        assert_int_equal(boot_preload(&f->machine, &err), 0);
        assert_false(f->machine.preloaded);
        set_initrd(10000);
        memcpy(file, &elf, sizeof(elf));
        f->config.kernel = file_of(file, file_size);
        assert_int_equal(boot_preload(&f->machine, &err), 0);
        assert_false(f->machine.preloaded);
}

static void test_what_fails_ahead_was_not_read(void **state)
{
        header.header++;
        memcpy(file + HEADER, &header, sizeof(header));
        f->config.kernel = file_of(file, file_size);
        assert_int_equal(boot_preload(&f->machine, &err), -EINVAL);
        assert_false(f->machine.preloaded);
        assert_true(strstr(err.message, "neither a bzImage nor an ELF file"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(test_a_bzimage_is_where_it_wants_to_be),
            TEST(test_of_the_header_no_more_than_there_is),
            TEST(test_a_kernel_goes_where_there_is_room),
            TEST(test_a_kernel_that_cannot_move),
            TEST(test_files_that_are_no_bzimage),
            TEST(test_a_bzimage_that_was_cut_off),
            TEST(test_what_is_no_file),
            TEST(test_an_initrd_lies_as_high_as_can_be),
            TEST(test_initrds_that_are_none),
            TEST(test_the_longest_command_line),
            TEST(test_an_elf_kernel_by_its_segments),
            TEST(test_an_entry_of_eight_bytes),
            TEST(test_notes_of_nothing),
            TEST(test_elf_heads_that_make_no_sense),
            TEST(test_zeroes_of_a_segment_cost_no_memory),
            TEST(test_segments_where_there_is_no_memory),
            TEST(test_what_was_read_ahead_is_not_read_again),
            TEST(test_an_elf_file_and_firmware_are_read_in_their_turn),
            TEST(test_what_fails_ahead_was_not_read),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
