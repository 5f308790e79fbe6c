/* toy_base.c - volumes on images, which the simple pool has not got: it is not asked for any. */
#include <stdlib.h>
#include "pool/base.h"
#include "tests/crash/toy_impl.h"

int co_pool_bases(struct pool *pool, int (*each)(const struct pool_base_info *info, void *arg),
                  void *arg, struct error *err)
{
        return 0;
}

uint64_t root_base(const struct root_info *info)
{
        return 0;
}

bool pool_base_is_needed(struct pool *pool, uint64_t base_id)
{
        abort();
}

int co_volume_create_on(struct pool *pool, const char *name, uint64_t size_bytes, uint64_t base_id,
                        struct error *err)
{
        abort();
}

int co_volume_create_on_new(struct pool *pool, const char *name, uint64_t size_bytes,
                            uint64_t base_bytes, const char *description, uint64_t *ret_base_id,
                            struct error *err)
{
        abort();
}

int pool_base_attach(struct pool *pool, uint64_t base_id, struct pool_image *image,
                     struct error *err)
{
        abort();
}

void co_pool_base_detach(struct pool *pool, uint64_t base_id)
{
        abort();
}

int co_pool_base_copy(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t length,
                      uint64_t *ret_copied, struct error *err)
{
        abort();
}

int co_pool_base_zero(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t length,
                      struct error *err)
{
        abort();
}

int co_pool_base_next(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t *ret_offset,
                      struct error *err)
{
        abort();
}

int co_pool_base_describe(struct pool *pool, uint64_t base_id, const char *description,
                          struct error *err)
{
        abort();
}

int pool_base_replace(struct pool *pool, uint64_t base_id, struct pool_image *image,
                      struct error *err)
{
        abort();
}

int co_pool_base_complete(struct pool *pool, uint64_t base_id, struct error *err)
{
        abort();
}
