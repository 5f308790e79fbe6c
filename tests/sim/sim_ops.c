/* sim_ops.c - one step of a run, carried out on the pool and told to the model. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"
#include "tests/sim/sim_run_impl.h"
#include "tests/sim/sim_shortage.h"

#define OPEN_MAX   3u /* writes to a block that may be there or not: more orders take too long */
#define N_EXTENTS  32u
#define READ_BYTES (64u << 10)

bool sim_root_exists(const struct sim_run *run, const char *name)
{
        return model_roots_find(model_now(run->model), name) != NULL;
}

/* Any of the blocks of the request may be unreadable. */
static bool reads_damage(const struct sim_run *run, const struct op *op)
{
        char name[MODEL_NAME_MAX];

        op_volume(op, name);
        if (op_is_wide(op)) /* only its ends are read */
                return run->tainted;
        for (uint64_t b = op->offset / BLOCK_SIZE; b * BLOCK_SIZE < op->offset + op->length; b++)
                if (sim_may_be_unreadable(run, name, b))
                        return true;
        return false;
}

/* Nothing else was under way since it began. */
static bool was_alone(const struct sim_running *running)
{
        return running->began_alone && running->n_started == running->run->n_started;
}

/* No space, the pool says. */
static void judge_full(struct sim_running *running)
{
        struct sim_run *run = running->run;
        char text[200], why[400];

        sim_harm_look(run);
        /* The space of a member that was added meanwhile may have come a moment too late. */
        if (run->hits > 0 || run->adding || running->excuse.adding ||
            run->n_disks != running->excuse.n_disks ||
            sim_is_full(run, running->op, was_alone(running), why, sizeof(why)))
                return;
        sim_step_print(&running->step, text, sizeof(text));
        sim_fail(run, "step %u, %s: refused for lack of space, and there is some: %s",
                 running->number, text, why);
}

void sim_judge(struct sim_running *running, int r)
{
        struct sim_run *run = running->run;
        char text[200];

        run->failure = r < 0 ? r : run->failure;
        if (r == -ENOSPC && running->step.kind == SIM_STEP_OP)
                judge_full(running);
        if (r >= 0 || sim_is_excused(run, &running->excuse, r) ||
            (r == -EIO && op_is_io(running->op) && reads_damage(run, running->op)) ||
            (running->on_image && sim_image_excuses(run, &running->excuse, r)) ||
            /* A new end may lie in a block that is damaged. */
            (r == -EIO && running->op->kind == OP_RESIZE && run->tainted))
                return;
        sim_step_print(&running->step, text, sizeof(text));
        sim_fail(run, "step %u, %s: %s, and nothing had gone wrong", running->number, text,
                 strerror(-r));
}

/* ---- the catalog ---- */

static void co_catalog(struct sim_running *running)
{
        struct sim_run *run = running->run;
        uint32_t operation = model_catalog_begin(run->model, &running->request);
        struct error err = ERROR_INIT;
        int r = co_op_catalog(run->pool, &running->request, &err);

        sim_count(SIM_OPERATIONS);
        sim_trace(run, (uint64_t)-r);
        if (r == -ENOSPC)
                sim_count(SIM_POOL_FULL);
        sim_judge(running, r);
        if (r < 0 && sim_pool_has_failed(run)) {
                run->uncertain = true;
                return;
        }
        co_sim_images_follow(run, &running->excuse);
        model_catalog_end(run->model, operation, r == 0);
        if (r == 0 && running->op->kind == OP_RENAME) {
                run->slots[running->op->other].handle = run->slots[running->op->volume].handle;
                run->slots[running->op->volume].handle = NULL;
        }
}

/* ---- reads and writes ---- */

/* Aligned, with room for a place in it that is not: what is not copied must not depend on where
 * memory happens to be found. */
static uint8_t *buffer_new(uint64_t length)
{
        return aligned_alloc(BLOCK_SIZE, length / BLOCK_SIZE * BLOCK_SIZE + 3 * BLOCK_SIZE);
}

static uint32_t begin_write(struct sim_run *run, const struct op *op, const char *name,
                            uint64_t block, bool zeroes)
{
        uint32_t version = model_write_begin(run->model, name, block, op_mask(op, block), zeroes);

        if (version >= run->block_of_room) {
                run->block_of_room = 2 * (size_t)version + 64;
                run->block_of = realloc(run->block_of, run->block_of_room * sizeof(*run->block_of));
        }
        run->block_of[version] = block;
        return version;
}

static void co_write(struct sim_running *running)
{
        struct sim_run *run = running->run;
        const struct op *op = running->op;
        bool zeroes = op->kind != OP_WRITE;
        uint64_t *blocks;
        size_t n = op_blocks(run->model, op, &blocks);
        uint32_t *versions = calloc(n + 1, sizeof(*versions));
        uint8_t *bytes = zeroes ? NULL : buffer_new(op->length);
        /* Every fourth operation comes from memory that is not aligned. */
        uint8_t *buffer = zeroes ? NULL : bytes + (running->number % 4 == 1 ? 24 : 0);
        char name[MODEL_NAME_MAX];
        int r;

        op_volume(op, name);
        for (size_t i = 0; i < n; i++) {
                versions[i] = begin_write(run, op, name, blocks[i], zeroes);
                if (!zeroes)
                        op_fill(op, buffer, blocks[i], versions[i]);
        }
        r = co_op_submit(run->slots[op->volume].handle, op, buffer, running->number % 3 == 0);
        sim_count(SIM_IOS);
        sim_trace(run, (uint64_t)-r);
        if (r == -ENOSPC)
                sim_count(SIM_POOL_FULL);
        sim_judge(running, r);
        for (size_t i = 0; i < n; i++)
                if (r < 0)
                        model_write_fail(run->model, versions[i]);
                else
                        model_write_end(run->model, versions[i], op->fua);
        free(bytes);
        free(versions);
        free(blocks);
}

static void check_block(struct sim_running *running, const char *name, const struct op *op,
                        const uint8_t *buffer, uint64_t block, uint64_t requested)
{
        struct sim_run *run = running->run;
        struct content content;
        char known[600], text[200];

        op_content(op, buffer, block, &content);
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                sim_trace(run, content.grain[g]);
        if (run->uncertain ||
            model_read_allowed(run->model, name, block, op_mask(op, block), &content, requested))
                return;
        sim_step_print(&running->step, text, sizeof(text));
        model_describe(run->model, model_roots_find(model_now(run->model), name), block, known,
                       sizeof(known));
        sim_fail(run, "step %u, %s: block %llu of %s holds %u .. %u, which it must not; known: %s",
                 running->number, text, (unsigned long long)block, name, content.grain[0],
                 content.grain[BLOCK_GRAINS - 1], known);
}

static void co_read(struct sim_running *running)
{
        struct sim_run *run = running->run;
        const struct op *op = running->op;
        uint64_t requested = model_tick(run->model);
        uint8_t *bytes = buffer_new(op->length);
        uint8_t *buffer = bytes + (running->number % 4 == 1 ? 24 : 0);
        char name[MODEL_NAME_MAX];
        int r = co_volume_read(run->slots[op->volume].handle, buffer, op->length, op->offset);

        op_volume(op, name);
        model_tick(run->model);
        sim_count(SIM_IOS);
        sim_trace(run, (uint64_t)-r);
        sim_judge(running, r);
        for (uint64_t b = op->offset / BLOCK_SIZE;
             r == 0 && !op_is_wide(op) && b * BLOCK_SIZE < op->offset + op->length; b++)
                check_block(running, name, op, buffer, b, requested);
        free(bytes);
}

/* A snapshot of the step's volume, by lot; NULL: there is none. */
static const struct model_root *pick_snapshot(const struct sim_run *run,
                                              const struct sim_step *step)
{
        const struct model_roots *now = model_now(run->model);
        char prefix[MODEL_NAME_MAX];
        unsigned n = 0, at;

        snprintf(prefix, sizeof(prefix), "v%u@", step->volume);
        for (unsigned i = 0; i < now->n; i++)
                n += strncmp(now->root[i].name, prefix, strlen(prefix)) == 0;
        if (n == 0)
                return NULL;
        at = (unsigned)(step->random % n);
        for (unsigned i = 0; i < now->n; i++)
                if (strncmp(now->root[i].name, prefix, strlen(prefix)) == 0 && at-- == 0)
                        return &now->root[i];
        return NULL;
}

static void co_read_snapshot(struct sim_running *running)
{
        struct sim_run *run = running->run;
        const struct model_root *root = pick_snapshot(run, &running->step);
        struct op op = {.kind = OP_READ, .volume = (uint8_t)running->step.volume};
        uint64_t requested = model_tick(run->model), n_blocks;
        char name[2 * MODEL_NAME_MAX];
        struct error err = ERROR_INIT;
        struct volume *volume;
        uint8_t *buffer;
        int r;

        if (root == NULL)
                return;
        memcpy(name, root->name, sizeof(name));
        n_blocks = (root->size_bytes + BLOCK_SIZE - 1) / BLOCK_SIZE;
        op.offset = running->step.random / 64 % (n_blocks < 40 ? n_blocks : 40) * BLOCK_SIZE;
        op.length = root->size_bytes - op.offset < 4 * BLOCK_SIZE ? root->size_bytes - op.offset
                                                                  : 4 * BLOCK_SIZE;
        r = co_volume_open(run->pool, name, &volume, &err);
        if (r < 0) {
                if (r != -ENOENT)
                        sim_judge(running, r);
                return;
        }
        buffer = buffer_new(op.length);
        r = co_volume_read(volume, buffer, op.length, op.offset);
        co_volume_close(volume);
        sim_count(SIM_IOS);
        sim_trace(run, (uint64_t)-r);
        /* Deleted meanwhile, its name may be another's. */
        if (run->slots[op.volume].catalog == 0 && sim_root_exists(run, name)) {
                if (r < 0 && !sim_is_excused(run, &running->excuse, r) &&
                    !(r == -EIO && run->tainted))
                        sim_judge(running, r);
                for (uint64_t b = op.offset / BLOCK_SIZE;
                     r == 0 && b * BLOCK_SIZE < op.offset + op.length; b++)
                        check_block(running, name, &op, buffer, b, requested);
        }
        free(buffer);
}

/* ---- the pool ---- */

/* Any volume's handle will do for a flush; with none, there is nobody to ask. */
static void co_flush(struct sim_running *running)
{
        struct sim_run *run = running->run;
        struct slot *slot = NULL;
        uint64_t requested;
        int r;

        for (unsigned i = 0; i < VOLUME_SLOTS && slot == NULL; i++)
                if (run->slots[i].handle != NULL && !run->slots[i].exclusive)
                        slot = &run->slots[i];
        if (slot == NULL)
                return;
        requested = model_tick(run->model);
        slot->io++;
        r = co_volume_flush(slot->handle);
        slot->io--;
        sim_count(SIM_IOS);
        sim_trace(run, (uint64_t)-r);
        sim_judge(running, r);
        if (r == 0)
                model_flush_end(run->model, requested);
}

static void co_checkpoint(struct sim_running *running, bool settle)
{
        struct sim_run *run = running->run;
        struct error err = ERROR_INIT;
        uint64_t requested = model_tick(run->model);
        int r = settle ? co_pool_settle(run->pool, &err) : co_pool_checkpoint(run->pool, &err);

        sim_trace(run, (uint64_t)-r);
        sim_judge(running, r);
        if (r == 0 && !settle)
                model_flush_end(run->model, requested);
}

static void co_add(struct sim_running *running)
{
        struct sim_run *run = running->run;
        struct error err = ERROR_INIT;
        struct member *member = NULL;
        int r = sim_add_disk(run, &member);

        if (r < 0)
                return;
        r = co_pool_add(run->pool, &member, 1, &err);
        sim_judge(running, r);
        if (r < 0)
                member_close(member);
}

static void co_check(struct sim_running *running)
{
        char text[600] = "";
        int r = co_sim_check(running->run, text, sizeof(text));

        if (r == -EUCLEAN)
                sim_fail(running->run, "step %u, check while in use: %s", running->number, text);
        else
                sim_judge(running, r);
}

static int on_range(uint64_t offset, uint64_t length, void *arg)
{
        sim_trace(arg, offset + length);
        return 0;
}

static void co_diff(struct sim_running *running)
{
        struct sim_run *run = running->run;
        const struct model_roots *now = model_now(run->model);
        char a[2 * MODEL_NAME_MAX], b[2 * MODEL_NAME_MAX];
        uint64_t n_let_go = run->images.n_let_go;
        struct error err = ERROR_INIT;
        int r;

        if (now->n == 0)
                return;
        memcpy(a, now->root[running->step.random % now->n].name, sizeof(a));
        memcpy(b, now->root[running->step.random / 64 % now->n].name, sizeof(b));
        r = co_pool_diff(run->pool, a, b, on_range, run, &err);
        if (r == -EIO && run->images.n_let_go > n_let_go)
                r = -ENOENT; /* the image went with the last volume on it */
        /* Either may be deleted meanwhile; low on space it may give up, as a check may. */
        if (r != -ENOENT && r != -EAGAIN && !(r == -EIO && run->tainted))
                sim_judge(running, r);
}

/* With nothing else under way: does all differ that differs, where the two begin? */
static void co_see_changed(struct sim_running *running, struct volume *volume,
                           struct volume *snapshot, const struct volume_extent *extents, size_t n)
{
        uint64_t length = volume_size(volume) < READ_BYTES ? volume_size(volume) : READ_BYTES;
        uint64_t since = volume_size(snapshot) < length ? volume_size(snapshot) : length, at = 0;
        uint8_t *now = buffer_new(READ_BYTES), *then = buffer_new(READ_BYTES);
        int r = was_alone(running) ? co_volume_read(volume, now, length, 0) : -EBUSY;

        memset(then, 0, length);
        if (r == 0)
                r = co_volume_read(snapshot, then, since, 0);
        for (size_t i = 0; r == 0 && was_alone(running) && i < n && at < length; i++) {
                uint64_t part = extents[i].length < length - at ? extents[i].length : length - at;

                if (!(extents[i].flags & EXTENT_CHANGED) && memcmp(now + at, then + at, part) != 0)
                        sim_fail(running->run, "step %u, changes of v%u: bytes %llu+%llu differ",
                                 running->number, running->step.volume, (unsigned long long)at,
                                 (unsigned long long)part);
                at += part;
        }
        free(now);
        free(then);
}

static void co_changed(struct sim_running *running)
{
        struct sim_run *run = running->run;
        const struct model_root *since = pick_snapshot(run, &running->step);
        struct volume_extent extents[N_EXTENTS];
        char volume_text[MODEL_NAME_MAX], name[2 * MODEL_NAME_MAX];
        struct volume *volume = NULL, *snapshot = NULL;
        struct error err = ERROR_INIT;
        size_t n = 0;
        int r;

        if (since == NULL)
                return;
        memcpy(name, since->name, sizeof(name));
        snprintf(volume_text, sizeof(volume_text), "v%u", running->step.volume);
        r = co_volume_open(run->pool, volume_text, &volume, &err);
        if (r == 0)
                r = co_volume_open(run->pool, name, &snapshot, &err);
        if (r == 0)
                r = co_volume_changed(volume, snapshot, 0, volume_size(volume), extents, N_EXTENTS,
                                      &n);
        for (size_t i = 0; r == 0 && i < n; i++)
                sim_trace(run, extents[i].length * 8 + extents[i].flags);
        if (r != -ENOENT && !(r == -EIO && run->tainted))
                sim_judge(running, r);
        /* Without images pools that found something once are to stay as they were. */
        if (r == 0 && run->character.images)
                co_see_changed(running, volume, snapshot, extents, n);
        co_volume_close(snapshot);
        co_volume_close(volume);
}

static void co_set(struct sim_running *running)
{
        static const char *const full[] = {"wait", "wait", "enospc", NULL};
        static const char *const iops[] = {"200", "2000", NULL};
        static const char *const bandwidth[] = {"1M", "100M", NULL};
        struct sim_run *run = running->run;
        uint64_t random = running->step.random;
        struct error err = ERROR_INIT;
        char name[MODEL_NAME_MAX];
        int r;

        snprintf(name, sizeof(name), "v%u", running->step.volume);
        if (running->step.kind == SIM_STEP_ON_FULL)
                r = co_volume_set(run->pool, name, "on-full", full[random % 4], &err);
        else if (random % 2 == 0)
                r = co_volume_set(run->pool, name, "iops", iops[random / 2 % 3], &err);
        else
                r = co_volume_set(run->pool, name, "bandwidth", bandwidth[random / 2 % 3], &err);
        if (r != -ENOENT && r != -ENOSPC)
                sim_judge(running, r);
}

/* ---- beginning and ending ---- */

static void co_carry_out(struct sim_running *running)
{
        switch (running->step.kind) {
        case SIM_STEP_READ_SNAPSHOT:
                co_read_snapshot(running);
                return;
        case SIM_STEP_CHECK:
                co_check(running);
                return;
        case SIM_STEP_SETTLE:
                co_checkpoint(running, true);
                return;
        case SIM_STEP_DIFF:
                co_diff(running);
                return;
        case SIM_STEP_CHANGED:
                co_changed(running);
                return;
        case SIM_STEP_LIMIT:
        case SIM_STEP_ON_FULL:
                co_set(running);
                return;
        case SIM_STEP_FILL:
                co_sim_fill_from(running);
                return;
        case SIM_STEP_MOVE_IMAGE:
                co_sim_move_image(running);
                return;
        default:
                break;
        }
        if (running->op->kind == OP_READ)
                co_read(running);
        else if (op_is_io(running->op))
                co_write(running);
        else if (running->op->kind == OP_FLUSH)
                co_flush(running);
        else if (running->op->kind == OP_CHECKPOINT)
                co_checkpoint(running, false);
        else if (running->op->kind == OP_ADD)
                co_add(running);
        else if (running->op->kind == OP_COPY)
                co_sim_copy(running);
        else if (running->op->kind == OP_COMPLETE)
                co_sim_complete(running);
        else
                co_catalog(running);
}

/* A step that holds handles of a volume must not find it deleted. */
static bool holds_volume(const struct sim_step *step)
{
        return step->kind == SIM_STEP_READ_SNAPSHOT || step->kind == SIM_STEP_CHANGED;
}

static void mark(struct sim_running *running, bool on)
{
        struct sim_run *run = running->run;
        unsigned change = on ? 1 : -1u;

        if (on) {
                running->began_alone = run->in_flight == 0;
                running->n_started = ++run->n_started;
        }
        run->in_flight += change;
        if (running->step.kind == SIM_STEP_OP)
                run->blocks_wanted += (on ? 1 : -UINT64_C(1)) * sim_blocks_wanted(running->op);
        if (holds_volume(&running->step))
                run->slots[running->step.volume].io += change;
        if (running->step.kind != SIM_STEP_OP)
                return;
        if (running->op->kind == OP_ADD)
                run->adding = on;
        slots_mark(run->slots, running->op, running->quiet, on);
}

static void co_running(void *arg)
{
        struct sim_running *running = arg;
        struct sim_run *run = running->run;

        co_carry_out(running);
        sim_harm_look(run);
        mark(running, false);
        free(running);
        co_wake_all(&run->changed);
}

/* Nothing else is to be under way. */
static bool is_alone(const struct sim_run *run, const struct sim_step *step)
{
        if (step->kind == SIM_STEP_CHANGED)
                return run->character.images && step->random % 2 == 0;
        return step->kind == SIM_STEP_OP && step->op.alone;
}

static bool may_start(const struct sim_run *run, const struct sim_step *step)
{
        const struct op *op = &step->op;

        if (run->in_flight > 0 && (is_alone(run, step) || run->in_flight >= run->depth))
                return false;
        if (holds_volume(step))
                return !run->slots[step->volume].exclusive && run->slots[step->volume].catalog == 0;
        if (step->kind != SIM_STEP_OP)
                return true;
        if (op->kind == OP_ADD)
                return !run->adding;
        return slots_may_start(run->slots, run->model, op);
}

static bool is_possible(const struct sim_run *run, const struct sim_step *step)
{
        const struct op *op = &step->op;
        char name[MODEL_NAME_MAX];

        if (step->kind != SIM_STEP_OP)
                return true;
        /* What has stopped is only read; what an operation without an answer did is not known. */
        if (sim_pool_has_failed(run) && op->kind != OP_READ)
                return false;
        if (run->uncertain && op_is_catalog(op))
                return false;
        if (op->kind == OP_ADD && run->n_disks >= run->character.n_members_max)
                return false;
        if (!op_is_possible(run->model, op))
                return false;
        op_volume(op, name);
        for (uint64_t b = op->offset / BLOCK_SIZE;
             op_is_io(op) && op->kind != OP_READ && !op_is_wide(op) &&
             b * BLOCK_SIZE < op->offset + op->length;
             b++)
                if (model_open(run->model, name, b) >= OPEN_MAX)
                        return false;
        return true;
}

/* Handles are opened when first used, and not while a volume must have none. */
static bool co_prepare_handle(struct sim_running *running)
{
        struct slot *slot = &running->run->slots[running->op->volume];
        struct error err = ERROR_INIT;
        char name[MODEL_NAME_MAX];
        int r = 0;

        op_volume(running->op, name);
        if (op_is_io(running->op) && slot->handle == NULL)
                r = co_volume_open(running->run->pool, name, &slot->handle, &err);
        sim_judge(running, r);
        if (r == 0 && (running->op->kind == OP_RESTORE || running->op->kind == OP_DELETE_VOLUME)) {
                co_volume_close(slot->handle);
                slot->handle = NULL;
        }
        return r == 0;
}

static void co_start(struct sim_run *run, const struct sim_step *step)
{
        struct sim_running *running;

        while (!may_start(run, step) && !run->result->failed)
                co_sim_wait(run);
        if (run->result->failed || !is_possible(run, step))
                return;
        running = calloc(1, sizeof(*running));
        *running = (struct sim_running){.run = run, .step = *step, .number = run->step};
        running->op = &running->step.op;
        running->excuse = sim_excuse(run);
        running->on_image = sim_is_on_image(run, step);
        if (step->kind == SIM_STEP_OP) {
                if (op_is_catalog(running->op))
                        op_request(running->op, &running->request);
                running->quiet =
                    op_is_catalog(running->op) && op_needs_quiet(run->model, running->op);
                if (!co_prepare_handle(running)) {
                        free(running);
                        return;
                }
        }
        mark(running, true);
        if (!sim_spawn(run, co_running, running)) {
                mark(running, false);
                free(running);
        }
}

void co_sim_op(struct sim_run *run, const struct op *op)
{
        struct sim_step step = {.kind = SIM_STEP_OP, .op = *op};

        step.op.alone = true;
        co_start(run, &step);
        co_sim_drain(run);
}

void co_sim_step(struct sim_run *run, const struct sim_step *step)
{
        co_sim_images_back(run);
        if (step->kind == SIM_STEP_FAULT) {
                sim_harm(run, step);
                return;
        }
        if (step->kind == SIM_STEP_IMAGE_FAILS) {
                sim_images_fail(run, step->random);
                return;
        }
        if (step->kind == SIM_STEP_IMAGES_AWAY) {
                co_sim_images_away(run, step->random);
                return;
        }
        if (step->kind == SIM_STEP_CUT) {
                if (run->cut_in == 0 && !run->moment.taken)
                        run->cut_in = 1 + (unsigned)(step->random % 60);
                return;
        }
        co_start(run, step);
        while (is_alone(run, step) && run->in_flight > 0 && !run->result->failed)
                co_sim_wait(run);
}
