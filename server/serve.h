/* serve.h - 'tarn serve': pools kept open, over NBD, with a control socket, until SIGTERM or
 * SIGINT.
 *
 * Its sockets appear only once it can serve, with mode 0600 (0660 of the group where one is given),
 * and replace those that a killed server left behind.
 *
 * Where another process takes over, it ends as after a signal, but for all that this one has.
 *
 * SIGHUP, where there are certificates, keys or an access list: they are read anew.
 *
 * Threads    blocking: returns when the server has ended. The caller's thread runs the first loop;
 *            SIGTERM and SIGINT are blocked in it from here on. The pools are dealt out to the
 *            loops in turn.
 * Errors     0 or -errno with a sentence.
 * Ownership  options and their strings stay the caller's, and must live until the return.
 */
#pragma once
#include "server/host.h"

#define SERVE_POOLS_MAX   64u
#define SERVE_THREADS_MAX 64u

struct serve_options {
        const char *const *pools; /* names or members' paths */
        size_t n_pools;
        /* "unix:PATH", "tcp:ADDRESS:PORT"; none: POOL.nbd in the socket folder */
        const char *const *nbd;
        size_t n_nbd;
        const char *control; /* NULL: POOL.control in the socket folder, after the first pool */
        const char *group;   /* NULL: none */
        const char *vhost_folder; /* a socket in it for each volume; NULL: none */
        /* Go on with what the pools' server has, in its place: its sockets, front ends and all. The
         * four above are NULL or 0 then, as it knows them. */
        bool takeover;
        bool while_used;  /* end by itself once nobody uses its volumes (while_used.c) */
        unsigned threads; /* event loops, at most SERVE_THREADS_MAX; 0: one a processor */
        enum nbd_tls_mode tls_mode;
        /* The mode was asked for, not assumed: it may be less than what the server before has. */
        bool tls_chosen;
        struct nbd_tls_options tls; /* where tls_mode is not off */
        const char *tls_access;     /* a file as access.h has it; NULL: none */
        /* zero: the NBD server's defaults */
        unsigned max_connections, handshake_timeout_ms, idle_timeout_ms;
        /* Called once everybody can connect. */
        void (*ready)(const struct host *host);
};

/* 0 after a clean stop by signal.
 *
 * -EBUSY   a pool is served already, or held by a command for too long
 * -ENOENT  takeover: nobody serves a pool */
int serve_run(const struct serve_options *options, struct error *err);
