/* channel.h - between the two processes of a virtual machine: the supervisor, which has rights, and
 * the VMM, which runs the guest and has none.
 *
 * A pair of SOCK_SEQPACKET sockets: each message is one packet of one size. The supervisor sends
 * orders, some with a descriptor; each is answered by a message of its number. The VMM sends events.
 *
 * A guest may have taken over the VMM, so that whatever comes from there is checked
 * (channel_receive_event()), never waited for, and may at worst end that machine.
 *
 * Units      bytes.
 * Threads    [any thread]; one at a time for each end.
 * Errors     0 or -errno; a sentence where there is an err.
 * Ownership  a descriptor that is sent stays the sender's; one that comes is the receiver's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum channel_kind {
        /* orders */
        CHANNEL_START = 1, /* complete the machine, give up all rights, and run */
        CHANNEL_PAUSE,
        CHANNEL_RESUME,
        CHANNEL_RESET,
        CHANNEL_POWER_BUTTON,
        CHANNEL_DISK_CONNECT, /* id, and the back end's descriptor */
        CHANNEL_DISK_ADD,     /* id, the descriptor, readonly; value is the number of queues */
        CHANNEL_DISK_REMOVE,  /* id */
        CHANNEL_NIC_CONNECT,  /* id, and a stream's descriptor */
        CHANNEL_MEMORY,       /* value is what the guest is to have */
        CHANNEL_MEMORY_COPY, /* the descriptor of a file: its memory is written there while it runs */
        CHANNEL_MEMORY_CANCEL,
        CHANNEL_SAVE, /* paused: the rest of the memory, and into the descriptor the state */
        CHANNEL_STOP, /* the machine and the process end */
        /* events */
        CHANNEL_READY = 64, /* there is a KVM; the machine is being made, and waits for its disks */
        CHANNEL_ANSWER,     /* number of the order, result, sentence in text */
        CHANNEL_ENDED,      /* result: 0 switched off, else failed; sentence in text */
        CHANNEL_WAS_RESET,
        CHANNEL_PANICKED,
        CHANNEL_DISK_LOST,     /* id */
        CHANNEL_DISK_REMOVED,  /* id */
        CHANNEL_NIC_LOST,      /* id */
        CHANNEL_MEMORY_COPIED, /* but for the rest; result, sentence in text */
};

#define CHANNEL_ID_SIZE   32u
#define CHANNEL_TEXT_SIZE 512u
#define CHANNEL_HINT_SIZE 256u

struct channel_message {
        uint32_t kind;     /* enum channel_kind */
        uint32_t number;   /* the supervisor counts its orders */
        int32_t result;    /* 0 or -errno */
        uint32_t readonly; /* 0 or 1 */
        uint64_t value;
        char id[CHANNEL_ID_SIZE];
        char text[CHANNEL_TEXT_SIZE], hint[CHANNEL_HINT_SIZE]; /* a struct error's */
};

/* [0] is the supervisor's end. */
int channel_open(int ret_fds[2], struct error *err);
/* @fd -1: none.
 *
 * -EAGAIN  the other end does not read; only where @wait is false */
int channel_send(int channel, const struct channel_message *m, int fd, bool wait);
/* For the VMM: 1 with a message, 0 when the supervisor has gone, or -errno; -EAGAIN: none yet. A
 * descriptor that belongs to it is in *ret_fd, else -1. */
int channel_receive_order(int channel, struct channel_message *ret, int *ret_fd);
/* For the supervisor: the same without descriptors. What comes is text that is terminated and
 * printable, an id that is one, a kind that is an event's.
 *
 * -EBADMSG  it is not: the VMM is not to be trusted any more */
int channel_receive_event(int channel, struct channel_message *ret);
/* *err is what @m says of a failure; returns its code. */
int channel_error(const struct channel_message *m, struct error *err);
/* What channel_receive_event() checks. */
int channel_check_event(const void *bytes, size_t length, struct channel_message *ret);
