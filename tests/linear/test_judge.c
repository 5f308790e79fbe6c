/* Histories written by hand, good and bad, and what is to be said of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/linear/judge.h"

static struct judgement judge_text(const char *text)
{
        struct error err = ERROR_INIT;
        struct judgement j;
        struct history h;
        FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

        assert_non_null(file);
        assert_int_equal(history_read(file, &h, &err), 0);
        fclose(file);
        assert_int_equal(judge(&h, &j, &err), 0);
        history_free(&h);
        return j;
}

static void expect_good(const char *text)
{
        struct judgement j = judge_text(text);

        if (!j.good)
                judgement_print(&j, stderr);
        assert_true(j.good);
        judgement_free(&j);
}

/* Wrong from that life on, and shown by so many operations. */
static void expect_bad(const char *text, unsigned life, size_t n_least)
{
        struct judgement j = judge_text(text);

        assert_false(j.good);
        if (j.life != life || j.least.n != n_least)
                judgement_print(&j, stderr);
        assert_int_equal(j.life, life);
        assert_int_equal(j.least.n, n_least);
        judgement_free(&j);
}

/* Clients are 0 to 2, instants small numbers. */

static void a_read_gives_the_last_write(void **state)
{
        (void)state;
        expect_good("r 0 0 0 0 - 1 2 0\n"
                    "w 0 0 0 0 - 3 4 7\n"
                    "r 0 0 1 0 - 5 6 7\n");
        expect_bad("w 0 0 0 0 - 3 4 7\n" /* stale */
                   "r 0 0 1 0 - 5 6 0\n",
                   0, 2);
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "w 0 0 0 0 - 3 4 8\n"
                   "r 0 0 1 0 - 5 6 7\n",
                   0, 3);
}

static void what_nobody_wrote_is_not_read(void **state)
{
        (void)state;
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "r 0 0 1 0 - 3 4 9\n",
                   0, 1);
        expect_bad("r 0 0 1 0 - 3 4 18446744073709551615\n", 0, 1);
}

static void nothing_is_read_before_it_is_written(void **state)
{
        (void)state;
        expect_bad("r 0 0 1 0 - 1 2 7\n"
                   "w 0 0 0 0 - 3 4 7\n",
                   0, 2);
}

static void units_and_volumes_are_apart(void **state)
{
        (void)state;
        expect_good("w 0 0 0 0 - 1 2 7\n"
                    "r 0 1 1 0 - 3 4 0\n"
                    "r 1 0 1 0 - 3 4 0\n");
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "r 0 1 1 0 - 3 4 7\n",
                   0, 1);
}

static void what_is_concurrent_happens_in_any_order(void **state)
{
        (void)state;
        expect_good("w 0 0 0 0 - 1 9 7\n"
                    "w 0 0 1 0 - 1 9 8\n"
                    "r 0 0 2 0 - 2 3 8\n"
                    "r 0 0 2 0 - 4 5 7\n"
                    "r 0 0 2 0 - 10 11 7\n");
        expect_good("w 0 0 0 0 - 1 9 7\n"
                    "r 0 0 2 0 - 2 3 0\n"
                    "r 0 0 2 0 - 4 5 7\n");
}

static void readers_agree_on_the_order(void **state)
{
        (void)state;
        /* New, then old. */
        expect_bad("w 0 0 0 0 - 1 9 7\n"
                   "r 0 0 1 0 - 2 3 7\n"
                   "r 0 0 2 0 - 4 5 0\n",
                   0, 3);
        expect_bad("w 0 0 0 0 - 1 9 7\n"
                   "w 0 0 1 0 - 1 9 8\n"
                   "r 0 0 2 0 - 2 3 7\n"
                   "r 0 0 2 0 - 4 5 8\n"
                   "r 0 0 2 0 - 6 7 7\n",
                   0, 5);
}

static void zeroes_may_be_of_several_writes(void **state)
{
        (void)state;
        expect_good("r 0 0 1 0 - 1 2 0\n"
                    "w 0 0 0 0 - 3 4 7\n"
                    "w 0 0 0 0 - 5 6 0\n"
                    "r 0 0 1 0 - 7 8 0\n"
                    "w 0 0 0 0 - 9 10 8\n"
                    "w 0 0 0 0 - 11 12 0\n"
                    "r 0 0 1 0 - 13 14 0\n");
        expect_bad("w 0 0 0 0 - 3 4 0\n"
                   "w 0 0 0 0 - 5 6 8\n"
                   "r 0 0 1 0 - 7 8 0\n",
                   0, 3);
}

static void what_was_not_answered_may_happen_late_or_never(void **state)
{
        (void)state;
        expect_good("w 0 0 0 0 - 1 - 7\n"
                    "r 0 0 1 0 - 2 3 0\n"
                    "r 0 0 1 0 - 4 5 7\n");
        expect_good("w 0 0 0 0 - 1 - 7\n"
                    "w 0 0 1 0 - 2 3 8\n"
                    "r 0 0 1 0 - 4 5 8\n");
        /* But once, */
        expect_bad("w 0 0 0 0 - 1 - 7\n"
                   "r 0 0 1 0 - 2 3 7\n"
                   "w 0 0 1 0 - 4 5 8\n"
                   "r 0 0 1 0 - 6 7 8\n"
                   "r 0 0 1 0 - 8 9 7\n",
                   0, 4);
        /* and not in the next life. */
        expect_bad("w 0 0 0 0 - 1 - 7\n"
                   "r 0 0 1 1 - 4 5 0\n"
                   "r 0 0 1 1 - 6 7 7\n",
                   1, 3);
}

static void a_kill_takes_what_no_flush_covers(void **state)
{
        (void)state;
        expect_good("w 0 0 0 0 - 1 2 7\n"
                    "r 0 0 0 0 - 3 4 7\n"
                    "r 0 0 1 1 - 5 6 0\n");
        expect_good("w 0 0 0 0 - 1 2 7\n" /* or not all of it */
                    "w 0 0 0 0 - 3 4 8\n"
                    "w 0 0 0 0 - 5 6 9\n"
                    "r 0 0 1 1 - 7 8 8\n");
        expect_bad("w 0 0 0 0 - 1 2 7\n" /* but it is one of them, for all that come */
                   "w 0 0 0 0 - 3 4 8\n"
                   "r 0 0 1 1 - 7 8 7\n"
                   "r 0 0 1 1 - 9 10 8\n",
                   1, 4);
}

static void what_a_flush_covers_stays(void **state)
{
        (void)state;
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "f 0 * 1 0 - 3 4 0\n"
                   "r 0 0 1 1 - 5 6 0\n",
                   1, 3);
        expect_good("w 0 0 0 0 - 1 4 7\n" /* was not answered when the flush began */
                    "f 0 * 1 0 - 3 5 0\n"
                    "r 0 0 1 1 - 6 7 0\n");
        expect_good("w 0 0 0 0 - 1 2 7\n" /* the flush was not answered */
                    "f 0 * 1 0 - 3 - 0\n"
                    "r 0 0 1 1 - 6 7 0\n");
        expect_good("w 0 0 0 0 - 1 2 7\n" /* another volume's flush */
                    "f 1 * 1 0 - 3 4 0\n"
                    "r 0 0 1 1 - 6 7 0\n");
        expect_good("w 0 0 0 0 - 1 2 7\n" /* overwritten, after the flush */
                    "f 0 * 1 0 - 3 4 0\n"
                    "w 0 0 0 0 - 5 6 8\n"
                    "r 0 0 1 1 - 7 8 8\n");
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "w 0 0 0 0 - 3 4 8\n"
                   "f 0 * 1 0 - 5 6 0\n"
                   "w 0 0 0 0 - 7 8 9\n"
                   "r 0 0 1 1 - 9 10 7\n",
                   1, 4);
}

static void what_is_durable_when_answered_stays(void **state)
{
        (void)state;
        expect_bad("w 0 0 0 0 d 1 2 7\n"
                   "r 0 0 1 1 - 5 6 0\n",
                   1, 2);
        expect_good("w 0 0 0 0 d 1 - 7\n" /* not answered */
                    "r 0 0 1 0 - 2 3 7\n"
                    "r 0 0 1 1 - 5 6 0\n");
        /* What comes before it in the order stays gone. */
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "w 0 0 0 0 d 3 4 8\n"
                   "r 0 0 1 1 - 5 6 7\n",
                   1, 3);
        /* Concurrent writes: the order may be the one that makes it right, */
        expect_good("w 0 0 0 0 - 1 5 7\n"
                    "w 0 0 1 0 d 1 5 8\n"
                    "r 0 0 1 1 - 6 7 7\n");
        /* unless somebody has seen it. */
        expect_bad("w 0 0 0 0 - 1 9 7\n"
                   "w 0 0 1 0 d 1 9 8\n"
                   "r 0 0 2 0 - 2 3 7\n"
                   "r 0 0 2 0 - 4 5 8\n"
                   "r 0 0 1 1 - 10 11 7\n",
                   1, 5);
}

static void two_kills_in_a_row(void **state)
{
        (void)state;
        /* Nobody looked in between. */
        expect_good("w 0 0 0 0 - 1 2 7\n"
                    "w 0 0 0 1 - 3 4 8\n"
                    "r 0 0 1 2 - 5 6 7\n");
        expect_good("w 0 0 0 0 - 1 2 7\n"
                    "w 0 0 0 1 - 3 4 8\n"
                    "r 0 0 1 2 - 5 6 0\n");
        /* What was there after the first and was not written again is durable. */
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "r 0 0 1 1 - 3 4 7\n"
                   "r 0 0 1 2 - 5 6 0\n",
                   2, 3);
        expect_bad("w 0 0 0 0 d 1 2 7\n"
                   "w 0 0 0 1 - 3 4 8\n"
                   "r 0 0 1 2 - 5 6 0\n",
                   2, 2);
        expect_bad("w 0 0 0 0 - 1 2 7\n"
                   "r 0 0 1 1 - 3 4 0\n"
                   "r 0 0 1 2 - 5 6 7\n",
                   2, 3);
}

static void what_is_submitted_anew_may_happen_in_each_life(void **state)
{
        (void)state;
        expect_good("w 0 0 0 0-1 d 1 20 7\n" /* in both */
                    "r 0 0 1 0 - 2 3 7\n"
                    "w 0 0 1 0 d 4 5 8\n"
                    "r 0 0 1 1 - 10 11 8\n"
                    "r 0 0 1 1 - 21 22 7\n");
        expect_good(
            "w 0 0 0 0-1 d 1 20 7\n" /* in the first, and the second time it shows nothing new */
            "r 0 0 1 0 - 2 3 7\n"
            "r 0 0 1 1 - 10 11 7\n"
            "r 0 0 1 1 - 21 22 7\n");
        /* In the one in which it is answered it must. */
        expect_bad("w 0 0 0 0-1 d 1 20 7\n"
                   "r 0 0 1 1 - 21 22 0\n",
                   1, 2);
        expect_bad("w 0 0 0 0-1 d 1 20 7\n"
                   "r 0 0 1 0 - 2 3 7\n"
                   "w 0 0 1 1 d 22 23 8\n"
                   "r 0 0 1 1 - 24 25 7\n",
                   1, 3);
}

static void only_what_matters_is_told(void **state)
{
        char text[64 * 1024];
        size_t at = 0;

        (void)state;
        for (unsigned i = 1; i <= 500; i++)
                at += (size_t)snprintf(text + at, sizeof(text) - at,
                                       "w 0 3 0 0 - %u %u %u\nr 0 3 1 0 - %u %u %u\n", 10 * i,
                                       10 * i + 4, i, 10 * i + 2, 10 * i + 7, i == 300 ? 298 : i);
        expect_bad(text, 0, 3);
}

/* Twelve at a time, none of which anybody reads: all orders are as good. */
static void many_at_a_time_are_decided(void **state)
{
        char text[64 * 1024];
        size_t at = 0;

        (void)state;
        for (unsigned i = 0; i < 600; i++)
                at += (size_t)snprintf(text + at, sizeof(text) - at, "w 0 0 %u 0 - %u %u %u\n",
                                       i % 12, i, i + 12, i + 1);
        snprintf(text + at, sizeof(text) - at, "r 0 0 0 0 - 650 651 600\n");
        expect_good(text);
}

static void a_history_is_written_as_it_is_read(void **state)
{
        static const char text[] = "w 0 3 1 0-2 d 5 9 7\n"
                                   "r 1 0 2 1 - 6 - 18446744073709551615\n"
                                   "f 0 * 1 0 - 3 4 0\n";
        struct error err = ERROR_INIT;
        char written[256] = "";
        struct history h;
        FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

        (void)state;
        assert_int_equal(history_read(file, &h, &err), 0);
        fclose(file);
        file = fmemopen(written, sizeof(written), "w");
        assert_int_equal(history_write(&h, file, &err), 0);
        fclose(file);
        history_free(&h);
        assert_string_equal(written, text);
}

static void lines_that_say_nothing_are_refused(void **state)
{
        static const char *const lines[] = {"x 0 0 0 0 - 1 2 0\n", "w 0 * 0 0 - 1 2 0\n",
                                            "f 0 1 0 0 - 1 2 0\n", "w 0 0 0 1-0 - 1 2 0\n",
                                            "w 0 0 0 0 - 3 2 0\n", "w 0 0 0 0 - 1 2 0 0\n",
                                            "w 0 0 0 0 - 1 2\n",   "w 0 0 0 0 - - 2 0\n"};
        struct history h;

        (void)state;
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
                struct error err = ERROR_INIT;
                FILE *file = fmemopen((void *)(uintptr_t)lines[i], strlen(lines[i]), "r");
                assert_int_equal(history_read(file, &h, &err), -EINVAL);
                fclose(file);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_read_gives_the_last_write),
            cmocka_unit_test(what_nobody_wrote_is_not_read),
            cmocka_unit_test(nothing_is_read_before_it_is_written),
            cmocka_unit_test(units_and_volumes_are_apart),
            cmocka_unit_test(what_is_concurrent_happens_in_any_order),
            cmocka_unit_test(readers_agree_on_the_order),
            cmocka_unit_test(zeroes_may_be_of_several_writes),
            cmocka_unit_test(what_was_not_answered_may_happen_late_or_never),
            cmocka_unit_test(a_kill_takes_what_no_flush_covers),
            cmocka_unit_test(what_a_flush_covers_stays),
            cmocka_unit_test(what_is_durable_when_answered_stays),
            cmocka_unit_test(two_kills_in_a_row),
            cmocka_unit_test(what_is_submitted_anew_may_happen_in_each_life),
            cmocka_unit_test(only_what_matters_is_told),
            cmocka_unit_test(many_at_a_time_are_decided),
            cmocka_unit_test(a_history_is_written_as_it_is_read),
            cmocka_unit_test(lines_that_say_nothing_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
