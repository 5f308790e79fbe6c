/* loops.h - one simulated loop for all short simulations of a process: the stacks of its coroutines
 * are dear. */
#pragma once
#include "common/coroutine.h"

/* Run entry(arg) as the only coroutine on a loop of @seed. Otherwise @ret_reason says what is
 * wrong, and where it hangs nothing that it uses may be released. */
bool loop_run_entry(uint64_t seed, co_entry *entry, void *arg, const char **ret_reason);
/* For those who need the loop before: the one that the next loop_run_entry() uses.
 * NULL: no memory */
struct loop *loop_borrow(void);
