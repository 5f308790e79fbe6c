/* call.c - one command, by the server or here, with its progress bar. */
#include <string.h>
#include <unistd.h>

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
                                        .wait_ms = call->wait_ms,
                                        .served_only = call->served_only};
        int r;

        if (call->progress)
                cli_progress_begin(&progress, call->progress, call->progress_is_share);
        r = session_run(&session, ret_reply, err);
        if (call->progress)
                cli_progress_end(&progress);
        json_decref(call->request);
        return r;
}

/* A member's path has slashes too: it is the pool where something stands at it, unless what is
 * before its last slash is a pool's name. */
bool cli_is_member_path(const char *word)
{
        struct pool_state *state = NULL;
        char *pool = strndup(word, (size_t)(strrchr(word, '/') - word));
        bool named =
            pool && pool_name_check(pool, "pool", NULL) == 0 && state_load(pool, &state, NULL) == 0;

        state_free(state);
        free(pool);
        return !named && access(word, F_OK) == 0;
}

bool cli_same_pool(const char *a, const char *b)
{
        struct pool_state *state_a = NULL, *state_b = NULL;
        bool same = strcmp(a, b) == 0;

        if (!same && session_resolve(a, &state_a, NULL) == 0 &&
            session_resolve(b, &state_b, NULL) == 0)
                same = memcmp(state_a->uuid, state_b->uuid, sizeof(state_a->uuid)) == 0;
        state_free(state_a);
        state_free(state_b);
        return same;
}

int cli_call(const struct cli_call *call, json_t **ret_reply)
{
        struct error e = ERROR_INIT;
        int r = cli_try(call, ret_reply, &e);

        if (r < 0)
                cli_fail(&e);
        return r;
}
