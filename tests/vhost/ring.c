/* ring.c - what split and packed rings share, and how a device learns of them; see ring.h. */
#include "tests/vhost/ring.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/vhost/ring_internal.h"

struct vring_desc *ring_table(struct ring *r)
{
        return guest_at(r->memory, r->descriptors);
}

struct vring_avail *ring_available(struct ring *r)
{
        return guest_at(r->memory, r->driver);
}

struct vring_used *ring_used(struct ring *r)
{
        return guest_at(r->memory, r->device);
}

struct vring_packed_desc *ring_packed(struct ring *r)
{
        return guest_at(r->memory, r->descriptors);
}

int ring_new(struct guest *m, unsigned region, uint16_t size, bool packed, bool event_index,
             struct ring *ret_ring, struct error *err)
{
        struct ring *r = ret_ring;

        assert(size > 0 && size <= 32768);
        *r = (struct ring){.memory = m, .packed = packed, .event_index = event_index, .size = size};
        r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r->error = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r->entries = calloc(size, sizeof(*r->entries));
        r->free_list = calloc(size, sizeof(*r->free_list));
        if (r->kick < 0 || r->call < 0 || r->error < 0 || !r->entries || !r->free_list) {
                ring_free(r);
                return error_set(err, -ENOMEM, "no room for a ring of %u", size);
        }
        /* 2.7 and 2.8: sizes and alignments. */
        r->descriptors_bytes = size * (uint32_t)sizeof(struct vring_desc);
        r->driver_bytes = packed ? 4 : 6 + 2 * (uint32_t)size;
        r->device_bytes = packed ? 4 : 6 + 8 * (uint32_t)size;
        r->descriptors = guest_take(m, region, r->descriptors_bytes, 16);
        r->driver = guest_take(m, region, r->driver_bytes, packed ? 4 : 2);
        r->device = guest_take(m, region, r->device_bytes, 4);
        ring_reset(r);
        return 0;
}

void ring_free(struct ring *r)
{
        if (r->entries) {
                close(r->kick);
                close(r->call);
                close(r->error);
        }
        free(r->entries);
        free(r->free_list);
        r->entries = NULL;
        r->free_list = NULL;
}

void ring_reset(struct ring *r)
{
        guest_fill(r->memory, r->descriptors, 0, r->descriptors_bytes);
        guest_fill(r->memory, r->driver, 0, r->driver_bytes);
        guest_fill(r->memory, r->device, 0, r->device_bytes);
        memset(r->entries, 0, r->size * sizeof(*r->entries));
        for (uint16_t i = 0; i < r->size; i++)
                r->free_list[i] = (uint16_t)(r->size - 1 - i);
        r->n_free = r->n_room = r->size;
        r->n_in_flight = r->next = r->published = r->last_used = r->batch_n = 0;
        r->next_wrap = r->used_wrap = true;
        ring_disarm(r);
}

/* ---- telling the device ---- */

uint32_t ring_base(const struct ring *r)
{
        if (!r->packed)
                return ring_used((struct ring *)(uintptr_t)r)->idx;
        /* Twice 15 bits of place and the wrap counter: available, then used. */
        uint32_t half = r->last_used | (uint32_t)r->used_wrap << 15;
        return half | half << 16;
}

static int tell_state(struct front *f, uint32_t request, unsigned index, uint32_t num,
                      struct error *err)
{
        struct vu_vring_state state = {index, num};

        return front_tell(f, request, &state, sizeof(state), NULL, 0, err);
}

static int tell_fd(struct front *f, uint32_t request, unsigned index, int fd, struct error *err)
{
        uint64_t value = index;

        return front_tell(f, request, &value, sizeof(value), &fd, 1, err);
}

int ring_set_address(struct ring *r, struct front *f, unsigned index, bool log, struct error *err)
{
        struct vu_vring_addr address = {.index = index,
                                        .flags = log ? VU_VRING_LOG : 0,
                                        .descriptor = guest_user(r->memory, r->descriptors),
                                        .used = guest_user(r->memory, r->device),
                                        .available = guest_user(r->memory, r->driver),
                                        .log = r->device};

        return front_tell(f, VU_SET_VRING_ADDR, &address, sizeof(address), NULL, 0, err);
}

int ring_start(struct ring *r, struct front *f, unsigned index, bool log, struct error *err)
{
        int result = tell_state(f, VU_SET_VRING_NUM, index, r->size, err);

        if (result == 0)
                result = tell_state(f, VU_SET_VRING_BASE, index, ring_base(r), err);
        if (result == 0)
                result = ring_set_address(r, f, index, log, err);
        if (result == 0)
                result = tell_fd(f, VU_SET_VRING_ERR, index, r->error, err);
        if (result == 0)
                result = tell_fd(f, VU_SET_VRING_KICK, index, r->kick, err);
        if (result == 0)
                result = tell_fd(f, VU_SET_VRING_CALL, index, r->call, err);
        if (result == 0 && (f->features & VF_PROTOCOL_FEATURES))
                result = tell_state(f, VU_SET_VRING_ENABLE, index, 1, err);
        return result;
}

int ring_stop(struct ring *r, struct front *f, unsigned index, uint32_t *ret_base,
              struct error *err)
{
        struct vu_vring_state state = {.index = index};
        struct front_reply reply;
        int result =
            front_send(f, VU_GET_VRING_BASE, VU_VERSION, &state, sizeof(state), NULL, 0, err);

        if (result == 0)
                result = front_reply(f, VU_GET_VRING_BASE, &reply, err);
        if (result < 0)
                return result;
        if (reply.header.size != sizeof(state) || reply.state.index != index)
                return error_set(err, -EPROTO, "GET_VRING_BASE is answered for ring %u",
                                 reply.state.index);
        *ret_base = reply.state.num;
        return 0;
}

/* ---- use ---- */

void ring_write_entry(struct ring *r, uint64_t table, unsigned i, const struct ring_buffer *buffer,
                      uint16_t flags, uint16_t next)
{
        const struct vring_desc split = {buffer->guest, buffer->n_bytes, flags, next};
        const struct vring_packed_desc packed = {buffer->guest, buffer->n_bytes, 0, flags};

        if (r->packed)
                guest_write(r->memory, table + i * sizeof(packed), &packed, sizeof(packed));
        else
                guest_write(r->memory, table + i * sizeof(split), &split, sizeof(split));
}

static uint32_t write_table(struct ring *r, uint64_t table, const struct ring_buffer *buffers,
                            unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                uint16_t flags = buffers[i].writable ? VRING_DESC_F_WRITE : 0;
                /* 2.8.7: a packed ring's table has its order alone, NEXT means nothing there. */
                if (!r->packed && i + 1 < n)
                        flags |= VRING_DESC_F_NEXT;
                ring_write_entry(r, table, i, &buffers[i], flags, (uint16_t)(i + 1));
        }
        return n * (uint32_t)sizeof(struct vring_desc);
}

bool ring_add(struct ring *r, const struct ring_buffer *buffers, unsigned n, uint64_t table,
              void *cookie)
{
        unsigned n_taken = table ? 1 : n;
        struct ring_buffer indirect;
        uint32_t n_written = 0;

        assert(cookie && n > 0);
        if (n_taken > r->n_room || r->n_free == 0)
                return false;
        for (unsigned i = 0; i < n; i++)
                n_written += buffers[i].writable ? buffers[i].n_bytes : 0;
        if (table)
                indirect = (struct ring_buffer){table, write_table(r, table, buffers, n), false};
        uint16_t id = r->packed
                          ? ring_packed_add(r, table ? &indirect : buffers, n_taken, table != 0)
                          : ring_split_add(r, table ? &indirect : buffers, n_taken, table != 0);
        r->entries[id] = (struct ring_entry){cookie, (uint16_t)n_taken, n_written};
        r->n_room = (uint16_t)(r->n_room - n_taken);
        r->n_in_flight++;
        return true;
}

void ring_kick(struct ring *r)
{
        uint64_t one = 1;

        r->n_kicks++;
        if (write(r->kick, &one, sizeof(one)) != sizeof(one))
                abort(); /* the counter cannot be full */
}

void ring_publish(struct ring *r)
{
        if (r->packed ? ring_packed_publish(r) : ring_split_publish(r))
                ring_kick(r);
}

int ring_take(struct ring *r, void **ret_cookie, uint32_t *ret_n_bytes, struct error *err)
{
        uint32_t id, n_bytes;

        if (!(r->packed ? ring_packed_peek(r, &id, &n_bytes) : ring_split_peek(r, &id, &n_bytes)))
                return 0;
        if (id >= r->size || !r->entries[id].cookie)
                return error_set(err, -EPROTO, "the device used %u, which is not in flight", id);
        struct ring_entry *entry = &r->entries[id];
        if (n_bytes > entry->n_written)
                return error_set(err, -EPROTO,
                                 "the device says it wrote %u bytes into a buffer of %u", n_bytes,
                                 entry->n_written);
        *ret_cookie = entry->cookie;
        *ret_n_bytes = n_bytes;
        if (r->packed)
                ring_packed_take(r, (uint16_t)id, entry->n_taken);
        else
                ring_split_take(r, (uint16_t)id, entry->n_taken);
        r->n_room = (uint16_t)(r->n_room + entry->n_taken);
        r->n_in_flight--;
        entry->cookie = NULL;
        return 1;
}

bool ring_arm(struct ring *r)
{
        uint32_t id, n_bytes;

        if (r->packed)
                ring_packed_arm(r);
        else
                ring_split_arm(r);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        return r->packed ? ring_packed_peek(r, &id, &n_bytes) : ring_split_peek(r, &id, &n_bytes);
}

void ring_disarm(struct ring *r)
{
        if (r->packed)
                ring_packed_disarm(r);
        else
                ring_split_disarm(r);
}

bool ring_wait_call(struct ring *r, int timeout_ms)
{
        struct pollfd poll_fd = {.fd = r->call, .events = POLLIN};
        uint64_t count;

        if (poll(&poll_fd, 1, timeout_ms) <= 0 || read(r->call, &count, sizeof(count)) < 0)
                return false;
        r->n_calls++;
        return true;
}

int ring_wait(struct ring *r, int timeout_ms, void **ret_cookie, uint32_t *ret_n_bytes,
              struct error *err)
{
        for (;;) {
                int result = ring_take(r, ret_cookie, ret_n_bytes, err);
                if (result != 0)
                        return result;
                bool there = ring_arm(r);
                bool called = there || ring_wait_call(r, timeout_ms);
                ring_disarm(r);
                if (!called)
                        return error_set(err, -ETIMEDOUT, "the device uses no buffer");
        }
}
