/* virtio_vsock.c - sockets between host and guest: VIRTIO 1.2, section 5.10. Data passes by the kernel
 * (vhost-vsock); here are the configuration and the queue of events.
 */
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/le.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/vhost_kernel.h"
#include "vmm-glue/vmm/virtqueue.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };
#define VHOST_QUEUES QUEUE_EVENT

struct vsock {
        struct virtio_device v;
        struct virtqueue events;
        int fd;
        uint32_t cid;
        uint64_t vhost_features;
        bool restored; /* the guest has to be told that its connections are gone */
        struct virtqueue_chain chain;
};

static struct vsock *vsock_of(struct virtio_device *v)
{
        return container_of(v, struct vsock, v);
}

static uint64_t features(struct virtio_device *v)
{
        return vsock_of(v)->vhost_features & VIRTQUEUE_FEATURES;
}

static void read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        const le64 cid = le64_make(vsock_of(v)->cid);

        memset(data, 0, size);
        if (offset < sizeof(cid))
                memcpy(data, cid.b + offset,
                       size < sizeof(cid) - offset ? size : sizeof(cid) - offset);
}

/* Section 5.10.6.7: the driver gives up its connections, and reads its CID again, which is another one
 * in a copy of a machine. */
static void tell_reset(struct vsock *s)
{
        const le32 event = le32_make(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
        struct virtqueue_chain *chain = &s->chain;

        if (!virtqueue_pop(&s->events, chain))
                return;
        virtqueue_push(&s->events, chain,
                       (uint32_t)virtqueue_scatter(virtqueue_in(chain), chain->n_in, 0, &event,
                                                   sizeof(event)));
        virtqueue_flush(&s->events);
        s->restored = false;
}

static uint64_t vhost_features(const struct vsock *s)
{
        return s->vhost_features & (UINT64_C(1) << VIRTIO_F_VERSION_1 | VIRTQUEUE_FEATURES);
}

static int run(const struct vsock *s, int on)
{
        return ioctl(s->fd, VHOST_VSOCK_SET_RUNNING, &on) < 0 ? -errno : 0;
}

static void stop(struct virtio_device *v)
{
        struct vsock *s = vsock_of(v);

        run(s, 0);
        vhost_kernel_stop(s->fd, v, VHOST_QUEUES);
        /* vhost-vsock does not note them. What the guest has taken out of the ring is of connections that it
         * gives up when it is restored. */
        vhost_kernel_mark_buffers(v, QUEUE_RX);
}

static int start(struct virtio_device *v, struct error *err)
{
        struct vsock *s = vsock_of(v);
        int r;

        if (!v->queues[QUEUE_RX].enabled || !v->queues[QUEUE_TX].enabled)
                return error_set(err, -EINVAL, "%s: the driver has not set up both queues", v->id);
        r = virtqueue_start(&s->events, v, QUEUE_EVENT, err);
        if (r == 0)
                r = vhost_kernel_start(s->fd, v, VHOST_QUEUES, vhost_features(s), err);
        if (r < 0)
                return r;
        r = run(s, 1);
        if (r < 0) {
                vhost_kernel_stop(s->fd, v, VHOST_QUEUES);
                return error_set(err, r, "%s: vhost does not begin: %s", v->id, strerror(-r));
        }
        if (s->restored)
                tell_reset(s);
        return 0;
}

static int log_writes(struct virtio_device *v, bool on, struct error *err)
{
        const struct vsock *s = vsock_of(v);

        return vhost_kernel_log(s->fd, v, VHOST_QUEUES, vhost_features(s), on, err);
}

static void save(struct virtio_device *v, struct state_writer *w)
{
        state_put32(w, vsock_of(v)->cid);
}

/* The CID stays the configuration's. */
static int restore(struct virtio_device *v, struct state_reader *r, struct error *err)
{
        (void)err;
        state_get32(r);
        vsock_of(v)->restored = true;
        return 0;
}

static void free_vsock(struct virtio_device *v)
{
        struct vsock *s = vsock_of(v);

        close(s->fd);
        free(s);
}

static const struct virtio_ops vsock_ops = {
    .type = VIRTIO_ID_VSOCK,
    .features = features,
    .read_config = read_config,
    .start = start,
    .stop = stop,
    .log = log_writes,
    .save = save,
    .restore = restore,
    .free = free_vsock,
};

static int take_cid(const struct vsock *s, struct error *err)
{
        uint64_t cid = s->cid;

        if (ioctl(s->fd, VHOST_VSOCK_SET_GUEST_CID, &cid) == 0)
                return 0;
        if (errno == EADDRINUSE)
                return error_set(err, -EADDRINUSE, "another machine has the vsock CID %u", s->cid);
        return error_set(err, -errno, "the vsock CID %u cannot be had: %s", s->cid,
                         strerror(errno));
}

int virtio_vsock_create(struct machine *machine, struct error *err)
{
        static const uint16_t sizes[QUEUES] = {256, 256, 64};
        const struct virtio_options options = {.queue_sizes = sizes, .n_queues = QUEUES};
        const struct vmm_config *config = machine->config;
        struct vsock *s = calloc(1, sizeof(*s));
        int r;

        if (!s) {
                close(config->vsock_fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        s->v = (struct virtio_device){.ops = &vsock_ops, .id = "vsock"};
        s->cid = config->vsock_cid;
        s->fd = config->vsock_fd;
        r = vhost_kernel_own(s->fd, "/dev/vhost-vsock", &s->vhost_features, err);
        if (r == 0)
                r = take_cid(s, err);
        if (r < 0) {
                free_vsock(&s->v);
                return r;
        }
        return virtio_attach(machine, &s->v, &options, err);
}
