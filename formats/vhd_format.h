/* vhd_format.h - what lies where in a VHD file.
 *
 * From Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0 (11 October 2006): "Hard
 * Disk Footer Format", "Dynamic Disk Header Format", "Block Allocation Table and Data Blocks".
 *
 * Units      bytes; a sector has 512 of them.
 * Threads    [any thread]
 * Errors     none.
 */
#pragma once
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include "common/be.h"

#define VHD_SECTOR        512u
#define VHD_COOKIE        "conectix"
#define VHD_HEADER_COOKIE "cxsparse"
#define VHD_VERSION       0x00010000u
#define VHD_EPOCH         INT64_C(946684800) /* 1 January 2000, in seconds since 1970 */
#define VHD_NO_OFFSET     UINT64_MAX
#define VHD_BLOCK_ABSENT  0xffffffffu /* in the block allocation table */

enum vhd_type {
        VHD_FIXED = 2,
        VHD_DYNAMIC = 3,
        VHD_DIFFERENCING = 4,
};

struct vhd_footer_disk {
        uint8_t cookie[8];
        be32 features; /*   8  VHD_FEATURES_RESERVED is always there */
        be32 version;  /*  12 */
        be64 data_offset;
        be32 time_s; /*  24  since VHD_EPOCH */
        uint8_t creator[4];
        be32 creator_version;
        uint8_t creator_host[4]; /*  36 */
        be64 original_bytes;     /*  40 */
        be64 current_bytes;      /*  48 */
        be16 cylinders;          /*  56 */
        uint8_t heads, sectors_per_track;
        be32 type;         /*  60  enum vhd_type */
        be32 checksum;     /*  64  vhd_checksum() with this field 0 */
        uint8_t uuid[16];  /*  68 */
        uint8_t saved;     /*  84 */
        uint8_t rest[427]; /*  85 */
};
static_assert(sizeof(struct vhd_footer_disk) == 512, "VHD footer");
static_assert(offsetof(struct vhd_footer_disk, saved) == 84, "VHD footer");

#define VHD_FEATURES_RESERVED 2u
/* Virtual PC before 2004 wrote footers that end one byte early. */
#define VHD_OLD_FOOTER_BYTES 511u

#define VHD_LOCATORS 8u
struct vhd_locator_disk {
        be32 platform;
        be32 space;  /* sectors by the specification, bytes by most who write it */
        be32 length; /* bytes */
        be32 reserved;
        be64 offset;
};

struct vhd_header_disk {
        uint8_t cookie[8];
        be64 next;         /*   8  VHD_NO_OFFSET */
        be64 table_offset; /*  16 */
        be32 version;      /*  24 */
        be32 n_entries;    /*  28 */
        be32 block_bytes;  /*  32 */
        be32 checksum;     /*  36 */
        uint8_t parent_uuid[16];
        be32 parent_time_s; /*  56 */
        be32 reserved;
        uint8_t parent_name[512];                       /*  64  UTF-16, highest byte first */
        struct vhd_locator_disk locators[VHD_LOCATORS]; /* 576 */
        uint8_t rest[256];
};
static_assert(sizeof(struct vhd_header_disk) == 1024, "VHD dynamic header");

/* "Platform Code" */
#define VHD_W2RU 0x57327275u /* relative Windows path, UTF-16, lowest byte first */
#define VHD_W2KU 0x57326b75u /* the same, absolute */
#define VHD_WI2R 0x57693272u /* relative, of before Unicode; deprecated */
#define VHD_WI2K 0x5769326bu
#define VHD_MACX 0x4d616358u /* a file: URL, UTF-8 */
