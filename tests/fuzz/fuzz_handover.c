/* fuzz_handover.c - an old server that hands over to a new one: its lines, the descriptors that come with
 * them, and what they say of sockets, of clients, and of a pool's attachments. What is saved of a front end
 * is looked at more closely by fuzz_vhost_saved. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/passed_fds.h"
#include "server/attach.h"
#include "server/control.h"
#include "server/listen.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/unit/sim_pool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct scene {
        struct loop *loop;
        struct host host;
        struct control *control;
        struct channel channel;
        int peer, null_fd, listen_fd, lowest_fd, ends[2];
        bool received;
        struct output out;
        struct sim_image *image; /* of a pool with a volume 'web' */
        struct sim_pool pool;
        struct host_pool hp;
};

#define NUMBERED(n) "{\"fd\":" #n ","
static const char *const words[] = {
    "\n",
    "{\"ok\":true,\"fds\":0,\"takeover\":{",
    "{\"ok\":true,\"fds\":1,\"takeover\":{",
    "{\"ok\":true,\"fds\":2,\"takeover\":{",
    "{\"ok\":true,\"fds\":3,\"takeover\":{",
    "}}\n",
    "\"sockets\":{\"nbd\":[",
    NUMBERED(0) "\"address\":\"nbd://x\"}",
    NUMBERED(1) "\"address\":\"nbd://x\"}",
    "],\"control\":" NUMBERED(1) "\"path\":\"/x\"}",
    "],\"control\":" NUMBERED(0) "\"path\":\"/x\"}",
    ",\"files\":[{\"path\":\"/x\",\"device\":1,\"inode\":2}",
    ",{\"path\":\"/y\"}",
    "],\"group\":0}",
    ",\"clients\":[",
    NUMBERED(2) "\"received\":\"7b7d0a\",\"fds\":[],\"subscription\":\"\",\"lost\":0}",
    NUMBERED(0) "\"received\":\"7b\",\"fds\":[1,2],\"subscription\":\"tank\",\"lost\":5}",
    ",\"attachments\":[",
    "{\"target\":\"web\",\"path\":\"/x\",\"queues\":2,\"readonly\":false,\"remembered\":true,"
    "\"own_socket\":false,\"device\":1,\"inode\":2,\"fd\":1,\"clients\":[",
    "{\"target\":\"none\",\"path\":\"/x\",\"group\":\"disk\",\"queues\":1,\"readonly\":true,"
    "\"remembered\":false,\"passing\":true,\"serial\":\"1\",\"machine\":\"web-1\",\"identity\":"
    "\"0-1\",\"own_socket\":false,"
    "\"device\":1,\"inode\":2,\"fd\":0,\"clients\":[",
    "{\"fds\":[2],\"state\":\"",
    "00000000000001000100000040000000", /* a record of facts, and the facts */
    "00000000000000000000000000000000",
    "00000000100000000100000008000000", /* a record of a message */
    "0100000000000000",
    "\"}",
    "]}",
    "{\"error\":{\"code\":\"EBUSY\",\"message\":\"no\",\"hint\":\"wait\"}}\n",
    "{\"go\":true}\n",
    "{\"cancelled\":true}\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"fd\":",
    "\"fds\":",
    "\"received\":\"",
    "ff\"",
    "-1",
    "99",
    "null"};

/* As takeover.c does, in its order. */
static void co_take(struct scene *s, json_t *line)
{
        struct handover h = HANDOVER_INIT;
        struct sockets sockets = SOCKETS_INIT;
        struct error err = ERROR_INIT;
        int r;

        if (json_object_get(line, "error")) {
                r = control_error_parse(line, &err);
                assert(r < 0 && err.message[0]);
                return;
        }
        r = channel_take_fds(&s->channel, &h,
                             (size_t)json_integer_value(json_object_get(line, "fds")));
        h.state = json_incref(json_object_get(line, "takeover"));
        if (r == 0 && json_is_object(h.state))
                r = sockets_take(&sockets, &h, json_object_get(h.state, "sockets"), &err);
        if (r == 0)
                r = sockets_own(&sockets, json_object_get(h.state, "sockets"));
        if (r == 0 && !s->hp.vhost) {
                r = co_attach_restore(&s->hp, &h, json_object_get(h.state, "attachments"), &err);
                assert(r == 0 || err.message[0]);
                if (r == 0)
                        attach_go(&s->hp);
        }
        if (r == 0)
                control_restore(s->control, &h, json_object_get(h.state, "clients"));
        sockets_disown(&sockets);
        sockets_close(&sockets);
        handover_free(&h);
}

static void co_receive(void *arg)
{
        struct scene *s = arg;
        json_t *line;

        while (co_channel_receive(&s->channel, &line) == 0) {
                co_take(s, line);
                json_decref(line);
        }
        s->received = true;
}

static void flush(struct scene *s, unsigned n_fds)
{
        const int some[] = {s->listen_fd, s->listen_fd, s->ends[1], s->null_fd};
        int fds[PASSED_FDS_MAX];
        size_t at = 0;

        for (unsigned i = 0; i < n_fds; i++)
                fds[i] = some[i % 4];
        while (at < s->out.n) {
                ssize_t n = passed_fds_send(s->peer, s->out.bytes + at, s->out.n - at, fds, n_fds,
                                            MSG_DONTWAIT);

                if (n <= 0) /* it has hung up */
                        break;
                at += (size_t)n;
                n_fds = 0;
                fuzz_loop_settle(s->loop);
        }
        s->out.n = 0;
        fuzz_loop_settle(s->loop);
}

static void play(struct scene *s, struct input *in)
{
        uint8_t kind;

        while (in->left > 0)
                switch ((kind = input_u8(in)) & 7) {
                case 4:
                        flush(s, 0);
                        break;
                case 5:
                        flush(s, (kind >> 3) % (PASSED_FDS_MAX + 1));
                        break;
                case 6:
                        if (send(s->ends[kind >> 7], "{}\n", 3, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                                break;
                        fuzz_loop_settle(s->loop);
                        break;
                case 7:
                        fuzz_loop_advance(s->loop, UINT64_C(1000000) << (kind >> 4));
                        break;
                default:
                        input_words(in, words, sizeof(words) / sizeof(words[0]), &s->out);
                }
        flush(s, 0);
}

static void co_make_pool(void *arg)
{
        struct sim_pool *pool = arg;

        if (co_sim_pool_create(pool) < 0 ||
            co_volume_create(pool->pool, "web", 1 << 20, NULL) < 0 || co_sim_pool_close(pool) < 0)
                abort();
}

static void co_open_pool(void *arg)
{
        if (co_sim_pool_open(arg, false) < 0)
                abort();
}

static void co_close_pool(void *arg)
{
        if (co_sim_pool_close(arg) < 0)
                abort();
}

static void run(struct scene *s, co_entry *entry, void *arg)
{
        fuzz_loop_co_run(s->loop, entry, arg, UINT64_C(60) * 1000000000);
}

static void begin_pool(struct scene *s)
{
        s->pool = (struct sim_pool){.loop = s->loop, .n_disks = 1};
        s->pool.disk[0] = sim_pool_disk(s->image, 0);
        run(s, co_open_pool, &s->pool);
        s->hp = (struct host_pool){
            .host = &s->host, .loop = s->loop, .name = "tank", .pool = s->pool.pool};
        list_init(&s->hp.exports);
        list_init(&s->hp.bars);
        list_init(&s->hp.openings);
        list_init(&s->hp.attachments);
        list_init(&s->hp.image_bases);
        co_queue_init(&s->hp.opened);
        list_append(&s->host.pools, &s->hp.link);
        s->host.n_pools = 1;
}

static void end_pool(struct scene *s)
{
        run(s, co_close_pool, &s->pool);
        sim_disk_free(s->pool.disk[0]);
}

static void begin_process(struct scene *s)
{
        struct sim_image *empty = sim_image_new(SIM_MEMBER_SIZE);

        fuzz_quiet();
        s->loop = fuzz_loop_new();
        s->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        s->pool = (struct sim_pool){.loop = s->loop, .n_disks = 1};
        s->pool.disk[0] = sim_pool_disk(empty, 0);
        run(s, co_make_pool, &s->pool);
        s->image = sim_disk_visible(s->pool.disk[0]);
        sim_disk_free(s->pool.disk[0]);
        sim_image_free(empty);
}

static void begin(struct scene *s)
{
        int channel[2];

        if (!s->loop)
                begin_process(s);
        s->lowest_fd = fuzz_lowest_fd();
        fuzz_loop_reset(s->loop);
        host_init(&s->host, s->loop);
        begin_pool(s);
        s->out.n = 0;
        s->received = false;
        int r = control_new(&s->host, fuzz_listen(), &s->control, NULL);
        assert(r == 0);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) < 0 ||
            socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s->ends) < 0)
                abort();
        s->peer = channel[1];
        s->listen_fd = fuzz_listen();
        channel_init(&s->channel, s->loop, channel[0]);
        channel_limit(&s->channel, 1000);
        if (co_spawn(s->loop, co_receive, s) < 0)
                abort();
        fuzz_loop_settle(s->loop);
}

static void co_stop(void *arg)
{
        struct scene *s = arg;

        channel_cancel(&s->channel);
        while (!s->received) /* the pool's disks take their time */
                co_sleep_ns(1000000);
        co_attach_stop(&s->host);
        co_control_stop(s->control);
}

static void end(struct scene *s)
{
        run(s, co_stop, s);
        channel_close(&s->channel);
        close(s->peer);
        close(s->listen_fd);
        close(s->ends[0]);
        close(s->ends[1]);
        fuzz_loop_settle(s->loop);
        control_free(s->control);
        end_pool(s);
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
