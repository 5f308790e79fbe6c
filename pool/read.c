/* read.c - reading whole blocks: entry, one device read, CRC check. On a mismatch the entry is
 * looked up again, the block is read again into memory of our own, and only then it is EIO:
 * counted, and logged with its place. */
#include <errno.h>
#include <stdlib.h>
#include "pool/crossing.h"
#include "pool/full.h"
#include "pool/span.h"

static void chunk_zero(struct chunk *chunk, uint32_t first, uint32_t n)
{
        for (uint32_t i = first; i < first + n; i++)
                memset(chunk_memory(chunk, i), 0, BLOCK);
}

/* ---- when a CRC does not fit ---- */

static void read_error_report(struct pool *pool, const struct root *root, uint64_t block,
                              const struct entry *e, int result)
{
        const struct slab *slab = address_slab(pool, e->address);
        const struct member *m = slab ? pool->disk[slab->leg[0].member]->member : NULL;
        uint64_t at = slab ? leg_offset(slab, 0, e->address, pool->slab_blocks) : 0;
        char name[ROOT_LABEL_MAX];
        log_error("pool '%s', volume '%s'%s: offset %llu %s, on member '%s' at byte %llu",
                  pool->name, root->name[0] ? root->name : "(deleted)",
                  root->state == ROOT_FROZEN ? " (snapshot)" : "",
                  (unsigned long long)block * BLOCK,
                  result == -EUCLEAN ? "fails its checksum" : strerror(-result),
                  m ? m->path : "none", (unsigned long long)at);
        root_label(pool, root, name);
        pool_tell(pool, &(struct pool_event){
                            .kind = result == -EUCLEAN ? POOL_EVENT_CHECKSUM : POOL_EVENT_MEMBER,
                            .sentence = result == -EUCLEAN ? "a block of data fails its checksum"
                                                           : "a block of data cannot be read",
                            .volume = name,
                            .offset = block * BLOCK,
                            .member = m ? m->path : NULL,
                            .member_offset = at});
}

/* One block by its entry as it is now, into @page. */
static int co_block_read(struct pool *pool, struct root *root, uint64_t block, void *page,
                         bool *ret_hole, struct entry *e)
{
        struct node *leaf;
        int r = co_tree_leaf(pool, &root->body->map, block, &leaf, e);
        if (r < 0)
                return r;
        if (leaf) {
                *e = entry_get(&((struct node_disk *)leaf->page)->entry[block % LEAF_BLOCKS]);
                node_unpin(pool, leaf);
        }
        *ret_hole = entry_is_hole(e);
        if (*ret_hole)
                return 0;
        const struct slab *slab = address_slab(pool, e->address);
        if (e->type != ENTRY_DATA || !slab || slab->kind != SLAB_DATA)
                return -EUCLEAN;
        r = -EIO;
        for (unsigned i = 0; i < slab->n_legs; i++) {
                r = co_member_read(pool->disk[slab->leg[i].member]->member, page, BLOCK,
                                   leg_offset(slab, i, e->address, pool->slab_blocks));
                if (r == 0 && crc32c(0, page, BLOCK) == e->crc)
                        return 0;
                if (r == 0)
                        r = -EUCLEAN;
        }
        return r;
}

static int co_block_again(struct chunk *chunk, uint32_t i, void *page)
{
        struct pool *pool = chunk->span->pool;
        struct entry e = {0};
        bool hole = false;
        int r = co_block_read(pool, chunk->span->root, chunk->block + i, page, &hole, &e);
        if (r == 0 && !hole) {
                memcpy(chunk_memory(chunk, i), page, BLOCK);
                return 0;
        }
        chunk_zero(chunk, i, 1);
        if (r == 0)
                return 0;
        pool->checksum_errors += r == -EUCLEAN;
        read_error_report(pool, chunk->span->root, chunk->block + i, &e, r);
        return -EIO;
}

static bool block_is_good(const struct chunk *chunk, uint32_t i)
{
        return crc32c(0, chunk_memory(chunk, i), BLOCK) == chunk->crc[i];
}

static void chunk_read_end(struct chunk *chunk, int result)
{
        reader_exit(chunk->span->pool, chunk->interval);
        chunk_done(chunk, result);
}

/* Without what it takes to judge the data: the caller gets none of it. */
static void chunk_read_refuse(struct chunk *chunk, int result)
{
        chunk_zero(chunk, 0, chunk->n);
        chunk_read_end(chunk, result);
}

static void co_chunk_repair(void *arg)
{
        struct chunk *chunk = arg;
        struct pool *pool = chunk->span->pool;
        void *page = page_alloc();
        int r = 0;
        for (unsigned k = 0; k < chunk->n_runs && page; k++) {
                const struct run *run = &chunk->run[k];
                for (uint32_t i = run->first; i < run->first + run->n; i++)
                        if (!block_is_good(chunk, i) && co_block_again(chunk, i, page) < 0)
                                r = -EIO;
        }
        if (page)
                chunk_read_end(chunk, r);
        else
                chunk_read_refuse(chunk, -ENOMEM);
        free(page);
        engine_coroutine_ends(pool);
}

/* ---- the usual way ---- */

bool run_is_good(const struct run *run)
{
        for (uint32_t i = 0; i < run->n; i++)
                if (!block_is_good(run->chunk, run->first + i))
                        return false;
        return true;
}

static void chunk_data_read(struct chunk *chunk)
{
        bool good = chunk->result == 0;
        for (unsigned k = 0; k < chunk->n_runs && good; k++)
                good = chunk->run[k].verified || run_is_good(&chunk->run[k]);
        if (good) {
                chunk_read_end(chunk, 0);
                return;
        }
        int r = engine_spawn(chunk->span->pool, co_chunk_repair, chunk);
        if (r < 0)
                chunk_read_refuse(chunk, r);
}

static void run_read(struct member_io *io, int result)
{
        struct run *run = container_of(io, struct run, io);
        struct chunk *chunk = run->chunk;
        if (result < 0)
                chunk->result = result;
        if (--chunk->pending == 0)
                chunk_data_read(chunk);
}

/* The runs that the leaf's entries make; holes are zeroed at once. */
static int chunk_plan(struct chunk *chunk, const struct node *leaf)
{
        const struct entry_disk *at =
            ((const struct node_disk *)leaf->page)->entry + chunk->block % LEAF_BLOCKS;
        struct run *last = NULL;
        for (uint32_t i = 0; i < chunk->n; i++) {
                struct entry e = entry_get(&at[i]);
                if (entry_is_hole(&e)) {
                        chunk_zero(chunk, i, 1);
                        last = NULL;
                        continue;
                }
                if (e.type != ENTRY_DATA)
                        return -EIO;
                chunk->crc[i] = e.crc;
                bool adjacent = last && last->address + last->n == e.address &&
                                e.address >> chunk->span->pool->slab_shift ==
                                    last->address >> chunk->span->pool->slab_shift;
                if (adjacent)
                        last->n++;
                else
                        last = chunk_run(chunk, e.address, i, 1);
                if (!last)
                        return -ENOMEM;
        }
        return 0;
}

static int run_read_start(struct run *run)
{
        struct crossing *crossing = run->chunk->span->crossing;
        int r = run_prepare(run, MEMBER_READ, run_read);
        if (r < 0)
                return r;
        run->chunk->pending++;
        if (crossing && crossing_is_to_fetch(crossing, run))
                crossing_fetch(crossing, run);
        else
                member_submit(run->disk->member, &run->io);
        return 0;
}

/* The leaf is in memory, or there is none. */
static void chunk_read_planned(struct chunk *chunk, const struct node *leaf)
{
        if (!leaf)
                chunk_zero(chunk, 0, chunk->n);
        int r = leaf ? chunk_plan(chunk, leaf) : 0;
        if (r < 0) {
                chunk_read_refuse(chunk, r);
                return;
        }
        if (chunk->n_runs == 0) {
                chunk_read_end(chunk, 0);
                return;
        }
        chunk->pending = 1;
        for (unsigned k = 0; k < chunk->n_runs; k++) {
                r = run_read_start(&chunk->run[k]);
                if (r < 0)
                        chunk->result = r;
        }
        if (--chunk->pending == 0)
                chunk_data_read(chunk);
}

static void co_chunk_load(void *arg)
{
        struct chunk *chunk = arg;
        struct span *span = chunk->span;
        struct pool *pool = span->pool;
        struct node *leaf = NULL;
        struct entry e;
        int r = co_tree_leaf(pool, &span->root->body->map, chunk->block, &leaf, &e);
        if (r < 0) {
                log_error("pool '%s', volume '%s': the map of offset %llu cannot be read: %s",
                          pool->name, span->root->name, (unsigned long long)chunk->block * BLOCK,
                          strerror(-r));
                chunk_read_refuse(chunk, -EIO);
        } else {
                chunk_read_planned(chunk, leaf);
                if (leaf)
                        node_unpin(pool, leaf);
        }
        engine_coroutine_ends(pool);
}

void chunk_read(struct chunk *chunk)
{
        struct span *span = chunk->span;
        struct node *leaf;
        struct entry e;
        chunk->interval = reader_enter(span->pool);
        int r = tree_leaf(span->pool, &span->root->body->map, chunk->block, &leaf, &e);
        if (r == 0) {
                chunk_read_planned(chunk, leaf);
                return;
        }
        r = engine_spawn(span->pool, co_chunk_load, chunk);
        if (r < 0)
                chunk_read_refuse(chunk, r);
}
