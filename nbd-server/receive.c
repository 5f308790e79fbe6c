/* receive.c - requests off the wire. One receive takes whatever has come, up to RECEIVE_BUFFER, and
 * all the requests in it are parsed and handed on in one go. A small payload is copied from there
 * to an aligned buffer; of a large one only what has come already is copied, and the rest received
 * in place.
 *
 * Parsing stops where no slot or no bytes are left, and nothing is received while it has stopped
 * (rule 3 of README.md): receive_resume() goes on. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include "nbd-server/internal.h"

static void receive_arm(struct nbd_client *client)
{
        struct iovec *iov = &client->receive_iov;

        if (client->receiving || client->stalled || client->state != CLIENT_RUNNING)
                return;
        if (client->payload) {
                struct nbd_request *request = client->payload;
                iov->iov_base = (uint8_t *)request->buffer + client->payload_have;
                iov->iov_len = request->length - client->payload_have;
        } else {
                size_t left = client->receive_end - client->receive_start;
                if (client->receive_start > 0 && left > 0)
                        memmove(client->receive_buffer,
                                client->receive_buffer + client->receive_start, left);
                client->receive_start = 0;
                client->receive_end = left;
                iov->iov_base = client->receive_buffer + left;
                iov->iov_len = RECEIVE_BUFFER - left;
                /* After a large write another is likely:
                 * its payload is better received in place. */
                if (client->large_last && left < POOL_BLOCK)
                        iov->iov_len = POOL_BLOCK - left;
        }
        assert(iov->iov_len > 0);
        client->receiving = true;
        loop_submit(client->server->loop, &client->receive_io);
}

/* Answer with an error; the payload of a write that is refused is still to be taken off the
 * wire. */
static void refuse(struct nbd_request *request, uint32_t error, const char *text)
{
        if (request->type == NBD_CMD_WRITE)
                request->client->skip_bytes = request->length;
        reply_error(request, error, "%s", text);
}

static struct nbd_request *take_slot(struct nbd_client *client,
                                     const struct nbd_request_header *header)
{
        struct nbd_request *request = client_take_slot(client);

        request->cookie = header->cookie;
        request->flags = be16_get(header->flags);
        request->type = be16_get(header->type);
        request->offset = be64_get(header->offset);
        request->length = be32_get(header->length);
        assert(!request->buffer);
        return request;
}

/* -ENOMEM, and the request is answered. */
static int take_buffer(struct nbd_request *request)
{
        size_t length = request_buffer_bytes(request->type, request->length);

        if (length == 0)
                return 0;
        if (memory_take(request, length) < 0) {
                refuse(request, NBD_ENOMEM, "no memory for the payload");
                return -ENOMEM;
        }
        return 0;
}

/* What has come of the payload goes to the request's buffer; true where that is all of it. */
static bool take_payload(struct nbd_request *request)
{
        struct nbd_client *client = request->client;
        size_t available = client->receive_end - client->receive_start;
        size_t length = available < request->length ? available : (size_t)request->length;

        memcpy(request->buffer, client->receive_buffer + client->receive_start, length);
        client->receive_start += length;
        client->large_last = request->length > SMALL_PAYLOAD_MAX;
        if (length == request->length)
                return true;
        client->payload = request;
        client->payload_have = length;
        return false;
}

static void begin(struct nbd_client *client, const struct nbd_request_header *header)
{
        char text[ERROR_TEXT_MAX];
        struct nbd_request *request = take_slot(client, header);
        uint32_t error = request_check(request, text);

        if (error) {
                refuse(request, error, text);
                return;
        }
        if (take_buffer(request) < 0)
                return;
        if (request->type == NBD_CMD_WRITE && request->length > 0) {
                if (!take_payload(request))
                        return;
        } else {
                client->large_last = false;
        }
        request_execute(request);
}

/* Throw away what has come of a refused payload; true where none is left to come. */
static bool skip_payload(struct nbd_client *client)
{
        size_t available = client->receive_end - client->receive_start;
        size_t length = available < client->skip_bytes ? available : (size_t)client->skip_bytes;

        client->receive_start += length;
        client->skip_bytes -= length;
        return client->skip_bytes == 0;
}

/* One request from the buffer; false where it is not all there, must wait, or was the last. */
static bool parse_one(struct nbd_client *client)
{
        size_t available = client->receive_end - client->receive_start;
        struct nbd_request_header header;

        if (available < sizeof(header))
                return false;
        memcpy(&header, client->receive_buffer + client->receive_start, sizeof(header));
        if (be32_get(header.magic) != NBD_REQUEST_MAGIC) {
                client_cut(client, "it sent what is no request");
                return false;
        }
        uint16_t type = be16_get(header.type);
        uint32_t length = be32_get(header.length);
        if (type == NBD_CMD_DISC) {
                client->state = CLIENT_FINISHING;
                return false;
        }
        if (!client_has_slot(client) ||
            !memory_admits(client, request_buffer_bytes(type, length))) {
                client->stalled = true;
                return false;
        }
        /* A small payload is waited for here; a refused one too,
         * which is thrown away afterwards. */
        if (type == NBD_CMD_WRITE && length <= SMALL_PAYLOAD_MAX &&
            available < sizeof(header) + length)
                return false;
        client->receive_start += sizeof(header);
        begin(client, &header);
        return true;
}

static void parse(struct nbd_client *client)
{
        while (client->state == CLIENT_RUNNING && !client->payload) {
                if (client->skip_bytes > 0 && !skip_payload(client))
                        break;
                if (!parse_one(client))
                        break;
        }
        receive_arm(client);
        client_check_end(client);
}

static void payload_received(struct nbd_client *client, size_t length)
{
        struct nbd_request *request = client->payload;

        client->payload_have += length;
        if (client->payload_have == request->length) {
                client->payload = NULL;
                request_execute(request);
        }
}

/* Closed, or shut both ways: unlike one who only sends no more, he waits for no answer. */
static bool peer_is_gone(const struct nbd_client *client)
{
        struct pollfd p = {.fd = client->fd};

        return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

/* The stream ended. A request whose payload will never be complete was none. */
static void end_of_stream(struct nbd_client *client, int result)
{
        if (result < 0 && result != -ECONNRESET && result != -ECANCELED)
                client_cut(client, "its socket failed");
        else if (result < 0)
                client_cut(client, NULL);
        else if (client->state == CLIENT_RUNNING) {
                client->state = CLIENT_FINISHING;
                if (peer_is_gone(client))
                        volume_cancel(client->export.volume);
        }
}

static void receive_done(struct loop_io *io, int result)
{
        struct nbd_client *client = container_of(io, struct nbd_client, receive_io);

        client->receiving = false;
        if (result <= 0 && result != -EINTR && result != -EAGAIN)
                end_of_stream(client, result);
        if (client->state != CLIENT_RUNNING) {
                if (client->payload) {
                        request_release(client->payload);
                        client->payload = NULL;
                }
                client_check_end(client);
                return;
        }
        memory_touch(client);
        client->moved_bytes += result > 0 ? (uint64_t)result : 0;
        if (result > 0 && client->payload)
                payload_received(client, (size_t)result);
        else if (result > 0)
                client->receive_end += (size_t)result;
        parse(client);
}

void receive_start(struct nbd_client *client)
{
        client->receive_io = (struct loop_io){
            .op = LOOP_RECV,
            .fd = client->fd,
            .iov = &client->receive_iov,
            .n_iov = 1,
            .done = receive_done,
        };
        receive_arm(client);
}

void receive_resume(struct nbd_client *client)
{
        if (!client->stalled)
                return;
        client->stalled = false;
        parse(client);
}
