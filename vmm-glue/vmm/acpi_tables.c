/* acpi_tables.c - the ACPI tables: where they lie, and the fixed ones.
 *
 * They lie in the last LAYOUT_ACPI_SIZE bytes of low RAM, whoever boots: firmware is given a ready RSDP
 * that points there. Numbers are little-endian; all addresses are below 4 GiB.
 *
 * Source     ACPI 6.5, section 5.2; PCI Firmware Specification 3.0, section 4.1.2 (MCFG).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/acpi_dsdt.h"
#include "vmm-glue/vmm/aml.h"
#include "vmm-glue/vmm/machine.h"

struct table_head {
        char signature[4];
        le32 length;
        uint8_t revision, checksum;
        char oem[6], oem_table[8];
        le32 oem_revision;
        char creator[4];
        le32 creator_revision;
};
static_assert(sizeof(struct table_head) == 36, "ACPI 5.2.6");

struct address { /* generic address structure */
        uint8_t space, bits, offset, access;
        le64 address;
};
static_assert(sizeof(struct address) == 12, "ACPI 5.2.3.2");
#define SPACE_PORTS   1u
#define ACCESS_BYTES  1u
#define ACCESS_WORDS  2u
#define ACCESS_DWORDS 3u

struct rsdp {
        char signature[8];
        uint8_t checksum;
        char oem[6];
        uint8_t revision;
        le32 rsdt, length;
        le64 xsdt;
        uint8_t checksum_of_all, zero[3];
};
static_assert(sizeof(struct rsdp) == ACPI_RSDP_SIZE, "ACPI 5.2.5.3");
#define RSDP_OLD_SIZE 20u /* what the first checksum is of */

struct facs {
        char signature[4];
        le32 length, hardware_signature, waking_vector, lock, flags;
        le64 x_waking_vector;
        uint8_t version, zero[31];
};
static_assert(sizeof(struct facs) == 64, "ACPI 5.2.10");

struct fadt {
        struct table_head head;
        le32 facs, dsdt;
        uint8_t zero, profile;
        le16 sci;
        le32 smi_command;
        uint8_t acpi_enable, acpi_disable, s4bios, pstate;
        le32 pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
        uint8_t pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length;
        uint8_t gpe0_length, gpe1_length, gpe1_base, cstates;
        le16 c2_latency, c3_latency, flush_size, flush_stride;
        uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
        le16 boot;
        uint8_t zero2;
        le32 flags;
        struct address reset;
        uint8_t reset_value;
        le16 arm_boot;
        uint8_t minor;
        le64 x_facs, x_dsdt;
        struct address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control;
        struct address x_pm_timer, x_gpe0, x_gpe1, sleep_control, sleep_status;
};
static_assert(sizeof(struct fadt) == 268, "ACPI 5.2.9, revision 5");
#define FADT_REVISION         5u
#define FADT_LATENCY_NONE     0xffffu
#define FADT_RESET_VALUE      0x06u
#define FADT_CENTURY          0x32u
#define BOOT_LEGACY_DEVICES   (1u << 0) /* a serial port; not the keyboard controller's bit */
#define BOOT_NO_VGA           (1u << 2)
#define BOOT_NO_ASPM          (1u << 4)
#define FADT_WBINVD           (1u << 0)
#define FADT_C1               (1u << 2)
#define FADT_NO_SLEEP_BUTTON  (1u << 5)
#define FADT_NO_RTC_WAKE      (1u << 6)
#define FADT_TIMER_OF_32_BITS (1u << 8)
#define FADT_RESET            (1u << 10)

struct madt {
        struct table_head head;
        le32 lapic, flags;
};
#define MADT_PICS 1u /* there are 8259s, too */
struct madt_lapic {
        uint8_t type, length, uid, id;
        le32 flags;
};
struct madt_ioapic {
        uint8_t type, length, id, zero;
        le32 address, gsi_base;
};
struct madt_override {
        uint8_t type, length, bus, irq;
        le32 gsi;
        le16 flags;
};
struct madt_nmi {
        uint8_t type, length, uid;
        le16 flags;
        uint8_t lint;
};
static_assert(sizeof(struct madt) == 44 && sizeof(struct madt_lapic) == 8 &&
                  sizeof(struct madt_ioapic) == 12 && sizeof(struct madt_override) == 10,
              "ACPI 5.2.12");
#define MADT_LAPIC    0u
#define MADT_IOAPIC   1u
#define MADT_OVERRIDE 2u
#define MADT_NMI      4u
#define LAPIC_ENABLED 1u
#define ALL_LAPICS    0xffu
#define LEVEL_HIGH    0x0du /* trigger mode 3, polarity 1 */

struct mcfg {
        struct table_head head;
        le64 zero, base;
        le16 segment;
        uint8_t bus_first, bus_last;
        le32 zero2;
};
static_assert(sizeof(struct mcfg) == 60, "PCI firmware 4.1.2");

#define XSDT_TABLES 3u
struct xsdt {
        struct table_head head;
        le64 tables[XSDT_TABLES];
};
static_assert(sizeof(struct xsdt) == 36 + 8 * XSDT_TABLES, "ACPI 5.2.8");

#define TABLE_ALIGN 64u /* FACS wants that */

struct tables {
        uint64_t gpa;
        uint8_t *data;
        size_t size; /* of data: LAYOUT_ACPI_SIZE at most */
};

static uint8_t checksum(const void *data, size_t size)
{
        const uint8_t *bytes = data;
        uint8_t sum = 0;

        for (size_t i = 0; i < size; i++)
                sum += bytes[i];
        return (uint8_t)-sum;
}

static struct table_head head_of(const char *signature, uint8_t revision)
{
        struct table_head head = {
            .revision = revision, .oem_revision = le32_make(1), .creator_revision = le32_make(1)};

        memcpy(head.signature, signature, sizeof(head.signature));
        memcpy(head.oem, "TARN  ", sizeof(head.oem));
        memcpy(head.oem_table, "TARNVMM ", sizeof(head.oem_table));
        memcpy(head.creator, "TARN", sizeof(head.creator));
        return head;
}

/* Room at the end, zeroed. The DSDT is held to one half, and the others are small: there is some. */
static void *room_for(struct tables *tables, size_t size, uint64_t *ret_gpa)
{
        size_t at = (tables->size + TABLE_ALIGN - 1) & ~(size_t)(TABLE_ALIGN - 1);

        assert(at < LAYOUT_ACPI_SIZE && size <= LAYOUT_ACPI_SIZE - at);
        tables->size = at + size;
        *ret_gpa = tables->gpa + at;
        return tables->data + at;
}

/* A table is complete: its length and checksum. */
static void finish(void *table, size_t size)
{
        struct table_head *head = table;

        head->length = le32_make((uint32_t)size);
        head->checksum = checksum(table, size);
}

static struct address port(uint16_t at, uint8_t bits, uint8_t access)
{
        return (struct address){
            .space = SPACE_PORTS, .bits = bits, .access = access, .address = le64_make(at)};
}

static uint64_t put_facs(struct tables *tables)
{
        uint64_t gpa;
        struct facs *facs = room_for(tables, sizeof(*facs), &gpa);

        *facs = (struct facs){.length = le32_make(sizeof(*facs)), .version = 2};
        memcpy(facs->signature, "FACS", sizeof(facs->signature));
        return gpa;
}

/* 0: it does not fit. */
static uint64_t put_dsdt(struct tables *tables, const struct machine *machine)
{
        uint64_t gpa;
        struct table_head *head = room_for(tables, sizeof(*head), &gpa);
        struct aml aml = {.data = tables->data + tables->size,
                          .room = LAYOUT_ACPI_SIZE / 2}; /* the others are small */

        *head = head_of("DSDT", 2);
        acpi_dsdt_write(machine, &aml);
        if (aml.full)
                return 0;
        tables->size += aml.size;
        finish(head, sizeof(*head) + aml.size);
        return gpa;
}

static uint64_t put_fadt(struct tables *tables, uint64_t facs, uint64_t dsdt)
{
        uint64_t gpa;
        struct fadt *fadt = room_for(tables, sizeof(*fadt), &gpa);

        *fadt = (struct fadt){
            .head = head_of("FACP", FADT_REVISION),
            .facs = le32_make((uint32_t)facs),
            .dsdt = le32_make((uint32_t)dsdt),
            .sci = le16_make(GSI_SCI),
            .pm1a_event = le32_make(PORT_PM1_EVENT),
            .pm1a_control = le32_make(PORT_PM1_CONTROL),
            .pm_timer = le32_make(PORT_PM_TIMER),
            .gpe0 = le32_make(PORT_GPE0),
            .pm1_event_length = 4,
            .pm1_control_length = 2,
            .pm_timer_length = 4,
            .gpe0_length = PORT_GPE0_SIZE,
            .c2_latency = le16_make(FADT_LATENCY_NONE),
            .c3_latency = le16_make(FADT_LATENCY_NONE),
            .century = FADT_CENTURY,
            .boot = le16_make(BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM),
            .flags = le32_make(FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_RTC_WAKE |
                               FADT_TIMER_OF_32_BITS | FADT_RESET),
            .reset = port(PORT_RESET, 8, ACCESS_BYTES),
            .reset_value = FADT_RESET_VALUE,
            .x_facs = le64_make(facs),
            .x_dsdt = le64_make(dsdt),
            .x_pm1a_event = port(PORT_PM1_EVENT, 32, ACCESS_WORDS),
            .x_pm1a_control = port(PORT_PM1_CONTROL, 16, ACCESS_WORDS),
            .x_pm_timer = port(PORT_PM_TIMER, 32, ACCESS_DWORDS),
            .x_gpe0 = port(PORT_GPE0, 8 * PORT_GPE0_SIZE, ACCESS_BYTES),
        };
        finish(fadt, sizeof(*fadt));
        return gpa;
}

static uint64_t put_madt(struct tables *tables, unsigned cpus)
{
        const struct madt_ioapic ioapic = {MADT_IOAPIC, sizeof(ioapic), IOAPIC_ID, 0,
                                           le32_make(LAYOUT_IOAPIC)};
        /* The timer is not where ISA has it (irq.c), and the SCI is a level. */
        const struct madt_override overrides[] = {
            {MADT_OVERRIDE, sizeof(overrides[0]), 0, 0, le32_make(2), le16_make(0)},
            {MADT_OVERRIDE, sizeof(overrides[0]), 0, GSI_SCI, le32_make(GSI_SCI),
             le16_make(LEVEL_HIGH)},
        };
        const struct madt_nmi nmi = {MADT_NMI, sizeof(nmi), ALL_LAPICS, le16_make(0), 1};
        size_t size = sizeof(struct madt) + cpus * sizeof(struct madt_lapic) + sizeof(ioapic) +
                      sizeof(overrides) + sizeof(nmi);
        uint64_t gpa;
        struct madt *madt = room_for(tables, size, &gpa);
        uint8_t *at = (uint8_t *)(madt + 1);

        *madt = (struct madt){head_of("APIC", 3), le32_make((uint32_t)LAYOUT_LAPIC),
                              le32_make(MADT_PICS)};
        for (unsigned i = 0; i < cpus; i++) {
                const struct madt_lapic lapic = {MADT_LAPIC, sizeof(lapic), (uint8_t)i, (uint8_t)i,
                                                 le32_make(LAPIC_ENABLED)};

                at = (uint8_t *)memcpy(at, &lapic, sizeof(lapic)) + sizeof(lapic);
        }
        at = (uint8_t *)memcpy(at, &ioapic, sizeof(ioapic)) + sizeof(ioapic);
        at = (uint8_t *)memcpy(at, overrides, sizeof(overrides)) + sizeof(overrides);
        memcpy(at, &nmi, sizeof(nmi));
        finish(madt, size);
        return gpa;
}

static uint64_t put_mcfg(struct tables *tables)
{
        uint64_t gpa;
        struct mcfg *mcfg = room_for(tables, sizeof(*mcfg), &gpa);

        *mcfg = (struct mcfg){.head = head_of("MCFG", 1), .base = le64_make(LAYOUT_ECAM)};
        finish(mcfg, sizeof(*mcfg));
        return gpa;
}

static uint64_t put_xsdt(struct tables *tables, const uint64_t *gpas)
{
        uint64_t gpa;
        struct xsdt *xsdt = room_for(tables, sizeof(*xsdt), &gpa);

        *xsdt = (struct xsdt){.head = head_of("XSDT", 1)};
        for (unsigned i = 0; i < XSDT_TABLES; i++)
                xsdt->tables[i] = le64_make(gpas[i]);
        finish(xsdt, sizeof(*xsdt));
        return gpa;
}

static void make_rsdp(struct rsdp *rsdp, uint64_t xsdt)
{
        *rsdp = (struct rsdp){
            .revision = 2, .length = le32_make(sizeof(*rsdp)), .xsdt = le64_make(xsdt)};
        memcpy(rsdp->signature, "RSD PTR ", sizeof(rsdp->signature));
        memcpy(rsdp->oem, "TARN  ", sizeof(rsdp->oem));
        rsdp->checksum = checksum(rsdp, RSDP_OLD_SIZE);
        rsdp->checksum_of_all = checksum(rsdp, sizeof(*rsdp));
}

/* The XSDT's address; 0: they do not fit. All but the DSDT are of a size that is known. */
static uint64_t put_tables(struct tables *tables, const struct machine *machine)
{
        uint64_t facs = put_facs(tables), dsdt = put_dsdt(tables, machine), gpas[XSDT_TABLES];

        if (!dsdt)
                return 0;
        gpas[0] = put_fadt(tables, facs, dsdt);
        gpas[1] = put_madt(tables, machine->config->cpus);
        gpas[2] = put_mcfg(tables);
        return put_xsdt(tables, gpas);
}

int acpi_tables_write(struct machine *machine, uint64_t rsdp_gpa, uint8_t *ret_rsdp,
                      struct error *err)
{
        struct tables tables = {.gpa = machine->memory.low_size - LAYOUT_ACPI_SIZE,
                                .data = calloc(1, LAYOUT_ACPI_SIZE)};
        void *guest = guest_range(&machine->memory, tables.gpa, LAYOUT_ACPI_SIZE);
        void *guest_rsdp =
            rsdp_gpa ? guest_range(&machine->memory, rsdp_gpa, ACPI_RSDP_SIZE) : NULL;
        struct rsdp rsdp;
        uint64_t xsdt;
        int r = 0;

        if (!tables.data)
                return error_set(err, -ENOMEM, "no memory for the ACPI tables");
        assert(guest && (guest_rsdp || !rsdp_gpa) && machine->config->cpus <= VCPUS_MAX);
        xsdt = put_tables(&tables, machine);
        if (xsdt) {
                make_rsdp(&rsdp, xsdt);
                memcpy(guest, tables.data, LAYOUT_ACPI_SIZE);
                if (guest_rsdp)
                        memcpy(guest_rsdp, &rsdp, sizeof(rsdp));
                if (ret_rsdp)
                        memcpy(ret_rsdp, &rsdp, sizeof(rsdp));
                machine->acpi_gpa = tables.gpa;
                machine->rsdp_gpa = rsdp_gpa;
        } else {
                r = error_set(err, -ENOSPC, "the ACPI tables do not fit into %llu KiB",
                              (unsigned long long)(LAYOUT_ACPI_SIZE >> 10));
        }
        free(tables.data);
        return r;
}
