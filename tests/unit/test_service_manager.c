/* test_service_manager.c - what is told to a service manager, and what it passes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/service_manager.h"

/* ---- telling ---- */

/* A manager that listens at @name, as NOTIFY_SOCKET has it. */
static int listen_at(const char *name)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        size_t n = strlen(name);
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        assert_true(fd >= 0);
        memcpy(a.sun_path, name, n);
        if (name[0] == '@')
                a.sun_path[0] = '\0';
        assert_int_equal(bind(fd, (const struct sockaddr *)&a,
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)),
                         0);
        setenv("NOTIFY_SOCKET", name, 1);
        return fd;
}

static void hears(int fd, const char *text)
{
        char heard[256];
        ssize_t n = recv(fd, heard, sizeof(heard) - 1, 0);

        assert_true(n >= 0);
        heard[n] = '\0';
        assert_string_equal(heard, text);
}

static void test_lines_are_told_at_a_path(void **state)
{
        char folder[] = "/tmp/service.XXXXXX", path[64];
        int fd;

        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof(path), "%s/notify", folder);
        fd = listen_at(path);
        service_notify("READY=1\nSTATUS=serving %d %s", 2, "pools");
        service_notify("STOPPING=1");
        hears(fd, "READY=1\nSTATUS=serving 2 pools");
        hears(fd, "STOPPING=1");
        close(fd);
        service_notify("READY=1"); /* to nobody any more */
        unlink(path);
        rmdir(folder);
}

static void test_lines_are_told_in_the_abstract_namespace(void **state)
{
        char name[64];
        int fd;

        snprintf(name, sizeof(name), "@tarn/test/%d", (int)getpid());
        fd = listen_at(name);
        service_notify("MAINPID=%d", 7);
        hears(fd, "MAINPID=7");
        close(fd);
}

static void test_who_has_no_manager_tells_nobody(void **state)
{
        char longer[200];

        memset(longer, 'x', sizeof(longer) - 1);
        longer[0] = '/';
        longer[sizeof(longer) - 1] = '\0';
        unsetenv("NOTIFY_SOCKET");
        service_notify("READY=1");
        setenv("NOTIFY_SOCKET", "", 1);
        service_notify("READY=1");
        setenv("NOTIFY_SOCKET", "vsock:2:1", 1);
        service_notify("READY=1");
        setenv("NOTIFY_SOCKET", longer, 1);
        service_notify("READY=1");
}

/* ---- what was passed ---- */

/* In a process of its own, whose descriptors 3 and 4 are sockets; @pid NULL: its own. */
struct passing {
        const char *pid, *fds, *names;
        int result;
        const char *first, *second;
};

static void take(const struct passing *p)
{
        const char **names = NULL;
        char own[16];
        int pair[2], first = 0, n;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        pair[0] = fcntl(pair[0], F_DUPFD, 10);
        assert_true(dup2(pair[0], 3) == 3 && dup2(pair[0], 4) == 4);
        close_range(5, ~0u, 0);
        snprintf(own, sizeof(own), "%d", (int)getpid());
        setenv("LISTEN_PID", p->pid ? p->pid : own, 1);
        setenv("LISTEN_FDS", p->fds, 1);
        if (p->names)
                setenv("LISTEN_FDNAMES", p->names, 1);
        else
                unsetenv("LISTEN_FDNAMES");
        n = service_passed_fds(&first, &names);
        assert_int_equal(n, p->result);
        assert_null(getenv("LISTEN_PID"));
        assert_null(getenv("LISTEN_FDS"));
        assert_null(getenv("LISTEN_FDNAMES"));
        if (n <= 0)
                return;
        assert_int_equal(first, 3);
        assert_string_equal(names[0], p->first);
        if (n > 1)
                assert_string_equal(names[1], p->second);
        for (int i = 0; i < n; i++)
                assert_int_equal(fcntl(first + i, F_GETFD), FD_CLOEXEC);
        free(names);
}

static void passes(struct passing p)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                take(&p);
                _exit(0);
        }
        assert_true(waitpid(pid, &status, 0) == pid && status == 0);
}

static void test_descriptors_have_their_names(void **state)
{
        passes((struct passing){NULL, "2", "nbd:control", 2, "nbd", "control"});
        passes((struct passing){NULL, "1", "nbd", 1, "nbd", NULL});
        passes((struct passing){NULL, "2", ":x", 2, "", "x"});
}

static void test_descriptors_without_names_are_unknown(void **state)
{
        passes((struct passing){NULL, "2", NULL, 2, "unknown", "unknown"});
}

static void test_what_was_for_another_process_is_not_taken(void **state)
{
        passes((struct passing){"1", "2", "nbd:control", 0, NULL, NULL});
        passes((struct passing){NULL, "0", NULL, 0, NULL, NULL});
}

static void test_what_makes_no_sense_is_an_error(void **state)
{
        passes((struct passing){"", "2", NULL, -EINVAL, NULL, NULL});
        passes((struct passing){"1x", "2", NULL, -EINVAL, NULL, NULL});
        passes((struct passing){NULL, "-1", NULL, -EINVAL, NULL, NULL});
        passes((struct passing){NULL, "2147483647", NULL, -EINVAL, NULL, NULL});
        passes((struct passing){NULL, "2", "nbd", -EINVAL, NULL, NULL});
        passes((struct passing){NULL, "2", "a:b:c", -EINVAL, NULL, NULL});
        passes((struct passing){NULL, "3", NULL, -EBADF, NULL, NULL});
}

static void test_without_a_word_of_them_there_are_none(void **state)
{
        const char **names = NULL;
        int first;

        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        assert_int_equal(service_passed_fds(&first, &names), 0);
}

static void test_only_stream_sockets_that_are_listened_on(void **state)
{
        int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int datagrams = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        const struct sockaddr_un a = {.sun_family = AF_UNIX};

        assert_false(service_is_listening(stream));
        assert_int_equal(bind(stream, (const struct sockaddr *)&a, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(stream, 1), 0);
        assert_true(service_is_listening(stream));
        assert_false(service_is_listening(datagrams));
        close(stream);
        close(datagrams);
        assert_false(service_is_listening(stream));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_lines_are_told_at_a_path),
            cmocka_unit_test(test_lines_are_told_in_the_abstract_namespace),
            cmocka_unit_test(test_who_has_no_manager_tells_nobody),
            cmocka_unit_test(test_descriptors_have_their_names),
            cmocka_unit_test(test_descriptors_without_names_are_unknown),
            cmocka_unit_test(test_what_was_for_another_process_is_not_taken),
            cmocka_unit_test(test_what_makes_no_sense_is_an_error),
            cmocka_unit_test(test_without_a_word_of_them_there_are_none),
            cmocka_unit_test(test_only_stream_sockets_that_are_listened_on),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
