/* The event loop: each operation, on both back ends. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/passed_fds.h"
#include "tests/unit/loop_op_fixture.h"

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

static void bulk_is_written_and_read_in_full(void **state)
{
        const size_t length = 1 << 20;
        char *out = malloc(length), *in = calloc(1, length);
        int fd = temporary_file();
        struct op write_op = op_make(*state, LOOP_WRITEV, fd, out, length);
        struct op read_op = op_make(*state, LOOP_READV, fd, in, length);

        for (size_t i = 0; i < length; i++)
                out[i] = (char)(i * 7 >> 4);
        write_op.io.bulk = read_op.io.bulk = true;
        write_op.io.offset = read_op.io.offset = 4096;
        assert_int_equal(op_run(&write_op), (int)length);
        assert_int_equal(op_run(&read_op), (int)length);
        assert_memory_equal(in, out, length);
        write_op.io.fd = 1000000;
        assert_int_equal(op_run(&write_op), -EBADF);
        close(fd);
        free(in);
        free(out);
}

/* Threads of this process that io_uring has made to work in. */
static int count_kernel_workers(void)
{
        glob_t found;
        int n = 0;

        if (glob("/proc/self/task/*/comm", 0, NULL, &found) != 0)
                return 0;
        for (size_t i = 0; i < found.gl_pathc; i++) {
                char name[32] = "";
                int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);

                if (fd >= 0 && read(fd, name, sizeof(name) - 1) > 0)
                        n += strncmp(name, "iou-wrk", 7) == 0;
                if (fd >= 0)
                        close(fd);
        }
        globfree(&found);
        return n;
}

/* What is in the page cache would otherwise be copied by the loop's thread. In a process of its own,
 * as these threads stay for a while; cmocka's asserts are for the other. */
static void bulk_is_copied_by_another_thread(void **state)
{
        int fd = temporary_file(), status;
        pid_t child;

        if (fixture_backend != LOOP_BACKEND_URING)
                skip();
        assert_int_equal(ftruncate(fd, 1 << 20), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
                static char in[1 << 20];
                struct loop *loop;
                struct op op;
                int n;

                if (loop_new(LOOP_BACKEND_URING, &loop, NULL) < 0)
                        _exit(100);
                op = op_make(loop, LOOP_READV, fd, in, sizeof(in));
                op.io.bulk = true;
                n = op_run(&op) == sizeof(in) ? count_kernel_workers() : 101;
                _exit(n);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_in_range(WEXITSTATUS(status), 1, 99);
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
        static const enum loop_io_op ops[] = {
            LOOP_READV,   LOOP_WRITEV,  LOOP_FDATASYNC, LOOP_FALLOCATE, LOOP_RECV,
            LOOP_RECVMSG, LOOP_SENDMSG, LOOP_ACCEPT,    LOOP_POLL,      LOOP_SIGNAL};
        char buffer[1] = "";
        int file = temporary_file();

        for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
                struct op op = op_make(*state, ops[i], 1000000, buffer, 1);

                op.io.length = 1;
                if (ops[i] == LOOP_POLL)
                        op.io.flags = POLLIN;
                assert_int_equal(op_run(&op), -EBADF);
        }
        for (int i = 0; i < 4; i++) {
                struct op op = op_make(*state, ops[4 + i], file, buffer, 1);

                assert_int_equal(op_run(&op), -ENOTSOCK);
        }
        close(file);
}

/* Eventfds */

static void a_signal_adds_one_to_an_eventfd(void **state)
{
        for (int flags = 0; flags <= EFD_NONBLOCK; flags += EFD_NONBLOCK) {
                int fd = eventfd(0, EFD_CLOEXEC | flags);
                struct op op = op_make(*state, LOOP_SIGNAL, fd, NULL, 0);
                eventfd_t value;

                for (int i = 0; i < 100; i++)
                        assert_true(op_run(&op) >= 0);
                assert_int_equal(eventfd_read(fd, &value), 0);
                assert_int_equal(value, 100);
                close(fd);
        }
}

struct toggler {
        pthread_t thread;
        int fd;
        atomic_bool stop;
};

static void *toggle(void *arg)
{
        struct toggler *t = arg;

        while (!atomic_load(&t->stop)) {
                fcntl(t->fd, F_SETFL, O_NONBLOCK);
                fcntl(t->fd, F_SETFL, 0);
        }
        return NULL;
}

/* Neither what is full holds it up, nor who makes it blocking just when it is written to. */
static void a_signal_never_waits_whoever_holds_the_eventfd(void **state)
{
        struct toggler toggler = {.fd = eventfd(0, EFD_CLOEXEC)};
        struct op op = op_make(*state, LOOP_SIGNAL, toggler.fd, NULL, 0);
        eventfd_t value;

        alarm(60); /* a hang is a failure */
        for (int i = 0; i < 100; i++)
                assert_true(op_run(&op) >= 0);
        assert_int_equal(eventfd_read(toggler.fd, &value), 0);
        assert_int_equal(value, 100);
        assert_int_equal(eventfd_write(toggler.fd, UINT64_MAX - 1), 0);
        assert_int_equal(pthread_create(&toggler.thread, NULL, toggle, &toggler), 0);
        for (int i = 0; i < 20000; i++)
                assert_true(op_run(&op) >= 0);
        atomic_store(&toggler.stop, true);
        pthread_join(toggler.thread, NULL);
        alarm(0);
        close(toggler.fd);
}

/* As whoever holds the other end may leave them. */
static void eventfds_that_are_full_hold_up_nobody(void **state)
{
        enum { N = 64 };
        static struct op ops[N];
        char out[] = "lake";
        int fds[N], file = temporary_file();
        struct op op = op_make(*state, LOOP_WRITEV, file, out, 4);
        eventfd_t value;

        for (int i = 0; i < N; i++) {
                fds[i] = eventfd(0, EFD_CLOEXEC);
                assert_int_equal(eventfd_write(fds[i], UINT64_MAX - 1), 0);
                ops[i] = op_make(*state, LOOP_SIGNAL, fds[i], NULL, 0);
                op_submit(&ops[i]);
        }
        alarm(20); /* a hang is a failure */
        assert_int_equal(op_run(&op), 4);
        for (int i = 0; i < N; i++) {
                assert_int_equal(eventfd_read(fds[i], &value), 0);
                assert_true(value >= UINT64_MAX - 1);
                assert_true(op_wait(&ops[i]) >= 0);
                close(fds[i]);
        }
        alarm(0);
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

static void a_message_comes_with_the_descriptors_beside_it(void **state)
{
        union {
                char buffer[CMSG_SPACE(4 * sizeof(int))];
                struct cmsghdr align;
        } control;
        char buffer[10] = "";
        int sv[2], passed[2], fds[4];
        struct passed_fds came = {.fds = fds, .max = 4};
        struct stat mine, its;
        struct op op;

        make_pair(sv, 0);
        make_pair(passed, 0);
        op = op_make(*state, LOOP_RECVMSG, sv[0], buffer, 9);
        op.io.msg.msg_control = control.buffer;
        op.io.msg.msg_controllen = sizeof(control.buffer);
        op_submit(&op);
        run_for_ms(*state, 3);
        assert_false(op.done);
        assert_int_equal(passed_fds_send(sv[1], "tarn", 4, passed, 2, 0), 4);
        assert_int_equal(op_wait(&op), 4);
        assert_string_equal(buffer, "tarn");
        passed_fds_take(&op.io.msg, &came);
        assert_int_equal(came.n, 2);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(fstat(passed[i], &mine), 0);
                assert_int_equal(fstat(fds[i], &its), 0);
                assert_int_equal(mine.st_ino, its.st_ino);
                assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
                close(fds[i]);
        }
        op.io.msg.msg_controllen = sizeof(control.buffer); /* once more, with none */
        assert_int_equal(write(sv[1], "tarn", 4), 4);
        assert_int_equal(op_run(&op), 4);
        assert_int_equal(op.io.msg.msg_controllen, 0);
        close_pair(sv);
        close_pair(passed);
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

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(what_is_written_is_read_back_at_its_offset),
            loop_test(vectors_are_scattered_and_gathered),
            loop_test(bulk_is_written_and_read_in_full),
            loop_test(bulk_is_copied_by_another_thread),
            loop_test(short_reads_are_passed_on),
            loop_test(fallocate_allocates_and_punches),
            loop_test(failures_are_negative_errnos),
            loop_test(a_signal_adds_one_to_an_eventfd),
            loop_test(a_signal_never_waits_whoever_holds_the_eventfd),
            loop_test(eventfds_that_are_full_hold_up_nobody),
            loop_test(receive_waits_on_a_blocking_socket),
            loop_test(receive_waits_on_a_non_blocking_socket),
            loop_test(a_message_comes_with_the_descriptors_beside_it),
            loop_test(with_dontwait_receive_does_not_wait),
            loop_test(a_closed_peer_ends_receive_and_fails_send_without_a_signal),
            loop_test(send_waits_for_room_on_a_blocking_socket),
            loop_test(send_waits_for_room_on_a_non_blocking_socket),
            loop_test(accept_waits_on_a_blocking_listener),
            loop_test(accept_waits_on_a_non_blocking_listener),
            loop_test(poll_reports_the_events),
        };

        return run_on_each_backend(tests);
}
