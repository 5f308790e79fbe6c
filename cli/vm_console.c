/* vm_console.c - tarn vm console: the serial port of a machine that runs, on this terminal. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/control.h"
#include "vm/terminal.h"
#include "vm/vm.h"

static int send_all(int fd, const void *data, size_t length, bool is_socket)
{
        const char *at = data;

        while (length > 0) {
                ssize_t n = is_socket ? send(fd, at, length, MSG_NOSIGNAL) : write(fd, at, length);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                at += n;
                length -= (size_t)n;
        }
        return 0;
}

/* The answer is one line, and what follows it the console's. */
static int begin(int fd, struct error *err)
{
        static const char request[] = "{\"command\":\"console\"}\n";
        char line[1024];
        size_t n = 0;
        json_t *reply;
        int r = send_all(fd, request, sizeof(request) - 1, true);

        while (r == 0 && n < sizeof(line) && (n == 0 || line[n - 1] != '\n')) {
                ssize_t got = recv(fd, line + n, 1, 0);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        r = -ECONNRESET;
                else
                        n++;
        }
        if (r < 0)
                return error_set(err, r, "the machine's process does not answer: %s", strerror(-r));
        reply = json_loadb(line, n, 0, NULL);
        if (!json_is_true(json_object_get(reply, "ok")))
                r = control_error_parse(reply, err);
        json_decref(reply);
        return r;
}

/* False: leave. */
static bool obey(const char *name, enum terminal_action action)
{
        struct error e = ERROR_INIT;
        const char *command = action == TERMINAL_POWER_BUTTON ? "power-button"
                              : action == TERMINAL_RESET      ? "reset"
                                                              : NULL;

        if (action == TERMINAL_SHOW_HELP)
                fputs(TERMINAL_HELP, stderr);
        if (command && vm_ask(name, json_pack("{s:s}", "command", command), NULL, &e) < 0)
                cli_fail(&e);
        return action != TERMINAL_QUIT;
}

/* 1 to go on, 0 to leave. Where input ends, the rest of the output is still shown. */
static int take_input(const char *name, int fd, struct terminal_keys *keys, bool is_terminal)
{
        uint8_t data[1024];
        ssize_t n = read(STDIN_FILENO, data, sizeof(data));
        size_t at = 0;

        if (n <= 0)
                return n < 0 && errno == EINTR ? 1 : -EPIPE;
        while (at < (size_t)n) {
                size_t kept = (size_t)n - at, used = kept;
                enum terminal_action action = TERMINAL_NONE;

                if (is_terminal)
                        action = terminal_keys_take(keys, data + at, (size_t)n - at, &kept, &used);
                if (send_all(fd, data + at, kept, true) < 0 || !obey(name, action))
                        return 0;
                at += used;
        }
        return 1;
}

static void relay(const char *name, int fd)
{
        bool is_terminal = terminal_raw();
        struct pollfd polls[2] = {{.fd = fd, .events = POLLIN},
                                  {.fd = STDIN_FILENO, .events = POLLIN}};
        struct terminal_keys keys = {0};

        for (;;) {
                char data[4096];
                ssize_t n;

                if (poll(polls, 2, -1) < 0 && errno != EINTR)
                        break;
                if (polls[0].revents) {
                        n = recv(fd, data, sizeof(data), 0);
                        if (n == 0 || (n < 0 && errno != EINTR) ||
                            (n > 0 && send_all(STDOUT_FILENO, data, (size_t)n, false) < 0))
                                break;
                }
                if (polls[1].revents) {
                        int r = take_input(name, fd, &keys, is_terminal);

                        if (r == 0)
                                break;
                        if (r < 0)
                                polls[1].fd = -1;
                }
        }
        terminal_restore();
}

int cli_run_console(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;
        int fd, r = vm_connect(args->words[0], &fd, &e);

        if (r < 0)
                return cli_fail(&e);
        r = begin(fd, &e);
        if (r == 0) {
                if (isatty(STDIN_FILENO))
                        cli_note("the console of '%s'; Ctrl-] q leaves it, Ctrl-] ? says more",
                                 args->words[0]);
                relay(args->words[0], fd);
        }
        close(fd);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}
