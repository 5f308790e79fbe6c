/* fuzz_partition.c - disks with a GPT that says anything behind right checksums: where tarn's partition
 * is, and what stands on a disk that is to be taken. UEFI specification 2.10, chapter 5.3. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "pool/disk_internal.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECTOR        512u
#define DISK_BYTES    (UINT64_C(80) << 20)
#define DISK_SECTORS  (DISK_BYTES / SECTOR)
#define ENTRIES       128u
#define ENTRY_BYTES   128u
#define TABLE_BYTES   (ENTRIES * ENTRY_BYTES)
#define TABLE_SECTORS (TABLE_BYTES / SECTOR)

/* All numbers little-endian, as this host's are. */
struct header {
        char signature[8];
        uint32_t revision, header_bytes, header_crc, reserved;
        uint64_t own, other, first, last;
        uint8_t disk[16];
        uint64_t table;
        uint32_t n_entries, entry_bytes, table_crc;
        uint8_t rest[SECTOR - 92];
} __attribute__((packed));
static_assert(sizeof(struct header) == SECTOR, "a sector");

struct entry {
        uint8_t type[16], own[16];
        uint64_t first, last, flags;
        uint16_t name[36];
};
static_assert(sizeof(struct entry) == ENTRY_BYTES, "as the header says");

struct table {
        struct header header;
        struct entry entry[ENTRIES];
};

/* CRC-32 of IEEE 802.3, section 3.2.9. */
static uint32_t crc32(const void *data, size_t length)
{
        uint32_t crc = UINT32_MAX;

        for (const uint8_t *at = data; length > 0; length--) {
                crc ^= *at++;
                for (unsigned i = 0; i < 8; i++)
                        crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
        return ~crc;
}

/* "7461726e-6d65-4d62-8a72-706f6f6c0001" (DISK_GPT_TYPE), the first three parts little-endian. */
static const uint8_t our_type[16] = {0x6e, 0x72, 0x61, 0x74, 0x65, 0x6d, 0x62, 0x4d,
                                     0x8a, 0x72, 0x70, 0x6f, 0x6f, 0x6c, 0x00, 0x01};

static void table_make(struct table *t, bool second)
{
        *t = (struct table){.header = {.signature = "EFI PART",
                                       .revision = 0x10000,
                                       .header_bytes = 92,
                                       .own = second ? DISK_SECTORS - 1 : 1,
                                       .other = second ? 1 : DISK_SECTORS - 1,
                                       .first = 2 + TABLE_SECTORS,
                                       .last = DISK_SECTORS - TABLE_SECTORS - 2,
                                       .disk = {1},
                                       .table = second ? DISK_SECTORS - 1 - TABLE_SECTORS : 2,
                                       .n_entries = ENTRIES,
                                       .entry_bytes = ENTRY_BYTES}};
        t->entry[0] = (struct entry){.own = {2}, .first = 2048, .last = t->header.last};
        memcpy(t->entry[0].type, our_type, 16);
}

static void table_spoil(struct table *t, struct input *in)
{
        uint8_t kind = input_u8(in), where = input_u8(in), *at = (uint8_t *)&t->header;
        uint64_t word = 0;

        if (kind & 1) /* the first entries */
                at = (uint8_t *)t->entry + 4 * (size_t)where;
        else
                at += 4 * (size_t)(where % 23);
        if (kind & 2) { /* ours, elsewhere */
                memcpy(&t->entry[where % ENTRIES], &t->entry[0], ENTRY_BYTES);
                return;
        }
        memcpy(&word, at, kind & 4 ? 8 : 4);
        word = input_number(in, kind & 8 ? DISK_SECTORS : word);
        memcpy(at, &word, kind & 4 ? 8 : 4);
}

static void table_mend(struct table *t)
{
        uint64_t length = (uint64_t)t->header.n_entries * t->header.entry_bytes;
        uint32_t header_bytes = t->header.header_bytes;

        t->header.table_crc = crc32(t->entry, length < TABLE_BYTES ? length : TABLE_BYTES);
        t->header.header_crc = 0;
        t->header.header_crc = crc32(&t->header, header_bytes < SECTOR ? header_bytes : SECTOR);
}

static void put(int fd, const void *data, size_t length, uint64_t offset)
{
        if (pwrite(fd, data, length, (off_t)offset) != (ssize_t)length)
                abort();
}

static void table_write(int fd, const struct table *t, bool second)
{
        uint64_t end = DISK_BYTES - SECTOR;

        put(fd, &t->header, SECTOR, second ? end : SECTOR);
        put(fd, t->entry, TABLE_BYTES, second ? end - TABLE_BYTES : 2 * SECTOR);
}

static void put_protective(int fd)
{
        uint8_t mbr[SECTOR] = {[450] = 0xee, [454] = 1, [510] = 0x55, [511] = 0xaa};

        memset(mbr + 458, 0xff, 4);
        put(fd, mbr, SECTOR, 0);
}

/* What other software looks for: at places that are known, or any. */
static void put_bytes(int fd, struct input *in)
{
        static const char *const words[] = {"XFSB", "\x53\xef", "LABELONE", "LUKS\xba\xbe",
                                            "_BHRfS_M"};
        static struct output out;
        uint64_t at = input_number(in, 1080) % (DISK_BYTES - OUTPUT_MAX);

        out.n = 0;
        input_words(in, words, sizeof(words) / sizeof(words[0]), &out);
        put(fd, out.bytes, out.n, at);
}

static void look(int fd)
{
        uint64_t start, size;
        char path[32], text[128];
        struct error err = ERROR_INIT;
        int r = disk_find_partition(fd, "disk", &start, &size, &err);

        assert(r == 0 || r == -ENOENT || err.message[0]);
        if (r == 0) { /* whatever it is, it lies on the disk or is refused */
                struct disk d = {.base.path = (char *)"disk", .device_bytes = DISK_BYTES};

                r = disk_set_range(&d, start, size, &err);
                assert(r < 0 || (d.start_bytes + d.base.size_bytes <= DISK_BYTES &&
                                 d.base.size_bytes >= MEMBER_SIZE_MIN));
        }
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        err = ERROR_INIT;
        r = disk_probe(path, text, sizeof(text), &err);
        assert(r == 0 || err.message[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct table tables[2];
        struct input in = {data, size};
        uint8_t how = input_u8(&in);
        int fd = memfd_create("disk", MFD_CLOEXEC);

        if (fd < 0 || ftruncate(fd, (off_t)DISK_BYTES) < 0)
                abort();
        for (unsigned i = 0; i < 2; i++)
                table_make(&tables[i], i);
        while (in.left > 0) {
                uint8_t kind = input_u8(&in);

                if (kind & 0x80)
                        put_bytes(fd, &in);
                else
                        table_spoil(&tables[kind & 1], &in);
        }
        if (how & 1)
                put_protective(fd);
        for (unsigned i = 0; i < 2; i++) {
                table_mend(&tables[i]);
                if (how >> (1 + i) & 1)
                        table_write(fd, &tables[i], i);
        }
        look(fd);
        close(fd);
        return 0;
}
