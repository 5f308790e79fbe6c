/* serve.c - the server's life: open, listen, wait for a signal, finish. */
#include "server/serve_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "common/loop_thread.h"
#include "common/service_manager.h"
#include "server/attach.h"
#include "server/client.h"
#include "server/connector.h"
#include "server/control.h"
#include "server/listen.h"
#include "server/image_base.h"
#include "server/image_file.h"
#include "server/members.h"
#include "server/passed.h"
#include "server/session.h"

#define NBD_CONNECTIONS_MAX 1024u /* where no other number is asked for */
/* Never taken by NBD connections: for the control socket, what its clients bring, state files. */
#define KEPT_DESCRIPTORS (2 * CONTROL_CLIENTS_MAX + COMMAND_FDS_MAX)
/* Between two looks whether another server was quicker. */
#define LOCK_LOOK_MS 250u
/* A killed server's socket is there until the kernel has ended its I/O: one that stays is alive. */
#define SERVER_GONE_WAIT_MS 1000u

static void got_signal(struct loop_io *io, int result)
{
        struct server *s = container_of(io, struct server, end.io);

        s->end.armed = false;
        s->stopping = true;
        /* A second signal ends the process as a crash would, which the pools bear. */
        if (result > 0)
                signals_default();
        if (s->channel)
                channel_cancel(s->channel);
        if (s->co)
                co_wake(s->co);
}

static void watch(struct loop *loop, struct watch *w, void (*done)(struct loop_io *io, int result))
{
        if (w->fd < 0)
                return;
        w->armed = true;
        w->io = (struct loop_io){.op = LOOP_POLL, .fd = w->fd, .flags = POLLIN, .done = done};
        loop_submit(loop, &w->io);
}

static void co_unwatch(struct server *s, struct watch *w)
{
        s->co = co_self();
        if (w->armed)
                loop_cancel(s->host.loop, &w->io);
        while (w->armed)
                co_suspend();
}

/* ---- TLS and who may open what ---- */

static int load_credentials(const struct serve_options *o, struct nbd_tls **ret_tls,
                            struct access_list **ret_access, struct error *err)
{
        struct nbd_tls *tls = NULL;
        int r = o->tls_mode == NBD_TLS_OFF ? 0 : nbd_tls_new(&o->tls, &tls, err);

        if (r == 0 && o->tls_access)
                r = access_load(o->tls_access, ret_access, err);
        if (r < 0)
                nbd_tls_unref(tls);
        else
                *ret_tls = tls;
        return r;
}

/* Those connected stay as they are. */
static void reload(struct server *s)
{
        struct error e = ERROR_INIT;
        struct access_list *access = NULL;
        struct nbd_tls *tls = NULL;

        if (s->serving)
                service_notify("RELOADING=1");
        if (load_credentials(s->options, &tls, &access, &e) < 0) {
                log_error("%s; what was read before stays in force", e.message);
        } else {
                if (s->host.nbd && tls)
                        nbd_server_set_tls(s->host.nbd, tls);
                nbd_tls_unref(s->tls);
                access_unref(s->host.access);
                s->tls = tls;
                s->host.access = access;
                log_info("the credentials were read anew");
        }
        if (s->serving)
                service_notify("READY=1");
}

static void got_hangup(struct loop_io *io, int result)
{
        struct server *s = container_of(io, struct server, hangup.io);
        struct signalfd_siginfo info;

        s->hangup.armed = false;
        if (result > 0 && read(s->hangup.fd, &info, sizeof(info)) == sizeof(info))
                reload(s);
        if (result != -ECANCELED && !s->stopping)
                watch(s->host.loop, &s->hangup, got_hangup);
        else if (s->co)
                co_wake(s->co);
}

/* Only where there is something to read anew: otherwise it ends the process, as ever. */
static int open_hangup(struct server *s, struct error *err)
{
        sigset_t set;

        if (s->options->tls_mode == NBD_TLS_OFF && !s->options->tls_access)
                return 0;
        sigemptyset(&set);
        sigaddset(&set, SIGHUP);
        sigprocmask(SIG_BLOCK, &set, NULL);
        s->hangup.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return s->hangup.fd < 0
                   ? error_set(err, -errno, "cannot watch signals: %s", strerror(errno))
                   : 0;
}

/* For the warnings about sockets that others reach. */
static const char *exposure(const struct serve_options *o)
{
        if (o->tls_mode == NBD_TLS_OFF)
                return "need no password and see everything: there is no TLS";
        if (o->tls_mode == NBD_TLS_ALLOW)
                return "need no password and see everything: TLS is offered, and not required";
        if (o->tls.certificate && !o->tls.verify_peer && !o->tls_access)
                return "need no password: TLS shows them who the server is, and asks nobody who he "
                       "is";
        return NULL;
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
int server_refuse_twice(struct server *s, const struct pool_state *state, struct error *err)
{
        list_for_each (it, &s->host.pools) {
                const struct host_pool *hp = container_of(it, struct host_pool, link);

                if (memcmp(hp->uuid, state->uuid, sizeof(state->uuid)) == 0)
                        return error_set(err, -EEXIST, "pool '%s' is named twice", state->name);
        }
        return 0;
}

struct loop *server_place_pool(struct server *s)
{
        unsigned i = s->n_placed % (s->n_threads + 1);

        return i == 0 ? s->host.loop : loop_thread_loop(s->thread[i - 1]);
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
                        r = server_refuse_twice(s, state, err);
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
                r = co_host_open(&s->host, server_place_pool(s), &state, &options, LOCK_LOOK_MS,
                                 &s->stopping, &hp, err);
                state_free(state);
                waited_ms += LOCK_LOOK_MS;
        } while (r == -EBUSY && waited_ms < MEMBERS_LOCK_WAIT_MS && !s->stopping);
        s->n_placed++;
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
        r = state_load(hp->name, &state, err);
        if (r == 0 && memcmp(state->uuid, hp->uuid, 16) != 0)
                r = another_known(hp->name, err);
        else if (r == -ENOENT)
                r = state_save(hp->state, err) < 0 ? -EIO : state_load(hp->name, &state, err);
        if (r == 0 && serving) {
                r = state_set_server(state, s->host.control_path, getpid(), s->host.nbd_addresses,
                                     s->host.n_nbd_addresses);
                if (r < 0)
                        error_set(err, r, "out of memory");
                state->server_while_used = s->options->while_used;
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

int server_claim_all(struct server *s, struct error *err)
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

/* As far as it may be: the usual limit is for programs that call select(2). */
static void raise_files_limit(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
}

/* As many connections as leave descriptors for operators. */
static unsigned nbd_connections_max(const struct server *s)
{
        const unsigned asked = s->options->max_connections;
        const unsigned wanted = asked > 0 ? asked : NBD_CONNECTIONS_MAX;
        struct rlimit limit;
        rlim_t left, kept;
        int lowest;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return wanted;
        lowest = fcntl(s->end.fd, F_DUPFD_CLOEXEC, 0); /* those below are taken */
        if (lowest < 0)
                return 1;
        close(lowest);
        left = limit.rlim_cur > (rlim_t)lowest ? limit.rlim_cur - (rlim_t)lowest : 1;
        kept = left / 2 < KEPT_DESCRIPTORS ? left / 2 : KEPT_DESCRIPTORS;
        if (left - kept >= wanted)
                return wanted;
        log_warning("at most %llu NBD connections are served, as the process may open only %llu "
                    "files",
                    (unsigned long long)(left - kept), (unsigned long long)limit.rlim_cur);
        return (unsigned)(left - kept);
}

int server_nbd_new(struct server *s, struct error *err)
{
        struct loop *loops[SERVE_THREADS_MAX];

        for (unsigned i = 0; i < s->n_threads; i++)
                loops[i] = loop_thread_loop(s->thread[i]);

        const struct nbd_server_options options = {
            .max_connections = nbd_connections_max(s),
            .handshake_timeout_ms = s->options->handshake_timeout_ms,
            .idle_timeout_ms = s->options->idle_timeout_ms,
            .tls_mode = s->options->tls_mode,
            .tls = s->tls,
            .loops = loops,
            .n_loops = s->n_threads,
        };
        const struct nbd_exports exports = host_exports(&s->host);

        return nbd_server_new(s->host.loop, &options, &exports, &s->host.nbd, err);
}

int server_nbd_listen(struct server *s, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < s->sockets.n_nbd; i++) {
                r = nbd_server_listen(s->host.nbd, s->sockets.nbd_fds[i], err);
                s->sockets.nbd_fds[i] = -1;
        }
        return r;
}

static int co_start_vhost(struct server *s, struct error *err)
{
        int r = 0;

        if (s->options->vhost_folder) {
                s->host.vhost_folder = absolute_path(s->options->vhost_folder);
                if (!s->host.vhost_folder)
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        s->host.vhost_group = s->sockets.group;
        return r < 0 ? r : co_attach_start(&s->host, err);
}

int server_start_control(struct server *s, struct error *err)
{
        int fd = s->sockets.control_fd;
        int r;

        s->sockets.control_fd = -1;
        r = control_new(&s->host, fd, &s->control, err);
        if (r == 0)
                control_on_takeover(s->control, takeover_asked, s);
        return r;
}

static int co_start(struct server *s, struct error *err)
{
        const struct serve_options *o = s->options;
        const char *names[SERVE_POOLS_MAX];
        size_t n = 0;
        int r;

        list_for_each (it, &s->host.pools)
                names[n++] = container_of(it, struct host_pool, link)->name;
        r = sockets_open(&s->sockets, names, n, o->nbd, o->n_nbd, o->control, o->group, err);
        if (r < 0)
                return r;
        s->host.control_path = s->sockets.control_path;
        s->host.nbd_addresses = s->sockets.nbd_addresses;
        s->host.n_nbd_addresses = s->sockets.n_nbd;
        r = server_nbd_new(s, err);
        if (r == 0)
                r = server_nbd_listen(s, err);
        if (r == 0)
                r = co_start_vhost(s, err);
        if (r == 0)
                r = server_start_control(s, err);
        if (r == 0)
                r = server_claim_all(s, err);
        if (r == 0)
                list_for_each (it, &s->host.pools)
                        co_image_bases_go(container_of(it, struct host_pool, link));
        return r;
}

/* ---- life ---- */

/* For a service manager, where there is one. */
static void tell_ready(const struct server *s)
{
        service_notify("READY=1\nSTATUS=serving %zu %s on %zu NBD %s", s->options->n_pools,
                       s->options->n_pools == 1 ? "pool" : "pools", s->sockets.n_nbd,
                       s->sockets.n_nbd == 1 ? "socket" : "sockets");
}

static void co_stop(struct server *s)
{
        if (!s->given)
                sockets_unlink(&s->sockets);
        if (s->control)
                co_control_stop(s->control);
        co_attach_stop(&s->host);
        /* Another server may be started right after this one. */
        if (s->host.nbd)
                co_nbd_server_leave(s->host.nbd, NBD_STOP_TIMEOUT_MS);
        release_all(s);
        control_free(s->control);
        nbd_server_free(s->host.nbd);
        free(s->host.vhost_folder);
        sockets_close(&s->sockets);
}

/* Until a signal, or another process has taken over. */
static void co_serve(struct server *s)
{
        if (s->options->ready)
                s->options->ready(&s->host);
        s->serving = true;
        tell_ready(s);
        if (s->options->while_used) {
                s->watching_use = true;
                if (co_spawn(s->host.loop, co_server_watch_use, s) < 0)
                        s->watching_use = false;
        }
        while (!s->stopping && !s->given) {
                s->co = co_self();
                while (!s->stopping && s->taker_fd < 0)
                        co_suspend();
                s->co = NULL;
                while (s->looking_at_use)
                        co_yield_loop();
                if (!s->stopping)
                        s->given = co_takeover_give(s);
        }
        s->serving = false;
        while (s->watching_use) {
                s->co = co_self();
                co_suspend();
                s->co = NULL;
        }
}

static void co_server(void *arg)
{
        struct server *s = arg;
        struct error closing = ERROR_INIT;
        bool serves;
        int r;

        if (s->options->takeover) {
                r = co_takeover_take(s, s->err);
        } else {
                r = co_open_pools(s, s->err);
                if (r == 0)
                        r = co_start(s, s->err);
        }
        serves = r == 0;
        if (serves) {
                co_server_confine(s);
                co_serve(s);
                r = s->result;
        } else if (s->stopping && (r == -EBUSY || r == -ECANCELED)) {
                r = 0; /* told to stop while it waited */
        }
        /* One that has not taken over is not who the service manager would hear of. */
        if (!s->given && (serves || !s->options->takeover))
                service_notify("STOPPING=1");
        co_stop(s);
        s->result = r;
        r = co_host_close_all(&s->host, &closing);
        if (r < 0 && s->result == 0)
                s->result = error_set(s->err, r, "%s", closing.message);
        image_files_close(&s->host);
        co_unwatch(s, &s->hangup);
        co_unwatch(s, &s->end);
}

static int start_threads(struct server *s, struct error *err)
{
        unsigned n_loops = s->options->threads;
        char name[16];

        if (n_loops == 0) {
                cpu_set_t cpus;

                n_loops =
                    sched_getaffinity(0, sizeof(cpus), &cpus) < 0 ? 1 : (unsigned)CPU_COUNT(&cpus);
        }
        if (n_loops > SERVE_THREADS_MAX)
                n_loops = SERVE_THREADS_MAX;
        while (s->n_threads + 1 < n_loops) {
                int r;

                snprintf(name, sizeof(name), "tarn-loop-%u", s->n_threads + 1);
                r = loop_thread_start(name, &s->thread[s->n_threads], err);
                if (r < 0)
                        return r;
                s->n_threads++;
        }
        return 0;
}

static void stop_threads(struct server *s)
{
        while (s->n_threads > 0)
                loop_thread_stop(s->thread[--s->n_threads]);
}

static int run_loop(struct server *s, struct error *err)
{
        struct loop *loop = NULL;
        int r = loop_new(LOOP_BACKEND_AUTO, &loop, err);

        if (r < 0)
                return r;
        host_init(&s->host, loop);
        s->host.connector_fd = s->connector_fd;
        r = load_credentials(s->options, &s->tls, &s->host.access, err);
        if (r == 0)
                r = start_threads(s, err);
        if (r == 0) {
                watch(loop, &s->end, got_signal);
                watch(loop, &s->hangup, got_hangup);
                r = co_run(loop, co_server, s);
                if (r < 0)
                        error_set(err, r, "cannot start: %s", strerror(-r));
                else
                        r = s->result;
        }
        stop_threads(s);
        access_unref(s->host.access);
        nbd_tls_unref(s->tls);
        loop_free(loop);
        return r;
}

int serve_run(const struct serve_options *options, struct error *err)
{
        struct server s = {.options = options,
                           .err = err,
                           .sockets = SOCKETS_INIT,
                           .end.fd = -1,
                           .hangup.fd = -1,
                           .taker_fd = -1};
        int r = connector_start(&s.connector_fd, err);

        if (r < 0)
                return r;
        raise_files_limit();
        s.sockets.exposure = exposure(options);
        s.end.fd = signals_open(err);
        if (s.end.fd < 0) {
                close(s.connector_fd);
                return s.end.fd;
        }
        r = open_hangup(&s, err);
        if (r == 0)
                r = passed_take(&s.sockets, err);
        if (r == 0)
                r = run_loop(&s, err);
        sockets_close(&s.sockets);
        if (s.taker_fd >= 0)
                close(s.taker_fd);
        json_decref(s.taker_request);
        if (s.hangup.fd >= 0)
                close(s.hangup.fd);
        close(s.end.fd);
        close(s.connector_fd);
        return r;
}
