/* fuzz_vmdk.c - VMDK images: plausible ones, with fields that say anything, tables that lead anywhere and
 * descriptors of words; opened, their extents walked, read and checked. And images that are written in
 * pieces, which must be read back as they were given. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "formats/vmdk_internal.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXTENTS_MAX 48u
#define FILE_MAX    (16u << 20)
#define WRITE_MAX   (1u << 20)
#define N_PARTS     4u

struct scene {
        struct image_opener opener;
        struct loop *loop;
        struct input *in;
        int fd;
        int parts[N_PARTS]; /* files that descriptors name: "p0" ... */
        unsigned n_new;
};

static const char *const words[] = {"# Disk DescriptorFile\n",
                                    "CID=",
                                    "parentCID=ffffffff\n",
                                    "parentCID=1\n",
                                    "parentFileNameHint=\"p0\"\n",
                                    "createType=\"monolithicSparse\"\n",
                                    "RW ",
                                    "RDONLY ",
                                    "NOACCESS ",
                                    "SPARSE ",
                                    "FLAT ",
                                    "ZERO\n",
                                    "VMFSSPARSE ",
                                    "\"p0\"",
                                    "\"p1\" ",
                                    "\"p2\"\n",
                                    "\"p3\"\n",
                                    "\r\n",
                                    "version=1\n",
                                    "\"",
                                    "=",
                                    "1024 ",
                                    "8 ",
                                    "1\n"};

static int open_part(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct scene *s = (struct scene *)opener;
        unsigned i = use == IMAGE_NEW_PART       ? s->n_new++
                     : name[0] == 'p' && name[1] ? (unsigned)(uint8_t)name[1] - '0'
                                                 : (unsigned)strtoul(name + 3, NULL, 10) - 1;

        if (strstr(name, "-flat"))
                i = 0;
        if (i >= N_PARTS)
                return error_set(err, -ENOENT, "'%s' names '%s'", from, name);
        *ret_fd = dup(s->parts[i]);
        *ret_path = strdup(name);
        assert(*ret_fd >= 0 && *ret_path);
        return 0;
}

static void put(int fd, const void *data, size_t length, uint64_t at)
{
        if (at + length <= FILE_MAX && pwrite(fd, data, length, (off_t)at) != (ssize_t)length)
                abort();
}

static void put32(int fd, uint32_t value, uint64_t at)
{
        le32 v = le32_make(value);

        put(fd, &v, sizeof(v), at);
}

static void put_text(struct scene *s, int fd, uint64_t at)
{
        static struct output out;

        out.n = 0;
        for (unsigned n = input_u8(s->in) % 16; n > 0; n--)
                input_words(s->in, words, sizeof(words) / sizeof(words[0]), &out);
        put(fd, out.bytes, out.n < 4096 ? out.n : 4096, at);
}

/* A header that could be right, but for at most some of its fields. */
static void put_header(struct scene *s, int fd, uint64_t at)
{
        uint8_t shape = input_u8(s->in);
        uint64_t capacity = input_number(s->in, 4096);
        uint32_t grain = 1u << input_u8(s->in) % 9;
        struct vmdk_header_disk h = {
            .magic = le32_make(VMDK_MAGIC),
            .version = le32_make(1 + shape % 3),
            .flags = le32_make(
                (shape & 4 ? VMDK_FLAG_REDUNDANT : 0) | (shape & 8 ? VMDK_FLAG_ZERO_GRAINS : 0) |
                (shape & 16 ? VMDK_FLAG_COMPRESSED : 0) | (shape & 32 ? VMDK_FLAG_MARKERS : 0)),
            .capacity = le64_make(capacity),
            .grain_size = le64_make(grain),
            .descriptor_offset = le64_make(shape & 64 ? 1 : 0),
            .descriptor_size = le64_make(shape & 64 ? 4 : 0),
            .gtes_per_gt = le32_make(512),
            .rgd_offset = le64_make(6),
            .gd_offset = le64_make(shape & 128 ? VMDK_GD_AT_END : 7),
            .overhead = le64_make(128),
            .newlines = {'\n', ' ', '\r', '\n'},
            .compress_algorithm = le16_make(shape & 16 ? 1 : 0),
        };

        for (unsigned n = input_u8(s->in) % 4; n > 0; n--) {
                uint8_t where = input_u8(s->in) % 80;
                le64 v = le64_make(input_number(s->in, 1u << 20));

                memcpy((uint8_t *)&h + where, &v, where % 2 ? 4 : 8);
        }
        put(fd, &h, sizeof(h), at);
}

static void put_cowd(struct scene *s, int fd)
{
        struct vmdk_cowd_disk h = {
            .magic = le32_make(VMDK_COWD_MAGIC),
            .version = le32_make(1),
            .capacity = le32_make((uint32_t)input_number(s->in, 4096)),
            .grain_size = le32_make(1u << input_u8(s->in) % 9),
            .gd_offset = le32_make(7),
            .n_gdes = le32_make(input_u8(s->in)),
        };

        put(fd, &h, sizeof(h), 0);
}

/* Entries of directories and tables, grains' markers, and bytes. */
static void put_more(struct scene *s, int fd)
{
        const uint8_t *bytes;

        for (unsigned n = input_u8(s->in) % 32; n > 0; n--) {
                uint8_t kind = input_u8(s->in);
                uint32_t index = input_u8(s->in), value = (uint32_t)input_number(s->in, 256);

                if (kind % 4 == 0) {
                        put32(fd, value, (6 + (kind >> 4) % 2) * 512 + index % 8 * 4);
                } else if (kind % 4 == 1) {
                        put32(fd, value, 8 * 512 + index * 4);
                } else if (kind % 4 == 2) {
                        put32(fd, value, (uint64_t)index * 512 + (kind >> 4) % 4 * 4);
                } else {
                        size_t length = input_take(s->in, value % 64, &bytes);

                        if (length)
                                put(fd, bytes, length, (uint64_t)index * 512);
                }
        }
}

static void put_footer(struct scene *s, int fd)
{
        struct vmdk_marker_disk marker = {.value = le64_make(1),
                                          .type = le32_make(VMDK_MARKER_FOOTER)};
        uint64_t end = (uint64_t)lseek(fd, 0, SEEK_END) / 512 * 512;

        put(fd, &marker, sizeof(marker), end);
        put_header(s, fd, end + 512);
        if (ftruncate(fd, (off_t)end + 1536) < 0)
                abort();
}

static void make_file(struct scene *s, int fd)
{
        uint8_t kind = input_u8(s->in);

        if (ftruncate(fd, 0) < 0 ||
            ftruncate(fd, (off_t)(input_number(s->in, 256 * 512) & (FILE_MAX - 1))) < 0)
                abort();
        if (kind % 4 == 0) {
                put_text(s, fd, 0);
                return;
        }
        if (kind % 4 == 1)
                put_cowd(s, fd);
        else
                put_header(s, fd, 0);
        if (kind & 4)
                put_text(s, fd, 512);
        put32(fd, 8, 7 * 512);
        put_more(s, fd);
        if (kind & 8)
                put_footer(s, fd);
}

static void co_look(struct image *image, uint64_t offset, const struct image_extent *extent)
{
        static uint8_t data[300 << 10];
        size_t length = extent->length < sizeof(data) ? extent->length : sizeof(data);
        struct error err = ERROR_INIT;
        int r = image->driver->co_read(image, data, length, offset, &err);

        assert(r == 0 ? !extent->zero || image_is_zero(data, length) : err.message[0] != 0);
}

static void co_walk(struct scene *s, struct image *image)
{
        struct image_check check = {0};
        struct error err = ERROR_INIT;
        uint64_t offset = 0;
        int r;

        for (unsigned i = 0; i < EXTENTS_MAX && offset < image->virtual_bytes; i++) {
                struct image_extent extent;

                r = image->driver->co_extent(image, offset, &extent, &err);
                if (r < 0) {
                        assert(err.message[0]);
                        break;
                }
                assert(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
                co_look(image, offset, &extent);
                offset += extent.length;
                if (input_u8(s->in) & 1)
                        offset += input_number(s->in, image->virtual_bytes) % (1u << 30);
        }
        r = image->driver->co_check(image, &check, &err);
        assert(r == 0 || err.message[0]);
}

static void co_read_any(struct scene *s)
{
        struct image_options options = {.format = "vmdk", .opener = &s->opener};
        struct error err = ERROR_INIT;
        struct image *image;

        make_file(s, s->fd);
        for (unsigned i = 0; i < 2; i++)
                make_file(s, s->parts[i]);
        options.alone = input_u8(s->in) & 1;
        if (co_image_open(s->fd, "image", &options, &image, &err) < 0) {
                assert(err.message[0]);
                return;
        }
        co_walk(s, image);
        image_close(image);
}

/* In ascending order, with holes, some of it zeroes. */
static void co_write_pieces(struct scene *s, struct image *image, uint8_t *copy)
{
        uint64_t at = 0, size = image->virtual_bytes;

        while (at < size) {
                uint8_t kind = input_u8(s->in);
                uint64_t n = (1 + kind % 5) * (uint64_t)image->write_unit;

                n = n < size - at ? n : size - at;
                if (kind & 32) {
                        for (uint64_t i = 0; i < n; i++)
                                copy[at + i] = (uint8_t)(kind & 64 ? kind : i * kind >> 3);
                        assert(image->driver->co_write(image, copy + at, n, at, NULL) == 0);
                } else if (kind & 64) {
                        assert(image->driver->co_zero(image, at, n, NULL) == 0);
                }
                at += n;
        }
        assert(image->driver->co_finish(image, NULL) == 0);
}

static void co_write_and_read(struct scene *s)
{
        static const char *const variants[] = {NULL, "streamOptimized", "monolithicFlat",
                                               "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"};
        static uint8_t copy[WRITE_MAX + 512], back[WRITE_MAX + 512];
        struct image_create_options create = {.format = "vmdk", .opener = &s->opener};
        const struct image_options options = {.opener = &s->opener};
        struct image *image;

        create.variant = variants[input_u8(s->in) % 5];
        create.virtual_bytes = input_number(s->in, WRITE_MAX) % (WRITE_MAX + 1);
        if (create.variant != variants[2] && create.variant != variants[4])
                create.cluster_bytes = 8192u << input_u8(s->in) % 8;
        memset(copy, 0, sizeof(copy));
        s->n_new = 0;
        assert(co_image_create(s->fd, "x", &create, &image, NULL) == 0);
        co_write_pieces(s, image, copy);
        image_close(image);
        assert(co_image_open(s->fd, "x", &options, &image, NULL) == 0);
        assert(image->virtual_bytes == (create.virtual_bytes + 511) / 512 * 512);
        assert(image->driver->co_read(image, back, image->virtual_bytes, 0, NULL) == 0);
        assert(memcmp(back, copy, image->virtual_bytes) == 0);
        co_walk(s, image);
        image_close(image);
}

static void co_play(void *arg)
{
        struct scene *s = arg;

        if (input_u8(s->in) % 4 == 0)
                co_write_and_read(s);
        else
                co_read_any(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct scene scene; /* one at a time */
        struct scene *s = &scene;
        struct input in = {data, size};

        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
                s->opener.open = open_part;
                s->fd = memfd_create("image", MFD_CLOEXEC);
                for (unsigned i = 0; i < N_PARTS; i++)
                        s->parts[i] = memfd_create("part", MFD_CLOEXEC);
        }
        fuzz_loop_reset(s->loop);
        s->in = &in;
        fuzz_loop_co_run(s->loop, co_play, s, UINT64_C(1000000000));
        fuzz_loop_reset(s->loop);
        return 0;
}
