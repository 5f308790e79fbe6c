/* Volumes whose property on-full is wait: what finds no space waits for it, and nobody else does. */
#include <errno.h>
#include "tests/unit/sim_pool.h"

#define SECOND_NS  UINT64_C(1000000000)
#define N_REQUESTS 4u

static char data[64 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));

/* ---- who waits ---- */

static struct waiter {
        struct volume_request req[N_REQUESTS];
        struct iovec iov;
        unsigned n_done;
        int result;
} waiter;

static void waiter_done(struct volume_request *req, int result)
{
        waiter.n_done++;
        waiter.result = result;
}

static void waiter_start(struct volume *v, uint64_t offset, uint64_t length)
{
        waiter = (struct waiter){.iov = {data, length}};
        for (unsigned i = 0; i < N_REQUESTS; i++) {
                waiter.req[i] = (struct volume_request){.op = VOLUME_WRITE,
                                                        .offset = offset + i * (64u << 10),
                                                        .length = length,
                                                        .iov = &waiter.iov,
                                                        .n_iov = 1,
                                                        .done = waiter_done};
                volume_submit(v, &waiter.req[i]);
        }
}

static bool co_waiter_ends(struct sim_pool *s, uint64_t within_ns)
{
        uint64_t end_ns = loop_now_ns(s->loop) + within_ns;
        while (waiter.n_done < N_REQUESTS && loop_now_ns(s->loop) < end_ns)
                co_sleep_ns(1000000);
        return waiter.n_done == N_REQUESTS;
}

/* ---- what is told ---- */

static unsigned n_events[POOL_EVENT_STOPPED + 1];
static struct pool_event last;
static char last_volume[160];

static void observe(const struct pool_event *event, void *arg)
{
        n_events[event->kind]++;
        last = *event;
        snprintf(last_volume, sizeof(last_volume), "%s", event->volume ? event->volume : "");
}

/* ---- a full pool ---- */

/* "data" has taken all space, and "v" is open. */
static int co_full_pool(struct sim_pool *s, const char *on_full, struct volume **ret_v)
{
        struct volume *d;
        memset(n_events, 0, sizeof(n_events));
        int r = co_sim_pool_create(s);
        r = r ? r : co_volume_create(s->pool, "data", 1 << 30, NULL);
        r = r ? r : co_volume_create(s->pool, "v", 1 << 30, NULL);
        r = r ? r : co_volume_set(s->pool, "v", "on-full", on_full, NULL);
        r = r ? r : co_volume_open(s->pool, "v", ret_v, NULL);
        r = r ? r : co_volume_write(*ret_v, data, 512, 0, 0);
        r = r ? r : co_volume_open(s->pool, "data", &d, NULL);
        if (r < 0)
                return r;
        pool_observe(s->pool, observe, NULL);
        uint64_t at = 0;
        while (co_volume_write(d, data, sizeof(data), at, 0) == 0)
                at += sizeof(data);
        for (; r == 0; at += POOL_BLOCK)
                r = co_volume_write(d, data, POOL_BLOCK, at, 0);
        co_volume_close(d);
        return r == -ENOSPC && n_events[POOL_EVENT_FULL] == 1 ? 0 : -EINVAL;
}

static uint64_t n_full;

static void keep(const struct volume_stats *stats, void *arg)
{
        n_full += stats->n_full;
}

static uint64_t waiting_for_space(struct sim_pool *s)
{
        n_full = 0;
        pool_each_volume_stats(s->pool, keep, NULL);
        return n_full;
}

static void co_waits(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_full_pool(s, "wait", &v) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 30 * SECOND_NS) && waiter.n_done == 0);
        expect(s, waiting_for_space(s) == N_REQUESTS && n_events[POOL_EVENT_SPACE] == 0);
        /* nobody else waits */
        uint64_t begin = loop_now_ns(s->loop);
        expect(s, co_volume_read(v, data, 512, 0) == 0 && co_volume_flush(v) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_volume_resize(s->pool, "v", UINT64_C(2) << 30, NULL) == 0);
        expect(s, loop_now_ns(s->loop) - begin < SECOND_NS && waiter.n_done == 0);
        expect(s, co_volume_delete(s->pool, "data", false, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, co_waiter_ends(s, 2 * SECOND_NS) && waiter.result == 0);
        expect(s, n_events[POOL_EVENT_SPACE] == 1 && waiting_for_space(s) == 0);
        expect(s, co_volume_flush(v) == 0);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void a_write_waits_for_space_and_goes_on_when_it_comes(void **state)
{
        sim_pool_run(1, 1, co_waits);
}

static void co_parts(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_full_pool(s, "wait", &v) == 0);
        waiter_start(v, (1 << 20) + 512, 1024);
        expect(s, !co_waiter_ends(s, 5500000000));
        uint64_t begin = loop_now_ns(s->loop);
        expect(s, co_sim_pool_snapshot(s, "v@a") == 0);
        expect(s, loop_now_ns(s->loop) - begin < SECOND_NS && waiter.n_done == 0);
        expect(s, co_volume_delete(s->pool, "data", false, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, co_waiter_ends(s, 2 * SECOND_NS) && waiter.result == 0);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void a_write_of_part_of_a_block_waits_and_holds_up_no_snapshot(void **state)
{
        sim_pool_run(1, 1, co_parts);
}

static void co_added(void *arg)
{
        struct sim_pool *s = arg;
        struct member *member;
        struct volume *v;
        s->n_disks = 1;
        expect(s, co_full_pool(s, "wait", &v) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000));
        expect(s, sim_disk_open(s->disk[1], s->loop, &member) == 0);
        expect(s, co_pool_add(s->pool, &member, 1, NULL) == 0);
        expect(s, co_waiter_ends(s, SECOND_NS / 2) && waiter.result == 0);
        expect(s, n_events[POOL_EVENT_SPACE] == 1);
        co_volume_close(v);
        co_sim_pool_close(s);
        s->n_disks = 2;
}

static void a_disk_that_is_added_lets_those_that_wait_go_on(void **state)
{
        sim_pool_run(2, 1, co_added);
}

/* Fill "v" until @percent of the space for data is taken. */
static int co_fill_to(struct sim_pool *s, struct volume *v, unsigned percent, uint64_t *at)
{
        struct pool_info info;
        int r = 0;
        do {
                r = co_volume_write(v, data, POOL_BLOCK, *at, 0);
                *at += POOL_BLOCK;
                pool_get_info(s->pool, &info);
        } while (r == 0 && info.used_bytes * 100 / info.size_bytes < percent);
        return r ? r : co_pool_checkpoint(s->pool, NULL);
}

static void co_filling(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        uint64_t at = 0;
        memset(n_events, 0, sizeof(n_events));
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        pool_observe(s->pool, observe, NULL);
        expect(s, co_fill_to(s, v, 78, &at) == 0 && n_events[POOL_EVENT_FILLING] == 0);
        expect(s, co_fill_to(s, v, 81, &at) == 0 && n_events[POOL_EVENT_FILLING] == 1);
        expect(s, last.percent >= 80 && last.percent < 85);
        expect(s, co_fill_to(s, v, 93, &at) == 0 && n_events[POOL_EVENT_FILLING] == 1);
        expect(s, co_fill_to(s, v, 95, &at) == 0 && n_events[POOL_EVENT_FILLING] == 2);
        expect(s, last.percent >= 95);
        /* a little less is no news, nor is that it comes back */
        expect(s, co_volume_discard(v, 0, at / 50, 0) == 0 && co_pool_settle(s->pool, NULL) == 0);
        expect(s, co_fill_to(s, v, 95, &at) == 0 && n_events[POOL_EVENT_FILLING] == 2);
        /* a good deal less is */
        expect(s, co_volume_discard(v, 0, at / 4, 0) == 0 && co_pool_settle(s->pool, NULL) == 0);
        expect(s, co_fill_to(s, v, 81, &at) == 0 && n_events[POOL_EVENT_FILLING] == 3);
        /* who watches from now on has not been told yet */
        pool_observe(s->pool, observe, NULL);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0 && n_events[POOL_EVENT_FILLING] == 4);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void who_watches_is_told_once_when_80_and_95_percent_are_taken(void **state)
{
        sim_pool_run(1, 1, co_filling);
}

/* A file system under a sparse member that is full, and then is not: nobody tells. */
static void co_host(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .error = -ENOSPC};
        struct volume *v;
        memset(n_events, 0, sizeof(n_events));
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_set(s->pool, "v", "on-full", "wait", NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        pool_observe(s->pool, observe, NULL);
        sim_disk_add_fault(s->disk[0], &fault);
        waiter_start(v, 0, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 10 * SECOND_NS) && waiter.n_done == 0);
        expect(s, n_events[POOL_EVENT_FULL] == 1 && n_events[POOL_EVENT_MEMBER] == 0);
        sim_disk_clear_faults(s->disk[0]);
        expect(s, co_waiter_ends(s, 2 * SECOND_NS) && waiter.result == 0);
        expect(s, n_events[POOL_EVENT_SPACE] == 1);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void space_of_the_host_is_noticed_though_nobody_tells(void **state)
{
        sim_pool_run(1, 1, co_host);
}

static void co_given_up(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_full_pool(s, "wait", &v) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        expect(s, co_volume_set(s->pool, "v", "on-full", "enospc", NULL) == 0);
        expect(s, co_waiter_ends(s, SECOND_NS / 10) && waiter.result == -ENOSPC);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, co_waiter_ends(s, 5 * SECOND_NS) && waiter.result == -ENOSPC);
        expect(s, co_volume_set(s->pool, "v", "on-full", "wait", NULL) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        volume_cancel(v);
        expect(s, co_waiter_ends(s, SECOND_NS / 10) && waiter.result == -ECANCELED);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 1 << 20, 0) == -ECANCELED);
        expect(s, co_volume_set(s->pool, "v", "on-full", "enospc", NULL) == 0);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 1 << 20, 0) == -ENOSPC);
        co_volume_close(v);
        expect(s, co_volume_delete(s->pool, "v", false, NULL) == 0);
        co_sim_pool_close(s);
}

static void those_that_wait_end_when_cancelled_or_set_otherwise(void **state)
{
        sim_pool_run(1, 1, co_given_up);
}

static void co_hurried(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_full_pool(s, "wait", &v) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        volume_hurry(v, true);
        expect(s, co_waiter_ends(s, SECOND_NS / 10) && waiter.result == -ECANCELED);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 1 << 20, 0) == -ECANCELED);
        expect(s, co_volume_read(v, data, POOL_BLOCK, 0) == 0 && co_volume_flush(v) == 0);
        volume_hurry(v, false);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        expect(s, co_volume_delete(s->pool, "data", false, NULL) == 0);
        expect(s, co_waiter_ends(s, 30 * SECOND_NS) && waiter.result == 0);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void those_that_are_hurried_do_not_wait_and_those_after_them_do(void **state)
{
        sim_pool_run(1, 1, co_hurried);
}

static void co_stopped(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_FLUSH), .error = -EIO};
        struct volume *v;
        expect(s, co_full_pool(s, "wait", &v) == 0);
        expect(s, co_volume_set(s->pool, "v", "iops", "1000000", NULL) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_volume_discard(v, 0, POOL_BLOCK, VOLUME_FUA) == -EIO);
        expect(s, n_events[POOL_EVENT_STOPPED] == 1 && strstr(last.sentence, "flush"));
        expect(s, co_waiter_ends(s, SECOND_NS / 10) && waiter.result == -EIO);
        co_volume_close(v);
        co_pool_abandon(s->pool);
}

static void those_that_wait_fail_when_the_pool_stops(void **state)
{
        sim_pool_run(1, 1, co_stopped);
}

static void co_by_default(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_full_pool(s, NULL, &v) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, co_waiter_ends(s, 10 * SECOND_NS) && waiter.result == -ENOSPC);
        expect(s, n_events[POOL_EVENT_FULL] == 1);
        co_volume_close(v);
        expect(s, co_volume_delete(s->pool, "data", false, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, n_events[POOL_EVENT_SPACE] == 1);
        co_sim_pool_close(s);
}

static void a_volume_that_is_not_told_to_wait_gets_enospc(void **state)
{
        sim_pool_run(1, 1, co_by_default);
}

static void co_by_handle(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v, *w;
        expect(s, co_full_pool(s, NULL, &v) == 0);
        expect(s, co_volume_open(s->pool, "v", &w, NULL) == 0);
        volume_set_wait_when_full(v, true);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        expect(s, co_volume_write(w, data, POOL_BLOCK, 1 << 20, 0) == -ENOSPC);
        /* the volume's word is the last */
        expect(s, co_volume_set(s->pool, "v", "on-full", "enospc", NULL) == 0);
        expect(s, co_waiter_ends(s, SECOND_NS / 10) && waiter.result == -ENOSPC);
        expect(s, co_volume_set(s->pool, "v", "on-full", "auto", NULL) == 0);
        waiter_start(v, 1 << 20, POOL_BLOCK);
        expect(s, !co_waiter_ends(s, 5500000000) && waiter.n_done == 0);
        volume_set_wait_when_full(v, false);
        expect(s, co_volume_set(s->pool, "v", "on-full", NULL, NULL) == 0);
        expect(s, co_waiter_ends(s, SECOND_NS / 10) && waiter.result == -ENOSPC);
        co_volume_close(w);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void where_the_volume_says_nothing_the_handle_says_whether_to_wait(void **state)
{
        sim_pool_run(1, 1, co_by_handle);
}

/* ---- other events ---- */

static void co_damage(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .count = 1, .error = -EIO};
        struct volume *v;
        memset(n_events, 0, sizeof(n_events));
        expect(s, co_sim_pool_create(s) == 0 && co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(data, 0x77, POOL_BLOCK);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 8192, 0) == 0);
        pool_observe(s->pool, observe, NULL);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_volume_write(v, data, POOL_BLOCK, 4096, 0) == -EIO);
        expect(s, n_events[POOL_EVENT_MEMBER] == 1 && strcmp(last_volume, "v") == 0);
        expect(s, last.offset == 4096 && strcmp(last.member, "disk0") == 0);
        sim_disk_corrupt(s->disk[0], 0, SIM_MEMBER_SIZE, 0xff);
        expect(s, co_volume_read(v, data, POOL_BLOCK, 8192) == -EIO);
        expect(s, n_events[POOL_EVENT_CHECKSUM] == 1 && strcmp(last_volume, "v") == 0);
        expect(s, last.offset == 8192 && strcmp(last.member, "disk0") == 0);
        sim_disk_corrupt(s->disk[0], 0, SIM_MEMBER_SIZE, 0xff);
        pool_observe(s->pool, NULL, NULL);
        co_volume_close(v);
        co_sim_pool_close(s);
}

static void damage_is_told_with_its_place(void **state)
{
        sim_pool_run(1, 1, co_damage);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_write_waits_for_space_and_goes_on_when_it_comes),
            cmocka_unit_test(a_write_of_part_of_a_block_waits_and_holds_up_no_snapshot),
            cmocka_unit_test(a_disk_that_is_added_lets_those_that_wait_go_on),
            cmocka_unit_test(who_watches_is_told_once_when_80_and_95_percent_are_taken),
            cmocka_unit_test(space_of_the_host_is_noticed_though_nobody_tells),
            cmocka_unit_test(those_that_wait_end_when_cancelled_or_set_otherwise),
            cmocka_unit_test(those_that_are_hurried_do_not_wait_and_those_after_them_do),
            cmocka_unit_test(those_that_wait_fail_when_the_pool_stops),
            cmocka_unit_test(a_volume_that_is_not_told_to_wait_gets_enospc),
            cmocka_unit_test(where_the_volume_says_nothing_the_handle_says_whether_to_wait),
            cmocka_unit_test(damage_is_told_with_its_place),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
