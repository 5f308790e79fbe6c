/* tls_fixture.c - see tls_fixture.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/protocol/tls_fixture.h"

struct pki *tls_pki;

int tls_make_pki(void **state)
{
        tls_pki = pki_new();
        return 0;
}

int tls_drop_pki(void **state)
{
        pki_free(tls_pki);
        return 0;
}

struct nbd_tls *tls_credentials(unsigned with)
{
        struct nbd_tls_options o = {
            .certificate = pki_path(tls_pki, "server.pem"),
            .key = pki_path(tls_pki, "server.key"),
            .ca = with & (WITH_CA | VERIFY_PEER) ? pki_path(tls_pki, "ca.pem") : NULL,
            .verify_peer = with & VERIFY_PEER,
            .psk = with & WITH_PSK ? pki_path(tls_pki, "keys.psk") : NULL,
        };
        struct error err = ERROR_INIT;
        struct nbd_tls *tls = NULL;

        if (nbd_tls_new(&o, &tls, &err) < 0)
                fail_msg("%s", err.message);
        return tls;
}

struct fixture *tls_start_with(enum nbd_tls_mode mode, unsigned with,
                               struct nbd_server_options options)
{
        options.tls_mode = mode;
        options.tls = tls_credentials(with);
        struct fixture *f = fixture_start(&options);
        nbd_tls_unref(options.tls); /* the server has its own */
        return f;
}

struct fixture *tls_start(enum nbd_tls_mode mode, unsigned with)
{
        return tls_start_with(mode, with, (struct nbd_server_options){0});
}

const struct tls_client_options tls_anonymous, tls_alice = {.user = "alice"};

struct tls_client *tls_upgraded(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client_options o = *options;

        o.pki = tls_pki;
        return tls_client_upgrade(wire_greeted(fixture_path(f)), &o);
}

struct tls_client *tls_opened(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client *c = tls_upgraded(f, options);

        wire_structured(c->wire);
        wire_set_meta(c->wire, "vol");
        wire_go(c->wire, "vol", NULL, NULL);
        return c;
}

void tls_expect_serving(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client *c = tls_opened(f, options);

        wire_expect_alive(c->wire);
        tls_client_close(c);
}

/* The server does not take this client: at once, or at the first thing that it says. */
void tls_expect_refused(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client_options o = *options;
        struct tls_client *c;
        unsigned asked = fixture_n_asked(f), others = fixture_n_clients(f);
        struct wire *w = wire_greeted(fixture_path(f));

        o.pki = tls_pki;
        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        if (tls_client_start(w, &o, &c) == 0) {
                wire_try_send(w, "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0", 22); /* GO */
                wire_expect_closed(w);
                assert_false(c->at_end); /* an alert, not a polite end */
        }
        tls_client_close(c);
        fixture_wait_left(f, others);
        assert_int_equal(fixture_n_asked(f), asked);
}
