/* crash.c - the crash explorer: see README.md. Exit status 0: nothing found; 1: a violation, which
 * is printed with the state that shows it and the shortest list of operations found; 2: usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/crash/number.h"
#include "tests/crash/process.h"
#include "tests/crash/work.h"

#define SHRINK_SECONDS 90
#define SHRINK_STATES  4000u

static const char usage[] =
    "usage: crash [OPTION]...\n"
    "Cut the power of simulated disks at every moment of many runs, recover, compare with the "
    "model.\n"
    "  --states N       stop after N distinct states (default 100000; 0: no limit)\n"
    "  --minutes N      stop after N minutes\n"
    "  --length N       exhaustive sequences of up to N operations (default 3; 0: none)\n"
    "  --alphabet TEXT  their operations (default: all up to length 2, the main ones beyond)\n"
    "  --images         runs on volumes that stand on images\n"
    "  --ops N          operations of a random run (default 40)\n"
    "  --seed N         of the first random run (default 1)\n"
    "  --roomy          random runs with room on the disks only\n"
    "  --members N[-M]  disks of the pool (default 1-2 exhaustive, 1-3 random)\n"
    "  --jobs N         processes (default 2)\n"
    "  --plan NAME      explore that one run\n"
    "  --replay STATE   look at that one state, as printed: PLAN:POINT:CHOICES[:POINT:CHOICES]\n"
    "  --kept LIST      with --plan and --replay: only these operations of the run, as printed\n"
    "  --show           with --plan: print its operations\n"
    "  --must-find      exit status 0 where a violation is found, 1 where none is\n"
    "  --as-found       do not shorten the list of operations of a violation\n";

struct options {
        struct settings settings;
        const char *plan, *replay;
        bool kept[OPS_MAX];
        bool has_kept, show, as_found, must_find;
};

/* ---- shrinking ---- */

static void print_ops(FILE *to, const struct plan *plan, const bool *kept)
{
        for (unsigned i = 0; i < plan->n_ops; i++) {
                char text[200];

                if (!kept[i])
                        continue;
                op_print(&plan->ops[i], text, sizeof(text));
                fprintf(to, "    %2u  %s\n", i, text);
        }
}

static bool still_fails(const char *plan, const bool *kept, struct worker *worker)
{
        memset(worker, 0, sizeof(*worker));
        work_one(plan, kept, NULL, SHRINK_STATES, true, worker);
        return worker->violation.found;
}

/* Drop operations as long as something is still found. */
static void shrink(const struct plan *plan, bool *kept, struct worker *worker)
{
        struct worker *attempt = process_share(sizeof(*attempt));
        time_t started = time(NULL);
        bool shorter = true;

        while (shorter) {
                shorter = false;
                for (unsigned i = plan->n_ops; i-- > 0;) {
                        if (!kept[i] || time(NULL) - started > SHRINK_SECONDS)
                                continue;
                        kept[i] = false;
                        if (still_fails(plan->name, kept, attempt)) {
                                *worker = *attempt;
                                shorter = true;
                        } else {
                                kept[i] = true;
                        }
                }
        }
}

static void print_violation(const struct worker *worker, const struct plan *plan, const bool *kept)
{
        bool all = true;

        printf("  %s\n  crash --replay %s", worker->violation.reason, worker->violation.id);
        for (unsigned i = 0; i < plan->n_ops; i++)
                all = all && kept[i];
        for (unsigned i = 0, first = 1; !all && i < plan->n_ops; i++)
                if (kept[i]) {
                        printf("%s%u", first ? " --kept " : ",", i);
                        first = 0;
                }
        if (strchr(worker->violation.id, ':') != NULL)
                printf("\n  power was cut when operation %u had begun:", worker->violation.op);
        putchar('\n');
        print_ops(stdout, plan, kept);
}

static void report(struct worker *worker, const struct plan *plan, bool *kept, bool as_found)
{
        printf("VIOLATION, as found:\n");
        print_violation(worker, plan, kept);
        fflush(stdout);
        if (as_found)
                return;
        shrink(plan, kept, worker);
        printf("VIOLATION, shortened:\n");
        print_violation(worker, plan, kept);
}

/* ---- runs ---- */

static void print_phases(const struct figures *sum)
{
        static const char *const texts[N_PHASES] = {
            [PHASE_CHECKPOINT] = "in a checkpoint that was asked for",
            [PHASE_DELETE] = "in the deletion of a snapshot or volume",
            [PHASE_FREEING] = "with space on its way back",
            [PHASE_RESIZE] = "in a resize",
            [PHASE_ADD] = "in the addition of a member",
            [PHASE_COPY] = "while an image was copied",
            [PHASE_RECOVERY] = "again, in the recovery",
            [PHASE_SETTLE] = "again, when the pool had opened",
        };

        printf("recoveries from a crash\n");
        for (unsigned i = 0; i < N_PHASES; i++)
                printf("  %12llu  %s\n", (unsigned long long)sum->phases[i], texts[i]);
}

static void print_figures(const struct worker *workers, unsigned n, const struct settings *settings,
                          time_t started)
{
        struct figures sum = {0};
        uint64_t n_random = 0;

        for (unsigned i = 0; i < n; i++) {
                const struct figures *f = &workers[i].figures;

                sum.plans += f->plans;
                sum.ops += f->ops;
                sum.no_space += f->no_space;
                sum.points += f->points;
                sum.complete += f->complete;
                sum.states += f->states;
                sum.recoveries += f->recoveries;
                sum.nested += f->nested;
                sum.violations += f->violations;
                for (unsigned k = 0; k < N_PHASES; k++)
                        sum.phases[k] += f->phases[k];
                n_random += workers[i].n_random;
        }
        print_phases(&sum);
        printf(
            "%llu states at %llu moments (%llu with every combination) of %llu runs "
            "(%llu random, seeds from %llu), %llu operations (%llu without space), %llu recoveries "
            "(%llu from crashes during recovery), %llu violations, %lld s\n",
            (unsigned long long)sum.states, (unsigned long long)sum.points,
            (unsigned long long)sum.complete, (unsigned long long)sum.plans,
            (unsigned long long)n_random, (unsigned long long)settings->seed,
            (unsigned long long)sum.ops, (unsigned long long)sum.no_space,
            (unsigned long long)sum.recoveries, (unsigned long long)sum.nested,
            (unsigned long long)sum.violations, (long long)(time(NULL) - started));
}

static int run_all(const struct options *options)
{
        struct worker *workers = process_share(JOBS_MAX * sizeof(*workers));
        time_t started = time(NULL);
        int status = 0;

        work(&options->settings, workers);
        for (unsigned i = 0; i < options->settings.n_jobs; i++)
                if (workers[i].violation.found) {
                        static struct plan plan;
                        struct worker copy = workers[i];
                        bool kept[OPS_MAX];

                        memset(kept, true, sizeof(kept));
                        if (plan_make(copy.plan, &plan) == 0)
                                report(&copy, &plan, kept, options->as_found);
                        status = 1;
                }
        print_figures(workers, options->settings.n_jobs, &options->settings, started);
        return status;
}

static int run_one(const struct options *options)
{
        static struct plan plan;
        struct worker *worker = process_share(sizeof(*worker));
        char name[STATE_ID_MAX];
        const char *text = options->plan != NULL ? options->plan : options->replay;
        const char *id = options->plan != NULL ? NULL : strchr(text, ':');
        time_t started = time(NULL);
        bool kept[OPS_MAX];

        snprintf(name, sizeof(name), "%.*s", id != NULL ? (int)(id - text) : (int)strlen(text),
                 text);
        if (plan_make(name, &plan) < 0) {
                fprintf(stderr, "crash: '%s' names no run\n", name);
                return 2;
        }
        memset(kept, true, sizeof(kept));
        if (options->has_kept)
                memcpy(kept, options->kept, sizeof(kept));
        if (options->show)
                print_ops(stdout, &plan, kept);
        work_one(name, kept, id != NULL ? id + 1 : NULL, options->settings.max_states, false,
                 worker);
        if (worker->violation.found)
                report(worker, &plan, kept, id != NULL || options->as_found);
        print_figures(worker, 1, &options->settings, started);
        return worker->violation.found;
}

/* ---- options ---- */

static bool parse_members(const char *text, struct options *options)
{
        struct settings *s = &options->settings;
        int n = sscanf(text, "%u-%u", &s->members_min, &s->members_max);

        if (n == 1)
                s->members_max = s->members_min;
        s->random_members_max = s->members_max;
        return n >= 1 && s->members_min >= 1 && s->members_min <= s->members_max &&
               s->members_max <= 4;
}

static bool parse_kept(const char *text, struct options *options)
{
        options->has_kept = true;
        while (*text != '\0') {
                char *end;
                unsigned long index = strtoul(text, &end, 10);

                if (end == text || index >= OPS_MAX || (*end != ',' && *end != '\0'))
                        return false;
                options->kept[index] = true;
                text = *end == ',' ? end + 1 : end;
        }
        return true;
}

static bool parse_option(int c, const char *text, struct options *options)
{
        struct settings *s = &options->settings;
        uint64_t n = 0;

        switch (c) {
        case 'p':
                options->plan = text;
                return true;
        case 'r':
                options->replay = text;
                return true;
        case 'w':
                options->show = true;
                return true;
        case 'F':
                options->must_find = true;
                return true;
        case 'I':
                s->images = true;
                return true;
        case 'R':
                s->roomy = true;
                return true;
        case 'f':
                options->as_found = true;
                return true;
        case 'a':
                s->alphabet = text;
                return strspn(text, ops_letters) == strlen(text) && text[0] != '\0';
        case 'M':
                return parse_members(text, options);
        case 'k':
                return parse_kept(text, options);
        }
        if (text == NULL || !number_parse(text, &n))
                return false;
        switch (c) {
        case 's':
                s->max_states = n;
                return true;
        case 'm':
                s->max_seconds = n * 60;
                return true;
        case 'l':
                s->length = (unsigned)n;
                return n <= 8;
        case 'o':
                s->n_ops = (unsigned)n;
                return n >= 1 && n <= OPS_MAX - 8;
        case 'S':
                s->seed = n;
                return true;
        case 'j':
                s->n_jobs = (unsigned)n;
                return n >= 1 && n <= JOBS_MAX;
        }
        return false;
}

int main(int argc, char **argv)
{
        static const struct option long_options[] = {
            {"states", 1, NULL, 's'},   {"minutes", 1, NULL, 'm'}, {"length", 1, NULL, 'l'},
            {"alphabet", 1, NULL, 'a'}, {"ops", 1, NULL, 'o'},     {"seed", 1, NULL, 'S'},
            {"members", 1, NULL, 'M'},  {"jobs", 1, NULL, 'j'},    {"plan", 1, NULL, 'p'},
            {"replay", 1, NULL, 'r'},   {"kept", 1, NULL, 'k'},    {"show", 0, NULL, 'w'},
            {"as-found", 0, NULL, 'f'}, {"roomy", 0, NULL, 'R'},   {"must-find", 0, NULL, 'F'},
            {"images", 0, NULL, 'I'},   {NULL, 0, NULL, 0},
        };
        static struct options options = {
            .settings = {.seed = 1,
                         .max_states = 100000,
                         .length = 3,
                         .exhaustive_percent = 60,
                         .n_ops = 40,
                         .members_min = 1,
                         .members_max = 2,
                         .random_members_max = 3,
                         .n_jobs = 2},
        };
        int c, found;

        while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
                if (c == '?' || !parse_option(c, optarg, &options)) {
                        fputs(usage, stderr);
                        return 2;
                }
        if (optind < argc) {
                fputs(usage, stderr);
                return 2;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        found =
            options.plan != NULL || options.replay != NULL ? run_one(&options) : run_all(&options);
        return options.must_find && found < 2 ? !found : found;
}
