/* vhd.c - Virtual PC's VHD: opening and reading.
 *
 * A block of a dynamic disk is a bitmap with a bit a sector, padded to whole sectors, and its sectors. A
 * sector whose bit is 0 was never written: it is the parent's, or zero.
 */
#include "formats/vhd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *variant(uint32_t type)
{
        return type == VHD_FIXED ? "fixed" : type == VHD_DYNAMIC ? "dynamic" : "differencing";
}

static int co_vhd_open(struct image *image, const struct image_options *options, struct error *err)
{
        struct vhd *vhd = calloc(1, sizeof(*vhd));
        int r;

        if (!vhd)
                return error_set(err, -ENOMEM, "out of memory");
        image->state = vhd;
        r = co_vhd_read_footer(image, vhd, err);
        if (r < 0)
                return r;
        if (image->virtual_bytes > IMAGE_SIZE_MAX)
                return error_set(err, -EFBIG, "'%s' says that it holds a disk larger than 4 PiB",
                                 image->path);
        if (options->snapshot)
                return error_set(err, -ENOTSUP, "'%s' is a VHD image; these have no snapshots",
                                 image->path);
        image->info.variant = variant(vhd->type);
        snprintf(image->info.version, sizeof(image->info.version), "%u.%u",
                 be32_get(vhd->footer.version) >> 16, be32_get(vhd->footer.version) & 0xffff);
        image->info.dirty = vhd->by_copy;
        if (vhd->type == VHD_FIXED)
                return 0;
        r = co_vhd_read_header(image, vhd, err);
        if (r < 0)
                return r;
        image->info.cluster_bytes = vhd->block_bytes;
        return vhd->type == VHD_DIFFERENCING ? co_vhd_open_parent(image, vhd, options, err) : 0;
}

static void vhd_close(struct image *image)
{
        struct vhd *vhd = image->state;

        if (!vhd)
                return;
        block_table_clear(&vhd->table);
        block_writer_clear(&vhd->writer);
        for (size_t i = 0; i < VHD_BITMAPS; i++)
                free(vhd->bitmaps[i].bits);
        image_close(vhd->parent);
        free(vhd);
}

/* ---- dynamic disks ---- */

/* Where the sectors of a block are; checked to be in the file as far as the disk goes. */
static int place_of(const struct image *image, uint64_t index, uint32_t sector,
                    uint64_t *ret_offset, struct error *err)
{
        const struct vhd *vhd = image->state;
        uint64_t offset = (uint64_t)sector * VHD_SECTOR + vhd->bitmap_bytes;
        uint64_t used = image->virtual_bytes - index * vhd->block_bytes;

        if (used > vhd->block_bytes)
                used = vhd->block_bytes;
        if (offset > image->file_bytes || used > image->file_bytes - offset)
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: its table at offset %llu places block %llu at "
                                 "%llu, beyond the file's end",
                                 image->path, (unsigned long long)(vhd->table.offset + index * 4),
                                 (unsigned long long)index, (unsigned long long)offset);
        *ret_offset = offset;
        return 0;
}

/* The bitmap that lies at @sector, good until the caller suspends. */
static int co_bitmap(struct image *image, uint32_t sector, const uint8_t **ret_bits,
                     struct error *err)
{
        struct vhd *vhd = image->state;
        size_t slot = sector / (1 + vhd->block_bytes / VHD_SECTOR) % VHD_BITMAPS;
        uint8_t *bits;
        int r;

        if (!vhd->bitmaps[slot].bits || vhd->bitmaps[slot].sector != sector) {
                bits = malloc(vhd->bitmap_bytes);
                if (!bits)
                        return error_set(err, -ENOMEM, "out of memory");
                r = co_image_pread(image, bits, vhd->bitmap_bytes, (uint64_t)sector * VHD_SECTOR,
                                   err);
                if (r < 0) {
                        free(bits);
                        return r;
                }
                free(vhd->bitmaps[slot].bits);
                vhd->bitmaps[slot].bits = bits;
                vhd->bitmaps[slot].sector = sector;
        }
        *ret_bits = vhd->bitmaps[slot].bits;
        return 0;
}

/* A byte's highest bit is its first. */
static bool bit(const uint8_t *bits, uint32_t i)
{
        return bits[i / 8] >> (7 - i % 8) & 1;
}

/* How many bits from @first on, before @end, are as that one. */
static uint32_t count_alike(const uint8_t *bits, uint32_t first, uint32_t end)
{
        bool value = bit(bits, first);
        uint8_t byte = value ? 0xff : 0;
        uint32_t i = first;

        while (i < end)
                if (i % 8 == 0 && i + 8 <= end && bits[i / 8] == byte)
                        i += 8;
                else if (bit(bits, i) == value)
                        i++;
                else
                        break;
        return i - first;
}

/* What is not in the file: of a disk that has no parent, that is zero. */
static enum block_source absent(const struct vhd *vhd)
{
        return vhd->type == VHD_DIFFERENCING ? BLOCK_ABSENT : BLOCK_ZERO;
}

static int co_find_in_block(struct image *image, uint64_t offset, uint64_t wanted, uint32_t sector,
                            struct block_run *ret_run, struct error *err)
{
        struct vhd *vhd = image->state;
        uint32_t within = offset % vhd->block_bytes, first = within / VHD_SECTOR;
        const uint8_t *bits = NULL;
        uint64_t place = 0;
        int r = place_of(image, offset / vhd->block_bytes, sector, &place, err);

        if (r == 0)
                r = co_bitmap(image, sector, &bits, err);
        if (r < 0)
                return r;
        ret_run->source = bit(bits, first) ? BLOCK_HERE : absent(vhd);
        ret_run->length =
            (uint64_t)count_alike(bits, first, vhd->block_bytes / VHD_SECTOR) * VHD_SECTOR -
            within % VHD_SECTOR;
        if (ret_run->length > wanted)
                ret_run->length = wanted;
        ret_run->file_offset = place + within;
        return 0;
}

/* Blocks never follow each other without a bitmap between them; only those that are absent make a run. */
static int co_find(struct image *image, uint64_t offset, uint64_t wanted, struct block_run *ret_run,
                   struct error *err)
{
        struct vhd *vhd = image->state;
        uint64_t index = offset / vhd->block_bytes, length;
        uint32_t sector, next;
        int r = co_block_table_get(image, &vhd->table, index, &sector, err);

        if (r < 0)
                return r;
        if (sector != VHD_BLOCK_ABSENT)
                return co_find_in_block(image, offset, wanted, sector, ret_run, err);
        length = vhd->block_bytes - offset % vhd->block_bytes;
        for (unsigned n = 1; n < BLOCK_RUN_MAX && length < wanted; n++) {
                if (co_block_table_get(image, &vhd->table, index + n, &next, NULL) < 0 ||
                    next != VHD_BLOCK_ABSENT)
                        break;
                length += vhd->block_bytes;
        }
        *ret_run =
            (struct block_run){.source = absent(vhd), .length = length < wanted ? length : wanted};
        return 0;
}

static int co_vhd_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                         struct error *err)
{
        struct vhd *vhd = image->state;

        if (vhd->type == VHD_FIXED) {
                image_file_extent(image, offset, image->virtual_bytes, ret_extent);
                return 0;
        }
        return co_blocks_extent(image, co_find, vhd->parent, false, offset, ret_extent, err);
}

static int co_vhd_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                       struct error *err)
{
        struct vhd *vhd = image->state;

        if (vhd->type == VHD_FIXED)
                return co_image_pread(image, buffer, length, offset, err);
        return co_blocks_read(image, co_find, vhd->parent, buffer, length, offset, err);
}

const struct image_driver image_vhd = {
    .name = "vhd",
    .description = "Virtual PC VHD",
    .variants = "dynamic, fixed",
    .probe = vhd_probe,
    .co_open = co_vhd_open,
    .co_extent = co_vhd_extent,
    .co_read = co_vhd_read,
    .co_check = co_vhd_check,
    .co_create = co_vhd_create,
    .co_write = co_vhd_write,
    .co_zero = co_vhd_zero,
    .co_finish = co_vhd_finish,
    .close = vhd_close,
};
