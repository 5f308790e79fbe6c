/* message.c - the front end's messages: what each may hold, and what it does. Source:
 * vhost-user.rst, section "Front-end message types".
 *
 * The table at the end says of each message which size it has and how many descriptors come with
 * it; what is different never reaches the handler. A handler that keeps a descriptor puts -1 in its
 * place; what is left is closed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/closer.h"
#include "common/log.h"
#include "common/passed_fds.h"
#include "vmm-glue/vhost-user/internal.h"

#define BIT(n) (UINT64_C(1) << (n))

#define PROTOCOL_FEATURES                                                                          \
        (BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |                    \
         BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |           \
         BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |           \
         BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |                                                 \
         BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | BIT(VHOST_USER_PROTOCOL_F_STATUS))

#define PACKED_FRESH 0x8000u /* base of a packed ring: place 0, wrap counter 1 */

/* A reply beyond the u64 that most have. */
struct reply {
        uint32_t size; /* 0: none was made */
        int fd;        /* to be sent and closed; -1: none */
        union vhost_payload payload;
};

static int take_fd(struct message *m)
{
        int fd = m->fds[0];

        m->fds[0] = -1;
        return fd;
}

static void reply_u64(struct reply *reply, uint64_t value)
{
        reply->size = sizeof(uint64_t);
        reply->payload.u64 = value;
}

static bool any_running(const struct vhost_client *client)
{
        for (unsigned i = 0; i < client->device->n_queues; i++)
                if (client->queues[i].ops)
                        return true;
        return false;
}

static struct queue *find_queue(struct vhost_client *client, uint64_t index, struct error *err)
{
        if (index < client->device->n_queues)
                return &client->queues[index];
        error_set(err, -EINVAL, "it speaks of queue %llu, and there are %u",
                  (unsigned long long)index, client->device->n_queues);
        return NULL;
}

/* ---- features and status ---- */

static int get_features(struct vhost_client *client, struct message *m, struct reply *reply,
                        struct error *err)
{
        reply_u64(reply, client->offered);
        return 0;
}

static int set_features(struct vhost_client *client, struct message *m, struct reply *reply,
                        struct error *err)
{
        uint64_t features = m->payload.u64;

        if (features & ~client->offered)
                return error_set(err, -EINVAL, "it accepts features that were not offered: 0x%llx",
                                 (unsigned long long)(features & ~client->offered));
        /* What requests are checked by must not change under them; migration begins meanwhile. */
        if (((features ^ client->features) & ~BIT(VHOST_F_LOG_ALL)) && any_running(client))
                return error_set(err, -EBUSY, "it changes features while queues run");
        client->features = features;
        for (unsigned i = 0; i < client->device->n_queues; i++) {
                /* Without the protocol's features rings are enabled when they start. */
                if (!(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
                        client->queues[i].enabled = true;
                queue_update(&client->queues[i]);
        }
        return 0;
}

static int get_protocol_features(struct vhost_client *client, struct message *m,
                                 struct reply *reply, struct error *err)
{
        reply_u64(reply, PROTOCOL_FEATURES);
        return 0;
}

static int set_protocol_features(struct vhost_client *client, struct message *m,
                                 struct reply *reply, struct error *err)
{
        if (m->payload.u64 & ~PROTOCOL_FEATURES)
                return error_set(err, -EINVAL,
                                 "it accepts protocol features that were not offered: 0x%llx",
                                 (unsigned long long)(m->payload.u64 & ~PROTOCOL_FEATURES));
        client->protocol_features = m->payload.u64;
        return 0;
}

static int get_queue_num(struct vhost_client *client, struct message *m, struct reply *reply,
                         struct error *err)
{
        reply_u64(reply, client->device->n_queues);
        return 0;
}

static int nothing(struct vhost_client *client, struct message *m, struct reply *reply,
                   struct error *err)
{
        return 0;
}

static void co_stop_all(struct vhost_client *client)
{
        for (unsigned i = 0; i < client->device->n_queues; i++)
                co_queue_stop(&client->queues[i]);
}

/* Rings are as they were when the front end connected; its memory stays. */
static int co_reset(struct vhost_client *client, struct message *m, struct reply *reply,
                    struct error *err)
{
        co_stop_all(client);
        for (unsigned i = 0; i < client->device->n_queues; i++) {
                struct queue *queue = &client->queues[i];

                queue->enabled = queue->has_addr = queue->has_base = false;
                queue->size = queue->base = 0;
                inflight_forget(queue);
        }
        client->features = 0;
        client->status = 0;
        client->writeback = true;
        return 0;
}

static int co_set_status(struct vhost_client *client, struct message *m, struct reply *reply,
                         struct error *err)
{
        if (m->payload.u64 > UINT8_MAX)
                return error_set(err, -EINVAL, "it sets a status of more than a byte");
        if (m->payload.u64 == 0)
                co_stop_all(client);
        client->status = (uint8_t)m->payload.u64;
        return 0;
}

static int get_status(struct vhost_client *client, struct message *m, struct reply *reply,
                      struct error *err)
{
        reply_u64(reply, client->status);
        return 0;
}

/* ---- memory ---- */

/* The rings' places change together with the table: nothing of the old one is used after this. */
static void use_memory(struct vhost_client *client, struct memory *memory)
{
        memory_unref(client->memory);
        client->memory = memory;
        for (unsigned i = 0; i < client->device->n_queues; i++) {
                queue_translate(&client->queues[i]);
                queue_update(&client->queues[i]);
        }
}

/* What was mapped has a descriptor of its own: these are not the last. */
static void close_mapped(struct message *m)
{
        for (unsigned i = 0; i < m->n_fds; i++) {
                close(m->fds[i]);
                m->fds[i] = -1;
        }
}

/* Before anything else is asked of a descriptor of memory. */
static int co_expect_memory(struct vhost_client *client, int fd, struct error *err)
{
        struct stat st;
        int r = co_look(client, fd, err);

        /* Where the device is held, a server before has seen to that. */
        if (r == 0 && !client->device->held && fstat(fd, &st) == 0)
                co_vhost_client_await_predecessors(client, st.st_dev, st.st_ino);
        return r;
}

static int co_set_mem_table(struct vhost_client *client, struct message *m, struct reply *reply,
                            struct error *err)
{
        const struct vhost_mem_table *table = &m->payload.table;
        struct memory *memory;
        int r = 0;

        if (m->header.size < 8 || table->n_regions > VHOST_TABLE_REGIONS_MAX ||
            m->header.size < 8 + table->n_regions * sizeof(table->region[0]))
                return error_set(err, -EINVAL, "it sends a memory table of %u regions in %u bytes",
                                 table->n_regions, m->header.size);
        if (m->n_fds != table->n_regions)
                return error_set(err, -EINVAL, "it sends %u descriptors for %u memory regions",
                                 m->n_fds, table->n_regions);
        for (unsigned i = 0; r == 0 && i < m->n_fds; i++)
                r = co_expect_memory(client, m->fds[i], err);
        if (r < 0)
                return r;
        memory = memory_none();
        if (!memory)
                return error_set(err, -ENOMEM, "no memory for a table of memory regions");
        for (unsigned i = 0; r == 0 && i < table->n_regions; i++) {
                struct memory *more;

                r = memory_with(client, memory, &table->region[i], m->fds[i], &more, err);
                if (r == 0) {
                        memory_unref(memory);
                        memory = more;
                }
        }
        if (r < 0) {
                memory_unref(memory);
                return r;
        }
        close_mapped(m);
        use_memory(client, memory);
        return 0;
}

static int co_add_mem_reg(struct vhost_client *client, struct message *m, struct reply *reply,
                          struct error *err)
{
        struct memory *memory;
        int r = co_expect_memory(client, m->fds[0], err);

        if (r == 0)
                r = memory_with(client, client->memory, &m->payload.reg.region, m->fds[0], &memory,
                                err);
        if (r < 0)
                return r;
        close_mapped(m);
        use_memory(client, memory);
        return 0;
}

static int rem_mem_reg(struct vhost_client *client, struct message *m, struct reply *reply,
                       struct error *err)
{
        struct memory *memory;
        int r = memory_without(client->memory, &m->payload.reg.region, &memory, err);

        if (r == 0)
                use_memory(client, memory);
        return r;
}

static int get_max_mem_slots(struct vhost_client *client, struct message *m, struct reply *reply,
                             struct error *err)
{
        reply_u64(reply, MEMORY_SLOTS_MAX);
        return 0;
}

/* ---- migration ---- */

static int co_set_log_base(struct vhost_client *client, struct message *m, struct reply *reply,
                           struct error *err)
{
        const struct vhost_log_area *area = &m->payload.log;
        struct mapping log = {0};
        int r = co_expect_memory(client, m->fds[0], err);

        if (r == 0)
                r = mapping_open(client, &log, m->fds[0], area->offset, area->size, err);
        if (r < 0)
                return r;
        close_mapped(m);
        mapping_close(&client->log);
        client->log = log;
        client->log_bytes = area->size;
        client->log_offset = area->offset;
        reply_u64(reply, 0);
        return 0;
}

/* ---- queues ---- */

static int set_vring_num(struct vhost_client *client, struct message *m, struct reply *reply,
                         struct error *err)
{
        struct queue *queue = find_queue(client, m->payload.state.index, err);

        if (!queue)
                return -EINVAL;
        if (queue->ops)
                return error_set(err, -EBUSY, "it changes the size of a queue that runs");
        if (m->payload.state.num == 0 || m->payload.state.num > QUEUE_SIZE_MAX)
                return error_set(err, -EINVAL, "it wants a queue of %u, and the most is %u",
                                 m->payload.state.num, QUEUE_SIZE_MAX);
        queue->size = m->payload.state.num;
        queue_update(queue);
        return 0;
}

static int set_vring_addr(struct vhost_client *client, struct message *m, struct reply *reply,
                          struct error *err)
{
        struct queue *queue = find_queue(client, m->payload.addr.index, err);

        if (!queue)
                return -EINVAL;
        queue->addr = m->payload.addr;
        queue->has_addr = true;
        queue_translate(queue);
        queue_update(queue);
        return 0;
}

static int set_vring_base(struct vhost_client *client, struct message *m, struct reply *reply,
                          struct error *err)
{
        struct queue *queue = find_queue(client, m->payload.state.index, err);

        if (!queue)
                return -EINVAL;
        if (queue->ops)
                return error_set(err, -EBUSY, "it changes the base of a queue that runs");
        queue->base = m->payload.state.num;
        queue->has_base = true;
        return 0;
}

static int co_get_vring_base(struct vhost_client *client, struct message *m, struct reply *reply,
                             struct error *err)
{
        struct queue *queue = find_queue(client, m->payload.state.index, err);

        if (!queue)
                return -EINVAL;
        co_queue_stop(queue);
        reply->size = sizeof(reply->payload.state);
        reply->payload.state =
            (struct vhost_vring_state){.index = queue->index, .num = queue->base};
        return 0;
}

static int set_vring_enable(struct vhost_client *client, struct message *m, struct reply *reply,
                            struct error *err)
{
        struct queue *queue = find_queue(client, m->payload.state.index, err);

        if (!queue)
                return -EINVAL;
        if (m->payload.state.num > 1)
                return error_set(err, -EINVAL, "it enables a queue by %u", m->payload.state.num);
        queue->enabled = m->payload.state.num;
        queue_update(queue);
        return 0;
}

/* Writing to or reading from anything else might wait. */
static bool is_eventfd(int fd)
{
        char path[32], target[64];
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        if (n < 0)
                return false;
        target[n] = '\0';
        return strcmp(target, "anon_inode:[eventfd]") == 0;
}

/* The queue of a KICK, CALL or ERR, and the descriptor, -1 where there is none. NULL: refused. */
static struct queue *find_event(struct vhost_client *client, struct message *m, int *ret_fd,
                                struct error *err)
{
        bool no_fd = m->payload.u64 & VHOST_VRING_NO_FD;
        struct queue *queue = find_queue(client, m->payload.u64 & VHOST_VRING_INDEX_MASK, err);

        if (!queue)
                return NULL;
        if (m->payload.u64 & ~(uint64_t)(VHOST_VRING_INDEX_MASK | VHOST_VRING_NO_FD))
                error_set(err, -EINVAL, "it sets an event with unknown flags");
        else if (no_fd != (m->n_fds == 0))
                error_set(err, -EINVAL, "it sets an event and sends %u descriptors", m->n_fds);
        else if (!no_fd && !is_eventfd(m->fds[0]))
                error_set(err, -EINVAL, "it sets an event that is not an eventfd");
        else {
                *ret_fd = no_fd ? -1 : take_fd(m);
                return queue;
        }
        return NULL;
}

/* By the base that it goes on from. */
static bool has_run(const struct queue *queue)
{
        uint32_t fresh = client_has(queue->client, VIRTIO_F_RING_PACKED) ? PACKED_FRESH : 0;

        return queue->has_base && (queue->base & 0xffffu) != fresh;
}

/* A ring starts with its first kick. One that ran before, under another server or before it was
 * stopped, goes on at once: its kick may have been taken by who was there then. */
static int co_set_vring_kick(struct vhost_client *client, struct message *m, struct reply *reply,
                             struct error *err)
{
        struct queue *queue;
        int fd = -1;

        if (m->payload.u64 & VHOST_VRING_NO_FD)
                return error_set(err, -EOPNOTSUPP,
                                 "it wants a ring to be polled without kicks, which is not done: "
                                 "idle rings cost nothing");
        queue = find_event(client, m, &fd, err);
        if (!queue)
                return -EINVAL;
        co_queue_set_kick(queue, fd);
        queue->started = queue->ops || has_run(queue) || inflight_has_state(queue);
        queue_update(queue);
        return 0;
}

static uint64_t signal_patience(const struct vhost_client *client)
{
        return loop_now_ns(client->device->server->loop) + SIGNAL_WAIT_NS;
}

static int co_set_vring_call(struct vhost_client *client, struct message *m, struct reply *reply,
                             struct error *err)
{
        int fd = -1;
        struct queue *queue = find_event(client, m, &fd, err);

        if (!queue)
                return -EINVAL;
        co_queue_set_signal(queue, &queue->call, fd, signal_patience(client));
        /* What was signalled to the one before may not have been seen. */
        if (queue->ops)
                queue_signal(&queue->call);
        return 0;
}

static int co_set_vring_err(struct vhost_client *client, struct message *m, struct reply *reply,
                            struct error *err)
{
        int fd = -1;
        struct queue *queue = find_event(client, m, &fd, err);

        if (!queue)
                return -EINVAL;
        co_queue_set_signal(queue, &queue->error, fd, signal_patience(client));
        if (queue->broken)
                queue_signal(&queue->error);
        return 0;
}

/* ---- configuration space ---- */

static bool config_is_whole(const struct message *m)
{
        const struct vhost_config *c = &m->payload.config;

        return m->header.size >= VHOST_CONFIG_HEAD && c->size <= VHOST_CONFIG_MAX &&
               c->offset <= VHOST_CONFIG_MAX - c->size &&
               m->header.size == VHOST_CONFIG_HEAD + c->size;
}

/* An error is a reply of no bytes. */
static int get_config(struct vhost_client *client, struct message *m, struct reply *reply,
                      struct error *err)
{
        struct vhost_config *c = &reply->payload.config;

        *c = (struct vhost_config){.offset = m->payload.config.offset,
                                   .flags = m->payload.config.flags};
        if (config_is_whole(m)) {
                c->size = m->payload.config.size;
                config_read(client, c->offset, c->data, c->size);
        }
        reply->size = VHOST_CONFIG_HEAD + c->size;
        return 0;
}

static int set_config(struct vhost_client *client, struct message *m, struct reply *reply,
                      struct error *err)
{
        const struct vhost_config *c = &m->payload.config;

        if (!config_is_whole(m))
                return error_set(err, -EINVAL, "it writes to a configuration of %u bytes at %u",
                                 c->size, c->offset);
        return config_write(client, c->offset, c->data, c->size,
                            c->flags & VHOST_CONFIG_FLAG_MIGRATION, err);
}

/* -1: it is no socket. */
static int socket_option(int fd, int option)
{
        int value = 0;
        socklen_t length = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -1 : value;
}

static int co_set_backend_req_fd(struct vhost_client *client, struct message *m,
                                 struct reply *reply, struct error *err)
{
        int type = socket_option(m->fds[0], SO_TYPE);

        /* Others than Unix sockets may be locked by whoever else has them, for as long as he likes. */
        if (type != SOCK_STREAM || socket_option(m->fds[0], SO_DOMAIN) != AF_UNIX)
                return error_set(err, -EINVAL, "its channel for our messages is not a Unix socket");
        if (client->backend_busy)
                loop_cancel(client->device->server->loop, &client->backend_io);
        while (client->backend_busy)
                co_wait(&client->quiet);
        if (client->backend_fd >= 0)
                close_elsewhere(client->device->closer, client->backend_fd);
        client->backend_fd = take_fd(m);
        return 0;
}

/* ---- the in-flight region ---- */

static int get_inflight_fd(struct vhost_client *client, struct message *m, struct reply *reply,
                           struct error *err)
{
        const struct vhost_inflight *want = &m->payload.inflight;
        uint64_t size;
        int fd;

        if (want->n_queues == 0 || want->n_queues > client->device->n_queues ||
            want->queue_size == 0 || want->queue_size > QUEUE_SIZE_MAX)
                return error_set(err, -EINVAL, "it wants an in-flight region for %u queues of %u",
                                 want->n_queues, want->queue_size);
        size = inflight_queue_bytes(want->queue_size) * want->n_queues;
        fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
                int r = -errno;

                if (fd >= 0)
                        close(fd);
                return error_set(err, r, "cannot make an in-flight region: %s", strerror(-r));
        }
        /* Nobody shrinks it then. */
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        reply->fd = fd;
        reply->size = m->header.size;
        reply->payload.inflight = *want;
        reply->payload.inflight.mmap_size = size;
        reply->payload.inflight.mmap_offset = 0;
        return 0;
}

static int co_set_inflight_fd(struct vhost_client *client, struct message *m, struct reply *reply,
                              struct error *err)
{
        const struct vhost_inflight *is = &m->payload.inflight;
        struct mapping region = {0};
        int r;

        if (is->n_queues == 0 || is->n_queues > client->device->n_queues || is->queue_size == 0 ||
            is->queue_size > QUEUE_SIZE_MAX || is->mmap_offset % 8 ||
            is->mmap_size / is->n_queues < inflight_queue_bytes(is->queue_size))
                return error_set(err, -EINVAL,
                                 "it sets an in-flight region of %llu bytes for %u queues of %u",
                                 (unsigned long long)is->mmap_size, is->n_queues, is->queue_size);
        r = co_expect_memory(client, m->fds[0], err);
        /* Which may start while that waits. */
        if (r == 0 && any_running(client))
                r = error_set(err, -EBUSY, "it sets an in-flight region while queues run");
        if (r == 0)
                r = mapping_open(client, &region, m->fds[0], is->mmap_offset, is->mmap_size, err);
        if (r < 0)
                return r;
        close_mapped(m);
        mapping_close(&client->inflight);
        client->inflight = region;
        client->inflight_is = *is;
        return 0;
}

/* ---- which is which ---- */

typedef int handler(struct vhost_client *client, struct message *m, struct reply *reply,
                    struct error *err);

#define ANY_SIZE UINT32_MAX
#define STATE    ((uint32_t)sizeof(struct vhost_vring_state))
#define U64      ((uint32_t)sizeof(uint64_t))
#define ALWAYS   UINT_MAX

static const struct kind {
        handler *co_handle;
        uint32_t size;
        unsigned min_fds, max_fds;
        unsigned feature; /* of the protocol that must have been accepted; ALWAYS */
        bool replies;     /* with something of its own, that cannot say that it failed */
} kinds[] = {
    [VHOST_USER_GET_FEATURES] = {get_features, 0, 0, 0, ALWAYS},
    [VHOST_USER_SET_FEATURES] = {set_features, U64, 0, 0, ALWAYS},
    [VHOST_USER_SET_OWNER] = {nothing, 0, 0, 0, ALWAYS},
    [VHOST_USER_RESET_OWNER] = {nothing, 0, 0, 0, ALWAYS}, /* deprecated; may be ignored */
    [VHOST_USER_SET_MEM_TABLE] = {co_set_mem_table, ANY_SIZE, 0, VHOST_TABLE_REGIONS_MAX, ALWAYS},
    [VHOST_USER_SET_LOG_BASE] = {co_set_log_base, sizeof(struct vhost_log_area), 1, 1,
                                 VHOST_USER_PROTOCOL_F_LOG_SHMFD, true},
    [VHOST_USER_SET_LOG_FD] = {nothing, 0, 0, 1, ALWAYS}, /* who logs looks by himself */
    [VHOST_USER_SET_VRING_NUM] = {set_vring_num, STATE, 0, 0, ALWAYS},
    [VHOST_USER_SET_VRING_ADDR] = {set_vring_addr, sizeof(struct vhost_vring_addr), 0, 0, ALWAYS},
    [VHOST_USER_SET_VRING_BASE] = {set_vring_base, STATE, 0, 0, ALWAYS},
    [VHOST_USER_GET_VRING_BASE] = {co_get_vring_base, STATE, 0, 0, ALWAYS, true},
    [VHOST_USER_SET_VRING_KICK] = {co_set_vring_kick, U64, 0, 1, ALWAYS},
    [VHOST_USER_SET_VRING_CALL] = {co_set_vring_call, U64, 0, 1, ALWAYS},
    [VHOST_USER_SET_VRING_ERR] = {co_set_vring_err, U64, 0, 1, ALWAYS},
    [VHOST_USER_GET_PROTOCOL_FEATURES] = {get_protocol_features, 0, 0, 0, ALWAYS},
    [VHOST_USER_SET_PROTOCOL_FEATURES] = {set_protocol_features, U64, 0, 0, ALWAYS},
    [VHOST_USER_GET_QUEUE_NUM] = {get_queue_num, 0, 0, 0, ALWAYS},
    [VHOST_USER_SET_VRING_ENABLE] = {set_vring_enable, STATE, 0, 0, ALWAYS},
    [VHOST_USER_SET_BACKEND_REQ_FD] = {co_set_backend_req_fd, 0, 1, 1,
                                       VHOST_USER_PROTOCOL_F_BACKEND_REQ},
    [VHOST_USER_GET_CONFIG] = {get_config, ANY_SIZE, 0, 0, VHOST_USER_PROTOCOL_F_CONFIG},
    [VHOST_USER_SET_CONFIG] = {set_config, ANY_SIZE, 0, 0, VHOST_USER_PROTOCOL_F_CONFIG},
    [VHOST_USER_GET_INFLIGHT_FD] = {get_inflight_fd, VHOST_INFLIGHT_BYTES, 0, 0,
                                    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, true},
    [VHOST_USER_SET_INFLIGHT_FD] = {co_set_inflight_fd, VHOST_INFLIGHT_BYTES, 1, 1,
                                    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD},
    [VHOST_USER_RESET_DEVICE] = {co_reset, 0, 0, 0, VHOST_USER_PROTOCOL_F_RESET_DEVICE},
    [VHOST_USER_GET_MAX_MEM_SLOTS] = {get_max_mem_slots, 0, 0, 0,
                                      VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    [VHOST_USER_ADD_MEM_REG] = {co_add_mem_reg, sizeof(struct vhost_mem_reg), 1, 1,
                                VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    /* a descriptor is sent with it by old front ends, and closed */
    [VHOST_USER_REM_MEM_REG] = {rem_mem_reg, sizeof(struct vhost_mem_reg), 0, 1,
                                VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
    [VHOST_USER_SET_STATUS] = {co_set_status, U64, 0, 0, VHOST_USER_PROTOCOL_F_STATUS},
    [VHOST_USER_GET_STATUS] = {get_status, 0, 0, 0, VHOST_USER_PROTOCOL_F_STATUS},
};

static const struct kind *find_kind(uint32_t request)
{
        if (request >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[request].co_handle)
                return NULL;
        return &kinds[request];
}

/* The document's structure has no padding at its end, QEMU's message has. */
static bool has_size(const struct kind *kind, uint32_t size)
{
        return kind->size == ANY_SIZE || kind->size == size ||
               (kind->size == VHOST_INFLIGHT_BYTES && size == sizeof(struct vhost_inflight));
}

static int co_dispatch(struct vhost_client *client, struct message *m, struct reply *reply,
                       struct error *err)
{
        uint32_t request = m->header.request;
        const struct kind *kind = find_kind(request);

        if (!kind)
                return error_set(err, -EOPNOTSUPP, "it sends message %u, which is not known here",
                                 request);
        if (!has_size(kind, m->header.size))
                return error_set(err, -EPROTO, "it sends message %u of %u bytes, not %u", request,
                                 m->header.size, kind->size);
        if (m->n_fds < kind->min_fds || m->n_fds > kind->max_fds)
                return error_set(err, -EPROTO, "it sends message %u with %u descriptors", request,
                                 m->n_fds);
        if (kind->feature != ALWAYS && !(client->protocol_features & BIT(kind->feature)))
                return error_set(err, -EPROTO,
                                 "it sends message %u and has not accepted the feature for it",
                                 request);
        return kind->co_handle(client, m, reply, err);
}

/* ---- replies ---- */

/* Small, and the front end waits for it: where the socket has no room for it, nobody reads. */
static int send_reply(struct vhost_client *client, const struct message *m, struct reply *reply,
                      struct error *err)
{
        struct vhost_header header = {.request = m->header.request,
                                      .flags = VHOST_VERSION | VHOST_REPLY,
                                      .size = reply->size};
        uint8_t bytes[sizeof(header) + sizeof(reply->payload)];
        size_t n_bytes = sizeof(header) + reply->size;

        memcpy(bytes, &header, sizeof(header));
        memcpy(bytes + sizeof(header), &reply->payload, reply->size);
        if (passed_fds_send(client->fd, bytes, n_bytes, &reply->fd, reply->fd >= 0, MSG_DONTWAIT) ==
            (ssize_t)n_bytes)
                return 0;
        return error_set(err, -EPIPE, "it does not take replies");
}

void message_close_fds(struct vhost_client *client, struct message *m)
{
        for (unsigned i = 0; i < m->n_fds; i++)
                if (m->fds[i] >= 0)
                        close_elsewhere(client->device->closer, m->fds[i]);
        m->n_fds = 0;
}

int co_message_apply(struct vhost_client *client, struct message *m, struct error *err)
{
        struct reply reply = {.fd = -1};
        int r = co_dispatch(client, m, &reply, err);

        message_close_fds(client, m);
        if (reply.fd >= 0)
                close(reply.fd);
        return r;
}

int co_message_handle(struct vhost_client *client, struct message *m, struct error *err)
{
        const struct kind *kind = find_kind(m->header.request);
        bool ack = (m->header.flags & VHOST_NEED_REPLY) && !(kind && kind->replies) &&
                   (client->protocol_features & BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK));
        struct reply reply = {.fd = -1};
        struct error e = ERROR_INIT;
        int r = co_dispatch(client, m, &reply, &e);

        message_close_fds(client, m);
        if (r < 0 && ack && vhost_may_log(client->device->server))
                log_warning("vhost: %s: client %llu: %s", client->device->name,
                            (unsigned long long)client->id, e.message);
        if (r < 0 && !ack)
                return error_set(err, r, "%s", e.message);
        if (r < 0 || (ack && reply.size == 0))
                reply_u64(&reply, r < 0);
        r = reply.size > 0 ? send_reply(client, m, &reply, err) : 0;
        if (reply.fd >= 0)
                close(reply.fd);
        return r;
}
