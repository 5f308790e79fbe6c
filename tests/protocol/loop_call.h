/* loop_call.h - run a call on the loop of another thread, and wait for its end.
 *
 * Threads    any but the loop's.
 * Errors     what fails aborts.
 */
#pragma once
#include "common/loop.h"

void loop_call(struct loop *loop, void (*f)(void *arg), void *arg);
/* The same as a coroutine. */
void loop_call_co(struct loop *loop, void (*co_f)(void *arg), void *arg);
