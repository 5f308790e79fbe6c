/* output.c - the file or block device that an export writes. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/session.h"
#include "server/setup.h"

#define BESIDE_SUFFIX ".exporting-%08x"
#define BESIDE_LENGTH (sizeof(".exporting-12345678") - 1)

struct refuse_work {
        struct session_work work;
        const char *path;
};

static int co_refuse(struct loop *loop, struct session_work *work, struct error *err)
{
        return co_setup_refuse_member(loop, container_of(work, struct refuse_work, work)->path,
                                      err);
}

/* No member, also of a pool that is open and holds its lock, and no file that a loop device is made
 * of. */
static int refuse_member(const char *path, struct error *err)
{
        struct refuse_work w = {.work = {.co_run = co_refuse}, .path = path};

        return session_do(&w.work, err);
}

/* What exists must be open to the user, also where it is not this that will be written. */
static int open_existing(const char *path, mode_t mode, struct error *err)
{
        int fd, r;

        r = refuse_member(path, err);
        if (r < 0)
                return r;
        /* O_EXCL keeps a mounted device from being overwritten. */
        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | (S_ISBLK(mode) ? O_EXCL : 0));
        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path,
                                 errno == EBUSY ? "it is mounted or in use" : strerror(errno));
        return fd;
}

/* Open the folder and choose the other name in it. */
static int open_folder(struct output *o, struct error *err)
{
        char folder[PATH_MAX] = ".";
        const char *slash = strrchr(o->path, '/');
        uint32_t number;

        o->name = slash ? slash + 1 : o->path;
        if (o->name[0] == '\0')
                return error_set(err, -ENOENT, "cannot make '%s': that names no file", o->path);
        if (slash)
                snprintf(folder, sizeof(folder), "%.*s", (int)(o->name - o->path), o->path);
        o->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (o->folder_fd < 0 || getrandom(&number, sizeof(number), 0) < 0)
                return error_set(err, -errno, "cannot make '%s': %s", o->path, strerror(errno));
        snprintf(o->beside, sizeof(o->beside), "%.*s" BESIDE_SUFFIX,
                 (int)(NAME_MAX - BESIDE_LENGTH), o->name, number);
        return 0;
}

/* Without a name, so that nothing stays even of an export that is killed; under the other name
 * where the file system has no such files. */
static int make_beside(struct output *o, mode_t mode, struct error *err)
{
        o->fd = openat(o->folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
        if (o->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
                o->fd =
                    openat(o->folder_fd, o->beside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
                o->has_other_name = o->fd >= 0;
        }
        if (o->fd < 0)
                return error_set(err, -errno, "cannot make a new file beside '%s': %s", o->path,
                                 strerror(errno));
        return 0;
}

int output_scratch(const struct output *o, struct error *err)
{
        struct output scratch = *o;
        uint32_t number;
        int r;

        if (getrandom(&number, sizeof(number), 0) < 0)
                return error_set(err, -errno, "cannot make a random number: %s", strerror(errno));
        snprintf(scratch.beside, sizeof(scratch.beside), BESIDE_SUFFIX, number);
        scratch.has_other_name = false;
        r = make_beside(&scratch, 0600, err);
        if (scratch.has_other_name)
                unlinkat(scratch.folder_fd, scratch.beside, 0);
        return r < 0 ? r : scratch.fd;
}

/* The file that takes the other's place has its mode, and its owner and group as far as the user
 * may give them. */
static int keep_access(struct output *o, const struct stat *st, struct error *err)
{
        bool kept =
            fchown(o->fd, st->st_uid, st->st_gid) == 0 || fchown(o->fd, (uid_t)-1, st->st_gid) == 0;

        /* Another group is not given what that one was. */
        if (fchmod(o->fd, st->st_mode & (kept ? 07777 : 0707)) < 0)
                return error_set(err, -errno, "cannot give the new '%s' its mode: %s", o->path,
                                 strerror(errno));
        return 0;
}

static int open_beside(struct output *o, const char *path, const struct stat *st, struct error *err)
{
        int r;

        o->replaces = st != NULL;
        /* A link stays, and what it leads to is replaced. */
        if (st ? !realpath(path, o->path) : strlen(path) >= sizeof(o->path))
                return error_set(err, st ? -errno : -ENAMETOOLONG, "cannot open '%s': %s", path,
                                 strerror(st ? errno : ENAMETOOLONG));
        if (!st)
                strcpy(o->path, path);
        r = open_folder(o, err);
        if (r == 0)
                r = make_beside(o, st ? 0600 : 0644, err);
        if (r == 0 && st)
                r = keep_access(o, st, err);
        return r;
}

static int open_over(struct output *o, const char *path, bool force, const struct stat *st,
                     struct error *err)
{
        int fd;

        if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
                return error_set(err, -EINVAL,
                                 "'%s' exists, and is neither a regular file nor a block device",
                                 path);
        if (!force) {
                error_set(err, -EEXIST, "'%s' exists", path);
                return error_hint(err, "--force overwrites it");
        }
        fd = open_existing(path, st->st_mode, err);
        if (fd < 0)
                return fd;
        if (S_ISBLK(st->st_mode)) {
                o->fd = fd;
                return 0;
        }
        close(fd);
        return open_beside(o, path, st, err);
}

int output_open(struct output *o, const char *path, bool force, struct error *err)
{
        struct stat st;
        int r;

        *o = (struct output){.fd = -1, .folder_fd = -1};
        if (stat(path, &st) == 0)
                r = open_over(o, path, force, &st, err);
        else if (errno == ENOENT && lstat(path, &st) < 0)
                r = open_beside(o, path, NULL, err);
        else
                r = error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        if (r < 0)
                output_close(o);
        return r;
}

/* A file that somebody else made meanwhile is not replaced. */
static int take_new_name(struct output *o)
{
        struct stat st;

        if (renameat2(o->folder_fd, o->beside, o->folder_fd, o->name, RENAME_NOREPLACE) == 0)
                return 0;
        if (errno != EINVAL && errno != ENOSYS)
                return -errno;
        /* Network file systems cannot do both at once. */
        if (fstatat(o->folder_fd, o->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return -EEXIST;
        return renameat(o->folder_fd, o->beside, o->folder_fd, o->name) < 0 ? -errno : 0;
}

static int take_name(struct output *o)
{
        char proc[32];
        int r;

        if (!o->has_other_name) {
                snprintf(proc, sizeof(proc), "/proc/self/fd/%d", o->fd);
                if (linkat(AT_FDCWD, proc, o->folder_fd, o->replaces ? o->beside : o->name,
                           AT_SYMLINK_FOLLOW) < 0)
                        return -errno;
                if (!o->replaces)
                        return 0;
                o->has_other_name = true;
        }
        if (!o->replaces)
                r = take_new_name(o);
        else
                r = renameat(o->folder_fd, o->beside, o->folder_fd, o->name) < 0 ? -errno : 0;
        if (r == 0)
                o->has_other_name = false;
        return r;
}

int output_finish(struct output *o, struct error *err)
{
        int r = 0;

        if (o->folder_fd < 0)
                return 0;
        /* It may have become one while the export ran. */
        if (o->replaces)
                r = refuse_member(o->path, err);
        if (r < 0)
                return r;
        if (fsync(o->fd) < 0)
                return error_set(err, -errno, "cannot write '%s' to its disk: %s", o->path,
                                 strerror(errno));
        r = take_name(o);
        if (r < 0)
                return error_set(err, r, "the image cannot take the name '%s': %s", o->path,
                                 strerror(-r));
        if (fsync(o->folder_fd) < 0)
                return error_set(err, -errno, "cannot make the name '%s' durable: %s", o->path,
                                 strerror(errno));
        return 0;
}

void output_close(struct output *o)
{
        if (o->has_other_name)
                unlinkat(o->folder_fd, o->beside, 0);
        if (o->fd >= 0)
                close(o->fd);
        if (o->folder_fd >= 0)
                close(o->folder_fd);
        *o = (struct output){.fd = -1, .folder_fd = -1};
}
