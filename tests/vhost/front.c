/* front.c - see front.h. */
#include "tests/vhost/front.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Descriptors in one sendmsg: more than any message may carry, for the tests that send too many. */
#define SEND_FDS_MAX 253u

int front_connect(const char *path, struct front **ret_front, struct error *err)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct timeval wait = {.tv_sec = FRONT_HANG_S};
        struct front *f = calloc(1, sizeof(*f));

        if (!f)
                return error_set(err, -ENOMEM, "out of memory for a connection");
        f->channel = -1;
        f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (strlen(path) >= sizeof(address.sun_path))
                errno = ENAMETOOLONG;
        else {
                snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
                if (f->fd >= 0 &&
                    connect(f->fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                    setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
                    setsockopt(f->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0) {
                        *ret_front = f;
                        return 0;
                }
        }
        int r = error_set(err, -errno, "cannot connect to '%s': %s", path, strerror(errno));
        front_close(f);
        return r;
}

void front_close(struct front *f)
{
        if (!f)
                return;
        if (f->fd >= 0)
                close(f->fd);
        if (f->channel >= 0)
                close(f->channel);
        free(f);
}

/* ---- messages ---- */

int front_send_bytes(struct front *f, const void *data, size_t n_bytes, const int *fds,
                     unsigned n_fds, struct error *err)
{
        union {
                struct cmsghdr header;
                uint8_t space[CMSG_SPACE(SEND_FDS_MAX * sizeof(int))];
        } control;
        const uint8_t *p = data;

        assert(n_fds <= SEND_FDS_MAX && (n_fds == 0 || n_bytes > 0));
        while (n_bytes > 0) {
                struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n_bytes};
                struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
                if (n_fds > 0) {
                        memset(&control, 0, sizeof(control));
                        message.msg_control = &control;
                        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                        control.header.cmsg_level = SOL_SOCKET;
                        control.header.cmsg_type = SCM_RIGHTS;
                        control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                        memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                }
                ssize_t n = sendmsg(f->fd, &message, MSG_NOSIGNAL);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
                        return error_set(err, -ECONNRESET, "the back end has closed");
                if (n < 0)
                        return error_set(err, errno == EAGAIN ? -ETIMEDOUT : -errno,
                                         "cannot send to the back end: %s", strerror(errno));
                p += n;
                n_bytes -= (size_t)n;
                n_fds = 0;
        }
        return 0;
}

int front_send(struct front *f, uint32_t request, uint32_t flags, const void *payload,
               uint32_t size, const int *fds, unsigned n_fds, struct error *err)
{
        uint8_t bytes[sizeof(struct vu_header) + 4096];
        struct vu_header header = {request, flags, size};

        assert(size <= 4096);
        memcpy(bytes, &header, sizeof(header));
        if (size > 0)
                memcpy(bytes + sizeof(header), payload, size);
        return front_send_bytes(f, bytes, sizeof(header) + size, fds, n_fds, err);
}

/* Receive @n_bytes, and the descriptors that come with them. */
static int receive(int fd, void *data, size_t n_bytes, int *fds, unsigned *n_fds, struct error *err)
{
        union {
                struct cmsghdr header;
                uint8_t space[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
        } control;
        uint8_t *p = data;

        while (n_bytes > 0) {
                struct iovec iov = {.iov_base = p, .iov_len = n_bytes};
                struct msghdr message = {.msg_iov = &iov,
                                         .msg_iovlen = 1,
                                         .msg_control = &control,
                                         .msg_controllen = sizeof(control)};
                ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return error_set(err, -ECONNRESET, "the back end has closed");
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return error_set(err, -ETIMEDOUT, "the back end does not answer");
                if (n < 0)
                        return error_set(err, -errno, "cannot receive from the back end: %s",
                                         strerror(errno));
                for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
                        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
                            count > VU_FDS_MAX - *n_fds)
                                return error_set(err, -EPROTO, "what comes beside is no message's");
                        memcpy(fds + *n_fds, CMSG_DATA(c), count * sizeof(int));
                        *n_fds += (unsigned)count;
                }
                p += n;
                n_bytes -= (size_t)n;
        }
        return 0;
}

int front_reply(struct front *f, uint32_t request, struct front_reply *ret_reply, struct error *err)
{
        struct front_reply *reply = ret_reply;

        memset(reply, 0, sizeof(*reply));
        int r =
            receive(f->fd, &reply->header, sizeof(reply->header), reply->fds, &reply->n_fds, err);
        if (r < 0)
                return r;
        if (reply->header.size > sizeof(reply->bytes))
                return error_set(err, -EPROTO, "a reply of %u bytes", reply->header.size);
        r = receive(f->fd, reply->bytes, reply->header.size, reply->fds, &reply->n_fds, err);
        if (r < 0)
                return r;
        if (reply->header.request != request ||
            (reply->header.flags & (VU_VERSION_MASK | VU_REPLY)) != (VU_VERSION | VU_REPLY))
                return error_set(err, -EPROTO, "request %u is answered with %u, flags %#x", request,
                                 reply->header.request, reply->header.flags);
        return 0;
}

static int reply_u64(struct front *f, uint32_t request, uint64_t *ret_value, struct error *err)
{
        struct front_reply reply;
        int r = front_reply(f, request, &reply, err);

        if (r < 0)
                return r;
        if (reply.header.size != sizeof(uint64_t) || reply.n_fds > 0)
                return error_set(err, -EPROTO, "request %u is answered with %u bytes", request,
                                 reply.header.size);
        *ret_value = reply.u64;
        return 0;
}

int front_tell(struct front *f, uint32_t request, const void *payload, uint32_t size,
               const int *fds, unsigned n_fds, struct error *err)
{
        bool ack = f->protocol & VP_REPLY_ACK;
        uint64_t no = 0;

        int r = front_send(f, request, VU_VERSION | (ack ? VU_NEED_REPLY : 0), payload, size, fds,
                           n_fds, err);
        if (r < 0 || !ack)
                return r;
        r = reply_u64(f, request, &no, err);
        if (r == 0 && no)
                return error_set(err, -EBADMSG, "the back end refuses request %u", request);
        return r;
}

int front_tell_u64(struct front *f, uint32_t request, uint64_t value, struct error *err)
{
        return front_tell(f, request, &value, sizeof(value), NULL, 0, err);
}

int front_ask_u64(struct front *f, uint32_t request, uint64_t *ret_value, struct error *err)
{
        int r = front_send(f, request, VU_VERSION, NULL, 0, NULL, 0, err);

        return r < 0 ? r : reply_u64(f, request, ret_value, err);
}

int front_sync(struct front *f, struct error *err)
{
        uint64_t features;

        return front_ask_u64(f, VU_GET_FEATURES, &features, err);
}

bool front_is_closed(struct front *f)
{
        uint8_t rest[512];
        ssize_t n;

        do
                n = recv(f->fd, rest, sizeof(rest), 0);
        while (n > 0 || (n < 0 && errno == EINTR));
        return n == 0 || errno == ECONNRESET;
}

bool front_is_open(struct front *f)
{
        uint8_t byte;
        ssize_t n = recv(f->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

        return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

/* ---- at the start ---- */

static int make_channel(struct front *f, struct error *err)
{
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return error_set(err, -errno, "cannot make a channel: %s", strerror(errno));
        f->channel = ends[0];
        int r = front_tell(f, VU_SET_BACKEND_REQ_FD, NULL, 0, &ends[1], 1, err);
        close(ends[1]);
        return r;
}

int front_negotiate(struct front *f, uint64_t features, uint64_t protocol, struct error *err)
{
        int r = front_tell(f, VU_SET_OWNER, NULL, 0, NULL, 0, err);

        if (r == 0)
                r = front_ask_u64(f, VU_GET_FEATURES, &f->offered, err);
        if (r < 0)
                return r;
        f->features = f->offered & features;
        if (f->features & VF_PROTOCOL_FEATURES) {
                r = front_ask_u64(f, VU_GET_PROTOCOL_FEATURES, &f->offered_protocol, err);
                if (r < 0)
                        return r;
                /* Acknowledgements begin once this message is taken, so it asks for none. */
                uint64_t wanted = f->offered_protocol & protocol;
                r = front_tell_u64(f, VU_SET_PROTOCOL_FEATURES, wanted, err);
                f->protocol = wanted;
        }
        if (r == 0)
                r = front_tell_u64(f, VU_SET_FEATURES, f->features, err);
        if (r == 0 && (f->protocol & VP_BACKEND_REQ))
                r = make_channel(f, err);
        return r;
}

int front_add_region(struct front *f, const struct guest_part *region, struct error *err)
{
        struct vu_single_region single = {.region = region->address};

        return front_tell(f, VU_ADD_MEM_REG, &single, sizeof(single), &region->fd, 1, err);
}

int front_remove_region(struct front *f, const struct guest_part *region, struct error *err)
{
        struct vu_single_region single = {.region = region->address};

        return front_tell(f, VU_REM_MEM_REG, &single, sizeof(single), NULL, 0, err);
}

int front_set_memory(struct front *f, const struct guest *m, bool by_slots, struct error *err)
{
        struct vu_table table = {.n_regions = m->n_regions};
        int fds[VU_TABLE_REGIONS], r = 0;

        if (by_slots) {
                for (unsigned i = 0; r == 0 && i < m->n_regions; i++)
                        r = front_add_region(f, &m->regions[i], err);
                return r;
        }
        assert(m->n_regions <= VU_TABLE_REGIONS);
        for (unsigned i = 0; i < m->n_regions; i++) {
                table.regions[i] = m->regions[i].address;
                fds[i] = m->regions[i].fd;
        }
        return front_tell(f, VU_SET_MEM_TABLE, &table,
                          8 + m->n_regions * (uint32_t)sizeof(struct vu_region), fds, m->n_regions,
                          err);
}

int front_get_config(struct front *f, uint32_t offset, uint32_t size, void *data, struct error *err)
{
        struct vu_config config = {.offset = offset, .size = size};
        struct front_reply reply;

        assert(size <= VU_CONFIG_MAX);
        int r = front_send(f, VU_GET_CONFIG, VU_VERSION, &config, VU_CONFIG_HEADER + size, NULL, 0,
                           err);
        if (r == 0)
                r = front_reply(f, VU_GET_CONFIG, &reply, err);
        if (r < 0)
                return r;
        if (reply.header.size != VU_CONFIG_HEADER + size || reply.config.size != size)
                return error_set(err, -EPROTO, "%u bytes of config space are answered with %u",
                                 size, reply.header.size);
        memcpy(data, reply.config.data, size);
        return 0;
}

int front_set_config(struct front *f, uint32_t offset, uint32_t size, const void *data,
                     struct error *err)
{
        struct vu_config config = {.offset = offset, .size = size};

        assert(size <= VU_CONFIG_MAX);
        memcpy(config.data, data, size);
        return front_tell(f, VU_SET_CONFIG, &config, VU_CONFIG_HEADER + size, NULL, 0, err);
}

int front_channel_next(struct front *f, int timeout_ms, uint32_t *ret_request, struct error *err)
{
        struct pollfd poll_fd = {.fd = f->channel, .events = POLLIN};
        struct vu_header header;
        uint8_t payload[512];
        unsigned n_fds = 0;
        int fds[VU_FDS_MAX];

        assert(f->channel >= 0);
        int n = poll(&poll_fd, 1, timeout_ms);
        if (n == 0)
                return error_set(err, -ETIMEDOUT, "the back end says nothing on its channel");
        int r = receive(f->channel, &header, sizeof(header), fds, &n_fds, err);
        if (r == 0 && header.size > sizeof(payload))
                return error_set(err, -EPROTO, "the back end asks with %u bytes", header.size);
        if (r == 0)
                r = receive(f->channel, payload, header.size, fds, &n_fds, err);
        while (n_fds > 0)
                close(fds[--n_fds]);
        if (r < 0)
                return r;
        *ret_request = header.request;
        if (header.flags & VU_NEED_REPLY) {
                struct {
                        struct vu_header header;
                        uint64_t value;
                } __attribute__((packed))
                reply = {{header.request, VU_VERSION | VU_REPLY, sizeof(uint64_t)}, 0};
                if (send(f->channel, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
                        return error_set(err, -EIO, "the back end's channel takes no answer");
        }
        return 0;
}
