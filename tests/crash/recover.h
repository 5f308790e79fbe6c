/* recover.h - open what a power loss left, and see that nothing promised is missing.
 *
 * The pool is opened on a fresh loop, everything is read and held against the model, the check
 * walks all of it and its data; then the pool is settled and closed, which frees what deletions
 * left behind and commits a checkpoint, and opened again: a second recovery must change nothing.
 *
 * Threads    one.
 * Errors     false, and a text that says what is wrong.
 * Ownership  images and model stay the caller's; release what was observed with observed_free().
 */
#pragma once
#include "tests/crash/run.h"

struct recovery {
        const struct plan *plan;
        const struct model *model;
        uint64_t time; /* of the crash, by the model's clock */
        unsigned op;   /* the last of the plan that had begun */
        struct sim_image *const *images;
        unsigned n_images;
        /* What an earlier recovery showed to its users: the same must be found. NULL: there was
         * none. */
        const struct observed *expected;
        uint64_t probe; /* seed of questions to be asked at the end; 0: none */
        /* Keep the moments of this recovery, for crashes in its course; NULL: don't. */
        struct points *points;
};

/* True where all is well, and *ret_observed is what was found; otherwise @text is what is wrong. */
bool recover(const struct recovery *recovery, struct observed *ret_observed, char *text,
             size_t text_size);
