/* struct error: a code, a sentence, a hint. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "common/error.h"

static void set_returns_its_code(void **state)
{
        struct error err = ERROR_INIT;

        assert_int_equal(error_set(&err, -EBUSY, "member '%s' is locked", "/dev/sdc"), -EBUSY);
        assert_int_equal(err.code, -EBUSY);
        assert_string_equal(err.message, "member '/dev/sdc' is locked");
        assert_string_equal(err.hint, "");
}

static void null_is_taken_everywhere(void **state)
{
        assert_int_equal(error_set(NULL, -ENOSPC, "full"), -ENOSPC);
        assert_true(error_prefix(NULL, "x") < 0);
        assert_true(error_hint(NULL, "x") < 0);
}

static void prefix_stands_in_front_and_keeps_code_and_hint(void **state)
{
        struct error err = ERROR_INIT;

        error_set(&err, -ENXIO, "a member is missing");
        error_hint(&err, "plug it in");
        assert_int_equal(error_prefix(&err, "cannot open pool '%s'", "tank"), -ENXIO);
        assert_string_equal(err.message, "cannot open pool 'tank': a member is missing");
        assert_string_equal(err.hint, "plug it in");
}

static void a_new_error_drops_the_old_hint(void **state)
{
        struct error err = ERROR_INIT;

        error_set(&err, -EINVAL, "one");
        assert_int_equal(error_hint(&err, "try %d", 2), -EINVAL);
        assert_string_equal(err.hint, "try 2");
        error_set(&err, -EPERM, "two");
        assert_string_equal(err.hint, "");
}

static void the_message_may_be_its_own_argument(void **state)
{
        struct error err = ERROR_INIT;

        error_set(&err, -EINVAL, "inner");
        error_set(&err, -EIO, "outer (%s)", err.message);
        assert_string_equal(err.message, "outer (inner)");
        error_prefix(&err, "%s", err.message);
        assert_string_equal(err.message, "outer (inner): outer (inner)");
}

static void long_sentences_are_cut_and_say_so(void **state)
{
        struct error err = ERROR_INIT;
        char text[2000];

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        error_set(&err, -EINVAL, "%s", text);
        assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
        assert_string_equal(err.message + sizeof(err.message) - 5, "x...");
        error_hint(&err, "%s", text);
        assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
        assert_string_equal(err.hint + sizeof(err.hint) - 5, "x...");
        error_prefix(&err, "p");
        assert_memory_equal(err.message, "p: x", 4);
        assert_string_equal(err.message + sizeof(err.message) - 5, "x...");
}

static void what_just_fits_is_not_cut(void **state)
{
        struct error err = ERROR_INIT;
        char text[sizeof(err.message)];

        memset(text, 'y', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        error_set(&err, -EINVAL, "%s", text);
        assert_string_equal(err.message, text);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(set_returns_its_code),
            cmocka_unit_test(null_is_taken_everywhere),
            cmocka_unit_test(prefix_stands_in_front_and_keeps_code_and_hint),
            cmocka_unit_test(a_new_error_drops_the_old_hint),
            cmocka_unit_test(the_message_may_be_its_own_argument),
            cmocka_unit_test(long_sentences_are_cut_and_say_so),
            cmocka_unit_test(what_just_fits_is_not_cut),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
