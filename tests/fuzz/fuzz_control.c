/* fuzz_control.c - clients of the control socket, with no pool behind it: what it takes off the
 * wire. No pool, because commands name files and sockets, and would make and overwrite them. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/passed_fds.h"
#include "server/control.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"

#define CLIENTS 3u

struct scene {
        struct loop *loop;
        struct host host;
        struct control *control;
        int listen_fd, lowest_fd, null_fd;
        int clients[CLIENTS]; /* -1: none */
        unsigned at;
        struct output out;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each line of a reply is an object that says how it went. */
static void check_line(const char *line, size_t length)
{
        json_t *reply = json_loadb(line, length, 0, NULL);

        assert(json_is_object(reply));
        assert(json_object_get(reply, "ok") || json_object_get(reply, "error"));
        json_decref(reply);
}

static void take_replies(struct scene *s)
{
        static char text[256 << 10];
        size_t n = 0;
        ssize_t more;
        int fd = s->clients[s->at];

        while (fd >= 0 && (more = recv(fd, text + n, sizeof(text) - n, MSG_DONTWAIT)) > 0)
                n += (size_t)more;
        for (char *at = text, *end; n > 0 && (end = memchr(at, '\n', n)); at = end + 1) {
                check_line(at, (size_t)(end - at));
                n -= (size_t)(end + 1 - at);
        }
}

static void flush(struct scene *s, unsigned n_fds)
{
        int fds[PASSED_FDS_MAX];
        size_t at = 0;

        for (unsigned i = 0; i < n_fds; i++)
                fds[i] = s->null_fd;
        while (s->clients[s->at] >= 0 && at < s->out.n) {
                ssize_t n = passed_fds_send(s->clients[s->at], s->out.bytes + at, s->out.n - at,
                                            fds, n_fds, MSG_DONTWAIT);

                if (n <= 0)
                        break;
                at += (size_t)n;
                n_fds = 0;
                fuzz_loop_settle(s->loop);
                take_replies(s);
        }
        fuzz_loop_settle(s->loop);
        take_replies(s);
        s->out.n = 0;
}

static void play_words(struct scene *s, struct input *in)
{
        static const char *const words[] = {"{\"command\":\"pool-status\",\"pool\":\"tank\"}\n",
                                            "{\"command\":\"events\"}\n",
                                            "{\"command\":\"events\",\"pool\":\"tank\"}\n",
                                            "{\"command\":1,\"pool\":[]}\n",
                                            "{\"command\":\"x\",\"pool\":\"\\u0000\"}\n",
                                            "{\"a\":1,\"a\":2}\n",
                                            "{}\n",
                                            "\n",
                                            "{",
                                            "}",
                                            "[",
                                            "]",
                                            "\"command\":",
                                            "\"pool\":",
                                            "\"tank\"",
                                            "\\\"",
                                            "null",
                                            "1e999",
                                            "true",
                                            "\xff",
                                            "\\ud800",
                                            ","};
        const char *word = words[input_u8(in) % (sizeof(words) / sizeof(words[0]))];

        output_put(&s->out, word, strlen(word));
}

static void play_bytes(struct scene *s, struct input *in)
{
        uint8_t kind = input_u8(in);
        const uint8_t *at;
        size_t n = input_take(in, kind & 31, &at);

        output_put(&s->out, at, n);
        if (n > 0 && kind >= 0xe0) /* long lines, and deep ones */
                output_fill(&s->out, at[0], (size_t)n << 12);
        else if (n > 0 && kind >= 0xc0)
                output_fill(&s->out, at[0], n);
}

static void play_client(struct scene *s, struct input *in)
{
        uint8_t kind = input_u8(in);

        s->at = (kind >> 4) % CLIENTS;
        s->out.n = 0;
        int *fd = &s->clients[s->at];
        if ((kind & 3) == 0 && *fd >= 0) {
                close(*fd);
                *fd = -1;
        } else if ((kind & 3) == 1 && *fd >= 0) {
                shutdown(*fd, kind & 4 ? SHUT_RDWR : SHUT_WR);
        } else if ((kind & 3) == 2 && *fd < 0) {
                *fd = fuzz_connect(s->listen_fd);
        }
}

static void play(struct scene *s, struct input *in)
{
        while (in->left > 0)
                switch (input_u8(in) & 7) {
                case 0:
                case 1:
                        play_words(s, in);
                        break;
                case 2:
                        play_bytes(s, in);
                        break;
                case 3:
                        flush(s, 0);
                        break;
                case 4:
                        flush(s, input_u8(in) % (PASSED_FDS_MAX + 1));
                        break;
                case 5:
                        play_client(s, in);
                        break;
                case 6:
                        fuzz_loop_step(s->loop);
                        break;
                case 7:
                        output_put(&s->out, "\n", 1);
                }
}

static void co_stop(void *arg)
{
        co_control_stop(((struct scene *)arg)->control);
}

static void begin(struct scene *s)
{
        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
                s->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        }
        s->lowest_fd = fuzz_lowest_fd();
        fuzz_loop_reset(s->loop);
        host_init(&s->host, s->loop);
        s->out.n = 0;
        s->at = 0;
        s->listen_fd = fuzz_listen();
        int r = control_new(&s->host, s->listen_fd, &s->control, NULL);
        assert(r == 0);
        for (unsigned i = 0; i < CLIENTS; i++)
                s->clients[i] = -1;
        s->clients[0] = fuzz_connect(s->listen_fd);
        fuzz_loop_settle(s->loop);
}

static void end(struct scene *s)
{
        flush(s, 0);
        fuzz_loop_co_run(s->loop, co_stop, s, UINT64_C(60) * 1000000000);
        control_free(s->control);
        for (unsigned i = 0; i < CLIENTS; i++)
                if (s->clients[i] >= 0)
                        close(s->clients[i]);
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
