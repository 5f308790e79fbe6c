/* test_events.c - subscriptions on the control socket: order, slow readers, hanging up, stopping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/coroutine.h"
#include "server/control.h"
#include "server/events.h"

struct fixture {
        struct loop *loop;
        struct host host;
        struct host_pool tank, other; /* without an engine: nobody asks it here */
        struct control *control;
        char folder[32], path[64];
        void (*co_test)(struct fixture *f);
};

static void pool_init(struct fixture *f, struct host_pool *hp, const char *name)
{
        *hp = (struct host_pool){.host = &f->host, .loop = f->loop};
        snprintf(hp->name, sizeof(hp->name), "%s", name);
        list_append(&f->host.pools, &hp->link);
}

static void entry(void *arg)
{
        struct fixture *f = arg;
        int fd;

        host_init(&f->host, f->loop);
        pool_init(f, &f->tank, "tank");
        pool_init(f, &f->other, "other");
        assert_int_equal(socket_listen_unix(f->path, (gid_t)-1, &fd, NULL), 0);
        assert_int_equal(control_new(&f->host, fd, &f->control, NULL), 0);
        f->co_test(f);
        co_control_stop(f->control);
        control_free(f->control);
        assert_true(list_empty(&f->host.subscribers));
}

static void run(void (*co_test)(struct fixture *f))
{
        struct fixture f = {.co_test = co_test, .folder = "/tmp/tarn-ev-XXXXXX"};

        assert_non_null(mkdtemp(f.folder));
        snprintf(f.path, sizeof(f.path), "%s/s", f.folder);
        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &f.loop, NULL), 0);
        assert_int_equal(co_run(f.loop, entry, &f), 0);
        loop_free(f.loop);
        unlink(f.path);
        rmdir(f.folder);
}

struct reader {
        int fd;
        size_t start, end;
        char buffer[65536];
};

/* A line, without its end; NULL at the end of the stream. Valid until the next. */
static char *co_line(struct reader *r)
{
        for (;;) {
                char *end = memchr(r->buffer + r->start, '\n', r->end - r->start);
                struct iovec iov;
                struct loop_io io = {.op = LOOP_RECV, .fd = r->fd, .iov = &iov, .n_iov = 1};
                int n;

                if (end) {
                        char *line = r->buffer + r->start;

                        *end = '\0';
                        r->start = (size_t)(end - r->buffer) + 1;
                        return line;
                }
                memmove(r->buffer, r->buffer + r->start, r->end - r->start);
                r->end -= r->start;
                r->start = 0;
                iov = (struct iovec){r->buffer + r->end, sizeof(r->buffer) - r->end};
                n = co_io(&io);
                if (n <= 0)
                        return NULL;
                r->end += (size_t)n;
        }
}

static void co_subscribe(struct fixture *f, struct reader *r, const char *pool)
{
        char request[128];
        int n =
            snprintf(request, sizeof(request), "{\"command\":\"events\",\"pool\":\"%s\"}\n", pool);

        r->start = r->end = 0;
        assert_int_equal(socket_connect_unix(f->path, &r->fd), 0);
        assert_int_equal(send(r->fd, request, (size_t)n, MSG_NOSIGNAL), n);
}

static void co_subscribe_ok(struct fixture *f, struct reader *r, const char *pool)
{
        co_subscribe(f, r, pool);
        assert_string_equal(co_line(r), "{\"ok\":true}");
}

static void emit(struct host_pool *hp, unsigned number)
{
        events_emit(hp, "test", json_pack("{s:i}", "number", (int)number));
}

/* The number of an event of this test; -1: some were lost, *ret_lost more. */
static int number_of(const char *line, unsigned *ret_lost)
{
        json_t *event = line ? json_loads(line, 0, NULL) : NULL;
        const char *name = json_string_value(json_object_get(event, "event"));
        int number = (int)json_integer_value(json_object_get(event, "number"));

        assert_non_null(name);
        if (strcmp(name, "events-lost") == 0) {
                *ret_lost += (unsigned)json_integer_value(json_object_get(event, "count"));
                number = -1;
        } else {
                assert_string_equal(json_string_value(json_object_get(event, "pool")), "tank");
                assert_int_equal(strlen(json_string_value(json_object_get(event, "time"))), 24);
        }
        json_decref(event);
        return number;
}

static struct reader reader, second, idle;

static void co_order(struct fixture *f)
{
        unsigned lost = 0;

        co_subscribe_ok(f, &reader, "tank");
        co_subscribe_ok(f, &second, "tank");
        co_subscribe_ok(f, &idle, "other");
        for (unsigned i = 0; i < 100; i++) {
                emit(&f->other, 1000);
                emit(&f->tank, i);
                if (i % 10 == 0)
                        co_yield_loop();
        }
        for (unsigned i = 0; i < 100; i++) {
                assert_int_equal(number_of(co_line(&reader), &lost), i);
                assert_int_equal(number_of(co_line(&second), &lost), i);
        }
        assert_int_equal(lost, 0);
        assert_non_null(strstr(co_line(&idle), "\"other\""));
        close(reader.fd);
        close(second.fd);
        close(idle.fd);
}

static void each_subscriber_gets_the_events_of_its_pool_in_order(void **state)
{
        run(co_order);
}

static void co_slow(struct fixture *f)
{
        const unsigned n = 30000;
        unsigned lost = 0, got = 0;
        int before = -1;

        co_subscribe_ok(f, &reader, "tank");
        co_subscribe_ok(f, &second, "tank");
        for (unsigned i = 0; i < n; i++) {
                unsigned none = 0;

                emit(&f->tank, i);
                /* who reads is not held up by who does not, and loses nothing */
                assert_int_equal(number_of(co_line(&second), &none), i);
                assert_int_equal(none, 0);
        }
        while (got + lost < n) {
                unsigned gap = 0;
                int number = number_of(co_line(&reader), &gap);

                if (number < 0) {
                        lost += gap;
                        before += (int)gap;
                        continue;
                }
                assert_int_equal(number, before + 1);
                before = number;
                got++;
        }
        assert_int_equal(got + lost, n);
        assert_true(lost > 0 && got >= EVENTS_QUEUE_MAX);
        emit(&f->tank, n);
        assert_int_equal(number_of(co_line(&reader), &lost), n);
        close(reader.fd);
        close(second.fd);
}

static void a_slow_subscriber_is_told_what_it_lost_and_holds_up_nobody(void **state)
{
        run(co_slow);
}

static void co_gone(struct fixture *f)
{
        for (unsigned round = 0; round < 3; round++) {
                co_subscribe_ok(f, &reader, "tank");
                if (round == 1) /* stuck in sending */
                        for (unsigned i = 0; i < 20000; i++) {
                                emit(&f->tank, i);
                                if (i % 100 == 0)
                                        co_yield_loop();
                        }
                if (round == 2)
                        shutdown(reader.fd, SHUT_WR);
                else
                        close(reader.fd);
                for (unsigned i = 0; !list_empty(&f->host.subscribers) && i < 10000; i++)
                        co_sleep_ns(1000000);
                assert_true(list_empty(&f->host.subscribers));
        }
        assert_null(co_line(&reader));
        close(reader.fd);
}

static void hanging_up_ends_a_subscription(void **state)
{
        run(co_gone);
}

static void co_stopped(struct fixture *f)
{
        co_subscribe_ok(f, &reader, "tank");
        co_subscribe_ok(f, &second, "tank");
        co_subscribe_ok(f, &idle, "other");
        for (unsigned i = 0; i < 20000; i++) {
                emit(&f->tank, i);
                if (i % 100 == 0)
                        co_yield_loop();
        }
        /* The fixture stops the server now: one waits for events, and two have stopped reading. */
}

static void stopping_waits_for_no_subscriber(void **state)
{
        run(co_stopped);
        close(idle.fd);
        close(reader.fd);
        close(second.fd);
}

static void co_refused(struct fixture *f)
{
        co_subscribe(f, &reader, "nix");
        assert_non_null(strstr(co_line(&reader), "ENOENT"));
        assert_int_equal(send(reader.fd, "{\"command\":\"events\"}\n", 21, MSG_NOSIGNAL), 21);
        assert_non_null(strstr(co_line(&reader), "ENOENT"));
        close(reader.fd);
}

static void a_pool_that_is_not_there_has_no_events(void **state)
{
        run(co_refused);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(each_subscriber_gets_the_events_of_its_pool_in_order),
            cmocka_unit_test(a_slow_subscriber_is_told_what_it_lost_and_holds_up_nobody),
            cmocka_unit_test(hanging_up_ends_a_subscription),
            cmocka_unit_test(stopping_waits_for_no_subscriber),
            cmocka_unit_test(a_pool_that_is_not_there_has_no_events),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
