#include "tests/bench/session.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "tests/bench/conn.h"
#include "tests/bench/measure.h"
#include "tests/bench/nbd_wire.h"
#include "tests/bench/stamp.h"

#define NOISE_BYTES  (256u << 10) /* payloads start anywhere in it */
#define POLL_WAIT_MS 60000

/* The caller's words of a request. */
enum { SENT_NS, FLUSH_TICKET };

struct station {
        struct session *session;
        struct link link;
        struct conn *conn;
        uint8_t *buffers; /* depth blocks, when contents matter */
        bool has_held;    /* an operation that could not be begun yet */
        bool held_is_read;
        uint64_t held_block;
        unsigned writes_since_flush, writes_in_flight;
        bool flush_in_flight;
};

struct session {
        const struct session_options *options;
        struct plan plan;
        struct stamp_book *book;
        uint8_t *noise;
        struct station *stations;
        unsigned n_stations;

        uint64_t start_ns, measure_ns, end_ns, now_ns, last_done_ns;
        uint64_t client_cpu_ns, server_cpu_ns; /* at the start of the measurement */
        bool measuring, measured, stopping;
        bool time_is_old; /* something was received since now_ns was read */
        struct load_result *result;
        int failure;
        struct error *err;
};

static void begin_measuring(struct session *s)
{
        s->measuring = true;
        s->measure_ns = s->now_ns;
        s->client_cpu_ns = measure_own_cpu_ns();
        s->server_cpu_ns = measure_cpu_ns(s->options->load.server_pid);
}

static void end_measuring(struct session *s, uint64_t at_ns)
{
        s->measuring = false;
        s->measured = true;
        s->result->elapsed_ns = at_ns - s->measure_ns;
        s->result->client_cpu_ns = measure_own_cpu_ns() - s->client_cpu_ns;
        s->result->server_cpu_ns = measure_cpu_ns(s->options->load.server_pid) - s->server_cpu_ns;
}

static void tell_time(struct session *s)
{
        s->now_ns = measure_clock_ns();
        s->time_is_old = false;
        if (!s->measuring && !s->measured && s->now_ns >= s->start_ns + s->options->load.warmup_ns)
                begin_measuring(s);
        if (s->options->load.run_ns && s->now_ns >= s->end_ns) {
                s->stopping = true;
                if (s->measuring)
                        end_measuring(s, s->now_ns);
        }
}

static void count(struct session *s, const struct request *r)
{
        struct load_result *result = s->result;
        uint64_t duration_ns = s->now_ns - r->user[SENT_NS];

        if (!s->measuring)
                return;
        s->last_done_ns = s->now_ns;
        if (r->command == NBD_CMD_FLUSH) {
                result->flushes++;
                latency_add(&result->flush_latency, duration_ns);
                return;
        }
        if (r->command == NBD_CMD_READ)
                result->reads++;
        else
                result->writes++;
        result->bytes += r->length;
        latency_add(&result->latency, duration_ns);
}

static void fail(struct session *s, int code)
{
        if (s->failure == 0)
                s->failure = code;
}

static void finish_contents(struct session *s, const struct request *r)
{
        int result = 0;

        if (r->command == NBD_CMD_READ) {
                if (r->received != r->length) {
                        fail(s, error_set(s->err, -EPROTO,
                                          "the server answers a read of %u bytes with %u",
                                          r->length, r->received));
                        return;
                }
                s->result->checked_bytes += r->length;
                result = stamp_end_read(s->book, r->offset, r->length, r->data,
                                        load_since(&s->options->load), s->err);
        } else if (r->command == NBD_CMD_WRITE) {
                result =
                    stamp_end_write(s->book, r->offset, r->length, r->flags & NBD_CMD_FLAG_FUA);
                if (result < 0)
                        error_set(s->err, result, "out of memory for the stamps");
        } else
                stamp_flushed(s->book, r->user[FLUSH_TICKET]);
        if (result < 0)
                fail(s, result);
}

static void on_done(void *arg, struct request *r)
{
        struct station *st = arg;

        if (st->session->time_is_old) /* once for all answers of one receive */
                tell_time(st->session);
        count(st->session, r);
        if (st->session->book)
                finish_contents(st->session, r);
        if (r->command == NBD_CMD_WRITE)
                st->writes_in_flight--;
        if (r->command == NBD_CMD_FLUSH) {
                st->flush_in_flight = false;
                st->session->result->all_flushes++;
        }
}

static void queue_flush(struct station *st, struct request *r)
{
        r->command = NBD_CMD_FLUSH;
        r->user[SENT_NS] = st->session->now_ns;
        if (st->session->book)
                r->user[FLUSH_TICKET] = stamp_flush_ticket(st->session->book);
        st->flush_in_flight = true;
        st->writes_since_flush = 0;
        conn_queue(st->conn, r);
}

/* Contents that nobody checks: anything that does not compress, at no cost. */
static const void *noise_at(struct session *s)
{
        return s->noise + plan_random(&s->plan) % NOISE_BYTES / 64 * 64;
}

static void queue_transfer(struct station *st, struct request *r, uint64_t block, bool is_read)
{
        struct session *s = st->session;
        const struct session_options *o = s->options;
        uint8_t *buffer = NULL;

        r->command = is_read ? NBD_CMD_READ : NBD_CMD_WRITE;
        r->flags = !is_read && o->fua ? NBD_CMD_FLAG_FUA : 0;
        r->offset = o->load.range_offset + block * o->load.block_bytes;
        r->length = o->load.block_bytes;
        r->user[SENT_NS] = s->now_ns;
        if (s->book)
                buffer = st->buffers + conn_index(st->conn, r) * (size_t)o->load.block_bytes;
        if (is_read) {
                r->data = buffer;
                if (s->book)
                        stamp_begin_read(s->book, r->offset, r->length);
        } else {
                r->payload = s->book ? buffer : noise_at(s);
                if (s->book)
                        stamp_begin_write(s->book, r->offset, r->length, buffer);
                st->writes_in_flight++;
                st->writes_since_flush++;
        }
        conn_queue(st->conn, r);
}

/* What comes next on this connection, which may have been held back before. False at the end. */
static bool next_operation(struct station *st, uint64_t *ret_block, bool *ret_is_read)
{
        if (!st->has_held) {
                if (!plan_next(&st->session->plan, &st->held_block, &st->held_is_read)) {
                        st->session->result->plan_ended = true;
                        return false;
                }
                st->has_held = true;
        }
        *ret_block = st->held_block;
        *ret_is_read = st->held_is_read;
        return true;
}

static void fill_queue(struct station *st)
{
        struct session *s = st->session;
        const struct session_options *o = s->options;
        struct request *r;
        uint64_t block;
        bool is_read;

        while (!s->stopping && (r = conn_begin(st->conn))) {
                if (o->load.only_flushes) {
                        queue_flush(st, r);
                        continue;
                }
                bool flush_due =
                    o->load.flush_every && st->writes_since_flush >= o->load.flush_every;
                if (flush_due && st->writes_in_flight == 0) {
                        queue_flush(st, r);
                        continue;
                }
                if (!next_operation(st, &block, &is_read))
                        return;
                if (!is_read && (flush_due || (o->load.flush_every && st->flush_in_flight)))
                        return;
                if (s->book &&
                    stamp_is_busy(s->book, o->load.range_offset + block * o->load.block_bytes,
                                  o->load.block_bytes))
                        return;
                st->has_held = false;
                queue_transfer(st, r, block, is_read);
        }
}

static int wait_any(struct session *s)
{
        struct pollfd fds[SESSION_CONNECTIONS_MAX];

        for (unsigned i = 0; i < s->n_stations; i++)
                fds[i] = (struct pollfd){
                    .fd = conn_fd(s->stations[i].conn),
                    .events =
                        (short)(POLLIN | (conn_wants_send(s->stations[i].conn) ? POLLOUT : 0))};
        int n = poll(fds, s->n_stations, POLL_WAIT_MS);
        if (n == 0)
                return error_set(s->err, -ETIMEDOUT, "the server has not answered for %d seconds",
                                 POLL_WAIT_MS / 1000);
        for (unsigned i = 0; i < s->n_stations && n > 0; i++) {
                if (!(fds[i].revents & (POLLIN | POLLHUP | POLLERR)))
                        continue;
                s->time_is_old = true;
                int r = conn_receive(s->stations[i].conn, false, s->err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* One turn: fill and send, then take what has come. */
static int turn(struct session *s, unsigned *ret_in_flight)
{
        unsigned in_flight = 0;
        int r;

        for (unsigned i = 0; i < s->n_stations; i++) {
                struct conn *c = s->stations[i].conn;
                fill_queue(&s->stations[i]);
                r = conn_send(c, s->err);
                if (r < 0)
                        return r;
                in_flight += conn_in_flight(c);
        }
        *ret_in_flight = in_flight;
        if (in_flight == 0)
                return 0;
        if (s->n_stations == 1 && !conn_wants_send(s->stations[0].conn)) {
                s->time_is_old = true;
                r = conn_receive(s->stations[0].conn, true, s->err);
        } else
                r = wait_any(s);
        return r < 0 ? r : s->failure;
}

static int drive(struct session *s)
{
        unsigned in_flight;
        int r;

        s->start_ns = measure_clock_ns();
        s->end_ns = s->start_ns + s->options->load.warmup_ns + s->options->load.run_ns;
        tell_time(s);
        do
                r = turn(s, &in_flight);
        while (r == 0 && in_flight > 0);
        if (r < 0)
                return r;
        if (s->measuring)
                end_measuring(s, s->last_done_ns ? s->last_done_ns : s->now_ns);
        if (!s->options->load.end_flush)
                return 0;
        s->stopping = true;
        queue_flush(&s->stations[0], conn_begin(s->stations[0].conn));
        do
                r = turn(s, &in_flight);
        while (r == 0 && in_flight > 0);
        return r;
}

static int check_export(const struct session_options *o, const struct link *l, struct error *err)
{
        bool writes = o->load.read_percent < 100 && !o->load.only_flushes;

        if (writes && (l->flags & NBD_FLAG_READ_ONLY))
                return error_set(err, -EROFS, "the export is read-only");
        if ((o->load.flush_every || o->load.end_flush || o->load.only_flushes) &&
            !(l->flags & NBD_FLAG_SEND_FLUSH))
                return error_set(err, -ENOTSUP, "the export offers no flush");
        if (o->fua && !(l->flags & NBD_FLAG_SEND_FUA))
                return error_set(err, -ENOTSUP, "the export offers no FUA");
        if (o->connections > 1 && writes && !(l->flags & NBD_FLAG_CAN_MULTI_CONN))
                return error_set(err, -ENOTSUP,
                                 "the export does not promise that several connections see the "
                                 "same data");
        return 0;
}

static int open_stations(struct session *s, const struct session_options *o, struct error *err)
{
        s->stations = calloc(o->connections, sizeof(*s->stations));
        if (!s->stations)
                return error_set(err, -ENOMEM, "out of memory for %u connections", o->connections);
        for (unsigned i = 0; i < o->connections; i++)
                s->stations[i].link.fd = -1;
        s->n_stations = o->connections;
        for (unsigned i = 0; i < o->connections; i++) {
                struct station *st = &s->stations[i];
                st->session = s;
                int r = link_open(&o->target, o->structured, &st->link, err);
                if (r == 0)
                        r = check_export(o, &st->link, err);
                if (r == 0)
                        r = conn_new(&st->link, o->load.depth, on_done, st, &st->conn, err);
                if (r < 0)
                        return r;
                st->buffers =
                    o->load.verify ? malloc((size_t)o->load.depth * o->load.block_bytes) : NULL;
                if (o->load.verify && !st->buffers)
                        return error_set(err, -ENOMEM, "out of memory for the queue's buffers");
        }
        return 0;
}

static int make_contents(struct session *s, const struct session_options *o, struct error *err)
{
        size_t noise_bytes = NOISE_BYTES + (size_t)o->load.block_bytes;

        if (o->load.verify)
                return stamp_open(o->load.stamps_path, o->load.range_offset, o->load.range_bytes,
                                  o->load.block_bytes < STAMP_UNIT_MAX ? o->load.block_bytes
                                                                       : STAMP_UNIT_MAX,
                                  o->load.seed, &s->book, err);
        s->noise = malloc(noise_bytes);
        if (!s->noise)
                return error_set(err, -ENOMEM, "out of memory for what to write");
        struct plan random;
        struct plan_options any = {.n_blocks = 1, .seed = o->load.seed};
        plan_init(&random, &any);
        for (size_t i = 0; i + 8 <= noise_bytes; i += 8) {
                uint64_t word = plan_random(&random);
                memcpy(s->noise + i, &word, sizeof(word));
        }
        return 0;
}

int session_run(const struct session_options *options, struct load_result *ret_result,
                struct error *err)
{
        struct session_options o = *options;
        struct session s = {.options = &o, .result = ret_result, .err = err};

        assert(o.connections > 0 && o.connections <= SESSION_CONNECTIONS_MAX);
        memset(ret_result, 0, sizeof(*ret_result));
        int r = open_stations(&s, &o, err);
        if (r == 0)
                r = load_plan_range(&o.load, s.stations[0].link.size_bytes, &s.plan, err);
        if (r == 0)
                r = make_contents(&s, &o, err);
        if (r == 0)
                r = drive(&s);
        for (unsigned i = 0; i < s.n_stations; i++) {
                conn_free(s.stations[i].conn);
                link_close(&s.stations[i].link);
                free(s.stations[i].buffers);
        }
        free(s.stations);
        free(s.noise);
        stamp_close(s.book);
        return r;
}
