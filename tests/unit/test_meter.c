/* What is counted: buckets of latencies, depth over time, and what a volume, its handles and the
 * members show for known requests. */
#include <errno.h>
#include "pool/meter.h"
#include "tests/unit/sim_pool.h"

/* ---- alone ---- */

static void every_latency_lies_in_its_bucket(void **state)
{
        assert_int_equal(meter_bucket(0), 0);
        assert_int_equal(meter_bucket(1023), 0);
        assert_int_equal(meter_bucket(1024), 1);
        assert_int_equal(meter_bucket((UINT64_C(1) << 36) - 1), METER_BUCKETS - 2);
        assert_int_equal(meter_bucket(UINT64_C(1) << 36), METER_BUCKETS - 1);
        assert_int_equal(meter_bucket(UINT64_MAX), METER_BUCKETS - 1);
        assert_true(meter_bucket_end_ns(METER_BUCKETS - 2) == UINT64_C(1) << 36);
        for (unsigned i = 0; i + 1 < METER_BUCKETS; i++) {
                uint64_t end = meter_bucket_end_ns(i);
                assert_int_equal(meter_bucket(end - 1), i);
                assert_int_equal(meter_bucket(end), i + 1);
        }
}

static void a_bucket_is_no_wider_than_a_quarter_of_what_it_begins_with(void **state)
{
        for (unsigned i = 1; i + 1 < METER_BUCKETS; i++) {
                uint64_t begin = meter_bucket_end_ns(i - 1);
                assert_true((meter_bucket_end_ns(i) - begin) * 4 <= begin);
        }
}

static void depth_and_busy_time_are_integrals_over_time(void **state)
{
        struct meter_queue q = {0};
        uint64_t t = UINT64_C(1) << 60;

        meter_queue_begin(&q, t);
        meter_queue_begin(&q, t + 10);
        assert_int_equal(meter_queue_depth_ns(&q, t + 30), 10 + 2 * 20);
        meter_queue_end(&q, t + 40);
        meter_queue_end(&q, t + 100);
        assert_int_equal(meter_queue_depth_ns(&q, t + 1000), 10 + 2 * 30 + 60);
        assert_int_equal(meter_queue_busy_ns(&q, t + 1000), 100);
        meter_queue_begin(&q, t + 2000);
        assert_int_equal(meter_queue_busy_ns(&q, t + 2005), 105);
        assert_int_equal(meter_queue_depth_ns(&q, t + 2005), 130 + 5);
        assert_int_equal(q.depth, 1);
}

/* ---- in a pool ---- */

static char data[16 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));

struct kept {
        const char *name;
        struct volume_stats stats;
        struct handle_stats handle;
        unsigned n;
        char user[160];
};

static void keep_volume(const struct volume_stats *stats, void *arg)
{
        struct kept *k = arg;
        if (strcmp(stats->name, k->name) == 0) {
                k->stats = *stats;
                k->n++;
        }
}

static void keep_handle(const struct handle_stats *stats, void *arg)
{
        struct kept *k = arg;
        if (strcmp(stats->name, k->name) == 0) {
                k->handle = *stats;
                snprintf(k->user, sizeof(k->user), "%s", stats->user);
                k->n++;
        }
}

static struct kept volume_of(struct sim_pool *s, const char *name)
{
        struct kept k = {.name = name};
        pool_each_volume_stats(s->pool, keep_volume, &k);
        return k;
}

static struct kept handle_of(struct sim_pool *s, const char *name)
{
        struct kept k = {.name = name};
        pool_each_handle_stats(s->pool, keep_handle, &k);
        return k;
}

static bool line_is(const struct meter_line *line, uint64_t requests, uint64_t bytes,
                    uint64_t errors)
{
        uint64_t sum = 0;
        for (unsigned i = 0; i < METER_BUCKETS; i++)
                sum += line->bucket[i];
        return line->requests == requests && line->bytes == bytes && line->errors == errors &&
               sum == requests;
}

static int co_some_of_each(struct volume *v)
{
        int r = co_volume_write(v, data, sizeof(data), 0, 0);
        r = r ? r : co_volume_write(v, data, 512, 512, VOLUME_FUA);
        r = r ? r : co_volume_read(v, data, sizeof(data), 0);
        r = r ? r : co_volume_read(v, data, 100, 50);
        r = r ? r : co_volume_read(v, data, 100, 1 << 19);
        r = r ? r : co_volume_flush(v);
        r = r ? r : co_volume_discard(v, 0, 2 * POOL_BLOCK, 0);
        r = r ? r : co_volume_zero(v, 0, 3 * POOL_BLOCK, 0);
        r = r ? r : co_volume_zero(v, 0, 0, 0);
        return r;
}

static bool some_of_each(const struct meter_line *line)
{
        return line_is(&line[METER_WRITE], 2, sizeof(data) + 512, 0) &&
               line_is(&line[METER_READ], 4, sizeof(data) + 200, 1) &&
               line_is(&line[METER_FLUSH], 1, 0, 0) &&
               line_is(&line[METER_DISCARD], 1, 2 * POOL_BLOCK, 0) &&
               line_is(&line[METER_ZERO], 2, 3 * POOL_BLOCK, 0);
}

static void co_counts(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v, *other;
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, volume_of(s, "v").n == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &other, NULL) == 0);
        expect(s, handle_of(s, "v").n == 0);
        volume_set_user(v, "a test");
        expect(s, co_some_of_each(v) == 0 && co_volume_read(v, data, 512, 1 << 20) == -EINVAL);
        struct kept h = handle_of(s, "v");
        expect(s, h.n == 1 && strcmp(h.user, "a test") == 0 && !h.handle.readonly);
        expect(s, some_of_each(h.handle.meter.line));
        expect(s, co_volume_read(other, data, 512, 0) == 0);
        expect(s, volume_of(s, "v").stats.meter.line[METER_READ].requests == 5);
        co_volume_close(other);
        struct kept k = volume_of(s, "v");
        expect(s, k.stats.n_handles == 1 && k.stats.meter.line[METER_READ].requests == 5);
        co_volume_close(v);
        k = volume_of(s, "v");
        expect(s, k.stats.n_handles == 0 && k.stats.meter.line[METER_READ].requests == 5);
        expect(s, k.stats.meter.depth == 0 && handle_of(s, "v").n == 0);
        co_sim_pool_close(s);
}

static void a_volume_and_its_handle_show_what_was_asked(void **state)
{
        sim_pool_run(1, 1, co_counts);
}

/* Latencies, depth and busy time agree with the clock: one request at a time. */
static void co_times(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        sim_disk_set_latency(s->disk[0], 3000000, 3000000);
        for (unsigned i = 0; i < 10; i++) {
                expect(s, co_volume_write(v, data, POOL_BLOCK, 0, 0) == 0);
                co_sleep_ns(1000000);
        }
        struct meter_stats m = volume_of(s, "v").stats.meter;
        expect(s, m.line[METER_WRITE].latency_ns == 30000000);
        expect(s, m.line[METER_WRITE].bucket[meter_bucket(3000000)] == 10);
        expect(s, m.depth_ns == 30000000 && m.busy_ns == 30000000);
        struct meter_stats d;
        pool_get_member_stats(s->pool, 0, &d);
        expect(s, d.line[METER_WRITE].bucket[meter_bucket(3000000)] >= 10);
        expect(s, d.depth == 0);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void latency_depth_and_busy_time_agree_with_the_clock(void **state)
{
        sim_pool_run(1, 1, co_times);
}

static void co_errors(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .count = 1, .error = -EIO};
        struct volume *v;
        struct meter_stats before, after;
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        pool_get_member_stats(s->pool, 0, &before);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 0, 0) == -EIO);
        pool_get_member_stats(s->pool, 0, &after);
        expect(s, line_is(&volume_of(s, "v").stats.meter.line[METER_WRITE], 1, 0, 1));
        expect(s, after.line[METER_WRITE].errors == before.line[METER_WRITE].errors + 1);
        expect(s, after.line[METER_WRITE].requests == before.line[METER_WRITE].requests + 1);
        expect(s, after.line[METER_WRITE].bytes == before.line[METER_WRITE].bytes);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void a_failed_write_is_an_error_of_the_volume_and_the_member(void **state)
{
        sim_pool_run(1, 1, co_errors);
}

static void co_restored(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 4) == 0 && co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 4) == 0);
        expect(s, co_snapshot_restore(s->pool, "v@a", "kept", NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 4) == 0);
        expect(s, volume_of(s, "v").stats.meter.line[METER_WRITE].requests == 3);
        expect(s, volume_of(s, "v@kept").n == 0);
        expect(s, co_volume_rename(s->pool, "v", "w", NULL) == 0);
        expect(s, volume_of(s, "v").n == 0 && volume_of(s, "w").n == 1);
        expect(s, co_volume_delete(s->pool, "w", true, NULL) == 0 && volume_of(s, "w").n == 0);
        co_sim_pool_close(s);
}

static void counters_stay_over_a_restore_and_go_with_the_volume(void **state)
{
        sim_pool_run(1, 1, co_restored);
}

static void co_cache(void *arg)
{
        struct sim_pool *s = arg;
        struct pool_stats before, after;
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 4) == 0);
        expect(s, co_sim_pool_close(s) == 0 && co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        pool_get_stats(s->pool, &before);
        expect(s, co_volume_read(v, data, POOL_BLOCK, 0) == 0);
        pool_get_stats(s->pool, &after);
        expect(s, after.cache_misses == before.cache_misses + 1); /* 1 MiB is one leaf */
        before = after;
        expect(s, co_volume_read(v, data, POOL_BLOCK, 0) == 0);
        pool_get_stats(s->pool, &after);
        expect(s, after.cache_misses == before.cache_misses);
        expect(s, after.cache_hits == before.cache_hits + 1);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void a_node_that_is_read_is_a_miss_and_then_a_hit(void **state)
{
        sim_pool_run(1, 1, co_cache);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(every_latency_lies_in_its_bucket),
            cmocka_unit_test(a_bucket_is_no_wider_than_a_quarter_of_what_it_begins_with),
            cmocka_unit_test(depth_and_busy_time_are_integrals_over_time),
            cmocka_unit_test(a_volume_and_its_handle_show_what_was_asked),
            cmocka_unit_test(latency_depth_and_busy_time_agree_with_the_clock),
            cmocka_unit_test(a_failed_write_is_an_error_of_the_volume_and_the_member),
            cmocka_unit_test(counters_stay_over_a_restore_and_go_with_the_volume),
            cmocka_unit_test(a_node_that_is_read_is_a_miss_and_then_a_hit),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
