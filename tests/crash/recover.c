/* recover.c - see recover.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/pool.h"
#include "tests/crash/images.h"
#include "tests/crash/loops.h"
#include "tests/crash/members.h"
#include "tests/crash/observe.h"
#include "tests/crash/probe.h"
#include "tests/crash/recover.h"
#include "tests/sim/sim_random.h"

struct recoverer {
        const struct recovery *q;
        struct loop *loop;
        struct sim_disk *disks[DISKS_MAX];
        struct pool *pool;
        struct images images; /* of the pool */
        bool opened, probing;
        struct observed observed;
        const char *stage; /* what is going on, for messages */
        char *text;
        size_t text_size;
        bool well, ended;
};

static void recoverer_point(struct recoverer *r)
{
        struct point times = {.model = r->q->model,
                              .time = r->q->time,
                              .op = r->q->op,
                              .after_open = r->opened,
                              .phases = 1u << (r->opened ? PHASE_SETTLE : PHASE_RECOVERY)};

        points_take(r->q->points, &times, r->disks, r->q->n_images);
}

static void on_event(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct recoverer *r = arg;

        if (!event->completed && event->op != MEMBER_FLUSH && !r->probing)
                recoverer_point(r);
}

static void set_reason(struct recoverer *r, const char *reason)
{
        snprintf(r->text, r->text_size, "%s: %s", r->stage, reason);
}

static int co_open(struct recoverer *r)
{
        struct member *members[DISKS_MAX];
        struct pool_options options;
        struct error err = ERROR_INIT;
        unsigned n = 0, kept;
        int result;

        run_pool_options(r->q->plan, &options);
        options.manual_checkpoints = true;
        result = co_members_open(r->loop, r->disks, r->q->n_images, members, &n, &kept, &err);
        if (result == 0)
                result = co_pool_open(r->loop, members, n, &options, &r->pool, &err);
        if (result < 0) {
                r->pool = NULL;
                set_reason(r, err.message[0] != '\0' ? err.message : strerror(-result));
                while (n-- > 0)
                        member_close(members[n]);
                return result;
        }
        result = co_images_open(&r->images, r->pool, &err);
        if (result < 0)
                set_reason(r, err.message);
        return result;
}

/* A crash is not damage: the pool must be writable, and nothing may fail its checksum. */
static int see_no_damage(const struct recoverer *r, char *reason, size_t size)
{
        struct pool_info info;

        pool_get_info(r->pool, &info);
        if (info.readonly || info.failed != NULL)
                snprintf(reason, size, "the pool %s",
                         info.failed != NULL ? info.failed
                                             : "found itself damaged: it is read-only");
        else if (info.checksum_errors > 0 || info.repaired_errors > 0)
                snprintf(reason, size, "%llu blocks failed their checksum, %llu were repaired",
                         (unsigned long long)info.checksum_errors,
                         (unsigned long long)info.repaired_errors);
        else
                return 0;
        return -1;
}

static int co_first_open(struct recoverer *r)
{
        const struct recovery *q = r->q;
        char reason[REASON_MAX - 100];

        r->stage = "opening after the crash";
        if (q->n_images > q->plan->n_members && !co_members_agree(r->loop, r->disks, q->n_images)) {
                set_reason(r, "only the disk that was added says that it is a member");
                return -1;
        }
        if (co_open(r) < 0)
                return -1;
        r->opened = true;
        r->stage = "after the crash";
        if (see_no_damage(r, reason, sizeof(reason)) < 0 ||
            co_observe(r->pool, &r->observed, reason, sizeof(reason)) < 0 ||
            !images_all_needed(&r->observed, reason, sizeof(reason)) ||
            !model_crash_allowed(q->model, q->time, &r->observed, reason, sizeof(reason)) ||
            (q->expected != NULL &&
             !observed_equal(q->expected, &r->observed, reason, sizeof(reason))) ||
            co_check(r->pool, reason, sizeof(reason)) < 0 ||
            see_no_damage(r, reason, sizeof(reason)) < 0) {
                set_reason(r, reason);
                return -1;
        }
        return 0;
}

static int co_settle_and_close(struct recoverer *r)
{
        struct error err = ERROR_INIT;
        struct pool_info info;
        char reason[100];
        int result = co_pool_settle(r->pool, &err);

        r->stage = "settling after the crash";
        if (result < 0) {
                set_reason(r, err.message);
                return result;
        }
        pool_get_info(r->pool, &info);
        if (info.failed != NULL) {
                set_reason(r, info.failed);
                return -1;
        }
        if (info.freeing_bytes > 0) {
                snprintf(reason, sizeof(reason), "%llu bytes are still on their way back",
                         (unsigned long long)info.freeing_bytes);
                set_reason(r, reason);
                return -1;
        }
        r->stage = "closing after the crash";
        co_images_close(&r->images, r->pool);
        result = co_pool_close(r->pool, &err);
        r->pool = NULL;
        if (result < 0)
                set_reason(r, err.message);
        return result;
}

static int co_second_open(struct recoverer *r)
{
        struct observed observed = {.n_roots = 0};
        char reason[REASON_MAX - 100];
        int result = 0;

        r->stage = "opening a second time";
        if (co_open(r) < 0)
                return -1;
        r->stage = "after opening a second time";
        if (co_observe(r->pool, &observed, reason, sizeof(reason)) < 0 ||
            !images_all_needed(&observed, reason, sizeof(reason)) ||
            !observed_equal(&r->observed, &observed, reason, sizeof(reason)) ||
            co_check(r->pool, reason, sizeof(reason)) < 0 ||
            see_no_damage(r, reason, sizeof(reason)) < 0) {
                set_reason(r, reason);
                result = -1;
        }
        observed_free(&observed);
        return result;
}

static int co_probe(struct recoverer *r)
{
        struct error err = ERROR_INIT;
        struct sim_random random;
        char reason[REASON_MAX - 100] = "";

        if (r->q->probe == 0)
                return 0;
        r->stage = "at the end";
        r->probing = true;
        sim_random_init(&random, r->q->probe);
        if (co_pool_settle(r->pool, &err) < 0)
                snprintf(reason, sizeof(reason), "%s", err.message);
        else if (co_probe_diff(r->pool, &r->observed, &random, reason, sizeof(reason)) == 0 &&
                 co_probe_delete(r->pool, &r->images, &r->observed, &random, reason,
                                 sizeof(reason)) == 0)
                return 0;
        set_reason(r, reason);
        return -1;
}

static void co_recoverer(void *arg)
{
        struct recoverer *r = arg;

        r->well = co_first_open(r) == 0 && co_settle_and_close(r) == 0 && co_second_open(r) == 0 &&
                  co_probe(r) == 0;
        if (r->pool != NULL)
                co_pool_abandon(r->pool);
        images_free(&r->images);
        r->ended = true;
}

bool recover(const struct recovery *q, struct observed *ret_observed, char *text, size_t text_size)
{
        struct recoverer r = {
            .q = q,
            .loop = loop_borrow(),
            .text = text,
            .text_size = text_size,
            .stage = "at the start",
        };
        const char *reason;

        for (unsigned i = 0; i < q->n_images; i++) {
                struct sim_disk_options options = {.seed = sim_mix(q->plan->seed ^ i)};

                r.disks[i] = sim_disk_new(q->images[i], &options);
                if (q->points != NULL)
                        sim_disk_set_hook(r.disks[i], on_event, &r);
        }
        if (!loop_run_entry(q->plan->seed, co_recoverer, &r, &reason)) {
                if (r.well || !r.ended)
                        set_reason(&r, reason);
                return false; /* and nothing is released: it may still be in use */
        }
        for (unsigned i = 0; i < q->n_images; i++)
                sim_disk_free(r.disks[i]);
        if (r.well)
                *ret_observed = r.observed;
        else
                observed_free(&r.observed);
        return r.well;
}
