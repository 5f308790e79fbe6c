/* client.c - the life of a front end's connection: its volume, its messages, its end. All that it
 * sent stays mapped and open until nothing can touch it: no request with the engine, no I/O of its
 * queues (rule 1 of README.md). Only then is the socket closed, so that a front end which sees it
 * close knows that its memory is left alone. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/closer.h"
#include "common/hung_up.h"
#include "common/log.h"
#include "common/passed_fds.h"
#include "vmm-glue/vhost-user/internal.h"

void vhost_client_cut(struct vhost_client *client, const char *why)
{
        if (client->dead)
                return;
        client->dead = true;
        client->told = !why;
        if (why) {
                snprintf(client->why, sizeof(client->why), "%s", why);
                client->ended_by = client->why;
        }
        if (client->waiting)
                loop_cancel(client->device->server->loop, client->waiting);
        co_wake_all(&client->device->released);
}

pid_t vhost_client_pid(const struct vhost_client *client)
{
        return client->pid;
}

bool vhost_client_has_left(const struct vhost_client *client)
{
        return client->dead || has_hung_up(client->fd);
}

/* ---- one guest, two connections ---- */

static bool uses_file(const struct vhost_client *client, dev_t device, ino_t inode)
{
        return memory_has_file(client->memory, device, inode) ||
               (client->inflight.base && client->inflight.device == device &&
                client->inflight.inode == inode);
}

static bool is_awaited(struct vhost_client *client, dev_t device, ino_t inode)
{
        list_for_each (it, &client->device->clients) {
                const struct vhost_client *other = container_of(it, struct vhost_client, link);

                if (other != client && other->id < client->id && uses_file(other, device, inode) &&
                    vhost_client_has_left(other))
                        return true;
        }
        return false;
}

void co_vhost_client_await_predecessors(struct vhost_client *client, dev_t device, ino_t inode)
{
        while (is_awaited(client, device, inode))
                co_wait(&client->device->gone);
}

/* ---- receiving ---- */

/* Its messages are left to the next server. */
static bool is_to_be_saved(const struct vhost_client *client)
{
        return client->device->saving && !client->dead;
}

static int co_wait_readable(struct vhost_client *client)
{
        struct loop_io io = {.op = LOOP_POLL, .fd = client->fd, .flags = POLLIN};
        int r;

        if (client->dead || client->device->saving)
                return -ECANCELED;
        client->waiting = &io;
        r = co_io(&io);
        client->waiting = NULL;
        return client->dead || client->device->saving ? -ECANCELED : r;
}

/* Who sends descriptors faster than they can be closed waits, so that the process does not run out of
 * them. 0; 1: it has left */
static int co_await_closer(struct vhost_client *client)
{
        while (closer_pending(client->device->closer) >= CLOSING_MAX) {
                if (client->dead || client->device->saving)
                        return -ECANCELED;
                if (vhost_client_has_left(client))
                        return 1;
                co_sleep_ns(CLOSER_LOOK_NS);
        }
        return 0;
}

/* Until the message has @n_bytes, header included, and the descriptors among them. 0; 1 at the end
 * of the stream. */
static int co_receive(struct vhost_client *client, size_t n_bytes)
{
        struct message *m = &client->message;
        while (m->n_bytes < n_bytes) {
                uint8_t *to = m->n_bytes < sizeof(m->header)
                                  ? (uint8_t *)&m->header + m->n_bytes
                                  : (uint8_t *)&m->payload + (m->n_bytes - sizeof(m->header));
                struct passed_fds fds = {m->fds, m->n_fds, MESSAGE_FDS_MAX, client->device->closer,
                                         false};
                int r = co_await_closer(client);
                ssize_t n;

                if (r != 0)
                        return r;
                n = passed_fds_receive(client->fd, to, n_bytes - m->n_bytes, &fds);
                m->n_fds = (unsigned)fds.n;
                if (n > 0) {
                        m->n_bytes += (size_t)n;
                        continue;
                }
                if (n != -EAGAIN)
                        return n == 0 ? 1 : (int)n;
                r = co_wait_readable(client);
                if (r < 0 && r != -EINTR)
                        return r;
        }
        return 0;
}

/* 0 with a message, 1 where the front end has left, negative with a sentence otherwise. */
static int co_read_message(struct vhost_client *client, struct error *err)
{
        struct message *m = &client->message;
        int r;

        r = co_receive(client, sizeof(m->header));
        if (r != 0)
                return r;
        if ((m->header.flags & VHOST_VERSION_MASK) != VHOST_VERSION ||
            (m->header.flags & VHOST_REPLY))
                return error_set(err, -EPROTO, "it sends something that is not vhost-user");
        if (m->header.size > sizeof(m->payload))
                return error_set(err, -EPROTO, "it sends message %u of %u bytes", m->header.request,
                                 m->header.size);
        r = co_receive(client, sizeof(m->header) + m->header.size);
        return r > 0 ? error_set(err, -EPROTO, "it sends half of message %u", m->header.request)
                     : r;
}

static void drop_message(struct vhost_client *client)
{
        message_close_fds(client, &client->message);
        client->message = (struct message){0};
}

static void co_messages(struct vhost_client *client)
{
        int r = 0;

        while (r == 0 && !client->dead && !client->device->saving) {
                struct error e = ERROR_INIT;

                r = co_read_message(client, &e);
                if (r == -ECANCELED && is_to_be_saved(client))
                        return; /* with what it has read of the next one */
                if (r == 0)
                        r = co_message_handle(client, &client->message, &e);
                drop_message(client);
                if (r < 0)
                        vhost_client_cut(client, e.code < 0 ? e.message : strerror(-r));
                else if (r > 0)
                        client->dead = true;
        }
}

/* ---- the beginning and the end ---- */

/* What waits for the volume's limits or for space is not waited for (rule 13). With an in-flight region it is
 * the next server's to do; one without has the answers yet, if it is still there. */
static void stop_waiting(struct vhost_client *client)
{
        client->leaves = client->inflight.base != NULL;
        if (client->has_volume && (client->leaves || !client->told))
                volume_cancel(client->volume.volume);
}

void co_vhost_client_end(struct vhost_client *client)
{
        struct vhost_device *device = client->device;
        bool passed_on = is_to_be_saved(client);
        uint64_t until_ns;

        client->dead = true;
        drop_message(client);

        stop_waiting(client);
        for (unsigned i = 0; client->queues && i < device->n_queues; i++)
                co_queue_stop(&client->queues[i]);
        until_ns = loop_now_ns(device->server->loop) + SIGNAL_WAIT_NS; /* once, not for each */
        for (unsigned i = 0; client->queues && i < device->n_queues; i++) {
                co_queue_set_signal(&client->queues[i], &client->queues[i].call, -1, until_ns);
                co_queue_set_signal(&client->queues[i], &client->queues[i].error, -1, until_ns);
        }
        if (client->backend_busy)
                loop_cancel(device->server->loop, &client->backend_io);
        while (client->backend_busy)
                co_wait(&client->quiet);
        if (client->backend_fd >= 0)
                close_elsewhere(device->closer, client->backend_fd);
        mapping_close(&client->log);
        mapping_close(&client->inflight);
        memory_unref(client->memory);
        client->memory = NULL; /* others look at it until this one is out of the list */
        assert(client->memory_bytes == 0 && client->n_mappings == 0);
        if (client->has_volume)
                device->volumes.co_close(device->volumes.arg, &client->volume);
        if (client->ended_by && vhost_may_log(device->server))
                log_warning("vhost: %s: client %llu (pid %d) was disconnected: %s", device->name,
                            (unsigned long long)client->id, (int)client->pid, client->ended_by);
        else if (!client->ended_by)
                log_debug("vhost: %s: client %llu (pid %d) %s", device->name,
                          (unsigned long long)client->id, (int)client->pid,
                          passed_on ? "is passed on" : "has left");
        /* In its queue may be descriptors of anything: the end is told at once, but closing it waits.
         * While a device is held another server may have the connection yet. */
        if (!passed_on && !device->held)
                shutdown(client->fd, SHUT_RDWR);
        close_elsewhere(device->closer, client->fd);
        free(client->queues);
        device_client_gone(client);
        free(client);
}

int co_vhost_client_open(struct vhost_client *client, struct error *err)
{
        struct vhost_device *device = client->device;
        int r;

        client->memory = memory_none();
        client->queues = calloc(device->n_queues, sizeof(*client->queues));
        for (unsigned i = 0; client->queues && i < device->n_queues; i++)
                queue_init(&client->queues[i], client, i);
        if (!client->memory || !client->queues)
                return error_set(err, -ENOMEM, "no memory for it");
        r = device->volumes.co_open(device->volumes.arg, client, &client->volume, err);
        if (r < 0)
                return r;
        client->has_volume = true;
        volume_set_wait_when_full(client->volume.volume, true); /* "Answers", README.md */
        client->offered = config_features(client);
        client->writeback = true;
        return 0;
}

static void co_go_on(struct vhost_client *client)
{
        while (client->device->held && !client->dead)
                co_wait(&client->device->released);
        co_messages(client);
        if (is_to_be_saved(client))
                co_client_save(client);
        co_vhost_client_end(client);
}

static void co_client(void *arg)
{
        struct vhost_client *client = arg;
        struct error e = ERROR_INIT;

        if (!client->has_volume && co_vhost_client_open(client, &e) < 0)
                vhost_client_cut(client, e.message);
        co_go_on(client);
}

int vhost_client_serve(struct vhost_client *client)
{
        return co_spawn(client->device->server->loop, co_client, client);
}

struct vhost_client *vhost_client_add(struct vhost_device *device, int fd)
{
        struct vhost_client *client = calloc(1, sizeof(*client));
        struct ucred credentials;
        socklen_t length = sizeof(credentials);

        if (!client)
                return NULL;
        client->device = device;
        client->id = ++device->server->last_id;
        client->fd = fd;
        client->backend_fd = -1;
        client->backend_io.done = config_changed_done;
        co_queue_init(&client->quiet);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0)
                client->pid = credentials.pid;
        list_append(&device->clients, &client->link);
        device->n_clients++;
        return client;
}

void vhost_client_new(struct vhost_device *device, int fd)
{
        struct vhost_client *client = vhost_client_add(device, fd);

        if (client && vhost_client_serve(client) == 0)
                return;
        log_error("vhost: %s: no memory for a front end", device->name);
        close_elsewhere(device->closer, fd);
        if (client)
                device_client_gone(client);
        free(client);
}
