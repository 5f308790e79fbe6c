/* fuzz_vmm_net.c - a guest, and the other end of its network, that do anything: rings, chains, bytes of
 * the stream. The first byte says which device: the network card, the balloon, virtio-mem.
 *
 * The rest are acts: driver's work as it is right, and memory spoilt afterwards. What comes out of the
 * stream must always be whole frames. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/vmm/fake_driver.h"
#include "vmm-glue/vmm/memory_size.h"
#include "vmm-glue/vmm/net_backend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX   400u
#define PIECES_MAX 24u
#define ROOM       MIB(256) /* virtio-mem's */

enum play_device { DEVICE_NET, DEVICE_BALLOON, DEVICE_MEM, DEVICES };

struct play {
        struct fake fake;
        struct loop *loop;
        enum play_device device;
        struct input in;
        int peer; /* the stream's other end; -1: none, or gone */
        /* Of the frame that comes out of the stream. */
        uint8_t word[4];
        unsigned n_word;
        uint32_t left;
};

static void make(struct play *p)
{
        struct vmm_nic nic = {.id = "net0", .kind = VMM_NIC_STREAM, .vhost_fd = -1};
        int ends[2], small = 4096, r;

        fake_init(&p->fake, p->loop);
        p->fake.config.memory_max = FAKE_MEMORY + ROOM;
        p->peer = -1;
        if (p->device == DEVICE_BALLOON) {
                r = virtio_balloon_create(&p->fake.machine, NULL);
        } else if (p->device == DEVICE_MEM) {
                r = virtio_mem_create(&p->fake.machine, NULL);
        } else {
                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ||
                    fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0 ||
                    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) < 0)
                        abort();
                nic.fd = ends[0];
                p->peer = ends[1];
                r = virtio_net_create(&p->fake.machine, &nic, NULL);
        }
        if (r < 0)
                abort();
}

/* ---- the other end ---- */

static void look_at_stream(struct play *p, const uint8_t *data, size_t size)
{
        while (size > 0) {
                size_t here = size < p->left ? size : p->left;

                if (p->left == 0) {
                        p->word[p->n_word++] = *data++;
                        size--;
                        if (p->n_word < 4)
                                continue;
                        memcpy(&p->left, p->word, 4);
                        p->left = be32toh(p->left);
                        p->n_word = 0;
                        if (p->left < NET_FRAME_MIN || p->left > NET_FRAME_MAX)
                                abort();
                        continue;
                }
                data += here;
                size -= here;
                p->left -= (uint32_t)here;
        }
}

static void read_stream(struct play *p, size_t most)
{
        uint8_t bytes[4096];
        ssize_t n;

        while (p->peer >= 0 && most > 0) {
                n = recv(p->peer, bytes, most < sizeof(bytes) ? most : sizeof(bytes), 0);
                if (n <= 0)
                        return;
                look_at_stream(p, bytes, (size_t)n);
                most -= (size_t)n;
        }
}

/* Down for good after a peer that breaks the framing. */
static bool link_is_up(struct play *p)
{
        uint16_t status;

        p->fake.v->ops->read_config(p->fake.v, offsetof(struct virtio_net_config, status), &status,
                                    sizeof(status));
        return le16toh(status) & VIRTIO_NET_S_LINK_UP;
}

/* What the socket does not take is lost: then the framing is, too, as it may be. */
static void write_stream(struct play *p, const void *data, size_t size)
{
        if (p->peer >= 0 && send(p->peer, data, size, MSG_NOSIGNAL) < 0 && errno == EPIPE &&
            link_is_up(p))
                abort(); /* the device shuts the stream down with its link, and closes it when it is freed */
}

static void send_frame(struct play *p)
{
        static uint8_t frame[4 + NET_FRAME_MAX + 1];
        uint64_t length = input_number(&p->in, NET_FRAME_MAX);
        uint32_t word = htobe32((uint32_t)length);

        memcpy(frame, &word, 4);
        write_stream(p, frame, 4 + (length <= NET_FRAME_MAX ? length : 0));
}

static void send_raw(struct play *p)
{
        const uint8_t *bytes;
        size_t n = input_take(&p->in, input_u8(&p->in), &bytes);

        if (n > 0)
                write_stream(p, bytes, n);
}

/* ---- the driver ---- */

static uint64_t place(struct play *p)
{
        switch (input_u8(&p->in) & 7) {
        case 0: /* the rings */
                return input_number(&p->in, KIB(64)) + KIB(32);
        case 1:
                return input_number(&p->in, FAKE_MEMORY);
        case 2: /* virtio-mem's region */
                return GIB(4) + input_number(&p->in, ROOM);
        default:
                return FAKE_DATA + input_u16(&p->in);
        }
}

static void give(struct play *p)
{
        struct fake_piece pieces[PIECES_MAX];
        unsigned queue = input_u8(&p->in) % p->fake.v->n_queues;
        unsigned n = 1 + input_u8(&p->in) % PIECES_MAX;

        for (unsigned i = 0; i < n; i++) {
                uint8_t flags = input_u8(&p->in);

                pieces[i].gpa = place(p);
                pieces[i].length = (uint32_t)input_number(&p->in, NET_FRAME_MAX);
                pieces[i].writable = flags & 1;
        }
        if (p->fake.rings[queue].descriptors)
                fake_give(&p->fake, queue, pieces, n);
}

/* Rings, indirect tables, page numbers, requests: bytes anywhere in memory. */
static void scribble(struct play *p)
{
        uint64_t gpa = place(p);
        const uint8_t *bytes;
        size_t n = input_take(&p->in, 1 + input_u8(&p->in) % 64, &bytes);
        void *at = guest_range(&p->fake.machine.memory, gpa, n);

        if (n > 0 && at)
                memcpy(at, bytes, n);
}

/* A request of virtio-mem as it is right, but for its numbers. */
static void write_request(struct play *p)
{
        uint8_t *at = fake_at(&p->fake, FAKE_DATA + (input_u8(&p->in) & 3) * 64u);
        uint64_t addr = htole64(GIB(4) + MIB(2) * input_number(&p->in, ROOM / MIB(2)));
        uint16_t type = htole16(input_u8(&p->in) & 7), n = htole16(input_u16(&p->in));

        memset(at, 0, 24);
        memcpy(at, &type, 2);
        memcpy(at + 8, &addr, 8);
        memcpy(at + 16, &n, 2);
}

static void kick(struct play *p)
{
        unsigned queue = input_u8(&p->in) % p->fake.v->n_queues;

        /* The transport kicks no device that needs a reset. */
        if (!p->fake.needs_reset)
                fake_kick(&p->fake, queue);
}

static void start(struct play *p)
{
        uint64_t offered = p->fake.v->ops->features(p->fake.v);

        if (p->fake.v->started)
                return;
        p->fake.needs_reset = false;
        fake_start(&p->fake, offered & input_u64(&p->in), NULL);
}

/* Rings stay where they are. */
static void pause_and_resume(struct play *p)
{
        struct virtio_device *v = p->fake.v;

        if (!v->started)
                return;
        v->ops->stop(v);
        v->started = v->ops->start(v, NULL) == 0;
}

static void configure(struct play *p)
{
        struct virtio_device *v = p->fake.v;
        uint8_t bytes[64] = {0}, how = input_u8(&p->in);
        uint32_t offset = (uint32_t)input_number(&p->in, 64), size = how % sizeof(bytes);
        const uint8_t *from;
        size_t n;

        if (how & 0x80) {
                v->ops->read_config(v, offset, bytes, size);
                return;
        }
        n = input_take(&p->in, size, &from);
        if (n > 0 && v->ops->write_config)
                v->ops->write_config(v, offset, from, (uint32_t)n);
}

static void want_memory(struct play *p)
{
        uint64_t bytes = MIB(2) * input_number(&p->in, (FAKE_MEMORY + ROOM) / MIB(2));

        machine_memory_set(&p->fake.machine, bytes, NULL);
        if (machine_memory_size(&p->fake.machine) > FAKE_MEMORY + ROOM)
                abort();
}

/* Into a device that is not started, as ever. */
static void restore(struct play *p)
{
        struct virtio_device *v = p->fake.v;
        struct state_reader r = {.version = 1};
        const uint8_t *bytes;

        if (v->started || !v->ops->restore)
                return;
        r.left = input_take(&p->in, input_u8(&p->in), &bytes);
        r.data = bytes;
        v->ops->restore(v, &r, NULL);
}

static void act(struct play *p)
{
        switch (input_u8(&p->in) % 16) {
        case 0 ... 2:
                give(p);
                break;
        case 3:
                scribble(p);
                break;
        case 4:
        case 5:
                kick(p);
                break;
        case 6:
                send_frame(p);
                break;
        case 7:
                send_raw(p);
                break;
        case 8:
                read_stream(p, input_number(&p->in, NET_FRAME_MAX));
                break;
        case 9:
                fuzz_loop_step(p->loop);
                break;
        case 10:
                fake_reset(&p->fake);
                break;
        case 11:
                start(p);
                break;
        case 12:
                pause_and_resume(p);
                break;
        case 13:
                configure(p);
                break;
        case 14:
                if (p->device == DEVICE_MEM && (input_u8(&p->in) & 3))
                        write_request(p);
                else
                        want_memory(p);
                break;
        default:
                if (p->device == DEVICE_NET && p->peer >= 0) {
                        read_stream(p, SIZE_MAX);
                        close(p->peer);
                        p->peer = -1;
                } else {
                        restore(p);
                }
                break;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct play play;
        static struct loop *loop;
        struct play *p = &play;

        fuzz_quiet();
        if (!loop)
                loop = fuzz_loop_new();
        fuzz_loop_reset(loop);
        *p = (struct play){.loop = loop, .in = {data, size}};
        p->device = input_u8(&p->in) % DEVICES;
        make(p);
        start(p);
        for (unsigned i = 0; i < ACTS_MAX && p->in.left > 0; i++) {
                act(p);
                if (!p->fake.needs_reset)
                        fake_kick_signalled(&p->fake);
        }
        /* What the stream was given leaves, whatever became of the guest. */
        for (unsigned i = 0; i < 64; i++) {
                read_stream(p, SIZE_MAX);
                fuzz_loop_step(loop);
        }
        if (p->peer >= 0 && link_is_up(p) && (p->left > 0 || p->n_word > 0))
                abort();
        fake_fini(&p->fake);
        fuzz_loop_settle(loop);
        if (p->peer >= 0)
                close(p->peer);
        return 0;
}
