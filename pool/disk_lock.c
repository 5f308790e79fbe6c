/* disk_lock.c - having a disk alone, and telling who else has it.
 *
 * Two things keep others away. An OFD lock keeps other tarn processes from a file or device; a
 * POSIX lock would be free too early, see disk.h. O_EXCL on a block device keeps it from being
 * mounted or taken into a RAID, and is refused where that has happened already. Both may be held
 * for a moment longer by a process that was just killed, so both are waited for. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "common/coroutine.h"
#include "pool/disk_internal.h"

#define RETRY_NS UINT64_C(10000000)

static void close_file(FILE **file)
{
        if (*file)
                fclose(*file);
}
#define CLEANUP_FILE __attribute__((cleanup(close_file)))

static void close_folder(DIR **folder)
{
        if (*folder)
                closedir(*folder);
}
#define CLEANUP_FOLDER __attribute__((cleanup(close_folder)))

static void free_text(char **text)
{
        free(*text);
}
#define CLEANUP_TEXT __attribute__((cleanup(free_text)))

/* ---- mounts and swap ---- */

static bool is_block_device(const char *path, dev_t rdev)
{
        struct stat st;

        /* Only device nodes: looking at the source of a network mount could hang. */
        return strncmp(path, "/dev/", 5) == 0 && stat(path, &st) == 0 && S_ISBLK(st.st_mode) &&
               st.st_rdev == rdev;
}

static bool read_device_number(const char *path, dev_t *ret_device)
{
        CLEANUP_FILE FILE *file = fopen(path, "re");
        unsigned major_number, minor_number;

        if (!file || fscanf(file, "%u:%u", &major_number, &minor_number) != 2)
                return false;
        *ret_device = makedev(major_number, minor_number);
        return true;
}

/* Is @device @disk itself or a partition on it? */
static bool lies_on(dev_t device, dev_t disk)
{
        char path[64];
        dev_t parent = 0;

        if (device == disk)
                return true;
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(device),
                 minor(device));
        if (access(path, F_OK) < 0)
                return false;
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(device), minor(device));
        return read_device_number(path, &parent) && parent == disk;
}

/* proc(5): space, tab, newline and backslash in mountinfo are written as octal escapes. */
static void unescape(char *text)
{
        char *to = text;

        for (const char *from = text; *from; to++) {
                if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
                        *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
                        from += 4;
                } else {
                        *to = *from++;
                }
        }
        *to = '\0';
}

/* One line of /proc/self/mountinfo, proc(5): is @disk mounted by it? Btrfs gives a device number of
 * its own, so the source counts too. */
static bool mount_is_of(char *line, dev_t disk, char **ret_mount_point)
{
        unsigned major_number, minor_number;
        int start = 0, end = 0, source = 0;
        char *tail;

        if (sscanf(line, "%*u %*u %u:%u %*s %n%*s%n", &major_number, &minor_number, &start, &end) !=
                2 ||
            !end)
                return false;
        tail = strstr(line + end, " - ");
        if (tail)
                (void)sscanf(tail, " - %*s %n", &source);
        if (tail && source) {
                tail[source + (int)strcspn(tail + source, " \n")] = '\0';
                unescape(tail + source);
        }
        line[end] = '\0';
        *ret_mount_point = line + start;
        unescape(*ret_mount_point);
        return lies_on(makedev(major_number, minor_number), disk) ||
               (tail && source && is_block_device(tail + source, disk));
}

static int check_mounts(const char *path, dev_t rdev, struct error *err)
{
        CLEANUP_FILE FILE *file = fopen("/proc/self/mountinfo", "re");
        CLEANUP_TEXT char *line = NULL;
        size_t capacity = 0;
        char *mount_point;

        while (file && getline(&line, &capacity, file) > 0) {
                if (!mount_is_of(line, rdev, &mount_point))
                        continue;
                error_set(err, -EBUSY, "'%s' is mounted on '%s'", path, mount_point);
                return error_hint(err, "'umount %s' if nothing on it is needed any more",
                                  mount_point);
        }
        return 0;
}

static int check_swaps(const char *path, dev_t rdev, struct error *err)
{
        CLEANUP_FILE FILE *file = fopen("/proc/swaps", "re");
        CLEANUP_TEXT char *line = NULL;
        size_t capacity = 0;
        struct stat st;

        while (file && getline(&line, &capacity, file) > 0) {
                line[strcspn(line, " \t\n")] = '\0';
                unescape(line);
                if (strncmp(line, "/dev/", 5) == 0 && stat(line, &st) == 0 && S_ISBLK(st.st_mode) &&
                    lies_on(st.st_rdev, rdev)) {
                        error_set(err, -EBUSY, "'%s' is in use as swap space", path);
                        return error_hint(err, "'swapoff %s' gives it back", line);
                }
        }
        return 0;
}

int disk_check_unused(const char *path, dev_t rdev, struct error *err)
{
        int r = check_mounts(path, rdev, err);

        return r < 0 ? r : check_swaps(path, rdev, err);
}

/* ---- who holds it ---- */

/* The first name in a folder of sysfs, e.g. "dm-0" in holders/. */
static bool first_name(const char *path, char *ret_name, size_t size)
{
        CLEANUP_FOLDER DIR *folder = opendir(path);
        const struct dirent *entry;

        while (folder && (entry = readdir(folder)))
                if (entry->d_name[0] != '.') {
                        snprintf(ret_name, size, "%s", entry->d_name);
                        return true;
                }
        return false;
}

/* A device built on @rdev or on one of its partitions: LVM, RAID, multipath, encryption. */
static bool find_stacked(dev_t rdev, char *ret_name, size_t size)
{
        char path[400], base[64];
        CLEANUP_FOLDER DIR *folder = NULL;
        const struct dirent *entry;

        snprintf(base, sizeof(base), "/sys/dev/block/%u:%u", major(rdev), minor(rdev));
        snprintf(path, sizeof(path), "%s/holders", base);
        if (first_name(path, ret_name, size))
                return true;
        folder = opendir(base);
        while (folder && (entry = readdir(folder))) {
                if (entry->d_name[0] == '.')
                        continue;
                snprintf(path, sizeof(path), "%s/%s/holders", base, entry->d_name);
                if (first_name(path, ret_name, size))
                        return true;
        }
        return false;
}

/* Does this /proc/PID/fdinfo/FD show an OFD lock on the file? "lock: 1: OFDLCK ADVISORY WRITE -1
 * MAJ:MIN:INODE ..." */
static bool fdinfo_locks(const char *path, const struct stat *st)
{
        CLEANUP_FILE FILE *file = fopen(path, "re");
        unsigned major_number, minor_number;
        unsigned long inode;
        char line[256];

        while (file && fgets(line, sizeof(line), file))
                if (sscanf(line, "lock: %*s OFDLCK %*s %*s %*s %x:%x:%lu", &major_number,
                           &minor_number, &inode) == 3 &&
                    makedev(major_number, minor_number) == st->st_dev && inode == st->st_ino)
                        return true;
        return false;
}

static bool process_locks(const char *pid, const struct stat *st)
{
        char path[600];
        CLEANUP_FOLDER DIR *folder = NULL;
        const struct dirent *entry;

        snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
        folder = opendir(path);
        while (folder && (entry = readdir(folder))) {
                if (entry->d_name[0] == '.')
                        continue;
                snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, entry->d_name);
                if (fdinfo_locks(path, st))
                        return true;
        }
        return false;
}

/* Neither F_OFD_GETLK nor /proc/locks names the process of an OFD lock (both give -1), but fdinfo
 * shows it for the processes that we may look at. 0 where none is found. */
static pid_t find_locker(const struct stat *st)
{
        CLEANUP_FOLDER DIR *folder = opendir("/proc");
        const struct dirent *entry;

        while (folder && (entry = readdir(folder)))
                if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
                    process_locks(entry->d_name, st))
                        return (pid_t)atoi(entry->d_name);
        return 0;
}

static void command_of(pid_t pid, char *ret_name, size_t size)
{
        char path[64];
        CLEANUP_FILE FILE *file = NULL;

        snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
        file = fopen(path, "re");
        if (!file || !fgets(ret_name, (int)size, file))
                snprintf(ret_name, size, "?");
        ret_name[strcspn(ret_name, "\n")] = '\0';
}

static int busy(const char *path, const struct stat *st, struct error *err)
{
        char name[NAME_MAX + 1];
        pid_t pid;

        if (S_ISBLK(st->st_mode) && find_stacked(st->st_rdev, name, sizeof(name)))
                return error_set(err, -EBUSY, "'%s' is in use: '%s' is built on it", path, name);
        pid = find_locker(st);
        if (pid == getpid())
                return error_set(err, -EBUSY, "'%s' is in use already by this command", path);
        if (pid) {
                command_of(pid, name, sizeof(name));
                error_set(err, -EBUSY, "'%s' is in use by process %d (%s)", path, (int)pid, name);
        } else {
                error_set(err, -EBUSY, "'%s' is in use by another process", path);
        }
        return error_hint(
            err, "a pool is open in one process at a time: end that one, or ask it where it is a "
                 "server of the pool");
}

/* ---- taking it ---- */

/* False, once the time is over; otherwise some of it has passed. */
static bool co_wait_more(uint64_t deadline_ns)
{
        if (loop_now_ns(co_loop()) >= deadline_ns)
                return false;
        co_sleep_ns(RETRY_NS);
        return true;
}

static uint64_t deadline_after(unsigned wait_ms)
{
        return loop_now_ns(co_loop()) + (uint64_t)wait_ms * 1000000;
}

int co_disk_open_block(const char *path, const struct stat *st, const struct disk_options *options,
                       struct error *err)
{
        uint64_t deadline_ns = deadline_after(options->lock_wait_ms);

        for (;;) {
                int r, fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC | O_NONBLOCK);

                if (fd >= 0)
                        return fd;
                if (errno != EBUSY)
                        return error_set(err, -errno, "cannot open member '%s': %s", path,
                                         strerror(errno));
                r = disk_check_unused(path, st->st_rdev, err);
                if (r < 0)
                        return r;
                if (!co_wait_more(deadline_ns))
                        return busy(path, st, err);
        }
}

int co_disk_lock(struct member *m, unsigned wait_ms, struct error *err)
{
        struct disk *d = disk_of(m);
        uint64_t deadline_ns = deadline_after(wait_ms);
        struct stat st;

        for (;;) {
                struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

                if (fcntl(d->fd, F_OFD_SETLK, &lock) == 0)
                        return 0;
                if (errno == EINTR)
                        continue;
                if (errno != EAGAIN && errno != EACCES)
                        return error_set(err, -errno, "cannot lock '%s': %s", m->path,
                                         strerror(errno));
                if (!co_wait_more(deadline_ns))
                        break;
        }
        if (fstat(d->fd, &st) < 0)
                return error_set(err, -EBUSY, "'%s' is in use by another process", m->path);
        return busy(m->path, &st, err);
}
