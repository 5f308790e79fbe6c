/* truth.h - everything that a pool tells its users, kept, and held against what it tells later.
 *
 * Units      bytes.
 * Threads    coroutines of the pool's loop.
 * Errors     what the pool answers is counted: an error with a sentence is allowed, other data are
 *            not.
 * Ownership  release with truth_free().
 */
#pragma once
#include "pool/pool.h"

/* What was read of a root: small ones whole, of others what they hold and the edges of their
 * holes. */
struct truth_range {
        uint64_t offset, length;
        uint8_t *data;
};

#define TRUTH_EXTENTS 64u
struct truth_root {
        char name[2 * POOL_NAME_MAX + 2];
        uint64_t size_bytes;
        uint32_t about; /* a CRC over all else that is listed of it */
        struct truth_range *range;
        size_t n_ranges;
        struct volume_extent extent[TRUTH_EXTENTS]; /* block status */
        size_t n_extents;
};

struct truth {
        struct truth_root *root;
        size_t n_roots;
};

/* 0 or -errno: an undamaged pool tells all. */
int co_truth_take(struct pool *pool, struct truth *ret_truth);
void truth_free(struct truth *truth);

struct comparison {
        uint64_t n_errors; /* what could not be told, with an error */
        uint64_t n_wrong;  /* what was told and is not so */
        char wrong[200];   /* the first of these */
};
void co_truth_compare(struct pool *pool, const struct truth *truth, struct comparison *c);
