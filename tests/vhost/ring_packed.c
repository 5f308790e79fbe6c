/* ring_packed.c - packed virtqueues (virtio 1.2, 2.8); see ring.h. */
#include "tests/vhost/ring_internal.h"

#define FLAG_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define FLAG_USED  (1u << VRING_PACKED_DESC_F_USED)

static struct vring_packed_desc_event *driver_event(struct ring *r)
{
        return guest_at(r->memory, r->driver);
}

static struct vring_packed_desc_event *device_event(struct ring *r)
{
        return guest_at(r->memory, r->device);
}

/* 2.8.1: what makes a descriptor available in this turn of the ring. */
static uint16_t available_flags(bool wrap)
{
        return wrap ? FLAG_AVAIL : FLAG_USED;
}

uint16_t ring_packed_add(struct ring *r, const struct ring_buffer *buffers, unsigned n,
                         bool indirect)
{
        struct vring_packed_desc *ring = ring_packed(r);
        uint16_t id = r->free_list[--r->n_free];
        uint16_t head = r->next, head_flags = 0;

        for (unsigned i = 0; i < n; i++) {
                struct vring_packed_desc *d = &ring[r->next];
                uint16_t flags = available_flags(r->next_wrap);
                flags |= indirect ? VRING_DESC_F_INDIRECT
                                  : (buffers[i].writable ? VRING_DESC_F_WRITE : 0);
                if (i + 1 < n)
                        flags |= VRING_DESC_F_NEXT;
                d->addr = buffers[i].guest;
                d->len = buffers[i].n_bytes;
                d->id = id; /* 2.8.6: only the last one's counts */
                if (i == 0)
                        head_flags = flags;
                else
                        d->flags = flags;
                if (++r->next == r->size) {
                        r->next = 0;
                        r->next_wrap = !r->next_wrap;
                }
        }
        /* The device goes in order: withholding the batch's first withholds all. */
        if (r->batch_n == 0) {
                r->batch_at = head;
                r->batch_flags = head_flags;
        } else
                __atomic_store_n(&ring[head].flags, head_flags, __ATOMIC_RELEASE);
        r->batch_n = (uint16_t)(r->batch_n + n);
        return id;
}

/* 2.8.10: does the batch reach over the descriptor that the device wants to hear of? */
static bool event_is_due(struct ring *r, uint32_t event)
{
        uint16_t at = event & 0x7fff, n = r->batch_n;
        bool wrap = event >> 15 & 1;

        /* Places counted from the beginning of the turn in which the batch ends. */
        int32_t end = r->next, start = end - n, wanted = at;
        if (wrap != r->next_wrap)
                wanted -= r->size;
        return wanted >= start && wanted < end;
}

bool ring_packed_publish(struct ring *r)
{
        struct vring_packed_desc *ring = ring_packed(r);
        uint32_t event;

        if (r->batch_n == 0)
                return false;
        __atomic_store_n(&ring[r->batch_at].flags, r->batch_flags, __ATOMIC_RELEASE);
        /* 2.8.21.3.1 */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        uint16_t flags = __atomic_load_n(&device_event(r)->flags, __ATOMIC_ACQUIRE) & 3;
        event = __atomic_load_n(&device_event(r)->off_wrap, __ATOMIC_RELAXED);
        bool kick = flags == VRING_PACKED_EVENT_FLAG_DESC
                        ? event_is_due(r, event)
                        : flags != VRING_PACKED_EVENT_FLAG_DISABLE;
        r->batch_n = 0;
        r->published = r->next;
        return kick;
}

bool ring_packed_peek(struct ring *r, uint32_t *ret_id, uint32_t *ret_n_bytes)
{
        struct vring_packed_desc *d = &ring_packed(r)[r->last_used];
        uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
        bool is_available = flags & FLAG_AVAIL, is_used = flags & FLAG_USED;

        if (is_available != is_used || is_used != r->used_wrap)
                return false;
        *ret_id = d->id;
        /* 2.8.5: without WRITE the length means nothing, as nothing was written. */
        *ret_n_bytes = flags & VRING_DESC_F_WRITE ? d->len : 0;
        return true;
}

void ring_packed_take(struct ring *r, uint16_t id, uint16_t n_taken)
{
        r->free_list[r->n_free++] = id;
        r->last_used = (uint16_t)(r->last_used + n_taken);
        if (r->last_used >= r->size) {
                r->last_used = (uint16_t)(r->last_used - r->size);
                r->used_wrap = !r->used_wrap;
        }
}

void ring_packed_arm(struct ring *r)
{
        struct vring_packed_desc_event *event = driver_event(r);

        if (!r->event_index) {
                __atomic_store_n(&event->flags, VRING_PACKED_EVENT_FLAG_ENABLE, __ATOMIC_RELEASE);
                return;
        }
        uint16_t off_wrap =
            (uint16_t)(r->last_used | r->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
        __atomic_store_n(&event->off_wrap, off_wrap, __ATOMIC_RELAXED);
        __atomic_store_n(&event->flags, VRING_PACKED_EVENT_FLAG_DESC, __ATOMIC_RELEASE);
}

void ring_packed_disarm(struct ring *r)
{
        __atomic_store_n(&driver_event(r)->flags, VRING_PACKED_EVENT_FLAG_DISABLE,
                         __ATOMIC_RELAXED);
}
