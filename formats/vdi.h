/* vdi.h - the parts of the VDI driver, to each other.
 *
 * Units      bytes.
 * Threads    the image's loop.
 * Errors     as image.h has them.
 * Ownership  a struct vdi is an image's state; image.h's close() releases it.
 */
#pragma once
#include "formats/blocks.h"
#include "formats/vdi_format.h"

struct vdi {
        unsigned major, minor;
        uint32_t type; /* enum vdi_type */
        uint64_t map_offset, data_offset;
        uint64_t disk_bytes;
        uint32_t block_bytes, extra_bytes;
        uint32_t n_blocks, n_allocated;
        uint8_t uuid[16], modified_uuid[16], parent_uuid[16], parent_modified_uuid[16];
        struct block_table map;
        struct image *parent;
        struct block_writer writer; /* of an image that is being made */
};

int co_vdi_check(struct image *image, struct image_check *check, struct error *err);
int co_vdi_create(struct image *image, const struct image_create_options *options,
                  struct error *err);
int co_vdi_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                 struct error *err);
int co_vdi_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err);
int co_vdi_finish(struct image *image, struct error *err);
