/* sim.c - the simulator: see README.md. Exit status 0: nothing found; 1: a promise broken, which is
 * printed with the shortest plan found; 2: usage. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/log.h"
#include "tests/crash/number.h"
#include "tests/crash/process.h"
#include "tests/sim/sim_count.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/sim_run.h"

#define JOBS_MAX       64u
#define POOL_STEPS     4000u /* of each pool, where --pool-steps does not say otherwise */
#define POOL_ROUNDS    40u   /* of filling it */
#define POOL_SECONDS   240u
#define SHRINK_SECONDS 60
#define ALIKE          36u /* characters of a reason that say what is broken */

static const char usage[] =
    "usage: sim [OPTION]...\n"
    "Run pools over simulated disks that fail in every way, and hold what comes back against a "
    "model.\n"
    "  --seed N        of the simulation: its pools follow from it (default 1)\n"
    "  --steps N       in all (default 200000)\n"
    "  --minutes M     go on with more pools until M minutes have passed\n"
    "  --fill-rounds N instead of steps: fill pools to the last block and free them, N times in "
    "all\n"
    "  --pool-steps N  of each pool (default 4000)\n"
    "  --jobs N        processes (default 2)\n"
    "  --at-least N    exit status 1 where a kind of fault struck (with --fill-rounds: a kind of "
    "round\n"
    "                  was) less often than N times\n"
    "  --every-way     exit status 1 where the engine never took one of its ways\n"
    "  --pool SEED     only that pool, as printed\n"
    "  --kept LIST     with --pool: only these of its steps, as printed: 0-2,17,40-44\n"
    "  --show          with --pool: print its steps and what the engine logs\n"
    "  --must-find     exit status 0 where a broken promise is found, 1 where none is\n"
    "  --as-found      do not shorten a plan that fails\n";

struct settings {
        uint64_t seed, steps, max_seconds, at_least;
        uint32_t pool_steps;
        unsigned n_jobs;
        bool has_pool, show, must_find, as_found, has_kept, fill, every_way;
        uint64_t pool;
        uint8_t *dropped;
};

/* What a process shows of itself. */
struct job {
        struct sim_counters counters;
        struct sim_result result; /* of the pool at hand */
        uint64_t pool;            /* its seed */
        uint64_t trace;           /* of all its pools */
        bool found;
};

/* ---- processes ---- */

static void log_to_stdout(enum log_level level, const char *message)
{
        printf("            log: %s\n", message);
        sim_count_log(level, message);
}

static void run_pool(struct job *job, const struct sim_plan *plan)
{
        job->pool = plan->seed;
        process_watch(POOL_SECONDS);
        sim_run(plan, &job->result);
        process_watch(0);
        job->found = job->result.failed;
        job->trace += sim_mix(plan->seed ^ job->result.trace);
}

static uint64_t pool_seed(const struct settings *settings, uint64_t number)
{
        return sim_mix(settings->seed * UINT64_C(0x9e3779b97f4a7c15) + number);
}

static uint64_t now_seconds(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec;
}

static void work(const struct settings *settings, unsigned number, struct job *job)
{
        uint64_t n_pools = (settings->steps + settings->pool_steps - 1) / settings->pool_steps;
        uint64_t began = now_seconds();

        sim_count_into(&job->counters);
        log_set_sink(sim_count_log);
        for (uint64_t i = number; !job->found; i += settings->n_jobs) {
                struct sim_plan plan = {.seed = pool_seed(settings, i),
                                        .n_steps = settings->pool_steps,
                                        .fill = settings->fill};

                if (settings->max_seconds > 0 ? now_seconds() - began >= settings->max_seconds
                                              : i >= n_pools)
                        return;
                run_pool(job, &plan);
        }
}

static void finish(pid_t pid, struct job *job)
{
        int signal;

        if (!process_finish(pid, &signal, job->result.reason, sizeof(job->result.reason)))
                job->found = job->result.failed = true;
}

static void run_one(struct job *job, const struct sim_plan *plan, bool quiet)
{
        pid_t pid = process_start();

        if (pid == 0) {
                sim_count_into(&job->counters);
                log_set_sink(plan->show ? log_to_stdout : sim_count_log);
                if (quiet && freopen("/dev/null", "w", stderr) == NULL)
                        _exit(1);
                run_pool(job, plan);
                fflush(stdout);
                _exit(0);
        }
        finish(pid, job);
}

/* ---- shrinking ---- */

static void print_kept(const uint8_t *dropped, uint32_t n_steps)
{
        const char *before = " --kept ";

        for (uint32_t i = 0, end; i < n_steps; i = end) {
                end = i + 1;
                if (dropped[i])
                        continue;
                while (end < n_steps && !dropped[end])
                        end++;
                printf(end == i + 1 ? "%s%u" : "%s%u-%u", before, i, end - 1);
                before = ",";
        }
}

/* The same promise, whatever the step and the place. */
static bool is_alike(const char *a, const char *b)
{
        const char *digits = "0123456789";

        a += strncmp(a, "step ", 5) == 0 ? strcspn(a, ",:") : 0;
        b += strncmp(b, "step ", 5) == 0 ? strcspn(b, ",:") : 0;
        for (unsigned i = 0; i < ALIKE && *a != '\0' && *b != '\0'; i++) {
                a += strspn(a, digits);
                b += strspn(b, digits);
                if (*a++ != *b++)
                        return false;
        }
        return true;
}

static bool still_fails(struct job *attempt, const struct sim_plan *plan, const char *reason)
{
        memset(attempt, 0, sizeof(*attempt));
        run_one(attempt, plan, true);
        return attempt->found && is_alike(attempt->result.reason, reason);
}

/* Drop pieces, large ones first, as long as it still fails. */
static void shrink(struct sim_plan *plan, uint8_t *dropped, struct job *job)
{
        struct job *attempt = process_share(sizeof(*attempt));
        uint8_t *trial = process_share(plan->n_steps);
        uint64_t began = now_seconds();
        char reason[SIM_REASON_MAX];
        bool dropped_any = true;

        memcpy(reason, job->result.reason, sizeof(reason));
        plan->dropped = trial;
        for (uint32_t piece = plan->n_steps; piece > 0 && now_seconds() - began < SHRINK_SECONDS;) {
                dropped_any = false;
                for (uint32_t end = plan->n_steps; end > 0;) {
                        uint32_t from = end > piece ? end - piece : 0;

                        memcpy(trial, dropped, plan->n_steps);
                        memset(trial + from, 1, end - from);
                        if (memcmp(trial, dropped, plan->n_steps) != 0 &&
                            now_seconds() - began < SHRINK_SECONDS &&
                            still_fails(attempt, plan, reason)) {
                                memcpy(dropped, trial, plan->n_steps);
                                *job = *attempt;
                                dropped_any = true;
                        }
                        end = from;
                }
                if (!dropped_any || piece > 1)
                        piece /= 2;
        }
        plan->dropped = dropped;
}

static void print_failure(const struct job *job, const struct sim_plan *plan)
{
        printf("  %s\n  sim --pool 0x%llx --%s %u", job->result.reason,
               (unsigned long long)plan->seed, plan->fill ? "fill-rounds" : "steps", plan->n_steps);
        if (plan->dropped != NULL)
                print_kept(plan->dropped, plan->n_steps);
        putchar('\n');
}

static void report(struct job *job, const struct settings *settings, uint32_t n_steps)
{
        struct sim_plan plan = {.seed = job->pool, .n_steps = n_steps, .fill = settings->fill};
        uint8_t *dropped = process_share(n_steps + 1);

        if (settings->has_kept) {
                memcpy(dropped, settings->dropped, n_steps);
                plan.dropped = dropped;
        }
        printf("BROKEN PROMISE, as found:\n");
        print_failure(job, &plan);
        fflush(stdout);
        if (settings->as_found)
                return;
        plan.n_steps = job->result.step + 1 < n_steps ? job->result.step + 1 : n_steps;
        shrink(&plan, dropped, job);
        printf("BROKEN PROMISE, shortened:\n");
        print_failure(job, &plan);
        plan.show = true;
        fflush(stdout);
        run_one(job, &plan, true);
}

/* ---- figures ---- */

static const enum sim_counter first_fault = SIM_POWER_CUT, first_way = SIM_LOG_REPLAYED,
                              first_fill = SIM_FREED_DISCARD;

static void print_table(const struct sim_counters *sum, bool fill)
{
        for (unsigned i = 0; i < (fill ? SIM_N_COUNTERS : first_fill); i++) {
                if (i == 0 || i == first_fault || i == first_way || i == first_fill)
                        printf("%s\n", i == 0             ? "figures"
                                       : i == first_fault ? "faults that struck"
                                       : i == first_way   ? "ways that the engine took"
                                                          : "full pools");
                printf("  %12llu  %s\n", (unsigned long long)sum->count[i], sim_counter_texts[i]);
        }
}

/* The last line. */
static void print_figures(const struct sim_counters *sum, uint64_t trace, unsigned n_found)
{
        uint64_t faults = 0;

        for (unsigned i = first_fault; i < first_way; i++)
                faults += sum->count[i];
        printf("%llu I/Os (%llu of disks), %llu pools with %llu lives, %llu crashes, "
               "%llu recoveries, %llu faults, %llu fillings, %u broken promises, trace %016llx\n",
               (unsigned long long)sum->count[SIM_IOS],
               (unsigned long long)sum->count[SIM_DISK_IOS],
               (unsigned long long)sum->count[SIM_POOLS], (unsigned long long)sum->count[SIM_LIVES],
               (unsigned long long)(sum->count[SIM_POWER_CUT] + sum->count[SIM_RECOVERY_CUT]),
               (unsigned long long)sum->count[SIM_RECOVERIES], (unsigned long long)faults,
               (unsigned long long)(sum->count[SIM_FILLED] + sum->count[SIM_FILLED_METADATA]),
               n_found, (unsigned long long)trace);
}

/* Faults; of rounds of filling their kinds. */
static bool too_few(const struct sim_counters *sum, uint64_t at_least, bool fill)
{
        unsigned first = fill ? first_fill : first_fault, end = fill ? SIM_N_COUNTERS : first_way;
        bool any = false;

        for (unsigned i = first; i < end; i++)
                if (sum->count[i] < at_least) {
                        printf("TOO FEW: %s: %llu times, not %llu\n", sim_counter_texts[i],
                               (unsigned long long)sum->count[i], (unsigned long long)at_least);
                        any = true;
                }
        return any;
}

/* Ways that a run may well not take: what is wrong beyond what is done to its disks. */
static bool is_rare(unsigned way)
{
        return way == SIM_LOG_DAMAGED || way == SIM_REPLAY_UNREADABLE || way == SIM_STOPPED_OTHER ||
               way == SIM_LIE_REFUSED;
}

static bool ways_missing(const struct sim_counters *sum)
{
        bool any = false;

        for (unsigned i = first_way; i < first_fill; i++)
                if (sum->count[i] == 0 && !is_rare(i)) {
                        printf("NEVER: %s\n", sim_counter_texts[i]);
                        any = true;
                }
        return any;
}

static int conclude(const struct settings *settings, struct job *jobs, unsigned n)
{
        struct sim_counters sum = {{0}};
        uint64_t trace = 0;
        unsigned n_found = 0;
        bool few;

        for (unsigned i = 0; i < n; i++) {
                for (unsigned k = 0; k < SIM_N_COUNTERS; k++)
                        sum.count[k] += jobs[i].counters.count[k];
                trace += jobs[i].trace;
                n_found += jobs[i].found;
        }
        print_table(&sum, settings->fill);
        few = n_found == 0 && too_few(&sum, settings->at_least, settings->fill);
        few = (n_found == 0 && settings->every_way && ways_missing(&sum)) || few;
        print_figures(&sum, trace, n_found);
        return settings->must_find ? n_found == 0 : n_found > 0 || few;
}

static int run_all(const struct settings *settings)
{
        struct job *jobs = process_share(settings->n_jobs * sizeof(*jobs));
        pid_t pids[JOBS_MAX];
        bool reported = false;

        for (unsigned i = 0; i < settings->n_jobs; i++) {
                pids[i] = process_start();
                if (pids[i] == 0) {
                        work(settings, i, &jobs[i]);
                        _exit(0);
                }
        }
        for (unsigned i = 0; i < settings->n_jobs; i++) {
                finish(pids[i], &jobs[i]);
                if (jobs[i].found && !reported) {
                        struct job *job = process_share(sizeof(*job));

                        *job = jobs[i];
                        report(job, settings, settings->pool_steps);
                        reported = true;
                }
        }
        return conclude(settings, jobs, settings->n_jobs);
}

static int run_named(const struct settings *settings)
{
        struct job *job = process_share(sizeof(*job)), *copy = process_share(sizeof(*copy));
        struct sim_plan plan = {.seed = settings->pool,
                                .n_steps = (uint32_t)settings->steps,
                                .dropped = settings->has_kept ? settings->dropped : NULL,
                                .fill = settings->fill,
                                .show = settings->show};

        run_one(job, &plan, false);
        *copy = *job;
        if (job->found)
                report(copy, settings, plan.n_steps);
        return conclude(settings, job, 1);
}

/* ---- options ---- */

static bool parse_kept(const char *text, struct settings *s)
{
        s->has_kept = true;
        memset(s->dropped, 1, SIM_STEPS_MAX);
        while (*text != '\0') {
                char *end;
                unsigned long from = strtoul(text, &end, 10), to = from;

                if (end == text)
                        return false;
                if (*end == '-')
                        to = strtoul(end + 1, &end, 10);
                if (from > to || to >= SIM_STEPS_MAX || (*end != ',' && *end != '\0'))
                        return false;
                memset(s->dropped + from, 0, to - from + 1);
                text = *end == ',' ? end + 1 : end;
        }
        return true;
}

static bool parse_option(int c, const char *text, struct settings *s)
{
        uint64_t n = 0;

        switch (c) {
        case 'w':
                s->show = true;
                return true;
        case 'F':
                s->must_find = true;
                return true;
        case 'f':
                s->as_found = true;
                return true;
        case 'e':
                s->every_way = true;
                return true;
        case 'k':
                return parse_kept(text, s);
        }
        if (text == NULL || !number_parse(text, &n))
                return false;
        switch (c) {
        case 'S':
                s->seed = n;
                return true;
        case 's':
                s->steps = n;
                return n >= 1;
        case 'R':
                s->fill = true;
                s->steps = n;
                s->pool_steps = POOL_ROUNDS;
                return n >= 1;
        case 'm':
                s->max_seconds = n * 60;
                return true;
        case 'P':
                s->pool_steps = (uint32_t)n;
                return n >= 1 && n <= SIM_STEPS_MAX;
        case 'j':
                s->n_jobs = (unsigned)n;
                return n >= 1 && n <= JOBS_MAX;
        case 'a':
                s->at_least = n;
                return true;
        case 'p':
                s->pool = n;
                s->has_pool = true;
                return true;
        }
        return false;
}

int main(int argc, char **argv)
{
        static const struct option long_options[] = {
            {"seed", 1, NULL, 'S'},       {"steps", 1, NULL, 's'},    {"minutes", 1, NULL, 'm'},
            {"pool-steps", 1, NULL, 'P'}, {"jobs", 1, NULL, 'j'},     {"at-least", 1, NULL, 'a'},
            {"pool", 1, NULL, 'p'},       {"kept", 1, NULL, 'k'},     {"show", 0, NULL, 'w'},
            {"must-find", 0, NULL, 'F'},  {"as-found", 0, NULL, 'f'}, {"fill-rounds", 1, NULL, 'R'},
            {"every-way", 0, NULL, 'e'},  {NULL, 0, NULL, 0},
        };
        struct settings settings = {
            .seed = 1, .steps = 200000, .pool_steps = POOL_STEPS, .n_jobs = 2};
        int c;

        settings.dropped = process_share(SIM_STEPS_MAX);
        while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
                if (c == '?' || !parse_option(c, optarg, &settings)) {
                        fputs(usage, stderr);
                        return 2;
                }
        if (optind < argc || (settings.has_pool && settings.steps > SIM_STEPS_MAX)) {
                fputs(usage, stderr);
                return 2;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        return settings.has_pool ? run_named(&settings) : run_all(&settings);
}
