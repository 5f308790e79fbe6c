/* test_nbd_resize.c - volumes that are resized while clients are connected, at wire level. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/protocol/fixture.h"
#include "tests/protocol/wire.h"

#define MIB (1u << 20)

static struct wire *open_sized(struct fixture *f, uint64_t size)
{
        struct wire *w = wire_connect(fixture_path(f));
        uint64_t told;

        wire_greet(w, NBD_FLAG_FIXED_NEWSTYLE);
        wire_structured(w);
        wire_set_meta(w, "vol");
        wire_go(w, "vol", &told, NULL);
        assert_true(told == size);
        return w;
}

static void
a_resize_is_seen_by_new_connections_and_old_ones_keep_the_end_they_were_told(void **state)
{
        struct volume *volume = fixture_volume(*state);
        struct nbd_status_descriptor extent;
        uint8_t data[4096] = {0};
        unsigned n;

        fake_resize(volume, MIB);
        struct wire *old = open_sized(*state, MIB);
        fake_resize(volume, 2 * MIB);
        struct wire *young = open_sized(*state, 2 * MIB);
        assert_int_equal(wire_read(young, 0, MIB, data, 4096), 0);
        assert_int_equal(wire_read(old, 0, MIB - 1, data, 1), 0);
        assert_int_equal(wire_read(old, 0, MIB, data, 4096), NBD_EINVAL);
        assert_int_equal(wire_write_wait(old, 0, MIB - 1, data, 2), NBD_ENOSPC);
        assert_int_equal(wire_command(old, NBD_CMD_WRITE_ZEROES, 0, MIB, 1), NBD_ENOSPC);
        assert_int_equal(wire_command(old, NBD_CMD_TRIM, 0, MIB, 1), NBD_EINVAL);
        assert_int_equal(wire_status(old, 0, MIB, 4096, &extent, 1, &n), NBD_EINVAL);
        assert_int_equal(wire_status(old, 0, 0, MIB, &extent, 1, &n), 0);
        assert_int_equal(be32_get(extent.length), MIB);
        wire_close(old);
        wire_close(young);
}

static void what_a_shrink_takes_is_past_the_end_for_all_and_they_stay_connected(void **state)
{
        struct volume *volume = fixture_volume(*state);
        struct wire *w = open_sized(*state, VOL_BYTES);
        uint8_t data[4096] = {0};

        fake_resize(volume, MIB);
        assert_int_equal(wire_read(w, 0, MIB, data, 4096), NBD_EINVAL);
        assert_int_equal(wire_write_wait(w, 0, MIB - 1, data, 2), NBD_ENOSPC);
        assert_int_equal(wire_command(w, NBD_CMD_TRIM, 0, MIB, 1), NBD_EINVAL);
        assert_int_equal(wire_command(w, NBD_CMD_WRITE_ZEROES, 0, MIB, 1), NBD_ENOSPC);
        assert_int_equal(wire_write_wait(w, 0, MIB - 4096, data, 4096), 0);
        fake_resize(volume, 2 * MIB); /* grown again, but not beyond what the client was told */
        assert_int_equal(wire_read(w, 0, MIB, data, 4096), 0);
        wire_close(w);
}

static void what_a_shrink_takes_under_way_is_past_the_end_too(void **state)
{
        struct volume *volume = fixture_volume(*state);
        struct wire *w = open_sized(*state, VOL_BYTES);
        uint8_t data[4096] = {0};

        fake_shrink_at_submit(volume, MIB); /* after the server has checked */
        assert_int_equal(wire_write_wait(w, 0, MIB, data, 4096), NBD_ENOSPC);
        fake_resize(volume, VOL_BYTES);
        fake_shrink_at_submit(volume, MIB);
        assert_int_equal(wire_read(w, 0, MIB, data, 4096), NBD_EINVAL);
        wire_expect_alive(w);
        wire_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(a_resize_is_seen_by_new_connections_and_old_ones_keep_the_end_they_were_told),
            TEST(what_a_shrink_takes_is_past_the_end_for_all_and_they_stay_connected),
            TEST(what_a_shrink_takes_under_way_is_past_the_end_too),
        };
        return cmocka_run_group_tests_name("nbd resize", tests, NULL, NULL);
}
