/* vhd_header.c - a VHD's footer and dynamic header: where they are, whether they are right, and how
 * large the disk is. */
#include <errno.h>
#include <string.h>

#include "formats/vhd.h"

#define CYLINDERS_MAX 65535u
#define HEADS_MAX     16u
#define TRACK_MAX     255u
#define CHS_MAX       ((uint64_t)CYLINDERS_MAX * HEADS_MAX * TRACK_MAX)

/* A dynamic VHD has a copy of its footer in front; a fixed one has it only at the end. */
bool vhd_probe(const struct image_sample *s)
{
        return image_starts_with(s, 0, VHD_COOKIE, 8) ||
               (s->tail_length == IMAGE_TAIL_SIZE &&
                (memcmp(s->tail, VHD_COOKIE, 8) == 0 || memcmp(s->tail + 1, VHD_COOKIE, 8) == 0));
}

uint32_t vhd_checksum(const void *data, size_t length, size_t at)
{
        const uint8_t *p = data;
        uint32_t sum = 0;

        for (size_t i = 0; i < length; i++)
                if (i < at || i >= at + 4)
                        sum += p[i];
        return ~sum;
}

uint64_t vhd_geometry(uint64_t n_sectors, uint16_t *ret_cylinders, uint8_t *ret_heads,
                      uint8_t *ret_sectors_per_track)
{
        uint64_t tracks, heads, per_track; /* tracks: of all heads */

        if (n_sectors > CHS_MAX)
                n_sectors = CHS_MAX;
        if (n_sectors >= UINT64_C(65535) * 16 * 63) {
                per_track = 255;
                heads = 16;
                tracks = n_sectors / per_track;
        } else {
                per_track = 17;
                tracks = n_sectors / per_track;
                heads = (tracks + 1023) / 1024;
                if (heads < 4)
                        heads = 4;
                if (tracks >= heads * 1024 || heads > 16) {
                        per_track = 31;
                        heads = 16;
                        tracks = n_sectors / per_track;
                }
                if (tracks >= heads * 1024) {
                        per_track = 63;
                        heads = 16;
                        tracks = n_sectors / per_track;
                }
        }
        *ret_cylinders = (uint16_t)(tracks / heads);
        *ret_heads = (uint8_t)heads;
        *ret_sectors_per_track = (uint8_t)per_track;
        return tracks / heads * heads * per_track;
}

/* ---- how large the disk is ---- */

/* Those who show a guest the geometry's sectors, and not the size beside it, which can be larger. Hyper-V,
 * Azure, Disk2vhd, XenServer, VirtualBox and QEMU's "qem2" go by the size. */
static bool creator_means_geometry(const struct vhd_footer_disk *footer)
{
        static const char creators[][5] = {"vpc ", "vs  ", "qemu"};

        for (size_t i = 0; i < sizeof(creators) / sizeof(creators[0]); i++)
                if (memcmp(footer->creator, creators[i], 4) == 0)
                        return true;
        return false;
}

/* The largest geometry there is says nothing: larger disks have it, too. Nor does one that is larger than the
 * size: nothing says that there is so much. */
static uint64_t disk_bytes(const struct vhd_footer_disk *footer)
{
        uint64_t size = be64_get(footer->current_bytes) / VHD_SECTOR * VHD_SECTOR;
        uint64_t chs =
            (uint64_t)be16_get(footer->cylinders) * footer->heads * footer->sectors_per_track;

        if (creator_means_geometry(footer) && chs > 0 && chs < CHS_MAX && chs * VHD_SECTOR < size)
                return chs * VHD_SECTOR;
        return size;
}

/* ---- the footer ---- */

static bool footer_is_right(const struct vhd_footer_disk *footer)
{
        return memcmp(footer->cookie, VHD_COOKIE, 8) == 0 &&
               be32_get(footer->checksum) ==
                   vhd_checksum(footer, sizeof(*footer),
                                offsetof(struct vhd_footer_disk, checksum));
}

/* @length: VHD_SECTOR, or VHD_OLD_FOOTER_BYTES. */
static int co_try_footer(struct image *image, struct vhd *vhd, uint64_t offset, size_t length,
                         bool *ret_right, struct error *err)
{
        int r;

        memset(&vhd->footer, 0, sizeof(vhd->footer));
        r = co_image_pread(image, &vhd->footer, length, offset, err);
        if (r < 0)
                return r;
        vhd->footer_offset = offset;
        *ret_right = footer_is_right(&vhd->footer);
        return 0;
}

/* The footer at the end counts; what is in front of it can be the guest's, where the disk is fixed. Only
 * where there is none is the copy in front looked at, and a fixed disk has no copy. */
static int co_find_footer(struct image *image, struct vhd *vhd, struct error *err)
{
        uint64_t end = image->file_bytes;
        bool right = false;
        int r;

        if (end < VHD_SECTOR)
                return error_set(err, -EBADMSG,
                                 "'%s' has %llu bytes, fewer than the footer of a VHD image",
                                 image->path, (unsigned long long)end);
        r = co_try_footer(image, vhd, end - VHD_SECTOR, VHD_SECTOR, &right, err);
        if (r < 0 || right)
                return r;
        r = co_try_footer(image, vhd, end - VHD_OLD_FOOTER_BYTES, VHD_OLD_FOOTER_BYTES, &right,
                          err);
        if (r < 0 || right)
                return r;
        r = co_try_footer(image, vhd, 0, VHD_SECTOR, &right, err);
        if (r < 0)
                return r;
        vhd->by_copy = true;
        if (!right || be32_get(vhd->footer.type) == VHD_FIXED)
                return error_set(err, -EBADMSG,
                                 "'%s' is no VHD image, or a damaged one: there is no footer with "
                                 "the right checksum, neither at offset %llu nor at offset 0",
                                 image->path, (unsigned long long)(end - VHD_SECTOR));
        return 0;
}

int co_vhd_read_footer(struct image *image, struct vhd *vhd, struct error *err)
{
        const struct vhd_footer_disk *footer = &vhd->footer;
        int r = co_find_footer(image, vhd, err);

        if (r < 0)
                return r;
        vhd->type = be32_get(footer->type);
        if (be32_get(footer->version) >> 16 != VHD_VERSION >> 16)
                return error_set(err, -ENOTSUP,
                                 "'%s' is a VHD image of version %u.%u; version 1.0 is read",
                                 image->path, be32_get(footer->version) >> 16,
                                 be32_get(footer->version) & 0xffff);
        if (vhd->type != VHD_FIXED && vhd->type != VHD_DYNAMIC && vhd->type != VHD_DIFFERENCING)
                return error_set(err, -ENOTSUP,
                                 "'%s' is a VHD image of type %u (at offset %llu); fixed (2), "
                                 "dynamic (3) and differencing (4) ones are read",
                                 image->path, vhd->type,
                                 (unsigned long long)(vhd->footer_offset +
                                                      offsetof(struct vhd_footer_disk, type)));
        image->virtual_bytes = disk_bytes(footer);
        if (vhd->type == VHD_FIXED && image->virtual_bytes > vhd->footer_offset)
                return error_set(err, -EBADMSG,
                                 "'%s' is cut off: a disk of %llu bytes does not fit in front of "
                                 "its footer at offset %llu",
                                 image->path, (unsigned long long)image->virtual_bytes,
                                 (unsigned long long)vhd->footer_offset);
        return 0;
}

/* ---- the dynamic header ---- */

static int refuse(const struct image *image, const struct vhd *vhd, const char *what,
                  uint64_t value, size_t at, struct error *err)
{
        return error_set(err, -EBADMSG, "'%s' is no valid VHD image: %s (%llu) at offset %llu",
                         image->path, what, (unsigned long long)value,
                         (unsigned long long)(vhd->header_offset + at));
}

static int check_header(const struct image *image, struct vhd *vhd, struct error *err)
{
        const struct vhd_header_disk *header = &vhd->header;
        uint64_t table = be64_get(header->table_offset), n = be32_get(header->n_entries), needed;

        vhd->block_bytes = be32_get(header->block_bytes);
        if (vhd->block_bytes < VHD_SECTOR || (vhd->block_bytes & (vhd->block_bytes - 1)) != 0)
                return refuse(image, vhd, "the block size is no power of two from 512 on",
                              vhd->block_bytes, 32, err);
        if (vhd->block_bytes > VHD_BLOCK_MAX)
                return error_set(err, -ENOTSUP,
                                 "'%s' has blocks of %u bytes; VHD images with blocks of up to %u "
                                 "are read",
                                 image->path, vhd->block_bytes, VHD_BLOCK_MAX);
        needed = image->virtual_bytes / vhd->block_bytes +
                 (image->virtual_bytes % vhd->block_bytes != 0);
        if (n < needed)
                return refuse(image, vhd, "fewer table entries than the disk has blocks", n, 28,
                              err);
        if (table > image->file_bytes || needed * 4 > image->file_bytes - table)
                return refuse(image, vhd, "the table does not lie in the file", table, 16, err);
        /* A bit a sector, in whole sectors. */
        vhd->bitmap_bytes =
            (vhd->block_bytes / VHD_SECTOR / 8 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
        if (vhd->bitmap_bytes == 0)
                vhd->bitmap_bytes = VHD_SECTOR;
        vhd->table.offset = table;
        vhd->table.n_entries = needed;
        vhd->table.big_endian = true;
        return 0;
}

int co_vhd_read_header(struct image *image, struct vhd *vhd, struct error *err)
{
        struct vhd_header_disk *header = &vhd->header;
        uint64_t offset = be64_get(vhd->footer.data_offset);
        int r;

        vhd->header_offset = offset;
        if (offset > image->file_bytes || sizeof(*header) > image->file_bytes - offset)
                return error_set(err, -EBADMSG,
                                 "'%s' is no valid VHD image: its header, at offset %llu, does not "
                                 "lie in the file",
                                 image->path, (unsigned long long)offset);
        r = co_image_pread(image, header, sizeof(*header), offset, err);
        if (r < 0)
                return r;
        if (memcmp(header->cookie, VHD_HEADER_COOKIE, 8) != 0)
                return error_set(err, -EBADMSG,
                                 "'%s' is no valid VHD image: there is no header at offset %llu",
                                 image->path, (unsigned long long)offset);
        if (be32_get(header->checksum) !=
            vhd_checksum(header, sizeof(*header), offsetof(struct vhd_header_disk, checksum)))
                return error_set(err, -EBADMSG,
                                 "'%s' is damaged: the checksum of its header at offset %llu is "
                                 "wrong",
                                 image->path, (unsigned long long)offset);
        if (be32_get(header->version) >> 16 != VHD_VERSION >> 16)
                return error_set(err, -ENOTSUP,
                                 "'%s' has a VHD header of version %u.%u; version 1.0 is read",
                                 image->path, be32_get(header->version) >> 16,
                                 be32_get(header->version) & 0xffff);
        return check_header(image, vhd, err);
}
