/* fixture.c - see fixture.h. */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "common/coroutine.h"
#include "common/log.h"
#include "common/loop_thread.h"
#include "common/sanitizers.h"
#include "tests/protocol/fake_exports.h"
#include "tests/protocol/fixture.h"
#include "tests/protocol/loop_call.h"

#define WAIT_MS 30000u

struct fixture {
        struct loop_thread *thread;
        struct nbd_server *server;
        struct fake_exports exports;
        char folder[64], path[96];
        unsigned port;
        unsigned stop_timeout_ms;
        bool stop_begun, stopped, leaving;
        sem_t stop_done;
};

/* ---- the thread ---- */

void fixture_run(struct fixture *fixture, void (*f)(void *arg), void *arg)
{
        loop_call(fixture_loop(fixture), f, arg);
}

void fixture_run_co(struct fixture *fixture, void (*co_f)(void *arg), void *arg)
{
        loop_call_co(fixture_loop(fixture), co_f, arg);
}

/* ---- start ---- */

static int listen_unix(struct fixture *f)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert(fd >= 0);
        snprintf(f->folder, sizeof(f->folder), "/tmp/tarn-nbd-XXXXXX");
        if (!mkdtemp(f->folder))
                abort();
        snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
        int r = bind(fd, (struct sockaddr *)&address, sizeof(address));
        assert(r == 0);
        r = listen(fd, 128);
        assert(r == 0);
        return fd;
}

static int listen_tcp(struct fixture *f)
{
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert(fd >= 0);
        int r = bind(fd, (struct sockaddr *)&address, sizeof(address));
        assert(r == 0);
        r = listen(fd, 128);
        assert(r == 0);
        r = getsockname(fd, (struct sockaddr *)&address, &length);
        assert(r == 0);
        f->port = ntohs(address.sin_port);
        return fd;
}

static void quiet(enum log_level level, const char *message)
{
}

struct start {
        struct fixture *fixture;
        const struct nbd_server_options *options;
};

static void start_server(void *arg)
{
        const struct start *start = arg;
        struct fixture *f = start->fixture;
        const struct nbd_exports exports = fake_exports_calls(&f->exports);
        struct error err = ERROR_INIT;
        int r = nbd_server_new(fixture_loop(f), start->options, &exports, &f->server, &err);

        assert(r == 0);
        r = nbd_server_listen(f->server, listen_unix(f), &err);
        assert(r == 0);
        r = nbd_server_listen(f->server, listen_tcp(f), &err);
        assert(r == 0);
}

struct fixture *fixture_start(const struct nbd_server_options *options)
{
        struct fixture *f = calloc(1, sizeof(*f));

        assert(f);
        if (!getenv("TARN_TEST_VERBOSE"))
                log_set_sink(quiet);
        else
                log_set_level(LOG_LEVEL_DEBUG);
        sem_init(&f->stop_done, 0, 0);
        int r = loop_thread_start("nbd", &f->thread, NULL);
        assert(r == 0);
        struct loop *engine = options && options->n_loops > 0 ? options->loops[0] : fixture_loop(f);
        f->exports.volume = fake_volume_new(engine, VOL_BYTES);
        f->exports.snapshot = fake_volume_new(engine, VOL_BYTES);
        f->exports.big = fake_volume_new(engine, BIG_BYTES);
        f->exports.description = FIXTURE_DESCRIPTION;
        loop_call(fixture_loop(f), start_server, &(struct start){f, options});
        return f;
}

/* ---- stop ---- */

static void co_stop(void *arg)
{
        struct fixture *f = arg;

        if (f->leaving)
                co_nbd_server_leave(f->server, f->stop_timeout_ms);
        else
                co_nbd_server_stop(f->server, f->stop_timeout_ms);
        sem_post(&f->stop_done);
}

static void spawn_stop(void *arg)
{
        struct fixture *f = arg;
        int r = co_spawn(fixture_loop(f), co_stop, f);

        assert(r == 0);
}

void fixture_begin_stop(struct fixture *fixture, unsigned timeout_ms)
{
        fixture->stop_timeout_ms = timeout_ms;
        fixture->stop_begun = true;
        fixture_run(fixture, spawn_stop, fixture);
}

void fixture_begin_leave(struct fixture *fixture, unsigned timeout_ms)
{
        fixture->leaving = true;
        fixture_begin_stop(fixture, timeout_ms);
}

void fixture_wait_stopped(struct fixture *fixture)
{
        while (sem_wait(&fixture->stop_done) < 0 && errno == EINTR)
                ;
        fixture->stopped = true;
}

static void free_server(void *arg)
{
        nbd_server_free(((struct fixture *)arg)->server);
}

void fixture_stop(struct fixture *fixture, unsigned timeout_ms)
{
        if (!fixture->stop_begun)
                fixture_begin_stop(fixture, timeout_ms);
        if (!fixture->stopped)
                fixture_wait_stopped(fixture);
        assert(fixture->exports.n_open == 0 && fixture->exports.n_held == 0);
        fixture_run(fixture, free_server, fixture);
        loop_thread_stop(fixture->thread);
        fake_volume_free(fixture->exports.volume);
        fake_volume_free(fixture->exports.snapshot);
        fake_volume_free(fixture->exports.big);
        unlink(fixture->path);
        rmdir(fixture->folder);
        sem_destroy(&fixture->stop_done);
        free(fixture);
}

/* ---- looking at it ---- */

const char *fixture_path(const struct fixture *fixture)
{
        return fixture->path;
}

unsigned fixture_port(const struct fixture *fixture)
{
        return fixture->port;
}

struct volume *fixture_volume(struct fixture *fixture)
{
        return fixture->exports.volume;
}

struct volume *fixture_snapshot(struct fixture *fixture)
{
        return fixture->exports.snapshot;
}

struct volume *fixture_big(struct fixture *fixture)
{
        return fixture->exports.big;
}

struct loop *fixture_loop(struct fixture *fixture)
{
        return loop_thread_loop(fixture->thread);
}

struct nbd_server *fixture_server(struct fixture *fixture)
{
        return fixture->server;
}

struct cutting {
        struct fixture *fixture;
        char export_name[32];
};

static void co_cut(void *arg)
{
        struct cutting *c = arg;

        co_nbd_server_disconnect(c->fixture->server, c->export_name);
        free(c);
}

static void spawn_cut(void *arg)
{
        struct cutting *c = arg;
        int r = co_spawn(fixture_loop(c->fixture), co_cut, c);

        assert(r == 0);
}

void fixture_begin_cut(struct fixture *fixture, const char *export_name)
{
        struct cutting *c = calloc(1, sizeof(*c));

        assert(c);
        c->fixture = fixture;
        snprintf(c->export_name, sizeof(c->export_name), "%s", export_name);
        fixture_run(fixture, spawn_cut, c);
        fixture_n_clients(fixture); /* the coroutine has run since */
}

struct counting {
        struct fixture *fixture;
        unsigned n, n_left;
};

static void count_each(const struct nbd_client_info *info, void *arg)
{
        struct counting *c = arg;

        c->n++;
        c->n_left += nbd_client_has_left(info->client);
}

static void count_clients(void *arg)
{
        struct counting *c = arg;

        nbd_server_each_client(c->fixture->server, count_each, c);
}

static struct counting count(struct fixture *fixture)
{
        struct counting c = {fixture};

        fixture_run(fixture, count_clients, &c);
        return c;
}

unsigned fixture_n_clients(struct fixture *fixture)
{
        return count(fixture).n;
}

unsigned fixture_n_left(struct fixture *fixture)
{
        return count(fixture).n_left;
}

/* A number of the server's loop, read or written there. */
struct copying {
        const unsigned *from;
        unsigned *to;
};

static void copy(void *arg)
{
        const struct copying *c = arg;

        *c->to = *c->from;
}

static unsigned get(struct fixture *fixture, const unsigned *number)
{
        unsigned n;

        fixture_run(fixture, copy, &(struct copying){number, &n});
        return n;
}

static void set(struct fixture *fixture, unsigned *number, unsigned n)
{
        fixture_run(fixture, copy, &(struct copying){&n, number});
}

unsigned fixture_n_open(struct fixture *fixture)
{
        return get(fixture, &fixture->exports.n_open);
}

unsigned fixture_n_held(struct fixture *fixture)
{
        return get(fixture, &fixture->exports.n_held);
}

unsigned fixture_n_asked(struct fixture *fixture)
{
        return get(fixture, &fixture->exports.n_asked);
}

void fixture_snapshots_extra(struct fixture *fixture, unsigned n)
{
        set(fixture, &fixture->exports.n_snapshots, n);
}

void fixture_list_extra(struct fixture *fixture, unsigned n)
{
        set(fixture, &fixture->exports.n_extra, n);
}

const char *fixture_identity(struct fixture *fixture, unsigned i)
{
        fixture_n_clients(fixture); /* what the server's thread has written is seen here */
        return fixture->exports.identities[i];
}

void fixture_wait_left(struct fixture *fixture, unsigned n)
{
        const struct timespec pause = {.tv_nsec = 1000000};

        for (unsigned left = WAIT_MS; fixture_n_clients(fixture) > n; left--) {
                assert(left > 0);
                nanosleep(&pause, NULL);
        }
}

void fixture_wait_gone(struct fixture *fixture)
{
        fixture_wait_left(fixture, 0);
        assert(fixture_n_open(fixture) == 0);
}

int fixture_setup(void **state)
{
        alarm(WITH_ASAN || WITH_TSAN ? 360 : 90); /* a hang is a failure */
        *state = fixture_start(NULL);
        return 0;
}

int fixture_teardown(void **state)
{
        fixture_stop(*state, 5000);
        alarm(0);
        return 0;
}
