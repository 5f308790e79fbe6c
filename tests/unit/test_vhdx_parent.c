/* test_vhdx_parent.c - VHDX files that have what changed against a parent: sector bitmaps, locators,
 * chains. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "tests/unit/image_fixture.h"
#include "tests/unit/vhdx_made.h"

/* Opens what it was given, and remembers what it was asked for. */
struct names {
        struct image_opener opener;
        const char *path; /* the one that there is; NULL: all are */
        int fd;
        int (*make)(struct names *names); /* another each time */
        unsigned n;
        char asked[4][64];
        int code;
};

static int open_name(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct names *names = (struct names *)opener;

        assert_int_equal(use, IMAGE_BACKING);
        snprintf(names->asked[names->n++ % 4], sizeof(names->asked[0]), "%s", name);
        if (names->path && strcmp(names->path, name) != 0)
                return error_set(err, names->code ? names->code : -ENOENT,
                                 "'%s' needs '%s', which is not there", from, name);
        *ret_fd = names->make ? names->make(names) : fcntl(names->fd, F_DUPFD_CLOEXEC, 3);
        *ret_path = strdup(name);
        return 0;
}

static const char linkage[] = "{04030201-0605-0807-090a-0b0c0d0e0f10}"; /* 1, 2, ..., 16 */
static const struct vhdx_guid data_write = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
typedef const char *const pair[2];
static pair usual[] = {
    {"parent_linkage", linkage}, {"relative_path", ".\\a\\parent.vhdx"}, {NULL, NULL}};

static int memory(void)
{
        int fd = memfd_create("parent", MFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

/* A parent of 4 blocks 'p', the last one of half the size, and a file over it without anything. */
static void begin(struct fixture *f, struct made *m, struct names *names, pair *pairs)
{
        struct made parent = {.fd = names->fd > 0 ? names->fd : memory(),
                              .size = 3 * MIB + MIB / 2,
                              .data_write = data_write};
        uint64_t size = m->size, block = m->block;
        uint32_t sector = m->sector;

        made_begin(&parent);
        for (unsigned i = 0; i < 4; i++)
                made_block(&parent, i, VHDX_PRESENT, 'p');
        *names = (struct names){.opener = {open_name}, .fd = parent.fd};
        *m = (struct made){.fd = f->fd,
                           .flags = VHDX_HAS_PARENT,
                           .size = size ? size : 6 * MIB,
                           .block = block,
                           .sector = sector};
        made_begin(m);
        made_locator(m, pairs);
}

static int co_try(struct fixture *f, struct names *names, struct image **ret, struct error *e)
{
        struct image_options options = {.opener = names ? &names->opener : NULL};

        *ret = NULL;
        *e = ERROR_INIT;
        return co_image_open(f->fd, "x.vhdx", &options, ret, e);
}

static struct image *co_open(struct fixture *f, struct names *names)
{
        struct image *image;
        struct error e;

        if (co_try(f, names, &image, &e) < 0)
                print_error("%s\n", e.message);
        assert_non_null(image);
        return image;
}

static void co_refused(struct fixture *f, struct names *names, int code, const char *words)
{
        struct image *image;
        struct error e;
        int r = co_try(f, names, &image, &e);

        if (r != code || !strstr(e.message, words))
                print_error("%d: %s\n", r, e.message);
        assert_null(image);
        assert_int_equal(r, code);
        assert_non_null(strstr(e.message, words));
}

static void co_expect(struct image *image, uint64_t offset, uint64_t length, int byte)
{
        uint8_t *data = test_malloc(length);

        assert_int_equal(image->driver->co_read(image, data, length, offset, NULL), 0);
        for (uint64_t i = 0; i < length; i++)
                assert_int_equal(data[i], byte);
        test_free(data);
}

static void co_extent(struct image *image, uint64_t offset, uint64_t length, unsigned depth,
                      bool present, bool zero)
{
        struct image_extent e = {0};

        assert_int_equal(image->driver->co_extent(image, offset, &e, NULL), 0);
        assert_int_equal(e.length, length);
        assert_int_equal(e.depth, depth);
        assert_int_equal(e.present, present);
        assert_int_equal(e.zero, zero);
}

static void co_states(struct fixture *f)
{
        struct names names = {0};
        struct made m = {0};
        struct image *image;

        begin(f, &m, &names, usual);
        made_entry(&m, 1, 0, VHDX_ZERO);
        made_entry(&m, 2, 0, VHDX_UNMAPPED);
        made_block(&m, 4, VHDX_PRESENT, 'c');
        image = co_open(f, &names);
        assert_string_equal(names.asked[0], "./a/parent.vhdx");
        assert_string_equal(image->info.backing, ".\\a\\parent.vhdx");
        assert_string_equal(image->info.backing_format, "vhdx");
        assert_string_equal(image->info.variant, "differencing");
        co_expect(image, 0, MIB, 'p');
        co_expect(image, MIB, 2 * MIB, 0);
        co_expect(image, 3 * MIB, MIB / 2, 'p');
        co_expect(image, 3 * MIB + MIB / 2, MIB / 2, 0); /* the parent is shorter */
        co_expect(image, 4 * MIB, MIB, 'c');
        co_expect(image, 5 * MIB, MIB, 0);
        co_extent(image, 0, MIB, 1, true, false);
        co_extent(image, MIB, 2 * MIB, 0, true, true);
        co_extent(image, 3 * MIB, MIB / 2, 1, true, false);
        co_extent(image, 3 * MIB + MIB / 2, MIB / 2, 0, false, true);
        co_extent(image, 4 * MIB, MIB, 0, true, false);
        image_close(image);
        close(names.fd);
}

static void blocks_that_are_not_there_are_the_parents(void **state)
{
        run(*state, co_states);
}

static void co_sectors_of(struct fixture *f, uint32_t sector)
{
        struct names names = {0};
        struct made m = {.sector = sector, .block = MIB};
        struct image *image;
        uint64_t bitmap, bits = MIB / sector;

        begin(f, &m, &names, usual);
        made_block(&m, 0, VHDX_PARTIAL, 'c');
        made_block(&m, 1, VHDX_PARTIAL, 'd');
        bitmap = made_bitmap(&m, 0);
        /* Of block 0 sectors 3 to 20 and the last one, of block 1 all but the first. */
        made_fill(&m, bitmap, 0xf8, 1);
        made_fill(&m, bitmap + 1, 0xff, 1);
        made_fill(&m, bitmap + 2, 0x1f, 1);
        made_fill(&m, bitmap + bits / 8 - 1, 0x80, 1);
        made_fill(&m, bitmap + bits / 8, 0xff, bits / 8);
        made_fill(&m, bitmap + bits / 8, 0xfe, 1);
        image = co_open(f, &names);
        co_expect(image, 0, 3 * sector, 'p');
        co_expect(image, 3 * sector, 18 * sector, 'c');
        co_expect(image, 21 * sector, MIB - 22 * sector, 'p');
        co_expect(image, MIB - sector, sector, 'c');
        co_expect(image, MIB, sector, 'p');
        co_expect(image, MIB + sector, MIB - sector, 'd');
        co_expect(image, 2 * MIB, MIB, 'p');
        co_extent(image, 0, 3 * sector, 1, true, false);
        co_extent(image, 3 * sector + 1, 18 * sector - 1, 0, true, false);
        co_extent(image, 21 * sector, MIB - 22 * sector, 1, true, false);
        co_extent(image, MIB + sector, MIB - sector, 0, true, false);
        image_close(image);
        close(names.fd);
}

static void co_sectors(struct fixture *f)
{
        co_sectors_of(f, 512);
        co_sectors_of(f, 4096);
}

static void sectors_are_the_files_or_the_parents_by_the_bitmap(void **state)
{
        run(*state, co_sectors);
}

static void co_bitmaps(struct fixture *f)
{
        static const uint64_t bad[] = {VHDX_NOT_PRESENT, MADE_DATA | VHDX_ZERO, 0 | VHDX_PRESENT,
                                       (UINT64_C(1) << 45) | VHDX_PRESENT, UINT64_MAX};
        struct names names = {0};
        struct made m = {0};
        struct image *image;
        struct error e = ERROR_INIT;
        char byte;

        begin(f, &m, &names, usual);
        made_block(&m, 0, VHDX_PARTIAL, 'c');
        for (unsigned i = 0; i < 5; i++) {
                made_put64(&m, made_bitmap_at(&m, 0), bad[i]);
                image = co_open(f, &names);
                assert_int_equal(image->driver->co_read(image, &byte, 1, 0, &e), -EBADMSG);
                assert_non_null(strstr(e.message, "sector bitmap"));
                co_expect(image, MIB, MIB, 'p');
                image_close(image);
        }
        close(names.fd);
}

static void a_bitmap_that_is_not_there_is_an_error(void **state)
{
        run(*state, co_bitmaps);
}

static void co_second_chunk(struct fixture *f)
{
        struct names names = {0};
        struct made m = {.block = 256 * (uint64_t)MIB, .size = 20 * 256 * (uint64_t)MIB};
        struct image *image;
        uint64_t bitmap;

        /* 16 blocks a chunk: block 17 is the second one of the second. */
        begin(f, &m, &names, usual);
        made_entry(&m, 17, m.next, VHDX_PARTIAL);
        made_fill(&m, m.next + 8192, 'c', 512);
        m.next += m.block;
        bitmap = made_bitmap(&m, 17);
        made_fill(&m, bitmap + 65536 + 2, 0x01, 1); /* its sector 16 */
        image = co_open(f, &names);
        co_expect(image, 17 * m.block, 8192, 0);
        co_expect(image, 17 * m.block + 8192, 512, 'c');
        co_extent(image, 17 * m.block + 8704, 16 * MIB - 512, 0, false, true);
        image_close(image);
        close(names.fd);
}

static void a_chunk_has_a_bitmap_of_its_own(void **state)
{
        run(*state, co_second_chunk);
}

static void co_linkage(struct fixture *f)
{
        static pair other[] = {{"parent_linkage", "{04030201-0605-0807-090a-0b0c0d0e0f11}"},
                               {"relative_path", "p"},
                               {NULL, NULL}};
        static pair upper[] = {{"parent_linkage", "{04030201-0605-0807-090A-0B0C0D0E0F10}"},
                               {"relative_path", "p"},
                               {NULL, NULL}};
        static pair second[] = {{"parent_linkage", "{04030201-0605-0807-090a-0b0c0d0e0f11}"},
                                {"parent_linkage2", linkage},
                                {"relative_path", "p"},
                                {NULL, NULL}};
        static pair none[] = {{"relative_path", "p"}, {NULL, NULL}};
        static pair word[] = {{"parent_linkage", "none"}, {"relative_path", "p"}, {NULL, NULL}};
        struct names names = {0};
        struct made m = {0};

        begin(f, &m, &names, other);
        co_refused(f, &names, -EBADMSG, "another content of its parent 'p'");
        begin(f, &m, &names, upper);
        image_close(co_open(f, &names));
        begin(f, &m, &names, second);
        image_close(co_open(f, &names));
        begin(f, &m, &names, none);
        co_refused(f, &names, -EBADMSG, "no parent_linkage");
        begin(f, &m, &names, word);
        co_refused(f, &names, -EBADMSG, "no GUID");
        close(names.fd);
}

static void the_parent_must_be_as_it_was(void **state)
{
        run(*state, co_linkage);
}

static void co_paths(struct fixture *f)
{
        static pair all[] = {{"absolute_win32_path", "\\\\?\\d:\\a\\p.vhdx"},
                             {"volume_path", "\\\\?\\Volume{1}\\q.vhdx"},
                             {"something", "else"},
                             {"parent_linkage", linkage},
                             {"relative_path", "..\\p.vhdx"},
                             {NULL, NULL}};
        static pair none[] = {{"parent_linkage", linkage}, {NULL, NULL}};
        static pair twice[] = {{"parent_linkage", linkage},
                               {"relative_path", "p"},
                               {"relative_path", "q"},
                               {NULL, NULL}};
        struct names names = {0};
        struct made m = {0};

        begin(f, &m, &names, all);
        names.path = "p.vhdx"; /* of the third, beside the file */
        image_close(co_open(f, &names));
        assert_int_equal(names.n, 3);
        assert_string_equal(names.asked[0], "../p.vhdx");
        assert_string_equal(names.asked[1], "q.vhdx");
        names.path = "nowhere";
        co_refused(f, &names, -ENOENT, "'x.vhdx' needs '../p.vhdx'");
        names.code = -EPERM; /* what is not allowed is not asked for under other names */
        names.n = 0;
        co_refused(f, &names, -EPERM, "'../p.vhdx'");
        assert_int_equal(names.n, 1);
        co_refused(f, NULL, -EPERM, "needs another file");
        begin(f, &m, &names, none);
        co_refused(f, &names, -EBADMSG, "no path");
        begin(f, &m, &names, twice);
        co_refused(f, &names, -EBADMSG, "twice");
        close(names.fd);
}

static void paths_are_tried_in_order(void **state)
{
        run(*state, co_paths);
}

static void co_locators(struct fixture *f)
{
        static const struct {
                uint64_t at;
                uint32_t value;
                int code;
                const char *words;
        } bad[] = {
            {MADE_ITEM(MADE_PARENT) + 20, 19, -EBADMSG, "too short"},
            {MADE_ITEM(MADE_PARENT) + 20, 43, -EBADMSG, "more entries"},
            {MADE_ITEM(MADE_PARENT) + 24, 1, -EBADMSG, "no parent locator"},
            {MADE_VALUE(MADE_PARENT), 1, -ENOTSUP, "type 00000001-"},
            {MADE_VALUE(MADE_PARENT) + 16, 0xffff0000, -EBADMSG, "more entries"},
            {MADE_VALUE(MADE_PARENT) + 20, 0xffffffff, -EBADMSG, "not within it"},
            {MADE_VALUE(MADE_PARENT) + 20, 4090, -EBADMSG, "not within it"},
            {MADE_VALUE(MADE_PARENT) + 24, 4097, -EBADMSG, "not within it"},
            {MADE_VALUE(MADE_PARENT) + 28, 0, -EBADMSG, "empty"},
            {MADE_VALUE(MADE_PARENT) + 28, 1 | 76 << 16, -EBADMSG, "not UTF-16"},
            {MADE_VALUE(MADE_PARENT) + 1024, 'p', -EBADMSG, "not UTF-16"},    /* a NUL */
            {MADE_VALUE(MADE_PARENT) + 1024, 0xd800, -EBADMSG, "not UTF-16"}, /* half a pair */
            {MADE_VALUE(MADE_PARENT) + 1024, 0x0041dc00, -EBADMSG, "not UTF-16"},
            {MADE_VALUE(MADE_PARENT) + 1024, 0xdc00d83d, -EBADMSG, "no parent_linkage"}, /* one */
        };
        struct names names = {0};
        struct made m = {0};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                begin(f, &m, &names, usual);
                made_put32(&m, bad[i].at, bad[i].value);
                co_refused(f, &names, bad[i].code, bad[i].words);
                close(names.fd);
                names.fd = 0;
        }
}

static void co_long_keys(struct fixture *f)
{
        struct names names = {0};
        struct made m = {0};
        uint64_t base = MADE_VALUE(MADE_PARENT), moved = 870 * KIB;
        uint8_t head[44], text[1024];

        /* As many entries as a locator can have, all with one text as their key; those that count
         * come last. */
        begin(f, &m, &names, usual);
        assert_int_equal(pread(f->fd, head, sizeof(head), (off_t)base), sizeof(head));
        assert_int_equal(pread(f->fd, text, sizeof(text), (off_t)base + 1024), sizeof(text));
        made_put32(&m, MADE_ITEM(MADE_PARENT) + 20, 900 * KIB);
        made_put(&m, base + moved, text, sizeof(text));
        made_fill(&m, base + 800 * KIB, 'k', 65536);
        for (unsigned i = 0; i < 60000; i++) {
                made_put32(&m, base + 20 + 12 * i, 800 * KIB);
                made_put32(&m, base + 20 + 12 * i + 8, 65534 | 2 << 16);
        }
        made_put(&m, base + 20 + 12 * 59998, head + 20, 24);
        for (unsigned i = 0; i < 4; i++) {
                uint64_t at = base + 20 + 12 * (59998 + i / 2) + i % 2 * 4;
                le32 offset;

                memcpy(&offset, head + 20 + 12 * (i / 2) + i % 2 * 4, sizeof(offset));
                made_put32(&m, at, (uint32_t)(le32_get(offset) - 1024 + moved));
        }
        made_put16(&m, base + 18, 60000);
        image_close(co_open(f, &names));
        close(names.fd);
}

static void a_locator_of_many_long_keys_takes_no_time(void **state)
{
        run(*state, co_long_keys);
}

static void what_a_locator_says_is_checked(void **state)
{
        run(*state, co_locators);
}

static void co_utf16(struct fixture *f)
{
        static const uint8_t text[] = {0x41, 0, 0xe9, 0, 0xac, 0x20, 0x3d, 0xd8, 0, 0xde};
        char *utf8 = vhdx_utf16(text, sizeof(text));

        assert_string_equal(utf8, "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
        free(utf8);
        assert_null(vhdx_utf16(text, 3));
        assert_null(vhdx_utf16(text, 8));
}

static void names_are_in_any_script(void **state)
{
        run(*state, co_utf16);
}

static void co_alone(struct fixture *f)
{
        struct names names = {0};
        struct made m = {0};
        struct image *image;

        begin(f, &m, &names, usual);
        made_block(&m, 1, VHDX_PRESENT, 'c');
        assert_int_equal(
            co_image_open(f->fd, "x", &(struct image_options){.alone = true}, &image, NULL), 0);
        assert_string_equal(image->info.backing, ".\\a\\parent.vhdx");
        co_extent(image, 0, MIB, 0, false, true);
        co_extent(image, MIB, MIB, 0, true, false);
        image_close(image);
        close(names.fd);
}

static void alone_a_file_names_its_parent_and_leaves_it_closed(void **state)
{
        run(*state, co_alone);
}

static void co_other_formats(struct fixture *f)
{
        struct names names = {0};
        struct made m = {0};

        begin(f, &m, &names, usual);
        assert_int_equal(ftruncate(names.fd, 0), 0);
        assert_int_equal(ftruncate(names.fd, 8 * MIB), 0);
        co_refused(f, &names, -EBADMSG, "does not begin as a VHDX file");
        close(names.fd);
        names.fd = f->fd; /* its own parent */
        co_refused(f, &names, -ELOOP, "needs itself");
}

static void a_parent_is_a_vhdx_file_and_another_one(void **state)
{
        run(*state, co_other_formats);
}

/* Each file's parent is one more like it; the last one has none. */
static unsigned chain_left;
static int next_of_chain(struct names *names)
{
        struct made m = {.fd = memory(), .data_write = data_write};

        m.flags = --chain_left > 0 ? VHDX_HAS_PARENT : 0;
        made_begin(&m);
        if (m.flags)
                made_locator(&m, usual);
        else
                made_block(&m, 3, VHDX_PRESENT, 'z');
        return m.fd;
}

static void co_chain(struct fixture *f)
{
        struct names names = {0};
        struct made m = {0};
        struct image *image;

        begin(f, &m, &names, usual);
        names.make = next_of_chain;
        chain_left = IMAGE_DEPTH_MAX;
        image = co_open(f, &names);
        co_expect(image, 3 * MIB, MIB, 'z');
        co_extent(image, 3 * MIB, MIB, IMAGE_DEPTH_MAX, true, false);
        image_close(image);
        chain_left = IMAGE_DEPTH_MAX + 1;
        co_refused(f, &names, -ELOOP, "longer than 64");
        close(names.fd);
}

static void a_chain_is_as_long_as_it_may_be(void **state)
{
        run(*state, co_chain);
}

#define vhdx_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhdx_test(blocks_that_are_not_there_are_the_parents),
            vhdx_test(sectors_are_the_files_or_the_parents_by_the_bitmap),
            vhdx_test(a_bitmap_that_is_not_there_is_an_error),
            vhdx_test(a_chunk_has_a_bitmap_of_its_own),
            vhdx_test(the_parent_must_be_as_it_was),
            vhdx_test(paths_are_tried_in_order),
            vhdx_test(a_locator_of_many_long_keys_takes_no_time),
            vhdx_test(what_a_locator_says_is_checked),
            vhdx_test(names_are_in_any_script),
            vhdx_test(alone_a_file_names_its_parent_and_leaves_it_closed),
            vhdx_test(a_parent_is_a_vhdx_file_and_another_one),
            vhdx_test(a_chain_is_as_long_as_it_may_be),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
