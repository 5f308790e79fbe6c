/* test_nbd_rights.c - clients of Unix sockets that pass descriptors along, which takes long to close:
 * the kernel refuses them, or, where it cannot, whoever passes one is cut off; nobody waits. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/passed_fds.h"
#include "tests/protocol/tls_fixture.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* ---- a kernel that cannot refuse descriptors ---- */

static bool old_kernel;

int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __real_getsockopt(int fd, int level, int option, void *value, socklen_t *length);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length);

static bool is_unknown(int level, int option)
{
        if (!old_kernel || level != SOL_SOCKET || option != SO_PASSRIGHTS)
                return false;
        errno = ENOPROTOOPT;
        return true;
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
        return is_unknown(level, option) ? -1 : __real_setsockopt(fd, level, option, value, length);
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
        return is_unknown(level, option) ? -1 : __real_getsockopt(fd, level, option, value, length);
}

static int setup_old(void **state)
{
        old_kernel = true;
        return fixture_setup(state);
}

static int teardown(void **state)
{
        int r = fixture_teardown(state);

        old_kernel = false;
        return r;
}

/* ---- a descriptor that takes ten minutes to close ---- */

struct slow {
        int fd, peer;
};

/* A TCP socket with more to send than its peer takes, which its close waits for. */
static struct slow slow_open(void)
{
        const struct linger linger = {.l_onoff = 1, .l_linger = 600};
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof(address);
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct slow slow = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        static const uint8_t zeroes[65536];

        assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
        assert_int_equal(connect(slow.fd, (struct sockaddr *)&address, length), 0);
        slow.peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(slow.peer >= 0);
        close(listener);
        assert_int_equal(setsockopt(slow.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
        while (send(slow.fd, zeroes, sizeof(zeroes), MSG_DONTWAIT) > 0)
                ;
        return slow;
}

struct passing {
        struct wire *w;
        const void *data;
        size_t length;
        struct slow *slow;
};

static void pass_now(void *arg)
{
        struct passing *p = arg;

        if (passed_fds_send(p->w->fd, p->data, p->length, &p->slow->fd, 1, 0) < 0)
                return;
        close(p->slow->fd);
        p->slow->fd = -1;
}

/* With these bytes. On the server's own loop, so that it has ours closed before it sees its own,
 * which is then the last. */
static void pass(struct fixture *f, struct wire *w, const void *data, size_t length,
                 struct slow *slow)
{
        fixture_run(f, pass_now, &(struct passing){w, data, length, slow});
        assert_int_equal(slow->fd, -1);
}

/* The peer takes the rest, and learns that nobody has the socket any more. */
static void expect_closed(struct slow *slow)
{
        const struct timeval hang = {.tv_sec = HANG_S};
        static uint8_t rest[65536];
        ssize_t n;

        assert_int_equal(setsockopt(slow->peer, SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof(hang)), 0);
        while ((n = recv(slow->peer, rest, sizeof(rest), 0)) > 0)
                ;
        assert_int_equal(n, 0);
        close(slow->peer);
}

/* Another client is served meanwhile. Then it is over. */
static void expect_served(struct fixture *f, struct slow *slow)
{
        struct wire *other = wire_open(fixture_path(f), "vol", true);

        wire_expect_alive(other);
        wire_close(other);
        if (slow->fd >= 0) {
                close(slow->peer); /* before ours, which would wait for it */
                close(slow->fd);
        } else {
                expect_closed(slow);
        }
}

/* ---- refused ---- */

static void the_kernel_refuses_descriptors_where_it_can(void **state)
{
        struct wire *w = wire_open(fixture_path(*state), "vol", true);
        struct slow slow = slow_open();
        int pass_rights;
        socklen_t length = sizeof(pass_rights);

        if (getsockopt(w->fd, SOL_SOCKET, SO_PASSRIGHTS, &pass_rights, &length) < 0) {
                print_message("SKIP: Linux before 6.16 cannot refuse descriptors\n");
        } else {
                assert_int_equal(passed_fds_send(w->fd, "x", 1, &slow.fd, 1, 0), -1);
                assert_int_equal(errno, EPERM);
        }
        wire_expect_alive(w);
        expect_served(*state, &slow);
        wire_close(w);
}

/* ---- thrown away ---- */

static void a_descriptor_in_the_negotiation_ends_it_and_holds_up_nobody(void **state)
{
        static const struct nbd_option list = {.option = {{0, 0, 0, NBD_OPT_LIST}}};

        for (unsigned greeted = 0; greeted < 2; greeted++) {
                struct wire *w = wire_connect(fixture_path(*state));
                struct slow slow = slow_open();
                be32 flags = be32_make(NBD_FLAG_FIXED_NEWSTYLE);
                if (greeted) {
                        struct nbd_option option = list;
                        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
                        option.magic = be64_make(NBD_OPTION_MAGIC);
                        pass(*state, w, &option, sizeof(option), &slow);
                } else {
                        pass(*state, w, &flags, sizeof(flags), &slow);
                }
                expect_served(*state, &slow);
                wire_drain(w);
                wire_close(w);
                fixture_wait_gone(*state);
        }
}

static void a_descriptor_with_a_request_ends_the_connection_and_holds_up_nobody(void **state)
{
        struct nbd_request_header write = {.magic = be32_make(NBD_REQUEST_MAGIC),
                                           .type = be16_make(NBD_CMD_WRITE),
                                           .length = be32_make(1 << 20)};

        for (unsigned in_payload = 0; in_payload < 2; in_payload++) {
                struct wire *w = wire_open(fixture_path(*state), "vol", true);
                struct slow slow = slow_open();
                if (in_payload) { /* received in place */
                        wire_send(w, &write, sizeof(write));
                        wire_send(w, &write, sizeof(write));
                        fixture_n_clients(*state);
                }
                pass(*state, w, &write, sizeof(write), &slow);
                expect_served(*state, &slow);
                wire_expect_closed(w);
                wire_close(w);
                fixture_wait_gone(*state);
        }
}

/* Behind a DISC nothing is received: the descriptor goes when the socket is closed. */
static void a_descriptor_that_nobody_receives_holds_up_nobody(void **state)
{
        struct wire *w = wire_open(fixture_path(*state), "vol", true);
        struct slow slow = slow_open();

        fake_hold(fixture_volume(*state));
        wire_request(w, NBD_CMD_FLUSH, 0, 1, 0, 0);
        wire_request(w, NBD_CMD_DISC, 0, 2, 0, 0);
        fake_wait_held(fixture_volume(*state), 1);
        fixture_n_clients(*state);
        pass(*state, w, "x", 1, &slow);
        fake_release_all(fixture_volume(*state));
        assert_int_equal(wire_result(w, 1), 0);
        wire_drain(w);
        expect_served(*state, &slow);
        wire_close(w);
        fixture_wait_gone(*state);
}

static void a_descriptor_beside_tls_ends_the_connection_and_holds_up_nobody(void **state)
{
        old_kernel = true;
        for (unsigned opened = 0; opened < 2; opened++) {
                struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);
                struct tls_client *c =
                    opened ? tls_opened(f, &tls_anonymous) : tls_upgraded(f, &tls_anonymous);
                struct slow slow = slow_open();
                pass(f, c->wire, "\27\3\3", 3, &slow); /* how a record begins */
                expect_served(f, &slow);
                tls_client_close(c);
                fixture_wait_gone(f);
                fixture_stop(f, 5000);
        }
        old_kernel = false;
}

#define OLD(name) cmocka_unit_test_setup_teardown(name, setup_old, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(the_kernel_refuses_descriptors_where_it_can,
                                            fixture_setup, teardown),
            OLD(a_descriptor_in_the_negotiation_ends_it_and_holds_up_nobody),
            OLD(a_descriptor_with_a_request_ends_the_connection_and_holds_up_nobody),
            OLD(a_descriptor_that_nobody_receives_holds_up_nobody),
            cmocka_unit_test(a_descriptor_beside_tls_ends_the_connection_and_holds_up_nobody),
        };

        alarm(100); /* a hang is a failure */
        return cmocka_run_group_tests_name("nbd descriptors", tests, tls_make_pki, tls_drop_pki);
}
