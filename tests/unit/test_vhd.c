/* test_vhd.c - VHD images: made by hand, as others make them and as nobody should, read; and written. */
#include "tests/unit/vhd_build.h"

#define NONE VHD_BLOCK_ABSENT

/* ---- reading ---- */

static void co_dynamic(struct fixture *f)
{
        const uint32_t table[] = {nth(1), nth(2), NONE, NONE, nth(0)};
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, 4 * BLOCK + 1024, 1);
        struct vhd_header_disk header = header_of(5);
        struct image_extent extent;
        struct image *image;

        put_image(f->fd, &footer, &header, table, 3);
        put_block(f->fd, 0, 0xff, 100);
        put_block(f->fd, 1, 0xff, 1);
        put_block(f->fd, 2, 0x9c, 9); /* sectors 0, 3, 4, 5 */
        image = co_opened(f->fd, NULL);
        assert_string_equal(image->driver->name, "vhd");
        assert_string_equal(image->info.variant, "dynamic");
        assert_string_equal(image->info.version, "1.0");
        assert_false(image->info.dirty);
        assert_int_equal(image->info.cluster_bytes, BLOCK);
        assert_int_equal(image->virtual_bytes, 4 * BLOCK + 1024);
        co_expect_pattern(image, 0, BLOCK, 1);
        co_expect_pattern(image, BLOCK, 512, 9);
        co_expect_bytes(image, BLOCK + 512, 1024, 0);
        co_expect_pattern(image, BLOCK + 3 * 512, 3 * 512, 12);
        co_expect_bytes(image, BLOCK + 6 * 512, 2 * 512 + 2 * BLOCK, 0);
        co_expect_pattern(image, 4 * BLOCK, 1024, 100);
        co_expect_bytes(image, BLOCK + 3 * 512 - 1, 1, 0);
        co_expect_bytes(image, BLOCK + 6 * 512 - 1, 1, 14);

        extent = co_extent_at(image, 100);
        assert_true(extent.has_offset && extent.present && !extent.zero);
        assert_int_equal(extent.length, BLOCK - 100);
        assert_int_equal(extent.file_offset, BLOCKS_AT + STRIDE + 512 + 100);
        extent = co_extent_at(image, BLOCK + 512);
        assert_true(extent.zero && extent.present && !extent.has_offset);
        assert_int_equal(extent.length, 1024);
        extent = co_extent_at(image, BLOCK + 4 * 512 + 5);
        assert_false(extent.zero);
        assert_int_equal(extent.length, 2 * 512 - 5);
        extent = co_extent_at(image, 2 * BLOCK + 1);
        assert_true(extent.zero && extent.present && !extent.has_offset);
        assert_int_equal(extent.length, 2 * BLOCK - 1);
        image_close(image);
}

static void sectors_are_found_by_table_and_bitmap(void **state)
{
        run(*state, co_dynamic);
}

static void co_fixed(struct fixture *f)
{
        struct vhd_footer_disk footer = footer_of(VHD_FIXED, 3 * BLOCK + 512, 1);
        struct image *image;

        put_footer(f->fd, footer, 3 * BLOCK + 512);
        put_pattern(f->fd, 7, BLOCK, 2 * BLOCK);
        image = co_opened(f->fd, NULL);
        assert_string_equal(image->info.variant, "fixed");
        assert_int_equal(image->virtual_bytes, 3 * BLOCK + 512);
        assert_int_equal(image->info.cluster_bytes, 0);
        co_expect_bytes(image, 0, 2 * BLOCK, 0);
        co_expect_pattern(image, 2 * BLOCK, BLOCK, 7);
        co_expect_bytes(image, 3 * BLOCK, 512, 0);
        if (!image->no_seek_data) {
                assert_true(co_extent_at(image, 0).zero);
                assert_int_equal(co_extent_at(image, 0).length, 2 * BLOCK);
                assert_int_equal(co_extent_at(image, 2 * BLOCK + 1).file_offset, 2 * BLOCK + 1);
        }
        image_close(image);
        assert_int_equal(ftruncate(f->fd, 3 * BLOCK + 1024), 0);
        assert_int_equal(ftruncate(f->fd, 3 * BLOCK), 0);
        put_footer(f->fd, footer, 3 * BLOCK);
        co_refused(f->fd, NULL, -EBADMSG, "is cut off");
}

static void a_fixed_disk_is_its_bytes_and_a_footer(void **state)
{
        run(*state, co_fixed);
}

static void co_guest_footer(struct fixture *f)
{
        const uint32_t table[] = {nth(0)};
        struct vhd_footer_disk footer = footer_of(VHD_DIFFERENCING, BLOCK, 1);
        struct vhd_header_disk header = header_of(1);
        struct image *image;

        put_image(f->fd, &footer, &header, table, 8);
        put_footer(f->fd, footer_of(VHD_FIXED, 8 * BLOCK, 2), 8 * BLOCK);
        assert_int_equal(ftruncate(f->fd, 8 * BLOCK + 512), 0);
        image = co_opened(f->fd, NULL);
        assert_string_equal(image->info.variant, "fixed");
        assert_int_equal(image->virtual_bytes, 8 * BLOCK);
        image_close(image);
}

static void a_guest_cannot_make_its_fixed_disk_another_image(void **state)
{
        run(*state, co_guest_footer);
}

static void co_footers(struct fixture *f)
{
        const uint32_t table[] = {nth(0)};
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, BLOCK, 1);
        struct vhd_header_disk header = header_of(1);
        struct findings found;
        struct image *image;

        put_image(f->fd, &footer, &header, table, 1);
        put_block(f->fd, 0, 0xff, 3);
        put_at(f->fd, "X", 1, BLOCKS_AT + STRIDE + 100);
        image = co_opened(f->fd, NULL); /* by the copy */
        assert_true(image->info.dirty);
        co_expect_pattern(image, 0, BLOCK, 3);
        co_check(image, &found);
        assert_int_equal(found.check.n_errors, 1);
        assert_non_null(strstr(found.text, "footer at the end"));
        image_close(image);

        assert_int_equal(ftruncate(f->fd, BLOCKS_AT + STRIDE), 0); /* not even there */
        image = co_opened(f->fd, NULL);
        co_expect_pattern(image, 0, BLOCK, 3);
        image_close(image);

        put_at(f->fd, "X", 1, 100); /* both */
        co_refused(f->fd, NULL, -EBADMSG, "no footer with the right checksum");

        put_image(f->fd, &footer, &header, table, 1); /* the copy alone */
        put_at(f->fd, "X", 1, 0);
        put_block(f->fd, 0, 0xff, 4);
        image = co_opened(f->fd, NULL);
        assert_false(image->info.dirty);
        co_expect_pattern(image, 0, BLOCK, 4);
        co_check(image, &found);
        assert_int_equal(found.check.n_errors, 1);
        assert_non_null(strstr(found.text, "offset 0 differs"));
        image_close(image);

        put_image(f->fd, &footer, &header, table, 1); /* of 511 bytes, as before 2004 */
        assert_int_equal(ftruncate(f->fd, BLOCKS_AT + STRIDE + 511), 0);
        put_at(f->fd, "X", 1, 0);
        put_block(f->fd, 0, 0xff, 5);
        image = co_opened(f->fd, NULL);
        co_expect_pattern(image, 0, BLOCK, 5);
        image_close(image);

        assert_int_equal(ftruncate(f->fd, 0), 0); /* a fixed disk has no copy */
        put_footer(f->fd, footer_of(VHD_FIXED, 512, 1), 0);
        assert_int_equal(ftruncate(f->fd, 2048), 0);
        co_refused(f->fd, NULL, -EBADMSG, "no footer");
        assert_int_equal(ftruncate(f->fd, 100), 0);
        co_refused(f->fd, &(struct image_options){.format = "vhd"}, -EBADMSG, "100 bytes");
}

static void a_damaged_footer_is_made_good_by_its_copy(void **state)
{
        run(*state, co_footers);
}

static void co_creators(struct fixture *f)
{
        static const struct {
                const char *creator;
                bool geometry;
        } creators[] = {{"vpc ", true},    {"vs  ", true},  {"qemu", true},   {"qem2", false},
                        {"win ", false},   {"d2v ", false}, {"tap\0", false}, {"CTXS", false},
                        {"wa\0\0", false}, {"vbox", false}, {"tarn", false},  {"\0\0\0", false}};
        static const struct {
                uint16_t cylinders;
                uint8_t heads, per_track;
                bool counts;
                uint64_t bytes;
        } geometries[] = {
            {20, 4, 17, true, 20 * 4 * 17 * 512},
            {65535, 16, 255, false, 0}, /* the largest */
            {0, 4, 17, false, 0},
            {30, 4, 17, false, 0}, /* more than the size */
        };
        uint64_t size = 25 * 4 * 17 * 512;

        for (size_t c = 0; c < sizeof(creators) / sizeof(creators[0]); c++)
                for (size_t g = 0; g < sizeof(geometries) / sizeof(geometries[0]); g++) {
                        struct vhd_footer_disk d = footer_of(VHD_FIXED, size, 1);
                        bool geometry = creators[c].geometry && geometries[g].counts;
                        struct image *image;

                        memcpy(d.creator, creators[c].creator, 4);
                        d.cylinders = be16_make(geometries[g].cylinders);
                        d.heads = geometries[g].heads;
                        d.sectors_per_track = geometries[g].per_track;
                        put_footer(f->fd, d, size);
                        image = co_opened(f->fd, NULL);
                        assert_int_equal(image->virtual_bytes,
                                         geometry ? geometries[g].bytes : size);
                        image_close(image);
                }
}

/* The largest geometry is that of all larger disks. */
static void co_largest(struct fixture *f)
{
        struct vhd_footer_disk d = footer_of(VHD_FIXED, UINT64_C(200) << 30, 1);
        struct image *image;

        memcpy(d.creator, "vpc ", 4);
        d.cylinders = be16_make(65535);
        d.heads = 16;
        d.sectors_per_track = 255;
        put_footer(f->fd, d, UINT64_C(200) << 30);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->virtual_bytes, UINT64_C(200) << 30);
        image_close(image);
}

static void the_largest_geometry_never_counts(void **state)
{
        run(*state, co_largest);
}

static void the_size_or_the_geometry_counts_by_who_made_it(void **state)
{
        run(*state, co_creators);
}

static void co_block_sizes(struct fixture *f)
{
        for (uint32_t block = 512; block <= 256 * MIB;
             block = block == 32 * MIB ? 256 * MIB : block * 4) {
                uint32_t bitmap = (block / 4096 + 511) / 512 * 512, stride;
                struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, 2ull * block, 1);
                struct vhd_header_disk header = header_of(2);
                uint8_t *bits = malloc(MIB);
                uint32_t table[2];
                struct image *image;

                if (bitmap == 0)
                        bitmap = 512;
                stride = bitmap + block;
                table[0] = (BLOCKS_AT + stride) / 512;
                table[1] = BLOCKS_AT / 512;
                header.block_bytes = be32_make(block);
                put_image(f->fd, &footer, &header, table, 0);
                memset(bits, 0xff, MIB);
                put_at(f->fd, bits, bitmap, BLOCKS_AT);
                put_at(f->fd, bits, bitmap, BLOCKS_AT + stride);
                put_pattern(f->fd, 11, 512, BLOCKS_AT + bitmap);
                put_pattern(f->fd, 12, 512, BLOCKS_AT + bitmap + stride + block - 512);
                put_footer(f->fd, footer, BLOCKS_AT + 2ull * stride);
                image = co_opened(f->fd, NULL);
                co_expect_pattern(image, block, 512, 11);
                co_expect_pattern(image, block - 512, 512, 12);
                assert_int_equal(co_extent_at(image, 0).length, block);
                image_close(image);
                free(bits);
        }
}

static void blocks_may_have_any_power_of_two(void **state)
{
        run(*state, co_block_sizes);
}

/* ---- damage ---- */

static void co_damage(struct fixture *f)
{
        static const struct {
                int part; /* 0: both footers; 1: the header */
                size_t at, size;
                uint64_t value;
                int code;
                const char *words;
        } damages[] = {
            {0, 12, 4, 0x20000, -ENOTSUP, "version 2.0"},
            {0, 60, 4, 0, -ENOTSUP, "type 0 (at offset 11324)"},
            {0, 60, 4, 5, -ENOTSUP, "type 5"},
            {0, 16, 8, UINT64_MAX, -EBADMSG, "its header, at offset 18446744073709551615"},
            {0, 16, 8, 0x7fffffffffffffff, -EBADMSG, "its header, at offset"},
            {0, 16, 8, 11000, -EBADMSG, "its header, at offset 11000"},
            {0, 16, 8, 0, -EBADMSG, "there is no header at offset 0"},
            {0, 48, 8, UINT64_MAX, -EFBIG, "4 PiB"},
            {0, 48, 8, 2 * BLOCK + 512, -EBADMSG,
             "fewer table entries than the disk has blocks (2) at offset 540"},
            {1, 0, 8, 0, -EBADMSG, "there is no header at offset 512"},
            {1, 16, 8, UINT64_MAX, -EBADMSG, "table does not lie in the file"},
            {1, 16, 8, 11770, -EBADMSG, "table does not lie in the file (11770) at offset 528"},
            {1, 24, 4, 0x20000, -ENOTSUP, "header of version 2.0"},
            /* CVE-2014-0142, CVE-2014-0144: what QEMU's driver once divided by, or allocated */
            {1, 32, 4, 0, -EBADMSG,
             "the block size is no power of two from 512 on (0) at offset 544"},
            {1, 32, 4, 256, -EBADMSG, "no power of two"},
            {1, 32, 4, BLOCK + 512, -EBADMSG, "no power of two"},
            {1, 32, 4, 512, -EBADMSG, "fewer table entries"},
            {1, 32, 4, 0x20000000, -ENOTSUP, "blocks of 536870912 bytes"},
            {1, 32, 4, 0x80000000, -ENOTSUP, "blocks of 2147483648 bytes"},
            {1, 28, 4, 0, -EBADMSG, "fewer table entries than the disk has blocks (0)"},
        };
        const uint32_t table[] = {nth(0), NONE};

        for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
                struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, 2 * BLOCK, 1);
                struct vhd_header_disk header = header_of(2);
                uint8_t *to = damages[i].part == 0 ? (uint8_t *)&footer : (uint8_t *)&header;
                be64 value = be64_make(damages[i].value);

                put_image(f->fd, &footer, &header, table, 2);
                memcpy(to + damages[i].at, value.b + 8 - damages[i].size, damages[i].size);
                put_footer(f->fd, footer, 0);
                put_footer(f->fd, footer, BLOCKS_AT + 2 * STRIDE);
                put_header(f->fd, header);
                co_refused(f->fd, NULL, damages[i].code, damages[i].words);
        }
}

static void each_damage_has_its_sentence(void **state)
{
        run(*state, co_damage);
}

static void co_checksum(struct fixture *f)
{
        const uint32_t table[] = {nth(0)};
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, BLOCK, 1);
        struct vhd_header_disk header = header_of(1);
        struct image *image;

        for (size_t at = 8; at < sizeof(header); at += 13) {
                put_image(f->fd, &footer, &header, table, 1);
                header.rest[0] = 1; /* so that checksums are no simple ones */
                put_header(f->fd, header);
                put_at(f->fd, "\x5a", 1, HEADER_AT + at);
                co_refused(f->fd, NULL, -EBADMSG,
                           "the checksum of its header at offset 512 is wrong");
        }
        put_image(f->fd, &footer, &header, table, 1);
        co_refused(f->fd, &(struct image_options){.snapshot = "s"}, -ENOTSUP, "no snapshots");
        image = co_opened(f->fd, NULL);
        image_close(image);
}

static void a_header_with_a_wrong_checksum_is_refused(void **state)
{
        run(*state, co_checksum);
}

static void co_bad_entry(struct fixture *f)
{
        const uint32_t table[] = {nth(0), nth(1), 0xfffffffe};
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, 3 * BLOCK, 1);
        struct vhd_header_disk header = header_of(3);
        struct error e = ERROR_INIT;
        struct image_extent extent;
        struct image *image;
        uint8_t bytes[512];

        put_image(f->fd, &footer, &header, table, 1);
        put_block(f->fd, 0, 0xff, 1);
        image = co_opened(f->fd, NULL);
        co_expect_pattern(image, 0, BLOCK, 1);
        for (uint64_t i = 1; i < 3; i++) {
                assert_int_equal(image->driver->co_read(image, bytes, 512, i * BLOCK, &e),
                                 -EBADMSG);
                assert_non_null(strstr(e.message, i == 1 ? "offset 1540 places block 1 at 7168"
                                                         : "offset 1544 places block 2"));
                assert_non_null(strstr(e.message, "'disk.img'"));
                assert_int_equal(image->driver->co_extent(image, i * BLOCK, &extent, &e), -EBADMSG);
        }
        image_close(image);
}

static void a_block_beyond_the_end_is_an_error_where_it_is_read(void **state)
{
        run(*state, co_bad_entry);
}

static void co_check_findings(struct fixture *f)
{
        /* the second one begins within the first, the third ends within it; on the table; beyond; on the
         * footer; and one that is right */
        const uint32_t table[] = {nth(2), nth(2) + 7, nth(2) - 8, 2, 99999, nth(5) - 8, nth(0)};
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, 7 * BLOCK, 1);
        struct vhd_header_disk header = header_of(7);
        struct findings found;
        struct image *image;

        put_image(f->fd, &footer, &header, table, 5);
        image = co_opened(f->fd, NULL);
        co_check(image, &found);
        assert_non_null(strstr(found.text, "block 1 lies at offset 14848, where another one lies"));
        assert_non_null(strstr(found.text, "block 2 lies at offset 7168, where another one lies"));
        assert_non_null(strstr(found.text, "block 3 at offset 1024 lies on the header"));
        assert_non_null(strstr(found.text, "block 4 lies at offset 51199488, beyond"));
        assert_non_null(strstr(found.text, "block 5 at offset 20992 lies on the footer"));
        assert_null(strstr(found.text, "block 0"));
        assert_null(strstr(found.text, "block 6"));
        image_close(image);
}

static void a_check_finds_blocks_on_others_and_on_tables(void **state)
{
        run(*state, co_check_findings);
}

static void co_check_cancelled(struct fixture *f)
{
        const uint32_t n = 3 * IMAGE_CHECK_STEP;
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, (uint64_t)n * BLOCK, 1);
        uint32_t *table = malloc(n * sizeof(*table));
        struct vhd_header_disk header = header_of(n);
        struct image *image;

        memset(table, 0xff, n * sizeof(*table)); /* VHD_BLOCK_ABSENT */
        put_image(f->fd, &footer, &header, table, n * 4 / STRIDE + 1);
        image = co_opened(f->fd, NULL);
        co_expect_cancelled(image);
        image_close(image);
        free(table);
}

static void a_check_can_be_cancelled(void **state)
{
        run(*state, co_check_cancelled);
}

/* ---- writing ---- */

static void co_write_each(struct fixture *f)
{
        static const uint32_t sizes[] = {0, 512 * KIB, MIB};

        srandom(2);
        for (unsigned i = 0; i < 12; i++) {
                struct image_create_options options = {.format = "vhd",
                                                       .virtual_bytes = 1 + random_below(20 * MIB),
                                                       .variant = i % 2 ? "dynamic" : NULL,
                                                       .cluster_bytes = sizes[i % 3]};

                co_round_trip(f, &options);
                options.cluster_bytes = 0;
                options.variant = "fixed";
                co_round_trip(f, &options);
        }
        co_round_trip(f, AS("vhd", 0));
        co_round_trip(f, AS("vhd", 2 * MIB));
}

static void what_is_written_is_read_back(void **state)
{
        run(*state, co_write_each);
}

/* @geometry: whether the specification has one with just as many sectors. */
static void co_one_footer(struct fixture *f, const char *variant, uint64_t bytes, bool geometry)
{
        const struct image_create_options options = {
            .format = "vhd", .virtual_bytes = bytes, .variant = variant};
        struct vhd_footer_disk d, copy;
        struct image *image;
        uint64_t chs;
        off_t end;

        assert_int_equal(co_image_create(f->fd, "x", &options, &image, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
        end = lseek(f->fd, 0, SEEK_END);
        assert_int_equal(end % 512, 0);
        assert_int_equal(pread(f->fd, &d, sizeof(d), end - 512), 512);
        assert_memory_equal(d.cookie, "conectix", 8);
        assert_int_equal(be32_get(d.checksum), be32_get(sum_of(&d, sizeof(d), &d.checksum)));
        assert_int_equal(be64_get(d.current_bytes), bytes);
        assert_int_equal(be64_get(d.original_bytes), bytes);
        assert_int_equal(be32_get(d.features), 2);
        assert_false(image_is_zero(d.uuid, 16));
        chs = (uint64_t)be16_get(d.cylinders) * d.heads * d.sectors_per_track;
        assert_int_equal(chs, geometry ? bytes / 512 : UINT64_C(65535) * 16 * 255);
        if (strcmp(variant, "fixed") == 0) {
                assert_int_equal(end - 512, bytes);
                assert_int_equal(be64_get(d.data_offset), UINT64_MAX);
                return;
        }
        assert_int_equal(pread(f->fd, &copy, sizeof(copy), 0), 512);
        assert_memory_equal(&d, &copy, sizeof(d));
        assert_int_equal(be64_get(d.data_offset), 512);
}

static void co_written_footers(struct fixture *f)
{
        for (unsigned i = 0; i < 2; i++) {
                const char *variant = i ? "fixed" : "dynamic";

                co_one_footer(f, variant, 100 * MIB, false);
                co_one_footer(f, variant, UINT64_C(17) * 4 * 300 * 512, true);
                co_one_footer(f, variant, UINT64_C(17) * 5 * 1023 * 512, true);
                co_one_footer(f, variant, UINT64_C(31) * 16 * 900 * 512, true);
                co_one_footer(f, variant, UINT64_C(63) * 16 * 5000 * 512, true);
                co_one_footer(f, variant, UINT64_C(255) * 16 * 40000 * 512, true);
                co_one_footer(f, variant, UINT64_C(255) * 16 * 65535 * 512, true);
                co_one_footer(f, variant, UINT64_C(2040) << 30, false);
        }
}

static void the_size_is_exact_for_every_reader(void **state)
{
        run(*state, co_written_footers);
}

/* Data is aligned; and every block is whole. */
static void co_layout(struct fixture *f)
{
        const struct image_create_options options = {.format = "vhd", .virtual_bytes = 9 * MIB};
        uint8_t *data = malloc(4 * MIB);
        struct image *image;

        memset(data, 0x42, 4 * MIB);
        assert_int_equal(co_image_create(f->fd, "x", &options, &image, NULL), 0);
        assert_int_equal(image->write_unit, 2 * MIB);
        assert_int_equal(image->driver->co_write(image, data, 4 * MIB, 2 * MIB, NULL), 0);
        assert_int_equal(image->driver->co_write(image, data, MIB, 8 * MIB, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
        image = co_opened(f->fd, NULL);
        for (uint64_t at = 2 * MIB; at < 9 * MIB; at += 2 * MIB)
                if (at != 6 * MIB)
                        assert_int_equal(co_extent_at(image, at).file_offset % 4096, 0);
        assert_int_equal(lseek(f->fd, 0, SEEK_END),
                         co_extent_at(image, 8 * MIB).file_offset + 2 * MIB + 4096);
        co_expect_bytes(image, 0, 2 * MIB, 0);
        co_expect_bytes(image, 2 * MIB, 4 * MIB, 0x42);
        co_expect_bytes(image, 6 * MIB, 2 * MIB, 0);
        co_expect_bytes(image, 8 * MIB, MIB, 0x42);
        image_close(image);
        free(data);
}

static void blocks_are_whole_and_aligned(void **state)
{
        run(*state, co_layout);
}

static void co_options(struct fixture *f)
{
        struct image_create_options o = {.format = "vhd", .virtual_bytes = MIB};

        o.variant = "differencing";
        co_not_written(f, o, -EINVAL, "no variant 'differencing'");
        o.variant = "fixed";
        o.cluster_bytes = 2 * MIB;
        co_not_written(f, o, -EINVAL, "fixed VHD images have no blocks");
        o.variant = NULL;
        o.compression = "zlib";
        co_not_written(f, o, -EINVAL, "no compression");
        o.compression = NULL;
        o.cluster_bytes = 256 * KIB;
        co_not_written(f, o, -EINVAL, "262144");
        o.cluster_bytes = 4 * MIB;
        co_not_written(f, o, -EINVAL, "4194304");
        o.cluster_bytes = 0;
        o.virtual_bytes = (UINT64_C(2040) << 30) + 1;
        co_not_written(f, o, -EFBIG, "2040 GiB");
        o.variant = "fixed";
        co_not_written(f, o, -EFBIG, "2040 GiB");
        o.variant = "dynamic";
        o.cluster_bytes = 512 * KIB; /* places would need more than 32 bits */
        o.virtual_bytes = UINT64_C(2040) << 30;
        co_not_written(f, o, -EFBIG, "no numbers");
}

static void what_vhd_has_not_is_not_made(void **state)
{
        run(*state, co_options);
}

#define vhd_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhd_test(sectors_are_found_by_table_and_bitmap),
            vhd_test(a_fixed_disk_is_its_bytes_and_a_footer),
            vhd_test(a_guest_cannot_make_its_fixed_disk_another_image),
            vhd_test(a_damaged_footer_is_made_good_by_its_copy),
            vhd_test(the_size_or_the_geometry_counts_by_who_made_it),
            vhd_test(the_largest_geometry_never_counts),
            vhd_test(blocks_may_have_any_power_of_two),
            vhd_test(each_damage_has_its_sentence),
            vhd_test(a_header_with_a_wrong_checksum_is_refused),
            vhd_test(a_block_beyond_the_end_is_an_error_where_it_is_read),
            vhd_test(a_check_finds_blocks_on_others_and_on_tables),
            vhd_test(a_check_can_be_cancelled),
            vhd_test(what_is_written_is_read_back),
            vhd_test(the_size_is_exact_for_every_reader),
            vhd_test(blocks_are_whole_and_aligned),
            vhd_test(what_vhd_has_not_is_not_made),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
