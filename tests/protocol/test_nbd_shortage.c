/* test_nbd_shortage.c - out of memory, out of descriptors: somebody is refused, the server goes on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/loop.h"
#include "tests/protocol/fixture.h"
#include "tests/protocol/shortage.h"
#include "tests/protocol/wire.h"

/* ---- out of memory ---- */

static void any_allocation_may_fail_and_the_server_goes_on(void **state)
{
        struct fixture *f = fixture_start(NULL);
        uint8_t *stream = malloc(SHORTAGE_STREAM_BYTES);
        size_t length = shortage_conversation(stream);
        unsigned n = 0, off = 0;

        fixture_list_extra(f, 100);
        do {
                n++;
                struct wire *w = wire_connect(fixture_path(f)); /* accepted with memory to spare */
                uint8_t greeting[18];
                if (n % 2) /* for half of them from the accept on */
                        wire_receive(w, greeting, sizeof(greeting));
                fixture_run(f, shortage_fail, &n);
                wire_try_send(w, stream, length);
                wire_drain(w);
                wire_close(w);
                while (fixture_n_clients(f) > 0)
                        usleep(1000);
                assert_int_equal(fixture_n_open(f), 0);
                bool any = shortage_has_struck();
                fixture_run(f, shortage_fail, &off);
                w = wire_open(fixture_path(f), "vol", true);
                wire_expect_alive(w);
                wire_close(w);
                if (!any)
                        break;
        } while (n < 1000);
        assert_in_range(n, 8, 999); /* some did fail, and at last none was left to */
        fixture_stop(f, 5000);
        free(stream);
}

static void a_request_without_memory_gets_enomem(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *w = wire_open(fixture_path(f), "vol", true);
        unsigned one = 1;
        static uint8_t data[1 << 20];

        wire_expect_alive(w);
        fixture_run(f, shortage_fail, &one);
        assert_int_equal(wire_read(w, 0, 0, data, sizeof(data)), NBD_ENOMEM);
        fixture_run(f, shortage_fail, &one);
        wire_write(w, 0, 5, 0, data, sizeof(data));
        assert_int_equal(wire_result(w, 5), NBD_ENOMEM);
        wire_expect_alive(w);
        wire_close(w);
        fixture_stop(f, 5000);
}

static void a_server_or_listener_without_memory_is_an_error(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct nbd_exports exports = {0};
        struct nbd_server *server = NULL;
        struct error err = ERROR_INIT;
        struct loop *loop;
        unsigned one = 1, off = 0;

        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &loop, NULL), 0);
        shortage_fail(&one);
        assert_int_equal(nbd_server_new(loop, NULL, &exports, &server, &err), -ENOMEM);
        assert_non_null(strstr(err.message, "memory"));
        assert_null(server);
        shortage_fail(&off);
        assert_int_equal(nbd_server_new(loop, NULL, &exports, &server, &err), 0);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(nbd_server_listen(server, fd, &err), -EINVAL); /* it does not listen */
        assert_int_equal(close(fd), -1);                                /* and was taken over */
        shortage_off();
        nbd_server_free(server);
        loop_free(loop);
        fixture_stop(f, 0);
}

/* ---- out of descriptors ---- */

static void out_of_descriptors_accepting_pauses_and_goes_on(void **state)
{
        struct fixture *f = fixture_start(NULL);
        struct wire *before = wire_open(fixture_path(f), "vol", true);
        struct rlimit limit, few;
        int taken[256];
        unsigned n = 0;

        assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
        few = (struct rlimit){256, limit.rlim_max};
        assert_return_code(setrlimit(RLIMIT_NOFILE, &few), errno);
        while ((taken[n] = dup(0)) >= 0)
                n++;
        assert_true(n > 3);
        for (unsigned i = 0; i < 3; i++)
                close(taken[--n]);
        /* io_uring takes the limit when an accept is submitted: the one that waits has the old. */
        struct wire *last = wire_open(fixture_path(f), "vol", true);
        struct wire *w = wire_connect(fixture_path(f));
        wire_expect_alive(before);
        wire_expect_alive(last);
        assert_false(wire_pending(w));
        assert_int_equal(fixture_n_clients(f), 2);
        assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
        while (n > 0)
                close(taken[--n]);
        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
        wire_go(w, "vol", NULL, NULL);
        wire_expect_alive(w);
        wire_close(w);
        wire_close(last);
        wire_close(before);
        fixture_stop(f, 5000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(any_allocation_may_fail_and_the_server_goes_on),
            cmocka_unit_test(a_request_without_memory_gets_enomem),
            cmocka_unit_test(a_server_or_listener_without_memory_is_an_error),
            cmocka_unit_test(out_of_descriptors_accepting_pauses_and_goes_on),
        };
        return cmocka_run_group_tests_name("nbd shortage", tests, NULL, NULL);
}
