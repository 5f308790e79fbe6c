/* qcow2_write_end.c - the end of a qcow2 file that is being made: refcounts, the L1 table, and last the header. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/coroutine.h"
#include "formats/qcow2_writer.h"

static struct qcow2_writer *writer_of(struct image *image)
{
        return qcow2_of(image)->writer;
}

int co_qcow2_sync(struct image *image, struct error *err)
{
        struct loop_io io = {.op = LOOP_FDATASYNC, .fd = image->fd};
        int r = co_io(&io);

        return r < 0 ? error_set(err, r, "cannot write '%s' to its disk: %s", image->path,
                                 strerror(-r))
                     : 0;
}

int co_qcow2_blocks_write(struct image *image, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        struct qcow2_block *block = NULL;
        int r;

        for (;;) {
                r = qcow2_alloc_take_block(&w->alloc, &block, err);
                if (r < 0 || !block)
                        return r;
                r = co_image_pwrite(image, block->counts, w->cluster_bytes,
                                    w->alloc.table[block->index], err);
                free(block);
                if (r < 0)
                        return r;
        }
}

/* Write @n integers, the rest of the last cluster being zero. */
static int co_write_table(struct image *image, const uint64_t *table, size_t n, uint64_t offset,
                          struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        size_t bytes =
            (n * sizeof(*table) + w->cluster_bytes - 1) / w->cluster_bytes * w->cluster_bytes;
        uint8_t *buffer = calloc(1, bytes);
        int r;

        if (!buffer)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; i < n; i++)
                qcow2_put64(buffer + i * sizeof(*table), table[i]);
        r = co_image_pwrite(image, buffer, bytes, offset, err);
        free(buffer);
        return r;
}

struct places {
        uint64_t l1, refcounts, refcount_clusters;
};

static int co_write_header(struct image *image, const struct places *at, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        uint8_t *h = calloc(1, w->cluster_bytes);
        int r;

        if (!h)
                return error_set(err, -ENOMEM, "out of memory");
        qcow2_put32(h + QCOW2_MAGIC_AT, QCOW2_MAGIC);
        qcow2_put32(h + QCOW2_VERSION_AT, w->version);
        qcow2_put32(h + QCOW2_CLUSTER_BITS_AT, w->cluster_bits);
        qcow2_put64(h + QCOW2_SIZE_AT, w->disk_bytes);
        qcow2_put32(h + QCOW2_L1_SIZE_AT, w->l1_size);
        qcow2_put64(h + QCOW2_L1_OFFSET_AT, at->l1);
        qcow2_put64(h + QCOW2_REFCOUNT_TABLE_OFFSET_AT, at->refcounts);
        qcow2_put32(h + QCOW2_REFCOUNT_TABLE_CLUSTERS_AT, (uint32_t)at->refcount_clusters);
        if (w->version >= 3) {
                if (w->packs && w->compression != QCOW2_ZLIB)
                        qcow2_put64(h + QCOW2_INCOMPATIBLE_AT, QCOW2_COMPRESSION_TYPE);
                qcow2_put32(h + QCOW2_REFCOUNT_ORDER_AT, QCOW2_REFCOUNT_ORDER);
                qcow2_put32(h + QCOW2_HEADER_LENGTH_AT, QCOW2_V3_HEADER_SIZE_COMPRESSION);
                h[QCOW2_COMPRESSION_TYPE_AT] = (uint8_t)w->compression;
        }
        r = co_image_pwrite(image, h, w->cluster_bytes, 0, err);
        free(h);
        return r;
}

static int co_write_metadata(struct image *image, struct places *ret_at, struct error *err)
{
        struct qcow2_writer *w = writer_of(image);
        uint64_t l1_bytes = w->l1_size * sizeof(*w->l1);
        int r;

        w->begun = UINT64_MAX;
        r = co_qcow2_tables_write(image, err);
        if (r == 0)
                r = qcow2_alloc_clusters(&w->alloc,
                                         (l1_bytes + w->cluster_bytes - 1) / w->cluster_bytes,
                                         &ret_at->l1, err);
        if (r == 0)
                r = co_write_table(image, w->l1, w->l1_size, ret_at->l1, err);
        if (r == 0)
                r = qcow2_alloc_finish(&w->alloc, &ret_at->refcounts, &ret_at->refcount_clusters,
                                       err);
        if (r == 0)
                r = co_qcow2_blocks_write(image, err);
        if (r == 0)
                r = co_write_table(image, w->alloc.table, w->alloc.n_table, ret_at->refcounts, err);
        return r;
}

/* The header makes it an image, and comes after all that it leads to is on the disk. */
int co_qcow2_finish(struct image *image, struct error *err)
{
        struct places at = {0};
        int r;

        if (writer_of(image)->failed)
                return error_set(err, -EIO, "'%s' is not complete: writing it failed", image->path);
        r = co_write_metadata(image, &at, err);
        if (r == 0)
                r = co_qcow2_sync(image, err);
        if (r == 0)
                r = co_write_header(image, &at, err);
        if (r == 0)
                r = co_qcow2_sync(image, err);
        if (r < 0)
                writer_of(image)->failed = true;
        return r;
}
