/* test_vmm_blk_config.c - what a disk's back end may say of itself, and what its guest reads of that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include "vmm-glue/vmm/blk_config.h"

#define BIT(n) (UINT64_C(1) << (n))
#define ALL                                                                                        \
        (BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_TOPOLOGY) |     \
         BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_DISCARD) |         \
         BIT(VIRTIO_BLK_F_WRITE_ZEROES))

static const struct virtio_blk_config right = {
    .capacity = 1000,
    .size_max = 77,
    .seg_max = 126,
    .blk_size = 512,
    .physical_block_exp = 3,
    .min_io_size = 8,
    .wce = 1,
    .num_queues = 16,
    .max_discard_sectors = 100,
    .max_discard_seg = 10,
    .discard_sector_alignment = 8,
    .max_write_zeroes_sectors = 200,
    .max_write_zeroes_seg = 20,
    .write_zeroes_may_unmap = 1,
};

static int check(struct virtio_blk_config raw, uint64_t offered)
{
        struct virtio_blk_config config;
        struct error err = {0};
        int r = blk_config_check(&raw, offered, 4, &config, &err);

        assert_true(r == 0 || err.message[0]);
        return r;
}

static void what_makes_sense_is_taken(void **state)
{
        struct virtio_blk_config config, raw = right;

        assert_int_equal(blk_config_check(&raw, ALL, 4, &config, NULL), 0);
        raw.size_max = 0; /* never offered */
        raw.num_queues = 4;
        assert_memory_equal(&config, &raw, sizeof(raw));
        raw = right;
        raw.seg_max = UINT32_MAX;
        assert_int_equal(blk_config_check(&raw, ALL, 4, &config, NULL), 0);
        assert_int_equal(config.seg_max, BLK_QUEUE_SIZE - 2);
}

static void what_is_not_offered_is_zero(void **state)
{
        struct virtio_blk_config config, none = {.capacity = right.capacity};

        assert_int_equal(blk_config_check(&right, 0, 4, &config, NULL), 0);
        assert_memory_equal(&config, &none, sizeof(none));
}

static void what_makes_no_sense_is_refused(void **state)
{
        static const uint32_t sizes[] = {0, 1, 256, 511, 513, 767, 131072, UINT32_MAX};
        struct virtio_blk_config raw = right;

        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                raw.blk_size = sizes[i];
                assert_int_equal(check(raw, ALL), -EPROTO);
                assert_int_equal(check(raw, ALL & ~BIT(VIRTIO_BLK_F_BLK_SIZE)), 0);
        }
        raw = right;
        raw.capacity = UINT64_MAX / 512 / 2 + 1;
        assert_int_equal(check(raw, 0), -EPROTO);
        raw.capacity--;
        assert_int_equal(check(raw, 0), 0);
        raw = right;
        raw.seg_max = 0;
        assert_int_equal(check(raw, ALL), -EPROTO);
        raw = right;
        raw.wce = 2;
        assert_int_equal(check(raw, ALL), -EPROTO);
        raw = right;
        raw.physical_block_exp = 17;
        assert_int_equal(check(raw, ALL), -EPROTO);
}

static void a_driver_keeps_what_it_was_told(void **state)
{
        struct virtio_blk_config config = {.capacity = 5, .seg_max = 200, .blk_size = 4096};

        blk_config_keep(&config, &right, BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_DISCARD));
        assert_int_equal(config.capacity, 5);
        assert_int_equal(config.blk_size, 4096);
        assert_int_equal(config.seg_max, 126);
        assert_int_equal(config.max_discard_seg, 10);
        assert_int_equal(config.max_write_zeroes_seg, 0);
}

#define less_covers(field)                                                                         \
        do {                                                                                       \
                struct virtio_blk_config less = right;                                             \
                less.field++;                                                                      \
                assert_true(blk_config_covers(&less, &right, ALL));                                \
                less.field -= 2;                                                                   \
                assert_false(blk_config_covers(&less, &right, ALL));                               \
                assert_true(blk_config_covers(&less, &right, 0));                                  \
        } while (0)

static void another_back_end_has_to_do_as_much(void **state)
{
        struct virtio_blk_config now = right;

        less_covers(seg_max);
        less_covers(max_discard_sectors);
        less_covers(max_discard_seg);
        less_covers(max_write_zeroes_sectors);
        less_covers(max_write_zeroes_seg);
        now.capacity = 1;
        assert_true(blk_config_covers(&now, &right, ALL));
        now.blk_size = 1024;
        assert_false(blk_config_covers(&now, &right, ALL));
        assert_true(blk_config_covers(&now, &right, ALL & ~BIT(VIRTIO_BLK_F_BLK_SIZE)));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(what_makes_sense_is_taken),
            cmocka_unit_test(what_is_not_offered_is_zero),
            cmocka_unit_test(what_makes_no_sense_is_refused),
            cmocka_unit_test(a_driver_keeps_what_it_was_told),
            cmocka_unit_test(another_back_end_has_to_do_as_much),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
