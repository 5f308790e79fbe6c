/* nbd.c - exports of NBD servers as images.
 *
 * libnbd does the protocol and calls nobody's loop: after each step it says for what its socket is to
 * be watched. One watch is under way as long as requests are. */
#include "formats/nbd.h"

#include <assert.h>
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/coroutine.h"

#define MAP_MAX         512u
#define MAP_LENGTH      (UINT64_C(1) << 30)
#define ZERO_LENGTH     (UINT64_C(1) << 30)
#define ZERO_CHUNK      (UINT64_C(1) << 20)
#define WRITE_UNIT      4096u
#define REQUEST_DEFAULT (UINT64_C(32) << 20) /* where the server names no limit (proto.md) */
#define CONTEXT         LIBNBD_CONTEXT_BASE_ALLOCATION
/* A server that is waited for and says nothing for so long hangs, or its host is gone. */
#define SILENCE_S  30u
#define SILENCE_NS (SILENCE_S * UINT64_C(1000000000))
/* While something is waited for: between two looks whether it still is to be. */
#define LOOK_NS UINT64_C(100000000)

/* What the server has said of a part of the export, last. */
struct map {
        uint64_t offset;
        size_t n;
        uint32_t length[MAP_MAX], flags[MAP_MAX];
};

struct nbd {
        struct nbd_handle *handle;
        struct loop *loop;
        struct loop_io watch;
        bool watching;
        uint32_t watched; /* poll(2)'s events */
        struct co_queue unwatched;
        struct loop_io *connecting; /* poll(2) under way */
        unsigned n_requests;
        unsigned n_slow; /* of these: which may take a server as long as its disk does */

        const char *path;
        const atomic_bool *cancelled;
        struct list link; /* among those whose @cancelled is the same one's */
        uint64_t heard_ns;
        struct loop_timer look;
        bool looking;
        struct error end; /* why it was given up; code 0: it was not */

        uint64_t request_max;
        bool has_map, can_zero, can_flush;
        struct map map;
        void *zeroes;
};

/* A request: the coroutine that waits for it. */
struct request {
        struct nbd *nbd;
        struct co *co;
        bool waiting, done, slow;
        int error;
        struct map *map;
        uint64_t left; /* of what the map is asked for */
};

bool nbd_is_uri(const char *word)
{
        static const char *const schemes[] = {"nbd://",       "nbds://",      "nbd+unix://",
                                              "nbds+unix://", "nbd+vsock://", "nbds+vsock://"};

        for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
                if (strncmp(word, schemes[i], strlen(schemes[i])) == 0)
                        return true;
        return false;
}

#define NOWHERE UINT64_MAX

/* What is asked of no place in particular fails without one. */
static int failed_at(const char *uri, const char *what, uint64_t offset, int code, const char *why,
                     struct error *err)
{
        if (offset == NOWHERE)
                return error_set(err, code, "cannot %s '%s': %s", what, uri, why);
        return error_set(err, code, "cannot %s '%s' at offset %llu: %s", what, uri,
                         (unsigned long long)offset, why);
}

/* libnbd's own words, of the last call that failed in this thread. */
static int nbd_failure(const char *uri, const char *what, uint64_t offset, struct error *err)
{
        int code = nbd_get_errno();
        const char *text = nbd_get_error();

        return failed_at(uri, what, offset, code > 0 ? -code : -EIO, text ? text : "unknown", err);
}

/* ---- giving up ---- */

static void begin_to_look(struct nbd *nbd)
{
        if (nbd->looking)
                return;
        nbd->looking = true;
        loop_timer_set(nbd->loop, &nbd->look, loop_now_ns(nbd->loop) + LOOK_NS);
}

static void heard(struct nbd *nbd)
{
        nbd->heard_ns = loop_time_ns(nbd->loop);
}

/* What is under way fails, by libnbd; an address that does not answer, by our own poll(2). */
static void cut(struct nbd *nbd)
{
        int fd = nbd_aio_get_fd(nbd->handle);

        if (fd >= 0)
                shutdown(fd, SHUT_RDWR);
        if (nbd->connecting)
                loop_cancel(nbd->loop, nbd->connecting);
}

static void look(struct loop_timer *timer)
{
        struct nbd *nbd = container_of(timer, struct nbd, look);

        nbd->looking = false;
        if ((nbd->n_requests == 0 && !nbd->connecting) || nbd->end.code < 0)
                return;
        if (nbd->cancelled && *nbd->cancelled)
                error_set(&nbd->end, -ECANCELED, "interrupted");
        else if (nbd->n_slow == 0 && loop_now_ns(nbd->loop) >= nbd->heard_ns + SILENCE_NS)
                error_set(&nbd->end, -ETIMEDOUT, "'%s' has not answered for %u s", nbd->path,
                          SILENCE_S);
        if (nbd->end.code < 0)
                cut(nbd);
        else
                begin_to_look(nbd);
}

/* What failed since it was given up did so by that, whatever libnbd says. */
static int explain(const struct nbd *nbd, int r, struct error *err)
{
        if (r == 0 || nbd->end.code == 0)
                return r;
        if (err)
                *err = nbd->end;
        return nbd->end.code;
}

/* ---- the socket ---- */

static void watch(struct nbd *nbd);

static uint32_t wanted_events(struct nbd *nbd)
{
        unsigned direction = nbd_aio_get_direction(nbd->handle);

        return (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0u) |
               (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0u);
}

static void tell_libnbd(struct nbd *nbd, int events)
{
        unsigned direction = nbd_aio_get_direction(nbd->handle);

        /* A failure makes the connection dead, and ends the requests with an error. */
        if ((events & (POLLIN | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
                nbd_aio_notify_read(nbd->handle);
        else if ((events & (POLLOUT | POLLHUP | POLLERR)) &&
                 (direction & LIBNBD_AIO_DIRECTION_WRITE))
                nbd_aio_notify_write(nbd->handle);
}

static void watched(struct loop_io *io, int result)
{
        struct nbd *nbd = container_of(io, struct nbd, watch);

        nbd->watching = false;
        if (result > 0) {
                heard(nbd); /* or it has taken something */
                tell_libnbd(nbd, result);
        }
        if (nbd->n_requests > 0)
                watch(nbd);
        co_wake_all(&nbd->unwatched);
}

/* A connection that dies as one asks ends all requests at once, and no poll(2): libnbd has closed the socket,
 * which the kernel still watches. Nobody may leave the image to be closed before that has ended. */
static void co_unwatch(struct nbd *nbd)
{
        if (nbd->watching && nbd->n_requests == 0)
                loop_cancel(nbd->loop, &nbd->watch);
        while (nbd->watching && nbd->n_requests == 0)
                co_wait(&nbd->unwatched);
}

static void watch(struct nbd *nbd)
{
        uint32_t events = wanted_events(nbd);

        if (nbd->watching) {
                /* Begun anew once it has ended. */
                if ((nbd->watched & events) != events)
                        loop_cancel(nbd->loop, &nbd->watch);
                return;
        }
        nbd->watch = (struct loop_io){
            .op = LOOP_POLL, .fd = nbd_aio_get_fd(nbd->handle), .flags = events, .done = watched};
        nbd->watched = events;
        nbd->watching = true;
        loop_submit(nbd->loop, &nbd->watch);
}

/* ---- requests ---- */

static void request_over(const struct request *q)
{
        q->nbd->n_requests--;
        if (q->slow)
                q->nbd->n_slow--;
}

static int completed(void *arg, int *error)
{
        struct request *q = arg;

        q->done = true;
        q->error = *error;
        request_over(q);
        if (q->waiting)
                co_wake(q->co);
        return 1;
}

static struct request request_begin(struct nbd *nbd)
{
        if (nbd->n_requests++ == 0)
                heard(nbd);
        begin_to_look(nbd);
        return (struct request){.nbd = nbd, .co = co_self()};
}

/* One that may be behind much that is still to be written to a disk. */
static struct request request_begin_slow(struct nbd *nbd)
{
        struct request q = request_begin(nbd);

        q.slow = true;
        nbd->n_slow++;
        return q;
}

/* Wait for what was begun; @cookie is libnbd's answer. */
static int co_request_end(struct image *image, struct request *q, int64_t cookie, const char *what,
                          uint64_t offset, struct error *err)
{
        struct nbd *nbd = q->nbd;
        int r = 0;

        if (cookie < 0 && !q->done)
                request_over(q);
        if (cookie < 0)
                r = nbd_failure(image->path, what, offset, err);
        else if (!q->done)
                watch(nbd);
        q->waiting = true;
        while (r == 0 && !q->done)
                co_suspend();
        if (r == 0 && q->error)
                r = failed_at(image->path, what, offset, -q->error, strerror(q->error), err);
        co_unwatch(nbd);
        return explain(nbd, r, err);
}

#define COMPLETION(q) ((nbd_completion_callback){.callback = completed, .user_data = (q)})

static int co_nbd_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                       struct error *err)
{
        struct nbd *nbd = image->state;
        uint8_t *to = buffer;
        int r = 0;

        while (r == 0 && length > 0) {
                size_t n = length < nbd->request_max ? length : nbd->request_max;
                struct request q = request_begin(nbd);

                r = co_request_end(image, &q,
                                   nbd_aio_pread(nbd->handle, to, n, offset, COMPLETION(&q), 0),
                                   "read", offset, err);
                to += n;
                offset += n;
                length -= n;
        }
        return r;
}

static int co_nbd_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                        struct error *err)
{
        struct nbd *nbd = image->state;
        const uint8_t *from = buffer;
        int r = 0;

        while (r == 0 && length > 0) {
                size_t n = length < nbd->request_max ? length : nbd->request_max;
                struct request q = request_begin(nbd);

                r = co_request_end(image, &q,
                                   nbd_aio_pwrite(nbd->handle, from, n, offset, COMPLETION(&q), 0),
                                   "write", offset, err);
                from += n;
                offset += n;
                length -= n;
        }
        return r;
}

static int co_write_zeroes(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        struct nbd *nbd = image->state;
        int r = 0;

        if (!nbd->zeroes && !(nbd->zeroes = calloc(1, ZERO_CHUNK)))
                return error_set(err, -ENOMEM, "out of memory");
        while (r == 0 && length > 0) {
                uint64_t n = length < ZERO_CHUNK ? length : ZERO_CHUNK;

                r = co_nbd_write(image, nbd->zeroes, n, offset, err);
                offset += n;
                length -= n;
        }
        return r;
}

static int co_nbd_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        struct nbd *nbd = image->state;
        int r = 0;

        if (!nbd->can_zero)
                return co_write_zeroes(image, offset, length, err);
        while (r == 0 && length > 0) {
                uint64_t n = length < ZERO_LENGTH ? length : ZERO_LENGTH;
                struct request q = request_begin_slow(nbd);

                r = co_request_end(image, &q,
                                   nbd_aio_zero(nbd->handle, n, offset, COMPLETION(&q), 0),
                                   "write zeroes to", offset, err);
                offset += n;
                length -= n;
        }
        return r;
}

static int co_nbd_finish(struct image *image, struct error *err)
{
        struct nbd *nbd = image->state;
        struct request q;

        if (!nbd->can_flush)
                return 0;
        q = request_begin_slow(nbd);
        return co_request_end(image, &q, nbd_aio_flush(nbd->handle, COMPLETION(&q), 0), "flush",
                              NOWHERE, err);
}

/* ---- the map ---- */

/* What the server says is not trusted: no extent reaches behind what was asked for. */
static int got_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                       size_t n_entries, int *error)
{
        struct request *q = arg;
        struct map *map = q->map;

        if (strcmp(context, CONTEXT) != 0)
                return 0;
        for (size_t i = 0; i + 1 < n_entries && map->n < MAP_MAX && q->left > 0; i += 2) {
                uint64_t length = entries[i] < q->left ? entries[i] : q->left;

                if (length == 0)
                        continue;
                map->length[map->n] = (uint32_t)length;
                map->flags[map->n++] = entries[i + 1];
                q->left -= length;
        }
        return 0;
}

static int co_ask_map(struct image *image, uint64_t offset, struct error *err)
{
        struct nbd *nbd = image->state;
        uint64_t left = image->virtual_bytes - offset;
        uint64_t n = left < MAP_LENGTH ? left : MAP_LENGTH;
        struct map *map = calloc(1, sizeof(*map));
        struct request q;
        int r;

        if (!map)
                return error_set(err, -ENOMEM, "out of memory");
        map->offset = offset;
        q = request_begin(nbd);
        q.map = map;
        q.left = n;
        r = co_request_end(
            image, &q,
            nbd_aio_block_status(nbd->handle, n, offset,
                                 (nbd_extent_callback){.callback = got_extents, .user_data = &q},
                                 COMPLETION(&q), 0),
            "read the map of", offset, err);
        if (r == 0 && map->n == 0)
                r = error_set(err, -EPROTO, "'%s' says nothing of what is at offset %llu",
                              image->path, (unsigned long long)offset);
        if (r == 0)
                nbd->map = *map;
        free(map);
        return r;
}

static bool find_in_map(const struct map *map, uint64_t offset, struct image_extent *ret)
{
        uint64_t at = map->offset;

        for (size_t i = 0; i < map->n && at <= offset; i++) {
                uint64_t end = at + map->length[i];

                if (offset < end) {
                        *ret = (struct image_extent){.length = end - offset,
                                                     .zero = map->flags[i] & LIBNBD_STATE_ZERO,
                                                     .present = true,
                                                     .has_offset = true,
                                                     .file_offset = offset};
                        return true;
                }
                at = end;
        }
        return false;
}

static int co_nbd_extent(struct image *image, uint64_t offset, struct image_extent *ret_extent,
                         struct error *err)
{
        struct nbd *nbd = image->state;
        struct image_extent all = {.length = image->virtual_bytes - offset,
                                   .present = true,
                                   .has_offset = true,
                                   .file_offset = offset};
        int r = 0;

        if (!nbd->has_map)
                *ret_extent = all;
        else if (!find_in_map(&nbd->map, offset, ret_extent)) {
                r = co_ask_map(image, offset, err);
                /* Another coroutine may have asked for another part meanwhile. */
                if (r == 0 && !find_in_map(&nbd->map, offset, ret_extent)) {
                        *ret_extent = all;
                        if (ret_extent->length > WRITE_UNIT)
                                ret_extent->length = WRITE_UNIT;
                }
        }
        return r;
}

void nbd_forget_map(struct image *image)
{
        struct nbd *nbd = image->state;

        nbd->map.n = 0;
}

/* ---- opening ---- */

static void nbd_image_close(struct image *image)
{
        struct nbd *nbd = image->state;

        if (!nbd)
                return;
        assert(!nbd->watching);
        loop_timer_cancel(nbd->loop, &nbd->look);
        list_remove(&nbd->link);
        if (nbd->handle) {
                if (nbd_aio_is_ready(nbd->handle) > 0)
                        nbd_aio_disconnect(nbd->handle, 0);
                nbd_close(nbd->handle);
        }
        free(nbd->zeroes);
        free(nbd);
}

static const struct image_driver image_nbd = {
    .name = "nbd",
    .description = "export of an NBD server",
    .co_extent = co_nbd_extent,
    .co_read = co_nbd_read,
    .co_write = co_nbd_write,
    .co_zero = co_nbd_zero,
    .co_finish = co_nbd_finish,
    .close = nbd_image_close,
};

static int begin_to_connect(struct nbd *nbd, const struct nbd_target *target)
{
        int fd;

        if (nbd_add_meta_context(nbd->handle, CONTEXT) < 0)
                return -1;
        /* Files of certificates and keys: the URI is the user's own. */
        if (target->fd < 0 && nbd_set_uri_allow_local_file(nbd->handle, true) < 0)
                return -1;
        if (target->fd < 0)
                return nbd_aio_connect_uri(nbd->handle, target->uri);
        if (nbd_set_export_name(nbd->handle, target->export_name) < 0)
                return -1;
        fd = dup(target->fd); /* libnbd's, which closes it */
        return fd < 0 ? -1 : nbd_aio_connect_socket(nbd->handle, fd);
}

static int co_connect(struct nbd *nbd, const struct nbd_target *target, struct error *err)
{
        if (begin_to_connect(nbd, target) < 0)
                return nbd_failure(target->uri, "connect to", NOWHERE, err);
        heard(nbd);
        while (nbd_aio_is_connecting(nbd->handle) > 0 && nbd->end.code == 0) {
                struct loop_io io = {.op = LOOP_POLL,
                                     .fd = nbd_aio_get_fd(nbd->handle),
                                     .flags = wanted_events(nbd)};
                int events;

                nbd->connecting = &io;
                begin_to_look(nbd);
                events = co_io(&io);
                nbd->connecting = NULL;
                if (events < 0 && events != -EINTR)
                        return error_set(err, events, "cannot connect to '%s': %s", target->uri,
                                         strerror(-events));
                if (events > 0) {
                        heard(nbd);
                        tell_libnbd(nbd, events);
                }
        }
        if (nbd_aio_is_ready(nbd->handle) > 0)
                return 0;
        return nbd_failure(target->uri, "connect to", NOWHERE, err);
}

static int ask_export(struct image *image, bool write, struct error *err)
{
        struct nbd *nbd = image->state;
        int64_t size = nbd_get_size(nbd->handle), most;

        if (size < 0)
                return nbd_failure(image->path, "tell the size of", NOWHERE, err);
        if ((uint64_t)size > IMAGE_SIZE_MAX)
                return error_set(err, -EFBIG, "'%s' is larger than 4 PiB", image->path);
        if (write && nbd_is_read_only(nbd->handle) != 0)
                return error_set(err, -EACCES, "'%s' is read-only", image->path);
        image->virtual_bytes = image->file_bytes = image->allocated_bytes = (uint64_t)size;
        image->write_unit = WRITE_UNIT;
        most = nbd_get_block_size(nbd->handle, LIBNBD_SIZE_MAXIMUM);
        nbd->request_max =
            most >= WRITE_UNIT ? (uint64_t)most / WRITE_UNIT * WRITE_UNIT : REQUEST_DEFAULT;
        nbd->has_map = nbd_can_meta_context(nbd->handle, CONTEXT) > 0;
        nbd->can_zero = nbd_can_zero(nbd->handle) > 0;
        nbd->can_flush = nbd_can_flush(nbd->handle) > 0;
        return 0;
}

static uint64_t block_size(struct nbd *nbd, int which)
{
        int64_t size = nbd_get_block_size(nbd->handle, which);

        return size > 0 ? (uint64_t)size : 0;
}

struct nbd_offer nbd_offer(const struct image *image)
{
        struct nbd *nbd = image->state;

        return (struct nbd_offer){.read_only = nbd_is_read_only(nbd->handle) > 0,
                                  .can_trim = nbd_can_trim(nbd->handle) > 0,
                                  .can_zero = nbd->can_zero,
                                  .can_flush = nbd->can_flush,
                                  .can_fua = nbd_can_fua(nbd->handle) > 0,
                                  .multi_conn = nbd_can_multi_conn(nbd->handle) > 0,
                                  .block_status = nbd->has_map,
                                  .tls = nbd_get_tls_negotiated(nbd->handle) > 0,
                                  .block_min = block_size(nbd, LIBNBD_SIZE_MINIMUM),
                                  .block_preferred = block_size(nbd, LIBNBD_SIZE_PREFERRED),
                                  .block_max = block_size(nbd, LIBNBD_SIZE_MAXIMUM)};
}

bool nbd_is_lost(const struct image *image)
{
        const struct nbd *nbd = image->state;

        return nbd_aio_is_dead(nbd->handle) != 0 || nbd_aio_is_closed(nbd->handle) != 0;
}

void nbd_cut(struct image *image)
{
        cut(image->state);
}

void nbd_outlive(struct list *opened)
{
        list_for_each_safe (it, opened) {
                container_of(it, struct nbd, link)->cancelled = NULL;
                list_remove(it);
        }
}

int co_nbd_open(const struct nbd_target *target, bool write, struct image **ret_image,
                struct error *err)
{
        struct image *image = calloc(1, sizeof(*image));
        struct nbd *nbd = calloc(1, sizeof(*nbd));
        int r;

        if (!image || !nbd || !(image->path = strdup(target->uri))) {
                free(image);
                free(nbd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        image->fd = -1;
        image->driver = &image_nbd;
        image->state = nbd;
        nbd->loop = co_loop();
        nbd->path = image->path;
        nbd->cancelled = target->cancelled;
        nbd->look.fire = look;
        co_queue_init(&nbd->unwatched);
        list_init(&nbd->link);
        if (target->opened)
                list_append(target->opened, &nbd->link);
        nbd->handle = nbd_create();
        r = nbd->handle ? explain(nbd, co_connect(nbd, target, err), err)
                        : nbd_failure(target->uri, "connect to", NOWHERE, err);
        if (r == 0)
                r = ask_export(image, write, err);
        if (r < 0) {
                image_close(image);
                return r;
        }
        *ret_image = image;
        return 0;
}
