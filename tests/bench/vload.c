/* vload.c - see vload.h. A lane is a queue with its requests, which keep their places in guest
 * memory for the whole run: what one costs is ring work alone. */
#include "tests/bench/vload.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/bench/measure.h"
#include "tests/bench/stamp.h"
#include "tests/vhost/disk.h"

#define POLL_WAIT_MS 60000
#define BLOCK        4096u
#define SEGMENTS_MAX 64u

enum kind { KIND_READ, KIND_WRITE, KIND_ZERO, KIND_DISCARD, KIND_FLUSH };

struct slot {
        struct lane *lane;
        enum kind kind;
        uint64_t offset;
        uint64_t sent_ns, flush_ticket;
        /* in guest memory, and where that is mapped here */
        uint64_t header, data, range, status, table;
        struct virtio_blk_outhdr *header_here;
        struct virtio_blk_discard_write_zeroes *range_here;
        uint8_t *data_here, *status_here;
};

struct lane {
        struct vload *load;
        struct ring *ring;
        struct slot slots[VLOAD_DEPTH_MAX];
        struct slot *free[VLOAD_DEPTH_MAX];
        unsigned n_free;
        bool has_held; /* an operation that could not be begun yet */
        enum kind held_kind;
        uint64_t held_block;
        unsigned writes_since_flush, writes_in_flight;
        bool flush_in_flight;
};

struct vload {
        struct vload_options options;
        struct disk *disk;
        struct plan plan;
        struct stamp_book *book;
        struct lane *lanes;
        unsigned in_flight;
        uint64_t start_ns, measure_ns, end_ns, now_ns, last_done_ns;
        uint64_t client_cpu_ns, server_cpu_ns; /* at the start of the measurement */
        bool measuring, measured, stopping;
        bool settling; /* after a crash: contents are looked at, see settle() */
        struct vload_result *result;
        struct error *err;
};

/* ---- measuring ---- */

static void end_measuring(struct vload *l, uint64_t at_ns)
{
        l->measuring = false;
        l->measured = true;
        l->result->load.elapsed_ns = at_ns - l->measure_ns;
        l->result->load.client_cpu_ns = measure_own_cpu_ns() - l->client_cpu_ns;
        l->result->load.server_cpu_ns =
            measure_cpu_ns(l->options.load.server_pid) - l->server_cpu_ns;
}

static void tell_time(struct vload *l)
{
        l->now_ns = measure_clock_ns();
        if (!l->measuring && !l->measured && l->now_ns >= l->start_ns + l->options.load.warmup_ns) {
                l->measuring = true;
                l->measure_ns = l->now_ns;
                l->client_cpu_ns = measure_own_cpu_ns();
                l->server_cpu_ns = measure_cpu_ns(l->options.load.server_pid);
        }
        if (l->options.load.run_ns && l->now_ns >= l->end_ns) {
                l->stopping = true;
                if (l->measuring)
                        end_measuring(l, l->now_ns);
        }
}

static void count(struct vload *l, const struct slot *s)
{
        struct load_result *r = &l->result->load;
        uint64_t *const by_kind[] = {&r->reads, &r->writes, &r->zeroes, &r->discards, &r->flushes};
        uint64_t duration_ns = l->now_ns - s->sent_ns;

        if (s->kind == KIND_FLUSH)
                r->all_flushes++;
        if (!l->measuring || l->settling)
                return;
        l->last_done_ns = l->now_ns;
        ++*by_kind[s->kind];
        if (s->kind == KIND_FLUSH) {
                latency_add(&r->flush_latency, duration_ns);
                return;
        }
        r->bytes += l->options.load.block_bytes;
        latency_add(&r->latency, duration_ns);
}

/* ---- requests ---- */

static unsigned put_data(const struct vload *l, const struct slot *s, struct ring_buffer *buffers)
{
        uint32_t n_bytes = l->options.load.block_bytes, each = n_bytes / l->options.segments;
        unsigned n = l->options.segments;

        if (s->kind == KIND_FLUSH)
                return 0;
        if (s->kind == KIND_ZERO || s->kind == KIND_DISCARD) {
                buffers[0] = (struct ring_buffer){s->range, sizeof(*s->range_here), false};
                return 1;
        }
        for (unsigned i = 0; i < n; i++)
                buffers[i] = (struct ring_buffer){s->data + (uint64_t)i * each,
                                                  i + 1 < n ? each : n_bytes - i * each,
                                                  s->kind == KIND_READ};
        return n;
}

static void show(struct slot *s)
{
        static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
                                         VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD,
                                         VIRTIO_BLK_T_FLUSH};
        struct vload *l = s->lane->load;
        struct ring_buffer buffers[SEGMENTS_MAX + 2];

        *s->header_here = (struct virtio_blk_outhdr){.type = types[s->kind]};
        if (s->kind == KIND_READ || s->kind == KIND_WRITE)
                s->header_here->sector = s->offset / DISK_SECTOR;
        *s->range_here = (struct virtio_blk_discard_write_zeroes){
            .sector = s->offset / DISK_SECTOR,
            .num_sectors = l->options.load.block_bytes / DISK_SECTOR};
        *s->status_here = DISK_STATUS_NONE;
        buffers[0] = (struct ring_buffer){s->header, sizeof(*s->header_here), false};
        unsigned n = 1 + put_data(l, s, buffers + 1);
        buffers[n++] = (struct ring_buffer){s->status, 1, true};
        bool has_room =
            ring_add(s->lane->ring, buffers, n, disk_has(l->disk, VF_INDIRECT) ? s->table : 0, s);
        assert(has_room); /* as the ring was made for the depth */
        l->in_flight++;
}

static struct slot *begin(struct lane *lane, enum kind kind, uint64_t offset)
{
        struct vload *l = lane->load;
        struct slot *s = lane->free[--lane->n_free];

        s->kind = kind;
        s->offset = offset;
        s->sent_ns = l->now_ns;
        return s;
}

static void send_flush(struct lane *lane)
{
        struct slot *s = begin(lane, KIND_FLUSH, 0);

        if (lane->load->book)
                s->flush_ticket = stamp_flush_ticket(lane->load->book);
        lane->flush_in_flight = true;
        lane->writes_since_flush = 0;
        show(s);
}

static void send_transfer(struct lane *lane, uint64_t block, enum kind kind)
{
        struct vload *l = lane->load;
        uint32_t n_bytes = l->options.load.block_bytes;
        struct slot *s = begin(lane, kind, l->options.load.range_offset + block * n_bytes);

        if (l->book && kind == KIND_READ)
                stamp_begin_read(l->book, s->offset, n_bytes);
        else if (l->book && kind == KIND_WRITE)
                stamp_begin_write(l->book, s->offset, n_bytes, s->data_here);
        else if (l->book)
                stamp_begin_zero(l->book, s->offset, n_bytes);
        if (kind != KIND_READ) {
                lane->writes_in_flight++;
                lane->writes_since_flush++;
        }
        show(s);
}

/* What comes next in this lane, which may have been held back before. False at the end. */
static bool next_operation(struct lane *lane)
{
        struct vload *l = lane->load;
        bool is_read;

        if (lane->has_held)
                return true;
        if (!plan_next(&l->plan, &lane->held_block, &is_read)) {
                l->result->load.plan_ended = true;
                return false;
        }
        lane->held_kind = is_read ? KIND_READ : KIND_WRITE;
        if (!is_read && l->options.zero_percent + l->options.discard_percent > 0) {
                unsigned draw = (unsigned)(plan_random(&l->plan) % 100);
                if (draw < l->options.zero_percent)
                        lane->held_kind = KIND_ZERO;
                else if (draw < l->options.zero_percent + l->options.discard_percent)
                        lane->held_kind = KIND_DISCARD;
        }
        lane->has_held = true;
        return true;
}

static void fill(struct lane *lane)
{
        struct vload *l = lane->load;
        const struct vload_options *o = &l->options;

        while (!l->stopping && lane->n_free > 0) {
                bool flush_due =
                    o->load.flush_every && lane->writes_since_flush >= o->load.flush_every;
                if (o->load.only_flushes || (flush_due && lane->writes_in_flight == 0)) {
                        send_flush(lane);
                        continue;
                }
                if (!next_operation(lane))
                        break;
                if (lane->held_kind != KIND_READ &&
                    (flush_due || (o->load.flush_every && lane->flush_in_flight)))
                        break;
                if (l->book &&
                    stamp_is_busy(l->book,
                                  o->load.range_offset + lane->held_block * o->load.block_bytes,
                                  o->load.block_bytes))
                        break;
                lane->has_held = false;
                send_transfer(lane, lane->held_block, lane->held_kind);
        }
        ring_publish(lane->ring);
}

static int finish(struct slot *s)
{
        struct lane *lane = s->lane;
        struct vload *l = lane->load;
        uint32_t n_bytes = l->options.load.block_bytes;
        int r = 0;

        l->in_flight--;
        lane->free[lane->n_free++] = s;
        if (*s->status_here != VIRTIO_BLK_S_OK)
                return error_set(l->err, -EIO,
                                 "the device answers a request of type %u at offset %llu with "
                                 "status %u",
                                 s->header_here->type, (unsigned long long)s->offset,
                                 *s->status_here);
        count(l, s);
        if (s->kind == KIND_FLUSH)
                lane->flush_in_flight = false;
        else if (s->kind != KIND_READ)
                lane->writes_in_flight--;
        if (!l->book)
                return 0;
        if (s->kind == KIND_FLUSH)
                stamp_flushed(l->book, s->flush_ticket);
        else if (s->kind == KIND_READ) {
                l->result->load.checked_bytes += n_bytes;
                r = stamp_end_read(l->book, s->offset, n_bytes, s->data_here,
                                   l->settling ? STAMP_SINCE_CRASH : load_since(&l->options.load),
                                   l->err);
        } else {
                r = stamp_end_write(l->book, s->offset, n_bytes, l->options.write_through);
                if (r < 0)
                        error_set(l->err, r, "out of memory for the stamps");
        }
        return r;
}

/* ---- the turn ---- */

/* All that has been used: their number. */
static int take(struct vload *l)
{
        int n = 0, r = 0;
        uint32_t n_bytes;
        void *cookie;

        for (unsigned i = 0; r >= 0 && i < l->options.queues; i++)
                while (r >= 0 && (r = ring_take(l->lanes[i].ring, &cookie, &n_bytes, l->err)) > 0) {
                        if (n++ == 0)
                                tell_time(l);
                        r = finish(cookie);
                }
        return r < 0 ? r : n;
}

static int turn(struct vload *l);

static int drain(struct vload *l)
{
        bool was_stopping = l->stopping;
        int r = 0;

        l->stopping = true;
        while (r == 0 && l->in_flight > 0)
                r = turn(l);
        l->stopping = was_stopping;
        return r;
}

static int flush_now(struct vload *l)
{
        send_flush(&l->lanes[0]);
        return drain(l);
}

/* The server was killed, and what was not flushed may be gone: read everything once, after what it
 * had begun, and take that for the content. A server lost meanwhile makes no difference: what was
 * read was there when it began, so it is durable. */
static int settle(struct vload *l)
{
        uint64_t n_blocks = l->options.load.range_bytes / l->options.load.block_bytes;

        l->settling = true;
        int r = drain(l);
        if (r == 0 && disk_has(l->disk, VF_BLK_FLUSH))
                r = flush_now(l);
        for (uint64_t block = 0; r == 0 && l->book && block < n_blocks; block++) {
                send_transfer(&l->lanes[0], block, KIND_READ);
                if (l->lanes[0].n_free == 0 || block + 1 == n_blocks)
                        r = drain(l);
        }
        l->settling = false;
        return r;
}

static int reconnect(struct vload *l)
{
        if (!l->options.reconnect)
                return error_set(l->err, -ECONNRESET,
                                 "the server closed the connection with %u requests unanswered",
                                 l->in_flight);
        l->result->reconnects++;
        int r = disk_reconnect(l->disk, POLL_WAIT_MS, l->err);
        return r < 0 || l->settling || !l->options.lossy ? r : settle(l);
}

/* Show, then take what has come. 1: there is nothing more to show. */
static int turn(struct vload *l)
{
        bool is_lost = false;
        int n;

        for (unsigned i = 0; i < l->options.queues; i++)
                fill(&l->lanes[i]);
        if (l->in_flight == 0)
                return 1;
        while ((n = take(l)) == 0) {
                int r = disk_wait(l->disk, POLL_WAIT_MS, &is_lost, l->err);
                if (r == 0 && is_lost)
                        return reconnect(l);
                if (r < 0)
                        return r;
        }
        return n < 0 ? n : 0;
}

static int drive(struct vload *l)
{
        int r;

        l->start_ns = measure_clock_ns();
        l->end_ns = l->start_ns + l->options.load.warmup_ns + l->options.load.run_ns;
        tell_time(l);
        /* All may be taken at once: the end is when there is nothing to show. */
        do
                r = turn(l);
        while (r == 0);
        if (r < 0)
                return r;
        if (l->measuring)
                end_measuring(l, l->last_done_ns ? l->last_done_ns : l->now_ns);
        return l->options.load.end_flush ? flush_now(l) : 0;
}

/* ---- start ---- */

static int check_device(const struct vload *l, struct error *err)
{
        const struct vload_options *o = &l->options;
        bool writes = o->load.read_percent < 100 && !o->load.only_flushes;

        if (writes && disk_has(l->disk, VF_BLK_RO))
                return error_set(err, -EROFS, "the device is read-only");
        if ((o->load.flush_every || o->load.end_flush || o->load.only_flushes) &&
            !disk_has(l->disk, VF_BLK_FLUSH))
                return error_set(err, -ENOTSUP, "the device offers no flush");
        if ((o->zero_percent && !disk_has(l->disk, VF_BLK_WRITE_ZEROES)) ||
            (o->discard_percent && !disk_has(l->disk, VF_BLK_DISCARD)))
                return error_set(err, -ENOTSUP, "the device does not discard and write zeroes");
        if (o->reconnect && !(l->disk->front->protocol & VP_INFLIGHT_SHMFD))
                return error_set(err, -ENOTSUP, "the device keeps no in-flight region");
        return 0;
}

static void make_slot(struct lane *lane, struct slot *s)
{
        struct vload *l = lane->load;
        struct guest *m = l->disk->memory;

        s->lane = lane;
        s->data = guest_take(m, 0, l->options.load.block_bytes, BLOCK);
        s->header = guest_take(m, 0, sizeof(*s->header_here), 16);
        s->range = guest_take(m, 0, sizeof(*s->range_here), 16);
        s->table = guest_take(m, 0, (SEGMENTS_MAX + 2) * sizeof(struct vring_desc), 16);
        s->status = guest_take(m, 0, 1, 64);
        s->header_here = guest_at(m, s->header);
        s->range_here = guest_at(m, s->range);
        s->data_here = guest_at(m, s->data);
        s->status_here = guest_at(m, s->status);
        /* Contents that nobody checks: anything that does not compress. */
        for (uint32_t i = 0; i + 8 <= l->options.load.block_bytes; i += 8) {
                uint64_t word = plan_random(&l->plan);
                memcpy(s->data_here + i, &word, sizeof(word));
        }
        lane->free[lane->n_free++] = s;
}

static int open_disk(struct vload *l, struct error *err)
{
        const struct vload_options *o = &l->options;
        uint32_t entries = o->load.depth * (o->no_indirect ? o->segments + 2 : 1);
        uint64_t slot_bytes = o->load.block_bytes + 2 * BLOCK;
        uint16_t size = 1;

        while (size < entries)
                size = (uint16_t)(size * 2);
        struct disk_options disk = {
            .path = o->path,
            .packed = o->packed,
            .without_inflight = o->no_inflight,
            .without = (o->no_indirect ? VF_INDIRECT : 0) | (o->no_event_index ? VF_EVENT_IDX : 0) |
                       (o->write_through ? VF_BLK_FLUSH | VF_BLK_CONFIG_WCE : 0),
            .without_protocol = VP_BACKEND_REQ,
            .n_queues = o->queues,
            .queue_size = size < 64 ? 64 : size,
            .memory_bytes =
                2 * (o->queues * (o->load.depth * slot_bytes + 32 * BLOCK) + 64 * BLOCK)};
        disk.memory_bytes = (disk.memory_bytes / (4 * BLOCK) + 1) * (4 * BLOCK);
        return disk_open(&disk, &l->disk, err);
}

static int start(struct vload *l, struct error *err)
{
        const struct vload_options *o = &l->options;

        assert(o->queues > 0 && o->queues <= VLOAD_QUEUES_MAX && o->segments > 0);
        assert(o->load.depth > 0 && o->load.depth <= VLOAD_DEPTH_MAX &&
               o->segments <= SEGMENTS_MAX);
        int r = open_disk(l, err);
        if (r == 0)
                r = check_device(l, err);
        if (r == 0)
                r = load_plan_range(&l->options.load, disk_size(l->disk), &l->plan, err);
        if (r == 0 && o->load.verify)
                r = stamp_open(o->load.stamps_path, o->load.range_offset, o->load.range_bytes,
                               o->load.block_bytes < STAMP_UNIT_MAX ? o->load.block_bytes
                                                                    : STAMP_UNIT_MAX,
                               o->load.seed, &l->book, err);
        if (r < 0)
                return r;
        l->lanes = calloc(o->queues, sizeof(*l->lanes));
        if (!l->lanes)
                return error_set(err, -ENOMEM, "out of memory for %u queues", o->queues);
        for (unsigned i = 0; i < o->queues; i++) {
                l->lanes[i].load = l;
                l->lanes[i].ring = &l->disk->rings[i];
                for (unsigned s = 0; s < o->load.depth; s++)
                        make_slot(&l->lanes[i], &l->lanes[i].slots[s]);
        }
        return 0;
}

int vload_run(const struct vload_options *options, struct vload_result *ret_result,
              struct error *err)
{
        struct vload l = {.options = *options, .result = ret_result, .err = err};

        memset(ret_result, 0, sizeof(*ret_result));
        int r = start(&l, err);
        if (r == 0)
                r = drive(&l);
        for (unsigned i = 0; l.disk && i < l.disk->n_rings; i++) {
                ret_result->kicks += l.disk->rings[i].n_kicks;
                ret_result->calls += l.disk->rings[i].n_calls;
        }
        disk_close(l.disk);
        free(l.lanes);
        stamp_close(l.book);
        return r;
}
