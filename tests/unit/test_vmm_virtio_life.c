/* test_vmm_virtio_life.c - virtio devices that are paused, saved, restored, that come and go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/unit/open_fds.h"
#include "tests/vmm/probe.h"
#include "vmm-glue/vmm/memory_copy.h"
#include "vmm-glue/vmm/run.h"

/* ---- pause ---- */

static void it_rests_while_the_machine_is_paused(void **state)
{
        struct probe_world *w = *state;
        struct guest_ring r = probe_bring_up(w);

        probe_forget_kicks(w);
        fixture_pause(w->f);
        assert_int_equal(w->probe.n_stops, 1);
        guest_kick(&r);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 0);
        fixture_resume(w->f);
        assert_int_equal(w->probe.n_starts, 2);
        fixture_run(w->f);
        assert_int_equal(w->probe.kicks[0], 1); /* nothing was lost */
}

static void a_device_that_did_not_run_does_not_at_resume(void **state)
{
        struct probe_world *w = *state;

        guest_begin(&w->d, 0);
        fixture_pause(w->f);
        fixture_resume(w->f);
        assert_int_equal(w->probe.n_starts, 0);
        guest_ready(&w->d);
        assert_int_equal(w->probe.n_starts, 1);
}

/* ---- the log of what is written ---- */

/* There is no vCPU that could be faster than the copy. Those of run.c would bring the machine's own functions
 * with them, in the place of the fixture's. */
void run_rest(struct machine *machine)
{
        abort();
}

void run_go(struct machine *machine)
{
        abort();
}

static void on_copied(void *arg, int result, const char *sentence)
{
}

static int begin_copy(struct probe_world *w, struct error *err)
{
        int fd = memfd_create("saved", MFD_CLOEXEC);
        int r = memory_copy_begin(&w->f->machine, fd, on_copied, NULL, err);

        memory_copy_cancel(&w->f->machine);
        fixture_run(w->f);
        close(fd);
        return r;
}

static void it_is_told_of_the_log_while_it_runs(void **state)
{
        struct probe_world *w = *state;

        assert_int_equal(begin_copy(w, NULL), 0);
        assert_int_equal(w->probe.n_logs, 0);
        assert_int_equal(w->probe.n_log_ends, 0);
        probe_bring_up(w);
        assert_int_equal(begin_copy(w, NULL), 0);
        assert_int_equal(w->probe.n_logs, 1);
        assert_int_equal(w->probe.n_log_ends, 1);
        fixture_pause(w->f);
        assert_int_equal(begin_copy(w, NULL), 0);
        assert_int_equal(w->probe.n_logs, 1);
        assert_int_equal(w->probe.n_log_ends, 1);
}

/* Whoever has begun to note what it writes is told to stop. */
static void a_device_that_cannot_log_refuses_the_copy(void **state)
{
        struct probe_world *w = *state;
        struct error err = ERROR_INIT;

        probe_bring_up(w);
        w->probe.log_result = -EOPNOTSUPP;
        assert_int_equal(begin_copy(w, &err), -EOPNOTSUPP);
        assert_string_equal(err.message, "it does not note what it writes");
        assert_null(w->f->machine.memory.log);
        assert_int_equal(w->probe.n_log_ends, 1);
}

/* ---- saved state ---- */

static void bring_up_to_save(struct probe_world *w)
{
        guest_begin(&w->d, UINT64_MAX);
        guest_msix_on(&w->d, PROBE_QUEUES + 1);
        guest_ring(&w->d, 1, 16, PROBE_RING);
        guest_set_common(&w->d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 3);
        guest_ready(&w->d);
        w->probe.v.queues[1].next_available = 11;
        w->probe.v.queues[1].next_used = 9;
        w->probe.own = 0x12345678;
        fixture_pause(w->f);
}

static void it_goes_on_in_another_machine(void **state)
{
        struct probe_world *w = *state, *other = probe_world_new(false);
        struct state_writer writer = {0};
        struct error err = ERROR_INIT;

        bring_up_to_save(w);
        fixture_save(w->f, &writer);
        if (fixture_restore(other->f, writer.data, writer.size, &err) < 0)
                fail_msg("%s", err.message);
        guest_config_write(other->f, 1, PCI_CACHE_LINE_SIZE, 1, 1);
        assert_int_equal(other->probe.n_starts, 0);
        fixture_resume(other->f);
        assert_int_equal(other->probe.n_starts, 1);
        assert_int_equal(other->probe.own, 0x12345678);
        assert_true(other->probe.v.features == w->probe.v.features);
        assert_int_equal(other->probe.v.queues[1].next_available, 11);
        assert_int_equal(other->probe.v.queues[1].next_used, 9);
        assert_true(other->probe.v.queues[1].used == w->probe.v.queues[1].used);
        assert_int_equal(guest_status(&other->d), guest_status(&w->d));
        assert_int_equal(other->f->n_ioeventfds, 1);
        assert_int_equal(other->f->n_irqfds, 1);
        /* Whatever was on its way, driver and device look. */
        fixture_deliver(other->f);
        assert_int_equal(other->f->messages[0].data, 0x43);
        fixture_run(other->f);
        assert_int_equal(other->probe.kicks[1], 1);
        state_writer_free(&writer);
        probe_world_free(other);
}

static void a_signal_that_nobody_saw_is_saved(void **state)
{
        struct probe_world *w = *state, *other = probe_world_new(false);
        struct state_writer writer = {0};

        probe_bring_up(w); /* without MSI-X */
        virtio_signal(&w->probe.v.queues[0]);
        fixture_pause(w->f);
        fixture_save(w->f, &writer);
        assert_int_equal(fixture_restore(other->f, writer.data, writer.size, NULL), 0);
        assert_int_equal(other->f->machine.irqs.high[GSI_PCI_FIRST + 1], 1);
        assert_int_equal(fixture_read(other->f, other->d.bar + VIRTIO_PCI_ISR_PAGE, 1), 1);
        state_writer_free(&writer);
        probe_world_free(other);
}

static void what_is_saved_is_the_same_after_restoring_it(void **state)
{
        struct probe_world *w = *state, *other = probe_world_new(false);
        struct state_writer one = {0}, two = {0};

        bring_up_to_save(w);
        fixture_save(w->f, &one);
        assert_int_equal(fixture_restore(other->f, one.data, one.size, NULL), 0);
        fixture_save(other->f, &two);
        assert_int_equal(one.size, two.size);
        assert_memory_equal(one.data, two.data, one.size);
        state_writer_free(&one);
        state_writer_free(&two);
        probe_world_free(other);
}

/* Whatever stands in the state: it is refused, or the device can live with it. */
static void no_state_is_believed(void **state)
{
        struct probe_world *w = *state;
        struct device *device = &w->probe.v.transport->device;
        struct state_writer writer = {0};
        unsigned n_refused = 0;
        size_t n;

        bring_up_to_save(w);
        device->ops->save(device, &writer);
        n = writer.size;
        for (size_t i = 0; i < n; i++) {
                struct probe_world *other = probe_world_new(false);
                struct device *restored = &other->probe.v.transport->device;
                struct state_reader reader = {.data = writer.data, .left = n, .version = 1};

                writer.data[i] ^= 0xff;
                if (restored->ops->restore(restored, &reader, NULL) < 0)
                        n_refused++;
                fixture_resume(other->f);
                writer.data[i] ^= 0xff;
                probe_world_free(other);
        }
        assert_true(n_refused > 64); /* the fixed part of the configuration space, for one */
        state_writer_free(&writer);
}

static void state_that_is_cut_off_is_refused(void **state)
{
        struct probe_world *w = *state;
        struct device *device = &w->probe.v.transport->device;
        struct state_writer writer = {0};

        bring_up_to_save(w);
        device->ops->save(device, &writer);
        for (size_t n = 0; n < writer.size; n += 7) {
                struct probe_world *other = probe_world_new(false);
                struct device *restored = &other->probe.v.transport->device;
                struct state_reader reader = {.data = writer.data, .left = n, .version = 1};
                int r = restored->ops->restore(restored, &reader, NULL);

                assert_true(r < 0 || state_finish(&reader, "probe0", NULL) < 0);
                probe_world_free(other);
        }
        state_writer_free(&writer);
}

/* ---- coming and going ---- */

static unsigned n_removed;

static void removed(struct virtio_device *v)
{
        assert_string_equal(v->id, "probe0");
        assert_int_equal(container_of(v, struct probe, v)->n_frees, 0);
        n_removed++;
}

static void it_goes_when_the_guest_lets_go(void **state)
{
        struct probe_world *w = *state;

        n_removed = 0;
        probe_bring_up(w);
        virtio_detach(&w->probe.v, removed);
        fixture_run(w->f);
        assert_int_equal(n_removed, 0);
        assert_true(w->probe.v.started);
        fixture_out(w->f, PORT_PCI_HOTPLUG + 8, 1u << 1, 4);
        assert_int_equal(w->probe.n_stops, 1);
        assert_int_equal(w->f->n_ioeventfds, 0);
        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 4), 0xffffffff);
        fixture_run(w->f);
        assert_int_equal(n_removed, 1);
        assert_int_equal(w->probe.n_frees, 1);
        /* and comes again */
        probe_attach(w, true);
        assert_int_equal(fixture_in(w->f, PORT_PCI_HOTPLUG, 4), 1u << 1);
        w->d = guest_device(w->f, 1);
        probe_bring_up(w);
        assert_true(w->probe.v.started);
}

static void it_goes_at_a_reset(void **state)
{
        struct probe_world *w = *state;

        n_removed = 0;
        probe_bring_up(w);
        virtio_detach(&w->probe.v, removed);
        fixture_reset(w->f);
        w->f->gpes = 0;
        virtio_detach(&w->probe.v, removed); /* too late to ask */
        assert_int_equal(w->f->gpes, 0);
        fixture_run(w->f);
        assert_int_equal(n_removed, 1);
        assert_int_equal(w->probe.n_frees, 1);
        probe_attach(w, false);
}

static void the_machine_ends_before_the_farewell(void **state)
{
        struct probe_world *w = *state;

        n_removed = 0;
        virtio_detach(&w->probe.v, removed);
        fixture_out(w->f, PORT_PCI_HOTPLUG + 8, 1u << 1, 4);
        /* teardown() frees the machine, and then runs the loop */
        assert_int_equal(n_removed, 0);
}

static void nothing_is_left_where_it_cannot_be_attached(void **state)
{
        struct probe_world *w = *state;
        unsigned n_before = count_open_fds();

        for (unsigned i = 0; i < GSI_MSI_MAX; i++)
                w->f->machine.irqs.messages[i].used = true;
        struct probe probe = {.v = {.ops = &probe_virtio_ops, .id = "probe1"}};
        static const uint16_t sizes[] = {16, 16};
        const struct virtio_options options = {.queue_sizes = sizes, .n_queues = 2};

        assert_int_equal(virtio_attach(&w->f->machine, &probe.v, &options, NULL), -ENOSPC);
        assert_int_equal(probe.n_frees, 1);
        fixture_run(w->f);
        assert_int_equal(count_open_fds(), n_before);
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 3);
}

static void there_is_a_slot_to_boot_from(void **state)
{
        struct probe_world *w = *state;
        uint8_t slots[PCI_SLOTS];

        assert_int_equal(pci_boot_slots(&w->f->machine, slots, PCI_SLOTS), 1);
        assert_int_equal(slots[0], 1);
}

#define probe_test(f) cmocka_unit_test_setup_teardown(f, probe_setup, probe_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            probe_test(it_rests_while_the_machine_is_paused),
            probe_test(a_device_that_did_not_run_does_not_at_resume),
            probe_test(it_is_told_of_the_log_while_it_runs),
            probe_test(a_device_that_cannot_log_refuses_the_copy),
            probe_test(it_goes_on_in_another_machine),
            probe_test(a_signal_that_nobody_saw_is_saved),
            probe_test(what_is_saved_is_the_same_after_restoring_it),
            probe_test(no_state_is_believed),
            probe_test(state_that_is_cut_off_is_refused),
            probe_test(it_goes_when_the_guest_lets_go),
            probe_test(it_goes_at_a_reset),
            probe_test(the_machine_ends_before_the_farewell),
            probe_test(nothing_is_left_where_it_cannot_be_attached),
            probe_test(there_is_a_slot_to_boot_from),
        };

        return cmocka_run_group_tests_name("vmm_virtio_life", tests, NULL, NULL);
}
