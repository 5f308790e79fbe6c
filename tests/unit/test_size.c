/* Sizes as people write and read them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "common/size.h"

#define KIB UINT64_C(1024)

static void assert_size(const char *text, uint64_t expected)
{
        struct error err = ERROR_INIT;
        uint64_t bytes = 0;

        if (size_parse(text, &bytes, &err) < 0)
                fail_msg("'%s' was refused: %s", text, err.message);
        assert_int_equal(bytes, expected);
        assert_int_equal(err.code, 0);
}

static void assert_refused(const char *text, int code)
{
        struct error err = ERROR_INIT;
        uint64_t bytes = 42;
        int r = size_parse(text, &bytes, &err);

        if (r != code)
                fail_msg("'%s' gave %d instead of %d", text, r, code);
        assert_int_equal(err.code, code);
        assert_int_not_equal(err.message[0], '\0');
        assert_int_equal(bytes, 42);
        assert_int_equal(size_parse(text, &bytes, NULL), code);
}

static void plain_numbers_are_bytes(void **state)
{
        assert_size("0", 0);
        assert_size("512", 512);
        assert_size("007", 7);
        assert_size("512B", 512);
        assert_size("9223372036854775807", INT64_MAX);
}

static void suffixes_are_powers_of_1024(void **state)
{
        assert_size("8G", 8 * KIB * KIB * KIB);
        assert_size("8GiB", 8 * KIB * KIB * KIB);
        assert_size("8g", 8 * KIB * KIB * KIB);
        assert_size("8giB", 8 * KIB * KIB * KIB);
        assert_size("1K", KIB);
        assert_size("1M", KIB * KIB);
        assert_size("1T", KIB * KIB * KIB * KIB);
        assert_size("1P", KIB * KIB * KIB * KIB * KIB);
        assert_size("8191P", 8191 * KIB * KIB * KIB * KIB * KIB);
}

static void fractions_are_taken_where_they_are_whole_bytes(void **state)
{
        assert_size("1.5G", 3 * KIB * KIB * KIB / 2);
        assert_size("0.5K", 512);
        assert_size("1.0", 1);
        assert_size("1.50000000000000000M", 3 * KIB * KIB / 2);
        assert_size("0.0009765625K", 1);
        assert_refused("1.5", -EINVAL);
        assert_refused("0.1K", -EINVAL);
        assert_refused("1.0000000000000000001G", -EINVAL);
}

static void what_is_no_size_is_refused(void **state)
{
        static const char *const texts[] = {
            "",     "-1",    "-8G",  "+1",        " 1",   "1 ",  "1 G", "G",   ".5G",
            "1.",   "1.G",   "0x10", "1e3",       "8GB",  "8Gi", "8X",  "8GG", "8GiBB",
            "1,5G", "1..5G", "inf",  "8\xc3\xa9", "8Gib", "1E",  "\n",  "8@",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                assert_refused(texts[i], -EINVAL);
}

static void what_does_not_fit_63_bits_is_out_of_range(void **state)
{
        assert_refused("9223372036854775808", -ERANGE);
        assert_refused("18446744073709551615", -ERANGE);
        assert_refused("18446744073709551616", -ERANGE);
        assert_refused("99999999999999999999999999999", -ERANGE);
        assert_refused("8192P", -ERANGE);
        assert_refused("8191.99999999999999999P", -EINVAL);
        assert_refused("18446744073709551615P", -ERANGE);
        assert_refused("9007199254740992K", -ERANGE);
}

static void a_refusal_hints_at_the_form(void **state)
{
        struct error err = ERROR_INIT;
        uint64_t bytes;

        size_parse("many", &bytes, &err);
        assert_string_equal(err.message, "'many' is not a size");
        assert_non_null(strstr(err.hint, "1.5G"));
}

static void assert_shown(uint64_t bytes, const char *expected)
{
        char buffer[SIZE_TEXT_MAX];

        assert_string_equal(size_format(bytes, buffer), expected);
}

static void shown_with_one_digit_after_the_point(void **state)
{
        assert_shown(0, "0 B");
        assert_shown(512, "512 B");
        assert_shown(1023, "1023 B");
        assert_shown(KIB, "1.0 KiB");
        assert_shown(1536, "1.5 KiB");
        assert_shown(8 * KIB * KIB * KIB, "8.0 GiB");
        assert_shown(UINT64_MAX, "16.0 EiB");
}

static void rounding_moves_on_to_the_next_unit(void **state)
{
        assert_shown(KIB * KIB - 1, "1.0 MiB");
        assert_shown(KIB * KIB - 52, "1023.9 KiB");
        assert_shown(1024 + 51, "1.0 KiB");
        assert_shown(1024 + 52, "1.1 KiB");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(plain_numbers_are_bytes),
            cmocka_unit_test(suffixes_are_powers_of_1024),
            cmocka_unit_test(fractions_are_taken_where_they_are_whole_bytes),
            cmocka_unit_test(what_is_no_size_is_refused),
            cmocka_unit_test(what_does_not_fit_63_bits_is_out_of_range),
            cmocka_unit_test(a_refusal_hints_at_the_form),
            cmocka_unit_test(shown_with_one_digit_after_the_point),
            cmocka_unit_test(rounding_moves_on_to_the_next_unit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
