/* split.c - split virtqueues: VIRTIO 1.2, section 2.7. */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "vmm-glue/vhost-user/internal.h"

static size_t avail_bytes(const struct queue *queue)
{
        return sizeof(struct vring_avail) + queue->size * sizeof(uint16_t) +
               (queue->event_idx ? sizeof(uint16_t) : 0);
}
static size_t used_bytes(const struct queue *queue)
{
        return sizeof(struct vring_used) + queue->size * sizeof(struct vring_used_elem) +
               (queue->event_idx ? sizeof(uint16_t) : 0);
}
static uint16_t *used_event(const struct queue *queue)
{
        return &queue->split.avail->ring[queue->size];
}
static uint16_t *avail_event(const struct queue *queue)
{
        return (uint16_t *)&queue->split.used->ring[queue->size];
}

/* The used ring is logged where the front end says, which need not be where it lies. */
static void log_used(struct queue *queue, const void *at, size_t length)
{
        if (queue->log_ring)
                dirty_guest(queue->client,
                            queue->addr.log +
                                (uint64_t)((const uint8_t *)at - (uint8_t *)queue->split.used),
                            length);
}

static int split_translate(struct queue *queue, struct error *err)
{
        const struct vhost_vring_addr *a = &queue->addr;
        const struct memory *memory = queue->client->memory;

        if (queue->size & (queue->size - 1))
                return error_set(err, -EINVAL, "a split ring has %u descriptors, no power of two",
                                 queue->size);
        if ((a->descriptor & 15) || (a->available & 1) || (a->used & 3))
                return error_set(err, -EINVAL, "its rings are not aligned");
        queue->split.desc =
            (void *)memory_at_user(memory, a->descriptor, queue->size * sizeof(struct vring_desc));
        queue->split.avail = (void *)memory_at_user(memory, a->available, avail_bytes(queue));
        queue->split.used = (void *)memory_at_user(memory, a->used, used_bytes(queue));
        if (!queue->split.desc || !queue->split.avail || !queue->split.used)
                return error_set(err, -EFAULT, "its rings are not in the guest's memory");
        if (parts_overlap(a->used, used_bytes(queue), a->available, avail_bytes(queue)) ||
            parts_overlap(a->used, used_bytes(queue), a->descriptor,
                          queue->size * sizeof(struct vring_desc)))
                return error_set(err, -EINVAL, "its used ring lies over what the driver writes");
        return 0;
}

static int split_start(struct queue *queue, struct error *err)
{
        bool recovered = false;
        int r;

        queue->last_used = ring_load16(&queue->split.used->idx);
        queue->last_avail = (uint16_t)queue->base;
        r = inflight_recover_split(queue, queue->last_used, &recovered);
        if (r < 0)
                return error_set(err, r, "no memory for what it has in flight");
        if (recovered)
                queue->last_avail = (uint16_t)(queue->last_used + queue->n_resubmit);
        return 0;
}

/* ---- taking ---- */

static void copy_desc(struct vring_desc *to, const struct vring_desc *from)
{
        memcpy(to, from, sizeof(*to));
        /* What was copied is not looked up again where it came from. */
        atomic_signal_fence(memory_order_seq_cst);
}

/* Section 2.7.5.3. */
static void walk_indirect(struct chain *chain, uint64_t table, uint32_t length)
{
        unsigned n = length / (unsigned)sizeof(struct vring_desc), i = 0, steps = 0;

        if (length == 0 || length % sizeof(struct vring_desc) || n > SEGMENTS_MAX) {
                chain_unending(chain->req);
                return;
        }
        for (;;) {
                struct vring_desc d;
                uint16_t flags;

                if (i >= n || steps++ >= n ||
                    memory_read(chain->req->memory, table + i * sizeof(d), &d, sizeof(d)) < 0) {
                        chain_unending(chain->req);
                        return;
                }
                flags = le16toh(d.flags);
                if (flags & VRING_DESC_F_INDIRECT) {
                        chain_unending(chain->req);
                        return;
                }
                chain_add(chain, le64toh(d.addr), le32toh(d.len), flags & VRING_DESC_F_WRITE);
                if (!(flags & VRING_DESC_F_NEXT))
                        return;
                i = le16toh(d.next);
        }
}

static void walk(struct queue *queue, struct vhost_req *req, uint16_t head)
{
        unsigned i = head, steps = 0;
        struct chain chain;

        chain_begin(&chain, req);
        for (;;) {
                struct vring_desc d;
                uint16_t flags;

                if (i >= queue->size || steps++ >= queue->size) {
                        chain_unending(req);
                        return;
                }
                copy_desc(&d, &queue->split.desc[i]);
                flags = le16toh(d.flags);
                if (flags & VRING_DESC_F_INDIRECT) {
                        if ((flags & VRING_DESC_F_NEXT) ||
                            !client_has(queue->client, VIRTIO_RING_F_INDIRECT_DESC))
                                chain_unending(req);
                        else
                                walk_indirect(&chain, le64toh(d.addr), le32toh(d.len));
                        return;
                }
                chain_add(&chain, le64toh(d.addr), le32toh(d.len), flags & VRING_DESC_F_WRITE);
                if (!(flags & VRING_DESC_F_NEXT))
                        return;
                i = le16toh(d.next);
        }
}

static bool split_has_work(const struct queue *queue)
{
        return queue->at_resubmit < queue->n_resubmit ||
               ring_load16(&queue->split.avail->idx) != queue->last_avail;
}

static int next_head(struct queue *queue, uint16_t *ret_head, struct error *err)
{
        uint16_t n, head;

        if (queue->at_resubmit < queue->n_resubmit) {
                *ret_head = queue->resubmit[queue->at_resubmit++];
                return 1;
        }
        n = (uint16_t)(ring_load16(&queue->split.avail->idx) - queue->last_avail);
        if (n == 0)
                return 0;
        if (n > queue->size)
                return error_set(err, -EPROTO,
                                 "its available index is %u further on, and it has %u descriptors",
                                 n, queue->size);
        head = ring_load16(&queue->split.avail->ring[queue->last_avail & (queue->size - 1)]);
        if (head >= queue->size || queue->head_busy[head])
                return error_set(err, -EPROTO, "descriptor %u was made available, which %s", head,
                                 head >= queue->size ? "there is not" : "is in flight already");
        inflight_split_begin(queue, head);
        queue->last_avail++;
        *ret_head = head;
        return 1;
}

static int split_pop(struct queue *queue, struct vhost_req *req, struct error *err)
{
        uint16_t head = 0;
        int r = next_head(queue, &head, err);

        if (r <= 0)
                return r;
        queue->head_busy[head] = true;
        req->head = head;
        walk(queue, req, head);
        return 1;
}

/* ---- giving back ---- */

/* Section 2.7.7.2: the driver asks for silence by a flag, or for a signal at an index. */
static bool must_signal(struct queue *queue, uint16_t before)
{
        bool first = !queue->signalled;

        /* What was stored above must be seen before what the driver wants is looked at: it stores
         * that first and looks at the index second. */
        atomic_thread_fence(memory_order_seq_cst);
        queue->signalled = true;
        if (!queue->event_idx)
                return !(ring_load16(&queue->split.avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
        return first || vring_need_event(ring_load16(used_event(queue)), queue->last_used, before);
}

static bool split_publish(struct queue *queue)
{
        struct vring_used *used = queue->split.used;
        uint16_t before = queue->last_used;

        list_for_each (it, &queue->done) {
                const struct vhost_req *req = container_of(it, struct vhost_req, link);
                struct vring_used_elem *e = &used->ring[queue->last_used & (queue->size - 1)];

                e->id = htole32(req->head);
                e->len = htole32(req->used_bytes);
                log_used(queue, e, sizeof(*e));
                inflight_split_batch(queue, req->head);
                queue->head_busy[req->head] = false;
                queue->last_used++;
        }
        ring_store16(&used->idx, queue->last_used);
        log_used(queue, used, sizeof(*used));
        inflight_split_end(queue);
        return must_signal(queue, before);
}

static void split_notify(struct queue *queue, bool on)
{
        struct vring_used *used = queue->split.used;

        if (queue->event_idx) {
                /* Off is the index of before, which the driver has passed. */
                if (on) {
                        ring_store16(avail_event(queue), queue->last_avail);
                        log_used(queue, avail_event(queue), sizeof(uint16_t));
                }
        } else {
                ring_store16(&used->flags, on ? 0 : VRING_USED_F_NO_NOTIFY);
                log_used(queue, used, sizeof(*used));
        }
        /* Before the available index is looked at again. */
        if (on)
                atomic_thread_fence(memory_order_seq_cst);
}

static uint32_t split_base(const struct queue *queue)
{
        return queue->last_avail;
}

const struct ring_ops split_ops = {
    .translate = split_translate,
    .start = split_start,
    .has_work = split_has_work,
    .pop = split_pop,
    .publish = split_publish,
    .notify = split_notify,
    .base = split_base,
};
