/* raw.c - see raw.h. */
#include "tests/vhost/raw.h"
#include <assert.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TABLE_ENTRIES 1100u

struct raw *raw_open(struct disk_options options)
{
        struct raw *r = calloc(1, sizeof(*r));
        const uint8_t none = DISK_STATUS_NONE;

        assert(r);
        options.without |= VF_EVENT_IDX;
        r->disk = check_open(options);
        r->ring = &r->disk->rings[0];
        r->header = guest_take(r->disk->memory, 0, sizeof(struct virtio_blk_outhdr), 16);
        r->data = guest_take(r->disk->memory, 0, RAW_BYTES, 4096);
        r->status = guest_take(r->disk->memory, 0, 1, 1);
        r->table = guest_take(r->disk->memory, 0, TABLE_ENTRIES * sizeof(struct vring_desc), 16);
        ring_arm(r->ring);
        guest_write(r->disk->memory, r->status, &none, 1);
        raw_header(r, VIRTIO_BLK_T_IN, 0);
        raw_desc(r, 0, r->header, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT, 1);
        raw_desc(r, 1, r->data, RAW_BYTES, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2);
        raw_desc(r, 2, r->status, 1, VRING_DESC_F_WRITE, 0);
        return r;
}

void raw_close(struct raw *r)
{
        disk_close(r->disk);
        free(r);
}

void raw_header(struct raw *r, uint32_t type, uint64_t sector)
{
        struct virtio_blk_outhdr header = {.type = type, .sector = sector};

        guest_write(r->disk->memory, r->header, &header, sizeof(header));
}

void raw_desc(struct raw *r, uint16_t i, uint64_t guest, uint32_t n_bytes, uint16_t flags,
              uint16_t next)
{
        if (r->ring->packed) {
                struct vring_packed_desc *d = &ring_packed(r->ring)[i];
                /* The first is withheld until raw_show(). */
                uint16_t avail = i == 0 ? 0 : 1u << VRING_PACKED_DESC_F_AVAIL;
                *d = (struct vring_packed_desc){
                    .addr = guest, .len = n_bytes, .flags = flags | avail};
        } else
                ring_table(r->ring)[i] = (struct vring_desc){guest, n_bytes, flags, next};
}

void raw_entry(struct raw *r, uint16_t i, uint64_t guest, uint32_t n_bytes, uint16_t flags,
               uint16_t next)
{
        struct ring_buffer buffer = {.guest = guest, .n_bytes = n_bytes};

        assert(i < TABLE_ENTRIES);
        ring_write_entry(r->ring, r->table, i, &buffer, flags, next);
}

void raw_indirect(struct raw *r, uint32_t n_bytes, uint16_t more_flags)
{
        raw_desc(r, 0, r->table, n_bytes, VRING_DESC_F_INDIRECT | more_flags, 1);
}

void raw_show(struct raw *r, uint16_t head)
{
        struct vring_avail *available = ring_available(r->ring);

        if (r->ring->packed)
                __atomic_fetch_or(&ring_packed(r->ring)[0].flags, 1u << VRING_PACKED_DESC_F_AVAIL,
                                  __ATOMIC_RELEASE);
        else {
                available->ring[r->shown++ % r->ring->size] = head;
                __atomic_store_n(&available->idx, r->shown, __ATOMIC_RELEASE);
        }
        ring_kick(r->ring);
}

static bool is_used(struct raw *r)
{
        if (!r->ring->packed)
                return __atomic_load_n(&ring_used(r->ring)->idx, __ATOMIC_ACQUIRE) != 0;
        return __atomic_load_n(&ring_packed(r->ring)[0].flags, __ATOMIC_ACQUIRE) &
               1u << VRING_PACKED_DESC_F_USED;
}

enum raw_outcome raw_outcome(struct raw *r)
{
        struct pollfd fds[] = {{.fd = r->ring->call, .events = POLLIN},
                               {.fd = r->ring->error, .events = POLLIN},
                               {.fd = r->disk->front->fd, .events = POLLIN}};
        uint8_t status;

        while (!is_used(r)) {
                if (poll(fds, 3, RAW_WAIT_MS) == 0)
                        return RAW_SILENT;
                if (is_used(r))
                        break;
                if (fds[1].revents)
                        return RAW_BROKEN;
                if (fds[2].revents)
                        return RAW_CLOSED;
                ring_wait_call(r->ring, 0);
        }
        guest_read(r->disk->memory, r->status, &status, 1);
        if (status > VIRTIO_BLK_S_UNSUPP)
                return RAW_NO_STATUS;
        return status == VIRTIO_BLK_S_OK      ? RAW_OK
               : status == VIRTIO_BLK_S_IOERR ? RAW_IOERR
                                              : RAW_UNSUPP;
}

uint32_t raw_n_written(struct raw *r)
{
        if (!r->ring->packed)
                return ring_used(r->ring)->ring[0].len;
        return ring_packed(r->ring)[0].flags & VRING_DESC_F_WRITE ? ring_packed(r->ring)[0].len : 0;
}

int raw_lingering(int *ret_peer)
{
        const struct linger linger = {.l_onoff = 1, .l_linger = 600};
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof(address);
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        static const uint8_t zeroes[65536];
        const int small = 4096;

        /* Small, so that there may be many. */
        assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
        *ret_peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(*ret_peer >= 0);
        close(listener);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
        while (send(fd, zeroes, sizeof(zeroes), MSG_DONTWAIT) > 0)
                ;
        return fd;
}
