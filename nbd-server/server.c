/* server.c - listening, limits on connections, who is connected, and stopping. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/hung_up.h"
#include "common/log.h"
#include "nbd-server/tls.h"

#define ACCEPT_RETRY_MS 100u /* out of descriptors or memory: look again after this */

struct listener {
        struct list link;
        struct nbd_server *server;
        int fd;
        bool accepting;
        struct loop_io io;
};

static uint64_t after_ms(const struct nbd_server *server, unsigned ms)
{
        return loop_now_ns(server->loop) + ms * UINT64_C(1000000);
}

bool server_may_log(struct nbd_server *server)
{
        return log_limit_admits(&server->log_limit, loop_now_ns(server->loop), "nbd", "clients");
}

/* ---- accepting ---- */

/* While too many negotiate, newcomers wait in the socket's queue; each of the others ends by its
 * deadline. */
static void accept_more(struct nbd_server *server)
{
        if (server->stopping || server->n_negotiating >= server->options.max_handshakes)
                return;
        list_for_each (it, &server->listeners) {
                struct listener *listener = container_of(it, struct listener, link);
                if (listener->accepting)
                        continue;
                listener->accepting = true;
                loop_submit(server->loop, &listener->io);
        }
}

static void accept_retry(struct loop_timer *timer)
{
        accept_more(container_of(timer, struct nbd_server, timer));
}

static void accepted(struct nbd_server *server, int fd)
{
        if (server->stopping) {
                rights_close(fd);
        } else if (server->n_clients >= server->options.max_connections) {
                if (server_may_log(server))
                        log_warning("nbd: a connection was refused: there are %u already",
                                    server->n_clients);
                rights_close(fd);
        } else {
                client_new(server, fd);
        }
}

static void accept_done(struct loop_io *io, int result)
{
        struct listener *listener = container_of(io, struct listener, io);
        struct nbd_server *server = listener->server;

        listener->accepting = false;
        if (server->stopping)
                co_wake_all(&server->gone);
        if (result >= 0) {
                accepted(server, result);
        } else if (result != -ECONNABORTED && result != -EINTR && result != -EAGAIN &&
                   !server->stopping) {
                log_warning("nbd: cannot accept a connection: %s", strerror(-result));
                loop_timer_set(server->loop, &server->timer, after_ms(server, ACCEPT_RETRY_MS));
                return;
        }
        accept_more(server);
}

int nbd_server_listen(struct nbd_server *server, int fd, struct error *err)
{
        struct listener *listener = calloc(1, sizeof(*listener));
        int listening = 0;
        socklen_t length = sizeof(listening);

        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 || !listening) {
                free(listener);
                close(fd);
                return error_set(err, -EINVAL,
                                 "the NBD server was given a descriptor that does not listen");
        }
        if (!listener) {
                close(fd);
                return error_set(err, -ENOMEM, "no memory to listen for NBD clients");
        }
        rights_refuse(fd);
        listener->server = server;
        listener->fd = fd;
        listener->io = (struct loop_io){.op = LOOP_ACCEPT, .fd = fd, .done = accept_done};
        list_append(&server->listeners, &listener->link);
        accept_more(server);
        return 0;
}

size_t nbd_server_sockets(const struct nbd_server *server, int *ret_fds, size_t max)
{
        size_t n = 0;

        list_for_each (it, &server->listeners)
                if (n < max)
                        ret_fds[n++] = container_of(it, struct listener, link)->fd;
        return n;
}

/* ---- clients come and go ---- */

void server_client_add(struct nbd_client *client)
{
        struct nbd_server *server = client->server;

        list_append(&server->clients, &client->link);
        server->n_clients++;
        server->n_negotiating++;
}

void server_client_negotiated(struct nbd_server *server)
{
        assert(server->n_negotiating > 0);
        server->n_negotiating--;
        accept_more(server);
}

void server_client_gone(struct nbd_client *client)
{
        struct nbd_server *server = client->server;

        list_remove(&client->link);
        server->n_clients--;
        co_wake_all(&server->gone);
}

void nbd_server_each_client(struct nbd_server *server,
                            void (*each)(const struct nbd_client_info *info, void *arg), void *arg)
{
        list_for_each_safe (it, &server->clients) {
                struct nbd_client *client = container_of(it, struct nbd_client, link);
                struct nbd_client_info info = {
                    .client = client,
                    .id = client->id,
                    .export_name = client->has_export ? client->export.name : NULL,
                    .readonly = client->has_export && client->export.readonly,
                    .reads = counter_get(&client->reads),
                    .writes = counter_get(&client->writes),
                    .flushes = counter_get(&client->flushes),
                    .read_bytes = counter_get(&client->read_bytes),
                    .write_bytes = counter_get(&client->write_bytes),
                };
                memcpy(info.peer, client->peer, sizeof(info.peer));
                each(&info, arg);
        }
}

const char *nbd_client_identity(const struct nbd_client *client, unsigned i)
{
        return tls_identity(client, i);
}

const char *nbd_client_peer(const struct nbd_client *client)
{
        return client->peer;
}

bool nbd_client_has_left(const struct nbd_client *client)
{
        return has_hung_up(client->fd);
}

void nbd_server_rename_exports(struct nbd_server *server, const char *old_name,
                               const char *new_name)
{
        size_t length = strlen(old_name);

        list_for_each (it, &server->clients) {
                struct nbd_client *client = container_of(it, struct nbd_client, link);
                char *name = client->export.name, suffix[sizeof(client->export.name)];

                if (!client->has_export || strncmp(name, old_name, length) != 0 ||
                    (name[length] != '\0' && name[length] != '@'))
                        continue;
                memcpy(suffix, name + length, strlen(name + length) + 1);
                snprintf(name, sizeof(client->export.name), "%s%s", new_name, suffix);
        }
}

/* The first client of the export that came no later than @last_id; NULL: none. */
static struct nbd_client *find_client(struct nbd_server *server, const char *export_name,
                                      uint64_t last_id)
{
        list_for_each (it, &server->clients) {
                struct nbd_client *client = container_of(it, struct nbd_client, link);
                if (client->id <= last_id && client->has_export &&
                    strcmp(client->export.name, export_name) == 0)
                        return client;
        }
        return NULL;
}

void co_nbd_server_disconnect(struct nbd_server *server, const char *export_name)
{
        uint64_t last_id = server->last_id; /* those who come back meanwhile are not waited for */

        list_for_each (it, &server->clients) {
                struct nbd_client *client = container_of(it, struct nbd_client, link);
                if (client->has_export && strcmp(client->export.name, export_name) == 0)
                        worker_cut(client, "its export was taken away");
        }
        while (find_client(server, export_name, last_id))
                co_wait(&server->gone);
}

/* ---- start and stop ---- */

static void set_defaults(struct nbd_server_options *options)
{
        if (options->max_connections == 0)
                options->max_connections = 1024;
        if (options->max_handshakes == 0)
                options->max_handshakes = 64;
        if (options->handshake_timeout_ms == 0)
                options->handshake_timeout_ms = 10000;
        if (options->max_requests == 0)
                options->max_requests = 128;
        if (options->max_bytes == 0)
                options->max_bytes = UINT64_C(64) << 20;
        if (options->max_total_bytes == 0)
                options->max_total_bytes = UINT64_C(512) << 20;
}

int nbd_server_new(struct loop *loop, const struct nbd_server_options *options,
                   const struct nbd_exports *exports, struct nbd_server **ret_server,
                   struct error *err)
{
        struct nbd_server *server = calloc(1, sizeof(*server));

        if (!server)
                return error_set(err, -ENOMEM, "no memory for the NBD server");
        server->loop = loop;
        if (options)
                server->options = *options;
        set_defaults(&server->options);
        nbd_tls_ref(server->options.tls);
        assert(server->options.tls || server->options.tls_mode == NBD_TLS_OFF);
        server->exports = *exports;
        list_init(&server->listeners);
        list_init(&server->clients);
        list_init(&server->timer.link);
        server->timer.fire = accept_retry;
        co_queue_init(&server->gone);
        int r = workers_new(server, err);
        if (r < 0) {
                nbd_tls_unref(server->options.tls);
                free(server);
                return r;
        }
        *ret_server = server;
        return 0;
}

void nbd_server_set_tls(struct nbd_server *server, struct nbd_tls *tls)
{
        assert(tls && server->options.tls_mode != NBD_TLS_OFF);
        nbd_tls_unref(server->options.tls);
        server->options.tls = nbd_tls_ref(tls);
}

static void cut_all(struct loop_timer *timer)
{
        struct nbd_server *server = container_of(timer, struct nbd_server, timer);

        list_for_each (it, &server->clients)
                worker_cut(container_of(it, struct nbd_client, link),
                           "the server stopped before it had finished");
}

static void co_stop_listening(struct nbd_server *server)
{
        while (!list_empty(&server->listeners)) {
                struct listener *listener =
                    container_of(server->listeners.next, struct listener, link);
                if (listener->accepting)
                        loop_cancel(server->loop, &listener->io);
                while (listener->accepting)
                        co_wait(&server->gone);
                list_remove(&listener->link);
                close(listener->fd);
                free(listener);
        }
}

void co_nbd_server_leave(struct nbd_server *server, unsigned timeout_ms)
{
        server->leaving = true;
        co_nbd_server_stop(server, timeout_ms);
}

void co_nbd_server_stop(struct nbd_server *server, unsigned timeout_ms)
{
        server->stopping = true;
        loop_timer_cancel(server->loop, &server->timer);
        co_stop_listening(server);
        server->timer.fire = cut_all;
        loop_timer_set(server->loop, &server->timer, after_ms(server, timeout_ms));
        list_for_each (it, &server->clients)
                worker_stop_client(container_of(it, struct nbd_client, link));
        while (!list_empty(&server->clients))
                co_wait(&server->gone);
        loop_timer_cancel(server->loop, &server->timer);
        co_workers_stop(server);
}

void nbd_server_free(struct nbd_server *server)
{
        if (!server)
                return;
        assert(list_empty(&server->clients) && list_empty(&server->listeners));
        nbd_tls_unref(server->options.tls);
        workers_free(server);
        free(server);
}
