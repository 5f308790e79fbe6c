/* loop_op_fixture.h - operations of a loop that a test submits and waits for, and sockets for them.
 *
 * Units      milliseconds.
 * Threads    the loop's.
 * Errors     what fails fails the running cmocka test.
 * Ownership  an op is the caller's, and stays where it is until it is done; so are descriptors.
 */
#pragma once
#include <stdlib.h>
#include <sys/socket.h>
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

static inline void op_done(struct loop_io *io, int result)
{
        struct op *op = container_of(io, struct op, io);

        op->result = result;
        op->done = true;
        loop_stop(op->loop);
}

static inline struct op op_make(struct loop *loop, enum loop_io_op kind, int fd, void *buffer,
                                size_t length)
{
        return (struct op){
            .loop = loop,
            .io = {.op = kind, .fd = fd, .done = op_done},
            .iov = {buffer, length},
        };
}

static inline void op_submit(struct op *op)
{
        op->done = false;
        if (!op->io.iov) {
                op->io.iov = &op->iov;
                op->io.n_iov = 1;
        }
        loop_submit(op->loop, &op->io);
        assert_false(op->done); /* never from inside loop_submit() */
}

static inline int op_wait(struct op *op)
{
        while (!op->done)
                loop_run(op->loop);
        return op->result;
}

static inline int op_run(struct op *op)
{
        op_submit(op);
        return op_wait(op);
}

/* Give what is submitted the time to end wrongly. */
struct pause {
        struct loop_timer timer;
        struct loop *loop;
};

static inline void pause_over(struct loop_timer *timer)
{
        loop_stop(container_of(timer, struct pause, timer)->loop);
}

static inline void run_for_ms(struct loop *loop, unsigned ms)
{
        struct pause pause = {.timer.fire = pause_over, .loop = loop};

        loop_timer_set(loop, &pause.timer, loop_now_ns(loop) + ms * UINT64_C(1000000));
        loop_run(loop);
        loop_timer_cancel(loop, &pause.timer);
}

static inline int temporary_file(void)
{
        char path[] = "/tmp/tarn-test-XXXXXX";
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        unlink(path);
        return fd;
}

static inline void make_pair(int sv[2], int flags)
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, sv), 0);
}

static inline void close_pair(int sv[2])
{
        close(sv[0]);
        close(sv[1]);
}

/* A listening socket in the abstract name space, and its address. */
static inline int listen_somewhere(int flags, struct sockaddr_un *ret_address,
                                   socklen_t *ret_length)
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
