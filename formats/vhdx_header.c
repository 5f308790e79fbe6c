/* vhdx_header.c - where a VHDX file begins: its headers [2.2.2] and region tables [2.2.3]. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "formats/vhdx_internal.h"

uint32_t vhdx_sum(void *bytes, size_t length)
{
        uint8_t *at = (uint8_t *)bytes + 4;
        le32 sum;

        memset(at, 0, sizeof(sum));
        sum = le32_make(crc32c(0, bytes, length));
        memcpy(at, &sum, sizeof(sum));
        return le32_get(sum);
}

bool vhdx_sum_is_right(void *bytes, size_t length, const char *signature)
{
        le32 sum;

        if (memcmp(bytes, signature, 4) != 0)
                return false;
        memcpy(&sum, (uint8_t *)bytes + 4, sizeof(sum));
        return vhdx_sum(bytes, length) == le32_get(sum);
}

/* The one in force: of those that are right the one with the higher number. Two with the same
 * number are right only if they are the same, as Disk2vhd leaves them. */
static int choose_header(const struct image *image, struct vhdx_header_disk *headers,
                         const struct vhdx_header_disk **ret_header, struct error *err)
{
        bool right[2];
        uint64_t sequence[2];

        for (size_t i = 0; i < 2; i++) {
                right[i] = vhdx_sum_is_right(&headers[i], sizeof(headers[i]), "head");
                sequence[i] = le64_get(headers[i].sequence);
        }
        if (!right[0] && !right[1])
                return error_set(err, -EBADMSG,
                                 "'%s' is a VHDX file without a valid header at 65536 or 131072: "
                                 "it is damaged, or writing it was never finished",
                                 image->path);
        if (right[0] && right[1] && sequence[0] == sequence[1] &&
            memcmp(&headers[0], &headers[1], sizeof(headers[0])) != 0)
                return error_set(err, -EBADMSG,
                                 "the headers of '%s' at 65536 and 131072 differ and have the same "
                                 "sequence number %llu",
                                 image->path, (unsigned long long)sequence[0]);
        *ret_header = &headers[!right[0] || (right[1] && sequence[1] > sequence[0])];
        return 0;
}

static int take_header(struct image *image, const struct vhdx_header_disk *h,
                       struct vhdx_guid *ret_log_guid, struct error *err)
{
        struct vhdx *v = image->state;
        bool empty = vhdx_guid_is_zero(&h->log);

        if (le16_get(h->version) != 1)
                return error_set(err, -ENOTSUP, "'%s' is of VHDX version %u; 1 can be read",
                                 image->path, le16_get(h->version));
        if (!empty && le16_get(h->log_version) != 0)
                return error_set(err, -ENOTSUP,
                                 "'%s' has a log of version %u; version 0 can be read", image->path,
                                 le16_get(h->log_version));
        v->data_write = h->data_write;
        v->log = (struct vhdx_region){le64_get(h->log_offset), le32_get(h->log_length)};
        if (v->log.length > 0 && (v->log.offset % VHDX_MIB != 0 || v->log.length % VHDX_MIB != 0 ||
                                  v->log.offset < VHDX_HEADER_END))
                return error_set(
                    err, -EBADMSG,
                    "the header of '%s' says that its log is at %llu, %llu bytes long: "
                    "both must be multiples of 1 MiB",
                    image->path, (unsigned long long)v->log.offset,
                    (unsigned long long)v->log.length);
        *ret_log_guid = h->log;
        return 0;
}

int co_vhdx_headers(struct image *image, struct vhdx_guid *ret_log_guid, struct error *err)
{
        struct vhdx *v = image->state;
        struct vhdx_header_disk *headers = calloc(2, sizeof(*headers));
        const struct vhdx_header_disk *current = NULL;
        uint8_t identifier[8];
        int r;

        if (!headers)
                return error_set(err, -ENOMEM, "out of memory");
        v->file_end = image->file_bytes;
        r = co_image_pread_padded(image, identifier, sizeof(identifier), 0, err);
        if (r == 0 && memcmp(identifier, VHDX_IDENTIFIER, sizeof(identifier)) != 0)
                r = error_set(err, -EBADMSG, "'%s' does not begin as a VHDX file does",
                              image->path);
        for (unsigned i = 0; r == 0 && i < 2; i++)
                r = co_image_pread_padded(image, &headers[i], sizeof(headers[i]),
                                          VHDX_HEADER_OFFSET(i), err);
        if (r == 0)
                r = choose_header(image, headers, &current, err);
        if (r == 0)
                r = take_header(image, current, ret_log_guid, err);
        free(headers);
        return r;
}

static int by_offset(const void *a, const void *b)
{
        const struct vhdx_region *x = a, *y = b;

        return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int take_region(struct image *image, const struct vhdx_region_disk *r, struct error *err)
{
        struct vhdx *v = image->state;
        struct vhdx_region region = {le64_get(r->offset), le32_get(r->length)};
        struct vhdx_region *known = NULL;
        char guid[VHDX_GUID_TEXT];

        vhdx_guid_format(&r->guid, guid);
        if (vhdx_guid_equal(&r->guid, &VHDX_REGION_BAT))
                known = &v->bat;
        else if (vhdx_guid_equal(&r->guid, &VHDX_REGION_METADATA))
                known = &v->metadata;
        else if (le32_get(r->required) & 1)
                return error_set(err, -ENOTSUP,
                                 "'%s' has a region %s that whoever reads it must know; tarn does "
                                 "not",
                                 image->path, guid);
        if (region.offset % VHDX_MIB != 0 || region.length % VHDX_MIB != 0 ||
            region.offset < VHDX_HEADER_END || region.offset > v->file_end ||
            region.length > v->file_end - region.offset)
                return error_set(err, -EBADMSG,
                                 "region %s of '%s' is at %llu, %llu bytes long: that is not "
                                 "aligned to 1 MiB, or not within the file",
                                 guid, image->path, (unsigned long long)region.offset,
                                 (unsigned long long)region.length);
        if (known && known->offset > 0)
                return error_set(err, -EBADMSG, "'%s' has region %s twice", image->path, guid);
        if (known)
                *known = region;
        v->regions[v->n_regions++] = region;
        return 0;
}

static int check_overlaps(struct image *image, struct error *err)
{
        struct vhdx *v = image->state;

        qsort(v->regions, v->n_regions, sizeof(v->regions[0]), by_offset);
        for (size_t i = 1; i < v->n_regions; i++) {
                const struct vhdx_region *a = &v->regions[i - 1], *b = &v->regions[i];

                if (a->length > b->offset - a->offset)
                        return error_set(err, -EBADMSG,
                                         "the regions of '%s' at %llu and at %llu overlap",
                                         image->path, (unsigned long long)a->offset,
                                         (unsigned long long)b->offset);
        }
        return 0;
}

static int take_table(struct image *image, const uint8_t *bytes, struct error *err)
{
        struct vhdx *v = image->state;
        struct vhdx_table_disk table;
        struct vhdx_region_disk region;
        uint32_t n;
        int r = 0;

        memcpy(&table, bytes, sizeof(table));
        n = le32_get(table.n_entries);
        if (n > VHDX_ENTRIES_MAX)
                return error_set(err, -EBADMSG, "the region table of '%s' has %u entries, not %u",
                                 image->path, n, VHDX_ENTRIES_MAX);
        v->regions = calloc(n + 1, sizeof(v->regions[0]));
        if (!v->regions)
                return error_set(err, -ENOMEM, "out of memory");
        if (v->log.length > 0)
                v->regions[v->n_regions++] = v->log;
        for (uint32_t i = 0; r == 0 && i < n; i++) {
                memcpy(&region, bytes + sizeof(table) + i * sizeof(region), sizeof(region));
                r = take_region(image, &region, err);
        }
        if (r == 0)
                r = check_overlaps(image, err);
        if (r == 0 && (v->bat.offset == 0 || v->metadata.offset == 0))
                r = error_set(err, -EBADMSG, "the region table of '%s' names no %s", image->path,
                              v->bat.offset == 0 ? "block allocation table" : "metadata");
        return r;
}

/* The second is a copy, for when the first is damaged. */
int co_vhdx_regions(struct image *image, struct error *err)
{
        uint8_t *bytes = malloc(VHDX_TABLE_SIZE);
        bool right = false;
        int r = 0;

        if (!bytes)
                return error_set(err, -ENOMEM, "out of memory");
        for (unsigned i = 0; r == 0 && !right && i < 2; i++) {
                r = co_vhdx_pread(image, bytes, VHDX_TABLE_SIZE, VHDX_TABLE_OFFSET(i), err);
                right = r == 0 && vhdx_sum_is_right(bytes, VHDX_TABLE_SIZE, "regi");
        }
        if (r == 0 && !right)
                r = error_set(err, -EBADMSG,
                              "'%s' has no valid region table: neither that at 196608 nor its copy "
                              "at 262144 has the right signature and checksum",
                              image->path);
        if (r == 0)
                r = take_table(image, bytes, err);
        free(bytes);
        return r;
}
