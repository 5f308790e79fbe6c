/* net_stream.c - frames over a stream socket, each behind its length in four bytes, big-endian.
 *
 * The framing outlives resets of the device: what was sent in part is sent to its end, whatever the
 * guest does meanwhile.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/list.h"
#include "vmm-glue/vmm/net_backend.h"

#define LENGTH_SIZE 4u
/* So much is asked for at once; a frame that has come in part is moved to the beginning. */
#define BUFFER_SIZE (256u << 10)
static_assert(BUFFER_SIZE >= 2 * (LENGTH_SIZE + NET_FRAME_MAX), "room for a frame behind another");

struct stream {
        struct net_backend backend;
        size_t start, end; /* of what lies in data and was not consumed */
        size_t left;       /* the last bytes of rest, which still have to be sent */
        size_t rest_size;
        uint8_t rest[LENGTH_SIZE + NET_FRAME_MAX];
        uint8_t data[BUFFER_SIZE];
};

static struct stream *stream_of(struct net_backend *b)
{
        return container_of(b, struct stream, backend);
}

/* ---- sending ---- */

/* How many bytes it took. */
static ssize_t push(int fd, struct iovec *iov, unsigned n_iov)
{
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n_iov};
        ssize_t n;

        do
                n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

static int stream_flush(struct net_backend *b)
{
        struct stream *s = stream_of(b);

        while (s->left > 0) {
                struct iovec iov = {s->rest + s->rest_size - s->left, s->left};
                ssize_t n = push(b->fd, &iov, 1);

                if (n < 0)
                        return (int)n;
                s->left -= (size_t)n;
        }
        return 0;
}

/* Leave out the first @length bytes. */
static void skip(struct iovec **iov, unsigned *n_iov, size_t length)
{
        while (*n_iov > 0 && length >= (*iov)->iov_len) {
                length -= (*iov)->iov_len;
                (*iov)++;
                (*n_iov)--;
        }
        if (length > 0) {
                assert(*n_iov > 0);
                (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + length;
                (*iov)->iov_len -= length;
        }
}

static void keep_rest(struct stream *s, const struct iovec *iov, unsigned n_iov)
{
        s->rest_size = 0;
        for (unsigned i = 0; i < n_iov; i++) {
                assert(iov[i].iov_len <= sizeof(s->rest) - s->rest_size);
                memcpy(s->rest + s->rest_size, iov[i].iov_base, iov[i].iov_len);
                s->rest_size += iov[i].iov_len;
        }
        s->left = s->rest_size;
}

static int stream_send(struct net_backend *b, struct iovec *iov, unsigned n_iov)
{
        struct stream *s = stream_of(b);
        struct iovec all[1 + NET_PIECES_MAX], *at = all;
        size_t length = 0;
        uint32_t word;
        ssize_t n;
        int r = stream_flush(b);

        if (r < 0)
                return r;
        skip(&iov, &n_iov, NET_HEADER_SIZE);
        assert(n_iov <= NET_PIECES_MAX);
        for (unsigned i = 0; i < n_iov; i++)
                length += iov[i].iov_len;
        assert(length <= NET_FRAME_MAX);
        word = htobe32((uint32_t)length);
        all[0] = (struct iovec){&word, LENGTH_SIZE};
        memcpy(all + 1, iov, n_iov * sizeof(*iov));
        n_iov++;
        n = push(b->fd, all, n_iov);
        if (n < 0)
                return (int)n;
        skip(&at, &n_iov, (size_t)n);
        keep_rest(s, at, n_iov);
        return 0;
}

/* ---- receiving ---- */

/* 1: more has come. */
static int fill(struct stream *s)
{
        ssize_t n;

        if (s->start == s->end) {
                s->start = s->end = 0;
        } else if (sizeof(s->data) - s->start < LENGTH_SIZE + NET_FRAME_MAX) {
                memmove(s->data, s->data + s->start, s->end - s->start);
                s->end -= s->start;
                s->start = 0;
        }
        do
                n = recv(s->backend.fd, s->data + s->end, sizeof(s->data) - s->end, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        s->end += (size_t)n;
        return n > 0 ? 1 : -ECONNRESET;
}

static int stream_receive(struct net_backend *b, struct net_frame *ret_frame)
{
        static const uint8_t no_header[NET_HEADER_SIZE];
        struct stream *s = stream_of(b);

        for (;;) {
                size_t have = s->end - s->start;
                uint32_t length = 0;
                int r;

                if (have >= LENGTH_SIZE) {
                        memcpy(&length, s->data + s->start, LENGTH_SIZE);
                        length = be32toh(length);
                        /* Where the next one would begin, nobody knows. */
                        if (length > NET_FRAME_MAX)
                                return -EPROTO;
                        if (have - LENGTH_SIZE >= length) {
                                *ret_frame =
                                    (struct net_frame){.header = no_header,
                                                       .data = s->data + s->start + LENGTH_SIZE,
                                                       .length = length};
                                return 1;
                        }
                }
                r = fill(s);
                if (r < 0)
                        return r;
        }
}

static void stream_consume(struct net_backend *b)
{
        struct stream *s = stream_of(b);
        uint32_t length;

        memcpy(&length, s->data + s->start, LENGTH_SIZE);
        s->start += LENGTH_SIZE + be32toh(length);
        assert(s->start <= s->end);
}

static void stream_free(struct net_backend *b)
{
        close(b->fd);
        free(stream_of(b));
}

static const struct net_backend_ops stream_ops = {
    .send = stream_send,
    .flush = stream_flush,
    .receive = stream_receive,
    .consume = stream_consume,
    .free = stream_free,
};

int net_stream_new(int fd, struct net_backend **ret_backend, struct error *err)
{
        struct stream *s = calloc(1, sizeof(*s));

        if (!s) {
                close(fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        s->backend = (struct net_backend){.ops = &stream_ops, .fd = fd};
        *ret_backend = &s->backend;
        return 0;
}
