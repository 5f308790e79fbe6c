/* check_data.c - blocks of data against their CRCs: gathered, sorted by address, read in runs. */
#include <errno.h>
#include <stdlib.h>
#include "pool/check.h"

#define RUN_BLOCKS 256u

struct data_run {
        size_t first, n; /* of the queue */
        const struct slab *slab;
};

static void data_finding(struct check *c, const struct check_queued *q, unsigned leg, int result)
{
        struct check_place place = {"data", q->root, q->block};
        check_finding(c, "%s %s%s%s: %s", check_place_text(c, &place).s,
                      result < 0 ? "cannot be read (" : "fails its checksum",
                      result < 0 ? strerror(-result) : "", result < 0 ? ")" : "",
                      check_address_text(c, q->address, leg).s);
}

/* One block of the run is bad: each of them on its own, to tell which. */
static void co_run_again(struct check *c, const struct data_run *run, unsigned leg)
{
        struct member *m = c->pool->disk[run->slab->leg[leg].member]->member;
        for (size_t i = run->first; i < run->first + run->n; i++) {
                const struct check_queued *q = &c->queued[i];
                int r =
                    co_member_read(m, c->buffer + i * BLOCK, BLOCK,
                                   leg_offset(run->slab, leg, q->address, c->pool->slab_blocks));
                if (r < 0)
                        data_finding(c, q, leg, r);
                else if (crc32c(0, c->buffer + i * BLOCK, BLOCK) != q->crc)
                        data_finding(c, q, leg, 0);
        }
}

static void co_run_judge(struct check *c, const struct data_run *run, unsigned leg, int result)
{
        if (result < 0) {
                co_run_again(c, run, leg);
                return;
        }
        for (size_t i = run->first; i < run->first + run->n; i++)
                if (crc32c(0, c->buffer + i * BLOCK, BLOCK) != c->queued[i].crc)
                        data_finding(c, &c->queued[i], leg, 0);
}

static int compare_queued(const void *a, const void *b)
{
        const struct check_queued *x = a, *y = b;
        return x->address < y->address ? -1 : x->address > y->address;
}

/* Adjacent blocks of one slab; their number. */
static size_t runs_plan(struct check *c, struct data_run *runs)
{
        size_t n = 0;
        for (size_t i = 0; i < c->n_queued; i++) {
                const struct slab *slab = address_slab(c->pool, c->queued[i].address);
                struct data_run *last = n ? &runs[n - 1] : NULL;
                if (last && last->slab == slab && last->n < RUN_BLOCKS &&
                    c->queued[i - 1].address + 1 == c->queued[i].address)
                        last->n++;
                else
                        runs[n++] = (struct data_run){i, 1, slab};
        }
        return n;
}

static int co_runs_read(struct check *c, const struct data_run *runs, size_t n, unsigned leg,
                        struct batch_io *ios)
{
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
                const struct data_run *run = &runs[i];
                if (leg >= run->slab->n_legs)
                        continue;
                struct batch_io *b = &ios[k++];
                *b = (struct batch_io){.disk = c->pool->disk[run->slab->leg[leg].member]};
                b->io.op = MEMBER_READ;
                b->io.offset =
                    leg_offset(run->slab, leg, c->queued[run->first].address, c->pool->slab_blocks);
                b->io.length = run->n * BLOCK;
                b->iov.iov_base = c->buffer + run->first * BLOCK;
        }
        co_batch(ios, k);
        k = 0;
        for (size_t i = 0; i < n; i++)
                if (leg < runs[i].slab->n_legs)
                        co_run_judge(c, &runs[i], leg, ios[k++].result);
        return k ? 0 : 1; /* 1: there is no such leg */
}

int co_check_data_flush(struct check *c)
{
        if (c->n_queued == 0)
                return 0;
        if (!c->buffer)
                c->buffer = aligned_alloc(BLOCK, c->queue_room * BLOCK);
        struct data_run *runs = malloc(c->n_queued * sizeof(*runs));
        qsort(c->queued, c->n_queued, sizeof(*c->queued), compare_queued);
        size_t n = runs ? runs_plan(c, runs) : 0;
        struct batch_io *ios = malloc((n + 1) * sizeof(*ios));
        int r = c->buffer && runs && ios ? 0 : -ENOMEM;
        for (unsigned leg = 0; leg < SLAB_LEGS_MAX && r == 0; leg++)
                r = co_runs_read(c, runs, n, leg, ios);
        free(runs);
        free(ios);
        check_progress(c, c->n_queued);
        c->n_queued = 0;
        return r < 0 ? r : check_disturbed(c);
}

int co_check_data(struct check *c, const struct check_root *root, uint64_t block,
                  const struct entry *e)
{
        if (c->n_queued == c->queue_room) {
                int r = co_check_data_flush(c);
                if (r < 0)
                        return r;
        }
        if (!c->queued) {
                c->queue_room = c->queue_room ? c->queue_room : 1;
                c->queued = malloc(c->queue_room * sizeof(*c->queued));
                if (!c->queued)
                        return -ENOMEM;
        }
        c->queued[c->n_queued++] = (struct check_queued){e->address, block, root, e->crc};
        return 0;
}
