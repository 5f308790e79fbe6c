#include "tests/bench/conn.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "tests/bench/nbd_wire.h"

#define RECEIVE_BYTES   (256u << 10) /* stays in the second-level cache */
#define ANSWER_WAIT_MAX 60           /* seconds without any byte: the server hangs */

struct conn {
        struct link *link;
        unsigned depth;
        void (*done)(void *arg, struct request *r);
        void *arg;

        struct request *requests;
        uint8_t (*headers)[NBD_REQUEST_BYTES]; /* of each request, in the same order */
        unsigned *free_list; /* a ring: neighbours in time are neighbours in memory */
        unsigned free_first, free_count, in_flight;

        struct iovec *out;
        unsigned out_first, out_count;
        uint64_t queued_bytes, sent_bytes; /* since the connection began */

        uint8_t *in;
        size_t in_first, in_end;
        /* The answer whose payload is arriving. */
        struct request *arriving;
        uint8_t *target;       /* where its bytes go; NULL: nowhere */
        uint64_t arriving_len; /* still to come */
        bool arriving_last;    /* the request is answered when they have come */
};

int conn_new(struct link *link, unsigned depth, void (*done)(void *arg, struct request *r),
             void *arg, struct conn **ret_conn, struct error *err)
{
        struct timeval wait = {.tv_sec = ANSWER_WAIT_MAX};
        struct conn *c = calloc(1, sizeof(*c));

        assert(depth > 0 && depth <= CONN_DEPTH_MAX);
        if (!c)
                return error_set(err, -ENOMEM, "out of memory for a connection");
        *c = (struct conn){.link = link, .depth = depth, .done = done, .arg = arg};
        c->requests = calloc(depth, sizeof(*c->requests));
        c->headers = calloc(depth, sizeof(*c->headers));
        c->free_list = calloc(depth, sizeof(*c->free_list));
        c->out = calloc(2 * (size_t)depth, sizeof(*c->out));
        c->in = malloc(RECEIVE_BYTES);
        if (!c->requests || !c->headers || !c->free_list || !c->out || !c->in) {
                conn_free(c);
                return error_set(err, -ENOMEM, "out of memory for a connection");
        }
        for (unsigned i = 0; i < depth; i++)
                c->free_list[i] = i;
        c->free_count = depth;
        setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
        *ret_conn = c;
        return 0;
}

void conn_free(struct conn *c)
{
        if (!c)
                return;
        free(c->requests);
        free(c->headers);
        free(c->free_list);
        free(c->out);
        free(c->in);
        free(c);
}

int conn_fd(const struct conn *c)
{
        return c->link->fd;
}

unsigned conn_in_flight(const struct conn *c)
{
        return c->in_flight;
}

bool conn_wants_send(const struct conn *c)
{
        return c->out_count > 0;
}

struct request *conn_begin(struct conn *c)
{
        if (c->free_count == 0)
                return NULL;
        struct request *r = &c->requests[c->free_list[c->free_first]];
        uint32_t serial = r->serial + 1;
        *r = (struct request){.serial = serial};
        return r;
}

unsigned conn_index(const struct conn *c, const struct request *r)
{
        return (unsigned)(r - c->requests);
}

static void add_out(struct conn *c, const void *base, size_t len)
{
        c->queued_bytes += len;
        if (c->out_count > 0) {
                struct iovec *last = &c->out[c->out_first + c->out_count - 1];
                if ((uint8_t *)last->iov_base + last->iov_len == base) {
                        last->iov_len += len;
                        return;
                }
        }
        assert(c->out_first + c->out_count < 2 * c->depth);
        c->out[c->out_first + c->out_count++] =
            (struct iovec){.iov_base = (void *)(uintptr_t)base, .iov_len = len};
}

void conn_queue(struct conn *c, struct request *r)
{
        unsigned index = conn_index(c, r);
        uint8_t *header = c->headers[index];

        assert(c->free_count > 0 && c->free_list[c->free_first] == index && !r->in_flight);
        c->free_first = (c->free_first + 1) % c->depth;
        c->free_count--;
        c->in_flight++;
        r->in_flight = true;
        wire_put32(header, NBD_REQUEST_MAGIC);
        wire_put16(header + 4, r->flags);
        wire_put16(header + 6, r->command);
        wire_put64(header + 8, (uint64_t)r->serial << 32 | index);
        wire_put64(header + 16, r->offset);
        wire_put32(header + 24, r->length);
        if (c->out_first > 0 && c->out_first + c->out_count + 2 > 2 * c->depth) {
                memmove(c->out, c->out + c->out_first, c->out_count * sizeof(*c->out));
                c->out_first = 0;
        }
        add_out(c, header, NBD_REQUEST_BYTES);
        if (r->command == NBD_CMD_WRITE)
                add_out(c, r->payload, r->length);
        r->queued_until = c->queued_bytes;
}

static void advance_out(struct conn *c, size_t sent)
{
        c->sent_bytes += sent;
        while (c->out_count > 0) {
                struct iovec *first = &c->out[c->out_first];
                if (sent < first->iov_len) {
                        first->iov_base = (uint8_t *)first->iov_base + sent;
                        first->iov_len -= sent;
                        return;
                }
                sent -= first->iov_len;
                c->out_first++;
                c->out_count--;
        }
        c->out_first = 0;
}

int conn_send(struct conn *c, struct error *err)
{
        while (c->out_count > 0) {
                struct msghdr message = {.msg_iov = c->out + c->out_first,
                                         .msg_iovlen =
                                             c->out_count < IOV_MAX ? c->out_count : IOV_MAX};
                ssize_t n = sendmsg(c->link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return 0;
                if (n < 0)
                        return error_set(err, -errno, "cannot send to the server: %s",
                                         strerror(errno));
                advance_out(c, (size_t)n);
        }
        return 0;
}

static const char *command_name(uint16_t command)
{
        switch (command) {
        case NBD_CMD_READ:
                return "read";
        case NBD_CMD_WRITE:
                return "write";
        case NBD_CMD_FLUSH:
                return "flush";
        default:
                return "request";
        }
}

static int answered_error(const struct request *r, uint32_t code, struct error *err)
{
        return error_set(err, -EIO,
                         "the server answers a %s of %u bytes at offset %" PRIu64
                         " with error %u (%s)",
                         command_name(r->command), r->length, r->offset, code,
                         code < 1024 ? strerror((int)code) : "unknown");
}

static void finish(struct conn *c, struct request *r)
{
        unsigned index = conn_index(c, r);

        r->in_flight = false;
        c->in_flight--;
        c->done(c->arg, r);
        c->free_list[(c->free_first + c->free_count) % c->depth] = index;
        c->free_count++;
}

static int find_request(struct conn *c, uint64_t cookie, struct request **ret_request,
                        struct error *err)
{
        uint32_t index = (uint32_t)cookie;

        if (index >= c->depth || !c->requests[index].in_flight ||
            c->requests[index].serial != cookie >> 32)
                return error_set(err, -EPROTO,
                                 "the server answers request %#" PRIx64 ", which is not in flight",
                                 cookie);
        /* Its memory is still being sent, and could not be used again. */
        if (c->requests[index].queued_until > c->sent_bytes)
                return error_set(err, -EPROTO,
                                 "the server answers a request before it has all of it");
        *ret_request = &c->requests[index];
        return 0;
}

/* Take bytes for the payload that is arriving out of the buffer. */
static void take_payload(struct conn *c)
{
        size_t n = c->in_end - c->in_first;
        struct request *r = c->arriving;

        if (n > c->arriving_len)
                n = c->arriving_len;
        if (c->target) {
                memcpy(c->target, c->in + c->in_first, n);
                c->target += n;
        }
        c->in_first += n;
        c->arriving_len -= n;
        if (c->arriving_len > 0)
                return;
        c->arriving = NULL;
        if (c->arriving_last)
                finish(c, r);
}

static void expect_payload(struct conn *c, struct request *r, uint32_t at, uint32_t len, bool last)
{
        c->arriving = r;
        c->target = r->data ? r->data + at : NULL;
        c->arriving_len = len;
        c->arriving_last = last;
        r->received += len;
}

/* Returns 1 when a header was taken, 0 when more bytes are needed. */
static int parse_simple(struct conn *c, const uint8_t *p, struct error *err)
{
        struct request *r = NULL;

        int result = find_request(c, wire_get64(p + 8), &r, err);
        if (result < 0)
                return result;
        if (wire_get32(p + 4) != 0)
                return answered_error(r, wire_get32(p + 4), err);
        if (r->command == NBD_CMD_READ && c->link->structured)
                return error_set(err, -EPROTO,
                                 "the server answers a read with a simple reply after agreeing "
                                 "on structured ones");
        c->in_first += NBD_SIMPLE_REPLY_BYTES;
        if (r->command == NBD_CMD_READ)
                expect_payload(c, r, 0, r->length, true);
        else
                finish(c, r);
        return 1;
}

static int parse_read_chunk(struct conn *c, struct request *r, uint16_t type, const uint8_t *p,
                            uint32_t len, bool last, struct error *err)
{
        bool is_hole = type == NBD_REPLY_TYPE_OFFSET_HOLE;
        uint64_t at = wire_get64(p) - r->offset;
        uint32_t bytes = is_hole ? wire_get32(p + 8) : len - 8;

        if (r->command != NBD_CMD_READ || at > r->length || bytes > r->length - at)
                return error_set(err, -EPROTO,
                                 "the server sends a chunk that lies outside the read it answers");
        c->in_first += NBD_STRUCTURED_REPLY_BYTES + (is_hole ? 12 : 8);
        if (!is_hole) {
                expect_payload(c, r, (uint32_t)at, bytes, last);
                return 1;
        }
        if (r->data)
                memset(r->data + at, 0, bytes);
        r->received += bytes;
        if (last)
                finish(c, r);
        return 1;
}

static int parse_chunk(struct conn *c, const uint8_t *p, size_t available, struct error *err)
{
        uint16_t flags = wire_get16(p + 4), type = wire_get16(p + 6);
        uint32_t len = wire_get32(p + 16);
        struct request *r = NULL;

        int result = find_request(c, wire_get64(p + 8), &r, err);
        if (result < 0)
                return result;
        bool last = flags & NBD_REPLY_FLAG_DONE;
        bool is_data = type == NBD_REPLY_TYPE_OFFSET_DATA && len > 8;
        bool is_hole = type == NBD_REPLY_TYPE_OFFSET_HOLE && len == 12;
        bool is_error = type >= NBD_REPLY_TYPE_ERROR && len >= 4;
        size_t needed = NBD_STRUCTURED_REPLY_BYTES + (is_hole    ? 12
                                                      : is_data  ? 8
                                                      : is_error ? 4
                                                                 : 0);

        if (available < needed)
                return 0;
        p += NBD_STRUCTURED_REPLY_BYTES;
        if (is_error)
                return answered_error(r, wire_get32(p), err);
        if (is_data || is_hole)
                return parse_read_chunk(c, r, type, p, len, last, err);
        if (type != NBD_REPLY_TYPE_NONE || len != 0 || !last)
                return error_set(err, -EPROTO, "the server sends a chunk of type %u, length %u",
                                 type, len);
        c->in_first += NBD_STRUCTURED_REPLY_BYTES;
        finish(c, r);
        return 1;
}

static int parse(struct conn *c, struct error *err)
{
        for (;;) {
                if (c->arriving) {
                        take_payload(c);
                        if (c->arriving)
                                return 0;
                }
                const uint8_t *p = c->in + c->in_first;
                size_t available = c->in_end - c->in_first;
                int r = 0;
                if (available < NBD_SIMPLE_REPLY_BYTES)
                        return 0;
                if (wire_get32(p) == NBD_SIMPLE_REPLY_MAGIC)
                        r = parse_simple(c, p, err);
                else if (wire_get32(p) != NBD_STRUCTURED_REPLY_MAGIC)
                        return error_set(err, -EPROTO, "the server sends rubbish");
                else if (available >= NBD_STRUCTURED_REPLY_BYTES)
                        r = parse_chunk(c, p, available, err);
                if (r <= 0)
                        return r;
        }
}

int conn_receive(struct conn *c, bool wait, struct error *err)
{
        size_t left = c->in_end - c->in_first;

        if (left > 0 && c->in_first > 0)
                memmove(c->in, c->in + c->in_first, left);
        c->in_first = 0;
        c->in_end = left;
        ssize_t n = recv(c->link->fd, c->in + left, RECEIVE_BYTES - left, wait ? 0 : MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
                return 0;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                return wait ? error_set(err, -ETIMEDOUT,
                                        "the server has not answered for %d seconds",
                                        ANSWER_WAIT_MAX)
                            : 0;
        if (n <= 0)
                return error_set(err, n < 0 ? -errno : -ECONNRESET,
                                 "the server closed the connection with %u requests unanswered",
                                 c->in_flight);
        c->in_end += (size_t)n;
        return parse(c, err);
}
