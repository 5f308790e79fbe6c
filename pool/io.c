/* io.c - requests of bytes on volumes: checks, and the way to whole blocks.
 *
 * Aligned reads and writes go straight to a span. The rest is done by coroutines: parts of blocks
 * are read, merged and written under an exclusive range; discards go in slices. */
#include <errno.h>
#include <stdlib.h>
#include "pool/crossing.h"
#include "pool/full.h"
#include "pool/span.h"
#include "pool/usage.h"

#define CLEAR_SLICE_BLOCKS                                                                         \
        (UINT64_C(64) * LEAF_BLOCKS) /* 64 MiB: a slice is one step without suspension */
#define BOUNCE_BLOCKS 256u
#define PART_BLOCKS   32u /* of a write: what admits none of these is full */

/* ---- counted from beginning to end ---- */

static void request_counted(struct volume_request *req)
{
        struct volume *v = req->volume;
        req->waited = false;
        req->began_ns = loop_time_ns(v->pool->loop);
        meter_queue_begin(&v->meter.queue, req->began_ns);
        meter_queue_begin(&v->root->usage->queue, req->began_ns);
}

static void request_answer(struct volume_request *req, int result)
{
        struct volume *v = req->volume;
        if (result == -ENOSPC && req->op != VOLUME_READ && (result = full_wait(req)) == 0)
                return;
        if (result == 0 && req->waited)
                full_written(v->pool);
        uint64_t now_ns = loop_time_ns(v->pool->loop);
        meter_count(&v->meter.line[req->op], req->op == VOLUME_FLUSH ? 0 : req->length, result,
                    now_ns - req->began_ns);
        meter_queue_end(&v->meter.queue, now_ns);
        meter_queue_end(&v->root->usage->queue, now_ns);
        req->done(req, result);
}

static void request_end_run(struct loop_task *task)
{
        struct volume_request *req = container_of(task, struct volume_request, task);
        request_answer(req, req->result);
}

void request_end(struct volume_request *req, int result)
{
        req->result = result;
        req->task = (struct loop_task){.run = request_end_run};
        loop_post(req->volume->pool->loop, &req->task);
}

/* ---- parts of blocks ---- */

static void iov_copy(const struct volume_request *req, uint64_t at, void *memory, size_t n,
                     bool to_memory)
{
        const struct iovec *iov = req->iov;
        while (at >= iov->iov_len)
                at -= iov++->iov_len;
        for (; n; iov++, at = 0) {
                size_t here = min_u64(iov->iov_len - at, n);
                char *piece = (char *)iov->iov_base + at;
                if (to_memory)
                        memcpy(memory, piece, here);
                else
                        memcpy(piece, memory, here);
                memory = (char *)memory + here;
                n -= here;
        }
}

/* One window of blocks: the request's bytes in it are [from, to) of the volume. */
struct window {
        uint64_t block;
        uint32_t n;
        uint64_t from, to;
};

static struct window window_at(const struct volume_request *req, uint64_t from, uint64_t max_blocks)
{
        uint64_t end = req->offset + req->length;
        struct window w = {.block = from / BLOCK, .from = from};
        w.to = min_u64((w.block + max_blocks) * BLOCK, end);
        w.n = (uint32_t)((w.to + BLOCK - 1) / BLOCK - w.block);
        return w;
}

static int co_read_window(struct volume_request *req, const struct window *w, char *bounce)
{
        struct volume *v = req->volume;
        int r = co_span_read(v->pool, v->root, w->block, w->n, bounce);
        /* Blocks that could not be read are zeroes in the bounce buffer: nothing else may reach the
         * caller. */
        iov_copy(req, w->from - req->offset, bounce + (w->from - w->block * BLOCK), w->to - w->from,
                 false);
        return r;
}

/* The blocks at both ends that the request covers only in part are read first. */
static int co_write_window(struct volume_request *req, const struct window *w, char *bounce)
{
        struct volume *v = req->volume;
        uint64_t start = w->block * BLOCK, end = start + (uint64_t)w->n * BLOCK;
        int r = 0;
        if (w->from != start)
                r = co_span_read(v->pool, v->root, w->block, 1, bounce);
        if (r == 0 && w->to != end && (w->n > 1 || w->from == start))
                r = co_span_read(v->pool, v->root, w->block + w->n - 1, 1,
                                 bounce + (size_t)(w->n - 1) * BLOCK);
        if (r < 0)
                return r;
        iov_copy(req, w->from - req->offset, bounce + (w->from - start), w->to - w->from, true);
        return co_span_write(v->pool, v->root, w->block, w->n, bounce, true);
}

/* Counted as a write, which a shrink waits for: was there one before that? */
static int still_inside(const struct root *root, uint64_t end)
{
        return end <= root->body->size_bytes ? 0 : -EINVAL;
}

static int co_bounce(struct volume_request *req)
{
        struct root *root = req->volume->root;
        uint64_t end = req->offset + req->length;
        uint64_t n = min_u64((end - 1) / BLOCK - req->offset / BLOCK + 1, BOUNCE_BLOCKS);
        /* No more than it takes: the C library maps and unmaps what is large, and that costs more
         * than the rest of a request of one sector. */
        char *bounce = aligned_alloc(BLOCK, n * BLOCK);
        if (!bounce)
                return -ENOMEM;
        if (req->op == VOLUME_READ) /* what one that ends early leaves reaches the caller */
                memset(bounce, 0, n * BLOCK);
        int r = 0;
        struct co_range range = {
            .range = {.first = req->offset / BLOCK, .last = (end - 1) / BLOCK, .exclusive = true}};
        bool write = req->op == VOLUME_WRITE;
        if (write) {
                co_write_begin(root);
                co_range_lock(root, &range);
                r = still_inside(root, end);
        }
        for (uint64_t at = req->offset; at < end && (r == 0 || !write);) {
                struct window w = window_at(req, at, n);
                int one =
                    write ? co_write_window(req, &w, bounce) : co_read_window(req, &w, bounce);
                if (write && one == -ENOSPC && n > PART_BLOCKS && root->parent) {
                        n = PART_BLOCKS;
                        continue;
                }
                r = r < 0 ? r : one;
                at = w.to;
        }
        if (write) {
                range_unlock(root, &range.range);
                write_end(root);
        }
        free(bounce);
        return r;
}

/* ---- discards ---- */

int co_metadata_admit(struct pool *pool, uint64_t blocks, bool worker)
{
        for (uint64_t began = pool->n_checkpoints;;) {
                if (pool_failed(pool))
                        return -EIO;
                if (pool->readonly)
                        return -EROFS;
                if (metadata_available(pool) >= (int64_t)blocks && log_has_room(pool, BLOCK))
                        return 0;
                maker_kick(pool);
                bool for_log = !log_has_room(pool, BLOCK);
                if (worker && pool->closing)
                        return -ECANCELED;
                if (!for_log && pool->n_checkpoints > began + 1 && !space_may_come(pool, !worker) &&
                    !pool->metadata_reserved)
                        return -ENOSPC;
                if (pool->hold_frees)
                        pool->check_disturbed = true;
                if (pool->maker_running)
                        co_wait(&pool->maker_done);
                else if (co_checkpoint(pool, NULL) < 0)
                        return -EIO;
                else
                        co_sleep_ns(1000000); /* readers let go */
        }
}

/* The paths at both ends, copied; and all that goes, nodes too, in lists. */
static uint64_t clear_needs(struct pool *pool, struct root *root, uint64_t n)
{
        const uint64_t paths = UINT64_C(2) * HEIGHT_MAX;
        return paths + 2 + CATALOG_BLOCKS_ONE +
               deadlist_needs(pool, root, n + n / (LEAF_BLOCKS / 2) + paths);
}

/* A guest's discard leaves some for deletions: what it lists comes back only with these. */
static uint64_t clear_leaves(const struct pool *pool, bool worker)
{
        return worker ? 0 : metadata_reserve(pool) / 4;
}

uint64_t clear_slice_blocks(struct pool *pool, struct root *root, uint64_t first, bool worker)
{
        uint64_t n = CLEAR_SLICE_BLOCKS;
        int64_t available = metadata_available(pool) - (int64_t)clear_leaves(pool, worker);
        while (n > 1 && available < (int64_t)clear_needs(pool, root, n))
                n /= 4;
        return n - first % min_u64(n, LEAF_BLOCKS);
}

int co_root_clear(struct pool *pool, struct root *root, uint64_t first, uint64_t n, uint8_t type,
                  bool worker)
{
        uint64_t blocks = clear_needs(pool, root, n);
        int r = co_metadata_admit(pool, blocks + clear_leaves(pool, worker), worker);
        if (r < 0)
                return r;
        bool changed = false;
        /* Promised: others are admitted while this one waits for nodes of the map. */
        pool->metadata_reserved += blocks;
        r = co_map_clear(pool, root, first, n, type, &changed);
        pool->metadata_reserved -= blocks;
        cache_trim(pool, TRIM_A_CHANGE);
        if (changed && !pool_failed(pool)) { /* [sync] with the change */
                struct log_clear_disk *c = log_append(pool, sizeof(*c), LOG_CLEAR, 0);
                c->type = le32_make(type);
                c->root_id = le64_make(root->id);
                c->block = le64_make(first);
                c->n_blocks = le64_make(n);
        }
        if (checkpoint_due(pool))
                checkpoint_kick(pool);
        return r;
}

int co_root_zero_part(struct pool *pool, struct root *root, uint64_t offset, uint64_t length,
                      uint8_t type, bool behind)
{
        char *page = page_alloc();
        if (!page)
                return -ENOMEM;
        uint64_t block = offset / BLOCK;
        struct co_range range = {.range = {.first = block, .last = block, .exclusive = true}};
        co_write_begin(root);
        co_range_lock(root, &range);
        int r = behind ? 0 : still_inside(root, offset + length);
        if (r == 0)
                r = co_span_read(pool, root, block, 1, page);
        if (r == 0 && !bytes_are_zero(page + offset % BLOCK, length)) {
                memset(page + offset % BLOCK, 0, length);
                r = bytes_are_zero(page, BLOCK)
                        ? co_root_clear(pool, root, block, 1, root_hole_type(root, block, type),
                                        false)
                        : co_span_write(pool, root, block, 1, page, true);
        }
        range_unlock(root, &range.range);
        write_end(root);
        free(page);
        return r;
}

/* Where a hole that need not be changed ends, if one stands for more than a block: most of a large
 * volume may be one. */
static uint64_t clear_skip(struct volume *v, uint64_t first, uint8_t type)
{
        struct entry e;
        unsigned level = tree_cover(v->pool, &v->root->body->map, first, &e);
        bool shows = first < root_base_end(v->root);
        bool noop = e.type == type || (e.type == ENTRY_ABSENT && !shows);
        return noop && level > 0 ? (first / tree_span(level) + 1) * tree_span(level) : first;
}

static int co_clear_blocks(struct volume *v, uint64_t first, uint64_t end, uint8_t wanted)
{
        int r = 0;
        while (first < end && r == 0) {
                uint8_t type = root_hole_type(v->root, first, wanted);
                uint64_t next = clear_skip(v, first, type);
                if (next > first) {
                        first = next;
                        continue;
                }
                uint64_t n =
                    min_u64(end - first, clear_slice_blocks(v->pool, v->root, first, false));
                struct co_range range = {.range = {.first = first, .last = first + n - 1}};
                co_write_begin(v->root);
                co_range_lock(v->root, &range);
                r = still_inside(v->root, (first + n) * BLOCK);
                if (r == 0)
                        r = co_root_clear(v->pool, v->root, first, n, type, false);
                range_unlock(v->root, &range.range);
                write_end(v->root);
                first += n;
                if (first < end)
                        co_yield_loop(); /* a long one holds up nobody else */
        }
        return r;
}

static int co_clear(struct volume_request *req)
{
        struct volume *v = req->volume;
        uint8_t type = req->op == VOLUME_ZERO ? ENTRY_ZERO : ENTRY_ABSENT;
        uint64_t at = req->offset, end = req->offset + req->length;
        int r = 0;
        if (at % BLOCK) {
                uint64_t n = min_u64(BLOCK - at % BLOCK, end - at);
                r = co_root_zero_part(v->pool, v->root, at, n, type, false);
                at += n;
        }
        if (r == 0 && at / BLOCK < end / BLOCK)
                r = co_clear_blocks(v, at / BLOCK, end / BLOCK, type);
        if (r == 0 && end % BLOCK && at < end) {
                uint64_t tail = max_u64(end / BLOCK * BLOCK, at);
                r = co_root_zero_part(v->pool, v->root, tail, end - tail, type, false);
        }
        return r;
}

static void co_request(void *arg)
{
        struct volume_request *req = arg;
        struct pool *pool = req->volume->pool;
        int r = req->op == VOLUME_READ || req->op == VOLUME_WRITE ? co_bounce(req) : co_clear(req);
        if (r == 0 && (req->flags & VOLUME_FUA) && req->op != VOLUME_READ)
                r = co_commit(pool);
        else if (r == 0 && (req->flags & VOLUME_LOGGED) && req->op != VOLUME_READ)
                r = co_logged(pool);
        pool->n_spans--;
        if (pool->n_spans == 0)
                co_wake_all(&pool->idle);
        request_answer(req, r);
        engine_coroutine_ends(pool);
}

static void request_spawn(struct volume_request *req)
{
        struct pool *pool = req->volume->pool;
        int r = engine_spawn(pool, co_request, req);
        if (r < 0)
                request_end(req, r);
        else
                pool->n_spans++;
}

/* ---- submission ---- */

/* In a volume with many snapshots a large write may want more metadata at once than there is, and
 * uses next to nothing of it: co_bounce() does it in parts. (Whether that was what it lacked is not to
 * be told by now.) */
static void request_span_done(struct span *span, int result)
{
        struct volume_request *req = span->arg;
        if (result == -ENOSPC && span->root->parent && span->n > PART_BLOCKS)
                request_spawn(req);
        else
                request_answer(req, result);
}

static void request_committed(struct commit_wait *wait, int result)
{
        struct span *span = container_of(wait, struct span, wait);
        span->done(span, result);
        span_put(span);
}

static void flush_submit(struct volume_request *req)
{
        struct pool *pool = req->volume->pool;
        if (pool->readonly || pool_failed(pool)) {
                request_end(req, pool_failed(pool) ? -EIO : 0);
                return;
        }
        struct span *span = span_new(pool, req->volume->root);
        if (!span) {
                request_end(req, -ENOMEM);
                return;
        }
        span->done = request_span_done;
        span->arg = req;
        span->wait.done = request_committed;
        commit_async(pool, &span->wait);
}

static bool request_is_direct(const struct volume_request *req)
{
        if (((req->offset | req->length) & (BLOCK - 1)) || (req->flags & VOLUME_UNSTABLE))
                return false;
        for (unsigned i = 0; i < req->n_iov; i++)
                if (((uintptr_t)req->iov[i].iov_base & (MEMBER_BUFFER_ALIGN - 1)) ||
                    (req->iov[i].iov_len & (BLOCK - 1)) || req->iov[i].iov_len == 0)
                        return false;
        return true;
}

static void direct_submit(struct volume_request *req)
{
        struct volume *v = req->volume;
        struct span *span = span_new(v->pool, v->root);
        if (!span) {
                request_end(req, -ENOMEM);
                return;
        }
        span->write = req->op == VOLUME_WRITE;
        span->fua = span->write && (req->flags & VOLUME_FUA);
        span->logged = span->write && (req->flags & VOLUME_LOGGED);
        span->crossing = v->crossing;
        span->block = req->offset / BLOCK;
        span->n = req->length / BLOCK;
        span->iov = req->iov;
        span->n_iov = req->n_iov;
        span->done = request_span_done;
        span->arg = req;
        span_start(span);
}

static int request_check(const struct volume *v, const struct volume_request *req)
{
        uint64_t size = v->root->body->size_bytes;
        if (req->op == VOLUME_FLUSH)
                return 0;
        if (req->offset > size || req->length > size - req->offset)
                return -EINVAL;
        if (req->op != VOLUME_READ && volume_is_readonly(v))
                return -EPERM;
        if ((req->op == VOLUME_READ || req->op == VOLUME_WRITE) && req->length > VOLUME_REQUEST_MAX)
                return -EINVAL;
        return 0;
}

static void request_run(struct volume_request *req)
{
        if (req->op == VOLUME_FLUSH)
                flush_submit(req);
        else if (req->length == 0)
                request_end(req, 0);
        else if ((req->op == VOLUME_READ || req->op == VOLUME_WRITE) && request_is_direct(req))
                direct_submit(req);
        else
                request_spawn(req);
}

void request_begin(struct volume_request *req)
{
        request_counted(req);
        int r = request_check(req->volume, req);
        if (r < 0)
                request_end(req, r);
        else if (usage_admit(req))
                request_run(req);
}

void volume_submit(struct volume *v, struct volume_request *req)
{
        req->volume = v;
        if (v->crossing)
                crossing_submit(v->crossing, req);
        else
                request_begin(req);
}

void request_start(struct volume_request *req)
{
        int r = request_check(req->volume, req); /* the volume may have been shrunk meanwhile */
        if (r < 0)
                request_end(req, r);
        else
                request_run(req);
}

/* ---- for coroutines ---- */

struct co_request_wait {
        struct volume_request req;
        struct co *co;
        bool done;
        int result;
};

static void co_request_done(struct volume_request *req, int result)
{
        struct co_request_wait *w = container_of(req, struct co_request_wait, req);
        w->result = result;
        w->done = true;
        co_wake(w->co);
}

static int co_request_run(struct volume *v, enum volume_op op, void *buffer, uint64_t length,
                          uint64_t offset, unsigned flags)
{
        struct iovec iov = {buffer, length};
        struct co_request_wait w = {.co = co_self()};
        w.req = (struct volume_request){.op = op,
                                        .flags = flags,
                                        .offset = offset,
                                        .length = length,
                                        .iov = &iov,
                                        .n_iov = 1,
                                        .done = co_request_done};
        struct loop *from = co_move(v->pool->loop);
        w.req.volume = v;
        request_begin(&w.req);
        while (!w.done)
                co_suspend();
        co_move(from);
        return w.result;
}

int co_volume_read(struct volume *v, void *buffer, uint64_t length, uint64_t offset)
{
        return co_request_run(v, VOLUME_READ, buffer, length, offset, 0);
}

int co_volume_write(struct volume *v, const void *buffer, uint64_t length, uint64_t offset,
                    unsigned flags)
{
        return co_request_run(v, VOLUME_WRITE, (void *)buffer, length, offset, flags);
}

int co_volume_flush(struct volume *v)
{
        return co_request_run(v, VOLUME_FLUSH, NULL, 0, 0, 0);
}

int co_volume_discard(struct volume *v, uint64_t offset, uint64_t length, unsigned flags)
{
        return co_request_run(v, VOLUME_DISCARD, NULL, length, offset, flags);
}

int co_volume_zero(struct volume *v, uint64_t offset, uint64_t length, unsigned flags)
{
        return co_request_run(v, VOLUME_ZERO, NULL, length, offset, flags);
}
