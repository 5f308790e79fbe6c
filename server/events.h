/* events.h - what happens to the pools of a server, for who subscribes.
 *
 * An event is a JSON object; each subscriber gets those of one pool as lines, in order, by a queue
 * of its own. Whoever reads too slowly loses the newest and is told how many: nothing waits for a
 * subscriber.
 *
 * Units      a line is text without its newline.
 * Threads    the host's loop, but for events_emit...() and events_observe(): those are for the
 *            pool's, from which each event is handed over.
 * Errors     an event for which there is no memory is lost, and counted as such.
 * Limits     EVENTS_QUEUE_MAX lines a subscriber; subscribers are clients of the control socket,
 *            which bounds their number.
 * Ownership  as marked.
 * Source     docs/control.md lists the events.
 */
#pragma once
#include <jansson.h>

#include "server/host.h"

#define EVENTS_QUEUE_MAX 1024u

struct command;

/* @event is taken over; pool and time are filled in. */
void events_emit(struct host_pool *hp, const char *name, json_t *event);
/* A command has succeeded: if it is one that others want to know of. */
void events_emit_command(const struct command *c, const char *command);
/* What the engine tells of @hp's pool is passed on from now on. */
void events_observe(struct host_pool *hp);

struct subscriber {
        struct list link;
        struct host_pool *hp;
        struct list lines;
        unsigned n_lines;
        uint64_t n_lost;
        struct co *co; /* to be woken by the next event; the subscriber sets it */
};

/* Release with events_unsubscribe(). */
void events_subscribe(struct subscriber *s, struct host_pool *hp);
void events_unsubscribe(struct subscriber *s);
/* The next line, malloc'ed; NULL: none yet. */
char *events_next(struct subscriber *s);
