/* serve_internal.h - what serve.c and takeover.c share: the server.
 *
 * Threads    the host's loop.
 */
#pragma once
#include "common/loop_thread.h"
#include "server/control.h"
#include "server/handover.h"
#include "server/listen.h"
#include "server/serve.h"

/* Connections that have not ended by then are cut off. */
#define NBD_STOP_TIMEOUT_MS 5000u

/* A signalfd. */
struct watch {
        int fd; /* -1: none */
        bool armed;
        struct loop_io io;
};

struct server {
        const struct serve_options *options;
        struct host host;
        struct sockets sockets;
        struct control *control;
        struct nbd_tls *tls; /* NULL: none */
        struct watch end, hangup;
        int connector_fd; /* connector.h */
        bool serving;
        atomic_bool stopping;
        /* takeover.c */
        struct channel *channel; /* that a signal is to cancel; NULL: none */
        int taker_fd;            /* of who wants to take over; -1: nobody does */
        json_t *taker_request;
        bool watching_use, looking_at_use; /* while_used.c: its coroutine runs; it is on its way */
        bool given;                        /* another server goes on with all of it */
        struct loop_thread *thread[SERVE_THREADS_MAX]; /* of all loops but the first */
        unsigned n_threads, n_placed;
        struct co *co;
        int result;
        struct error *err;
};

/* ---- serve.c ---- */

/* The pools go to the loops in turn, beginning with the first. */
struct loop *server_place_pool(struct server *s);
/* -EEXIST  the pool of @uuid is open already */
int server_refuse_twice(struct server *s, const struct pool_state *state, struct error *err);
/* An NBD server that listens nowhere yet; then on s->sockets. */
int server_nbd_new(struct server *s, struct error *err);
int server_nbd_listen(struct server *s, struct error *err);
/* On s->sockets. */
int server_start_control(struct server *s, struct error *err);
/* Say in the state files that this process serves the pools. */
int server_claim_all(struct server *s, struct error *err);

/* ---- confined.c ---- */

/* Once all is open: gives up what is not needed any more. What cannot be is logged. */
void co_server_confine(struct server *s);

/* ---- while_used.c ---- */

/* A coroutine: sets s->stopping once nobody has used the pools for a while. */
void co_server_watch_use(void *server);

/* ---- takeover.c ---- */

/* Somebody wants to take over: give him all. True: it is his, and this process has only to end;
 * false: this one serves on. Where that cannot be, s->stopping is set and s->result and *s->err say
 * why. */
bool co_takeover_give(struct server *s);
/* control_on_takeover()'s. */
bool takeover_asked(void *server, int fd, json_t *request);
/* In place of opening pools and sockets: have them from who serves now. He has ended then, or is
 * about to. */
int co_takeover_take(struct server *s, struct error *err);
