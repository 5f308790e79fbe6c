/* machine.c - see machine.h. */
#include "tests/vhost/machine.h"
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "common/loop_thread.h"
#include "tests/protocol/loop_call.h"
#include "tests/vhost/check.h"

#define RINGS_AT    MIB(1)
#define RING_BYTES  KIB(16)
#define SLOTS_AT    MIB(2)
#define SLOT_BYTES  KIB(8)
#define STATUS_AT   16u
#define DATA_AT     4096u
#define STATUS_NONE 0xffu

static struct rig *rig_of(struct machine *machine)
{
        return container_of(machine, struct rig, machine);
}

/* ---- machine.c and virtio_pci.c ---- */

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
        struct rig *rig = rig_of(machine);

        assert_true(options->n_queues >= 1 && options->n_queues <= RIG_QUEUES_MAX);
        v->queues = rig->queues;
        v->n_queues = options->n_queues;
        for (unsigned i = 0; i < v->n_queues; i++) {
                v->queues[i] = (struct virtio_queue){.size_max = options->queue_sizes[i],
                                                     .kick = eventfd(0, EFD_CLOEXEC),
                                                     .call = eventfd(0, EFD_CLOEXEC)};
                assert_true(v->queues[i].kick >= 0 && v->queues[i].call >= 0);
        }
        rig->v = v;
        return 0;
}

void virtio_detach(struct virtio_device *v, void (*removed)(struct virtio_device *v))
{
        rig_of(v->machine)->removed = removed;
}

void virtio_config_changed(struct virtio_device *v)
{
        rig_of(v->machine)->n_changed++;
}

void virtio_needs_reset(struct virtio_device *v)
{
        rig_of(v->machine)->n_needs_reset++;
}

static void disk_lost(void *arg, const char *id)
{
        struct rig *rig = arg;

        assert_string_equal(id, "disk0");
        rig->n_lost++;
}

static void disk_removed(void *arg, const char *id)
{
        struct rig *rig = arg;

        assert_string_equal(id, "disk0");
        rig->n_removed++;
}

/* ---- the machine ---- */

struct rig *rig_new(void)
{
        struct rig *rig = calloc(1, sizeof(*rig));

        assert_non_null(rig);
        rig->config = (struct vmm_config){.name = "rig", .cpus = 2};
        rig->events = (struct vmm_events){.disk_lost = disk_lost, .disk_removed = disk_removed};
        rig->machine = (struct machine){
            .kvm = -1, .vm = -1, .config = &rig->config, .events = &rig->events, .events_arg = rig};
        pthread_mutex_init(&rig->machine.lock, NULL);
        ok(memory_new(&rig->machine.memory, -1, LAYOUT_RAM_MIN, false, &check_err));
        assert_int_equal(loop_thread_start("machine", &rig->thread, NULL), 0);
        rig->machine.loop = loop_thread_loop(rig->thread);
        return rig;
}

static void free_disk(void *arg)
{
        struct rig *rig = arg;
        struct virtio_device *v = rig->v;
        unsigned n = v ? v->n_queues : 0;

        machine_lock(&rig->machine);
        if (v && v->started)
                v->ops->stop(v);
        if (v && rig->removed)
                rig->removed(v);
        if (v)
                v->ops->free(v);
        machine_unlock(&rig->machine);
        for (unsigned i = 0; i < n; i++) {
                close(rig->queues[i].kick);
                close(rig->queues[i].call);
        }
        rig->v = NULL;
        rig->removed = NULL;
}

static void end(void *arg)
{
        struct rig *rig = arg;

        free_disk(rig);
        vhost_blk_end(&rig->machine);
}

static void nothing(void *arg)
{
}

void rig_free(struct rig *rig)
{
        loop_call(rig->machine.loop, end, rig);
        /* What is left on the loop is to do without the machine. */
        memory_free(&rig->machine.memory);
        pthread_mutex_destroy(&rig->machine.lock);
        memset(&rig->machine.lock, 0xee, sizeof(rig->machine.lock));
        for (unsigned i = 0; i < 8; i++)
                loop_call(rig->machine.loop, nothing, NULL);
        loop_thread_stop(rig->thread);
        free(rig);
}

/* ---- calls on the loop's thread ---- */

struct call {
        struct rig *rig;
        struct vmm_disk disk;
        const char *id;
        int fd, result;
};

static void create(void *arg)
{
        struct call *call = arg;

        machine_lock(&call->rig->machine);
        call->result = vhost_blk_create(&call->rig->machine, &call->disk, false, &call->rig->err);
        machine_unlock(&call->rig->machine);
}

static void connect_disk(void *arg)
{
        struct call *call = arg;

        machine_lock(&call->rig->machine);
        call->result = vhost_blk_connect(&call->rig->machine, call->id, call->fd, &call->rig->err);
        machine_unlock(&call->rig->machine);
}

static void remove_disk(void *arg)
{
        struct call *call = arg;

        machine_lock(&call->rig->machine);
        call->result = vhost_blk_remove(&call->rig->machine, "disk0", &call->rig->err);
        machine_unlock(&call->rig->machine);
}

int rig_socket(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

int rig_create(struct rig *rig, const char *path, bool readonly, unsigned n_queues)
{
        struct call call = {
            .rig = rig,
            .disk = {
                .id = "disk0", .fd = rig_socket(path), .readonly = readonly, .queues = n_queues}};

        loop_call(rig->machine.loop, create, &call);
        return call.result;
}

int rig_connect_fd(struct rig *rig, const char *id, int fd)
{
        struct call call = {.rig = rig, .id = id, .fd = fd};

        loop_call(rig->machine.loop, connect_disk, &call);
        return call.result;
}

int rig_connect(struct rig *rig, const char *path)
{
        return rig_connect_fd(rig, "disk0", rig_socket(path));
}

int rig_remove(struct rig *rig)
{
        struct call call = {.rig = rig};

        loop_call(rig->machine.loop, remove_disk, &call);
        return call.result;
}

/* By a vCPU: the test's thread. */
void rig_eject(struct rig *rig)
{
        assert_non_null(rig->removed);
        free_disk(rig);
}

/* ---- the driver ---- */

static int start(struct rig *rig)
{
        struct virtio_device *v = rig->v;
        int r;

        machine_lock(&rig->machine);
        r = v->ops->start(v, &rig->err);
        v->started = r == 0;
        machine_unlock(&rig->machine);
        return r;
}

int rig_start(struct rig *rig, uint64_t without)
{
        struct virtio_device *v = rig->v;

        v->features = (v->ops->features(v) | UINT64_C(1) << VIRTIO_F_VERSION_1) & ~without;
        for (unsigned i = 0; i < v->n_queues; i++) {
                struct virtio_queue *q = &v->queues[i];

                q->size = q->size_max;
                q->enabled = true;
                q->descriptors = RINGS_AT + i * RING_BYTES;
                q->available = q->descriptors + KIB(4);
                q->used = q->descriptors + KIB(8);
                q->next_available = q->next_used = 0;
                memset(guest_range(&rig->machine.memory, q->descriptors, RING_BYTES), 0,
                       RING_BYTES);
                rig->rings[i] = (struct rig_queue){0};
        }
        return start(rig);
}

void rig_pause(struct rig *rig)
{
        machine_lock(&rig->machine);
        rig->v->ops->stop(rig->v);
        rig->v->started = false;
        machine_unlock(&rig->machine);
}

int rig_resume(struct rig *rig)
{
        return start(rig);
}

void rig_reset(struct rig *rig)
{
        rig_pause(rig);
        machine_lock(&rig->machine);
        rig->v->ops->reset(rig->v);
        rig->v->features = 0;
        machine_unlock(&rig->machine);
}

int rig_log(struct rig *rig, bool on)
{
        int r;

        machine_lock(&rig->machine);
        r = rig->v->ops->log(rig->v, on, &rig->err);
        machine_unlock(&rig->machine);
        return r;
}

struct virtio_blk_config rig_config(struct rig *rig)
{
        struct virtio_blk_config config;

        machine_lock(&rig->machine);
        rig->v->ops->read_config(rig->v, 0, &config, sizeof(config));
        machine_unlock(&rig->machine);
        return config;
}

void rig_write_config(struct rig *rig, uint32_t offset, const void *data, uint32_t size)
{
        machine_lock(&rig->machine);
        rig->v->ops->write_config(rig->v, offset, data, size);
        machine_unlock(&rig->machine);
}

void rig_save(struct rig *rig, struct state_writer *w)
{
        machine_lock(&rig->machine);
        state_begin(w, "disk0", 1);
        rig->v->ops->save(rig->v, w);
        state_end(w);
        machine_unlock(&rig->machine);
        assert_false(w->failed);
}

int rig_restore(struct rig *rig, const struct state_writer *w)
{
        struct state_reader reader;
        int r = state_find(w->data, w->size, "disk0", 1, &reader, &rig->err);

        machine_lock(&rig->machine);
        if (r == 0)
                r = rig->v->ops->restore(rig->v, &reader, &rig->err);
        machine_unlock(&rig->machine);
        return r < 0 ? r : state_finish(&reader, "disk0", &rig->err);
}

/* ---- requests ---- */

static void *at(struct rig *rig, uint64_t gpa, uint64_t n_bytes)
{
        void *p = guest_range(&rig->machine.memory, gpa, n_bytes);

        assert_non_null(p);
        return p;
}

struct vring_avail *rig_available(struct rig *rig, unsigned queue)
{
        return at(rig, rig->queues[queue].available, KIB(1));
}

struct vring_used *rig_used(struct rig *rig, unsigned queue)
{
        return at(rig, rig->queues[queue].used, KIB(4));
}

static uint64_t slot_gpa(unsigned queue, unsigned slot)
{
        return SLOTS_AT + (queue * RIG_SLOTS + slot) * SLOT_BYTES;
}

uint64_t rig_data_gpa(unsigned queue, unsigned slot)
{
        return slot_gpa(queue, slot) + DATA_AT;
}

const uint8_t *rig_data(struct rig *rig, unsigned queue, unsigned slot)
{
        return at(rig, rig_data_gpa(queue, slot), RIG_DATA);
}

void rig_kick(struct rig *rig, unsigned queue)
{
        const uint64_t one = 1;

        assert_int_equal(write(rig->queues[queue].kick, &one, sizeof(one)), sizeof(one));
}

unsigned rig_submit(struct rig *rig, unsigned queue, uint32_t type, uint64_t sector, uint8_t fill)
{
        struct rig_queue *ring = &rig->rings[queue];
        unsigned slot = ring->next_slot++ % RIG_SLOTS, first = slot * 3;
        uint64_t gpa = slot_gpa(queue, slot);
        struct virtio_blk_outhdr header = {.type = type, .sector = sector};
        struct vring_desc *descriptors = at(rig, rig->queues[queue].descriptors, KIB(4));
        struct vring_avail *available = rig_available(rig, queue);
        uint16_t reads = type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0;

        memcpy(at(rig, gpa, sizeof(header)), &header, sizeof(header));
        memset(at(rig, gpa + STATUS_AT, 1), STATUS_NONE, 1);
        memset(at(rig, gpa + DATA_AT, RIG_DATA), fill, RIG_DATA);
        descriptors[first] =
            (struct vring_desc){gpa, sizeof(header), VRING_DESC_F_NEXT, (uint16_t)(first + 1)};
        descriptors[first + 1] = (struct vring_desc){
            gpa + DATA_AT, RIG_DATA, (uint16_t)(VRING_DESC_F_NEXT | reads), (uint16_t)(first + 2)};
        descriptors[first + 2] = (struct vring_desc){gpa + STATUS_AT, 1, VRING_DESC_F_WRITE, 0};
        ring->done[slot] = false;
        available->ring[ring->next % rig->queues[queue].size] = (uint16_t)first;
        __atomic_store_n(&available->idx, ++ring->next, __ATOMIC_SEQ_CST);
        rig_kick(rig, queue);
        return slot;
}

bool rig_is_done(struct rig *rig, unsigned queue, unsigned slot)
{
        struct rig_queue *ring = &rig->rings[queue];
        const struct vring_used *used = rig_used(rig, queue);

        while (ring->last_used != __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE)) {
                unsigned head = used->ring[ring->last_used % rig->queues[queue].size].id;

                assert_true(head % 3 == 0 && head / 3 < RIG_SLOTS);
                assert_false(ring->done[head / 3]); /* given back once */
                ring->done[head / 3] = true;
                ring->last_used++;
        }
        return ring->done[slot];
}

static void wait_a_little(unsigned *left)
{
        const struct timespec pause = {.tv_nsec = 1000000};

        if ((*left)-- == 0)
                fail_msg("nothing comes of it");
        nanosleep(&pause, NULL);
}

uint8_t rig_wait(struct rig *rig, unsigned queue, unsigned slot)
{
        unsigned left = RIG_WAIT_MS;

        while (!rig_is_done(rig, queue, slot))
                wait_a_little(&left);
        return *(uint8_t *)at(rig, slot_gpa(queue, slot) + STATUS_AT, 1);
}

void rig_write(struct rig *rig, unsigned queue, uint64_t sector, uint8_t fill)
{
        unsigned slot = rig_submit(rig, queue, VIRTIO_BLK_T_OUT, sector, fill);

        assert_int_equal(rig_wait(rig, queue, slot), VIRTIO_BLK_S_OK);
}

void rig_check(struct rig *rig, unsigned queue, uint64_t sector, uint8_t fill)
{
        unsigned slot = rig_submit(rig, queue, VIRTIO_BLK_T_IN, sector, (uint8_t)~fill);
        const uint8_t *data = rig_data(rig, queue, slot);

        assert_int_equal(rig_wait(rig, queue, slot), VIRTIO_BLK_S_OK);
        for (unsigned i = 0; i < RIG_DATA; i++)
                assert_int_equal(data[i], fill);
}

void rig_wait_for(atomic_uint *counter, unsigned n)
{
        unsigned left = RIG_WAIT_MS;

        while (*counter < n)
                wait_a_little(&left);
        assert_int_equal(*counter, n);
}
