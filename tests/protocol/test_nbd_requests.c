/* test_nbd_requests.c - the transmission phase, at wire level:
 * what each command does and refuses. */
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

#define MIB              (1u << 20)
#define PAYLOAD_MAX_TEST (32u * MIB) /* the most that the server advertises */

static struct wire *open_vol(void **state)
{
        return wire_open(fixture_path(*state), "vol", true);
}

static void fill(uint8_t *data, size_t length, unsigned seed)
{
        uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

        for (size_t i = 0; i < length; i++) {
                x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                data[i] = (uint8_t)(x >> 56);
        }
}

/* ---- data ---- */

static void round_trips(struct fixture *f, bool structured)
{
        static const uint32_t lengths[] = {
            1,     511,    512,         4096,        4097,     65535,           65536,
            65537, 262144, 262144 - 28, 262144 - 27, MIB + 77, PAYLOAD_MAX_TEST};
        uint8_t *data = malloc(PAYLOAD_MAX_TEST), *back = malloc(PAYLOAD_MAX_TEST);
        struct wire *w = wire_open(fixture_path(f), "vol", structured);

        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
                uint64_t offset = i % 2 ? 4096 * i : 4096 * i + 13 * i;
                fill(data, lengths[i], i);
                assert_int_equal(wire_write_wait(w, 0, offset, data, lengths[i]), 0);
                assert_memory_equal(fake_data(fixture_volume(f)) + offset, data, lengths[i]);
                assert_int_equal(wire_read(w, 0, offset, back, lengths[i]), 0);
                assert_memory_equal(back, data, lengths[i]);
        }
        assert_int_equal(fake_counts(fixture_volume(f)).unaligned, 0);
        wire_close(w);
        free(data);
        free(back);
}

static void data_of_any_length_come_back_in_simple_replies(void **state)
{
        round_trips(*state, false);
}

static void data_of_any_length_come_back_in_structured_replies(void **state)
{
        round_trips(*state, true);
}

static void put_request(uint8_t *at, uint16_t type, uint64_t cookie, uint64_t offset,
                        uint32_t length)
{
        struct nbd_request_header header = {
            .magic = be32_make(NBD_REQUEST_MAGIC),
            .type = be16_make(type),
            .cookie = be64_make(cookie),
            .offset = be64_make(offset),
            .length = be32_make(length),
        };
        memcpy(at, &header, sizeof(header));
}

static void many_requests_in_one_segment_are_all_served(void **state)
{
        enum { N = 100, LENGTH = 4096 };
        size_t one = sizeof(struct nbd_request_header) + LENGTH;
        uint8_t *stream = malloc(N * one), back[LENGTH];
        struct wire *w = open_vol(state);
        bool seen[N] = {0};

        for (unsigned i = 0; i < N; i++) {
                put_request(stream + i * one, NBD_CMD_WRITE, i, i * LENGTH, LENGTH);
                fill(stream + i * one + sizeof(struct nbd_request_header), LENGTH, i);
        }
        wire_send(w, stream, N * one);
        for (unsigned i = 0; i < N; i++) {
                struct wire_answer answer;
                wire_answer(w, &answer);
                assert_int_equal(answer.error, 0);
                assert_true(answer.cookie < N && !seen[answer.cookie]);
                seen[answer.cookie] = true;
        }
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(wire_read(w, 0, i * LENGTH, back, LENGTH), 0);
                assert_memory_equal(back, stream + i * one + sizeof(struct nbd_request_header),
                                    LENGTH);
        }
        wire_close(w);
        free(stream);
}

static void requests_may_arrive_in_pieces_of_any_size(void **state)
{
        uint8_t stream[28 + 700 + 28 + 28], data[700], back[700];
        struct wire *w = open_vol(state);

        fill(data, sizeof(data), 5);
        put_request(stream, NBD_CMD_WRITE, 1, 300, 700);
        memcpy(stream + 28, data, 700);
        put_request(stream + 728, NBD_CMD_FLUSH, 2, 0, 0);
        put_request(stream + 756, NBD_CMD_READ, 3, 300, 700);
        for (size_t piece = 1; piece <= sizeof(stream); piece += piece < 40 ? 1 : 97) {
                fake_fill(fixture_volume(*state), 300, 0, 700);
                for (size_t at = 0; at < sizeof(stream); at += piece) {
                        size_t n = sizeof(stream) - at < piece ? sizeof(stream) - at : piece;
                        wire_send(w, stream + at, n);
                        if (at % 5 == 0)
                                fixture_n_clients(*state); /* lets the server take what came */
                        if (at < 728 && at + n >= 728)
                                assert_int_equal(wire_result(w, 1), 0);
                        if (at < 756 && at + n >= 756)
                                assert_int_equal(wire_result(w, 2), 0);
                }
                assert_int_equal(wire_read_result(w, 3, 300, back, 700), 0);
                assert_memory_equal(back, data, 700);
        }
        wire_close(w);
}

static void large_writes_may_follow_each_other_and_mix_with_small_ones(void **state)
{
        enum { N = 24 };
        static const uint32_t lengths[] = {300000, 10, 70000, 4096, 65536, 65537};
        uint8_t *data = malloc(N * 300000), *at = data;
        struct wire *w = open_vol(state);

        fill(data, N * 300000, 9);
        for (unsigned i = 0; i < N; i++) {
                uint32_t length = lengths[i % 6];
                wire_write(w, 0, i, (uint64_t)i * 300000, at, length);
                at += length;
        }
        for (unsigned i = 0; i < N; i++) {
                struct wire_answer answer;
                wire_answer(w, &answer);
                assert_int_equal(answer.error, 0);
        }
        at = data;
        for (unsigned i = 0; i < N; i++) {
                assert_memory_equal(fake_data(fixture_volume(*state)) + i * 300000, at,
                                    lengths[i % 6]);
                at += lengths[i % 6];
        }
        wire_close(w);
        free(data);
}

static void replies_come_as_requests_finish_not_as_they_came(void **state)
{
        struct volume *volume = fixture_volume(*state);
        struct wire *w = open_vol(state);

        fake_hold(volume);
        for (uint64_t cookie = 1; cookie <= 3; cookie++)
                wire_request(w, NBD_CMD_TRIM, 0, cookie, 0, 4096);
        fake_wait_held(volume, 3);
        for (uint64_t cookie = 3; cookie >= 1; cookie--) {
                fake_release_last(volume);
                assert_int_equal(wire_result(w, cookie), 0);
        }
        fake_release_all(volume);
        wire_close(w);
}

/* ---- flags, ranges, refusals ---- */

static void with_structured_replies_a_read_never_gets_a_simple_one(void **state)
{
        struct wire *w = open_vol(state);
        struct wire_answer answer;
        static const struct {
                uint16_t flags;
                uint64_t offset;
                uint32_t length;
        } bad[] = {
            {0x8000, 0, 4096}, {0, VOL_BYTES, 1}, {0, 0, 33 * MIB}, {NBD_CMD_FLAG_NO_HOLE, 0, 1}};

        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                wire_request(w, NBD_CMD_READ, bad[i].flags, i, bad[i].offset, bad[i].length);
                wire_answer(w, &answer);
                assert_true(answer.structured);
                assert_int_equal(answer.flags, NBD_REPLY_FLAG_DONE);
                assert_int_equal(answer.error, NBD_EINVAL);
                assert_true(strlen(answer.text) > 10); /* a sentence */
        }
        wire_expect_alive(w);
        wire_close(w);
}

static void past_the_end(struct fixture *f, bool structured)
{
        static const struct {
                uint64_t offset;
                uint32_t length;
        } ranges[] = {{VOL_BYTES, 1},  {VOL_BYTES - 1, 2},        {VOL_BYTES - 4096, 8192},
                      {UINT64_MAX, 2}, {UINT64_MAX - 4095, 8192}, {UINT64_C(1) << 63, 1}};
        struct wire *w = wire_open(fixture_path(f), "vol", structured);
        struct nbd_status_descriptor extent;
        uint8_t data[8192] = {0};
        unsigned n;

        for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
                uint64_t offset = ranges[i].offset;
                uint32_t length = ranges[i].length;
                assert_int_equal(wire_read(w, 0, offset, data, length), NBD_EINVAL);
                assert_int_equal(wire_write_wait(w, 0, offset, data, length), NBD_ENOSPC);
                assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, offset, length),
                                 NBD_ENOSPC);
                assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, offset, length), NBD_EINVAL);
                assert_int_equal(wire_command(w, NBD_CMD_CACHE, 0, offset, length), NBD_EINVAL);
                assert_int_equal(wire_status(w, 0, offset, length, &extent, 1, &n), NBD_EINVAL);
        }
        assert_int_equal(wire_read(w, 0, VOL_BYTES - 1, data, 1), 0);
        assert_int_equal(wire_write_wait(w, 0, VOL_BYTES - 1, data, 1), 0);
        wire_close(w);
}

static void ranges_past_the_end_get_enospc_for_writes_and_einval_for_others(void **state)
{
        past_the_end(*state, false);
        past_the_end(*state, true);
}

static void a_read_only_export_refuses_writes_and_takes_their_payload(void **state)
{
        struct wire *w = wire_open(fixture_path(*state), "pool/vol@snap", true);
        uint8_t *data = calloc(1, 2 * MIB);

        assert_int_equal(wire_write_wait(w, 0, 0, data, 4096), NBD_EPERM);
        assert_int_equal(wire_write_wait(w, 0, 0, data, 2 * MIB), NBD_EPERM);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, 0, 4096), NBD_EPERM);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 0, 4096), NBD_EPERM);
        assert_int_equal(wire_command(w, NBD_CMD_FLUSH, 0, 0, 0), 0);
        assert_int_equal(wire_read(w, 0, 0, data, 4096), 0);
        assert_int_equal(fake_counts(fixture_snapshot(*state)).submitted[VOLUME_WRITE], 0);
        wire_close(w);
        free(data);
}

static void a_refused_write_of_any_length_leaves_the_stream_in_step(void **state)
{
        static const uint32_t lengths[] = {
            1, 4096, 65536, 65537, 262145, PAYLOAD_MAX_TEST, PAYLOAD_MAX_TEST + 1, 40 * MIB};
        struct wire *w = open_vol(state);
        uint8_t *data = calloc(1, 40 * MIB);

        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
                assert_int_equal(wire_write_wait(w, 0x4000, 0, data, lengths[i]), NBD_EINVAL);
                wire_expect_alive(w);
        }
        assert_int_equal(wire_write_wait(w, 0, 0, data, PAYLOAD_MAX_TEST + 1), NBD_EINVAL);
        assert_int_equal(fake_counts(fixture_volume(*state)).submitted[VOLUME_WRITE], 0);
        wire_expect_alive(w);
        wire_close(w);
        free(data);
}

static void zero_length_disconnects_nobody(void **state)
{
        for (unsigned structured = 0; structured < 2; structured++) {
                struct wire *w = wire_open(fixture_path(*state), "vol", structured);
                struct wire_answer answer;
                uint8_t none;

                assert_int_equal(wire_read(w, 0, 0, &none, 0), 0);
                assert_int_equal(wire_read(w, 0, VOL_BYTES, &none, 0), 0);
                assert_int_equal(wire_write_wait(w, NBD_CMD_FLAG_FUA, 0, &none, 0), 0);
                assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, 0, 0), 0);
                assert_int_equal(wire_command(w, NBD_CMD_CACHE, 0, 0, 0), 0);
                assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 0, 0),
                                 0);
                wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 0);
                wire_answer(w, &answer);
                assert_int_equal(answer.error,
                                 NBD_EINVAL); /* no extent, no reply that could say so */
                wire_expect_alive(w);
                wire_close(w);
        }
}

static void unknown_commands_and_flags_are_einval(void **state)
{
        struct wire *w = open_vol(state);

        assert_int_equal(wire_command(w, 8, 0, 0, 4096), NBD_EINVAL);
        assert_int_equal(wire_command(w, 0xffff, 0, 0, 0xffffffff), NBD_EINVAL);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, NBD_CMD_FLAG_DF, 0, 4096), NBD_EINVAL);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_REQ_ONE, 0, 4096),
                         NBD_EINVAL);
        assert_int_equal(wire_command(w, NBD_CMD_CACHE, 0x20, 0, 4096), NBD_EINVAL);
        assert_int_equal(wire_command(w, NBD_CMD_FLUSH, 0, 1, 0), NBD_EINVAL);
        assert_int_equal(wire_command(w, NBD_CMD_FLUSH, 0, 0, 1), NBD_EINVAL);
        wire_expect_alive(w);
        wire_close(w);
}

static void a_wrong_magic_ends_the_connection(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t rubbish[28] = {0x25, 0x60, 0x95, 0x14}; /* one off */

        wire_send(w, rubbish, sizeof(rubbish));
        wire_expect_closed(w);
        wire_close(w);
}

/* ---- durability ---- */

static void fua_is_legal_everywhere_and_reaches_the_engine_on_what_writes(void **state)
{
        struct wire *w = open_vol(state);
        struct nbd_status_descriptor extent[4];
        uint8_t data[4096] = {1};
        unsigned n;

        assert_int_equal(wire_write_wait(w, NBD_CMD_FLAG_FUA, 0, data, 4096), 0);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096), 0);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA, 0, 4096), 0);
        assert_int_equal(wire_command(w, NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0, 0), 0);
        assert_int_equal(wire_command(w, NBD_CMD_CACHE, NBD_CMD_FLAG_FUA, 0, 4096), 0);
        assert_int_equal(wire_read(w, NBD_CMD_FLAG_FUA, 0, data, 4096), 0);
        assert_int_equal(wire_status(w, NBD_CMD_FLAG_FUA, 0, 4096, extent, 4, &n), 0);
        struct fake_counts counts = fake_counts(fixture_volume(*state));
        assert_int_equal(counts.fua[VOLUME_WRITE], 1);
        assert_int_equal(counts.fua[VOLUME_DISCARD], 1);
        assert_int_equal(counts.fua[VOLUME_ZERO], 1);
        assert_int_equal(counts.fua[VOLUME_READ], 0);
        assert_int_equal(counts.fua[VOLUME_FLUSH], 0);
        wire_close(w);
}

static void a_write_with_fua_is_answered_only_after_the_engine_says_so(void **state)
{
        struct volume *volume = fixture_volume(*state);
        struct wire *w = open_vol(state);
        uint8_t data[4096] = {1};

        fake_hold(volume);
        wire_write(w, NBD_CMD_FLAG_FUA, 7, 0, data, sizeof(data));
        fake_wait_held(volume, 1);
        wire_request(w, 8, 0, 8, 0, 0);
        assert_int_equal(wire_result(w, 8), NBD_EINVAL); /* comes first: the write is still out */
        fake_release_all(volume);
        assert_int_equal(wire_result(w, 7), 0);
        assert_int_equal(fake_counts(volume).fua[VOLUME_WRITE], 1);
        wire_close(w);
}

static void no_fua_means_none_in_the_engine(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t data[4096] = {1};

        assert_int_equal(wire_write_wait(w, 0, 0, data, 4096), 0);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, 0, 4096), 0);
        struct fake_counts counts = fake_counts(fixture_volume(*state));
        assert_int_equal(counts.fua[VOLUME_WRITE] + counts.fua[VOLUME_DISCARD], 0);
        assert_int_equal(counts.submitted[VOLUME_FLUSH], 0);
        wire_close(w);
}

static void a_flush_is_answered_only_after_the_engine_has_flushed(void **state)
{
        struct volume *volume = fixture_volume(*state);
        struct wire *a = open_vol(state), *b = open_vol(state);
        uint8_t data[4096] = {1};

        assert_int_equal(wire_write_wait(a, 0, 0, data, 4096), 0);
        fake_hold(volume);
        wire_request(b, NBD_CMD_FLUSH, 0, 7, 0, 0); /* on another connection */
        fake_wait_held(volume, 1);
        wire_request(b, 8, 0, 8, 0, 0);
        assert_int_equal(wire_result(b, 8), NBD_EINVAL); /* comes first: the flush is still out */
        fake_release_all(volume);
        assert_int_equal(wire_result(b, 7), 0);
        assert_int_equal(fake_counts(volume).submitted[VOLUME_FLUSH], 1);
        wire_close(a);
        wire_close(b);
}

static void connections_of_an_export_see_each_others_writes(void **state)
{
        struct wire *a = open_vol(state), *b = wire_open(fixture_path(*state), "pool/vol", false);
        uint8_t data[5000], back[5000];

        fill(data, sizeof(data), 3);
        assert_int_equal(wire_write_wait(a, 0, 777, data, sizeof(data)), 0);
        assert_int_equal(wire_read(b, 0, 777, back, sizeof(back)), 0);
        assert_memory_equal(back, data, sizeof(data));
        wire_close(a);
        wire_close(b);
}

/* ---- zeroes and holes ---- */

static uint32_t one_status(struct wire *w, uint64_t offset, uint32_t length)
{
        struct nbd_status_descriptor extent;
        unsigned n;

        assert_int_equal(wire_status(w, NBD_CMD_FLAG_REQ_ONE, offset, length, &extent, 1, &n), 0);
        assert_int_equal(be32_get(extent.length), length);
        return be32_get(extent.flags);
}

static void write_zeroes_zeroes_and_no_hole_leaves_the_range_provisioned(void **state)
{
        struct fixture *f = *state;
        struct wire *w = open_vol(state);
        const uint32_t length = 3 * MIB + 4096 * 5;

        fake_fill(fixture_volume(f), 0, 0xaa, 16 * MIB);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 4096, 8192), 0);
        assert_int_equal(one_status(w, 4096, 8192) & NBD_STATE_ZERO, NBD_STATE_ZERO);
        unsigned n_zeroed = fake_counts(fixture_volume(f)).submitted[VOLUME_ZERO];
        assert_int_equal(
            wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 8 * MIB, length), 0);
        /* The engine's zeroes take no space: only data do. */
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_ZERO], n_zeroed);
        assert_true(fake_counts(fixture_volume(f)).submitted[VOLUME_WRITE] > 0);
        assert_int_equal(one_status(w, 8 * MIB, length) & NBD_STATE_HOLE, 0);
        assert_int_equal(fake_data(fixture_volume(f))[8 * MIB - 1], 0xaa);
        const uint8_t *zeroed = fake_data(fixture_volume(f)) + 8 * MIB;
        for (uint32_t i = 0; i < length; i++)
                assert_int_equal(zeroed[i], 0);
        assert_int_equal(fake_data(fixture_volume(f))[8 * MIB + length], 0xaa);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_FLUSH], 0);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES,
                                      NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA, 100, 70000),
                         0);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_FLUSH],
                         1); /* FUA of all slices */
        wire_close(w);
}

static void fast_zero_is_fast_or_changes_nothing(void **state)
{
        struct fixture *f = *state;
        struct wire *w = open_vol(state);

        fake_fill(fixture_volume(f), 5, 9, 1);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES,
                                      NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE, 0, 4096),
                         NBD_ENOTSUP);
        assert_int_equal(fake_data(fixture_volume(f))[5], 9);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 4096), 0);
        assert_int_equal(fake_data(fixture_volume(f))[5], 0);
        assert_int_equal(fake_counts(fixture_volume(f)).submitted[VOLUME_WRITE], 0);
        wire_close(w);
}

static void requests_without_payload_may_be_longer_than_32_mib(void **state)
{
        struct wire *w = wire_open(fixture_path(*state), "pool/big", true);
        struct nbd_status_descriptor extent;
        unsigned n;

        assert_int_equal(wire_status(w, 0, 0, 0xffffffff, &extent, 1, &n), 0);
        assert_int_equal(be32_get(extent.length), 0xffffffff);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, 0, 64 * MIB), 0);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 0, 64 * MIB), 0);
        assert_int_equal(wire_command(w, NBD_CMD_CACHE, 0, 0, 0xffffffff), 0);
        wire_close(w);
}

static uint16_t flags_of_vol(void **state)
{
        struct wire *w = wire_connect(fixture_path(*state));
        uint16_t flags;

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        wire_go(w, "vol", NULL, &flags);
        wire_close(w);
        return flags;
}

static void trim_is_not_offered_and_changes_nothing_where_discard_is_off(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t data[8192];

        assert_true(flags_of_vol(state) & NBD_FLAG_SEND_TRIM);
        fake_keep(fixture_volume(*state), true);
        assert_false(flags_of_vol(state) & NBD_FLAG_SEND_TRIM);
        assert_true(flags_of_vol(state) & NBD_FLAG_SEND_WRITE_ZEROES);
        memset(data, 1, sizeof(data));
        assert_int_equal(wire_write_wait(w, 0, 0, data, sizeof(data)), 0);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 8192), 0);
        assert_int_equal(one_status(w, 0, 8192), 0);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 0, 8192), 0);
        assert_int_equal(one_status(w, 0, 8192), NBD_STATE_ZERO);
        wire_close(w);
}

static void trim_makes_holes(void **state)
{
        struct wire *w = open_vol(state);
        uint8_t data[8192];

        memset(data, 1, sizeof(data));
        assert_int_equal(wire_write_wait(w, 0, 0, data, sizeof(data)), 0);
        assert_int_equal(one_status(w, 0, 8192), 0);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, 0, 8192), 0);
        assert_int_equal(one_status(w, 0, 8192), NBD_STATE_HOLE | NBD_STATE_ZERO);
        wire_close(w);
}

/* ---- block status ---- */

static void block_status_covers_the_range_once(void **state)
{
        struct wire *w = open_vol(state);
        struct nbd_status_descriptor extents[16];
        uint8_t data[4096];
        unsigned n;
        static const uint32_t lengths[] = {4096 - 100, 4096, 4096, 4096 * 2 + 50};
        static const uint32_t flags[] = {3, 0, 2, 3};

        memset(data, 1, sizeof(data));
        assert_int_equal(wire_write_wait(w, 0, 4096, data, 4096), 0);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 8192, 4096), 0);
        assert_int_equal(wire_status(w, 0, 100, 4096 * 5 - 50, extents, 16, &n), 0);
        assert_int_equal(n, 4);
        for (unsigned i = 0; i < n; i++) {
                assert_int_equal(be32_get(extents[i].length), lengths[i]);
                assert_int_equal(be32_get(extents[i].flags), flags[i]);
        }
        /* REQ_ONE: one extent, no longer than was asked for */
        assert_int_equal(wire_status(w, NBD_CMD_FLAG_REQ_ONE, 4096, 4096 * 3, extents, 1, &n), 0);
        assert_int_equal(be32_get(extents[0].length), 4096);
        assert_int_equal(wire_status(w, NBD_CMD_FLAG_REQ_ONE, 4096, 17, extents, 1, &n), 0);
        assert_int_equal(be32_get(extents[0].length), 17);
        wire_close(w);
}

static void block_status_gives_a_bounded_number_of_extents(void **state)
{
        enum { N = 3000 };
        struct wire *w = open_vol(state);
        static struct nbd_status_descriptor extents[2 * N];
        uint8_t data[1] = {1};
        uint64_t sum = 0;
        unsigned n;

        for (unsigned i = 0; i < N; i++)
                assert_int_equal(wire_write_wait(w, 0, i * 8192, data, 1), 0);
        assert_int_equal(wire_status(w, 0, 0, N * 8192, extents, 2 * N, &n), 0);
        assert_true(n > 0 && n <= 2048);
        for (unsigned i = 0; i < n; i++) {
                assert_int_equal(be32_get(extents[i].flags), i % 2 ? 3 : 0);
                sum += be32_get(extents[i].length);
        }
        assert_true(sum <= N * 8192);
        wire_close(w);
}

static void block_status_needs_a_context(void **state)
{
        struct wire *w = wire_connect(fixture_path(*state));
        struct nbd_status_descriptor extent;
        unsigned n;

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
        wire_structured(w);
        wire_go(w, "vol", NULL, NULL);
        assert_int_equal(wire_status(w, 0, 0, 4096, &extent, 1, &n), NBD_EINVAL);
        wire_expect_alive(w);
        wire_close(w);
}

/* ---- DF ---- */

static void unfragmented_reads_work_and_are_refused_only_when_too_long(void **state)
{
        struct wire *w = open_vol(state), *simple = wire_open(fixture_path(*state), "vol", false);
        uint8_t *back = malloc(PAYLOAD_MAX_TEST);

        assert_int_equal(wire_read(w, NBD_CMD_FLAG_DF, 1, back, 65536), 0);
        assert_int_equal(wire_read(w, NBD_CMD_FLAG_DF, 0, back, PAYLOAD_MAX_TEST), 0);
        assert_int_equal(wire_read(w, NBD_CMD_FLAG_DF, 0, back, PAYLOAD_MAX_TEST + 1),
                         NBD_EOVERFLOW);
        assert_int_equal(wire_read(w, 0, 0, back, PAYLOAD_MAX_TEST + 1), NBD_EINVAL);
        assert_int_equal(wire_read(simple, NBD_CMD_FLAG_DF, 0, back, 4096), NBD_EINVAL);
        wire_close(w);
        wire_close(simple);
        free(back);
}

/* ---- failures of the engine ---- */

static void a_read_that_fails_gets_one_error_that_ends_it_and_no_data(void **state)
{
        struct wire *w = open_vol(state), *simple = wire_open(fixture_path(*state), "vol", false);
        struct wire_answer answer;
        uint8_t *back = malloc(PAYLOAD_MAX_TEST);

        fake_fail(fixture_volume(*state), VOLUME_READ, -EIO);
        wire_request(w, NBD_CMD_READ, 0, 1, 0, PAYLOAD_MAX_TEST);
        wire_answer(w, &answer);
        assert_int_equal(answer.type, NBD_REPLY_TYPE_ERROR);
        assert_int_equal(answer.flags, NBD_REPLY_FLAG_DONE);
        assert_int_equal(answer.error, NBD_EIO);
        wire_request(simple, NBD_CMD_READ, 0, 1, 0, PAYLOAD_MAX_TEST);
        wire_answer(simple, &answer);
        assert_int_equal(answer.error, NBD_EIO);
        fake_fail(fixture_volume(*state), VOLUME_READ, 0);
        wire_expect_alive(w); /* nothing has come in between */
        wire_expect_alive(simple);
        assert_int_equal(wire_read(w, 0, 0, back, PAYLOAD_MAX_TEST), 0);
        wire_close(w);
        wire_close(simple);
        free(back);
}

static void errors_of_the_engine_are_put_into_the_protocols_words(void **state)
{
        static const struct {
                int error;
                uint32_t nbd;
        } errors[] = {
            {-EIO, NBD_EIO},       {-EDQUOT, NBD_ENOSPC},     {-EFBIG, NBD_ENOSPC},
            {-ENOSPC, NBD_ENOSPC}, {-EROFS, NBD_EPERM},       {-EPERM, NBD_EPERM},
            {-ENOMEM, NBD_ENOMEM}, {-EINVAL, NBD_EINVAL},     {-EOVERFLOW, NBD_EIO},
            {-EUCLEAN, NBD_EIO},   {-EOPNOTSUPP, NBD_EINVAL}, {-ESHUTDOWN, NBD_ESHUTDOWN}};
        struct volume *volume = fixture_volume(*state);
        struct nbd_status_descriptor extent;
        uint8_t data[4096] = {0};
        unsigned n;

        for (unsigned structured = 0; structured < 2; structured++) {
                struct wire *w = wire_open(fixture_path(*state), "vol", structured);
                for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
                        for (unsigned op = VOLUME_READ; op <= VOLUME_ZERO; op++)
                                fake_fail(volume, op, errors[i].error);
                        fake_fail_status(volume, errors[i].error);
                        assert_int_equal(wire_write_wait(w, 0, 0, data, 4096), errors[i].nbd);
                        assert_int_equal(wire_read(w, 0, 0, data, 4096), errors[i].nbd);
                        assert_int_equal(wire_command(w, NBD_CMD_FLUSH, 0, 0, 0), errors[i].nbd);
                        assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, 0, 1), errors[i].nbd);
                        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 0, 1),
                                         errors[i].nbd);
                        assert_int_equal(
                            wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 0, 1),
                            errors[i].nbd);
                        assert_int_equal(wire_command(w, NBD_CMD_CACHE, 0, 0, 1), errors[i].nbd);
                        if (structured)
                                assert_int_equal(wire_status(w, 0, 0, 1, &extent, 1, &n),
                                                 errors[i].nbd);
                }
                for (unsigned op = VOLUME_READ; op <= VOLUME_ZERO; op++)
                        fake_fail(volume, op, 0);
                fake_fail_status(volume, 0);
                wire_expect_alive(w);
                wire_close(w);
        }
}

static void enotsup_is_for_fast_zero_only(void **state)
{
        struct wire *w = open_vol(state);

        fake_fail(fixture_volume(*state), VOLUME_ZERO, -EOPNOTSUPP);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 1),
                         NBD_ENOTSUP);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, 0, 1), NBD_EINVAL);
        wire_close(w);
}

static void a_flush_that_fails_fails_the_fua_of_provisioned_zeroes(void **state)
{
        struct wire *w = open_vol(state);
        uint16_t flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA;

        fake_fail(fixture_volume(*state), VOLUME_FLUSH, -EIO);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, flags, 0, 5 * MIB), NBD_EIO);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 0, 5 * MIB),
                         0);
        wire_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(data_of_any_length_come_back_in_simple_replies),
            TEST(data_of_any_length_come_back_in_structured_replies),
            TEST(many_requests_in_one_segment_are_all_served),
            TEST(requests_may_arrive_in_pieces_of_any_size),
            TEST(large_writes_may_follow_each_other_and_mix_with_small_ones),
            TEST(replies_come_as_requests_finish_not_as_they_came),
            TEST(with_structured_replies_a_read_never_gets_a_simple_one),
            TEST(ranges_past_the_end_get_enospc_for_writes_and_einval_for_others),
            TEST(a_read_only_export_refuses_writes_and_takes_their_payload),
            TEST(a_refused_write_of_any_length_leaves_the_stream_in_step),
            TEST(zero_length_disconnects_nobody),
            TEST(unknown_commands_and_flags_are_einval),
            TEST(a_wrong_magic_ends_the_connection),
            TEST(fua_is_legal_everywhere_and_reaches_the_engine_on_what_writes),
            TEST(a_write_with_fua_is_answered_only_after_the_engine_says_so),
            TEST(no_fua_means_none_in_the_engine),
            TEST(a_flush_is_answered_only_after_the_engine_has_flushed),
            TEST(connections_of_an_export_see_each_others_writes),
            TEST(write_zeroes_zeroes_and_no_hole_leaves_the_range_provisioned),
            TEST(fast_zero_is_fast_or_changes_nothing),
            TEST(requests_without_payload_may_be_longer_than_32_mib),
            TEST(trim_makes_holes),
            TEST(trim_is_not_offered_and_changes_nothing_where_discard_is_off),
            TEST(block_status_covers_the_range_once),
            TEST(block_status_gives_a_bounded_number_of_extents),
            TEST(block_status_needs_a_context),
            TEST(unfragmented_reads_work_and_are_refused_only_when_too_long),
            TEST(a_read_that_fails_gets_one_error_that_ends_it_and_no_data),
            TEST(errors_of_the_engine_are_put_into_the_protocols_words),
            TEST(enotsup_is_for_fast_zero_only),
            TEST(a_flush_that_fails_fails_the_fua_of_provisioned_zeroes),
        };
        return cmocka_run_group_tests_name("nbd requests", tests, NULL, NULL);
}
