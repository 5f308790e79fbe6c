/* wire.c - see wire.h. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/wire.h"

static struct wire *wire_new(int fd, const struct sockaddr *address, socklen_t length)
{
        struct wire *w = calloc(1, sizeof(*w));
        struct timeval hang = {.tv_sec = HANG_S};

        assert_non_null(w);
        assert_true(fd >= 0);
        assert_return_code(connect(fd, address, length), errno);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof(hang));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &hang, sizeof(hang));
        w->fd = fd;
        return w;
}

struct wire *wire_connect(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        return wire_new(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&address,
                        sizeof(address));
}

struct wire *wire_connect_tcp(unsigned port)
{
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

        return wire_new(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&address,
                        sizeof(address));
}

void wire_close(struct wire *w)
{
        close(w->fd);
        free(w);
}

/* With a timeout set, a call is not restarted after a signal. */
static ssize_t receive_some(struct wire *w, void *data, size_t length)
{
        ssize_t n;

        do {
                n = w->layer ? w->layer->receive(w->layer->arg, data, length)
                             : recv(w->fd, data, length, 0);
        } while (n < 0 && errno == EINTR);
        return n;
}

bool wire_try_send(struct wire *w, const void *data, size_t length)
{
        for (size_t done = 0; done < length;) {
                const uint8_t *at = (const uint8_t *)data + done;
                ssize_t n = w->layer ? w->layer->send(w->layer->arg, at, length - done)
                                     : send(w->fd, at, length - done, MSG_NOSIGNAL);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
                        return false;
                assert_true(n > 0);
                done += (size_t)n;
        }
        return true;
}

void wire_send(struct wire *w, const void *data, size_t length)
{
        assert_true(wire_try_send(w, data, length));
}

bool wire_try_receive(struct wire *w, void *data, size_t length)
{
        for (size_t done = 0; done < length;) {
                ssize_t n = receive_some(w, (uint8_t *)data + done, length - done);
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return false;
                if (n < 0)
                        fail_msg("receiving: %s", strerror(errno));
                done += (size_t)n;
        }
        return true;
}

void wire_receive(struct wire *w, void *data, size_t length)
{
        if (!wire_try_receive(w, data, length))
                fail_msg("the server closed before %zu bytes had come", length);
}

void wire_expect_closed(struct wire *w)
{
        uint8_t byte;
        ssize_t n = receive_some(w, &byte, 1);

        if (n > 0)
                fail_msg("the server sent something instead of closing");
        if (n < 0 && errno != ECONNRESET)
                fail_msg("the server did not close: %s", strerror(errno));
}

void wire_drain(struct wire *w)
{
        uint8_t buffer[65536];
        ssize_t n;

        do {
                n = receive_some(w, buffer, sizeof(buffer));
        } while (n > 0);
        if (n < 0 && errno != ECONNRESET)
                fail_msg("the server did not close: %s", strerror(errno));
}

void wire_shutdown_send(struct wire *w)
{
        shutdown(w->fd, SHUT_WR);
}

size_t wire_unsent(struct wire *w)
{
        int n = 0;

        assert_return_code(ioctl(w->fd, TIOCOUTQ, &n), errno);
        return (size_t)n;
}

bool wire_pending(struct wire *w)
{
        int n = 0;

        assert_return_code(ioctl(w->fd, FIONREAD, &n), errno);
        return n > 0;
}

bool wire_ended(struct wire *w)
{
        char byte;
        ssize_t n = recv(w->fd, &byte, 1, MSG_DONTWAIT);

        assert_true(n <= 0);
        return n == 0 || errno == ECONNRESET;
}

/* ---- handshake ---- */

void wire_greet(struct wire *w, uint32_t client_flags)
{
        struct nbd_greeting greeting;
        be32 flags = be32_make(client_flags);

        wire_receive(w, &greeting, sizeof(greeting));
        assert_memory_equal(&greeting, "NBDMAGICIHAVEOPT", 16);
        assert_int_equal(be16_get(greeting.flags), NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        wire_send(w, &flags, sizeof(flags));
}

struct wire *wire_greeted(const char *path)
{
        struct wire *w = wire_connect(path);

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        return w;
}

void wire_option(struct wire *w, uint32_t option, const void *data, size_t length)
{
        struct nbd_option header = {
            .magic = be64_make(NBD_OPTION_MAGIC),
            .option = be32_make(option),
            .length = be32_make((uint32_t)length),
        };
        wire_send(w, &header, sizeof(header));
        wire_send(w, data, length);
}

void wire_reply(struct wire *w, uint32_t option, struct wire_reply *ret_reply)
{
        struct nbd_option_reply header;

        wire_receive(w, &header, sizeof(header));
        assert_true(be64_get(header.magic) == NBD_OPTION_REP_MAGIC);
        assert_int_equal(be32_get(header.option), option);
        ret_reply->type = be32_get(header.type);
        ret_reply->length = be32_get(header.length);
        assert_true(ret_reply->length < sizeof(ret_reply->data));
        wire_receive(w, ret_reply->data, ret_reply->length);
        ret_reply->data[ret_reply->length] = 0;
}

uint32_t wire_final(struct wire *w, uint32_t option)
{
        struct wire_reply reply;

        do {
                wire_reply(w, option, &reply);
        } while (reply.type == NBD_REP_SERVER || reply.type == NBD_REP_INFO ||
                 reply.type == NBD_REP_META_CONTEXT);
        if (reply.type == NBD_REP_ACK)
                assert_int_equal(reply.length, 0);
        return reply.type;
}

uint32_t wire_ask(struct wire *w, uint32_t option, const void *data, size_t length)
{
        struct wire_reply reply;

        wire_option(w, option, data, length);
        wire_reply(w, option, &reply);
        return reply.type;
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
        be32 wire = be32_make(value);
        return (uint8_t *)memcpy(at, &wire, sizeof(wire)) + sizeof(wire);
}

static uint8_t *put16(uint8_t *at, uint16_t value)
{
        be16 wire = be16_make(value);
        return (uint8_t *)memcpy(at, &wire, sizeof(wire)) + sizeof(wire);
}

static uint8_t *put_string(uint8_t *at, const char *string)
{
        at = put32(at, (uint32_t)strlen(string));
        memcpy(at, string, strlen(string));
        return at + strlen(string);
}

size_t wire_info_data(uint8_t *data, const char *name, const uint16_t *requests, uint16_t n)
{
        uint8_t *at = put16(put_string(data, name), n);

        for (uint16_t i = 0; i < n; i++)
                at = put16(at, requests[i]);
        return (size_t)(at - data);
}

size_t wire_meta_data(uint8_t *data, const char *name, const char *const *queries)
{
        uint8_t *at = put_string(data, name);
        uint32_t n = 0;

        while (queries[n])
                n++;
        at = put32(at, n);
        for (uint32_t i = 0; i < n; i++)
                at = put_string(at, queries[i]);
        return (size_t)(at - data);
}

void wire_structured(struct wire *w)
{
        assert_int_equal(wire_ask(w, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
        w->structured = true;
}

void wire_extended(struct wire *w)
{
        assert_int_equal(wire_ask(w, NBD_OPT_EXTENDED_HEADERS, NULL, 0), NBD_REP_ACK);
        w->structured = w->extended = true;
}

void wire_set_meta(struct wire *w, const char *name)
{
        static const char *const queries[] = {"base:allocation", NULL};
        uint8_t data[8192];
        struct wire_reply reply;

        wire_option(w, NBD_OPT_SET_META_CONTEXT, data, wire_meta_data(data, name, queries));
        wire_reply(w, NBD_OPT_SET_META_CONTEXT, &reply);
        assert_int_equal(reply.type, NBD_REP_META_CONTEXT);
        assert_string_equal((char *)reply.data + 4, "base:allocation");
        assert_int_equal(wire_final(w, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
}

void wire_go(struct wire *w, const char *name, uint64_t *ret_size, uint16_t *ret_flags)
{
        uint8_t data[8192];
        struct wire_reply reply;
        struct nbd_info_export info;

        wire_option(w, NBD_OPT_GO, data, wire_info_data(data, name, NULL, 0));
        wire_reply(w, NBD_OPT_GO, &reply);
        assert_int_equal(reply.type, NBD_REP_INFO);
        assert_int_equal(reply.length, sizeof(info));
        memcpy(&info, reply.data, sizeof(info));
        assert_int_equal(be16_get(info.type), NBD_INFO_EXPORT);
        assert_int_equal(wire_final(w, NBD_OPT_GO), NBD_REP_ACK);
        if (ret_size)
                *ret_size = be64_get(info.size);
        if (ret_flags)
                *ret_flags = be16_get(info.flags);
}

struct wire *wire_open(const char *path, const char *name, bool structured)
{
        struct wire *w = wire_connect(path);

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        if (structured) {
                wire_structured(w);
                wire_set_meta(w, name);
        }
        wire_go(w, name, NULL, NULL);
        return w;
}

struct wire *wire_open_extended(const char *path, const char *name)
{
        struct wire *w = wire_connect(path);

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        wire_extended(w);
        wire_set_meta(w, name);
        wire_go(w, name, NULL, NULL);
        return w;
}

/* ---- transmission ---- */

static void request_extended(struct wire *w, uint16_t type, uint16_t flags, uint64_t cookie,
                             uint64_t offset, uint64_t length)
{
        struct nbd_extended_request header = {
            .magic = be32_make(NBD_EXTENDED_REQUEST_MAGIC),
            .flags = be16_make(flags),
            .type = be16_make(type),
            .cookie = be64_make(cookie),
            .offset = be64_make(offset),
            .length = be64_make(length),
        };
        wire_send(w, &header, sizeof(header));
}

void wire_request(struct wire *w, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset,
                  uint64_t length)
{
        struct nbd_request_header header = {
            .magic = be32_make(NBD_REQUEST_MAGIC),
            .flags = be16_make(flags),
            .type = be16_make(type),
            .cookie = be64_make(cookie),
            .offset = be64_make(offset),
            .length = be32_make((uint32_t)length),
        };
        if (w->extended) {
                request_extended(w, type, flags, cookie, offset, length);
                return;
        }
        assert_true(length <= UINT32_MAX);
        wire_send(w, &header, sizeof(header));
}

void wire_write(struct wire *w, uint16_t flags, uint64_t cookie, uint64_t offset, const void *data,
                uint32_t length)
{
        if (w->extended)
                flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
        wire_request(w, NBD_CMD_WRITE, flags, cookie, offset, length);
        wire_send(w, data, length);
}

static void answer_error_chunk(struct wire *w, struct wire_answer *answer)
{
        struct nbd_payload_error error;

        assert_int_equal(answer->type, NBD_REPLY_TYPE_ERROR);
        assert_true(answer->length >= sizeof(error));
        wire_receive(w, &error, sizeof(error));
        uint16_t length = be16_get(error.message_length);
        assert_int_equal(answer->length, sizeof(error) + length);
        assert_true(length < sizeof(answer->text));
        wire_receive(w, answer->text, length);
        answer->text[length] = 0;
        answer->error = be32_get(error.error);
        assert_int_not_equal(answer->error, 0);
}

static void answer_extended(struct wire *w, struct wire_answer *answer)
{
        struct nbd_extended_chunk chunk;

        wire_receive(w, &chunk, sizeof(chunk));
        assert_int_equal(be32_get(chunk.magic), NBD_EXTENDED_REPLY_MAGIC);
        answer->flags = be16_get(chunk.flags);
        answer->type = be16_get(chunk.type);
        answer->cookie = be64_get(chunk.cookie);
        answer->request_offset = be64_get(chunk.offset);
        assert_true(be64_get(chunk.length) <= UINT32_MAX);
        answer->length = (uint32_t)be64_get(chunk.length);
}

static void answer_structured(struct wire *w, const struct nbd_simple_reply *begun,
                              struct wire_answer *answer)
{
        struct nbd_chunk chunk;

        assert_int_equal(be32_get(begun->magic), NBD_STRUCTURED_REPLY_MAGIC);
        assert_true(w->structured);
        memcpy(&chunk, begun, sizeof(*begun));
        wire_receive(w, &chunk.length, sizeof(chunk.length));
        answer->flags = be16_get(chunk.flags);
        answer->type = be16_get(chunk.type);
        answer->length = be32_get(chunk.length);
}

void wire_answer(struct wire *w, struct wire_answer *ret_answer)
{
        struct nbd_simple_reply simple;
        be64 offset;

        memset(ret_answer, 0, sizeof(*ret_answer));
        if (w->extended) {
                answer_extended(w, ret_answer);
        } else {
                wire_receive(w, &simple, sizeof(simple));
                ret_answer->cookie = be64_get(simple.cookie);
                if (be32_get(simple.magic) == NBD_SIMPLE_REPLY_MAGIC) {
                        ret_answer->error = be32_get(simple.error);
                        return;
                }
                answer_structured(w, &simple, ret_answer);
        }
        ret_answer->structured = true;
        if (ret_answer->type & (1 << 15)) {
                answer_error_chunk(w, ret_answer);
        } else if (ret_answer->type == NBD_REPLY_TYPE_OFFSET_DATA) {
                assert_true(ret_answer->length > sizeof(offset));
                wire_receive(w, &offset, sizeof(offset));
                ret_answer->offset = be64_get(offset);
        }
}

uint32_t wire_result(struct wire *w, uint64_t cookie)
{
        struct wire_answer answer;

        wire_answer(w, &answer);
        assert_true(answer.cookie == cookie);
        if (answer.structured) {
                assert_int_equal(answer.flags, NBD_REPLY_FLAG_DONE);
                assert_true(answer.type == NBD_REPLY_TYPE_NONE ||
                            answer.type == NBD_REPLY_TYPE_ERROR);
        }
        return answer.error;
}

uint32_t wire_read_result(struct wire *w, uint64_t cookie, uint64_t offset, void *data,
                          uint32_t length)
{
        struct wire_answer answer;

        wire_answer(w, &answer);
        assert_true(answer.cookie == cookie);
        assert_int_equal(answer.structured, w->structured);
        if (answer.structured)
                assert_int_equal(answer.flags, NBD_REPLY_FLAG_DONE);
        if (answer.error)
                return answer.error;
        if (answer.structured && length == 0) {
                assert_int_equal(answer.type, NBD_REPLY_TYPE_NONE);
        } else if (answer.structured) {
                assert_int_equal(answer.type, NBD_REPLY_TYPE_OFFSET_DATA);
                assert_true(answer.offset == offset);
                assert_int_equal(answer.length, length + 8);
        }
        wire_receive(w, data, length);
        return 0;
}

uint32_t wire_read(struct wire *w, uint16_t flags, uint64_t offset, void *data, uint32_t length)
{
        wire_request(w, NBD_CMD_READ, flags, 0x5ead, offset, length);
        return wire_read_result(w, 0x5ead, offset, data, length);
}

static unsigned status_head(struct wire *w, const struct wire_answer *answer,
                            struct wire_context *context)
{
        struct nbd_payload_status_ext head;
        size_t fixed = w->extended ? 8 : 4, each = w->extended ? 16 : 8;

        assert_true(answer->structured);
        assert_int_equal(answer->type, w->extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                                                   : NBD_REPLY_TYPE_BLOCK_STATUS);
        assert_true(answer->length >= fixed + each && (answer->length - fixed) % each == 0);
        wire_receive(w, &head, fixed);
        context->id = be32_get(head.context);
        context->last = answer->flags == NBD_REPLY_FLAG_DONE;
        assert_true(context->last || answer->flags == 0);
        unsigned n = (unsigned)((answer->length - fixed) / each);
        if (w->extended)
                assert_int_equal(be32_get(head.n), n);
        return n;
}

uint32_t wire_status_chunk(struct wire *w, uint64_t cookie, struct wire_context *ret_context)
{
        struct wire_answer answer;

        wire_answer(w, &answer);
        assert_true(answer.cookie == cookie);
        if (answer.error) {
                assert_int_equal(answer.flags, answer.structured ? NBD_REPLY_FLAG_DONE : 0);
                return answer.error;
        }
        ret_context->n = status_head(w, &answer, ret_context);
        assert_true(ret_context->n <= 2048);
        for (unsigned i = 0; i < ret_context->n; i++) {
                struct nbd_status_extent wide;
                struct nbd_status_descriptor narrow;
                if (w->extended) {
                        wire_receive(w, &wide, sizeof(wide));
                        ret_context->extents[i] =
                            (struct wire_extent){be64_get(wide.length), be64_get(wide.flags)};
                } else {
                        wire_receive(w, &narrow, sizeof(narrow));
                        ret_context->extents[i] =
                            (struct wire_extent){be32_get(narrow.length), be32_get(narrow.flags)};
                }
                assert_true(ret_context->extents[i].length > 0);
        }
        return 0;
}

uint32_t wire_status(struct wire *w, uint16_t flags, uint64_t offset, uint32_t length,
                     struct nbd_status_descriptor *extents, unsigned n_max, unsigned *ret_n)
{
        static _Thread_local struct wire_context context;

        wire_request(w, NBD_CMD_BLOCK_STATUS, flags, 0x57a7, offset, length);
        uint32_t error = wire_status_chunk(w, 0x57a7, &context);
        if (error)
                return error;
        assert_true(context.last && context.n <= n_max);
        for (unsigned i = 0; i < context.n; i++)
                extents[i] =
                    (struct nbd_status_descriptor){be32_make((uint32_t)context.extents[i].length),
                                                   be32_make((uint32_t)context.extents[i].flags)};
        *ret_n = context.n;
        return 0;
}

void wire_expect_alive(struct wire *w)
{
        wire_request(w, NBD_CMD_FLUSH, 0, 0xa11fe, 0, 0);
        assert_int_equal(wire_result(w, 0xa11fe), 0);
}

uint32_t wire_command(struct wire *w, uint16_t type, uint16_t flags, uint64_t offset,
                      uint32_t length)
{
        wire_request(w, type, flags, 0xc0de, offset, length);
        return wire_result(w, 0xc0de);
}

uint32_t wire_write_wait(struct wire *w, uint16_t flags, uint64_t offset, const void *data,
                         uint32_t length)
{
        wire_write(w, flags, 0x3717e, offset, data, length);
        return wire_result(w, 0x3717e);
}
