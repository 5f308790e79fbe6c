/* ring_split.c - split virtqueues (virtio 1.2, 2.7); see ring.h.
 *
 * A chain's descriptors are linked through the table's next fields, which only the driver writes:
 * they serve to find them again when the chain has been used. */
#include "tests/vhost/ring_internal.h"

/* 2.7.10: the driver's used_event follows the available ring; the device's avail_event the used. */
static uint16_t *used_event(struct ring *r)
{
        return &ring_available(r)->ring[r->size];
}

static uint16_t *avail_event(struct ring *r)
{
        return (uint16_t *)&ring_used(r)->ring[r->size];
}

uint16_t ring_split_add(struct ring *r, const struct ring_buffer *buffers, unsigned n,
                        bool indirect)
{
        struct vring_desc *table = ring_table(r);
        struct vring_avail *available = ring_available(r);
        uint16_t head = r->free_list[r->n_free - 1];

        for (unsigned i = 0; i < n; i++) {
                struct vring_desc *d = &table[r->free_list[r->n_free - 1 - i]];
                d->addr = buffers[i].guest;
                d->len = buffers[i].n_bytes;
                d->flags = indirect ? VRING_DESC_F_INDIRECT
                                    : (buffers[i].writable ? VRING_DESC_F_WRITE : 0);
                if (i + 1 < n) {
                        d->flags |= VRING_DESC_F_NEXT;
                        d->next = r->free_list[r->n_free - 2 - i];
                }
        }
        r->n_free = (uint16_t)(r->n_free - n);
        available->ring[r->next++ % r->size] = head;
        return head;
}

bool ring_split_publish(struct ring *r)
{
        struct vring_avail *available = ring_available(r);
        uint16_t old = r->published;

        if (r->next == old)
                return false;
        __atomic_store_n(&available->idx, r->next, __ATOMIC_RELEASE);
        r->published = r->next;
        /* 2.7.13.4.1: the index is there before the device's wish is looked at. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (r->event_index)
                return vring_need_event(__atomic_load_n(avail_event(r), __ATOMIC_RELAXED), r->next,
                                        old);
        return !(__atomic_load_n(&ring_used(r)->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
}

bool ring_split_peek(struct ring *r, uint32_t *ret_id, uint32_t *ret_n_bytes)
{
        struct vring_used *used = ring_used(r);

        if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == r->last_used)
                return false;
        *ret_id = used->ring[r->last_used % r->size].id;
        *ret_n_bytes = used->ring[r->last_used % r->size].len;
        return true;
}

void ring_split_take(struct ring *r, uint16_t id, uint16_t n_taken)
{
        struct vring_desc *table = ring_table(r);
        uint16_t at = id;

        for (uint16_t i = 0; i < n_taken; i++) {
                r->free_list[r->n_free++] = at;
                at = table[at].next;
        }
        r->last_used++;
}

void ring_split_arm(struct ring *r)
{
        if (r->event_index)
                __atomic_store_n(used_event(r), r->last_used, __ATOMIC_RELAXED);
        else
                __atomic_store_n(&ring_available(r)->flags, 0, __ATOMIC_RELAXED);
}

void ring_split_disarm(struct ring *r)
{
        /* 2.7.7.1: an event index that lies behind is as good as none for 2^16 more. */
        if (r->event_index)
                __atomic_store_n(used_event(r), (uint16_t)(r->last_used - 1), __ATOMIC_RELAXED);
        else
                __atomic_store_n(&ring_available(r)->flags, VRING_AVAIL_F_NO_INTERRUPT,
                                 __ATOMIC_RELAXED);
}
