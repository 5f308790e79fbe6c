/* hostile_sample.h - for tests and fuzzers of what a pool's metadata may say: a small pool of many shapes
 * in memory, where its metadata lies, and a use of whatever has become of it.
 *
 * Who links this has a crc32c() of its own, with which every checksum is right: what is changed
 * reaches the code that has to judge it.
 *
 * Units      bytes.
 * Threads    one; co_ functions are coroutines of a sim_pool's loop.
 * Errors     what must work and does not fails the test (sim_pool_fails). Use ignores errors: they
 *            are fine.
 * Ownership  release a sample with sample_free().
 */
#pragma once
#include "tests/unit/check_fixture.h"

#define HOSTILE_DISKS 2u

enum spot_kind {
        SPOT_LABEL,
        SPOT_SUPER,
        SPOT_TABLE,
        SPOT_LOG,
        SPOT_NODE, /* and all else of metadata that has no magic number: space maps, index blocks */
        SPOT_ROOT,
        SPOT_DEADLIST,
        SPOT_BUCKETS,
        SPOT_KINDS
};

/* A page of metadata. With every checksum right, its second leg is read only where the first cannot
 * be. */
struct spot {
        enum spot_kind kind;
        unsigned disk;
        uint64_t offset;
        bool has_other;
        unsigned other_disk;
        uint64_t other_offset;
};

struct sample {
        struct sim_image *image[HOSTILE_DISKS];
        uint64_t super_slot;     /* in each label area */
        struct spot table, log;  /* the first page of each */
        unsigned n_table, n_log; /* of its records and pages */
        uint64_t free_block;     /* pool address of the first of many free ones in a slab of data */
        struct spot *spot;       /* by kind */
        size_t n_spots, room;
        size_t first[SPOT_KINDS + 1]; /* of each kind; the last is n_spots */
};

enum sample_end {
        SAMPLE_KILLED,  /* some of it is only in the log, of operations of all kinds */
        SAMPLE_SETTLED, /* the log holds writes only, a page each; no checkpoint is on its way */
        SAMPLE_CLOSED,
};
void sample_make(struct sample *sample, enum sample_end end);
void sample_free(struct sample *sample);

/* ---- use ---- */

#define HOSTILE_NAMES 24u
struct hostile_names {
        char name[HOSTILE_NAMES][2 * (POOL_NAME_MAX + 1)];
        unsigned n;
};
/* The first names that the pool has, added to those that are there. */
void co_hostile_list(struct sim_pool *s, struct hostile_names *names);
void co_hostile_check(struct sim_pool *s, bool read_data);
/* Read, asked, written to, flushed: at its beginning and at one place chosen by @number. */
void co_hostile_use_volume(struct sim_pool *s, const char *name, uint64_t number);
#define HOSTILE_OPERATIONS 7u
/* One operation on the catalog, or a checkpoint, by its @kind; @number is a size where one is wanted. */
void co_hostile_operate(struct sim_pool *s, unsigned kind, const char *name, uint64_t number);
