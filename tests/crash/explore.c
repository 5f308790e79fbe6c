/* explore.c - see explore.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/explore.h"
#include "tests/crash/hash_set.h"
#include "tests/crash/recover.h"
#include "tests/sim/sim_random.h"

#define NESTED_ONE_IN 12u /* of the states, in whose recovery the power is cut too */
#define NESTED_STATES 6u  /* so often */
#define PROBE_ONE_IN  6u
#define QUOTA_MIN     4u /* states of a moment that is looked at */

/* A choice for each operation pending at a moment, disk after disk. */
struct choices {
        uint8_t choice[PENDING_MAX + 1];
        unsigned n;
};

struct explorer {
        const struct exploration *q;
        struct run run;
        struct sim_random random;
        struct hash_set *states;    /* contents of disks */
        struct hash_set *recovered; /* the same, and how much was promised */
        uint64_t n_states;
        uint64_t probe; /* of the state, by its content */
        bool stop;
};

static const char choice_letters[] = "0123abcdefghijklmnopqrstuvwxyz";

static unsigned n_pending(const struct point *point)
{
        size_t n = 0;

        for (unsigned i = 0; i < point->n_disks; i++)
                n += point->disks[i]->n_pending;
        return n < PENDING_MAX ? (unsigned)n : PENDING_MAX;
}

/* ---- names of states ---- */

static size_t id_append(char *id, size_t at, size_t point, const struct choices *choices)
{
        at += (size_t)snprintf(id + at, STATE_ID_MAX - at, ":%zu:", point);
        for (unsigned i = 0; i < choices->n && at + 1 < STATE_ID_MAX; i++)
                id[at++] = choice_letters[choices->choice[i]];
        id[at] = '\0';
        return at;
}

/* "12:0130", at *text; leaves *text behind it and the colon that follows. */
static int id_parse(const char **text, const struct points *points, size_t *ret_point,
                    struct choices *ret_choices)
{
        char *end;
        unsigned long point = strtoul(*text, &end, 10);

        if (end == *text || *end != ':' || point >= points->n)
                return -EINVAL;
        ret_choices->n = 0;
        for (end++; *end != '\0' && *end != ':'; end++) {
                const char *letter = strchr(choice_letters, *end);

                if (letter == NULL || ret_choices->n == PENDING_MAX)
                        return -EINVAL;
                ret_choices->choice[ret_choices->n++] = (uint8_t)(letter - choice_letters);
        }
        if (ret_choices->n != n_pending(&points->point[point]))
                return -EINVAL;
        *ret_point = point;
        *text = *end == ':' ? end + 1 : end;
        return 0;
}

/* ---- one state ---- */

/* What the power loss leaves, and a hash of it. */
static uint64_t make_images(const struct point *point, const struct choices *choices,
                            struct sim_image *images[DISKS_MAX])
{
        uint64_t hash = 0;
        unsigned at = 0;

        for (unsigned i = 0; i < point->n_disks; i++) {
                size_t n = point->disks[i]->n_pending;
                uint8_t *choice = malloc(n + 1);

                for (size_t k = 0; choice != NULL && k < n; k++, at++)
                        choice[k] = at < choices->n ? choices->choice[at] : SIM_WHOLE;
                images[i] = sim_snapshot_crash(point->disks[i], choice);
                hash = sim_mix(hash ^ sim_image_hash(images[i])) + i;
                free(choice);
        }
        return hash;
}

static void free_images(struct sim_image *images[DISKS_MAX], unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                sim_image_free(images[i]);
}

/* Recover from a state. True where all was well;
 * the moments go to @points where that is not NULL. */
static bool try_state(struct explorer *x, const struct point *point,
                      struct sim_image *images[DISKS_MAX], const struct observed *expected,
                      struct points *points, struct observed *ret_observed)
{
        struct violation *violation = x->q->violation;
        struct recovery recovery = {
            .plan = x->q->plan,
            .model = point->model,
            .time = point->time,
            .op = point->op,
            .images = images,
            .n_images = point->n_disks,
            .expected = expected,
            .points = points,
            .probe = x->probe,
        };

        x->q->figures->recoveries++;
        for (unsigned i = 0; i < N_PHASES; i++)
                x->q->figures->phases[i] += point->phases >> i & 1;
        violation->op = point->op;
        if (recover(&recovery, ret_observed, violation->reason, sizeof(violation->reason)))
                return true;
        violation->found = true;
        x->q->figures->violations++;
        x->stop = true;
        return false;
}

static void random_choices(struct explorer *x, const struct point *point, struct choices *choices)
{
        unsigned n = n_pending(point), shape = (unsigned)sim_random_below(&x->random, 8);
        unsigned at = n > 0 ? (unsigned)sim_random_below(&x->random, n) : 0;

        choices->n = n;
        for (unsigned i = 0; i < n; i++) {
                uint64_t random = sim_random_next(&x->random);

                switch (shape) {
                case 0: /* a beginning of what was done */
                        choices->choice[i] = i < at ? SIM_WHOLE : SIM_LOST;
                        break;
                case 1: /* and an end */
                        choices->choice[i] = i < at ? SIM_LOST : SIM_WHOLE;
                        break;
                case 2: /* all but one */
                        choices->choice[i] = i == at ? random % 3 * 3 / 2 : SIM_WHOLE;
                        break;
                case 3: /* one only */
                        choices->choice[i] = i == at ? 1 + random % 3 : SIM_LOST;
                        break;
                case 4: /* torn anyhow */
                        choices->choice[i] =
                            SIM_TORN + random % (sizeof(choice_letters) - 1 - SIM_TORN);
                        break;
                case 5: /* whole or not */
                        choices->choice[i] = random % 2;
                        break;
                default:
                        choices->choice[i] = random % 4;
                        break;
                }
        }
}

/* The power goes again while the pool recovers from a state: @points are the moments of that
 * recovery. */
static void cut_recovery(struct explorer *x, const struct point *first, const struct points *points,
                         const struct observed *observed, size_t id_length)
{
        for (unsigned i = 0; i < NESTED_STATES && points->n > 0 && !x->stop; i++) {
                size_t at = (size_t)sim_random_below(&x->random, points->n);
                const struct point *point = &points->point[at];
                struct sim_image *images[DISKS_MAX];
                struct observed again = {.n_roots = 0};
                struct choices choices;
                uint64_t hash;

                random_choices(x, point, &choices);
                hash = make_images(point, &choices, images);
                id_append(x->q->violation->id, id_length, at, &choices);
                if (hash_set_add(x->recovered, sim_mix(hash) ^ first->answers)) {
                        if (hash_set_add(x->states, hash)) {
                                x->n_states++;
                                x->q->figures->states++;
                        }
                        x->q->figures->nested++;
                        x->probe = 0;
                        try_state(x, point, images, point->after_open ? observed : NULL, NULL,
                                  &again);
                }
                observed_free(&again);
                free_images(images, point->n_disks);
        }
        if (!x->stop)
                x->q->violation->id[id_length] = '\0';
}

/* One state in PROBE_ONE_IN is asked questions, which its name decides: a replay asks the same. */
static uint64_t probe_of(const struct explorer *x, size_t point, const struct choices *choices)
{
        uint64_t hash = sim_mix(x->q->plan->seed + point);

        for (unsigned i = 0; i < choices->n; i++)
                hash = sim_mix(hash + choices->choice[i]);
        return hash % PROBE_ONE_IN == 0 ? hash : 0;
}

static void explore_state(struct explorer *x, size_t index, const struct choices *choices)
{
        const struct point *point = &x->run.points.point[index];
        struct violation *violation = x->q->violation;
        struct observed observed = {.n_roots = 0};
        struct points points = {.n = 0};
        struct sim_image *images[DISKS_MAX];
        uint64_t hash = make_images(point, choices, images);
        size_t id_length = (size_t)snprintf(violation->id, STATE_ID_MAX, "%s", x->q->plan->name);
        bool nested;

        id_length = id_append(violation->id, id_length, index, choices);
        if (hash_set_add(x->recovered, sim_mix(hash) ^ point->answers)) {
                if (hash_set_add(x->states, hash)) {
                        x->n_states++;
                        x->q->figures->states++;
                }
                nested = sim_random_chance(&x->random, NESTED_ONE_IN);
                x->probe = probe_of(x, index, choices);
                if (try_state(x, point, images, NULL, nested ? &points : NULL, &observed) && nested)
                        cut_recovery(x, point, &points, &observed, id_length);
        }
        observed_free(&observed);
        points_free(&points);
        free_images(images, point->n_disks);
}

/* ---- all states of a run ---- */

static uint64_t n_combinations(const struct point *point)
{
        unsigned n = n_pending(point);

        return n <= EXHAUSTIVE_MAX ? UINT64_C(1) << 2 * n : UINT64_MAX;
}

static void nth_choices(const struct point *point, uint64_t index, struct choices *choices)
{
        choices->n = n_pending(point);
        for (unsigned i = 0; i < choices->n; i++, index >>= 2)
                choices->choice[i] = index & 3;
}

static void explore_point(struct explorer *x, size_t index, uint64_t quota)
{
        const struct point *point = &x->run.points.point[index];
        uint64_t all = n_combinations(point);
        struct choices choices;

        x->q->figures->points++;
        if (all <= quota) {
                x->q->figures->complete++;
                for (uint64_t i = 0; i < all && !x->stop; i++) {
                        nth_choices(point, i, &choices);
                        explore_state(x, index, &choices);
                }
                return;
        }
        for (uint64_t i = 0; i < quota && !x->stop; i++) {
                if (i < 2) { /* nothing, and everything, in any case */
                        choices.n = n_pending(point);
                        memset(choices.choice, i == 0 ? SIM_LOST : SIM_WHOLE, choices.n);
                } else {
                        random_choices(x, point, &choices);
                }
                explore_state(x, index, &choices);
        }
}

/* How many states a moment may cost, so that all together cost about @max: those with few are
 * looked at whole, and what they leave goes to the others. */
static uint64_t share(const struct points *points, uint64_t max)
{
        uint64_t low = 1, high = UINT64_C(1) << 2 * EXHAUSTIVE_MAX;

        while (low < high) {
                uint64_t middle = (low + high + 1) / 2, total = 0;

                for (size_t i = 0; i < points->n; i++) {
                        uint64_t all = n_combinations(&points->point[i]);

                        total += all < middle ? all : middle;
                }
                if (total <= max)
                        low = middle;
                else
                        high = middle - 1;
        }
        return low;
}

static void explore_points(struct explorer *x)
{
        const struct points *points = &x->run.points;
        uint64_t max = x->q->max_states, quota, stride = 1;

        if (max == 0)
                max = UINT64_MAX / 2;
        quota = share(points, max);
        if (quota < QUOTA_MIN && points->n > 0) { /* not all moments, but some states of each */
                quota = QUOTA_MIN;
                stride = (points->n * quota + max - 1) / max;
        }
        for (size_t i = sim_random_below(&x->random, stride); i < points->n && !x->stop;
             i += stride)
                explore_point(x, i, quota);
}

static bool explorer_begin(struct explorer *x, const struct exploration *q)
{
        *x = (struct explorer){.q = q, .states = hash_set_new(), .recovered = hash_set_new()};
        sim_random_init(&x->random, sim_mix(q->plan->seed + 77));
        snprintf(q->violation->id, sizeof(q->violation->id), "%s", q->plan->name);
        run_plan(q->plan, q->kept, &x->run);
        q->figures->plans++;
        q->figures->ops += x->run.n_ops;
        q->figures->no_space += x->run.n_no_space;
        if (!x->run.failed)
                return true;
        q->violation->found = true;
        memcpy(q->violation->reason, x->run.reason, sizeof(q->violation->reason));
        q->figures->violations++;
        return false;
}

static void explorer_end(struct explorer *x)
{
        if (x->q->violation->found && x->run.failed)
                return; /* what hangs may still use it */
        run_free(&x->run);
        hash_set_free(x->states);
        hash_set_free(x->recovered);
}

void explore(const struct exploration *q)
{
        struct explorer x;

        if (explorer_begin(&x, q))
                explore_points(&x);
        explorer_end(&x);
}

int explore_one(const struct exploration *q, const char *id)
{
        struct explorer x;
        struct sim_image *images[DISKS_MAX];
        struct observed observed = {.n_roots = 0}, again = {.n_roots = 0};
        struct points points = {.n = 0};
        struct choices choices;
        size_t at;
        int r = 0;

        if (!explorer_begin(&x, q)) {
                explorer_end(&x);
                return 0;
        }
        snprintf(q->violation->id, sizeof(q->violation->id), "%s:%s", q->plan->name, id);
        r = id_parse(&id, &x.run.points, &at, &choices);
        if (r == 0) {
                const struct point *point = &x.run.points.point[at];

                x.probe = probe_of(&x, at, &choices);
                make_images(point, &choices, images);
                try_state(&x, point, images, NULL, &points, &observed);
                free_images(images, point->n_disks);
        }
        if (r == 0 && *id != '\0' && !x.stop) {
                r = id_parse(&id, &points, &at, &choices);
                if (r == 0) {
                        const struct point *point = &points.point[at];

                        x.probe = 0;
                        make_images(point, &choices, images);
                        try_state(&x, point, images, point->after_open ? &observed : NULL, NULL,
                                  &again);
                        free_images(images, point->n_disks);
                }
        }
        observed_free(&observed);
        observed_free(&again);
        points_free(&points);
        explorer_end(&x);
        return r;
}
