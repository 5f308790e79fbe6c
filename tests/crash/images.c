/* images.c - see images.h. A base's description names its image, so that a pool that was opened again
 * says what to attach. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/coroutine.h"
#include "pool/base.h"
#include "tests/crash/images.h"
#include "tests/crash/model_impl.h"
#include "tests/sim/sim_random.h"

#define READ_NS 20000u

/* An image is read by one of two, in turn (co_image_move()). */
struct reader {
        struct pool_image pool_image;
        struct image *image;
};

struct image {
        struct image *next;
        struct images *images;
        struct reader readers[2];
        unsigned n_moves, n_reads; /* so far; under way */
        uint64_t base_id;
        uint32_t number;
        bool attached, completing;
};

static int co_image_read(struct pool_image *pool_image, void *buffer, uint64_t length,
                         uint64_t offset)
{
        struct reader *reader = container_of(pool_image, struct reader, pool_image);
        struct image *image = reader->image;
        struct images *images = image->images;
        bool fails = images->n_failing > 0 && images->n_passing == 0;

        /* What was detached or replaced is never asked again. */
        assert(image->attached && reader == &image->readers[image->n_moves % 2]);
        image->n_reads++;
        images->n_passing -= images->n_passing > 0;
        images->n_failing -= fails;
        images->n_failed += fails;
        co_sleep_ns(READ_NS +
                    (images->slow_ns > 0 ? sim_mix(images->n_reads) % images->slow_ns : 0));
        images->n_reads++;
        image->n_reads--;
        if (fails)
                return -EIO;
        for (uint64_t at = 0; at < length; at += GRAIN) {
                uint64_t block = (offset + at) / BLOCK_SIZE;
                unsigned grain = (unsigned)((offset + at) / GRAIN % BLOCK_GRAINS);
                struct content content = image_content(image->number, block, UINT64_MAX);

                content_fill((uint8_t *)buffer + at, content.grain[grain], grain);
        }
        return 0;
}

/* ---- attached ---- */

struct opening {
        struct images *images;
        struct pool *pool;
        struct error *err;
};

static struct image *image_find(const struct images *images, uint64_t base_id)
{
        struct image *image = images->first;

        while (image != NULL && image->base_id != base_id)
                image = image->next;
        return image;
}

static struct image *image_new(struct images *images, const struct pool_base_info *info)
{
        struct image *image = calloc(1, sizeof(*image));

        if (image == NULL)
                return NULL;
        *image = (struct image){
            .next = images->first,
            .images = images,
            .base_id = info->id,
            .number = (uint32_t)strtoul(info->description, NULL, 10),
        };
        for (unsigned i = 0; i < 2; i++)
                image->readers[i] =
                    (struct reader){.pool_image.co_read = co_image_read, .image = image};
        images->first = image;
        return image;
}

static struct pool_image *image_reader(struct image *image)
{
        return &image->readers[image->n_moves % 2].pool_image;
}

static int attach(const struct pool_base_info *info, void *arg)
{
        struct opening *opening = arg;
        struct image *image;
        int r;

        if (info->complete || info->n_dependents == 0)
                return 0;
        image = image_find(opening->images, info->id);
        if (image == NULL)
                image = image_new(opening->images, info);
        if (image == NULL)
                return -ENOMEM;
        if (image->attached)
                return 0;
        r = pool_base_attach(opening->pool, info->id, image_reader(image), opening->err);
        image->attached = r == 0;
        return r;
}

int co_images_open(struct images *images, struct pool *pool, struct error *err)
{
        struct opening opening = {images, pool, err};

        return co_pool_bases(pool, attach, &opening, err);
}

static void co_detach(struct image *image, struct pool *pool)
{
        if (!image->attached)
                return;
        image->attached = false;
        co_pool_base_detach(pool, image->base_id);
        assert(image->n_reads == 0);
}

void co_images_detach(struct images *images, struct pool *pool)
{
        for (struct image *image = images->first; image != NULL; image = image->next)
                co_detach(image, pool);
}

void co_images_tidy(struct images *images, struct pool *pool)
{
        for (struct image *image = images->first; image != NULL; image = image->next)
                if (image->attached && !image->completing &&
                    !pool_base_is_needed(pool, image->base_id)) {
                        images->n_let_go++;
                        co_detach(image, pool);
                }
}

void images_free(struct images *images)
{
        while (images->first != NULL) {
                struct image *image = images->first;

                images->first = image->next;
                free(image);
        }
}

void co_images_close(struct images *images, struct pool *pool)
{
        co_images_detach(images, pool);
        images_free(images);
}

/* ---- volumes ---- */

static int get_base(const struct root_info *info, void *arg)
{
        *(uint64_t *)arg = root_base(info);
        return 0;
}

int co_images_create(struct pool *pool, const struct catalog_request *q, struct error *err)
{
        char description[16];
        uint64_t base_id = 0;
        int r;

        if (q->on[0] != '\0') {
                r = co_root_get(pool, q->on, get_base, &base_id, err);
                return r < 0 ? r
                             : co_volume_create_on(pool, q->volume, q->size_bytes, base_id, err);
        }
        snprintf(description, sizeof(description), "%u", q->image);
        return co_volume_create_on_new(pool, q->volume, q->size_bytes, image_bytes(q->image),
                                       description, &base_id, err);
}

struct image *co_images_of(struct images *images, struct pool *pool, const char *volume)
{
        struct error err = ERROR_INIT;
        uint64_t base_id = 0;

        if (co_root_get(pool, volume, get_base, &base_id, &err) < 0)
                return NULL;
        return image_find(images, base_id);
}

uint32_t image_number(const struct image *image)
{
        return image->number;
}

/* ---- copying ---- */

static bool is_zeroes(uint32_t number, uint64_t offset, uint64_t length)
{
        static const struct content zeroes;

        for (uint64_t block = offset / BLOCK_SIZE; block * BLOCK_SIZE < offset + length; block++) {
                struct content content = image_content(number, block, UINT64_MAX);

                if (memcmp(&content, &zeroes, sizeof(zeroes)) != 0)
                        return false;
        }
        return true;
}

int co_image_copy(struct image *image, struct pool *pool, uint64_t offset, uint64_t length,
                  struct error *err)
{
        uint64_t copied;

        return is_zeroes(image->number, offset, length)
                   ? co_pool_base_zero(pool, image->base_id, offset, length, err)
                   : co_pool_base_copy(pool, image->base_id, offset, length, &copied, err);
}

int co_image_advance(struct image *image, struct pool *pool, uint64_t *at, uint64_t length,
                     struct error *err)
{
        uint64_t from = *at;
        int r = co_pool_base_next(pool, image->base_id, from, at, err);

        if (r < 0 || *at >= image_bytes(image->number))
                return r;
        from = *at;
        *at += length;
        return co_image_copy(image, pool, from, length, err);
}

int co_image_move(struct image *image, struct pool *pool, struct error *err)
{
        char description[32];
        int r;

        snprintf(description, sizeof(description), "%u, moved", image->number);
        r = co_pool_base_describe(pool, image->base_id, description, err);
        if (r < 0 || !image->attached)
                return r;
        image->n_moves++;
        return pool_base_replace(pool, image->base_id, image_reader(image), err);
}

bool image_complete_begin(struct image *image)
{
        bool begins = image->attached && !image->completing;

        image->completing = image->completing || begins;
        return begins;
}

int co_image_complete(struct image *image, struct pool *pool, int result, struct error *err)
{
        if (result == 0)
                result = co_pool_base_complete(pool, image->base_id, err);
        image->completing = false;
        if (result == 0 || !pool_base_is_needed(pool, image->base_id))
                co_detach(image, pool);
        return result;
}

/* ---- looked at ---- */

static int observe(const struct pool_base_info *info, void *arg)
{
        struct observed *observed = arg;

        observed->images =
            model_grow(observed->images, observed->n_images, sizeof(*observed->images));
        observed->images[observed->n_images++] = (struct observed_image){
            .base_id = info->id,
            .image = (uint32_t)strtoul(info->description, NULL, 10),
            .complete = info->complete,
        };
        return 0;
}

int co_images_observe(struct pool *pool, struct observed *observed, struct error *err)
{
        return co_pool_bases(pool, observe, observed, err);
}

uint32_t images_find(const struct observed *observed, uint64_t base_id)
{
        for (size_t i = 0; i < observed->n_images; i++)
                if (observed->images[i].base_id == base_id)
                        return observed->images[i].image;
        return 0;
}

bool images_all_needed(const struct observed *observed, char *text, size_t text_size)
{
        for (size_t i = 0; i < observed->n_images; i++) {
                uint32_t image = observed->images[i].image;
                size_t k = 0;

                while (k < observed->n_roots && observed->roots[k].image != image)
                        k++;
                if (k == observed->n_roots) {
                        snprintf(text, text_size, "what was copied of image %u is nobody's", image);
                        return false;
                }
        }
        return true;
}
