/* test_nbd_image.c - an NBD export as an image, of a server that goes or says nothing. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/be.h"
#include "common/coroutine.h"
#include "formats/nbd.h"
#include "loop_fixture.h"

#define EXPORT_BYTES  (UINT64_C(1) << 20)
#define OPT_GO        7u
#define REP_ACK       1u
#define REP_INFO      3u
#define REP_UNKNOWN   0x80000001u
#define REPLY_MAGIC   UINT64_C(0x3e889045565a9)
#define REQUEST_BYTES 28u
#define SOON_NS       UINT64_C(20000000)
#define LATER_NS      UINT64_C(400000000)

/* What it does once it has greeted. */
enum manner {
        SAYS_NO_MORE,    /* from there on */
        ANSWERS_NOTHING, /* that is asked of the export */
        STOPS_LISTENING, /* the same; and what is sent to it after the first request fails */
};

struct server {
        enum manner manner;
        int fd, peer_fd;
        int told[2]; /* a byte, when it is that far */
        pthread_t thread;
};

static bool receive(int fd, void *data, size_t n)
{
        return n == 0 || recv(fd, data, n, MSG_WAITALL) == (ssize_t)n;
}

static void say(int fd, const void *data, size_t n)
{
        assert_int_equal(send(fd, data, n, MSG_NOSIGNAL), n);
}

static void reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t length)
{
        const struct {
                be64 magic;
                be32 option, type, length;
        } head = {be64_make(REPLY_MAGIC), be32_make(option), be32_make(type), be32_make(length)};

        say(fd, &head, sizeof(head));
        if (length > 0)
                say(fd, data, length);
}

/* Newstyle, without anything that may be left out (proto.md). */
static bool shakes_hands(int fd)
{
        const struct {
                be16 type;
                be64 size;
                be16 flags;
        } about = {be16_make(0), be64_make(EXPORT_BYTES), be16_make(1)};
        uint8_t skipped[256];
        struct {
                be64 magic;
                be32 option, length;
        } asked;

        if (!receive(fd, skipped, sizeof(be32)))
                return false;
        while (receive(fd, &asked, sizeof(asked)) && be32_get(asked.length) <= sizeof(skipped) &&
               receive(fd, skipped, be32_get(asked.length))) {
                if (be32_get(asked.option) != OPT_GO) {
                        reply(fd, be32_get(asked.option), REP_UNKNOWN, NULL, 0);
                        continue;
                }
                reply(fd, OPT_GO, REP_INFO, &about, sizeof(about));
                reply(fd, OPT_GO, REP_ACK, NULL, 0);
                return true;
        }
        return false;
}

static void *serves(void *arg)
{
        struct server *s = arg;
        uint8_t request[REQUEST_BYTES];

        say(s->fd, "NBDMAGICIHAVEOPT\0\3", 18);
        if (s->manner == SAYS_NO_MORE || !shakes_hands(s->fd) ||
            !receive(s->fd, request, sizeof(request)))
                return NULL;
        if (s->manner == STOPS_LISTENING)
                shutdown(s->fd, SHUT_RD);
        say(s->told[1], "x", 1);
        return NULL;
}

static void server_start(struct server *s, enum manner manner)
{
        int ends[2];

        s->manner = manner;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s->told), 0);
        s->fd = ends[0];
        s->peer_fd = ends[1];
        assert_int_equal(pthread_create(&s->thread, NULL, serves, s), 0);
}

static void server_end(struct server *s)
{
        shutdown(s->fd, SHUT_RDWR);
        pthread_join(s->thread, NULL);
        close(s->fd);
        close(s->peer_fd);
        close(s->told[0]);
        close(s->told[1]);
}

/* ---- reading of it ---- */

struct client {
        struct server server;
        struct image *image;
        unsigned n_reading;
        int result;
        struct list opened;
        atomic_bool cancelled;
        struct loop_timer change_of_mind;
};

static void change_mind(struct loop_timer *timer)
{
        container_of(timer, struct client, change_of_mind)->cancelled = true;
}

static void change_mind_soon(struct client *c)
{
        c->change_of_mind.fire = change_mind;
        loop_timer_set(co_loop(), &c->change_of_mind, loop_now_ns(co_loop()) + SOON_NS);
}

static int co_open(struct client *c, struct error *err)
{
        const struct nbd_target target = {.uri = "nbd://export",
                                          .fd = c->server.peer_fd,
                                          .export_name = "",
                                          .cancelled = &c->cancelled,
                                          .opened = &c->opened};

        list_init(&c->opened);

        return co_nbd_open(&target, false, &c->image, err);
}

static void co_read(void *arg)
{
        struct client *c = arg;
        uint8_t buffer[512];

        c->n_reading++;
        c->result = c->image->driver->co_read(c->image, buffer, sizeof(buffer), 0, NULL);
        c->n_reading--;
}

/* ---- tests ---- */

static void co_lose_as_it_is_asked(void *arg)
{
        struct client *c = arg;
        struct loop_io told = {.op = LOOP_POLL, .fd = c->server.told[0], .flags = POLLIN};
        struct error e = ERROR_INIT;
        uint8_t buffer[1];

        assert_int_equal(co_open(c, NULL), 0);
        assert_int_equal(co_spawn(co_loop(), co_read, c), 0);
        assert_int_equal(c->n_reading, 1);
        assert_true(co_io(&told) > 0);
        co_read(c);
        assert_true(c->result < 0);
        assert_true(nbd_is_lost(c->image));
        assert_true(c->image->driver->co_read(c->image, buffer, 1, 4096, &e) < 0);
        assert_non_null(strstr(e.message, "cannot read 'nbd://export' at offset 4096: "));
        while (c->n_reading > 0)
                co_yield_loop();
        assert_true(c->result < 0);
        image_close(c->image);
}

/* With a read under way, whose answer the loop waits for: it may not write to the image that is gone. */
static void an_image_can_be_closed_whose_connection_died_as_it_was_asked(void **state)
{
        struct client c = {0};

        server_start(&c.server, STOPS_LISTENING);
        assert_int_equal(co_run(*state, co_lose_as_it_is_asked, &c), 0);
        server_end(&c.server);
}

static void co_change_mind_while_connecting(void *arg)
{
        struct client *c = arg;
        struct error err = ERROR_INIT;

        change_mind_soon(c);
        assert_int_equal(co_open(c, &err), -ECANCELED);
        assert_string_equal(err.message, "interrupted");
        assert_true(list_empty(&c->opened));
}

static void who_connects_to_a_server_that_is_silent_can_change_his_mind(void **state)
{
        struct client c = {0};

        server_start(&c.server, SAYS_NO_MORE);
        assert_int_equal(co_run(*state, co_change_mind_while_connecting, &c), 0);
        server_end(&c.server);
}

static void co_change_mind_while_reading(void *arg)
{
        struct client *c = arg;

        assert_int_equal(co_open(c, NULL), 0);
        change_mind_soon(c);
        co_read(c);
        assert_int_equal(c->result, -ECANCELED);
        image_close(c->image);
}

static void who_reads_of_a_server_that_is_silent_can_change_his_mind(void **state)
{
        struct client c = {0};

        server_start(&c.server, ANSWERS_NOTHING);
        assert_int_equal(co_run(*state, co_change_mind_while_reading, &c), 0);
        server_end(&c.server);
}

static void co_outlive(void *arg)
{
        struct client *c = arg;

        assert_int_equal(co_open(c, NULL), 0);
        assert_int_equal(co_spawn(co_loop(), co_read, c), 0);
        nbd_outlive(&c->opened);
        c->cancelled = true;
        co_sleep_ns(LATER_NS);
        assert_int_equal(c->n_reading, 1);
        nbd_cut(c->image);
        while (c->n_reading > 0)
                co_yield_loop();
        assert_true(c->result < 0 && c->result != -ECANCELED);
        image_close(c->image);
}

static void an_image_may_outlive_who_opened_it(void **state)
{
        struct client c = {0};

        server_start(&c.server, ANSWERS_NOTHING);
        assert_int_equal(co_run(*state, co_outlive, &c), 0);
        server_end(&c.server);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(an_image_can_be_closed_whose_connection_died_as_it_was_asked),
            loop_test(who_connects_to_a_server_that_is_silent_can_change_his_mind),
            loop_test(who_reads_of_a_server_that_is_silent_can_change_his_mind),
            loop_test(an_image_may_outlive_who_opened_it),
        };

        return run_on_each_backend(tests);
}
