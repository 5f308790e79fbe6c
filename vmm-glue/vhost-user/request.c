/* request.c - what a request of a block device is, and its way to the engine: VIRTIO 1.2, section
 * 5.2.6.
 *
 * Header and ranges are copied out of guest memory once; all checks look at the copy. Reads go from
 * the disk straight into guest memory where its pieces suit the engine. What is written is copied
 * once into a buffer, as the guest may change it under way, and its checksum is of the copy. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "vmm-glue/vhost-user/internal.h"

#define SECTOR VOLUME_SECTOR

static struct vhost_client *client_of(const struct vhost_req *req)
{
        return req->queue->client;
}

static struct volume *volume_of(const struct vhost_req *req)
{
        return client_of(req)->volume.volume;
}

/* ---- bytes in flight ---- */

static void account(struct vhost_req *req, uint64_t cost)
{
        struct vhost_device *device = client_of(req)->device;

        req->cost = cost;
        device->bytes_in_flight += cost;
        device->server->bytes_in_flight += cost;
}

static void unaccount(struct vhost_req *req)
{
        struct vhost_device *device = client_of(req)->device;
        struct vhost_server *server = device->server;

        device->bytes_in_flight -= req->cost;
        server->bytes_in_flight -= req->cost;
        if (!list_empty(&server->starved))
                loop_post(server->loop, &server->starved_task);
}

/* ---- the end ---- */

static void drop_buffer(struct vhost_req *req)
{
        if (req->buffer)
                buffers_put(&client_of(req)->device->server->buffers, req->buffer, req->class);
        req->buffer = NULL;
}

static void finish(struct vhost_req *req, uint8_t result)
{
        struct vhost_client *client = client_of(req);

        drop_buffer(req);
        if (req->status) {
                __atomic_store_n(req->status, result, __ATOMIC_RELAXED);
                dirty_host(client, req->memory, req->status, 1);
        }
        /* The length counts the status, and the data where they are there. */
        if (!req->status)
                req->used_bytes = 0;
        else if (result == VIRTIO_BLK_S_OK)
                req->used_bytes = (uint32_t)req->in_bytes + 1;
        else
                req->used_bytes = 1;
        unaccount(req);
        queue_done(req);
}

static uint8_t status_of(int result)
{
        if (result == 0)
                return VIRTIO_BLK_S_OK;
        return result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* The engine is done with it. */
static void ended(struct vhost_req *req, int result)
{
        if (result == -ECANCELED && client_of(req)->leaves) {
                drop_buffer(req);
                unaccount(req);
                queue_left(req);
        } else {
                finish(req, status_of(result));
        }
}

/* A guest with an in-flight region outlives the server. What it was answered must be there when it
 * goes on with the next one, which answers its flush without having heard of the write. */
static unsigned write_flags(const struct vhost_client *client)
{
        if (config_writes_through(client))
                return VOLUME_FUA;
        return client->inflight.base ? VOLUME_LOGGED : 0;
}

/* ---- reads and writes ---- */

static void log_pieces(struct vhost_req *req, uint64_t length)
{
        if (!dirty_logging(client_of(req)))
                return;
        for (const struct iovec *piece = req->data; length > 0; piece++) {
                uint64_t here = piece->iov_len < length ? piece->iov_len : length;

                dirty_host(client_of(req), req->memory, piece->iov_base, here);
                length -= here;
        }
}

static void skip_pieces(struct vhost_req *req, uint64_t length)
{
        while (length > 0) {
                uint64_t here = req->data->iov_len < length ? req->data->iov_len : length;

                req->data->iov_base = (uint8_t *)req->data->iov_base + here;
                req->data->iov_len -= here;
                length -= here;
                if (req->data->iov_len == 0) {
                        req->data++;
                        req->n_data--;
                }
        }
}

/* The first @length bytes of the pieces as an iov for the engine: the last is cut short, and put
 * right by uncut(). */
static void cut(struct vhost_req *req, uint64_t length)
{
        unsigned n = 0;

        while (length > req->data[n].iov_len)
                length -= req->data[n++].iov_len;
        req->cut_bytes = req->data[n].iov_len - length;
        req->data[n].iov_len = length;
        req->io.iov = req->data;
        req->io.n_iov = n + 1;
}

static void uncut(struct vhost_req *req)
{
        req->data[req->io.n_iov - 1].iov_len += req->cut_bytes;
}

/* All but the last slice end at a block, so that those that follow begin at one. */
static uint64_t slice_length(const struct vhost_req *req)
{
        return req->left <= SLICE_MAX ? req->left : SLICE_MAX - req->offset % POOL_BLOCK;
}

static void submit_slice(struct vhost_req *req)
{
        req->slice_bytes = slice_length(req);
        req->io.offset = req->offset;
        req->io.length = req->slice_bytes;
        if (!req->buffer) {
                cut(req, req->slice_bytes);
        } else {
                req->buffer_iov = (struct iovec){req->buffer, req->slice_bytes};
                req->io.iov = &req->buffer_iov;
                req->io.n_iov = 1;
                if (req->io.op == VOLUME_WRITE)
                        iov_gather(req->data, req->buffer, req->slice_bytes);
        }
        volume_submit(volume_of(req), &req->io);
}

/* Between the parts of what may be as large as the volume: nobody waits for the rest, or the next
 * server does all of it again. */
static bool is_given_up(const struct vhost_req *req)
{
        return client_of(req)->dead || client_of(req)->leaves;
}

static void slice_done(struct volume_request *io, int result)
{
        struct vhost_req *req = container_of(io, struct vhost_req, io);
        bool read = io->op == VOLUME_READ;

        if (!req->buffer)
                uncut(req);
        else if (read && result == 0)
                iov_scatter(req->data, req->buffer, req->slice_bytes);
        /* A read that failed may have written, too. */
        if (read)
                log_pieces(req, req->slice_bytes);
        if (result < 0) {
                ended(req, result);
                return;
        }
        skip_pieces(req, req->slice_bytes);
        req->offset += req->slice_bytes;
        req->left -= req->slice_bytes;
        if (req->left == 0)
                finish(req, VIRTIO_BLK_S_OK);
        else if (is_given_up(req))
                ended(req, -ECANCELED);
        else
                submit_slice(req);
}

/* Whether the engine takes the guest's own memory for whole blocks: without a copy. */
static bool pieces_suit(const struct vhost_req *req)
{
        for (unsigned i = 0; i < req->n_data; i++)
                if (((uintptr_t)req->data[i].iov_base & (MEMBER_BUFFER_ALIGN - 1)) ||
                    (req->data[i].iov_len & (POOL_BLOCK - 1)))
                        return false;
        return true;
}

/* Parts of blocks take the engine's slower way, which has a buffer of its own: it works on the
 * guest's pieces. Whole blocks are written from our buffer, and read into the guest's memory, or
 * into our buffer where it does not suit. */
static bool choose_way(struct vhost_req *req, uint64_t cost)
{
        bool write = req->io.op == VOLUME_WRITE;
        bool whole = ((req->offset | req->left) & (POOL_BLOCK - 1)) == 0;
        uint64_t length = slice_length(req);

        if (!whole) {
                req->io.flags |= write ? VOLUME_UNSTABLE : 0;
                account(req, cost + length + COROUTINE_BYTES);
                return true;
        }
        if (!write && pieces_suit(req)) {
                account(req, cost + length);
                return true;
        }
        req->class = buffers_class(length);
        account(req, cost + buffers_class_bytes(req->class));
        req->buffer = buffers_get(&client_of(req)->device->server->buffers, req->class);
        return req->buffer != NULL;
}

static bool inside(const struct vhost_req *req, uint64_t sector, uint64_t length)
{
        uint64_t size = volume_size(volume_of(req));

        return sector <= size / SECTOR && length <= size - sector * SECTOR;
}

static void execute_data(struct vhost_req *req, bool write, uint64_t sector, uint64_t cost)
{
        struct vhost_client *client = client_of(req);
        uint64_t length = write ? req->out_bytes : req->in_bytes;

        req->io.op = write ? VOLUME_WRITE : VOLUME_READ;
        req->io.flags = write ? write_flags(client) : 0;
        req->io.done = slice_done;
        if ((write && client->volume.readonly) || length % SECTOR || !inside(req, sector, length)) {
                account(req, cost);
                finish(req, VIRTIO_BLK_S_IOERR);
                return;
        }
        req->offset = sector * SECTOR;
        req->left = length;
        req->data = write ? req->iov : req->iov + req->n_out;
        req->n_data = write ? req->n_out : req->n_in;
        while (req->n_data > 0 && req->data->iov_len == 0) { /* the header's */
                req->data++;
                req->n_data--;
        }
        if (write) {
                client->writes++;
                client->write_bytes += length;
        } else {
                client->reads++;
                client->read_bytes += length;
        }
        if (length == 0) {
                account(req, cost);
                finish(req, VIRTIO_BLK_S_OK);
        } else if (choose_way(req, cost)) {
                submit_slice(req);
        } else {
                finish(req, VIRTIO_BLK_S_IOERR);
        }
}

/* ---- ranges: discard and write zeroes ---- */

static void range_done(struct volume_request *io, int result);

static void submit_range(struct vhost_req *req)
{
        const struct request_range *range = &req->ranges[req->at_range];

        req->io.op = range->op;
        req->io.flags = write_flags(client_of(req));
        req->io.offset = range->offset;
        req->io.length = range->length;
        req->io.iov = NULL;
        req->io.n_iov = 0;
        req->io.done = range_done;
        volume_submit(volume_of(req), &req->io);
}

static void range_done(struct volume_request *io, int result)
{
        struct vhost_req *req = container_of(io, struct vhost_req, io);

        if (result < 0 || ++req->at_range == req->n_ranges)
                ended(req, result);
        else if (is_given_up(req))
                ended(req, -ECANCELED);
        else
                submit_range(req);
}

/* All are checked before the first is begun. */
static uint8_t take_ranges(struct vhost_req *req, bool discard)
{
        struct virtio_blk_discard_write_zeroes copy[RANGES_MAX];
        uint64_t n = req->out_bytes / sizeof(copy[0]);

        if (n == 0 || n > RANGES_MAX || req->out_bytes % sizeof(copy[0]))
                return VIRTIO_BLK_S_IOERR;
        if (!chain_take(req, copy, n * sizeof(copy[0])))
                return VIRTIO_BLK_S_IOERR;
        for (unsigned i = 0; i < n; i++) {
                uint64_t sector = le64toh(copy[i].sector);
                uint32_t sectors = le32toh(copy[i].num_sectors), flags = le32toh(copy[i].flags);
                bool unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

                if ((flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) || (discard && unmap))
                        return VIRTIO_BLK_S_UNSUPP;
                if (sectors > RANGE_SECTORS_MAX || !inside(req, sector, (uint64_t)sectors * SECTOR))
                        return VIRTIO_BLK_S_IOERR;
                req->ranges[i] = (struct request_range){
                    .offset = sector * SECTOR,
                    .length = (uint64_t)sectors * SECTOR,
                    .op = discard || unmap ? VOLUME_DISCARD : VOLUME_ZERO,
                };
        }
        req->n_ranges = (unsigned)n;
        req->at_range = 0;
        return VIRTIO_BLK_S_OK;
}

static void execute_ranges(struct vhost_req *req, bool discard, uint64_t cost)
{
        unsigned feature = discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES;
        uint8_t result = VIRTIO_BLK_S_UNSUPP;

        account(req, cost + COROUTINE_BYTES);
        if (client_has(client_of(req), feature))
                result = client_of(req)->volume.readonly ? VIRTIO_BLK_S_IOERR
                                                         : take_ranges(req, discard);
        /* A feature that was acknowledged cannot be taken back. A discard is a hint, which the
         * volume's owner may have turned off since. */
        if (result == VIRTIO_BLK_S_OK && !(discard && !volume_discards(volume_of(req))))
                submit_range(req);
        else
                finish(req, result);
}

/* ---- flush, identity ---- */

static void flush_done(struct volume_request *io, int result)
{
        ended(container_of(io, struct vhost_req, io), result);
}

static void execute_flush(struct vhost_req *req, uint64_t cost)
{
        struct vhost_client *client = client_of(req);

        account(req, cost);
        if (!client_has(client, VIRTIO_BLK_F_FLUSH) &&
            !client_has(client, VIRTIO_BLK_F_CONFIG_WCE)) {
                finish(req, VIRTIO_BLK_S_UNSUPP);
                return;
        }
        client->flushes++;
        req->io.op = VOLUME_FLUSH;
        req->io.flags = 0;
        req->io.offset = req->io.length = 0;
        req->io.iov = NULL;
        req->io.n_iov = 0;
        req->io.done = flush_done;
        volume_submit(volume_of(req), &req->io);
}

static void execute_get_id(struct vhost_req *req, uint64_t cost)
{
        char serial[VHOST_SERIAL_MAX] = "";
        uint64_t n = req->in_bytes < sizeof(serial) ? req->in_bytes : sizeof(serial);

        account(req, cost);
        memcpy(serial, client_of(req)->volume.serial,
               strnlen(client_of(req)->volume.serial, sizeof(serial)));
        req->data = req->iov + req->n_out;
        req->n_data = req->n_in;
        iov_scatter(req->data, serial, n);
        log_pieces(req, n);
        req->in_bytes = n;
        finish(req, VIRTIO_BLK_S_OK);
}

/* ---- what it is ---- */

/* The last byte that may be written is the status (section 5.2.6); the rest is data. */
static void split_status(struct vhost_req *req)
{
        struct iovec *last = &req->iov[req->n_out + req->n_in - 1];

        assert(req->n_in > 0 && req->in_bytes > 0);
        req->in_bytes--;
        if (--last->iov_len == 0)
                req->n_in--;
}

void vhost_request_execute(struct vhost_req *req)
{
        uint64_t cost = POOL_BLOCK;
        struct virtio_blk_outhdr header;

        req->buffer = NULL;
        if (req->iov != req->iov_inline)
                cost += SEGMENTS_MAX * sizeof(struct iovec);
        if (req->malformed || !req->status || !chain_take(req, &header, sizeof(header))) {
                account(req, cost);
                finish(req, VIRTIO_BLK_S_IOERR);
                return;
        }
        split_status(req);
        switch (le32toh(header.type)) {
        case VIRTIO_BLK_T_IN:
                execute_data(req, false, le64toh(header.sector), cost);
                break;
        case VIRTIO_BLK_T_OUT:
                execute_data(req, true, le64toh(header.sector), cost);
                break;
        case VIRTIO_BLK_T_FLUSH:
                execute_flush(req, cost);
                break;
        case VIRTIO_BLK_T_GET_ID:
                execute_get_id(req, cost);
                break;
        case VIRTIO_BLK_T_DISCARD:
                execute_ranges(req, true, cost);
                break;
        case VIRTIO_BLK_T_WRITE_ZEROES:
                execute_ranges(req, false, cost);
                break;
        default:
                account(req, cost);
                finish(req, VIRTIO_BLK_S_UNSUPP);
        }
}
