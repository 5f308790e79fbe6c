/* read.c - reading whole blocks: entry, one device read, CRC check. On a mismatch the entry is
 * looked up again, the block is read again into memory of our own, and only then it is EIO:
 * counted, and logged with its place.
 *
 * What a root on a base does not have itself is looked up in the base's map, and what that does not
 * have is read from the image. */
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

static int co_block_entry(struct pool *pool, const struct root *root, uint64_t block,
                          struct entry *e)
{
        struct node *leaf;
        int r = co_tree_leaf(pool, &root->body->map, block, &leaf, e);
        if (r == 0 && leaf) {
                *e = leaf_entry(leaf, block);
                node_unpin(pool, leaf);
        }
        return r;
}

/* One block by its entry as it is now, into @page. */
static int co_block_read(struct pool *pool, struct root *root, uint64_t block, void *page,
                         bool *ret_hole, struct entry *e)
{
        bool shows = block < root_base_end(root);
        int r = co_block_entry(pool, root, block, e);
        if (r == 0 && shows && e->type == ENTRY_ABSENT) {
                r = co_block_entry(pool, root->base, block, e);
                if (r == 0 && e->type == ENTRY_ABSENT)
                        return co_image_read(pool, root->base, block, 1, page);
        }
        if (r < 0)
                return r;
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

/* ---- from the image ---- */

static bool is_from_image(const struct chunk *chunk, uint32_t i)
{
        return chunk->from_image[i / 64] >> (i % 64) & 1;
}

/* As many blocks from @i on as the image is to be asked for, and lie in one piece of memory. */
static uint32_t image_run(const struct chunk *chunk, uint32_t i)
{
        const char *memory = chunk_memory(chunk, i);
        uint32_t n = 1;
        while (i + n < chunk->n && is_from_image(chunk, i + n) &&
               (char *)chunk_memory(chunk, i + n) == memory + (size_t)n * BLOCK)
                n++;
        return n;
}

static void co_chunk_image(void *arg)
{
        struct chunk *chunk = arg;
        struct pool *pool = chunk->span->pool;
        int result = chunk->result;
        for (uint32_t i = 0, n; i < chunk->n; i += n) {
                n = 1;
                if (!is_from_image(chunk, i))
                        continue;
                n = image_run(chunk, i);
                int r = co_image_read(pool, chunk->span->root->base, chunk->block + i, n,
                                      chunk_memory(chunk, i));
                if (r < 0) {
                        chunk_zero(chunk, i, n);
                        result = r;
                }
        }
        chunk_done(chunk, result);
        engine_coroutine_ends(pool);
}

static void chunk_image_start(struct chunk *chunk)
{
        int r = engine_spawn(chunk->span->pool, co_chunk_image, chunk);
        if (r == 0)
                return;
        for (uint32_t i = 0; i < chunk->n; i++)
                if (is_from_image(chunk, i))
                        chunk_zero(chunk, i, 1);
        chunk_done(chunk, r);
}

static bool block_is_good(const struct chunk *chunk, uint32_t i)
{
        return crc32c(0, chunk_memory(chunk, i), BLOCK) == chunk->crc[i];
}

/* What the pool has is there. The image comes last: it may be far away, and nobody is to wait for the
 * blocks that were held for this read while it is. */
static void chunk_read_end(struct chunk *chunk, int result)
{
        reader_exit(chunk->span->pool, chunk->interval);
        chunk->result = result;
        if (chunk->wants_image)
                chunk_image_start(chunk);
        else
                chunk_done(chunk, result);
}

/* Without what it takes to judge the data: the caller gets none of it. */
static void chunk_read_refuse(struct chunk *chunk, int result)
{
        chunk_zero(chunk, 0, chunk->n);
        chunk->wants_image = false;
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

/* ---- where blocks are ---- */

static void want_image(struct chunk *chunk, uint32_t i)
{
        if (!chunk->wants_image)
                memset(chunk->from_image, 0, sizeof(chunk->from_image));
        chunk->wants_image = true;
        chunk->from_image[i / 64] |= UINT64_C(1) << (i % 64);
}

/* The runs that the leaf's entries make; holes are zeroed at once. @base: where what is absent is
 * looked for, or NULL. */
static int chunk_plan(struct chunk *chunk, const struct cover *own, const struct cover *base)
{
        uint64_t base_end = base ? root_base_end(chunk->span->root) : 0;
        for (uint32_t i = 0; i < chunk->n; i++) {
                struct entry e = cover_entry(own, chunk->block + i);
                if (e.type == ENTRY_ABSENT && chunk->block + i < base_end) {
                        e = cover_entry(base, chunk->block + i);
                        if (e.type == ENTRY_ABSENT) {
                                want_image(chunk, i);
                                continue;
                        }
                }
                if (entry_is_hole(&e)) {
                        chunk_zero(chunk, i, 1);
                        continue;
                }
                if (e.type != ENTRY_DATA)
                        return -EIO;
                chunk->crc[i] = e.crc;
                if (!chunk_run(chunk, e.address, i, 1))
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

/* The leaves are in memory, or there are none. */
static void chunk_read_planned(struct chunk *chunk, const struct cover *own,
                               const struct cover *base)
{
        bool all_zero = !own->leaf && !base;
        if (all_zero)
                chunk_zero(chunk, 0, chunk->n);
        int r = all_zero ? 0 : chunk_plan(chunk, own, base);
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
        struct root *root = span->root;
        struct cover own = {0}, base = {0};
        bool shows = chunk->block < root_base_end(root);
        int r = co_tree_leaf(pool, &root->body->map, chunk->block, &own.leaf, &own.hole);
        if (r == 0 && shows)
                r = co_tree_leaf(pool, &root->base->body->map, chunk->block, &base.leaf,
                                 &base.hole);
        if (r < 0) {
                log_error("pool '%s', volume '%s': the map of offset %llu cannot be read: %s",
                          pool->name, root->name, (unsigned long long)chunk->block * BLOCK,
                          strerror(-r));
                chunk_read_refuse(chunk, -EIO);
        } else {
                chunk_read_planned(chunk, &own, shows ? &base : NULL);
        }
        if (own.leaf)
                node_unpin(pool, own.leaf);
        if (base.leaf)
                node_unpin(pool, base.leaf);
        engine_coroutine_ends(pool);
}

void chunk_read(struct chunk *chunk)
{
        struct span *span = chunk->span;
        struct cover own, base = {0};
        bool shows = chunk->block < root_base_end(span->root);
        chunk->interval = reader_enter(span->pool);
        int r = tree_leaf(span->pool, &span->root->body->map, chunk->block, &own.leaf, &own.hole);
        if (r == 0 && shows)
                r = tree_leaf(span->pool, &span->root->base->body->map, chunk->block, &base.leaf,
                              &base.hole);
        if (r == 0) {
                chunk_read_planned(chunk, &own, shows ? &base : NULL);
                return;
        }
        r = engine_spawn(span->pool, co_chunk_load, chunk);
        if (r < 0)
                chunk_read_refuse(chunk, r);
}
