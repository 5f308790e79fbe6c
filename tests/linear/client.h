/* client.h - what the clients of both protocols have in common: what they ask for, with which contents, and how it is
 * written down.
 *
 * Units      CLIENT_UNIT bytes, half a block: a write of one is read, changed and written by the server.
 * Threads    one a client; n_answered [any thread].
 * Errors     0 or -errno with a sentence.
 * Ownership  a struct client is the caller's; release what it holds with client_free().
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/bench/plan.h"
#include "tests/linear/history.h"
#include "tests/linear/world.h"

#define CLIENT_UNIT          2048u
#define CLIENT_UNITS         32u /* of a volume that are used */
#define CLIENT_REQUEST_UNITS 8u  /* of one request */
/* Where they begin: half of them are in one leaf of the volume's map, half in the next. */
#define CLIENT_OFFSET ((uint64_t)(256 * 4096 - CLIENT_UNITS / 2 * CLIENT_UNIT))

enum client_action { CLIENT_READ, CLIENT_WRITE, CLIENT_ZERO, CLIENT_DISCARD, CLIENT_FLUSH };

struct client_request {
        enum client_action action;
        bool fua; /* of NBD; a guest's writes are durable without */
        unsigned unit, n_units;
        size_t first; /* in the history: one operation a unit */
        uint8_t data[CLIENT_REQUEST_UNITS * CLIENT_UNIT];
};

struct client {
        struct world *world;
        unsigned number, volume;
        const char *volume_name;
        unsigned n_queues; /* of a guest; 0: an NBD connection */
        bool packed;       /* its rings */
        struct plan random;
        struct history history;
        uint64_t n_values;
        unsigned life;    /* of the server that it is connected to */
        uint64_t paid_ns; /* see client_pace() */
        atomic_ulong n_answered;
        unsigned n_connections, n_hung_up;
        int result;
        struct error err;
        pthread_t thread;
};

void client_init(struct client *c);
void client_free(struct client *c);

unsigned client_random(struct client *c, unsigned limit); /* less than this */
/* Something to ask for. */
void client_draw(struct client *c, struct client_request *q);
/* It is about to be sent. Fills the data of a write. */
int client_begin(struct client *c, struct client_request *q);
/* It was answered, with data for a read. */
void client_end(struct client *c, struct client_request *q);
/* It was not, and is submitted anew to a server of this life. */
void client_carry(struct client *c, struct client_request *q, unsigned life);
/* A history must fit into memory: sleeps where more has been asked for than is needed. */
void client_pace(struct client *c);
/* Time to hang up, whatever is in flight? */
bool client_hangs_up(struct client *c);

static inline uint64_t client_offset(const struct client_request *q)
{
        return CLIENT_OFFSET + (uint64_t)q->unit * CLIENT_UNIT;
}

static inline uint32_t client_length(const struct client_request *q)
{
        return q->n_units * CLIENT_UNIT;
}

/* The threads' functions: until the world stops, or something is wrong. */
void *nbd_client_main(void *client);
void *guest_client_main(void *client);
/* Read all units once, by NBD. */
int nbd_client_read_all(struct client *c);
