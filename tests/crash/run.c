/* run.c - see run.h. One coroutine goes through the plan and starts an operation as soon as it may
 * overlap with what is in flight; each runs as a coroutine of its own (run_ops.c). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"
#include "tests/crash/loops.h"
#include "tests/crash/observe.h"
#include "tests/crash/run_impl.h"
#include "tests/sim/sim_random.h"

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

/* ---- moments ---- */

void points_take(struct points *points, const struct point *times, struct sim_disk *const *disks,
                 unsigned n_disks)
{
        struct point *point;

        if (points->n == POINTS_MAX)
                return;
        points->point = model_grow(points->point, points->n, sizeof(*points->point));
        point = &points->point[points->n++];
        *point = *times;
        point->n_disks = n_disks;
        for (unsigned i = 0; i < n_disks; i++)
                point->disks[i] = sim_disk_snapshot(disks[i]);
}

void points_free(struct points *points)
{
        for (size_t i = 0; i < points->n; i++)
                for (unsigned k = 0; k < points->point[i].n_disks; k++)
                        sim_snapshot_free(points->point[i].disks[k]);
        free(points->point);
        *points = (struct points){.n = 0};
}

static void runner_take_point(struct runner *runner)
{
        struct point times = {
            .time = model_tick(runner->model),
            .answers = model_answers(runner->model),
            .op = runner->op,
        };

        if (runner->capturing)
                points_take(&runner->run->points, &times, runner->disks, runner->n_disks);
}

void runner_answered(struct runner *runner)
{
        runner_take_point(runner);
}

static void on_event(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        if (!event->completed && event->op != MEMBER_FLUSH)
                runner_take_point(arg);
}

/* ---- the pool ---- */

int runner_add_disk(struct runner *runner, struct member **ret_member)
{
        char name[16];
        struct sim_disk_options options = {
            .seed = sim_mix(runner->plan->seed + runner->n_disks + 1),
            .name = name,
            .in_order = runner->plan->seed % 3 == 0,
        };
        struct sim_image *image;
        struct sim_disk *disk;

        if (runner->n_disks == DISKS_MAX)
                return -ENFILE;
        snprintf(name, sizeof(name), "disk%u", runner->n_disks);
        image = sim_image_new(DISK_BYTES - (runner->n_disks % 2 == 0 ? 0 : DISK_BYTES / 4));
        disk = sim_disk_new(image, &options);
        sim_image_free(image);
        sim_disk_set_hook(disk, on_event, runner);
        runner->disks[runner->n_disks++] = disk;
        return sim_disk_open(disk, runner->loop, ret_member);
}

int co_runner_create(struct runner *runner)
{
        static const uint8_t uuid[16] = "tarn crash tests";
        struct pool_create_options options = {
            .name = "tank",
            .layout = runner->plan->seed % 4 == 0 ? POOL_LAYOUT_CONCAT : POOL_LAYOUT_STRIPE,
            .stripe_bytes = runner->plan->seed % 2 == 0 ? 0 : 8192,
            .slab_bytes = 256 << 10,
            .log_slabs = 1,
            .uuid = uuid,
        };
        struct member *members[DISKS_MAX];
        struct error err = ERROR_INIT;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < runner->plan->n_members; i++)
                r = runner_add_disk(runner, &members[i]);
        if (r == 0)
                r = co_pool_create(members, runner->n_disks, &options, &err);
        for (unsigned i = 0; i < runner->n_disks; i++)
                member_close(members[i]);
        if (r < 0)
                runner_fail(runner, "cannot create the pool: %s", err.message);
        return r;
}

void run_pool_options(const struct plan *plan, struct pool_options *ret_options)
{
        *ret_options = (struct pool_options){
            .cache_bytes = plan->small_cache ? 1 << 20 : 8 << 20,
            .checkpoint_interval_ms = 1,
            .manual_checkpoints = plan->manual_checkpoints,
        };
}

int co_runner_open(struct runner *runner)
{
        struct member *members[DISKS_MAX];
        struct pool_options options;
        struct error err = ERROR_INIT;
        unsigned n = 0;
        int r = 0;

        run_pool_options(runner->plan, &options);
        while (r == 0 && n < runner->n_disks) {
                r = sim_disk_open(runner->disks[n], runner->loop, &members[n]);
                n += r == 0;
        }
        if (r == 0)
                r = co_pool_open(runner->loop, members, runner->n_disks, &options, &runner->pool,
                                 &err);
        if (r < 0) {
                runner_fail(runner, "cannot open the pool: %s", err.message);
                while (n-- > 0)
                        member_close(members[n]);
        }
        return r;
}

void runner_close_handles(struct runner *runner)
{
        for (unsigned i = 0; i < VOLUME_SLOTS; i++) {
                co_volume_close(runner->slots[i].handle);
                runner->slots[i].handle = NULL;
        }
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
        root = model_roots_find(model_now(runner->model), name);
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
                return model_catalog_valid(runner->model, request);
        }
        if (!op_is_io(op))
                return op->kind != OP_ADD || runner->n_disks < DISKS_MAX;
        snprintf(name, sizeof(name), "v%u", op->volume);
        root = model_roots_find(model_now(runner->model), name);
        if (root == NULL || op->offset >= root->size_bytes ||
            op->length > root->size_bytes - op->offset)
                return false;
        for (uint64_t b = op->offset / BLOCK_SIZE;
             !op_is_wide(op) && b * BLOCK_SIZE < op->offset + op->length; b++)
                if (model_unsettled(runner->model, name, b) >= 8)
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

static void co_look_around(struct runner *runner)
{
        struct observed observed = {.n_roots = 0};
        char reason[REASON_MAX - 100];

        if (co_observe(runner->pool, &observed, reason, sizeof(reason)) < 0)
                runner_fail(runner, "before any crash: %s", reason);
        else if (!model_live_allowed(runner->model, &observed, reason, sizeof(reason)))
                runner_fail(runner, "before any crash: %s", reason);
        else if (co_check(runner->pool, reason, sizeof(reason)) < 0)
                runner_fail(runner, "before any crash: %s", reason);
        observed_free(&observed);
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
                co_look_around(runner);
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
            .model = model_new(),
        };
        const char *reason;

        *ret_run = (struct run){.plan = plan, .model = runner.model};
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
        model_free(run->model);
        *run = (struct run){.model = NULL};
}
