/* call.c - one command, by the server or here, with its progress bar. */
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/session.h"

struct call_progress {
        struct cli_progress bar;
        const char *label;
};

static void show_progress(void *arg, uint64_t done, uint64_t total, bool verifying)
{
        struct call_progress *p = arg;

        cli_progress_label(&p->bar, verifying ? "verifying" : p->label, done);
        cli_progress_show(&p->bar, done, total);
}

int cli_try(const struct cli_call *call, json_t **ret_reply, struct error *err)
{
        struct call_progress progress = {.label = call->progress};
        const struct session session = {.pool = call->pool,
                                        .request = call->request,
                                        .fds = call->fds,
                                        .n_fds = call->n_fds,
                                        .progress = call->progress ? show_progress : NULL,
                                        .arg = &progress,
                                        .wait_ms = call->wait_ms,
                                        .served_only = call->served_only};
        int r;

        if (call->progress)
                cli_progress_begin(&progress.bar, call->progress, call->progress_is_share);
        r = session_run(&session, ret_reply, err);
        if (call->progress)
                cli_progress_end(&progress.bar);
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

void cli_put(json_t **request, const char *key, json_t *value)
{
        if (json_object_set_new(*request, key, value) == 0)
                return;
        json_decref(*request);
        *request = NULL;
}

json_t *cli_request_with_force(const char *command, const struct cli_args *args)
{
        return json_pack("{s:s, s:b}", "command", command, "force", (int)(args->given & CLI_FORCE));
}

int cli_call_about(const char *word, const char *key, json_t *request, json_t **ret_reply)
{
        struct error e = ERROR_INIT;
        const char *rest;
        char *pool;
        int r;

        if (cli_split(word, &pool, &rest, &e) < 0) {
                json_decref(request);
                cli_fail(&e);
                return e.code;
        }
        cli_put(&request, key, json_string(rest));
        r = cli_call(&(struct cli_call){.pool = pool, .request = request}, ret_reply);
        free(pool);
        return r;
}
