/* watch.h - be called when a descriptor can be read from, under the machine's lock; and eventfds.
 *
 * The loop ends a poll only in its own time, so a watch lives on a little after watch_free(), and so does
 * its descriptor; nobody is called any more.
 *
 * Units      none.
 * Threads    the loop's; or, for watch_new(), before the loop runs.
 * Errors     -ENOMEM.
 * Ownership  a watch owns its descriptor and closes it, also where watch_new() fails.
 */
#pragma once
#include <stdbool.h>
#include "common/error.h"

struct machine;
struct watch;

/* @readable has to take away what made it readable: it is called again otherwise. */
int watch_new(struct machine *machine, int fd, void (*readable)(void *arg), void *arg,
              struct watch **ret_watch, struct error *err);
void watch_free(struct watch *watch); /* NULL is fine */

/* [any thread] A new eventfd, close-on-exec and non-blocking; -errno. */
int eventfd_new(struct error *err);
/* [any thread] Never waits: one that is full says already what there is to say. */
void eventfd_signal(int fd);
/* [any thread] Whether it was signalled; from now on it is not. Never waits. */
bool eventfd_take(int fd);
