/* disk.c - see disk.h. */
#include "tests/vhost/disk.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HEADER_BYTES 16u
#define ANSWER_MS    60000
#define RETRY_MS     20
#define BLOCK        4096u
#define TABLE_BYTES  ((DISK_SEGMENTS_MAX + 20) * sizeof(struct vring_desc))
#define QUEUE_SIZE   128u
#define MEMORY_BYTES (UINT64_C(16) << 20)
#define CONFIG_BYTES 60u /* to write_zeroes_may_unmap's padding: what every device of today has */

bool disk_has(const struct disk *d, uint64_t feature)
{
        return (d->front->features & feature) == feature;
}

uint64_t disk_size(const struct disk *d)
{
        return d->config.capacity * DISK_SECTOR;
}

uint64_t disk_mark(const struct disk *d)
{
        return d->memory->regions[0].taken;
}

void disk_release(struct disk *d, uint64_t mark)
{
        guest_reset(d->memory, 0, mark);
}

int disk_read_config(struct disk *d, struct error *err)
{
        return front_get_config(d->front, 0, CONFIG_BYTES, &d->config, err);
}

/* ---- start ---- */

static int negotiate(struct disk *d, struct error *err)
{
        const struct disk_options *o = &d->options;
        uint64_t features = DISK_FEATURES & ~o->without;
        uint64_t n_queues = 1;

        if (!o->packed)
                features &= ~VF_RING_PACKED;
        int r = front_negotiate(d->front, features & ~VF_LOG_ALL,
                                DISK_PROTOCOL & ~o->without_protocol, err);
        if (r == 0 && o->packed && !disk_has(d, VF_RING_PACKED))
                return error_set(err, -ENOTSUP, "the device offers no packed rings");
        if (r == 0 && (d->front->protocol & VP_CONFIG))
                r = disk_read_config(d, err);
        if (r == 0 && (d->front->protocol & VP_MQ))
                r = front_ask_u64(d->front, VU_GET_QUEUE_NUM, &n_queues, err);
        if (r == 0 && o->n_queues > n_queues)
                return error_set(err, -ENOTSUP, "the device has %u queues", (unsigned)n_queues);
        return r;
}

int disk_set_inflight(struct disk *d, struct error *err)
{
        struct vu_inflight wanted = {.n_queues = (uint16_t)d->options.n_queues,
                                     .queue_size = d->options.queue_size};
        struct front_reply reply;

        if (d->inflight_fd < 0) {
                int r = front_send(d->front, VU_GET_INFLIGHT_FD, VU_VERSION, &wanted,
                                   VU_INFLIGHT_SIZE, NULL, 0, err);
                if (r == 0)
                        r = front_reply(d->front, VU_GET_INFLIGHT_FD, &reply, err);
                if (r < 0)
                        return r;
                if (reply.header.size < VU_INFLIGHT_SIZE || reply.n_fds != 1)
                        return error_set(err, -EPROTO, "the in-flight region has %u descriptors",
                                         reply.n_fds);
                d->inflight = reply.inflight;
                d->inflight_fd = reply.fds[0];
        }
        d->inflight.n_queues = wanted.n_queues;
        d->inflight.queue_size = wanted.queue_size;
        return front_tell(d->front, VU_SET_INFLIGHT_FD, &d->inflight, VU_INFLIGHT_SIZE,
                          &d->inflight_fd, 1, err);
}

int disk_start(struct disk *d, struct error *err)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < d->n_rings; i++)
                r = ring_start(&d->rings[i], d->front, i, false, err);
        return r;
}

static int make_rings(struct disk *d, struct error *err)
{
        const struct disk_options *o = &d->options;

        for (unsigned i = 0; i < o->n_queues; i++) {
                int r = ring_new(d->memory, 0, o->queue_size, o->packed, disk_has(d, VF_EVENT_IDX),
                                 &d->rings[i], err);
                if (r < 0)
                        return r;
                d->n_rings++;
        }
        d->taken_bytes = disk_mark(d);
        return 0;
}

/* From a new connection to queues that run. */
static int set_up(struct disk *d, struct error *err)
{
        int r = front_connect(d->options.path, &d->front, err);

        if (r == 0)
                r = negotiate(d, err);
        if (r == 0 && (d->front->protocol & VP_INFLIGHT_SHMFD) && !d->options.without_inflight)
                r = disk_set_inflight(d, err);
        if (r == 0)
                r = front_set_memory(d->front, d->memory, d->options.by_slots, err);
        return r;
}

int disk_open(const struct disk_options *options, struct disk **ret_disk, struct error *err)
{
        struct disk *d = calloc(1, sizeof(*d));

        if (!d)
                return error_set(err, -ENOMEM, "out of memory for a disk");
        d->options = *options;
        d->inflight_fd = -1;
        if (d->options.n_queues == 0)
                d->options.n_queues = 1;
        if (d->options.queue_size == 0)
                d->options.queue_size = QUEUE_SIZE;
        if (d->options.memory_bytes == 0)
                d->options.memory_bytes = MEMORY_BYTES;
        assert(d->options.n_queues <= DISK_QUEUES_MAX);
        int r = guest_new(d->options.memory_bytes, &d->memory, err);
        if (r == 0)
                r = set_up(d, err);
        if (r == 0)
                r = make_rings(d, err);
        if (r == 0 && !d->options.stopped)
                r = disk_start(d, err);
        if (r < 0) {
                disk_close(d);
                return r;
        }
        *ret_disk = d;
        return 0;
}

void disk_close(struct disk *d)
{
        if (!d)
                return;
        front_close(d->front);
        for (unsigned i = 0; i < d->n_rings; i++)
                ring_free(&d->rings[i]);
        if (d->inflight_fd >= 0)
                close(d->inflight_fd);
        guest_free(d->memory);
        free(d);
}

static int64_t clock_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int disk_reconnect(struct disk *d, int timeout_ms, struct error *err)
{
        const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000};
        int64_t end_ms = clock_ms() + timeout_ms;
        int r;

        for (;;) {
                front_close(d->front);
                d->front = NULL;
                r = set_up(d, err);
                if (r == 0)
                        r = disk_start(d, err);
                if (r == 0 || clock_ms() >= end_ms)
                        break;
                nanosleep(&pause, NULL);
        }
        /* What was shown to the server before is not told again by anybody else. */
        for (unsigned i = 0; r == 0 && i < d->n_rings; i++)
                ring_kick(&d->rings[i]);
        return r;
}

int disk_wait(struct disk *d, int timeout_ms, bool *ret_is_lost, struct error *err)
{
        struct pollfd fds[DISK_QUEUES_MAX + 1];
        unsigned n = d->n_rings;
        bool there = false;
        int r = 0;

        for (unsigned i = 0; i < n; i++) {
                there = ring_arm(&d->rings[i]) || there;
                fds[i] = (struct pollfd){.fd = d->rings[i].call, .events = POLLIN};
        }
        fds[n] = (struct pollfd){.fd = d->front->fd, .events = POLLIN};
        if (!there && poll(fds, n + 1, timeout_ms) == 0)
                r = error_set(err, -ETIMEDOUT, "the device has not answered for %d seconds",
                              timeout_ms / 1000);
        for (unsigned i = 0; !there && i < n; i++)
                if (fds[i].revents)
                        ring_wait_call(&d->rings[i], 0);
        for (unsigned i = 0; i < n; i++)
                ring_disarm(&d->rings[i]);
        *ret_is_lost = !there && fds[n].revents;
        return r;
}

/* ---- one request ---- */

static void put(struct disk_flight *f, uint64_t guest, uint32_t n_bytes, bool writable)
{
        assert(f->n_buffers < sizeof(f->buffers) / sizeof(f->buffers[0]));
        f->buffers[f->n_buffers++] = (struct ring_buffer){guest, n_bytes, writable};
}

/* @n_bytes from @guest on in @n buffers, of nearly equal size. */
static void put_parts(struct disk_flight *f, uint64_t guest, uint32_t n_bytes, unsigned n,
                      bool writable)
{
        uint32_t at = 0;

        for (unsigned i = 0; i < n; i++) {
                uint32_t end = (uint32_t)((uint64_t)n_bytes * (i + 1) / n);
                put(f, guest + at, end - at, writable);
                at = end;
        }
}

static bool is_read(const struct disk_op *op)
{
        return op->type == VIRTIO_BLK_T_IN || op->type == VIRTIO_BLK_T_GET_ID;
}

static void place(struct disk *d, const struct disk_op *op, struct disk_flight *f)
{
        const struct disk_shape *s = &op->shape;
        uint64_t before = s->join_header ? HEADER_BYTES : 0, after = s->join_status ? 1 : 0;
        uint64_t room = before + op->n_bytes + after;

        if (s->across_border)
                f->data = guest_border(d->memory) - op->n_bytes / 2;
        else
                f->data = guest_take(d->memory, 0, room + s->misalign + BLOCK, BLOCK) + s->misalign;
        f->header = s->join_header ? f->data : guest_take(d->memory, 0, HEADER_BYTES, 16);
        f->data += before;
        f->status = s->join_status ? f->data + op->n_bytes : guest_take(d->memory, 0, 1, 1);
        f->table = 0;
        if (s->indirect)
                f->table = guest_take(d->memory, 0, TABLE_BYTES, 16);
}

int disk_add(struct disk *d, unsigned queue, struct disk_op *op, struct disk_flight *flight,
             struct error *err)
{
        const struct disk_shape *s = &op->shape;
        struct virtio_blk_outhdr header = {.type = op->type, .sector = op->sector};
        const uint8_t none = DISK_STATUS_NONE;
        unsigned segments = s->segments ? s->segments : 1;

        assert(segments <= DISK_SEGMENTS_MAX);
        flight->op = op;
        flight->n_buffers = 0;
        place(d, op, flight);
        guest_write(d->memory, flight->header, &header, sizeof(header));
        guest_write(d->memory, flight->status, &none, 1);
        if (is_read(op))
                guest_fill(d->memory, flight->data, 0xee, op->n_bytes);
        else if (op->n_bytes > 0)
                guest_write(d->memory, flight->data, op->data, op->n_bytes);
        if (s->join_header)
                put(flight, flight->header, HEADER_BYTES + op->n_bytes, false);
        else
                put_parts(flight, flight->header, HEADER_BYTES,
                          s->header_parts ? s->header_parts : 1, false);
        if (op->n_bytes > 0 && !s->join_header && !s->join_status)
                put_parts(flight, flight->data, op->n_bytes, segments, is_read(op));
        if (s->join_status)
                put(flight, flight->data, op->n_bytes + 1, true);
        else
                put(flight, flight->status, 1, true);
        if (!ring_add(&d->rings[queue], flight->buffers, flight->n_buffers, flight->table, flight))
                return error_set(err, -EAGAIN, "the ring has no room for %u descriptors",
                                 flight->n_buffers);
        return 0;
}

void disk_finish(struct disk *d, struct disk_flight *flight, uint32_t n_written)
{
        struct disk_op *op = flight->op;

        guest_read(d->memory, flight->status, &op->status, 1);
        op->n_written = n_written;
        if (is_read(op) && op->data)
                guest_read(d->memory, flight->data, op->data, op->n_bytes);
}

int disk_do(struct disk *d, unsigned queue, struct disk_op *op, struct error *err)
{
        struct ring *ring = &d->rings[queue];
        uint64_t mark = disk_mark(d);
        struct disk_flight flight;
        uint32_t n_written;
        void *cookie;

        assert(ring->n_in_flight == 0);
        int r = disk_add(d, queue, op, &flight, err);
        if (r == 0) {
                ring_publish(ring);
                r = ring_wait(ring, ANSWER_MS, &cookie, &n_written, err);
        }
        if (r > 0) {
                assert(cookie == &flight);
                disk_finish(d, &flight, n_written);
                r = 0;
        }
        disk_release(d, mark);
        return r;
}
