/* transfer.c - copying between an image and a volume.
 *
 * A few coroutines take pieces in order. A piece lies in one extent of the source; extents that
 * read as zeroes are passed over, and in the rest blocks of zeroes are found by looking. */
#include "server/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/coroutine.h"
#include "common/size.h"

#define PIECE_SIZE       (UINT64_C(1) << 20)
#define WORKERS          8u
#define PROGRESS_STEP_NS UINT64_C(100000000)

struct transfer;

struct transfer_ops {
        /* How long the extent at @offset is, and whether it reads as zeroes. */
        int (*co_extent)(struct transfer *t, uint64_t offset, struct image_extent *ret);
        int (*co_read)(struct transfer *t, void *buffer, size_t length, uint64_t offset);
        int (*co_write)(struct transfer *t, const void *buffer, size_t length, uint64_t offset);
        int (*co_zero)(struct transfer *t, uint64_t offset, uint64_t length);
};

struct transfer {
        const struct command *command;
        const struct transfer_ops *ops;
        struct image *image;
        struct volume *volume;
        uint64_t size, next_offset, done_bytes;
        struct image_extent extent; /* what is left of the one at next_offset */
        uint64_t progress_ns;
        struct co_mutex next_lock;
        unsigned n_running;
        struct co_queue ended;
        int result;
        struct error error;
};

struct piece {
        uint64_t offset, length;
        bool zero;
};

static void transfer_fail(struct transfer *t, int code, const struct error *e)
{
        if (t->result < 0)
                return;
        t->result = code;
        t->error = *e;
}

static int co_next_extent(struct transfer *t)
{
        int r = t->ops->co_extent(t, t->next_offset, &t->extent);

        if (r == 0 && t->extent.length == 0)
                r = error_set(&t->error, -EIO, "there is an extent of no length at offset %llu",
                              (unsigned long long)t->next_offset);
        return r;
}

/* False at the end, and after a failure. */
static bool co_next_piece(struct transfer *t, struct piece *p)
{
        bool some = false;
        int r = 0;

        co_lock(&t->next_lock);
        if (t->result == 0 && t->next_offset < t->size && t->extent.length == 0) {
                r = co_next_extent(t);
                if (r < 0)
                        t->result = r;
        }
        if (t->result == 0 && t->next_offset < t->size) {
                *p = (struct piece){t->next_offset, t->extent.length, t->extent.zero};
                /* Pieces of data end on multiples of their size, so that writes are aligned. */
                if (!p->zero && p->length > PIECE_SIZE - p->offset % PIECE_SIZE)
                        p->length = PIECE_SIZE - p->offset % PIECE_SIZE;
                t->next_offset += p->length;
                t->extent.length -= p->length;
                some = true;
        }
        co_unlock(&t->next_lock);
        return some;
}

/* Write what is not zero, in runs of whole blocks. */
static int co_write_sparse(struct transfer *t, const uint8_t *data, const struct piece *p)
{
        uint64_t at = 0;
        int r = 0;

        while (r == 0 && at < p->length) {
                uint64_t begin = at;
                bool zero = false;

                while (at < p->length) {
                        uint64_t n = POOL_BLOCK - (p->offset + at) % POOL_BLOCK;
                        bool block_zero;

                        if (n > p->length - at)
                                n = p->length - at;
                        block_zero = image_is_zero(data + at, n);
                        if (at == begin)
                                zero = block_zero;
                        else if (block_zero != zero)
                                break;
                        at += n;
                }
                r = zero ? t->ops->co_zero(t, p->offset + begin, at - begin)
                         : t->ops->co_write(t, data + begin, at - begin, p->offset + begin);
        }
        return r;
}

static void report_progress(struct transfer *t, const struct piece *p)
{
        uint64_t now = loop_now_ns(t->command->hp->loop);
        struct error e = ERROR_INIT;
        int r;

        t->done_bytes += p->length;
        if (now < t->progress_ns + PROGRESS_STEP_NS && t->done_bytes < t->size &&
            !*t->command->caller->cancelled)
                return;
        t->progress_ns = now;
        r = command_progress(t->command, t->done_bytes, t->size, &e);
        if (r < 0)
                transfer_fail(t, r, &e);
}

static void co_worker(void *arg)
{
        struct transfer *t = arg;
        struct piece p;
        void *buffer = NULL;

        if (posix_memalign(&buffer, 4096, PIECE_SIZE) != 0) {
                struct error e = ERROR_INIT;

                transfer_fail(t, error_set(&e, -ENOMEM, "out of memory"), &e);
        }
        while (buffer && co_next_piece(t, &p)) {
                int r;

                if (p.zero) {
                        r = t->ops->co_zero(t, p.offset, p.length);
                } else {
                        r = t->ops->co_read(t, buffer, p.length, p.offset);
                        if (r == 0)
                                r = co_write_sparse(t, buffer, &p);
                }
                if (r < 0) {
                        if (t->result == 0)
                                t->result = r; /* with the sentence that the operation left */
                        break;
                }
                report_progress(t, &p);
        }
        free(buffer);
        t->n_running--;
        co_wake_one(&t->ended);
}

static int co_transfer_all(struct transfer *t, struct error *err)
{
        co_mutex_init(&t->next_lock);
        co_queue_init(&t->ended);
        for (unsigned i = 0; i < WORKERS; i++) {
                t->n_running++;
                if (co_spawn(t->command->hp->loop, co_worker, t) < 0) {
                        struct error e = ERROR_INIT;

                        t->n_running--;
                        transfer_fail(t, error_set(&e, -ENOMEM, "out of memory"), &e);
                        break;
                }
        }
        while (t->n_running > 0)
                co_wait(&t->ended);
        if (t->result < 0 && err)
                *err = t->error;
        return t->result;
}

/* An operation's sentence is kept only if it is the first to fail. */
static struct error *first_error(struct transfer *t)
{
        return t->result == 0 ? &t->error : NULL;
}

static int volume_failure(struct transfer *t, int r, const char *what, uint64_t offset,
                          uint64_t length)
{
        const char *pool = t->command->hp->name;
        struct error *e = first_error(t);
        char text[SIZE_TEXT_MAX];

        if (r == -ENOSPC) {
                error_set(e, r, "pool '%s' is full", pool);
                error_hint(e, "'tarn pool add' gives it more disks; deleting volumes and snapshots "
                              "gives space back");
                return r;
        }
        error_set(e, r, "cannot %s volume '%s/%s' in the %s at offset %llu: %s", what, pool,
                  volume_name(t->volume), size_format(length, text), (unsigned long long)offset,
                  strerror(-r));
        if (r == -EIO)
                error_hint(e, "'tarn pool check --data %s' tells what is damaged", pool);
        return r;
}

/* ---- image to volume ---- */

static int co_image_next(struct transfer *t, uint64_t offset, struct image_extent *ret)
{
        return t->image->driver->co_extent(t->image, offset, ret, first_error(t));
}

static int co_image_get(struct transfer *t, void *buffer, size_t length, uint64_t offset)
{
        return t->image->driver->co_read(t->image, buffer, length, offset, first_error(t));
}

static int co_volume_put(struct transfer *t, const void *buffer, size_t length, uint64_t offset)
{
        int r = co_volume_write(t->volume, buffer, length, offset, 0);

        return r < 0 ? volume_failure(t, r, "write", offset, length) : 0;
}

/* A new volume reads as zeroes. */
static int co_volume_skip(struct transfer *t, uint64_t offset, uint64_t length)
{
        return 0;
}

static const struct transfer_ops import_ops = {
    .co_extent = co_image_next,
    .co_read = co_image_get,
    .co_write = co_volume_put,
    .co_zero = co_volume_skip,
};

int co_transfer_import(const struct command *c, struct image *image, struct volume *volume,
                       struct error *err)
{
        struct transfer t = {.command = c,
                             .ops = &import_ops,
                             .image = image,
                             .volume = volume,
                             .size = image->virtual_bytes};
        int r = co_transfer_all(&t, err);

        if (r < 0)
                return r;
        r = co_volume_flush(volume);
        if (r < 0)
                return error_set(err, r, "cannot make volume '%s/%s' durable: %s", c->hp->name,
                                 volume_name(volume), strerror(-r));
        return 0;
}

/* ---- volume to image ---- */

static int co_volume_next(struct transfer *t, uint64_t offset, struct image_extent *ret)
{
        struct volume_extent extent;
        size_t n = 0;
        int r = co_volume_status(t->volume, offset, t->size - offset, &extent, 1, &n);

        if (r < 0)
                return volume_failure(t, r, "read the map of", offset, t->size - offset);
        *ret = (struct image_extent){extent.length, (extent.flags & EXTENT_ZERO) != 0};
        return 0;
}

static int co_volume_get(struct transfer *t, void *buffer, size_t length, uint64_t offset)
{
        int r = co_volume_read(t->volume, buffer, length, offset);

        return r < 0 ? volume_failure(t, r, "read", offset, length) : 0;
}

static int co_image_put(struct transfer *t, const void *buffer, size_t length, uint64_t offset)
{
        return t->image->driver->co_write(t->image, buffer, length, offset, first_error(t));
}

static int co_image_zero(struct transfer *t, uint64_t offset, uint64_t length)
{
        return t->image->driver->co_zero(t->image, offset, length, first_error(t));
}

static const struct transfer_ops export_ops = {
    .co_extent = co_volume_next,
    .co_read = co_volume_get,
    .co_write = co_image_put,
    .co_zero = co_image_zero,
};

int co_transfer_export(const struct command *c, struct volume *volume, struct image *image,
                       struct error *err)
{
        struct transfer t = {.command = c,
                             .ops = &export_ops,
                             .image = image,
                             .volume = volume,
                             .size = image->virtual_bytes};
        int r = co_transfer_all(&t, err);

        return r < 0 ? r : image->driver->co_finish(image, err);
}
