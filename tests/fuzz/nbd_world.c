/* nbd_world.c - see nbd_world.h: the server, its beginning and its end. */
#include "tests/fuzz/nbd_world.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define STOP_MS 2000u

/* ---- beginning ---- */

/* Keys are enough for STARTTLS and all that may come wrong behind it. */
static struct nbd_tls *make_tls(void)
{
        static const char keys[] = "fuzz:00112233445566778899aabbccddeeff\n";
        struct error err = ERROR_INIT;
        struct nbd_tls *tls = NULL;
        char path[32];
        int fd = memfd_create("keys", MFD_CLOEXEC);

        if (fd < 0 || write(fd, keys, sizeof(keys) - 1) != sizeof(keys) - 1)
                abort();
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        struct nbd_tls_options options = {.psk = path};
        if (nbd_tls_new(&options, &tls, &err) < 0) {
                fprintf(stderr, "%s\n", err.message);
                abort();
        }
        close(fd);
        return tls;
}

static struct nbd_server_options take_options(struct input *in)
{
        uint8_t limits = input_u8(in), tls = input_u8(in);
        struct nbd_server_options options = {0};

        if (limits & 1)
                options.max_requests = 1 + (limits >> 4);
        if (limits & 2)
                options.max_bytes = UINT64_C(128) << 10;
        if (limits & 4)
                options.max_total_bytes = UINT64_C(256) << 10;
        if (limits & 8) {
                options.idle_timeout_ms = 1000;
                options.max_handshakes = 1;
        }
        options.tls_mode = tls % 8 < 6    ? NBD_TLS_OFF
                           : tls % 8 == 6 ? NBD_TLS_ALLOW
                                          : NBD_TLS_REQUIRE;
        return options;
}

struct world *world_new(struct input *in)
{
        static struct loop *loop;
        static struct nbd_tls *tls;
        static struct world world;
        static struct volume *volume, *snapshot, *big;
        struct world *w = &world;
        struct error err = ERROR_INIT;

        if (!loop) {
                fuzz_quiet();
                loop = fuzz_loop_new();
                tls = make_tls();
                volume = fake_volume_new(loop, WORLD_VOL_BYTES);
                snapshot = fake_volume_new(loop, WORLD_VOL_BYTES);
                big = fake_volume_new_empty(loop, WORLD_BIG_BYTES);
        }
        memset(w, 0, offsetof(struct world, out));
        w->out.n = 0;
        w->lowest_fd = fuzz_lowest_fd();
        fuzz_loop_reset(loop);
        w->loop = loop;
        w->exports = (struct fake_exports){.volume = volume,
                                           .snapshot = snapshot,
                                           .big = big,
                                           .description = "a volume",
                                           .n_snapshots = 10};
        struct nbd_exports exports = fake_exports_calls(&w->exports);
        struct nbd_server_options options = take_options(in);
        options.tls = options.tls_mode == NBD_TLS_OFF ? NULL : tls;
        w->listen_fd = fuzz_listen();
        int r = nbd_server_new(loop, &options, &exports, &w->server, &err);
        assert(r == 0);
        r = nbd_server_listen(w->server, w->listen_fd, &err);
        assert(r == 0);
        for (unsigned i = 0; i < WORLD_CLIENTS; i++)
                w->clients[i].fd = -1;
        w->clients[0].fd = fuzz_connect(w->listen_fd);
        fuzz_loop_settle(loop);
        return w;
}

/* ---- end ---- */

static void co_stop(void *arg)
{
        co_nbd_server_stop(((struct world *)arg)->server, STOP_MS);
}

static void let_go(struct volume *volume)
{
        fake_release_all(volume);
}

void world_free(struct world *w)
{
        world_flush(w);
        let_go(w->exports.volume);
        let_go(w->exports.snapshot);
        let_go(w->exports.big);
        fuzz_loop_settle(w->loop);
        if (!w->stopping)
                fuzz_loop_co_run(w->loop, co_stop, w, 2 * STOP_MS * UINT64_C(1000000));
        fuzz_loop_advance(w->loop, 2 * STOP_MS * UINT64_C(1000000)); /* others that stop it */
        for (unsigned i = 0; i < WORLD_CLIENTS; i++)
                if (w->clients[i].fd >= 0)
                        close(w->clients[i].fd);
        assert(w->exports.n_open == 0 && w->exports.n_held == 0 && w->n_stopping == 0);
        nbd_server_free(w->server);
        fake_volume_reset(w->exports.volume);
        fake_volume_reset(w->exports.snapshot);
        fake_volume_reset(w->exports.big);
        fuzz_loop_reset(w->loop);
        assert(fuzz_lowest_fd() == w->lowest_fd);
}
