/* test_vmm_pm.c - ACPI's registers as an operating system uses them, resets and the end of a machine:
 * also the keyboard controller's reset and pvpanic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/acpi_pm.h"

#define POWER_BUTTON 0x0100u
#define SLEEP_S5     (ACPI_PM_SLEEP_S5 << 10 | 1u << 13)

static int setup(void **state)
{
        struct machine_fixture *f = fixture_new(LAYOUT_RAM_MIN, NULL);

        *state = f;
        return acpi_pm_create(&f->machine, NULL) < 0 || keyboard_create(&f->machine, NULL) < 0 ||
                       pvpanic_create(&f->machine, NULL) < 0
                   ? -1
                   : 0;
}

static int teardown(void **state)
{
        fixture_free(*state);
        return 0;
}

static bool interrupted(const struct machine_fixture *f)
{
        return f->machine.irqs.high[GSI_SCI] != 0;
}

static void press(struct machine_fixture *f)
{
        machine_lock(&f->machine);
        acpi_pm_power_button(&f->machine);
        machine_unlock(&f->machine);
}

static void test_the_power_button_interrupts_who_wants_it(void **state)
{
        struct machine_fixture *f = *state;

        press(f);
        assert_false(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 2), POWER_BUTTON);
        fixture_out(f, PORT_PM1_EVENT, POWER_BUTTON, 2);
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 2), 0);
        fixture_out(f, PORT_PM1_EVENT + 2, POWER_BUTTON, 2);
        press(f);
        assert_true(interrupted(f));
        fixture_out(f, PORT_PM1_EVENT, POWER_BUTTON, 2);
        assert_false(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT + 2, 2), POWER_BUTTON);
}

/* Ones clear, and only where they are written: by bytes, and by both registers at once. */
static void test_status_is_cleared_by_ones(void **state)
{
        struct machine_fixture *f = *state;

        press(f);
        fixture_out(f, PORT_PM1_EVENT, 0xff, 1);
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 2), POWER_BUTTON);
        fixture_out(f, PORT_PM1_EVENT + 2, 0xffff, 2);
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 4), 0x05210000 | POWER_BUTTON);
        assert_true(interrupted(f));
        fixture_out(f, PORT_PM1_EVENT + 1, 0x01, 1);
        assert_false(interrupted(f));
        press(f);
        fixture_out(f, PORT_PM1_EVENT, 0xffff, 4);
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 4), 0);
}

static void test_only_s5_ends_the_machine(void **state)
{
        struct machine_fixture *f = *state;

        assert_int_equal(fixture_in(f, PORT_PM1_CONTROL, 2), 1); /* in ACPI mode */
        for (unsigned type = 0; type < 8; type++)
                if (type != ACPI_PM_SLEEP_S5)
                        fixture_out(f, PORT_PM1_CONTROL, type << 10 | 1u << 13, 2);
        fixture_out(f, PORT_PM1_CONTROL, ACPI_PM_SLEEP_S5 << 10, 2);
        assert_int_equal(f->n_power_offs, 0);
        fixture_out(f, PORT_PM1_CONTROL, SLEEP_S5, 2);
        assert_int_equal(f->n_power_offs, 1);
        assert_int_equal(fixture_in(f, PORT_PM1_CONTROL, 2), 1 | ACPI_PM_SLEEP_S5 << 10);
        fixture_out(f, PORT_PM1_CONTROL + 1, SLEEP_S5 >> 8, 1);
        assert_int_equal(f->n_power_offs, 2);
        fixture_out(f, PORT_PM1_EVENT, 0, 4); /* no write of control */
        assert_int_equal(f->n_power_offs, 2);
}

static void test_events_interrupt_by_gpe0(void **state)
{
        struct machine_fixture *f = *state;

        machine_lock(&f->machine);
        acpi_pm_raise_gpe(&f->machine, GPE_PCI_HOTPLUG);
        machine_unlock(&f->machine);
        assert_false(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_GPE0, 2), 1u << GPE_PCI_HOTPLUG);
        fixture_out(f, PORT_GPE0 + 2, 1u << GPE_PCI_HOTPLUG, 1); /* by bytes, as ACPICA */
        assert_true(interrupted(f));
        fixture_out(f, PORT_GPE0, 0, 1);
        assert_true(interrupted(f));
        fixture_out(f, PORT_GPE0, 1u << GPE_PCI_HOTPLUG, 1);
        assert_false(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_GPE0, 4), 1u << GPE_PCI_HOTPLUG << 16);
        fixture_out(f, PORT_GPE0, 0xffffffff, 4);
        assert_int_equal(fixture_in(f, PORT_GPE0, 4), 0xffff0000);
}

static void wait_ms(unsigned ms)
{
        const struct timespec time = {.tv_nsec = (long)ms * 1000000};

        nanosleep(&time, NULL);
}

static uint64_t now_ns(const struct machine_fixture *f)
{
        return loop_now_ns(f->machine.loop);
}

static void test_the_timer_counts_at_its_rate(void **state)
{
        struct machine_fixture *f = *state;
        uint64_t before = now_ns(f), ticks, most, least, between;
        uint32_t first = (uint32_t)fixture_in(f, PORT_PM_TIMER, 4), second;

        between = now_ns(f);
        wait_ms(20);
        least = now_ns(f) - between;
        second = (uint32_t)fixture_in(f, PORT_PM_TIMER, 4);
        most = now_ns(f) - before;
        ticks = second - first;
        assert_in_range(ticks, least * PM_TIMER_HZ / 1000000000 - 1,
                        most * PM_TIMER_HZ / 1000000000 + 1);
        fixture_out(f, PORT_PM_TIMER, 0, 4); /* it cannot be set */
        assert_true((uint32_t)fixture_in(f, PORT_PM_TIMER, 4) >= second);
}

/* What a machine that was restored @age_ns after its beginning says. */
static struct state_writer state_of_age(uint16_t enable, uint64_t age_ns)
{
        struct state_writer w = {0};

        state_begin(&w, "acpi", 1);
        state_put16(&w, POWER_BUTTON);
        state_put16(&w, enable);
        state_put16(&w, 0);
        state_put16(&w, 0);
        state_put16(&w, 0);
        state_put8(&w, 0);
        state_put64(&w, age_ns);
        state_end(&w);
        state_begin(&w, "keyboard", 1);
        state_end(&w);
        state_begin(&w, "pvpanic", 1);
        state_end(&w);
        return w;
}

static void test_the_timer_goes_on_in_another_machine(void **state)
{
        struct machine_fixture *f = *state;
        const uint64_t year_ns = UINT64_C(365) * 86400 * 1000000000;
        struct state_writer w = state_of_age(0, year_ns);
        const uint32_t then = (uint32_t)(UINT64_C(365) * 86400 * PM_TIMER_HZ);

        assert_int_equal(fixture_restore(f, w.data, w.size, NULL), 0);
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 2), POWER_BUTTON);
        assert_in_range((uint32_t)fixture_in(f, PORT_PM_TIMER, 4) - then, 0, 30 * PM_TIMER_HZ);
        state_writer_free(&w);
}

/* Whatever age is said: what is restored can be saved and restored again, at the same ticks. */
static void test_a_timer_of_any_age_goes_on(void **state)
{
        static const uint64_t ages_ns[] = {INT64_MAX, UINT64_MAX, UINT64_C(1000000000) << 32};
        struct machine_fixture *f = *state;

        for (size_t i = 0; i < sizeof(ages_ns) / sizeof(ages_ns[0]); i++) {
                uint64_t seconds = ages_ns[i] / 1000000000;
                uint64_t part = ages_ns[i] % 1000000000 * PM_TIMER_HZ / 1000000000;
                const uint32_t then = (uint32_t)(seconds * PM_TIMER_HZ + part);
                struct state_writer w = state_of_age(1, ages_ns[i]), later = {0};

                assert_int_equal(fixture_restore(f, w.data, w.size, NULL), 0);
                assert_in_range((uint32_t)fixture_in(f, PORT_PM_TIMER, 4) - then, 0,
                                30 * PM_TIMER_HZ);
                fixture_save(f, &later);
                assert_int_equal(fixture_restore(f, later.data, later.size, NULL), 0);
                assert_in_range((uint32_t)fixture_in(f, PORT_PM_TIMER, 4) - then, 0,
                                30 * PM_TIMER_HZ);
                state_writer_free(&w);
                state_writer_free(&later);
        }
}

/* The most significant bit changes each ten minutes: a machine that is nearly as old. */
static void test_the_timer_interrupts_at_its_carry(void **state)
{
        struct machine_fixture *f = *state;
        const uint64_t carry_ns = (UINT64_C(1) << 31) * UINT64_C(1000000000) / PM_TIMER_HZ;
        struct state_writer w = state_of_age(1, carry_ns - 30000000);

        assert_int_equal(fixture_restore(f, w.data, w.size, NULL), 0);
        assert_false(interrupted(f));
        for (unsigned i = 0; i < 100 && !interrupted(f); i++)
                fixture_run(f);
        assert_true(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 2), POWER_BUTTON | 1);
        assert_in_range(fixture_in(f, PORT_PM_TIMER, 4), UINT32_C(1) << 31, UINT32_MAX);
        fixture_out(f, PORT_PM1_EVENT, 1, 2);
        assert_false(interrupted(f));
        state_writer_free(&w);
}

static void test_the_reset_register_resets_by_a_change(void **state)
{
        struct machine_fixture *f = *state;

        machine_lock(&f->machine);
        acpi_pm_reset_write(&f->machine, 0x02);
        assert_int_equal(f->n_resets, 0);
        assert_int_equal(acpi_pm_reset_read(&f->machine), 0x02);
        acpi_pm_reset_write(&f->machine, 0x06);
        assert_int_equal(f->n_resets, 1);
        acpi_pm_reset_write(&f->machine, 0x0e);
        assert_int_equal(f->n_resets, 1);
        acpi_pm_reset_write(&f->machine, 0xf0);
        assert_int_equal(acpi_pm_reset_read(&f->machine), 0);
        acpi_pm_reset_write(&f->machine, 0x0e);
        assert_int_equal(f->n_resets, 2);
        machine_unlock(&f->machine);
        fixture_reset(f);
        machine_lock(&f->machine);
        assert_int_equal(acpi_pm_reset_read(&f->machine), 0);
        machine_unlock(&f->machine);
}

static void test_a_reset_forgets_all_but_the_time(void **state)
{
        struct machine_fixture *f = *state;
        uint32_t ticks;

        fixture_out(f, PORT_PM1_EVENT + 2, POWER_BUTTON, 2);
        fixture_out(f, PORT_GPE0 + 2, 0xffff, 2);
        press(f);
        ticks = (uint32_t)fixture_in(f, PORT_PM_TIMER, 4);
        fixture_reset(f);
        assert_false(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 4), 0);
        assert_int_equal(fixture_in(f, PORT_GPE0, 4), 0);
        assert_true((uint32_t)fixture_in(f, PORT_PM_TIMER, 4) >= ticks);
}

static void test_state_is_saved(void **state)
{
        struct machine_fixture *f = *state;
        struct state_writer w = {0};

        fixture_out(f, PORT_PM1_EVENT + 2, POWER_BUTTON, 2);
        fixture_out(f, PORT_GPE0 + 2, 0x0102, 2);
        fixture_out(f, PORT_PM1_CONTROL, 3u << 10, 2);
        press(f);
        fixture_save(f, &w);
        teardown(state);
        assert_int_equal(setup(state), 0);
        f = *state;
        assert_int_equal(fixture_restore(f, w.data, w.size, NULL), 0);
        assert_true(interrupted(f));
        assert_int_equal(fixture_in(f, PORT_PM1_EVENT, 4), POWER_BUTTON << 16 | POWER_BUTTON);
        assert_int_equal(fixture_in(f, PORT_PM1_CONTROL, 2), 3u << 10 | 1);
        assert_int_equal(fixture_in(f, PORT_GPE0, 4), 0x01020000);
        state_writer_free(&w);
}

static void test_the_keyboard_controller_resets(void **state)
{
        struct machine_fixture *f = *state;

        assert_int_equal(fixture_in(f, PORT_KEYBOARD, 1), 0); /* nobody has to wait */
        fixture_out(f, PORT_KEYBOARD, 0xff, 1);
        assert_int_equal(f->n_resets, 0);
        fixture_out(f, PORT_KEYBOARD, 0xfe, 1);
        assert_int_equal(f->n_resets, 1);
}

static void test_a_panic_is_told(void **state)
{
        struct machine_fixture *f = *state;

        assert_int_equal(fixture_in(f, PORT_PVPANIC, 1), 3);
        fixture_out(f, PORT_PVPANIC, 4, 1);
        assert_int_equal(f->n_panics, 0);
        fixture_out(f, PORT_PVPANIC, 1, 1);
        assert_int_equal(f->n_panics, 1);
        /* Once, however often the guest says so, until it begins anew. */
        fixture_out(f, PORT_PVPANIC, 1, 1);
        fixture_out(f, PORT_PVPANIC, 2, 1);
        assert_int_equal(f->n_panics, 1);
        fixture_reset(f);
        fixture_out(f, PORT_PVPANIC, 2, 1);
        assert_int_equal(f->n_panics, 2);
}

#define pm_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            pm_test(test_the_power_button_interrupts_who_wants_it),
            pm_test(test_status_is_cleared_by_ones),
            pm_test(test_only_s5_ends_the_machine),
            pm_test(test_events_interrupt_by_gpe0),
            pm_test(test_the_timer_counts_at_its_rate),
            pm_test(test_the_timer_goes_on_in_another_machine),
            pm_test(test_a_timer_of_any_age_goes_on),
            pm_test(test_the_timer_interrupts_at_its_carry),
            pm_test(test_the_reset_register_resets_by_a_change),
            pm_test(test_a_reset_forgets_all_but_the_time),
            pm_test(test_state_is_saved),
            pm_test(test_the_keyboard_controller_resets),
            pm_test(test_a_panic_is_told),
        };

        alarm(120);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
