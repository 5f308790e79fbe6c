/* fuzz_vm_control.c - clients of a machine's control socket, and behind it a VMM that answers orders when
 * and as it likes, and a guest at its console. What commands do to other processes and to files is
 * done here: nothing is attached, saved or written. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/control.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "vm/change.h"
#include "vm/machine.h"
#include "vm/saved.h"

#define CLIENTS    34u /* more than are admitted */
#define ORDERS_MAX 64u
#define GUEST_SAYS '#' /* nothing else: no answer begins with it */
#define END_NS     UINT64_C(60000000000)

struct client {
        int fd;              /* -1: none */
        uint64_t n_lines;    /* sent, and not answered */
        bool deaf;           /* it takes its answers only when told to */
        bool may_be_console; /* the guest may speak behind its last answer */
        size_t n;            /* of an answer that has not come to its end */
        char text[64 << 10];
};

struct scene {
        struct loop *loop;
        struct machine m;
        struct known known;
        int lowest_fd, vmm, serial;
        struct client clients[CLIENTS];
        struct client *at;
        uint32_t orders[ORDERS_MAX]; /* that the VMM has not answered */
        unsigned n_orders;
        struct output out;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- in the place of servers and files ---- */

int __wrap_co_machine_disk_add(struct machine *m, const struct vm_disk *disk, struct error *err);
int __wrap_co_machine_disk_remove(struct machine *m, const char *pool, const char *target,
                                  struct error *err);
int __wrap_co_machine_snapshot(struct machine *m, const char *name, bool memory,
                               uint64_t *ret_pause_ns, struct error *err);
void __wrap_machine_disk_lost(struct machine *m, const char *id);
void __wrap_machine_disk_removed(struct machine *m, const char *id);
void __wrap_machine_nic_lost(struct machine *m, const char *id);
int __wrap_change_set(struct known *k, const char *word, struct error *err);
int __wrap_change_add_disk(struct known *k, const struct vm_disk *disk, struct error *err);
int __wrap_change_drop_disk(struct known *k, const struct vm_disk *disk, struct error *err);
int __wrap_saved_list(const char *machine, json_t **ret_list, struct error *err);

int __wrap_co_machine_disk_add(struct machine *m, const struct vm_disk *disk, struct error *err)
{
        return co_machine_say(m, CHANNEL_DISK_ADD, err);
}

int __wrap_co_machine_disk_remove(struct machine *m, const char *pool, const char *target,
                                  struct error *err)
{
        return co_machine_say(m, CHANNEL_DISK_REMOVE, err);
}

int __wrap_co_machine_snapshot(struct machine *m, const char *name, bool memory,
                               uint64_t *ret_pause_ns, struct error *err)
{
        int r = co_machine_turn(m, CHANNEL_PAUSE, err);

        *ret_pause_ns = memory ? 1000000 : 0;
        return r < 0 ? r : co_machine_turn(m, CHANNEL_RESUME, err);
}

void __wrap_machine_disk_lost(struct machine *m, const char *id)
{
}

void __wrap_machine_disk_removed(struct machine *m, const char *id)
{
}

void __wrap_machine_nic_lost(struct machine *m, const char *id)
{
}

int __wrap_change_set(struct known *k, const char *word, struct error *err)
{
        return strchr(word, '=') ? 0 : error_set(err, -EINVAL, "'%s' is no property", word);
}

int __wrap_change_add_disk(struct known *k, const struct vm_disk *disk, struct error *err)
{
        return 0;
}

int __wrap_change_drop_disk(struct known *k, const struct vm_disk *disk, struct error *err)
{
        return 0;
}

int __wrap_saved_list(const char *machine, json_t **ret_list, struct error *err)
{
        *ret_list = json_array();
        return *ret_list ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* ---- clients ---- */

/* Each line is an object that says how it went, and answers one that was sent. */
static void check_line(struct client *c, const char *line, size_t length)
{
        json_t *reply = json_loadb(line, length, 0, NULL);

        assert(json_is_object(reply));
        assert(json_object_get(reply, "ok") || json_object_get(reply, "error"));
        assert(c->n_lines > 0);
        c->n_lines--;
        c->may_be_console = length == 11 && memcmp(line, "{\"ok\":true}", 11) == 0;
        json_decref(reply);
}

/* @n bytes more have come. From the console's answer on all is what the guest says. */
static void take_lines(struct client *c, size_t n)
{
        char *at = c->text, *end;

        for (c->n += n; c->n > 0; at = end + 1) {
                if (*at == GUEST_SAYS) {
                        assert(c->may_be_console);
                        c->n = 0;
                }
                end = memchr(at, '\n', c->n);
                if (!end)
                        break;
                check_line(c, at, (size_t)(end - at));
                c->n -= (size_t)(end + 1 - at);
        }
        memmove(c->text, at, c->n);
}

static void take_replies(struct client *c)
{
        ssize_t more;

        while (c->fd >= 0 &&
               (more = recv(c->fd, c->text + c->n, sizeof(c->text) - c->n, MSG_DONTWAIT)) > 0)
                take_lines(c, (size_t)more);
        assert(c->n < sizeof(c->text));
}

static void settle(struct scene *s)
{
        fuzz_loop_settle(s->loop);
        for (unsigned i = 0; i < CLIENTS; i++)
                if (!s->clients[i].deaf)
                        take_replies(&s->clients[i]);
}

/* What is over 8 KiB without an end is answered, too, and once. */
static void count_lines(struct client *c, const uint8_t *data, size_t n)
{
        for (size_t i = 0; i < n; i++)
                c->n_lines += data[i] == '\n';
}

static void flush(struct scene *s)
{
        struct client *c = s->at;
        size_t at = 0;

        while (c->fd >= 0 && at < s->out.n) {
                ssize_t n =
                    send(c->fd, s->out.bytes + at, s->out.n - at, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n <= 0)
                        break;
                count_lines(c, s->out.bytes + at, (size_t)n);
                at += (size_t)n;
                settle(s);
        }
        settle(s);
        s->out.n = 0;
}

static void hang_up(struct client *c)
{
        if (c->fd >= 0)
                close(c->fd);
        c->fd = -1;
}

static void arrive(struct scene *s, struct client *c)
{
        if (c->fd >= 0)
                return;
        c->fd = fuzz_connect(s->m.control);
        c->n_lines = 1; /* for one that is too long */
        c->n = 0;
        c->deaf = c->may_be_console = false;
}

static void play_client(struct scene *s, struct input *in)
{
        uint8_t kind = input_u8(in);

        s->at = &s->clients[(kind >> 4) & 3];
        s->out.n = 0;
        switch (kind & 7) {
        case 0:
                hang_up(s->at);
                break;
        case 1:
                if (s->at->fd >= 0)
                        shutdown(s->at->fd, kind & 8 ? SHUT_RDWR : SHUT_WR);
                break;
        case 2:
                for (unsigned i = 0; i < (kind & 8 ? CLIENTS : 0); i++)
                        arrive(s, &s->clients[i]);
                break;
        case 3:
                s->at->deaf = kind & 8;
                break;
        default:
                arrive(s, s->at);
        }
}

/* ---- the VMM and its guest ---- */

static void take_orders(struct scene *s)
{
        struct channel_message order;
        int fd;

        while (s->vmm >= 0 && s->n_orders < ORDERS_MAX &&
               channel_receive_order(s->vmm, &order, &fd) == 1)
                s->orders[s->n_orders++] = order.number;
}

static void answer(struct scene *s, unsigned i, int result)
{
        struct channel_message m = {
            .kind = CHANNEL_ANSWER, .number = s->orders[i], .result = result};

        if (result < 0)
                strcpy(m.text, "the VMM does not want to");
        (void)channel_send(s->vmm, &m, -1, false);
        s->orders[i] = s->orders[--s->n_orders];
}

/* All orders, or one of them, which may fail. */
static void play_answers(struct scene *s, struct input *in)
{
        uint8_t kind = input_u8(in);

        take_orders(s);
        while (kind & 0x80 && s->n_orders > 0)
                answer(s, 0, 0);
        if (s->n_orders > 0)
                answer(s, kind % s->n_orders, kind & 0x40 ? -EIO : 0);
}

/* A message that is right, but for a piece that the input lays over it. */
static void play_event(struct scene *s, struct input *in)
{
        uint8_t kind = input_u8(in);
        struct channel_message m = {
            .kind = CHANNEL_READY + kind % 10, .number = input_u8(in), .id = "disk0"};
        const uint8_t *bytes;
        size_t n = kind & 0x80 ? input_take(in, input_u8(in), &bytes) : 0;

        if (n > 0)
                memcpy(&m, bytes, n);
        if (s->vmm >= 0)
                (void)channel_send(s->vmm, &m, -1, false);
}

static void vmm_ends(struct scene *s)
{
        if (s->vmm >= 0)
                close(s->vmm);
        s->vmm = -1;
        s->n_orders = 0;
}

static void guest_says(struct scene *s, struct input *in)
{
        size_t n = input_number(in, CONSOLE_KEPT) % (2 * CONSOLE_KEPT);

        while (n > 0) {
                uint8_t *place;
                size_t room = console_room(&s->m.console, &place);

                room = room < n ? room : n;
                if (room == 0)
                        return;
                memset(place, GUEST_SAYS, room);
                console_add(&s->m.console, room);
                n -= room;
        }
}

static void guest_reads(struct scene *s)
{
        uint8_t typed[4096];

        while (recv(s->serial, typed, sizeof(typed), MSG_DONTWAIT) > 0)
                ;
}

/* ---- the play ---- */

static const char *const words[] = {
    "{\"command\":\"show\"}\n",
    "{\"command\":\"console\"}\n",
    "{\"command\":\"pause\"}\n",
    "{\"command\":\"resume\"}\n",
    "{\"command\":\"reset\"}\n",
    "{\"command\":\"power-button\"}\n",
    "{\"command\":\"stop\"}\n",
    "{\"command\":\"stop\",\"force\":true}\n",
    "{\"command\":\"stop\",\"timeout\":",
    "{\"command\":\"attach\",\"volume\":\"tank/more\"}\n",
    "{\"command\":\"detach\",\"volume\":\"tank/web\"}\n",
    "{\"command\":\"attach\",\"volume\":\"",
    "{\"command\":\"set\",\"properties\":[\"memory=1G\"]}\n",
    "{\"command\":\"set\",\"properties\":[",
    "{\"command\":\"snapshot\",\"snapshot\":\"monday\"}\n",
    "{\"command\":\"snapshot\",\"disks_only\":true,\"snapshot\":",
    "{\"command\":\"x\",\"command\":\"show\"}\n",
    "{\"command\":\"\\u0000\"}\n",
    "{\"command\":[]}\n",
    "{}\n",
    "{\"command\":",
    ",\"readonly\":true",
    "\"cpus=2\"",
    "\"",
    "}\n",
    "]}\n",
    "\"}\n",
    "[",
    "{",
    "-1",
    "99999999999999999999",
    "1e999",
    "null",
    "\xff",
    "\\ud800",
    ",",
};

static void play(struct scene *s, struct input *in)
{
        while (in->left > 0)
                switch (input_u8(in) & 15) {
                case 0 ... 3:
                        input_words(in, words, sizeof(words) / sizeof(words[0]), &s->out);
                        break;
                case 4:
                        output_put(&s->out, "\n", 1);
                        break;
                case 5:
                case 6:
                        flush(s);
                        break;
                case 7:
                        play_client(s, in);
                        break;
                case 8:
                        take_replies(s->at);
                        break;
                case 9:
                        play_answers(s, in);
                        break;
                case 10:
                        play_event(s, in);
                        break;
                case 11:
                        if (input_u8(in) == 0)
                                vmm_ends(s);
                        break;
                case 12:
                        guest_says(s, in);
                        break;
                case 13:
                        guest_reads(s);
                        break;
                case 14:
                        fuzz_loop_step(s->loop);
                        break;
                case 15:
                        fuzz_loop_advance(s->loop, input_u8(in) * MACHINE_SECOND_NS);
                }
}

/* ---- its life ---- */

static void parse_files(struct scene *s)
{
        static const char text[] = "name: web\nmemory: 512M\nmemory-max: 2G\nkernel: /k\n"
                                   "disks:\n  - volume: tank/web\n  - volume: tank/tools@may\n";
        struct error e = ERROR_INIT;

        if (vm_file_parse(text, sizeof(text) - 1, "web", "/", &s->known.file, &e) < 0 ||
            vm_file_parse(text, sizeof(text) - 1, "web", "/", &s->m.started, &e) < 0)
                abort();
        strcpy(s->known.name, "web");
        s->known.lock = -1;
}

/* As run.c does it, with a guest that runs. */
static void make_machine(struct scene *s)
{
        struct vm_file *started = s->m.started;
        int channel[2], serial[2];

        if (channel_open(channel, NULL) < 0 ||
            socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, serial) < 0)
                abort();
        memset(&s->m, 0, sizeof(s->m));
        s->m.loop = s->loop;
        s->m.known = &s->known;
        s->m.started = started;
        s->m.state = MACHINE_RUNNING;
        s->m.channel_open = s->m.ready = true;
        s->m.channel = channel[0];
        s->vmm = channel[1];
        s->serial = serial[1];
        list_init(&s->m.waits);
        list_init(&s->m.orders);
        list_init(&s->m.disks);
        co_queue_init(&s->m.changed);
        console_init(&s->m.console, serial[0], -1);
        s->m.control = fuzz_listen();
        if (machine_disks_init(&s->m, NULL) < 0 ||
            machine_spawn(&s->m, co_machine_listen, &s->m) < 0 ||
            machine_spawn(&s->m, co_machine_control, &s->m) < 0)
                abort();
}

static void begin(struct scene *s)
{
        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
                parse_files(s);
        }
        s->lowest_fd = fuzz_lowest_fd();
        fuzz_loop_reset(s->loop);
        make_machine(s);
        s->out.n = 0;
        s->n_orders = 0;
        for (unsigned i = 0; i < CLIENTS; i++)
                s->clients[i].fd = -1;
        s->at = &s->clients[0];
        arrive(s, s->at);
        settle(s);
}

static void co_end(void *arg)
{
        struct machine *m = arg;

        while (m->state != MACHINE_ENDED)
                co_wait(&m->changed);
        co_machine_end(m);
}

static void end(struct scene *s)
{
        flush(s);
        vmm_ends(s);
        fuzz_loop_co_run(s->loop, co_end, &s->m, END_NS);
        assert(s->m.n_clients == 0 && list_empty(&s->m.orders) && !s->m.held && !s->m.disks_locked);
        for (unsigned i = 0; i < CLIENTS; i++) {
                take_replies(&s->clients[i]);
                hang_up(&s->clients[i]);
        }
        machine_disks_free(&s->m);
        close(s->m.control);
        close(s->m.channel);
        close(s->m.console.serial);
        close(s->serial);
        fuzz_loop_reset(s->loop);
        assert(fuzz_lowest_fd() == s->lowest_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct scene scene; /* one at a time */
        struct input in = {data, size};

        begin(&scene);
        play(&scene, &in);
        end(&scene);
        return 0;
}
