/* packed.c - packed virtqueues: VIRTIO 1.2, section 2.8. Of the front end's addresses, "descriptor"
 * is the ring, "available" the driver's event suppression and "used" the device's. */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "vmm-glue/vhost-user/internal.h"

#define DESC_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define DESC_USED  (1u << VRING_PACKED_DESC_F_USED)
#define WRAP_BIT   (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

static int packed_translate(struct queue *queue, struct error *err)
{
        const struct vhost_vring_addr *a = &queue->addr;
        const struct memory *memory = queue->client->memory;

        if ((a->descriptor & 15) || (a->available & 3) || (a->used & 3))
                return error_set(err, -EINVAL, "its rings are not aligned");
        queue->packed.desc = (void *)memory_at_user(memory, a->descriptor,
                                                    queue->size * sizeof(struct vring_packed_desc));
        queue->packed.driver =
            (void *)memory_at_user(memory, a->available, sizeof(struct vring_packed_desc_event));
        queue->packed.device =
            (void *)memory_at_user(memory, a->used, sizeof(struct vring_packed_desc_event));
        if (!queue->packed.desc || !queue->packed.driver || !queue->packed.device)
                return error_set(err, -EFAULT, "its rings are not in the guest's memory");
        if (parts_overlap(a->used, sizeof(struct vring_packed_desc_event), a->available,
                          sizeof(struct vring_packed_desc_event)) ||
            parts_overlap(a->used, sizeof(struct vring_packed_desc_event), a->descriptor,
                          queue->size * sizeof(struct vring_packed_desc)))
                return error_set(err, -EINVAL, "its device area lies over what the driver writes");
        return 0;
}

static void advance(const struct queue *queue, uint16_t *place, bool *wrap, unsigned n)
{
        unsigned next = *place + n;

        if (next >= queue->size) {
                next -= queue->size;
                *wrap = !*wrap;
        }
        *place = (uint16_t)next;
}

/* The base has the place of the next available descriptor in its lower half, and of the next used
 * one in its upper, each with its wrap counter. A ring that was drained has both at one place: front
 * ends that send the lower half only mean the same. */
static int packed_start(struct queue *queue, struct error *err)
{
        bool recovered = false;
        int r;

        queue->last_avail = (uint16_t)(queue->base & (WRAP_BIT - 1));
        queue->avail_wrap = queue->base & WRAP_BIT;
        if (!queue->has_base) /* as the driver begins */
                queue->avail_wrap = true;
        if (queue->last_avail >= queue->size)
                return error_set(err, -EINVAL, "its ring goes on at %u, and it has %u descriptors",
                                 queue->last_avail, queue->size);
        queue->last_used = queue->last_avail;
        queue->used_wrap = queue->avail_wrap;
        r = inflight_recover_packed(queue, &recovered);
        if (r < 0)
                return error_set(err, r, "no memory for what it has in flight");
        if (!recovered)
                return 0;
        /* last_used is the region's now; what is in flight lies between the two. */
        queue->last_avail = queue->last_used;
        queue->avail_wrap = queue->used_wrap;
        for (unsigned i = 0; i < queue->n_resubmit; i++)
                advance(queue, &queue->last_avail, &queue->avail_wrap,
                        inflight_packed_length(queue, queue->resubmit[i]));
        return 0;
}

/* ---- taking ---- */

static bool is_available(const struct queue *queue)
{
        uint16_t flags = ring_load16(&queue->packed.desc[queue->last_avail].flags);

        return !!(flags & DESC_AVAIL) == queue->avail_wrap &&
               !!(flags & DESC_USED) != queue->avail_wrap;
}

static bool packed_has_work(const struct queue *queue)
{
        return queue->at_resubmit < queue->n_resubmit || is_available(queue);
}

/* Section 2.8.8: all of the table is the chain; of the flags only WRITE means anything. */
static void walk_indirect(struct chain *chain, uint64_t table, uint32_t length)
{
        unsigned n = length / (unsigned)sizeof(struct vring_packed_desc);

        if (length == 0 || length % sizeof(struct vring_packed_desc) || n > SEGMENTS_MAX) {
                chain_unending(chain->req);
                return;
        }
        for (unsigned i = 0; i < n; i++) {
                struct vring_packed_desc d;
                uint16_t flags;

                if (memory_read(chain->req->memory, table + i * sizeof(d), &d, sizeof(d)) < 0) {
                        chain_unending(chain->req);
                        return;
                }
                flags = le16toh(d.flags);
                if (flags & VRING_DESC_F_INDIRECT) {
                        chain_unending(chain->req);
                        return;
                }
                chain_add(chain, le64toh(d.addr), le32toh(d.len), flags & VRING_DESC_F_WRITE);
        }
}

static void walk(struct queue *queue, struct vhost_req *req, const struct vring_packed_desc *descs,
                 unsigned n)
{
        struct chain chain;

        chain_begin(&chain, req);
        for (unsigned i = 0; i < n; i++) {
                uint16_t flags = le16toh(descs[i].flags);

                if (!(flags & VRING_DESC_F_INDIRECT)) {
                        chain_add(&chain, le64toh(descs[i].addr), le32toh(descs[i].len),
                                  flags & VRING_DESC_F_WRITE);
                } else if (n > 1 || !client_has(queue->client, VIRTIO_RING_F_INDIRECT_DESC)) {
                        chain_unending(req);
                        return;
                } else {
                        walk_indirect(&chain, le64toh(descs[i].addr), le32toh(descs[i].len));
                }
        }
}

/* One chain from the ring, copied; 0 where it does not end. */
static unsigned copy_chain(const struct queue *queue, struct vring_packed_desc *descs)
{
        unsigned place = queue->last_avail;

        for (unsigned n = 0; n < queue->size; place = (place + 1) % queue->size) {
                memcpy(&descs[n], &queue->packed.desc[place], sizeof(descs[n]));
                /* What was copied is not looked up again where it came from. */
                atomic_signal_fence(memory_order_seq_cst);
                if (!(le16toh(descs[n++].flags) & VRING_DESC_F_NEXT))
                        return n;
        }
        return 0;
}

/* As the region has it: the ring's places may have been used again. */
static unsigned copy_inflight(struct queue *queue, struct vhost_req *req,
                              struct vring_packed_desc *descs)
{
        const struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t entry = queue->resubmit[queue->at_resubmit++];
        unsigned n = 0;

        req->entry = entry;
        for (;;) {
                const struct vhost_desc_state_packed *e = &region->desc[entry];

                descs[n++] = (struct vring_packed_desc){.addr = htole64(e->addr),
                                                        .len = htole32(e->len),
                                                        .id = htole16(e->id),
                                                        .flags = htole16(e->flags)};
                if (entry == queue->inflight_last[req->entry])
                        return n;
                entry = queue->inflight_next[entry];
        }
}

static int packed_pop(struct queue *queue, struct vhost_req *req, struct error *err)
{
        struct vring_packed_desc descs[QUEUE_SIZE_MAX];
        unsigned n;
        int r;

        if (queue->at_resubmit < queue->n_resubmit) {
                n = copy_inflight(queue, req, descs);
        } else {
                if (!is_available(queue))
                        return 0;
                n = copy_chain(queue, descs);
                if (n == 0)
                        return error_set(err, -EPROTO, "a chain in its ring has no end");
                r = inflight_packed_begin(queue, req, descs, n);
                if (r < 0)
                        return error_set(err, -EPROTO,
                                         "it made more available than its ring has room for");
                advance(queue, &queue->last_avail, &queue->avail_wrap, n);
        }
        req->n_descs = (uint16_t)n;
        req->head = le16toh(descs[n - 1].id); /* the last one has the buffer's id */
        walk(queue, req, descs, n);
        return 1;
}

/* ---- giving back ---- */

static bool must_signal(struct queue *queue, unsigned n)
{
        struct vring_packed_desc_event event;
        bool first = !queue->signalled;
        uint16_t flags, at;

        /* What was stored above must be seen before what the driver wants is looked at: it stores
         * that first and looks at the descriptors second. */
        atomic_thread_fence(memory_order_seq_cst);
        event.flags = ring_load16(&queue->packed.driver->flags);
        event.off_wrap = ring_load16(&queue->packed.driver->off_wrap);
        queue->signalled = true;
        flags = event.flags & 3u;
        if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
                return false;
        if (flags != VRING_PACKED_EVENT_FLAG_DESC || !queue->event_idx || first)
                return true;
        /* Places of the round before this one are below it. */
        at = event.off_wrap & (WRAP_BIT - 1);
        if (!!(event.off_wrap & WRAP_BIT) != queue->used_wrap)
                at = (uint16_t)(at - queue->size);
        return vring_need_event(at, queue->last_used, (uint16_t)(queue->last_used - n));
}

static void log_ring(struct queue *queue, const void *at, size_t length)
{
        if (queue->log_ring)
                dirty_host(queue->client, queue->client->memory, at, length);
}

/* The first element's flags are stored last: the driver sees all of the batch or nothing, and so
 * does who reads the in-flight region after a crash. */
static bool packed_publish(struct queue *queue)
{
        struct vring_packed_desc *ring = queue->packed.desc, *first = NULL;
        uint16_t first_flags = 0;
        unsigned n = 0;

        list_for_each (it, &queue->done)
                inflight_packed_batch(queue, container_of(it, struct vhost_req, link));
        list_for_each (it, &queue->done) {
                const struct vhost_req *req = container_of(it, struct vhost_req, link);
                struct vring_packed_desc *d = &ring[queue->last_used];
                uint16_t flags = queue->used_wrap ? DESC_AVAIL | DESC_USED : 0;

                if (req->used_bytes)
                        flags |= VRING_DESC_F_WRITE;
                d->id = htole16(req->head);
                d->len = htole32(req->used_bytes);
                if (first)
                        ring_store16(&d->flags, flags);
                else
                        first = d, first_flags = flags;
                if (d != first)
                        log_ring(queue, d, sizeof(*d));
                advance(queue, &queue->last_used, &queue->used_wrap, req->n_descs);
                n += req->n_descs;
        }
        inflight_packed_commit(queue);
        ring_store16(&first->flags, first_flags);
        log_ring(queue, first, sizeof(*first));
        inflight_packed_end(queue);
        return must_signal(queue, n);
}

static void packed_notify(struct queue *queue, bool on)
{
        struct vring_packed_desc_event *device = queue->packed.device;

        if (!on) {
                ring_store16(&device->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
        } else if (queue->event_idx) {
                ring_store16(&device->off_wrap,
                             queue->last_avail | (queue->avail_wrap ? WRAP_BIT : 0));
                ring_store16(&device->flags, VRING_PACKED_EVENT_FLAG_DESC);
        } else {
                ring_store16(&device->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
        }
        if (queue->log_ring)
                dirty_guest(queue->client, queue->addr.log, sizeof(*device));
        /* Before the ring is looked at again. */
        if (on)
                atomic_thread_fence(memory_order_seq_cst);
}

static uint32_t packed_base(const struct queue *queue)
{
        uint32_t avail = queue->last_avail | (queue->avail_wrap ? WRAP_BIT : 0);
        uint32_t used = queue->last_used | (queue->used_wrap ? WRAP_BIT : 0);

        return avail | used << 16;
}

const struct ring_ops packed_ops = {
    .translate = packed_translate,
    .start = packed_start,
    .has_work = packed_has_work,
    .pop = packed_pop,
    .publish = packed_publish,
    .notify = packed_notify,
    .base = packed_base,
};
