/* run.h - carry out a plan on a pool over simulated disks, keeping the moments at which to cut the
 * power.
 *
 * What a crash may leave changes when a disk takes up a write or discard (more may be found) and
 * when an operation is answered (less may be missing). A completed flush takes possibilities away
 * and adds none. So a moment is kept at each submission of a write or discard and right after each
 * answer: every other moment of the run could only leave what one of these can.
 *
 * Units      times are the model's, which count events.
 * Threads    one.
 * Errors     run.failed, and run.reason says what went wrong.
 * Ownership  a run owns its models and moments; release with run_free().
 */
#pragma once
#include "tests/crash/model.h"
#include "tests/crash/ops.h"
#include "tests/sim/sim_disk.h"

#define DISKS_MAX  8u
#define REASON_MAX 1400
#define POINTS_MAX 4000u

struct pool_options;

/* What was under way at a moment. */
enum phase {
        PHASE_CHECKPOINT, /* asked for, or by closing */
        PHASE_DELETE,     /* of a snapshot or volume, up to its answer */
        PHASE_FREEING,    /* space on its way back: after that, also of shrinks and overwrites */
        PHASE_RESIZE,
        PHASE_ADD,      /* of a member */
        PHASE_COPY,     /* of an image, up to the answer that all of it is there */
        PHASE_RECOVERY, /* from a crash: a second one */
        PHASE_SETTLE,   /* the same, once the pool had opened */
        N_PHASES,
};

/* A moment: all disks, and the model's time. */
struct point {
        uint64_t time, answers;
        unsigned op;               /* the last that had begun */
        const struct model *model; /* that judges it */
        bool after_open;           /* of a recovery: it had ended */
        unsigned phases;           /* a bit a phase */
        unsigned n_disks;
        struct sim_snapshot *disks[DISKS_MAX];
};

struct points {
        struct point *point;
        size_t n;
};
void points_take(struct points *points, const struct point *times, struct sim_disk *const *disks,
                 unsigned n_disks);
void points_free(struct points *points);

struct run {
        const struct plan *plan;
        struct model *model;   /* of what follows the last crash */
        struct model **models; /* of what came before, up to each crash */
        size_t n_models;
        struct points points;
        uint64_t n_ops; /* carried out */
        uint64_t n_no_space;
        bool failed; /* something went wrong without any crash: */
        char reason[REASON_MAX];
};

/* Of the operations in @plan those that @kept (NULL: all) names. */
void run_plan(const struct plan *plan, const bool *kept, struct run *ret_run);
void run_free(struct run *run);

void run_pool_options(const struct plan *plan, struct pool_options *ret_options);
