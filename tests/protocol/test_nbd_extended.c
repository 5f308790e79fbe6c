/* test_nbd_extended.c - extended headers, at wire level: how they are agreed on, the form of each
 * request and reply, lengths of 64 bits, and payloads. The client is of our own (wire.h). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/fixture.h"
#include "tests/protocol/wire.h"

#define MIB         (UINT64_C(1) << 20)
#define GIB         (UINT64_C(1) << 30)
#define PAYLOAD_TOP (32 * MIB) /* the most that the server advertises */

static struct wire *open_extended(void **state, const char *name)
{
        return wire_open_extended(fixture_path(*state), name);
}

/* A request without payload in reply, awaited: its error. */
static uint32_t command(struct wire *w, uint16_t type, uint16_t flags, uint64_t offset,
                        uint64_t length)
{
        struct wire_answer answer;

        wire_request(w, type, flags, 0xc0de, offset, length);
        wire_answer(w, &answer);
        assert_true(answer.cookie == 0xc0de && answer.structured);
        assert_true(answer.request_offset == offset);
        assert_int_equal(answer.flags, NBD_REPLY_FLAG_DONE);
        assert_int_equal(answer.type, answer.error ? NBD_REPLY_TYPE_ERROR : NBD_REPLY_TYPE_NONE);
        return answer.error;
}

static uint32_t with_payload(struct wire *w, uint16_t type, uint16_t flags, uint64_t offset,
                             const void *payload, size_t length)
{
        struct wire_answer answer;

        wire_request(w, type, flags | NBD_CMD_FLAG_PAYLOAD_LEN, 0x9a10, offset, length);
        wire_send(w, payload, length);
        wire_answer(w, &answer);
        assert_true(answer.cookie == 0x9a10 && answer.request_offset == offset);
        return answer.error;
}

/* ---- agreeing ---- */

static void extended_headers_need_no_structured_replies_before(void **state)
{
        for (unsigned structured = 0; structured < 2; structured++) {
                struct wire *w = wire_greeted(fixture_path(*state));
                if (structured)
                        wire_structured(w);
                wire_extended(w);
                wire_set_meta(w, "vol");
                wire_go(w, "vol", NULL, NULL);
                wire_expect_alive(w);
                wire_close(w);
        }
}

static void structured_replies_cannot_be_agreed_on_after_extended_headers(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_extended(w);
        assert_int_equal(wire_ask(w, NBD_OPT_STRUCTURED_REPLY, NULL, 0),
                         NBD_REP_ERR_EXT_HEADER_REQD);
        wire_go(w, "vol", NULL, NULL);
        wire_expect_alive(w); /* in extended headers still */
        wire_close(w);
}

static void the_option_takes_no_data(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        assert_int_equal(wire_ask(w, NBD_OPT_EXTENDED_HEADERS, "x", 1), NBD_REP_ERR_INVALID);
        wire_go(w, "vol", NULL, NULL);
        wire_expect_alive(w); /* in compact headers */
        wire_close(w);
}

static void export_name_closes_when_extended_headers_are_agreed_on(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_extended(w);
        wire_option(w, NBD_OPT_EXPORT_NAME, "vol", 3);
        wire_expect_closed(w);
        wire_close(w);
}

static uint16_t flags_of(struct wire *w, bool with_context)
{
        uint16_t flags;

        if (with_context)
                wire_set_meta(w, "vol");
        wire_go(w, "vol", NULL, &flags);
        wire_close(w);
        return flags;
}

static void block_status_payload_is_offered_with_extended_headers_and_a_context_only(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_structured(w);
        assert_int_equal(flags_of(w, true) & NBD_FLAG_BLOCK_STATUS_PAYLOAD, 0);
        w = wire_greeted(fixture_path(*state));
        wire_extended(w);
        assert_int_equal(flags_of(w, false) & NBD_FLAG_BLOCK_STATUS_PAYLOAD, 0);
        w = wire_greeted(fixture_path(*state));
        wire_extended(w);
        uint16_t flags = flags_of(w, true);
        assert_true(flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD);
        assert_true(flags & NBD_FLAG_SEND_DF);
}

static uint16_t info_flags(struct wire *w, const char *name)
{
        struct wire_reply reply;
        struct nbd_info_export info;
        uint8_t data[64];

        wire_option(w, NBD_OPT_INFO, data, wire_info_data(data, name, NULL, 0));
        wire_reply(w, NBD_OPT_INFO, &reply);
        assert_int_equal(reply.type, NBD_REP_INFO);
        assert_int_equal(reply.length, sizeof(info));
        memcpy(&info, reply.data, sizeof(info));
        assert_int_equal(wire_final(w, NBD_OPT_INFO), NBD_REP_ACK);
        return be16_get(info.flags);
}

/* proto.md, NBD_OPT_GO: right behind INFO it MUST say the same. */
static void go_says_what_info_has_said_of_the_same_export(void **state)
{
        static const char *const names[] = {"vol", "pool/big"};

        for (unsigned i = 0; i < 2; i++) {
                struct wire *w = wire_greeted(fixture_path(*state));
                uint16_t flags;
                wire_extended(w);
                wire_set_meta(w, "vol");
                uint16_t said = info_flags(w, names[i]);
                wire_go(w, names[i], NULL, &flags);
                assert_int_equal(flags, said);
                assert_int_equal((flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD) != 0, i == 0);
                wire_close(w);
        }
}

static void a_compact_request_ends_a_connection_of_extended_headers_and_the_other_way(void **state)
{
        struct wire *w = open_extended(state, "vol");

        w->extended = false;
        wire_request(w, NBD_CMD_FLUSH, 0, 1, 0, 0);
        wire_send(w, "\0\0\0\0", 4); /* as long as an extended one */
        wire_expect_closed(w);
        wire_close(w);
        w = wire_open(fixture_path(*state), "vol", true);
        w->extended = true;
        wire_request(w, NBD_CMD_FLUSH, 0, 1, 0, 0);
        wire_drain(w);
        wire_close(w);
}

/* ---- requests and replies ---- */

static void every_reply_is_an_extended_chunk_with_the_requests_offset(void **state)
{
        struct wire *w = open_extended(state, "vol");
        struct wire_answer answer;
        uint8_t data[5000], back[5000];

        for (unsigned i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)(i * 7);
        wire_write(w, 0, 1, 777, data, sizeof(data));
        wire_answer(w, &answer);
        assert_int_equal(answer.type, NBD_REPLY_TYPE_NONE);
        assert_true(answer.request_offset == 777);
        wire_request(w, NBD_CMD_READ, NBD_CMD_FLAG_DF, 2, 777, sizeof(back));
        wire_answer(w, &answer);
        assert_int_equal(answer.type, NBD_REPLY_TYPE_OFFSET_DATA);
        assert_true(answer.request_offset == 777 && answer.offset == 777);
        wire_receive(w, back, sizeof(back));
        assert_memory_equal(back, data, sizeof(data));
        assert_int_equal(command(w, NBD_CMD_FLUSH, 0, 0, 0), 0);
        assert_int_equal(command(w, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 4096, 4096), 0);
        assert_int_equal(command(w, NBD_CMD_CACHE, 0, 4096, 4096), 0);
        assert_int_equal(command(w, NBD_CMD_WRITE_ZEROES, 0, 4096, 4096), 0);
        assert_int_equal(command(w, 99, 0, 12345, 0), NBD_EINVAL);
        assert_int_equal(command(w, NBD_CMD_READ, 0, VOL_BYTES, 1), NBD_EINVAL);
        wire_close(w);
}

static void block_status_uses_the_longer_descriptors_whatever_the_length(void **state)
{
        struct wire *w = open_extended(state, "vol");
        static struct wire_context context;
        uint8_t data[4096] = {1};

        wire_write(w, 0, 1, 4096, data, sizeof(data));
        assert_int_equal(wire_result(w, 1), 0);
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 2, 0, 12288);
        assert_int_equal(wire_status_chunk(w, 2, &context), 0);
        assert_true(context.last && context.id != 0);
        assert_int_equal(context.n, 3);
        assert_true(context.extents[1].length == 4096 && context.extents[1].flags == 0);
        assert_true(context.extents[2].flags == (NBD_STATE_HOLE | NBD_STATE_ZERO));
        wire_request(w, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 3, 4096, 12288);
        assert_int_equal(wire_status_chunk(w, 3, &context), 0);
        assert_true(context.n == 1 && context.extents[0].length == 4096);
        wire_close(w);
}

/* ---- 64 bits ---- */

static void lengths_beyond_32_bits_are_served(void **state)
{
        struct wire *w = open_extended(state, "pool/big");
        struct volume *big = fixture_big(*state);
        static struct wire_context context;
        uint8_t data[4096] = {1}, back[4096];

        for (uint64_t at = 0; at < BIG_BYTES; at += 3 * GIB) {
                wire_write(w, 0, 1, at, data, sizeof(data));
                assert_int_equal(wire_result(w, 1), 0);
        }
        assert_int_equal(command(w, NBD_CMD_CACHE, 0, 0, BIG_BYTES), 0);
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 2, 0, BIG_BYTES);
        assert_int_equal(wire_status_chunk(w, 2, &context), 0);
        assert_int_equal(context.n, 12);
        assert_true(context.extents[1].length == 3 * GIB - 4096);
        assert_int_equal(command(w, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 4096, BIG_BYTES - 4096), 0);
        assert_true(fake_counts(big).submitted[VOLUME_DISCARD] > 1);
        assert_int_equal(fake_counts(big).submitted[VOLUME_FLUSH], 1); /* after all of it */
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 3, 4096, BIG_BYTES - 4096);
        assert_int_equal(wire_status_chunk(w, 3, &context), 0);
        assert_true(context.n == 1 && context.extents[0].length == BIG_BYTES - 4096);
        assert_int_equal(wire_read(w, 0, 0, back, sizeof(back)), 0);
        assert_memory_equal(back, data, sizeof(back));
        assert_int_equal(command(w, NBD_CMD_WRITE_ZEROES, 0, 0, BIG_BYTES), 0);
        assert_int_equal(wire_read(w, 0, 0, back, sizeof(back)), 0);
        assert_int_equal(back[0], 0);
        wire_close(w);
}

static void ranges_are_compared_without_overflow_in_64_bits(void **state)
{
        static const uint64_t huge[] = {UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63,
                                        UINT64_C(1) << 32, VOL_BYTES + 1};
        struct wire *w = open_extended(state, "vol");
        static struct wire_context context;

        for (unsigned i = 0; i < sizeof(huge) / sizeof(huge[0]); i++) {
                for (uint64_t offset = 0; offset <= 8192; offset += 4096) {
                        assert_int_equal(command(w, NBD_CMD_TRIM, 0, offset, huge[i]), NBD_EINVAL);
                        assert_int_equal(command(w, NBD_CMD_CACHE, 0, offset, huge[i]), NBD_EINVAL);
                        assert_int_equal(command(w, NBD_CMD_WRITE_ZEROES, 0, offset, huge[i]),
                                         NBD_ENOSPC);
                        assert_int_equal(command(w, NBD_CMD_READ, 0, offset, huge[i]), NBD_EINVAL);
                        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 1, offset, huge[i]);
                        assert_int_equal(wire_status_chunk(w, 1, &context), NBD_EINVAL);
                }
        }
        wire_expect_alive(w);
        wire_close(w);
}

static void a_read_longer_than_the_advertised_payload_is_eoverflow(void **state)
{
        struct wire *w = open_extended(state, "pool/big");

        assert_int_equal(command(w, NBD_CMD_READ, 0, 0, PAYLOAD_TOP + 1), NBD_EOVERFLOW);
        assert_int_equal(command(w, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 5 * GIB), NBD_EOVERFLOW);
        wire_expect_alive(w);
        wire_close(w);
}

static void a_long_request_holds_up_nobody_and_ends_with_a_client_that_was_cut(void **state)
{
        struct volume *big = fixture_big(*state);
        struct wire *w = open_extended(state, "pool/big"),
                    *other = wire_open(fixture_path(*state), "vol", true);

        fake_hold(big);
        wire_request(w, NBD_CMD_TRIM, 0, 1, 0, BIG_BYTES);
        fake_wait_held(big, 1);
        wire_expect_alive(other);
        fixture_begin_cut(*state, "pool/big");
        wire_drain(w);
        wire_close(w);
        fake_release_all(big);
        while (fixture_n_open(*state) > 1)
                usleep(1000);
        assert_int_equal(fake_counts(big).submitted[VOLUME_DISCARD], 1);
        wire_expect_alive(other);
        wire_close(other);
}

/* Who hangs up without a DISC waits for nothing. Each round lets a slice go, until the server has
 * noticed. */
static void a_long_request_ends_when_its_client_hangs_up(void **state)
{
        struct volume *big = fixture_big(*state);
        struct wire *w = open_extended(state, "pool/big");
        unsigned n_slices = 0;

        fake_hold(big);
        wire_request(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 1, 0, BIG_BYTES);
        fake_wait_held(big, 1);
        wire_close(w);
        for (; fixture_n_open(*state) > 0; usleep(1000)) {
                if (fake_counts(big).in_flight == 0)
                        continue;
                fake_release_last(big);
                n_slices++;
        }
        assert_true(n_slices < BIG_BYTES / MIB);
}

/* ---- payloads ---- */

static void a_write_without_payload_flag_brings_no_data(void **state)
{
        struct wire *w = open_extended(state, "vol");
        uint8_t none = 0;

        assert_int_equal(command(w, NBD_CMD_WRITE, 0, 0, 4096), NBD_EINVAL);
        assert_int_equal(command(w, NBD_CMD_WRITE, 0, 0, 5 * GIB), NBD_EINVAL);
        assert_int_equal(command(w, NBD_CMD_WRITE, 0, 0, 0), 0); /* no payload may have no bytes */
        assert_int_equal(with_payload(w, NBD_CMD_WRITE, 0, 0, &none, 0), 0);
        assert_int_equal(fake_counts(fixture_volume(*state)).submitted[VOLUME_WRITE], 0);
        wire_close(w);
}

static void a_payload_that_a_command_does_not_take_is_taken_off_the_wire(void **state)
{
        static const size_t lengths[] = {1, 4, 12, 4096, 65536, 65537, 262144, 32u << 20};
        static const uint16_t types[] = {
            NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE, 99, NBD_CMD_WRITE_ZEROES};
        struct wire *w = open_extended(state, "vol");
        uint8_t *payload = calloc(1, PAYLOAD_TOP);

        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
                for (unsigned t = 0; t < sizeof(types) / sizeof(types[0]); t++)
                        assert_int_equal(with_payload(w, types[t], 0, 0, payload, lengths[i]),
                                         NBD_EINVAL);
        assert_int_equal(with_payload(w, NBD_CMD_WRITE, 0, VOL_BYTES, payload, PAYLOAD_TOP),
                         NBD_ENOSPC);
        assert_int_equal(with_payload(w, NBD_CMD_WRITE, 0x4000, 0, payload, 65537), NBD_EINVAL);
        assert_int_equal(with_payload(w, NBD_CMD_WRITE, 0, 0, payload, PAYLOAD_TOP), 0);
        wire_expect_alive(w);
        wire_close(w);
        free(payload);
}

static void a_payload_longer_than_advertised_ends_the_connection(void **state)
{
        static const uint64_t lengths[] = {PAYLOAD_TOP + 1, UINT64_C(1) << 32, UINT64_MAX};

        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
                struct wire *w = open_extended(state, "pool/big");
                wire_request(w, i % 2 ? NBD_CMD_TRIM : NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 1,
                             0, lengths[i]);
                wire_expect_closed(w);
                wire_close(w);
        }
}

static size_t contexts_payload(uint8_t *at, uint64_t length, const uint32_t *ids, unsigned n)
{
        be64 wire_length = be64_make(length);

        memcpy(at, &wire_length, sizeof(wire_length));
        for (unsigned i = 0; i < n; i++) {
                be32 id = be32_make(ids[i]);
                memcpy(at + 8 + 4 * i, &id, sizeof(id));
        }
        return 8 + 4 * (size_t)n;
}

static void block_status_with_payload_takes_its_effect_length_from_there(void **state)
{
        struct wire *w = open_extended(state, "pool/big");
        static struct wire_context context;
        const uint32_t id = 1;
        uint8_t payload[64];
        size_t length = contexts_payload(payload, BIG_BYTES - 4096, &id, 1);

        wire_request(w, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 5, 4096, length);
        wire_send(w, payload, length);
        assert_int_equal(wire_status_chunk(w, 5, &context), 0);
        assert_true(context.last && context.id == id);
        assert_true(context.n == 1 && context.extents[0].length == BIG_BYTES - 4096);
        length = contexts_payload(payload, BIG_BYTES, &id, 1);
        assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 4096, payload, length),
                         NBD_EINVAL); /* past the end */
        length = contexts_payload(payload, 0, &id, 1);
        assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 0, payload, length), NBD_EINVAL);
        wire_expect_alive(w);
        wire_close(w);
}

static void block_status_of_contexts_unknown_or_named_twice_is_einval(void **state)
{
        struct wire *w = open_extended(state, "vol");
        static const uint32_t ids[][2] = {{0, 1}, {2, 1}, {1, 1}, {0xffffffff, 1}};
        static const uint32_t many[2000] = {1};
        static uint8_t payload[8 + 4 * 2000];
        size_t length;

        for (unsigned i = 0; i < 4; i++) {
                length = contexts_payload(payload, 4096, ids[i], 2);
                assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 0, payload, length),
                                 NBD_EINVAL);
        }
        for (length = 1; length < 12; length++)
                assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 0, payload, length),
                                 NBD_EINVAL);
        assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 0, payload, 13), NBD_EINVAL);
        length = contexts_payload(payload, 4096, many, 2000);
        assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 0, payload, length), NBD_EINVAL);
        wire_expect_alive(w);
        wire_close(w);
}

static void block_status_with_payload_needs_a_context(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        const uint32_t id = 1;
        uint8_t payload[12];

        wire_extended(w);
        wire_go(w, "vol", NULL, NULL);
        contexts_payload(payload, 4096, &id, 1);
        assert_int_equal(with_payload(w, NBD_CMD_BLOCK_STATUS, 0, 0, payload, 12), NBD_EINVAL);
        assert_int_equal(command(w, NBD_CMD_BLOCK_STATUS, 0, 0, 4096), NBD_EINVAL);
        wire_expect_alive(w);
        wire_close(w);
}

static void extended_requests_may_arrive_in_pieces_of_any_size(void **state)
{
        struct wire *w = open_extended(state, "vol");
        struct nbd_extended_request header = {
            .magic = be32_make(NBD_EXTENDED_REQUEST_MAGIC),
            .flags = be16_make(NBD_CMD_FLAG_PAYLOAD_LEN),
            .type = be16_make(NBD_CMD_WRITE),
            .cookie = be64_make(9),
            .length = be64_make(300),
        };
        uint8_t stream[332];

        memcpy(stream, &header, sizeof(header));
        memset(stream + sizeof(header), 7, 300);
        for (size_t piece = 1; piece < sizeof(stream); piece += piece < 40 ? 1 : 97) {
                for (size_t at = 0; at < sizeof(stream); at += piece) {
                        size_t left = sizeof(stream) - at;
                        wire_send(w, stream + at, left < piece ? left : piece);
                        if (at % 5 == 0)
                                fixture_n_clients(*state); /* lets the server take what came */
                }
                assert_int_equal(wire_result(w, 9), 0);
        }
        assert_int_equal(fake_data(fixture_volume(*state))[299], 7);
        wire_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(extended_headers_need_no_structured_replies_before),
            TEST(structured_replies_cannot_be_agreed_on_after_extended_headers),
            TEST(the_option_takes_no_data),
            TEST(export_name_closes_when_extended_headers_are_agreed_on),
            TEST(block_status_payload_is_offered_with_extended_headers_and_a_context_only),
            TEST(go_says_what_info_has_said_of_the_same_export),
            TEST(a_compact_request_ends_a_connection_of_extended_headers_and_the_other_way),
            TEST(every_reply_is_an_extended_chunk_with_the_requests_offset),
            TEST(block_status_uses_the_longer_descriptors_whatever_the_length),
            TEST(lengths_beyond_32_bits_are_served),
            TEST(ranges_are_compared_without_overflow_in_64_bits),
            TEST(a_read_longer_than_the_advertised_payload_is_eoverflow),
            TEST(a_long_request_holds_up_nobody_and_ends_with_a_client_that_was_cut),
            TEST(a_long_request_ends_when_its_client_hangs_up),
            TEST(a_write_without_payload_flag_brings_no_data),
            TEST(a_payload_that_a_command_does_not_take_is_taken_off_the_wire),
            TEST(a_payload_longer_than_advertised_ends_the_connection),
            TEST(block_status_with_payload_takes_its_effect_length_from_there),
            TEST(block_status_of_contexts_unknown_or_named_twice_is_einval),
            TEST(block_status_with_payload_needs_a_context),
            TEST(extended_requests_may_arrive_in_pieces_of_any_size),
        };
        return cmocka_run_group_tests_name("nbd extended", tests, NULL, NULL);
}
