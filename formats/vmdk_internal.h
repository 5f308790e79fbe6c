/* vmdk_internal.h - what the parts of the VMDK driver share.
 *
 * Source: VMware, "Virtual Disk Format 5.0" (technical note); its sections are named where a rule comes
 * from. ESX's older sparse files ("COWD") are the note's "ESX Server Sparse Extents".
 *
 * Units      bytes, but for what is named _sectors or _sector: 512 bytes.
 * Threads    the image's loop; inflating and deflating happen in its offload's.
 * Errors     0 or -errno with a sentence that names the file and the offset.
 * Ownership  stated where something is handed over.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"
#include "common/le.h"
#include "formats/image.h"

#define VMDK_SECTOR 512u

/* ---- on the disk: "Hosted Sparse Extent Header" ---- */

#define VMDK_MAGIC            0x564d444bu /* "KDMV" */
#define VMDK_COWD_MAGIC       0x44574f43u /* "COWD" */
#define VMDK_UNFINISHED       UINT32_MAX  /* a version of ours: until co_finish() */
#define VMDK_GD_AT_END        UINT64_MAX
#define VMDK_FLAG_NEWLINES    (1u << 0)
#define VMDK_FLAG_REDUNDANT   (1u << 1)
#define VMDK_FLAG_ZERO_GRAINS (1u << 2)
#define VMDK_FLAG_COMPRESSED  (1u << 16)
#define VMDK_FLAG_MARKERS     (1u << 17)
#define VMDK_COMPRESS_DEFLATE 1u
#define VMDK_GTE_ZERO         1u

/* Fields lie unaligned: bytes 73 to 79 hold four characters and a number. */
struct vmdk_header_disk {
        le32 magic;               /*   0 */
        le32 version;             /*   4 */
        le32 flags;               /*   8 */
        le64 capacity;            /*  12  sectors */
        le64 grain_size;          /*  20  sectors */
        le64 descriptor_offset;   /*  28  sector; 0: none */
        le64 descriptor_size;     /*  36  sectors */
        le32 gtes_per_gt;         /*  44 */
        le64 rgd_offset;          /*  48  sector */
        le64 gd_offset;           /*  56  sector */
        le64 overhead;            /*  64  sectors */
        uint8_t unclean_shutdown; /*  72 */
        uint8_t newlines[4];      /*  73  "\n \r\n", unless somebody's FTP changed it */
        le16 compress_algorithm;  /*  77 */
        uint8_t pad[433];         /*  79 */
};
_Static_assert(sizeof(struct vmdk_header_disk) == VMDK_SECTOR, "one sector");

struct vmdk_cowd_disk {
        le32 magic;       /*   0 */
        le32 version;     /*   4  1 */
        le32 flags;       /*   8 */
        le32 capacity;    /*  12  sectors */
        le32 grain_size;  /*  16  sectors */
        le32 gd_offset;   /*  20  sector */
        le32 n_gdes;      /*  24 */
        le32 free_sector; /*  28 */
        uint8_t rest[VMDK_SECTOR - 32];
};
_Static_assert(sizeof(struct vmdk_cowd_disk) == VMDK_SECTOR, "the part of it that is of use");

/* "Markers": of a grain, where size is not 0 and data follows at once; otherwise of metadata in the
 * sectors behind. */
struct vmdk_marker_disk {
        le64 value; /*  0  grain: its first sector on the disk; metadata: sectors that follow */
        le32 size;  /*  8  of the compressed data; 0: metadata */
        le32 type;  /* 12  (metadata only) */
        uint8_t pad[VMDK_SECTOR - 16];
};
_Static_assert(sizeof(struct vmdk_marker_disk) == VMDK_SECTOR, "one sector");
#define VMDK_GRAIN_MARKER 12u /* bytes in front of a grain's data */
enum { VMDK_MARKER_EOS = 0, VMDK_MARKER_GT = 1, VMDK_MARKER_GD = 2, VMDK_MARKER_FOOTER = 3 };

/* ---- ceilings, whatever a header says ---- */

#define VMDK_GRAIN_MAX      IMAGE_UNIT_MAX
#define VMDK_GTES_MAX       4096u                /* COWD's; hosted files have 512 */
#define VMDK_GDES_MAX       (UINT64_C(32) << 20) /* 128 MiB; 1 PiB of disk in grains of 64 KiB */
#define VMDK_DESCRIPTOR_MAX ((size_t)1 << 20)
#define VMDK_EXTENTS_MAX    4096u
#define VMDK_SPAN_MAX       ((size_t)4 << 20) /* of compressed grains, read at once */
#define VMDK_PAGE           ((size_t)16 << 10)
#define VMDK_PAGES          256u              /* of tables in memory: 4 MiB an image */
#define VMDK_KEPT_MAX       ((size_t)4 << 20) /* inflated grains in memory */
#define VMDK_KEPT           16u

/* ---- descriptors (vmdk_descriptor.c) ---- */

enum vmdk_extent_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_VMFS_SPARSE, VMDK_ZERO_EXTENT };

struct vmdk_extent_line {
        enum vmdk_extent_kind kind;
        uint64_t sectors;
        char *name;             /* NULL: a ZERO extent */
        uint64_t offset_sector; /* flat ones: where in the file */
};

struct vmdk_descriptor {
        uint32_t cid, parent_cid;
        char *create_type;
        char *parent_hint; /* NULL: none */
        struct vmdk_extent_line *extents;
        size_t n_extents;
};
#define VMDK_NO_PARENT UINT32_MAX

/* Parse @length bytes of text, which may end in NULs. @path and @base, where in the file it stands,
 * are for messages. What *d holds, also after a failure, is released by vmdk_descriptor_clear().
 *
 * -EBADMSG  a line that counts is not what it must be
 * -ENOTSUP  an extent of a kind that is not read: named */
int vmdk_descriptor_parse(struct vmdk_descriptor *d, const char *text, size_t length,
                          const char *path, uint64_t base, struct error *err);
void vmdk_descriptor_clear(struct vmdk_descriptor *d);
/* Whether a text begins like one. */
bool vmdk_descriptor_probe(const char *text, size_t length);

/* ---- sparse extents (vmdk_sparse.c) ---- */

struct vmdk_sparse {
        struct image *file; /* for reading: the image itself, or an extent's file */
        uint32_t id;        /* of the file, among an image's extents */
        uint32_t version;
        uint64_t capacity_sectors;
        uint32_t grain_bytes; /* a power of two */
        uint32_t gtes_per_gt;
        uint64_t gd_offset, rgd_offset; /* bytes; rgd_offset 0: none */
        uint64_t n_gdes;
        uint64_t descriptor_offset, descriptor_bytes; /* bytes 0: none */
        uint64_t overhead_bytes;
        bool zero_grains, compressed, markers, dirty;
        /* gd_offset is the redundant directory's: the other one is outside of the file. */
        bool by_copy;
};

enum vmdk_content { VMDK_ABSENT, VMDK_ZEROES, VMDK_PLAIN, VMDK_DEFLATED };

struct vmdk_run {
        enum vmdk_content content;
        uint64_t length;      /* bytes */
        uint64_t file_offset; /* of VMDK_PLAIN */
};

/* Tables in memory, of all of an image's sparse extents. */
struct vmdk_page {
        uint8_t *bytes; /* VMDK_PAGE; NULL: empty */
        uint64_t number;
        uint32_t id;
};
struct vmdk_kept {
        uint8_t *bytes;
        uint64_t file_offset;
        uint32_t id;
};
struct vmdk_cache {
        struct vmdk_page pages[VMDK_PAGES];
        struct vmdk_kept kept[VMDK_KEPT];
        unsigned next_kept;
};
void vmdk_cache_clear(struct vmdk_cache *cache);

/* Read and check the header, and the footer where that counts. Sets all but file and id. */
int co_vmdk_sparse_open(struct vmdk_sparse *s, struct error *err);
/* The grain table of the grain directory's entry @gde: where it is; 0: there is none. */
int co_vmdk_table(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t gde,
                  uint64_t *ret_offset, struct error *err);
/* The number at @offset, which must be inside of the file. */
int co_vmdk_entry(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t offset,
                  uint32_t *ret_entry, struct error *err);
/* What is at @offset of the extent: at most @length bytes, which must be inside of it. */
int co_vmdk_map(struct vmdk_cache *cache, const struct vmdk_sparse *s, uint64_t offset,
                uint64_t length, struct vmdk_run *ret_run, struct error *err);

/* ---- compressed grains (vmdk_inflate.c) ---- */

/* Read a range that is VMDK_DEFLATED throughout. */
int co_vmdk_read_deflated(struct image *image, struct vmdk_cache *cache,
                          const struct vmdk_sparse *s, void *buffer, uint64_t length,
                          uint64_t offset, struct error *err);

/* ---- an image that is open for reading (vmdk.c) ---- */

struct vmdk_extent {
        enum vmdk_extent_kind kind; /* VMDK_SPARSE, VMDK_FLAT or VMDK_ZERO_EXTENT */
        uint64_t begin, length;     /* on the disk */
        struct image *part;         /* its file, where that is another one */
        uint64_t part_offset;       /* of a flat one */
        struct vmdk_sparse sparse;
};

struct vmdk {
        struct vmdk_descriptor descriptor;
        struct vmdk_extent *extents; /* without a gap */
        size_t n_extents;
        struct image *parent;
        struct vmdk_cache cache;
};

/* -EPERM  an extent's file was not opened: the image was opened alone */
int vmdk_part_check(const struct image *image, const struct vmdk_extent *e, struct error *err);
int co_vmdk_check(struct image *image, struct image_check *check, struct error *err);
