/* qcow2_checker.h - inside of qcow2_check*.c: checking a qcow2 file.
 *
 * The references to every cluster are counted from all that leads to one, and compared with the counts that
 * the file holds. What is counted as an error, and how often, is what `qemu-img check` counts as a corruption,
 * so that both say the same of a file; to that come overlaps that the file's own counts hide.
 *
 * Units      bytes; clusters are numbered from the start of the file.
 * Threads    the image's loop.
 * Errors     0 or -errno with a sentence where checking cannot go on; findings go to the caller's
 *            struct image_check.
 * Ownership  the caller's struct; what it points to is released by co_qcow2_check().
 */
#pragma once
#include <assert.h>
#include "formats/image.h"
#include "formats/qcow2.h"

/* For counts and lists, whatever a file says: enough for 20 TiB in clusters of 64 KiB. */
#define QCOW2_CHECK_MEMORY_MAX (UINT64_C(1) << 30)
/* Refcount blocks kept in memory. */
#define QCOW2_CHECK_CACHE_BYTES (UINT64_C(8) << 20)
#define QCOW2_CHECK_CACHE_MIN   4u
#define QCOW2_CHECK_CACHE_MAX   1024u
/* Refcount blocks are read again where others took their places. Clusters in any order take what the file
 * has, once for each of them; more than these times its length only a file takes that was made for it. */
#define QCOW2_CHECK_RELOADS_MAX 4u

/* What a cluster is used for; one with several of these bits is an overlap. */
enum {
        QCOW2_USE_HEADER = 1 << 0,
        QCOW2_USE_L1 = 1 << 1,
        QCOW2_USE_L2 = 1 << 2,
        QCOW2_USE_DATA = 1 << 3,
        QCOW2_USE_REFCOUNT_TABLE = 1 << 4,
        QCOW2_USE_REFCOUNT_BLOCK = 1 << 5,
        QCOW2_USE_SNAPSHOTS = 1 << 6,
        QCOW2_USE_BITMAPS = 1 << 7,
};

/* References to a group of clusters. Groups that nothing refers to are not there. */
#define QCOW2_GROUP (UINT64_C(1) << 16)
struct qcow2_group {
        uint16_t count[QCOW2_GROUP];
        uint8_t use[QCOW2_GROUP];
};

/* An L2 table, and how many entries of L1 tables name it: it is looked into once. */
struct qcow2_l2_ref {
        uint64_t offset; /* 0: none */
        uint32_t n, n_active;
};

struct qcow2_cached_block {
        uint64_t offset; /* 0: none */
        uint8_t *counts;
};

struct qcow2_checker {
        struct image *image;
        struct qcow2 *q;
        struct image_check *check;
        unsigned n_reported;
        uint64_t memory_bytes;
        int no_memory; /* why qcow2_check_alloc() failed */

        uint64_t file_bytes; /* whole sectors */
        uint64_t n_clusters;
        struct qcow2_group **groups;
        uint64_t n_groups;
        uint32_t count_max;   /* a cluster can have, by the refcounts' width or by ours */
        bool count_saturates; /* it is ours: the file could say more */

        struct qcow2_l2_ref *l2; /* a hash table, then a sorted list */
        uint64_t n_l2, l2_room;

        uint64_t *table; /* of refcount blocks, as integers */
        uint64_t n_table, counts_per_block;
        struct qcow2_cached_block *cache;
        uint64_t n_cache, loaded_bytes;
        uint64_t first_leaked, n_leaked; /* not told yet */
};

/* ---- qcow2_check.c ---- */

/* @n errors of one kind; the sentence is for all of them. */
void qcow2_check_found(struct qcow2_checker *c, uint64_t n, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A finding that is no error. */
void qcow2_check_tell(struct qcow2_checker *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* calloc(), accounted for; after NULL, qcow2_check_no_memory() is -ENOMEM or -EFBIG. */
void *qcow2_check_alloc(struct qcow2_checker *c, uint64_t n, uint64_t size, struct error *err);
static inline int qcow2_check_no_memory(const struct qcow2_checker *c)
{
        assert(c->no_memory < 0);
        return c->no_memory;
}

/* ---- qcow2_check_uses.c ---- */

int qcow2_check_uses_init(struct qcow2_checker *c, struct error *err);
/* @n references to these bytes. @what is for sentences: "the L1 table". */
int qcow2_check_use(struct qcow2_checker *c, unsigned use, const char *what, uint64_t offset,
                    uint64_t length, uint32_t n, struct error *err);
uint32_t qcow2_check_count(const struct qcow2_checker *c, uint64_t cluster, unsigned *ret_use);

/* ---- qcow2_check_tables.c ---- */

/* Count what the L1 tables, and all that they lead to, refer to. */
int co_qcow2_check_l1s(struct qcow2_checker *c, struct error *err);
/* Entries at @offset, as integers; what is past the file's end is zero. */
int co_qcow2_check_read_table(struct qcow2_checker *c, uint64_t *entries, size_t n, uint64_t offset,
                              struct error *err);
#define QCOW2_CHECK_ENTRIES 4096u /* read at a time */

/* ---- qcow2_check_bitmaps.c ---- */

int co_qcow2_check_bitmaps(struct qcow2_checker *c, struct error *err);

/* ---- qcow2_check_counts.c ---- */

int co_qcow2_check_counts_load(struct qcow2_checker *c, struct error *err);
/* The count that the file has for a cluster; false where its block cannot be found. */
int co_qcow2_check_file_count(struct qcow2_checker *c, uint64_t cluster, bool *ret_known,
                              uint64_t *ret_count, struct error *err);
int co_qcow2_check_blocks(struct qcow2_checker *c, struct error *err);
int co_qcow2_check_compare(struct qcow2_checker *c, struct error *err);
