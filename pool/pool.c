/* pool.c - a pool in memory: made, taken apart, described. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"
#include "pool/lifecycle.h"

/* ---- the engine's coroutines ---- */

struct spawn {
        struct loop_task task;
        struct pool *pool;
        co_entry *entry;
        void *arg;
};

static void spawn_run(struct loop_task *task)
{
        struct spawn *s = container_of(task, struct spawn, task);
        /* Without memory for a stack it is tried again:
         * who asked has been told that it will run. */
        if (co_spawn(s->pool->loop, s->entry, s->arg) < 0)
                loop_post(s->pool->loop, &s->task);
        else
                free(s);
}

/* Starts from the loop, never inside the caller, whose step may not be over. */
int engine_spawn(struct pool *pool, co_entry *entry, void *arg)
{
        struct spawn *s = malloc(sizeof(*s));
        if (!s)
                return -ENOMEM;
        *s = (struct spawn){.task = {.run = spawn_run}, .pool = pool, .entry = entry, .arg = arg};
        pool->n_coroutines++;
        loop_post(pool->loop, &s->task);
        return 0;
}

void engine_coroutine_ends(struct pool *pool)
{
        assert(pool->n_coroutines > 0);
        if (--pool->n_coroutines == 0)
                co_wake_all(&pool->idle);
}

/* ---- making and taking apart ---- */

struct pool *pool_new(struct loop *loop, const struct pool_options *options)
{
        struct pool *pool = calloc(1, sizeof(*pool));
        if (!pool)
                return NULL;
        pool->loop = loop;
        if (options)
                pool->options = *options;
        if (!pool->options.cache_bytes)
                pool->options.cache_bytes = UINT64_C(512) << 20;
        if (!pool->options.checkpoint_interval_ms)
                pool->options.checkpoint_interval_ms = 5000;
        pool->readonly = pool->options.readonly;
        pool->interval = 1;
        pool->catalog.height = CATALOG_HEIGHT;
        pool->next_root_id = 1;
        list_init(&pool->metadata_avail);
        list_init(&pool->dirty_roots);
        list_init(&pool->stalled);
        list_init(&pool->usages);
        list_init(&pool->full_waiting);
        pool->opened_ns = loop_now_ns(loop);
        list_init(&pool->spare_spans);
        list_init(&pool->crossings);
        list_init(&pool->log.sealed);
        list_init(&pool->log.spare);
        list_init(&pool->log.waiters);
        list_init(&pool->log.loggers);
        co_queue_init(&pool->log.idle);
        co_queue_init(&pool->log.stopped);
        co_queue_init(&pool->maker_done);
        co_queue_init(&pool->worker_done);
        co_queue_init(&pool->idle);
        co_queue_init(&pool->checkpoint_ended);
        co_mutex_init(&pool->catalog_lock);
        co_mutex_init(&pool->checkpoint_lock);
        if (cache_init(&pool->cache, pool->options.cache_bytes) < 0 || roots_init(pool) < 0) {
                pool_free(pool, false);
                return NULL;
        }
        return pool;
}

void pool_free(struct pool *pool, bool close_members)
{
        if (!pool)
                return;
        spans_destroy(pool);
        log_destroy(pool);
        roots_destroy(pool);
        cache_destroy(&pool->cache);
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                slab_free(pool->slab[i]);
        free(pool->slab);
        free(pool->table);
        free(pool->index);
        for (size_t i = 0; i < INTERVALS; i++)
                free(pool->intervals[i].address);
        for (size_t i = 0; i < pool->n_disks; i++) {
                if (close_members)
                        member_close(pool->disk[i]->member);
                free(pool->disk[i]->units);
                free(pool->disk[i]);
        }
        free(pool->disk);
        free(pool);
}

int pool_add_disk(struct pool *pool, struct member *member, const uint8_t uuid[16],
                  uint64_t size_bytes)
{
        uint64_t slab_bytes = (uint64_t)pool->slab_blocks * BLOCK;
        struct disk *disk = calloc(1, sizeof(*disk));
        struct disk **grown = realloc(pool->disk, (pool->n_disks + 1) * sizeof(*grown));
        if (grown)
                pool->disk = grown;
        if (!disk || !grown) {
                free(disk);
                return -ENOMEM;
        }
        disk->member = member;
        memcpy(disk->uuid, uuid, 16);
        disk->index = (unsigned)pool->n_disks;
        disk->size_bytes = size_bytes;
        uint64_t usable = size_bytes > 2 * LABEL_AREA_BYTES ? size_bytes - 2 * LABEL_AREA_BYTES : 0;
        disk->n_units = disk->free_units = (uint32_t)(usable / slab_bytes);
        disk->units = calloc(disk->n_units / 64 + 1, sizeof(uint64_t));
        if (!disk->units) {
                free(disk);
                return -ENOMEM;
        }
        list_init(&disk->avail);
        pool->disk[pool->n_disks++] = disk;
        return 0;
}

/* ---- what it is ---- */

void pool_observe(struct pool *pool, void (*each)(const struct pool_event *event, void *arg),
                  void *arg)
{
        pool->observer = each;
        pool->observer_arg = arg;
        pool->filling = 0; /* who is new has not been told */
}

struct loop *pool_loop(struct pool *pool)
{
        return pool->loop;
}

static uint64_t blocks_to_bytes(uint64_t blocks)
{
        return blocks * BLOCK;
}

/* What free units could become: all but what the metadata still wants. */
uint64_t pool_data_blocks(const struct pool *pool)
{
        uint64_t units = 0;
        for (size_t i = 0; i < pool->n_disks; i++)
                units += pool->disk[i]->free_units;
        return pool->data_total + (units << pool->slab_shift);
}

void pool_get_info(struct pool *pool, struct pool_info *info)
{
        uint64_t provisioned = 0;
        for (uint32_t i = 0; i < pool->n_slots; i++)
                if (pool->slot[i] && pool->slot[i]->state == ROOT_LIVE && pool->slot[i]->loaded)
                        provisioned += pool->slot[i]->body->size_bytes;
        uint64_t size = pool_data_blocks(pool);
        *info = (struct pool_info){
            .name = pool->name,
            .layout = pool->layout,
            .stripe_bytes = pool->stripe_blocks * BLOCK,
            .slab_bytes = pool->slab_blocks * BLOCK,
            .size_bytes = blocks_to_bytes(size),
            .used_bytes = blocks_to_bytes(pool->data_live),
            .free_bytes = blocks_to_bytes(size - pool->data_live),
            .metadata_used_bytes = blocks_to_bytes(pool->metadata_live),
            .freeing_bytes = blocks_to_bytes(pool->waiting_frees),
            .provisioned_bytes = provisioned,
            .generation = pool->generation,
            .epoch = pool->epoch,
            .n_volumes = pool->n_volumes,
            .n_snapshots = pool->n_snapshots,
            .checksum_errors = pool->checksum_errors,
            .repaired_errors = pool->repaired_errors,
            .log_used_bytes = blocks_to_bytes(log_pages_used(pool)),
            .log_size_bytes = blocks_to_bytes(pool->log.ring_pages),
            .readonly = pool->readonly,
            .failed = pool_failed(pool) ? pool->failed
                      : pool->damage[0] ? pool->damage
                                        : NULL,
            .n_members = pool->n_disks,
        };
        memcpy(info->uuid, pool->uuid, 16);
}

static void member_count_slab(const struct pool *pool, const struct slab *slab, unsigned index,
                              struct pool_member_info *info)
{
        for (unsigned i = 0; i < slab->n_legs; i++) {
                if (slab->leg[i].member != index)
                        continue;
                uint64_t used = blocks_to_bytes(pool->slab_blocks - slab->live_free);
                if (slab->kind == SLAB_DATA)
                        info->data_bytes += blocks_to_bytes(pool->slab_blocks);
                else
                        info->metadata_bytes += blocks_to_bytes(pool->slab_blocks);
                info->used_bytes +=
                    slab->kind == SLAB_LOG ? blocks_to_bytes(pool->slab_blocks) : used;
        }
}

void pool_get_member_info(struct pool *pool, size_t index, struct pool_member_info *info)
{
        const struct disk *disk = pool->disk[index];
        *info = (struct pool_member_info){
            .path = disk->member->path,
            .size_bytes = disk->size_bytes,
            .metadata_bytes = 2 * LABEL_AREA_BYTES,
            .used_bytes = 2 * LABEL_AREA_BYTES,
            .unassigned_bytes = blocks_to_bytes((uint64_t)disk->free_units << pool->slab_shift),
            .meter = &disk->member->meter,
        };
        memcpy(info->uuid, disk->uuid, 16);
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                member_count_slab(pool, pool->slab[i], (unsigned)index, info);
}

int pool_dup_member(struct pool *pool, size_t index)
{
        const struct member *m = pool->disk[index]->member;
        return m->ops->dup ? m->ops->dup(m) : -EOPNOTSUPP;
}
