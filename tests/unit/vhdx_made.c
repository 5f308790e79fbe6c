/* vhdx_made.c - VHDX files made by hand. */
#include "tests/unit/vhdx_made.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/crc32c.h"

#define LOG_SECTORS ((uint32_t)(VHDX_MIB / VHDX_LOG_SECTOR))

const struct vhdx_guid made_log_guid = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

void made_put(const struct made *m, uint64_t offset, const void *bytes, size_t length)
{
        if (pwrite(m->fd, bytes, length, (off_t)offset) != (ssize_t)length)
                abort();
}

void made_put16(const struct made *m, uint64_t offset, uint16_t value)
{
        le16 bytes = le16_make(value);

        made_put(m, offset, &bytes, sizeof(bytes));
}

void made_put32(const struct made *m, uint64_t offset, uint32_t value)
{
        le32 bytes = le32_make(value);

        made_put(m, offset, &bytes, sizeof(bytes));
}

void made_put64(const struct made *m, uint64_t offset, uint64_t value)
{
        le64 bytes = le64_make(value);

        made_put(m, offset, &bytes, sizeof(bytes));
}

void made_fill(const struct made *m, uint64_t offset, uint8_t byte, uint64_t length)
{
        uint8_t bytes[4096];

        memset(bytes, byte, sizeof(bytes));
        while (length > 0) {
                uint64_t n = length < sizeof(bytes) ? length : sizeof(bytes);

                made_put(m, offset, bytes, n);
                offset += n;
                length -= n;
        }
}

void made_end(const struct made *m, uint64_t length)
{
        if (ftruncate(m->fd, (off_t)length) < 0)
                abort();
}

static void mend(const struct made *m, uint64_t offset, size_t length)
{
        uint8_t *bytes = malloc(length);

        if (!bytes || pread(m->fd, bytes, length, (off_t)offset) != (ssize_t)length)
                abort();
        memset(bytes + 4, 0, 4);
        made_put32(m, offset + 4, crc32c(0, bytes, length));
        free(bytes);
}

void made_mend_header(const struct made *m, unsigned i)
{
        mend(m, VHDX_HEADER_OFFSET(i), VHDX_HEADER_SIZE);
}

void made_mend_table(const struct made *m, unsigned i)
{
        mend(m, VHDX_TABLE_OFFSET(i), VHDX_TABLE_SIZE);
}

static void put_header(const struct made *m, unsigned i)
{
        struct vhdx_header_disk h = {.signature = {'h', 'e', 'a', 'd'},
                                     .sequence = le64_make(7 + i),
                                     .data_write = m->data_write,
                                     .version = le16_make(1),
                                     .log_length = le32_make(VHDX_MIB),
                                     .log_offset = le64_make(MADE_LOG)};

        made_put(m, VHDX_HEADER_OFFSET(i), &h, sizeof(h));
        made_mend_header(m, i);
}

static void put_region(const struct made *m, unsigned table, unsigned i, struct vhdx_guid guid,
                       uint64_t offset)
{
        struct vhdx_region_disk region = {guid, le64_make(offset), le32_make(VHDX_MIB),
                                          le32_make(1)};

        made_put(m, MADE_REGION(table, i), &region, sizeof(region));
}

static void put_item(const struct made *m, unsigned i, struct vhdx_guid id, uint32_t flags,
                     uint32_t length)
{
        struct vhdx_item_disk item = {.id = id,
                                      .offset =
                                          le32_make((uint32_t)(MADE_VALUE(i) - MADE_METADATA)),
                                      .length = le32_make(length),
                                      .flags = le32_make(flags)};

        made_put(m, MADE_ITEM(i), &item, sizeof(item));
        if (i >= 5)
                made_put16(m, MADE_METADATA + 10, (uint16_t)(i + 1));
}

static void put_metadata(const struct made *m)
{
        made_put(m, MADE_METADATA, "metadata", 8);
        made_put16(m, MADE_METADATA + 10, 5);
        put_item(m, MADE_PARAMETERS, VHDX_ITEM_PARAMETERS, 4, 8);
        put_item(m, MADE_SIZE, VHDX_ITEM_SIZE, 6, 8);
        put_item(m, MADE_PAGE_83, VHDX_ITEM_PAGE_83, 6, 16);
        put_item(m, MADE_LOGICAL, VHDX_ITEM_LOGICAL_SECTOR, 6, 4);
        put_item(m, MADE_PHYSICAL, VHDX_ITEM_PHYSICAL_SECTOR, 6, 4);
        made_put32(m, MADE_VALUE(MADE_PARAMETERS), (uint32_t)m->block);
        made_put32(m, MADE_VALUE(MADE_PARAMETERS) + 4, m->flags);
        made_put64(m, MADE_VALUE(MADE_SIZE), m->size);
        made_put32(m, MADE_VALUE(MADE_LOGICAL), m->sector);
        made_put32(m, MADE_VALUE(MADE_PHYSICAL), 4096);
}

void made_begin(struct made *m)
{
        m->block = m->block ? m->block : VHDX_MIB;
        m->size = m->size ? m->size : 8 * m->block;
        m->sector = m->sector ? m->sector : 512;
        m->next = MADE_DATA;
        made_end(m, 0);
        made_end(m, MADE_DATA);
        made_put(m, 0, "vhdxfile", 8);
        for (unsigned i = 0; i < 2; i++) {
                put_header(m, i);
                made_put(m, VHDX_TABLE_OFFSET(i), "regi", 4);
                made_put32(m, VHDX_TABLE_OFFSET(i) + 8, 2);
                put_region(m, i, 0, VHDX_REGION_BAT, MADE_BAT);
                put_region(m, i, 1, VHDX_REGION_METADATA, MADE_METADATA);
                made_mend_table(m, i);
        }
        put_metadata(m);
}

static uint64_t chunk_blocks(const struct made *m)
{
        return (UINT64_C(1) << 23) * m->sector / m->block;
}

uint64_t made_entry_at(const struct made *m, uint64_t block)
{
        return MADE_BAT + 8 * (block + block / chunk_blocks(m));
}

uint64_t made_bitmap_at(const struct made *m, uint64_t block)
{
        uint64_t n = chunk_blocks(m);

        return MADE_BAT + 8 * (block / n * (n + 1) + n);
}

void made_entry(const struct made *m, uint64_t block, uint64_t offset, enum vhdx_state state)
{
        made_put64(m, made_entry_at(m, block), offset | state);
}

static uint64_t take(struct made *m, uint64_t length)
{
        uint64_t offset = m->next;

        m->next += length;
        made_end(m, m->next);
        return offset;
}

uint64_t made_block(struct made *m, uint64_t block, enum vhdx_state state, uint8_t byte)
{
        uint64_t offset = take(m, m->block);

        made_fill(m, offset, byte, m->block);
        made_entry(m, block, offset, state);
        return offset;
}

uint64_t made_bitmap(struct made *m, uint64_t block)
{
        uint64_t offset = take(m, VHDX_BITMAP_BLOCK);

        made_put64(m, made_bitmap_at(m, block), offset | VHDX_PRESENT);
        return offset;
}

static uint16_t put_utf16(const struct made *m, uint64_t at, const char *ascii)
{
        for (size_t i = 0; ascii[i]; i++)
                made_put16(m, at + 2 * i, (uint8_t)ascii[i]);
        return (uint16_t)(2 * strlen(ascii));
}

void made_locator(const struct made *m, const char *const (*pairs)[2])
{
        uint64_t base = MADE_VALUE(MADE_PARENT), text = 1024;
        uint16_t n = 0;

        put_item(m, MADE_PARENT, VHDX_ITEM_PARENT, 4, 4096);
        made_put(m, base, &VHDX_LOCATOR_VHDX, 16);
        for (; pairs[n][0]; n++)
                for (unsigned i = 0; i < 2; i++) {
                        uint16_t length = put_utf16(m, base + text, pairs[n][i]);

                        made_put32(m, base + 20 + 12 * n + 4 * i, (uint32_t)text);
                        made_put16(m, base + 20 + 12 * n + 8 + 2 * i, length);
                        text += length;
                }
        made_put16(m, base + 18, n);
}

/* ---- logs ---- */

void made_use_log(const struct made *m)
{
        for (unsigned i = 0; i < 2; i++) {
                made_put(m, VHDX_HEADER_OFFSET(i) + 48, &made_log_guid, 16);
                made_mend_header(m, i);
        }
}

static uint64_t sector_at(uint32_t sector)
{
        return MADE_LOG + (uint64_t)(sector % LOG_SECTORS) * VHDX_LOG_SECTOR;
}

void made_mend_log(const struct made *m, uint32_t sector, uint32_t n_sectors)
{
        uint8_t bytes[VHDX_LOG_SECTOR];
        uint32_t sum = 0;

        for (uint32_t i = 0; i < n_sectors; i++) {
                if (pread(m->fd, bytes, sizeof(bytes), (off_t)sector_at(sector + i)) !=
                    sizeof(bytes))
                        abort();
                if (i == 0)
                        memset(bytes + 4, 0, 4);
                sum = crc32c(sum, bytes, sizeof(bytes));
        }
        made_put32(m, sector_at(sector) + 4, sum);
}

static void put_record(const struct made *m, const struct made_log_entry *e, uint32_t i,
                       uint32_t data)
{
        const struct made_record *r = &e->records[i];
        struct vhdx_descriptor_disk d = {.signature = {'z', 'e', 'r', 'o'},
                                         .leading = le64_make(r->length),
                                         .offset = le64_make(r->offset),
                                         .sequence = le64_make(e->sequence)};

        if (r->data) {
                memcpy(d.signature, "desc", 4);
                memcpy(&d.leading, r->data, 8);
                memcpy(d.trailing, r->data + VHDX_LOG_SECTOR - 4, 4);
                made_put(m, sector_at(data), r->data, VHDX_LOG_SECTOR);
                made_put(m, sector_at(data), "data", 4);
                made_put32(m, sector_at(data) + 4, (uint32_t)(e->sequence >> 32));
                made_put32(m, sector_at(data) + VHDX_LOG_SECTOR - 4, (uint32_t)e->sequence);
        }
        made_put(m, sector_at(e->sector + (i + 2) / 128) + (i + 2) % 128 * 32, &d, sizeof(d));
}

uint32_t made_log(const struct made *m, const struct made_log_entry *e)
{
        uint32_t n_first = (e->n_records + 2 + 127) / 128, n = n_first;
        struct vhdx_entry_disk head = {.signature = {'l', 'o', 'g', 'e'},
                                       .tail = le32_make(e->tail * VHDX_LOG_SECTOR),
                                       .sequence = le64_make(e->sequence),
                                       .n_descriptors = le32_make(e->n_records),
                                       .log = made_log_guid,
                                       .flushed = le64_make(e->flushed),
                                       .last = le64_make(e->last)};

        for (uint32_t i = 0; i < n_first; i++)
                made_fill(m, sector_at(e->sector + i), 0, VHDX_LOG_SECTOR);
        for (uint32_t i = 0; i < e->n_records; i++) {
                put_record(m, e, i, e->sector + n);
                n += e->records[i].data != NULL;
        }
        head.length = le32_make(n * VHDX_LOG_SECTOR);
        made_put(m, sector_at(e->sector), &head, sizeof(head));
        made_mend_log(m, e->sector, n);
        return (e->sector + n) % LOG_SECTORS;
}
