/* vhost_net.c - a network card whose frames the kernel moves between the guest and a tap device. */
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm-glue/vmm/vhost_kernel.h"
#include "vmm-glue/vmm/virtio_net.h"

/* Rings, and headers of frames, are as vhost can. */
#define VHOST_DECIDES                                                                              \
        (NET_BIT(VIRTIO_F_VERSION_1) | NET_BIT(VIRTIO_NET_F_MRG_RXBUF) |                           \
         NET_BIT(VIRTIO_RING_F_INDIRECT_DESC) | NET_BIT(VIRTIO_RING_F_EVENT_IDX))

static uint64_t features(struct virtio_device *v)
{
        const struct net *n = net_of(v);

        return net_features(n) & (~VHOST_DECIDES | n->vhost_features);
}

static int set_backend(const struct net *n, unsigned queue, int fd)
{
        struct vhost_vring_file file = {.index = queue, .fd = fd};

        return ioctl(n->vhost, VHOST_NET_SET_BACKEND, &file) < 0 ? -errno : 0;
}

static void stop(struct virtio_device *v)
{
        struct net *n = net_of(v);

        /* The kernel waits until it has let go of the guest's memory. */
        for (unsigned i = 0; i < NET_QUEUES; i++)
                set_backend(n, i, VHOST_FILE_UNBIND);
        vhost_kernel_stop(n->vhost, v, NET_QUEUES);
}

static int start(struct virtio_device *v, struct error *err)
{
        struct net *n = net_of(v);
        int r = n->backend->ops->set_features(n->backend, v->features);

        if (r < 0)
                return error_set(err, r, "%s: the tap device cannot do what was negotiated: %s",
                                 v->id, strerror(-r));
        r = vhost_kernel_start(n->vhost, v, NET_QUEUES, n->vhost_features & VHOST_DECIDES, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; r == 0 && i < NET_QUEUES; i++)
                if (v->queues[i].enabled)
                        r = set_backend(n, i, n->backend->fd);
        if (r < 0) {
                stop(v);
                return error_set(err, r, "%s: vhost does not take the tap device: %s", v->id,
                                 strerror(-r));
        }
        return 0;
}

static int log_writes(struct virtio_device *v, bool on, struct error *err)
{
        struct net *n = net_of(v);

        return vhost_kernel_log(n->vhost, v, NET_QUEUES, n->vhost_features & VHOST_DECIDES, on,
                                err);
}

static void free_net(struct virtio_device *v)
{
        struct net *n = net_of(v);

        list_remove(&n->among);
        close(n->vhost);
        n->backend->ops->free(n->backend);
        free(n);
}

const struct virtio_ops vhost_net_ops = {
    .type = VIRTIO_ID_NET,
    .features = features,
    .read_config = net_read_config,
    .start = start,
    .stop = stop,
    .log = log_writes,
    .free = free_net,
};

int vhost_net_init(struct net *n, int fd, struct error *err)
{
        int r = vhost_kernel_own(fd, "/dev/vhost-net", &n->vhost_features, err);

        if (r < 0)
                close(fd);
        else
                n->vhost = fd;
        return r;
}
