/* vhost_kernel.c - rings that the kernel processes. */
#include "vmm-glue/vmm/vhost_kernel.h"

#include <endian.h>
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm-glue/vmm/machine.h"

/* Of one descriptor, and of one indirect table: Linux's drivers have no more of vsock's. */
#define MARKED_BYTES_MAX  KIB(72)
#define MARKED_PIECES_MAX 16u

int vhost_kernel_own(int fd, const char *what, uint64_t *ret_features, struct error *err)
{
        uint64_t features;

        if (ioctl(fd, VHOST_SET_OWNER) < 0 || ioctl(fd, VHOST_GET_FEATURES, &features) < 0)
                return error_set(err, -errno, "%s does not answer: %s", what, strerror(errno));
        if (!(features >> VIRTIO_F_VERSION_1 & 1))
                return error_set(err, -EOPNOTSUPP, "%s is of a kernel that is too old", what);
        *ret_features = features;
        return 0;
}

static int set_memory(int fd, const struct guest_memory *memory, struct error *err)
{
        union {
                struct vhost_memory head; /* with its regions behind it */
                uint8_t room[sizeof(struct vhost_memory) +
                             MEMORY_REGIONS_MAX * sizeof(struct vhost_memory_region)];
        } table = {0};

        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];

                if (region->shared)
                        table.head.regions[table.head.nregions++] = (struct vhost_memory_region){
                            .guest_phys_addr = region->gpa,
                            .memory_size = region->size,
                            .userspace_addr = (uintptr_t)region->host,
                        };
        }
        if (ioctl(fd, VHOST_SET_MEM_TABLE, &table) < 0)
                return error_set(err, -errno, "vhost does not take the guest's memory: %s",
                                 strerror(errno));
        return 0;
}

/* Where the rings lie with us; the kernel checks them against its table once more. @log: what it writes
 * to the used ring is to be noted. */
static int set_addresses(int fd, const struct virtio_device *v, unsigned index, bool log,
                         struct error *err)
{
        const struct guest_memory *memory = &v->machine->memory;
        const struct virtio_queue *q = &v->queues[index];
        uint64_t n = q->size;
        /* Each ring with the event index behind it: VIRTIO 1.2, section 2.7. */
        void *descriptors = guest_range(memory, q->descriptors, n * sizeof(struct vring_desc));
        void *available =
            guest_range(memory, q->available, sizeof(struct vring_avail) + (n + 1) * 2);
        void *used = guest_range(
            memory, q->used, sizeof(struct vring_used) + n * sizeof(struct vring_used_elem) + 2);
        struct vhost_vring_addr addresses = {
            .index = index,
            .flags = log ? 1u << VHOST_VRING_F_LOG : 0,
            .desc_user_addr = (uintptr_t)descriptors,
            .avail_user_addr = (uintptr_t)available,
            .used_user_addr = (uintptr_t)used,
            .log_guest_addr = q->used,
        };

        if (!descriptors || !available || !used)
                return error_set(err, -EFAULT, "%s: queue %u is not in the guest's memory", v->id,
                                 index);
        if (ioctl(fd, VHOST_SET_VRING_ADDR, &addresses) < 0)
                return error_set(err, -errno, "%s: vhost does not take the rings of queue %u: %s",
                                 v->id, index, strerror(errno));
        return 0;
}

static int set_ring(int fd, const struct virtio_device *v, unsigned index, struct error *err)
{
        const struct virtio_queue *q = &v->queues[index];
        struct vhost_vring_state number = {.index = index, .num = q->size};
        struct vhost_vring_state base = {.index = index, .num = q->next_available};
        struct vhost_vring_file call = {.index = index, .fd = q->call};

        if (ioctl(fd, VHOST_SET_VRING_NUM, &number) < 0 ||
            ioctl(fd, VHOST_SET_VRING_BASE, &base) < 0 ||
            ioctl(fd, VHOST_SET_VRING_CALL, &call) < 0)
                return error_set(err, -errno, "%s: vhost does not take queue %u: %s", v->id, index,
                                 strerror(errno));
        /* The kernel checks the rings by their size. */
        return set_addresses(fd, v, index, v->machine->memory.log, err);
}

static int set_kick(int fd, const struct virtio_device *v, unsigned index, struct error *err)
{
        struct vhost_vring_file kick = {.index = index, .fd = v->queues[index].kick};

        if (ioctl(fd, VHOST_SET_VRING_KICK, &kick) < 0)
                return error_set(err, -errno, "%s: vhost does not take queue %u: %s", v->id, index,
                                 strerror(errno));
        return 0;
}

/* The log has to be there before the feature is. */
static int set_features(int fd, const struct virtio_device *v, uint64_t features, bool log,
                        struct error *err)
{
        uint64_t base = log ? (uintptr_t)v->machine->memory.log->bits : 0;

        features &= v->features;
        if (log) {
                features |= UINT64_C(1) << VHOST_F_LOG_ALL;
                if (ioctl(fd, VHOST_SET_LOG_BASE, &base) < 0)
                        return error_set(err, -errno, "%s: vhost does not note what it writes: %s",
                                         v->id, strerror(errno));
        }
        if (ioctl(fd, VHOST_SET_FEATURES, &features) < 0)
                return error_set(err, -errno, "%s: vhost cannot do what was negotiated: %s", v->id,
                                 strerror(errno));
        return 0;
}

int vhost_kernel_log(int fd, struct virtio_device *v, unsigned n_queues, uint64_t features, bool on,
                     struct error *err)
{
        int r = set_features(fd, v, features, on, err);

        for (unsigned i = 0; r == 0 && i < n_queues; i++)
                if (v->queues[i].enabled)
                        r = set_addresses(fd, v, i, on, err);
        return r;
}

/* A table has no tables. */
static void mark_piece(const struct guest_memory *memory, const struct vring_desc *d)
{
        uint32_t length = le32toh(d->len);
        const void *host;

        if ((le16toh(d->flags) & (VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT)) !=
            VRING_DESC_F_WRITE)
                return;
        if (length > MARKED_BYTES_MAX)
                length = MARKED_BYTES_MAX;
        host = guest_range(memory, le64toh(d->addr), length);
        if (host)
                memory_mark(memory, host, length);
}

/* Each is copied once: the guest may change it. */
static void for_each_descriptor(const struct guest_memory *memory, uint64_t gpa, uint32_t n,
                                void (*act)(const struct guest_memory *memory,
                                            const struct vring_desc *d))
{
        const uint8_t *table = guest_range(memory, gpa, n * sizeof(struct vring_desc));
        struct vring_desc d;

        for (uint32_t i = 0; table && i < n; i++) {
                memcpy(&d, table + i * sizeof(d), sizeof(d));
                act(memory, &d);
        }
}

static void mark_of_ring(const struct guest_memory *memory, const struct vring_desc *d)
{
        uint32_t n = le32toh(d->len) / sizeof(*d);

        if (!(le16toh(d->flags) & VRING_DESC_F_INDIRECT))
                mark_piece(memory, d);
        else if (n <= MARKED_PIECES_MAX)
                for_each_descriptor(memory, le64toh(d->addr), n, mark_piece);
}

void vhost_kernel_mark_buffers(const struct virtio_device *v, unsigned index)
{
        const struct virtio_queue *q = &v->queues[index];

        if (v->machine->memory.log && q->enabled)
                for_each_descriptor(&v->machine->memory, q->descriptors, q->size, mark_of_ring);
}

static void unbind(int fd, unsigned n_queues)
{
        for (unsigned i = 0; i < n_queues; i++) {
                struct vhost_vring_file none = {.index = i, .fd = VHOST_FILE_UNBIND};

                ioctl(fd, VHOST_SET_VRING_KICK, &none);
                ioctl(fd, VHOST_SET_VRING_CALL, &none);
        }
}

int vhost_kernel_start(int fd, struct virtio_device *v, unsigned n_queues, uint64_t features,
                       struct error *err)
{
        int r = set_memory(fd, &v->machine->memory, err);

        if (r == 0)
                r = set_features(fd, v, features, v->machine->memory.log, err);
        for (unsigned i = 0; r == 0 && i < n_queues; i++) {
                if (!v->queues[i].enabled)
                        continue;
                r = set_ring(fd, v, i, err);
                if (r == 0)
                        r = set_kick(fd, v, i, err);
        }
        if (r < 0)
                unbind(fd, n_queues);
        return r;
}

void vhost_kernel_stop(int fd, struct virtio_device *v, unsigned n_queues)
{
        unbind(fd, n_queues);
        for (unsigned i = 0; i < n_queues; i++) {
                struct vhost_vring_state base = {.index = i};

                if (v->queues[i].enabled && ioctl(fd, VHOST_GET_VRING_BASE, &base) == 0)
                        v->queues[i].next_available = (uint16_t)base.num;
        }
}
