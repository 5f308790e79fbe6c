/* vmdk_write.h - what the parts of the VMDK writer share.
 *
 * A call to write first finds the places of all that it has, without suspending, so that calls which
 * begin in ascending order take places in ascending order; then it writes (struct vmdk_plan).
 *
 * Units      bytes, but for what is named _sectors or _sector: 512 bytes.
 * Threads    the image's loop; deflating happens in its offload's.
 * Errors     0 or -errno with a sentence that names the file.
 * Ownership  a plan owns what was added as owned, until vmdk_plan_clear().
 */
#pragma once
#include "common/coroutine.h"
#include "formats/vmdk_internal.h"

#define VMDK_GRAIN           (64u << 10) /* VMware's; others know no other */
#define VMDK_GRAIN_MIN       (8u << 10)
#define VMDK_GTES            512u
#define VMDK_GT_SECTORS      (VMDK_GTES * 4 / VMDK_SECTOR)
#define VMDK_DESCRIPTOR_ROOM 20u                  /* sectors for it inside of a sparse file */
#define VMDK_PART_SECTORS    UINT64_C(4192256)    /* VMware's: 2047 MiB */
#define VMDK_WRITE_MAX       (UINT64_C(64) << 40) /* VMware's limit is 62 TiB */

enum vmdk_variant {
        VMDK_MONOLITHIC_SPARSE,
        VMDK_STREAM,
        VMDK_MONOLITHIC_FLAT,
        VMDK_SPLIT_SPARSE,
        VMDK_SPLIT_FLAT
};

/* ---- what a call writes ---- */

struct vmdk_plan_run {
        struct image *file;
        const void *data;
        size_t length;
        uint64_t offset;
};
struct vmdk_plan {
        struct vmdk_plan_run *runs;
        size_t n_runs, n_allocated;
        void **owned;
        size_t n_owned;
};

/* Runs that go on where the last one ends, in memory and in the file, become one. */
int vmdk_plan_add(struct vmdk_plan *plan, struct image *file, const void *data, size_t length,
                  uint64_t offset, struct error *err);
/* @data is the plan's from now on, also after a failure; NULL is -ENOMEM. */
int vmdk_plan_own(struct vmdk_plan *plan, void *data, struct error *err);
int co_vmdk_plan_write(struct vmdk_plan *plan, struct error *err);
void vmdk_plan_clear(struct vmdk_plan *plan);

/* ---- sparse files (vmdk_write_sparse.c) ---- */

struct vmdk_sparse_out {
        struct image *file;
        uint64_t capacity_sectors;
        uint32_t grain_bytes;
        bool embeds; /* the descriptor */
        uint64_t n_gdes, gd_sectors, rgd_sector, gd_sector, overhead_sectors;
        uint64_t next_sector;
        le32 *table; /* of VMDK_GTES, of the entry gde; NULL: none yet */
        uint64_t gde;
};

/* Sets the layout, and makes the file one that nobody takes for complete. */
int co_vmdk_sparse_begin(struct vmdk_sparse_out *o, struct error *err);
/* Find places for @length bytes at @offset, which begin with a grain. */
int vmdk_sparse_place(struct vmdk_sparse_out *o, struct vmdk_plan *plan, const uint8_t *data,
                      size_t length, uint64_t offset, struct error *err);
/* @text: the descriptor, of VMDK_DESCRIPTOR_ROOM sectors, where it is embedded. */
int co_vmdk_sparse_finish(struct vmdk_sparse_out *o, const char *text, struct error *err);
void vmdk_sparse_release(struct vmdk_sparse_out *o);

/* ---- stream-optimized files (vmdk_write_stream.c) ---- */

struct vmdk_stream_out {
        struct image *file;
        uint64_t capacity_sectors;
        uint32_t grain_bytes;
        uint64_t n_gdes;
        uint64_t next_sector;
        le32 *gd;
        le32 table[VMDK_GTES];
        uint64_t gde; /* the table's */
        bool table_used;
        bool failed;
        /* Calls that deflate at the same time take their places in the order in which they began. */
        uint64_t next_ticket, turn;
        struct co_queue waiting;
};

int co_vmdk_stream_begin(struct vmdk_stream_out *o, struct error *err);
int co_vmdk_stream_write(struct vmdk_stream_out *o, struct offload *offload, const uint8_t *data,
                         size_t length, uint64_t offset, struct error *err);
int co_vmdk_stream_finish(struct vmdk_stream_out *o, const char *text, struct error *err);
void vmdk_stream_release(struct vmdk_stream_out *o);

/* ---- an image that is written (vmdk_write.c) ---- */

struct vmdk_out_part {
        uint64_t begin, length; /* on the disk; length in whole sectors */
        struct image *part;     /* NULL: the image's own file */
        char *name;             /* as the descriptor has it */
        struct vmdk_sparse_out sparse;
};

struct vmdk_out {
        enum vmdk_variant variant;
        uint32_t cid;
        uint64_t capacity_sectors;
        struct vmdk_out_part *parts;
        size_t n_parts;
        struct vmdk_stream_out stream;
        bool failed; /* the tables may name what was not written */
};

const char *vmdk_variant_name(enum vmdk_variant variant); /* a descriptor's createType */

/* The descriptor's text, malloc'ed, with NULs up to @room bytes behind it (0: as it is). */
int vmdk_descriptor_text(const struct vmdk_out *out, size_t room, char **ret_text,
                         size_t *ret_length, struct error *err);
/* The header of a sparse file, without the places that differ. */
void vmdk_header_init(struct vmdk_header_disk *h, uint32_t version, uint32_t flags,
                      uint64_t capacity_sectors, uint32_t grain_bytes);
/* A header that says "not finished" at the beginning of an empty file. */
int co_vmdk_mark_unfinished(struct image *file, struct error *err);
int vmdk_set_length(struct image *file, uint64_t length, struct error *err);
int co_vmdk_sync(struct image *file, struct error *err);

int co_vmdk_create(struct image *image, const struct image_create_options *options,
                   struct error *err);
int co_vmdk_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                  struct error *err);
int co_vmdk_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err);
int co_vmdk_finish(struct image *image, struct error *err);
void vmdk_write_close(struct image *image);
