/* test_qcow2_open.c - opening qcow2: what it says of itself, other files that it needs, and snapshots inside
 * of it. */
#include <sys/mman.h>

#include "tests/unit/qcow2_fixture.h"

/* ---- an opener of a few files ---- */

#define FILES 3u

struct files {
        struct image_opener opener;
        const char *names[FILES];
        int fds[FILES];
        unsigned n_opened;
        enum image_use last_use;
        char last_name[64];
};

static int open_one(struct image_opener *opener, const char *from, const char *name,
                    enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct files *files = (struct files *)opener;

        files->n_opened++;
        files->last_use = use;
        snprintf(files->last_name, sizeof(files->last_name), "%s", name);
        for (unsigned i = 0; i < FILES; i++)
                if (files->names[i] && strcmp(files->names[i], name) == 0) {
                        *ret_fd = dup(files->fds[i]);
                        *ret_path = strdup(name);
                        return 0;
                }
        return error_set(err, -ENOENT, "'%s' needs '%s', which is not there", from, name);
}

static int make_file(struct files *files, unsigned i, const char *name)
{
        files->opener.open = open_one;
        files->names[i] = name;
        files->fds[i] = memfd_create(name, MFD_CLOEXEC);
        assert_true(files->fds[i] >= 0);
        return files->fds[i];
}

static void close_files(struct files *files)
{
        for (unsigned i = 0; i < FILES; i++)
                if (files->names[i])
                        close(files->fds[i]);
}

/* ---- backing files ---- */

#define OVERLAY_BYTES (6u * 65536)

/* An overlay with a cluster of twos at 64 KiB and of zeroes at 128 KiB, over ones. */
static void make_overlay(struct qcow2_sample *s, const char *format)
{
        static uint8_t twos[65536];

        memset(twos, 2, sizeof(twos));
        qcow2_sample_init(s, 3, 16, OVERLAY_BYTES, 0);
        qcow2_sample_backing(s, "base", format);
        qcow2_sample_plain(s, 65536, twos);
        qcow2_sample_map(s, 131072, QCOW2_ZERO, 0);
}

static void co_over_base(struct fixture *f, size_t base_bytes)
{
        static uint8_t disk[OVERLAY_BYTES];
        struct files files = {.n_opened = 0};
        uint8_t *ones = malloc(base_bytes);
        struct qcow2_sample s;
        struct image *image;

        assert_non_null(ones);
        memset(ones, 1, base_bytes);
        make_file(&files, 0, "base");
        assert_int_equal(write(files.fds[0], ones, base_bytes), (ssize_t)base_bytes);
        memset(disk, 0, sizeof(disk));
        memset(disk, 1, base_bytes < sizeof(disk) ? base_bytes : sizeof(disk));
        memset(disk + 65536, 2, 65536);
        memset(disk + 131072, 0, 65536);
        make_overlay(&s, "raw");
        image = co_open_sample(f, &s, &(struct image_options){.opener = &files.opener});
        assert_int_equal(files.last_use, IMAGE_BACKING);
        assert_string_equal(image->info.backing, "base");
        assert_string_equal(image->info.backing_format, "raw");
        co_expect_content(image, disk);
        co_expect_extent(image, 65536 + 10,
                         &(struct image_extent){.length = 65526,
                                                .present = true,
                                                .has_offset = true,
                                                .file_offset = 65536 * 3 + 10});
        image_close(image);
        qcow2_sample_free(&s);
        close_files(&files);
        free(ones);
}

static void co_backing_lengths(struct fixture *f)
{
        co_over_base(f, OVERLAY_BYTES);
        co_over_base(f, OVERLAY_BYTES + 70000);
        co_over_base(f, 1000);
        co_over_base(f, 3 * 65536 + 512);
}

static void what_is_absent_comes_from_a_backing_file_of_any_length(void **state)
{
        run(*state, co_backing_lengths);
}

static void co_depths(struct fixture *f)
{
        struct files files = {.n_opened = 0};
        struct qcow2_sample s;
        struct image *image;

        make_file(&files, 0, "base");
        assert_int_equal(ftruncate(files.fds[0], 3 * 65536 + 512), 0);
        assert_int_equal(pwrite(files.fds[0], "x", 1, 3 * 65536), 1);
        make_overlay(&s, "raw");
        image = co_open_sample(f, &s, &(struct image_options){.opener = &files.opener});
        co_expect_extent(image, 3 * 65536,
                         &(struct image_extent){.length = 512,
                                                .present = true,
                                                .depth = 1,
                                                .has_offset = true,
                                                .file_offset = 3 * 65536});
        co_expect_extent(image, 3 * 65536 + 512,
                         &(struct image_extent){.length = 3 * 65536 - 512, .zero = true});
        image_close(image);
        qcow2_sample_free(&s);
        close_files(&files);
}

static void extents_say_which_file_has_them(void **state)
{
        run(*state, co_depths);
}

static void co_unstated(struct fixture *f)
{
        struct files files = {.n_opened = 0};
        struct image_options options = {.opener = &files.opener};
        struct qcow2_sample s;
        struct image *image;
        struct error e;

        make_file(&files, 0, "base");
        make_overlay(&s, NULL);
        co_refused(f, &s, &options, -EINVAL, &e);
        assert_non_null(strstr(e.message, "'base'"));
        assert_true(e.hint[0] != 0);
        assert_int_equal(files.n_opened, 0);
        options.backing_format = "raw";
        image = co_open_sample(f, &s, &options);
        assert_null(image->info.backing_format);
        image_close(image);
        qcow2_sample_free(&s);
        /* What the image states counts for more. */
        make_overlay(&s, "qcow2");
        co_refused(f, &s, &options, -EBADMSG, &e);
        assert_non_null(strstr(e.message, "'base'"));
        qcow2_sample_free(&s);
        make_overlay(&s, "no-such-format");
        co_refused(f, &s, &options, -EINVAL, &e);
        assert_non_null(strstr(e.message, "no-such-format"));
        qcow2_sample_free(&s);
        close_files(&files);
}

static void the_format_of_a_backing_file_is_never_guessed(void **state)
{
        run(*state, co_unstated);
}

static void co_no_opener(struct fixture *f)
{
        struct image_extent extent;
        struct qcow2_sample s;
        struct image *image;
        struct error e = ERROR_INIT;
        uint8_t byte;

        make_overlay(&s, "raw");
        co_refused(f, &s, NULL, -EPERM, &e);
        assert_non_null(strstr(e.message, "'base'"));
        /* Alone it needs none; but what is not in it cannot be read. */
        image = co_open_sample(f, &s, &(struct image_options){.alone = true});
        assert_string_equal(image->info.backing, "base");
        assert_int_equal(image->driver->co_extent(image, 0, &extent, NULL), 0);
        assert_false(extent.present);
        assert_false(extent.zero);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 65536, NULL), 0);
        assert_int_equal(byte, 2);
        e = ERROR_INIT;
        assert_int_equal(image->driver->co_read(image, &byte, 1, 0, &e), -ENOTSUP);
        assert_non_null(strstr(e.message, "backing file"));
        image_close(image);
        qcow2_sample_free(&s);
}

static void without_an_opener_nothing_is_opened(void **state)
{
        run(*state, co_no_opener);
}

static void co_cycle(struct fixture *f)
{
        struct files files = {.n_opened = 0};
        struct qcow2_sample s;
        struct error e;

        make_overlay(&s, "qcow2");
        files.opener.open = open_one;
        files.names[0] = "base";
        files.fds[0] = dup(f->fd);
        co_refused(f, &s, &(struct image_options){.opener = &files.opener}, -ELOOP, &e);
        assert_non_null(strstr(e.message, "needs itself"));
        qcow2_sample_free(&s);
        close_files(&files);
}

static void a_backing_file_that_is_the_image_itself_is_refused(void **state)
{
        run(*state, co_cycle);
}

static void co_cycle_of_two(struct fixture *f)
{
        struct files files = {.n_opened = 0};
        struct qcow2_sample s, base;
        struct error e;

        qcow2_sample_init(&base, 3, 16, OVERLAY_BYTES, 0);
        qcow2_sample_backing(&base, "top", "qcow2");
        qcow2_sample_save(&base, make_file(&files, 0, "base"));
        qcow2_sample_free(&base);
        files.names[1] = "top";
        files.fds[1] = dup(f->fd);
        make_overlay(&s, "qcow2");
        co_refused(f, &s, &(struct image_options){.opener = &files.opener}, -ELOOP, &e);
        assert_string_equal(e.message, "cannot open the backing file of 'x.qcow2': 'top' needs "
                                       "itself: it is named again by 'base'");
        assert_int_equal(files.n_opened, 2);
        qcow2_sample_free(&s);
        close_files(&files);
}

static void two_files_that_need_each_other_are_refused(void **state)
{
        run(*state, co_cycle_of_two);
}

/* Each file's backing file is one more like it; the last one has none, and all ones. */
struct chain {
        struct image_opener opener;
        unsigned left;
};

static int open_next(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct chain *chain = (struct chain *)opener;
        static uint8_t ones[65536];
        struct qcow2_sample s;

        qcow2_sample_init(&s, 3, 16, OVERLAY_BYTES, 0);
        if (--chain->left > 0) {
                qcow2_sample_backing(&s, "base", "qcow2");
        } else {
                memset(ones, 1, sizeof(ones));
                qcow2_sample_plain(&s, 0, ones);
        }
        *ret_fd = memfd_create(name, MFD_CLOEXEC);
        *ret_path = strdup(name);
        qcow2_sample_save(&s, *ret_fd);
        qcow2_sample_free(&s);
        return 0;
}

static void co_chain(struct fixture *f)
{
        struct chain chain = {.opener.open = open_next, .left = IMAGE_DEPTH_MAX};
        const struct image_options options = {.opener = &chain.opener};
        struct image_extent extent;
        struct qcow2_sample s;
        struct image *image;
        struct error e = ERROR_INIT;
        uint8_t byte = 0;

        make_overlay(&s, "qcow2");
        image = co_open_sample(f, &s, &options);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 65535, NULL), 0);
        assert_int_equal(byte, 1);
        assert_int_equal(image->driver->co_extent(image, 0, &extent, NULL), 0);
        assert_int_equal(extent.depth, IMAGE_DEPTH_MAX);
        image_close(image);
        chain.left = IMAGE_DEPTH_MAX + 1;
        assert_int_equal(co_image_open(f->fd, "x.qcow2", &options, &image, &e), -ELOOP);
        assert_string_equal(e.message, "cannot open the backing file of 'x.qcow2': the chain of "
                                       "backing files of 'base' is longer than 64");
        qcow2_sample_free(&s);
}

static void a_chain_is_as_long_as_it_may_be(void **state)
{
        run(*state, co_chain);
}

/* ---- data files ---- */

static void make_with_data(struct qcow2_sample *s, const char *name)
{
        qcow2_sample_init(s, 3, 16, 4 * 65536, QCOW2_DATA_FILE);
        if (name)
                qcow2_sample_extension(s, QCOW2_EXTENSION_DATA_FILE, name, (uint32_t)strlen(name));
        qcow2_sample_map(s, 0, QCOW2_COPIED, 0); /* at offset 0, which is a place in a data file */
        qcow2_sample_map(s, 2 * 65536, (2 * 65536) | QCOW2_COPIED, 0);
}

static void co_data_file(struct fixture *f)
{
        static uint8_t disk[4 * 65536], ones[3 * 65536];
        struct files files = {.n_opened = 0};
        struct image_options options = {.opener = &files.opener};
        struct qcow2_sample s;
        struct image *image;
        struct error e;

        memset(ones, 1, sizeof(ones));
        memset(disk, 1, 65536);
        memset(disk + 2 * 65536, 1, 65536);
        make_file(&files, 0, "data");
        assert_int_equal(write(files.fds[0], ones, sizeof(ones)), (ssize_t)sizeof(ones));
        make_with_data(&s, "data");
        image = co_open_sample(f, &s, &options);
        assert_int_equal(files.last_use, IMAGE_PART);
        assert_string_equal(image->info.data_file, "data");
        assert_null(image->info.compression);
        co_expect_content(image, disk);
        co_expect_extent(
            image, 0, &(struct image_extent){.length = 65536, .present = true, .has_offset = true});
        image_close(image);
        qcow2_sample_map(&s, 65536, (2 * 65536) | QCOW2_COPIED, 0);
        image = co_open_sample(f, &s, &options);
        e = ERROR_INIT;
        assert_int_equal(image->driver->co_read(image, ones, 1, 65536, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "elsewhere in the data file"));
        image_close(image);
        qcow2_sample_free(&s);
        make_with_data(&s, NULL);
        co_refused(f, &s, &options, -EBADMSG, &e);
        assert_non_null(strstr(e.message, "does not name"));
        qcow2_sample_free(&s);
        close_files(&files);
}

static void the_data_can_be_in_another_file(void **state)
{
        run(*state, co_data_file);
}

/* The kind of CVE-2024-4467: to look at an image must not open what it names. */
static void co_data_file_alone(struct fixture *f)
{
        static const char name[] = "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}";
        struct files files = {.opener.open = open_one};
        struct image_options options = {.opener = &files.opener, .alone = true};
        struct qcow2_sample s;
        struct image *image;
        struct error e;
        uint8_t byte;

        make_with_data(&s, name);
        image = co_open_sample(f, &s, &options);
        assert_int_equal(files.n_opened, 0);
        assert_string_equal(image->info.data_file, name);
        e = ERROR_INIT;
        assert_int_equal(image->driver->co_read(image, &byte, 1, 0, &e), -ENOTSUP);
        assert_non_null(strstr(e.message, "data file"));
        image_close(image);
        /* And otherwise it is a name, whatever it looks like. */
        options.alone = false;
        co_refused(f, &s, &options, -ENOENT, &e);
        assert_string_equal(files.last_name, name);
        qcow2_sample_free(&s);
}

static void what_an_image_names_is_not_opened_to_look_at_it(void **state)
{
        run(*state, co_data_file_alone);
}

/* ---- snapshots ---- */

/* Now twos in the first cluster, and ones at the time of "b", which is the older one. */
static void make_snapshots(struct qcow2_sample *s, uint32_t extra)
{
        static uint8_t cluster[512];
        struct qcow2_sample_snapshot list[2];
        uint64_t l1, entry, ones;

        qcow2_sample_init(s, extra ? 3 : 2, 9, 100000, 0);
        memset(cluster, 2, sizeof(cluster));
        qcow2_sample_plain(s, 0, cluster);
        qcow2_sample_plain(s, 99840, cluster);
        ones = qcow2_sample_room(s, 512);
        memset(s->bytes + ones, 1, 512);
        l1 = qcow2_sample_room(s, 2 * QCOW2_L1_ENTRY);
        entry = qcow2_sample_entry(s, l1, 0);
        qcow2_put64(s->bytes + entry, ones);
        list[0] = (struct qcow2_sample_snapshot){.id = "7",
                                                 .name = "2",
                                                 .l1 = s->l1,
                                                 .l1_size = s->l1_size,
                                                 .virtual_bytes = 100000,
                                                 .date_s = 2000000000,
                                                 .extra_bytes = extra};
        list[1] = (struct qcow2_sample_snapshot){.id = "2",
                                                 .name = "b",
                                                 .l1 = l1,
                                                 .l1_size = 2,
                                                 .virtual_bytes = 40000,
                                                 .vm_state_bytes = 12345,
                                                 .date_s = 1000000000,
                                                 .extra_bytes = extra};
        qcow2_sample_snapshots(s, list, 2);
}

static void co_expect_byte(struct image *image, uint64_t offset, uint8_t wanted)
{
        uint8_t byte = 0x77;

        assert_int_equal(image->driver->co_read(image, &byte, 1, offset, NULL), 0);
        assert_int_equal(byte, wanted);
}

static void co_snapshots(struct fixture *f)
{
        struct image_options options = {.snapshot = NULL};
        struct qcow2_sample s;
        struct image *image;
        struct error e;

        make_snapshots(&s, 16);
        image = co_open_sample(f, &s, &options);
        assert_int_equal(image->info.n_snapshots, 2);
        assert_string_equal(image->info.snapshots[0].id, "2");
        assert_string_equal(image->info.snapshots[0].name, "b");
        assert_int_equal(image->info.snapshots[0].virtual_bytes, 40000);
        assert_int_equal(image->info.snapshots[0].vm_state_bytes, 12345);
        assert_int_equal(image->info.snapshots[0].date_s, 1000000000);
        assert_string_equal(image->info.snapshots[1].id, "7");
        co_expect_byte(image, 0, 2);
        image_close(image);
        options.snapshot = "b";
        image = co_open_sample(f, &s, &options);
        assert_int_equal(image->virtual_bytes, 40000);
        co_expect_byte(image, 0, 1);
        co_expect_byte(image, 39999, 0);
        image_close(image);
        /* An id is meant before a name is. */
        options.snapshot = "2";
        image = co_open_sample(f, &s, &options);
        co_expect_byte(image, 0, 1);
        image_close(image);
        options.snapshot = "7";
        image = co_open_sample(f, &s, &options);
        co_expect_byte(image, 0, 2);
        image_close(image);
        options.snapshot = "none";
        co_refused(f, &s, &options, -ENOENT, &e);
        assert_non_null(strstr(e.message, "'none'"));
        qcow2_sample_free(&s);
}

static void a_snapshot_is_the_disk_as_it_was_then(void **state)
{
        run(*state, co_snapshots);
}

/* A snapshot is chosen in the image that is named, not in those behind it. */
static void co_snapshot_over_base(struct fixture *f)
{
        struct files files = {.n_opened = 0};
        struct image_options options = {.snapshot = "now", .opener = &files.opener};
        struct qcow2_sample_snapshot list = {
            .id = "1", .name = "now", .virtual_bytes = OVERLAY_BYTES, .extra_bytes = 16};
        static uint8_t threes[65536];
        struct qcow2_sample base, s;
        struct image *image;

        memset(threes, 3, sizeof(threes));
        qcow2_sample_init(&base, 3, 16, OVERLAY_BYTES, 0);
        qcow2_sample_plain(&base, 0, threes);
        qcow2_sample_save(&base, make_file(&files, 0, "base"));
        qcow2_sample_free(&base);
        make_overlay(&s, "qcow2");
        list.l1 = s.l1;
        list.l1_size = s.l1_size;
        qcow2_sample_snapshots(&s, &list, 1);
        image = co_open_sample(f, &s, &options);
        co_expect_byte(image, 0, 3);
        co_expect_byte(image, 65536, 2);
        image_close(image);
        qcow2_sample_free(&s);
        close_files(&files);
}

static void a_snapshot_has_the_backing_file_that_the_image_has(void **state)
{
        run(*state, co_snapshot_over_base);
}

/* Version 2 need not say how large the disk was: then as large as now, and empty behind its table. */
static void co_old_snapshots(struct fixture *f)
{
        struct image_options options = {.snapshot = "b"};
        struct qcow2_sample s;
        struct image *image;

        make_snapshots(&s, 0);
        image = co_open_sample(f, &s, &options);
        assert_int_equal(image->virtual_bytes, 100000);
        assert_int_equal(image->info.snapshots[0].vm_state_bytes, 12345);
        co_expect_byte(image, 0, 1);
        co_expect_byte(image, 99840, 0);
        image_close(image);
        qcow2_sample_free(&s);
}

static void a_snapshot_need_not_say_its_size(void **state)
{
        run(*state, co_old_snapshots);
}

/* ---- what it says of itself ---- */

static uint64_t put_bitmap(struct qcow2_sample *s, uint64_t at, const char *name, uint32_t flags,
                           uint32_t extra)
{
        uint8_t *p = s->bytes + at;

        qcow2_put32(p + QCOW2_BITMAP_FLAGS_AT, flags);
        p[QCOW2_BITMAP_TYPE_AT] = QCOW2_BITMAP_TYPE_DIRTY;
        p[QCOW2_BITMAP_GRANULARITY_BITS_AT] = 16;
        qcow2_put16(p + QCOW2_BITMAP_NAME_SIZE_AT, (uint16_t)strlen(name));
        qcow2_put32(p + QCOW2_BITMAP_EXTRA_SIZE_AT, extra);
        memcpy(p + QCOW2_BITMAP_SIZE + extra, name, strlen(name));
        return at + ((QCOW2_BITMAP_SIZE + extra + strlen(name) + 7) & ~7u);
}

static void co_bitmaps(struct fixture *f)
{
        uint8_t extension[QCOW2_BITMAPS_SIZE] = {0};
        struct qcow2_sample s;
        struct image *image;
        uint64_t directory, at;

        qcow2_sample_init(&s, 3, 16, MIB, 0);
        at = directory = qcow2_sample_room(&s, 65536);
        at = put_bitmap(&s, at, "daily", QCOW2_BITMAP_AUTO, 0);
        at = put_bitmap(&s, at, "used", QCOW2_BITMAP_IN_USE, 0);
        at = put_bitmap(&s, at, "foreign", 0, 13);
        at = put_bitmap(&s, at, "harmless", QCOW2_BITMAP_EXTRA_OK, 13);
        qcow2_put32(extension + QCOW2_BITMAPS_N_AT, 4);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_OFFSET_AT, directory);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_SIZE_AT, at - directory);
        qcow2_sample_extension(&s, QCOW2_EXTENSION_BITMAPS, extension, sizeof(extension));
        qcow2_put64(s.bytes + QCOW2_AUTOCLEAR_AT, QCOW2_BITMAPS);
        image = co_open_sample(f, &s, NULL);
        assert_int_equal(image->info.n_bitmaps, 4);
        assert_string_equal(image->info.bitmaps[0].name, "daily");
        assert_int_equal(image->info.bitmaps[0].granularity_bytes, 65536);
        assert_true(image->info.bitmaps[0].automatic);
        assert_false(image->info.bitmaps[0].in_use);
        assert_true(image->info.bitmaps[1].in_use);
        assert_true(image->info.bitmaps[2].in_use);
        assert_string_equal(image->info.bitmaps[3].name, "harmless");
        assert_false(image->info.bitmaps[3].in_use);
        image_close(image);
        /* Someone wrote to the image without knowing of them. */
        qcow2_put64(s.bytes + QCOW2_AUTOCLEAR_AT, 0);
        image = co_open_sample(f, &s, NULL);
        assert_int_equal(image->info.n_bitmaps, 0);
        image_close(image);
        qcow2_sample_free(&s);
}

static void bitmaps_are_listed(void **state)
{
        run(*state, co_bitmaps);
}

static void co_info(struct fixture *f)
{
        struct qcow2_sample s;
        struct image *image;

        qcow2_sample_init(&s, 2, 16, MIB, 0);
        image = co_open_sample(f, &s, NULL);
        assert_string_equal(image->info.version, "2");
        assert_string_equal(image->info.variant, "v2");
        assert_string_equal(image->info.compression, "zlib");
        assert_false(image->info.dirty);
        assert_false(image->info.corrupt);
        image_close(image);
        qcow2_sample_free(&s);
        qcow2_sample_init(&s, 3, 16, MIB, QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION_TYPE);
        image = co_open_sample(f, &s, NULL);
        assert_string_equal(image->info.version, "3");
        assert_string_equal(image->info.variant, "v3");
        assert_string_equal(image->info.compression, "zstd");
        assert_true(image->info.dirty);
        assert_true(image->info.corrupt);
        co_expect_byte(image, 0, 0);
        image_close(image);
        qcow2_sample_free(&s);
}

static void an_image_says_what_it_is(void **state)
{
        run(*state, co_info);
}

static void co_unknown_features(struct fixture *f)
{
        uint8_t names[2 * QCOW2_FEATURE_SIZE] = {0};
        struct qcow2_sample s;
        struct error e;

        qcow2_sample_init(&s, 3, 16, MIB, UINT64_C(1) << 40);
        co_refused(f, &s, NULL, -ENOTSUP, &e);
        assert_non_null(strstr(e.message, "number 40"));
        names[QCOW2_FEATURE_KIND_AT] = 1; /* another map's bit of this number */
        names[QCOW2_FEATURE_BIT_AT] = 40;
        memcpy(names + QCOW2_FEATURE_NAME_AT, "other", 5);
        names[QCOW2_FEATURE_SIZE + QCOW2_FEATURE_BIT_AT] = 40;
        memset(names + QCOW2_FEATURE_SIZE + QCOW2_FEATURE_NAME_AT, 'y', QCOW2_FEATURE_NAME_SIZE);
        names[QCOW2_FEATURE_SIZE + QCOW2_FEATURE_NAME_AT] = '\x1b';
        qcow2_sample_extension(&s, QCOW2_EXTENSION_FEATURE_NAMES, names, sizeof(names));
        co_refused(f, &s, NULL, -ENOTSUP, &e);
        assert_non_null(strstr(e.message, "'?yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy'"));
        /* Of the others nobody needs to know. */
        qcow2_put64(s.bytes + QCOW2_INCOMPATIBLE_AT, 0);
        qcow2_put64(s.bytes + QCOW2_COMPATIBLE_AT, UINT64_MAX);
        qcow2_put64(s.bytes + QCOW2_AUTOCLEAR_AT, ~QCOW2_DATA_FILE_RAW);
        image_close(co_open_sample(f, &s, NULL));
        qcow2_sample_free(&s);
}

static void features_that_are_not_known_are_refused_by_name(void **state)
{
        run(*state, co_unknown_features);
}

#define qcow2_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            qcow2_test(what_is_absent_comes_from_a_backing_file_of_any_length),
            qcow2_test(extents_say_which_file_has_them),
            qcow2_test(the_format_of_a_backing_file_is_never_guessed),
            qcow2_test(without_an_opener_nothing_is_opened),
            qcow2_test(a_backing_file_that_is_the_image_itself_is_refused),
            qcow2_test(two_files_that_need_each_other_are_refused),
            qcow2_test(a_chain_is_as_long_as_it_may_be),
            qcow2_test(the_data_can_be_in_another_file),
            qcow2_test(what_an_image_names_is_not_opened_to_look_at_it),
            qcow2_test(a_snapshot_is_the_disk_as_it_was_then),
            qcow2_test(a_snapshot_has_the_backing_file_that_the_image_has),
            qcow2_test(a_snapshot_need_not_say_its_size),
            qcow2_test(bitmaps_are_listed),
            qcow2_test(an_image_says_what_it_is),
            qcow2_test(features_that_are_not_known_are_refused_by_name),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
