/* fuzz_vhdx.c - VHDX files that are right until the input changes them, sums mended: blocks, sector
 * bitmaps, logs, locators; opened over a parent, their extents walked, read, checked. And files that
 * are written, which must then be read as what they were. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/unit/vhdx_made.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX    48u
#define EXTENTS_MAX 96u
#define OFFSET_MAX  (UINT64_C(1) << 42)
#define LOG_SECTORS 256u

struct scene {
        struct loop *loop;
        struct input *in;
        struct made m;
        int parent_fd;
        uint32_t log_sector;
        uint64_t log_sequence;
        bool shrunk; /* while it was open */
        bool uses_log;
};

static const uint64_t blocks[] = {1 << 20, 2 << 20, 32 << 20, 256 << 20};
static const struct vhdx_guid data_write = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
static const char *const locator[][2] = {
    {"parent_linkage", "{04030201-0605-0807-090a-0b0c0d0e0f10}"},
    {"relative_path", "..\\parent.vhdx"},
    {"volume_path", "\\\\?\\Volume{1}\\parent.vhdx"},
    {"absolute_win32_path", "\\\\?\\d:\\parent.vhdx"},
    {NULL, NULL}};

/* ---- files ---- */

/* Space at the end with a few bytes in it; the rest is a hole. */
static uint64_t take(struct made *m, uint64_t length, uint8_t byte)
{
        uint64_t offset = m->next;

        if (m->next + length > OFFSET_MAX)
                return m->next - length;
        m->next += length;
        made_end(m, m->next);
        made_fill(m, offset, byte, 1536);
        made_fill(m, m->next - 512, byte, 512);
        return offset;
}

static uint64_t a_block(struct scene *s)
{
        uint64_t n = s->m.size / s->m.block + 1;

        return input_number(s->in, n - 1) % (n + 2);
}

static void act_block(struct scene *s)
{
        static const enum vhdx_state states[8] = {VHDX_PRESENT,  VHDX_PRESENT,  VHDX_PARTIAL,
                                                  VHDX_PARTIAL,  VHDX_PRESENT,  VHDX_ZERO,
                                                  VHDX_UNMAPPED, VHDX_UNDEFINED};
        uint64_t block = a_block(s);
        uint8_t kind = input_u8(s->in);

        if (made_entry_at(&s->m, block) < MADE_DATA)
                made_entry(&s->m, block, take(&s->m, s->m.block, kind | 1), states[kind & 7]);
}

static void act_bitmap(struct scene *s)
{
        uint64_t block = a_block(s), at;
        const uint8_t *bits;
        size_t n = input_take(s->in, input_u8(s->in) & 31, &bits);

        if (made_bitmap_at(&s->m, block) >= MADE_DATA)
                return;
        at = take(&s->m, VHDX_BITMAP_BLOCK, input_u8(s->in));
        made_put64(&s->m, made_bitmap_at(&s->m, block), at | VHDX_PRESENT);
        if (n > 0)
                made_put(&s->m, at + (input_number(s->in, 256) & 0xffff), bits, n);
}

static void act_entry(struct scene *s)
{
        uint64_t block = a_block(s);

        if (made_entry_at(&s->m, block) < MADE_DATA)
                made_put64(&s->m, made_entry_at(&s->m, block),
                           input_number(s->in, s->m.next) << 20 | (input_u8(s->in) & 7));
}

static void act_log(struct scene *s)
{
        static uint8_t sectors[8][VHDX_LOG_SECTOR];
        struct made_record records[8];
        uint8_t n = input_u8(s->in) & 7, kind = input_u8(s->in);
        struct made_log_entry e = {.sector = s->log_sector,
                                   .tail = kind & 1 ? s->log_sector : input_u8(s->in),
                                   .sequence = s->log_sequence++,
                                   .flushed = s->m.next,
                                   .last = s->m.next,
                                   .records = records,
                                   .n_records = n};

        if (kind & 2)
                e.flushed = input_number(s->in, s->m.next);
        if (kind & 4)
                e.last = input_number(s->in, s->m.next) << 20;
        if (kind & 8)
                e.sequence = input_number(s->in, e.sequence);
        if (kind & 16)
                e.sector = s->log_sector = input_u8(s->in);
        for (unsigned i = 0; i < n; i++) {
                uint8_t what = input_u8(s->in);
                static const uint64_t places[8] = {
                    MADE_BAT, MADE_DATA, MADE_METADATA,       MADE_DATA, MADE_METADATA + 65536,
                    MADE_BAT, MADE_BAT,  VHDX_TABLE_OFFSET(0)};
                le64 entry = le64_make(s->m.next - s->m.block | VHDX_PRESENT);

                records[i] = (struct made_record){
                    .offset = places[what & 7] + (input_number(s->in, 16) & 0xfff) * 4096,
                    .length = input_number(s->in, s->m.next) * 4096};
                if (what & 8)
                        records[i].offset = input_number(s->in, s->m.next) * 4096;
                if (what & 16) {
                        memset(sectors[i], what, VHDX_LOG_SECTOR);
                        if (what & 32)
                                memset(sectors[i], 0, VHDX_LOG_SECTOR);
                        if (what & 64)
                                memcpy(sectors[i], &entry, 8);
                        records[i].data = sectors[i];
                }
        }
        s->log_sector = made_log(&s->m, &e);
        if (!s->uses_log)
                made_use_log(&s->m);
        s->uses_log = true;
}

/* Change a field of a place where there are some, or any other; and make the sums right again. */
static void act_spoil(struct scene *s)
{
        static const struct {
                uint64_t at;
                uint64_t length;
        } places[16] = {
            {VHDX_HEADER_OFFSET(0), 96},
            {VHDX_HEADER_OFFSET(1), 96},
            {VHDX_TABLE_OFFSET(0), 120},
            {VHDX_TABLE_OFFSET(1), 120},
            {MADE_METADATA, 32 * 8},
            {MADE_ITEM(1), 32 * 6},
            {MADE_VALUE(0), 16},
            {MADE_VALUE(1), 16},
            {MADE_VALUE(3), 8},
            {MADE_VALUE(5), 88},
            {MADE_VALUE(5) + 1024, 400},
            {MADE_BAT, 128},
            {MADE_LOG, 256},
            {MADE_LOG + 4096, 4096},
            {MADE_LOG, 65536},
            {0, 8 << 20},
        };
        uint8_t kind = input_u8(s->in);
        uint64_t at = places[kind & 15].at + input_number(s->in, 64) % places[kind & 15].length;
        uint64_t value = input_number(s->in, s->m.next);

        if (kind & 16)
                made_put32(&s->m, at & ~UINT64_C(3), (uint32_t)value);
        else if (kind & 32)
                made_put64(&s->m, at & ~UINT64_C(7), value);
        else
                made_put(&s->m, at, &value, 1);
        if (kind & 64)
                return;
        for (unsigned i = 0; i < 2; i++) {
                made_mend_header(&s->m, i);
                made_mend_table(&s->m, i);
        }
        if (at >= MADE_LOG && at < MADE_METADATA)
                made_mend_log(&s->m, kind & 128 ? input_u8(s->in) : 0, 1 + (input_u8(s->in) & 15));
}

static void cut(struct scene *s, uint64_t at_least)
{
        uint64_t length = input_number(s->in, s->m.next) % OFFSET_MAX;
        off_t is = lseek(s->m.fd, 0, SEEK_END);

        length = length < at_least ? at_least : length;
        made_end(&s->m, length);
        s->shrunk |= (off_t)length < is;
}

static void make_parent(struct scene *s)
{
        struct made p = {.fd = s->parent_fd, .size = 5 << 20, .data_write = data_write};

        made_begin(&p);
        made_entry(&p, 0, take(&p, p.block, 'p'), VHDX_PRESENT);
        made_entry(&p, 3, take(&p, p.block, 'q'), VHDX_PRESENT);
}

static void make_file(struct scene *s)
{
        uint8_t kind = input_u8(s->in);

        s->m = (struct made){.fd = s->m.fd,
                             .block = blocks[kind & 3],
                             .sector = kind & 4 ? 4096 : 512,
                             .flags = kind & 8    ? VHDX_HAS_PARENT
                                      : kind & 16 ? VHDX_LEAVE_ALLOCATED
                                                  : 0};
        s->m.size = s->m.block * (1 + (input_number(s->in, 64) & 0xfff));
        if (kind & 32)
                s->m.size -= (input_number(s->in, 8) & 255) * s->m.sector;
        s->log_sector = 0;
        s->log_sequence = 1;
        s->uses_log = false;
        made_begin(&s->m);
        if (s->m.flags & VHDX_HAS_PARENT)
                made_locator(&s->m, locator);
        for (unsigned i = 0; i < ACTS_MAX && s->in->left > 0; i++)
                switch (input_u8(s->in) & 7) {
                case 0:
                case 1:
                        act_block(s);
                        break;
                case 2:
                        act_bitmap(s);
                        break;
                case 3:
                        act_entry(s);
                        break;
                case 4:
                        act_log(s);
                        break;
                case 5:
                        act_spoil(s);
                        break;
                case 6:
                        cut(s, MADE_METADATA); /* what comes after mends tables and logs */
                        break;
                default:
                        return;
                }
}

/* ---- reading ---- */

struct opener {
        struct image_opener opener;
        struct scene *scene;
};

static int open_parent(struct image_opener *opener, const char *from, const char *name,
                       enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct scene *s = ((struct opener *)opener)->scene;
        uint8_t kind = input_u8(s->in);

        assert(from && name[0] && use == IMAGE_BACKING);
        if (kind < 32)
                return error_set(err, -ENOENT, "'%s' is not there", name);
        *ret_fd = fcntl(kind < 48 ? s->m.fd : s->parent_fd, F_DUPFD_CLOEXEC, 3);
        *ret_path = strdup(name);
        assert(*ret_fd >= 0 && *ret_path);
        return 0;
}

/* What is told to be zeroes is; what is told to be somewhere is there. */
static void co_look(struct scene *s, struct image *image, uint64_t offset,
                    const struct image_extent *extent)
{
        static char data[16 << 10], there[16 << 10];
        size_t length = extent->length < sizeof(data) ? extent->length : sizeof(data);
        struct error err = ERROR_INIT;
        int r = image->driver->co_read(image, data, length, offset, &err);

        if (r < 0) { /* a file that became shorter */
                assert(s->shrunk && r == -EIO && err.message[0]);
                return;
        }
        if (s->shrunk)
                return;
        assert(!extent->zero || image_is_zero(data, length));
        if (extent->has_offset && extent->depth == 0) {
                ssize_t n = pread(image->fd, there, length, (off_t)extent->file_offset);

                assert(n == (ssize_t)length && memcmp(data, there, length) == 0);
        }
}

static void co_walk(struct scene *s, struct image *image)
{
        uint64_t offset = 0;

        for (unsigned i = 0; i < EXTENTS_MAX && offset < image->virtual_bytes; i++) {
                struct image_extent extent;
                struct error err = ERROR_INIT;
                char byte;
                int r = image->driver->co_extent(image, offset, &extent, &err);

                if (r < 0) {
                        assert(err.message[0] && (r == -EBADMSG || (s->shrunk && r == -EIO)));
                        r = image->driver->co_read(image, &byte, 1, offset, &err);
                        assert(r < 0 || s->shrunk);
                        offset += image->info.cluster_bytes - offset % image->info.cluster_bytes;
                        continue;
                }
                assert(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
                co_look(s, image, offset, &extent);
                if (extent.length > 4096)
                        co_look(s, image, offset + extent.length - 4096,
                                &(struct image_extent){.length = 4096, .zero = extent.zero});
                offset += extent.length;
        }
}

static void report(struct image_check *check, const char *sentence)
{
        unsigned *n = (unsigned *)(check + 1);

        assert(sentence[0] && ++*n <= IMAGE_FINDINGS_MAX);
}

static void co_check(struct scene *s, struct image *image)
{
        struct {
                struct image_check check;
                unsigned n;
        } found = {.check.report = report};
        struct error err = ERROR_INIT;
        int r = image->driver->co_check(image, &found.check, &err);

        /* A log may say that the file is longer than can be checked. */
        assert(r == 0 || err.message[0]);
        assert(r == 0 || r == -ENOTSUP || ((r == -EIO || r == -EBADMSG) && s->shrunk));
}

static void co_read_file(void *arg)
{
        struct scene *s = arg;
        struct opener opener = {{open_parent}, s};
        uint8_t kind = input_u8(s->in);
        const struct image_options options = {
            .format = kind & 1 ? "vhdx" : NULL, .opener = &opener.opener, .alone = kind & 2};
        struct error err = ERROR_INIT;
        struct image *image;
        int r;

        if (kind & 8)
                cut(s, 0);
        r = co_image_open(s->m.fd, "image", &options, &image, &err);
        s->shrunk = false; /* before it was opened: that is known */
        if (r < 0) {
                assert(err.message[0]);
                assert(r == -EBADMSG || r == -ENOTSUP || r == -ELOOP || r == -ENOENT);
                return;
        }
        if (image->driver != &image_vhdx) {
                image_close(image);
                return;
        }
        if (kind & 4)
                cut(s, 0);
        co_walk(s, image);
        co_check(s, image);
        image_close(image);
}

/* ---- writing ---- */

static void fill(uint8_t *data, size_t n, uint64_t offset)
{
        for (size_t i = 0; i < n; i++)
                data[i] = (uint8_t)((offset + i) / 512 * 7 + 1);
}

struct piece {
        uint64_t offset, length;
};

static void co_write_file(void *arg)
{
        static uint8_t data[128 << 10], back[128 << 10];
        struct scene *s = arg;
        struct piece pieces[32];
        size_t n = 0;
        uint8_t kind = input_u8(s->in);
        struct image_create_options options = {.format = "vhdx",
                                               .variant = kind & 1 ? "fixed" : NULL,
                                               .cluster_bytes =
                                                   kind & 2 ? (uint32_t)blocks[kind >> 2 & 3] : 0};
        struct error err = ERROR_INIT;
        uint64_t offset = 0, size, end = 0;
        struct image *image;

        size = options.virtual_bytes = (input_number(s->in, 1 << 20) & 0xffffffff) * 512;
        int r = co_image_create(s->m.fd, "image", &options, &image, &err);
        assert(r == 0);
        while (n < 32 && s->in->left > 0) {
                uint64_t length = 4096 * (1 + (input_u8(s->in) & 31));

                offset += 4096 * (input_number(s->in, 256) & 0xfffff);
                if (offset >= size)
                        break;
                if (length > size - offset)
                        length = size - offset;
                fill(data, length, offset);
                r = image->driver->co_write(image, data, length, offset, NULL);
                assert(r == 0);
                pieces[n++] = (struct piece){offset, length};
                offset += length;
        }
        r = image->driver->co_finish(image, NULL);
        assert(r == 0);
        image_close(image);
        r = co_image_open(s->m.fd, "image", NULL, &image, &err);
        assert(r == 0 && image->virtual_bytes == size);
        for (size_t i = 0; i < n; i++) {
                fill(data, pieces[i].length, pieces[i].offset);
                r = image->driver->co_read(image, back, pieces[i].length, pieces[i].offset, NULL);
                assert(r == 0 && memcmp(data, back, pieces[i].length) == 0);
                if (pieces[i].offset > end) { /* and nothing before it */
                        size_t gap = pieces[i].offset - end < sizeof(back) ? pieces[i].offset - end
                                                                           : sizeof(back);

                        r = image->driver->co_read(image, back, gap, pieces[i].offset - gap, NULL);
                        assert(r == 0 && image_is_zero(back, gap));
                }
                end = pieces[i].offset + pieces[i].length;
        }
        co_check(s, image);
        image_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct scene scene; /* one at a time */
        struct scene *s = &scene;
        struct input in = {data, size};
        uint8_t kind;

        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
                s->m.fd = memfd_create("image", MFD_CLOEXEC);
                s->parent_fd = memfd_create("parent", MFD_CLOEXEC);
                if (s->m.fd < 0 || s->parent_fd < 0)
                        abort();
                make_parent(s);
        }
        fuzz_loop_reset(s->loop);
        s->in = &in;
        kind = input_u8(&in);
        if (kind & 1) {
                make_file(s);
                fuzz_loop_co_run(s->loop, co_read_file, s, UINT64_C(1) * 1000000000);
        } else {
                fuzz_loop_co_run(s->loop, co_write_file, s, UINT64_C(1) * 1000000000);
        }
        fuzz_loop_reset(s->loop);
        return 0;
}
