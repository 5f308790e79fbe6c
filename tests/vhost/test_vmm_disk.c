/* test_vmm_disk.c - a virtual machine's disk (vmm-glue/vmm/vhost_blk.c) against our own back end, over
 * volumes in memory: requests, pauses, resets, back ends that come and go, saved state. */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "tests/vhost/check.h"
#include "tests/vhost/machine.h"
#include "tests/vhost/server.h"

#define BIT(n) (UINT64_C(1) << (n))

#define rig_ok(call)                                                                               \
        do {                                                                                       \
                if ((call) < 0)                                                                    \
                        fail_msg("%s: %s", #call, rig->err.message);                               \
        } while (0)

static struct rig *with_disk(void **state, unsigned n_queues)
{
        struct rig *rig = rig_new();

        rig_ok(rig_create(rig, server_path(*state, SERVER_VOL), false, n_queues));
        return rig;
}

static struct rig *started(void **state, unsigned n_queues)
{
        struct rig *rig = with_disk(state, n_queues);

        rig_ok(rig_start(rig, 0));
        return rig;
}

static void lose(void **state, struct rig *rig, unsigned n)
{
        server_disconnect(*state, SERVER_VOL);
        rig_wait_for(&rig->n_lost, n);
}

static void reconnect(void **state, struct rig *rig)
{
        rig_ok(rig_connect(rig, server_path(*state, SERVER_VOL)));
}

/* ---- in good times ---- */

static void what_is_written_is_read_on_each_queue(void **state)
{
        struct rig *rig = started(state, 3);
        struct pollfd call;

        for (unsigned i = 0; i < 3; i++)
                rig_write(rig, i, i * 64, (uint8_t)(i + 1));
        for (unsigned i = 0; i < 3; i++)
                rig_check(rig, 2 - i, i * 64, (uint8_t)(i + 1));
        call = (struct pollfd){.fd = rig->queues[2].call, .events = POLLIN};
        assert_int_equal(poll(&call, 1, RIG_WAIT_MS), 1);
        rig_free(rig);
}

static void the_guest_is_offered_what_the_back_end_has(void **state)
{
        struct rig *rig = with_disk(state, 3);
        struct virtio_blk_config config = rig_config(rig);
        uint64_t want = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
                        BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) |
                        BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) |
                        BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES) |
                        BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX);

        assert_int_equal(rig->v->ops->features(rig->v), want);
        assert_int_equal(config.capacity, SERVER_BYTES / 512);
        assert_int_equal(config.blk_size, 512);
        assert_int_equal(config.num_queues, 3);
        assert_int_equal(config.wce, 1);
        assert_true(config.seg_max > 0 && config.max_discard_sectors > 0);
        rig_free(rig);
        /* As many queues as vCPUs where nothing is said, and no more than the back end has. */
        rig = with_disk(state, 0);
        assert_int_equal(rig->v->n_queues, 2);
        rig_free(rig);
        rig = with_disk(state, 16);
        assert_int_equal(rig->v->n_queues, SERVER_QUEUES);
        rig_free(rig);
}

static void a_disk_that_is_read_only_needs_a_back_end_that_is(void **state)
{
        struct rig *rig = rig_new();
        unsigned slot;

        assert_int_equal(rig_create(rig, server_path(*state, SERVER_VOL), true, 1), -EROFS);
        rig_ok(rig_create(rig, server_path(*state, SERVER_READONLY), true, 1));
        assert_true(rig->v->ops->features(rig->v) & BIT(VIRTIO_BLK_F_RO));
        assert_false(rig->v->ops->features(rig->v) & BIT(VIRTIO_BLK_F_DISCARD));
        rig_ok(rig_start(rig, 0));
        slot = rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 0, 1);
        assert_int_equal(rig_wait(rig, 0, slot), VIRTIO_BLK_S_IOERR);
        rig_free(rig);
}

static void a_pause_keeps_the_rings(void **state)
{
        struct rig *rig = started(state, 2);

        for (unsigned round = 0; round < 3; round++) {
                rig_write(rig, 0, 8, (uint8_t)(round + 1));
                rig_write(rig, 1, 80, (uint8_t)(round + 100));
                rig_pause(rig);
                assert_int_equal(rig->queues[0].next_available, rig_used(rig, 0)->idx);
                assert_int_equal(rig->queues[0].next_available, rig->rings[0].next);
                rig_ok(rig_resume(rig));
                rig_check(rig, 0, 80, (uint8_t)(round + 100));
                rig_check(rig, 1, 8, (uint8_t)(round + 1));
        }
        rig_free(rig);
}

static void nothing_is_served_during_a_pause(void **state)
{
        const struct timespec moment = {.tv_nsec = 50000000};
        struct rig *rig = started(state, 1);
        unsigned slot;

        rig_write(rig, 0, 0, 1);
        rig_pause(rig);
        slot = rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 0, 2);
        nanosleep(&moment, NULL);
        assert_false(rig_is_done(rig, 0, slot));
        rig_ok(rig_resume(rig));
        assert_int_equal(rig_wait(rig, 0, slot), VIRTIO_BLK_S_OK);
        rig_free(rig);
}

static void a_reset_begins_anew(void **state)
{
        struct rig *rig = started(state, 2);

        for (unsigned round = 0; round < 3; round++) {
                for (unsigned i = 0; i < 5; i++)
                        rig_write(rig, i % 2, i * 8, (uint8_t)(round * 10 + i));
                rig_reset(rig);
                rig_ok(rig_start(rig, round ? 0 : BIT(VIRTIO_BLK_F_MQ)));
                for (unsigned i = 0; i < 5; i++)
                        rig_check(rig, i % 2, i * 8, (uint8_t)(round * 10 + i));
        }
        rig_free(rig);
}

static void a_resize_is_told(void **state)
{
        struct rig *rig = started(state, 1);
        uint32_t seg_max = rig_config(rig).seg_max;

        server_resize(*state, SERVER_VOL, SERVER_BYTES / 2);
        rig_wait_for(&rig->n_changed, 1);
        assert_int_equal(rig_config(rig).capacity, SERVER_BYTES / 1024);
        assert_int_equal(rig_config(rig).seg_max, seg_max);
        server_resize(*state, SERVER_VOL, SERVER_BYTES);
        rig_wait_for(&rig->n_changed, 2);
        assert_int_equal(rig_config(rig).capacity, SERVER_BYTES / 512);
        rig_free(rig);
}

static unsigned n_durable(void **state)
{
        return fake_counts(server_volume(*state, SERVER_VOL)).fua[VOLUME_WRITE];
}

static void the_mode_of_the_cache_is_the_drivers_until_a_reset(void **state)
{
        const uint32_t at = offsetof(struct virtio_blk_config, wce);
        struct rig *rig = started(state, 1);
        const uint8_t through = 0, rubbish = 7;
        const uint64_t big = 12345;
        unsigned n = n_durable(state);

        rig_write(rig, 0, 0, 1);
        assert_int_equal(n_durable(state), n);
        rig_write_config(rig, at, &through, 1);
        rig_write_config(rig, at, &rubbish, 1);
        rig_write_config(rig, 0, &big, sizeof(big));
        rig_write(rig, 0, 0, 2);
        assert_int_equal(n_durable(state), n + 1);
        assert_int_equal(rig_config(rig).wce, 0);
        assert_int_equal(rig_config(rig).capacity, SERVER_BYTES / 512);
        lose(state, rig, 1);
        reconnect(state, rig);
        rig_write(rig, 0, 0, 3);
        assert_int_equal(n_durable(state), n + 2);
        rig_reset(rig);
        assert_int_equal(rig_config(rig).wce, 1);
        rig_ok(rig_start(rig, 0));
        rig_write(rig, 0, 0, 4);
        assert_int_equal(n_durable(state), n + 2);
        rig_free(rig);
}

/* ---- a driver that is wrong ---- */

static void rings_outside_memory_are_refused(void **state)
{
        static const uint64_t wrong[] = {LAYOUT_RAM_MIN, LAYOUT_RAM_MIN - 512, UINT64_MAX - 15};
        struct rig *rig = with_disk(state, 2);
        uint64_t *fields[] = {&rig->queues[1].descriptors, &rig->queues[1].available,
                              &rig->queues[1].used};

        rig_ok(rig_start(rig, 0));
        rig_pause(rig);
        for (unsigned i = 0; i < 3; i++)
                for (unsigned j = 0; j < 3; j++) {
                        uint64_t right = *fields[i];

                        *fields[i] = wrong[j];
                        assert_int_equal(rig_resume(rig), -EFAULT);
                        *fields[i] = right;
                }
        rig_ok(rig_resume(rig));
        rig_write(rig, 1, 0, 1);
        assert_int_equal(rig->n_lost, 0);
        rig_free(rig);
}

static void a_ring_that_makes_no_sense_needs_a_reset(void **state)
{
        struct rig *rig = started(state, 2);

        rig_write(rig, 0, 0, 1);
        rig_available(rig, 0)->idx = (uint16_t)(rig_available(rig, 0)->idx + 1000);
        rig_kick(rig, 0);
        rig_wait_for(&rig->n_needs_reset, 1);
        rig_write(rig, 1, 0, 1);
        rig_reset(rig);
        rig_ok(rig_start(rig, 0));
        rig_write(rig, 0, 0, 1);
        rig_free(rig);
}

/* ---- back ends that come and go ---- */

static void the_guest_waits_for_the_next_back_end(void **state)
{
        struct rig *rig = started(state, 2);
        unsigned slots[2];

        for (unsigned round = 1; round <= 3; round++) {
                rig_write(rig, 0, 0, 1);
                lose(state, rig, round);
                slots[0] = rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 8, (uint8_t)round);
                slots[1] = rig_submit(rig, 1, VIRTIO_BLK_T_OUT, 80, (uint8_t)round);
                reconnect(state, rig);
                assert_int_equal(rig_wait(rig, 0, slots[0]), VIRTIO_BLK_S_OK);
                assert_int_equal(rig_wait(rig, 1, slots[1]), VIRTIO_BLK_S_OK);
                rig_check(rig, 1, 8, (uint8_t)round);
                rig_check(rig, 0, 80, (uint8_t)round);
        }
        rig_free(rig);
}

/* The first kick went to a back end that was gone before it saw it. */
static void a_driver_may_start_without_a_back_end(void **state)
{
        struct rig *rig = with_disk(state, 1);
        unsigned slot;

        lose(state, rig, 1);
        rig_ok(rig_start(rig, 0));
        slot = rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 8, 77);
        assert_int_equal(read(rig->queues[0].kick, &(uint64_t){0}, 8), 8);
        reconnect(state, rig);
        assert_int_equal(rig_wait(rig, 0, slot), VIRTIO_BLK_S_OK);
        rig_free(rig);
        rig = with_disk(state, 1);
        lose(state, rig, 1);
        reconnect(state, rig);
        rig_ok(rig_start(rig, 0));
        rig_write(rig, 0, 0, 1);
        rig_free(rig);
}

static unsigned n_written(void **state)
{
        return fake_counts(server_volume(*state, SERVER_VOL)).submitted[VOLUME_WRITE];
}

/* One that came first and waits, and one behind it that was answered: only the region knows which. */
static unsigned one_in_flight(void **state, struct rig *rig)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        unsigned first;

        fake_wait_for(volume, FAKE_WAIT_LIMITS);
        first = rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 8, 11);
        fake_wait_held(volume, 1);
        fake_wait_for(volume, FAKE_WAIT_NOTHING);
        rig_write(rig, 0, 16, 22);
        return first;
}

static void what_a_back_end_had_begun_the_next_one_ends(void **state)
{
        struct rig *rig = started(state, 1);
        unsigned n, first;

        rig_write(rig, 0, 0, 1);
        n = n_written(state);
        first = one_in_flight(state, rig);
        lose(state, rig, 1);
        assert_false(rig_is_done(rig, 0, first));
        reconnect(state, rig);
        assert_int_equal(rig->queues[0].next_available, 2); /* as many were answered */
        assert_int_equal(rig_wait(rig, 0, first), VIRTIO_BLK_S_OK);
        assert_int_equal(n_written(state), n + 3); /* the second is not written again */
        rig_check(rig, 0, 8, 11);
        rig_check(rig, 0, 16, 22);
        rig_pause(rig);
        assert_int_equal(rig->queues[0].next_available, rig->rings[0].next);
        rig_free(rig);
}

static void a_pause_without_a_back_end_keeps_what_was_begun(void **state)
{
        struct rig *rig = started(state, 1), *other;
        struct state_writer w = {0};
        unsigned first;

        first = one_in_flight(state, rig);
        lose(state, rig, 1);
        rig_pause(rig);
        /* But not for another machine. */
        rig_save(rig, &w);
        other = with_disk(state, 1);
        assert_int_equal(rig_restore(other, &w), -EINVAL);
        rig_free(other);
        reconnect(state, rig);
        assert_false(rig_is_done(rig, 0, first));
        rig_ok(rig_resume(rig));
        assert_int_equal(rig_wait(rig, 0, first), VIRTIO_BLK_S_OK);
        rig_check(rig, 0, 8, 11);
        rig_pause(rig);
        state_writer_free(&w);
        rig_save(rig, &w);
        other = with_disk(state, 1);
        rig_ok(rig_restore(other, &w));
        rig_free(other);
        state_writer_free(&w);
        rig_free(rig);
}

/* Nothing was answered yet: the region fits a new ring as well. */
static void a_reset_without_a_back_end_forgets_what_was_begun(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct rig *rig = started(state, 1);
        unsigned n;

        fake_wait_for(volume, FAKE_WAIT_LIMITS);
        rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 8, 11);
        fake_wait_held(volume, 1);
        fake_wait_for(volume, FAKE_WAIT_NOTHING);
        lose(state, rig, 1);
        n = n_written(state);
        rig_reset(rig);
        rig_ok(rig_start(rig, 0));
        reconnect(state, rig);
        rig_check(rig, 0, 16, 0);
        assert_int_equal(rig_used(rig, 0)->idx, 1);
        assert_int_equal(n_written(state), n);
        rig_free(rig);
}

static void a_size_that_changed_meanwhile_is_told(void **state)
{
        struct rig *rig = started(state, 1);

        lose(state, rig, 1);
        server_resize(*state, SERVER_VOL, SERVER_BYTES / 2);
        reconnect(state, rig);
        rig_wait_for(&rig->n_changed, 1);
        assert_int_equal(rig_config(rig).capacity, SERVER_BYTES / 1024);
        server_resize(*state, SERVER_VOL, SERVER_BYTES);
        rig_wait_for(&rig->n_changed, 2);
        rig_free(rig);
}

static void features_of_a_back_end_before_need_a_reset(void **state)
{
        struct rig *rig = with_disk(state, 1);
        uint64_t before = rig->v->ops->features(rig->v);

        lose(state, rig, 1);
        rig_ok(rig_connect(rig, server_path(*state, SERVER_NO_DISCARD)));
        assert_true(before & BIT(VIRTIO_BLK_F_DISCARD));
        assert_int_equal(rig_config(rig).max_discard_sectors, 0);
        rig_ok(rig_start(rig, 0));
        rig_reset(rig);
        rig->v->features = before;
        assert_int_equal(rig_resume(rig), -EOPNOTSUPP);
        rig_ok(rig_start(rig, 0));
        rig_write(rig, 0, 0, 1);
        rig_free(rig);
}

static void a_back_end_that_is_another_is_refused(void **state)
{
        struct rig *rig = started(state, 1);
        int ends[2];

        assert_int_equal(rig_connect(rig, server_path(*state, SERVER_VOL)), -EBUSY);
        assert_int_equal(rig_connect_fd(rig, "disk1", rig_socket(server_path(*state, SERVER_VOL))),
                         -ENOENT);
        lose(state, rig, 1);
        assert_int_equal(rig_connect(rig, server_path(*state, SERVER_READONLY)), -EOPNOTSUPP);
        assert_int_equal(rig_connect(rig, server_path(*state, SERVER_NO_DISCARD)), -EOPNOTSUPP);
        assert_int_equal(rig_connect_fd(rig, "disk0", memfd_create("no socket", MFD_CLOEXEC)),
                         -ENOTSOCK);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        close(ends[1]);
        assert_int_equal(rig_connect_fd(rig, "disk0", ends[0]), -ECONNRESET);
        reconnect(state, rig);
        rig_write(rig, 0, 0, 1);
        assert_int_equal(rig->n_lost, 1);
        rig_free(rig);
}

/* Ten seconds. */
static void a_back_end_that_does_not_answer_is_lost(void **state)
{
        struct rig *rig = started(state, 1);
        struct timespec from, to;

        rig_write(rig, 0, 0, 1);
        server_halt(*state);
        clock_gettime(CLOCK_MONOTONIC, &from);
        rig_pause(rig);
        clock_gettime(CLOCK_MONOTONIC, &to);
        assert_in_range(to.tv_sec - from.tv_sec, 9, 20);
        rig_wait_for(&rig->n_lost, 1);
        assert_int_equal(rig->queues[0].next_available, rig->rings[0].next);
        server_go_on(*state);
        rig_ok(rig_resume(rig));
        reconnect(state, rig);
        rig_write(rig, 0, 0, 1);
        rig_free(rig);
}

/* ---- the log of what is written ---- */

static bool is_noted(struct rig *rig, uint64_t gpa)
{
        uint64_t page = gpa / MEMORY_LOG_PAGE;

        return rig->machine.memory.log->bits[page / 8] >> page % 8 & 1;
}

static void forget_notes(struct rig *rig)
{
        memset(rig->machine.memory.log->bits, 0, rig->machine.memory.log->size);
}

static void begin_log(struct rig *rig)
{
        machine_lock(&rig->machine);
        ok(memory_log_begin(&rig->machine.memory, &check_err));
        machine_unlock(&rig->machine);
}

static void what_is_written_is_noted(void **state)
{
        struct rig *rig = started(state, 1);
        unsigned slot;

        rig_write(rig, 0, 0, 9);
        begin_log(rig);
        rig_ok(rig_log(rig, true));
        slot = rig_submit(rig, 0, VIRTIO_BLK_T_IN, 0, 1);
        rig_wait(rig, 0, slot);
        assert_true(is_noted(rig, rig_data_gpa(0, slot)));
        assert_true(is_noted(rig, rig->queues[0].used));
        /* By the next one as well, and of the one before what may be missing. */
        forget_notes(rig);
        lose(state, rig, 1);
        reconnect(state, rig);
        assert_true(is_noted(rig, rig->queues[0].used));
        forget_notes(rig);
        rig_pause(rig);
        rig_ok(rig_resume(rig));
        slot = rig_submit(rig, 0, VIRTIO_BLK_T_IN, 0, 1);
        rig_wait(rig, 0, slot);
        assert_true(is_noted(rig, rig_data_gpa(0, slot)));
        rig_ok(rig_log(rig, false));
        forget_notes(rig);
        slot = rig_submit(rig, 0, VIRTIO_BLK_T_IN, 0, 1);
        rig_wait(rig, 0, slot);
        assert_false(is_noted(rig, rig_data_gpa(0, slot)));
        assert_false(is_noted(rig, rig->queues[0].used));
        memory_log_end(&rig->machine.memory);
        rig_free(rig);
}

/* ---- saved state ---- */

/* A machine that goes on with the memory and the state of @rig. */
static struct rig *next_machine(void **state, struct rig *rig, const struct state_writer *w)
{
        struct rig *next = with_disk(state, rig->v->n_queues);

        memcpy(next->machine.memory.regions[0].host, rig->machine.memory.regions[0].host,
               LAYOUT_RAM_MIN);
        for (unsigned i = 0; i < rig->v->n_queues; i++) {
                int kick = next->queues[i].kick, call = next->queues[i].call;

                next->queues[i] = rig->queues[i];
                next->queues[i].kick = kick;
                next->queues[i].call = call;
                next->rings[i] = rig->rings[i];
        }
        next->v->features = rig->v->features;
        if (rig_restore(next, w) < 0)
                fail_msg("%s", next->err.message);
        return next;
}

static void a_restored_disk_goes_on(void **state)
{
        const uint8_t through = 0;
        struct rig *rig = started(state, 2), *next;
        struct state_writer w = {0};

        rig_write_config(rig, offsetof(struct virtio_blk_config, wce), &through, 1);
        rig_write(rig, 0, 0, 1);
        rig_write(rig, 1, 8, 2);
        rig_pause(rig);
        rig_save(rig, &w);
        next = next_machine(state, rig, &w);
        rig_free(rig);
        rig = next;
        rig_ok(rig_resume(rig));
        assert_int_equal(rig_config(rig).wce, 0);
        assert_int_equal(rig->n_changed, 0);
        rig_check(rig, 1, 0, 1);
        rig_check(rig, 0, 8, 2);
        state_writer_free(&w);
        rig_free(rig);
}

static void a_restored_disk_may_have_grown_and_not_shrunk(void **state)
{
        struct rig *rig, *next;
        struct state_writer w = {0};

        server_resize(*state, SERVER_VOL, SERVER_BYTES / 2);
        rig = started(state, 1);
        rig_write(rig, 0, 0, 1);
        rig_pause(rig);
        rig_save(rig, &w);
        server_resize(*state, SERVER_VOL, SERVER_BYTES);
        next = next_machine(state, rig, &w);
        assert_int_equal(next->n_changed, 0);
        assert_int_equal(next->v->ops->start(next->v, &next->err), 0);
        next->v->started = true;
        assert_int_equal(next->n_changed, 1);
        assert_int_equal(rig_config(next).capacity, SERVER_BYTES / 512);
        rig_free(next);
        server_resize(*state, SERVER_VOL, SERVER_BYTES / 4);
        next = with_disk(state, 1);
        assert_int_equal(rig_restore(next, &w), -EOPNOTSUPP);
        rig_free(next);
        server_resize(*state, SERVER_VOL, SERVER_BYTES);
        state_writer_free(&w);
        rig_free(rig);
}

/* Nobody was told of it: it is in the ring, and not begun. */
static void what_nobody_has_begun_is_no_hindrance(void **state)
{
        const struct timespec moment = {.tv_nsec = 20000000};
        struct rig *rig = started(state, 1), *next;
        struct state_writer w = {0};

        rig_write(rig, 0, 0, 1);
        nanosleep(&moment, NULL); /* it does not look any more */
        rig_available(rig, 0)->idx++;
        rig_pause(rig);
        rig_save(rig, &w);
        next = next_machine(state, rig, &w);
        rig_free(next);
        state_writer_free(&w);
        rig_free(rig);
}

static void state_that_does_not_fit_is_refused(void **state)
{
        struct rig *rig = started(state, 2), *next;
        struct state_writer w = {0}, spoilt = {0};

        rig_pause(rig);
        rig_save(rig, &w);
        next = with_disk(state, 1);
        assert_int_equal(rig_restore(next, &w), -EINVAL);
        rig_free(next);
        next = rig_new();
        ok(rig_create(next, server_path(*state, SERVER_NO_DISCARD), false, 2));
        assert_int_equal(rig_restore(next, &w), -EOPNOTSUPP);
        rig_free(next);
        /* A capacity, and a mode of the cache, that nobody can have. */
        next = with_disk(state, 2);
        for (unsigned i = 0; i < 2; i++) {
                struct virtio_blk_config config = {
                    .capacity = i ? 1 : UINT64_MAX, .blk_size = 512, .seg_max = 1, .wce = 2};

                state_begin(&spoilt, "disk0", 1);
                state_put16(&spoilt, 2);
                state_put64(&spoilt, rig->v->features);
                state_put8(&spoilt, 0);
                state_put(&spoilt, &config, 60);
                state_end(&spoilt);
                assert_int_equal(rig_restore(next, &spoilt), -EINVAL);
                state_writer_free(&spoilt);
                spoilt = (struct state_writer){0};
        }
        rig_ok(rig_start(next, 0));
        rig_write(next, 0, 0, 1);
        rig_free(next);
        state_writer_free(&w);
        rig_free(rig);
}

/* ---- its end ---- */

static void a_disk_that_the_guest_lets_go_is_told_of(void **state)
{
        struct rig *rig = started(state, 1);

        rig_write(rig, 0, 0, 1);
        rig_ok(rig_remove(rig));
        rig_ok(rig_remove(rig));
        rig_write(rig, 0, 0, 1); /* it may take its time */
        assert_int_equal(rig->n_removed, 0);
        rig_eject(rig);
        rig_wait_for(&rig->n_removed, 1);
        assert_int_equal(rig_remove(rig), -ENOENT);
        assert_int_equal(rig->n_lost, 0);
        rig_ok(rig_create(rig, server_path(*state, SERVER_VOL), false, 1));
        rig_ok(rig_start(rig, 0));
        rig_write(rig, 0, 0, 1);
        rig_ok(rig_remove(rig));
        rig_free(rig); /* in the midst of it */
}

static void a_machine_may_end_without_a_back_end(void **state)
{
        struct rig *rig = started(state, 1);

        lose(state, rig, 1);
        rig_free(rig);
        rig = started(state, 1);
        rig_submit(rig, 0, VIRTIO_BLK_T_OUT, 0, 1);
        server_disconnect(*state, SERVER_VOL);
        rig_free(rig);
}

#define test(f) cmocka_unit_test_setup_teardown(f, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            test(what_is_written_is_read_on_each_queue),
            test(the_guest_is_offered_what_the_back_end_has),
            test(a_disk_that_is_read_only_needs_a_back_end_that_is),
            test(a_pause_keeps_the_rings),
            test(nothing_is_served_during_a_pause),
            test(a_reset_begins_anew),
            test(a_resize_is_told),
            test(the_mode_of_the_cache_is_the_drivers_until_a_reset),
            test(rings_outside_memory_are_refused),
            test(a_ring_that_makes_no_sense_needs_a_reset),
            test(the_guest_waits_for_the_next_back_end),
            test(a_driver_may_start_without_a_back_end),
            test(what_a_back_end_had_begun_the_next_one_ends),
            test(a_pause_without_a_back_end_keeps_what_was_begun),
            test(a_reset_without_a_back_end_forgets_what_was_begun),
            test(a_size_that_changed_meanwhile_is_told),
            test(features_of_a_back_end_before_need_a_reset),
            test(a_back_end_that_is_another_is_refused),
            test(a_back_end_that_does_not_answer_is_lost),
            test(what_is_written_is_noted),
            test(a_restored_disk_goes_on),
            test(a_restored_disk_may_have_grown_and_not_shrunk),
            test(what_nobody_has_begun_is_no_hindrance),
            test(state_that_does_not_fit_is_refused),
            test(a_disk_that_the_guest_lets_go_is_told_of),
            test(a_machine_may_end_without_a_back_end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
