/* test_qcow2_write.c - what is written as qcow2 is a sound image, and reads back as it was; until it is
 * finished it is none. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "common/offload.h"
#include "formats/qcow2.h"
#include "tests/unit/image_fixture.h"

/* Numbers that are the same in every run. */
static uint32_t next_number(uint32_t *state)
{
        *state = *state * 1664525u + 1013904223u;
        return *state >> 8;
}

/* A disk of clusters that are zero, noise, one byte all over, or noise and one byte in turn. */
static uint8_t *make_disk(size_t n, size_t cluster, uint32_t seed)
{
        uint8_t *disk = calloc(1, n);

        assert_non_null(disk);
        for (size_t at = 0; at < n; at += cluster) {
                size_t bytes = n - at < cluster ? n - at : cluster;
                unsigned kind = next_number(&seed) % 5;

                for (size_t i = 0; kind != 0 && i < bytes; i++)
                        disk[at + i] = kind == 1 || (kind > 2 && i % 32 < 7)
                                           ? (uint8_t)next_number(&seed)
                                           : (uint8_t)kind;
        }
        return disk;
}

/* ---- writing a disk by several coroutines ---- */

struct writing {
        struct image *image;
        const uint8_t *disk;
        size_t n, next, most; /* at most so many units in a call */
        uint32_t seed;
        unsigned n_running;
        struct co_queue ended;
};

static void co_writer(void *arg)
{
        struct writing *w = arg;

        while (w->next < w->n) {
                size_t at = w->next, unit = w->image->write_unit;
                size_t length = (1 + next_number(&w->seed) % w->most) * unit;
                struct error e = ERROR_INIT;
                int r;

                if (length > w->n - at)
                        length = w->n - at;
                w->next += length;
                if (image_is_zero(w->disk + at, length) && next_number(&w->seed) % 2)
                        r = w->image->driver->co_zero(w->image, at, length, &e);
                else
                        r = w->image->driver->co_write(w->image, w->disk + at, length, at, &e);
                if (r < 0)
                        fail_msg("%s", e.message);
        }
        w->n_running--;
        co_wake_all(&w->ended);
}

static void co_write_disk(struct image *image, const uint8_t *disk, size_t n, size_t most)
{
        struct writing w = {.image = image, .disk = disk, .n = n, .most = most, .seed = 5};

        co_queue_init(&w.ended);
        w.n_running = 4;
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(co_spawn(co_loop(), co_writer, &w), 0);
        while (w.n_running > 0)
                co_wait(&w.ended);
}

static struct image *co_create(struct fixture *f, const struct image_create_options *options)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        if (co_image_create(f->fd, "x.qcow2", options, &image, &e) < 0)
                fail_msg("%s", e.message);
        return image;
}

static void co_finish(struct image *image)
{
        struct error e = ERROR_INIT;

        if (image->driver->co_finish(image, &e) < 0)
                fail_msg("%s", e.message);
        image_close(image);
}

static struct image *co_open(struct fixture *f)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        if (co_image_open(f->fd, "x.qcow2", &(struct image_options){.alone = true}, &image, &e) < 0)
                fail_msg("%s", e.message);
        assert_string_equal(image->driver->name, "qcow2");
        return image;
}

static void print_finding(struct image_check *check, const char *sentence)
{
        print_message("%s\n", sentence);
}

static void co_expect_sound(struct image *image)
{
        struct image_check check = {.report = print_finding};
        struct error e = ERROR_INIT;

        if (image->driver->co_check(image, &check, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(check.n_errors, 0);
        assert_int_equal(check.n_leaks, 0);
        assert_int_equal(check.end_bytes, image->file_bytes);
        assert_int_equal(check.allocated_bytes, image->file_bytes);
}

static void co_expect_disk(struct image *image, const uint8_t *disk, size_t n)
{
        uint8_t *is = malloc((size_t)image->virtual_bytes);
        struct error e = ERROR_INIT;

        assert_non_null(is);
        assert_int_equal(image->virtual_bytes, (n + 511) / 512 * 512);
        if (image->driver->co_read(image, is, (size_t)image->virtual_bytes, 0, &e) < 0)
                fail_msg("%s", e.message);
        assert_memory_equal(is, disk, n);
        assert_true(image_is_zero(is + n, (size_t)image->virtual_bytes - n));
        free(is);
}

static void co_write_and_read(struct fixture *f, struct image_create_options options, size_t most)
{
        size_t n = (size_t)options.virtual_bytes;
        uint8_t *disk = make_disk(n, options.cluster_bytes, options.cluster_bytes);
        struct image *image = co_create(f, &options);

        assert_int_equal(image->write_unit, options.cluster_bytes);
        co_write_disk(image, disk, n, most);
        co_finish(image);
        image = co_open(f);
        assert_int_equal(image->info.cluster_bytes, options.cluster_bytes);
        assert_string_equal(image->info.variant, options.variant);
        co_expect_disk(image, disk, n);
        co_expect_sound(image);
        image_close(image);
        free(disk);
}

static void co_write_all(struct fixture *f)
{
        static const char *const compressions[] = {NULL, "zlib", "zstd"};
        struct offload *offload = offload_new(2);

        for (unsigned bits = QCOW2_CLUSTER_BITS_MIN; bits <= QCOW2_CLUSTER_BITS_MAX; bits += 3)
                for (unsigned i = 0; i < 5; i++) {
                        uint64_t clusters = bits < 12 ? 3000 : bits < 18 ? 60 : 5;

                        co_write_and_read(f,
                                          (struct image_create_options){
                                              .format = "qcow2",
                                              .virtual_bytes = (clusters << bits) - 700 * (i % 2),
                                              .variant = i < 3 ? "v3" : "v2",
                                              .compression = compressions[i % 3],
                                              .cluster_bytes = 1u << bits,
                                              .offload = i == 1 ? NULL : offload},
                                          bits < 12 ? 300 : 3);
                }
        offload_free(offload);
}

static void every_variant_reads_back_and_is_sound(void **state)
{
        run(*state, co_write_all);
}

/* Calls that are longer than what is compressed at once. */
static void co_write_long(struct fixture *f)
{
        struct offload *offload = offload_new(2);

        co_write_and_read(f,
                          (struct image_create_options){.format = "qcow2",
                                                        .virtual_bytes = 24 * MIB + 512,
                                                        .variant = "v3",
                                                        .compression = "zlib",
                                                        .cluster_bytes = 64 * KIB,
                                                        .offload = offload},
                          150);
        offload_free(offload);
}

static void calls_may_be_long(void **state)
{
        run(*state, co_write_long);
}

/* ---- where things lie ---- */

static void co_expect_ascending(struct image *image)
{
        uint64_t last = 0;

        for (uint64_t at = 0; at < image->virtual_bytes; at += 4 * KIB) {
                struct qcow2_run r;
                uint64_t host;

                assert_int_equal(co_qcow2_map(image, at, 4 * KIB, &r, NULL), 0);
                if (r.kind == QCOW2_ABSENT)
                        continue;
                host = r.kind == QCOW2_PLAIN ? r.host : qcow2_compressed_offset(r.entry, 12);
                assert_true(host > last);
                last = host;
        }
}

static void co_write_in_order(struct fixture *f)
{
        static const char *const compressions[] = {NULL, "zlib"};
        uint8_t *disk = make_disk(4 * MIB, 64 * KIB, 3);
        struct offload *offload = offload_new(2);

        /* Half of it shrinks, so that plain clusters lie behind the compressed ones in between. */
        for (size_t i = 0; i < MIB; i++)
                disk[i] = (uint8_t)(i / 7);
        for (unsigned i = 0; i < 2; i++) {
                struct image *image =
                    co_create(f, &(struct image_create_options){.format = "qcow2",
                                                                .virtual_bytes = MIB,
                                                                .compression = compressions[i],
                                                                .cluster_bytes = 4 * KIB,
                                                                .offload = offload});

                co_write_disk(image, disk, MIB, 20);
                co_finish(image);
                image = co_open(f);
                co_expect_ascending(image);
                image_close(image);
        }
        offload_free(offload);
        free(disk);
}

static void data_lie_in_the_order_of_the_disk(void **state)
{
        run(*state, co_write_in_order);
}

static off_t file_size(struct fixture *f)
{
        struct stat st;

        assert_int_equal(fstat(f->fd, &st), 0);
        return st.st_size;
}

static void co_write_same(struct fixture *f)
{
        uint8_t *disk = calloc(1, 8 * MIB);
        struct image_create_options options = {.format = "qcow2", .virtual_bytes = 8 * MIB};
        struct image *image = co_create(f, &options);

        co_write_disk(image, disk, 8 * MIB, 20);
        co_finish(image);
        assert_int_equal(file_size(f), 4 * 64 * KIB); /* zeroes take nothing */
        memset(disk, 7, 8 * MIB);
        options.compression = "zstd";
        image = co_create(f, &options);
        co_write_disk(image, disk, 8 * MIB, 20);
        co_finish(image);
        assert_true(file_size(f) <= 6 * 64 * KIB); /* many compressed clusters share one */
        free(disk);
}

static void zeroes_take_no_space_and_compressed_clusters_share_theirs(void **state)
{
        run(*state, co_write_same);
}

/* Far more than memory or the file has room for, and the tables of what is not there. */
static void co_write_large(struct fixture *f)
{
        const uint64_t size = UINT64_C(3) << 40, places[] = {0, UINT64_C(1) << 40, size - 64 * KIB};
        struct image *image = co_create(f, AS("qcow2", size));
        uint8_t *cluster = malloc(64 * KIB), *is = malloc(64 * KIB);

        for (size_t i = 0; i < 3; i++) {
                memset(cluster, (int)i + 1, 64 * KIB);
                assert_int_equal(image->driver->co_write(image, cluster, 64 * KIB, places[i], NULL),
                                 0);
        }
        co_finish(image);
        assert_true(file_size(f) < MIB);
        image = co_open(f);
        assert_int_equal(image->virtual_bytes, size);
        for (size_t i = 0; i < 3; i++) {
                memset(cluster, (int)i + 1, 64 * KIB);
                assert_int_equal(image->driver->co_read(image, is, 64 * KIB, places[i], NULL), 0);
                assert_memory_equal(is, cluster, 64 * KIB);
        }
        co_expect_sound(image);
        image_close(image);
        free(cluster);
        free(is);
}

static void a_disk_may_be_larger_than_2_tib(void **state)
{
        run(*state, co_write_large);
}

static void co_write_nothing(struct fixture *f)
{
        struct image *image = co_create(f, AS("qcow2", 0));

        co_finish(image);
        image = co_open(f);
        assert_int_equal(image->virtual_bytes, 0);
        co_expect_sound(image);
        image_close(image);
}

static void a_disk_may_be_empty(void **state)
{
        run(*state, co_write_nothing);
}

/* ---- what is not finished ---- */

static void co_expect_no_image(struct fixture *f)
{
        const struct image_driver *driver = NULL;
        bool guessed;

        assert_int_equal(co_image_probe(f->fd, "x.qcow2", &driver, &guessed, NULL), 0);
        assert_string_equal(driver->name, "raw");
}

static void co_stop_before_the_end(struct fixture *f)
{
        uint8_t *disk = make_disk(8 * MIB, 64 * KIB, 9);
        struct image *image;

        image = co_create(f, AS("qcow2", 8 * MIB));
        co_write_disk(image, disk, 8 * MIB, 9);
        co_finish(image);
        /* Over what was an image. */
        image = co_create(f, AS("qcow2", 8 * MIB));
        co_expect_no_image(f);
        co_write_disk(image, disk, 8 * MIB, 9);
        co_expect_no_image(f);
        image_close(image);
        co_expect_no_image(f);
        free(disk);
}

static void what_is_not_finished_is_no_image(void **state)
{
        run(*state, co_stop_before_the_end);
}

static void co_fail_to_write(struct fixture *f)
{
        uint8_t *disk = make_disk(MIB, 64 * KIB, 1);
        struct image *image = co_create(f, AS("qcow2", MIB));
        int keep = dup(f->fd), null = open("/dev/null", O_RDONLY);
        struct error e = ERROR_INIT;

        memset(disk, 1, MIB);
        assert_int_equal(dup2(null, f->fd), f->fd);
        assert_int_equal(image->driver->co_write(image, disk, 64 * KIB, 0, &e), -EBADF);
        assert_non_null(strstr(e.message, "x.qcow2"));
        assert_int_equal(dup2(keep, f->fd), f->fd);
        assert_int_equal(image->driver->co_write(image, disk, 64 * KIB, 64 * KIB, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, &e), -EIO);
        assert_non_null(strstr(e.message, "x.qcow2"));
        image_close(image);
        co_expect_no_image(f);
        close(keep);
        close(null);
        free(disk);
}

static void a_write_that_failed_is_not_finished(void **state)
{
        run(*state, co_fail_to_write);
}

/* ---- what is refused ---- */

static void co_expect_refused(struct fixture *f, struct image_create_options options, int code,
                              const char *says)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        options.format = "qcow2";
        assert_int_equal(co_image_create(f->fd, "x.qcow2", &options, &image, &e), code);
        assert_null(image);
        assert_non_null(strstr(e.message, says));
}

static void co_refuse(struct fixture *f)
{
        static const uint32_t sizes[] = {1, 256, 511, 513, 65537, 4 * MIB, UINT32_C(1) << 31};
        struct image *image;

        co_expect_refused(f, (struct image_create_options){.variant = "v4"}, -EINVAL, "'v4'");
        co_expect_refused(f, (struct image_create_options){.compression = "lzo"}, -EINVAL, "'lzo'");
        co_expect_refused(f, (struct image_create_options){.variant = "v2", .compression = "zstd"},
                          -EINVAL, "v2");
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                co_expect_refused(f, (struct image_create_options){.cluster_bytes = sizes[i]},
                                  -EINVAL, "clusters of");
        /* 4 Mi entries of an L1 table, 64 of an L2 table. */
        co_expect_refused(f,
                          (struct image_create_options){.cluster_bytes = 512,
                                                        .virtual_bytes = (UINT64_C(1) << 37) + 1},
                          -EFBIG, "137438953472");
        co_expect_refused(
            f, (struct image_create_options){.cluster_bytes = 2 * MIB, .virtual_bytes = UINT64_MAX},
            -EFBIG, "4 PiB");
        image = co_create(f, &(struct image_create_options){.format = "qcow2",
                                                            .cluster_bytes = 512,
                                                            .virtual_bytes = UINT64_C(1) << 37});
        co_finish(image);
        image = co_open(f);
        co_expect_sound(image);
        image_close(image);
}

static void what_the_format_cannot_hold_is_refused(void **state)
{
        run(*state, co_refuse);
}

#define write_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            write_test(every_variant_reads_back_and_is_sound),
            write_test(calls_may_be_long),
            write_test(data_lie_in_the_order_of_the_disk),
            write_test(zeroes_take_no_space_and_compressed_clusters_share_theirs),
            write_test(a_disk_may_be_larger_than_2_tib),
            write_test(a_disk_may_be_empty),
            write_test(what_is_not_finished_is_no_image),
            write_test(a_write_that_failed_is_not_finished),
            write_test(what_the_format_cannot_hold_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
