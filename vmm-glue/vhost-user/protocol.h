/* protocol.h - vhost-user's messages and shared structures, as docs/interop/vhost-user.rst of QEMU
 * states them. What lies in virtqueues and in the configuration space of a block device is in the
 * kernel's headers (linux/virtio_ring.h, linux/virtio_blk.h).
 *
 * Units      messages are in the machine's byte order, rings little-endian.
 * Threads    [any thread]
 * Errors     none.
 * Ownership  none.
 */
#pragma once
#include <assert.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdint.h>

enum vhost_request {
        VHOST_USER_GET_FEATURES = 1,
        VHOST_USER_SET_FEATURES = 2,
        VHOST_USER_SET_OWNER = 3,
        VHOST_USER_RESET_OWNER = 4,
        VHOST_USER_SET_MEM_TABLE = 5,
        VHOST_USER_SET_LOG_BASE = 6,
        VHOST_USER_SET_LOG_FD = 7,
        VHOST_USER_SET_VRING_NUM = 8,
        VHOST_USER_SET_VRING_ADDR = 9,
        VHOST_USER_SET_VRING_BASE = 10,
        VHOST_USER_GET_VRING_BASE = 11,
        VHOST_USER_SET_VRING_KICK = 12,
        VHOST_USER_SET_VRING_CALL = 13,
        VHOST_USER_SET_VRING_ERR = 14,
        VHOST_USER_GET_PROTOCOL_FEATURES = 15,
        VHOST_USER_SET_PROTOCOL_FEATURES = 16,
        VHOST_USER_GET_QUEUE_NUM = 17,
        VHOST_USER_SET_VRING_ENABLE = 18,
        VHOST_USER_SET_BACKEND_REQ_FD = 21,
        VHOST_USER_GET_CONFIG = 24,
        VHOST_USER_SET_CONFIG = 25,
        VHOST_USER_GET_INFLIGHT_FD = 31,
        VHOST_USER_SET_INFLIGHT_FD = 32,
        VHOST_USER_RESET_DEVICE = 34,
        VHOST_USER_GET_MAX_MEM_SLOTS = 36,
        VHOST_USER_ADD_MEM_REG = 37,
        VHOST_USER_REM_MEM_REG = 38,
        VHOST_USER_SET_STATUS = 39,
        VHOST_USER_GET_STATUS = 40,
};

#define VHOST_USER_BACKEND_CONFIG_CHANGE_MSG 2u

#define VHOST_VERSION      1u
#define VHOST_VERSION_MASK 3u
#define VHOST_REPLY        (1u << 2)
#define VHOST_NEED_REPLY   (1u << 3)

/* Feature bits beside virtio's. */
#define VHOST_F_LOG_ALL                26
#define VHOST_USER_F_PROTOCOL_FEATURES 30

enum vhost_protocol_feature {
        VHOST_USER_PROTOCOL_F_MQ = 0,
        VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
        VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
        VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
        VHOST_USER_PROTOCOL_F_CONFIG = 9,
        VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
        VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
        VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
        VHOST_USER_PROTOCOL_F_STATUS = 16,
};

struct vhost_header {
        uint32_t request, flags, size;
};

struct vhost_vring_state {
        uint32_t index, num;
};

#define VHOST_VRING_F_LOG 1u
struct vhost_vring_addr {
        uint32_t index, flags;
        uint64_t descriptor, used, available, log;
};

struct vhost_region {
        uint64_t guest, size, user, mmap_offset;
};
#define VHOST_TABLE_REGIONS_MAX 8u
struct vhost_mem_table {
        uint32_t n_regions, padding;
        struct vhost_region region[VHOST_TABLE_REGIONS_MAX];
};
struct vhost_mem_reg {
        uint64_t padding;
        struct vhost_region region;
};

struct vhost_log_area {
        uint64_t size, offset;
};

/* In the payload of SET_VRING_KICK, _CALL and _ERR. */
#define VHOST_VRING_INDEX_MASK 0xffu
#define VHOST_VRING_NO_FD      (1u << 8)

#define VHOST_CONFIG_MAX 256u /* bytes of configuration space in one message */
struct vhost_config {
        uint32_t offset, size, flags;
        uint8_t data[VHOST_CONFIG_MAX];
};
#define VHOST_CONFIG_HEAD 12u /* bytes before data */

#define VHOST_CONFIG_FLAG_MIGRATION 1u

struct vhost_inflight {
        uint64_t mmap_size, mmap_offset;
        uint16_t n_queues, queue_size;
};

union vhost_payload {
        uint64_t u64;
        struct vhost_vring_state state;
        struct vhost_vring_addr addr;
        struct vhost_mem_table table;
        struct vhost_mem_reg reg;
        struct vhost_log_area log;
        struct vhost_config config;
        struct vhost_inflight inflight;
};

/* "struct vhost_inflight" as documented: without the padding at its end, which QEMU sends as well
 * and expects back. */
#define VHOST_INFLIGHT_BYTES 20u
static_assert(sizeof(struct vhost_inflight) == 24, "QEMU's");
static_assert(sizeof(struct vhost_header) == 12, "wire");
static_assert(sizeof(struct vhost_vring_addr) == 40, "wire");
static_assert(sizeof(struct vhost_mem_table) == 8 + 32 * VHOST_TABLE_REGIONS_MAX, "wire");
static_assert(sizeof(struct vhost_mem_reg) == 40, "wire");

/* ---- the in-flight region, section "Inflight I/O tracking" ---- */

#define VHOST_INFLIGHT_VERSION 1u

struct vhost_desc_state_split {
        uint8_t inflight;
        uint8_t padding[5];
        uint16_t next;
        uint64_t counter;
};
struct vhost_region_split {
        uint64_t features;
        uint16_t version, desc_num, last_batch_head, used_idx;
        struct vhost_desc_state_split desc[];
};

struct vhost_desc_state_packed {
        uint8_t inflight;
        uint8_t padding;
        uint16_t next, last, num;
        uint64_t counter;
        uint16_t id, flags;
        uint32_t len;
        uint64_t addr;
};
struct vhost_region_packed {
        uint64_t features;
        uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
        uint8_t used_wrap_counter, old_used_wrap_counter;
        uint8_t padding[7];
        struct vhost_desc_state_packed desc[];
};
static_assert(sizeof(struct vhost_desc_state_split) == 16, "shared with other back ends");
static_assert(sizeof(struct vhost_region_split) == 16, "shared with other back ends");
static_assert(sizeof(struct vhost_desc_state_packed) == 32, "shared with other back ends");
static_assert(sizeof(struct vhost_region_packed) == 32, "shared with other back ends");
