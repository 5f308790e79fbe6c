/* test_hostile.c - front ends that send rubbish: the server refuses, or cuts them off, and serves
 * the others all the time. What they send comes from a seed, which is printed; TARN_TEST_SEED=N
 * takes another. Over volumes in memory, or on the device at VHOST_SOCKET. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

static uint64_t seed;
static unsigned fds_before, fds_idle; /* with the neighbour connected; without, of VHOST_SOCKET's */
static struct server *server;         /* NULL: the one of VHOST_SOCKET, of process SERVER_PID */
static pid_t pid;
static struct disk *neighbour; /* is served while rubbish comes to another */

static uint32_t random32(void)
{
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t)(seed >> 32);
}

static uint32_t below(uint32_t n)
{
        return random32() % n;
}

static void halt_server(void)
{
        if (server)
                server_halt(server);
        else
                assert_int_equal(kill(pid, SIGSTOP), 0);
}

static void let_server_go_on(void)
{
        if (server)
                server_go_on(server);
        else
                assert_int_equal(kill(pid, SIGCONT), 0);
}

static int setup(void **state)
{
        const char *text = getenv("TARN_TEST_SEED");

        seed = text ? strtoull(text, NULL, 0) : 1;
        print_message("seed %" PRIu64 "\n", seed);
        check_set_path(NULL);
        server = getenv("VHOST_SOCKET") ? NULL : server_start(NULL);
        if (server)
                check_set_path(server_path(server, SERVER_VOL));
        pid = getenv("SERVER_PID") ? atoi(getenv("SERVER_PID")) : 0;
        if (!server && fds_idle == 0)
                fds_idle = server_n_fds(pid);
        neighbour = check_open((struct disk_options){
            .path = server ? server_path(server, SERVER_OTHER) : getenv("VHOST_SOCKET")});
        check_alive(neighbour);
        fds_before = server_n_fds(pid);
        return 0;
}

static int teardown(void **state)
{
        check_alive(neighbour);
        server_wait_fds(pid, fds_before); /* a device has room for a few front ends only */
        check_server_alive();
        server_wait_fds(pid, fds_before);
        disk_close(neighbour);
        if (server) {
                server_wait_clients(server, 0);
                server_stop(server);
        } else
                server_wait_fds(pid, fds_idle);
        return 0;
}

/* A device has room for a few front ends, and one that is gone counts until what it had in flight has
 * ended. */
static struct disk *open_disk(struct disk_options options)
{
        struct disk *d = NULL;

        options.path = check_path();
        check_err = ERROR_INIT;
        int r = disk_open(&options, &d, &check_err);
        if (r == 0)
                return d;
        if (r != -ECONNRESET)
                fail_msg("%s", check_err.message);
        server_wait_fds(pid, fds_before);
        return check_open(options);
}

static struct front *connect_front(void)
{
        struct front *f = NULL;

        ok(front_connect(check_path(), &f, &check_err));
        return f;
}

/* What comes back is of no interest, as long as something does or the end. */
static void drain_front(struct front *f)
{
        uint8_t rubbish[4096];
        union {
                struct cmsghdr header;
                uint8_t space[CMSG_SPACE(16 * sizeof(int))];
        } control;

        shutdown(f->fd, SHUT_WR);
        for (;;) {
                struct iovec iov = {rubbish, sizeof(rubbish)};
                struct msghdr message = {.msg_iov = &iov,
                                         .msg_iovlen = 1,
                                         .msg_control = &control,
                                         .msg_controllen = sizeof(control)};
                ssize_t n = recvmsg(f->fd, &message, MSG_CMSG_CLOEXEC);
                for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); n >= 0 && c;
                     c = CMSG_NXTHDR(&message, c)) {
                        int fds[16];
                        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
                        for (size_t i = 0; i < count; i++)
                                close(fds[i]);
                }
                if (n > 0)
                        continue;
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        fail_msg("the server neither answers nor closes");
                break;
        }
        front_close(f);
}

/* A message that some front end would send, with its descriptors; the number of bytes. */
static size_t good_message(const struct disk *d, uint32_t request, uint8_t *bytes, int *fds,
                           unsigned *ret_n_fds)
{
        const struct guest *m = d->memory;
        const struct ring *r = &d->rings[0];
        struct vu_header header = {.request = request, .flags = VU_VERSION | VU_NEED_REPLY};
        struct vu_table table = {.n_regions = m->n_regions};
        struct vu_config config = {.size = 60};
        struct vu_vring_state state = {0, r->size};
        struct vu_single_region single = {.region = m->regions[0].address};
        struct vu_log log = {.size = 1 << 18};
        struct vu_vring_addr address = {.descriptor = guest_user(m, r->descriptors),
                                        .used = guest_user(m, r->device),
                                        .available = guest_user(m, r->driver)};
        uint64_t number = 0;
        const void *payload = &number;

        header.size = sizeof(number);
        *ret_n_fds = 0;
        switch (request) {
        case VU_SET_FEATURES:
                number = d->front->features;
                break;
        case VU_SET_PROTOCOL_FEATURES:
                number = d->front->protocol;
                break;
        case VU_SET_MEM_TABLE:
                for (unsigned i = 0; i < m->n_regions; i++) {
                        table.regions[i] = m->regions[i].address;
                        fds[i] = m->regions[i].fd;
                }
                *ret_n_fds = m->n_regions;
                payload = &table;
                header.size = 8 + m->n_regions * (uint32_t)sizeof(struct vu_region);
                break;
        case VU_ADD_MEM_REG:
        case VU_REM_MEM_REG:
                fds[0] = m->regions[0].fd;
                *ret_n_fds = request == VU_ADD_MEM_REG;
                payload = &single;
                header.size = sizeof(single);
                break;
        case VU_SET_LOG_BASE:
                fds[0] = m->regions[0].fd;
                *ret_n_fds = 1;
                payload = &log;
                header.size = sizeof(log);
                break;
        case VU_SET_VRING_KICK:
        case VU_SET_VRING_CALL:
        case VU_SET_VRING_ERR:
                fds[0] = request == VU_SET_VRING_KICK ? r->kick : r->call;
                *ret_n_fds = 1;
                break;
        case VU_SET_BACKEND_REQ_FD:
        case VU_SET_LOG_FD:
                fds[0] = r->call;
                *ret_n_fds = 1;
                header.size = 0;
                break;
        case VU_SET_VRING_NUM:
        case VU_SET_VRING_BASE:
        case VU_GET_VRING_BASE:
        case VU_SET_VRING_ENABLE:
                state.num = request == VU_SET_VRING_NUM ? r->size : request == VU_SET_VRING_ENABLE;
                payload = &state;
                header.size = sizeof(state);
                break;
        case VU_SET_VRING_ADDR:
                payload = &address;
                header.size = sizeof(address);
                break;
        case VU_GET_CONFIG:
        case VU_SET_CONFIG:
                payload = &config;
                header.size = VU_CONFIG_HEADER + config.size;
                break;
        case VU_GET_INFLIGHT_FD:
        case VU_SET_INFLIGHT_FD:
                fds[0] = d->inflight_fd;
                *ret_n_fds = request == VU_SET_INFLIGHT_FD;
                payload = &d->inflight;
                header.size = VU_INFLIGHT_SIZE;
                break;
        case VU_SET_STATUS:
                break;
        default:
                header.size = 0;
        }
        memcpy(bytes, &header, sizeof(header));
        memcpy(bytes + sizeof(header), payload, header.size);
        return sizeof(header) + header.size;
}

/* Numbers that are likelier to be half right than random ones. */
static void random_payload(uint8_t *bytes, size_t n_bytes)
{
        const uint64_t favourites[] = {0,
                                       1,
                                       2,
                                       128,
                                       4096,
                                       UINT32_MAX,
                                       UINT64_MAX,
                                       UINT64_C(1) << 32,
                                       UINT64_C(0x100000000000)};

        for (size_t i = 0; i < n_bytes; i++)
                bytes[i] = (uint8_t)(below(3) ? 0 : random32());
        for (size_t i = 0; i + 8 <= n_bytes; i += 8)
                if (below(2))
                        memcpy(bytes + i, &favourites[below(9)], 8);
}

/* ---- messages ---- */

static void every_message_cut_at_every_byte(void **state)
{
        for (uint32_t request = 0; request < 42; request++) {
                struct disk *d = open_disk((struct disk_options){0});
                uint8_t bytes[1024];
                unsigned n_fds;
                int fds[8];
                size_t n = good_message(d, request, bytes, fds, &n_fds);
                for (size_t cut = 1; cut <= n; cut++) {
                        struct front *f = connect_front();
                        check_err = ERROR_INIT;
                        (void)front_send_bytes(f, bytes, cut, fds, n_fds, &check_err);
                        if (cut % 2)
                                drain_front(f);
                        else /* gone without a word */
                                front_close(f);
                }
                disk_close(d);
        }
}

static void every_message_in_pieces(void **state)
{
        for (uint32_t request = 0; request < 42; request++) {
                struct disk *d = open_disk((struct disk_options){0});
                uint8_t bytes[1024];
                unsigned n_fds;
                int fds[8];
                size_t n = good_message(d, request, bytes, fds, &n_fds);
                check_err = ERROR_INIT;
                for (size_t i = 0; i < n; i++)
                        if (front_send_bytes(d->front, bytes + i, 1, fds, i ? 0 : n_fds,
                                             &check_err) < 0)
                                break;
                drain_front(d->front);
                d->front = NULL;
                disk_close(d);
        }
}

static void every_message_with_every_wrong_size(void **state)
{
        const uint32_t sizes[] = {0,  1,  4,  7,  8,  9,   12,  16,  20,  24,
                                  32, 39, 40, 41, 64, 256, 264, 268, 269, 1000};

        for (uint32_t request = 0; request < 42; request++)
                for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                        struct disk *d = open_disk((struct disk_options){.n_queues = 1 + i % 2});
                        uint8_t bytes[2048] = {0};
                        struct vu_header header;
                        unsigned n_fds;
                        int fds[8];
                        good_message(d, request, bytes, fds, &n_fds);
                        memcpy(&header, bytes, sizeof(header));
                        header.size = sizes[i];
                        memcpy(bytes, &header, sizeof(header));
                        check_err = ERROR_INIT;
                        (void)front_send_bytes(d->front, bytes, sizeof(header) + sizes[i], fds,
                                               n_fds, &check_err);
                        drain_front(d->front);
                        d->front = NULL;
                        disk_close(d);
                }
}

static void a_huge_size_in_a_header(void **state)
{
        const uint32_t sizes[] = {4097, 65536, 1u << 24, 1u << 31, UINT32_MAX};

        for (uint32_t request = 0; request < 42; request++)
                for (unsigned i = 0; i < 5; i++) {
                        struct front *f = connect_front();
                        struct vu_header header = {request, VU_VERSION, sizes[i]};
                        uint8_t zeroes[4096] = {0};
                        check_err = ERROR_INIT;
                        if (front_send_bytes(f, &header, sizeof(header), NULL, 0, &check_err) == 0)
                                (void)front_send_bytes(f, zeroes, sizeof(zeroes), NULL, 0,
                                                       &check_err);
                        drain_front(f);
                }
}

static void wrong_versions_and_flags(void **state)
{
        for (uint32_t flags = 0; flags < 64; flags++) {
                struct front *f = connect_front();
                check_err = ERROR_INIT;
                (void)front_send(f, VU_GET_FEATURES, flags, NULL, 0, NULL, 0, &check_err);
                (void)front_send(f, VU_GET_FEATURES, UINT32_MAX << flags % 32, NULL, 0, NULL, 0,
                                 &check_err);
                drain_front(f);
        }
}

static void every_message_before_every_other(void **state)
{
        for (uint32_t first = 0; first < 42; first++)
                for (uint32_t second = 0; second < 42; second++) {
                        struct disk *d = open_disk((struct disk_options){.stopped = first % 2});
                        struct front *f = connect_front();
                        uint8_t bytes[1024];
                        unsigned n_fds;
                        int fds[8];
                        check_err = ERROR_INIT;
                        size_t n = good_message(d, first, bytes, fds, &n_fds);
                        if (front_send_bytes(f, bytes, n, fds, n_fds, &check_err) == 0) {
                                n = good_message(d, second, bytes, fds, &n_fds);
                                (void)front_send_bytes(f, bytes, n, fds, n_fds, &check_err);
                        }
                        drain_front(f);
                        disk_close(d);
                }
}

static void random_messages_at_a_running_device(void **state)
{
        for (unsigned round = 0; round < 300; round++) {
                struct disk *d = open_disk((struct disk_options){
                    .packed = round % 2, .n_queues = 2, .by_slots = round % 3 == 0});
                for (unsigned i = 0; i < 10; i++) {
                        uint8_t bytes[1024];
                        struct vu_header header;
                        unsigned n_fds;
                        int fds[8];
                        size_t n = good_message(d, 1 + below(41), bytes, fds, &n_fds);
                        memcpy(&header, bytes, sizeof(header));
                        if (below(2))
                                random_payload(bytes + sizeof(header), header.size);
                        else if (header.size > 0)
                                bytes[sizeof(header) + below(header.size)] ^= (uint8_t)random32();
                        check_err = ERROR_INIT;
                        if (front_send_bytes(d->front, bytes, n, fds, n_fds, &check_err) < 0)
                                break;
                        ring_kick(&d->rings[below(2)]);
                }
                if (below(2))
                        drain_front(d->front);
                else
                        front_close(d->front);
                d->front = NULL;
                disk_close(d);
        }
}

static void random_bytes(void **state)
{
        for (unsigned round = 0; round < 500; round++) {
                struct front *f = connect_front();
                uint8_t bytes[4096];
                size_t n = 1 + below(sizeof(bytes));
                for (size_t i = 0; i < n; i++)
                        bytes[i] = (uint8_t)random32();
                check_err = ERROR_INIT;
                (void)front_send_bytes(f, bytes, n, NULL, 0, &check_err);
                drain_front(f);
        }
}

static void queues_that_are_not_there(void **state)
{
        const uint32_t requests[] = {VU_SET_VRING_NUM,  VU_SET_VRING_BASE,   VU_GET_VRING_BASE,
                                     VU_SET_VRING_KICK, VU_SET_VRING_CALL,   VU_SET_VRING_ERR,
                                     VU_SET_VRING_ADDR, VU_SET_VRING_ENABLE, VU_GET_VRING_BASE};
        const uint32_t indices[] = {4, 5, 16, 17, 255, 256, 65536, UINT32_MAX};

        for (unsigned r = 0; r < 9; r++)
                for (unsigned i = 0; i < 8; i++) {
                        struct disk *d = open_disk((struct disk_options){0});
                        uint8_t payload[40] = {0};
                        bool is_file =
                            requests[r] >= VU_SET_VRING_KICK && requests[r] <= VU_SET_VRING_ERR;
                        uint32_t size = is_file ? 8 : requests[r] == VU_SET_VRING_ADDR ? 40 : 8;
                        memcpy(payload, &indices[i], 4);
                        check_err = ERROR_INIT;
                        (void)front_send(d->front, requests[r], VU_VERSION | VU_NEED_REPLY, payload,
                                         size, &d->rings[0].call, is_file, &check_err);
                        drain_front(d->front);
                        d->front = NULL;
                        disk_close(d);
                }
}

static void odd_sizes_and_places_of_rings(void **state)
{
        const uint32_t sizes[] = {0, 3, 129, 1000, 32769, 65536, UINT32_MAX};
        const uint64_t moves[] = {1, 2, 8, 4096, UINT64_C(1) << 40, UINT64_MAX, UINT64_MAX / 2};

        for (unsigned packed = 0; packed < 2; packed++) {
                for (unsigned i = 0; i < 7; i++) {
                        struct disk *d = open_disk((struct disk_options){.packed = packed});
                        struct vu_vring_state num = {0, sizes[i]};
                        uint32_t base;
                        ok(ring_stop(&d->rings[0], d->front, 0, &base, &check_err));
                        check_err = ERROR_INIT;
                        (void)front_send(d->front, VU_SET_VRING_NUM, VU_VERSION, &num, sizeof(num),
                                         NULL, 0, &check_err);
                        (void)front_send(d->front, VU_SET_VRING_BASE, VU_VERSION, &num, sizeof(num),
                                         NULL, 0, &check_err);
                        ring_kick(&d->rings[0]);
                        (void)front_sync(d->front, &check_err);
                        disk_close(d);
                }
                for (unsigned i = 0; i < 7; i++)
                        for (unsigned which = 0; which < 3; which++) {
                                struct disk *d = open_disk((struct disk_options){.packed = packed});
                                struct ring *r = &d->rings[0];
                                struct vu_vring_addr a = {
                                    .descriptor = guest_user(d->memory, r->descriptors),
                                    .available = guest_user(d->memory, r->driver),
                                    .used = guest_user(d->memory, r->device)};
                                *(which == 0   ? &a.descriptor
                                  : which == 1 ? &a.available
                                               : &a.used) += moves[i];
                                check_err = ERROR_INIT;
                                (void)front_send(d->front, VU_SET_VRING_ADDR, VU_VERSION, &a,
                                                 sizeof(a), NULL, 0, &check_err);
                                ring_kick(r);
                                (void)front_sync(d->front, &check_err);
                                disk_close(d);
                        }
        }
}

/* ---- descriptors ---- */

static void descriptors_of_every_wrong_kind(void **state)
{
        const uint32_t requests[] = {VU_SET_VRING_KICK,  VU_SET_VRING_CALL,     VU_SET_VRING_ERR,
                                     VU_SET_INFLIGHT_FD, VU_SET_LOG_BASE,       VU_SET_LOG_FD,
                                     VU_SET_MEM_TABLE,   VU_SET_BACKEND_REQ_FD, VU_ADD_MEM_REG};
        int ends[2], pair[2];
        char path[] = "/tmp/tarn-vhost-file-XXXXXX";

        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int file = mkstemp(path);
        unlink(path);
        const int kinds[] = {ends[0],
                             ends[1],
                             pair[0],
                             file,
                             open("/dev/null", O_RDWR | O_CLOEXEC),
                             open("/dev/zero", O_RDWR | O_CLOEXEC),
                             open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                             open("/tmp", O_PATH | O_CLOEXEC),
                             eventfd(UINT32_MAX, EFD_CLOEXEC),
                             eventfd(5, EFD_CLOEXEC | EFD_SEMAPHORE)};
        for (unsigned r = 0; r < 9; r++)
                for (unsigned k = 0; k < 10; k++) {
                        struct disk *d = open_disk((struct disk_options){0});
                        uint8_t bytes[1024], block[512];
                        struct disk_op op = {
                            .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                        static struct disk_flight flight;
                        unsigned n_fds;
                        int fds[8];
                        size_t n = good_message(d, requests[r], bytes, fds, &n_fds);
                        for (unsigned i = 0; i < n_fds; i++)
                                fds[i] = kinds[k];
                        check_err = ERROR_INIT;
                        (void)front_send_bytes(d->front, bytes, n, fds, n_fds, &check_err);
                        ok(disk_add(d, 0, &op, &flight, &check_err));
                        ring_publish(&d->rings[0]);
                        ring_kick(&d->rings[0]);
                        drain_front(d->front);
                        d->front = NULL;
                        disk_close(d);
                }
        for (unsigned k = 0; k < 10; k++)
                close(kinds[k]);
        close(pair[1]);
}

/* Too many, of the wrong kind, in the queue of a connection that ends before it is read, or the last of
 * more than there is room for. The server's is the last one of its socket. */
static void descriptors_that_are_long_in_closing(void **state)
{
        for (unsigned how = 0; how < 4; how++) {
                struct disk *d = open_disk((struct disk_options){0});
                struct vu_header header = {how == 1 ? VU_SET_BACKEND_REQ_FD : VU_GET_FEATURES,
                                           how == 2 ? 0 : VU_VERSION, 0};
                const uint8_t *bytes = (const uint8_t *)&header;
                unsigned n_fds = how == 3 ? 200 : 1;
                int peer, fd = raw_lingering(&peer), fds[200];

                for (unsigned i = 0; i + 1 < n_fds; i++)
                        fds[i] = neighbour->rings[0].call;
                fds[n_fds - 1] = fd;
                halt_server();
                if (how == 2)
                        ok(front_send_bytes(d->front, bytes, 12, NULL, 0, &check_err));
                ok(front_send_bytes(d->front, bytes, 6, fds, n_fds, &check_err));
                close(fd);
                let_server_go_on();
                check_err = ERROR_INIT;
                (void)front_send_bytes(d->front, bytes + 6, 6, NULL, 0, &check_err);
                (void)front_sync(d->front, &check_err);
                check_alive(neighbour);
                check_server_alive();
                close(peer); /* nobody will read the rest: it is over */
                front_close(d->front);
                d->front = NULL;
                disk_close(d);
                server_wait_fds(pid, fds_before);
        }
}

/* A call that the guest never takes away: the counter is full, and a write to it would wait. */
static void a_call_that_can_take_no_more(void **state)
{
        for (unsigned i = 0; i < 2; i++) {
                struct disk *d = open_disk((struct disk_options){.without = VF_EVENT_IDX});
                uint64_t full = UINT64_MAX - 1, index = 0;
                int fd = eventfd(0, EFD_CLOEXEC | (i ? EFD_NONBLOCK : 0));
                uint8_t block[512];
                struct disk_op op = {
                    .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                static struct disk_flight flight;
                uint32_t n_bytes;
                void *cookie;
                assert_int_equal(write(fd, &full, 8), 8);
                ok(front_tell(d->front, VU_SET_VRING_CALL, &index, 8, &fd, 1, &check_err));
                ring_arm(&d->rings[0]);
                ok(disk_add(d, 0, &op, &flight, &check_err));
                ring_publish(&d->rings[0]);
                check_alive(neighbour);
                for (unsigned tries = 0; tries < 30000; tries++) {
                        if (ring_take(&d->rings[0], &cookie, &n_bytes, &check_err) != 0)
                                break;
                        usleep(1000);
                }
                assert_int_equal(d->rings[0].n_in_flight, 0);
                close(fd);
                disk_close(d);
        }
}

/* A signal for each queue, and none of them can be written: their end is waited for once. */
static void calls_that_can_take_no_more_do_not_add_up(void **state)
{
        struct disk *d = open_disk((struct disk_options){.n_queues = SERVER_QUEUES});
        uint64_t full = UINT64_MAX - 1, index;
        struct timespec began, ended;
        int fds[SERVER_QUEUES];

        for (index = 0; index < SERVER_QUEUES; index++) {
                fds[index] = eventfd(0, EFD_CLOEXEC);
                assert_int_equal(write(fds[index], &full, 8), 8);
                /* Signalled at once, as it has just been set. */
                ok(front_tell(d->front, VU_SET_VRING_CALL, &index, 8, &fds[index], 1, &check_err));
        }
        clock_gettime(CLOCK_MONOTONIC, &began);
        shutdown(d->front->fd, SHUT_WR);
        assert_true(front_is_closed(d->front));
        clock_gettime(CLOCK_MONOTONIC, &ended);
        assert_true(ended.tv_sec - began.tv_sec < 1 + 1);
        while (index-- > 0)
                close(fds[index]);
        disk_close(d);
}

static void more_descriptors_than_any_message_has(void **state)
{
        int fds[250];

        for (unsigned i = 0; i < 250; i++)
                fds[i] = neighbour->rings[0].call;
        for (uint32_t request = 0; request < 42; request++)
                for (unsigned n = 1; n <= 250; n += 83) {
                        struct disk *d = open_disk((struct disk_options){0});
                        uint8_t bytes[1024];
                        unsigned n_fds;
                        int own[8];
                        size_t length = good_message(d, request, bytes, own, &n_fds);
                        check_err = ERROR_INIT;
                        (void)front_send_bytes(d->front, bytes, length, fds, n, &check_err);
                        drain_front(d->front);
                        d->front = NULL;
                        disk_close(d);
                }
}

static void descriptors_at_every_byte_of_a_stream(void **state)
{
        int fds[8];

        for (unsigned i = 0; i < 8; i++)
                fds[i] = neighbour->rings[0].call;
        for (unsigned round = 0; round < 20; round++) {
                struct front *f = connect_front();
                struct vu_header header = {VU_GET_FEATURES, VU_VERSION, 0};
                check_err = ERROR_INIT;
                for (unsigned i = 0; i < sizeof(header); i++)
                        if (front_send_bytes(f, (uint8_t *)&header + i, 1, fds, 8, &check_err) < 0)
                                break;
                drain_front(f);
        }
}

/* ---- rings ---- */

/* Everything the guest writes is random; the connection is in order. */
static void rings_of_rubbish(void **state)
{
        for (unsigned round = 0; round < 400; round++) {
                struct disk *d = open_disk((struct disk_options){
                    .packed = round % 2, .queue_size = 16, .without = below(2) ? VF_EVENT_IDX : 0});
                struct ring *r = &d->rings[0];
                uint64_t table = guest_take(d->memory, 0, 4096, 16);
                for (unsigned i = 0; i < 16; i++) {
                        const uint64_t places[] = {table,           table + 16 * below(200),
                                                   below(1u << 24), UINT64_C(1) << 32,
                                                   random32(),      UINT64_MAX - 100};
                        const uint32_t lengths[] = {16, 1, 512, 4096, 32 * below(10), random32()};
                        struct vring_desc e = {places[below(6)], lengths[below(6)],
                                               (uint16_t)below(8), (uint16_t)below(18)};
                        guest_write(d->memory, table + 16 * i, &e, 16);
                        e.addr = places[below(6)];
                        if (!r->packed)
                                ring_table(r)[i] = e;
                        else
                                ring_packed(r)[i] = (struct vring_packed_desc){
                                    e.addr, e.len, (uint16_t)below(20),
                                    (uint16_t)(e.flags |
                                               (below(4) ? 1u << 7 : random32() & 0x8080))};
                }
                if (!r->packed) {
                        for (unsigned i = 0; i < 16; i++)
                                ring_available(r)->ring[i] = (uint16_t)below(17);
                        ring_available(r)->idx = (uint16_t)below(18);
                }
                ring_kick(r);
                check_err = ERROR_INIT;
                (void)front_sync(d->front, &check_err);
                if (below(2))
                        check_alive(neighbour);
                disk_close(d);
        }
}

static void a_front_end_that_dies_with_requests_in_flight(void **state)
{
        enum { N = 12 };
        static struct disk_flight flights[N];
        static uint8_t data[N * 8192];

        for (unsigned round = 0; round < 300; round++) {
                struct disk *d = open_disk((struct disk_options){.packed = round % 2});
                struct disk_op ops[N];
                for (unsigned i = 0; i < N; i++) {
                        ops[i] = (struct disk_op){
                            .type = below(2) ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
                            .sector = 1024 + below(1000),
                            .data = data + i * 8192,
                            .n_bytes = 512 * (1 + below(16)),
                            .shape = {.indirect = below(2), .segments = 1 + below(3)}};
                        ok(disk_add(d, 0, &ops[i], &flights[i], &check_err));
                        if (below(4) == 0)
                                ring_publish(&d->rings[0]);
                }
                ring_publish(&d->rings[0]);
                if (below(4) == 0)
                        (void)ring_wait_call(&d->rings[0], 1);
                disk_close(d);
        }
}

static void many_front_ends_at_once(void **state)
{
        struct front *fronts[64];
        unsigned n = 0;

        for (unsigned i = 0; i < 64; i++) {
                check_err = ERROR_INIT;
                if (front_connect(check_path(), &fronts[n], &check_err) < 0)
                        break;
                n++;
        }
        assert_true(n > 1);
        check_alive(neighbour);
        while (n > 0)
                front_close(fronts[--n]);
}

/* The server's mappings return to where they were, as its descriptors do after each test. */
static void nothing_grows(void **state)
{
        unsigned mappings = 0;

        for (unsigned round = 0; round < 60; round++) {
                struct disk *d = open_disk(
                    (struct disk_options){.packed = round % 2, .n_queues = 4, .queue_size = 256});
                check_alive(d);
                disk_close(d);
                server_wait_fds(pid, fds_before);
                if (round == 20)
                        mappings = server_n_mappings(pid);
        }
        /* One for each of the 39 rounds would be a leak. Threads that close what front ends sent come
         * and go, each with a stack. */
        assert_in_range(server_n_mappings(pid), 0, mappings + 19);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(every_message_cut_at_every_byte),
            TEST(every_message_in_pieces),
            TEST(every_message_with_every_wrong_size),
            TEST(a_huge_size_in_a_header),
            TEST(wrong_versions_and_flags),
            TEST(every_message_before_every_other),
            TEST(random_messages_at_a_running_device),
            TEST(random_bytes),
            TEST(queues_that_are_not_there),
            TEST(odd_sizes_and_places_of_rings),
            TEST(descriptors_of_every_wrong_kind),
            TEST(descriptors_that_are_long_in_closing),
            TEST(a_call_that_can_take_no_more),
            TEST(calls_that_can_take_no_more_do_not_add_up),
            TEST(more_descriptors_than_any_message_has),
            TEST(descriptors_at_every_byte_of_a_stream),
            TEST(rings_of_rubbish),
            TEST(a_front_end_that_dies_with_requests_in_flight),
            TEST(many_front_ends_at_once),
            TEST(nothing_grows),
        };
        return cmocka_run_group_tests_name("vhost hostile", tests, NULL, NULL);
}
