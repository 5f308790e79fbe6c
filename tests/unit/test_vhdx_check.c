/* test_vhdx_check.c - VHDX files checked: what lies on something else, what is lost, what is damaged. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/unit/image_fixture.h"
#include "tests/unit/vhdx_made.h"

struct findings {
        struct image_check check;
        unsigned n;
        char last[512];
};

static void keep(struct image_check *check, const char *sentence)
{
        struct findings *f = (struct findings *)check;

        f->n++;
        snprintf(f->last, sizeof(f->last), "%s", sentence);
}

static struct findings co_check(struct fixture *f)
{
        struct findings found = {.check.report = keep};
        struct image *image;

        assert_int_equal(
            co_image_open(f->fd, "x.vhdx", &(struct image_options){.alone = true}, &image, NULL),
            0);
        assert_int_equal(image->driver->co_check(image, &found.check, NULL), 0);
        image_close(image);
        return found;
}

static void co_errors(struct fixture *f, unsigned n, const char *words)
{
        struct findings found = co_check(f);

        if (found.check.n_errors != n || !strstr(found.last, words))
                print_error("%s\n", found.last);
        assert_int_equal(found.check.n_errors, n);
        assert_int_equal(found.check.n_leaks, 0);
        assert_int_equal(found.n, n);
        assert_non_null(strstr(found.last, words));
        assert_non_null(strstr(found.last, "'x.vhdx'"));
}

static void co_right(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        struct findings found;

        made_begin(&m);
        made_block(&m, 0, VHDX_PRESENT, 'a');
        made_block(&m, 1, VHDX_UNMAPPED, 'b'); /* keeps its space */
        made_block(&m, 2, VHDX_PRESENT, 'c');
        found = co_check(f);
        assert_int_equal(found.n, 0);
        assert_int_equal(found.check.n_errors + found.check.n_leaks, 0);
        assert_int_equal(found.check.allocated_bytes, 7 * MIB);
        assert_int_equal(found.check.end_bytes, 7 * MIB);
}

static void nothing_is_found_where_nothing_is(void **state)
{
        run(*state, co_right);
}

static void co_on_something(struct fixture *f)
{
        static const uint64_t places[] = {MADE_LOG, MADE_METADATA, MADE_BAT, MADE_DATA};

        for (unsigned i = 0; i < 4; i++) {
                struct made m = {.fd = f->fd};

                made_begin(&m);
                made_block(&m, 0, VHDX_PRESENT, 'a');
                made_entry(&m, 5, places[i], VHDX_PRESENT);
                co_errors(f, 1, "block 5 of 'x.vhdx' at");
        }
}

static void blocks_on_something_else_are_errors(void **state)
{
        run(*state, co_on_something);
}

static void co_bad_blocks(struct fixture *f)
{
        struct made m = {.fd = f->fd, .size = 200 * MIB};
        struct findings found;

        made_begin(&m);
        made_entry(&m, 3, 0, (enum vhdx_state)5);
        co_errors(f, 1, "state 5");
        made_entry(&m, 4, MADE_DATA, VHDX_PARTIAL);
        co_errors(f, 2, "no parent");
        made_entry(&m, 7, m.next, VHDX_PRESENT);
        co_errors(f, 3, "not within the file");
        made_entry(&m, 8, 0, VHDX_PRESENT);
        co_errors(f, 4, "not within the file");
        /* All of them count, and not all are told. */
        for (unsigned i = 0; i < 200; i++)
                made_entry(&m, i, 0, VHDX_PRESENT);
        found = co_check(f);
        assert_int_equal(found.check.n_errors, 200);
        assert_int_equal(found.n, IMAGE_FINDINGS_MAX);
}

static void blocks_that_cannot_be_are_errors(void **state)
{
        run(*state, co_bad_blocks);
}

static void co_bitmaps(struct fixture *f)
{
        static const char *const pairs[][2] = {
            {"parent_linkage", "{04030201-0605-0807-090a-0b0c0d0e0f10}"},
            {"relative_path", "p"},
            {NULL, NULL}};
        struct made m = {.fd = f->fd};
        uint64_t bitmap;

        made_begin(&m);
        made_put64(&m, made_bitmap_at(&m, 0), MADE_DATA | VHDX_PRESENT);
        assert_int_equal(co_check(f).n, 0); /* past the last block of a disk without a parent */
        m.size = UINT64_C(5000) * MIB;
        made_begin(&m);
        bitmap = made_bitmap(&m, 0);
        co_errors(f, 1, "there is no parent");
        m = (struct made){.fd = f->fd, .flags = VHDX_HAS_PARENT};
        made_begin(&m);
        made_locator(&m, pairs);
        made_block(&m, 0, VHDX_PARTIAL, 'a');
        co_errors(f, 1, "and its sector bitmap");
        bitmap = made_bitmap(&m, 0);
        assert_int_equal(co_check(f).n, 0);
        made_block(&m, 1, VHDX_PRESENT, 'b');
        made_entry(&m, 1, bitmap, VHDX_PRESENT);
        struct findings found = co_check(f);
        assert_int_equal(found.check.n_errors, 1);
        assert_int_equal(found.check.n_leaks, 1);
        made_put64(&m, made_bitmap_at(&m, 0), VHDX_ZERO);
        found = co_check(f);
        assert_int_equal(found.check.n_errors, 2);
}

static void sector_bitmaps_are_checked(void **state)
{
        run(*state, co_bitmaps);
}

static void co_leaks(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        struct findings found;

        made_begin(&m);
        made_block(&m, 0, VHDX_PRESENT, 'a');
        made_block(&m, 1, VHDX_PRESENT, 'b');
        made_block(&m, 2, VHDX_PRESENT, 'c');
        made_block(&m, 3, VHDX_PRESENT, 'd');
        made_entry(&m, 1, 0, VHDX_ZERO);
        made_entry(&m, 2, 0, VHDX_ZERO);
        found = co_check(f);
        assert_int_equal(found.check.n_errors, 0);
        assert_int_equal(found.check.n_leaks, 2);
        assert_int_equal(found.check.leaked_bytes, 2 * MIB);
        assert_int_equal(found.n, 1);
        assert_non_null(strstr(found.last, "the 2097152 bytes at 5242880"));
        /* Before the first block there may be a gap, as QEMU leaves one. */
        made_entry(&m, 0, 0, VHDX_ZERO);
        assert_int_equal(co_check(f).check.n_leaks, 0);
        made_entry(&m, 3, 0, VHDX_ZERO);
        assert_int_equal(co_check(f).check.n_leaks, 0);
        made_end(&m, 40 * MIB);
        assert_int_equal(co_check(f).check.n_leaks, 36);
}

static void space_that_nothing_uses_is_a_leak(void **state)
{
        run(*state, co_leaks);
}

static void co_copies(struct fixture *f)
{
        static const struct {
                uint64_t at;
                const char *words;
        } damage[] = {
            {VHDX_HEADER_OFFSET(0) + 100, "header of 'x.vhdx' at 65536 is damaged"},
            {VHDX_HEADER_OFFSET(1) + 4095, "header of 'x.vhdx' at 131072 is damaged"},
            {VHDX_TABLE_OFFSET(0) + 65535, "region table of 'x.vhdx' at 196608 is damaged"},
            {VHDX_TABLE_OFFSET(1), "region table of 'x.vhdx' at 262144 is damaged"},
        };
        struct made m = {.fd = f->fd};

        for (unsigned i = 0; i < 4; i++) {
                made_begin(&m);
                made_put(&m, damage[i].at, "x", 1);
                co_errors(f, 1, damage[i].words);
        }
        made_begin(&m);
        made_put(&m, VHDX_TABLE_OFFSET(1) + 60000, "x", 1);
        made_mend_table(&m, 1);
        co_errors(f, 1, "differ");
        made_begin(&m);
        made_put32(&m, MADE_ITEM(2) + 24, 1); /* somebody's, not page 83 */
        co_errors(f, 1, "lacks page 83");
}

static void damaged_copies_are_errors(void **state)
{
        run(*state, co_copies);
}

static void co_log(struct fixture *f)
{
        uint8_t sector[VHDX_LOG_SECTOR] = {VHDX_PRESENT, 0, 0x40};
        struct made_record record = {MADE_BAT, sector, 0};
        struct made_log_entry entry = {.sequence = 1, .records = &record, .n_records = 1};
        struct made m = {.fd = f->fd};
        struct findings found;

        made_begin(&m);
        made_block(&m, 0, VHDX_PRESENT, 'a');
        made_entry(&m, 0, 0, VHDX_NOT_PRESENT);
        made_end(&m, m.next += 32 * MIB);
        made_use_log(&m);
        made_log(&m, &entry);
        found = co_check(f);
        assert_int_equal(found.n, 2); /* the log, and the end, which nothing uses */
        assert_int_equal(found.check.n_errors, 0);
        assert_int_equal(found.check.n_leaks, 32);
        made_end(&m, MADE_DATA + MIB);
        found = co_check(f);
        assert_int_equal(found.n, 1);
        assert_non_null(strstr(found.last, "1 log entries"));
        assert_int_equal(found.check.n_errors + found.check.n_leaks, 0);
}

static void the_check_is_of_what_the_log_says(void **state)
{
        run(*state, co_log);
}

/* The BAT is walked through twice, so half as many entries do. */
static void co_check_cancelled(struct fixture *f)
{
        struct made m = {.fd = f->fd, .size = 3 * IMAGE_CHECK_STEP / 2 * VHDX_MIB};
        struct image *image;

        made_begin(&m);
        assert_int_equal(co_image_open(f->fd, "x.vhdx", NULL, &image, NULL), 0);
        co_expect_cancelled(image);
        image_close(image);
}

static void a_check_can_be_cancelled(void **state)
{
        run(*state, co_check_cancelled);
}

#define vhdx_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhdx_test(nothing_is_found_where_nothing_is),
            vhdx_test(blocks_on_something_else_are_errors),
            vhdx_test(blocks_that_cannot_be_are_errors),
            vhdx_test(sector_bitmaps_are_checked),
            vhdx_test(space_that_nothing_uses_is_a_leak),
            vhdx_test(damaged_copies_are_errors),
            vhdx_test(the_check_is_of_what_the_log_says),
            vhdx_test(a_check_can_be_cancelled),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
