/* seed.h - what cloud-init in the guest reads: a small read-only disk with the label "cidata", its
 * NoCloud data source.
 *
 * user-data is the file that the VM file names, or else one with the host name and the SSH keys.
 * meta-data is the file that it names, or else one with the instance's id, the host name and, where
 * user-data is a file, the SSH keys. network-config is there where a file is named. The same gives the
 * same bytes, so that a VM that was restored finds the disk that it knew.
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  the descriptor is the caller's.
 * Source     cloud-init's documentation, "NoCloud"; Debian 12 has version 22.4.2.
 */
#pragma once
#include <stdint.h>

#include "common/error.h"
#include "vm/file.h"

#define VM_SEED_FILE_MAX (1u << 20) /* of each file that the VM file names; clouds take 16 KiB */

/* Make the disk of a VM that has a seed. @instance_id: cloud-init does its work once for each, so
 * that it is the VM's uuid, and a clone's is another. The image is in a sealed memfd: nobody can
 * change it any more.
 *
 * -EFBIG  a file is larger than VM_SEED_FILE_MAX
 * and what opening and reading the files give */
int vm_seed_make(const struct vm_file *file, const char *instance_id, int *ret_fd,
                 uint64_t *ret_size_bytes, struct error *err);
