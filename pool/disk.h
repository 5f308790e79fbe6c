/* disk.h - members that are regular files or whole block devices of this host.
 *
 * O_DIRECT where the file takes it; on tmpfs, where data is memory, reads and writes are done in
 * place unless there are many small ones at once. Block devices are opened O_EXCL, so that a mounted
 * one is refused. Locks are OFD locks (fcntl(2), F_OFD_SETLK): a POSIX lock is free before the
 * io_uring writes of a killed process have ended.
 *
 * On a whole block device tarn's member lies in the one partition of a GPT (libfdisk), of type
 * DISK_GPT_TYPE; a partition or a file is used as it is.
 *
 * Units      bytes; times are milliseconds.
 * Threads    a disk belongs to the loop it was opened on; co_* functions suspend, others block.
 * Errors     0 or -errno with a sentence that names the path.
 * Ownership  the member owns the descriptor and the lock; release with member_close().
 * Source     UEFI specification 2.10, chapter 5 (GPT).
 */
#pragma once
#include "pool/member.h"

#define DISK_GPT_TYPE "7461726e-6d65-4d62-8a72-706f6f6c0001"

struct disk_options {
        bool readonly; /* no lock, no writes: for looking at labels */
        /* if not 0: make a new sparse file of this size; -EEXIST where something is */
        uint64_t create_bytes;
        unsigned lock_wait_ms;
};

/* Open what is there as a member, locked. A whole disk without tarn's partition is taken as it is
 * (and co_disk_format() makes the partition).
 *
 * -EBUSY   locked by another process, mounted, or otherwise in use
 * -EEXIST  something is where a new file was to be made
 * -EINVAL  not a regular file or block device, or smaller than MEMBER_SIZE_MIN */
int co_disk_open(struct loop *loop, const char *path, const struct disk_options *options,
                 struct member **ret_member, struct error *err);

/* The same for a descriptor that the caller opened (passed over the control socket); taken over
 * also on failure. @path is for messages and for the pool's record. */
int co_disk_open_fd(struct loop *loop, int fd, const char *path, const struct disk_options *options,
                    struct member **ret_member, struct error *err);

/* What libblkid recognises on the disk ("ext4 filesystem", "dos partition table", "tarn member"),
 * or 0 bytes of text where it finds nothing. Does not look at tarn's own labels inside. */
int disk_probe(const char *path, char *ret_text, size_t text_size, struct error *err);

/* On a whole block device (not a partition, not a file): write the GPT, and narrow the member to
 * its partition. Elsewhere: nothing. */
int co_disk_format(struct member *m, struct error *err);
/* Forget what a destroyed member was: labels and GPT are overwritten by the caller's zeroes at both
 * ends. */
int co_disk_wipe(struct member *m, struct error *err);
