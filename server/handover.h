/* handover.h - all that a server is, between two servers: a JSON object, and descriptors that it
 * refers to by number. And the connection on which it goes from one process to the other.
 *
 * Units      times are milliseconds.
 * Threads    the host's loop. A struct handover is plain memory.
 * Errors     0 or -errno with a sentence.
 * Ownership  a handover owns its JSON and its descriptors; those that are taken out are the
 *            taker's. A channel owns its connection.
 * Source     docs/control.md, "takeover".
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "common/loop.h"

#define HANDOVER_VERSION 1
/* Descriptors: for each front end of each volume some twenty. */
#define HANDOVER_FDS_MAX (1u << 20)

struct handover {
        json_t *state;
        int *fds; /* -1 in the place of one that was taken out */
        size_t n_fds, room;
};
#define HANDOVER_INIT ((struct handover){0})

/* Take over @fd, also on failure. Its number, for the JSON; -ENOMEM, -ENOSPC. A negative @fd is the
 * error that it is. */
int handover_add(struct handover *h, int fd);
/* The same with another descriptor of @fd's file; @fd stays the caller's. -EMFILE */
int handover_add_dup(struct handover *h, int fd);
/* The descriptor of a number, the caller's from then on. -EBADMSG */
int handover_take(struct handover *h, const json_t *number);
void handover_free(struct handover *h);

/* Bytes as text and back. NULL: out of memory, or no such text. */
json_t *hex_json(const void *bytes, size_t n_bytes);
void *hex_bytes(const json_t *text, size_t *ret_n_bytes);

/* ---- the connection ---- */

struct channel {
        int fd;
        struct loop *loop;
        struct loop_io *waiting;
        struct loop_timer timer;
        bool expired, cancelled;
        char *data; /* received and not yet taken */
        size_t length, room;
        int *fds; /* received and not yet taken */
        size_t n_fds, fds_room;
};

void channel_init(struct channel *c, struct loop *loop, int fd);
void channel_close(struct channel *c); /* and what came and was not taken */
/* From now on; later waits end with -ETIMEDOUT. 0: they may take for ever. */
void channel_limit(struct channel *c, unsigned ms);
/* Whoever waits on it, or will, gets -ECANCELED. */
void channel_cancel(struct channel *c);

/* One line, with descriptors. No sentence. */
int co_channel_send(struct channel *c, const json_t *line, const int *fds, size_t n_fds);
/* {"WORD":true}, for which no memory is needed: words decide who serves. No sentence. */
int co_channel_say(struct channel *c, const char *word);
/* One line; what descriptors came up to its end are in c->fds. No sentence.
 *
 * -ECONNRESET  the other end has closed
 * -EBADMSG     it is no JSON object */
int co_channel_receive(struct channel *c, json_t **ret_line);
/* The descriptors that came, into @h, which has none. -EBADMSG where they are not @n. */
int channel_take_fds(struct channel *c, struct handover *h, size_t n);
