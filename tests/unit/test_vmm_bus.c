/* test_vmm_bus.c - who answers at an address: ranges next to each other, at both ends of the world, too
 * many of them, and accesses that only half belong to somebody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>
#include <cmocka.h>
#include "vmm-glue/vmm/bus.h"

struct seen {
        unsigned n_reads, n_writes;
        uint64_t offset, value;
        unsigned size;
        uint64_t answer;
};

static uint64_t on_read(void *owner, uint64_t offset, unsigned size)
{
        struct seen *seen = owner;

        seen->n_reads++;
        seen->offset = offset;
        seen->size = size;
        return seen->answer;
}

static void on_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct seen *seen = owner;

        seen->n_writes++;
        seen->offset = offset;
        seen->size = size;
        seen->value = value;
}

static const struct bus_ops ops = {.read = on_read, .write = on_write};
static struct bus bus;

static int set_up(void **state)
{
        bus = (struct bus){0};
        return 0;
}

static struct bus_range range_at(uint64_t start, uint64_t size, struct seen *seen)
{
        return (struct bus_range){.start = start, .size = size, .ops = &ops, .owner = seen};
}

static uint64_t read_at(uint64_t address, unsigned size)
{
        uint64_t value = 0;

        bus_read(&bus, address, &value, size);
        return value;
}

static void test_nobody_answers_with_ones(void **state)
{
        uint64_t value = 0;

        assert_int_equal(read_at(0, 1), 0xff);
        assert_int_equal(read_at(0x80, 2), 0xffff);
        assert_int_equal(read_at(UINT64_MAX, 4), 0xffffffff);
        assert_true(read_at(UINT64_MAX, 8) == UINT64_MAX);
        bus_write(&bus, 0, &value, 8);
        bus_write(&bus, UINT64_MAX, &value, 8);
}

static void test_what_a_device_is_told(void **state)
{
        struct seen seen = {.answer = UINT64_C(0x1122334455667788)};
        struct bus_range range = range_at(0x1000, 16, &seen);
        const uint64_t value = UINT64_C(0xfedcba9876543210);

        assert_int_equal(bus_add(&bus, &range, NULL), 0);
        for (unsigned size = 1; size <= 8; size *= 2) {
                uint64_t mask = size == 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;

                assert_true(read_at(0x1000 + size, size) == (seen.answer & mask));
                assert_int_equal(seen.offset, size);
                assert_int_equal(seen.size, size);
                /* No bits above its size, whatever lies behind. */
                bus_write(&bus, 0x1008, &value, size);
                assert_true(seen.value == (value & mask));
                assert_int_equal(seen.offset, 8);
                assert_int_equal(seen.size, size);
        }
        assert_int_equal(seen.n_reads, 4);
        assert_int_equal(seen.n_writes, 4);
}

/* An access that leaves its range is nobody's, also where another begins right there. */
static void test_an_access_belongs_to_one_as_a_whole(void **state)
{
        struct seen low = {0}, high = {0};
        struct bus_range a = range_at(0x3f8, 8, &low), b = range_at(0x400, 4, &high);
        const uint64_t value = 0;

        assert_int_equal(bus_add(&bus, &b, NULL), 0);
        assert_int_equal(bus_add(&bus, &a, NULL), 0);
        assert_int_equal(read_at(0x3ff, 1), 0);
        assert_int_equal(read_at(0x400, 1), 0);
        assert_int_equal(low.offset, 7);
        assert_int_equal(high.offset, 0);
        assert_int_equal(read_at(0x3ff, 2), 0xffff);
        assert_int_equal(read_at(0x3f7, 2), 0xffff);
        assert_int_equal(read_at(0x402, 4), 0xffffffff);
        assert_true(read_at(0x400, 8) == UINT64_MAX);
        bus_write(&bus, 0x3fd, &value, 4);
        bus_write(&bus, 0x403, &value, 2);
        assert_int_equal(low.n_reads + high.n_reads, 2);
        assert_int_equal(low.n_writes + high.n_writes, 0);
}

static void test_ranges_that_touch_and_that_overlap(void **state)
{
        struct seen seen = {0};
        struct bus_range middle = range_at(100, 10, &seen), below = range_at(90, 10, &seen),
                         above = range_at(110, 10, &seen);
        static const struct {
                uint64_t start, size;
        } wrong[] = {{100, 10}, {100, 1}, {109, 1},  {99, 2},         {91, 100},
                     {0, 101},  {95, 6},  {105, 50}, {0, UINT64_MAX}, {119, 1}};
        struct error err = ERROR_INIT;

        assert_int_equal(bus_add(&bus, &middle, NULL), 0);
        assert_int_equal(bus_add(&bus, &above, NULL), 0);
        assert_int_equal(bus_add(&bus, &below, NULL), 0);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                struct bus_range range = range_at(wrong[i].start, wrong[i].size, &seen);

                assert_int_equal(bus_add(&bus, &range, &err), -EBUSY);
        }
        assert_string_equal(err.message, "two devices would answer at 0x77");
        assert_int_equal(bus.n, 3);
        /* What one gives up another may have. */
        bus_remove(&bus, &middle);
        bus_remove(&bus, &middle);
        assert_int_equal(bus.n, 2);
        assert_int_equal(read_at(105, 1), 0xff);
        assert_int_equal(bus_add(&bus, &middle, NULL), 0);
        assert_ptr_equal(bus.ranges[0], &below);
        assert_ptr_equal(bus.ranges[1], &middle);
        assert_ptr_equal(bus.ranges[2], &above);
}

/* One that was not added is not there, though another begins where it would. */
static void test_removing_another_is_nothing(void **state)
{
        struct seen seen = {0};
        struct bus_range range = range_at(100, 10, &seen), twin = range;

        bus_remove(&bus, &range);
        assert_int_equal(bus_add(&bus, &range, NULL), 0);
        bus_remove(&bus, &twin);
        twin.start = 0;
        bus_remove(&bus, &twin);
        twin.start = 105;
        bus_remove(&bus, &twin);
        assert_int_equal(bus.n, 1);
        assert_int_equal(read_at(100, 1), 0);
}

static void test_both_ends(void **state)
{
        struct seen seen = {0};
        struct bus_range first = range_at(0, 1, &seen), last = range_at(UINT64_MAX, 1, &seen),
                         beyond = range_at(UINT64_MAX, 2, &seen),
                         far = range_at(UINT64_MAX - 4, UINT64_MAX, &seen),
                         none = range_at(500, 0, &seen);
        struct error err = ERROR_INIT;

        assert_int_equal(bus_add(&bus, &beyond, NULL), -EINVAL);
        assert_int_equal(bus_add(&bus, &far, NULL), -EINVAL);
        assert_int_equal(bus_add(&bus, &none, &err), -EINVAL);
        assert_string_equal(err.message, "a device has no addresses at 0x1f4");
        assert_int_equal(bus_add(&bus, &first, NULL), 0);
        assert_int_equal(bus_add(&bus, &last, NULL), 0);
        assert_int_equal(read_at(0, 1), 0);
        assert_int_equal(read_at(UINT64_MAX, 1), 0);
        /* Not by going round the end of the world. */
        assert_int_equal(read_at(UINT64_MAX, 2), 0xffff);
        assert_int_equal(seen.n_reads, 2);
}

static void test_more_than_there_may_be(void **state)
{
        static struct bus_range ranges[BUS_RANGES_MAX + 1];
        struct seen seen = {0};

        /* Odd ones first, so that the others come in between. */
        for (unsigned i = 0; i < BUS_RANGES_MAX; i++) {
                unsigned at = i < BUS_RANGES_MAX / 2 ? 2 * i + 1 : 2 * (i - BUS_RANGES_MAX / 2);

                ranges[at] = range_at(at * UINT64_C(2), 1, &seen);
                assert_int_equal(bus_add(&bus, &ranges[at], NULL), 0);
        }
        ranges[BUS_RANGES_MAX] = range_at(1, 1, &seen);
        assert_int_equal(bus_add(&bus, &ranges[BUS_RANGES_MAX], NULL), -ENOSPC);
        for (unsigned i = 0; i < BUS_RANGES_MAX; i++) {
                assert_ptr_equal(bus.ranges[i], &ranges[i]);
                assert_int_equal(read_at(i * UINT64_C(2), 1), 0);
                assert_int_equal(read_at(i * UINT64_C(2) + 1, 1), 0xff);
        }
        bus_remove(&bus, &ranges[17]);
        assert_int_equal(bus_add(&bus, &ranges[BUS_RANGES_MAX], NULL), 0);
        assert_int_equal(read_at(1, 1), 0);
        assert_int_equal(read_at(34, 1), 0xff);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup(test_nobody_answers_with_ones, set_up),
            cmocka_unit_test_setup(test_what_a_device_is_told, set_up),
            cmocka_unit_test_setup(test_an_access_belongs_to_one_as_a_whole, set_up),
            cmocka_unit_test_setup(test_ranges_that_touch_and_that_overlap, set_up),
            cmocka_unit_test_setup(test_removing_another_is_nothing, set_up),
            cmocka_unit_test_setup(test_both_ends, set_up),
            cmocka_unit_test_setup(test_more_than_there_may_be, set_up),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
