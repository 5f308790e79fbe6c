/* fuzz_state.c - the file that says where a pool's members are and who serves it: read, written, and read
 * again. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/state.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define UUID "\"00112233-4455-6677-8899-aabbccddeeff\""
static const char *const words[] = {
    "{\"version\":1,\"name\":\"tank\",\"uuid\":" UUID,
    ",\"members\":[",
    "{\"path\":\"/dev/sda\",\"uuid\":" UUID "}",
    "{\"path\":\"/dev/sdb\",\"uuid\":\"ffeeddcc-4455-6677-8899-aabbccddeeff\"}",
    ",",
    "]",
    "}",
    ",\"server\":{\"control\":\"/run/x\",\"pid\":17,\"nbd\":[",
    "\"nbd+unix:///?socket=x\"",
    ",\"attachments\":[",
    "{\"name\":\"web\",\"path\":\"/run/w\",\"queues\":2,\"readonly\":false}",
    "{\"name\":\"web@one\",\"path\":\"/run/o\",\"queues\":1,\"readonly\":true,\"group\":\"disk\"}",
    "{",
    "[",
    ":",
    "\"name\"",
    "\"path\"",
    "\"uuid\"",
    "\"queues\"",
    "\"group\"",
    "\"pid\"",
    UUID,
    "\"tank\"",
    "\"\\u0000\"",
    "65536",
    "-1",
    "1e30",
    "null",
    "\n",
    "\xff"};

static char folder[] = "/tmp/tarn-fuzz-state-XXXXXX";
static char path[sizeof(folder) + 16];

/* The disk's cache is no matter here, and waiting for it most of the time. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
        return 0;
}

static void leave(void)
{
        unlink(path);
        rmdir(folder);
}

static void begin(void)
{
        fuzz_quiet();
        if (!mkdtemp(folder) || setenv("TARN_STATE_DIR", folder, 1) < 0)
                abort();
        snprintf(path, sizeof(path), "%s/tank.json", folder);
        atexit(leave);
}

static void check(const struct pool_state *s)
{
        assert(s->n_members <= POOL_MEMBERS_MAX && s->n_server_nbd <= STATE_SOCKETS_MAX &&
               s->n_attachments <= STATE_ATTACHMENTS_MAX);
        for (size_t i = 0; i < s->n_members; i++)
                assert(s->members[i].path);
        for (size_t i = 0; i < s->n_attachments; i++)
                assert(s->attachments[i].path[0] == '/' && s->attachments[i].n_queues > 0);
}

static void check_equal(const struct pool_state *a, const struct pool_state *b)
{
        assert(strcmp(a->name, b->name) == 0 && memcmp(a->uuid, b->uuid, 16) == 0);
        assert(a->n_members == b->n_members && a->n_server_nbd == b->n_server_nbd &&
               a->n_attachments == b->n_attachments);
        for (size_t i = 0; i < a->n_members; i++)
                assert(strcmp(a->members[i].path, b->members[i].path) == 0);
        for (size_t i = 0; i < a->n_attachments; i++)
                assert(strcmp(a->attachments[i].target, b->attachments[i].target) == 0);
}

/* What could be read is what is read again. */
static void write_and_read(const struct pool_state *state)
{
        struct pool_state *again = NULL;

        if (strcmp(state->name, "tank") != 0)
                return; /* it goes to another file */
        int r = state_save(state, NULL);
        assert(r == 0);
        r = state_load("tank", &again, NULL);
        assert(r == 0);
        check_equal(state, again);
        state_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct output out;
        struct input in = {data, size};
        struct pool_state *state = NULL;
        struct error err = ERROR_INIT;

        if (!path[0])
                begin();
        for (out.n = 0; in.left > 0;)
                input_words(&in, words, sizeof(words) / sizeof(words[0]), &out);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, out.bytes, out.n) != (ssize_t)out.n)
                abort();
        close(fd);
        if (state_load("tank", &state, &err) == 0) {
                check(state);
                write_and_read(state);
                state_free(state);
        } else {
                assert(err.message[0]);
        }
        return 0;
}
