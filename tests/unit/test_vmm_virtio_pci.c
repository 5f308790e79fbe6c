/* test_vmm_virtio_pci.c - the transport of virtio devices: registers, features, queues, kicks and
 * interrupts, reset. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/vmm/probe.h"
#include "vmm-glue/vmm/watch.h"

static void select_queue(struct probe_world *w, unsigned index)
{
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
}

/* ---- what it looks like ---- */

static void it_is_a_modern_device(void **state)
{
        struct probe_world *w = *state;

        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 2), 0x1af4);
        assert_int_equal(guest_config_read(w->f, 1, PCI_DEVICE_ID, 2), 0x1040 + PROBE_TYPE);
        assert_int_equal(guest_config_read(w->f, 1, PCI_REVISION_ID, 1), 1);
        for (uint8_t type = VIRTIO_PCI_CAP_COMMON_CFG; type <= VIRTIO_PCI_CAP_PCI_CFG; type++)
                assert_true(guest_capability(w->f, 1, PCI_CAP_ID_VNDR, type));
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_NUMQ, 2), PROBE_QUEUES);
        assert_true(guest_features(&w->d) == (PROBE_FEATURES | UINT64_C(1) << VIRTIO_F_VERSION_1));
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_DF, 4), 0);
}

static void queues_can_be_looked_at(void **state)
{
        struct probe_world *w = *state;

        for (unsigned i = 0; i < PROBE_QUEUES; i++) {
                select_queue(w, i);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2),
                                 PROBE_QUEUE_SIZE);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_NOFF, 2), i);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2), PCI_MSIX_NONE);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        }
        select_queue(w, PROBE_QUEUES);
        for (unsigned field = VIRTIO_PCI_COMMON_Q_SIZE; field < 56; field++)
                assert_int_equal(guest_common(&w->d, field, 1), 0);
        /* Nothing comes of writing to one that there is not. */
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 4);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 4096);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
}

static void configuration_is_read_and_written(void **state)
{
        struct probe_world *w = *state;
        uint64_t at = w->d.bar + VIRTIO_PCI_DEVICE;

        assert_int_equal(fixture_read(w->f, at + 2, 2), 0xc3c2);
        assert_int_equal(fixture_read(w->f, at + 6, 4), 0xc7c6);
        assert_int_equal(fixture_read(w->f, at + 100, 8), 0);
        fixture_write(w->f, at + 1, 0x55, 1);
        fixture_write(w->f, at + 7, UINT64_MAX, 8);
        assert_int_equal(w->probe.config[1], 0x55);
        assert_int_equal(w->probe.config[7], 0xff);
}

static void any_access_is_harmless(void **state)
{
        struct probe_world *w = *state;

        for (uint64_t offset = 0; offset < VIRTIO_PCI_BAR_SIZE; offset++)
                for (unsigned size = 1; size <= 8; size *= 2) {
                        fixture_read(w->f, w->d.bar + offset, size);
                        fixture_write(w->f, w->d.bar + offset, UINT64_MAX, size);
                        fixture_write(w->f, w->d.bar + offset, offset, size);
                }
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_DEVICE - 2, 4), 0xffffffff);
        guest_set_status(&w->d, 0);
        assert_int_equal(guest_status(&w->d), 0);
        probe_bring_up(w);
        assert_true(w->probe.v.started);
}

/* ---- features and status ---- */

static void features_that_are_not_offered_are_refused(void **state)
{
        struct probe_world *w = *state;
        const uint64_t version_1 = UINT64_C(1) << VIRTIO_F_VERSION_1;

        assert_false(guest_agree(&w->d, version_1 | 1));
        guest_set_status(&w->d, 0);
        assert_false(guest_agree(&w->d, PROBE_FEATURES)); /* a legacy driver */
        guest_ready(&w->d);
        assert_int_equal(guest_status(&w->d) & VIRTIO_CONFIG_S_DRIVER_OK, 0);
        assert_int_equal(w->probe.n_starts, 0);
        guest_set_status(&w->d, 0);
        assert_true(guest_agree(&w->d, version_1 | UINT64_C(1) << 35));
        assert_true(w->probe.v.features == (version_1 | UINT64_C(1) << 35));
}

static void features_are_fixed_once_agreed_on(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_GF, 4, 0xffffffff);
        guest_ready(&w->d);
        assert_true(w->probe.v.features == UINT64_C(1) << VIRTIO_F_VERSION_1);
}

static void status_bits_go_by_a_reset_alone(void **state)
{
        struct probe_world *w = *state;

        probe_bring_up(w);
        guest_set_status(&w->d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
        assert_true(guest_status(&w->d) & VIRTIO_CONFIG_S_DRIVER_OK);
        guest_set_status(&w->d, VIRTIO_CONFIG_S_NEEDS_RESET); /* not the driver's to set */
        assert_false(guest_status(&w->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(w->probe.n_starts, 1);
}

static void a_device_that_does_not_start_needs_a_reset(void **state)
{
        struct probe_world *w = *state;

        w->probe.start_result = -EFAULT;
        probe_bring_up(w);
        assert_false(w->probe.v.started);
        assert_true(guest_status(&w->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        w->probe.start_result = 0;
        guest_set_status(&w->d, guest_status(&w->d));
        assert_int_equal(w->probe.n_starts, 0);
        probe_bring_up(w);
        assert_true(w->probe.v.started);
        assert_false(guest_status(&w->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void it_runs_as_a_bus_master_only(void **state)
{
        struct probe_world *w = *state;

        probe_bring_up(w);
        guest_config_write(w->f, 1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        assert_int_equal(w->probe.n_stops, 1);
        guest_config_write(w->f, 1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        assert_int_equal(w->probe.n_starts, 2);
}

/* ---- queues ---- */

static void a_wrong_size_is_not_taken(void **state)
{
        static const uint16_t wrong[] = {0, 3, 100, PROBE_QUEUE_SIZE * 2, 0x8000, 0xffff};
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 32);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2, wrong[i]);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
        }
}

static void rings_that_are_not_aligned_are_refused(void **state)
{
        static const uint64_t wrong[][3] = {
            {PROBE_RING + 8, PROBE_RING + 0x1000, PROBE_RING + 0x2000},
            {PROBE_RING, PROBE_RING + 0x1001, PROBE_RING + 0x2000},
            {PROBE_RING, PROBE_RING + 0x1000, PROBE_RING + 0x2002},
        };
        struct probe_world *w = *state;

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                guest_begin(&w->d, 0);
                for (unsigned k = 0; k < 3; k++)
                        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCLO + 8 * k, 4, wrong[i][k]);
                guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
                assert_true(guest_status(&w->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        }
        assert_int_equal(w->f->n_ioeventfds, 0);
}

static void an_enabled_queue_is_fixed(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_ring(&w->d, 1, 16, PROBE_RING);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 64);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 1);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
        assert_true(w->probe.v.queues[1].enabled);
        assert_int_equal(w->probe.v.queues[1].size, 16);
        assert_true(w->probe.v.queues[1].descriptors == PROBE_RING);
        guest_ready(&w->d);
        select_queue(w, 2);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1); /* too late */
        assert_false(w->probe.v.queues[2].enabled);
}

static void addresses_come_in_halves_or_whole(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0x1234);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x56780000);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_USEDLO, 8, 0x1122334455667780);
        assert_true(w->probe.v.queues[0].descriptors == 0x123456780000);
        assert_true(w->probe.v.queues[0].used == 0x1122334455667780);
        assert_int_equal(w->probe.v.queues[0].available, 0);
        assert_true(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == 0x123456780000);
}

/* ---- kicks ---- */

static void a_kick_takes_no_exit(void **state)
{
        struct probe_world *w = *state;
        struct guest_ring r = probe_bring_up(w);

        assert_int_equal(w->f->n_ioeventfds, PROBE_QUEUES);
        probe_forget_kicks(w);
        guest_kick(&r);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 1);
        assert_int_equal(w->probe.kicks[1], 0);
}

static void a_kick_comes_also_without_kvms_help(void **state)
{
        struct probe_world *w = *state;
        struct guest_ring r;

        w->f->refuse_ioeventfds = true;
        r = probe_bring_up(w);
        probe_forget_kicks(w);
        guest_kick(&r);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 1);
}

static void what_was_made_available_before_the_start_is_seen(void **state)
{
        struct probe_world *w = *state;

        probe_bring_up(w);
        fixture_run(w->f);
        for (unsigned i = 0; i < PROBE_QUEUES; i++)
                assert_int_equal(w->probe.kicks[i], 1);
}

/* As a back end can, which has the same file. */
static void fill_and_make_blocking(int fd)
{
        assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
        eventfd_take(fd);
        assert_int_equal(eventfd_write(fd, UINT64_MAX - 1), 0);
}

static void eventfds_that_are_full_hold_up_nobody(void **state)
{
        struct probe_world *w = *state;
        struct guest_ring r;

        w->f->refuse_ioeventfds = true;
        r = probe_bring_up(w);
        alarm(30);
        fill_and_make_blocking(w->probe.v.queues[0].kick);
        fill_and_make_blocking(w->probe.v.queues[0].call);
        guest_kick(&r);
        virtio_signal(&w->probe.v.queues[0]);
        fixture_pause(w->f);
        fill_and_make_blocking(w->probe.v.queues[0].call);
        fixture_resume(w->f);
        alarm(0);
        /* They are signalled, all the same. */
        probe_forget_kicks(w);
        guest_kick(&r);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 1);
}

static void kicks_follow_the_bar(void **state)
{
        struct probe_world *w = *state;
        struct guest_ring r = probe_bring_up(w);

        probe_forget_kicks(w);
        guest_config_write(w->f, 1, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
        assert_int_equal(w->f->n_ioeventfds, 0);
        guest_config_write(w->f, 1, PCI_BASE_ADDRESS_0, 4, GUEST_BAR + 0x100000);
        assert_int_equal(w->f->n_ioeventfds, PROBE_QUEUES);
        guest_kick(&r); /* where it was */
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 0);
        w->d.bar = GUEST_BAR + 0x100000;
        guest_kick(&r);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 1);
        guest_config_write(w->f, 1, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
        assert_int_equal(w->f->n_ioeventfds, 0);
        guest_config_write(w->f, 1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        assert_int_equal(w->f->n_ioeventfds, PROBE_QUEUES);
}

/* ---- interrupts ---- */

static void without_msix_the_line_is_raised(void **state)
{
        struct probe_world *w = *state;
        const unsigned *high = &w->f->machine.irqs.high[GSI_PCI_FIRST + 1];

        probe_bring_up(w);
        virtio_signal(&w->probe.v.queues[0]);
        fixture_run(w->f);
        assert_int_equal(*high, 1);
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 1);
        assert_int_equal(*high, 0);
        virtio_config_changed(&w->probe.v);
        assert_int_equal(*high, 1);
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 2);
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 0);
}

static void with_msix_each_queue_has_its_vector(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_msix_on(&w->d, PROBE_QUEUES + 1);
        for (unsigned i = 0; i < PROBE_QUEUES; i++) {
                guest_ring(&w->d, i, 16, PROBE_RING + i * 0x4000);
                guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2, i + 1);
                assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2), i + 1);
        }
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
        guest_ready(&w->d);
        virtio_signal(&w->probe.v.queues[1]);
        fixture_deliver(w->f);
        virtio_config_changed(&w->probe.v);
        assert_int_equal(w->f->n_messages, 2);
        assert_int_equal(w->f->messages[0].data, 0x42);
        assert_int_equal(w->f->messages[1].data, 0x40);
        fixture_run(w->f);
        assert_int_equal(w->f->machine.irqs.high[GSI_PCI_FIRST + 1], 0);
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 0);
}

static void a_vector_that_there_is_not_is_none(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2, PROBE_QUEUES + 1);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2), PCI_MSIX_NONE);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_MSIX, 2, PROBE_QUEUES + 1);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_MSIX, 2), PCI_MSIX_NONE);
}

static void a_masked_queue_is_noted_by_the_loop(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        guest_msix_on(&w->d, PROBE_QUEUES + 1);
        guest_ring(&w->d, 0, 16, PROBE_RING);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
        guest_ready(&w->d);
        guest_msix_mask(&w->d, 1, true);
        virtio_signal(&w->probe.v.queues[0]);
        fixture_run(w->f);
        assert_int_equal(guest_msix_pending(&w->d), 2);
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 0);
        guest_msix_mask(&w->d, 1, false);
        assert_int_equal(w->f->n_messages, 1);
}

static void a_change_raises_the_generation(void **state)
{
        struct probe_world *w = *state;
        uint64_t before = guest_common(&w->d, VIRTIO_PCI_COMMON_CFGGENERATION, 1);

        virtio_config_changed(&w->probe.v);
        assert_int_not_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
        /* Nobody is there yet to be interrupted. */
        assert_int_equal(w->f->machine.irqs.high[GSI_PCI_FIRST + 1], 0);
}

static void a_broken_device_is_kicked_no_more(void **state)
{
        struct probe_world *w = *state;
        struct guest_ring r = probe_bring_up(w);

        probe_forget_kicks(w);
        virtio_needs_reset(&w->probe.v);
        assert_true(guest_status(&w->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(fixture_read(w->f, w->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 2);
        guest_kick(&r);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 0);
        guest_set_status(&w->d, 0);
        assert_int_equal(w->probe.n_stops, 1);
}

/* ---- the window in the configuration space ---- */

static uint32_t window(struct probe_world *w, uint8_t bar, uint32_t offset, uint32_t length)
{
        unsigned at = guest_capability(w->f, 1, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);

        guest_config_write(w->f, 1, at + VIRTIO_PCI_CAP_BAR, 1, bar);
        guest_config_write(w->f, 1, at + VIRTIO_PCI_CAP_OFFSET, 4, offset);
        guest_config_write(w->f, 1, at + VIRTIO_PCI_CAP_LENGTH, 4, length);
        return at + (unsigned)sizeof(struct virtio_pci_cap);
}

static void the_window_shows_the_bar(void **state)
{
        struct probe_world *w = *state;
        unsigned data = window(w, 0, VIRTIO_PCI_COMMON + VIRTIO_PCI_COMMON_STATUS, 1);

        guest_config_write(w->f, 1, PCI_COMMAND, 2, 0); /* that is what it is for */
        guest_config_write(w->f, 1, data, 4, VIRTIO_CONFIG_S_ACKNOWLEDGE);
        assert_int_equal(guest_config_read(w->f, 1, data, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
        data = window(w, 0, VIRTIO_PCI_DEVICE + 4, 4);
        assert_int_equal(guest_config_read(w->f, 1, data, 4), 0xc7c6c5c4);
        data = window(w, 1, PCI_MSIX_ENTRY_VECTOR_CTRL, 4);
        assert_int_equal(guest_config_read(w->f, 1, data, 4), 1);
}

static void a_window_that_makes_no_sense_shows_nothing(void **state)
{
        static const uint32_t wrong[][3] = {
            {0, 0, 0},      {0, 0, 3},          {0, 2, 4},
            {0, 0, 8},      {2, 0, 4},          {255, 0, 4},
            {0, 0x4000, 4}, {0, 0xfffffffc, 4}, {0, VIRTIO_PCI_DEVICE, 0xffffffff},
            {1, 0x1000, 4}, {0, 0x3fff, 2},
        };
        struct probe_world *w = *state;

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                unsigned data = window(w, (uint8_t)wrong[i][0], wrong[i][1], wrong[i][2]);

                guest_config_write(w->f, 1, data, 4, 0xffffffff);
                assert_int_equal(guest_config_read(w->f, 1, data, 4), 0xffffffff);
        }
        assert_int_equal(guest_status(&w->d), 0);
        assert_int_equal(w->probe.config[0], 0xc0);
}

/* ---- reset ---- */

static void a_reset_forgets_all(void **state)
{
        struct probe_world *w = *state;
        unsigned resets = w->probe.n_resets;

        guest_begin(&w->d, UINT64_MAX);
        guest_msix_on(&w->d, PROBE_QUEUES + 1);
        guest_ring(&w->d, 2, 16, PROBE_RING);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
        guest_ready(&w->d);
        w->probe.v.queues[2].next_available = w->probe.v.queues[2].next_used = 7;
        virtio_needs_reset(&w->probe.v);
        guest_set_status(&w->d, 0);
        assert_int_equal(guest_status(&w->d), 0);
        assert_int_equal(w->probe.n_stops, 1);
        assert_true(w->probe.n_resets > resets);
        assert_int_equal(w->probe.v.features, 0);
        assert_int_equal(w->f->n_ioeventfds, 0);
        assert_int_equal(w->f->n_irqfds, 0);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_MSIX, 2), PCI_MSIX_NONE);
        select_queue(w, 2);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_SIZE, 2), PROBE_QUEUE_SIZE);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2), PCI_MSIX_NONE);
        assert_int_equal(guest_common(&w->d, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
        assert_int_equal(w->probe.v.queues[2].next_available, 0);
        assert_int_equal(w->probe.v.queues[2].next_used, 0);
        /* MSI-X is the bus's: it stays. */
        assert_true(pci_msix_enabled(&w->probe.v.transport->pci));
}

static void a_signal_from_before_a_reset_is_forgotten(void **state)
{
        struct probe_world *w = *state;

        probe_bring_up(w);
        virtio_signal(&w->probe.v.queues[0]);
        guest_set_status(&w->d, 0);
        fixture_run(w->f);
        assert_int_equal(w->f->machine.irqs.high[GSI_PCI_FIRST + 1], 0);
        assert_int_equal(w->probe.kicks[0], 0);
}

static void it_starts_again_after_a_reset(void **state)
{
        struct probe_world *w = *state;

        for (unsigned i = 1; i <= 3; i++) {
                struct guest_ring r = probe_bring_up(w);

                assert_int_equal(w->probe.n_starts, i);
                guest_kick(&r);
                fixture_run(w->f);
                assert_true(w->probe.kicks[0] >= i);
        }
        fixture_reset(w->f);
        assert_int_equal(w->probe.n_stops, 3);
        w->d = guest_device(w->f, 1);
        probe_bring_up(w);
        assert_int_equal(w->probe.n_starts, 4);
}

#define probe_test(f) cmocka_unit_test_setup_teardown(f, probe_setup, probe_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            probe_test(it_is_a_modern_device),
            probe_test(queues_can_be_looked_at),
            probe_test(configuration_is_read_and_written),
            probe_test(any_access_is_harmless),
            probe_test(features_that_are_not_offered_are_refused),
            probe_test(features_are_fixed_once_agreed_on),
            probe_test(status_bits_go_by_a_reset_alone),
            probe_test(a_device_that_does_not_start_needs_a_reset),
            probe_test(it_runs_as_a_bus_master_only),
            probe_test(a_wrong_size_is_not_taken),
            probe_test(rings_that_are_not_aligned_are_refused),
            probe_test(an_enabled_queue_is_fixed),
            probe_test(addresses_come_in_halves_or_whole),
            probe_test(a_kick_takes_no_exit),
            probe_test(a_kick_comes_also_without_kvms_help),
            probe_test(what_was_made_available_before_the_start_is_seen),
            probe_test(eventfds_that_are_full_hold_up_nobody),
            probe_test(kicks_follow_the_bar),
            probe_test(without_msix_the_line_is_raised),
            probe_test(with_msix_each_queue_has_its_vector),
            probe_test(a_vector_that_there_is_not_is_none),
            probe_test(a_masked_queue_is_noted_by_the_loop),
            probe_test(a_change_raises_the_generation),
            probe_test(a_broken_device_is_kicked_no_more),
            probe_test(the_window_shows_the_bar),
            probe_test(a_window_that_makes_no_sense_shows_nothing),
            probe_test(a_reset_forgets_all),
            probe_test(a_signal_from_before_a_reset_is_forgotten),
            probe_test(it_starts_again_after_a_reset),
        };

        return cmocka_run_group_tests_name("vmm_virtio_pci", tests, NULL, NULL);
}
