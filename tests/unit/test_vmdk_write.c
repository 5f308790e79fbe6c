/* test_vmdk_write.c - VMDK images that are written: read back as they were given, refused while they are
 * not finished; and stream-optimized ones with damage. */
#include "common/offload.h"
#include "formats/vmdk_write.h"
#include "tests/unit/vmdk_fixture.h"

static const char *const variants[] = {"monolithicSparse", "streamOptimized", "monolithicFlat",
                                       "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"};
#define N_VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* ---- written by several coroutines, begun in order ---- */

struct writer {
        struct image *image;
        const uint8_t *data;
        uint64_t next; /* what nobody has taken yet */
        unsigned n_running;
        uint32_t random;
        struct co *waiting;
};

static uint32_t next_random(uint32_t *state)
{
        *state = *state * 1664525u + 1013904223u;
        return *state >> 8;
}

static void co_write_some(void *arg)
{
        struct writer *w = arg;
        struct image *image = w->image;

        while (w->next < image->virtual_bytes) {
                uint64_t at = w->next, left = image->virtual_bytes - at;
                uint64_t n = (next_random(&w->random) % 9 + 1) * image->write_unit;

                n = n < left ? n : left;
                w->next += n;
                if (image_is_zero(w->data + at, n))
                        assert_int_equal(image->driver->co_zero(image, at, n, NULL), 0);
                else
                        assert_int_equal(image->driver->co_write(image, w->data + at, n, at, NULL),
                                         0);
        }
        if (--w->n_running == 0)
                co_wake(w->waiting);
}

static void co_write_all(struct image *image, const uint8_t *data, uint32_t seed)
{
        struct writer w = {
            .image = image, .data = data, .n_running = 4, .random = seed, .waiting = co_self()};

        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(co_spawn(co_loop(), co_write_some, &w), 0);
        while (w.n_running > 0)
                co_suspend();
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
}

static void fill(uint8_t *data, size_t length, uint32_t seed)
{
        memset(data, 0, length);
        for (size_t at = 0; at < length;) {
                uint32_t kind = next_random(&seed) % 4;
                size_t n = next_random(&seed) % (300 * KIB) + 1;

                n = n < length - at ? n : length - at;
                for (size_t i = 0; kind > 1 && i < n; i++)
                        data[at + i] = kind == 2 ? (uint8_t)next_random(&seed) : (uint8_t)(i / 7);
                at += n;
        }
}

/* ---- and read by several, in pieces of any length ---- */

struct reader {
        struct image *image;
        const uint8_t *data;
        unsigned n_running;
        uint32_t random;
        struct co *waiting;
};

static void co_read_some(void *arg)
{
        struct reader *r = arg;
        uint8_t *piece = malloc(MIB);
        uint64_t size = r->image->virtual_bytes;

        for (unsigned i = 0; i < 60; i++) {
                uint64_t at = next_random(&r->random) % size, n = next_random(&r->random) % MIB;

                if (next_random(&r->random) % 2)
                        n %= 9000;
                n = n < size - at ? n : size - at;
                assert_int_equal(r->image->driver->co_read(r->image, piece, n, at, NULL), 0);
                assert_memory_equal(piece, r->data + at, n);
        }
        free(piece);
        if (--r->n_running == 0)
                co_wake(r->waiting);
}

static void co_compare(struct image *image, const uint8_t *data, uint64_t size)
{
        uint8_t *all = malloc(image->virtual_bytes);
        struct reader r = {
            .image = image, .data = all, .n_running = 4, .random = 7, .waiting = co_self()};
        struct image_check check = {0};
        struct image_extent e;

        assert_int_equal(image->virtual_bytes, (size + 511) / 512 * 512);
        assert_int_equal(image->driver->co_read(image, all, image->virtual_bytes, 0, NULL), 0);
        assert_memory_equal(all, data, size);
        assert_true(image_is_zero(all + size, image->virtual_bytes - size));
        for (uint64_t at = 0; at < size; at += e.length) {
                assert_int_equal(image->driver->co_extent(image, at, &e, NULL), 0);
                assert_true(e.length > 0 && e.length <= image->virtual_bytes - at);
                assert_true(!e.zero || image_is_zero(all + at, e.length));
        }
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(co_spawn(co_loop(), co_read_some, &r), 0);
        while (r.n_running > 0)
                co_suspend();
        assert_int_equal(image->driver->co_check(image, &check, NULL), 0);
        assert_int_equal(check.n_errors, 0);
        free(all);
}

static void co_round_trip(struct fixture *f, const char *variant, uint32_t cluster, uint64_t size)
{
        struct named_files n;
        struct offload *offload = offload_new(2);
        struct image_create_options create = {.format = "vmdk",
                                              .virtual_bytes = size,
                                              .variant = variant,
                                              .cluster_bytes = cluster,
                                              .opener = &n.opener,
                                              .offload = offload};
        struct image_options open = {.opener = &n.opener, .offload = offload};
        struct image *image;
        struct error e = ERROR_INIT;
        uint8_t *data = malloc(size);

        named_init(&n);
        fill(data, size, (uint32_t)size + cluster);
        put_at(f->fd, "rubbish", 7, 3 * MIB);
        if (co_image_create(f->fd, "dir/x.vmdk", &create, &image, &e) < 0)
                fail_msg("%s", e.message);
        co_write_all(image, data, (uint32_t)size);
        image_close(image);
        if (co_image_open(f->fd, "dir/x.vmdk", &open, &image, &e) < 0)
                fail_msg("%s", e.message);
        assert_string_equal(image->info.variant, variant ? variant : variants[0]);
        co_compare(image, data, size);
        image_close(image);
        free(data);
        named_close(&n);
        offload_free(offload);
}

static void co_round_trips(struct fixture *f)
{
        for (size_t i = 0; i < N_VARIANTS; i++) {
                co_round_trip(f, variants[i], 0, 40 * MIB + 3 * 512);
                co_round_trip(f, variants[i], 0, 64 * KIB);
                co_round_trip(f, variants[i], 0, 700 * KIB + 77); /* no whole sectors */
        }
        co_round_trip(f, NULL, 8192, 10 * MIB); /* several grain tables */
        co_round_trip(f, "streamOptimized", 8192, 10 * MIB);
        co_round_trip(f, "streamOptimized", 2 * MIB, 10 * MIB + 512);
}

static void what_was_written_is_read_back(void **state)
{
        run(*state, co_round_trips);
}

static void co_unfinished(struct fixture *f)
{
        static uint8_t data[MIB];

        memset(data, 1, sizeof(data));
        for (size_t i = 0; i < N_VARIANTS; i++) {
                struct named_files n;
                struct image_create_options create = {.format = "vmdk",
                                                      .virtual_bytes = MIB,
                                                      .variant = variants[i],
                                                      .opener = &n.opener};
                struct image_options open = {.opener = &n.opener};
                struct image *image, *other = NULL;
                struct error e = ERROR_INIT;

                named_init(&n);
                assert_int_equal(co_image_create(f->fd, "x.vmdk", &create, &image, NULL), 0);
                assert_int_equal(co_image_open(f->fd, "x.vmdk", &open, &other, &e), -EBADMSG);
                assert_int_equal(image->driver->co_write(image, data, sizeof(data), 0, NULL), 0);
                assert_int_equal(co_image_open(f->fd, "x.vmdk", &open, &other, &e), -EBADMSG);
                image_close(image);
                assert_int_equal(co_image_open(f->fd, "x.vmdk", &open, &other, &e), -EBADMSG);
                named_close(&n);
        }
}

static void an_image_that_is_not_finished_is_no_image(void **state)
{
        run(*state, co_unfinished);
}

/* What takes long to deflate comes first, and must lie first. */
struct two {
        struct image *image;
        uint8_t *data;
        size_t first; /* bytes of the first call; the second has one grain */
        unsigned n_running;
        struct co *waiting;
};

static void co_write_half(void *arg)
{
        struct two *t = arg;
        bool second = t->n_running++ == 1;
        size_t at = second ? t->first : 0, n = second ? 64 * KIB : t->first;

        assert_int_equal(t->image->driver->co_write(t->image, t->data + at, n, at, NULL), 0);
        if (--t->n_running == 0)
                co_wake(t->waiting);
}

static void co_in_order(struct fixture *f)
{
        struct two t = {.first = 8 * MIB, .waiting = co_self()};
        struct offload *offload = offload_new(2);
        struct image_create_options create = {.format = "vmdk",
                                              .virtual_bytes = t.first + 64 * KIB,
                                              .compression = "zlib",
                                              .offload = offload};
        struct vmdk *v;
        uint64_t table;
        uint32_t last = 0, gte;

        t.data = malloc(create.virtual_bytes);
        for (size_t i = 0; i < create.virtual_bytes; i++)
                t.data[i] = (uint8_t)(i * i >> 9);
        assert_int_equal(co_image_create(f->fd, "x.vmdk", &create, &t.image, NULL), 0);
        assert_int_equal(co_spawn(co_loop(), co_write_half, &t), 0);
        assert_int_equal(co_spawn(co_loop(), co_write_half, &t), 0);
        while (t.n_running > 0)
                co_suspend();
        assert_int_equal(t.image->driver->co_finish(t.image, NULL), 0);
        image_close(t.image);
        assert_int_equal(co_image_open(f->fd, "x.vmdk", NULL, &t.image, NULL), 0);
        v = t.image->state;
        assert_int_equal(co_vmdk_table(&v->cache, &v->extents[0].sparse, 0, &table, NULL), 0);
        for (unsigned i = 0; i <= t.first / (64 * KIB); i++) {
                assert_int_equal(
                    co_vmdk_entry(&v->cache, &v->extents[0].sparse, table + 4 * i, &gte, NULL), 0);
                assert_true(gte > last);
                last = gte;
        }
        image_close(t.image);
        free(t.data);
        offload_free(offload);
}

static void compressed_grains_lie_in_ascending_order(void **state)
{
        run(*state, co_in_order);
}

/* ---- what is refused ---- */

static void co_refuse_create(struct fixture *f)
{
        static const struct {
                const char *path, *words;
                struct image_create_options options;
                int code;
        } bad[] = {
            {"x", "no variant 'thick'", {.variant = "thick"}, -EINVAL},
            {"x", "no compression 'zstd'", {.compression = "zstd"}, -EINVAL},
            {"x",
             "is not compressed",
             {.variant = "monolithicFlat", .compression = "zlib"},
             -EINVAL},
            {"x", "power of two", {.cluster_bytes = 4096}, -EINVAL},
            {"x", "power of two", {.cluster_bytes = 4 * MIB}, -EINVAL},
            {"x", "power of two", {.cluster_bytes = 65536 + 512}, -EINVAL},
            {"x", "no clusters", {.variant = "monolithicFlat", .cluster_bytes = 65536}, -EINVAL},
            {"x", "1 MiB", {.variant = "twoGbMaxExtentSparse", .cluster_bytes = 2 * MIB}, -EINVAL},
            {"x", "64 TiB", {.virtual_bytes = (UINT64_C(64) << 40) + 512}, -EFBIG},
            {"a\"b.vmdk", "character", {0}, -EINVAL},
            {"x", "needs another file, 'x-flat.vmdk'", {.variant = "monolithicFlat"}, -EPERM},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct image_create_options options = bad[i].options;
                struct image *image = NULL;
                struct error e = ERROR_INIT;

                options.format = "vmdk";
                if (options.virtual_bytes == 0)
                        options.virtual_bytes = MIB;
                assert_int_equal(co_image_create(f->fd, bad[i].path, &options, &image, &e),
                                 bad[i].code);
                assert_null(image);
                if (!strstr(e.message, bad[i].words))
                        fail_msg("'%s' is not in: %s", bad[i].words, e.message);
        }
}

static void what_cannot_be_made_is_refused(void **state)
{
        run(*state, co_refuse_create);
}

static void co_too_long(struct fixture *f)
{
        static uint8_t data[64 * KIB] = {1};

        for (unsigned i = 0; i < 2; i++) {
                struct image_create_options options = {
                    .format = "vmdk", .virtual_bytes = MIB, .variant = variants[i]};
                struct image *image;
                struct vmdk_out *out;
                struct error e = ERROR_INIT;

                assert_int_equal(co_image_create(f->fd, "x", &options, &image, NULL), 0);
                out = image->state; /* as if 2 TiB had been written */
                out->parts[0].sparse.next_sector = UINT64_C(1) << 32;
                out->stream.next_sector = UINT64_C(1) << 32;
                assert_int_equal(image->driver->co_write(image, data, sizeof(data), 0, &e), -EFBIG);
                assert_non_null(strstr(e.message, "2 TiB"));
                assert_int_equal(image->driver->co_write(image, data, 65536, 65536, &e) < 0, 1);
                assert_int_equal(image->driver->co_finish(image, &e), -EIO);
                image_close(image);
        }
}

static void a_file_that_would_be_too_long_is_not_finished(void **state)
{
        run(*state, co_too_long);
}

/* ---- damage in stream-optimized files ---- */

#define FIRST (128u * 512) /* the first grain's marker */

static void co_make_stream(struct fixture *f)
{
        static uint8_t data[MIB];
        struct image_create_options options = {
            .format = "vmdk", .virtual_bytes = MIB, .compression = "zlib"};
        struct image *image;

        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)(i / 1000 * 7 + i % 13);
        assert_int_equal(co_image_create(f->fd, "x.vmdk", &options, &image, NULL), 0);
        assert_int_equal(image->driver->co_write(image, data, sizeof(data), 0, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
}

static void co_damaged_read(struct fixture *f, unsigned at, uint32_t value, const char *words)
{
        static uint8_t data[256 * KIB];
        struct image *image;
        struct error e = ERROR_INIT;

        co_make_stream(f);
        put32(f->fd, value, at);
        assert_int_equal(co_image_open(f->fd, "x.vmdk", NULL, &image, NULL), 0);
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 0, &e), -EBADMSG);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in: %s", words, e.message);
        assert_non_null(strstr(e.message, "at offset 65536"));
        /* Others are read as before. */
        assert_int_equal(image->driver->co_read(image, data, 4096, 512 * KIB, NULL), 0);
        image_close(image);
}

static void co_damage_grains(struct fixture *f)
{
        uint8_t byte;

        co_damaged_read(f, FIRST, 128, "another one");
        co_damaged_read(f, FIRST + 8, 0, "length");
        co_damaged_read(f, FIRST + 8, 128 * KIB + 1, "length");
        co_damaged_read(f, FIRST + 8, UINT32_MAX, "length");
        co_damaged_read(f, FIRST + 8, 60 * KIB, "reaches into");
        co_damaged_read(f, FIRST + 8, 20, "inflated");
        co_damaged_read(f, FIRST + 12, 0, "inflated"); /* no zlib stream */
        co_make_stream(f);
        assert_int_equal(pread(f->fd, &byte, 1, FIRST + 300), 1);
        co_damaged_read(f, FIRST + 300, ~(uint32_t)byte, "inflated");
}

static void each_damage_of_a_compressed_grain_is_a_sentence(void **state)
{
        run(*state, co_damage_grains);
}

static uint32_t number_at(int fd, uint64_t at)
{
        le32 n;

        assert_int_equal(pread(fd, &n, sizeof(n), (off_t)at), sizeof(n));
        return le32_get(n);
}

/* As CVE-2026-2243 in QEMU's driver: a grain begins so near to the file's end that its marker is not there. */
static void co_cut_marker(struct fixture *f)
{
        uint8_t data[512];
        struct error e = ERROR_INIT;
        struct image *image;
        uint64_t end, table;

        for (unsigned left = 1; left < 14; left++) {
                co_make_stream(f);
                end = (uint64_t)lseek(f->fd, 0, SEEK_END);
                table = number_at(f->fd, UINT64_C(512) * number_at(f->fd, end - 1024 + 56)) * 512;
                put32(f->fd, (uint32_t)(end / 512), table);
                put_at(f->fd, "\0\0\0\0\0\0\0\0\1\0\0\0\x78", left, end);
                assert_int_equal(co_image_open(f->fd, "x.vmdk", NULL, &image, &e), 0);
                assert_int_equal(image->driver->co_read(image, data, sizeof(data), 0, &e),
                                 -EBADMSG);
                if (!strstr(e.message, left < 12    ? "is cut off"
                                       : left == 12 ? "reaches into"
                                                    : "cannot be inflated"))
                        fail_msg("%u: %s", left, e.message);
                image_close(image);
        }
}

static void a_grain_whose_marker_is_cut_off_is_damaged(void **state)
{
        run(*state, co_cut_marker);
}

static void co_damage_footer(struct fixture *f)
{
        static const struct {
                int from_end;
                uint32_t value;
                const char *words;
        } bad[] = {
            {1536 - 12, 2, "no footer"}, /* another marker */
            {1536 - 8, 1, "no footer"},  /* a grain's */
            {512, 1, "no footer"},       /* no end */
            {1024, 0, "has no magic"},   /* no header in it */
            {1024 - 56, 1 << 20, "directory outside"},
            {1024 - 56, UINT32_MAX, "directory outside"},
        };
        struct image *image = NULL;
        struct error e = ERROR_INIT;
        off_t end;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                co_make_stream(f);
                end = lseek(f->fd, 0, SEEK_END);
                put32(f->fd, bad[i].value, (uint64_t)(end - bad[i].from_end));
                assert_int_equal(co_image_open(f->fd, "x.vmdk", NULL, &image, &e), -EBADMSG);
                if (!strstr(e.message, bad[i].words))
                        fail_msg("'%s' is not in: %s", bad[i].words, e.message);
        }
        co_make_stream(f);
        assert_int_equal(ftruncate(f->fd, end - 512), 0);
        assert_int_equal(co_image_open(f->fd, "x.vmdk", NULL, &image, &e), -EBADMSG);
        assert_non_null(strstr(e.hint, "not copied"));
        assert_int_equal(ftruncate(f->fd, 1024), 0);
        assert_int_equal(co_image_open(f->fd, "x.vmdk", NULL, &image, &e), -EBADMSG);
}

static void a_stream_without_its_end_is_refused(void **state)
{
        run(*state, co_damage_footer);
}

#define vmdk_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            vmdk_test(what_was_written_is_read_back),
            vmdk_test(an_image_that_is_not_finished_is_no_image),
            vmdk_test(compressed_grains_lie_in_ascending_order),
            vmdk_test(what_cannot_be_made_is_refused),
            vmdk_test(a_file_that_would_be_too_long_is_not_finished),
            vmdk_test(each_damage_of_a_compressed_grain_is_a_sentence),
            vmdk_test(a_grain_whose_marker_is_cut_off_is_damaged),
            vmdk_test(a_stream_without_its_end_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
