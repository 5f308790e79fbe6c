/* write.c - writing whole blocks: take blocks, CRC, write; when the data has been written, change
 * the map, queue the record, answer. Shared blocks are never overwritten, and nothing is ever
 * copied. */
#include <errno.h>
#include <stdlib.h>
#include "pool/full.h"
#include "pool/span.h"

int chunk_write_take(struct chunk *chunk)
{
        struct pool *pool = chunk->span->pool;
        for (uint32_t at = 0; at < chunk->n;) {
                uint64_t address;
                uint32_t n;
                int r = space_take_data(pool, chunk->n - at, &address, &n);
                if (r == 0 && !chunk_run(chunk, address, at, n)) {
                        space_untake(pool, address, n);
                        r = -ENOMEM;
                }
                if (r < 0) {
                        chunk_write_untake(chunk);
                        return r;
                }
                at += n;
        }
        for (uint32_t i = 0; i < chunk->n; i++)
                chunk->crc[i] = crc32c(0, chunk_memory(chunk, i), BLOCK);
        return 0;
}

void chunk_write_untake(struct chunk *chunk)
{
        for (unsigned i = 0; i < chunk->n_runs; i++)
                space_untake(chunk->span->pool, chunk->run[i].address, chunk->run[i].n);
        chunk->n_runs = 0;
}

/* The runs from chunk->mapped on take their place. -EAGAIN: a node is to be loaded first. */
static int chunk_map(struct chunk *chunk, struct entry *ret_missing)
{
        struct span *span = chunk->span;
        for (; chunk->mapped < chunk->n_runs; chunk->mapped++) {
                const struct run *run = &chunk->run[chunk->mapped];
                int r = map_write(span->pool, span->root, chunk->block + run->first, run->n,
                                  run->address, chunk->crc + run->first, ret_missing);
                if (r < 0)
                        return r;
                log_append_write(span->pool, span->root->id, chunk->block + run->first,
                                 run->address, run->n, chunk->crc + run->first);
        }
        return 0;
}

static void chunk_write_finish(struct chunk *chunk, int result)
{
        struct pool *pool = chunk->span->pool;
        if (result < 0)
                for (unsigned i = chunk->mapped; i < chunk->n_runs; i++)
                        space_untake(pool, chunk->run[i].address, chunk->run[i].n);
        else if (checkpoint_due(pool))
                checkpoint_kick(pool);
        cache_trim(pool, TRIM_A_CHANGE);
        chunk_done(chunk, result);
}

/* The leaf was evicted while the data was being written. */
static void co_chunk_map(void *arg)
{
        struct chunk *chunk = arg;
        struct pool *pool = chunk->span->pool;
        struct entry missing;
        int r;
        while ((r = chunk_map(chunk, &missing)) == -EAGAIN &&
               (r = co_map_load(pool, &missing)) == 0)
                ;
        chunk_write_finish(chunk, r);
        engine_coroutine_ends(pool);
}

static void chunk_data_written(struct chunk *chunk)
{
        struct pool *pool = chunk->span->pool;
        struct entry missing;
        int r = chunk->result < 0 ? chunk->result : pool_failed(pool) ? -EIO : 0;
        chunk->mapped = 0;
        if (r == 0)
                r = chunk_map(chunk, &missing);
        if (r == -EAGAIN) {
                r = engine_spawn(pool, co_chunk_map, chunk);
                if (r == 0)
                        return;
        }
        chunk_write_finish(chunk, r);
}

static void write_error_report(const struct run *run, uint64_t member_offset, int result)
{
        const struct chunk *chunk = run->chunk;
        struct pool *pool = chunk->span->pool;
        const char *path = run->disk->member->path;
        char name[ROOT_LABEL_MAX];
        if (result == -ENOSPC && pool->full)
                return; /* those that wait for space try again and again */
        log_error("pool '%s': cannot write data on member '%s' at byte %llu: %s", pool->name, path,
                  (unsigned long long)member_offset, strerror(-result));
        if (result == -ENOSPC)
                return;
        root_label(pool, chunk->span->root, name);
        pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_MEMBER,
                                             .sentence = "a block of data cannot be written",
                                             .volume = name,
                                             .offset = (chunk->block + run->first) * BLOCK,
                                             .member = path,
                                             .member_offset = member_offset});
}

static void run_written(struct member_io *io, int result)
{
        struct run *run = container_of(io, struct run, io);
        struct chunk *chunk = run->chunk;
        if (result == 0) {
                run->disk->writes_done++;
        } else {
                write_error_report(run, io->offset, result);
                /* A sparse member whose file system is full is a full pool, not a broken disk. */
                chunk->result = result == -ENOSPC ? -ENOSPC : -EIO;
        }
        if (--chunk->pending == 0)
                chunk_data_written(chunk);
}

void chunk_write(struct chunk *chunk)
{
        chunk->pending = 1;
        for (unsigned i = 0; i < chunk->n_runs; i++) {
                int r = run_submit(&chunk->run[i], MEMBER_WRITE, run_written);
                if (r < 0)
                        chunk->result = r;
        }
        if (--chunk->pending == 0)
                chunk_data_written(chunk);
}
