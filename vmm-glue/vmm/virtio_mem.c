/* virtio_mem.c - memory that comes and goes while the guest runs: VIRTIO 1.2, section 5.15.
 *
 * The device has a region of guest-physical addresses above RAM, of what memory_max is more than
 * memory. It is a region like others from the beginning, so that whoever processes the guest's queues
 * knows it; but the guest is told nothing of it, other than by this device, and uses those blocks that
 * it has plugged.
 *
 * Blocks that are not plugged are holes in the memfd. A guest that uses them all the same gets memory
 * (VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE tells it not to): never more than memory_max, which is what
 * whoever started it has to reckon with.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/memory_size.h"
#include "vmm-glue/vmm/virtio.h"
#include "vmm-glue/vmm/virtqueue.h"
#include "vmm-glue/vmm/watch.h"

#define BLOCK  MIB(2)   /* what Linux has as well; a huge page */
#define REGION MIB(128) /* Linux only uses whole ones of this size and alignment (x86-64) */

#define REQUESTS_PER_TURN 8u

struct mem {
        struct virtio_device v;
        struct virtqueue requests;
        struct virtqueue_chain chain; /* the one looked at */
        uint64_t gpa, size;           /* multiples of REGION */
        uint64_t room;                /* so much may be plugged: at most size */
        uint8_t *host;
        uint64_t requested, plugged;
        uint8_t map[]; /* a bit a block: plugged */
};

static struct mem *mem_of(struct virtio_device *v)
{
        return container_of(v, struct mem, v);
}

static uint64_t features(struct virtio_device *v)
{
        (void)v;
        return VIRTQUEUE_FEATURES | UINT64_C(1) << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE;
}

struct mem_config {
        le64 block_size;
        le16 node_id;
        uint8_t padding[6];
        le64 addr, region_size, usable_region_size, plugged_size, requested_size;
};
static_assert(sizeof(struct mem_config) == sizeof(struct virtio_mem_config), "section 5.15.4");

static void read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        const struct mem *m = mem_of(v);
        const struct mem_config config = {
            .block_size = le64_make(BLOCK),
            .addr = le64_make(m->gpa),
            .region_size = le64_make(m->size),
            .usable_region_size = le64_make(m->size),
            .plugged_size = le64_make(m->plugged),
            .requested_size = le64_make(m->requested),
        };

        memset(data, 0, size);
        if (offset < sizeof(config))
                memcpy(data, (const uint8_t *)&config + offset,
                       size < sizeof(config) - offset ? size : sizeof(config) - offset);
}

/* ---- blocks ---- */

struct blocks {
        uint64_t first, n;
};

static size_t map_size(const struct mem *m)
{
        return m->size / BLOCK / 8;
}

static bool is_plugged(const struct mem *m, uint64_t block)
{
        return m->map[block / 8] >> (block % 8) & 1;
}

static uint64_t count_plugged(const struct mem *m, struct blocks blocks)
{
        uint64_t n = 0;

        for (uint64_t i = 0; i < blocks.n; i++)
                n += is_plugged(m, blocks.first + i);
        return n;
}

static void mark(struct mem *m, struct blocks blocks, bool plugged)
{
        for (uint64_t i = blocks.first; i < blocks.first + blocks.n; i++) {
                uint8_t bit = (uint8_t)(1u << (i % 8));

                if (plugged)
                        m->map[i / 8] |= bit;
                else
                        m->map[i / 8] &= (uint8_t)~bit;
        }
        if (plugged)
                m->plugged += blocks.n * BLOCK;
        else
                m->plugged -= blocks.n * BLOCK;
}

static void unplug(struct mem *m, struct blocks blocks)
{
        mark(m, blocks, false);
        memory_discard(&m->v.machine->memory, m->host + blocks.first * BLOCK, blocks.n * BLOCK);
}

/* Those, too, that the guest used without having plugged them. */
static void unplug_all(struct mem *m)
{
        memset(m->map, 0, map_size(m));
        m->plugged = 0;
        memory_discard(&m->v.machine->memory, m->host, m->size);
}

/* ---- requests ---- */

struct mem_request {
        le16 type;
        uint8_t padding[6];
        le64 addr;
        le16 nb_blocks;
        uint8_t more_padding[6];
};
static_assert(sizeof(struct mem_request) == sizeof(struct virtio_mem_req), "section 5.15.6");

struct mem_response {
        le16 type;
        uint8_t padding[6];
        le16 state;
};
static_assert(sizeof(struct mem_response) <= sizeof(struct virtio_mem_resp), "section 5.15.6");

/* The one place where what the driver says of blocks is checked. */
static bool range_of(const struct mem *m, const struct mem_request *request, struct blocks *ret)
{
        uint64_t start = le64_get(request->addr) - m->gpa;
        uint64_t n = le16_get(request->nb_blocks);

        *ret = (struct blocks){start / BLOCK, n};
        return n > 0 && start < m->size && start % BLOCK == 0 && n <= (m->size - start) / BLOCK;
}

/* @plugged of the @blocks are. */
static uint16_t plug(struct mem *m, struct blocks blocks, uint64_t plugged)
{
        if (plugged > 0)
                return VIRTIO_MEM_RESP_ERROR;
        if (m->plugged + blocks.n * BLOCK > m->requested)
                return VIRTIO_MEM_RESP_NACK;
        mark(m, blocks, true);
        return VIRTIO_MEM_RESP_ACK;
}

static struct mem_response answer(struct mem *m, const struct mem_request *request)
{
        struct mem_response response = {.type = le16_make(VIRTIO_MEM_RESP_ERROR)};
        struct blocks blocks;
        uint16_t type = le16_get(request->type), how = VIRTIO_MEM_RESP_ACK;
        uint64_t plugged;

        if (type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
                unplug_all(m);
                response.type = le16_make(how);
                return response;
        }
        if (!range_of(m, request, &blocks))
                return response;
        plugged = count_plugged(m, blocks);
        switch (type) {
        case VIRTIO_MEM_REQ_PLUG:
                how = plug(m, blocks, plugged);
                break;
        case VIRTIO_MEM_REQ_UNPLUG:
                if (plugged == blocks.n)
                        unplug(m, blocks);
                else
                        how = VIRTIO_MEM_RESP_ERROR;
                break;
        case VIRTIO_MEM_REQ_STATE:
                response.state = le16_make(plugged == 0          ? VIRTIO_MEM_STATE_UNPLUGGED
                                           : plugged == blocks.n ? VIRTIO_MEM_STATE_PLUGGED
                                                                 : VIRTIO_MEM_STATE_MIXED);
                break;
        default:
                how = VIRTIO_MEM_RESP_ERROR;
                break;
        }
        response.type = le16_make(how);
        return response;
}

static void serve(struct mem *m)
{
        const struct virtqueue_chain *chain = &m->chain;
        struct mem_request request;
        struct mem_response response;
        size_t written = 0;

        if (virtqueue_gather(chain->iov, chain->n_out, 0, &request, sizeof(request)) ==
            sizeof(request)) {
                response = answer(m, &request);
                written = virtqueue_scatter(chain->iov + chain->n_out, chain->n_in, 0, &response,
                                            sizeof(response));
        }
        virtqueue_push(&m->requests, chain, (uint32_t)written);
}

static void kick(struct virtio_device *v, unsigned index)
{
        struct mem *m = mem_of(v);
        unsigned n = 0;

        while (n < REQUESTS_PER_TURN && virtqueue_pop(&m->requests, &m->chain)) {
                serve(m);
                n++;
        }
        virtqueue_flush(&m->requests);
        if (virtqueue_want_kicks(&m->requests))
                eventfd_signal(v->queues[index].kick);
}

/* ---- the device ---- */

static int start(struct virtio_device *v, struct error *err)
{
        int r = virtqueue_start(&mem_of(v)->requests, v, 0, err);

        if (r == 0)
                eventfd_signal(v->queues[0].kick);
        return r;
}

static void stop(struct virtio_device *v)
{
        (void)v; /* nothing is under way between two calls */
}

static void save(struct virtio_device *v, struct state_writer *w)
{
        const struct mem *m = mem_of(v);

        state_put64(w, m->gpa);
        state_put64(w, m->size);
        state_put64(w, m->requested);
        state_put(w, m->map, map_size(m));
}

/* The map is any: it says what the guest has, and who makes it too large cheats himself. */
static int restore(struct virtio_device *v, struct state_reader *r, struct error *err)
{
        struct mem *m = mem_of(v);
        uint64_t gpa = state_get64(r), size = state_get64(r), requested = state_get64(r);

        if (gpa != m->gpa || size != m->size || requested > m->room || requested % BLOCK != 0)
                return error_set(err, -EINVAL, "the saved state is of a machine with other memory");
        m->requested = requested;
        state_get(r, m->map, map_size(m));
        m->plugged = count_plugged(m, (struct blocks){0, size / BLOCK}) * BLOCK;
        return 0;
}

/* Also where the guest has let go of it: the region stays, and is nobody's. */
static void free_mem(struct virtio_device *v)
{
        if (v->machine->mem == v)
                v->machine->mem = NULL;
        free(mem_of(v));
}

/* A reset by the driver leaves what is plugged: section 5.15.5.2. Linux begins with UNPLUG_ALL. */
static const struct virtio_ops mem_ops = {
    .type = VIRTIO_ID_MEM,
    .features = features,
    .read_config = read_config,
    .start = start,
    .stop = stop,
    .kick = kick,
    .save = save,
    .restore = restore,
    .free = free_mem,
};

void virtio_mem_want(struct virtio_device *v, uint64_t bytes)
{
        struct mem *m = mem_of(v);

        if (bytes == m->requested)
                return;
        m->requested = bytes;
        virtio_config_changed(v);
}

uint64_t virtio_mem_size(const struct virtio_device *v)
{
        return mem_of((struct virtio_device *)v)->plugged;
}

static uint64_t align_up(uint64_t n)
{
        return (n + REGION - 1) / REGION * REGION;
}

int virtio_mem_create(struct machine *machine, struct error *err)
{
        static const uint16_t sizes[] = {128};
        const struct virtio_options options = {.queue_sizes = sizes, .n_queues = 1};
        const struct vmm_config *config = machine->config;
        uint64_t room = config->memory_max - config->memory, size = align_up(room);
        uint64_t gpa = align_up(LAYOUT_RAM_HIGH + machine->memory.high_size);
        struct guest_region *region;
        struct mem *m;
        int r;

        if (config->memory_max > LAYOUT_RAM_MAX || config->memory_max % LAYOUT_RAM_UNIT != 0)
                return error_set(err, -EINVAL,
                                 "memory grows to at most 1 TiB, and in steps of 2 MiB");
        if (config->huge_pages)
                return error_set(err, -EOPNOTSUPP,
                                 "memory of huge pages is taken at once, and cannot grow");
        r = memory_add(&machine->memory, gpa, size, false, false, &region, err);
        if (r < 0)
                return r;
        m = calloc(1, sizeof(*m) + size / BLOCK / 8);
        if (!m)
                return error_set(err, -ENOMEM, "out of memory");
        m->v = (struct virtio_device){.ops = &mem_ops, .id = "mem"};
        m->gpa = gpa;
        m->size = size;
        m->room = room;
        m->host = region->host;
        r = virtio_attach(machine, &m->v, &options, err);
        if (r == 0)
                machine->mem = &m->v;
        return r;
}
