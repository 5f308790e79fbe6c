/* test_nbd_tls_shortage.c - out of memory in a connection's TLS, and while credentials are read: that
 * connection or those credentials fail, and nothing else.
 *
 * GnuTLS's own allocations are left alone: where one fails it leaks, and where that happens while it
 * changes a session's keys, 3.7.9 leaves its lock taken and waits for it when the session ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>
#include "tests/protocol/shortage.h"
#include "tests/protocol/tls_fixture.h"

#define ROUNDS_MAX 3000u

/* ---- credentials ---- */

static struct nbd_tls_options all_of_them(void)
{
        return (struct nbd_tls_options){
            .certificate = pki_path(tls_pki, "server.pem"),
            .key = pki_path(tls_pki, "server.key"),
            .ca = pki_path(tls_pki, "ca.pem"),
            .psk = pki_path(tls_pki, "keys.psk"),
        };
}

static void credentials_without_memory_are_an_error(void **state)
{
        unsigned n = 0;
        bool struck;

        do {
                struct nbd_tls_options o = all_of_them();
                struct error err = ERROR_INIT;
                struct nbd_tls *tls = NULL;

                n++;
                shortage_fail(&n);
                int r = nbd_tls_new(&o, &tls, &err);
                struck = shortage_has_struck();
                shortage_off();
                if (r < 0) {
                        assert_true(struck);
                        assert_null(tls);
                        assert_int_equal(err.code, r);
                        assert_true(strlen(err.message) > 0);
                }
                nbd_tls_unref(tls);
        } while (struck && n < ROUNDS_MAX);
        assert_in_range(n, 6, ROUNDS_MAX - 1); /* four files, their keys, all of them */
}

/* ---- connections ---- */

static bool send_all(struct tls_client *c, const uint8_t *data, size_t length)
{
        while (length > 0) {
                ssize_t n = gnutls_record_send(c->session, data, length);
                if (n < 0 && gnutls_error_is_fatal((int)n))
                        return false;
                if (n > 0) {
                        data += n;
                        length -= (size_t)n;
                }
        }
        return true;
}

static void drain(struct tls_client *c)
{
        uint8_t data[4096];
        ssize_t n;

        do {
                n = gnutls_record_recv(c->session, data, sizeof(data));
        } while (n > 0 || (n < 0 && !gnutls_error_is_fatal((int)n)));
}

/* STARTTLS, the handshake and a conversation, each as far as the server lets it come. */
static void converse(struct wire *w, const char *user, const uint8_t *stream, size_t length)
{
        const struct tls_client_options options = {.pki = tls_pki, .user = user};
        struct nbd_option starttls = {be64_make(NBD_OPTION_MAGIC), be32_make(NBD_OPT_STARTTLS),
                                      be32_make(0)};
        struct nbd_option_reply reply;
        struct tls_client *c;

        if (!wire_try_send(w, &starttls, sizeof(starttls)) ||
            !wire_try_receive(w, &reply, sizeof(reply)) || be32_get(reply.type) != NBD_REP_ACK) {
                wire_close(w);
                return;
        }
        if (tls_client_start(w, &options, &c) == 0 && send_all(c, stream, length))
                drain(c);
        tls_client_close(c);
}

static void any_allocation_may_fail(const char *user)
{
        struct nbd_tls_options o = all_of_them();
        struct nbd_server_options options = {.tls_mode = NBD_TLS_REQUIRE};
        uint8_t *stream = malloc(SHORTAGE_STREAM_BYTES);
        size_t length = shortage_conversation(stream);
        struct error err = ERROR_INIT;
        unsigned n = 0, off = 0;
        bool struck;

        assert_int_equal(nbd_tls_new(&o, &options.tls, &err), 0);
        struct fixture *f = fixture_start(&options);
        nbd_tls_unref(options.tls);
        do {
                struct wire *w = wire_connect(fixture_path(f));

                n++;
                wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
                fixture_run(f, shortage_fail, &n);
                converse(w, user, stream + SHORTAGE_FLAGS_BYTES, length - SHORTAGE_FLAGS_BYTES);
                fixture_wait_gone(f);
                struck = shortage_has_struck();
                fixture_run(f, shortage_fail, &off);
                tls_expect_serving(f, &tls_anonymous);
        } while (struck && n < ROUNDS_MAX);
        assert_in_range(n, 8, ROUNDS_MAX - 1);
        fixture_stop(f, 5000);
        free(stream);
}

static void any_allocation_of_a_connection_with_certificates_may_fail(void **state)
{
        any_allocation_may_fail(NULL);
}

static void any_allocation_of_a_connection_with_a_key_may_fail(void **state)
{
        any_allocation_may_fail("alice");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(credentials_without_memory_are_an_error),
            cmocka_unit_test(any_allocation_of_a_connection_with_certificates_may_fail),
            cmocka_unit_test(any_allocation_of_a_connection_with_a_key_may_fail),
        };
        return cmocka_run_group_tests_name("nbd TLS shortage", tests, tls_make_pki, tls_drop_pki);
}
