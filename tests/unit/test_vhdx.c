/* test_vhdx.c - VHDX files read: headers, regions, metadata, blocks; each kind of damage. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "tests/unit/image_fixture.h"
#include "tests/unit/vhdx_made.h"

/* The file opens; the image. */
static struct image *co_open(struct fixture *f)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        if (co_image_open(f->fd, "x.vhdx", NULL, &image, &e) != 0)
                print_error("%s\n", e.message);
        assert_non_null(image);
        assert_string_equal(image->driver->name, "vhdx");
        return image;
}

/* It does not, with @code and a sentence that has @words in it. */
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

static struct image_extent co_extent(struct image *image, uint64_t offset)
{
        struct image_extent extent = {0};

        assert_int_equal(image->driver->co_extent(image, offset, &extent, NULL), 0);
        assert_true(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
        return extent;
}

static void co_unreadable(struct image *image, uint64_t offset, const char *words)
{
        struct image_extent extent;
        struct error e = ERROR_INIT;
        uint8_t byte;

        assert_int_equal(image->driver->co_read(image, &byte, 1, offset, &e), -EBADMSG);
        if (!strstr(e.message, words))
                print_error("%s\n", e.message);
        assert_non_null(strstr(e.message, words));
        assert_int_equal(image->driver->co_extent(image, offset, &extent, &e), -EBADMSG);
}

/* ---- what is right ---- */

static void co_states(struct fixture *f)
{
        struct made m = {.fd = f->fd, .size = 8 * MIB + 512};
        struct image *image;
        uint64_t first;

        made_begin(&m);
        first = made_block(&m, 0, VHDX_PRESENT, 'a');
        made_block(&m, 1, VHDX_PRESENT, 'b');
        made_entry(&m, 2, 0, VHDX_NOT_PRESENT);
        made_entry(&m, 3, first, VHDX_UNDEFINED);
        made_entry(&m, 4, 0, VHDX_ZERO);
        made_entry(&m, 5, first, VHDX_UNMAPPED);
        made_block(&m, 8, VHDX_PRESENT, 'i');
        image = co_open(f);
        assert_int_equal(image->virtual_bytes, 8 * MIB + 512);
        assert_int_equal(image->info.cluster_bytes, MIB);
        assert_string_equal(image->info.variant, "dynamic");
        assert_false(image->info.dirty);
        co_expect(image, 0, MIB, 'a');
        co_expect(image, MIB, MIB, 'b');
        co_expect(image, 2 * MIB, 6 * MIB, 0);
        co_expect(image, 8 * MIB, 512, 'i');

        struct image_extent e = co_extent(image, 5);
        assert_int_equal(e.length, 2 * MIB - 5);
        assert_true(e.present && !e.zero && e.has_offset);
        assert_int_equal(e.file_offset, first + 5);
        e = co_extent(image, 2 * MIB);
        assert_true(e.zero && !e.present && e.length == MIB);
        e = co_extent(image, 3 * MIB);
        assert_true(e.zero && e.present && e.length == 3 * MIB);
        e = co_extent(image, 8 * MIB);
        assert_true(!e.zero && e.length == 512);
        image_close(image);
}

static void every_state_of_a_block_is_read_as_it_is_meant(void **state)
{
        run(*state, co_states);
}

static void co_chunks(struct fixture *f)
{
        struct made m = {.fd = f->fd, .block = 256 * (uint64_t)MIB};
        struct image *image;

        /* 16 blocks a chunk: blocks 15 and 16 have a bitmap's entry between them. */
        m.size = 20 * m.block;
        made_begin(&m);
        for (unsigned i = 15; i <= 16; i++) {
                made_entry(&m, i, m.next, VHDX_PRESENT);
                made_fill(&m, m.next + m.block - 512, (uint8_t)i, 512);
                m.next += m.block;
                made_end(&m, m.next);
        }
        made_entry(&m, 19, m.next, VHDX_ZERO);
        image = co_open(f);
        for (unsigned i = 15; i <= 16; i++) {
                struct image_extent e = co_extent(image, i * m.block);

                assert_true(e.present && e.has_offset);
                assert_int_equal(e.file_offset, MADE_DATA + (i - 15) * m.block);
                if (!image->no_seek_data) /* a hole up to the bytes at the end */
                        assert_true(e.zero && e.length >= m.block - 65536 && e.length < m.block);
                e = co_extent(image, (i + 1) * m.block - 512);
                assert_true(e.present && !e.zero);
        }
        co_expect(image, 16 * m.block - 512, 512, 15);
        co_expect(image, 17 * m.block - 512, 512, 16);
        assert_true(co_extent(image, 19 * m.block).present);
        image_close(image);
}

static void blocks_are_found_across_chunks(void **state)
{
        run(*state, co_chunks);
}

static void co_sizes(struct fixture *f)
{
        static const uint64_t blocks[] = {MIB, 2 * MIB, 32 * MIB, 256 * MIB};

        for (size_t i = 0; i < 4; i++)
                for (unsigned k = 0; k < 2; k++) {
                        struct made m = {.fd = f->fd,
                                         .block = blocks[i],
                                         .size = MIB * 3ull,
                                         .sector = k ? 4096 : 512};
                        struct image *image;

                        made_begin(&m);
                        made_block(&m, 0, VHDX_PRESENT, 'x');
                        image = co_open(f);
                        assert_int_equal(image->info.cluster_bytes, blocks[i]);
                        co_expect(image, 0, MIB, 'x');
                        image_close(image);
                }
}

static void all_sizes_of_blocks_and_sectors_are_read(void **state)
{
        run(*state, co_sizes);
}

static void co_tail(struct fixture *f)
{
        struct made m = {.fd = f->fd, .size = MIB + 1024};
        struct image *image;
        uint64_t last;

        made_begin(&m);
        made_block(&m, 0, VHDX_PRESENT, 'a');
        last = made_block(&m, 1, VHDX_PRESENT, 'b');
        made_end(&m, last + 1024); /* QEMU's fixed images end where the disk does */
        image = co_open(f);
        co_expect(image, MIB, 1024, 'b');
        image_close(image);
        made_end(&m, last + 1023);
        image = co_open(f);
        co_unreadable(image, MIB, "not within the file");
        co_expect(image, 0, MIB, 'a');
        image_close(image);
}

static void a_last_block_may_end_where_the_disk_ends(void **state)
{
        run(*state, co_tail);
}

static void co_empty(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        struct image *image;

        made_begin(&m);
        made_put64(&m, MADE_VALUE(MADE_SIZE), 0);
        image = co_open(f);
        assert_int_equal(image->virtual_bytes, 0);
        image_close(image);
}

static void a_disk_may_have_no_bytes(void **state)
{
        run(*state, co_empty);
}

/* ---- headers ---- */

static void co_headers(struct fixture *f)
{
        struct made m = {.fd = f->fd};

        made_begin(&m);
        /* The second is in force (8 against 7), and says what cannot be read. */
        made_put16(&m, VHDX_HEADER_OFFSET(1) + 66, 2);
        made_mend_header(&m, 1);
        co_refused(f, -ENOTSUP, "version 2");
        /* Its sum is wrong: the first counts. */
        made_put16(&m, VHDX_HEADER_OFFSET(1) + 4090, 2);
        image_close(co_open(f));
        made_put64(&m, VHDX_HEADER_OFFSET(0) + 8, 9);
        co_refused(f, -EBADMSG, "without a valid header");
        made_mend_header(&m, 0);
        made_mend_header(&m, 1);
        image_close(co_open(f)); /* 9 against 8 */
        made_put(&m, VHDX_HEADER_OFFSET(0), "HEAD", 4);
        made_mend_header(&m, 0);
        co_refused(f, -ENOTSUP, "version 2");
}

static void the_header_with_the_higher_number_is_in_force(void **state)
{
        run(*state, co_headers);
}

static void co_same_number(struct fixture *f)
{
        struct made m = {.fd = f->fd};

        made_begin(&m);
        made_put64(&m, VHDX_HEADER_OFFSET(0) + 8, 8);
        made_mend_header(&m, 0);
        image_close(co_open(f));
        made_put(&m, VHDX_HEADER_OFFSET(0) + 16, "other", 5);
        made_mend_header(&m, 0);
        co_refused(f, -EBADMSG, "same sequence number 8");
}

static void headers_of_one_number_must_be_the_same(void **state)
{
        run(*state, co_same_number);
}

static void co_header_fields(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        static const struct {
                unsigned at, value;
                const char *words;
        } bad[] = {
            {72, MIB + 4096, "multiples of 1 MiB"}, /* log offset */
            {72, 0, "multiples of 1 MiB"},
            {68, 4096, "multiples of 1 MiB"}, /* log length */
            {68, 2 * MIB, "overlap"},         /* onto the metadata */
            {72, 3 * MIB, "overlap"},         /* onto the BAT */
            {64, 0x10001, NULL},              /* log version: the log is empty */
            {68, 0, NULL},
            {72, 999 * MIB, NULL}, /* outside, and not in use */
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                made_begin(&m);
                made_put32(&m, VHDX_HEADER_OFFSET(1) + bad[i].at, bad[i].value);
                made_mend_header(&m, 1);
                if (bad[i].words)
                        co_refused(f, -EBADMSG, bad[i].words);
                else
                        image_close(co_open(f));
        }
        made_begin(&m);
        made_put(&m, 0, "VHDXFILE", 8);
        struct image *image = NULL;
        struct error e = ERROR_INIT;
        assert_int_equal(
            co_image_open(f->fd, "x", &(struct image_options){.format = "vhdx"}, &image, &e),
            -EBADMSG);
        assert_non_null(strstr(e.message, "does not begin"));
        made_begin(&m);
        for (uint64_t end = 8; end < MADE_BAT; end += 50000) {
                made_end(&m, end);
                assert_true(co_image_open(f->fd, "x", NULL, &image, &e) < 0 && e.message[0]);
        }
}

static void what_a_header_says_is_checked(void **state)
{
        run(*state, co_header_fields);
}

/* ---- regions ---- */

static void co_second_table(struct fixture *f)
{
        struct made m = {.fd = f->fd};

        made_begin(&m);
        made_fill(&m, VHDX_TABLE_OFFSET(0), 0, VHDX_TABLE_SIZE);
        image_close(co_open(f));
        made_put(&m, VHDX_TABLE_OFFSET(1) + 60000, "x", 1);
        co_refused(f, -EBADMSG, "no valid region table");
}

static void the_second_region_table_is_there_for_when_the_first_is_damaged(void **state)
{
        run(*state, co_second_table);
}

static void co_regions(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        static const struct {
                uint64_t at;
                uint32_t value;
                int code;
                const char *words;
        } bad[] = {
            {MADE_REGION(0, 0) + 16, 3 * MIB + 65536, -EBADMSG, "aligned to 1 MiB"},
            {MADE_REGION(0, 0) + 16, 0, -EBADMSG, "aligned to 1 MiB"},
            {MADE_REGION(0, 0) + 24, 4096, -EBADMSG, "aligned to 1 MiB"},
            {MADE_REGION(0, 0) + 24, 2 * MIB, -EBADMSG, "not within the file"},
            {MADE_REGION(0, 0) + 24, 0xfff00000, -EBADMSG, "not within the file"},
            {MADE_REGION(0, 0) + 20, 0xffffffff, -EBADMSG, "not within the file"},
            {MADE_REGION(0, 0) + 16, 2 * MIB, -EBADMSG, "at 2097152 and at 2097152 overlap"},
            {MADE_REGION(0, 1) + 16, MIB, -EBADMSG, "at 1048576 and at 1048576 overlap"},
            {MADE_REGION(0, 1) + 24, 2 * MIB, -EBADMSG, "at 2097152 and at 3145728 overlap"},
            {MADE_REGION(0, 0), 7, -ENOTSUP, "00000007-f623-4200-9d64-115e9bfd4a08"},
            {VHDX_TABLE_OFFSET(0) + 8, 1, -EBADMSG, "names no metadata"},
            {VHDX_TABLE_OFFSET(0) + 8, 0, -EBADMSG, "names no block allocation table"},
            {VHDX_TABLE_OFFSET(0) + 8, VHDX_ENTRIES_MAX, -EBADMSG, "aligned to 1 MiB"},
            {VHDX_TABLE_OFFSET(0) + 8, 2048, -EBADMSG, "2048 entries"},
            {VHDX_TABLE_OFFSET(0) + 8, 0xffffffff, -EBADMSG, "4294967295 entries"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                made_begin(&m);
                made_put32(&m, bad[i].at, bad[i].value);
                made_mend_table(&m, 0);
                co_refused(f, bad[i].code, bad[i].words);
        }
}

static void regions_are_where_they_can_be(void **state)
{
        run(*state, co_regions);
}

static void co_more_regions(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        struct vhdx_region_disk region = {
            .guid = {"something else!"}, .offset = le64_make(4 * MIB), .length = le32_make(MIB)};

        made_begin(&m);
        made_end(&m, 6 * MIB);
        made_put32(&m, VHDX_TABLE_OFFSET(0) + 8, 3);
        made_put(&m, MADE_REGION(0, 2), &region, sizeof(region));
        made_mend_table(&m, 0);
        image_close(co_open(f));
        region.required = le32_make(1);
        made_put(&m, MADE_REGION(0, 2), &region, sizeof(region));
        made_mend_table(&m, 0);
        co_refused(f, -ENOTSUP, "656d6f73-6874-6e69-6720-656c73652100");
        region.guid = VHDX_REGION_BAT;
        made_put(&m, MADE_REGION(0, 2), &region, sizeof(region));
        made_mend_table(&m, 0);
        co_refused(f, -EBADMSG, "twice");
}

static void an_unknown_region_is_refused_by_its_name_if_it_is_required(void **state)
{
        run(*state, co_more_regions);
}

/* ---- metadata ---- */

/* With blocks or sectors of no bytes QEMU divided by zero, and with others it went past its tables
 * (CVE-2014-0148). */
static void co_items(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        static const struct {
                uint64_t at;
                uint32_t value;
                int code;
                const char *words;
        } bad[] = {
            {MADE_METADATA, 0, -EBADMSG, "wrong signature"},
            {MADE_METADATA + 8, VHDX_ENTRIES_MAX << 16, -EBADMSG, "is there twice"},
            {MADE_METADATA + 8, 2048u << 16, -EBADMSG, "too many entries"},
            {MADE_ITEM(0) + 16, 65528, -EBADMSG, "not within the metadata region"},
            {MADE_ITEM(0) + 16, MIB - 7, -EBADMSG, "not within the metadata region"},
            {MADE_ITEM(0) + 16, 0xfffffff8, -EBADMSG, "not within the metadata region"},
            {MADE_ITEM(0) + 20, 0, -EBADMSG, "not within the metadata region"},
            {MADE_ITEM(0) + 20, 4, -EBADMSG, "another length"},
            {MADE_ITEM(2) + 20, MIB + 1, -EBADMSG, "not within the metadata region"},
            {MADE_ITEM(0) + 16, 65536 + 4096 - 4, -EBADMSG, "lies on another"},
            {MADE_ITEM(0) + 24, 5, -ENOTSUP, "caa16737-fa36-4d43-b3b6-33f0aa44e76b"},
            {MADE_ITEM(0) + 24, 1, -EBADMSG, "no file parameters"},
            {MADE_ITEM(1) + 24, 1, -EBADMSG, "no virtual disk size"},
            {MADE_ITEM(3) + 24, 1, -EBADMSG, "no logical sector size"},
            {MADE_ITEM(2), 0, -ENOTSUP, "00000000-b2e6-4523-93ef-c309e000c746"},
            {MADE_VALUE(MADE_PARAMETERS), 0, -EBADMSG, "blocks of 0 bytes"},
            {MADE_VALUE(MADE_PARAMETERS), MIB / 2, -EBADMSG, "blocks of 524288 bytes"},
            {MADE_VALUE(MADE_PARAMETERS), 3 * MIB, -EBADMSG, "blocks of 3145728 bytes"},
            {MADE_VALUE(MADE_PARAMETERS), 512 * MIB, -EBADMSG, "blocks of 536870912 bytes"},
            {MADE_VALUE(MADE_PARAMETERS) + 4, 2, -EBADMSG, "no parent locator"},
            {MADE_VALUE(MADE_SIZE), 1000, -EBADMSG, "virtual disk size"},
            {MADE_VALUE(MADE_SIZE) + 4, 0x80000000, -EBADMSG, "virtual disk size"},
            {MADE_VALUE(MADE_SIZE) + 4, 64 * 256, -EBADMSG, "virtual disk size"}, /* 64 TiB and 8 */
            {MADE_VALUE(MADE_SIZE) + 4, 63 * 256, -EBADMSG, "are needed"},        /* in the BAT */
            {MADE_VALUE(MADE_LOGICAL), 0, -EBADMSG, "logical sector size"},
            {MADE_VALUE(MADE_LOGICAL), 1024, -EBADMSG, "logical sector size"},
            {MADE_VALUE(MADE_PHYSICAL), 8192, -EBADMSG, "physical sector size"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                made_begin(&m);
                made_put32(&m, bad[i].at, bad[i].value);
                co_refused(f, bad[i].code, bad[i].words);
        }
        made_begin(&m);
        made_put(&m, MADE_ITEM(2), &VHDX_ITEM_SIZE, 16);
        co_refused(f, -EBADMSG, "twice");
}

static void what_metadata_says_is_checked(void **state)
{
        run(*state, co_items);
}

static void co_more_items(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        struct vhdx_item_disk item = {.id = {"of some program"}, .flags = le32_make(3)};

        /* Present and empty; with a value; of the user's under a name of the system's. */
        made_begin(&m);
        made_put16(&m, MADE_METADATA + 10, 8);
        made_put(&m, MADE_ITEM(5), &item, sizeof(item));
        item.id.b[0]++;
        item.offset = le32_make(512 * KIB);
        item.length = le32_make(512 * KIB);
        made_put(&m, MADE_ITEM(6), &item, sizeof(item));
        item = (struct vhdx_item_disk){.id = VHDX_ITEM_SIZE, .flags = le32_make(1)};
        made_put(&m, MADE_ITEM(7), &item, sizeof(item));
        image_close(co_open(f));
        item = (struct vhdx_item_disk){.id = {"of some program"}, .flags = le32_make(1)};
        made_put(&m, MADE_ITEM(7), &item, sizeof(item));
        co_refused(f, -EBADMSG, "twice");
}

static void metadata_of_others_is_left_alone(void **state)
{
        run(*state, co_more_items);
}

static void co_many_items(struct fixture *f)
{
        struct made m = {.fd = f->fd};

        made_begin(&m);
        for (unsigned i = 5; i < 5 + 1025; i++) {
                struct vhdx_item_disk item = {.id = {{1, 0, (uint8_t)i, (uint8_t)(i >> 8)}},
                                              .flags = le32_make(1)};

                made_put(&m, MADE_ITEM(i), &item, sizeof(item));
        }
        made_put16(&m, MADE_METADATA + 10, 5 + 1024);
        image_close(co_open(f));
        made_put16(&m, MADE_METADATA + 10, 5 + 1025);
        co_refused(f, -EBADMSG, "1025 items");
}

static void users_have_1024_items(void **state)
{
        run(*state, co_many_items);
}

/* ---- blocks ---- */

static void co_bad_blocks(struct fixture *f)
{
        struct made m = {.fd = f->fd};
        struct image *image;

        made_begin(&m);
        made_block(&m, 0, VHDX_PRESENT, 'a');
        made_entry(&m, 1, 0, (enum vhdx_state)4);
        made_entry(&m, 2, 0, (enum vhdx_state)5);
        made_entry(&m, 3, MADE_DATA, VHDX_PARTIAL);
        made_entry(&m, 4, 0, VHDX_PRESENT);
        made_entry(&m, 5, m.next, VHDX_PRESENT);
        made_entry(&m, 6, UINT64_MAX << 20, VHDX_PRESENT);
        made_block(&m, 7, VHDX_PRESENT, 'h');
        image = co_open(f);
        co_expect(image, 0, MIB, 'a');
        assert_int_equal(co_extent(image, 0).length, MIB);
        co_unreadable(image, MIB, "state 4");
        co_unreadable(image, 2 * MIB, "state 5");
        co_unreadable(image, 3 * MIB, "there is no parent");
        co_unreadable(image, 4 * MIB, "is at 0");
        co_expect(image, 5 * MIB, MIB, 'h'); /* where block 7 is, too */
        co_unreadable(image, 6 * MIB, "not within the file");
        image_close(image);
}

static void a_block_that_cannot_be_is_an_error_of_its_own(void **state)
{
        run(*state, co_bad_blocks);
}

static void co_many_blocks(struct fixture *f)
{
        struct made m = {.fd = f->fd, .size = UINT64_C(120000) * MIB};
        struct image *image;
        uint64_t offset = 0, steps = 0;

        /* More of the BAT than the cache keeps a page of, in one extent after the other. */
        made_begin(&m);
        for (unsigned i = 0; i < 120000; i += 1000)
                made_entry(&m, i, m.next, VHDX_PRESENT);
        made_fill(&m, m.next, 'z', MIB);
        image = co_open(f);
        while (offset < image->virtual_bytes) {
                struct image_extent e = co_extent(image, offset);

                assert_int_equal(e.zero, offset / MIB % 1000 != 0);
                offset += e.length;
                steps++;
        }
        assert_true(steps < 120 * 4);
        co_expect(image, 119000 * (uint64_t)MIB, MIB, 'z');
        image_close(image);
}

static void extents_of_a_large_disk_are_long(void **state)
{
        run(*state, co_many_blocks);
}

/* An archive that is a hole in front of its member, and where the member's blocks would be if it began
 * at 0: block 0 has data, block 1 is there and was never written. */
static void co_within(struct fixture *f)
{
        const uint64_t base = 32 * MIB;
        struct made m = {.fd = f->fd};
        struct image *image = NULL;
        struct image_extent e;
        uint64_t first;
        uint8_t *bytes;
        int archive = memfd_create("archive", MFD_CLOEXEC);

        made_begin(&m);
        first = made_block(&m, 0, VHDX_PRESENT, 'a');
        made_entry(&m, 1, m.next, VHDX_PRESENT);
        made_end(&m, m.next + MIB);
        bytes = test_malloc(first + MIB);
        assert_int_equal(pread(f->fd, bytes, first + MIB, 0), first + MIB);
        assert_int_equal(pwrite(archive, bytes, first + MIB, (off_t)base), first + MIB);
        assert_int_equal(ftruncate(archive, (off_t)(base + first + 3 * MIB)), 0);
        test_free(bytes);
        assert_int_equal(co_image_open_within(archive, "x.ova(x.vhdx)", base, first + 2 * MIB, NULL,
                                              &image, NULL),
                         0);
        e = co_extent(image, 0);
        assert_true(e.present && !e.zero);
        assert_true(e.length == MIB && e.file_offset == first);
        e = co_extent(image, MIB);
        assert_true(e.present && e.zero);
        assert_true(e.length == MIB && e.file_offset == first + MIB);
        co_expect(image, 0, MIB, 'a');
        co_expect(image, MIB, MIB, 0);
        image_close(image);
        close(archive);
}

static void holes_are_looked_for_where_the_image_is(void **state)
{
        run(*state, co_within);
}

#define vhdx_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhdx_test(every_state_of_a_block_is_read_as_it_is_meant),
            vhdx_test(blocks_are_found_across_chunks),
            vhdx_test(all_sizes_of_blocks_and_sectors_are_read),
            vhdx_test(a_last_block_may_end_where_the_disk_ends),
            vhdx_test(a_disk_may_have_no_bytes),
            vhdx_test(the_header_with_the_higher_number_is_in_force),
            vhdx_test(headers_of_one_number_must_be_the_same),
            vhdx_test(what_a_header_says_is_checked),
            vhdx_test(the_second_region_table_is_there_for_when_the_first_is_damaged),
            vhdx_test(regions_are_where_they_can_be),
            vhdx_test(an_unknown_region_is_refused_by_its_name_if_it_is_required),
            vhdx_test(what_metadata_says_is_checked),
            vhdx_test(metadata_of_others_is_left_alone),
            vhdx_test(users_have_1024_items),
            vhdx_test(a_block_that_cannot_be_is_an_error_of_its_own),
            vhdx_test(extents_of_a_large_disk_are_long),
            vhdx_test(holes_are_looked_for_where_the_image_is),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
