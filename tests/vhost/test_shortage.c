/* test_shortage.c - out of memory: a request fails or a front end is left, and the server goes on. Over
 * volumes in memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/protocol/shortage.h"
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define PIECE (64u << 10)

/* Whether it was answered, with whatever status: -ECONNRESET, the server has left. */
static int answered(struct disk *d, struct disk_op *op)
{
        static struct disk_flight flight;
        struct ring *ring = &d->rings[1];
        uint64_t mark = disk_mark(d);
        uint32_t n_written;
        bool lost = false;
        void *cookie;
        int n = 0;

        ok(disk_add(d, 1, op, &flight, &check_err));
        ring_publish(ring);
        while (n == 0 && !lost) {
                ok(disk_wait(d, RAW_WAIT_MS, &lost, &check_err));
                n = ring_take(ring, &cookie, &n_written, &check_err);
                ok(n);
        }
        if (n > 0)
                disk_finish(d, &flight, n_written);
        disk_release(d, mark);
        return n > 0 ? 0 : -ECONNRESET;
}

/* All kinds of requests, until the server leaves. */
static void use(struct disk *d)
{
        static uint8_t data[PIECE], id[VIRTIO_BLK_ID_BYTES];
        static struct virtio_blk_discard_write_zeroes range;
        const struct disk_shape parts = {.segments = 40}, table = {.indirect = true, .segments = 8};
        struct disk_op ops[] = {
            {.type = VIRTIO_BLK_T_OUT, .data = data, .n_bytes = PIECE},
            {.type = VIRTIO_BLK_T_OUT, .sector = 1, .data = data, .n_bytes = 512},
            {.type = VIRTIO_BLK_T_OUT, .data = data, .n_bytes = PIECE, .shape = parts},
            {.type = VIRTIO_BLK_T_IN, .data = data, .n_bytes = PIECE, .shape = table},
            {.type = VIRTIO_BLK_T_IN, .sector = 3, .data = data, .n_bytes = 512},
            {.type = VIRTIO_BLK_T_FLUSH},
            {.type = VIRTIO_BLK_T_GET_ID, .data = id, .n_bytes = sizeof(id)},
            {.type = VIRTIO_BLK_T_DISCARD, .data = &range, .n_bytes = sizeof(range)},
            {.type = VIRTIO_BLK_T_WRITE_ZEROES, .data = &range, .n_bytes = sizeof(range)},
        };

        range = (struct virtio_blk_discard_write_zeroes){.num_sectors = PIECE / 512};
        for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
                if (answered(d, &ops[i]) < 0)
                        return;
}

static void any_allocation_may_fail(struct server *s, const struct disk_options *options)
{
        unsigned n = 0, off = 0;
        bool any;

        do {
                struct disk *d = NULL;

                n++;
                server_run(s, shortage_fail, &n);
                if (disk_open(options, &d, NULL) == 0)
                        use(d);
                disk_close(d);
                server_wait_clients(s, 0);
                server_turn(s);
                any = shortage_has_struck();
                server_run(s, shortage_fail, &off);
                check_server_alive();
        } while (any && n < 1000);
        assert_in_range(n, 8, 999); /* some did fail, and at last none was left to */
        print_message("allocations that failed: %u\n", n - 1);
}

static void any_allocation_may_fail_and_the_server_goes_on(void **state)
{
        for (unsigned i = 0; i < 4; i++) {
                const struct disk_options options = {.path = check_path(),
                                                     .n_queues = 2,
                                                     .packed = i & 1,
                                                     .by_slots = i & 2,
                                                     .without_inflight = i & 2};

                any_allocation_may_fail(*state, &options);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(any_allocation_may_fail_and_the_server_goes_on,
                                            server_setup, server_teardown),
        };
        return cmocka_run_group_tests_name("vhost shortage", tests, NULL, NULL);
}
