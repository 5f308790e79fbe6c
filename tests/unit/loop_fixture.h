/* loop_fixture.h - run a group of tests on each back end of the loop.
 *
 * Threads    one.
 * Ownership  the fixture makes each test's loop and frees it; nothing may be pending at the end.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/loop.h"
#include "common/sanitizers.h"

/* A hang is a failure. */
#define FIXTURE_TEST_SECONDS (WITH_TSAN ? 400u : 60u)

static enum loop_backend fixture_backend;

/* Each test gets a loop of its own as *state. */
static inline int fixture_setup(void **state)
{
        struct loop *loop;

        if (loop_new(fixture_backend, &loop, NULL) < 0)
                return -1;
        *state = loop;
        alarm(FIXTURE_TEST_SECONDS);
        return 0;
}

static inline int fixture_teardown(void **state)
{
        loop_free(*state);
        alarm(0);
        return 0;
}

#define loop_test(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

/* Whether io_uring can be had here; says SKIP where not. */
static inline bool fixture_have_uring(void)
{
        struct error err = ERROR_INIT;
        struct loop *loop;

        if (loop_new(LOOP_BACKEND_URING, &loop, &err) < 0) {
                printf("SKIP io_uring: %s\n", err.message);
                return false;
        }
        loop_free(loop);
        return true;
}

/* The number of failed tests over both back ends. */
#define run_on_each_backend(tests)                                                                 \
        ({                                                                                         \
                int failed_ = 0;                                                                   \
                fixture_backend = LOOP_BACKEND_THREADS;                                            \
                failed_ += cmocka_run_group_tests_name("threads", tests, NULL, NULL);              \
                fixture_backend = LOOP_BACKEND_URING;                                              \
                if (fixture_have_uring())                                                          \
                        failed_ += cmocka_run_group_tests_name("io_uring", tests, NULL, NULL);     \
                failed_;                                                                           \
        })
