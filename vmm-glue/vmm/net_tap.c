/* net_tap.c - frames to and from a tap device: one a system call, with virtio's own header. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/list.h"
#include "vmm-glue/vmm/net_backend.h"

#define BIT(n) (UINT64_C(1) << (n))

struct tap {
        struct net_backend backend;
        size_t length; /* of what lies in data; 0: nothing */
        uint8_t data[NET_HEADER_SIZE + NET_FRAME_MAX + 1];
};

static struct tap *tap_of(struct net_backend *b)
{
        return container_of(b, struct tap, backend);
}

/* Every other error is about this frame, whose header the guest made, or about an interface that is
 * down for now. */
static int tap_send(struct net_backend *b, struct iovec *iov, unsigned n_iov)
{
        ssize_t n;

        do
                n = writev(b->fd, iov, (int)n_iov);
        while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EBADFD))
                return -errno;
        return 0;
}

static int tap_flush(struct net_backend *b)
{
        (void)b;
        return 0;
}

static int tap_receive(struct net_backend *b, struct net_frame *ret_frame)
{
        struct tap *tap = tap_of(b);

        if (tap->length == 0) {
                ssize_t n;

                do
                        n = read(b->fd, tap->data, sizeof(tap->data));
                while (n < 0 && errno == EINTR);
                if (n < 0)
                        return -errno;
                /* One that fills all of it was cut: it is passed as none, and dropped. */
                tap->length = n < (ssize_t)NET_HEADER_SIZE || n == (ssize_t)sizeof(tap->data)
                                  ? NET_HEADER_SIZE
                                  : (size_t)n;
        }
        *ret_frame = (struct net_frame){.header = tap->data,
                                        .data = tap->data + NET_HEADER_SIZE,
                                        .length = tap->length - NET_HEADER_SIZE};
        return 1;
}

static void tap_consume(struct net_backend *b)
{
        tap_of(b)->length = 0;
}

/* What the kernel may leave to the guest. */
static int tap_set_features(struct net_backend *b, uint64_t features)
{
        unsigned offload = 0;

        if (features & BIT(VIRTIO_NET_F_GUEST_CSUM)) {
                offload = TUN_F_CSUM;
                if (features & BIT(VIRTIO_NET_F_GUEST_TSO4))
                        offload |= TUN_F_TSO4;
                if (features & BIT(VIRTIO_NET_F_GUEST_TSO6))
                        offload |= TUN_F_TSO6;
                if ((offload & (TUN_F_TSO4 | TUN_F_TSO6)) &&
                    (features & BIT(VIRTIO_NET_F_GUEST_ECN)))
                        offload |= TUN_F_TSO_ECN;
        }
        return ioctl(b->fd, TUNSETOFFLOAD, offload) < 0 ? -errno : 0;
}

static void tap_free(struct net_backend *b)
{
        close(b->fd);
        free(tap_of(b));
}

static const struct net_backend_ops tap_ops = {
    .send = tap_send,
    .flush = tap_flush,
    .receive = tap_receive,
    .consume = tap_consume,
    .set_features = tap_set_features,
    .free = tap_free,
};

int net_tap_new(int fd, struct net_backend **ret_backend, struct error *err)
{
        const uint64_t offload = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |
                                 BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
                                 BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
                                 BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN);
        struct tap *tap = calloc(1, sizeof(*tap));
        int header = NET_HEADER_SIZE, little_endian = 1, flags;

        if (!tap) {
                close(fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        tap->backend = (struct net_backend){.ops = &tap_ops, .fd = fd};
        flags = fcntl(fd, F_GETFL);
        if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
            ioctl(fd, TUNSETVNETLE, &little_endian) < 0 || flags < 0 ||
            fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
                int r = error_set(err, -errno, "the tap device is none, or cannot be used: %s",
                                  strerror(errno));

                tap_free(&tap->backend);
                return r;
        }
        if (tap_set_features(&tap->backend, offload) == 0)
                tap->backend.features = offload;
        tap_set_features(&tap->backend, 0);
        *ret_backend = &tap->backend;
        return 0;
}
