/* qcow2_unpack.c - compressed clusters of qcow2. */
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <zstd.h>

#include "formats/qcow2.h"

/* Raw deflate. "Decompression stops when it has produced a cluster of data": what the stream has
 * beyond that does not matter. libdeflate is faster, but has a stream as a whole or not at all. */
static bool inflate_one(struct libdeflate_decompressor *whole, struct inflate_state *state,
                        const struct qcow2_packed *p, size_t bytes)
{
        size_t from, to;

        if (libdeflate_deflate_decompress_ex(whole, p->from, p->from_bytes, p->to, bytes, &from,
                                             &to) == LIBDEFLATE_SUCCESS)
                return to == bytes;
        isal_inflate_init(state);
        state->next_in = (uint8_t *)p->from;
        state->avail_in = (uint32_t)p->from_bytes;
        state->next_out = p->to;
        state->avail_out = (uint32_t)bytes;
        return isal_inflate_stateless(state) >= 0 && state->avail_out == 0;
}

static void unpack_zlib(struct qcow2_unpack *u)
{
        struct libdeflate_decompressor *whole = libdeflate_alloc_decompressor();
        struct inflate_state *state = malloc(sizeof(*state)); /* too large for a stack */

        u->no_memory = !whole || !state;
        for (size_t i = 0; !u->no_memory && i < u->n; i++)
                u->packed[i].failed = !inflate_one(whole, state, &u->packed[i], u->cluster_bytes);
        free(state);
        libdeflate_free_decompressor(whole);
}

/* Frame by frame, each in one piece: so none can ask for memory by its window. */
static bool unzstd_one(ZSTD_DCtx *context, const struct qcow2_packed *p, size_t bytes)
{
        size_t from = 0, to = 0;

        while (to < bytes && from < p->from_bytes) {
                size_t frame = ZSTD_findFrameCompressedSize(p->from + from, p->from_bytes - from);
                size_t n;

                if (ZSTD_isError(frame))
                        return false;
                n = ZSTD_decompressDCtx(context, p->to + to, bytes - to, p->from + from, frame);
                if (ZSTD_isError(n))
                        return false;
                from += frame;
                to += n;
        }
        return to == bytes;
}

static void unpack_zstd(struct qcow2_unpack *u)
{
        ZSTD_DCtx *context = ZSTD_createDCtx();

        u->no_memory = !context;
        for (size_t i = 0; context && i < u->n; i++)
                u->packed[i].failed = !unzstd_one(context, &u->packed[i], u->cluster_bytes);
        ZSTD_freeDCtx(context);
}

void qcow2_unpack(void *unpack)
{
        struct qcow2_unpack *u = unpack;

        if (u->compression == QCOW2_ZSTD)
                unpack_zstd(u);
        else
                unpack_zlib(u);
}
