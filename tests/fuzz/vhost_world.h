/* vhost_world.h - a vhost-user device over a volume in memory, on a fuzzer's loop, and its front
 * ends and guest, who are played by the input: messages and descriptors, right and wrong; rings,
 * descriptors and requests; memory that changes, or goes, while it is read.
 *
 * Units      bytes.
 * Threads    one; interleave.h is the other processor.
 * Errors     what must not happen aborts. So does a byte changed in the guest's file beside the
 *            regions, and an access beside a mapping (guarded_map.c).
 * Ownership  a vhost_world lives for one input; files are kept between inputs.
 * Source     docs/interop/vhost-user.rst of QEMU; VIRTIO 1.2, sections 2.7, 2.8, 5.2.
 */
#pragma once
#include <sys/uio.h>
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/interleave.h"
#include "tests/protocol/fake_pool.h"
#include "vmm-glue/vhost-user/protocol.h"
#include "vmm-glue/vhost-user/vhost_user.h"

#define VW_CLIENTS   3u
#define VW_QUEUES    2u
#define VW_VOL_BYTES (UINT64_C(256) << 10)
#define VW_SIZE_MAX  256u /* of a queue that the guest works with */

/* The guest's memory: a file, of which two regions are shown that are neighbours for the guest, and
 * for nobody else. What lies in the file beside them keeps its pattern. */
#define VW_FILE_BYTES   0x50000u
#define VW_GUEST        UINT64_C(0x10000)
#define VW_USER         UINT64_C(0x7f0000000000)
#define VW_FIRST_AT     0x10000u
#define VW_FIRST_BYTES  0x18000u
#define VW_SECOND_AT    0x30200u
#define VW_SECOND_BYTES 0x10000u
#define VW_SECOND_USER  (VW_USER + UINT64_C(0x1000000000))
#define VW_BYTES        (VW_FIRST_BYTES + VW_SECOND_BYTES)

#define VW_INFLIGHT_FILE  0x8000u
#define VW_INFLIGHT_AT    0x1008u
#define VW_INFLIGHT_BYTES 0x6000u

enum vw_file { /* that a message can carry */
               VW_GUEST_FILE,
               VW_INFLIGHT,
               VW_LOG,    /* 4 KiB of memory */
               VW_SEALED, /* of memory that can neither shrink nor grow */
               VW_EMPTY,  /* memory of no bytes */
               VW_LARGE,  /* a hole of a GiB */
               VW_EVENT,  /* an eventfd, never read or written by us */
               VW_KICK,   /* that we write to */
               VW_PIPE,
               VW_NULL,
               VW_SOCKET,
               VW_FILES
};

#define VW_WRITTEN   16u
#define VW_SAVED_MAX VHOST_CLIENTS_MAX /* front ends on their way to another server */

struct vw_flip { /* memory that changes under the reader, there and back */
        uint64_t offset;
        unsigned length;
        uint8_t before[8], after[8];
};

struct vw_queue {
        unsigned size;
        uint16_t avail; /* split: index; packed: place */
        bool wrap;      /* packed */
        unsigned desc;  /* the next to be used */
        uint64_t at[3]; /* offsets of table, available and used ring in the memory */
};

struct vhost_world {
        struct loop *loop;
        struct vhost_server *server;
        struct vhost_device *device;
        struct volume *volume;
        int listen_fd, lowest_fd;
        unsigned n_open, n_disconnecting;
        int files[VW_FILES];
        int socket_peer;
        bool shrunk;             /* the guest's file */
        bool foreign;            /* files may have been shown otherwise than above */
        int clients[VW_CLIENTS]; /* -1: none */
        unsigned at;             /* who speaks */
        uint64_t features;       /* that we agree to */
        bool packed;
        struct vw_queue queues[VW_QUEUES];
        uint64_t data;                /* offset in the memory for what comes next */
        uint64_t written[VW_WRITTEN]; /* where the driver wrote last, over and over again */
        unsigned n_written;
        struct vw_flip flips[INTERLEAVE_MAX];
        unsigned n_flips;
        struct vhost_saved saved[VW_SAVED_MAX];
        unsigned n_saved;
};

struct vhost_world *vw_new(struct input *in);
void vw_free(struct vhost_world *w);
/* What the input says, to its end. */
void vw_play(struct vhost_world *w, struct input *in);
/* The same, but for so many acts at most. */
void vw_play_some(struct vhost_world *w, struct input *in, unsigned n_acts);
/* Another server takes the device over, with those who are connected. What it is told of each may be
 * changed by @change first. False: one of them was not taken. */
bool vw_pass_on(struct vhost_world *w, struct input *in,
                void (*change)(struct vhost_saved *saved, struct vhost_world *w, struct input *in));
/* A device that is ready for requests, in one of the ways there are. */
void vw_set_up(struct vhost_world *w, struct input *in);
/* Send a message with descriptors, let it take effect, and take the reply. */
void vw_message(struct vhost_world *w, uint32_t request, uint32_t flags, const void *payload,
                uint32_t size, const enum vw_file *files, unsigned n_files);
void vw_send(struct vhost_world *w, const void *data, size_t length, const enum vw_file *files,
             unsigned n_files);
void vw_connect(struct vhost_world *w, unsigned client);
void vw_settle(struct vhost_world *w);
void vw_step(struct vhost_world *w);
/* Write to the memory and read, by an offset in it, cut off at its end. */
void vw_write(struct vhost_world *w, uint64_t offset, const void *data, size_t length);
void vw_read(struct vhost_world *w, uint64_t offset, void *data, size_t length);
/* A request, from its header to its place in the ring. */
void vw_play_chain(struct vhost_world *w, struct input *in);
