/* sample.h - the pool that is damaged: small, of many shapes, killed with a log that is not empty;
 * and what lies on each block of its disks.
 *
 * Units      bytes.
 * Threads    one.
 * Errors     a sample that cannot be made ends the program: the engine is broken without damage.
 * Ownership  release with sample_free().
 */
#pragma once
#include "tests/rot/truth.h"
#include "tests/sim/sim_disk.h"

#define SAMPLE_MEMBERS_MAX 2u
#define SAMPLE_SLAB_BYTES  (UINT32_C(256) << 10)

enum kind {
        KIND_LABEL,
        KIND_SUPER,     /* the newest superblock */
        KIND_SUPER_OLD, /* its slots' other generations */
        KIND_INDEX,     /* the copies that count: index pages of the slab table */
        KIND_TABLE,
        KIND_MAP,
        KIND_COPY,     /* copies of index, table or space map that do not count now */
        KIND_LOG,      /* pages of the log's chain */
        KIND_LOG_IDLE, /* what else is in the ring */
        KIND_CATALOG_NODE,
        KIND_CATALOG_INDEX,
        KIND_ROOT,
        KIND_NODE,
        KIND_DEADLIST,
        KIND_BUCKETS,
        KIND_REPLACED, /* metadata that the checkpoint has and the replay replaces */
        KIND_DATA,
        KIND_FREE, /* blocks that nothing is on */
        KINDS,
};
extern const char *const kind_name[KINDS];

struct spot {
        unsigned member;
        uint64_t offset;
        uint64_t named; /* of what messages call it: where a superblock begins */
        enum kind kind;
        bool redundant; /* what is on it is elsewhere as well: no damage to it may be felt */
        /* No page of the log tells that it was flushed: a recovery cannot tell its damage from a
         * write that the power's loss prevented (FORMAT.md 8.4), and takes what another member has. */
        bool last;
        bool tail; /* the same, and no other member has it */
};

struct shape {
        const char *name;
        unsigned n_members;
        enum pool_layout layout;
        bool row; /* one volume and many snapshots, in place of a family of all kinds */
};
extern const struct shape shapes[];
extern const unsigned n_shapes;

struct sample {
        const struct shape *shape;
        struct sim_image *image[SAMPLE_MEMBERS_MAX];    /* as a kill leaves it */
        struct sim_image *before[SAMPLE_MEMBERS_MAX];   /* before the log's tail was written */
        struct sim_image **history[SAMPLE_MEMBERS_MAX]; /* moments before that, in order */
        size_t n_history;
        struct truth truth;
        /* Each block that an opening, a reading of everything or a check reads. */
        struct spot *spot;
        size_t n_spots;
        uint64_t n_never[KINDS]; /* blocks that none of these reads */
};

void sample_make(const struct shape *shape, struct sample *ret_sample);
void sample_free(struct sample *sample);
