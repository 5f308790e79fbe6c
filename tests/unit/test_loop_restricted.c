/* A ring of the loop does what the loop asks of it, and nothing else: not for who has taken over the
 * process either. The loop's own file is part of this program, so that the ring can be reached. */
#include "common/loop_uring.c"
#include "tests/unit/loop_fixture.h"

static struct uring *make(void)
{
        struct loop *loop;

        if (loop_uring_new(&loop, NULL) < 0)
                fail();
        enable(uring_of(loop));
        return uring_of(loop);
}

static bool is_needed(unsigned op)
{
        for (size_t i = 0; i < sizeof(needed_ops); i++)
                if (needed_ops[i] == op)
                        return true;
        return false;
}

static int result_of(struct uring *u, unsigned op, unsigned flags)
{
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        struct io_uring_cqe *cqe = NULL;
        int r;

        assert(sqe);
        memset(sqe, 0, sizeof(*sqe));
        sqe->opcode = (uint8_t)op;
        sqe->fd = -1;
        sqe->flags = (uint8_t)flags;
        sqe->user_data = DATA_IGNORED;
        enter(u, UINT64_C(10000000000));
        assert_int_equal(io_uring_peek_cqe(&u->ring, &cqe), 0);
        r = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        return r;
}

static void operations_that_the_loop_has_no_use_for_are_refused(void **state)
{
        struct uring *u = make();

        for (unsigned op = 0; op < IORING_OP_LAST; op++)
                if (!is_needed(op))
                        assert_int_equal(result_of(u, op, 0), -EACCES);
        assert_int_equal(result_of(u, IORING_OP_READ, 0), -EBADF);
        loop_free(&u->core.loop);
}

static void flags_that_the_loop_has_no_use_for_are_refused(void **state)
{
        struct uring *u = make();

        assert_int_equal(result_of(u, IORING_OP_READ, IOSQE_FIXED_FILE), -EACCES);
        loop_free(&u->core.loop);
}

static void nothing_can_be_registered(void **state)
{
        struct uring *u = make();
        int fd = 0;

        assert_int_equal(
            io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_FILES, &fd, 1), -EACCES);
        assert_int_equal(
            io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_PERSONALITY, NULL, 0),
            -EACCES);
        loop_free(&u->core.loop);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(operations_that_the_loop_has_no_use_for_are_refused),
            cmocka_unit_test(flags_that_the_loop_has_no_use_for_are_refused),
            cmocka_unit_test(nothing_can_be_registered),
        };

        return fixture_have_uring() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
