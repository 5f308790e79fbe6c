/* Values of structures on disk that cannot be: with a checksum that is right, as a hostile disk has
 * it, they are refused and reach nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>
#include "common/crc32c.h"
#include "pool/codec.h"

#define SLAB_BLOCKS 64u

/* ---- slabs ---- */

static struct slab sound_slab(void)
{
        return (struct slab){.kind = SLAB_METADATA,
                             .n_legs = 2,
                             .leg = {{0, 1 << 20}, {1, 2 << 20}},
                             .live_free = 10};
}

static int decode_slab(const struct slab *slab, size_t n_disks)
{
        struct slab_disk disk;
        struct slab back = {0};

        slab_encode(slab, &disk);
        return slab_decode(&disk, n_disks, SLAB_BLOCKS, &back, NULL);
}

static void a_slab_lies_on_members_that_there_are(void **state)
{
        struct slab slab = sound_slab();

        assert_int_equal(decode_slab(&slab, 2), 0);
        assert_int_equal(decode_slab(&slab, 1), -EUCLEAN);
        slab.leg[0].member = 2;
        assert_int_equal(decode_slab(&slab, 2), -EUCLEAN);
}

static void a_slab_has_no_more_than_its_blocks_and_legs(void **state)
{
        struct slab slab = sound_slab();

        slab.live_free = SLAB_BLOCKS + 1;
        assert_int_equal(decode_slab(&slab, 2), -EUCLEAN);
        slab = sound_slab();
        slab.map_copy = MAP_COPIES;
        assert_int_equal(decode_slab(&slab, 2), -EUCLEAN);
        slab = sound_slab();
        slab.map_address[1] = ADDRESS_MAX + 1;
        assert_int_equal(decode_slab(&slab, 2), -EUCLEAN);
}

/* ---- extents ---- */

static int decode_extent(const struct slab_extent *extent, size_t n_disks)
{
        struct extent_disk disk;
        struct slab_extent back = {0};

        extent_encode(extent, &disk);
        return extent_decode(&disk, n_disks, &back, NULL);
}

static void an_extent_lies_on_members_that_there_are_and_on_whole_blocks(void **state)
{
        struct slab_extent extent = {.n_legs = 2, .leg = {{0, 8192}, {1, 4096}}};

        assert_int_equal(decode_extent(&extent, 2), 0);
        assert_int_equal(decode_extent(&extent, 1), -EUCLEAN);
        extent.leg[1].offset = 4097;
        assert_int_equal(decode_extent(&extent, 2), -EUCLEAN);
        extent = (struct slab_extent){.n_legs = 1, .copy = MAP_COPIES};
        assert_int_equal(decode_extent(&extent, 1), -EUCLEAN);
}

/* ---- superblocks ---- */

static struct super sound_super(void)
{
        static struct super_member member = {.state = MEMBER_STATE_IN, .size_bytes = 64 << 20};
        static struct slab_extent index = {.n_legs = 1, .leg = {{0, 4096}}};
        struct super super = {.generation = 1,
                              .epoch = 1,
                              .name = "tank",
                              .stripe_blocks = 16,
                              .slab_blocks = SLAB_BYTES_MIN / 4096,
                              .n_slabs = 4,
                              .catalog_height = CATALOG_HEIGHT,
                              .next_root_id = 1,
                              .member = &member,
                              .n_members = 1,
                              .index = &index,
                              .n_index = 1};

        super.log_pages = super.slab_blocks;
        return super;
}

static int decode_super(const struct super *super)
{
        struct super back;
        void *image = NULL;
        size_t length = 0;
        int r;

        assert_int_equal(super_encode(super, &image, &length), 0);
        r = super_decode(image, length, &back, NULL);
        if (r == 0)
                super_free(&back);
        free(image);
        return r;
}

static void a_superblock_of_impossible_sizes_is_refused(void **state)
{
        struct super super = sound_super();

        assert_int_equal(decode_super(&super), 0);
        for (unsigned i = 0; i < 9; i++) {
                super = sound_super();
                switch (i) {
                case 0:
                        super.stripe_blocks = 0;
                        break;
                case 1:
                        super.stripe_blocks = super.slab_blocks + 1;
                        break;
                case 2:
                        super.log_pages = 0;
                        break;
                case 3:
                        super.log_pages--;
                        break;
                case 4:
                        super.log_pages *= super.n_slabs + 1;
                        break;
                case 5:
                        super.slab_blocks--;
                        break;
                case 6:
                        super.n_slabs = UINT32_MAX;
                        break;
                case 7:
                        super.catalog_height++;
                        break;
                default:
                        super.generation = 0;
                }
                assert_int_equal(decode_super(&super), -EUCLEAN);
        }
}

/* ---- values that no encoder makes ---- */

/* A number of so many bytes in place of what is there, and what decoding then says. */
struct patch {
        size_t offset;
        unsigned n_bytes;
        uint64_t value;
        int result;
};
#define PATCH(type, field, value, result)                                                          \
        {                                                                                          \
                offsetof(struct type, field),                                                      \
                    sizeof(((struct type *)0)->field) > 8 ? 1 : sizeof(((struct type *)0)->field), \
                    value, result                                                                  \
        }

static void patch_apply(void *image, const struct patch *patch)
{
        for (unsigned i = 0; i < patch->n_bytes; i++)
                ((uint8_t *)image)[patch->offset + i] = (uint8_t)(patch->value >> (8 * i));
}

static int decode_patched_super(const struct patch *patch)
{
        struct super super = sound_super(), back;
        struct error err = ERROR_INIT;
        struct super_disk *d;
        void *image;
        size_t length;
        int r;

        assert_int_equal(super_encode(&super, &image, &length), 0);
        d = image;
        patch_apply(d, patch);
        d->crc32c = le32_make(0);
        d->crc32c = le32_make(crc32c(0, d, length));
        r = super_decode(image, length, &back, &err);
        if (r == 0)
                super_free(&back);
        free(image);
        return r;
}

static void a_superblock_of_impossible_values_is_refused(void **state)
{
        static const struct patch patches[] = {
            PATCH(super_disk, version, FORMAT_VERSION, 0),
            PATCH(super_disk, version, FORMAT_VERSION + 1, -ENOTSUP),
            PATCH(super_disk, incompat, UINT64_C(1) << 63, -ENOTSUP),
            PATCH(super_disk, magic, 1, -ENODATA),
            PATCH(super_disk, length, 4096 + 512, -ENODATA),
            PATCH(super_disk, length, 0, -ENODATA),
            PATCH(super_disk, length, SUPER_SLOT_BYTES + 4096, -ENODATA),
            PATCH(super_disk, n_members, 0, -EUCLEAN),
            PATCH(super_disk, n_members, POOL_MEMBERS_MAX, -EUCLEAN), /* the length does not fit */
            PATCH(super_disk, n_members, POOL_MEMBERS_MAX + 1, -EUCLEAN),
            PATCH(super_disk, n_index, INDEX_PAGES_MAX + 1, -EUCLEAN),
            PATCH(super_disk, generation, COUNTER_MAX + 1, -EUCLEAN),
            PATCH(super_disk, epoch, 0, -EUCLEAN),
            PATCH(super_disk, epoch, BIRTH_MAX + 1, -EUCLEAN),
            PATCH(super_disk, log_incarnation, COUNTER_MAX + 1, -EUCLEAN),
            PATCH(super_disk, log_start, COUNTER_MAX + 1, -EUCLEAN),
            PATCH(super_disk, next_record, COUNTER_MAX + 1, -EUCLEAN),
            PATCH(super_disk, next_root_id, 0, -EUCLEAN),
            PATCH(super_disk, next_root_id, COUNTER_MAX + 1, -EUCLEAN),
            PATCH(super_disk, name, '/', -EUCLEAN),
            PATCH(super_disk, name, 0, -EUCLEAN),
            PATCH(super_disk, layout, POOL_LAYOUT_CONCAT + 1, -EUCLEAN),
            PATCH(super_disk, slab_blocks, SLAB_BYTES_MAX / 4096 * 2, -EUCLEAN),
            PATCH(super_disk, slab_blocks, SLAB_BYTES_MIN / 4096 + 1, -EUCLEAN),
        };

        for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++)
                assert_int_equal(decode_patched_super(&patches[i]), patches[i].result);
}

static int decode_patched_label(const struct patch *patch)
{
        static uint8_t page[4096] __attribute__((aligned(4096)));
        const struct label label = {
            .pool_name = "tank", .index = 1, .size_bytes = UINT64_C(64) << 20};
        struct error err = ERROR_INIT;
        struct label back;

        label_encode(&label, page);
        patch_apply(page, patch);
        ((struct label_disk *)(void *)page)->crc32c = le32_make(crc32c(0, page, 4092));
        return label_decode(page, &back, &err);
}

static void a_label_of_impossible_values_is_refused(void **state)
{
        static const struct patch patches[] = {
            PATCH(label_disk, version, FORMAT_VERSION, 0),
            PATCH(label_disk, version, FORMAT_VERSION + 1, -ENOTSUP),
            PATCH(label_disk, incompat, 1u << 31, -ENOTSUP),
            PATCH(label_disk, magic, 1, -ENODATA),
            PATCH(label_disk, index, POOL_MEMBERS_MAX, -EUCLEAN),
            PATCH(label_disk, size_bytes, (UINT64_C(64) << 20) + 512, -EUCLEAN),
            PATCH(label_disk, size_bytes, 2 * LABEL_AREA_BYTES - 4096, -EUCLEAN),
            PATCH(label_disk, pool_name, '/', -EUCLEAN),
            PATCH(label_disk, pool_name, 0, -EUCLEAN),
        };

        for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++)
                assert_int_equal(decode_patched_label(&patches[i]), patches[i].result);
}

/* A live root with a deadlist and a property. */
static int decode_patched_root(const struct patch *patch)
{
        static uint8_t page[4096] __attribute__((aligned(4096)));
        struct bucket bucket = {.key = 1};
        struct root_body body = {.size_bytes = 1 << 20,
                                 .map = {.root = {.type = ENTRY_ABSENT}, .height = 1},
                                 .bucket = &bucket,
                                 .n_buckets = 1,
                                 .property = {{.key = "iops", .value = "100"}},
                                 .n_properties = 1};
        const struct root root = {.id = 7, .body = &body};
        const struct entry more = {.type = ENTRY_ABSENT};
        struct root_body *back = calloc(1, sizeof(*back));
        struct entry back_more;
        size_t n_buckets;
        int r;

        root_encode(&root, &more, page);
        patch_apply(page, patch);
        r = root_decode(page, 7, back, &n_buckets, &back_more, NULL);
        body_free(back);
        return r;
}

static void a_root_of_impossible_values_is_refused(void **state)
{
        const size_t property = offsetof(struct root_disk, property),
                     bucket = offsetof(struct root_disk, bucket);
        const struct patch patches[] = {
            PATCH(root_disk, magic, ROOT_MAGIC, 0),
            PATCH(root_disk, magic, 1, -EUCLEAN),
            PATCH(root_disk, id, 8, -EUCLEAN),
            PATCH(root_disk, height, 0, -EUCLEAN),
            PATCH(root_disk, height, HEIGHT_MAX + 1, -EUCLEAN),
            PATCH(root_disk, block_shift, 13, -EUCLEAN),
            PATCH(root_disk, entry_format, 1, -EUCLEAN),
            PATCH(root_disk, n_properties, ROOT_PROPERTIES + 1, -EUCLEAN),
            PATCH(root_disk, n_buckets, SLOTS_MAX + 1, -EUCLEAN),
            PATCH(root_disk, size_bytes, VOLUME_SIZE_MAX + 512, -EUCLEAN),
            PATCH(root_disk, size_bytes, 1000, -EUCLEAN),
            PATCH(root_disk, size_bytes, (1 << 20) + 512, -EUCLEAN), /* higher than its map */
            PATCH(root_disk, high_bytes, VOLUME_SIZE_MAX + 512, -EUCLEAN),
            PATCH(root_disk, high_bytes, 2 << 20, -EUCLEAN),
            /* the type of an entry: bits 44 to 47 */
            {offsetof(struct root_disk, map), 8, (uint64_t)ENTRY_DATA << 44, -EUCLEAN},
            {offsetof(struct root_disk, map), 8, (uint64_t)ENTRY_NODE << 44, 0},
            {bucket, 8, BIRTH_MAX + 1, -EUCLEAN},
            {bucket + offsetof(struct bucket_disk, head), 8, (uint64_t)ENTRY_DATA << 44, -EUCLEAN},
            {bucket + offsetof(struct bucket_disk, flags), 4, 2, -EUCLEAN},
        };

        for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++)
                assert_int_equal(decode_patched_root(&patches[i]), patches[i].result);
        for (unsigned part = 0; part < 2; part++) { /* a text without an end */
                uint8_t page[4096] __attribute__((aligned(8))) = {0};
                struct root_disk *d = (void *)page;
                struct root_body *back = calloc(1, sizeof(*back));
                struct entry more;
                size_t n_buckets;

                d->magic = le64_make(ROOT_MAGIC);
                d->height = 1;
                d->block_shift = 12;
                d->n_properties = 1;
                memset(page + property + (part == 0 ? 0 : sizeof(d->property[0].key)), 'x',
                       part == 0 ? sizeof(d->property[0].key) : sizeof(d->property[0].value));
                assert_int_equal(root_decode(page, 0, back, &n_buckets, &more, NULL), -EUCLEAN);
                body_free(back);
        }
}

static int decode_patched_index(const struct patch *patch)
{
        const struct root root = {
            .id = 7, .volume_id = 7, .epoch = 3, .state = ROOT_LIVE, .name = "v"};
        struct index_disk disk;
        struct index back;

        index_encode(&root, &disk);
        patch_apply(&disk, patch);
        return index_decode(&disk, &back, NULL);
}

static void an_entry_of_the_catalog_of_impossible_values_is_refused(void **state)
{
        static const struct patch patches[] = {
            PATCH(index_disk, state, ROOT_LIVE, 0),
            PATCH(index_disk, state, ROOT_FREE, 0),
            PATCH(index_disk, state, ROOT_ORPHAN, 0),
            PATCH(index_disk, state, ROOT_BASE, 0),
            PATCH(index_disk, state, ROOT_BASE + 1, -EUCLEAN),
            PATCH(index_disk, id, 0, -EUCLEAN),
            PATCH(index_disk, epoch, BIRTH_MAX + 1, -EUCLEAN),
            PATCH(index_disk, name, 0, -EUCLEAN),
            PATCH(index_disk, name, '@', -EUCLEAN),
        };

        for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++)
                assert_int_equal(decode_patched_index(&patches[i]), patches[i].result);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_superblock_of_impossible_values_is_refused),
            cmocka_unit_test(a_label_of_impossible_values_is_refused),
            cmocka_unit_test(a_root_of_impossible_values_is_refused),
            cmocka_unit_test(an_entry_of_the_catalog_of_impossible_values_is_refused),
            cmocka_unit_test(a_slab_lies_on_members_that_there_are),
            cmocka_unit_test(a_slab_has_no_more_than_its_blocks_and_legs),
            cmocka_unit_test(an_extent_lies_on_members_that_there_are_and_on_whole_blocks),
            cmocka_unit_test(a_superblock_of_impossible_sizes_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
