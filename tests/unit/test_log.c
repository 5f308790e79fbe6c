/* The log: levels, sinks, long lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "common/log.h"

static char last[4096];
static enum log_level last_level;
static unsigned n_logged;

static void keep(enum log_level level, const char *message)
{
        snprintf(last, sizeof(last), "%s", message);
        last_level = level;
        n_logged++;
}

static int reset(void **state)
{
        log_set_sink(keep);
        log_set_level(LOG_LEVEL_INFO);
        n_logged = 0;
        return 0;
}

static void the_sink_gets_level_and_sentence(void **state)
{
        log_warning("member %d of '%s' is slow", 3, "tank");
        assert_int_equal(n_logged, 1);
        assert_int_equal(last_level, LOG_LEVEL_WARNING);
        assert_string_equal(last, "member 3 of 'tank' is slow");
}

static void what_lies_above_the_level_is_dropped(void **state)
{
        log_debug("no");
        assert_int_equal(n_logged, 0);
        log_info("yes");
        assert_int_equal(n_logged, 1);
        log_set_level(LOG_LEVEL_DEBUG);
        log_debug("yes");
        assert_int_equal(n_logged, 2);
        log_set_level(LOG_LEVEL_ERROR);
        log_warning("no");
        log_error("yes");
        assert_int_equal(n_logged, 3);
}

static void without_a_sink_all_is_dropped(void **state)
{
        log_set_sink(NULL);
        log_error("nobody hears this");
        assert_int_equal(n_logged, 0);
}

static void long_lines_are_cut_and_say_so(void **state)
{
        char text[3000];

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        log_error("%s", text);
        assert_true(strlen(last) < 1100);
        assert_string_equal(last + strlen(last) - 4, "x...");
}

static void a_name_cannot_make_lines_or_move_a_cursor(void **state)
{
        log_set_sink(keep);
        log_error("no export '%s'", "a\ntarn: all is well\x1b[2J\x7f\t\xc2\x9b\x31m");
        assert_string_equal(last, "no export 'a?tarn: all is well?[2J????1m'");
        log_error("'%s'", "gr\xc3\xbc\xc3\x9f \xc2\xa0\xe2\x82\xac \xc2");
        assert_string_equal(last, "'gr\xc3\xbc\xc3\x9f \xc2\xa0\xe2\x82\xac \xc2'");
}

static void a_limit_leaves_out_what_is_too_much_in_a_second_and_says_so_in_the_next(void **state)
{
        struct log_limit limit = {0};

        for (unsigned i = 0; i < LOG_LIMIT_LINES; i++)
                assert_true(log_limit_admits(&limit, 7000000000u + i, "nbd", "clients"));
        for (unsigned i = 0; i < 3; i++)
                assert_false(log_limit_admits(&limit, 7999999999u, "nbd", "clients"));
        assert_int_equal(n_logged, 0);
        assert_true(log_limit_admits(&limit, 8000000000u, "nbd", "clients"));
        assert_int_equal(n_logged, 1);
        assert_string_equal(last, "nbd: 3 more messages about clients were left out");
        assert_true(log_limit_admits(&limit, 9000000000u, "nbd", "clients"));
        assert_int_equal(n_logged, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup(the_sink_gets_level_and_sentence, reset),
            cmocka_unit_test_setup(what_lies_above_the_level_is_dropped, reset),
            cmocka_unit_test_setup(without_a_sink_all_is_dropped, reset),
            cmocka_unit_test_setup(long_lines_are_cut_and_say_so, reset),
            cmocka_unit_test_setup(a_name_cannot_make_lines_or_move_a_cursor, reset),
            cmocka_unit_test_setup(
                a_limit_leaves_out_what_is_too_much_in_a_second_and_says_so_in_the_next, reset),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
