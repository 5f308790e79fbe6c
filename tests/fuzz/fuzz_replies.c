/* fuzz_replies.c - what a server answers to a command: lines of progress, events, a reply, an error; or
 * anything else. */
#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/client.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {"{\"progress\":{\"done\":1,\"total\":2}}\n",
                                    "{\"ok\":true}\n",
                                    "{\"event\":\"full\",\"time\":\"now\",\"pool\":\"tank\"}\n",
                                    "{\"error\":{\"code\":\"ENOENT\",\"message\":\"none\"}}\n",
                                    "\n",
                                    "{",
                                    "}",
                                    "[",
                                    "]",
                                    ",",
                                    ":",
                                    "\"error\":",
                                    "\"code\":",
                                    "\"message\":",
                                    "\"hint\":",
                                    "\"progress\":",
                                    "\"done\":",
                                    "\"event\":",
                                    "\"ok\":",
                                    "\"EIO\"",
                                    "null",
                                    "1e99",
                                    "-1",
                                    "9223372036854775807",
                                    "\"%s%n\"",
                                    "\"\\u0000\""};

struct seen {
        unsigned n_progress, n_events;
};

static void progress(void *arg, uint64_t done, uint64_t total, bool verifying)
{
        ((struct seen *)arg)->n_progress++;
}

static void event(void *arg, json_t *line)
{
        assert(json_object_get(line, "event"));
        ((struct seen *)arg)->n_events++;
}

static void ask(int fd, bool subscribe)
{
        struct seen seen = {0};
        struct client_call call = {.request = json_pack("{s:s}", "command", "pool-status"),
                                   .progress = progress,
                                   .event = subscribe ? event : NULL,
                                   .arg = &seen,
                                   .signal_fd = -1};
        struct error err = ERROR_INIT;
        json_t *reply = NULL;
        int r = client_run(fd, &call, &reply, &err);

        assert(r == 0 ? reply && !err.message[0] : r < 0 && !reply && err.message[0]);
        json_decref(reply);
        json_decref(call.request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct output out;
        struct input in = {data, size};
        uint8_t how = input_u8(&in);
        int ends[2], room = OUTPUT_MAX;

        for (out.n = 0; in.left > 0;)
                input_words(&in, words, sizeof(words) / sizeof(words[0]), &out);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ||
            setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) < 0)
                abort();
        /* All of it lies there before it is asked for, and nothing comes afterwards. */
        if (send(ends[1], out.bytes, out.n, MSG_DONTWAIT) < 0 && out.n > 0)
                abort();
        shutdown(ends[1], SHUT_WR);
        ask(ends[0], how & 1);
        close(ends[0]);
        close(ends[1]);
        return 0;
}
