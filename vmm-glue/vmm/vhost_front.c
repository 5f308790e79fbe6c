/* vhost_front.c - see vhost_front.h. */
#include "vmm-glue/vmm/vhost_front.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/closer.h"
#include "common/passed_fds.h"

#define BIT(n) (UINT64_C(1) << (n))

#define PROTOCOL_NEEDED                                                                            \
        (BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | BIT(VHOST_USER_PROTOCOL_F_CONFIG) |                \
         BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
#define PROTOCOL_KNOWN                                                                             \
        (PROTOCOL_NEEDED | BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |  \
         BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ))

#define QUEUES_MAX 1024u /* as many as a back end may say it has */
/* Messages on the channel that are taken at a time: others have their turn, too. */
#define CHANNEL_BATCH 16u

/* ---- time ---- */

static uint64_t clock_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void vhost_front_allow(struct vhost_front *front, unsigned patience_ms)
{
        front->deadline_ns = clock_ns() + patience_ms * UINT64_C(1000000);
}

static int await(const struct vhost_front *front, short events, struct error *err)
{
        for (;;) {
                struct pollfd p = {.fd = front->fd, .events = events};
                uint64_t now_ns = clock_ns();
                int left_ms = now_ns < front->deadline_ns
                                  ? (int)((front->deadline_ns - now_ns) / 1000000 + 1)
                                  : 0;
                int n = poll(&p, 1, left_ms);

                if (n > 0)
                        return 0;
                if (n == 0)
                        return error_set(err, -ETIMEDOUT, "the back end does not answer");
                if (errno != EINTR)
                        return error_set(err, -errno, "cannot wait for the back end: %s",
                                         strerror(errno));
        }
}

/* ---- bytes ---- */

static int send_bytes(const struct vhost_front *front, const uint8_t *data, size_t size,
                      const int *fds, size_t n_fds, struct error *err)
{
        while (size > 0) {
                ssize_t n = passed_fds_send(front->fd, data, size, fds, n_fds, MSG_DONTWAIT);
                int r = 0;

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        r = await(front, POLLOUT, err);
                else if (n < 0)
                        r = error_set(err, errno == EPIPE ? -ECONNRESET : -errno,
                                      "cannot send to the back end: %s", strerror(errno));
                if (r < 0)
                        return r;
                if (n <= 0)
                        continue;
                data += n;
                size -= (size_t)n;
                n_fds = 0; /* they go with the first byte */
        }
        return 0;
}

static int receive_bytes(const struct vhost_front *front, uint8_t *data, size_t size,
                         struct passed_fds *fds, struct error *err)
{
        while (size > 0) {
                ssize_t n = passed_fds_receive(front->fd, data, size, fds);
                int r = 0;

                if (n == 0 || n == -ECONNRESET)
                        return error_set(err, -ECONNRESET, "the back end has closed");
                if (n == -EAGAIN)
                        r = await(front, POLLIN, err);
                else if (n < 0)
                        r = error_set(err, (int)n, "cannot receive from the back end: %s",
                                      strerror((int)-n));
                if (r < 0)
                        return r;
                if (n > 0) {
                        data += n;
                        size -= (size_t)n;
                }
        }
        return 0;
}

/* ---- messages ---- */

struct answer {
        uint32_t size;
        union vhost_payload payload;
        int fd; /* -1: none came */
};

static int send_message(const struct vhost_front *front, uint32_t request, uint32_t flags,
                        const void *payload, uint32_t size, const int *fds, size_t n_fds,
                        struct error *err)
{
        struct vhost_header header = {request, VHOST_VERSION | flags, size};
        uint8_t bytes[sizeof(header) + sizeof(union vhost_payload)];

        memcpy(bytes, &header, sizeof(header));
        if (size > 0)
                memcpy(bytes + sizeof(header), payload, size);
        return send_bytes(front, bytes, sizeof(header) + size, fds, n_fds, err);
}

static int receive_answer(const struct vhost_front *front, uint32_t request, struct answer *answer,
                          struct error *err)
{
        struct passed_fds fds = {.fds = &answer->fd, .max = 1};
        struct vhost_header header = {0};
        int r = receive_bytes(front, (uint8_t *)&header, sizeof(header), &fds, err);

        if (r < 0)
                return r;
        if (header.request != request ||
            (header.flags & (VHOST_VERSION_MASK | VHOST_REPLY)) != (VHOST_VERSION | VHOST_REPLY) ||
            header.size > sizeof(answer->payload))
                return error_set(
                    err, -EPROTO,
                    "the back end answers message %u with message %u, flags 0x%x, of %u bytes",
                    request, header.request, header.flags, header.size);
        answer->size = header.size;
        return receive_bytes(front, (uint8_t *)&answer->payload, header.size, &fds, err);
}

/* Send a message, and take its answer. @answer->fd is the caller's afterwards. */
static int exchange(struct vhost_front *front, uint32_t request, uint32_t flags,
                    const void *payload, uint32_t size, const int *fds, size_t n_fds,
                    struct answer *answer, struct error *err)
{
        int r;

        *answer = (struct answer){.fd = -1};
        if (front->fd < 0 || front->failed)
                return error_set(err, -ECONNRESET, "the back end has gone");
        r = send_message(front, request, flags, payload, size, fds, n_fds, err);
        if (r == 0)
                r = receive_answer(front, request, answer, err);
        if (r < 0) {
                vhost_front_fail(front);
                if (answer->fd >= 0)
                        close_elsewhere(NULL, answer->fd);
                answer->fd = -1;
        }
        return r;
}

static int makes_no_sense(struct vhost_front *front, const char *what, uint64_t value,
                          struct error *err)
{
        vhost_front_fail(front);
        return error_set(err, -EPROTO, "the back end says what makes no sense: %s: %llu", what,
                         (unsigned long long)value);
}

/* An answer of @size bytes, without a descriptor. */
static int ask(struct vhost_front *front, uint32_t request, const void *payload, uint32_t size,
               uint32_t answer_size, struct answer *answer, struct error *err)
{
        int r = exchange(front, request, 0, payload, size, NULL, 0, answer, err);

        if (r < 0)
                return r;
        if (answer->fd >= 0)
                close_elsewhere(NULL, answer->fd);
        answer->fd = -1;
        if (answer->size != answer_size)
                return makes_no_sense(front, "bytes of an answer", answer->size, err);
        return 0;
}

static int ask_u64(struct vhost_front *front, uint32_t request, uint64_t *ret_value,
                   struct error *err)
{
        struct answer answer;
        int r = ask(front, request, NULL, 0, sizeof(uint64_t), &answer, err);

        if (r == 0)
                *ret_value = answer.payload.u64;
        return r;
}

/* What has no answer of its own, with one asked for. */
static int tell(struct vhost_front *front, uint32_t request, const void *payload, uint32_t size,
                const int *fds, size_t n_fds, struct error *err)
{
        struct answer answer;
        int r = exchange(front, request, VHOST_NEED_REPLY, payload, size, fds, n_fds, &answer, err);

        if (r < 0)
                return r;
        if (answer.fd >= 0)
                close_elsewhere(NULL, answer.fd);
        if (answer.size != sizeof(uint64_t))
                return makes_no_sense(front, "bytes of an answer", answer.size, err);
        if (answer.payload.u64 == 0)
                return 0;
        vhost_front_fail(front);
        return error_set(err, -EBADMSG, "the back end refuses message %u", request);
}

static int tell_u64(struct vhost_front *front, uint32_t request, uint64_t value, struct error *err)
{
        return tell(front, request, &value, sizeof(value), NULL, 0, err);
}

/* ---- the connection ---- */

static int socket_option(int fd, int option)
{
        int value = 0;
        socklen_t length = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -1 : value;
}

/* SET_PROTOCOL_FEATURES is what makes answers be had for the asking, and has none itself. */
static int agree(struct vhost_front *front, struct error *err)
{
        uint64_t offered = 0;
        int r = ask_u64(front, VHOST_USER_GET_FEATURES, &front->features, err);

        if (r < 0)
                return r;
        if (!(front->features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)) ||
            !(front->features & BIT(VIRTIO_F_VERSION_1)))
                return error_set(err, -EOPNOTSUPP,
                                 "the back end knows no protocol features, or no virtio 1.0");
        r = ask_u64(front, VHOST_USER_GET_PROTOCOL_FEATURES, &offered, err);
        if (r < 0)
                return r;
        if (PROTOCOL_NEEDED & ~offered)
                return error_set(err, -EOPNOTSUPP,
                                 "the back end lacks protocol features that are needed: 0x%llx",
                                 (unsigned long long)(PROTOCOL_NEEDED & ~offered));
        front->protocol = offered & PROTOCOL_KNOWN;
        r = send_message(front, VHOST_USER_SET_PROTOCOL_FEATURES, 0, &front->protocol,
                         sizeof(front->protocol), NULL, 0, err);
        if (r < 0)
                return r;
        return tell(front, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0, err);
}

static int learn_queues(struct vhost_front *front, struct error *err)
{
        uint64_t n = 1;
        int r = 0;

        if (front->protocol & BIT(VHOST_USER_PROTOCOL_F_MQ))
                r = ask_u64(front, VHOST_USER_GET_QUEUE_NUM, &n, err);
        if (r < 0)
                return r;
        if (n == 0 || n > QUEUES_MAX)
                return makes_no_sense(front, "queues", n, err);
        front->n_queues = (unsigned)n;
        return 0;
}

static int open_channel(struct vhost_front *front, struct error *err)
{
        int ends[2], r;

        if (!(front->protocol & BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ)))
                return 0;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return error_set(err, -errno, "cannot make a channel for the back end: %s",
                                 strerror(errno));
        front->channel = ends[0];
        r = tell(front, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &ends[1], 1, err);
        close(ends[1]);
        return r;
}

int vhost_front_open(struct vhost_front *front, int fd, unsigned patience_ms, struct error *err)
{
        int r = 0;

        *front = (struct vhost_front){.fd = fd, .channel = -1};
        if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM)
                r = error_set(err, -ENOTSOCK, "a disk's back end is not a Unix socket");
        vhost_front_allow(front, patience_ms);
        if (r == 0)
                r = agree(front, err);
        if (r == 0)
                r = learn_queues(front, err);
        if (r == 0)
                r = open_channel(front, err);
        if (r < 0)
                vhost_front_close(front);
        return r;
}

void vhost_front_close(struct vhost_front *front)
{
        /* In their queues may be descriptors of anything. */
        if (front->fd >= 0)
                close_elsewhere(NULL, front->fd);
        if (front->channel >= 0)
                close_elsewhere(NULL, front->channel);
        front->fd = front->channel = -1;
}

void vhost_front_fail(struct vhost_front *front)
{
        if (front->fd >= 0)
                shutdown(front->fd, SHUT_RDWR);
        front->failed = true;
}

bool vhost_front_is_up(const struct vhost_front *front)
{
        struct pollfd p = {.fd = front->fd, .events = POLLRDHUP};

        return front->fd >= 0 && !front->failed && poll(&p, 1, 0) == 0;
}

/* ---- features, configuration, memory ---- */

int vhost_front_set_features(struct vhost_front *front, uint64_t features, struct error *err)
{
        return tell_u64(front, VHOST_USER_SET_FEATURES,
                        features | BIT(VHOST_USER_F_PROTOCOL_FEATURES), err);
}

int vhost_front_get_config(struct vhost_front *front, void *data, uint32_t size, struct error *err)
{
        struct vhost_config config = {.size = size};
        struct answer answer;
        int r = ask(front, VHOST_USER_GET_CONFIG, &config, VHOST_CONFIG_HEAD + size,
                    VHOST_CONFIG_HEAD + size, &answer, err);

        if (r < 0)
                return r;
        if (answer.payload.config.size != size || answer.payload.config.offset != 0)
                return makes_no_sense(front, "bytes of its configuration",
                                      answer.payload.config.size, err);
        memcpy(data, answer.payload.config.data, size);
        return 0;
}

int vhost_front_set_config(struct vhost_front *front, uint32_t offset, const void *data,
                           uint32_t size, struct error *err)
{
        struct vhost_config config = {.offset = offset, .size = size};

        memcpy(config.data, data, size);
        return tell(front, VHOST_USER_SET_CONFIG, &config, VHOST_CONFIG_HEAD + size, NULL, 0, err);
}

int vhost_front_set_memory(struct vhost_front *front, const struct guest_memory *memory,
                           struct error *err)
{
        struct vhost_mem_table table = {0};
        int fds[VHOST_TABLE_REGIONS_MAX];
        uint32_t n = 0;

        static_assert(MEMORY_REGIONS_MAX <= VHOST_TABLE_REGIONS_MAX, "one message has them all");
        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];

                if (!region->shared)
                        continue;
                table.region[n] = (struct vhost_region){
                    .guest = region->gpa, .size = region->size, .user = (uintptr_t)region->host};
                fds[n++] = region->fd;
        }
        table.n_regions = n;
        return tell(front, VHOST_USER_SET_MEM_TABLE, &table,
                    (uint32_t)(8 + n * sizeof(table.region[0])), fds, n, err);
}

bool vhost_front_can_log(const struct vhost_front *front)
{
        return (front->features & BIT(VHOST_F_LOG_ALL)) &&
               (front->protocol & BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD));
}

/* With an answer of its own, whose content is not said to mean anything. */
int vhost_front_set_log(struct vhost_front *front, const struct memory_log *log, struct error *err)
{
        struct vhost_log_area area = {.size = log->size};
        struct answer answer;
        int r = exchange(front, VHOST_USER_SET_LOG_BASE, 0, &area, sizeof(area), &log->fd, 1,
                         &answer, err);

        if (r == 0 && answer.fd >= 0)
                close_elsewhere(NULL, answer.fd);
        return r;
}

/* ---- in-flight regions ---- */

int vhost_front_get_inflight(struct vhost_front *front, unsigned n_queues, unsigned queue_size,
                             struct vhost_inflight *ret_inflight, int *ret_fd, struct error *err)
{
        struct vhost_inflight want = {.n_queues = (uint16_t)n_queues,
                                      .queue_size = (uint16_t)queue_size};
        struct answer answer;
        const struct vhost_inflight *got = &answer.payload.inflight;
        int r = exchange(front, VHOST_USER_GET_INFLIGHT_FD, 0, &want, VHOST_INFLIGHT_BYTES, NULL, 0,
                         &answer, err);

        if (r < 0)
                return r;
        if (answer.size < VHOST_INFLIGHT_BYTES || answer.size > sizeof(*got) || answer.fd < 0 ||
            got->mmap_size == 0 || got->mmap_size > UINT64_MAX - got->mmap_offset) {
                if (answer.fd >= 0)
                        close_elsewhere(NULL, answer.fd);
                return makes_no_sense(front, "bytes of an in-flight region",
                                      answer.size < VHOST_INFLIGHT_BYTES ? 0 : got->mmap_size, err);
        }
        *ret_inflight = *got;
        ret_inflight->n_queues = want.n_queues;
        ret_inflight->queue_size = want.queue_size;
        *ret_fd = answer.fd;
        return 0;
}

int vhost_front_set_inflight(struct vhost_front *front, const struct vhost_inflight *inflight,
                             int fd, struct error *err)
{
        return tell(front, VHOST_USER_SET_INFLIGHT_FD, inflight, VHOST_INFLIGHT_BYTES, &fd, 1, err);
}

/* ---- rings ---- */

static int tell_state(struct vhost_front *front, uint32_t request, unsigned index, uint32_t num,
                      struct error *err)
{
        struct vhost_vring_state state = {index, num};

        return tell(front, request, &state, sizeof(state), NULL, 0, err);
}

static int tell_event(struct vhost_front *front, uint32_t request, unsigned index, int fd,
                      struct error *err)
{
        uint64_t value = index & VHOST_VRING_INDEX_MASK;

        return tell(front, request, &value, sizeof(value), &fd, 1, err);
}

int vhost_front_set_ring(struct vhost_front *front, const struct vhost_ring *ring,
                         struct error *err)
{
        struct vhost_vring_addr addr = {.index = ring->index,
                                        .flags = ring->log ? VHOST_VRING_F_LOG : 0,
                                        .descriptor = ring->descriptors,
                                        .used = ring->used,
                                        .available = ring->available,
                                        .log = ring->log_address};

        return tell(front, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0, err);
}

/* The kick comes behind all that says what the ring is: a back end starts with it. */
int vhost_front_start_ring(struct vhost_front *front, const struct vhost_ring *ring,
                           struct error *err)
{
        int r = tell_state(front, VHOST_USER_SET_VRING_NUM, ring->index, ring->size, err);

        if (r == 0)
                r = tell_state(front, VHOST_USER_SET_VRING_BASE, ring->index, ring->base, err);
        if (r == 0)
                r = vhost_front_set_ring(front, ring, err);
        if (r == 0)
                r = tell_event(front, VHOST_USER_SET_VRING_ERR, ring->index, ring->error, err);
        if (r == 0)
                r = tell_event(front, VHOST_USER_SET_VRING_CALL, ring->index, ring->call, err);
        if (r == 0)
                r = tell_event(front, VHOST_USER_SET_VRING_KICK, ring->index, ring->kick, err);
        if (r == 0)
                r = tell_state(front, VHOST_USER_SET_VRING_ENABLE, ring->index, 1, err);
        return r;
}

int vhost_front_stop_ring(struct vhost_front *front, unsigned index, uint16_t *ret_base,
                          struct error *err)
{
        struct vhost_vring_state state = {.index = index};
        struct answer answer;
        int r = ask(front, VHOST_USER_GET_VRING_BASE, &state, sizeof(state), sizeof(state), &answer,
                    err);

        if (r < 0)
                return r;
        if (answer.payload.state.index != index || answer.payload.state.num > UINT16_MAX)
                return makes_no_sense(front, "where a ring stopped", answer.payload.state.num, err);
        *ret_base = (uint16_t)answer.payload.state.num;
        return 0;
}

/* ---- the channel ---- */

static void end_channel(struct vhost_front *front)
{
        shutdown(front->channel, SHUT_RDWR);
        close_elsewhere(NULL, front->channel);
        front->channel = -1;
}

/* A message as far as it has come: 1, it is whole; 0, not yet. Its size is looked at before what it
 * has beside the header is taken. */
static int take_message(struct vhost_front *front, struct vhost_header *ret_header,
                        struct error *err)
{
        struct passed_fds fds = {0};
        struct vhost_header header;
        size_t want = sizeof(header);

        for (;;) {
                ssize_t n;

                memcpy(&header, front->partial, sizeof(header));
                if (front->n_partial >= sizeof(header)) {
                        if (header.size > sizeof(front->partial) - sizeof(header) ||
                            (header.flags & VHOST_VERSION_MASK) != VHOST_VERSION)
                                return error_set(err, -EPROTO,
                                                 "the back end sends message %u of %u bytes",
                                                 header.request, header.size);
                        want = sizeof(header) + header.size;
                }
                if (front->n_partial == want) {
                        front->n_partial = 0;
                        *ret_header = header;
                        return 1;
                }
                n = passed_fds_receive(front->channel, front->partial + front->n_partial,
                                       want - front->n_partial, &fds);
                if (n == -EAGAIN)
                        return 0;
                if (n <= 0)
                        return error_set(err, -ECONNRESET, "the back end's channel has ended");
                front->n_partial += (unsigned)n;
        }
}

/* Small: where the socket has no room for it, nobody reads. */
static int answer_message(struct vhost_front *front, const struct vhost_header *header, bool known,
                          struct error *err)
{
        const struct {
                struct vhost_header header;
                uint32_t value[2];
        } bytes = {{header->request, VHOST_VERSION | VHOST_REPLY, sizeof(uint64_t)}, {!known, 0}};

        if (passed_fds_send(front->channel, &bytes, sizeof(bytes), NULL, 0, MSG_DONTWAIT) ==
            (ssize_t)sizeof(bytes))
                return 0;
        return error_set(err, -EPIPE, "the back end does not take answers");
}

int vhost_front_listen(struct vhost_front *front, bool *ret_changed, struct error *err)
{
        int r = 1;

        *ret_changed = false;
        for (unsigned i = 0; r > 0 && i < CHANNEL_BATCH; i++) {
                struct vhost_header header = {0};
                bool known;

                r = take_message(front, &header, err);
                if (r <= 0)
                        break;
                known = header.request == VHOST_USER_BACKEND_CONFIG_CHANGE_MSG && header.size == 0;
                *ret_changed = *ret_changed || known;
                if ((header.flags & VHOST_NEED_REPLY) &&
                    answer_message(front, &header, known, err) < 0)
                        r = -EPIPE;
        }
        if (r < 0)
                end_channel(front);
        return r < 0 ? r : 0;
}
