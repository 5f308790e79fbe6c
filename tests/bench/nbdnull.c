/* nbdnull - the bare NBD protocol without a disk: the limit that a server over one socket can
 * reach.
 *
 * Reads give zeroes, writes are dropped. Batched: one receive takes many requests, one send carries
 * all their answers. With --unbatched: one receive and one send a request, as plain servers do.
 * Connections are threads; the socket is for this machine's benchmarks only.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "common/error.h"
#include "common/size.h"
#include "tests/bench/nbd_wire.h"

#define RECEIVE_BYTES (256u << 10)
#define BATCH_MAX     512u  /* answers in one send, at two pieces each within IOV_MAX */
#define OPTION_MAX    8192u /* payload of an option: a name of 4096 bytes and some */
#define OPTIONS_MAX   16u
#define IDLE_EXIT_MS  60000 /* nobody connected: the script that started us is gone */

static_assert(2 * BATCH_MAX <= IOV_MAX, "a batch fits one sendmsg");

static uint64_t size_bytes;
static bool unbatched;
static atomic_int n_peers;
static const uint8_t zeroes[NBD_LENGTH_MAX];

struct peer {
        int fd;
        uint8_t *in;
        size_t in_first, in_end;
        size_t drop; /* bytes of a write's payload that are still to come */
        uint8_t write_cookie[8];
        uint32_t write_error;
        bool write_waits; /* for the rest of its payload */
        uint8_t headers[BATCH_MAX][NBD_SIMPLE_REPLY_BYTES];
        struct iovec out[2 * BATCH_MAX];
        unsigned n_headers, n_out;
};

static int read_all(int fd, void *buffer, size_t len)
{
        for (size_t done = 0; done < len;) {
                ssize_t n = recv(fd, (char *)buffer + done, len - done, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ECONNRESET;
                done += (size_t)n;
        }
        return 0;
}

static int send_all(int fd, struct iovec *iov, unsigned n_iov)
{
        while (n_iov > 0) {
                struct msghdr message = {.msg_iov = iov, .msg_iovlen = n_iov};
                ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                while (n_iov > 0 && (size_t)n >= iov->iov_len) {
                        n -= (ssize_t)iov->iov_len;
                        iov++;
                        n_iov--;
                }
                if (n_iov > 0) {
                        iov->iov_base = (uint8_t *)iov->iov_base + n;
                        iov->iov_len -= (size_t)n;
                }
        }
        return 0;
}

static int send_bytes(int fd, const void *bytes, size_t len)
{
        struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
        return send_all(fd, &iov, 1);
}

static int answer_option(int fd, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
        uint8_t reply[64];

        wire_put64(reply, NBD_OPTION_REPLY_MAGIC);
        wire_put32(reply + 8, option);
        wire_put32(reply + 12, type);
        wire_put32(reply + 16, len);
        if (len > 0)
                memcpy(reply + 20, data, len);
        return send_bytes(fd, reply, 20 + len);
}

static int answer_go(int fd)
{
        uint8_t info[12];

        wire_put16(info, NBD_INFO_EXPORT);
        wire_put64(info + 2, size_bytes);
        wire_put16(info + 10, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                                  NBD_FLAG_CAN_MULTI_CONN);
        int r = answer_option(fd, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
        return r < 0 ? r : answer_option(fd, NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
}

/* 0 once the transmission phase begins. */
static int negotiate(int fd)
{
        uint8_t hello[18], header[16], payload[OPTION_MAX];

        wire_put64(hello, NBD_MAGIC);
        wire_put64(hello + 8, NBD_OPTION_MAGIC);
        wire_put16(hello + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        int r = send_bytes(fd, hello, sizeof(hello));
        if (r == 0)
                r = read_all(fd, header, 4); /* the client's flags */
        for (unsigned i = 0; r == 0 && i < OPTIONS_MAX; i++) {
                r = read_all(fd, header, sizeof(header));
                if (r < 0)
                        return r;
                uint32_t option = wire_get32(header + 8), len = wire_get32(header + 12);
                if (wire_get64(header) != NBD_OPTION_MAGIC || len > OPTION_MAX)
                        return -EPROTO;
                r = read_all(fd, payload, len);
                if (r < 0)
                        return r;
                if (option == NBD_OPT_GO)
                        return answer_go(fd);
                if (option == NBD_OPT_ABORT || option == NBD_OPT_EXPORT_NAME)
                        return -EPROTO;
                r = answer_option(fd, option, NBD_REP_ERR_UNSUP, NULL, 0);
        }
        return r < 0 ? r : -EPROTO;
}

/* Put an answer into the batch. */
static void add_answer(struct peer *p, const uint8_t *cookie, uint32_t error, size_t data_len)
{
        uint8_t *header = p->headers[p->n_headers++];

        wire_put32(header, NBD_SIMPLE_REPLY_MAGIC);
        wire_put32(header + 4, error);
        memcpy(header + 8, cookie, 8);
        struct iovec *last = p->n_out ? &p->out[p->n_out - 1] : NULL;
        if (last && (uint8_t *)last->iov_base + last->iov_len == header)
                last->iov_len += NBD_SIMPLE_REPLY_BYTES;
        else
                p->out[p->n_out++] = (struct iovec){header, NBD_SIMPLE_REPLY_BYTES};
        if (data_len > 0)
                p->out[p->n_out++] = (struct iovec){(void *)(uintptr_t)zeroes, data_len};
}

static int send_batch(struct peer *p)
{
        int r = send_all(p->fd, p->out, p->n_out);
        p->n_headers = p->n_out = 0;
        return r;
}

/* One request. -ESHUTDOWN when the client says goodbye. */
static int handle(struct peer *p, const uint8_t *request)
{
        uint16_t command = wire_get16(request + 6);
        uint64_t offset = wire_get64(request + 16);
        uint32_t length = wire_get32(request + 24);

        if (wire_get32(request) != NBD_REQUEST_MAGIC || length > NBD_LENGTH_MAX)
                return -EPROTO;
        if (command == NBD_CMD_DISC)
                return -ESHUTDOWN;
        bool inside = offset <= size_bytes && length <= size_bytes - offset;
        bool known =
            command == NBD_CMD_READ || command == NBD_CMD_WRITE || command == NBD_CMD_FLUSH;
        bool fine = inside && known;
        if (command == NBD_CMD_WRITE && length > 0) {
                memcpy(p->write_cookie, request + 8, sizeof(p->write_cookie));
                p->write_error = fine ? 0 : NBD_EINVAL;
                p->write_waits = true;
                p->drop = length;
                return 0;
        }
        add_answer(p, request + 8, fine ? 0 : NBD_EINVAL,
                   fine && command == NBD_CMD_READ ? length : 0);
        return 0;
}

static void end_write(struct peer *p)
{
        if (!p->write_waits || p->drop > 0)
                return;
        p->write_waits = false;
        add_answer(p, p->write_cookie, p->write_error, 0);
}

static void drop_payload(struct peer *p)
{
        size_t n = p->in_end - p->in_first;

        if (n > p->drop)
                n = p->drop;
        p->in_first += n;
        p->drop -= n;
}

/* All requests that have come whole, and the payloads as far as they have. */
static int take_requests(struct peer *p)
{
        for (;;) {
                drop_payload(p);
                end_write(p);
                int r = p->n_headers == BATCH_MAX ? send_batch(p) : 0;
                if (r < 0)
                        return r;
                if (p->drop > 0 || p->in_end - p->in_first < NBD_REQUEST_BYTES)
                        return send_batch(p);
                const uint8_t *request = p->in + p->in_first;
                p->in_first += NBD_REQUEST_BYTES;
                r = handle(p, request);
                if (r < 0)
                        return r;
        }
}

static int serve_batched(struct peer *p)
{
        for (;;) {
                size_t left = p->in_end - p->in_first;
                memmove(p->in, p->in + p->in_first, left);
                p->in_first = 0;
                p->in_end = left;
                ssize_t n = recv(p->fd, p->in + left, RECEIVE_BYTES - left, 0);
                if (n <= 0)
                        return n < 0 ? -errno : -ECONNRESET;
                p->in_end += (size_t)n;
                int r = take_requests(p);
                if (r < 0)
                        return r;
        }
}

static int serve_unbatched(struct peer *p)
{
        uint8_t request[NBD_REQUEST_BYTES];
        int r;

        for (;;) {
                r = read_all(p->fd, request, sizeof(request));
                if (r == 0)
                        r = handle(p, request);
                while (r == 0 && p->drop > 0) {
                        size_t n = p->drop < RECEIVE_BYTES ? p->drop : RECEIVE_BYTES;
                        r = read_all(p->fd, p->in, n);
                        p->drop -= n;
                }
                end_write(p);
                if (r == 0)
                        r = send_batch(p);
                if (r < 0)
                        return r;
        }
}

static void *serve_peer(void *arg)
{
        int fd = (int)(intptr_t)arg;
        struct peer *p = calloc(1, sizeof(*p));
        uint8_t *in = malloc(RECEIVE_BYTES);

        if (p && in && negotiate(fd) == 0) {
                p->fd = fd;
                p->in = in;
                (void)(unbatched ? serve_unbatched(p) : serve_batched(p));
        }
        close(fd);
        free(in);
        free(p);
        atomic_fetch_sub(&n_peers, 1);
        return NULL;
}

static int accept_peers(int listener)
{
        for (;;) {
                struct pollfd wait = {.fd = listener, .events = POLLIN};
                int n = poll(&wait, 1, IDLE_EXIT_MS);
                if (n == 0 && atomic_load(&n_peers) == 0)
                        return 0;
                if (n <= 0)
                        continue;
                int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd < 0)
                        continue;
                pthread_t thread;
                atomic_fetch_add(&n_peers, 1);
                if (pthread_create(&thread, NULL, serve_peer, (void *)(intptr_t)fd) != 0) {
                        atomic_fetch_sub(&n_peers, 1);
                        close(fd);
                } else
                        pthread_detach(thread);
        }
}

static int listen_unix(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        size_t len = strlen(path);

        if (len >= sizeof(address.sun_path)) {
                errno = ENAMETOOLONG;
                return -1;
        }
        memcpy(address.sun_path, path, len + 1);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 &&
            (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)) {
                int saved = errno;
                close(fd);
                errno = saved;
                return -1;
        }
        return fd;
}

int main(int argc, char **argv)
{
        struct error err = ERROR_INIT;

        unbatched = argc == 4 && strcmp(argv[3], "--unbatched") == 0;
        if (argc != 3 && !unbatched) {
                fputs("usage: nbdnull SOCKET SIZE [--unbatched]\n"
                      "Serve an NBD export of SIZE that reads as zeroes and drops writes; ends by "
                      "itself a minute after the last client.\n",
                      stderr);
                return 2;
        }
        if (size_parse(argv[2], &size_bytes, &err) < 0) {
                fprintf(stderr, "nbdnull: %s\n", err.message);
                return 2;
        }
        int listener = listen_unix(argv[1]);
        if (listener < 0) {
                fprintf(stderr, "nbdnull: cannot listen on '%s': %s\n", argv[1], strerror(errno));
                return 1;
        }
        return accept_peers(listener);
}
