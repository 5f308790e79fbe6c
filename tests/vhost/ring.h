/* ring.h - the driver's side of a virtqueue, split or packed.
 *
 * Buffers are added, shown to the device together by ring_publish(), and taken back one by one, in
 * whatever order the device used them.
 *
 * Units      bytes; addresses are the guest's.
 * Threads    one a ring; its memory is shared with the device.
 * Errors     0 or -errno with a sentence; -EPROTO: the device used what it was not given.
 * Ownership  a struct ring is the caller's; release what it holds with ring_free(). Its memory is
 *            the guest's and not given back.
 * Source     virtio 1.2, 2.7 (split virtqueues) and 2.8 (packed virtqueues).
 */
#pragma once
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/vhost/front.h"
#include "tests/vhost/guest.h"

struct ring_buffer {
        uint64_t guest;
        uint32_t n_bytes;
        bool writable; /* by the device */
};

struct ring_entry {
        void *cookie;       /* NULL: not in flight */
        uint16_t n_taken;   /* descriptors of the ring */
        uint32_t n_written; /* bytes that the device may write at most */
};

struct ring {
        struct guest *memory;
        bool packed, event_index;
        uint16_t size;

        uint64_t descriptors, driver, device; /* the three areas */
        uint32_t descriptors_bytes, driver_bytes, device_bytes;
        int kick, call, error; /* eventfds */

        struct ring_entry *entries; /* by head (split) or buffer id (packed) */
        uint16_t *free_list;        /* a stack of descriptors (split) or ids (packed) */
        uint16_t n_free;            /* in free_list */
        uint16_t n_room;            /* descriptors free in the ring */
        uint16_t n_in_flight;

        uint16_t next;             /* split: of the available ring, unwrapped; packed: a place */
        uint16_t published;        /* what @next was when it was last shown */
        uint16_t last_used;        /* split: unwrapped; packed: a place */
        bool next_wrap, used_wrap; /* packed */
        uint16_t batch_n;          /* packed: descriptors added and not shown */
        uint16_t batch_at;         /* where they begin, */
        uint16_t batch_flags;      /* and the flags of the first, which are withheld */
        uint64_t n_kicks, n_calls; /* sent; awaited and come */
};

/* Lay the areas out in region @region. @size: at most 32768; for split rings a power of two. */
int ring_new(struct guest *m, unsigned region, uint16_t size, bool packed, bool event_index,
             struct ring *ret_ring, struct error *err);
void ring_free(struct ring *r);
/* Nothing is in flight any more and the areas are as new: after the device was reset. */
void ring_reset(struct ring *r);

/* What SET_VRING_BASE says for this ring as it stands: before first use, or to a device that takes
 * it over with an in-flight region. */
uint32_t ring_base(const struct ring *r);
/* Tell the device of the ring: size, base, addresses, descriptors, and enable it where that is
 * needed. With @log the used ring's writes are logged. */
int ring_start(struct ring *r, struct front *f, unsigned index, bool log, struct error *err);
int ring_set_address(struct ring *r, struct front *f, unsigned index, bool log, struct error *err);
/* GET_VRING_BASE: what the device answers. */
int ring_stop(struct ring *r, struct front *f, unsigned index, uint32_t *ret_base,
              struct error *err);

/* Add a request of @n buffers; with @table (room for @n descriptors) as an indirect one. False
 * where the ring has no room. @cookie is not NULL. */
bool ring_add(struct ring *r, const struct ring_buffer *buffers, unsigned n, uint64_t table,
              void *cookie);
/* Show what was added, and kick if the device asks for that. */
void ring_publish(struct ring *r);
void ring_kick(struct ring *r);

/* The next used one: 1, its cookie and length; 0: none yet. */
int ring_take(struct ring *r, void **ret_cookie, uint32_t *ret_n_bytes, struct error *err);
/* Ask for a call at the next one used. True: one is there already, and none may come. */
bool ring_arm(struct ring *r);
void ring_disarm(struct ring *r);
/* Wait for a call up to @timeout_ms: has one come? */
bool ring_wait_call(struct ring *r, int timeout_ms);
/* Take the next used one, waiting for it. -ETIMEDOUT: none came. */
int ring_wait(struct ring *r, int timeout_ms, void **ret_cookie, uint32_t *ret_n_bytes,
              struct error *err);

/* Write entry @i of an indirect table, in this kind of ring's form. @buffer's writable is not looked
 * at, and @next is nothing to packed rings. */
void ring_write_entry(struct ring *r, uint64_t table, unsigned i, const struct ring_buffer *buffer,
                      uint16_t flags, uint16_t next);

/* The areas, for who writes them by hand. */
struct vring_desc *ring_table(struct ring *r);
struct vring_avail *ring_available(struct ring *r);
struct vring_used *ring_used(struct ring *r);
struct vring_packed_desc *ring_packed(struct ring *r);
