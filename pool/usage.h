/* usage.h - what a root's handles do, and how much of it they may.
 *
 * Units      as the names say.
 * Threads    the pool's loop.
 * Ownership  a root owns its usage, from the first time it is opened on.
 */
#pragma once
#include "pool/engine.h"

struct usage {
        struct list link; /* in pool->usages */
        struct root *root;
        struct list handles;
        struct meter_queue queue;
        struct throttle throttle;
        uint64_t n_waiting;
        struct list turns; /* handles with requests that wait for the limits, next one first */
        struct loop_timer timer; /* armed while there are any */
        uint64_t throttled, throttled_ns;
        struct throttle_limits limits;
        bool discards;
        enum on_full { ON_FULL_AS_HANDLE, ON_FULL_WAIT, ON_FULL_ENOSPC } on_full;
        uint64_t n_full;                       /* requests that wait for space */
        struct meter_line closed[METER_KINDS]; /* of handles that were closed */
};

/* The handle is one of its root's from now on. -ENOMEM */
int usage_enter(struct volume *volume);
void usage_leave(struct volume *volume);
void usage_free(struct usage *usage); /* NULL is fine; no handle is left */
/* [sync] What the root's properties say is in force. */
void usage_set(struct pool *pool, struct root *root);
/* The volume goes on as another root: so does what was counted. No handle is open. */
void usage_move(struct root *from, struct root *to);
/* Whether the limits let the request go now; otherwise it will be started, or ended, later. */
bool usage_admit_limited(struct volume_request *req);
static inline bool usage_admit(struct volume_request *req)
{
        return !throttle_is_on(&req->volume->root->usage->throttle) || usage_admit_limited(req);
}

/* ---- io.c ---- */

/* After the volume's limits: checked again, and under way. */
void request_start(struct volume_request *req);
void request_end(struct volume_request *req, int result); /* from the loop */
