/* fake_driver.c - a driver's and a transport's part, for tests. */
#include "tests/vmm/fake_driver.h"

#include <assert.h>
#include <endian.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm-glue/vmm/watch.h"

/* A ring that lies on itself never ends. */
#define FAKE_ROUNDS_MAX 100u
#define RING_SPACE      KIB(32)

static struct fake *fake_of(const struct machine *machine)
{
        return container_of((struct machine *)machine, struct fake, machine);
}

/* ---- machine.c's and virtio_pci.c's part ---- */

void machine_lock(struct machine *machine)
{
        pthread_mutex_lock(&machine->lock);
}

void machine_unlock(struct machine *machine)
{
        pthread_mutex_unlock(&machine->lock);
}

int virtio_attach(struct machine *machine, struct virtio_device *v,
                  const struct virtio_options *options, struct error *err)
{
        struct fake *fake = fake_of(machine);

        (void)err;
        assert(!fake->v && options->n_queues <= VIRTIO_QUEUES_MAX);
        v->machine = machine;
        v->n_queues = options->n_queues;
        v->queues = calloc(v->n_queues, sizeof(*v->queues));
        for (unsigned i = 0; i < v->n_queues; i++)
                v->queues[i] = (struct virtio_queue){
                    .size_max = options->queue_sizes[i],
                    .kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                    .call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                };
        fake->v = v;
        return 0;
}

void virtio_signal(struct virtio_queue *queue)
{
        eventfd_write(queue->call, 1);
}

void virtio_config_changed(struct virtio_device *v)
{
        fake_of(v->machine)->n_config_changes++;
}

void virtio_log(struct virtio_device *v, const char *format, ...)
{
        (void)v;
        (void)format;
}

void virtio_needs_reset(struct virtio_device *v)
{
        fake_of(v->machine)->needs_reset = true;
}

/* ---- the driver's ---- */

void fake_init(struct fake *fake, struct loop *loop)
{
        *fake = (struct fake){.config = {.memory = FAKE_MEMORY, .memory_max = FAKE_MEMORY}};
        fake->machine = (struct machine){
            .kvm = -1,
            .vm = -1,
            .config = &fake->config,
            .loop = loop,
            .lock = PTHREAD_MUTEX_INITIALIZER,
        };
        list_init(&fake->machine.devices);
        if (memory_new(&fake->machine.memory, -1, FAKE_MEMORY, false, NULL) < 0)
                abort();
}

void fake_fini(struct fake *fake)
{
        struct virtio_device *v = fake->v;

        fake_stop(fake);
        if (v) {
                struct virtio_queue *queues = v->queues;
                unsigned n = v->n_queues;

                v->ops->free(v);
                for (unsigned i = 0; i < n; i++) {
                        close(queues[i].kick);
                        close(queues[i].call);
                }
                free(queues);
        }
        fake->v = NULL;
        memory_free(&fake->machine.memory);
}

void *fake_at(struct fake *fake, uint64_t gpa)
{
        void *at = guest_range(&fake->machine.memory, gpa, 1);

        assert(at);
        return at;
}

static void set_up(struct fake *fake, unsigned index)
{
        struct virtio_queue *q = &fake->v->queues[index];
        struct fake_ring *ring = &fake->rings[index];
        uint64_t gpa = RING_SPACE + index * RING_SPACE;

        q->size = q->size_max < FAKE_QUEUE_SIZE ? q->size_max : FAKE_QUEUE_SIZE;
        q->descriptors = gpa;
        q->available = gpa + KIB(16);
        q->used = gpa + KIB(24);
        assert(q->used + KIB(8) <= FAKE_DATA);
        q->enabled = true;
        q->next_available = q->next_used = 0;
        memset(fake_at(fake, gpa), 0, RING_SPACE);
        *ring = (struct fake_ring){
            .descriptors = fake_at(fake, q->descriptors),
            .available = fake_at(fake, q->available),
            .used = fake_at(fake, q->used),
        };
}

int fake_start(struct fake *fake, uint64_t features, struct error *err)
{
        struct virtio_device *v = fake->v;
        int r;

        for (unsigned i = 0; i < v->n_queues; i++)
                set_up(fake, i);
        v->features = features | UINT64_C(1) << VIRTIO_F_VERSION_1;
        machine_lock(&fake->machine);
        v->started = true;
        r = v->ops->start(v, err);
        v->started = r == 0;
        machine_unlock(&fake->machine);
        return r;
}

void fake_stop(struct fake *fake)
{
        if (!fake->v || !fake->v->started)
                return;
        machine_lock(&fake->machine);
        fake->v->ops->stop(fake->v);
        fake->v->started = false;
        machine_unlock(&fake->machine);
}

void fake_reset(struct fake *fake)
{
        fake_stop(fake);
        machine_lock(&fake->machine);
        if (fake->v->ops->reset)
                fake->v->ops->reset(fake->v);
        machine_unlock(&fake->machine);
}

uint16_t fake_give(struct fake *fake, unsigned queue, const struct fake_piece *pieces, unsigned n)
{
        struct virtio_queue *q = &fake->v->queues[queue];
        struct fake_ring *ring = &fake->rings[queue];
        uint16_t head = ring->next_descriptor, idx = le16toh(ring->available->idx);

        for (unsigned i = 0; i < n; i++) {
                uint16_t next = (uint16_t)((ring->next_descriptor + 1) % q->size);

                ring->descriptors[ring->next_descriptor] = (struct vring_desc){
                    .addr = htole64(pieces[i].gpa),
                    .len = htole32(pieces[i].length),
                    .flags = htole16((uint16_t)((pieces[i].writable ? VRING_DESC_F_WRITE : 0) |
                                                (i + 1 < n ? VRING_DESC_F_NEXT : 0))),
                    .next = htole16(next),
                };
                ring->next_descriptor = next;
        }
        ring->available->ring[idx % q->size] = htole16(head);
        ring->available->idx = htole16((uint16_t)(idx + 1));
        return head;
}

void fake_kick(struct fake *fake, unsigned queue)
{
        struct virtio_device *v = fake->v;

        machine_lock(&fake->machine);
        if (v->started && v->queues[queue].enabled)
                v->ops->kick(v, queue);
        machine_unlock(&fake->machine);
}

void fake_kick_signalled(struct fake *fake)
{
        bool any = true;

        for (unsigned round = 0; any && round < FAKE_ROUNDS_MAX; round++) {
                any = false;
                for (unsigned i = 0; i < fake->v->n_queues; i++)
                        if (eventfd_take(fake->v->queues[i].kick)) {
                                any = true;
                                fake_kick(fake, i);
                        }
        }
}

bool fake_take(struct fake *fake, unsigned queue, uint32_t *ret_head, uint32_t *ret_length)
{
        struct fake_ring *ring = &fake->rings[queue];
        const struct vring_used_elem *e;

        if (le16toh(ring->used->idx) == ring->next_used)
                return false;
        e = &ring->used->ring[ring->next_used % fake->v->queues[queue].size];
        if (ret_head)
                *ret_head = le32toh(e->id);
        if (ret_length)
                *ret_length = le32toh(e->len);
        ring->next_used++;
        return true;
}
