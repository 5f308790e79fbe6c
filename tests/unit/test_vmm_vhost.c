/* Devices whose rings the kernel processes: vhost-net and vhost-vsock. Skipped where these are not; the
 * lab's machine has them (tests/lab/test_vmm_vhost.sh). */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <linux/virtio_vsock.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/vmm/fake_driver.h"
#include "vmm-glue/vmm/vhost_kernel.h"
#include "vmm-glue/vmm/virtio_net.h"

enum { VSOCK_EVENTS = 2 };
#define CID 4711u

static struct fake fake;

static int open_device(const char *path)
{
        return open(path, O_RDWR | O_CLOEXEC);
}

static int make_tap(void)
{
        struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
        int fd = open_device("/dev/net/tun"), control;

        if (fd < 0)
                return -1;
        snprintf(request.ifr_name, IFNAMSIZ, "tarn%%d");
        assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
        control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        request.ifr_flags = IFF_UP;
        assert_int_equal(ioctl(control, SIOCSIFFLAGS, &request), 0);
        close(control);
        return fd;
}

static void begin_net(void)
{
        const struct vmm_nic nic = {.id = "net0",
                                    .kind = VMM_NIC_TAP,
                                    .fd = make_tap(),
                                    .vhost_fd = open_device("/dev/vhost-net")};

        if (nic.fd < 0 || nic.vhost_fd < 0) {
                close(nic.fd);
                close(nic.vhost_fd);
                skip();
        }
        fake_init(&fake, NULL);
        assert_int_equal(virtio_net_create(&fake.machine, &nic, NULL), 0);
}

/* What the kernel does with a kick it does by itself. */
static bool comes_back(unsigned queue)
{
        eventfd_write(fake.v->queues[queue].kick, 1);
        for (unsigned i = 0; i < 500; i++) {
                if (fake_take(&fake, queue, NULL, NULL))
                        return true;
                usleep(10000);
        }
        return false;
}

static void give_frame(void)
{
        const struct fake_piece piece = {FAKE_DATA, NET_HEADER_SIZE + 100, false};

        fake_give(&fake, NET_QUEUE_TX, &piece, 1);
}

static void sends_by_the_kernel(void **state)
{
        begin_net();
        assert_null(fake.v->ops->kick);
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        give_frame();
        assert_true(comes_back(NET_QUEUE_TX));
        fake_fini(&fake);
}

/* A pause: the kernel says how far it is, and goes on there. */
static void goes_on_where_it_stopped(void **state)
{
        begin_net();
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        for (unsigned i = 0; i < 3; i++) {
                give_frame();
                assert_true(comes_back(NET_QUEUE_TX));
        }
        fake_stop(&fake);
        assert_int_equal(fake.v->queues[NET_QUEUE_TX].next_available, 3);
        assert_int_equal(fake.v->queues[NET_QUEUE_RX].next_available, 0);
        give_frame();
        assert_int_equal(fake.v->ops->start(fake.v, NULL), 0);
        fake.v->started = true;
        assert_true(comes_back(NET_QUEUE_TX));
        fake_stop(&fake);
        assert_int_equal(fake.v->queues[NET_QUEUE_TX].next_available, 4);
        fake_fini(&fake);
}

static void notes_what_the_kernel_writes(void **state)
{
        struct guest_memory *memory = &fake.machine.memory;
        static uint64_t bits[FAKE_MEMORY / MEMORY_LOG_PAGE / 64];
        uint64_t used;

        begin_net();
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        assert_int_equal(memory_log_begin(memory, NULL), 0);
        assert_int_equal(fake.v->ops->log(fake.v, true, NULL), 0);
        give_frame();
        assert_true(comes_back(NET_QUEUE_TX));
        assert_int_equal(memory_log_take(memory, &memory->regions[0], bits, NULL), 0);
        used = fake.v->queues[NET_QUEUE_TX].used / MEMORY_LOG_PAGE;
        assert_true(bits[used / 64] >> (used % 64) & 1);
        assert_int_equal(fake.v->ops->log(fake.v, false, NULL), 0);
        memory_log_end(memory);
        give_frame();
        assert_true(comes_back(NET_QUEUE_TX));
        fake_fini(&fake);
}

static void refuses_rings_that_are_not_in_memory(void **state)
{
        struct error err = ERROR_INIT;

        begin_net();
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        fake_stop(&fake);
        fake.v->queues[NET_QUEUE_TX].used = FAKE_MEMORY - 16;
        assert_int_equal(fake.v->ops->start(fake.v, &err), -EFAULT);
        assert_string_equal(err.message, "net0: queue 1 is not in the guest's memory");
        fake.v->queues[NET_QUEUE_TX].used = MIB(2);
        assert_int_equal(fake.v->ops->start(fake.v, &err), 0);
        fake.v->started = true;
        fake_fini(&fake);
}

/* ---- what the kernel does not note ---- */

static bool is_noted(uint64_t gpa)
{
        const uint64_t page = gpa / MEMORY_LOG_PAGE;

        return fake.machine.memory.log->bits[page / 8] >> (page % 8) & 1;
}

/* Of any queue, here rng's: whatever the guest has put there. */
static void notes_the_buffers_of_a_queue(void **state)
{
        const struct fake_piece read = {FAKE_DATA, 4096, false},
                                written = {FAKE_DATA + KIB(8) + 4000, 200, true},
                                long_one = {FAKE_DATA + MIB(1), (uint32_t)MIB(16), true},
                                nowhere = {FAKE_MEMORY - 16, 4096, true};
        struct vring_desc *table, *last;

        fake_init(&fake, NULL);
        assert_int_equal(virtio_rng_create(&fake.machine, NULL), 0);
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        fake_give(&fake, 0, &read, 1);
        fake_give(&fake, 0, &written, 1);
        fake_give(&fake, 0, &long_one, 1);
        fake_give(&fake, 0, &nowhere, 1);
        last = fake.rings[0].descriptors + fake.v->queues[0].size - 1;
        table = fake_at(&fake, FAKE_DATA + KIB(64));
        table[0] = (struct vring_desc){FAKE_DATA + KIB(32), 44, VRING_DESC_F_WRITE, 1};
        table[1] = (struct vring_desc){FAKE_DATA + KIB(64), 32, VRING_DESC_F_INDIRECT, 0};
        *last = (struct vring_desc){FAKE_DATA + KIB(64), 32, VRING_DESC_F_INDIRECT, 0};
        vhost_kernel_mark_buffers(fake.v, 0); /* there is no log */
        assert_int_equal(memory_log_begin(&fake.machine.memory, NULL), 0);
        vhost_kernel_mark_buffers(fake.v, 0);
        assert_false(is_noted(FAKE_DATA));
        assert_true(is_noted(FAKE_DATA + KIB(8)));
        assert_true(is_noted(FAKE_DATA + KIB(12)));
        assert_true(is_noted(FAKE_DATA + MIB(1) + KIB(64)));
        assert_false(is_noted(FAKE_DATA + MIB(2)));
        assert_true(is_noted(FAKE_DATA + KIB(32)));
        /* Tables that would take long are let be. */
        memset(fake.machine.memory.log->bits, 0, fake.machine.memory.log->size);
        last->len = (uint32_t)MIB(1);
        vhost_kernel_mark_buffers(fake.v, 0);
        assert_false(is_noted(FAKE_DATA + KIB(32)));
        memory_log_end(&fake.machine.memory);
        fake_fini(&fake);
}

/* ---- vsock ---- */

static void begin_vsock(struct fake *f)
{
        int fd = open_device("/dev/vhost-vsock");

        if (fd < 0)
                skip();
        fake_init(f, NULL);
        f->config.vsock_cid = CID;
        f->config.vsock_fd = fd;
}

static void has_its_cid_alone(void **state)
{
        struct error err = ERROR_INIT;
        static struct fake second;
        uint64_t cid;

        begin_vsock(&fake);
        assert_int_equal(virtio_vsock_create(&fake.machine, NULL), 0);
        fake.v->ops->read_config(fake.v, 0, &cid, sizeof(cid));
        assert_int_equal(le64toh(cid), CID);
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        begin_vsock(&second);
        assert_int_equal(virtio_vsock_create(&second.machine, &err), -EADDRINUSE);
        assert_string_equal(err.message, "another machine has the vsock CID 4711");
        fake_fini(&second);
        fake_fini(&fake);
}

static void tells_a_restored_guest_that_its_connections_are_gone(void **state)
{
        const struct fake_piece piece = {FAKE_DATA, sizeof(struct virtio_vsock_event), true};
        uint8_t saved[4] = {3};
        struct state_reader r = {.data = saved, .left = sizeof(saved), .version = 1};
        uint32_t written;

        begin_vsock(&fake);
        assert_int_equal(virtio_vsock_create(&fake.machine, NULL), 0);
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        memset(fake_at(&fake, FAKE_DATA), 0xff, sizeof(struct virtio_vsock_event));
        fake_give(&fake, VSOCK_EVENTS, &piece, 1);
        fake_stop(&fake);
        assert_int_equal(fake.v->ops->restore(fake.v, &r, NULL), 0);
        assert_int_equal(state_finish(&r, "vsock", NULL), 0);
        assert_int_equal(fake.v->ops->start(fake.v, NULL), 0);
        fake.v->started = true;
        assert_true(fake_take(&fake, VSOCK_EVENTS, NULL, &written));
        assert_int_equal(written, sizeof(struct virtio_vsock_event));
        assert_int_equal(*(uint32_t *)fake_at(&fake, FAKE_DATA),
                         VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
        fake_fini(&fake);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(sends_by_the_kernel),
            cmocka_unit_test(goes_on_where_it_stopped),
            cmocka_unit_test(notes_what_the_kernel_writes),
            cmocka_unit_test(refuses_rings_that_are_not_in_memory),
            cmocka_unit_test(notes_the_buffers_of_a_queue),
            cmocka_unit_test(has_its_cid_alone),
            cmocka_unit_test(tells_a_restored_guest_that_its_connections_are_gone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
