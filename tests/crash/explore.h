/* explore.h - cut the power at every moment of a run, in every way.
 *
 * A state is what a power loss leaves on all disks. It is named by the plan, the number of the
 * moment, and one character for each operation pending then, disk after disk:
 *
 *   0       lost
 *   1       whole
 *   2       first half
 *   3       second half
 *   a to z  torn at random sectors
 *
 * For a crash during the recovery from that state another moment and its characters follow:
 * "x2-wfs:12:0130" or "x2-wfs:12:0130:3:01".
 *
 * Threads    one; processes explore side by side (work.h).
 * Errors     a state that breaks a promise is a violation, in exploration.violation.
 */
#pragma once
#include "tests/crash/run.h"

#define STATE_ID_MAX   700
#define PENDING_MAX    240u /* operations pending at a moment that are told apart; more are whole */
#define EXHAUSTIVE_MAX 6u   /* with up to this many pending, every combination */

struct figures {
        uint64_t plans, ops, no_space;
        uint64_t points;
        uint64_t states;           /* distinct contents of the disks */
        uint64_t recoveries;       /* a state is recovered from again when more is promised of it */
        uint64_t nested;           /* crashes during recovery, among the recoveries */
        uint64_t phases[N_PHASES]; /* recoveries from a crash in each */
        uint64_t complete;         /* moments of which every combination was looked at */
        uint64_t violations;
};

struct violation {
        bool found;
        char id[STATE_ID_MAX];
        unsigned op; /* of the plan, the last that had begun */
        char reason[REASON_MAX];
};

struct exploration {
        const struct plan *plan;
        const bool *kept;            /* NULL: all */
        uint64_t max_states;         /* about; 0: no limit */
        struct figures *figures;     /* added to */
        struct violation *violation; /* .id is that of the state being looked at, always */
};

/* Stops at the first violation. */
void explore(const struct exploration *exploration);

/* Look at the one state that @id names, after the plan's name and a colon.
 *
 * -EINVAL  there is no such state */
int explore_one(const struct exploration *exploration, const char *id);
