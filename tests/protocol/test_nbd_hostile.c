/* test_nbd_hostile.c - clients that send rubbish: the server drops them or answers, and serves the
 * others. What they send comes from a seed, which is printed; TARN_TEST_SEED=N takes another.
 * NBD_SOCKET names the socket of a server with exports pool/vol and pool/vol@snap; without it the
 * engine in memory serves. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/fixture.h"
#include "tests/protocol/wire.h"

static uint64_t seed;

static uint32_t random32(void)
{
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t)(seed >> 32);
}

static uint32_t below(uint32_t n)
{
        return random32() % n;
}

static void fill_random(uint8_t *data, size_t length)
{
        for (size_t i = 0; i < length; i++)
                data[i] = (uint8_t)random32();
}

static struct fixture *fixture; /* NULL: the server of NBD_SOCKET */

static const char *path(void)
{
        return fixture ? fixture_path(fixture) : getenv("NBD_SOCKET");
}

static int setup(void **state)
{
        const char *text = getenv("TARN_TEST_SEED");
        struct nbd_server_options options = {.handshake_timeout_ms = 500};

        seed = text ? strtoull(text, NULL, 0) : 1;
        print_message("seed %" PRIu64 "\n", seed);
        fixture = getenv("NBD_SOCKET") ? NULL : fixture_start(&options);
        return 0;
}

static int teardown(void **state)
{
        struct wire *w = wire_open(path(), "vol", true);

        wire_expect_alive(w);
        wire_close(w);
        if (fixture)
                fixture_stop(fixture, 1000);
        return 0;
}

/* Let the server look at what has come, or not. */
static void perhaps_wait(void)
{
        if (below(2) && fixture)
                fixture_n_clients(fixture);
}

static void random_bytes_at_every_stage(void **state)
{
        uint8_t rubbish[4096];

        for (unsigned round = 0; round < 300; round++) {
                struct wire *w = wire_connect(path());
                size_t length = 1 + below(sizeof(rubbish));
                unsigned stage = below(4);
                if (stage > 0)
                        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
                if (stage > 1)
                        wire_go(w, "vol", NULL, NULL);
                fill_random(rubbish, length);
                if (stage == 3) { /* with a request's magic, so that it is looked at */
                        be32 magic = be32_make(NBD_REQUEST_MAGIC);
                        memcpy(rubbish, &magic, sizeof(magic));
                }
                wire_try_send(w, rubbish, length);
                if (below(2))
                        wire_shutdown_send(w);
                perhaps_wait();
                wire_close(w);
        }
}

/* A whole good conversation, cut after each of its bytes. */
static void a_conversation_cut_anywhere(void **state)
{
        uint8_t stream[512], *at = stream;
        be32 flags = be32_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        struct nbd_option structured = {be64_make(NBD_OPTION_MAGIC),
                                        be32_make(NBD_OPT_STRUCTURED_REPLY)};
        struct nbd_option go = {be64_make(NBD_OPTION_MAGIC), be32_make(NBD_OPT_GO), be32_make(9)};
        struct nbd_request_header write = {.magic = be32_make(NBD_REQUEST_MAGIC),
                                           .type = be16_make(NBD_CMD_WRITE),
                                           .length = be32_make(100)};
        struct nbd_request_header disc = {.magic = be32_make(NBD_REQUEST_MAGIC),
                                          .type = be16_make(NBD_CMD_DISC)};

        at = (uint8_t *)memcpy(at, &flags, sizeof(flags)) + sizeof(flags);
        at = (uint8_t *)memcpy(at, &structured, sizeof(structured)) + sizeof(structured);
        at = (uint8_t *)memcpy(at, &go, sizeof(go)) + sizeof(go);
        at = (uint8_t *)memcpy(at, "\0\0\0\3vol\0\0", 9) + 9;
        at = (uint8_t *)memcpy(at, &write, sizeof(write)) + sizeof(write);
        at = (uint8_t *)memset(at, 7, 100) + 100;
        at = (uint8_t *)memcpy(at, &disc, sizeof(disc)) + sizeof(disc);
        for (size_t cut = 0; cut <= (size_t)(at - stream); cut++) {
                struct wire *w = wire_connect(path());
                wire_send(w, stream, cut);
                if (cut % 3 == 0)
                        wire_shutdown_send(w);
                if (cut % 3 == 0)
                        wire_drain(w);
                wire_close(w);
        }
}

static void random_options_with_random_payloads(void **state)
{
        static const uint32_t numbers[] = {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xffffffff};
        uint8_t data[70000];

        for (unsigned round = 0; round < 100; round++) {
                struct wire *w = wire_connect(path());
                wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
                if (below(2))
                        wire_structured(w);
                for (unsigned i = 0; i < 20; i++) {
                        size_t length = below(3) ? below(40) : below(65536);
                        fill_random(data, length);
                        if (length > 4 && below(2)) /* a believable length of name */
                                memcpy(data, "\0\0\0", 3);
                        struct nbd_option header = {be64_make(NBD_OPTION_MAGIC),
                                                    be32_make(numbers[below(13)]),
                                                    be32_make((uint32_t)length)};
                        if (!wire_try_send(w, &header, sizeof(header)) ||
                            !wire_try_send(w, data, length))
                                break;
                }
                wire_shutdown_send(w);
                wire_drain(w);
                wire_close(w);
        }
}

/* Options that are well-formed and say anything: contexts named right, wrong, twice, by the hundred. */
static void random_contexts(void **state)
{
        static const char *const words[] = {"base:allocation",
                                            "base:",
                                            "qemu:",
                                            "qemu:allocation-depth",
                                            "qemu:dirty-bitmap:",
                                            "qemu:dirty-bitmap:snap",
                                            "qemu:dirty-bitmap:snap@snap",
                                            "qemu:dirty-bitmap:../snap",
                                            "qemu:dirty-bitmap:%s%n",
                                            "qemu:dirty-bitmap",
                                            "",
                                            ":"};
        static const char *const names[] = {"vol", "pool/vol@snap", "", "pool/nosuch", "pool/vol"};
        const char *queries[200];
        uint8_t data[8192];

        for (unsigned round = 0; round < 60; round++) {
                struct wire *w = wire_connect(path());
                const char *name = names[below(5)];
                struct wire_reply reply;
                wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
                if (below(2))
                        wire_extended(w);
                else
                        wire_structured(w);
                for (unsigned i = 0; i < 10; i++) {
                        uint32_t option =
                            below(2) ? NBD_OPT_SET_META_CONTEXT : NBD_OPT_LIST_META_CONTEXT;
                        unsigned n = below(5) ? below(10) : below(199);
                        for (unsigned k = 0; k < n; k++)
                                queries[k] = words[below(12)];
                        queries[n] = NULL;
                        wire_option(w, option, data, wire_meta_data(data, name, queries));
                        do {
                                wire_reply(w, option, &reply);
                        } while (reply.type == NBD_REP_META_CONTEXT);
                        assert_true(reply.type == NBD_REP_ACK || reply.type == NBD_REP_ERR_UNKNOWN);
                }
                if (below(2)) {
                        wire_go(w, "vol", NULL, NULL);
                        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 65536);
                        wire_shutdown_send(w);
                        wire_drain(w);
                }
                wire_close(w);
        }
}

static struct wire *open_random(void)
{
        const char *name = below(2) ? "vol" : "pool/vol@snap";
        struct wire *w = wire_connect(path());
        static const char *const queries[] = {"base:allocation", "qemu:dirty-bitmap:snap",
                                              "qemu:allocation-depth", NULL};
        unsigned form = below(3);
        uint8_t data[256];

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
        if (form == 1)
                wire_structured(w);
        if (form == 2)
                wire_extended(w);
        if (form > 0 && below(4)) {
                wire_option(w, NBD_OPT_SET_META_CONTEXT, data,
                            wire_meta_data(data, name, queries + below(3)));
                assert_int_equal(wire_final(w, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
        }
        wire_go(w, name, NULL, NULL);
        return w;
}

/* All chunks of a reply; what they hold is taken and not looked at. */
static void take_reply(struct wire *w, uint64_t cookie, uint16_t type, uint64_t length,
                       uint8_t *back)
{
        struct wire_answer answer;

        do {
                wire_answer(w, &answer);
                assert_true(answer.cookie == cookie);
                if (answer.error == 0 && answer.structured && answer.type != NBD_REPLY_TYPE_NONE)
                        wire_receive(w, back,
                                     answer.type == NBD_REPLY_TYPE_OFFSET_DATA ? answer.length - 8
                                                                               : answer.length);
                else if (answer.error == 0 && type == NBD_CMD_READ && !answer.structured)
                        wire_receive(w, back, length);
        } while (answer.structured && !(answer.flags & NBD_REPLY_FLAG_DONE));
}

/* Requests of any type, flags, offset and length; payloads follow where they are announced, so the
 * stream stays in step, and each request gets its reply. */
static void random_requests(void **state)
{
        uint8_t *data = malloc(1 << 20), *back = malloc(1 << 20);

        for (unsigned round = 0; round < 40; round++) {
                struct wire *w = open_random();
                for (unsigned i = 0; i < 200; i++) {
                        uint16_t type = below(8) ? (uint16_t)below(9) : (uint16_t)random32();
                        uint16_t flags = below(3) ? 0 : (uint16_t)below(64);
                        uint64_t offset =
                            below(4) ? below(VOL_BYTES) : (uint64_t)random32() << below(33);
                        uint64_t length = below(4) ? below(65536) : below(1 << 20);
                        bool payload = type == NBD_CMD_WRITE;
                        if (type == NBD_CMD_DISC)
                                continue;
                        if (w->extended && type == NBD_CMD_WRITE && below(8))
                                flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
                        if (w->extended && type == NBD_CMD_BLOCK_STATUS && below(2)) {
                                flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
                                length = below(4) ? 8 + 4 * below(4) : below(300);
                        }
                        if (w->extended)
                                payload = (flags & NBD_CMD_FLAG_PAYLOAD_LEN) != 0;
                        if (w->extended && !payload && type != NBD_CMD_READ && below(2))
                                length = (uint64_t)random32() << below(33);
                        memset(data, 0, 512); /* lengths and ids that may be right */
                        for (unsigned k = 4; payload && k < 24; k++)
                                data[k] = below(2) ? (uint8_t)below(4) : 0;
                        wire_request(w, type, flags, i, offset, length);
                        if (payload)
                                wire_send(w, data, length);
                        take_reply(w, i, type, length, back);
                }
                wire_expect_alive(w);
                wire_close(w);
        }
        free(data);
        free(back);
}

static void many_connections_that_say_nothing_delay_others_by_the_deadline_at_most(void **state)
{
        enum { N = 100 };
        struct wire *silent[N];

        for (unsigned i = 0; i < N; i++)
                silent[i] = wire_connect(path());
        struct wire *w = wire_open(path(), "vol", true); /* after 64 of them have been cut */
        wire_expect_alive(w);
        wire_close(w);
        for (unsigned i = 0; i < N; i++)
                wire_close(silent[i]);
}

static void connections_opened_and_closed_at_once(void **state)
{
        for (unsigned i = 0; i < 500; i++)
                wire_close(wire_connect(path()));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(random_bytes_at_every_stage),
            TEST(a_conversation_cut_anywhere),
            TEST(random_options_with_random_payloads),
            TEST(random_contexts),
            TEST(random_requests),
            TEST(many_connections_that_say_nothing_delay_others_by_the_deadline_at_most),
            TEST(connections_opened_and_closed_at_once),
        };
        return cmocka_run_group_tests_name("nbd hostile", tests, NULL, NULL);
}
