/* qcow2_writer.h - inside of qcow2_write*.c: a qcow2 file that is being made.
 *
 * The file's first cluster, the header, is written last; before it come the data in the disk's order, with
 * L2 tables and refcount blocks in between as they fill, then the L1 table and the refcount table. What is
 * kept in memory is the L1 table, the refcount table (QCOW2_L1_BYTES_MAX and
 * QCOW2_REFCOUNT_TABLE_BYTES_MAX at most), and the L2 tables and refcount blocks that calls under way
 * touch.
 *
 * Units      bytes.
 * Threads    the image's loop.
 * Errors     0 or -errno with a sentence, after which the image cannot be finished.
 * Ownership  the image's.
 */
#pragma once
#include "common/coroutine.h"
#include "common/list.h"
#include "formats/image.h"
#include "formats/qcow2.h"
#include "formats/qcow2_alloc.h"
#include "formats/qcow2_pack.h"

#define QCOW2_PACKERS_MAX 16u /* kept for the next call */

/* An L2 table that can still change. */
struct qcow2_table {
        struct list link; /* ascending */
        uint64_t index;   /* in the L1 table */
        unsigned n_writing;
        bool used;         /* something is mapped */
        uint8_t entries[]; /* a cluster, as it lies in the file */
};

struct qcow2_writer {
        unsigned version;
        unsigned cluster_bits;
        uint64_t cluster_bytes;
        uint64_t table_covers; /* bytes of the disk that one L2 table maps */
        uint64_t disk_bytes;   /* whole sectors */
        uint64_t *l1;
        uint32_t l1_size;
        struct qcow2_alloc alloc;
        struct list tables;
        uint64_t
            begun; /* the end of the last call to write: what is before it is not written again */

        bool packs;
        enum qcow2_compression compression;
        struct qcow2_packer *packers[QCOW2_PACKERS_MAX];
        unsigned n_packers;
        /* Calls that compress wait for their turn to get space: in the order in which they began. */
        uint64_t next_ticket, turn;
        struct co_queue turns;

        bool failed;
};

/* ---- qcow2_write_tables.c ---- */

/* Keep the tables of a range from being written, until it is ended. -ENOMEM */
int qcow2_tables_begin(struct qcow2_writer *w, uint64_t offset, uint64_t length, struct error *err);
void qcow2_tables_end(struct qcow2_writer *w, uint64_t offset, uint64_t length);
/* The entry of the cluster at @offset of a range that has begun. */
uint64_t qcow2_tables_get(struct qcow2_writer *w, uint64_t offset);
void qcow2_tables_set(struct qcow2_writer *w, uint64_t offset, uint64_t entry);
/* Write the tables that cannot change any more. */
int co_qcow2_tables_write(struct image *image, struct error *err);
void qcow2_tables_clear(struct qcow2_writer *w);

/* ---- qcow2_write_end.c ---- */

/* Write the refcount blocks that are full. */
int co_qcow2_blocks_write(struct image *image, struct error *err);
/* What was written is on the disk. */
int co_qcow2_sync(struct image *image, struct error *err);
