/* base.h - volumes on an image: they read from it what was never written to them.
 *
 * A base is what a pool knows of an image: its size, a description by which whoever opened it finds it
 * again, and the parts of it that were copied into the pool. It has no name. Volumes made on it, their
 * snapshots and clones share it; it goes with the last of them. Once it is complete the image is not
 * needed any more.
 *
 *     volume -> what it has itself -> what the base has -> the image
 *
 * Units      bytes.
 * Threads    the pool's loop.
 * Errors     as pool.h's. What the image lacks or cannot give is -EIO to who reads the volume.
 * Ownership  descriptions are the caller's text, copied; a reader lives until it is detached.
 */
#pragma once
#include "pool/pool.h"

#define POOL_BASE_DESCRIPTION_MAX 767u /* characters, without NUL */

struct pool_base_info {
        uint64_t id;
        uint8_t uuid[16];
        uint64_t size_bytes;     /* of the image, rounded up to VOLUME_SECTOR */
        uint64_t copied_bytes;   /* of data, into the pool; zeroes not counted */
        const char *description; /* valid during the call */
        bool complete;
        bool attached;
        unsigned n_dependents; /* volumes, snapshots, and what is hidden of them */
};
/* A non-zero answer ends the walk and is returned. */
int co_pool_bases(struct pool *pool, int (*each)(const struct pool_base_info *info, void *arg),
                  void *arg, struct error *err);

/* The same of one. -ENOENT: there is none of this id */
int co_pool_base_get(struct pool *pool, uint64_t base_id,
                     int (*each)(const struct pool_base_info *info, void *arg), void *arg,
                     struct error *err);
/* Does a volume, or what is left of one, stand on it? */
bool pool_base_is_needed(struct pool *pool, uint64_t base_id);

/* A new volume whose first bytes are the base's, as far as it reaches.
 *
 * -ENOENT  there is no base @base_id
 * and as co_volume_create() */
int co_volume_create_on(struct pool *pool, const char *name, uint64_t size_bytes, uint64_t base_id,
                        struct error *err);
/* The same on a new base of @base_bytes (a multiple of VOLUME_SECTOR) whose image @description tells.
 * It is not attached. */
int co_volume_create_on_new(struct pool *pool, const char *name, uint64_t size_bytes,
                            uint64_t base_bytes, const char *description, uint64_t *ret_base_id,
                            struct error *err);
/* The base of a volume or snapshot; 0: none. */
uint64_t volume_base(const struct volume *volume);
uint64_t root_base(const struct root_info *info);

struct pool_image {
        /* [0, size_bytes) of the base; what the image has not got is zeroes. Called by several
         * coroutines at once. 0 or -errno */
        int (*co_read)(struct pool_image *image, void *buffer, uint64_t length, uint64_t offset);
};
/* From now on @image is read. -ENOENT: there is no such base. -EALREADY: it is attached */
int pool_base_attach(struct pool *pool, uint64_t base_id, struct pool_image *image,
                     struct error *err);
/* From now on @image is read in place of the one that is attached, of which reads may still be under way.
 * -ENOENT: there is no such base, or no image of it */
int pool_base_replace(struct pool *pool, uint64_t base_id, struct pool_image *image,
                      struct error *err);
/* Nobody reads the image any more on return. */
void co_pool_base_detach(struct pool *pool, uint64_t base_id);

/* Copy what is not in the pool of [@offset, @offset + @length) (blocks that these touch); several may
 * be under way. *ret_copied: what was read from the image, for limits.
 *
 * -ENOENT  the base has gone, with the last volume on it
 * -ENOSPC  the pool is full */
int co_pool_base_copy(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t length,
                      uint64_t *ret_copied, struct error *err);
/* What the image is known to have no data of, wherever blocks lie in it as a whole: zeroes. */
int co_pool_base_zero(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t length,
                      struct error *err);
/* Where from @offset on something is not in the pool; size_bytes: nowhere. */
int co_pool_base_next(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t *ret_offset,
                      struct error *err);
/* All is in the pool: durable on return, and the image will not be asked for again.
 *
 * -EBUSY  something is not */
int co_pool_base_complete(struct pool *pool, uint64_t base_id, struct error *err);
/* The image is to be found otherwise. */
int co_pool_base_describe(struct pool *pool, uint64_t base_id, const char *description,
                          struct error *err);
