/* image_files.h - for tests of image formats: files that images name, and writing an image from random data
 * and reading it back. */
#pragma once
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "tests/unit/image_fixture.h"

#define FILES_MAX 80

/* Opens the files that a test has put there, by name. */
struct files {
        struct image_opener opener;
        struct {
                char name[64];
                int fd;
        } file[FILES_MAX];
        unsigned n, n_opened;
};

static inline int files_open(struct image_opener *opener, const char *from, const char *name,
                             enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct files *files = container_of(opener, struct files, opener);

        assert_int_equal(use, IMAGE_BACKING);
        for (unsigned i = 0; i < files->n; i++)
                if (strcmp(files->file[i].name, name) == 0) {
                        files->n_opened++;
                        *ret_fd = dup(files->file[i].fd);
                        *ret_path = strdup(name);
                        return 0;
                }
        return error_set(err, -ENOENT, "'%s' needs '%s', which is not there", from, name);
}

static inline void files_init(struct files *files)
{
        *files = (struct files){.opener = {.open = files_open}};
}

static inline int files_add(struct files *files, const char *name)
{
        int fd = memfd_create("file", MFD_CLOEXEC);

        assert_true(fd >= 0 && files->n < FILES_MAX);
        snprintf(files->file[files->n].name, sizeof(files->file[0].name), "%s", name);
        files->file[files->n++].fd = fd;
        return fd;
}

static inline void files_close(struct files *files)
{
        for (unsigned i = 0; i < files->n; i++)
                close(files->file[i].fd);
}

static inline void put_at(int fd, const void *bytes, size_t n, uint64_t at)
{
        assert_int_equal(pwrite(fd, bytes, n, (off_t)at), (ssize_t)n);
}

/* @n bytes that tell where they belong. */
static inline void put_pattern(int fd, uint8_t first, size_t n, uint64_t at)
{
        uint8_t *bytes = malloc(n);

        for (size_t i = 0; i < n; i++)
                bytes[i] = (uint8_t)(first + i / 512);
        put_at(fd, bytes, n, at);
        free(bytes);
}

static inline int co_open(int fd, const struct image_options *options, struct image **ret_image,
                          struct error *err)
{
        *ret_image = NULL;
        return co_image_open(fd, "disk.img", options, ret_image, err);
}

static inline struct image *co_opened(int fd, const struct image_options *options)
{
        struct error e = ERROR_INIT;
        struct image *image;
        int r = co_open(fd, options, &image, &e);

        if (r < 0)
                print_error("%s\n", e.message);
        assert_int_equal(r, 0);
        assert_string_equal(e.message, "");
        return image;
}

/* Refused with this code, and a sentence that has these words and the file's name. */
static inline void co_refused(int fd, const struct image_options *options, int code,
                              const char *words)
{
        struct error e = ERROR_INIT;
        struct image *image;

        assert_int_equal(co_open(fd, options, &image, &e), code);
        assert_null(image);
        if (!strstr(e.message, words))
                fail_msg("'%s' does not say '%s'", e.message, words);
        assert_non_null(strstr(e.message, "'disk.img'"));
}

static inline void co_expect_bytes(struct image *image, uint64_t offset, size_t n, uint8_t byte)
{
        uint8_t *bytes = malloc(n);

        memset(bytes, ~byte, n);
        assert_int_equal(image->driver->co_read(image, bytes, n, offset, NULL), 0);
        for (size_t i = 0; i < n; i++)
                if (bytes[i] != byte)
                        fail_msg("at %llu: %02x, not %02x", (unsigned long long)(offset + i),
                                 bytes[i], byte);
        free(bytes);
}

/* What put_pattern() has written. */
static inline void co_expect_pattern(struct image *image, uint64_t offset, size_t n, uint8_t first)
{
        for (size_t i = 0; i < n; i += 512)
                co_expect_bytes(image, offset + i, n - i < 512 ? n - i : 512,
                                (uint8_t)(first + i / 512));
}

static inline struct image_extent co_extent_at(struct image *image, uint64_t offset)
{
        struct image_extent extent = {0};

        assert_int_equal(image->driver->co_extent(image, offset, &extent, NULL), 0);
        assert_true(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
        return extent;
}

struct findings {
        struct image_check check;
        char text[4096];
};

static inline void findings_report(struct image_check *check, const char *sentence)
{
        struct findings *f = container_of(check, struct findings, check);

        strncat(f->text, sentence, sizeof(f->text) - strlen(f->text) - 2);
        strcat(f->text, "\n");
}

static inline void co_check(struct image *image, struct findings *f)
{
        *f = (struct findings){.check = {.report = findings_report}};
        assert_int_equal(image->driver->co_check(image, &f->check, NULL), 0);
}

/* ---- written and read back ---- */

static inline uint64_t random_below(uint64_t n)
{
        return ((uint64_t)random() << 31 ^ (uint64_t)random()) % n;
}

static inline void fill(uint8_t *bytes, size_t n, uint64_t seed)
{
        for (size_t i = 0; i < n; i++)
                bytes[i] = (uint8_t)((seed * 2654435761u + i * 40503u) >> 11);
}

static inline void co_write_pieces(struct image *image, uint8_t *disk, uint64_t bytes)
{
        uint64_t unit = image->write_unit;

        for (uint64_t at = 0; at < bytes;) {
                uint64_t n = (1 + random_below(4)) * unit;

                if (n > bytes - at)
                        n = bytes - at;
                if (random_below(3) == 0) {
                        assert_int_equal(image->driver->co_zero(image, at, n, NULL), 0);
                } else if (random_below(5) != 0) { /* or nothing is said of it */
                        fill(disk + at, n, at + 1);
                        assert_int_equal(image->driver->co_write(image, disk + at, n, at, NULL), 0);
                }
                at += n;
        }
}

/* What was written at random is there, and all else is zero; a check finds nothing; and before it is finished it is no
 * image. */
static inline void co_round_trip(struct fixture *f, const struct image_create_options *options)
{
        uint8_t *disk = calloc(1, options->virtual_bytes + 1),
                *back = malloc(options->virtual_bytes + 1);
        const struct image_driver *driver = NULL;
        struct findings findings;
        struct image *image;
        bool guessed;

        assert_int_equal(ftruncate(f->fd, 0), 0);
        put_pattern(f->fd, 1, 100000, 0); /* must not show through */
        assert_int_equal(co_image_create(f->fd, "disk.img", options, &image, NULL), 0);
        assert_true(image->write_unit > 0 && image->write_unit <= IMAGE_UNIT_MAX);
        co_write_pieces(image, disk, options->virtual_bytes);
        assert_int_equal(co_image_probe(f->fd, "disk.img", &driver, &guessed, NULL), 0);
        assert_true(guessed);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);

        image = co_opened(f->fd, NULL);
        assert_string_equal(image->driver->name, options->format);
        assert_int_equal(image->virtual_bytes, (options->virtual_bytes + 511) / 512 * 512);
        memset(back, 0x5a, options->virtual_bytes);
        assert_int_equal(image->driver->co_read(image, back, options->virtual_bytes, 0, NULL), 0);
        assert_memory_equal(back, disk, options->virtual_bytes);
        for (uint64_t at = 0; at < image->virtual_bytes;) {
                struct image_extent extent = co_extent_at(image, at);
                uint64_t n = extent.length;

                if (at + n > options->virtual_bytes)
                        n = options->virtual_bytes - at;
                assert_true(!extent.zero || image_is_zero(disk + at, n));
                at += extent.length;
        }
        co_check(image, &findings);
        assert_string_equal(findings.text, "");
        assert_int_equal(findings.check.n_errors + findings.check.n_leaks, 0);
        image_close(image);
        free(disk);
        free(back);
}
