/* device.c - servers and devices: listening, limits on connections, who is connected, stopping. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/closer.h"
#include "common/log.h"
#include "vmm-glue/vhost-user/internal.h"

#define ACCEPT_RETRY_NS UINT64_C(100000000) /* out of descriptors or memory: look again */

bool vhost_may_log(struct vhost_server *server)
{
        return log_limit_admits(&server->log_limit, loop_now_ns(server->loop), "vhost",
                                "front ends");
}

/* ---- servers ---- */

/* Bytes came free: all that waited look again, and who finds none waits behind the others. */
static void feed_starved(struct loop_task *task)
{
        struct vhost_server *server = container_of(task, struct vhost_server, starved_task);

        while (!list_empty(&server->starved)) {
                struct queue *queue = container_of(server->starved.next, struct queue, starved);

                list_remove(&queue->starved);
                queue_run_soon(queue);
        }
}

int vhost_server_new(struct loop *loop, const struct vhost_server_options *options,
                     struct vhost_server **ret_server, struct error *err)
{
        struct vhost_server *server;
        int r = guard_init();

        if (r < 0)
                return error_set(err, r, "cannot handle SIGBUS: %s", strerror(-r));
        server = calloc(1, sizeof(*server));
        if (!server)
                return error_set(err, -ENOMEM, "no memory for the vhost-user server");
        server->loop = loop;
        if (options)
                server->options = *options;
        if (server->options.max_total_bytes == 0)
                server->options.max_total_bytes = UINT64_C(512) << 20;
        if (server->options.max_bytes == 0)
                server->options.max_bytes = UINT64_C(64) << 20;
        if (server->options.poll_max_us == 0)
                server->options.poll_max_us = 50;
        /* On a single processor looking keeps the guest from running. */
        if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
                server->options.no_polling = true;
        server->buffers.cached_max = CACHED_BYTES_MAX;
        server->starved_task.run = feed_starved;
        list_init(&server->devices);
        list_init(&server->starved);
        *ret_server = server;
        return 0;
}

void vhost_server_free(struct vhost_server *server)
{
        if (!server)
                return;
        assert(list_empty(&server->devices) && list_empty(&server->starved));
        assert(server->bytes_in_flight == 0 && server->memory_bytes == 0);
        buffers_trim(&server->buffers);
        free(server);
}

/* ---- accepting ---- */

static void accept_later(struct vhost_device *device)
{
        loop_timer_set(device->server->loop, &device->retry,
                       loop_now_ns(device->server->loop) + ACCEPT_RETRY_NS);
}

static void accept_more(struct vhost_device *device)
{
        if (device->stopping || device->accepting || device->held)
                return;
        if (closer_pending(device->closer) >= CLOSING_MAX) {
                accept_later(device);
                return;
        }
        device->accepting = true;
        loop_submit(device->server->loop, &device->accept_io);
}

static void accept_retry(struct loop_timer *timer)
{
        accept_more(container_of(timer, struct vhost_device, retry));
}

static void accepted(struct vhost_device *device, int fd)
{
        if (device->stopping && !device->saving) {
                close_elsewhere(device->closer, fd);
        } else if (device->n_clients >= VHOST_CLIENTS_MAX) {
                if (vhost_may_log(device->server))
                        log_warning("vhost: %s: a front end was refused: there are %u already",
                                    device->name, device->n_clients);
                close_elsewhere(device->closer, fd);
        } else {
                vhost_client_new(device, fd);
        }
}

static void accept_done(struct loop_io *io, int result)
{
        struct vhost_device *device = container_of(io, struct vhost_device, accept_io);

        device->accepting = false;
        if (result >= 0) {
                accepted(device, result);
        } else if (!device->stopping && result != -ECONNABORTED && result != -EINTR &&
                   result != -EAGAIN) {
                log_warning("vhost: %s: cannot accept a connection: %s", device->name,
                            strerror(-result));
                accept_later(device);
                return;
        }
        accept_more(device);
        co_wake_all(&device->gone);
}

/* ---- devices ---- */

int vhost_device_new(struct vhost_server *server, const struct vhost_device_options *options,
                     int fd, struct vhost_device **ret_device, struct error *err)
{
        struct vhost_device *device;
        int listening = 0;
        socklen_t length = sizeof(listening);

        assert(options->n_queues >= 1 && options->n_queues <= VHOST_QUEUES_MAX);
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 || !listening) {
                close(fd);
                return error_set(err, -EINVAL,
                                 "what vhost-user is to be offered on does not listen");
        }
        device = calloc(1, sizeof(*device));
        if (device)
                device->closer = closer_new();
        if (!device || !device->closer) {
                free(device);
                close(fd);
                return error_set(err, -ENOMEM, "no memory for a vhost-user device");
        }
        device->server = server;
        device->n_queues = options->n_queues;
        device->volumes = options->volumes;
        device->fd = fd;
        device->accept_io = (struct loop_io){.op = LOOP_ACCEPT, .fd = fd, .done = accept_done};
        device->retry.fire = accept_retry;
        list_init(&device->retry.link);
        list_init(&device->clients);
        co_queue_init(&device->gone);
        device->held = options->held;
        co_queue_init(&device->released);
        vhost_device_rename(device, options->name);
        list_append(&server->devices, &device->link);
        accept_more(device);
        *ret_device = device;
        return 0;
}

int vhost_device_fd(const struct vhost_device *device)
{
        return device->fd;
}

void vhost_device_rename(struct vhost_device *device, const char *name)
{
        snprintf(device->name, sizeof(device->name), "%s", name);
}

void device_client_gone(struct vhost_client *client)
{
        struct vhost_device *device = client->device;

        list_remove(&client->link);
        device->n_clients--;
        co_wake_all(&device->gone);
}

void device_accept(struct vhost_device *device)
{
        accept_more(device);
}

static bool any_until(const struct vhost_device *device, uint64_t last_id)
{
        list_for_each (it, &device->clients)
                if (container_of(it, struct vhost_client, link)->id <= last_id)
                        return true;
        return false;
}

void co_vhost_device_disconnect(struct vhost_device *device)
{
        uint64_t last_id = device->server->last_id; /* who comes back is not waited for */

        device->n_disconnecting++;
        list_for_each (it, &device->clients)
                vhost_client_cut(container_of(it, struct vhost_client, link), NULL);
        while (any_until(device, last_id))
                co_wait(&device->gone);
        device->n_disconnecting--;
}

void co_vhost_device_free(struct vhost_device *device)
{
        device->stopping = true;
        loop_timer_cancel(device->server->loop, &device->retry);
        if (device->accepting)
                loop_cancel(device->server->loop, &device->accept_io);
        while (device->accepting)
                co_wait(&device->gone);
        co_vhost_device_disconnect(device);
        while (device->n_disconnecting > 0)
                co_yield_loop();
        assert(list_empty(&device->clients) && device->bytes_in_flight == 0);
        /* In its queue may be connections with descriptors of anything. */
        if (!device->held)
                shutdown(device->fd, SHUT_RDWR);
        close_elsewhere(device->closer, device->fd);
        closer_free(device->closer);
        list_remove(&device->link);
        free(device);
}

void vhost_device_config_changed(struct vhost_device *device)
{
        list_for_each (it, &device->clients)
                config_changed(container_of(it, struct vhost_client, link));
}

static unsigned n_started(const struct vhost_client *client)
{
        unsigned n = 0;

        for (unsigned i = 0; client->queues && i < client->device->n_queues; i++)
                n += client->queues[i].ops != NULL;
        return n;
}

void vhost_device_each_client(struct vhost_device *device,
                              void (*each)(const struct vhost_client_info *info, void *arg),
                              void *arg)
{
        list_for_each_safe (it, &device->clients) {
                struct vhost_client *client = container_of(it, struct vhost_client, link);
                struct vhost_client_info info = {
                    .client = client,
                    .device = device,
                    .pid = client->pid,
                    .readonly = client->has_volume && client->volume.readonly,
                    .n_queues_started = n_started(client),
                    .reads = client->reads,
                    .writes = client->writes,
                    .flushes = client->flushes,
                    .read_bytes = client->read_bytes,
                    .write_bytes = client->write_bytes,
                };

                each(&info, arg);
        }
}
