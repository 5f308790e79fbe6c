/* fuzz_image.c - image files of any content, holes and length, which may become shorter while they are
 * read: recognised, opened, their extents walked, and read. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "formats/image.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXTENTS_MAX 64u

struct scene {
        struct loop *loop;
        struct input *in;
        int fd;
        bool shrunk; /* while it was open */
};

static const char *const words[] = {"QFI\xfb",
                                    "KDMV",
                                    "COWD",
                                    "# Disk DescriptorFile",
                                    "vhdxfile",
                                    "conectix",
                                    "\x1f\x8b\x08",
                                    "\375\067zXZ",
                                    "BZh",
                                    "PK\x03\x04",
                                    "\x7f\x10\xda\xbe"};

/* At the beginning, where magic numbers are; from the end; or anywhere. */
static void put(struct scene *s)
{
        static struct output out;
        uint8_t kind = input_u8(s->in);
        off_t end = lseek(s->fd, 0, SEEK_END),
              at = (off_t)(input_number(s->in, 1u << 16) & 0xffffff);

        out.n = 0;
        input_words(s->in, words, sizeof(words) / sizeof(words[0]), &out);
        if ((kind & 3) == 1)
                at = end > 512 ? end - 512 : 0;
        else if ((kind & 3) == 2)
                at = kind & 4 ? 0x40 : 0;
        /* A file can be so long that nothing more fits. */
        if (pwrite(s->fd, out.bytes, out.n, at) != (ssize_t)out.n && at < (1 << 30))
                abort();
}

static void make_file(struct scene *s)
{
        uint8_t kind;

        if (ftruncate(s->fd, 0) < 0)
                abort();
        while (s->in->left > 0 && ((kind = input_u8(s->in)) & 3) != 3)
                if ((kind & 3) == 2) { /* up to more than any volume */
                        off_t length = (off_t)(input_number(s->in, IMAGE_SIZE_MAX) & INT64_MAX);

                        if (ftruncate(s->fd, length) < 0 && errno != EFBIG && errno != EINVAL)
                                abort();
                } else {
                        put(s);
                }
}

static void shrink(struct scene *s)
{
        off_t length = (off_t)(input_number(s->in, 1u << 16) & 0xffffff);

        if (length < lseek(s->fd, 0, SEEK_END)) {
                if (ftruncate(s->fd, length) < 0)
                        abort();
                s->shrunk = true;
        }
}

/* A format has rules that what the file says may break; raw has none. */
static bool may_fail(const struct scene *s, const struct image *image, int r)
{
        return image->driver != &image_raw || (s->shrunk && r == -EIO);
}

/* What is told to be zeroes is. */
static void co_look(struct scene *s, struct image *image, uint64_t offset,
                    const struct image_extent *extent)
{
        static char data[64 << 10];
        size_t length = extent->length < sizeof(data) ? extent->length : sizeof(data);
        struct error err = ERROR_INIT;
        int r = image->driver->co_read(image, data, length, offset, &err);

        assert(r == 0 ? !extent->zero || image_is_zero(data, length)
                      : may_fail(s, image, r) && err.message[0]);
}

static void co_walk(struct scene *s, struct image *image)
{
        uint64_t offset = 0;

        assert(image->virtual_bytes <= IMAGE_SIZE_MAX);
        for (unsigned i = 0; i < EXTENTS_MAX && offset < image->virtual_bytes; i++) {
                struct image_extent extent;

                if (input_u8(s->in) & 1)
                        shrink(s);
                struct error err = ERROR_INIT;
                int r = image->driver->co_extent(image, offset, &extent, &err);

                assert(r == 0 || (image->driver != &image_raw && err.message[0]));
                if (r < 0)
                        return;
                assert(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
                co_look(s, image, offset, &extent);
                offset += extent.length;
        }
}

static void co_play(void *arg)
{
        static const char *const formats[] = {NULL, "raw", "qcow2", "vhd", "compressed", "none"};
        struct scene *s = arg;
        const struct image_driver *driver;
        struct error err = ERROR_INIT;
        struct image *image;
        bool guessed;
        const struct image_options options = {.format = formats[input_u8(s->in) % 6]};

        int r = co_image_probe(s->fd, "image", &driver, &guessed, &err);
        assert(r == 0 || err.message[0]);
        err = ERROR_INIT;
        r = co_image_open(s->fd, "image", &options, &image, &err);
        assert(r == 0 || err.message[0]);
        if (r == 0) {
                if (image->driver == &image_raw) /* the other formats have fuzzers of their own */
                        co_walk(s, image);
                image_close(image);
        }
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
        s->shrunk = false;
        if (input_u8(&in) & 1) /* reads come in pieces */
                fuzz_loop_set_io_max(s->loop, 100);
        make_file(s);
        fuzz_loop_co_run(s->loop, co_play, s, UINT64_C(1) * 1000000000);
        fuzz_loop_reset(s->loop);
        return 0;
}
