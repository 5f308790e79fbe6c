/* nbd_world.h - the NBD server over volumes in memory, on a fuzzer's loop, and its clients, who are
 * played by the input: negotiation, requests, right and wrong; hang-ups; time; an engine that
 * fails, waits and changes its size.
 *
 * Units      bytes, milliseconds.
 * Threads    one.
 * Errors     what must not happen aborts.
 * Ownership  a world lives for one input.
 * Source     doc/proto.md of NetworkBlockDevice/nbd.
 */
#pragma once
#include "nbd-server/nbd_server.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/nbd_replies.h"
#include "tests/protocol/fake_exports.h"
#include "tests/protocol/fake_pool.h"

#define WORLD_CLIENTS   3u
#define WORLD_VOL_BYTES (UINT64_C(256) << 10)
#define WORLD_BIG_BYTES (UINT64_C(6) << 30) /* needs 64 bits, and slices */

struct world_client {
        int fd; /* -1: none */
        struct nbd_replies replies;
};

struct world {
        struct loop *loop;
        struct nbd_server *server;
        int listen_fd, lowest_fd;
        struct fake_exports exports;
        unsigned n_stopping;
        bool stopping;
        struct world_client clients[WORLD_CLIENTS];
        unsigned at; /* of clients, who speaks */
        struct output out;
        bool begun; /* the part of out that was before it is sent already */
};

/* The server's options come from the input. */
struct world *world_new(struct input *in);
/* All that is played ends, is let go of and freed; what stays is a finding. */
void world_free(struct world *world);
/* What the input says, to its end. */
void world_play(struct world *world, struct input *in);
/* Send what was gathered, as far as the server takes it, and take what it answers. */
void world_flush(struct world *world);
/* Gather an option with its data. */
void world_put_option(struct world *world, uint32_t option, const void *data, size_t length);
