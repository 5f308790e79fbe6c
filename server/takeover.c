/* takeover.c - one server after another, and nobody notices: docs/control.md has the exchange.
 *
 * The old server does all that may fail before it stops anything. What it then stops becomes a struct
 * handover, of which the new one makes a server that does nothing yet: pools that are held, front
 * ends whose queues do not start, sockets on which nobody is accepted. One word settles whose it is:
 * "go". Until the old server has said it, the new one writes nothing anywhere, and the old one can
 * make the same server of the same handover again; afterwards the old one only ends. So there is no
 * time at which both write, however long either of them is held up. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "common/service_manager.h"
#include "server/attach.h"
#include "server/client.h"
#include "server/image_base.h"
#include "server/members.h"
#include "server/serve_internal.h"

/* How long commands that run may take to end, before a takeover is refused. */
#define COMMANDS_WAIT_MS 2000u
/* Clients that do not take their answers meanwhile hold up nobody's I/O longer than this. */
#define NBD_GIVE_TIMEOUT_MS 300u
/* From the handover to the new server's word that it is ready. */
#define READY_WAIT_MS 10000u
/* From the request to the handover: checkpoints, and commands that are waited for. */
#define HANDOVER_WAIT_MS 60000u

static uint64_t clock_ns(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static pid_t peer_pid(int fd)
{
        struct ucred peer;
        socklen_t length = sizeof(peer);

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ? 0 : peer.pid;
}

static void co_send_error(struct channel *channel, const struct error *e)
{
        json_t *line = control_error_json(e);

        if (line)
                co_channel_send(channel, line, NULL, 0);
        json_decref(line);
}

/* ---- a server from a handover, which does nothing yet ---- */

struct passed_members {
        int *fds;
        const char **paths;
        size_t n;
};

static int take_members(struct handover *h, const json_t *json, struct pool_state *state,
                        struct passed_members *ret)
{
        size_t n = json_array_size(json);
        int r = 0;

        *ret = (struct passed_members){.fds = calloc(n + 1, sizeof(*ret->fds)),
                                       .paths = calloc(n + 1, sizeof(*ret->paths))};
        if (!ret->fds || !ret->paths || !state)
                return -ENOMEM;
        for (size_t i = 0; r == 0 && i < n; i++) {
                const json_t *from = json_array_get(json, i);
                const char *path = json_string_value(json_object_get(from, "path"));
                int fd = path ? handover_take(h, json_object_get(from, "fd")) : -EBADMSG;

                ret->fds[i] = fd;
                ret->paths[i] = path;
                if (fd < 0)
                        r = fd;
                else
                        ret->n++;
        }
        return r;
}

static int co_build_pool(struct server *s, struct handover *h, const json_t *json,
                         struct error *err)
{
        const struct pool_options options = {.held = true};
        const char *name = json_string_value(json_object_get(json, "name"));
        const char *uuid_text = json_string_value(json_object_get(json, "uuid"));
        struct pool_state *state = NULL;
        struct passed_members passed = {0};
        struct host_pool *hp;
        uint8_t uuid[16];
        int r = -EBADMSG;

        if (name && uuid_text && pool_name_check(name, "pool", NULL) == 0 &&
            uuid_parse_text(uuid_text, uuid) == 0) {
                state = state_new(name, uuid);
                r = take_members(h, json_object_get(json, "members"), state, &passed);
        }
        if (r == 0) {
                const struct host_members members = {passed.fds, passed.paths, passed.n};

                r = co_host_take(&s->host, server_place_pool(s), &state, &options, &members, &hp,
                                 err);
                s->n_placed++;
        } else {
                for (size_t i = 0; i < passed.n; i++)
                        close(passed.fds[i]);
                error_set(err, r, "a pool cannot be taken over: %s", strerror(-r));
        }
        free(passed.fds);
        free(passed.paths);
        state_free(state);
        return r;
}

static int co_build_attachments(struct server *s, struct handover *h, const json_t *pools,
                                struct error *err)
{
        size_t i = 0;
        int r = 0;

        for (struct list *it = s->host.pools.next; r == 0 && it != &s->host.pools; it = it->next) {
                struct host_pool *hp = container_of(it, struct host_pool, link);
                const json_t *json = json_array_get(pools, i++);

                co_move(hp->loop);
                r = co_attach_restore(hp, h, json_object_get(json, "attachments"), err);
                co_move(s->host.loop);
        }
        return r;
}

static int co_build(struct server *s, struct handover *h, struct error *err)
{
        const json_t *pools = json_object_get(h->state, "pools");
        const char *folder = json_string_value(json_object_get(h->state, "vhost_folder"));
        int r = 0;

        s->n_placed = 0;
        for (size_t i = 0; r == 0 && i < json_array_size(pools); i++)
                r = co_build_pool(s, h, json_array_get(pools, i), err);
        if (r == 0 && folder && !s->host.vhost_folder) {
                s->host.vhost_folder = strdup(folder);
                if (!s->host.vhost_folder)
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        s->host.vhost_group = s->sockets.group;
        if (r == 0)
                r = co_build_attachments(s, h, pools, err);
        return r < 0 ? r : server_nbd_new(s, err);
}

/* It is this process's to serve. */
static int co_go(struct server *s, struct error *err)
{
        list_for_each (it, &s->host.pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                co_pool_go(hp->pool);
                co_image_bases_go(hp);
                attach_go(hp);
                co_move(s->host.loop);
        }
        return server_nbd_listen(s, err);
}

static unsigned rested_ms(const struct handover *h)
{
        uint64_t stopped_ns = (uint64_t)json_integer_value(json_object_get(h->state, "stopped_ns"));

        return (unsigned)((clock_ns() - stopped_ns) / 1000000);
}

/* ---- the old server: may it be? ---- */

bool takeover_asked(void *server, int fd, json_t *request)
{
        struct server *s = server;

        if (s->taker_fd >= 0 || s->channel || s->stopping)
                return false;
        s->taker_fd = fd;
        s->taker_request = json_incref(request);
        if (s->co)
                co_wake(s->co);
        return true;
}

static bool names_pool(const json_t *pools, const char *name)
{
        for (size_t i = 0; i < json_array_size(pools); i++) {
                const char *other = json_string_value(json_array_get(pools, i));

                if (other && strcmp(other, name) == 0)
                        return true;
        }
        return false;
}

static int check_pools(const struct server *s, const json_t *pools, struct error *err)
{
        char names[256] = "";
        bool all = json_array_size(pools) == s->host.n_pools;

        list_for_each (it, &s->host.pools) {
                const struct host_pool *hp = container_of(it, struct host_pool, link);
                size_t used = strlen(names);

                snprintf(names + used, sizeof(names) - used, "%s%s", used ? " " : "", hp->name);
                all = all && names_pool(pools, hp->name);
        }
        if (all)
                return 0;
        error_set(err, -EINVAL, "process %d serves other pools than were named: %s", (int)getpid(),
                  names);
        return error_hint(err, "name all the pools of the server, and no others");
}

/* Options that were forgotten must not open to everybody what was only for some. */
static int check_tls(const struct server *s, struct error *err)
{
        const json_t *tls = json_object_get(s->taker_request, "tls");
        const json_t *access = json_object_get(s->taker_request, "access");

        if (json_is_integer(tls) && json_integer_value(tls) < (json_int_t)s->options->tls_mode)
                error_set(err, -EPERM,
                          "process %d asks its clients for more TLS than the new server would",
                          (int)getpid());
        else if (json_is_false(access) && s->options->tls_access)
                error_set(err, -EPERM, "process %d has an access list, and the new server has none",
                          (int)getpid());
        else
                return 0;
        return error_hint(err, "say its --tls options again, or --tls MODE if less is meant");
}

static int co_check_request(struct server *s, struct error *err)
{
        json_int_t version = json_integer_value(json_object_get(s->taker_request, "version"));
        int r;

        if (version != HANDOVER_VERSION) {
                error_set(
                    err, -EPROTO,
                    "process %d hands over in another way (%d) than this tarn takes over (%d)",
                    (int)getpid(), HANDOVER_VERSION, (int)version);
                return error_hint(err, "stop it and start the other: guests with an in-flight "
                                       "region go on then");
        }
        r = check_tls(s, err);
        if (r < 0)
                return r;
        for (struct list *it = s->host.pools.next; it != &s->host.pools; it = it->next) {
                const struct host_pool *hp = container_of(it, struct host_pool, link);
                bool waits;

                co_move(hp->loop);
                waits = pool_waits_for_space(hp->pool);
                co_move(s->host.loop);
                if (!waits)
                        continue;
                error_set(err, -EBUSY, "pool '%s' is full, and requests wait for space", hp->name);
                return error_hint(err, "give it space first: a takeover would have to wait, too");
        }
        return check_pools(s, json_object_get(s->taker_request, "pools"), err);
}

static int co_checkpoint_all(struct server *s, struct error *err)
{
        int r = 0;

        for (struct list *it = s->host.pools.next; r == 0 && it != &s->host.pools; it = it->next) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                r = co_pool_checkpoint(hp->pool, err);
                co_move(s->host.loop);
        }
        return r;
}

/* ---- the old server: stopping ---- */

static int dup_sockets(struct server *s, struct handover *h)
{
        int fds[SOCKETS_NBD_MAX], numbers[SOCKETS_NBD_MAX], control;
        size_t n = nbd_server_sockets(s->host.nbd, fds, SOCKETS_NBD_MAX);

        for (size_t i = 0; i < n; i++) {
                numbers[i] = handover_add_dup(h, fds[i]);
                if (numbers[i] < 0)
                        return numbers[i];
        }
        control = handover_add_dup(h, control_fd(s->control));
        if (control < 0)
                return control;
        return json_object_set_new(h->state, "sockets",
                                   sockets_json(&s->sockets, numbers, control)) < 0
                   ? -ENOMEM
                   : 0;
}

/* On the pool's loop. */
static int pool_json(struct host_pool *hp, struct handover *h, json_t **ret_json)
{
        json_t *members = json_array(), *attachments = attach_prepare(hp, h);
        struct pool_info info;
        int r = attachments ? 0 : -ENOMEM;

        pool_get_info(hp->pool, &info);
        for (size_t i = 0; r == 0 && i < info.n_members; i++) {
                struct pool_member_info m;
                int number = handover_add(h, pool_dup_member(hp->pool, i));

                pool_get_member_info(hp->pool, i, &m);
                r = number < 0 ? number
                               : json_array_append_new(members, json_pack("{s:s, s:i}", "path",
                                                                          m.path, "fd", number));
        }
        if (r < 0) {
                json_decref(members);
                json_decref(attachments);
                return r;
        }
        *ret_json = json_pack("{s:s, s:o, s:o, s:o}", "name", hp->name, "uuid", json_uuid(hp->uuid),
                              "members", members, "attachments", attachments);
        return *ret_json ? 0 : -ENOMEM;
}

/* What may fail for want of memory or descriptors, while all still runs. */
static int co_prepare(struct server *s, struct handover *h, struct error *err)
{
        json_t *pools = json_array(), *clients = NULL;
        int r;

        h->state = json_pack("{s:i, s:i, s:o}", "version", HANDOVER_VERSION, "pid", (int)getpid(),
                             "pools", pools);
        r = h->state ? dup_sockets(s, h) : -ENOMEM;
        for (struct list *it = s->host.pools.next; r == 0 && it != &s->host.pools; it = it->next) {
                struct host_pool *hp = container_of(it, struct host_pool, link);
                json_t *json = NULL;

                co_move(hp->loop);
                r = pool_json(hp, h, &json);
                co_move(s->host.loop);
                if (r == 0 && json_array_append_new(pools, json) < 0)
                        r = -ENOMEM;
        }
        if (r == 0 && s->host.vhost_folder)
                r = json_object_set_new(h->state, "vhost_folder",
                                        json_string(s->host.vhost_folder));
        if (r == 0)
                r = control_save(s->control, h, &clients);
        if (r == 0 && json_object_set_new(h->state, "clients", clients) < 0)
                r = -ENOMEM;
        return r < 0 ? error_set(err, r, "cannot prepare to hand over: %s", strerror(-r)) : 0;
}

/* Nothing serves after this, and nobody holds a pool but by the handover's descriptors. */
static int co_stop_all(struct server *s, struct handover *h, struct error *err)
{
        int r = 0, close_r;

        co_nbd_server_leave(s->host.nbd, NBD_GIVE_TIMEOUT_MS);
        nbd_server_free(s->host.nbd);
        s->host.nbd = NULL;
        json_object_set_new(h->state, "stopped_ns", json_integer((json_int_t)clock_ns()));
        list_for_each (it, &s->host.pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                attach_save_begin(hp);
                co_move(s->host.loop);
        }
        list_for_each (it, &s->host.pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);
                int save_r;

                co_move(hp->loop);
                save_r = co_attach_save(hp, h, err);
                co_move(s->host.loop);
                r = save_r < 0 ? save_r : r;
        }
        close_r = co_host_close_all(&s->host, err);
        return close_r < 0 ? close_r : r;
}

/* ---- the old server: handing over ---- */

static int co_await_ready(struct server *s, struct channel *channel, struct error *err)
{
        json_t *line = NULL;
        int r = co_channel_receive(channel, &line);

        if (r == 0 && json_object_get(line, "error"))
                r = control_error_parse(line, err);
        else if (r == 0 && !json_is_true(json_object_get(line, "ready")))
                r = error_set(err, -EPROTO, "it says something else than that it is ready");
        else if (r == -ETIMEDOUT)
                error_set(err, r, "it was not ready in %u s", READY_WAIT_MS / 1000);
        else if (r < 0)
                error_set(err, r, "%s",
                          r == -ECONNRESET  ? "it has ended"
                          : r == -ECANCELED ? "this server was told to stop"
                                            : strerror(-r));
        json_decref(line);
        return r;
}

/* 0: it is the other's. */
static int co_hand_over(struct server *s, struct channel *channel, struct handover *h,
                        struct error *err)
{
        json_t *line = json_pack("{s:b, s:I, s:O}", "ok", true, "fds", (json_int_t)h->n_fds,
                                 "takeover", h->state);
        pid_t pid = peer_pid(channel->fd);
        int r;

        channel_limit(channel, READY_WAIT_MS);
        r = line ? co_channel_send(channel, line, h->fds, h->n_fds) : -ENOMEM;
        json_decref(line);
        if (r < 0)
                return error_set(err, r, "it does not take what is handed over: %s", strerror(-r));
        r = co_await_ready(s, channel, err);
        if (r < 0)
                return r;
        /* systemd believes only who is the main process so far. */
        service_notify("MAINPID=%d", (int)pid);
        r = co_channel_say(channel, "go");
        if (r < 0) {
                service_notify("MAINPID=%d", (int)getpid());
                return error_set(err, r, "it has ended");
        }
        return 0;
}

/* Serve on, with what was to be handed over. */
static int co_take_back(struct server *s, struct handover *h, struct error *err)
{
        const json_t *nbd = json_object_get(json_object_get(h->state, "sockets"), "nbd");
        int r = co_build(s, h, err);

        for (size_t i = 0; r == 0 && i < s->sockets.n_nbd; i++) {
                s->sockets.nbd_fds[i] =
                    handover_take(h, json_object_get(json_array_get(nbd, i), "fd"));
                if (s->sockets.nbd_fds[i] < 0)
                        r = error_set(err, -EBADMSG, "a socket is missing");
        }
        return r < 0 ? r : co_go(s, err);
}

/* The new server is told before anything is done here. One that has not even read what was handed
 * over cannot be told, and must not be able to say later that it is ready: it would take the end of
 * the connection for this server's. Was it quicker, then it is the one that serves. */
static bool co_give_up(struct server *s, struct channel *channel, struct handover *h,
                       const struct error *why)
{
        struct error e = ERROR_INIT;
        int r;

        channel->cancelled = channel->expired = false;
        channel_limit(channel, NBD_GIVE_TIMEOUT_MS);
        r = co_channel_say(channel, "cancelled");
        shutdown(channel->fd, SHUT_RDWR);
        if (r < 0 && r != -EPIPE && co_await_ready(s, channel, &e) == 0)
                return true;
        r = co_take_back(s, h, s->err);
        if (r < 0) {
                log_error("the takeover by process %d failed (%s), and this server cannot go on",
                          (int)peer_pid(channel->fd), why->message);
                s->result = r;
                s->stopping = true;
                return false;
        }
        log_warning("process %d has not taken over: %s; this server goes on, after %u ms",
                    (int)peer_pid(channel->fd), why->message, rested_ms(h));
        control_resume(s->control);
        return false;
}

static bool co_give(struct server *s, struct channel *channel)
{
        struct handover h = HANDOVER_INIT;
        struct error e = ERROR_INIT;
        bool paused = false, given = false;
        int r = co_check_request(s, &e);

        if (r == 0) {
                r = co_control_pause(s->control, COMMANDS_WAIT_MS, &e);
                paused = r == 0;
        }
        if (r == 0)
                r = co_checkpoint_all(s, &e);
        if (r == 0)
                r = co_prepare(s, &h, &e);
        if (r == 0 && s->stopping)
                r = error_set(&e, -ESHUTDOWN, "the server was told to stop");
        if (r < 0) {
                co_send_error(channel, &e);
                if (paused)
                        control_resume(s->control);
        } else {
                r = co_stop_all(s, &h, &e);
                if (r == 0)
                        r = co_hand_over(s, channel, &h, &e);
                else
                        co_send_error(channel, &e);
                given = r == 0 || co_give_up(s, channel, &h, &e);
        }
        handover_free(&h);
        return given;
}

bool co_takeover_give(struct server *s)
{
        pid_t pid = peer_pid(s->taker_fd);
        struct channel channel;
        bool given;

        channel_init(&channel, s->host.loop, s->taker_fd);
        channel_limit(&channel, READY_WAIT_MS);
        s->taker_fd = -1;
        s->channel = &channel;
        given = co_give(s, &channel);
        s->channel = NULL;
        channel_close(&channel);
        json_decref(s->taker_request);
        s->taker_request = NULL;
        if (given) {
                sockets_disown(&s->sockets);
                log_info("process %d has taken over", (int)pid);
        }
        return given;
}

/* ---- the new server ---- */

/* The state of the first, for the way to who serves it; the others must be served there, too. */
static int co_resolve_all(struct server *s, struct pool_state **states, struct error *err)
{
        for (size_t i = 0; i < s->options->n_pools; i++) {
                int r = co_pool_resolve(s->host.loop, s->options->pools[i], &states[i], err);

                for (size_t j = 0; r == 0 && j < i; j++)
                        if (memcmp(states[i]->uuid, states[j]->uuid, 16) == 0)
                                r = error_set(err, -EEXIST, "pool '%s' is named twice",
                                              states[i]->name);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int connect_to(struct server *s, struct pool_state *const *states, int *ret_fd,
                      struct error *err)
{
        struct ucred peer;
        socklen_t length = sizeof(peer);
        int r = client_connect(states[0], ret_fd, err);

        for (size_t i = 1; r == 0 && i < s->options->n_pools; i++) {
                const char *other = states[i]->server_control;

                if (other && strcmp(other, states[0]->server_control) == 0)
                        continue;
                close(*ret_fd);
                return error_set(err, -EINVAL, "pools '%s' and '%s' are not served by one process",
                                 states[0]->name, states[i]->name);
        }
        if (r == -ENOENT)
                error_hint(err, "'tarn serve' without --takeover serves it");
        if (r < 0)
                return r;
        if (getsockopt(*ret_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
            (peer.uid != 0 && peer.uid != geteuid())) {
                close(*ret_fd);
                return error_set(err, -EPERM, "pool '%s' is served by another user's process",
                                 states[0]->name);
        }
        return 0;
}

static int co_find_server(struct server *s, int *ret_fd, json_t **ret_request, struct error *err)
{
        struct pool_state *states[SERVE_POOLS_MAX] = {NULL};
        json_t *names = json_array();
        int r = co_resolve_all(s, states, err);

        if (r == 0)
                r = connect_to(s, states, ret_fd, err);
        for (size_t i = 0; i < s->options->n_pools; i++) {
                if (r == 0)
                        json_array_append_new(names, json_string(states[i]->name));
                state_free(states[i]);
        }
        if (r < 0) {
                json_decref(names);
                return r;
        }
        *ret_request = json_pack("{s:s, s:i, s:o}", "command", "takeover", "version",
                                 HANDOVER_VERSION, "pools", names);
        if (!s->options->tls_chosen) {
                json_object_set_new(*ret_request, "tls", json_integer(s->options->tls_mode));
                json_object_set_new(*ret_request, "access",
                                    json_boolean(s->options->tls_access != NULL));
        }
        return 0;
}

static int co_ask(struct channel *channel, json_t *request, struct handover *h, struct error *err)
{
        json_t *line = NULL;
        int r;

        channel_limit(channel, HANDOVER_WAIT_MS);
        r = request ? co_channel_send(channel, request, NULL, 0) : -ENOMEM;
        if (r == 0)
                r = co_channel_receive(channel, &line);
        if (r == 0 && json_object_get(line, "error")) {
                r = control_error_parse(line, err);
                json_decref(line);
                return error_prefix(err, "cannot take over") < 0 ? r : -EIO;
        }
        if (r == 0)
                r = channel_take_fds(channel, h,
                                     (size_t)json_integer_value(json_object_get(line, "fds")));
        h->state = json_incref(json_object_get(line, "takeover"));
        json_decref(line);
        if (r == 0 && !json_is_object(h->state))
                r = -EBADMSG;
        if (r == 0)
                return 0;
        return error_set(err, r, "cannot take over: %s",
                         r == -ECANCELED    ? "interrupted"
                         : r == -ETIMEDOUT  ? "the server does not answer"
                         : r == -ECONNRESET ? "the server has ended"
                                            : strerror(-r));
}

/* Once it has been said that all is ready only the old server's word counts, or his end. Where it
 * cannot be said he has closed before: he may have called it off, and serve. */
static int co_await_go(struct channel *channel, struct error *err)
{
        json_t *line = NULL;
        int r;

        channel_limit(channel, 0);
        r = co_channel_say(channel, "ready");
        if (r < 0)
                return error_set(err, -EBUSY,
                                 "cannot take over: the server has called it off, or has ended");
        r = co_channel_receive(channel, &line);
        if (r == 0 && !json_is_true(json_object_get(line, "go")))
                r = error_set(err, -EBUSY, "cannot take over: the server has called it off");
        else if (r == -ECONNRESET)
                r = 0; /* he can serve no more, and has closed all that is held here */
        else if (r < 0)
                error_set(err, r, "cannot take over: %s", strerror(-r));
        json_decref(line);
        return r;
}

static int co_begin(struct server *s, struct handover *h, struct error *err)
{
        /* The socket knows only who once began to listen on it. */
        json_int_t pid = json_integer_value(json_object_get(h->state, "pid"));
        struct error e = ERROR_INIT;
        int r = co_go(s, err);

        if (r == 0)
                log_info("taken over from process %d; front ends rested for %u ms", (int)pid,
                         rested_ms(h));
        if (sockets_own(&s->sockets, json_object_get(h->state, "sockets")) < 0)
                log_warning("the sockets will not be removed at the end: out of memory");
        if (r == 0)
                r = server_start_control(s, err);
        if (r < 0)
                return r;
        /* What commands go by; those who ask the same socket find this server in any case. */
        if (server_claim_all(s, &e) < 0)
                log_error("it is not written down who serves: %s", e.message);
        control_restore(s->control, h, json_object_get(h->state, "clients"));
        return 0;
}

static int co_take(struct server *s, struct channel *channel, json_t *request, struct error *err)
{
        struct handover h = HANDOVER_INIT;
        int r;

        s->channel = channel;
        r = co_ask(channel, request, &h, err);
        if (r == 0) {
                struct error e = ERROR_INIT;

                r = sockets_take(&s->sockets, &h, json_object_get(h.state, "sockets"), &e);
                s->host.control_path = s->sockets.control_path;
                s->host.nbd_addresses = s->sockets.nbd_addresses;
                s->host.n_nbd_addresses = s->sockets.n_nbd;
                if (r == 0)
                        r = co_build(s, &h, &e);
                if (r == 0 && s->stopping)
                        r = error_set(&e, -ECANCELED, "it was told to stop");
                if (r < 0) {
                        co_send_error(channel, &e);
                        if (err)
                                *err = e;
                }
        }
        s->channel = NULL;
        if (r == 0)
                r = co_await_go(channel, err);
        if (r == 0)
                r = co_begin(s, &h, err);
        handover_free(&h);
        return r;
}

int co_takeover_take(struct server *s, struct error *err)
{
        json_t *request = NULL;
        struct channel channel;
        int fd, r;

        if (s->sockets.n_nbd > 0 || s->sockets.control_fd >= 0)
                return error_set(err, -EINVAL,
                                 "sockets were passed by systemd, and --takeover brings its own");
        r = co_find_server(s, &fd, &request, err);
        if (r < 0)
                return r;
        channel_init(&channel, s->host.loop, fd);
        r = co_take(s, &channel, request, err);
        channel_close(&channel);
        json_decref(request);
        return r;
}
