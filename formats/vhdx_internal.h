/* vhdx_internal.h - what the files of the VHDX driver share.
 *
 * Units      bytes, offsets in the file unless they are called virtual.
 * Threads    the image's loop.
 * Errors     as in image.h.
 * Source     [MS-VHDX] Virtual Hard Disk v2 (VHDX) File Format, of 12 September 2018; its sections are
 *            named in brackets.
 */
#pragma once
#include <assert.h>
#include "common/le.h"
#include "formats/image.h"

#define VHDX_MIB               (UINT64_C(1) << 20)
#define VHDX_IDENTIFIER        "vhdxfile"
#define VHDX_HEADER_OFFSET(i)  (UINT64_C(65536) * (1 + (i)))
#define VHDX_HEADER_SIZE       4096u
#define VHDX_TABLE_OFFSET(i)   (UINT64_C(65536) * (3 + (i)))
#define VHDX_TABLE_SIZE        65536u /* a region table, a metadata table */
#define VHDX_HEADER_END        VHDX_MIB
#define VHDX_ENTRIES_MAX       2047u /* of a region table, of a metadata table */
#define VHDX_BLOCK_MIN         (1u << 20)
#define VHDX_BLOCK_MAX         (256u << 20)
#define VHDX_VIRTUAL_MAX       (UINT64_C(64) << 40)
#define VHDX_SECTORS_PER_CHUNK (UINT64_C(1) << 23) /* a bit each in a sector bitmap block */
#define VHDX_BITMAP_BLOCK      (1u << 20)
#define VHDX_LOG_SECTOR        4096u

/* A log that has something in it is read into memory. Windows and QEMU make it 1 MiB. */
#define VHDX_LOG_MAX (32u << 20)
/* Pieces of the BAT and of sector bitmaps that are kept. */
#define VHDX_PAGE_SIZE 65536u
#define VHDX_PAGES_MAX 64u

struct vhdx_guid {
        uint8_t b[16];
};

/* As it lies in the file: the first three parts are little-endian. */
#define VHDX_GUID(a, b, c, d0, d1, d2, d3, d4, d5, d6, d7)                                         \
        ((struct vhdx_guid){{(a)&0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24 & 0xff,        \
                             (b)&0xff, (b) >> 8 & 0xff, (c)&0xff, (c) >> 8 & 0xff, d0, d1, d2, d3, \
                             d4, d5, d6, d7}})
#define VHDX_REGION_BAT                                                                            \
        VHDX_GUID(0x2dc27766, 0xf623, 0x4200, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08)
#define VHDX_REGION_METADATA                                                                       \
        VHDX_GUID(0x8b7ca206, 0x4790, 0x4b9a, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e)
#define VHDX_ITEM_PARAMETERS                                                                       \
        VHDX_GUID(0xcaa16737, 0xfa36, 0x4d43, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b)
#define VHDX_ITEM_SIZE                                                                             \
        VHDX_GUID(0x2fa54224, 0xcd1b, 0x4876, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8)
#define VHDX_ITEM_PAGE_83                                                                          \
        VHDX_GUID(0xbeca12ab, 0xb2e6, 0x4523, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46)
#define VHDX_ITEM_LOGICAL_SECTOR                                                                   \
        VHDX_GUID(0x8141bf1d, 0xa96f, 0x4709, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f)
#define VHDX_ITEM_PHYSICAL_SECTOR                                                                  \
        VHDX_GUID(0xcda348c7, 0x445d, 0x4471, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56)
#define VHDX_ITEM_PARENT                                                                           \
        VHDX_GUID(0xa8d35f2d, 0xb30b, 0x454d, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c)
#define VHDX_LOCATOR_VHDX                                                                          \
        VHDX_GUID(0xb04aefb7, 0xd19e, 0x4a81, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13)

struct vhdx_header_disk {            /* [2.2.2] */
        uint8_t signature[4];        /*  0  "head" */
        le32 checksum;               /*  4  CRC-32C of all 4096 bytes, with zeroes here */
        le64 sequence;               /*  8 */
        struct vhdx_guid file_write; /* 16 */
        struct vhdx_guid data_write; /* 32 */
        struct vhdx_guid log;        /* 48  zero: the log is empty */
        le16 log_version;            /* 64  0 */
        le16 version;                /* 66  1 */
        le32 log_length;             /* 68 */
        le64 log_offset;             /* 72 */
        uint8_t reserved[4016];
};
static_assert(sizeof(struct vhdx_header_disk) == VHDX_HEADER_SIZE, "MS-VHDX 2.2.2");

struct vhdx_table_disk {      /* [2.2.3.1] */
        uint8_t signature[4]; /* 0  "regi" */
        le32 checksum;        /* 4  CRC-32C of all 65536 bytes, with zeroes here */
        le32 n_entries;       /* 8 */
        le32 reserved;
};
struct vhdx_region_disk {      /* [2.2.3.2] */
        struct vhdx_guid guid; /*  0 */
        le64 offset;           /* 16 */
        le32 length;           /* 24 */
        le32 required;         /* 28  1: who does not know it must not go on */
};
static_assert(sizeof(struct vhdx_region_disk) == 32, "MS-VHDX 2.2.3.2");

struct vhdx_entry_disk {      /* [2.3.1.1], at the beginning of a log entry */
        uint8_t signature[4]; /*  0  "loge" */
        le32 checksum;        /*  4  CRC-32C of the whole entry, with zeroes here */
        le32 length;          /*  8  of the whole entry */
        le32 tail;            /* 12  where the sequence began that ends with this entry */
        le64 sequence;        /* 16 */
        le32 n_descriptors;   /* 24 */
        le32 reserved;
        struct vhdx_guid log; /* 32 */
        le64 flushed;         /* 48  the file was at least this long on its disk */
        le64 last;            /* 56  the file must be at least this long */
};
static_assert(sizeof(struct vhdx_entry_disk) == 64, "MS-VHDX 2.3.1.1");
struct vhdx_descriptor_disk { /* [2.3.1.2], [2.3.1.3] */
        uint8_t signature[4]; /*  0  "zero", "desc" */
        uint8_t trailing[4];  /*  4  desc: the last four bytes of the sector */
        le64 leading;         /*  8  desc: its first eight bytes; zero: the length */
        le64 offset;          /* 16 */
        le64 sequence;        /* 24  the entry's */
};
static_assert(sizeof(struct vhdx_descriptor_disk) == 32, "MS-VHDX 2.3.1.2");

struct vhdx_metadata_disk {   /* [2.6.1.1] */
        uint8_t signature[8]; /*  0  "metadata" */
        le16 reserved;
        le16 n_entries; /* 10 */
        uint8_t reserved2[20];
};
struct vhdx_item_disk {      /* [2.6.1.2] */
        struct vhdx_guid id; /*  0 */
        le32 offset;         /* 16  from the region's beginning */
        le32 length;         /* 20 */
        le32 flags;          /* 24 */
        le32 reserved;
};
static_assert(sizeof(struct vhdx_item_disk) == 32, "MS-VHDX 2.6.1.2");
#define VHDX_ITEM_USER     1u
#define VHDX_ITEM_DISK     2u /* of the virtual disk, not of the file */
#define VHDX_ITEM_REQUIRED 4u

#define VHDX_LEAVE_ALLOCATED 1u /* [2.6.2.1] a fixed disk */
#define VHDX_HAS_PARENT      2u

/* [2.5.1] A BAT entry: the state in bits 0 to 2, the offset in MiB from bit 20 on. */
enum vhdx_state {
        VHDX_NOT_PRESENT = 0, /* the parent's; without one nobody's */
        VHDX_UNDEFINED = 1,
        VHDX_ZERO = 2,
        VHDX_UNMAPPED = 3,
        VHDX_PRESENT = 6,
        VHDX_PARTIAL = 7, /* some sectors are the parent's: the sector bitmap says which */
};
static inline enum vhdx_state vhdx_entry_state(uint64_t entry)
{
        return (enum vhdx_state)(entry & 7);
}
static inline uint64_t vhdx_entry_offset(uint64_t entry)
{
        return entry & ~(VHDX_MIB - 1);
}

struct vhdx_region {
        uint64_t offset, length;
};

/* A range of the file whose content the log has. Sorted, apart from one another. */
struct vhdx_replayed {
        uint64_t begin, end;
        const uint8_t *data; /* NULL: zeroes */
};

struct vhdx_page {
        uint64_t offset, used; /* used: when, by count */
        uint8_t *bytes;        /* NULL: nothing */
};

struct vhdx {
        /* the header in force */
        struct vhdx_guid data_write;
        struct vhdx_region log;
        uint64_t file_end; /* with what the log adds */

        uint8_t *log_bytes;
        struct vhdx_replayed *replayed;
        size_t n_replayed;
        uint64_t n_log_entries;

        struct vhdx_region bat, metadata;
        struct vhdx_region *regions; /* all of them, the log too, sorted by offset */
        size_t n_regions;
        bool lacks_items; /* such that reading needs not */

        uint64_t block_bytes, chunk_blocks, n_blocks, n_entries;
        uint32_t sector_bytes;
        bool fixed, has_parent, alone;
        struct image *parent; /* NULL: there is none, or alone */

        struct vhdx_page pages[VHDX_PAGES_MAX];
        uint64_t clock;

        struct vhdx_writer *writer;
};

/* ---- vhdx_header.c ---- */

/* Identifier and headers; then, through the log, the region table. */
int co_vhdx_headers(struct image *image, struct vhdx_guid *ret_log_guid, struct error *err);
int co_vhdx_regions(struct image *image, struct error *err);
/* A header or table that is right; for the check. */
bool vhdx_sum_is_right(void *bytes, size_t length, const char *signature);
uint32_t vhdx_sum(void *bytes, size_t length); /* puts it at 4, too */

/* ---- vhdx_log.c ---- */

/* Find the active sequence and make what it says the file's content for co_vhdx_pread(). */
int co_vhdx_replay(struct image *image, const struct vhdx_guid *log_guid, struct error *err);
/* vhdx_overlay.c: records in the order in which they were logged, later ones win. Takes
 * @records over in any case. -ENOMEM */
int vhdx_overlay(struct vhdx *v, struct vhdx_replayed *records, size_t n, struct error *err);
/* The first range of the overlay that ends behind @offset, or how many there are. */
size_t vhdx_overlay_find(const struct vhdx *v, uint64_t offset);
/* The file as it is after the log's replay. */
int co_vhdx_pread(struct image *image, void *buffer, size_t length, uint64_t offset,
                  struct error *err);

/* ---- vhdx_metadata.c, vhdx_parent.c ---- */

struct vhdx_item {
        uint64_t offset;
        uint32_t length;
};
int co_vhdx_metadata(struct image *image, struct vhdx_item *ret_locator, struct error *err);
/* Name the parent in image->info and open it, unless the file is looked at alone. */
int co_vhdx_parent(struct image *image, const struct vhdx_item *locator,
                   const struct image_options *options, struct error *err);

/* ---- vhdx_map.c ---- */

/* Bytes of the BAT or of a sector bitmap, kept for the next who asks. */
int co_vhdx_table(struct image *image, void *buffer, size_t length, uint64_t offset,
                  struct error *err);
/* The index of a block in the BAT, and of its chunk's sector bitmap. */
static inline uint64_t vhdx_block_entry(const struct vhdx *v, uint64_t block)
{
        return block + block / v->chunk_blocks;
}
static inline uint64_t vhdx_bitmap_entry(const struct vhdx *v, uint64_t block)
{
        return block / v->chunk_blocks * (v->chunk_blocks + 1) + v->chunk_blocks;
}
/* Of the bytes of @block those that are the disk's. */
static inline uint64_t vhdx_block_length(const struct image *image, uint64_t block)
{
        const struct vhdx *v = image->state;
        uint64_t begin = block * v->block_bytes, left = image->virtual_bytes - begin;

        return left < v->block_bytes ? left : v->block_bytes;
}
/* 0, or why @entry cannot be what the BAT says of @block. */
int vhdx_entry_check(const struct image *image, uint64_t block, uint64_t entry, struct error *err);
int vhdx_bitmap_check(const struct image *image, uint64_t block, uint64_t entry, struct error *err);
int co_vhdx_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                   struct error *err);
int co_vhdx_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                 struct error *err);

/* ---- vhdx_check.c, vhdx_write.c ---- */

int co_vhdx_check(struct image *image, struct image_check *check, struct error *err);
int co_vhdx_create(struct image *image, const struct image_create_options *options,
                   struct error *err);
int co_vhdx_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                  struct error *err);
int co_vhdx_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err);
int co_vhdx_finish(struct image *image, struct error *err);
void vhdx_writer_free(struct vhdx_writer *writer);

/* ---- vhdx_text.c ---- */

#define VHDX_GUID_TEXT 37u /* with NUL */
bool vhdx_guid_equal(const struct vhdx_guid *a, const struct vhdx_guid *b);
bool vhdx_guid_is_zero(const struct vhdx_guid *guid);
void vhdx_guid_format(const struct vhdx_guid *guid, char text[VHDX_GUID_TEXT]);
/* "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}", in any case */
bool vhdx_guid_parse(const char *text, struct vhdx_guid *ret_guid);
/* malloc'ed UTF-8 of @length bytes of UTF-16LE; NULL with errno EINVAL where that is none, or has
 * a NUL or a control character in it; ENOMEM. */
char *vhdx_utf16(const uint8_t *bytes, size_t length);
