/* test_vmm_fw_cfg.c - what firmware asks for, by ports and by DMA, as SeaBIOS does; and a boot with
 * firmware: where the image lies, which files there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/fw_cfg.h"

#define DIRECTORY 0x19u
#define ACCESS    UINT64_C(0x2000) /* where the guest has its DMA descriptor */
#define BUFFER    UINT64_C(0x3000)
#define MEMORY    GIB(4)

#define DMA_ERROR  1u
#define DMA_READ   2u
#define DMA_SKIP   4u
#define DMA_SELECT 8u
#define DMA_WRITE  16u

struct access {
        uint32_t control, length;
        uint64_t address;
};
struct entry {
        uint32_t size;
        uint16_t key, zero;
        char name[56];
};

static int setup(void **state)
{
        struct machine_fixture *f = fixture_new(MEMORY, NULL);

        *state = f;
        f->config.cpus = 5;
        return pci_create(&f->machine, NULL) < 0 ? -1 : fw_cfg_create(&f->machine, NULL);
}

static int teardown(void **state)
{
        fixture_free(*state);
        return 0;
}

static uint8_t *guest(struct machine_fixture *f, uint64_t gpa, uint64_t size)
{
        uint8_t *at = guest_range(&f->machine.memory, gpa, size);

        assert_non_null(at);
        return at;
}

static void read_ports(struct machine_fixture *f, uint16_t key, void *data, size_t size)
{
        uint8_t *bytes = data;

        fixture_out(f, PORT_FW_CFG, key, 2);
        for (size_t i = 0; i < size; i++)
                bytes[i] = (uint8_t)fixture_in(f, PORT_FW_CFG + 1, 1);
}

static void start_dma(struct machine_fixture *f, uint64_t gpa)
{
        fixture_out(f, PORT_FW_CFG + 4, htobe32((uint32_t)(gpa >> 32)), 4);
        fixture_out(f, PORT_FW_CFG + 8, htobe32((uint32_t)gpa), 4);
}

/* What the control word is afterwards. */
static uint32_t dma(struct machine_fixture *f, uint32_t control, uint32_t length, uint64_t address)
{
        struct access *access = (struct access *)guest(f, ACCESS, sizeof(*access));

        *access = (struct access){htobe32(control), htobe32(length), htobe64(address)};
        start_dma(f, ACCESS);
        return be32toh(access->control);
}

/* The directory's entry of a file. */
static struct entry find_file(struct machine_fixture *f, const char *name)
{
        struct entry *entries = (struct entry *)guest(f, BUFFER, 20 * sizeof(*entries));
        uint32_t n;

        read_ports(f, DIRECTORY, &n, sizeof(n));
        assert_int_equal(dma(f, DMA_READ, be32toh(n) * (uint32_t)sizeof(*entries), BUFFER), 0);
        for (uint32_t i = 0; i < be32toh(n); i++)
                if (strcmp(entries[i].name, name) == 0)
                        return (struct entry){.size = be32toh(entries[i].size),
                                              .key = be16toh(entries[i].key)};
        fail_msg("no file %s", name);
        return (struct entry){0};
}

static void test_firmware_knows_it(void **state)
{
        struct machine_fixture *f = *state;
        uint8_t bytes[8];

        read_ports(f, 0, bytes, 6);
        assert_memory_equal(bytes, "QEMU\0", 6);
        read_ports(f, 1, bytes, 4);
        assert_memory_equal(bytes, "\3\0\0", 4);
        read_ports(f, 5, bytes, 2);
        assert_memory_equal(bytes, "\5", 2);
        read_ports(f, 0x0f, bytes, 2);
        assert_memory_equal(bytes, "\5", 2);
        assert_int_equal(be32toh((uint32_t)fixture_in(f, PORT_FW_CFG + 4, 4)), 0x51454d55);
        assert_int_equal(be32toh((uint32_t)fixture_in(f, PORT_FW_CFG + 8, 4)), 0x20434647);
        read_ports(f, 0x1234, bytes, 4); /* what there is not */
        assert_memory_equal(bytes, "\0\0\0", 4);
        fixture_out(f, PORT_FW_CFG, 0x4000, 2); /* nor a way to write */
        fixture_out(f, PORT_FW_CFG + 1, 0xff, 1);
        read_ports(f, 0, bytes, 4);
        assert_memory_equal(bytes, "QEMU", 4);
}

static void test_files_are_read_by_dma(void **state)
{
        struct machine_fixture *f = *state;
        static const char text[] = "0123456789";
        uint8_t *buffer = guest(f, BUFFER, 64);
        struct entry entry;

        assert_int_equal(fw_cfg_add(&f->machine, "etc/one", "x", 1, NULL), 0);
        assert_int_equal(fw_cfg_add(&f->machine, "etc/text", "older, and longer", 17, NULL), 0);
        assert_int_equal(fw_cfg_add(&f->machine, "etc/text", text, 10, NULL), 0);
        entry = find_file(f, "etc/text");
        assert_int_equal(entry.size, 10);
        memset(buffer, 0xee, 64);
        assert_int_equal(dma(f, (uint32_t)entry.key << 16 | DMA_SELECT | DMA_READ, 4, BUFFER), 0);
        assert_memory_equal(buffer, "0123\xee", 5);
        assert_int_equal(dma(f, DMA_SKIP, 3, 0), 0);
        assert_int_equal(dma(f, DMA_READ, 16, BUFFER), 0);
        assert_memory_equal(buffer, "789\0\0\0\0\0\0\0\0\0\0\0\0\0\xee", 17);
        assert_int_equal(dma(f, DMA_SKIP, UINT32_MAX, 0), 0);
        assert_int_equal(dma(f, DMA_READ, 1, BUFFER), 0);
        assert_int_equal(buffer[0], 0);
        assert_int_equal(dma(f, (uint32_t)find_file(f, "etc/one").key << 16 | DMA_SELECT, 0, 0), 0);
        assert_int_equal(fixture_in(f, PORT_FW_CFG + 1, 1), 'x');
}

static void test_what_dma_cannot_do_is_an_error(void **state)
{
        struct machine_fixture *f = *state;
        const uint64_t low_end = f->machine.memory.low_size;
        uint8_t *last = guest(f, low_end - 4, 4);

        assert_int_equal(dma(f, DMA_SELECT | DMA_WRITE, 4, BUFFER), DMA_ERROR);
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, 4, low_end), DMA_ERROR);
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, 4, UINT64_MAX - 1), DMA_ERROR);
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, UINT32_MAX, 0), DMA_ERROR);
        memset(last, 0xee, 4);
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, 5, low_end - 4), DMA_ERROR);
        assert_memory_equal(last, "\xee\xee\xee\xee", 4);
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, 4, low_end - 4), 0);
        assert_memory_equal(last, "QEMU", 4);
        assert_int_equal(dma(f, DMA_READ, 0, UINT64_MAX), 0);
        start_dma(f, low_end - 8); /* a descriptor that is not all there: nothing happens */
        start_dma(f, UINT64_MAX);
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, 4, LAYOUT_RAM_HIGH), 0);
        assert_memory_equal(guest(f, LAYOUT_RAM_HIGH, 4), "QEMU", 4);
}

/* What is saved while the guest runs on is not missing what came by DMA. */
static void test_dma_is_a_write_of_memory(void **state)
{
        struct machine_fixture *f = *state;
        const uint64_t far = MIB(64);
        const uint8_t *bits;

        assert_int_equal(memory_log_begin(&f->machine.memory, NULL), 0);
        bits = f->machine.memory.log->bits;
        assert_int_equal(dma(f, DMA_SELECT | DMA_READ, 8192, far), 0);
        assert_int_equal(bits[far / MEMORY_LOG_PAGE / 8], 3);
        assert_int_equal(bits[ACCESS / MEMORY_LOG_PAGE / 8], 1u << ACCESS / MEMORY_LOG_PAGE % 8);
        memory_log_end(&f->machine.memory);
}

static void test_state_is_saved(void **state)
{
        struct machine_fixture *f = *state;
        struct state_writer w = {0};
        uint8_t bytes[2];

        read_ports(f, 0, bytes, 2);
        fixture_out(f, PORT_FW_CFG + 4, htobe32(1), 4);
        fixture_save(f, &w);
        teardown(state);
        assert_int_equal(setup(state), 0);
        f = *state;
        assert_int_equal(fixture_restore(f, w.data, w.size, NULL), 0);
        assert_int_equal(fixture_in(f, PORT_FW_CFG + 1, 1), 'M');
        state_writer_free(&w);
        fixture_reset(f);
        assert_int_equal(fixture_in(f, PORT_FW_CFG + 1, 1), 'Q');
}

static void test_there_are_not_too_many_files(void **state)
{
        struct machine_fixture *f = *state;
        char name[] = "a";

        for (unsigned i = 0; i < FW_CFG_FILES_MAX; i++, name[0]++)
                assert_int_equal(fw_cfg_add(&f->machine, name, NULL, 0, NULL), 0);
        assert_int_equal(fw_cfg_add(&f->machine, name, NULL, 0, NULL), -ENOSPC);
        assert_int_equal(fw_cfg_add(&f->machine, "a", "b", 1, NULL), 0);
}

/* ---- a boot ---- */

/* An image of pages that are told from one another. */
static int make_image(size_t size)
{
        int fd = memfd_create("image", MFD_CLOEXEC);
        uint8_t page[4096];

        assert_true(fd >= 0);
        for (size_t at = 0; at < size; at += sizeof(page)) {
                size_t n = size - at < sizeof(page) ? size - at : sizeof(page);

                memset(page, (int)(at / sizeof(page) + 1), sizeof(page));
                assert_int_equal(write(fd, page, n), n);
        }
        return fd;
}

static const struct guest_region *find_region(const struct machine_fixture *f, uint64_t gpa)
{
        for (unsigned i = 0; i < f->machine.memory.n; i++)
                if (f->machine.memory.regions[i].gpa == gpa)
                        return &f->machine.memory.regions[i];
        fail_msg("no memory at %#llx", (unsigned long long)gpa);
        return NULL;
}

static void test_firmware_is_where_a_processor_begins(void **state)
{
        static const struct {
                size_t size, low;
        } images[] = {{128 << 10, 128 << 10}, {256 << 10, 256 << 10}, {4 << 20, 256 << 10}};

        for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
                struct machine_fixture *f;
                const struct guest_region *region;
                struct vcpu_start start;
                uint8_t *low;
                unsigned n;

                teardown(state);
                assert_int_equal(setup(state), 0);
                f = *state;
                f->config.firmware = make_image(images[i].size);
                assert_int_equal(boot_firmware(&f->machine, &start, NULL), 0);
                assert_int_equal(start.mode, VCPU_START_REAL);
                region = find_region(f, GIB(4) - images[i].size);
                assert_false(region->shared);
                assert_int_equal(region->host[0], 1);
                low = guest(f, MIB(1) - images[i].low, images[i].low);
                assert_memory_equal(low, region->host + images[i].size - images[i].low,
                                    images[i].low);
                n = f->machine.memory.n;
                low[0] ^= 0xff; /* it has shadowed itself, and a reset begins anew */
                assert_int_equal(boot_firmware(&f->machine, &start, NULL), 0);
                assert_memory_equal(low, region->host + images[i].size - images[i].low,
                                    images[i].low);
                assert_int_equal(f->machine.memory.n, n);
                close(f->config.firmware);
        }
}

static void test_firmware_is_told_of_the_machine(void **state)
{
        struct machine_fixture *f = *state;
        struct vcpu_start start;
        struct entry entry;
        uint8_t bytes[256];
        uint64_t address;

        f->config.firmware = make_image(128 << 10);
        assert_int_equal(boot_firmware(&f->machine, &start, NULL), 0);
        entry = find_file(f, "etc/e820");
        assert_int_equal(entry.size % 20, 0);
        read_ports(f, entry.key, bytes, 20);
        memcpy(&address, bytes + 8, sizeof(address));
        assert_int_equal(le64toh(address), LAYOUT_EBDA);
        assert_int_equal(bytes[16], E820_RAM);
        entry = find_file(f, "etc/acpi/rsdp");
        assert_int_equal(entry.size, ACPI_RSDP_SIZE);
        read_ports(f, entry.key, bytes, ACPI_RSDP_SIZE);
        assert_memory_equal(bytes, "RSD PTR ", 8);
        memcpy(&address, bytes + 24, sizeof(address));
        assert_memory_equal(guest(f, le64toh(address), 4), "XSDT", 4);
        entry = find_file(f, "etc/table-loader");
        assert_int_equal(entry.size, 128);
        read_ports(f, entry.key, bytes, 128);
        assert_int_equal(bytes[0], 1);
        assert_string_equal((const char *)bytes + 4, "etc/acpi/rsdp");
        assert_int_equal(bytes[60], 16);
        assert_int_equal(bytes[64], 2);
        entry = find_file(f, "bootorder");
        read_ports(f, entry.key, bytes, entry.size);
        assert_int_equal(bytes[entry.size - 1], 0);
        assert_int_equal(find_file(f, "etc/smbios/smbios-anchor").size, 31);
        close(f->config.firmware);
}

static void test_images_that_cannot_be_are_refused(void **state)
{
        static const size_t sizes[] = {0, 4095, 65537, (16 << 20) + 4096};
        struct machine_fixture *f = *state;
        const unsigned n = f->machine.memory.n;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct error err = ERROR_INIT;
                struct vcpu_start start;

                f->config.firmware = make_image(sizes[i]);
                assert_int_equal(boot_firmware(&f->machine, &start, &err), -EINVAL);
                assert_non_null(strstr(err.message, "firmware"));
                assert_int_equal(f->machine.memory.n, n);
                close(f->config.firmware);
        }
}

#define fw_cfg_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            fw_cfg_test(test_firmware_knows_it),
            fw_cfg_test(test_files_are_read_by_dma),
            fw_cfg_test(test_what_dma_cannot_do_is_an_error),
            fw_cfg_test(test_dma_is_a_write_of_memory),
            fw_cfg_test(test_state_is_saved),
            fw_cfg_test(test_there_are_not_too_many_files),
            fw_cfg_test(test_firmware_is_where_a_processor_begins),
            fw_cfg_test(test_firmware_is_told_of_the_machine),
            fw_cfg_test(test_images_that_cannot_be_are_refused),
        };

        alarm(120);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
