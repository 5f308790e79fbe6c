/* judge.h - what became of one damage, and whether that may be.
 *
 * Threads    one.
 */
#pragma once
#include "tests/rot/damage.h"
#include "tests/rot/trial.h"

enum verdict {
        VERDICT_REFUSED,  /* the pool does not open, and says why */
        VERDICT_READONLY, /* the log is damaged: open read-only, it says that the last is missing */
        VERDICT_EIO,      /* something cannot be read: an error, with its place in log or check */
        VERDICT_COPY,     /* all is right, from another copy; the bad one is named by who read it */
        VERDICT_CHECK,    /* all is right; the check names it */
        VERDICT_WINDOW,   /* taken for a write that was lost before it was known to be flushed */
        VERDICT_UNFELT,   /* all is right: what is there carries nothing, or not any more */
        VERDICT_WRONG,    /* a promise is broken */
        VERDICTS,
        VERDICT_NONE = VERDICTS, /* it changes nothing there: not counted */
};
extern const char *const verdict_name[VERDICTS];

#define REASON_BYTES 600

/* Apply @damage to clones of the sample's disks, open, read and check. */
enum verdict judge_look(const struct sample *sample, const struct damage *damage, uint64_t seed,
                        char reason[REASON_BYTES]);
/* The same with a pool that is written to; *ret_mended: afterwards no trace of the damage is left. */
enum verdict judge_use(const struct sample *sample, const struct damage *damage, uint64_t seed,
                       bool *ret_mended, char reason[REASON_BYTES]);
