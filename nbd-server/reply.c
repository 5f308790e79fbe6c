/* reply.c - replies: formed in the request's slot, gathered over an iteration of the loop, sent by
 * one sendmsg. A request keeps its slot and its buffer until the kernel has taken the last byte of
 * its reply: so a client that does not read is bounded by what it may have in flight. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "nbd-server/tls.h"

void reply_queue(struct nbd_request *request)
{
        struct nbd_client *client = request->client;

        if (request == client->refused)
                return; /* receive.c does it when the payload has come */
        if (client->state == CLIENT_DEAD) {
                request_release(request);
                client_check_end(client);
                return;
        }
        list_append(&client->replies, &request->link);
        if (!client->sending)
                loop_post(client->worker->loop, &client->send_task);
}

void reply_never(struct nbd_request *request)
{
        struct nbd_client *client = request->client;

        client->unanswered = true;
        request_release(request);
        client_check_end(client);
}

/* ---- forms ---- */

size_t reply_put_chunk(const struct nbd_request *request, void *at, uint16_t flags, uint16_t type,
                       size_t length)
{
        if (request->client->extended) {
                struct nbd_extended_chunk chunk = {
                    .magic = be32_make(NBD_EXTENDED_REPLY_MAGIC),
                    .flags = be16_make(flags),
                    .type = be16_make(type),
                    .cookie = request->cookie,
                    .offset = be64_make(request->offset),
                    .length = be64_make(length),
                };
                memcpy(at, &chunk, sizeof(chunk));
                return sizeof(chunk);
        }
        struct nbd_chunk chunk = {
            .magic = be32_make(NBD_STRUCTURED_REPLY_MAGIC),
            .flags = be16_make(flags),
            .type = be16_make(type),
            .cookie = request->cookie,
            .length = be32_make((uint32_t)length),
        };
        memcpy(at, &chunk, sizeof(chunk));
        return sizeof(chunk);
}

static void head_chunk(struct nbd_request *request, uint16_t type, size_t length)
{
        request->head_bytes =
            (unsigned)reply_put_chunk(request, request->head, NBD_REPLY_FLAG_DONE, type, length);
}

static void head_add(struct nbd_request *request, const void *data, size_t length)
{
        assert(request->head_bytes + length <= sizeof(request->head));
        memcpy(request->head + request->head_bytes, data, length);
        request->head_bytes += (unsigned)length;
}

static void head_simple(struct nbd_request *request, uint32_t error)
{
        struct nbd_simple_reply simple = {
            .magic = be32_make(NBD_SIMPLE_REPLY_MAGIC),
            .error = be32_make(error),
            .cookie = request->cookie,
        };
        request->head_bytes = 0;
        head_add(request, &simple, sizeof(simple));
}

/* ---- replies ---- */

void reply_success(struct nbd_request *request)
{
        const struct nbd_client *client = request->client;

        /* Structured replies agreed, simple ones stay legal for all but READ, and are shorter; with
         * extended headers there are none. */
        if (client->extended || (client->structured && request->type == NBD_CMD_READ))
                head_chunk(request, NBD_REPLY_TYPE_NONE, 0);
        else
                head_simple(request, NBD_SUCCESS);
        request->payload_bytes = 0;
        reply_queue(request);
}

static void head_error(struct nbd_request *request, uint32_t error, const char *text, size_t length)
{
        struct nbd_payload_error payload = {
            .error = be32_make(error),
            .message_length = be16_make((uint16_t)length),
        };
        head_chunk(request, NBD_REPLY_TYPE_ERROR, sizeof(payload) + length);
        head_add(request, &payload, sizeof(payload));
        head_add(request, text, length);
}

void reply_error(struct nbd_request *request, uint32_t error, const char *format, ...)
{
        char text[ERROR_TEXT_MAX];
        va_list arguments;

        assert(error != NBD_SUCCESS);
        if (request->client->structured) {
                va_start(arguments, format);
                int n = vsnprintf(text, sizeof(text), format, arguments);
                va_end(arguments);
                head_error(request, error, text,
                           n < 0                    ? 0
                           : n >= (int)sizeof(text) ? sizeof(text) - 1
                                                    : (size_t)n);
        } else {
                head_simple(request, error);
        }
        request->payload_bytes = 0;
        reply_queue(request);
}

/* The data are complete: nothing can fail after them, so their chunk may be the last (proto.md,
 * NBD_CMD_READ), and it is one chunk whether or not DF was asked for. */
void reply_read(struct nbd_request *request)
{
        if (request->client->structured) {
                struct nbd_payload_data payload = {be64_make(request->offset)};
                head_chunk(request, NBD_REPLY_TYPE_OFFSET_DATA, sizeof(payload) + request->length);
                head_add(request, &payload, sizeof(payload));
        } else {
                head_simple(request, NBD_SUCCESS);
        }
        request->payload_bytes = request->length;
        reply_queue(request);
}

void reply_chunks(struct nbd_request *request, size_t length)
{
        request->head_bytes = 0;
        request->payload_bytes = length;
        reply_queue(request);
}

void request_release(struct nbd_request *request)
{
        struct nbd_client *client = request->client;

        memory_give(request);
        assert(client->n_requests > 0);
        client->n_requests--;
        list_prepend(&client->free, &request->link); /* the slot that is warm is used next */
}

void reply_drop_all(struct nbd_client *client)
{
        assert(!client->sending);
        list_for_each_safe (it, &client->replies) {
                list_remove(it);
                request_release(container_of(it, struct nbd_request, link));
        }
}

/* One byte range after another; those that touch become one. */
static unsigned add_iov(struct iovec *iov, unsigned n, void *base, size_t length, size_t *skip)
{
        if (*skip >= length) {
                *skip -= length;
                return n;
        }
        iov[n] = (struct iovec){(uint8_t *)base + *skip, length - *skip};
        *skip = 0;
        return n + 1;
}

static void send_start(struct nbd_client *client)
{
        size_t skip = client->sent_bytes;
        unsigned n = 0, n_max = 2 * client->server->options.max_requests;

        if (n_max > REPLY_IOV_MAX)
                n_max = REPLY_IOV_MAX;
        list_for_each (it, &client->replies) {
                struct nbd_request *r = container_of(it, struct nbd_request, link);
                if (n + 2 > n_max)
                        break;
                n = add_iov(client->send_iov, n, r->head, r->head_bytes, &skip);
                if (r->payload_bytes > 0)
                        n = add_iov(client->send_iov, n, r->buffer, r->payload_bytes, &skip);
        }
        client->send_io.iov = client->send_iov;
        client->send_io.n_iov = n;
        client->sending = true;
        if (client->tls)
                tls_send(client);
        else
                loop_submit(client->worker->loop, &client->send_io);
}

void reply_send_task(struct loop_task *task)
{
        struct nbd_client *client = container_of(task, struct nbd_client, send_task);

        if (client->state != CLIENT_DEAD && !client->sending && !list_empty(&client->replies))
                send_start(client);
        client_check_end(client);
}

void reply_send_done(struct loop_io *io, int result)
{
        struct nbd_client *client = container_of(io, struct nbd_client, send_io);

        client->sending = false;
        if (result <= 0 && result != -EINTR && result != -EAGAIN)
                client_cut(client, "its socket takes no more replies");
        if (client->state == CLIENT_DEAD) {
                client_check_end(client);
                return;
        }
        size_t sent = client->sent_bytes + (result > 0 ? (size_t)result : 0);
        client->moved_bytes += sent - client->sent_bytes;
        list_for_each_safe (it, &client->replies) {
                struct nbd_request *r = container_of(it, struct nbd_request, link);
                size_t length = r->head_bytes + r->payload_bytes;
                if (sent < length)
                        break;
                sent -= length;
                list_remove(it);
                request_release(r);
        }
        client->sent_bytes = sent;
        if (!list_empty(&client->replies))
                send_start(client);
        receive_resume(client);
        client_check_end(client);
}
