/* sim_bases.c - the images that volumes stand on: copied into the pool, completed, found elsewhere;
 * and failing, away, and back again.
 *
 * An image that fails or is away costs the requests that it would have to be read for: EIO. It stops
 * nothing, and nothing is lost by it. */
#include <errno.h>
#include <stdio.h>
#include "pool/base.h"
#include "tests/crash/model_impl.h"
#include "tests/sim/sim_run_impl.h"

#define AWAY_STEPS_MAX 40u
#define CUT_EVENTS     4u
#define PIECE_BLOCKS   24u
#define PAUSE_NS       UINT64_C(20000000)
#define SLOW_NS        UINT64_C(40000000)
#define LARGEST_IMAGE  2u /* image_bytes(); content.h knows two kinds */

/* ---- excuses ---- */

uint64_t sim_image_hits(const struct sim_run *run)
{
        return run->images.n_failed + run->n_away;
}

bool sim_image_excuses(const struct sim_run *run, const struct sim_excuse *excuse, int error)
{
        return error == -EIO && (excuse->away || sim_image_hits(run) > excuse->image_hits);
}

bool sim_is_on_image(const struct sim_run *run, const struct sim_step *step)
{
        const struct model_root *root;
        char name[MODEL_NAME_MAX];

        if (step->kind == SIM_STEP_OP && !op_is_io(&step->op) && step->op.kind != OP_RESIZE)
                return op_is_copy(&step->op);
        if (step->kind == SIM_STEP_DIFF || step->kind == SIM_STEP_FILL)
                return run->character.images;
        if (step->kind != SIM_STEP_OP && step->kind != SIM_STEP_READ_SNAPSHOT)
                return false;
        snprintf(name, sizeof(name), "v%u",
                 step->kind == SIM_STEP_OP ? step->op.volume : step->volume);
        root = model_roots_find(model_now(run->model), name);
        return root != NULL && root->image != 0;
}

void sim_lose_image_block(struct sim_run *run, uint64_t block)
{
        model_damage(run->model, block);
        for (size_t i = 0; i < run->n_lost; i++)
                if (run->lost[i] == block)
                        return;
        run->lost = model_grow(run->lost, run->n_lost, sizeof(*run->lost));
        run->lost[run->n_lost++] = block;
}

uint64_t sim_copy_wants(const struct op *op)
{
        uint64_t size_bytes = image_bytes(LARGEST_IMAGE), n = 0;
        bool all = op->kind == OP_COMPLETE;

        for (uint64_t block = 0; block * BLOCK_SIZE < size_bytes; block++)
                n += (all || op_mask(op, block) != 0) &&
                     image_content(LARGEST_IMAGE, block, size_bytes).grain[0] != VERSION_ZERO;
        return n;
}

/* ---- copying ---- */

static struct image *co_image(struct sim_running *running)
{
        struct sim_run *run = running->run;
        char name[MODEL_NAME_MAX];

        snprintf(name, sizeof(name), "v%u",
                 running->step.kind == SIM_STEP_OP ? running->op->volume : running->step.volume);
        return co_images_of(&run->images, run->pool, name);
}

/* Its last volume may have been deleted meanwhile. */
static void see_copied(struct sim_running *running, int r)
{
        sim_trace(running->run, (uint64_t)-r);
        if (r == -ENOSPC)
                sim_count(SIM_COPY_FULL);
        else if (running->on_image && sim_image_excuses(running->run, &running->excuse, r))
                sim_count(SIM_COPY_FAILED);
        if (r != -ENOENT)
                sim_judge(running, r);
}

void co_sim_copy(struct sim_running *running)
{
        struct image *image = co_image(running);
        struct error err = ERROR_INIT;

        if (image != NULL)
                see_copied(running, co_image_copy(image, running->run->pool, running->op->offset,
                                                  running->op->length, &err));
}

/* All was copied with @result, and where that is 0 that is recorded. */
static int co_complete(struct sim_running *running, struct image *image, int result)
{
        struct sim_run *run = running->run;
        struct error err = ERROR_INIT;
        int r;

        if (result == 0)
                model_complete_begin(run->model, image_number(image));
        /* What it promises is broken by losing power about now, or never. */
        if (result == 0 && run->cut_in == 0 && !run->moment.taken && running->step.random % 2 == 0)
                run->cut_in = 1 + (unsigned)(running->step.random / 2 % CUT_EVENTS);
        r = co_image_complete(image, run->pool, result, &err);
        if (r == 0) {
                model_complete_end(run->model, image_number(image));
                sim_count(SIM_COMPLETED);
        }
        return r;
}

void co_sim_complete(struct sim_running *running)
{
        struct sim_run *run = running->run;
        struct image *image = co_image(running);
        struct error err = ERROR_INIT;
        int r;

        if (image == NULL || !image_complete_begin(image))
                return;
        r = co_image_copy(image, run->pool, 0, image_bytes(image_number(image)), &err);
        see_copied(running, co_complete(running, image, r));
}

/* As a server fills a pool: in pieces, as fast as a limit allows, stopped anywhere, and completed where it
 * has seen all. */
void co_sim_fill_from(struct sim_running *running)
{
        struct sim_run *run = running->run;
        struct image *image = co_image(running);
        struct error err = ERROR_INIT;
        struct sim_random random;
        bool all, limited;
        uint64_t at, n;
        int r = 0;

        if (image == NULL)
                return;
        sim_random_init(&random, running->step.random);
        all = sim_random_chance(&random, 2) && image_complete_begin(image);
        limited = sim_random_chance(&random, 2);
        at = all || sim_random_chance(&random, 2)
                 ? 0
                 : sim_random_below(&random, image_bytes(image_number(image)));
        n = all ? UINT64_MAX : sim_random_below(&random, 40);
        for (; n > 0 && r == 0 && at < image_bytes(image_number(image)); n--) {
                uint64_t length = (1 + sim_random_below(&random, PIECE_BLOCKS)) * BLOCK_SIZE;

                r = co_image_advance(image, run->pool, &at, length, &err);
                if (limited)
                        co_sleep_ns(1 + sim_random_below(&random, PAUSE_NS));
        }
        see_copied(running, all ? co_complete(running, image, r) : r);
}

void co_sim_move_image(struct sim_running *running)
{
        struct image *image = co_image(running);
        struct error err = ERROR_INIT;
        int r;

        if (image == NULL)
                return;
        r = co_image_move(image, running->run->pool, &err);
        sim_trace(running->run, (uint64_t)-r);
        if (r == 0)
                sim_count(SIM_IMAGE_MOVED);
        if (r != -ENOENT)
                sim_judge(running, r);
}

/* ---- failing, away, back ---- */

void sim_images_begin(struct sim_run *run, struct sim_random *random)
{
        if (run->character.images)
                run->images.slow_ns = SLOW_NS >> sim_random_below(random, 16);
}

void sim_images_fail(struct sim_run *run, uint64_t seed)
{
        struct sim_random random;

        sim_random_init(&random, seed);
        run->images.n_passing = sim_random_below(&random, 1u << sim_random_below(&random, 6));
        run->images.n_failing = 1 + sim_random_below(&random, 4);
}

static void set_away(struct sim_run *run, uint32_t back_at)
{
        run->away = true;
        run->back_at = back_at;
        run->n_away++;
}

void co_sim_images_away(struct sim_run *run, uint64_t random)
{
        if (run->away)
                return;
        co_lock(&run->images_lock);
        set_away(run, run->step + 1 + (uint32_t)(random % AWAY_STEPS_MAX));
        sim_count(SIM_IMAGE_AWAY);
        co_images_detach(&run->images, run->pool);
        co_unlock(&run->images_lock);
}

static int co_attach(struct sim_run *run, const struct sim_excuse *excuse)
{
        struct error err = ERROR_INIT;
        int r = co_images_open(&run->images, run->pool, &err);

        if (r == 0)
                return 0;
        set_away(run, run->step + 1);
        if (!sim_is_excused(run, excuse, r))
                sim_fail(run, "step %u: cannot attach an image: %s", run->step, err.message);
        return r;
}

void co_sim_images_back(struct sim_run *run)
{
        struct sim_excuse excuse;

        if (!run->away || run->step < run->back_at)
                return;
        excuse = sim_excuse(run);
        co_lock(&run->images_lock);
        if (co_attach(run, &excuse) == 0) {
                run->away = false;
                sim_count(SIM_IMAGE_BACK);
        }
        co_unlock(&run->images_lock);
}

void co_sim_images_follow(struct sim_run *run, const struct sim_excuse *excuse)
{
        if (!run->character.images)
                return;
        co_lock(&run->images_lock);
        if (!run->away)
                co_attach(run, excuse);
        co_images_tidy(&run->images, run->pool);
        co_unlock(&run->images_lock);
}

static int see_base(const struct pool_base_info *info, void *arg)
{
        struct sim_run *run = arg;

        if (info->n_dependents == 0 && !info->attached)
                sim_fail(run, "step %u: what was copied of image %s is nobody's, and stays",
                         run->step, info->description);
        return 0;
}

void co_sim_see_bases(struct sim_run *run)
{
        struct error err = ERROR_INIT;

        if (run->character.images)
                co_pool_bases(run->pool, see_base, run, &err);
}
