/* vm_stop.c - tarn vm stop: one machine, or all that were to start with the host. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/vm.h"
#include "server/state.h"
#include "vm/vm.h"

#define STOP_WAIT_S_MAX 86400u
#define GONE_LOOKS      1000u

/* 0, or an exit status after a message. */
static int take_timeout(const char *text, json_int_t *ret_seconds)
{
        size_t n = strspn(text, "0123456789");
        struct error e = ERROR_INIT;

        *ret_seconds = (json_int_t)strtoul(text, NULL, 10);
        if (n > 0 && n < 9 && text[n] == '\0' && *ret_seconds <= STOP_WAIT_S_MAX)
                return 0;
        error_set(&e, -EINVAL, "'%s' is no time in seconds: it is a number from 0 to %u", text,
                  STOP_WAIT_S_MAX);
        return cli_fail(&e);
}

void cli_vm_await_end(const char *name)
{
        const struct timespec pause = {.tv_nsec = 10000000};

        for (unsigned i = 0; i < GONE_LOOKS && known_runner(name) > 0; i++)
                nanosleep(&pause, NULL);
}

static int stop(const char *name, const struct cli_args *args, json_int_t seconds)
{
        json_t *request =
            json_pack("{s:s, s:b}", "command", "stop", "force", (int)!!(args->given & CLI_FORCE));
        struct error e = ERROR_INIT;
        json_t *reply = NULL;

        if (args->timeout)
                cli_put(&request, "timeout", json_integer(seconds));
        if (vm_ask(name, request, &reply, &e) < 0)
                return cli_fail(&e);
        cli_vm_await_end(name);
        printf("stopped '%s'%s\n", name,
               json_is_true(json_object_get(reply, "forced")) ? " by force" : "");
        json_decref(reply);
        return EXIT_SUCCESS;
}

/* ---- all ---- */

static bool is_to_stop(const char *name)
{
        struct known *k;
        bool is;

        if (known_runner(name) == 0 || known_open(name, &k, NULL) < 0)
                return false;
        is = k->file->autostart;
        known_free(k);
        return is;
}

/* Each by a process of its own: their guests switch themselves off at the same time, and one that does
 * not takes its own seconds only. */
static int stop_all(const struct cli_args *args, json_int_t seconds)
{
        struct error e = ERROR_INIT;
        int status = EXIT_SUCCESS, r;
        char **names;
        size_t n;

        if (known_names(&names, &n, &e) < 0)
                return cli_fail(&e);
        fflush(NULL);
        for (size_t i = 0; i < n; i++) {
                pid_t pid = is_to_stop(names[i]) ? fork() : 1;

                if (pid == 0)
                        _exit(cli_end(stop(names[i], args, seconds)));
                if (pid < 0) {
                        error_set(&e, -errno, "cannot start a process that stops '%s': %s",
                                  names[i], strerror(errno));
                        status = cli_fail(&e);
                }
        }
        while (wait(&r) > 0 || errno == EINTR)
                if (r != 0)
                        status = EXIT_FAILURE;
        state_names_free(names, n);
        return status;
}

int cli_run_vm_stop(const struct cli_verb *verb, const struct cli_args *args)
{
        bool all = args->given & CLI_AUTOSTART;
        json_int_t seconds = 0;
        struct error e = ERROR_INIT;
        int status = args->timeout ? take_timeout(args->timeout, &seconds) : 0;

        if (status != 0)
                return status;
        if (!all)
                return stop(args->words[0], args, seconds);
        if (args->n_words == 0)
                return stop_all(args, seconds);
        error_set(&e, -EINVAL, "--autostart takes no name");
        error_hint(&e, "'tarn vm stop %s' stops that machine alone", args->words[0]);
        cli_fail(&e);
        return EXIT_USAGE;
}
