/* blk_config.h - the configuration space of a disk, as its back end says it and as its guest reads it.
 *
 * Units      as in struct virtio_blk_config: little-endian, sectors of 512 bytes.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  none.
 * Source     Virtual I/O Device (VIRTIO) 1.2, section 5.2.4.
 */
#pragma once
#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"

#define BLK_QUEUE_SIZE 256u

/* Up to write_zeroes_may_unmap and its padding; what is behind belongs to features that are not
 * offered. */
#define BLK_CONFIG_BYTES 60u

/* What of @raw belongs to the features @offered; all else is zero. -EPROTO: it makes no sense. */
int blk_config_check(const struct virtio_blk_config *raw, uint64_t offered, unsigned n_queues,
                     struct virtio_blk_config *ret_config, struct error *err);
/* For a driver that has accepted @features and read @old, what belongs to them stays as it was. */
void blk_config_keep(struct virtio_blk_config *config, const struct virtio_blk_config *old,
                     uint64_t features);
/* May a driver that has accepted @features and read @old go on with @now? It is told of nothing but
 * the size. */
bool blk_config_covers(const struct virtio_blk_config *now, const struct virtio_blk_config *old,
                       uint64_t features);
