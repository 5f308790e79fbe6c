/* blk_config.c - see blk_config.h. */
#include "vmm-glue/vmm/blk_config.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stddef.h>

#define BIT(n) (UINT64_C(1) << (n))

#define CAPACITY_MAX    ((uint64_t)INT64_MAX / 512)
#define BLOCK_BYTES_MAX 65536u
#define BLOCK_EXP_MAX   16u

static_assert(offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4 == BLK_CONFIG_BYTES,
              "section 5.2.4");

static int bad_config(struct error *err, const char *what, uint64_t value)
{
        return error_set(err, -EPROTO, "the back end says what makes no sense: %s: %llu", what,
                         (unsigned long long)value);
}

void blk_config_keep(struct virtio_blk_config *config, const struct virtio_blk_config *old,
                     uint64_t features)
{
        if (features & BIT(VIRTIO_BLK_F_SEG_MAX))
                config->seg_max = old->seg_max;
        if (features & BIT(VIRTIO_BLK_F_BLK_SIZE))
                config->blk_size = old->blk_size;
        if (features & BIT(VIRTIO_BLK_F_TOPOLOGY)) {
                config->physical_block_exp = old->physical_block_exp;
                config->alignment_offset = old->alignment_offset;
                config->min_io_size = old->min_io_size;
                config->opt_io_size = old->opt_io_size;
        }
        if (features & BIT(VIRTIO_BLK_F_CONFIG_WCE))
                config->wce = old->wce;
        if (features & BIT(VIRTIO_BLK_F_MQ))
                config->num_queues = old->num_queues;
        if (features & BIT(VIRTIO_BLK_F_DISCARD)) {
                config->max_discard_sectors = old->max_discard_sectors;
                config->max_discard_seg = old->max_discard_seg;
                config->discard_sector_alignment = old->discard_sector_alignment;
        }
        if (features & BIT(VIRTIO_BLK_F_WRITE_ZEROES)) {
                config->max_write_zeroes_sectors = old->max_write_zeroes_sectors;
                config->max_write_zeroes_seg = old->max_write_zeroes_seg;
                config->write_zeroes_may_unmap = old->write_zeroes_may_unmap;
        }
}

int blk_config_check(const struct virtio_blk_config *raw, uint64_t offered, unsigned n_queues,
                     struct virtio_blk_config *ret_config, struct error *err)
{
        struct virtio_blk_config config = {.capacity = raw->capacity};
        uint32_t block, segments;

        blk_config_keep(&config, raw, offered);
        block = le32toh(config.blk_size);
        segments = le32toh(config.seg_max);
        if (le64toh(config.capacity) > CAPACITY_MAX)
                return bad_config(err, "sectors", le64toh(config.capacity));
        if ((offered & BIT(VIRTIO_BLK_F_SEG_MAX)) && segments == 0)
                return bad_config(err, "segments of a request", segments);
        if ((offered & BIT(VIRTIO_BLK_F_BLK_SIZE)) &&
            (block < 512 || block > BLOCK_BYTES_MAX || (block & (block - 1))))
                return bad_config(err, "bytes of a block", block);
        if (config.physical_block_exp > BLOCK_EXP_MAX)
                return bad_config(err, "exponent of a physical block", config.physical_block_exp);
        if (config.wce > 1)
                return bad_config(err, "mode of the cache", config.wce);
        /* With header and status a request is to fit the queue. */
        if (segments > BLK_QUEUE_SIZE - 2)
                config.seg_max = htole32(BLK_QUEUE_SIZE - 2);
        if (offered & BIT(VIRTIO_BLK_F_MQ))
                config.num_queues = htole16((uint16_t)n_queues);
        *ret_config = config;
        return 0;
}

bool blk_config_covers(const struct virtio_blk_config *now, const struct virtio_blk_config *old,
                       uint64_t features)
{
        if ((features & BIT(VIRTIO_BLK_F_BLK_SIZE)) && now->blk_size != old->blk_size)
                return false;
        if ((features & BIT(VIRTIO_BLK_F_SEG_MAX)) && le32toh(now->seg_max) < le32toh(old->seg_max))
                return false;
        if ((features & BIT(VIRTIO_BLK_F_DISCARD)) &&
            (le32toh(now->max_discard_sectors) < le32toh(old->max_discard_sectors) ||
             le32toh(now->max_discard_seg) < le32toh(old->max_discard_seg)))
                return false;
        return !(features & BIT(VIRTIO_BLK_F_WRITE_ZEROES)) ||
               (le32toh(now->max_write_zeroes_sectors) >= le32toh(old->max_write_zeroes_sectors) &&
                le32toh(now->max_write_zeroes_seg) >= le32toh(old->max_write_zeroes_seg));
}
