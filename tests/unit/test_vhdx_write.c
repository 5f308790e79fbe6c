/* test_vhdx_write.c - VHDX files written: what is read from them, what lies in them, and what they
 * are before they are finished. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/unit/image_fixture.h"
#include "tests/unit/vhdx_made.h"

#define WRITERS 4u

/* A disk of random pieces, written by several at once. */
struct writers {
        struct image *image;
        uint8_t *expected;
        uint64_t next;
        unsigned n, seed;
        struct co_queue done;
};

static unsigned random_of(unsigned *seed, unsigned n)
{
        *seed = *seed * 1103515245 + 12345;
        return (*seed >> 16) % n;
}

static void co_writer(void *arg)
{
        struct writers *w = arg;
        struct image *image = w->image;

        while (w->next < image->virtual_bytes) {
                uint64_t offset = w->next, left = image->virtual_bytes - offset;
                uint64_t length = 4096 * (uint64_t)(1 + random_of(&w->seed, 700));
                unsigned kind = random_of(&w->seed, 4);

                length = length < left ? length : left;
                w->next += length;
                if (kind == 0)
                        continue;
                if (kind == 1) {
                        assert_int_equal(image->driver->co_zero(image, offset, length, NULL), 0);
                        continue;
                }
                memset(w->expected + offset, (int)(1 + random_of(&w->seed, 255)), length);
                assert_int_equal(
                    image->driver->co_write(image, w->expected + offset, length, offset, NULL), 0);
                co_yield_loop();
        }
        if (--w->n == 0)
                co_wake_all(&w->done);
}

static void co_write_random(struct fixture *f, struct image *image, unsigned seed,
                            uint8_t *expected)
{
        struct writers w = {.image = image, .expected = expected, .seed = seed, .n = WRITERS};

        co_queue_init(&w.done);
        for (unsigned i = 0; i < WRITERS; i++)
                assert_int_equal(co_spawn(f->loop, co_writer, &w), 0);
        if (w.n > 0)
                co_wait(&w.done);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
}

static void co_compare(struct image *image, const uint8_t *expected)
{
        uint8_t *data = test_malloc(image->virtual_bytes + 1);
        uint64_t offset = 0;

        assert_int_equal(image->driver->co_read(image, data, image->virtual_bytes, 0, NULL), 0);
        assert_memory_equal(data, expected, image->virtual_bytes);
        while (offset < image->virtual_bytes) {
                struct image_extent e;

                assert_int_equal(image->driver->co_extent(image, offset, &e, NULL), 0);
                assert_true(e.length > 0 && e.present);
                if (e.zero)
                        assert_true(image_is_zero(expected + offset, e.length));
                offset += e.length;
        }
        assert_int_equal(offset, image->virtual_bytes);
        test_free(data);
}

static void co_round_trips(struct fixture *f)
{
        static const struct image_create_options kinds[] = {
            {.format = "vhdx", .virtual_bytes = 40 * MIB, .cluster_bytes = MIB},
            {.format = "vhdx", .virtual_bytes = 40 * MIB + 512},
            {.format = "vhdx",
             .virtual_bytes = 33 * MIB - 512,
             .variant = "dynamic",
             .cluster_bytes = 2 * MIB},
            {.format = "vhdx", .virtual_bytes = 20 * MIB + 4096, .variant = "fixed"},
            {.format = "vhdx", .virtual_bytes = 3 * MIB, .cluster_bytes = 256 * MIB},
            {.format = "vhdx", .virtual_bytes = 512},
            {.format = "vhdx", .virtual_bytes = 0},
        };

        for (unsigned i = 0; i < 4 * sizeof(kinds) / sizeof(kinds[0]); i++) {
                const struct image_create_options *o = &kinds[i / 4];
                uint8_t *expected = test_calloc(1, o->virtual_bytes + 1);
                struct image *image;

                assert_int_equal(pwrite(f->fd, "what was here before", 20, 5 * MIB), 20);
                assert_int_equal(co_image_create(f->fd, "x", o, &image, NULL), 0);
                assert_true(image->write_unit > 0 && image->write_unit <= IMAGE_UNIT_MAX);
                co_write_random(f, image, i, expected);
                image_close(image);
                assert_int_equal(co_image_open(f->fd, "x", NULL, &image, NULL), 0);
                assert_string_equal(image->info.variant, o->variant ? o->variant : "dynamic");
                assert_int_equal(image->virtual_bytes, o->virtual_bytes);
                if (o->cluster_bytes)
                        assert_int_equal(image->info.cluster_bytes, o->cluster_bytes);
                co_compare(image, expected);
                image_close(image);
                test_free(expected);
        }
}

static void what_is_written_is_read(void **state)
{
        run(*state, co_round_trips);
}

static void co_unfinished(struct fixture *f)
{
        static const char *const variants[] = {"dynamic", "fixed"};

        for (unsigned i = 0; i < 2; i++) {
                struct image *image = NULL;
                struct error e = ERROR_INIT;

                assert_int_equal(
                    co_image_create(f->fd, "x",
                                    &(struct image_create_options){.format = "vhdx",
                                                                   .virtual_bytes = 16 * MIB,
                                                                   .variant = variants[i]},
                                    &image, NULL),
                    0);
                assert_int_equal(image->driver->co_write(image, "data", 4, 0, NULL), 0);
                image_close(image);
                image = NULL;
                assert_int_equal(co_image_open(f->fd, "x", NULL, &image, &e), -EBADMSG);
                assert_non_null(strstr(e.message, "never finished"));
                assert_null(image);
        }
}

static void an_unfinished_file_is_no_image(void **state)
{
        run(*state, co_unfinished);
}

static void co_large(struct fixture *f)
{
        static const uint64_t sizes[] = {UINT64_C(64) << 40, UINT64_C(3) << 40,
                                         (UINT64_C(200) << 30) + 512, UINT64_C(2) << 30};
        static const uint64_t blocks[] = {64 * MIB, 32 * MIB, 32 * MIB, 16 * MIB};

        for (unsigned i = 0; i < 4; i++) {
                struct image *image;
                struct image_extent extent;
                char data[512];
                struct stat st;

                assert_int_equal(co_image_create(f->fd, "x", AS("vhdx", sizes[i]), &image, NULL),
                                 0);
                memset(data, 'm', 512);
                assert_int_equal(
                    image->driver->co_write(image, data, 512, sizes[i] / 2 / 4096 * 4096, NULL), 0);
                memset(data, 'e', 512);
                assert_int_equal(
                    image->driver->co_write(image, data, 512, (sizes[i] - 512) / 4096 * 4096, NULL),
                    0);
                assert_int_equal(image->driver->co_finish(image, NULL), 0);
                image_close(image);
                assert_int_equal(fstat(f->fd, &st), 0);
                assert_true(st.st_blocks * 512 < 20 * MIB); /* most of it the BAT */
                assert_int_equal(co_image_open(f->fd, "x", NULL, &image, NULL), 0);
                assert_int_equal(image->info.cluster_bytes, blocks[i]);
                assert_int_equal(
                    image->driver->co_read(image, data, 512, (sizes[i] - 512) / 4096 * 4096, NULL),
                    0);
                assert_int_equal(data[511], 'e');
                assert_int_equal(
                    image->driver->co_read(image, data, 512, sizes[i] / 2 / 4096 * 4096, NULL), 0);
                assert_int_equal(data[0], 'm');
                assert_int_equal(image->driver->co_extent(image, 0, &extent, NULL), 0);
                assert_true(extent.zero && extent.present);
                image_close(image);
        }
}

static void a_large_disk_makes_a_small_file(void **state)
{
        run(*state, co_large);
}

static void co_options(struct fixture *f)
{
        static const struct {
                struct image_create_options options;
                int code;
                const char *words;
        } bad[] = {
            {{.virtual_bytes = MIB, .variant = "sparse"}, -EINVAL, "'sparse'"},
            {{.virtual_bytes = MIB, .compression = "zlib"}, -EINVAL, "compression"},
            {{.virtual_bytes = MIB, .cluster_bytes = 65536}, -EINVAL, "65536"},
            {{.virtual_bytes = MIB, .cluster_bytes = 3 * MIB}, -EINVAL, "power of two"},
            {{.virtual_bytes = MIB, .cluster_bytes = 512 * MIB}, -EINVAL, "256 MiB"},
            {{.virtual_bytes = (UINT64_C(64) << 40) + 512}, -EFBIG, "64 TiB"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct image_create_options options = bad[i].options;
                struct image *image = NULL;
                struct error e = ERROR_INIT;

                options.format = "vhdx";
                assert_int_equal(co_image_create(f->fd, "x", &options, &image, &e), bad[i].code);
                assert_non_null(strstr(e.message, bad[i].words));
                assert_null(image);
        }
}

static void what_the_format_has_not_is_refused(void **state)
{
        run(*state, co_options);
}

static void co_sectors(struct fixture *f)
{
        struct image *image;
        uint8_t data[1000], back[1024];

        memset(data, 'x', sizeof(data));
        assert_int_equal(co_image_create(f->fd, "x", AS("vhdx", 1000), &image, NULL), 0);
        assert_int_equal(image->virtual_bytes, 1024);
        assert_int_equal(image->driver->co_write(image, data, sizeof(data), 0, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
        assert_int_equal(co_image_open(f->fd, "x", NULL, &image, NULL), 0);
        assert_int_equal(image->virtual_bytes, 1024);
        assert_int_equal(image->driver->co_read(image, back, 1024, 0, NULL), 0);
        assert_memory_equal(back, data, 1000);
        assert_true(image_is_zero(back + 1000, 24));
        image_close(image);
}

static void a_size_is_rounded_up_to_whole_sectors(void **state)
{
        run(*state, co_sectors);
}

/* As tests/unit/test_raw.c does: with a pipe in the file's place nothing can be flushed. */
static void co_no_flush(struct fixture *f)
{
        struct image *image;
        struct error e = ERROR_INIT;
        int fds[2];

        assert_int_equal(co_image_create(f->fd, "x", AS("vhdx", MIB), &image, NULL), 0);
        assert_int_equal(pipe(fds), 0);
        assert_int_equal(dup2(fds[0], f->fd), f->fd);
        assert_true(image->driver->co_finish(image, &e) < 0);
        assert_non_null(strstr(e.message, "'x'"));
        image_close(image);
        close(fds[0]);
        close(fds[1]);
}

static void a_file_that_cannot_be_written_is_not_finished(void **state)
{
        run(*state, co_no_flush);
}

#define vhdx_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vhdx_test(what_is_written_is_read),
            vhdx_test(an_unfinished_file_is_no_image),
            vhdx_test(a_large_disk_makes_a_small_file),
            vhdx_test(what_the_format_has_not_is_refused),
            vhdx_test(a_size_is_rounded_up_to_whole_sectors),
            vhdx_test(a_file_that_cannot_be_written_is_not_finished),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
