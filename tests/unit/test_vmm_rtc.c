/* test_vmm_rtc.c - the clock and its CMOS: time in each of its forms, set by the guest, interrupts, what
 * firmware finds there, saved state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/vmm/machine_fixture.h"

enum {
        SECONDS,
        SECONDS_ALARM,
        MINUTES,
        MINUTES_ALARM,
        HOURS,
        HOURS_ALARM,
        WEEKDAY,
        DAY,
        MONTH,
        YEAR,
        A,
        B,
        C,
        D,
        CENTURY = 0x32,
};
#define B_SET      0x80u
#define B_PERIODIC 0x40u
#define B_ALARM    0x20u
#define B_UPDATE   0x10u
#define B_BINARY   0x04u
#define B_24       0x02u

#define MEMORY GIB(5)
#define YEAR_S INT64_C(31556952)

int __real_clock_gettime(clockid_t clock, struct timespec *ret_time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time);

static int64_t host_set_s; /* what the host's clock was set off by, for the devices */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
        int r = __real_clock_gettime(clock, ret_time);

        if (r == 0 && clock == CLOCK_REALTIME)
                ret_time->tv_sec += host_set_s;
        return r;
}

static int setup(void **state)
{
        struct machine_fixture *f = fixture_new(MEMORY, NULL);

        *state = f;
        host_set_s = 0;
        f->config.cpus = 3;
        return rtc_create(&f->machine, NULL);
}

static int teardown(void **state)
{
        fixture_free(*state);
        return 0;
}

static uint8_t get(struct machine_fixture *f, uint8_t index)
{
        fixture_out(f, PORT_RTC, index | 0x80u, 1); /* with the NMI masked, as firmware does */
        return (uint8_t)fixture_in(f, PORT_RTC + 1, 1);
}

static void set(struct machine_fixture *f, uint8_t index, uint8_t value)
{
        fixture_out(f, PORT_RTC, index, 1);
        fixture_out(f, PORT_RTC + 1, value, 1);
}

static bool interrupted(const struct machine_fixture *f)
{
        return f->machine.irqs.high[GSI_RTC] != 0;
}

static int from_bcd(uint8_t byte)
{
        assert_true((byte & 15) < 10 && byte >> 4 < 10);
        return (byte >> 4) * 10 + (byte & 15);
}

static time_t bcd_time(struct machine_fixture *f)
{
        struct tm tm = {.tm_sec = from_bcd(get(f, SECONDS)),
                        .tm_min = from_bcd(get(f, MINUTES)),
                        .tm_hour = from_bcd(get(f, HOURS)),
                        .tm_mday = from_bcd(get(f, DAY)),
                        .tm_mon = from_bcd(get(f, MONTH)) - 1,
                        .tm_year = from_bcd(get(f, CENTURY)) * 100 + from_bcd(get(f, YEAR)) - 1900};

        return timegm(&tm);
}

/* As drivers do: not while it changes, and twice the same. */
static time_t steady_time(struct machine_fixture *f)
{
        for (;;) {
                time_t first = bcd_time(f);

                if (first == bcd_time(f))
                        return first;
        }
}

static void test_time_is_the_hosts(void **state)
{
        struct machine_fixture *f = *state;
        time_t before = time(NULL);
        struct tm tm;

        assert_in_range(steady_time(f), before, time(NULL) + 1);
        gmtime_r(&before, &tm);
        assert_in_range(get(f, WEEKDAY), 1, 7);
        assert_int_equal(get(f, D), 0x80);
        assert_int_equal(get(f, A) & 0x7f, 0x26);
        assert_int_equal(get(f, B), B_24);
}

/* The guest's own time: from then on it goes on from there. */
static void set_time(struct machine_fixture *f, const uint8_t *hms, const uint8_t *dmy,
                     uint8_t century)
{
        uint8_t b = get(f, B);

        set(f, B, b | B_SET);
        for (unsigned i = 0; i < 3; i++) {
                set(f, (uint8_t)(HOURS - 2 * i), hms[i]);
                set(f, (uint8_t)(DAY + i), dmy[i]);
        }
        set(f, CENTURY, century);
        set(f, B, b);
}

static void test_the_guest_may_set_it(void **state)
{
        struct machine_fixture *f = *state;
        time_t expected = 2147483648; /* 2038-01-19 03:14:08 */

        set_time(f, (const uint8_t[]){0x03, 0x14, 0x08}, (const uint8_t[]){0x19, 0x01, 0x38}, 0x20);
        assert_in_range(steady_time(f), expected, expected + 2);
        fixture_reset(f);
        assert_in_range(steady_time(f), expected, expected + 2);
        set(f, MINUTES, 0x20); /* while it runs */
        assert_in_range(steady_time(f), expected + 360, expected + 362);
}

static void test_hours_of_twelve_and_binary(void **state)
{
        static const struct {
                uint8_t hours, form, shown;
        } cases[] = {
            {0x00, 0, 0x12},
            {0x11, 0, 0x11},
            {0x12, 0, 0x92},
            {0x23, 0, 0x91},
            {0x00, B_BINARY, 12},
            {0x13, B_BINARY, 0x81},
            {0x23, B_BINARY | B_24, 23},
            {0x23, B_24, 0x23},
        };
        struct machine_fixture *f = *state;

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                set(f, B, B_24);
                set_time(f, (const uint8_t[]){cases[i].hours, 0x30, 0x00},
                         (const uint8_t[]){0x29, 0x02, 0x24}, 0x20);
                set(f, B, cases[i].form);
                assert_int_equal(get(f, HOURS), cases[i].shown);
                assert_int_equal(get(f, MINUTES), cases[i].form & B_BINARY ? 30 : 0x30);
                /* Set to what it shows, it is the same. */
                set(f, HOURS, cases[i].shown);
                assert_int_equal(get(f, HOURS), cases[i].shown);
                set(f, B, B_24);
                assert_int_equal(get(f, HOURS), cases[i].hours);
                assert_int_equal(get(f, DAY), 0x29);
        }
}

/* No bytes are too wild; and what comes of them is a time. */
static void test_any_bytes_are_some_time(void **state)
{
        struct machine_fixture *f = *state;

        for (unsigned value = 0; value < 256; value += 5)
                for (unsigned form = 0; form < 8; form += 2) {
                        const uint8_t all[3] = {(uint8_t)value, (uint8_t)value, (uint8_t)value};

                        set(f, B, (uint8_t)form | B_UPDATE | B_ALARM | B_PERIODIC);
                        set(f, HOURS_ALARM, (uint8_t)value);
                        set_time(f, all, all, (uint8_t)value);
                        get(f, C);
                        set(f, B, B_24);
                        assert_in_range(steady_time(f), 0, (INT64_C(1) << 33) + 10);
                }
}

/* Wait at most @ms for an interrupt; how long it took. */
static unsigned wait_for_interrupt(struct machine_fixture *f, unsigned ms)
{
        uint64_t begin = loop_now_ns(f->machine.loop), took = 0;

        while (!interrupted(f) && took < ms) {
                fixture_run(f);
                took = (loop_now_ns(f->machine.loop) - begin) / 1000000;
        }
        return (unsigned)took;
}

static void test_updates_interrupt_each_second(void **state)
{
        struct machine_fixture *f = *state;

        get(f, C);
        set(f, B, B_24 | B_UPDATE);
        wait_for_interrupt(f, 3000);
        assert_true(interrupted(f));
        assert_int_equal(get(f, C) & 0x90, 0x90);
        assert_false(interrupted(f));
        assert_int_equal(get(f, C), 0);
        assert_in_range(wait_for_interrupt(f, 3000), 500, 2900);
        assert_true(interrupted(f));
        set(f, B, B_24); /* not wanted any more, but not acknowledged */
        assert_false(interrupted(f));
        assert_int_equal(get(f, C) & 0x90, 0x10);
}

static void test_the_alarm_goes_off(void **state)
{
        struct machine_fixture *f = *state;

        set_time(f, (const uint8_t[]){0x23, 0x59, 0x58}, (const uint8_t[]){0x31, 0x12, 0x26}, 0x20);
        set(f, HOURS_ALARM, 0x00);
        set(f, MINUTES_ALARM, 0x00);
        set(f, SECONDS_ALARM, 0xff); /* any */
        get(f, C);
        set(f, B, B_24 | B_ALARM);
        wait_for_interrupt(f, 5000);
        assert_true(interrupted(f));
        assert_int_equal(get(f, HOURS), 0x00);
        assert_int_equal(get(f, DAY), 0x01);
        assert_int_equal(get(f, YEAR), 0x27);
        assert_int_equal(get(f, C) & 0xa0, 0xa0);
        set(f, HOURS_ALARM, 0x99); /* never */
        wait_for_interrupt(f, 1200);
        assert_false(interrupted(f));
}

/* A guest that does not acknowledge is not interrupted again, and costs nothing. */
static void test_the_periodic_interrupt_has_its_rate(void **state)
{
        struct machine_fixture *f = *state;
        unsigned n = 0;
        uint64_t begin;

        set(f, A, 0x2b); /* 32 a second */
        get(f, C);
        begin = loop_now_ns(f->machine.loop);
        set(f, B, B_24 | B_PERIODIC);
        while (loop_now_ns(f->machine.loop) - begin < 500000000) {
                fixture_run(f);
                if (interrupted(f)) {
                        assert_int_equal(get(f, C) & 0xc0, 0xc0);
                        n++;
                }
        }
        assert_in_range(n, 5, 17);
        set(f, A, 0x20); /* none */
        get(f, C);
        wait_for_interrupt(f, 100);
        assert_false(interrupted(f));
}

static uint64_t sized(struct machine_fixture *f, uint8_t index, unsigned bytes)
{
        uint64_t value = 0;

        for (unsigned i = 0; i < bytes; i++)
                value |= (uint64_t)get(f, (uint8_t)(index + i)) << (8 * i);
        return value;
}

static void test_firmware_finds_the_machine(void **state)
{
        struct machine_fixture *f = *state;

        assert_int_equal(MIB(16) + sized(f, 0x34, 2) * KIB(64), LAYOUT_RAM_LOW_MAX);
        assert_int_equal(sized(f, 0x5b, 3) * KIB(64), MEMORY - LAYOUT_RAM_LOW_MAX);
        assert_int_equal(sized(f, 0x30, 2), 0xffff);
        assert_int_equal(sized(f, 0x15, 2), 640);
        assert_int_equal(get(f, 0x5f), 2);
        assert_int_equal(get(f, 0x0f), 0);
        set(f, 0x0f, 0x0a);
        set(f, 0x34, 0);
        assert_int_equal(get(f, 0x0f), 0x0a);
        fixture_reset(f);
        assert_int_equal(get(f, 0x0f), 0x0a); /* a battery holds it */
        assert_int_equal(MIB(16) + sized(f, 0x34, 2) * KIB(64), LAYOUT_RAM_LOW_MAX);
        assert_int_equal(fixture_in(f, PORT_RTC, 1), 0xff);
}

static void test_state_is_saved(void **state)
{
        struct machine_fixture *f = *state;
        const time_t then = 4102444800; /* 2100-01-01 */
        struct state_writer w = {0};

        set_time(f, (const uint8_t[]){0x00, 0x00, 0x00}, (const uint8_t[]){0x01, 0x01, 0x00}, 0x21);
        set(f, 0x70, 0x5a);
        set(f, B, B_24 | B_UPDATE);
        fixture_save(f, &w);
        teardown(state);
        assert_int_equal(setup(state), 0);
        f = *state;
        assert_int_equal(fixture_restore(f, w.data, w.size, NULL), 0);
        assert_int_equal(fixture_in(f, PORT_RTC + 1, 1), B_24 | B_UPDATE); /* the index, too */
        assert_in_range(steady_time(f), then, then + 5);
        assert_int_equal(get(f, 0x70), 0x5a);
        wait_for_interrupt(f, 3000);
        assert_true(interrupted(f));
        state_writer_free(&w);
}

/* The guest's time stays within the years that it may set, and its interrupts go on. */
static void test_the_hosts_clock_is_set_far_away(void **state)
{
        struct machine_fixture *f = *state;
        const int64_t last = INT64_C(1) << 33;

        set_time(f, (const uint8_t[]){0x00, 0x00, 0x00}, (const uint8_t[]){0x01, 0x01, 0x00}, 0x99);
        assert_in_range(steady_time(f), last, last + 2);
        host_set_s = 100 * YEAR_S;
        assert_int_equal(steady_time(f), last);
        set(f, A, 0x2b); /* 32 a second */
        get(f, C);
        set(f, B, B_24 | B_PERIODIC);
        wait_for_interrupt(f, 2000);
        assert_true(interrupted(f));
        set_time(f, (const uint8_t[]){0x00, 0x00, 0x00}, (const uint8_t[]){0x01, 0x01, 0x70}, 0x19);
        host_set_s = 50 * YEAR_S;
        assert_int_equal(steady_time(f), 0);
        assert_int_equal(get(f, YEAR), 0x70);
}

static void test_a_paused_clock_is_quiet(void **state)
{
        struct machine_fixture *f = *state;

        set(f, B, B_24 | B_UPDATE);
        fixture_pause(f);
        wait_for_interrupt(f, 1200);
        assert_false(interrupted(f));
        fixture_resume(f);
        assert_true(interrupted(f));
}

#define rtc_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            rtc_test(test_time_is_the_hosts),
            rtc_test(test_the_guest_may_set_it),
            rtc_test(test_hours_of_twelve_and_binary),
            rtc_test(test_any_bytes_are_some_time),
            rtc_test(test_updates_interrupt_each_second),
            rtc_test(test_the_alarm_goes_off),
            rtc_test(test_the_periodic_interrupt_has_its_rate),
            rtc_test(test_firmware_finds_the_machine),
            rtc_test(test_state_is_saved),
            rtc_test(test_the_hosts_clock_is_set_far_away),
            rtc_test(test_a_paused_clock_is_quiet),
        };

        alarm(120);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
