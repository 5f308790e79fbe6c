/* disks.c - a machine's disks: attached at the pools' servers, connected, and handed to the VMM.
 *
 * Each time anew: a socket is made, the pool's server is asked to offer the volume on it, the
 * supervisor connects and takes the socket's name away again, and the connection goes to the VMM. So
 * nothing is left behind by whoever is killed, and the VMM needs no right to connect to anybody. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/passed_fds.h"
#include "server/client.h"
#include "vm/machine.h"
#include "vm/prepare.h"

/* A server that replays its pool takes its time; one that has died is seen at once. */
#define SERVER_WAIT_NS (60 * MACHINE_SECOND_NS)
#define BUSY_WAIT_NS   (3 * MACHINE_SECOND_NS)
#define RETRY_NS       UINT64_C(200000000)
/* For a server that was killed to be gone, and between two that are started. */
#define SPAWN_PAUSE_NS (2 * MACHINE_SECOND_NS)
/* For a guest to let go of a disk. */
#define REMOVE_WAIT_NS (30 * MACHINE_SECOND_NS)
/* For others who change the disks, or save them: both may wait for a pool's server. */
#define LOCK_WAIT_NS (120 * MACHINE_SECOND_NS)
#define REPLY_MAX    65536u

static struct machine_disk *find_id(const struct machine *m, const char *id)
{
        list_for_each (it, &m->disks) {
                struct machine_disk *d = container_of(it, struct machine_disk, link);

                if (strcmp(d->id, id) == 0)
                        return d;
        }
        return NULL;
}

static struct machine_disk *find(const struct machine *m, const char *pool, const char *target)
{
        list_for_each (it, &m->disks) {
                struct machine_disk *d = container_of(it, struct machine_disk, link);

                if (strcmp(d->disk->pool, pool) == 0 && strcmp(d->target, target) == 0)
                        return d;
        }
        return NULL;
}

/* ---- asking a pool's server, as a coroutine ---- */

/* A line, without its end. */
static int co_read_reply(struct machine *m, int fd, char *text, size_t size)
{
        size_t n = 0;

        for (;;) {
                char *end = memchr(text, '\n', n);
                ssize_t got;
                int r;

                if (end) {
                        *end = '\0';
                        return 0;
                }
                if (n == size)
                        return -EMSGSIZE;
                r = co_machine_poll(m, fd, POLLIN, SERVER_WAIT_NS);
                if (r < 0)
                        return r;
                got = recv(fd, text + n, size - n, MSG_DONTWAIT);
                if (got == 0)
                        return -ECONNRESET;
                if (got < 0 && errno != EAGAIN && errno != EINTR)
                        return -errno;
                n += got > 0 ? (size_t)got : 0;
        }
}

/* The request is short, and a server's socket takes it at once. */
static int co_ask_on(struct machine *m, int control, json_t *request, int fd, json_t **ret_reply,
                     struct error *err)
{
        size_t length;
        char *line = control_line(request, &length), *reply_text = malloc(REPLY_MAX);
        json_t *reply = NULL;
        int r = line && reply_text ? 0 : -ENOMEM;

        if (r == 0 && passed_fds_send(control, line, length, &fd, fd >= 0, 0) != (ssize_t)length)
                r = -EPIPE;
        if (r == 0)
                r = co_read_reply(m, control, reply_text, REPLY_MAX);
        if (r < 0) {
                error_set(err, r, "the pool's server does not answer: %s", strerror(-r));
        } else {
                reply = json_loads(reply_text, 0, NULL);
                if (!json_is_object(reply))
                        r = error_set(err, -EPROTO, "the server's reply is not JSON");
                else if (json_object_get(reply, "error"))
                        r = control_error_parse(reply, err);
        }
        if (r == 0)
                *ret_reply = json_incref(reply);
        json_decref(reply);
        free(line);
        free(reply_text);
        return r;
}

static int set_text(json_t *request, const char *key, const char *text)
{
        return text[0] ? json_object_set_new(request, key, json_string(text)) : 0;
}

static json_t *request_of(const struct machine *m, const struct machine_disk *d, const char *path)
{
        json_t *request =
            json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:s}", "command", "volume-attach", "pool",
                      d->disk->pool, "volume", d->target, "path", path, "readonly",
                      (int)d->disk->readonly, "remember", 0, "machine", m->known->name);

        if (request && (set_text(request, "serial", d->disk->serial) < 0 ||
                        set_text(request, "identity", d->identity) < 0)) {
                json_decref(request);
                return NULL;
        }
        return request;
}

static int co_ask_server(struct machine *m, const char *pool, json_t *request, int fd,
                         json_t **ret_reply, struct error *err)
{
        struct pool_state *state = NULL;
        int control = -1, r = state_load(pool, &state, err);

        if (r == 0) {
                r = client_connect(state, &control, err);
                r = r == -ENOENT ? -ENOTCONN : r;
        }
        if (r == 0)
                r = co_ask_on(m, control, request, fd, ret_reply, err);
        if (control >= 0)
                close(control);
        state_free(state);
        return r;
}

int co_machine_ask_server(struct machine *m, const char *pool, json_t *request, int fd,
                          struct error *err)
{
        json_t *reply = NULL;
        int r = co_ask_server(m, pool, request, fd, &reply, err);

        json_decref(reply);
        return r;
}

/* The server has @path's socket then, and one queue of connections to it. */
static int co_offer(struct machine *m, const struct machine_disk *d, const char *path,
                    int listening, char ret_identity[MACHINE_IDENTITY_SIZE], struct error *err)
{
        json_t *request = request_of(m, d, path), *reply = NULL;
        int r = request ? co_ask_server(m, d->disk->pool, request, listening, &reply, err)
                        : error_set(err, -ENOMEM, "out of memory");
        const char *identity = json_string_value(json_object_get(reply, "identity"));

        /* An older server has none, and checks none: what was known is kept. */
        if (r == 0 && identity && strlen(identity) < MACHINE_IDENTITY_SIZE)
                memcpy(ret_identity, identity, strlen(identity) + 1);
        json_decref(request);
        json_decref(reply);
        return r;
}

static int socket_path(const struct machine *m, const struct machine_disk *d, char *path,
                       size_t size, struct error *err)
{
        char *end;
        int r = known_socket(m->known->name, path, size, err);

        if (r < 0)
                return r;
        end = strrchr(path, '.');
        if ((size_t)snprintf(end, size - (size_t)(end - path), ".%s", d->id) >=
            size - (size_t)(end - path))
                return error_set(err, -ENAMETOOLONG, "the path of a socket is too long");
        return 0;
}

/* -ENOTCONN  nobody serves the pool */
static int co_connect(struct machine *m, const struct machine_disk *d, int *ret_fd,
                      char ret_identity[MACHINE_IDENTITY_SIZE], struct error *err)
{
        char path[PATH_MAX];
        int listening = -1, r = socket_path(m, d, path, sizeof(path), err);

        if (r == 0)
                r = socket_listen_unix(path, (gid_t)-1, &listening, err);
        if (r < 0)
                return r;
        r = co_offer(m, d, path, listening, ret_identity, err);
        close(listening);
        if (r == 0) {
                r = socket_connect_unix(path, ret_fd);
                if (r < 0)
                        error_set(err, r, "the pool's server has ended: %s", strerror(-r));
        }
        unlink(path);
        return r;
}

/* ---- what there is ---- */

/* @disk has to live as long as it. */
static struct machine_disk *disk_new(struct machine *m, const struct vm_disk *disk, unsigned number,
                                     struct error *err)
{
        struct machine_disk *d = calloc(1, sizeof(*d));

        if (!d) {
                error_set(err, -ENOMEM, "out of memory");
                return NULL;
        }
        d->fd = -1;
        d->number = number;
        if (number >= m->next_disk_number)
                m->next_disk_number = number + 1;
        child_disk_id(number, d->id);
        d->disk = disk;
        snprintf(d->target, sizeof(d->target), "%s%s%s", disk->volume, disk->snapshot[0] ? "@" : "",
                 disk->snapshot);
        list_append(&m->disks, &d->link);
        return d;
}

static void hang_up(int *fd)
{
        if (*fd < 0)
                return;
        shutdown(*fd, SHUT_RDWR);
        close(*fd);
        *fd = -1;
}

static void disk_take_out(struct machine_disk *d)
{
        hang_up(&d->fd);
        d->gone = true;
        list_remove(&d->link);
        if (!d->reconnecting)
                free(d);
}

int machine_disks_init(struct machine *m, struct error *err)
{
        for (size_t i = 0; i < m->started->n_disks; i++)
                if (!disk_new(m, &m->started->disks[i], known_disk_number(m->known, i), err))
                        return -ENOMEM;
        return 0;
}

void machine_disks_free(struct machine *m)
{
        list_for_each_safe (it, &m->disks)
                disk_take_out(container_of(it, struct machine_disk, link));
}

void machine_disks_hang_up(struct machine *m)
{
        list_for_each (it, &m->disks)
                hang_up(&container_of(it, struct machine_disk, link)->fd);
}

static int co_hand_over(struct machine *m, struct machine_disk *d, enum channel_kind kind,
                        struct error *err)
{
        struct machine_order order = {
            .kind = kind, .id = d->id, .readonly = d->disk->readonly, .value = d->disk->n_queues};
        char identity[MACHINE_IDENTITY_SIZE] = "";
        int r = co_connect(m, d, &order.fd, identity, err);
        unsigned n_lost = d->n_lost;

        if (r < 0)
                return r;
        r = co_machine_order(m, &order, err);
        /* From here on the guest has it in its memory, and can go on with nothing else. */
        if (r == 0 && identity[0])
                memcpy(d->identity, identity, sizeof(identity));
        /* The VMM may have lost it again by now: its answer is heard of later than it came. */
        d->connected = r == 0 && d->n_lost == n_lost;
        hang_up(&d->fd);
        if (d->connected && m->channel_open && !d->gone)
                d->fd = order.fd;
        else
                hang_up(&order.fd);
        return r;
}

/* ---- a server that went away ---- */

static bool was_started_for_us(const char *pool)
{
        struct pool_state *state;
        bool was;

        if (state_load(pool, &state, NULL) < 0)
                return false;
        was = state->server_while_used;
        state_free(state);
        return was;
}

static void spawn_server(struct machine *m, struct machine_disk *d)
{
        uint64_t now_ns = loop_now_ns(m->loop);
        struct error e = ERROR_INIT;

        list_for_each (it, &m->disks) {
                const struct machine_disk *other = container_of(it, struct machine_disk, link);

                if (strcmp(other->disk->pool, d->disk->pool) == 0 && other->spawned_ns &&
                    now_ns - other->spawned_ns < SPAWN_PAUSE_NS)
                        return;
        }
        if (m->server_pid > 0)
                (void)waitpid(m->server_pid, NULL, WNOHANG);
        d->spawned_ns = now_ns;
        if (server_spawn(d->disk->pool, &m->server_pid, &e) < 0)
                log_warning("%s", e.message);
}

/* A server that somebody else has started he will start again, or has stopped on purpose. One that
 * was started for virtual machines, and has died, is ours to replace, whoever started it. */
static void replace_server(struct machine *m, struct machine_disk *d)
{
        if (d->spawned_ns || was_started_for_us(d->disk->pool))
                spawn_server(m, d);
}

/* ---- before the start ---- */

/* What may pass: a server that ended just then, as nobody had used it for long enough; and the machine
 * before this one, of which the server has yet to see the end. */
static int co_connect_first(struct machine *m, struct machine_disk *d, struct error *err)
{
        uint64_t begin_ns = loop_now_ns(m->loop);

        for (;;) {
                uint64_t waited_ns;
                int r = co_hand_over(m, d, CHANNEL_DISK_CONNECT, err);
                bool gone = r == -ENOTCONN || r == -ECONNRESET || r == -EPIPE;

                waited_ns = loop_now_ns(m->loop) - begin_ns;
                if (m->stopping ||
                    !(gone ? waited_ns < SERVER_WAIT_NS : r == -EBUSY && waited_ns < BUSY_WAIT_NS))
                        return r;
                if (gone)
                        spawn_server(m, d);
                co_sleep_ns(RETRY_NS);
        }
}

int co_machine_disks_connect(struct machine *m, struct error *err)
{
        int r = 0;

        list_for_each (it, &m->disks) {
                r = co_connect_first(m, container_of(it, struct machine_disk, link), err);
                if (r < 0)
                        return r;
        }
        return r;
}

/* ---- and again ---- */

struct reconnect {
        struct machine *m;
        struct machine_disk *disk;
};

/* Also while the guest is asked to let go of it, which it may do only once its requests are answered. */
static void co_reconnect(void *arg)
{
        struct reconnect *again = arg;
        struct machine *m = again->m;
        struct machine_disk *d = again->disk;

        while (!m->ending && m->channel_open && !d->gone) {
                struct error e = ERROR_INIT;
                int r = co_hand_over(m, d, CHANNEL_DISK_CONNECT, &e);

                if (d->gone)
                        break;
                if (d->connected) {
                        d->problem[0] = '\0';
                        log_info("disk '%s/%s' is back", d->disk->pool, d->target);
                        break;
                }
                if (r == 0)
                        r = error_set(&e, -ECONNRESET, "the pool's server has hung up again");
                if (strcmp(d->problem, e.message) != 0 && !m->ending) /* once for each reason */
                        log_warning("disk '%s/%s' is gone, and the guest waits for it: %s",
                                    d->disk->pool, d->target, e.message);
                memcpy(d->problem, e.message, sizeof(d->problem));
                if (r == -ENOTCONN)
                        replace_server(m, d);
                co_sleep_ns(RETRY_NS);
        }
        d->reconnecting = false;
        if (d->gone)
                free(d);
        free(again);
        machine_left(m);
}

void machine_disk_lost(struct machine *m, const char *id)
{
        struct machine_disk *d = find_id(m, id);
        struct reconnect *again;

        if (!d)
                return;
        d->connected = false;
        d->n_lost++;
        hang_up(&d->fd);
        if (d->reconnecting)
                return;
        again = calloc(1, sizeof(*again));
        if (again) {
                again->m = m;
                again->disk = d;
                d->reconnecting = true;
        }
        if (!again || machine_spawn(m, co_reconnect, again) < 0) {
                log_error("disk '%s/%s' is lost: out of memory", d->disk->pool, d->target);
                d->reconnecting = false;
                free(again);
        }
}

/* ---- while it runs ---- */

int co_machine_disks_lock(struct machine *m, struct error *err)
{
        uint64_t deadline_ns = loop_now_ns(m->loop) + LOCK_WAIT_NS;

        while (m->disks_locked && !m->ending && loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
        if (m->disks_locked)
                return error_set(err, -EBUSY,
                                 "a disk of machine '%s' is being attached or detached, or a "
                                 "snapshot of them taken",
                                 m->known->name);
        m->disks_locked = true;
        return 0;
}

void machine_disks_unlock(struct machine *m)
{
        m->disks_locked = false;
        co_wake_all(&m->changed);
}

static int check_new(const struct machine *m, const struct vm_disk *disk, struct error *err)
{
        char text[VM_DISK_TEXT_SIZE];
        size_t n = 0;

        list_for_each (it, &m->disks) {
                const struct machine_disk *d = container_of(it, struct machine_disk, link);

                if (vm_disk_is_same(d->disk, disk))
                        return error_set(err, -EEXIST, "machine '%s' has '%s' already",
                                         m->known->name, vm_disk_text(disk, text));
                n++;
        }
        if (n < VM_DISKS_MAX)
                return 0;
        return error_set(err, -ENOSPC, "machine '%s' has %u disks already, and cannot have more",
                         m->known->name, VM_DISKS_MAX);
}

int co_machine_disk_add(struct machine *m, const struct vm_disk *disk, struct error *err)
{
        struct machine_disk *d;
        int r = check_new(m, disk, err);

        if (r < 0)
                return r;
        d = disk_new(m, disk, m->next_disk_number, err);
        if (!d)
                return -ENOMEM;
        d->later = *disk;
        d->disk = &d->later;
        d->coming = true;
        r = co_hand_over(m, d, CHANNEL_DISK_ADD, err);
        d->coming = false;
        if (r < 0)
                disk_take_out(d);
        return r;
}

void machine_disk_removed(struct machine *m, const char *id)
{
        struct machine_disk *d = find_id(m, id);

        /* Also one that was asked for so long ago that nobody waits for it any more. */
        if (d && !d->coming && m->state != MACHINE_STARTING)
                disk_take_out(d);
}

/* A file that has neither a disk nor a kernel is none. */
static bool is_needed_to_boot(const struct machine *m)
{
        return !m->started->kernel && m->disks.next == m->disks.prev;
}

int co_machine_disk_remove(struct machine *m, const char *pool, const char *target,
                           struct error *err)
{
        uint64_t deadline_ns = loop_now_ns(m->loop) + REMOVE_WAIT_NS;
        struct machine_disk *d = find(m, pool, target);
        struct machine_order order = {.kind = CHANNEL_DISK_REMOVE, .fd = -1};
        char id[CHANNEL_ID_SIZE];
        int r;

        if (!d)
                return error_set(err, -ENOENT, "machine '%s' has no disk '%s/%s'", m->known->name,
                                 pool, target);
        if (is_needed_to_boot(m)) {
                error_set(err, -EINVAL,
                          "'%s/%s' is the last disk of machine '%s', which boots from it", pool,
                          target, m->known->name);
                return error_hint(err, "attach another one first");
        }
        memcpy(id, d->id, sizeof(id));
        order.id = id;
        r = co_machine_order(m, &order, err);
        while (r == 0 && m->state != MACHINE_ENDED && find_id(m, id) &&
               loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
        if (!find_id(m, id))
                return 0;
        if (r == 0)
                r = error_set(err, -ETIMEDOUT, "the guest does not let go of '%s/%s'", pool,
                              target);
        return r;
}

json_t *machine_disks_json(const struct machine *m)
{
        json_t *all = json_array();

        list_for_each (it, &m->disks) {
                const struct machine_disk *d = container_of(it, struct machine_disk, link);
                char text[VM_DISK_TEXT_SIZE];

                json_array_append_new(
                    all, json_pack("{s:s, s:s, s:b, s:b, s:b, s:o?}", "id", d->id, "volume",
                                   vm_disk_text(d->disk, text), "readonly", (int)d->disk->readonly,
                                   "attached", d->disk == &d->later, "connected", (int)d->connected,
                                   "problem", d->problem[0] ? json_string(d->problem) : NULL));
        }
        return all;
}

int machine_disks_check(const struct machine *m, struct error *err)
{
        list_for_each (it, &m->disks) {
                const struct machine_disk *d = container_of(it, struct machine_disk, link);

                if (!d->connected)
                        return error_set(err, -ENODEV, "disk '%s/%s' is gone%s%s", d->disk->pool,
                                         d->target, d->problem[0] ? ": " : "", d->problem);
        }
        return 0;
}

int machine_disks_write(const struct machine *m, char **ret_text, unsigned numbers[VM_DISKS_MAX],
                        struct error *err)
{
        struct vm_disk disks[VM_DISKS_MAX];
        struct vm_file file = *m->started;

        file.disks = disks;
        file.n_disks = 0;
        list_for_each (it, &m->disks) {
                const struct machine_disk *d = container_of(it, struct machine_disk, link);

                assert(file.n_disks < VM_DISKS_MAX); /* check_new() */
                numbers[file.n_disks] = d->number;
                disks[file.n_disks++] = *d->disk;
        }
        return vm_file_write(&file, ret_text, err);
}
