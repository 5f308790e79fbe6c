/* crossing.c - requests of handles that are used from another loop than the pool's.
 *
 * What is submitted in one iteration of the user's loop goes over as one batch, and what the engine
 * ends in one iteration of its own comes back as one:
 *
 *     user's loop    out --hand_over--> submitted        answered --returned--> done()
 *     pool's loop                       submitted --arrived--> engine --ended--hand_back--> answered
 *
 * Moving data and checking them is most of the work of a read. It is the user's loop that does it
 * while many are under way, so that more loops serve more of them; the engine says what lies where,
 * and holds the blocks until the data are there:
 *
 *     user's loop    lent --returned--> member_fetch()    out_fetched --hand_over--> fetched
 *     pool's loop    to_lend --hand_back--> lent          fetched --arrived--> run's answer
 *
 * There is one crossing for each loop that uses the pool, counted by its handles. */
#include <errno.h>
#include <stdlib.h>
#include "common/coroutine.h"
#include "pool/crossing.h"

/* Reads are fetched where so many of the crossing's requests are under way: fewer are answered
 * sooner by the pool's loop, which then has time. Larger ones stay there too: to read and to send
 * are about as much work, and go on side by side. */
#define FETCH_REQUESTS_MIN 8u
#define FETCH_BYTES_MAX    (UINT64_C(64) << 10)

struct crossing {
        struct list link; /* in pool->crossings */
        struct pool *pool;
        struct loop *home; /* the user's */
        unsigned n_handles;
        llist submitted, answered; /* requests */
        llist lent, fetched;       /* runs */

        /* the user's loop */
        struct llist_node *out, *out_fetched;
        struct loop_task hand_over, returned;

        /* the pool's */
        unsigned n_begun; /* requests, not yet ended */
        struct llist_node *ended, *to_lend;
        struct loop_task arrived, hand_back;
};

/* ---- on the user's loop ---- */

static void hand_over(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, hand_over);

        llist_give(&c->submitted, &c->out);
        llist_give(&c->fetched, &c->out_fetched);
        loop_post_remote(c->pool->loop, &c->arrived);
}

void crossing_submit(struct crossing *c, struct volume_request *req)
{
        llist_prepend(&c->out, &req->crossing_link);
        loop_post(c->home, &c->hand_over);
}

static void run_fetched(struct member_io *io, bool whole)
{
        struct run *run = container_of(io, struct run, io);
        struct crossing *c = run->chunk->span->crossing;

        run->verified = whole && run_is_good(run);
        llist_prepend(&c->out_fetched, &run->crossing_link);
        loop_post(c->home, &c->hand_over);
}

static void returned(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, returned);
        struct llist_node *runs = llist_take(&c->lent), *requests = llist_take(&c->answered), *next;

        for (; runs; runs = next) {
                struct run *run = container_of(runs, struct run, crossing_link);

                next = runs->next;
                member_fetch(&run->io, c->home);
        }
        for (; requests; requests = next) {
                struct volume_request *req =
                    container_of(requests, struct volume_request, crossing_link);

                next = requests->next; /* done() may give the request back */
                req->done = req->crossing_done;
                req->done(req, req->result);
        }
}

/* ---- on the pool's loop ---- */

static void ended(struct volume_request *req, int result)
{
        struct crossing *c = req->volume->crossing;

        c->n_begun--;
        req->result = result;
        llist_prepend(&c->ended, &req->crossing_link);
        loop_post(c->pool->loop, &c->hand_back);
}

bool crossing_is_to_fetch(const struct crossing *c, const struct run *run)
{
        return c->n_begun >= FETCH_REQUESTS_MIN && run->io.length <= FETCH_BYTES_MAX &&
               member_can_lend(run->disk->member);
}

void crossing_fetch(struct crossing *c, struct run *run)
{
        run->io.fetched = run_fetched;
        member_lend(run->disk->member, &run->io);
        llist_prepend(&c->to_lend, &run->crossing_link);
        loop_post(c->pool->loop, &c->hand_back);
}

static void hand_back(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, hand_back);

        llist_give(&c->lent, &c->to_lend);
        llist_give(&c->answered, &c->ended);
        loop_post_remote(c->home, &c->returned);
}

static void arrived(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, arrived);
        struct llist_node *requests = llist_take(&c->submitted), *runs = llist_take(&c->fetched);
        struct llist_node *next;

        for (; requests; requests = next) {
                struct volume_request *req =
                    container_of(requests, struct volume_request, crossing_link);

                next = requests->next;
                c->n_begun++;
                req->crossing_done = req->done;
                req->done = ended;
                request_begin(req);
        }
        for (; runs; runs = next) {
                struct run *run = container_of(runs, struct run, crossing_link);

                next = runs->next;
                if (run->verified)
                        member_answer(&run->io, 0);
                else
                        member_begin_anew(&run->io);
        }
}

/* ---- handles ---- */

static struct crossing *crossing_get(struct pool *pool, struct loop *home)
{
        struct crossing *c;

        list_for_each (it, &pool->crossings) {
                c = container_of(it, struct crossing, link);
                if (c->home == home) {
                        c->n_handles++;
                        return c;
                }
        }
        c = calloc(1, sizeof(*c));
        if (!c)
                return NULL;
        c->pool = pool;
        c->home = home;
        c->n_handles = 1;
        c->hand_over.run = hand_over;
        c->returned.run = returned;
        c->arrived.run = arrived;
        c->hand_back.run = hand_back;
        list_append(&pool->crossings, &c->link);
        return c;
}

/* All has been answered. Yet a task may be posted that will find nothing, as what it was posted for
 * was taken by the run before. Loops run what is posted in order: those to the pool's loop were
 * posted before the caller came here; for those to the user's it goes there and back. */
void co_crossing_put(struct crossing *c)
{
        struct loop *here;

        if (!c || --c->n_handles > 0)
                return;
        list_remove(&c->link);
        here = co_move(c->home);
        co_move(here);
        free(c);
}

int co_volume_use_from(struct volume *v, struct loop *loop)
{
        struct loop *from = co_move(v->pool->loop);
        struct crossing *old = v->crossing, *c = NULL;
        int r = 0;

        if (loop != v->pool->loop)
                c = crossing_get(v->pool, loop);
        if (loop != v->pool->loop && !c) {
                r = -ENOMEM;
        } else {
                v->crossing = c;
                co_crossing_put(old);
        }
        co_move(from);
        return r;
}
