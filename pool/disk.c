/* disk.c - files and block devices as members: opening, and the way of a request. */
#include "pool/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "common/size.h"
#include "pool/disk_internal.h"

#define BLOCK 4096u

/* ---- answering ---- */

/* Everything answered since the last round of the loop, in one callback. */
static void answer_all(struct loop_task *task)
{
        struct disk *d = container_of(task, struct disk, answer_task);
        struct list batch = LIST_INIT(batch);

        list_splice(&batch, &d->answered);
        while (!list_empty(&batch)) {
                struct member_io *io = container_of(batch.next, struct member_io, link);

                list_remove(&io->link);
                disk_answer(io, io->lio.result);
        }
}

static void answer(struct disk *d, struct member_io *io, int result)
{
        io->lio.result = result;
        list_append(&d->answered, &io->link);
        loop_post(d->base.loop, &d->answer_task);
}

/* ---- transfers ---- */

/* What is left of the request's buffers, as far as one system call takes it. */
static const struct iovec *rest_of(struct member_io *io, unsigned *ret_n)
{
        uint64_t skip = io->progress;
        unsigned i = 0;

        while (skip >= io->iov[i].iov_len)
                skip -= io->iov[i++].iov_len;
        if (skip) {
                io->short_iov.iov_base = (char *)io->iov[i].iov_base + skip;
                io->short_iov.iov_len = io->iov[i].iov_len - skip;
                *ret_n = 1;
                return &io->short_iov;
        }
        *ret_n = io->n_iov - i < IOV_MAX ? io->n_iov - i : IOV_MAX;
        return &io->iov[i];
}

static int transfer_stuck(struct disk *d, const struct member_io *io)
{
        if (!d->truncation_logged)
                log_error(
                    "member '%s' ends before byte %llu of %llu: it was truncated while in use",
                    d->base.path, (unsigned long long)(d->start_bytes + io->offset + io->progress),
                    (unsigned long long)(d->start_bytes + d->base.size_bytes));
        d->truncation_logged = true;
        return -EIO;
}

/* Count what a call transferred. 1: all is done; 0: go on; -EIO: nothing moved. Direct I/O cannot
 * go on from the middle of a sector, so a sector that was cut is transferred again. */
static int transfer_advance(struct disk *d, struct member_io *io, uint64_t n_bytes)
{
        n_bytes -= n_bytes % MEMBER_BUFFER_ALIGN;
        if (n_bytes == 0)
                return transfer_stuck(d, io);
        io->progress += n_bytes;
        return io->progress == io->length;
}

/* ---- members in memory ---- */

static int copy_now(struct disk *d, struct member_io *io)
{
        int r;

        do {
                unsigned n;
                const struct iovec *iov = rest_of(io, &n);
                off_t at = (off_t)(d->start_bytes + io->offset + io->progress);
                ssize_t moved = io->op == MEMBER_READ ? preadv(d->fd, iov, (int)n, at)
                                                      : pwritev(d->fd, iov, (int)n, at);

                if (moved < 0 && errno != EINTR)
                        return -errno;
                r = moved < 0 ? 0 : transfer_advance(d, io, (uint64_t)moved);
        } while (r == 0);
        return r < 0 ? r : 0;
}

static bool means_unsupported(int result)
{
        return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENOTTY;
}

static int discard_result(struct disk *d, int result)
{
        if (!means_unsupported(result))
                return result;
        d->base.can_discard = false;
        return 0;
}

static int discard_now(struct disk *d, const struct member_io *io)
{
        int r;

        do {
                r = fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              (off_t)(d->start_bytes + io->offset), (off_t)io->length);
        } while (r < 0 && errno == EINTR);
        return discard_result(d, r < 0 ? -errno : 0);
}

static int do_now(struct disk *d, struct member_io *io)
{
        switch (io->op) {
        case MEMBER_READ:
        case MEMBER_WRITE:
                return copy_now(d, io);
        case MEMBER_DISCARD:
                return discard_now(d, io);
        case MEMBER_FLUSH:
                return 0; /* there is nothing behind tmpfs that could keep it any better */
        }
        return -EINVAL;
}

/* ---- discarding on block devices ----
 *
 * fallocate(2) would do, but there it means "make it zeroes": disks that cannot do that by
 * forgetting either refuse it or write the zeroes. BLKDISCARD asks for no more than is wanted. It
 * blocks, and io_uring has it only since Linux 6.12, so a thread makes the call: discards are rare
 * and large. One at a time. */

static void *discard_in_thread(void *arg)
{
        struct disk *d = arg;
        uint64_t range[2] = {d->start_bytes + d->discarding->offset, d->discarding->length};

        d->discard_result = ioctl(d->fd, BLKDISCARD, range) < 0 ? -errno : 0;
        loop_post_remote(d->base.loop, &d->discard_task);
        return NULL;
}

static void discard_next(struct disk *d)
{
        if (d->discarding || list_empty(&d->to_discard))
                return;
        d->discarding = container_of(d->to_discard.next, struct member_io, link);
        list_remove(&d->discarding->link);
        d->has_thread = pthread_create(&d->thread, NULL, discard_in_thread, d) == 0;
        if (!d->has_thread)
                (void)discard_in_thread(d);
}

static void discard_on_block(struct disk *d, struct member_io *io)
{
        list_append(&d->to_discard, &io->link);
        discard_next(d);
}

static void discard_done(struct loop_task *task)
{
        struct disk *d = container_of(task, struct disk, discard_task);
        struct member_io *io = d->discarding;
        int result = discard_result(d, d->discard_result);

        if (d->has_thread)
                pthread_join(d->thread, NULL);
        d->discarding = NULL;
        discard_next(d);
        member_answer(io, result); /* last: it may close the member */
}

/* ---- members on disks ---- */

static void call_done(struct loop_io *lio, int result);

static void call_start(struct disk *d, struct member_io *io)
{
        struct loop_io *lio = &io->lio;

        *lio = (struct loop_io){.fd = d->fd, .done = call_done};
        switch (io->op) {
        case MEMBER_READ:
        case MEMBER_WRITE:
                lio->op = io->op == MEMBER_READ ? LOOP_READV : LOOP_WRITEV;
                lio->iov = rest_of(io, &lio->n_iov);
                lio->offset = d->start_bytes + io->offset + io->progress;
                lio->bulk = !d->direct && io->length >= COPY_LARGE;
                break;
        case MEMBER_FLUSH:
                lio->op = LOOP_FDATASYNC;
                break;
        case MEMBER_DISCARD:
                lio->op = LOOP_FALLOCATE;
                lio->flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
                lio->offset = d->start_bytes + io->offset;
                lio->length = io->length;
                break;
        }
        loop_submit(d->base.loop, lio);
}

static void call_done(struct loop_io *lio, int result)
{
        struct member_io *io = container_of(lio, struct member_io, lio);
        struct disk *d = disk_of(io->member);

        if (result == -EINTR) {
                call_start(d, io);
                return;
        }
        if (io->op == MEMBER_DISCARD)
                result = discard_result(d, result);
        if (result >= 0 && (io->op == MEMBER_READ || io->op == MEMBER_WRITE)) {
                result = transfer_advance(d, io, (uint64_t)result);
                if (result == 0) {
                        call_start(d, io);
                        return;
                }
        }
        disk_answer(io, result < 0 ? result : 0);
}

/* Few, or large ones, are copied at once. Many small ones go to the kernel's own threads, which
 * copy one after the other without a system call for each, and beside this loop. */
static void read_all(struct loop_task *task)
{
        struct disk *d = container_of(task, struct disk, read_task);
        bool many = disk_many(d, d->n_small_reads);
        struct list reads = LIST_INIT(reads);

        list_splice(&reads, &d->reads);
        d->n_small_reads = 0;
        while (!list_empty(&reads)) {
                struct member_io *io = container_of(reads.next, struct member_io, link);

                list_remove(&io->link);
                if (many)
                        call_start(d, io);
                else
                        answer(d, io, do_now(d, io));
        }
}

static void start_in_memory(struct disk *d, struct member_io *io)
{
        if (io->op == MEMBER_READ) {
                list_append(&d->reads, &io->link);
                d->n_small_reads += io->length <= COPY_SMALL;
                loop_post(d->base.loop, &d->read_task);
        } else if (io->op == MEMBER_WRITE && (d->many_writes || io->length >= COPY_LARGE)) {
                call_start(d, io);
        } else {
                answer(d, io, do_now(d, io));
        }
}

void disk_start(struct disk *d, struct member_io *io)
{
        io->progress = 0;
        if (d->in_memory)
                start_in_memory(d, io);
        else if (io->op == MEMBER_DISCARD && d->is_block)
                discard_on_block(d, io);
        else
                call_start(d, io);
}

static void disk_submit(struct member *m, struct member_io *io)
{
        struct disk *d = disk_of(m);

        assert(io->op == MEMBER_FLUSH || (io->offset <= m->size_bytes && io->length > 0 &&
                                          io->length <= m->size_bytes - io->offset));
        if (d->readonly && (io->op == MEMBER_WRITE || io->op == MEMBER_DISCARD))
                answer(d, io, -EROFS);
        else if (io->op == MEMBER_DISCARD && !m->can_discard)
                answer(d, io, 0);
        else if (io->op == MEMBER_WRITE)
                disk_write(d, io);
        else
                disk_start(d, io);
}

/* ---- reads that other loops make: of the member nothing is touched ---- */

static void fetch_done(struct loop_io *lio, int result)
{
        struct member_io *io = container_of(lio, struct member_io, lio);

        io->fetched(io, result >= 0 && (uint64_t)result == io->length);
}

static void disk_fetch(struct member *m, struct member_io *io, struct loop *loop)
{
        const struct disk *d = disk_of(m);
        uint64_t at = d->start_bytes + io->offset;

        if (io->n_iov > IOV_MAX) {
                io->fetched(io, false);
        } else if (d->in_memory) {
                ssize_t n = preadv(d->fd, io->iov, (int)io->n_iov, (off_t)at);

                io->fetched(io, n >= 0 && (uint64_t)n == io->length);
        } else {
                io->lio = (struct loop_io){.op = LOOP_READV,
                                           .fd = d->fd,
                                           .iov = io->iov,
                                           .n_iov = io->n_iov,
                                           .offset = at,
                                           .done = fetch_done};
                loop_submit(loop, &io->lio);
        }
}

static void disk_close(struct member *m)
{
        struct disk *d = disk_of(m);

        assert(list_empty(&d->answered) && list_empty(&d->reads) && list_empty(&d->writes) &&
               !d->discarding);
        disk_merge_destroy(d);
        disk_close_fd(&d->fd); /* lets go of the lock */
        free(m->path);
        free(d);
}

/* OFD locks and O_EXCL belong to the open file: they last until its last descriptor is closed. */
static int disk_dup(const struct member *m)
{
        int fd = fcntl(disk_of((struct member *)m)->fd, F_DUPFD_CLOEXEC, 0);

        return fd < 0 ? -errno : fd;
}

static const struct member_ops disk_ops = {
    .submit = disk_submit,
    .fetch = disk_fetch,
    .close = disk_close,
    .co_lock = co_disk_lock,
    .dup = disk_dup,
};

struct disk *disk_from_member(struct member *m)
{
        return m->ops == &disk_ops ? disk_of(m) : NULL;
}

/* ---- opening ---- */

int disk_set_range(struct disk *d, uint64_t start_bytes, uint64_t size_bytes, struct error *err)
{
        char have[SIZE_TEXT_MAX], need[SIZE_TEXT_MAX];

        if (start_bytes % BLOCK)
                return error_set(err, -EINVAL,
                                 "tarn's partition on '%s' is not aligned to 4096 bytes",
                                 d->base.path);
        if (start_bytes > d->device_bytes || size_bytes > d->device_bytes - start_bytes)
                return error_set(err, -EINVAL,
                                 "tarn's partition on '%s' reaches past the end of the disk",
                                 d->base.path);
        if (size_bytes < MEMBER_SIZE_MIN)
                return error_set(err, -EINVAL,
                                 "member '%s' is too small: it has %s, and needs at least %s",
                                 d->base.path, size_format(size_bytes, have),
                                 size_format(MEMBER_SIZE_MIN, need));
        d->start_bytes = start_bytes;
        d->base.size_bytes = size_bytes - size_bytes % BLOCK;
        return 0;
}

static int find_size(struct disk *d, const struct stat *st, struct error *err)
{
        if (S_ISREG(st->st_mode)) {
                d->device_bytes = (uint64_t)st->st_size;
                return 0;
        }
        if (ioctl(d->fd, BLKGETSIZE64, &d->device_bytes) < 0)
                return error_set(err, -errno, "cannot tell the size of '%s': %s", d->base.path,
                                 strerror(errno));
        return 0;
}

/* The member's place on the file or device. */
static int find_range(struct disk *d, const struct stat *st, struct error *err)
{
        uint64_t start_bytes = 0, size_bytes;
        int r = find_size(d, st, err);

        if (r < 0)
                return r;
        size_bytes = d->device_bytes;
        d->is_whole_disk = d->is_block && disk_is_whole(st->st_rdev);
        if (d->is_whole_disk) {
                r = disk_find_partition(d->fd, d->base.path, &start_bytes, &size_bytes, err);
                if (r < 0 && r != -ENOENT)
                        return r;
        }
        return disk_set_range(d, start_bytes, size_bytes, err);
}

/* Direct I/O where the file takes it in the units that member.h promises: a sector from memory
 * aligned to a sector. Some file systems accept the flag and then refuse the reads; disks with
 * sectors of 4096 bytes take only more than is promised. Both work through the page cache, as fast
 * as it goes. */
static void take_direct(struct disk *d)
{
        static const size_t unit = MEMBER_BUFFER_ALIGN;
        int flags = fcntl(d->fd, F_GETFL);
        char *memory;

        if (d->in_memory || flags < 0 || fcntl(d->fd, F_SETFL, flags | O_DIRECT) < 0)
                return;
        if (posix_memalign((void **)&memory, 2 * unit, 2 * unit) == 0) {
                if (pread(d->fd, memory + unit, unit, (off_t)(d->start_bytes + unit)) ==
                    (ssize_t)unit) {
                        free(memory);
                        d->direct = true;
                        return;
                }
                free(memory);
        }
        log_debug("member '%s' goes through the page cache: it refuses direct I/O of 512 bytes",
                  d->base.path);
        (void)fcntl(d->fd, F_SETFL, flags);
}

static int check_access(struct disk *d, struct error *err)
{
        int flags = fcntl(d->fd, F_GETFL);

        if (flags < 0)
                return error_set(err, -errno, "cannot use the descriptor of '%s': %s", d->base.path,
                                 strerror(errno));
        if (!d->readonly && (flags & O_ACCMODE) != O_RDWR)
                return error_set(err, -EINVAL,
                                 "'%s' was opened without the right to read and write it",
                                 d->base.path);
        /* O_APPEND: pwrite(2) would write to the end, wherever it is told to. O_DIRECT, where the
         * descriptor was a member's before: who looks for partitions could not read any. */
        if ((flags & (O_NONBLOCK | O_APPEND | O_DIRECT)) &&
            fcntl(d->fd, F_SETFL, flags & ~(O_NONBLOCK | O_APPEND | O_DIRECT)) < 0)
                return error_set(err, -errno, "cannot use the descriptor of '%s': %s", d->base.path,
                                 strerror(errno));
        return 0;
}

static bool is_in_memory(int fd)
{
        struct statfs fs;

        return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static int wrong_kind(const char *path, mode_t mode, struct error *err)
{
        const char *kind = S_ISDIR(mode)    ? "a directory"
                           : S_ISCHR(mode)  ? "a character device"
                           : S_ISFIFO(mode) ? "a named pipe"
                                            : "something else";

        return error_set(err, -EINVAL, "'%s' is %s; a member is a regular file or a block device",
                         path, kind);
}

/* All that can fail between the descriptor and the member; d holds what was taken so far. */
static int co_set_up(struct disk *d, const struct disk_options *options, struct error *err)
{
        struct stat st;
        int r;

        if (fstat(d->fd, &st) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", d->base.path,
                                 strerror(errno));
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return wrong_kind(d->base.path, st.st_mode, err);
        d->is_block = S_ISBLK(st.st_mode);
        d->in_memory = !d->is_block && is_in_memory(d->fd);
        d->base.can_discard = !d->readonly;
        r = check_access(d, err);
        if (r == 0 && !d->readonly && d->is_block)
                r = disk_check_unused(d->base.path, st.st_rdev, err);
        if (r == 0 && !d->readonly)
                r = co_disk_lock(&d->base, options->lock_wait_ms, err);
        if (r == 0)
                r = find_range(d, &st, err);
        if (r == 0)
                take_direct(d);
        return r;
}

int co_disk_open_fd(struct loop *loop, int fd, const char *path, const struct disk_options *options,
                    struct member **ret_member, struct error *err)
{
        struct disk *d = calloc(1, sizeof(*d));
        int r;

        if (!d) {
                disk_close_fd(&fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        d->fd = fd;
        d->readonly = options->readonly;
        d->base.ops = &disk_ops;
        d->base.loop = loop;
        d->base.path = strdup(path);
        d->answer_task.run = answer_all;
        list_init(&d->answered);
        list_init(&d->reads);
        d->read_task.run = read_all;
        disk_merge_init(d);
        d->discard_task.run = discard_done;
        list_init(&d->to_discard);
        r = d->base.path ? co_set_up(d, options, err) : error_set(err, -ENOMEM, "out of memory");
        if (r < 0) {
                disk_close(&d->base);
                return r;
        }
        *ret_member = &d->base;
        return 0;
}

/* Without this a power loss could take the new file's name away, and with it the member. */
static int sync_folder_of(const char *path, struct error *err)
{
        char *copy = strdup(path);
        CLEANUP_FD int fd = -1;
        int r = 0;

        if (!copy)
                return error_set(err, -ENOMEM, "out of memory");
        fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
                r = error_set(err, -errno, "cannot make the name '%s' durable: %s", path,
                              strerror(errno));
        free(copy);
        return r;
}

static int create_file(const char *path, uint64_t size_bytes, struct error *err)
{
        CLEANUP_FD int fd = -1;
        int r;

        if (size_bytes > INT64_MAX)
                return error_set(err, -EFBIG, "cannot make '%s': no file can be that large", path);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST)
                return error_set(err, -EEXIST,
                                 "'%s' exists: only new files can be made with a size", path);
        if (fd < 0)
                return error_set(err, -errno, "cannot make '%s': %s", path, strerror(errno));
        r = ftruncate(fd, (off_t)size_bytes);
        if (r < 0)
                r = error_set(err, -errno, "cannot make '%s' %llu bytes long: %s", path,
                              (unsigned long long)size_bytes, strerror(errno));
        else
                r = sync_folder_of(path, err);
        if (r < 0) {
                (void)unlink(path);
                return r;
        }
        return disk_take_fd(&fd);
}

static int co_open_existing(const char *path, const struct disk_options *options, struct error *err)
{
        struct stat st;
        int fd;

        if (stat(path, &st) < 0)
                return error_set(err, -errno, "cannot open member '%s': %s", path, strerror(errno));
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return wrong_kind(path, st.st_mode, err);
        if (S_ISBLK(st.st_mode) && !options->readonly)
                return co_disk_open_block(path, &st, options, err);
        /* O_NONBLOCK: should a pipe have taken its place meanwhile, opening must not hang. */
        fd =
            open(path, (options->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return error_set(err, -errno, "cannot open member '%s': %s", path, strerror(errno));
        return fd;
}

int co_disk_open(struct loop *loop, const char *path, const struct disk_options *options,
                 struct member **ret_member, struct error *err)
{
        int r, fd = options->create_bytes ? create_file(path, options->create_bytes, err)
                                          : co_open_existing(path, options, err);

        if (fd < 0)
                return fd;
        r = co_disk_open_fd(loop, fd, path, options, ret_member, err);
        if (r < 0 && options->create_bytes)
                (void)unlink(path);
        return r;
}
