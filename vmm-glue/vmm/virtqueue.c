/* virtqueue.c - split rings: VIRTIO 1.2, section 2.7. */
#include "vmm-glue/vmm/virtqueue.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "vmm-glue/vmm/machine.h"

static uint16_t load16(const void *from)
{
        return le16toh(__atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE));
}

static void store16(const struct virtqueue *vq, void *to, uint16_t value)
{
        __atomic_store_n((uint16_t *)to, htole16(value), __ATOMIC_RELEASE);
        memory_mark(&vq->v->machine->memory, to, sizeof(value));
}

/* Section 2.7.10: behind the rings. */
static uint16_t *used_event(const struct virtqueue *vq)
{
        return &vq->available->ring[vq->queue->size];
}

static uint16_t *available_event(const struct virtqueue *vq)
{
        return (uint16_t *)&vq->used->ring[vq->queue->size];
}

int virtqueue_start(struct virtqueue *vq, struct virtio_device *v, unsigned index,
                    struct error *err)
{
        const struct guest_memory *memory = &v->machine->memory;
        struct virtio_queue *queue = &v->queues[index];
        uint64_t n = queue->size;

        *vq = (struct virtqueue){
            .v = v,
            .queue = queue,
            .event_idx = v->features & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX,
            .indirect = v->features & UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC,
            .flushed = queue->next_used,
        };
        if (!queue->enabled)
                return 0;
        vq->descriptors = guest_range(memory, queue->descriptors, n * sizeof(struct vring_desc));
        vq->available = guest_range(memory, queue->available,
                                    sizeof(struct vring_avail) + (n + 1) * sizeof(uint16_t));
        vq->used = guest_range(memory, queue->used,
                               sizeof(struct vring_used) + n * sizeof(struct vring_used_elem) +
                                   sizeof(uint16_t));
        if (!vq->descriptors || !vq->available || !vq->used)
                return error_set(err, -EFAULT, "the rings of queue %u of %s are not in RAM", index,
                                 v->id);
        virtqueue_want_kicks(vq);
        return 0;
}

static void broken(struct virtqueue *vq, const char *how)
{
        virtio_log(vq->v, "queue %u: %s", (unsigned)(vq->queue - vq->v->queues), how);
        vq->broken = true;
        virtio_needs_reset(vq->v);
}

/* ---- descriptors into pieces ---- */

/* The longest part of @length bytes at @gpa that lies in one region of RAM. */
static void *range_part(const struct guest_memory *memory, uint64_t gpa, uint64_t *length)
{
        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];
                uint64_t offset = gpa - region->gpa;

                if (gpa < region->gpa || offset >= region->size)
                        continue;
                if (*length > region->size - offset)
                        *length = region->size - offset;
                return guest_range(memory, gpa, *length);
        }
        return NULL;
}

/* NULL: it went well. */
static const char *add_pieces(struct virtqueue *vq, struct virtqueue_chain *chain,
                              const struct vring_desc *d)
{
        uint64_t gpa = le64toh(d->addr), left = le32toh(d->len);
        bool writable = le16toh(d->flags) & VRING_DESC_F_WRITE;

        if (!writable && chain->n_in > 0)
                return "a readable descriptor behind a writable one";
        while (left > 0) {
                unsigned n = chain->n_out + chain->n_in;
                uint64_t here = left;
                void *start = range_part(&vq->v->machine->memory, gpa, &here);

                if (!start)
                        return "a descriptor of what is not RAM";
                if (n == VIRTQUEUE_PIECES_MAX)
                        return "a chain of too many pieces";
                chain->iov[n] = (struct iovec){start, here};
                if (writable) {
                        chain->n_in++;
                        chain->in_bytes += here;
                } else {
                        chain->n_out++;
                        chain->out_bytes += here;
                }
                gpa += here;
                left -= here;
        }
        return NULL;
}

/* An indirect table may lie anywhere, also unaligned. */
static struct vring_desc copy_descriptor(const uint8_t *table, unsigned at)
{
        struct vring_desc d;

        memcpy(&d, table + at * sizeof(d), sizeof(d));
        /* What was copied is not looked up again where it came from. */
        atomic_signal_fence(memory_order_seq_cst);
        return d;
}

/* Along a table of @n, from @at on: the ring's, or an indirect one of section 2.7.5.3. Sets *ret_indirect
 * where the chain goes on in such. */
static const char *walk(struct virtqueue *vq, struct virtqueue_chain *chain, const uint8_t *table,
                        unsigned n, unsigned at, struct vring_desc *ret_indirect)
{
        for (unsigned steps = 0; steps < n; steps++) {
                struct vring_desc d;
                const char *how;
                uint16_t flags;

                if (at >= n)
                        return "a chain leads out of its table";
                d = copy_descriptor(table, at);
                flags = le16toh(d.flags);
                if (flags & VRING_DESC_F_INDIRECT) {
                        if (!ret_indirect || !vq->indirect || (flags & VRING_DESC_F_NEXT))
                                return "an indirect table where none may be";
                        *ret_indirect = d;
                        return NULL;
                }
                how = add_pieces(vq, chain, &d);
                if (how || !(flags & VRING_DESC_F_NEXT))
                        return how;
                at = le16toh(d.next);
        }
        return "a chain without an end";
}

static const char *walk_indirect(struct virtqueue *vq, struct virtqueue_chain *chain,
                                 const struct vring_desc *d)
{
        uint32_t length = le32toh(d->len), n = length / (uint32_t)sizeof(*d);
        const uint8_t *table;

        if (length == 0 || length % sizeof(*d) || n > VIRTQUEUE_PIECES_MAX)
                return "an indirect table of a wrong size";
        table = guest_range(&vq->v->machine->memory, le64toh(d->addr), length);
        if (!table)
                return "an indirect table that is not in RAM";
        return walk(vq, chain, table, n, 0, NULL);
}

bool virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
        struct virtio_queue *queue = vq->queue;
        struct vring_desc indirect = {0};
        uint16_t n_there;
        const char *how;

        if (vq->broken || !vq->available)
                return false;
        n_there = (uint16_t)(load16(&vq->available->idx) - queue->next_available);
        if (n_there == 0)
                return false;
        if (n_there > queue->size) {
                broken(vq, "more is available than there is room for");
                return false;
        }
        chain->head = load16(&vq->available->ring[queue->next_available & (queue->size - 1)]);
        chain->n_out = chain->n_in = 0;
        chain->out_bytes = chain->in_bytes = 0;
        how =
            walk(vq, chain, (const uint8_t *)vq->descriptors, queue->size, chain->head, &indirect);
        if (!how && indirect.flags)
                how = walk_indirect(vq, chain, &indirect);
        if (how) {
                broken(vq, how);
                return false;
        }
        queue->next_available++;
        return true;
}

void virtqueue_unpop(struct virtqueue *vq)
{
        vq->queue->next_available--;
}

/* ---- giving back ---- */

void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written)
{
        struct virtio_queue *queue = vq->queue;
        const struct vring_used_elem element = {htole32(head), htole32(written)};
        struct vring_used_elem *to = &vq->used->ring[queue->next_used & (queue->size - 1)];

        memcpy(to, &element, sizeof(element));
        memory_mark(&vq->v->machine->memory, to, sizeof(element));
        queue->next_used++;
}

void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written)
{
        size_t left = written;

        for (unsigned i = 0; i < chain->n_in && left > 0; i++) {
                const struct iovec *piece = &chain->iov[chain->n_out + i];
                size_t here = piece->iov_len < left ? piece->iov_len : left;

                memory_mark(&vq->v->machine->memory, piece->iov_base, here);
                left -= here;
        }
        virtqueue_push_head(vq, chain->head, written);
}

static bool wants_interrupt(const struct virtqueue *vq, uint16_t before)
{
        /* The index is to be seen before the driver's wish is looked at, as it looks at the index after
         * it has written the wish. */
        atomic_thread_fence(memory_order_seq_cst);
        if (vq->event_idx)
                return vring_need_event(load16(used_event(vq)), vq->queue->next_used, before);
        return !(load16(&vq->available->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

void virtqueue_flush(struct virtqueue *vq)
{
        uint16_t before = vq->flushed;

        if (vq->queue->next_used == before)
                return;
        store16(vq, &vq->used->idx, vq->queue->next_used);
        vq->flushed = vq->queue->next_used;
        if (wants_interrupt(vq, before))
                virtio_signal(vq->queue);
}

/* ---- kicks: sections 2.7.7 and 2.7.10 ---- */

bool virtqueue_want_kicks(struct virtqueue *vq)
{
        if (!vq->used)
                return false;
        if (vq->event_idx)
                store16(vq, available_event(vq), vq->queue->next_available);
        else
                store16(vq, &vq->used->flags, 0);
        atomic_thread_fence(memory_order_seq_cst);
        return !vq->broken && load16(&vq->available->idx) != vq->queue->next_available;
}

void virtqueue_want_no_kicks(struct virtqueue *vq)
{
        /* With EVENT_IDX what was written last lies behind already. */
        if (vq->used && !vq->event_idx)
                store16(vq, &vq->used->flags, VRING_USED_F_NO_NOTIFY);
}

/* ---- copying ---- */

size_t virtqueue_gather(const struct iovec *iov, unsigned n, size_t skip, void *data, size_t size)
{
        size_t done = 0;

        for (unsigned i = 0; i < n && done < size; i++) {
                size_t here = iov[i].iov_len;

                if (skip >= here) {
                        skip -= here;
                        continue;
                }
                here -= skip;
                if (here > size - done)
                        here = size - done;
                memcpy((uint8_t *)data + done, (const uint8_t *)iov[i].iov_base + skip, here);
                skip = 0;
                done += here;
        }
        atomic_signal_fence(memory_order_seq_cst);
        return done;
}

size_t virtqueue_scatter(const struct iovec *iov, unsigned n, size_t skip, const void *data,
                         size_t size)
{
        size_t done = 0;

        for (unsigned i = 0; i < n && done < size; i++) {
                size_t here = iov[i].iov_len;

                if (skip >= here) {
                        skip -= here;
                        continue;
                }
                here -= skip;
                if (here > size - done)
                        here = size - done;
                memcpy((uint8_t *)iov[i].iov_base + skip, (const uint8_t *)data + done, here);
                skip = 0;
                done += here;
        }
        return done;
}
