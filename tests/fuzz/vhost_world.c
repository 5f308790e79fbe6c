/* vhost_world.c - see vhost_world.h: the device, its files, its beginning and its end. */
#include "tests/fuzz/vhost_world.h"
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATTERN 0xa5

/* ---- files ---- */

static int make_memory(size_t length)
{
        int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        if (fd < 0 || ftruncate(fd, (off_t)length) < 0)
                abort();
        return fd;
}

static void make_files(struct vhost_world *w)
{
        int ends[2];

        w->files[VW_GUEST_FILE] = make_memory(VW_FILE_BYTES);
        w->files[VW_INFLIGHT] = make_memory(VW_INFLIGHT_FILE);
        w->files[VW_LOG] = make_memory(4096);
        w->files[VW_SEALED] = make_memory(VW_FILE_BYTES);
        fcntl(w->files[VW_SEALED], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
        w->files[VW_EMPTY] = make_memory(0);
        w->files[VW_LARGE] = make_memory(1u << 30);
        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
                abort();
        w->files[VW_PIPE] = ends[0];
        w->files[VW_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* Those that keep a state which cannot be set back. */
static void make_events(struct vhost_world *w)
{
        int ends[2];

        w->files[VW_EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        w->files[VW_KICK] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
                abort();
        w->files[VW_SOCKET] = ends[0];
        w->socket_peer = ends[1];
}

static void close_events(struct vhost_world *w)
{
        close(w->files[VW_EVENT]);
        close(w->files[VW_KICK]);
        close(w->files[VW_SOCKET]);
        close(w->socket_peer);
}

static void fill_file(int fd, size_t length)
{
        static uint8_t bytes[VW_FILE_BYTES];

        assert(length <= sizeof(bytes));
        memset(bytes, PATTERN, length);
        if (ftruncate(fd, (off_t)length) < 0 || pwrite(fd, bytes, length, 0) != (ssize_t)length)
                abort();
}

static void zero(int fd, uint64_t at, size_t length)
{
        static const uint8_t zeroes[VW_FILE_BYTES];

        if (pwrite(fd, zeroes, length, (off_t)at) != (ssize_t)length)
                abort();
}

static void clear_files(struct vhost_world *w)
{
        int guest = w->files[VW_GUEST_FILE], inflight = w->files[VW_INFLIGHT];

        if (w->shrunk || w->foreign)
                fill_file(guest, VW_FILE_BYTES);
        if (w->foreign)
                fill_file(inflight, VW_INFLIGHT_FILE);
        w->shrunk = w->foreign = false;
        zero(guest, VW_FIRST_AT, VW_FIRST_BYTES);
        zero(guest, VW_SECOND_AT, VW_SECOND_BYTES);
        zero(inflight, VW_INFLIGHT_AT, VW_INFLIGHT_BYTES);
}

static void check_pattern(const uint8_t *bytes, size_t from, size_t end)
{
        static uint8_t pattern[VW_FILE_BYTES];

        if (pattern[0] != PATTERN)
                memset(pattern, PATTERN, sizeof(pattern));
        if (memcmp(bytes + from, pattern, end - from) != 0) {
                fprintf(stderr, "a file was written beside the regions, from %#zx to %#zx\n", from,
                        end);
                abort();
        }
}

static void check_files(struct vhost_world *w)
{
        static uint8_t bytes[VW_FILE_BYTES];

        if (w->foreign)
                return;
        if (!w->shrunk) {
                if (pread(w->files[VW_GUEST_FILE], bytes, VW_FILE_BYTES, 0) != VW_FILE_BYTES)
                        abort();
                check_pattern(bytes, 0, VW_FIRST_AT);
                check_pattern(bytes, VW_FIRST_AT + VW_FIRST_BYTES, VW_SECOND_AT);
                check_pattern(bytes, VW_SECOND_AT + VW_SECOND_BYTES, VW_FILE_BYTES);
        }
        if (pread(w->files[VW_INFLIGHT], bytes, VW_INFLIGHT_FILE, 0) != VW_INFLIGHT_FILE)
                abort();
        check_pattern(bytes, 0, VW_INFLIGHT_AT);
        check_pattern(bytes, VW_INFLIGHT_AT + VW_INFLIGHT_BYTES, VW_INFLIGHT_FILE);
}

/* Not across the border of the regions. */
void vw_read(struct vhost_world *w, uint64_t offset, void *data, size_t length)
{
        uint64_t at =
            offset < VW_FIRST_BYTES ? VW_FIRST_AT + offset : VW_SECOND_AT + offset - VW_FIRST_BYTES;

        memset(data, 0, length);
        if (!w->shrunk && offset < VW_BYTES &&
            pread(w->files[VW_GUEST_FILE], data, length, (off_t)at) < 0)
                abort();
}

void vw_write(struct vhost_world *w, uint64_t offset, const void *data, size_t length)
{
        const uint8_t *from = data;

        if (w->shrunk || offset >= VW_BYTES)
                return;
        if (length > VW_BYTES - offset)
                length = VW_BYTES - offset;
        while (length > 0) {
                bool first = offset < VW_FIRST_BYTES;
                size_t here = first && length > VW_FIRST_BYTES - offset
                                  ? (size_t)(VW_FIRST_BYTES - offset)
                                  : length;
                uint64_t at = first ? VW_FIRST_AT + offset : VW_SECOND_AT + offset - VW_FIRST_BYTES;
                if (pwrite(w->files[VW_GUEST_FILE], from, here, (off_t)at) != (ssize_t)here)
                        abort();
                from += here;
                offset += here;
                length -= here;
        }
}

/* ---- running ---- */

void vw_settle(struct vhost_world *w)
{
        interleave_run();
        fuzz_loop_settle(w->loop);
        interleave_stop();
}

void vw_step(struct vhost_world *w)
{
        interleave_run();
        fuzz_loop_step(w->loop);
        interleave_stop();
}

void vw_connect(struct vhost_world *w, unsigned client)
{
        if (w->clients[client] >= 0)
                close(w->clients[client]);
        w->clients[client] = fuzz_connect(w->listen_fd);
        vw_settle(w);
}

/* ---- beginning ---- */

static int co_open(void *arg, struct vhost_client *client, struct vhost_volume *ret,
                   struct error *err)
{
        struct vhost_world *w = arg;

        co_yield_loop(); /* as one that has to read */
        *ret = (struct vhost_volume){.volume = w->volume, .discard = true};
        snprintf(ret->serial, sizeof(ret->serial), "twenty bytes, not 21");
        w->n_open++;
        return 0;
}

static void co_close(void *arg, struct vhost_volume *volume)
{
        struct vhost_world *w = arg;

        co_yield_loop();
        assert(w->n_open > 0 && volume->volume == w->volume);
        w->n_open--;
}

static void device_new(struct vhost_world *w, int fd, bool held)
{
        struct vhost_device_options device = {.name = "pool/vol",
                                              .n_queues = VW_QUEUES,
                                              .volumes = {co_open, co_close, w},
                                              .held = held};
        struct error err = ERROR_INIT;
        int r = vhost_device_new(w->server, &device, fd, &w->device, &err);

        assert(r == 0);
}

static void start(struct vhost_world *w, struct input *in)
{
        struct error err = ERROR_INIT;
        uint8_t limits = input_u8(in);
        struct vhost_server_options options = {.no_polling = limits & 1};

        if (limits & 2)
                options.max_bytes = 64u << 10;
        if (limits & 4)
                options.max_total_bytes = 64u << 10;
        w->listen_fd = fuzz_listen();
        int r = vhost_server_new(w->loop, &options, &w->server, &err);
        assert(r == 0);
        device_new(w, w->listen_fd, false);
}

struct vhost_world *vw_new(struct input *in)
{
        static struct vhost_world world; /* one at a time */
        struct vhost_world *w = &world;

        if (!w->loop) {
                fuzz_quiet();
                w->loop = fuzz_loop_new();
                w->volume = fake_volume_new(w->loop, VW_VOL_BYTES);
                make_files(w);
                fill_file(w->files[VW_GUEST_FILE], VW_FILE_BYTES);
                fill_file(w->files[VW_INFLIGHT], VW_INFLIGHT_FILE);
        }
        w->lowest_fd = fuzz_lowest_fd();
        fuzz_loop_reset(w->loop);
        /* A ring that feeds itself: its available index lies where its used index does. */
        fuzz_loop_allow_busy(w->loop, true);
        interleave_forget();
        make_events(w);
        clear_files(w);
        w->n_open = w->n_disconnecting = w->at = w->n_written = w->n_flips = 0;
        w->features = 0;
        w->packed = false;
        memset(w->queues, 0, sizeof(w->queues));
        start(w, in);
        for (unsigned i = 0; i < VW_CLIENTS; i++)
                w->clients[i] = -1;
        vw_connect(w, 0);
        return w;
}

/* ---- from one server to the next ---- */

static void keep(struct vhost_saved *saved, void *arg)
{
        struct vhost_world *w = arg;

        assert(w->n_saved < VW_SAVED_MAX);
        w->saved[w->n_saved++] = *saved;
}

static void co_save_end(void *arg)
{
        struct vhost_world *w = arg;

        w->listen_fd = co_vhost_device_save_end(w->device);
}

struct restoring {
        struct vhost_world *w;
        bool all;
};

static void co_restore(void *arg)
{
        struct restoring *to = arg;
        struct vhost_world *w = to->w;

        for (unsigned i = 0; i < w->n_saved; i++) {
                struct error err = ERROR_INIT;
                int r = co_vhost_device_restore(w->device, &w->saved[i], &err);

                assert(w->saved[i].n_fds == 0 && !w->saved[i].bytes);
                assert(r == 0 || err.message[0]);
                to->all = to->all && r == 0;
        }
}

bool vw_pass_on(struct vhost_world *w, struct input *in,
                void (*change)(struct vhost_saved *saved, struct vhost_world *w, struct input *in))
{
        struct restoring to = {w, true};

        vw_settle(w);
        interleave_forget();
        fake_release_all(w->volume);
        w->n_saved = 0;
        vhost_device_save(w->device, keep, w);
        fuzz_loop_co_run(w->loop, co_save_end, w, UINT64_C(60) * 1000000000);
        for (unsigned i = 0; i < w->n_saved; i++)
                change(&w->saved[i], w, in);
        device_new(w, w->listen_fd, true);
        fuzz_loop_co_run(w->loop, co_restore, &to, UINT64_C(60) * 1000000000);
        vhost_device_go(w->device);
        vw_settle(w);
        return to.all;
}

/* ---- end ---- */

static void co_end(void *arg)
{
        struct vhost_world *w = arg;

        co_vhost_device_free(w->device);
}

void vw_free(struct vhost_world *w)
{
        vw_settle(w);
        interleave_forget();
        fake_release_all(w->volume);
        fuzz_loop_co_run(w->loop, co_end, w, UINT64_C(60) * 1000000000);
        fuzz_loop_allow_busy(w->loop, false); /* nobody is left to */
        fuzz_loop_settle(w->loop);
        for (unsigned i = 0; i < VW_CLIENTS; i++)
                if (w->clients[i] >= 0)
                        close(w->clients[i]);
        assert(w->n_open == 0 && w->n_disconnecting == 0);
        vhost_server_free(w->server);
        fake_volume_reset(w->volume);
        close_events(w);
        check_files(w);
        fuzz_loop_reset(w->loop);
        assert(fuzz_lowest_fd() == w->lowest_fd);
}
