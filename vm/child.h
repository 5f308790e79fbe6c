/* child.h - the process in which a virtual machine runs: a VMM (vmm-glue/vmm) with nothing but the
 * descriptors that it needs.
 *
 * It is forked while its parent has one thread, looks for a KVM, says CHANNEL_READY, makes the machine as
 * far as that goes without disks, and then does what comes over the channel: it gets its disks, and the
 * machine is completed and runs at CHANNEL_START. Before the guest runs, or what was saved of one is read,
 * it gives up all rights (common/confine.h). It ends with the machine, or with its parent.
 *
 * Threads    child_fork(): the only thread of the process.
 * Errors     -errno with a sentence; what fails in the child comes as CHANNEL_ENDED.
 * Ownership  descriptors stay the caller's, who closes his.
 */
#pragma once
#include "vm/known.h"
#include "vmm-glue/vmm/vmm.h"

struct child_parts {
        const struct known *known;          /* its file with its uuid */
        int channel;                        /* the child's end */
        int serial;                         /* non-blocking */
        int log;                            /* gets what the child logs; -1: standard error does */
        int kernel, initrd, firmware, seed; /* -1: none */
        int vsock;                          /* /dev/vhost-vsock; -1 where there is none */
        int memory, state; /* of a machine that was saved, and goes on; -1: it begins */
        struct vmm_nic nics[VM_NICS_MAX];
        size_t n_nics;
};
#define CHILD_PARTS_INIT                                                                           \
        {                                                                                          \
                .channel = -1, .serial = -1, .log = -1, .kernel = -1, .initrd = -1,                \
                .firmware = -1, .seed = -1, .vsock = -1, .memory = -1, .state = -1                 \
        }

int child_fork(const struct child_parts *parts, pid_t *ret_pid, struct error *err);

/* "disk0": the machine's name for the disk of that number (known_disk_number()). */
#define CHILD_DISK_ID_SIZE 16
void child_disk_id(unsigned number, char id[CHILD_DISK_ID_SIZE]);
/* "nic0": of its network card @i. */
#define CHILD_NIC_ID_SIZE 24
void child_nic_id(size_t i, char id[CHILD_NIC_ID_SIZE]);
