/* test_chains.c - rules 1 to 6 and 10 of the vhost-user-blk device (README.md): what it makes of
 * addresses, chains, indices and framing, right and wrong. Over volumes in memory. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define NEXT     VRING_DESC_F_NEXT
#define WRITE    VRING_DESC_F_WRITE
#define HEADER   ((uint32_t)sizeof(struct virtio_blk_outhdr))
#define FAR_AWAY UINT64_C(0x5000000000) /* in no region */

static const struct disk_options kinds[] = {{.packed = false}, {.packed = true}};
#define FOR_EACH_KIND(k) for (unsigned k = 0; k < 2; k++)

/* ---- 1: addresses ---- */

static void rule_1_a_range_outside_of_memory_is_refused(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                uint64_t half = r->disk->memory->regions[0].address.size;
                raw_close(r);
                const struct {
                        uint64_t guest;
                        uint32_t n_bytes;
                } ranges[] = {{FAR_AWAY, 4096},          {half - 2048, 4096},       {half, 4096},
                              {UINT64_MAX - 2047, 4096}, {UINT64_MAX - 4095, 4096}, {0, UINT32_MAX},
                              {UINT64_MAX, 512}};
                for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
                        r = raw_open(kinds[k]);
                        raw_desc(r, 1, ranges[i].guest, ranges[i].n_bytes, WRITE | NEXT, 2);
                        raw_show(r, 0);
                        raw_expect_refused(r);
                        raw_close(r);
                }
        }
}

static void rule_1_a_buffer_may_span_regions(void **state)
{
        static uint8_t data[65536], back[65536];

        FOR_EACH_KIND(k)
        {
                struct disk *d = check_open(kinds[k]);
                struct disk_op op = {.type = VIRTIO_BLK_T_OUT,
                                     .data = data,
                                     .n_bytes = sizeof(data),
                                     .shape = {.across_border = true}};
                check_pattern(data, sizeof(data), 3 + k);
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                op.type = VIRTIO_BLK_T_IN;
                op.data = back;
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                assert_memory_equal(data, back, sizeof(data));
                disk_close(d);
        }
}

static void rule_1_a_descriptor_with_a_user_address_is_refused(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                raw_desc(r, 1, guest_user(r->disk->memory, r->data), RAW_BYTES, WRITE | NEXT, 2);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

static void rule_1_a_ring_at_a_guest_address_is_not_started(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct disk_options options = kinds[k];
                options.stopped = true;
                struct raw *r = raw_open(options);
                struct vu_vring_addr address = {.descriptor = r->ring->descriptors,
                                                .used = r->ring->device,
                                                .available = r->ring->driver};
                ok(disk_start(r->disk, &check_err));
                check_err = ERROR_INIT;
                if (front_tell(r->disk->front, VU_SET_VRING_ADDR, &address, sizeof(address), NULL,
                               0, &check_err) == 0) {
                        raw_show(r, 0);
                        raw_expect_refused(r);
                }
                raw_close(r);
        }
}

/* ---- 3: chains ---- */

static void rule_3_a_chain_that_loops_is_refused(void **state)
{
        for (uint16_t to = 0; to < 3; to++) {
                struct raw *r = raw_open((struct disk_options){0});
                raw_desc(r, 2, r->status, 1, WRITE | NEXT, to);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
        /* The same inside an indirect table. */
        for (uint16_t to = 0; to < 3; to++) {
                struct raw *r = raw_open((struct disk_options){0});
                raw_entry(r, 0, r->header, HEADER, NEXT, 1);
                raw_entry(r, 1, r->data, RAW_BYTES, WRITE | NEXT, 2);
                raw_entry(r, 2, r->status, 1, WRITE | NEXT, to);
                raw_indirect(r, 3 * 16, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

static void rule_3_a_packed_chain_without_end_is_refused(void **state)
{
        struct raw *r = raw_open((struct disk_options){.packed = true});

        for (uint16_t i = 1; i < r->ring->size; i++)
                raw_desc(r, i, r->data, 1, WRITE | NEXT, 0);
        raw_show(r, 0);
        raw_expect_refused(r);
        raw_close(r);
}

static void rule_3_a_next_or_head_outside_of_the_table_is_refused(void **state)
{
        const uint16_t nexts[] = {128, 129, 32767, 65535};

        for (unsigned i = 0; i < 4; i++) {
                struct raw *r = raw_open((struct disk_options){.queue_size = 128});
                raw_desc(r, 1, r->data, RAW_BYTES, WRITE | NEXT, nexts[i]);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
                r = raw_open((struct disk_options){.queue_size = 128});
                raw_show(r, nexts[i]);
                raw_expect_refused(r);
                raw_close(r);
                r = raw_open((struct disk_options){.queue_size = 128});
                raw_entry(r, 0, r->header, HEADER, NEXT, 1);
                raw_entry(r, 1, r->data, RAW_BYTES, WRITE | NEXT, nexts[i]);
                raw_indirect(r, 3 * 16, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

/* Also where that would be sound. */
static void rule_3_what_lies_behind_the_table_is_no_descriptor(void **state)
{
        struct raw *r = raw_open((struct disk_options){.queue_size = 128});
        uint64_t place = (r->table - r->ring->descriptors) / sizeof(struct vring_desc);

        assert_true(r->table > r->ring->descriptors && place >= 128 && place <= UINT16_MAX);
        assert_int_equal((r->table - r->ring->descriptors) % sizeof(struct vring_desc), 0);
        raw_entry(r, 0, r->data, RAW_BYTES, WRITE | NEXT, 2);
        raw_desc(r, 0, r->header, HEADER, NEXT, (uint16_t)place);
        raw_show(r, 0);
        raw_expect_refused(r);
        raw_close(r);
}

static void rule_3_a_chain_may_be_longer_than_the_queue(void **state)
{
        static uint8_t data[515 * 512], back[515 * 512];

        FOR_EACH_KIND(k)
        {
                struct disk_options options = kinds[k];
                options.queue_size = 64;
                struct disk *d = check_open(options);
                struct disk_op op = {.type = VIRTIO_BLK_T_OUT,
                                     .data = data,
                                     .n_bytes = sizeof(data),
                                     .shape = {.indirect = true, .segments = 513}};
                check_pattern(data, sizeof(data), 12 + k);
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                op.type = VIRTIO_BLK_T_IN;
                op.data = back;
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                assert_memory_equal(data, back, sizeof(data));
                disk_close(d);
        }
}

/* A ring's own descriptors and then a table's. None lies behind the one before: each is a piece of
 * its own. */
static void rule_3_a_chain_of_more_pieces_than_any_driver_has_is_refused(void **state)
{
        const uint16_t n = 600;
        struct raw *r = raw_open((struct disk_options){.queue_size = 1024});

        for (uint16_t i = 1; i < n; i++)
                raw_desc(r, i, r->data, 512, WRITE | NEXT, (uint16_t)(i + 1));
        for (uint16_t i = 0; i < n; i++)
                raw_entry(r, i, r->data, 512, WRITE | NEXT, (uint16_t)(i + 1));
        raw_entry(r, n, r->status, 1, WRITE, 0);
        raw_desc(r, n, r->table, (n + 1u) * 16, VRING_DESC_F_INDIRECT, 0);
        raw_show(r, 0);
        raw_expect_refused(r);
        raw_close(r);
}

static void rule_3_nested_indirect_tables_are_refused(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                raw_entry(r, 0, r->table + 16 * 16, 3 * 16, VRING_DESC_F_INDIRECT, 0);
                raw_entry(r, 16, r->header, HEADER, NEXT, 1);
                raw_entry(r, 17, r->data, RAW_BYTES, WRITE | NEXT, 2);
                raw_entry(r, 18, r->status, 1, WRITE, 0);
                raw_indirect(r, 16, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
                /* And the flag in a table that would be right without it. */
                r = raw_open(kinds[k]);
                raw_entry(r, 0, r->header, HEADER, NEXT, 1);
                raw_entry(r, 1, r->data, RAW_BYTES, WRITE | NEXT | VRING_DESC_F_INDIRECT, 2);
                raw_entry(r, 2, r->status, 1, WRITE, 0);
                raw_indirect(r, 3 * 16, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

static void rule_3_indirect_with_next_is_refused(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                raw_entry(r, 0, r->header, HEADER, NEXT, 1);
                raw_entry(r, 1, r->data, RAW_BYTES, WRITE | NEXT, 2);
                raw_entry(r, 2, r->status, 1, WRITE, 0);
                raw_indirect(r, 3 * 16, NEXT);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

static void rule_3_a_table_whose_length_is_no_multiple_of_16_or_zero_is_refused(void **state)
{
        const uint32_t lengths[] = {0, 1, 15, 17, 47, 49, UINT32_MAX, UINT32_MAX - 15};

        FOR_EACH_KIND(k)
        {
                for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
                        struct raw *r = raw_open(kinds[k]);
                        raw_entry(r, 0, r->header, HEADER, NEXT, 1);
                        raw_entry(r, 1, r->data, RAW_BYTES, WRITE | NEXT, 2);
                        raw_entry(r, 2, r->status, 1, WRITE, 0);
                        raw_indirect(r, lengths[i], 0);
                        raw_show(r, 0);
                        raw_expect_refused(r);
                        raw_close(r);
                }
        }
}

static void rule_3_a_table_outside_of_memory_is_refused(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                raw_desc(r, 0, FAR_AWAY, 3 * 16, VRING_DESC_F_INDIRECT, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

/* ---- 4: indices ---- */

static void rule_4_an_index_that_jumps_stops_the_queue_and_no_other(void **state)
{
        const uint16_t jumps[] = {65, 1000, 32768, 65535};

        for (unsigned i = 0; i < 4; i++) {
                struct raw *r = raw_open((struct disk_options){.queue_size = 64, .n_queues = 2});
                struct disk *d = r->disk;
                __atomic_store_n(&ring_available(r->ring)->idx, jumps[i], __ATOMIC_RELEASE);
                ring_kick(r->ring);
                assert_int_equal(raw_outcome(r), RAW_BROKEN);
                uint8_t block[512];
                struct disk_op op = {
                    .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                ok(disk_do(d, 1, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                assert_true(front_is_open(d->front));
                raw_close(r);
        }
}

static void rule_4_a_chain_that_is_in_flight_is_not_begun_again(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct raw *r = raw_open((struct disk_options){0});

        fake_hold(volume);
        raw_show(r, 0);
        fake_wait_held(volume, 1);
        raw_show(r, 0);
        assert_int_equal(raw_outcome(r), RAW_BROKEN);
        assert_int_equal(fake_n_held(volume), 1);
        fake_release_all(volume);
        raw_close(r);
}

/* ---- 5: framing ---- */

static void rule_5_headers_and_status_may_lie_anywhere(void **state)
{
        static const struct disk_shape shapes[] = {{.header_parts = 16},
                                                   {.join_header = true},
                                                   {.join_status = true},
                                                   {.header_parts = 2, .segments = 3}};
        static uint8_t data[3 * 512], back[3 * 512];

        FOR_EACH_KIND(k)
        {
                struct disk *d = check_open(kinds[k]);
                for (unsigned i = 0; i < 4; i++) {
                        struct disk_op op = {.type = VIRTIO_BLK_T_OUT,
                                             .data = data,
                                             .n_bytes = sizeof(data),
                                             .shape = shapes[i]};
                        op.shape.join_status = false;
                        check_pattern(data, sizeof(data), 90 + i);
                        ok(disk_do(d, 0, &op, &check_err));
                        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                        op.type = VIRTIO_BLK_T_IN;
                        op.shape = shapes[i];
                        op.shape.join_header = false;
                        op.data = back;
                        ok(disk_do(d, 0, &op, &check_err));
                        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                        assert_memory_equal(data, back, sizeof(data));
                }
                disk_close(d);
        }
}

static void rule_5_what_is_readable_after_what_is_writable_is_rejected(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                raw_desc(r, 0, r->data, RAW_BYTES, WRITE | NEXT, 1);
                raw_desc(r, 1, r->header, HEADER, NEXT, 2);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

static void rule_5_a_header_too_short_or_a_missing_status_is_survived(void **state)
{
        FOR_EACH_KIND(k)
        {
                for (uint32_t n_bytes = 0; n_bytes < HEADER; n_bytes += 5) {
                        struct raw *r = raw_open(kinds[k]);
                        raw_desc(r, 0, r->header, n_bytes, NEXT, 1);
                        raw_show(r, 0);
                        raw_expect_refused(r);
                        raw_close(r);
                }
                struct raw *r = raw_open(kinds[k]); /* nothing to be written at all */
                raw_desc(r, 0, r->header, HEADER, 0, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
                r = raw_open(kinds[k]); /* no header */
                raw_desc(r, 0, r->status, 1, WRITE, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
                r = raw_open(kinds[k]); /* the status is out of reach */
                raw_desc(r, 2, FAR_AWAY, 1, WRITE, 0);
                raw_show(r, 0);
                assert_true(raw_outcome(r) != RAW_SILENT);
                raw_close(r);
        }
}

static void rule_5_a_malformed_request_fails_alone_where_its_status_can_be_reached(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct raw *r = raw_open(kinds[k]);
                raw_header(r, VIRTIO_BLK_T_IN, UINT64_MAX);
                raw_show(r, 0);
                assert_int_equal(raw_outcome(r), RAW_IOERR);
                raw_close(r);
                r = raw_open(kinds[k]);
                raw_desc(r, 1, FAR_AWAY, RAW_BYTES, WRITE | NEXT, 2);
                raw_show(r, 0);
                assert_int_equal(raw_outcome(r), RAW_IOERR);
                raw_close(r);
                r = raw_open(kinds[k]);
                raw_header(r, 4711, 0);
                raw_show(r, 0);
                assert_int_equal(raw_outcome(r), RAW_UNSUPP);
                raw_close(r);
        }
}

static void rule_5_the_used_length_counts_data_and_status(void **state)
{
        uint8_t data[8192];

        FOR_EACH_KIND(k)
        {
                struct disk *d = check_open(kinds[k]);
                const struct {
                        uint32_t type, n_bytes, n_written;
                } cases[] = {{VIRTIO_BLK_T_IN, 8192, 8193},
                             {VIRTIO_BLK_T_IN, 512, 513},
                             {VIRTIO_BLK_T_GET_ID, 20, 21},
                             {VIRTIO_BLK_T_OUT, 8192, 1},
                             {VIRTIO_BLK_T_FLUSH, 0, 1}};
                memset(data, 0, sizeof(data));
                for (unsigned i = 0; i < 5; i++) {
                        struct disk_op op = {
                            .type = cases[i].type, .data = data, .n_bytes = cases[i].n_bytes};
                        ok(disk_do(d, 0, &op, &check_err));
                        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                        assert_int_equal(op.n_written, cases[i].n_written);
                }
                disk_close(d);
        }
}

/* ---- 6: gates ---- */

static void rule_6_indirect_descriptors_that_were_not_agreed_on_are_refused(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct disk_options options = kinds[k];
                options.without = VF_INDIRECT;
                struct raw *r = raw_open(options);
                raw_entry(r, 0, r->header, HEADER, NEXT, 1);
                raw_entry(r, 1, r->data, RAW_BYTES, WRITE | NEXT, 2);
                raw_entry(r, 2, r->status, 1, WRITE, 0);
                raw_indirect(r, 3 * 16, 0);
                raw_show(r, 0);
                raw_expect_refused(r);
                raw_close(r);
        }
}

/* ---- 10: wake-ups ---- */

/* Each request waits for the one before, so that both sides sleep and wake all the time: one lost
 * wake-up, and nothing more comes. */
static void rule_10_no_wake_up_is_lost(void **state)
{
        uint8_t block[512];

        for (unsigned k = 0; k < 4; k++) {
                struct disk *d = check_open((struct disk_options){
                    .packed = k & 1, .without = k & 2 ? VF_EVENT_IDX : 0, .queue_size = 4});
                for (unsigned i = 0; i < 5000; i++) {
                        struct disk_op op = {
                            .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                        ok(disk_do(d, 0, &op, &check_err));
                        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                }
                disk_close(d);
        }
}

/* The guest looks at the ring all the time and wants no calls: but for those of the start and of the
 * first answer after it, when the device cannot know yet what the guest has missed, none is made. They are counted when the server has let go of the descriptor. */
static void rule_10_without_being_asked_for_no_call_comes(void **state)
{
        FOR_EACH_KIND(k)
        {
                struct disk *d = check_open(kinds[k]);
                struct ring *ring = &d->rings[0];
                struct disk_flight flight;
                uint8_t block[512];
                struct disk_op op = {
                    .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                uint64_t count = 0;
                uint32_t n_bytes;
                void *cookie;
                for (unsigned i = 0; i < 50; i++) {
                        uint64_t mark = disk_mark(d);
                        ok(disk_add(d, 0, &op, &flight, &check_err));
                        ring_publish(ring);
                        while (ring_take(ring, &cookie, &n_bytes, &check_err) == 0)
                                sched_yield();
                        disk_release(d, mark);
                }
                front_close(d->front);
                d->front = NULL;
                server_wait_clients(*state, 0);
                if (read(ring->call, &count, sizeof(count)) < 0)
                        count = 0;
                assert_in_range(count, 0, 2);
                disk_close(d);
        }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(rule_1_a_range_outside_of_memory_is_refused),
            TEST(rule_1_a_buffer_may_span_regions),
            TEST(rule_1_a_descriptor_with_a_user_address_is_refused),
            TEST(rule_1_a_ring_at_a_guest_address_is_not_started),
            TEST(rule_3_a_chain_that_loops_is_refused),
            TEST(rule_3_a_packed_chain_without_end_is_refused),
            TEST(rule_3_a_next_or_head_outside_of_the_table_is_refused),
            TEST(rule_3_what_lies_behind_the_table_is_no_descriptor),
            TEST(rule_3_a_chain_may_be_longer_than_the_queue),
            TEST(rule_3_a_chain_of_more_pieces_than_any_driver_has_is_refused),
            TEST(rule_3_nested_indirect_tables_are_refused),
            TEST(rule_3_indirect_with_next_is_refused),
            TEST(rule_3_a_table_whose_length_is_no_multiple_of_16_or_zero_is_refused),
            TEST(rule_3_a_table_outside_of_memory_is_refused),
            TEST(rule_4_an_index_that_jumps_stops_the_queue_and_no_other),
            TEST(rule_4_a_chain_that_is_in_flight_is_not_begun_again),
            TEST(rule_5_headers_and_status_may_lie_anywhere),
            TEST(rule_5_what_is_readable_after_what_is_writable_is_rejected),
            TEST(rule_5_a_header_too_short_or_a_missing_status_is_survived),
            TEST(rule_5_a_malformed_request_fails_alone_where_its_status_can_be_reached),
            TEST(rule_5_the_used_length_counts_data_and_status),
            TEST(rule_6_indirect_descriptors_that_were_not_agreed_on_are_refused),
            TEST(rule_10_no_wake_up_is_lost),
            TEST(rule_10_without_being_asked_for_no_call_comes),
        };
        return cmocka_run_group_tests_name("vhost chains", tests, NULL, NULL);
}
