/* blocks_write.c - writing images whose blocks are found by a table of 32-bit numbers. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "formats/blocks.h"

#define CHUNK_ENTRIES 16384u

int image_set_size(struct image *image, uint64_t bytes, struct error *err)
{
        if (ftruncate(image->fd, (off_t)bytes) < 0)
                return error_set(err, -errno, "cannot make '%s' %llu bytes long: %s", image->path,
                                 (unsigned long long)bytes, strerror(errno));
        return 0;
}

int co_image_sync(struct image *image, struct error *err)
{
        struct loop_io io = {.op = LOOP_FDATASYNC, .fd = image->fd};
        int r = co_io(&io);

        if (r < 0)
                return error_set(err, r, "cannot write '%s' to its disk: %s", image->path,
                                 strerror(-r));
        return 0;
}

int block_create_begin(struct image *image, const struct image_create_options *options,
                       struct error *err)
{
        if (options->compression)
                return error_set(err, -EINVAL, "%s images have no compression",
                                 image->driver->name);
        if (image->is_block_device)
                return error_set(err, -ENOTSUP, "'%s' is a block device, and a %s image is a file",
                                 image->path, image->driver->name);
        /* Down to nothing: what a file held before must not show through. */
        return image_set_size(image, 0, err);
}

/* calloc() of this size gives pages that take no memory before they are written. */
int block_writer_init(struct block_writer *w, const struct image *image, uint32_t block_bytes,
                      struct error *err)
{
        w->block_bytes = block_bytes;
        w->n_blocks =
            image->virtual_bytes / block_bytes + (image->virtual_bytes % block_bytes != 0);
        if (w->n_blocks > BLOCK_WRITE_MAX)
                return error_set(err, -EFBIG,
                                 "'%s' cannot be a %s image: %llu bytes are more than %u blocks",
                                 image->path, image->driver->name,
                                 (unsigned long long)image->virtual_bytes, BLOCK_WRITE_MAX);
        w->places = calloc(w->n_blocks + 1, sizeof(*w->places));
        return w->places ? 0 : error_set(err, -ENOMEM, "out of memory");
}

void block_writer_clear(struct block_writer *w)
{
        free(w->places);
        w->places = NULL;
}

int co_block_writer_table(struct block_writer *w, struct image *image, uint64_t offset,
                          uint64_t bytes, uint32_t none, bool big_endian, struct error *err)
{
        uint32_t *chunk = malloc((size_t)CHUNK_ENTRIES * 4);
        uint64_t n_entries = bytes / 4;
        int r = 0;

        if (!chunk)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint64_t at = 0; r == 0 && at < n_entries; at += CHUNK_ENTRIES) {
                size_t n = 0;

                for (uint64_t i = at; i < n_entries && n < CHUNK_ENTRIES; i++) {
                        uint32_t place = i < w->n_blocks ? w->places[i] : 0;
                        uint32_t value = place ? place - 1 : none;

                        chunk[n++] = big_endian ? htobe32(value) : htole32(value);
                }
                r = co_image_pwrite(image, chunk, n * 4, offset + at * 4, err);
        }
        free(chunk);
        return r;
}
