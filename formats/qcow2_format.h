/* qcow2_format.h - what lies where in a qcow2 file.
 *
 * From QEMU's docs/interop/qcow2.txt (as of QEMU 9): "Header", "Header extensions", "Host cluster
 * management", "Cluster mapping", "Extended L2 Entries", "Snapshots", "Bitmaps". Names ending in _AT are
 * offsets into the structure that they are named after.
 *
 * Units      bytes, unless a name says otherwise. All integers lie there with their highest byte first.
 * Threads    any; there is no state.
 * Errors     none: nothing here looks at whether a value makes sense.
 * Ownership  none.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "common/be.h"

/* ---- integers ---- */

static inline uint16_t qcow2_get16(const void *p)
{
        return be16_get(*(const be16 *)p);
}

static inline uint32_t qcow2_get32(const void *p)
{
        return be32_get(*(const be32 *)p);
}

static inline uint64_t qcow2_get64(const void *p)
{
        return be64_get(*(const be64 *)p);
}

static inline void qcow2_put16(void *p, uint16_t v)
{
        *(be16 *)p = be16_make(v);
}

static inline void qcow2_put32(void *p, uint32_t v)
{
        *(be32 *)p = be32_make(v);
}

static inline void qcow2_put64(void *p, uint64_t v)
{
        *(be64 *)p = be64_make(v);
}

/* ---- header ---- */

#define QCOW2_MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */

enum {
        QCOW2_MAGIC_AT = 0,                    /* 32 */
        QCOW2_VERSION_AT = 4,                  /* 32: 2 or 3 */
        QCOW2_BACKING_OFFSET_AT = 8,           /* 64: of the name; 0: none */
        QCOW2_BACKING_SIZE_AT = 16,            /* 32: of the name, without a NUL */
        QCOW2_CLUSTER_BITS_AT = 20,            /* 32 */
        QCOW2_SIZE_AT = 24,                    /* 64: the disk's */
        QCOW2_CRYPT_METHOD_AT = 32,            /* 32: enum qcow2_crypt */
        QCOW2_L1_SIZE_AT = 36,                 /* 32: entries */
        QCOW2_L1_OFFSET_AT = 40,               /* 64 */
        QCOW2_REFCOUNT_TABLE_OFFSET_AT = 48,   /* 64 */
        QCOW2_REFCOUNT_TABLE_CLUSTERS_AT = 56, /* 32 */
        QCOW2_N_SNAPSHOTS_AT = 60,             /* 32 */
        QCOW2_SNAPSHOTS_OFFSET_AT = 64,        /* 64 */
        QCOW2_V2_HEADER_SIZE = 72,  /* version 2 ends here, with no feature and refcount order 4 */
        QCOW2_INCOMPATIBLE_AT = 72, /* 64 */
        QCOW2_COMPATIBLE_AT = 80,   /* 64 */
        QCOW2_AUTOCLEAR_AT = 88,    /* 64 */
        QCOW2_REFCOUNT_ORDER_AT = 96,           /* 32: a refcount has 1 << this bits; at most 6 */
        QCOW2_HEADER_LENGTH_AT = 100,           /* 32: a multiple of 8 */
        QCOW2_V3_HEADER_SIZE = 104,             /* at least */
        QCOW2_COMPRESSION_TYPE_AT = 104,        /* 8: enum qcow2_compression; absent: zlib */
        QCOW2_V3_HEADER_SIZE_COMPRESSION = 112, /* with it */
};

enum qcow2_crypt { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };
enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

/* Incompatible features. */
#define QCOW2_DIRTY            (UINT64_C(1) << 0)
#define QCOW2_CORRUPT          (UINT64_C(1) << 1)
#define QCOW2_DATA_FILE        (UINT64_C(1) << 2)
#define QCOW2_COMPRESSION_TYPE (UINT64_C(1) << 3)
#define QCOW2_EXTENDED_L2      (UINT64_C(1) << 4)
#define QCOW2_INCOMPATIBLE_KNOWN                                                                   \
        (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION_TYPE | QCOW2_EXTENDED_L2)
/* Compatible features. */
#define QCOW2_LAZY_REFCOUNTS (UINT64_C(1) << 0)
/* Auto-clear features. */
#define QCOW2_BITMAPS       (UINT64_C(1) << 0)
#define QCOW2_DATA_FILE_RAW (UINT64_C(1) << 1)

/* Header extensions: type (32), length (32), data, padded to a multiple of 8. */
#define QCOW2_EXTENSION_HEAD           8u
#define QCOW2_EXTENSION_END            UINT32_C(0)
#define QCOW2_EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)
#define QCOW2_EXTENSION_FEATURE_NAMES  UINT32_C(0x6803f857)
#define QCOW2_EXTENSION_BITMAPS        UINT32_C(0x23852875)
#define QCOW2_EXTENSION_CRYPT          UINT32_C(0x0537be77)
#define QCOW2_EXTENSION_DATA_FILE      UINT32_C(0x44415441)

enum {                            /* an entry of the feature name table */
       QCOW2_FEATURE_KIND_AT = 0, /* 8: 0 incompatible, 1 compatible, 2 auto-clear */
       QCOW2_FEATURE_BIT_AT = 1,  /* 8 */
       QCOW2_FEATURE_NAME_AT = 2, /* padded with NULs */
       QCOW2_FEATURE_NAME_SIZE = 46,
       QCOW2_FEATURE_SIZE = 48,
};

enum {                                         /* the bitmaps extension */
       QCOW2_BITMAPS_N_AT = 0,                 /* 32 */
       QCOW2_BITMAPS_DIRECTORY_SIZE_AT = 8,    /* 64 */
       QCOW2_BITMAPS_DIRECTORY_OFFSET_AT = 16, /* 64 */
       QCOW2_BITMAPS_SIZE = 24,
};

/* ---- tables ---- */

#define QCOW2_OFFSET_MASK          UINT64_C(0x00fffffffffffe00) /* bits 9 to 55 of L1 and L2 entries */
#define QCOW2_COPIED               (UINT64_C(1) << 63)          /* the refcount is exactly one */
#define QCOW2_COMPRESSED           (UINT64_C(1) << 62)          /* L2 */
#define QCOW2_ZERO                 (UINT64_C(1) << 0) /* L2, version 3 without extended entries */
#define QCOW2_L1_RESERVED          UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED          UINT64_C(0x3f000000000001fe) /* of standard clusters; bit 0 is above */
#define QCOW2_REFCOUNT_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFCOUNT_RESERVED    UINT64_C(0x1ff)

#define QCOW2_L1_ENTRY          8u
#define QCOW2_L2_ENTRY          8u
#define QCOW2_L2_ENTRY_EXTENDED 16u /* followed by a bitmap: 32 "allocated", above them 32 "zero" */
#define QCOW2_SUBCLUSTERS       32u
#define QCOW2_REFCOUNT_ENTRY    8u /* of the table */

/* The sectors of a compressed cluster: the one that it begins in, and how many more. The data may end
 * anywhere in the last one. */
#define QCOW2_COMPRESSED_SECTOR 512u

/* Bits of the offset of a compressed cluster; above them, up to bit 61, is the number of further
 * sectors. */
static inline unsigned qcow2_compressed_offset_bits(unsigned cluster_bits)
{
        return 62 - (cluster_bits - 8);
}

static inline uint64_t qcow2_compressed_offset(uint64_t entry, unsigned cluster_bits)
{
        return entry & ((UINT64_C(1) << qcow2_compressed_offset_bits(cluster_bits)) - 1);
}

/* From the offset to the end of the last sector. */
static inline uint64_t qcow2_compressed_bytes(uint64_t entry, unsigned cluster_bits)
{
        uint64_t more =
            (entry & (QCOW2_COMPRESSED - 1)) >> qcow2_compressed_offset_bits(cluster_bits);

        return (more + 1) * QCOW2_COMPRESSED_SECTOR -
               qcow2_compressed_offset(entry, cluster_bits) % QCOW2_COMPRESSED_SECTOR;
}

static inline uint64_t qcow2_compressed_make(uint64_t offset, uint64_t bytes, unsigned cluster_bits)
{
        uint64_t more = (offset % QCOW2_COMPRESSED_SECTOR + bytes - 1) / QCOW2_COMPRESSED_SECTOR;

        return QCOW2_COMPRESSED | more << qcow2_compressed_offset_bits(cluster_bits) | offset;
}

/* What "zlib" means: raw deflate with a window of 1 << this bytes, without zlib's header. */
#define QCOW2_ZLIB_WINDOW_BITS 12

/* ---- snapshots ---- */

enum {                                   /* an entry of the snapshot table, a multiple of 8 long */
       QCOW2_SNAPSHOT_L1_OFFSET_AT = 0,  /* 64 */
       QCOW2_SNAPSHOT_L1_SIZE_AT = 8,    /* 32: entries */
       QCOW2_SNAPSHOT_ID_SIZE_AT = 12,   /* 16 */
       QCOW2_SNAPSHOT_NAME_SIZE_AT = 14, /* 16 */
       QCOW2_SNAPSHOT_DATE_S_AT = 16,    /* 32 */
       QCOW2_SNAPSHOT_DATE_NS_AT = 20,   /* 32 */
       QCOW2_SNAPSHOT_VM_CLOCK_NS_AT = 24,     /* 64 */
       QCOW2_SNAPSHOT_VM_STATE_32_AT = 32,     /* 32: bytes, where there is no extra data */
       QCOW2_SNAPSHOT_EXTRA_SIZE_AT = 36,      /* 32 */
       QCOW2_SNAPSHOT_SIZE = 40,               /* then extra data, id, name, padding */
       QCOW2_SNAPSHOT_EXTRA_VM_STATE_AT = 0,   /* 64: of the extra data */
       QCOW2_SNAPSHOT_EXTRA_SIZE_BYTES_AT = 8, /* 64: the disk's size then */
       QCOW2_SNAPSHOT_EXTRA_V3_SIZE = 16,      /* version 3 has at least this much */
};

/* ---- bitmaps ---- */

enum { /* an entry of the bitmap directory, a multiple of 8 long */
       QCOW2_BITMAP_TABLE_OFFSET_AT = 0,      /* 64 */
       QCOW2_BITMAP_TABLE_SIZE_AT = 8,        /* 32: entries of 64 bits */
       QCOW2_BITMAP_FLAGS_AT = 12,            /* 32 */
       QCOW2_BITMAP_TYPE_AT = 16,             /* 8: 1 */
       QCOW2_BITMAP_GRANULARITY_BITS_AT = 17, /* 8 */
       QCOW2_BITMAP_NAME_SIZE_AT = 18,        /* 16 */
       QCOW2_BITMAP_EXTRA_SIZE_AT = 20,       /* 32 */
       QCOW2_BITMAP_SIZE = 24,                /* then extra data, name, padding */
};
#define QCOW2_BITMAP_TYPE_DIRTY     1u
#define QCOW2_BITMAP_IN_USE         UINT32_C(1)
#define QCOW2_BITMAP_AUTO           UINT32_C(2)
#define QCOW2_BITMAP_EXTRA_OK       UINT32_C(4)
#define QCOW2_BITMAP_ENTRY_ONES     UINT64_C(1) /* of the table: no offset, all bits are set */
#define QCOW2_BITMAP_ENTRY_RESERVED UINT64_C(0xff000000000001fe)

/* ---- limits ---- */

/* QEMU's own. */
#define QCOW2_CLUSTER_BITS_MIN            9u
#define QCOW2_CLUSTER_BITS_MAX            21u
#define QCOW2_CLUSTER_BITS_MIN_EXTENDED   14u
#define QCOW2_L1_BYTES_MAX                (UINT64_C(32) << 20)
#define QCOW2_REFCOUNT_TABLE_BYTES_MAX    (UINT64_C(8) << 20)
#define QCOW2_REFCOUNT_ORDER_MAX          6u
#define QCOW2_BACKING_NAME_MAX            1023u
#define QCOW2_SNAPSHOTS_MAX               65536u
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX    (UINT64_C(64) << 20)
#define QCOW2_SNAPSHOT_EXTRA_MAX          1024u
#define QCOW2_BITMAPS_MAX                 65535u
#define QCOW2_BITMAP_DIRECTORY_BYTES_MAX  (UINT64_C(64) << 20)
#define QCOW2_BITMAP_TABLE_ENTRIES_MAX    (UINT64_C(1) << 27)
#define QCOW2_BITMAP_NAME_MAX             1023u
#define QCOW2_BITMAP_GRANULARITY_BITS_MIN 9u
#define QCOW2_BITMAP_GRANULARITY_BITS_MAX 31u
