/* test_nbd_handshake.c - negotiation, at wire level: what is offered, what is refused, what is
 * bounded. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/fixture.h"
#include "tests/protocol/wire.h"

#define NEWSTYLE (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

static void expect_negotiating(struct wire *w)
{
        assert_int_equal(wire_ask(w, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
}

static void unknown_client_flags_drop_the_connection(void **state)
{
        struct wire *w = wire_connect(fixture_path(*state));

        wire_greet(w, NEWSTYLE | 4);
        wire_try_send(w, "IHAVEOPT\0\0\0\10\0\0\0\0", 16); /* a good option: it gets no reply */
        wire_expect_closed(w);
        wire_close(w);
}

static void what_is_no_option_drops_the_connection(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_send(w, "IHAVEOPX\0\0\0\1\0\0\0\0", 16);
        wire_expect_closed(w);
        wire_close(w);
}

static void an_unknown_option_is_refused_after_its_payload_is_taken(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        static const uint8_t data[5000];

        assert_int_equal(wire_ask(w, 77, data, sizeof(data)), NBD_REP_ERR_UNSUP);
        assert_int_equal(wire_ask(w, 0, NULL, 0), NBD_REP_ERR_UNSUP);
        assert_int_equal(wire_ask(w, 0xffffffff, "x", 1), NBD_REP_ERR_UNSUP);
        assert_int_equal(wire_ask(w, NBD_OPT_PEEK_EXPORT, NULL, 0), NBD_REP_ERR_UNSUP);
        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_UNSUP);
        expect_negotiating(w);
        wire_close(w);
}

static void an_option_of_64_kib_is_taken_and_a_longer_one_ends_the_connection(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t *data = calloc(1, 65537);
        struct nbd_option header = {be64_make(NBD_OPTION_MAGIC), be32_make(77), be32_make(65537)};

        assert_int_equal(wire_ask(w, 77, data, 65536), NBD_REP_ERR_UNSUP);
        wire_send(w, &header, sizeof(header));
        wire_try_send(w, data, 65537);
        wire_expect_closed(w);
        wire_close(w);
        free(data);
}

static void the_65th_option_ends_the_connection(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        for (unsigned i = 0; i < 64; i++)
                assert_int_equal(wire_ask(w, 77, NULL, 0), NBD_REP_ERR_UNSUP);
        wire_option(w, 77, NULL, 0);
        wire_expect_closed(w);
        wire_close(w);
}

static void abort_is_acknowledged_and_the_connection_closed(void **state)
{
        for (size_t length = 0; length < 8; length += 7) { /* data are ignored */
                struct wire *w = wire_greeted(fixture_path(*state));
                assert_int_equal(wire_ask(w, NBD_OPT_ABORT, "garbage", length), NBD_REP_ACK);
                wire_expect_closed(w);
                wire_close(w);
        }
}

/* ---- export names ---- */

static void ask_name(struct fixture *f, const char *name, size_t length, uint32_t expected)
{
        struct wire *w = wire_greeted(fixture_path(f));
        uint8_t data[6000];
        struct wire_reply reply;
        be32 wire_length = be32_make((uint32_t)length);

        memcpy(data, &wire_length, 4);
        memcpy(data + 4, name, length);
        memset(data + 4 + length, 0, 2);
        wire_option(w, NBD_OPT_INFO, data, length + 6);
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.type, expected);
        assert_true(reply.length <= NBD_STRING_MAX);
        expect_negotiating(w);
        wire_close(w);
}

static void names_are_bounded_at_4096_bytes_and_hold_no_nul(void **state)
{
        char name[4097];

        memset(name, 'n', sizeof(name));
        ask_name(*state, name, 4096, NBD_REP_ERR_UNKNOWN);
        ask_name(*state, name, 4097, NBD_REP_ERR_TOO_BIG);
        ask_name(*state, "vol\0x", 5, NBD_REP_ERR_INVALID);
        ask_name(*state, "vo\0", 3, NBD_REP_ERR_INVALID);
        ask_name(*state, "%s%n", 4, NBD_REP_ERR_UNKNOWN);
}

static void a_name_that_is_echoed_is_printable(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        struct wire_reply reply;
        uint8_t data[1000];
        char name[800];

        memset(name, 0xc3, sizeof(name)); /* the first byte of two, over and over: no UTF-8 */
        memcpy(name, "\x1b[2J\n", 5);
        name[799] = 0;
        wire_option(w, NBD_OPT_INFO, data, wire_info_data(data, name, NULL, 0));
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.type, NBD_REP_ERR_UNKNOWN);
        assert_non_null(strstr((char *)reply.data, "?[2J?"));
        for (unsigned i = 0; i < reply.length; i++)
                assert_in_range(reply.data[i], ' ', '~');
        wire_close(w);
}

static void a_name_that_is_echoed_is_cut(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        struct wire_reply reply;
        uint8_t data[5000];
        char name[4097];

        memset(name, 'n', 4096);
        name[4096] = 0;
        wire_option(w, NBD_OPT_INFO, data, wire_info_data(data, name, NULL, 0));
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.type, NBD_REP_ERR_UNKNOWN);
        assert_non_null(strstr((char *)reply.data, "nnnn"));
        assert_true(reply.length < 600);
        wire_close(w);
}

static void a_long_name_in_export_name_closes(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        char name[4097];

        memset(name, 'n', sizeof(name));
        wire_option(w, NBD_OPT_EXPORT_NAME, name, sizeof(name));
        wire_expect_closed(w);
        wire_close(w);
}

static void an_unknown_export_is_told_apart_from_a_forbidden_one(void **state)
{
        ask_name(*state, "nosuch", 6, NBD_REP_ERR_UNKNOWN);
        ask_name(*state, "secret", 6, NBD_REP_ERR_POLICY);
        assert_int_equal(fixture_n_open(*state), 0);
}

static void export_name_pads_with_124_zeroes_unless_agreed_otherwise(void **state)
{
        uint8_t reply[134];

        for (unsigned no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
                struct wire *w = wire_connect(fixture_path(*state));
                wire_greet(w, no_zeroes ? NEWSTYLE : NBD_FLAG_FIXED_NEWSTYLE);
                wire_option(w, NBD_OPT_EXPORT_NAME, "vol", 3);
                wire_receive(w, reply, no_zeroes ? 10 : 134);
                for (unsigned i = 10; i < 134 && !no_zeroes; i++)
                        assert_int_equal(reply[i], 0);
                be64 size;
                memcpy(&size, reply, sizeof(size));
                assert_true(be64_get(size) == VOL_BYTES);
                wire_expect_alive(w);
                wire_close(w);
        }
}

static void export_name_of_an_unknown_export_closes(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_option(w, NBD_OPT_EXPORT_NAME, "nosuch", 6);
        wire_expect_closed(w);
        wire_close(w);
}

/* ---- INFO and GO ---- */

static void info_of_a_wrong_length_is_invalid(void **state)
{
        static const uint16_t requests[] = {NBD_INFO_NAME, NBD_INFO_BLOCK_SIZE};
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[64] = {0};
        size_t length = wire_info_data(data, "vol", requests, 2);

        for (size_t cut = 0; cut < length; cut++)
                assert_int_equal(wire_ask(w, cut % 2 ? NBD_OPT_INFO : NBD_OPT_GO, data, cut),
                                 NBD_REP_ERR_INVALID);
        assert_int_equal(wire_ask(w, NBD_OPT_GO, data, length + 1), NBD_REP_ERR_INVALID);
        assert_int_equal(wire_ask(w, NBD_OPT_GO, data, length + 2), NBD_REP_ERR_INVALID);
        be32 huge = be32_make(0xffffffff);
        memcpy(data, &huge, sizeof(huge));
        assert_int_equal(wire_ask(w, NBD_OPT_GO, data, length), NBD_REP_ERR_INVALID);
        expect_negotiating(w);
        wire_close(w);
}

static void info_gives_the_export_always_and_the_rest_when_asked(void **state)
{
        static const uint16_t all[] = {NBD_INFO_DESCRIPTION, 999, NBD_INFO_BLOCK_SIZE,
                                       NBD_INFO_NAME, NBD_INFO_BLOCK_SIZE};
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[64];
        struct wire_reply reply;
        unsigned seen = 0;

        wire_option(w, NBD_OPT_INFO, data, wire_info_data(data, "", all, 5));
        for (unsigned i = 0; i < 4; i++) {
                be16 type;
                wire_reply(w, NBD_OPT_INFO, &reply);
                assert_int_equal(reply.type, NBD_REP_INFO);
                memcpy(&type, reply.data, 2);
                seen |= 1u << be16_get(type);
                if (be16_get(type) == NBD_INFO_NAME)
                        assert_string_equal((char *)reply.data + 2, "pool/vol");
                if (be16_get(type) == NBD_INFO_DESCRIPTION)
                        assert_string_equal((char *)reply.data + 2, FIXTURE_DESCRIPTION);
                if (be16_get(type) == NBD_INFO_BLOCK_SIZE)
                        assert_memory_equal(reply.data + 2, "\0\0\0\1\0\0\x10\0\2\0\0\0", 12);
        }
        assert_int_equal(seen, 0xf);
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.type, NBD_REP_ACK);

        wire_option(w, NBD_OPT_INFO, data, wire_info_data(data, "vol", NULL, 0));
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.length, 12);
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.type, NBD_REP_ACK);
        assert_int_equal(fixture_n_open(*state), 0);
        wire_close(w);
}

static void go_is_followed_by_transmission_without_padding(void **state)
{
        struct wire *w = wire_connect(fixture_path(*state));
        uint64_t size;

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE); /* without NO_ZEROES */
        wire_go(w, "pool/vol", &size, NULL);
        assert_true(size == VOL_BYTES);
        wire_expect_alive(w);
        assert_int_equal(fixture_n_open(*state), 1);
        wire_close(w);
}

static void a_failed_go_can_be_followed_by_another(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[64];

        wire_option(w, NBD_OPT_GO, data, wire_info_data(data, "nosuch", NULL, 0));
        assert_int_equal(wire_final(w, NBD_OPT_GO), NBD_REP_ERR_UNKNOWN);
        wire_go(w, "vol", NULL, NULL);
        wire_expect_alive(w);
        wire_close(w);
}

static void transmission_flags_say_what_the_export_can(void **state)
{
        const unsigned base = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                              NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
        const unsigned writable =
            NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
        uint16_t flags;

        for (unsigned structured = 0; structured < 2; structured++) {
                struct wire *w = wire_greeted(fixture_path(*state)),
                            *readonly = wire_greeted(fixture_path(*state));
                if (structured) {
                        wire_structured(w);
                        wire_structured(readonly);
                }
                wire_go(w, "vol", NULL, &flags);
                assert_int_equal(flags, base | writable | (structured ? NBD_FLAG_SEND_DF : 0));
                wire_go(readonly, "pool/vol@snap", NULL, &flags);
                assert_int_equal(flags,
                                 base | NBD_FLAG_READ_ONLY | (structured ? NBD_FLAG_SEND_DF : 0));
                wire_close(w);
                wire_close(readonly);
        }
}

static void options_that_take_no_data_refuse_them(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        assert_int_equal(wire_ask(w, NBD_OPT_STRUCTURED_REPLY, "x", 1), NBD_REP_ERR_INVALID);
        assert_int_equal(wire_ask(w, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
        expect_negotiating(w);
        wire_close(w);
}

/* ---- LIST ---- */

static void list_names_and_describes_the_exports(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        struct wire_reply reply;

        wire_option(w, NBD_OPT_LIST, NULL, 0);
        wire_reply(w, NBD_OPT_LIST, &reply);
        assert_int_equal(reply.type, NBD_REP_SERVER);
        assert_memory_equal(reply.data, "\0\0\0\10pool/vol" FIXTURE_DESCRIPTION, reply.length);
        wire_reply(w, NBD_OPT_LIST, &reply);
        assert_memory_equal(reply.data, "\0\0\0\15pool/vol@snap", reply.length);
        assert_int_equal(wire_final(w, NBD_OPT_LIST), NBD_REP_ACK);
        wire_close(w);
}

static void a_long_list_comes_whole_and_one_without_bound_is_refused(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        fixture_list_extra(*state, 5000);
        wire_option(w, NBD_OPT_LIST, NULL, 0);
        assert_int_equal(wire_final(w, NBD_OPT_LIST), NBD_REP_ACK);
        fixture_list_extra(*state, 1000000);
        wire_option(w, NBD_OPT_LIST, NULL, 0);
        assert_int_equal(wire_final(w, NBD_OPT_LIST), NBD_REP_ERR_TOO_BIG);
        expect_negotiating(w);
        wire_close(w);
}

/* ---- limits on connections ---- */

static void a_handshake_must_end_by_its_deadline(void **state)
{
        struct nbd_server_options options = {.handshake_timeout_ms = 150};
        struct fixture *f = fixture_start(&options);
        struct wire *silent = wire_connect(fixture_path(f)), *slow = wire_connect(fixture_path(f));
        struct wire *served = wire_open(fixture_path(f), "vol", true);

        wire_greet(slow, NEWSTYLE);
        while (wire_try_send(slow, "I", 1)) /* a byte now and then does not help */
                usleep(20000);
        wire_drain(slow);
        wire_drain(silent);
        wire_expect_alive(served); /* the deadline is the handshake's only */
        wire_close(slow);
        wire_close(silent);
        wire_close(served);
        fixture_stop(f, 5000);
}

static void a_deadline_ends_one_that_does_not_read_its_replies(void **state)
{
        struct nbd_server_options options = {.handshake_timeout_ms = 300};
        struct fixture *f = fixture_start(&options);
        struct wire *w = wire_connect(fixture_path(f));

        fixture_list_extra(f, 8000);
        wire_greet(w, NEWSTYLE);
        for (unsigned i = 0; i < 8; i++)
                wire_option(w, NBD_OPT_LIST, NULL, 0);
        while (fixture_n_clients(f) > 0)
                usleep(10000);
        wire_drain(w);
        wire_close(w);
        fixture_stop(f, 5000);
}

static void those_who_negotiate_are_few_at_a_time_and_others_wait_their_turn(void **state)
{
        struct nbd_server_options options = {.max_handshakes = 2};
        struct fixture *f = fixture_start(&options);
        struct wire *a = wire_connect(fixture_path(f)), *b, *c;

        wire_greet(a, NEWSTYLE);
        b = wire_connect(fixture_path(f));
        wire_greet(b, NEWSTYLE);
        c = wire_connect(fixture_path(f));
        expect_negotiating(a);
        assert_int_equal(fixture_n_clients(f), 2);
        assert_false(wire_pending(c));
        wire_go(a, "vol", NULL, NULL); /* it negotiates no more */
        wire_greet(c, NEWSTYLE);
        wire_go(c, "vol", NULL, NULL);
        wire_expect_alive(a);
        wire_expect_alive(c);
        wire_close(a);
        wire_close(b);
        wire_close(c);
        fixture_stop(f, 5000);
}

static void connections_over_the_limit_are_closed(void **state)
{
        struct nbd_server_options options = {.max_connections = 2};
        struct fixture *f = fixture_start(&options);
        struct wire *a = wire_open(fixture_path(f), "vol", true),
                    *b = wire_open(fixture_path(f), "vol", true);
        struct wire *c = wire_connect(fixture_path(f));

        wire_expect_closed(c);
        wire_expect_alive(a);
        wire_close(a);
        wire_close(c);
        while (fixture_n_clients(f) > 1)
                usleep(1000);
        c = wire_open(fixture_path(f), "vol", true);
        wire_expect_alive(b);
        wire_close(b);
        wire_close(c);
        fixture_stop(f, 5000);
}

static void tcp_works_too(void **state)
{
        struct wire *w = wire_connect_tcp(fixture_port(*state));
        uint8_t data[100000], back[100000];

        wire_greet(w, NEWSTYLE);
        wire_structured(w);
        wire_go(w, "vol", NULL, NULL);
        memset(data, 7, sizeof(data));
        wire_write(w, 0, 1, 12345, data, sizeof(data));
        assert_int_equal(wire_result(w, 1), 0);
        assert_int_equal(wire_read(w, 0, 12345, back, sizeof(back)), 0);
        assert_memory_equal(data, back, sizeof(data));
        wire_close(w);
}

/* An option of the server's end of a connection, which is in this process. */
static int servers_option(const struct wire *w, int level, int option)
{
        struct sockaddr_in ours, peer;
        socklen_t length = sizeof(ours);
        int found = -1, value = 0;

        assert_return_code(getsockname(w->fd, (struct sockaddr *)&ours, &length), errno);
        for (int fd = 0; fd < 1024; fd++) {
                length = sizeof(peer);
                if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 &&
                    length == sizeof(peer) && memcmp(&peer, &ours, sizeof(peer)) == 0)
                        found = fd;
        }
        assert_int_not_equal(found, -1);
        length = sizeof(value);
        assert_return_code(getsockopt(found, level, option, &value, &length), errno);
        return value;
}

static void replies_over_tcp_do_not_wait_for_more(void **state)
{
        struct wire *w = wire_connect_tcp(fixture_port(*state));

        wire_greet(w, NEWSTYLE);
        assert_int_equal(servers_option(w, IPPROTO_TCP, TCP_NODELAY), 1);
        wire_close(w);
}

static void a_peer_that_vanishes_is_noticed_within_two_minutes(void **state)
{
        struct wire *w = wire_connect_tcp(fixture_port(*state));

        wire_greet(w, NEWSTYLE);
        assert_int_equal(servers_option(w, SOL_SOCKET, SO_KEEPALIVE), 1);
        assert_true(servers_option(w, IPPROTO_TCP, TCP_KEEPIDLE) +
                        servers_option(w, IPPROTO_TCP, TCP_KEEPINTVL) *
                            servers_option(w, IPPROTO_TCP, TCP_KEEPCNT) <=
                    120);
        wire_close(w);
}

static void each_info(const struct nbd_client_info *info, void *arg)
{
        *(struct nbd_client_info *)arg = *info;
}

struct info_call {
        struct fixture *fixture;
        struct nbd_client_info info;
};

static void get_info(void *arg)
{
        struct info_call *call = arg;

        nbd_server_each_client(fixture_server(call->fixture), each_info, &call->info);
}

static void clients_are_shown_with_peer_export_and_counters(void **state)
{
        struct info_call call = {*state};
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[8192] = {0};
        char peer[64];

        expect_negotiating(w);
        fixture_run(*state, get_info, &call);
        snprintf(peer, sizeof(peer), "unix pid %d", (int)getpid());
        assert_string_equal(call.info.peer, peer);
        assert_null(call.info.export_name);
        w->structured = true;
        wire_go(w, "vol", NULL, NULL);
        wire_write(w, 0, 1, 0, data, sizeof(data));
        assert_int_equal(wire_result(w, 1), 0);
        assert_int_equal(wire_read(w, 0, 0, data, 4096), 0);
        wire_expect_alive(w);
        fixture_run(*state, get_info, &call);
        assert_string_equal(call.info.export_name, "pool/vol");
        assert_false(call.info.readonly);
        assert_int_equal(call.info.reads, 1);
        assert_int_equal(call.info.writes, 1);
        assert_int_equal(call.info.flushes, 1);
        assert_int_equal(call.info.read_bytes, 4096);
        assert_int_equal(call.info.write_bytes, 8192);
        wire_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(unknown_client_flags_drop_the_connection),
            TEST(what_is_no_option_drops_the_connection),
            TEST(an_unknown_option_is_refused_after_its_payload_is_taken),
            TEST(an_option_of_64_kib_is_taken_and_a_longer_one_ends_the_connection),
            TEST(the_65th_option_ends_the_connection),
            TEST(abort_is_acknowledged_and_the_connection_closed),
            TEST(names_are_bounded_at_4096_bytes_and_hold_no_nul),
            TEST(a_name_that_is_echoed_is_cut),
            TEST(a_name_that_is_echoed_is_printable),
            TEST(a_long_name_in_export_name_closes),
            TEST(an_unknown_export_is_told_apart_from_a_forbidden_one),
            TEST(export_name_pads_with_124_zeroes_unless_agreed_otherwise),
            TEST(export_name_of_an_unknown_export_closes),
            TEST(info_of_a_wrong_length_is_invalid),
            TEST(info_gives_the_export_always_and_the_rest_when_asked),
            TEST(go_is_followed_by_transmission_without_padding),
            TEST(a_failed_go_can_be_followed_by_another),
            TEST(transmission_flags_say_what_the_export_can),
            TEST(options_that_take_no_data_refuse_them),
            TEST(list_names_and_describes_the_exports),
            TEST(a_long_list_comes_whole_and_one_without_bound_is_refused),
            cmocka_unit_test(a_handshake_must_end_by_its_deadline),
            cmocka_unit_test(a_deadline_ends_one_that_does_not_read_its_replies),
            cmocka_unit_test(those_who_negotiate_are_few_at_a_time_and_others_wait_their_turn),
            cmocka_unit_test(connections_over_the_limit_are_closed),
            TEST(tcp_works_too),
            TEST(replies_over_tcp_do_not_wait_for_more),
            TEST(a_peer_that_vanishes_is_noticed_within_two_minutes),
            TEST(clients_are_shown_with_peer_export_and_counters),
        };
        return cmocka_run_group_tests_name("nbd handshake", tests, NULL, NULL);
}
