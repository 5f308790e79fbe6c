/* vmdk_write_sparse.c - sparse files: header, descriptor, both copies of the tables, then grains in the
 * order in which they come ("Hosted Sparse Extents"; all tables have their place from the beginning). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vmdk_write.h"

#define GDES_AT_ONCE 16384u

static uint64_t round_up(uint64_t n, uint64_t unit)
{
        return (n + unit - 1) / unit * unit;
}

int co_vmdk_sparse_begin(struct vmdk_sparse_out *o, struct error *err)
{
        uint64_t per_gde = (uint64_t)VMDK_GTES * (o->grain_bytes / VMDK_SECTOR), tables;
        int r;

        o->n_gdes = (o->capacity_sectors + per_gde - 1) / per_gde;
        o->gd_sectors = (o->n_gdes * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
        tables = o->gd_sectors + o->n_gdes * VMDK_GT_SECTORS;
        o->rgd_sector = 1 + (o->embeds ? VMDK_DESCRIPTOR_ROOM : 0);
        o->gd_sector = o->rgd_sector + tables;
        o->overhead_sectors = round_up(o->gd_sector + tables, o->grain_bytes / VMDK_SECTOR);
        o->next_sector = o->overhead_sectors;
        r = vmdk_set_length(o->file, 0, err);
        return r < 0 ? r : co_vmdk_mark_unfinished(o->file, err);
}

/* Both copies of the table that is being filled, once the next one begins. */
static int put_table(struct vmdk_sparse_out *o, struct vmdk_plan *plan, struct error *err)
{
        uint64_t at = o->gde * VMDK_GT_SECTORS + o->gd_sectors;
        le32 *table = o->table;
        int r;

        if (!table)
                return 0;
        o->table = NULL;
        r = vmdk_plan_own(plan, table, err);
        if (r == 0)
                r = vmdk_plan_add(plan, o->file, table, (size_t)VMDK_GTES * 4,
                                  (o->rgd_sector + at) * VMDK_SECTOR, err);
        if (r == 0)
                r = vmdk_plan_add(plan, o->file, table, (size_t)VMDK_GTES * 4,
                                  (o->gd_sector + at) * VMDK_SECTOR, err);
        return r;
}

static int place_grain(struct vmdk_sparse_out *o, struct vmdk_plan *plan, const uint8_t *data,
                       size_t length, uint64_t grain, struct error *err)
{
        uint64_t sector = o->next_sector;
        int r = 0;

        if (o->table && o->gde != grain / VMDK_GTES)
                r = put_table(o, plan, err);
        if (r == 0 && !o->table) {
                o->table = calloc(VMDK_GTES, sizeof(*o->table));
                o->gde = grain / VMDK_GTES;
                if (!o->table)
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        if (r < 0)
                return r;
        if (sector > UINT32_MAX)
                return error_set(err, -EFBIG,
                                 "'%s' would be longer than 2 TiB, which a sparse VMDK file "
                                 "cannot be",
                                 o->file->path);
        o->table[grain % VMDK_GTES] = le32_make((uint32_t)sector);
        o->next_sector += o->grain_bytes / VMDK_SECTOR;
        return vmdk_plan_add(plan, o->file, data, length, sector * VMDK_SECTOR, err);
}

int vmdk_sparse_place(struct vmdk_sparse_out *o, struct vmdk_plan *plan, const uint8_t *data,
                      size_t length, uint64_t offset, struct error *err)
{
        int r = 0;

        while (r == 0 && length > 0) {
                size_t n = length < o->grain_bytes ? length : o->grain_bytes;

                if (!image_is_zero(data, n))
                        r = place_grain(o, plan, data, n, offset / o->grain_bytes, err);
                data += n;
                offset += n;
                length -= n;
        }
        return r;
}

/* A grain directory: all of its tables are there, one behind the other. */
static int co_write_directory(struct vmdk_sparse_out *o, uint64_t gd_sector, struct error *err)
{
        size_t most = o->n_gdes < GDES_AT_ONCE ? o->n_gdes : GDES_AT_ONCE;
        le32 *gdes = calloc(most + 1, sizeof(*gdes));
        int r = 0;

        if (!gdes)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint64_t i = 0; r == 0 && i < o->n_gdes; i += most) {
                size_t n = o->n_gdes - i < most ? o->n_gdes - i : most;

                for (size_t k = 0; k < n; k++)
                        gdes[k] = le32_make(
                            (uint32_t)(gd_sector + o->gd_sectors + (i + k) * VMDK_GT_SECTORS));
                r = co_image_pwrite(o->file, gdes, n * 4, gd_sector * VMDK_SECTOR + i * 4, err);
        }
        free(gdes);
        return r;
}

static int co_write_header(struct vmdk_sparse_out *o, struct error *err)
{
        struct vmdk_header_disk h;

        vmdk_header_init(&h, 1, VMDK_FLAG_REDUNDANT, o->capacity_sectors, o->grain_bytes);
        if (o->embeds) {
                h.descriptor_offset = le64_make(1);
                h.descriptor_size = le64_make(VMDK_DESCRIPTOR_ROOM);
        }
        h.rgd_offset = le64_make(o->rgd_sector);
        h.gd_offset = le64_make(o->gd_sector);
        h.overhead = le64_make(o->overhead_sectors);
        return co_image_pwrite(o->file, &h, sizeof(h), 0, err);
}

int co_vmdk_sparse_finish(struct vmdk_sparse_out *o, const char *text, struct error *err)
{
        struct vmdk_plan plan = {0};
        int r = put_table(o, &plan, err);

        if (r == 0)
                r = co_vmdk_plan_write(&plan, err);
        vmdk_plan_clear(&plan);
        if (r == 0)
                r = co_write_directory(o, o->rgd_sector, err);
        if (r == 0)
                r = co_write_directory(o, o->gd_sector, err);
        if (r == 0 && o->embeds)
                r = co_image_pwrite(o->file, text, (size_t)VMDK_DESCRIPTOR_ROOM * VMDK_SECTOR,
                                    VMDK_SECTOR, err);
        if (r == 0) /* the last grain is a whole one, even if the disk ends in it */
                r = vmdk_set_length(o->file, o->next_sector * VMDK_SECTOR, err);
        if (r == 0)
                r = co_vmdk_sync(o->file, err);
        if (r == 0)
                r = co_write_header(o, err);
        return r < 0 ? r : co_vmdk_sync(o->file, err);
}

void vmdk_sparse_release(struct vmdk_sparse_out *o)
{
        free(o->table);
}
