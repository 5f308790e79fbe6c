/* vmdk.c - VMware's VMDK: opening an image with its extents and its parent, and reading it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vmdk_internal.h"
#include "formats/vmdk_write.h"

static bool probe(const struct image_sample *s)
{
        return image_starts_with(s, 0, "KDMV", 4) || image_starts_with(s, 0, "COWD", 4) ||
               vmdk_descriptor_probe((const char *)s->head, s->head_length);
}

/* ---- opening ---- */

static int co_read_descriptor(struct image *image, uint64_t offset, size_t length,
                              struct error *err)
{
        struct vmdk *v = image->state;
        char *text = malloc(length + 1);
        int r;

        if (!text)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(image, text, length, offset, err);
        if (r == 0)
                r = vmdk_descriptor_parse(&v->descriptor, text, length, image->path, offset, err);
        free(text);
        return r;
}

static int add_length(struct image *image, struct vmdk_extent *e, uint64_t sectors,
                      struct error *err)
{
        e->begin = image->virtual_bytes;
        if (sectors > (IMAGE_SIZE_MAX - e->begin) / VMDK_SECTOR)
                return error_set(err, -EFBIG, "'%s' says that it holds a disk larger than 4 PiB",
                                 image->path);
        e->length = sectors * VMDK_SECTOR;
        image->virtual_bytes += e->length;
        return 0;
}

static int open_flat(struct vmdk_extent *e, const struct vmdk_extent_line *line,
                     const struct image *image, struct error *err)
{
        e->part_offset = line->offset_sector * VMDK_SECTOR;
        if (e->part_offset > e->part->file_bytes ||
            e->length > e->part->file_bytes - e->part_offset)
                return error_set(err, -EBADMSG, "'%s' is shorter than '%s' says: %llu bytes",
                                 e->part->path, image->path,
                                 (unsigned long long)e->part->file_bytes);
        return 0;
}

static int co_open_sparse(struct vmdk_extent *e, const struct image *image, struct error *err)
{
        int r;

        e->sparse.file = e->part;
        r = co_vmdk_sparse_open(&e->sparse, err);
        if (r == 0 && e->sparse.capacity_sectors < e->length / VMDK_SECTOR)
                return error_set(err, -EBADMSG, "'%s' holds %llu sectors, '%s' says %llu",
                                 e->part->path, (unsigned long long)e->sparse.capacity_sectors,
                                 image->path, (unsigned long long)(e->length / VMDK_SECTOR));
        return r;
}

/* One line of a descriptor that names its extents. Files of them are opened as raw, for their bytes:
 * what they may hold is decided by the line, not by the file. */
static int co_add_extent(struct image *image, const struct vmdk_extent_line *line,
                         const struct image_options *options, struct error *err)
{
        struct vmdk *v = image->state;
        struct vmdk_extent *e = &v->extents[v->n_extents];
        struct image_options of_part = {.format = "raw",
                                        .opener = options->opener,
                                        .offload = options->offload,
                                        .from_disk = options->from_disk,
                                        .depth = options->depth};
        int r;

        if (line->sectors == 0)
                return 0;
        e->kind = line->kind == VMDK_VMFS_SPARSE ? VMDK_SPARSE : line->kind;
        e->sparse.id = (uint32_t)v->n_extents;
        r = add_length(image, e, line->sectors, err);
        if (r < 0)
                return r;
        v->n_extents++;
        if (e->kind == VMDK_ZERO_EXTENT || (options->alone && !options->opener))
                return 0;
        r = co_image_open_other(image, line->name, IMAGE_PART, &of_part, &e->part, err);
        if (r < 0)
                return r;
        image->allocated_bytes += e->part->allocated_bytes;
        return e->kind == VMDK_FLAT ? open_flat(e, line, image, err)
                                    : co_open_sparse(e, image, err);
}

static int co_open_lines(struct image *image, const struct image_options *options,
                         struct error *err)
{
        struct vmdk *v = image->state;
        const struct vmdk_descriptor *d = &v->descriptor;
        int r = 0;

        if (d->n_extents == 0)
                return error_set(err, -EBADMSG, "'%s' has a descriptor without extents",
                                 image->path);
        free(v->extents);
        v->n_extents = 0;
        v->extents = calloc(d->n_extents, sizeof(*v->extents));
        if (!v->extents)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < d->n_extents; i++)
                r = co_add_extent(image, &d->extents[i], options, err);
        return r;
}

static int co_open_text(struct image *image, const struct image_options *options, struct error *err)
{
        int r;

        if (image->file_bytes > VMDK_DESCRIPTOR_MAX)
                return error_set(err, -EBADMSG, "'%s' is a descriptor of more than 1 MiB",
                                 image->path);
        r = co_read_descriptor(image, 0, (size_t)image->file_bytes, err);
        return r < 0 ? r : co_open_lines(image, options, err);
}

static uint64_t total_sectors(const struct vmdk_descriptor *d)
{
        uint64_t total = 0;

        for (size_t i = 0; i < d->n_extents; i++)
                total += d->extents[i].sectors;
        return total;
}

/* A sparse file with its descriptor inside: the only extent is the file itself, whatever it is called
 * there. Except where it has no room: then it is an envelope of a descriptor that names others. */
static int co_open_embedded(struct image *image, const struct image_options *options,
                            struct error *err)
{
        struct vmdk *v = image->state;
        struct vmdk_extent *e = v->extents = calloc(1, sizeof(*v->extents));
        int r;

        if (!e)
                return error_set(err, -ENOMEM, "out of memory");
        v->n_extents = 1;
        e->kind = VMDK_SPARSE;
        e->sparse.file = image;
        r = co_vmdk_sparse_open(&e->sparse, err);
        if (r == 0)
                r = add_length(image, e, e->sparse.capacity_sectors, err);
        if (r == 0 && e->sparse.descriptor_bytes > 0)
                r = co_read_descriptor(image, e->sparse.descriptor_offset,
                                       (size_t)e->sparse.descriptor_bytes, err);
        if (r == 0 && image->virtual_bytes == 0 && total_sectors(&v->descriptor) > 0)
                r = co_open_lines(image, options, err);
        return r;
}

/* What Workstation on Windows names has no slash: "C:\VMs\base.vmdk". */
static int co_open_hint(struct image *image, const struct image_options *options, struct error *err)
{
        struct vmdk *v = image->state;
        char *name = strdup(v->descriptor.parent_hint);
        int r;

        if (!name)
                return error_set(err, -ENOMEM, "out of memory");
        if (!strchr(name, '/') && strchr(name, '\\'))
                image_path_from_windows(name);
        r = co_image_open_other(image, name, IMAGE_BACKING, options, &v->parent, err);
        free(name);
        return r;
}

static int co_open_parent(struct image *image, const struct image_options *options,
                          struct error *err)
{
        struct vmdk *v = image->state;
        const struct vmdk_descriptor *d = &v->descriptor;
        struct image_options of_parent = {
            .format = options->backing_format ? options->backing_format : "vmdk",
            .opener = options->opener,
            .offload = options->offload,
            .depth = options->depth};
        const struct vmdk *parent;
        int r;

        if (!d->parent_hint)
                return error_set(err, -EBADMSG, "'%s' has a parent and does not name it",
                                 image->path);
        image->info.backing = strdup(d->parent_hint);
        if (!image->info.backing)
                return error_set(err, -ENOMEM, "out of memory");
        if (options->alone)
                return 0;
        r = co_open_hint(image, &of_parent, err);
        if (r < 0 || v->parent->driver != &image_vmdk)
                return r;
        parent = v->parent->state;
        if (parent->descriptor.cid == d->parent_cid)
                return 0;
        return error_set(err, -EBADMSG,
                         "'%s' was changed after '%s' was made of it: its content id is %08x, not "
                         "%08x",
                         v->parent->path, image->path, parent->descriptor.cid, d->parent_cid);
}

static void fill_info(struct image *image)
{
        const struct vmdk *v = image->state;
        struct image_info *info = &image->info;

        info->variant = v->descriptor.create_type;
        snprintf(info->version, sizeof(info->version), "1");
        for (size_t i = 0; i < v->n_extents; i++) {
                const struct vmdk_sparse *s = &v->extents[i].sparse;

                if (!s->file)
                        continue;
                if (info->cluster_bytes == 0) {
                        info->cluster_bytes = s->grain_bytes;
                        snprintf(info->version, sizeof(info->version), "%u", s->version);
                }
                info->dirty = info->dirty || s->dirty;
                if (s->compressed)
                        info->compression = "zlib";
        }
}

static int co_vmdk_open(struct image *image, const struct image_options *options, struct error *err)
{
        struct vmdk *v = image->state = calloc(1, sizeof(*v));
        uint8_t magic[4] = {0};
        int r;

        if (!v)
                return error_set(err, -ENOMEM, "out of memory");
        v->descriptor.parent_cid = VMDK_NO_PARENT;
        if (options->snapshot)
                return error_set(err, -EINVAL, "'%s' has no snapshots inside of it", image->path);
        r = co_image_pread_padded(image, magic, sizeof(magic), 0, err);
        if (r < 0)
                return r;
        if (memcmp(magic, "KDMV", 4) == 0 || memcmp(magic, "COWD", 4) == 0)
                r = co_open_embedded(image, options, err);
        else
                r = co_open_text(image, options, err);
        if (r == 0 && v->descriptor.parent_cid != VMDK_NO_PARENT)
                r = co_open_parent(image, options, err);
        if (r == 0)
                fill_info(image);
        return r;
}

static void vmdk_close(struct image *image)
{
        struct vmdk *v = image->state;

        if (image->write_unit) {
                vmdk_write_close(image);
                return;
        }
        if (!v)
                return;
        for (size_t i = 0; i < v->n_extents; i++)
                image_close(v->extents[i].part);
        image_close(v->parent);
        free(v->extents);
        vmdk_descriptor_clear(&v->descriptor);
        vmdk_cache_clear(&v->cache);
        free(v);
}

/* ---- reading ---- */

static const struct vmdk_extent *find_extent(const struct vmdk *v, uint64_t offset)
{
        size_t low = 0, high = v->n_extents;

        while (high - low > 1) { /* the last one that begins at or before it */
                size_t middle = low + (high - low) / 2;

                if (v->extents[middle].begin <= offset)
                        low = middle;
                else
                        high = middle;
        }
        return &v->extents[low];
}

int vmdk_part_check(const struct image *image, const struct vmdk_extent *e, struct error *err)
{
        if (e->kind == VMDK_ZERO_EXTENT || e->part || e->sparse.file)
                return 0;
        return error_set(err, -EPERM, "'%s' needs other files, which were not opened", image->path);
}

/* Nobody in this image says anything about the range. */
static int co_absent_extent(struct image *image, uint64_t offset, struct image_extent *extent,
                            struct error *err)
{
        struct vmdk *v = image->state;
        struct image *parent = v->parent;
        uint64_t length = extent->length;
        int r;

        extent->zero = true;
        if (!parent || offset >= parent->virtual_bytes)
                return 0;
        r = parent->driver->co_extent(parent, offset, extent, err);
        if (r < 0)
                return r;
        extent->depth++;
        if (extent->length > length)
                extent->length = length;
        return 0;
}

static int co_sparse_extent(struct image *image, const struct vmdk_extent *e, uint64_t offset,
                            struct image_extent *ret_extent, struct error *err)
{
        struct vmdk *v = image->state;
        struct image_extent extent = {0};
        struct vmdk_run run;
        int r;

        r = co_vmdk_map(&v->cache, &e->sparse, offset - e->begin, e->begin + e->length - offset,
                        &run, err);
        if (r < 0)
                return r;
        extent.length = run.length;
        extent.present = run.content != VMDK_ABSENT;
        extent.zero = run.content == VMDK_ZEROES;
        extent.compressed = run.content == VMDK_DEFLATED;
        extent.has_offset = run.content == VMDK_PLAIN;
        extent.file_offset = extent.has_offset ? run.file_offset : 0;
        if (run.content == VMDK_ABSENT)
                r = co_absent_extent(image, offset, &extent, err);
        *ret_extent = extent;
        return r;
}

static int co_vmdk_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                          struct error *err)
{
        const struct vmdk_extent *e = find_extent(image->state, offset);
        uint64_t length = e->begin + e->length - offset;
        int r = vmdk_part_check(image, e, err);

        if (r < 0)
                return r;
        if (e->kind == VMDK_SPARSE)
                return co_sparse_extent(image, e, offset, ret_extent, err);
        if (e->kind == VMDK_ZERO_EXTENT) {
                *ret_extent =
                    (struct image_extent){.length = length, .zero = true, .present = true};
                return 0;
        }
        r = e->part->driver->co_extent(e->part, e->part_offset + (offset - e->begin), ret_extent,
                                       err);
        if (r == 0 && ret_extent->length > length)
                ret_extent->length = length;
        return r;
}

static int co_read_absent(struct image *image, uint8_t *buffer, uint64_t length, uint64_t offset,
                          struct error *err)
{
        struct vmdk *v = image->state;
        uint64_t n = 0;
        int r = 0;

        if (v->parent && offset < v->parent->virtual_bytes) {
                n = v->parent->virtual_bytes - offset;
                n = n < length ? n : length;
                r = v->parent->driver->co_read(v->parent, buffer, n, offset, err);
        }
        memset(buffer + n, 0, length - n);
        return r;
}

/* The first run of the range; *length becomes how much that was. */
static int co_read_run(struct image *image, const struct vmdk_extent *e, uint8_t *buffer,
                       uint64_t *length, uint64_t offset, struct error *err)
{
        struct vmdk *v = image->state;
        struct vmdk_run run;
        int r = co_vmdk_map(&v->cache, &e->sparse, offset - e->begin, *length, &run, err);

        if (r < 0)
                return r;
        *length = run.length;
        switch (run.content) {
        case VMDK_ABSENT:
                return co_read_absent(image, buffer, run.length, offset, err);
        case VMDK_ZEROES:
                memset(buffer, 0, run.length);
                return 0;
        case VMDK_PLAIN:
                return co_image_pread(e->sparse.file, buffer, run.length, run.file_offset, err);
        case VMDK_DEFLATED:
                return co_vmdk_read_deflated(image, &v->cache, &e->sparse, buffer, run.length,
                                             offset - e->begin, err);
        }
        return -EINVAL;
}

static int co_read_extent(struct image *image, const struct vmdk_extent *e, uint8_t *buffer,
                          uint64_t length, uint64_t offset, struct error *err)
{
        int r = vmdk_part_check(image, e, err);

        if (r < 0)
                return r;
        if (e->kind == VMDK_FLAT)
                return e->part->driver->co_read(e->part, buffer, length,
                                                e->part_offset + (offset - e->begin), err);
        if (e->kind == VMDK_ZERO_EXTENT) {
                memset(buffer, 0, length);
                return 0;
        }
        while (length > 0) {
                uint64_t n = length;

                r = co_read_run(image, e, buffer, &n, offset, err);
                if (r < 0)
                        return r;
                buffer += n;
                offset += n;
                length -= n;
        }
        return 0;
}

static int co_vmdk_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                        struct error *err)
{
        uint8_t *at = buffer;

        while (length > 0) {
                const struct vmdk_extent *e = find_extent(image->state, offset);
                uint64_t n = e->begin + e->length - offset;
                int r;

                n = n < length ? n : length;
                r = co_read_extent(image, e, at, n, offset, err);
                if (r < 0)
                        return r;
                at += n;
                offset += n;
                length -= n;
        }
        return 0;
}

const struct image_driver image_vmdk = {
    .name = "vmdk",
    .description = "VMware VMDK",
    .variants = "monolithicSparse, streamOptimized, monolithicFlat, twoGbMaxExtentSparse, "
                "twoGbMaxExtentFlat",
    .probe = probe,
    .co_open = co_vmdk_open,
    .co_extent = co_vmdk_extent,
    .co_read = co_vmdk_read,
    .co_check = co_vmdk_check,
    .co_create = co_vmdk_create,
    .co_write = co_vmdk_write,
    .co_zero = co_vmdk_zero,
    .co_finish = co_vmdk_finish,
    .close = vmdk_close,
};
