/* images.h - the images (content.h) that volumes of a run stand on, attached to an open pool.
 *
 * Units      bytes.
 * Threads    coroutines of the pool's loop.
 * Errors     0 or -errno and a sentence.
 * Ownership  what is attached belongs to a struct images, one a pool; it is released with
 *            co_images_close() before the pool is closed, or with images_free() after it was abandoned.
 */
#pragma once
#include "pool/pool.h"
#include "tests/crash/model.h"

struct image;

struct images {
        struct image *first;
        /* Faults of all of them: so many reads pass, so many then fail; each takes up to so much longer. */
        uint64_t n_passing, n_failing, slow_ns;
        uint64_t n_reads, n_failed, n_let_go; /* so far; the last: by co_images_tidy() */
};

/* Attach those that are needed and not attached. */
int co_images_open(struct images *images, struct pool *pool, struct error *err);
/* All are detached, until co_images_open(); reads under way end first. */
void co_images_detach(struct images *images, struct pool *pool);
/* Detach those that no volume needs. */
void co_images_tidy(struct images *images, struct pool *pool);
void co_images_close(struct images *images, struct pool *pool);
void images_free(struct images *images);

/* A volume on an image, as @request says. */
int co_images_create(struct pool *pool, const struct catalog_request *request, struct error *err);

/* The image that @volume stands on; NULL: none, or it is not attached. */
struct image *co_images_of(struct images *images, struct pool *pool, const char *volume);
uint32_t image_number(const struct image *image);
/* Of its blocks what touches the range: zeroes where the image is known to have nothing else. */
int co_image_copy(struct image *image, struct pool *pool, uint64_t offset, uint64_t length,
                  struct error *err);
/* The same of the first @length bytes at most that from *@at on are not in the pool; *@at goes on behind
 * them: at image_bytes() or beyond nothing is left. */
int co_image_advance(struct image *image, struct pool *pool, uint64_t *at, uint64_t length,
                     struct error *err);
/* It is found elsewhere: it gets another description, and where it is attached another reader. */
int co_image_move(struct image *image, struct pool *pool, struct error *err);
/* Begin to copy all; false: somebody else does, or has. */
bool image_complete_begin(struct image *image);
/* Where that had @result 0: say that all of it is there. Where this succeeds too the image is never read
 * again. */
int co_image_complete(struct image *image, struct pool *pool, int result, struct error *err);

/* What the pool knows of images, for @observed: before its roots are listed. */
int co_images_observe(struct pool *pool, struct observed *observed, struct error *err);
/* Of these, which one a root stands on. */
uint32_t images_find(const struct observed *observed, uint64_t base_id);
/* An image that no volume stands on is a leak. */
bool images_all_needed(const struct observed *observed, char *text, size_t text_size);
