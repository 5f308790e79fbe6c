/* worker.c - on which loop a client is served.
 *
 * Clients negotiate on the server's loop; then each goes, coroutine and all, to a worker's, and
 * comes back when it has ended. The first client of an engine that lives on a worker's loop is
 * served there: its requests reach the engine without waking another thread. Those that come later
 * are given to the other loops, the least busy first, so that the engine's has the engine for
 * itself as far as may be; their requests cross in batches. With one other loop all stay on the
 * engine's: two processors that also have the clients gain nothing by it (measured: four clients'
 * random reads are a fifth slower over two loops, at a third more processor time).
 *
 * From the server's loop a client elsewhere is cut or stopped by a task that is posted to its
 * worker's. Loops run what is posted in order: that is what lets a client, before it is freed, wait
 * for such tasks by going there and back. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "nbd-server/internal.h"

#define SPREAD_WORKERS_MIN 3u

static void worker_init(struct nbd_worker *w, struct nbd_server *server, struct loop *loop)
{
        w->server = server;
        w->loop = loop;
        list_init(&w->clients);
        memory_start(w);
}

int workers_new(struct nbd_server *server, struct error *err)
{
        unsigned n = server->options.n_loops + 1;

        server->workers = calloc(n, sizeof(*server->workers));
        if (!server->workers)
                return error_set(err, -ENOMEM, "no memory for the NBD server");
        server->n_workers = n;
        worker_init(&server->workers[0], server, server->loop);
        for (unsigned i = 1; i < n; i++)
                worker_init(&server->workers[i], server, server->options.loops[i - 1]);
        for (unsigned i = 0; i < n; i++)
                server->workers[i].max_bytes = server->options.max_total_bytes / n;
        server->options.loops = NULL; /* the caller's array */
        return 0;
}

void workers_free(struct nbd_server *server)
{
        free(server->workers);
}

void co_workers_stop(struct nbd_server *server)
{
        for (unsigned i = 0; i < server->n_workers; i++) {
                co_move(server->workers[i].loop);
                co_memory_stop(&server->workers[i]);
        }
        co_move(server->loop);
}

/* ---- placing ---- */

static struct nbd_worker *choose(struct nbd_client *client)
{
        struct nbd_server *server = client->server;
        struct loop *engine = volume_loop(client->export.volume);
        struct nbd_worker *best = NULL;

        for (unsigned i = 0; i < server->n_workers; i++) {
                struct nbd_worker *w = &server->workers[i];

                if (w->loop == engine &&
                    (w->n_placed == 0 || server->n_workers < SPREAD_WORKERS_MIN))
                        return w;
                if (w->loop != engine && (!best || w->n_placed < best->n_placed))
                        best = w;
        }
        assert(best); /* alone, a worker is taken above, whatever it has */
        return best;
}

int co_worker_take(struct nbd_client *client)
{
        struct nbd_worker *w = choose(client);
        int r;

        w->n_placed++;
        r = co_volume_use_from(client->export.volume, w->loop);
        if (r < 0 || client->state == CLIENT_DEAD) { /* it may have been cut meanwhile */
                w->n_placed--;
                return r < 0 ? r : -ECANCELED;
        }
        client->worker = w;
        client->placed = true;
        co_move(w->loop);
        list_append(&w->clients, &client->worker_link);
        return 0;
}

void co_worker_return(struct nbd_client *client)
{
        struct nbd_worker *w = client->worker;
        struct loop *home = client->server->loop;

        list_remove(&client->worker_link);
        co_move(home);
        client->placed = false; /* no task is posted from here on */
        client->returned = true;
        if (client->told_to_stop || client->told_to_end) {
                co_move(w->loop);
                while (client->send_task.queued) /* of client_cut() */
                        co_yield_loop();
                co_move(home);
        }
        w->n_placed--;
        client->worker = &client->server->workers[0];
}

/* ---- from the server's loop ---- */

static bool is_elsewhere(const struct nbd_client *client)
{
        return client->placed && client->worker->loop != client->server->loop;
}

static void stop_there(struct loop_task *task)
{
        client_stop(container_of(task, struct nbd_client, stop_task));
}

static void end_there(struct loop_task *task)
{
        struct nbd_client *client = container_of(task, struct nbd_client, end_task);

        client_cut(client, client->end_why);
}

void worker_stop_client(struct nbd_client *client)
{
        if (client->returned)
                return;
        if (!is_elsewhere(client)) {
                client_stop(client);
                return;
        }
        client->told_to_stop = true;
        client->stop_task.run = stop_there;
        loop_post_remote(client->worker->loop, &client->stop_task);
}

void worker_cut(struct nbd_client *client, const char *why)
{
        if (client->returned)
                return;
        if (!is_elsewhere(client)) {
                client_cut(client, why);
                return;
        }
        if (client->told_to_end)
                return;
        client->told_to_end = true;
        client->end_why = why;
        client->end_task.run = end_there;
        loop_post_remote(client->worker->loop, &client->end_task);
}
