/* loop_thread.h - an event loop on a thread of its own, for a test that runs calls on it.
 *
 * Units      none.
 * Threads    the test's calls wait for the loop's thread.
 * Errors     what fails aborts.
 * Ownership  release with loop_thread_stop(), once nothing is pending on the loop.
 */
#pragma once
#include "common/loop.h"

struct loop_thread;

struct loop_thread *loop_thread_start(void);
struct loop *loop_thread_loop(struct loop_thread *t);
/* Run f(arg) on the loop, and wait for its end; as a coroutine. */
void loop_thread_run(struct loop_thread *t, void (*f)(void *arg), void *arg);
void loop_thread_run_co(struct loop_thread *t, void (*co_f)(void *arg), void *arg);
void loop_thread_stop(struct loop_thread *t);
