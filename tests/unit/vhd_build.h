/* vhd_build.h - for tests of VHD: images made by hand, with checksums of the tests' own. */
#pragma once
#include "formats/vhd_format.h"
#include "tests/unit/image_files.h"

#define BLOCK     4096u /* 8 sectors */
#define HEADER_AT 512u
#define TABLE_AT  1536u
#define BLOCKS_AT 2048u /* a bitmap of a sector, and the block, and so on */
#define STRIDE    (512u + BLOCK)

/* "one's complement of the sum of all the bytes [...] without the checksum field" */
static inline be32 sum_of(const void *data, size_t length, const be32 *checksum)
{
        const uint8_t *p = data;
        uint32_t sum = 0;

        for (size_t i = 0; i < length; i++)
                if (p + i < checksum->b || p + i >= checksum->b + 4)
                        sum += p[i];
        return be32_make(~sum);
}

static inline struct vhd_footer_disk footer_of(uint32_t type, uint64_t bytes, uint8_t uuid)
{
        struct vhd_footer_disk d = {0};

        memcpy(d.cookie, VHD_COOKIE, 8);
        d.features = be32_make(2);
        d.version = be32_make(VHD_VERSION);
        d.data_offset = be64_make(type == VHD_FIXED ? UINT64_MAX : HEADER_AT);
        memcpy(d.creator, "win ", 4);
        memcpy(d.creator_host, "Wi2k", 4);
        d.original_bytes = d.current_bytes = be64_make(bytes);
        d.cylinders = be16_make(1);
        d.heads = d.sectors_per_track = 1;
        d.type = be32_make(type);
        memset(d.uuid, uuid, 16);
        return d;
}

static inline struct vhd_header_disk header_of(uint32_t n_entries)
{
        struct vhd_header_disk d = {0};

        memcpy(d.cookie, VHD_HEADER_COOKIE, 8);
        d.next = be64_make(UINT64_MAX);
        d.table_offset = be64_make(TABLE_AT);
        d.version = be32_make(VHD_VERSION);
        d.n_entries = be32_make(n_entries);
        d.block_bytes = be32_make(BLOCK);
        return d;
}

static inline void put_footer(int fd, struct vhd_footer_disk d, uint64_t at)
{
        d.checksum = sum_of(&d, sizeof(d), &d.checksum);
        put_at(fd, &d, sizeof(d), at);
}

static inline void put_header(int fd, struct vhd_header_disk d)
{
        d.checksum = sum_of(&d, sizeof(d), &d.checksum);
        put_at(fd, &d, sizeof(d), HEADER_AT);
}

/* The place of the block that is the nth in the file, as the table says it. */
static inline uint32_t nth(unsigned n)
{
        return (BLOCKS_AT + n * STRIDE) / 512;
}

/* The nth block in the file: which sectors it has, and what is in all of them. */
static inline void put_block(int fd, unsigned n, uint8_t bits, uint8_t first)
{
        uint8_t bitmap[512] = {bits};

        put_at(fd, bitmap, sizeof(bitmap), BLOCKS_AT + n * STRIDE);
        put_pattern(fd, first, BLOCK, BLOCKS_AT + n * STRIDE + 512);
}

/* Without blocks; the footer lies behind as many as are said. */
static inline void put_image(int fd, const struct vhd_footer_disk *footer,
                             const struct vhd_header_disk *header, const uint32_t *table,
                             unsigned n_blocks)
{
        uint32_t n = be32_get(header->n_entries);

        assert_int_equal(ftruncate(fd, 0), 0);
        put_footer(fd, *footer, 0);
        put_header(fd, *header);
        for (uint32_t i = 0; i < n; i++) {
                be32 entry = be32_make(table[i]);

                put_at(fd, &entry, 4, TABLE_AT + i * 4);
        }
        put_footer(fd, *footer, BLOCKS_AT + n_blocks * STRIDE);
}
