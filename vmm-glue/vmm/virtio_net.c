/* virtio_net.c - a network card: VIRTIO 1.2, section 5.1. One pair of queues, no control queue.
 *
 * To the other end frames go out of the guest's memory without being copied. From it they are copied
 * into the guest's buffers; one for which there are none waits in the back end, and so, where the back
 * end is full, does the other end. Each direction has a bounded number of frames in one turn, after
 * which others have theirs.
 */
#include "vmm-glue/vmm/virtio_net.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/le.h"
#include "common/log.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/watch.h"

#define FRAMES_PER_TURN 128u
#define QUEUE_SIZE      256u

/* ---- configuration, which the guest sees the same of both kinds ---- */

uint64_t net_features(const struct net *n)
{
        return NET_BIT(VIRTIO_NET_F_MAC) | NET_BIT(VIRTIO_NET_F_STATUS) |
               NET_BIT(VIRTIO_NET_F_MRG_RXBUF) | (n->mtu ? NET_BIT(VIRTIO_NET_F_MTU) : 0) |
               VIRTQUEUE_FEATURES | n->backend->features;
}

void net_read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        const struct net *n = net_of(v);
        const le16 status = le16_make(n->link ? VIRTIO_NET_S_LINK_UP : 0);
        const le16 mtu = le16_make(n->mtu);
        struct virtio_net_config config = {0};

        memcpy(config.mac, n->mac, sizeof(n->mac));
        memcpy(&config.status, &status, sizeof(status));
        memcpy(&config.mtu, &mtu, sizeof(mtu));
        memset(data, 0, size);
        if (offset < sizeof(config))
                memcpy(data, (const uint8_t *)&config + offset,
                       size < sizeof(config) - offset ? size : sizeof(config) - offset);
}

static uint64_t features(struct virtio_device *v)
{
        return net_features(net_of(v));
}

/* ---- waiting ---- */

static void wait_readable(struct net *n)
{
        if (n->readable_wanted || !n->link)
                return;
        n->readable_wanted = true;
        loop_submit(n->v.machine->loop, &n->readable);
}

static void wait_writable(struct net *n)
{
        if (n->writable_wanted || !n->link)
                return;
        n->writable_wanted = true;
        loop_submit(n->v.machine->loop, &n->writable);
}

/* Its turn comes again, after others have had theirs. */
static void kick_again(struct net *n, unsigned queue)
{
        eventfd_signal(n->v.queues[queue].kick);
}

/* The guest sees its cable pulled. What it still sends is dropped. Polls of a stream that is shut down end,
 * and the last one tells of it: so there is one. */
static void link_lost(struct net *n, int r)
{
        if (!n->link)
                return;
        log_warning("%s: the other end of the network is gone: %s", n->v.id, strerror(-r));
        if (n->stream) {
                (void)shutdown(n->backend->fd, SHUT_RDWR);
                wait_readable(n);
        }
        n->link = false;
        n->blocked = false;
        virtio_config_changed(&n->v);
}

/* ---- from the guest ---- */

/* False: not now, as the other end is full. What makes no frame is dropped. */
static bool send_frame(struct net *n)
{
        struct virtqueue_chain *chain = &n->chain;
        int r;

        if (!n->link || chain->n_out > NET_PIECES_MAX ||
            chain->out_bytes < NET_HEADER_SIZE + NET_FRAME_MIN ||
            chain->out_bytes > NET_HEADER_SIZE + NET_FRAME_MAX)
                return true;
        r = n->backend->ops->send(n->backend, chain->iov, chain->n_out);
        if (r == -EAGAIN)
                return false;
        if (r < 0)
                link_lost(n, r);
        return true;
}

/* What the back end has not got rid of leaves without the guest's help. */
static void flush_backend(struct net *n)
{
        int r = n->link ? n->backend->ops->flush(n->backend) : 0;

        if (r == -EAGAIN)
                wait_writable(n);
        else if (r < 0)
                link_lost(n, r);
        else
                n->blocked = false;
}

static void send_turn(struct net *n)
{
        unsigned frames = 0;

        if (n->blocked)
                return;
        virtqueue_want_no_kicks(&n->tx);
        do {
                while (frames < FRAMES_PER_TURN && virtqueue_pop(&n->tx, &n->chain)) {
                        frames++;
                        if (!send_frame(n)) {
                                virtqueue_unpop(&n->tx);
                                n->blocked = true;
                                break;
                        }
                        virtqueue_push(&n->tx, &n->chain, 0);
                }
        } while (!n->blocked && frames < FRAMES_PER_TURN && virtqueue_want_kicks(&n->tx));
        virtqueue_flush(&n->tx);
        if (n->blocked) {
                wait_writable(n);
                return;
        }
        flush_backend(n);
        if (frames == FRAMES_PER_TURN)
                kick_again(n, NET_QUEUE_TX);
}

/* ---- to the guest ---- */

struct delivery {
        struct net *n;
        const struct net_frame *frame;
        size_t done, size; /* of header and frame */
        unsigned n_chains;
        struct {
                uint16_t head;
                uint32_t length;
        } chains[QUEUE_SIZE];
};

static size_t put(const struct virtqueue_chain *chain, size_t at, const void *data, size_t size)
{
        return virtqueue_scatter(chain->iov + chain->n_out, chain->n_in, at, data, size);
}

/* For a copy of the memory that is under way. */
static void mark(const struct net *n, const struct virtqueue_chain *chain, size_t length)
{
        for (unsigned i = chain->n_out; i < chain->n_out + chain->n_in && length > 0; i++) {
                size_t here = chain->iov[i].iov_len < length ? chain->iov[i].iov_len : length;

                memory_mark(&n->v.machine->memory, chain->iov[i].iov_base, here);
                length -= here;
        }
}

/* As much as fits into @chain, from where the last one ended. */
static void fill(struct delivery *d, const struct virtqueue_chain *chain)
{
        size_t before = d->done, at = 0;

        if (d->done < NET_HEADER_SIZE) {
                at = put(chain, 0, d->frame->header + d->done, NET_HEADER_SIZE - d->done);
                d->done += at;
        }
        if (d->done >= NET_HEADER_SIZE)
                d->done +=
                    put(chain, at, d->frame->data + (d->done - NET_HEADER_SIZE), d->size - d->done);
        mark(d->n, chain, d->done - before);
        d->chains[d->n_chains].head = chain->head;
        d->chains[d->n_chains].length = (uint32_t)(d->done - before);
        d->n_chains++;
}

/* The chains of a frame come to the guest at once, with their number in the header of the first: section
 * 5.1.6.4. */
static void hand_over(struct delivery *d)
{
        const le16 count = le16_make((uint16_t)d->n_chains);

        put(&d->n->first, offsetof(struct virtio_net_hdr_v1, num_buffers), &count, sizeof(count));
        mark(d->n, &d->n->first, NET_HEADER_SIZE);
        for (unsigned i = 0; i < d->n_chains; i++)
                virtqueue_push_head(&d->n->rx, d->chains[i].head, d->chains[i].length);
}

static void give_up(struct delivery *d)
{
        while (d->n_chains > 0) {
                virtqueue_unpop(&d->n->rx);
                d->n_chains--;
        }
}

/* False: the guest has not given enough buffers yet. A frame that never fits is dropped. */
static bool receive_frame(struct net *n, const struct net_frame *frame)
{
        struct delivery d = {.n = n, .frame = frame, .size = NET_HEADER_SIZE + frame->length};
        bool merge = n->v.features & NET_BIT(VIRTIO_NET_F_MRG_RXBUF);
        unsigned most = merge ? n->rx.queue->size : 1;

        assert(most <= QUEUE_SIZE);
        if (frame->length < NET_FRAME_MIN)
                return true;
        while (d.done < d.size && d.n_chains < most) {
                struct virtqueue_chain *chain = d.n_chains == 0 ? &n->first : &n->chain;

                if (virtqueue_pop(&n->rx, chain)) {
                        fill(&d, chain);
                } else if (!virtqueue_want_kicks(&n->rx)) {
                        give_up(&d);
                        return false;
                }
        }
        if (d.done < d.size || n->first.in_bytes < NET_HEADER_SIZE)
                give_up(&d);
        else
                hand_over(&d);
        return true;
}

/* False: there is nothing to receive, or nothing can be. */
static bool receive_next(struct net *n)
{
        struct net_frame frame;
        int r = n->backend->ops->receive(n->backend, &frame);

        if (r == -EAGAIN) {
                wait_readable(n);
                return false;
        }
        if (r < 0) {
                link_lost(n, r);
                return false;
        }
        if (!receive_frame(n, &frame))
                return false;
        n->backend->ops->consume(n->backend);
        return true;
}

static void receive_turn(struct net *n)
{
        unsigned frames = 0;

        if (!n->link)
                return;
        virtqueue_want_no_kicks(&n->rx);
        while (frames < FRAMES_PER_TURN && receive_next(n))
                frames++;
        virtqueue_flush(&n->rx);
        if (frames == FRAMES_PER_TURN)
                kick_again(n, NET_QUEUE_RX);
}

/* ---- the loop's turn ---- */

static void end(struct net *n)
{
        if (n->readable_wanted || n->writable_wanted)
                return;
        n->backend->ops->free(n->backend);
        free(n);
}

/* Without the lock: who is told may connect another, or end the machine. */
static void unlock_and_tell(struct net *n)
{
        struct machine *machine = n->v.machine;
        bool lost = n->stream && !n->link && !n->told && !n->readable_wanted && !n->writable_wanted;
        char id[STATE_ID_MAX];

        n->told |= lost;
        memcpy(id, n->v.id, sizeof(id));
        machine_unlock(machine);
        if (lost && machine->events && machine->events->nic_lost)
                machine->events->nic_lost(machine->events_arg, id);
}

static void readable(struct loop_io *io, int result)
{
        struct net *n = container_of(io, struct net, readable);

        n->readable_wanted = false;
        if (n->freed) {
                end(n);
                return;
        }
        machine_lock(n->v.machine);
        if (result < 0)
                link_lost(n, result);
        else if (n->v.started)
                receive_turn(n);
        unlock_and_tell(n);
}

static void writable(struct loop_io *io, int result)
{
        struct net *n = container_of(io, struct net, writable);

        n->writable_wanted = false;
        if (n->freed) {
                end(n);
                return;
        }
        machine_lock(n->v.machine);
        if (result < 0) {
                link_lost(n, result);
        } else {
                flush_backend(n);
                if (n->v.started)
                        send_turn(n);
        }
        unlock_and_tell(n);
}

/* ---- the device ---- */

static int start(struct virtio_device *v, struct error *err)
{
        struct net *n = net_of(v);
        int r = 0;

        if (n->backend->ops->set_features)
                r = n->backend->ops->set_features(n->backend, v->features);
        if (r < 0)
                return error_set(err, r, "%s: the tap device cannot do what was negotiated: %s",
                                 v->id, strerror(-r));
        r = virtqueue_start(&n->rx, v, NET_QUEUE_RX, err);
        if (r == 0)
                r = virtqueue_start(&n->tx, v, NET_QUEUE_TX, err);
        if (r < 0)
                return r;
        n->blocked = false;
        /* On the loop's thread: this may be a vCPU's. */
        kick_again(n, NET_QUEUE_RX);
        kick_again(n, NET_QUEUE_TX);
        return 0;
}

/* A poll that is under way does not touch the guest's memory when it ends. */
static void stop(struct virtio_device *v)
{
        (void)v;
}

static void kick(struct virtio_device *v, unsigned queue)
{
        if (queue == NET_QUEUE_RX)
                receive_turn(net_of(v));
        else
                send_turn(net_of(v));
}

static void free_net(struct virtio_device *v)
{
        struct net *n = net_of(v);

        list_remove(&n->among);
        n->freed = true;
        if (n->readable_wanted)
                loop_cancel(n->v.machine->loop, &n->readable);
        if (n->writable_wanted)
                loop_cancel(n->v.machine->loop, &n->writable);
        end(n);
}

static const struct virtio_ops net_ops = {
    .type = VIRTIO_ID_NET,
    .features = features,
    .read_config = net_read_config,
    .start = start,
    .stop = stop,
    .kick = kick,
    .free = free_net,
};

/* The descriptors are the back end's and vhost's, or closed. */
static int make_backend(struct net *n, const struct vmm_nic *nic, struct error *err)
{
        int r = nic->kind == VMM_NIC_TAP ? net_tap_new(nic->fd, &n->backend, err)
                                         : net_stream_new(nic->fd, &n->backend, err);

        if (nic->vhost_fd < 0)
                return r;
        if (r < 0 || nic->kind != VMM_NIC_TAP) {
                close(nic->vhost_fd);
                return r;
        }
        r = vhost_net_init(n, nic->vhost_fd, err);
        if (r < 0)
                n->backend->ops->free(n->backend);
        return r;
}

static struct net *find(struct machine *machine, const char *id)
{
        if (machine->nics.next)
                list_for_each (it, &machine->nics) {
                        struct net *n = container_of(it, struct net, among);

                        if (strcmp(n->v.id, id) == 0)
                                return n;
                }
        return NULL;
}

int virtio_net_connect(struct machine *machine, const char *id, int fd, struct error *err)
{
        struct net *n = find(machine, id);
        struct net_backend *backend;
        int r;

        if (!n || !n->told) {
                close(fd);
                return n ? error_set(err, -EBUSY, "%s has not lost its other end", id)
                         : error_set(err, -ENOENT, "there is no network card '%s'", id);
        }
        r = net_stream_new(fd, &backend, err);
        if (r < 0)
                return error_prefix(err, "%s", id);
        n->backend->ops->free(n->backend);
        n->backend = backend;
        n->readable.fd = n->writable.fd = backend->fd;
        n->told = false;
        n->link = true;
        virtio_config_changed(&n->v);
        if (n->v.started) {
                kick_again(n, NET_QUEUE_RX);
                kick_again(n, NET_QUEUE_TX);
        }
        return 0;
}

int virtio_net_create(struct machine *machine, const struct vmm_nic *nic, struct error *err)
{
        static const uint16_t sizes[NET_QUEUES] = {QUEUE_SIZE, QUEUE_SIZE};
        const struct virtio_options options = {.queue_sizes = sizes, .n_queues = NET_QUEUES};
        struct net *n = calloc(1, sizeof(*n));
        int r;

        if (!n) {
                close(nic->fd);
                if (nic->vhost_fd >= 0)
                        close(nic->vhost_fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        n->vhost = -1;
        r = make_backend(n, nic, err);
        if (r < 0) {
                free(n);
                return error_prefix(err, "%s", nic->id);
        }
        n->v.ops = n->vhost >= 0 ? &vhost_net_ops : &net_ops;
        snprintf(n->v.id, sizeof(n->v.id), "%s", nic->id);
        memcpy(n->mac, nic->mac, sizeof(n->mac));
        n->mtu = nic->mtu;
        n->link = true;
        n->stream = nic->kind == VMM_NIC_STREAM;
        if (!machine->nics.next)
                list_init(&machine->nics);
        list_append(&machine->nics, &n->among);
        n->readable = (struct loop_io){
            .op = LOOP_POLL, .fd = n->backend->fd, .flags = POLLIN, .done = readable};
        n->writable = (struct loop_io){
            .op = LOOP_POLL, .fd = n->backend->fd, .flags = POLLOUT, .done = writable};
        return virtio_attach(machine, &n->v, &options, err);
}
