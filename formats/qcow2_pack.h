/* qcow2_pack.h - compressing the clusters of a qcow2 file that is being written.
 *
 * Units      bytes.
 * Threads    qcow2_pack() in any, with one struct each; everything else on the loop's.
 * Errors     none but failed.
 * Ownership  buffers are the caller's; workspaces are released with qcow2_packer_free().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "formats/qcow2_format.h"

/* Clusters that are compressed in one go. */
#define QCOW2_PACK_BYTES (UINT32_C(2) << 20)

struct qcow2_packer; /* what a compressor needs to work in: kept, and given to one call at a time */

struct qcow2_pack {
        struct qcow2_packer *packer;
        const uint8_t *from; /* whole clusters */
        size_t n;
        size_t cluster_bytes;
        uint8_t *to;     /* as large as @from; the results one after the other, without gaps */
        uint32_t *bytes; /* of each: 0 where it is all zero, cluster_bytes where it does not shrink
                          * and is not in @to */
        bool failed;     /* the library refused */
};

/* NULL without memory. */
struct qcow2_packer *qcow2_packer_new(enum qcow2_compression compression);
void qcow2_packer_free(struct qcow2_packer *packer); /* NULL is fine */

void qcow2_pack(void *pack);
