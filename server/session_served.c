/* session_served.c - running one command by the pool's server. */
#include <errno.h>
#include <unistd.h>

#include "server/client.h"
#include "server/session.h"

int session_ask(int fd, const struct session *session, json_t **ret_reply, bool *ret_not_begun,
                struct error *err)
{
        struct client_call call = {.request = session->request,
                                   .fds = session->fds,
                                   .n_fds = session->n_fds,
                                   .progress = session->progress,
                                   .arg = session->arg};
        int r;

        call.signal_fd = signals_open(err);
        if (call.signal_fd < 0)
                return call.signal_fd;
        r = client_run(fd, &call, ret_reply, err);
        *ret_not_begun = call.not_begun;
        close(call.signal_fd);
        signals_default();
        return r;
}

static int ask_once(const struct session *session, json_t **ret_reply, bool *ret_not_begun,
                    struct error *err)
{
        struct pool_state *state = NULL;
        int fd, r = state_load(session->pool, &state, err);

        if (r == 0)
                r = json_object_set_new(session->request, "pool", json_string(state->name)) < 0
                        ? error_set(err, -ENOMEM, "out of memory")
                        : client_connect(state, &fd, err);
        if (r == 0) {
                r = session_ask(fd, session, ret_reply, ret_not_begun, err);
                close(fd);
        } else if (r == -ENOENT) {
                r = error_set(err, -ENOTCONN, "pool '%s' is not being served", session->pool);
        }
        state_free(state);
        return r;
}

int session_run_served(const struct session *session, json_t **ret_reply, struct error *err)
{
        bool not_begun = true;
        int r = -ENOMEM;

        if (!session->request)
                return error_set(err, -ENOMEM, "out of memory");
        for (unsigned i = 0; not_begun && i < SESSION_ENDED_MAX; i++) {
                not_begun = false;
                r = ask_once(session, ret_reply, &not_begun, err);
        }
        return r;
}
