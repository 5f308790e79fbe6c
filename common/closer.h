/* closer.h - closing descriptors that others made, which may take as long as they like.
 *
 * close(2) waits for a TCP socket that lingers, for whoever serves a FUSE file, for the release of
 * what lies in a Unix socket's queue, and for that of a large memory file's pages. A loop that
 * serves others cannot. A closer has threads of its own: who holds it up holds up nobody else's.
 *
 * Threads    [any thread]; the work is done by others, which end when there is no more.
 * Errors     of close_elsewhere() none: with no memory or no thread the caller waits after all.
 * Ownership  a descriptor is taken. It is open for a while yet, and closed no later than at the end
 *            of the process. A closer outlives its release until it has done all.
 */
#pragma once
#include <stdbool.h>

struct closer;

struct closer *closer_new(void);         /* NULL: out of memory */
void closer_free(struct closer *closer); /* waits for nothing; NULL is fine */

/* @closer NULL: the one of those who need none of their own. */
void close_elsewhere(struct closer *closer, int fd);
/* How many are not closed yet, and works not done: what its owner has to bound. */
unsigned closer_pending(struct closer *closer);
/* Have other work that may take as long as it likes done in the same way. False: no memory, or no
 * thread; it is not done then. */
bool closer_run(struct closer *closer, void (*work)(void *arg), void *arg);
