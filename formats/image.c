/* image.c - which format a file has, and opening it with that format's driver. */
#include "formats/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/offload.h"
#include "formats/nbd.h"

bool image_starts_with(const struct image_sample *s, size_t offset, const char *magic, size_t n)
{
        return s->head_length >= offset + n && memcmp(s->head + offset, magic, n) == 0;
}

static bool probe_compressed(const struct image_sample *s)
{
        return image_starts_with(s, 0, "\x1f\x8b\x08", 3) ||
               image_starts_with(s, 0,
                                 "\xfd"
                                 "7zXZ",
                                 6) ||
               image_starts_with(s, 0, "\x28\xb5\x2f\xfd", 4) ||
               image_starts_with(s, 0, "BZh", 3) || image_starts_with(s, 0, "PK\x03\x04", 4);
}

static const struct image_driver compressed_file = {
    .name = "compressed",
    .description = "compressed file",
    .is_not_image = true,
    .probe = probe_compressed,
    .hint = "unpack it first (gunzip, unxz, unzstd, bunzip2, unzip)",
};

/* POSIX.1-2017, "ustar Header Block": the magic, with GNU's too. */
static bool probe_tar(const struct image_sample *s)
{
        return image_starts_with(s, 257, "ustar", 5);
}

static const struct image_driver tar_archive = {
    .name = "tar",
    .description = "tar archive",
    .is_not_image = true,
    .probe = probe_tar,
    .hint = "'tarn image import' makes volumes and a VM file of one that is an OVA",
};

static bool probe_ovf(const struct image_sample *s)
{
        size_t mark = image_starts_with(s, 0, "\xef\xbb\xbf", 3) ? 3 : 0; /* of UTF-8 */

        return image_starts_with(s, mark, "<", 1) &&
               memmem(s->head, s->head_length, "Envelope", 8) != NULL;
}

static const struct image_driver ovf_descriptor = {
    .name = "ovf",
    .description = "machine's descriptor (OVF)",
    .is_not_image = true,
    .probe = probe_ovf,
    .hint = "'tarn image import' makes volumes and a VM file of it",
};

/* By what QEMU knows of them (block/). */
static bool probe_foreign(const struct image_sample *s)
{
        return image_starts_with(s, 0, "WithoutFreeSpace", 16) ||
               image_starts_with(s, 0, "WithouFreSpacExt", 16) ||
               image_starts_with(s, 0, "Bochs Virtual HD Image", 23) ||
               image_starts_with(s, 0, "QED", 4) ||
               image_starts_with(s, 0, "#!/bin/sh\n#V2.0 Format\n", 23) ||
               (s->tail_length == IMAGE_TAIL_SIZE && memcmp(s->tail, "koly", 4) == 0);
}

/* Taken for raw disks they would be volumes of nonsense. */
static const struct image_driver foreign_image = {
    .name = "foreign",
    .description = "disk image that is not read here (of Parallels, Bochs, QED, cloop or Apple)",
    .is_not_image = true,
    .probe = probe_foreign,
    .hint = "make another of it: qemu-img convert -O qcow2",
};

/* In the order of probing; raw is what is left. */
static const struct image_driver *const drivers[] = {
    &image_qcow2,     &image_vmdk,  &image_vdi,      &image_vhdx,    &image_vhd,
    &compressed_file, &tar_archive, &ovf_descriptor, &foreign_image, &image_raw,
};
/* Of one call. A copy of a disk consists of such: so source and target are copied at the same time, by
 * other threads than the one that compares and adds up. */
#define BULK_BYTES (64u << 10)
#define KEPT_MOST  (32u << 20)
#define N_DRIVERS  (sizeof(drivers) / sizeof(drivers[0]))

const struct image_driver *image_driver_find(const char *name)
{
        for (size_t i = 0; i < N_DRIVERS; i++)
                if (strcmp(name, drivers[i]->name) == 0)
                        return drivers[i];
        return NULL;
}

const char *image_formats(void)
{
        static _Thread_local char names[128];
        size_t n = 0;

        for (size_t i = 0; i < N_DRIVERS && n < sizeof(names); i++)
                if (!drivers[i]->is_not_image)
                        n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s",
                                              n > 0 ? ", " : "", drivers[i]->name);
        return names;
}

void image_path_from_windows(char *path)
{
        char *last;

        for (char *c = path; *c; c++)
                if (*c == '\\')
                        *c = '/';
        if (!(path[0] && path[1] == ':') && !(path[0] == '/' && path[1] == '/'))
                return;
        last = strrchr(path, '/');
        if (!last)
                last = path + 1;
        memmove(path, last + 1, strlen(last + 1) + 1);
}

bool image_is_zero(const void *data, size_t length)
{
        const uint8_t *p = data;

        /* If the first 16 bytes are zero and every byte equals the one 16 before, all are zero:
         * libc's memcmp does the rest at the speed of memory. */
        for (size_t i = 0; i < length && i < 16; i++)
                if (p[i] != 0)
                        return false;
        return length <= 16 || memcmp(p, p + 16, length - 16) == 0;
}

static int co_transfer(struct image *image, enum loop_io_op op, struct iovec iov, uint64_t offset,
                       struct error *err)
{
        bool reading = op == LOOP_READV;

        if (image->is_within &&
            (offset > image->file_bytes || iov.iov_len > image->file_bytes - offset))
                return error_set(err, -EIO, "'%s' ends at %llu bytes, before its end", image->path,
                                 (unsigned long long)image->file_bytes);
        while (iov.iov_len > 0) {
                struct loop_io io = {.op = op,
                                     .fd = image->fd,
                                     .iov = &iov,
                                     .n_iov = 1,
                                     .offset = image->base + offset,
                                     .bulk = iov.iov_len >= BULK_BYTES};
                int n = co_io(&io);

                if (n == -EINTR || n == -EAGAIN)
                        continue;
                if (n < 0)
                        return error_set(err, n, "cannot %s '%s' at offset %llu: %s",
                                         reading ? "read" : "write", image->path,
                                         (unsigned long long)offset, strerror(-n));
                if (n == 0)
                        return error_set(err, -EIO, "'%s' ends at %llu bytes, before its end",
                                         image->path, (unsigned long long)offset);
                iov.iov_base = (char *)iov.iov_base + n;
                iov.iov_len -= (size_t)n;
                offset += (uint64_t)n;
        }
        return 0;
}

int co_image_pread(struct image *image, void *buffer, size_t length, uint64_t offset,
                   struct error *err)
{
        return co_transfer(image, LOOP_READV, (struct iovec){buffer, length}, offset, err);
}

int co_image_pread_padded(struct image *image, void *buffer, size_t length, uint64_t offset,
                          struct error *err)
{
        size_t n = length;

        if (offset >= image->file_bytes)
                n = 0;
        else if (length > image->file_bytes - offset)
                n = (size_t)(image->file_bytes - offset);
        memset((char *)buffer + n, 0, length - n);
        return co_image_pread(image, buffer, n, offset, err);
}

static void begin_write_back(void *arg)
{
        const struct image *image = arg;

        /* A wish: errors are told by the flush at the end. */
        (void)sync_file_range(image->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* Left to itself the kernel keeps what is written until it is a tenth of memory, or some seconds old, and
 * the disk has nothing to do until an image is nearly complete. */
static void co_keep_flowing(struct image *image, size_t length)
{
        image->kept_bytes += length;
        if (image->kept_bytes < KEPT_MOST || image->is_flowing || !image->offload)
                return;
        image->kept_bytes = 0;
        image->is_flowing = true;
        co_offload(image->offload, begin_write_back, image);
        image->is_flowing = false;
}

int co_image_pwrite(struct image *image, const void *buffer, size_t length, uint64_t offset,
                    struct error *err)
{
        int r =
            co_transfer(image, LOOP_WRITEV, (struct iovec){(void *)buffer, length}, offset, err);

        if (r == 0)
                co_keep_flowing(image, length);
        return r;
}

int image_check_cancelled(const struct image_check *check, struct error *err)
{
        return check->cancelled && *check->cancelled ? error_set(err, -ECANCELED, "interrupted")
                                                     : 0;
}

int co_image_check_pause(const struct image_check *check, uint64_t n, struct error *err)
{
        if (n % IMAGE_CHECK_STEP != 0)
                return 0;
        co_yield_loop();
        return image_check_cancelled(check, err);
}

static void info_clear(struct image_info *info)
{
        for (size_t i = 0; i < info->n_snapshots; i++) {
                free(info->snapshots[i].id);
                free(info->snapshots[i].name);
        }
        for (size_t i = 0; i < info->n_bitmaps; i++)
                free(info->bitmaps[i].name);
        free(info->snapshots);
        free(info->bitmaps);
        free(info->backing);
        free(info->backing_format);
        free(info->data_file);
}

void image_close(struct image *image)
{
        if (!image || image->is_shared)
                return;
        if (image->driver && image->driver->close)
                image->driver->close(image);
        info_clear(&image->info);
        if (image->owns_fd)
                close(image->fd);
        free(image->path);
        free(image);
}

void image_close_shared(struct image *image)
{
        if (image)
                image->is_shared = false;
        image_close(image);
}

/* What the descriptor is, and how long: for reading and for writing. */
static int image_new(int fd, const char *path, struct image **ret_image, struct error *err)
{
        struct image *image;
        struct stat st;
        uint64_t device_bytes;

        if (fstat(fd, &st) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", path, strerror(errno));
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return error_set(err, -EINVAL, "'%s' is neither a regular file nor a block device",
                                 path);
        image = calloc(1, sizeof(*image));
        if (!image || !(image->path = strdup(path))) {
                image_close(image);
                return error_set(err, -ENOMEM, "out of memory");
        }
        image->fd = fd;
        image->is_block_device = S_ISBLK(st.st_mode);
        image->file_bytes = (uint64_t)st.st_size;
        image->allocated_bytes = (uint64_t)st.st_blocks * 512;
        if (image->is_block_device) {
                if (ioctl(fd, BLKGETSIZE64, &device_bytes) < 0) {
                        int r = error_set(err, -errno, "cannot tell the size of '%s': %s", path,
                                          strerror(errno));
                        image_close(image);
                        return r;
                }
                image->file_bytes = image->allocated_bytes = device_bytes;
        }
        if (image->file_bytes > IMAGE_SIZE_MAX) {
                image_close(image);
                return error_set(err, -EFBIG, "'%s' is larger than 4 PiB", path);
        }
        *ret_image = image;
        return 0;
}

static int co_probe(struct image *image, const struct image_driver **ret_driver, struct error *err)
{
        struct image_sample *s = calloc(1, sizeof(*s));
        uint64_t size = image->file_bytes;
        int r;

        if (!s)
                return error_set(err, -ENOMEM, "out of memory");
        s->head_length = size < IMAGE_HEAD_SIZE ? size : IMAGE_HEAD_SIZE;
        s->tail_length = size < IMAGE_TAIL_SIZE ? 0 : IMAGE_TAIL_SIZE;
        r = co_image_pread(image, s->head, s->head_length, 0, err);
        if (r == 0 && s->tail_length > 0)
                r = co_image_pread(image, s->tail, s->tail_length, size - s->tail_length, err);
        if (r == 0) {
                size_t i = 0;

                while (drivers[i]->probe && !drivers[i]->probe(s))
                        i++;
                *ret_driver = drivers[i];
        }
        free(s);
        return r;
}

const char *image_flaw(const struct image *image)
{
        if (image->info.corrupt)
                return "is marked as corrupt; 'tarn image check' tells more";
        if (image->info.dirty && !image->driver->dirty_is_whole)
                return "was not closed, and may lack what was written to it last; 'tarn image "
                       "check' tells more";
        return NULL;
}

int co_image_probe(int fd, const char *path, const struct image_driver **ret_driver,
                   bool *ret_guessed, struct error *err)
{
        struct image *image = NULL;
        int r = image_new(fd, path, &image, err);

        if (r == 0)
                r = co_probe(image, ret_driver, err);
        if (r == 0)
                *ret_guessed = *ret_driver == &image_raw;
        image_close(image);
        return r;
}

static int driver_by_name(const char *format, const struct image_driver **ret_driver,
                          struct error *err)
{
        *ret_driver = image_driver_find(format);
        if (!*ret_driver || (*ret_driver)->is_not_image) {
                error_set(err, -EINVAL, "there is no image format '%s'", format);
                return error_hint(err, "formats are %s", image_formats());
        }
        return 0;
}

static void drop_cache(void *arg)
{
        const struct image *image = arg;

        /* A wish: what the kernel keeps is read from memory. */
        (void)posix_fadvise(image->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* Takes @image over. */
static int co_open_as(struct image *image, const struct image_options *options,
                      struct image **ret_image, struct error *err)
{
        const char *format = options ? options->format : NULL;
        const struct image_options none = {0};
        const struct image_driver *driver = NULL;
        int r;

        if (options && options->from_disk)
                co_offload(options->offload, drop_cache, image);
        if (format) {
                r = driver_by_name(format, &driver, err);
        } else {
                r = co_probe(image, &driver, err);
                image->guessed = driver == &image_raw;
        }
        if (r == 0 && driver->is_not_image) {
                r = error_set(err, -ENOTSUP, "'%s' is a %s", image->path, driver->description);
                error_hint(err, "%s", driver->hint);
        }
        if (r == 0) {
                image->driver = driver;
                image->opener = options ? options->opener : NULL;
                image->offload = options ? options->offload : NULL;
                r = driver->co_open(image, options ? options : &none, err);
        }
        if (r == 0 && image->virtual_bytes > IMAGE_SIZE_MAX)
                r = error_set(err, -EFBIG, "'%s' says that it holds a disk larger than 4 PiB",
                              image->path);
        if (r < 0) {
                image_close(image);
                return r;
        }
        *ret_image = image;
        return 0;
}

int co_image_open(int fd, const char *path, const struct image_options *options,
                  struct image **ret_image, struct error *err)
{
        struct image *image = NULL;
        int r = image_new(fd, path, &image, err);

        return r < 0 ? r : co_open_as(image, options, ret_image, err);
}

int co_image_open_within(int fd, const char *path, uint64_t base, uint64_t length,
                         const struct image_options *options, struct image **ret_image,
                         struct error *err)
{
        struct image *image = NULL;
        int r = image_new(fd, path, &image, err);

        if (r < 0)
                return r;
        if (base > image->file_bytes || length > image->file_bytes - base) {
                r = error_set(err, -EBADMSG, "'%s' is not whole: it would end at %llu bytes", path,
                              (unsigned long long)(base + length));
                image_close(image);
                return r;
        }
        image->is_within = true;
        image->base = base;
        image->file_bytes = image->allocated_bytes = length;
        return co_open_as(image, options, ret_image, err);
}

/* A file that leads back to itself. */
static int check_cycle(const struct image *image, const struct image *above, struct error *err)
{
        struct stat ours, theirs;

        if (fstat(image->fd, &ours) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", image->path,
                                 strerror(errno));
        for (const struct image *up = above; up; up = up->above)
                if (fstat(up->fd, &theirs) == 0 && theirs.st_dev == ours.st_dev &&
                    theirs.st_ino == ours.st_ino)
                        return error_set(err, -ELOOP,
                                         "'%s' needs itself: it is named again by '%s'",
                                         image->path, above->path);
        return 0;
}

/* What a guest wrote there is never taken for an image of another format. */
static int co_open_export(const struct image *image, const char *name,
                          const struct image_options *options, struct image **ret_image,
                          struct error *err)
{
        if (!options->format || strcmp(options->format, "raw") != 0)
                return error_set(
                    err, -ENOTSUP,
                    "'%s' needs '%s' to be %s, and an NBD export is read as a raw disk "
                    "only",
                    image->path, name, options->format ? options->format : "an image");
        return options->opener->co_export(options->opener, image->path, name, ret_image, err);
}

int co_image_open_other(struct image *image, const char *name, enum image_use use,
                        const struct image_options *options, struct image **ret_image,
                        struct error *err)
{
        struct image_options below = *options;
        struct image *other = NULL;
        char *path = NULL;
        int fd = -1, r;

        if (!options->opener)
                return error_set(err, -EPERM, "'%s' needs another file, '%s'", image->path, name);
        if (++below.depth > IMAGE_DEPTH_MAX)
                return error_set(err, -ELOOP,
                                 "the chain of backing files of '%s' is longer than %u",
                                 image->path, IMAGE_DEPTH_MAX);
        if (use == IMAGE_BACKING && options->opener->co_export && nbd_is_uri(name))
                return co_open_export(image, name, options, ret_image, err);
        r = options->opener->open(options->opener, image->path, name, use, &fd, &path, err);
        if (r < 0)
                return r;
        r = image_new(fd, path, &other, err);
        free(path);
        if (r < 0) {
                close(fd);
                return r;
        }
        other->owns_fd = true;
        other->above = image;
        r = check_cycle(other, image, err);
        if (r < 0) {
                image_close(other);
                return r;
        }
        return co_open_as(other, &below, ret_image, err);
}

int co_image_create(int fd, const char *path, const struct image_create_options *options,
                    struct image **ret_image, struct error *err)
{
        const struct image_driver *driver = NULL;
        struct image *image = NULL;
        uint64_t bytes = options->virtual_bytes;
        int r;

        r = driver_by_name(options->format, &driver, err);
        if (r < 0)
                return r;
        r = image_new(fd, path, &image, err);
        if (r < 0)
                return r;
        image->driver = driver;
        image->virtual_bytes = bytes;
        image->opener = options->opener;
        image->offload = options->offload;
        if (image->is_block_device && image->file_bytes < bytes)
                r = error_set(err, -ENOSPC, "'%s' has %llu bytes, and the image needs %llu", path,
                              (unsigned long long)image->file_bytes, (unsigned long long)bytes);
        else
                r = driver->co_create(image, options, err);
        if (r < 0) {
                image_close(image);
                return r;
        }
        *ret_image = image;
        return 0;
}
