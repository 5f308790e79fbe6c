/* client.h - asking a server over its control socket. For commands, not for servers.
 *
 * Threads    [any thread]; blocking.
 * Errors     0 or -errno with a sentence: the server's own where it answered with one.
 * Ownership  the connection is the caller's to close; a reply is the caller's reference.
 */
#pragma once
#include "server/control.h"

/* Connect to who serves @state's pool.
 *
 * -ENOENT  nobody does; a socket that a killed server left behind counts as nobody
 * -EACCES  somebody does, who may not be asked */
int client_connect(const struct pool_state *state, int *ret_fd, struct error *err);

struct client_call {
        json_t *request;
        const int *fds;
        size_t n_fds;
        /* may be NULL; @verifying: what was copied is compared */
        void (*progress)(void *arg, uint64_t done, uint64_t total, bool verifying);
        /* A subscription: called for each event, until the server ends. NULL: there is one reply */
        void (*event)(void *arg, json_t *event);
        void *arg;
        int signal_fd;  /* of signals_open(); -1: none */
        bool not_begun; /* set: the server ended before it had read the request */
};
/* Ask and wait for the reply. A signal hangs up, and the server's answer to that is awaited; the
 * next one ends the process.
 *
 * -ECANCELED   there was a signal before the server took the request: it has not begun
 * -ECONNRESET  the server has ended */
int client_run(int fd, struct client_call *call, json_t **ret_reply, struct error *err);
