/* session.c - running one command. */
#include "server/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "server/client.h"
#include "server/image_file.h"
#include "server/members.h"

/* How long to wait for a lock before looking again whether a server has come up. */
#define LOCK_LOOK_MS 1000u

/* ---- work on a loop of its own ---- */

struct runner {
        struct loop *loop;
        struct session_work *work;
        struct loop_io signal_io;
        bool watching;
        struct co *co;
        int result;
        struct error *err;
};

static void got_signal(struct loop_io *io, int result)
{
        struct runner *run = container_of(io, struct runner, signal_io);

        run->watching = false;
        if (result > 0) {
                run->work->cancelled = true;
                signals_default();
        }
        if (run->co)
                co_wake(run->co);
}

static void co_runner(void *arg)
{
        struct runner *run = arg;

        run->result = run->work->co_run(run->loop, run->work, run->err);
        if (!run->watching)
                return;
        run->co = co_self();
        loop_cancel(run->loop, &run->signal_io);
        while (run->watching)
                co_suspend();
}

int session_do(struct session_work *work, struct error *err)
{
        struct runner run = {.work = work, .err = err};
        int fd, r;

        fd = signals_open(err);
        if (fd < 0)
                return fd;
        r = loop_new(LOOP_BACKEND_AUTO, &run.loop, err);
        if (r == 0) {
                run.watching = true;
                run.signal_io = (struct loop_io){
                    .op = LOOP_POLL, .fd = fd, .flags = POLLIN, .done = got_signal};
                loop_submit(run.loop, &run.signal_io);
                r = co_run(run.loop, co_runner, &run);
                if (r < 0)
                        error_set(err, r, "cannot start: %s", strerror(-r));
                else
                        r = run.result;
                loop_free(run.loop);
        }
        close(fd);
        signals_default();
        return r;
}

/* ---- a pool's state ---- */

struct resolve_work {
        struct session_work work;
        const char *pool;
        struct pool_state *state;
};

static int co_resolve_work(struct loop *loop, struct session_work *work, struct error *err)
{
        struct resolve_work *w = container_of(work, struct resolve_work, work);

        return co_pool_resolve(loop, w->pool, &w->state, err);
}

int session_resolve(const char *pool, struct pool_state **ret_state, struct error *err)
{
        struct resolve_work w = {.work = {.co_run = co_resolve_work}, .pool = pool};
        int r;

        /* A name needs no disk to be looked at. */
        if (state_load(pool, ret_state, NULL) == 0)
                return 0;
        r = session_do(&w.work, err);
        if (r < 0)
                return r;
        *ret_state = w.state;
        return 0;
}

/* ---- here ---- */

struct local_work {
        struct session_work work;
        struct command_caller caller;
        const struct session *session;
        struct pool_state **state;
        unsigned wait_ms;
        json_t *reply;
};

static void local_progress(struct command_caller *caller, uint64_t done, uint64_t total,
                           bool verifying)
{
        struct local_work *w = container_of(caller, struct local_work, caller);

        if (w->session->progress)
                w->session->progress(w->session->arg, done, total, verifying);
}

static int co_local(struct loop *loop, struct session_work *work, struct error *err)
{
        struct local_work *w = container_of(work, struct local_work, work);
        const char *command = json_string_value(json_object_get(w->session->request, "command"));
        const struct pool_options options = {.readonly = command_is_readonly(command)};
        struct error closing = ERROR_INIT;
        struct host_pool *hp;
        struct host host;
        int r;

        host_init(&host, loop);
        r = co_host_open(&host, loop, w->state, &options, w->wait_ms, &work->cancelled, &hp, err);
        if (r < 0)
                return r;
        w->caller =
            (struct command_caller){.progress = local_progress, .cancelled = &work->cancelled};
        r = co_command_run(&host, w->session->request, w->session->fds, w->session->n_fds,
                           &w->caller, &w->reply, err);
        /* There is no server that would free the space later. */
        if (command_frees_space(command))
                co_pool_settle(hp->pool, NULL);
        if (co_host_close_all(&host, &closing) < 0)
                log_warning("%s", closing.message);
        image_files_close(&host);
        return r;
}

int session_run(const struct session *session, json_t **ret_reply, struct error *err)
{
        unsigned wait_ms = session->wait_ms ? session->wait_ms : MEMBERS_LOCK_WAIT_MS;
        struct pool_state *state = NULL;
        unsigned n_ended = 0;
        int fd, r;

        if (!session->request)
                return error_set(err, -ENOMEM, "out of memory");
        for (;;) {
                struct local_work w = {.work = {.co_run = co_local},
                                       .session = session,
                                       .state = &state,
                                       .wait_ms = wait_ms < LOCK_LOOK_MS ? wait_ms : LOCK_LOOK_MS};

                r = session_resolve(session->pool, &state, err);
                if (r < 0)
                        break;
                r = json_object_set_new(session->request, "pool", json_string(state->name)) < 0
                        ? error_set(err, -ENOMEM, "out of memory")
                        : client_connect(state, &fd, err);
                if (r == 0) {
                        bool not_begun = false;

                        r = session_ask(fd, session, ret_reply, &not_begun, err);
                        close(fd);
                        if (!not_begun || n_ended++ >= SESSION_ENDED_MAX)
                                break;
                        state_free(state);
                        state = NULL;
                        continue;
                }
                if (r == -ENOENT && session->served_only) {
                        r = error_set(err, -ENOTCONN, "pool '%s' is not being served", state->name);
                        error_hint(err, "'tarn serve %s' serves it", state->name);
                }
                if (r != -ENOENT)
                        break;
                r = session_do(&w.work, err);
                if (r == 0)
                        *ret_reply = w.reply;
                wait_ms -= w.wait_ms;
                /* Held: by another command, or by a server that is starting or stopping. A state
                 * still here was not taken by an open pool, so it was the opening that failed. */
                if (r != -EBUSY || !state || wait_ms == 0)
                        break;
                state_free(state);
                state = NULL;
        }
        state_free(state);
        return r;
}
