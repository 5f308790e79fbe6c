/* control.c - a machine's control socket: JSON, one object a line, as a pool's server has it
 * (server/control.h), and the console: after its answer the connection is the guest's serial port.
 *
 * Requests are short, carry no descriptors and are answered in order; a client that does not take its
 * answer is hung up on. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "server/control.h"
#include "vm/machine.h"

#define CLIENTS_MAX     32u
#define LINE_MAX_BYTES  8192u
#define SEND_WAIT_NS    (10 * MACHINE_SECOND_NS)
#define ACCEPT_RETRY_NS UINT64_C(100000000)

struct client {
        struct machine *m;
        int fd;
        size_t length;
        char line[LINE_MAX_BYTES];
        /* of the console */
        struct console_reader reader;
        bool hung_up, writing;
};

/* ---- bytes ---- */

/* At the machine's end the last answer still goes, as far as the client's socket takes it. */
static int co_send(struct client *c, const void *data, size_t length)
{
        const char *at = data;

        while (length > 0) {
                ssize_t n = send(c->fd, at, length, MSG_DONTWAIT | MSG_NOSIGNAL);
                int r = 0;

                if (n < 0 && errno == EAGAIN)
                        r = co_machine_poll(c->m, c->fd, POLLOUT, SEND_WAIT_NS);
                else if (n < 0 && errno != EINTR)
                        r = -errno;
                if (r < 0)
                        return r;
                at += n > 0 ? n : 0;
                length -= n > 0 ? (size_t)n : 0;
        }
        return 0;
}

static int co_send_json(struct client *c, json_t *reply)
{
        size_t length;
        char *line = control_line(reply, &length);
        int r;

        if (!line)
                return -ENOMEM;
        r = co_send(c, line, length);
        free(line);
        return r;
}

static int co_send_error(struct client *c, const struct error *e)
{
        json_t *reply = control_error_json(e);
        int r = co_send_json(c, reply);

        json_decref(reply);
        return r;
}

/* 1 with a line, whose length with its end is *ret_used; 0 at the end. */
static int co_read_line(struct client *c, size_t *ret_used)
{
        for (;;) {
                char *end = memchr(c->line, '\n', c->length);
                ssize_t n;
                int r;

                if (end) {
                        *ret_used = (size_t)(end - c->line) + 1;
                        return 1;
                }
                if (c->length == sizeof(c->line))
                        return -E2BIG;
                r = co_machine_poll(c->m, c->fd, POLLIN, 0);
                if (r < 0)
                        return r;
                n = recv(c->fd, c->line + c->length, sizeof(c->line) - c->length, MSG_DONTWAIT);
                if (n == 0)
                        return 0;
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return -errno;
                c->length += n > 0 ? (size_t)n : 0;
        }
}

/* ---- the console ---- */

static void co_console_input(void *client)
{
        struct client *c = client;
        struct machine *m = c->m;
        uint8_t data[1024];
        int r = 0;

        while (r >= 0 && !c->hung_up) {
                ssize_t n;

                r = co_machine_poll(m, c->fd, POLLIN, 0);
                if (r < 0)
                        break;
                n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT);
                if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                        break;
                if (n > 0)
                        r = co_machine_type(m, data, (size_t)n);
        }
        c->hung_up = true;
        c->writing = false;
        co_wake_all(&m->console.more);
        machine_left(m);
}

/* Until either has had enough. The client may be slow: it gets what is new then. */
static void co_console(struct client *c)
{
        struct machine *m = c->m;
        int r = co_send(c, "{\"ok\":true}\n", 12);

        if (r < 0)
                return;
        c->writing = true;
        if (machine_spawn(m, co_console_input, c) < 0)
                return;
        console_open(&m->console, &c->reader);
        while (r == 0 && !c->hung_up) {
                const uint8_t *data;
                size_t n = console_peek(&c->reader, &data);
                uint8_t copy[4096];

                if (n == 0 && m->console.ended)
                        break;
                if (n == 0) {
                        co_wait(&m->console.more);
                        continue;
                }
                n = n < sizeof(copy) ? n : sizeof(copy);
                memcpy(copy, data, n); /* it may be written over while this waits */
                console_take(&c->reader, n);
                r = co_send(c, copy, n);
        }
        console_close(&c->reader);
        shutdown(c->fd, SHUT_RDWR);
        while (c->writing)
                co_wait(&m->console.more);
}

/* ---- requests ---- */

static int co_answer(struct client *c, size_t length)
{
        struct error e = ERROR_INIT;
        json_t *request = NULL, *reply = NULL;
        const char *command;
        int r = 0;

        if (control_is_shallow(c->line, length))
                request = json_loadb(c->line, length, JSON_REJECT_DUPLICATES, NULL);
        command = json_string_value(json_object_get(request, "command"));
        if (!command)
                error_set(&e, -EINVAL, "a request is a JSON object on one line, with a command");
        else if (strcmp(command, "console") == 0)
                co_console(c);
        else
                co_machine_command(c->m, request, &reply, &e);
        if (e.code < 0) {
                r = co_send_error(c, &e);
        } else if (reply) {
                json_object_set_new(reply, "ok", json_true());
                r = co_send_json(c, reply);
        } else {
                r = -EPIPE; /* the console has ended */
        }
        json_decref(reply);
        json_decref(request);
        return r;
}

static void co_client(void *client)
{
        struct client *c = client;
        struct machine *m = c->m;
        size_t used = 0;
        int r = 0;

        while (r == 0 && (r = co_read_line(c, &used)) == 1) {
                r = co_answer(c, used - 1);
                c->length -= used;
                memmove(c->line, c->line + used, c->length);
        }
        if (r == -E2BIG) {
                struct error e = ERROR_INIT;

                error_set(&e, r, "a request has at most %u bytes", LINE_MAX_BYTES);
                co_send_error(c, &e);
        }
        close(c->fd);
        free(c);
        m->n_clients--;
        machine_left(m);
}

static void welcome(struct machine *m, int fd)
{
        struct client *c = m->n_clients < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

        if (!c) {
                close(fd);
                return;
        }
        c->m = m;
        c->fd = fd;
        m->n_clients++;
        if (machine_spawn(m, co_client, c) == 0)
                return;
        m->n_clients--;
        close(fd);
        free(c);
}

void co_machine_control(void *machine)
{
        struct machine *m = machine;

        while (!m->ending) {
                struct loop_io io = {.op = LOOP_ACCEPT, .fd = m->control};
                int fd = co_machine_io(m, &io, 0);

                if (fd >= 0)
                        welcome(m, fd);
                else if (fd != -ECANCELED && fd != -EINTR && fd != -EAGAIN && fd != -ECONNABORTED)
                        co_sleep_ns(ACCEPT_RETRY_NS);
        }
        machine_left(m);
}
