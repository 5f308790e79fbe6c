/* serve.h - 'tarn serve': pools kept open, over NBD, with a control socket, until SIGTERM or
 * SIGINT.
 *
 * Blocking: returns when the server has ended. Its sockets appear only once it can serve, with mode
 * 0600 (0660 of the group where one is given), and replace those that a killed server left behind.
 */
#pragma once
#include "server/host.h"

#define SERVE_POOLS_MAX 64u

struct serve_options {
        const char *const *pools; /* names or members' paths */
        size_t n_pools;
        const char *const
            *nbd; /* "unix:PATH", "tcp:ADDRESS:PORT"; none: POOL.nbd in the socket folder */
        size_t n_nbd;
        const char *control; /* NULL: POOL.control in the socket folder, after the first pool */
        const char *group;   /* NULL: none */
        /* Called once everybody can connect. */
        void (*ready)(const struct host *host);
};

/* 0 after a clean stop by signal. -EBUSY where a pool is served already. */
int serve_run(const struct serve_options *options, struct error *err);
