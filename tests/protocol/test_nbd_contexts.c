/* test_nbd_contexts.c - metadata contexts, at wire level: how they are listed and selected, and
 * block status of one and of several. */
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

/* ---- asking ---- */

#define QUERIES(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

#define NAMES_BYTES 16384
struct named {
        char names[NAMES_BYTES]; /* each with a blank behind it, in the order of the replies */
        uint32_t id[80];
        unsigned n;
        uint32_t final; /* NBD_REP_ACK or an error */
};

static struct named *ask(struct wire *w, uint32_t option, const char *name,
                         const char *const *queries)
{
        static struct named named;
        static uint8_t data[65536];
        struct wire_reply reply;
        size_t length = 0;

        memset(&named, 0, sizeof(named));
        wire_option(w, option, data, wire_meta_data(data, name, queries));
        for (;; named.n++) {
                wire_reply(w, option, &reply);
                if (reply.type != NBD_REP_META_CONTEXT)
                        break;
                be32 id;
                memcpy(&id, reply.data, sizeof(id));
                if (named.n < 80)
                        named.id[named.n] = be32_get(id);
                if (length < NAMES_BYTES)
                        length += (size_t)snprintf(named.names + length, NAMES_BYTES - length,
                                                   "%s ", (char *)reply.data + 4);
        }
        named.final = reply.type;
        return &named;
}

static void expect_named(struct wire *w, uint32_t option, const char *const *queries,
                         const char *names)
{
        const struct named *named = ask(w, option, "vol", queries);

        assert_int_equal(named->final, NBD_REP_ACK);
        assert_string_equal(named->names, names);
}

static void expect_list(struct wire *w, const char *const *queries, const char *names)
{
        expect_named(w, NBD_OPT_LIST_META_CONTEXT, queries, names);
}

static void expect_set(struct wire *w, const char *const *queries, const char *names)
{
        expect_named(w, NBD_OPT_SET_META_CONTEXT, queries, names);
}

static bool has_status(struct wire *w)
{
        struct nbd_status_descriptor extent[8];
        unsigned n;
        uint32_t error = wire_status(w, 0, 0, 4096, extent, 8, &n);

        assert_true(error == 0 || error == NBD_EINVAL);
        return error == 0;
}

/* ---- listing and selecting ---- */

static void meta_contexts_need_structured_replies(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[64];
        size_t length = wire_meta_data(data, "vol", QUERIES("base:allocation"));

        assert_int_equal(wire_ask(w, NBD_OPT_SET_META_CONTEXT, data, length), NBD_REP_ERR_INVALID);
        assert_int_equal(wire_ask(w, NBD_OPT_LIST_META_CONTEXT, data, length), NBD_REP_ERR_INVALID);
        wire_structured(w);
        expect_set(w, QUERIES("base:allocation"), "base:allocation ");
        wire_close(w);
}

static void list_without_queries_names_every_context(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_structured(w);
        expect_list(w, QUERIES(), "base:allocation qemu:allocation-depth qemu:dirty-bitmap:snap ");
        fixture_snapshots_extra(*state, 2);
        expect_list(w, QUERIES(),
                    "base:allocation qemu:allocation-depth qemu:dirty-bitmap:snap "
                    "qemu:dirty-bitmap:s0 qemu:dirty-bitmap:s1 ");
        expect_named(w, NBD_OPT_LIST_META_CONTEXT, QUERIES("qemu:dirty-bitmap:s1"),
                     "qemu:dirty-bitmap:s1 ");
        const struct named *named =
            ask(w, NBD_OPT_LIST_META_CONTEXT, "pool/vol@snap", QUERIES("qemu:dirty-bitmap:"));
        assert_int_equal(named->n, 3); /* a snapshot's are those of its volume */
        named = ask(w, NBD_OPT_LIST_META_CONTEXT, "pool/big", QUERIES());
        assert_string_equal(named->names, "base:allocation qemu:allocation-depth ");
        wire_close(w);
}

static void namespaces_are_wildcards_only_in_list(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_structured(w);
        expect_list(w, QUERIES("base:"), "base:allocation ");
        expect_list(w, QUERIES("qemu:"), "qemu:allocation-depth qemu:dirty-bitmap:snap ");
        expect_list(w, QUERIES("qemu:dirty-bitmap:"), "qemu:dirty-bitmap:snap ");
        expect_list(w, QUERIES("qemu:dirty-bitmap:snap", "qemu:dirty-bitmap:"),
                    "qemu:dirty-bitmap:snap ");
        expect_list(w, QUERIES("qemu:dirty-bitmap:sna", "qemu:dirty-bitmap"), "");
        expect_set(w, QUERIES(), "");
        expect_set(w, QUERIES("base:", "qemu:", "qemu:dirty-bitmap:"), "");
        wire_go(w, "vol", NULL, NULL);
        assert_false(has_status(w));
        wire_close(w);
}

static void unknown_contexts_are_ignored_and_one_named_twice_counts_once(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_structured(w);
        expect_list(w, QUERIES("x-no:such", "base:none"), "");
        expect_set(w, QUERIES("qemu:x", "base:allocation", "nocolon", "", "base:allocation"),
                   "base:allocation ");
        expect_set(w,
                   QUERIES("qemu:dirty-bitmap:none", "qemu:dirty-bitmap:snap",
                           "qemu:dirty-bitmap:snap", "qemu:dirty-bitmap:s0"),
                   "qemu:dirty-bitmap:snap ");
        assert_int_equal(fixture_n_held(*state), 1);
        wire_go(w, "vol", NULL, NULL);
        assert_true(has_status(w));
        wire_close(w);
}

static void setting_contexts_replaces_the_old_even_when_it_fails(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[64];
        size_t length = wire_meta_data(data, "vol", QUERIES("base:allocation"));

        wire_structured(w);
        wire_set_meta(w, "vol");
        for (size_t cut = 0; cut < length; cut++)
                assert_int_equal(wire_ask(w, NBD_OPT_SET_META_CONTEXT, data, cut),
                                 NBD_REP_ERR_INVALID);
        wire_go(w, "vol", NULL, NULL);
        assert_false(has_status(w));
        wire_close(w);

        w = wire_greeted(fixture_path(*state));
        wire_structured(w);
        expect_set(w, QUERIES("base:allocation", "qemu:dirty-bitmap:snap"),
                   "base:allocation qemu:dirty-bitmap:snap ");
        assert_int_equal(fixture_n_held(*state), 1);
        assert_int_equal(ask(w, NBD_OPT_SET_META_CONTEXT, "vol",
                             QUERIES("qemu:dirty-bitmap:snap", "qemu:dirty-bitmap:locked"))
                             ->final,
                         NBD_REP_ERR_POLICY);
        assert_int_equal(fixture_n_held(*state), 0);
        wire_go(w, "vol", NULL, NULL);
        assert_false(has_status(w));
        wire_close(w);
}

static void bad_meta_context_options_are_invalid(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));
        uint8_t data[64] = {0};
        size_t length = wire_meta_data(data, "vol", QUERIES("base:allocation"));

        wire_structured(w);
        assert_int_equal(wire_ask(w, NBD_OPT_LIST_META_CONTEXT, data, length + 1),
                         NBD_REP_ERR_INVALID);
        be32 huge = be32_make(0xffffffff);
        memcpy(data + 7, &huge, sizeof(huge)); /* the number of queries */
        assert_int_equal(wire_ask(w, NBD_OPT_LIST_META_CONTEXT, data, length), NBD_REP_ERR_INVALID);
        length = wire_meta_data(data, "nosuch", QUERIES("base:allocation"));
        assert_int_equal(wire_ask(w, NBD_OPT_SET_META_CONTEXT, data, length), NBD_REP_ERR_UNKNOWN);
        wire_go(w, "vol", NULL, NULL);
        wire_close(w);
}

static void contexts_are_void_for_another_export(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_structured(w);
        expect_set(w, QUERIES("base:allocation", "qemu:dirty-bitmap:snap"),
                   "base:allocation qemu:dirty-bitmap:snap ");
        wire_go(w, "pool/big", NULL, NULL);
        assert_int_equal(fixture_n_held(*state), 0);
        assert_false(has_status(w));
        wire_close(w);
}

static void contexts_are_few_and_snapshots_listed_are_bounded(void **state)
{
        static const char *queries[67];
        static char names[66][40];
        struct wire *w = wire_greeted(fixture_path(*state));

        fixture_snapshots_extra(*state, 1000000);
        for (unsigned i = 0; i < 66; i++) {
                snprintf(names[i], sizeof(names[i]), "qemu:dirty-bitmap:s%u", i);
                queries[i] = names[i];
        }
        wire_structured(w);
        assert_int_equal(ask(w, NBD_OPT_SET_META_CONTEXT, "vol", queries)->final,
                         NBD_REP_ERR_TOO_BIG);
        assert_int_equal(fixture_n_held(*state), 0);
        queries[64] = NULL;
        const struct named *named = ask(w, NBD_OPT_SET_META_CONTEXT, "vol", queries);
        assert_int_equal(named->final, NBD_REP_ACK);
        assert_int_equal(named->n, 64);
        for (unsigned i = 0; i < 64; i++)
                for (unsigned k = 0; k < i; k++)
                        assert_int_not_equal(named->id[i], named->id[k]);
        assert_int_equal(fixture_n_held(*state), 64);
        assert_int_equal(
            ask(w, NBD_OPT_LIST_META_CONTEXT, "vol", QUERIES("qemu:dirty-bitmap:"))->final,
            NBD_REP_ERR_TOO_BIG);
        /* Whoever asks for everything is told what to ask for instead. */
        expect_list(w, QUERIES(), "base:allocation qemu:allocation-depth qemu:dirty-bitmap: ");
        expect_list(w, QUERIES("qemu:"), "qemu:allocation-depth qemu:dirty-bitmap: ");
        assert_int_equal(fixture_n_held(*state), 64);
        wire_go(w, "vol", NULL, NULL);
        wire_close(w);
        while (fixture_n_held(*state) > 0)
                usleep(1000);
}

static void a_client_that_leaves_lets_go_of_the_snapshots_of_its_contexts(void **state)
{
        struct wire *w = wire_greeted(fixture_path(*state));

        wire_structured(w);
        expect_set(w, QUERIES("qemu:dirty-bitmap:snap"), "qemu:dirty-bitmap:snap ");
        wire_close(w); /* in the negotiation */
        while (fixture_n_held(*state) > 0)
                usleep(1000);
        w = wire_greeted(fixture_path(*state));
        wire_structured(w);
        expect_set(w, QUERIES("qemu:dirty-bitmap:snap"), "qemu:dirty-bitmap:snap ");
        wire_go(w, "vol", NULL, NULL);
        assert_int_equal(fixture_n_held(*state), 1);
        wire_close(w);
        while (fixture_n_held(*state) > 0)
                usleep(1000);
}

/* ---- block status ---- */

/* A block of data at 4096, zeroes at 8192; then all three contexts. */
static struct wire *open_three(struct fixture *f, bool extended)
{
        struct wire *w = wire_greeted(fixture_path(f));
        uint8_t data[4096] = {1};

        if (extended)
                wire_extended(w);
        else
                wire_structured(w);
        expect_set(w, QUERIES("qemu:dirty-bitmap:snap", "base:allocation", "qemu:allocation-depth"),
                   "qemu:dirty-bitmap:snap base:allocation qemu:allocation-depth ");
        wire_go(w, "vol", NULL, NULL);
        wire_write(w, 0, 1, 4096, data, sizeof(data));
        assert_int_equal(wire_result(w, 1), 0);
        wire_request(w, NBD_CMD_WRITE_ZEROES, 0, 2, 8192, 4096);
        assert_int_equal(wire_result(w, 2), 0);
        return w;
}

static void expect_extents(const struct wire_context *context, const struct wire_extent *extents,
                           unsigned n)
{
        assert_int_equal(context->n, n);
        for (unsigned i = 0; i < n; i++) {
                assert_true(context->extents[i].length == extents[i].length);
                assert_true(context->extents[i].flags == extents[i].flags);
        }
}

static void block_status_gives_one_chunk_a_context(void **state)
{
        static const struct wire_extent changed[] = {{4096, 0}, {4096, NBD_STATE_DIRTY}, {8192, 0}};
        static const struct wire_extent allocation[] = {{4096, 3}, {4096, 0}, {4096, 2}, {4096, 3}};
        static const struct wire_extent depth[] = {{4096, 0}, {4096, 1}, {4096, 2}, {4096, 0}};
        static struct wire_context context[3];

        for (unsigned extended = 0; extended < 2; extended++) {
                struct wire *w = open_three(*state, extended);
                wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 3, 0, 16384);
                for (unsigned i = 0; i < 3; i++) {
                        assert_int_equal(wire_status_chunk(w, 3, &context[i]), 0);
                        assert_int_equal(context[i].last, i == 2);
                }
                expect_extents(&context[0], changed, 3);
                expect_extents(&context[1], allocation, 4);
                expect_extents(&context[2], depth, 4);
                assert_true(context[0].id != context[1].id && context[1].id != context[2].id);
                wire_request(w, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 4, 5000, 100000);
                for (unsigned i = 0; i < 3; i++) {
                        assert_int_equal(wire_status_chunk(w, 4, &context[i]), 0);
                        assert_int_equal(context[i].n, 1);
                        assert_true(context[i].extents[0].length == 8192 - 5000);
                }
                wire_expect_alive(w);
                wire_close(w);
        }
}

static void block_status_with_payload_gives_the_contexts_asked_for_only(void **state)
{
        struct wire *w = open_three(*state, true);
        static struct wire_context context;

        for (unsigned mask = 1; mask < 8; mask++) {
                struct {
                        be64 length;
                        be32 id[3];
                } payload = {be64_make(16384), {{{0}}, {{0}}, {{0}}}};
                unsigned n = 0;
                for (unsigned i = 3; i > 0; i--) /* in any order */
                        if (mask & (1u << (i - 1)))
                                payload.id[n++] = be32_make(i);
                wire_request(w, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, mask, 0, 8 + 4 * n);
                wire_send(w, &payload, 8 + 4 * n);
                for (unsigned i = 0, seen = 0; i < n; i++) {
                        assert_int_equal(wire_status_chunk(w, mask, &context), 0);
                        assert_int_equal(context.last, i == n - 1);
                        assert_true(mask & (1u << (context.id - 1)) & ~seen);
                        seen |= 1u << (context.id - 1);
                }
        }
        wire_expect_alive(w);
        wire_close(w);
}

/* Asked anywhere, for any length. */
static void all_extents_but_the_last_add_up_to_less_than_was_asked_for(void **state)
{
        struct wire *w = open_three(*state, false);
        static struct wire_context context;
        uint8_t data[1] = {1};

        for (unsigned i = 0; i < 200; i++) {
                wire_write(w, 0, i, i * 12288, data, 1);
                assert_int_equal(wire_result(w, i), 0);
        }
        for (unsigned round = 0; round < 300; round++) {
                uint64_t offset = round * 7919u % (200 * 12288),
                         length = 1 + round * 104729u % 500000;
                uint16_t flags = round % 3 ? 0 : NBD_CMD_FLAG_REQ_ONE;
                wire_request(w, NBD_CMD_BLOCK_STATUS, flags, round, offset, length);
                for (unsigned i = 0; i < 3; i++) {
                        uint64_t sum = 0;
                        assert_int_equal(wire_status_chunk(w, round, &context), 0);
                        for (unsigned k = 0; k + 1 < context.n; k++)
                                sum += context.extents[k].length;
                        assert_true(sum < length);
                        if (flags)
                                assert_true(context.n == 1 && context.extents[0].length <= length);
                }
        }
        wire_close(w);
}

static void extents_are_bounded_over_all_contexts(void **state)
{
        enum { N = 3000 };
        struct wire *w = open_three(*state, false);
        static struct wire_context context;
        uint8_t data[1] = {1};
        unsigned n = 0;

        for (unsigned i = 0; i < N; i++) {
                wire_write(w, 0, i, i * 8192, data, 1);
                assert_int_equal(wire_result(w, i), 0);
        }
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 3, 0, N * 8192);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(wire_status_chunk(w, 3, &context), 0);
                assert_true(context.n > 100);
                n += context.n;
        }
        assert_true(n <= 2048);
        wire_close(w);
}

static void a_context_that_fails_is_one_error_for_all(void **state)
{
        struct wire *w = open_three(*state, false);
        static struct wire_context context;

        fake_fail_status(fixture_volume(*state), -EIO);
        wire_request(w, NBD_CMD_BLOCK_STATUS, 0, 3, 0, 16384);
        assert_int_equal(wire_status_chunk(w, 3, &context), NBD_EIO);
        fake_fail_status(fixture_volume(*state), 0);
        wire_expect_alive(w);
        wire_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(meta_contexts_need_structured_replies),
            TEST(list_without_queries_names_every_context),
            TEST(namespaces_are_wildcards_only_in_list),
            TEST(unknown_contexts_are_ignored_and_one_named_twice_counts_once),
            TEST(setting_contexts_replaces_the_old_even_when_it_fails),
            TEST(bad_meta_context_options_are_invalid),
            TEST(contexts_are_void_for_another_export),
            TEST(contexts_are_few_and_snapshots_listed_are_bounded),
            TEST(a_client_that_leaves_lets_go_of_the_snapshots_of_its_contexts),
            TEST(block_status_gives_one_chunk_a_context),
            TEST(block_status_with_payload_gives_the_contexts_asked_for_only),
            TEST(all_extents_but_the_last_add_up_to_less_than_was_asked_for),
            TEST(extents_are_bounded_over_all_contexts),
            TEST(a_context_that_fails_is_one_error_for_all),
        };
        return cmocka_run_group_tests_name("nbd contexts", tests, NULL, NULL);
}
