/* test_nbd_stop.c - a server that stops; one that leaves its clients to the next; and clients that are
 * served on another loop than the server's while it does. */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/loop_thread.h"
#include "nbd-server/internal.h"
#include "tests/protocol/fixture.h"
#include "tests/protocol/loop_call.h"
#include "tests/protocol/wire.h"

#define MIB (1u << 20)

/* ---- stop ---- */

static void stopping_answers_what_is_in_flight_and_refuses_what_comes(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        uint8_t *data = calloc(1, MIB);

        fake_hold(fixture_volume(f));
        wire_request(w, NBD_CMD_READ, 0, 1, 0, MIB);
        fake_wait_held(fixture_volume(f), 1);
        fixture_begin_stop(f, 20000);
        wire_write(w, 0, 2, 0, data, MIB);
        assert_int_equal(wire_result(w, 2), NBD_ESHUTDOWN);
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_read_result(w, 1, 0, data, MIB), 0);
        wire_expect_closed(w);
        fixture_stop(f, 0);
        wire_close(w);
        free(data);
}

/* One who has all memory for requests, and one whose request has been received and waits for it. */
struct memory_wait {
        struct fixture *f;
        struct wire *holder, *waiting;
        uint8_t *data; /* for what the holder reads */
};

static void memory_wait_begin(struct memory_wait *m)
{
        struct nbd_server_options options = {.max_total_bytes = MIB};

        m->f = fixture_start(&options);
        m->holder = wire_open(fixture_path(m->f), "vol", true);
        m->waiting = wire_open(fixture_path(m->f), "vol", true);
        m->data = malloc(MIB);
        fake_hold(fixture_volume(m->f));
        wire_request(m->holder, NBD_CMD_READ, 0, 1, 0, MIB);
        fake_wait_held(fixture_volume(m->f), 1);
        wire_request(m->waiting, NBD_CMD_READ, 0, 2, 0, MIB);
        while (wire_unsent(m->waiting) > 0)
                usleep(1000);
        fixture_n_clients(m->f); /* what was received has been parsed */
}

/* The holder is answered. */
static void memory_wait_release(struct memory_wait *m)
{
        fake_release_all(fixture_volume(m->f));
        assert_int_equal(wire_read_result(m->holder, 1, 0, m->data, MIB), 0);
        wire_expect_closed(m->holder);
}

static void memory_wait_end(struct memory_wait *m)
{
        fixture_stop(m->f, 0);
        wire_close(m->holder);
        wire_close(m->waiting);
        free(m->data);
}

static void stopping_answers_those_who_wait_for_memory(void **state)
{
        struct memory_wait m;

        memory_wait_begin(&m);
        fixture_begin_stop(m.f, 20000);
        memory_wait_release(&m);
        assert_int_equal(wire_read_result(m.waiting, 2, 0, m.data, MIB), NBD_ESHUTDOWN);
        wire_expect_closed(m.waiting);
        memory_wait_end(&m);
}

static void stopping_waits_for_no_limits(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        uint8_t data[512], back[512];

        memset(data, 0x5a, sizeof(data));
        fake_wait_for(fixture_volume(f), FAKE_WAIT_LIMITS);
        wire_write(w, 0, 1, 0, data, sizeof(data));
        wire_request(w, NBD_CMD_READ, 0, 2, 0, sizeof(back));
        fake_wait_held(fixture_volume(f), 2);
        fixture_begin_stop(f, 60000);
        assert_int_equal(wire_result(w, 1), 0);
        assert_int_equal(wire_read_result(w, 2, 0, back, sizeof(back)), 0);
        assert_memory_equal(data, back, sizeof(data));
        wire_expect_closed(w);
        fixture_stop(f, 0);
        wire_close(w);
}

/* Who connects again asks the next server: an error would be the end of it. */
static void stopping_answers_nobody_who_waits_for_space(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        uint8_t data[512] = {1};

        fake_wait_for(fixture_volume(f), FAKE_WAIT_SPACE);
        for (uint64_t cookie = 1; cookie <= 3; cookie++)
                wire_write(w, 0, cookie, 0, data, sizeof(data));
        fake_wait_held(fixture_volume(f), 3);
        fixture_begin_stop(f, 60000);
        wire_expect_closed(w);
        fixture_wait_stopped(f);
        assert_int_equal(fake_data(fixture_volume(f))[0], 0);
        fixture_stop(f, 0);
        wire_close(w);
}

static void stopping_ends_idle_connections_and_listens_no_more(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *idle = wire_open(fixture_path(f), "vol", true);
        struct wire *negotiating = wire_connect(fixture_path(f));
        struct wire *silent = wire_connect(fixture_path(f));
        struct nbd_greeting greeting;

        wire_greet(negotiating, NBD_FLAG_FIXED_NEWSTYLE);
        wire_structured(negotiating);
        wire_receive(silent, &greeting, sizeof(greeting)); /* and no answer to it */
        wire_expect_alive(idle);
        time_t begin = time(NULL);
        fixture_begin_stop(f, 20000);
        fixture_wait_stopped(f);
        assert_in_range(time(NULL) - begin, 0, 4); /* well before handshake and stop time out */
        wire_expect_closed(idle);
        wire_expect_closed(negotiating);
        wire_expect_closed(silent);
        fixture_stop(f, 0);
        wire_close(idle);
        wire_close(negotiating);
        wire_close(silent);
}

static void an_option_that_comes_while_stopping_gets_err_shutdown(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *w = wire_connect(fixture_path(f)),
                    *busy = wire_open(fixture_path(f), "vol", true);
        struct nbd_option header = {be64_make(NBD_OPTION_MAGIC), be32_make(NBD_OPT_LIST),
                                    be32_make(0)};

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
        wire_structured(w);
        fake_hold(fixture_volume(f)); /* keeps the server from having stopped */
        wire_request(busy, NBD_CMD_FLUSH, 0, 1, 0, 0);
        fake_wait_held(fixture_volume(f), 1);
        wire_send(w, &header, 3); /* it is in the middle of one */
        while (fixture_n_clients(f) != 2)
                usleep(1000);
        usleep(20000);
        fixture_begin_stop(f, 20000);
        if (wire_try_send(w, (uint8_t *)&header + 3, sizeof(header) - 3))
                assert_int_equal(wire_final(w, NBD_OPT_LIST), NBD_REP_ERR_SHUTDOWN);
        wire_expect_closed(w);
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_result(busy, 1), 0);
        fixture_stop(f, 0);
        wire_close(w);
        wire_close(busy);
}

static void stopping_cuts_off_those_who_do_not_end_in_time(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *slow = wire_open(fixture_path(f), "vol", true),
                    *half = wire_open(fixture_path(f), "vol", true);

        for (uint64_t cookie = 0; cookie < 100; cookie++)
                wire_request(slow, NBD_CMD_READ, 0, cookie, 0, MIB);
        wire_request(half, NBD_CMD_WRITE, 0, 1, 0, MIB);
        wire_send(half, slow, sizeof(*slow));
        while (fake_counts(fixture_volume(f)).submitted[VOLUME_READ] < 64)
                usleep(1000);
        fixture_stop(f, 100);
        wire_drain(slow);
        wire_drain(half);
        wire_close(slow);
        wire_close(half);
}

static void a_new_connection_after_a_stop_is_not_served(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *busy = wire_open(fixture_path(f), "vol", true);
        struct wire *late = wire_connect(fixture_path(f));

        wire_greet(late, NBD_FLAG_FIXED_NEWSTYLE);
        fixture_stop(f, 0);
        wire_drain(late);
        wire_expect_closed(busy);
        wire_close(late);
        wire_close(busy);
}

/* ---- leave ---- */

/* To who repeats what was not answered an ESHUTDOWN would be the answer. */
static void leaving_answers_what_has_begun_and_nothing_else(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *busy = wire_open(fixture_path(f), "vol", true),
                    *idle = wire_open(fixture_path(f), "vol", true),
                    *half = wire_open(fixture_path(f), "vol", true);
        uint8_t *data = calloc(1, MIB);

        wire_expect_alive(idle);
        wire_request(half, NBD_CMD_WRITE, 0, 1, 0, MIB);
        wire_send(half, data, MIB / 2); /* a payload that will never be complete */
        fake_hold(fixture_volume(f));
        wire_request(busy, NBD_CMD_READ, 0, 1, 0, MIB);
        fake_wait_held(fixture_volume(f), 1);
        fixture_begin_leave(f, 20000);
        wire_expect_closed(idle);
        wire_expect_closed(half);
        wire_write(busy, 0, 2, 0, data, 4096);
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_read_result(busy, 1, 0, data, MIB), 0);
        wire_expect_closed(busy);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_WRITE], 0);
        fixture_stop(f, 0);
        wire_close(busy);
        wire_close(idle);
        wire_close(half);
        free(data);
}

static void leaving_cuts_off_those_who_take_no_answers(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *slow = wire_open(fixture_path(f), "vol", true);

        for (uint64_t cookie = 0; cookie < 100; cookie++)
                wire_request(slow, NBD_CMD_READ, 0, cookie, 0, MIB);
        while (fake_counts(fixture_volume(f)).submitted[VOLUME_READ] < 64)
                usleep(1000);
        fixture_begin_leave(f, 100);
        fixture_wait_stopped(f);
        fixture_stop(f, 0);
        wire_drain(slow);
        wire_close(slow);
}

static void leaving_lets_go_of_those_who_wait_for_memory(void **state)
{
        struct memory_wait m;

        memory_wait_begin(&m);
        fixture_begin_leave(m.f, 20000);
        wire_expect_closed(m.waiting);
        memory_wait_release(&m);
        memory_wait_end(&m);
}

/* ---- a client on another loop ---- */

/* The client's loop stands still once the client has ended there and is on its way back. */
struct gate {
        struct loop_task task;
        struct loop *loop;
        struct nbd_worker *worker;
        sem_t closed, open;
};

static void gate_look(struct loop_task *task)
{
        struct gate *g = container_of(task, struct gate, task);

        if (!list_empty(&g->worker->clients)) {
                loop_post(g->loop, &g->task);
                return;
        }
        sem_post(&g->closed);
        while (sem_wait(&g->open) < 0 && errno == EINTR)
                ;
}

static void begin_looking(void *arg)
{
        struct gate *g = arg;

        loop_post(g->loop, &g->task);
}

/* Behind the server's timer, which must not fire before the client has ended, however busy the machine
 * is. */
#define LEAVE_MS 1000u

struct later {
        struct loop_timer timer;
        struct fixture *f;
        sem_t done;
};

static void later_fire(struct loop_timer *timer)
{
        sem_post(&container_of(timer, struct later, timer)->done);
}

static void later_begin(void *arg)
{
        struct later *l = arg;

        l->timer.fire = later_fire;
        list_init(&l->timer.link);
        loop_timer_set(fixture_loop(l->f), &l->timer,
                       loop_now_ns(fixture_loop(l->f)) + (LEAVE_MS + 50) * UINT64_C(1000000));
}

static void look_at_first(void *arg)
{
        struct later *l = arg;
        struct nbd_server *server = fixture_server(l->f);

        assert(!list_empty(&server->clients));
        assert(container_of(server->clients.next, struct nbd_client, link)->state ==
               CLIENT_FINISHING);
}

static void who_has_ended_on_another_loop_is_not_cut_from_the_servers(void **state)
{
        struct loop_thread *thread;
        int r = loop_thread_start("worker", &thread, NULL);
        struct loop *loops[] = {loop_thread_loop(thread)};
        struct nbd_server_options options = {.loops = loops, .n_loops = 1};

        assert_int_equal(r, 0);
        struct fixture *f = fixture_start(&options);
        struct gate gate = {
            .task.run = gate_look, .loop = loops[0], .worker = &fixture_server(f)->workers[1]};
        struct later later = {.f = f};
        sem_init(&gate.closed, 0, 0);
        sem_init(&gate.open, 0, 0);
        sem_init(&later.done, 0, 0);
        struct wire *w = wire_open(fixture_path(f), "vol", true);

        wire_expect_alive(w);
        loop_call(loops[0], begin_looking, &gate);
        fixture_begin_leave(f, LEAVE_MS);
        while (sem_wait(&gate.closed) < 0 && errno == EINTR)
                ;
        fixture_run(f, later_begin, &later);
        while (sem_wait(&later.done) < 0 && errno == EINTR)
                ;
        fixture_run(f, look_at_first, &later);
        sem_post(&gate.open);
        wire_expect_closed(w);
        fixture_wait_stopped(f);
        loop_thread_stop(thread); /* it may still be waking the server's loop */
        fixture_stop(f, 0);
        wire_close(w);
        sem_destroy(&gate.closed);
        sem_destroy(&gate.open);
        sem_destroy(&later.done);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(stopping_answers_what_is_in_flight_and_refuses_what_comes),
            cmocka_unit_test(stopping_answers_those_who_wait_for_memory),
            cmocka_unit_test(stopping_waits_for_no_limits),
            cmocka_unit_test(stopping_answers_nobody_who_waits_for_space),
            cmocka_unit_test(stopping_ends_idle_connections_and_listens_no_more),
            cmocka_unit_test(an_option_that_comes_while_stopping_gets_err_shutdown),
            cmocka_unit_test(stopping_cuts_off_those_who_do_not_end_in_time),
            cmocka_unit_test(a_new_connection_after_a_stop_is_not_served),
            cmocka_unit_test(leaving_answers_what_has_begun_and_nothing_else),
            cmocka_unit_test(leaving_cuts_off_those_who_take_no_answers),
            cmocka_unit_test(leaving_lets_go_of_those_who_wait_for_memory),
            cmocka_unit_test(who_has_ended_on_another_loop_is_not_cut_from_the_servers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
