/* status.c - BLOCK_STATUS: a chunk for each metadata context, with extents in the form that was
 * agreed on: 32 bits, or 64 with extended headers. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include "nbd-server/internal.h"

#define FAIL(error, ...) (snprintf(text, ERROR_TEXT_MAX, __VA_ARGS__), (error))

/* ---- which contexts ---- */

/* 64 bits of length, then ids of contexts, each of which must be known and named once (proto.md,
 * NBD_CMD_BLOCK_STATUS). */
uint32_t status_take_payload(struct nbd_request *request, const uint8_t *payload,
                             char text[ERROR_TEXT_MAX])
{
        struct nbd_status_payload fixed;
        size_t length = request->wire_payload, n = (length - sizeof(fixed)) / sizeof(be32);

        if (length <= sizeof(fixed) || (length - sizeof(fixed)) % sizeof(be32) != 0 ||
            n > CONTEXTS_MAX)
                return FAIL(NBD_EINVAL, "a payload of %zu bytes holds no list of contexts", length);
        memcpy(&fixed, payload, sizeof(fixed));
        request->length = be64_get(fixed.length);
        request->contexts = 0;
        for (size_t i = 0; i < n; i++) {
                be32 wire_id;
                memcpy(&wire_id, payload + sizeof(fixed) + i * sizeof(wire_id), sizeof(wire_id));
                uint32_t id = be32_get(wire_id);
                if (id == 0 || id > request->client->n_contexts)
                        return FAIL(NBD_EINVAL, "no context of the id %u was selected", id);
                if (request->contexts & (UINT64_C(1) << (id - 1)))
                        return FAIL(NBD_EINVAL, "the context of the id %u is named twice", id);
                request->contexts |= UINT64_C(1) << (id - 1);
        }
        return NBD_SUCCESS;
}

static bool is_wanted(const struct nbd_request *request, unsigned i)
{
        return (request->contexts & (UINT64_C(1) << i)) != 0;
}

/* ---- extents ---- */

static uint32_t wire_flags(const struct meta_context *context, unsigned flags)
{
        switch (context->kind) {
        case CONTEXT_ALLOCATION:
                return (flags & EXTENT_HOLE ? NBD_STATE_HOLE : 0u) |
                       (flags & EXTENT_ZERO ? NBD_STATE_ZERO : 0u);
        case CONTEXT_DEPTH:
                return flags;
        case CONTEXT_CHANGED:
                return flags & EXTENT_CHANGED ? NBD_STATE_DIRTY : 0u;
        }
        return 0;
}

static size_t put_extent(const struct nbd_client *client, uint8_t *at, uint64_t length,
                         uint32_t flags)
{
        if (client->extended) {
                struct nbd_status_extent extent = {be64_make(length), be64_make(flags)};
                memcpy(at, &extent, sizeof(extent));
                return sizeof(extent);
        }
        struct nbd_status_descriptor descriptor = {be32_make((uint32_t)length), be32_make(flags)};
        memcpy(at, &descriptor, sizeof(descriptor));
        return sizeof(descriptor);
}

/* The extents at @at become what goes over the wire, in place: no longer than they are, so writing
 * never overtakes reading. They lie within what was asked for, so for compact requests 32 bits are
 * enough. Their length in bytes. */
static size_t extents_to_wire(const struct nbd_client *client, const struct meta_context *context,
                              uint8_t *at, size_t n)
{
        size_t bytes = 0;

        static_assert(sizeof(struct nbd_status_extent) <= sizeof(struct volume_extent), "in place");
        for (size_t i = 0; i < n; i++) {
                struct volume_extent extent;
                memcpy(&extent, at + i * sizeof(extent), sizeof(extent));
                bytes += put_extent(client, at + bytes, extent.length,
                                    wire_flags(context, extent.flags));
        }
        return bytes;
}

static int co_extents(const struct nbd_request *request, const struct meta_context *context,
                      struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        struct volume *volume = request->client->export.volume;

        switch (context->kind) {
        case CONTEXT_ALLOCATION:
                return co_volume_status(volume, request->offset, request->length, extents, n_max,
                                        ret_n);
        case CONTEXT_DEPTH:
                return co_volume_depth(volume, request->offset, request->length, extents, n_max,
                                       ret_n);
        case CONTEXT_CHANGED:
                return co_volume_changed(volume, context->since, request->offset, request->length,
                                         extents, n_max, ret_n);
        }
        return -EINVAL;
}

/* ---- chunks ---- */

static size_t put_context(const struct nbd_client *client, uint8_t *at, uint32_t id, size_t n)
{
        if (client->extended) {
                struct nbd_payload_status_ext payload = {be32_make(id), be32_make((uint32_t)n)};
                memcpy(at, &payload, sizeof(payload));
                return sizeof(payload);
        }
        struct nbd_payload_status payload = {be32_make(id)};
        memcpy(at, &payload, sizeof(payload));
        return sizeof(payload);
}

/* Chunks in either form are a multiple of eight bytes long, so the extents of the next are
 * aligned. */
static int co_put_chunk(struct nbd_request *request, unsigned i, bool last, size_t n_max,
                        uint8_t *at, size_t *ret_length)
{
        const struct nbd_client *client = request->client;
        const struct meta_context *context = &client->contexts[i];
        size_t head =
            client->extended ? sizeof(struct nbd_extended_chunk) : sizeof(struct nbd_chunk);
        size_t fixed = client->extended ? sizeof(struct nbd_payload_status_ext)
                                        : sizeof(struct nbd_payload_status);
        uint8_t *extents = at + head + fixed;
        size_t n;

        assert((uintptr_t)extents % _Alignof(struct volume_extent) == 0);
        int r = co_extents(request, context, (struct volume_extent *)(void *)extents, n_max, &n);
        if (r < 0)
                return r;
        size_t bytes = extents_to_wire(client, context, extents, n);
        reply_put_chunk(request, at, last ? NBD_REPLY_FLAG_DONE : 0,
                        client->extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                                         : NBD_REPLY_TYPE_BLOCK_STATUS,
                        fixed + bytes);
        put_context(client, at + head, i + 1, n);
        *ret_length = head + fixed + bytes;
        return 0;
}

/* They are sent when all are there: a failure in the middle is a single error. */
void co_block_status(struct nbd_request *request)
{
        const struct nbd_client *client = request->client;
        unsigned n_wanted = 0, n_done = 0;
        uint8_t *buffer = request->buffer;
        size_t length = 0;

        for (unsigned i = 0; i < client->n_contexts; i++)
                n_wanted += is_wanted(request, i);
        assert(n_wanted > 0);
        size_t n_max = request->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS_MAX / n_wanted;
        for (unsigned i = 0; i < client->n_contexts; i++) {
                size_t bytes;
                if (!is_wanted(request, i))
                        continue;
                if (n_done > 0)
                        co_yield_loop(); /* many contexts hold up nobody else */
                int r =
                    co_put_chunk(request, i, ++n_done == n_wanted, n_max, buffer + length, &bytes);
                if (r < 0) {
                        request_fail(request, r);
                        return;
                }
                length += bytes;
        }
        reply_chunks(request, length);
}
