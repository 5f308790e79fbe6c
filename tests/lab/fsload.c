/* fsload - in the guest: changes a file system step by step, each reported once it is durable, and
 * after a power cut shows that all that was reported is there.
 *
 * usage: fsload load DIRECTORY NAME LAST     goes on after step LAST for ever; prints "NAME STEP" for each
 *        fsload verify DIRECTORY LAST        all up to LAST is there, and of the step after it what may be
 *
 * Step N appends record N to a journal, puts version N in the place of "current" by a rename, makes
 * file N and removes file N - FILES_KEPT; on btrfs each SNAPSHOT_STEPS-th step ends with a snapshot of
 * it all. A thread beside it writes and renames what nobody synchronises. What a call returns an error
 * for ends the program with status 1. */
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CONTENT_MAX    4096u
#define FILES_KEPT     8u
#define SNAPSHOT_STEPS 16u
#define SNAPSHOTS_KEPT 3u
#define NOISE_BYTES    (UINT64_C(8) << 20)

static int top;  /* the file system's directory */
static int work; /* "work" in it: what the steps change */
static int is_btrfs;

static void die(const char *what, uint64_t number)
{
        printf("fsload: %s %llu: %s\n", what, (unsigned long long)number, strerror(errno));
        fflush(stdout);
        _exit(1);
}

static void lost(const char *what, uint64_t number)
{
        printf("fsload: %s %llu is lost\n", what, (unsigned long long)number);
        fflush(stdout);
        _exit(1);
}

/* What a record or file with this number holds: different in each, and in length too. */
static size_t fill(uint64_t number, uint8_t *buffer)
{
        uint64_t state = number * UINT64_C(0x9e3779b97f4a7c15);
        size_t n = 64 + (state >> 40) % (CONTENT_MAX - 64);

        for (size_t i = 0; i < n; i++) {
                state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                buffer[i] = (uint8_t)(state >> 56);
        }
        return n;
}

static const char *numbered(const char *prefix, uint64_t number)
{
        static char name[64];

        snprintf(name, sizeof(name), "%s%llu", prefix, (unsigned long long)number);
        return name;
}

static void write_content(const char *name, uint64_t number)
{
        uint8_t buffer[CONTENT_MAX];
        size_t n = fill(number, buffer);
        int fd = openat(work, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        if (fd < 0 || write(fd, buffer, n) != (ssize_t)n || fsync(fd) < 0)
                die(name, number);
        close(fd);
}

/* Where the record after the first @n begins. */
static off_t journal_end(uint64_t n)
{
        uint8_t buffer[CONTENT_MAX];
        off_t end = 0;

        for (uint64_t i = 1; i <= n; i++)
                end += (off_t)fill(i, buffer);
        return end;
}

static int holds(int directory, const char *name, uint64_t number)
{
        uint8_t wanted[CONTENT_MAX], found[CONTENT_MAX + 1];
        size_t n = fill(number, wanted);
        int fd = openat(directory, name, O_RDONLY);

        if (fd < 0)
                return 0;
        ssize_t n_found = read(fd, found, sizeof(found));
        close(fd);
        return n_found == (ssize_t)n && memcmp(found, wanted, n) == 0;
}

static void verify_journal(int directory, uint64_t last, int exactly)
{
        uint8_t wanted[CONTENT_MAX], found[CONTENT_MAX];
        int fd = openat(directory, "journal", O_RDONLY);

        if (fd < 0)
                die("journal of step", last);
        for (uint64_t i = 1; i <= last; i++) {
                size_t n = fill(i, wanted);
                if (read(fd, found, n) != (ssize_t)n || memcmp(found, wanted, n) != 0)
                        lost("record", i);
        }
        if (exactly && read(fd, found, 1) != 0)
                lost("the end of the journal after", last);
        close(fd);
}

static void verify_snapshot(uint64_t number)
{
        int fd = openat(top, numbered("snapshot-", number), O_RDONLY | O_DIRECTORY);

        if (fd < 0)
                die("snapshot", number);
        verify_journal(fd, number, 1);
        if (!holds(fd, "current", number) || !holds(fd, numbered("file-", number), number))
                lost("a file of snapshot", number);
        close(fd);
}

static void verify(uint64_t last)
{
        struct stat st;

        verify_journal(work, last, 0);
        if (!holds(work, "current", last) && !holds(work, "current", last + 1))
                lost("version", last);
        /* The next step may have removed one more. */
        for (uint64_t i = last > FILES_KEPT - 2 ? last - FILES_KEPT + 2 : 1; i <= last; i++)
                if (!holds(work, numbered("file-", i), i))
                        lost("file", i);
        for (uint64_t i = 1; i + FILES_KEPT <= last; i++)
                if (fstatat(work, numbered("file-", i), &st, 0) == 0)
                        lost("the removal of file", i);
        uint64_t newest = last / SNAPSHOT_STEPS * SNAPSHOT_STEPS;
        for (uint64_t i = 0; is_btrfs && i < SNAPSHOTS_KEPT - 1 && newest > i * SNAPSHOT_STEPS; i++)
                verify_snapshot(newest - i * SNAPSHOT_STEPS);
}

static void delete_snapshot(uint64_t number)
{
        struct btrfs_ioctl_vol_args arguments = {0};

        snprintf(arguments.name, sizeof(arguments.name), "%s", numbered("snapshot-", number));
        if (ioctl(top, BTRFS_IOC_SNAP_DESTROY, &arguments) < 0 && errno != ENOENT)
                die("deletion of snapshot", number);
}

/* The kernel commits it before it answers. */
static void make_snapshot(uint64_t number)
{
        struct btrfs_ioctl_vol_args_v2 arguments = {.fd = work, .flags = BTRFS_SUBVOL_RDONLY};

        delete_snapshot(number); /* from before the power cut, where it was not reported */
        snprintf(arguments.name, sizeof(arguments.name), "%s", numbered("snapshot-", number));
        if (ioctl(top, BTRFS_IOC_SNAP_CREATE_V2, &arguments) < 0)
                die("snapshot", number);
        if (number > SNAPSHOTS_KEPT * SNAPSHOT_STEPS)
                delete_snapshot(number - SNAPSHOTS_KEPT * SNAPSHOT_STEPS);
}

static void step(int journal, uint64_t number)
{
        uint8_t buffer[CONTENT_MAX];
        size_t n = fill(number, buffer);

        if (write(journal, buffer, n) != (ssize_t)n || fdatasync(journal) < 0)
                die("record", number);
        write_content("new", number);
        if (renameat(work, "new", work, "current") < 0)
                die("version", number);
        write_content(numbered("file-", number), number);
        if (number > FILES_KEPT && unlinkat(work, numbered("file-", number - FILES_KEPT), 0) < 0 &&
            errno != ENOENT)
                die("removal before step", number);
        if (fsync(work) < 0)
                die("directory of step", number);
        if (is_btrfs && number % SNAPSHOT_STEPS == 0)
                make_snapshot(number);
}

static void *make_noise(void *arg)
{
        static uint8_t bytes[64 << 10];
        int fd = openat(top, "noise", O_WRONLY | O_CREAT, 0600);

        (void)arg;
        if (fd < 0)
                die("noise", 0);
        for (uint64_t i = 0;; i++) {
                uint64_t at = i * UINT64_C(0x9e3779b97f4a7c15) % (NOISE_BYTES / sizeof(bytes));
                memset(bytes, (int)i, sizeof(bytes));
                if (pwrite(fd, bytes, sizeof(bytes), (off_t)(at * sizeof(bytes))) < 0)
                        die("noise", i);
                if ((mkdirat(top, "a", 0700) < 0 && errno != EEXIST) ||
                    (mkdirat(top, "a/b", 0700) < 0 && errno != EEXIST) ||
                    renameat(top, "a/b", top, "b") < 0 || unlinkat(top, "b", AT_REMOVEDIR) < 0 ||
                    unlinkat(top, "a", AT_REMOVEDIR) < 0)
                        die("the noise of directories", i);
                usleep(10000);
        }
        return NULL;
}

static void open_directories(const char *directory)
{
        struct btrfs_ioctl_vol_args arguments = {.name = "work"};
        struct statfs fs;

        top = open(directory, O_RDONLY | O_DIRECTORY);
        if (top < 0 || fstatfs(top, &fs) < 0)
                die(directory, 0);
        is_btrfs = fs.f_type == BTRFS_SUPER_MAGIC;
        work = openat(top, "work", O_RDONLY | O_DIRECTORY);
        if (work >= 0)
                return;
        if ((is_btrfs ? ioctl(top, BTRFS_IOC_SUBVOL_CREATE, &arguments)
                      : mkdirat(top, "work", 0700)) < 0)
                die("work", 0);
        work = openat(top, "work", O_RDONLY | O_DIRECTORY);
        if (work < 0 || fsync(top) < 0)
                die("work", 0);
}

int main(int argc, char **argv)
{
        int loads = argc == 5 && strcmp(argv[1], "load") == 0;
        pthread_t noise;

        if (!loads && !(argc == 4 && strcmp(argv[1], "verify") == 0)) {
                fputs("usage: fsload load DIRECTORY NAME LAST | verify DIRECTORY LAST\n", stderr);
                return 2;
        }
        uint64_t last = strtoull(argv[argc - 1], NULL, 10);
        open_directories(argv[2]);
        if (!loads) {
                verify(last);
                return 0;
        }
        /* Of the step after the last reported one something may be there: it is done again. */
        int journal = openat(work, "journal", O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (journal < 0 || ftruncate(journal, journal_end(last)) < 0)
                die("journal of step", last);
        if (pthread_create(&noise, NULL, make_noise, NULL) != 0)
                die("a thread", 0);
        for (uint64_t number = last + 1;; number++) {
                step(journal, number);
                printf("%s %llu\n", argv[3], (unsigned long long)number);
                fflush(stdout);
        }
}
