/* disk_gpt.c - what lies on a disk already, and tarn's own partition table on whole disks.
 *
 * Installers, mkfs and file managers look at the partition table to see whether a disk is free.
 * Without one a disk of the pool would look empty to them. The table is GPT, UEFI
 * specification 2.10, chapter 5. */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <libfdisk/libfdisk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/sysmacros.h>

#include "common/coroutine.h"
#include "pool/disk_internal.h"

/* libblkid counts partitions in these, whatever the disk's sectors are. */
#define BLKID_SECTOR UINT64_C(512)
/* Where partitions begin by common usage: a multiple of every disk's inner units. */
#define PARTITION_START UINT64_C(1048576)
/* A GPT, and all that tools look at to recognise something, lies in this much at either end. */
#define WIPE_BYTES UINT64_C(1048576)

static void free_probe(blkid_probe *probe)
{
        blkid_free_probe(*probe);
}
#define CLEANUP_PROBE __attribute__((cleanup(free_probe)))

static void unref_context(struct fdisk_context **context)
{
        fdisk_unref_context(*context);
}
#define CLEANUP_CONTEXT __attribute__((cleanup(unref_context)))

static void unref_partition(struct fdisk_partition **partition)
{
        fdisk_unref_partition(*partition);
}
#define CLEANUP_PARTITION __attribute__((cleanup(unref_partition)))

bool disk_is_whole(dev_t rdev)
{
        char path[64];

        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(rdev), minor(rdev));
        return access(path, F_OK) < 0;
}

/* ---- reading ---- */

/* The first partition of tarn's type, or NULL. */
static blkid_partition find_ours(blkid_probe probe)
{
        blkid_partlist list;
        int n;

        blkid_probe_enable_partitions(probe, 1);
        list = blkid_probe_get_partitions(probe);
        n = list ? blkid_partlist_numof_partitions(list) : 0;
        for (int i = 0; i < n; i++) {
                blkid_partition partition = blkid_partlist_get_partition(list, i);
                const char *type = partition ? blkid_partition_get_type_string(partition) : NULL;

                if (type && strcasecmp(type, DISK_GPT_TYPE) == 0)
                        return partition;
        }
        return NULL;
}

static int new_probe(int fd, const char *path, blkid_probe *ret_probe, struct error *err)
{
        blkid_probe probe = blkid_new_probe();

        if (!probe)
                return error_set(err, -ENOMEM, "out of memory");
        errno = 0;
        if (blkid_probe_set_device(probe, fd, 0, 0) < 0) {
                blkid_free_probe(probe);
                return error_set(err, errno ? -errno : -EIO, "cannot look at what is on '%s': %s",
                                 path, strerror(errno ? errno : EIO));
        }
        *ret_probe = probe;
        return 0;
}

int disk_find_partition(int fd, const char *path, uint64_t *ret_start_bytes,
                        uint64_t *ret_size_bytes, struct error *err)
{
        CLEANUP_PROBE blkid_probe probe = NULL;
        blkid_partition partition;
        uint64_t start, size;
        int r = new_probe(fd, path, &probe, err);

        if (r < 0)
                return r;
        partition = find_ours(probe);
        if (!partition)
                return -ENOENT;
        start = (uint64_t)blkid_partition_get_start(partition);
        size = (uint64_t)blkid_partition_get_size(partition);
        if (start > UINT64_MAX / BLKID_SECTOR || size > UINT64_MAX / BLKID_SECTOR)
                return error_set(err, -EINVAL, "the partition table of '%s' makes no sense", path);
        *ret_start_bytes = start * BLKID_SECTOR;
        *ret_size_bytes = size * BLKID_SECTOR;
        return 0;
}

static const char *value_of(blkid_probe probe, const char *name)
{
        const char *value;

        return blkid_probe_lookup_value(probe, name, &value, NULL) == 0 ? value : NULL;
}

static void describe(blkid_probe probe, char *ret_text, size_t text_size)
{
        const char *type = value_of(probe, "TYPE"), *usage = value_of(probe, "USAGE");
        const char *table = value_of(probe, "PTTYPE");

        if (type && usage && strcmp(usage, "filesystem") == 0)
                snprintf(ret_text, text_size, "%s filesystem", type);
        else if (type && usage && strcmp(usage, "crypto") == 0)
                snprintf(ret_text, text_size, "%s encrypted volume", type);
        else if (type && usage && strcmp(usage, "raid") == 0)
                snprintf(ret_text, text_size, "%s (part of a RAID or volume group)", type);
        else if (type)
                snprintf(ret_text, text_size, "%s", type);
        else if (table)
                snprintf(ret_text, text_size, "%s partition table", table);
}

int disk_probe(const char *path, char *ret_text, size_t text_size, struct error *err)
{
        CLEANUP_PROBE blkid_probe probe = NULL;
        CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        char text[128] = "";
        int r;

        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        r = new_probe(fd, path, &probe, err);
        if (r < 0)
                return r;
        if (find_ours(probe)) {
                snprintf(text, sizeof(text), "tarn member");
        } else {
                blkid_probe_enable_superblocks(probe, 1);
                blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
                r = blkid_do_safeprobe(probe);
                if (r == -2)
                        snprintf(text, sizeof(text),
                                 "several signatures that contradict each other");
                else if (r < 0)
                        return error_set(err, -EIO, "cannot look at what is on '%s'", path);
                else if (r == 0)
                        describe(probe, text, sizeof(text));
        }
        snprintf(ret_text, text_size, "%s", text);
        return 0;
}

/* ---- writing ---- */

static int fdisk_error(const struct disk *d, int r, const char *what, struct error *err)
{
        return error_set(err, r < 0 ? r : -EIO, "cannot %s on '%s': %s", what, d->base.path,
                         strerror(r < 0 ? -r : EIO));
}

/* One partition from 1 MiB to the last sector that a GPT leaves. */
static int add_partition(const struct disk *d, struct fdisk_context *context, struct error *err)
{
        CLEANUP_PARTITION struct fdisk_partition *partition = fdisk_new_partition();
        struct fdisk_parttype *type = fdisk_new_unknown_parttype(0, DISK_GPT_TYPE);
        int r = partition && type ? 0 : -ENOMEM;

        if (r == 0)
                r = fdisk_partition_set_type(partition, type);
        fdisk_unref_parttype(type);
        if (r == 0)
                r = fdisk_partition_set_start(partition,
                                              PARTITION_START / fdisk_get_sector_size(context));
        if (r == 0)
                r = fdisk_partition_partno_follow_default(partition, 1);
        if (r == 0)
                r = fdisk_partition_end_follow_default(partition, 1);
        if (r == 0)
                r = fdisk_partition_set_name(partition, "tarn member");
        if (r == 0)
                r = fdisk_add_partition(context, partition, NULL);
        return r == 0 ? 0 : fdisk_error(d, r, "make a partition", err);
}

static int write_table(struct disk *d, struct error *err)
{
        CLEANUP_CONTEXT struct fdisk_context *context = fdisk_new_context();
        int r;

        if (!context)
                return error_set(err, -ENOMEM, "out of memory");
        fdisk_disable_dialogs(context, 1);
        r = fdisk_assign_device_by_fd(context, d->fd, d->base.path, 0);
        if (r < 0)
                return fdisk_error(d, r, "read the partition table", err);
        /* What was recognised there before must not be recognised beside our table afterwards. */
        fdisk_enable_wipe(context, 1);
        r = fdisk_create_disklabel(context, "gpt");
        if (r < 0)
                return fdisk_error(d, r, "make a partition table", err);
        r = add_partition(d, context, err);
        if (r < 0)
                return r;
        r = fdisk_write_disklabel(context);
        if (r == 0 && fsync(d->fd) < 0)
                r = -errno;
        if (r < 0)
                r = fdisk_error(d, r, "write the partition table", err);
        (void)fdisk_deassign_device(context, 1);
        return r;
}

/* The libraries read and write in pieces that direct I/O refuses. */
static int set_direct(struct disk *d, bool on)
{
        int flags = fcntl(d->fd, F_GETFL);

        (void)fcntl(d->fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
        return flags & O_DIRECT;
}

int co_disk_format(struct member *m, struct error *err)
{
        struct disk *d = disk_from_member(m);
        uint64_t start_bytes, size_bytes;
        int r, was_direct;

        if (!d || !d->is_whole_disk || d->start_bytes)
                return 0;
        if (d->readonly)
                return error_set(err, -EROFS, "'%s' is open for reading only", m->path);
        if (d->device_bytes < MEMBER_SIZE_MIN + 2 * PARTITION_START)
                return error_set(
                    err, -EINVAL,
                    "'%s' is too small: with its partition table it would have less than "
                    "64 MiB left",
                    m->path);
        was_direct = set_direct(d, false);
        r = write_table(d, err);
        if (r == 0) {
                r = disk_find_partition(d->fd, m->path, &start_bytes, &size_bytes, err);
                if (r == -ENOENT)
                        r = error_set(err, -EIO,
                                      "the partition table of '%s' does not read back as written",
                                      m->path);
        }
        if (r == 0)
                r = disk_set_range(d, start_bytes, size_bytes, err);
        if (was_direct)
                set_direct(d, true);
        return r;
}

static int co_zero(struct disk *d, uint64_t offset, uint64_t length, struct error *err)
{
        uint64_t done = 0;
        char *zeroes;
        int r = 0;

        if (posix_memalign((void **)&zeroes, 4096, length) != 0)
                return error_set(err, -ENOMEM, "out of memory");
        memset(zeroes, 0, length);
        while (r >= 0 && done < length) {
                struct iovec iov = {.iov_base = zeroes + done, .iov_len = length - done};
                struct loop_io io = {
                    .op = LOOP_WRITEV,
                    .fd = d->fd,
                    .iov = &iov,
                    .n_iov = 1,
                    .offset = offset + done,
                };

                r = co_io(&io);
                if (r == 0)
                        r = -EIO;
                else if (r > 0)
                        done += (unsigned)r;
        }
        free(zeroes);
        return r < 0 ? error_set(err, r, "cannot wipe '%s': %s", d->base.path, strerror(-r)) : 0;
}

int co_disk_wipe(struct member *m, struct error *err)
{
        struct disk *d = disk_from_member(m);
        struct loop_io flush = {.op = LOOP_FDATASYNC};
        uint64_t end;
        int r;

        if (!d)
                return 0;
        if (d->readonly)
                return error_set(err, -EROFS, "'%s' is open for reading only", m->path);
        /* The table lies outside of the member, and a member's labels at its two ends. */
        end = d->device_bytes - d->device_bytes % 512;
        r = co_zero(d, 0, WIPE_BYTES, err);
        if (r == 0)
                r = co_zero(d, end - WIPE_BYTES, WIPE_BYTES, err);
        if (r == 0 && d->start_bytes) {
                uint64_t member_end = d->start_bytes + m->size_bytes;

                r = co_zero(d, d->start_bytes, WIPE_BYTES, err);
                if (r == 0)
                        r = co_zero(d, member_end - WIPE_BYTES, WIPE_BYTES, err);
        }
        if (r < 0)
                return r;
        flush.fd = d->fd;
        r = co_io(&flush);
        return r < 0 ? error_set(err, r, "cannot wipe '%s': %s", m->path, strerror(-r)) : 0;
}
