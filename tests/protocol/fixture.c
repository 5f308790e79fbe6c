/* fixture.c - see fixture.h. */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "common/coroutine.h"
#include "common/log.h"
#include "common/loop_thread.h"
#include "tests/protocol/fixture.h"
#include "tests/protocol/loop_call.h"

#define WAIT_MS 30000u

struct fixture {
        struct loop_thread *thread;
        struct nbd_server *server;
        struct volume *volume, *snapshot, *big;
        char folder[64], path[96];
        unsigned port;
        unsigned n_open, n_held, n_extra, n_snapshots;
        unsigned n_asked;        /* to open an export, in all */
        char identities[8][600]; /* of who asked last; empty behind them */
        unsigned stop_timeout_ms;
        bool stop_begun, stopped, leaving;
        sem_t stop_done;
};

/* ---- exports ---- */

static int co_export_open(void *arg, const char *name, bool to_use, struct nbd_client *client,
                          struct nbd_export *ret, struct error *err)
{
        struct fixture *f = arg;

        f->n_asked++;
        memset(f->identities, 0, sizeof(f->identities));
        for (unsigned i = 0; i < 8 && nbd_client_identity(client, i); i++)
                snprintf(f->identities[i], sizeof(f->identities[i]), "%s",
                         nbd_client_identity(client, i));
        co_yield_loop(); /* as one that has to read */
        if (strcmp(name, "") == 0 || strcmp(name, "vol") == 0 || strcmp(name, "pool/vol") == 0) {
                *ret = (struct nbd_export){.volume = f->volume, .name = "pool/vol"};
                snprintf(ret->description, sizeof(ret->description), "%s", FIXTURE_DESCRIPTION);
        } else if (strcmp(name, "pool/vol@snap") == 0) {
                *ret = (struct nbd_export){
                    .volume = f->snapshot, .name = "pool/vol@snap", .readonly = true};
        } else if (strcmp(name, "pool/big") == 0) {
                *ret = (struct nbd_export){.volume = f->big, .name = "pool/big"};
        } else if (strcmp(name, "secret") == 0) {
                return error_set(err, -EPERM, "'secret' is not for you");
        } else {
                return error_set(err, -ENOENT, "there is no export '%s'", name);
        }
        f->n_open++;
        return 0;
}

static void co_export_close(void *arg, struct nbd_export *export)
{
        struct fixture *f = arg;

        co_yield_loop();
        assert(f->n_open > 0);
        f->n_open--;
}

static int co_export_list(void *arg, struct nbd_client *client,
                          int (*each)(const char *name, const char *description, void *each_arg),
                          void *each_arg, struct error *err)
{
        struct fixture *f = arg;
        int r = each("pool/vol", FIXTURE_DESCRIPTION, each_arg);

        if (r == 0)
                r = each("pool/vol@snap", "", each_arg);
        if (r == 0)
                r = each("pool/big", NULL, each_arg);
        for (unsigned i = 0; r == 0 && i < f->n_extra; i++) {
                char name[64];
                snprintf(name, sizeof(name), "pool/extra-%u", i);
                r = each(name, "one more, so that the list is long", each_arg);
        }
        return r;
}

static int co_snapshot_open(void *arg, const struct nbd_export *export, const char *snapshot,
                            struct volume **ret_volume, struct error *err)
{
        struct fixture *f = arg;
        unsigned i;
        char end;

        co_yield_loop();
        if (strcmp(snapshot, "locked") == 0)
                return error_set(err, -EPERM, "'locked' is not for you");
        bool is_there = strcmp(snapshot, "snap") == 0 ||
                        (sscanf(snapshot, "s%u%c", &i, &end) == 1 && i < f->n_snapshots);
        if (!is_there || export->volume == f->big)
                return error_set(err, -ENOENT, "there is no snapshot '%s'", snapshot);
        f->n_held++;
        *ret_volume = f->snapshot;
        return 0;
}

static void co_snapshot_close(void *arg, struct volume *snapshot)
{
        struct fixture *f = arg;

        co_yield_loop();
        assert(snapshot == f->snapshot && f->n_held > 0);
        f->n_held--;
}

static int co_snapshot_list(void *arg, const struct nbd_export *export,
                            int (*each)(const char *snapshot, void *each_arg), void *each_arg,
                            struct error *err)
{
        struct fixture *f = arg;
        int r = export->volume == f->big ? 0 : each("snap", each_arg);

        for (unsigned i = 0; r == 0 && i < f->n_snapshots && export->volume != f->big; i++) {
                char name[16];
                snprintf(name, sizeof(name), "s%u", i);
                r = each(name, each_arg);
        }
        return r;
}

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
        const struct nbd_exports exports = {.co_open = co_export_open,
                                            .co_close = co_export_close,
                                            .co_list = co_export_list,
                                            .co_snapshot_open = co_snapshot_open,
                                            .co_snapshot_close = co_snapshot_close,
                                            .co_snapshot_list = co_snapshot_list,
                                            .arg = f};
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
        f->volume = fake_volume_new(engine, VOL_BYTES);
        f->snapshot = fake_volume_new(engine, VOL_BYTES);
        f->big = fake_volume_new(engine, BIG_BYTES);
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
        assert(fixture->n_open == 0 && fixture->n_held == 0);
        fixture_run(fixture, free_server, fixture);
        loop_thread_stop(fixture->thread);
        fake_volume_free(fixture->volume);
        fake_volume_free(fixture->snapshot);
        fake_volume_free(fixture->big);
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
        return fixture->volume;
}

struct volume *fixture_snapshot(struct fixture *fixture)
{
        return fixture->snapshot;
}

struct volume *fixture_big(struct fixture *fixture)
{
        return fixture->big;
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
        unsigned n;
};

static void count_each(const struct nbd_client_info *info, void *arg)
{
        ((struct counting *)arg)->n++;
}

static void count_clients(void *arg)
{
        struct counting *c = arg;

        nbd_server_each_client(c->fixture->server, count_each, c);
}

unsigned fixture_n_clients(struct fixture *fixture)
{
        struct counting c = {fixture, 0};

        fixture_run(fixture, count_clients, &c);
        return c.n;
}

static void count_open(void *arg)
{
        struct counting *c = arg;

        c->n = c->fixture->n_open;
}

unsigned fixture_n_open(struct fixture *fixture)
{
        struct counting c = {fixture, 0};

        fixture_run(fixture, count_open, &c);
        return c.n;
}

const char *fixture_identity(const struct fixture *fixture, unsigned i)
{
        return fixture->identities[i];
}

static void count_asked(void *arg)
{
        struct counting *c = arg;

        c->n = c->fixture->n_asked;
}

unsigned fixture_n_asked(struct fixture *fixture)
{
        struct counting c = {fixture, 0};

        fixture_run(fixture, count_asked, &c);
        return c.n;
}

static void count_held(void *arg)
{
        struct counting *c = arg;

        c->n = c->fixture->n_held;
}

unsigned fixture_n_held(struct fixture *fixture)
{
        struct counting c = {fixture, 0};

        fixture_run(fixture, count_held, &c);
        return c.n;
}

static void set_snapshots(void *arg)
{
        struct counting *c = arg;

        c->fixture->n_snapshots = c->n;
}

void fixture_snapshots_extra(struct fixture *fixture, unsigned n)
{
        struct counting c = {fixture, n};

        fixture_run(fixture, set_snapshots, &c);
}

static void set_extra(void *arg)
{
        struct counting *c = arg;

        c->fixture->n_extra = c->n;
}

void fixture_list_extra(struct fixture *fixture, unsigned n)
{
        struct counting c = {fixture, n};

        fixture_run(fixture, set_extra, &c);
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
        *state = fixture_start(NULL);
        return 0;
}

int fixture_teardown(void **state)
{
        fixture_stop(*state, 5000);
        return 0;
}
