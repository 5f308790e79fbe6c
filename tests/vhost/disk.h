/* disk.h - a guest with a virtio block device behind a vhost-user socket: memory, queues, and
 * requests that are built and awaited here.
 *
 * Units      bytes, but struct disk_op.sector of 512 bytes.
 * Threads    one a disk.
 * Errors     0 or -errno with a sentence; a request's status is the device's, not an error.
 * Ownership  release with disk_close().
 * Source     virtio 1.2, 5.2 (block device).
 */
#pragma once
#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/vhost/front.h"
#include "tests/vhost/guest.h"
#include "tests/vhost/ring.h"

#define DISK_QUEUES_MAX   16u
#define DISK_STATUS_NONE  0xffu /* the device wrote no status */
#define DISK_SEGMENTS_MAX 1024u
#define DISK_SECTOR       512u

/* All that the front end knows how to use; what is not offered is not agreed. */
#define DISK_FEATURES                                                                              \
        (VF_BLK_SEG_MAX | VF_BLK_RO | VF_BLK_SIZE | VF_BLK_FLUSH | VF_BLK_TOPOLOGY |               \
         VF_BLK_CONFIG_WCE | VF_BLK_MQ | VF_BLK_DISCARD | VF_BLK_WRITE_ZEROES | VF_INDIRECT |      \
         VF_EVENT_IDX | VF_PROTOCOL_FEATURES | VF_VERSION_1 | VF_LOG_ALL | VF_RING_PACKED)
#define DISK_PROTOCOL                                                                              \
        (VP_MQ | VP_LOG_SHMFD | VP_REPLY_ACK | VP_BACKEND_REQ | VP_CONFIG | VP_INFLIGHT_SHMFD |    \
         VP_RESET_DEVICE | VP_CONFIGURE_MEM_SLOTS | VP_STATUS)

struct disk_options {
        const char *path;
        bool packed;               /* agree on packed rings; else they are split */
        uint64_t without;          /* features not to agree on, */
        uint64_t without_protocol; /* and protocol features */
        unsigned n_queues;         /* default 1 */
        uint16_t queue_size;       /* default 128 */
        uint64_t memory_bytes;     /* default 16 MiB */
        bool by_slots;             /* memory by ADD_MEM_REG; else by SET_MEM_TABLE */
        bool without_inflight;     /* no in-flight region */
        bool stopped;              /* the queues are made, and the device not told of them */
};

struct disk {
        struct disk_options options;
        struct front *front;
        struct guest *memory;
        struct ring rings[DISK_QUEUES_MAX];
        unsigned n_rings;
        struct virtio_blk_config config; /* as read at the start */
        struct vu_inflight inflight;
        int inflight_fd;      /* -1: none */
        uint64_t taken_bytes; /* of region 0, by what stays */
};

int disk_open(const struct disk_options *options, struct disk **ret_disk, struct error *err);
void disk_close(struct disk *d); /* NULL is fine */
/* The connection has ended, the guest has not: connect again as QEMU does, with the in-flight
 * region, and kick. Tries until @timeout_ms is over. */
int disk_reconnect(struct disk *d, int timeout_ms, struct error *err);
/* Tell the device of the queues, where options.stopped kept them back. */
int disk_start(struct disk *d, struct error *err);
/* Until a queue may have something to take, or the connection has ended.
 * -ETIMEDOUT  neither */
int disk_wait(struct disk *d, int timeout_ms, bool *ret_is_lost, struct error *err);
/* Ask for a new in-flight region, and hand it over. */
int disk_set_inflight(struct disk *d, struct error *err);
int disk_read_config(struct disk *d, struct error *err);
uint64_t disk_size(const struct disk *d);
bool disk_has(const struct disk *d, uint64_t feature);

/* ---- one request ---- */

/* How a request is laid out in buffers. The zeroed one is what drivers do: header, data, status,
 * chained in the ring. */
struct disk_shape {
        bool indirect;
        unsigned segments;     /* the data is in so many buffers; 0: one */
        unsigned header_parts; /* the header likewise */
        bool join_header;      /* header and written data are one buffer */
        bool join_status;      /* read data and status are one buffer */
        bool across_border;    /* the data lies across the border of two regions */
        unsigned misalign;     /* bytes by which the data's address is off 4096 */
};

struct disk_op {
        uint32_t type;
        uint64_t sector;
        void *data; /* written from, or read into */
        uint32_t n_bytes;
        struct disk_shape shape;
        uint8_t status;     /* of the answer */
        uint32_t n_written; /* what the device says it wrote, the status included */
};

/* A request in flight. */
struct disk_flight {
        struct disk_op *op;
        uint64_t header, data, status, table;
        struct ring_buffer buffers[DISK_SEGMENTS_MAX + 20];
        unsigned n_buffers;
};

/* Build it in guest memory, and add it to the ring. -EAGAIN: the ring has no room. */
int disk_add(struct disk *d, unsigned queue, struct disk_op *op, struct disk_flight *flight,
             struct error *err);
/* Take its result over: what was read, and status. */
void disk_finish(struct disk *d, struct disk_flight *flight, uint32_t n_written);
/* Add, publish, wait, finish: the status. Nothing else may be in flight in this queue. Memory is
 * free again afterwards. */
int disk_do(struct disk *d, unsigned queue, struct disk_op *op, struct error *err);
/* Likewise for what the caller has taken before with disk_mark(). */
uint64_t disk_mark(const struct disk *d);
void disk_release(struct disk *d, uint64_t mark);
