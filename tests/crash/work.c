/* work.c - see work.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/log.h"
#include "tests/crash/process.h"
#include "tests/crash/work.h"

#define RANDOM_STATES 300u /* of one random plan, about */

static uint64_t now_seconds(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec;
}

static void explore_plan(struct worker *worker, const char *name, const bool *kept,
                         uint64_t max_states)
{
        static struct plan plan; /* large */
        struct exploration exploration = {
            .plan = &plan,
            .kept = kept,
            .max_states = max_states,
            .figures = &worker->figures,
            .violation = &worker->violation,
        };

        snprintf(worker->plan, sizeof(worker->plan), "%s", name);
        process_watch(STATE_SECONDS_MAX + (unsigned)(max_states / 20));
        if (plan_make(name, &plan) < 0) {
                fprintf(stderr, "crash: '%s' names no plan\n", name);
                exit(2);
        }
        explore(&exploration);
        process_watch(0);
}

/* ---- sharing out ---- */

static bool time_is_up(const struct settings *settings, uint64_t started)
{
        return settings->max_seconds > 0 && now_seconds() - started >= settings->max_seconds;
}

static const char *alphabet(const struct settings *settings, unsigned length)
{
        return settings->alphabet != NULL ? settings->alphabet
                                          : ops_alphabet(settings->images, length);
}

/* Sequences one after another of each length; of two and more also all at once. */
static uint64_t count_exhaustive(const struct settings *settings, unsigned length)
{
        uint64_t n = 1;

        for (unsigned i = 0; i < length; i++)
                n *= strlen(alphabet(settings, length));
        return n * (length > 1 ? 2 : 1) * (settings->members_max - settings->members_min + 1);
}

/* The plan @number, kinds and numbers of disks varying fastest, short sequences first; false: there
 * are no more. */
static bool name_exhaustive(const struct settings *settings, uint64_t number,
                            char name[PLAN_NAME_MAX])
{
        unsigned n_members = settings->members_max - settings->members_min + 1;

        for (unsigned length = 1; length <= settings->length; length++) {
                uint64_t n = count_exhaustive(settings, length), index = number;
                unsigned members, n_kinds = length > 1 ? 2 : 1;
                char kind;

                if (number >= n) {
                        number -= n;
                        continue;
                }
                kind = (settings->images ? "bd" : "xc")[index % n_kinds];
                index /= n_kinds;
                members = settings->members_min + (unsigned)(index % n_members);
                return plan_exhaustive(kind, alphabet(settings, length), length, members,
                                       index / n_members, name);
        }
        return false;
}

/* Every n_jobs-th plan. What a plan leaves of its share goes to those that follow. */
static void work_exhaustive(const struct settings *settings, unsigned job, uint64_t started,
                            struct worker *worker)
{
        uint64_t n_plans = 0;
        uint64_t budget =
            settings->max_states * settings->exhaustive_percent / 100 / settings->n_jobs;
        char name[PLAN_NAME_MAX];

        for (unsigned length = 1; length <= settings->length; length++)
                n_plans += count_exhaustive(settings, length);
        for (uint64_t i = job; name_exhaustive(settings, i, name); i += settings->n_jobs) {
                uint64_t done = worker->figures.states, left = budget > done ? budget - done : 0;
                uint64_t n_left = (n_plans - i + settings->n_jobs - 1) / settings->n_jobs;

                explore_plan(worker, name, NULL, settings->max_states == 0 ? 0 : 1 + left / n_left);
                if (worker->violation.found || time_is_up(settings, started))
                        return;
        }
}

static void work_random(const struct settings *settings, unsigned job, uint64_t started,
                        struct worker *worker)
{
        uint64_t quota = (settings->max_states + settings->n_jobs - 1) / settings->n_jobs;
        unsigned n_members = settings->random_members_max - settings->members_min + 1;
        char name[PLAN_NAME_MAX];

        for (uint64_t i = job; !worker->violation.found && !time_is_up(settings, started);
             i += settings->n_jobs) {
                uint64_t left = quota - worker->figures.states;

                if (settings->max_states > 0 && worker->figures.states >= quota)
                        return;
                if (settings->max_states == 0 || left > RANDOM_STATES)
                        left = RANDOM_STATES;
                snprintf(name, sizeof(name), "%c%u-%u-%llx",
                         settings->images  ? 'i'
                         : settings->roomy ? 'w'
                                           : 'r',
                         settings->members_min + (unsigned)(i % n_members), settings->n_ops,
                         (unsigned long long)(settings->seed + i));
                worker->n_random++;
                explore_plan(worker, name, NULL, left);
        }
}

static void work_job(const struct settings *settings, unsigned job, struct worker *worker)
{
        uint64_t started = now_seconds();

        if (settings->length > 0)
                work_exhaustive(settings, job, started, worker);
        if (!worker->violation.found)
                work_random(settings, job, started, worker);
}

/* ---- processes ---- */

static void log_to_stderr(enum log_level level, const char *message)
{
        fprintf(stderr, "  log: %s\n", message);
}

/* A process that a signal ended has found something as well. */
static void finish(pid_t pid, struct worker *worker)
{
        struct violation *violation = &worker->violation;

        if (process_finish(pid, &worker->signal, violation->reason, sizeof(violation->reason)))
                return;
        violation->found = true;
        worker->figures.violations++;
}

void work(const struct settings *settings, struct worker *workers)
{
        pid_t pids[JOBS_MAX];

        for (unsigned i = 0; i < settings->n_jobs; i++) {
                pids[i] = process_start();
                if (pids[i] == 0) {
                        work_job(settings, i, &workers[i]);
                        _exit(0);
                }
        }
        for (unsigned i = 0; i < settings->n_jobs; i++)
                finish(pids[i], &workers[i]);
}

static void look_at_one(const char *name, const bool *kept, const char *id, struct worker *worker)
{
        static struct plan plan;
        struct exploration exploration = {
            .plan = &plan,
            .kept = kept,
            .figures = &worker->figures,
            .violation = &worker->violation,
        };

        snprintf(worker->plan, sizeof(worker->plan), "%s", name);
        process_watch(STATE_SECONDS_MAX);
        if (plan_make(name, &plan) < 0 || explore_one(&exploration, id) < 0) {
                fprintf(stderr, "crash: '%s:%s' names no state\n", name, id);
                _exit(2);
        }
}

void work_one(const char *plan, const bool *kept, const char *id, uint64_t max_states, bool quiet,
              struct worker *worker)
{
        pid_t pid = process_start();

        if (pid == 0) {
                if (id != NULL) /* the engine's own words may help */
                        log_set_sink(log_to_stderr);
                if (quiet && freopen("/dev/null", "w", stderr) == NULL)
                        _exit(1);
                if (id != NULL)
                        look_at_one(plan, kept, id, worker);
                else
                        explore_plan(worker, plan, kept, max_states);
                _exit(0);
        }
        finish(pid, worker);
}
