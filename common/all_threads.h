/* all_threads.h - doing something in each thread of the process.
 *
 * Credentials, and so capabilities and Landlock's domains, belong to a thread: what is to hold for the
 * process each thread has to do for itself (as glibc does for setuid(2), nptl(7)). Each is interrupted
 * by a signal, SIGURG, which does nothing where nobody waits for it.
 *
 * Threads    from one thread at a time.
 */
#pragma once
#include <signal.h>
#include <sys/types.h>
#include "common/error.h"

/* What the threads that tarn makes block: all signals but the one that is used here and those by which
 * a thread is told of its own faults. Where these are blocked the kernel ends the process and asks no
 * handler. */
void all_threads_blocked(sigset_t *ret_set);

/* Runs @call in each thread, also in those that are made meanwhile; in the caller last. It may do
 * what a signal handler may: system calls. Answers the last negative result; goes on after one.
 *
 * -ETIMEDOUT  a thread did not come to it in five seconds: the others have */
int all_threads_call(int (*call)(void *arg), void *arg, struct error *err);
