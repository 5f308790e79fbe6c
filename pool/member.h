/* member.h - a disk of the pool: asynchronous read, write, flush and discard.
 *
 * The engine sees disks only through this table; a file, a block device and the simulator's disk
 * are back ends, and the engine cannot tell them apart.
 *
 * Units      offset and length are bytes, multiples of 4096, inside size_bytes. Buffers of reads
 *            and writes are aligned to MEMBER_BUFFER_ALIGN, and each iovec's length is a multiple
 *            of it.
 * Threads    a member belongs to its loop; member_fetch() is called on others.
 * Errors     done() gets 0 or -errno, from the loop and never from inside submit(). Short transfers
 *            are the back end's to complete. A read of a hole gives zeroes.
 * Durability MEMBER_FLUSH makes durable every write that completed before the flush was submitted.
 * Ownership  member_io is the caller's and must live until done(). A member is released with
 *            member_close(), while nothing is in flight.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/error.h"
#include "common/list.h"
#include "common/loop.h"
#include "pool/meter.h"

#define MEMBER_BUFFER_ALIGN 512u
#define MEMBER_SIZE_MIN     (UINT64_C(64) << 20)

enum member_op { MEMBER_READ, MEMBER_WRITE, MEMBER_FLUSH, MEMBER_DISCARD };

struct member;

struct member_io {
        enum member_op op;
        uint64_t offset, length;
        const struct iovec *iov;
        unsigned n_iov;
        void (*done)(struct member_io *io, int result);
        /* of a read that is lent: on the other loop, which may call it at once. @whole: all of the
         * data have come; otherwise nobody has been told why not */
        void (*fetched)(struct member_io *io, bool whole);
        /* set by member_submit() */
        struct member *member;
        uint64_t began_ns;
        /* the back end's */
        struct list link;
        struct loop_io lio;
        struct iovec short_iov;
        uint64_t progress;
};

struct member_ops {
        /* The answer is given by member_answer(). */
        void (*submit)(struct member *m, struct member_io *io);
        void (*close)(struct member *m); /* nothing may be in flight */
        /* member_fetch(); NULL where data can be moved on the member's loop alone. */
        void (*fetch)(struct member *m, struct member_io *io, struct loop *loop);
        /* Take the exclusive lock, waiting at most @wait_ms; NULL where the back end has no other
         * users.
         *
         * -EBUSY  held by another: *err says by whom where that can be known */
        int (*co_lock)(struct member *m, unsigned wait_ms, struct error *err);
        /* Another descriptor of the same open file, and so of the same lock; NULL: there is none. */
        int (*dup)(const struct member *m);
};

struct member {
        const struct member_ops *ops;
        struct loop *loop;
        /* for messages and for finding it again; malloc'ed, freed by the back end's close */
        char *path;
        /* usable, a multiple of 4096; on a whole disk that of tarn's partition */
        uint64_t size_bytes;
        bool can_discard;
        struct meter meter; /* since it was opened */
};

void member_submit(struct member *m, struct member_io *io);
/* For back ends: count the answer, and give it. */
void member_answer(struct member_io *io, int result);
void member_close(struct member *m); /* NULL is fine */

/* A read whose data are moved by another loop. On the member's loop it is lent; on the other it is
 * fetched; on the member's again it is answered by member_answer() where all has come, or begun
 * anew, as if it had never been away: whatever is wrong is found, and told, there. */
static inline bool member_can_lend(const struct member *m)
{
        return m->ops->fetch != NULL;
}
void member_lend(struct member *m, struct member_io *io);
void member_fetch(struct member_io *io, struct loop *loop);
void member_begin_anew(struct member_io *io);

/* From a coroutine: one operation, awaited. */
int co_member_read(struct member *m, void *buffer, size_t length, uint64_t offset);
int co_member_write(struct member *m, const void *buffer, size_t length, uint64_t offset);
int co_member_flush(struct member *m);
int co_member_discard(struct member *m, uint64_t offset, uint64_t length);
