/* usage.c - what a root's handles do, and how much of it they may.
 *
 * Each handle has its counters; those of a volume are the sum over its handles, open and closed, so
 * that a request is counted once. How many are under way is kept for both, since the time in which
 * there was one cannot be added up.
 *
 * Limits are the volume's: a request that they do not let go waits in its handle's queue, and the
 * handles with such requests take turns, one request each, so that many requests of one hold up no
 * other. Waiting requests have not begun: no snapshot, deletion or checkpoint waits for them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/size.h"
#include "pool/full.h"
#include "pool/usage.h"

#define LATE_MAX_NS UINT64_C(100000000)

/* ---- properties ---- */

static const char *property_get(const struct root *root, const char *key)
{
        const struct root_body *body = root->body;
        for (unsigned i = 0; i < body->n_properties; i++)
                if (strcmp(body->property[i].key, key) == 0)
                        return body->property[i].value;
        return NULL;
}

/* 0 also for what is out of range: who sets properties refuses that with a sentence. */
static uint64_t property_number(const struct root *root, const char *key, uint64_t min,
                                uint64_t max)
{
        const char *text = property_get(root, key);
        uint64_t number;
        if (!text || size_parse(text, &number, NULL) < 0 || number < min || number > max)
                return 0;
        return number;
}

static void usage_serve(struct usage *u, uint64_t now_ns);

void usage_set(struct pool *pool, struct root *root)
{
        struct usage *u = root->usage;
        if (!u)
                return;
        const char *discard = property_get(root, "discard");
        __atomic_store_n(&u->discards, !discard || strcmp(discard, "off") != 0, __ATOMIC_RELAXED);
        const char *on_full = property_get(root, "on-full");
        u->waits_when_full = on_full && strcmp(on_full, "wait") == 0;
        full_give_up(pool);
        u->limits = (struct throttle_limits){0};
        if (root->state == ROOT_LIVE)
                u->limits = (struct throttle_limits){
                    .iops = property_number(root, "iops", 1, THROTTLE_IOPS_MAX),
                    .iops_burst = property_number(root, "iops-burst", 1, THROTTLE_BURST_MAX),
                    .bandwidth = property_number(root, "bandwidth", THROTTLE_BANDWIDTH_MIN,
                                                 THROTTLE_BANDWIDTH_MAX),
                    .bandwidth_burst =
                        property_number(root, "bandwidth-burst", 1, THROTTLE_BURST_MAX),
                };
        uint64_t now_ns = loop_now_ns(pool->loop);
        throttle_set(&u->throttle, &u->limits, now_ns);
        usage_serve(u, now_ns);
}

/* ---- handles ---- */

static void limits_fire(struct loop_timer *timer);

int usage_enter(struct volume *v)
{
        struct root *root = v->root;
        if (!root->usage) {
                struct usage *u = calloc(1, sizeof(*u));
                if (!u)
                        return -ENOMEM;
                u->root = root;
                u->timer.fire = limits_fire;
                list_init(&u->handles);
                list_init(&u->turns);
                list_append(&v->pool->usages, &u->link);
                root->usage = u;
                usage_set(v->pool, root);
        }
        list_init(&v->throttled);
        list_append(&root->usage->handles, &v->link);
        return 0;
}

void usage_leave(struct volume *v)
{
        assert(list_empty(&v->throttled) && v->meter.queue.depth == 0);
        for (unsigned k = 0; k < METER_KINDS; k++)
                meter_line_add(&v->root->usage->closed[k], &v->meter.line[k]);
        list_remove(&v->link);
}

void usage_free(struct usage *u)
{
        if (!u)
                return;
        assert(list_empty(&u->handles));
        list_remove(&u->link);
        free(u);
}

void usage_move(struct root *from, struct root *to)
{
        assert(!to->usage);
        to->usage = from->usage;
        from->usage = NULL;
        if (to->usage)
                to->usage->root = to;
}

bool volume_discards(const struct volume *v)
{
        /* asked on other loops too, where a connection lives */
        return __atomic_load_n(&v->root->usage->discards, __ATOMIC_RELAXED);
}

void volume_set_user(struct volume *v, const char *user)
{
        snprintf(v->user, sizeof(v->user), "%s", user);
}

const char *volume_user(const struct volume *v)
{
        return v->user;
}

/* ---- limits ---- */

/* Nothing is moved by a discard, or by zeroes. */
static uint64_t request_bytes(const struct volume_request *req)
{
        return req->op == VOLUME_READ || req->op == VOLUME_WRITE ? req->length : 0;
}

static struct volume *next_turn(const struct usage *u)
{
        return container_of(u->turns.next, struct volume, turn);
}

static struct volume_request *first_throttled(const struct volume *v)
{
        return container_of(v->throttled.next, struct volume_request, link);
}

/* The handle's first request is taken out; the handle goes to the end of those that wait. */
static void throttled_remove(struct volume *v, struct volume_request *req)
{
        struct usage *u = v->root->usage;
        list_remove(&req->link);
        list_remove(&v->turn);
        if (!list_empty(&v->throttled))
                list_append(&u->turns, &v->turn);
        u->throttled_ns += loop_time_ns(v->pool->loop) - req->began_ns;
        if (--u->n_waiting == 0)
                loop_timer_cancel(v->pool->loop, &u->timer);
}

/* Start all that may go by now; the timer is for the next. What was not given out because the loop
 * was late is made up for, but for what a long stop of the whole process would heap up. */
static void usage_serve(struct usage *u, uint64_t now_ns)
{
        while (u->n_waiting) {
                struct volume *v = next_turn(u);
                struct volume_request *req = first_throttled(v);
                uint64_t from_ns = max_u64(req->began_ns, now_ns - min_u64(now_ns, LATE_MAX_NS));
                uint64_t when_ns = throttle_when(&u->throttle, request_bytes(req), from_ns);
                if (when_ns > now_ns) {
                        loop_timer_set(v->pool->loop, &u->timer, when_ns);
                        return;
                }
                throttle_take(&u->throttle, request_bytes(req), when_ns);
                throttled_remove(v, req);
                request_start(req);
        }
}

static void limits_fire(struct loop_timer *timer)
{
        struct usage *u = container_of(timer, struct usage, timer);
        usage_serve(u, loop_now_ns(next_turn(u)->pool->loop));
}

bool usage_admit_limited(struct volume_request *req)
{
        struct volume *v = req->volume;
        struct usage *u = v->root->usage;
        if (req->op == VOLUME_FLUSH || req->length == 0)
                return true;
        uint64_t now_ns = req->began_ns;
        if (!u->n_waiting && throttle_when(&u->throttle, request_bytes(req), now_ns) <= now_ns) {
                throttle_take(&u->throttle, request_bytes(req), now_ns);
                return true;
        }
        if (v->cancelled) {
                request_end(req, -ECANCELED);
                return false;
        }
        u->throttled++;
        if (list_empty(&v->throttled))
                list_append(&u->turns, &v->turn);
        list_append(&v->throttled, &req->link);
        if (u->n_waiting++ == 0)
                usage_serve(u, now_ns); /* which sets the timer */
        return false;
}

static void cancel_run(struct loop_task *task)
{
        struct volume *v = container_of(task, struct volume, cancel);
        v->cancelled = true;
        while (!list_empty(&v->throttled)) {
                struct volume_request *req = first_throttled(v);
                throttled_remove(v, req);
                request_end(req, -ECANCELED);
        }
        full_give_up(v->pool);
        struct usage *u = v->root->usage;
        if (u->n_waiting) /* the next one may cost less */
                usage_serve(u, loop_now_ns(v->pool->loop));
}

void volume_cancel(struct volume *v)
{
        v->cancel.run = cancel_run;
        if (v->crossing) /* in front of the coroutine that will close the handle */
                loop_post_remote(v->pool->loop, &v->cancel);
        else
                cancel_run(&v->cancel);
}

void pool_hurry(struct pool *pool)
{
        uint64_t now_ns = loop_now_ns(pool->loop);
        list_for_each (it, &pool->usages) {
                struct usage *u = container_of(it, struct usage, link);
                u->limits = (struct throttle_limits){0};
                throttle_set(&u->throttle, &u->limits, now_ns);
                loop_timer_cancel(pool->loop, &u->timer);
                usage_serve(u, now_ns);
        }
}

/* ---- told ---- */

void pool_get_stats(struct pool *pool, struct pool_stats *stats)
{
        *stats = (struct pool_stats){
            .time_ns = loop_now_ns(pool->loop),
            .opened_ns = pool->opened_ns,
            .checkpoints = pool->n_checkpoints,
            .cache_hits = pool->cache.hits,
            .cache_misses = pool->cache.misses,
            .cache_bytes = pool->cache.n_nodes * BLOCK,
            .cache_dirty_bytes = pool->cache.n_dirty * BLOCK,
            .cache_max_bytes = pool->cache.n_max * BLOCK,
        };
}

void pool_get_member_stats(struct pool *pool, size_t index, struct meter_stats *stats)
{
        meter_read(&pool->disk[index]->member->meter, loop_now_ns(pool->loop), stats);
}

void root_label(struct pool *pool, const struct root *root, char text[ROOT_LABEL_MAX])
{
        static const char deleted[] = "(deleted)";
        const struct root *head = root_head(pool, root->volume_id);
        if (root->state == ROOT_LIVE)
                snprintf(text, ROOT_LABEL_MAX, "%s", root->name[0] ? root->name : deleted);
        else
                snprintf(text, ROOT_LABEL_MAX, "%s@%s", head ? head->name : deleted,
                         root->name[0] ? root->name : deleted);
}

void pool_each_volume_stats(struct pool *pool,
                            void (*each)(const struct volume_stats *stats, void *arg), void *arg)
{
        uint64_t now_ns = loop_now_ns(pool->loop);
        list_for_each (it, &pool->usages) {
                const struct usage *u = container_of(it, struct usage, link);
                char name[ROOT_LABEL_MAX];
                if (!u->root->name[0] && !u->root->n_handles)
                        continue; /* deleted, and not collected yet */
                root_label(pool, u->root, name);
                struct volume_stats stats = {
                    .name = name,
                    .n_handles = u->root->n_handles,
                    .limits = u->limits,
                    .throttled = u->throttled,
                    .throttled_ns = u->throttled_ns,
                    .n_waiting = u->n_waiting,
                    .n_full = u->n_full,
                    .meter = {.depth = u->queue.depth,
                              .depth_ns = meter_queue_depth_ns(&u->queue, now_ns),
                              .busy_ns = meter_queue_busy_ns(&u->queue, now_ns)},
                };
                memcpy(stats.meter.line, u->closed, sizeof(u->closed));
                list_for_each (h, &u->handles) {
                        const struct volume *v = container_of(h, struct volume, link);
                        for (unsigned k = 0; k < METER_KINDS; k++)
                                meter_line_add(&stats.meter.line[k], &v->meter.line[k]);
                }
                each(&stats, arg);
        }
}

void pool_each_handle_stats(struct pool *pool,
                            void (*each)(const struct handle_stats *stats, void *arg), void *arg)
{
        uint64_t now_ns = loop_now_ns(pool->loop);
        list_for_each (it, &pool->usages) {
                const struct usage *u = container_of(it, struct usage, link);
                char name[ROOT_LABEL_MAX];
                root_label(pool, u->root, name);
                list_for_each (h, &u->handles) {
                        const struct volume *v = container_of(h, struct volume, link);
                        if (!v->user[0])
                                continue;
                        struct handle_stats stats = {
                            .name = name, .user = v->user, .readonly = volume_is_readonly(v)};
                        meter_read(&v->meter, now_ns, &stats.meter);
                        each(&stats, arg);
                }
        }
}
