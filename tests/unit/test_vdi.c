/* test_vdi.c - VDI images: made by hand as VirtualBox makes them and as nobody should, read; and written. */
#include <sys/stat.h>
#include "formats/vdi_format.h"
#include "tests/unit/image_files.h"

#define MAP_AT  512u
#define DATA_AT 4096u
#define BLOCK   4096u

static void name_uuid(uint8_t *uuid, uint8_t n)
{
        memset(uuid, 0, 16);
        uuid[0] = n;
}

/* How such a UUID is asked for: of the first field the lowest byte comes first. */
static void uuid_name(char *name, uint8_t n)
{
        sprintf(name, "000000%02x-0000-0000-0000-000000000000", n);
}

static struct vdi_header_disk header_of(uint32_t type, uint32_t n_blocks)
{
        struct vdi_header_disk d = {0};

        strcpy(d.pre.text, "<<< Oracle VM VirtualBox Disk Image >>>\n");
        d.pre.signature = le32_make(VDI_SIGNATURE);
        d.pre.major = le16_make(1);
        d.pre.minor = le16_make(1);
        d.header_bytes = le32_make(400);
        d.type = le32_make(type);
        d.map_offset = le32_make(MAP_AT);
        d.data_offset = le32_make(DATA_AT);
        d.pchs.sector_bytes = d.lchs.sector_bytes = le32_make(512);
        d.disk_bytes = le64_make((uint64_t)n_blocks * BLOCK);
        d.block_bytes = le32_make(BLOCK);
        d.n_blocks = le32_make(n_blocks);
        name_uuid(d.uuid, 1);
        name_uuid(d.modified_uuid, 101);
        return d;
}

/* @map has as many entries as the header says. */
static void put_image(int fd, const struct vdi_header_disk *d, const uint32_t *map)
{
        uint32_t n = le32_get(d->n_blocks);

        assert_int_equal(ftruncate(fd, 0), 0);
        put_at(fd, d, sizeof(*d), 0);
        for (uint32_t i = 0; i < n; i++) {
                le32 entry = le32_make(map[i]);

                put_at(fd, &entry, 4, MAP_AT + i * 4);
        }
}

/* ---- reading ---- */

static void co_dynamic(struct fixture *f)
{
        static const uint32_t map[] = {1, 2, VDI_BLOCK_ZERO, VDI_BLOCK_FREE, VDI_BLOCK_FREE, 0, 3};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 7);
        struct image_extent extent;
        struct image *image;

        d.n_allocated = le32_make(4);
        put_image(f->fd, &d, map);
        put_pattern(f->fd, 100, BLOCK, DATA_AT);
        put_pattern(f->fd, 1, 3 * BLOCK, DATA_AT + BLOCK);
        image = co_opened(f->fd, NULL);
        assert_string_equal(image->driver->name, "vdi");
        assert_int_equal(image->virtual_bytes, 7 * BLOCK);
        assert_int_equal(image->info.cluster_bytes, BLOCK);
        assert_string_equal(image->info.version, "1.1");
        assert_string_equal(image->info.variant, "dynamic");
        co_expect_pattern(image, 0, 2 * BLOCK, 1);
        co_expect_bytes(image, 2 * BLOCK, 3 * BLOCK, 0);
        co_expect_pattern(image, 5 * BLOCK, BLOCK, 100);
        co_expect_pattern(image, 6 * BLOCK, BLOCK, 17);

        extent = co_extent_at(image, 1000); /* both blocks, as they follow each other */
        assert_int_equal(extent.length, 2 * BLOCK - 1000);
        assert_true(extent.has_offset && extent.present && !extent.zero);
        assert_int_equal(extent.file_offset, DATA_AT + BLOCK + 1000);
        extent = co_extent_at(image, 2 * BLOCK); /* zero or free is the same without a parent */
        assert_int_equal(extent.length, 3 * BLOCK);
        assert_true(extent.zero && extent.present && !extent.has_offset);
        extent = co_extent_at(image, 5 * BLOCK + 1); /* the next block lies elsewhere */
        assert_int_equal(extent.length, BLOCK - 1);
        image_close(image);
}

static void blocks_are_found_by_the_map(void **state)
{
        run(*state, co_dynamic);
}

static void co_extra(struct fixture *f)
{
        static const uint32_t map[] = {0, 1};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 2);
        struct image *image;

        d.extra_bytes = le32_make(1024);
        put_image(f->fd, &d, map);
        put_pattern(f->fd, 200, 1024, DATA_AT);
        put_pattern(f->fd, 1, BLOCK, DATA_AT + 1024);
        put_pattern(f->fd, 200, 1024, DATA_AT + 1024 + BLOCK);
        put_pattern(f->fd, 9, BLOCK, DATA_AT + 2 * 1024 + BLOCK);
        image = co_opened(f->fd, NULL);
        co_expect_pattern(image, 0, 2 * BLOCK, 1);
        assert_int_equal(co_extent_at(image, 0).length, BLOCK);
        assert_int_equal(co_extent_at(image, BLOCK).file_offset, DATA_AT + 2 * 1024 + BLOCK);
        image_close(image);
}

static void data_beside_blocks_is_left_out(void **state)
{
        run(*state, co_extra);
}

static void co_sizes(struct fixture *f)
{
        static const uint32_t map[] = {1, 0, VDI_BLOCK_FREE, 2};
        struct image *image;

        for (uint32_t block = 512; block <= 64 * MIB; block *= 4) {
                struct vdi_header_disk d = header_of(VDI_DYNAMIC, 4);

                d.block_bytes = le32_make(block);
                /* No whole sectors, and not all of the last block, which is not whole either. */
                d.disk_bytes = le64_make(3ull * block + 3);
                put_image(f->fd, &d, map);
                put_pattern(f->fd, 7, 512, DATA_AT);
                put_pattern(f->fd, 3, 512, DATA_AT + block);
                put_pattern(f->fd, 5, 512, DATA_AT + 2ull * block);
                image = co_opened(f->fd, NULL);
                assert_int_equal(image->virtual_bytes, 3ull * block + 512);
                co_expect_pattern(image, 0, 512, 3);
                co_expect_pattern(image, block, 512, 7);
                co_expect_bytes(image, 2ull * block, 512, 0);
                co_expect_pattern(image, 3ull * block, 512, 5);
                image_close(image);
        }
}

static void blocks_may_have_any_power_of_two(void **state)
{
        run(*state, co_sizes);
}

static void co_version_0(struct fixture *f)
{
        struct vdi_header0_disk d = {.type = le32_make(VDI_DYNAMIC)};
        le32 map[] = {le32_make(VDI_BLOCK_FREE), le32_make(0)};
        struct image *image;

        d.pre.signature = le32_make(VDI_SIGNATURE);
        d.pre.minor = le16_make(2);
        d.disk_bytes = le64_make(2 * BLOCK);
        d.block_bytes = le32_make(BLOCK);
        d.n_blocks = le32_make(2);
        d.n_allocated = le32_make(1);
        put_at(f->fd, &d, sizeof(d), 0);
        put_at(f->fd, map, sizeof(map), 420);
        put_pattern(f->fd, 1, BLOCK, 428);
        image = co_opened(f->fd, NULL);
        assert_string_equal(image->info.version, "0.2");
        co_expect_bytes(image, 0, BLOCK, 0);
        co_expect_pattern(image, BLOCK, BLOCK, 1);
        image_close(image);
}

static void the_header_of_before_1_0_is_read(void **state)
{
        run(*state, co_version_0);
}

static void co_static(struct fixture *f)
{
        static const uint32_t map[] = {0, 1, 2, 3};
        struct vdi_header_disk d = header_of(VDI_STATIC, 4);
        struct image *image;

        put_image(f->fd, &d, map);
        put_pattern(f->fd, 1, BLOCK, DATA_AT + 2 * BLOCK);
        assert_int_equal(ftruncate(f->fd, DATA_AT + 4 * BLOCK), 0);
        image = co_opened(f->fd, NULL);
        assert_string_equal(image->info.variant, "static");
        if (!image->no_seek_data) {
                struct image_extent extent = co_extent_at(image, 0);

                assert_true(extent.zero && extent.present);
                assert_int_equal(extent.length, 2 * BLOCK);
                extent = co_extent_at(image, 2 * BLOCK);
                assert_false(extent.zero);
                assert_int_equal(extent.length, BLOCK);
                assert_int_equal(extent.file_offset, DATA_AT + 2 * BLOCK);
        }
        co_expect_bytes(image, 0, 2 * BLOCK, 0);
        co_expect_pattern(image, 2 * BLOCK, BLOCK, 1);
        image_close(image);
}

static void holes_of_a_static_image_are_seen(void **state)
{
        run(*state, co_static);
}

/* More pages of the map than are kept, by coroutines that drive each other's out. */
#define MANY_BLOCKS (uint32_t)(70 * 16384)
#define READERS     8

struct reader {
        struct image *image;
        unsigned number, *n_left;
};

static void co_read_some(void *arg)
{
        struct reader *r = arg;

        for (unsigned i = 0; i < 200; i++) {
                uint64_t index = (r->number + i * (i % 2 ? 64 * 16384ull : 1)) % MANY_BLOCKS;

                co_expect_bytes(r->image, index * 512, 512, index % 64 == 5 ? 0x77 : 0);
        }
        --*r->n_left;
}

static void co_many(struct fixture *f)
{
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 0);
        uint32_t *map = malloc(MANY_BLOCKS * 4ull);
        struct reader readers[READERS];
        unsigned n_left = READERS;
        uint8_t block[512];
        struct image *image;

        memset(block, 0x77, sizeof(block));
        d.block_bytes = le32_make(512);
        d.n_blocks = le32_make(MANY_BLOCKS);
        d.disk_bytes = le64_make(MANY_BLOCKS * 512ull);
        d.data_offset = le32_make(512 + MANY_BLOCKS * 4);
        for (uint32_t i = 0; i < MANY_BLOCKS; i++)
                map[i] = i % 64 == 5 ? 0 : VDI_BLOCK_FREE;
        put_at(f->fd, &d, sizeof(d), 0);
        put_at(f->fd, map, MANY_BLOCKS * 4ull, 512);
        put_at(f->fd, block, 512, 512 + MANY_BLOCKS * 4ull);
        free(map);
        image = co_opened(f->fd, NULL);
        for (unsigned i = 0; i < READERS; i++) {
                readers[i] = (struct reader){image, i, &n_left};
                assert_int_equal(co_spawn(f->loop, co_read_some, &readers[i]), 0);
        }
        while (n_left > 0)
                co_yield_loop();
        image_close(image);
}

static void coroutines_read_at_once_through_a_map_larger_than_what_is_kept(void **state)
{
        run(*state, co_many);
}

/* ---- damage ---- */

static void co_damage(struct fixture *f)
{
        static const struct {
                size_t at, size;
                uint64_t value;
                int code;
                const char *words;
        } damages[] = {
            {64, 4, 0, -EBADMSG, "no signature at offset 64"},
            {70, 2, 2, -ENOTSUP, "version 2.1"},
            {68, 2, 2, -ENOTSUP, "version 1.2"},
            {68, 4, 3, -ENOTSUP, "version 0.3"},
            {72, 4, 383, -EBADMSG, "header's length is too small (383) at offset 72"},
            {76, 4, 0, -EBADMSG, "type is unknown (0) at offset 76"},
            {76, 4, 3, -ENOTSUP, "undo"},
            {76, 4, 5, -EBADMSG, "type is unknown (5)"},
            {340, 4, 455, -EBADMSG, "block map lies in the header (455) at offset 340"},
            {340, 4, 0xffffffff, -EBADMSG, "within its block map"},
            {340, 4, DATA_AT, -EBADMSG, "data begins before the block map's end"},
            {344, 4, 0, -EBADMSG, "data begins before the block map's end (0) at offset 344"},
            {368, 8, 2 * BLOCK + 1, -EBADMSG, "number of blocks is too small"},
            {368, 8, UINT64_MAX, -EFBIG, "4 PiB"},
            {368, 8, IMAGE_SIZE_MAX + 1, -EFBIG, "4 PiB"},
            {376, 4, 0, -EBADMSG, "no power of two from 512 on (0) at offset 376"},
            {376, 4, 256, -EBADMSG, "no power of two"},
            {376, 4, BLOCK + 512, -EBADMSG, "no power of two"},
            {380, 4, 3, -EBADMSG, "(3) at offset 380"},
            {384, 4, 1, -EBADMSG, "number of blocks is too small for the disk's size (1)"},
            {384, 4, 0xffffffff, -EBADMSG, "within its block map"},
            {388, 4, 3, -EBADMSG, "number of allocated blocks"},
        };
        static const uint32_t map[] = {0, VDI_BLOCK_FREE};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 2);

        for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
                put_image(f->fd, &d, map);
                put_pattern(f->fd, 1, BLOCK, DATA_AT);
                put_at(f->fd, &damages[i].value, damages[i].size, damages[i].at);
                co_refused(f->fd, &(struct image_options){.format = "vdi"}, damages[i].code,
                           damages[i].words);
        }
        put_image(f->fd, &d, map);
        co_refused(f->fd, &(struct image_options){.snapshot = "s"}, -ENOTSUP, "no snapshots");
        assert_int_equal(ftruncate(f->fd, 300), 0);
        co_refused(f->fd, NULL, -EBADMSG, "within its VDI header");
}

static void each_damage_of_the_header_has_its_sentence(void **state)
{
        run(*state, co_damage);
}

/* As CVE-2014-0144 in QEMU's driver: tables that a header asks for and that the file has not got. 4 PiB of disk, and
 * 16 GiB of map, which a hole in the file is. */
static void co_huge_map(struct fixture *f)
{
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 0);
        struct findings findings = {0};
        struct error e = ERROR_INIT;
        struct image *image;

        d.n_blocks = le32_make(0xffffffff);
        d.block_bytes = le32_make(1 * MIB);
        d.disk_bytes = le64_make((UINT64_C(1) << 52) - MIB);
        put_at(f->fd, &d, sizeof(d), 0);
        co_refused(f->fd, NULL, -EBADMSG, "within its block map");
        d.data_offset = le32_make(0xfffffe00);
        d.n_blocks = le32_make(0x3fff0000);
        d.disk_bytes = le64_make(0x3fff0000ull * MIB);
        put_at(f->fd, &d, sizeof(d), 0);
        assert_int_equal(ftruncate(f->fd, INT64_C(1) << 43), 0);
        image = co_opened(f->fd, NULL); /* every block is block 0 */
        assert_int_equal(co_extent_at(image, image->virtual_bytes / 2).length, MIB);
        co_expect_bytes(image, image->virtual_bytes - 5, 5, 0);
        image_close(image);
        /* More blocks than can be checked are not checked. */
        d.block_bytes = le32_make(512);
        d.disk_bytes = le64_make(512);
        put_at(f->fd, &d, sizeof(d), 0);
        image = co_opened(f->fd, NULL);
        assert_int_equal(image->driver->co_check(image, &findings.check, &e), -EFBIG);
        assert_non_null(strstr(e.message, "'disk.img'"));
        image_close(image);
}

static void maps_larger_than_the_file_are_refused_and_large_ones_take_no_memory(void **state)
{
        run(*state, co_huge_map);
}

static void co_bad_entry(struct fixture *f)
{
        static const uint32_t map[] = {0, 1, 2, 0xfffffffd};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 4);
        struct error e = ERROR_INIT;
        struct image_extent extent;
        struct image *image;
        uint8_t bytes[512];

        put_image(f->fd, &d, map);
        put_pattern(f->fd, 1, 3 * BLOCK - 1, DATA_AT); /* the third one is cut off */
        image = co_opened(f->fd, NULL);
        co_expect_pattern(image, 0, 2 * BLOCK, 1);
        assert_int_equal(co_extent_at(image, 0).length, 2 * BLOCK);
        for (uint64_t i = 2; i < 4; i++) {
                char words[64];

                sprintf(words, "at offset %u places block %u", (unsigned)(MAP_AT + i * 4),
                        (unsigned)i);
                assert_int_equal(image->driver->co_read(image, bytes, 512, i * BLOCK, &e),
                                 -EBADMSG);
                assert_non_null(strstr(e.message, words));
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
        static const uint32_t map[] = {0, 2, 0, VDI_BLOCK_FREE, VDI_BLOCK_ZERO, 99};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 6);
        struct findings found;
        struct image *image;

        d.n_allocated = le32_make(2);
        put_image(f->fd, &d, map);
        put_pattern(f->fd, 1, 4 * BLOCK, DATA_AT);
        image = co_opened(f->fd, NULL);
        co_check(image, &found);
        assert_non_null(strstr(found.text, "block 2 lies at offset 4096, where another one lies"));
        assert_non_null(strstr(found.text, "block 5 lies at offset 409600, beyond"));
        assert_non_null(strstr(found.text, "offset 388"));
        assert_int_equal(found.check.n_errors, 3);
        assert_int_equal(found.check.n_leaks, 2);
        assert_int_equal(found.check.leaked_bytes, 2 * BLOCK);
        assert_int_equal(found.check.allocated_bytes, 2 * BLOCK);
        assert_int_equal(found.check.end_bytes, DATA_AT + 3 * BLOCK);
        image_close(image);
}

static void a_check_finds_overlaps_and_leaks(void **state)
{
        run(*state, co_check_findings);
}

/* A map of nothing but zeroes, which a hole in the file is. */
static void co_check_cancelled(struct fixture *f)
{
        const uint32_t n = 3 * IMAGE_CHECK_STEP;
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, n);
        struct image *image;

        d.data_offset = le32_make(MAP_AT + n * 4);
        put_at(f->fd, &d, sizeof(d), 0);
        assert_int_equal(ftruncate(f->fd, MAP_AT + n * 4 + BLOCK), 0);
        image = co_opened(f->fd, NULL);
        co_expect_cancelled(image);
        image_close(image);
}

static void a_check_can_be_cancelled(void **state)
{
        run(*state, co_check_cancelled);
}

/* ---- parents ---- */

static void put_child(int fd, uint8_t uuid, uint8_t parent, const uint32_t *map, uint32_t n)
{
        struct vdi_header_disk d = header_of(VDI_DIFFERENCING, n);

        name_uuid(d.uuid, uuid);
        name_uuid(d.modified_uuid, 100 + uuid);
        name_uuid(d.parent_uuid, parent);
        name_uuid(d.parent_modified_uuid, 100 + parent);
        put_image(fd, &d, map);
}

static void co_differencing(struct fixture *f)
{
        static const uint32_t base_map[] = {0, VDI_BLOCK_FREE, 1};
        static const uint32_t map[] = {VDI_BLOCK_FREE, VDI_BLOCK_FREE, VDI_BLOCK_ZERO, 0,
                                       VDI_BLOCK_FREE};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 3);
        struct image_extent extent;
        struct image *image;
        struct files files;
        char name[40];
        int base;

        files_init(&files);
        uuid_name(name, 1);
        base = files_add(&files, name);
        put_image(base, &d, base_map);
        put_pattern(base, 1, 2 * BLOCK, DATA_AT);
        put_child(f->fd, 2, 1, map, 5);
        put_pattern(f->fd, 50, BLOCK, DATA_AT);

        image = co_opened(f->fd, &(struct image_options){.opener = &files.opener});
        assert_string_equal(image->info.backing, name);
        assert_string_equal(image->info.variant, "differencing");
        co_expect_pattern(image, 0, BLOCK, 1);
        co_expect_bytes(image, BLOCK, 2 * BLOCK, 0); /* the parent has another third block */
        co_expect_pattern(image, 3 * BLOCK, BLOCK, 50);
        co_expect_bytes(image, 4 * BLOCK, BLOCK, 0); /* behind the parent's end */
        extent = co_extent_at(image, 0);
        assert_int_equal(extent.depth, 1);
        assert_int_equal(extent.length, BLOCK);
        assert_int_equal(extent.file_offset, DATA_AT);
        extent = co_extent_at(image, BLOCK);
        assert_true(extent.zero && extent.present && extent.depth == 1);
        extent = co_extent_at(image, 2 * BLOCK);
        assert_true(extent.zero && extent.present && extent.depth == 0);
        extent = co_extent_at(image, 4 * BLOCK);
        assert_true(extent.zero && !extent.present);
        image_close(image);

        /* Alone, it is opened without. */
        image = co_opened(f->fd, &(struct image_options){.alone = true});
        assert_string_equal(image->info.backing, name);
        assert_false(co_extent_at(image, 0).present);
        image_close(image);
        files_close(&files);
}

static void a_differencing_image_reads_its_parent(void **state)
{
        run(*state, co_differencing);
}

static void co_wrong_parents(struct fixture *f)
{
        static const uint32_t map[] = {VDI_BLOCK_FREE};
        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 1);
        struct image_options options = {0};
        struct image *image;
        struct files files;
        char name[40];
        int base;

        files_init(&files);
        put_child(f->fd, 2, 1, map, 1);
        co_refused(f->fd, NULL, -EPERM, "needs another file, '00000001-0000-");
        options.opener = &files.opener;
        co_refused(f->fd, &options, -ENOENT, "00000001-0000-");
        uuid_name(name, 1);
        base = files_add(&files, name);
        name_uuid(d.uuid, 3);
        put_image(base, &d, map);
        co_refused(f->fd, &options, -EBADMSG, "is not the parent of");
        name_uuid(d.uuid, 1);
        name_uuid(d.modified_uuid, 77);
        put_image(base, &d, map);
        co_refused(f->fd, &options, -EBADMSG, "was changed after");
        /* Another format, which says nothing of UUIDs, is taken; what may be anything is not. */
        assert_int_equal(ftruncate(base, 0), 0);
        put_pattern(base, 9, BLOCK, 0);
        co_refused(f->fd, &options, -ENOTSUP, "is of no known format");
        options.backing_format = "raw";
        image = co_opened(f->fd, &options);
        co_expect_pattern(image, 0, BLOCK, 9);
        image_close(image);
        files_close(&files);
}

static void a_parent_that_is_missing_or_another_is_refused(void **state)
{
        run(*state, co_wrong_parents);
}

static void co_chain(struct fixture *f)
{
        static const uint32_t none[] = {VDI_BLOCK_FREE}, here[] = {0};
        struct image_options options = {0};
        struct image *image;
        struct files files;
        char name[40];

        files_init(&files);
        options.opener = &files.opener;
        for (uint8_t i = 1; i <= IMAGE_DEPTH_MAX + 1; i++) {
                int fd;

                uuid_name(name, i);
                fd = files_add(&files, name);
                if (i == 1) {
                        struct vdi_header_disk d = header_of(VDI_DYNAMIC, 1);

                        put_image(fd, &d, here);
                        put_pattern(fd, 1, BLOCK, DATA_AT);
                } else {
                        put_child(fd, i, i - 1, none, 1);
                }
        }
        put_child(f->fd, 200, IMAGE_DEPTH_MAX, none, 1);
        image = co_opened(f->fd, &options);
        co_expect_pattern(image, 0, BLOCK, 1);
        assert_int_equal(co_extent_at(image, 0).depth, IMAGE_DEPTH_MAX);
        image_close(image);
        put_child(f->fd, 200, IMAGE_DEPTH_MAX + 1, none, 1);
        {
                struct error e = ERROR_INIT;

                assert_int_equal(co_open(f->fd, &options, &image, &e), -ELOOP);
                assert_non_null(strstr(e.message, "longer than 64"));
        }
        /* The second one's parent is the last one. */
        put_child(files.file[1].fd, 2, 5, none, 1);
        put_child(f->fd, 200, 5, none, 1);
        assert_int_equal(co_open(f->fd, &options, &image, NULL), -ELOOP);
        files_close(&files);
}

static void chains_are_bounded_and_cycles_refused(void **state)
{
        run(*state, co_chain);
}

/* ---- writing ---- */

static void co_write_each(struct fixture *f)
{
        static const char *const variants[] = {NULL, "dynamic", "static"};
        static const uint32_t sizes[] = {0, 512 * KIB, 2 * MIB};

        srandom(1);
        for (size_t v = 0; v < 3; v++)
                for (size_t s = 0; s < 3; s++)
                        for (unsigned i = 0; i < 4; i++) {
                                struct image_create_options options = {
                                    .format = "vdi",
                                    .virtual_bytes = 1 + random_below(20 * MIB),
                                    .variant = variants[v],
                                    .cluster_bytes = sizes[s]};

                                co_round_trip(f, &options);
                        }
        co_round_trip(f, AS("vdi", 0));
        co_round_trip(f, AS("vdi", MIB));
}

static void what_is_written_is_read_back(void **state)
{
        run(*state, co_write_each);
}

/* As QEMU and VirtualBox expect it; and pages of the map in which nothing is written. */
static void co_write_large(struct fixture *f)
{
        uint64_t bytes = UINT64_C(5) << 40, at = bytes - 3 * MIB;
        struct vdi_header_disk d;
        struct image *image;
        struct stat st;
        uint8_t *data = malloc(3 * MIB);

        memset(data, 0x42, 3 * MIB);
        assert_int_equal(co_image_create(f->fd, "x", AS("vdi", bytes), &image, NULL), 0);
        assert_int_equal(image->driver->co_write(image, data, MIB, 0, NULL), 0);
        assert_int_equal(image->driver->co_zero(image, MIB, at - MIB, NULL), 0);
        assert_int_equal(image->driver->co_write(image, data, 3 * MIB, at, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
        assert_int_equal(pread(f->fd, &d, sizeof(d), 0), sizeof(d));
        assert_int_equal(le64_get(d.disk_bytes), bytes);
        assert_int_equal(le32_get(d.n_allocated), 4);
        assert_int_equal(le32_get(d.n_blocks), bytes / MIB);
        assert_int_equal(le32_get(d.map_offset) % 512 + le32_get(d.data_offset) % MIB, 0);
        assert_int_equal(le32_get(d.pchs.sector_bytes), 512);
        assert_false(image_is_zero(d.uuid, 16) || image_is_zero(d.modified_uuid, 16));
        assert_true(image_is_zero(d.parent_uuid, 32));
        assert_int_equal(fstat(f->fd, &st), 0);
        assert_int_equal(st.st_size, le32_get(d.data_offset) + 4 * MIB);

        image = co_opened(f->fd, NULL);
        assert_int_equal(image->virtual_bytes, bytes);
        co_expect_bytes(image, 0, MIB, 0x42);
        co_expect_bytes(image, MIB, MIB, 0);
        assert_true(co_extent_at(image, MIB).length >= 16384 * (uint64_t)MIB);
        co_expect_bytes(image, at, 3 * MIB, 0x42);
        assert_int_equal(co_extent_at(image, at).length, 3 * MIB);
        image_close(image);
        free(data);
}

static void images_of_more_than_2_tib_are_written(void **state)
{
        run(*state, co_write_large);
}

static void co_options(struct fixture *f)
{
        struct image_create_options o = {.format = "vdi", .virtual_bytes = MIB};

        o.variant = "undo";
        co_not_written(f, o, -EINVAL, "no variant 'undo'");
        o.variant = NULL;
        o.compression = "zlib";
        co_not_written(f, o, -EINVAL, "no compression");
        o.compression = NULL;
        o.cluster_bytes = 256 * KIB;
        co_not_written(f, o, -EINVAL, "262144");
        o.cluster_bytes = 4 * MIB;
        co_not_written(f, o, -EINVAL, "4194304");
        o.cluster_bytes = 0;
        o.virtual_bytes = (UINT64_C(64) << 40) + 1;
        co_not_written(f, o, -EFBIG, "'disk.img'");
}

static void what_vdi_has_not_is_not_made(void **state)
{
        run(*state, co_options);
}

#define vdi_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vdi_test(blocks_are_found_by_the_map),
            vdi_test(data_beside_blocks_is_left_out),
            vdi_test(blocks_may_have_any_power_of_two),
            vdi_test(the_header_of_before_1_0_is_read),
            vdi_test(holes_of_a_static_image_are_seen),
            vdi_test(coroutines_read_at_once_through_a_map_larger_than_what_is_kept),
            vdi_test(each_damage_of_the_header_has_its_sentence),
            vdi_test(maps_larger_than_the_file_are_refused_and_large_ones_take_no_memory),
            vdi_test(a_block_beyond_the_end_is_an_error_where_it_is_read),
            vdi_test(a_check_finds_overlaps_and_leaks),
            vdi_test(a_check_can_be_cancelled),
            vdi_test(a_differencing_image_reads_its_parent),
            vdi_test(a_parent_that_is_missing_or_another_is_refused),
            vdi_test(chains_are_bounded_and_cycles_refused),
            vdi_test(what_is_written_is_read_back),
            vdi_test(images_of_more_than_2_tib_are_written),
            vdi_test(what_vdi_has_not_is_not_made),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
