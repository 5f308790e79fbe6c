/* vhd_check.c - whether a VHD's blocks are where its table says, each at a place of its own. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/vhd.h"

static void check_footers(const struct image *image, const struct vhd *vhd,
                          const struct vhd_footer_disk *copy, struct block_check *bc)
{
        if (vhd->by_copy)
                block_check_error(bc,
                                  "the footer at the end of the file is damaged or missing; the "
                                  "copy at its beginning is used");
        else if (memcmp(copy, &vhd->footer,
                        image->file_bytes - vhd->footer_offset < VHD_SECTOR ? VHD_OLD_FOOTER_BYTES
                                                                            : VHD_SECTOR) != 0)
                block_check_error(bc, "the copy of the footer at offset 0 differs from the footer");
}

/* False: the block lies over the header, the table or a footer. */
static bool check_place(const struct vhd *vhd, struct block_check *bc, uint64_t index,
                        uint64_t offset)
{
        const struct {
                const char *name;
                uint64_t offset, length;
        } parts[] = {
            {"first copy of the footer", 0, VHD_SECTOR},
            {"header", vhd->header_offset, sizeof(vhd->header)},
            {"table", vhd->table.offset, vhd->table.n_entries * 4},
            {"footer", vhd->by_copy ? 0 : vhd->footer_offset, VHD_SECTOR},
        };

        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
                if (offset < parts[i].offset + parts[i].length &&
                    parts[i].offset < offset + bc->stride) {
                        block_check_error(bc,
                                          "block %" PRIu64 " at offset %" PRIu64 " lies on the %s",
                                          index, offset, parts[i].name);
                        return false;
                }
        return true;
}

static int co_check_blocks(struct image *image, struct block_check *bc, struct error *err)
{
        struct vhd *vhd = image->state;

        for (uint64_t i = 0; i < vhd->table.n_entries; i++) {
                uint64_t used = image->virtual_bytes - i * vhd->block_bytes;
                uint32_t sector = 0;
                int r = co_image_check_pause(bc->check, i, err);

                if (r == 0)
                        r = co_block_table_get(image, &vhd->table, i, &sector, err);
                if (r < 0)
                        return r;
                if (sector == VHD_BLOCK_ABSENT)
                        continue;
                if (used > vhd->block_bytes)
                        used = vhd->block_bytes;
                if (check_place(vhd, bc, i, (uint64_t)sector * VHD_SECTOR))
                        block_check_add(bc, i, sector, vhd->bitmap_bytes + used);
        }
        return 0;
}

static int co_check_fixed(struct image *image, struct image_check *check)
{
        check->allocated_bytes = image->virtual_bytes;
        check->end_bytes = image->virtual_bytes;
        return 0;
}

int co_vhd_check(struct image *image, struct image_check *check, struct error *err)
{
        struct vhd *vhd = image->state;
        struct vhd_footer_disk copy;
        struct block_check bc = {.image = image,
                                 .check = check,
                                 .unit = VHD_SECTOR,
                                 .stride = (uint64_t)vhd->block_bytes + vhd->bitmap_bytes};
        int r;

        if (vhd->type == VHD_FIXED)
                return co_check_fixed(image, check);
        r = co_image_pread(image, &copy, sizeof(copy), 0, err);
        if (r < 0)
                return r;
        r = block_check_init(&bc, err);
        if (r < 0)
                return r;
        check_footers(image, vhd, &copy, &bc);
        check->end_bytes = vhd->table.offset + vhd->table.n_entries * 4;
        r = co_check_blocks(image, &bc, err);
        block_check_clear(&bc);
        return r;
}
