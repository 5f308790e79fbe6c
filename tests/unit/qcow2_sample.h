/* qcow2_sample.h - for tests and fuzzers of qcow2: an image put together by hand in memory, for what
 * qemu-img cannot make.
 *
 * Cluster 0 is the header's; then comes the L1 table; all else follows as it is asked for. There are no
 * refcounts.
 *
 * Units      bytes.
 * Threads    one.
 * Errors     what must work and does not aborts.
 * Ownership  release with qcow2_sample_free().
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "formats/qcow2_format.h"

#ifndef QCOW2_SAMPLE_MAX
#define QCOW2_SAMPLE_MAX (48u << 20)
#endif

struct qcow2_sample {
        uint8_t *bytes; /* QCOW2_SAMPLE_MAX */
        uint64_t used;
        unsigned cluster_bits, entry_bytes, l2_bits;
        uint64_t virtual_bytes, l1;
        uint32_t version, l1_size;
        uint64_t extension; /* where the next header extension goes */
};

/* @features: incompatible ones, of which QCOW2_COMPRESSION_TYPE stands for zstd. */
void qcow2_sample_init(struct qcow2_sample *s, uint32_t version, unsigned cluster_bits,
                       uint64_t virtual_bytes, uint64_t features);
void qcow2_sample_free(struct qcow2_sample *s);
/* Make the file @fd this image. */
void qcow2_sample_save(const struct qcow2_sample *s, int fd);

/* The offset of room for @bytes zero bytes, from a cluster on. */
uint64_t qcow2_sample_room(struct qcow2_sample *s, uint64_t bytes);
void qcow2_sample_extension(struct qcow2_sample *s, uint32_t type, const void *data, uint32_t n);
void qcow2_sample_backing(struct qcow2_sample *s, const char *name, const char *format);

/* Where the L2 entry of the disk's byte @guest is, in the table of the L1 table at @l1; makes the L2
 * table. */
uint64_t qcow2_sample_entry(struct qcow2_sample *s, uint64_t l1, uint64_t guest);
void qcow2_sample_map(struct qcow2_sample *s, uint64_t guest, uint64_t entry, uint64_t bitmap);
/* A plain cluster with @data, a cluster of it. */
void qcow2_sample_plain(struct qcow2_sample *s, uint64_t guest, const void *data);
/* A compressed one, packed behind what was packed before. */
void qcow2_sample_pack(struct qcow2_sample *s, uint64_t guest, const void *data);
/* The same of bytes that are no compressed cluster, or are more than one. */
void qcow2_sample_pack_bytes(struct qcow2_sample *s, uint64_t guest, const void *data, size_t n);

/* A snapshot of the L1 table at @l1 goes to the end of the list; all of them one after the other. */
struct qcow2_sample_snapshot {
        const char *id, *name;
        uint64_t l1, virtual_bytes, vm_state_bytes;
        uint32_t l1_size, date_s, extra_bytes; /* of extra data: 0, 16 */
};
void qcow2_sample_snapshots(struct qcow2_sample *s, const struct qcow2_sample_snapshot *list,
                            uint32_t n);
