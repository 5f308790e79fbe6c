/* vdi_check.c - whether a VDI image's blocks are where its map says, each at a place of its own. */
#include <errno.h>

#include "formats/vdi.h"

static int co_check_map(struct image *image, struct block_check *bc, struct error *err)
{
        struct vdi *vdi = image->state;

        for (uint64_t i = 0; i < vdi->n_blocks; i++) {
                uint64_t at = i * vdi->block_bytes, used = 0;
                uint32_t entry = 0;
                int r = co_image_check_pause(bc->check, i, err);

                if (r == 0)
                        r = co_block_table_get(image, &vdi->map, i, &entry, err);
                if (r < 0)
                        return r;
                if (entry == VDI_BLOCK_FREE || entry == VDI_BLOCK_ZERO)
                        continue;
                if (at < image->virtual_bytes)
                        used = image->virtual_bytes - at;
                if (used > vdi->block_bytes)
                        used = vdi->block_bytes;
                block_check_add(bc, i, entry, vdi->extra_bytes + used);
        }
        return 0;
}

/* Whoever writes to the image takes the place behind that many blocks. */
static void check_count(const struct vdi *vdi, struct block_check *bc)
{
        uint64_t end = bc->check->end_bytes > vdi->data_offset
                           ? (bc->check->end_bytes - vdi->data_offset) / bc->stride
                           : 0;

        if (end > vdi->n_allocated)
                block_check_error(bc,
                                  "the header says at offset 388 that there are %u blocks, and "
                                  "there are %llu: a new one would be written over another",
                                  vdi->n_allocated, (unsigned long long)end);
}

int co_vdi_check(struct image *image, struct image_check *check, struct error *err)
{
        struct vdi *vdi = image->state;
        uint64_t stride = (uint64_t)vdi->block_bytes + vdi->extra_bytes, n_slots;
        struct block_check bc = {.image = image,
                                 .check = check,
                                 .base = vdi->data_offset,
                                 .unit = stride,
                                 .stride = stride};
        int r = block_check_init(&bc, err);

        if (r < 0)
                return r;
        check->end_bytes = vdi->data_offset;
        r = co_check_map(image, &bc, err);
        if (r == 0) {
                check_count(vdi, &bc);
                n_slots = image->file_bytes > vdi->data_offset
                              ? (image->file_bytes - vdi->data_offset) / stride
                              : 0;
                if (n_slots > bc.n_blocks) {
                        check->n_leaks = n_slots - bc.n_blocks;
                        check->leaked_bytes = check->n_leaks * stride;
                }
        }
        block_check_clear(&bc);
        return r;
}
