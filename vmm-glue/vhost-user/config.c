/* config.c - the features that are offered and the configuration space: VIRTIO 1.2, sections 5.2.3
 * and 5.2.4. */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "vmm-glue/vhost-user/internal.h"

#define BIT(n) (UINT64_C(1) << (n))

/* A volume's block. */
#define BLOCK_SECTORS (POOL_BLOCK / VOLUME_SECTOR)

uint64_t config_features(const struct vhost_client *client)
{
        uint64_t features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
                            BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) |
                            BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) |
                            BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |
                            BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED) |
                            BIT(VHOST_F_LOG_ALL) | BIT(VHOST_USER_F_PROTOCOL_FEATURES);

        if (client->volume.readonly)
                return features | BIT(VIRTIO_BLK_F_RO);
        if (client->volume.discard)
                features |= BIT(VIRTIO_BLK_F_DISCARD);
        return features | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

bool config_writes_through(const struct vhost_client *client)
{
        if (client_has(client, VIRTIO_BLK_F_CONFIG_WCE))
                return !client->writeback;
        return !client_has(client, VIRTIO_BLK_F_FLUSH);
}

static void fill(const struct vhost_client *client, struct virtio_blk_config *config)
{
        *config = (struct virtio_blk_config){
            .capacity = htole64(volume_size(client->volume.volume) / VOLUME_SECTOR),
            .seg_max = htole32(SEG_MAX),
            .blk_size = htole32(VOLUME_SECTOR),
            .physical_block_exp = (uint8_t)__builtin_ctz(BLOCK_SECTORS),
            .min_io_size = htole16(BLOCK_SECTORS),
            .wce = client->writeback,
            .num_queues = htole16((uint16_t)client->device->n_queues),
            .max_discard_sectors = htole32(RANGE_SECTORS_MAX),
            .max_discard_seg = htole32(RANGES_MAX),
            .discard_sector_alignment = htole32(BLOCK_SECTORS),
            .max_write_zeroes_sectors = htole32(RANGE_SECTORS_MAX),
            .max_write_zeroes_seg = htole32(RANGES_MAX),
            .write_zeroes_may_unmap = 1,
        };
}

void config_read(const struct vhost_client *client, uint32_t offset, uint8_t *data, uint32_t size)
{
        struct virtio_blk_config config;

        fill(client, &config);
        memset(data, 0, size);
        if (offset >= sizeof(config))
                return;
        if (size > sizeof(config) - offset)
                size = (uint32_t)sizeof(config) - offset;
        memcpy(data, (const uint8_t *)&config + offset, size);
}

/* Only the cache's mode may be written. A migration's destination is given all that the source had:
 * what is ours to say stays as it is. */
int config_write(struct vhost_client *client, uint32_t offset, const uint8_t *data, uint32_t size,
                 bool migration, struct error *err)
{
        const uint32_t wce = offsetof(struct virtio_blk_config, wce);

        if (!migration && (offset != wce || size != 1))
                return error_set(err, -EPERM,
                                 "it writes to a part of the configuration that is "
                                 "read-only");
        if (offset > wce || wce - offset >= size)
                return 0;
        if (data[wce - offset] > 1)
                return error_set(err, -EINVAL, "it sets the cache's mode to %u",
                                 data[wce - offset]);
        client->writeback = data[wce - offset];
        return 0;
}

/* ---- telling the guest ---- */

static void send_change(struct vhost_client *client)
{
        static const struct vhost_header change = {.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
                                                   .flags = VHOST_VERSION};

        client->backend_busy = true;
        client->backend_again = false;
        client->backend_iov = (struct iovec){(void *)&change, sizeof(change)};
        client->backend_io.op = LOOP_SENDMSG;
        client->backend_io.fd = client->backend_fd;
        client->backend_io.iov = &client->backend_iov;
        client->backend_io.n_iov = 1;
        loop_submit(client->device->server->loop, &client->backend_io);
}

void config_changed(struct vhost_client *client)
{
        if (client->backend_fd < 0 || client->dead)
                return;
        if (client->backend_busy)
                client->backend_again = true;
        else
                send_change(client);
}

void config_changed_done(struct loop_io *io, int result)
{
        struct vhost_client *client = container_of(io, struct vhost_client, backend_io);

        client->backend_busy = false;
        /* Half a message cannot be mended, and 12 bytes are never halved by a stream socket that
         * has room. Nor is more sent where nobody is there. */
        if (client->backend_again && result == (int)sizeof(struct vhost_header) && !client->dead)
                send_change(client);
        co_wake_all(&client->quiet);
}
