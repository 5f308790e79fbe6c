/* What the load client rests on: the order of blocks, the percentiles, the book of stamps. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/bench/latency.h"
#include "tests/bench/link.h"
#include "tests/bench/plan.h"
#include "tests/bench/stamp.h"

#define UNIT  4096u
#define UNITS 8u
#define SEED  5u

static void random_once_visits_each_block_exactly_once(void **state)
{
        static const uint64_t sizes[] = {1, 2, 3, 5, 64, 1000, 4097};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct plan_options o = {
                    .n_blocks = sizes[i], .seed = 9, .random = true, .once = true};
                struct plan p;
                uint64_t block, n = 0, in_place = 0;
                bool is_read;
                uint8_t *seen = calloc(sizes[i], 1);

                plan_init(&p, &o);
                while (plan_next(&p, &block, &is_read)) {
                        assert_true(block < sizes[i]);
                        assert_int_equal(seen[block]++, 0);
                        in_place += block == n++;
                }
                assert_int_equal(n, sizes[i]);
                if (sizes[i] >= 1000)
                        assert_true(in_place < 20); /* it is shuffled */
                free(seen);
        }
}

static void the_same_seed_gives_the_same_plan(void **state)
{
        struct plan_options o = {
            .n_blocks = 1 << 20, .seed = 3, .read_percent = 70, .random = true};
        struct plan a, b, c;
        uint64_t block_a, block_b, block_c, reads = 0, differ = 0;
        bool read_a, read_b, read_c;

        plan_init(&a, &o);
        plan_init(&b, &o);
        o.seed = 4;
        plan_init(&c, &o);
        for (unsigned i = 0; i < 10000; i++) {
                assert_true(plan_next(&a, &block_a, &read_a));
                assert_true(plan_next(&b, &block_b, &read_b));
                assert_true(plan_next(&c, &block_c, &read_c));
                assert_int_equal(block_a, block_b);
                assert_int_equal(read_a, read_b);
                reads += read_a;
                differ += block_a != block_c;
        }
        assert_in_range(reads, 6700, 7300);
        assert_true(differ > 9900);
}

static void percentiles_are_within_two_percent(void **state)
{
        struct latency *l = calloc(1, sizeof(*l));

        assert_non_null(l);
        for (uint64_t us = 1; us <= 1000; us++)
                latency_add(l, us * 1000);
        assert_in_range(latency_percentile(l, 0.5), 490000, 510000);
        assert_in_range(latency_percentile(l, 0.99), 970000, 1010000);
        assert_int_equal(latency_percentile(l, 1), 1000000);
        latency_add(l, UINT64_MAX); /* beyond the scale */
        assert_int_equal(l->max_ns, UINT64_MAX);
        free(l);
}

static void addresses_are_understood(void **state)
{
        struct link_target t;

        assert_int_equal(
            link_parse_uri("nbd+unix:///tank/web%40s1?socket=/run/a%20b.sock", &t, NULL), 0);
        assert_string_equal(t.export_name, "tank/web@s1");
        assert_string_equal(t.socket_path, "/run/a b.sock");
        assert_int_equal(link_parse_uri("nbd://[::1]:1234/x", &t, NULL), 0);
        assert_string_equal(t.host, "::1");
        assert_string_equal(t.port, "1234");
        assert_int_equal(link_parse_uri("nbd://localhost", &t, NULL), 0);
        assert_string_equal(t.port, "10809");
        assert_string_equal(t.export_name, "");
        assert_int_equal(link_parse_uri("nbd+unix:///x", &t, NULL), -EINVAL);
        assert_int_equal(link_parse_uri("nbd+unix:///x?socket=/a%2", &t, NULL), -EINVAL);
        assert_int_equal(link_parse_uri("nbd+unix:///x?socket=/a%00b", &t, NULL), -EINVAL);
        assert_int_equal(link_parse_uri("http://x/", &t, NULL), -EINVAL);
}

/* A volume that does what it should, in memory. */
struct disk {
        struct stamp_book *book;
        uint8_t bytes[UNITS * UNIT];
};

static int open_disk(void **state)
{
        struct disk *d = calloc(1, sizeof(*d));
        if (!d || stamp_open(NULL, 0, UNITS * UNIT, UNIT, SEED, &d->book, NULL) < 0)
                return -1;
        *state = d;
        return 0;
}

static int close_disk(void **state)
{
        struct disk *d = *state;
        stamp_close(d->book);
        free(d);
        return 0;
}

static void write_unit(struct disk *d, unsigned unit)
{
        stamp_begin_write(d->book, unit * UNIT, UNIT, d->bytes + unit * UNIT);
        assert_int_equal(stamp_end_write(d->book, unit * UNIT, UNIT, false), 0);
}

static int read_unit_since(struct disk *d, unsigned unit, enum stamp_since since)
{
        stamp_begin_read(d->book, unit * UNIT, UNIT);
        return stamp_end_read(d->book, unit * UNIT, UNIT, d->bytes + unit * UNIT, since, NULL);
}

static int read_unit(struct disk *d, unsigned unit, bool after_crash)
{
        return read_unit_since(d, unit, after_crash ? STAMP_SINCE_CRASH : STAMP_SINCE_ANSWERED);
}

static void what_a_killed_client_was_answered_is_there(void **state)
{
        struct disk *d = *state;
        uint8_t old[UNIT], answered[UNIT], begun[UNIT];

        memcpy(old, d->bytes, UNIT);
        write_unit(d, 0);
        memcpy(answered, d->bytes, UNIT);
        stamp_begin_write(d->book, 0, UNIT, d->bytes);
        memcpy(begun, d->bytes, UNIT);
        memcpy(d->bytes, old, UNIT);
        assert_int_equal(read_unit_since(d, 0, STAMP_SINCE_CLIENT_END), -EILSEQ);
        memcpy(d->bytes, answered, UNIT);
        assert_int_equal(read_unit_since(d, 0, STAMP_SINCE_CLIENT_END), 0);
        memcpy(d->bytes, begun, UNIT);
        assert_int_equal(read_unit_since(d, 0, STAMP_SINCE_CLIENT_END), 0);
        assert_int_equal(read_unit(d, 0, false), 0); /* from now on it is this one, */
        memcpy(d->bytes, answered, UNIT);
        assert_int_equal(read_unit(d, 0, false), -EILSEQ);
        memcpy(d->bytes, old, UNIT); /* and not flushed */
        assert_int_equal(read_unit(d, 0, true), 0);
}

static void what_was_answered_must_be_read(void **state)
{
        struct disk *d = *state;
        uint8_t old[UNIT];

        assert_int_equal(read_unit(d, 0, false), 0); /* zeroes at first */
        write_unit(d, 0);
        assert_int_equal(read_unit(d, 0, false), 0);
        memcpy(old, d->bytes, UNIT);
        write_unit(d, 0);
        memcpy(d->bytes, old, UNIT);
        assert_int_equal(read_unit(d, 0, false), -EILSEQ);
        memset(d->bytes, 0, UNIT);
        assert_int_equal(read_unit(d, 0, false), -EILSEQ);
}

static void another_unit_s_bytes_and_mixtures_are_found(void **state)
{
        struct disk *d = *state;
        uint8_t old[UNIT];

        write_unit(d, 1);
        write_unit(d, 2);
        memcpy(old, d->bytes + UNIT, UNIT);
        memcpy(d->bytes + UNIT, d->bytes + 2 * UNIT, UNIT);
        assert_int_equal(read_unit(d, 1, true), -EILSEQ);
        memcpy(d->bytes + UNIT, old, UNIT);
        write_unit(d, 1);
        memcpy(d->bytes + UNIT + UNIT / 2, old + UNIT / 2, UNIT / 2); /* torn */
        assert_int_equal(read_unit(d, 1, true), -EILSEQ);
        write_unit(d, 1);
        d->bytes[2 * UNIT - 1] ^= 1;
        assert_int_equal(read_unit(d, 1, false), -EILSEQ);
}

static void a_crash_may_undo_what_no_flush_covers_and_nothing_else(void **state)
{
        struct disk *d = *state;
        uint8_t first[UNIT], second[UNIT];

        write_unit(d, 3);
        memcpy(first, d->bytes + 3 * UNIT, UNIT);
        uint64_t ticket = stamp_flush_ticket(d->book);
        write_unit(d, 3); /* answered after the flush was sent: not covered */
        memcpy(second, d->bytes + 3 * UNIT, UNIT);
        stamp_flushed(d->book, ticket);
        write_unit(d, 3);

        memset(d->bytes + 3 * UNIT, 0, UNIT);
        assert_int_equal(read_unit(d, 3, true), -EILSEQ); /* the flushed one is lost */
        memcpy(d->bytes + 3 * UNIT, second, UNIT);
        assert_int_equal(read_unit(d, 3, true), 0);
        memcpy(d->bytes + 3 * UNIT, first, UNIT);
        assert_int_equal(read_unit(d, 3, true), -EILSEQ); /* what was seen once stays */
}

static void a_write_with_fua_needs_no_flush(void **state)
{
        struct disk *d = *state;

        stamp_begin_write(d->book, 0, UNIT, d->bytes);
        assert_int_equal(stamp_end_write(d->book, 0, UNIT, true), 0);
        memset(d->bytes, 0, UNIT);
        assert_int_equal(read_unit(d, 0, true), -EILSEQ);
}

static void a_zeroed_unit_reads_as_zeroes_until_it_is_written(void **state)
{
        struct disk *d = *state;
        uint8_t written[UNIT];

        write_unit(d, 2);
        memcpy(written, d->bytes + 2 * UNIT, UNIT);
        stamp_begin_zero(d->book, 2 * UNIT, UNIT);
        assert_int_equal(stamp_end_write(d->book, 2 * UNIT, UNIT, true), 0);
        assert_int_equal(read_unit(d, 2, false), -EILSEQ); /* it holds what was there before */
        assert_int_equal(read_unit(d, 2, true), -EILSEQ);
        memset(d->bytes + 2 * UNIT, 0, UNIT);
        assert_int_equal(read_unit(d, 2, false), 0);
        write_unit(d, 2);
        assert_int_equal(read_unit(d, 2, false), 0);
        memset(d->bytes + 2 * UNIT, 0, UNIT);
        assert_int_equal(read_unit(d, 2, false), -EILSEQ);
        assert_int_equal(read_unit(d, 2, true), 0); /* what was written last was not flushed */
}

static void a_unit_in_flight_is_busy(void **state)
{
        struct disk *d = *state;

        stamp_begin_write(d->book, 2 * UNIT, UNIT, d->bytes + 2 * UNIT);
        assert_true(stamp_is_busy(d->book, UNIT, 2 * UNIT));
        assert_false(stamp_is_busy(d->book, 3 * UNIT, UNIT));
        assert_int_equal(stamp_end_write(d->book, 2 * UNIT, UNIT, false), 0);
        assert_false(stamp_is_busy(d->book, 2 * UNIT, UNIT));
}

static void a_book_outlives_its_client(void **state)
{
        char path[] = "/tmp/test_load.XXXXXX";
        struct stamp_book *b;
        uint8_t bytes[UNIT], zeroes[UNIT] = {0};
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        close(fd);
        assert_int_equal(stamp_open(path, 0, UNITS * UNIT, UNIT, SEED, &b, NULL), 0);
        stamp_begin_write(b, 0, UNIT, bytes);
        assert_int_equal(stamp_end_write(b, 0, UNIT, true), 0);
        stamp_begin_write(b, UNIT, UNIT, bytes); /* never answered: the client is killed here */
        stamp_close(b);

        assert_int_equal(stamp_open(path, 0, UNITS * UNIT, UNIT, SEED + 1, &b, NULL), -EINVAL);
        assert_int_equal(stamp_open(path, 0, 2 * UNITS * UNIT, UNIT, SEED, &b, NULL), -EINVAL);
        assert_int_equal(stamp_open(path, 0, UNITS * UNIT, UNIT, SEED, &b, NULL), 0);
        assert_false(stamp_is_busy(b, UNIT, UNIT));
        assert_int_equal(stamp_end_read(b, 0, UNIT, zeroes, true, NULL), -EILSEQ);
        assert_int_equal(stamp_end_read(b, UNIT, UNIT, zeroes, true, NULL), 0);
        stamp_close(b);
        unlink(path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(random_once_visits_each_block_exactly_once),
            cmocka_unit_test(the_same_seed_gives_the_same_plan),
            cmocka_unit_test(percentiles_are_within_two_percent),
            cmocka_unit_test(addresses_are_understood),
            cmocka_unit_test_setup_teardown(what_was_answered_must_be_read, open_disk, close_disk),
            cmocka_unit_test_setup_teardown(what_a_killed_client_was_answered_is_there, open_disk,
                                            close_disk),
            cmocka_unit_test_setup_teardown(another_unit_s_bytes_and_mixtures_are_found, open_disk,
                                            close_disk),
            cmocka_unit_test_setup_teardown(a_crash_may_undo_what_no_flush_covers_and_nothing_else,
                                            open_disk, close_disk),
            cmocka_unit_test_setup_teardown(a_write_with_fua_needs_no_flush, open_disk, close_disk),
            cmocka_unit_test_setup_teardown(a_zeroed_unit_reads_as_zeroes_until_it_is_written,
                                            open_disk, close_disk),
            cmocka_unit_test_setup_teardown(a_unit_in_flight_is_busy, open_disk, close_disk),
            cmocka_unit_test(a_book_outlives_its_client),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
