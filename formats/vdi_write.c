/* vdi_write.c - making VDI images, of version 1.1.
 *
 * The header comes last: before that there is no signature. Blocks of a dynamic image lie in the order in
 * which they are written, which is that of the disk. A static image's lie where the disk has them, and
 * the file has holes where nothing was written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "formats/vdi.h"

#define BLOCK_BYTES     (1u << 20) /* VirtualBox's own, and the only one that QEMU reads */
#define BLOCK_BYTES_MIN (512u << 10)
#define MAP_OFFSET      4096u
#define DATA_ALIGN      (1u << 20) /* as VirtualBox aligns it */
#define STATIC_UNIT     4096u

static int check_options(struct vdi *vdi, const struct image_create_options *options,
                         struct error *err)
{
        vdi->type = VDI_DYNAMIC;
        if (options->variant && strcmp(options->variant, "static") == 0)
                vdi->type = VDI_STATIC;
        else if (options->variant && strcmp(options->variant, "dynamic") != 0)
                return error_set(err, -EINVAL, "VDI images have no variant '%s'; there are %s",
                                 options->variant, image_vdi.variants);
        vdi->block_bytes = options->cluster_bytes ? options->cluster_bytes : BLOCK_BYTES;
        if (vdi->block_bytes < BLOCK_BYTES_MIN || vdi->block_bytes > IMAGE_UNIT_MAX ||
            (vdi->block_bytes & (vdi->block_bytes - 1)) != 0)
                return error_set(err, -EINVAL,
                                 "blocks of a VDI image have 512 KiB, 1 MiB or 2 MiB, not %u bytes",
                                 vdi->block_bytes);
        return 0;
}

static uint64_t file_end(const struct vdi *vdi)
{
        return vdi->data_offset + (uint64_t)vdi->n_allocated * vdi->block_bytes;
}

int co_vdi_create(struct image *image, const struct image_create_options *options,
                  struct error *err)
{
        struct vdi *vdi = calloc(1, sizeof(*vdi));
        int r;

        if (!vdi)
                return error_set(err, -ENOMEM, "out of memory");
        image->state = vdi;
        r = check_options(vdi, options, err);
        if (r == 0)
                r = block_writer_init(&vdi->writer, image, vdi->block_bytes, err);
        if (r == 0)
                r = block_create_begin(image, options, err);
        if (r < 0)
                return r;
        vdi->n_blocks = (uint32_t)vdi->writer.n_blocks;
        vdi->map_offset = MAP_OFFSET;
        vdi->data_offset =
            (MAP_OFFSET + (uint64_t)vdi->n_blocks * 4 + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
        image->write_unit = vdi->block_bytes;
        if (vdi->type == VDI_DYNAMIC)
                return 0;
        image->write_unit = STATIC_UNIT;
        vdi->n_allocated = vdi->n_blocks;
        for (uint32_t i = 0; i < vdi->n_blocks; i++)
                vdi->writer.places[i] = i + 1;
        return image_set_size(image, file_end(vdi), err);
}

/* Places are taken before anything suspends. */
int co_vdi_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                 struct error *err)
{
        struct vdi *vdi = image->state;
        uint64_t first = offset / vdi->block_bytes, at = file_end(vdi);

        if (vdi->type == VDI_STATIC)
                return co_image_pwrite(image, buffer, length, vdi->data_offset + offset, err);
        for (uint64_t i = first; i * vdi->block_bytes < offset + length; i++)
                vdi->writer.places[i] = ++vdi->n_allocated;
        return co_image_pwrite(image, buffer, length, at, err);
}

/* What is not written is zero: VDI_BLOCK_ZERO, or a hole. */
int co_vdi_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        return 0;
}

static void put_geometry(struct vdi_geometry_disk *geometry)
{
        geometry->sector_bytes = le32_make(512); /* the rest 0: not calculated */
}

static int make_header(const struct image *image, struct vdi_header_disk *d, struct error *err)
{
        const struct vdi *vdi = image->state;
        static const char text[] = "<<< tarn Virtual Disk Image >>>\n";

        memset(d, 0, sizeof(*d));
        memcpy(d->pre.text, text, sizeof(text));
        d->pre.signature = le32_make(VDI_SIGNATURE);
        d->pre.major = le16_make(1);
        d->pre.minor = le16_make(1);
        d->header_bytes = le32_make(VDI_HEADER_BYTES);
        d->type = le32_make(vdi->type);
        d->map_offset = le32_make((uint32_t)vdi->map_offset);
        d->data_offset = le32_make((uint32_t)vdi->data_offset);
        put_geometry(&d->pchs);
        d->disk_bytes = le64_make((image->virtual_bytes + 511) / 512 * 512);
        d->block_bytes = le32_make(vdi->block_bytes);
        d->n_blocks = le32_make(vdi->n_blocks);
        d->n_allocated = le32_make(vdi->n_allocated);
        put_geometry(&d->lchs);
        if (getrandom(d->uuid, 16, 0) != 16 || getrandom(d->modified_uuid, 16, 0) != 16)
                return error_set(err, -EIO, "there are no random numbers for a UUID");
        /* Version 4, variant 1 of RFC 9562; of the third field the lowest byte comes first. */
        d->uuid[7] = d->modified_uuid[7] = 0x40 | (d->uuid[7] & 0x0f);
        d->uuid[8] = 0x80 | (d->uuid[8] & 0x3f);
        d->modified_uuid[8] = 0x80 | (d->modified_uuid[8] & 0x3f);
        return 0;
}

int co_vdi_finish(struct image *image, struct error *err)
{
        struct vdi *vdi = image->state;
        struct vdi_header_disk header;
        int r = make_header(image, &header, err);

        if (r == 0)
                r = co_block_writer_table(&vdi->writer, image, vdi->map_offset,
                                          (uint64_t)vdi->n_blocks * 4, VDI_BLOCK_ZERO, false, err);
        /* The last block is whole, whatever was written of it. */
        if (r == 0)
                r = image_set_size(image, file_end(vdi), err);
        if (r == 0)
                r = co_image_sync(image, err);
        if (r == 0)
                r = co_image_pwrite(image, &header, sizeof(header), 0, err);
        return r < 0 ? r : co_image_sync(image, err);
}
