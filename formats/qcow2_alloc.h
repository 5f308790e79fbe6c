/* qcow2_alloc.h - the clusters of a qcow2 file that is being written, and their reference counts.
 *
 * Clusters are given out in ascending order and never taken back. So a refcount block is complete as
 * soon as a cluster beyond its range is given out: only the last block is open, and those before it wait
 * in a list for their place in the file.
 *
 * Units      offsets and lengths are bytes; clusters are numbered from the start of the file.
 * Threads    the loop's; nothing suspends.
 * Errors     0 or -errno with a sentence; after one the file cannot be completed any more.
 * Ownership  the caller's struct; qcow2_alloc_clear() releases what it points to. A block that was
 *            taken is the taker's.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

#define QCOW2_REFCOUNT_ORDER 4u /* 16 bits: what version 2 has, and every writer's usual width */

/* The counts of a range of clusters, as they lie in the file: one cluster of them. */
struct qcow2_block {
        struct qcow2_block *next;
        uint64_t index; /* in the refcount table */
        uint8_t counts[];
};

struct qcow2_alloc {
        const char *path; /* for messages */
        unsigned cluster_bits;
        uint64_t next; /* all clusters before this one are in use */
        /* The free end of the last cluster that compressed data were put into; equal: there is none. */
        uint64_t pack_offset, pack_end;
        struct qcow2_block *open;
        struct qcow2_block *full_first, **full_last;
        uint64_t *table; /* offsets of the blocks; 0: not placed yet */
        size_t n_table, table_room;
};

void qcow2_alloc_init(struct qcow2_alloc *a, const char *path, unsigned cluster_bits);
void qcow2_alloc_clear(struct qcow2_alloc *a);

/* @n clusters that follow one another, each referred to once. -ENOMEM, -EFBIG */
int qcow2_alloc_clusters(struct qcow2_alloc *a, uint64_t n, uint64_t *ret_offset,
                         struct error *err);
/* @n bytes for compressed data, at most a cluster: next to those before, if there is room. */
int qcow2_alloc_bytes(struct qcow2_alloc *a, size_t n, uint64_t *ret_offset, struct error *err);

/* The next complete refcount block, with a place of its own, to be written there; NULL: none now. */
int qcow2_alloc_take_block(struct qcow2_alloc *a, struct qcow2_block **ret_block,
                           struct error *err);

/* Nothing else will be asked for: give out the clusters of the refcount table (@ret_clusters of them at
 * @ret_offset) and places for all blocks, of which qcow2_alloc_take_block() then returns the rest, full
 * or not. */
int qcow2_alloc_finish(struct qcow2_alloc *a, uint64_t *ret_offset, uint64_t *ret_clusters,
                       struct error *err);
