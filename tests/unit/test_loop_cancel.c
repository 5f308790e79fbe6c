/* The event loop: what waits is cancelled, and more operations than the queues hold; on both back
 * ends. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/unit/loop_op_fixture.h"

/* Cancelling */

static struct op op_that_waits(struct loop *loop, enum loop_io_op kind, int fd)
{
        static char buffer[65536];
        struct op op = op_make(loop, kind, fd, buffer, sizeof(buffer));

        if (kind == LOOP_POLL)
                op.io.flags = POLLIN;
        return op;
}

static void cancel_ends_what_waits(struct loop *loop, int flags)
{
        static const enum loop_io_op ops[] = {LOOP_RECV, LOOP_RECVMSG, LOOP_SENDMSG, LOOP_POLL,
                                              LOOP_ACCEPT};
        struct sockaddr_un address;
        socklen_t length;
        int listener = listen_somewhere(flags, &address, &length), sv[2];

        make_pair(sv, flags);
        while (send(sv[0], &address, sizeof(address), MSG_DONTWAIT) > 0)
                ; /* until it is full */
        for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
                for (int started = 0; started < 2; started++) {
                        struct op op =
                            op_that_waits(loop, ops[i], ops[i] == LOOP_ACCEPT ? listener : sv[0]);

                        op_submit(&op);
                        if (started)
                                run_for_ms(loop, 1);
                        assert_false(op.done);
                        loop_cancel(loop, &op.io);
                        loop_cancel(loop, &op.io); /* twice is once */
                        assert_false(op.done);
                        assert_int_equal(op_wait(&op), -ECANCELED);
                        loop_cancel(loop, &op.io); /* what has ended stays so */
                        run_for_ms(loop, 1);
                }
        close(listener);
        close_pair(sv);
}

static void cancel_ends_what_waits_on_blocking_sockets(void **state)
{
        cancel_ends_what_waits(*state, 0);
}

static void cancel_ends_what_waits_on_non_blocking_sockets(void **state)
{
        cancel_ends_what_waits(*state, SOCK_NONBLOCK);
}

static void cancelling_what_is_ready_gives_its_result_or_ecanceled(void **state)
{
        char buffer[4];
        struct op op;
        int sv[2];

        make_pair(sv, 0);
        op = op_make(*state, LOOP_RECV, sv[0], buffer, 4);
        op_submit(&op);
        run_for_ms(*state, 1);
        assert_int_equal(write(sv[1], "tarn", 4), 4);
        loop_cancel(*state, &op.io);
        op_wait(&op);
        if (op.result == -ECANCELED) /* then nothing was lost */
                assert_int_equal(op_run(&op), 4);
        assert_int_equal(op.result, 4);
        close_pair(sv);
}

/* The operation's own memory is used again by the time that the kernel hears of the cancel. */
static void a_late_cancel_does_not_hit_the_next_operation(void **state)
{
        char buffer[4];
        struct op op;
        int sv[2];

        make_pair(sv, 0);
        op = op_make(*state, LOOP_RECV, sv[0], buffer, 4);
        for (int i = 0; i < 100; i++) {
                op_submit(&op);
                assert_int_equal(write(sv[1], "ab", 2), 2);
                run_for_ms(*state, 0);
                if (!op.done)
                        loop_cancel(*state, &op.io);
                op_wait(&op);
                op_submit(&op);
                run_for_ms(*state, 0);
                if (!op.done)
                        assert_int_equal(write(sv[1], "cd", 2), 2);
                assert_int_equal(op_wait(&op), 2);
                while (recv(sv[0], buffer, 4, MSG_DONTWAIT) > 0)
                        ;
        }
        close_pair(sv);
}

/* Two polls that end together: the first asks for the end of the second, which has ended already,
 * and the second then waits anew in the same memory. */
struct couple {
        struct op first, second;
        bool second_ended_once;
};

static void cancel_second(struct loop_io *io, int result)
{
        struct couple *c = container_of(io, struct couple, first.io);

        if (!c->second_ended_once)
                loop_cancel(c->first.loop, &c->second.io);
}

static void wait_anew(struct loop_io *io, int result)
{
        struct couple *c = container_of(io, struct couple, second.io);

        c->second_ended_once = true;
        io->flags = POLLIN;
        io->done = op_done;
        loop_submit(c->second.loop, io);
}

static void a_cancel_of_what_has_ended_does_not_hit_what_follows_it(void **state)
{
        struct couple c;
        int sv[2];

        make_pair(sv, 0);
        for (int i = 0; i < 10; i++) {
                c.first = op_make(*state, LOOP_POLL, sv[0], NULL, 0);
                c.second = op_make(*state, LOOP_POLL, sv[0], NULL, 0);
                c.first.io.done = cancel_second;
                c.second.io.done = wait_anew;
                c.first.io.flags = c.second.io.flags = POLLOUT;
                c.second_ended_once = false;
                op_submit(&c.first);
                op_submit(&c.second);
                run_for_ms(*state, 2);
                assert_true(c.second_ended_once);
                assert_false(c.second.done);
                loop_cancel(*state, &c.second.io);
                assert_int_equal(op_wait(&c.second), -ECANCELED);
        }
        close_pair(sv);
}

static void ending_one_wait_leaves_the_others_alone(void **state)
{
        struct op ops[4];
        int pairs[4][2];

        for (int gone = 0; gone < 4; gone++) {
                for (int i = 0; i < 4; i++) {
                        make_pair(pairs[i], 0);
                        ops[i] = op_make(*state, LOOP_POLL, pairs[i][0], NULL, 0);
                        ops[i].io.flags = POLLIN;
                        op_submit(&ops[i]);
                }
                run_for_ms(*state, 1);
                loop_cancel(*state, &ops[gone].io);
                assert_int_equal(op_wait(&ops[gone]), -ECANCELED);
                for (int i = 3; i >= 0; i--) {
                        if (i == gone)
                                continue;
                        assert_int_equal(write(pairs[i][1], "x", 1), 1);
                        assert_int_equal(op_wait(&ops[i]), POLLIN);
                }
                for (int i = 0; i < 4; i++)
                        close_pair(pairs[i]);
        }
}

/* More than the queues hold */

struct batch {
        struct loop *loop;
        unsigned left;
        int worst;
        struct batch_op {
                struct loop_io io;
                struct iovec iov;
                struct batch *batch;
        } * ops;
};

static void batch_done(struct loop_io *io, int result)
{
        struct batch *b = container_of(io, struct batch_op, io)->batch;

        if (result < b->worst)
                b->worst = result;
        if (--b->left == 0)
                loop_stop(b->loop);
}

static void batch_make(struct batch *b, struct loop *loop, unsigned n)
{
        *b = (struct batch){.loop = loop, .left = n, .worst = INT32_MAX};
        b->ops = calloc(n, sizeof(*b->ops));
        assert_non_null(b->ops);
        for (unsigned i = 0; i < n; i++) {
                b->ops[i].batch = b;
                b->ops[i].io.done = batch_done;
        }
}

/* Submit @n waits on @fd; none of them ends by itself. */
static void batch_wait(struct batch *b, struct loop *loop, unsigned n, int fd)
{
        batch_make(b, loop, n);
        for (unsigned i = 0; i < n; i++) {
                b->ops[i].io.op = LOOP_POLL;
                b->ops[i].io.fd = fd;
                b->ops[i].io.flags = POLLIN;
                loop_submit(loop, &b->ops[i].io);
        }
}

static void batch_cancel(struct batch *b, unsigned first, unsigned n)
{
        for (unsigned i = first; i < first + n; i++)
                loop_cancel(b->loop, &b->ops[i].io);
}

static void twenty_thousand_writes_and_reads_at_once(void **state)
{
        enum { N = 20000 };
        uint32_t *out = calloc(N, sizeof(*out)), *in = calloc(N, sizeof(*in));
        int fd = temporary_file();
        struct batch b;

        for (int pass = 0; pass < 2; pass++) {
                batch_make(&b, *state, N);
                for (uint32_t i = 0; i < N; i++) {
                        struct batch_op *op = &b.ops[i];

                        out[i] = i * 2654435761u;
                        op->iov = (struct iovec){pass ? &in[i] : &out[i], 4};
                        op->io.op = pass ? LOOP_READV : LOOP_WRITEV;
                        op->io.fd = fd;
                        op->io.iov = &op->iov;
                        op->io.n_iov = 1;
                        op->io.offset = UINT64_C(4) * i;
                        loop_submit(*state, &op->io);
                }
                loop_run(*state);
                assert_int_equal(b.left, 0);
                assert_int_equal(b.worst, 4);
                free(b.ops);
        }
        assert_memory_equal(in, out, N * sizeof(*in));
        free(in);
        free(out);
        close(fd);
}

static void ten_thousand_waits_that_end_at_once(void **state)
{
        enum { N = 10000 };
        int fd = eventfd(0, EFD_CLOEXEC);
        struct batch b;

        batch_wait(&b, *state, N, fd);
        run_for_ms(*state, 20);
        assert_int_equal(b.left, N);
        assert_int_equal(eventfd_write(fd, 1), 0);
        loop_run(*state);
        assert_int_equal(b.left, 0);
        assert_int_equal(b.worst, POLLIN);
        free(b.ops);
        close(fd);
}

static void what_is_ready_ends_behind_thousands_that_wait(void **state)
{
        enum { N = 3000 };
        int fd = eventfd(0, EFD_CLOEXEC), ready = eventfd(1, EFD_CLOEXEC);
        struct op op = op_make(*state, LOOP_POLL, ready, NULL, 0);
        struct batch b;

        batch_wait(&b, *state, N, fd);
        op.io.flags = POLLIN;
        assert_int_equal(op_run(&op), POLLIN);
        assert_int_equal(b.left, N);
        batch_cancel(&b, 0, N);
        loop_run(*state);
        assert_int_equal(b.left, 0);
        free(b.ops);
        close(fd);
        close(ready);
}

/* The last of them have not reached the kernel's queue (it holds 1,024) when they are cancelled,
 * and nothing else is going to end. */
static void cancels_end_what_the_kernel_has_not_seen(void **state)
{
        enum { N = 1200, N_LATE = 176 };
        int fd = eventfd(0, EFD_CLOEXEC);
        struct batch b;

        run_for_ms(*state, 1);
        batch_wait(&b, *state, N, fd);
        batch_cancel(&b, N - N_LATE, N_LATE);
        b.left = N_LATE;
        loop_run(*state);
        assert_int_equal(b.left, 0);
        b.left = N - N_LATE;
        batch_cancel(&b, 0, N - N_LATE);
        loop_run(*state);
        assert_int_equal(b.left, 0);
        assert_int_equal(b.worst, -ECANCELED);
        free(b.ops);
        close(fd);
}

static void ten_thousand_waits_cancelled(void **state)
{
        enum { N = 10000 };
        int fd = eventfd(0, EFD_CLOEXEC);

        for (int started = 0; started < 2; started++) {
                struct batch b;

                batch_wait(&b, *state, N, fd);
                if (started)
                        run_for_ms(*state, 20);
                batch_cancel(&b, 0, N);
                assert_int_equal(b.left, N);
                loop_run(*state);
                assert_int_equal(b.left, 0);
                assert_int_equal(b.worst, -ECANCELED);
                free(b.ops);
        }
        close(fd);
}

static void stop_leaves_ended_operations_for_the_next_run(void **state)
{
        struct op a, b;
        int sv[2];

        make_pair(sv, 0);
        a = op_make(*state, LOOP_POLL, sv[0], NULL, 0);
        b = op_make(*state, LOOP_POLL, sv[1], NULL, 0);
        a.io.flags = b.io.flags = POLLOUT;
        op_submit(&a);
        op_submit(&b);
        loop_run(*state);
        assert_true(a.done != b.done);
        loop_run(*state);
        assert_true(a.done && b.done);
        close_pair(sv);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(cancel_ends_what_waits_on_blocking_sockets),
            loop_test(cancel_ends_what_waits_on_non_blocking_sockets),
            loop_test(cancelling_what_is_ready_gives_its_result_or_ecanceled),
            loop_test(a_late_cancel_does_not_hit_the_next_operation),
            loop_test(a_cancel_of_what_has_ended_does_not_hit_what_follows_it),
            loop_test(ending_one_wait_leaves_the_others_alone),
            loop_test(twenty_thousand_writes_and_reads_at_once),
            loop_test(ten_thousand_waits_that_end_at_once),
            loop_test(ten_thousand_waits_cancelled),
            loop_test(what_is_ready_ends_behind_thousands_that_wait),
            loop_test(cancels_end_what_the_kernel_has_not_seen),
            loop_test(stop_leaves_ended_operations_for_the_next_run),
        };

        return run_on_each_backend(tests);
}
