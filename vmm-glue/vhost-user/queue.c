/* queue.c - a queue's life: it begins with a kick, takes requests, gives them back, sleeps, stops.
 *
 * All of a queue's work is one task of the loop. Callbacks of the engine only put finished requests
 * on a list and post the task; it runs after the callbacks of the iteration, gives back all that
 * have ended in one step with at most one signal, and then takes what has become available. What it
 * submits leaves with one system call when control returns to the loop.
 *
 * Polling: while the driver is busy, a kick and a wake-up for each request cost more than looking.
 * So the task posts itself again, with notifications off, as long as there was work less than
 * poll_ns ago. poll_ns adapts: it grows when a kick comes so soon after the queue went to sleep
 * that a look would have found the request, and is halved when the look was in vain, down to
 * nothing. A posted task makes the loop's next poll return at once, and other work of the loop has
 * its turn in between. An idle queue has no task posted and no timer: it costs nothing. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "common/log.h"
#include "vmm-glue/vhost-user/internal.h"

/* Taken in one run of the task, so that other queues have their turn. */
#define BATCH_MAX 256u
/* Below this a look is not worth its clock reading. */
#define POLL_MIN_NS 2000u

static struct vhost_server *server_of(const struct queue *queue)
{
        return queue->client->device->server;
}

/* ---- signals ---- */

/* Through the loop, not by write(2): an eventfd whose other holder fills it and takes O_NONBLOCK
 * away would hold up the caller. */
static void signal_submit(struct signal *signal)
{
        signal->busy = true;
        signal->again = false;
        signal->io.op = LOOP_SIGNAL;
        signal->io.fd = signal->fd;
        loop_submit(server_of(signal->queue)->loop, &signal->io);
}

static void signal_done(struct loop_io *io, int result)
{
        struct signal *signal = container_of(io, struct signal, io);

        signal->busy = false;
        if (signal->again && signal->fd >= 0)
                signal_submit(signal);
        co_wake_all(&signal->queue->client->quiet);
}

void queue_signal(struct signal *signal)
{
        if (signal->fd < 0)
                return;
        if (signal->busy)
                signal->again = true;
        else
                signal_submit(signal);
}

static void read_eventfd(int fd)
{
        uint64_t value;
        struct iovec iov = {&value, sizeof(value)};

        /* Not even where somebody else has read it first, and it is blocking. */
        if (preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP &&
            read(fd, &value, sizeof(value)) < 0)
                return;
}

void co_queue_set_signal(struct queue *queue, struct signal *signal, int fd, uint64_t until_ns)
{
        struct loop *loop = server_of(queue)->loop;

        for (bool first = true; signal->busy; first = false) {
                signal->again = false;
                if (loop_now_ns(loop) >= until_ns) {
                        loop_cancel(loop, &signal->io);
                        read_eventfd(
                            signal->fd); /* makes room, where a write cannot be cancelled */
                }
                if (first)
                        co_yield_loop();
                else
                        co_sleep_ns(1000000);
        }
        if (signal->fd >= 0)
                close(signal->fd);
        signal->fd = fd;
}

/* ---- memory ---- */

static size_t arena_bytes(const struct queue *queue)
{
        return (size_t)queue->size * SEGMENTS_MAX * sizeof(struct iovec);
}

static void queue_release(struct queue *queue)
{
        assert(queue->n_in_flight == 0 && list_empty(&queue->done));
        if (queue->arena)
                munmap(queue->arena, arena_bytes(queue));
        queue->arena = NULL;
        queue->arena_touched = false;
        free(queue->requests);
        free(queue->head_busy);
        queue->requests = queue->free = NULL;
        queue->head_busy = NULL;
        queue->n_slots_used = 0;
        inflight_detach(queue);
        queue->ops = NULL;
}

static int queue_allocate(struct queue *queue, struct error *err)
{
        void *arena;

        queue->requests = calloc(queue->size, sizeof(*queue->requests));
        queue->head_busy = calloc(queue->size, sizeof(*queue->head_busy));
        arena = mmap(NULL, arena_bytes(queue), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena != MAP_FAILED)
                queue->arena = arena;
        if (!queue->requests || !queue->head_busy || !queue->arena)
                return error_set(err, -ENOMEM, "no memory for a queue of %u", queue->size);
        return 0;
}

static struct vhost_req *take_slot(struct queue *queue)
{
        struct vhost_req *req = queue->free;

        /* Last used, first taken: slots that were never needed are never touched. */
        if (req) {
                queue->free = req->next_free;
        } else if (queue->n_slots_used < queue->size) {
                req = &queue->requests[queue->n_slots_used++];
                req->queue = queue;
                list_init(&req->link);
        }
        return req;
}

static void put_slot(struct vhost_req *req)
{
        req->next_free = req->queue->free;
        req->queue->free = req;
}

/* ---- waiting for bytes ---- */

/* A device that has nothing in flight is always let in, so that each goes on. */
static bool server_admits(const struct queue *queue)
{
        const struct vhost_server *server = server_of(queue);
        uint64_t device_bytes = queue->client->device->bytes_in_flight;

        return device_bytes == 0 || (device_bytes < server->options.max_bytes &&
                                     server->bytes_in_flight < server->options.max_total_bytes);
}

/* ---- the end of a queue that makes no sense ---- */

static void queue_break(struct queue *queue, const struct error *why)
{
        struct vhost_server *server = server_of(queue);

        queue->broken = true;
        if (vhost_may_log(server))
                log_warning("vhost: %s: queue %u of client %llu is stopped: %s",
                            queue->client->device->name, queue->index,
                            (unsigned long long)queue->client->id, why->message);
        queue_signal(&queue->error);
}

/* ---- the task ---- */

/* While it is drained also one that is disabled, but nothing that is new. */
static bool may_begin(const struct queue *queue)
{
        bool wanted = queue->enabled || (queue->draining && queue->at_resubmit < queue->n_resubmit);

        return queue->ops && wanted && !queue->broken && !queue->ring_lost && !queue->stopping &&
               !queue->client->dead;
}

void queue_run_soon(struct queue *queue)
{
        if (queue->ops)
                loop_post(server_of(queue)->loop, &queue->task);
}

static void give_back(struct queue *queue)
{
        bool signal = !queue->ring_lost && queue->ops->publish(queue);

        while (!list_empty(&queue->done)) {
                struct vhost_req *req = container_of(queue->done.next, struct vhost_req, link);

                list_remove(&req->link);
                put_slot(req);
                queue->n_in_flight--;
        }
        if (signal)
                queue_signal(&queue->call);
        if (queue->n_in_flight == 0)
                co_wake_all(&queue->idle);
}

static void notify(struct queue *queue, bool on)
{
        if (queue->notifying == on)
                return;
        queue->notifying = on;
        queue->ops->notify(queue, on);
}

/* Begin what is available; true where there was anything. */
static bool begin_some(struct queue *queue)
{
        struct error e = ERROR_INIT;
        unsigned n;
        int r = 1;

        if (!queue->ops->has_work(queue))
                return false;
        notify(queue, false);
        for (n = 0; n < BATCH_MAX && r > 0 && may_begin(queue); n++) {
                struct vhost_req *req;

                if (!server_admits(queue)) {
                        if (list_empty(&queue->starved))
                                list_append(&server_of(queue)->starved, &queue->starved);
                        break;
                }
                req = take_slot(queue);
                if (!req)
                        break; /* all of them are in flight: one that ends goes on here */
                req->memory = queue->client->memory;
                r = queue->ops->pop(queue, req, &e);
                if (r <= 0) {
                        put_slot(req);
                        break;
                }
                memory_ref(req->memory);
                queue->n_in_flight++;
                vhost_request_execute(req);
        }
        if (r < 0)
                queue_break(queue, &e);
        return n > 0;
}

/* Nothing to do: look for a while, or sleep until a kick. */
static void rest(struct queue *queue, bool worked)
{
        struct loop *loop = server_of(queue)->loop;
        uint64_t now_ns = loop_now_ns(loop);

        if (worked)
                queue->poll_until_ns = now_ns + queue->poll_ns;
        if (now_ns < queue->poll_until_ns) {
                loop_post(loop, &queue->task);
                return;
        }
        if (!worked && queue->poll_ns > 0) {
                queue->poll_ns /= 2;
                if (queue->poll_ns < POLL_MIN_NS)
                        queue->poll_ns = 0;
        }
        notify(queue, true);
        /* Once more: what came before the driver could see that it has to kick. Where requests wait
         * for others to end, the ends post the task. */
        if (list_empty(&queue->starved) && queue->ops->has_work(queue) &&
            queue->n_in_flight < queue->size) {
                notify(queue, false);
                loop_post(loop, &queue->task);
                return;
        }
        queue->slept_ns = now_ns;
        if (queue->n_in_flight == 0 && queue->arena_touched) {
                madvise(queue->arena, arena_bytes(queue), MADV_DONTNEED);
                queue->arena_touched = false;
        }
}

static void queue_task(struct loop_task *task)
{
        struct queue *queue = container_of(task, struct queue, task);
        bool worked = false;

        /* Without its rings nothing can be given back. It waits for the front end to send the memory
         * that they lie in, as between the removal of a region and its replacement; or it is over,
         * and the marks of what is in flight stay. */
        if (!list_empty(&queue->done) &&
            (!queue->ring_lost || queue->stopping || queue->client->dead)) {
                give_back(queue);
                worked = true;
        }
        if (may_begin(queue)) {
                worked |= begin_some(queue);
                if (may_begin(queue))
                        rest(queue, worked);
        }
        if (atomic_load(&queue->client->memory_lost))
                vhost_client_cut(queue->client, "memory that it had sent was taken away");
        if (queue->stopping)
                co_wake_all(&queue->idle);
}

void queue_done(struct vhost_req *req)
{
        struct queue *queue = req->queue;

        memory_unref(req->memory);
        req->memory = NULL;
        list_append(&queue->done, &req->link);
        loop_post(server_of(queue)->loop, &queue->task);
}

void queue_left(struct vhost_req *req)
{
        struct queue *queue = req->queue;

        memory_unref(req->memory);
        req->memory = NULL;
        put_slot(req);
        queue->n_in_flight--;
        if (queue->n_in_flight == 0)
                co_wake_all(&queue->idle);
}

/* ---- kicks ---- */

/* How long the queue has slept says whether a look would have been worth it. */
static void adapt(struct queue *queue)
{
        const struct vhost_server_options *o = &server_of(queue)->options;
        uint64_t max_ns = o->no_polling ? 0 : o->poll_max_us * UINT64_C(1000);
        uint64_t slept_ns = loop_now_ns(server_of(queue)->loop) - queue->slept_ns;

        if (!queue->slept_ns || slept_ns >= max_ns)
                return; /* rest() shrinks */
        queue->poll_ns = 2 * slept_ns > 2 * queue->poll_ns ? 2 * slept_ns : 2 * queue->poll_ns;
        if (queue->poll_ns < POLL_MIN_NS)
                queue->poll_ns = POLL_MIN_NS;
        if (queue->poll_ns > max_ns)
                queue->poll_ns = max_ns;
}

static void watch_kick(struct queue *queue)
{
        if (queue->kick_fd < 0 || queue->kick_armed || queue->client->dead ||
            queue->client->device->held)
                return;
        queue->kick_armed = true;
        queue->kick_io.op = LOOP_POLL;
        queue->kick_io.fd = queue->kick_fd;
        queue->kick_io.flags = POLLIN;
        loop_submit(server_of(queue)->loop, &queue->kick_io);
}

/* Its kicks are not heard any more. Its front end, which may come again, is not left waiting. */
static void deaf(struct queue *queue, int result)
{
        struct error e = ERROR_INIT;

        error_set(&e, result, "queue %u cannot be waited for: %s", queue->index, strerror(-result));
        vhost_client_cut(queue->client, e.message);
}

static void kicked(struct loop_io *io, int result)
{
        struct queue *queue = container_of(io, struct queue, kick_io);

        queue->kick_armed = false;
        if (result < 0 && !queue->stopping)
                deaf(queue, result);
        if (queue->stopping || queue->client->dead) {
                co_wake_all(&queue->idle);
                return;
        }
        read_eventfd(queue->kick_fd);
        watch_kick(queue);
        queue->started = true;
        if (!queue->ops)
                queue_update(queue);
        if (may_begin(queue)) {
                adapt(queue);
                queue_run_soon(queue);
        }
}

static void co_unwatch_kick(struct queue *queue)
{
        if (queue->kick_armed)
                loop_cancel(server_of(queue)->loop, &queue->kick_io);
        while (queue->kick_armed)
                co_wait(&queue->idle);
}

void co_queue_set_kick(struct queue *queue, int fd)
{
        bool stopping = queue->stopping;

        queue->stopping = true; /* for kicked() */
        co_unwatch_kick(queue);
        queue->stopping = stopping;
        if (queue->kick_fd >= 0)
                close(queue->kick_fd);
        queue->kick_fd = fd;
        queue->broken = false;
        watch_kick(queue);
}

/* ---- start and stop ---- */

void queue_init(struct queue *queue, struct vhost_client *client, unsigned index)
{
        *queue = (struct queue){.client = client, .index = index, .kick_fd = -1};
        queue->call = queue->error =
            (struct signal){.queue = queue, .fd = -1, .io = {.done = signal_done}};
        queue->kick_io.done = kicked;
        queue->task.run = queue_task;
        co_queue_init(&queue->idle);
        list_init(&queue->starved);
        list_init(&queue->done);
}

static int queue_start(struct queue *queue, struct error *err)
{
        const struct vhost_client *client = queue->client;
        const struct ring_ops *ops =
            client_has(client, VIRTIO_F_RING_PACKED) ? &packed_ops : &split_ops;
        int r;

        queue->event_idx = client_has(client, VIRTIO_RING_F_EVENT_IDX);
        queue->log_ring = queue->addr.flags & VHOST_VRING_F_LOG;
        queue->signalled = queue->notifying = queue->ring_lost = false;
        queue->poll_ns = queue->poll_until_ns = queue->slept_ns = 0;
        r = ops->translate(queue, err);
        if (r == 0)
                r = queue_allocate(queue, err);
        if (r == 0)
                r = inflight_attach(queue, err);
        if (r == 0)
                r = ops->start(queue, err);
        if (r < 0) {
                queue_release(queue);
                return r;
        }
        queue->ops = ops;
        /* Who served it before may have given requests back and not come to signal it. */
        queue_signal(&queue->call);
        return 0;
}

void queue_update(struct queue *queue)
{
        struct error e = ERROR_INIT;

        if (queue->client->device->held)
                return;
        if (queue->started && !queue->ops && !queue->broken && !queue->stopping && queue->size &&
            queue->has_addr && queue->client->memory->n > 0 && !queue->client->dead &&
            queue_start(queue, &e) < 0) {
                /* What makes no sense does not get better. Without memory its front end is hung up on: those
                 * of guests come again. */
                if (e.code == -ENOMEM)
                        vhost_client_cut(queue->client, e.message);
                else
                        queue_break(queue, &e);
        }
        if (may_begin(queue))
                queue_run_soon(queue);
}

void queue_go(struct queue *queue)
{
        watch_kick(queue);
        queue_update(queue);
}

void queue_translate(struct queue *queue)
{
        struct error e = ERROR_INIT;
        int r;

        if (!queue->ops)
                return;
        queue->log_ring = queue->addr.flags & VHOST_VRING_F_LOG;
        r = queue->ops->translate(queue, &e);
        queue->ring_lost = r < 0;
        /* What the driver reads of our wish to be kicked is told again where it reads now. */
        queue->notifying = false;
        if (r < 0 && r != -EFAULT && !queue->broken)
                queue_break(queue, &e);
        else if (r == -EFAULT && vhost_may_log(server_of(queue)))
                log_info("vhost: %s: queue %u of client %llu waits: %s",
                         queue->client->device->name, queue->index,
                         (unsigned long long)queue->client->id, e.message);
        queue_run_soon(queue);
}

/* What a server before this one had taken lies before the base that is told, and the front end does
 * not hand it out again. */
static void co_resubmit_all(struct queue *queue)
{
        queue->draining = true;
        for (bool first = true;
             queue->at_resubmit < queue->n_resubmit && may_begin(queue) && !queue->client->leaves;
             first = false) {
                queue_run_soon(queue);
                if (first)
                        co_yield_loop();
                else
                        co_sleep_ns(1000000);
        }
        queue->draining = false;
}

void co_queue_stop(struct queue *queue)
{
        struct volume *volume = queue->client->volume.volume;

        if (queue->n_in_flight > 0 || queue->at_resubmit < queue->n_resubmit)
                volume_hurry(volume, true);
        co_resubmit_all(queue);
        queue->stopping = true;
        co_unwatch_kick(queue);
        if (!list_empty(&queue->starved))
                list_remove(&queue->starved);
        queue_run_soon(queue); /* gives back what has waited */
        while (queue->n_in_flight > 0 || queue->task.queued)
                co_wait(&queue->idle);
        if (volume)
                volume_hurry(volume, false);
        if (queue->ops) {
                /* Also of a ring that is found broken: what it has taken so far. */
                queue->base = queue->ops->base(queue);
                queue->has_base = true;
                queue_release(queue);
        }
        queue->started = queue->broken = queue->stopping = false;
        if (queue->kick_fd >= 0)
                close(queue->kick_fd);
        queue->kick_fd = -1;
}
