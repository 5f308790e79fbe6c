/* run_pool.c - the pool and the disks of a run: the moments kept, opening, looking,
 * losing power. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/members.h"
#include "tests/crash/model_impl.h"
#include "tests/crash/observe.h"
#include "tests/crash/run_impl.h"
#include "tests/sim/sim_random.h"

#define CRASH_POINTS 24u /* moments before a crash among which it is */

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

static unsigned phases(struct runner *runner)
{
        struct pool_info info = {.freeing_bytes = 0};
        unsigned mask = 0;

        if (runner->pool != NULL)
                pool_get_info(runner->pool, &info);
        for (unsigned i = 0; i < N_PHASES; i++)
                mask |= (runner->under_way[i] > 0) << i;
        return mask | (info.freeing_bytes > 0) << PHASE_FREEING;
}

void runner_take_point(struct runner *runner)
{
        struct point times = {
            .model = runner->run->model,
            .time = model_tick(runner->run->model),
            .answers = model_answers(runner->run->model),
            .op = runner->op,
            .phases = runner->capturing ? phases(runner) : 0,
        };

        if (runner->capturing)
                points_take(&runner->run->points, &times, runner->disks, runner->n_disks);
}

static void on_event(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        if (!event->completed && event->op != MEMBER_FLUSH)
                runner_take_point(arg);
}

/* ---- the pool ---- */

static struct sim_disk *new_disk(struct runner *runner, unsigned index,
                                 const struct sim_image *image)
{
        char name[16];
        struct sim_disk_options options = {
            .seed = sim_mix(runner->plan->seed + index + 1),
            .name = name,
            .in_order = runner->plan->seed % 3 == 0,
        };
        struct sim_disk *disk;

        snprintf(name, sizeof(name), "disk%u", index);
        disk = sim_disk_new(image, &options);
        sim_disk_set_hook(disk, on_event, runner);
        return disk;
}

int runner_add_disk(struct runner *runner, struct member **ret_member)
{
        unsigned index = runner->n_disks;
        struct sim_image *image;

        if (index == DISKS_MAX)
                return -ENFILE;
        image = sim_image_new(
            runner->plan->disk_bytes -
            (index % 2 == 0 ? 0 : runner->plan->disk_bytes / 4 / SIM_PAGE * SIM_PAGE));
        runner->disks[runner->n_disks++] = new_disk(runner, index, image);
        sim_image_free(image);
        return sim_disk_open(runner->disks[index], runner->loop, ret_member);
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
        unsigned n = 0, kept;
        int r;

        run_pool_options(runner->plan, &options);
        r = co_members_open(runner->loop, runner->disks, runner->n_disks, members, &n, &kept, &err);
        if (r == 0)
                r = co_pool_open(runner->loop, members, n, &options, &runner->pool, &err);
        if (r < 0) {
                runner->pool = NULL;
                runner_fail(runner, "cannot open the pool: %s", err.message);
                while (n-- > 0)
                        member_close(members[n]);
                return r;
        }
        r = co_images_open(&runner->images, runner->pool, &err);
        if (r < 0)
                runner_fail(runner, "cannot attach the images: %s", err.message);
        for (unsigned i = runner->n_disks; i-- > 0;)
                if (!(kept >> i & 1)) { /* no member, after a crash */
                        sim_disk_free(runner->disks[i]);
                        runner->n_disks--;
                        memmove(&runner->disks[i], &runner->disks[i + 1],
                                (runner->n_disks - i) * sizeof(runner->disks[0]));
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

/* ---- looking, and losing power ---- */

/* All that is there now, held against the model: as after a crash at @time, or (MODEL_NEVER)
 * without one. */
static int co_look(struct runner *runner, uint64_t time, struct observed *ret_observed)
{
        char reason[REASON_MAX - 100];
        const char *when = time == MODEL_NEVER ? "before any crash" : "after a crash in the run";
        const struct model *model = runner->run->model;

        if (co_observe(runner->pool, ret_observed, reason, sizeof(reason)) == 0 &&
            (time == MODEL_NEVER
                 ? model_live_allowed(model, ret_observed, reason, sizeof(reason))
                 : model_crash_allowed(model, time, ret_observed, reason, sizeof(reason))) &&
            co_check(runner->pool, reason, sizeof(reason)) == 0)
                return 0;
        runner_fail(runner, "%s: %s", when, reason);
        return -EUCLEAN;
}

void co_runner_look(struct runner *runner)
{
        struct observed observed = {.n_roots = 0};

        co_look(runner, MODEL_NEVER, &observed);
        observed_free(&observed);
}

/* The disks become what @point leaves of them. */
static void lose_power(struct runner *runner, const struct point *point, struct sim_random *random)
{
        for (unsigned i = 0; i < runner->n_disks; i++)
                sim_disk_free(runner->disks[i]);
        runner->n_disks = point->n_disks;
        for (unsigned i = 0; i < point->n_disks; i++) {
                size_t n = point->disks[i]->n_pending;
                uint8_t *choice = malloc(n + 1);
                struct sim_image *image;

                for (size_t k = 0; choice != NULL && k < n; k++)
                        choice[k] =
                            (uint8_t)(sim_random_chance(random, 3) ? sim_random_below(random, 256)
                                                                   : sim_random_below(random, 2));
                image = sim_snapshot_crash(point->disks[i], choice);
                runner->disks[i] = new_disk(runner, i, image);
                sim_image_free(image);
                free(choice);
        }
}

/* From now on what came back is what there is. */
static void start_again(struct runner *runner, const struct observed *observed)
{
        struct run *run = runner->run;

        run->models = model_grow(run->models, run->n_models, sizeof(struct model *));
        run->models[run->n_models++] = run->model;
        run->model = model_after_crash(run->model, observed);
        runner->first_point = run->points.n;
}

void co_runner_crash(struct runner *runner, uint64_t seed)
{
        struct points *points = &runner->run->points;
        size_t n = points->n - runner->first_point;
        struct observed observed = {.n_roots = 0};
        struct sim_random random;
        uint64_t time;

        if (n == 0)
                return;
        sim_random_init(&random, seed);
        runner_close_handles(runner);
        co_pool_abandon(runner->pool);
        runner->pool = NULL;
        images_free(&runner->images);
        runner->capturing = false;
        n = points->n - 1 - (size_t)sim_random_below(&random, n < CRASH_POINTS ? n : CRASH_POINTS);
        time = points->point[n].time;
        lose_power(runner, &points->point[n], &random);
        if (co_runner_open(runner) < 0 || co_look(runner, time, &observed) < 0)
                return;
        start_again(runner, &observed);
        observed_free(&observed);
        runner->capturing = true;
        runner_take_point(runner);
}
