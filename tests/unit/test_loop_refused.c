/* Where the kernel refuses io_uring the loop falls back on worker threads, and says so only at
 * debug level. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/coroutine.h"
#include "common/log.h"
#include "common/sanitizers.h"
#include "tests/unit/loop_fixture.h"

/* io_uring_setup() fails with @code from now on, as in Docker's default profile. */
static int refuse_io_uring(int code)
{
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)code & SECCOMP_RET_DATA)),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
                return -errno;
        return 0;
}

static unsigned n_logged[LOG_LEVEL_DEBUG + 1];
static bool refusal_logged;

static void keep_log(enum log_level level, const char *message)
{
        n_logged[level]++;
        if (strstr(message, "io_uring is refused here"))
                refusal_logged = true;
}

static void sleeps(void *arg)
{
        co_sleep_ns(1000000);
        *(bool *)arg = true;
}

/* In a child, since a filter cannot be taken off again. The exit status says which check failed. */
static int check_refused(int code)
{
        struct error err = ERROR_INIT;
        struct loop *loop = NULL;
        bool slept = false;

        if (refuse_io_uring(code) < 0)
                return 77;
        log_set_sink(keep_log);
        log_set_level(LOG_LEVEL_DEBUG);
        if (loop_new(LOOP_BACKEND_URING, &loop, &err) != -ENOSYS || loop)
                return 1;
        if (!strstr(err.message, "io_uring is refused here: ") ||
            !strstr(err.message, strerror(code)))
                return 2;
        if (loop_new(LOOP_BACKEND_AUTO, &loop, NULL) < 0)
                return 3;
        if (co_run(loop, sleeps, &slept) < 0 || !slept)
                return 4;
        loop_free(loop);
        if (!refusal_logged ||
            n_logged[LOG_LEVEL_INFO] + n_logged[LOG_LEVEL_WARNING] + n_logged[LOG_LEVEL_ERROR] > 0)
                return 5;
        return 0;
}

static int in_child(int (*check)(int), int argument)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                unsetenv("TARN_LOOP");
                _exit(check(argument));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77) {
                printf("SKIP: this limit cannot be set here\n");
                skip();
        }
        return WEXITSTATUS(status);
}

static void refused_by_seccomp_with_eperm(void **state)
{
        assert_int_equal(in_child(check_refused, EPERM), 0);
}

static void not_in_this_kernel(void **state)
{
        assert_int_equal(in_child(check_refused, ENOSYS), 0);
}

static void refused_for_want_of_locked_memory(void **state)
{
        assert_int_equal(in_child(check_refused, ENOMEM), 0);
}

/* Without a descriptor to spare there is no loop at all, and the sentence says why. */
static int check_no_descriptors(int backend)
{
        struct rlimit none = {0, 0};
        struct error err = ERROR_INIT;
        struct loop *loop = NULL;

        if (setrlimit(RLIMIT_NOFILE, &none) < 0)
                return 77;
        if (loop_new((enum loop_backend)backend, &loop, &err) >= 0 || loop)
                return 1;
        return strstr(err.message, strerror(EMFILE)) ? 0 : 2;
}

static void without_descriptors_making_a_loop_fails_with_a_sentence(void **state)
{
        assert_int_equal(in_child(check_no_descriptors, LOOP_BACKEND_THREADS), 0);
        assert_int_equal(in_child(check_no_descriptors, LOOP_BACKEND_URING), 0);
        assert_int_equal(in_child(check_no_descriptors, LOOP_BACKEND_AUTO), 0);
}

/* poll(2) takes no more entries than a process may open descriptors. */
struct poll_wait {
        struct loop_io io;
        struct loop *loop;
        unsigned *left;
};

static void poll_ended(struct loop_io *io, int result)
{
        struct poll_wait *wait = container_of(io, struct poll_wait, io);

        if (result == POLLIN && --*wait->left == 0)
                loop_stop(wait->loop);
}

static int event_fd;

static void write_event(struct loop_timer *timer)
{
        eventfd_write(event_fd, 1);
}

static int check_many_waits(int backend)
{
        enum { N = 1000 };
        static struct poll_wait waits[N];
        struct loop_timer timer = {.fire = write_event};
        struct rlimit few = {64, 64};
        struct loop *loop;
        unsigned left = N;
        int fd = eventfd(0, EFD_CLOEXEC);

        if (fd < 0 || loop_new((enum loop_backend)backend, &loop, NULL) < 0)
                return 1;
        if (setrlimit(RLIMIT_NOFILE, &few) < 0)
                return 77;
        for (unsigned i = 0; i < N; i++) {
                waits[i] = (struct poll_wait){
                    .io = {.op = LOOP_POLL, .fd = fd, .flags = POLLIN, .done = poll_ended},
                    .loop = loop,
                    .left = &left,
                };
                loop_submit(loop, &waits[i].io);
        }
        event_fd = fd;
        loop_timer_set(loop, &timer, loop_now_ns(loop) + 1000000);
        alarm(20); /* a hang is a failure */
        loop_run(loop);
        loop_free(loop);
        return left == 0 ? 0 : 2;
}

static void more_operations_may_wait_than_descriptors_may_be_open(void **state)
{
        assert_int_equal(in_child(check_many_waits, LOOP_BACKEND_THREADS), 0);
        assert_int_equal(in_child(check_many_waits, LOOP_BACKEND_AUTO), 0);
}

/* Coroutines are limited by the memory for stacks: the spawn that finds none fails, and those that
 * wait go on. The sanitizers need all addresses for themselves, so that this cannot be tried under
 * them. */
#define CAN_LIMIT_MEMORY (!WITH_ASAN && !WITH_TSAN)

struct waiting {
        struct loop *loop;
        struct co_queue queue;
        int n;
};

static void waits(void *arg)
{
        struct waiting *w = arg;

        w->n++;
        co_wait(&w->queue);
        if (--w->n == 0)
                loop_stop(w->loop);
}

static int check_no_stacks(int backend)
{
        struct rlimit some = {UINT64_C(64) << 20, UINT64_C(64) << 20};
        struct waiting w = {0};
        int r = 0;

        if (!CAN_LIMIT_MEMORY)
                return 77;
        if (loop_new((enum loop_backend)backend, &w.loop, NULL) < 0)
                return 1;
        if (setrlimit(RLIMIT_AS, &some) < 0)
                return 77;
        co_queue_init(&w.queue);
        while (r == 0 && w.n < 10000)
                r = co_spawn(w.loop, waits, &w);
        if (r != -ENOMEM || w.n < 2)
                return 2;
        co_wake_all(&w.queue);
        loop_run(w.loop);
        loop_free(w.loop);
        return w.n == 0 ? 0 : 3;
}

static void a_spawn_that_finds_no_memory_fails_and_hurts_nobody(void **state)
{
        assert_int_equal(in_child(check_no_stacks, LOOP_BACKEND_THREADS), 0);
        assert_int_equal(in_child(check_no_stacks, LOOP_BACKEND_AUTO), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(refused_by_seccomp_with_eperm),
            cmocka_unit_test(not_in_this_kernel),
            cmocka_unit_test(refused_for_want_of_locked_memory),
            cmocka_unit_test(without_descriptors_making_a_loop_fails_with_a_sentence),
            cmocka_unit_test(more_operations_may_wait_than_descriptors_may_be_open),
            cmocka_unit_test(a_spawn_that_finds_no_memory_fails_and_hurts_nobody),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
