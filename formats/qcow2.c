/* qcow2.c - QEMU's qcow2: opening and closing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/qcow2.h"

static bool probe(const struct image_sample *s)
{
        return image_starts_with(s, 0, "QFI\xfb", 4);
}

/* By id or else by name, as qemu-img chooses. */
static int find_snapshot(const struct image *image, const char *wanted, size_t *ret_i,
                         struct error *err)
{
        const struct image_info *info = &image->info;

        for (size_t i = 0; i < info->n_snapshots; i++)
                if (strcmp(info->snapshots[i].id, wanted) == 0) {
                        *ret_i = i;
                        return 0;
                }
        for (size_t i = 0; i < info->n_snapshots; i++)
                if (strcmp(info->snapshots[i].name, wanted) == 0) {
                        *ret_i = i;
                        return 0;
                }
        return error_set(err, -ENOENT, "'%s' has no snapshot '%s'", image->path, wanted);
}

/* The disk as it was then, with the size that it had. What the L1 table of then does not reach,
 * because the disk grew and the snapshot does not say that, was not there. */
static int choose_snapshot(struct image *image, const char *wanted, struct error *err)
{
        struct qcow2 *q = image->state;
        size_t i = 0;
        int r = find_snapshot(image, wanted, &i, err);

        if (r < 0)
                return r;
        image->virtual_bytes = image->info.snapshots[i].virtual_bytes;
        if (image->virtual_bytes > IMAGE_SIZE_MAX)
                return error_set(err, -EFBIG,
                                 "'%s' says that its snapshot '%s' is of a disk larger than 4 PiB",
                                 image->path, wanted);
        q->l1_offset = q->snapshots[i].l1_offset;
        q->l1_size = q->snapshots[i].l1_size;
        return qcow2_check_l1(image, "the snapshot's L1 table", q->l1_offset, q->l1_size, err);
}

static int co_load_l1(struct image *image, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t needed = qcow2_l1_needed(q, image->virtual_bytes);
        size_t n = q->l1_size < needed ? q->l1_size : (size_t)needed;
        int r;

        q->l1_size = (uint32_t)n; /* what is beyond the disk is a machine's saved state */
        q->l1 = malloc(n > 0 ? n * QCOW2_L1_ENTRY : 1);
        if (!q->l1)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(image, q->l1, n * QCOW2_L1_ENTRY, q->l1_offset, err);
        for (size_t i = 0; r == 0 && i < n; i++)
                q->l1[i] = qcow2_get64(&q->l1[i]);
        return r;
}

static int prepare_cache(struct image *image, struct error *err)
{
        struct qcow2 *q = image->state;

        q->slice_bytes = q->cluster_bytes < QCOW2_SLICE_BYTES_MAX ? (uint32_t)q->cluster_bytes
                                                                  : QCOW2_SLICE_BYTES_MAX;
        q->n_slices = QCOW2_SLICES_BYTES / q->slice_bytes;
        q->slices = calloc(q->n_slices, sizeof(*q->slices));
        if (!q->slices)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; i < QCOW2_UNPACKED_MAX; i++)
                co_queue_init(&q->unpacked[i].loaded);
        return 0;
}

/* What QEMU calls some formats. */
static const char *format_name(const char *qemu_name)
{
        static const char *const names[][2] = {
            {"vpc", "vhd"}, {"file", "raw"}, {"host_device", "raw"}};

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(qemu_name, names[i][0]) == 0)
                        return names[i][1];
        return qemu_name;
}

/* To guess a format would let a guest that wrote a header into its raw disk choose what is read. */
static int co_open_backing(struct image *image, const struct image_options *options,
                           struct error *err)
{
        struct qcow2 *q = image->state;
        struct image_options below = *options;
        const char *format = image->info.backing_format ? format_name(image->info.backing_format)
                                                        : options->backing_format;
        int r;

        if (!format) {
                error_set(err, -EINVAL, "'%s' does not state the format of its backing file, '%s'",
                          image->path, image->info.backing);
                error_hint(err, "say it with --backing-format");
                return -EINVAL;
        }
        below.format = format;
        below.snapshot = NULL;
        r = co_image_open_other(image, image->info.backing, IMAGE_BACKING, &below, &q->backing,
                                err);
        /* Once, of the file that was asked for: a sentence has no room for one of each in a chain. */
        if (r < 0 && !image->above)
                error_prefix(err, "cannot open the backing file of '%s'", image->path);
        return r;
}

static int co_open_data(struct image *image, const struct image_options *options, struct error *err)
{
        struct qcow2 *q = image->state;
        struct image_options below = *options;
        int r;

        below.format = "raw";
        below.snapshot = NULL;
        r = co_image_open_other(image, image->info.data_file, IMAGE_PART, &below, &q->data, err);
        if (r < 0)
                error_prefix(err, "cannot open the data file of '%s'", image->path);
        return r;
}

static int co_open_others(struct image *image, const struct image_options *options,
                          struct error *err)
{
        struct qcow2 *q = image->state;
        int r = 0;

        if (q->named_data && !image->info.data_file)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its data is in another file, and it does not "
                                 "name that",
                                 image->path);
        if (options->alone)
                return 0;
        if (q->named_data)
                r = co_open_data(image, options, err);
        if (r == 0 && image->info.backing)
                r = co_open_backing(image, options, err);
        return r;
}

static void fill_info(struct image *image)
{
        struct qcow2 *q = image->state;
        struct image_info *info = &image->info;

        info->variant = q->version == 2 ? "v2" : "v3";
        snprintf(info->version, sizeof(info->version), "%u", q->version);
        info->cluster_bytes = q->cluster_bytes;
        if (!q->named_data)
                info->compression = q->compression == QCOW2_ZSTD ? "zstd" : "zlib";
        info->dirty = (q->incompatible & QCOW2_DIRTY) != 0;
        info->corrupt = (q->incompatible & QCOW2_CORRUPT) != 0;
}

static int co_open(struct image *image, const struct image_options *options, struct error *err)
{
        struct qcow2 *q = calloc(1, sizeof(*q));
        int r;

        if (!q)
                return error_set(err, -ENOMEM, "out of memory");
        image->state = q;
        q->alone = options->alone;
        r = co_qcow2_header_load(image, err);
        if (r == 0)
                r = co_qcow2_snapshots_load(image, err);
        if (r == 0)
                r = co_qcow2_bitmaps_load(image, err);
        if (r < 0)
                return r;
        fill_info(image);
        q->l1_offset = q->active_l1_offset;
        q->l1_size = q->active_l1_size;
        if (options->snapshot)
                r = choose_snapshot(image, options->snapshot, err);
        if (r == 0)
                r = co_load_l1(image, err);
        if (r == 0)
                r = prepare_cache(image, err);
        return r < 0 ? r : co_open_others(image, options, err);
}

static void qcow2_close(struct image *image)
{
        struct qcow2 *q = image->state;

        if (!q)
                return;
        for (size_t i = 0; q->slices && i < q->n_slices; i++)
                free(q->slices[i].data);
        for (size_t i = 0; i < QCOW2_UNPACKED_MAX; i++)
                free(q->unpacked[i].data);
        free(q->slices);
        free(q->snapshots);
        free(q->l1);
        image_close(q->data);
        image_close(q->backing);
        qcow2_writer_free(q->writer);
        free(q);
}

const struct image_driver image_qcow2 = {
    .name = "qcow2",
    .description = "QEMU qcow2",
    .variants = "v3, v2",
    .dirty_is_whole = true, /* but for refcounts */
    .probe = probe,
    .co_open = co_open,
    .co_extent = co_qcow2_extent,
    .co_read = co_qcow2_read,
    .co_check = co_qcow2_check,
    .co_create = co_qcow2_create,
    .co_write = co_qcow2_write,
    .co_zero = co_qcow2_zero,
    .co_finish = co_qcow2_finish,
    .close = qcow2_close,
};
