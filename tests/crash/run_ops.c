/* run_ops.c - one operation of a plan, carried out on the pool and told to the model. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"
#include "tests/crash/run_impl.h"

/* ---- the catalog ---- */

static void co_run_catalog(struct running *running)
{
        struct runner *runner = running->runner;
        uint32_t operation = model_catalog_begin(runner->run->model, &running->request);
        struct error err = ERROR_INIT;
        char text[200];
        int r = co_op_catalog(runner->pool, &running->request, &err);

        op_print(running->op, text, sizeof(text));
        if (r == -ENOSPC)
                runner->run->n_no_space++;
        else if (r < 0)
                runner_fail(runner, "%s: %s (%s)", text, err.message, strerror(-r));
        if (r == 0 && co_images_open(&runner->images, runner->pool, &err) < 0)
                runner_fail(runner, "%s: %s", text, err.message);
        co_images_tidy(&runner->images, runner->pool);
        model_catalog_end(runner->run->model, operation, r == 0);
        if (r == 0 && running->op->kind == OP_RENAME) {
                runner->slots[running->op->other].handle =
                    runner->slots[running->op->volume].handle;
                runner->slots[running->op->volume].handle = NULL;
        }
        runner_take_point(runner);
}

/* ---- reads and writes ---- */

static void co_op_write(struct running *running)
{
        struct runner *runner = running->runner;
        const struct op *op = running->op;
        bool zeroes = op->kind != OP_WRITE;
        uint64_t *blocks;
        size_t n = op_blocks(runner->run->model, op, &blocks);
        uint32_t *versions = calloc(n + 1, sizeof(*versions));
        uint8_t *bytes =
            zeroes
                ? NULL
                : aligned_alloc(BLOCK_SIZE, op->length / BLOCK_SIZE * BLOCK_SIZE + 3 * BLOCK_SIZE);
        /* Every fourth operation comes from memory that is not aligned. */
        uint8_t *buffer = zeroes ? NULL : bytes + (runner->op % 4 == 1 ? 24 : 0);
        char name[MODEL_NAME_MAX], text[200];
        int r;

        op_volume(op, name);
        op_print(op, text, sizeof(text));
        for (size_t i = 0; i < n; i++) {
                versions[i] = model_write_begin(runner->run->model, name, blocks[i],
                                                op_mask(op, blocks[i]), zeroes);
                if (!zeroes)
                        op_fill(op, buffer, blocks[i], versions[i]);
        }
        /* To the loss of power a logged write is as any other: its pages in the log are what differs.
         */
        r = co_op_submit(runner->slots[op->volume].handle, op, buffer, runner->op % 3 == 0);
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

        op_volume(op, name);
        op_print(op, text, sizeof(text));
        for (uint64_t b = op->offset / BLOCK_SIZE; b * BLOCK_SIZE < op->offset + op->length; b++) {
                struct content content;
                char known[600];

                op_content(op, buffer, b, &content);
                if (model_read_allowed(running->runner->run->model, name, b, op_mask(op, b),
                                       &content, requested))
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

/* ---- images ---- */

/* Its last volume may have been deleted meanwhile, and the pool may be full. */
static void see_copied(struct running *running, int r, const struct error *err)
{
        char text[200];

        op_print(running->op, text, sizeof(text));
        if (r == -ENOSPC)
                running->runner->run->n_no_space++;
        else if (r < 0 && r != -ENOENT)
                runner_fail(running->runner, "%s: %s", text, err->message);
}

static void co_op_copy(struct running *running)
{
        struct runner *runner = running->runner;
        struct error err = ERROR_INIT;
        char name[MODEL_NAME_MAX];
        struct image *image;
        int r;

        op_volume(running->op, name);
        image = co_images_of(&runner->images, runner->pool, name);
        if (image == NULL)
                return;
        r = co_image_copy(image, runner->pool, running->op->offset, running->op->length, &err);
        see_copied(running, r, &err);
        runner_take_point(runner);
}

static void co_op_complete(struct running *running)
{
        struct runner *runner = running->runner;
        struct error err = ERROR_INIT;
        char name[MODEL_NAME_MAX];
        struct image *image;
        int r;

        op_volume(running->op, name);
        image = co_images_of(&runner->images, runner->pool, name);
        if (image == NULL || !image_complete_begin(image))
                return;
        r = co_image_copy(image, runner->pool, 0, image_bytes(image_number(image)), &err);
        if (r == 0)
                model_complete_begin(runner->run->model, image_number(image));
        r = co_image_complete(image, runner->pool, r, &err);
        if (r == 0)
                model_complete_end(runner->run->model, image_number(image));
        see_copied(running, r, &err);
        runner_take_point(runner);
}

/* ---- the pool ---- */

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
        co_images_close(&runner->images, runner->pool);
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
        case OP_COPY:
                co_op_copy(running);
                return;
        case OP_COMPLETE:
                co_op_complete(running);
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
                co_run_catalog(running);
                return;
        }
}
