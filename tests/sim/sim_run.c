/* sim_run.c - the steps of a run, one after another, as many at once as may be. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_run_impl.h"
#include "tests/sim/sim_shortage.h"

/* Callbacks of the loop: more for each step is an endless loop. */
#define CALLBACKS_STEP  UINT64_C(3000)
#define CALLBACKS_ROUND UINT64_C(1000000)
#define CALLBACKS_MIN   UINT64_C(3000000)
/* A waiting run looks around so often; by the clock of a simulation in which a request may take a
 * minute, and an operation needs thousands of them. */
#define TICK_NS        UINT64_C(10000000000)
#define TICKS_MAX      100000u
#define CUT_STEPS_MAX  40u /* after which power goes even if the disks are idle */
#define AFTER_STOP_MAX 12u /* steps after the pool stopped */

void sim_fail(struct sim_run *run, const char *format, ...)
{
        va_list ap;

        if (run->result->failed)
                return;
        run->result->failed = true;
        va_start(ap, format);
        vsnprintf(run->result->reason, sizeof(run->result->reason), format, ap);
        va_end(ap);
}

void sim_trace(struct sim_run *run, uint64_t value)
{
        run->result->trace = sim_mix(run->result->trace * 31 + value);
}

bool sim_spawn(struct sim_run *run, co_entry *entry, void *arg)
{
        int r;

        shortage_pause();
        r = co_spawn(run->loop, entry, arg);
        shortage_resume();
        return r == 0;
}

static void tick(struct loop_timer *timer)
{
        struct sim_run *run = container_of(timer, struct sim_run, ticker);

        run->n_ticks++;
        co_wake_all(&run->changed);
}

void co_sim_wait(struct sim_run *run)
{
        unsigned in_flight = run->in_flight;

        if (run->pool != NULL && pool_waits_for_space(run->pool)) {
                co_sim_relieve(run);
                return;
        }
        run->ticker.fire = tick;
        loop_timer_set(run->loop, &run->ticker, loop_now_ns(run->loop) + TICK_NS);
        co_wait(&run->changed);
        loop_timer_cancel(run->loop, &run->ticker);
        if (in_flight != run->in_flight)
                run->n_ticks = 0;
        if (run->n_ticks > TICKS_MAX) {
                sim_fail(run, "step %u: %u operations have no answer after %llu days", run->step,
                         run->in_flight,
                         (unsigned long long)(TICK_NS * TICKS_MAX / UINT64_C(86400000000000)));
                run->hangs = true;
        }
}

void co_sim_drain(struct sim_run *run)
{
        while (run->in_flight > 0 && !run->hangs)
                co_sim_wait(run);
}

/* Is it time for this life to end? */
static bool life_is_over(struct sim_run *run)
{
        if (run->cut_in > 0 || run->moment.taken)
                return run->moment.taken || ++run->cut_steps > CUT_STEPS_MAX;
        return sim_pool_has_failed(run) && (run->uncertain || ++run->n_after > AFTER_STOP_MAX);
}

static void co_steps(struct sim_run *run)
{
        for (uint32_t i = 0; i < run->plan->n_steps && !run->result->failed; i++) {
                struct sim_step step;
                char text[200];

                if (run->plan->dropped != NULL && run->plan->dropped[i])
                        continue;
                run->step = run->result->step = i;
                if (!sim_step_make(&run->character, run->plan->seed, i, model_now(run->model),
                                   &step))
                        continue;
                if (run->plan->show) {
                        sim_step_print(&step, text, sizeof(text));
                        printf("    %6u  %s  (%llu callbacks)\n", i, text,
                               (unsigned long long)sim_loop_steps(run->loop));
                        fflush(stdout);
                }
                if (step.kind == SIM_STEP_KILL || step.kind == SIM_STEP_CLOSE)
                        co_sim_next_life(run, step.kind, step.random);
                else
                        co_sim_step(run, &step);
                sim_harm_look(run);
                if (!run->result->failed && life_is_over(run))
                        co_sim_next_life(run,
                                         run->cut_in > 0 || run->moment.taken ||
                                                 step.random % 2 == 0
                                             ? SIM_STEP_CUT
                                             : SIM_STEP_KILL,
                                         step.random);
        }
        co_sim_drain(run);
}

static void co_rounds(struct sim_run *run)
{
        for (uint32_t i = 0; i < run->plan->n_steps && !run->result->failed; i++) {
                if (run->plan->dropped != NULL && run->plan->dropped[i])
                        continue;
                run->step = run->result->step = i;
                co_sim_fill_round(run);
        }
        co_sim_drain(run);
}

static void co_run_pool(void *arg)
{
        struct sim_run *run = arg;

        if (co_sim_create(run) == 0) {
                if (run->plan->fill)
                        co_rounds(run);
                else
                        co_steps(run);
                if (!run->result->failed)
                        co_sim_next_life(run, SIM_STEP_CLOSE, run->plan->seed);
        }
        co_sim_drain(run);
        if (!run->hangs)
                sim_end(run);
}

void sim_run(const struct sim_plan *plan, struct sim_result *result)
{
        struct sim_run *run = calloc(1, sizeof(*run));
        uint64_t limit =
            CALLBACKS_MIN + (plan->fill ? CALLBACKS_ROUND : CALLBACKS_STEP) * plan->n_steps;
        int r;

        *result = (struct sim_result){.failed = false};
        *run = (struct sim_run){.plan = plan, .result = result, .model = model_new()};
        sim_character_make(plan->seed, plan->fill, &run->character);
        co_queue_init(&run->changed);
        co_mutex_init(&run->images_lock);
        shortage_seed(plan->seed);
        r = sim_loop_new(plan->seed, true, &run->loop);
        sim_loop_set_step_limit(run->loop, limit);
        if (r == 0)
                r = sim_loop_co_run(run->loop, co_run_pool, run);
        shortage_off();
        if (r < 0 || run->hangs) {
                sim_fail(run, "step %u: %s", run->step,
                         r == -EDEADLK ? "nothing goes on any more" : "it goes on for ever");
                return; /* and nothing is released: it may still be in use */
        }
        for (unsigned i = 0; i < run->n_disks; i++)
                sim_disk_free(run->disks[i]);
        model_free(run->model);
        if (sim_loop_reset(run->loop, 0, false) > 0)
                sim_fail(run, "the closed pool left a timer armed");
        loop_free(run->loop);
        free(run->block_of);
        free(run->lost);
        sim_count(SIM_POOLS);
        free(run);
}
