/* test_nbd_overlap.c - writes that overlap and are in flight together: each 4 KiB block shows them
 * one after another, whole, in some order; and reads that come in between see a state on that way.
 *
 * A round gives a small region known bytes, sends overlapping writes of any offset and length, with
 * reads among them, and waits for all. Each write has a byte value of its own, so what is read says
 * who came last at each byte. Within a block, who shows at one byte came after all others that
 * cover it; if these relations go round in a circle, something was torn.
 *
 * NBD_SOCKET names the socket of a server that has an export pool/vol; without it the engine in
 * memory serves. TARN_TEST_SEED=N takes other numbers. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/protocol/fixture.h"
#include "tests/protocol/wire.h"

enum { BLOCK = 4096, REGION = 5 * BLOCK, WRITERS = 8, READERS = 4, CONNECTIONS = 2 };
#define ROUNDS 1000u
#define OLD    WRITERS /* the node of what was there before */

static uint64_t seed;

static uint32_t below(uint32_t n)
{
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t)(seed >> 33) % n;
}

struct range {
        uint32_t offset, length;
};

struct round {
        uint64_t base; /* of the region, in the volume */
        uint8_t old[REGION];
        struct range writes[WRITERS];
        bool zeroes; /* the last writer writes them, by WRITE_ZEROES or TRIM */
};

static uint8_t stamp(const struct round *round, unsigned writer)
{
        return round->zeroes && writer == WRITERS - 1 ? 0 : (uint8_t)(writer + 1);
}

static struct range random_range(void)
{
        struct range r = {below(REGION), 0};

        switch (below(3)) {
        case 0: /* a few bytes or sectors */
                r.length = 1 + below(1200);
                break;
        case 1:
                r.length = 1 + below(REGION);
                break;
        default: /* whole blocks */
                r.offset = r.offset / BLOCK * BLOCK;
                r.length = BLOCK * (1 + below(REGION / BLOCK));
        }
        if (r.length > REGION - r.offset)
                r.length = REGION - r.offset;
        return r;
}

static bool covers(struct range r, uint32_t at)
{
        return at >= r.offset && at - r.offset < r.length;
}

/* Whose the byte at @at is: a writer, or OLD. */
static unsigned owner(const struct round *round, const uint8_t *data, uint32_t at)
{
        for (unsigned w = 0; w < WRITERS; w++)
                if (data[at] == stamp(round, w) && covers(round->writes[w], at))
                        return w;
        if (data[at] != round->old[at])
                fail_msg("byte %" PRIu32 " of the region is 0x%02x, which nobody wrote there", at,
                         data[at]);
        return OLD;
}

/* Take away again and again a node that nobody must precede; what is left has a circle. */
static bool is_acyclic(unsigned before[WRITERS + 1])
{
        unsigned left = (1u << (WRITERS + 1)) - 1;

        for (bool progress = true; progress && left;) {
                progress = false;
                for (unsigned n = 0; n <= WRITERS; n++) {
                        if ((left & (1u << n)) && !(before[n] & left)) {
                                left &= ~(1u << n);
                                progress = true;
                        }
                }
        }
        return left == 0;
}

/* @end: all writes have been answered, so all must have happened. */
static void check_block(const struct round *round, const uint8_t *data, uint32_t block, bool end)
{
        unsigned visible = 0,
                 before[WRITERS + 1] = {0}; /* before[n]: a bit for each that n came after */

        for (uint32_t at = block; at < block + BLOCK; at++)
                visible |= 1u << owner(round, data, at);
        for (unsigned w = 0; w < WRITERS; w++)
                before[w] |= 1u << OLD;
        for (uint32_t at = block; at < block + BLOCK; at++) {
                unsigned shown = owner(round, data, at);
                for (unsigned w = 0; w < WRITERS; w++)
                        if (w != shown && (end || (visible & (1u << w))) &&
                            covers(round->writes[w], at))
                                before[shown] |= 1u << w;
        }
        if (!is_acyclic(before))
                fail_msg("the block at %" PRIu64 " is torn (%s)", round->base + block,
                         end ? "after all writes" : "read among the writes");
}

static void check_region(const struct round *round, const uint8_t *data, bool end)
{
        for (uint32_t block = 0; block < REGION; block += BLOCK)
                check_block(round, data, block, end);
}

static void send_writer(struct wire *w, const struct round *round, unsigned writer)
{
        static uint8_t data[REGION];
        struct range r = round->writes[writer];
        uint64_t at = round->base + r.offset;

        if (stamp(round, writer) == 0) {
                wire_request(w, below(2) ? NBD_CMD_WRITE_ZEROES : NBD_CMD_TRIM, 0, writer, at,
                             r.length);
                return;
        }
        memset(data, stamp(round, writer), r.length);
        wire_write(w, below(64) == 0 ? NBD_CMD_FLAG_FUA : 0, writer, at, data, r.length);
}

static void prepare(struct wire *w, struct round *round)
{
        round->base = (uint64_t)below(VOL_BYTES / REGION - 1) * REGION;
        round->zeroes = below(2);
        for (uint32_t i = 0; i < REGION; i++)
                round->old[i] = (uint8_t)(100 + below(100));
        for (unsigned i = 0; i < WRITERS; i++)
                round->writes[i] = random_range();
        wire_write(w, 0, 1, round->base, round->old, REGION);
        assert_int_equal(wire_result(w, 1), 0);
}

/* Replies in whatever order: writers' are bare, readers' have the region. */
static void take_reply(struct wire *w, const struct round *round)
{
        static uint8_t data[REGION];
        struct wire_answer answer;

        wire_answer(w, &answer);
        assert_int_equal(answer.error, 0);
        if (answer.structured && answer.type == NBD_REPLY_TYPE_OFFSET_DATA) {
                wire_receive(w, data, REGION);
                check_region(round, data, false);
        }
}

static void run_round(struct wire *connections[CONNECTIONS])
{
        static struct round round;
        static uint8_t data[REGION];
        unsigned sent[CONNECTIONS] = {0};

        prepare(connections[0], &round);
        for (unsigned i = 0; i < WRITERS + READERS; i++) {
                unsigned c = below(CONNECTIONS);
                if (i % 3 == 2 && i / 3 < READERS)
                        wire_request(connections[c], NBD_CMD_READ, 0, 1000 + i, round.base, REGION);
                else
                        send_writer(connections[c], &round, i - (i + 1) / 3);
                sent[c]++;
        }
        for (unsigned c = 0; c < CONNECTIONS; c++)
                for (unsigned i = 0; i < sent[c]; i++)
                        take_reply(connections[c], &round);
        assert_int_equal(wire_read(connections[1], 0, round.base, data, REGION), 0);
        check_region(&round, data, true);
}

static void overlapping_writes_happen_one_after_another_in_each_block(void **state)
{
        const char *path = getenv("NBD_SOCKET"), *text = getenv("TARN_TEST_SEED");
        struct fixture *f = path ? NULL : fixture_start(NULL);
        struct wire *connections[CONNECTIONS];

        seed = text ? strtoull(text, NULL, 0) : 1;
        print_message("seed %" PRIu64 "\n", seed);
        for (unsigned c = 0; c < CONNECTIONS; c++)
                connections[c] = wire_open(path ? path : fixture_path(f), "pool/vol", true);
        for (unsigned round = 0; round < ROUNDS; round++)
                run_round(connections);
        for (unsigned c = 0; c < CONNECTIONS; c++)
                wire_close(connections[c]);
        if (f)
                fixture_stop(f, 5000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(overlapping_writes_happen_one_after_another_in_each_block),
        };
        return cmocka_run_group_tests_name("nbd overlap", tests, NULL, NULL);
}
