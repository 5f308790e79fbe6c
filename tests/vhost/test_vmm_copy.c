/* test_vmm_copy.c - a copy of a running machine's memory (vmm-glue/vmm/memory_copy.c) has what the back
 * ends of its disks write meanwhile. All but KVM is real: the transport, the disk, our own back end over
 * volumes in memory. What the guest itself writes is in pages that its back end writes too. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "tests/vhost/backend.h"
#include "tests/vhost/check.h"
#include "tests/vhost/server.h"
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/memory_copy.h"
#include "vmm-glue/vmm/virtio_pci.h"

#define BARS_AT    UINT64_C(0xd0000000)
#define RINGS_AT   MIB(1) /* each in a page, */
#define RING_SIZE  16u
#define HEADER_AT  MIB(2) /* the header of all requests, */
#define STATUS_AT  MIB(3) /* and their status */
#define DATA_AT    MIB(4)
#define DATA_BYTES 4096u
#define SETTLE_NS  UINT64_C(100000000)
#define WAIT_MS    30000u

static struct machine_fixture *f;
static struct loop *loop;
/* A driver's, of the disk in slot 1 and of that in slot 2. */
static struct {
        uint64_t bar;
        struct vring_desc *descriptors;
        struct vring_avail *available;
        const struct vring_used *used;
        uint16_t next;
} disks[2];
static int file;
static unsigned n_copied, n_lost;

/* ---- the loop ---- */

static bool has_settled;

static void settled(struct loop_timer *timer)
{
        (void)timer;
        has_settled = true;
        loop_stop(loop);
}

static void settle(struct loop *of)
{
        struct loop_timer timer = {.fire = settled};

        has_settled = false;
        loop_timer_set(of, &timer, loop_now_ns(of) + SETTLE_NS);
        while (!has_settled)
                loop_run(of);
}

static void disk_lost(void *arg, const char *id)
{
        (void)arg;
        (void)id;
        n_lost++;
        loop_stop(loop);
}

/* ---- the machine ---- */

static int connect_to(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

static void *at(uint64_t gpa, uint64_t length)
{
        void *host = guest_range(&f->machine.memory, gpa, length);

        assert_non_null(host);
        return host;
}

static void set_config(unsigned slot, unsigned offset, unsigned size, uint32_t value)
{
        fixture_write(f, LAYOUT_ECAM + slot * 0x8000u + offset, value, size);
}

static void set_common(unsigned index, unsigned field, unsigned size, uint64_t value)
{
        fixture_write(f, disks[index].bar + VIRTIO_PCI_COMMON + field, value, size);
}

static void agree_on_all(unsigned index)
{
        const uint64_t from = disks[index].bar + VIRTIO_PCI_COMMON + VIRTIO_PCI_COMMON_DF;

        for (unsigned half = 0; half < 2; half++) {
                set_common(index, VIRTIO_PCI_COMMON_DFSELECT, 4, half);
                set_common(index, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
                set_common(index, VIRTIO_PCI_COMMON_GF, 4, fixture_read(f, from, 4));
        }
}

/* The ring's parts are in one page, which the back end writes at the end of each request. */
static void set_up_ring(unsigned index)
{
        const uint64_t gpa = RINGS_AT + index * MEMORY_LOG_PAGE;

        disks[index].descriptors = memset(at(gpa, KIB(4)), 0, KIB(4));
        disks[index].available = at(gpa + 1024, 1024);
        disks[index].used = at(gpa + 2048, 1024);
        disks[index].next = 0;
        set_common(index, VIRTIO_PCI_COMMON_Q_SIZE, 2, RING_SIZE);
        set_common(index, VIRTIO_PCI_COMMON_Q_DESCLO, 4, gpa);
        set_common(index, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, gpa + 1024);
        set_common(index, VIRTIO_PCI_COMMON_Q_USEDLO, 4, gpa + 2048);
        set_common(index, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void bring_up(unsigned index)
{
        const uint8_t known = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

        disks[index].bar = BARS_AT + index * 0x10000u;
        set_config(index + 1, PCI_BASE_ADDRESS_0, 4, (uint32_t)disks[index].bar);
        set_config(index + 1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        set_common(index, VIRTIO_PCI_COMMON_STATUS, 1, 0);
        set_common(index, VIRTIO_PCI_COMMON_STATUS, 1, known);
        agree_on_all(index);
        set_common(index, VIRTIO_PCI_COMMON_STATUS, 1, known | VIRTIO_CONFIG_S_FEATURES_OK);
        set_up_ring(index);
        set_common(index, VIRTIO_PCI_COMMON_STATUS, 1,
                   known | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void add_disk(unsigned index, int fd, bool hotplugged)
{
        const char *const ids[] = {"disk0", "disk1"};
        const struct vmm_disk disk = {.id = ids[index], .fd = fd, .queues = 1};

        machine_lock(&f->machine);
        ok(vhost_blk_create(&f->machine, &disk, hotplugged, &check_err));
        machine_unlock(&f->machine);
        bring_up(index);
}

static int set_up(void **state)
{
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};

        server_setup(state);
        assert_int_equal(loop_new(LOOP_BACKEND_THREADS, &loop, NULL), 0);
        f = fixture_new(LAYOUT_RAM_MIN, loop);
        f->run_loop = settle;
        f->events.disk_lost = disk_lost;
        assert_int_equal(pci_create(&f->machine, NULL), 0);
        file = memfd_create("saved", MFD_CLOEXEC);
        assert_true(file >= 0);
        n_copied = n_lost = 0;
        memcpy(at(HEADER_AT, sizeof(header)), &header, sizeof(header));
        /* What is read of the volume: no zeroes. */
        fake_fill(server_volume(*state, SERVER_VOL), 0, 0x5a, DATA_BYTES);
        fake_fill(server_volume(*state, SERVER_OTHER), 0, 0xa5, DATA_BYTES);
        add_disk(0, connect_to(server_path(*state, SERVER_VOL)), false);
        return 0;
}

static int tear_down(void **state)
{
        memory_copy_cancel(&f->machine);
        fixture_free(f);
        loop_free(loop);
        close(file);
        return server_teardown(state);
}

/* ---- the guest ---- */

static void add_request(unsigned index, uint64_t data)
{
        const uint16_t head = (uint16_t)(disks[index].next % 4 * 3);
        struct vring_desc *d = disks[index].descriptors + head;
        struct vring_avail *available = disks[index].available;

        d[0] = (struct vring_desc){HEADER_AT, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT,
                                   (uint16_t)(head + 1)};
        d[1] = (struct vring_desc){data, DATA_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
                                   (uint16_t)(head + 2)};
        d[2] = (struct vring_desc){STATUS_AT, 1, VRING_DESC_F_WRITE, 0};
        available->ring[disks[index].next % RING_SIZE] = head;
        __atomic_store_n(&available->idx, ++disks[index].next, __ATOMIC_SEQ_CST);
        fixture_write(f, disks[index].bar + VIRTIO_PCI_NOTIFY, 0, 2);
}

/* Read the beginning of the disk into page @page of those for data. */
static void read_into(unsigned index, unsigned page)
{
        const struct timespec moment = {.tv_nsec = 1000000};
        const uint8_t *data = at(DATA_AT + page * DATA_BYTES, DATA_BYTES);
        unsigned left = WAIT_MS;

        add_request(index, DATA_AT + page * DATA_BYTES);
        while (__atomic_load_n(&disks[index].used->idx, __ATOMIC_ACQUIRE) != disks[index].next) {
                assert_true(left-- > 0);
                nanosleep(&moment, NULL);
        }
        assert_int_equal(*(const uint8_t *)at(STATUS_AT, 1), VIRTIO_BLK_S_OK);
        assert_int_equal(data[0], index == 0 ? 0x5a : 0xa5);
}

/* ---- the copy ---- */

static void on_copied(void *arg, int result, const char *sentence)
{
        (void)arg;
        if (result < 0)
                fail_msg("%s", sentence);
        n_copied++;
        loop_stop(loop);
}

/* Until all is written but what is written from now on. */
static void begin(void)
{
        ok(memory_copy_begin(&f->machine, file, on_copied, NULL, &check_err));
        while (n_copied == 0)
                loop_run(loop);
        assert_int_equal(n_copied, 1);
}

/* The machine is paused, and what is in the file is its memory. */
static void finish(void)
{
        static uint8_t bytes[MEMORY_LOG_PAGE];
        uint64_t rest;

        fixture_pause(f);
        ok(memory_copy_finish(&f->machine, &rest, &check_err));
        for (uint64_t gpa = 0; gpa < LAYOUT_RAM_MIN; gpa += sizeof(bytes)) {
                assert_int_equal(pread(file, bytes, sizeof(bytes), (off_t)gpa), sizeof(bytes));
                if (memcmp(bytes, at(gpa, sizeof(bytes)), sizeof(bytes)) != 0)
                        fail_msg("the page at 0x%llx is an old one", (unsigned long long)gpa);
        }
        fixture_resume(f);
        read_into(0, 100);
}

static void what_is_read_meanwhile_is_copied(void **state)
{
        (void)state;
        read_into(0, 0);
        begin();
        read_into(0, 1);
        read_into(0, 2);
        finish();
}

static void what_the_next_back_end_writes_is_copied(void **state)
{
        read_into(0, 0);
        begin();
        server_disconnect(*state, SERVER_VOL);
        while (n_lost == 0)
                loop_run(loop);
        machine_lock(&f->machine);
        ok(vhost_blk_connect(&f->machine, "disk0", connect_to(server_path(*state, SERVER_VOL)),
                             &check_err));
        machine_unlock(&f->machine);
        read_into(0, 1);
        finish();
}

/* Who died may have answered a request that it had not come to note: nobody else comes before the end. */
static void what_a_back_end_that_died_has_answered_is_copied(void **state)
{
        read_into(0, 0);
        begin();
        server_disconnect(*state, SERVER_VOL);
        while (n_lost == 0)
                loop_run(loop);
        /* In its place. */
        memset(f->machine.memory.log->bits, 0, f->machine.memory.log->size);
        disks[0].available->idx++;
        ((struct vring_used *)disks[0].used)->idx++;
        disks[0].next++;
        fixture_pause(f);
        assert_true(f->machine.memory.log->bits[RINGS_AT / MEMORY_LOG_PAGE / 8] >>
                        (RINGS_AT / MEMORY_LOG_PAGE % 8) &
                    1);
}

static void what_a_driver_that_begins_anew_reads_is_copied(void **state)
{
        (void)state;
        read_into(0, 0);
        begin();
        bring_up(0);
        read_into(0, 1);
        finish();
}

static void what_is_read_of_a_disk_that_comes_meanwhile_is_copied(void **state)
{
        begin();
        add_disk(1, connect_to(server_path(*state, SERVER_OTHER)), true);
        read_into(1, 1);
        read_into(0, 2);
        finish();
}

/* One bit for a page: of the copy's log, which outlives it here. */
static void nothing_is_noted_after_the_end(void **state)
{
        const uint64_t page = DATA_AT / MEMORY_LOG_PAGE;
        uint64_t size;
        uint8_t *bits;

        (void)state;
        begin();
        size = f->machine.memory.log->size;
        bits = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, f->machine.memory.log->fd, 0);
        assert_ptr_not_equal(bits, MAP_FAILED);
        read_into(0, 0);
        assert_true(bits[page / 8] >> page % 8 & 1);
        memory_copy_cancel(&f->machine);
        memset(bits, 0, size);
        read_into(0, 0);
        for (uint64_t i = 0; i < size; i++)
                assert_int_equal(bits[i], 0);
        munmap(bits, size);
}

/* ---- back ends that cannot ---- */

static void *serve(void *backend)
{
        while (backend_answer(backend, BACKEND_RIGHT))
                ;
        return NULL;
}

static void a_back_end_that_cannot_note_refuses_the_copy(void **state)
{
        struct backend backend;
        pthread_t thread;
        int ends[2];

        (void)state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        backend_init(&backend, ends[1]);
        backend.features &= ~VF_LOG_ALL;
        assert_int_equal(pthread_create(&thread, NULL, serve, &backend), 0);
        add_disk(1, ends[0], false);
        refused(-EOPNOTSUPP, memory_copy_begin(&f->machine, file, on_copied, NULL, &check_err));
        assert_string_equal(check_err.message, "disk1: its back end cannot note what it writes to "
                                               "the guest's memory");
        assert_null(f->machine.memory.log);
        assert_null(f->machine.copy);
        /* Both go on, and without it there is nothing in the way. */
        read_into(0, 0);
        assert_int_equal(n_lost, 0);
        set_common(1, VIRTIO_PCI_COMMON_STATUS, 1, 0);
        begin();
        read_into(0, 1);
        finish();
        shutdown(backend.fd, SHUT_RDWR);
        pthread_join(thread, NULL);
        backend_close(&backend);
}

/* It takes the 10 s that one back end has for an answer, and the others are not asked. */
static void a_back_end_that_does_not_answer_refuses_the_copy(void **state)
{
        struct timespec from, to;

        add_disk(1, connect_to(server_path(*state, SERVER_OTHER)), false);
        server_halt(*state);
        clock_gettime(CLOCK_MONOTONIC, &from);
        refused(-ETIMEDOUT, memory_copy_begin(&f->machine, file, on_copied, NULL, &check_err));
        clock_gettime(CLOCK_MONOTONIC, &to);
        assert_string_equal(check_err.message, "disk0: the back end does not answer");
        assert_in_range(to.tv_sec - from.tv_sec, 9, 18);
        assert_null(f->machine.memory.log);
        server_go_on(*state);
        read_into(1, 1);
}

#define test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            test(what_is_read_meanwhile_is_copied),
            test(what_the_next_back_end_writes_is_copied),
            test(what_a_back_end_that_died_has_answered_is_copied),
            test(what_a_driver_that_begins_anew_reads_is_copied),
            test(what_is_read_of_a_disk_that_comes_meanwhile_is_copied),
            test(nothing_is_noted_after_the_end),
            test(a_back_end_that_cannot_note_refuses_the_copy),
            test(a_back_end_that_does_not_answer_refuses_the_copy),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
