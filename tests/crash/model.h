/* model.h - the reference model: what a pool may hold at any instant of a run, crash or not.
 *
 * The model is the history of a run. Every write to a block and every operation of the catalog is
 * recorded with the times at which it was requested and answered (and, for a write, made durable by
 * a flush that was requested after its answer), on one clock that never shows the same time twice.
 * From that it is decided what a read may return, and what may be found when the power is cut at a
 * given time:
 *
 *  1. A block's content is what some of its writes left, applied in an order in which no write
 *     comes before one that was answered before it was requested, and none is left out that comes
 *     before another. For a block of a volume that set is any such beginning of its history that
 *     includes what is durable: old or new content, never a mixture below the block.
 *  2. A read includes all writes answered before it was requested, and none requested after it was
 *     answered.
 *  3. A snapshot is an instant between its request and its answer, the same instant for every block
 *     of every volume of its group. When it is answered, that content is durable.
 *  4. An operation of the catalog in flight has happened or not, whole. One that was answered has
 *     happened.
 *  5. A clone or restored volume begins with what its snapshot holds, a volume on an image with what
 *     that holds; what a shrink cuts off is zeroes.
 *  6. Of an image it is known that all of it is in the pool from an instant between the request and
 *     the answer of its completion on, for good.
 *
 * Units      blocks are 4096 bytes, grains 256 (content.h); times count events.
 * Names      "VOL" and "VOL@SNAP", as in the pool.
 * Threads    one.
 * Errors     none: what may not be is false, and a text says why.
 * Memory     what cannot be allocated ends the program.
 * Ownership  a model is released with model_free(), an observed with observed_free(). What
 *            model_now() gives lives until the next call that changes the model.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tests/crash/content.h"

#define MODEL_NAME_MAX  24
#define MODEL_ROOTS_MAX 64u
#define MODEL_GROUP_MAX 4u
#define MODEL_NONE      UINT32_MAX
#define MODEL_NEVER     UINT64_MAX

struct model;

struct observed;

struct model *model_new(void);
/* The model for what follows a crash of @model's run from which @observed came back: that is
 * durable. */
struct model *model_after_crash(const struct model *model, const struct observed *observed);
void model_free(struct model *model); /* NULL is fine */

/* The time now; then it is later. */
uint64_t model_tick(struct model *model);
/* Answers so far: while this number stays the same, what a crash may leave only grows. */
uint64_t model_answers(const struct model *model);

/* ---- the catalog ---- */

enum catalog_kind {
        /* volume, size; where given, on image, a new one, or on the image that volume on stands on */
        CATALOG_CREATE,
        CATALOG_RESIZE,          /* volume, size */
        CATALOG_RENAME,          /* volume -> other */
        CATALOG_DELETE_VOLUME,   /* volume, with its snapshots */
        CATALOG_SNAPSHOT,        /* volumes[] @ other: one instant */
        CATALOG_DELETE_SNAPSHOT, /* volume @ other */
        /* volume @ other; what it held becomes volume @ keep, where keep is given */
        CATALOG_RESTORE,
        CATALOG_CLONE, /* volume @ other -> keep, a new volume */
};

struct catalog_request {
        enum catalog_kind kind;
        char volume[MODEL_NAME_MAX], other[MODEL_NAME_MAX], keep[MODEL_NAME_MAX];
        char volumes[MODEL_GROUP_MAX][MODEL_NAME_MAX];
        unsigned n_volumes;
        uint64_t size_bytes;
        uint32_t image;
        char on[MODEL_NAME_MAX];
};

/* Would it succeed, as things are now (what is in flight not counted)? */
bool model_catalog_valid(const struct model *model, const struct catalog_request *request);
/* It is requested: returns its number. Those in flight at once must not name the same volumes. */
uint32_t model_catalog_begin(struct model *model, const struct catalog_request *request);
void model_catalog_end(struct model *model, uint32_t operation, bool succeeded);

struct model_root {
        char name[2 * MODEL_NAME_MAX];
        bool is_snapshot;
        uint32_t id; /* of the branch or the cut */
        uint64_t size_bytes;
        uint32_t image; /* that it stands on; 0: none */
};

struct model_roots {
        struct model_root root[MODEL_ROOTS_MAX]; /* in no order */
        unsigned n;
};

/* As it is now, what is in flight not counted. */
const struct model_roots *model_now(const struct model *model);
const struct model_root *model_roots_find(const struct model_roots *roots, const char *name);

/* ---- images ---- */

/* That all of @image is in the pool is to be recorded, and is. */
void model_complete_begin(struct model *model, uint32_t image);
void model_complete_end(struct model *model, uint32_t image);

/* ---- blocks ---- */

/* A write of the grains in @mask of @block (or zeroes: a discard is one) is requested: returns its
 * version. */
uint32_t model_write_begin(struct model *model, const char *volume, uint64_t block, uint16_t mask,
                           bool zeroes);
void model_write_end(struct model *model, uint32_t version, bool durable);
/* It is refused, for lack of space: each block may have been written or not. */
void model_write_fail(struct model *model, uint32_t version);
/* A flush that was requested at @requested (of model_tick()) is answered: it covers all volumes. */
void model_flush_end(struct model *model, uint64_t requested);
/* Writes to that block that were not yet answered, or are not durable. */
unsigned model_unsettled(const struct model *model, const char *volume, uint64_t block);
/* Writes to that block after the last that is whole, done and durable: so many may be there or
 * not. */
unsigned model_open(const struct model *model, const char *volume, uint64_t block);
/* A read requested at @requested is answered now; where with an error, @content is
 * VERSION_UNREADABLE. */
bool model_read_allowed(const struct model *model, const char *name, uint64_t block, uint16_t mask,
                        const struct content *content, uint64_t requested);
/* Blocks of @root that may hold anything but zeroes, ascending; malloc'ed. */
size_t model_touched(const struct model *model, const struct model_root *root,
                     uint64_t **ret_blocks);

/* "v1 block 5: written by 17 (t 40..43, durable 50), ...": what the model knows about a block, for
 * messages. */
void model_describe(const struct model *model, const struct model_root *root, uint64_t block,
                    char *text, size_t text_size);

/* ---- damage: what a disk lost or mixed up ---- */

/* Up to the next model_after_crash(), @block may be unreadable in any root; from then on where it was
 * observed so, until it is overwritten. */
void model_damage(struct model *model, uint64_t block);
bool model_is_damaged(const struct model *model, uint64_t block);
/* The version may be found missing after a crash, flushed or not: whether it was lost before it was
 * flushed cannot be known (pool/FORMAT.md 8.4, "The window"). */
void model_weaken(struct model *model, uint32_t version);

/* ---- everything at once, and crashes ---- */

/* What was read back from one root: its blocks that are not zeroes, ascending. */
struct observed_block {
        uint64_t block;
        struct content content;
};
struct observed_root {
        char name[2 * MODEL_NAME_MAX];
        bool is_snapshot;
        uint64_t size_bytes;
        uint32_t image; /* that it stands on; 0: none */
        struct observed_block *blocks;
        size_t n_blocks;
};
/* What a pool knows of an image. */
struct observed_image {
        uint64_t base_id;
        uint32_t image;
        bool complete;
};
struct observed {
        struct observed_root *roots;
        size_t n_roots;
        struct observed_image *images;
        size_t n_images;
};
void observed_free(struct observed *observed);
bool observed_equal(const struct observed *a, const struct observed *b, char *text,
                    size_t text_size);

/* May that be found after a crash at @time? Otherwise @text says why not. */
bool model_crash_allowed(const struct model *model, uint64_t time, const struct observed *observed,
                         char *text, size_t text_size);
/* May that be read now, with nothing in flight and no crash? */
bool model_live_allowed(const struct model *model, const struct observed *observed, char *text,
                        size_t text_size);
