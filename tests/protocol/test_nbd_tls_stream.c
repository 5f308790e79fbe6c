/* test_nbd_tls_stream.c - what goes through TLS, at wire level: rules 12 and 20 of NBD's, bounds, ends,
 * and what a peer may do to a stream that is encrypted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/tls_fixture.h"

#define MIB   (1u << 20)
#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK"
#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK"

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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        uint8_t *data = malloc(8 * MIB), *back = malloc(8 * MIB);

        for (unsigned i = 0; i < N_FLAVOURS; i++) {
                struct tls_client *c = tls_opened(f, &flavours[i]);
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        uint8_t data[LENGTH], back[LENGTH];

        for (unsigned i = 0; i < N_FLAVOURS; i++) {
                struct tls_client *c = tls_opened(f, &flavours[i]);
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
        /* Thousands of calls, each of which may have to wait for a processor: it takes as long as it takes. */
        struct nbd_server_options patient = {.handshake_timeout_ms = HANG_S * 1000};
        struct fixture *f = tls_start_with(NBD_TLS_REQUIRE, WITH_PSK, patient);
        struct tls_client_options o = {.user = "alice", .byte_by_byte = true};
        struct tls_client *c = tls_opened(f, &o);
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        uint8_t *data = calloc(1, 32 * MIB);

        for (unsigned i = 0; i < N_FLAVOURS; i++) {
                struct tls_client *c = tls_upgraded(f, &flavours[i]);
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
        struct fixture *f = tls_start(NBD_TLS_ALLOW, WITH_PSK);
        uint8_t *data = calloc(1, MIB);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = i ? tls_opened(f, &tls_alice) : NULL;
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
                fixture_wait_gone(f);
        }
        fixture_stop(f, 5000);
        free(data);
}

static void keys_may_be_updated_at_any_time(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        struct tls_client *c = tls_opened(f, &flavours[0]);
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        struct tls_client *slow = tls_opened(f, &tls_alice), *other = tls_opened(f, &tls_anonymous);
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
        struct fixture *f = tls_start_with(
            NBD_TLS_REQUIRE, 0, (struct nbd_server_options){.handshake_timeout_ms = 300});
        struct wire *w = wire_greeted(fixture_path(f));

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        wire_send(w, "\x16\x03\x01", 3); /* the beginning of a record, and no more */
        wire_expect_closed(w);
        wire_close(w);
        struct tls_client *c = tls_upgraded(f, &tls_anonymous); /* and no option */
        wire_drain(c->wire);
        tls_client_close(c);
        fixture_wait_gone(f);
        fixture_stop(f, 5000);
}

static void idle_connections_go_on_when_their_memory_was_given_back(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = tls_opened(f, &tls_anonymous);
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = tls_opened(f, &flavours[i]);
                fake_hold(fixture_volume(f));
                wire_request(c->wire, NBD_CMD_FLUSH, 0, 1, 0, 0);
                wire_request(c->wire, NBD_CMD_DISC, 0, 2, 0, 0);
                fake_wait_held(fixture_volume(f), 1);
                fake_release_all(fixture_volume(f));
                assert_int_equal(wire_result(c->wire, 1), 0);
                wire_expect_closed(c->wire);
                assert_true(c->at_end);
                tls_client_close(c);
                fixture_wait_gone(f);
        }
        fixture_stop(f, 5000);
}

static void abort_ends_tls_politely(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = tls_upgraded(f, &tls_anonymous);

        assert_int_equal(wire_ask(c->wire, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
        wire_expect_closed(c->wire);
        assert_true(c->at_end);
        tls_client_close(c);
        fixture_stop(f, 5000);
}

static void close_notify_leaves_replies_to_be_sent(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        uint8_t *data = malloc(MIB);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = tls_opened(f, &flavours[i]);
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);

        for (unsigned i = 0; i < 2; i++) {
                struct tls_client *c = tls_opened(f, &flavours[i]);
                fake_hold(fixture_volume(f));
                wire_request(c->wire, NBD_CMD_FLUSH, 0, 1, 0, 0);
                fake_wait_held(fixture_volume(f), 1);
                wire_shutdown_send(c->wire); /* of the socket: no close_notify */
                wire_expect_closed(c->wire); /* no reply: it may be another who cut the stream */
                assert_false(c->at_end);
                fake_release_all(fixture_volume(f));
                tls_client_close(c);
                fixture_wait_gone(f);
        }
        fixture_stop(f, 5000);
}

static void a_server_that_leaves_answers_what_has_begun_and_ends_tls_politely(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *idle = tls_opened(f, &tls_anonymous),
                          *busy = tls_opened(f, &tls_anonymous);

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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *idle = tls_opened(f, &tls_anonymous),
                          *busy = tls_opened(f, &tls_anonymous),
                          *negotiating = tls_upgraded(f, &tls_anonymous);

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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *slow = tls_opened(f, &tls_anonymous);
        struct wire *w = wire_greeted(fixture_path(f));

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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        uint8_t *data = calloc(1, MIB);

        for (unsigned i = 0; i < 5; i++) {
                struct tls_client *c = tls_opened(f, &flavours[i % 2]);
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
                fixture_wait_gone(f);
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
        struct wire *w = wire_greeted(fixture_path(f));
        uint8_t data[5000] = {0};
        size_t sent;

        o.pki = tls_pki;
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK | WITH_CA);

        for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                size_t length = conversation(f, &kinds[i], 0);
                /* every byte of one; of the others, where much arithmetic is done, some */
                for (size_t at = 1; at < length; at += i == 0 ? 1 : 11)
                        conversation(f, &kinds[i], at);
                tls_expect_serving(f, &kinds[i]);
        }
        fixture_wait_gone(f);
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
        fixture_wait_gone(f);
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
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);

        for (unsigned i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
                for (unsigned j = 0; j < 2; j++) {
                        /* while it negotiates, and while requests are served */
                        expect_end_after(f, tls_upgraded(f, &flavours[j]), rubbish[i].bytes,
                                         rubbish[i].length);
                        expect_end_after(f, tls_opened(f, &flavours[j]), rubbish[i].bytes,
                                         rubbish[i].length);
                }
        }
        tls_expect_serving(f, &tls_anonymous);
        fixture_stop(f, 5000);
}

static void rubbish_in_place_of_a_handshake_ends_the_connection(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, WITH_PSK);
        unsigned seed = 20261128;

        for (unsigned i = 0; i < 300; i++) {
                struct wire *w = wire_greeted(fixture_path(f));
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
        fixture_wait_gone(f);
        assert_int_equal(fixture_n_asked(f), 0);
        tls_expect_serving(f, &tls_alice);
        fixture_stop(f, 5000);
}

static void renegotiation_is_refused(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = tls_opened(f, &flavours[1]);
        int r;

        do {
                r = gnutls_handshake(c->session);
        } while (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED);
        assert_true(r < 0);
        tls_client_close(c);
        fixture_wait_gone(f);
        fixture_stop(f, 5000);
}

static void floods_of_key_updates_end_the_connection(void **state)
{
        struct fixture *f = tls_start(NBD_TLS_REQUIRE, 0);
        struct tls_client *c = tls_opened(f, &flavours[0]);

        for (unsigned i = 0; i < 10000; i++)
                if (gnutls_session_key_update(c->session, GNUTLS_KU_PEER) < 0)
                        break;
        wire_drain(c->wire);
        tls_client_close(c);
        fixture_wait_gone(f);
        tls_expect_serving(f, &tls_anonymous);
        fixture_stop(f, 5000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
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
        };
        return cmocka_run_group_tests_name("nbd TLS stream", tests, tls_make_pki, tls_drop_pki);
}
