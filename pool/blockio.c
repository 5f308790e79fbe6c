/* blockio.c - blocks of metadata on their legs, batches of operations, flushes. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "pool/engine.h"
#include "pool/full.h"

#define BATCH_MAX 64u /* operations in flight for one coroutine */

void *page_alloc(void)
{
        void *page = aligned_alloc(BLOCK, BLOCK);
        return page ? memset(page, 0, BLOCK) : NULL;
}

int pool_fail(struct pool *pool, const char *format, ...)
{
        if (pool_failed(pool))
                return -EIO;
        va_list ap;
        va_start(ap, format);
        vsnprintf(pool->failed, sizeof(pool->failed), format, ap);
        va_end(ap);
        log_error("pool '%s' has stopped writing: %s; it can be read, and goes on when it is "
                  "opened again",
                  pool->name, pool->failed);
        pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_STOPPED, .sentence = pool->failed});
        stalled_wake(pool);
        full_give_up(pool);
        return -EIO;
}

/* ---- many operations, one coroutine ---- */

struct batch {
        struct co *co;
        size_t in_flight;
        bool waiting;
};

static void batch_done(struct member_io *io, int result)
{
        struct batch_io *b = container_of(io, struct batch_io, io);
        struct batch *batch = b->batch;
        b->result = result;
        if (io->op == MEMBER_WRITE && result == 0)
                b->disk->writes_done++;
        /* After a failed flush the kernel may have dropped the pages: it is never tried again. Nor
         * may another one, which ends before the others of this batch do, be taken for a good one. */
        if (io->op == MEMBER_FLUSH && result < 0 && b->pool)
                pool_fail(b->pool, "a flush of member '%s' failed: %s", b->disk->member->path,
                          strerror(-result));
        batch->in_flight--;
        if (batch->waiting) {
                batch->waiting = false;
                co_wake(batch->co);
        }
}

static void batch_wait(struct batch *batch, size_t at_most)
{
        while (batch->in_flight > at_most) {
                batch->waiting = true;
                co_suspend();
        }
}

void co_batch(struct batch_io *ios, size_t n)
{
        struct batch batch = {.co = co_self()};
        for (size_t i = 0; i < n; i++) {
                struct batch_io *b = &ios[i];
                batch_wait(&batch, BATCH_MAX - 1);
                b->batch = &batch;
                b->iov.iov_len = b->io.length;
                b->io.iov = &b->iov;
                b->io.n_iov = 1;
                b->io.done = batch_done;
                batch.in_flight++;
                member_submit(b->disk->member, &b->io);
        }
        batch_wait(&batch, 0);
}

int co_disk_write(struct disk *disk, const void *buffer, size_t length, uint64_t offset)
{
        int r = co_member_write(disk->member, buffer, length, offset);
        if (r == 0)
                disk->writes_done++;
        return r;
}

/* ---- addresses ---- */

struct slab *address_slab(struct pool *pool, uint64_t address)
{
        uint64_t index = address >> pool->slab_shift;
        return index < pool->n_slabs ? pool->slab[index] : NULL;
}

uint64_t leg_offset(const struct slab *slab, unsigned leg, uint64_t address, uint32_t slab_blocks)
{
        return slab->leg[leg].offset + (address & (slab_blocks - 1)) * BLOCK;
}

/* ---- metadata ---- */

int co_legs_read(struct pool *pool, const struct leg *leg, unsigned n_legs, uint64_t shift,
                 uint32_t crc, void *page, const char *what)
{
        int r = -EIO;
        for (unsigned i = 0; i < n_legs; i++) {
                struct disk *disk = pool->disk[leg[i].member];
                uint64_t offset = leg[i].offset + shift;
                r = co_member_read(disk->member, page, BLOCK, offset);
                if (r == 0 && crc32c(0, page, BLOCK) == crc) {
                        /* The legs tried before this one are bad: mend them with what is right. */
                        for (unsigned k = 0;
                             k < i && !pool->readonly && !pool->options.held && !pool_failed(pool);
                             k++)
                                if (co_disk_write(pool->disk[leg[k].member], page, BLOCK,
                                                  leg[k].offset + shift) == 0)
                                        pool->repaired_errors++;
                        return 0;
                }
                pool_tell(pool, &(struct pool_event){
                                    .kind = r == 0 ? POOL_EVENT_CHECKSUM : POOL_EVENT_MEMBER,
                                    .sentence = r == 0 ? "a block of metadata fails its checksum"
                                                       : "a block of metadata cannot be read",
                                    .member = disk->member->path,
                                    .member_offset = offset});
                if (r == 0) {
                        pool->checksum_errors++;
                        log_error("pool '%s': %s fails its checksum on member '%s' at byte %llu",
                                  pool->name, what, disk->member->path, (unsigned long long)offset);
                } else {
                        log_error("pool '%s': cannot read %s on member '%s' at byte %llu: %s",
                                  pool->name, what, disk->member->path, (unsigned long long)offset,
                                  strerror(-r));
                }
        }
        return r == 0 ? -EUCLEAN : r;
}

int co_metadata_read(struct pool *pool, uint64_t address, uint32_t crc, void *page)
{
        struct slab *slab = address_slab(pool, address);
        if (!slab || slab->kind != SLAB_METADATA) {
                log_error("pool '%s': a map names block %llu, which is no metadata", pool->name,
                          (unsigned long long)address);
                return -EUCLEAN;
        }
        uint64_t shift = (address & (pool->slab_blocks - 1)) * BLOCK;
        return co_legs_read(pool, slab->leg, slab->n_legs, shift, crc, page, "a metadata block");
}

/* ---- frozen pages ---- */

int frozen_add(struct frozen *f, void *page, struct node *node, const struct leg *legs,
               unsigned n_legs, uint64_t shift)
{
        if (f->n == f->room) {
                size_t room = f->room ? f->room * 2 : 64;
                struct frozen_page *grown = realloc(f->page, room * sizeof(*grown));
                if (!grown) {
                        f->failed = true;
                        return -ENOMEM;
                }
                f->page = grown;
                f->room = room;
        }
        struct frozen_page *p = &f->page[f->n++];
        *p = (struct frozen_page){.page = page, .node = node, .n_targets = n_legs};
        for (unsigned i = 0; i < n_legs; i++)
                p->target[i] = (struct leg){legs[i].member, legs[i].offset + shift};
        return 0;
}

static void write_error_report(struct pool *pool, const struct batch_io *b)
{
        const char *path = b->disk->member->path;
        log_error("pool '%s': cannot write metadata on member '%s' at byte %llu: %s", pool->name,
                  path, (unsigned long long)b->io.offset, strerror(-b->result));
        pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_MEMBER,
                                             .sentence = "a block of metadata cannot be written",
                                             .member = path,
                                             .member_offset = b->io.offset});
}

/* One window of pages, all their legs at once. */
static int co_write_window(struct pool *pool, const struct frozen_page *pages, size_t n,
                           struct batch_io *ios)
{
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
                for (unsigned t = 0; t < pages[i].n_targets; t++, k++) {
                        ios[k] = (struct batch_io){.disk = pool->disk[pages[i].target[t].member]};
                        ios[k].io.op = MEMBER_WRITE;
                        ios[k].io.offset = pages[i].target[t].offset;
                        ios[k].io.length = BLOCK;
                        ios[k].iov.iov_base = pages[i].page;
                }
        }
        co_batch(ios, k);
        k = 0;
        for (size_t i = 0; i < n; i++) {
                bool written = false;
                for (unsigned t = 0; t < pages[i].n_targets; t++, k++) {
                        if (ios[k].result == 0)
                                written = true;
                        else
                                write_error_report(pool, &ios[k]);
                }
                if (!written)
                        return pool_fail(pool, "a block of metadata could be written to no member");
        }
        return 0;
}

int co_write_frozen(struct pool *pool, const struct frozen *f)
{
        enum { WINDOW = 64 };
        struct batch_io *ios = calloc(WINDOW * SLAB_LEGS_MAX, sizeof(*ios));
        if (!ios)
                return -ENOMEM;
        int r = 0;
        for (size_t i = 0; i < f->n && r == 0; i += WINDOW)
                r = co_write_window(pool, &f->page[i], min_u64(WINDOW, f->n - i), ios);
        free(ios);
        return r;
}

void frozen_release(struct pool *pool, struct frozen *f)
{
        for (size_t i = 0; i < f->n; i++) {
                if (f->page[i].node)
                        node_unpin(pool, f->page[i].node);
                else
                        free(f->page[i].page);
        }
        free(f->page);
        *f = (struct frozen){0};
}

int co_slab_write_out(struct pool *pool, const struct slab *slab)
{
        const size_t chunk = min_u64(1 << 20, (uint64_t)pool->slab_blocks * BLOCK);
        void *zeroes = aligned_alloc(BLOCK, chunk);
        if (!zeroes)
                return -ENOMEM;
        memset(zeroes, 0, chunk);
        int r = 0;
        for (uint64_t at = 0; at < (uint64_t)pool->slab_blocks * BLOCK && r == 0; at += chunk) {
                struct batch_io ios[SLAB_LEGS_MAX];
                for (unsigned i = 0; i < slab->n_legs; i++) {
                        ios[i] = (struct batch_io){.disk = pool->disk[slab->leg[i].member]};
                        ios[i].io.op = MEMBER_WRITE;
                        ios[i].io.offset = slab->leg[i].offset + at;
                        ios[i].io.length = chunk;
                        ios[i].iov.iov_base = zeroes;
                }
                co_batch(ios, slab->n_legs);
                for (unsigned i = 0; i < slab->n_legs; i++)
                        if (ios[i].result < 0)
                                r = ios[i].result;
        }
        free(zeroes);
        return r;
}

/* ---- flushes ---- */

/* Members from *at on, as many as @ios has room for, all at once. */
static int co_flush_some(struct pool *pool, size_t *at, struct batch_io *ios, uint64_t *covered,
                         size_t room)
{
        size_t n = 0;
        int r = 0;
        for (; *at < pool->n_disks && n < room; ++*at) {
                struct disk *disk = pool->disk[*at];
                if (disk->apart || disk->writes_durable == disk->writes_done)
                        continue;
                disk->flushing++;
                covered[n] = disk->writes_done;
                ios[n] = (struct batch_io){.disk = disk, .pool = pool};
                ios[n++].io.op = MEMBER_FLUSH;
        }
        co_batch(ios, n);
        for (size_t i = 0; i < n; i++) {
                struct disk *disk = ios[i].disk;
                disk->flushing--;
                if (ios[i].result < 0)
                        r = -EIO;
                else
                        disk->writes_durable = max_u64(disk->writes_durable, covered[i]);
        }
        return r;
}

int co_flush_members(struct pool *pool)
{
        enum { FEW = 8 };
        struct batch_io few[FEW], *ios = few;
        uint64_t few_covered[FEW], *covered = few_covered;
        size_t room = FEW;
        int r = 0;
        /* Without memory members are flushed a few at a time: a flush that fails would leave an
         * operation on the catalog in memory and in the log, and told to have failed. */
        if (pool->n_disks > FEW) {
                ios = calloc(pool->n_disks, sizeof(*ios));
                covered = calloc(pool->n_disks, sizeof(*covered));
                room = pool->n_disks;
        }
        if (!ios || !covered) {
                free(ios);
                free(covered);
                ios = few;
                covered = few_covered;
                room = FEW;
        }
        for (size_t at = 0; at < pool->n_disks && r == 0;)
                r = co_flush_some(pool, &at, ios, covered, room);
        if (ios != few) {
                free(ios);
                free(covered);
        }
        return r < 0 ? r : pool_failed(pool) ? -EIO : 0;
}
