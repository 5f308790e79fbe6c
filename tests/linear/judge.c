/* judge.c - see judge.h. */
#include "tests/linear/judge.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "tests/linear/search.h"

/* The contents that a register may have at a life's beginning. One is anything that no later life reads: such are
 * all alike. */
#define UNREAD (UINT64_MAX - 1)

/* The last life in which a value is read. */
struct last_read {
        uint64_t value;
        unsigned life;
};

/* One register's operations, in the order of their beginnings, and its volume's flushes. */
struct unit_history {
        const struct history_op *ops;
        size_t n;
        const struct history_op *flushes;
        size_t n_flushes;
        bool *left_out; /* of ops; NULL: none */
        unsigned n_lives;
        struct last_read *reads; /* by value */
        size_t n_reads;
        /* scratch of a life */
        struct search_op *search;
        size_t n_search;
        uint64_t durable_ns; /* the last beginning of a durable write; 0: there is none */
        uint64_t *starts, *next_starts;
};

static int compare_ops(const void *a, const void *b)
{
        const struct history_op *x = a, *y = b;

        if (x->volume != y->volume)
                return x->volume < y->volume ? -1 : 1;
        if (x->unit != y->unit)
                return x->unit < y->unit ? -1 : 1;
        return x->begin_ns < y->begin_ns ? -1 : x->begin_ns > y->begin_ns;
}

/* ---- one life ---- */

/* Everything that was answered before this is covered by a flush of that life. */
static uint64_t flushed_before(const struct unit_history *u, unsigned life)
{
        uint64_t before_ns = 0;

        for (size_t i = 0; i < u->n_flushes; i++) {
                const struct history_op *f = &u->flushes[i];

                if (f->end_ns != HISTORY_NEVER && f->first_life == life && f->last_life == life &&
                    f->begin_ns > before_ns)
                        before_ns = f->begin_ns;
        }
        return before_ns;
}

static int compare_search(const void *a, const void *b)
{
        const struct search_op *x = a, *y = b;

        return x->begin_ns < y->begin_ns ? -1 : x->begin_ns > y->begin_ns;
}

static void gather_life(struct unit_history *u, unsigned life)
{
        uint64_t before_ns = flushed_before(u, life);

        u->n_search = 0;
        u->durable_ns = 0;
        for (size_t i = 0; i < u->n; i++) {
                const struct history_op *op = &u->ops[i];
                bool is_answered = op->last_life == life && op->end_ns != HISTORY_NEVER;
                bool is_write = op->kind == HISTORY_WRITE;

                if (op->first_life > life || op->last_life < life || (!is_answered && !is_write) ||
                    (u->left_out && u->left_out[i]))
                        continue;
                u->search[u->n_search++] = (struct search_op){
                    .begin_ns = op->first_life == life ? op->begin_ns : 0,
                    .end_ns = is_answered ? op->end_ns : UINT64_MAX,
                    .value = op->value,
                    .is_write = is_write,
                    .durable = is_answered && is_write && (op->durable || op->end_ns < before_ns)};
        }
        if (u->n_search > 0)
                qsort(u->search, u->n_search, sizeof(*u->search), compare_search);
        for (size_t i = 0; i < u->n_search; i++)
                if (u->search[i].durable)
                        u->durable_ns = u->search[i].begin_ns;
}

/* ---- what is read later ---- */

static int compare_read(const void *a, const void *b)
{
        const struct last_read *x = a, *y = b;

        if (x->value != y->value)
                return x->value < y->value ? -1 : 1;
        return x->life < y->life ? -1 : x->life > y->life;
}

static int compare_read_values(const void *a, const void *b)
{
        const struct last_read *x = a, *y = b;

        return x->value < y->value ? -1 : x->value > y->value;
}

static void gather_reads(struct unit_history *u)
{
        size_t n = 0;

        for (size_t i = 0; i < u->n; i++)
                if (u->ops[i].kind == HISTORY_READ && u->ops[i].end_ns != HISTORY_NEVER)
                        u->reads[n++] = (struct last_read){u->ops[i].value, u->ops[i].last_life};
        if (n > 0)
                qsort(u->reads, n, sizeof(*u->reads), compare_read);
        for (size_t i = 0; i < n; i++)
                if (i + 1 == n || u->reads[i + 1].value != u->reads[i].value)
                        u->reads[u->n_reads++] = u->reads[i];
}

static bool is_read_after(const struct unit_history *u, unsigned life, uint64_t value)
{
        const struct last_read wanted = {.value = value};
        const struct last_read *found = u->n_reads ? bsearch(&wanted, u->reads, u->n_reads,
                                                             sizeof(*u->reads), compare_read_values)
                                                   : NULL;

        return found && found->life > life;
}

static bool has(const uint64_t *values, size_t n, uint64_t value)
{
        for (size_t i = 0; i < n; i++)
                if (values[i] == value)
                        return true;
        return false;
}

/* ---- the lives, one after the other ---- */

/* A value that a kill may go back to, as far as one sees at once: a later life reads it, and no durable write
 * begins after its own end. Each is told once. */
static bool is_candidate(const struct unit_history *u, unsigned life, size_t i)
{
        const struct search_op *op = &u->search[i];

        if (!op->is_write || op->end_ns < u->durable_ns || !is_read_after(u, life, op->value))
                return false;
        for (size_t k = u->n_search; k-- > i + 1;)
                if (u->search[k].is_write && u->search[k].value == op->value &&
                    u->search[k].end_ns >= u->durable_ns)
                        return false;
        return true;
}

static int try_leaving(struct unit_history *u, uint64_t start, uint64_t value, size_t *n_next,
                       struct error *err)
{
        if (has(u->next_starts, *n_next, value))
                return 0;
        int r = search_order(u->search, u->n_search, start, &value, err);
        if (r > 0)
                u->next_starts[(*n_next)++] = value;
        return r;
}

/* What the life may leave behind for the next, from one start. */
static int leave(struct unit_history *u, unsigned life, uint64_t start, size_t *n_next,
                 struct error *err)
{
        int r = search_order(u->search, u->n_search, start, NULL, err);

        if (r <= 0)
                return r;
        if (!has(u->next_starts, *n_next, UNREAD))
                u->next_starts[(*n_next)++] = UNREAD;
        if (start != UNREAD && u->durable_ns == 0 && is_read_after(u, life, start))
                r = try_leaving(u, start, start, n_next, err);
        for (size_t i = 0; r >= 0 && i < u->n_search; i++)
                if (is_candidate(u, life, i))
                        r = try_leaving(u, start, u->search[i].value, n_next, err);
        return r < 0 ? r : 1;
}

/* 1: it may be; 0: it may not, from @ret_life on. */
static int judge_unit(struct unit_history *u, unsigned *ret_life, struct error *err)
{
        size_t n_starts = 1;

        u->starts[0] = 0;
        for (unsigned life = 0; life < u->n_lives; life++) {
                size_t n_next = 0;

                gather_life(u, life);
                for (size_t i = 0; i < n_starts; i++) {
                        int r = life + 1 < u->n_lives
                                    ? leave(u, life, u->starts[i], &n_next, err)
                                    : search_order(u->search, u->n_search, u->starts[i], NULL, err);
                        if (r < 0)
                                return r;
                        if (r > 0 && life + 1 == u->n_lives)
                                return 1;
                }
                *ret_life = life;
                if (n_next == 0)
                        return 0;
                uint64_t *starts = u->starts;
                u->starts = u->next_starts;
                u->next_starts = starts;
                n_starts = n_next;
        }
        return 1;
}

/* ---- what is wrong, in as few operations as can be ---- */

/* Leave out some more, if what is left is wrong nevertheless. */
static int try_without(struct unit_history *u, const bool *more, struct error *err)
{
        bool *before = malloc(u->n * sizeof(*before));
        unsigned life;

        if (!before)
                return error_set(err, -ENOMEM, "out of memory for %zu operations", u->n);
        memcpy(before, u->left_out, u->n * sizeof(*before));
        for (size_t i = 0; i < u->n; i++)
                u->left_out[i] = u->left_out[i] || more[i];
        int r = judge_unit(u, &life, err);
        if (r != 0)
                memcpy(u->left_out, before, u->n * sizeof(*before));
        free(before);
        return r < 0 && r != -E2BIG ? r : 0;
}

/* A read may be left out, and a value: its writes with all that read it. What is left of a good history is good. */
static size_t mark_group(const struct unit_history *u, size_t i, bool *more)
{
        size_t n = 0;

        for (size_t k = 0; k < u->n; k++)
                if (!u->left_out[k] && !more[k] &&
                    (k == i ||
                     (u->ops[i].kind == HISTORY_WRITE && u->ops[k].value == u->ops[i].value))) {
                        more[k] = true;
                        n++;
                }
        return n;
}

static int shrink(struct unit_history *u, struct error *err)
{
        bool *more = malloc(u->n * sizeof(*more));
        int r = more ? 0 : error_set(err, -ENOMEM, "out of memory for %zu operations", u->n);

        /* Many at a time first, and at last one by one. */
        for (size_t chunk = u->n; r == 0 && chunk > 0; chunk /= 2) {
                for (size_t i = 0; r == 0 && i < u->n;) {
                        size_t n = 0;

                        memset(more, 0, u->n * sizeof(*more));
                        for (; i < u->n && n < chunk; i++)
                                if (!u->left_out[i])
                                        n += mark_group(u, i, more);
                        if (n > 0)
                                r = try_without(u, more, err);
                }
        }
        free(more);
        return r;
}

static int tell(struct unit_history *u, struct judgement *j, struct error *err)
{
        uint64_t first_ns = HISTORY_NEVER, last_ns = 0;
        unsigned life = 0;

        u->left_out = calloc(u->n, sizeof(*u->left_out));
        if (!u->left_out)
                return error_set(err, -ENOMEM, "out of memory for %zu operations", u->n);
        int r = shrink(u, err);
        if (r == 0)
                r = judge_unit(u, &life, err);
        for (size_t i = 0; r == 0 && i < u->n; i++) {
                const struct history_op *op = &u->ops[i];

                if (u->left_out[i])
                        continue;
                r = history_add(&j->least, op, NULL, err);
                first_ns = op->begin_ns < first_ns ? op->begin_ns : first_ns;
                last_ns = op->begin_ns > last_ns ? op->begin_ns : last_ns;
        }
        /* Of the flushes those that say the most: the last of a life, where writes are left. */
        for (unsigned l = 0; r == 0 && l < u->n_lives; l++)
                for (size_t i = 0; r == 0 && i < u->n_flushes; i++) {
                        const struct history_op *f = &u->flushes[i];

                        if (f->first_life == l && f->last_life == l && f->begin_ns >= first_ns &&
                            f->end_ns != HISTORY_NEVER && f->begin_ns == flushed_before(u, l) &&
                            f->begin_ns <= last_ns)
                                r = history_add(&j->least, f, NULL, err);
                }
        j->life = (uint16_t)life;
        return r;
}

/* ---- all of it ---- */

static int judge_register(struct unit_history *u, struct judgement *j, struct error *err)
{
        unsigned life;
        size_t most = u->n + 2;

        u->search = calloc(most, sizeof(*u->search));
        u->starts = calloc(most, sizeof(*u->starts));
        u->next_starts = calloc(most, sizeof(*u->next_starts));
        u->reads = calloc(most, sizeof(*u->reads));
        int r = u->search && u->starts && u->next_starts && u->reads
                    ? 0
                    : error_set(err, -ENOMEM, "out of memory for %zu operations", u->n);
        if (r == 0) {
                gather_reads(u);
                r = judge_unit(u, &life, err);
        }
        if (r < 0)
                error_prefix(err, "volume %u, unit %u: ", u->ops[0].volume, u->ops[0].unit);
        if (r == 0) {
                j->good = false;
                j->volume = u->ops[0].volume;
                j->unit = u->ops[0].unit;
                r = tell(u, j, err);
        }
        free(u->search);
        free(u->starts);
        free(u->next_starts);
        free(u->reads);
        free(u->left_out);
        return r < 0 ? r : 0;
}

int judge(const struct history *h, struct judgement *ret_judgement, struct error *err)
{
        struct judgement j = {.good = true};
        struct history sorted = {0};
        unsigned n_lives = 1;
        int r = history_append(&sorted, h, err);

        if (r == 0 && sorted.n > 0)
                qsort(sorted.ops, sorted.n, sizeof(*sorted.ops), compare_ops);
        for (size_t i = 0; r == 0 && i < sorted.n; i++)
                if (sorted.ops[i].last_life >= n_lives)
                        n_lives = sorted.ops[i].last_life + 1u;
        for (size_t i = 0, end; r == 0 && j.good && i < sorted.n; i = end) {
                const struct history_op *first = &sorted.ops[i];
                struct unit_history u = {.ops = first, .n_lives = n_lives};

                for (end = i; end < sorted.n && sorted.ops[end].volume == first->volume &&
                              sorted.ops[end].unit == first->unit;
                     end++)
                        u.n++;
                if (first->unit == HISTORY_ALL)
                        continue;
                /* The flushes of a volume come last in it. */
                for (size_t k = end; k < sorted.n && sorted.ops[k].volume == first->volume; k++)
                        if (sorted.ops[k].unit == HISTORY_ALL) {
                                if (u.n_flushes++ == 0)
                                        u.flushes = &sorted.ops[k];
                        }
                j.n_registers++;
                j.n_operations += u.n;
                r = judge_register(&u, &j, err);
        }
        history_free(&sorted);
        if (r < 0) {
                judgement_free(&j);
                return r;
        }
        *ret_judgement = j;
        return 0;
}

void judgement_free(struct judgement *j)
{
        history_free(&j->least);
}

static int compare_begins(const void *a, const void *b)
{
        const struct history_op *x = a, *y = b;

        if (x->first_life != y->first_life)
                return x->first_life < y->first_life ? -1 : 1;
        return x->begin_ns < y->begin_ns ? -1 : x->begin_ns > y->begin_ns;
}

static void print_op(const struct history_op *op, uint64_t first_ns, FILE *file)
{
        static const char *const names[] = {"reads", "writes", "flushes"};

        fprintf(file, "  life %u", op->first_life);
        if (op->last_life != op->first_life)
                fprintf(file, "-%u", op->last_life);
        fprintf(file, "  %10.1f us to ", (double)(op->begin_ns - first_ns) / 1000);
        if (op->end_ns == HISTORY_NEVER)
                fprintf(file, "%12s", "no answer");
        else
                fprintf(file, "%10.1f us", (double)(op->end_ns - first_ns) / 1000);
        fprintf(file, "  client %u %s", op->client, names[op->kind]);
        if (op->kind != HISTORY_FLUSH && op->value == 0)
                fputs(" zeroes", file);
        else if (op->kind != HISTORY_FLUSH && op->value == HISTORY_RUBBISH)
                fputs(" what nobody has written", file);
        else if (op->kind != HISTORY_FLUSH)
                fprintf(file, " %#" PRIx64, op->value);
        fprintf(file, "%s\n", op->durable ? ", durable once answered" : "");
}

void judgement_print(const struct judgement *j, FILE *file)
{
        if (j->good) {
                fprintf(file, "%" PRIu64 " operations on %" PRIu64 " units: in order\n",
                        j->n_operations, j->n_registers);
                return;
        }
        fprintf(file,
                "volume %u, unit %u: from life %u on no order of these explains what was read\n",
                j->volume, j->unit, j->life);
        qsort(j->least.ops, j->least.n, sizeof(*j->least.ops), compare_begins);
        for (size_t i = 0; i < j->least.n; i++)
                print_op(&j->least.ops[i], j->least.ops[0].begin_ns, file);
}
