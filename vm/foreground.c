/* foreground.c - a machine whose console is standard input and output. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "vm/machine.h"
#include "vm/terminal.h"

static void said(struct machine *m, int result, const struct error *e)
{
        if (result < 0)
                log_warning("%s", e->message);
        machine_left(m);
}

static void co_press(void *machine)
{
        struct error e = ERROR_INIT;

        said(machine, co_machine_say(machine, CHANNEL_POWER_BUTTON, &e), &e);
}

static void co_reset(void *machine)
{
        struct error e = ERROR_INIT;

        said(machine, co_machine_turn(machine, CHANNEL_RESET, &e), &e);
}

/* Nothing here waits for the VMM, so that a machine that hangs can still be quit. */
static void obey(struct machine *m, enum terminal_action action)
{
        int r = 0;

        switch (action) {
        case TERMINAL_QUIT:
                m->quit = true;
                co_wake_all(&m->changed);
                break;
        case TERMINAL_POWER_BUTTON:
                r = machine_spawn(m, co_press, m);
                break;
        case TERMINAL_RESET:
                r = machine_spawn(m, co_reset, m);
                break;
        case TERMINAL_SHOW_HELP:
                fputs(TERMINAL_HELP, stderr);
                break;
        case TERMINAL_NONE:
                break;
        }
        if (r < 0)
                log_warning("out of memory");
}

/* Where input ends, nothing more is typed; the machine goes on. */
static void co_input(void *machine)
{
        struct machine *m = machine;
        struct terminal_keys keys = {0};
        bool is_terminal = isatty(STDIN_FILENO);
        uint8_t data[1024];
        ssize_t n;

        while (co_machine_poll(m, STDIN_FILENO, POLLIN, 0) >= 0) {
                size_t at = 0;

                n = read(STDIN_FILENO, data, sizeof(data));
                if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
                        break;
                while (n > 0 && at < (size_t)n) {
                        size_t kept = (size_t)n - at, used = kept;
                        enum terminal_action action = TERMINAL_NONE;

                        if (is_terminal)
                                action = terminal_keys_take(&keys, data + at, (size_t)n - at, &kept,
                                                            &used);
                        if (kept > 0 && co_machine_type(m, data + at, kept) < 0)
                                break;
                        obey(m, action);
                        at += used;
                }
        }
        machine_left(m);
}

/* The guest's serial port waits for who reads this: nothing is lost in a pipe. */
static void co_output(void *machine)
{
        struct machine *m = machine;
        struct console_reader reader = {.waited_for = true};

        console_open(&m->console, &reader);
        for (;;) {
                const uint8_t *data;
                size_t n = console_peek(&reader, &data);
                ssize_t written;

                if (n == 0 && m->console.ended)
                        break;
                if (n == 0) {
                        co_wait(&m->console.more);
                        continue;
                }
                if (!m->ending && co_machine_poll(m, STDOUT_FILENO, POLLOUT, 0) < 0 && !m->ending)
                        break;
                written = write(STDOUT_FILENO, data, n < PIPE_BUF ? n : PIPE_BUF);
                if (written < 0 && errno != EINTR && errno != EAGAIN)
                        break;
                if (written < 0 && errno == EAGAIN && m->ending)
                        break;
                console_take(&reader, written > 0 ? (size_t)written : 0);
        }
        console_close(&reader);
        machine_left(m);
}

int machine_terminal_start(struct machine *m, struct error *err)
{
        terminal_raw();
        if (machine_spawn(m, co_output, m) < 0 || machine_spawn(m, co_input, m) < 0)
                return error_set(err, -ENOMEM, "out of memory");
        return 0;
}
