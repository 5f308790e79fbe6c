/* Limits of a volume's operations and bytes a second, under the virtual clock. */
#include <errno.h>
#include "tests/unit/sim_pool.h"

#define SECOND_NS UINT64_C(1000000000)
#define DEPTH_MAX 64u

static char data[256 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));

/* So many requests at a time, each followed by another until a moment; 0: not followed. */
struct load {
        struct sim_pool *s;
        struct volume *v;
        enum volume_op op;
        uint64_t length, end_ns;
        unsigned depth, in_flight;
        uint64_t n_done, n_failed, last_ns;
        int error;
        struct iovec iov;
        struct volume_request req[DEPTH_MAX];
};

static void load_done(struct volume_request *req, int result);

static void load_submit(struct load *l, struct volume_request *req)
{
        *req = (struct volume_request){
            .op = l->op, .length = l->length, .iov = &l->iov, .n_iov = 1, .done = load_done};
        l->in_flight++;
        volume_submit(l->v, req);
}

static struct load *load_of[4];

static void load_done(struct volume_request *req, int result)
{
        struct load *l = load_of[0];
        for (unsigned i = 0; req < l->req || req >= l->req + DEPTH_MAX; l = load_of[++i])
                ;
        l->in_flight--;
        l->n_done++;
        l->last_ns = loop_now_ns(l->s->loop);
        if (result < 0) {
                l->n_failed++;
                l->error = result;
        }
        /* The bound on their number ends a test whose limit does not work. */
        if (l->last_ns < l->end_ns && l->n_done < 1000000)
                load_submit(l, req);
}

/* @index: its place among those of the test. */
static struct load *load_start(struct sim_pool *s, unsigned index, struct volume *v, unsigned depth,
                               uint64_t length, uint64_t seconds)
{
        struct load *l = load_of[index];
        uint64_t now_ns = loop_now_ns(s->loop);
        *l = (struct load){.s = s,
                           .v = v,
                           .op = VOLUME_READ,
                           .length = length,
                           .depth = depth,
                           .end_ns = seconds ? now_ns + seconds * SECOND_NS : 0,
                           .iov = {data, length}};
        for (unsigned i = 0; i < depth; i++)
                load_submit(l, &l->req[i]);
        return l;
}

static void co_load_end(struct load *l)
{
        while (l->in_flight)
                co_sleep_ns(1000000);
}

static int co_limited(struct sim_pool *s, const char *key, const char *value, struct volume **ret_v)
{
        int r = co_sim_pool_create(s);
        r = r ? r : co_volume_create(s->pool, "v", 4 << 20, NULL);
        r = r ? r : co_volume_set(s->pool, "v", key, value, NULL);
        return r ? r : co_volume_open(s->pool, "v", ret_v, NULL);
}

static bool about(uint64_t have, uint64_t want)
{
        return have * 100 >= want * 99 && have * 100 <= want * 101;
}

static void co_closed(struct sim_pool *s, struct volume *v)
{
        co_volume_close(v);
        co_sim_pool_close(s);
}

/* ---- rates ---- */

static void co_iops(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        for (unsigned depth = 1; depth <= 32; depth *= 32) {
                expect(s, co_limited(s, "iops", "700", &v) == 0);
                struct load *l = load_start(s, 0, v, depth, POOL_BLOCK, 60);
                co_load_end(l);
                expect(s, about(l->n_done, 60 * 700) && l->n_failed == 0);
                co_closed(s, v);
        }
}

static void operations_keep_to_their_rate_over_a_minute(void **state)
{
        sim_pool_run(1, 1, co_iops);
}

static void co_bandwidth(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "bandwidth", "10M", &v) == 0);
        struct load *l = load_start(s, 0, v, 8, 3 * POOL_BLOCK, 60);
        co_load_end(l);
        expect(s, about(l->n_done * 3 * POOL_BLOCK, UINT64_C(600) << 20));
        co_closed(s, v);
}

static void bytes_keep_to_their_rate_over_a_minute(void **state)
{
        sim_pool_run(1, 1, co_bandwidth);
}

static void co_odd_rates(void *arg)
{
        static const uint64_t rates[] = {1, 3, 7, 999999, 7777777};
        struct sim_pool *s = arg;
        for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
                struct throttle_limits limits = {.iops = rates[i], .bandwidth = rates[i] * 4096};
                struct throttle t = {0};
                uint64_t now = SECOND_NS, n = rates[i] < 1000 ? 1000 : 2 * rates[i];
                throttle_set(&t, &limits, now);
                for (uint64_t k = 0; k < n; k++) {
                        now = throttle_when(&t, 4096, now);
                        throttle_take(&t, 4096, now);
                }
                /* in this time they came in, but for the burst of a tenth of a second */
                double passed = (double)(now - SECOND_NS) / 1e9 + 0.1;
                double want = (double)n / (double)rates[i];
                double slack = 1.5 / (double)rates[i] + 1e-6;
                expect(s, passed > want - slack && passed < want + slack);
        }
}

static void rates_that_divide_nothing_evenly_are_kept_exactly(void **state)
{
        sim_pool_run(1, 1, co_odd_rates);
}

/* ---- bursts ---- */

static void co_burst(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "10", &v) == 0);
        expect(s, co_volume_set(s->pool, "v", "iops-burst", "25", NULL) == 0);
        for (unsigned i = 0; i < 2; i++) {
                struct load *l = load_start(s, 0, v, 30, POOL_BLOCK, 0);
                co_sleep_ns(50000000);
                expect(s, l->n_done == 25);
                co_load_end(l);
                expect(s, l->n_done == 30);
                co_sleep_ns(3 * SECOND_NS); /* the bucket is full again, and not more than full */
        }
        co_closed(s, v);
}

static void a_burst_goes_at_once_after_a_pause_and_not_more(void **state)
{
        sim_pool_run(1, 1, co_burst);
}

static void co_default_burst(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "100", &v) == 0);
        co_sleep_ns(10 * SECOND_NS);
        struct load *l = load_start(s, 0, v, 30, POOL_BLOCK, 0);
        co_sleep_ns(1000000);
        expect(s, l->n_done == 10);
        co_load_end(l);
        co_closed(s, v);
}

static void a_tenth_of_a_second_goes_at_once_where_nothing_is_said(void **state)
{
        sim_pool_run(1, 1, co_default_burst);
}

static void co_debt(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "bandwidth", "64K", &v) == 0);
        uint64_t begin = loop_now_ns(s->loop);
        expect(s, co_volume_read(v, data, 256 << 10, 0) == 0); /* four seconds' worth */
        expect(s, loop_now_ns(s->loop) - begin < 10000000);
        expect(s, co_volume_read(v, data, POOL_BLOCK, 0) == 0);
        uint64_t waited = loop_now_ns(s->loop) - begin;
        expect(s, waited > 3950000000 && waited < 3975000000);
        co_closed(s, v);
}

static void a_request_larger_than_the_burst_goes_and_leaves_a_debt(void **state)
{
        sim_pool_run(1, 1, co_debt);
}

/* ---- changed ---- */

static void co_changed(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "1", &v) == 0);
        struct load *l = load_start(s, 0, v, 40, POOL_BLOCK, 0);
        co_sleep_ns(2500000000);
        expect(s, l->n_done == 3);
        expect(s, co_volume_set(s->pool, "v", "iops", "100", NULL) == 0);
        uint64_t begin = loop_now_ns(s->loop);
        co_sleep_ns(200000000);
        expect(s, l->n_done > 20 && l->n_done < 35);
        expect(s, co_volume_set(s->pool, "v", "iops", NULL, NULL) == 0);
        co_sleep_ns(1000000);
        expect(s, l->n_done == 40 && loop_now_ns(s->loop) - begin < SECOND_NS / 2);
        /* and back, on a volume that is in use */
        expect(s, co_volume_set(s->pool, "v", "iops", "50", NULL) == 0);
        l = load_start(s, 0, v, 4, POOL_BLOCK, 10);
        co_load_end(l);
        expect(s, l->n_done > 495 && l->n_done < 515);
        co_closed(s, v);
}

static void a_change_is_in_force_at_once_for_those_that_wait(void **state)
{
        sim_pool_run(1, 1, co_changed);
}

static void co_remembered(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "50", &v) == 0);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0 && co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        struct load *l = load_start(s, 0, v, 4, POOL_BLOCK, 10);
        co_load_end(l);
        expect(s, l->n_done > 495 && l->n_done < 515);
        co_volume_close(v);
        expect(s, co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, co_volume_open(s->pool, "v@a", &v, NULL) == 0);
        l = load_start(s, 0, v, 32, POOL_BLOCK, 0);
        co_sleep_ns(1000000);
        expect(s, l->n_done == 32);
        co_closed(s, v);
}

static void limits_are_remembered_and_are_not_a_snapshots(void **state)
{
        sim_pool_run(1, 1, co_remembered);
}

/* ---- between requests ---- */

static void co_fair(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v, *w;
        expect(s, co_limited(s, "iops", "100", &v) == 0);
        expect(s, co_volume_open(s->pool, "v", &w, NULL) == 0);
        struct load *many = load_start(s, 0, v, 64, POOL_BLOCK, 60);
        struct load *few = load_start(s, 1, w, 2, POOL_BLOCK, 60);
        co_load_end(many);
        co_load_end(few);
        expect(s, about(many->n_done + few->n_done - 64, 6000));
        expect(s, few->n_done > 2900 && few->n_done < 3100);
        co_volume_close(w);
        co_closed(s, v);
}

static void two_handles_share_the_limit_evenly_whatever_their_depth(void **state)
{
        sim_pool_run(1, 1, co_fair);
}

static void co_sizes(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v, *w;
        expect(s, co_limited(s, "bandwidth", "1M", &v) == 0);
        expect(s, co_volume_open(s->pool, "v", &w, NULL) == 0);
        struct load *big = load_start(s, 0, v, 8, sizeof(data), 60);
        struct load *small = load_start(s, 1, w, 8, POOL_BLOCK, 60);
        co_load_end(big);
        co_load_end(small);
        /* one of each by turns */
        expect(s, big->n_done >= 55 && big->n_done <= 70);
        expect(s, small->n_done >= 55 && small->n_done <= 75);
        co_volume_close(w);
        co_closed(s, v);
}

static void small_requests_and_big_ones_take_turns(void **state)
{
        sim_pool_run(1, 1, co_sizes);
}

static struct volume_request many[2000];

static void one_done(struct volume_request *req, int result)
{
}

/* Small requests come as fast as the limit lets them go, whatever becomes of those before. */
static void co_steady(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v, *w;
        struct iovec iov = {data, POOL_BLOCK};
        expect(s, co_limited(s, "bandwidth", "2M", &v) == 0);
        expect(s, co_volume_open(s->pool, "v", &w, NULL) == 0);
        struct load *big = load_start(s, 0, v, 2, sizeof(data), 0);
        for (unsigned i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
                many[i] = (struct volume_request){
                    .length = POOL_BLOCK, .iov = &iov, .n_iov = 1, .done = one_done};
                volume_submit(w, &many[i]);
                co_sleep_ns(1000000);
                expect(s, i < 1000 || big->n_done == 2);
        }
        struct load *rest = load_start(s, 1, w, 1, POOL_BLOCK, 0);
        co_load_end(rest); /* the last of its handle's */
        co_volume_close(w);
        co_closed(s, v);
}

static void a_big_request_is_not_starved_by_small_ones_that_keep_coming(void **state)
{
        sim_pool_run(1, 1, co_steady);
}

static void co_flushes(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "1", &v) == 0);
        struct load *l = load_start(s, 0, v, 8, POOL_BLOCK, 0);
        uint64_t begin = loop_now_ns(s->loop);
        for (unsigned i = 0; i < 10; i++)
                expect(s, co_volume_flush(v) == 0);
        expect(s, loop_now_ns(s->loop) - begin < SECOND_NS / 2 && l->in_flight == 7);
        co_load_end(l);
        co_closed(s, v);
}

static void a_flush_is_not_counted_and_waits_for_no_limit(void **state)
{
        sim_pool_run(1, 1, co_flushes);
}

/* ---- nobody is held up ---- */

static void co_unhindered(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "1", &v) == 0);
        struct load *l = load_start(s, 0, v, 1, POOL_BLOCK, 0);
        co_load_end(l);
        l = load_of[1];
        *l = (struct load){.s = s, .v = v, .op = VOLUME_WRITE, .length = POOL_BLOCK};
        l->iov = (struct iovec){data, POOL_BLOCK};
        for (unsigned i = 0; i < 16; i++)
                load_submit(l, &l->req[i]);
        uint64_t begin = loop_now_ns(s->loop);
        expect(s, co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, co_volume_resize(s->pool, "v", 8 << 20, NULL) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, loop_now_ns(s->loop) - begin < SECOND_NS / 2 && l->n_done == 0);
        volume_cancel(v);
        co_sleep_ns(1000000);
        expect(s, l->n_done == 16 && l->n_failed == 16 && l->error == -ECANCELED);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 0, 0) == -ECANCELED);
        expect(s, co_volume_flush(v) == 0);
        co_volume_close(v);
        expect(s, co_volume_delete(s->pool, "v", true, NULL) == 0);
        expect(s, loop_now_ns(s->loop) - begin < SECOND_NS / 2);
        co_sim_pool_close(s);
}

static void requests_that_wait_hold_up_no_snapshot_and_end_when_cancelled(void **state)
{
        sim_pool_run(1, 1, co_unhindered);
}

static void co_hurried(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "1", &v) == 0);
        struct load *l = load_of[1];
        *l = (struct load){.s = s, .v = v, .op = VOLUME_WRITE, .length = POOL_BLOCK};
        l->iov = (struct iovec){data, POOL_BLOCK};
        for (unsigned i = 0; i < 16; i++)
                load_submit(l, &l->req[i]);
        pool_hurry(s->pool);
        co_sleep_ns(SECOND_NS / 2);
        expect(s, l->n_done == 16 && l->n_failed == 0);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void what_waits_goes_at_once_where_the_pool_is_hurried(void **state)
{
        sim_pool_run(1, 1, co_hurried);
}

static void co_one_cancelled(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v, *w;
        expect(s, co_limited(s, "iops", "10", &v) == 0);
        expect(s, co_volume_open(s->pool, "v", &w, NULL) == 0);
        struct load *gone = load_start(s, 0, v, 8, POOL_BLOCK, 0);
        struct load *stays = load_start(s, 1, w, 8, POOL_BLOCK, 0);
        uint64_t begin = loop_now_ns(s->loop);
        volume_cancel(v);
        co_load_end(gone);
        expect(s, gone->n_failed == 7); /* the first was let go */
        co_load_end(stays);
        expect(s, stays->n_done == 8 && stays->n_failed == 0);
        expect(s, stays->last_ns - begin < SECOND_NS);
        co_volume_close(w);
        co_closed(s, v);
}

static void a_handle_that_is_cancelled_leaves_its_turns_to_the_others(void **state)
{
        sim_pool_run(1, 1, co_one_cancelled);
}

static void co_shrunk(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_limited(s, "iops", "1", &v) == 0);
        expect(s, co_volume_read(v, data, POOL_BLOCK, 0) == 0);
        for (unsigned i = 0; i < 2; i++) {
                struct load *l = load_of[i];
                *l = (struct load){.s = s, .v = v, .length = POOL_BLOCK};
                l->op = i ? VOLUME_WRITE : VOLUME_READ;
                l->iov = (struct iovec){data, POOL_BLOCK};
                load_submit(l, &l->req[0]);
                load_submit(l, &l->req[1]);
                l->req[1].offset = 2 << 20;
        }
        expect(s, co_volume_resize(s->pool, "v", 1 << 20, NULL) == 0);
        for (unsigned i = 0; i < 2; i++) {
                struct load *l = load_of[i];
                co_load_end(l);
                expect(s, l->n_done == 2 && l->n_failed == 1 && l->error == -EINVAL);
        }
        co_closed(s, v);
}

static void a_request_that_waited_for_longer_than_its_place_is_refused(void **state)
{
        sim_pool_run(1, 1, co_shrunk);
}

/* ---- what is shown ---- */

static void keep(const struct volume_stats *stats, void *arg)
{
        *(struct volume_stats *)arg = *stats;
}

static void co_shown(void *arg)
{
        struct sim_pool *s = arg;
        struct volume_stats stats;
        struct volume *v;
        expect(s, co_limited(s, "iops", "10", &v) == 0);
        expect(s, co_volume_set(s->pool, "v", "bandwidth", "1G", NULL) == 0);
        expect(s, co_volume_set(s->pool, "v", "bandwidth-burst", "2G", NULL) == 0);
        struct load *l = load_start(s, 0, v, 3, POOL_BLOCK, 0);
        pool_each_volume_stats(s->pool, keep, &stats);
        expect(s, stats.n_waiting == 2 && stats.throttled == 2 && stats.meter.depth == 3);
        expect(s, stats.limits.iops == 10 && stats.limits.bandwidth == 1 << 30);
        expect(s, stats.limits.iops_burst == 0);
        expect(s, stats.limits.bandwidth_burst == UINT64_C(2) << 30);
        co_load_end(l);
        pool_each_volume_stats(s->pool, keep, &stats);
        expect(s, stats.n_waiting == 0 && about(stats.throttled_ns, 300000000));
        expect(s, stats.meter.line[METER_READ].latency_ns == stats.throttled_ns);
        expect(s, volume_discards(v));
        expect(s, co_volume_set(s->pool, "v", "discard", "off", NULL) == 0 && !volume_discards(v));
        co_closed(s, v);
}

static void the_limits_and_who_waits_for_them_are_shown(void **state)
{
        sim_pool_run(1, 1, co_shown);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(operations_keep_to_their_rate_over_a_minute),
            cmocka_unit_test(bytes_keep_to_their_rate_over_a_minute),
            cmocka_unit_test(rates_that_divide_nothing_evenly_are_kept_exactly),
            cmocka_unit_test(a_burst_goes_at_once_after_a_pause_and_not_more),
            cmocka_unit_test(a_tenth_of_a_second_goes_at_once_where_nothing_is_said),
            cmocka_unit_test(a_request_larger_than_the_burst_goes_and_leaves_a_debt),
            cmocka_unit_test(a_change_is_in_force_at_once_for_those_that_wait),
            cmocka_unit_test(limits_are_remembered_and_are_not_a_snapshots),
            cmocka_unit_test(two_handles_share_the_limit_evenly_whatever_their_depth),
            cmocka_unit_test(small_requests_and_big_ones_take_turns),
            cmocka_unit_test(a_big_request_is_not_starved_by_small_ones_that_keep_coming),
            cmocka_unit_test(a_flush_is_not_counted_and_waits_for_no_limit),
            cmocka_unit_test(requests_that_wait_hold_up_no_snapshot_and_end_when_cancelled),
            cmocka_unit_test(what_waits_goes_at_once_where_the_pool_is_hurried),
            cmocka_unit_test(a_handle_that_is_cancelled_leaves_its_turns_to_the_others),
            cmocka_unit_test(a_request_that_waited_for_longer_than_its_place_is_refused),
            cmocka_unit_test(the_limits_and_who_waits_for_them_are_shown),
        };
        static struct load loads[sizeof(load_of) / sizeof(load_of[0])];
        for (unsigned i = 0; i < sizeof(load_of) / sizeof(load_of[0]); i++)
                load_of[i] = &loads[i];
        return cmocka_run_group_tests(tests, NULL, NULL);
}
