/* client.c - the life of a connection. Its memory goes when nothing can touch it any more: the
 * socket has no operation in flight, and the engine has answered every request (rule 1 of
 * README.md). */
#include <assert.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "common/log.h"
#include "nbd-server/tls.h"

/* ---- memory for transmission: one mapping, touched as far as it is used ---- */

static size_t arena_bytes(const struct nbd_client *client)
{
        size_t n = client->server->options.max_requests;

        return RECEIVE_BUFFER + n * sizeof(struct nbd_request) + 2 * n * sizeof(struct iovec);
}

static int arena_map(struct nbd_client *client)
{
        size_t n = client->server->options.max_requests;
        void *arena = mmap(NULL, arena_bytes(client), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (arena == MAP_FAILED)
                return -errno;
        client->receive_buffer = arena;
        client->requests = (struct nbd_request *)(client->receive_buffer + RECEIVE_BUFFER);
        client->send_iov = (struct iovec *)(client->requests + n);
        return 0;
}

static void arena_unmap(struct nbd_client *client)
{
        if (client->receive_buffer)
                munmap(client->receive_buffer, arena_bytes(client));
}

struct nbd_request *client_take_slot(struct nbd_client *client)
{
        struct nbd_request *request;

        assert(client_has_slot(client));
        if (list_empty(&client->free)) {
                assert(client->n_slots_used < client->server->options.max_requests);
                request = &client->requests[client->n_slots_used++];
                request->client = client;
        } else {
                request = container_of(client->free.next, struct nbd_request, link);
                list_remove(&request->link);
        }
        client->n_requests++;
        return request;
}

/* ---- timers ---- */

static uint64_t after_ms(struct nbd_client *client, unsigned ms)
{
        return loop_now_ns(client->server->loop) + ms * UINT64_C(1000000);
}

static void deadline_fire(struct loop_timer *timer)
{
        client_cut(container_of(timer, struct nbd_client, deadline),
                   "it did not finish the handshake in time");
}

/* The receive that waits has no bytes in the buffer yet. */
void client_trim(struct nbd_client *client)
{
        assert(client->n_requests == 0);
        if (client->state != CLIENT_RUNNING || client->receive_start != client->receive_end)
                return;
        if (client->n_slots_used == 0)
                return; /* done before */
        list_init(&client->free);
        client->n_slots_used = 0;
        madvise(client->receive_buffer, arena_bytes(client), MADV_DONTNEED);
        if (client->tls)
                tls_trim(client);
}

/* ---- the end ---- */

void client_cut(struct nbd_client *client, const char *why)
{
        struct loop *loop = client->worker->loop;

        if (client->state == CLIENT_DEAD)
                return;
        if (client->tls && !why)
                tls_bye(client);
        client->state = CLIENT_DEAD;
        client->ended_by = why;
        memory_withdraw(client);
        if (client->receive_buffer)
                volume_cancel(client->export.volume);
        shutdown(client->fd, SHUT_RDWR);
        if (client->negotiation_io)
                loop_cancel(loop, client->negotiation_io);
        if (client->tls) {
                tls_cancel(client);
        } else {
                if (client->receiving)
                        loop_cancel(loop, &client->receive_io);
                if (client->sending)
                        loop_cancel(loop, &client->send_io);
        }
        /* The engine may be asking about this client up the stack: look again from the loop. */
        if (client->receive_buffer)
                loop_post(loop, &client->send_task);
}

bool client_input_waits(const struct nbd_client *client)
{
        int n = 0;

        if (client->tls && tls_input_waits(client))
                return true;
        return ioctl(client->fd, FIONREAD, &n) == 0 && n > 0;
}

bool client_peer_is_gone(const struct nbd_client *client)
{
        struct pollfd p = {.fd = client->fd};

        return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

/* As if it had sent nothing after what has begun. */
static void leave(struct nbd_client *client)
{
        client->state = CLIENT_FINISHING;
        memory_withdraw(client);
        if (client->receiving && client->tls)
                tls_stop_receiving(client);
        else if (client->receiving)
                loop_cancel(client->worker->loop, &client->receive_io);
}

void client_stop(struct nbd_client *client)
{
        if (client->receive_buffer && client->state != CLIENT_DEAD)
                volume_hurry(client->export.volume, true);
        if (client->state == CLIENT_RUNNING && client->server->leaving)
                leave(client);
        if (client->state == CLIENT_NEGOTIATING && client->between_options &&
            !client_input_waits(client))
                client_cut(client, NULL);
        else
                client_check_end(client);
}

static bool ended(const struct nbd_client *client)
{
        if (client->state != CLIENT_FINISHING && client->state != CLIENT_DEAD)
                return false;
        return client->n_requests == 0 && !client->receiving && !client->sending &&
               !client->send_task.queued;
}

void client_check_end(struct nbd_client *client)
{
        if (client->state == CLIENT_RUNNING) {
                /* What has arrived by now is still answered, with ESHUTDOWN. */
                if (client->server->stopping && client->n_requests == 0 &&
                    (client->unanswered || (!client->stalled && !client_input_waits(client))))
                        client_cut(client, NULL);
                return;
        }
        if (client->state == CLIENT_NEGOTIATING)
                return;
        if (client->payload && !client->receiving) { /* it will never be complete */
                request_release(client->payload);
                client->payload = NULL;
        }
        if (client->refused && !client->receiving) {
                request_release(client->refused);
                client->refused = NULL;
        }
        if (client->state == CLIENT_DEAD && !client->sending)
                reply_drop_all(client);
        if (ended(client))
                co_wake_one(&client->wake);
}

static void co_client_free(struct nbd_client *client)
{
        struct nbd_server *server = client->server;

        assert(!client->receiving && !client->sending && client->n_requests == 0);
        loop_timer_cancel(server->loop, &client->deadline);
        if (client->ended_by && server_may_log(server))
                log_info("nbd: client %llu (%s) disconnected: %s", (unsigned long long)client->id,
                         client->peer, client->ended_by);
        else if (!client->ended_by)
                log_debug("nbd: client %llu (%s) has left", (unsigned long long)client->id,
                          client->peer);
        if (client->tls && client->state != CLIENT_DEAD)
                tls_bye(client);
        client->state = CLIENT_DEAD; /* for who would stop it or cut it off meanwhile */
        tls_free(client);
        /* The end is told at once; closing waits for the export, by which nbd_client_has_left() may be
         * asked until then. */
        shutdown(client->fd, SHUT_RDWR);
        if (client->has_export)
                server->exports.co_close(server->exports.arg, &client->export);
        rights_close(client->fd);
        free(client->rights);
        co_meta_forget(client);
        arena_unmap(client);
        server_client_gone(client);
        free(client);
}

/* ---- the coroutine ---- */

static int client_transmit(struct nbd_client *client)
{
        int r = arena_map(client);

        if (r < 0) {
                client->ended_by = "no memory to serve it";
                return r;
        }
        client->state = CLIENT_RUNNING;
        receive_start(client);
        memory_touch(client);
        return 0;
}

/* Requests run by callbacks; here only those that may wait, until the end. */
static void co_serve(struct nbd_client *client)
{
        if (client->server->stopping) /* already */
                client_stop(client);
        while (!ended(client)) {
                if (list_empty(&client->slow)) {
                        co_wait(&client->wake);
                        continue;
                }
                struct nbd_request *request =
                    container_of(client->slow.next, struct nbd_request, link);
                list_remove(&request->link);
                if (client->state == CLIENT_DEAD)
                        request_release(request);
                else
                        co_request_execute_slow(request);
                co_yield_loop(); /* many of them hold up nobody else */
        }
}

static void co_client(void *arg)
{
        struct nbd_client *client = arg;
        struct nbd_server *server = client->server;
        int r = co_negotiate(client);

        loop_timer_cancel(server->loop, &client->deadline);
        server_client_negotiated(server);
        if (r == 0) {
                log_debug("nbd: client %llu (%s) opened %s", (unsigned long long)client->id,
                          client->peer, client->export.name);
                r = co_worker_take(client);
        }
        if (r == 0) {
                if (client_transmit(client) == 0) {
                        idle_start(client);
                        co_serve(client);
                        idle_stop(client);
                }
                co_worker_return(client);
        }
        co_client_free(client);
}

/* ---- the beginning ---- */

static void name_peer(struct nbd_client *client)
{
        struct sockaddr_storage address;
        socklen_t length = sizeof(address);
        char host[INET6_ADDRSTRLEN + 16], port[8];

        snprintf(client->peer, sizeof(client->peer), "unknown peer");
        if (getpeername(client->fd, (struct sockaddr *)&address, &length) < 0)
                return;
        if (address.ss_family == AF_VSOCK) { /* getnameinfo(3) does not know it */
                const struct sockaddr_vm *vm = (const struct sockaddr_vm *)&address;

                snprintf(client->peer, sizeof(client->peer), "vsock %u:%u", vm->svm_cid,
                         vm->svm_port);
        } else if (address.ss_family == AF_UNIX) {
                struct ucred credentials;
                length = sizeof(credentials);
                if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0)
                        snprintf(client->peer, sizeof(client->peer), "unix pid %d",
                                 (int)credentials.pid);
        } else if (getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port,
                               sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
                bool v6 = address.ss_family == AF_INET6;
                snprintf(client->peer, sizeof(client->peer), v6 ? "[%s]:%s" : "%s:%s", host, port);
        }
}

/* Neither failure matters: the options of a Unix socket and a TCP socket are not the same. */
static void tune_socket(int fd)
{
        int on = 1, bytes = 1 << 20, domain = 0;
        int idle_s = 60, interval_s = 15, probes = 4;
        socklen_t length = sizeof(domain);

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0)
                return;
        if (domain == AF_UNIX) { /* TCP sizes its buffers itself, and better */
                setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
                return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        /* Peers that vanish are noticed, within two minutes: until then their volume is in use. */
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static bool requires_tls(const struct nbd_server *server, int fd)
{
        int domain = AF_UNSPEC;
        socklen_t length = sizeof(domain);

        if (server->options.tls_mode != NBD_TLS_REQUIRE_NETWORK)
                return server->options.tls_mode == NBD_TLS_REQUIRE;
        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || domain != AF_UNIX;
}

void client_new(struct nbd_server *server, int fd)
{
        struct nbd_client *client = calloc(1, sizeof(*client));

        if (client)
                client->fd = fd;
        if (!client || rights_expect(client) < 0) {
                log_error("nbd: no memory for a new client");
                rights_close(fd);
                free(client);
                return;
        }
        client->server = server;
        client->worker = &server->workers[0];
        client->id = ++server->last_id;
        client->state = CLIENT_NEGOTIATING;
        client->tls_required = requires_tls(server, fd);
        list_init(&client->free);
        list_init(&client->slow);
        list_init(&client->replies);
        list_init(&client->starved);
        list_init(&client->worker_link);
        co_queue_init(&client->wake);
        list_init(&client->deadline.link);
        client->deadline.fire = deadline_fire;
        client->send_task.run = reply_send_task;
        client->send_io = (struct loop_io){.op = LOOP_SENDMSG, .fd = fd, .done = reply_send_done};
        tune_socket(fd);
        name_peer(client);
        server_client_add(client);
        loop_timer_set(server->loop, &client->deadline,
                       after_ms(client, server->options.handshake_timeout_ms));
        if (co_spawn(server->loop, co_client, client) < 0) {
                log_error("nbd: no memory to serve %s", client->peer);
                loop_timer_cancel(server->loop, &client->deadline);
                server_client_negotiated(server);
                server_client_gone(client);
                rights_close(fd);
                free(client->rights);
                free(client);
        }
}
