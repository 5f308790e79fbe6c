/* image.h - disk image files: what they are, what they hold, reading and writing them.
 *
 * A format is a table of functions (struct image_driver); image.c picks one by content. What
 * is recognised as something else is named and refused, so that it is never taken for raw.
 *
 * Units      bytes. virtual_bytes is the disk's size as a guest sees it.
 * Threads    an image belongs to the loop whose coroutine opened it. co_* functions suspend; others
 *            do not.
 * Errors     0 or -errno with a sentence that names the file.
 * Trust      a file's content is never trusted: sizes are checked against IMAGE_SIZE_MAX and every
 *            read against the sizes found at opening.
 * Ownership  the descriptor stays the caller's and must outlive the image. Release an image with
 *            image_close(). Options, openers and offload are the caller's; the latter two must outlive
 *            the image.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/error.h"

/* Larger than any volume can be: what is beyond is a damaged or hostile header. */
#define IMAGE_SIZE_MAX  (UINT64_C(1) << 52)
#define IMAGE_HEAD_SIZE 4096u
#define IMAGE_TAIL_SIZE 512u

#define IMAGE_DEPTH_MAX 64u /* a file, its backing file, that one's, ... */
#define IMAGE_UNIT_MAX  (2u << 20)

struct image;
struct offload;

/* The first and last bytes of a file, for probing. */
struct image_sample {
        uint8_t head[IMAGE_HEAD_SIZE];
        size_t head_length;
        uint8_t tail[IMAGE_TAIL_SIZE];
        size_t tail_length;
};

/* ---- other files that an image names ---- */

enum image_use {
        IMAGE_BACKING,  /* has what the image has not; read */
        IMAGE_PART,     /* holds the image's data: an extent, external data; read */
        IMAGE_NEW_PART, /* the same, to be made: an empty file */
};

/* Opens them: a caller's policy. What a file says is no permission to open anything. */
struct image_opener {
        /* @name as it stands in the image whose path is @from. The new descriptor is the image's,
         * which closes it; ret_path, for messages and for what that file names in turn, is malloc'ed.
         * An error's sentence names both files. */
        int (*open)(struct image_opener *opener, const char *from, const char *name,
                    enum image_use use, int *ret_fd, char **ret_path, struct error *err);
        /* The NBD export whose URI @name is, as a backing file. It stays the opener's (is_shared), who may
         * give it again, and closes it after the images. NULL: none is followed, and open() is asked. */
        int (*co_export)(struct image_opener *opener, const char *from, const char *name,
                         struct image **ret_image, struct error *err);
};

/* A path of Windows becomes one of ours, in its place: slashes for backslashes; and of one that begins with a
 * drive, a server or a volume the last part, as the file may lie beside. Whether it is that file is for the
 * driver to find out. */
void image_path_from_windows(char *path);

/* ---- what is known of an image ---- */

/* A snapshot inside of an image file. */
struct image_snapshot {
        char *id, *name;
        uint64_t virtual_bytes, vm_state_bytes;
        int64_t date_s; /* since 1970 */
};

struct image_bitmap {
        char *name;
        uint64_t granularity_bytes;
        bool in_use; /* not saved completely: its content counts for nothing */
        bool automatic;
};

/* Filled by co_open() as far as a format has such things; released with the image. */
struct image_info {
        const char *variant;     /* a kind of the format, by its specification: "streamOptimized" */
        char version[16];        /* "1.1", "3" */
        uint64_t cluster_bytes;  /* 0: none */
        const char *compression; /* of compressed clusters, if there can be any */
        char *backing, *backing_format, *data_file; /* as they stand in the file; NULL: none */
        bool dirty;                                 /* was not closed */
        bool corrupt;                               /* marked so by who found it */
        struct image_snapshot *snapshots;           /* oldest first */
        size_t n_snapshots;
        struct image_bitmap *bitmaps;
        size_t n_bitmaps;
};

/* Where a range's content comes from. */
struct image_extent {
        uint64_t length;
        bool zero;    /* reads as zeroes; there is no need to read it */
        bool present; /* something says so: this file or one behind it, not just nobody */
        bool compressed;
        unsigned depth;  /* whose: 0 this file, 1 its backing file, ... */
        bool has_offset; /* plain bytes at file_offset of that file */
        uint64_t file_offset;
};

struct image_check {
        /* Told of each finding, at most IMAGE_FINDINGS_MAX times: one sentence. */
        void (*report)(struct image_check *check, const char *sentence);
        uint64_t n_errors;              /* what is there may be read wrongly, or is not there */
        uint64_t n_leaks, leaked_bytes; /* space that nothing uses; harmless */
        uint64_t allocated_bytes, end_bytes; /* clusters in use; the end of the last one */
        const atomic_bool *cancelled; /* may be NULL; true: -ECANCELED, where checking takes long */
};
#define IMAGE_FINDINGS_MAX 100u
#define IMAGE_CHECK_STEP   65536u /* entries of a table, between which others have their turn */

/* ---- options ---- */

struct image_options {
        const char *format;          /* NULL: by content */
        const char *backing_format;  /* of a backing file whose format the image does not state */
        const char *snapshot;        /* one inside the image, by name or id; NULL: as it is now */
        struct image_opener *opener; /* NULL: an image that needs another file is refused */
        struct offload *offload;     /* decompresses; NULL: the loop's thread does */
        /* For info and check: the file alone. A backing file is named and not opened, and what is
         * not in this one is not present. Files of its own are opened where there is an opener. */
        bool alone;
        /* What was read or written lately is read from the disk, not from memory, where the file system
         * lets go of it: of this file and of the others, once, as they are opened. Of what is not
         * durable nothing is lost, and it stays in memory. */
        bool from_disk;
        unsigned depth; /* set by drivers, of backing files */
};

struct image_create_options {
        const char *format;
        uint64_t virtual_bytes;
        const char *variant;     /* NULL: the format's usual one */
        const char *compression; /* "zlib", "zstd"; NULL: none, or the variant's */
        uint32_t cluster_bytes;  /* 0: the format's usual size */
        struct image_opener *opener;
        struct offload *offload;
};

/* ---- formats ---- */

struct image_driver {
        const char *name;        /* "raw", "qcow2": what --format takes */
        const char *description; /* "QEMU's qcow2" */
        const char *variants;    /* that co_create() makes, separated by ", "; NULL: one */
        /* True where the content says so beyond doubt; NULL for raw, which nothing can prove. */
        bool (*probe)(const struct image_sample *sample);
        /* Something else, a compressed file for one, with none of the functions below; and what to do
         * about it. */
        bool is_not_image;
        const char *hint;
        bool dirty_is_whole; /* what was not closed has all the same what a reader needs */

        /* Sets virtual_bytes, info and state. What it leaves in state after a failure, close()
         * releases. */
        int (*co_open)(struct image *image, const struct image_options *options, struct error *err);
        /* The extent at @offset < virtual_bytes; its length is at least 1 and at most what is left. */
        int (*co_extent)(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                         struct error *err);
        /* Any range within virtual_bytes. Several coroutines may be in here at once. */
        int (*co_read)(struct image *image, void *buffer, size_t length, uint64_t offset,
                       struct error *err);
        int (*co_check)(struct image *image, struct image_check *check, struct error *err);

        /* Make the file an empty image of image->virtual_bytes that reads as zeroes; sets
         * write_unit. */
        int (*co_create)(struct image *image, const struct image_create_options *options,
                         struct error *err);
        /* Ranges begin at multiples of write_unit, and end at such or at the image's end. Each place
         * is written or zeroed at most once, and calls begin in ascending order of offsets; they may
         * overlap in time, with co_write() compressing elsewhere meanwhile. */
        int (*co_write)(struct image *image, const void *buffer, size_t length, uint64_t offset,
                        struct error *err);
        /* Make a range read as zeroes; free where it does already. */
        int (*co_zero)(struct image *image, uint64_t offset, uint64_t length, struct error *err);
        /* All that was written is on the disk, and the file is whole: until then it must not be taken
         * for an image that is complete. */
        int (*co_finish)(struct image *image, struct error *err);
        void (*close)(struct image *image);
};

struct image {
        const struct image_driver *driver;
        int fd;
        bool owns_fd;
        char *path;   /* for messages */
        bool guessed; /* raw, because nothing else was recognised */
        bool is_block_device;
        bool is_shared; /* an opener's, who closes it: image_close() does not */
        bool is_within; /* co_image_open_within(): the file goes on behind it */
        uint64_t
            base; /* of that; where it begins in the file. Every other offset counts from here */
        bool no_seek_data;  /* lseek(SEEK_DATA) is refused here: all of it counts as data */
        bool no_zero_range; /* fallocate() is refused here */
        uint64_t virtual_bytes;
        uint64_t file_bytes;      /* the file's length, or the device's */
        uint64_t allocated_bytes; /* what it takes on its disk */
        uint32_t write_unit;      /* a power of two, at most IMAGE_UNIT_MAX */
        uint64_t kept_bytes;      /* written, and not yet asked to be on their way to the disk */
        bool is_flowing;          /* they are asked to */
        struct image_info info;
        const struct image *above; /* whose backing file or part it is */
        struct image_opener *opener;
        struct offload *offload;
        void *state; /* the driver's */
};

/* NULL where there is no such format. */
const struct image_driver *image_driver_find(const char *name);
/* The names of all, separated by ", ". */
const char *image_formats(void);

/* Open the file or block device @fd for reading.
 *
 * -EFBIG    larger than IMAGE_SIZE_MAX
 * -EINVAL   not a regular file or block device, or an unknown format
 * -EBADMSG  the file breaks its format's rules, or is damaged: the sentence says where
 * -ENOTSUP  it uses something that tarn does not read: the sentence names it */
int co_image_open(int fd, const char *path, const struct image_options *options,
                  struct image **ret_image, struct error *err);

/* The same, of an image that is @length bytes of the file from @base on: in an archive, say. It reads
 * nothing else of the file.
 *
 * -EBADMSG  also: the range is not inside of the file */
int co_image_open_within(int fd, const char *path, uint64_t base, uint64_t length,
                         const struct image_options *options, struct image **ret_image,
                         struct error *err);

/* Make the empty regular file, or the block device, @fd an image.
 *
 * -EINVAL   neither of these, or an unknown format, variant or compression
 * -ENOSPC   the device is smaller
 * -EFBIG    the format has no images of this size */
int co_image_create(int fd, const char *path, const struct image_create_options *options,
                    struct image **ret_image, struct error *err);
void image_close(struct image *image); /* NULL is fine */
/* By the opener that gave it, after all images that had it; NULL is fine. */
void image_close_shared(struct image *image);

/* What whoever relies on its content should be told of an image's file, as the end of a sentence that begins with its
 * name; NULL: nothing. */
const char *image_flaw(const struct image *image);

/* Which format a file has, without opening it as such;
 * the answer may be one that cannot be opened. */
int co_image_probe(int fd, const char *path, const struct image_driver **ret_driver,
                   bool *ret_guessed, struct error *err);

/* For drivers: open what @image names as @name; the new image owns its descriptor. Refused beyond
 * IMAGE_DEPTH_MAX, where there is no opener, and where the chain would come back to one of its own
 * files. */
int co_image_open_other(struct image *image, const char *name, enum image_use use,
                        const struct image_options *options, struct image **ret_image,
                        struct error *err);

/* For drivers: all of @length, or an error.
 *
 * -EIO  the file ends early */
int co_image_pread(struct image *image, void *buffer, size_t length, uint64_t offset,
                   struct error *err);
int co_image_pwrite(struct image *image, const void *buffer, size_t length, uint64_t offset,
                    struct error *err);

/* The same without a failure past the file's end, where it reads as zeroes. */
int co_image_pread_padded(struct image *image, void *buffer, size_t length, uint64_t offset,
                          struct error *err);

/* For drivers' checks: -ECANCELED where whoever checks has changed his mind. */
int image_check_cancelled(const struct image_check *check, struct error *err);
/* The same once in IMAGE_CHECK_STEP calls that count @n up from 0, after what else is ready has run: what a check
 * walks through may all be in memory, and then nothing else suspends it. */
int co_image_check_pause(const struct image_check *check, uint64_t n, struct error *err);

/* For drivers whose data lies in the file as it is: what of the file's [@offset, @end) is a hole. */
void image_file_extent(struct image *image, uint64_t offset, uint64_t end,
                       struct image_extent *ret_extent);

extern const struct image_driver image_raw, image_qcow2, image_vmdk, image_vdi, image_vhd,
    image_vhdx;

bool image_starts_with(const struct image_sample *s, size_t offset, const char *magic, size_t n);

/* True where @length bytes at @data are all zero. */
bool image_is_zero(const void *data, size_t length);
