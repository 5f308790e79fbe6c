/* span.c - whole blocks to read or write: split by leaf, admitted, waited for, answered.
 *
 * A write that finds no room - in the log, for metadata, for data - waits in the stalled list and
 * tries again after each checkpoint; it fails with ENOSPC when nothing is on its way back any more.
 */
#include <errno.h>
#include <stdlib.h>
#include "pool/full.h"
#include "pool/span.h"

/* ---- memory ---- */

struct span *span_new(struct pool *pool, struct root *root)
{
        struct span *span;
        if (pool->n_spare_spans) {
                span = container_of(pool->spare_spans.next, struct span, link);
                list_remove(&span->link);
                pool->n_spare_spans--;
        } else {
                span = malloc(sizeof(*span));
                if (!span)
                        return NULL;
        }
        /* The first chunk is large and sets its own fields. */
        memset(span, 0, offsetof(struct span, first));
        span->more = NULL;
        span->pool = pool;
        span->root = root;
        list_init(&span->link);
        pool->n_spans++;
        return span;
}

static void chunk_release(struct chunk *chunk)
{
        for (unsigned i = 0; i < chunk->n_runs; i++)
                if (chunk->run[i].many)
                        free(chunk->run[i].many);
        if (chunk->run != chunk->run_inline)
                free(chunk->run);
        chunk->n_runs = 0;
}

void span_put(struct span *span)
{
        struct pool *pool = span->pool;
        for (unsigned i = 0; i < span->n_chunks; i++)
                chunk_release(span_chunk(span, i));
        free(span->more);
        pool->n_spans--;
        if (pool->n_spans == 0)
                co_wake_all(&pool->idle);
        if (pool->n_spare_spans >= SPARE_SPANS) {
                free(span);
                return;
        }
        list_append(&pool->spare_spans, &span->link);
        pool->n_spare_spans++;
}

void spans_destroy(struct pool *pool)
{
        list_for_each_safe (it, &pool->spare_spans)
                free(container_of(it, struct span, link));
}

static void chunk_init(struct chunk *chunk, struct span *span, uint64_t block, uint32_t n)
{
        chunk->span = span;
        chunk->block = block;
        chunk->n = n;
        chunk->pending = 0;
        chunk->result = 0;
        chunk->run = chunk->run_inline;
        chunk->n_runs = 0;
        chunk->run_room = RUNS_INLINE;
        chunk->wants_image = false;
}

static int span_split(struct span *span)
{
        uint64_t end = span->block + span->n;
        unsigned n = (unsigned)((end - 1) / LEAF_BLOCKS - span->block / LEAF_BLOCKS + 1);
        if (n > 1) {
                span->more = malloc((n - 1) * sizeof(*span->more));
                if (!span->more)
                        return -ENOMEM;
        }
        uint64_t at = span->block;
        for (span->n_chunks = 0; span->n_chunks < n; span->n_chunks++) {
                uint64_t next = min_u64((at / LEAF_BLOCKS + 1) * LEAF_BLOCKS, end);
                chunk_init(span_chunk(span, span->n_chunks), span, at, (uint32_t)(next - at));
                at = next;
        }
        return 0;
}

/* ---- runs ---- */

static bool run_extend(struct chunk *chunk, uint64_t address, uint32_t first, uint32_t n)
{
        if (chunk->n_runs == 0)
                return false;
        struct run *last = &chunk->run[chunk->n_runs - 1];
        if (last->first + last->n != first || last->address + last->n != address ||
            (address & (chunk->span->pool->slab_blocks - 1)) == 0)
                return false;
        last->n += n;
        return true;
}

struct run *chunk_run(struct chunk *chunk, uint64_t address, uint32_t first, uint32_t n)
{
        if (run_extend(chunk, address, first, n))
                return &chunk->run[chunk->n_runs - 1];
        if (chunk->n_runs == chunk->run_room) {
                unsigned room = LEAF_BLOCKS;
                struct run *grown = malloc(room * sizeof(*grown));
                if (!grown)
                        return NULL;
                memcpy(grown, chunk->run, chunk->n_runs * sizeof(*grown));
                chunk->run = grown;
                chunk->run_room = room;
        }
        struct run *run = &chunk->run[chunk->n_runs++];
        run->chunk = chunk;
        run->address = address;
        run->first = first;
        run->n = n;
        run->many = NULL;
        return run;
}

void *chunk_memory(const struct chunk *chunk, uint32_t i)
{
        const struct span *span = chunk->span;
        size_t at = (size_t)(chunk->block + i - span->block) * BLOCK;
        const struct iovec *iov = span->iov;
        while (at >= iov->iov_len)
                at -= iov++->iov_len;
        return (char *)iov->iov_base + at;
}

/* The run's memory, as a list of pieces. */
static int run_memory(struct run *run)
{
        const struct chunk *chunk = run->chunk;
        const struct span *span = chunk->span;
        size_t at = (size_t)(chunk->block + run->first - span->block) * BLOCK,
               left = (size_t)run->n * BLOCK;
        unsigned i = 0, n = 0;
        while (at >= span->iov[i].iov_len)
                at -= span->iov[i++].iov_len;
        if (span->iov[i].iov_len - at >= left) {
                run->one = (struct iovec){(char *)span->iov[i].iov_base + at, left};
                run->io.iov = &run->one;
                run->io.n_iov = 1;
                return 0;
        }
        run->many = malloc((span->n_iov - i) * sizeof(*run->many));
        if (!run->many)
                return -ENOMEM;
        for (; left; i++, at = 0) {
                size_t here = min_u64(span->iov[i].iov_len - at, left);
                run->many[n++] = (struct iovec){(char *)span->iov[i].iov_base + at, here};
                left -= here;
        }
        run->io.iov = run->many;
        run->io.n_iov = n;
        return 0;
}

int run_prepare(struct run *run, enum member_op op, void (*done)(struct member_io *, int))
{
        struct pool *pool = run->chunk->span->pool;
        struct slab *slab = address_slab(pool, run->address);
        if (!slab || slab->kind != SLAB_DATA)
                return -EUCLEAN;
        int r = run_memory(run);
        if (r < 0)
                return r;
        run->disk = pool->disk[slab->leg[0].member];
        run->io.op = op;
        run->io.offset = leg_offset(slab, 0, run->address, pool->slab_blocks);
        run->io.length = (uint64_t)run->n * BLOCK;
        run->io.done = done;
        run->verified = false;
        return 0;
}

int run_submit(struct run *run, enum member_op op, void (*done)(struct member_io *, int))
{
        int r = run_prepare(run, op, done);
        if (r < 0)
                return r;
        run->chunk->pending++;
        member_submit(run->disk->member, &run->io);
        return 0;
}

/* ---- holds ---- */

void co_root_hold(struct root *root)
{
        root->n_holds++;
        while (root->n_writes)
                co_wait(&root->drained);
}

static void span_retry(struct loop_task *task)
{
        span_start(container_of(task, struct span, task));
}

static void span_retry_later(struct span *span)
{
        list_remove(&span->link);
        span->task.run = span_retry;
        loop_post(span->pool->loop, &span->task);
}

void root_unhold(struct pool *pool, struct root *root)
{
        if (--root->n_holds)
                return;
        co_wake_all(&root->unheld);
        list_for_each_safe (it, &root->held)
                span_retry_later(container_of(it, struct span, link));
        if (root->loaded && root->body->high_bytes)
                worker_kick(pool);
}

void co_write_begin(struct root *root)
{
        while (root->n_holds)
                co_wait(&root->unheld);
        root->n_writes++;
}

void write_end(struct root *root)
{
        assert(root->n_writes > 0);
        if (--root->n_writes == 0)
                co_wake_all(&root->drained);
}

/* ---- waiting for room ---- */

bool space_may_come(const struct pool *pool, bool from_worker)
{
        return pool->waiting_frees || pool->checkpoint_wanted || pool->checkpoint_running ||
               pool->maker_running || pool->discard_in_flight ||
               (from_worker && pool->worker_running);
}

static void span_end(struct span *span, int result);

/* Wait for a checkpoint, the maker, the worker, a discard, or a reader that holds frees back: each
 * of them wakes the stalled when it is done. With none of these there is nothing to wait for; nor
 * after two checkpoints that brought nothing. */
static void span_stall(struct span *span, bool for_log)
{
        struct pool *pool = span->pool;
        if (!span->stalled_at)
                span->stalled_at = pool->n_checkpoints + 1;
        if (pool->hold_frees)
                pool->check_disturbed = true;
        maker_kick(pool);
        worker_kick(pool);
        bool waited = pool->n_checkpoints > span->stalled_at && !pool->waiting_frees &&
                      !pool->maker_running && !pool->worker_running && !pool->discard_in_flight;
        if (for_log || !waited)
                checkpoint_kick_if_useful(pool);
        if (pool_failed(pool) || (!for_log && waited) || !space_may_come(pool, true))
                span_end(span, pool_failed(pool) ? -EIO : -ENOSPC);
        else
                list_append(&pool->stalled, &span->link);
}

static void stalled_run(struct loop_task *task)
{
        struct pool *pool = container_of(task, struct pool, stalled_task);
        struct list retry = LIST_INIT(retry);
        list_splice(&retry, &pool->stalled);
        list_for_each_safe (it, &retry) {
                list_remove(it);
                span_start(container_of(it, struct span, link));
        }
}

void stalled_wake(struct pool *pool)
{
        full_look(pool);
        if (list_empty(&pool->stalled))
                return;
        pool->stalled_task.run = stalled_run;
        loop_post(pool->loop, &pool->stalled_task);
}

/* What the write may take at most: a record a block, a path a leaf, and the lists of what was there
 * before. */
static void span_needs(struct span *span)
{
        span->log_bytes = span->n * LOG_WRITE_BYTES(1);
        span->metadata_blocks = span->n_chunks * (span->root->body->map.height + 1u) + 2;
        if (!span->root->dirty)
                span->metadata_blocks += CATALOG_BLOCKS_ONE;
        uint64_t nodes = (uint64_t)span->n_chunks * span->root->body->map.height;
        span->metadata_blocks += deadlist_needs(span->pool, span->root, span->n + nodes);
}

static bool span_admit(struct span *span, bool *ret_for_log)
{
        struct pool *pool = span->pool;
        *ret_for_log = !log_has_room(pool, span->log_bytes) || cache_is_dirty(pool);
        if (*ret_for_log)
                return false;
        if (metadata_available(pool) < (int64_t)(span->metadata_blocks + metadata_reserve(pool)))
                return false;
        pool->log.reserved_bytes += span->log_bytes;
        pool->metadata_reserved += span->metadata_blocks;
        return true;
}

static void span_unadmit(struct span *span)
{
        span->pool->log.reserved_bytes -= span->log_bytes;
        span->pool->metadata_reserved -= span->metadata_blocks;
}

/* ---- writes ---- */

static void span_answer(struct span *span, int result)
{
        void (*done)(struct span *, int) = span->done;
        done(span, result);
        span_put(span);
}

static void span_end_run(struct loop_task *task)
{
        struct span *span = container_of(task, struct span, task);
        span_answer(span, span->result);
}

/* Answer from the loop. */
static void span_end(struct span *span, int result)
{
        span->result = result;
        span->task.run = span_end_run;
        loop_post(span->pool->loop, &span->task);
}

/* Leave the order of overlapping writes. */
static void span_leave(struct span *span)
{
        if (span->nested)
                return;
        range_unlock(span->root, &span->range);
        write_end(span->root);
}

static void span_committed(struct commit_wait *wait, int result)
{
        span_answer(container_of(wait, struct span, wait), result);
}

static void span_written(struct span *span)
{
        span_unadmit(span);
        span_leave(span);
        if (span->result == 0 && (span->fua || span->logged)) {
                span->wait.done = span_committed;
                if (span->fua)
                        commit_async(span->pool, &span->wait);
                else
                        logged_async(span->pool, &span->wait);
                return;
        }
        span_answer(span, span->result);
}

static void span_finish(struct span *span)
{
        if (span->write)
                span_written(span);
        else
                span_answer(span, span->result);
}

static void span_finish_run(struct loop_task *task)
{
        span_finish(container_of(task, struct span, task));
}

void chunk_done(struct chunk *chunk, int result)
{
        struct span *span = chunk->span;
        if (result < 0 && span->result == 0)
                span->result = result;
        if (--span->pending == 0)
                span_finish(span);
}

/* All chunks are under way. Where they have all ended already, the answer still comes from the
 * loop. */
static void span_submitted(struct span *span)
{
        if (--span->pending)
                return;
        span->task.run = span_finish_run;
        loop_post(span->pool->loop, &span->task);
}

static void span_write_locked(struct span *span)
{
        bool for_log = false;
        int r = span->n_chunks ? 0 : span_split(span);
        if (r == 0) {
                span_needs(span);
                if (!span_admit(span, &for_log))
                        r = -ENOSPC;
        }
        if (r < 0) {
                span_leave(span);
                if (r == -ENOSPC)
                        span_stall(span, for_log);
                else
                        span_end(span, r);
                return;
        }
        unsigned taken = 0;
        while (taken < span->n_chunks && (r = chunk_write_take(span_chunk(span, taken))) == 0)
                taken++;
        if (r < 0) {
                while (taken > 0)
                        chunk_write_untake(span_chunk(span, --taken));
                span_unadmit(span);
                span_leave(span);
                if (r == -ENOSPC)
                        span_stall(span, false);
                else
                        span_end(span, r);
                return;
        }
        span->pending = span->n_chunks + 1;
        for (unsigned i = 0; i < span->n_chunks; i++)
                chunk_write(span_chunk(span, i));
        span_submitted(span);
}

static void span_granted_run(struct loop_task *task)
{
        span_write_locked(container_of(task, struct span, task));
}

static void span_granted(struct range *range)
{
        struct span *span = container_of(range, struct span, range);
        span->task.run = span_granted_run;
        loop_post(span->pool->loop, &span->task);
}

static void span_write_start(struct span *span)
{
        struct pool *pool = span->pool;
        if (pool_failed(pool) || pool->readonly) {
                span_end(span, pool_failed(pool) ? -EIO : -EROFS);
                return;
        }
        if (span->nested) {
                span_write_locked(span);
                return;
        }
        if (span->root->n_holds) {
                list_append(&span->root->held, &span->link);
                return;
        }
        if ((span->block + span->n) * BLOCK > span->root->body->size_bytes) {
                span_end(span, -EINVAL); /* the volume was shrunk while it waited */
                return;
        }
        span->root->n_writes++;
        span->range = (struct range){
            .first = span->block, .last = span->block + span->n - 1, .grant = span_granted};
        if (range_lock(span->root, &span->range))
                span_write_locked(span);
}

/* ---- reads ---- */

static void span_read_start(struct span *span)
{
        int r = span_split(span);
        if (r < 0) {
                span_end(span, r);
                return;
        }
        span->pending = span->n_chunks + 1;
        for (unsigned i = 0; i < span->n_chunks; i++)
                chunk_read(span_chunk(span, i));
        span_submitted(span);
}

void span_start(struct span *span)
{
        if (span->write)
                span_write_start(span);
        else
                span_read_start(span);
}

/* ---- for coroutines ---- */

struct co_span {
        struct co *co;
        int result;
        bool done;
};

static void co_span_done(struct span *span, int result)
{
        struct co_span *wait = span->arg;
        wait->result = result;
        wait->done = true;
        co_wake(wait->co);
}

static int co_span(struct pool *pool, struct root *root, bool write, bool nested, uint64_t block,
                   uint32_t n, void *buffer)
{
        struct co_span wait = {.co = co_self()};
        struct span *span = span_new(pool, root);
        if (!span)
                return -ENOMEM;
        span->write = write;
        span->nested = nested;
        span->block = block;
        span->n = n;
        span->one = (struct iovec){buffer, (size_t)n * BLOCK};
        span->iov = &span->one;
        span->n_iov = 1;
        span->done = co_span_done;
        span->arg = &wait;
        span_start(span);
        while (!wait.done)
                co_suspend();
        return wait.result;
}

int co_span_read(struct pool *pool, struct root *root, uint64_t block, uint32_t n, void *buffer)
{
        return co_span(pool, root, false, false, block, n, buffer);
}

int co_span_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n,
                  const void *buffer, bool nested)
{
        return co_span(pool, root, true, nested, block, n, (void *)buffer);
}
