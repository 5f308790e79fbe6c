/* replaylog - what the disk below the kernel's dm-log-writes may hold after a power cut, at any moment
 * of a log of it.
 *
 * usage: replaylog points LOG                            each entry after which all before it is durable:
 *                                                        "ENTRY MARK", MARK the last one by then, or -1
 *        replaylog apply LOG DISK FROM TO FIRST SECTORS  makes DISK, as it is after entry FROM - 1, what it
 *                                                        is after entry TO - 1
 *        replaylog tear LOG DISK FROM SEED FIRST SECTORS of what followed without a flush some is there,
 *                                                        whole or in part, some not
 *
 * DISK is a file for SECTORS sectors (of 512 bytes) of the disk, from sector FIRST on; 0 0 for all of it.
 * The target logs a write behind the first flush that was submitted after it had completed, and a FUA
 * write when it has completed: so the entries up to a flush are those that it promises, and no more.
 *
 * Source: Linux, Documentation/admin-guide/device-mapper/log-writes.rst and the structures there in
 * drivers/md/dm-log-writes.c, format 1: a superblock in the first sector of the log, then for each entry
 * a sector with what it is (and a mark's text), and the data of a write. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAGIC    UINT64_C(0x6a736677736872)
#define LOG_VERSION  1u
#define SECTOR       512u
#define SECTORS_MAX  (UINT64_C(64) << 11) /* of one entry: 64 MiB */
#define ENTRIES_MAX  (UINT64_C(1) << 24)
#define FLAG_FLUSH   UINT64_C(1)
#define FLAG_FUA     UINT64_C(2)
#define FLAG_DISCARD UINT64_C(4)
#define FLAG_MARK    UINT64_C(8)

struct super {
        uint64_t magic, version, n_entries; /* little endian */
        uint32_t sector_bytes;
};

struct entry {
        uint64_t sector, n_sectors, flags, data_len; /* host byte order */
        off_t data;                                  /* where in the log it lies */
        long mark;                                   /* of a mark that is a number, else -1 */
};

struct log {
        int fd;
        struct entry *entries;
        uint64_t n_entries;
};

struct disk {
        int fd;
        uint64_t first, n_sectors;
};

static void die(const char *what)
{
        fprintf(stderr, "replaylog: %s: %s\n", what, errno ? strerror(errno) : "not as it must be");
        exit(1);
}

static void read_all(int fd, void *buffer, size_t n, off_t at)
{
        errno = 0;
        if (pread(fd, buffer, n, at) != (ssize_t)n)
                die("the log's end");
}

static off_t read_entry(const struct log *log, off_t at, struct entry *e)
{
        uint64_t words[SECTOR / 8 + 1] = {0}; /* and a 0 behind a mark's text */

        read_all(log->fd, words, SECTOR, at);
        *e = (struct entry){.sector = le64toh(words[0]),
                            .n_sectors = le64toh(words[1]),
                            .flags = le64toh(words[2]),
                            .data_len = le64toh(words[3]),
                            .data = at + SECTOR,
                            .mark = -1};
        if (e->n_sectors > SECTORS_MAX && !(e->flags & FLAG_DISCARD))
                die("an entry's length");
        if (e->flags & FLAG_MARK) {
                char *end;
                long number = strtol((const char *)&words[4], &end, 10);
                e->mark = *end == '\0' ? number : -1;
                return at + SECTOR;
        }
        return at + SECTOR + (e->flags & FLAG_DISCARD ? 0 : (off_t)(e->n_sectors * SECTOR));
}

static void open_log(struct log *log, const char *path)
{
        struct super super;
        off_t at = SECTOR;

        log->fd = open(path, O_RDONLY);
        if (log->fd < 0)
                die(path);
        read_all(log->fd, &super, sizeof(super), 0);
        log->n_entries = le64toh(super.n_entries);
        if (le64toh(super.magic) != LOG_MAGIC || le64toh(super.version) != LOG_VERSION ||
            le32toh(super.sector_bytes) != SECTOR || log->n_entries > ENTRIES_MAX)
                die("the log's superblock");
        log->entries = calloc(log->n_entries + 1, sizeof(*log->entries));
        if (!log->entries)
                die("memory");
        for (uint64_t i = 0; i < log->n_entries; i++)
                at = read_entry(log, at, &log->entries[i]);
}

static int is_point(const struct entry *e)
{
        return (e->flags & (FLAG_FLUSH | FLAG_FUA)) != 0;
}

static void list_points(const struct log *log)
{
        long mark = -1;

        for (uint64_t i = 0; i < log->n_entries; i++) {
                if (log->entries[i].mark >= 0)
                        mark = log->entries[i].mark;
                if (is_point(&log->entries[i]) || log->entries[i].flags & FLAG_MARK)
                        printf("%" PRIu64 " %ld\n", i + 1, mark);
        }
}

/* @n sectors from @skip on of the entry's reach the disk. */
static void apply_part(const struct log *log, const struct disk *disk, const struct entry *e,
                       uint64_t skip, uint64_t n)
{
        uint64_t begin = e->sector + skip, end = begin + n;

        if (begin < disk->first)
                begin = disk->first;
        if (end > disk->first + disk->n_sectors)
                end = disk->first + disk->n_sectors;
        if (begin >= end)
                return;
        uint8_t *bytes = calloc(end - begin, SECTOR); /* a discarded sector reads as zeroes */
        if (!bytes)
                die("memory");
        size_t n_bytes = (end - begin) * SECTOR;
        if (!(e->flags & FLAG_DISCARD))
                read_all(log->fd, bytes, n_bytes, e->data + (off_t)((begin - e->sector) * SECTOR));
        errno = 0;
        if (pwrite(disk->fd, bytes, n_bytes, (off_t)((begin - disk->first) * SECTOR)) !=
            (ssize_t)n_bytes)
                die("the disk's file");
        free(bytes);
}

static void apply(const struct log *log, const struct disk *disk, uint64_t from, uint64_t to)
{
        for (uint64_t i = from; i < to && i < log->n_entries; i++)
                if (!(log->entries[i].flags & FLAG_MARK))
                        apply_part(log, disk, &log->entries[i], 0, log->entries[i].n_sectors);
}

static uint64_t draw(uint64_t *state)
{
        *state += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t x = (*state ^ (*state >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

/* Of the writes up to the next flush each is there with a probability that is drawn, or a part of it.
 * What lies behind a mark had not begun before it. */
static void tear(const struct log *log, const struct disk *disk, uint64_t from, uint64_t seed)
{
        uint64_t state = seed, percent = draw(&state) % 101, n_all = 0, n_whole = 0, n_part = 0;

        for (uint64_t i = from; i < log->n_entries; i++) {
                const struct entry *e = &log->entries[i];
                if (e->flags & (FLAG_FLUSH | FLAG_FUA | FLAG_MARK))
                        break;
                uint64_t chance = draw(&state);
                n_all++;
                if (chance % 100 < percent) {
                        apply_part(log, disk, e, 0, e->n_sectors);
                        n_whole++;
                } else if ((chance >> 32) % 4 == 0 && e->n_sectors > 1) {
                        uint64_t n = 1 + draw(&state) % (e->n_sectors - 1);
                        apply_part(log, disk, e, (chance >> 40) % 2 ? e->n_sectors - n : 0, n);
                        n_part++;
                }
        }
        printf("of %" PRIu64 " unflushed writes %" PRIu64 " whole, %" PRIu64 " in part\n", n_all,
               n_whole, n_part);
}

int main(int argc, char **argv)
{
        struct log log;
        struct disk disk;

        if (argc == 3 && strcmp(argv[1], "points") == 0) {
                open_log(&log, argv[2]);
                list_points(&log);
                return fflush(stdout) == 0 ? 0 : 1;
        }
        int applies = argc == 8 && strcmp(argv[1], "apply") == 0;
        if (!applies && !(argc == 8 && strcmp(argv[1], "tear") == 0)) {
                fputs("usage: replaylog points LOG | apply LOG DISK FROM TO FIRST SECTORS | "
                      "tear LOG DISK FROM SEED FIRST SECTORS\n",
                      stderr);
                return 2;
        }
        uint64_t from = strtoull(argv[4], NULL, 10), to = strtoull(argv[5], NULL, 10);
        disk.first = strtoull(argv[6], NULL, 10);
        disk.n_sectors = strtoull(argv[7], NULL, 10);
        if (disk.n_sectors == 0)
                disk.n_sectors = UINT64_MAX - disk.first;
        open_log(&log, argv[2]);
        disk.fd = open(argv[3], O_RDWR);
        if (disk.fd < 0)
                die(argv[3]);
        if (applies)
                apply(&log, &disk, from, to);
        else
                tear(&log, &disk, from, to);
        return close(disk.fd) == 0 && fflush(stdout) == 0 ? 0 : 1;
}
