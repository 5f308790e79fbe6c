/* raw.c - raw images: the disk's bytes, one after the other; holes are the file system's. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "formats/image.h"

#define ZERO_CHUNK (UINT64_C(1) << 20)
#define WRITE_UNIT 4096u

static int co_raw_open(struct image *image, const struct image_options *options, struct error *err)
{
        image->virtual_bytes = image->file_bytes;
        return 0;
}

/* lseek(2) knows where a file's data is; it does no I/O to speak of. A block device has no holes
 * that it could tell of. */
void image_file_extent(struct image *image, uint64_t offset, uint64_t end,
                       struct image_extent *ret_extent)
{
        off_t data, hole;

        *ret_extent = (struct image_extent){
            .length = end - offset, .present = true, .has_offset = true, .file_offset = offset};
        if (image->is_block_device || image->no_seek_data)
                return;
        offset += image->base; /* from here on in the file */
        end += image->base;
        data = lseek(image->fd, (off_t)offset, SEEK_DATA);
        if (data < 0 && errno == ENXIO) { /* no data up to the end */
                ret_extent->zero = true;
                return;
        }
        if (data < 0) {
                image->no_seek_data = true;
                return;
        }
        if ((uint64_t)data > offset) {
                if ((uint64_t)data < end)
                        ret_extent->length = (uint64_t)data - offset;
                ret_extent->zero = true;
                return;
        }
        hole = lseek(image->fd, (off_t)offset, SEEK_HOLE);
        if (hole > (off_t)offset && (uint64_t)hole < end)
                ret_extent->length = (uint64_t)hole - offset;
}

static int co_raw_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                         struct error *err)
{
        image_file_extent(image, offset, image->virtual_bytes, ret_extent);
        return 0;
}

static int co_raw_create(struct image *image, const struct image_create_options *options,
                         struct error *err)
{
        image->write_unit = WRITE_UNIT;
        if (options->variant || options->compression)
                return error_set(err, -EINVAL, "raw images have no variants and no compression");
        if (image->is_block_device)
                return 0;
        /* Down to nothing first: what a file held before must not show through. */
        if (ftruncate(image->fd, 0) < 0 || ftruncate(image->fd, (off_t)image->virtual_bytes) < 0)
                return error_set(err, -errno, "cannot make '%s' %llu bytes long: %s", image->path,
                                 (unsigned long long)image->virtual_bytes, strerror(errno));
        return 0;
}

static int co_write_zeroes(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        void *zeroes = NULL;
        int r = 0;

        if (posix_memalign(&zeroes, 4096, ZERO_CHUNK) != 0)
                return error_set(err, -ENOMEM, "out of memory");
        memset(zeroes, 0, ZERO_CHUNK);
        while (r == 0 && length > 0) {
                uint64_t n = length < ZERO_CHUNK ? length : ZERO_CHUNK;

                r = co_image_pwrite(image, zeroes, n, offset, err);
                offset += n;
                length -= n;
        }
        free(zeroes);
        return r;
}

/* In a file everything not written is zero already. A device may hold anything. */
static int co_raw_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        if (!image->is_block_device)
                return 0;
        if (!image->no_zero_range && offset % 4096 == 0 && length % 4096 == 0) {
                struct loop_io io = {.op = LOOP_FALLOCATE,
                                     .fd = image->fd,
                                     .flags = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                     .offset = offset,
                                     .length = length};
                if (co_io(&io) == 0)
                        return 0;
                image->no_zero_range = true;
        }
        return co_write_zeroes(image, offset, length, err);
}

static int co_raw_finish(struct image *image, struct error *err)
{
        struct loop_io io = {.op = LOOP_FDATASYNC, .fd = image->fd};
        int r = co_io(&io);

        if (r < 0)
                return error_set(err, r, "cannot write '%s' to its disk: %s", image->path,
                                 strerror(-r));
        return 0;
}

const struct image_driver image_raw = {
    .name = "raw",
    .description = "raw disk image",
    .co_open = co_raw_open,
    .co_extent = co_raw_extent,
    .co_read = co_image_pread,
    .co_create = co_raw_create,
    .co_write = co_image_pwrite,
    .co_zero = co_raw_zero,
    .co_finish = co_raw_finish,
};
