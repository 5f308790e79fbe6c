/* seed_blk.c - the seed of a cloud image: a small disk in a memfd, read-only, processed here. VIRTIO 1.2,
 * section 5.2. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "common/le.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/virtqueue.h"
#include "vmm-glue/vmm/watch.h"

#define QUEUE_SIZE        64u
#define SECTOR            512u
#define SEGMENTS          62u /* with head and status they fill the queue */
#define SEED_SIZE_MAX     MIB(64)
#define TURN_BYTES_MAX    MIB(4) /* before others have their turn; and of requests */
#define TURN_REQUESTS_MAX 32u

struct seed {
        struct virtio_device v;
        struct virtqueue vq;
        struct virtqueue_chain chain;
        int fd; /* the machine's configuration has it */
        uint64_t sectors;
};

/* Section 5.2.6. */
struct request_head {
        le32 type, reserved;
        le64 sector;
};

static struct seed *of(struct virtio_device *v)
{
        return container_of(v, struct seed, v);
}

static uint64_t features(struct virtio_device *v)
{
        return VIRTQUEUE_FEATURES | UINT64_C(1) << VIRTIO_BLK_F_RO |
               UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX | UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE;
}

static void read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        const struct virtio_blk_config config = {.capacity = htole64(of(v)->sectors),
                                                 .seg_max = htole32(SEGMENTS),
                                                 .blk_size = htole32(SECTOR)};

        memset(data, 0, size);
        if (offset >= sizeof(config))
                return;
        if (size > sizeof(config) - offset)
                size = (uint32_t)(sizeof(config) - offset);
        memcpy(data, (const uint8_t *)&config + offset, size);
}

static int start(struct virtio_device *v, struct error *err)
{
        return virtqueue_start(&of(v)->vq, v, 0, err);
}

static void stop(struct virtio_device *v)
{
        of(v)->vq = (struct virtqueue){0};
}

static uint8_t read_sectors(const struct seed *seed, const struct iovec *in, unsigned n,
                            uint64_t bytes, uint64_t sector)
{
        uint64_t done = 0;

        if (bytes % SECTOR || sector > seed->sectors || bytes / SECTOR > seed->sectors - sector)
                return VIRTIO_BLK_S_IOERR;
        if (bytes == 0)
                return VIRTIO_BLK_S_OK;
        /* A memfd gives all there is at once; what the guest's pieces take is at most the seed. */
        done = (uint64_t)preadv(seed->fd, in, (int)n, (off_t)(sector * SECTOR));
        return done == bytes ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

static uint8_t answer(struct seed *seed, const struct request_head *head, unsigned n,
                      uint64_t bytes)
{
        static const char id[VIRTIO_BLK_ID_BYTES] = "seed";
        const struct iovec *in = virtqueue_in(&seed->chain);

        switch (le32_get(head->type)) {
        case VIRTIO_BLK_T_IN:
                return read_sectors(seed, in, n, bytes, le64_get(head->sector));
        case VIRTIO_BLK_T_GET_ID:
                virtqueue_scatter(in, n, 0, id, sizeof(id));
                return VIRTIO_BLK_S_OK;
        case VIRTIO_BLK_T_OUT:
                return VIRTIO_BLK_S_IOERR;
        default:
                return VIRTIO_BLK_S_UNSUPP;
        }
}

/* Returns the bytes that it took. */
static uint64_t serve(struct seed *seed)
{
        struct virtqueue_chain *chain = &seed->chain;
        struct request_head head;
        struct iovec *last;
        uint64_t bytes;
        uint8_t *status;

        if (chain->in_bytes == 0 ||
            virtqueue_gather(chain->iov, chain->n_out, 0, &head, sizeof(head)) < sizeof(head)) {
                virtio_log(&seed->v, "a request without head or status");
                virtqueue_push(&seed->vq, chain, 0);
                return 0;
        }
        /* The last byte is the status; the pieces before it, the data. */
        bytes = chain->in_bytes - 1;
        last = &virtqueue_in(chain)[chain->n_in - 1];
        last->iov_len--;
        status = (uint8_t *)last->iov_base + last->iov_len;
        *status = answer(seed, &head, last->iov_len > 0 ? chain->n_in : chain->n_in - 1, bytes);
        last->iov_len++;
        memory_mark(&seed->v.machine->memory, status, 1);
        virtqueue_push(&seed->vq, chain, (uint32_t)chain->in_bytes);
        return bytes;
}

static void kick(struct virtio_device *v, unsigned queue)
{
        struct seed *seed = of(v);
        uint64_t bytes = 0;

        for (unsigned i = 0; i < TURN_REQUESTS_MAX && bytes < TURN_BYTES_MAX &&
                             virtqueue_pop(&seed->vq, &seed->chain);
             i++)
                bytes += serve(seed);
        virtqueue_flush(&seed->vq);
        if (virtqueue_want_kicks(&seed->vq))
                eventfd_signal(v->queues[queue].kick);
}

static void seed_free(struct virtio_device *v)
{
        free(of(v));
}

static const struct virtio_ops seed_ops = {
    .type = VIRTIO_ID_BLOCK,
    .features = features,
    .read_config = read_config,
    .start = start,
    .stop = stop,
    .kick = kick,
    .free = seed_free,
};

int seed_blk_create(struct machine *machine, struct error *err)
{
        static const uint16_t size = QUEUE_SIZE;
        struct seed *seed;
        struct stat st;

        if (fstat(machine->config->seed, &st) < 0)
                return error_set(err, -errno, "cannot look at the seed: %s", strerror(errno));
        if (st.st_size < 0 || (uint64_t)st.st_size > SEED_SIZE_MAX || st.st_size % SECTOR)
                return error_set(err, -EINVAL,
                                 "a seed of %lld bytes: at most %llu MiB of whole sectors",
                                 (long long)st.st_size, (unsigned long long)(SEED_SIZE_MAX >> 20));
        seed = calloc(1, sizeof(*seed));
        if (!seed)
                return error_set(err, -ENOMEM, "no memory for the seed");
        seed->v = (struct virtio_device){.ops = &seed_ops, .id = "seed"};
        seed->fd = machine->config->seed;
        seed->sectors = (uint64_t)st.st_size / SECTOR;
        return virtio_attach(machine, &seed->v,
                             &(struct virtio_options){.queue_sizes = &size, .n_queues = 1}, err);
}
