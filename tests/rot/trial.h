/* trial.h - a pool opened by a fresh engine, read completely and checked.
 *
 * Units      bytes.
 * Threads    called from the program's thread, outside of any loop.
 * Errors     what the engine makes of the disks is the outcome's; an engine that hangs is one, too.
 * Ownership  images stay the caller's; nothing of an outcome is to be released.
 */
#pragma once
#include "tests/rot/sample.h"

/* Where the damage is, to know it in messages. */
struct place {
        unsigned member;
        uint64_t offset; /* of its block */
        uint64_t named;  /* of what messages call it: where a superblock begins */
        bool unreadable; /* the disk answers EIO for reads of the block */
};

struct outcome {
        bool opened;
        char refusal[300]; /* why not */
        bool damaged;      /* opened read-only though nobody asked for it; it says why */
        struct comparison seen;
        uint64_t n_bad;      /* copies that failed, by the engine's own count */
        bool logged;         /* a message names the place */
        int check;           /* -errno of the check, or 0 */
        uint64_t n_findings; /* of the check */
        bool named;          /* one of them names the place */
        char finding[300];   /* the first one */
        const char *hang;    /* it never ended: why; or NULL */
};

/* Open without writing, read, check. */
void trial_look(struct sim_image *const *images, const struct sample *sample,
                const struct truth *truth, const struct place *place, struct outcome *ret);
/* Open for writing, read, let the pool settle, close; *ret is what was seen then. What the disks hold
 * afterwards is looked at again: *ret_after. */
void trial_use(struct sim_image *const *images, const struct sample *sample,
               const struct truth *truth, const struct place *place, struct outcome *ret,
               struct outcome *ret_after);

/* Undamaged: what is there; and each block that is read on the way, one bit a block of a member. */
void trial_truth(struct sim_image *const *images, unsigned n_members, struct truth *ret_truth);
void trial_reads(struct sim_image *const *images, const struct sample *sample,
                 uint64_t *const *bits);
/* Log messages go on to stderr as well. */
void trial_show_log(void);
