/* save.c - front ends that go to another server without noticing: what each has said so far, told
 * again as the messages that would say it, with their descriptors.
 *
 * A queue is saved when nothing of it is in flight, so that its base and the rings say all; what the
 * messages cannot say (which queues ran, what was offered, counters) is one record before them. The
 * next server takes the messages by the handlers that took them first, with all their checks: bytes
 * from another process are not believed any more than a front end's. Rule 14 of README.md. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/closer.h"
#include "vmm-glue/vhost-user/internal.h"

/* Records beside the messages; no message has such a number. */
#define SAVED_FACTS 0x10000u
#define SAVED_REST  0x10001u /* the beginning of a message whose rest has not come */
#define BIT(n)      (UINT64_C(1) << (n))

/* Of VHOST_SAVED_VERSION, as all of this is. */
struct facts {
        uint64_t offered;
        uint64_t reads, writes, flushes, read_bytes, write_bytes;
        uint32_t started, broken; /* queues, by their bits */
        uint8_t writeback, status;
        uint8_t config_changed; /* which it may not have been told */
        uint8_t padding[5];
};

struct record {
        uint32_t n_fds;
        struct vhost_header header; /* the payload follows */
};

static_assert(VHOST_QUEUES_MAX <= 32, "a bit each");

void vhost_saved_free(struct vhost_saved *saved)
{
        for (size_t i = 0; i < saved->n_fds; i++)
                if (saved->fds[i] >= 0)
                        close_elsewhere(NULL, saved->fds[i]);
        free(saved->fds);
        free(saved->bytes);
        *saved = (struct vhost_saved){0};
}

/* ---- saving ---- */

static int add_fd(struct vhost_saved *s, int fd)
{
        int *fds = reallocarray(s->fds, s->n_fds + 1, sizeof(*fds));
        int own;

        if (!fds)
                return -ENOMEM;
        s->fds = fds;
        own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (own < 0)
                return -errno;
        s->fds[s->n_fds++] = own;
        return 0;
}

static int add(struct vhost_saved *s, uint32_t request, const void *payload, size_t size,
               const int *fds, unsigned n_fds)
{
        const struct record record = {
            n_fds, {.request = request, .flags = VHOST_VERSION, .size = (uint32_t)size}};
        uint8_t *bytes = realloc(s->bytes, s->n_bytes + sizeof(record) + size);
        int r = 0;

        if (!bytes)
                return -ENOMEM;
        s->bytes = bytes;
        memcpy(bytes + s->n_bytes, &record, sizeof(record));
        if (size > 0)
                memcpy(bytes + s->n_bytes + sizeof(record), payload, size);
        s->n_bytes += sizeof(record) + size;
        for (unsigned i = 0; r == 0 && i < n_fds; i++)
                r = add_fd(s, fds[i]);
        return r;
}

static int add_u64(struct vhost_saved *s, uint32_t request, uint64_t value)
{
        return add(s, request, &value, sizeof(value), NULL, 0);
}

static int add_state(struct vhost_saved *s, uint32_t request, unsigned index, unsigned number)
{
        const struct vhost_vring_state state = {.index = index, .num = number};

        return add(s, request, &state, sizeof(state), NULL, 0);
}

static int add_event(struct vhost_saved *s, uint32_t request, unsigned index, int fd)
{
        const uint64_t payload = index;

        return fd < 0 ? 0 : add(s, request, &payload, sizeof(payload), &fd, 1);
}

/* A table takes fewer regions than slots do; but only who has agreed on slots has so many. */
static int add_memory(struct vhost_saved *s, const struct memory *memory)
{
        struct vhost_mem_table table = {.n_regions = memory->n};
        int fds[VHOST_TABLE_REGIONS_MAX];
        int r = 0;

        if (memory->n == 0)
                return 0;
        if (memory->n <= VHOST_TABLE_REGIONS_MAX) {
                for (unsigned i = 0; i < memory->n; i++) {
                        table.region[i] = memory->regions[i]->at;
                        fds[i] = memory->regions[i]->mapping.fd;
                }
                return add(s, VHOST_USER_SET_MEM_TABLE, &table,
                           8 + memory->n * sizeof(table.region[0]), fds, memory->n);
        }
        for (unsigned i = 0; r == 0 && i < memory->n; i++) {
                const struct vhost_mem_reg reg = {.region = memory->regions[i]->at};

                r = add(s, VHOST_USER_ADD_MEM_REG, &reg, sizeof(reg),
                        &memory->regions[i]->mapping.fd, 1);
        }
        return r;
}

static int add_regions(struct vhost_saved *s, const struct vhost_client *client)
{
        const struct vhost_log_area area = {client->log_bytes, client->log_offset};
        int r = add_memory(s, client->memory);

        if (r == 0 && client->log.base)
                r = add(s, VHOST_USER_SET_LOG_BASE, &area, sizeof(area), &client->log.fd, 1);
        if (r == 0 && client->inflight.base)
                r = add(s, VHOST_USER_SET_INFLIGHT_FD, &client->inflight_is, VHOST_INFLIGHT_BYTES,
                        &client->inflight.fd, 1);
        if (r == 0 && client->backend_fd >= 0)
                r = add(s, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &client->backend_fd, 1);
        return r;
}

static int add_queue(struct vhost_saved *s, const struct queue *queue, int kick_fd)
{
        unsigned i = queue->index;
        int r = add_state(s, VHOST_USER_SET_VRING_ENABLE, i, queue->enabled);

        if (r == 0 && queue->size)
                r = add_state(s, VHOST_USER_SET_VRING_NUM, i, queue->size);
        if (r == 0 && queue->has_base)
                r = add_state(s, VHOST_USER_SET_VRING_BASE, i, queue->base);
        if (r == 0 && queue->has_addr)
                r = add(s, VHOST_USER_SET_VRING_ADDR, &queue->addr, sizeof(queue->addr), NULL, 0);
        if (r == 0)
                r = add_event(s, VHOST_USER_SET_VRING_CALL, i, queue->call.fd);
        if (r == 0)
                r = add_event(s, VHOST_USER_SET_VRING_ERR, i, queue->error.fd);
        return r < 0 ? r : add_event(s, VHOST_USER_SET_VRING_KICK, i, kick_fd);
}

static int add_all(struct vhost_saved *s, const struct vhost_client *client,
                   const struct facts *facts, const int *kick_fds)
{
        const struct message *m = &client->message;
        int r = add_fd(s, client->fd);

        if (r == 0)
                r = add(s, SAVED_FACTS, facts, sizeof(*facts), NULL, 0);
        if (r == 0)
                r = add_u64(s, VHOST_USER_SET_PROTOCOL_FEATURES, client->protocol_features);
        if (r == 0)
                r = add_u64(s, VHOST_USER_SET_FEATURES, client->features);
        if (r == 0)
                r = add_regions(s, client);
        for (unsigned i = 0; r == 0 && i < client->device->n_queues; i++)
                r = add_queue(s, &client->queues[i], kick_fds[i]);
        if (r == 0 && m->n_bytes > 0) {
                uint8_t bytes[sizeof(m->header) + sizeof(m->payload)];

                memcpy(bytes, &m->header, sizeof(m->header));
                memcpy(bytes + sizeof(m->header), &m->payload, sizeof(m->payload));
                r = add(s, SAVED_REST, bytes, m->n_bytes, m->fds, m->n_fds);
        }
        return r;
}

/* Its answers cannot be given until its memory is back, which nobody would hear of. */
static bool is_stuck(const struct queue *queue)
{
        return queue->ops && queue->ring_lost && queue->n_in_flight > 0;
}

/* What a queue is, before it is stopped: its kick descriptor goes with that. */
static int keep_kick(const struct queue *queue, struct facts *facts, int *ret_fd)
{
        if (queue->started || queue->ops)
                facts->started |= 1u << queue->index;
        if (queue->broken)
                facts->broken |= 1u << queue->index;
        if (queue->kick_fd < 0)
                return 0;
        *ret_fd = fcntl(queue->kick_fd, F_DUPFD_CLOEXEC, 0);
        return *ret_fd < 0 ? -errno : 0;
}

static int co_stop_queues(struct vhost_client *client, struct facts *facts, int *kick_fds)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < client->device->n_queues; i++) {
                if (is_stuck(&client->queues[i]))
                        return -EBUSY;
                r = keep_kick(&client->queues[i], facts, &kick_fds[i]);
        }
        client->leaves = client->inflight.base != NULL; /* what waits for space is the next one's */
        for (unsigned i = 0; r == 0 && i < client->device->n_queues; i++)
                co_queue_stop(&client->queues[i]);
        return r;
}

void co_client_save(struct vhost_client *client)
{
        struct facts facts = {.offered = client->offered, .config_changed = client->backend_busy};
        struct vhost_device *device = client->device;
        struct vhost_saved saved = {0};
        int kick_fds[VHOST_QUEUES_MAX];
        char why[128];
        int r;

        for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++)
                kick_fds[i] = -1;
        r = co_stop_queues(client, &facts, kick_fds);
        facts.reads = client->reads;
        facts.writes = client->writes;
        facts.flushes = client->flushes;
        facts.read_bytes = client->read_bytes;
        facts.write_bytes = client->write_bytes;
        facts.writeback = client->writeback;
        facts.status = client->status;
        if (r == 0)
                r = add_all(&saved, client, &facts, kick_fds);
        for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++)
                if (kick_fds[i] >= 0)
                        close(kick_fds[i]);
        if (r == 0 && !client->dead) {
                device->saved(&saved, device->saved_arg);
                return;
        }
        vhost_saved_free(&saved);
        snprintf(why, sizeof(why), "it cannot be passed on: %s",
                 r == -EBUSY ? "the memory of its rings is away" : strerror(-r));
        vhost_client_cut(client, why);
}

/* ---- devices that are saved ---- */

void vhost_device_save(struct vhost_device *device,
                       void (*saved)(struct vhost_saved *saved, void *arg), void *arg)
{
        struct loop *loop = device->server->loop;

        assert(!device->held);
        device->stopping = device->saving = true;
        device->saved = saved;
        device->saved_arg = arg;
        loop_timer_cancel(loop, &device->retry);
        if (device->accepting)
                loop_cancel(loop, &device->accept_io);
        list_for_each (it, &device->clients) {
                struct vhost_client *client = container_of(it, struct vhost_client, link);

                if (client->waiting)
                        loop_cancel(loop, client->waiting);
        }
}

int co_vhost_device_save_end(struct vhost_device *device)
{
        int fd = device->fd;

        while (device->accepting || !list_empty(&device->clients))
                co_wait(&device->gone);
        while (device->n_disconnecting > 0)
                co_yield_loop();
        assert(device->bytes_in_flight == 0);
        closer_free(device->closer);
        list_remove(&device->link);
        free(device);
        return fd;
}

/* ---- restoring ---- */

struct reader {
        struct vhost_saved *saved;
        size_t at, at_fd;
};

/* The next record: 1; 0 at the end; -EBADMSG. Its descriptors are the message's then. */
static int next_message(struct reader *reader, struct message *m)
{
        struct vhost_saved *s = reader->saved;
        struct record record;

        *m = (struct message){0};
        if (reader->at == s->n_bytes)
                return 0;
        if (s->n_bytes - reader->at < sizeof(record))
                return -EBADMSG;
        memcpy(&record, s->bytes + reader->at, sizeof(record));
        reader->at += sizeof(record);
        if (record.header.size > s->n_bytes - reader->at || record.n_fds > MESSAGE_FDS_MAX ||
            record.n_fds > s->n_fds - reader->at_fd)
                return -EBADMSG;
        m->header = record.header;
        if (record.header.request == SAVED_REST) {
                if (record.header.size == 0 ||
                    record.header.size > sizeof(m->header) + sizeof(m->payload))
                        return -EBADMSG;
                m->n_bytes = record.header.size;
        } else if (record.header.size > sizeof(m->payload)) {
                return -EBADMSG;
        } else {
                memcpy(&m->payload, s->bytes + reader->at, record.header.size);
        }
        for (; m->n_fds < record.n_fds; reader->at_fd++) {
                m->fds[m->n_fds++] = s->fds[reader->at_fd];
                s->fds[reader->at_fd] = -1;
        }
        reader->at += record.header.size;
        return 1;
}

/* Half a message: the front end goes on where it stopped. */
static void keep_rest(struct vhost_client *client, const struct reader *reader,
                      const struct message *m)
{
        const uint8_t *bytes = reader->saved->bytes + reader->at - m->n_bytes;
        size_t head = m->n_bytes < sizeof(m->header) ? m->n_bytes : sizeof(m->header);

        client->message = *m;
        client->message.header = (struct vhost_header){0};
        memcpy(&client->message.header, bytes, head);
        memcpy(&client->message.payload, bytes + head, m->n_bytes - head);
}

/* What it was told that it may use stays so, though the volume were set otherwise by now. */
static int take_facts(struct vhost_client *client, const struct facts *facts, struct error *err)
{
        uint64_t known =
            config_features(client) | BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);

        if (facts->offered & ~known)
                return error_set(err, -EOPNOTSUPP,
                                 "it was offered features that are not known here: 0x%llx",
                                 (unsigned long long)(facts->offered & ~known));
        client->offered = facts->offered;
        client->reads = facts->reads;
        client->writes = facts->writes;
        client->flushes = facts->flushes;
        client->read_bytes = facts->read_bytes;
        client->write_bytes = facts->write_bytes;
        client->writeback = facts->writeback;
        client->status = facts->status;
        client->backend_again = facts->config_changed;
        return 0;
}

static int co_take_messages(struct vhost_client *client, struct reader *reader, struct error *err)
{
        struct message m;
        int r;

        while ((r = next_message(reader, &m)) > 0) {
                if (m.header.request == SAVED_REST && client->message.n_bytes == 0) {
                        keep_rest(client, reader, &m);
                        continue;
                }
                r = co_message_apply(client, &m, err);
                if (r < 0)
                        return r;
        }
        return r < 0 ? error_set(err, r, "what was passed on of it makes no sense") : 0;
}

static int co_take_records(struct vhost_client *client, struct reader *reader, struct error *err)
{
        struct facts facts = {0};
        struct message m;
        int r = next_message(reader, &m);

        if (r <= 0 || m.header.request != SAVED_FACTS || m.header.size != sizeof(facts) ||
            m.n_fds) {
                message_close_fds(client, &m);
                return error_set(err, -EBADMSG, "what was passed on of it makes no sense");
        }
        memcpy(&facts, &m.payload, sizeof(facts));
        r = take_facts(client, &facts, err);
        if (r == 0)
                r = co_take_messages(client, reader, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < client->device->n_queues; i++) {
                client->queues[i].started = facts.started >> i & 1;
                client->queues[i].broken = facts.broken >> i & 1;
        }
        return 0;
}

int co_vhost_device_restore(struct vhost_device *device, struct vhost_saved *saved,
                            struct error *err)
{
        struct reader reader = {.saved = saved, .at_fd = 1};
        struct vhost_client *client;
        int r;

        assert(device->held);
        if (saved->n_fds == 0 || saved->fds[0] < 0) {
                vhost_saved_free(saved);
                return error_set(err, -EBADMSG, "a front end was passed on without its connection");
        }
        client = vhost_client_add(device, saved->fds[0]);
        if (!client) {
                vhost_saved_free(saved);
                return error_set(err, -ENOMEM, "no memory for a front end");
        }
        saved->fds[0] = -1;
        r = co_vhost_client_open(client, err);
        if (r == 0)
                r = co_take_records(client, &reader, err);
        if (r == 0 && vhost_client_serve(client) < 0)
                r = error_set(err, -ENOMEM, "no memory for a front end");
        vhost_saved_free(saved);
        if (r < 0) {
                vhost_client_cut(client, NULL);
                co_vhost_client_end(client);
        }
        return r;
}

void vhost_device_go(struct vhost_device *device)
{
        assert(device->held);
        device->held = false;
        list_for_each (it, &device->clients) {
                struct vhost_client *client = container_of(it, struct vhost_client, link);
                bool tell = client->backend_again;

                for (unsigned i = 0; i < device->n_queues; i++)
                        queue_go(&client->queues[i]);
                client->backend_again = false;
                if (tell)
                        config_changed(client);
        }
        co_wake_all(&device->released);
        device_accept(device);
}
