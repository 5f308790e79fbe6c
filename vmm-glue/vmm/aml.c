/* aml.c - write ACPI Machine Language. */
#include "vmm-glue/vmm/aml.h"

#include <assert.h>
#include <string.h>

#include "common/le.h"

#define OP_NAME        0x08u
#define OP_BYTE        0x0au
#define OP_WORD        0x0bu
#define OP_DWORD       0x0cu
#define OP_STRING      0x0du
#define OP_QWORD       0x0eu
#define OP_SCOPE       0x10u
#define OP_BUFFER      0x11u
#define OP_PACKAGE     0x12u
#define OP_METHOD      0x14u
#define OP_EXTENDED    0x5bu
#define EXT_REGION     0x80u
#define EXT_FIELD      0x81u
#define EXT_DEVICE     0x82u
#define OP_IF          0xa0u
#define NAME_DUAL      0x2eu
#define NAME_MULTI     0x2fu
#define REGION_PORTS   0x01u /* SystemIO */
#define FIELD_DWORDS   0x43u /* accesses of 32 bits, no lock, other bits written as zeroes */
#define SEGMENT        4u
#define PATH_MAX_      8u /* segments */
#define PKG_LENGTH     3u /* always so many bytes: lengths up to 1 MiB */
#define PKG_LENGTH_MAX ((1u << 20) - 1)

/* Resource descriptors. */
#define RESOURCE_IRQ       0x22u /* small, of two bytes */
#define RESOURCE_PORTS     0x47u /* small, of seven */
#define RESOURCE_END       0x79u
#define RESOURCE_MEMORY    0x86u
#define RESOURCE_DWORDS    0x87u
#define RESOURCE_WORDS     0x88u
#define PORTS_16_BITS      0x01u
#define MEMORY_WRITABLE    0x01u
#define WINDOW_MEMORY      0x00u
#define WINDOW_PORTS       0x01u
#define WINDOW_BUSES       0x02u
#define WINDOW_FIXED       0x0cu /* both ends; it is handed on, not consumed */
#define WINDOW_ALL_PORTS   0x03u
#define WINDOW_NOT_CACHED  0x01u /* and writable */
#define RESOURCES_SIZE_MAX 0xffffu

static void put(struct aml *aml, const void *data, size_t size)
{
        if (aml->full || size > aml->room - aml->size) {
                aml->full = true;
                return;
        }
        memcpy(aml->data + aml->size, data, size);
        aml->size += size;
}

void aml_op(struct aml *aml, uint8_t op)
{
        put(aml, &op, 1);
}

static void put16(struct aml *aml, uint16_t value)
{
        const le16 le = le16_make(value);

        put(aml, &le, sizeof(le));
}

static void put32(struct aml *aml, uint32_t value)
{
        const le32 le = le32_make(value);

        put(aml, &le, sizeof(le));
}

void aml_path(struct aml *aml, const char *path)
{
        uint8_t segments[PATH_MAX_][SEGMENT];
        uint8_t n = 0;

        if (*path == '\\')
                aml_op(aml, (uint8_t)*path++);
        while (*path) {
                size_t length = strcspn(path, ".");

                assert(n < PATH_MAX_ && length > 0 && length <= SEGMENT);
                memset(segments[n], '_', SEGMENT);
                memcpy(segments[n++], path, length);
                path += length;
                path += *path == '.';
        }
        if (n == 0) { /* the root itself */
                aml_op(aml, 0);
        } else if (n == 2) {
                aml_op(aml, NAME_DUAL);
        } else if (n > 2) {
                aml_op(aml, NAME_MULTI);
                aml_op(aml, n);
        }
        put(aml, segments, (size_t)n * SEGMENT);
}

void aml_integer(struct aml *aml, uint64_t value)
{
        const le64 le = le64_make(value);

        if (value <= 1) {
                aml_op(aml, (uint8_t)value);
        } else if (value <= UINT8_MAX) {
                aml_op(aml, OP_BYTE);
                put(aml, &le, 1);
        } else if (value <= UINT16_MAX) {
                aml_op(aml, OP_WORD);
                put(aml, &le, 2);
        } else if (value <= UINT32_MAX) {
                aml_op(aml, OP_DWORD);
                put(aml, &le, 4);
        } else {
                aml_op(aml, OP_QWORD);
                put(aml, &le, 8);
        }
}

void aml_string(struct aml *aml, const char *text)
{
        aml_op(aml, OP_STRING);
        put(aml, text, strlen(text) + 1);
}

static uint8_t hex(char digit)
{
        return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

/* Three letters of five bits, four digits: 32 bits whose most significant byte comes first. */
void aml_eisa_id(struct aml *aml, const char *id)
{
        const uint8_t a = (uint8_t)(id[0] - '@'), b = (uint8_t)(id[1] - '@'),
                      c = (uint8_t)(id[2] - '@');
        const uint8_t bytes[5] = {OP_DWORD, (uint8_t)(a << 2 | b >> 3), (uint8_t)(b << 5 | c),
                                  (uint8_t)(hex(id[3]) << 4 | hex(id[4])),
                                  (uint8_t)(hex(id[5]) << 4 | hex(id[6]))};

        assert(strlen(id) == 7);
        put(aml, bytes, sizeof(bytes));
}

void aml_name(struct aml *aml, const char *path)
{
        aml_op(aml, OP_NAME);
        aml_path(aml, path);
}

/* ---- what contains others ---- */

/* The mark is where the length stands: it counts itself, and all that follows. */
static size_t open_package(struct aml *aml)
{
        static const uint8_t later[PKG_LENGTH];
        size_t mark = aml->size;

        put(aml, later, sizeof(later));
        return mark;
}

void aml_close(struct aml *aml, size_t mark)
{
        size_t length = aml->size - mark;

        if (aml->full)
                return;
        assert(length >= PKG_LENGTH && length <= PKG_LENGTH_MAX);
        aml->data[mark] = (uint8_t)((PKG_LENGTH - 1) << 6 | (length & 15));
        aml->data[mark + 1] = (uint8_t)(length >> 4);
        aml->data[mark + 2] = (uint8_t)(length >> 12);
}

size_t aml_open_scope(struct aml *aml, const char *path)
{
        size_t mark;

        aml_op(aml, OP_SCOPE);
        mark = open_package(aml);
        aml_path(aml, path);
        return mark;
}

size_t aml_open_device(struct aml *aml, const char *path)
{
        size_t mark;

        aml_op(aml, OP_EXTENDED);
        aml_op(aml, EXT_DEVICE);
        mark = open_package(aml);
        aml_path(aml, path);
        return mark;
}

size_t aml_open_method(struct aml *aml, const char *path, unsigned n_args)
{
        size_t mark;

        aml_op(aml, OP_METHOD);
        mark = open_package(aml);
        aml_path(aml, path);
        aml_op(aml, (uint8_t)n_args);
        return mark;
}

size_t aml_open_if(struct aml *aml)
{
        aml_op(aml, OP_IF);
        return open_package(aml);
}

size_t aml_open_package(struct aml *aml, uint8_t n)
{
        size_t mark;

        aml_op(aml, OP_PACKAGE);
        mark = open_package(aml);
        aml_op(aml, n);
        return mark;
}

void aml_port_registers(struct aml *aml, const char *region, uint16_t port,
                        const char *const *names, unsigned n)
{
        size_t mark;

        aml_op(aml, OP_EXTENDED);
        aml_op(aml, EXT_REGION);
        aml_path(aml, region);
        aml_op(aml, REGION_PORTS);
        aml_integer(aml, port);
        aml_integer(aml, UINT64_C(4) * n);
        aml_op(aml, OP_EXTENDED);
        aml_op(aml, EXT_FIELD);
        mark = open_package(aml);
        aml_path(aml, region);
        aml_op(aml, FIELD_DWORDS);
        for (unsigned i = 0; i < n; i++) {
                aml_path(aml, names[i]);
                aml_op(aml, 32); /* bits, as a length of one byte */
        }
        aml_close(aml, mark);
}

/* ---- resources ---- */

/* A buffer whose size, a word, stands behind its length. */
size_t aml_open_resources(struct aml *aml)
{
        size_t mark;

        aml_op(aml, OP_BUFFER);
        mark = open_package(aml);
        aml_op(aml, OP_WORD);
        put16(aml, 0);
        return mark;
}

void aml_close_resources(struct aml *aml, size_t mark)
{
        size_t size, begin = mark + PKG_LENGTH + 3;

        aml_op(aml, RESOURCE_END);
        aml_op(aml, 0); /* of a checksum: none */
        if (aml->full)
                return;
        size = aml->size - begin;
        assert(size <= RESOURCES_SIZE_MAX);
        aml->data[begin - 2] = (uint8_t)size;
        aml->data[begin - 1] = (uint8_t)(size >> 8);
        aml_close(aml, mark);
}

void aml_ports(struct aml *aml, uint16_t port, uint8_t n)
{
        aml_op(aml, RESOURCE_PORTS);
        aml_op(aml, PORTS_16_BITS);
        put16(aml, port); /* it begins here at the least, and at the most */
        put16(aml, port);
        aml_op(aml, 1);
        aml_op(aml, n);
}

void aml_irq(struct aml *aml, unsigned irq)
{
        assert(irq < 16);
        aml_op(aml, RESOURCE_IRQ);
        put16(aml, (uint16_t)(1u << irq));
}

void aml_fixed_memory(struct aml *aml, uint32_t start, uint32_t size)
{
        aml_op(aml, RESOURCE_MEMORY);
        put16(aml, 9);
        aml_op(aml, MEMORY_WRITABLE);
        put32(aml, start);
        put32(aml, size);
}

static void window_words(struct aml *aml, uint8_t type, uint8_t flags, uint16_t start, uint16_t end)
{
        aml_op(aml, RESOURCE_WORDS);
        put16(aml, 13);
        aml_op(aml, type);
        aml_op(aml, WINDOW_FIXED);
        aml_op(aml, flags);
        put16(aml, 0); /* granularity */
        put16(aml, start);
        put16(aml, end);
        put16(aml, 0); /* the same on both sides */
        put16(aml, (uint16_t)(end - start + 1));
}

void aml_window_buses(struct aml *aml, uint16_t start, uint16_t end)
{
        window_words(aml, WINDOW_BUSES, 0, start, end);
}

void aml_window_ports(struct aml *aml, uint16_t start, uint16_t end)
{
        window_words(aml, WINDOW_PORTS, WINDOW_ALL_PORTS, start, end);
}

void aml_window_memory(struct aml *aml, uint32_t start, uint32_t end)
{
        aml_op(aml, RESOURCE_DWORDS);
        put16(aml, 23);
        aml_op(aml, WINDOW_MEMORY);
        aml_op(aml, WINDOW_FIXED);
        aml_op(aml, WINDOW_NOT_CACHED);
        put32(aml, 0);
        put32(aml, start);
        put32(aml, end);
        put32(aml, 0);
        put32(aml, end - start + 1);
}
