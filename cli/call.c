/* call.c - one command, by the server or here, with its progress bar. */
#include "cli/cli.h"
#include "server/session.h"

int cli_try(const struct cli_call *call, json_t **ret_reply, struct error *err)
{
        struct cli_progress progress;
        const struct session session = {.pool = call->pool,
                                        .request = call->request,
                                        .fds = call->fds,
                                        .n_fds = call->n_fds,
                                        .progress = call->progress ? cli_progress_show : NULL,
                                        .arg = &progress,
                                        .wait_ms = call->wait_ms};
        int r;

        if (call->progress)
                cli_progress_begin(&progress, call->progress, call->progress_is_share);
        r = session_run(&session, ret_reply, err);
        if (call->progress)
                cli_progress_end(&progress);
        json_decref(call->request);
        return r;
}

int cli_call(const struct cli_call *call, json_t **ret_reply)
{
        struct error e = ERROR_INIT;
        int r = cli_try(call, ret_reply, &e);

        if (r < 0)
                cli_fail(&e);
        return r;
}
