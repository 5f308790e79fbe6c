/* vhd_write.c - making VHD images.
 *
 * Both footers come last: before that the file is none. The size is exact, for everybody: where the
 * geometry of the specification has another number of sectors than the disk, the largest one is stated,
 * with which all known readers go by the size. Blocks are placed so that their sectors, behind the bitmap,
 * are aligned to 4096 bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "formats/vhd.h"

#define BLOCK_BYTES     (2u << 20)
#define BLOCK_BYTES_MIN (512u << 10)
#define FIXED_UNIT      4096u
#define HEADER_OFFSET   512u
#define TABLE_OFFSET    1536u
#define ALIGN           4096u
#define SIZE_MAX_BYTES  (UINT64_C(2040) << 30)

static uint64_t disk_bytes(const struct image *image)
{
        return (image->virtual_bytes + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

static int check_options(struct image *image, struct vhd *vhd,
                         const struct image_create_options *options, struct error *err)
{
        vhd->type = VHD_DYNAMIC;
        if (options->variant && strcmp(options->variant, "fixed") == 0)
                vhd->type = VHD_FIXED;
        else if (options->variant && strcmp(options->variant, "dynamic") != 0)
                return error_set(err, -EINVAL, "VHD images have no variant '%s'; there are %s",
                                 options->variant, image_vhd.variants);
        if (image->virtual_bytes > SIZE_MAX_BYTES)
                return error_set(err, -EFBIG,
                                 "'%s' cannot be a VHD image: the disk has %llu bytes, and VHD has "
                                 "room for 2040 GiB",
                                 image->path, (unsigned long long)image->virtual_bytes);
        if (vhd->type == VHD_FIXED && options->cluster_bytes)
                return error_set(err, -EINVAL, "fixed VHD images have no blocks");
        vhd->block_bytes = options->cluster_bytes ? options->cluster_bytes : BLOCK_BYTES;
        if (vhd->block_bytes < BLOCK_BYTES_MIN || vhd->block_bytes > IMAGE_UNIT_MAX ||
            (vhd->block_bytes & (vhd->block_bytes - 1)) != 0)
                return error_set(err, -EINVAL,
                                 "blocks of a VHD image have 512 KiB, 1 MiB or 2 MiB, not %u bytes",
                                 vhd->block_bytes);
        return 0;
}

/* Where a block can begin, at @offset or behind it, with its sectors aligned. */
static uint64_t place_from(uint64_t offset)
{
        return (offset + VHD_SECTOR + ALIGN - 1) / ALIGN * ALIGN - VHD_SECTOR;
}

/* From a block to the next one. */
static uint64_t stride(const struct vhd *vhd)
{
        return (uint64_t)vhd->block_bytes + ALIGN;
}

static uint64_t table_bytes(const struct vhd *vhd)
{
        return (vhd->writer.n_blocks * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

int co_vhd_create(struct image *image, const struct image_create_options *options,
                  struct error *err)
{
        struct vhd *vhd = calloc(1, sizeof(*vhd));
        int r;

        if (!vhd)
                return error_set(err, -ENOMEM, "out of memory");
        image->state = vhd;
        r = check_options(image, vhd, options, err);
        if (r == 0)
                r = block_create_begin(image, options, err);
        if (r < 0)
                return r;
        if (vhd->type == VHD_FIXED) {
                image->write_unit = FIXED_UNIT;
                return image_set_size(image, disk_bytes(image), err);
        }
        image->write_unit = vhd->block_bytes;
        r = block_writer_init(&vhd->writer, image, vhd->block_bytes, err);
        vhd->next_block = place_from(TABLE_OFFSET + table_bytes(vhd));
        /* Places are sectors, in 32 bits. */
        if (r == 0 && (vhd->next_block + vhd->writer.n_blocks * stride(vhd)) / VHD_SECTOR >=
                          VHD_BLOCK_ABSENT - 1)
                r = error_set(
                    err, -EFBIG,
                    "'%s' cannot be a VHD image with blocks of %u bytes: the table has no "
                    "numbers for so large a file",
                    image->path, vhd->block_bytes);
        return r;
}

static int co_write_block(struct image *image, const void *buffer, size_t length, uint64_t place,
                          struct error *err)
{
        uint8_t bits[VHD_SECTOR];
        int r;

        memset(bits, 0xff, sizeof(bits));
        r = co_image_pwrite(image, bits, sizeof(bits), place, err);
        return r < 0 ? r : co_image_pwrite(image, buffer, length, place + VHD_SECTOR, err);
}

/* Places are taken before anything suspends. */
int co_vhd_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                 struct error *err)
{
        struct vhd *vhd = image->state;
        uint64_t place = vhd->next_block;
        int r = 0;

        if (vhd->type == VHD_FIXED)
                return co_image_pwrite(image, buffer, length, offset, err);
        for (uint64_t i = offset / vhd->block_bytes; i * vhd->block_bytes < offset + length; i++) {
                vhd->writer.places[i] = (uint32_t)(vhd->next_block / VHD_SECTOR) + 1;
                vhd->next_block += stride(vhd);
        }
        for (size_t at = 0; r == 0 && at < length; at += vhd->block_bytes, place += stride(vhd)) {
                size_t n = length - at < vhd->block_bytes ? length - at : vhd->block_bytes;

                r = co_write_block(image, (const char *)buffer + at, n, place, err);
        }
        return r;
}

/* What is not written is zero: no block, or a hole. */
int co_vhd_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        return 0;
}

static int make_footer(const struct image *image, struct vhd_footer_disk *d, struct error *err)
{
        const struct vhd *vhd = image->state;
        uint64_t bytes = disk_bytes(image);
        uint16_t cylinders;

        memset(d, 0, sizeof(*d));
        memcpy(d->cookie, VHD_COOKIE, 8);
        d->features = be32_make(VHD_FEATURES_RESERVED);
        d->version = be32_make(VHD_VERSION);
        d->data_offset = be64_make(vhd->type == VHD_FIXED ? VHD_NO_OFFSET : HEADER_OFFSET);
        d->time_s = be32_make((uint32_t)(time(NULL) - VHD_EPOCH));
        memcpy(d->creator, "tarn", 4);
        d->creator_version = be32_make(0x00010000);
        memcpy(d->creator_host, "Wi2k", 4); /* the specification knows this and Macintosh */
        d->original_bytes = d->current_bytes = be64_make(bytes);
        if (vhd_geometry(bytes / VHD_SECTOR, &cylinders, &d->heads, &d->sectors_per_track) !=
            bytes / VHD_SECTOR) {
                cylinders = 65535;
                d->heads = 16;
                d->sectors_per_track = 255;
        }
        d->cylinders = be16_make(cylinders);
        d->type = be32_make(vhd->type);
        if (getrandom(d->uuid, 16, 0) != 16)
                return error_set(err, -EIO, "there are no random numbers for a UUID");
        d->uuid[6] = 0x40 | (d->uuid[6] & 0x0f); /* version 4, variant 1 of RFC 9562 */
        d->uuid[8] = 0x80 | (d->uuid[8] & 0x3f);
        d->checksum =
            be32_make(vhd_checksum(d, sizeof(*d), offsetof(struct vhd_footer_disk, checksum)));
        return 0;
}

static void make_header(const struct vhd *vhd, struct vhd_header_disk *d)
{
        memset(d, 0, sizeof(*d));
        memcpy(d->cookie, VHD_HEADER_COOKIE, 8);
        d->next = be64_make(VHD_NO_OFFSET);
        d->table_offset = be64_make(TABLE_OFFSET);
        d->version = be32_make(VHD_VERSION);
        d->n_entries = be32_make((uint32_t)vhd->writer.n_blocks);
        d->block_bytes = be32_make(vhd->block_bytes);
        d->checksum =
            be32_make(vhd_checksum(d, sizeof(*d), offsetof(struct vhd_header_disk, checksum)));
}

static int co_write_tables(struct image *image, struct vhd *vhd, struct error *err)
{
        struct vhd_header_disk header;
        int r;

        make_header(vhd, &header);
        r = co_image_pwrite(image, &header, sizeof(header), HEADER_OFFSET, err);
        if (r == 0)
                r = co_block_writer_table(&vhd->writer, image, TABLE_OFFSET, table_bytes(vhd),
                                          VHD_BLOCK_ABSENT, true, err);
        /* The last block is whole, whatever was written of it. */
        return r < 0 ? r : image_set_size(image, vhd->next_block, err);
}

int co_vhd_finish(struct image *image, struct error *err)
{
        struct vhd *vhd = image->state;
        struct vhd_footer_disk footer;
        uint64_t end = vhd->type == VHD_FIXED ? disk_bytes(image) : vhd->next_block;
        int r = make_footer(image, &footer, err);

        if (r == 0 && vhd->type == VHD_DYNAMIC)
                r = co_write_tables(image, vhd, err);
        if (r == 0)
                r = co_image_sync(image, err);
        if (r == 0)
                r = co_image_pwrite(image, &footer, sizeof(footer), end, err);
        if (r == 0 && vhd->type == VHD_DYNAMIC)
                r = co_image_pwrite(image, &footer, sizeof(footer), 0, err);
        return r < 0 ? r : co_image_sync(image, err);
}
