/* control.c - the server's end of the control socket: one coroutine a client. */
#include "server/control.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/closer.h"
#include "common/coroutine.h"
#include "common/log.h"
#include "common/passed_fds.h"
#include "server/events.h"

#define RECEIVE_SIZE 16384u
/* After accept() failed for want of descriptors or memory. */
#define ACCEPT_RETRY_NS UINT64_C(100000000)
/* Between two looks whether all commands have ended. */
#define PAUSE_LOOK_NS UINT64_C(1000000)
/* Of a client's requests that have not begun, in the way to the next server: whose half request is
 * longer is told to ask again. It is what front ends wait for, and there may be CONTROL_CLIENTS_MAX. */
#define SAVED_BYTES_MAX (64u << 10)
/* How long the last reply may take to be taken when the server stops. */
#define GIVE_UP_NS UINT64_C(2000000000)

struct control {
        struct host *host;
        int fd;
        struct list clients;
        unsigned n_clients;
        uint64_t n_seen, n_changes;
        bool stopping, accepting;
        bool paused, accept_parked;
        struct loop_io *waiting; /* accept() under way */
        struct loop_timer give_up;
        struct co_queue ended;
        struct co_queue resumed; /* woken when it is paused no more, or stops */
        bool (*takeover)(void *arg, int fd, json_t *request);
        void *takeover_arg;
};

struct client {
        struct list link;
        struct control *control;
        int fd;
        struct loop_io *waiting; /* what co_stop cancels; NULL while none is under way */
        char *line;              /* what was received and not yet used */
        size_t length, room;
        int fds[COMMAND_FDS_MAX];
        size_t n_fds;
        bool parked; /* waits, with what it has received, until the control is paused no more */
        /* To the events of this pool, and it asks for nothing else; empty: to none. And how many it
         * was not told. */
        char subscription[POOL_NAME_MAX + 1];
        uint64_t n_lost;
        /* While a command runs: */
        const char *command; /* NULL: none does */
        struct command_caller caller;
        atomic_bool cancelled;
        struct loop_io hangup;
        bool watching;
        struct co *co;
};

/* They are others', and so is what lies in the sockets' queues. */
static void close_fds(struct client *c)
{
        for (size_t i = 0; i < c->n_fds; i++)
                close_elsewhere(NULL, c->fds[i]);
        c->n_fds = 0;
}

static void client_free(struct client *c)
{
        struct control *control = c->control;

        close_fds(c);
        if (c->fd >= 0) /* not shut down: the next server may have it */
                close_elsewhere(NULL, c->fd);
        free(c->line);
        list_remove(&c->link);
        control->n_clients--;
        free(c);
        co_wake_all(&control->ended);
}

/* ---- pauses ---- */

/* Before anything is read or begun: true once it has waited for the end of a pause. */
static bool co_park(struct client *c)
{
        bool waited = c->control->paused && !c->control->stopping;

        c->parked = waited;
        while (c->control->paused && !c->control->stopping)
                co_wait(&c->control->resumed);
        c->parked = false;
        return waited && !c->control->stopping;
}

/* ---- sending ---- */

static int co_client_io(struct client *c, struct loop_io *io)
{
        int r;

        if ((c->control->stopping || c->control->paused) && io->op == LOOP_POLL)
                return -ECANCELED;
        c->waiting = io;
        r = co_io(io);
        c->waiting = NULL;
        return r;
}

static int co_send_all(struct client *c, const char *data, size_t length)
{
        while (length > 0) {
                struct iovec iov = {(void *)data, length};
                struct loop_io io = {.op = LOOP_SENDMSG, .fd = c->fd, .iov = &iov, .n_iov = 1};
                int n = co_client_io(c, &io);

                if (n == -EINTR || n == -EAGAIN)
                        continue;
                if (n <= 0)
                        return n < 0 ? n : -EPIPE;
                data += n;
                length -= (size_t)n;
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
        r = co_send_all(c, line, length);
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

/* As far as the client takes it. */
static void send_error_at_once(int fd, const struct error *e)
{
        json_t *reply = control_error_json(e);
        size_t length;
        char *line = control_line(reply, &length);

        if (line)
                (void)!send(fd, line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        free(line);
        json_decref(reply);
}

/* Never waits: a client that does not read gets fewer lines. A line this short goes whole or not at
 * all (unix(7): sk_buffs of at least a page). */
static void send_progress(struct command_caller *caller, uint64_t done, uint64_t total,
                          bool verifying)
{
        struct client *c = container_of(caller, struct client, caller);
        char line[128];
        int n = snprintf(line, sizeof(line), "{\"progress\":{\"done\":%llu,\"total\":%llu%s}}\n",
                         (unsigned long long)done, (unsigned long long)total,
                         verifying ? ",\"verifying\":true" : "");
        ssize_t sent = send(c->fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent > 0 && sent < n) {
                shutdown(c->fd, SHUT_RDWR);
                c->cancelled = true;
        }
}

/* ---- receiving ---- */

static int make_room(struct client *c)
{
        size_t room = RECEIVE_SIZE;
        char *line;

        if (c->length < c->room)
                return 0;
        while (room <= c->length)
                room *= 2;
        if (room > CONTROL_LINE_MAX)
                return -E2BIG;
        line = realloc(c->line, room);
        if (!line)
                return -ENOMEM;
        c->line = line;
        c->room = room;
        return 0;
}

/* More bytes, and descriptors; 0 at the end of the stream. */
static ssize_t co_receive(struct client *c)
{
        for (;;) {
                struct loop_io io = {.op = LOOP_POLL, .fd = c->fd, .flags = POLLIN};
                struct passed_fds fds = {.fds = c->fds, .n = c->n_fds, .max = COMMAND_FDS_MAX};
                int r = co_client_io(c, &io);
                ssize_t n;

                if (r == -ECANCELED && co_park(c))
                        continue;
                if (r < 0 && r != -EINTR)
                        return r;
                n = passed_fds_receive(c->fd, c->line + c->length, c->room - c->length, &fds);
                c->n_fds = fds.n;
                if (n != -EAGAIN)
                        return n;
        }
}

/* One line, without its end, NUL in its place; *ret_used is what to drop afterwards. 0 at the end
 * of the stream, 1 with a line. */
static int co_read_line(struct client *c, size_t *ret_used)
{
        size_t looked = 0;

        for (;;) {
                char *end =
                    c->length > looked ? memchr(c->line + looked, '\n', c->length - looked) : NULL;
                ssize_t n;
                int r;

                if (end) {
                        co_park(c);
                        if (c->control->stopping)
                                return -ECANCELED;
                        *end = '\0';
                        *ret_used = (size_t)(end - c->line) + 1;
                        return 1;
                }
                looked = c->length;
                r = make_room(c);
                if (r < 0)
                        return r;
                n = co_receive(c);
                if (n <= 0)
                        return (int)n;
                c->length += (size_t)n;
        }
}

/* ---- commands ---- */

static void hung_up(struct loop_io *io, int result)
{
        struct client *c = container_of(io, struct client, hangup);

        c->watching = false;
        if (result > 0)
                c->cancelled = true;
        if (c->co)
                co_wake(c->co);
}

static void watch_hangup(struct client *c)
{
        c->co = NULL;
        c->watching = true;
        c->hangup =
            (struct loop_io){.op = LOOP_POLL, .fd = c->fd, .flags = POLLRDHUP, .done = hung_up};
        loop_submit(c->control->host->loop, &c->hangup);
}

static void co_unwatch_hangup(struct client *c)
{
        if (!c->watching)
                return;
        c->co = co_self();
        loop_cancel(c->control->host->loop, &c->hangup);
        while (c->watching)
                co_suspend();
        c->co = NULL;
}

/* Closed, or shut both ways: unlike one who only sends no more, he cannot learn what came of it. */
static bool has_gone(const struct client *c)
{
        struct pollfd p = {.fd = c->fd};

        return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static int co_send_events(struct client *c, struct subscriber *s)
{
        int r = 0;

        while (r == 0 && !c->cancelled) {
                char *text = events_next(s);

                if (text) {
                        size_t length = strlen(text);

                        text[length] = '\n'; /* in the place of the NUL */
                        r = co_send_all(c, text, length + 1);
                        free(text);
                        continue;
                }
                if (c->control->paused)
                        break;
                s->co = c->co = co_self();
                co_suspend();
                s->co = c->co = NULL;
        }
        return r;
}

/* Until it ends, or a pause. */
static int co_subscribed(struct client *c, struct host_pool *hp, json_t *reply)
{
        struct subscriber subscriber;
        int r;

        events_subscribe(&subscriber, hp);
        subscriber.n_lost = c->n_lost;
        watch_hangup(c);
        r = reply ? co_send_json(c, reply) : 0;
        if (r == 0)
                r = co_send_events(c, &subscriber);
        co_unwatch_hangup(c);
        c->n_lost = subscriber.n_lost + subscriber.n_lines;
        events_unsubscribe(&subscriber);
        return r;
}

/* Until the client hangs up: it has nothing more to ask on this connection. @reply is NULL where it
 * was told already, by a server before. */
static int co_subscription(struct client *c, const char *pool, json_t *reply)
{
        struct error e = ERROR_INIT;
        struct host_pool *hp;
        int r = host_find(c->control->host, pool, &hp, &e);

        if (r < 0)
                return reply ? co_send_error(c, &e) : r;
        if (pool != c->subscription)
                snprintf(c->subscription, sizeof(c->subscription), "%s", pool);
        r = co_subscribed(c, hp, reply);
        /* After a pause the pool may be another's, or open anew. */
        while (r == 0 && !c->cancelled && co_park(c)) {
                r = host_find(c->control->host, c->subscription, &hp, NULL);
                if (r == 0)
                        r = co_subscribed(c, hp, NULL);
        }
        return r < 0 ? r : -EPIPE;
}

static int co_events(struct client *c, json_t *request)
{
        const char *pool = json_string_value(json_object_get(request, "pool"));
        json_t *reply = json_pack("{s:b}", "ok", true);
        int r = reply ? co_subscription(c, pool ? pool : "", reply) : -ENOMEM;

        json_decref(reply);
        return r;
}

/* Its connection is for the takeover from then on. Not for all who may use the socket: what is
 * handed over is everything that the server has. */
static int co_takeover(struct client *c, json_t *request)
{
        struct error e = ERROR_INIT;
        struct ucred peer;
        socklen_t length = sizeof(peer);

        if (!c->control->takeover)
                error_set(&e, -EOPNOTSUPP, "there is nothing to take over here");
        else if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
                 (peer.uid != 0 && peer.uid != geteuid()))
                error_set(&e, -EPERM, "only the server's own user and root may take it over");
        else if (!c->control->takeover(c->control->takeover_arg, c->fd, request))
                error_set(&e, -EBUSY, "the server is being replaced already");
        if (e.code < 0)
                return co_send_error(c, &e);
        c->fd = -1;
        return -EPIPE;
}

static bool is_command(const json_t *request, const char *name)
{
        const char *command = json_string_value(json_object_get(request, "command"));

        return command && strcmp(command, name) == 0;
}

static int co_run_command(struct client *c, json_t *request)
{
        const bool changes = c->command && !command_is_readonly(c->command);
        struct error e = ERROR_INIT;
        json_t *reply = NULL;
        int r;

        c->caller = (struct command_caller){.progress = send_progress, .cancelled = &c->cancelled};
        c->control->n_changes += changes;
        watch_hangup(c);
        r = co_command_run(c->control->host, request, c->fds, c->n_fds, &c->caller, &reply, &e);
        co_unwatch_hangup(c);
        c->control->n_changes += changes;
        if (r < 0)
                return co_send_error(c, &e);
        json_object_set_new(reply, "ok", json_true());
        r = co_send_json(c, reply);
        json_decref(reply);
        return r;
}

static int co_answer(struct client *c, size_t line_length)
{
        struct error e = ERROR_INIT;
        json_t *request = NULL;
        json_error_t why;
        int r;

        if (has_gone(c))
                return -EPIPE;
        if (control_is_shallow(c->line, line_length))
                request = json_loadb(c->line, line_length, JSON_REJECT_DUPLICATES, &why);
        if (!json_is_object(request)) {
                json_decref(request);
                error_set(&e, -EINVAL, "a request is a JSON object on one line");
                return co_send_error(c, &e);
        }
        c->cancelled = c->control->stopping;
        c->command = json_string_value(json_object_get(request, "command"));
        if (is_command(request, "events"))
                r = co_events(c, request);
        else if (is_command(request, "takeover"))
                r = co_takeover(c, request);
        else
                r = co_run_command(c, request);
        c->command = NULL;
        json_decref(request);
        return r;
}

static void co_client(void *arg)
{
        struct client *c = arg;
        size_t used = 0;
        int r = 0;

        if (c->subscription[0])
                r = co_subscription(c, c->subscription, NULL);
        while (r == 0 && !c->control->stopping && (r = co_read_line(c, &used)) > 0) {
                r = co_answer(c, used - 1);
                close_fds(c);
                if (r < 0)
                        break;
                r = 0;
                c->length -= used;
                memmove(c->line, c->line + used, c->length);
        }
        if (r == -E2BIG) {
                struct error e = ERROR_INIT;

                error_set(&e, r, "a request has at most %u bytes", CONTROL_LINE_MAX);
                co_send_error(c, &e);
        }
        client_free(c);
}

/* ---- accepting ---- */

static void refuse(int fd)
{
        struct error e = ERROR_INIT;

        error_set(&e, -EMFILE, "the server has %u clients on its control socket, its limit",
                  CONTROL_CLIENTS_MAX);
        send_error_at_once(fd, &e);
        close_elsewhere(NULL, fd);
}

static struct client *client_new(struct control *control, int fd)
{
        struct client *c = calloc(1, sizeof(*c));

        if (!c) {
                close(fd);
                return NULL;
        }
        c->control = control;
        c->fd = fd;
        list_append(&control->clients, &c->link);
        control->n_clients++;
        control->n_seen++;
        return c;
}

static void client_start(struct client *c)
{
        if (co_spawn(c->control->host->loop, co_client, c) < 0)
                client_free(c);
}

static void welcome(struct control *control, int fd)
{
        struct client *c;

        if (control->n_clients >= CONTROL_CLIENTS_MAX) {
                refuse(fd);
                return;
        }
        c = client_new(control, fd);
        if (c)
                client_start(c);
}

static void co_accept(void *arg)
{
        struct control *control = arg;

        while (!control->stopping) {
                struct loop_io io = {.op = LOOP_ACCEPT, .fd = control->fd};
                int fd;

                if (control->paused) {
                        control->accept_parked = true;
                        co_wait(&control->resumed);
                        control->accept_parked = false;
                        continue;
                }
                control->waiting = &io;
                fd = co_io(&io);
                control->waiting = NULL;
                if (fd >= 0 && control->stopping)
                        close(fd);
                else if (fd >= 0)
                        welcome(control, fd);
                else if (fd != -ECANCELED && fd != -EINTR && fd != -EAGAIN && fd != -ECONNABORTED)
                        co_sleep_ns(ACCEPT_RETRY_NS);
        }
        control->accepting = false;
        co_wake_all(&control->ended);
}

int control_new(struct host *host, int fd, struct control **ret_control, struct error *err)
{
        struct control *control = calloc(1, sizeof(*control));

        if (control) {
                control->host = host;
                control->fd = fd;
                list_init(&control->clients);
                co_queue_init(&control->ended);
                co_queue_init(&control->resumed);
                control->accepting = true;
        }
        if (!control || co_spawn(host->loop, co_accept, control) < 0) {
                free(control);
                close(fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        *ret_control = control;
        return 0;
}

/* Clients that do not take their last reply. */
static void give_up(struct loop_timer *timer)
{
        struct control *control = container_of(timer, struct control, give_up);

        list_for_each (it, &control->clients) {
                struct client *c = container_of(it, struct client, link);

                if (c->waiting)
                        loop_cancel(control->host->loop, c->waiting);
        }
        loop_timer_set(control->host->loop, timer, loop_now_ns(control->host->loop) + GIVE_UP_NS);
}

void co_control_stop(struct control *control)
{
        struct loop *loop = control->host->loop;

        control->stopping = true;
        co_wake_all(&control->resumed);
        if (control->waiting)
                loop_cancel(loop, control->waiting);
        list_for_each (it, &control->clients) {
                struct client *c = container_of(it, struct client, link);

                c->cancelled = true;
                if (c->co)
                        co_wake(c->co);
                if (c->waiting && c->waiting->op == LOOP_POLL)
                        loop_cancel(loop, c->waiting);
        }
        control->give_up = (struct loop_timer){.fire = give_up};
        loop_timer_set(loop, &control->give_up, loop_now_ns(loop) + GIVE_UP_NS);
        while (control->accepting || !list_empty(&control->clients))
                co_wait(&control->ended);
        loop_timer_cancel(loop, &control->give_up);
}

/* ---- takeover ---- */

void control_on_takeover(struct control *control,
                         bool (*takeover)(void *arg, int fd, json_t *request), void *arg)
{
        control->takeover = takeover;
        control->takeover_arg = arg;
}

int control_fd(const struct control *control)
{
        return control->fd;
}

/* A command that is still running; NULL: none is, and nobody is between two states. */
static const char *still_running(const struct control *control)
{
        if (!control->accept_parked)
                return "accept";
        list_for_each (it, &control->clients) {
                const struct client *c = container_of(it, struct client, link);

                if (!c->parked)
                        return c->command ? c->command : "a request";
        }
        return NULL;
}

/* Who does not take the events that he wanted. */
static void cut_subscribers(struct control *control)
{
        list_for_each (it, &control->clients) {
                struct client *c = container_of(it, struct client, link);

                if (c->subscription[0] && !c->parked && c->waiting)
                        loop_cancel(control->host->loop, c->waiting);
        }
}

int co_control_pause(struct control *control, unsigned wait_ms, struct error *err)
{
        struct loop *loop = control->host->loop;
        uint64_t soon_ns = loop_now_ns(loop) + wait_ms * UINT64_C(500000);
        uint64_t end_ns = loop_now_ns(loop) + wait_ms * UINT64_C(1000000);
        const char *running;

        control->paused = true;
        if (control->waiting)
                loop_cancel(loop, control->waiting);
        list_for_each (it, &control->clients) {
                struct client *c = container_of(it, struct client, link);

                if (c->subscription[0] && c->co)
                        co_wake(c->co);
                if (c->waiting && c->waiting->op == LOOP_POLL)
                        loop_cancel(loop, c->waiting);
        }
        while ((running = still_running(control)) && loop_now_ns(loop) < end_ns) {
                co_sleep_ns(PAUSE_LOOK_NS);
                if (loop_now_ns(loop) > soon_ns)
                        cut_subscribers(control);
        }
        if (!running)
                return 0;
        error_set(err, -EBUSY, "the server is busy with '%.64s'", running);
        error_hint(err, "try again once that has ended");
        control_resume(control);
        return -EBUSY;
}

void control_resume(struct control *control)
{
        control->paused = false;
        co_wake_all(&control->resumed);
}

/* Nothing of it has begun. It is told so, and that the connection ends also where this server goes
 * on. */
static void turn_away(const struct client *c)
{
        struct error e = ERROR_INIT;

        error_set(&e, -EAGAIN, "another server takes over in the middle of this long request");
        error_hint(&e, "ask again");
        send_error_at_once(c->fd, &e);
        shutdown(c->fd, SHUT_RDWR);
}

static int save_client(const struct client *c, struct handover *h, json_t *clients)
{
        int fd = handover_add_dup(h, c->fd), r = fd < 0 ? fd : 0;
        json_t *fds = json_array(), *json;

        for (size_t i = 0; r == 0 && i < c->n_fds; i++) {
                int number = handover_add_dup(h, c->fds[i]);

                if (number < 0)
                        r = number;
                else
                        r = json_array_append_new(fds, json_integer(number)) < 0 ? -ENOMEM : 0;
        }
        if (r < 0) {
                json_decref(fds);
                return r;
        }
        /* A subscriber has asked for all that it will; what follows its request is left with it. */
        json = json_pack("{s:i, s:o, s:o, s:s, s:I}", "fd", fd, "received",
                         hex_json(c->line, c->subscription[0] ? 0 : c->length), "fds", fds,
                         "subscription", c->subscription, "lost", (json_int_t)c->n_lost);
        return json_array_append_new(clients, json) < 0 ? -ENOMEM : 0;
}

int control_save(const struct control *control, struct handover *h, json_t **ret_clients)
{
        json_t *clients = json_array();
        int r = clients ? 0 : -ENOMEM;

        list_for_each (it, &control->clients) {
                const struct client *c = container_of(it, struct client, link);

                if (r == 0 && !c->subscription[0] && c->length > SAVED_BYTES_MAX)
                        turn_away(c);
                else if (r == 0)
                        r = save_client(c, h, clients);
        }
        if (r < 0)
                json_decref(clients);
        else
                *ret_clients = clients;
        return r;
}

static void restore_client(struct control *control, struct handover *h, const json_t *saved)
{
        const char *pool = json_string_value(json_object_get(saved, "subscription"));
        const json_t *fds = json_object_get(saved, "fds");
        int fd = handover_take(h, json_object_get(saved, "fd"));
        struct client *c = fd < 0 ? NULL : client_new(control, fd);

        if (!c)
                return;
        c->line = hex_bytes(json_object_get(saved, "received"), &c->length);
        c->room = c->length; /* grows when more comes */
        if (!c->line) {
                client_free(c);
                return;
        }
        snprintf(c->subscription, sizeof(c->subscription), "%s", pool ? pool : "");
        c->n_lost = (uint64_t)json_integer_value(json_object_get(saved, "lost"));
        for (size_t i = 0; i < json_array_size(fds) && i < COMMAND_FDS_MAX; i++) {
                fd = handover_take(h, json_array_get(fds, i));
                if (fd >= 0)
                        c->fds[c->n_fds++] = fd;
        }
        client_start(c);
}

void control_restore(struct control *control, struct handover *h, const json_t *clients)
{
        for (size_t i = 0; i < json_array_size(clients); i++)
                restore_client(control, h, json_array_get(clients, i));
}

unsigned control_n_clients(const struct control *control)
{
        return control->n_clients;
}

uint64_t control_n_seen(const struct control *control)
{
        return control->n_seen;
}

uint64_t control_n_changes(const struct control *control)
{
        return control->n_changes;
}

void control_free(struct control *control)
{
        if (!control)
                return;
        close(control->fd);
        free(control);
}
