/* test_vmm_acpi.c - the ACPI tables: found from the RSDP as a kernel finds them, with right lengths and
 * checksums; and what iasl says of the DSDT, both ways. And the memory map. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/le.h"
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/aml.h"

#define HEAD_SIZE 36u

struct shape {
        unsigned cpus;
        uint64_t memory;
};

static uint32_t get32(const uint8_t *at)
{
        le32 le;

        memcpy(&le, at, sizeof(le));
        return le32_get(le);
}

static uint64_t get64(const uint8_t *at)
{
        le64 le;

        memcpy(&le, at, sizeof(le));
        return le64_get(le);
}

static uint8_t sum_of(const uint8_t *data, size_t size)
{
        uint8_t sum = 0;

        for (size_t i = 0; i < size; i++)
                sum += data[i];
        return sum;
}

/* A table at @gpa, that is one, and lies where the memory map says that tables are. */
static const uint8_t *table_at(const struct machine *machine, uint64_t gpa, const char *signature)
{
        const uint64_t begin = machine->memory.low_size - LAYOUT_ACPI_SIZE;
        const uint8_t *table = guest_range(&machine->memory, gpa, HEAD_SIZE);
        uint32_t size;

        assert_non_null(table);
        assert_memory_equal(table, signature, 4);
        size = get32(table + 4);
        assert_true(gpa >= begin && gpa + size <= machine->memory.low_size);
        if (strcmp(signature, "FACS") != 0)
                assert_int_equal(sum_of(table, size), 0);
        return table;
}

static struct machine_fixture *make(const struct shape *shape)
{
        struct machine_fixture *f = fixture_new(shape->memory, NULL);

        f->config.cpus = shape->cpus;
        return f;
}

static const uint8_t *find_table(const struct machine *machine, const uint8_t *rsdp,
                                 const char *signature)
{
        const uint8_t *xsdt = table_at(machine, get64(rsdp + 24), "XSDT");

        for (uint32_t at = HEAD_SIZE; at < get32(xsdt + 4); at += 8) {
                const uint8_t *table = guest_range(&machine->memory, get64(xsdt + at), HEAD_SIZE);

                if (memcmp(table, signature, 4) == 0)
                        return table_at(machine, get64(xsdt + at), signature);
        }
        fail_msg("no table %s", signature);
        return NULL;
}

static void check_madt(const uint8_t *madt, unsigned cpus)
{
        unsigned n[5] = {0};

        assert_int_equal(get32(madt + 36), LAYOUT_LAPIC);
        for (uint32_t at = 44; at < get32(madt + 4); at += madt[at + 1]) {
                assert_true(madt[at] < 5 && madt[at + 1] > 0);
                if (madt[at] == 0) {
                        assert_int_equal(madt[at + 2], n[0]);
                        assert_int_equal(madt[at + 3], n[0]);
                        assert_int_equal(get32(madt + at + 4), 1);
                } else if (madt[at] == 1) {
                        assert_int_equal(get32(madt + at + 4), LAYOUT_IOAPIC);
                }
                n[madt[at]]++;
        }
        assert_int_equal(n[0], cpus);
        assert_int_equal(n[1], 1);
        assert_int_equal(n[2], 2);
        assert_int_equal(n[4], 1);
}

static void check_fadt(const struct machine *machine, const uint8_t *fadt)
{
        assert_int_equal(get32(fadt + 36) % 64, 0);
        table_at(machine, get32(fadt + 36), "FACS");
        table_at(machine, get32(fadt + 40), "DSDT");
        assert_int_equal(get64(fadt + 140), get32(fadt + 40));
        assert_int_equal(fadt[46], GSI_SCI);
        assert_int_equal(get32(fadt + 48), 0); /* no SMI: always in ACPI mode */
        assert_int_equal(get32(fadt + 56), PORT_PM1_EVENT);
        assert_int_equal(get32(fadt + 64), PORT_PM1_CONTROL);
        assert_int_equal(get32(fadt + 76), PORT_PM_TIMER);
        assert_int_equal(get32(fadt + 80), PORT_GPE0);
        assert_int_equal(fadt[108], 0x32);                /* century */
        assert_int_equal(fadt[109] & 2, 0);               /* no keyboard controller */
        assert_int_equal(get32(fadt + 112) >> 20 & 1, 0); /* not hardware-reduced */
        assert_int_equal(get64(fadt + 120), PORT_RESET);
}

static void test_a_kernel_finds_all_tables(void **state)
{
        static const struct shape shapes[] = {
            {1, LAYOUT_RAM_MIN}, {2, MIB(256)}, {VCPUS_MAX, GIB(6)}};

        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
                struct machine_fixture *f = make(&shapes[i]);
                struct machine *machine = &f->machine;
                uint8_t rsdp[ACPI_RSDP_SIZE];
                const uint8_t *mcfg;

                assert_int_equal(acpi_tables_write(machine, LAYOUT_BIOS_AREA, rsdp, NULL), 0);
                assert_memory_equal(guest_range(&machine->memory, LAYOUT_BIOS_AREA, sizeof(rsdp)),
                                    rsdp, sizeof(rsdp));
                assert_int_equal(machine->rsdp_gpa, LAYOUT_BIOS_AREA);
                assert_memory_equal(rsdp, "RSD PTR ", 8);
                assert_int_equal(sum_of(rsdp, 20), 0);
                assert_int_equal(sum_of(rsdp, sizeof(rsdp)), 0);
                check_fadt(machine, find_table(machine, rsdp, "FACP"));
                check_madt(find_table(machine, rsdp, "APIC"), shapes[i].cpus);
                mcfg = find_table(machine, rsdp, "MCFG");
                assert_int_equal(get64(mcfg + 44), LAYOUT_ECAM);
                assert_int_equal(mcfg[54], 0);
                assert_int_equal(mcfg[55], LAYOUT_ECAM_SIZE / MIB(1) - 1);
                fixture_free(f);
        }
}

static void test_firmware_gets_its_own_rsdp(void **state)
{
        struct machine_fixture *f = make(&(struct shape){1, MIB(64)});
        uint8_t rsdp[ACPI_RSDP_SIZE];

        assert_int_equal(acpi_tables_write(&f->machine, 0, rsdp, NULL), 0);
        assert_int_equal(f->machine.rsdp_gpa, 0);
        find_table(&f->machine, rsdp, "FACP");
        fixture_free(f);
}

/* ---- iasl ---- */

static void run(const char *dir, const char *command)
{
        char line[512];
        int r;

        snprintf(line, sizeof(line), "cd '%s' && %s >log 2>&1", dir, command);
        r = system(line);
        if (r != 0) {
                snprintf(line, sizeof(line), "cat '%s'/log", dir);
                if (system(line) != 0)
                        print_message("no log\n");
                fail_msg("%s: status %d", command, r);
        }
}

static void write_table(const char *dir, const char *name, const uint8_t *table)
{
        char path[256];
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
        file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fwrite(table, 1, get32(table + 4), file), get32(table + 4));
        assert_int_equal(fclose(file), 0);
}

/* Disassembled, and compiled again, the DSDT is without errors and warnings; and has what it is to. */
static void test_iasl_likes_the_tables(void **state)
{
        static const char *const names[] = {"FACP", "APIC", "MCFG"};
        static const char *const words[] = {
            "PNP0A03", "PNP0501", "PNP0B00", "QEMU0001",   "_E01", "Notify (S01F, 0x03)",
            "_EJ0",    "_S5",     "C03F",    "0xFEBFFFFF", "_PIC"};
        char dir[] = "/tmp/test_vmm_acpi_XXXXXX", command[128];
        struct machine_fixture *f;
        uint8_t rsdp[ACPI_RSDP_SIZE];

        if (system("iasl -v >/dev/null 2>&1") != 0) {
                print_message("SKIP iasl is not here\n");
                skip();
        }
        f = make(&(struct shape){VCPUS_MAX, MIB(64)});
        assert_non_null(mkdtemp(dir));
        assert_int_equal(acpi_tables_write(&f->machine, LAYOUT_BIOS_AREA, rsdp, NULL), 0);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                write_table(dir, names[i], find_table(&f->machine, rsdp, names[i]));
                snprintf(command, sizeof(command), "iasl -d %s.dat", names[i]);
                run(dir, command);
                snprintf(command, sizeof(command), "! grep -Ei 'invalid|unknown|error' %s.dsl log",
                         names[i]);
                run(dir, command);
        }
        write_table(
            dir, "DSDT",
            table_at(&f->machine, get32(find_table(&f->machine, rsdp, "FACP") + 40), "DSDT"));
        run(dir, "iasl -d DSDT.dat");
        run(dir, "! grep -Ei 'invalid|unresolved|error' DSDT.dsl log");
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                snprintf(command, sizeof(command), "grep -F '%s' DSDT.dsl", words[i]);
                run(dir, command);
        }
        run(dir, "iasl -we DSDT.dsl");
        snprintf(command, sizeof(command), "rm -r '%s'", dir);
        assert_int_equal(system(command), 0);
        fixture_free(f);
}

/* ---- AML by itself ---- */

static void test_numbers_and_names_are_encoded(void **state)
{
        static const uint8_t expected[] = {
            0x00,                                                      /* 0 */
            0x01,                                                      /* 1 */
            0x0a, 0xff,                                                /* a byte */
            0x0b, 0x00, 0x01,                                          /* a word */
            0x0c, 0x00, 0x00, 0x01, 0x00,                              /* four bytes */
            0x0e, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,      /* eight */
            0x0c, 0x41, 0xd0, 0x05, 0x01,                              /* PNP0501 */
            '\\', 0x2e, '_',  'S',  'B',  '_',  'P',  'C',  'I',  '0', /* a path of two */
            '\\', 0x00,                                                /* the root */
            '\\', 0x2f, 0x03, 'A',  '_',  '_',  '_',  'B',  '_',  '_', '_', 'C', '_', '_', '_',
        };
        uint8_t data[128];
        struct aml aml = {.data = data, .room = sizeof(data)};

        aml_integer(&aml, 0);
        aml_integer(&aml, 1);
        aml_integer(&aml, 0xff);
        aml_integer(&aml, 0x100);
        aml_integer(&aml, 0x10000);
        aml_integer(&aml, UINT64_C(1) << 32);
        aml_eisa_id(&aml, "PNP0501");
        aml_path(&aml, "\\_SB.PCI0");
        aml_path(&aml, "\\");
        aml_path(&aml, "\\A.B.C");
        assert_false(aml.full);
        assert_int_equal(aml.size, sizeof(expected));
        assert_memory_equal(data, expected, sizeof(expected));
}

static void test_what_does_not_fit_is_told(void **state)
{
        uint8_t data[8] = {0};
        struct aml aml = {.data = data, .room = 7};
        size_t scope = aml_open_scope(&aml, "AB");

        assert_true(aml.full);
        aml_close(&aml, scope);
        assert_int_equal(data[7], 0);
}

/* ---- the memory map ---- */

static void test_the_map_has_all_memory_once(void **state)
{
        static const uint64_t sizes[] = {LAYOUT_RAM_MIN, LAYOUT_RAM_LOW_MAX, GIB(8)};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct machine_fixture *f = make(&(struct shape){1, sizes[i]});
                struct e820_entry entries[E820_ENTRIES];
                unsigned n = memory_map(&f->machine, entries);
                uint64_t ram = 0, end = 0;

                assert_in_range(n, 1, E820_ENTRIES);
                for (unsigned j = 0; j < n; j++) {
                        assert_true(entries[j].start >= end && entries[j].size > 0);
                        end = entries[j].start + entries[j].size;
                        if (entries[j].type != E820_RAM)
                                continue;
                        ram += entries[j].size;
                        assert_non_null(
                            guest_range(&f->machine.memory, entries[j].start, entries[j].size));
                }
                assert_int_equal(sizes[i] - ram, LAYOUT_ACPI_SIZE + MIB(1) - LAYOUT_EBDA);
                fixture_free(f);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_a_kernel_finds_all_tables),
            cmocka_unit_test(test_firmware_gets_its_own_rsdp),
            cmocka_unit_test(test_iasl_likes_the_tables),
            cmocka_unit_test(test_numbers_and_names_are_encoded),
            cmocka_unit_test(test_what_does_not_fit_is_told),
            cmocka_unit_test(test_the_map_has_all_memory_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
