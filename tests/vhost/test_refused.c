/* test_refused.c - messages of which each is well formed and makes no sense: the front end is told
 * so (REPLY_ACK) or hung up on, and the device is as it was. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "tests/vhost/check.h"
#include "tests/vhost/server.h"

/* It says no, or it hangs up. */
static void expect_refused(int r)
{
        if (r != -EBADMSG && r != -ECONNRESET)
                fail_msg("it answered %d", r);
}

static void queues_larger_than_any(void **state)
{
        static const uint32_t sizes[] = {32769, 65535, 65536, UINT32_MAX};

        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct disk *d = check_open((struct disk_options){.stopped = true});
                struct vu_vring_state num = {0, sizes[i]};

                check_err = ERROR_INIT;
                expect_refused(
                    front_tell(d->front, VU_SET_VRING_NUM, &num, sizeof(num), NULL, 0, &check_err));
                disk_close(d);
        }
}

/* A table of two regions that comes with one file. */
static void a_table_of_more_regions_than_files(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        const struct guest_part *region = &d->memory->regions[0];
        struct vu_table table = {.n_regions = 2};

        table.regions[0] = table.regions[1] = region->address;
        table.regions[1].guest += UINT64_C(1) << 40;
        table.regions[1].user += UINT64_C(1) << 40;
        check_err = ERROR_INIT;
        expect_refused(front_tell(d->front, VU_SET_MEM_TABLE, &table,
                                  8 + 2 * (uint32_t)sizeof(struct vu_region), &region->fd, 1,
                                  &check_err));
        disk_close(d);
}

/* What a running queue goes by; logging is for any time. */
static void other_features_under_way(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint64_t agreed = d->front->features;

        check_alive(d);
        assert_true(agreed & VF_EVENT_IDX);
        ok(front_tell_u64(d->front, VU_SET_FEATURES, agreed, &check_err));
        check_alive(d);
        check_err = ERROR_INIT;
        expect_refused(
            front_tell_u64(d->front, VU_SET_FEATURES, agreed & ~VF_EVENT_IDX, &check_err));
        disk_close(d);
}

static void messages_of_a_feature_that_is_not_agreed(void **state)
{
        struct disk *d =
            check_open((struct disk_options){.without_protocol = VP_CONFIGURE_MEM_SLOTS});
        struct guest_part more = d->memory->regions[0];

        more.address.guest += UINT64_C(1) << 40;
        more.address.user += UINT64_C(1) << 40;
        check_err = ERROR_INIT;
        expect_refused(front_add_region(d->front, &more, &check_err));
        disk_close(d);
}

/* A read from it would wait. */
static void events_that_are_no_eventfds(void **state)
{
        static const uint32_t requests[] = {VU_SET_VRING_KICK, VU_SET_VRING_CALL, VU_SET_VRING_ERR};
        int ends[2];

        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        for (unsigned i = 0; i < 3; i++)
                for (unsigned end = 0; end < 2; end++) {
                        struct disk *d = check_open((struct disk_options){0});
                        uint64_t queue = 0;

                        check_err = ERROR_INIT;
                        expect_refused(front_tell(d->front, requests[i], &queue, sizeof(queue),
                                                  &ends[end], 1, &check_err));
                        disk_close(d);
                }
        close(ends[0]);
        close(ends[1]);
}

/* Room for less than the queues that it is for, or for none. */
static void in_flight_regions_that_are_too_small(void **state)
{
        static const uint64_t divisors[] = {2, 64, UINT64_MAX};

        for (unsigned i = 0; i < sizeof(divisors) / sizeof(divisors[0]); i++) {
                struct disk *d = check_open((struct disk_options){.stopped = true});
                struct vu_inflight inflight = d->inflight;

                assert_true(d->inflight_fd >= 0);
                inflight.size /= divisors[i];
                check_err = ERROR_INIT;
                expect_refused(front_tell(d->front, VU_SET_INFLIGHT_FD, &inflight, VU_INFLIGHT_SIZE,
                                          &d->inflight_fd, 1, &check_err));
                disk_close(d);
        }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(queues_larger_than_any),      TEST(a_table_of_more_regions_than_files),
            TEST(other_features_under_way),    TEST(messages_of_a_feature_that_is_not_agreed),
            TEST(events_that_are_no_eventfds), TEST(in_flight_regions_that_are_too_small),
        };
        return cmocka_run_group_tests_name("vhost refused", tests, NULL, NULL);
}
