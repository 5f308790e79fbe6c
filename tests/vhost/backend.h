/* backend.h - a back end that is right in its messages, until it is told to be wrong; it serves no
 * requests. For tests and fuzzers of the front end (vmm-glue/vmm/vhost_front.h).
 *
 * Units      bytes.
 * Threads    one at a time.
 * Errors     what cannot be sent, as the front end has gone, is its end.
 * Ownership  release with backend_close().
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "tests/vhost/message.h"

/* How an answer is wrong. */
enum backend_fault {
        BACKEND_RIGHT,
        BACKEND_PIECES, /* right, byte by byte */
        BACKEND_SILENT,
        BACKEND_CLOSES,  /* without an answer */
        BACKEND_HALF,    /* the first half of it, and closes */
        BACKEND_HEADER,  /* its header, and then nothing */
        BACKEND_REQUEST, /* to another message */
        BACKEND_NO_REPLY,
        BACKEND_VERSION,
        BACKEND_HUGE,  /* it says that it is of 4 GiB */
        BACKEND_LONG,  /* 8 bytes too many */
        BACKEND_EMPTY, /* of no bytes */
        BACKEND_FDS,   /* with 20 descriptors */
        BACKEND_NO_FD, /* without any */
        BACKEND_ONES,  /* all ones: refused, or absurd */
        BACKEND_TWICE,
        BACKEND_FAULTS
};

struct backend {
        int fd, channel; /* its end of the connection, and of its own channel; -1: none */
        int error;       /* eventfd of a ring, the last it was told; -1: none */
        uint64_t features, protocol;
        uint64_t n_queues;
        uint8_t config[VU_CONFIG_MAX];
        unsigned n_messages; /* that have come */
        uint32_t last;       /* request */
};

/* The other end of @fd, which is the backend's. All that our own back end offers. */
void backend_init(struct backend *b, int fd);
void backend_close(struct backend *b);
/* Take one message, waiting for it, and answer it. False: there are no more. */
bool backend_answer(struct backend *b, enum backend_fault fault);
/* Say something on its own channel, if there is one. */
void backend_say(struct backend *b, const void *data, uint32_t size);
