/* qcow2_map.c - where a range of a qcow2 image's disk lies. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/qcow2.h"

/* Looked at for one extent, where another file's extents may be asked for then. */
#define ABSENT_MAX_CLUSTERS UINT64_C(2048)

/* ---- parts of L2 tables ---- */

static struct qcow2_slice *slice_set(struct qcow2 *q, uint64_t offset)
{
        uint64_t hash = offset / q->slice_bytes * UINT64_C(0x9e3779b97f4a7c15) >> 32;

        return &q->slices[hash % (q->n_slices / QCOW2_SLICE_WAYS) * QCOW2_SLICE_WAYS];
}

static const uint8_t *slice_find(struct qcow2 *q, uint64_t offset)
{
        struct qcow2_slice *set = slice_set(q, offset);

        for (unsigned i = 0; i < QCOW2_SLICE_WAYS; i++)
                if (set[i].offset == offset) {
                        set[i].used = ++q->clock;
                        return set[i].data;
                }
        return NULL;
}

/* Takes @data over. */
static const uint8_t *slice_keep(struct qcow2 *q, uint64_t offset, uint8_t *data)
{
        struct qcow2_slice *set = slice_set(q, offset), *oldest = set;
        const uint8_t *others = slice_find(q, offset);

        if (others) { /* another coroutine was faster */
                free(data);
                return others;
        }
        for (unsigned i = 1; i < QCOW2_SLICE_WAYS; i++)
                if (set[i].used < oldest->used)
                        oldest = &set[i];
        free(oldest->data);
        *oldest = (struct qcow2_slice){.offset = offset, .used = ++q->clock, .data = data};
        return data;
}

/* The part at @offset of the file: valid until the caller suspends next. */
static int co_slice(struct image *image, uint64_t offset, const uint8_t **ret_data,
                    struct error *err)
{
        struct qcow2 *q = image->state;
        uint8_t *data;
        int r;

        *ret_data = slice_find(q, offset);
        if (*ret_data)
                return 0;
        data = malloc(q->slice_bytes);
        if (!data)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(image, data, q->slice_bytes, offset, err);
        if (r < 0) {
                free(data);
                return r;
        }
        *ret_data = slice_keep(q, offset, data);
        return 0;
}

/* ---- entries ---- */

/* An L2 entry, and where it was found. */
struct entry {
        uint64_t value, bitmap;
        uint64_t guest; /* of its cluster */
        uint64_t at;
};

static int damaged(const struct image *image, const struct entry *e, const char *reason,
                   struct error *err)
{
        return error_set(
            err, -EBADMSG,
            "'%s' is damaged: the L2 entry at offset %llu, of the disk's byte %llu, %s",
            image->path, (unsigned long long)e->at, (unsigned long long)e->guest, reason);
}

static int classify_packed(const struct image *image, const struct entry *e, struct qcow2_run *run,
                           struct error *err)
{
        const struct qcow2 *q = image->state;

        if (q->named_data)
                return damaged(image, e, "is of a compressed cluster, which no data file has", err);
        if (qcow2_compressed_offset(e->value, q->cluster_bits) >= image->file_bytes)
                return damaged(image, e, "is of a compressed cluster beyond the file's end", err);
        *run = (struct qcow2_run){
            .kind = QCOW2_PACKED, .length = q->cluster_bytes, .entry = e->value & ~QCOW2_COPIED};
        return 0;
}

/* The offset of a cluster that is not compressed, and whether there is any. */
static int host_of(const struct image *image, const struct entry *e, struct qcow2_run *run,
                   struct error *err)
{
        const struct qcow2 *q = image->state;

        if (e->value & QCOW2_L2_RESERVED)
                return damaged(image, e, "has reserved bits set", err);
        if ((e->value & QCOW2_ZERO) && (q->version < 3 || q->extended))
                return damaged(image, e, "says zero by a bit that such images have not", err);
        run->host = e->value & QCOW2_OFFSET_MASK;
        run->has_host = run->host != 0 || (q->named_data && (e->value & QCOW2_COPIED));
        if (run->host % q->cluster_bytes != 0)
                return damaged(image, e, "points between two clusters", err);
        if (!run->has_host && (e->value & QCOW2_COPIED))
                return damaged(image, e, "is of a cluster in use at offset 0", err);
        if (run->has_host && q->named_data && run->host != e->guest)
                return damaged(image, e,
                               "points elsewhere in the data file than to the same offset", err);
        return 0;
}

/* How many subclusters from @first on have the same bits as that one. */
static unsigned same_subclusters(uint64_t bitmap, unsigned first)
{
        unsigned n = 1;

        while (first + n < QCOW2_SUBCLUSTERS &&
               (((bitmap >> (first + n)) ^ (bitmap >> first)) & UINT64_C(0x100000001)) == 0)
                n++;
        return n;
}

/* What is at @in bytes into the cluster of @e, up to where that changes. */
static int classify(const struct image *image, const struct entry *e, uint64_t in,
                    struct qcow2_run *run, struct error *err)
{
        const struct qcow2 *q = image->state;
        const struct image *data = q->named_data ? q->data : image; /* NULL: opened alone */
        unsigned first = (unsigned)(in >> q->subcluster_bits);
        uint64_t end = q->cluster_bytes;
        int r;

        *run = (struct qcow2_run){.kind = QCOW2_ABSENT};
        r = e->value & QCOW2_COMPRESSED ? classify_packed(image, e, run, err)
                                        : host_of(image, e, run, err);
        if (r < 0)
                return r;
        if (run->kind == QCOW2_PACKED) {
                run->length -= in;
                return 0;
        }
        if (q->extended) {
                bool allocated = (e->bitmap >> first) & 1;
                bool zero = (e->bitmap >> (32 + first)) & 1;

                if (allocated && zero)
                        return damaged(image, e, "has a subcluster that is both data and zero",
                                       err);
                if (allocated && !run->has_host)
                        return damaged(image, e, "has a subcluster of no cluster", err);
                if (allocated)
                        run->kind = QCOW2_PLAIN;
                else if (zero)
                        run->kind = QCOW2_READS_ZERO;
                end = (uint64_t)(first + same_subclusters(e->bitmap, first)) << q->subcluster_bits;
        } else if (e->value & QCOW2_ZERO) {
                run->kind = QCOW2_READS_ZERO;
        } else if (run->has_host) {
                run->kind = QCOW2_PLAIN;
        }
        if (run->kind == QCOW2_PLAIN && data && run->host >= data->file_bytes)
                return damaged(image, e, "points beyond the file's end", err);
        run->length = end - in;
        run->host += in;
        return 0;
}

static bool continues(const struct qcow2_run *run, const struct qcow2_run *next)
{
        return run->kind == next->kind && run->has_host == next->has_host &&
               (!run->has_host || run->host + run->length == next->host);
}

/* Lengthen @run, which is empty at first, by what @n entries say of the disk from @offset on. False:
 * something else begins here. */
static int append(const struct image *image, const uint8_t *entries, uint32_t n, uint64_t at,
                  uint64_t offset, struct qcow2_run *run, bool *ret_goes_on, struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t in = offset & (q->cluster_bytes - 1);

        *ret_goes_on = false;
        for (uint32_t i = 0; i < n; i++, in = 0) {
                struct entry e = {.value = qcow2_get64(entries + (size_t)i * q->l2_entry_bytes),
                                  .guest = (offset & ~(q->cluster_bytes - 1)) +
                                           ((uint64_t)i << q->cluster_bits),
                                  .at = at + (uint64_t)i * q->l2_entry_bytes};

                if (q->extended)
                        e.bitmap = qcow2_get64(entries + (size_t)i * q->l2_entry_bytes + 8);
                while (in < q->cluster_bytes) {
                        struct qcow2_run piece;
                        int r = classify(image, &e, in, &piece, run->length == 0 ? err : NULL);

                        if (run->length > 0 && (r < 0 || !continues(run, &piece)))
                                return 0;
                        if (r < 0)
                                return r;
                        in += piece.length;
                        if (run->length > 0)
                                run->length += piece.length;
                        else
                                *run = piece;
                }
        }
        *ret_goes_on = true;
        return 0;
}

/* ---- ranges ---- */

/* L1 entries in a row that have no L2 table. */
static void absent_tables(const struct qcow2 *q, uint64_t offset, uint64_t length,
                          struct qcow2_run *run)
{
        unsigned bits = q->cluster_bits + q->l2_bits;
        uint64_t i = offset >> bits;

        *run = (struct qcow2_run){.kind = QCOW2_ABSENT};
        while (run->length < length && (i >= q->l1_size || q->l1[i] == 0)) {
                i++;
                run->length = (i << bits) - offset;
                if (i >= q->l1_size)
                        run->length = length;
        }
        if (run->length > length)
                run->length = length;
}

static int check_l1_entry(const struct image *image, uint64_t i, struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t table = q->l1[i] & QCOW2_OFFSET_MASK;
        const char *reason = NULL;

        if (q->l1[i] & QCOW2_L1_RESERVED)
                reason = "has reserved bits set";
        else if (table == 0)
                reason = "is of a table in use at offset 0";
        else if (table % q->cluster_bytes != 0)
                reason = "points between two clusters";
        else if (table + q->cluster_bytes > image->file_bytes)
                reason = "points to an L2 table beyond the file's end";
        if (!reason)
                return 0;
        return error_set(err, -EBADMSG, "'%s' is damaged: the L1 entry at offset %llu %s",
                         image->path, (unsigned long long)(q->l1_offset + i * QCOW2_L1_ENTRY),
                         reason);
}

int co_qcow2_map(struct image *image, uint64_t offset, uint64_t length, struct qcow2_run *ret_run,
                 struct error *err)
{
        const struct qcow2 *q = image->state;
        unsigned bits = q->cluster_bits + q->l2_bits;
        uint64_t l1_index = offset >> bits, end = (l1_index + 1) << bits;
        bool goes_on = true;
        int r;

        if (l1_index >= q->l1_size || q->l1[l1_index] == 0) {
                absent_tables(q, offset, length, ret_run);
                return 0;
        }
        r = check_l1_entry(image, l1_index, err);
        if (r < 0)
                return r;
        if (length > end - offset)
                length = end - offset;
        *ret_run = (struct qcow2_run){.length = 0};
        while (goes_on && ret_run->length < length) {
                uint64_t here = offset + ret_run->length;
                uint64_t i = here >> q->cluster_bits & ((UINT64_C(1) << q->l2_bits) - 1);
                uint64_t at = i * q->l2_entry_bytes, in_slice = at % q->slice_bytes;
                uint64_t table = q->l1[l1_index] & QCOW2_OFFSET_MASK;
                uint64_t wanted = ((length - ret_run->length - 1) >> q->cluster_bits) + 2;
                uint32_t n = (uint32_t)((q->slice_bytes - in_slice) / q->l2_entry_bytes);
                const uint8_t *slice = NULL;

                r = co_slice(image, table + at - in_slice, &slice, err);
                if (r == 0)
                        r = append(image, slice + in_slice, n < wanted ? n : (uint32_t)wanted,
                                   table + at, here, ret_run, &goes_on, err);
                if (r < 0) /* later, by who asks for what is beyond */
                        return ret_run->length > 0 ? 0 : r;
        }
        if (ret_run->length > length)
                ret_run->length = length;
        return 0;
}

/* What this file has not: the backing file's. Beyond the end of that nobody has it. */
static int co_absent_extent(struct image *image, uint64_t offset, const struct qcow2_run *run,
                            struct image_extent *ret_extent, struct error *err)
{
        const struct qcow2 *q = image->state;
        struct image *backing = q->backing;
        int r;

        if (!backing || offset >= backing->virtual_bytes) {
                bool zero = backing || !image->info.backing;

                *ret_extent = (struct image_extent){.length = run->length,
                                                    .zero = zero,
                                                    .has_offset = zero && run->has_host,
                                                    .file_offset = run->host};
                return 0;
        }
        r = backing->driver->co_extent(backing, offset, ret_extent, err);
        if (r < 0)
                return r;
        ret_extent->depth++;
        if (ret_extent->length > run->length)
                ret_extent->length = run->length;
        return 0;
}

/* A file much of which has never been written, as preallocated ones are: there a hole is worth asking
 * for. */
static bool is_sparse(const struct image *image)
{
        const struct qcow2 *q = image->state;
        uint64_t real = image->allocated_bytes >> q->cluster_bits;
        uint64_t more = real / 9 > 2 ? real / 9 : 2;

        return !image->is_block_device && !q->named_data &&
               image->file_bytes >> q->cluster_bits > real + more;
}

/* Shorten a plain extent to its part that is data, or is a hole of the file. */
static void find_hole(struct image *image, struct image_extent *extent)
{
        struct image_extent there;

        image_file_extent(image, extent->file_offset, extent->file_offset + extent->length, &there);
        extent->zero = there.zero;
        extent->length = there.length;
}

int co_qcow2_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                    struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t length = image->virtual_bytes - offset;
        struct qcow2_run run;
        int r;

        /* The backing file's extents may be many in what is absent here as one. */
        if (q->backing && length > ABSENT_MAX_CLUSTERS << q->cluster_bits)
                length = ABSENT_MAX_CLUSTERS << q->cluster_bits;
        r = co_qcow2_map(image, offset, length, &run, err);
        if (r < 0)
                return r;
        if (run.kind == QCOW2_ABSENT)
                return co_absent_extent(image, offset, &run, ret_extent, err);
        *ret_extent = (struct image_extent){.length = run.length,
                                            .zero = run.kind == QCOW2_READS_ZERO,
                                            .present = true,
                                            .compressed = run.kind == QCOW2_PACKED,
                                            .has_offset = run.has_host,
                                            .file_offset = run.has_host ? run.host : 0};
        if (run.kind == QCOW2_PLAIN && is_sparse(image))
                find_hole(image, ret_extent);
        return 0;
}
