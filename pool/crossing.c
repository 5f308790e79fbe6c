/* crossing.c - requests of handles that are used from another loop than the pool's.
 *
 * What is submitted in one iteration of the user's loop goes over as one batch, and what the engine
 * ends in one iteration of its own comes back as one:
 *
 *     user's loop    out --hand_over--> submitted        answered --returned--> done()
 *     pool's loop                       submitted --arrived--> engine --ended--hand_back--> answered
 *
 * Each of the two lists between the threads is a chain that grows at its head; who takes it takes
 * all of it. There is one crossing for each loop that uses the pool, counted by its handles. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "common/coroutine.h"
#include "pool/crossing.h"

typedef struct volume_request *_Atomic chain;

struct crossing {
        struct list link; /* in pool->crossings */
        struct pool *pool;
        struct loop *home; /* the user's */
        unsigned n_handles;
        chain submitted, answered; /* newest first */

        /* the user's loop */
        struct volume_request *out;
        struct loop_task hand_over, returned;

        /* the pool's */
        struct volume_request *ended;
        struct loop_task arrived, hand_back;
};

/* All of @from, whose newest is first, in front of what lies in @to. */
static void chain_give(chain *to, struct volume_request **from)
{
        struct volume_request *first = *from, *last = first;
        struct volume_request *top = atomic_load_explicit(to, memory_order_relaxed);

        while (last->next)
                last = last->next;
        do
                last->next = top;
        while (!atomic_compare_exchange_weak(to, &top, first));
        *from = NULL;
}

/* All of it, the oldest first. */
static struct volume_request *chain_take(chain *from)
{
        struct volume_request *newest = atomic_exchange(from, NULL), *oldest = NULL;

        while (newest) {
                struct volume_request *next = newest->next;

                newest->next = oldest;
                oldest = newest;
                newest = next;
        }
        return oldest;
}

/* ---- on the user's loop ---- */

static void hand_over(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, hand_over);

        chain_give(&c->submitted, &c->out);
        loop_post_remote(c->pool->loop, &c->arrived);
}

void crossing_submit(struct crossing *c, struct volume_request *req)
{
        req->next = c->out;
        c->out = req;
        loop_post(c->home, &c->hand_over);
}

static void returned(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, returned);
        struct volume_request *req = chain_take(&c->answered);

        while (req) {
                struct volume_request *next = req->next; /* done() may give the request back */

                req->done = req->crossing_done;
                req->done(req, req->result);
                req = next;
        }
}

/* ---- on the pool's loop ---- */

static void ended(struct volume_request *req, int result)
{
        struct crossing *c = req->volume->crossing;

        req->result = result;
        req->next = c->ended;
        c->ended = req;
        loop_post(c->pool->loop, &c->hand_back);
}

static void hand_back(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, hand_back);

        chain_give(&c->answered, &c->ended);
        loop_post_remote(c->home, &c->returned);
}

static void arrived(struct loop_task *task)
{
        struct crossing *c = container_of(task, struct crossing, arrived);
        struct volume_request *req = chain_take(&c->submitted);

        while (req) {
                struct volume_request *next = req->next;

                req->crossing_done = req->done;
                req->done = ended;
                request_begin(req);
                req = next;
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
