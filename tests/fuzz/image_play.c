/* image_play.c - see image_play.h. */
#include "tests/fuzz/image_play.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common/list.h"
#include "tests/fuzz/fuzz_loop.h"

#define EXTENTS_MAX 200u
#define READS_MAX   8u
#define DISK_MAX    (8u << 20)

/* An opener says no, or has it. */
static int play_open(struct image_opener *opener, const char *from, const char *name,
                     enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct image_play *play = container_of(opener, struct image_play, opener);

        assert(strlen(name) > 0);
        for (unsigned i = 0; i < PLAY_FILES; i++)
                if (play->name[i] && strcmp(play->name[i], name) == 0) {
                        *ret_fd = dup(play->fd[i]);
                        *ret_path = strdup(name);
                        return 0;
                }
        return error_set(err, input_u8(play->in) & 1 ? -ENOENT : -EPERM, "'%s' may not have '%s'",
                         from, name);
}

static void image_play_init(struct image_play *play)
{
        play->opener.open = play_open;
        for (unsigned i = 0; i < PLAY_FILES; i++) {
                play->fd[i] = memfd_create("image", MFD_CLOEXEC);
                if (play->fd[i] < 0)
                        abort();
        }
}

static void image_play_reset(struct image_play *play, struct input *in)
{
        play->in = in;
        for (unsigned i = 0; i < PLAY_FILES; i++) {
                play->name[i] = NULL;
                if (ftruncate(play->fd[i], 0) < 0)
                        abort();
        }
}

int image_play_run(struct image_play *play, void (*co_play)(void *input), const uint8_t *data,
                   size_t size)
{
        static struct loop *loop;
        struct input in = {data, size};

        if (!loop) {
                fuzz_quiet();
                loop = fuzz_loop_new();
                image_play_init(play);
        }
        fuzz_loop_reset(loop);
        image_play_reset(play, &in);
        if (input_u8(&in) & 1) /* reads come in pieces */
                fuzz_loop_set_io_max(loop, 100);
        fuzz_loop_co_run(loop, co_play, &in, UINT64_C(1000000000));
        fuzz_loop_reset(loop);
        return 0;
}

void image_play_poke(struct image_play *play, unsigned file, uint64_t head)
{
        for (unsigned n = input_u8(play->in) & 7; n > 0; n--) {
                uint8_t kind = input_u8(play->in);
                uint64_t value = input_number(play->in, head);
                off_t end = lseek(play->fd[file], 0, SEEK_END);
                off_t at = (off_t)(input_number(play->in, 512) % head);

                if (kind & 1) {
                        at = end - at;
                        if (at < 0)
                                continue;
                }
                if (kind & 2)
                        value = __builtin_bswap64(value);
                if (pwrite(play->fd[file], &value, 1 + (kind >> 5), at) < 0 && errno != EFBIG)
                        abort();
        }
}

void image_play_resize(struct image_play *play, unsigned file)
{
        if ((input_u8(play->in) & 7) != 7)
                return;
        if (ftruncate(play->fd[file],
                      (off_t)(input_number(play->in, 1u << 16) & (IMAGE_SIZE_MAX - 1))) < 0 &&
            errno != EFBIG)
                abort();
}

static void check_sentence(int r, const struct error *err)
{
        assert(r == 0 ? err->message[0] == 0 : r < 0 && strlen(err->message) > 10);
}

/* ---- reading ---- */

static void co_look(struct image *image, uint64_t offset, const struct image_extent *extent)
{
        static char data[64 << 10];
        size_t length = extent->length < sizeof(data) ? extent->length : sizeof(data);
        struct error err = ERROR_INIT;
        int r = image->driver->co_read(image, data, length, offset, &err);

        check_sentence(r, &err);
        assert(r < 0 || !extent->zero || image_is_zero(data, length));
}

static void co_walk(struct image *image)
{
        uint64_t offset = 0;

        for (unsigned i = 0; i < EXTENTS_MAX && offset < image->virtual_bytes; i++) {
                struct image_extent extent = {0};
                struct error err = ERROR_INIT;
                int r = image->driver->co_extent(image, offset, &extent, &err);

                check_sentence(r, &err);
                if (r < 0) { /* what lies behind can be right */
                        offset += 512;
                        continue;
                }
                assert(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
                assert(extent.depth <= IMAGE_DEPTH_MAX);
                co_look(image, offset, &extent);
                offset += extent.length;
        }
}

static void co_read_anywhere(struct image_play *play, struct image *image)
{
        static char data[300 << 10];

        for (unsigned n = input_u8(play->in) % READS_MAX; n > 0 && image->virtual_bytes > 0; n--) {
                uint64_t offset =
                             input_number(play->in, image->virtual_bytes) % image->virtual_bytes,
                         length = 1 + input_number(play->in, 65536) % sizeof(data);
                struct error err = ERROR_INIT;

                if (length > image->virtual_bytes - offset)
                        length = image->virtual_bytes - offset;
                check_sentence(image->driver->co_read(image, data, length, offset, &err), &err);
        }
}

struct told {
        struct image_check check;
        unsigned n;
};

static void report(struct image_check *check, const char *sentence)
{
        assert(strlen(sentence) > 10);
        assert(++container_of(check, struct told, check)->n <= IMAGE_FINDINGS_MAX);
}

static void co_check(struct image *image)
{
        struct told told = {.check = {.report = report}};
        struct error err = ERROR_INIT;

        check_sentence(image->driver->co_check(image, &told.check, &err), &err);
        assert(told.check.n_errors >= told.n);
}

void co_image_play_read(struct image_play *play, const char *format)
{
        uint8_t how = input_u8(play->in);
        const struct image_options options = {.format = how & 1 ? NULL : format,
                                              .backing_format = how & 2 ? NULL : "raw",
                                              .opener = (how & 12) == 12 ? NULL : &play->opener,
                                              .alone = (how & 48) == 48};
        struct error err = ERROR_INIT;
        struct image *image;
        int r = co_image_open(play->fd[0], "image", &options, &image, &err);

        check_sentence(r, &err);
        if (r < 0)
                return;
        assert(image->virtual_bytes <= IMAGE_SIZE_MAX);
        co_walk(image);
        co_read_anywhere(play, image);
        if (image->driver->co_check && image->file_bytes < (1u << 24))
                co_check(image);
        image_close(image);
}

/* ---- writing ---- */

static void co_write_pieces(struct image_play *play, struct image *image, uint8_t *disk)
{
        for (uint64_t at = 0; at < image->virtual_bytes;) {
                uint8_t kind = input_u8(play->in);
                uint64_t n = (1 + (kind >> 4)) * (uint64_t)image->write_unit;
                int r = 0;

                if (n > image->virtual_bytes - at)
                        n = image->virtual_bytes - at;
                if ((kind & 3) == 1) {
                        r = image->driver->co_zero(image, at, n, NULL);
                } else if (kind & 2) {
                        memset(disk + at, kind, n);
                        memset(disk + at + n / 2, 0, n / 4);
                        r = image->driver->co_write(image, disk + at, n, at, NULL);
                }
                assert(r == 0);
                at += n;
        }
}

static void co_read_back(struct image_play *play, const char *format, const uint8_t *disk,
                         uint64_t bytes)
{
        const struct image_options options = {.opener = &play->opener};
        uint8_t *back = malloc(bytes + 1);
        struct image *image;
        int r = co_image_open(play->fd[0], "image", &options, &image, NULL);

        assert(r == 0 && strcmp(image->driver->name, format) == 0);
        assert(image->virtual_bytes >= bytes && image->virtual_bytes < bytes + 512);
        r = image->driver->co_read(image, back, bytes, 0, NULL);
        assert(r == 0 && memcmp(disk, back, bytes) == 0);
        co_walk(image);
        image_close(image);
        free(back);
}

void co_image_play_write(struct image_play *play, const char *format)
{
        static const char *const variants[] = {NULL,    "dynamic",          "static",
                                               "fixed", "monolithicSparse", "streamOptimized"};
        static const uint32_t sizes[] = {0, 4096, 65536, 512u << 10, 1u << 20, 2u << 20};
        const struct image_create_options options = {
            .format = format,
            .virtual_bytes = input_number(play->in, 1u << 20) % DISK_MAX,
            .variant = variants[input_u8(play->in) % 6],
            .cluster_bytes = sizes[input_u8(play->in) % 6],
            .opener = &play->opener};
        struct error err = ERROR_INIT;
        uint8_t *disk = calloc(1, DISK_MAX);
        struct image *image;
        int r = co_image_create(play->fd[0], "image", &options, &image, &err);

        check_sentence(r, &err);
        if (r == 0) {
                assert(image->write_unit > 0 && image->write_unit <= IMAGE_UNIT_MAX);
                co_write_pieces(play, image, disk);
                r = image->driver->co_finish(image, &err);
                assert(r == 0);
                image_close(image);
                co_read_back(play, format, disk, options.virtual_bytes);
        }
        free(disk);
}
