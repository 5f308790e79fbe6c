/* virtio_rng.c - the entropy device: buffers of the guest, filled by getrandom(2). VIRTIO 1.2, section
 * 5.4. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/virtqueue.h"
#include "vmm-glue/vmm/watch.h"

#define QUEUE_SIZE 64u

/* What one buffer gets, and all of them at a time before others have their turn. Linux asks for less
 * than a hundred bytes. */
#define BUFFER_BYTES_MAX 1024u
#define TURN_BUFFERS_MAX 16u

struct rng {
        struct virtio_device v;
        struct virtqueue vq;
        struct virtqueue_chain chain;
};

static struct rng *of(struct virtio_device *v)
{
        return container_of(v, struct rng, v);
}

static uint64_t features(struct virtio_device *v)
{
        return VIRTQUEUE_FEATURES;
}

static int start(struct virtio_device *v, struct error *err)
{
        return virtqueue_start(&of(v)->vq, v, 0, err);
}

static void stop(struct virtio_device *v)
{
        of(v)->vq = (struct virtqueue){0};
}

static uint32_t fill(const struct virtqueue_chain *chain)
{
        uint8_t bytes[BUFFER_BYTES_MAX];
        size_t size = chain->in_bytes < sizeof(bytes) ? chain->in_bytes : sizeof(bytes);
        ssize_t n;

        if (size == 0)
                return 0;
        do
                n = getrandom(bytes, size, 0);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return 0;
        return (uint32_t)virtqueue_scatter(chain->iov + chain->n_out, chain->n_in, 0, bytes,
                                           (size_t)n);
}

static void kick(struct virtio_device *v, unsigned queue)
{
        struct rng *rng = of(v);
        unsigned left = TURN_BUFFERS_MAX;

        while (left > 0 && virtqueue_pop(&rng->vq, &rng->chain)) {
                virtqueue_push(&rng->vq, &rng->chain, fill(&rng->chain));
                left--;
        }
        virtqueue_flush(&rng->vq);
        if (virtqueue_want_kicks(&rng->vq))
                eventfd_signal(v->queues[queue].kick);
}

static void rng_free(struct virtio_device *v)
{
        free(of(v));
}

static const struct virtio_ops rng_ops = {
    .type = VIRTIO_ID_RNG,
    .features = features,
    .start = start,
    .stop = stop,
    .kick = kick,
    .free = rng_free,
};

int virtio_rng_create(struct machine *machine, struct error *err)
{
        static const uint16_t size = QUEUE_SIZE;
        struct rng *rng = calloc(1, sizeof(*rng));

        if (!rng)
                return error_set(err, -ENOMEM, "no memory for the entropy device");
        rng->v = (struct virtio_device){.ops = &rng_ops, .id = "rng"};
        return virtio_attach(machine, &rng->v,
                             &(struct virtio_options){.queue_sizes = &size, .n_queues = 1}, err);
}
