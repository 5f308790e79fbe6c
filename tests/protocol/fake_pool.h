/* fake_pool.h - as much of pool.h as the NBD server uses, over memory: volume_submit(),
 * volume_size(), co_volume_status(), co_volume_depth() and co_volume_changed(), with faults to order. What it was asked to do it counts.
 *
 * Units      bytes.
 * Threads    a volume belongs to its loop; fake_* functions are for [any thread].
 * Errors     those that were ordered, and pool.h's for what is out of range.
 * Ownership  release a volume with fake_volume_free(), while nothing is in flight.
 */
#pragma once
#include "pool/pool.h"

struct volume *fake_volume_new(struct loop *loop, uint64_t size_bytes);
/* One of any size that costs nothing: it reads as zeroes, whatever is written, and knows for 64 MiB
 * at once whether there are data. */
struct volume *fake_volume_new_empty(struct loop *loop, uint64_t size_bytes);
/* As it was made, without making it anew. */
void fake_volume_reset(struct volume *volume); /* nothing in flight */
void fake_volume_free(struct volume *volume);  /* nothing in flight */
/* not beyond the size it was made with */
void fake_resize(struct volume *volume, uint64_t size_bytes);
/* as the property discard=off does */
void fake_keep(struct volume *volume, bool keep);

/* When the next request comes; once. */
void fake_shrink_at_submit(struct volume *volume, uint64_t size_bytes);

/* Requests of @op fail with @error from now on; 0: no more. */
void fake_fail(struct volume *volume, enum volume_op op, int error);
void fake_fail_status(struct volume *volume, int error);
/* Keep finished requests back; let the one go that came last or first; let all go, in order, and
 * hold no more. */
void fake_hold(struct volume *volume);
void fake_release_last(struct volume *volume);
void fake_release_all(struct volume *volume);
unsigned fake_n_held(struct volume *volume);
/* Requests that come are held before they are done, as by the volume's limits or for want of space:
 * until they are released, or volume_cancel() or volume_hurry(). Those who come to the volume next are
 * not cancelled. fake_release_all() ends it. */
enum fake_wait { FAKE_WAIT_NOTHING, FAKE_WAIT_LIMITS, FAKE_WAIT_SPACE };
void fake_wait_for(struct volume *volume, enum fake_wait what);

struct fake_counts {
        unsigned submitted[VOLUME_ZERO + 1]; /* by operation */
        unsigned fua[VOLUME_ZERO + 1];       /* of those, with VOLUME_FUA */
        unsigned statuses;
        unsigned in_flight, in_flight_max; /* submitted and not yet answered */
        uint64_t bytes_in_flight_max;      /* of reads and writes */
        unsigned unaligned;                /* buffers that are not aligned to POOL_BLOCK */
        const uint8_t *data;             /* where the first buffer of the last read or write lies */
        unsigned flush_in_flight_writes; /* writes unanswered when a flush was submitted, summed */
};
struct fake_counts fake_counts(struct volume *volume);
/* Wait until as many requests are held. */
void fake_wait_held(struct volume *volume, unsigned n);
/* The content, for the test to look at while nothing is in flight: as it is at the call. */
const uint8_t *fake_data(struct volume *volume);
/* Fill it with @byte from @offset on, while nothing is in flight. */
void fake_fill(struct volume *volume, uint64_t offset, uint8_t byte, uint64_t length);
