/* test_vmdk.c - VMDK images for reading, made by hand: what is right is read, each kind of damage is a
 * sentence. */
#include "tests/unit/vmdk_fixture.h"

static struct image *co_opened(int fd, const struct image_options *options)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        if (co_image_open(fd, "x.vmdk", options, &image, &e) < 0)
                fail_msg("%s", e.message);
        return image;
}

static void co_refused(int fd, const struct image_options *options, int code, const char *words)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(co_image_open(fd, "x.vmdk", options, &image, &e), code);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in: %s", words, e.message);
}

/* ---- a sparse file ---- */

static void co_compare_hand(struct image *image)
{
        static uint8_t data[HAND_BYTES];

        memset(data, 0x55, sizeof(data));
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 0, NULL), 0);
        for (size_t k = 0; k < sizeof(data); k++)
                assert_int_equal(data[k], hand_byte(k));
        for (size_t k = 1; k < sizeof(data); k += 30011) { /* pieces, across grains */
                size_t n = sizeof(data) - k < 70000 ? sizeof(data) - k : 70000;

                assert_int_equal(image->driver->co_read(image, data, n, k, NULL), 0);
                for (size_t i = 0; i < n; i += 997)
                        assert_int_equal(data[i], hand_byte(k + i));
        }
}

static void co_read_hand(struct fixture *f)
{
        static const struct {
                uint64_t at, length, file_offset;
                bool zero, present;
        } want[] = {{0, 64, 0, true, false},
                    {64, 64, 128, false, true},
                    {128, 64, 0, true, true},
                    {192, 64, 64, false, true},
                    {256, 256, 0, true, false}};
        struct image *image;

        hand_make(f->fd, HAND_TEXT);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->virtual_bytes, HAND_BYTES);
        assert_string_equal(image->info.variant, "monolithicSparse");
        assert_string_equal(image->info.version, "2");
        assert_int_equal(image->info.cluster_bytes, 64 * KIB);
        assert_false(image->info.dirty);
        co_compare_hand(image);
        for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
                struct image_extent e;

                assert_int_equal(image->driver->co_extent(image, want[i].at * KIB, &e, NULL), 0);
                assert_int_equal(e.length, want[i].length * KIB);
                assert_int_equal(e.zero, want[i].zero);
                assert_int_equal(e.present, want[i].present);
                assert_int_equal(e.has_offset, want[i].file_offset != 0);
                if (e.has_offset)
                        assert_int_equal(e.file_offset, want[i].file_offset * KIB);
        }
        image_close(image);
}

static void a_sparse_file_is_read_with_its_extents(void **state)
{
        run(*state, co_read_hand);
}

/* What breaks a header: a number in its place. */
struct damage {
        const char *words;
        int code;
        unsigned at, bytes;
        uint64_t value;
};

static const struct damage damages[] = {
    {"version 0", -ENOTSUP, 4, 4, 0},
    {"version 4", -ENOTSUP, 4, 4, 4},
    {"not written to its end", -EBADMSG, 4, 4, UINT32_MAX},
    {"transfer as text", -EBADMSG, 75, 1, '\n'},
    {"too many sectors", -EBADMSG, 12, 8, UINT64_C(1) << 44},
    {"too many sectors", -EBADMSG, 12, 8, UINT64_MAX},
    {"power of two", -EBADMSG, 20, 8, 0},
    {"power of two", -EBADMSG, 20, 8, 96},
    {"power of two", -EBADMSG, 20, 8, 2 * VMDK_GRAIN_MAX / VMDK_SECTOR},
    {"power of two", -EBADMSG, 20, 8, UINT64_C(1) << 63},
    {"entries", -EBADMSG, 44, 4, 0},
    {"entries", -EBADMSG, 44, 4, 4097},
    {"entries", -EBADMSG, 44, 4, UINT32_MAX},                        /* a table of 16 GiB */
    {"grain directory outside", -EBADMSG, 12, 8, UINT64_C(1) << 41}, /* one of 128 MiB */
    {"more than 33554432 entries", -EBADMSG, 12, 8, (UINT64_C(1) << 41) + 1},
    {"more than 33554432 entries", -EBADMSG, 12, 8, UINT64_C(1) << 43},
    {"no footer", -EBADMSG, 56, 8, UINT64_MAX},
    {"descriptor outside", -EBADMSG, 28, 8, 1 << 20},
    {"descriptor outside", -EBADMSG, 28, 8, UINT64_MAX},
    {"descriptor outside", -EBADMSG, 36, 8, VMDK_DESCRIPTOR_MAX / VMDK_SECTOR},
    {"descriptor of too many", -EBADMSG, 36, 8, VMDK_DESCRIPTOR_MAX / VMDK_SECTOR + 1},
    {"descriptor of too many", -EBADMSG, 36, 8, UINT64_MAX},
};

static void co_damaged_headers(struct fixture *f)
{
        static const uint64_t places[] = {0, 1 << 20, UINT64_MAX - 1}; /* of the only directory */

        for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
                le64 v = le64_make(damages[i].value);

                hand_make(f->fd, HAND_TEXT);
                put_at(f->fd, &v, damages[i].bytes, damages[i].at);
                co_refused(f->fd, NULL, damages[i].code, damages[i].words);
        }
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                le64 v = le64_make(places[i]);

                hand_make(f->fd, HAND_TEXT);
                put32(f->fd, VMDK_FLAG_NEWLINES | VMDK_FLAG_ZERO_GRAINS, 8);
                put_at(f->fd, &v, sizeof(v), 56);
                co_refused(f->fd, NULL, -EBADMSG, "grain directory outside");
        }
        hand_make(f->fd, HAND_TEXT); /* another way to compress */
        put32(f->fd, VMDK_FLAG_COMPRESSED, 8);
        co_refused(f->fd, NULL, -ENOTSUP, "algorithm 0");
        assert_int_equal(ftruncate(f->fd, 511), 0);
        co_refused(f->fd, NULL, -EBADMSG, "shorter than a header");
}

static void each_damage_of_a_header_is_a_sentence(void **state)
{
        run(*state, co_damaged_headers);
}

static void count_finding(struct image_check *check, const char *sentence)
{
        assert_non_null(strstr(sentence, "'x.vmdk'"));
}

static uint64_t co_count_findings(struct image *image)
{
        struct image_check check = {.report = count_finding};

        assert_int_equal(image->driver->co_check(image, &check, NULL), 0);
        return check.n_errors;
}

/* A table or a grain outside of the file: what does not need it is read as before. */
static void co_damaged_tables(struct fixture *f)
{
        static uint8_t data[64 * KIB];
        struct image_extent extent;
        struct image *image;
        struct error e = ERROR_INIT;

        hand_make(f->fd, HAND_TEXT);
        put32(f->fd, 512, HAND_GT * 512 + 4);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_read(image, data, 4096, 64 * KIB, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "at offset 4612 has a grain outside"));
        assert_int_equal(image->driver->co_extent(image, 64 * KIB, &extent, &e), -EBADMSG);
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 192 * KIB, NULL), 0);
        assert_int_equal(data[5], 0xa3);
        assert_int_equal(co_count_findings(image), 2); /* and the copy is another one */
        image_close(image);

        hand_make(f->fd, HAND_TEXT); /* a grain that is cut off counts as far as it is there */
        assert_int_equal(ftruncate(f->fd, 256 * 512 + 5000), 0);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_read(image, data, 5000, 64 * KIB, NULL), 0);
        assert_int_equal(image->driver->co_read(image, data, 5001, 64 * KIB, &e), -EBADMSG);
        image_close(image);

        hand_make(f->fd, HAND_TEXT); /* two grains in one place */
        put32(f->fd, 128, HAND_GT * 512 + 4);
        put32(f->fd, 128, HAND_RGT * 512 + 4);
        image = co_opened(f->fd, NULL);
        assert_int_equal(co_count_findings(image), 1);
        image_close(image);

        hand_make(f->fd, HAND_TEXT); /* both directories */
        put32(f->fd, 1 << 20, HAND_GD * 512);
        put32(f->fd, UINT32_MAX, HAND_RGD * 512);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_read(image, data, 512, 0, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "grain table outside of the file, at sector 1048576"));
        image_close(image);
}

static void damaged_tables_are_found_where_they_are_used(void **state)
{
        run(*state, co_damaged_tables);
}

static void co_redundant(struct fixture *f)
{
        static const uint64_t places[] = {0, 1 << 20, UINT64_MAX - 1};
        struct image *image;

        hand_make(f->fd, HAND_TEXT);
        put32(f->fd, 1 << 20, HAND_GD * 512);
        image = co_opened(f->fd, NULL);
        co_compare_hand(image);
        image_close(image);

        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                le64 v = le64_make(places[i]);

                hand_make(f->fd, HAND_TEXT); /* the whole directory is nowhere */
                put_at(f->fd, &v, sizeof(v), 56);
                image = co_opened(f->fd, NULL);
                co_compare_hand(image);
                assert_true(image->info.dirty);
                assert_int_equal(co_count_findings(image), 1);
                image_close(image);
                v = le64_make(UINT64_C(1) << 40);
                put_at(f->fd, &v, sizeof(v), 48);
                co_refused(f->fd, NULL, -EBADMSG, "grain directory outside");
        }
}

static void a_redundant_directory_stands_in_for_a_damaged_one(void **state)
{
        run(*state, co_redundant);
}

/* As CVE-2014-0144 in QEMU's drivers: the largest directory that a header may ask for is read page by page,
 * and one that is larger is refused. */
static void co_largest_directory(struct fixture *f)
{
        le64 capacity = le64_make(VMDK_GDES_MAX * 65536), place = le64_make(1024);
        uint8_t byte = 1;
        struct image *image;

        hand_make(f->fd, "");
        put32(f->fd, VMDK_FLAG_NEWLINES, 8);
        put_at(f->fd, &capacity, sizeof(capacity), 12);
        put_at(f->fd, &place, sizeof(place), 56);
        assert_int_equal(ftruncate(f->fd, 1024 * 512 + (off_t)VMDK_GDES_MAX * 4), 0);
        put32(f->fd, HAND_GT, 1024 * 512 + VMDK_GDES_MAX * 4 - 4);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 0, NULL), 0);
        assert_int_equal(byte, 0);
        assert_int_equal(image->driver->co_read(image, &byte, 1,
                                                (VMDK_GDES_MAX - 1) * 65536 * 512 + 64 * KIB, NULL),
                         0);
        assert_int_equal(byte, 0xa1);
        image_close(image);
        assert_int_equal(ftruncate(f->fd, 1024 * 512 + (off_t)VMDK_GDES_MAX * 4 - 1), 0);
        co_refused(f->fd, NULL, -EBADMSG, "grain directory outside");
}

static void the_largest_directory_takes_no_memory(void **state)
{
        run(*state, co_largest_directory);
}

/* A directory of @n entries that all lead to one table, without a grain and as long as one may be. */
#define SHARED_TABLE_BYTES (VMDK_GTES_MAX * 4)
static void make_shared_table(int fd, uint64_t n)
{
        le64 capacity = le64_make(n * VMDK_GTES_MAX * 128), place = le64_make(128);

        hand_make(fd, "");
        put32(fd, VMDK_FLAG_NEWLINES, 8);
        put32(fd, VMDK_GTES_MAX, 44);
        put_at(fd, &capacity, sizeof(capacity), 12);
        put_at(fd, &place, sizeof(place), 56);
        for (uint64_t i = 0; i < n; i++)
                put32(fd, 64, 128 * 512 + i * 4);
}

static void co_check_cancelled(struct fixture *f)
{
        const uint64_t n = 3 * IMAGE_CHECK_STEP / VMDK_GTES_MAX;
        struct image *image;

        make_shared_table(f->fd, n);
        assert_int_equal(ftruncate(f->fd, (off_t)(n * SHARED_TABLE_BYTES)), 0);
        image = co_opened(f->fd, NULL);
        co_expect_cancelled(image);
        image_close(image);
}

static void a_check_can_be_cancelled(void **state)
{
        run(*state, co_check_cancelled);
}

/* The largest directory would have a check look up 2^37 entries of a table of 16 KiB. */
static void co_check_shared_table(struct fixture *f)
{
        struct image_check check = {.report = count_finding};
        struct error e = ERROR_INIT;
        struct image *image;

        make_shared_table(f->fd, 100);
        assert_int_equal(ftruncate(f->fd, (off_t)(100 * SHARED_TABLE_BYTES)), 0);
        image = co_opened(f->fd, NULL);
        assert_int_equal(co_count_findings(image), 0);
        image_close(image);
        assert_int_equal(ftruncate(f->fd, (off_t)(100 * SHARED_TABLE_BYTES - 1)), 0);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_check(image, &check, &e), -EBADMSG);
        assert_string_equal(e.message,
                            "the grain tables of 'x.vmdk' are together longer than the file");
        image_close(image);
}

static void tables_longer_than_the_file_are_not_followed(void **state)
{
        run(*state, co_check_shared_table);
}

static void co_largest_units(struct fixture *f)
{
        le64 grain = le64_make(VMDK_GRAIN_MAX / VMDK_SECTOR);
        struct image *image;

        hand_make(f->fd, HAND_TEXT);
        put_at(f->fd, &grain, sizeof(grain), 20);
        put32(f->fd, VMDK_GTES_MAX, 44);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->info.cluster_bytes, VMDK_GRAIN_MAX);
        image_close(image);
}

static void the_largest_grains_and_tables_are_read(void **state)
{
        run(*state, co_largest_units);
}

static void co_zero_entries(struct fixture *f)
{
        uint8_t byte;
        struct image *image;

        /* Without the flag, 1 is a sector like others, and this grain the file's beginning. */
        hand_make(f->fd, HAND_TEXT);
        put32(f->fd, VMDK_FLAG_NEWLINES, 8);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 128 * KIB, NULL), 0);
        assert_int_equal(byte, '#');
        image_close(image);
}

static void an_entry_of_1_is_zeroes_only_where_a_flag_says_so(void **state)
{
        run(*state, co_zero_entries);
}

/* ---- descriptors ---- */

static int parse(const char *text, struct vmdk_descriptor *d, struct error *e)
{
        *d = (struct vmdk_descriptor){0};
        *e = ERROR_INIT;
        return vmdk_descriptor_parse(d, text, strlen(text), "x", 0, e);
}

static void descriptors_are_read_however_they_are_spaced(void **state)
{
        static const char text[] = "\r\n \t# disk  descriptorFILE\r\n"
                                   "VERSION = 1\r\n"
                                   "encoding=\"windows-1252\"\r\n"
                                   "  cid\t=  DeadBeef \r\n"
                                   "ParentCID=FFFFFFFF\r\n"
                                   "isNativeSnapshot=\"no\"\r\n"
                                   "CREATETYPE = custom \r\n"
                                   "something that nobody knows\r\n"
                                   " rw   100\tFlat  \"a b=c#.vmdk\"   7 \r\n"
                                   "RDONLY 8 zero\r\n"
                                   "RW 1 SPARSE \"s.vmdk\" some-uuid /dev/x\r\n"
                                   "RW 5 VMFS \"f.vmdk\"\r\n"
                                   "ddb.uuid = \"60 00\r\n"
                                   "createType2=\"other\"";
        struct vmdk_descriptor d;
        struct error e;

        assert_true(vmdk_descriptor_probe(text, sizeof(text) - 1));
        assert_false(vmdk_descriptor_probe("# Disk DescriptorFil", 20));
        assert_false(vmdk_descriptor_probe("#!/bin/sh\n# Disk DescriptorFile", 31));
        assert_int_equal(parse(text, &d, &e), 0);
        assert_int_equal(d.cid, 0xdeadbeef);
        assert_int_equal(d.parent_cid, VMDK_NO_PARENT);
        assert_string_equal(d.create_type, "custom");
        assert_int_equal(d.n_extents, 4);
        assert_string_equal(d.extents[0].name, "a b=c#.vmdk");
        assert_int_equal(d.extents[0].kind, VMDK_FLAT);
        assert_int_equal(d.extents[0].sectors, 100);
        assert_int_equal(d.extents[0].offset_sector, 7);
        assert_int_equal(d.extents[1].kind, VMDK_ZERO_EXTENT);
        assert_null(d.extents[1].name);
        assert_string_equal(d.extents[2].name, "s.vmdk");
        assert_int_equal(d.extents[3].kind, VMDK_FLAT);
        vmdk_descriptor_clear(&d);
}

static void damaged_descriptors_are_refused_by_their_line(void **state)
{
        static const struct {
                const char *text, *words;
                int code;
        } bad[] = {
            {"CID=1\nCID=123456789", "line at offset 6 has no content id", -EBADMSG},
            {"CID=12x", "content id", -EBADMSG},
            {"CID=", "content id", -EBADMSG},
            {"CID=1P", "content id", -EBADMSG},
            {"version=9", "version 9", -ENOTSUP},
            {"createType=\"a", "quote", -EBADMSG},
            {"RW SPARSE \"a\"", "number", -EBADMSG},
            {"RW 99999999999999 FLAT \"a\"", "too large", -EBADMSG},
            {"RW 18446744073709551617 FLAT \"a\"", "too large", -EBADMSG},
            {"RW 12x FLAT \"a\"", "number", -EBADMSG},
            {"RW 1 FLAT a", "quotes", -EBADMSG},
            {"RW 1 FLAT \"a", "quote", -EBADMSG},
            {"RW 1 FLAT \"\"", "empty", -EBADMSG},
            {"RW 1 FLAT \"a\" x", "number", -EBADMSG},
            {"RW 1 ROUND \"a\"", "unknown kind", -EBADMSG},
            {"RW 1 SESPARSE \"a\"", "SESPARSE", -ENOTSUP},
            {"RW 1 VMFSRDM \"a\"", "VMFSRDM", -ENOTSUP},
            {"NOACCESS 1 FLAT \"a\"", "NOACCESS", -ENOTSUP},
        };
        struct vmdk_descriptor d;
        struct error e;
        char *long_line = malloc(4098);

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                int r = parse(bad[i].text, &d, &e);

                if (r != bad[i].code || !strstr(e.message, bad[i].words))
                        fail_msg("%s: %d, %s", bad[i].text, r, e.message);
                vmdk_descriptor_clear(&d);
        }
        memset(long_line, 'x', 4097);
        long_line[4097] = 0;
        assert_int_equal(parse(long_line, &d, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "longer than 4096 bytes"));
        long_line[4096] = 0;
        assert_int_equal(parse(long_line, &d, &e), 0);
        free(long_line);
}

static void too_many_extents_are_refused(void **state)
{
        size_t n = VMDK_EXTENTS_MAX + 1;
        char *text = calloc(n, 16);
        struct vmdk_descriptor d;
        struct error e;

        for (size_t i = 0; i < n; i++)
                strcpy(text + strlen("RW 1 ZERO\n") * i, "RW 1 ZERO\n");
        assert_int_equal(parse(text, &d, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "more than 4096 extents"));
        vmdk_descriptor_clear(&d);
        text[strlen("RW 1 ZERO\n") * VMDK_EXTENTS_MAX] = 0;
        assert_int_equal(parse(text, &d, &e), 0);
        vmdk_descriptor_clear(&d);
        free(text);
}

/* ---- several files ---- */

static void write_text(int fd, const char *text)
{
        assert_int_equal(ftruncate(fd, 0), 0);
        put_at(fd, text, strlen(text), 0);
}

/* COWD: one grain of data, the third of 16 of 4 KiB. */
static void cowd_make(int fd)
{
        static const struct vmdk_cowd_disk h = {.magic = {"COWD"},
                                                .version = {{1}},
                                                .flags = {{3}},
                                                .capacity = {{128}},
                                                .grain_size = {{8}},
                                                .gd_offset = {{4}},
                                                .n_gdes = {{1}}};
        uint8_t grain[4096];

        memset(grain, 0xc0, sizeof(grain));
        assert_int_equal(ftruncate(fd, 64 * KIB), 0);
        put_at(fd, &h, sizeof(h), 0);
        put32(fd, 5, 4 * 512);
        put32(fd, 40, 5 * 512 + 8);
        put_at(fd, grain, sizeof(grain), 40 * 512);
}

static void co_read_several(struct fixture *f)
{
        static const char text[] = "# Disk DescriptorFile\nCID=1\ncreateType=\"custom\"\n"
                                   "RW 16 FLAT \"flat\" 8\nRW 1024 SPARSE \"hand\"\n"
                                   "RW 8 ZERO\nRW 0 FLAT \"nothing\"\nRW 128 VMFSSPARSE \"cowd\"\n";
        static uint8_t data[16 * 512 + HAND_BYTES + 8 * 512 + 64 * KIB];
        struct named_files n;
        struct image_options options = {.opener = &n.opener};
        struct image_check check = {0};
        struct image_extent extent;
        struct image *image;
        uint64_t at = 0;

        named_init(&n);
        assert_int_equal(ftruncate(named_add(&n, "flat"), 24 * 512), 0);
        put_at(named_find(&n, "flat"), "flat", 4, 8 * 512);
        hand_make(named_add(&n, "hand"), "");
        cowd_make(named_add(&n, "cowd"));
        write_text(f->fd, text);
        image = co_opened(f->fd, &options);
        assert_int_equal(image->virtual_bytes, sizeof(data));
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 0, NULL), 0);
        assert_memory_equal(data, "flat", 5);
        for (uint64_t k = 0; k < HAND_BYTES; k++)
                assert_int_equal(data[16 * 512 + k], hand_byte(k));
        for (uint64_t k = 0; k < 68 * KIB; k++)
                assert_int_equal(data[16 * 512 + HAND_BYTES + k], k / 4096 == 3 ? 0xc0 : 0);
        while (at < image->virtual_bytes) {
                assert_int_equal(image->driver->co_extent(image, at, &extent, NULL), 0);
                assert_true(extent.length > 0 && extent.length <= image->virtual_bytes - at);
                assert_true(!extent.zero || image_is_zero(data + at, extent.length));
                assert_int_equal(extent.depth, 0);
                at += extent.length;
        }
        assert_int_equal(co_count_findings(image), 0);
        image_close(image);

        co_refused(f->fd, NULL, -EPERM, "needs another file, 'flat'"); /* nobody may open it */
        image = co_opened(f->fd, &(struct image_options){.alone = true});
        assert_int_equal(image->virtual_bytes, sizeof(data));
        assert_int_equal(image->driver->co_read(image, data, 1, 0, NULL), -EPERM);
        assert_int_equal(image->driver->co_check(image, &check, NULL), -EPERM);
        image_close(image);
        /* A check has an opener for them. */
        options.alone = true;
        put32(named_find(&n, "cowd"), 1 << 20, 5 * 512 + 8);
        image = co_opened(f->fd, &options);
        assert_int_equal(image->driver->co_check(image, &check, NULL), 0);
        assert_int_equal(check.n_errors, 1);
        image_close(image);
        options.alone = false;
        assert_int_equal(ftruncate(named_find(&n, "flat"), 24 * 512 - 1), 0);
        co_refused(f->fd, &options, -EBADMSG, "'flat' is shorter than 'x.vmdk' says");
        write_text(f->fd, "# Disk DescriptorFile\nCID=1\nRW 1025 SPARSE \"hand\"\n");
        co_refused(f->fd, &options, -EBADMSG, "'hand' holds 1024 sectors");
        write_text(f->fd, "# Disk DescriptorFile\nCID=1\nRW 10 FLAT \"/etc/passwd\"\n");
        co_refused(f->fd, &options, -ENOENT, "'/etc/passwd'");
        write_text(f->fd, "# Disk DescriptorFile\nCID=1\n");
        co_refused(f->fd, &options, -EBADMSG, "without extents");
        named_close(&n);
}

static void several_files_are_one_disk(void **state)
{
        run(*state, co_read_several);
}

static void co_total(struct fixture *f)
{
        char text[1200] = "# Disk DescriptorFile\nCID=1\n";

        for (unsigned i = 0; i < 3; i++)
                strcat(text, "RW 4398046511104 ZERO\n"); /* 2 PiB each */
        write_text(f->fd, text);
        co_refused(f->fd, NULL, -EFBIG, "larger than 4 PiB");
        write_text(f->fd, "# Disk DescriptorFile\nCID=1\nRW 8 ZERO\n");
        assert_int_equal(ftruncate(f->fd, VMDK_DESCRIPTOR_MAX + 1), 0);
        co_refused(f->fd, NULL, -EBADMSG, "more than 1 MiB");
        assert_int_equal(ftruncate(f->fd, VMDK_DESCRIPTOR_MAX), 0);
        image_close(co_opened(f->fd, NULL));
}

static void extents_that_are_too_much_together_are_refused(void **state)
{
        run(*state, co_total);
}

static void co_cowd(struct fixture *f)
{
        struct image *image;
        uint8_t byte;

        cowd_make(f->fd);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->virtual_bytes, 64 * KIB);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 8192, NULL), 0);
        assert_int_equal(byte, 0xc0);
        image_close(image);
        put32(f->fd, 0, 24);
        co_refused(f->fd, NULL, -EBADMSG, "too few entries");
        put32(f->fd, 2, 4);
        co_refused(f->fd, NULL, -ENOTSUP, "COWD of version 2");
}

static void a_cowd_file_is_read(void **state)
{
        run(*state, co_cowd);
}

/* As ESX makes a snapshot's: header and directory. A grain table would be longer than all of it. */
static void co_fresh_cowd(struct fixture *f)
{
        uint8_t data[4 * KIB];
        struct image_extent e;
        struct image *image;

        cowd_make(f->fd);
        put32(f->fd, 0, 4 * 512);
        assert_int_equal(ftruncate(f->fd, 5 * 512), 0);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_extent(image, 0, &e, NULL), 0);
        assert_true(e.zero && !e.present && e.length == 64 * KIB);
        memset(data, 0x55, sizeof(data));
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 0, NULL), 0);
        assert_true(image_is_zero(data, sizeof(data)));
        assert_int_equal(co_count_findings(image), 0);
        image_close(image);
        /* With two directories that both have none. */
        hand_make(f->fd, HAND_TEXT);
        put32(f->fd, VMDK_GTES_MAX, 44);
        put32(f->fd, 0, HAND_RGD * 512);
        put32(f->fd, 0, HAND_GD * 512);
        assert_int_equal(ftruncate(f->fd, (HAND_GD + 1) * 512), 0);
        image = co_opened(f->fd, NULL);
        assert_int_equal(co_count_findings(image), 0);
        image_close(image);
}

static void a_file_may_be_shorter_than_the_tables_it_has_not(void **state)
{
        run(*state, co_fresh_cowd);
}

/* ---- parents ---- */

#define CHILD_TEXT(cid)                                                                            \
        "# Disk DescriptorFile\nCID=7\nparentCID=" cid "\nparentFileNameHint=\"p.vmdk\"\n"         \
        "RW 1024 SPARSE \"x.vmdk\"\n"

#define WINDOWS_TEXT(name)                                                                         \
        "# Disk DescriptorFile\nCID=7\nparentCID=12345678\nparentFileNameHint=\"" name "\"\n"

static void co_read_child(struct fixture *f)
{
        static const char *const windows[] = {WINDOWS_TEXT("C:\\my machines\\p.vmdk"),
                                              WINDOWS_TEXT("\\\\server\\share\\p.vmdk"),
                                              WINDOWS_TEXT("C:\\p.vmdk")};
        struct named_files n;
        struct image_options options = {.opener = &n.opener};
        struct image_extent e;
        struct image *image;
        uint8_t byte;

        named_init(&n);
        hand_make(named_add(&n, "p.vmdk"), HAND_TEXT);
        hand_make(f->fd, CHILD_TEXT("12345678"));
        put32(f->fd, 0, HAND_GT * 512 + 4); /* the second grain is the parent's, the fourth not */
        put_at(f->fd, "child", 5, 128 * 512);
        image = co_opened(f->fd, &options);
        assert_string_equal(image->info.backing, "p.vmdk");
        assert_int_equal(image->driver->co_read(image, &byte, 1, 64 * KIB, NULL), 0);
        assert_int_equal(byte, 0xa1);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 192 * KIB, NULL), 0);
        assert_int_equal(byte, 'c');
        assert_int_equal(image->driver->co_extent(image, 64 * KIB, &e, NULL), 0);
        assert_true(e.depth == 1 && e.present && e.length == 64 * KIB);
        assert_int_equal(e.file_offset, 256 * 512);
        assert_int_equal(image->driver->co_extent(image, 192 * KIB, &e, NULL), 0);
        assert_true(e.depth == 0 && e.present);
        image_close(image);

        for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
                hand_make(f->fd, windows[i]);
                put32(f->fd, 0, HAND_GT * 512 + 4);
                image = co_opened(f->fd, &options);
                assert_int_equal(image->driver->co_read(image, &byte, 1, 64 * KIB, NULL), 0);
                assert_int_equal(byte, 0xa1);
                image_close(image);
        }
        image = co_opened(f->fd, &(struct image_options){.alone = true});
        assert_int_equal(image->driver->co_extent(image, 64 * KIB, &e, NULL), 0);
        assert_true(!e.present && e.zero);
        image_close(image);
        co_refused(f->fd, NULL, -EPERM, "needs another file, 'p.vmdk'");
        hand_make(f->fd, CHILD_TEXT("87654321"));
        co_refused(f->fd, &options, -EBADMSG, "was changed after");
        hand_make(f->fd, "# Disk DescriptorFile\nCID=1\nparentCID=2\n");
        co_refused(f->fd, &options, -EBADMSG, "does not name it");
        assert_int_equal(dup2(f->fd, named_find(&n, "p.vmdk")), named_find(&n, "p.vmdk"));
        hand_make(f->fd, CHILD_TEXT("00000007")); /* is its own parent */
        co_refused(f->fd, &options, -ELOOP, "needs itself");
        named_close(&n);
}

static void a_child_is_read_over_its_parent(void **state)
{
        run(*state, co_read_child);
}

/* Each file's parent is one more like it; the last one has none. */
struct chain {
        struct image_opener opener;
        unsigned left;
};

static int open_next(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct chain *chain = (struct chain *)opener;

        *ret_fd = memfd_create(name, MFD_CLOEXEC);
        *ret_path = strdup(name);
        if (--chain->left > 0) {
                hand_make(*ret_fd, CHILD_TEXT("00000007"));
                put32(*ret_fd, 0, HAND_GT * 512 + 4);
        } else {
                hand_make(*ret_fd, "# Disk DescriptorFile\nCID=7\nRW 1024 SPARSE \"x.vmdk\"\n");
        }
        return 0;
}

static void co_chain(struct fixture *f)
{
        struct chain chain = {.opener.open = open_next, .left = IMAGE_DEPTH_MAX};
        const struct image_options options = {.opener = &chain.opener};
        struct image_extent extent;
        struct image *image;
        uint8_t byte = 0;

        hand_make(f->fd, CHILD_TEXT("00000007"));
        put32(f->fd, 0, HAND_GT * 512 + 4); /* the second grain is the last parent's */
        image = co_opened(f->fd, &options);
        assert_int_equal(image->driver->co_read(image, &byte, 1, 64 * KIB, NULL), 0);
        assert_int_equal(byte, 0xa1);
        assert_int_equal(image->driver->co_extent(image, 64 * KIB, &extent, NULL), 0);
        assert_int_equal(extent.depth, IMAGE_DEPTH_MAX);
        image_close(image);
        chain.left = IMAGE_DEPTH_MAX + 1;
        co_refused(f->fd, &options, -ELOOP,
                   "the chain of backing files of 'p.vmdk' is longer than 64");
}

static void a_chain_is_as_long_as_it_may_be(void **state)
{
        run(*state, co_chain);
}

#define vmdk_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vmdk_test(a_sparse_file_is_read_with_its_extents),
            vmdk_test(each_damage_of_a_header_is_a_sentence),
            vmdk_test(damaged_tables_are_found_where_they_are_used),
            vmdk_test(a_redundant_directory_stands_in_for_a_damaged_one),
            vmdk_test(the_largest_grains_and_tables_are_read),
            vmdk_test(the_largest_directory_takes_no_memory),
            vmdk_test(a_check_can_be_cancelled),
            vmdk_test(tables_longer_than_the_file_are_not_followed),
            vmdk_test(an_entry_of_1_is_zeroes_only_where_a_flag_says_so),
            cmocka_unit_test(descriptors_are_read_however_they_are_spaced),
            cmocka_unit_test(damaged_descriptors_are_refused_by_their_line),
            cmocka_unit_test(too_many_extents_are_refused),
            vmdk_test(several_files_are_one_disk),
            vmdk_test(extents_that_are_too_much_together_are_refused),
            vmdk_test(a_cowd_file_is_read),
            vmdk_test(a_file_may_be_shorter_than_the_tables_it_has_not),
            vmdk_test(a_child_is_read_over_its_parent),
            vmdk_test(a_chain_is_as_long_as_it_may_be),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
