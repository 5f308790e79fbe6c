/* vmm.h - a virtual machine by KVM, in this process.
 *
 * The caller gives it descriptors and gets told what happens; the VMM opens nothing but /dev/kvm, at
 * vmm_new(), and connects to nobody. Its disks are vhost-user back ends that others have connected.
 *
 * Units      sizes are bytes.
 * Threads    the loop's, which is the one that calls vmm_new(); one a vCPU; while vmm_new() runs one
 *            that reads the kernel.
 * Errors     0 or -errno with a sentence.
 * Ownership  descriptors of the configuration are the VMM's from vmm_new() on, those of disks that come
 *            later from vmm_complete() on, also on failure; the rest of it is the caller's, and has to
 *            live as long as the VMM.
 * Source     Linux, Documentation/virt/kvm/api.rst.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"
#include "common/loop.h"

struct vmm;

#define VMM_DISKS_MAX 24u
#define VMM_NICS_MAX  8u

struct vmm_disk {
        const char *id;  /* "disk0": names it to the events, and in saved state */
        int fd;          /* connected to a vhost-user-blk back end */
        bool readonly;   /* its back end has to be, too: requests do not pass by us */
        unsigned queues; /* 0: one a vCPU */
        int boot_order;  /* from 1; 0: not booted from */
};

enum vmm_nic_kind {
        VMM_NIC_TAP,    /* a tap device with IFF_VNET_HDR and IFF_NO_PI */
        VMM_NIC_STREAM, /* frames with a length of four bytes, big-endian, before each (passt, QEMU) */
};
struct vmm_nic {
        const char *id;
        enum vmm_nic_kind kind;
        int fd;
        int vhost_fd; /* /dev/vhost-net, for a tap; -1: processed here */
        uint8_t mac[6];
        uint16_t mtu; /* what the guest is told; 0: nothing */
};

struct vmm_config {
        const char *name;
        uint8_t uuid[16];
        unsigned cpus;
        uint64_t memory, memory_max; /* what of memory_max is more comes by virtio-mem */
        bool huge_pages;

        /* Either a kernel, or a firmware; -1: none. */
        int kernel, initrd, firmware;
        const char *cmdline; /* NULL: empty */

        int serial; /* non-blocking: the guest's COM1, both directions; -1: nobody listens */

        const struct vmm_disk *disks;
        size_t n_disks;
        const struct vmm_nic *nics;
        size_t n_nics;
        int seed; /* a disk image in a memfd, read-only to the guest; -1: none */
        bool rng, balloon;
        uint32_t vsock_cid; /* 0: none */
        int vsock_fd;       /* /dev/vhost-vsock */
};

enum vmm_end {
        VMM_END_POWER_OFF, /* the guest switched itself off */
        VMM_END_FAILED,    /* the sentence says why */
};

/* Called on the loop's thread, without the machine's lock. Each may be NULL. */
struct vmm_events {
        void (*ended)(void *arg, enum vmm_end how, const char *sentence);
        void (*reset)(void *arg);    /* the guest has started anew */
        void (*panicked)(void *arg); /* its kernel says so; the machine goes on as it likes */
        /* The back end has hung up: the guest's requests wait. vmm_disk_connect() ends that. */
        void (*disk_lost)(void *arg, const char *id);
        /* The guest has let go of a disk that it was asked to give up. */
        void (*disk_removed)(void *arg, const char *id);
        /* The other end of a stream of frames is gone, and let go of: the guest sees its cable pulled.
         * vmm_nic_connect() ends that. */
        void (*nic_lost)(void *arg, const char *id);
        /* [a vCPU's thread] It is about to run the guest, for the first time. */
        void (*vcpu_began)(void *arg, unsigned index);
};

/* Whether this host can run machines at all: /dev/kvm is looked at, and closed again. As vmm_new() says
 * it. */
int vmm_check(struct error *err);

/* All is made that needs no disk, and what comes behind the disks on the PCI bus. Until
 * vmm_complete() disks of the configuration may be without a back end (-1): who waits for one meanwhile
 * waits less. Release with vmm_free().
 *
 * -ENOENT, -EACCES  /dev/kvm is not there, or not for us
 * -EINVAL           more than KVM, or we, can give; a kernel that is none */
int vmm_new(struct loop *loop, const struct vmm_config *config, const struct vmm_events *events,
            void *arg, struct vmm **ret_vmm, struct error *err);
/* The rest: everything is there, nothing runs. What fails leaves it good for vmm_free() only. */
int vmm_complete(struct vmm *vmm, struct error *err);
void vmm_free(struct vmm *vmm); /* NULL is fine; stops what runs */

/* The vCPUs begin. */
int vmm_start(struct vmm *vmm, struct error *err);
/* They rest, and devices touch no guest memory, when it returns; and go on. */
void vmm_pause(struct vmm *vmm);
void vmm_resume(struct vmm *vmm);
bool vmm_is_paused(const struct vmm *vmm);
void vmm_reset(struct vmm *vmm);

/* What a paused machine is, but its memory and the contents of its disks: appended to @fd.
 *
 * -ESHUTDOWN  it has ended, or is about to */
int vmm_save(struct vmm *vmm, int fd, struct error *err);
/* Into one that was just made, and not started, of the same configuration: it is paused then. The
 * memory is restored before.
 *
 * -EINVAL  the state is damaged, or of another configuration: nothing else can be done with the VMM */
int vmm_restore(struct vmm *vmm, int fd, struct error *err);
void vmm_power_button(struct vmm *vmm);

/* Ask the guest to make do with so much memory: by virtio-mem above what it was started with, by the
 * balloon below. vmm_memory_size() is what it has got to.
 *
 * -EINVAL      more than memory_max, or too little
 * -EOPNOTSUPP  there is no balloon */
int vmm_memory_set(struct vmm *vmm, uint64_t bytes, struct error *err);
uint64_t vmm_memory_size(struct vmm *vmm);

/* ---- memory, into a file and back ----
 *
 * The file is as large as the guest's memory, and sparse: RAM from address 0, then that from 4 GiB, then
 * what virtio-mem gives. It is written while the guest runs, in rounds: each time what was changed
 * meanwhile. A guest that changes more than is written gets less and less time, down to a 64th of it,
 * from then to the end. With the guest paused the rest follows, which is little.
 */

/* Write to @fd, which is borrowed, on a thread of its own. When little is left, or it does not become
 * less even so, @copied is called on the loop's thread; with -errno and a sentence where it failed,
 * after which there is nothing to finish.
 *
 * -EBUSY  it is being written already */
int vmm_memory_copy(struct vmm *vmm, int fd,
                    void (*copied)(void *arg, int result, const char *sentence), void *arg,
                    struct error *err);
/* After copied(), paused: the rest. ret_bytes: how much that was.
 *
 * -ESHUTDOWN  it has ended, which vmm_pause() leaves alone */
int vmm_memory_copy_finish(struct vmm *vmm, uint64_t *ret_bytes, struct error *err);
/* No more of it; fine at any time. */
void vmm_memory_copy_cancel(struct vmm *vmm);
/* Of a machine that was just made, before vmm_restore(). */
int vmm_memory_load(struct vmm *vmm, int fd, struct error *err);

/* A back end for a disk that has none; taken over also on failure. */
int vmm_disk_connect(struct vmm *vmm, const char *id, int fd, struct error *err);
/* A disk more, while it runs; and ask the guest to let go of one.
 *
 * -ENOSPC  there is no slot left
 * -ENOENT  there is no such disk */
int vmm_disk_add(struct vmm *vmm, const struct vmm_disk *disk, struct error *err);
int vmm_disk_remove(struct vmm *vmm, const char *id, struct error *err);
/* Another stream for a network card that has lost its own; taken over also on failure.
 *
 * -EBUSY   it has not, or nic_lost() was not called yet
 * -ENOENT  there is no such card */
int vmm_nic_connect(struct vmm *vmm, const char *id, int fd, struct error *err);
