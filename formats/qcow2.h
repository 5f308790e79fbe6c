/* qcow2.h - inside of the qcow2 driver: what its files share.
 *
 * qcow2.c opens and closes, qcow2_header.c reads the header, qcow2_lists.c the lists of snapshots and
 * bitmaps; qcow2_map.c says where a range lies, qcow2_read.c reads it, qcow2_unpack.c decompresses.
 * qcow2_write*.c with qcow2_alloc.c and qcow2_pack.c make files, qcow2_check*.c check them; both have
 * headers of their own.
 *
 * Units      bytes, unless a name says otherwise.
 * Threads    the image's loop; qcow2_unpack() runs in any.
 * Errors     0 or -errno with a sentence, as in image.h.
 * Ownership  struct qcow2 is image->state.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/coroutine.h"
#include "formats/image.h"
#include "formats/qcow2_format.h"

/* ---- ceilings on memory, whatever a file says ---- */

/* Of L2 tables, parts of this size are kept. */
#define QCOW2_SLICE_BYTES_MAX 16384u
#define QCOW2_SLICE_WAYS      8u
#define QCOW2_SLICES_BYTES    (4u << 20)
/* Clusters unpacked to read a part of them. */
#define QCOW2_UNPACKED_MAX 8u
/* Read and unpacked at once, in one thread. */
#define QCOW2_BATCH_CLUSTERS 128u
#define QCOW2_BATCH_BYTES    (1u << 20)

/* A part of an L2 table. */
struct qcow2_slice {
        uint64_t offset; /* in the file; 0: none */
        uint64_t used;   /* when, by qcow2.clock */
        uint8_t *data;
};

struct qcow2_unpacked {
        uint64_t entry; /* the cluster's L2 entry; 0: none */
        uint64_t used;
        uint8_t *data;
        bool loading;
        struct co_queue loaded;
};

struct qcow2_snapshot {
        uint64_t l1_offset;
        uint32_t l1_size; /* entries */
};

struct qcow2_writer;

struct qcow2 {
        /* The header's. */
        uint32_t version, cluster_bits, refcount_order, header_length;
        uint64_t cluster_bytes;
        uint64_t incompatible, compatible, autoclear;
        uint64_t refcount_table_offset;
        uint32_t refcount_table_clusters;
        uint32_t n_snapshots;
        uint64_t snapshots_offset, snapshots_bytes; /* the table as it lies there */
        enum qcow2_compression compression;
        bool extended;   /* L2 entries have a bitmap of subclusters */
        bool named_data; /* an external data file holds the data */
        /* The bitmaps extension; n_bitmaps 0: none, or not to be trusted. */
        uint32_t n_bitmaps;
        uint64_t bitmaps_offset, bitmaps_bytes;

        uint32_t l2_entry_bytes;
        uint32_t l2_bits;          /* an L2 table has 1 << this entries */
        uint32_t subcluster_bits;  /* of their size; without extended entries: cluster_bits */
        uint64_t active_l1_offset; /* the header's, whichever snapshot is open */
        uint32_t active_l1_size;
        struct qcow2_snapshot *snapshots; /* in the order of info.snapshots */

        /* What is open: the disk as it is now, or as it was at a snapshot. */
        uint64_t l1_offset;
        uint32_t l1_size;
        uint64_t *l1; /* as integers */
        bool alone;
        struct image *backing, *data;

        uint64_t clock;
        uint32_t slice_bytes, n_slices;
        struct qcow2_slice *slices;
        struct qcow2_unpacked unpacked[QCOW2_UNPACKED_MAX];

        struct qcow2_writer *writer; /* while an image is made; nothing of the above then */
};

static inline struct qcow2 *qcow2_of(struct image *image)
{
        return image->state;
}

/* ---- qcow2_header.c ---- */

/* Read the header and its extensions into the state and image->info. */
int co_qcow2_header_load(struct image *image, struct error *err);

/* A table that begins with a cluster and lies in the file, or a sentence: @what is "the L1 table". */
int qcow2_check_place(const struct image *image, const char *what, uint64_t offset, uint64_t bytes,
                      struct error *err);
/* The same of an L1 table of @size entries. */
int qcow2_check_l1(const struct image *image, const char *what, uint64_t offset, uint32_t size,
                   struct error *err);
/* Entries of an L1 table for a disk of this size. */
uint64_t qcow2_l1_needed(const struct qcow2 *q, uint64_t virtual_bytes);

/* ---- qcow2_lists.c ---- */

/* Read the lists that the header names into image->info, the snapshots' also into the state. */
int co_qcow2_snapshots_load(struct image *image, struct error *err);
int co_qcow2_bitmaps_load(struct image *image, struct error *err);

/* ---- qcow2_map.c ---- */

enum qcow2_kind {
        QCOW2_ABSENT, /* the backing file's; without one zero */
        QCOW2_READS_ZERO,
        QCOW2_PLAIN,
        QCOW2_PACKED, /* one compressed cluster, or for an extent several */
};

/* A range of the disk with one origin. */
struct qcow2_run {
        enum qcow2_kind kind;
        uint64_t length;
        bool has_host;
        uint64_t host;  /* where it lies; of other kinds than QCOW2_PLAIN what is preallocated */
        uint64_t entry; /* of the first cluster of QCOW2_PACKED */
};

/* The run at @offset < virtual_bytes: at most @length long, and ending with its L2 table at the
 * latest. */
int co_qcow2_map(struct image *image, uint64_t offset, uint64_t length, struct qcow2_run *ret_run,
                 struct error *err);
int co_qcow2_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                    struct error *err);

/* ---- qcow2_read.c ---- */

int co_qcow2_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                  struct error *err);

/* ---- qcow2_unpack.c ---- */

/* Decompress @n clusters, in one thread elsewhere. */
struct qcow2_packed {
        const uint8_t *from; /* what is known to hold it; it may end earlier */
        size_t from_bytes;
        uint8_t *to; /* a cluster */
        bool failed;
};
struct qcow2_unpack {
        enum qcow2_compression compression;
        size_t cluster_bytes;
        struct qcow2_packed packed[QCOW2_BATCH_CLUSTERS];
        size_t n;
        bool no_memory;
};
void qcow2_unpack(void *unpack);

/* ---- qcow2_write.c ---- */

int co_qcow2_create(struct image *image, const struct image_create_options *options,
                    struct error *err);
int co_qcow2_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                   struct error *err);
int co_qcow2_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err);
int co_qcow2_finish(struct image *image, struct error *err);
void qcow2_writer_free(struct qcow2_writer *writer); /* NULL is fine */

/* ---- qcow2_check.c ---- */

/* Of an image that was opened alone. */
int co_qcow2_check(struct image *image, struct image_check *check, struct error *err);
