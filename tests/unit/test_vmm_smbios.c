/* test_vmm_smbios.c - the SMBIOS tables, read as the specification says, where kernels and where firmware
 * look for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/fw_cfg.h"
#include "vmm-glue/vmm/smbios.h"

#define ENTRY_SIZE 31u
#define SCANNED    KIB(64)

static const uint8_t uuid[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static int setup(void **state)
{
        struct machine_fixture *f = fixture_new(LAYOUT_RAM_MIN, NULL);

        *state = f;
        memcpy(f->config.uuid, uuid, sizeof(uuid));
        return fw_cfg_create(&f->machine, NULL);
}

static int teardown(void **state)
{
        fixture_free(*state);
        return 0;
}

static unsigned number(const uint8_t *bytes, unsigned size)
{
        unsigned value = 0;

        for (unsigned i = 0; i < size; i++)
                value |= (unsigned)bytes[i] << (8 * i);
        return value;
}

static uint8_t sum(const uint8_t *bytes, size_t size)
{
        uint8_t all = 0;

        while (size-- > 0)
                all += *bytes++;
        return all;
}

/* What of a structure is looked at here. */
struct found {
        const uint8_t *structure;
        const char *texts[8]; /* from 1 */
        size_t n_texts, size;
};

static struct found look(const uint8_t *at, const uint8_t *end)
{
        struct found found = {.structure = at};
        const char *text;

        assert_true(end - at >= 4 && at[1] >= 4 && at[1] <= end - at);
        text = (const char *)at + at[1];
        while (text < (const char *)end && *text) {
                assert_true(found.n_texts < 7);
                found.texts[++found.n_texts] = text;
                text += strnlen(text, (size_t)((const char *)end - text)) + 1;
        }
        text += found.n_texts == 0 ? 2 : 1;
        assert_true(text <= (const char *)end);
        found.size = (size_t)((const uint8_t *)text - at);
        return found;
}

static const char *text_of(const struct found *found, unsigned offset)
{
        unsigned n = found->structure[offset];

        assert_in_range(n, 1, found->n_texts);
        return found->texts[n];
}

static void check_tables(const uint8_t *tables, const uint8_t *entry)
{
        static const uint8_t types[] = {0, 1, 3, 127};
        static const uint8_t swapped[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                            0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
        const uint8_t *at = tables, *end = tables + number(entry + 0x16, 2);
        struct found found[4];
        size_t largest = 0;

        assert_int_equal(number(entry + 0x1c, 2), 4);
        for (unsigned i = 0; i < 4; i++) {
                found[i] = look(at, end);
                assert_int_equal(at[0], types[i]);
                assert_int_equal(number(at + 2, 2), i);
                at += found[i].size;
                if (found[i].size > largest)
                        largest = found[i].size;
        }
        assert_ptr_equal(at, end);
        assert_int_equal(number(entry + 8, 2), largest);
        assert_int_equal(found[0].structure[1], 0x18);
        assert_int_equal(found[0].structure[0x13] & 0x10, 0x10); /* a virtual machine */
        assert_string_equal(text_of(&found[0], 4), "tarn");
        assert_string_equal(text_of(&found[0], 8), "04/01/2014");
        assert_int_equal(found[1].structure[1], 0x1b);
        assert_string_equal(text_of(&found[1], 4), "tarn");
        assert_string_equal(text_of(&found[1], 5), "virtual machine");
        assert_int_equal(found[1].structure[7], 0); /* no serial number */
        assert_memory_equal(found[1].structure + 8, swapped, 16);
        assert_int_equal(found[2].structure[1], 0x16);
        assert_int_equal(found[3].size, 6);
}

static void check_entry(const uint8_t *entry)
{
        assert_memory_equal(entry, "_SM_", 4);
        assert_int_equal(entry[5], ENTRY_SIZE);
        assert_int_equal(sum(entry, ENTRY_SIZE), 0);
        assert_int_equal(number(entry + 6, 2), 0x0802);
        assert_memory_equal(entry + 0x10, "_DMI_", 5);
        assert_int_equal(sum(entry + 0x10, ENTRY_SIZE - 0x10), 0);
        assert_int_equal(entry[0x1e], 0x28);
}

/* As Linux does without EFI: at each 16 bytes of the last 64 KiB below 1 MiB. */
static void test_a_kernel_finds_them_in_memory(void **state)
{
        struct machine_fixture *f = *state;
        const uint8_t *area, *entry = NULL;
        struct e820_entry map[E820_ENTRIES];
        uint32_t address, size;
        bool reserved = false;
        unsigned n;

        machine_lock(&f->machine);
        smbios_write(&f->machine);
        machine_unlock(&f->machine);
        area = guest_range(&f->machine.memory, MIB(1) - SCANNED, SCANNED);
        assert_non_null(area);
        for (size_t i = 0; i < SCANNED && !entry; i += 16)
                if (memcmp(area + i, "_SM_", 4) == 0)
                        entry = area + i;
        assert_non_null(entry);
        check_entry(entry);
        address = number(entry + 0x18, 4);
        size = number(entry + 0x16, 2);
        assert_true(address >= MIB(1) - SCANNED && address + size <= MIB(1));
        check_tables(area + (address - (MIB(1) - SCANNED)), entry);
        n = memory_map(&f->machine, map);
        for (unsigned i = 0; i < n; i++)
                if (map[i].type == E820_RESERVED && map[i].start <= address &&
                    map[i].start + map[i].size >= address + size)
                        reserved = true;
        assert_true(reserved);
}

static void read_item(struct machine_fixture *f, uint16_t key, void *data, size_t size)
{
        uint8_t *bytes = data;

        fixture_out(f, PORT_FW_CFG, key, 2);
        for (size_t i = 0; i < size; i++)
                bytes[i] = (uint8_t)fixture_in(f, PORT_FW_CFG + 1, 1);
}

/* Its size. */
static size_t read_file(struct machine_fixture *f, const char *name, uint8_t *data, size_t room)
{
        uint8_t directory[4 + 4 * 64];

        read_item(f, 0x19, directory, sizeof(directory));
        for (const uint8_t *entry = directory + 4; entry < directory + sizeof(directory);
             entry += 64) {
                size_t size = (size_t)entry[2] << 8 | entry[3];

                if (strcmp((const char *)entry + 8, name) != 0)
                        continue;
                assert_true(size <= room);
                read_item(f, (uint16_t)(entry[4] << 8 | entry[5]), data, size);
                return size;
        }
        fail_msg("no file %s", name);
        return 0;
}

static void test_firmware_reads_them(void **state)
{
        struct machine_fixture *f = *state;
        uint8_t entry[64], tables[1024];

        machine_lock(&f->machine);
        assert_int_equal(smbios_tell(&f->machine, NULL), 0);
        machine_unlock(&f->machine);
        assert_int_equal(read_file(f, "etc/smbios/smbios-anchor", entry, sizeof(entry)),
                         ENTRY_SIZE);
        check_entry(entry);
        /* SeaBIOS takes them where this is so only. */
        assert_int_equal(read_file(f, "etc/smbios/smbios-tables", tables, sizeof(tables)),
                         number(entry + 0x16, 2));
        check_tables(tables, entry);
}

#define smbios_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            smbios_test(test_a_kernel_finds_them_in_memory),
            smbios_test(test_firmware_reads_them),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
