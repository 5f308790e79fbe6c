/* span.h - reads and writes of whole blocks under way: the hot path's state. span.c (starting,
 * admission, finishing), read.c and write.c include it. */
#pragma once
#include "pool/engine.h"

#define RUNS_INLINE 4u
#define SPARE_SPANS 256u

/* Adjacent blocks at adjacent pool addresses: one operation on a member. */
struct run {
        struct member_io io;
        struct chunk *chunk;
        struct disk *disk;
        uint64_t address;
        uint32_t first, n; /* blocks of the chunk */
        bool verified;     /* a read's data were compared with their CRCs as they came */
        struct llist_node crossing_link;
        struct iovec one;
        struct iovec *many; /* where the blocks lie in more than one piece of memory */
};

/* The part of a span that one leaf covers. */
struct chunk {
        struct span *span;
        uint64_t block;
        uint32_t n;
        unsigned pending;
        int result;
        uint64_t interval; /* a read's */
        struct run *run;   /* run_inline, or more of them */
        unsigned n_runs, run_room;
        unsigned mapped; /* a write's runs that have taken their place */
        bool
            wants_image; /* a read's: it has blocks that only the image of its base has, a bit each */
        uint64_t from_image[LEAF_BLOCKS / 64];
        struct run run_inline[RUNS_INLINE];
        uint32_t crc[LEAF_BLOCKS];
};

struct span {
        struct list link; /* stalled, held, or spare */
        struct pool *pool;
        struct root *root;
        bool write, nested, fua, logged, counted;
        struct crossing *crossing; /* a request's that came over it; else NULL */
        uint64_t block;
        uint64_t n;
        /* each piece a multiple of 4096 bytes, aligned to MEMBER_BUFFER_ALIGN */
        const struct iovec *iov;
        unsigned n_iov;
        struct iovec one;
        unsigned pending; /* chunks */
        unsigned n_chunks;
        int result;
        uint64_t log_bytes, metadata_blocks; /* promised to it */
        uint64_t stalled_at;                 /* n_checkpoints when it began to wait, plus one */
        struct range range;
        struct commit_wait wait;
        struct loop_task task;
        void (*done)(struct span *span, int result); /* the span is spare again afterwards */
        void *arg;
        struct chunk first;
        struct chunk *more; /* n_chunks - 1 */
};

struct span *span_new(struct pool *pool, struct root *root); /* NULL: out of memory */
void span_put(struct span *span);
/* Never calls done() before it returns. */
void span_start(struct span *span);
void chunk_done(struct chunk *chunk, int result);
static inline struct chunk *span_chunk(struct span *span, unsigned i)
{
        return i == 0 ? &span->first : &span->more[i - 1];
}
/* @n blocks more, from block @first on: a part of the last run where they follow it in one slab, as the
 * stripes of one disk do, else a run of their own. NULL: out of memory. */
struct run *chunk_run(struct chunk *chunk, uint64_t address, uint32_t first, uint32_t n);
/* Fill run->disk and run->io. */
int run_prepare(struct run *run, enum member_op op, void (*done)(struct member_io *, int));
int run_submit(struct run *run, enum member_op op, void (*done)(struct member_io *, int));
/* Where block @i of the chunk lies in memory. */
void *chunk_memory(const struct chunk *chunk, uint32_t i);

void chunk_read(struct chunk *chunk);
/* Are the data that were read what their CRCs say? [any loop] */
bool run_is_good(const struct run *run);
/* -ENOSPC: nothing taken, the span is to wait. */
int chunk_write_take(struct chunk *chunk);
void chunk_write_untake(struct chunk *chunk);
void chunk_write(struct chunk *chunk);
