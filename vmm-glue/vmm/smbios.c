/* smbios.c - who the machine is: its UUID, which systemd and cloud-init look at, and that it is a virtual
 * one. Of what the specification calls required there is what somebody reads; processors and memory are
 * told of elsewhere.
 *
 * There is no serial number: where one equals a UUID that begins with "ec2", cloud-init takes the machine
 * for Amazon's.
 *
 * Source     DMTF DSP0134 2.8.0: 5.2.1 (entry point), 6.1 (structures), 7.1 (BIOS), 7.2 (system; of the
 *            UUID's bytes 7.2.1), 7.4 (chassis), 7.45 (the end). SeaBIOS, src/fw/biostables.c
 *            (smbios_romfile_setup): it takes an entry point of this size, and sets its address.
 */
#include "vmm-glue/vmm/smbios.h"

#include <assert.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/fw_cfg.h"
#include "vmm-glue/vmm/machine.h"

#define TABLES_MAX 512u

struct entry_point {
        char anchor[4];
        uint8_t checksum, length, major, minor;
        le16 structure_max;
        uint8_t revision, formatted[5];
        char second_anchor[5];
        uint8_t second_checksum;
        le16 size;
        le32 address;
        le16 n;
        uint8_t bcd;
};
static_assert(sizeof(struct entry_point) == 31, "of version 2.1 and later");
#define ENTRY_POINT_SECOND offsetof(struct entry_point, second_anchor)

struct head {
        uint8_t type, length;
        le16 handle;
};
/* Texts are numbers, from 1: the texts behind the structure, in their order; 0: there is none. */
struct bios {
        struct head head;
        uint8_t vendor, version;
        le16 segment;
        uint8_t date, size;
        le64 characteristics;
        uint8_t extension[2], major, minor, controller_major, controller_minor;
};
struct system {
        struct head head;
        uint8_t manufacturer, product, version, serial, uuid[16], wake_up, sku, family;
};
struct chassis {
        struct head head;
        uint8_t manufacturer, type, version, serial, asset_tag, boot_state, power_state,
            thermal_state, security;
        le32 oem;
        uint8_t height, n_cords, n_elements, element_length, sku;
};
static_assert(sizeof(struct bios) == 0x18 && sizeof(struct system) == 0x1b &&
                  sizeof(struct chassis) == 0x16,
              "version 2.8");
#define BIOS_NOTHING_SAID   (1u << 3)    /* of its characteristics */
#define BIOS_ACPI           0x01u        /* of the first byte of extensions */
#define BIOS_VIRTUAL        0x10u        /* of the second */
#define BIOS_DATE           "04/01/2014" /* QEMU's: kernels choose quirks of old firmware by it */
#define BIOS_NO_NUMBER      0xffu
#define WAKE_UP_BY_SWITCH   6u
#define CHASSIS_OTHER       1u
#define CHASSIS_STATE_SAFE  3u
#define CHASSIS_NO_SECURITY 3u
#define TYPE_BIOS           0u
#define TYPE_SYSTEM         1u
#define TYPE_CHASSIS        3u
#define TYPE_END            127u

struct tables {
        uint8_t bytes[TABLES_MAX];
        size_t size, structure_max;
        unsigned n;
};

/* A structure, of which @head is the beginning, and its texts, of which NULL is the end. */
static void put(struct tables *t, void *structure, size_t size, uint8_t type,
                const char *const *texts)
{
        const struct head head = {type, (uint8_t)size, le16_make((uint16_t)t->n)};
        const size_t begin = t->size;

        memcpy(structure, &head, sizeof(head));
        assert(t->size + size + 2 <= sizeof(t->bytes));
        memcpy(t->bytes + t->size, structure, size);
        t->size += size;
        for (; *texts; texts++) {
                const size_t length = strlen(*texts) + 1;

                assert(t->size + length + 2 <= sizeof(t->bytes));
                memcpy(t->bytes + t->size, *texts, length);
                t->size += length;
        }
        /* An empty text ends them; two bytes of zero where there is none at all. */
        t->size += t->size == begin + size ? 2 : 1;
        if (t->size - begin > t->structure_max)
                t->structure_max = t->size - begin;
        t->n++;
}

/* Its first three numbers are little-endian here, and as they are written in text with us. */
static void put_uuid(uint8_t to[16], const uint8_t uuid[16])
{
        static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

        for (unsigned i = 0; i < 16; i++)
                to[i] = uuid[order[i]];
}

static void put_all(struct tables *t, const uint8_t uuid[16])
{
        static const char *const bios_texts[] = {"tarn", "1", BIOS_DATE, NULL},
                                 *const system_texts[] = {"tarn", "virtual machine", NULL},
                                 *const chassis_texts[] = {"tarn", NULL},
                                 *const no_texts[] = {NULL};
        struct bios bios = {.vendor = 1,
                            .version = 2,
                            .segment = le16_make(LAYOUT_BIOS_AREA >> 4),
                            .date = 3,
                            .characteristics = le64_make(BIOS_NOTHING_SAID),
                            .extension = {BIOS_ACPI, BIOS_VIRTUAL},
                            .major = BIOS_NO_NUMBER,
                            .minor = BIOS_NO_NUMBER,
                            .controller_major = BIOS_NO_NUMBER,
                            .controller_minor = BIOS_NO_NUMBER};
        struct system system = {.manufacturer = 1, .product = 2, .wake_up = WAKE_UP_BY_SWITCH};
        struct chassis chassis = {.manufacturer = 1,
                                  .type = CHASSIS_OTHER,
                                  .boot_state = CHASSIS_STATE_SAFE,
                                  .power_state = CHASSIS_STATE_SAFE,
                                  .thermal_state = CHASSIS_STATE_SAFE,
                                  .security = CHASSIS_NO_SECURITY};
        struct head end;

        put_uuid(system.uuid, uuid);
        put(t, &bios, sizeof(bios), TYPE_BIOS, bios_texts);
        put(t, &system, sizeof(system), TYPE_SYSTEM, system_texts);
        put(t, &chassis, sizeof(chassis), TYPE_CHASSIS, chassis_texts);
        put(t, &end, sizeof(end), TYPE_END, no_texts);
}

static uint8_t checksum(const void *data, size_t size)
{
        const uint8_t *bytes = data;
        uint8_t sum = 0;

        for (size_t i = 0; i < size; i++)
                sum += bytes[i];
        return (uint8_t)-sum;
}

static struct entry_point entry_to(const struct tables *t, uint64_t gpa)
{
        struct entry_point entry = {.length = sizeof(entry),
                                    .major = 2,
                                    .minor = 8,
                                    .structure_max = le16_make((uint16_t)t->structure_max),
                                    .size = le16_make((uint16_t)t->size),
                                    .address = le32_make((uint32_t)gpa),
                                    .n = le16_make((uint16_t)t->n),
                                    .bcd = 0x28};

        memcpy(entry.anchor, "_SM_", sizeof(entry.anchor));
        memcpy(entry.second_anchor, "_DMI_", sizeof(entry.second_anchor));
        entry.second_checksum = checksum(entry.second_anchor, sizeof(entry) - ENTRY_POINT_SECOND);
        entry.checksum = checksum(&entry, sizeof(entry));
        return entry;
}

void smbios_write(struct machine *machine)
{
        struct tables t = {0};
        const uint64_t gpa = LAYOUT_SMBIOS + sizeof(struct entry_point);
        struct entry_point entry;
        uint8_t *to;

        put_all(&t, machine->config->uuid);
        entry = entry_to(&t, gpa);
        to = guest_range(&machine->memory, LAYOUT_SMBIOS, sizeof(entry) + t.size);
        assert(to); /* as small as a machine may be, this is RAM */
        memcpy(to, &entry, sizeof(entry));
        memcpy(to + sizeof(entry), t.bytes, t.size);
}

int smbios_tell(struct machine *machine, struct error *err)
{
        struct tables t = {0};
        struct entry_point entry;
        int r;

        put_all(&t, machine->config->uuid);
        entry = entry_to(&t, 0);
        r = fw_cfg_add(machine, "etc/smbios/smbios-tables", t.bytes, t.size, err);
        return r < 0 ? r
                     : fw_cfg_add(machine, "etc/smbios/smbios-anchor", &entry, sizeof(entry), err);
}
