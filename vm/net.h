/* net.h - the host's side of a VM's network cards: what the supervisor opens for the VMM.
 *
 * Units      ports are numbers; an MTU is bytes.
 * Threads    [any thread]; vm_net_open() waits for passt, some 50 ms and never more than
 *            VM_NET_WAIT_MS. Who must not wait uses the three vm_passt_...().
 * Errors     0 or -errno with a sentence, and often a hint.
 * Ownership  descriptors are the caller's, close-on-exec. passt is nobody's child: it ends when the
 *            last of the descriptor's holders closes it, however these end.
 * Source     Linux, Documentation/networking/tuntap.rst; passt(1).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "vm/file.h"

#define VM_NET_WAIT_MS 10000

struct vm_net {
        int fd;       /* a tap device, or a stream of frames */
        int vhost_fd; /* /dev/vhost-net for a tap; -1: it is not to be had */
        uint16_t mtu; /* 0: the guest learns it by itself */
};

/* -ENODEV  there is no such interface, or it is no tap device
 * -EBUSY   somebody else has it
 * -EPERM   it belongs to another user
 * -ENOENT  there is no passt
 * -EIO     passt says why */
int vm_net_open(const struct vm_nic *nic, struct vm_net *ret_net, struct error *err);

/* ---- passt, for a card of VM_NIC_USER ----
 *
 * It begins, says what it complains of, and goes to the background. */

#define VM_PASST_SAYS_MAX 4096u
struct vm_passt {
        pid_t pid;
        int says; /* to be waited for; non-blocking */
        int fd;   /* our end of the stream */
        size_t n;
        char text[VM_PASST_SAYS_MAX];
};
/* What succeeds is ended by vm_passt_end(). */
int vm_passt_begin(const struct vm_nic *nic, struct vm_passt *ret, struct error *err);
/* What it has said: 0 when it has said all, -EAGAIN when there may be more, or -errno. */
int vm_passt_listen(struct vm_passt *p);
/* @r is what listening, or waiting for it, came to; where that is an error it is killed. The stream is in
 * *ret_fd where it has begun. */
int vm_passt_end(struct vm_passt *p, int r, int *ret_fd, struct error *err);

/* The address of card @index of the VM @uuid where its file says none: always the same, unicast, and
 * of those that anybody may give away. */
void vm_net_mac(const uint8_t uuid[16], unsigned index, uint8_t ret_mac[6]);
