/* qcow2_header.c - a qcow2 file's header and its extensions. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/qcow2.h"

int qcow2_check_place(const struct image *image, const char *what, uint64_t offset, uint64_t bytes,
                      struct error *err)
{
        const struct qcow2 *q = image->state;

        if (offset == 0 && bytes > 0)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: %s lies at offset 0, where the header is",
                                 image->path, what);
        if (offset % q->cluster_bytes != 0)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: %s lies at offset %llu, which is no multiple of "
                                 "the cluster size, %llu",
                                 image->path, what, (unsigned long long)offset,
                                 (unsigned long long)q->cluster_bytes);
        if (bytes > image->file_bytes || offset > image->file_bytes - bytes)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: %s, %llu bytes at offset %llu, lies beyond the "
                                 "file's end at %llu",
                                 image->path, what, (unsigned long long)bytes,
                                 (unsigned long long)offset, (unsigned long long)image->file_bytes);
        return 0;
}

static int damaged(const struct image *image, unsigned at, const char *what, uint64_t value,
                   struct error *err)
{
        return error_set(err, -EBADMSG, "'%s' is damaged: its header at offset %u has %s %llu",
                         image->path, at, what, (unsigned long long)value);
}

static int parse_version(struct image *image, const uint8_t *head, struct error *err)
{
        struct qcow2 *q = image->state;

        if (image->file_bytes < QCOW2_V2_HEADER_SIZE)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: it has %llu bytes, and a qcow2 header needs %u",
                                 image->path, (unsigned long long)image->file_bytes,
                                 QCOW2_V2_HEADER_SIZE);
        if (qcow2_get32(head + QCOW2_MAGIC_AT) != QCOW2_MAGIC)
                return error_set(err, -EBADMSG, "'%s' is no qcow2 image: it does not begin as one",
                                 image->path);
        q->version = qcow2_get32(head + QCOW2_VERSION_AT);
        if (q->version != 2 && q->version != 3)
                return error_set(err, -ENOTSUP,
                                 "'%s' is a qcow image of version %u; 2 and 3 can be read",
                                 image->path, q->version);
        q->cluster_bits = qcow2_get32(head + QCOW2_CLUSTER_BITS_AT);
        if (q->cluster_bits < QCOW2_CLUSTER_BITS_MIN || q->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its header at offset %u has cluster bits %u; "
                                 "between %u and %u are allowed",
                                 image->path, QCOW2_CLUSTER_BITS_AT, q->cluster_bits,
                                 QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_BITS_MAX);
        q->cluster_bytes = UINT64_C(1) << q->cluster_bits;
        return 0;
}

/* Version 3's fields; version 2 has what is set here first. */
static int parse_features(struct image *image, const uint8_t *head, struct error *err)
{
        struct qcow2 *q = image->state;
        uint8_t type = 0;

        q->refcount_order = 4;
        q->header_length = QCOW2_V2_HEADER_SIZE;
        if (q->version == 2)
                return 0;
        q->incompatible = qcow2_get64(head + QCOW2_INCOMPATIBLE_AT);
        q->compatible = qcow2_get64(head + QCOW2_COMPATIBLE_AT);
        q->autoclear = qcow2_get64(head + QCOW2_AUTOCLEAR_AT);
        q->refcount_order = qcow2_get32(head + QCOW2_REFCOUNT_ORDER_AT);
        q->header_length = qcow2_get32(head + QCOW2_HEADER_LENGTH_AT);
        if (q->header_length < QCOW2_V3_HEADER_SIZE || q->header_length % 8 != 0 ||
            q->header_length > q->cluster_bytes)
                return damaged(image, QCOW2_HEADER_LENGTH_AT, "a length of", q->header_length, err);
        if (q->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
                return damaged(image, QCOW2_REFCOUNT_ORDER_AT, "refcount order", q->refcount_order,
                               err);
        if (q->header_length > QCOW2_COMPRESSION_TYPE_AT)
                type = head[QCOW2_COMPRESSION_TYPE_AT];
        /* What an unknown bit changes is unknown, the type's meaning as well. */
        if ((q->incompatible & ~QCOW2_INCOMPATIBLE_KNOWN) != 0)
                return 0;
        if (type > QCOW2_ZSTD)
                return error_set(err, -ENOTSUP,
                                 "'%s' has clusters compressed by a method of number %u; zlib (0) "
                                 "and zstd (1) can be read",
                                 image->path, type);
        if ((type != QCOW2_ZLIB) != ((q->incompatible & QCOW2_COMPRESSION_TYPE) != 0))
                return damaged(image, QCOW2_COMPRESSION_TYPE_AT,
                               "a compression type that its incompatible features deny:", type,
                               err);
        q->compression = type;
        q->extended = (q->incompatible & QCOW2_EXTENDED_L2) != 0;
        q->named_data = (q->incompatible & QCOW2_DATA_FILE) != 0;
        if (q->extended && q->cluster_bits < QCOW2_CLUSTER_BITS_MIN_EXTENDED)
                return damaged(image, QCOW2_CLUSTER_BITS_AT,
                               "extended L2 entries, which need larger clusters, and cluster bits",
                               q->cluster_bits, err);
        return 0;
}

static int parse_crypt(const struct image *image, const uint8_t *head, struct error *err)
{
        uint32_t method = qcow2_get32(head + QCOW2_CRYPT_METHOD_AT);

        if (method == QCOW2_CRYPT_NONE)
                return 0;
        if (method > QCOW2_CRYPT_LUKS)
                return error_set(err, -ENOTSUP, "'%s' is encrypted by an unknown method, number %u",
                                 image->path, method);
        error_set(err, -ENOTSUP, "'%s' is encrypted (%s), and encrypted images are not read",
                  image->path, method == QCOW2_CRYPT_LUKS ? "LUKS" : "AES");
        error_hint(err, "'qemu-img convert' with its key makes an image of it that is not");
        return -ENOTSUP;
}

/* Where the L1 table is, and that it can map the whole disk. */
static int parse_l1(struct image *image, const uint8_t *head, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t needed;

        image->virtual_bytes = qcow2_get64(head + QCOW2_SIZE_AT);
        if (image->virtual_bytes > IMAGE_SIZE_MAX)
                return error_set(err, -EFBIG, "'%s' says that it holds a disk larger than 4 PiB",
                                 image->path);
        q->active_l1_size = qcow2_get32(head + QCOW2_L1_SIZE_AT);
        q->active_l1_offset = qcow2_get64(head + QCOW2_L1_OFFSET_AT);
        needed = qcow2_l1_needed(q, image->virtual_bytes);
        if (q->active_l1_size < needed)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its L1 table has %u entries, and a disk of %llu "
                                 "bytes needs %llu",
                                 image->path, q->active_l1_size,
                                 (unsigned long long)image->virtual_bytes,
                                 (unsigned long long)needed);
        return qcow2_check_l1(image, "the L1 table", q->active_l1_offset, q->active_l1_size, err);
}

uint64_t qcow2_l1_needed(const struct qcow2 *q, uint64_t virtual_bytes)
{
        unsigned bits = q->cluster_bits + q->l2_bits;

        return (virtual_bytes >> bits) + ((virtual_bytes & ((UINT64_C(1) << bits) - 1)) != 0);
}

int qcow2_check_l1(const struct image *image, const char *what, uint64_t offset, uint32_t size,
                   struct error *err)
{
        uint64_t bytes = (uint64_t)size * QCOW2_L1_ENTRY;

        if (bytes > QCOW2_L1_BYTES_MAX)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: %s has %u entries, and %llu are the most",
                                 image->path, what, size,
                                 (unsigned long long)(QCOW2_L1_BYTES_MAX / QCOW2_L1_ENTRY));
        return qcow2_check_place(image, what, offset, bytes, err);
}

/* Reading does without refcounts: only what no header may say is refused. */
static int parse_refcounts(struct image *image, const uint8_t *head, struct error *err)
{
        struct qcow2 *q = image->state;

        q->refcount_table_offset = qcow2_get64(head + QCOW2_REFCOUNT_TABLE_OFFSET_AT);
        q->refcount_table_clusters = qcow2_get32(head + QCOW2_REFCOUNT_TABLE_CLUSTERS_AT);
        if (q->refcount_table_offset % q->cluster_bytes != 0)
                return damaged(image, QCOW2_REFCOUNT_TABLE_OFFSET_AT,
                               "a refcount table off the cluster boundaries, at offset",
                               q->refcount_table_offset, err);
        if (q->refcount_table_clusters > QCOW2_REFCOUNT_TABLE_BYTES_MAX >> q->cluster_bits)
                return damaged(image, QCOW2_REFCOUNT_TABLE_CLUSTERS_AT,
                               "a refcount table of more than 8 MiB, in clusters:",
                               q->refcount_table_clusters, err);
        return 0;
}

static int parse_snapshots(struct image *image, const uint8_t *head, struct error *err)
{
        struct qcow2 *q = image->state;

        q->n_snapshots = qcow2_get32(head + QCOW2_N_SNAPSHOTS_AT);
        q->snapshots_offset = qcow2_get64(head + QCOW2_SNAPSHOTS_OFFSET_AT);
        if (q->n_snapshots > QCOW2_SNAPSHOTS_MAX)
                return damaged(image, QCOW2_N_SNAPSHOTS_AT,
                               "more than 65536 snapshots:", q->n_snapshots, err);
        if (q->n_snapshots > 0 && q->named_data)
                return damaged(image, QCOW2_N_SNAPSHOTS_AT,
                               "an external data file, which excludes them, and snapshots:",
                               q->n_snapshots, err);
        return q->n_snapshots == 0
                   ? 0
                   : qcow2_check_place(image, "the snapshot table", q->snapshots_offset,
                                       (uint64_t)q->n_snapshots * QCOW2_SNAPSHOT_SIZE, err);
}

static int parse_fields(struct image *image, const uint8_t *head, struct error *err)
{
        struct qcow2 *q = image->state;
        int r = parse_version(image, head, err);

        if (r == 0)
                r = parse_features(image, head, err);
        if (r < 0 || (q->incompatible & ~QCOW2_INCOMPATIBLE_KNOWN) != 0)
                return r; /* refused with its name, which is in the extensions */
        q->l2_entry_bytes = q->extended ? QCOW2_L2_ENTRY_EXTENDED : QCOW2_L2_ENTRY;
        q->l2_bits = q->cluster_bits - (q->extended ? 4 : 3);
        q->subcluster_bits = q->cluster_bits - (q->extended ? 5 : 0);
        r = parse_crypt(image, head, err);
        if (r == 0)
                r = parse_l1(image, head, err);
        if (r == 0)
                r = parse_refcounts(image, head, err);
        return r < 0 ? r : parse_snapshots(image, head, err);
}

/* ---- extensions ---- */

/* The first cluster, and how far in it the extensions may go. */
struct area {
        const uint8_t *cluster;
        uint64_t end;
        uint64_t names, names_bytes; /* the feature name table; bytes 0: none */
};

static int parse_string(struct image *image, const uint8_t *data, uint32_t n, const char *what,
                        char **ret, struct error *err)
{
        if (*ret)
                return error_set(err, -EBADMSG, "'%s' is damaged: its header names %s twice",
                                 image->path, what);
        if (n > QCOW2_BACKING_NAME_MAX)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its header has a name of %s of %u bytes, more "
                                 "than %u",
                                 image->path, what, n, QCOW2_BACKING_NAME_MAX);
        *ret = strndup((const char *)data, n);
        return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int parse_bitmaps(struct image *image, const uint8_t *data, uint32_t n, struct error *err)
{
        struct qcow2 *q = image->state;

        if (n != QCOW2_BITMAPS_SIZE)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its header's bitmaps extension has %u bytes, "
                                 "not %u",
                                 image->path, n, QCOW2_BITMAPS_SIZE);
        if (!(q->autoclear & QCOW2_BITMAPS))
                return 0; /* written to by who did not know them: they count for nothing */
        q->n_bitmaps = qcow2_get32(data + QCOW2_BITMAPS_N_AT);
        q->bitmaps_bytes = qcow2_get64(data + QCOW2_BITMAPS_DIRECTORY_SIZE_AT);
        q->bitmaps_offset = qcow2_get64(data + QCOW2_BITMAPS_DIRECTORY_OFFSET_AT);
        if (q->n_bitmaps == 0 || q->n_bitmaps > QCOW2_BITMAPS_MAX)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its header says that it has %u bitmaps; between "
                                 "1 and %u are allowed",
                                 image->path, q->n_bitmaps, QCOW2_BITMAPS_MAX);
        if (q->bitmaps_bytes > QCOW2_BITMAP_DIRECTORY_BYTES_MAX)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its header says that the directory of its "
                                 "bitmaps has %llu bytes, more than 64 MiB",
                                 image->path, (unsigned long long)q->bitmaps_bytes);
        return qcow2_check_place(image, "the directory of bitmaps", q->bitmaps_offset,
                                 q->bitmaps_bytes, err);
}

static int parse_extension(struct image *image, struct area *area, uint32_t type, uint64_t at,
                           uint32_t n, struct error *err)
{
        const uint8_t *data = area->cluster + at;

        switch (type) {
        case QCOW2_EXTENSION_BACKING_FORMAT:
                return parse_string(image, data, n, "the backing file's format",
                                    &image->info.backing_format, err);
        case QCOW2_EXTENSION_DATA_FILE:
                return parse_string(image, data, n, "an external data file", &image->info.data_file,
                                    err);
        case QCOW2_EXTENSION_BITMAPS:
                return parse_bitmaps(image, data, n, err);
        case QCOW2_EXTENSION_FEATURE_NAMES:
                area->names = at;
                area->names_bytes = n;
                return 0;
        default: /* "can be safely ignored" */
                return 0;
        }
}

static int parse_extensions(struct image *image, struct area *area, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t at = q->header_length;

        while (at + QCOW2_EXTENSION_HEAD <= area->end) {
                uint32_t type = qcow2_get32(area->cluster + at);
                uint32_t n = qcow2_get32(area->cluster + at + 4);
                int r;

                if (type == QCOW2_EXTENSION_END)
                        return 0;
                if (n > area->end - at - QCOW2_EXTENSION_HEAD)
                        return error_set(err, -EBADMSG,
                                         "'%s' is damaged: the header extension at offset %llu has "
                                         "%u bytes, and its room ends at %llu",
                                         image->path, (unsigned long long)at, n,
                                         (unsigned long long)area->end);
                r = parse_extension(image, area, type, at + QCOW2_EXTENSION_HEAD, n, err);
                if (r < 0)
                        return r;
                at += QCOW2_EXTENSION_HEAD + (((uint64_t)n + 7) & ~UINT64_C(7));
        }
        return 0;
}

/* Bytes that a file says are a name, for a message. */
static void printable(char *to, size_t size, const uint8_t *from, size_t n)
{
        size_t i;

        for (i = 0; i < n && i + 1 < size && from[i] != 0; i++)
                if (from[i] >= 0x20 && from[i] < 0x7f)
                        to[i] = (char)from[i];
                else
                        to[i] = '?';
        to[i] = 0;
}

static int refuse_features(struct image *image, const struct area *area, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t unknown = q->incompatible & ~QCOW2_INCOMPATIBLE_KNOWN;
        unsigned bit = (unsigned)__builtin_ctzll(unknown);
        char name[QCOW2_FEATURE_NAME_SIZE + 1] = "";

        for (uint64_t i = 0; i + QCOW2_FEATURE_SIZE <= area->names_bytes; i += QCOW2_FEATURE_SIZE) {
                const uint8_t *entry = area->cluster + area->names + i;

                if (entry[QCOW2_FEATURE_KIND_AT] == 0 && entry[QCOW2_FEATURE_BIT_AT] == bit)
                        printable(name, sizeof(name), entry + QCOW2_FEATURE_NAME_AT,
                                  QCOW2_FEATURE_NAME_SIZE);
        }
        if (name[0] == 0)
                return error_set(err, -ENOTSUP,
                                 "'%s' uses an unknown feature, number %u, without which it cannot "
                                 "be read",
                                 image->path, bit);
        return error_set(err, -ENOTSUP,
                         "'%s' uses a feature without which it cannot be read: '%s' (number %u)",
                         image->path, name, bit);
}

static int parse_backing(struct image *image, const struct area *area, struct error *err)
{
        uint64_t offset = qcow2_get64(area->cluster + QCOW2_BACKING_OFFSET_AT);
        uint32_t n = qcow2_get32(area->cluster + QCOW2_BACKING_SIZE_AT);
        struct qcow2 *q = image->state;

        if (offset == 0 || n == 0)
                return 0;
        if (n > QCOW2_BACKING_NAME_MAX || offset > q->cluster_bytes ||
            n > q->cluster_bytes - offset)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: the backing file's name, %u bytes at offset "
                                 "%llu, is longer than %u bytes or not in the first cluster",
                                 image->path, n, (unsigned long long)offset,
                                 QCOW2_BACKING_NAME_MAX);
        if (q->autoclear & QCOW2_DATA_FILE_RAW)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: it has a backing file and a raw external data "
                                 "file, which exclude each other",
                                 image->path);
        image->info.backing = strndup((const char *)area->cluster + offset, n);
        return image->info.backing ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int parse_cluster(struct image *image, const uint8_t *cluster, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t backing = qcow2_get64(cluster + QCOW2_BACKING_OFFSET_AT);
        struct area area = {.cluster = cluster, .end = q->cluster_bytes};
        int r;

        if (backing >= q->header_length && backing < area.end)
                area.end = backing;
        r = parse_extensions(image, &area, err);
        if ((q->incompatible & ~QCOW2_INCOMPATIBLE_KNOWN) != 0)
                return refuse_features(image, &area, err);
        return r < 0 ? r : parse_backing(image, &area, err);
}

int co_qcow2_header_load(struct image *image, struct error *err)
{
        struct qcow2 *q = image->state;
        uint8_t head[QCOW2_V3_HEADER_SIZE_COMPRESSION];
        uint8_t *cluster;
        int r;

        r = co_image_pread_padded(image, head, sizeof(head), 0, err);
        if (r == 0)
                r = parse_fields(image, head, err);
        if (r < 0)
                return r;
        cluster = malloc(q->cluster_bytes);
        if (!cluster)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread_padded(image, cluster, q->cluster_bytes, 0, err);
        if (r == 0)
                r = parse_cluster(image, cluster, err);
        free(cluster);
        return r;
}
