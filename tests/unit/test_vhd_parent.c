/* test_vhd_parent.c - differencing VHDs: how they name their parent, and what of it is theirs. */
#include <uchar.h>
#include "tests/unit/vhd_build.h"

#define NONE       VHD_BLOCK_ABSENT
#define LOCATOR_AT 65536u /* behind all else but the footer */

/* A child without blocks, of the parent whose UUID has these bytes; the footer lies at 128 KiB. */
static void put_child(int fd, uint8_t uuid, uint8_t parent, struct vhd_header_disk *header,
                      const uint32_t *table, uint64_t bytes)
{
        struct vhd_footer_disk footer = footer_of(VHD_DIFFERENCING, bytes, uuid);

        memset(header->parent_uuid, parent, 16);
        put_image(fd, &footer, header, table, 8);
        assert_int_equal(ftruncate(fd, 0x20000), 0);
        put_footer(fd, footer, 0x20000);
}

static void put_base(int fd, uint8_t uuid, const uint32_t *table, uint32_t n)
{
        struct vhd_footer_disk footer = footer_of(VHD_DYNAMIC, (uint64_t)n * BLOCK, uuid);
        struct vhd_header_disk header = header_of(n);

        put_image(fd, &footer, &header, table, 2);
}

static void name_parent(struct vhd_header_disk *header, const char *name)
{
        memset(header->parent_name, 0, sizeof(header->parent_name));
        for (size_t i = 0; name[i]; i++)
                header->parent_name[2 * i + 1] = (uint8_t)name[i];
}

static void add_locator(int fd, struct vhd_header_disk *header, unsigned slot, uint32_t platform,
                        const void *bytes, size_t length)
{
        uint64_t at = LOCATOR_AT + slot * 1024;

        header->locators[slot] = (struct vhd_locator_disk){.platform = be32_make(platform),
                                                           .space = be32_make(1024),
                                                           .length = be32_make((uint32_t)length),
                                                           .offset = be64_make(at)};
        put_at(fd, bytes, length, at);
        put_header(fd, *header);
}

/* In UTF-16, lowest byte first. */
static void add_wide(int fd, struct vhd_header_disk *header, unsigned slot, uint32_t platform,
                     const char16_t *name)
{
        uint8_t bytes[512];
        size_t n = 0;

        for (; name[n]; n++) {
                bytes[2 * n] = (uint8_t)name[n];
                bytes[2 * n + 1] = (uint8_t)(name[n] >> 8);
        }
        add_locator(fd, header, slot, platform, bytes, 2 * n);
}

/* ---- reading ---- */

static void co_differencing(struct fixture *f)
{
        const uint32_t base_table[] = {nth(0), NONE, nth(1)};
        const uint32_t table[] = {nth(0), NONE, NONE, NONE};
        struct vhd_header_disk header = header_of(4);
        be32 behind = be32_make(nth(0)); /* behind its table: not to be looked at */
        uint8_t across[1024] = {[512 ... 1023] = 0x5a};
        struct image_extent extent;
        struct image *image;
        struct files files;
        int base;

        files_init(&files);
        base = files_add(&files, "base.vhd");
        put_base(base, 9, base_table, 3);
        put_block(base, 0, 0xfe, 1); /* its last sector was never written */
        put_at(base, &behind, 4, TABLE_AT + 12);
        put_block(base, 1, 0xff, 9);
        name_parent(&header, "base.vhd");
        put_child(f->fd, 1, 9, &header, table, 4 * BLOCK);
        put_block(f->fd, 0, 0x30, 50); /* sectors 2 and 3 */

        image = co_opened(f->fd, &(struct image_options){.opener = &files.opener});
        assert_string_equal(image->info.variant, "differencing");
        assert_string_equal(image->info.backing, "base.vhd");
        co_expect_pattern(image, 0, 1024, 1);
        co_expect_pattern(image, 1024, 1024, 52);
        co_expect_pattern(image, 2048, 3 * 512, 5);
        co_expect_bytes(image, 2048 + 3 * 512, 512 + BLOCK, 0);
        co_expect_pattern(image, 2 * BLOCK, BLOCK, 9);
        co_expect_bytes(image, 3 * BLOCK, BLOCK, 0); /* behind the parent's end */
        assert_int_equal(
            image->driver->co_read(image, across, sizeof(across), 3 * BLOCK - 512, NULL), 0);
        assert_int_equal(across[511], 16);
        assert_true(image_is_zero(across + 512, sizeof(across) - 512));
        extent = co_extent_at(image, 0);
        assert_true(extent.depth == 1 && extent.present && extent.has_offset);
        assert_int_equal(extent.length, 1024);
        assert_int_equal(extent.file_offset, BLOCKS_AT + 512);
        extent = co_extent_at(image, 1024 + 5);
        assert_true(extent.depth == 0 && extent.present && extent.has_offset);
        assert_int_equal(extent.length, 1024 - 5);
        assert_int_equal(extent.file_offset, BLOCKS_AT + 512 + 1024 + 5);
        assert_int_equal(co_extent_at(image, 2048).length, 3 * 512);
        extent = co_extent_at(image, BLOCK);
        assert_true(extent.zero && extent.present && extent.depth == 1);
        extent = co_extent_at(image, 3 * BLOCK);
        assert_true(extent.zero && !extent.present);
        image_close(image);

        image = co_opened(f->fd, &(struct image_options){.alone = true});
        assert_string_equal(image->info.backing, "base.vhd");
        assert_false(co_extent_at(image, 0).present);
        image_close(image);
        files_close(&files);
}

static void sectors_that_are_not_here_are_the_parents(void **state)
{
        run(*state, co_differencing);
}

/* What follows a fixed parent's disk is its footer. */
static void co_shorter_parent(struct fixture *f)
{
        const uint32_t none[] = {NONE, NONE};
        struct vhd_header_disk header = header_of(2);
        uint8_t bytes[2 * BLOCK];
        struct image *image;
        struct files files;
        int base;

        files_init(&files);
        base = files_add(&files, "base.vhd");
        put_pattern(base, 3, BLOCK, 0);
        put_footer(base, footer_of(VHD_FIXED, BLOCK, 9), BLOCK);
        name_parent(&header, "base.vhd");
        put_child(f->fd, 1, 9, &header, none, 2 * BLOCK);
        image = co_opened(f->fd, &(struct image_options){.opener = &files.opener});
        memset(bytes, 0x5a, sizeof(bytes));
        assert_int_equal(image->driver->co_read(image, bytes, sizeof(bytes), 0, NULL), 0);
        assert_int_equal(bytes[BLOCK - 1], 10);
        assert_true(image_is_zero(bytes + BLOCK, BLOCK));
        image_close(image);
        files_close(&files);
}

static void behind_a_parents_end_are_zeroes(void **state)
{
        run(*state, co_shorter_parent);
}

/* ---- names ---- */

/* The child that @header describes finds its parent as @name, and no other name is asked for. */
static void co_found_as(struct fixture *f, const struct image_options *options, struct files *files,
                        const char *name, unsigned n_asked)
{
        struct image *image;

        snprintf(files->file[0].name, sizeof(files->file[0].name), "%s", name);
        files->n_opened = 0;
        image = co_opened(f->fd, options);
        assert_int_equal(files->n_opened, n_asked);
        image_close(image);
}

static void co_names(struct fixture *f)
{
        const uint32_t none[] = {NONE};
        struct files files;
        struct image_options options = {.opener = &files.opener};
        struct vhd_header_disk header = header_of(1);
        int base;

        files_init(&files);
        base = files_add(&files, "");
        put_base(base, 9, none, 1);

        header = header_of(1);
        put_child(f->fd, 1, 9, &header, none, BLOCK);
        add_wide(f->fd, &header, 3, VHD_W2RU, u".\\sub\\b\u00e4se \u20ac \U0001f4be.vhd");
        co_found_as(f, &options, &files, "./sub/b\xc3\xa4se \xe2\x82\xac \xf0\x9f\x92\xbe.vhd", 1);

        header = header_of(1);
        put_child(f->fd, 1, 9, &header, none, BLOCK);
        add_wide(f->fd, &header, 0, VHD_W2KU, u"C:\\machines\\base.vhd");
        co_found_as(f, &options, &files, "base.vhd", 1);
        add_wide(f->fd, &header, 0, VHD_W2KU, u"\\\\server\\share\\other.vhd");
        co_found_as(f, &options, &files, "other.vhd", 1);
        add_wide(f->fd, &header, 0, VHD_W2KU, u"D:only.vhd");
        co_found_as(f, &options, &files, "only.vhd", 1);

        header = header_of(1);
        put_child(f->fd, 1, 9, &header, none, BLOCK);
        add_locator(f->fd, &header, 0, VHD_WI2R, "..\\old.vhd", 10);
        co_found_as(f, &options, &files, "../old.vhd", 1);
        add_locator(f->fd, &header, 0, VHD_WI2K, "C:\\x\\old.vhd", 12);
        co_found_as(f, &options, &files, "old.vhd", 1);
        add_locator(f->fd, &header, 0, VHD_MACX, "file://./xen%20%c3%a4%zz.vhd", 28);
        co_found_as(f, &options, &files, "./xen \xc3\xa4%zz.vhd", 1);
        add_locator(f->fd, &header, 0, VHD_MACX, "file://localhost/disks/b.vhd", 28);
        co_found_as(f, &options, &files, "/disks/b.vhd", 1);
        add_locator(f->fd, &header, 0, VHD_MACX, "FILE:///disks/c.vhd\0xxxx", 24);
        co_found_as(f, &options, &files, "/disks/c.vhd", 1);

        /* Several, of which the files of the first ones are not there. */
        name_parent(&header, "named.vhd");
        add_wide(f->fd, &header, 1, VHD_W2RU, u".\\relative.vhd");
        add_wide(f->fd, &header, 2, VHD_W2KU, u"E:\\absolute.vhd");
        co_found_as(f, &options, &files, "./relative.vhd", 1);
        co_found_as(f, &options, &files, "/disks/c.vhd", 1);
        co_found_as(f, &options, &files, "named.vhd", 1);
        co_found_as(f, &options, &files, "absolute.vhd", 1);
        snprintf(files.file[0].name, sizeof(files.file[0].name), "nothing");
        co_refused(f->fd, &options, -ENOENT, "needs './relative.vhd'");
        files_close(&files);
}

static void a_parent_is_found_by_each_kind_of_locator(void **state)
{
        run(*state, co_names);
}

static void co_bad_names(struct fixture *f)
{
        const uint32_t none[] = {NONE};
        struct files files;
        struct image_options options = {.opener = &files.opener};
        struct vhd_header_disk header = header_of(1);

        files_init(&files);
        put_child(f->fd, 1, 9, &header, none, BLOCK);
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_wide(f->fd, &header, 0, VHD_W2RU, (const char16_t[]){'a', 0xdc00, 'b', 0});
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_wide(f->fd, &header, 0, VHD_W2RU, (const char16_t[]){'a', 0xd800, 0});
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_wide(f->fd, &header, 0, VHD_W2RU, (const char16_t[]){0xd83d, 'b', 0});
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_wide(f->fd, &header, 0, VHD_W2KU, u"C:\\folder\\");
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_locator(f->fd, &header, 0, VHD_MACX, "http://host/x", 13);
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_locator(f->fd, &header, 0, VHD_MACX, "fi", 2);
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_locator(f->fd, &header, 0, VHD_WI2R, "b\xe4se", 4);
        co_refused(f->fd, &options, -EBADMSG, "names no parent");
        add_locator(f->fd, &header, 0, 0x4d616320, "an alias", 8);
        co_refused(f->fd, &options, -EBADMSG, "names no parent");

        header.locators[0].platform = be32_make(VHD_W2RU);
        header.locators[0].length = be32_make(8193);
        put_header(f->fd, header);
        co_refused(f->fd, &options, -EBADMSG, "8193 bytes at offset 65536");
        header.locators[0].length = be32_make(0xffffffff);
        put_header(f->fd, header);
        co_refused(f->fd, &options, -EBADMSG, "4294967295 bytes at offset 65536");
        header.locators[0].length = be32_make(8);
        header.locators[0].offset = be64_make(UINT64_MAX - 4);
        put_header(f->fd, header);
        co_refused(f->fd, &options, -EBADMSG, "8 bytes at offset 18446744073709551611");
        files_close(&files);
}

static void names_that_are_none_are_told_of(void **state)
{
        run(*state, co_bad_names);
}

/* ---- is it that one ---- */

static void co_wrong_parents(struct fixture *f)
{
        const uint32_t none[] = {NONE};
        struct files files;
        struct image_options options = {.opener = &files.opener};
        struct vhd_header_disk header = header_of(1);
        struct error e = ERROR_INIT;
        struct image *image;
        int base;

        files_init(&files);
        name_parent(&header, "base.vhd");
        put_child(f->fd, 1, 9, &header, none, BLOCK);
        co_refused(f->fd, NULL, -EPERM, "needs another file, 'base.vhd'");
        base = files_add(&files, "base.vhd");
        put_base(base, 8, none, 1);
        co_refused(f->fd, &options, -EBADMSG, "is not the parent of");
        /* A parent is a VHD, and never taken for raw. */
        assert_int_equal(ftruncate(base, 0), 0);
        put_pattern(base, 1, BLOCK, 0);
        assert_int_equal(co_open(f->fd, &options, &image, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "'base.vhd' is no VHD image"));
        put_base(base, 9, none, 1);
        image = co_opened(f->fd, &options);
        image_close(image);
        files_close(&files);
}

static void a_parent_that_is_another_is_refused(void **state)
{
        run(*state, co_wrong_parents);
}

static void co_chain(struct fixture *f)
{
        const uint32_t none[] = {NONE}, here[] = {nth(0)};
        struct files files;
        struct image_options options = {.opener = &files.opener};
        struct vhd_header_disk header = header_of(1);
        struct error e = ERROR_INIT;
        struct image *image;
        char name[16];
        int fd;

        files_init(&files);
        for (uint8_t i = 1; i <= IMAGE_DEPTH_MAX + 1; i++) {
                sprintf(name, "%u", i);
                fd = files_add(&files, name);
                if (i == 1) {
                        put_base(fd, 1, here, 1);
                        put_block(fd, 0, 0xff, 33);
                        continue;
                }
                sprintf(name, "%u", i - 1);
                name_parent(&header, name);
                put_child(fd, i, i - 1, &header, none, BLOCK);
        }
        sprintf(name, "%u", IMAGE_DEPTH_MAX);
        name_parent(&header, name);
        put_child(f->fd, 200, IMAGE_DEPTH_MAX, &header, none, BLOCK);
        image = co_opened(f->fd, &options);
        co_expect_pattern(image, 0, BLOCK, 33);
        assert_int_equal(co_extent_at(image, 0).depth, IMAGE_DEPTH_MAX);
        image_close(image);

        sprintf(name, "%u", IMAGE_DEPTH_MAX + 1);
        name_parent(&header, name);
        put_child(f->fd, 200, IMAGE_DEPTH_MAX + 1, &header, none, BLOCK);
        assert_int_equal(co_open(f->fd, &options, &image, &e), -ELOOP);
        assert_non_null(strstr(e.message, "longer than 64"));

        name_parent(&header, "5"); /* the second one's parent is the fifth */
        put_child(files.file[1].fd, 2, 5, &header, none, BLOCK);
        put_child(f->fd, 200, 5, &header, none, BLOCK);
        assert_int_equal(co_open(f->fd, &options, &image, NULL), -ELOOP);
        files_close(&files);
}

static void chains_are_bounded_and_cycles_refused(void **state)
{
        run(*state, co_chain);
}

#define vhd_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhd_test(sectors_that_are_not_here_are_the_parents),
            vhd_test(behind_a_parents_end_are_zeroes),
            vhd_test(a_parent_is_found_by_each_kind_of_locator),
            vhd_test(names_that_are_none_are_told_of),
            vhd_test(a_parent_that_is_another_is_refused),
            vhd_test(chains_are_bounded_and_cycles_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
