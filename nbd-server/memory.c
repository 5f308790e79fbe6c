/* memory.c - what connections may hold of payload buffers, and how it is given back.
 *
 * Each connection has its bound, and all of a worker have one together. Where that is reached, connections wait
 * in turn; only a small request of one that holds nothing yet is always let in, so that clients
 * which do not read their replies keep nobody from going on. Those of them that take and send next to
 * nothing for STUCK_TICKS while others wait are cut off (rule 4 of README.md).
 *
 * One timer ticks for the worker while anything happens; a connection or worker that was idle
 * between two ticks gives memory back, and then it ticks no more. */
#include <assert.h>
#include <errno.h>
#include "nbd-server/internal.h"

#define TICK_MS     1000u
#define STUCK_TICKS 10u
#define STUCK_PART  64u

static bool worker_has_room(const struct nbd_client *client, size_t bytes)
{
        const struct nbd_worker *worker = client->worker;

        if (client->bytes_in_flight == 0 && bytes <= SMALL_PAYLOAD_MAX)
                return true;
        return worker->bytes_in_flight == 0 || worker->bytes_in_flight + bytes <= worker->max_bytes;
}

static bool client_has_room(const struct nbd_client *client, size_t bytes)
{
        return client->bytes_in_flight == 0 ||
               client->bytes_in_flight + bytes <= client->server->options.max_bytes;
}

bool memory_admits(struct nbd_client *client, size_t length)
{
        struct list *starved = &client->worker->starved;

        if (length == 0)
                return true;
        size_t bytes = buffers_class_bytes(buffers_class(length));
        if (!client_has_room(client, bytes))
                return false;
        bool in_turn = list_empty(starved) || starved->next == &client->starved ||
                       (client->bytes_in_flight == 0 && bytes <= SMALL_PAYLOAD_MAX);
        if (in_turn && worker_has_room(client, bytes)) {
                list_remove(&client->starved);
                return true;
        }
        if (list_empty(&client->starved))
                list_append(starved, &client->starved);
        return false;
}

int memory_take(struct nbd_request *request, size_t length)
{
        struct nbd_client *client = request->client;

        assert(!request->buffer);
        request->class = buffers_class(length);
        request->buffer = buffers_get(&client->worker->buffers, request->class);
        if (!request->buffer)
                return -ENOMEM;
        client->bytes_in_flight += buffers_class_bytes(request->class);
        client->worker->bytes_in_flight += buffers_class_bytes(request->class);
        return 0;
}

void memory_give(struct nbd_request *request)
{
        struct nbd_client *client = request->client;
        struct nbd_worker *worker = client->worker;

        if (!request->buffer)
                return;
        buffers_put(&worker->buffers, request->buffer, request->class);
        request->buffer = NULL;
        client->bytes_in_flight -= buffers_class_bytes(request->class);
        worker->bytes_in_flight -= buffers_class_bytes(request->class);
        if (!list_empty(&worker->starved))
                loop_post(worker->loop, &worker->starved_task);
}

/* Let those go on for whom there is room again, in turn. */
static void feed(struct loop_task *task)
{
        struct nbd_worker *worker = container_of(task, struct nbd_worker, starved_task);

        while (!list_empty(&worker->starved)) {
                struct list *first = worker->starved.next;
                receive_resume(container_of(first, struct nbd_client, starved));
                if (worker->starved.next == first) /* still no room for it */
                        return;
        }
}

/* ---- ticks ---- */

static void tick_soon(struct nbd_worker *worker)
{
        worker->ticking = true;
        loop_timer_set(worker->loop, &worker->tick,
                       loop_now_ns(worker->loop) + TICK_MS * UINT64_C(1000000));
}

void memory_withdraw(struct nbd_client *client)
{
        struct nbd_worker *worker = client->worker;

        list_remove(&client->starved);
        if (!list_empty(&worker->starved))
                loop_post(worker->loop, &worker->starved_task);
}

void memory_touch(struct nbd_client *client)
{
        client->active = true;
        if (!client->worker->ticking)
                tick_soon(client->worker);
}

/* A byte now and then is not enough: it moves a part of what it holds in that time, or others wait for
 * ever. */
static void look_for_stuck(struct nbd_client *client)
{
        bool waits = client->sending || client->payload;
        uint64_t moved = client->moved_bytes - client->tick_moved_bytes;
        bool stuck = waits && moved <= client->bytes_in_flight / STUCK_PART;

        /* Nothing is being received that would end with the connection. */
        if (moved == 0 && !client->receiving && client->n_requests > 0 &&
            client_peer_is_gone(client))
                client_cut(client, NULL);
        if (!stuck)
                client->tick_moved_bytes = client->moved_bytes;
        client->stuck_ticks = stuck ? client->stuck_ticks + 1 : 0;
        if (client->stuck_ticks >= STUCK_TICKS && !list_empty(&client->worker->starved))
                client_cut(
                    client,
                    "it neither takes replies nor sends its data, and others wait for the memory");
}

static void tick(struct loop_timer *timer)
{
        struct nbd_worker *worker = container_of(timer, struct nbd_worker, tick);
        bool active = false;

        list_for_each (it, &worker->clients) {
                struct nbd_client *client = container_of(it, struct nbd_client, worker_link);
                if (client->active || client->n_requests > 0) {
                        active = true;
                        look_for_stuck(client);
                } else {
                        client_trim(client);
                }
                client->active = false;
        }
        worker->ticking = false;
        if (active)
                tick_soon(worker);
        else
                buffers_trim(&worker->buffers);
}

void memory_start(struct nbd_worker *worker)
{
        worker->buffers.cached_max = CACHED_BYTES_MAX;
        list_init(&worker->starved);
        list_init(&worker->tick.link);
        worker->tick.fire = tick;
        worker->starved_task.run = feed;
}

void co_memory_stop(struct nbd_worker *worker)
{
        assert(worker->bytes_in_flight == 0 && list_empty(&worker->starved));
        loop_timer_cancel(worker->loop, &worker->tick);
        buffers_trim(&worker->buffers);
        while (worker->starved_task.queued)
                co_yield_loop();
}
