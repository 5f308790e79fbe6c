/* qcow2_read.c - reading a qcow2 image's disk. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/offload.h"
#include "formats/qcow2.h"

/* Compressed clusters that lie this close to each other are read at once. */
#define GAP_BYTES UINT64_C(65536)

static int co_read_absent(struct image *image, uint8_t *buffer, size_t length, uint64_t offset,
                          struct error *err)
{
        const struct qcow2 *q = image->state;
        struct image *backing = q->backing;
        size_t n = 0;
        int r = 0;

        if (!backing && image->info.backing)
                return error_set(err, -ENOTSUP,
                                 "'%s' was opened without its backing file, which has the disk's "
                                 "byte %llu",
                                 image->path, (unsigned long long)offset);
        if (backing && offset < backing->virtual_bytes) {
                uint64_t left = backing->virtual_bytes - offset;

                n = length < left ? length : (size_t)left;
                r = backing->driver->co_read(backing, buffer, n, offset, err);
        }
        memset(buffer + n, 0, length - n);
        return r;
}

/* ---- plain clusters ---- */

/* Clusters that lie in a row are read at once, also where the next L2 table goes on. A file may end
 * within its last cluster. */
static int co_read_plain(struct image *image, uint8_t *buffer, size_t length, uint64_t offset,
                         struct qcow2_run *run, struct error *err)
{
        const struct qcow2 *q = image->state;

        while (run->length < length) {
                struct qcow2_run next;
                int r = co_qcow2_map(image, offset + run->length, length - run->length, &next, err);

                if (r < 0)
                        return r;
                if (next.kind != QCOW2_PLAIN || next.host != run->host + run->length)
                        break;
                run->length += next.length;
        }
        if (q->named_data && !q->data)
                return error_set(err, -ENOTSUP, "'%s' was opened without its data file",
                                 image->path);
        return co_image_pread_padded(q->named_data ? q->data : image, buffer, run->length,
                                     run->host, err);
}

/* ---- compressed clusters ---- */

struct batch {
        struct qcow2_unpack unpack;
        uint64_t entries[QCOW2_BATCH_CLUSTERS];
        uint64_t start, end; /* in the file */
};

/* False: it lies elsewhere. */
static bool batch_add(struct image *image, struct batch *b, uint64_t entry)
{
        const struct qcow2 *q = image->state;
        uint64_t start = qcow2_compressed_offset(entry, q->cluster_bits);
        uint64_t end = start + qcow2_compressed_bytes(entry, q->cluster_bits);

        if (end > image->file_bytes) /* its last sector need not be there in full */
                end = image->file_bytes;
        if (b->unpack.n == 0) {
                b->start = start;
                b->end = end;
        } else if (b->unpack.n == QCOW2_BATCH_CLUSTERS || start < b->start ||
                   start > b->end + GAP_BYTES || end > b->start + QCOW2_BATCH_BYTES) {
                return false;
        }
        if (b->end < end)
                b->end = end;
        b->unpack.packed[b->unpack.n].from_bytes = end - start;
        b->entries[b->unpack.n++] = entry;
        return true;
}

static int co_batch_run(struct image *image, struct batch *b, uint8_t *to, uint64_t offset,
                        struct error *err)
{
        const struct qcow2 *q = image->state;
        struct qcow2_unpack *u = &b->unpack;
        uint8_t *from = malloc(b->end - b->start);
        int r;

        if (!from)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(image, from, b->end - b->start, b->start, err);
        if (r == 0) {
                u->compression = q->compression;
                u->cluster_bytes = q->cluster_bytes;
                for (size_t i = 0; i < u->n; i++) {
                        uint64_t at = qcow2_compressed_offset(b->entries[i], q->cluster_bits);

                        u->packed[i].from = from + (at - b->start);
                        u->packed[i].to = to + (i << q->cluster_bits);
                }
                co_offload(image->offload, qcow2_unpack, u);
                if (u->no_memory)
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        for (size_t i = 0; r == 0 && i < u->n; i++) {
                uint64_t at = qcow2_compressed_offset(b->entries[i], q->cluster_bits);

                if (u->packed[i].failed)
                        r = error_set(err, -EBADMSG,
                                      "'%s' is damaged: the compressed cluster at offset %llu, the "
                                      "disk's byte %llu, does not decompress",
                                      image->path, (unsigned long long)at,
                                      (unsigned long long)(offset + (i << q->cluster_bits)));
        }
        free(from);
        return r;
}

/* Whole clusters from @offset on, of which the first is @entry's: at least that one, and more of
 * @length bytes as far as they are compressed and lie near. */
static int co_read_batch(struct image *image, uint8_t *buffer, size_t length, uint64_t offset,
                         uint64_t entry, size_t *ret_done, struct error *err)
{
        const struct qcow2 *q = image->state;
        struct batch *b = calloc(1, sizeof(*b));
        struct qcow2_run run = {.kind = QCOW2_PACKED, .entry = entry};
        size_t done = 0;
        int r = 0;

        if (!b)
                return error_set(err, -ENOMEM, "out of memory");
        while (run.kind == QCOW2_PACKED && batch_add(image, b, run.entry)) {
                done += q->cluster_bytes;
                if (length - done < q->cluster_bytes)
                        break;
                r = co_qcow2_map(image, offset + done, q->cluster_bytes, &run, err);
                if (r < 0)
                        break;
        }
        if (r == 0)
                r = co_batch_run(image, b, buffer, offset, err);
        free(b);
        *ret_done = done;
        return r;
}

/* The cluster at @offset into @to. */
static int co_unpack_one(struct image *image, uint64_t offset, uint64_t entry, uint8_t *to,
                         struct error *err)
{
        const struct qcow2 *q = image->state;
        size_t done;

        return co_read_batch(image, to, q->cluster_bytes, offset, entry, &done, err);
}

/* The place where @entry's cluster is or can be; NULL: others are loading into all of them. */
static struct qcow2_unpacked *unpacked_place(struct qcow2 *q, uint64_t entry)
{
        struct qcow2_unpacked *oldest = NULL;

        for (size_t i = 0; i < QCOW2_UNPACKED_MAX; i++) {
                struct qcow2_unpacked *u = &q->unpacked[i];

                if (u->entry == entry)
                        return u;
                if (!u->loading && (!oldest || u->used < oldest->used))
                        oldest = u;
        }
        return oldest;
}

/* Fill @u for whoever waits for it. */
static int co_unpacked_load(struct image *image, struct qcow2_unpacked *u, uint64_t entry,
                            uint64_t offset, struct error *err)
{
        const struct qcow2 *q = image->state;
        int r;

        if (!u->data)
                u->data = malloc(q->cluster_bytes);
        if (!u->data)
                return error_set(err, -ENOMEM, "out of memory");
        u->entry = entry;
        u->loading = true;
        r = co_unpack_one(image, offset, entry, u->data, err);
        u->loading = false;
        if (r < 0)
                u->entry = 0;
        co_wake_all(&u->loaded);
        return r;
}

/* Without a place to keep it. */
static int co_read_part_alone(struct image *image, void *buffer, size_t length, uint64_t offset,
                              uint64_t entry, struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t in = offset & (q->cluster_bytes - 1);
        uint8_t *cluster = malloc(q->cluster_bytes);
        int r;

        if (!cluster)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_unpack_one(image, offset - in, entry, cluster, err);
        if (r == 0)
                memcpy(buffer, cluster + in, length);
        free(cluster);
        return r;
}

/* A part of one cluster. The parts around it are likely to be read next: the cluster is kept. */
static int co_read_part(struct image *image, void *buffer, size_t length, uint64_t offset,
                        uint64_t entry, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t in = offset & (q->cluster_bytes - 1);
        struct qcow2_unpacked *u = unpacked_place(q, entry);
        int r = 0;

        while (u && u->entry == entry && u->loading) {
                co_wait(&u->loaded);
                u = unpacked_place(q, entry);
        }
        if (!u)
                return co_read_part_alone(image, buffer, length, offset, entry, err);
        if (u->entry != entry)
                r = co_unpacked_load(image, u, entry, offset - in, err);
        if (r < 0)
                return r;
        u->used = ++q->clock;
        memcpy(buffer, u->data + in, length);
        return 0;
}

/* Some at least of @length bytes, the first cluster being @entry's. */
static int co_read_packed(struct image *image, uint8_t *buffer, size_t length, uint64_t offset,
                          uint64_t entry, size_t *ret_done, struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t in = offset & (q->cluster_bytes - 1);

        if (in == 0 && length >= q->cluster_bytes)
                return co_read_batch(image, buffer, length, offset, entry, ret_done, err);
        if (length > q->cluster_bytes - in)
                length = (size_t)(q->cluster_bytes - in);
        *ret_done = length;
        return co_read_part(image, buffer, length, offset, entry, err);
}

int co_qcow2_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                  struct error *err)
{
        uint8_t *to = buffer;
        int r = 0;

        while (r == 0 && length > 0) {
                struct qcow2_run run;
                size_t done;

                r = co_qcow2_map(image, offset, length, &run, err);
                if (r < 0)
                        return r;
                done = (size_t)run.length;
                if (run.kind == QCOW2_READS_ZERO) {
                        memset(to, 0, done);
                } else if (run.kind == QCOW2_ABSENT) {
                        r = co_read_absent(image, to, done, offset, err);
                } else if (run.kind == QCOW2_PLAIN) {
                        r = co_read_plain(image, to, length, offset, &run, err);
                        done = (size_t)run.length;
                } else {
                        r = co_read_packed(image, to, done, offset, run.entry, &done, err);
                }
                to += done;
                offset += done;
                length -= done;
        }
        return r;
}
