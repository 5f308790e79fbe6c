/* events.c - tarn pool events: what happens to a pool, as it happens. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/client.h"
#include "server/session.h"

/* "size=1048576", names as they are; nothing that a terminal would obey. */
static void print_field(const char *key, json_t *value)
{
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

        if (text)
                printf("  %s=%s", key, text);
        free(text);
}

static void print_event(void *arg, json_t *event)
{
        const struct cli_args *args = arg;
        const char *key;
        json_t *value;

        if (args->given & CLI_JSON) {
                json_dumpf(event, stdout, JSON_COMPACT);
        } else {
                printf("%s  %s", cli_text(event, "time"), cli_text(event, "event"));
                json_object_foreach (event, key, value)
                        if (strcmp(key, "time") != 0 && strcmp(key, "event") != 0 &&
                            strcmp(key, "pool") != 0)
                                print_field(key, value);
        }
        printf("\n");
        /* Who reads it from a pipe reads it now, or has gone. */
        if (fflush(stdout) != 0)
                exit(EXIT_FAILURE);
}

int cli_run_events(const struct cli_verb *verb, const struct cli_args *args)
{
        struct client_call call = {.event = print_event, .arg = (void *)args, .signal_fd = -1};
        struct pool_state *state = NULL;
        struct error e = ERROR_INIT;
        json_t *reply;
        int fd, r;

        r = session_resolve(args->words[0], &state, &e);
        if (r < 0)
                return cli_fail(&e);
        r = client_connect(state, &fd, &e);
        if (r == -ENOENT)
                error_hint(&e, "'tarn serve %s' serves it", state->name);
        if (r == 0) {
                call.request = json_pack("{s:s, s:s}", "command", "events", "pool", state->name);
                r = client_run(fd, &call, &reply, &e);
                json_decref(call.request);
                close(fd);
        }
        state_free(state);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}
