/* test_closer.c - closers: who is long in closing holds up nobody else, and what is on its way is
 * counted, and done, whatever becomes of its owner. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/closer.h"

#define WAIT_MS 20000u
#define HELD    40u /* more than any closer has threads */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static bool held;
static atomic_uint n_done;

/* As close(2) of what its other end keeps. */
static void long_work(void *arg)
{
        pthread_mutex_lock(&mutex);
        while (held)
                pthread_cond_wait(&released, &mutex);
        pthread_mutex_unlock(&mutex);
        atomic_fetch_add(&n_done, 1);
}

static void hold(struct closer *closer)
{
        held = true;
        atomic_store(&n_done, 0);
        for (unsigned i = 0; i < HELD; i++)
                assert_true(closer_run(closer, long_work, NULL));
}

static void let_go(void)
{
        pthread_mutex_lock(&mutex);
        held = false;
        pthread_cond_broadcast(&released);
        pthread_mutex_unlock(&mutex);
}

static void a_millisecond(unsigned *left)
{
        const struct timespec pause = {.tv_nsec = 1000000};

        assert_true((*left)-- > 0);
        nanosleep(&pause, NULL);
}

static void wait_closed(int fd)
{
        unsigned left = WAIT_MS;

        while (fcntl(fd, F_GETFD) >= 0)
                a_millisecond(&left);
        assert_int_equal(errno, EBADF);
}

static void wait_pending(struct closer *closer, unsigned n)
{
        unsigned left = WAIT_MS;

        while (closer_pending(closer) != n)
                a_millisecond(&left);
}

static int pipe_end(void)
{
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        close(fds[1]);
        return fds[0];
}

static void who_is_long_in_closing_holds_up_nobody_else(void **state)
{
        struct closer *slow = closer_new(), *other = closer_new();
        int fd = pipe_end();

        assert_non_null(slow);
        assert_non_null(other);
        hold(slow);
        assert_int_equal(closer_pending(slow), HELD);
        close_elsewhere(other, fd);
        wait_closed(fd);
        wait_pending(other, 0);
        fd = pipe_end();
        close_elsewhere(NULL, fd);
        wait_closed(fd);
        assert_int_equal(closer_pending(slow), HELD);
        let_go();
        wait_pending(slow, 0);
        assert_int_equal(atomic_load(&n_done), HELD);
        closer_free(slow);
        closer_free(other);
}

static void memory_waits_for_no_other_thing_of_its_owner(void **state)
{
        struct closer *closer = closer_new();
        int fd = memfd_create("memory", MFD_CLOEXEC);

        hold(closer);
        close_elsewhere(closer, fd);
        wait_closed(fd);
        let_go();
        wait_pending(closer, 0);
        closer_free(closer);
}

static void what_a_released_closer_had_to_do_is_done(void **state)
{
        struct closer *closer = closer_new();
        unsigned left = WAIT_MS;
        int fd = pipe_end();

        hold(closer);
        close_elsewhere(closer, fd);
        closer_free(closer);
        let_go();
        wait_closed(fd);
        while (atomic_load(&n_done) < HELD)
                a_millisecond(&left);
        closer_free(NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(who_is_long_in_closing_holds_up_nobody_else),
            cmocka_unit_test(memory_waits_for_no_other_thing_of_its_owner),
            cmocka_unit_test(what_a_released_closer_had_to_do_is_done),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
