/* create.c - a new pool, and new members for one that exists. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include "pool/codec.h"
#include "pool/lifecycle.h"

#define LOG_BYTES_MAX (UINT64_C(64) << 20) /* a full log is replayed within seconds */

static int64_t now_ns(void)
{
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* RFC 9562, section 5.4 */
static int uuid_random(uint8_t uuid[16], struct error *err)
{
        if (getrandom(uuid, 16, 0) != 16)
                return error_set(err, -EIO, "no random numbers for a uuid");
        uuid[6] = (uuid[6] & 0x0f) | 0x40;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
        return 0;
}

/* A power of two, so that the smallest member has some 256 of them. */
static uint32_t slab_bytes_for(struct member *const *members, size_t n)
{
        uint64_t smallest = UINT64_MAX;
        for (size_t i = 0; i < n; i++)
                smallest = min_u64(smallest, members[i]->size_bytes);
        uint32_t bytes = 4u << 20;
        while (bytes < SLAB_BYTES_MAX && bytes * UINT64_C(512) <= smallest)
                bytes *= 2;
        return bytes;
}

static int options_check(struct member *const *members, size_t n,
                         const struct pool_create_options *o, uint32_t slab_bytes,
                         struct error *err)
{
        int r = pool_name_check(o->name, "pool", err);
        if (r < 0)
                return r;
        if (n < 1 || n > POOL_MEMBERS_MAX)
                return error_set(err, -EINVAL, "a pool has 1 to %u members, not %zu",
                                 POOL_MEMBERS_MAX, n);
        if (slab_bytes < SLAB_BYTES_MIN || slab_bytes > SLAB_BYTES_MAX ||
            (slab_bytes & (slab_bytes - 1)))
                return error_set(err, -EINVAL, "%u bytes is no size for a slab", slab_bytes);
        if (o->stripe_bytes && (o->stripe_bytes % BLOCK || o->stripe_bytes > slab_bytes))
                return error_set(
                    err, -EINVAL,
                    "%u bytes is no size for a stripe unit: it is a multiple of 4096, up to %u",
                    o->stripe_bytes, slab_bytes);
        for (size_t i = 0; i < n; i++)
                if (members[i]->size_bytes < 2 * LABEL_AREA_BYTES + (uint64_t)slab_bytes)
                        return error_set(err, -EINVAL, "'%s' is too small to be a member",
                                         members[i]->path);
        return 0;
}

/* All of both label areas: so that a sparse file has room for every superblock to come. */
int co_member_clear(struct member *m, struct error *err)
{
        void *zeroes = aligned_alloc(BLOCK, LABEL_AREA_BYTES);
        if (!zeroes)
                return error_set(err, -ENOMEM, "out of memory");
        memset(zeroes, 0, LABEL_AREA_BYTES);
        int r = 0;
        for (unsigned end = 0; end < 2 && r == 0; end++)
                r = co_member_write(m, zeroes, LABEL_AREA_BYTES,
                                    end ? m->size_bytes - LABEL_AREA_BYTES : 0);
        if (r == 0)
                r = co_member_flush(m);
        free(zeroes);
        return r == 0 ? 0 : error_set(err, r, "cannot write to '%s': %s", m->path, strerror(-r));
}

static int co_disk_label(struct pool *pool, struct disk *disk, int64_t created_ns,
                         struct error *err)
{
        struct label label = {
            .index = disk->index, .size_bytes = disk->size_bytes, .created_ns = created_ns};
        memcpy(label.pool_uuid, pool->uuid, 16);
        memcpy(label.member_uuid, disk->uuid, 16);
        memcpy(label.pool_name, pool->name, sizeof(label.pool_name));
        int r = co_label_write(disk->member, &label, err);
        disk->writes_done++;
        return r;
}

static int co_first_slab(struct pool *pool, enum slab_kind kind, uint32_t log_index,
                         struct error *err)
{
        struct slab *slab;
        int r = slab_place(pool, kind, NULL, &slab);
        if (r < 0)
                return error_set(err, r, "the members are too small for a pool");
        slab->log_index = log_index;
        r = co_slab_write_out(pool, slab);
        if (r == 0)
                r = slab_enter(pool, slab, true);
        if (r < 0) {
                slab_unplace(pool, slab);
                return error_set(err, r, "cannot write to the members: %s", strerror(-r));
        }
        return 0;
}

static int co_first_slabs(struct pool *pool, uint32_t n_log, struct error *err)
{
        pool->log.slab = calloc(n_log, sizeof(*pool->log.slab));
        if (!pool->log.slab)
                return error_set(err, -ENOMEM, "out of memory");
        int r = co_first_slab(pool, SLAB_SYSTEM, 0, err);
        for (uint32_t i = 0; i < n_log && r == 0; i++) {
                r = co_first_slab(pool, SLAB_LOG, i, err);
                if (r == 0)
                        pool->log.slab[i] = pool->slab[pool->n_slabs - 1];
        }
        pool->log.n_slabs = n_log;
        pool->log.ring_pages = n_log * pool->slab_blocks;
        return r < 0 ? r : co_first_slab(pool, SLAB_METADATA, 0, err);
}

static uint32_t log_slabs_for(const struct pool *pool, const struct pool_create_options *o)
{
        uint64_t total = 0, slab_bytes = (uint64_t)pool->slab_blocks * BLOCK;
        if (o->log_slabs)
                return o->log_slabs;
        for (size_t i = 0; i < pool->n_disks; i++)
                total += pool->disk[i]->size_bytes;
        return (uint32_t)max_u64(1, min_u64(LOG_BYTES_MAX, total / 128) / slab_bytes);
}

static int co_create(struct pool *pool, struct member *const *members, size_t n,
                     const struct pool_create_options *o, struct error *err)
{
        int r = o->uuid ? 0 : uuid_random(pool->uuid, err);
        if (o->uuid)
                memcpy(pool->uuid, o->uuid, 16);
        for (size_t i = 0; i < n && r == 0; i++) {
                uint8_t uuid[16];
                r = uuid_random(uuid, err);
                if (r == 0 && o->uuid) { /* tests want the same bytes each time */
                        memcpy(uuid, o->uuid, 16);
                        uuid[15] ^= (uint8_t)(i + 1);
                }
                if (r == 0 && pool_add_disk(pool, members[i], uuid, members[i]->size_bytes) < 0)
                        r = error_set(err, -ENOMEM, "out of memory");
                if (r == 0)
                        r = co_member_clear(members[i], err);
        }
        for (size_t i = 0; i < n && r == 0; i++)
                r = co_disk_label(pool, pool->disk[i], pool->created_ns, err);
        if (r == 0)
                r = co_first_slabs(pool, log_slabs_for(pool, o), err);
        return r < 0 ? r : co_checkpoint_fresh(pool, err);
}

int co_pool_create(struct member *const *members, size_t n, const struct pool_create_options *o,
                   struct error *err)
{
        uint32_t slab_bytes = o->slab_bytes ? o->slab_bytes
                              : n           ? slab_bytes_for(members, n)
                                            : SLAB_BYTES_MAX;
        int r = options_check(members, n, o, slab_bytes, err);
        if (r < 0)
                return r;
        struct pool *pool = pool_new(members[0]->loop, NULL);
        if (!pool)
                return error_set(err, -ENOMEM, "out of memory");
        memcpy(pool->name, o->name, strlen(o->name));
        pool->created_ns = o->uuid ? 0 : now_ns();
        pool->layout = o->layout;
        pool->slab_blocks = slab_bytes / BLOCK;
        pool->slab_shift = (uint32_t)__builtin_ctz(pool->slab_blocks);
        pool->stripe_blocks =
            (o->stripe_bytes ? o->stripe_bytes : min_u64(65536, slab_bytes)) / BLOCK;
        pool->epoch = 1;
        pool->recovering = true; /* nothing is logged: all of it is one checkpoint */
        r = co_create(pool, members, n, o, err);
        pool_free(pool, false);
        return r;
}

/* ---- adding ---- */

/* Until the superblock names the new member nothing is placed on it: the log may not know of it.
 * The superblock of now is written onto it, so that it is one behind when the next one is. */
static int co_add_one(struct pool *pool, struct member *m, struct error *err)
{
        uint8_t uuid[16];
        struct super super;
        if (m->size_bytes < 2 * LABEL_AREA_BYTES + (uint64_t)pool->slab_blocks * BLOCK)
                return error_set(err, -EINVAL,
                                 "'%s' is too small: pool '%s' gives space in slabs of %u bytes",
                                 m->path, pool->name, pool->slab_blocks * BLOCK);
        int r = uuid_random(uuid, err);
        if (r == 0)
                r = co_member_clear(m, err);
        if (r == 0)
                r = co_super_read(pool->disk[0]->member, &super, NULL, err);
        if (r < 0)
                return r;
        if (super.generation != pool->generation) { /* two behind the next one: it would be stale */
                super_free(&super);
                return error_set(err, -EUCLEAN, "the newest superblock of '%s' is damaged",
                                 pool->disk[0]->member->path);
        }
        if (pool_add_disk(pool, m, uuid, m->size_bytes) < 0) {
                super_free(&super);
                return error_set(err, -ENOMEM, "out of memory");
        }
        struct disk *disk = pool->disk[pool->n_disks - 1];
        disk->free_units = 0;
        disk->apart = true;
        r = co_super_write(pool, &super, disk->index, disk->index + 1, err);
        super_free(&super);
        if (r == 0)
                r = co_disk_label(pool, disk, now_ns(), err);
        if (r < 0)
                return r;
        uint64_t covered = disk->writes_done;
        r = co_member_flush(m);
        if (r < 0)
                return error_set(err, r, "cannot write to '%s': %s", m->path, strerror(-r));
        disk->writes_durable = covered;
        return 0;
}

/* They are the caller's again: a flush that a round has begun must have ended. */
static void co_disks_drop(struct pool *pool, size_t n)
{
        for (size_t i = n; i < pool->n_disks; i++)
                pool->disk[i]->apart = true;
        while (pool->n_disks > n) {
                struct disk *disk = pool->disk[pool->n_disks - 1];
                while (disk->flushing)
                        co_sleep_ns(1000000);
                pool->n_disks--;
                free(disk->units);
                free(disk);
        }
}

int co_pool_add(struct pool *pool, struct member *const *members, size_t n, struct error *err)
{
        if (pool->readonly || pool_failed(pool))
                return error_set(err, -EROFS, "pool '%s' cannot be changed now", pool->name);
        if (pool->n_disks + n > POOL_MEMBERS_MAX)
                return error_set(err, -EINVAL, "a pool has at most %u members", POOL_MEMBERS_MAX);
        co_lock(&pool->catalog_lock);
        /* No checkpoint may name a member whose label is not durable yet. */
        co_lock(&pool->checkpoint_lock);
        size_t before = pool->n_disks;
        int r = 0;
        for (size_t i = 0; i < n && r == 0; i++)
                r = co_add_one(pool, members[i], err);
        for (size_t i = before; i < pool->n_disks && r == 0; i++)
                pool->disk[i]->apart = false;
        if (r < 0)
                co_disks_drop(pool, before);
        co_unlock(&pool->checkpoint_lock);
        if (r == 0) {
                r = co_checkpoint(pool, err);
                if (pool->n_disks_committed == pool->n_disks)
                        r = 0; /* another checkpoint was faster, and has made them members */
                else if (r < 0)
                        co_disks_drop(pool, before); /* the pool has stopped: nothing lies there */
        }
        for (size_t i = before; i < pool->n_disks; i++)
                pool->disk[i]->free_units = pool->disk[i]->n_units;
        co_unlock(&pool->catalog_lock);
        if (r == 0)
                stalled_wake(pool);
        return r;
}
