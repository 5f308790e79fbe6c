/* offload.h - work for the processor (compressing, hashing) in other threads, so that a loop goes on.
 *
 * Threads    co_offload() from coroutines of any loop; @work runs in a thread of the offload's, or
 *            where there is none in the caller's.
 * Errors     none: where no thread can be started, the work is done at once.
 * Ownership  offload_free() waits for its threads; nothing may be under way then. It comes before the
 *            release of the loops whose coroutines have called co_offload().
 */
#pragma once

struct offload;

/* At most @n_threads threads, started as they are needed; 0: as many as there are processors to run
 * on. NULL without memory, which co_offload() takes as well. */
struct offload *offload_new(unsigned n_threads);
void offload_free(struct offload *offload); /* NULL is fine */

/* Run @work(@arg) elsewhere; suspends until it has ended. @offload NULL: here, without suspending. */
void co_offload(struct offload *offload, void (*work)(void *arg), void *arg);
