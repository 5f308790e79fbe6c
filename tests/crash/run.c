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

static bool may_start(const struct runner *runner, const struct op *op)
{
        if (runner->reopening)
                return false;
        if (runner->in_flight > 0 && (op->alone || runner->in_flight >= runner->plan->depth))
                return false;
        if (op->kind == OP_REOPEN)
                return runner->in_flight == 0;
        if (op->kind == OP_ADD)
                return !runner->adding;
        return slots_may_start(runner->slots, runner->run->model, op);
}

/* Once it may start: is it possible at all, as things are now? */
static bool is_possible(const struct runner *runner, const struct op *op,
                        struct catalog_request *request)
{
        if (op_is_catalog(op))
                op_request(op, request);
        if (op->kind == OP_ADD && runner->n_disks == DISKS_MAX)
                return false;
        return op_is_possible(runner->run->model, op);
}

/* What an operation makes of a moment; N_PHASES: nothing. */
static enum phase phase_of(const struct op *op)
{
        switch (op->kind) {
        case OP_CHECKPOINT:
        case OP_REOPEN:
                return PHASE_CHECKPOINT;
        case OP_DELETE_SNAPSHOT:
        case OP_DELETE_VOLUME:
                return PHASE_DELETE;
        case OP_RESIZE:
                return PHASE_RESIZE;
        case OP_ADD:
                return PHASE_ADD;
        case OP_COPY:
        case OP_COMPLETE:
                return PHASE_COPY;
        default:
                return N_PHASES;
        }
}

static void mark(struct runner *runner, const struct running *running, bool on)
{
        enum phase phase = phase_of(running->op);
        const struct op *op = running->op;
        unsigned change = on ? 1 : -1u;

        runner->in_flight += change;
        if (phase != N_PHASES)
                runner->under_way[phase] += change;
        if (op->kind == OP_ADD)
                runner->adding = on;
        if (op->kind == OP_REOPEN)
                runner->reopening = on;
        slots_mark(runner->slots, op, running->quiet, on);
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
        running->quiet = op_is_catalog(op) && op_needs_quiet(runner->run->model, op);
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
        images_free(&runner->images);
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
