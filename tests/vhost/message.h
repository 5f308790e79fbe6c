/* message.h - the vhost-user protocol's numbers and payloads, as a front end needs them.
 *
 * Written from the documents, not shared with the back end under test: a number that one of the
 * two has wrong shows.
 *
 * Units      bytes; integers are the machine's own order.
 * Source     QEMU, docs/interop/vhost-user.rst; virtio 1.2 for feature bits and the rings.
 */
#pragma once
#include <assert.h>
#include <stdint.h>

enum vu_request {
        VU_GET_FEATURES = 1,
        VU_SET_FEATURES = 2,
        VU_SET_OWNER = 3,
        VU_RESET_OWNER = 4,
        VU_SET_MEM_TABLE = 5,
        VU_SET_LOG_BASE = 6,
        VU_SET_LOG_FD = 7,
        VU_SET_VRING_NUM = 8,
        VU_SET_VRING_ADDR = 9,
        VU_SET_VRING_BASE = 10,
        VU_GET_VRING_BASE = 11,
        VU_SET_VRING_KICK = 12,
        VU_SET_VRING_CALL = 13,
        VU_SET_VRING_ERR = 14,
        VU_GET_PROTOCOL_FEATURES = 15,
        VU_SET_PROTOCOL_FEATURES = 16,
        VU_GET_QUEUE_NUM = 17,
        VU_SET_VRING_ENABLE = 18,
        VU_SET_BACKEND_REQ_FD = 21,
        VU_GET_CONFIG = 24,
        VU_SET_CONFIG = 25,
        VU_GET_INFLIGHT_FD = 31,
        VU_SET_INFLIGHT_FD = 32,
        VU_RESET_DEVICE = 34,
        VU_GET_MAX_MEM_SLOTS = 36,
        VU_ADD_MEM_REG = 37,
        VU_REM_MEM_REG = 38,
        VU_SET_STATUS = 39,
        VU_GET_STATUS = 40,
        VU_REQUEST_END = 64, /* none is as high */
};

/* What the back end asks over its own channel. */
enum { VU_BACKEND_CONFIG_CHANGE = 2 };

enum {
        VU_VERSION = 1,
        VU_VERSION_MASK = 3,
        VU_REPLY = 4,
        VU_NEED_REPLY = 8,
};

/* Of SET_VRING_KICK, _CALL and _ERR. */
#define VU_VRING_NO_FD 0x100u

/* Feature bits of virtio (2.4.1 and 6), of its block device (5.2.3), and of vhost. */
#define VF_BIT(n)            (UINT64_C(1) << (n))
#define VF_BLK_SEG_MAX       VF_BIT(2)
#define VF_BLK_RO            VF_BIT(5)
#define VF_BLK_SIZE          VF_BIT(6)
#define VF_BLK_FLUSH         VF_BIT(9)
#define VF_BLK_TOPOLOGY      VF_BIT(10)
#define VF_BLK_CONFIG_WCE    VF_BIT(11)
#define VF_BLK_MQ            VF_BIT(12)
#define VF_BLK_DISCARD       VF_BIT(13)
#define VF_BLK_WRITE_ZEROES  VF_BIT(14)
#define VF_LOG_ALL           VF_BIT(26)
#define VF_INDIRECT          VF_BIT(28)
#define VF_EVENT_IDX         VF_BIT(29)
#define VF_PROTOCOL_FEATURES VF_BIT(30)
#define VF_VERSION_1         VF_BIT(32)
#define VF_RING_PACKED       VF_BIT(34)

#define VP_MQ                  VF_BIT(0)
#define VP_LOG_SHMFD           VF_BIT(1)
#define VP_REPLY_ACK           VF_BIT(3)
#define VP_BACKEND_REQ         VF_BIT(5)
#define VP_CONFIG              VF_BIT(9)
#define VP_INFLIGHT_SHMFD      VF_BIT(12)
#define VP_RESET_DEVICE        VF_BIT(13)
#define VP_CONFIGURE_MEM_SLOTS VF_BIT(15)
#define VP_STATUS              VF_BIT(16)

/* The table of one SET_MEM_TABLE. */
#define VU_TABLE_REGIONS 8u
/* The largest part of the config space that one message carries. */
#define VU_CONFIG_MAX 256u
/* Descriptors with a message. */
#define VU_FDS_MAX 8u
/* A bit of the dirty log stands for so much. */
#define VU_LOG_PAGE 4096u

struct vu_header {
        uint32_t request, flags, size; /* of the payload */
};

struct vu_vring_state {
        uint32_t index, num;
};

/* Of the flags of struct vu_vring_addr: @log is valid, and the used ring's writes are logged. */
#define VU_VRING_LOG 1u

struct vu_vring_addr {
        uint32_t index, flags;
        uint64_t descriptor, used, available; /* user addresses */
        uint64_t log;                         /* a guest address */
};

struct vu_region {
        uint64_t guest, size, user, offset;
};

struct vu_table {
        uint32_t n_regions, padding;
        struct vu_region regions[VU_TABLE_REGIONS];
};

struct vu_single_region {
        uint64_t padding;
        struct vu_region region;
};

struct vu_log {
        uint64_t size, offset;
};

struct vu_config {
        uint32_t offset, size, flags;
        uint8_t data[VU_CONFIG_MAX];
};
#define VU_CONFIG_HEADER 12u

struct vu_inflight {
        uint64_t size, offset;
        uint16_t n_queues, queue_size;
        uint32_t padding; /* of QEMU's structure; the document's ends before it */
};
#define VU_INFLIGHT_SIZE 20u

/* What lies in the in-flight region, one queue after the other ("Inflight I/O tracking"). */
struct vu_inflight_split_desc {
        uint8_t inflight, padding[5];
        uint16_t next;
        uint64_t counter;
};
struct vu_inflight_split {
        uint64_t features;
        uint16_t version, desc_num, last_batch_head, used_idx;
        struct vu_inflight_split_desc desc[];
};
static_assert(sizeof(struct vu_inflight_split_desc) == 16, "as the document has it");
static_assert(sizeof(struct vu_inflight_split) == 16, "as the document has it");

struct vu_inflight_packed_desc {
        uint8_t inflight, padding;
        uint16_t next, last, num;
        uint64_t counter;
        uint16_t id, flags;
        uint32_t len;
        uint64_t addr;
};
struct vu_inflight_packed {
        uint64_t features;
        uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
        uint8_t used_wrap_counter, old_used_wrap_counter, padding[7];
        struct vu_inflight_packed_desc desc[];
};
static_assert(sizeof(struct vu_inflight_packed_desc) == 32, "as the document has it");
