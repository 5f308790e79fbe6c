/* test_stop.c - rules 7 and 9 of the vhost-user-blk device (README.md): requests that wait for their
 * volume's limits, or for space, hold up no stop. Over volumes in memory. */
#include <stdlib.h>
#include <string.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define REQUESTS 5u
#define SECTOR   64u /* where they write */

struct writes {
        struct disk_op ops[REQUESTS];
        struct disk_flight flights[REQUESTS];
        uint8_t data[REQUESTS][512];
};

/* Writes that the server has taken, and that wait for @what. */
static struct writes *waiting(void **state, struct disk *d, enum fake_wait what)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct writes *w = calloc(1, sizeof(*w));

        assert_non_null(w);
        fake_wait_for(volume, what);
        for (unsigned i = 0; i < REQUESTS; i++) {
                check_pattern(w->data[i], 512, 70 + i);
                w->ops[i] = (struct disk_op){.type = VIRTIO_BLK_T_OUT,
                                             .sector = SECTOR + i,
                                             .data = w->data[i],
                                             .n_bytes = 512};
                ok(disk_add(d, 0, &w->ops[i], &w->flights[i], &check_err));
        }
        ring_publish(&d->rings[0]);
        fake_wait_held(volume, REQUESTS);
        return w;
}

/* Each was used, or is used within the time of a test, with @status. */
static void take_all(struct disk *d, struct writes *w, uint8_t status)
{
        uint32_t n_bytes;
        void *cookie;

        for (unsigned i = 0; i < REQUESTS; i++) {
                ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
                disk_finish(d, cookie, n_bytes);
        }
        for (unsigned i = 0; i < REQUESTS; i++)
                assert_int_equal(w->ops[i].status, status);
        assert_int_equal(ring_take(&d->rings[0], &cookie, &n_bytes, &check_err), 0);
}

static void check_written(struct disk *d, const struct writes *w)
{
        uint8_t back[512];

        for (unsigned i = 0; i < REQUESTS; i++) {
                check_read(d, SECTOR + i, back, sizeof(back));
                assert_memory_equal(back, w->data[i], sizeof(back));
        }
}

static void done_with(void **state, struct disk *d, struct writes *w)
{
        fake_wait_for(server_volume(*state, SERVER_VOL), FAKE_WAIT_NOTHING);
        disk_close(d);
        free(w);
}

/* ---- GET_VRING_BASE ---- */

static void stop_ring(struct disk *d)
{
        struct vu_vring_state which = {.index = 0};
        struct front_reply reply;

        ok(front_send(d->front, VU_GET_VRING_BASE, VU_VERSION, &which, sizeof(which), NULL, 0,
                      &check_err));
        ok(front_reply(d->front, VU_GET_VRING_BASE, &reply, &check_err));
}

static void rule_9_a_ring_that_stops_is_not_held_up_by_limits(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d = check_open((struct disk_options){.packed = packed});
                struct writes *w = waiting(state, d, FAKE_WAIT_LIMITS);

                stop_ring(d);
                take_all(d, w, VIRTIO_BLK_S_OK);
                for (unsigned i = 0; i < REQUESTS; i++)
                        assert_memory_equal(fake_data(server_volume(*state, SERVER_VOL)) +
                                                (SECTOR + i) * 512,
                                            w->data[i], 512);
                done_with(state, d, w);
        }
}

static void rule_9_a_ring_that_stops_fails_what_waits_for_space(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d = check_open((struct disk_options){.packed = packed});
                struct writes *w = waiting(state, d, FAKE_WAIT_SPACE);

                stop_ring(d);
                take_all(d, w, VIRTIO_BLK_S_IOERR);
                done_with(state, d, w);
        }
}

static void rule_9_after_a_stop_requests_wait_again(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){.n_queues = 2});
        struct writes *w = waiting(state, d, FAKE_WAIT_LIMITS);
        struct disk_op op = {
            .type = VIRTIO_BLK_T_OUT, .sector = 0, .data = w->data[0], .n_bytes = 512};
        static struct disk_flight flight;
        uint32_t n_bytes;
        void *cookie;

        stop_ring(d);
        take_all(d, w, VIRTIO_BLK_S_OK);
        ok(disk_add(d, 1, &op, &flight, &check_err));
        ring_publish(&d->rings[1]);
        fake_wait_held(volume, 1);
        server_turn(*state);
        assert_int_equal(fake_n_held(volume), 1);
        assert_int_equal(ring_take(&d->rings[1], &cookie, &n_bytes, &check_err), 0);
        server_disconnect(*state, SERVER_VOL);
        done_with(state, d, w);
}

/* ---- the server stops, or detaches ---- */

static void rule_7_what_waits_at_a_stop_is_done_by_the_next_server(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++)
                for (enum fake_wait what = FAKE_WAIT_LIMITS; what <= FAKE_WAIT_SPACE; what++) {
                        struct disk *d = check_open((struct disk_options){.packed = packed});
                        struct volume *volume = server_volume(*state, SERVER_VOL);
                        void *cookie;
                        uint32_t n_bytes;

                        check_alive(d);
                        struct writes *w = waiting(state, d, what);
                        server_disconnect(*state, SERVER_VOL);
                        assert_true(front_is_closed(d->front));
                        assert_int_equal(ring_take(&d->rings[0], &cookie, &n_bytes, &check_err), 0);
                        fake_wait_for(volume, FAKE_WAIT_NOTHING);
                        ok(disk_reconnect(d, RAW_WAIT_MS, &check_err));
                        take_all(d, w, VIRTIO_BLK_S_OK);
                        check_written(d, w);
                        for (unsigned i = 0; i < 3u * d->rings[0].size; i++) /* round the ring */
                                check_alive(d);
                        done_with(state, d, w);
                }
}

static void rule_9_a_stop_of_the_server_answers_front_ends_without_a_region(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++)
                for (enum fake_wait what = FAKE_WAIT_LIMITS; what <= FAKE_WAIT_SPACE; what++) {
                        struct disk *d = check_open(
                            (struct disk_options){.packed = packed, .without_inflight = true});
                        struct writes *w = waiting(state, d, what);

                        server_disconnect(*state, SERVER_VOL);
                        assert_true(front_is_closed(d->front));
                        take_all(d, w,
                                 what == FAKE_WAIT_LIMITS ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
                        done_with(state, d, w);
                }
}

static void rule_9_who_leaves_holds_nothing_up(void **state)
{
        for (unsigned k = 0; k < 4; k++) {
                struct disk *d = check_open(
                    (struct disk_options){.packed = k & 1, .without_inflight = (k & 2) != 0});
                struct writes *w = waiting(state, d, FAKE_WAIT_LIMITS);
                unsigned n = server_n_clients(*state);

                front_close(d->front);
                d->front = NULL;
                server_wait_clients(*state, n - 1);
                done_with(state, d, w);
        }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(rule_9_a_ring_that_stops_is_not_held_up_by_limits),
            TEST(rule_9_a_ring_that_stops_fails_what_waits_for_space),
            TEST(rule_9_after_a_stop_requests_wait_again),
            TEST(rule_7_what_waits_at_a_stop_is_done_by_the_next_server),
            TEST(rule_9_a_stop_of_the_server_answers_front_ends_without_a_region),
            TEST(rule_9_who_leaves_holds_nothing_up),
        };
        return cmocka_run_group_tests_name("vhost stop", tests, NULL, NULL);
}
