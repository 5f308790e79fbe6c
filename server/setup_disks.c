/* setup_disks.c - looking at disks that are to become members. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/size.h"
#include "pool/disk.h"
#include "server/setup.h"

static bool same_disk(const struct stat *a, const struct stat *b)
{
        if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
                return a->st_rdev == b->st_rdev;
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

int setup_check_distinct(const char *const *paths, size_t n_paths, struct error *err)
{
        struct stat *st = calloc(n_paths, sizeof(*st));
        bool *there = calloc(n_paths, sizeof(*there));
        int r = 0;

        if (!st || !there)
                r = error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < n_paths; i++) {
                there[i] = stat(paths[i], &st[i]) == 0;
                for (size_t j = 0; r == 0 && j < i; j++)
                        if (there[i] && there[j] ? same_disk(&st[i], &st[j])
                                                 : strcmp(paths[i], paths[j]) == 0)
                                r = error_set(err, -EEXIST, "'%s' and '%s' are the same disk",
                                              paths[j], paths[i]);
        }
        free(st);
        free(there);
        return r;
}

/* The path of the file beneath a loop device; false: there is none. */
static bool loop_backing(const char *device, char backing[PATH_MAX])
{
        char path[300];
        snprintf(path, sizeof(path), "/sys/block/%.255s/loop/backing_file", device);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, backing, PATH_MAX - 1);

        if (fd >= 0)
                close(fd);
        if (n <= 0)
                return false;
        backing[n] = '\0';
        backing[strcspn(backing, "\n")] = '\0';
        return true;
}

static int refuse_backing_of(const char *device, const char *path, const struct stat *st,
                             struct error *err)
{
        char backing[PATH_MAX];
        struct stat back;

        if (strncmp(device, "loop", 4) != 0 || !loop_backing(device, backing) ||
            stat(backing, &back) < 0 || !same_disk(st, &back))
                return 0;
        error_set(err, -EBUSY, "'%s' is in use as '/dev/%s'", path, device);
        return error_hint(err, "'losetup -d /dev/%s' if it is not needed any more", device);
}

/* Writing to a file beneath a loop device that is set up destroys what its users have there, and no
 * lock or O_EXCL tells of them. (Not by glob(3): what it cannot look at for want of memory it leaves
 * out, and glibc's frees twice then.) */
int setup_refuse_backing(const char *path, struct error *err)
{
        const struct dirent *entry;
        struct stat st;
        int r = 0;

        if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
                return 0;
        DIR *devices = opendir("/sys/block");
        if (!devices && errno == ENOENT)
                return 0;
        if (!devices)
                return error_set(err, -errno, "cannot see what loop devices use '%s': %s", path,
                                 strerror(errno));
        while (r == 0 && (entry = readdir(devices)))
                r = refuse_backing_of(entry->d_name, path, &st, err);
        closedir(devices);
        return r;
}

static int refuse_member(const char *path, const struct pool_label *label, struct error *err)
{
        error_set(err, -EEXIST, "'%s' is a member of pool '%s'", path, label->pool_name);
        return error_hint(err,
                          "'tarn pool import %s' makes that pool known; --force takes the disk "
                          "from it, and what that pool holds is lost",
                          path);
}

/* The pool of the member that @m is; -ENODATA where it is none. Codes are told apart here, and a
 * function that is given no place for its sentence may answer another one (common/error.h). */
static int co_read_label(struct member *m, struct pool_label *ret_label)
{
        struct error e = ERROR_INIT;

        return co_pool_read_label(m, ret_label, &e);
}

static const char *why_unreadable(int code)
{
        return code == -ENOTSUP   ? " of a newer format"
               : code == -EUCLEAN ? ", with damaged labels"
                                  : ", perhaps: its labels cannot be read";
}

int co_setup_check_disk(struct loop *loop, const char *path, struct error *err)
{
        const struct disk_options options = {.readonly = true};
        struct pool_label label;
        struct member *m = NULL;
        char found[128] = "";
        int r;

        r = co_disk_open(loop, path, &options, &m, err);
        if (r < 0)
                return r;
        r = co_read_label(m, &label);
        member_close(m);
        if (r == 0)
                return refuse_member(path, &label, err);
        if (r != -ENODATA) {
                error_set(err, -EEXIST, "'%s' is a member of a pool%s", path, why_unreadable(r));
                return error_hint(err, "--force takes it, and what is on it is lost");
        }
        r = disk_probe(path, found, sizeof(found), err);
        if (r < 0)
                return r;
        if (found[0]) {
                error_set(err, -EEXIST, "'%s' holds data: %s", path, found);
                return error_hint(err, "--force takes it, and what is on it is lost");
        }
        return 0;
}

int co_setup_refuse_member(struct loop *loop, const char *path, struct error *err)
{
        const struct disk_options options = {.readonly = true};
        struct pool_label label;
        struct member *m = NULL;
        int r = setup_refuse_backing(path, err);

        if (r < 0)
                return r;
        /* What cannot be a member, or cannot be looked at, is the business of who opens it. */
        if (co_disk_open(loop, path, &options, &m, NULL) < 0)
                return 0;
        r = co_read_label(m, &label);
        member_close(m);
        if (r == 0) {
                error_set(err, -EBUSY, "'%s' is a member of pool '%s', and is not overwritten",
                          path, label.pool_name);
                return error_hint(
                    err, "'tarn pool destroy' makes it a file or disk like others; delete a file "
                         "that is only a copy of one");
        }
        if (r != -ENODATA)
                return error_set(err, -EBUSY,
                                 "'%s' is a member of a pool%s, and is not overwritten", path,
                                 why_unreadable(r));
        return 0;
}

static int make_file(const char *path, uint64_t bytes, bool *ret_made, struct error *err)
{
        int r = 0, fd;

        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST)
                return 0;
        if (fd < 0)
                return error_set(err, -errno, "cannot make '%s': %s", path, strerror(errno));
        *ret_made = true;
        if (ftruncate(fd, (off_t)bytes) < 0 || fsync(fd) < 0)
                r = error_set(err, -errno, "cannot make '%s' %llu bytes long: %s", path,
                              (unsigned long long)bytes, strerror(errno));
        close(fd);
        return r;
}

int setup_make_files(const char *const *paths, size_t n_paths, uint64_t file_bytes, bool *ret_made,
                     struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < n_paths; i++) {
                ret_made[i] = false;
                if (file_bytes > 0) {
                        r = make_file(paths[i], file_bytes, &ret_made[i], err);
                } else if (access(paths[i], F_OK) < 0 && errno == ENOENT) {
                        r = error_set(err, -ENOENT, "there is no disk or file '%s'", paths[i]);
                        error_hint(err, "--file-size SIZE makes members that do not exist yet, as "
                                        "sparse files");
                }
                if (r < 0)
                        setup_remove_files(paths, i + 1, ret_made);
        }
        return r;
}

void setup_remove_files(const char *const *paths, size_t n_paths, const bool *made)
{
        for (size_t i = 0; i < n_paths; i++)
                if (made[i])
                        unlink(paths[i]);
}
