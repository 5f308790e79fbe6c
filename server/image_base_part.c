/* image_base_part.c - the files that an image consists of: recognised, and seen to stay as they were. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "server/image_base_internal.h"

#define HEAD_BYTES 4096u

static int64_t mtime_of(const struct stat *st)
{
        return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int size_of(int fd, const char *path, const struct stat *st, uint64_t *ret_size,
                   struct error *err)
{
        *ret_size = (uint64_t)st->st_size;
        if (S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, ret_size) < 0)
                return error_set(err, -errno, "cannot ask for the size of '%s': %s", path,
                                 strerror(errno));
        return 0;
}

static int identity_add(struct image_identity *identity, const struct image_part *part, int fd,
                        const char *path, struct error *err)
{
        uint64_t fields[2] = {part->size_bytes, (uint64_t)part->mtime_ns};
        uint8_t head[HEAD_BYTES];
        ssize_t n = pread(fd, head, sizeof(head), 0);

        if (n < 0)
                return error_set(err, -errno, "cannot read '%s': %s", path, strerror(errno));
        identity->crc = crc32c(identity->crc, fields, sizeof(fields));
        identity->crc = crc32c(identity->crc, head, (size_t)n);
        return 0;
}

/* Whoever holds a lock against readers is about to change it; a pool holds one on its members. */
static int see_unlocked(int fd, const char *path, struct error *err)
{
        struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

        if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
                return 0;
        error_set(err, -EBUSY, "'%s' is locked by whoever writes to it", path);
        return error_hint(err, "a volume cannot stand on what changes, such as a member of a pool");
}

static void part_free(struct image_part *part)
{
        if (part->fd >= 0)
                close(part->fd);
        free(part->path);
        free(part);
}

int image_part_add(struct image_base *b, int fd, const char *path, struct image_file *file,
                   struct image_identity *identity, struct error *err)
{
        struct image_part found = {.fd = -1}, *part;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", path, strerror(errno));
        found.is_file = S_ISREG(st.st_mode);
        found.mtime_ns = S_ISBLK(st.st_mode) ? 0 : mtime_of(&st);
        r = see_unlocked(fd, path, err);
        if (r == 0)
                r = size_of(fd, path, &st, &found.size_bytes, err);
        if (r == 0)
                r = identity_add(identity, &found, fd, path, err);
        if (r < 0)
                return r;
        if (list_empty(&b->parts)) { /* the image itself */
                identity->size = found.size_bytes;
                identity->mtime_ns = found.mtime_ns;
                identity->is_block_device = S_ISBLK(st.st_mode);
        }
        part = calloc(1, sizeof(*part));
        if (!part)
                return error_set(err, -ENOMEM, "out of memory");
        *part = found;
        part->path = strdup(path);
        part->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (!part->path || part->fd < 0) {
                part_free(part);
                return error_set(err, -ENOMEM, "out of memory");
        }
        part->file = file;
        list_append(&b->parts, &part->link);
        return 0;
}

void image_parts_close(struct image_base *b)
{
        list_for_each_safe (it, &b->parts) {
                struct image_part *part = container_of(it, struct image_part, link);

                list_remove(&part->link);
                image_file_put(b->hp->host, part->file, b->is_kept);
                part_free(part);
        }
}

static int part_unchanged(const struct image_part *part, struct error *err)
{
        struct stat st;

        if (!part->is_file)
                return 0;
        if (fstat(part->fd, &st) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", part->path,
                                 strerror(errno));
        if ((uint64_t)st.st_size == part->size_bytes && mtime_of(&st) == part->mtime_ns)
                return 0;
        error_set(err, -ESTALE, "image '%s' was changed while volumes stand on it", part->path);
        return error_hint(err, "what they have not written or copied is lost, unless the image is "
                               "brought back as it was");
}

int image_base_unchanged(struct image_base *b, struct error *err)
{
        int r = 0;

        list_for_each (it, &b->parts)
                if (r == 0)
                        r = part_unchanged(container_of(it, struct image_part, link), err);
        return r;
}
