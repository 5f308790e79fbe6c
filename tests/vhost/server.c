/* server.c - see server.h. */
#include "tests/vhost/server.h"
#include <assert.h>
#include <dirent.h>
#include <semaphore.h>
#include <signal.h>
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
#include "common/sanitizers.h"
#include "tests/protocol/loop_call.h"
#include "tests/vhost/check.h"

#define WAIT_MS      30000
#define TEST_SECONDS (WITH_ASAN || WITH_TSAN ? 360 : 90) /* a hang is a failure */

struct device {
        struct server *server;
        struct vhost_device *device;
        struct volume *volume;
        bool readonly, discard;
        char path[96];
        /* between two servers */
        struct vhost_saved saved[VHOST_CLIENTS_MAX];
        unsigned n_saved;
        int fd;
        _Atomic bool is_saved;
        size_t part;
        struct vhost_saved odd;
};

struct server {
        struct loop_thread *thread;
        struct vhost_server *vhost;
        struct device devices[SERVER_DEVICES];
        struct vhost_server_options options;
        char folder[64];
        unsigned n_open, n_clients, n_left;
        unsigned n_fds;
        struct loop_task halt;
        sem_t halted, goes_on;
};

static struct sigaction sigbus;
static bool sigbus_known;

void server_take_sigbus(void)
{
        assert(sigbus_known);
        sigaction(SIGBUS, &sigbus, NULL);
}

/* ---- volumes ---- */

static int co_device_open(void *arg, struct vhost_client *client, struct vhost_volume *ret,
                          struct error *err)
{
        struct device *d = arg;

        *ret = (struct vhost_volume){
            .volume = d->volume, .readonly = d->readonly, .discard = d->discard};
        snprintf(ret->serial, sizeof(ret->serial), "twenty bytes, not 21");
        d->server->n_open++;
        return 0;
}

static void co_device_close(void *arg, struct vhost_volume *volume)
{
        struct device *d = arg;

        assert(d->server->n_open > 0 && volume->volume == d->volume);
        d->server->n_open--;
}

/* ---- start and stop ---- */

static int listen_at(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert(fd >= 0);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        int r = bind(fd, (struct sockaddr *)&address, sizeof(address));
        assert(r == 0);
        r = listen(fd, 128);
        assert(r == 0);
        return fd;
}

static void start_devices(void *arg)
{
        struct server *s = arg;
        struct error err = ERROR_INIT;
        int r = vhost_server_new(loop_thread_loop(s->thread), &s->options, &s->vhost, &err);

        assert(r == 0);
        for (unsigned i = 0; i < SERVER_DEVICES; i++) {
                struct device *d = &s->devices[i];
                struct vhost_device_options options = {
                    .name = "pool/vol",
                    .n_queues = SERVER_QUEUES,
                    .volumes = {co_device_open, co_device_close, d}};
                r = vhost_device_new(s->vhost, &options, listen_at(d->path), &d->device, &err);
                assert(r == 0);
        }
}

static void quiet(enum log_level level, const char *message)
{
}

struct server *server_start(const struct vhost_server_options *options)
{
        struct server *s = calloc(1, sizeof(*s));

        assert(s);
        if (!getenv("TARN_TEST_VERBOSE"))
                log_set_sink(quiet);
        else
                log_set_level(LOG_LEVEL_DEBUG);
        s->n_fds = server_n_fds(0);
        if (options)
                s->options = *options;
        snprintf(s->folder, sizeof(s->folder), "/tmp/tarn-vhost-XXXXXX");
        if (!mkdtemp(s->folder))
                abort();
        int r = loop_thread_start("device", &s->thread, NULL);
        assert(r == 0);
        for (unsigned i = 0; i < SERVER_DEVICES; i++) {
                struct device *d = &s->devices[i];
                *d = (struct device){.server = s,
                                     .readonly = i == SERVER_READONLY,
                                     .discard = i != SERVER_NO_DISCARD};
                d->volume = fake_volume_new(loop_thread_loop(s->thread), SERVER_BYTES);
                snprintf(d->path, sizeof(d->path), "%s/%u", s->folder, i);
        }
        loop_call(loop_thread_loop(s->thread), start_devices, s);
        if (!sigbus_known) { /* it is installed once in a process */
                sigaction(SIGBUS, NULL, &sigbus);
                sigbus_known = true;
        }
        return s;
}

static void co_free_devices(void *arg)
{
        struct server *s = arg;

        for (unsigned i = 0; i < SERVER_DEVICES; i++)
                co_vhost_device_free(s->devices[i].device);
        vhost_server_free(s->vhost);
}

void server_stop(struct server *s)
{
        unsigned n_fds = s->n_fds;

        loop_call_co(loop_thread_loop(s->thread), co_free_devices, s);
        assert_int_equal(s->n_open, 0);
        loop_thread_stop(s->thread);
        for (unsigned i = 0; i < SERVER_DEVICES; i++) {
                fake_volume_free(s->devices[i].volume);
                unlink(s->devices[i].path);
        }
        rmdir(s->folder);
        free(s);
        server_wait_fds(0, n_fds); /* some are closed by another thread */
}

/* ---- looking at it, and acting on it ---- */

const char *server_path(const struct server *s, enum server_device device)
{
        return s->devices[device].path;
}

struct volume *server_volume(struct server *s, enum server_device device)
{
        return s->devices[device].volume;
}

static void config_changed(void *arg)
{
        vhost_device_config_changed(((struct device *)arg)->device);
}

void server_resize(struct server *s, enum server_device device, uint64_t n_bytes)
{
        fake_resize(s->devices[device].volume, n_bytes);
        loop_call(loop_thread_loop(s->thread), config_changed, &s->devices[device]);
}

static void co_disconnect(void *arg)
{
        co_vhost_device_disconnect(((struct device *)arg)->device);
}

void server_disconnect(struct server *s, enum server_device device)
{
        loop_call_co(loop_thread_loop(s->thread), co_disconnect, &s->devices[device]);
}

/* ---- from one server to the next ---- */

static void keep(struct vhost_saved *saved, void *arg)
{
        struct device *d = arg;

        assert(d->n_saved < VHOST_CLIENTS_MAX);
        d->saved[d->n_saved++] = *saved;
}

static void co_save_end(void *arg)
{
        struct device *d = arg;

        d->fd = co_vhost_device_save_end(d->device);
        d->device = NULL;
        d->is_saved = true;
}

static void save(void *arg)
{
        struct device *d = arg;
        int r;

        d->n_saved = 0;
        d->is_saved = false;
        vhost_device_save(d->device, keep, d);
        r = co_spawn(loop_thread_loop(d->server->thread), co_save_end, d);
        assert(r == 0);
}

void server_save(struct server *s, enum server_device device)
{
        loop_call(loop_thread_loop(s->thread), save, &s->devices[device]);
}

bool server_is_saved(struct server *s, enum server_device device)
{
        return s->devices[device].is_saved;
}

void server_wait_saved(struct server *s, enum server_device device)
{
        const struct timespec pause = {.tv_nsec = 1000000};
        unsigned left = WAIT_MS;

        while (!s->devices[device].is_saved) {
                if (left-- == 0)
                        fail_msg("the front ends are not saved");
                nanosleep(&pause, NULL);
        }
}

static void make_held(struct device *d)
{
        struct vhost_device_options options = {.name = "pool/vol",
                                               .n_queues = SERVER_QUEUES,
                                               .volumes = {co_device_open, co_device_close, d},
                                               .held = true};
        struct error err = ERROR_INIT;
        int r = vhost_device_new(d->server->vhost, &options, d->fd, &d->device, &err);

        assert(r == 0);
}

static void co_restore(void *arg)
{
        struct device *d = arg;

        make_held(d);
        for (unsigned i = 0; i < d->n_saved; i++) {
                struct error err = ERROR_INIT;
                int r = co_vhost_device_restore(d->device, &d->saved[i], &err);

                assert(r == 0);
        }
}

void server_restore(struct server *s, enum server_device device)
{
        loop_call_co(loop_thread_loop(s->thread), co_restore, &s->devices[device]);
}

static void co_restore_part(void *arg)
{
        struct device *d = arg;
        /* Every other time some descriptors are missing, too. */
        struct vhost_saved part = {.n_bytes = d->part,
                                   .n_fds = d->saved[0].n_fds / (1 + d->part % 2)};
        struct error err = ERROR_INIT;

        part.bytes = malloc(part.n_bytes + 1);
        part.fds = calloc(part.n_fds, sizeof(*part.fds));
        assert(part.bytes && part.fds && part.n_bytes <= d->saved[0].n_bytes);
        memcpy(part.bytes, d->saved[0].bytes, part.n_bytes);
        for (size_t i = 0; i < part.n_fds; i++)
                part.fds[i] = dup(d->saved[0].fds[i]);
        d->fd = dup(d->fd);
        make_held(d);
        (void)co_vhost_device_restore(d->device, &part, &err);
        co_vhost_device_free(d->device);
}

size_t server_restore_part(struct server *s, enum server_device device, size_t n_bytes)
{
        struct device *d = &s->devices[device];
        int fd = d->fd;

        d->part = n_bytes;
        loop_call_co(loop_thread_loop(s->thread), co_restore_part, d);
        d->fd = fd;
        return d->saved[0].n_bytes;
}

const uint8_t *server_saved_bytes(struct server *s, enum server_device device)
{
        return s->devices[device].saved[0].bytes;
}

static void co_restore_odd(void *arg)
{
        struct device *d = arg;
        struct error err = ERROR_INIT;

        d->fd = dup(d->fd);
        make_held(d);
        int r = co_vhost_device_restore(d->device, &d->odd, &err);
        assert(r < 0);
        co_vhost_device_free(d->device);
}

void server_restore_odd(struct server *s, enum server_device device, size_t n_kept,
                        uint32_t request, unsigned n_records, uint32_t n_bytes, uint32_t n_fds)
{
        struct device *d = &s->devices[device];
        const uint32_t record[] = {n_fds, request, 1, n_bytes}; /* as save.c has it */
        const size_t n_each = sizeof(record) + n_bytes;
        int fd = d->fd;

        d->odd = (struct vhost_saved){.n_bytes = n_kept + n_records * n_each,
                                      .n_fds = 1 + n_records * n_fds};
        d->odd.bytes = calloc(1, d->odd.n_bytes);
        d->odd.fds = calloc(d->odd.n_fds, sizeof(*d->odd.fds));
        assert(d->odd.bytes && d->odd.fds && n_kept <= d->saved[0].n_bytes);
        memcpy(d->odd.bytes, d->saved[0].bytes, n_kept);
        for (unsigned i = 0; i < n_records; i++)
                memcpy(d->odd.bytes + n_kept + i * n_each, record, sizeof(record));
        for (size_t i = 0; i < d->odd.n_fds; i++)
                d->odd.fds[i] = dup(d->saved[0].fds[0]);
        loop_call_co(loop_thread_loop(s->thread), co_restore_odd, d);
        d->fd = fd;
}

static void go(void *arg)
{
        vhost_device_go(((struct device *)arg)->device);
}

void server_go(struct server *s, enum server_device device)
{
        loop_call(loop_thread_loop(s->thread), go, &s->devices[device]);
}

static void allow_discard(void *arg)
{
        ((struct device *)arg)->discard = true;
}

static void forbid_discard(void *arg)
{
        ((struct device *)arg)->discard = false;
}

void server_set_discard(struct server *s, enum server_device device, bool discard)
{
        loop_call(loop_thread_loop(s->thread), discard ? allow_discard : forbid_discard,
                  &s->devices[device]);
}

static void count_client(const struct vhost_client_info *info, void *arg)
{
        struct server *s = arg;

        s->n_clients++;
        s->n_left += vhost_client_has_left(info->client);
}

static void count_clients(void *arg)
{
        struct server *s = arg;

        s->n_clients = s->n_left = 0;
        for (unsigned i = 0; i < SERVER_DEVICES; i++)
                vhost_device_each_client(s->devices[i].device, count_client, s);
}

unsigned server_n_clients(struct server *s)
{
        loop_call(loop_thread_loop(s->thread), count_clients, s);
        return s->n_clients;
}

unsigned server_n_left(struct server *s)
{
        loop_call(loop_thread_loop(s->thread), count_clients, s);
        return s->n_left;
}

void server_wait_clients(struct server *s, unsigned n)
{
        const struct timespec pause = {.tv_nsec = 1000000};
        unsigned left = WAIT_MS;

        while (server_n_clients(s) != n) {
                if (left-- == 0)
                        fail_msg("%u front ends are connected, not %u", s->n_clients, n);
                nanosleep(&pause, NULL);
        }
}

static void halt(struct loop_task *task)
{
        struct server *s = container_of(task, struct server, halt);

        sem_post(&s->halted);
        sem_wait(&s->goes_on);
}

void server_halt(struct server *s)
{
        s->halt = (struct loop_task){.run = halt};
        sem_init(&s->halted, 0, 0);
        sem_init(&s->goes_on, 0, 0);
        loop_post_remote(loop_thread_loop(s->thread), &s->halt);
        sem_wait(&s->halted);
}

void server_go_on(struct server *s)
{
        sem_post(&s->goes_on);
        server_turn(s);
}

static void nothing(void *arg)
{
}

void server_turn(struct server *s)
{
        /* What was readable is read in the turn after, and acted on in the one after that. */
        for (unsigned i = 0; i < 4; i++)
                loop_call(loop_thread_loop(s->thread), nothing, NULL);
}

void server_run(struct server *s, void (*f)(void *arg), void *arg)
{
        loop_call(loop_thread_loop(s->thread), f, arg);
}

int server_setup(void **state)
{
        struct server *s = server_start(NULL);

        alarm(TEST_SECONDS);
        check_set_path(server_path(s, SERVER_VOL));
        *state = s;
        return 0;
}

int server_teardown(void **state)
{
        struct server *s = *state;

        check_set_path(server_path(s, SERVER_OTHER));
        check_server_alive();
        server_wait_clients(s, 0);
        server_stop(s);
        alarm(0);
        return 0;
}

static void proc_path(char path[64], pid_t pid, const char *name)
{
        if (pid)
                snprintf(path, 64, "/proc/%d/%s", (int)pid, name);
        else
                snprintf(path, 64, "/proc/self/%s", name);
}

unsigned server_n_fds(pid_t pid)
{
        char path[64];
        unsigned n = 0;

        proc_path(path, pid, "fd");
        DIR *folder = opendir(path);
        assert(folder);
        while (readdir(folder))
                n++;
        closedir(folder);
        return n;
}

unsigned server_n_mappings(pid_t pid)
{
        char path[64];
        unsigned n = 0;
        int c;

        proc_path(path, pid, "maps");
        FILE *f = fopen(path, "re");
        assert(f);
        while ((c = getc(f)) != EOF)
                n += c == '\n';
        fclose(f);
        return n;
}

/* Fewer are no leak: some may have been on their way to be closed when @n were counted. */
void server_wait_fds(pid_t pid, unsigned n)
{
        const struct timespec pause = {.tv_nsec = 1000000};
        unsigned left = WAIT_MS, now;

        while ((now = server_n_fds(pid)) > n) {
                if (left-- == 0)
                        fail_msg("%u descriptors are open, not %u", now, n);
                nanosleep(&pause, NULL);
        }
}
