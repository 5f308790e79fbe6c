/* test_nbd_leave.c - a server that leaves its clients to the next one; and clients that are served on
 * another loop than the server's while it does. */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/loop_thread.h"
#include "nbd-server/internal.h"
#include "tests/protocol/fixture.h"
#include "tests/protocol/loop_call.h"
#include "tests/protocol/wire.h"

#define MIB (1u << 20)

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
        struct nbd_server_options options = {.max_total_bytes = MIB};
        struct fixture *f = fixture_start(&options);
        struct wire *holder = wire_open(fixture_path(f), "vol", true),
                    *waiting = wire_open(fixture_path(f), "vol", true);
        uint8_t *data = malloc(MIB);
        int unread;

        fake_hold(fixture_volume(f));
        wire_request(holder, NBD_CMD_READ, 0, 1, 0, MIB);
        fake_wait_held(fixture_volume(f), 1);
        wire_request(waiting, NBD_CMD_READ, 0, 2, 0, MIB);
        do {
                usleep(1000);
                assert_return_code(ioctl(waiting->fd, TIOCOUTQ, &unread), errno);
        } while (unread > 0);
        fixture_n_clients(f); /* what was received has been parsed */
        fixture_begin_leave(f, 20000);
        wire_expect_closed(waiting);
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_read_result(holder, 1, 0, data, MIB), 0);
        wire_expect_closed(holder);
        fixture_stop(f, 0);
        wire_close(holder);
        wire_close(waiting);
        free(data);
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

/* Behind the server's timer. */
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
                       loop_now_ns(fixture_loop(l->f)) + 100 * UINT64_C(1000000));
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
        fixture_begin_leave(f, 50);
        while (sem_wait(&gate.closed) < 0 && errno == EINTR)
                ;
        fixture_run(f, later_begin, &later);
        while (sem_wait(&later.done) < 0 && errno == EINTR)
                ;
        fixture_run(f, look_at_first, &later);
        sem_post(&gate.open);
        wire_expect_closed(w);
        fixture_stop(f, 0);
        loop_thread_stop(thread);
        wire_close(w);
        sem_destroy(&gate.closed);
        sem_destroy(&gate.open);
        sem_destroy(&later.done);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(leaving_answers_what_has_begun_and_nothing_else),
            cmocka_unit_test(leaving_cuts_off_those_who_take_no_answers),
            cmocka_unit_test(leaving_lets_go_of_those_who_wait_for_memory),
            cmocka_unit_test(who_has_ended_on_another_loop_is_not_cut_from_the_servers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
