/* session.h - running one command from start to end: by the pool's server where there is one, else
 * here.
 *
 * For programs whose whole work is one command. SIGINT and SIGTERM cancel what is long (import,
 * export, check) and let it clean up; a second one ends the process at once.
 *
 * Units      times are milliseconds.
 * Threads    blocking; from the only thread of the program, since signals are blocked in it.
 * Errors     0 or -errno with a sentence: the server's own where one did it.
 * Ownership  requests, strings and descriptors stay the caller's; a reply is a new reference; a
 *            ret_state is released with state_free().
 */
#pragma once
#include "server/command.h"
#include "server/state.h"

struct session {
        const char *pool; /* a name, or a member's path */
        json_t *request;  /* its "pool" is filled in */
        const int *fds;
        size_t n_fds;
        /* may be NULL; @verifying: what was copied is compared */
        void (*progress)(void *arg, uint64_t done, uint64_t total, bool verifying);
        void *arg;
        bool served_only; /* by the pool's server, or not at all: -ENOTCONN */
        unsigned wait_ms; /* for a pool that another process holds; 0: 30 s */
};
int session_run(const struct session *session, json_t **ret_reply, struct error *err);
/* The same for a pool known by its name that is served: the engine has no part in it.
 *
 * -ENOTCONN  nobody serves it */
int session_run_served(const struct session *session, json_t **ret_reply, struct error *err);
/* What both do once they are connected. *ret_not_begun: the server ended before it had read the request,
 * so that the next one may be asked: so many that end as they are asked. */
#define SESSION_ENDED_MAX 5u
int session_ask(int fd, const struct session *session, json_t **ret_reply, bool *ret_not_begun,
                struct error *err);

/* The pool's state, by name or by a member's path. */
int session_resolve(const char *pool, struct pool_state **ret_state, struct error *err);

/* Run @co(@arg) on a loop of its own, with SIGINT and SIGTERM setting *arg's flag: for work that
 * has no server (create, import, destroy, image info). */
struct session_work {
        int (*co_run)(struct loop *loop, struct session_work *work, struct error *err);
        atomic_bool cancelled;
};
int session_do(struct session_work *work, struct error *err);

/* SIGINT and SIGTERM as a descriptor: blocked from here on, before any thread is made. After the
 * first one was seen, signals_default() lets the next one end the process. */
int signals_open(struct error *err);
void signals_default(void);
/* For who asks for several things in a row, each of which takes signals itself while it lasts: from now on
 * one between two of them does not end the process. A second one does. */
void signals_hold(void);
/* -ECANCELED  there was one: between two, or in the midst of one that was done all the same */
int signals_check(struct error *err);
