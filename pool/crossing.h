/* crossing.h - requests of handles that are used from another loop than the pool's.
 *
 * Threads    the pool's loop, but for crossing_submit(), which is for the handle's.
 * Ownership  a crossing is shared by the handles used from one loop, and goes with the last.
 */
#pragma once
#include "pool/span.h"

struct crossing;

/* Take @req, of a handle with a crossing, over to the pool's loop, and its answer back. */
void crossing_submit(struct crossing *crossing, struct volume_request *req);
/* Is the user's loop to read the data of @run, which is prepared? */
bool crossing_is_to_fetch(const struct crossing *crossing, const struct run *run);
/* Have them read there: run->io is answered as if it had been submitted. */
void crossing_fetch(struct crossing *crossing, struct run *run);
/* One handle less. NULL is fine. */
void co_crossing_put(struct crossing *crossing);

/* io.c: begin a request whose volume is set; done() is called on the pool's loop. */
void request_begin(struct volume_request *req);
