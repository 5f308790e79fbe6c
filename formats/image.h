/* image.h - disk image files: what they are, what they hold, reading and writing them.
 *
 * A format is a table of functions (struct image_driver); image.c picks one by content. A format
 * that is recognised and has no co_open() is named and refused, so that it is never taken for raw.
 *
 * Units      bytes. virtual_bytes is the disk's size as a guest sees it.
 * Threads    an image belongs to the loop whose coroutine opened it. co_* functions suspend; others
 *            do not.
 * Errors     0 or -errno with a sentence that names the file.
 * Trust      a file's content is never trusted: sizes are checked against IMAGE_SIZE_MAX and every
 *            read against the sizes found at opening.
 * Ownership  the descriptor stays the caller's and must outlive the image. Release an image with
 *            image_close().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/error.h"

/* Larger than any volume can be: what is beyond is a damaged or hostile header. */
#define IMAGE_SIZE_MAX  (UINT64_C(1) << 52)
#define IMAGE_HEAD_SIZE 4096u
#define IMAGE_TAIL_SIZE 512u

struct image;

/* The first and last bytes of a file, for probing. */
struct image_sample {
        uint8_t head[IMAGE_HEAD_SIZE];
        size_t head_length;
        uint8_t tail[IMAGE_TAIL_SIZE];
        size_t tail_length;
};

struct image_extent {
        uint64_t length;
        bool zero; /* reads as zeroes; there is no need to read it */
};

struct image_driver {
        const char *name;        /* "raw", "qcow2": what --format takes */
        const char *description; /* "QEMU's qcow2" */
        /* True where the content says so beyond doubt; NULL for raw, which nothing can prove. */
        bool (*probe)(const struct image_sample *sample);
        bool is_not_image; /* recognised as something else: a compressed file */
        /* What to do about a file that is recognised and cannot be read; may be NULL. */
        const char *hint;

        int (*co_open)(struct image *image, struct error *err);
        /* The extent at @offset; its length is at most what is left of the image. */
        int (*co_extent)(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                         struct error *err);
        int (*co_read)(struct image *image, void *buffer, size_t length, uint64_t offset,
                       struct error *err);
        /* Make the file an empty image of image->virtual_bytes that reads as zeroes. */
        int (*co_create)(struct image *image, struct error *err);
        int (*co_write)(struct image *image, const void *buffer, size_t length, uint64_t offset,
                        struct error *err);
        /* Make a range read as zeroes; free where it does already. */
        int (*co_zero)(struct image *image, uint64_t offset, uint64_t length, struct error *err);
        /* All that was written is on the disk. */
        int (*co_finish)(struct image *image, struct error *err);
        void (*close)(struct image *image);
};

struct image {
        const struct image_driver *driver;
        int fd;
        char *path;   /* for messages */
        bool guessed; /* raw, because nothing else was recognised */
        bool is_block_device;
        bool no_seek_data;  /* lseek(SEEK_DATA) is refused here: all of it counts as data */
        bool no_zero_range; /* fallocate() is refused here */
        uint64_t virtual_bytes;
        uint64_t file_bytes;      /* the file's length, or the device's */
        uint64_t allocated_bytes; /* what it takes on its disk */
};

/* NULL where there is no such format. */
const struct image_driver *image_driver_find(const char *name);
/* The names that can be written, separated by ", ". */
const char *image_formats_writable(void);

/* Open the file or block device @fd for reading. @format NULL: by content.
 *
 * -EFBIG    larger than IMAGE_SIZE_MAX
 * -EINVAL   not a regular file or block device, or an unknown @format
 * -ENOTSUP  recognised as a format that is not built yet: its name is in the sentence */
int co_image_open(int fd, const char *path, const char *format, struct image **ret_image,
                  struct error *err);

/* Make the empty regular file, or the block device, @fd an image of @virtual_bytes.
 *
 * -EINVAL   neither of these, or an unknown @format
 * -ENOSPC   the device is smaller
 * -ENOTSUP  writing @format is not built yet */
int co_image_create(int fd, const char *path, const char *format, uint64_t virtual_bytes,
                    struct image **ret_image, struct error *err);
void image_close(struct image *image); /* NULL is fine */

/* Which format a file has, without opening it as such;
 * the answer may be one that cannot be opened. */
int co_image_probe(int fd, const char *path, const struct image_driver **ret_driver,
                   bool *ret_guessed, struct error *err);

/* For drivers: all of @length, or an error.
 *
 * -EIO  the file ends early */
int co_image_pread(struct image *image, void *buffer, size_t length, uint64_t offset,
                   struct error *err);
int co_image_pwrite(struct image *image, const void *buffer, size_t length, uint64_t offset,
                    struct error *err);

extern const struct image_driver image_raw;

/* True where @length bytes at @data are all zero. */
bool image_is_zero(const void *data, size_t length);
