/* image_base_nbd.c - an export of an NBD server as an image that outlives its connections.
 *
 * Reads find a connection, or wait until there is one: as long as the guest may be kept waiting, from when
 * the last one was lost. Then they fail, and are no content; connecting goes on. A new connection counts
 * once it is seen that behind it is what was there before. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/log.h"
#include "formats/nbd.h"
#include "formats/nbd_uri.h"
#include "server/connector.h"
#include "server/image_base_internal.h"

#define SECOND_NS (UINT64_C(1000000000))
/* How long reads wait for a connection, since it was lost: most guests give a disk as long. */
#define READ_WAIT_NS (30 * SECOND_NS)
/* One attempt: a peer that says nothing more is left. */
#define ATTEMPT_NS (15 * SECOND_NS)
/* A server that is asked and says nothing for so long is left, too: it may hang, or its host be gone. */
#define SILENCE_NS    (30 * SECOND_NS)
#define PAUSE_STEPS   20u /* between attempts, each short enough for a stop */
#define PAUSE_STEP_NS (SECOND_NS / PAUSE_STEPS)
#define LOSSES_MAX    5u /* that one read bears */

#define SAMPLE_HEAD_BYTES (UINT64_C(64) << 10)
#define SAMPLE_BYTES      UINT64_C(4096)
#define N_SAMPLES         16u

struct connection {
        struct remote *remote;
        struct image *image;
        unsigned n_users;
        bool lost;
        uint64_t heard_ns; /* it answered last, or was asked first */
        bool listening;    /* the timer is armed: as long as somebody waits, and once more */
        struct loop_timer silence;
};

struct remote {
        struct host *host;
        struct loop *loop;
        struct image *image; /* this one */
        char *export_name;
        uint32_t sample;
        void (*tell)(void *arg, const struct error *problem);
        void *arg;

        struct connection *now; /* NULL: lost */
        uint64_t lost_ns;
        bool connecting, stop;
        bool is_other; /* for good: it is not what it was */
        struct error problem;
        struct co_queue changed; /* there is a connection, or an attempt has failed */
        struct co_queue ended;   /* connecting */
        struct connector_wait wait;
        int fd; /* on which an attempt waits */
        struct loop_timer attempt_end;
};

/* ---- what it is known by ---- */

static int co_sample_at(struct image *image, uint8_t *buffer, uint64_t offset, uint64_t most,
                        uint32_t *crc, struct error *err)
{
        uint64_t left = image->virtual_bytes - offset, n = left < most ? left : most;
        int r = image->driver->co_read(image, buffer, n, offset, err);

        if (r == 0)
                *crc = crc32c(*crc, buffer, n);
        return r;
}

int co_image_sample(struct image *image, uint32_t *ret_crc, struct error *err)
{
        uint64_t size = image->virtual_bytes, step = size / N_SAMPLES;
        uint32_t crc = crc32c(0, &size, sizeof(size));
        uint8_t *buffer = malloc(SAMPLE_HEAD_BYTES);
        int r = 0;

        if (!buffer)
                return error_set(err, -ENOMEM, "out of memory");
        if (size > 0)
                r = co_sample_at(image, buffer, 0, SAMPLE_HEAD_BYTES, &crc, err);
        for (unsigned i = 1; i < N_SAMPLES && r == 0 && step >= SAMPLE_HEAD_BYTES; i++)
                r = co_sample_at(image, buffer, step * i / SAMPLE_BYTES * SAMPLE_BYTES,
                                 SAMPLE_BYTES, &crc, err);
        if (r == 0 && size > SAMPLE_HEAD_BYTES)
                r = co_sample_at(image, buffer, (size - 1) / SAMPLE_BYTES * SAMPLE_BYTES,
                                 SAMPLE_BYTES, &crc, err);
        free(buffer);
        *ret_crc = crc;
        return r;
}

/* ---- connecting ---- */

static void listen_on(struct connection *c)
{
        c->listening = true;
        loop_timer_set(c->remote->loop, &c->silence, c->heard_ns + SILENCE_NS);
}

/* Those who wait find the connection lost, and ask by the next. */
static void silence_ends(struct loop_timer *timer)
{
        struct connection *c = container_of(timer, struct connection, silence);
        uint64_t now_ns = loop_now_ns(c->remote->loop);

        c->listening = false;
        if (c->n_users == 0 || c->lost)
                return;
        if (now_ns < c->heard_ns + SILENCE_NS) {
                listen_on(c);
                return;
        }
        log_warning("'%s' has not answered for %llu s", c->image->path,
                    (unsigned long long)(SILENCE_NS / SECOND_NS));
        nbd_cut(c->image);
}

static struct connection *connection_new(struct remote *m)
{
        struct connection *c = calloc(1, sizeof(*c));

        if (c) {
                c->remote = m;
                c->silence.fire = silence_ends;
        }
        return c;
}

static void connection_close(struct connection *c)
{
        loop_timer_cancel(c->remote->loop, &c->silence);
        image_close(c->image);
        free(c);
}

static void attempt_ends(struct loop_timer *timer)
{
        struct remote *m = container_of(timer, struct remote, attempt_end);

        if (m->wait.fd >= 0)
                shutdown(m->wait.fd, SHUT_RDWR);
        if (m->fd >= 0)
                shutdown(m->fd, SHUT_RDWR);
}

static int co_is_the_same(struct remote *m, struct image *image, struct error *err)
{
        uint32_t sample;
        int r;

        if (image->virtual_bytes != m->image->virtual_bytes) {
                error_set(err, -ESTALE,
                          "'%s', on which volumes stand, has %llu bytes now, and had %llu",
                          m->image->path, (unsigned long long)image->virtual_bytes,
                          (unsigned long long)m->image->virtual_bytes);
        } else {
                r = co_image_sample(image, &sample, err);
                if (r < 0 || sample == m->sample)
                        return r;
                error_set(err, -ESTALE, "'%s', on which volumes stand, has other content now",
                          m->image->path);
        }
        return error_hint(err, "bring it back as it was, and start the server again, or tell where "
                               "it is now ('tarn volume rebase')");
}

static int co_open_connection(struct remote *m, struct connection *c, struct error *err)
{
        const struct nbd_target target = {
            .uri = m->image->path, .fd = m->fd, .export_name = m->export_name};
        int r = co_nbd_open(&target, false, &c->image, err);

        return r == 0 ? co_is_the_same(m, c->image, err) : r;
}

static int co_attempt(struct remote *m, struct error *err)
{
        struct connection *c = connection_new(m);
        int r;

        if (!c)
                return error_set(err, -ENOMEM, "out of memory");
        loop_timer_set(m->loop, &m->attempt_end, loop_now_ns(m->loop) + ATTEMPT_NS);
        r = co_connector_connect(m->host, m->image->path, &m->wait, &m->fd, err);
        if (r == 0) {
                r = co_open_connection(m, c, err);
                close(m->fd);
        }
        m->fd = -1;
        loop_timer_cancel(m->loop, &m->attempt_end);
        if (r < 0)
                connection_close(c);
        else
                m->now = c;
        return r;
}

static void co_connecting(void *arg)
{
        struct remote *m = arg;

        while (!m->stop && !m->now && !m->is_other) {
                struct error e = ERROR_INIT;
                int r = co_attempt(m, &e);

                m->is_other = r == -ESTALE;
                m->problem = e;
                if (!m->stop)
                        m->tell(m->arg, r < 0 ? &e : NULL);
                co_wake_all(&m->changed);
                for (unsigned i = 0; i < PAUSE_STEPS && !m->stop && !m->now && !m->is_other; i++)
                        co_sleep_ns(PAUSE_STEP_NS);
        }
        m->connecting = false;
        co_wake_all(&m->changed);
        co_wake_all(&m->ended);
}

static int start(struct remote *m, struct error *err)
{
        if (m->connecting)
                return 0;
        m->connecting = true;
        if (co_spawn(m->loop, co_connecting, m) == 0)
                return 0;
        m->connecting = false;
        return error_set(err, -ENOMEM, "out of memory");
}

static void lose(struct remote *m, struct connection *c)
{
        if (c->lost)
                return;
        c->lost = true;
        m->now = NULL;
        m->lost_ns = loop_now_ns(m->loop);
        if (m->stop)
                return;
        log_warning("the connection to '%s' is lost", m->image->path);
        (void)start(m, NULL); /* or by who reads next */
}

static int failed_before(const struct remote *m, struct error *err)
{
        if (err)
                *err = m->problem;
        return m->problem.code;
}

/* Someone may be kept waiting by a server, whose guests cannot try again; nobody by a command. */
static int co_find(struct remote *m, struct connection **ret, struct error *err)
{
        bool patient = m->host->connector_fd != CONNECTOR_NONE;

        while (!m->now) {
                int r;

                if (m->stop)
                        return error_set(err, -ECANCELED, "'%s' is not read any more",
                                         m->image->path);
                if (m->problem.code &&
                    (m->is_other || !patient || loop_now_ns(m->loop) - m->lost_ns >= READ_WAIT_NS))
                        return failed_before(m, err);
                r = start(m, err);
                if (r < 0)
                        return r;
                if (!m->now) /* it began at once, and may have ended */
                        co_wait(&m->changed);
        }
        *ret = m->now;
        return 0;
}

/* ---- the image ---- */

static void hold(struct connection *c)
{
        if (c->n_users++ > 0)
                return;
        c->heard_ns = loop_time_ns(c->remote->loop);
        if (!c->listening)
                listen_on(c);
}

/* True where it is to be tried again. */
static bool let_go(struct remote *m, struct connection *c, int result)
{
        bool lost = result < 0 && nbd_is_lost(c->image);

        c->heard_ns = loop_time_ns(m->loop);
        if (lost)
                lose(m, c);
        if (--c->n_users == 0 && c->lost)
                connection_close(c);
        return lost;
}

struct question {
        uint64_t offset;
        void *buffer; /* to be read; NULL: an extent is asked for */
        size_t length;
        struct image_extent *extent;
};

static int co_ask(struct image *image, const struct question *q, struct error *err)
{
        struct remote *m = image->state;
        struct connection *c;
        unsigned n_losses = 0;
        int r;

        do {
                r = co_find(m, &c, err);
                if (r < 0)
                        return r;
                hold(c);
                r = q->buffer
                        ? c->image->driver->co_read(c->image, q->buffer, q->length, q->offset, err)
                        : c->image->driver->co_extent(c->image, q->offset, q->extent, err);
        } while (let_go(m, c, r) && ++n_losses < LOSSES_MAX);
        return r;
}

static int co_remote_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                          struct error *err)
{
        return co_ask(image, &(struct question){offset, .buffer = buffer, .length = length}, err);
}

static int co_remote_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                            struct error *err)
{
        return co_ask(image, &(struct question){offset, .extent = ret_extent}, err);
}

static void remote_close(struct image *image)
{
        struct remote *m = image->state;

        if (!m)
                return;
        if (m->now)
                connection_close(m->now);
        free(m->export_name);
        free(m);
}

static const struct image_driver image_remote = {
    .name = "nbd",
    .description = "export of an NBD server",
    .co_extent = co_remote_extent,
    .co_read = co_remote_read,
    .close = remote_close,
};

bool image_is_remote(const struct image *image)
{
        return image->driver == &image_remote;
}

int remote_image_new(const struct remote_options *o, struct image **ret_image, struct error *err)
{
        struct image *image = calloc(1, sizeof(*image));
        struct remote *m = calloc(1, sizeof(*m));
        int r = 0;

        if (!image || !m || !(image->path = strdup(o->uri)))
                r = error_set(err, -ENOMEM, "out of memory");
        if (r == 0)
                r = nbd_uri_check(o->uri, &m->export_name, err);
        if (r == 0 && o->connection && !(m->now = connection_new(m)))
                r = error_set(err, -ENOMEM, "out of memory");
        if (r < 0) {
                if (image)
                        free(image->path);
                if (m)
                        free(m->export_name);
                free(image);
                free(m);
                return r;
        }
        m->host = o->host;
        m->loop = co_loop();
        m->image = image;
        m->sample = o->sample;
        m->tell = o->tell;
        m->arg = o->arg;
        m->fd = m->wait.fd = -1;
        m->attempt_end.fire = attempt_ends;
        m->lost_ns = loop_now_ns(m->loop);
        co_queue_init(&m->changed);
        co_queue_init(&m->ended);
        if (m->now)
                m->now->image = o->connection;
        image->driver = &image_remote;
        image->fd = -1;
        image->state = m;
        image->virtual_bytes = image->file_bytes = o->size_bytes;
        *ret_image = image;
        return 0;
}

void remote_go(struct image *image)
{
        struct remote *m = image->state;

        if (!m->now && !m->is_other)
                (void)start(m, NULL); /* or by who reads first */
}

int co_remote_check(struct image *image, struct error *err)
{
        struct remote *m = image->state;
        struct connection *c;

        if (m->host->connector_fd == CONNECTOR_NONE)
                return co_find(m, &c, err);
        return !m->now && m->problem.code ? failed_before(m, err) : 0;
}

bool remote_may_come_back(const struct image *image)
{
        const struct remote *m = image->state;

        return !m->is_other && !m->stop;
}

void co_remote_stop(struct image *image)
{
        struct remote *m = image->state;

        m->stop = true;
        attempt_ends(&m->attempt_end);
        if (m->now)
                nbd_cut(m->now->image);
        co_wake_all(&m->changed);
        while (m->connecting)
                co_wait(&m->ended);
}
