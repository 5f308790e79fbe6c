/* CRC-32C against the vectors of RFC 3720 and against a bit by bit definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "common/crc32c.h"

/* The definition: the reflected polynomial 0x82f63b78, both ends inverted. */
static uint32_t crc32c_by_bits(uint32_t crc, const uint8_t *data, size_t length)
{
        crc = ~crc;
        for (size_t i = 0; i < length; i++) {
                crc ^= data[i];
                for (int bit = 0; bit < 8; bit++)
                        crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        }
        return ~crc;
}

/* RFC 3720 appendix B.4; the check value of the catalogue of CRC algorithms. */
static void known_vectors(void **state)
{
        uint8_t data[32];

        assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
        memset(data, 0, sizeof(data));
        assert_int_equal(crc32c(0, data, 32), 0x8a9136aa);
        memset(data, 0xff, sizeof(data));
        assert_int_equal(crc32c(0, data, 32), 0x62a8ab43);
        for (unsigned i = 0; i < 32; i++)
                data[i] = (uint8_t)i;
        assert_int_equal(crc32c(0, data, 32), 0x46dd794e);
        for (unsigned i = 0; i < 32; i++)
                data[i] = (uint8_t)(31 - i);
        assert_int_equal(crc32c(0, data, 32), 0x113fdb5c);
}

static void of_nothing_is_what_was(void **state)
{
        assert_int_equal(crc32c(0, "", 0), 0);
        assert_int_equal(crc32c(0x12345678, "", 0), 0x12345678);
}

static void agrees_with_the_definition_at_any_length_and_alignment(void **state)
{
        static uint8_t data[4096 + 64];

        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)(i * 2654435761u >> 11);
        for (size_t length = 0; length <= 600; length++)
                assert_int_equal(crc32c(0, data + length % 17, length),
                                 crc32c_by_bits(0, data + length % 17, length));
        for (size_t start = 0; start < 64; start++)
                assert_int_equal(crc32c(7, data + start, 4096),
                                 crc32c_by_bits(7, data + start, 4096));
}

static void pieces_make_the_whole(void **state)
{
        static uint8_t data[5000];
        uint32_t whole;

        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)(i * 31 + 7);
        whole = crc32c(0, data, sizeof(data));
        for (size_t cut = 0; cut <= sizeof(data); cut += 37)
                assert_int_equal(crc32c(crc32c(0, data, cut), data + cut, sizeof(data) - cut),
                                 whole);
}

static void every_single_bit_counts(void **state)
{
        static uint8_t data[4096];
        uint32_t good;

        memset(data, 0x5a, sizeof(data));
        good = crc32c(0, data, sizeof(data));
        for (size_t bit = 0; bit < sizeof(data) * 8; bit++) {
                data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                assert_int_not_equal(crc32c(0, data, sizeof(data)), good);
                data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(known_vectors),
            cmocka_unit_test(of_nothing_is_what_was),
            cmocka_unit_test(agrees_with_the_definition_at_any_length_and_alignment),
            cmocka_unit_test(pieces_make_the_whole),
            cmocka_unit_test(every_single_bit_counts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
