/* vhost_play.c - what front ends, engine, clock and operator do, as the input says. */
#include <assert.h>
#include <limits.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/passed_fds.h"
#include "tests/fuzz/engine_play.h"
#include "tests/fuzz/vhost_world.h"

#define FDS_MAX 20u   /* more than the server takes */
#define FLIPS   1000u /* comparisons: from a kick to the end of a request */

/* ---- the wire ---- */

static void close_received(struct msghdr *msg)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
                for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
                        close(fd);
                }
}

/* Replies are whole messages, since each is sent at once. */
static void check_reply(const uint8_t *bytes, size_t length)
{
        while (length > 0) {
                struct vhost_header header;

                assert(length >= sizeof(header));
                memcpy(&header, bytes, sizeof(header));
                assert(header.flags == (VHOST_VERSION | VHOST_REPLY));
                assert(header.size <= sizeof(union vhost_payload));
                assert(header.size <= length - sizeof(header));
                bytes += sizeof(header) + header.size;
                length -= sizeof(header) + header.size;
        }
}

static void take_replies(struct vhost_world *w)
{
        static uint8_t bytes[64 << 10];
        union {
                char bytes[CMSG_SPACE(8 * sizeof(int))];
                struct cmsghdr align;
        } control;
        int fd = w->clients[w->at];

        for (;;) {
                struct iovec iov = {bytes, sizeof(bytes)};
                struct msghdr msg = {.msg_iov = &iov,
                                     .msg_iovlen = 1,
                                     .msg_control = control.bytes,
                                     .msg_controllen = sizeof(control.bytes)};
                ssize_t n = fd < 0 ? -1 : recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

                if (n <= 0)
                        return;
                close_received(&msg);
                check_reply(bytes, (size_t)n);
        }
}

/* Without letting it take effect. A full socket loses it, which is as good as another input. */
static void put(struct vhost_world *w, const void *data, size_t length, const enum vw_file *files,
                unsigned n_files)
{
        int fds[FDS_MAX];

        assert(n_files <= FDS_MAX);
        for (unsigned i = 0; i < n_files; i++)
                fds[i] = w->files[files[i]];
        if (w->clients[w->at] >= 0 && length > 0)
                passed_fds_send(w->clients[w->at], data, length, fds, n_files, MSG_DONTWAIT);
}

void vw_send(struct vhost_world *w, const void *data, size_t length, const enum vw_file *files,
             unsigned n_files)
{
        put(w, data, length, files, n_files);
        vw_settle(w);
        take_replies(w);
}

void vw_message(struct vhost_world *w, uint32_t request, uint32_t flags, const void *payload,
                uint32_t size, const enum vw_file *files, unsigned n_files)
{
        uint8_t bytes[sizeof(struct vhost_header) + sizeof(union vhost_payload)];
        struct vhost_header header = {request, flags | VHOST_VERSION, size};

        assert(size <= sizeof(union vhost_payload));
        memcpy(bytes, &header, sizeof(header));
        if (size > 0)
                memcpy(bytes + sizeof(header), payload, size);
        vw_send(w, bytes, sizeof(header) + size, files, n_files);
}

/* ---- messages ---- */

struct draft {
        union vhost_payload payload;
        uint32_t size;
        enum vw_file files[FDS_MAX];
        unsigned n_files;
};

static struct vhost_region own_region(unsigned which)
{
        return which == 0 ? (struct vhost_region){.guest = VW_GUEST,
                                                  .size = VW_FIRST_BYTES,
                                                  .user = VW_USER,
                                                  .mmap_offset = VW_FIRST_AT}
                          : (struct vhost_region){.guest = VW_GUEST + VW_FIRST_BYTES,
                                                  .size = VW_SECOND_BYTES,
                                                  .user = VW_SECOND_USER,
                                                  .mmap_offset = VW_SECOND_AT};
}

/* One of the guest's, or any. */
static struct vhost_region take_region(struct vhost_world *w, struct input *in, struct draft *d)
{
        uint8_t kind = input_u8(in);
        struct vhost_region region = own_region(kind & 1);

        d->files[d->n_files++] = VW_GUEST_FILE;
        if (kind < 0x80)
                return region;
        w->foreign = true;
        d->files[d->n_files - 1] = (kind >> 1 & 15) % VW_FILES;
        if (kind & 0x20)
                region = (struct vhost_region){.guest = input_number(in, VW_GUEST),
                                               .size = input_number(in, 4096),
                                               .user = input_number(in, VW_USER),
                                               .mmap_offset = input_number(in, 4096)};
        else
                region.guest += (uint64_t)kind << 20;
        return region;
}

static void draft_table(struct vhost_world *w, struct input *in, struct draft *d)
{
        unsigned n = input_u8(in);

        d->payload.table.n_regions = n < 0xf0 ? n & 15 : input_u32(in);
        for (unsigned i = 0; i < VHOST_TABLE_REGIONS_MAX && i < (n & 15); i++)
                d->payload.table.region[i] = take_region(w, in, d);
        d->size = 8 + 32 * (n & 15);
        if (d->size > sizeof(d->payload.table))
                d->size = sizeof(d->payload.table);
}

static void draft_addr(struct vhost_world *w, struct input *in, struct draft *d)
{
        struct vhost_vring_addr *a = &d->payload.addr;
        uint8_t kind = input_u8(in);

        a->index = kind & 3;
        a->flags = kind >> 2 & 1;
        a->descriptor = w->queues[kind & 1].at[0] + VW_USER;
        a->available = w->queues[kind & 1].at[1] + VW_USER;
        a->used = w->queues[kind & 1].at[2] + VW_USER;
        if (kind & 0x80) {
                a->descriptor = VW_USER + input_number(in, VW_FIRST_BYTES);
                a->available = VW_USER + input_number(in, VW_FIRST_BYTES);
                a->used = VW_USER + input_number(in, VW_FIRST_BYTES);
        }
        a->log = a->flags ? input_number(in, VW_GUEST) : 0;
        d->size = sizeof(*a);
}

static void draft_inflight(struct vhost_world *w, struct input *in, struct draft *d)
{
        struct vhost_inflight *is = &d->payload.inflight;
        uint8_t kind = input_u8(in);

        *is = (struct vhost_inflight){.mmap_size = VW_INFLIGHT_BYTES,
                                      .mmap_offset = VW_INFLIGHT_AT,
                                      .n_queues = (uint16_t)(kind & 3),
                                      .queue_size = (uint16_t)(8u << (kind >> 2 & 7))};
        d->files[0] = VW_INFLIGHT;
        d->n_files = 1;
        d->size = VHOST_INFLIGHT_BYTES;
        if (!(kind & 0x80))
                return;
        w->foreign = true;
        is->mmap_size = input_number(in, VW_INFLIGHT_BYTES);
        is->mmap_offset = input_number(in, VW_INFLIGHT_AT);
        is->n_queues = input_u16(in);
        is->queue_size = input_u16(in);
        if (kind & 0x40)
                d->files[0] = input_u8(in) % VW_FILES;
}

static void draft_config(struct input *in, struct draft *d)
{
        struct vhost_config *c = &d->payload.config;
        const uint8_t *at;

        c->offset = (uint32_t)input_number(in, sizeof(struct virtio_blk_config));
        c->size = (uint32_t)input_number(in, sizeof(struct virtio_blk_config));
        c->flags = input_u8(in) & 3;
        d->size = VHOST_CONFIG_HEAD + (c->size < VHOST_CONFIG_MAX ? c->size : VHOST_CONFIG_MAX);
        size_t n = input_take(in, input_u8(in) & 63, &at);
        if (n > 0)
                memcpy(c->data, at, n);
}

static void draft_event(struct input *in, struct draft *d, enum vw_file usual)
{
        uint8_t kind = input_u8(in);

        d->payload.u64 = kind & 3;
        d->files[0] = kind < 0xe0 ? usual : (kind & 15) % VW_FILES;
        d->n_files = 1;
        if (kind & 0x10) {
                d->payload.u64 |= VHOST_VRING_NO_FD;
                d->n_files = 0;
        }
        d->size = sizeof(d->payload.u64);
}

/* The device's features and protocol features, but for some; or any. */
static void draft_features(struct vhost_world *w, struct input *in, struct draft *d)
{
        uint8_t kind = input_u8(in);

        if (kind & 0x80)
                d->payload.u64 = input_number(in, w->features);
        else
                d->payload.u64 = w->features ^ (kind & 1) << 26;
        d->size = sizeof(d->payload.u64);
}

static void draft_protocol(struct input *in, struct draft *d)
{
        uint8_t kind = input_u8(in);

        d->payload.u64 = kind & 0x80 ? input_number(in, 0) : UINT64_C(0x1b22b) ^ (kind & 1) << 3;
        d->size = sizeof(d->payload.u64);
}

/* Where a queue's rings lie for its size. */
static void place_rings(struct vhost_world *w, unsigned index, unsigned size)
{
        struct vw_queue *q = &w->queues[index];
        uint64_t base = index * UINT64_C(0x4000);

        *q = (struct vw_queue){.size = size, .wrap = true};
        q->at[0] = base;
        q->at[1] = base + 0x1000;
        q->at[2] = base + 0x1800;
}

static void draft_state(struct input *in, struct draft *d)
{
        d->payload.state = (struct vhost_vring_state){.index = input_u8(in) & 3,
                                                      .num = (uint32_t)input_number(in, 256)};
        d->size = sizeof(d->payload.state);
}

static void draft_log(struct vhost_world *w, struct input *in, struct draft *d)
{
        d->payload.log.size = input_number(in, 4096);
        d->payload.log.offset = input_number(in, 4096);
        d->size = sizeof(d->payload.log);
        d->files[0] = input_u8(in) & 1 ? VW_LOG : VW_LARGE;
        d->n_files = 1;
}

static void draft(struct vhost_world *w, struct input *in, uint32_t request, struct draft *d)
{
        memset(d, 0, sizeof(*d));
        switch (request) {
        case VHOST_USER_SET_FEATURES:
                draft_features(w, in, d);
                break;
        case VHOST_USER_SET_PROTOCOL_FEATURES:
                draft_protocol(in, d);
                break;
        case VHOST_USER_SET_MEM_TABLE:
                draft_table(w, in, d);
                break;
        case VHOST_USER_ADD_MEM_REG:
        case VHOST_USER_REM_MEM_REG:
                d->payload.reg.region = take_region(w, in, d);
                d->size = sizeof(d->payload.reg);
                break;
        case VHOST_USER_SET_LOG_BASE:
                draft_log(w, in, d);
                break;
        case VHOST_USER_SET_VRING_ADDR:
                draft_addr(w, in, d);
                break;
        case VHOST_USER_SET_VRING_NUM:
                draft_state(in, d);
                if (d->payload.state.num - 1 < VW_SIZE_MAX && d->payload.state.index < VW_QUEUES)
                        place_rings(w, d->payload.state.index, d->payload.state.num);
                break;
        case VHOST_USER_SET_VRING_BASE:
        case VHOST_USER_GET_VRING_BASE:
        case VHOST_USER_SET_VRING_ENABLE:
                draft_state(in, d);
                break;
        case VHOST_USER_SET_VRING_KICK:
                draft_event(in, d, VW_KICK);
                break;
        case VHOST_USER_SET_VRING_CALL:
        case VHOST_USER_SET_VRING_ERR:
                draft_event(in, d, VW_EVENT);
                break;
        case VHOST_USER_SET_BACKEND_REQ_FD:
                d->files[0] = input_u8(in) & 1 ? VW_SOCKET : VW_EVENT;
                d->n_files = 1;
                break;
        case VHOST_USER_GET_CONFIG:
        case VHOST_USER_SET_CONFIG:
                draft_config(in, d);
                break;
        case VHOST_USER_SET_INFLIGHT_FD:
        case VHOST_USER_GET_INFLIGHT_FD:
                draft_inflight(w, in, d);
                if (request == VHOST_USER_GET_INFLIGHT_FD)
                        d->n_files = 0;
                break;
        case VHOST_USER_SET_STATUS:
                d->payload.u64 = input_number(in, 0);
                d->size = sizeof(d->payload.u64);
        }
}

/* Wrong in what the table of message.c looks at: size, flags, descriptors. */
static void spoil(struct input *in, struct draft *d, struct vhost_header *header)
{
        uint8_t kind = input_u8(in);

        if (kind & 1)
                header->size = (uint32_t)input_number(in, d->size);
        if (kind & 2)
                header->flags = (uint32_t)input_number(in, VHOST_VERSION);
        if (kind & 4) {
                unsigned n = input_u8(in) % (FDS_MAX + 1);
                while (d->n_files < n)
                        d->files[d->n_files++] = input_u8(in) % VW_FILES;
                d->n_files = n;
        }
        if (kind & 8)
                d->size = (uint32_t)(input_number(in, d->size) % sizeof(d->payload));
}

static void play_message(struct vhost_world *w, struct input *in)
{
        uint8_t bytes[sizeof(struct vhost_header) + sizeof(union vhost_payload)];
        uint8_t kind = input_u8(in), how = input_u8(in);
        uint32_t request = kind < 0xf8 ? kind % 42u : input_u32(in);
        struct draft d;

        draft(w, in, request, &d);
        struct vhost_header header = {.request = request,
                                      .flags = VHOST_VERSION | (how & 1 ? VHOST_NEED_REPLY : 0),
                                      .size = d.size};
        if (how >= 0xe0) {
                spoil(in, &d, &header);
                w->foreign = true;
        }
        memcpy(bytes, &header, sizeof(header));
        memcpy(bytes + sizeof(header), &d.payload, d.size);
        size_t length = sizeof(header) + d.size, first = length;
        if (how & 2) { /* in two pieces */
                first = input_u8(in) % (length + 1);
                put(w, bytes, first, d.files, d.n_files);
                if (how & 4)
                        vw_settle(w);
        }
        if (how & 2)
                vw_send(w, bytes + first, length - first, d.files, first ? 0 : d.n_files);
        else if (how & 8)
                put(w, bytes, length, d.files, d.n_files); /* with what comes behind it */
        else
                vw_send(w, bytes, length, d.files, d.n_files);
}

static void play_bytes(struct vhost_world *w, struct input *in)
{
        const uint8_t *at;
        size_t n = input_take(in, input_u8(in) & 63, &at);

        if (n > 0)
                vw_send(w, at, n, NULL, 0);
}

/* ---- a device that works ---- */

static void start_queue(struct vhost_world *w, unsigned index, unsigned size)
{
        const enum vw_file kick = VW_KICK, call = VW_EVENT;
        uint64_t event = index;
        struct vhost_vring_state num = {index, size}, enable = {index, 1};
        struct vhost_vring_state base = {index, w->packed ? 0x8000 : 0};

        place_rings(w, index, size);
        struct vhost_vring_addr addr = {.index = index,
                                        .descriptor = VW_USER + w->queues[index].at[0],
                                        .available = VW_USER + w->queues[index].at[1],
                                        .used = VW_USER + w->queues[index].at[2]};
        vw_message(w, VHOST_USER_SET_VRING_NUM, 0, &num, sizeof(num), NULL, 0);
        vw_message(w, VHOST_USER_SET_VRING_BASE, 0, &base, sizeof(base), NULL, 0);
        vw_message(w, VHOST_USER_SET_VRING_ADDR, 0, &addr, sizeof(addr), NULL, 0);
        vw_message(w, VHOST_USER_SET_VRING_CALL, 0, &event, sizeof(event), &call, 1);
        vw_message(w, VHOST_USER_SET_VRING_KICK, 0, &event, sizeof(event), &kick, 1);
        vw_message(w, VHOST_USER_SET_VRING_ENABLE, 0, &enable, sizeof(enable), NULL, 0);
}

static void show_memory(struct vhost_world *w)
{
        const enum vw_file files[] = {VW_GUEST_FILE, VW_GUEST_FILE};
        struct vhost_mem_table table = {.n_regions = 2};

        table.region[0] = own_region(0);
        table.region[1] = own_region(1);
        vw_message(w, VHOST_USER_SET_MEM_TABLE, 0, &table, 8 + 2 * 32, files, 2);
}

static void show_inflight(struct vhost_world *w, unsigned size)
{
        const enum vw_file file = VW_INFLIGHT;
        struct vhost_inflight is = {.mmap_size = VW_INFLIGHT_BYTES,
                                    .mmap_offset = VW_INFLIGHT_AT,
                                    .n_queues = VW_QUEUES,
                                    .queue_size = (uint16_t)size};

        vw_message(w, VHOST_USER_SET_INFLIGHT_FD, 0, &is, VHOST_INFLIGHT_BYTES, &file, 1);
}

void vw_set_up(struct vhost_world *w, struct input *in)
{
        static const unsigned sizes[] = {4, 8, 32, 256};
        uint8_t kind = input_u8(in), more = input_u8(in);
        uint64_t protocol = UINT64_C(0x1b22b);
        unsigned size = sizes[kind & 3];

        w->packed = kind & 4;
        w->features =
            UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VHOST_USER_F_PROTOCOL_FEATURES |
            UINT64_C(1) << VIRTIO_BLK_F_DISCARD | UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES;
        if (w->packed)
                w->features |= UINT64_C(1) << VIRTIO_F_RING_PACKED;
        if (w->packed && more & 1)
                size--; /* need not be a power of two */
        if (kind & 8)
                w->features |= UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
        if (kind & 16)
                w->features |= UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
        if (kind & 32)
                w->features |= UINT64_C(1) << VIRTIO_BLK_F_FLUSH | UINT64_C(1)
                                                                       << VIRTIO_BLK_F_CONFIG_WCE;
        vw_message(w, VHOST_USER_SET_FEATURES, 0, &w->features, 8, NULL, 0);
        vw_message(w, VHOST_USER_SET_PROTOCOL_FEATURES, 0, &protocol, 8, NULL, 0);
        show_memory(w);
        if (kind & 64) { /* with marks of a server before, perhaps */
                const uint8_t *at;
                size_t n = input_take(in, more >> 1 & 63, &at);
                if (n > 0 && pwrite(w->files[VW_INFLIGHT], at, n, VW_INFLIGHT_AT) != (ssize_t)n)
                        abort();
                show_inflight(w, size);
        }
        for (unsigned i = 0; i < (kind & 128 ? 2u : 1u); i++)
                start_queue(w, i, size);
        w->data = 0x8000;
}

/* ---- memory ---- */

static void play_write(struct vhost_world *w, struct input *in)
{
        uint64_t offset = input_u16(in) | (uint64_t)(input_u8(in) & 3) << 16;
        const uint8_t *at;
        size_t n = input_take(in, input_u8(in) & 31, &at);

        vw_write(w, offset, at, n);
}

static struct vhost_world *changing;

static void flip(unsigned which, unsigned turn)
{
        const struct vw_flip *f = &changing->flips[which];

        vw_write(changing, f->offset, turn % 2 ? f->before : f->after, f->length);
}

static void shrink(unsigned pages, unsigned turn)
{
        if (!changing->shrunk && ftruncate(changing->files[VW_GUEST_FILE], (off_t)pages << 12) < 0)
                abort();
        changing->shrunk = true;
}

/* What the driver wrote a little before, or any place, changes once, or there and back many times. */
static void play_change(struct vhost_world *w, struct input *in)
{
        uint8_t kind = input_u8(in), where = input_u8(in), when = input_u8(in);
        unsigned after = when < 0x80 ? when : (when & 127u) << 4, period = 1 + (kind & 3);
        struct vw_flip *f = &w->flips[w->n_flips % INTERLEAVE_MAX];
        uint64_t value;

        changing = w;
        if (kind >= 0xf0) {
                interleave_at(after, 1, 1, shrink, where % (VW_FILE_BYTES >> 12));
                return;
        }
        f->length = 1u << (kind >> 2 & 3);
        f->offset = w->written[where & (VW_WRITTEN - 1)] + (where >> 4) % 8 * 2u;
        if (kind & 0x40)
                f->offset = input_u16(in) | (uint64_t)(where & 1) << 16;
        value = htole64(input_number(in, VW_GUEST));
        vw_read(w, f->offset, f->before, sizeof(f->before));
        memcpy(f->after, &value, sizeof(value));
        interleave_at(after, period, kind & 0x20 ? FLIPS : 1, flip, w->n_flips % INTERLEAVE_MAX);
        w->n_flips++;
}

static void play_inflight(struct vhost_world *w, struct input *in)
{
        uint64_t at = input_u16(in) % VW_INFLIGHT_BYTES;
        const uint8_t *bytes;
        size_t n = input_take(in, input_u8(in) & 31, &bytes);

        if (n > VW_INFLIGHT_BYTES - at)
                n = VW_INFLIGHT_BYTES - at;
        if (n > 0 &&
            pwrite(w->files[VW_INFLIGHT], bytes, n, (off_t)(VW_INFLIGHT_AT + at)) != (ssize_t)n)
                abort();
}

/* ---- engine, operator, clients ---- */

static void play_engine(struct vhost_world *w, struct input *in)
{
        uint8_t kind = input_u8(in);

        engine_play(w->volume, VW_VOL_BYTES, kind, in);
        if ((kind & 7) == 4) /* it has another size */
                vhost_device_config_changed(w->device);
}

static void co_disconnect(void *arg)
{
        struct vhost_world *w = arg;

        co_vhost_device_disconnect(w->device);
        w->n_disconnecting--;
}

static void play_client(struct vhost_world *w, struct input *in)
{
        uint8_t kind = input_u8(in);

        w->at = (kind >> 4) % VW_CLIENTS;
        int *fd = &w->clients[w->at];
        switch (kind & 7) {
        case 0:
                if (*fd >= 0)
                        close(*fd);
                *fd = -1;
                break;
        case 1:
                if (*fd >= 0)
                        shutdown(*fd, SHUT_WR);
                break;
        case 2:
                vw_connect(w, w->at);
                break;
        case 3: /* another server, or another front end of the same guest */
                vw_connect(w, w->at);
                vw_set_up(w, in);
                break;
        case 4:
                if (w->n_disconnecting < 4) {
                        w->n_disconnecting++;
                        if (co_spawn(w->loop, co_disconnect, w) < 0)
                                abort();
                }
                break;
        }
        vw_step(w);
}

static void play_kick(struct vhost_world *w, struct input *in)
{
        const uint64_t one = 1;

        if (write(w->files[VW_KICK], &one, sizeof(one)) != sizeof(one))
                abort();
        if (input_u8(in) & 1)
                vw_step(w);
        else
                vw_settle(w);
}

void vw_play_some(struct vhost_world *w, struct input *in, unsigned n_acts)
{
        for (; n_acts > 0 && in->left > 0; n_acts--) {
                uint8_t what = input_u8(in);

                switch (what & 15) {
                case 0:
                case 1:
                case 2:
                case 3:
                        vw_play_chain(w, in);
                        break;
                case 4:
                case 5:
                        play_kick(w, in);
                        break;
                case 6:
                        play_write(w, in);
                        break;
                case 7:
                        play_change(w, in);
                        break;
                case 8:
                case 9:
                        play_message(w, in);
                        break;
                case 10:
                        play_bytes(w, in);
                        break;
                case 11:
                        play_inflight(w, in);
                        break;
                case 12:
                        fuzz_loop_advance(w->loop, UINT64_C(1000) << (input_u8(in) & 15));
                        break;
                case 13:
                        play_client(w, in);
                        break;
                case 14:
                        play_engine(w, in);
                        break;
                case 15:
                        vw_settle(w);
                }
        }
}

void vw_play(struct vhost_world *w, struct input *in)
{
        vw_play_some(w, in, UINT_MAX);
}
