/* image.c - which format a file has, and opening it with that format's driver. */
#include "formats/image.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/coroutine.h"

static bool starts_with(const struct image_sample *s, size_t offset, const char *magic, size_t n)
{
        return s->head_length >= offset + n && memcmp(s->head + offset, magic, n) == 0;
}

static bool probe_qcow2(const struct image_sample *s)
{
        return starts_with(s, 0, "QFI\xfb", 4);
}

/* Sparse extent ("KDMV"), the older ESX one ("COWD"), or a descriptor of its own in text. */
static bool probe_vmdk(const struct image_sample *s)
{
        return starts_with(s, 0, "KDMV", 4) || starts_with(s, 0, "COWD", 4) ||
               starts_with(s, 0, "# Disk DescriptorFile", 21);
}

static bool probe_vdi(const struct image_sample *s)
{
        return starts_with(s, 0x40, "\x7f\x10\xda\xbe", 4);
}

static bool probe_vhdx(const struct image_sample *s)
{
        return starts_with(s, 0, "vhdxfile", 8);
}

/* A dynamic VHD has a copy of its footer in front; a fixed one has it only in the last sector. */
static bool probe_vhd(const struct image_sample *s)
{
        return starts_with(s, 0, "conectix", 8) ||
               (s->tail_length == IMAGE_TAIL_SIZE && memcmp(s->tail, "conectix", 8) == 0);
}

static bool probe_compressed(const struct image_sample *s)
{
        return starts_with(s, 0, "\x1f\x8b\x08", 3) ||
               starts_with(s, 0,
                           "\xfd"
                           "7zXZ",
                           6) ||
               starts_with(s, 0, "\x28\xb5\x2f\xfd", 4) || starts_with(s, 0, "BZh", 3) ||
               starts_with(s, 0, "PK\x03\x04", 4);
}

#define CONVERT_HINT "'qemu-img convert -O raw' makes a raw image of it, which can be imported"

static const struct image_driver recognised[] = {
    {.name = "qcow2", .description = "QEMU qcow2", .probe = probe_qcow2, .hint = CONVERT_HINT},
    {.name = "vmdk", .description = "VMware VMDK", .probe = probe_vmdk, .hint = CONVERT_HINT},
    {.name = "vdi", .description = "VirtualBox VDI", .probe = probe_vdi, .hint = CONVERT_HINT},
    {.name = "vhdx", .description = "Hyper-V VHDX", .probe = probe_vhdx, .hint = CONVERT_HINT},
    {.name = "vhd", .description = "Virtual PC VHD", .probe = probe_vhd, .hint = CONVERT_HINT},
    {.name = "compressed",
     .description = "compressed file",
     .is_not_image = true,
     .probe = probe_compressed,
     .hint = "unpack it first (gunzip, unxz, unzstd, bunzip2, unzip)"},
};

const struct image_driver *image_driver_find(const char *name)
{
        if (strcmp(name, image_raw.name) == 0)
                return &image_raw;
        for (size_t i = 0; i < sizeof(recognised) / sizeof(recognised[0]); i++)
                if (strcmp(name, recognised[i].name) == 0)
                        return &recognised[i];
        return NULL;
}

const char *image_formats_writable(void)
{
        return image_raw.name;
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

        while (iov.iov_len > 0) {
                struct loop_io io = {
                    .op = op, .fd = image->fd, .iov = &iov, .n_iov = 1, .offset = offset};
                int n = co_io(&io);

                if (n == -EINTR || n == -EAGAIN)
                        continue;
                if (n < 0)
                        return error_set(err, n, "cannot %s '%s': %s", reading ? "read" : "write",
                                         image->path, strerror(-n));
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

int co_image_pwrite(struct image *image, const void *buffer, size_t length, uint64_t offset,
                    struct error *err)
{
        return co_transfer(image, LOOP_WRITEV, (struct iovec){(void *)buffer, length}, offset, err);
}

void image_close(struct image *image)
{
        if (!image)
                return;
        if (image->driver && image->driver->close)
                image->driver->close(image);
        free(image->path);
        free(image);
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
                *ret_driver = &image_raw;
                for (size_t i = 0; i < sizeof(recognised) / sizeof(recognised[0]); i++)
                        if (recognised[i].probe(s)) {
                                *ret_driver = &recognised[i];
                                break;
                        }
        }
        free(s);
        return r;
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
                return error_hint(err,
                                  "formats are %s and those that are not built yet: qcow2, "
                                  "vmdk, vdi, vhd and vhdx",
                                  image_formats_writable());
        }
        return 0;
}

int co_image_open(int fd, const char *path, const char *format, struct image **ret_image,
                  struct error *err)
{
        const struct image_driver *driver = NULL;
        struct image *image = NULL;
        int r;

        r = image_new(fd, path, &image, err);
        if (r < 0)
                return r;
        if (format) {
                r = driver_by_name(format, &driver, err);
        } else {
                r = co_probe(image, &driver, err);
                image->guessed = driver == &image_raw;
        }
        if (r == 0 && !driver->co_open && format) {
                r = error_set(err, -ENOTSUP, "reading %s is not built yet", driver->name);
                error_hint(err, "%s", driver->hint);
        } else if (r == 0 && !driver->co_open) {
                r = driver->is_not_image
                        ? error_set(err, -ENOTSUP, "'%s' is a %s", path, driver->description)
                        : error_set(err, -ENOTSUP,
                                    "'%s' is a %s image; reading %s is not built yet", path,
                                    driver->description, driver->name);
                if (driver->hint)
                        error_hint(err, "%s", driver->hint);
        }
        if (r == 0) {
                image->driver = driver;
                r = driver->co_open(image, err);
        }
        if (r < 0) {
                image_close(image);
                return r;
        }
        *ret_image = image;
        return 0;
}

int co_image_create(int fd, const char *path, const char *format, uint64_t virtual_bytes,
                    struct image **ret_image, struct error *err)
{
        const struct image_driver *driver = NULL;
        struct image *image = NULL;
        int r;

        r = driver_by_name(format, &driver, err);
        if (r < 0)
                return r;
        if (!driver->co_create)
                return error_set(err, -ENOTSUP, "writing %s images is not built yet", format);
        r = image_new(fd, path, &image, err);
        if (r < 0)
                return r;
        if (image->is_block_device && image->file_bytes < virtual_bytes) {
                r = error_set(err, -ENOSPC, "'%s' has %llu bytes, and the image needs %llu", path,
                              (unsigned long long)image->file_bytes,
                              (unsigned long long)virtual_bytes);
                image_close(image);
                return r;
        }
        image->driver = driver;
        image->virtual_bytes = virtual_bytes;
        r = driver->co_create(image, err);
        if (r < 0) {
                image_close(image);
                return r;
        }
        *ret_image = image;
        return 0;
}
