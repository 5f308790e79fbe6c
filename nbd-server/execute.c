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
static uint8_t zeroes[ZEROES_BYTES] __attribute__((aligned(POOL_BLOCK)));
static struct iovec zeroes_iov[ZEROES_IOVS] = {
    [0 ... ZEROES_IOVS - 1] = {zeroes, ZEROES_BYTES},
};

static void start_read(struct nbd_request *request);
static void start_write(struct nbd_request *request);
static void start_flush(struct nbd_request *request);
static void start_trim(struct nbd_request *request);
static void start_write_zeroes(struct nbd_request *request);
static void start_slow(struct nbd_request *request);

struct command {
        const char *name;
        void (*start)(struct nbd_request *request); /* NULL: no such command */
        uint16_t flags; /* beside FUA, which all take (proto.md, "Command flags") */
        bool writes;
        bool payload;      /* its length is bounded by PAYLOAD_MAX */
        uint32_t past_end; /* error for a range that is not inside the export */
};

static const struct command commands[] = {
    [NBD_CMD_READ] = {"read", start_read, NBD_CMD_FLAG_DF, false, true, NBD_EINVAL},
    [NBD_CMD_WRITE] = {"write", start_write, 0, true, true, NBD_ENOSPC},
    [NBD_CMD_FLUSH] = {"flush", start_flush, 0, false, false, NBD_EINVAL},
    [NBD_CMD_TRIM] = {"trim", start_trim, 0, true, false, NBD_EINVAL},
    [NBD_CMD_CACHE] = {"cache", start_slow, 0, false, false, NBD_EINVAL},
    [NBD_CMD_WRITE_ZEROES] = {"write zeroes", start_write_zeroes,
                              NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, true, false,
                              NBD_ENOSPC},
    [NBD_CMD_BLOCK_STATUS] = {"block status", start_slow, NBD_CMD_FLAG_REQ_ONE, false, false,
                              NBD_EINVAL},
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
        uint16_t unknown = (uint16_t)(request->flags & ~(command->flags | NBD_CMD_FLAG_FUA));

        if (unknown)
                return FAIL(NBD_EINVAL, "%s does not take the flags 0x%x", command->name, unknown);
        if ((request->flags & NBD_CMD_FLAG_DF) && !request->client->structured)
                return FAIL(NBD_EINVAL, "the flag DF needs structured replies");
        return NBD_SUCCESS;
}

uint32_t request_check(const struct nbd_request *request, char text[ERROR_TEXT_MAX])
{
        const struct nbd_client *client = request->client;
        const struct command *command = find_command(request->type);
        uint64_t size = volume_size(client->export.volume);

        if (client->server->stopping)
                return FAIL(NBD_ESHUTDOWN, "the server is shutting down");
        if (!command)
                return FAIL(NBD_EINVAL, "unknown command %u", request->type);
        uint32_t error = check_flags(request, command, text);
        if (error)
                return error;
        if (command->writes && client->export.readonly)
                return FAIL(NBD_EPERM, "the export is read-only");
        if (request->type == NBD_CMD_BLOCK_STATUS && !client->meta_allocation)
                return FAIL(NBD_EINVAL, "block status without a metadata context agreed on");
        if (request->type == NBD_CMD_FLUSH) {
                if (request->offset || request->length)
                        return FAIL(NBD_EINVAL, "offset and length of a flush must be zero");
                return NBD_SUCCESS;
        }
        if (command->payload && request->length > PAYLOAD_MAX) {
                error = request->flags & NBD_CMD_FLAG_DF ? NBD_EOVERFLOW : NBD_EINVAL;
                return FAIL(error, "%s of %" PRIu64 " bytes: the most is %u", command->name,
                            request->length, PAYLOAD_MAX);
        }
        if (request->offset > size || request->length > size - request->offset)
                return FAIL(command->past_end,
                            "out of range: offset=%" PRIu64 " length=%" PRIu64
                            " export size=%" PRIu64,
                            request->offset, request->length, size);
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
                return STATUS_EXTENTS_MAX * sizeof(struct volume_extent);
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

static void fail(struct nbd_request *request, int result)
{
        bool fast_zero = (request->flags & NBD_CMD_FLAG_FAST_ZERO) != 0;
        uint32_t error = nbd_error_from_errno(result, fast_zero);

        reply_error(request, error, "%s failed at offset=%" PRIu64 " length=%" PRIu64 ": error %d",
                    commands[request->type].name, request->offset, request->length, -result);
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
                fail(request, result);
                return;
        }
        request->client->reads++;
        request->client->read_bytes += request->length;
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
                fail(request, result);
                return;
        }
        request->client->writes++;
        request->client->write_bytes += request->length;
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
                fail(request, result);
                return;
        }
        request->client->flushes++;
        reply_success(request);
}

static void start_flush(struct nbd_request *request)
{
        request->flags &= (uint16_t)~NBD_CMD_FLAG_FUA;
        submit(request, VOLUME_FLUSH, flush_done);
}

static void trim_done(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        if (result < 0)
                fail(request, result);
        else
                reply_success(request);
}

static void start_trim(struct nbd_request *request)
{
        submit(request, VOLUME_DISCARD, trim_done);
}

/* ---- zeroes that keep their space: data, written slice by slice, durable at the end ---- */

static void zero_slice(struct nbd_request *request);

static void zero_slices_flushed(struct volume_request *io, int result)
{
        write_done(io, result);
}

static void zero_slice_done(struct volume_request *io, int result)
{
        struct nbd_request *request = from_io(io);

        /* Nobody waits for the rest, and who cut the client off must not either. */
        if (result == 0 && request->client->state == CLIENT_DEAD)
                result = -ECANCELED;
        if (result < 0) {
                fail(request, result);
                return;
        }
        request->done_bytes += io->length;
        if (request->done_bytes < request->length)
                zero_slice(request);
        else if (request->flags & NBD_CMD_FLAG_FUA)
                submit(request, VOLUME_FLUSH, zero_slices_flushed);
        else
                write_done(io, 0);
}

static void zero_slice(struct nbd_request *request)
{
        struct volume_request *io = &request->io;
        uint64_t left = request->length - request->done_bytes;
        uint64_t length = left < ZEROES_BYTES * ZEROES_IOVS ? left : ZEROES_BYTES * ZEROES_IOVS;
        const struct iovec *iov = zeroes_iov;
        unsigned n_iov = (unsigned)(length / ZEROES_BYTES);

        if (length % ZEROES_BYTES != 0 &&
            n_iov > 0) { /* whole pieces first, the tail in a slice of its own */
                length = n_iov * (uint64_t)ZEROES_BYTES;
        } else if (n_iov == 0) {
                request->iov = (struct iovec){zeroes, length};
                iov = &request->iov;
                n_iov = 1;
        }
        io->op = VOLUME_WRITE;
        io->flags = 0;
        io->offset = request->offset + request->done_bytes;
        io->length = length;
        io->iov = iov;
        io->n_iov = n_iov;
        io->done = zero_slice_done;
        volume_submit(request->client->export.volume, io);
}

static void start_write_zeroes(struct nbd_request *request)
{
        if (request->flags & NBD_CMD_FLAG_NO_HOLE) {
                request->done_bytes = 0;
                zero_slice(request);
        } else {
                submit(request, VOLUME_ZERO, write_done);
        }
}

/* ---- by the client's coroutine ---- */

static void start_slow(struct nbd_request *request)
{
        list_append(&request->client->slow, &request->link);
        co_wake_one(&request->client->wake);
}

/* The extents that the engine filled in at the start of the buffer become descriptors in place: a
 * descriptor is half as long as an extent, so writing never overtakes reading. */
static size_t extents_to_descriptors(uint8_t *buffer, size_t n, uint64_t length)
{
        uint64_t covered = 0;
        size_t i = 0;

        static_assert(sizeof(struct nbd_status_descriptor) <= sizeof(struct volume_extent),
                      "in place");
        for (; i < n && covered < length; i++) {
                struct volume_extent extent;
                memcpy(&extent, buffer + i * sizeof(extent), sizeof(extent));
                if (extent.length > length - covered)
                        extent.length = length - covered; /* so 32 bits are enough */
                covered += extent.length;
                struct nbd_status_descriptor descriptor = {
                    .length = be32_make((uint32_t)extent.length),
                    .flags = be32_make((extent.flags & EXTENT_HOLE ? NBD_STATE_HOLE : 0u) |
                                       (extent.flags & EXTENT_ZERO ? NBD_STATE_ZERO : 0u)),
                };
                memcpy(buffer + i * sizeof(descriptor), &descriptor, sizeof(descriptor));
        }
        return i;
}

static void co_block_status(struct nbd_request *request)
{
        size_t n_max = request->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS_MAX, n;
        int r = co_volume_status(request->client->export.volume, request->offset, request->length,
                                 request->buffer, n_max, &n);

        if (r < 0)
                fail(request, r);
        else
                reply_status(request, extents_to_descriptors(request->buffer, n, request->length));
}

/* Walking the map reads its nodes into the engine's cache, which is what makes later access fast;
 * data are not cached. It lets others run in between, and ends early when the client has gone. */
static void co_cache(struct nbd_request *request)
{
        struct volume_extent extents[128];
        uint64_t done = 0;

        while (done < request->length && request->client->state != CLIENT_DEAD) {
                size_t n;
                int r = co_volume_status(request->client->export.volume, request->offset + done,
                                         request->length - done, extents, 128, &n);
                if (r < 0) {
                        fail(request, r);
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
