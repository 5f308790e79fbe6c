/* sim_space.c - what an operator does when requests wait for space. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/engine.h"
#include "tests/crash/model_impl.h"
#include "tests/sim/sim_run_impl.h"

#define TRIES_MAX 12u /* then the requests are cancelled */
#define HURRY_MAX 50u /* then they hang */

struct reliever {
        struct sim_run *run;
        struct op op;
};

static void co_relief_op(void *arg)
{
        struct reliever *reliever = arg;
        struct sim_run *run = reliever->run;
        struct catalog_request request;
        struct error err = ERROR_INIT;
        uint32_t operation;
        int r;

        op_request(&reliever->op, &request);
        operation = model_catalog_begin(run->model, &request);
        r = co_op_catalog(run->pool, &request, &err);
        co_images_tidy(&run->images, run->pool);
        if (r < 0 && sim_pool_has_failed(run))
                run->uncertain = true;
        else
                model_catalog_end(run->model, operation, r == 0);
}

/* Delete a snapshot that nothing else goes on with. */
static bool co_delete_snapshot(struct sim_run *run)
{
        const struct model_roots *now = model_now(run->model);

        for (unsigned i = 0; i < now->n && !run->uncertain; i++) {
                struct reliever reliever = {.run = run, .op = {.kind = OP_DELETE_SNAPSHOT}};
                unsigned volume, snapshot;
                char kind;

                if (sscanf(now->root[i].name, "v%u@%c%u", &volume, &kind, &snapshot) != 3 ||
                    run->slots[volume].catalog > 0)
                        continue;
                reliever.op.volume = (uint8_t)volume;
                reliever.op.snapshot = (uint8_t)(snapshot + (kind == 'k' ? SNAPSHOT_SLOTS : 0));
                slots_mark(run->slots, &reliever.op, false, true);
                co_relief_op(&reliever);
                slots_mark(run->slots, &reliever.op, false, false);
                sim_count(SIM_RELIEF_DELETE);
                return true;
        }
        return false;
}

static bool co_add_member(struct sim_run *run)
{
        struct error err = ERROR_INIT;
        struct member *member;

        if (run->adding || run->n_disks >= run->character.n_members_max ||
            sim_add_disk(run, &member) < 0)
                return false;
        run->adding = true;
        if (co_pool_add(run->pool, &member, 1, &err) < 0)
                member_close(member);
        else
                sim_count(SIM_RELIEF_ADD);
        run->adding = false;
        return true;
}

static void hurry(struct sim_run *run, bool on)
{
        for (unsigned i = 0; i < VOLUME_SLOTS; i++)
                if (run->slots[i].handle != NULL)
                        volume_hurry(run->slots[i].handle, on);
}

static void co_cancel(struct sim_run *run)
{
        run->hurried = true;
        hurry(run, true);
        for (unsigned i = 0; pool_waits_for_space(run->pool); i++) {
                if (i == HURRY_MAX) {
                        sim_fail(run, "step %u: a request waits for space that was told not to",
                                 run->step);
                        return;
                }
                co_sleep_ns(100000000);
        }
        hurry(run, false);
        sim_count(SIM_RELIEF_HURRY);
}

void co_sim_relieve(struct sim_run *run)
{
        struct sim_random random;
        uint64_t n_tries;

        sim_count(SIM_WAITED);
        sim_random_init(&random, sim_mix(run->plan->seed + run->step));
        n_tries = sim_random_below(&random, TRIES_MAX);
        for (unsigned i = 0; pool_waits_for_space(run->pool); i++) {
                uint64_t lot = sim_random_below(&random, 4);

                if (i >= n_tries || sim_pool_has_failed(run)) {
                        co_cancel(run);
                        return;
                }
                if (lot == 0)
                        co_add_member(run);
                else if (lot <= 2)
                        co_delete_snapshot(run);
                /* Each second what waits looks for space again. */
                co_sleep_ns(2500000000);
        }
        sim_count(SIM_FILLED_WAITED);
}

/* ---- is it really full? ---- */

/* Blocks of metadata that a request may have set apart, and that the catalog may want at the next
 * checkpoint. */
#define METADATA_REQUEST 20u
#define METADATA_OVER    32u

/* Blocks in use that hold nothing but zeroes, or what another holds at the same place. */
#define USE_OVER 8u

uint64_t sim_blocks_wanted(const struct op *op)
{
        if (op->kind == OP_WRITE)
                return (op->offset + op->length - 1) / BLOCK_SIZE - op->offset / BLOCK_SIZE + 1;
        /* What remains of the blocks at its ends; that of a volume that grows. */
        if (op_is_copy(op))
                return sim_copy_wants(op);
        return op_is_io(op) && op->kind != OP_READ ? 2 : op->kind == OP_RESIZE;
}

/* What is freed counts as free, whether or not it can be taken yet: for that a request waits. Not
 * where there were others, which may have freed it between the refusal and now. */
bool sim_is_full(const struct sim_run *run, const struct op *op, bool alone, char *text,
                 size_t text_size)
{
        const struct pool *pool = run->pool;
        uint64_t reserve = metadata_reserve(pool), data, metadata, enough;
        struct pool_info info;

        pool_get_info(run->pool, &info);
        data = info.free_bytes / BLOCK_SIZE;
        metadata = pool->metadata_total - pool->metadata_live;
        if (!alone) { /* of which kind they are is not known */
                data -= min_u64(data, info.freeing_bytes / BLOCK_SIZE);
                metadata -= min_u64(metadata, info.freeing_bytes / BLOCK_SIZE);
        }
        enough = reserve + METADATA_OVER + METADATA_REQUEST * run->in_flight;
        if (op_is_catalog(op) || op->kind == OP_COMPLETE)
                enough += reserve;
        snprintf(text, text_size,
                 "%llu blocks for data, and what is in flight wants %llu; %llu for metadata, and "
                 "%llu are enough",
                 (unsigned long long)data, (unsigned long long)run->blocks_wanted,
                 (unsigned long long)metadata, (unsigned long long)enough);
        /* A deletion is what brings space: it has a reserve of its own. */
        if (op->kind == OP_DELETE_SNAPSHOT)
                return false;
        return metadata < enough || (data < run->blocks_wanted && !op_is_catalog(op)) ||
               (data < run->blocks_wanted && op->kind == OP_RESIZE);
}

static int compare_u64(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

enum of_image { IMAGE_NOT, IMAGE_PART, IMAGE_WHOLE };

/* Nothing but what an image holds there, or that and zeroes? */
static enum of_image content_of_image(const struct content *content)
{
        unsigned n = 0;
        uint64_t block;

        for (unsigned g = 0; g < BLOCK_GRAINS; g++) {
                bool is_image = content_is_image(content->grain[g], &block);

                if (!is_image && content->grain[g] != VERSION_ZERO)
                        return IMAGE_NOT;
                n += is_image;
        }
        return n == BLOCK_GRAINS ? IMAGE_WHOLE : n > 0 ? IMAGE_PART : IMAGE_NOT;
}

/* Blocks that differ, or that different writes have left: roots share the others. Of a block that a
 * volume's end cuts only the first part can be read, and whether it is shared cannot be told: these
 * are *ret_n_cut more; so are those that hold a part of an image's block and nothing else, and may be the
 * volume's own or not. What is the image's as a whole is not the volume's. */
static uint64_t count_distinct(const struct observed *observed, uint64_t *ret_n_cut)
{
        uint64_t *hashes = NULL, n = 0, n_distinct = 0;

        *ret_n_cut = 0;

        for (size_t i = 0; i < observed->n_roots; i++)
                n += observed->roots[i].n_blocks;
        hashes = malloc((n + 1) * sizeof(*hashes));
        n = 0;
        for (size_t i = 0; i < observed->n_roots; i++) {
                const struct observed_root *root = &observed->roots[i];

                for (size_t k = 0; k < root->n_blocks; k++) {
                        const struct observed_block *b = &root->blocks[k];
                        uint64_t hash = sim_mix(b->block);

                        enum of_image of = content_of_image(&b->content);

                        if (of == IMAGE_WHOLE)
                                continue;
                        if (of == IMAGE_PART || b->block >= root->size_bytes / BLOCK_SIZE) {
                                ++*ret_n_cut;
                                continue;
                        }
                        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                                hash = sim_mix(hash + b->content.grain[g]);
                        hashes[n++] = hash;
                }
        }
        qsort(hashes, n, sizeof(*hashes), compare_u64);
        for (uint64_t i = 0; i < n; i++)
                n_distinct += i == 0 || hashes[i] != hashes[i - 1];
        free(hashes);
        return n_distinct;
}

/* Blocks in use that nobody can read: a snapshot that was deleted, and of which more than one goes on,
 * keeps what none of them has any more; one that was taken while its volume was being shrunk keeps
 * what lies behind the end (FORMAT.md 7.1). */
static bool has_hidden(const struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slots; i++) {
                const struct root *root = pool->slot[i];

                if (root == NULL || root->state != ROOT_FROZEN)
                        continue;
                if (root->name[0] == '\0' ||
                    (root->loaded ? root->body->high_bytes > 0 : root->shrinking))
                        return true;
        }
        return false;
}

void sim_space_maps(const struct pool *pool, uint64_t *ret_metadata, uint64_t *ret_maps)
{
        *ret_metadata = pool->metadata_live;
        *ret_maps = 0;
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                *ret_maps += slab_has_map(pool->slab[i]) ? MAP_COPIES : 0;
}

/* What was copied from images, whether or not any volume still shows it. */
static uint64_t copied_blocks(const struct pool *pool)
{
        uint64_t n = 0;

        for (uint32_t i = 0; i < pool->n_slots; i++)
                if (pool->slot[i] != NULL && pool->slot[i]->state == ROOT_BASE)
                        n += pool->slot[i]->body->data_blocks;
        return n;
}

bool sim_use_is_right(struct pool *pool, const struct observed *observed, char *text,
                      size_t text_size)
{
        uint64_t n_cut, needed = count_distinct(observed, &n_cut), used;
        struct pool_info info;

        needed += copied_blocks(pool);
        pool_get_info(pool, &info);
        used = info.used_bytes / BLOCK_SIZE;
        snprintf(text, text_size, "%llu blocks are in use, and what can be read takes %llu",
                 (unsigned long long)used, (unsigned long long)needed);
        if (used < needed || (used > needed + n_cut + USE_OVER && !has_hidden(pool)))
                return false;
        text[0] = '\0';
        return true;
}
