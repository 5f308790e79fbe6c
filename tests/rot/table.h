/* table.h - what came of it all, counted by each process in shared memory, and printed.
 *
 * Threads    one; each process writes to its own worker only.
 * Ownership  workers are memory of process_share(), never released.
 */
#pragma once
#include "tests/rot/judge.h"

#define VIOLATIONS_SHOWN 8u

struct worker {
        uint64_t n[KINDS][VERDICTS];
        uint64_t n_flips[KINDS];      /* of bytes, among these */
        uint64_t n_used[KINDS];       /* trials that wrote */
        uint64_t n_mended[KINDS];     /* and left no trace of the damage */
        char damage[DAMAGE_NAME_MAX]; /* what is being tried */
        uint64_t n_violations;
        struct {
                char damage[DAMAGE_NAME_MAX];
                enum kind kind;
                char reason[REASON_BYTES];
        } violation[VIOLATIONS_SHOWN];
};

void worker_count(struct worker *worker, enum kind kind, enum way way, enum verdict verdict,
                  const char *reason);
void worker_count_use(struct worker *worker, enum kind kind, enum verdict verdict, bool mended,
                      const char *reason);
/* Its process did: while trying what worker->damage says. */
void worker_died(struct worker *worker, const char *how);

/* How many blocks of each kind there are. */
void table_note_sample(const struct sample *sample);
/* Prints the table, the violations, and the figures in one line. Returns how many violations. */
uint64_t table_print(const struct worker *workers, unsigned n);
