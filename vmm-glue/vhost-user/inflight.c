/* inflight.c - the in-flight region: what the device has taken from a ring and not given back yet,
 * in memory that the front end keeps while servers come and go. Source: vhost-user.rst, section
 * "Inflight I/O tracking", whose order of marks is the one here.
 *
 * The server may be killed between any two stores; what counts is their order, which the release
 * stores below keep. The front end may write to the region at any time: it is read once, at the
 * start of a queue, with every field checked, and never again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "vmm-glue/vhost-user/internal.h"

#define NO_ENTRY QUEUE_SIZE_MAX

#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)
/* Once: what was checked is what is used. */
#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

uint64_t inflight_queue_bytes(unsigned queue_size)
{
        uint64_t bytes = sizeof(struct vhost_region_packed) +
                         queue_size * sizeof(struct vhost_desc_state_packed);

        static_assert(sizeof(struct vhost_region_packed) >= sizeof(struct vhost_region_split) &&
                          sizeof(struct vhost_desc_state_packed) >=
                              sizeof(struct vhost_desc_state_split),
                      "either kind fits");
        return (bytes + 63) / 64 * 64;
}

static uint8_t *queue_part(const struct queue *queue)
{
        const struct vhost_client *client = queue->client;
        const struct vhost_inflight *is = &client->inflight_is;

        if (!client->inflight.base || queue->index >= is->n_queues)
                return NULL;
        return client->inflight.start + is->mmap_size / is->n_queues / 8 * 8 * queue->index;
}

bool inflight_has_state(const struct queue *queue)
{
        const struct vhost_region_split *region = (const void *)queue_part(queue);

        static_assert(offsetof(struct vhost_region_split, version) ==
                          offsetof(struct vhost_region_packed, version),
                      "in one place");
        return region && region->version == VHOST_INFLIGHT_VERSION;
}

void inflight_forget(struct queue *queue)
{
        struct vhost_region_split *region = (void *)queue_part(queue);

        if (region)
                STORE(region->version, 0);
}

int inflight_attach(struct queue *queue, struct error *err)
{
        uint8_t *part = queue_part(queue);

        queue->resubmit = calloc(queue->size, sizeof(*queue->resubmit));
        queue->inflight_next = calloc(queue->size, sizeof(*queue->inflight_next));
        queue->inflight_last = calloc(queue->size, sizeof(*queue->inflight_last));
        if (!queue->resubmit || !queue->inflight_next || !queue->inflight_last)
                return error_set(err, -ENOMEM, "no memory for what it has in flight");
        if (!part)
                return 0;
        if (queue->size > queue->client->inflight_is.queue_size)
                return error_set(err, -EINVAL,
                                 "its in-flight region is for rings of %u descriptors, not %u",
                                 queue->client->inflight_is.queue_size, queue->size);
        if (client_has(queue->client, VIRTIO_F_RING_PACKED))
                queue->inflight_packed = (void *)part;
        else
                queue->inflight_split = (void *)part;
        return 0;
}

void inflight_detach(struct queue *queue)
{
        free(queue->resubmit);
        free(queue->inflight_next);
        free(queue->inflight_last);
        queue->resubmit = queue->inflight_next = queue->inflight_last = NULL;
        queue->n_resubmit = queue->at_resubmit = 0;
        queue->inflight_packed = NULL;
        queue->inflight_split = NULL;
}

struct candidate {
        uint64_t counter;
        uint16_t entry;
};

static int by_counter(const void *a, const void *b)
{
        const struct candidate *x = a, *y = b;

        return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static void take_candidates(struct queue *queue, struct candidate *found, unsigned n)
{
        qsort(found, n, sizeof(*found), by_counter);
        for (unsigned i = 0; i < n; i++)
                queue->resubmit[i] = found[i].entry;
        queue->n_resubmit = n;
        queue->at_resubmit = 0;
        queue->inflight_counter = n > 0 ? found[n - 1].counter + 1 : 0;
}

static void nothing_of_use(const struct queue *queue)
{
        if (inflight_has_state(queue) && vhost_may_log(queue->client->device->server))
                log_warning("vhost: %s: the in-flight region of queue %u makes no sense, and is "
                            "begun anew",
                            queue->client->device->name, queue->index);
}

/* ---- split ---- */

static void split_reset(struct queue *queue, uint16_t ring_used)
{
        struct vhost_region_split *region = queue->inflight_split;

        STORE(region->version, 0);
        memset(region->desc, 0, queue->size * sizeof(region->desc[0]));
        region->features = 0;
        region->desc_num = (uint16_t)queue->size;
        region->last_batch_head = 0;
        region->used_idx = ring_used;
        STORE(region->version, VHOST_INFLIGHT_VERSION);
}

/* The last batch was given back and its marks were not all taken away. */
static bool finish_batch(struct queue *queue, uint16_t ring_used)
{
        struct vhost_region_split *region = queue->inflight_split;
        uint16_t n = (uint16_t)(ring_used - LOAD(region->used_idx)),
                 at = LOAD(region->last_batch_head);

        if (n > queue->size)
                return false;
        for (; n > 0; n--) {
                if (at >= queue->size)
                        return false;
                STORE(region->desc[at].inflight, 0);
                at = LOAD(region->desc[at].next);
        }
        STORE(region->used_idx, ring_used);
        return true;
}

int inflight_recover_split(struct queue *queue, uint16_t ring_used, bool *ret_valid)
{
        struct vhost_region_split *region = queue->inflight_split;
        struct candidate *found;
        unsigned n = 0;

        *ret_valid = false;
        if (!region)
                return 0;
        if (region->version != VHOST_INFLIGHT_VERSION || region->desc_num != queue->size ||
            !finish_batch(queue, ring_used)) {
                nothing_of_use(queue);
                split_reset(queue, ring_used);
                return 0;
        }
        found = calloc(queue->size, sizeof(*found));
        if (!found)
                return -ENOMEM;
        for (unsigned i = 0; i < queue->size; i++)
                if (region->desc[i].inflight)
                        found[n++] = (struct candidate){LOAD(region->desc[i].counter), (uint16_t)i};
        take_candidates(queue, found, n);
        free(found);
        queue->inflight_batch = region->last_batch_head;
        *ret_valid = true;
        return 0;
}

void inflight_split_begin(struct queue *queue, uint16_t head)
{
        struct vhost_region_split *region = queue->inflight_split;

        if (!region)
                return;
        STORE(region->desc[head].counter, queue->inflight_counter++);
        STORE(region->desc[head].inflight, 1);
}

void inflight_split_batch(struct queue *queue, uint16_t head)
{
        struct vhost_region_split *region = queue->inflight_split;

        if (!region)
                return;
        STORE(region->desc[head].next, queue->inflight_batch);
        STORE(region->last_batch_head, head);
        queue->inflight_batch = head;
}

void inflight_split_end(struct queue *queue)
{
        struct vhost_region_split *region = queue->inflight_split;

        if (!region)
                return;
        list_for_each (it, &queue->done)
                STORE(region->desc[container_of(it, struct vhost_req, link)->head].inflight, 0);
        STORE(region->used_idx, queue->last_used);
}

/* ---- packed ---- */

unsigned inflight_packed_length(const struct queue *queue, uint16_t entry)
{
        unsigned n = 1;

        for (uint16_t at = entry; at != queue->inflight_last[entry]; at = queue->inflight_next[at])
                n++;
        return n;
}

/* All entries that @busy does not name become the free list, here and in the region. At any moment
 * of it the region's list leads to free entries only, whose marks are gone. */
static void make_free_list(struct queue *queue, const bool *busy)
{
        struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t before = NO_ENTRY;

        for (unsigned i = 0; region && i < queue->size; i++)
                if (!busy[i])
                        STORE(region->desc[i].inflight, 0);
        for (unsigned i = queue->size; i-- > 0;) {
                if (busy[i])
                        continue;
                queue->inflight_next[i] = before;
                if (region)
                        STORE(region->desc[i].next, before);
                before = (uint16_t)i;
        }
        queue->inflight_free = before;
        if (region) {
                STORE(region->free_head, before);
                STORE(region->old_free_head, before);
        }
}

/* Section "Inflight I/O tracking", reconnecting with a packed ring: is the last batch with the
 * driver, or was it never? */
static bool settle_batch(struct queue *queue)
{
        struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t old_used = LOAD(region->old_used_idx), used = LOAD(region->used_idx), flags;
        bool old_wrap = LOAD(region->old_used_wrap_counter);
        bool wrap = LOAD(region->used_wrap_counter), unused;

        if (old_used >= queue->size || used >= queue->size)
                return false;
        if (used != old_used || wrap != old_wrap) {
                flags =
                    le16toh(__atomic_load_n(&queue->packed.desc[old_used].flags, __ATOMIC_ACQUIRE));
                unused = !!(flags & (1u << VRING_PACKED_DESC_F_AVAIL)) == old_wrap &&
                         !!(flags & (1u << VRING_PACKED_DESC_F_USED)) != old_wrap;
                if (!unused) {
                        STORE(region->old_free_head, LOAD(region->free_head));
                        STORE(region->old_used_idx, used);
                        STORE(region->old_used_wrap_counter, wrap);
                        old_used = used;
                        old_wrap = wrap;
                }
        }
        STORE(region->free_head, LOAD(region->old_free_head));
        STORE(region->used_idx, old_used);
        STORE(region->used_wrap_counter, old_wrap);
        queue->last_used = old_used;
        queue->used_wrap = old_wrap;
        return true;
}

/* The chain that begins at @head, into our own lists and @busy. */
static bool take_chain(struct queue *queue, uint16_t head, bool *busy)
{
        const struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t n = LOAD(region->desc[head].num), at = head;

        if (n == 0 || n > queue->size)
                return false;
        for (;;) {
                uint16_t next = LOAD(region->desc[at].next);

                if (busy[at])
                        return false;
                busy[at] = true;
                if (--n == 0)
                        break;
                if (next >= queue->size)
                        return false;
                queue->inflight_next[at] = next;
                at = next;
        }
        queue->inflight_last[head] = at;
        return true;
}

static bool find_chains(struct queue *queue, struct candidate *found, unsigned *ret_n, bool *busy)
{
        const struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t at = LOAD(region->free_head);

        /* What is in the free list was given back, whatever its mark says. */
        for (unsigned steps = 0; at < queue->size && steps < queue->size; steps++) {
                busy[at] = true;
                at = LOAD(region->desc[at].next);
        }
        *ret_n = 0;
        for (unsigned i = 0; i < queue->size; i++)
                if (region->desc[i].inflight && !busy[i])
                        found[(*ret_n)++] =
                            (struct candidate){LOAD(region->desc[i].counter), (uint16_t)i};
        memset(busy, 0, queue->size * sizeof(*busy));
        for (unsigned i = 0; i < *ret_n; i++)
                if (!take_chain(queue, found[i].entry, busy))
                        return false;
        return true;
}

static void packed_reset(struct queue *queue)
{
        struct vhost_region_packed *region = queue->inflight_packed;

        if (!region)
                return;
        STORE(region->version, 0);
        memset(region->desc, 0, queue->size * sizeof(region->desc[0]));
        region->features = 0;
        region->desc_num = (uint16_t)queue->size;
        region->used_idx = region->old_used_idx = queue->last_used;
        region->used_wrap_counter = region->old_used_wrap_counter = queue->used_wrap;
}

int inflight_recover_packed(struct queue *queue, bool *ret_valid)
{
        struct vhost_region_packed *region = queue->inflight_packed;
        struct candidate *found = calloc(queue->size, sizeof(*found));
        bool *busy = calloc(queue->size, sizeof(*busy));
        uint16_t used = queue->last_used;
        bool wrap = queue->used_wrap;
        unsigned n = 0;

        *ret_valid = false;
        if (!found || !busy) {
                free(found);
                free(busy);
                return -ENOMEM;
        }
        if (region && region->version == VHOST_INFLIGHT_VERSION &&
            region->desc_num == queue->size && settle_batch(queue) &&
            find_chains(queue, found, &n, busy)) {
                take_candidates(queue, found, n);
                *ret_valid = true;
        } else {
                if (region)
                        nothing_of_use(queue);
                queue->last_used = used;
                queue->used_wrap = wrap;
                memset(busy, 0, queue->size * sizeof(*busy));
                packed_reset(queue);
        }
        make_free_list(queue, busy);
        if (region)
                STORE(region->version, VHOST_INFLIGHT_VERSION);
        free(found);
        free(busy);
        return 0;
}

int inflight_packed_begin(struct queue *queue, struct vhost_req *req,
                          const struct vring_packed_desc *descs, unsigned n)
{
        struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t head = queue->inflight_free, at = head, last = head;

        for (unsigned i = 0; i < n; i++) {
                if (at == NO_ENTRY)
                        return -ENOSPC;
                if (region) {
                        struct vhost_desc_state_packed *e = &region->desc[at];

                        e->addr = le64toh(descs[i].addr);
                        e->len = le32toh(descs[i].len);
                        e->id = le16toh(descs[i].id);
                        e->flags = le16toh(descs[i].flags);
                }
                last = at;
                at = queue->inflight_next[at];
        }
        req->entry = head;
        queue->inflight_last[head] = last;
        queue->inflight_free = at;
        if (!region)
                return 0;
        region->desc[head].num = (uint16_t)n;
        region->desc[head].last = last;
        STORE(region->desc[head].counter, queue->inflight_counter++);
        STORE(region->desc[head].inflight, 1);
        /* From here on it is taken: until then the entry is in the free list. */
        STORE(region->free_head, at);
        STORE(region->old_free_head, at);
        return 0;
}

void inflight_packed_batch(struct queue *queue, const struct vhost_req *req)
{
        struct vhost_region_packed *region = queue->inflight_packed;
        uint16_t last = queue->inflight_last[req->entry];

        if (region) {
                STORE(region->desc[last].next, queue->inflight_free);
                STORE(region->free_head, req->entry);
        }
        queue->inflight_next[last] = queue->inflight_free;
        queue->inflight_free = req->entry;
}

/* The queue's place has been moved on, and the driver does not know yet. */
void inflight_packed_commit(struct queue *queue)
{
        struct vhost_region_packed *region = queue->inflight_packed;

        if (!region)
                return;
        STORE(region->used_idx, queue->last_used);
        STORE(region->used_wrap_counter, queue->used_wrap);
}

void inflight_packed_end(struct queue *queue)
{
        struct vhost_region_packed *region = queue->inflight_packed;

        if (!region)
                return;
        list_for_each (it, &queue->done)
                STORE(region->desc[container_of(it, struct vhost_req, link)->entry].inflight, 0);
        STORE(region->old_free_head, queue->inflight_free);
        STORE(region->old_used_idx, queue->last_used);
        STORE(region->old_used_wrap_counter, queue->used_wrap);
}
