/* format.h - what lies on disk. FORMAT.md tells how the pieces hang together; the numbers are here.
 *
 * Only codec.c reads and writes these structs; it checks every field against a named limit. The
 * numbers that begin the comments of members are their offsets in bytes.
 *
 * Units      addresses are pool blocks of 4096 bytes, lengths too where the name says _blocks; all
 *            else is bytes. Integers are little-endian (common/le.h).
 * Threads    none of its own.
 * Errors     a struct that is not as described here is -EUCLEAN, a newer one -ENOTSUP (codec.c).
 */
#pragma once
#include <assert.h>
#include "common/le.h"
#include "pool/pool.h"

#define FORMAT_VERSION 1u

#define BASE_DESCRIPTION_MAX 768u /* with a NUL; the text is the caller's */

/* Feature bits. An unknown incompatible bit refuses to open; an unknown read-only-compatible bit
 * refuses to open for writing. */
#define FEATURE_INCOMPAT_BASE    UINT64_C(1) /* there are, or were, volumes on an image */
#define FEATURES_INCOMPAT_KNOWN  FEATURE_INCOMPAT_BASE
#define FEATURES_RO_COMPAT_KNOWN UINT64_C(0)

/* ---- a member ----
 * [0, 1 MiB) label area; slabs in units of slab_bytes from 1 MiB on; the last 1 MiB is the second
 * label area, laid out as the first. */
#define LABEL_AREA_BYTES  (UINT64_C(1) << 20)
#define SUPER_RING_OFFSET (UINT64_C(64) << 10) /* in the label area */
#define SUPER_SLOTS       7u                   /* generation g lies in slot g % 7 */
#define SUPER_SLOT_BYTES  (128u << 10)
static_assert(SUPER_RING_OFFSET + SUPER_SLOTS * SUPER_SLOT_BYTES <= LABEL_AREA_BYTES, "format v1");

#define LABEL_MAGIC UINT64_C(0x316c62616c6e7274) /* "trnlabl1" */
struct label_disk {
        le64 magic;              /*    0 */
        le32 version;            /*    8 */
        le32 index;              /*   12  among the pool's members */
        le64 incompat;           /*   16 */
        le64 ro_compat;          /*   24 */
        le64 compat;             /*   32 */
        uint8_t pool_uuid[16];   /*   40 */
        uint8_t member_uuid[16]; /*   56 */
        le64 size_bytes;         /*   72  of the member when it was labelled */
        le64 created_ns;         /*   80  since 1970 UTC */
        char pool_name[64];      /*   88  when it was labelled; the superblock's counts */
        uint8_t lease[256];      /*  152  zero; for leases of hosts where files have no locks */
        uint8_t reserved[3684];  /*  408 */
        le32 crc32c;             /* 4092  of bytes 0..4091 */
};
static_assert(sizeof(struct label_disk) == 4096, "format v1");

/* ---- map entries: 16 bytes ----
 * word: bits 0..43 pool address, 44..47 type, 48..55 flags (zero), 56..63 low byte of birth. */
struct entry_disk {
        le64 word;
        le32 birth_high; /* birth >> 8 */
        le32 crc32c;     /* of the block at the address, as stored */
};
static_assert(sizeof(struct entry_disk) == 16, "format v1");

enum entry_type {
        ENTRY_ABSENT = 0, /* reads as zeroes, takes no space; at any level, for the whole range */
        ENTRY_ZERO = 1,   /* reads as zeroes; the same at any level */
        ENTRY_DATA = 2,   /* one block of data */
        ENTRY_NODE = 3,   /* a map node, a deadlist page or a bucket page */
        ENTRY_COMPRESSED = 4, /* reserved, as are: 5 provisioned, 6 poisoned, 7 in place */
};
#define ADDRESS_BITS 44
#define ADDRESS_MAX  ((UINT64_C(1) << ADDRESS_BITS) - 1)
#define BIRTH_MAX    ((UINT64_C(1) << 40) - 1)
/* Of generations, incarnations, sequences and ids: nobody gets there by counting. */
#define COUNTER_MAX (UINT64_C(1) << 62)

#define NODE_ENTRIES 256u
#define LEAF_BLOCKS  256u /* a leaf covers 1 MiB */
#define HEIGHT_MAX   5u   /* 256^5 blocks: 4 PiB */
struct node_disk {
        struct entry_disk entry[NODE_ENTRIES];
};
static_assert(sizeof(struct node_disk) == 4096, "format v1");

/* ---- slabs ---- */
enum slab_kind {
        SLAB_NONE = 0,   /* the record is free */
        SLAB_SYSTEM = 1, /* table and index pages, three copies each */
        SLAB_LOG = 2,
        SLAB_METADATA = 3, /* map nodes, catalog, deadlists, space maps */
        SLAB_DATA = 4,
};
#define SLAB_LEGS_MAX  4u
#define SLAB_LEGS      2u /* of all that is not data, where there are two members */
#define SLAB_BYTES_MIN (UINT32_C(256) << 10) /* pools of real disks: 4 MiB */
#define SLAB_BYTES_MAX (UINT32_C(128) << 20) /* one bit a block in one page */
#define MAP_COPIES     3u

struct leg_disk {
        le16 member;
        uint8_t reserved[6];
        le64 offset; /* bytes on the member */
};
struct slab_disk {
        uint8_t kind;      /*   0 */
        uint8_t n_legs;    /*   1 */
        uint8_t map_copy;  /*   2  which of the space map's copies counts */
        uint8_t reserved0; /*   3 */
        le32 free_blocks;  /*   4 */
        le32 map_crc32c;   /*   8  of that copy */
        le32 log_index;    /*  12  a log slab's place in the ring */
        /* Pool addresses in metadata slabs; of data and metadata slabs only. */
        le64 map_address[MAP_COPIES];       /*  16 */
        struct leg_disk leg[SLAB_LEGS_MAX]; /*  40 */
        /* Bit i: MiB i may hold something on the member, and wants discarding once free. */
        le64 touched[2];      /* 104 */
        uint8_t reserved1[8]; /* 120 */
};
static_assert(sizeof(struct slab_disk) == 128, "format v1");
#define SLABS_PER_PAGE 32u

/* Where three copies of a page lie, before addresses can be translated: 32 bytes. Used by index
 * pages to name table pages, and by the superblock to name index pages. Copy c of leg l is at
 * offset[l] + c * 4096. */
struct extent_disk {
        le16 member[2]; /*  0 */
        uint8_t n_legs; /*  4 */
        uint8_t copy;   /*  5  which copy counts */
        le16 reserved0; /*  6 */
        le32 crc32c;    /*  8  of the page */
        le32 reserved1; /* 12 */
        le64 offset[2]; /* 16 */
};
static_assert(sizeof(struct extent_disk) == 32, "format v1");
#define EXTENTS_PER_PAGE 128u

/* ---- superblock ---- */
#define SUPER_MAGIC UINT64_C(0x3172657075736e74) /* "tnsuper1" */
enum member_state { MEMBER_STATE_IN = 1 };
struct super_member_disk {
        uint8_t uuid[16];     /*  0 */
        le32 index;           /* 16 */
        le32 state;           /* 20  enum member_state */
        le64 size_bytes;      /* 24 */
        uint8_t reserved[32]; /* 32  for the in-sync set and timeline of mirrored data */
};
static_assert(sizeof(struct super_member_disk) == 64, "format v1");

struct super_disk {
        le64 magic;            /*    0 */
        le32 version;          /*    8 */
        le32 crc32c;           /*   12  of all length bytes, this field taken as zero */
        le32 length;           /*   16  bytes, a multiple of 4096 */
        le32 n_members;        /*   20 */
        le64 generation;       /*   24 */
        le64 epoch;            /*   32  the epoch that began when this checkpoint was cut */
        le64 incompat;         /*   40 */
        le64 ro_compat;        /*   48 */
        le64 compat;           /*   56 */
        uint8_t pool_uuid[16]; /*   64 */
        char name[64];         /*   80 */
        le64 created_ns;       /*  144 */
        le32 layout;           /*  152  enum pool_layout */
        le32 stripe_blocks;    /*  156 */
        le32 slab_blocks;      /*  160  a power of two */
        le32 n_slabs;          /*  164  records in the table */
        le32 n_index;          /*  168  index pages */
        le32 log_pages;        /*  172  pages in the ring */
        le64 log_incarnation;  /*  176 */
        /* Sequence of the first page to replay; it lies at sequence % log_pages. */
        le64 log_start;            /*  184 */
        le32 log_chain;            /*  192  CRC of the page before it */
        le32 catalog_height;       /*  196 */
        struct entry_disk catalog; /*  200 */
        le64 next_root_id;         /*  216 */
        le64 next_record;          /*  224  sequence of the first log record to replay */
        uint8_t reserved[3864];    /*  232 */
        /* then n_members super_member_disk, then n_index extent_disk, then zeroes to length */
};
static_assert(sizeof(struct super_disk) == 4096, "format v1");
#define INDEX_PAGES_MAX                                                                            \
        ((SUPER_SLOT_BYTES - 4096 -                                                                \
          POOL_MEMBERS_MAX * (unsigned)sizeof(struct super_member_disk)) /                         \
         (unsigned)sizeof(struct extent_disk))

/* ---- log ---- */
#define LOG_MAGIC 0x676c6e74u /* "tnlg" */
struct log_page_disk {
        le32 magic;            /*  0 */
        le32 crc32c;           /*  4  of bytes 8..4095 */
        uint8_t pool_uuid[16]; /*  8 */
        le64 incarnation;      /* 24 */
        le64 generation;       /* 32  of the newest committed superblock when the page was sealed */
        le64 epoch;            /* 40  of all its records */
        le64 sequence;         /* 48 */
        le64 mark;             /* 56  data of records below this sequence is known flushed */
        le64 first_record;     /* 64 */
        le32 chain;            /* 72  crc32c of the page before */
        le16 used;             /* 76  bytes of records */
        le16 stream;           /* 78  zero */
        uint8_t records[4016]; /* 80 */
};
static_assert(sizeof(struct log_page_disk) == 4096, "format v1");

enum log_type {
        LOG_WRITE = 1,  /* data blocks took their place in a map */
        LOG_CLEAR = 2,  /* a range became absent or zero */
        LOG_SLAB = 3,   /* a slab was made */
        LOG_CREATE = 4, /* a volume */
        LOG_SNAPSHOT = 5,
        LOG_CLONE = 6,
        LOG_RESTORE = 7,
        LOG_UNNAME = 8, /* a volume or snapshot lost its name */
        LOG_RENAME = 9,
        LOG_RESIZE = 10,
        LOG_PROPERTY = 11,
        LOG_BASE = 12, /* an image that volumes stand on: made, or described anew */
};
#define LOG_MORE 1u /* flag: the operation goes on in the next record; all or none are applied */

struct log_head_disk {
        uint8_t type;
        uint8_t flags;
        le16 length; /* bytes with this head, a multiple of 8 */
};
struct log_write_disk {
        struct log_head_disk head;
        le32 n_blocks; /* 1 to 256 */
        le64 root_id;
        le64 block;
        le64 address;
        le32 crc32c[]; /* one a block, padded to 8 bytes */
};
struct log_clear_disk {
        struct log_head_disk head;
        le32 type; /* ENTRY_ABSENT or ENTRY_ZERO */
        le64 root_id;
        le64 block;
        le64 n_blocks; /* at most LOG_CLEAR_LEAVES leaves are touched */
};
#define LOG_CLEAR_LEAVES 1024u
struct log_slab_disk {
        struct log_head_disk head;
        le32 index;
        struct slab_disk slab;
};
/* CREATE, SNAPSHOT, CLONE, RESTORE, UNNAME, RENAME, RESIZE: which fields each uses stands in
 * FORMAT.md. */
struct log_catalog_disk {
        struct log_head_disk head;
        le32 reserved;
        le64 root_id; /* acted on */
        le64 new_id;  /* made */
        le64 from_id; /* its parent to be */
        le64 size_bytes;
        le64 time_ns;
        uint8_t uuid[16];
        char name[64];
};
struct log_property_disk {
        struct log_head_disk head;
        le32 reserved;
        le64 root_id;
        char key[32];
        char value[64]; /* empty: removed */
};

struct log_base_disk {
        struct log_head_disk head;
        le32 flags;   /* INDEX_COMPLETE or none */
        le64 root_id; /* described anew; 0: made */
        le64 new_id;  /* made; 0: described anew */
        le64 size_bytes;
        le64 time_ns;
        uint8_t uuid[16];
        char description[BASE_DESCRIPTION_MAX];
};

/* ---- catalog ----
 * An internal map tree of height CATALOG_HEIGHT, its blocks in metadata slabs: index blocks from
 * block 0 on, root blocks at CATALOG_ROOT_BASE + slot. */
#define CATALOG_HEIGHT    3u
#define CATALOG_ROOT_BASE 65536u
#define INDEX_PER_BLOCK   32u
#define SLOTS_MAX         (1u << 20)
static_assert(SLOTS_MAX > POOL_ROOTS_MAX && SLOTS_MAX / INDEX_PER_BLOCK <= CATALOG_ROOT_BASE,
              "format v1");

enum root_state {
        ROOT_FREE = 0,
        ROOT_LIVE = 1,   /* the head of a volume */
        ROOT_FROZEN = 2, /* a snapshot; nameless where only children or handles keep it */
        ROOT_ORPHAN = 3, /* being freed */
        ROOT_BASE = 4,   /* what is known in the pool of an image that volumes stand on */
};
struct index_disk {
        char name[64];  /*  0  the volume's for LIVE, the snapshot's for FROZEN; empty: hidden */
        le64 id;        /* 64  never reused */
        le64 volume_id; /* 72  common to a volume and its snapshots */
        le64 parent_id; /* 80  0: none */
        /* FROZEN: the last epoch it belongs to; ORPHAN: the threshold, births above are freed. */
        le64 epoch;            /* 88 */
        uint8_t state;         /* 96 */
        uint8_t flags;         /*  97 */
        uint8_t reserved[6];   /*  98 */
        le64 base_id;          /* 104  of a root on an image: the base; 0: none */
        uint8_t reserved1[16]; /* 112 */
};
#define INDEX_SHRINKING 1u /* its root block's high is above 0: what lies there is to be freed */
#define INDEX_COMPLETE  2u /* of a base: nothing of the image is needed any more */
static_assert(sizeof(struct index_disk) == 128, "format v1");

/* A bucket of a deadlist: births above key, up to the next ancestor's epoch. */
struct bucket_disk {
        le64 key;
        struct entry_disk head; /* newest page */
        le64 n_blocks;          /* entries in all pages */
        le32 n_pages;
        le32 flags; /* an orphan's: BUCKET_PAGES_ONLY */
};
static_assert(sizeof(struct bucket_disk) == 40, "format v1");
#define BUCKET_PAGES_ONLY 1u /* free the pages, not the blocks they list */

#define ROOT_MAGIC      UINT64_C(0x31746f6f726e7274) /* "trnroot1" */
#define ROOT_BUCKETS    32u
#define ROOT_PROPERTIES 16u
struct property_disk {
        char key[32];
        char value[64];
};
struct root_disk {
        le64 magic;             /*    0 */
        le64 id;                /*    8 */
        uint8_t uuid[16];       /*   16 */
        le64 created_ns;        /*   32 */
        le64 size_bytes;        /*   40 */
        le64 high_bytes;        /*   48  above size while a shrink is being worked off */
        struct entry_disk map;  /*   56 */
        uint8_t height;         /*   72 */
        uint8_t entry_format;   /*   73  0; 32-byte entries are reserved */
        uint8_t block_shift;    /*   74  12 */
        uint8_t n_properties;   /*   75 */
        le32 n_buckets;         /*   76 */
        le64 data_blocks;       /*   80  reachable from the map */
        le64 own_blocks;        /*   88  data and nodes, reachable, born after the parent's epoch */
        le64 cursor;            /*   96  ORPHAN: blocks below are freed */
        le64 reservation;       /*  104  reserved */
        le64 quota;             /*  112  reserved */
        struct entry_disk more; /*  120  first bucket page, for those beyond ROOT_BUCKETS */
        le64 base_bytes;        /*  136  of the base that show through, from the beginning on */
        uint8_t reserved[368];  /*  144 */
        struct bucket_disk bucket[ROOT_BUCKETS];        /*  512 */
        struct property_disk property[ROOT_PROPERTIES]; /* 1792 */
        char description[BASE_DESCRIPTION_MAX];         /* 3328  of a base: of its image */
};
static_assert(sizeof(struct root_disk) == 4096, "format v1");

#define BUCKETS_MAGIC UINT64_C(0x31746b62746e7274) /* "trntbkt1" */
#define PAGE_BUCKETS  100u
struct buckets_disk {
        le64 magic;
        struct entry_disk next; /* absent: the last */
        le32 n;
        le32 reserved;
        struct bucket_disk bucket[PAGE_BUCKETS];
        uint8_t reserved1[64];
};
static_assert(sizeof(struct buckets_disk) == 4096, "format v1");

#define DEADLIST_MAGIC UINT64_C(0x31646165646e7274) /* "trndead1" */
#define DEAD_ENTRIES   252u
struct deadlist_disk {
        le64 magic;
        struct entry_disk prev; /* older page; absent: none */
        struct entry_disk join; /* head of a second chain, where two were merged; absent: none */
        le32 n;
        le32 reserved0;
        uint8_t reserved[16];
        struct entry_disk entry[DEAD_ENTRIES]; /* the map entries that died */
};
static_assert(sizeof(struct deadlist_disk) == 4096, "format v1");
