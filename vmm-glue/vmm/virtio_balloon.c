/* virtio_balloon.c - memory that the guest gives back: VIRTIO 1.2, section 5.5. By being asked for it
 * (the balloon), and by itself, where it has it free (free page reporting).
 *
 * Pages that are given back are punched out of the memfd, and read as zeroes from then on: the guest
 * has none of them while they are in the balloon, and takes them out by just using them. Whatever it
 * says, it can only lose its own memory. Huge pages are the guest's for good (memory_discard()): the
 * balloon has no effect there.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/memory_size.h"
#include "vmm-glue/vmm/virtio.h"
#include "vmm-glue/vmm/virtqueue.h"
#include "vmm-glue/vmm/watch.h"

#define PAGE (UINT64_C(1) << VIRTIO_BALLOON_PFN_SHIFT)

/* Reports come by the first queue after those whose features both sides know; or by that of the number
 * that the standard gives: drivers differ. Nothing else uses queues from 2 on. */
enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_REPORT, QUEUES = 5 };

/* One call of the kernel a page, while the guest's other exits may have to wait. */
#define CHAINS_PER_TURN 8u
#define PFNS_PER_CHAIN  1024u /* Linux has 256; those beyond are not looked at */

struct balloon {
        struct virtio_device v;
        struct virtqueue queues[QUEUES];
        uint32_t wanted_pages, actual_pages;
        struct virtqueue_chain chain; /* the one looked at */
};

static struct balloon *balloon_of(struct virtio_device *v)
{
        return container_of(v, struct balloon, v);
}

static uint64_t features(struct virtio_device *v)
{
        (void)v;
        return VIRTQUEUE_FEATURES | UINT64_C(1) << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
               UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING;
}

/* ---- configuration ---- */

struct balloon_config {
        le32 num_pages, actual;
};

static void read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        const struct balloon *b = balloon_of(v);
        const struct balloon_config config = {le32_make(b->wanted_pages),
                                              le32_make(b->actual_pages)};

        memset(data, 0, size);
        if (offset < sizeof(config))
                memcpy(data, (const uint8_t *)&config + offset,
                       size < sizeof(config) - offset ? size : sizeof(config) - offset);
}

static void write_config(struct virtio_device *v, uint32_t offset, const void *data, uint32_t size)
{
        struct balloon *b = balloon_of(v);
        le32 actual;

        if (offset != offsetof(struct balloon_config, actual) || size != sizeof(actual))
                return;
        memcpy(&actual, data, sizeof(actual));
        b->actual_pages = le32_get(actual);
}

/* ---- queues ---- */

struct span {
        uint64_t start, length; /* pages that follow one another, to be given back at once */
};

static void give_back(const struct guest_memory *memory, struct span *span)
{
        void *host = guest_range(memory, span->start, span->length);

        if (host)
                memory_discard(memory, host, span->length);
        span->length = 0;
}

/* Upwards or downwards: guests allocate in either order. */
static void add_page(const struct guest_memory *memory, struct span *span, uint64_t gpa)
{
        struct span longer = {gpa < span->start ? gpa : span->start, span->length + PAGE};

        if (span->length > 0 && (gpa == span->start + span->length || gpa + PAGE == span->start) &&
            guest_range(memory, longer.start, longer.length)) {
                *span = longer;
                return;
        }
        give_back(memory, span);
        *span = (struct span){gpa, PAGE};
}

/* PFNs of pages that the guest has taken from itself. */
static void inflate(struct balloon *b)
{
        const struct guest_memory *memory = &b->v.machine->memory;
        const struct virtqueue_chain *chain = &b->chain;
        struct span span = {0};
        le32 pfns[64];
        size_t at = 0, n;

        do {
                n = virtqueue_gather(chain->iov, chain->n_out, at, pfns, sizeof(pfns));
                at += n;
                for (size_t i = 0; i < n / sizeof(pfns[0]); i++)
                        add_page(memory, &span, le32_get(pfns[i]) * PAGE);
        } while (n == sizeof(pfns) && at < PFNS_PER_CHAIN * sizeof(pfns[0]));
        give_back(memory, &span);
}

/* The pieces themselves are what the guest has free: section 5.5.6.7. */
static void report(struct balloon *b)
{
        const struct virtqueue_chain *chain = &b->chain;

        for (unsigned i = chain->n_out; i < chain->n_out + chain->n_in; i++)
                memory_discard(&b->v.machine->memory, chain->iov[i].iov_base,
                               chain->iov[i].iov_len);
}

static void kick(struct virtio_device *v, unsigned index)
{
        struct balloon *b = balloon_of(v);
        struct virtqueue *queue = &b->queues[index];
        unsigned n = 0;

        while (n < CHAINS_PER_TURN && virtqueue_pop(queue, &b->chain)) {
                if (index == QUEUE_INFLATE)
                        inflate(b);
                else if (index >= QUEUE_REPORT)
                        report(b);
                virtqueue_push(queue, &b->chain, 0);
                n++;
        }
        virtqueue_flush(queue);
        if (virtqueue_want_kicks(queue))
                eventfd_signal(v->queues[index].kick);
}

/* ---- the device ---- */

static int start(struct virtio_device *v, struct error *err)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < QUEUES; i++) {
                r = virtqueue_start(&balloon_of(v)->queues[i], v, i, err);
                if (r == 0 && v->queues[i].enabled)
                        eventfd_signal(v->queues[i].kick);
        }
        return r;
}

static void stop(struct virtio_device *v)
{
        (void)v; /* nothing is under way between two calls */
}

/* A driver that begins anew has nothing in the balloon. */
static void reset(struct virtio_device *v)
{
        balloon_of(v)->actual_pages = 0;
}

static void save(struct virtio_device *v, struct state_writer *w)
{
        state_put32(w, balloon_of(v)->wanted_pages);
        state_put32(w, balloon_of(v)->actual_pages);
}

/* Any number can be asked for, and any can be claimed to be there. */
static int restore(struct virtio_device *v, struct state_reader *r, struct error *err)
{
        (void)err;
        balloon_of(v)->wanted_pages = state_get32(r);
        balloon_of(v)->actual_pages = state_get32(r);
        return 0;
}

/* Also where the guest has let go of it. */
static void free_balloon(struct virtio_device *v)
{
        if (v->machine->balloon == v)
                v->machine->balloon = NULL;
        free(balloon_of(v));
}

static const struct virtio_ops balloon_ops = {
    .type = VIRTIO_ID_BALLOON,
    .features = features,
    .read_config = read_config,
    .write_config = write_config,
    .start = start,
    .stop = stop,
    .kick = kick,
    .reset = reset,
    .save = save,
    .restore = restore,
    .free = free_balloon,
};

void virtio_balloon_want(struct virtio_device *v, uint64_t bytes)
{
        struct balloon *b = balloon_of(v);
        uint32_t pages = (uint32_t)(bytes / PAGE);

        if (pages == b->wanted_pages)
                return;
        b->wanted_pages = pages;
        virtio_config_changed(v);
}

uint64_t virtio_balloon_size(const struct virtio_device *v)
{
        return balloon_of((struct virtio_device *)v)->actual_pages * PAGE;
}

int virtio_balloon_create(struct machine *machine, struct error *err)
{
        static const uint16_t sizes[QUEUES] = {128, 128, 128, 128, 128};
        const struct virtio_options options = {.queue_sizes = sizes, .n_queues = QUEUES};
        struct balloon *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return error_set(err, -ENOMEM, "out of memory");
        b->v = (struct virtio_device){.ops = &balloon_ops, .id = "balloon"};
        r = virtio_attach(machine, &b->v, &options, err);
        if (r == 0)
                machine->balloon = &b->v;
        return r;
}
