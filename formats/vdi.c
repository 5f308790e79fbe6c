/* vdi.c - VirtualBox's VDI: opening and reading. */
#include "formats/vdi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u

static bool probe(const struct image_sample *s)
{
        return image_starts_with(s, 0x40, "\x7f\x10\xda\xbe", 4);
}

static int damaged(const struct image *image, const char *what, uint64_t value, size_t offset,
                   struct error *err)
{
        return error_set(err, -EBADMSG, "'%s' is no valid VDI image: the %s (%llu) at offset %zu",
                         image->path, what, (unsigned long long)value, offset);
}

/* ---- the header ---- */

static void take_header1(struct vdi *vdi, const struct vdi_header_disk *d)
{
        vdi->type = le32_get(d->type);
        vdi->map_offset = le32_get(d->map_offset);
        vdi->data_offset = le32_get(d->data_offset);
        vdi->disk_bytes = le64_get(d->disk_bytes);
        vdi->block_bytes = le32_get(d->block_bytes);
        vdi->extra_bytes = le32_get(d->extra_bytes);
        vdi->n_blocks = le32_get(d->n_blocks);
        vdi->n_allocated = le32_get(d->n_allocated);
        memcpy(vdi->uuid, d->uuid, 16);
        memcpy(vdi->modified_uuid, d->modified_uuid, 16);
        memcpy(vdi->parent_uuid, d->parent_uuid, 16);
        memcpy(vdi->parent_modified_uuid, d->parent_modified_uuid, 16);
}

static void take_header0(struct vdi *vdi, const struct vdi_header0_disk *d)
{
        vdi->type = le32_get(d->type);
        vdi->disk_bytes = le64_get(d->disk_bytes);
        vdi->block_bytes = le32_get(d->block_bytes);
        vdi->n_blocks = le32_get(d->n_blocks);
        vdi->n_allocated = le32_get(d->n_allocated);
        vdi->map_offset = sizeof(*d);
        vdi->data_offset = sizeof(*d) + (uint64_t)vdi->n_blocks * 4;
        memcpy(vdi->uuid, d->uuid, 16);
        memcpy(vdi->modified_uuid, d->modified_uuid, 16);
        memcpy(vdi->parent_uuid, d->parent_uuid, 16);
}

static int check_version(const struct image *image, const struct vdi *vdi, uint32_t header_bytes,
                         struct error *err)
{
        if ((vdi->major != 1 || vdi->minor > 1) && (vdi->major != 0 || vdi->minor != 2))
                return error_set(err, -ENOTSUP,
                                 "'%s' is a VDI image of version %u.%u; versions 1.1, 1.0 and 0.2 "
                                 "are read",
                                 image->path, vdi->major, vdi->minor);
        if (vdi->major == 1 && header_bytes < VDI_HEADER_BYTES_MIN)
                return damaged(image, "header's length is too small", header_bytes, 72, err);
        return 0;
}

static int check_type(const struct image *image, const struct vdi *vdi, struct error *err)
{
        if (vdi->type == VDI_UNDO)
                return error_set(err, -ENOTSUP,
                                 "'%s' is an undo image of a VDI (type 3); these are not read",
                                 image->path);
        if (vdi->type != VDI_DYNAMIC && vdi->type != VDI_STATIC && vdi->type != VDI_DIFFERENCING)
                return damaged(image, "image's type is unknown", vdi->type, 76, err);
        return 0;
}

static bool is_power_of_two(uint32_t n)
{
        return n != 0 && (n & (n - 1)) == 0;
}

/* Offsets are those of version 1.1. */
static int check_header(const struct image *image, const struct vdi *vdi, struct error *err)
{
        uint64_t map_end = vdi->map_offset + (uint64_t)vdi->n_blocks * 4;
        int r = check_type(image, vdi, err);

        if (r < 0)
                return r;
        if (vdi->disk_bytes > IMAGE_SIZE_MAX)
                return error_set(err, -EFBIG, "'%s' says that it holds a disk larger than 4 PiB",
                                 image->path);
        if (!is_power_of_two(vdi->block_bytes) || vdi->block_bytes < SECTOR)
                return damaged(image, "block size is no power of two from 512 on", vdi->block_bytes,
                               376, err);
        if (vdi->extra_bytes != 0 && !is_power_of_two(vdi->extra_bytes))
                return damaged(image, "size of the data beside blocks is no power of two",
                               vdi->extra_bytes, 380, err);
        if ((uint64_t)vdi->n_blocks * vdi->block_bytes < vdi->disk_bytes)
                return damaged(image, "number of blocks is too small for the disk's size",
                               vdi->n_blocks, 384, err);
        if (vdi->n_allocated > vdi->n_blocks)
                return damaged(image, "number of allocated blocks is larger than that of all",
                               vdi->n_allocated, 388, err);
        if (vdi->major == 1 && vdi->map_offset < sizeof(struct vdi_preheader_disk) + 384)
                return damaged(image, "block map lies in the header", vdi->map_offset, 340, err);
        if (map_end > image->file_bytes)
                return error_set(err, -EBADMSG,
                                 "'%s' ends at %llu bytes, within its block map, which ends at "
                                 "%llu",
                                 image->path, (unsigned long long)image->file_bytes,
                                 (unsigned long long)map_end);
        if (vdi->data_offset < map_end)
                return damaged(image, "data begins before the block map's end", vdi->data_offset,
                               344, err);
        return 0;
}

static int co_read_header(struct image *image, struct vdi *vdi, struct error *err)
{
        union {
                struct vdi_preheader_disk pre;
                struct vdi_header_disk v1;
                struct vdi_header0_disk v0;
        } d = {0};
        int r;

        if (image->file_bytes < sizeof(d.v0))
                return error_set(err, -EBADMSG, "'%s' ends at %llu bytes, within its VDI header",
                                 image->path, (unsigned long long)image->file_bytes);
        r = co_image_pread_padded(image, &d, sizeof(d), 0, err);
        if (r < 0)
                return r;
        if (le32_get(d.pre.signature) != VDI_SIGNATURE)
                return error_set(err, -EBADMSG, "'%s' is no VDI image: no signature at offset 64",
                                 image->path);
        vdi->major = le16_get(d.pre.major);
        vdi->minor = le16_get(d.pre.minor);
        r = check_version(image, vdi, le32_get(d.v1.header_bytes), err);
        if (r < 0)
                return r;
        if (vdi->major == 0)
                take_header0(vdi, &d.v0);
        else
                take_header1(vdi, &d.v1);
        return check_header(image, vdi, err);
}

/* ---- the parent ---- */

static bool uuid_is_zero(const uint8_t *uuid)
{
        return image_is_zero(uuid, 16);
}

/* As VirtualBox shows it: the first three fields lie there with their lowest byte first. */
static void uuid_text(const uint8_t *u, char *text, size_t size)
{
        snprintf(text, size, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                 u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12],
                 u[13], u[14], u[15]);
}

/* Of a parent of another format nothing is known. */
static int check_parent(const struct image *image, const struct vdi *vdi, struct error *err)
{
        const struct image *parent = vdi->parent;
        const struct vdi *other = parent->state;

        if (parent->guessed)
                return error_set(err, -ENOTSUP,
                                 "'%s', the parent of '%s', is of no known format; a raw one must "
                                 "be called so",
                                 parent->path, image->path);
        if (parent->driver != image->driver)
                return 0;
        if (memcmp(other->uuid, vdi->parent_uuid, 16) != 0)
                return error_set(
                    err, -EBADMSG,
                    "'%s' is not the parent of '%s': its UUID at offset 392 is another",
                    parent->path, image->path);
        if (!uuid_is_zero(vdi->parent_modified_uuid) &&
            memcmp(other->modified_uuid, vdi->parent_modified_uuid, 16) != 0)
                return error_set(err, -EBADMSG,
                                 "'%s' was changed after '%s' was made on top of it: its UUID of "
                                 "modification at offset 408 is another",
                                 parent->path, image->path);
        return 0;
}

/* A VDI says which parent, and not where: the opener is asked for its UUID. */
static int co_open_parent(struct image *image, struct vdi *vdi, const struct image_options *options,
                          struct error *err)
{
        struct image_options below = *options;
        char name[40];
        int r;

        uuid_text(vdi->parent_uuid, name, sizeof(name));
        image->info.backing = strdup(name);
        if (!image->info.backing)
                return error_set(err, -ENOMEM, "out of memory");
        if (options->alone)
                return 0;
        below.format = options->backing_format;
        below.snapshot = NULL;
        r = co_image_open_other(image, name, IMAGE_BACKING, &below, &vdi->parent, err);
        return r < 0 ? r : check_parent(image, vdi, err);
}

/* ---- opening and reading ---- */

static const char *variant(uint32_t type)
{
        return type == VDI_STATIC ? "static" : type == VDI_DYNAMIC ? "dynamic" : "differencing";
}

static int co_vdi_open(struct image *image, const struct image_options *options, struct error *err)
{
        struct vdi *vdi = calloc(1, sizeof(*vdi));
        int r;

        if (!vdi)
                return error_set(err, -ENOMEM, "out of memory");
        image->state = vdi;
        r = co_read_header(image, vdi, err);
        if (r < 0)
                return r;
        if (options->snapshot)
                return error_set(err, -ENOTSUP, "'%s' is a VDI image; these have no snapshots",
                                 image->path);
        vdi->map.offset = vdi->map_offset;
        vdi->map.n_entries = vdi->n_blocks;
        /* A disk has whole sectors; VirtualBox makes images that say something else of what is none.
         * Blocks have them anyway. */
        image->virtual_bytes = (vdi->disk_bytes + SECTOR - 1) / SECTOR * SECTOR;
        image->info.variant = variant(vdi->type);
        image->info.cluster_bytes = vdi->block_bytes;
        snprintf(image->info.version, sizeof(image->info.version), "%u.%u", vdi->major, vdi->minor);
        return vdi->type == VDI_DIFFERENCING ? co_open_parent(image, vdi, options, err) : 0;
}

static void vdi_close(struct image *image)
{
        struct vdi *vdi = image->state;

        if (!vdi)
                return;
        block_table_clear(&vdi->map);
        block_writer_clear(&vdi->writer);
        image_close(vdi->parent);
        free(vdi);
}

/* Where the data of a block is; checked to be in the file as far as the disk goes. */
static int place_of(const struct image *image, uint64_t index, uint32_t entry, uint64_t *ret_offset,
                    struct error *err)
{
        const struct vdi *vdi = image->state;
        uint64_t stride = (uint64_t)vdi->block_bytes + vdi->extra_bytes;
        uint64_t offset = vdi->data_offset + entry * stride + vdi->extra_bytes;
        uint64_t used = image->virtual_bytes - index * vdi->block_bytes;

        if (used > vdi->block_bytes)
                used = vdi->block_bytes;
        if (offset > image->file_bytes || used > image->file_bytes - offset)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its block map at offset %llu places block %llu "
                                 "at %llu, beyond the file's end",
                                 image->path, (unsigned long long)(vdi->map_offset + index * 4),
                                 (unsigned long long)index, (unsigned long long)offset);
        *ret_offset = offset;
        return 0;
}

/* What begins at a block's beginning. */
static int co_block(struct image *image, uint64_t index, struct block_run *ret_run,
                    struct error *err)
{
        struct vdi *vdi = image->state;
        uint32_t entry;
        int r = co_block_table_get(image, &vdi->map, index, &entry, err);

        if (r < 0)
                return r;
        ret_run->length = vdi->block_bytes;
        ret_run->file_offset = 0;
        ret_run->source = BLOCK_HERE;
        if (entry == VDI_BLOCK_FREE)
                ret_run->source = vdi->type == VDI_DIFFERENCING ? BLOCK_ABSENT : BLOCK_ZERO;
        else if (entry == VDI_BLOCK_ZERO)
                ret_run->source = BLOCK_ZERO;
        else
                return place_of(image, index, entry, &ret_run->file_offset, err);
        return 0;
}

static int co_find(struct image *image, uint64_t offset, uint64_t wanted, struct block_run *ret_run,
                   struct error *err)
{
        struct vdi *vdi = image->state;
        uint64_t index = offset / vdi->block_bytes, within = offset % vdi->block_bytes;
        struct block_run run, next;
        int r = co_block(image, index, &run, err);

        if (r < 0)
                return r;
        for (unsigned n = 1; n < BLOCK_RUN_MAX && run.length - within < wanted; n++) {
                /* One that is damaged is told of when it is come to. */
                if (co_block(image, index + n, &next, NULL) < 0 || next.source != run.source)
                        break;
                if (run.source == BLOCK_HERE && next.file_offset != run.file_offset + run.length)
                        break;
                run.length += next.length;
        }
        run.length -= within;
        if (run.length > wanted)
                run.length = wanted;
        if (run.source == BLOCK_HERE)
                run.file_offset += within;
        *ret_run = run;
        return 0;
}

static int co_vdi_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                         struct error *err)
{
        struct vdi *vdi = image->state;

        return co_blocks_extent(image, co_find, vdi->parent, vdi->type == VDI_STATIC, offset,
                                ret_extent, err);
}

static int co_vdi_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                       struct error *err)
{
        struct vdi *vdi = image->state;

        return co_blocks_read(image, co_find, vdi->parent, buffer, length, offset, err);
}

const struct image_driver image_vdi = {
    .name = "vdi",
    .description = "VirtualBox VDI",
    .variants = "dynamic, static",
    .probe = probe,
    .co_open = co_vdi_open,
    .co_extent = co_vdi_extent,
    .co_read = co_vdi_read,
    .co_check = co_vdi_check,
    .co_create = co_vdi_create,
    .co_write = co_vdi_write,
    .co_zero = co_vdi_zero,
    .co_finish = co_vdi_finish,
    .close = vdi_close,
};
