/* later.h - have something done by the loop's thread.
 *
 * A device is mostly called by a vCPU's thread, which must not touch the loop: timers and operations
 * belong to the loop's thread. It asks here, and is called there, soon, under the machine's lock.
 * Asking again before that is the same request.
 *
 * Threads    later_ask() [any thread]; the others the loop's.
 * Errors     -ENOMEM.
 * Ownership  the device owns it, and may free it while it is asked for: nothing is called any more.
 */
#pragma once
#include "common/error.h"

struct machine;
struct later;

int later_new(struct machine *machine, void (*run)(void *owner), void *owner,
              struct later **ret_later, struct error *err);
void later_free(struct later *later); /* NULL is fine */
void later_ask(struct later *later);
