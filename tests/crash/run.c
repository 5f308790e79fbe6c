/* run.c - see run.h. One coroutine goes through the plan and starts an operation as soon as it may
 * overlap with what is in flight; each runs as a coroutine of its own (run_ops.c). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/loops.h"
#include "tests/crash/run_impl.h"

void runner_fail(struct runner *runner, const char *format, ...)
{
        va_list ap;

        if (runner->run->failed)
                return;
        runner->run->failed = true;
        va_start(ap, format);
        vsnprintf(runner->run->reason, sizeof(runner->run->reason), format, ap);
        va_end(ap);
}

/* ---- starting operations ---- */

/* Does a catalog operation need its volumes without I/O: a restore, a deletion, a shrink, a change
 * of slots. */
static bool needs_quiet(const struct runner *runner, const struct op *op)
{
        const struct model_root *root;
        char name[MODEL_NAME_MAX];

        if (op->kind != OP_RESIZE)
                return op->kind == OP_RESTORE || op->kind == OP_DELETE_VOLUME ||
                       op->kind == OP_RENAME;
        snprintf(name, sizeof(name), "v%u", op->volume);
        root = model_roots_find(model_now(runner->run->model), name);
        return root != NULL && op->size_bytes < root->size_bytes;
}

/* The slots that a catalog operation names, a bit each. */
static unsigned slots_named(const struct op *op)
{
        if (op->kind == OP_SNAPSHOT)
                return op->volumes;
        if (op->kind == OP_CLONE || op->kind == OP_RENAME)
                return 1u << op->volume | 1u << op->other;
        return 1u << op->volume;
}

static bool may_start(const struct runner *runner, const struct op *op)
{
        const struct slot *slot = &runner->slots[op->volume];

        if (runner->reopening)
                return false;
        if (runner->in_flight > 0 && (op->alone || runner->in_flight >= runner->plan->depth))
                return false;
        if (op->kind == OP_REOPEN)
                return runner->in_flight == 0;
        if (op->kind == OP_ADD)
                return !runner->adding;
        if (op_is_io(op))
                return !slot->exclusive && (!op_is_wide(op) || slot->io == 0);
        for (unsigned i = 0; op_is_catalog(op) && i < VOLUME_SLOTS; i++) {
                slot = &runner->slots[i];
                if (!(slots_named(op) >> i & 1))
                        continue;
                if (slot->catalog > 0 || (slot->exclusive && needs_quiet(runner, op)) ||
                    (slot->io > 0 && needs_quiet(runner, op)))
                        return false;
        }
        return true;
}

/* Once it may start: is it possible at all, as things are now? */
static bool is_possible(const struct runner *runner, const struct op *op,
                        struct catalog_request *request)
{
        const struct model_root *root;
        char name[MODEL_NAME_MAX];

        if (op_is_catalog(op)) {
                op_request(op, request);
                return model_catalog_valid(runner->run->model, request);
        }
        if (!op_is_io(op))
                return op->kind != OP_ADD || runner->n_disks < DISKS_MAX;
        snprintf(name, sizeof(name), "v%u", op->volume);
        root = model_roots_find(model_now(runner->run->model), name);
        if (root == NULL || op->offset >= root->size_bytes ||
            op->length > root->size_bytes - op->offset)
                return false;
        for (uint64_t b = op->offset / BLOCK_SIZE;
             !op_is_wide(op) && b * BLOCK_SIZE < op->offset + op->length; b++)
                if (model_unsettled(runner->run->model, name, b) >= 8)
                        return false; /* too many orders to look at */
        return true;
}

static void mark(struct runner *runner, const struct running *running, bool on)
{
        const struct op *op = running->op;
        unsigned change = on ? 1 : -1u;

        runner->in_flight += change;
        if (op->kind == OP_ADD)
                runner->adding = on;
        if (op->kind == OP_REOPEN)
                runner->reopening = on;
        if (op_is_io(op)) {
                runner->slots[op->volume].io += change;
                if (op_is_wide(op))
                        runner->slots[op->volume].exclusive = on;
        }
        for (unsigned i = 0; op_is_catalog(op) && i < VOLUME_SLOTS; i++)
                if (slots_named(op) >> i & 1) {
                        runner->slots[i].catalog += change;
                        if (running->quiet)
                                runner->slots[i].exclusive = on;
                }
}

static void co_running(void *arg)
{
        struct running *running = arg;
        struct runner *runner = running->runner;

        co_op_run(running);
        mark(runner, running, false);
        runner->run->n_ops++;
        free(running);
        co_wake_all(&runner->changed);
}

static int co_open_handle(struct runner *runner, unsigned slot)
{
        struct error err = ERROR_INIT;
        char name[MODEL_NAME_MAX];
        int r;

        if (runner->slots[slot].handle != NULL)
                return 0;
        snprintf(name, sizeof(name), "v%u", slot);
        r = co_volume_open(runner->pool, name, &runner->slots[slot].handle, &err);
        if (r < 0)
                runner_fail(runner, "cannot open %s: %s", name, err.message);
        return r;
}

/* Start the operation, or leave it out. */
static int co_start(struct runner *runner, unsigned index)
{
        const struct op *op = &runner->plan->ops[index];
        struct running *running;
        int r;

        while (!may_start(runner, op) && !runner->run->failed)
                co_wait(&runner->changed);
        running = calloc(1, sizeof(*running));
        if (running == NULL)
                return -ENOMEM;
        *running = (struct running){.runner = runner, .op = op};
        if (runner->run->failed || !is_possible(runner, op, &running->request)) {
                free(running);
                return 0;
        }
        r = op_is_io(op) ? co_open_handle(runner, op->volume) : 0;
        if (r == 0 && (op->kind == OP_RESTORE || op->kind == OP_DELETE_VOLUME)) {
                co_volume_close(runner->slots[op->volume].handle);
                runner->slots[op->volume].handle = NULL;
        }
        if (r < 0) {
                free(running);
                return r;
        }
        runner->op = index;
        running->quiet = op_is_catalog(op) && needs_quiet(runner, op);
        mark(runner, running, true);
        return co_spawn(runner->loop, co_running, running);
}

static void co_runner(void *arg)
{
        struct runner *runner = arg;
        const struct plan *plan = runner->plan;
        int r = co_runner_create(runner);

        if (r == 0)
                r = co_runner_open(runner);
        for (unsigned i = 0; r == 0 && i < plan->n_ops && !runner->run->failed; i++) {
                if (i == plan->first_op)
                        runner->capturing = true;
                if (runner->kept == NULL || runner->kept[i])
                        r = co_start(runner, i);
                while (plan->ops[i].alone && runner->in_flight > 0)
                        co_wait(&runner->changed);
        }
        while (runner->in_flight > 0)
                co_wait(&runner->changed);
        if (runner->pool != NULL && !runner->run->failed)
                co_runner_look(runner);
        runner_take_point(runner);
        runner->capturing = false;
        runner_close_handles(runner);
        if (runner->pool != NULL)
                co_pool_abandon(runner->pool);
}

void run_plan(const struct plan *plan, const bool *kept, struct run *ret_run)
{
        struct runner runner = {
            .run = ret_run,
            .plan = plan,
            .kept = kept,
        };
        const char *reason;

        *ret_run = (struct run){.plan = plan, .model = model_new()};
        co_queue_init(&runner.changed);
        runner.loop = loop_borrow();
        if (!loop_run_entry(plan->seed, co_runner, &runner, &reason)) {
                runner_fail(&runner, "after operation %u: %s", runner.op, reason);
                return; /* and nothing is released: it may still be in use */
        }
        for (unsigned i = 0; i < runner.n_disks; i++)
                sim_disk_free(runner.disks[i]);
}

void run_free(struct run *run)
{
        points_free(&run->points);
        for (size_t i = 0; i < run->n_models; i++)
                model_free(run->models[i]);
        free(run->models);
        model_free(run->model);
        *run = (struct run){.model = NULL};
}
