/* test_device.c - what every vhost-user-blk device does: what is written is read, in every kind of
 * ring and every layout of a request. VHOST_SOCKET names the device, whose volume is of 64 MiB or
 * more. Written against qemu-storage-daemon first, so that the front end itself is known to be
 * right; what a device does not offer is skipped. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/vhost/check.h"

#define DATA_BYTES (256u << 10)

static uint8_t data[DATA_BYTES], back[DATA_BYTES];

static bool peer_is(const char *name)
{
        const char *peer = getenv("VHOST_PEER");

        return peer && strcmp(peer, name) == 0;
}

/* The kinds of ring. */
static const struct disk_options kinds[] = {
    {.without = 0},
    {.without = VF_EVENT_IDX},
    {.without = VF_INDIRECT},
    {.without = VF_INDIRECT | VF_EVENT_IDX},
    {.packed = true},
    {.packed = true, .without = VF_EVENT_IDX},
    {.packed = true, .without = VF_INDIRECT},
    {.packed = true, .without = VF_INDIRECT | VF_EVENT_IDX},
};

/* Opens a disk of that kind; NULL where the device has none. */
static struct disk *open_kind(unsigned kind, struct disk_options options)
{
        struct disk *d = NULL;

        options.path = check_path();
        options.packed = kinds[kind].packed;
        options.without |= kinds[kind].without;
        check_err = ERROR_INIT;
        int r = disk_open(&options, &d, &check_err);
        if (r == -ENOTSUP && options.packed)
                return NULL;
        if (r < 0)
                fail_msg("kind %u: %s", kind, check_err.message);
        return d;
}

#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void round_trip(struct disk *d, unsigned queue, struct disk_shape shape, uint32_t n_bytes)
{
        static uint64_t seed;
        struct disk_op op = {.type = VIRTIO_BLK_T_OUT,
                             .sector = seed * 64 % 1024,
                             .data = data,
                             .n_bytes = n_bytes,
                             .shape = shape};

        if (shape.join_status) { /* only a read's data and status are both written */
                op.shape.join_status = false;
                op.shape.join_header = true;
        }
        check_pattern(data, n_bytes, ++seed);
        ok(disk_do(d, queue, &op, &check_err));
        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
        assert_true(op.n_written <= 1);
        op.type = VIRTIO_BLK_T_IN;
        op.data = back;
        op.shape = shape;
        op.shape.join_header = false;
        memset(back, 0, n_bytes);
        ok(disk_do(d, queue, &op, &check_err));
        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
        assert_int_equal(op.n_written, n_bytes + 1);
        assert_memory_equal(data, back, n_bytes);
}

static void what_is_written_is_read_in_every_kind_of_ring(void **state)
{
        unsigned n_opened = 0;

        for (unsigned k = 0; k < N_KINDS; k++) {
                struct disk *d = open_kind(k, (struct disk_options){.queue_size = 16});
                if (!d)
                        continue;
                for (unsigned i = 0; i < 40; i++) /* more than once around the ring */
                        round_trip(d, 0, (struct disk_shape){.segments = 1 + i % 5}, 512 * (1 + i));
                disk_close(d);
                n_opened++;
        }
        assert_true(n_opened >= N_KINDS / 2);
}

static void a_request_may_be_laid_out_in_any_buffers(void **state)
{
        static const struct disk_shape shapes[] = {
            {.segments = 3},         {.segments = 7, .misalign = 1},
            {.header_parts = 2},     {.header_parts = 16},
            {.join_header = true},   {.join_status = true},
            {.across_border = true}, {.across_border = true, .segments = 3},
            {.misalign = 511},       {.segments = 100, .header_parts = 3},
        };

        for (unsigned k = 0; k < N_KINDS; k++) {
                struct disk *d = open_kind(k, (struct disk_options){0});
                if (!d)
                        continue;
                for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
                        struct disk_shape shape = shapes[i];
                        round_trip(d, 0, shape, 8192);
                        round_trip(d, 0, shape, 512);
                        /* qemu-storage-daemon counts a buffer in two regions as two, and then
                         * finds more descriptors than an indirect table has. */
                        if (shape.across_border && peer_is("qsd"))
                                continue;
                        shape.indirect = disk_has(d, VF_INDIRECT);
                        round_trip(d, 0, shape, 8192);
                        round_trip(d, 0, shape, DATA_BYTES);
                }
                disk_close(d);
        }
}

static void each_of_several_queues_is_served(void **state)
{
        for (unsigned k = 0; k < N_KINDS; k++) {
                struct disk *d = open_kind(k, (struct disk_options){.n_queues = 4});
                if (!d)
                        continue;
                for (unsigned i = 0; i < 40; i++)
                        round_trip(d, i % 4, (struct disk_shape){.segments = 2}, 4096);
                disk_close(d);
        }
}

/* As many requests at a time as the ring holds, in one batch, each of its own content. */
static void a_batch_is_answered_in_full(void **state)
{
        enum { N = 20, ROUNDS = 30 };
        static struct disk_flight flights[N];
        static struct disk_op ops[N];
        static uint8_t blocks[N][1024];

        for (unsigned k = 0; k < N_KINDS; k++) {
                struct disk *d = open_kind(k, (struct disk_options){.queue_size = 64});
                if (!d)
                        continue;
                for (unsigned round = 0; round < ROUNDS; round++) {
                        uint64_t mark = disk_mark(d);
                        for (unsigned i = 0; i < N; i++) {
                                uint32_t type = round % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
                                if (round % 2 == 0)
                                        check_pattern(blocks[i], 1024, round * N + i);
                                ops[i] = (struct disk_op){.type = type,
                                                          .sector = i * 7 % N * 2,
                                                          .data = round % 2 ? back + i * 1024
                                                                            : blocks[i],
                                                          .n_bytes = 1024};
                                ok(disk_add(d, 0, &ops[i], &flights[i], &check_err));
                        }
                        ring_publish(&d->rings[0]);
                        for (unsigned i = 0; i < N; i++) {
                                void *cookie;
                                uint32_t n_written;
                                ok(ring_wait(&d->rings[0], 30000, &cookie, &n_written, &check_err));
                                struct disk_flight *f = cookie;
                                disk_finish(d, f, n_written);
                                assert_int_equal(f->op->status, VIRTIO_BLK_S_OK);
                        }
                        if (round % 2)
                                assert_memory_equal(blocks, back, sizeof(blocks));
                        disk_release(d, mark);
                }
                disk_close(d);
        }
}

static void flush_and_identity_are_answered(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        char id[VIRTIO_BLK_ID_BYTES];

        check_flush(d);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_GET_ID, 0, id, sizeof(id)), VIRTIO_BLK_S_OK);
        assert_true(id[0] != 0 && (uint8_t)id[0] != 0xee);
        disk_close(d);
}

static void a_discarded_or_zeroed_range_reads_as_zeroes(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        static const uint8_t zeroes[65536];
        const uint32_t types[] = {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_WRITE_ZEROES,
                                  VIRTIO_BLK_T_DISCARD};

        if (!disk_has(d, VF_BLK_DISCARD | VF_BLK_WRITE_ZEROES)) {
                disk_close(d);
                skip();
        }
        for (unsigned i = 0; i < 3; i++) {
                struct virtio_blk_discard_write_zeroes range = {
                    .sector = 64, .num_sectors = 64, .flags = i == 1 ? 1 : 0};
                check_pattern(data, sizeof(zeroes), 77 + i);
                check_write(d, 0, data, sizeof(zeroes));
                assert_int_equal(check_status(d, types[i], 0, &range, sizeof(range)),
                                 VIRTIO_BLK_S_OK);
                check_read(d, 0, back, sizeof(zeroes));
                assert_memory_equal(back, data, 32768);
                assert_memory_equal(back + 32768, zeroes, 32768);
        }
        disk_close(d);
}

static void requests_beyond_the_end_and_of_odd_length_fail_and_change_nothing(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint64_t end = d->config.capacity;

        assert_true(end >= 131072);
        check_pattern(data, 4096, 5);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_OUT, end, data, 512), VIRTIO_BLK_S_IOERR);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_IN, end - 1, back, 1024), VIRTIO_BLK_S_IOERR);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_IN, UINT64_MAX - 3, back, 4096),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, data, 4096),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_IN, 0, back, 100), VIRTIO_BLK_S_IOERR);
        assert_int_equal(check_status(d, 12345, 0, back, 512), VIRTIO_BLK_S_UNSUPP);
        check_read(d, end - 8, back, 4096);
        check_alive(d);
        disk_close(d);
}

static void memory_comes_by_slots_too(void **state)
{
        struct disk *d = check_open((struct disk_options){.by_slots = true});

        if (!(d->front->protocol & VP_CONFIGURE_MEM_SLOTS)) {
                disk_close(d);
                skip();
        }
        for (unsigned i = 0; i < 10; i++)
                round_trip(d, 0, (struct disk_shape){.across_border = i % 2}, 8192);
        disk_close(d);
}

static void a_stopped_ring_says_where_it_stands_and_goes_on_from_there(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint32_t base;

        for (unsigned i = 0; i < 5; i++)
                round_trip(d, 0, (struct disk_shape){0}, 4096);
        ok(ring_stop(&d->rings[0], d->front, 0, &base, &check_err));
        assert_int_equal(base, 10);
        ok(ring_start(&d->rings[0], d->front, 0, false, &check_err));
        ring_kick(&d->rings[0]);
        round_trip(d, 0, (struct disk_shape){0}, 4096);
        disk_close(d);
}

static void an_idle_device_calls_nobody(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        struct pollfd call = {.fd = d->rings[0].call, .events = POLLIN};

        check_alive(d);
        while (ring_wait_call(&d->rings[0], 100))
                ;
        assert_int_equal(poll(&call, 1, 200), 0);
        disk_close(d);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(what_is_written_is_read_in_every_kind_of_ring),
            cmocka_unit_test(a_request_may_be_laid_out_in_any_buffers),
            cmocka_unit_test(each_of_several_queues_is_served),
            cmocka_unit_test(a_batch_is_answered_in_full),
            cmocka_unit_test(flush_and_identity_are_answered),
            cmocka_unit_test(a_discarded_or_zeroed_range_reads_as_zeroes),
            cmocka_unit_test(requests_beyond_the_end_and_of_odd_length_fail_and_change_nothing),
            cmocka_unit_test(memory_comes_by_slots_too),
            cmocka_unit_test(a_stopped_ring_says_where_it_stands_and_goes_on_from_there),
            cmocka_unit_test(an_idle_device_calls_nobody),
        };
        return cmocka_run_group_tests_name("vhost device", tests, NULL, NULL);
}
