/* serve.c - the server's life: open, listen, wait for a signal, finish. */
#include "server/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "server/attach.h"
#include "server/client.h"
#include "server/control.h"
#include "server/listen.h"
#include "server/members.h"
#include "server/session.h"

/* Connections that have not ended by then are cut off. */
#define NBD_STOP_TIMEOUT_MS 5000u
#define NBD_CONNECTIONS_MAX 1024u
/* Never taken by NBD connections: for the control socket, what its clients bring, state files. */
#define KEPT_DESCRIPTORS (2 * CONTROL_CLIENTS_MAX + COMMAND_FDS_MAX)
/* Between two looks whether another server was quicker. */
#define LOCK_LOOK_MS 250u
/* A killed server's socket is there until the kernel has ended its I/O: one that stays is alive. */
#define SERVER_GONE_WAIT_MS 1000u

struct server {
        const struct serve_options *options;
        struct host host;
        struct sockets sockets;
        struct control *control;
        struct loop_io signal_io;
        bool watching, stopping;
        struct co *co;
        int signal_fd, result;
        struct error *err;
};

static void got_signal(struct loop_io *io, int result)
{
        struct server *s = container_of(io, struct server, signal_io);

        s->watching = false;
        s->stopping = true;
        /* A second signal ends the process as a crash would, which the pools bear. */
        if (result > 0)
                signals_default();
        if (s->co)
                co_wake(s->co);
}

/* ---- pools ---- */

static int refuse_second(const struct pool_state *state, struct error *err)
{
        int fd, r = client_connect(state, &fd, NULL);

        if (r == -ENOENT)
                return 0;
        if (r == 0)
                close(fd);
        return error_set(err, -EBUSY, "pool '%s' is already being served, by process %d",
                         state->name, (int)state->server_pid);
}

/* It would be waited for until the lock that is held here is let go. */
static int refuse_twice(struct server *s, const struct pool_state *state, struct error *err)
{
        list_for_each (it, &s->host.pools) {
                const struct host_pool *hp = container_of(it, struct host_pool, link);

                if (memcmp(hp->state->uuid, state->uuid, sizeof(state->uuid)) == 0)
                        return error_set(err, -EEXIST, "pool '%s' is named twice", state->name);
        }
        return 0;
}

/* Waits for a server that is being killed or stopped to let go,
 * or to turn out to be there to stay. */
static int co_open_pool(struct server *s, const char *name, struct error *err)
{
        const struct pool_options options = {0};
        unsigned waited_ms = 0;
        int r;

        do {
                struct pool_state *state = NULL;
                struct host_pool *hp;

                r = co_pool_resolve(s->host.loop, name, &state, err);
                if (r == 0)
                        r = refuse_twice(s, state, err);
                if (r == 0)
                        r = refuse_second(state, err);
                if (r == -EBUSY && waited_ms < SERVER_GONE_WAIT_MS) {
                        state_free(state);
                        co_sleep_ns(LOCK_LOOK_MS * UINT64_C(1000000));
                        waited_ms += LOCK_LOOK_MS;
                        continue;
                }
                if (r < 0) {
                        state_free(state);
                        return r;
                }
                r = co_host_open(&s->host, &state, &options, LOCK_LOOK_MS, &s->stopping, &hp, err);
                state_free(state);
                waited_ms += LOCK_LOOK_MS;
        } while (r == -EBUSY && waited_ms < MEMBERS_LOCK_WAIT_MS && !s->stopping);
        return r;
}

static int co_open_pools(struct server *s, struct error *err)
{
        for (size_t i = 0; i < s->options->n_pools; i++) {
                int r = co_open_pool(s, s->options->pools[i], err);

                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- who serves, in the state files ---- */

static int another_known(const char *name, struct error *err)
{
        error_set(err, -EEXIST, "another pool '%s' is known here", name);
        return error_hint(err, "'tarn pool forget %s' makes room for this one", name);
}

/* A pool that was named by a path and is not known here becomes known: commands find its server
 * this way. */
static int claim(struct server *s, struct host_pool *hp, bool serving, struct error *err)
{
        struct pool_state *state = NULL;
        int lock, r;

        lock = state_lock(err);
        if (lock < 0)
                return lock;
        r = state_load(hp->state->name, &state, err);
        if (r == 0 && memcmp(state->uuid, hp->state->uuid, 16) != 0)
                r = another_known(hp->state->name, err);
        else if (r == -ENOENT)
                r = state_save(hp->state, err) < 0 ? -EIO
                                                   : state_load(hp->state->name, &state, err);
        if (r == 0 && serving) {
                r = state_set_server(state, s->host.control_path, getpid(), s->host.nbd_addresses,
                                     s->host.n_nbd_addresses);
                if (r < 0)
                        error_set(err, r, "out of memory");
        }
        if (r == 0 && !serving) {
                /* Unless another server took over after this one's sockets were gone. */
                if (state->server_pid == getpid())
                        state_clear_server(state);
        }
        if (r == 0)
                r = state_save(state, err);
        if (r == 0)
                hp->claimed = serving;
        state_free(state);
        state_unlock(lock);
        return r;
}

static int claim_all(struct server *s, struct error *err)
{
        list_for_each (it, &s->host.pools) {
                int r = claim(s, container_of(it, struct host_pool, link), true, err);

                if (r < 0)
                        return r;
        }
        return 0;
}

static void release_all(struct server *s)
{
        list_for_each (it, &s->host.pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);
                struct error e = ERROR_INIT;

                if (hp->claimed && claim(s, hp, false, &e) < 0)
                        log_warning("%s", e.message);
        }
}

/* ---- sockets ---- */

/* As many connections as leave descriptors for operators. The limit is raised as far as it may be:
 * the usual one is for programs that call select(2). */
static unsigned nbd_connections_max(const struct server *s)
{
        struct rlimit limit;
        rlim_t left, kept;
        int lowest;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return NBD_CONNECTIONS_MAX;
        if (limit.rlim_cur < limit.rlim_max) {
                struct rlimit raised = {limit.rlim_max, limit.rlim_max};

                if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
                        limit = raised;
        }
        lowest = fcntl(s->signal_fd, F_DUPFD_CLOEXEC, 0); /* those below are taken */
        if (lowest < 0)
                return 1;
        close(lowest);
        left = limit.rlim_cur > (rlim_t)lowest ? limit.rlim_cur - (rlim_t)lowest : 1;
        kept = left / 2 < KEPT_DESCRIPTORS ? left / 2 : KEPT_DESCRIPTORS;
        if (left - kept >= NBD_CONNECTIONS_MAX)
                return NBD_CONNECTIONS_MAX;
        log_warning("at most %llu NBD connections are served, as the process may open only %llu "
                    "files",
                    (unsigned long long)(left - kept), (unsigned long long)limit.rlim_cur);
        return (unsigned)(left - kept);
}

static int start_nbd(struct server *s, struct error *err)
{
        const struct nbd_server_options options = {.max_connections = nbd_connections_max(s)};
        const struct nbd_exports exports = host_exports(&s->host);
        int r = nbd_server_new(s->host.loop, &options, &exports, &s->host.nbd, err);

        for (size_t i = 0; r == 0 && i < s->sockets.n_nbd; i++) {
                r = nbd_server_listen(s->host.nbd, s->sockets.nbd_fds[i], err);
                s->sockets.nbd_fds[i] = -1;
        }
        return r;
}

static int co_start_vhost(struct server *s, struct error *err)
{
        int r = vhost_server_new(s->host.loop, NULL, &s->host.vhost, err);

        if (r == 0 && s->options->vhost_folder) {
                s->host.vhost_folder = absolute_path(s->options->vhost_folder);
                if (!s->host.vhost_folder)
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        s->host.vhost_group = s->sockets.group;
        return r < 0 ? r : co_attach_start(&s->host, err);
}

static int start_control(struct server *s, struct error *err)
{
        int fd = s->sockets.control_fd;

        s->sockets.control_fd = -1;
        return control_new(&s->host, fd, &s->control, err);
}

static int co_start(struct server *s, struct error *err)
{
        const struct serve_options *o = s->options;
        const char *names[SERVE_POOLS_MAX];
        size_t n = 0;
        int r;

        list_for_each (it, &s->host.pools)
                names[n++] = container_of(it, struct host_pool, link)->state->name;
        r = sockets_open(&s->sockets, names, n, o->nbd, o->n_nbd, o->control, o->group, err);
        if (r < 0)
                return r;
        s->host.control_path = s->sockets.control_path;
        s->host.nbd_addresses = s->sockets.nbd_addresses;
        s->host.n_nbd_addresses = s->sockets.n_nbd;
        r = start_nbd(s, err);
        if (r == 0)
                r = co_start_vhost(s, err);
        if (r == 0)
                r = start_control(s, err);
        return r < 0 ? r : claim_all(s, err);
}

/* ---- life ---- */

static void co_stop(struct server *s)
{
        sockets_unlink(&s->sockets);
        if (s->control)
                co_control_stop(s->control);
        co_attach_stop(&s->host);
        if (s->host.nbd)
                co_nbd_server_stop(s->host.nbd, NBD_STOP_TIMEOUT_MS);
        release_all(s);
        control_free(s->control);
        nbd_server_free(s->host.nbd);
        vhost_server_free(s->host.vhost);
        free(s->host.vhost_folder);
        sockets_close(&s->sockets);
}

static void co_server(void *arg)
{
        struct server *s = arg;
        struct error closing = ERROR_INIT;
        int r;

        r = co_open_pools(s, s->err);
        if (r == 0)
                r = co_start(s, s->err);
        if (r == 0) {
                if (s->options->ready)
                        s->options->ready(&s->host);
                s->co = co_self();
                while (!s->stopping)
                        co_suspend();
        } else if (s->stopping && (r == -EBUSY || r == -ECANCELED)) {
                r = 0; /* told to stop while it waited */
        }
        co_stop(s);
        s->result = r;
        r = co_host_close_all(&s->host, &closing);
        if (r < 0 && s->result == 0)
                s->result = error_set(s->err, r, "%s", closing.message);
        s->co = co_self();
        if (s->watching)
                loop_cancel(s->host.loop, &s->signal_io);
        while (s->watching)
                co_suspend();
}

int serve_run(const struct serve_options *options, struct error *err)
{
        struct server s = {.options = options, .err = err, .sockets = SOCKETS_INIT};
        struct loop *loop = NULL;
        int r;

        s.signal_fd = signals_open(err);
        if (s.signal_fd < 0)
                return s.signal_fd;
        r = loop_new(LOOP_BACKEND_AUTO, &loop, err);
        if (r == 0) {
                host_init(&s.host, loop);
                s.watching = true;
                s.signal_io = (struct loop_io){
                    .op = LOOP_POLL, .fd = s.signal_fd, .flags = POLLIN, .done = got_signal};
                loop_submit(loop, &s.signal_io);
                r = co_run(loop, co_server, &s);
                if (r < 0)
                        error_set(err, r, "cannot start: %s", strerror(-r));
                else
                        r = s.result;
                loop_free(loop);
        }
        close(s.signal_fd);
        return r;
}
