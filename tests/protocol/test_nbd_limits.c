/* test_nbd_limits.c - what a connection may hold, how it ends, and that its end hurts nobody. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/coroutine.h"
#include "common/log.h"
#include "tests/protocol/fixture.h"
#include "tests/protocol/wire.h"

#define MIB (1u << 20)

static struct wire *open_vol(void **state)
{
        return wire_open(fixture_path(*state), "vol", true);
}

/* ---- bounds ---- */

static void requests_in_flight_are_bounded_and_the_rest_wait_in_the_socket(void **state)
{
        enum { N = 300 };
        struct volume *volume = fixture_volume(*state);
        struct wire *w = open_vol(state);
        bool seen[N] = {0};

        fake_hold(volume);
        for (uint64_t cookie = 0; cookie < N; cookie++)
                wire_request(w, NBD_CMD_TRIM, 0, cookie, 0, 4096);
        fake_wait_held(volume, 128);
        fixture_n_clients(*state); /* the server has had its chance to take more */
        assert_int_equal(fake_counts(volume).in_flight, 128);
        fake_release_all(volume);
        for (unsigned i = 0; i < N; i++) {
                struct wire_answer answer;
                wire_answer(w, &answer);
                assert_int_equal(answer.error, 0);
                assert_true(answer.cookie < N && !seen[answer.cookie]);
                seen[answer.cookie] = true;
        }
        assert_int_equal(fake_counts(volume).in_flight_max, 128);
        wire_close(w);
}

static void bytes_in_flight_are_bounded(void **state)
{
        enum { N = 40, LENGTH = 8 * MIB };
        struct volume *volume = fixture_volume(*state);
        struct wire *w = open_vol(state);
        uint8_t *data = malloc(LENGTH);

        fake_hold(volume);
        for (uint64_t cookie = 0; cookie < N; cookie++)
                wire_request(w, NBD_CMD_READ, 0, cookie, 0, LENGTH);
        fake_wait_held(volume, 8);
        fixture_n_clients(*state);
        assert_int_equal(fake_counts(volume).in_flight, 8);
        fake_release_all(volume);
        for (uint64_t cookie = 0; cookie < N; cookie++)
                assert_int_equal(wire_read_result(w, cookie, 0, data, LENGTH), 0);
        assert_true(fake_counts(volume).bytes_in_flight_max <= 64 * MIB);
        wire_close(w);
        free(data);
}

static void a_request_larger_than_the_bound_is_served_alone(void **state)
{
        struct nbd_server_options options = {.max_bytes = 100000, .max_requests = 4};
        struct fixture *f = fixture_start(&options);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        uint8_t *data = malloc(MIB);

        for (uint64_t cookie = 0; cookie < 3; cookie++)
                wire_request(w, NBD_CMD_READ, 0, cookie, 0, MIB);
        for (uint64_t cookie = 0; cookie < 3; cookie++)
                assert_int_equal(wire_read_result(w, cookie, 0, data, MIB), 0);
        assert_int_equal(fake_counts(fixture_volume(f)).in_flight_max, 1);
        wire_close(w);
        fixture_stop(f, 5000);
        free(data);
}

static void a_client_that_does_not_read_is_bounded_and_holds_up_nobody(void **state)
{
        enum { N = 200 };
        struct volume *volume = fixture_volume(*state);
        struct wire *slow = open_vol(state), *other = open_vol(state);
        uint8_t *data = malloc(MIB);

        for (uint64_t cookie = 0; cookie < N; cookie++)
                wire_request(slow, NBD_CMD_READ, 0, cookie, 0, MIB);
        while (fake_counts(volume).submitted[VOLUME_READ] < 64)
                usleep(1000);
        for (unsigned i = 0; i < 1000; i++)
                wire_expect_alive(other);
        /* 64 MiB, and what the socket has taken */
        assert_true(fake_counts(volume).submitted[VOLUME_READ] < 80);
        for (uint64_t cookie = 0; cookie < N; cookie++)
                assert_int_equal(wire_read_result(slow, cookie, 0, data, MIB), 0);
        wire_close(slow);
        wire_close(other);
        free(data);
}

static void refused_requests_count_too_while_their_replies_are_not_read(void **state)
{
        struct wire *w = open_vol(state), *other = open_vol(state);
        struct wire_answer answer;
        enum { N = 20000 };

        for (uint64_t cookie = 0; cookie < N; cookie++) {
                wire_request(w, 99, 0, cookie, 0, 0);
                if (cookie % 1000 ==
                    999) /* read none for long: then the socket would be full both ways */
                        for (unsigned i = 0; i < 1000; i++)
                                wire_answer(w, &answer);
        }
        wire_expect_alive(other);
        wire_close(w);
        wire_close(other);
}

static void many_connections_together_are_bounded_too_and_all_are_served_in_turn(void **state)
{
        enum { CLIENTS = 6, EACH = 8, LENGTH = MIB };
        struct nbd_server_options options = {.max_total_bytes = 3 * MIB};
        struct fixture *f = fixture_start(&options);
        struct wire *w[CLIENTS];
        uint64_t next[CLIENTS] = {0};
        uint8_t *data = malloc(LENGTH);

        for (unsigned i = 0; i < CLIENTS; i++)
                w[i] = wire_open(fixture_path(f), "vol", true);
        fake_hold(fixture_volume(f));
        for (unsigned i = 0; i < CLIENTS; i++)
                for (uint64_t cookie = 0; cookie < EACH; cookie++)
                        wire_request(w[i], NBD_CMD_READ, 0, cookie, 0, LENGTH);
        fake_wait_held(fixture_volume(f), 3);
        fixture_n_clients(f);
        assert_int_equal(fake_counts(fixture_volume(f)).in_flight, 3);
        fake_release_all(fixture_volume(f));
        for (unsigned left = CLIENTS * EACH; left > 0;) {
                for (unsigned i = 0; i < CLIENTS; i++) {
                        if (!wire_pending(w[i]))
                                continue;
                        assert_int_equal(wire_read_result(w[i], next[i]++, 0, data, LENGTH), 0);
                        left--;
                }
        }
        assert_int_equal(fake_counts(fixture_volume(f)).bytes_in_flight_max, 3 * LENGTH);
        for (unsigned i = 0; i < CLIENTS; i++)
                wire_close(w[i]);
        fixture_stop(f, 5000);
        free(data);
}

static void those_who_hold_all_memory_and_do_nothing_are_cut_off(void **state)
{
        struct nbd_server_options options = {.max_total_bytes = 8 * MIB};
        struct fixture *f = fixture_start(&options);
        struct wire *reader = wire_open(fixture_path(f), "vol", true);
        struct wire *writer = wire_open(fixture_path(f), "vol", true);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        uint8_t *data = calloc(1, 8 * MIB);

        wire_request(writer, NBD_CMD_WRITE, 0, 1, 0, 4 * MIB);
        wire_send(writer, data, 100000);                 /* and no more */
        for (uint64_t cookie = 0; cookie < 20; cookie++) /* and takes no replies */
                wire_request(reader, NBD_CMD_READ, 0, cookie, 0, 2 * MIB);
        while (fake_counts(fixture_volume(f)).submitted[VOLUME_READ] < 2)
                usleep(1000);
        assert_int_equal(wire_read(w, 0, 0, data, 65536), 0);   /* small ones always go on, */
        assert_int_equal(fixture_n_clients(f), 3);              /* and cost nobody his connection */
        assert_int_equal(wire_read(w, 0, 0, data, 8 * MIB), 0); /* needs what both of them hold */
        wire_drain(reader);
        wire_drain(writer);
        wire_expect_alive(w);
        wire_close(reader);
        wire_close(writer);
        wire_close(w);
        fixture_stop(f, 5000);
        free(data);
}

struct trickle {
        struct wire *w;
        atomic_bool enough;
};

static void *trickle_main(void *arg)
{
        struct trickle *t = arg;

        while (!t->enough && wire_try_send(t->w, "x", 1))
                usleep(200000);
        return NULL;
}

static void those_who_hold_memory_and_move_a_byte_now_and_then_are_cut_off(void **state)
{
        struct nbd_server_options options = {.max_total_bytes = 8 * MIB};
        struct fixture *f = fixture_start(&options);
        struct wire *writer = wire_open(fixture_path(f), "vol", true);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        uint8_t *data = calloc(1, 8 * MIB);
        struct trickle trickle = {.w = writer};
        pthread_t thread;

        wire_request(writer, NBD_CMD_WRITE, 0, 1, 0, 8 * MIB);
        wire_send(writer, data, 100000);
        fixture_n_clients(f);
        assert_int_equal(pthread_create(&thread, NULL, trickle_main, &trickle), 0);
        assert_int_equal(wire_read(w, 0, 0, data, 8 * MIB), 0); /* needs what the writer holds */
        trickle.enough = true;
        assert_int_equal(pthread_join(thread, NULL), 0);
        wire_drain(writer);
        wire_expect_alive(w);
        wire_close(writer);
        wire_close(w);
        fixture_stop(f, 5000);
        free(data);
}

/* ---- how it ends ---- */

static void a_client_may_vanish_with_requests_in_flight(void **state)
{
        struct fixture *f = *state;
        uint8_t data[4096] = {1};

        for (unsigned structured = 0; structured < 2; structured++) {
                struct wire *w = wire_open(fixture_path(f), "vol", structured);
                fake_hold(fixture_volume(f));
                for (uint64_t cookie = 0; cookie < 20; cookie++) {
                        wire_write(w, 0, cookie, cookie * 4096, data, sizeof(data));
                        wire_request(w, NBD_CMD_READ, 0, cookie, 0, MIB);
                }
                fake_wait_held(fixture_volume(f), 40);
                assert_int_equal(fixture_n_left(f), 0);
                wire_close(w);
                assert_int_equal(fixture_n_left(f), 1); /* for who asks, already */
                assert_int_equal(fixture_n_clients(f), 1);
                assert_int_equal(fixture_n_open(f), 1); /* the engine has its buffers */
                fake_release_all(fixture_volume(f));
                fixture_wait_gone(f);
        }
}

static void a_client_may_vanish_in_the_middle_of_a_payload(void **state)
{
        static const uint32_t lengths[] = {4096, 65536, MIB, 32 * MIB};
        uint8_t *data = calloc(1, 400000);

        for (unsigned i = 0; i < 4; i++) {
                struct wire *w = open_vol(state);
                uint32_t part = lengths[i] - 1 < 400000 ? lengths[i] - 1 : 400000;
                wire_expect_alive(w);
                wire_request(w, NBD_CMD_WRITE, 0, 1, 0, lengths[i]);
                wire_send(w, data, part);
                fixture_n_clients(*state);
                wire_close(w);
                fixture_wait_gone(*state);
        }
        assert_int_equal(fake_counts(fixture_volume(*state)).submitted[VOLUME_WRITE], 0);
        free(data);
}

static void a_client_may_vanish_while_replies_are_being_sent(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t some[5000];

        for (uint64_t cookie = 0; cookie < 50; cookie++)
                wire_request(w, NBD_CMD_READ, 0, cookie, 0, MIB);
        wire_receive(w, some, sizeof(some));
        wire_close(w);
        fixture_wait_gone(*state);
}

static void a_client_may_vanish_during_the_negotiation(void **state)
{
        for (unsigned i = 0; i < 3; i++) {
                struct wire *w = wire_connect(fixture_path(*state));
                if (i > 0)
                        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
                if (i > 1)
                        wire_option(w, NBD_OPT_GO, "\0\0\0\3vol\0\0", 9);
                wire_close(w);
        }
        fixture_wait_gone(*state);
}

static void the_end_of_the_stream_leaves_replies_to_be_sent(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t *data = malloc(MIB);

        fake_hold(fixture_volume(*state));
        for (uint64_t cookie = 0; cookie < 5; cookie++)
                wire_request(w, NBD_CMD_READ, 0, cookie, 0, MIB);
        wire_shutdown_send(w);
        fake_wait_held(fixture_volume(*state), 5);
        fake_release_all(fixture_volume(*state));
        for (uint64_t cookie = 0; cookie < 5; cookie++)
                assert_int_equal(wire_read_result(w, cookie, 0, data, MIB), 0);
        wire_expect_closed(w);
        wire_close(w);
        free(data);
}

/* Nothing is being received that would end with the connection: as many requests as there may be
 * are waiting, or the client has said that it sends no more. */
static void a_client_that_vanishes_unheard_does_not_wait_for_space(void **state)
{
        struct fixture *f = *state;
        uint8_t data[512] = {1};

        for (unsigned how = 0; how < 3; how++) {
                unsigned n = how == 0 ? 200 : 1;
                struct wire *w = open_vol(state);
                fake_wait_for(fixture_volume(f), FAKE_WAIT_SPACE);
                for (uint64_t cookie = 0; cookie < n; cookie++)
                        wire_write(w, 0, cookie, 0, data, sizeof(data));
                fake_wait_held(fixture_volume(f), n < 128 ? n : 128);
                if (how == 1)
                        wire_shutdown_send(w);
                if (how == 2)
                        wire_request(w, NBD_CMD_DISC, 0, 2, 0, 0);
                fixture_n_clients(f); /* the server has seen it */
                assert_int_equal(fixture_n_open(f), 1);
                wire_close(w);
                fixture_wait_gone(f);
                assert_int_equal(fake_data(fixture_volume(f))[0], 0);
                fake_release_all(fixture_volume(f));
        }
}

static void disc_finishes_what_is_in_flight(void **state)
{
        struct wire *w = open_vol(state);

        fake_hold(fixture_volume(*state));
        wire_request(w, NBD_CMD_FLUSH, 0, 1, 0, 0);
        wire_request(w, NBD_CMD_DISC, 0, 2, 0, 0);
        wire_request(w, NBD_CMD_FLUSH, 0, 3, 0, 0); /* comes too late */
        fake_wait_held(fixture_volume(*state), 1);
        fake_release_all(fixture_volume(*state));
        assert_int_equal(wire_result(w, 1), 0);
        wire_expect_closed(w);
        assert_int_equal(fake_counts(fixture_volume(*state)).submitted[VOLUME_FLUSH], 1);
        wire_close(w);
        fixture_wait_gone(*state);
}

/* ---- cut off by the operator ---- */

static void disconnect(void *arg)
{
        co_nbd_server_disconnect(fixture_server(arg), "pool/vol");
}

static void disconnect_cuts_the_clients_of_one_export_only(void **state)
{
        struct wire *a = open_vol(state), *b = wire_open(fixture_path(*state), "", false);
        struct wire *other = wire_open(fixture_path(*state), "pool/big", true);
        struct wire *negotiating = wire_connect(fixture_path(*state));

        wire_greet(negotiating, NBD_FLAG_FIXED_NEWSTYLE);
        wire_expect_alive(a);
        fixture_run_co(*state, disconnect, *state);
        assert_int_equal(fixture_n_open(*state), 1);
        wire_expect_closed(a);
        wire_expect_closed(b);
        wire_expect_alive(other);
        wire_go(negotiating, "vol", NULL, NULL);
        wire_expect_alive(negotiating);
        wire_close(a);
        wire_close(b);
        wire_close(other);
        wire_close(negotiating);
}

struct disconnecting {
        struct fixture *fixture;
        sem_t done;
};

static void co_disconnecting(void *arg)
{
        struct disconnecting *d = arg;

        co_nbd_server_disconnect(fixture_server(d->fixture), "pool/vol");
        sem_post(&d->done);
}

static void spawn_disconnecting(void *arg)
{
        struct disconnecting *d = arg;

        assert_int_equal(co_spawn(fixture_loop(d->fixture), co_disconnecting, d), 0);
}

static void disconnect_waits_for_the_engine(void **state)
{
        struct fixture *f = *state;
        struct disconnecting d = {.fixture = f};
        struct wire *w = open_vol(state);
        uint8_t data[4096] = {0};

        sem_init(&d.done, 0, 0);
        fake_hold(fixture_volume(f));
        wire_request(w, NBD_CMD_READ, 0, 1, 0, MIB);
        wire_write(w, 0, 2, 0, data, sizeof(data));
        wire_request(w, NBD_CMD_FLUSH, 0, 3, 0, 0);
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 4, 0, MIB);
        fake_wait_held(fixture_volume(f), 3);
        fixture_run(f, spawn_disconnecting, &d);
        wire_drain(w); /* cut at once, but its requests live on */
        assert_int_equal(fixture_n_open(f), 1);
        assert_int_equal(sem_trywait(&d.done), -1);
        fake_release_all(fixture_volume(f));
        while (sem_wait(&d.done) < 0)
                assert_int_equal(errno, EINTR);
        assert_int_equal(fixture_n_open(f), 0);
        sem_destroy(&d.done);
        wire_close(w);
}

static void a_client_may_be_cut_while_slow_requests_wait(void **state)
{
        for (unsigned round = 0; round < 30; round++) {
                struct wire *w = open_vol(state);
                for (uint64_t cookie = 0; cookie < 100; cookie++)
                        wire_request(w, cookie % 3 ? NBD_CMD_BLOCK_STATUS : NBD_CMD_CACHE, 0,
                                     cookie, 0, 32 * MIB);
                fixture_run_co(*state, disconnect, *state);
                assert_int_equal(fixture_n_open(*state), 0);
                wire_close(w);
        }
}

static void a_client_that_was_cut_ends_its_long_zeroing(void **state)
{
        enum { REQUESTS = 8 };
        struct fixture *f = *state;
        struct disconnecting d = {.fixture = f};
        struct wire *w = open_vol(state);

        sem_init(&d.done, 0, 0);
        fake_hold(fixture_volume(f));
        for (uint64_t cookie = 0; cookie < REQUESTS; cookie++) /* data, slice by slice */
                wire_request(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA,
                             cookie, 0, VOL_BYTES);
        fake_wait_held(fixture_volume(f), REQUESTS);
        fixture_run(f, spawn_disconnecting, &d);
        wire_drain(w);
        fake_release_all(fixture_volume(f));
        while (sem_wait(&d.done) < 0)
                assert_int_equal(errno, EINTR);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_WRITE], REQUESTS);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_FLUSH], 0);
        assert_int_equal(fixture_n_open(f), 0);
        sem_destroy(&d.done);
        wire_close(w);
}

static void who_is_cut_off_waits_neither_for_limits_nor_for_space(void **state)
{
        for (enum fake_wait what = FAKE_WAIT_LIMITS; what <= FAKE_WAIT_SPACE; what++) {
                struct fixture *f = fixture_start(NULL);
                struct wire *w = wire_open(fixture_path(f), "vol", true);
                uint8_t data[512] = {1};

                fake_wait_for(fixture_volume(f), what);
                wire_write(w, 0, 1, 0, data, sizeof(data));
                fake_wait_held(fixture_volume(f), 1);
                fixture_begin_cut(f, "pool/vol");
                wire_expect_closed(w);
                while (fixture_n_open(f) > 0)
                        usleep(1000);
                assert_int_equal(fake_data(fixture_volume(f))[0], 0);
                fixture_stop(f, 0);
                wire_close(w);
        }
}

/* ---- the log ---- */

static atomic_uint n_lines, n_left_out; /* counted by any thread */

static void count_line(enum log_level level, const char *message)
{
        unsigned n;

        n_lines++;
        if (sscanf(message, "nbd: %u more", &n) == 1)
                n_left_out = n;
}

static void many_bad_clients_do_not_fill_the_log(void **state)
{
        enum { N = 500 };
        struct fixture *f = fixture_start(NULL);
        time_t begin = time(NULL);
        struct wire *w;

        n_lines = n_left_out = 0;
        log_set_sink(count_line);
        for (unsigned i = 0; i < N; i++) {
                w = wire_connect(fixture_path(f));
                wire_greet(w, 0xffffffff);
                wire_expect_closed(w);
                wire_close(w);
        }
        sleep(1);
        w = wire_connect(fixture_path(f)); /* says how many went before */
        wire_greet(w, 0xffffffff);
        wire_expect_closed(w);
        wire_close(w);
        fixture_stop(f, 5000);
        /* Less than a second more than the difference, which touches two more of the server's. */
        assert_in_range(n_lines, 2, 21 * (time(NULL) - begin + 2));
        assert_true(n_left_out > 0);
}

/* ---- memory ---- */

static void a_connection_that_asks_for_nothing_is_ended_where_that_is_asked_for(void **state)
{
        struct nbd_server_options options = {.idle_timeout_ms = 400};
        struct fixture *f = fixture_start(&options);
        struct wire *idle = wire_open(fixture_path(f), "vol", true),
                    *busy = wire_open(fixture_path(f), "vol", true),
                    *waiting = wire_open(fixture_path(f), "vol", true);

        fake_hold(fixture_volume(f));
        wire_request(waiting, NBD_CMD_FLUSH, 0, 1, 0, 0);
        fake_wait_held(fixture_volume(f), 1);
        while (!wire_ended(idle)) { /* one that asks now and then, and one that is not answered */
                wire_request(busy, 99, 0, 2, 0, 0);
                assert_int_equal(wire_result(busy, 2), NBD_EINVAL);
                usleep(10000);
        }
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_result(waiting, 1), 0);
        wire_expect_closed(busy);
        wire_expect_closed(waiting);
        wire_close(idle);
        wire_close(busy);
        wire_close(waiting);
        fixture_stop(f, 5000);
}

static void an_idle_connection_gives_its_memory_back_and_goes_on(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t *data = malloc(4 * MIB), *back = malloc(4 * MIB);

        for (unsigned round = 0; round < 2; round++) {
                fake_hold(fixture_volume(*state)); /* all slots are used */
                for (uint64_t cookie = 0; cookie < 128; cookie++)
                        wire_request(w, NBD_CMD_TRIM, 0, 7, 0, 4096);
                fake_wait_held(fixture_volume(*state), 128);
                fake_release_all(fixture_volume(*state));
                for (uint64_t cookie = 0; cookie < 128; cookie++)
                        assert_int_equal(wire_result(w, 7), 0);
                memset(data, (int)round + 1, 4 * MIB);
                wire_write(w, 0, 1, 4096, data, 4 * MIB);
                assert_int_equal(wire_result(w, 1), 0);
                assert_int_equal(wire_read(w, 0, 4096, back, 4 * MIB), 0);
                assert_memory_equal(data, back, 4 * MIB);
                if (round == 0)
                        sleep(3); /* two periods of the idle timer */
        }
        wire_close(w);
        free(data);
        free(back);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(requests_in_flight_are_bounded_and_the_rest_wait_in_the_socket),
            TEST(bytes_in_flight_are_bounded),
            cmocka_unit_test(a_request_larger_than_the_bound_is_served_alone),
            TEST(a_client_that_does_not_read_is_bounded_and_holds_up_nobody),
            TEST(refused_requests_count_too_while_their_replies_are_not_read),
            cmocka_unit_test(many_connections_together_are_bounded_too_and_all_are_served_in_turn),
            cmocka_unit_test(those_who_hold_all_memory_and_do_nothing_are_cut_off),
            cmocka_unit_test(those_who_hold_memory_and_move_a_byte_now_and_then_are_cut_off),
            TEST(a_client_may_vanish_with_requests_in_flight),
            TEST(a_client_may_vanish_in_the_middle_of_a_payload),
            TEST(a_client_may_vanish_while_replies_are_being_sent),
            TEST(a_client_may_vanish_during_the_negotiation),
            TEST(the_end_of_the_stream_leaves_replies_to_be_sent),
            TEST(a_client_that_vanishes_unheard_does_not_wait_for_space),
            TEST(disc_finishes_what_is_in_flight),
            TEST(disconnect_cuts_the_clients_of_one_export_only),
            TEST(disconnect_waits_for_the_engine),
            TEST(a_client_may_be_cut_while_slow_requests_wait),
            TEST(a_client_that_was_cut_ends_its_long_zeroing),
            cmocka_unit_test(who_is_cut_off_waits_neither_for_limits_nor_for_space),
            cmocka_unit_test(many_bad_clients_do_not_fill_the_log),
            cmocka_unit_test(a_connection_that_asks_for_nothing_is_ended_where_that_is_asked_for),
            TEST(an_idle_connection_gives_its_memory_back_and_goes_on),
        };
        return cmocka_run_group_tests_name("nbd limits", tests, NULL, NULL);
}
