/* vmdk_write_text.c - the descriptor of an image that is written, as VMware writes it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vmdk_write.h"

static bool is_flat(enum vmdk_variant variant)
{
        return variant == VMDK_MONOLITHIC_FLAT || variant == VMDK_SPLIT_FLAT;
}

/* What VMware's BIOS gives a SCSI disk of that size. */
static void put_geometry(FILE *f, uint64_t sectors)
{
        const uint64_t gib = UINT64_C(1) << 21;
        unsigned heads = sectors < gib ? 64 : sectors < 2 * gib ? 128 : 255;
        unsigned per_track = sectors < 2 * gib ? 32 : 63;
        uint64_t cylinders = sectors / ((uint64_t)heads * per_track);

        fprintf(f, "ddb.geometry.cylinders = \"%" PRIu64 "\"\n", cylinders ? cylinders : 1);
        fprintf(f, "ddb.geometry.heads = \"%u\"\n", heads);
        fprintf(f, "ddb.geometry.sectors = \"%u\"\n", per_track);
}

static void put_all(FILE *f, const struct vmdk_out *out)
{
        fprintf(f,
                "# Disk DescriptorFile\n"
                "version=1\n"
                "encoding=\"UTF-8\"\n"
                "CID=%08" PRIx32 "\n"
                "parentCID=ffffffff\n"
                "createType=\"%s\"\n"
                "\n"
                "# Extent description\n",
                out->cid, vmdk_variant_name(out->variant));
        for (size_t i = 0; i < out->n_parts; i++)
                fprintf(f, "RW %" PRIu64 " %s \"%s\"%s\n", out->parts[i].length / VMDK_SECTOR,
                        is_flat(out->variant) ? "FLAT" : "SPARSE", out->parts[i].name,
                        is_flat(out->variant) ? " 0" : "");
        fprintf(f, "\n"
                   "# The Disk Data Base\n"
                   "#DDB\n"
                   "\n"
                   "ddb.virtualHWVersion = \"4\"\n");
        put_geometry(f, out->capacity_sectors);
        fprintf(f, "ddb.adapterType = \"lsilogic\"\n");
}

int vmdk_descriptor_text(const struct vmdk_out *out, size_t room, char **ret_text,
                         size_t *ret_length, struct error *err)
{
        char *text = NULL, *padded;
        size_t length = 0;
        FILE *f = open_memstream(&text, &length);

        if (!f)
                return error_set(err, -ENOMEM, "out of memory");
        put_all(f, out);
        if (fclose(f) != 0) {
                free(text);
                return error_set(err, -ENOMEM, "out of memory");
        }
        if (length > (room ? room : VMDK_DESCRIPTOR_MAX)) {
                free(text);
                return error_set(err, -ENAMETOOLONG, "the descriptor is too long");
        }
        if (room) {
                padded = calloc(1, room);
                if (padded)
                        memcpy(padded, text, length);
                free(text);
                if (!padded)
                        return error_set(err, -ENOMEM, "out of memory");
                text = padded;
                length = room;
        }
        *ret_text = text;
        *ret_length = length;
        return 0;
}
