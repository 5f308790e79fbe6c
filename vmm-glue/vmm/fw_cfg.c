/* fw_cfg.c - what firmware asks the machine for.
 *
 * Ports: the selector (two bytes), data (a byte, the next with each read), and the address of an access
 * by DMA: two big-endian halves, of which the second begins it. Keys that there are not read as zeroes,
 * and so does what is behind an item's end. Nothing can be written.
 */
#include "vmm-glue/vmm/fw_cfg.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/vmm/byte_ports.h"
#include "vmm-glue/vmm/machine.h"

#define FW_CFG_PORTS  12u
#define PORT_SELECT   0u
#define PORT_DATA     1u
#define PORT_DMA      4u
#define DMA_SIGNATURE UINT64_C(0x51454d5520434647) /* "QEMU CFG" */

#define KEY_SIGNATURE     0x00u
#define KEY_ID            0x01u
#define KEY_NO_GRAPHIC    0x04u
#define KEY_CPUS          0x05u
#define KEY_BOOT_MENU     0x0eu
#define KEY_CPUS_MAX      0x0fu
#define KEY_DIRECTORY     0x19u
#define KEY_FILE_FIRST    0x20u
#define KEY_IRQ0_OVERRIDE 0x8002u
#define ID_PORTS          0x01u
#define ID_DMA            0x02u

#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u
#define DMA_KEY    16 /* the key's lowest bit */

#define ITEMS_FIXED 8u
#define ITEMS_MAX   (ITEMS_FIXED + FW_CFG_FILES_MAX)

/* Both big-endian. */
struct dma_access {
        uint32_t control, length;
        uint64_t address;
};
struct directory_entry {
        uint32_t size;
        uint16_t key, zero;
        char name[FW_CFG_NAME_MAX + 1];
};
static_assert(sizeof(struct dma_access) == 16 && sizeof(struct directory_entry) == 64, "fw_cfg");

struct item {
        uint16_t key;
        char name[FW_CFG_NAME_MAX + 1]; /* empty: no file */
        uint8_t *data;
        uint32_t size;
};

struct fw_cfg {
        struct device device;
        struct bus_range range;
        struct item items[ITEMS_MAX];
        unsigned n, n_files;
        uint16_t key;
        uint32_t offset; /* in the item of that key: at most its size */
        uint32_t dma_high;
};

/* ---- items ---- */

static struct item *find(struct fw_cfg *fw_cfg, uint16_t key)
{
        for (unsigned i = 0; i < fw_cfg->n; i++)
                if (fw_cfg->items[i].key == key)
                        return &fw_cfg->items[i];
        return NULL;
}

/* Gives @item a copy. Whoever reads it is before its beginning again. */
static int set_data(struct fw_cfg *fw_cfg, struct item *item, const void *data, size_t size,
                    struct error *err)
{
        uint8_t *copy = malloc(size > 0 ? size : 1);

        assert(size <= FW_CFG_DMA_MAX);
        if (!copy)
                return error_set(err, -ENOMEM, "no memory for what firmware is told");
        if (size > 0)
                memcpy(copy, data, size);
        free(item->data);
        item->data = copy;
        item->size = (uint32_t)size;
        if (fw_cfg->key == item->key)
                fw_cfg->offset = 0;
        return 0;
}

static int set_item(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t size,
                    struct error *err)
{
        struct item *item = find(fw_cfg, key);
        int r;

        if (item)
                return set_data(fw_cfg, item, data, size, err);
        assert(fw_cfg->n < ITEMS_MAX);
        item = &fw_cfg->items[fw_cfg->n++];
        *item = (struct item){.key = key};
        r = set_data(fw_cfg, item, data, size, err);
        if (r < 0)
                fw_cfg->n--;
        return r;
}

static int set_number(struct fw_cfg *fw_cfg, uint16_t key, uint32_t value, size_t size,
                      struct error *err)
{
        const uint32_t le = htole32(value);

        return set_item(fw_cfg, key, &le, size, err);
}

static int list_files(struct fw_cfg *fw_cfg, struct error *err)
{
        struct {
                uint32_t n;
                struct directory_entry entries[FW_CFG_FILES_MAX];
        } directory = {.n = htobe32(fw_cfg->n_files)};
        struct directory_entry *entry = directory.entries;

        for (unsigned i = 0; i < fw_cfg->n; i++) {
                const struct item *item = &fw_cfg->items[i];

                if (item->name[0] == '\0')
                        continue;
                entry->size = htobe32(item->size);
                entry->key = htobe16(item->key);
                memcpy(entry->name, item->name, sizeof(entry->name));
                entry++;
        }
        return set_item(fw_cfg, KEY_DIRECTORY, &directory,
                        sizeof(directory.n) + fw_cfg->n_files * sizeof(*entry), err);
}

int fw_cfg_add(struct machine *machine, const char *name, const void *data, size_t size,
               struct error *err)
{
        struct fw_cfg *fw_cfg = machine->fw_cfg;
        struct item *item = NULL;
        int r;

        assert(name[0] != '\0' && strlen(name) <= FW_CFG_NAME_MAX);
        for (unsigned i = 0; i < fw_cfg->n; i++)
                if (strcmp(fw_cfg->items[i].name, name) == 0)
                        item = &fw_cfg->items[i];
        if (!item) {
                if (fw_cfg->n_files == FW_CFG_FILES_MAX)
                        return error_set(err, -ENOSPC, "firmware is told more than %u files",
                                         FW_CFG_FILES_MAX);
                r = set_item(fw_cfg, (uint16_t)(KEY_FILE_FIRST + fw_cfg->n_files), data, size, err);
                if (r < 0)
                        return r;
                item = &fw_cfg->items[fw_cfg->n - 1];
                memcpy(item->name, name, strlen(name) + 1);
                fw_cfg->n_files++;
        } else {
                r = set_data(fw_cfg, item, data, size, err);
                if (r < 0)
                        return r;
        }
        return list_files(fw_cfg, err);
}

/* ---- what the guest does ---- */

static void select_key(struct fw_cfg *fw_cfg, uint16_t key)
{
        fw_cfg->key = key;
        fw_cfg->offset = 0;
}

/* What is left of the item that is selected, at most @length bytes; and go on behind it. */
static uint32_t take(struct fw_cfg *fw_cfg, uint32_t length, const uint8_t **ret_data)
{
        const struct item *item = find(fw_cfg, fw_cfg->key);
        uint32_t left = item ? item->size - fw_cfg->offset : 0;

        if (length > left)
                length = left;
        *ret_data = item ? item->data + fw_cfg->offset : NULL;
        fw_cfg->offset += length;
        return length;
}

static bool dma_read(struct fw_cfg *fw_cfg, uint64_t address, uint32_t length)
{
        const struct guest_memory *memory = &fw_cfg->device.machine->memory;
        const uint8_t *data;
        uint8_t *to;
        uint32_t n;

        if (length == 0)
                return true;
        to = length <= FW_CFG_DMA_MAX ? guest_range(memory, address, length) : NULL;
        if (!to)
                return false;
        n = take(fw_cfg, length, &data);
        if (n > 0)
                memcpy(to, data, n);
        memset(to + n, 0, length - n);
        memory_mark(memory, to, length);
        return true;
}

static void dma(struct fw_cfg *fw_cfg, uint64_t gpa)
{
        const struct guest_memory *memory = &fw_cfg->device.machine->memory;
        uint8_t *at = guest_range(memory, gpa, sizeof(struct dma_access));
        struct dma_access access;
        const uint8_t *skipped;
        uint32_t control, result = 0;

        if (!at) /* there is nowhere to tell */
                return;
        memcpy(&access, at, sizeof(access));
        control = be32toh(access.control);
        if (control & DMA_SELECT)
                select_key(fw_cfg, (uint16_t)(control >> DMA_KEY));
        if (control & DMA_READ)
                result = dma_read(fw_cfg, be64toh(access.address), be32toh(access.length))
                             ? 0
                             : DMA_ERROR;
        else if (control & DMA_WRITE)
                result = DMA_ERROR;
        else if (control & DMA_SKIP)
                take(fw_cfg, be32toh(access.length), &skipped);
        result = htobe32(result);
        memcpy(at, &result, sizeof(result));
        memory_mark(memory, at, sizeof(result));
}

static uint8_t read_port(void *owner, unsigned port)
{
        struct fw_cfg *fw_cfg = owner;
        const uint8_t *data;

        if (port == PORT_DATA)
                return take(fw_cfg, 1, &data) ? *data : 0;
        if (port >= PORT_DMA)
                return (uint8_t)(DMA_SIGNATURE >> (8 * (7 - (port - PORT_DMA))));
        return 0;
}

static uint64_t fw_cfg_read(void *owner, uint64_t offset, unsigned size)
{
        return byte_ports_read(owner, offset, size, read_port);
}

static void fw_cfg_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct fw_cfg *fw_cfg = owner;
        uint32_t half = be32toh(htole32((uint32_t)value));

        if (offset == PORT_SELECT && size == 2) {
                select_key(fw_cfg, (uint16_t)value);
        } else if (offset == PORT_DMA && size == 4) {
                fw_cfg->dma_high = half;
        } else if (offset == PORT_DMA + 4 && size == 4) {
                uint64_t gpa = (uint64_t)fw_cfg->dma_high << 32 | half;

                fw_cfg->dma_high = 0;
                dma(fw_cfg, gpa);
        }
}

static const struct bus_ops fw_cfg_ports = {fw_cfg_read, fw_cfg_write};

/* ---- the device ---- */

static void fw_cfg_reset(struct device *device)
{
        struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);

        select_key(fw_cfg, KEY_SIGNATURE);
        fw_cfg->dma_high = 0;
}

/* The items are the same in the next machine: its boot makes them. */
static void fw_cfg_save(struct device *device, struct state_writer *w)
{
        const struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);

        state_put16(w, fw_cfg->key);
        state_put32(w, fw_cfg->offset);
        state_put32(w, fw_cfg->dma_high);
}

static int fw_cfg_restore(struct device *device, struct state_reader *r, struct error *err)
{
        struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);
        const uint8_t *passed;

        select_key(fw_cfg, state_get16(r));
        take(fw_cfg, state_get32(r), &passed);
        fw_cfg->dma_high = state_get32(r);
        return 0;
}

static void fw_cfg_free(struct device *device)
{
        struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);

        bus_remove(&device->machine->ports, &fw_cfg->range);
        device->machine->fw_cfg = NULL;
        for (unsigned i = 0; i < fw_cfg->n; i++)
                free(fw_cfg->items[i].data);
        free(fw_cfg);
}

static const struct device_ops fw_cfg_ops = {
    .version = 1,
    .reset = fw_cfg_reset,
    .save = fw_cfg_save,
    .restore = fw_cfg_restore,
    .free = fw_cfg_free,
};

/* What every machine tells. */
static int set_numbers(struct fw_cfg *fw_cfg, unsigned cpus, struct error *err)
{
        const struct {
                uint16_t key;
                uint32_t value;
                size_t size;
        } numbers[] = {
            {KEY_ID, ID_PORTS | ID_DMA, 4}, {KEY_NO_GRAPHIC, 1, 2}, {KEY_CPUS, cpus, 2},
            {KEY_CPUS_MAX, cpus, 2},        {KEY_BOOT_MENU, 0, 2},  {KEY_IRQ0_OVERRIDE, 1, 1},
        };
        int r = set_item(fw_cfg, KEY_SIGNATURE, "QEMU", 4, err);

        static_assert(sizeof(numbers) / sizeof(numbers[0]) + 2 == ITEMS_FIXED, "ITEMS_FIXED");
        for (size_t i = 0; r == 0 && i < sizeof(numbers) / sizeof(numbers[0]); i++)
                r = set_number(fw_cfg, numbers[i].key, numbers[i].value, numbers[i].size, err);
        return r == 0 ? list_files(fw_cfg, err) : r;
}

int fw_cfg_create(struct machine *machine, struct error *err)
{
        struct fw_cfg *fw_cfg = calloc(1, sizeof(*fw_cfg));
        int r;

        if (!fw_cfg)
                return error_set(err, -ENOMEM, "no memory for a device");
        fw_cfg->device = (struct device){&fw_cfg_ops, machine, .id = "fw_cfg"};
        fw_cfg->range = (struct bus_range){PORT_FW_CFG, FW_CFG_PORTS, &fw_cfg_ports, fw_cfg};
        machine->fw_cfg = fw_cfg;
        r = set_numbers(fw_cfg, machine->config->cpus, err);
        if (r == 0)
                r = bus_add(&machine->ports, &fw_cfg->range, err);
        if (r < 0) {
                fw_cfg_free(&fw_cfg->device);
                return r;
        }
        machine_add_device(machine, &fw_cfg->device);
        return 0;
}
