/* test_vmm_pci.c - the PCI bus: configuration space by ports and ECAM, BARs, INTA#, slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/vmm/guest.h"
#include "vmm-glue/vmm/pci.h"

#define BAR_SIZE 0x2000u

/* A device with a BAR of one register, which tells where it was read. */
struct probe {
        struct pci_device pci;
        unsigned n_mapped, n_unmapped, n_ejected;
        uint64_t written;
};

static uint64_t probe_read(void *owner, uint64_t offset, unsigned size)
{
        return 0x1100 + offset;
}

static void probe_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        ((struct probe *)owner)->written = value;
}

static const struct bus_ops probe_bus_ops = {probe_read, probe_write};

static void probe_mapped(struct pci_device *pci, unsigned bar, bool mapped)
{
        struct probe *probe = container_of(pci, struct probe, pci);

        if (mapped)
                probe->n_mapped++;
        else
                probe->n_unmapped++;
}

static void probe_ejected(struct pci_device *pci)
{
        container_of(pci, struct probe, pci)->n_ejected++;
}

static const struct pci_device_ops probe_ops = {.bar_mapped = probe_mapped,
                                                .ejected = probe_ejected};

struct world {
        struct machine_fixture *f;
        struct probe probes[3]; /* slots 1 to 3 */
};

static void make_probe(struct world *w, unsigned i, bool hotplugged)
{
        const struct pci_identity identity = {.vendor = 0x1af4,
                                              .device = 0x1000 + i,
                                              .class_code = 0xff0000,
                                              .revision = 7,
                                              .interrupt = true};
        struct probe *probe = &w->probes[i];

        pci_device_init(&probe->pci, &w->f->machine, &probe_ops, &identity);
        pci_add_bar(&probe->pci, 0, BAR_SIZE, &probe_bus_ops, probe);
        assert_int_equal(pci_insert(&probe->pci, hotplugged, NULL), 0);
}

static int setup(void **state)
{
        struct world *w = calloc(1, sizeof(*w));

        w->f = fixture_new(MIB(32), NULL);
        assert_int_equal(pci_create(&w->f->machine, NULL), 0);
        for (unsigned i = 0; i < 3; i++)
                make_probe(w, i, false);
        *state = w;
        return 0;
}

static int teardown(void **state)
{
        struct world *w = *state;

        for (unsigned i = 0; i < 3; i++)
                pci_remove(&w->probes[i].pci);
        fixture_free(w->f);
        free(w);
        return 0;
}

static void decode(struct world *w, unsigned slot, bool on)
{
        guest_config_write(w->f, slot, PCI_COMMAND, 2, on ? PCI_COMMAND_MEMORY : 0);
}

static void place(struct world *w, unsigned slot, uint64_t address)
{
        guest_config_write(w->f, slot, PCI_BASE_ADDRESS_0, 4, (uint32_t)address);
}

static bool answers(struct world *w, uint64_t address)
{
        return fixture_read(w->f, address + 4, 4) == 0x1104;
}

/* ---- configuration space ---- */

static void ports_and_ecam_show_the_same(void **state)
{
        struct world *w = *state;

        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 4), 0x10001af4);
        for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset += 4)
                assert_int_equal(guest_port_config_read(w->f, 1, offset, 4),
                                 guest_config_read(w->f, 1, offset, 4));
        assert_int_equal(guest_port_config_read(w->f, 1, PCI_DEVICE_ID + 1, 1), 0x10);
        assert_int_equal(guest_config_read(w->f, 0, PCI_CLASS_DEVICE, 2), 0x0600);
}

static void the_address_register_reads_back(void **state)
{
        struct world *w = *state;

        fixture_out(w->f, PORT_PCI_ADDRESS, 0x80000000, 4);
        assert_int_equal(fixture_in(w->f, PORT_PCI_ADDRESS, 4), 0x80000000);
        fixture_out(w->f, PORT_PCI_ADDRESS, 0xffffffff, 4);
        assert_int_equal(fixture_in(w->f, PORT_PCI_ADDRESS, 4), 0x80fffffc);
        /* Nothing is selected: the data port reads as ones, and writes nothing. */
        fixture_out(w->f, PORT_PCI_ADDRESS, 1 << 11, 4);
        assert_int_equal(fixture_in(w->f, PORT_PCI_DATA, 4), 0xffffffff);
}

static void a_byte_in_its_midst_is_the_reset_register(void **state)
{
        struct world *w = *state;

        fixture_out(w->f, PORT_PCI_ADDRESS, 0x80000800, 4);
        fixture_out(w->f, PORT_RESET, 0x0e, 1);
        assert_int_equal(w->f->reset_register, 0x0e);
        assert_int_equal(fixture_in(w->f, PORT_RESET, 1), 0x0e);
        assert_int_equal(fixture_in(w->f, PORT_PCI_ADDRESS, 4), 0x80000800);
}

static void what_is_not_there_reads_as_ones(void **state)
{
        struct world *w = *state;

        assert_int_equal(guest_config_read(w->f, 9, PCI_VENDOR_ID, 4), 0xffffffff);
        assert_int_equal(guest_config_read(w->f, 9, PCI_VENDOR_ID, 2), 0xffff);
        assert_int_equal(guest_config_read(w->f, 1, 0x1000 + PCI_VENDOR_ID, 2), 0xffff);
        assert_int_equal(guest_config_read(w->f, 1, 0x100, 4), 0xffffffff);
        /* another bus */
        fixture_out(w->f, PORT_PCI_ADDRESS, 0x80010800, 4);
        assert_int_equal(fixture_in(w->f, PORT_PCI_DATA, 4), 0xffffffff);
}

static void straddling_accesses_do_nothing(void **state)
{
        struct world *w = *state;

        assert_int_equal(guest_config_read(w->f, 1, 2, 4), 0xffffffff);
        assert_int_equal(guest_config_read(w->f, 1, 3, 2), 0xffff);
        guest_config_write(w->f, 1, PCI_CACHE_LINE_SIZE - 1, 2, 0x5555);
        assert_int_equal(guest_config_read(w->f, 1, PCI_CACHE_LINE_SIZE, 1), 0);
        fixture_write(w->f, LAYOUT_ECAM + 0x8000, UINT64_MAX, 8);
        assert_true(fixture_read(w->f, LAYOUT_ECAM + 0x8000, 8) == UINT64_MAX);
        for (unsigned port = PORT_PCI_ADDRESS; port < PORT_PCI_DATA + 4; port++)
                for (unsigned size = 1; size <= 8; size *= 2) {
                        fixture_out(w->f, (uint16_t)port, UINT64_MAX, size);
                        fixture_in(w->f, (uint16_t)port, size);
                }
        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 4), 0x10001af4);
}

static void what_is_fixed_cannot_be_written(void **state)
{
        struct world *w = *state;

        for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset += 4)
                guest_config_write(w->f, 1, offset, 4, 0xffffffff);
        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 4), 0x10001af4);
        assert_int_equal(guest_config_read(w->f, 1, PCI_CLASS_REVISION, 4), 0xff000007);
        assert_int_equal(guest_config_read(w->f, 1, PCI_COMMAND, 2),
                         PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
        assert_int_equal(guest_config_read(w->f, 1, PCI_STATUS, 2), 0);
        assert_int_equal(guest_config_read(w->f, 1, PCI_BASE_ADDRESS_1, 4), 0);
        assert_int_equal(guest_config_read(w->f, 1, PCI_ROM_ADDRESS, 4), 0);
        assert_int_equal(guest_config_read(w->f, 1, PCI_INTERRUPT_LINE, 4), 0x1ff);
}

/* ---- BARs ---- */

static void a_bar_tells_its_size(void **state)
{
        struct world *w = *state;

        place(w, 1, GUEST_BAR);
        guest_config_write(w->f, 1, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
        assert_int_equal(guest_config_read(w->f, 1, PCI_BASE_ADDRESS_0, 4), ~(BAR_SIZE - 1));
        place(w, 1, GUEST_BAR);
        assert_int_equal(guest_config_read(w->f, 1, PCI_BASE_ADDRESS_0, 4), GUEST_BAR);
}

static void a_bar_answers_while_memory_is_decoded(void **state)
{
        struct world *w = *state;

        place(w, 1, GUEST_BAR);
        assert_false(answers(w, GUEST_BAR));
        decode(w, 1, true);
        assert_true(answers(w, GUEST_BAR));
        fixture_write(w->f, GUEST_BAR, 0x77, 2);
        assert_int_equal(w->probes[0].written, 0x77);
        decode(w, 1, false);
        assert_false(answers(w, GUEST_BAR));
        assert_int_equal(w->probes[0].n_mapped, 1);
        assert_int_equal(w->probes[0].n_unmapped, 1);
}

static void a_bar_moves_while_memory_is_decoded(void **state)
{
        struct world *w = *state;

        place(w, 1, GUEST_BAR);
        decode(w, 1, true);
        place(w, 1, GUEST_BAR + 0x100000);
        assert_false(answers(w, GUEST_BAR));
        assert_true(answers(w, GUEST_BAR + 0x100000));
        /* sizing it without switching decoding off */
        guest_config_write(w->f, 1, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
        assert_false(answers(w, GUEST_BAR + 0x100000));
        place(w, 1, GUEST_BAR);
        assert_true(answers(w, GUEST_BAR));
        /* byte by byte */
        guest_config_write(w->f, 1, PCI_BASE_ADDRESS_0 + 2, 1, 0x40);
        assert_true(answers(w, GUEST_BAR + 0x400000));
        assert_int_equal(w->probes[0].n_mapped, w->probes[0].n_unmapped + 1);
}

static void a_bar_outside_the_window_does_not_answer(void **state)
{
        static const uint64_t places[] = {0,
                                          0x100000,
                                          LAYOUT_ECAM,
                                          LAYOUT_PCI32 - BAR_SIZE,
                                          LAYOUT_IOAPIC,
                                          LAYOUT_LAPIC,
                                          0xfffff000u,
                                          LAYOUT_PCI32_END};
        struct world *w = *state;

        decode(w, 1, true);
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                place(w, 1, places[i]);
                assert_int_equal(w->probes[0].n_mapped, 0);
        }
        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 2), 0x1af4);
        place(w, 1, LAYOUT_PCI32_END - BAR_SIZE);
        assert_true(answers(w, LAYOUT_PCI32_END - BAR_SIZE));
}

static void of_two_that_overlap_the_first_answers(void **state)
{
        struct world *w = *state;

        place(w, 1, GUEST_BAR);
        decode(w, 1, true);
        place(w, 2, GUEST_BAR);
        decode(w, 2, true);
        fixture_write(w->f, GUEST_BAR, 5, 4);
        assert_int_equal(w->probes[0].written, 5);
        assert_int_equal(w->probes[1].n_mapped, 0);
        /* The other one was hidden, and is no more. */
        decode(w, 1, false);
        fixture_write(w->f, GUEST_BAR, 6, 4);
        assert_int_equal(w->probes[1].written, 6);
        assert_int_equal(w->probes[0].written, 5);
}

static void bars_are_placed_without_firmware(void **state)
{
        struct world *w = *state;
        uint64_t at[3];

        pci_assign_bars(&w->f->machine);
        for (unsigned i = 0; i < 3; i++) {
                at[i] = guest_config_read(w->f, i + 1, PCI_BASE_ADDRESS_0, 4);
                assert_true(at[i] >= LAYOUT_PCI32 && at[i] % BAR_SIZE == 0);
                assert_true(i == 0 || at[i] >= at[i - 1] + BAR_SIZE);
                assert_int_equal(guest_config_read(w->f, i + 1, PCI_COMMAND, 2), 0);
                assert_false(answers(w, at[i]));
                decode(w, i + 1, true);
                assert_true(answers(w, at[i]));
        }
}

static void a_reset_takes_bars_away(void **state)
{
        struct world *w = *state;

        place(w, 1, GUEST_BAR);
        decode(w, 1, true);
        guest_config_write(w->f, 1, PCI_INTERRUPT_LINE, 1, 0x42);
        pci_intx_set(&w->probes[0].pci, true);
        pci_device_reset(&w->probes[0].pci);
        assert_false(answers(w, GUEST_BAR));
        assert_int_equal(guest_config_read(w->f, 1, PCI_BASE_ADDRESS_0, 4), 0);
        assert_int_equal(guest_config_read(w->f, 1, PCI_COMMAND, 2), 0);
        assert_int_equal(guest_config_read(w->f, 1, PCI_INTERRUPT_LINE, 1), IRQ_PCI_PIC_B);
        assert_int_equal(w->f->machine.irqs.high[pci_intx_gsi(1)], 0);
}

/* ---- INTA# ---- */

static void the_line_is_raised_by_ioapic_and_pic(void **state)
{
        struct world *w = *state;
        const unsigned *high = w->f->machine.irqs.high;

        pci_intx_set(&w->probes[0].pci, true);
        assert_int_equal(high[GSI_PCI_FIRST + 1], 1);
        assert_int_equal(high[IRQ_PCI_PIC_B], 1);
        assert_int_equal(guest_config_read(w->f, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
                         PCI_STATUS_INTERRUPT);
        assert_int_equal(guest_config_read(w->f, 1, PCI_INTERRUPT_LINE, 1), IRQ_PCI_PIC_B);
        assert_int_equal(guest_config_read(w->f, 2, PCI_INTERRUPT_LINE, 1), IRQ_PCI_PIC_A);
        pci_intx_set(&w->probes[2].pci, true); /* slot 3: the PIC's line is the same */
        assert_int_equal(high[GSI_PCI_FIRST + 3], 1);
        assert_int_equal(high[IRQ_PCI_PIC_B], 2);
        pci_intx_set(&w->probes[0].pci, false);
        assert_int_equal(high[GSI_PCI_FIRST + 1], 0);
        assert_int_equal(high[IRQ_PCI_PIC_B], 1);
        assert_int_equal(guest_config_read(w->f, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
}

static void the_line_can_be_switched_off(void **state)
{
        struct world *w = *state;
        const unsigned *high = &w->f->machine.irqs.high[GSI_PCI_FIRST + 1];

        pci_intx_set(&w->probes[0].pci, true);
        guest_config_write(w->f, 1, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
        assert_int_equal(*high, 0);
        /* It is still wanted. */
        assert_true(guest_config_read(w->f, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
        guest_config_write(w->f, 1, PCI_COMMAND, 2, 0);
        assert_int_equal(*high, 1);
}

/* ---- slots ---- */

static uint32_t hotplug_register(struct world *w, unsigned offset)
{
        return (uint32_t)fixture_in(w->f, (uint16_t)(PORT_PCI_HOTPLUG + offset), 4);
}

static void a_device_that_comes_is_told_of_once(void **state)
{
        struct world *w = *state;

        assert_int_equal(w->f->gpes, 0);
        assert_int_equal(hotplug_register(w, 0), 0);
        pci_remove(&w->probes[1].pci);
        assert_int_equal(guest_config_read(w->f, 2, PCI_VENDOR_ID, 4), 0xffffffff);
        make_probe(w, 1, true);
        assert_int_equal(w->f->gpes, 1u << GPE_PCI_HOTPLUG);
        assert_int_equal(hotplug_register(w, 4), 0);
        assert_int_equal(hotplug_register(w, 0), 1u << 2);
        assert_int_equal(hotplug_register(w, 0), 0);
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 0xf);
}

static void a_device_goes_when_the_guest_lets_go(void **state)
{
        struct world *w = *state;

        place(w, 1, GUEST_BAR);
        decode(w, 1, true);
        pci_ask_eject(&w->probes[0].pci);
        assert_int_equal(w->f->gpes, 1u << GPE_PCI_HOTPLUG);
        assert_int_equal(hotplug_register(w, 4), 1u << 1);
        assert_int_equal(w->probes[0].n_ejected, 0);
        assert_true(answers(w, GUEST_BAR));
        fixture_out(w->f, PORT_PCI_HOTPLUG + 8, 1u << 1, 4);
        assert_int_equal(w->probes[0].n_ejected, 1);
        assert_false(answers(w, GUEST_BAR));
        assert_int_equal(guest_config_read(w->f, 1, PCI_VENDOR_ID, 4), 0xffffffff);
        fixture_out(w->f, PORT_PCI_HOTPLUG + 8, 0xffffffff, 4);
        assert_int_equal(w->probes[0].n_ejected, 1);
}

static void what_was_not_asked_for_is_not_ejected(void **state)
{
        struct world *w = *state;

        fixture_out(w->f, PORT_PCI_HOTPLUG + 8, 0xffffffff, 4);
        for (unsigned offset = 0; offset < 12; offset++)
                for (unsigned size = 1; size <= 8; size *= 2) {
                        fixture_out(w->f, (uint16_t)(PORT_PCI_HOTPLUG + offset), UINT64_MAX, size);
                        fixture_in(w->f, (uint16_t)(PORT_PCI_HOTPLUG + offset), size);
                }
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 0xf);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(w->probes[i].n_ejected, 0);
}

static void a_reset_lets_go_too(void **state)
{
        struct world *w = *state;

        pci_ask_eject(&w->probes[2].pci);
        fixture_reset(w->f);
        assert_int_equal(w->probes[2].n_ejected, 1);
        assert_int_equal(hotplug_register(w, 4), 0);
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 0x7);
}

static void slots_come_to_an_end(void **state)
{
        struct world *w = *state;
        static struct probe many[PCI_SLOTS];
        const struct pci_identity identity = {.vendor = 1};
        struct error err = ERROR_INIT;
        unsigned n = 0;
        int r;

        for (;; n++) {
                pci_device_init(&many[n].pci, &w->f->machine, &probe_ops, &identity);
                r = pci_insert(&many[n].pci, false, &err);
                if (r < 0)
                        break;
        }
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(n, PCI_SLOTS - 4);
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 0xffffffff);
        pci_remove(&many[n].pci); /* one that is in no slot */
        while (n-- > 0)
                pci_remove(&many[n].pci);
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 0xf);
}

static void slots_are_booted_from_in_order(void **state)
{
        struct world *w = *state;
        uint8_t slots[PCI_SLOTS];

        assert_int_equal(pci_boot_slots(&w->f->machine, slots, PCI_SLOTS), 0);
        w->probes[0].pci.boot_order = 2;
        w->probes[2].pci.boot_order = 1;
        assert_int_equal(pci_boot_slots(&w->f->machine, slots, PCI_SLOTS), 2);
        assert_int_equal(slots[0], 3);
        assert_int_equal(slots[1], 1);
}

/* ---- saved state ---- */

static void save_probes(struct world *w, struct state_writer *writer)
{
        fixture_save(w->f, writer);
        state_begin(writer, "probes", 1);
        for (unsigned i = 0; i < 3; i++)
                pci_device_save(&w->probes[i].pci, writer);
        state_end(writer);
}

static int restore_probes(struct world *w, const void *data, size_t size, const unsigned *order)
{
        struct error err = ERROR_INIT;
        struct state_reader reader;
        int r = fixture_restore(w->f, data, size, &err);

        if (r == 0)
                r = state_find(data, size, "probes", 1, &reader, &err);
        for (unsigned i = 0; r == 0 && i < 3; i++)
                r = pci_device_restore(&w->probes[order[i]].pci, &reader, &err);
        return r == 0 ? state_finish(&reader, "probes", &err) : r;
}

static void what_was_saved_is_there_again(void **state)
{
        static const unsigned straight[] = {0, 1, 2};
        struct world *w = *state;
        struct state_writer writer = {0};

        place(w, 1, GUEST_BAR);
        decode(w, 1, true);
        guest_config_write(w->f, 1, PCI_INTERRUPT_LINE, 1, 0x33);
        pci_intx_set(&w->probes[0].pci, true);
        fixture_out(w->f, PORT_PCI_ADDRESS, 0x80000810, 4);
        save_probes(w, &writer);
        for (unsigned i = 0; i < 3; i++)
                pci_device_reset(&w->probes[i].pci);
        fixture_reset(w->f);
        assert_false(answers(w, GUEST_BAR));
        assert_int_equal(restore_probes(w, writer.data, writer.size, straight), 0);
        assert_true(answers(w, GUEST_BAR));
        assert_int_equal(fixture_in(w->f, PORT_PCI_DATA, 4), GUEST_BAR);
        assert_int_equal(w->f->machine.irqs.high[GSI_PCI_FIRST + 1], 1);
        assert_int_equal(guest_config_read(w->f, 1, PCI_INTERRUPT_LINE, 1), 0x33);
        state_writer_free(&writer);
}

static void devices_return_to_their_slots(void **state)
{
        static const unsigned order[] = {0, 1, 2};
        struct world *w = *state;
        struct state_writer writer = {0};

        place(w, 1, GUEST_BAR);
        decode(w, 1, true);
        save_probes(w, &writer);
        /* In the machine that takes over they were made in another order. */
        for (unsigned i = 0; i < 3; i++)
                pci_remove(&w->probes[i].pci);
        make_probe(w, 2, false);
        make_probe(w, 1, false);
        make_probe(w, 0, false);
        assert_int_equal(w->probes[0].pci.slot, 3);
        assert_int_equal(restore_probes(w, writer.data, writer.size, order), 0);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(w->probes[i].pci.slot, i + 1);
                assert_int_equal(guest_config_read(w->f, i + 1, PCI_DEVICE_ID, 2), 0x1000 + i);
        }
        assert_true(answers(w, GUEST_BAR));
        state_writer_free(&writer);
}

/* One that came, and one that is asked for; in a machine where both were there from the start. */
static void what_came_is_told_of_after_a_restore_and_what_is_to_go_is_asked_anew(void **state)
{
        static const unsigned order[] = {0, 1, 2};
        struct world *w = *state;
        struct state_writer writer = {0};

        pci_remove(&w->probes[1].pci);
        pci_remove(&w->probes[2].pci);
        make_probe(w, 2, true); /* slot 2 */
        make_probe(w, 1, false);
        pci_ask_eject(&w->probes[0].pci);
        save_probes(w, &writer);
        for (unsigned i = 0; i < 3; i++)
                pci_remove(&w->probes[i].pci);
        for (unsigned i = 0; i < 3; i++)
                make_probe(w, i, false);
        assert_int_equal(hotplug_register(w, 0), 0);
        assert_int_equal(restore_probes(w, writer.data, writer.size, order), 0);
        assert_int_equal(w->probes[2].pci.slot, 2);
        assert_int_equal(hotplug_register(w, 0), 1u << 2);
        assert_int_equal(hotplug_register(w, 4), 0);
        fixture_out(w->f, PORT_PCI_HOTPLUG + 8, 1u << 1, 4);
        assert_int_equal(w->probes[0].n_ejected, 0);
        pci_ask_eject(&w->probes[0].pci);
        assert_int_equal(hotplug_register(w, 4), 1u << 1);
        state_writer_free(&writer);
}

static void another_devices_state_is_refused(void **state)
{
        static const unsigned crossed[] = {1, 0, 2};
        struct world *w = *state;
        struct state_writer writer = {0};

        save_probes(w, &writer);
        assert_int_equal(restore_probes(w, writer.data, writer.size, crossed), -EINVAL);
        state_writer_free(&writer);
}

#define pci_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            pci_test(ports_and_ecam_show_the_same),
            pci_test(the_address_register_reads_back),
            pci_test(a_byte_in_its_midst_is_the_reset_register),
            pci_test(what_is_not_there_reads_as_ones),
            pci_test(straddling_accesses_do_nothing),
            pci_test(what_is_fixed_cannot_be_written),
            pci_test(a_bar_tells_its_size),
            pci_test(a_bar_answers_while_memory_is_decoded),
            pci_test(a_bar_moves_while_memory_is_decoded),
            pci_test(a_bar_outside_the_window_does_not_answer),
            pci_test(of_two_that_overlap_the_first_answers),
            pci_test(bars_are_placed_without_firmware),
            pci_test(a_reset_takes_bars_away),
            pci_test(the_line_is_raised_by_ioapic_and_pic),
            pci_test(the_line_can_be_switched_off),
            pci_test(a_device_that_comes_is_told_of_once),
            pci_test(a_device_goes_when_the_guest_lets_go),
            pci_test(what_was_not_asked_for_is_not_ejected),
            pci_test(a_reset_lets_go_too),
            pci_test(slots_come_to_an_end),
            pci_test(slots_are_booted_from_in_order),
            pci_test(what_was_saved_is_there_again),
            pci_test(devices_return_to_their_slots),
            pci_test(what_came_is_told_of_after_a_restore_and_what_is_to_go_is_asked_anew),
            pci_test(another_devices_state_is_refused),
        };

        return cmocka_run_group_tests_name("vmm_pci", tests, NULL, NULL);
}
