/* chain.c - from the descriptors of a chain to the pieces of memory of a request.
 *
 * A request that makes no sense is marked and still walked to its end, as its last writable byte is
 * where its status belongs. */
#include <string.h>
#include "vmm-glue/vhost-user/internal.h"

void chain_begin(struct chain *chain, struct vhost_req *req)
{
        chain->req = req;
        chain->n = 0;
        chain->next_guest = 0;
        req->iov = req->iov_inline;
        req->n_out = req->n_in = 0;
        req->out_bytes = req->in_bytes = 0;
        req->status = NULL;
        req->malformed = false;
}

/* Room for one piece more. */
static bool make_room(struct vhost_req *req)
{
        struct queue *queue = req->queue;
        unsigned n = req->n_out + req->n_in;

        if (n >= SEGMENTS_MAX)
                return false;
        if (n == SEGMENTS_INLINE) {
                req->iov = queue->arena + (size_t)(req - queue->requests) * SEGMENTS_MAX;
                memcpy(req->iov, req->iov_inline, sizeof(req->iov_inline));
                queue->arena_touched = true;
        }
        return true;
}

/* @joins: it continues the piece before it in the guest's addresses, which the log is kept by. */
static bool add_piece(struct vhost_req *req, uint8_t *start, uint64_t length, bool writable,
                      bool joins)
{
        unsigned n = req->n_out + req->n_in;
        bool same = joins && (writable ? req->n_in > 0 : req->n_out > 0);

        if (same && (uint8_t *)req->iov[n - 1].iov_base + req->iov[n - 1].iov_len == start) {
                req->iov[n - 1].iov_len += length;
                return true;
        }
        if (!make_room(req))
                return false;
        req->iov[n] = (struct iovec){start, length};
        if (writable)
                req->n_in++;
        else
                req->n_out++;
        return true;
}

void chain_add(struct chain *chain, uint64_t guest, uint32_t length, bool writable)
{
        struct vhost_req *req = chain->req;
        uint64_t left = length;

        chain->n++;
        if (writable)
                req->status = NULL;
        if (length == 0 || (!writable && req->n_in > 0))
                req->malformed = true;
        while (left > 0) {
                uint64_t here = left;
                uint8_t *start = memory_at(req->memory, guest, &here);

                if (!start || (!req->malformed && !add_piece(req, start, here, writable,
                                                             guest == chain->next_guest))) {
                        req->malformed = true;
                        return;
                }
                chain->next_guest = guest + here;
                if (writable && here == left)
                        req->status = start + here - 1;
                guest += here;
                left -= here;
        }
        if (writable)
                req->in_bytes += length;
        else
                req->out_bytes += length;
}

void chain_unending(struct vhost_req *req)
{
        req->malformed = true;
        req->status = NULL;
}

void iov_gather(const struct iovec *iov, void *data, size_t length)
{
        for (uint8_t *to = data; length > 0; iov++) {
                size_t here = iov->iov_len < length ? iov->iov_len : length;

                memcpy(to, iov->iov_base, here);
                to += here;
                length -= here;
        }
        /* What was copied is not looked up again where it came from. */
        atomic_signal_fence(memory_order_seq_cst);
}

void iov_scatter(const struct iovec *iov, const void *data, size_t length)
{
        for (const uint8_t *from = data; length > 0; iov++) {
                size_t here = iov->iov_len < length ? iov->iov_len : length;

                memcpy(iov->iov_base, from, here);
                from += here;
                length -= here;
        }
}

/* The readable pieces stay where they are; those used up are of length 0. */
bool chain_take(struct vhost_req *req, void *data, size_t length)
{
        if (req->out_bytes < length)
                return false;
        iov_gather(req->iov, data, length);
        req->out_bytes -= length;
        for (struct iovec *iov = req->iov; length > 0; iov++) {
                size_t here = iov->iov_len < length ? iov->iov_len : length;

                iov->iov_base = (uint8_t *)iov->iov_base + here;
                iov->iov_len -= here;
                length -= here;
        }
        return true;
}
