/* table.c - see table.h */
#include <inttypes.h>
#include <stdio.h>
#include "tests/rot/table.h"

static uint64_t n_blocks[KINDS], n_never[KINDS];

static void violation_note(struct worker *worker, enum kind kind, const char *reason)
{
        if (worker->n_violations < VIOLATIONS_SHOWN) {
                __typeof__(&worker->violation[0]) v = &worker->violation[worker->n_violations];

                snprintf(v->damage, sizeof(v->damage), "%s", worker->damage);
                snprintf(v->reason, sizeof(v->reason), "%s", reason);
                v->kind = kind;
        }
        worker->n_violations++;
}

void worker_count(struct worker *worker, enum kind kind, enum way way, enum verdict verdict,
                  const char *reason)
{
        worker->n[kind][verdict]++;
        worker->n_flips[kind] += way <= WAY_BYTE;
        if (verdict == VERDICT_WRONG)
                violation_note(worker, kind, reason);
}

void worker_count_use(struct worker *worker, enum kind kind, enum verdict verdict, bool mended,
                      const char *reason)
{
        worker->n_used[kind]++;
        worker->n_mended[kind] += mended;
        if (verdict == VERDICT_WRONG) {
                worker->n[kind][verdict]++;
                violation_note(worker, kind, reason);
        }
}

void worker_died(struct worker *worker, const char *how)
{
        worker->n[KIND_FREE][VERDICT_WRONG]++;
        violation_note(worker, KIND_FREE, how);
}

void table_note_sample(const struct sample *sample)
{
        for (size_t i = 0; i < sample->n_spots; i++)
                n_blocks[sample->spot[i].kind]++;
        for (unsigned k = 0; k < KINDS; k++)
                n_never[k] += sample->n_never[k];
}

static void sum(const struct worker *workers, unsigned n, struct worker *total)
{
        for (unsigned i = 0; i < n; i++) {
                total->n_violations += workers[i].n_violations;
                for (unsigned k = 0; k < KINDS; k++) {
                        total->n_flips[k] += workers[i].n_flips[k];
                        total->n_used[k] += workers[i].n_used[k];
                        total->n_mended[k] += workers[i].n_mended[k];
                        for (unsigned v = 0; v < VERDICTS; v++)
                                total->n[k][v] += workers[i].n[k][v];
                }
        }
}

static void print_violations(const struct worker *worker)
{
        for (unsigned i = 0; i < worker->n_violations && i < VIOLATIONS_SHOWN; i++)
                printf("VIOLATION: %s: %s (%s)\n    rot --replay %s\n", worker->violation[i].damage,
                       worker->violation[i].reason, kind_name[worker->violation[i].kind],
                       worker->violation[i].damage);
}

uint64_t table_print(const struct worker *workers, unsigned n)
{
        static struct worker total;
        uint64_t n_all = 0, n_flips = 0, n_of[VERDICTS] = {0}, n_read = 0;

        sum(workers, n, &total);
        printf("%-26s %7s %7s %8s %8s", "what is damaged", "blocks", "unread", "damages",
               "of bytes");
        for (unsigned v = 0; v < VERDICTS; v++)
                printf(" %10s", verdict_name[v]);
        printf(" %8s %8s\n", "used", "mended");
        for (unsigned k = 0; k < KINDS; k++) {
                uint64_t n_kind = 0;

                for (unsigned v = 0; v < VERDICTS; v++) {
                        n_kind += total.n[k][v];
                        n_of[v] += total.n[k][v];
                }
                n_all += n_kind;
                n_flips += total.n_flips[k];
                n_read += n_blocks[k];
                if (n_blocks[k] + n_never[k] + n_kind == 0)
                        continue;
                printf("%-26s %7" PRIu64 " %7" PRIu64 " %8" PRIu64 " %8" PRIu64, kind_name[k],
                       n_blocks[k], n_never[k], n_kind, total.n_flips[k]);
                for (unsigned v = 0; v < VERDICTS; v++)
                        printf(" %10" PRIu64, total.n[k][v]);
                printf(" %8" PRIu64 " %8" PRIu64 "\n", total.n_used[k], total.n_mended[k]);
        }
        for (unsigned i = 0; i < n; i++)
                print_violations(&workers[i]);
        printf("%" PRIu64 " damages to %" PRIu64 " blocks, %" PRIu64 " of single bytes:", n_all,
               n_read, n_flips);
        for (unsigned v = 0; v < VERDICT_WRONG; v++)
                printf(" %" PRIu64 " %s,", n_of[v], verdict_name[v]);
        printf(" %" PRIu64 " violations\n", total.n_violations);
        return total.n_violations;
}
