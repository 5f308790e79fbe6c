/* client.c - asking a server over its control socket. */
#include "server/client.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/passed_fds.h"
#include "server/session.h"

#define LOOK_HINT "look whether the command took effect before repeating it"

int client_connect(const struct pool_state *state, int *ret_fd, struct error *err)
{
        int r;

        if (!state->server_control)
                return error_set(err, -ENOENT, "pool '%s' is not being served", state->name);
        r = socket_connect_unix(state->server_control, ret_fd);
        if (r == 0 && socket_is_left(*ret_fd, state->server_pid)) {
                close(*ret_fd);
                r = -ECONNREFUSED;
        }
        if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTSOCK || r == -ENOTDIR)
                return error_set(err, -ENOENT, "pool '%s' is not being served", state->name);
        if (r < 0) {
                error_set(err, -EACCES,
                          "pool '%s' is served by process %d, whose control socket '%s' "
                          "cannot be reached: %s",
                          state->name, (int)state->server_pid, state->server_control, strerror(-r));
                if (r == -EACCES)
                        error_hint(err, "run the command as the server's user, or serve with "
                                        "--group");
                return -EACCES;
        }
        return 0;
}

static int send_request(int fd, struct client_call *call, struct error *err)
{
        char *text = json_dumps(call->request, JSON_COMPACT), *at = text;
        size_t left, n_fds = call->n_fds;
        int r = 0;

        if (!text)
                return error_set(err, -EINVAL, "an argument is not UTF-8 text");
        left = strlen(text) + 1;
        text[left - 1] = '\n';
        if (left > CONTROL_LINE_MAX || n_fds > COMMAND_FDS_MAX)
                r = error_set(err, -E2BIG, "there are too many arguments for one command");
        while (r == 0 && left > 0) {
                /* The descriptors go with the first bytes. */
                ssize_t n = passed_fds_send(fd, at, left, call->fds, n_fds, 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        call->not_begun = true;
                        r = error_set(err, -errno, "cannot ask the server: %s", strerror(errno));
                        break;
                }
                at += n;
                left -= (size_t)n;
                n_fds = 0;
        }
        free(text);
        return r;
}

struct received {
        char *data;
        size_t length, room;
};

static int lost(const struct client_call *call, struct error *err)
{
        if (call->event)
                return error_set(err, -ECONNRESET, "the server has ended");
        error_set(err, -ECONNRESET, "the server ended before it answered");
        return error_hint(err, LOOK_HINT);
}

/* What the server has not read when the connection is shut, it does not begin (control.c). */
static int hang_up(int fd, struct error *err)
{
        int unread = 0;

        if (ioctl(fd, SIOCOUTQ, &unread) == 0 && unread > 0) {
                shutdown(fd, SHUT_RDWR);
                if (ioctl(fd, SIOCOUTQ, &unread) == 0 && unread > 0)
                        return error_set(err, -ECANCELED,
                                         "interrupted; the server has not begun, as it does not "
                                         "answer");
                error_set(err, -ECANCELED, "interrupted, just as the server began");
                return error_hint(err, LOOK_HINT);
        }
        signals_default();
        shutdown(fd, SHUT_WR); /* the server sees us hang up, and still can answer */
        return 0;
}

/* Wait for bytes, or for a signal. */
static int receive_more(int fd, struct client_call *call, struct received *in, int *signal_fd,
                        struct error *err)
{
        struct pollfd polls[2] = {{.fd = fd, .events = POLLIN},
                                  {.fd = *signal_fd, .events = POLLIN}};
        ssize_t n;
        int r;

        if (in->length == in->room) {
                size_t room = in->room ? in->room * 2 : 65536;
                char *data = room > CONTROL_REPLY_MAX ? NULL : realloc(in->data, room);

                if (!data)
                        return error_set(err, -ENOMEM, "out of memory for the server's reply");
                in->data = data;
                in->room = room;
        }
        if (poll(polls, 2, -1) < 0 && errno != EINTR)
                return error_set(err, -errno, "cannot wait for the server: %s", strerror(errno));
        if (polls[1].revents) {
                *signal_fd = -1;
                r = hang_up(fd, err);
                if (r < 0)
                        return r;
        }
        if (!polls[0].revents)
                return 0;
        n = recv(fd, in->data + in->length, in->room - in->length, 0);
        if (n < 0 && errno == EINTR)
                return 0;
        /* Unix sockets say this where something was left unread (unix_release_sock() of Linux). */
        if (n < 0 && errno == ECONNRESET)
                call->not_begun = true;
        if (n <= 0)
                return lost(call, err);
        in->length += (size_t)n;
        return 0;
}

/* True where the line was the reply. */
static bool take_line(const struct client_call *call, json_t *line, json_t **ret_reply)
{
        json_t *progress = json_object_get(line, "progress");

        if (call->event && !json_object_get(line, "error")) {
                if (json_object_get(line, "event"))
                        call->event(call->arg, line);
                return false;
        }
        if (!json_is_object(progress)) {
                *ret_reply = json_incref(line);
                return true;
        }
        if (call->progress)
                call->progress(call->arg,
                               (uint64_t)json_integer_value(json_object_get(progress, "done")),
                               (uint64_t)json_integer_value(json_object_get(progress, "total")),
                               json_is_true(json_object_get(progress, "verifying")));
        return false;
}

static int read_reply(int fd, struct client_call *call, json_t **ret_reply, struct error *err)
{
        struct received in = {0};
        int r = 0, signal_fd = call->signal_fd;
        size_t looked = 0;
        bool done = false;

        while (r == 0 && !done) {
                char *end =
                    in.length > looked ? memchr(in.data + looked, '\n', in.length - looked) : NULL;
                json_t *line;
                size_t used;

                if (!end) {
                        looked = in.length;
                        r = receive_more(fd, call, &in, &signal_fd, err);
                        continue;
                }
                used = (size_t)(end - in.data) + 1;
                line = json_loadb(in.data, used - 1, 0, NULL);
                if (line)
                        done = take_line(call, line, ret_reply);
                else
                        r = error_set(err, -EPROTO, "the server's reply is not JSON");
                json_decref(line);
                in.length -= used;
                memmove(in.data, in.data + used, in.length);
                looked = 0;
        }
        free(in.data);
        return r;
}

int client_run(int fd, struct client_call *call, json_t **ret_reply, struct error *err)
{
        json_t *reply = NULL;
        int r;

        r = send_request(fd, call, err);
        if (r == 0)
                r = read_reply(fd, call, &reply, err);
        if (r < 0)
                return r;
        if (json_object_get(reply, "error")) {
                r = control_error_parse(reply, err);
                json_decref(reply);
                return r;
        }
        json_object_del(reply, "ok");
        *ret_reply = reply;
        return 0;
}
