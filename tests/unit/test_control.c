/* test_control.c - the control socket, with no pool behind it:
 * what clients may send and do to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/coroutine.h"
#include "common/passed_fds.h"
#include "server/control.h"
#include "tests/unit/open_fds.h"

struct fixture {
        struct loop *loop;
        struct host host;
        struct control *control;
        char folder[32], path[64];
        void (*co_test)(struct fixture *f);
};

static int setup(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));

        *state = f;
        strcpy(f->folder, "/tmp/tarn-ctl-XXXXXX");
        if (!mkdtemp(f->folder))
                return -1;
        snprintf(f->path, sizeof(f->path), "%s/s", f->folder);
        alarm(60); /* a hang is a failure */
        return loop_new(LOOP_BACKEND_AUTO, &f->loop, NULL);
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        alarm(0);
        loop_free(f->loop);
        unlink(f->path);
        rmdir(f->folder);
        free(f);
        return 0;
}

static void entry(void *arg)
{
        struct fixture *f = arg;
        int fd;

        host_init(&f->host, f->loop);
        assert_int_equal(socket_listen_unix(f->path, (gid_t)-1, &fd, NULL), 0);
        assert_int_equal(control_new(&f->host, fd, &f->control, NULL), 0);
        f->co_test(f);
        co_control_stop(f->control);
        control_free(f->control);
}

static void run(void **state, void (*co_test)(struct fixture *f))
{
        struct fixture *f = *state;

        f->co_test = co_test;
        assert_int_equal(co_run(f->loop, entry, f), 0);
}

static int dial(struct fixture *f)
{
        int fd;

        assert_int_equal(socket_connect_unix(f->path, &fd), 0);
        return fd;
}

static int co_send_text(int fd, const char *text, size_t length)
{
        while (length > 0) {
                struct iovec iov = {(void *)text, length};
                struct loop_io io = {.op = LOOP_SENDMSG, .fd = fd, .iov = &iov, .n_iov = 1};
                int n = co_io(&io);

                if (n <= 0)
                        return n;
                text += n;
                length -= (size_t)n;
        }
        return 1;
}

/* A line without its end; NULL at the end of the stream. */
static char *co_read_line(int fd)
{
        static char line[4096];
        size_t n = 0;

        while (n < sizeof(line) - 1) {
                struct iovec iov = {line + n, 1};
                struct loop_io io = {.op = LOOP_RECV, .fd = fd, .iov = &iov, .n_iov = 1};

                if (co_io(&io) <= 0)
                        return NULL;
                if (line[n] == '\n')
                        break;
                n++;
        }
        line[n] = '\0';
        return line;
}

static void co_expect(int fd, const char *request, const char *code)
{
        char *line;
        json_t *reply;
        struct error e = ERROR_INIT;

        assert_int_equal(co_send_text(fd, request, strlen(request)), 1);
        line = co_read_line(fd);
        assert_non_null(line);
        reply = json_loads(line, 0, NULL);
        assert_non_null(reply);
        assert_true(control_error_parse(reply, &e) < 0);
        assert_string_equal(strerrorname_np(-e.code), code);
        assert_true(e.message[0] != '\0');
        json_decref(reply);
}

static void co_rubbish(struct fixture *f)
{
        int fd = dial(f);

        co_expect(fd, "rubbish\n", "EINVAL");
        co_expect(fd, "\n", "EINVAL");
        co_expect(fd, "[]\n", "EINVAL");
        co_expect(fd, "{\"a\":1,\"a\":2}\n", "EINVAL");
        co_expect(fd, "{}\n", "EINVAL");
        co_expect(fd, "{\"command\":5,\"pool\":\"x\"}\n", "EINVAL");
        co_expect(fd, "{\"command\":\"x\",\"pool\":\"x\"}\n", "EOPNOTSUPP");
        co_expect(fd, "{\"command\":\"volume-list\",\"pool\":\"x\"}\n", "ENOENT");
        close(fd);
}

static void rubbish_is_answered_with_an_error(void **state)
{
        run(state, co_rubbish);
}

/* A parser that recurses would run off the coroutine's stack. */
static void co_deep(struct fixture *f)
{
        static char text[20001];
        int fd = dial(f);

        memset(text, '[', 20000);
        text[19999] = '\n';
        co_expect(fd, text, "EINVAL");
        for (size_t i = 0; i + 5 < 19999; i += 5)
                memcpy(text + i, "{\"a\":", 5);
        co_expect(fd, text, "EINVAL");
        close(fd);
}

static void deep_nesting_is_refused(void **state)
{
        run(state, co_deep);
}

static void co_pieces(struct fixture *f)
{
        static const char request[] = "{\"command\":\"volume-list\",\"pool\":\"x\"}\n";
        int fd = dial(f);

        for (size_t i = 0; i + 2 < sizeof(request); i++) {
                assert_int_equal(co_send_text(fd, request + i, 1), 1);
                co_yield_loop();
        }
        co_expect(fd, "\n", "ENOENT");
        close(fd);
}

static void a_request_may_come_in_pieces(void **state)
{
        run(state, co_pieces);
}

static void co_long_line(struct fixture *f)
{
        char *much = malloc(CONTROL_LINE_MAX + 4096);
        int fd = dial(f);
        char *line;

        memset(much, 'x', CONTROL_LINE_MAX + 4096);
        co_send_text(fd, much, CONTROL_LINE_MAX + 4096); /* may be cut off before its end */
        line = co_read_line(fd);
        /* A connection closed with bytes unread may lose the reply; it is closed in any case. */
        assert_true(!line || strstr(line, "E2BIG"));
        if (line)
                assert_null(co_read_line(fd));
        close(fd);
        free(much);
}

static void a_line_without_end_is_cut_off(void **state)
{
        run(state, co_long_line);
}

static void co_crowd(struct fixture *f)
{
        int fds[CONTROL_CLIENTS_MAX + 1];
        char *line;

        for (unsigned i = 0; i <= CONTROL_CLIENTS_MAX; i++)
                fds[i] = dial(f);
        line = co_read_line(fds[CONTROL_CLIENTS_MAX]);
        assert_non_null(line);
        assert_non_null(strstr(line, "EMFILE"));
        co_expect(fds[0], "{}\n", "EINVAL");
        co_expect(fds[CONTROL_CLIENTS_MAX - 1], "{}\n", "EINVAL");
        for (unsigned i = 0; i <= CONTROL_CLIENTS_MAX; i++)
                close(fds[i]);
}

static void one_client_too_many_is_told_and_the_rest_served(void **state)
{
        run(state, co_crowd);
}

static void pass_fds(int fd, const char *text, size_t n_fds)
{
        static const int fds[COMMAND_FDS_MAX]; /* descriptor 0, many times */

        assert_int_equal(passed_fds_send(fd, text, strlen(text), fds, n_fds, 0),
                         (ssize_t)strlen(text));
}

/* Some are closed by another thread, a moment later. */
static void co_expect_fds(unsigned n)
{
        for (unsigned left_ms = 5000; count_open_fds() > n && left_ms > 0; left_ms--)
                co_sleep_ns(1000000);
        assert_true(count_open_fds() <= n);
}

static void co_fds(struct fixture *f)
{
        int fd = dial(f);
        unsigned before;

        co_expect(fd, "{}\n", "EINVAL");
        before = count_open_fds();
        for (int i = 0; i < 20; i++) {
                pass_fds(fd, "{}", COMMAND_FDS_MAX);
                pass_fds(fd, " ", COMMAND_FDS_MAX); /* more than a command may have */
                co_expect(fd, "\n", "EINVAL");
        }
        co_expect_fds(before);
        pass_fds(fd, "{", COMMAND_FDS_MAX); /* and gone in the middle of a line */
        close(fd);
        fd = dial(f);
        co_expect(fd, "{}\n", "EINVAL");
        co_expect_fds(before);
        close(fd);
}

static void descriptors_that_are_passed_do_not_stay(void **state)
{
        run(state, co_fds);
}

static void co_leave_open(struct fixture *f)
{
        int idle = dial(f), half = dial(f);

        assert_int_equal(co_send_text(half, "{\"comm", 6), 1);
        co_expect(idle, "{}\n", "EINVAL");
        /* The fixture stops the server now, which must not wait for these two. */
}

static void stopping_does_not_wait_for_idle_clients(void **state)
{
        run(state, co_leave_open);
}

static void a_socket_is_the_users_alone_and_replaces_a_stale_one(void **state)
{
        struct fixture *f = *state;
        struct error e = ERROR_INIT;
        struct stat st;
        int fd, other = -1;

        assert_int_equal(socket_listen_unix(f->path, (gid_t)-1, &fd, &e), 0);
        assert_int_equal(lstat(f->path, &st), 0);
        assert_true(S_ISSOCK(st.st_mode));
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(socket_listen_unix(f->path, (gid_t)-1, &other, &e), -EADDRINUSE);
        close(fd); /* as a kill would: the name stays */
        assert_int_equal(socket_listen_unix(f->path, getgid(), &fd, &e), 0);
        assert_int_equal(lstat(f->path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0660);
        close(fd);
        unlink(f->path);
        fd = open(f->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        close(fd);
        assert_int_equal(socket_listen_unix(f->path, (gid_t)-1, &other, &e), -EEXIST);
}

static void *close_soon(void *arg)
{
        const int *fd = arg;

        usleep(50000);
        close(*fd);
        return NULL;
}

/* The kernel's part, that holds the sockets of a process for a while after its end, is this one's. */
static void a_socket_that_a_killed_server_leaves_for_a_moment_is_replaced(void **state)
{
        struct fixture *f = *state;
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client, other;
        pthread_t thread;
        pid_t pid;

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        pid = fork();
        if (pid == 0) {
                listen(fd, 8);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        client = dial(f);
        assert_false(socket_is_left(client, getpid())); /* taken over by one who lives */
        close(client);
        assert_int_equal(pthread_create(&thread, NULL, close_soon, &fd), 0);
        assert_int_equal(socket_listen_unix(f->path, (gid_t)-1, &other, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        close(other);
}

static void tcp_addresses_are_read_strictly(void **state)
{
        static const char *const bad[] = {"",           "1",         "127.0.0.1",
                                          "127.0.0.1:", "::1:10809", "127.0.0.1:notaport",
                                          "[::1]",      "[::1]:",    "[::1:0"};
        struct error e = ERROR_INIT;
        int fd;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(socket_listen_tcp(bad[i], &fd, &e), -EINVAL);
        assert_int_equal(socket_listen_tcp("127.0.0.1:0", &fd, &e), 0);
        assert_false(socket_is_exposed(fd));
        close(fd);
        assert_int_equal(socket_listen_tcp("0.0.0.0:0", &fd, &e), 0);
        assert_true(socket_is_exposed(fd));
        close(fd);
}

static bool has_ipv6(void)
{
        const struct sockaddr_in6 loopback = {.sin6_family = AF_INET6,
                                              .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&loopback, sizeof(loopback)) == 0;

        if (fd >= 0)
                close(fd);
        return has;
}

static struct sockaddr_in6 listen_on_ipv6(const char *address, int *ret_fd)
{
        struct sockaddr_in6 a = {0};
        socklen_t length = sizeof(a), flag_length = sizeof(int);
        int is_alone = 0;

        assert_int_equal(socket_listen_tcp(address, ret_fd, NULL), 0);
        assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&a, &length), 0);
        assert_int_equal(a.sin6_family, AF_INET6);
        assert_true(a.sin6_port != 0);
        /* 0.0.0.0 at the same port is for another socket. */
        assert_int_equal(getsockopt(*ret_fd, IPPROTO_IPV6, IPV6_V6ONLY, &is_alone, &flag_length),
                         0);
        assert_true(is_alone);
        return a;
}

static void ipv6_addresses_are_listened_on_and_all_but_loopback_are_exposed(void **state)
{
        struct sockaddr_in6 a;
        int fd;

        if (!has_ipv6())
                skip();
        a = listen_on_ipv6("[::1]:0", &fd);
        assert_true(IN6_IS_ADDR_LOOPBACK(&a.sin6_addr));
        assert_false(socket_is_exposed(fd));
        close(fd);
        a = listen_on_ipv6("[::]:0", &fd);
        assert_true(IN6_IS_ADDR_UNSPECIFIED(&a.sin6_addr));
        assert_true(socket_is_exposed(fd));
        close(fd);
}

static void errors_cross_the_socket_unchanged(void **state)
{
        struct error e = ERROR_INIT, back = ERROR_INIT;
        json_t *reply;

        error_set(&e, -EBUSY, "'%s' is in use", "tank/web");
        error_hint(&e, "wait");
        reply = control_error_json(&e);
        assert_int_equal(control_error_parse(reply, &back), -EBUSY);
        assert_string_equal(back.message, e.message);
        assert_string_equal(back.hint, "wait");
        json_decref(reply);
        /* A sentence that quotes what is not UTF-8 still is an error. */
        error_set(&e, -ENOENT, "'%s'", "\xff\xfe");
        reply = control_error_json(&e);
        assert_int_equal(control_error_parse(reply, &back), -ENOENT);
        json_decref(reply);
        reply = json_loads("{\"error\":{}}", 0, NULL);
        assert_int_equal(control_error_parse(reply, &back), -EIO);
        json_decref(reply);
        reply = json_loads("{\"error\":{\"message\":\"\"}}", 0, NULL);
        back = ERROR_INIT;
        assert_int_equal(control_error_parse(reply, &back), -EIO);
        assert_true(back.message[0]);
        json_decref(reply);
}

#define control_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            control_test(rubbish_is_answered_with_an_error),
            control_test(deep_nesting_is_refused),
            control_test(a_request_may_come_in_pieces),
            control_test(a_line_without_end_is_cut_off),
            control_test(one_client_too_many_is_told_and_the_rest_served),
            control_test(descriptors_that_are_passed_do_not_stay),
            control_test(stopping_does_not_wait_for_idle_clients),
            control_test(a_socket_is_the_users_alone_and_replaces_a_stale_one),
            control_test(a_socket_that_a_killed_server_leaves_for_a_moment_is_replaced),
            cmocka_unit_test(tcp_addresses_are_read_strictly),
            cmocka_unit_test(ipv6_addresses_are_listened_on_and_all_but_loopback_are_exposed),
            cmocka_unit_test(errors_cross_the_socket_unchanged),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
