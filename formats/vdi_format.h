/* vdi_format.h - what a VDI file begins with.
 *
 * There is no specification but VirtualBox's source: VDICore.h, with what VDI.cpp accepts and writes
 * (VirtualBox 7.1).
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     none.
 */
#pragma once
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include "common/le.h"

#define VDI_SIGNATURE 0xbeda107fu

enum vdi_type {
        VDI_DYNAMIC = 1,
        VDI_STATIC = 2,
        VDI_UNDO = 3,
        VDI_DIFFERENCING = 4,
};

/* Entries of the block map that are no places. */
#define VDI_BLOCK_FREE 0xffffffffu /* nothing is known of it: the parent's */
#define VDI_BLOCK_ZERO 0xfffffffeu

struct vdi_geometry_disk {
        le32 cylinders, heads, sectors;
        le32 sector_bytes; /* 512 */
};

/* In front of the header of any version. */
struct vdi_preheader_disk {
        char text[64]; /* for people */
        le32 signature;
        le16 minor, major;
};
static_assert(sizeof(struct vdi_preheader_disk) == 72, "VDIPREHEADER");

/* Version 1.1. Such of the first VirtualBoxes end before lchs. */
struct vdi_header_disk {
        struct vdi_preheader_disk pre;
        le32 header_bytes;             /*  72  from here on */
        le32 type;                     /*  76 */
        le32 flags;                    /*  80 */
        char comment[256];             /*  84 */
        le32 map_offset;               /* 340 */
        le32 data_offset;              /* 344 */
        struct vdi_geometry_disk pchs; /* 348 */
        le32 unused;                   /* 364 */
        le64 disk_bytes;               /* 368 */
        le32 block_bytes;              /* 376  a power of two */
        le32 extra_bytes;              /* 380  in front of each block */
        le32 n_blocks;                 /* 384 */
        le32 n_allocated;              /* 388 */
        uint8_t uuid[16];              /* 392 */
        uint8_t modified_uuid[16];     /* 408 */
        uint8_t parent_uuid[16];       /* 424 */
        /* The parent's modified_uuid when this one was made. */
        uint8_t parent_modified_uuid[16]; /* 440 */
        struct vdi_geometry_disk lchs;    /* 456 */
        uint8_t rest[40];
};
static_assert(sizeof(struct vdi_header_disk) == 512, "VDIHEADER1PLUS");
static_assert(offsetof(struct vdi_header_disk, disk_bytes) == 368, "VDIHEADER1PLUS");

#define VDI_HEADER_BYTES     400u /* of header_bytes, as written */
#define VDI_HEADER_BYTES_MIN 384u

/* Version 0.2, that of before VirtualBox 1.0: the map follows at once, and the data that. */
struct vdi_header0_disk {
        struct vdi_preheader_disk pre;
        le32 type;  /*  72 */
        le32 flags; /*  76 */
        char comment[256];
        struct vdi_geometry_disk pchs; /* 336 */
        le64 disk_bytes;               /* 352 */
        le32 block_bytes;              /* 360 */
        le32 n_blocks;                 /* 364 */
        le32 n_allocated;              /* 368 */
        uint8_t uuid[16];              /* 372 */
        uint8_t modified_uuid[16];     /* 388 */
        uint8_t parent_uuid[16];       /* 404 */
};
static_assert(sizeof(struct vdi_header0_disk) == 420, "VDIHEADER0");
