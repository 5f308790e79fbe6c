/* ops.h - what a run of the crash explorer does: a list of operations, made from a name.
 *
 * A plan's name says all there is to know to make it again:
 *
 *   x2-wfs      the exhaustive kind: two members, then the operations 'w', 'f', 's' of the alphabet
 *               below, one after another, on a pool that holds two volumes with data and a snapshot
 *               of both
 *   r2-30-1f8a  the random kind: two members, 30 operations, seed 0x1f8a; several operations in
 *               flight at once
 *   b2-hmf      as 'x', on a pool whose volumes stand on an image, and
 *   i2-30-1f8a  as 'r', with volumes on images
 *
 * Volumes are slots "v0".."v7", snapshots "s0".."s7" of each, and "k0".."k7" for what a restore
 * keeps. What cannot be done when its turn comes (a volume that is not there) is left out, so that
 * any part of a list can be run: that is how a failing one is shortened.
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     0 or -errno.
 * Ownership  a plan is plain memory of the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPS_MAX        256u
#define VOLUME_SLOTS   8u
#define SNAPSHOT_SLOTS 8u
#define LARGE_BYTES    (UINT64_C(5) << 30) /* sparse: a map of three levels, little in the third */
#define PLAN_NAME_MAX  64

enum op_kind {
        OP_CREATE, /* on @image, where given */
        OP_WRITE,
        OP_DISCARD,
        OP_ZERO,
        OP_READ,
        OP_FLUSH,
        OP_SNAPSHOT, /* of all volumes in @volumes */
        OP_RESTORE,
        OP_DELETE_SNAPSHOT,
        OP_DELETE_VOLUME,
        OP_CLONE,
        OP_RESIZE,
        OP_RENAME,
        OP_CHECKPOINT,
        OP_ADD,    /* a member more */
        OP_REOPEN, /* close and open */
        /* the power goes at one of the last moments, and what follows goes on from there */
        OP_CRASH,
        OP_CREATE_ON, /* the image that @other stands on */
        OP_COPY,      /* a part of the image that @volume stands on, into the pool */
        OP_COMPLETE,  /* the rest of it, and that is recorded */
};

struct op {
        enum op_kind kind;
        bool alone; /* all before it has ended, and it ends before the next begins */
        bool fua, keep;
        uint8_t volume, other, kept;
        uint8_t snapshot;        /* 0..7 is s0..s7, 8..15 is k0..k7 */
        uint8_t volumes;         /* a bit a slot */
        uint64_t offset, length; /* multiples of 256 */
        uint64_t size_bytes;
        uint32_t image;  /* 0: none */
        uint64_t random; /* of a crash */
};

struct plan {
        char name[PLAN_NAME_MAX];
        unsigned n_members;
        unsigned depth; /* operations in flight at once */
        uint64_t seed;  /* of latencies and of choices */
        bool small_cache, manual_checkpoints;
        bool greedy;         /* random runs on small disks: large writes */
        uint64_t disk_bytes; /* of the first disk; every other one has three quarters of that */
        struct op ops[OPS_MAX];
        unsigned n_ops;
        unsigned first_op; /* power is cut from the time this one begins */
};

/* -EINVAL  not such a name */
int plan_make(const char *name, struct plan *ret_plan);
void op_print(const struct op *op, char *text, size_t text_size);

/* The letters of the sequences of @length that are all to be tried: every operation in sequences of
 * up to two, the main ones beyond. @images: on volumes that stand on an image. */
const char *ops_alphabet(bool images, unsigned length);
extern const char ops_letters[]; /* all there are */

/* The name of the plan @index of @kind ('x' or 'c'; on images 'b' or 'd') among the sequences of exactly @length letters
 * of @alphabet; false: there are no more. */
bool plan_exhaustive(char kind, const char *alphabet, unsigned length, unsigned n_members,
                     uint64_t index, char name[PLAN_NAME_MAX]);
