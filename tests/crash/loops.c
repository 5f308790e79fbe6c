/* loops.c - see loops.h */
#include <errno.h>
#include <stddef.h>
#include "tests/crash/loops.h"
#include "tests/sim/sim_loop.h"

#define STEPS_MAX UINT64_C(3000000) /* more is an endless loop */

static struct loop *shared; /* NULL: none yet, or it hangs */

struct loop *loop_borrow(void)
{
        if (shared == NULL && sim_loop_new(0, true, &shared) < 0)
                return NULL;
        return shared;
}

bool loop_run_entry(uint64_t seed, co_entry *entry, void *arg, const char **ret_reason)
{
        struct loop *loop = loop_borrow();
        int r;

        if (loop == NULL) {
                *ret_reason = "no memory";
                return false;
        }
        sim_loop_reset(loop, seed, true);
        sim_loop_set_step_limit(loop, STEPS_MAX);
        r = sim_loop_co_run(loop, entry, arg);
        if (r < 0) {
                *ret_reason = r == -EDEADLK ? "nothing goes on any more" : "it goes on for ever";
                shared = NULL; /* what hangs cannot be taken apart */
                return false;
        }
        if (sim_loop_reset(loop, 0, false) > 0) {
                *ret_reason = "the closed pool left a timer armed";
                return false;
        }
        return true;
}
