/* fuzz_qcow2.c - qcow2 images: plausible ones of all kinds, in which then any field says anything, cut off at
 * any place; opened in every way, their extents walked, read, checked. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "formats/image.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/unit/qcow2_sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t __sanitizer_get_current_allocated_bytes(void);

#define CLUSTERS    16u /* of the disk that are made */
#define EXTENTS_MAX 64u
#define READ_MAX    (256u << 10)
/* What is open at any time: two images (a file may be its own backing file once), with an L1 table
 * that the file can hold, slices, and unpacked clusters of up to 2 MiB. */
#define MEMORY_MAX ((size_t)96 << 20)

struct scene {
        struct loop *loop;
        struct input *in;
        struct qcow2_sample sample;
        int fd, other_fd;
        uint8_t buffer[READ_MAX];
};

/* ---- the image ---- */

static void make_cluster(struct scene *s, uint64_t guest)
{
        static uint8_t data[1u << 14];
        struct qcow2_sample *q = &s->sample;
        uint8_t kind = input_u8(s->in);

        memset(data, kind, sizeof(data));
        memcpy(data, &guest, sizeof(guest));
        switch (kind & 7) {
        case 0:
        case 1:
                qcow2_sample_plain(q, guest, data);
                break;
        case 2:
        case 3:
                qcow2_sample_pack(q, guest, data);
                break;
        case 4:
                qcow2_sample_map(q, guest, QCOW2_ZERO, 0);
                break;
        case 5:
                qcow2_sample_map(q, guest, input_number(s->in, q->used), input_u64(s->in));
                break;
        case 6: {
                const uint8_t *bytes = NULL;
                size_t n = input_take(s->in, kind >> 3, &bytes);

                qcow2_sample_pack_bytes(q, guest, bytes ? bytes : data, n > 0 ? n : 1);
                break;
        }
        default: /* absent */
                break;
        }
}

static void make_snapshots(struct scene *s)
{
        struct qcow2_sample *q = &s->sample;
        struct qcow2_sample_snapshot list[] = {
            {.id = "1", .name = "one", .l1 = q->l1, .l1_size = q->l1_size, .date_s = 9},
            {.id = "2", .name = "two", .l1 = q->l1, .l1_size = q->l1_size, .date_s = 8}};

        for (unsigned i = 0; i < 2; i++) {
                list[i].virtual_bytes = input_number(s->in, q->virtual_bytes);
                list[i].vm_state_bytes = input_number(s->in, 0);
                list[i].extra_bytes = input_u8(s->in) & 1 ? 16 : 0;
        }
        qcow2_sample_snapshots(q, list, 2);
}

static void make_bitmaps(struct scene *s)
{
        struct qcow2_sample *q = &s->sample;
        uint64_t at = qcow2_sample_room(q, 512);
        uint8_t extension[QCOW2_BITMAPS_SIZE] = {0}, *p = q->bytes + at;

        p[QCOW2_BITMAP_TYPE_AT] = QCOW2_BITMAP_TYPE_DIRTY;
        p[QCOW2_BITMAP_GRANULARITY_BITS_AT] = 16;
        qcow2_put16(p + QCOW2_BITMAP_NAME_SIZE_AT, 3);
        memcpy(p + QCOW2_BITMAP_SIZE, "map", 3);
        qcow2_put32(extension + QCOW2_BITMAPS_N_AT, 1);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_SIZE_AT, 32);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_OFFSET_AT, at);
        qcow2_sample_extension(q, QCOW2_EXTENSION_BITMAPS, extension, sizeof(extension));
        qcow2_put64(q->bytes + QCOW2_AUTOCLEAR_AT, QCOW2_BITMAPS);
}

static void make_sound(struct scene *s)
{
        uint8_t bits = input_u8(s->in), more = input_u8(s->in);
        uint32_t version = bits & 0x80 ? 2 : 3;
        uint64_t features = version == 2 ? 0 : more & (QCOW2_DATA_FILE | QCOW2_COMPRESSION_TYPE);
        unsigned cluster_bits = 9 + bits % 6;
        uint64_t cluster = UINT64_C(1) << cluster_bits;
        uint64_t bytes = CLUSTERS * cluster - (input_u16(s->in) & (cluster - 1));

        if (version == 3 && cluster_bits == 14)
                features |= more & QCOW2_EXTENDED_L2;
        qcow2_sample_init(&s->sample, version, cluster_bits, bytes, features);
        for (unsigned i = 0; i < CLUSTERS; i++)
                make_cluster(s, i * cluster);
        if (more & 32)
                make_snapshots(s);
        if (features & QCOW2_DATA_FILE)
                qcow2_sample_extension(&s->sample, QCOW2_EXTENSION_DATA_FILE, "data", 4);
        if (version == 3 && more & 64)
                make_bitmaps(s);
        if (more & 128)
                qcow2_sample_backing(&s->sample, "base", more & 1 ? "qcow2" : "raw");
}

/* A field of the header or of the last table made, or any place. */
static void spoil(struct scene *s)
{
        struct qcow2_sample *q = &s->sample;
        uint8_t kind = input_u8(s->in);
        uint64_t at = input_u16(s->in), value = input_number(s->in, q->used);

        switch (kind & 3) {
        case 0:
                at = at % QCOW2_V3_HEADER_SIZE_COMPRESSION & ~UINT64_C(3);
                break;
        case 1:
                at = q->l1 + at % 4 * QCOW2_L1_ENTRY;
                break;
        case 2:
                at = qcow2_sample_entry(q, q->l1, 0) + at % (CLUSTERS * 2) * 8;
                break;
        default:
                at = at * 16 % q->used;
        }
        if (at + 8 > q->used)
                return;
        if (kind & 4)
                qcow2_put64(q->bytes + at, value);
        else if (kind & 8)
                qcow2_put32(q->bytes + at, (uint32_t)value);
        else
                q->bytes[at] = (uint8_t)value;
}

/* A hole behind it, up to many times its length, or only a part of it. */
static void make_file(struct scene *s)
{
        uint8_t n = input_u8(s->in) & 7;

        make_sound(s);
        while (n-- > 0)
                spoil(s);
        qcow2_sample_save(&s->sample, s->fd);
        if (input_u8(s->in) & 1) {
                off_t length = (off_t)(input_number(s->in, s->sample.used) & 0xffffffff);

                if (ftruncate(s->fd, length) < 0)
                        abort();
        }
        qcow2_sample_free(&s->sample);
}

/* ---- its use ---- */

struct opener {
        struct image_opener opener;
        struct scene *scene;
};

/* The same file once more by another name that the cycle's check knows, or another one. */
static int open_other(struct image_opener *opener, const char *from, const char *name,
                      enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct scene *s = ((struct opener *)opener)->scene;
        uint8_t which = input_u8(s->in);

        if (which & 1)
                return error_set(err, -ENOENT, "'%s' is not there", name);
        *ret_fd = dup(which & 2 ? s->fd : s->other_fd);
        *ret_path = strdup("other");
        return 0;
}

/* What failed says so, and what says zero is. */
static void co_look(struct scene *s, struct image *image, uint64_t offset, uint64_t length,
                    bool zero)
{
        struct error err = ERROR_INIT;
        size_t n = length < READ_MAX ? (size_t)length : READ_MAX;
        int r = image->driver->co_read(image, s->buffer, n, offset, &err);

        assert(r == 0 ? !zero || image_is_zero(s->buffer, n) : r < 0 && err.message[0]);
}

static void co_walk(struct scene *s, struct image *image)
{
        uint64_t offset = 0;

        assert(image->virtual_bytes <= IMAGE_SIZE_MAX);
        for (unsigned i = 0; i < EXTENTS_MAX && offset < image->virtual_bytes; i++) {
                struct image_extent extent;
                struct error err = ERROR_INIT;
                int r = image->driver->co_extent(image, offset, &extent, &err);

                assert(r == 0 || err.message[0]);
                if (r < 0) { /* go on behind it */
                        co_look(s, image, offset, 1, false);
                        extent = (struct image_extent){.length = 512};
                        if (extent.length > image->virtual_bytes - offset)
                                break;
                }
                assert(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
                co_look(s, image, offset, extent.length, r == 0 && extent.zero);
                offset += extent.length;
        }
        for (unsigned i = 0; i < 4 && image->virtual_bytes > 0; i++) {
                uint64_t at = input_u16(s->in) * 7u % image->virtual_bytes;

                co_look(s, image, at, image->virtual_bytes - at, false);
        }
}

static void report(struct image_check *check, const char *sentence)
{
        assert(sentence[0]);
}

static void co_play(void *arg)
{
        struct scene *s = arg;
        struct opener opener = {.opener.open = open_other, .scene = s};
        uint8_t how = input_u8(s->in);
        struct image_options options = {.format = "qcow2",
                                        .opener = how & 1 ? &opener.opener : NULL,
                                        .alone = how & 2,
                                        .backing_format = how & 4 ? "raw" : NULL};
        struct error err = ERROR_INIT;
        struct image *image = NULL;
        int r;

        if (how & 8)
                options.snapshot = how & 16 ? "2" : "one";
        r = co_image_open(s->fd, "image", &options, &image, &err);
        assert(r == 0 || err.message[0]);
        if (r < 0)
                return;
        co_walk(s, image);
        if (options.alone && image->driver->co_check) {
                struct image_check check = {.report = report};

                err = ERROR_INIT;
                r = image->driver->co_check(image, &check, &err);
                assert(r == 0 || err.message[0]);
        }
        assert(__sanitizer_get_current_allocated_bytes() < MEMORY_MAX);
        image_close(image);
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
                s->other_fd = memfd_create("other", MFD_CLOEXEC);
                if (s->fd < 0 || s->other_fd < 0 || ftruncate(s->other_fd, 100000) < 0)
                        abort();
        }
        fuzz_loop_reset(s->loop);
        s->in = &in;
        if (input_u8(&in) & 1) /* reads come in pieces */
                fuzz_loop_set_io_max(s->loop, 1000);
        make_file(s);
        fuzz_loop_co_run(s->loop, co_play, s, UINT64_C(1) * 1000000000);
        fuzz_loop_reset(s->loop);
        return 0;
}
