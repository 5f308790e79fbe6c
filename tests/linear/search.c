/* search.c - see search.h. Wing and Gong's search with Lowe's memory of what was tried.
 *
 * Operations are taken, one by one, out of a list that is in the order of beginnings. What may be taken next is what
 * began before any that is left has ended. Reads of the present value are taken at once, as that can only help; for
 * writes each is tried, the most urgent first. A set of taken operations that was reached before, with the same
 * value, is not tried again.
 *
 * As values are nearly unique, a value that is overwritten while somebody must still read it shows most wrong turns at
 * once: the search of a good history goes straight to its end. */
#include "tests/linear/search.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STATES_MAX (UINT64_C(1) << 20) /* places to remember states in: far more than are needed */
#define NONE       SIZE_MAX

/* Of one value. */
struct worth {
        uint64_t value;
        uint64_t first_read_ns;  /* the earliest end of a read */
        size_t readers, writers; /* that are left */
};

struct key {
        uint64_t a, b;
};

/* A write that was taken, and the others that could have been. */
struct turn {
        size_t n_taken;            /* of the trail, before it */
        size_t choices, n_choices; /* in search.choices: left to try, the best last */
        size_t value;
        bool reached;
};

struct search {
        const struct search_op *ops;
        size_t n;
        size_t *worth_of; /* each operation's */
        bool *taken;
        size_t *next, *previous; /* those that must be taken and were not; n is the list's head */
        size_t *optional, n_optional;
        struct worth *worths;
        size_t n_worths;
        size_t n_left, n_durable; /* to be taken */
        size_t value, goal;       /* indexes into worths; goal: NONE without */
        bool reached;             /* the goal */
        struct key key;           /* of the set of those taken */
        size_t *trail, n_trail;   /* in the order in which they were taken */
        struct turn *turns;
        size_t n_turns;
        size_t *choices, n_choices, max_choices;
        struct key *seen; /* a hash table; {0, 0} is an empty place */
        uint64_t n_seen, n_places;
};

static uint64_t mix(uint64_t x) /* the finalizer of splitmix64 */
{
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

static void key_toggle(struct key *key, uint64_t what)
{
        key->a ^= mix(2 * what + 1);
        key->b ^= mix(~(2 * what + 1));
}

/* ---- the set of what was tried ---- */

static void seen_put(struct search *s, struct key key)
{
        uint64_t place = key.a & (s->n_places - 1);

        while (s->seen[place].a || s->seen[place].b)
                place = (place + 1) & (s->n_places - 1);
        s->seen[place] = key;
}

static int seen_grow(struct search *s, struct error *err)
{
        struct key *old = s->seen;
        uint64_t n_old = s->n_places;

        if (n_old > STATES_MAX)
                return error_set(err, -E2BIG, "too many orders of %zu operations are possible",
                                 s->n);
        s->n_places = n_old ? 4 * n_old : 1024;
        s->seen = calloc(s->n_places, sizeof(*s->seen));
        if (!s->seen) {
                s->seen = old;
                s->n_places = n_old;
                return error_set(err, -ENOMEM, "out of memory for a search");
        }
        for (uint64_t i = 0; i < n_old; i++)
                if (old[i].a || old[i].b)
                        seen_put(s, old[i]);
        free(old);
        return 0;
}

/* 1: the state that it is in was here before. */
static int was_here(struct search *s, struct error *err)
{
        struct key key = s->key;

        key_toggle(&key, s->n + 1 + 2 * s->value + s->reached);
        if (2 * s->n_seen >= s->n_places) {
                int r = seen_grow(s, err);

                if (r < 0)
                        return r;
        }
        for (uint64_t i = key.a & (s->n_places - 1); s->seen[i].a || s->seen[i].b;
             i = (i + 1) & (s->n_places - 1))
                if (s->seen[i].a == key.a && s->seen[i].b == key.b)
                        return 1;
        seen_put(s, key);
        s->n_seen++;
        return 0;
}

/* ---- taking, and giving back ---- */

static bool is_optional(const struct search_op *op)
{
        return op->end_ns == UINT64_MAX;
}

static void look_for_goal(struct search *s)
{
        if (s->n_durable == 0 && s->value == s->goal)
                s->reached = true;
}

static void take(struct search *s, size_t i)
{
        const struct search_op *op = &s->ops[i];
        struct worth *w = &s->worths[s->worth_of[i]];

        assert(!s->taken[i]);
        s->taken[i] = true;
        s->trail[s->n_trail++] = i;
        key_toggle(&s->key, i);
        if (!is_optional(op)) {
                s->next[s->previous[i]] = s->next[i];
                s->previous[s->next[i]] = s->previous[i];
                s->n_left--;
        }
        if (!op->is_write) {
                w->readers--;
                return;
        }
        w->writers--;
        s->n_durable -= op->durable;
        s->value = s->worth_of[i];
        look_for_goal(s);
}

static void give_back(struct search *s, const struct turn *turn)
{
        while (s->n_trail > turn->n_taken) {
                size_t i = s->trail[--s->n_trail];
                const struct search_op *op = &s->ops[i];
                struct worth *w = &s->worths[s->worth_of[i]];

                s->taken[i] = false;
                key_toggle(&s->key, i);
                if (!is_optional(op)) {
                        s->next[s->previous[i]] = i;
                        s->previous[s->next[i]] = i;
                        s->n_left++;
                }
                if (op->is_write) {
                        w->writers++;
                        s->n_durable += op->durable;
                } else {
                        w->readers++;
                }
        }
        s->value = turn->value;
        s->reached = turn->reached;
}

/* Up to when operations may have begun that are taken next: none that is left has ended before. */
static uint64_t horizon(const struct search *s)
{
        uint64_t end_ns = UINT64_MAX;

        for (size_t i = s->next[s->n]; i != s->n && s->ops[i].begin_ns <= end_ns; i = s->next[i])
                if (s->ops[i].end_ns < end_ns)
                        end_ns = s->ops[i].end_ns;
        return end_ns;
}

static void take_reads(struct search *s)
{
        bool again = true;

        while (again && s->worths[s->value].readers > 0) {
                uint64_t end_ns = horizon(s);

                again = false;
                for (size_t i = s->next[s->n]; i != s->n && s->ops[i].begin_ns <= end_ns;
                     i = s->next[i]) {
                        if (s->ops[i].is_write || s->worth_of[i] != s->value)
                                continue;
                        take(s, i);
                        again = true;
                }
        }
}

/* ---- which write comes next ---- */

static uint64_t urgency(const struct search *s, size_t i)
{
        const struct worth *w = &s->worths[s->worth_of[i]];

        return w->readers > 0 && w->first_read_ns < s->ops[i].end_ns ? w->first_read_ns
                                                                     : s->ops[i].end_ns;
}

/* Put in so that the most urgent is last. */
static int add_choice(struct search *s, struct turn *turn, size_t i, struct error *err)
{
        size_t at = turn->choices + turn->n_choices;

        if (at == s->max_choices) {
                size_t max = 2 * s->max_choices + 64;
                size_t *choices = realloc(s->choices, max * sizeof(*choices));

                if (!choices)
                        return error_set(err, -ENOMEM, "out of memory for a search");
                s->choices = choices;
                s->max_choices = max;
        }
        for (; at > turn->choices && urgency(s, s->choices[at - 1]) < urgency(s, i); at--)
                s->choices[at] = s->choices[at - 1];
        s->choices[at] = i;
        turn->n_choices++;
        return 0;
}

/* A write that need not be is of use only to who reads it, and to the goal. */
static bool is_of_use(const struct search *s, size_t i)
{
        return s->worths[s->worth_of[i]].readers > 0 || (!s->reached && s->worth_of[i] == s->goal);
}

static int add_turn(struct search *s, struct error *err)
{
        const struct worth *now = &s->worths[s->value];
        struct turn *turn = &s->turns[s->n_turns++];
        uint64_t end_ns = horizon(s);
        int r = 0;

        *turn = (struct turn){s->n_trail, s->n_choices, 0, s->value, s->reached};
        /* Who has to read this value could not do so later. */
        if (now->readers > 0 && now->writers == 0)
                return 0;
        for (size_t i = s->next[s->n]; r == 0 && i != s->n && s->ops[i].begin_ns <= end_ns;
             i = s->next[i])
                if (s->ops[i].is_write)
                        r = add_choice(s, turn, i, err);
        for (size_t k = 0; r == 0 && k < s->n_optional; k++) {
                size_t i = s->optional[k];

                if (!s->taken[i] && s->ops[i].begin_ns <= end_ns && is_of_use(s, i))
                        r = add_choice(s, turn, i, err);
        }
        s->n_choices += turn->n_choices;
        return r;
}

static int explore(struct search *s, struct error *err)
{
        int r;

        look_for_goal(s);
        take_reads(s);
        for (;;) {
                if (s->n_left == 0 && (s->goal == NONE || s->reached))
                        return 1;
                r = was_here(s, err);
                if (r == 0)
                        r = add_turn(s, err);
                if (r < 0)
                        return r;
                /* Back to the last turn that has another choice. */
                while (s->n_turns > 0) {
                        struct turn *turn = &s->turns[s->n_turns - 1];

                        give_back(s, turn);
                        if (turn->n_choices > 0)
                                break;
                        s->n_choices = turn->choices;
                        s->n_turns--;
                }
                if (s->n_turns == 0)
                        return 0;
                struct turn *turn = &s->turns[s->n_turns - 1];
                turn->n_choices--;
                s->n_choices = turn->choices + turn->n_choices;
                take(s, s->choices[s->n_choices]);
                /* The turns after it put their choices behind those that are left of it. */
                take_reads(s);
        }
}

/* ---- start ---- */

static int compare_worths(const void *a, const void *b)
{
        uint64_t x = ((const struct worth *)a)->value, y = ((const struct worth *)b)->value;

        return x < y ? -1 : x > y;
}

static size_t find_worth(const struct search *s, uint64_t value)
{
        const struct worth wanted = {.value = value};
        const struct worth *w =
            bsearch(&wanted, s->worths, s->n_worths, sizeof(*s->worths), compare_worths);

        return (size_t)(w - s->worths);
}

/* Of all values there are: those of operations, the start, the goal. */
static void value_all(struct search *s, uint64_t start, const uint64_t *goal)
{
        size_t n = 0;

        for (size_t i = 0; i < s->n; i++)
                s->worths[n++].value = s->ops[i].value;
        s->worths[n++].value = start;
        if (goal)
                s->worths[n++].value = *goal;
        qsort(s->worths, n, sizeof(*s->worths), compare_worths);
        for (size_t i = 0; i < n; i++)
                if (i == 0 || s->worths[i].value != s->worths[s->n_worths - 1].value)
                        s->worths[s->n_worths++] = (struct worth){.value = s->worths[i].value,
                                                                  .first_read_ns = UINT64_MAX};
        s->value = find_worth(s, start);
        s->goal = goal ? find_worth(s, *goal) : NONE;
}

static void enter(struct search *s, size_t i)
{
        const struct search_op *op = &s->ops[i];
        struct worth *w;

        assert(i == 0 || s->ops[i - 1].begin_ns <= op->begin_ns);
        s->worth_of[i] = find_worth(s, op->value);
        w = &s->worths[s->worth_of[i]];
        if (op->is_write) {
                w->writers++;
                s->n_durable += op->durable;
        } else {
                w->readers++;
                if (op->end_ns < w->first_read_ns)
                        w->first_read_ns = op->end_ns;
        }
        if (is_optional(op)) {
                assert(op->is_write && !op->durable);
                s->optional[s->n_optional++] = i;
                return;
        }
        size_t last = s->previous[s->n];
        s->next[last] = i;
        s->previous[i] = last;
        s->next[i] = s->n;
        s->previous[s->n] = i;
        s->n_left++;
}

int search_order(const struct search_op *ops, size_t n, uint64_t start, const uint64_t *goal,
                 struct error *err)
{
        struct search s = {.ops = ops, .n = n, .goal = NONE};
        int r;

        s.worths = calloc(n + 2, sizeof(*s.worths));
        s.turns = calloc(n + 1, sizeof(*s.turns));
        s.taken = calloc(n + 1, sizeof(*s.taken));
        size_t *numbers = calloc(5 * (n + 1), sizeof(*numbers));
        if (s.worths && s.turns && s.taken && numbers) {
                s.worth_of = numbers;
                s.next = numbers + (n + 1);
                s.previous = numbers + 2 * (n + 1);
                s.optional = numbers + 3 * (n + 1);
                s.trail = numbers + 4 * (n + 1);
                s.next[n] = s.previous[n] = n;
                value_all(&s, start, goal);
                for (size_t i = 0; i < n; i++)
                        enter(&s, i);
                r = explore(&s, err);
        } else {
                r = error_set(err, -ENOMEM, "out of memory for a search");
        }
        free(s.worths);
        free(s.turns);
        free(s.taken);
        free(numbers);
        free(s.choices);
        free(s.seen);
        return r;
}
