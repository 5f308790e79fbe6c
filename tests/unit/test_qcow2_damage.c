/* test_qcow2_damage.c - qcow2 images that break the rules: each is refused, with a sentence that says
 * where.
 *
 * Among them the kinds of what was found in QEMU's driver: CVE-2014-0143 (sizes of tables that overflow
 * when multiplied), CVE-2014-0144 (header_length, the extensions', the backing name's and the tables'
 * places unchecked), CVE-2014-0145 (a snapshot's L1 table larger than the image's), CVE-2014-0146 (closing
 * what opened half), CVE-2014-0147 (refcount orders); CVE-2024-4467 is in test_qcow2_open.c. */
#include "tests/unit/qcow2_fixture.h"

struct damage {
        const char *wanted; /* in the sentence */
        unsigned at, bits;
        uint64_t value;
        int code;
};

static void put(struct qcow2_sample *s, uint64_t at, unsigned bits, uint64_t value)
{
        if (bits == 8)
                s->bytes[at] = (uint8_t)value;
        else if (bits == 16)
                qcow2_put16(s->bytes + at, (uint16_t)value);
        else if (bits == 32)
                qcow2_put32(s->bytes + at, (uint32_t)value);
        else
                qcow2_put64(s->bytes + at, value);
}

static void co_expect_refused(struct fixture *f, const struct qcow2_sample *s,
                              const struct image_options *options, const struct damage *d)
{
        struct error e;

        co_refused(f, s, options, d->code ? d->code : -EBADMSG, &e);
        if (!strstr(e.message, d->wanted))
                fail_msg("'%s' is not in: %s", d->wanted, e.message);
}

/* A sound image: version 3, 64 KiB clusters, 1 MiB. */
static void make(struct qcow2_sample *s)
{
        static uint8_t data[65536];

        qcow2_sample_init(s, 3, 16, MIB, 0);
        qcow2_sample_plain(s, 0, data);
}

/* ---- the header ---- */

static const struct damage header_damages[] = {
    {"version 1", QCOW2_VERSION_AT, 32, 1, -ENOTSUP},
    {"version 4", QCOW2_VERSION_AT, 32, 4, -ENOTSUP},
    {"cluster bits 8", QCOW2_CLUSTER_BITS_AT, 32, 8, 0},
    {"cluster bits 22", QCOW2_CLUSTER_BITS_AT, 32, 22, 0},
    {"cluster bits 4294967295", QCOW2_CLUSTER_BITS_AT, 32, UINT32_MAX, 0},
    {"4 PiB", QCOW2_SIZE_AT, 64, UINT64_MAX, -EFBIG},
    {"4 PiB", QCOW2_SIZE_AT, 64, IMAGE_SIZE_MAX + 1, -EFBIG},
    {"needs 16384", QCOW2_SIZE_AT, 64, UINT64_C(1) << 43, 0},
    {"LUKS", QCOW2_CRYPT_METHOD_AT, 32, 2, -ENOTSUP},
    {"AES", QCOW2_CRYPT_METHOD_AT, 32, 1, -ENOTSUP},
    {"number 3", QCOW2_CRYPT_METHOD_AT, 32, 3, -ENOTSUP},
    {"has 0 entries", QCOW2_L1_SIZE_AT, 32, 0, 0},
    {"4194304 are the most", QCOW2_L1_SIZE_AT, 32, (4u << 20) + 1, 0},
    {"4194304 are the most", QCOW2_L1_SIZE_AT, 32, UINT32_C(0x20000001), 0},
    {"4194304 are the most", QCOW2_L1_SIZE_AT, 32, UINT32_MAX, 0},
    {"beyond the file's end", QCOW2_L1_SIZE_AT, 32, 4u << 20, 0},
    {"no multiple of", QCOW2_L1_OFFSET_AT, 64, 65536 + 8, 0},
    {"beyond the file's end", QCOW2_L1_OFFSET_AT, 64, UINT64_C(1) << 40, 0},
    {"beyond the file's end", QCOW2_L1_OFFSET_AT, 64, UINT64_C(0xffffffffffff0000), 0},
    {"refcount table off", QCOW2_REFCOUNT_TABLE_OFFSET_AT, 64, 512, 0},
    {"refcount table of more", QCOW2_REFCOUNT_TABLE_CLUSTERS_AT, 32, 129, 0},
    {"refcount table of more", QCOW2_REFCOUNT_TABLE_CLUSTERS_AT, 32, UINT32_MAX, 0},
    {"refcount order 7", QCOW2_REFCOUNT_ORDER_AT, 32, 7, 0},
    {"refcount order 4294967295", QCOW2_REFCOUNT_ORDER_AT, 32, UINT32_MAX, 0},
    {"a length of 96", QCOW2_HEADER_LENGTH_AT, 32, 96, 0},
    {"a length of 106", QCOW2_HEADER_LENGTH_AT, 32, 106, 0},
    {"a length of 65544", QCOW2_HEADER_LENGTH_AT, 32, 65544, 0},
    {"a length of 4294967288", QCOW2_HEADER_LENGTH_AT, 32, UINT32_C(0xfffffff8), 0},
    {"features deny", QCOW2_COMPRESSION_TYPE_AT, 8, 1, 0},
    {"features deny", QCOW2_INCOMPATIBLE_AT, 64, QCOW2_COMPRESSION_TYPE, 0},
    {"number 2", QCOW2_COMPRESSION_TYPE_AT, 8, 2, -ENOTSUP},
    {"snapshots: 65537", QCOW2_N_SNAPSHOTS_AT, 32, 65537, 0},
    {"snapshots: 4294967295", QCOW2_N_SNAPSHOTS_AT, 32, UINT32_MAX, 0},
    {"where the header is", QCOW2_N_SNAPSHOTS_AT, 32, 1, 0},
    {"where the header is", QCOW2_L1_OFFSET_AT, 64, 0, 0},
};

static void co_header(struct fixture *f)
{
        struct qcow2_sample s;

        make(&s);
        image_close(co_open_sample(f, &s, NULL));
        for (size_t i = 0; i < sizeof(header_damages) / sizeof(header_damages[0]); i++) {
                const struct damage *d = &header_damages[i];
                uint8_t old[QCOW2_V3_HEADER_SIZE_COMPRESSION];

                memcpy(old, s.bytes, sizeof(old));
                put(&s, d->at, d->bits, d->value);
                co_expect_refused(f, &s, NULL, d);
                memcpy(s.bytes, old, sizeof(old));
        }
        qcow2_sample_free(&s);
}

static void a_header_that_cannot_be_is_refused(void **state)
{
        run(*state, co_header);
}

static void co_cut_header(struct fixture *f)
{
        struct image_options options = {.format = "qcow2"};
        struct qcow2_sample s;

        make(&s);
        for (s.used = 0; s.used < QCOW2_V2_HEADER_SIZE; s.used++)
                co_expect_refused(f, &s, &options, &(struct damage){.wanted = "header needs 72"});
        for (s.used = QCOW2_V2_HEADER_SIZE; s.used < 200; s.used++)
                co_expect_refused(f, &s, &options, &(struct damage){.wanted = "is damaged"});
        s.used = 65536 * 2;
        s.bytes[0] = 'q';
        co_expect_refused(f, &s, &options, &(struct damage){.wanted = "no qcow2 image"});
        qcow2_sample_free(&s);
}

static void a_header_that_is_cut_is_refused(void **state)
{
        run(*state, co_cut_header);
}

static void co_extensions(struct fixture *f)
{
        struct qcow2_sample s;
        uint64_t at;

        make(&s);
        at = s.extension;
        qcow2_sample_extension(&s, UINT32_C(0x12345678), "unknown", 7);
        image_close(co_open_sample(f, &s, NULL));
        put(&s, at + 4, 32, 65536 - at - 8);
        image_close(co_open_sample(f, &s, NULL));
        put(&s, at + 4, 32, 65536 - at - 7);
        co_expect_refused(f, &s, NULL,
                          &(struct damage){.wanted = "header extension at offset 112"});
        put(&s, at + 4, 32, UINT32_MAX);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "4294967295 bytes"});
        put(&s, at, 32, QCOW2_EXTENSION_BACKING_FORMAT);
        put(&s, at + 4, 32, 1024);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "1024 bytes"});
        put(&s, at + 4, 32, 7);
        qcow2_sample_extension(&s, QCOW2_EXTENSION_BACKING_FORMAT, "raw", 3);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "twice"});
        qcow2_sample_free(&s);
}

static void an_extension_that_does_not_fit_is_refused(void **state)
{
        run(*state, co_extensions);
}

static void co_backing_name(struct fixture *f)
{
        static const struct {
                uint64_t offset;
                uint32_t n;
        } places[] = {{65536, 1},      {65530, 7},        {65537, 1},
                      {UINT64_MAX, 1}, {200, UINT32_MAX}, {200, 1024}};
        struct qcow2_sample s;

        make(&s);
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                put(&s, QCOW2_BACKING_OFFSET_AT, 64, places[i].offset);
                put(&s, QCOW2_BACKING_SIZE_AT, 32, places[i].n);
                co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "backing file's name"});
        }
        put(&s, QCOW2_BACKING_OFFSET_AT, 64, 200);
        put(&s, QCOW2_BACKING_SIZE_AT, 32, 4);
        put(&s, QCOW2_AUTOCLEAR_AT, 64, QCOW2_DATA_FILE_RAW);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "exclude each other"});
        qcow2_sample_free(&s);
}

static void a_backing_name_elsewhere_than_in_the_header_is_refused(void **state)
{
        run(*state, co_backing_name);
}

static void co_extended_small(struct fixture *f)
{
        struct qcow2_sample s;

        qcow2_sample_init(&s, 3, 13, MIB, QCOW2_EXTENDED_L2);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "cluster bits 13"});
        qcow2_sample_free(&s);
}

static void extended_entries_need_larger_clusters(void **state)
{
        run(*state, co_extended_small);
}

/* ---- lists ---- */

static void co_snapshot_table(struct fixture *f)
{
        static const struct damage damages[] = {
            {"beyond the file's end", QCOW2_SNAPSHOT_NAME_SIZE_AT, 16, 65535, 0},
            {"1024 bytes of extra", QCOW2_SNAPSHOT_EXTRA_SIZE_AT, 32, 1025, 0},
            {"1024 bytes of extra", QCOW2_SNAPSHOT_EXTRA_SIZE_AT, 32, UINT32_MAX, 0},
        };
        static const struct damage l1s[] = {
            {"4194304 are the most", QCOW2_SNAPSHOT_L1_SIZE_AT, 32, (4u << 20) + 1, 0},
            {"4194304 are the most", QCOW2_SNAPSHOT_L1_SIZE_AT, 32, UINT32_MAX, 0},
            {"beyond the file's end", QCOW2_SNAPSHOT_L1_SIZE_AT, 32, 4u << 20, 0},
            {"no multiple of", QCOW2_SNAPSHOT_L1_OFFSET_AT, 64, 65537, 0},
            {"beyond the file's end", QCOW2_SNAPSHOT_L1_OFFSET_AT, 64, UINT64_MAX << 16, 0},
            {"larger than 4 PiB", QCOW2_SNAPSHOT_SIZE + QCOW2_SNAPSHOT_EXTRA_SIZE_BYTES_AT, 64,
             UINT64_MAX, -EFBIG},
        };
        struct image_options options = {.snapshot = "one"};
        struct qcow2_sample_snapshot one = {
            .id = "1", .name = "one", .l1_size = 1, .virtual_bytes = MIB, .extra_bytes = 16};
        struct qcow2_sample s;
        uint64_t at;
        uint8_t old[64];

        make(&s);
        one.l1 = s.l1;
        qcow2_sample_snapshots(&s, &one, 1);
        at = qcow2_get64(s.bytes + QCOW2_SNAPSHOTS_OFFSET_AT);
        memcpy(old, s.bytes + at, sizeof(old));
        image_close(co_open_sample(f, &s, &options));
        for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
                put(&s, at + damages[i].at, damages[i].bits, damages[i].value);
                co_expect_refused(f, &s, NULL, &damages[i]);
                memcpy(s.bytes + at, old, sizeof(old));
        }
        /* A broken snapshot is no reason not to read the disk as it is now. */
        for (size_t i = 0; i < sizeof(l1s) / sizeof(l1s[0]); i++) {
                put(&s, at + l1s[i].at, l1s[i].bits, l1s[i].value);
                co_expect_refused(f, &s, &options, &l1s[i]);
                image_close(co_open_sample(f, &s, NULL));
                memcpy(s.bytes + at, old, sizeof(old));
        }
        put(&s, QCOW2_N_SNAPSHOTS_AT, 32, 65536);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "beyond the file's end"});
        put(&s, QCOW2_SNAPSHOTS_OFFSET_AT, 64, at + 1);
        put(&s, QCOW2_N_SNAPSHOTS_AT, 32, 1);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "no multiple of"});
        qcow2_sample_free(&s);
        qcow2_sample_init(&s, 3, 16, MIB, QCOW2_DATA_FILE);
        qcow2_sample_snapshots(&s, &one, 1);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "data file, which excludes"});
        qcow2_sample_free(&s);
}

static void a_list_of_snapshots_that_is_broken_is_refused(void **state)
{
        run(*state, co_snapshot_table);
}

/* As many snapshots as a header may ask for, whose entries together are as long as they may be, or longer. */
static void co_largest_snapshot_table(struct fixture *f)
{
        enum { ENTRY = 1024, N = QCOW2_SNAPSHOT_TABLE_BYTES_MAX / ENTRY };
        struct image_options options = {.alone = true};
        struct error e = ERROR_INIT;
        struct image *image = NULL;
        struct qcow2_sample s;
        uint8_t *table;

        _Static_assert(N == QCOW2_SNAPSHOTS_MAX, "so many entries of 1 KiB each are both limits");
        make(&s);
        put(&s, QCOW2_SNAPSHOTS_OFFSET_AT, 64, s.used);
        put(&s, QCOW2_N_SNAPSHOTS_AT, 32, N);
        qcow2_sample_save(&s, f->fd);
        table = calloc(N + 1, ENTRY);
        for (size_t i = 0; i < N; i++)
                qcow2_put32(table + i * ENTRY + QCOW2_SNAPSHOT_EXTRA_SIZE_AT,
                            ENTRY - QCOW2_SNAPSHOT_SIZE);
        assert_int_equal(pwrite(f->fd, table, (N + 1) * (size_t)ENTRY, (off_t)s.used),
                         (N + 1) * ENTRY);
        assert_int_equal(co_image_open(f->fd, "x.qcow2", &options, &image, &e), 0);
        assert_int_equal(image->info.n_snapshots, N);
        image_close(image);
        qcow2_put32(table + QCOW2_SNAPSHOT_EXTRA_SIZE_AT, ENTRY);
        assert_int_equal(pwrite(f->fd, table, ENTRY, (off_t)s.used), ENTRY);
        assert_int_equal(pwrite(f->fd, table + ENTRY, N * (size_t)ENTRY,
                                (off_t)s.used + ENTRY + QCOW2_SNAPSHOT_SIZE),
                         N * ENTRY);
        assert_int_equal(co_image_open(f->fd, "x.qcow2", &options, &image, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "table of over 64 MiB"));
        free(table);
        qcow2_sample_free(&s);
}

static void a_list_of_snapshots_is_as_long_as_it_may_be(void **state)
{
        run(*state, co_largest_snapshot_table);
}

static void co_bitmap_directory(struct fixture *f)
{
        static const struct damage in_extension[] = {
            {"has 0 bitmaps", QCOW2_BITMAPS_N_AT, 32, 0, 0},
            {"65536 bitmaps", QCOW2_BITMAPS_N_AT, 32, 65536, 0},
            {"bitmap 2, at offset", QCOW2_BITMAPS_N_AT, 32, 65535, 0},
            {"beyond the file's end", QCOW2_BITMAPS_DIRECTORY_SIZE_AT, 64,
             QCOW2_BITMAP_DIRECTORY_BYTES_MAX, 0},
            {"more than 64 MiB", QCOW2_BITMAPS_DIRECTORY_SIZE_AT, 64,
             QCOW2_BITMAP_DIRECTORY_BYTES_MAX + 1, 0},
            {"more than 64 MiB", QCOW2_BITMAPS_DIRECTORY_SIZE_AT, 64, UINT64_MAX, 0},
            {"beyond the file's end", QCOW2_BITMAPS_DIRECTORY_SIZE_AT, 64, 65537, 0},
            {"no multiple of", QCOW2_BITMAPS_DIRECTORY_OFFSET_AT, 64, 7, 0},
            {"beyond the file's end", QCOW2_BITMAPS_DIRECTORY_OFFSET_AT, 64, UINT64_MAX << 16, 0},
        };
        static const struct damage in_entry[] = {
            {"unknown type", QCOW2_BITMAP_TYPE_AT, 8, 2, 0},
            {"reserved flags", QCOW2_BITMAP_FLAGS_AT, 32, 8, 0},
            {"granularity", QCOW2_BITMAP_GRANULARITY_BITS_AT, 8, 8, 0},
            {"granularity", QCOW2_BITMAP_GRANULARITY_BITS_AT, 8, 255, 0},
            {"name", QCOW2_BITMAP_NAME_SIZE_AT, 16, 0, 0},
            {"name", QCOW2_BITMAP_NAME_SIZE_AT, 16, 1024, 0},
            {"directory's end", QCOW2_BITMAP_NAME_SIZE_AT, 16, 9, 0},
            {"directory's end", QCOW2_BITMAP_EXTRA_SIZE_AT, 32, UINT32_MAX, 0},
        };
        uint8_t extension[QCOW2_BITMAPS_SIZE] = {0}, entry[32] = {0};
        struct qcow2_sample s;
        uint64_t at, directory;

        make(&s);
        directory = qcow2_sample_room(&s, 65536);
        entry[QCOW2_BITMAP_TYPE_AT] = QCOW2_BITMAP_TYPE_DIRTY;
        entry[QCOW2_BITMAP_GRANULARITY_BITS_AT] = 16;
        qcow2_put16(entry + QCOW2_BITMAP_NAME_SIZE_AT, 8);
        memcpy(entry + QCOW2_BITMAP_SIZE, "a bitmap", 8);
        memcpy(s.bytes + directory, entry, sizeof(entry));
        qcow2_put32(extension + QCOW2_BITMAPS_N_AT, 1);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_SIZE_AT, sizeof(entry));
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_OFFSET_AT, directory);
        at = s.extension;
        qcow2_sample_extension(&s, QCOW2_EXTENSION_BITMAPS, extension, sizeof(extension));
        put(&s, QCOW2_AUTOCLEAR_AT, 64, QCOW2_BITMAPS);
        image_close(co_open_sample(f, &s, NULL));
        for (size_t i = 0; i < sizeof(in_extension) / sizeof(in_extension[0]); i++) {
                const struct damage *d = &in_extension[i];

                put(&s, at + QCOW2_EXTENSION_HEAD + d->at, d->bits, d->value);
                co_expect_refused(f, &s, NULL, d);
                memcpy(s.bytes + at + QCOW2_EXTENSION_HEAD, extension, sizeof(extension));
        }
        for (size_t i = 0; i < sizeof(in_entry) / sizeof(in_entry[0]); i++) {
                put(&s, directory + in_entry[i].at, in_entry[i].bits, in_entry[i].value);
                co_expect_refused(f, &s, NULL, &in_entry[i]);
                memcpy(s.bytes + directory, entry, sizeof(entry));
        }
        put(&s, at + 4, 32, 23);
        co_expect_refused(f, &s, NULL, &(struct damage){.wanted = "23 bytes, not 24"});
        qcow2_sample_free(&s);
}

static void a_list_of_bitmaps_that_is_broken_is_refused(void **state)
{
        run(*state, co_bitmap_directory);
}

/* ---- tables ---- */

/* Reading and walking say the same; the cluster before can still be read. */
static void co_expect_unreadable(struct fixture *f, const struct qcow2_sample *s, uint64_t guest,
                                 const char *wanted)
{
        struct image *image = co_open_sample(f, s, &(struct image_options){.alone = true});
        struct image_extent extent;
        struct error e = ERROR_INIT;
        char byte;

        assert_int_equal(image->driver->co_read(image, &byte, 1, guest, &e), -EBADMSG);
        if (!strstr(e.message, wanted) || !strstr(e.message, "'x.qcow2'") ||
            !strstr(e.message, "at offset"))
                fail_msg("'%s' is not in: %s", wanted, e.message);
        e = ERROR_INIT;
        assert_int_equal(image->driver->co_extent(image, guest, &extent, &e), -EBADMSG);
        assert_non_null(strstr(e.message, wanted));
        if (guest > 0) {
                assert_int_equal(image->driver->co_read(image, &byte, 1, guest - 1, NULL), 0);
                assert_int_equal(image->driver->co_extent(image, guest - 1, &extent, NULL), 0);
                assert_int_equal(extent.length, 1);
        }
        image_close(image);
}

static void co_l1_entries(struct fixture *f)
{
        static const struct {
                uint64_t entry;
                const char *wanted;
        } damages[] = {
            {QCOW2_COPIED, "offset 0"},
            {65536 | 1, "reserved bits"},
            {65536 | UINT64_C(1) << 56, "reserved bits"},
            {65536 + 512, "between two clusters"},
            {UINT64_C(0x00ffffffffff0000), "beyond the file's end"},
            {196608, "beyond the file's end"},
        };
        struct qcow2_sample s;

        make(&s);
        for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
                put(&s, s.l1, 64, damages[i].entry);
                s.used = 196608 + 65535; /* no room for a whole table there */
                co_expect_unreadable(f, &s, 0, damages[i].wanted);
        }
        qcow2_sample_free(&s);
}

static void an_l1_entry_that_cannot_be_is_refused(void **state)
{
        run(*state, co_l1_entries);
}

struct l2_damage {
        uint64_t features;
        uint32_t version;
        uint64_t entry, bitmap;
        const char *wanted;
};

static const struct l2_damage l2_damages[] = {
    {0, 3, QCOW2_COPIED, 0, "offset 0"},
    {0, 3, QCOW2_COPIED | QCOW2_ZERO, 0, "offset 0"},
    {0, 3, 65536 | 2, 0, "reserved bits"},
    {0, 3, 65536 | UINT64_C(1) << 61, 0, "reserved bits"},
    {0, 3, 65536 + 512, 0, "between two clusters"},
    {0, 3, UINT64_C(0x00ffffffffff0000), 0, "beyond the file's end"},
    {0, 3, 65536 * 16, 0, "beyond the file's end"},
    {0, 2, QCOW2_ZERO, 0, "says zero"},
    {QCOW2_EXTENDED_L2, 3, QCOW2_ZERO, 0, "says zero"},
    {QCOW2_EXTENDED_L2, 3, 65536, UINT64_C(0x100000001), "both data and zero"},
    {QCOW2_EXTENDED_L2, 3, 0, 1, "of no cluster"},
    {0, 3, QCOW2_COMPRESSED | 65536 * 16, 0, "compressed cluster beyond"},
    {0, 3, UINT64_MAX, 0, "compressed cluster beyond"},
    {QCOW2_DATA_FILE, 3, QCOW2_COMPRESSED | 65536, 0, "no data file"},
};

static void co_l2_entries(struct fixture *f)
{
        static uint8_t data[65536];

        for (size_t i = 0; i < sizeof(l2_damages) / sizeof(l2_damages[0]); i++) {
                const struct l2_damage *d = &l2_damages[i];
                struct qcow2_sample s;

                qcow2_sample_init(&s, d->version, 16, MIB, d->features);
                if (d->features & QCOW2_DATA_FILE)
                        qcow2_sample_extension(&s, QCOW2_EXTENSION_DATA_FILE, "data", 4);
                else
                        qcow2_sample_plain(&s, 65536, data);
                qcow2_sample_map(&s, 131072, d->entry, d->bitmap);
                co_expect_unreadable(f, &s, 131072, d->wanted);
                qcow2_sample_free(&s);
        }
}

static void an_l2_entry_that_cannot_be_is_refused(void **state)
{
        run(*state, co_l2_entries);
}

/* What does not decompress: rubbish, cut off, nothing, half a cluster. */
static void co_packed(struct fixture *f, uint64_t features)
{
        static uint8_t data[65536], rubbish[3000], half[70000];
        struct qcow2_sample s;
        uint32_t seed = 9;
        size_t n_half;

        for (size_t i = 0; i < sizeof(rubbish); i++)
                rubbish[i] = (uint8_t)(next_number(&seed) | 7); /* a block of no known type */
        n_half = pack(15, features, data, half, sizeof(half));
        for (unsigned k = 0; k < 5; k++) {
                struct image *image;
                struct error e = ERROR_INIT;

                qcow2_sample_init(&s, 3, 16, 4 * 65536, features);
                fill(data, sizeof(data), 1);
                if (k == 0) {
                        qcow2_sample_pack_bytes(&s, 65536, rubbish, sizeof(rubbish));
                } else if (k == 3) {
                        qcow2_sample_pack_bytes(&s, 65536, "", 1);
                } else if (k == 4) {
                        qcow2_sample_pack_bytes(&s, 65536, half, n_half);
                } else {
                        qcow2_sample_pack(&s, 65536, data);
                        s.used -= k * 5000;
                }
                image = co_open_sample(f, &s, NULL);
                assert_int_equal(image->driver->co_read(image, data, 65536, 65536, &e), -EBADMSG);
                assert_non_null(strstr(e.message, "the disk's byte 65536"));
                assert_int_equal(image->driver->co_read(image, data, 10, 70000, NULL), -EBADMSG);
                /* And once more: a cluster that failed is not kept. */
                assert_int_equal(image->driver->co_read(image, data, 10, 70000, NULL), -EBADMSG);
                assert_int_equal(image->driver->co_read(image, data, 65536, 0, NULL), 0);
                image_close(image);
                qcow2_sample_free(&s);
        }
}

static void co_zlib_damages(struct fixture *f)
{
        co_packed(f, 0);
}

static void co_zstd_damages(struct fixture *f)
{
        co_packed(f, QCOW2_COMPRESSION_TYPE);
}

static void what_does_not_inflate_is_refused(void **state)
{
        run(*state, co_zlib_damages);
}

static void what_is_no_zstd_is_refused(void **state)
{
        run(*state, co_zstd_damages);
}

static void co_shrinking(struct fixture *f)
{
        static uint8_t data[65536];
        struct qcow2_sample s;
        struct image *image;
        struct error e = ERROR_INIT;

        make(&s);
        image = co_open_sample(f, &s, NULL);
        assert_int_equal(ftruncate(f->fd, 131072), 0);
        assert_int_equal(image->driver->co_read(image, data, 1, 0, &e), -EIO);
        assert_non_null(strstr(e.message, "x.qcow2"));
        image_close(image);
        qcow2_sample_free(&s);
}

static void a_file_that_is_cut_while_it_is_read_is_an_error(void **state)
{
        run(*state, co_shrinking);
}

#define qcow2_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            qcow2_test(a_header_that_cannot_be_is_refused),
            qcow2_test(a_header_that_is_cut_is_refused),
            qcow2_test(an_extension_that_does_not_fit_is_refused),
            qcow2_test(a_backing_name_elsewhere_than_in_the_header_is_refused),
            qcow2_test(extended_entries_need_larger_clusters),
            qcow2_test(a_list_of_snapshots_that_is_broken_is_refused),
            qcow2_test(a_list_of_snapshots_is_as_long_as_it_may_be),
            qcow2_test(a_list_of_bitmaps_that_is_broken_is_refused),
            qcow2_test(an_l1_entry_that_cannot_be_is_refused),
            qcow2_test(an_l2_entry_that_cannot_be_is_refused),
            qcow2_test(what_does_not_inflate_is_refused),
            qcow2_test(what_is_no_zstd_is_refused),
            qcow2_test(a_file_that_is_cut_while_it_is_read_is_an_error),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
