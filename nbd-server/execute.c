/* execute.c - requests: what each may carry, and its way to the engine. All checks stand in
 * request_check().
 *
 * READ, WRITE, FLUSH, TRIM and WRITE_ZEROES go straight to volume_submit() and end in a callback.
 * What may have to wait in between (BLOCK_STATUS, CACHE) is done by the client's coroutine, one at
 * a time: many such requests at once cost no more stacks than one. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include "nbd-server/internal.h"

/* WRITE_ZEROES that must leave the range provisioned writes these. */
#define ZEROES_BYTES (64u << 10)
#define ZEROES_IOVS  16u
/* TRIM and other WRITE_ZEROES go to the engine in slices up to this: between two of them a client
 * that has gone ends it. The engine lets others run within one. */
#define CLEAR_SLICE (UINT64_C(4) << 30)
static uint8_t zeroes[ZEROES_BYTES] __attribute__((aligned(POOL_BLOCK)));
static struct iovec zeroes_iov[ZEROES_IOVS] = {
    [0 ... ZEROES_IOVS - 1] = {zeroes, ZEROES_BYTES},
};

static void start_read(struct nbd_request *request);
static void start_write(struct nbd_request *request);
static void start_flush(struct nbd_request *request);
static void start_slices(struct nbd_request *request);
static void start_slow(struct nbd_request *request);

struct command {
        const char *name;
        void (*start)(struct nbd_request *request); /* NULL: no such command */
        uint16_t flags;          /* beside FUA, which all take (proto.md, "Command flags") */
        uint16_t extended_flags; /* those too, with extended headers */
        bool writes;
        bool payload;      /* its length is bounded by PAYLOAD_MAX */
        uint32_t past_end; /* error for a range that is not inside the export */
};

static const struct command commands[] = {
    [NBD_CMD_READ] = {.name = "read",
                      .start = start_read,
                      .flags = NBD_CMD_FLAG_DF,
                      .payload = true,
                      .past_end = NBD_EINVAL},
    [NBD_CMD_WRITE] = {.name = "write",
                       .start = start_write,
                       .extended_flags = NBD_CMD_FLAG_PAYLOAD_LEN,
                       .writes = true,
                       .payload = true,
                       .past_end = NBD_ENOSPC},
    [NBD_CMD_FLUSH] = {.name = "flush", .start = start_flush, .past_end = NBD_EINVAL},
    [NBD_CMD_TRIM] = {.name = "trim",
                      .start = start_slices,
                      .writes = true,
                      .past_end = NBD_EINVAL},
    [NBD_CMD_CACHE] = {.name = "cache", .start = start_slow, .past_end = NBD_EINVAL},
    [NBD_CMD_WRITE_ZEROES] = {.name = "write zeroes",
                              .start = start_slices,
                              .flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
                              .writes = true,
                              .past_end = NBD_ENOSPC},
    [NBD_CMD_BLOCK_STATUS] = {.name = "block status",
                              .start = start_slow,
                              .flags = NBD_CMD_FLAG_REQ_ONE,
                              .extended_flags = NBD_CMD_FLAG_PAYLOAD_LEN,
                              .past_end = NBD_EINVAL},
};

static const struct command *find_command(uint16_t type)
{
        if (type >= sizeof(commands) / sizeof(commands[0]) || !commands[type].start)
                return NULL;
        return &commands[type];
}

#define FAIL(error, ...) (snprintf(text, ERROR_TEXT_MAX, __VA_ARGS__), (error))

static uint32_t check_flags(const struct nbd_request *request, const struct command *command,
                            char text[ERROR_TEXT_MAX])
{
        const struct nbd_client *client = request->client;
        unsigned known = command->flags | NBD_CMD_FLAG_FUA;

        if (client->extended)
                known |= command->extended_flags;
        if (request->flags & ~known)
                return FAIL(NBD_EINVAL, "%s does not take the flags 0x%x", command->name,
                            request->flags & ~known);
        if ((request->flags & NBD_CMD_FLAG_DF) && !client->structured)
                return FAIL(NBD_EINVAL, "the flag DF needs structured replies");
        if (client->extended && request->type == NBD_CMD_WRITE && request->length > 0 &&
            !(request->flags & NBD_CMD_FLAG_PAYLOAD_LEN))
                return FAIL(NBD_EINVAL, "a write without the flag PAYLOAD_LEN brings no data");
        return NBD_SUCCESS;
}

uint64_t request_limit(const struct nbd_client *client)
{
        uint64_t size = volume_size(client->export.volume);

        return size < client->size ? size : client->size;
}

static bool in_range(const struct nbd_request *request)
{
        uint64_t limit = request_limit(request->client);

        return request->offset <= limit && request->length <= limit - request->offset;
}

/* EOVERFLOW tells the client to ask for less at a time (proto.md, NBD_CMD_READ); one that does not
 * speak of unfragmented reads or extended headers may not know it. */
static uint32_t check_range(const struct nbd_request *request, const struct command *command,
                            char text[ERROR_TEXT_MAX])
{
        bool overflow = (request->flags & NBD_CMD_FLAG_DF) ||
                        (request->client->extended && request->type == NBD_CMD_READ);

        if (!in_range(request))
                return FAIL(command->past_end,
                            "out of range: offset=%" PRIu64 " length=%" PRIu64
                            " export size=%" PRIu64,
                            request->offset, request->length, request_limit(request->client));
        if (command->payload && request->length > PAYLOAD_MAX)
                return FAIL(overflow ? NBD_EOVERFLOW : NBD_EINVAL,
                            "%s of %" PRIu64 " bytes: the most is %u", command->name,
                            request->length, PAYLOAD_MAX);
        return NBD_SUCCESS;
}

uint32_t request_check(const struct nbd_request *request, char text[ERROR_TEXT_MAX])
{
        const struct nbd_client *client = request->client;
        const struct command *command = find_command(request->type);

        if (client->server->stopping && !client->server->leaving)
                return FAIL(NBD_ESHUTDOWN, "the server is shutting down");
        if (!command)
                return FAIL(NBD_EINVAL, "unknown command %u", request->type);
        uint32_t error = check_flags(request, command, text);
        if (error)
                return error;
        if (command->writes && client->export.readonly)
                return FAIL(NBD_EPERM, "the export is read-only");
        if (request->type == NBD_CMD_BLOCK_STATUS && client->n_contexts == 0)
                return FAIL(NBD_EINVAL, "block status without a metadata context agreed on");
        if (request->type == NBD_CMD_FLUSH) {
                if (request->offset || request->length)
                        return FAIL(NBD_EINVAL, "offset and length of a flush must be zero");
                return NBD_SUCCESS;
        }
        error = check_range(request, command, text);
        if (error)
                return error;
        if (request->type == NBD_CMD_BLOCK_STATUS && request->length == 0)
                return FAIL(NBD_EINVAL,
                            "block status of no bytes: there is no reply without an extent");
        if ((request->flags & NBD_CMD_FLAG_FAST_ZERO) && (request->flags & NBD_CMD_FLAG_NO_HOLE))
                return FAIL(NBD_ENOTSUP,
                            "provisioned zeroes are written, which is no faster than a write");
        return NBD_SUCCESS;
}

size_t request_buffer_bytes(uint16_t type, uint64_t length)
{
        switch (type) {
        case NBD_CMD_READ:
        case NBD_CMD_WRITE:
                return length <= PAYLOAD_MAX ? (size_t)length : 0;
        case NBD_CMD_BLOCK_STATUS:
                return STATUS_BYTES;
        default:
                return 0;
        }
}

/* Of no bytes: "the server SHOULD NOT disconnect". A trim is a hint, which the volume's owner may
 * have turned off. */
static bool does_nothing(const struct nbd_request *request)
{
        return (request->length == 0 && request->type != NBD_CMD_FLUSH) ||
               (request->type == NBD_CMD_TRIM && !volume_discards(request->client->export.volume));
}

void request_execute(struct nbd_request *request)
{
        const struct command *command = find_command(request->type);

        assert(command);
        if (does_nothing(request))
                reply_success(request);
        else
                command->start(request);
}

/* ---- by callbacks ---- */

void request_fail(struct nbd_request *request, int result)
{
        const struct command *command = &commands[request->type];
        bool fast_zero = (request->flags & NBD_CMD_FLAG_FAST_ZERO) != 0;
        uint32_t error = nbd_error_from_errno(result, fast_zero);

        if (result == -ECANCELED && request->client->server->stopping) {
                reply_never(request);
                return;
        }
        /* It was in range when it was checked, and the volume has shrunk since. */
        if (result == -EINVAL && !in_range(request))
                error = command->past_end;
        reply_error(request, error, "%s failed at offset=%" PRIu64 " length=%" PRIu64 ": error %d",
                    command->name, request->offset, request->length, -result);
}

static void submit(struct nbd_request *request, enum volume_op op,
                   void (*done)(struct volume_request *io, int result))
{
        struct volume_request *io = &request->io;

        io->op = op;
        io->flags = request->flags & NBD_CMD_FLAG_FUA ? VOLUME_FUA : 0;
        io->offset = request->offset;
        io->length = request->length;
        io->iov = NULL;
        io->n_iov = 0;
        io->done = done;
        if (op == VOLUME_READ || op == VOLUME_WRITE) {
                request->iov = (struct iovec){request->buffer, request->length};
                io->iov = &request->iov;
                io->n_iov = 1;
        }
        volume_submit(request->client->export.volume, io);
}

static struct nbd_request *from_io(struct volume_request *io)
{
        return container_of(io, struct nbd_request, io);
}

static void read_done(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        if (result < 0) {
                request_fail(request, result);
                return;
        }
        counter_add(&request->client->reads, 1);
        counter_add(&request->client->read_bytes, request->length);
        reply_read(request);
}

static void start_read(struct nbd_request *request)
{
        request->flags &= (uint16_t)~NBD_CMD_FLAG_FUA; /* legal, and without a meaning */
        submit(request, VOLUME_READ, read_done);
}

static void write_done(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        if (result < 0) {
                request_fail(request, result);
                return;
        }
        counter_add(&request->client->writes, 1);
        counter_add(&request->client->write_bytes, request->length);
        reply_success(request);
}

static void start_write(struct nbd_request *request)
{
        submit(request, VOLUME_WRITE, write_done);
}

static void flush_done(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        if (result < 0) {
                request_fail(request, result);
                return;
        }
        counter_add(&request->client->flushes, 1);
        reply_success(request);
}

static void start_flush(struct nbd_request *request)
{
        request->flags &= (uint16_t)~NBD_CMD_FLAG_FUA;
        submit(request, VOLUME_FLUSH, flush_done);
}

/* ---- TRIM and WRITE_ZEROES of any length, slice by slice ---- */

static void next_slice(struct nbd_request *request);

static void slices_end(struct nbd_request *request)
{
        if (request->type == NBD_CMD_WRITE_ZEROES) {
                counter_add(&request->client->writes, 1);
                counter_add(&request->client->write_bytes, request->length);
        }
        reply_success(request);
}

static void slices_flushed(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        if (result < 0)
                request_fail(request, result);
        else
                slices_end(request);
}

/* Slices are durable by one flush at the end, but for one alone, which asks for it itself. */
static void slice_done(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        /* Nobody waits for the rest, and who cut the client off must not either. */
        if (result == 0 && request->done_bytes + io->length < request->length &&
            client_is_gone(request->client))
                result = -ECANCELED;
        if (result < 0) {
                request_fail(request, result);
                return;
        }
        request->done_bytes += io->length;
        if (request->done_bytes < request->length)
                next_slice(request);
        else if ((request->flags & NBD_CMD_FLAG_FUA) && !(io->flags & VOLUME_FUA))
                submit(request, VOLUME_FLUSH, slices_flushed);
        else
                slices_end(request);
}

static void submit_slice(struct nbd_request *request, enum volume_op op, uint64_t length)
{
        struct volume_request *io = &request->io;

        io->op = op;
        io->flags = 0;
        io->offset = request->offset + request->done_bytes;
        io->length = length;
        io->done = slice_done;
        volume_submit(request->client->export.volume, io);
}

/* Zeroes that keep their space: data. Whole pieces of zeroes[] first, the rest in a slice of its
 * own. */
static void next_slice_of_data(struct nbd_request *request)
{
        struct volume_request *io = &request->io;
        uint64_t left = request->length - request->done_bytes;
        uint64_t length = left < ZEROES_BYTES * ZEROES_IOVS ? left : ZEROES_BYTES * ZEROES_IOVS;

        io->iov = zeroes_iov;
        io->n_iov = (unsigned)(length / ZEROES_BYTES);
        if (io->n_iov > 0) {
                length = io->n_iov * (uint64_t)ZEROES_BYTES;
        } else {
                request->iov = (struct iovec){zeroes, length};
                io->iov = &request->iov;
                io->n_iov = 1;
        }
        submit_slice(request, VOLUME_WRITE, length);
}

static void next_slice(struct nbd_request *request)
{
        enum volume_op op = request->type == NBD_CMD_TRIM ? VOLUME_DISCARD : VOLUME_ZERO;
        uint64_t left = request->length - request->done_bytes;
        uint64_t room = CLEAR_SLICE - (request->offset + request->done_bytes) % CLEAR_SLICE;

        if (request->flags & NBD_CMD_FLAG_NO_HOLE) {
                next_slice_of_data(request);
                return;
        }
        request->io.iov = NULL;
        request->io.n_iov = 0;
        submit_slice(request, op, left < room ? left : room);
}

static void start_slices(struct nbd_request *request)
{
        enum volume_op op = request->type == NBD_CMD_TRIM ? VOLUME_DISCARD : VOLUME_ZERO;

        request->done_bytes = 0;
        if (!(request->flags & NBD_CMD_FLAG_NO_HOLE) && request->length <= CLEAR_SLICE)
                submit(request, op, slice_done);
        else
                next_slice(request);
}

/* ---- by the client's coroutine ---- */

static void start_slow(struct nbd_request *request)
{
        list_append(&request->client->slow, &request->link);
        co_wake_one(&request->client->wake);
}

/* Walking the map reads its nodes into the engine's cache, which is what makes later access fast;
 * data are not cached. It lets others run in between, and ends early when the client has gone. */
static void co_cache(struct nbd_request *request)
{
        struct volume_extent extents[128];
        uint64_t done = 0;

        while (done < request->length && !client_is_gone(request->client)) {
                size_t n;
                int r = co_volume_status(request->client->export.volume, request->offset + done,
                                         request->length - done, extents, 128, &n);
                if (r < 0) {
                        request_fail(request, r);
                        return;
                }
                for (size_t i = 0; i < n; i++)
                        done += extents[i].length;
                co_yield_loop();
        }
        reply_success(request);
}

void co_request_execute_slow(struct nbd_request *request)
{
        if (request->type == NBD_CMD_BLOCK_STATUS)
                co_block_status(request);
        else
                co_cache(request);
}
