/* The event loop: each operation, cancelling, and more operations than the queues hold; on both
 * back ends. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/unit/loop_fixture.h"

/* An operation that stops the loop when it ends. */
struct op {
        struct loop *loop;
        struct loop_io io;
        struct iovec iov;
        int result;
        bool done;
};

static void op_done(struct loop_io *io, int result)
{
        struct op *op = container_of(io, struct op, io);

        op->result = result;
        op->done = true;
        loop_stop(op->loop);
}

static struct op op_make(struct loop *loop, enum loop_io_op kind, int fd, void *buffer,
                         size_t length)
{
        return (struct op){
            .loop = loop,
            .io = {.op = kind, .fd = fd, .done = op_done},
            .iov = {buffer, length},
        };
}

static void op_submit(struct op *op)
{
        op->done = false;
        if (!op->io.iov) {
                op->io.iov = &op->iov;
                op->io.n_iov = 1;
        }
        loop_submit(op->loop, &op->io);
        assert_false(op->done); /* never from inside loop_submit() */
}

static int op_wait(struct op *op)
{
        while (!op->done)
                loop_run(op->loop);
        return op->result;
}

static int op_run(struct op *op)
{
        op_submit(op);
        return op_wait(op);
}

/* Give what is submitted the time to end wrongly. */
struct pause {
        struct loop_timer timer;
        struct loop *loop;
};

static void pause_over(struct loop_timer *timer)
{
        loop_stop(container_of(timer, struct pause, timer)->loop);
}

static void run_for_ms(struct loop *loop, unsigned ms)
{
        struct pause pause = {.timer.fire = pause_over, .loop = loop};

        loop_timer_set(loop, &pause.timer, loop_now_ns(loop) + ms * UINT64_C(1000000));
        loop_run(loop);
        loop_timer_cancel(loop, &pause.timer);
}

static int temporary_file(void)
{
        char path[] = "/tmp/tarn-test-XXXXXX";
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        unlink(path);
        return fd;
}

static void make_pair(int sv[2], int flags)
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, sv), 0);
}

static void close_pair(int sv[2])
{
        close(sv[0]);
        close(sv[1]);
}

/* Files */

static void what_is_written_is_read_back_at_its_offset(void **state)
{
        char out[] = "mountain", in[9] = "";
        int fd = temporary_file();
        struct op write_op = op_make(*state, LOOP_WRITEV, fd, out, 8);
        struct op read_op = op_make(*state, LOOP_READV, fd, in, 8);

        write_op.io.offset = read_op.io.offset = UINT64_C(5) << 30;
        assert_int_equal(op_run(&write_op), 8);
        assert_int_equal(op_run(&read_op), 8);
        assert_string_equal(in, "mountain");
        close(fd);
}

static void vectors_are_scattered_and_gathered(void **state)
{
        char a[] = "abc", b[] = "defgh", in1[6] = "", in2[4] = "";
        struct iovec out_iov[] = {{a, 3}, {b, 5}}, in_iov[] = {{in1, 5}, {in2, 3}};
        int fd = temporary_file();
        struct op write_op = op_make(*state, LOOP_WRITEV, fd, NULL, 0);
        struct op read_op = op_make(*state, LOOP_READV, fd, NULL, 0);

        write_op.io.iov = out_iov;
        read_op.io.iov = in_iov;
        write_op.io.n_iov = read_op.io.n_iov = 2;
        write_op.io.offset = read_op.io.offset = 100;
        assert_int_equal(op_run(&write_op), 8);
        assert_int_equal(op_run(&read_op), 8);
        assert_string_equal(in1, "abcde");
        assert_string_equal(in2, "fgh");
        close(fd);
}

static void short_reads_are_passed_on(void **state)
{
        char buffer[100];
        int fd = temporary_file();
        struct op op = op_make(*state, LOOP_READV, fd, buffer, 100);

        assert_int_equal(ftruncate(fd, 30), 0);
        op.io.offset = 10;
        assert_int_equal(op_run(&op), 20);
        op.io.offset = 1000;
        assert_int_equal(op_run(&op), 0);
        close(fd);
}

static void fallocate_allocates_and_punches(void **state)
{
        char buffer[8192];
        int fd = temporary_file();
        struct op op = op_make(*state, LOOP_FALLOCATE, fd, NULL, 0);
        struct op sync = op_make(*state, LOOP_FDATASYNC, fd, NULL, 0);
        struct stat st;

        op.io.length = 8192;
        assert_int_equal(op_run(&op), 0);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, 8192);
        memset(buffer, 'x', sizeof(buffer));
        assert_int_equal(pwrite(fd, buffer, 8192, 0), 8192);
        assert_int_equal(op_run(&sync), 0);
        op.io.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        op.io.offset = op.io.length = 4096;
        assert_int_equal(op_run(&op), 0);
        assert_int_equal(pread(fd, buffer, 8192, 0), 8192);
        assert_int_equal(buffer[4095], 'x');
        assert_int_equal(buffer[4096], '\0');
        assert_int_equal(buffer[8191], '\0');
        close(fd);
}

static void failures_are_negative_errnos(void **state)
{
        static const enum loop_io_op ops[] = {LOOP_READV,     LOOP_WRITEV, LOOP_FDATASYNC,
                                              LOOP_FALLOCATE, LOOP_RECV,   LOOP_SENDMSG,
                                              LOOP_ACCEPT,    LOOP_POLL};
        char buffer[1] = "";
        int file = temporary_file();

        for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
                struct op op = op_make(*state, ops[i], 1000000, buffer, 1);

                op.io.length = 1;
                if (ops[i] == LOOP_POLL)
                        op.io.flags = POLLIN;
                assert_int_equal(op_run(&op), -EBADF);
        }
        for (int i = 0; i < 3; i++) {
                struct op op = op_make(*state, ops[4 + i], file, buffer, 1);

                assert_int_equal(op_run(&op), -ENOTSOCK);
        }
        close(file);
}

/* Sockets */

static void receive_waits_for_data(int flags, struct loop *loop)
{
        char buffer[10] = "";
        struct op op;
        int sv[2];

        make_pair(sv, flags);
        op = op_make(loop, LOOP_RECV, sv[0], buffer, 9);
        op_submit(&op);
        run_for_ms(loop, 3);
        assert_false(op.done);
        assert_int_equal(write(sv[1], "tarn", 4), 4);
        assert_int_equal(op_wait(&op), 4);
        assert_string_equal(buffer, "tarn");
        close_pair(sv);
}

static void receive_waits_on_a_blocking_socket(void **state)
{
        receive_waits_for_data(0, *state);
}

static void receive_waits_on_a_non_blocking_socket(void **state)
{
        receive_waits_for_data(SOCK_NONBLOCK, *state);
}

static void with_dontwait_receive_does_not_wait(void **state)
{
        char buffer[4];
        struct op op;
        int sv[2];

        make_pair(sv, 0);
        op = op_make(*state, LOOP_RECV, sv[0], buffer, 4);
        op.io.flags = MSG_DONTWAIT;
        assert_int_equal(op_run(&op), -EAGAIN);
        close_pair(sv);
}

static void a_closed_peer_ends_receive_and_fails_send_without_a_signal(void **state)
{
        char buffer[4] = "";
        struct op recv_op, send_op;
        int sv[2];

        make_pair(sv, 0);
        recv_op = op_make(*state, LOOP_RECV, sv[0], buffer, 4);
        send_op = op_make(*state, LOOP_SENDMSG, sv[0], buffer, 4);
        op_submit(&recv_op);
        run_for_ms(*state, 1);
        close(sv[1]);
        assert_int_equal(op_wait(&recv_op), 0);
        assert_int_equal(op_run(&send_op), -EPIPE);
        close(sv[0]);
}

/* Send one megabyte through a socket that holds less, reading only when the sender waits. */
static void send_waits_for_room(int flags, struct loop *loop)
{
        enum { TOTAL = 1 << 20 };
        char *out = malloc(TOTAL), *in = malloc(TOTAL);
        size_t sent = 0, received = 0;
        int sv[2];

        for (size_t i = 0; i < TOTAL; i++)
                out[i] = (char)(i * 7 >> 3);
        make_pair(sv, flags);
        while (sent < TOTAL) {
                struct op op = op_make(loop, LOOP_SENDMSG, sv[0], out + sent, TOTAL - sent);

                op_submit(&op);
                run_for_ms(loop, 1);
                do {
                        ssize_t n = recv(sv[1], in + received, TOTAL - received, MSG_DONTWAIT);

                        if (n > 0)
                                received += (size_t)n;
                        if (!op.done)
                                run_for_ms(loop, 1);
                } while (!op.done);
                assert_true(op.result > 0);
                sent += (size_t)op.result;
        }
        while (received < TOTAL) {
                ssize_t n = recv(sv[1], in + received, TOTAL - received, MSG_DONTWAIT);

                assert_true(n > 0);
                received += (size_t)n;
        }
        assert_memory_equal(in, out, TOTAL);
        close_pair(sv);
        free(out);
        free(in);
}

static void send_waits_for_room_on_a_blocking_socket(void **state)
{
        send_waits_for_room(0, *state);
}

static void send_waits_for_room_on_a_non_blocking_socket(void **state)
{
        send_waits_for_room(SOCK_NONBLOCK, *state);
}

/* A listening socket in the abstract name space, and its address. */
static int listen_somewhere(int flags, struct sockaddr_un *ret_address, socklen_t *ret_length)
{
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

        *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
        *ret_length = sizeof(*ret_address);
        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (struct sockaddr *)ret_address, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(fd, 8), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)ret_address, ret_length), 0);
        return fd;
}

static void accept_gives_descriptors_closed_on_exec(int flags, struct loop *loop)
{
        struct sockaddr_un address;
        socklen_t length;
        int listener = listen_somewhere(flags, &address, &length);

        for (int i = 0; i < 3; i++) {
                int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                struct op op = op_make(loop, LOOP_ACCEPT, listener, NULL, 0);
                char byte;

                op_submit(&op);
                run_for_ms(loop, 1);
                assert_false(op.done);
                assert_int_equal(connect(client, (struct sockaddr *)&address, length), 0);
                assert_true(op_wait(&op) >= 0);
                assert_true(fcntl(op.result, F_GETFD) & FD_CLOEXEC);
                assert_int_equal(write(client, "x", 1), 1);
                assert_int_equal(read(op.result, &byte, 1), 1);
                close(op.result);
                close(client);
        }
        close(listener);
}

static void accept_waits_on_a_blocking_listener(void **state)
{
        accept_gives_descriptors_closed_on_exec(0, *state);
}

static void accept_waits_on_a_non_blocking_listener(void **state)
{
        accept_gives_descriptors_closed_on_exec(SOCK_NONBLOCK, *state);
}

static void poll_reports_the_events(void **state)
{
        struct op op;
        int sv[2];

        make_pair(sv, 0);
        op = op_make(*state, LOOP_POLL, sv[0], NULL, 0);
        op.io.flags = POLLOUT;
        assert_int_equal(op_run(&op), POLLOUT);
        op.io.flags = POLLIN;
        op_submit(&op);
        run_for_ms(*state, 1);
        assert_false(op.done);
        assert_int_equal(write(sv[1], "x", 1), 1);
        assert_int_equal(op_wait(&op), POLLIN);
        assert_int_equal(op_run(&op), POLLIN); /* it says what is, not what changed */
        close(sv[1]);
        op.io.flags = POLLOUT;
        assert_true(op_run(&op) & POLLHUP);
        close(sv[0]);
}

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
        static const enum loop_io_op ops[] = {LOOP_RECV, LOOP_SENDMSG, LOOP_POLL, LOOP_ACCEPT};
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
            loop_test(what_is_written_is_read_back_at_its_offset),
            loop_test(vectors_are_scattered_and_gathered),
            loop_test(short_reads_are_passed_on),
            loop_test(fallocate_allocates_and_punches),
            loop_test(failures_are_negative_errnos),
            loop_test(receive_waits_on_a_blocking_socket),
            loop_test(receive_waits_on_a_non_blocking_socket),
            loop_test(with_dontwait_receive_does_not_wait),
            loop_test(a_closed_peer_ends_receive_and_fails_send_without_a_signal),
            loop_test(send_waits_for_room_on_a_blocking_socket),
            loop_test(send_waits_for_room_on_a_non_blocking_socket),
            loop_test(accept_waits_on_a_blocking_listener),
            loop_test(accept_waits_on_a_non_blocking_listener),
            loop_test(poll_reports_the_events),
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
