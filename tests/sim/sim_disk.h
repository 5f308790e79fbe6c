/* sim_disk.h - a simulated disk behind struct member, for crashes and faults.
 *
 * The model (README.md): a disk is a durable image plus the writes and discards that are not yet
 * known to be durable, the "pending" ones. A FLUSH, when it completes, makes durable those that had
 * completed before it was submitted, and nothing else. Reads see every completed write. When the
 * power goes, each pending operation, also one still in flight, may have happened, not happened, or
 * happened in part.
 *
 * A sim_disk is the thing on the shelf: it stays when the member that was opened on it is closed,
 * with its pending writes, as a page cache does when a process is killed. Power loss is
 * sim_disk_crash(): it makes the image that would be found, and a new sim_disk on that image is the
 * disk after the reboot.
 *
 * Units      bytes, nanoseconds of the loop's clock.
 * Threads    a disk, its images and its snapshots belong to the loop's thread.
 * Errors     the operations', where a fault says so.
 * Memory     as in sim_image.h.
 * Misuse     what member.h forbids (alignment, range, closing in mid-flight) is an assert.
 * Ownership  a disk outlives its member; release with sim_disk_free(), images with
 *            sim_image_free(), snapshots with sim_snapshot_free().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "pool/member.h"
#include "tests/sim/sim_image.h"

#define SIM_SECTOR 512u

struct sim_disk;

/* What a page holds after a discard; real disks do either. */
enum sim_discard {
        SIM_DISCARD_RANDOM, /* each 4 KiB page one of the two below, by the seed */
        SIM_DISCARD_ZERO,
        SIM_DISCARD_KEEP,
        SIM_DISCARD_UNSUPPORTED, /* can_discard is false */
};

struct sim_disk_options {
        uint64_t seed;
        uint64_t latency_min_ns, latency_max_ns; /* both 0: 20 to 200 microseconds */
        bool in_order;                           /* complete in order of submission */
        enum sim_discard discard;
        const char *name; /* the member's path; NULL: "sim" */
};

/* A disk holding a copy of @image (which is cloned: no time), or zeroes, see sim_image_new().
 * @options may be NULL: all zeroes. */
struct sim_disk *sim_disk_new(const struct sim_image *image,
                              const struct sim_disk_options *options);
/* NULL is fine. What is in flight on a loop that will never run again is dropped; the loop goes
 * first. */
void sim_disk_free(struct sim_disk *disk);

/* A member on @disk; one at a time. Closing it leaves the disk as it is. -ENOMEM */
int sim_disk_open(struct sim_disk *disk, struct loop *loop, struct member **ret_member);
/* The disk behind a member that sim_disk_open() made. */
struct sim_disk *sim_disk_of(struct member *member);

/* ---- power loss ---- */

/* What became of a pending operation when the power went. */
enum sim_choice {
        SIM_LOST,
        SIM_WHOLE,
        SIM_FIRST_HALF,
        SIM_SECOND_HALF,
        /* this and every value above, to 255: each sector (a discard: each page) by lot,
         * the value being the seed */
        SIM_TORN,
};

struct sim_pending {
        enum member_op op; /* MEMBER_WRITE or MEMBER_DISCARD */
        uint64_t number;   /* of the operation on this disk, from 1, in order of submission */
        uint64_t offset, length;
        const uint8_t *data;  /* NULL for a discard */
        uint64_t data_length; /* bytes at data: more than length where a fault loses the write */
        bool completed;       /* its done() has run or is about to */
        struct sim_buffer *buffer;
};

/* Pending operations in the order in which they reach the disk where several of them do: the
 * completed ones as they completed, then those in flight as they were submitted. Valid until the
 * loop runs again. */
size_t sim_disk_n_pending(const struct sim_disk *disk);
const struct sim_pending *sim_disk_pending(struct sim_disk *disk, size_t index);

/* The image that is found after a power loss now: choice[i] is for pending operation i. NULL: all
 * lost. The disk is not changed. Release with sim_image_free(). */
struct sim_image *sim_disk_crash(struct sim_disk *disk, const uint8_t *choice);

/* The moment kept, for crashing later: cheap, and independent of the disk. */
struct sim_snapshot {
        struct sim_image *durable;
        struct sim_pending *pending;
        size_t n_pending;
};
struct sim_snapshot *sim_disk_snapshot(struct sim_disk *disk);
struct sim_image *sim_snapshot_crash(const struct sim_snapshot *snapshot, const uint8_t *choice);
void sim_snapshot_free(struct sim_snapshot *snapshot); /* NULL is fine */

/* What is durable, and what reads see: for comparing. Copies,
 * to be released with sim_image_free(). */
struct sim_image *sim_disk_durable(const struct sim_disk *disk);
struct sim_image *sim_disk_visible(const struct sim_disk *disk);

/* ---- events ---- */

struct sim_event {
        uint64_t number; /* of the event on this disk, from 1 */
        uint64_t time_ns;
        enum member_op op;
        bool completed;     /* false: submitted */
        uint64_t operation; /* sim_pending.number */
        uint64_t offset, length;
        int result; /* of a completed one */
};

/* Called at every submission and completion of a write, flush or discard, when it has taken effect
 * on the disk but before the engine hears of it. It may take snapshots; it may not submit. NULL:
 * none. */
typedef void sim_disk_hook(void *arg, struct sim_disk *disk, const struct sim_event *event);
void sim_disk_set_hook(struct sim_disk *disk, sim_disk_hook *hook, void *arg);

/* A hash over all events so far, reads included, with their data: equal for equal runs. */
uint64_t sim_disk_trace(const struct sim_disk *disk);

/* ---- faults ---- */

enum sim_fault_kind {
        /* The operation fails with .error. A read's buffer then holds rubbish; of a write failing
         * with -EIO some sectors may have been written, with any other error none. Writes that a
         * failed flush would have covered are durable or never will be, by lot, and no later flush
         * changes that, as on Linux. */
        SIM_FAULT_ERROR,
        SIM_FAULT_MISDIRECT, /* a write lands .delta bytes further on */
        SIM_FAULT_LOSE,      /* a write is answered and never done */
        /* a flush is answered and nothing done; a later honest one makes up for it */
        SIM_FAULT_LIE,
};

struct sim_fault {
        enum sim_fault_kind kind;
        unsigned ops; /* of SIM_OP(MEMBER_READ) and so on; 0: all that the kind is for */
        /* what touches this range; length 0: everywhere. Flushes always match */
        uint64_t offset, length;
        uint64_t skip;  /* this many are let pass first */
        uint64_t count; /* then this many are hit; 0: all */
        int error;      /* -errno */
        int64_t delta;  /* a multiple of SIM_SECTOR; must stay on the disk or the write is lost */
};
#define SIM_OP(op) (1u << (op))

/* Faults are tried in the order in which they were added; the first that hits counts. */
void sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault);
void sim_disk_clear_faults(struct sim_disk *disk);
/* Bit rot: xor the bytes of a range, durable and visible, with @bits. Pending writes are not
 * touched. */
void sim_disk_corrupt(struct sim_disk *disk, uint64_t offset, uint64_t length, uint8_t bits);
/* For what is submitted from now on. */
void sim_disk_set_latency(struct sim_disk *disk, uint64_t min_ns, uint64_t max_ns);

struct sim_disk_stats {
        /* How often each fault hit. */
        uint64_t errors, misdirected, lost, lies, corrupted;
        uint64_t read_errors, write_errors, flush_errors, no_space; /* among the errors */
        /* Mistakes of the member's user that no disk reports; all should be 0. */
        uint64_t changed_buffers; /* data of a write was changed while it was in flight */
        /* writes or discards in flight on the same bytes: no order is promised */
        uint64_t overlapping_writes;
};
void sim_disk_get_stats(const struct sim_disk *disk, struct sim_disk_stats *ret_stats);
