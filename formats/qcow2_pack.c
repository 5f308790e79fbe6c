/* qcow2_pack.c - compressing the clusters of a qcow2 file that is being written: raw deflate by ISA-L,
 * or zstd. */
#include "formats/qcow2_pack.h"

#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "formats/image.h"

/* Of ISA-L's levels this is the one that finds about as much as zlib's usual one in a window this
 * small. */
#define DEFLATE_LEVEL       3
#define DEFLATE_LEVEL_BYTES ISAL_DEF_LVL3_DEFAULT
#define ZSTD_LEVEL          3

struct qcow2_packer {
        enum qcow2_compression compression;
        ZSTD_CCtx *zstd;
        struct isal_zstream deflate;
        uint8_t level_buffer[DEFLATE_LEVEL_BYTES];
};

struct qcow2_packer *qcow2_packer_new(enum qcow2_compression compression)
{
        struct qcow2_packer *p = malloc(sizeof(*p));

        if (!p)
                return NULL;
        p->compression = compression;
        p->zstd = NULL;
        if (compression == QCOW2_ZSTD && !(p->zstd = ZSTD_createCCtx())) {
                free(p);
                return NULL;
        }
        return p;
}

void qcow2_packer_free(struct qcow2_packer *p)
{
        if (!p)
                return;
        ZSTD_freeCCtx(p->zstd);
        free(p);
}

/* The length of the result; 0: it does not fit into @room. */
static size_t deflate(struct qcow2_packer *p, uint8_t *to, size_t room, const uint8_t *from,
                      size_t n)
{
        struct isal_zstream *z = &p->deflate;

        isal_deflate_init(z);
        z->level = DEFLATE_LEVEL;
        z->level_buf = p->level_buffer;
        z->level_buf_size = sizeof(p->level_buffer);
        z->hist_bits = QCOW2_ZLIB_WINDOW_BITS;
        z->end_of_stream = 1;
        z->next_in = (uint8_t *)from;
        z->avail_in = (uint32_t)n;
        z->next_out = to;
        z->avail_out = (uint32_t)room;
        if (isal_deflate(z) != COMP_OK || z->internal_state.state != ZSTATE_END)
                return 0;
        return z->total_out;
}

static size_t pack_cluster(struct qcow2_pack *pack, uint8_t *to, const uint8_t *from)
{
        /* One that stays as long as it was is no use: it lies there plain. */
        size_t n = pack->cluster_bytes, room = n - 1, r;

        if (pack->packer->compression == QCOW2_ZLIB)
                return deflate(pack->packer, to, room, from, n);
        r = ZSTD_compressCCtx(pack->packer->zstd, to, room, from, n, ZSTD_LEVEL);
        if (!ZSTD_isError(r))
                return r;
        if (ZSTD_getErrorCode(r) != ZSTD_error_dstSize_tooSmall)
                pack->failed = true;
        return 0;
}

void qcow2_pack(void *arg)
{
        struct qcow2_pack *pack = arg;
        uint8_t *to = pack->to;

        for (size_t i = 0; i < pack->n; i++) {
                const uint8_t *from = pack->from + i * pack->cluster_bytes;
                size_t n = 0;

                if (!image_is_zero(from, pack->cluster_bytes)) {
                        n = pack_cluster(pack, to, from);
                        to += n;
                        if (n == 0)
                                n = pack->cluster_bytes;
                }
                pack->bytes[i] = (uint32_t)n;
        }
}
