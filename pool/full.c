/* full.c - a pool that has no space: it is told, and who would rather wait than fail waits.
 *
 * A request that found no space has been taken back altogether: it holds nothing, and nothing waits
 * for it. It starts anew when there is more room than when the last one failed, and each second
 * besides, as what a file system under a sparse member has free is not known here.
 * Before it comes to that, who watches is told at 80 and at 95 %. */
#include <errno.h>
#include <stdio.h>
#include "pool/full.h"
#include "pool/usage.h"

#define RETRY_NS       UINT64_C(1000000000)
#define FILLING_SLACK  5  /* percent */
#define METADATA_SHORT 64 /* blocks, beside the reserve: more than a part of a write takes (io.c) */

static const unsigned filling_levels[] = {80, 95}; /* percent */

static uint64_t data_room(const struct pool *pool)
{
        uint64_t room = pool->data_free;
        for (size_t i = 0; i < pool->n_disks; i++)
                room += (uint64_t)pool->disk[i]->free_units << pool->slab_shift;
        return room;
}

/* Metadata comes and goes with each checkpoint: it counts only where it was what lacked. */
static uint64_t metadata_room(const struct pool *pool)
{
        int64_t wanted = (int64_t)metadata_reserve(pool) + METADATA_SHORT;
        return metadata_available(pool) < wanted ? pool->metadata_free : UINT64_MAX;
}

static void full_ends(struct pool *pool)
{
        pool->full = false;
        pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_SPACE,
                                             .sentence = "there is space again"});
        if (!list_empty(&pool->full_waiting))
                loop_timer_set(pool->loop, &pool->full_timer, 0);
}

/* A level that is passed is told of once; again only after the share was well below it. */
void filling_look(struct pool *pool)
{
        uint64_t size = pool_data_blocks(pool);
        unsigned percent = size ? (unsigned)(pool->data_live * 100 / size) : 0;
        unsigned level = 0;
        pool->filling_next = UINT64_MAX;
        for (size_t i = 0; i < sizeof(filling_levels) / sizeof(filling_levels[0]); i++) {
                if (percent >= filling_levels[i])
                        level = filling_levels[i];
                else
                        pool->filling_next =
                            min_u64(pool->filling_next, size * filling_levels[i] / 100);
        }
        if (level > pool->filling) {
                char sentence[80];
                snprintf(sentence, sizeof(sentence), "%u %% of the space for data is taken",
                         percent);
                pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_FILLING,
                                                     .sentence = sentence,
                                                     .percent = percent});
                pool->filling = level;
        } else if (percent + FILLING_SLACK < pool->filling) {
                pool->filling = level;
        }
}

void full_look(struct pool *pool)
{
        filling_look(pool);
        if (pool->full && (data_room(pool) > pool->full_data_room ||
                           pool->metadata_free > pool->full_metadata_room))
                full_ends(pool);
}

static void full_fire(struct loop_timer *timer)
{
        struct pool *pool = container_of(timer, struct pool, full_timer);
        struct list retry = LIST_INIT(retry);
        list_splice(&retry, &pool->full_waiting);
        list_for_each_safe (it, &retry) {
                struct volume_request *req = container_of(it, struct volume_request, link);
                list_remove(it);
                req->volume->root->usage->n_full--;
                request_start(req);
        }
}

/* 0: it is to wait; else what it ends with. */
static int why_not_wait(const struct volume_request *req)
{
        const struct volume *v = req->volume;
        enum on_full on_full = v->root->usage->on_full;
        bool waits =
            on_full == ON_FULL_WAIT || (on_full == ON_FULL_AS_HANDLE && v->waits_when_full);
        if (!waits || pool_failed(v->pool))
                return -ENOSPC;
        return v->cancelled || v->hurried ? -ECANCELED : 0;
}

int full_wait(struct volume_request *req)
{
        struct pool *pool = req->volume->pool;
        pool->full_data_room = data_room(pool);
        pool->full_metadata_room = metadata_room(pool);
        if (!pool->full) {
                pool->full = true;
                pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_FULL,
                                                     .sentence = "there is no space left"});
        }
        int r = why_not_wait(req);
        if (r < 0)
                return r;
        req->waited = true;
        req->volume->root->usage->n_full++;
        if (list_empty(&pool->full_waiting)) {
                pool->full_timer.fire = full_fire;
                loop_timer_set(pool->loop, &pool->full_timer, loop_now_ns(pool->loop) + RETRY_NS);
        }
        list_append(&pool->full_waiting, &req->link);
        return 0;
}

void full_written(struct pool *pool)
{
        if (pool->full)
                full_ends(pool);
}

bool pool_waits_for_space(const struct pool *pool)
{
        return !list_empty(&pool->full_waiting);
}

void full_give_up(struct pool *pool)
{
        list_for_each_safe (it, &pool->full_waiting) {
                struct volume_request *req = container_of(it, struct volume_request, link);
                int r = why_not_wait(req);
                if (r == 0)
                        continue;
                list_remove(it);
                req->volume->root->usage->n_full--;
                request_end(req, pool_failed(pool) ? -EIO : r);
        }
        if (list_empty(&pool->full_waiting))
                loop_timer_cancel(pool->loop, &pool->full_timer);
}
