/* process.h - runs of an engine in processes of their own, which may die or hang.
 *
 * Units      seconds where the name says so.
 * Threads    called from the program's only thread; each process has one of its own.
 * Errors     a process that a signal ended has found something: process_finish() says what.
 * Ownership  shared memory is never released.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Memory that processes share; never released. */
void *process_share(size_t size);

/* As fork(); the child logs nothing, and keeps its memory. */
pid_t process_start(void);
/* Wait for its end. False where that was not a good one: *ret_signal, where it was one, and a
 * text. */
bool process_finish(pid_t pid, int *ret_signal, char *text, size_t text_size);

/* From now on this process may take so many seconds. An engine over simulated disks waits for nothing
 * outside, so that a hang takes processor time; the wall clock only ends what sleeps all the same.
 * 0: no watch any more. */
void process_watch(unsigned seconds);
