/* verify.c - whether a copy holds what it was made of. */
#include "server/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/coroutine.h"
#include "server/transfer_side.h"

/* Of what only one side says that it is zero; read at once. */
#define CHUNK_SIZE (UINT64_C(1) << 20)

/* The copy that is compared, as a side of a copy. */
struct verify {
        struct transfer_side made;
        const struct side_ops *ops;
        struct co_mutex extent_lock; /* a driver is asked for one extent at a time */
        uint64_t differs_at;         /* the first byte that does, of all pieces; UINT64_MAX: none */
};

/* The words come at the end, when all that lies before has been compared as well. */
static int note_difference(struct verify *v, uint64_t offset)
{
        if (offset < v->differs_at)
                v->differs_at = offset;
        return -EILSEQ;
}

static size_t same_length(const uint8_t *a, const uint8_t *b, size_t length)
{
        size_t n = 0;

        while (n < length && a[n] == b[n])
                n++;
        return n;
}

static int co_compare(struct transfer_side *side, const void *buffer, size_t length,
                      uint64_t offset, struct error *err)
{
        struct verify *v = side->verify;
        uint8_t *there = malloc(length);
        int r;

        if (!there)
                return error_set(err, -ENOMEM, "out of memory");
        r = v->ops->co_read(&v->made, there, length, offset, err);
        if (r == 0 && memcmp(there, buffer, length) != 0)
                r = note_difference(v, offset + same_length(there, buffer, length));
        free(there);
        return r;
}

static int co_extent_there(struct verify *v, uint64_t offset, struct image_extent *ret,
                           struct error *err)
{
        int r;

        co_lock(&v->extent_lock);
        r = v->ops->co_extent(&v->made, offset, ret, err);
        co_unlock(&v->extent_lock);
        if (r == 0 && ret->length == 0)
                r = error_set(err, -EIO, "'%s' has an extent of no length at offset %llu",
                              side_name(&v->made), (unsigned long long)offset);
        return r;
}

static int co_read_zeroes(struct verify *v, uint8_t *buffer, uint64_t offset, uint64_t length,
                          struct error *err)
{
        while (length > 0) {
                size_t n = length < CHUNK_SIZE ? length : CHUNK_SIZE;
                int r = v->ops->co_read(&v->made, buffer, n, offset, err);

                if (r < 0)
                        return r;
                if (!image_is_zero(buffer, n)) {
                        size_t at = 0;

                        while (buffer[at] == 0)
                                at++;
                        return note_difference(v, offset + at);
                }
                offset += n;
                length -= n;
        }
        return 0;
}

static int co_compare_zeroes(struct transfer_side *side, uint64_t offset, uint64_t length,
                             struct error *err)
{
        uint8_t *buffer = malloc(length < CHUNK_SIZE ? length : CHUNK_SIZE);
        uint64_t end = offset + length;
        int r = buffer ? 0 : error_set(err, -ENOMEM, "out of memory");

        while (r == 0 && offset < end) {
                struct image_extent extent = {0};

                r = co_extent_there(side->verify, offset, &extent, err);
                if (extent.length > end - offset)
                        extent.length = end - offset;
                if (r == 0 && !extent.zero)
                        r = co_read_zeroes(side->verify, buffer, offset, extent.length, err);
                offset += extent.length;
        }
        free(buffer);
        return r;
}

static int co_nothing_to_finish(struct transfer_side *side, struct error *err)
{
        return 0;
}

const struct side_ops verify_ops = {
    .co_write = co_compare,
    .co_zero = co_compare_zeroes,
    .co_finish = co_nothing_to_finish,
};

static int say_difference(const struct verify *v, const struct transfer_side *from,
                          struct error *err)
{
        const char *pool = from->volume ? from->pool : "", *slash = from->volume ? "/" : "";
        const char *name = side_name(from);
        unsigned long long at = v->differs_at;

        if (v->made.image)
                error_set(
                    err, -EILSEQ,
                    "offset %llu of '%s' differs from '%s%s%s', of which it was made: that was "
                    "written to meanwhile, or '%s' does not hold what was written to it",
                    at, side_name(&v->made), pool, slash, name, side_name(&v->made));
        else
                error_set(err, -EILSEQ,
                          "offset %llu of '%s' differs from the volume that was made of it: it was "
                          "written to meanwhile, or is not read the same twice",
                          at, name);
        return error_hint(err, "if nothing writes to '%s%s%s', a disk or the memory is at fault",
                          pool, slash, name);
}

int co_verify(struct transfer_side from, struct transfer_side to, struct transfer_watch *watch,
              struct error *err)
{
        struct verify v = {.made = to, .ops = side_ops(&to), .differs_at = UINT64_MAX};
        int r;

        co_mutex_init(&v.extent_lock);
        to.verify = &v;
        watch->verifying = true;
        r = co_transfer(from, to, watch, err);
        watch->verifying = false;
        return v.differs_at == UINT64_MAX ? r : say_difference(&v, &from, err);
}

/* Of what is there: nothing is left that the writer knew of it. */
static int co_open_made(const struct image *made, struct image_opener *opener,
                        struct image **ret_image, struct error *err)
{
        const struct image_options options = {.format = made->driver->name,
                                              .opener = opener,
                                              .offload = made->offload,
                                              .from_disk = true};
        struct image *image;
        int r = co_image_open(made->fd, made->path, &options, &image, err);

        if (r < 0)
                return r;
        if (made->is_block_device && image->virtual_bytes > made->virtual_bytes)
                image->virtual_bytes = made->virtual_bytes;
        if (image->virtual_bytes != made->virtual_bytes) {
                r = error_set(err, -EILSEQ,
                              "'%s' was made %llu bytes large, and is %llu when it is read again",
                              made->path, (unsigned long long)made->virtual_bytes,
                              (unsigned long long)image->virtual_bytes);
                image_close(image);
                return r;
        }
        *ret_image = image;
        return 0;
}

int co_verify_image(struct transfer_side from, struct image *made, struct image_opener *opener,
                    struct transfer_watch *watch, struct error *err)
{
        struct image *image = NULL;
        int r;

        if (made->fd < 0)
                return co_verify(from, (struct transfer_side){.image = made}, watch, err);
        r = co_open_made(made, opener, &image, err);
        if (r < 0)
                return r;
        r = co_verify(from, (struct transfer_side){.image = image}, watch, err);
        image_close(image);
        return r;
}
