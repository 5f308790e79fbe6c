/* fuzz_qcow2_write.c - qcow2 images as they are written, by calls of all lengths: sound, and read back the same; then
 * any of their tables says anything, and they are checked and read again. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "formats/image.h"
#include "formats/qcow2_format.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t __sanitizer_get_current_allocated_bytes(void);

#define DISK_MAX   (1u << 18)
#define MEMORY_MAX ((size_t)24 << 20)

struct scene {
        struct loop *loop;
        struct input *in;
        int fd;
        size_t allocated; /* before the input: libFuzzer has memory, too */
        uint8_t disk[DISK_MAX], is[DISK_MAX];
};

/* ---- writing ---- */

/* Some clusters of the disk: zero, one byte, or what cannot be compressed. */
static void make_content(struct scene *s, uint8_t *to, size_t n, uint8_t kind)
{
        uint32_t noise = kind;

        if ((kind & 3) == 0)
                return;
        memset(to, kind, n);
        for (size_t i = 0; i < n && (kind & 2); i++) {
                noise = noise * 1664525u + 1013904223u;
                if (kind & 1 || i % 64 < 16)
                        to[i] = (uint8_t)(noise >> 24);
        }
}

static void co_write_all(struct scene *s, struct image *image)
{
        uint64_t at = 0;
        struct error err = ERROR_INIT;

        while (at < image->virtual_bytes) {
                uint8_t kind = input_u8(s->in);
                uint64_t n = (1u + (kind >> 3)) * (uint64_t)image->write_unit;
                int r;

                if (n > image->virtual_bytes - at)
                        n = image->virtual_bytes - at;
                /* What is not written stays as it is. */
                if ((kind & 7) != 4) {
                        make_content(s, s->disk + at, n, kind);
                        r = kind & 3 ? image->driver->co_write(image, s->disk + at, n, at, &err)
                                     : image->driver->co_zero(image, at, n, &err);
                        assert(r == 0);
                }
                at += n;
        }
}

static void co_make(struct scene *s)
{
        static const char *const compressions[] = {NULL, "zlib", "zstd"};
        uint8_t how = input_u8(s->in);
        struct image_create_options options = {.format = "qcow2",
                                               .cluster_bytes = 512u << how % 9,
                                               .variant = how & 0x80 ? "v2" : "v3",
                                               .compression = compressions[input_u8(s->in) % 3]};
        struct image *image = NULL;
        struct error err = ERROR_INIT;
        int r;

        if (how & 0x80 && options.compression)
                options.compression = "zlib";
        options.virtual_bytes = input_u32(s->in) % (DISK_MAX + 1);
        memset(s->disk, 0, sizeof(s->disk));
        r = co_image_create(s->fd, "image", &options, &image, &err);
        assert(r == 0);
        co_write_all(s, image);
        r = image->driver->co_finish(image, &err);
        assert(r == 0);
        image_close(image);
}

/* ---- reading ---- */

static struct image *co_open(struct scene *s)
{
        const struct image_options options = {.format = "qcow2", .alone = true};
        struct image *image = NULL;
        struct error err = ERROR_INIT;
        int r = co_image_open(s->fd, "image", &options, &image, &err);

        assert(r == 0 || err.message[0]);
        return image;
}

static void report(struct image_check *check, const char *sentence)
{
        assert(sentence[0]);
}

static int co_check(const struct scene *s, struct image *image, struct image_check *check)
{
        struct error err = ERROR_INIT;
        int r;

        *check = (struct image_check){.report = report};
        r = image->driver->co_check(image, check, &err);
        assert(r == 0 || err.message[0]);
        assert(__sanitizer_get_current_allocated_bytes() - s->allocated < MEMORY_MAX);
        return r;
}

static void co_expect_same(struct scene *s)
{
        struct image *image = co_open(s);
        struct image_check check;
        struct error err = ERROR_INIT;
        int r;

        assert(image && image->virtual_bytes <= DISK_MAX);
        r = image->driver->co_read(image, s->is, image->virtual_bytes, 0, &err);
        assert(r == 0 && memcmp(s->is, s->disk, image->virtual_bytes) == 0);
        r = co_check(s, image, &check);
        assert(r == 0 && check.n_errors == 0 && check.n_leaks == 0);
        assert(check.end_bytes == image->file_bytes && check.allocated_bytes == image->file_bytes);
        image_close(image);
}

/* ---- damage ---- */

static uint64_t field(struct scene *s, uint64_t at)
{
        uint8_t bytes[8] = {0};

        if (pread(s->fd, bytes, sizeof(bytes), (off_t)at) < 0)
                return 0;
        return qcow2_get64(bytes);
}

/* An entry of the L1 table, of its first L2 table, of the refcount table, of its first block, or any place. */
static void spoil(struct scene *s)
{
        uint8_t kind = input_u8(s->in), bytes[8];
        uint64_t end = (uint64_t)lseek(s->fd, 0, SEEK_END), at = input_u16(s->in), value;

        switch (kind & 7) {
        case 0:
                at = field(s, QCOW2_L1_OFFSET_AT) + at % 64 * 8;
                break;
        case 1:
        case 2:
                at = (field(s, field(s, QCOW2_L1_OFFSET_AT)) & QCOW2_OFFSET_MASK) + at % 64 * 8;
                break;
        case 3:
                at = field(s, QCOW2_REFCOUNT_TABLE_OFFSET_AT) + at % 4 * 8;
                break;
        case 4:
                at = field(s, field(s, QCOW2_REFCOUNT_TABLE_OFFSET_AT)) + at % 512;
                break;
        case 5:
                at %= QCOW2_V3_HEADER_SIZE_COMPRESSION;
                break;
        default:
                at = at * 16 % end;
        }
        if (at + sizeof(bytes) > end)
                return;
        value = kind & 8 ? input_number(s->in, end) : field(s, at) ^ UINT64_C(1) << (kind >> 2);
        qcow2_put64(bytes, value);
        if (pwrite(s->fd, bytes, sizeof(bytes), (off_t)at) != (ssize_t)sizeof(bytes))
                abort();
}

static void co_look_at_damage(struct scene *s)
{
        struct image *image = co_open(s);
        struct image_check check;
        uint64_t n;

        if (!image)
                return;
        co_check(s, image, &check);
        n = image->virtual_bytes < DISK_MAX ? image->virtual_bytes : DISK_MAX;
        for (uint64_t at = 0, step = n / 8 + 1; at < n; at += step) {
                struct error err = ERROR_INIT;
                size_t length = (size_t)(step < n - at ? step : n - at);
                int r = image->driver->co_read(image, s->is, length, at, &err);

                assert(r == 0 || err.message[0]);
        }
        image_close(image);
}

static void co_play(void *arg)
{
        struct scene *s = arg;
        uint8_t n;

        co_make(s);
        co_expect_same(s);
        for (n = input_u8(s->in) & 7; n > 0; n--)
                spoil(s);
        if (input_u8(s->in) & 1 &&
            ftruncate(s->fd, (off_t)(input_number(s->in, DISK_MAX) & 0xffffffffff)) < 0)
                abort();
        co_look_at_damage(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct scene scene; /* one at a time */
        struct scene *s = &scene;
        struct input in = {data, size};

        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
                s->fd = memfd_create("image", MFD_CLOEXEC);
                if (s->fd < 0)
                        abort();
        }
        fuzz_loop_reset(s->loop);
        s->in = &in;
        s->allocated = __sanitizer_get_current_allocated_bytes();
        fuzz_loop_co_run(s->loop, co_play, s, UINT64_C(1) * 1000000000);
        fuzz_loop_reset(s->loop);
        return 0;
}
