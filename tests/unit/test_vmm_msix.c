/* test_vmm_msix.c - MSI-X: masks, pending bits, and who has the eventfds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/vmm/guest.h"
#include "vmm-glue/vmm/pci.h"
#include "vmm-glue/vmm/watch.h"

#define VECTORS 3u

struct world {
        struct machine_fixture *f;
        struct pci_device pci;
        struct pci_source sources[2];
        struct guest_device d;
        unsigned control; /* where the capability's is */
};

static void mapped(struct pci_device *pci, unsigned bar, bool is)
{
}

static const struct pci_device_ops ops = {.bar_mapped = mapped};

static int setup(void **state)
{
        const struct pci_identity identity = {.vendor = 1, .device = 2, .interrupt = true};
        struct world *w = calloc(1, sizeof(*w));

        w->f = fixture_new(MIB(32), NULL);
        assert_int_equal(pci_create(&w->f->machine, NULL), 0);
        pci_device_init(&w->pci, &w->f->machine, &ops, &identity);
        assert_int_equal(pci_msix_new(&w->pci, 1, VECTORS, NULL), 0);
        assert_int_equal(pci_insert(&w->pci, false, NULL), 0);
        w->d = guest_device(w->f, 1);
        w->control = guest_capability(w->f, 1, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS;
        for (unsigned i = 0; i < 2; i++) {
                pci_source_init(&w->sources[i], &w->pci, eventfd_new(NULL));
                pci_source_set_vector(&w->sources[i], (uint16_t)i);
        }
        *state = w;
        return 0;
}

static int teardown(void **state)
{
        struct world *w = *state;

        pci_remove(&w->pci);
        pci_msix_free(&w->pci);
        for (unsigned i = 0; i < GSI_MSI_MAX; i++)
                assert_false(w->f->machine.irqs.messages[i].used);
        for (unsigned i = 0; i < 2; i++)
                close(w->sources[i].fd);
        fixture_free(w->f);
        free(w);
        return 0;
}

static uint64_t entry(const struct world *w, unsigned vector, unsigned field)
{
        return w->d.msix_bar + vector * PCI_MSIX_ENTRY_SIZE + field;
}

static void set_control(struct world *w, uint16_t flags)
{
        guest_config_write(w->f, 1, w->control, 2, flags);
}

static void signal_and_deliver(struct world *w, unsigned i)
{
        eventfd_signal(w->sources[i].fd);
        fixture_deliver(w->f);
}

static void the_table_is_there(void **state)
{
        struct world *w = *state;

        assert_int_equal(guest_config_read(w->f, 1, w->control, 2), VECTORS - 1);
        for (unsigned i = 0; i < VECTORS; i++)
                assert_int_equal(fixture_read(w->f, entry(w, i, PCI_MSIX_ENTRY_VECTOR_CTRL), 4),
                                 PCI_MSIX_ENTRY_CTRL_MASKBIT);
        fixture_write(w->f, entry(w, 2, PCI_MSIX_ENTRY_LOWER_ADDR), 0x1122334455667788, 8);
        assert_int_equal(fixture_read(w->f, entry(w, 2, PCI_MSIX_ENTRY_UPPER_ADDR), 4), 0x11223344);
        fixture_write(w->f, entry(w, 2, PCI_MSIX_ENTRY_DATA), 0xabcd, 4);
        assert_true(fixture_read(w->f, entry(w, 2, PCI_MSIX_ENTRY_DATA), 8) == 0x10000abcd);
        assert_int_equal(fixture_read(w->f, entry(w, VECTORS, 0), 4), 0);
}

static void odd_accesses_do_nothing(void **state)
{
        struct world *w = *state;

        for (uint64_t offset = 0; offset < PCI_MSIX_BAR_SIZE; offset++)
                for (unsigned size = 1; size <= 8; size *= 2) {
                        if (size >= 4 && offset % size == 0 && offset < VECTORS * 16)
                                continue;
                        fixture_write(w->f, w->d.msix_bar + offset, UINT64_MAX, size);
                        fixture_read(w->f, w->d.msix_bar + offset, size);
                }
        for (unsigned i = 0; i < VECTORS; i++)
                assert_true(fixture_read(w->f, entry(w, i, 0), 8) == 0);
        assert_int_equal(guest_msix_pending(&w->d), 0);
}

static void live_vectors_have_their_eventfds_with_kvm(void **state)
{
        struct world *w = *state;

        assert_int_equal(w->f->n_irqfds, 0);
        guest_msix_on(&w->d, VECTORS);
        assert_int_equal(w->f->n_irqfds, 2);
        signal_and_deliver(w, 1);
        assert_int_equal(w->f->n_messages, 1);
        assert_int_equal(w->f->messages[0].address, GUEST_MESSAGE);
        assert_int_equal(w->f->messages[0].data, 0x41);
        set_control(w, 0);
        assert_int_equal(w->f->n_irqfds, 0);
}

static void what_kvm_has_seen_is_not_sent_again(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        eventfd_signal(w->sources[0].fd);
        assert_true(pci_source_collect(&w->sources[0]));
        assert_int_equal(w->f->n_messages, 0);
}

static void a_masked_vector_is_pending(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        guest_msix_mask(&w->d, 0, true);
        assert_int_equal(w->f->n_irqfds, 1);
        assert_int_equal(guest_msix_pending(&w->d), 0);
        signal_and_deliver(w, 0);
        assert_int_equal(w->f->n_messages, 0);
        assert_int_equal(guest_msix_pending(&w->d), 1);
        guest_msix_mask(&w->d, 0, false);
        assert_int_equal(w->f->n_messages, 1);
        assert_int_equal(w->f->messages[0].data, 0x40);
        assert_int_equal(guest_msix_pending(&w->d), 0);
        assert_int_equal(w->f->n_irqfds, 2);
}

static void what_was_signalled_while_masked_comes_at_unmask(void **state)
{
        struct world *w = *state;

        /* Nobody looked in between: not even at the pending bits. */
        guest_msix_on(&w->d, VECTORS);
        guest_msix_mask(&w->d, 0, true);
        signal_and_deliver(w, 0);
        guest_msix_mask(&w->d, 0, false);
        assert_int_equal(w->f->n_messages, 1);
        fixture_deliver(w->f);
        assert_int_equal(w->f->n_messages, 1); /* and once only */
}

static void the_functions_mask_masks_all(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        set_control(w, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
        assert_int_equal(w->f->n_irqfds, 0);
        signal_and_deliver(w, 0);
        signal_and_deliver(w, 1);
        pci_msix_notify(&w->pci, 2);
        assert_int_equal(w->f->n_messages, 0);
        assert_int_equal(guest_msix_pending(&w->d), 7);
        set_control(w, PCI_MSIX_FLAGS_ENABLE);
        assert_int_equal(w->f->n_messages, 3);
        assert_int_equal(guest_msix_pending(&w->d), 0);
}

static void the_message_changes_while_it_is_live(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        fixture_write(w->f, entry(w, 0, PCI_MSIX_ENTRY_DATA), 0x99, 4);
        signal_and_deliver(w, 0);
        assert_int_equal(w->f->messages[0].data, 0x99);
        fixture_write(w->f, entry(w, 0, PCI_MSIX_ENTRY_LOWER_ADDR), GUEST_MESSAGE + 0x1000, 4);
        signal_and_deliver(w, 0);
        assert_int_equal(w->f->messages[1].address, GUEST_MESSAGE + 0x1000);
}

static void what_is_no_message_goes_nowhere(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        fixture_write(w->f, entry(w, 0, PCI_MSIX_ENTRY_LOWER_ADDR), 0x100000, 4);
        assert_int_equal(w->f->n_irqfds, 1);
        pci_msix_notify(&w->pci, 0);
        eventfd_signal(w->sources[0].fd);
        assert_true(pci_source_collect(&w->sources[0]));
        fixture_write(w->f, entry(w, 0, PCI_MSIX_ENTRY_LOWER_ADDR), GUEST_MESSAGE, 4);
        fixture_write(w->f, entry(w, 0, PCI_MSIX_ENTRY_UPPER_ADDR), 1, 4);
        pci_msix_notify(&w->pci, 0);
        assert_int_equal(w->f->n_messages, 0);
}

static void two_sources_share_a_vector(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        pci_source_set_vector(&w->sources[1], 0);
        assert_int_equal(w->f->n_irqfds, 2);
        signal_and_deliver(w, 0);
        signal_and_deliver(w, 1);
        assert_int_equal(w->f->messages[0].data, 0x40);
        assert_int_equal(w->f->messages[1].data, 0x40);
        pci_source_set_vector(&w->sources[1], VECTORS);
        assert_int_equal(w->sources[1].vector, PCI_MSIX_NONE);
        assert_int_equal(w->f->n_irqfds, 1);
        pci_source_set_vector(&w->sources[0], PCI_MSIX_NONE);
        assert_int_equal(w->f->n_irqfds, 0);
}

static void without_irqfds_signals_are_passed_on_from_here(void **state)
{
        struct world *w = *state;

        w->f->refuse_irqfds = true;
        guest_msix_on(&w->d, VECTORS);
        assert_int_equal(w->f->n_irqfds, 0);
        eventfd_signal(w->sources[1].fd);
        assert_true(pci_source_collect(&w->sources[1]));
        assert_int_equal(w->f->n_messages, 1);
        assert_int_equal(w->f->messages[0].data, 0x41);
        assert_false(pci_source_collect(&w->sources[1]));
}

static void nothing_is_sent_while_msix_is_off(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        set_control(w, 0);
        pci_msix_notify(&w->pci, 0);
        signal_and_deliver(w, 0);
        assert_true(pci_source_collect(&w->sources[0]));
        assert_int_equal(w->f->n_messages, 0);
        set_control(w, PCI_MSIX_FLAGS_ENABLE);
        assert_int_equal(w->f->n_messages, 0);
}

static void a_reset_masks_and_forgets(void **state)
{
        struct world *w = *state;

        guest_msix_on(&w->d, VECTORS);
        guest_msix_mask(&w->d, 2, true);
        pci_msix_notify(&w->pci, 2);
        pci_device_reset(&w->pci);
        assert_int_equal(w->f->n_irqfds, 0);
        assert_false(pci_msix_enabled(&w->pci));
        w->d = guest_device(w->f, 1);
        assert_int_equal(guest_msix_pending(&w->d), 0);
        assert_int_equal(fixture_read(w->f, entry(w, 0, PCI_MSIX_ENTRY_VECTOR_CTRL), 4), 1);
        assert_int_equal(fixture_read(w->f, entry(w, 0, PCI_MSIX_ENTRY_DATA), 4), 0);
}

static void what_is_masked_and_pending_is_saved(void **state)
{
        struct world *w = *state;
        struct state_writer writer = {0};
        struct state_reader reader;

        guest_msix_on(&w->d, VECTORS);
        guest_msix_mask(&w->d, 0, true);
        eventfd_signal(w->sources[0].fd);
        state_begin(&writer, "msix", 1);
        pci_device_save(&w->pci, &writer);
        state_end(&writer);
        pci_device_reset(&w->pci);
        assert_int_equal(state_find(writer.data, writer.size, "msix", 1, &reader, NULL), 0);
        assert_int_equal(pci_device_restore(&w->pci, &reader, NULL), 0);
        assert_int_equal(state_finish(&reader, "msix", NULL), 0);
        assert_int_equal(w->f->n_irqfds, 1);
        assert_int_equal(guest_msix_pending(&w->d), 1);
        guest_msix_mask(&w->d, 0, false);
        assert_int_equal(w->f->n_messages, 1);
        assert_int_equal(w->f->messages[0].data, 0x40);
        state_writer_free(&writer);
}

#define msix_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            msix_test(the_table_is_there),
            msix_test(odd_accesses_do_nothing),
            msix_test(live_vectors_have_their_eventfds_with_kvm),
            msix_test(what_kvm_has_seen_is_not_sent_again),
            msix_test(a_masked_vector_is_pending),
            msix_test(what_was_signalled_while_masked_comes_at_unmask),
            msix_test(the_functions_mask_masks_all),
            msix_test(the_message_changes_while_it_is_live),
            msix_test(what_is_no_message_goes_nowhere),
            msix_test(two_sources_share_a_vector),
            msix_test(without_irqfds_signals_are_passed_on_from_here),
            msix_test(nothing_is_sent_while_msix_is_off),
            msix_test(a_reset_masks_and_forgets),
            msix_test(what_is_masked_and_pending_is_saved),
        };

        return cmocka_run_group_tests_name("vmm_msix", tests, NULL, NULL);
}
