/* test_nbd_tls.c - how TLS begins, at wire level: rules 6 and 7 of NBD's, who needs it, who gets in and
 * as whom, and what credentials a server takes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "tests/protocol/tls_fixture.h"

#define NEWSTYLE (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define TLS12    "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK"
#define TLS13    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK"

/* ---- STARTTLS ---- */

static void starttls_forgets_structured_replies_and_contexts(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);
        struct wire *w = wire_greeted(fixture_path(f));
        static const char *const queries[] = {"base:allocation", NULL};
        uint8_t data[256];

        wire_structured(w);
        wire_set_meta(w, "vol");
        struct tls_client *c = tls_client_upgrade(w, &tls_anonymous);
        /* without structured replies there are no contexts */
        size_t length = wire_meta_data(data, "vol", queries);
        assert_int_equal(wire_ask(w, NBD_OPT_LIST_META_CONTEXT, data, length), NBD_REP_ERR_INVALID);
        wire_structured(w);
        wire_go(w, "vol", NULL, NULL);
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096);
        assert_int_equal(wire_result(w, 1), NBD_EINVAL); /* none was selected since */
        wire_expect_alive(w);
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void simple_replies_are_back_after_starttls(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);
        struct wire *w = wire_greeted(fixture_path(f));
        uint8_t data[512];

        wire_structured(w);
        struct tls_client *c = tls_client_upgrade(w, &tls_anonymous);
        wire_go(w, "vol", NULL, NULL);
        assert_int_equal(wire_read(w, 0, 0, data, sizeof(data)), 0); /* checks which kind it is */
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void starttls_forgets_extended_headers_and_they_work_through_tls(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);

        for (unsigned again = 0; again < 2; again++) {
                struct wire *w = wire_greeted(fixture_path(f));
                uint8_t data[512];
                wire_extended(w);
                struct tls_client *c = tls_client_upgrade(w, &tls_anonymous);
                wire_structured(w); /* refused, were they still agreed on */
                if (again)
                        wire_extended(w);
                wire_go(w, "vol", NULL, NULL);
                wire_write(w, 0, 1, 0, data, sizeof(data));
                assert_int_equal(wire_result(w, 1), 0);
                assert_int_equal(wire_read(w, 0, 0, data, sizeof(data)), 0);
                tls_client_close(c);
        }
        fixture_stop(f, 5000);
}

static void plain_text_behind_starttls_ends_the_connection(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);
        struct wire *w = wire_greeted(fixture_path(f));

        /* in one segment: STARTTLS, and a GO that an attacker put behind it */
        wire_send(w,
                  "IHAVEOPT\0\0\0\5\0\0\0\0"
                  "IHAVEOPT\0\0\0\7\0\0\0\11\0\0\0\3vol\0\0",
                  16 + 25);
        wire_expect_closed(w);
        wire_close(w);
        fixture_wait_gone(f);
        assert_int_equal(fixture_n_asked(f), 0);
        fixture_stop(f, 5000);
}

static void plain_text_in_place_of_a_handshake_is_not_interpreted(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);
        struct wire *w = wire_greeted(fixture_path(f));

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        wire_send(w, "IHAVEOPT\0\0\0\7\0\0\0\11\0\0\0\3vol\0\0", 25);
        wire_drain(w); /* an alert */
        wire_close(w);
        fixture_wait_gone(f);
        assert_int_equal(fixture_n_asked(f), 0);
        fixture_stop(f, 5000);
}

static void a_second_starttls_is_invalid(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = tls_upgraded(f, &tls_anonymous);

        assert_int_equal(wire_ask(c->wire, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_INVALID);
        wire_go(c->wire, "vol", NULL, NULL);
        wire_expect_alive(c->wire);
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void starttls_with_data_is_invalid(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct wire *w = wire_greeted(fixture_path(f));

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, "x", 1), NBD_REP_ERR_INVALID);
        tls_client_close(tls_client_upgrade(w, &tls_anonymous));
        fixture_stop(f, 5000);
}

/* ---- who needs it ---- */

static void where_required_every_option_but_starttls_and_abort_gets_tls_reqd(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct wire *w = wire_greeted(fixture_path(f));
        uint8_t data[64];
        size_t length = wire_info_data(data, "vol", NULL, 0);

        assert_int_equal(wire_ask(w, NBD_OPT_GO, data, length), NBD_REP_ERR_TLS_REQD);
        assert_int_equal(wire_ask(w, NBD_OPT_INFO, data, length), NBD_REP_ERR_TLS_REQD);
        assert_int_equal(wire_ask(w, NBD_OPT_LIST, NULL, 0), NBD_REP_ERR_TLS_REQD);
        for (uint32_t option = NBD_OPT_STRUCTURED_REPLY; option < 20; option++)
                assert_int_equal(wire_ask(w, option, NULL, 0), NBD_REP_ERR_TLS_REQD);
        assert_int_equal(wire_ask(w, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
        wire_expect_closed(w);
        wire_close(w);
        assert_int_equal(fixture_n_asked(f), 0); /* nothing was opened for who has no TLS */
        fixture_stop(f, 5000);
}

static void where_required_export_name_disconnects(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct wire *w = wire_greeted(fixture_path(f));

        wire_option(w, NBD_OPT_EXPORT_NAME, "vol", 3);
        wire_expect_closed(w);
        wire_close(w);
        assert_int_equal(fixture_n_asked(f), 0);
        fixture_stop(f, 5000);
}

/* proto.md, "Server-side requirements" of TLS: to such a client the server has none. */
static void who_does_not_speak_fixed_newstyle_does_not_hear_of_tls(void **state)
{
        for (enum nbd_tls_mode mode = NBD_TLS_ALLOW; mode <= NBD_TLS_REQUIRE; mode++) {
                struct fixture *f = tls_start(mode, 0);
                bool required = mode == NBD_TLS_REQUIRE;
                struct wire *w = wire_connect(fixture_path(f));
                wire_greet(w, NBD_FLAG_NO_ZEROES);
                assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_UNSUP);
                for (uint32_t option = NBD_OPT_STRUCTURED_REPLY; option < 20; option++) {
                        uint32_t type = wire_ask(w, option, NULL, 0);
                        assert_int_not_equal(type, NBD_REP_ERR_TLS_REQD);
                        assert_int_equal(type == NBD_REP_ERR_POLICY, required);
                }
                if (!required)
                        assert_int_equal(wire_ask(w, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
                else
                        wire_option(w, NBD_OPT_EXPORT_NAME, "vol", 3);
                wire_expect_closed(w);
                wire_close(w);
                assert_int_equal(fixture_n_asked(f), 0);
                fixture_stop(f, 5000);
        }
}

static void where_allowed_plain_clients_are_served_too(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_ALLOW, 0);
        struct wire *w = wire_open(fixture_path(f), "vol", true);

        wire_expect_alive(w);
        assert_string_equal(fixture_identity(f, 0), "");
        tls_expect_serving(f, &tls_anonymous);
        wire_close(w);
        fixture_stop(f, 5000);
}

static void required_on_the_network_it_is_offered_on_unix_sockets(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE_NETWORK, 0);
        struct wire *local = wire_open(fixture_path(f), "vol", true);
        struct wire *remote = wire_connect_tcp(fixture_port(f));

        wire_expect_alive(local);
        wire_greet(remote, NEWSTYLE);
        assert_int_equal(wire_ask(remote, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ERR_TLS_REQD);
        struct tls_client *c = tls_client_upgrade(remote, &tls_anonymous);
        wire_go(remote, "vol", NULL, NULL);
        wire_expect_alive(remote);
        tls_expect_serving(f, &tls_anonymous);
        tls_client_close(c);
        wire_close(local);
        fixture_stop(f, 5000);
}

static void export_name_works_through_tls(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = tls_upgraded(f, &tls_anonymous);
        be64 size;
        be16 flags;

        wire_option(c->wire, NBD_OPT_EXPORT_NAME, "vol", 3);
        wire_receive(c->wire, &size, sizeof(size));
        wire_receive(c->wire, &flags, sizeof(flags));
        assert_int_equal(be64_get(size), VOL_BYTES);
        wire_expect_alive(c->wire);
        tls_client_close(c);
        fixture_stop(f, 5000);
}

/* ---- who gets in, and as whom ---- */

static void a_key_names_its_user(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        static const uint8_t bobs[32] = {0};

        tls_expect_serving(f, &tls_alice);
        assert_string_equal(fixture_identity(f, 0), "psk:alice");
        assert_string_equal(fixture_identity(f, 1), "");
        tls_expect_serving(f,
                           &tls_anonymous); /* by the certificate, which asks nothing of clients */
        assert_string_equal(fixture_identity(f, 0), "");
        tls_expect_refused(f, &(struct tls_client_options){.user = "alice", .key = bobs});
        tls_expect_refused(f, &(struct tls_client_options){.user = "mallory"});
        tls_expect_refused(
            f, &(struct tls_client_options){.user = "alice", .key = bobs, .priority = TLS12});
        tls_expect_refused(f, &(struct tls_client_options){.user = "mallory", .priority = TLS12});
        tls_expect_serving(f, &(struct tls_client_options){.user = "alice", .priority = TLS12});
        assert_string_equal(fixture_identity(f, 0), "psk:alice");
        fixture_stop(f, 5000);
}

static void a_certificate_names_its_owner(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, VERIFY_PEER);

        for (unsigned i = 0; i < 2; i++) {
                tls_expect_serving(f, &(struct tls_client_options){.certificate = "client",
                                                                   .priority = i ? TLS13 : TLS12});
                assert_string_equal(fixture_identity(f, 0), "dn:O=Tarn Tests,CN=client");
                assert_string_equal(fixture_identity(f, 1), "cn:client");
                assert_string_equal(fixture_identity(f, 2), "dns:host.example");
                assert_string_equal(fixture_identity(f, 3), "email:me@host.example");
                assert_string_equal(fixture_identity(f, 4), "");
        }
        fixture_stop(f, 5000);
}

static void a_bad_certificate_is_refused_where_one_is_required_or_not(void **state)
{
        static const char *const bad[] = {"stranger", "expired", "future", "for-servers"};

        for (unsigned i = 0; i < 2; i++) {
                struct fixture *f = tls_start(NBD_TLS_REQUIRE, i ? VERIFY_PEER : WITH_CA);
                for (unsigned j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
                        tls_expect_refused(f, &(struct tls_client_options){.certificate = bad[j],
                                                                           .priority = TLS13});
                        tls_expect_refused(f, &(struct tls_client_options){.certificate = bad[j],
                                                                           .priority = TLS12});
                }
                tls_expect_serving(f, &(struct tls_client_options){.certificate = "client"});
                tls_expect_serving(f, &(struct tls_client_options){.certificate = "for-clients"});
                fixture_stop(f, 5000);
        }
}

static void without_a_certificate_only_who_must_have_one_is_refused(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_CA);

        tls_expect_serving(f, &tls_anonymous);
        assert_string_equal(fixture_identity(f, 0), "");
        fixture_stop(f, 5000);
        f = tls_start(NBD_TLS_REQUIRE, VERIFY_PEER | WITH_PSK);
        tls_expect_refused(f, &(struct tls_client_options){.priority = TLS12});
        tls_expect_refused(f, &(struct tls_client_options){.priority = TLS13});
        tls_expect_serving(f, &tls_alice); /* a key is as good as a certificate */
        fixture_stop(f, 5000);
}

static void what_is_older_than_tls_1_2_is_refused(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);

        tls_expect_refused(f,
                           &(struct tls_client_options){
                               .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT"});
        fixture_stop(f, 5000);
}

/* Whoever gets the key one day could read all that was recorded. */
static void what_has_no_forward_secrecy_is_refused(void **state)
{
        const struct tls_client_options by_psk = {.user = "alice",
                                                  .priority = TLS12 ":-KX-ALL:+PSK"},
                                        by_rsa = {.priority = TLS12 ":-KX-ALL:+RSA"},
                                        by_dh = {.priority = TLS12};

        for (unsigned psk = 0; psk < 2; psk++) {
                struct nbd_tls_options o = {.certificate = pki_path(tls_pki, "server-rsa.pem"),
                                            .key = pki_path(tls_pki, "server-rsa.key"),
                                            .psk = psk ? pki_path(tls_pki, "keys.psk") : NULL};
                struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
                struct nbd_tls *tls = NULL;

                assert_int_equal(nbd_tls_new(&o, &tls, NULL), 0);
                nbd_server_set_tls(fixture_server(f), tls);
                nbd_tls_unref(tls);
                tls_expect_serving(f, &by_dh);
                tls_expect_refused(f, &by_rsa);
                tls_expect_refused(f, &by_psk);
                fixture_stop(f, 5000);
        }
}

/* The alert that ends a handshake with this name and a wrong key. */
static unsigned alert_of(struct fixture *f, const char *user, const char *priority)
{
        static const uint8_t wrong[32] = {0};
        const struct tls_client_options o = {
            .pki = tls_pki, .user = user, .key = wrong, .priority = priority};
        struct wire *w = wire_connect(fixture_path(f));
        struct tls_client *c;
        unsigned alert;

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        assert_int_equal(tls_client_start(w, &o, &c), GNUTLS_E_FATAL_ALERT_RECEIVED);
        alert = gnutls_alert_get(c->session);
        tls_client_close(c);
        return alert;
}

static void who_guesses_does_not_learn_which_keys_there_are(void **state)
{
        struct nbd_tls_options o = {.psk = pki_path(tls_pki, "keys.psk")};
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct nbd_tls *tls = NULL;

        assert_int_equal(nbd_tls_new(&o, &tls, NULL), 0);
        nbd_server_set_tls(fixture_server(f), tls);
        nbd_tls_unref(tls);
        tls_expect_serving(f, &tls_alice);
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(alert_of(f, "mallory", i ? TLS13 : TLS12),
                                 alert_of(f, "alice", i ? TLS13 : TLS12));
        fixture_stop(f, 5000);
}

struct new_tls {
        struct nbd_server *server;
        struct nbd_tls *tls;
};

static void set_tls(void *arg)
{
        struct new_tls *n = arg;

        nbd_server_set_tls(n->server, n->tls);
}

static void new_credentials_are_for_new_connections(void **state)
{
        struct nbd_tls_options o = {.psk = pki_path(tls_pki, "keys.psk")};
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *old = tls_opened(f, &tls_anonymous);
        struct new_tls n = {.server = fixture_server(f)};

        assert_int_equal(nbd_tls_new(&o, &n.tls, NULL), 0);
        fixture_run(f, set_tls, &n);
        nbd_tls_unref(n.tls);
        tls_expect_refused(f, &tls_anonymous);
        wire_expect_alive(old->wire);
        tls_client_close(old);
        tls_expect_serving(f, &tls_alice);
        fixture_stop(f, 5000);
}

/* ---- credentials ---- */

struct mistake {
        struct nbd_tls_options options; /* names of files in the folder */
        int error;
        const char *sentence;
};

static void expect_mistake(const struct mistake *m)
{
        struct nbd_tls_options o = m->options;
        struct error err = ERROR_INIT;
        struct nbd_tls *tls = NULL;
        const char **paths[] = {&o.certificate, &o.key, &o.ca, &o.psk};

        for (unsigned i = 0; i < 4; i++)
                if (*paths[i])
                        *paths[i] = pki_path(tls_pki, *paths[i]);
        assert_int_equal(nbd_tls_new(&o, &tls, &err), m->error);
        assert_null(tls);
        if (!strstr(err.message, m->sentence))
                fail_msg("'%s' does not say '%s'", err.message, m->sentence);
}

static void each_mistake_with_certificates_has_its_sentence(void **state)
{
        static const struct mistake mistakes[] = {
            {{0}, -EINVAL, "needs a certificate or pre-shared keys"},
            {{.certificate = "server.pem"}, -EINVAL, "a certificate and its key come together"},
            {{.certificate = "server.pem", .key = "none"}, -ENOENT, "none': No such file"},
            {{.certificate = "none", .key = "server.key"}, -ENOENT, "none': No such file"},
            {{.certificate = "server.pem", .key = "client.key"}, -EINVAL, "does not belong to"},
            {{.certificate = "server.pem", .key = "locked.key"},
             -EINVAL,
             "protected by a password"},
            {{.certificate = "server.pem", .key = "keys.psk"}, -EINVAL, "cannot use the key in"},
            {{.certificate = "server.key", .key = "server.key"},
             -EINVAL,
             "there is no certificate"},
            {{.certificate = "expired.pem", .key = "expired.key"}, -EINVAL, "' expired on 20"},
            {{.certificate = "future.pem", .key = "future.key"}, -EINVAL, "is not valid before 20"},
            {{.certificate = "server.pem", .key = "server.key", .ca = "none"}, -ENOENT, "none'"},
            {{.certificate = "server.pem", .key = "server.key", .ca = "expired.pem"},
             -EINVAL,
             "' expired on 20"},
            {{.certificate = "server.pem", .key = "server.key", .verify_peer = true},
             -EINVAL,
             "without the certificate of their CA"},
            {{.psk = "keys.psk", .ca = "ca.pem"}, -EINVAL, "only to a server that has one"},
            {{.psk = "none"}, -ENOENT, "none': No such file"},
        };

        for (unsigned i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++)
                expect_mistake(&mistakes[i]);
}

static void each_mistake_with_keys_has_its_line(void **state)
{
        static const char good[] = "ok:000102030405060708090a0b0c0d0e0f\n";
        static const struct {
                const char *text, *sentence;
        } bad[] = {
            {"", "there is no key in"},
            {"# ok:000102030405060708090a0b0c0d0e0f\n", "there is no key in"},
            {"alice\n", "line 1 of"},
            {":000102030405060708090a0b0c0d0e0f\n", "is not a name and a key"},
            {"ok:000102030405060708090a0b0c0d0e0f\nbob:12\n", "line 2 of"},
            {"bob:000102030405060708090a0b0c0d0e\n", "has 15 bytes, not 16 to 512"},
            {"bob:000102030405060708090a0b0c0d0e0\n", "odd number of digits"},
            {"bob:000102030405060708090a0b0c0d0e0g\n", "is not hexadecimal"},
            {"ok:000102030405060708090a0b0c0d0e0f\nok:ff0102030405060708090a0b0c0d0e0f\n",
             "has two keys for 'ok'"},
        };
        struct nbd_tls_options o = {.psk = pki_path(tls_pki, "bad.psk")};
        struct mistake m = {.options = {.psk = "bad.psk"}, .error = -EINVAL};
        char longer[512];

        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                pki_write(tls_pki, "bad.psk", bad[i].text, strlen(bad[i].text));
                m.sentence = bad[i].sentence;
                expect_mistake(&m);
        }
        pki_write(tls_pki, "bad.psk", "\0\0", 2);
        m.sentence = "is not text";
        expect_mistake(&m);
        snprintf(longer, sizeof(longer), "%0128d%s", 0, good);
        pki_write(tls_pki, "bad.psk", longer, strlen(longer));
        m.sentence = "name is longer than 127";
        expect_mistake(&m);
        struct nbd_tls *tls = NULL;
        pki_write(tls_pki, "bad.psk", good, strlen(good));
        o.psk = pki_path(tls_pki, "bad.psk");
        assert_int_equal(nbd_tls_new(&o, &tls, NULL), 0);
        nbd_tls_unref(tls);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(starttls_forgets_structured_replies_and_contexts),
            cmocka_unit_test(simple_replies_are_back_after_starttls),
            cmocka_unit_test(starttls_forgets_extended_headers_and_they_work_through_tls),
            cmocka_unit_test(plain_text_behind_starttls_ends_the_connection),
            cmocka_unit_test(plain_text_in_place_of_a_handshake_is_not_interpreted),
            cmocka_unit_test(a_second_starttls_is_invalid),
            cmocka_unit_test(starttls_with_data_is_invalid),
            cmocka_unit_test(where_required_every_option_but_starttls_and_abort_gets_tls_reqd),
            cmocka_unit_test(where_required_export_name_disconnects),
            cmocka_unit_test(who_does_not_speak_fixed_newstyle_does_not_hear_of_tls),
            cmocka_unit_test(where_allowed_plain_clients_are_served_too),
            cmocka_unit_test(required_on_the_network_it_is_offered_on_unix_sockets),
            cmocka_unit_test(export_name_works_through_tls),
            cmocka_unit_test(a_key_names_its_user),
            cmocka_unit_test(a_certificate_names_its_owner),
            cmocka_unit_test(a_bad_certificate_is_refused_where_one_is_required_or_not),
            cmocka_unit_test(without_a_certificate_only_who_must_have_one_is_refused),
            cmocka_unit_test(what_is_older_than_tls_1_2_is_refused),
            cmocka_unit_test(what_has_no_forward_secrecy_is_refused),
            cmocka_unit_test(who_guesses_does_not_learn_which_keys_there_are),
            cmocka_unit_test(new_credentials_are_for_new_connections),
            cmocka_unit_test(each_mistake_with_certificates_has_its_sentence),
            cmocka_unit_test(each_mistake_with_keys_has_its_line),
        };
        return cmocka_run_group_tests_name("nbd TLS", tests, tls_make_pki, tls_drop_pki);
}
