/* conn.h - the transmission phase of one connection: requests go out and answers come in by the
 * batch.
 *
 * Requests queued with conn_queue() leave together in conn_send(); conn_receive() takes as many
 * answers as one receive gives and calls done() for each.
 *
 * Units      bytes.
 * Threads    one a connection.
 * Errors     0 or -errno with a sentence. An error that the server answers is one too: a benchmark
 *            of failing requests measures nothing.
 * Ownership  requests are the connection's; release it with conn_free(). The link stays the
 *            caller's.
 * Source     doc/proto.md of NetworkBlockDevice/nbd, "Transmission".
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/bench/link.h"

#define CONN_DEPTH_MAX 1024u

struct request {
        uint16_t command, flags; /* NBD_CMD_*, NBD_CMD_FLAG_* */
        uint32_t length;
        uint64_t offset;
        const void *payload; /* of a write; lives until done */
        uint8_t *data;       /* of a read; NULL: the bytes are dropped */
        uint64_t user[2];    /* the caller's */
        /* conn.c's */
        uint32_t serial, received;
        uint64_t queued_until; /* position of its end in all that was ever queued to be sent */
        bool in_flight;
};

struct conn;

/* @done gets the request that was answered with success; it may not be used after it returns. */
int conn_new(struct link *link, unsigned depth, void (*done)(void *arg, struct request *r),
             void *arg, struct conn **ret_conn, struct error *err);
void conn_free(struct conn *c);

int conn_fd(const struct conn *c);
unsigned conn_in_flight(const struct conn *c);
bool conn_wants_send(const struct conn *c);

/* A free request, or NULL when the queue depth is reached. Fill it, then conn_queue(). */
struct request *conn_begin(struct conn *c);
void conn_queue(struct conn *c, struct request *r);
/* From 0 to the depth, this request's alone while it is in flight. */
unsigned conn_index(const struct conn *c, const struct request *r);

/* Send what the socket takes. */
int conn_send(struct conn *c, struct error *err);
/* Receive once, waiting for data if @wait. */
int conn_receive(struct conn *c, bool wait, struct error *err);
