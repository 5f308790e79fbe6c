/* fuzz_vmm_disk.c - a back end of a virtual machine's disk, which answers as the input wants; a driver
 * that starts and stops it, with rings anywhere; saved state that says anything.
 *
 * One thread: the front end waits for an answer in poll(), and there, in __wrap_poll(), the back end has
 * its turn. A back end that is silent is one that never answers: the time is over at once. */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/closer.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/vhost/backend.h"
#include "vmm-glue/vmm/blk_config.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/virtio.h"

#define QUEUES_MAX   4u
#define RINGS_AT     MIB(1)
#define RING_BYTES   KIB(16)
#define MESSAGES_MAX 1000u /* that one act of ours can send */

static_assert(BACKEND_FAULTS == 16, "four bits");

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
void __wrap_close_elsewhere(struct closer *closer, int fd);

static struct {
        struct input *in;
        struct machine machine;
        struct vmm_config config;
        struct vmm_events events;
        struct virtio_device *v; /* NULL: there is none */
        struct virtio_queue queues[QUEUES_MAX];
        void (*removed)(struct virtio_device *v);
        struct backend backend;
        unsigned n_messages;
        unsigned n_connections, n_lost, n_asked, n_removed;
} w;

/* ---- the back end's turn ---- */

static bool has_message(void)
{
        char byte;

        return w.backend.fd >= 0 && recv(w.backend.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
        if (timeout_ms == 0 || n != 1 || fds->events != POLLIN)
                return __real_poll(fds, n, timeout_ms);
        /* Not before it is asked: it may have said something before, unasked. */
        while (__real_poll(fds, 1, 0) == 0 && has_message()) {
                uint8_t how = input_u8(w.in);

                if (++w.n_messages > MESSAGES_MAX)
                        abort();
                backend_answer(&w.backend, how < 0xf0 ? BACKEND_RIGHT : how & 0x0f);
        }
        return __real_poll(fds, 1, 0);
}

/* Another thread would make the numbers of descriptors a matter of luck. */
void __wrap_close_elsewhere(struct closer *closer, int fd)
{
        close(fd);
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
        assert(options->n_queues >= 1 && options->n_queues <= QUEUES_MAX);
        v->queues = w.queues;
        v->n_queues = options->n_queues;
        for (unsigned i = 0; i < v->n_queues; i++)
                v->queues[i] = (struct virtio_queue){.size_max = options->queue_sizes[i],
                                                     .kick = eventfd(0, EFD_CLOEXEC),
                                                     .call = eventfd(0, EFD_CLOEXEC)};
        w.v = v;
        return 0;
}

void virtio_detach(struct virtio_device *v, void (*removed)(struct virtio_device *v))
{
        w.removed = removed;
}

void virtio_config_changed(struct virtio_device *v)
{
}

void virtio_needs_reset(struct virtio_device *v)
{
}

static void disk_lost(void *arg, const char *id)
{
        assert(strcmp(id, "disk0") == 0);
        w.n_lost++;
        assert(w.n_lost <= w.n_connections);
}

static void disk_removed(void *arg, const char *id)
{
        assert(strcmp(id, "disk0") == 0);
        w.n_removed++;
        assert(w.n_removed <= w.n_asked);
}

/* ---- acts ---- */

/* The other end of a new connection. */
static int new_backend(void)
{
        struct backend old = w.backend;
        int ends[2];

        backend_close(&w.backend);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                abort();
        backend_init(&w.backend, ends[1]);
        if (w.n_connections++ > 0) { /* it is as the one before */
                w.backend.features = old.features;
                w.backend.protocol = old.protocol;
                w.backend.n_queues = old.n_queues;
                memcpy(w.backend.config, old.config, sizeof(old.config));
        }
        return ends[0];
}

static void check_config(void)
{
        struct virtio_blk_config config;
        uint64_t features = w.v->features ? w.v->features : w.v->ops->features(w.v);

        w.v->ops->read_config(w.v, 0, &config, sizeof(config));
        assert(config.capacity <= (uint64_t)INT64_MAX / 512);
        assert(config.seg_max <= BLK_QUEUE_SIZE - 2);
        assert(config.wce <= 1);
        assert(!(features & VF_BLK_SIZE) ||
               (config.blk_size >= 512 && (config.blk_size & (config.blk_size - 1)) == 0));
        assert(config.num_queues == 0 || config.num_queues == w.v->n_queues);
        assert(!(features & (VF_PROTOCOL_FEATURES | VF_LOG_ALL | VF_RING_PACKED)));
}

static void stop(void)
{
        machine_lock(&w.machine);
        if (w.v->started)
                w.v->ops->stop(w.v);
        w.v->started = false;
        machine_unlock(&w.machine);
}

static void free_disk(void)
{
        unsigned n;

        if (!w.v)
                return;
        n = w.v->n_queues;
        stop();
        machine_lock(&w.machine);
        if (w.removed) {
                w.n_asked++;
                w.removed(w.v);
        }
        w.v->ops->free(w.v);
        machine_unlock(&w.machine);
        for (unsigned i = 0; i < n; i++) {
                close(w.queues[i].kick);
                close(w.queues[i].call);
        }
        w.v = NULL;
        w.removed = NULL;
}

static void create(void)
{
        uint8_t how = input_u8(w.in);
        struct vmm_disk disk = {.id = "disk0",
                                .readonly = (how & 0xf0) == 0xf0,
                                .queues = how % (QUEUES_MAX + 1),
                                .fd = new_backend()};
        struct error err = ERROR_INIT;
        int r;

        machine_lock(&w.machine);
        r = vhost_blk_create(&w.machine, &disk, false, &err);
        machine_unlock(&w.machine);
        assert(r == 0 ? w.v && !err.message[0] : !w.v && err.message[0]);
}

static void reconnect(void)
{
        int fd = new_backend(), r;
        struct error err = ERROR_INIT;

        machine_lock(&w.machine);
        r = vhost_blk_connect(&w.machine, "disk0", fd, &err);
        machine_unlock(&w.machine);
        assert(r == 0 || err.message[0]);
}

static void place(uint64_t *where, uint64_t right)
{
        *where = input_u8(w.in) < 0xf0 ? right : input_number(w.in, LAYOUT_RAM_MIN);
}

/* virtio_pci.c sees to alignment and sizes. */
static void start(void)
{
        uint8_t how = input_u8(w.in);
        struct error err = ERROR_INIT;
        int r;

        if (w.v->started)
                return;
        if (w.v->features == 0)
                w.v->features = (w.v->ops->features(w.v) | VF_VERSION_1) &
                                ~(how & 1 ? input_u64(w.in) : UINT64_C(0));
        for (unsigned i = 0; i < w.v->n_queues; i++) {
                struct virtio_queue *q = &w.queues[i];
                uint64_t at = RINGS_AT + i * RING_BYTES;

                q->enabled = !(how & 2) || input_u8(w.in) % 2;
                q->size = (uint16_t)(how & 4 ? 1u << input_u8(w.in) % 9 : q->size_max);
                place(&q->descriptors, at);
                place(&q->available, at + KIB(4));
                place(&q->used, at + KIB(8));
                q->descriptors &= ~UINT64_C(15);
                q->available &= ~UINT64_C(1);
                q->used &= ~UINT64_C(3);
        }
        machine_lock(&w.machine);
        r = w.v->ops->start(w.v, &err);
        w.v->started = r == 0;
        machine_unlock(&w.machine);
        assert(r == 0 || err.message[0]);
}

static void reset(void)
{
        stop();
        machine_lock(&w.machine);
        w.v->ops->reset(w.v);
        w.v->features = 0;
        for (unsigned i = 0; i < w.v->n_queues; i++)
                w.queues[i].next_available = 0;
        machine_unlock(&w.machine);
}

static void write_config(void)
{
        uint8_t offset = input_u8(w.in), size = (uint8_t)(1 << input_u8(w.in) % 4);
        uint64_t value = input_number(w.in, 1);

        machine_lock(&w.machine);
        w.v->ops->write_config(w.v, offset, &value, size);
        machine_unlock(&w.machine);
}

static void change_log(void)
{
        struct error err = ERROR_INIT;
        bool on = !w.machine.memory.log;

        machine_lock(&w.machine);
        if (on && memory_log_begin(&w.machine.memory, &err) < 0)
                abort();
        if (w.v && w.v->started && w.v->ops->log(w.v, on, &err) < 0)
                assert(err.message[0]);
        if (!on)
                memory_log_end(&w.machine.memory);
        machine_unlock(&w.machine);
}

/* Into a disk that was just made: what another one said, changed or not. */
static void restore(void)
{
        struct state_writer saved = {0};
        struct state_reader reader;
        struct error err = ERROR_INIT;
        uint8_t bytes[128];
        size_t n;
        int r;

        state_begin(&saved, "disk0", 1);
        w.v->ops->save(w.v, &saved);
        state_end(&saved);
        if (state_find(saved.data, saved.size, "disk0", 1, &reader, &err) < 0)
                abort();
        n = reader.left < sizeof(bytes) ? reader.left : sizeof(bytes);
        memcpy(bytes, reader.data, n);
        free_disk();
        create();
        for (uint8_t k = input_u8(w.in) % 8; k > 0; k--) {
                uint8_t at = input_u8(w.in) % sizeof(bytes);

                bytes[at] = input_u8(w.in);
        }
        reader = (struct state_reader){.data = bytes, .left = n, .version = 1};
        if (w.v) {
                machine_lock(&w.machine);
                r = w.v->ops->restore(w.v, &reader, &err);
                machine_unlock(&w.machine);
                assert(r == 0 || err.message[0]);
        }
        state_writer_free(&saved);
}

static void take_away(void)
{
        struct error err = ERROR_INIT;

        machine_lock(&w.machine);
        if (vhost_blk_remove(&w.machine, "disk0", &err) < 0)
                abort();
        machine_unlock(&w.machine);
        if (input_u8(w.in) % 2)
                free_disk();
}

/* ---- what the back end does by itself ---- */

static void say(void)
{
        struct vu_header header = {2, VU_VERSION | (input_u8(w.in) & VU_NEED_REPLY), 0};
        uint8_t how = input_u8(w.in);
        const uint8_t *bytes;

        if (how < 0xc0) {
                backend_say(&w.backend, &header, sizeof(header));
        } else {
                size_t n = input_take(w.in, how & 0x3f, &bytes);

                if (n > 0)
                        backend_say(&w.backend, bytes, (uint32_t)n);
        }
}

static void change_backend(void)
{
        uint8_t what = input_u8(w.in), at;

        switch (what % 8) {
        case 0:
                w.backend.features ^= UINT64_C(1) << input_u8(w.in) % 64;
                break;
        case 1:
                w.backend.protocol ^= UINT64_C(1) << input_u8(w.in) % 20;
                break;
        case 2:
                w.backend.n_queues = input_number(w.in, QUEUES_MAX);
                break;
        default:
                at = input_u8(w.in) % 64;
                w.backend.config[at] = input_u8(w.in);
        }
}

static void break_ring(void)
{
        if (w.backend.error >= 0)
                eventfd_write(w.backend.error, 1);
}

static void set_index(void)
{
        unsigned queue = input_u8(w.in) % QUEUES_MAX;
        uint16_t *used = guest_range(&w.machine.memory,
                                     RINGS_AT + queue * RING_BYTES + KIB(8) + sizeof(uint16_t), 2);

        *used = input_u16(w.in);
}

static void act(void)
{
        uint8_t what = input_u8(w.in);

        w.n_messages = 0;
        switch (what % 18) {
        case 0:
                if (!w.v)
                        create();
                break;
        case 1:
        case 2:
                reconnect();
                break;
        case 3:
                backend_close(&w.backend);
                break;
        case 4:
                say();
                break;
        case 5:
        case 6:
                change_backend();
                break;
        case 7:
                break_ring();
                break;
        case 8:
                fuzz_loop_settle(w.machine.loop);
                break;
        case 9:
                fuzz_loop_step(w.machine.loop);
                break;
        case 10:
                change_log();
                break;
        case 11:
                set_index();
                break;
        default:
                if (!w.v)
                        create();
                else if (what % 18 < 14)
                        start();
                else if (what % 18 == 14)
                        stop();
                else if (what % 18 == 15)
                        reset();
                else if (what % 18 == 16)
                        write_config();
                else if (what & 0x80)
                        restore();
                else
                        take_away();
        }
        if (w.v)
                check_config();
}

/* ---- an input ---- */

static void make_machine(void)
{
        struct error err = ERROR_INIT;

        w.config = (struct vmm_config){.name = "fuzz", .cpus = 2};
        w.events = (struct vmm_events){.disk_lost = disk_lost, .disk_removed = disk_removed};
        w.machine = (struct machine){
            .kvm = -1, .vm = -1, .config = &w.config, .events = &w.events, .loop = fuzz_loop_new()};
        pthread_mutex_init(&w.machine.lock, NULL);
        if (memory_new(&w.machine.memory, -1, LAYOUT_RAM_MIN, false, &err) < 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        int lowest_fd;

        fuzz_quiet();
        if (!w.machine.loop)
                make_machine();
        fuzz_loop_reset(w.machine.loop);
        lowest_fd = fuzz_lowest_fd();
        w.in = &in;
        w.backend = (struct backend){.fd = -1, .channel = -1, .error = -1};
        w.n_connections = w.n_lost = w.n_asked = w.n_removed = 0;
        memset(guest_range(&w.machine.memory, RINGS_AT, QUEUES_MAX * RING_BYTES), 0,
               QUEUES_MAX * RING_BYTES);
        while (in.left > 0)
                act();
        w.n_messages = 0;
        if (w.machine.memory.log)
                change_log();
        free_disk();
        /* Only the machine's end is told of no removal. */
        vhost_blk_end(&w.machine);
        backend_close(&w.backend);
        fuzz_loop_settle(w.machine.loop);
        fuzz_loop_reset(w.machine.loop);
        assert(fuzz_lowest_fd() == lowest_fd);
        return 0;
}
