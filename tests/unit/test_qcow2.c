/* test_qcow2.c - reading qcow2: clusters of all kinds and sizes, where they lie, and how they are unpacked. */
#include "tests/unit/qcow2_fixture.h"

#define ZSTD QCOW2_COMPRESSION_TYPE

/* Clusters of every kind in an order of chance; what the disk holds then. */
static uint8_t *mixed(struct qcow2_sample *s, uint32_t seed)
{
        size_t bytes = (size_t)1 << s->cluster_bits;
        size_t n = (size_t)((s->virtual_bytes + bytes - 1) / bytes);
        uint8_t *disk = calloc(n, bytes);

        assert_non_null(disk);
        for (size_t i = 0; i < n; i++) {
                uint8_t *cluster = disk + i * bytes;
                uint64_t guest = i * bytes;

                switch (next_number(&seed) % 8) {
                case 0:
                        break;
                case 1:
                        if (s->version == 2)
                                break;
                        if (s->entry_bytes == QCOW2_L2_ENTRY)
                                qcow2_sample_map(s, guest, QCOW2_ZERO, 0);
                        else
                                qcow2_sample_map(s, guest, 0, UINT64_C(0xffffffff) << 32);
                        break;
                case 2:
                case 3:
                case 4:
                        fill(cluster, bytes, seed);
                        qcow2_sample_pack(s, guest, cluster);
                        break;
                default:
                        fill(cluster, bytes, seed);
                        qcow2_sample_plain(s, guest, cluster);
                }
        }
        return disk;
}

static void co_read_sizes(struct fixture *f, uint32_t version, uint64_t features,
                          unsigned least_bits)
{
        struct offload *offload = offload_new(2);

        for (unsigned bits = least_bits; bits <= QCOW2_CLUSTER_BITS_MAX; bits++) {
                uint64_t bytes = bits < 12 ? 300u << bits : bits < 18 ? 20u << bits : 5u << bits;
                struct qcow2_sample s;
                struct image *image;
                uint8_t *disk;

                qcow2_sample_init(&s, version, bits, bytes - 700, features);
                disk = mixed(&s, bits);
                image = co_open_sample(f, &s, &(struct image_options){.offload = offload});
                assert_int_equal(image->info.cluster_bytes, 1u << bits);
                assert_int_equal(image->virtual_bytes, bytes - 700);
                co_expect_content(image, disk);
                image_close(image);
                free(disk);
                qcow2_sample_free(&s);
        }
        offload_free(offload);
}

static void co_read_v2(struct fixture *f)
{
        co_read_sizes(f, 2, 0, QCOW2_CLUSTER_BITS_MIN);
}

static void version_2_is_read_with_every_size_of_clusters(void **state)
{
        run(*state, co_read_v2);
}

static void co_read_v3(struct fixture *f)
{
        co_read_sizes(f, 3, 0, QCOW2_CLUSTER_BITS_MIN);
}

static void version_3_is_read_with_every_size_of_clusters(void **state)
{
        run(*state, co_read_v3);
}

static void co_read_zstd(struct fixture *f)
{
        co_read_sizes(f, 3, ZSTD, QCOW2_CLUSTER_BITS_MIN);
}

static void zstd_is_read_with_every_size_of_clusters(void **state)
{
        run(*state, co_read_zstd);
}

static void co_read_extended(struct fixture *f)
{
        co_read_sizes(f, 3, QCOW2_EXTENDED_L2, QCOW2_CLUSTER_BITS_MIN_EXTENDED);
}

static void extended_entries_are_read_with_every_size_of_clusters(void **state)
{
        run(*state, co_read_extended);
}

/* Every second cluster's subclusters by bits of chance. */
static void co_subclusters(struct fixture *f)
{
        struct qcow2_sample s;
        struct image *image;
        uint8_t *disk = calloc(16, 65536), data[65536];
        uint32_t seed = 3;

        qcow2_sample_init(&s, 3, 16, MIB, QCOW2_EXTENDED_L2);
        for (size_t i = 0; i < 16; i++) {
                uint32_t allocated = next_number(&seed) << 8 ^ next_number(&seed);
                uint32_t zero = (next_number(&seed) << 8 ^ next_number(&seed)) & ~allocated;

                fill(data, sizeof(data), seed);
                qcow2_sample_plain(&s, i * 65536, data);
                qcow2_put64(s.bytes + qcow2_sample_entry(&s, s.l1, i * 65536) + 8,
                            (uint64_t)zero << 32 | allocated);
                for (size_t j = 0; j < 32; j++)
                        if (allocated >> j & 1)
                                memcpy(disk + i * 65536 + j * 2048, data + j * 2048, 2048);
        }
        image = co_open_sample(f, &s, NULL);
        co_expect_content(image, disk);
        image_close(image);
        qcow2_sample_free(&s);
        free(disk);
}

static void subclusters_are_each_data_zero_or_absent(void **state)
{
        run(*state, co_subclusters);
}

static void co_extents(struct fixture *f)
{
        static uint8_t data[512], disk[512 * 128];
        struct qcow2_sample s;
        struct image *image;
        uint64_t plain;

        memset(data, 7, sizeof(data));
        qcow2_sample_init(&s, 3, 9, sizeof(disk), 0);
        qcow2_sample_entry(&s, s.l1, 0);
        plain = qcow2_sample_room(&s, 512 * 3);
        for (uint64_t i = 0; i < 3; i++) {
                qcow2_sample_map(&s, 512 * (4 + i), (plain + 512 * i) | QCOW2_COPIED, 0);
                memcpy(s.bytes + plain + 512 * i, data, 512);
                memcpy(disk + 512 * (4 + i), data, 512);
        }
        /* Zero, though there is a cluster full of something else. */
        qcow2_sample_map(&s, 512 * 7, plain | QCOW2_ZERO, 0);
        qcow2_sample_map(&s, 512 * 8, QCOW2_ZERO, 0);
        qcow2_sample_pack(&s, 512 * 9, data);
        qcow2_sample_pack(&s, 512 * 10, data);
        memcpy(disk + 512 * 9, data, 512);
        memcpy(disk + 512 * 10, data, 512);
        qcow2_sample_map(&s, 512 * 11, QCOW2_ZERO, 0);
        qcow2_sample_map(&s, 512 * 12, plain | QCOW2_ZERO, 0);
        image = co_open_sample(f, &s, NULL);
        co_expect_content(image, disk);
        co_expect_extent(image, 0, &(struct image_extent){.length = 2048, .zero = true});
        co_expect_extent(
            image, 2048 + 100,
            &(struct image_extent){
                .length = 1436, .present = true, .has_offset = true, .file_offset = plain + 100});
        co_expect_extent(image, 512 * 7,
                         &(struct image_extent){.length = 512,
                                                .zero = true,
                                                .present = true,
                                                .has_offset = true,
                                                .file_offset = plain});
        co_expect_extent(image, 512 * 8,
                         &(struct image_extent){.length = 512, .zero = true, .present = true});
        co_expect_extent(
            image, 512 * 9,
            &(struct image_extent){.length = 1024, .present = true, .compressed = true});
        co_expect_extent(image, 512 * 11,
                         &(struct image_extent){.length = 512, .zero = true, .present = true});
        /* The rest of this table; and all that has none. */
        co_expect_extent(image, 512 * 13, &(struct image_extent){.length = 512 * 51, .zero = true});
        co_expect_extent(image, 512 * 64, &(struct image_extent){.length = 512 * 64, .zero = true});
        image_close(image);
        qcow2_sample_free(&s);
}

static void extents_say_what_is_there_and_where(void **state)
{
        run(*state, co_extents);
}

/* A file may end within its last cluster: what is not there was not written. */
static void co_short_file(struct fixture *f)
{
        static uint8_t data[65536], disk[65536];
        struct qcow2_sample s;
        struct image *image;

        memset(data, 9, sizeof(data));
        memset(disk, 9, 1000);
        qcow2_sample_init(&s, 3, 16, sizeof(disk), 0);
        qcow2_sample_plain(&s, 0, data);
        s.used -= 65536 - 1000;
        image = co_open_sample(f, &s, NULL);
        co_expect_content(image, disk);
        image_close(image);
        qcow2_sample_free(&s);
}

static void a_file_may_end_within_its_last_cluster(void **state)
{
        run(*state, co_short_file);
}

/* Clusters of 512 bytes, of which the stream makes eight: unpacking stops when there is one. */
static void co_longer_stream(struct fixture *f)
{
        static uint8_t data[4096], packed[8192];
        struct qcow2_sample s;
        struct image *image;
        size_t n;

        fill(data, sizeof(data), 4);
        n = pack(12, 0, data, packed, sizeof(packed));
        qcow2_sample_init(&s, 3, 9, 512, 0);
        qcow2_sample_pack_bytes(&s, 0, packed, n < 1000 ? n : 1000);
        image = co_open_sample(f, &s, NULL);
        co_expect_content(image, data);
        image_close(image);
        qcow2_sample_free(&s);
}

static void what_a_stream_has_beyond_a_cluster_does_not_matter(void **state)
{
        run(*state, co_longer_stream);
}

static void co_two_frames(struct fixture *f)
{
        static uint8_t data[4096], packed[8192];
        struct qcow2_sample s;
        struct image *image;
        size_t n;

        fill(data, sizeof(data), 6);
        n = pack(11, ZSTD, data, packed, sizeof(packed));
        n += pack(11, ZSTD, data + 2048, packed + n, sizeof(packed) - n);
        qcow2_sample_init(&s, 3, 12, 4096, ZSTD);
        qcow2_sample_pack_bytes(&s, 0, packed, n);
        image = co_open_sample(f, &s, NULL);
        co_expect_content(image, data);
        image_close(image);
        qcow2_sample_free(&s);
}

static void a_cluster_may_have_several_frames(void **state)
{
        run(*state, co_two_frames);
}

/* Clusters in a row for the disk that are in no row in the file, also where one L2 table ends. */
static void co_backwards(struct fixture *f)
{
        enum { CLUSTERS_IN_ALL = 70 }; /* a table has 64 */
        static uint8_t disk[CLUSTERS_IN_ALL * 512];

        fill(disk, sizeof(disk), 8);
        for (unsigned packed = 0; packed < 2; packed++) {
                struct qcow2_sample s;
                struct image *image;

                qcow2_sample_init(&s, 3, 9, sizeof(disk), 0);
                for (uint64_t i = CLUSTERS_IN_ALL; i-- > 0;)
                        if (packed)
                                qcow2_sample_pack(&s, i * 512, disk + i * 512);
                        else
                                qcow2_sample_plain(&s, i * 512, disk + i * 512);
                image = co_open_sample(f, &s, NULL);
                co_expect_content(image, disk);
                image_close(image);
                qcow2_sample_free(&s);
        }
}

static void clusters_may_lie_in_any_order(void **state)
{
        run(*state, co_backwards);
}

/* ---- many readers ---- */

#define READERS  40u
#define CLUSTERS 30u

struct readers {
        struct image *image;
        const uint8_t *disk;
        unsigned running;
        struct co_queue ended;
};

struct reader {
        struct readers *all;
        uint32_t seed;
};

static void reader_main(void *arg)
{
        struct reader *me = arg;
        struct readers *all = me->all;
        uint8_t buffer[5000];

        for (unsigned i = 0; i < 100; i++) {
                size_t n = 1 + next_number(&me->seed) % sizeof(buffer);
                uint64_t at = next_number(&me->seed) % (all->image->virtual_bytes - n);

                assert_int_equal(all->image->driver->co_read(all->image, buffer, n, at, NULL), 0);
                assert_memory_equal(buffer, all->disk + at, n);
        }
        if (--all->running == 0)
                co_wake_all(&all->ended);
}

static void co_read_together(struct fixture *f, const struct image_options *options,
                             uint64_t features)
{
        struct reader readers[READERS];
        struct readers all = {.running = READERS};
        struct qcow2_sample s;
        uint8_t *disk;

        qcow2_sample_init(&s, 3, 14, CLUSTERS << 14, features);
        all.disk = disk = mixed(&s, 12);
        all.image = co_open_sample(f, &s, options);
        co_queue_init(&all.ended);
        for (unsigned i = 0; i < READERS; i++) {
                readers[i] = (struct reader){&all, i * 77};
                assert_int_equal(co_spawn(f->loop, reader_main, &readers[i]), 0);
        }
        if (all.running > 0)
                co_wait(&all.ended);
        image_close(all.image);
        qcow2_sample_free(&s);
        free(disk);
}

static void co_readers(struct fixture *f)
{
        struct offload *offload = offload_new(2);

        co_read_together(f, NULL, 0);
        co_read_together(f, &(struct image_options){.offload = offload}, 0);
        co_read_together(f, &(struct image_options){.offload = offload}, ZSTD);
        co_read_together(f, NULL, QCOW2_EXTENDED_L2);
        offload_free(offload);
}

static void many_may_read_at_once(void **state)
{
        run(*state, co_readers);
}

/* More L2 tables than are kept, in no order. */
static void co_many_tables(struct fixture *f)
{
        enum { TABLES = 600 };
        uint64_t table_bytes = UINT64_C(2048) << 14;
        struct qcow2_sample s;
        struct image *image;
        uint64_t shared;
        uint32_t seed = 5;

        assert_true(TABLES > QCOW2_SLICES_BYTES / QCOW2_SLICE_BYTES_MAX);
        qcow2_sample_init(&s, 3, 14, TABLES * table_bytes, 0);
        shared = qcow2_sample_room(&s, 1u << 14);
        for (uint64_t i = 0; i < TABLES; i++)
                qcow2_sample_map(&s, i * table_bytes + (i << 14), shared, 0);
        qcow2_put32(s.bytes + shared, 0x12345678);
        image = co_open_sample(f, &s, NULL);
        for (unsigned k = 0; k < 3000; k++) {
                uint64_t i = next_number(&seed) % TABLES;
                uint8_t buffer[4];

                assert_int_equal(
                    image->driver->co_read(image, buffer, 4, i * table_bytes + (i << 14), NULL), 0);
                assert_int_equal(qcow2_get32(buffer), 0x12345678);
        }
        image_close(image);
        qcow2_sample_free(&s);
}

static void more_tables_than_are_kept_are_read_again(void **state)
{
        run(*state, co_many_tables);
}

#define qcow2_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            qcow2_test(version_2_is_read_with_every_size_of_clusters),
            qcow2_test(version_3_is_read_with_every_size_of_clusters),
            qcow2_test(zstd_is_read_with_every_size_of_clusters),
            qcow2_test(extended_entries_are_read_with_every_size_of_clusters),
            qcow2_test(subclusters_are_each_data_zero_or_absent),
            qcow2_test(extents_say_what_is_there_and_where),
            qcow2_test(a_file_may_end_within_its_last_cluster),
            qcow2_test(what_a_stream_has_beyond_a_cluster_does_not_matter),
            qcow2_test(a_cluster_may_have_several_frames),
            qcow2_test(clusters_may_lie_in_any_order),
            qcow2_test(many_may_read_at_once),
            qcow2_test(more_tables_than_are_kept_are_read_again),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
