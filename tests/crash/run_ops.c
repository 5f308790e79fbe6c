/* run_ops.c - one operation of a plan, carried out on the pool and told to the model. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"
#include "tests/crash/run_impl.h"

#define WIDE_BLOCKS 128u

bool op_is_io(const struct op *op)
{
        return op->kind == OP_WRITE || op->kind == OP_DISCARD || op->kind == OP_ZERO ||
               op->kind == OP_READ;
}

bool op_is_catalog(const struct op *op)
{
        return !op_is_io(op) && op->kind != OP_FLUSH && op->kind != OP_CHECKPOINT &&
               op->kind != OP_ADD && op->kind != OP_REOPEN && op->kind != OP_CRASH;
}

bool op_is_wide(const struct op *op)
{
        return op_is_io(op) && op->kind != OP_WRITE && op->length > WIDE_BLOCKS * BLOCK_SIZE;
}

static void op_name(const struct running *running, char name[MODEL_NAME_MAX])
{
        snprintf(name, MODEL_NAME_MAX, "v%u", running->op->volume);
}

/* ---- the catalog ---- */

void op_request(const struct op *op, struct catalog_request *q)
{
        static const enum catalog_kind kinds[] = {
            [OP_CREATE] = CATALOG_CREATE,
            [OP_SNAPSHOT] = CATALOG_SNAPSHOT,
            [OP_RESTORE] = CATALOG_RESTORE,
            [OP_DELETE_SNAPSHOT] = CATALOG_DELETE_SNAPSHOT,
            [OP_DELETE_VOLUME] = CATALOG_DELETE_VOLUME,
            [OP_CLONE] = CATALOG_CLONE,
            [OP_RESIZE] = CATALOG_RESIZE,
            [OP_RENAME] = CATALOG_RENAME,
        };

        *q = (struct catalog_request){.kind = kinds[op->kind], .size_bytes = op->size_bytes};
        snprintf(q->volume, sizeof(q->volume), "v%u", op->volume);
        if (op->kind == OP_RENAME)
                snprintf(q->other, sizeof(q->other), "v%u", op->other);
        else if (op->snapshot < SNAPSHOT_SLOTS)
                snprintf(q->other, sizeof(q->other), "s%u", op->snapshot);
        else
                snprintf(q->other, sizeof(q->other), "k%u", op->snapshot - SNAPSHOT_SLOTS);
        if (op->kind == OP_CLONE)
                snprintf(q->keep, sizeof(q->keep), "v%u", op->other);
        if (op->kind == OP_RESTORE && op->keep)
                snprintf(q->keep, sizeof(q->keep), "k%u", op->kept);
        for (unsigned i = 0; op->kind == OP_SNAPSHOT && i < VOLUME_SLOTS; i++)
                if (op->volumes >> i & 1 && q->n_volumes < MODEL_GROUP_MAX)
                        snprintf(q->volumes[q->n_volumes++], MODEL_NAME_MAX, "v%u", i);
}

static int co_catalog_snapshot(struct pool *pool, const struct catalog_request *q,
                               struct error *err)
{
        char names[MODEL_GROUP_MAX][2 * MODEL_NAME_MAX];
        const char *list[MODEL_GROUP_MAX];

        for (unsigned i = 0; i < q->n_volumes; i++) {
                snprintf(names[i], sizeof(names[i]), "%s@%s", q->volumes[i], q->other);
                list[i] = names[i];
        }
        return co_snapshot_create(pool, list, q->n_volumes, err);
}

static int co_catalog(struct pool *pool, const struct catalog_request *q, struct error *err)
{
        char name[2 * MODEL_NAME_MAX];

        snprintf(name, sizeof(name), "%s@%s", q->volume, q->other);
        switch (q->kind) {
        case CATALOG_CREATE:
                return co_volume_create(pool, q->volume, q->size_bytes, err);
        case CATALOG_RESIZE:
                return co_volume_resize(pool, q->volume, q->size_bytes, err);
        case CATALOG_RENAME:
                return co_volume_rename(pool, q->volume, q->other, err);
        case CATALOG_DELETE_VOLUME:
                return co_volume_delete(pool, q->volume, true, err);
        case CATALOG_SNAPSHOT:
                return co_catalog_snapshot(pool, q, err);
        case CATALOG_DELETE_SNAPSHOT:
                return co_snapshot_delete(pool, name, err);
        case CATALOG_RESTORE:
                return co_snapshot_restore(pool, name, q->keep[0] != '\0' ? q->keep : NULL, err);
        case CATALOG_CLONE:
                return co_snapshot_clone(pool, name, q->keep, err);
        }
        return -EINVAL;
}

static void co_op_catalog(struct running *running)
{
        struct runner *runner = running->runner;
        uint32_t operation = model_catalog_begin(runner->run->model, &running->request);
        struct error err = ERROR_INIT;
        char text[200];
        int r = co_catalog(runner->pool, &running->request, &err);

        op_print(running->op, text, sizeof(text));
        if (r == -ENOSPC)
                runner->run->n_no_space++;
        else if (r < 0)
                runner_fail(runner, "%s: %s (%s)", text, err.message, strerror(-r));
        model_catalog_end(runner->run->model, operation, r == 0);
        if (r == 0 && running->op->kind == OP_RENAME) {
                runner->slots[running->op->other].handle =
                    runner->slots[running->op->volume].handle;
                runner->slots[running->op->volume].handle = NULL;
        }
        runner_take_point(runner);
}

/* ---- reads and writes ---- */

/* The grains of @block in the range. */
static uint16_t op_mask(const struct op *op, uint64_t block)
{
        uint64_t start = block * BLOCK_SIZE, end = start + BLOCK_SIZE;
        uint64_t from = op->offset > start ? op->offset : start;
        uint64_t to = op->offset + op->length < end ? op->offset + op->length : end;

        if (from >= to)
                return 0;
        return (uint16_t)(((1u << (to - from) / GRAIN) - 1) << (from - start) / GRAIN);
}

/* The blocks that a request changes, as far as the model must know: of a wide one those that hold
 * anything. */
static size_t op_blocks(const struct running *running, uint64_t **ret_blocks)
{
        const struct op *op = running->op;
        const struct model *model = running->runner->run->model;
        uint64_t *blocks = NULL;
        char name[MODEL_NAME_MAX];
        size_t n = 0, touched;

        op_name(running, name);
        if (op_is_wide(op)) {
                touched = model_touched(model, model_roots_find(model_now(model), name), &blocks);
                for (size_t i = 0; i < touched; i++)
                        if (op_mask(op, blocks[i]) != 0)
                                blocks[n++] = blocks[i];
        } else {
                for (uint64_t b = op->offset / BLOCK_SIZE; b * BLOCK_SIZE < op->offset + op->length;
                     b++) {
                        blocks = model_grow(blocks, n, sizeof(*blocks));
                        blocks[n++] = b;
                }
        }
        *ret_blocks = blocks;
        return n;
}

/* The bytes at which a block of the range begins in the request's buffer. */
static void buffer_fill(const struct op *op, uint8_t *buffer, uint64_t block, uint32_t version)
{
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                if (op_mask(op, block) >> g & 1)
                        content_fill(buffer + (block * BLOCK_SIZE + g * GRAIN - op->offset),
                                     version, g);
}

static int co_op_submit(const struct running *running, const uint8_t *buffer)
{
        const struct op *op = running->op;
        struct volume *volume = running->runner->slots[op->volume].handle;
        /* To the loss of power a logged write is as any other: its pages in the log are what differs.
         */
        unsigned other = running->runner->op % 3 == 0 ? VOLUME_LOGGED : 0;
        unsigned flags = op->fua ? VOLUME_FUA : other;

        if (op->kind == OP_WRITE)
                return co_volume_write(volume, buffer, op->length, op->offset, flags);
        if (op->kind == OP_DISCARD)
                return co_volume_discard(volume, op->offset, op->length, flags);
        return co_volume_zero(volume, op->offset, op->length, flags);
}

static void co_op_write(struct running *running)
{
        struct runner *runner = running->runner;
        const struct op *op = running->op;
        bool zeroes = op->kind != OP_WRITE;
        uint64_t *blocks;
        size_t n = op_blocks(running, &blocks);
        uint32_t *versions = calloc(n + 1, sizeof(*versions));
        uint8_t *bytes =
            zeroes
                ? NULL
                : aligned_alloc(BLOCK_SIZE, op->length / BLOCK_SIZE * BLOCK_SIZE + 3 * BLOCK_SIZE);
        /* Every fourth operation comes from memory that is not aligned. */
        uint8_t *buffer = zeroes ? NULL : bytes + (runner->op % 4 == 1 ? 24 : 0);
        char name[MODEL_NAME_MAX], text[200];
        int r;

        op_name(running, name);
        op_print(op, text, sizeof(text));
        for (size_t i = 0; i < n; i++) {
                versions[i] = model_write_begin(runner->run->model, name, blocks[i],
                                                op_mask(op, blocks[i]), zeroes);
                if (!zeroes)
                        buffer_fill(op, buffer, blocks[i], versions[i]);
        }
        r = co_op_submit(running, buffer);
        if (r == -ENOSPC)
                runner->run->n_no_space++;
        else if (r < 0)
                runner_fail(runner, "%s: %s", text, strerror(-r));
        for (size_t i = 0; i < n; i++)
                if (r < 0)
                        model_write_fail(runner->run->model, versions[i]);
                else
                        model_write_end(runner->run->model, versions[i], op->fua);
        runner_take_point(runner);
        free(bytes);
        free(versions);
        free(blocks);
}

static void check_read(struct running *running, const uint8_t *buffer, uint64_t requested)
{
        const struct op *op = running->op;
        char name[MODEL_NAME_MAX], text[200];

        op_name(running, name);
        op_print(op, text, sizeof(text));
        for (uint64_t b = op->offset / BLOCK_SIZE; b * BLOCK_SIZE < op->offset + op->length; b++) {
                uint16_t mask = op_mask(op, b);
                struct content content = {{0}};
                char known[600];

                for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                        if (mask >> g & 1)
                                content.grain[g] = content_decode(
                                    buffer + (b * BLOCK_SIZE + g * GRAIN - op->offset), g);
                if (model_read_allowed(running->runner->run->model, name, b, mask, &content,
                                       requested))
                        continue;
                model_describe(running->runner->run->model,
                               model_roots_find(model_now(running->runner->run->model), name), b,
                               known, sizeof(known));
                runner_fail(running->runner,
                            "%s: block %llu holds %u .. %u, which it must not; known: %s", text,
                            (unsigned long long)b, content.grain[0],
                            content.grain[BLOCK_GRAINS - 1], known);
        }
}

static void co_op_read(struct running *running)
{
        struct runner *runner = running->runner;
        const struct op *op = running->op;
        uint64_t requested = model_tick(runner->run->model);
        uint8_t *buffer = malloc(op->length);
        char text[200];
        int r = co_volume_read(runner->slots[op->volume].handle, buffer, op->length, op->offset);

        op_print(op, text, sizeof(text));
        model_tick(runner->run->model);
        if (r < 0)
                runner_fail(runner, "%s: %s", text, strerror(-r));
        else if (!op_is_wide(op))
                check_read(running, buffer, requested);
        free(buffer);
}

/* ---- the pool ---- */

/* Any volume's handle will do for a flush; with none, there is nobody to ask. */
static struct slot *flush_slot(struct runner *runner)
{
        for (unsigned i = 0; i < VOLUME_SLOTS; i++)
                if (runner->slots[i].handle != NULL && !runner->slots[i].exclusive)
                        return &runner->slots[i];
        return NULL;
}

static void co_op_flush(struct running *running)
{
        struct runner *runner = running->runner;
        struct slot *slot = flush_slot(runner);
        uint64_t requested = model_tick(runner->run->model);
        int r;

        if (slot == NULL)
                return;
        slot->io++;
        r = co_volume_flush(slot->handle);
        slot->io--;
        if (r < 0)
                runner_fail(runner, "flush: %s", strerror(-r));
        else
                model_flush_end(runner->run->model, requested);
        runner_take_point(runner);
}

static void co_op_checkpoint(struct running *running)
{
        struct runner *runner = running->runner;
        struct error err = ERROR_INIT;
        uint64_t requested = model_tick(runner->run->model);

        if (co_pool_checkpoint(runner->pool, &err) < 0)
                runner_fail(runner, "checkpoint: %s", err.message);
        else
                model_flush_end(runner->run->model, requested);
        runner_take_point(runner);
}

static void co_op_add(struct running *running)
{
        struct runner *runner = running->runner;
        struct error err = ERROR_INIT;
        struct member *member = NULL;
        int r = runner_add_disk(runner, &member);

        if (r == 0)
                r = co_pool_add(runner->pool, &member, 1, &err);
        if (r < 0)
                runner_fail(runner, "add a member: %s", err.message);
        runner_take_point(runner);
}

static void co_op_reopen(struct running *running)
{
        struct runner *runner = running->runner;
        uint64_t requested = model_tick(runner->run->model);
        struct error err = ERROR_INIT;
        int r;

        runner_close_handles(runner);
        r = co_pool_close(runner->pool, &err);
        runner->pool = NULL;
        if (r < 0) {
                runner_fail(runner, "close: %s", err.message);
                return;
        }
        model_flush_end(runner->run->model, requested);
        runner_take_point(runner);
        if (co_runner_open(runner) == 0)
                runner_take_point(runner);
}

void co_op_run(struct running *running)
{
        struct runner *runner = running->runner;

        switch (running->op->kind) {
        case OP_WRITE:
        case OP_DISCARD:
        case OP_ZERO:
                co_op_write(running);
                return;
        case OP_READ:
                co_op_read(running);
                return;
        case OP_FLUSH:
                co_op_flush(running);
                return;
        case OP_CHECKPOINT:
                co_op_checkpoint(running);
                return;
        case OP_ADD:
                co_op_add(running);
                return;
        case OP_REOPEN:
                co_op_reopen(running);
                return;
        case OP_CRASH:
                co_runner_crash(runner, running->op->random);
                return;
        default:
                co_op_catalog(running);
                return;
        }
}
