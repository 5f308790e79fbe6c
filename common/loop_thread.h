/* loop_thread.h - a thread that runs an event loop of its own.
 *
 * Threads    all of this is for the thread that starts and stops it.
 * Errors     0 or -errno with a sentence.
 * Ownership  the loop is the loop_thread's, and lives until it is stopped.
 *
 * The thread takes no signals but those of its own faults. Work comes to it by loop_post_remote()
 * and co_move().
 */
#pragma once
#include "common/loop.h"

struct loop_thread;

/* @name: what ps and a debugger show; at most 15 characters count. */
int loop_thread_start(const char *name, struct loop_thread **ret_thread, struct error *err);
struct loop *loop_thread_loop(const struct loop_thread *thread);
/* Nothing may be pending on its loop, nor may another thread be in loop_post_remote() to it: such a
 * thread is joined first. NULL is fine. */
void loop_thread_stop(struct loop_thread *thread);
