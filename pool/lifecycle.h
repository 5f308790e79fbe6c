/* lifecycle.h - between pool.c, create.c and open.c: a pool in memory before and after it is in
 * use. */
#pragma once
#include "pool/engine.h"

/* NULL: out of memory */
struct pool *pool_new(struct loop *loop, const struct pool_options *options);
void pool_free(struct pool *pool, bool close_members); /* NULL is fine */
/* One more member, at the next index. The slab size is known. */
int pool_add_disk(struct pool *pool, struct member *member, const uint8_t uuid[16],
                  uint64_t size_bytes);
/* No superblock of any pool can be found on @m afterwards. */
int co_member_clear(struct member *m, struct error *err);
