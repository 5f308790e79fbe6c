/* handover.c - see handover.h. */
#include "server/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/passed_fds.h"
#include "server/control.h"

#define RECEIVE_SIZE 65536u
/* Between two tries where the kernel has too many descriptors on their way (unix(7),
 * ETOOMANYREFS). */
#define CROWDED_NS       UINT64_C(1000000)
#define CHANNEL_WORD_MAX 16

/* ---- descriptors ---- */

static int fds_add(int **fds, size_t *n, size_t *room, int fd)
{
        if (*n == *room) {
                size_t more = *room ? 2 * *room : 64;
                int *grown =
                    more > HANDOVER_FDS_MAX ? NULL : reallocarray(*fds, more, sizeof(**fds));

                if (!grown) {
                        close(fd);
                        return -ENOMEM;
                }
                *fds = grown;
                *room = more;
        }
        (*fds)[(*n)++] = fd;
        return 0;
}

static void fds_close(int *fds, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        free(fds);
}

int handover_add(struct handover *h, int fd)
{
        int r = fd < 0 ? fd : fds_add(&h->fds, &h->n_fds, &h->room, fd);

        return r < 0 ? r : (int)h->n_fds - 1;
}

int handover_add_dup(struct handover *h, int fd)
{
        int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        return handover_add(h, own < 0 ? -errno : own);
}

int handover_take(struct handover *h, const json_t *number)
{
        json_int_t i = json_is_integer(number) ? json_integer_value(number) : -1;
        int fd;

        if (i < 0 || (size_t)i >= h->n_fds || h->fds[i] < 0)
                return -EBADMSG;
        fd = h->fds[i];
        h->fds[i] = -1;
        return fd;
}

void handover_free(struct handover *h)
{
        json_decref(h->state);
        fds_close(h->fds, h->n_fds);
        *h = HANDOVER_INIT;
}

/* ---- bytes as text ---- */

json_t *hex_json(const void *bytes, size_t n_bytes)
{
        static const char digits[] = "0123456789abcdef";
        const unsigned char *from = bytes;
        char *text = malloc(2 * n_bytes + 1);
        json_t *json;

        if (!text)
                return NULL;
        for (size_t i = 0; i < n_bytes; i++) {
                text[2 * i] = digits[from[i] >> 4];
                text[2 * i + 1] = digits[from[i] & 15];
        }
        json = json_stringn(text, 2 * n_bytes);
        free(text);
        return json;
}

static int digit(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void *hex_bytes(const json_t *text, size_t *ret_n_bytes)
{
        const char *from = json_string_value(text);
        size_t n = json_string_length(text) / 2;
        unsigned char *bytes = from ? malloc(n + 1) : NULL;

        *ret_n_bytes = 0;
        for (size_t i = 0; bytes && i < n; i++) {
                int high = digit(from[2 * i]), low = digit(from[2 * i + 1]);

                if (high < 0 || low < 0) {
                        free(bytes);
                        return NULL;
                }
                bytes[i] = (unsigned char)(high << 4 | low);
        }
        if (bytes)
                *ret_n_bytes = n;
        return bytes;
}

/* ---- the connection ---- */

static void expire(struct loop_timer *timer)
{
        struct channel *c = container_of(timer, struct channel, timer);

        c->expired = true;
        if (c->waiting)
                loop_cancel(c->loop, c->waiting);
}

void channel_init(struct channel *c, struct loop *loop, int fd)
{
        *c = (struct channel){.fd = fd, .loop = loop, .timer.fire = expire};
        list_init(&c->timer.link);
}

void channel_close(struct channel *c)
{
        loop_timer_cancel(c->loop, &c->timer);
        fds_close(c->fds, c->n_fds);
        free(c->data);
        if (c->fd >= 0)
                close(c->fd);
        *c = (struct channel){.fd = -1, .loop = c->loop};
}

void channel_limit(struct channel *c, unsigned ms)
{
        c->expired = false;
        if (ms > 0)
                loop_timer_set(c->loop, &c->timer, loop_now_ns(c->loop) + ms * UINT64_C(1000000));
        else
                loop_timer_cancel(c->loop, &c->timer);
}

void channel_cancel(struct channel *c)
{
        c->cancelled = true;
        if (c->waiting)
                loop_cancel(c->loop, c->waiting);
}

static int co_wait_for(struct channel *c, uint32_t events)
{
        struct loop_io io = {.op = LOOP_POLL, .fd = c->fd, .flags = events};
        int r = 0;

        if (!c->cancelled && !c->expired) {
                c->waiting = &io;
                r = co_io(&io);
                c->waiting = NULL;
        }
        return c->cancelled ? -ECANCELED : c->expired ? -ETIMEDOUT : r == -EINTR ? 0 : r;
}

/* While descriptors are left, each goes with a byte at least: the line is made long enough. */
static int co_send_text(struct channel *c, const char *at, size_t left, const int *fds,
                        size_t n_fds)
{
        int r = 0;

        while (r == 0 && left > 0) {
                size_t n_now = n_fds < COMMAND_FDS_MAX ? n_fds : COMMAND_FDS_MAX;
                /* A byte for those that come later; a line has more bytes than descriptors. */
                size_t some = n_fds > n_now ? 1 : left;
                ssize_t n = passed_fds_send(c->fd, at, some, fds, n_now, MSG_DONTWAIT);

                if (n < 0 && errno == ETOOMANYREFS && !c->cancelled && !c->expired) {
                        co_sleep_ns(CROWDED_NS);
                } else if (n < 0 && errno == EAGAIN) {
                        r = co_wait_for(c, POLLOUT);
                } else if (n < 0 && errno != EINTR) {
                        r = -errno;
                } else if (n > 0) {
                        at += n;
                        left -= (size_t)n;
                        if (n_now > 0)
                                fds += n_now; /* there may be none at all */
                        n_fds -= n_now;
                }
        }
        return r;
}

int co_channel_send(struct channel *c, const json_t *line, const int *fds, size_t n_fds)
{
        size_t length;
        char *text = control_line(line, &length);
        int r = text ? co_send_text(c, text, length, fds, n_fds) : -ENOMEM;

        free(text);
        return r;
}

int co_channel_say(struct channel *c, const char *word)
{
        char line[CHANNEL_WORD_MAX + 16];
        int length = snprintf(line, sizeof(line), "{\"%.*s\":true}\n", CHANNEL_WORD_MAX, word);

        return co_send_text(c, line, (size_t)length, NULL, 0);
}

static int make_room(struct channel *c)
{
        size_t room = c->room ? 2 * c->room : RECEIVE_SIZE;
        char *data;

        if (c->length < c->room)
                return 0;
        data = room > CONTROL_REPLY_MAX ? NULL : realloc(c->data, room);
        if (!data)
                return -ENOMEM;
        c->data = data;
        c->room = room;
        return 0;
}

static int co_receive_some(struct channel *c)
{
        int fds[COMMAND_FDS_MAX];
        int r = make_room(c);

        while (r == 0) {
                struct passed_fds came = {.fds = fds, .max = COMMAND_FDS_MAX};
                ssize_t n =
                    passed_fds_receive(c->fd, c->data + c->length, c->room - c->length, &came);

                if (n == -EAGAIN) {
                        r = co_wait_for(c, POLLIN);
                        continue;
                }
                for (size_t i = 0; i < came.n; i++)
                        if (fds_add(&c->fds, &c->n_fds, &c->fds_room, fds[i]) < 0)
                                r = -ENOMEM;
                if (n <= 0)
                        return n < 0 ? (int)n : -ECONNRESET;
                c->length += (size_t)n;
                return came.dropped ? -EMFILE : r;
        }
        return r;
}

int co_channel_receive(struct channel *c, json_t **ret_line)
{
        size_t looked = 0, used;
        json_t *line;
        char *end;

        while (!(end = c->length > looked ? memchr(c->data + looked, '\n', c->length - looked)
                                          : NULL)) {
                int r;

                looked = c->length;
                r = co_receive_some(c);
                if (r < 0)
                        return r;
        }
        used = (size_t)(end - c->data) + 1;
        line =
            control_is_shallow(c->data, used - 1) ? json_loadb(c->data, used - 1, 0, NULL) : NULL;
        c->length -= used;
        memmove(c->data, c->data + used, c->length);
        if (!json_is_object(line)) {
                json_decref(line);
                return -EBADMSG;
        }
        *ret_line = line;
        return 0;
}

int channel_take_fds(struct channel *c, struct handover *h, size_t n)
{
        if (c->n_fds != n)
                return -EBADMSG;
        h->fds = c->fds;
        h->n_fds = c->n_fds;
        h->room = c->fds_room;
        c->fds = NULL;
        c->n_fds = c->fds_room = 0;
        return 0;
}
