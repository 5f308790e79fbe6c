/* The network card: frames both ways over a stream, and by a tap device. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "tests/unit/loop_fixture.h"
#include "tests/vmm/fake_driver.h"
#include "vmm-glue/vmm/virtio_net.h"

#define QUIET_NS UINT64_C(3000000)
#define MERGE    NET_BIT(VIRTIO_NET_F_MRG_RXBUF)
#define TX_DATA  FAKE_DATA
#define RX_DATA  (FAKE_DATA + MIB(16))

static struct fake fake;
static int peer; /* the other end of the stream */
static struct vmm_nic nic;
static unsigned n_lost;

/* ---- the loop ---- */

struct rest {
        struct loop_timer timer;
        struct loop *loop;
};

static void rested(struct loop_timer *timer)
{
        loop_stop(container_of(timer, struct rest, timer)->loop);
}

static void settle(void)
{
        struct rest rest = {.timer.fire = rested, .loop = fake.machine.loop};

        for (unsigned i = 0; i < 3; i++) {
                if (fake.v)
                        fake_kick_signalled(&fake);
                loop_timer_set(rest.loop, &rest.timer, loop_now_ns(rest.loop) + QUIET_NS);
                loop_run(rest.loop);
        }
}

static void count_lost(void *arg, const char *id)
{
        assert_string_equal(id, "net0");
        /* Whoever is told may take the machine's lock. */
        machine_lock(&fake.machine);
        machine_unlock(&fake.machine);
        n_lost++;
}

static void make(struct loop *loop)
{
        static const struct vmm_events events = {.nic_lost = count_lost};
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        peer = ends[1];
        assert_int_equal(fcntl(peer, F_SETFL, O_NONBLOCK), 0);
        nic = (struct vmm_nic){.id = "net0",
                               .kind = VMM_NIC_STREAM,
                               .fd = ends[0],
                               .vhost_fd = -1,
                               .mac = {2, 1, 2, 3, 4, 5},
                               .mtu = 1400};
        fake_init(&fake, loop);
        fake.machine.events = &events;
        n_lost = 0;
        assert_int_equal(virtio_net_create(&fake.machine, &nic, NULL), 0);
}

static int connect_again(void)
{
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        if (peer >= 0)
                close(peer);
        peer = ends[1];
        assert_int_equal(fcntl(peer, F_SETFL, O_NONBLOCK), 0);
        nic.fd = ends[0];
        return virtio_net_connect(&fake.machine, "net0", nic.fd, NULL);
}

static void begin(struct loop *loop, uint64_t features)
{
        make(loop);
        assert_int_equal(fake_start(&fake, features, NULL), 0);
        settle();
}

static void end(void)
{
        fake_fini(&fake);
        settle(); /* polls that were cancelled end */
        if (peer >= 0)
                close(peer);
        peer = -1;
}

/* What is in the first buffer for frames when it is marked. */
static struct virtio_net_hdr_v1 marked_header;

void __real_memory_mark(const struct guest_memory *memory, const void *host, size_t length);
void __wrap_memory_mark(const struct guest_memory *memory, const void *host, size_t length);
void __wrap_memory_mark(const struct guest_memory *memory, const void *host, size_t length)
{
        if (host == fake_at(&fake, RX_DATA))
                memcpy(&marked_header, host, sizeof(marked_header));
        __real_memory_mark(memory, host, length);
}

/* ---- frames ---- */

static void fill(uint8_t *data, size_t size, unsigned seed)
{
        for (size_t i = 0; i < size; i++)
                data[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void give_tx(uint64_t gpa, size_t length, unsigned seed)
{
        const struct fake_piece pieces[] = {
            {gpa, NET_HEADER_SIZE, false},
            {gpa + NET_HEADER_SIZE, (uint32_t)(length / 2), false},
            {gpa + NET_HEADER_SIZE + length / 2, (uint32_t)(length - length / 2), false}};

        fill((uint8_t *)fake_at(&fake, gpa) + NET_HEADER_SIZE, length, seed);
        fake_give(&fake, NET_QUEUE_TX, pieces, 3);
}

static void give_rx(uint64_t gpa, uint32_t length)
{
        const struct fake_piece piece = {gpa, length, true};

        fake_give(&fake, NET_QUEUE_RX, &piece, 1);
}

static size_t read_all(uint8_t *data, size_t size)
{
        size_t done = 0;
        ssize_t n;

        while (done < size && (n = recv(peer, data + done, size - done, 0)) > 0)
                done += (size_t)n;
        return done;
}

static void send_words(const void *data, size_t size)
{
        assert_int_equal(send(peer, data, size, MSG_NOSIGNAL), size);
}

static void send_frame(size_t length, unsigned seed)
{
        uint8_t bytes[4 + 70000];
        uint32_t word = htonl((uint32_t)length);

        memcpy(bytes, &word, 4);
        fill(bytes + 4, length, seed);
        send_words(bytes, 4 + length);
}

static void assert_frame(uint64_t gpa, size_t length, unsigned seed)
{
        uint8_t wanted[70000];

        fill(wanted, length, seed);
        assert_memory_equal(fake_at(&fake, gpa), wanted, length);
}

static unsigned number_of_chains(uint64_t gpa)
{
        const struct virtio_net_hdr_v1 *header = fake_at(&fake, gpa);

        return le16toh(header->num_buffers);
}

static bool link_is_up(void)
{
        uint16_t status;

        fake.v->ops->read_config(fake.v, offsetof(struct virtio_net_config, status), &status, 2);
        return le16toh(status) & VIRTIO_NET_S_LINK_UP;
}

/* ---- tests ---- */

static void tells_address_link_and_mtu(void **state)
{
        struct virtio_net_config config;
        uint8_t beyond[64];

        make(*state);
        fake.v->ops->read_config(fake.v, 0, &config, sizeof(config));
        assert_memory_equal(config.mac, nic.mac, 6);
        assert_int_equal(le16toh(config.status), VIRTIO_NET_S_LINK_UP);
        assert_int_equal(le16toh(config.mtu), 1400);
        memset(beyond, 0xff, sizeof(beyond));
        fake.v->ops->read_config(fake.v, sizeof(config) - 1, beyond, sizeof(beyond));
        for (size_t i = 0; i < sizeof(beyond); i++)
                assert_int_equal(beyond[i], 0);
        fake.v->ops->read_config(fake.v, UINT32_MAX, beyond, sizeof(beyond));
        assert_true(fake.v->ops->features(fake.v) & NET_BIT(VIRTIO_NET_F_MTU));
        /* passt computes checksums itself. */
        assert_false(fake.v->ops->features(fake.v) & NET_BIT(VIRTIO_NET_F_CSUM));
        end();
}

static void sends_frames_with_their_length(void **state)
{
        uint8_t got[4 + 600], wanted[600];
        uint32_t length;

        begin(*state, MERGE);
        give_tx(TX_DATA, 600, 3);
        fake_kick(&fake, NET_QUEUE_TX);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, &length));
        assert_int_equal(length, 0);
        assert_int_equal(read_all(got, sizeof(got)), sizeof(got));
        assert_int_equal(ntohl(*(uint32_t *)got), 600);
        fill(wanted, 600, 3);
        assert_memory_equal(got + 4, wanted, 600);
        end();
}

/* A socket that takes little at a time: every frame leaves whole, in order. */
static void goes_on_with_a_frame_that_was_sent_in_part(void **state)
{
        enum { FRAMES = 20, LENGTH = 60000 };
        static uint8_t got[FRAMES * (4 + LENGTH)];
        uint8_t wanted[LENGTH];
        size_t done = 0;
        int small = 4096;

        begin(*state, MERGE);
        assert_int_equal(setsockopt(nic.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        for (unsigned i = 0; i < FRAMES; i++)
                give_tx(TX_DATA + i * KIB(64), LENGTH, i);
        fake_kick(&fake, NET_QUEUE_TX);
        for (unsigned i = 0; i < 2000 && done < sizeof(got); i++) {
                size_t n = read_all(got + done, sizeof(got) - done);

                done += n;
                settle();
        }
        assert_int_equal(done, sizeof(got));
        for (unsigned i = 0; i < FRAMES; i++) {
                fill(wanted, LENGTH, i);
                assert_int_equal(ntohl(*(uint32_t *)(got + i * (4 + LENGTH))), LENGTH);
                assert_memory_equal(got + i * (4 + LENGTH) + 4, wanted, LENGTH);
        }
        end();
}

/* What was sent in part leaves, though the guest has been reset meanwhile. */
static void keeps_framing_over_a_reset(void **state)
{
        enum { LENGTH = 60000 };
        static uint8_t got[2 * (4 + LENGTH)];
        size_t done = 0;
        int small = 4096;

        begin(*state, MERGE);
        assert_int_equal(setsockopt(nic.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        give_tx(TX_DATA, LENGTH, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        fake_reset(&fake);
        for (unsigned i = 0; i < 200 && done < 4 + LENGTH; i++) {
                done += read_all(got + done, 4 + LENGTH - done);
                settle();
        }
        assert_int_equal(done, 4 + LENGTH);
        assert_int_equal(fake_start(&fake, MERGE, NULL), 0);
        give_tx(TX_DATA, 100, 2);
        settle();
        assert_int_equal(read_all(got, sizeof(got)), 104);
        assert_int_equal(ntohl(*(uint32_t *)got), 100);
        end();
}

static void drops_what_makes_no_frame(void **state)
{
        const struct fake_piece none = {TX_DATA, NET_HEADER_SIZE, false};
        const struct fake_piece header_cut = {TX_DATA, NET_HEADER_SIZE - 1, false};
        const struct fake_piece short_one = {TX_DATA, NET_HEADER_SIZE + NET_FRAME_MIN - 1, false};
        const struct fake_piece long_one = {TX_DATA, NET_HEADER_SIZE + NET_FRAME_MAX + 1, false};
        const struct fake_piece huge[] = {{0, (uint32_t)FAKE_MEMORY, false},
                                          {0, (uint32_t)FAKE_MEMORY, false}};
        const struct fake_piece wrong_way = {TX_DATA, 100, true};
        uint8_t got[16];

        begin(*state, MERGE);
        fake_give(&fake, NET_QUEUE_TX, &none, 1);
        fake_give(&fake, NET_QUEUE_TX, &header_cut, 1);
        fake_give(&fake, NET_QUEUE_TX, &short_one, 1);
        fake_give(&fake, NET_QUEUE_TX, &long_one, 1);
        fake_give(&fake, NET_QUEUE_TX, huge, 2);
        fake_give(&fake, NET_QUEUE_TX, &wrong_way, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        settle();
        for (unsigned i = 0; i < 6; i++)
                assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
        assert_int_equal(read_all(got, sizeof(got)), 0);
        assert_false(fake.needs_reset);
        end();
}

static void breaks_with_a_guest_that_sends_what_is_not_memory(void **state)
{
        const struct fake_piece piece = {FAKE_MEMORY - 50, 100, false};

        begin(*state, MERGE);
        fake_give(&fake, NET_QUEUE_TX, &piece, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        settle();
        assert_true(fake.needs_reset);
        end();
}

static void receives_frames(void **state)
{
        uint32_t length;

        begin(*state, MERGE);
        give_rx(RX_DATA, 2048);
        give_rx(RX_DATA + 2048, 2048);
        fake_kick(&fake, NET_QUEUE_RX);
        send_frame(60, 1);
        send_frame(1514, 2);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
        assert_int_equal(length, NET_HEADER_SIZE + 60);
        assert_frame(RX_DATA + NET_HEADER_SIZE, 60, 1);
        assert_int_equal(number_of_chains(RX_DATA), 1);
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
        assert_int_equal(length, NET_HEADER_SIZE + 1514);
        assert_frame(RX_DATA + 2048 + NET_HEADER_SIZE, 1514, 2);
        end();
}

static void receives_a_frame_that_comes_byte_by_byte(void **state)
{
        uint8_t bytes[4 + 60] = {0, 0, 0, 60};

        begin(*state, MERGE);
        give_rx(RX_DATA, 2048);
        fill(bytes + 4, 60, 9);
        for (size_t i = 0; i < sizeof(bytes); i++) {
                assert_false(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
                send_words(bytes + i, 1);
                settle();
        }
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
        assert_frame(RX_DATA + NET_HEADER_SIZE, 60, 9);
        end();
}

/* Nothing is lost while the guest has no buffers, and nothing is read without end. */
static void waits_for_buffers(void **state)
{
        uint32_t length;

        begin(*state, MERGE);
        for (unsigned i = 0; i < 10; i++)
                send_frame(1000, i);
        settle();
        assert_false(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
        for (unsigned i = 0; i < 10; i++) {
                give_rx(RX_DATA, 2048);
                fake_kick(&fake, NET_QUEUE_RX);
                settle();
                assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
                assert_int_equal(length, NET_HEADER_SIZE + 1000);
                assert_frame(RX_DATA + NET_HEADER_SIZE, 1000, i);
                assert_false(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
        }
        end();
}

static void spreads_a_frame_over_chains(void **state)
{
        uint32_t length;

        begin(*state, MERGE);
        send_frame(500, 5);
        /* Too few: none of them comes back. */
        give_rx(RX_DATA, 200);
        fake_kick(&fake, NET_QUEUE_RX);
        settle();
        give_rx(RX_DATA + 200, 200);
        fake_kick(&fake, NET_QUEUE_RX);
        settle();
        assert_false(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
        give_rx(RX_DATA + 400, 200);
        fake_kick(&fake, NET_QUEUE_RX);
        settle();
        for (unsigned i = 0; i < 3; i++) {
                assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
                assert_int_equal(length, i < 2 ? 200 : NET_HEADER_SIZE + 500 - 400);
        }
        assert_int_equal(number_of_chains(RX_DATA), 3);
        assert_frame(RX_DATA + NET_HEADER_SIZE, 500, 5);
        end();
}

/* With event indices a kick is only asked for behind what is there already. */
static void is_kicked_for_the_chain_that_was_missing(void **state)
{
        uint16_t event;

        begin(*state, MERGE | NET_BIT(VIRTIO_RING_F_EVENT_IDX));
        send_frame(500, 5);
        give_rx(RX_DATA, 200);
        give_rx(RX_DATA + 200, 200);
        fake_kick(&fake, NET_QUEUE_RX);
        settle();
        event =
            *(uint16_t *)&fake.rings[NET_QUEUE_RX].used->ring[fake.v->queues[NET_QUEUE_RX].size];
        assert_int_equal(event, 2);
        assert_int_equal(fake.v->queues[NET_QUEUE_RX].next_available, 0);
        end();
}

static void drops_a_frame_that_never_fits(void **state)
{
        uint32_t length;

        begin(*state, 0);
        send_frame(500, 5);
        send_frame(100, 6);
        give_rx(RX_DATA, 200);
        fake_kick(&fake, NET_QUEUE_RX);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
        assert_int_equal(length, NET_HEADER_SIZE + 100);
        assert_frame(RX_DATA + NET_HEADER_SIZE, 100, 6);
        end();

        /* All chains of the ring together are too small. */
        begin(*state, MERGE);
        for (unsigned i = 0; i < FAKE_QUEUE_SIZE; i++)
                give_rx(RX_DATA + i * 16, 16);
        send_frame(5000, 7);
        send_frame(100, 8);
        fake_kick(&fake, NET_QUEUE_RX);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
        assert_int_equal(number_of_chains(RX_DATA), 7);
        end();
}

static void drops_a_frame_whose_header_does_not_fit(void **state)
{
        begin(*state, MERGE);
        for (unsigned i = 0; i < 10; i++)
                give_rx(RX_DATA + i * 11, 11);
        send_frame(60, 1);
        settle();
        assert_false(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
        assert_true(link_is_up());
        end();
}

static void drops_frames_that_are_none(void **state)
{
        uint32_t length;

        begin(*state, MERGE);
        give_rx(RX_DATA, 2048);
        send_frame(0, 0);
        send_frame(13, 0);
        send_frame(14, 4);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, &length));
        assert_int_equal(length, NET_HEADER_SIZE + 14);
        assert_frame(RX_DATA + NET_HEADER_SIZE, 14, 4);
        end();
}

static void takes_the_largest_frame(void **state)
{
        uint32_t length, total = 0;

        begin(*state, MERGE);
        for (unsigned i = 0; i < 40; i++)
                give_rx(RX_DATA + i * 2048, 2048);
        send_frame(NET_FRAME_MAX, 1);
        settle();
        settle();
        while (fake_take(&fake, NET_QUEUE_RX, NULL, &length))
                total += length;
        assert_int_equal(total, NET_HEADER_SIZE + NET_FRAME_MAX);
        assert_frame(RX_DATA + NET_HEADER_SIZE, NET_FRAME_MAX, 1);
        end();
}

/* Where the next frame begins nobody knows then. */
static void ends_the_link_at_a_length_that_cannot_be(void **state)
{
        const uint32_t words[] = {NET_FRAME_MAX + 1, 0xffffffff};

        for (unsigned i = 0; i < 2; i++) {
                uint32_t word = htonl(words[i]);

                begin(*state, MERGE);
                give_rx(RX_DATA, 2048);
                send_words(&word, 4);
                settle();
                assert_false(link_is_up());
                assert_int_equal(fake.n_config_changes, 1);
                /* What the guest sends is dropped. */
                give_tx(TX_DATA, 100, 1);
                fake_kick(&fake, NET_QUEUE_TX);
                assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
                end();
        }
}

static void tells_the_guest_that_the_other_end_is_gone(void **state)
{
        begin(*state, MERGE);
        close(peer);
        peer = -1;
        settle();
        assert_false(link_is_up());
        give_tx(TX_DATA, 100, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
        end();

        /* Seen in sending. */
        make(*state);
        close(peer);
        peer = -1;
        assert_int_equal(fake_start(&fake, MERGE, NULL), 0);
        give_tx(TX_DATA, 100, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        assert_false(link_is_up());
        end();
}

static void assert_moves_frames(void)
{
        uint8_t got[4 + 100];

        give_rx(RX_DATA, 2048);
        send_frame(60, 5);
        give_tx(TX_DATA, 100, 6);
        fake_kick(&fake, NET_QUEUE_TX);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_RX, NULL, NULL));
        assert_frame(RX_DATA + NET_HEADER_SIZE, 60, 5);
        assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
        assert_int_equal(read_all(got, sizeof(got)), sizeof(got));
}

/* Lost in each way: with a frame sent in part, without buffers to receive into, by nonsense. */
static void takes_another_in_the_other_ends_place(void **state)
{
        const uint32_t nonsense = 0xffffffff;
        int small = 4096;

        begin(*state, MERGE);
        close(peer);
        peer = -1;
        settle();
        assert_int_equal(n_lost, 1);
        assert_int_equal(connect_again(), 0);
        assert_true(link_is_up());
        assert_int_equal(fake.n_config_changes, 2);
        assert_moves_frames();

        assert_int_equal(setsockopt(nic.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        give_tx(TX_DATA, 60000, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        close(peer);
        peer = -1;
        settle();
        assert_int_equal(n_lost, 2);
        assert_int_equal(connect_again(), 0);
        fake_take(&fake, NET_QUEUE_TX, NULL, NULL);
        assert_moves_frames(); /* nothing of the frame that was sent in part comes before */

        send_words(&nonsense, 4);
        settle();
        assert_int_equal(n_lost, 3);
        assert_false(link_is_up());
        assert_int_equal(connect_again(), 0);
        assert_moves_frames();
        end();
}

static void takes_another_while_no_driver_runs(void **state)
{
        begin(*state, MERGE);
        close(peer);
        peer = -1;
        settle();
        fake_reset(&fake);
        assert_int_equal(connect_again(), 0);
        settle();
        assert_true(link_is_up());
        assert_int_equal(fake_start(&fake, MERGE, NULL), 0);
        settle();
        assert_moves_frames();
        end();
}

static void takes_no_other_before_it_has_let_go(void **state)
{
        int ends[2];

        begin(*state, MERGE);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        assert_int_equal(virtio_net_connect(&fake.machine, "net0", ends[0], NULL), -EBUSY);
        assert_int_equal(fcntl(ends[0], F_GETFD), -1);
        assert_moves_frames();
        /* Seen in sending, while a poll for what comes is under way. */
        close(peer);
        peer = -1;
        give_tx(TX_DATA, 100, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        assert_false(link_is_up());
        assert_int_equal(virtio_net_connect(&fake.machine, "net0", dup(ends[1]), NULL), -EBUSY);
        settle();
        assert_int_equal(n_lost, 1);
        assert_int_equal(virtio_net_connect(&fake.machine, "net1", dup(ends[1]), NULL), -ENOENT);
        close(ends[1]);
        assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
        assert_int_equal(connect_again(), 0);
        assert_moves_frames();
        end();
}

static unsigned take_all(unsigned queue)
{
        unsigned n = 0;

        while (fake_take(&fake, queue, NULL, NULL))
                n++;
        return n;
}

/* Others have their turn, and then it goes on by itself. */
static void does_so_much_in_a_turn(void **state)
{
        enum { FRAMES = 200 };
        unsigned n;

        begin(*state, MERGE);
        for (unsigned i = 0; i < FRAMES; i++) {
                const struct fake_piece piece = {TX_DATA, NET_HEADER_SIZE + 14, false};

                fake_give(&fake, NET_QUEUE_TX, &piece, 1);
                give_rx(RX_DATA + i * 64, 64);
        }
        fake_kick(&fake, NET_QUEUE_TX);
        n = take_all(NET_QUEUE_TX);
        assert_in_range(n, 1, FRAMES - 1);
        fake_kick_signalled(&fake);
        assert_int_equal(n + take_all(NET_QUEUE_TX), FRAMES);
        for (unsigned i = 0; i < FRAMES; i++)
                send_frame(20, i);
        fake_kick(&fake, NET_QUEUE_RX);
        n = take_all(NET_QUEUE_RX);
        assert_in_range(n, 1, FRAMES - 1);
        fake_kick_signalled(&fake);
        assert_int_equal(n + take_all(NET_QUEUE_RX), FRAMES);
        for (unsigned i = 0; i < FRAMES; i++)
                assert_frame(RX_DATA + i * 64 + NET_HEADER_SIZE, 20, i);
        end();
}

static void goes_round_its_rings(void **state)
{
        enum { FRAMES = 1000 };
        unsigned given = 0, taken = 0;

        begin(*state, MERGE);
        while (taken < FRAMES) {
                uint8_t got[4 + 100];

                while (given < FRAMES && given - taken < FAKE_QUEUE_SIZE / 3) {
                        give_tx(TX_DATA + given % FAKE_QUEUE_SIZE * KIB(1), 100, given);
                        given++;
                }
                fake_kick(&fake, NET_QUEUE_TX);
                while (fake_take(&fake, NET_QUEUE_TX, NULL, NULL)) {
                        assert_int_equal(read_all(got, sizeof(got)), sizeof(got));
                        assert_int_equal(got[4], (uint8_t)taken);
                        taken++;
                }
        }
        end();
}

/* What is written to the guest is noted for a copy of its memory. */
static void notes_what_it_writes(void **state)
{
        const struct guest_region *region;
        uint64_t *bits;

        begin(*state, MERGE);
        region = &fake.machine.memory.regions[0];
        bits = calloc(region->size / MEMORY_LOG_PAGE / 64, 8);
        assert_non_null(bits);
        assert_int_equal(memory_log_begin(&fake.machine.memory, NULL), 0);
        give_rx(RX_DATA, 2048);
        send_frame(60, 1);
        settle();
        assert_int_equal(memory_log_take(&fake.machine.memory, region, bits, NULL), 0);
        assert_true(bits[RX_DATA / MEMORY_LOG_PAGE / 64] >> (RX_DATA / MEMORY_LOG_PAGE % 64) & 1);
        memory_log_end(&fake.machine.memory);
        free(bits);
        end();
}

/* The number of chains is written last: a mark before that would be taken, and the page copied, too early. */
static void notes_a_header_when_it_is_complete(void **state)
{
        begin(*state, MERGE);
        assert_int_equal(memory_log_begin(&fake.machine.memory, NULL), 0);
        for (unsigned i = 0; i < 3; i++)
                give_rx(RX_DATA + i * KIB(8), 1000);
        send_frame(2500, 1);
        settle();
        assert_int_equal(number_of_chains(RX_DATA), 3);
        assert_int_equal(le16toh(marked_header.num_buffers), 3);
        memory_log_end(&fake.machine.memory);
        end();
}

static void is_freed_with_polls_under_way(void **state)
{
        int small = 4096;

        begin(*state, MERGE);
        assert_int_equal(setsockopt(nic.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        give_tx(TX_DATA, 60000, 1);
        fake_kick(&fake, NET_QUEUE_TX);
        end();
}

/* ---- a real tap device ---- */

static int make_tap(char name[IFNAMSIZ])
{
        struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
        int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), control;

        if (fd < 0)
                return -1;
        snprintf(request.ifr_name, IFNAMSIZ, "tarn%%d");
        if (ioctl(fd, TUNSETIFF, &request) < 0) {
                close(fd);
                return -1;
        }
        memcpy(name, request.ifr_name, IFNAMSIZ);
        control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        request.ifr_flags = IFF_UP;
        if (control < 0 || ioctl(control, SIOCSIFFLAGS, &request) < 0) {
                close(fd);
                fd = -1;
        }
        if (control >= 0)
                close(control);
        return fd;
}

static void moves_frames_by_a_tap_device(void **state)
{
        char name[IFNAMSIZ];
        int fd = make_tap(name), got = 0;
        uint64_t features;

        if (fd < 0)
                skip();
        peer = -1;
        nic = (struct vmm_nic){.id = "net0", .kind = VMM_NIC_TAP, .fd = fd, .vhost_fd = -1};
        fake_init(&fake, *state);
        assert_int_equal(virtio_net_create(&fake.machine, &nic, NULL), 0);
        features = fake.v->ops->features(fake.v);
        assert_true(features & NET_BIT(VIRTIO_NET_F_HOST_TSO4));
        assert_true(features & NET_BIT(VIRTIO_NET_F_GUEST_CSUM));
        assert_int_equal(fake_start(&fake, features, NULL), 0);
        /* An interface that comes up says something of itself: neighbours, multicast groups. */
        for (unsigned i = 0; i < 8; i++)
                give_rx(RX_DATA + i * 2048, 2048);
        for (unsigned i = 0; i < 500 && !got; i++) {
                uint32_t length;

                settle();
                got = fake_take(&fake, NET_QUEUE_RX, NULL, &length);
                if (got)
                        assert_true(length > NET_HEADER_SIZE + NET_FRAME_MIN);
        }
        if (!got)
                print_message("the interface said nothing: no IPv6 here?\n");
        give_tx(TX_DATA, 100, 1);
        memset(fake_at(&fake, TX_DATA), 0, NET_HEADER_SIZE);
        /* A header that the kernel refuses loses this frame, and not the link. */
        give_tx(TX_DATA + KIB(4), 100, 1);
        memset(fake_at(&fake, TX_DATA + KIB(4)), 0xff, NET_HEADER_SIZE);
        fake_kick(&fake, NET_QUEUE_TX);
        settle();
        assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
        assert_true(fake_take(&fake, NET_QUEUE_TX, NULL, NULL));
        assert_true(link_is_up());
        end();
}

static void refuses_what_is_no_tap_device(void **state)
{
        struct error err = ERROR_INIT;
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        nic = (struct vmm_nic){.id = "net0", .kind = VMM_NIC_TAP, .fd = ends[0], .vhost_fd = -1};
        fake_init(&fake, *state);
        assert_true(virtio_net_create(&fake.machine, &nic, &err) < 0);
        assert_non_null(strstr(err.message, "net0: "));
        assert_int_equal(fcntl(ends[0], F_GETFD), -1);
        peer = ends[1];
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(tells_address_link_and_mtu),
            loop_test(sends_frames_with_their_length),
            loop_test(goes_on_with_a_frame_that_was_sent_in_part),
            loop_test(keeps_framing_over_a_reset),
            loop_test(drops_what_makes_no_frame),
            loop_test(breaks_with_a_guest_that_sends_what_is_not_memory),
            loop_test(receives_frames),
            loop_test(receives_a_frame_that_comes_byte_by_byte),
            loop_test(waits_for_buffers),
            loop_test(spreads_a_frame_over_chains),
            loop_test(is_kicked_for_the_chain_that_was_missing),
            loop_test(drops_a_frame_that_never_fits),
            loop_test(drops_a_frame_whose_header_does_not_fit),
            loop_test(drops_frames_that_are_none),
            loop_test(takes_the_largest_frame),
            loop_test(ends_the_link_at_a_length_that_cannot_be),
            loop_test(tells_the_guest_that_the_other_end_is_gone),
            loop_test(takes_another_in_the_other_ends_place),
            loop_test(takes_another_while_no_driver_runs),
            loop_test(takes_no_other_before_it_has_let_go),
            loop_test(does_so_much_in_a_turn),
            loop_test(goes_round_its_rings),
            loop_test(notes_what_it_writes),
            loop_test(notes_a_header_when_it_is_complete),
            loop_test(is_freed_with_polls_under_way),
            loop_test(moves_frames_by_a_tap_device),
            loop_test(refuses_what_is_no_tap_device),
        };

        return run_on_each_backend(tests);
}
