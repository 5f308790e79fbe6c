/* test_nbd_uri.c - connections by NBD URIs: what a URI may say, and who is taken for an NBD server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "formats/nbd_uri.h"

/* In such pieces a server writes what it says. */
#define PIECE    8u
#define PAUSE_US 20000u

/* A server that says @greeting to the first who connects. */
struct peer {
        char path[64], uri[128];
        int listen_fd, fd;
};

static void listens(struct peer *p)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};

        snprintf(p->path, sizeof(p->path), "/tmp/tarn-nbd-uri-%d", (int)getpid());
        snprintf(p->uri, sizeof(p->uri), "nbd+unix:///a%%20b?socket=%s&x=y", p->path);
        memcpy(a.sun_path, p->path, strlen(p->path) + 1);
        p->listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_true(p->listen_fd >= 0);
        unlink(p->path);
        assert_int_equal(bind(p->listen_fd, (struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(listen(p->listen_fd, 4), 0);
}

static pid_t greets(const struct peer *p, const char *greeting)
{
        pid_t pid = fork();

        if (pid == 0) {
                int fd = accept(p->listen_fd, NULL, NULL);

                for (size_t at = 0, n = strlen(greeting); fd >= 0 && at < n; at += PIECE) {
                        if (write(fd, greeting + at, n - at < PIECE ? n - at : PIECE) < 0)
                                _exit(1);
                        usleep(PAUSE_US);
                }
                if (fd >= 0)
                        shutdown(fd, SHUT_WR);
                _exit(0);
        }
        assert_true(pid > 0);
        return pid;
}

static int connect_to(struct peer *p, const char *greeting, int *ret_fd, char **ret_name,
                      struct error *err)
{
        int r;

        listens(p);
        greets(p, greeting);
        r = nbd_uri_connect(p->uri, ret_fd, ret_name, err);
        close(p->listen_fd);
        unlink(p->path);
        return r;
}

static void gives_a_socket_whose_greeting_is_unread(void **state)
{
        struct error err = ERROR_INIT;
        char said[18] = {0}, *name;
        struct peer p;
        int fd;

        assert_int_equal(connect_to(&p, "NBDMAGICIHAVEOPT..", &fd, &name, &err), 0);
        assert_string_equal(name, "a b");
        assert_int_equal(recv(fd, said, sizeof(said), MSG_WAITALL), sizeof(said));
        assert_memory_equal(said, "NBDMAGICIHAVEOPT..", sizeof(said));
        free(name);
        close(fd);
}

static void gives_no_socket_of_another_server(void **state)
{
        static const char *const greetings[] = {"220 mail.example ESMTP", "NBDMAGIC", "",
                                                "NBDMAGIC\1\2\3\4\5\6\7\10"};

        for (size_t i = 0; i < sizeof(greetings) / sizeof(greetings[0]); i++) {
                struct error err = ERROR_INIT;
                char *name = NULL;
                struct peer p;
                int fd = -1;

                assert_int_equal(connect_to(&p, greetings[i], &fd, &name, &err), -EPROTO);
                assert_non_null(strstr(err.message, p.uri));
                assert_null(name); /* there is nothing to free */
                assert_int_equal(fd, -1);
        }
}

static void a_server_without_tls_is_refused_by_tls(void **state)
{
        struct error err = ERROR_INIT;
        struct peer p;
        char *name, uri[160];
        int fd;

        listens(&p);
        greets(&p, "NBDMAGICIHAVEOPT\0\3");
        snprintf(uri, sizeof(uri), "nbds+unix:///?socket=%s", p.path);
        assert_int_equal(nbd_uri_connect(uri, &fd, &name, &err), -EPROTO);
        assert_non_null(strstr(err.message, "by TLS"));
        close(p.listen_fd);
        unlink(p.path);
}

static void paths_for_others_are_absolute(void **state)
{
        static const char *const wrong[] = {
            "nbd+unix:///x?socket=here", "nbds://h/x?tls-certificates=here",
            "nbds://h/x?a=b&tls-psk-file=here", "nbd://h/%0", "nbd://h/%00"};
        static const char *const right[] = {"nbd+unix:///x?socket=/here", "nbd://h:1/x",
                                            "nbd://[::1]:1/x", "nbds://alice@h/x?tls-psk-file=/k",
                                            "nbd://h/x#socket=here"};

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                struct error err = ERROR_INIT;
                char *name;

                assert_int_equal(nbd_uri_check(wrong[i], &name, &err), -EINVAL);
                assert_non_null(strstr(err.message, wrong[i]));
        }
        for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
                char *name;

                assert_int_equal(nbd_uri_check(right[i], &name, NULL), 0);
                assert_string_equal(name, "x");
                free(name);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(gives_a_socket_whose_greeting_is_unread),
            cmocka_unit_test(gives_no_socket_of_another_server),
            cmocka_unit_test(a_server_without_tls_is_refused_by_tls),
            cmocka_unit_test(paths_for_others_are_absolute),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
