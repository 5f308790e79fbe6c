/* nbd_replies.h - is what the server says in the protocol's words? A stream of replies is followed
 * piece by piece.
 *
 * Units      bytes.
 * Threads    one.
 * Errors     what no server may say aborts.
 * Ownership  the caller's memory; zeroed is the beginning of a connection.
 * Source     doc/proto.md of NetworkBlockDevice/nbd.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "nbd-server/protocol.h"

#define REPLIES_REQUESTS_MAX 4096u

struct nbd_replies {
        uint8_t head[40];
        size_t n_head;   /* bytes of the head under way */
        uint64_t n_skip; /* of a payload that is let pass */
        bool greeted, zeroes_due, transmission;
        bool structured, extended; /* agreed */
        bool lost; /* by TLS or a client's own words: nothing is known from here on */
        unsigned n_requests;
        uint8_t answered[REPLIES_REQUESTS_MAX / 8];
};

/* The cookie of a client's next request, which says what the reply needs to be understood. Not more
 * than REPLIES_REQUESTS_MAX of them. */
uint64_t nbd_replies_cookie(struct nbd_replies *r, uint16_t type, uint64_t length);
void nbd_replies_take(struct nbd_replies *r, const uint8_t *data, size_t length);
