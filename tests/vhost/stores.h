/* stores.h - every access of some code to memory that it shares, one after the other.
 *
 * The code under test is compiled with -fsanitize=thread, which puts a call before each access to
 * memory and in the place of each atomic one. Here these calls are the test's own, not
 * ThreadSanitizer's: between any two accesses a test can look at what a crash would leave, or let
 * the other side act.
 *
 * Threads    one. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* From now on call @before(@arg) before each access to @n_bytes at @start, and before each fence.
 * @before itself is not watched. */
void stores_watch(const void *start, size_t n_bytes, void (*before)(void *arg), void *arg);
void stores_unwatch(void);

/* As a processor does: atomic stores wait in a buffer, in order, where only the code under test sees
 * them, for a full fence or for stores_let_go(). x86 may do so with every store. (Others are not held
 * back: what is waited for must be stored atomically.) */
void stores_hold(void);
void stores_let_go(void);
