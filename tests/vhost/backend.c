/* backend.c - see backend.h. */
#include "tests/vhost/backend.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/passed_fds.h"

#define SECTORS      4096u
#define FDS_TOO_MANY 20u

void backend_init(struct backend *b, int fd)
{
        const uint64_t capacity = SECTORS;
        const uint32_t seg_max = 126, blk_size = 512;

        *b = (struct backend){
            .fd = fd,
            .channel = -1,
            .error = -1,
            .features = VF_BLK_SEG_MAX | VF_BLK_SIZE | VF_BLK_FLUSH | VF_BLK_TOPOLOGY |
                        VF_BLK_CONFIG_WCE | VF_BLK_MQ | VF_BLK_DISCARD | VF_BLK_WRITE_ZEROES |
                        VF_INDIRECT | VF_EVENT_IDX | VF_PROTOCOL_FEATURES | VF_VERSION_1 |
                        VF_LOG_ALL,
            .protocol = VP_MQ | VP_LOG_SHMFD | VP_REPLY_ACK | VP_BACKEND_REQ | VP_CONFIG |
                        VP_INFLIGHT_SHMFD,
            .n_queues = 4,
        };
        memcpy(b->config, &capacity, sizeof(capacity));
        memcpy(b->config + 12, &seg_max, sizeof(seg_max));
        memcpy(b->config + 20, &blk_size, sizeof(blk_size));
        b->config[32] = 1; /* the cache's mode */
}

void backend_close(struct backend *b)
{
        if (b->fd >= 0)
                close(b->fd);
        if (b->channel >= 0)
                close(b->channel);
        if (b->error >= 0)
                close(b->error);
        b->fd = b->channel = b->error = -1;
}

struct message {
        struct vu_header header;
        uint8_t payload[1024];
        int fds[VU_FDS_MAX];
        size_t n_fds;
};

static bool receive(const struct backend *b, void *data, size_t size, struct message *m)
{
        char control[CMSG_SPACE(PASSED_FDS_MAX * sizeof(int))];
        struct passed_fds fds = {.fds = m->fds + m->n_fds, .max = VU_FDS_MAX - m->n_fds};
        uint8_t *at = data;

        while (size > 0) {
                struct iovec iov = {at, size};
                struct msghdr msg = {.msg_iov = &iov,
                                     .msg_iovlen = 1,
                                     .msg_control = control,
                                     .msg_controllen = sizeof(control)};
                ssize_t n = recvmsg(b->fd, &msg, MSG_CMSG_CLOEXEC);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return false;
                passed_fds_take(&msg, &fds);
                at += n;
                size -= (size_t)n;
        }
        m->n_fds += fds.n;
        return true;
}

static void send_bytes(struct backend *b, const void *data, size_t size, const int *fds,
                       size_t n_fds)
{
        if (passed_fds_send(b->fd, data, size, fds, n_fds, 0) != (ssize_t)size)
                backend_close(b);
}

/* The right answer: its size, 0 where there is none; *ret_fd is -1 without a descriptor. */
static uint32_t answer_of(struct backend *b, const struct message *m, uint8_t *payload, int *ret_fd)
{
        uint64_t value = 0;

        *ret_fd = -1;
        switch (m->header.request) {
        case VU_GET_FEATURES:
                value = b->features;
                break;
        case VU_GET_PROTOCOL_FEATURES:
                value = b->protocol;
                break;
        case VU_GET_QUEUE_NUM:
                value = b->n_queues;
                break;
        case VU_GET_CONFIG:
                memcpy(payload, m->payload, VU_CONFIG_HEADER);
                memcpy(payload + VU_CONFIG_HEADER, b->config, sizeof(b->config));
                return m->header.size;
        case VU_GET_VRING_BASE:
                memcpy(payload, m->payload, sizeof(struct vu_vring_state));
                memset(payload + 4, 0, 4);
                return sizeof(struct vu_vring_state);
        case VU_GET_INFLIGHT_FD:
                memcpy(payload, m->payload, VU_INFLIGHT_SIZE);
                value = 4096;
                memcpy(payload, &value, sizeof(value));
                *ret_fd = memfd_create("in flight", MFD_CLOEXEC);
                return VU_INFLIGHT_SIZE;
        case VU_SET_LOG_BASE:
                break;
        default:
                if (!(m->header.flags & VU_NEED_REPLY))
                        return 0;
        }
        memcpy(payload, &value, sizeof(value));
        return sizeof(value);
}

static void send_pieces(struct backend *b, const uint8_t *data, size_t size, int fd)
{
        for (size_t i = 0; b->fd >= 0 && i < size; i++)
                send_bytes(b, data + i, 1, &fd, i == 0 && fd >= 0);
}

struct answer {
        struct vu_header header;
        uint8_t payload[1024];
};

static void spoil_header(struct vu_header *header, enum backend_fault fault)
{
        if (fault == BACKEND_REQUEST)
                header->request++;
        else if (fault == BACKEND_NO_REPLY)
                header->flags &= ~(uint32_t)VU_REPLY;
        else if (fault == BACKEND_VERSION)
                header->flags ^= VU_VERSION_MASK;
        else if (fault == BACKEND_HUGE)
                header->size = UINT32_MAX;
        else if (fault == BACKEND_LONG)
                header->size += 8;
        else if (fault == BACKEND_EMPTY)
                header->size = 0;
}

static void send_answer(struct backend *b, struct answer *a, int fd, enum backend_fault fault)
{
        int fds[FDS_TOO_MANY] = {fd};
        size_t n_fds = fd >= 0, size = sizeof(a->header) + a->header.size;

        spoil_header(&a->header, fault);
        if (fault == BACKEND_ONES)
                memset(a->payload, 0xff, a->header.size);
        if (fault == BACKEND_LONG || fault == BACKEND_EMPTY)
                size = sizeof(a->header) + a->header.size;
        if (fault == BACKEND_HALF)
                size /= 2;
        if (fault == BACKEND_HEADER)
                size = sizeof(a->header);
        if (fault == BACKEND_NO_FD)
                n_fds = 0;
        for (; fault == BACKEND_FDS && n_fds < FDS_TOO_MANY; n_fds++)
                fds[n_fds] = b->fd;
        if (fault == BACKEND_PIECES) {
                send_pieces(b, (uint8_t *)a, size, fd);
                return;
        }
        send_bytes(b, a, size, fds, n_fds);
        if (fault == BACKEND_TWICE && b->fd >= 0)
                send_bytes(b, a, size, NULL, 0);
        if (fault == BACKEND_HALF)
                backend_close(b);
}

/* The first channel, and the last error; all else that came is closed. */
static void keep(struct backend *b, struct message *m)
{
        for (size_t i = 0; i < m->n_fds; i++) {
                int *place = m->header.request == VU_SET_BACKEND_REQ_FD ? &b->channel
                             : m->header.request == VU_SET_VRING_ERR    ? &b->error
                                                                        : NULL;
                int old = m->fds[i];

                if (place) {
                        old = *place;
                        *place = m->fds[i];
                }
                if (old >= 0)
                        close(old);
        }
}

bool backend_answer(struct backend *b, enum backend_fault fault)
{
        struct message m = {.n_fds = 0};
        struct answer a = {.header.flags = VU_VERSION | VU_REPLY};
        bool whole;
        int fd = -1;

        if (b->fd < 0)
                return false;
        whole = receive(b, &m.header, sizeof(m.header), &m) && m.header.size <= sizeof(m.payload) &&
                receive(b, m.payload, m.header.size, &m);
        keep(b, &m);
        if (!whole)
                return false;
        b->n_messages++;
        b->last = m.header.request;
        if (fault == BACKEND_SILENT)
                return true;
        if (fault == BACKEND_CLOSES) {
                backend_close(b);
                return false;
        }
        a.header.request = m.header.request;
        a.header.size = answer_of(b, &m, a.payload, &fd);
        if (a.header.size > 0)
                send_answer(b, &a, fd, fault);
        if (fd >= 0)
                close(fd);
        return b->fd >= 0;
}

void backend_say(struct backend *b, const void *data, uint32_t size)
{
        if (b->channel >= 0)
                (void)!send(b->channel, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}
