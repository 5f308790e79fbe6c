/* work.h - processes that explore plans: one a core, each writing its figures into memory shared
 * with the program, so that an engine that dies or hangs in one leaves behind which state killed
 * it.
 *
 * Units      seconds where the name says so.
 * Threads    called from the program's only thread; each process has one of its own.
 * Errors     a violation is in its worker, and the signal of a process that died.
 * Ownership  workers are memory of process_share(), never released.
 */
#pragma once
#include "tests/crash/explore.h"

struct settings {
        uint64_t seed;               /* of the first random plan */
        uint64_t max_states;         /* of all; 0: by the clock alone */
        uint64_t max_seconds;        /* 0: until max_states */
        unsigned length;             /* of exhaustive sequences; 0: none */
        const char *alphabet;        /* NULL: ops_alphabet() */
        unsigned exhaustive_percent; /* of max_states */
        bool images;                 /* plans with volumes on images */
        bool roomy;                  /* random plans with room on the disks only */
        unsigned n_ops;              /* of a random plan */
        unsigned members_min, members_max, random_members_max;
        unsigned n_jobs;
};

/* What a process shows of itself. */
struct worker {
        struct figures figures;
        struct violation violation;
        uint64_t n_random; /* random plans begun */
        char plan[PLAN_NAME_MAX];
        int signal; /* that ended it */
};

#define JOBS_MAX 64u
/* A state that takes more of a processor than this hangs, however busy the machine is. */
#define STATE_SECONDS_MAX 60u

/* Explore all that @settings asks for; @workers is shared memory, one each. */
void work(const struct settings *settings, struct worker *workers);

/* Explore one plan, or the one state @id of it (NULL: up to @max_states),
 * in a process of its own. */
void work_one(const char *plan, const bool *kept, const char *id, uint64_t max_states, bool quiet,
              struct worker *worker);
