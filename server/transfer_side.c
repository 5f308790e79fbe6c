/* transfer_side.c - images and volumes as ends of a copy. */
#include "server/transfer_side.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"

/* Zeroes that are found in shorter runs are compared along with the data around them: each run is read
 * by itself. */
#define COMPARE_UNIT (64u << 10)

const char *side_name(const struct transfer_side *side)
{
        if (side->image)
                return side->image->path;
        return side->name ? side->name : volume_name(side->volume);
}

/* ---- images ---- */

static int co_image_extent(struct transfer_side *side, uint64_t offset, struct image_extent *ret,
                           struct error *err)
{
        return side->image->driver->co_extent(side->image, offset, ret, err);
}

static int co_image_read(struct transfer_side *side, void *buffer, size_t length, uint64_t offset,
                         struct error *err)
{
        return side->image->driver->co_read(side->image, buffer, length, offset, err);
}

static int co_image_write(struct transfer_side *side, const void *buffer, size_t length,
                          uint64_t offset, struct error *err)
{
        return side->image->driver->co_write(side->image, buffer, length, offset, err);
}

static int co_image_zero(struct transfer_side *side, uint64_t offset, uint64_t length,
                         struct error *err)
{
        return side->image->driver->co_zero(side->image, offset, length, err);
}

static int co_image_finish(struct transfer_side *side, struct error *err)
{
        return side->image->driver->co_finish(side->image, err);
}

static const struct side_ops image_ops = {
    .co_extent = co_image_extent,
    .co_read = co_image_read,
    .co_write = co_image_write,
    .co_zero = co_image_zero,
    .co_finish = co_image_finish,
};

/* ---- volumes ---- */

static int volume_failure(const struct transfer_side *side, int r, const char *what,
                          uint64_t offset, uint64_t length, struct error *err)
{
        char text[SIZE_TEXT_MAX];

        if (r == -ENOSPC) {
                error_set(err, r, "pool '%s' is full", side->pool);
                error_hint(err, "'tarn pool add' gives it more disks; deleting volumes and "
                                "snapshots gives space back");
                return r;
        }
        error_set(err, r, "cannot %s volume '%s/%s' in the %s at offset %llu: %s", what, side->pool,
                  side_name(side), size_format(length, text), (unsigned long long)offset,
                  strerror(-r));
        if (r == -EIO)
                error_hint(err, "'tarn pool check --data %s' tells what is damaged", side->pool);
        return r;
}

static int co_volume_extent(struct transfer_side *side, uint64_t offset, struct image_extent *ret,
                            struct error *err)
{
        uint64_t left = volume_size(side->volume) - offset;
        struct volume_extent extent;
        size_t n = 0;
        int r = co_volume_status(side->volume, offset, left, &extent, 1, &n);

        if (r < 0)
                return volume_failure(side, r, "read the map of", offset, left, err);
        *ret = (struct image_extent){.length = extent.length,
                                     .zero = (extent.flags & EXTENT_ZERO) != 0};
        return 0;
}

static int co_volume_get(struct transfer_side *side, void *buffer, size_t length, uint64_t offset,
                         struct error *err)
{
        int r = co_volume_read(side->volume, buffer, length, offset);

        return r < 0 ? volume_failure(side, r, "read", offset, length, err) : 0;
}

static int co_volume_write_run(struct transfer_side *side, const void *buffer, size_t length,
                               uint64_t offset, struct error *err)
{
        int r = co_volume_write(side->volume, buffer, length, offset, 0);

        return r < 0 ? volume_failure(side, r, "write", offset, length, err) : 0;
}

/* How much from @at on is the same as what is there, or is not, in whole blocks. */
static size_t same_length(const uint8_t *data, const uint8_t *there, size_t length, size_t at,
                          bool *ret_same)
{
        size_t begin = at;

        while (at < length) {
                size_t n = length - at < POOL_BLOCK ? length - at : POOL_BLOCK;
                bool same = memcmp(data + at, there + at, n) == 0;

                if (at == begin)
                        *ret_same = same;
                else if (same != *ret_same)
                        break;
                at += n;
        }
        return at - begin;
}

static int co_volume_write_over(struct transfer_side *side, const uint8_t *data, size_t length,
                                uint64_t offset, struct error *err)
{
        uint8_t *there = malloc(length);
        int r;

        if (!there)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_volume_get(side, there, length, offset, err);
        for (size_t at = 0, n; r == 0 && at < length; at += n) {
                bool same = false;

                n = same_length(data, there, length, at, &same);
                if (!same)
                        r = co_volume_write_run(side, data + at, n, offset + at, err);
        }
        free(there);
        return r;
}

static int co_volume_put(struct transfer_side *side, const void *buffer, size_t length,
                         uint64_t offset, struct error *err)
{
        return side->over ? co_volume_write_over(side, buffer, length, offset, err)
                          : co_volume_write_run(side, buffer, length, offset, err);
}

/* A new volume reads as zeroes. */
static int co_volume_zero_range(struct transfer_side *side, uint64_t offset, uint64_t length,
                                struct error *err)
{
        uint64_t end = offset + length;

        while (side->over && offset < end) {
                struct image_extent extent = {0};
                int r = co_volume_extent(side, offset, &extent, err);

                if (r < 0)
                        return r;
                if (extent.length > end - offset)
                        extent.length = end - offset;
                if (!extent.zero)
                        r = co_volume_zero(side->volume, offset, extent.length, 0);
                if (r < 0)
                        return volume_failure(side, r, "write", offset, extent.length, err);
                offset += extent.length;
        }
        return 0;
}

static int co_volume_finish(struct transfer_side *side, struct error *err)
{
        int r = co_volume_flush(side->volume);

        if (r < 0)
                return error_set(err, r, "cannot make volume '%s/%s' durable: %s", side->pool,
                                 side_name(side), strerror(-r));
        return 0;
}

static const struct side_ops volume_ops = {
    .co_extent = co_volume_extent,
    .co_read = co_volume_get,
    .co_write = co_volume_put,
    .co_zero = co_volume_zero_range,
    .co_finish = co_volume_finish,
};

/* ---- either ---- */

const struct side_ops *side_ops(const struct transfer_side *side)
{
        if (side->verify)
                return &verify_ops;
        return side->image ? &image_ops : &volume_ops;
}

uint64_t side_bytes(const struct transfer_side *side)
{
        return side->image ? side->image->virtual_bytes : volume_size(side->volume);
}

uint32_t side_unit(const struct transfer_side *side)
{
        if (side->verify)
                return COMPARE_UNIT;
        return side->image ? side->image->write_unit : POOL_BLOCK;
}
