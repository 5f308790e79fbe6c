/* test_vmm_state.c - saved state: what was written is read, and nothing else is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "vmm-glue/vmm/state.h"

#define HEAD 64u /* bytes of a section's head */

static struct state_writer w;

static int tear_down(void **state)
{
        state_writer_free(&w);
        return 0;
}

static void write_all_kinds(const char *id, uint32_t version)
{
        state_begin(&w, id, version);
        state_put8(&w, 0x12);
        state_put16(&w, 0x3456);
        state_put32(&w, 0x789abcde);
        state_put64(&w, UINT64_C(0xf0debc9a78563412));
        state_put(&w, "bytes", 5);
        state_end(&w);
}

static void read_all_kinds(struct state_reader *r, const char *id)
{
        char bytes[5];

        assert_int_equal(state_get8(r), 0x12);
        assert_int_equal(state_get16(r), 0x3456);
        assert_int_equal(state_get32(r), 0x789abcde);
        assert_true(state_get64(r) == UINT64_C(0xf0debc9a78563412));
        state_get(r, bytes, sizeof(bytes));
        assert_memory_equal(bytes, "bytes", 5);
        assert_int_equal(state_finish(r, id, NULL), 0);
}

static void test_what_was_written_is_read(void **state)
{
        struct state_reader r;

        write_all_kinds("serial", 3);
        state_begin(&w, "empty", 1);
        state_end(&w);
        write_all_kinds("disk0", 1);
        assert_false(w.failed);
        /* In any order, and by a tarn that knows later versions. */
        assert_int_equal(state_find(w.data, w.size, "disk0", 7, &r, NULL), 0);
        assert_int_equal(r.version, 1);
        read_all_kinds(&r, "disk0");
        assert_int_equal(state_find(w.data, w.size, "serial", 3, &r, NULL), 0);
        assert_int_equal(r.version, 3);
        read_all_kinds(&r, "serial");
        assert_int_equal(state_find(w.data, w.size, "empty", 1, &r, NULL), 0);
        assert_int_equal(r.left, 0);
        assert_int_equal(state_finish(&r, "empty", NULL), 0);
}

static void test_numbers_are_little_endian(void **state)
{
        state_begin(&w, "x", 1);
        state_put16(&w, 0x0102);
        state_put32(&w, 0x03040506);
        state_put64(&w, UINT64_C(0x0708090a0b0c0d0e));
        state_end(&w);
        assert_int_equal(w.size, HEAD + 14);
        assert_memory_equal(w.data + HEAD, "\2\1\6\5\4\3\16\15\14\13\12\11\10\7", 14);
        assert_memory_equal(w.data + 48, "\1\0\0\0\16\0\0\0", 8);
}

static void test_what_is_not_there(void **state)
{
        struct state_reader r;
        struct error err = ERROR_INIT;

        assert_int_equal(state_find(NULL, 0, "serial", 1, &r, NULL), -ENOENT);
        write_all_kinds("serial1", 1);
        write_all_kinds("seria", 1);
        assert_int_equal(state_find(w.data, w.size, "serial", 1, &r, &err), -ENOENT);
        assert_string_equal(err.message, "the saved state has nothing of 'serial'");
}

static void test_the_longest_name(void **state)
{
        char id[STATE_ID_MAX], other[STATE_ID_MAX];
        struct state_reader r;

        memset(id, 'x', sizeof(id) - 1);
        id[sizeof(id) - 1] = '\0';
        strcpy(other, id);
        other[sizeof(id) - 2] = 'y';
        write_all_kinds(other, 1);
        write_all_kinds(id, 2);
        assert_int_equal(state_find(w.data, w.size, id, 2, &r, NULL), 0);
        assert_int_equal(r.version, 2);
}

static void test_versions(void **state)
{
        struct state_reader r = {.version = 99};
        struct error err = ERROR_INIT;

        write_all_kinds("rtc", 3);
        assert_int_equal(state_find(w.data, w.size, "rtc", 2, &r, &err), -EINVAL);
        assert_string_equal(err.message, "the saved state of 'rtc' is of version 3, and this tarn "
                                         "knows those up to 2");
        assert_int_equal(r.version, 99); /* set only on success */
        state_writer_free(&w);
        write_all_kinds("rtc", 0);
        assert_int_equal(state_find(w.data, w.size, "rtc", 2, &r, NULL), -EINVAL);
}

static void test_a_section_that_is_too_short_or_too_long(void **state)
{
        struct state_reader r;
        struct error err = ERROR_INIT;
        uint8_t bytes[8];

        state_begin(&w, "pci", 1);
        state_put(&w, "\1\2\3\4\5\6\7", 7);
        state_end(&w);
        write_all_kinds("behind", 1);
        assert_int_equal(state_find(w.data, w.size, "pci", 1, &r, NULL), 0);
        assert_int_equal(state_get32(&r), 0x04030201);
        assert_int_equal(state_finish(&r, "pci", &err), -EINVAL);
        assert_string_equal(err.message, "the saved state of 'pci' is too long");
        /* Nothing of the next section, and nothing of the rest: zeroes, and all that comes. */
        memset(bytes, 0xaa, sizeof(bytes));
        state_get(&r, bytes, 4);
        assert_memory_equal(bytes, "\0\0\0\0\xaa\xaa\xaa\xaa", 8);
        assert_int_equal(state_get8(&r), 0);
        assert_int_equal(state_get16(&r), 0);
        assert_int_equal(state_get32(&r), 0);
        assert_true(state_get64(&r) == 0);
        state_get(&r, bytes, 0);
        assert_int_equal(state_finish(&r, "pci", &err), -EINVAL);
        assert_string_equal(err.message, "the saved state of 'pci' is too short");
}

/* Each end but those between two sections is one that comes too early; and what is found is only what
 * is there as a whole. */
static void test_cut_off_at_every_byte(void **state)
{
        size_t first;

        write_all_kinds("one", 1);
        first = w.size;
        write_all_kinds("two", 1);
        for (size_t size = 0; size < w.size; size++) {
                struct state_reader r;
                /* A copy of its own, so that whoever looks behind its end is seen. */
                uint8_t *part = malloc(size ? size : 1);

                assert_non_null(part);
                memcpy(part, w.data, size);
                assert_int_equal(state_find(part, size, "one", 1, &r, NULL), size == 0 ? -ENOENT
                                                                             : size < first
                                                                                 ? -EINVAL
                                                                                 : 0);
                assert_int_equal(state_find(part, size, "two", 1, &r, NULL),
                                 size == 0 || size == first ? -ENOENT : -EINVAL);
                free(part);
        }
}

static void test_every_bit_is_covered(void **state)
{
        struct state_reader r;

        write_all_kinds("one", 1);
        for (size_t bit = 0; bit < w.size * 8; bit++) {
                w.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                assert_int_equal(state_find(w.data, w.size, "one", UINT32_MAX, &r, NULL), -EINVAL);
                w.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(state_find(w.data, w.size, "one", 1, &r, NULL), 0);
}

/* A damaged section stops whoever looks for one behind it: its length is no guide. */
static void test_damage_before(void **state)
{
        struct state_reader r;
        struct error err = ERROR_INIT;

        write_all_kinds("one", 1);
        write_all_kinds("two", 1);
        w.data[HEAD] ^= 1;
        assert_int_equal(state_find(w.data, w.size, "two", 1, &r, &err), -EINVAL);
        assert_string_equal(err.message, "the saved state of 'one' is damaged");
        memset(w.data + 52, 0xff, 4);
        assert_int_equal(state_find(w.data, w.size, "two", 1, &r, &err), -EINVAL);
        assert_string_equal(err.message, "the saved state is damaged");
}

/* What no restore would take is not written either: of a limit that counts all, in pieces and in one. */
static void test_more_than_there_may_be(void **state)
{
        const size_t piece = (size_t)1 << 20;
        void *zeroes = calloc(1, piece);

        assert_non_null(zeroes);
        state_begin(&w, "ram", 1);
        while (!w.failed && w.size < 4 * STATE_SIZE_MAX)
                state_put(&w, zeroes, piece);
        assert_true(w.failed);
        assert_true(w.size <= STATE_SIZE_MAX);
        state_end(&w);
        state_put8(&w, 1);
        assert_true(w.failed);
        state_writer_free(&w);
        assert_false(w.failed);

        state_begin(&w, "ram", 1);
        state_put(&w, zeroes, STATE_SIZE_MAX - HEAD + 1);
        assert_true(w.failed);
        free(zeroes);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_teardown(test_what_was_written_is_read, tear_down),
            cmocka_unit_test_teardown(test_numbers_are_little_endian, tear_down),
            cmocka_unit_test_teardown(test_what_is_not_there, tear_down),
            cmocka_unit_test_teardown(test_the_longest_name, tear_down),
            cmocka_unit_test_teardown(test_versions, tear_down),
            cmocka_unit_test_teardown(test_a_section_that_is_too_short_or_too_long, tear_down),
            cmocka_unit_test_teardown(test_cut_off_at_every_byte, tear_down),
            cmocka_unit_test_teardown(test_every_bit_is_covered, tear_down),
            cmocka_unit_test_teardown(test_damage_before, tear_down),
            cmocka_unit_test_teardown(test_more_than_there_may_be, tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
