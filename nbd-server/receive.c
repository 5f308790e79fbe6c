/* receive.c - requests off the wire. One receive takes whatever has come, up to RECEIVE_BUFFER, and
 * all the requests in it are parsed and handed on in one go. A small payload is copied from there
 * to an aligned buffer; of a large one only what has come already is copied, and the rest received
 * in place.
 *
 * Parsing stops where no slot or no bytes are left, and nothing is received while it has stopped
 * (rule 3 of README.md): receive_resume() goes on. */
#include <assert.h>
#include <errno.h>
#include "nbd-server/tls.h"

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
        if (client->tls)
                tls_receive(client);
        else
                loop_submit(client->worker->loop, &client->receive_io);
}

/* ---- headers ---- */

/* A request's header, in either form. */
struct header {
        size_t bytes;
        uint16_t flags, type;
        be64 cookie;
        uint64_t offset, length;
        uint64_t payload; /* bytes that follow it */
};

static bool magic_is(struct nbd_client *client, be32 magic, uint32_t expected)
{
        if (be32_get(magic) == expected)
                return true;
        client_cut(client, "it sent what is no request");
        return false;
}

static bool decode_compact(struct nbd_client *client, const uint8_t *at, struct header *ret)
{
        struct nbd_request_header wire;

        memcpy(&wire, at, sizeof(wire));
        *ret = (struct header){
            .bytes = sizeof(wire),
            .flags = be16_get(wire.flags),
            .type = be16_get(wire.type),
            .cookie = wire.cookie,
            .offset = be64_get(wire.offset),
            .length = be32_get(wire.length),
        };
        ret->payload = ret->type == NBD_CMD_WRITE ? ret->length : 0;
        return magic_is(client, wire.magic, NBD_REQUEST_MAGIC);
}

/* A flag says whether a payload follows, for all commands alike. */
static bool decode_extended(struct nbd_client *client, const uint8_t *at, struct header *ret)
{
        struct nbd_extended_request wire;

        memcpy(&wire, at, sizeof(wire));
        *ret = (struct header){
            .bytes = sizeof(wire),
            .flags = be16_get(wire.flags),
            .type = be16_get(wire.type),
            .cookie = wire.cookie,
            .offset = be64_get(wire.offset),
            .length = be64_get(wire.length),
        };
        ret->payload = ret->flags & NBD_CMD_FLAG_PAYLOAD_LEN ? ret->length : 0;
        if (!magic_is(client, wire.magic, NBD_EXTENDED_REQUEST_MAGIC))
                return false;
        if (ret->payload > PAYLOAD_MAX) { /* proto.md, "Request message": not to be read through */
                client_cut(client, "its payload is longer than was offered");
                return false;
        }
        return true;
}

/* False: it is not all there, or the client was cut. */
static bool decode(struct nbd_client *client, struct header *ret_header)
{
        size_t available = client->receive_end - client->receive_start;
        const uint8_t *at = client->receive_buffer + client->receive_start;

        if (client->extended)
                return available >= sizeof(struct nbd_extended_request) &&
                       decode_extended(client, at, ret_header);
        return available >= sizeof(struct nbd_request_header) &&
               decode_compact(client, at, ret_header);
}

/* ---- requests ---- */

/* Answer with an error, once the payload of what is refused has been taken off the wire. */
static void refuse(struct nbd_request *request, uint32_t error, const char *text)
{
        struct nbd_client *client = request->client;

        client->skip_bytes = request->wire_payload;
        if (client->skip_bytes > 0)
                client->refused = request;
        reply_error(request, error, "%s", text);
}

static struct nbd_request *take_slot(struct nbd_client *client, const struct header *header)
{
        struct nbd_request *request = client_take_slot(client);

        request->cookie = header->cookie;
        request->flags = header->flags;
        request->type = header->type;
        request->offset = header->offset;
        request->length = header->length;
        request->wire_payload = header->payload;
        request->contexts = ~UINT64_C(0) >> (64 - CONTEXTS_MAX);
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

/* A small payload is there, all of it. */
static uint32_t check(struct nbd_request *request, char text[ERROR_TEXT_MAX])
{
        const struct nbd_client *client = request->client;

        if (request->type == NBD_CMD_BLOCK_STATUS && request->wire_payload > 0) {
                uint32_t error = status_take_payload(
                    request, client->receive_buffer + client->receive_start, text);
                if (error)
                        return error;
        }
        return request_check(request, text);
}

static void begin(struct nbd_client *client, const struct header *header)
{
        char text[ERROR_TEXT_MAX];
        struct nbd_request *request = take_slot(client, header);
        uint32_t error = check(request, text);

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
                client->receive_start += request->wire_payload; /* taken by check() */
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
        if (client->skip_bytes > 0)
                return false;
        struct nbd_request *request = client->refused;
        client->refused = NULL;
        reply_queue(request);
        return true;
}

/* One request from the buffer; false where it is not all there, must wait, or was the last. */
static bool parse_one(struct nbd_client *client)
{
        struct header header;

        if (!decode(client, &header))
                return false;
        if (header.type == NBD_CMD_DISC) {
                client->state = CLIENT_FINISHING;
                return false;
        }
        if (!client_has_slot(client) ||
            !memory_admits(client, request_buffer_bytes(header.type, header.length))) {
                client->stalled = true;
                return false;
        }
        /* A small payload is waited for here; a refused one too,
         * which is thrown away afterwards. */
        if (header.payload > 0 && header.payload <= SMALL_PAYLOAD_MAX &&
            client->receive_end - client->receive_start < header.bytes + header.payload)
                return false;
        client->receive_start += header.bytes;
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

/* The stream ended. A request whose payload will never be complete was none. */
static void end_of_stream(struct nbd_client *client, int result)
{
        if (result == -ECANCELED && client->state == CLIENT_FINISHING)
                return; /* of its own doing: what has begun is answered still */
        if (result < 0 && result != -ECONNRESET && result != -ECANCELED)
                client_cut(client, "its socket failed");
        else if (result < 0)
                client_cut(client, NULL);
        else if (client->state == CLIENT_RUNNING) {
                client->state = CLIENT_FINISHING;
                if (client_peer_is_gone(client))
                        volume_cancel(client->export.volume);
        }
        client->hung_up = true;
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

static void receive_beside_done(struct loop_io *io, int result)
{
        rights_take(container_of(io, struct nbd_client, receive_io), io, result);
        receive_done(io, result);
}

void receive_start(struct nbd_client *client)
{
        client->receive_io = (struct loop_io){
            .op = LOOP_RECV,
            .fd = client->fd,
            .iov = &client->receive_iov,
            .n_iov = 1,
            .done = client->rights ? receive_beside_done : receive_done,
        };
        rights_arm(client, &client->receive_io);
        receive_arm(client);
}

void receive_resume(struct nbd_client *client)
{
        if (!client->stalled)
                return;
        client->stalled = false;
        parse(client);
}
