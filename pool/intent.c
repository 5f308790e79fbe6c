/* intent.c - the log: records into pages, pages onto the ring, flush rounds.
 *
 * A flush round writes the sealed pages to both legs, waits, and then flushes every member that has
 * unflushed writes, all at once. Requests that come meanwhile wait for the next round, which serves
 * them all: one round, and at most one flush a member, for each guest flush [I2]. */
#include <errno.h>
#include <stdlib.h>
#include "pool/codec.h"

#define SPARE_PAGES 16u
#define UNMARKED_KICK                                                                              \
        4096u /* blocks; a background round keeps the tail that a recovery must read small */

/* ---- pages ---- */

static struct log_page *page_new(struct intent_log *log)
{
        if (log->n_spare) {
                struct log_page *page = container_of(log->spare.next, struct log_page, link);
                list_remove(&page->link);
                log->n_spare--;
                memset(page->disk, 0, BLOCK);
                return page;
        }
        struct log_page *page = calloc(1, sizeof(*page));
        if (!page)
                return NULL;
        list_init(&page->link);
        page->disk = page_alloc();
        if (!page->disk) {
                free(page);
                return NULL;
        }
        return page;
}

static void page_retire(struct intent_log *log, struct log_page *page, unsigned keep)
{
        list_remove(&page->link);
        if (log->n_spare >= keep) {
                free(page->disk);
                free(page);
                return;
        }
        list_append(&log->spare, &page->link);
        log->n_spare++;
}

struct leg *log_page_legs(struct pool *pool, uint64_t sequence, unsigned *ret_n_legs,
                          uint64_t *ret_shift)
{
        uint32_t at = (uint32_t)(sequence % pool->log.ring_pages);
        struct slab *slab = pool->log.slab[at / pool->slab_blocks];
        *ret_n_legs = slab->n_legs;
        *ret_shift = (uint64_t)(at % pool->slab_blocks) * BLOCK;
        return slab->leg;
}

int log_init(struct pool *pool, const struct super *super, struct error *err)
{
        struct intent_log *log = &pool->log;
        log->n_slabs = super->log_pages / pool->slab_blocks;
        log->ring_pages = super->log_pages;
        log->incarnation = super->log_incarnation;
        log->start = log->next = super->log_start;
        log->chain = super->log_chain;
        log->next_record = log->mark = super->next_record;
        log->slab = calloc(log->n_slabs, sizeof(*log->slab));
        log->open = page_new(log);
        if (!log->slab || !log->open)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < pool->n_slabs; i++) {
                struct slab *slab = pool->slab[i];
                if (slab->kind != SLAB_LOG)
                        continue;
                if (slab->log_index >= log->n_slabs || log->slab[slab->log_index])
                        return error_set(err, -EUCLEAN,
                                         "slab %u has an impossible place in the log", i);
                log->slab[slab->log_index] = slab;
        }
        for (uint32_t i = 0; i < log->n_slabs; i++)
                if (!log->slab[i])
                        return error_set(err, -EUCLEAN, "slab %u of the log is missing", i);
        return 0;
}

void log_destroy(struct pool *pool)
{
        struct intent_log *log = &pool->log;
        if (!log->sealed.next)
                return;
        list_splice(&log->spare, &log->sealed);
        if (log->open)
                page_retire(log, log->open, 0);
        list_for_each_safe (it, &log->spare)
                page_retire(log, container_of(it, struct log_page, link), 0);
        free(log->slab);
}

/* ---- records ---- */

void log_seal(struct pool *pool)
{
        struct intent_log *log = &pool->log;
        if (log->open_used == 0 || pool->readonly)
                return;
        struct log_page *page = log->open, *next = page_new(log);
        if (!next) {
                pool_fail(pool, "out of memory for the log");
                log->open_used = 0;
                return;
        }
        struct log_page_disk *d = page->disk;
        page->sequence = log->next;
        d->magic = le32_make(LOG_MAGIC);
        memcpy(d->pool_uuid, pool->uuid, 16);
        d->incarnation = le64_make(log->incarnation);
        d->generation = le64_make(pool->generation);
        d->epoch = le64_make(pool->epoch);
        d->sequence = le64_make(log->next);
        d->mark = le64_make(log->mark);
        d->first_record = le64_make(log->open_first);
        d->chain = le32_make(log->chain);
        d->used = le16_make((uint16_t)log->open_used);
        uint32_t crc = crc32c(0, (char *)d + 8, BLOCK - 8);
        d->crc32c = le32_make(crc);
        log->chain = crc;
        log->next++;
        list_append(&log->sealed, &page->link);
        log->open = next;
        log->open_used = 0;
}

void *log_append(struct pool *pool, size_t length, uint8_t type, uint8_t flags)
{
        struct intent_log *log = &pool->log;
        const size_t room = sizeof(log->open->disk->records);
        length = (length + 7) & ~(size_t)7;
        assert(length <= room);
        if (log->open_used + length > room)
                log_seal(pool);
        if (log->open_used == 0)
                log->open_first = log->next_record;
        struct log_head_disk *head = (void *)(log->open->disk->records + log->open_used);
        memset(head, 0, length);
        head->type = type;
        head->flags = flags;
        head->length = le16_make((uint16_t)length);
        log->open_used += (uint32_t)length;
        log->next_record++;
        return head;
}

void log_append_write(struct pool *pool, uint64_t root_id, uint64_t block, uint64_t address,
                      uint32_t n, const uint32_t *crc)
{
        struct log_write_disk *d = log_append(pool, LOG_WRITE_BYTES(n), LOG_WRITE, 0);
        d->n_blocks = le32_make(n);
        d->root_id = le64_make(root_id);
        d->block = le64_make(block);
        d->address = le64_make(address);
        for (uint32_t i = 0; i < n; i++)
                d->crc32c[i] = le32_make(crc[i]);
        pool->log.unmarked_blocks += n;
        if (pool->log.unmarked_blocks >= UNMARKED_KICK)
                log_kick(pool);
}

/* ---- room ---- */

uint64_t log_pages_used(const struct pool *pool)
{
        return pool->log.next - pool->log.start + 1;
}

/* An eighth of the ring is kept for the catalog's records and for the pages that rounds leave half
 * full. */
bool log_has_room(struct pool *pool, size_t bytes)
{
        uint64_t pages = (pool->log.reserved_bytes + bytes) / 2048 + 1;
        return log_pages_used(pool) + pages + pool->log.ring_pages / 8 <= pool->log.ring_pages;
}

void log_advance(struct pool *pool, uint64_t start)
{
        struct intent_log *log = &pool->log;
        log->start = start;
        list_for_each_safe (it, &log->sealed) {
                struct log_page *page = container_of(it, struct log_page, link);
                if (page->sequence < start)
                        page_retire(log, page, SPARE_PAGES);
        }
}

/* ---- rounds ---- */

static void waiters_answer(struct list *waiters, int result)
{
        list_for_each_safe (it, waiters) {
                struct commit_wait *w = container_of(it, struct commit_wait, link);
                list_remove(it);
                w->result = result;
                if (w->co)
                        co_wake(w->co);
                else
                        w->done(w, result);
        }
}

static int co_pages_write(struct pool *pool)
{
        struct intent_log *log = &pool->log;
        struct frozen batch = {0};
        struct list writing = LIST_INIT(writing);
        int r = 0;
        while (!list_empty(&log->sealed) && r == 0) {
                struct log_page *page = container_of(log->sealed.next, struct log_page, link);
                if (page->sequence >= log->start + log->ring_pages) {
                        /* The ring is full: the checkpoint that empties it needs nothing of the
                         * log. */
                        if (!list_empty(&writing))
                                break;
                        checkpoint_kick(pool);
                        if (pool_failed(pool) || !pool->checkpoint_wanted)
                                return pool_fail(pool, "out of memory for a checkpoint");
                        co_checkpoint_wait(pool);
                        continue;
                }
                unsigned n_legs;
                uint64_t shift;
                struct leg *legs = log_page_legs(pool, page->sequence, &n_legs, &shift);
                r = frozen_add(&batch, page->disk, NULL, legs, n_legs, shift);
                list_remove(&page->link);
                list_append(&writing, &page->link);
        }
        if (r == 0)
                r = co_write_frozen(pool, &batch);
        free(batch.page);
        list_for_each_safe (it, &writing)
                page_retire(log, container_of(it, struct log_page, link), SPARE_PAGES);
        if (r < 0)
                return pool_fail(pool, "the log cannot be written");
        return list_empty(&log->sealed) ? 0 : 1;
}

static int co_open_page_write(struct pool *pool)
{
        int r;
        /* What a change that failed half way has left is not to be read again. */
        if (pool_failed(pool))
                return -EIO;
        log_seal(pool);
        /* Pages that are sealed while these are written belong to the next round, but writing them
         * is cheap. */
        do {
                r = co_pages_write(pool);
        } while (r > 0);
        return r < 0 || pool_failed(pool) ? -EIO : 0;
}

struct flush_job {
        struct pool *pool;
        bool done;
        int result;
};

static void flush_main(void *arg)
{
        struct flush_job *job = arg;
        struct pool *pool = job->pool;
        job->result = co_flush_members(pool);
        job->done = true;
        co_wake_one(&pool->log.idle);
        engine_coroutine_ends(pool);
}

/* Flush the members, and meanwhile write the pages of those who need no more than that. */
static int co_flush_meanwhile(struct pool *pool)
{
        struct intent_log *log = &pool->log;
        struct flush_job job = {.pool = pool};
        if (engine_spawn(pool, flush_main, &job) < 0)
                return co_flush_members(pool);
        while (!job.done) {
                struct list loggers = LIST_INIT(loggers);
                if (list_empty(&log->loggers)) {
                        co_wait(&log->idle);
                        continue;
                }
                list_splice(&loggers, &log->loggers);
                int r = co_open_page_write(pool);
                waiters_answer(&loggers, r);
        }
        return job.result;
}

/* Pages, and the members' flushes where @flush. @loggers are answered between the two. */
static int co_round(struct pool *pool, struct list *loggers, bool flush)
{
        struct intent_log *log = &pool->log;
        int r = co_open_page_write(pool);
        /* Only what is in pages that were written: a mark past a break in the chain is to prove
         * damage. Taken before others run, who may append more. */
        uint64_t covered = log->open_used ? log->open_first : log->next_record;
        uint64_t blocks = log->unmarked_blocks;
        waiters_answer(loggers, r);
        if (r < 0 || !flush)
                return r;
        r = co_flush_meanwhile(pool);
        if (r < 0)
                return r;
        log->mark = covered;
        log->unmarked_blocks -= blocks;
        return 0;
}

static bool round_is_due(const struct intent_log *log)
{
        return log->round_wanted || !list_empty(&log->waiters) || !list_empty(&log->loggers);
}

static void committer_main(void *arg)
{
        struct pool *pool = arg;
        struct intent_log *log = &pool->log;
        for (;;) {
                while (!round_is_due(log) && !log->stopping)
                        co_wait(&log->idle);
                if (!round_is_due(log))
                        break;
                struct list served = LIST_INIT(served), loggers = LIST_INIT(loggers);
                list_splice(&served, &log->waiters);
                list_splice(&loggers, &log->loggers);
                bool flush = log->round_wanted || !list_empty(&served);
                log->round_wanted = false;
                int r = co_round(pool, &loggers, flush);
                waiters_answer(&served, r);
                if (checkpoint_due(pool))
                        checkpoint_kick(pool);
        }
        log->running = false;
        co_wake_all(&log->stopped);
        engine_coroutine_ends(pool);
}

int log_start(struct pool *pool)
{
        pool->log.running = true;
        int r = engine_spawn(pool, committer_main, pool);
        if (r < 0)
                pool->log.running = false;
        return r;
}

void log_kick(struct pool *pool)
{
        if (!pool->log.running || pool->log.round_wanted)
                return;
        pool->log.round_wanted = true;
        co_wake_one(&pool->log.idle);
}

static void wait_enqueue(struct pool *pool, struct list *queue, struct commit_wait *w)
{
        list_append(queue, &w->link);
        co_wake_one(&pool->log.idle);
}

void commit_async(struct pool *pool, struct commit_wait *w)
{
        assert(pool->log.running);
        w->co = NULL;
        wait_enqueue(pool, &pool->log.waiters, w);
}

void logged_async(struct pool *pool, struct commit_wait *w)
{
        assert(pool->log.running);
        w->co = NULL;
        wait_enqueue(pool, &pool->log.loggers, w);
}

static int co_wait_in(struct pool *pool, struct list *queue)
{
        if (!pool->log.running)
                return pool_failed(pool) ? -EIO : 0;
        struct commit_wait w = {.co = co_self(), .result = 1};
        wait_enqueue(pool, queue, &w);
        while (w.result == 1)
                co_suspend();
        return w.result;
}

int co_commit(struct pool *pool)
{
        return co_wait_in(pool, &pool->log.waiters);
}

int co_logged(struct pool *pool)
{
        return co_wait_in(pool, &pool->log.loggers);
}

void co_log_stop(struct pool *pool)
{
        struct intent_log *log = &pool->log;
        log->stopping = true;
        co_wake_all(&log->idle);
        while (log->running)
                co_wait(&log->stopped);
}
