/* sim_disk_internal.h - what the files of the simulated disk share. */
#pragma once
#include "common/list.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_random.h"

/* A write's data, shared by the operation and snapshots. */
struct sim_buffer {
        uint64_t refs;
        uint8_t data[];
};

/* An operation from its submission until, for writes and discards, a flush has covered it. */
struct sim_op {
        struct sim_pending pending; /* first: what the outside sees */
        struct list link;           /* in_flight, then completed */
        struct sim_disk *disk;
        struct member_io *io; /* NULL once completed */
        struct loop_timer timer;
        uint64_t completion;   /* rank among completions of writes and discards */
        uint64_t flush_covers; /* of a flush: completions up to this rank */
        int result;            /* decided at submission */
        bool lies;             /* of a flush */
};

struct sim_fault_entry {
        struct sim_fault fault;
        uint64_t seen;
        struct list link;
};

struct sim_disk {
        struct sim_disk_options options;
        char *name;
        struct sim_random random;
        struct sim_image *durable, *visible;
        struct list in_flight; /* in order of submission */
        /* writes and discards no flush has covered, in order of completion */
        struct list completed;
        uint64_t n_operations, n_events, n_completions;
        uint64_t last_deadline_ns;
        uint64_t trace;
        sim_disk_hook *hook;
        void *hook_arg;
        struct list faults;
        struct sim_disk_stats stats;
        struct sim_member *member; /* while open */
};

struct sim_buffer *sim_buffer_new(size_t length);
void sim_buffer_unref(struct sim_buffer *buffer);

/* Lay what @choice says became of @pending onto @image. */
void sim_pending_apply(const struct sim_disk_options *options, const struct sim_pending *pending,
                       struct sim_image *image, uint8_t choice);

/* Which fault hits this operation; NULL where none does. Counts. */
const struct sim_fault *sim_fault_match(struct sim_disk *disk, const struct member_io *io);
/* A write that fails with -EIO wrote some sectors: replace the data by what is then on the disk. */
void sim_fault_tear(struct sim_disk *disk, struct sim_pending *pending);
/* The flush that would have covered completions up to @covers failed. */
void sim_fault_drop(struct sim_disk *disk, uint64_t covers);
