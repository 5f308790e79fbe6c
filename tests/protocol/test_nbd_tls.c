/* test_nbd_tls.c - TLS at wire level: rules 6, 7, 12 and 20 of NBD's, who gets in and as whom, and
 * what a peer may do to a stream that is encrypted. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/fixture.h"
#include "tests/protocol/tls_client.h"

#define MIB      (1u << 20)
#define NEWSTYLE (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define TLS12    "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK"
#define TLS13    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK"

static struct pki *pki; /* made once: nothing changes it */

static int make_pki(void **state)
{
        pki = pki_new();
        return 0;
}

static int drop_pki(void **state)
{
        pki_free(pki);
        return 0;
}

/* ---- servers ---- */

enum { WITH_PSK = 1, WITH_CA = 2, VERIFY_PEER = 4 };

static struct nbd_tls *credentials(unsigned with)
{
        struct nbd_tls_options o = {
            .certificate = pki_path(pki, "server.pem"),
            .key = pki_path(pki, "server.key"),
            .ca = with & (WITH_CA | VERIFY_PEER) ? pki_path(pki, "ca.pem") : NULL,
            .verify_peer = with & VERIFY_PEER,
            .psk = with & WITH_PSK ? pki_path(pki, "keys.psk") : NULL,
        };
        struct error err = ERROR_INIT;
        struct nbd_tls *tls = NULL;

        if (nbd_tls_new(&o, &tls, &err) < 0)
                fail_msg("%s", err.message);
        return tls;
}

static struct fixture *start_with(enum nbd_tls_mode mode, unsigned with,
                                  struct nbd_server_options options)
{
        options.tls_mode = mode;
        options.tls = credentials(with);
        struct fixture *f = fixture_start(&options);
        nbd_tls_unref(options.tls); /* the server has its own */
        return f;
}

static struct fixture *start(enum nbd_tls_mode mode, unsigned with)
{
        return start_with(mode, with, (struct nbd_server_options){0});
}

static struct wire *greeted(struct fixture *f)
{
        struct wire *w = wire_connect(fixture_path(f));

        wire_greet(w, NEWSTYLE);
        return w;
}

static const struct tls_client_options anonymous, alice = {.user = "alice"};

static struct tls_client *upgraded(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client_options o = *options;

        o.pki = pki;
        return tls_client_upgrade(greeted(f), &o);
}

static struct tls_client *opened(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client *c = upgraded(f, options);

        wire_structured(c->wire);
        wire_set_meta(c->wire, "vol");
        wire_go(c->wire, "vol", NULL, NULL);
        return c;
}

static void wait_left(struct fixture *f, unsigned n_clients)
{
        time_t end = time(NULL) + HANG_S;

        while (fixture_n_clients(f) > n_clients) {
                assert_true(time(NULL) < end);
                usleep(1000);
        }
}

static void wait_gone(struct fixture *f)
{
        wait_left(f, 0);
        assert_int_equal(fixture_n_open(f), 0);
}

static void expect_serving(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client *c = opened(f, options);

        wire_expect_alive(c->wire);
        tls_client_close(c);
}

/* The server does not take this client: at once, or at the first thing that it says. */
static void expect_refused(struct fixture *f, const struct tls_client_options *options)
{
        struct tls_client_options o = *options;
        struct tls_client *c;
        unsigned asked = fixture_n_asked(f), others = fixture_n_clients(f);
        struct wire *w = greeted(f);

        o.pki = pki;
        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        if (tls_client_start(w, &o, &c) == 0) {
                wire_try_send(w, "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0", 22); /* GO */
                wire_expect_closed(w);
                assert_false(c->at_end); /* an alert, not a polite end */
        }
        tls_client_close(c);
        wait_left(f, others);
        assert_int_equal(fixture_n_asked(f), asked);
}

/* ---- STARTTLS ---- */

static void starttls_forgets_structured_replies_and_contexts(void **state)
{
        struct fixture *f = start(NBD_TLS_ALLOW, 0);
        struct wire *w = greeted(f);
        static const char *const queries[] = {"base:allocation", NULL};
        uint8_t data[256];

        wire_structured(w);
        wire_set_meta(w, "vol");
        struct tls_client *c = tls_client_upgrade(w, &anonymous);
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
        struct fixture *f = start(NBD_TLS_ALLOW, 0);
        struct wire *w = greeted(f);
        uint8_t data[512];

        wire_structured(w);
        struct tls_client *c = tls_client_upgrade(w, &anonymous);
        wire_go(w, "vol", NULL, NULL);
        assert_int_equal(wire_read(w, 0, 0, data, sizeof(data)), 0); /* checks which kind it is */
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void starttls_forgets_extended_headers_and_they_work_through_tls(void **state)
{
        struct fixture *f = start(NBD_TLS_ALLOW, 0);

        for (unsigned again = 0; again < 2; again++) {
                struct wire *w = greeted(f);
                uint8_t data[512];
                wire_extended(w);
                struct tls_client *c = tls_client_upgrade(w, &anonymous);
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
        struct fixture *f = start(NBD_TLS_ALLOW, 0);
        struct wire *w = greeted(f);

        /* in one segment: STARTTLS, and a GO that an attacker put behind it */
        wire_send(w,
                  "IHAVEOPT\0\0\0\5\0\0\0\0"
                  "IHAVEOPT\0\0\0\7\0\0\0\11\0\0\0\3vol\0\0",
                  16 + 25);
        wire_expect_closed(w);
        wire_close(w);
        wait_gone(f);
        assert_int_equal(fixture_n_asked(f), 0);
        fixture_stop(f, 5000);
}

static void plain_text_in_place_of_a_handshake_is_not_interpreted(void **state)
{
        struct fixture *f = start(NBD_TLS_ALLOW, 0);
        struct wire *w = greeted(f);

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        wire_send(w, "IHAVEOPT\0\0\0\7\0\0\0\11\0\0\0\3vol\0\0", 25);
        wire_drain(w); /* an alert */
        wire_close(w);
        wait_gone(f);
        assert_int_equal(fixture_n_asked(f), 0);
        fixture_stop(f, 5000);
}

static void a_second_starttls_is_invalid(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = upgraded(f, &anonymous);

        assert_int_equal(wire_ask(c->wire, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_INVALID);
        wire_go(c->wire, "vol", NULL, NULL);
        wire_expect_alive(c->wire);
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void starttls_with_data_is_invalid(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct wire *w = greeted(f);

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, "x", 1), NBD_REP_ERR_INVALID);
        tls_client_close(tls_client_upgrade(w, &anonymous));
        fixture_stop(f, 5000);
}

/* ---- who needs it ---- */

static void where_required_every_option_but_starttls_and_abort_gets_tls_reqd(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct wire *w = greeted(f);
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
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct wire *w = greeted(f);

        wire_option(w, NBD_OPT_EXPORT_NAME, "vol", 3);
        wire_expect_closed(w);
        wire_close(w);
        assert_int_equal(fixture_n_asked(f), 0);
        fixture_stop(f, 5000);
}

static void where_allowed_plain_clients_are_served_too(void **state)
{
        struct fixture *f = start(NBD_TLS_ALLOW, 0);
        struct wire *w = wire_open(fixture_path(f), "vol", true);

        wire_expect_alive(w);
        assert_string_equal(fixture_identity(f, 0), "");
        expect_serving(f, &anonymous);
        wire_close(w);
        fixture_stop(f, 5000);
}

static void required_on_the_network_it_is_offered_on_unix_sockets(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE_NETWORK, 0);
        struct wire *local = wire_open(fixture_path(f), "vol", true);
        struct wire *remote = wire_connect_tcp(fixture_port(f));

        wire_expect_alive(local);
        wire_greet(remote, NEWSTYLE);
        assert_int_equal(wire_ask(remote, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ERR_TLS_REQD);
        struct tls_client *c = tls_client_upgrade(remote, &anonymous);
        wire_go(remote, "vol", NULL, NULL);
        wire_expect_alive(remote);
        expect_serving(f, &anonymous);
        tls_client_close(c);
        wire_close(local);
        fixture_stop(f, 5000);
}

static void export_name_works_through_tls(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = upgraded(f, &anonymous);
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
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        static const uint8_t bobs[32] = {0};

        expect_serving(f, &alice);
        assert_string_equal(fixture_identity(f, 0), "psk:alice");
        assert_string_equal(fixture_identity(f, 1), "");
        expect_serving(f, &anonymous); /* by the certificate, which asks nothing of clients */
        assert_string_equal(fixture_identity(f, 0), "");
        expect_refused(f, &(struct tls_client_options){.user = "alice", .key = bobs});
        expect_refused(f, &(struct tls_client_options){.user = "mallory"});
        expect_refused(
            f, &(struct tls_client_options){.user = "alice", .key = bobs, .priority = TLS12});
        expect_refused(f, &(struct tls_client_options){.user = "mallory", .priority = TLS12});
        expect_serving(f, &(struct tls_client_options){.user = "alice", .priority = TLS12});
        assert_string_equal(fixture_identity(f, 0), "psk:alice");
        fixture_stop(f, 5000);
}

static void a_certificate_names_its_owner(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, VERIFY_PEER);

        for (unsigned i = 0; i < 2; i++) {
                expect_serving(f, &(struct tls_client_options){.certificate = "client",
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
                struct fixture *f = start(NBD_TLS_REQUIRE, i ? VERIFY_PEER : WITH_CA);
                for (unsigned j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
                        expect_refused(f, &(struct tls_client_options){.certificate = bad[j],
                                                                       .priority = TLS13});
                        expect_refused(f, &(struct tls_client_options){.certificate = bad[j],
                                                                       .priority = TLS12});
                }
                expect_serving(f, &(struct tls_client_options){.certificate = "client"});
                expect_serving(f, &(struct tls_client_options){.certificate = "for-clients"});
                fixture_stop(f, 5000);
        }
}

static void without_a_certificate_only_who_must_have_one_is_refused(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_CA);

        expect_serving(f, &anonymous);
        assert_string_equal(fixture_identity(f, 0), "");
        fixture_stop(f, 5000);
        f = start(NBD_TLS_REQUIRE, VERIFY_PEER | WITH_PSK);
        expect_refused(f, &(struct tls_client_options){.priority = TLS12});
        expect_refused(f, &(struct tls_client_options){.priority = TLS13});
        expect_serving(f, &alice); /* a key is as good as a certificate */
        fixture_stop(f, 5000);
}

static void what_is_older_than_tls_1_2_is_refused(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);

        expect_refused(f, &(struct tls_client_options){
                              .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT"});
        /* and what has no forward secrecy */
        expect_refused(
            f, &(struct tls_client_options){.user = "alice", .priority = TLS12 ":-KX-ALL:+PSK"});
        fixture_stop(f, 5000);
}

static void new_credentials_are_for_new_connections(void **state)
{
        struct nbd_tls_options o = {.psk = pki_path(pki, "keys.psk")};
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *old = opened(f, &anonymous);
        struct nbd_tls *tls = NULL;

        assert_int_equal(nbd_tls_new(&o, &tls, NULL), 0);
        nbd_server_set_tls(fixture_server(f), tls); /* nobody connects at this moment */
        nbd_tls_unref(tls);
        expect_refused(f, &anonymous);
        wire_expect_alive(old->wire);
        tls_client_close(old);
        expect_serving(f, &alice);
        fixture_stop(f, 5000);
}

/* ---- requests ---- */

static const struct tls_client_options flavours[] = {
    {.priority = TLS13},
    {.priority = TLS12},
    {.priority = TLS13, .user = "alice"},
    {.priority = TLS12, .user = "alice"},
    {.priority = TLS12 ":-CIPHER-ALL:+CHACHA20-POLY1305"},
    {.priority = TLS13, .record_bytes = 600},
    {.priority = TLS12, .record_bytes = 512},
};
#define N_FLAVOURS (sizeof(flavours) / sizeof(flavours[0]))

static void fill(uint8_t *data, size_t length, unsigned seed)
{
        for (size_t i = 0; i < length; i++)
                data[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static void requests_of_any_length_go_through(void **state)
{
        static const uint32_t lengths[] = {1,      2,          511,   4096,    16383,
                                           16384,  16385,      65535, 65536,   65537,
                                           131072, 262144 + 5, MIB,   5000000, 8 * MIB};
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        uint8_t *data = malloc(8 * MIB), *back = malloc(8 * MIB);

        for (unsigned i = 0; i < N_FLAVOURS; i++) {
                struct tls_client *c = opened(f, &flavours[i]);
                for (unsigned j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
                        uint64_t offset = 12345 * j;
                        fill(data, lengths[j], i + j);
                        wire_write(c->wire, 0, j, offset, data, lengths[j]);
                        assert_int_equal(wire_result(c->wire, j), 0);
                        assert_int_equal(wire_read(c->wire, 0, offset, back, lengths[j]), 0);
                        assert_memory_equal(data, back, lengths[j]);
                }
                tls_client_close(c);
        }
        fixture_stop(f, 5000);
        free(data);
        free(back);
}

static void many_requests_in_flight_go_through(void **state)
{
        enum { N = 500, LENGTH = 5000 };
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        uint8_t data[LENGTH], back[LENGTH];

        for (unsigned i = 0; i < N_FLAVOURS; i++) {
                struct tls_client *c = opened(f, &flavours[i]);
                for (unsigned j = 0; j < N; j++) {
                        fill(data, LENGTH, j);
                        wire_write(c->wire, 0, j, j * LENGTH, data, LENGTH);
                        if (j >= 100)
                                assert_int_equal(wire_result(c->wire, j - 100), 0);
                }
                for (unsigned j = N - 100; j < N; j++)
                        assert_int_equal(wire_result(c->wire, j), 0);
                for (unsigned j = 0; j < N; j++)
                        wire_request(c->wire, NBD_CMD_READ, 0, j, j * LENGTH, LENGTH);
                for (unsigned j = 0; j < N; j++) {
                        fill(data, LENGTH, j);
                        assert_int_equal(wire_read_result(c->wire, j, j * LENGTH, back, LENGTH), 0);
                        assert_memory_equal(data, back, LENGTH);
                }
                tls_client_close(c);
        }
        fixture_stop(f, 5000);
}

static void a_stream_that_comes_byte_by_byte_is_understood(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        struct tls_client_options o = {.user = "alice", .byte_by_byte = true};
        struct tls_client *c = opened(f, &o);
        uint8_t data[3000], back[3000];

        fill(data, sizeof(data), 1);
        wire_write(c->wire, 0, 1, 100, data, sizeof(data));
        assert_int_equal(wire_result(c->wire, 1), 0);
        assert_int_equal(wire_read(c->wire, 0, 100, back, sizeof(back)), 0);
        assert_memory_equal(data, back, sizeof(data));
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void a_refused_write_is_taken_off_the_wire_through_tls(void **state)
{
        static const uint32_t lengths[] = {1, 4096, 65536, 65537, MIB, 32 * MIB};
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        uint8_t *data = calloc(1, 32 * MIB);

        for (unsigned i = 0; i < N_FLAVOURS; i++) {
                struct tls_client *c = upgraded(f, &flavours[i]);
                wire_go(c->wire, "pool/vol@snap", NULL, NULL);
                for (unsigned j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
                        wire_write(c->wire, 0, j, 0, data, lengths[j]);
                        assert_int_equal(wire_result(c->wire, j), NBD_EPERM);
                        wire_expect_alive(c->wire);
                }
                tls_client_close(c);
        }
        assert_int_equal(fake_counts(fixture_snapshot(f)).submitted[VOLUME_WRITE], 0);
        fixture_stop(f, 5000);
        free(data);
}

/* libnbd takes no reply to a request that it is still sending: in plain text and through TLS. */
static void a_refused_write_is_answered_when_its_payload_is_off_the_wire(void **state)
{
        struct fixture *f = start(NBD_TLS_ALLOW, WITH_PSK);
        uint8_t *data = calloc(1, MIB);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = i ? opened(f, &alice) : NULL;
                struct wire *w = i ? c->wire : wire_open(fixture_path(f), "vol", true);
                wire_request(w, NBD_CMD_WRITE, 0, 1, VOL_BYTES - 1, MIB);
                wire_send(w, data, MIB - 1);
                for (unsigned tries = 0; wire_unsent(w) > 0; tries++) {
                        assert_true(tries < HANG_S * 1000);
                        usleep(1000);
                }
                fixture_n_clients(f);
                assert_false(wire_pending(w));
                wire_send(w, data, 1);
                assert_int_equal(wire_result(w, 1), NBD_ENOSPC);
                wire_expect_alive(w);
                wire_request(w, NBD_CMD_WRITE, 0, 1, VOL_BYTES - 1, MIB);
                if (c) /* vanishing meanwhile */
                        tls_client_close(c);
                else
                        wire_close(w);
                wait_gone(f);
        }
        fixture_stop(f, 5000);
        free(data);
}

static void keys_may_be_updated_at_any_time(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        struct tls_client *c = opened(f, &flavours[0]);
        uint8_t data[70000];

        for (unsigned i = 0; i < 6; i++) {
                wire_request(c->wire, NBD_CMD_READ, 0, i, 0, sizeof(data));
                assert_int_equal(gnutls_session_key_update(c->session, i % 2 ? GNUTLS_KU_PEER : 0),
                                 0);
                assert_int_equal(wire_read_result(c->wire, i, 0, data, sizeof(data)), 0);
                wire_expect_alive(c->wire);
        }
        tls_client_close(c);
        fixture_stop(f, 5000);
}

/* ---- bounds ---- */

static void a_client_that_does_not_read_is_bounded_and_holds_up_nobody(void **state)
{
        enum { N = 150 };
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        struct tls_client *slow = opened(f, &alice), *other = opened(f, &anonymous);
        struct volume *volume = fixture_volume(f);
        uint8_t *data = malloc(MIB);

        for (uint64_t cookie = 0; cookie < N; cookie++)
                wire_request(slow->wire, NBD_CMD_READ, 0, cookie, 0, MIB);
        while (fake_counts(volume).submitted[VOLUME_READ] < 64)
                wire_expect_alive(other->wire);
        for (unsigned i = 0; i < 200; i++)
                wire_expect_alive(other->wire);
        /* 64 MiB, and what the socket has taken */
        assert_true(fake_counts(volume).submitted[VOLUME_READ] < 80);
        for (uint64_t cookie = 0; cookie < N; cookie++)
                assert_int_equal(wire_read_result(slow->wire, cookie, 0, data, MIB), 0);
        tls_client_close(slow);
        tls_client_close(other);
        fixture_stop(f, 5000);
        free(data);
}

static void the_deadline_covers_the_tls_handshake(void **state)
{
        struct fixture *f = start_with(NBD_TLS_REQUIRE, 0,
                                       (struct nbd_server_options){.handshake_timeout_ms = 300});
        struct wire *w = greeted(f);

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        wire_send(w, "\x16\x03\x01", 3); /* the beginning of a record, and no more */
        wire_expect_closed(w);
        wire_close(w);
        struct tls_client *c = upgraded(f, &anonymous); /* and no option */
        wire_drain(c->wire);
        tls_client_close(c);
        wait_gone(f);
        fixture_stop(f, 5000);
}

static void idle_connections_go_on_when_their_memory_was_given_back(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = opened(f, &anonymous);
        uint8_t data[5000], back[5000];

        fill(data, sizeof(data), 3);
        for (unsigned i = 0; i < 2; i++) {
                wire_write(c->wire, 0, 1, 0, data, sizeof(data));
                assert_int_equal(wire_result(c->wire, 1), 0);
                assert_int_equal(wire_read(c->wire, 0, 0, back, sizeof(back)), 0);
                assert_memory_equal(data, back, sizeof(data));
                if (i == 0)
                        sleep(3); /* two ticks of a second: rule 10 of nbd-server/README.md */
        }
        tls_client_close(c);
        fixture_stop(f, 5000);
}

/* ---- ends ---- */

static void disc_finishes_what_is_in_flight_and_ends_tls_politely(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = opened(f, &flavours[i]);
                fake_hold(fixture_volume(f));
                wire_request(c->wire, NBD_CMD_FLUSH, 0, 1, 0, 0);
                wire_request(c->wire, NBD_CMD_DISC, 0, 2, 0, 0);
                fake_wait_held(fixture_volume(f), 1);
                fake_release_all(fixture_volume(f));
                assert_int_equal(wire_result(c->wire, 1), 0);
                wire_expect_closed(c->wire);
                assert_true(c->at_end);
                tls_client_close(c);
                wait_gone(f);
        }
        fixture_stop(f, 5000);
}

static void abort_ends_tls_politely(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = upgraded(f, &anonymous);

        assert_int_equal(wire_ask(c->wire, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
        wire_expect_closed(c->wire);
        assert_true(c->at_end);
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void close_notify_leaves_replies_to_be_sent(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        uint8_t *data = malloc(MIB);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = opened(f, &flavours[i]);
                fake_hold(fixture_volume(f));
                for (uint64_t cookie = 0; cookie < 5; cookie++)
                        wire_request(c->wire, NBD_CMD_READ, 0, cookie, 0, MIB);
                assert_int_equal(gnutls_bye(c->session, GNUTLS_SHUT_WR), 0);
                fake_wait_held(fixture_volume(f), 5);
                fake_release_all(fixture_volume(f));
                for (uint64_t cookie = 0; cookie < 5; cookie++)
                        assert_int_equal(wire_read_result(c->wire, cookie, 0, data, MIB), 0);
                wire_expect_closed(c->wire);
                assert_true(c->at_end);
                tls_client_close(c);
        }
        fixture_stop(f, 5000);
        free(data);
}

static void a_truncated_stream_is_an_abrupt_end(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = opened(f, &flavours[i]);
                fake_hold(fixture_volume(f));
                wire_request(c->wire, NBD_CMD_FLUSH, 0, 1, 0, 0);
                fake_wait_held(fixture_volume(f), 1);
                wire_shutdown_send(c->wire); /* of the socket: no close_notify */
                wire_expect_closed(c->wire); /* no reply: it may be another who cut the stream */
                assert_false(c->at_end);
                fake_release_all(fixture_volume(f));
                tls_client_close(c);
                wait_gone(f);
        }
        fixture_stop(f, 5000);
}

static void a_server_that_leaves_answers_what_has_begun_and_ends_tls_politely(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *idle = opened(f, &anonymous), *busy = opened(f, &anonymous);

        fake_hold(fixture_volume(f));
        wire_request(busy->wire, NBD_CMD_FLUSH, 0, 1, 0, 0);
        fake_wait_held(fixture_volume(f), 1);
        fixture_begin_leave(f, 20000);
        wire_expect_closed(idle->wire);
        assert_true(idle->at_end);
        wire_request(busy->wire, NBD_CMD_FLUSH, 0, 2, 0, 0);
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_result(busy->wire, 1), 0);
        wire_expect_closed(busy->wire);
        fixture_wait_stopped(f);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_FLUSH], 1);
        tls_client_close(idle);
        tls_client_close(busy);
        fixture_stop(f, 5000);
}

static void server_stop_answers_and_ends_tls_politely(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *idle = opened(f, &anonymous), *busy = opened(f, &anonymous),
                          *negotiating = upgraded(f, &anonymous);

        assert_int_equal(wire_ask(negotiating->wire, NBD_OPT_STRUCTURED_REPLY, NULL, 0),
                         NBD_REP_ACK);
        fake_hold(fixture_volume(f));
        wire_request(busy->wire, NBD_CMD_FLUSH, 0, 1, 0, 0);
        fake_wait_held(fixture_volume(f), 1);
        fixture_begin_stop(f, 20000);
        wire_expect_closed(idle->wire);
        assert_true(idle->at_end);
        wire_expect_closed(negotiating->wire);
        assert_true(negotiating->at_end);
        wire_request(busy->wire, NBD_CMD_FLUSH, 0, 2, 0, 0);
        assert_int_equal(wire_result(busy->wire, 2), NBD_ESHUTDOWN);
        fake_release_all(fixture_volume(f));
        assert_int_equal(wire_result(busy->wire, 1), 0);
        wire_expect_closed(busy->wire);
        assert_true(busy->at_end);
        fixture_wait_stopped(f);
        tls_client_close(idle);
        tls_client_close(busy);
        tls_client_close(negotiating);
        fixture_stop(f, 5000);
}

static void server_stop_does_not_wait_for_who_neither_reads_nor_shakes_hands(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *slow = opened(f, &anonymous);
        struct wire *w = greeted(f);

        for (uint64_t cookie = 0; cookie < 20; cookie++)
                wire_request(slow->wire, NBD_CMD_READ, 0, cookie, 0, 8 * MIB);
        while (fake_counts(fixture_volume(f)).submitted[VOLUME_READ] < 8)
                usleep(1000);
        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        wire_send(w, "\x16\x03\x01\x02", 4);
        fixture_stop(f, 300);
        tls_client_close(slow);
        wire_close(w);
}

static void a_client_may_vanish_at_any_time(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        uint8_t *data = calloc(1, MIB);

        for (unsigned i = 0; i < 5; i++) {
                struct tls_client *c = opened(f, &flavours[i % 2]);
                fake_hold(fixture_volume(f));
                if (i == 1) /* with requests at the engine */
                        wire_request(c->wire, NBD_CMD_READ, 0, 1, 0, MIB);
                if (i == 1)
                        fake_wait_held(fixture_volume(f), 1);
                if (i == 2) { /* in a payload */
                        wire_request(c->wire, NBD_CMD_WRITE, 0, 1, 0, 2 * MIB);
                        wire_send(c->wire, data, MIB);
                }
                if (i >= 3) { /* while replies are sent */
                        fake_release_all(fixture_volume(f));
                        for (uint64_t cookie = 0; cookie < 50; cookie++)
                                wire_request(c->wire, NBD_CMD_READ, 0, cookie, 0, MIB);
                        wire_receive(c->wire, data, 5000);
                }
                fixture_n_clients(f);
                tls_client_close(c);
                fake_release_all(fixture_volume(f));
                wait_gone(f);
        }
        fixture_stop(f, 5000);
        free(data);
}

/* ---- hostile streams ---- */

/* What a whole conversation sends, in bytes: beginning with the handshake. */
static size_t conversation(struct fixture *f, const struct tls_client_options *options,
                           size_t cut_at)
{
        struct tls_client_options o = *options;
        struct tls_client *c;
        struct wire *w = greeted(f);
        uint8_t data[5000] = {0};
        size_t sent;

        o.pki = pki;
        o.cut_at = cut_at;
        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        if (tls_client_start(w, &o, &c) == 0) {
                size_t length = wire_info_data(data, "vol", NULL, 0);
                be32 option_length = be32_make((uint32_t)length);
                if (wire_try_send(w, "IHAVEOPT\0\0\0\7", 12) &&
                    wire_try_send(w, &option_length, sizeof(option_length)) &&
                    wire_try_send(w, data, length) && cut_at == 0) {
                        wire_final(w, NBD_OPT_GO);
                        wire_write(w, 0, 1, 0, data, sizeof(data));
                        assert_int_equal(wire_result(w, 1), 0);
                }
        }
        if (c->was_cut) {
                w->layer = NULL;
                wire_drain(w); /* the server ends it, whatever the byte was */
        }
        sent = c->sent;
        tls_client_close(c);
        return sent;
}

static void a_conversation_may_be_cut_at_every_byte(void **state)
{
        static const struct tls_client_options kinds[] = {
            {.user = "alice", .priority = TLS13},
            {.certificate = "client", .priority = TLS13},
            {.certificate = "client", .priority = TLS12},
        };
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK | WITH_CA);

        for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                size_t length = conversation(f, &kinds[i], 0);
                /* every byte of one; of the others, where much arithmetic is done, some */
                for (size_t at = 1; at < length; at += i == 0 ? 1 : 11)
                        conversation(f, &kinds[i], at);
                expect_serving(f, &kinds[i]);
        }
        wait_gone(f);
        fixture_stop(f, 5000);
}

/* Bytes past TLS, straight to the socket; then the server ends the connection. */
static void expect_end_after(struct fixture *f, struct tls_client *c, const void *data,
                             size_t length)
{
        const struct wire_layer *layer = c->wire->layer;

        c->wire->layer = NULL;
        wire_try_send(c->wire, data, length);
        c->wire->layer = layer;
        wire_drain(c->wire);
        assert_false(c->at_end);
        tls_client_close(c);
        wait_gone(f);
}

static void rubbish_in_place_of_records_ends_the_connection(void **state)
{
        static const struct {
                const char *bytes;
                size_t length;
        } rubbish[] = {
            {"\x17\x03\x03\x00\x40"
             "0123456789012345678901234567890123456789012345678901234567890123",
             69},                                             /* no such record: does not decrypt */
            {"\x17\x03\x03\xff\xff", 5},                      /* longer than records may be */
            {"\x63\x03\x03\x00\x10", 5},                      /* no such type */
            {"IHAVEOPT\0\0\0\7\0\0\0\11\0\0\0\3vol\0\0", 25}, /* plain text */
            {"\x15\x03\x03\x00\x02\x02\x28", 7},              /* an alert that is not encrypted */
        };
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);

        for (unsigned i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
                for (unsigned j = 0; j < 2; j++) {
                        /* while it negotiates, and while requests are served */
                        expect_end_after(f, upgraded(f, &flavours[j]), rubbish[i].bytes,
                                         rubbish[i].length);
                        expect_end_after(f, opened(f, &flavours[j]), rubbish[i].bytes,
                                         rubbish[i].length);
                }
        }
        expect_serving(f, &anonymous);
        fixture_stop(f, 5000);
}

static void rubbish_in_place_of_a_handshake_ends_the_connection(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, WITH_PSK);
        unsigned seed = 20261128;

        for (unsigned i = 0; i < 300; i++) {
                struct wire *w = greeted(f);
                uint8_t data[600];
                for (size_t j = 0; j < sizeof(data); j++)
                        data[j] = (uint8_t)rand_r(&seed);
                if (i % 3) /* what looks like the beginning of one */
                        memcpy(data, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
                assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
                wire_try_send(w, data, sizeof(data));
                wire_shutdown_send(w);
                wire_drain(w);
                wire_close(w);
        }
        wait_gone(f);
        assert_int_equal(fixture_n_asked(f), 0);
        expect_serving(f, &alice);
        fixture_stop(f, 5000);
}

static void renegotiation_is_refused(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = opened(f, &flavours[1]);
        int r;

        do {
                r = gnutls_handshake(c->session);
        } while (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED);
        assert_true(r < 0);
        tls_client_close(c);
        wait_gone(f);
        fixture_stop(f, 5000);
}

static void floods_of_key_updates_end_the_connection(void **state)
{
        struct fixture *f = start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = opened(f, &flavours[0]);

        for (unsigned i = 0; i < 10000; i++)
                if (gnutls_session_key_update(c->session, GNUTLS_KU_PEER) < 0)
                        break;
        wire_drain(c->wire);
        tls_client_close(c);
        wait_gone(f);
        expect_serving(f, &anonymous);
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
                        *paths[i] = pki_path(pki, *paths[i]);
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
        struct nbd_tls_options o = {.psk = pki_path(pki, "bad.psk")};
        struct mistake m = {.options = {.psk = "bad.psk"}, .error = -EINVAL};
        char longer[512];

        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                pki_write(pki, "bad.psk", bad[i].text, strlen(bad[i].text));
                m.sentence = bad[i].sentence;
                expect_mistake(&m);
        }
        pki_write(pki, "bad.psk", "\0\0", 2);
        m.sentence = "is not text";
        expect_mistake(&m);
        snprintf(longer, sizeof(longer), "%0128d%s", 0, good);
        pki_write(pki, "bad.psk", longer, strlen(longer));
        m.sentence = "name is longer than 127";
        expect_mistake(&m);
        struct nbd_tls *tls = NULL;
        pki_write(pki, "bad.psk", good, strlen(good));
        o.psk = pki_path(pki, "bad.psk");
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
            cmocka_unit_test(where_allowed_plain_clients_are_served_too),
            cmocka_unit_test(required_on_the_network_it_is_offered_on_unix_sockets),
            cmocka_unit_test(export_name_works_through_tls),
            cmocka_unit_test(a_key_names_its_user),
            cmocka_unit_test(a_certificate_names_its_owner),
            cmocka_unit_test(a_bad_certificate_is_refused_where_one_is_required_or_not),
            cmocka_unit_test(without_a_certificate_only_who_must_have_one_is_refused),
            cmocka_unit_test(what_is_older_than_tls_1_2_is_refused),
            cmocka_unit_test(new_credentials_are_for_new_connections),
            cmocka_unit_test(requests_of_any_length_go_through),
            cmocka_unit_test(many_requests_in_flight_go_through),
            cmocka_unit_test(a_stream_that_comes_byte_by_byte_is_understood),
            cmocka_unit_test(a_refused_write_is_taken_off_the_wire_through_tls),
            cmocka_unit_test(a_refused_write_is_answered_when_its_payload_is_off_the_wire),
            cmocka_unit_test(keys_may_be_updated_at_any_time),
            cmocka_unit_test(a_client_that_does_not_read_is_bounded_and_holds_up_nobody),
            cmocka_unit_test(the_deadline_covers_the_tls_handshake),
            cmocka_unit_test(idle_connections_go_on_when_their_memory_was_given_back),
            cmocka_unit_test(disc_finishes_what_is_in_flight_and_ends_tls_politely),
            cmocka_unit_test(abort_ends_tls_politely),
            cmocka_unit_test(close_notify_leaves_replies_to_be_sent),
            cmocka_unit_test(a_truncated_stream_is_an_abrupt_end),
            cmocka_unit_test(a_server_that_leaves_answers_what_has_begun_and_ends_tls_politely),
            cmocka_unit_test(server_stop_answers_and_ends_tls_politely),
            cmocka_unit_test(server_stop_does_not_wait_for_who_neither_reads_nor_shakes_hands),
            cmocka_unit_test(a_client_may_vanish_at_any_time),
            cmocka_unit_test(a_conversation_may_be_cut_at_every_byte),
            cmocka_unit_test(rubbish_in_place_of_records_ends_the_connection),
            cmocka_unit_test(rubbish_in_place_of_a_handshake_ends_the_connection),
            cmocka_unit_test(renegotiation_is_refused),
            cmocka_unit_test(floods_of_key_updates_end_the_connection),
            cmocka_unit_test(each_mistake_with_certificates_has_its_sentence),
            cmocka_unit_test(each_mistake_with_keys_has_its_line),
        };
        return cmocka_run_group_tests(tests, make_pki, drop_pki);
}
