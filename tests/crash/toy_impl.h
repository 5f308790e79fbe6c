/* toy_impl.h - pool.h in the simplest way that keeps its promises: to test the crash explorer
 * itself.
 *
 * All of the pool is in memory, and every commit writes all of it to one of two places in turn,
 * then a page that names it with its CRC. Slow, small, and easy to see through. The environment
 * variable TOY_DEFECT breaks it in one of the ways listed below; the explorer must notice each
 * (meson.build).
 *
 * Threads    one.
 * Errors     0 or -errno; what the explorer does not do, and running out of memory, abort.
 */
#pragma once
#include "common/coroutine.h"
#include "pool/pool.h"

enum defect {
        DEFECT_NONE,
        DEFECT_FLUSH_ANSWERS_EARLY, /* without a commit */
        DEFECT_NO_FLUSH,            /* a commit that is only written */
        DEFECT_NO_CRC,          /* a commit believed unseen, and not flushed before it is named */
        DEFECT_GROUP_IN_PARTS,  /* a group snapshot as one commit a volume */
        DEFECT_BLOCK_IN_PARTS,  /* half a block, a commit, the other half */
        DEFECT_SHRINK_IN_PARTS, /* data, then size */
        DEFECT_NO_CUT,          /* a group snapshot goes from volume to volume while writes go on */
        DEFECT_SECOND_RECOVERY, /* the second recovery loses something */
        DEFECT_RECOVERY_NOT_RESTARTED, /* a crash during recovery loses something */
        DEFECT_HANG,
        DEFECT_ABORT,
        DEFECT_ANOTHER_VOLUME, /* a new volume shows what a deleted one held */
        DEFECT_FUA,            /* taken for a plain write */
};

/* The one that is asked for. */
enum defect toy_defect(void);
/* @memory, which is not NULL. */
void *toy_must(void *memory);

/* ---- contents ---- */

#define ROOTS_MAX 64u

struct page {
        unsigned references;
        uint64_t number; /* in the commit being written */
        uint8_t bytes[POOL_BLOCK];
};

struct entry {
        uint64_t block;
        struct page *page;
};

struct root {
        char name[2 * POOL_NAME_MAX];
        uint64_t id, size_bytes;
        struct entry *entries; /* ascending */
        size_t n_entries;
};

struct pool {
        struct loop *loop;
        struct member *members[16];
        size_t n_members;
        struct root roots[ROOTS_MAX];
        size_t n_roots;
        uint64_t next_id, sequence;
        bool recovered; /* by this open, after a crash */
        struct co_mutex lock;
        struct entry *remains; /* of a deleted volume, for DEFECT_ANOTHER_VOLUME */
        size_t n_remains;
};

struct volume {
        struct pool *pool;
        uint64_t id;
};

void page_drop(struct page *page);
void root_clear(struct root *root);
/* The content of @from, which shares its pages. */
void root_copy(struct root *to, const struct root *from);
/* Of the entry for @block, or of the first behind it. */
size_t root_position(const struct root *root, uint64_t block);
/* Takes over a reference. */
void root_put(struct root *root, uint64_t block, struct page *page);
/* Data NULL: zeroes, of blocks that are there. */
void root_write(struct root *root, const uint8_t *data, uint64_t offset, uint64_t length);
struct root *root_find(struct pool *pool, const char *name);
struct root *root_find_id(struct pool *pool, uint64_t id);
struct root *root_add(struct pool *pool, const char *name);
void root_remove(struct pool *pool, struct root *root);

/* ---- commits ---- */

#define TOY_MAGIC UINT64_C(0x796f74206e726174)

/* Page at 4096 * (1 + sequence % 2) of every member. */
struct commit_disk {
        uint64_t magic, sequence, length, n_members, next_id;
        uint32_t crc_body, clean, crc;
};

int co_toy_commit(struct pool *pool, bool clean);
int co_toy_commit_locked(struct pool *pool, bool clean);
/* The newest commit that is whole on @member, its content on @body; sequence 0: none. *ret_bytes,
 * where it is asked for, is the caller's to free. */
int co_toy_newest(struct member *member, struct member *body, struct commit_disk *ret,
                  uint8_t **ret_bytes);
/* The roots in the bytes of a commit. */
void toy_load(struct pool *pool, const uint8_t *bytes);
