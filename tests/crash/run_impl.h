/* run_impl.h - between run.c, which starts operations, and run_ops.c, which carries them out. */
#pragma once
#include "common/coroutine.h"
#include "pool/pool.h"
#include "tests/crash/images.h"
#include "tests/crash/op_io.h"
#include "tests/crash/run.h"

struct runner {
        struct run *run;
        const struct plan *plan;
        const bool *kept;
        struct loop *loop;
        struct pool *pool;
        struct images images; /* of the pool */
        struct sim_disk *disks[DISKS_MAX];
        unsigned n_disks;
        size_t first_point; /* since the last crash */
        struct slot slots[VOLUME_SLOTS];
        unsigned in_flight;
        unsigned under_way[N_PHASES]; /* operations */
        bool adding, reopening;       /* in flight */
        bool capturing;
        unsigned op;             /* the last begun */
        struct co_queue changed; /* something ended */
};

struct running {
        struct runner *runner;
        const struct op *op;
        struct catalog_request request;
        bool quiet; /* nothing else may go on with its volumes */
};

void runner_fail(struct runner *runner, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A moment: to be called after each answer, too. */
void runner_take_point(struct runner *runner);
void co_runner_look(struct runner *runner);
/* A new disk, and a member on it. */
int runner_add_disk(struct runner *runner, struct member **ret_member);
void co_runner_crash(struct runner *runner, uint64_t random);
int co_runner_create(struct runner *runner);
int co_runner_open(struct runner *runner);
void runner_close_handles(struct runner *runner);

/* Carry it out, with the model told. */
void co_op_run(struct running *running);
