/* vhost_blk.c - disks: virtio block devices whose rings a vhost-user back end processes.
 *
 * Nothing of a request passes here: the guest's kicks and the back end's signals are eventfds that
 * KVM knows. What is done here is to tell a back end of the guest's memory and rings when the driver
 * starts, and to take them back when it stops.
 *
 * A back end may go at any time, and another one come (vhost_blk_connect()). What the old one had
 * begun is in the in-flight region, shared memory that is kept here and given to the next: it goes on
 * from the index up to which requests were given back. Meanwhile the guest waits, and sees no error.
 *
 *   wanted  the driver has started the device
 *   running the back end of now has the rings
 *   taken   some back end has had them since the driver's last reset
 *
 * Whatever goes wrong with a back end ends its connection, and the device waits for the next. Only
 * what the guest itself has done wrong, rings that are not in its memory, makes it NEEDS_RESET.
 *
 * Source: Virtual I/O Device (VIRTIO) 1.2, section 5.2; docs/interop/vhost-user.rst of QEMU, section
 * "Inflight I/O tracking". */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/closer.h"
#include "common/log.h"
#include "vmm-glue/vmm/blk_config.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/vhost_link.h"
#include "vmm-glue/vmm/virtio.h"
#include "vmm-glue/vmm/watch.h"

#define BIT(n) (UINT64_C(1) << (n))

/* What the guest may be offered, where the back end offers it. The queues' sizes are such that
 * SIZE_MAX is of no use, and SeaBIOS cannot do with it. */
#define FEATURES_READ                                                                              \
        (BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_BLK_SIZE) |           \
         BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_CONFIG_WCE) |     \
         BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))
#define FEATURES_WRITE (BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES))

/* What is still to be told of a disk that was removed. */
struct removal {
        struct loop_task task;
        struct list link;        /* machine->disks_removed */
        struct machine *machine; /* NULL: it has come to its end. The loop's thread */
        char id[STATE_ID_MAX];
};

struct vhost_blk {
        struct virtio_device v;
        struct list among; /* machine->disks */
        struct vhost_link_owner owner;
        struct vhost_link *link; /* NULL: there is no back end */
        bool readonly;
        unsigned n_queues;

        uint64_t offered;                /* to the guest */
        struct virtio_blk_config config; /* as the driver of now has read it, */
        struct virtio_blk_config said;   /* and as its next one will: the back end's */

        bool wanted, running, taken;
        bool logs;          /* the back end of now was told to note what it writes */
        bool unclean;       /* stopped with requests in flight, which only the region knows */
        bool resize_untold; /* to a guest that has been restored */
        struct vhost_inflight inflight;
        int inflight_fd; /* -1: none */

        struct removal *removal; /* for its end */
        struct log_limit limit;
};

static struct vhost_blk *blk_of(struct virtio_device *v)
{
        return container_of(v, struct vhost_blk, v);
}

static bool may_log(struct vhost_blk *b)
{
        return log_limit_admits(&b->limit, loop_now_ns(b->v.machine->loop), b->v.id,
                                "its back end");
}

static bool is_connected(const struct vhost_blk *b)
{
        return b->link && vhost_front_is_up(&b->link->front);
}

static bool has(const struct vhost_blk *b, unsigned feature)
{
        return b->v.features & BIT(feature);
}

/* ---- features and configuration ---- */

static uint64_t features_to_offer(const struct vhost_blk *b, const struct vhost_front *front)
{
        uint64_t features = front->features & (FEATURES_READ | FEATURES_WRITE);

        if (b->readonly)
                features &= ~FEATURES_WRITE;
        if (b->n_queues < 2)
                features &= ~BIT(VIRTIO_BLK_F_MQ);
        return features;
}

static int read_back(const struct vhost_blk *b, struct vhost_front *front, uint64_t offered,
                     struct virtio_blk_config *ret, struct error *err)
{
        struct virtio_blk_config raw = {0};
        int r = vhost_front_get_config(front, &raw, BLK_CONFIG_BYTES, err);

        return r < 0 ? r : blk_config_check(&raw, offered, b->n_queues, ret, err);
}

/* A driver may have read what another back end had offered before it accepts @features. */
static int check_features(uint64_t offered, uint64_t features, struct error *err)
{
        uint64_t lacking = features & ~(offered | BIT(VIRTIO_F_VERSION_1));

        return lacking ? error_set(err, -EOPNOTSUPP,
                                   "its back end lacks features that the guest uses: 0x%llx",
                                   (unsigned long long)lacking)
                       : 0;
}

/* What a connection has to offer to be this disk's, and its configuration. */
static int examine(const struct vhost_blk *b, struct vhost_front *front, uint64_t *ret_offered,
                   struct virtio_blk_config *ret_config, struct error *err)
{
        uint64_t offered = features_to_offer(b, front);
        int r;

        if (b->readonly && !(offered & BIT(VIRTIO_BLK_F_RO)))
                return error_set(err, -EROFS,
                                 "it is to be read-only, and its back end would write: attach "
                                 "the volume read-only");
        if (front->n_queues < b->n_queues)
                return error_set(err, -EOPNOTSUPP, "its back end has %u queues, and the guest %u",
                                 front->n_queues, b->n_queues);
        r = check_features(offered, b->v.features, err);
        if (r == 0)
                r = read_back(b, front, offered, ret_config, err);
        if (r == 0 && !blk_config_covers(ret_config, &b->config, b->v.features))
                r = error_set(err, -EOPNOTSUPP,
                              "its back end has other limits than the guest was told");
        if (r == 0)
                *ret_offered = offered;
        return r;
}

/* The guest keeps what it was told, but for the size. */
static void adopt_config(struct vhost_blk *b, const struct virtio_blk_config *now)
{
        struct virtio_blk_config before = b->config;

        b->config = b->said = *now;
        blk_config_keep(&b->config, &before, b->v.features);
        if (b->config.capacity == before.capacity)
                return;
        log_info("vmm: %s: it has %llu sectors now", b->v.id,
                 (unsigned long long)le64toh(now->capacity));
        virtio_config_changed(&b->v);
}

static uint64_t blk_features(struct virtio_device *v)
{
        return blk_of(v)->offered;
}

static void blk_read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        const struct virtio_blk_config *config = &blk_of(v)->config;

        memset(data, 0, size);
        if (offset >= BLK_CONFIG_BYTES)
                return;
        if (size > BLK_CONFIG_BYTES - offset)
                size = BLK_CONFIG_BYTES - offset;
        memcpy(data, (const uint8_t *)config + offset, size);
}

/* Only the cache's mode may be written. */
static void blk_write_config(struct virtio_device *v, uint32_t offset, const void *data,
                             uint32_t size)
{
        struct vhost_blk *b = blk_of(v);
        struct error e = ERROR_INIT;
        uint8_t value;

        if (offset != offsetof(struct virtio_blk_config, wce) || size != 1 ||
            !has(b, VIRTIO_BLK_F_CONFIG_WCE))
                return;
        memcpy(&value, data, 1);
        if (value > 1)
                return;
        b->config.wce = value;
        if (!b->running || !is_connected(b))
                return;
        vhost_front_allow(&b->link->front, VHOST_PATIENCE_MS);
        if (vhost_front_set_config(&b->link->front, offset, &value, 1, &e) < 0 && may_log(b))
                log_warning("vmm: %s: cannot set the cache's mode: %s", v->id, e.message);
}

/* ---- rings ---- */

static const struct vring_avail *available_ring(const struct vhost_blk *b,
                                                const struct virtio_queue *q)
{
        return guest_range(&b->v.machine->memory, q->available,
                           sizeof(struct vring_avail) + (q->size + 1u) * sizeof(uint16_t));
}

static uint64_t used_bytes(const struct virtio_queue *q)
{
        return sizeof(struct vring_used) + q->size * sizeof(struct vring_used_elem) +
               sizeof(uint16_t);
}

static const struct vring_used *used_ring(const struct vhost_blk *b, const struct virtio_queue *q)
{
        return guest_range(&b->v.machine->memory, q->used, used_bytes(q));
}

/* Up to where requests were given back: a ring that was looked at when the driver started it. */
static uint16_t used_index(const struct vhost_blk *b, const struct virtio_queue *q)
{
        const struct vring_used *used = used_ring(b, q);

        return used ? le16toh(__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE)) : q->next_available;
}

/* What a back end may have written to it just before it died, and not come to note. */
static void mark_used(const struct vhost_blk *b, const struct virtio_queue *q)
{
        const struct vring_used *used = used_ring(b, q);

        if (used)
                memory_mark(&b->v.machine->memory, used, used_bytes(q));
}

static bool has_more(const struct vhost_blk *b, const struct virtio_queue *q, uint16_t index)
{
        const struct vring_avail *available = available_ring(b, q);

        return available && le16toh(__atomic_load_n(&available->idx, __ATOMIC_ACQUIRE)) != index;
}

static int ring_of(const struct vhost_blk *b, unsigned index, struct vhost_ring *ret_ring,
                   struct error *err)
{
        const struct virtio_queue *q = &b->v.queues[index];
        const void *descriptors =
            guest_range(&b->v.machine->memory, q->descriptors, q->size * sizeof(struct vring_desc));
        const void *available = available_ring(b, q), *used = used_ring(b, q);

        if (q->size == 0 || q->size > BLK_QUEUE_SIZE || !descriptors || !available || !used)
                return error_set(err, -EFAULT, "its queue %u does not lie in the guest's memory",
                                 index);
        *ret_ring = (struct vhost_ring){
            .index = index,
            .size = q->size,
            .base = q->next_available,
            .descriptors = (uintptr_t)descriptors,
            .available = (uintptr_t)available,
            .used = (uintptr_t)used,
            .kick = q->kick,
            .call = q->call,
            .error = b->link ? b->link->broken : -1,
            .log = b->v.machine->memory.log != NULL,
            .log_address = q->used,
        };
        return 0;
}

static int check_rings(const struct vhost_blk *b, struct error *err)
{
        struct vhost_ring ring;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < b->n_queues; i++)
                if (b->v.queues[i].enabled)
                        r = ring_of(b, i, &ring, err);
        return r;
}

static int give_inflight(struct vhost_blk *b, struct vhost_front *front, struct error *err)
{
        int r = 0;

        if (b->inflight_fd < 0)
                r = vhost_front_get_inflight(front, b->n_queues, BLK_QUEUE_SIZE, &b->inflight,
                                             &b->inflight_fd, err);
        return r < 0 ? r : vhost_front_set_inflight(front, &b->inflight, b->inflight_fd, err);
}

static void forget_inflight(struct vhost_blk *b)
{
        if (b->inflight_fd >= 0)
                close_elsewhere(NULL, b->inflight_fd);
        b->inflight_fd = -1;
}

/* What is written from now on is noted; and what may have been written before. */
static int give_log(const struct vhost_blk *b, struct vhost_front *front, struct error *err)
{
        const struct guest_memory *memory = &b->v.machine->memory;

        if (!memory->log)
                return 0;
        if (!vhost_front_can_log(front))
                return error_set(err, -EOPNOTSUPP,
                                 "its back end cannot note what it writes to the guest's memory");
        for (unsigned i = 0; b->taken && i < b->n_queues; i++)
                if (b->v.queues[i].enabled)
                        mark_used(b, &b->v.queues[i]);
        return vhost_front_set_log(front, memory->log, err);
}

static int give_features(const struct vhost_blk *b, struct vhost_front *front, struct error *err)
{
        uint64_t log = b->v.machine->memory.log ? BIT(VHOST_F_LOG_ALL) : 0;

        return vhost_front_set_features(front, b->v.features | log, err);
}

/* Tell the back end of everything: it has the rings then. */
static int hand_over(struct vhost_blk *b, struct error *err)
{
        struct vhost_front *front = &b->link->front;
        struct vhost_ring ring;
        int r;

        vhost_front_allow(front, VHOST_PATIENCE_MS);
        b->logs = b->v.machine->memory.log;
        r = give_log(b, front, err);
        if (r == 0)
                r = give_features(b, front, err);
        if (r == 0 && has(b, VIRTIO_BLK_F_CONFIG_WCE))
                r = vhost_front_set_config(front, offsetof(struct virtio_blk_config, wce),
                                           &b->config.wce, 1, err);
        if (r == 0)
                r = vhost_front_set_memory(front, &b->v.machine->memory, err);
        if (r == 0)
                r = give_inflight(b, front, err);
        for (unsigned i = 0; r == 0 && i < b->n_queues; i++) {
                if (!b->v.queues[i].enabled)
                        continue;
                b->running = b->taken = true;
                r = ring_of(b, i, &ring, err);
                if (r == 0)
                        r = vhost_front_start_ring(front, &ring, err);
                /* The kick before may have gone to a back end that is gone. */
                if (r == 0)
                        eventfd_signal(b->v.queues[i].kick);
        }
        if (r < 0)
                vhost_front_fail(front);
        return r;
}

static int blk_start(struct virtio_device *v, struct error *err)
{
        struct vhost_blk *b = blk_of(v);
        struct error e = ERROR_INIT;
        int r = check_features(b->offered, v->features, err);

        if (r == 0)
                r = check_rings(b, err);
        if (r < 0)
                return r;
        b->wanted = true;
        if (b->resize_untold)
                virtio_config_changed(v);
        b->resize_untold = false;
        if (is_connected(b) && hand_over(b, &e) < 0 && may_log(b))
                log_warning("vmm: %s: its back end is lost: %s", v->id, e.message);
        return 0;
}

/* True: the back end has let go of the ring, with nothing in flight. */
static bool take_back(struct vhost_blk *b, unsigned index)
{
        struct virtio_queue *q = &b->v.queues[index];
        struct error e = ERROR_INIT;
        uint16_t base;

        if (!b->running || !is_connected(b))
                return false;
        if (vhost_front_stop_ring(&b->link->front, index, &base, &e) < 0) {
                if (may_log(b))
                        log_warning("vmm: %s: its back end is lost: %s", b->v.id, e.message);
                return false;
        }
        q->next_available = base;
        return base == used_index(b, q);
}

static void blk_stop(struct virtio_device *v)
{
        struct vhost_blk *b = blk_of(v);

        if (!b->wanted)
                return;
        b->unclean = false;
        if (is_connected(b))
                vhost_front_allow(&b->link->front, VHOST_PATIENCE_MS);
        for (unsigned i = 0; i < b->n_queues; i++) {
                struct virtio_queue *q = &v->queues[i];

                if (!q->enabled || !b->taken || take_back(b, i))
                        continue;
                /* As with a reconnection: the region knows the rest. */
                mark_used(b, q);
                q->next_available = used_index(b, q);
                if (has_more(b, q, q->next_available))
                        b->unclean = true;
        }
        b->wanted = b->running = false;
}

static int blk_log(struct virtio_device *v, bool on, struct error *err)
{
        struct vhost_blk *b = blk_of(v);
        struct vhost_front *front;
        struct vhost_ring ring;
        int r = 0;

        /* Who comes next is told at once; and who was not told to begin, as another had failed, need not be
         * waited for at the end. */
        if (!b->running || !is_connected(b) || (!on && !b->logs))
                return 0;
        b->logs = on;
        front = &b->link->front;
        vhost_front_allow(front, VHOST_PATIENCE_MS);
        if (on)
                r = give_log(b, front, err);
        if (r == 0)
                r = vhost_front_set_features(front, v->features | (on ? BIT(VHOST_F_LOG_ALL) : 0),
                                             err);
        for (unsigned i = 0; r == 0 && i < b->n_queues; i++) {
                if (!v->queues[i].enabled)
                        continue;
                r = ring_of(b, i, &ring, err);
                ring.log = on;
                if (r == 0)
                        r = vhost_front_set_ring(front, &ring, err);
        }
        return r < 0 ? error_prefix(err, "%s", v->id) : 0;
}

/* The driver's requests are forgotten, also those that a back end may know of. */
static void blk_reset(struct virtio_device *v)
{
        struct vhost_blk *b = blk_of(v);

        forget_inflight(b);
        b->taken = b->unclean = false;
        b->config = b->said;
}

/* ---- what the connection says, on the loop ---- */

static void blk_lost(struct vhost_link_owner *owner, char id[STATE_ID_MAX])
{
        struct vhost_blk *b = container_of(owner, struct vhost_blk, owner);

        b->link = NULL;
        b->running = false;
        snprintf(id, STATE_ID_MAX, "%s", b->v.id);
        if (may_log(b))
                log_warning("vmm: %s: its back end has gone: the guest's requests wait", id);
}

static void blk_changed(struct vhost_link_owner *owner)
{
        struct vhost_blk *b = container_of(owner, struct vhost_blk, owner);
        struct vhost_front *front = &b->link->front;
        struct virtio_blk_config now;
        struct error e = ERROR_INIT;

        vhost_front_allow(front, VHOST_PATIENCE_MS);
        if (read_back(b, front, features_to_offer(b, front), &now, &e) == 0)
                adopt_config(b, &now);
        else if (may_log(b))
                log_warning("vmm: %s: cannot read its new configuration: %s", b->v.id, e.message);
}

static void blk_broken(struct vhost_link_owner *owner)
{
        struct vhost_blk *b = container_of(owner, struct vhost_blk, owner);

        if (!b->running)
                return;
        if (may_log(b))
                log_warning("vmm: %s: its back end says that the guest's queues make no sense",
                            b->v.id);
        virtio_needs_reset(&b->v);
}

static void blk_silent(struct vhost_link_owner *owner, const struct error *why)
{
        struct vhost_blk *b = container_of(owner, struct vhost_blk, owner);

        if (may_log(b))
                log_warning("vmm: %s: a change of its size would not be noticed: %s", b->v.id,
                            why->message);
}

/* ---- save and restore ---- */

static void blk_save(struct virtio_device *v, struct state_writer *w)
{
        const struct vhost_blk *b = blk_of(v);

        state_put16(w, (uint16_t)b->n_queues);
        state_put64(w, v->features);
        state_put8(w, b->unclean);
        state_put(w, &b->config, BLK_CONFIG_BYTES);
}

/* The configuration here is the new back end's; the guest has read the old one's. */
static int blk_restore(struct virtio_device *v, struct state_reader *r, struct error *err)
{
        struct vhost_blk *b = blk_of(v);
        uint16_t n_queues = state_get16(r);
        uint64_t features = state_get64(r);
        bool unclean = state_get8(r);
        struct virtio_blk_config raw = {0}, old;

        state_get(r, &raw, BLK_CONFIG_BYTES);
        if (n_queues != b->n_queues)
                return error_set(err, -EINVAL, "it was saved with %u queues, and has %u", n_queues,
                                 b->n_queues);
        if (unclean)
                return error_set(err, -EINVAL,
                                 "it was saved without its back end, with requests in flight");
        if (check_features(b->offered, features, err) < 0)
                return -EOPNOTSUPP;
        if (blk_config_check(&raw, b->offered & features, b->n_queues, &old, err) < 0)
                return error_set(err, -EINVAL, "its saved configuration makes no sense");
        if (!blk_config_covers(&b->config, &old, features) ||
            le64toh(b->config.capacity) < le64toh(old.capacity))
                return error_set(err, -EOPNOTSUPP,
                                 "its back end is smaller, or has other limits, than the guest "
                                 "was told");
        b->resize_untold = features && old.capacity != b->config.capacity;
        blk_config_keep(&b->config, &old, features);
        return 0;
}

/* ---- its life ---- */

static void blk_free(struct virtio_device *v)
{
        struct vhost_blk *b = blk_of(v);

        list_remove(&b->among);
        vhost_link_drop(b->link);
        forget_inflight(b);
        free(b->removal);
        free(b);
}

static const struct virtio_ops blk_ops = {
    .type = VIRTIO_ID_BLOCK,
    .features = blk_features,
    .read_config = blk_read_config,
    .write_config = blk_write_config,
    .start = blk_start,
    .stop = blk_stop,
    .log = blk_log,
    .reset = blk_reset,
    .save = blk_save,
    .restore = blk_restore,
    .free = blk_free,
};

static struct vhost_blk *find(struct machine *machine, const char *id, struct error *err)
{
        if (machine->disks.next)
                list_for_each (it, &machine->disks) {
                        struct vhost_blk *b = container_of(it, struct vhost_blk, among);

                        if (strcmp(b->v.id, id) == 0)
                                return b;
                }
        error_set(err, -ENOENT, "there is no disk '%s'", id);
        return NULL;
}

static unsigned queues_for(const struct machine *machine, const struct vmm_disk *disk,
                           const struct vhost_front *front)
{
        unsigned n = disk->queues ? disk->queues : machine->config->cpus;

        if (n > front->n_queues)
                n = front->n_queues;
        if (n > VIRTIO_QUEUES_MAX)
                n = VIRTIO_QUEUES_MAX;
        return n > 0 ? n : 1;
}

static int attach(struct vhost_blk *b, const struct vmm_disk *disk, bool hotplugged,
                  struct error *err)
{
        uint16_t sizes[VIRTIO_QUEUES_MAX];
        struct virtio_options options = {.boot_order = disk->boot_order,
                                         .hotplugged = hotplugged,
                                         .queue_sizes = sizes,
                                         .n_queues = b->n_queues};

        for (unsigned i = 0; i < b->n_queues; i++)
                sizes[i] = BLK_QUEUE_SIZE;
        return virtio_attach(b->v.machine, &b->v, &options, err);
}

static int create(struct machine *machine, const struct vmm_disk *disk, struct vhost_blk **ret_blk,
                  struct error *err)
{
        struct vhost_blk *b = calloc(1, sizeof(*b));
        struct removal *removal = calloc(1, sizeof(*removal));
        int r;

        if (!b || !removal) {
                free(b);
                free(removal);
                close(disk->fd);
                return error_set(err, -ENOMEM, "no memory for a disk");
        }
        b->v = (struct virtio_device){.ops = &blk_ops, .machine = machine};
        snprintf(b->v.id, sizeof(b->v.id), "%s", disk->id);
        b->owner = (struct vhost_link_owner){
            .lost = blk_lost, .changed = blk_changed, .broken = blk_broken, .silent = blk_silent};
        b->readonly = disk->readonly;
        b->inflight_fd = -1;
        b->removal = removal;
        r = vhost_link_new(machine, disk->fd, &b->link, err);
        if (r == 0) {
                b->n_queues = queues_for(machine, disk, &b->link->front);
                r = examine(b, &b->link->front, &b->offered, &b->said, err);
        }
        if (r < 0) {
                vhost_link_drop(b->link);
                free(removal);
                free(b);
                return r;
        }
        b->config = b->said;
        vhost_link_set_owner(b->link, &b->owner);
        *ret_blk = b;
        return 0;
}

int vhost_blk_create(struct machine *machine, const struct vmm_disk *disk, bool hotplugged,
                     struct error *err)
{
        struct vhost_blk *b = NULL;
        int r;

        if (!machine->disks.next) {
                list_init(&machine->disks);
                list_init(&machine->disks_removed);
        }
        if (disk->fd < 0)
                return error_set(err, -EINVAL, "disk '%s' has no back end", disk->id);
        if (strlen(disk->id) >= STATE_ID_MAX || find(machine, disk->id, NULL)) {
                close(disk->fd);
                return error_set(err, -EEXIST, "there is a disk '%s' already, or its name is long",
                                 disk->id);
        }
        r = create(machine, disk, &b, err);
        if (r == 0) {
                list_append(&machine->disks, &b->among);
                r = attach(b, disk, hotplugged, err);
        }
        if (r < 0)
                error_prefix(err, "disk '%s'", disk->id);
        return r;
}

/* The driver, if there is one, goes on where the back end before was. */
static int go_on(struct vhost_blk *b, struct error *err)
{
        if (!b->wanted)
                return 0;
        for (unsigned i = 0; b->taken && i < b->n_queues; i++)
                if (b->v.queues[i].enabled)
                        b->v.queues[i].next_available = used_index(b, &b->v.queues[i]);
        return hand_over(b, err);
}

static int connect_to(struct vhost_blk *b, struct vhost_link *link, struct error *err)
{
        struct virtio_blk_config config = {0};
        uint64_t offered = 0;
        int r = examine(b, &link->front, &offered, &config, err);

        if (r < 0) {
                vhost_link_drop(link);
                return r;
        }
        b->link = link;
        r = go_on(b, err);
        if (r < 0) {
                vhost_link_drop(link);
                b->link = NULL;
                b->running = false;
                return r;
        }
        vhost_link_set_owner(link, &b->owner);
        b->offered = offered;
        adopt_config(b, &config);
        return 0;
}

int vhost_blk_connect(struct machine *machine, const char *id, int fd, struct error *err)
{
        struct vhost_blk *b = find(machine, id, err);
        struct vhost_link *link;
        int r;

        if (!b) {
                close(fd);
                return -ENOENT;
        }
        if (is_connected(b)) {
                close(fd);
                return error_set(err, -EBUSY, "disk '%s' has a back end", id);
        }
        /* The loop has not come to see that it has ended. */
        vhost_link_drop(b->link);
        b->link = NULL;
        b->running = false;
        r = vhost_link_new(machine, fd, &link, err);
        if (r == 0)
                r = connect_to(b, link, err);
        if (r < 0)
                error_prefix(err, "disk '%s'", id);
        return r;
}

static void tell_removed(struct loop_task *task)
{
        struct removal *removal = container_of(task, struct removal, task);
        struct machine *machine = removal->machine;

        if (machine) {
                machine_lock(machine);
                list_remove(&removal->link);
                machine_unlock(machine);
                if (machine->events->disk_removed)
                        machine->events->disk_removed(machine->events_arg, removal->id);
        }
        free(removal);
}

/* By whoever wrote the register that ejects it. */
static void removed(struct virtio_device *v)
{
        struct vhost_blk *b = blk_of(v);
        struct removal *removal = b->removal;

        assert(removal);
        b->removal = NULL;
        *removal = (struct removal){.task = {.run = tell_removed}, .machine = v->machine};
        memcpy(removal->id, v->id, sizeof(removal->id));
        list_append(&v->machine->disks_removed, &removal->link);
        loop_post_remote(v->machine->loop, &removal->task);
}

int vhost_blk_remove(struct machine *machine, const char *id, struct error *err)
{
        struct vhost_blk *b = find(machine, id, err);

        if (!b)
                return -ENOENT;
        virtio_detach(&b->v, removed);
        return 0;
}

void vhost_blk_end(struct machine *machine)
{
        if (!machine->disks.next)
                return;
        assert(list_empty(&machine->disks));
        list_for_each_safe (it, &machine->disks_removed) {
                list_remove(it);
                container_of(it, struct removal, link)->machine = NULL;
        }
}
