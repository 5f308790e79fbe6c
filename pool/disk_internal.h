/* disk_internal.h - what the disk_*.c files share. */
#pragma once
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#include "pool/disk.h"

/* Copies of one round of the loop, where the member is in memory, that are worth handing to the
 * kernel's own threads: so many, and small. Measured on tmpfs: with fewer, waking the threads costs
 * more than it spares; of larger ones the copying itself is the work, best done where the data is
 * in the processor's cache. */
#define COPIES_MANY 16u
#define COPY_SMALL  16384u
/* Of one write: it takes so long to copy that it is handed over even alone, and the loop goes on
 * meanwhile, with the checksums of what follows or with other guests. */
#define COPY_LARGE (UINT64_C(256) << 10)

struct disk {
        struct member base;
        int fd;
        bool readonly;
        bool is_block;
        bool is_whole_disk; /* a block device that is not a partition */
        bool direct;        /* past the page cache */
        bool in_memory;     /* on tmpfs or ramfs: reads and writes are copies, flushes nothing */
        struct list reads;  /* of this round of the loop, where it is in memory */
        unsigned n_small_reads;
        struct loop_task read_task;
        bool truncation_logged;
        uint64_t device_bytes; /* of the file or device */
        uint64_t start_bytes;  /* where the member begins on it: its partition's start, else 0 */
        struct list answered;  /* done, to be told from answer_task */
        struct loop_task answer_task;
        /* disk_merge.c's: writes of this round of the loop. */
        struct list writes;
        unsigned n_small_writes;
        bool many_writes; /* while those of a round with COPIES_MANY small ones are started */
        struct loop_task merge_task;
        struct list spare_merged;
        unsigned n_spare_merged;
        /* Block devices: discards that wait, the one that a thread is at, and what became of it. */
        struct list to_discard;
        struct member_io *discarding;
        struct loop_task discard_task;
        pthread_t thread;
        bool has_thread;
        int discard_result;
};

static inline struct disk *disk_of(struct member *m)
{
        return container_of(m, struct disk, base);
}

/* Of that many small copies. */
static inline bool disk_many(const struct disk *d, unsigned n_small)
{
        return n_small >= COPIES_MANY && d->base.loop->ops->batches;
}

static inline void disk_close_fd(int *fd)
{
        if (*fd >= 0)
                close(*fd);
}
/* The descriptor, no longer to be closed at the end of the block. */
static inline int disk_take_fd(int *fd)
{
        int taken = *fd;

        *fd = -1;
        return taken;
}
#define CLEANUP_FD __attribute__((cleanup(disk_close_fd)))

/* ---- disk_lock.c ---- */

/* Open a block device for us alone, waiting up to options->lock_wait_ms for somebody who holds it
 * for other reasons than a mount. Returns the descriptor.
 *
 * -EBUSY  mounted, swapped to, part of something, or held: the sentence says which */
int co_disk_open_block(const char *path, const struct stat *st, const struct disk_options *options,
                       struct error *err);

/* -EBUSY  the block device @rdev, or a partition on it, is mounted or swapped to */
int disk_check_unused(const char *path, dev_t rdev, struct error *err);

int co_disk_lock(struct member *m, unsigned wait_ms, struct error *err);

/* ---- disk_gpt.c ---- */

/* True for a block device that is a whole disk: not a partition. */
bool disk_is_whole(dev_t rdev);

/* Where tarn's partition lies on the whole disk @fd.
 *
 * -ENOENT  there is none; no sentence */
int disk_find_partition(int fd, const char *path, uint64_t *ret_start_bytes,
                        uint64_t *ret_size_bytes, struct error *err);

/* ---- disk_merge.c ---- */

void disk_merge_init(struct disk *d);
void disk_merge_destroy(struct disk *d);
/* An operation that was started has ended. It may close the member. */
void disk_answer(struct member_io *io, int result);
/* Start a write at the end of this round of the loop, with what lies next to it. */
void disk_write(struct disk *d, struct member_io *io);

/* ---- disk.c ---- */

/* Start an operation as it is. */
void disk_start(struct disk *d, struct member_io *io);

/* NULL where @m is not a disk. */
struct disk *disk_from_member(struct member *m);

/* Take @start_bytes and @size_bytes as the member's place.
 *
 * -EINVAL  too small or not aligned */
int disk_set_range(struct disk *d, uint64_t start_bytes, uint64_t size_bytes, struct error *err);
