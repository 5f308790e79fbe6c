/* test_vhdx_log.c - VHDX files with a log that was not written back: it is found, checked and lies
 * over the file for all that is read. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/unit/image_fixture.h"
#include "tests/unit/vhdx_made.h"

static struct image *co_open(struct fixture *f)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        if (co_image_open(f->fd, "x.vhdx", NULL, &image, &e) != 0)
                print_error("%s\n", e.message);
        assert_non_null(image);
        assert_true(image->info.dirty);
        return image;
}

static void co_refused(struct fixture *f, int code, const char *words)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;
        int r = co_image_open(f->fd, "x.vhdx", NULL, &image, &e);

        assert_null(image);
        if (r != code || !strstr(e.message, words))
                print_error("%d: %s\n", r, e.message);
        assert_int_equal(r, code);
        assert_non_null(strstr(e.message, words));
        assert_non_null(strstr(e.message, "'x.vhdx'"));
}

static void co_expect(struct image *image, uint64_t offset, uint64_t length, int byte)
{
        uint8_t *data = test_malloc(length);

        assert_int_equal(image->driver->co_read(image, data, length, offset, NULL), 0);
        for (uint64_t i = 0; i < length; i++)
                assert_int_equal(data[i], byte);
        test_free(data);
}

/* A sector of the BAT in which block 0 is at @offset, and the others are not present. */
static const uint8_t *bat_sector(uint64_t offset)
{
        static uint8_t sector[4][VHDX_LOG_SECTOR];
        static unsigned turn;
        uint8_t *s = sector[turn++ % 4];
        le64 entry = le64_make(offset | VHDX_PRESENT);

        memset(s, 0, VHDX_LOG_SECTOR);
        memcpy(s, &entry, sizeof(entry));
        return s;
}

/* Two blocks of data that no entry names, the log in use. */
static void begin(struct fixture *f, struct made *m)
{
        *m = (struct made){.fd = f->fd};
        made_begin(m);
        made_block(m, 0, VHDX_PRESENT, 'a');
        made_block(m, 0, VHDX_PRESENT, 'b');
        made_entry(m, 0, 0, VHDX_NOT_PRESENT);
        made_use_log(m);
}
#define BLOCK_A MADE_DATA
#define BLOCK_B (MADE_DATA + MIB)
#define END     (MADE_DATA + 2 * MIB)

/* One entry that puts block 0 at @offset. */
static struct made_log_entry moves(struct made_record *record, uint32_t sector, uint64_t sequence,
                                   uint64_t offset)
{
        *record = (struct made_record){MADE_BAT, bat_sector(offset), 0};
        return (struct made_log_entry){.sector = sector,
                                       .tail = sector,
                                       .sequence = sequence,
                                       .flushed = END,
                                       .last = END,
                                       .records = record,
                                       .n_records = 1};
}

static void co_one(struct fixture *f)
{
        struct made_record record;
        struct made m;
        struct image *image;
        struct image_extent e;
        struct made_log_entry entry;

        begin(f, &m);
        entry = moves(&record, 3, UINT64_C(0x500000009), BLOCK_B);
        assert_int_equal(made_log(&m, &entry), 5);
        image = co_open(f);
        co_expect(image, 0, MIB, 'b');
        co_expect(image, MIB, MIB, 0);
        assert_int_equal(image->driver->co_extent(image, 0, &e, NULL), 0);
        assert_true(e.has_offset && e.file_offset == BLOCK_B && e.length == MIB);
        image_close(image);
        /* The file is as it was. */
        le64 in_file;
        assert_int_equal(pread(f->fd, &in_file, 8, MADE_BAT), 8);
        assert_int_equal(le64_get(in_file), 0);
        made_put64(&m, VHDX_HEADER_OFFSET(1) + 48, 0); /* of another log now */
        made_mend_header(&m, 1);
        co_refused(f, -EBADMSG, "no valid sequence");
        made_put64(&m, VHDX_HEADER_OFFSET(1) + 56, 0); /* empty */
        made_mend_header(&m, 1);
        assert_int_equal(co_image_open(f->fd, "x", NULL, &image, NULL), 0);
        assert_false(image->info.dirty);
        co_expect(image, 0, MIB, 0);
        image_close(image);
}

static void what_the_log_says_is_read(void **state)
{
        run(*state, co_one);
}

static void co_data(struct fixture *f)
{
        uint8_t ones[VHDX_LOG_SECTOR];
        struct made_record records[] = {
            {MADE_BAT, bat_sector(BLOCK_A), 0}, {BLOCK_A + 8192, NULL, 3 * 4096},
            {BLOCK_A + 12288, ones, 0}, /* on the zeroes before it */
            {BLOCK_B, NULL, UINT64_C(1) << 62}, {BLOCK_B + 4096, NULL, 0},
        };
        struct made_log_entry entry = {
            .sequence = 1, .flushed = END, .last = END, .records = records, .n_records = 5};
        struct made m;
        struct image *image;
        struct image_extent e;

        for (unsigned i = 0; i < sizeof(ones); i++)
                ones[i] = (uint8_t)(i * 7);
        begin(f, &m);
        made_log(&m, &entry);
        image = co_open(f);
        co_expect(image, 0, 8192, 'a');
        co_expect(image, 8192, 4096, 0);
        uint8_t data[VHDX_LOG_SECTOR + 2];
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 12287, NULL), 0);
        assert_int_equal(data[0], 0);
        assert_memory_equal(data + 1, ones, sizeof(ones)); /* all of it, both ends */
        assert_int_equal(data[4097], 0);
        co_expect(image, 16384, 4096, 0);
        co_expect(image, 20480, MIB - 20480, 'a');
        assert_int_equal(image->driver->co_extent(image, 0, &e, NULL), 0);
        assert_false(e.has_offset); /* not all of it is what the file has there */
        image_close(image);
}

static void sectors_and_zeroes_lie_over_the_file(void **state)
{
        run(*state, co_data);
}

static void co_order(struct fixture *f)
{
        struct made_record record[3];
        struct made_log_entry e[3];
        struct made m;
        struct image *image;

        begin(f, &m);
        e[0] = moves(&record[0], 0, 20, BLOCK_A);
        e[1] = moves(&record[1], made_log(&m, &e[0]), 21, BLOCK_B);
        e[1].tail = 0;
        made_log(&m, &e[1]);
        image = co_open(f);
        co_expect(image, 0, 512, 'b');
        image_close(image);
        /* An entry that does not follow is not of the sequence, which then has no tail. */
        e[1].sequence = 22;
        made_log(&m, &e[1]);
        image = co_open(f);
        co_expect(image, 0, 512, 'a');
        image_close(image);
        /* The greatest head wins, wherever it is. */
        e[2] = moves(&record[2], 100, 30, BLOCK_B);
        made_log(&m, &e[2]);
        image = co_open(f);
        co_expect(image, 0, 512, 'b');
        image_close(image);
        e[2] = moves(&record[2], 100, 19, BLOCK_B);
        made_log(&m, &e[2]);
        image = co_open(f);
        co_expect(image, 0, 512, 'a');
        image_close(image);
}

static void the_sequence_with_the_greatest_head_is_replayed_in_order(void **state)
{
        run(*state, co_order);
}

static void co_tail(struct fixture *f)
{
        struct made_record record[2];
        struct made_record first[] = {{MADE_BAT, bat_sector(BLOCK_A), 0}, {BLOCK_B, NULL, 4096}};
        struct made_log_entry e[2];
        struct made m;
        struct image *image;

        /* Of two that follow, the second says that it is enough. */
        begin(f, &m);
        e[0] = moves(&record[0], 0, 1, BLOCK_A);
        e[0].records = first;
        e[0].n_records = 2;
        e[1] = moves(&record[1], made_log(&m, &e[0]), 2, BLOCK_B);
        made_log(&m, &e[1]);
        image = co_open(f);
        co_expect(image, 0, MIB, 'b');
        image_close(image);
        e[1].tail = 0;
        made_log(&m, &e[1]);
        image = co_open(f);
        co_expect(image, 0, 4096, 0);
        image_close(image);
        /* One whose tail is nowhere in it. */
        e[0].tail = e[1].tail = 50;
        made_log(&m, &e[0]);
        made_log(&m, &e[1]);
        co_refused(f, -EBADMSG, "no valid sequence");
}

static void replay_begins_where_the_head_says(void **state)
{
        run(*state, co_tail);
}

static void co_round(struct fixture *f)
{
        struct made_record record[3];
        struct made_log_entry e[3];
        struct made m;
        struct image *image;

        /* The second entry goes round the ring's end, and the third follows. */
        begin(f, &m);
        e[0] = moves(&record[0], 253, 7, BLOCK_A);
        e[1] = moves(&record[1], made_log(&m, &e[0]), 8, BLOCK_B);
        e[1].tail = 253;
        assert_int_equal(made_log(&m, &e[1]), 1);
        image = co_open(f);
        co_expect(image, 0, MIB, 'b');
        image_close(image);
        e[2] = moves(&record[2], 1, 9, BLOCK_A);
        e[2].tail = 253;
        made_log(&m, &e[2]);
        image = co_open(f);
        co_expect(image, 0, MIB, 'a');
        image_close(image);
}

static void the_log_goes_round(void **state)
{
        run(*state, co_round);
}

static void co_many(struct fixture *f)
{
        struct made_record records[300];
        struct made_log_entry e = {
            .sequence = 1, .flushed = END, .last = END, .records = records, .n_records = 300};
        uint8_t sector[VHDX_LOG_SECTOR];
        struct made m;
        struct image *image;

        /* Descriptors in three sectors; every third one has data. */
        begin(f, &m);
        memset(sector, 'x', sizeof(sector));
        records[0] = (struct made_record){MADE_BAT, bat_sector(BLOCK_A), 0};
        for (unsigned i = 1; i < 300; i++)
                records[i] = (struct made_record){BLOCK_A + (i % 200) * 4096,
                                                  i % 3 == 0 ? sector : NULL, 4096};
        made_log(&m, &e);
        image = co_open(f);
        for (unsigned i = 1; i < 200; i++) {
                unsigned last = i < 100 ? i + 200 : i;

                co_expect(image, i * 4096, 4096, last % 3 == 0 ? 'x' : 0);
        }
        image_close(image);
}

static void an_entry_has_many_descriptors(void **state)
{
        run(*state, co_many);
}

static void co_regions(struct fixture *f)
{
        static uint8_t table[VHDX_TABLE_SIZE];
        struct made_record records[16];
        struct made_log_entry e = {
            .sequence = 1, .flushed = END, .last = END, .records = records, .n_records = 16};
        struct made m;
        struct image *image;

        /* Both tables are damaged in the file, and in the log the first is whole. */
        begin(f, &m);
        assert_int_equal(pread(f->fd, table, sizeof(table), VHDX_TABLE_OFFSET(0)), sizeof(table));
        for (unsigned i = 0; i < 16; i++)
                records[i] =
                    (struct made_record){VHDX_TABLE_OFFSET(0) + i * 4096, table + i * 4096, 0};
        made_put(&m, VHDX_TABLE_OFFSET(0), "r", 1);
        made_put(&m, VHDX_TABLE_OFFSET(0) + 40, "x", 1);
        made_put(&m, VHDX_TABLE_OFFSET(1) + 40, "x", 1);
        made_log(&m, &e);
        image = co_open(f);
        image_close(image);
        records[3].offset = VHDX_HEADER_OFFSET(1);
        made_log(&m, &e);
        co_refused(f, -EBADMSG, "writes to offset 131072");
}

static void tables_can_be_changed_through_the_log_and_headers_cannot(void **state)
{
        run(*state, co_regions);
}

static void co_lengths(struct fixture *f)
{
        struct made_record record;
        struct made_log_entry e;
        struct made m;
        struct image *image;
        struct image_extent extent;
        struct stat st;

        begin(f, &m);
        e = moves(&record, 0, 1, BLOCK_A);
        e.flushed = END + MIB;
        made_log(&m, &e);
        co_refused(f, -EBADMSG, "is truncated");
        e = moves(&record, 0, 1, END + 2 * MIB);
        made_log(&m, &e);
        image = co_open(f);
        assert_int_equal(image->driver->co_extent(image, 0, &extent, NULL), -EBADMSG);
        image_close(image);
        e.last = END + 3 * MIB - 4096; /* up to the next MiB */
        made_log(&m, &e);
        image = co_open(f);
        co_expect(image, 0, MIB, 0);
        assert_int_equal(image->driver->co_extent(image, 0, &extent, NULL), 0);
        assert_false(extent.has_offset);
        image_close(image);
        assert_int_equal(fstat(f->fd, &st), 0);
        assert_int_equal(st.st_size, END);
        e.last = IMAGE_SIZE_MAX + MIB;
        made_log(&m, &e);
        co_refused(f, -EBADMSG, "bytes long");
}

static void the_file_has_the_length_that_the_log_says(void **state)
{
        run(*state, co_lengths);
}

static void co_bad_entries(struct fixture *f)
{
        /* In the entry: header, descriptor at 64, data sector at 4096. */
        static const struct {
                unsigned at;
                uint32_t value;
        } bad[] = {
            {0, 0},                                                                  /* signature */
            {8, 0},                                                                  /* length */
            {8, 4096}, {8, 3 * 4096},    {8, 8191},        {8, 0xfffff000}, {12, 1}, /* tail */
            {12, MIB}, {16, 0},                                                      /* sequence */
            {16, 6}, /* not its descriptor's */
            {24, 0}, /* descriptors: then there is one data sector too many */
            {24, 2},   {24, 127},        {24, 0xffffffff}, {32, 0}, /* the log's name */
            {64, 0},                                                /* descriptor: signature */
            {80, 1},                                                /* offset */
            {80, 512}, {84, 0x80000000}, {88, 6},                   /* sequence */
            {92, 6},   {4096, 0},                                   /* sector: signature */
            {4100, 1},                                              /* sequence, high */
            {8188, 6},                                              /* low */
        };
        struct made_record record;
        struct made_log_entry e;
        struct made m;

        for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
                begin(f, &m);
                e = moves(&record, 0, 5, BLOCK_A);
                made_log(&m, &e);
                if (i < sizeof(bad) / sizeof(bad[0])) {
                        made_put32(&m, MADE_LOG + bad[i].at, bad[i].value);
                        made_mend_log(&m, 0, 2);
                } else {
                        made_put(&m, MADE_LOG + 4500, "x", 1); /* the sum */
                }
                co_refused(f, -EBADMSG, "no valid sequence");
        }
}

static void an_entry_with_anything_wrong_in_it_is_none(void **state)
{
        run(*state, co_bad_entries);
}

static void co_bad_zeroes(struct fixture *f)
{
        static const struct made_record bad[] = {{BLOCK_A, NULL, 512},
                                                 {BLOCK_A, NULL, UINT64_MAX - 4095},
                                                 {BLOCK_A + 512, NULL, 4096},
                                                 {UINT64_MAX - 4095, NULL, 4096}};
        struct made m;

        for (size_t i = 0; i < 4; i++) {
                struct made_log_entry e = {
                    .sequence = 1, .flushed = END, .last = END, .records = &bad[i], .n_records = 1};

                begin(f, &m);
                made_log(&m, &e);
                co_refused(f, -EBADMSG, "no valid sequence");
        }
}

static void zeroes_are_whole_sectors_that_can_be(void **state)
{
        run(*state, co_bad_zeroes);
}

static void co_bad_logs(struct fixture *f)
{
        struct made m;

        begin(f, &m);
        co_refused(f, -EBADMSG, "no valid sequence"); /* nothing in it */
        made_put32(&m, VHDX_HEADER_OFFSET(1) + 64, 0x10001);
        made_mend_header(&m, 1);
        co_refused(f, -ENOTSUP, "log of version 1");
        begin(f, &m);
        made_put32(&m, VHDX_HEADER_OFFSET(1) + 68, 0);
        made_mend_header(&m, 1);
        co_refused(f, -EBADMSG, "not within the file");
        begin(f, &m);
        made_put32(&m, VHDX_HEADER_OFFSET(1) + 68, 0xfff00000);
        made_mend_header(&m, 1);
        co_refused(f, -EBADMSG, "not within the file");
        made_end(&m, UINT64_C(8) << 30);
        co_refused(f, -ENOTSUP, "at most");
        for (uint32_t more = 0; more < 2; more++) { /* the largest one, and one of a MiB more */
                begin(f, &m);
                made_end(&m, END + 2 * VHDX_LOG_MAX);
                made_put32(&m, VHDX_HEADER_OFFSET(1) + 68, VHDX_LOG_MAX + more * MIB);
                made_put32(&m, VHDX_HEADER_OFFSET(1) + 72, END);
                made_put32(&m, VHDX_HEADER_OFFSET(1) + 76, 0);
                made_mend_header(&m, 1);
                co_refused(f, more ? -ENOTSUP : -EBADMSG, more ? "at most" : "no valid sequence");
        }
        begin(f, &m);
        made_put32(&m, VHDX_HEADER_OFFSET(1) + 76, 0x80000000);
        made_mend_header(&m, 1);
        co_refused(f, -EBADMSG, "not within the file");
}

static void a_log_is_in_the_file_and_not_too_large(void **state)
{
        run(*state, co_bad_logs);
}

#define vhdx_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhdx_test(what_the_log_says_is_read),
            vhdx_test(sectors_and_zeroes_lie_over_the_file),
            vhdx_test(the_sequence_with_the_greatest_head_is_replayed_in_order),
            vhdx_test(replay_begins_where_the_head_says),
            vhdx_test(the_log_goes_round),
            vhdx_test(an_entry_has_many_descriptors),
            vhdx_test(tables_can_be_changed_through_the_log_and_headers_cannot),
            vhdx_test(the_file_has_the_length_that_the_log_says),
            vhdx_test(an_entry_with_anything_wrong_in_it_is_none),
            vhdx_test(zeroes_are_whole_sectors_that_can_be),
            vhdx_test(a_log_is_in_the_file_and_not_too_large),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
