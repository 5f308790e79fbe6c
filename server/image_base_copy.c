/* image_base_copy.c - an image's data copied into the pool, until it is not needed any more. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "server/events.h"
#include "server/image_base_internal.h"

#define PIECE_BYTES (UINT64_C(1) << 20)
#define ZERO_BYTES  (UINT64_C(1) << 30) /* of zeroes, noted at once */
#define WORKERS     4u
/* Without space in the pool, it is tried again; the last part of it is left to the volumes. */
#define RETRY_NS    (UINT64_C(10) * 1000000000)
#define SPARE_PARTS 20u

/* One run over all of the image: a few coroutines take pieces in order. */
struct copy {
        struct image_base *b;
        uint64_t bandwidth; /* bytes a second; 0: as fast as it goes */
        uint64_t began_ns, copied_bytes;
        struct co_mutex next_lock;
        unsigned n_running;
        struct co_queue ended;
        const atomic_bool *cancelled; /* NULL: b->stop alone */
        struct command *command;      /* to be told; NULL: nobody */
        int result;
        struct error error;
};

static bool is_to_stop(const struct copy *copy)
{
        return copy->result < 0 || copy->b->stop || (copy->cancelled && *copy->cancelled);
}

struct piece {
        uint64_t offset, length;
        bool zero;
};

/* What is not in the pool yet; false at the end, and where it is to stop. */
static bool co_next_piece(struct copy *copy, struct piece *p)
{
        struct image_base *b = copy->b;
        struct image_extent extent = {0};
        uint64_t at, have = b->image->virtual_bytes;
        bool some = false;
        int r;

        co_lock(&copy->next_lock);
        if (is_to_stop(copy)) {
                co_unlock(&copy->next_lock);
                return false;
        }
        r = co_pool_base_next(b->hp->pool, b->id, b->next, &at, &copy->error);
        if (r == 0 && at < have)
                r = b->image->driver->co_extent(b->image, at, &extent, &copy->error);
        if (r == 0 && at < have) /* of zeroes nothing is read, which would see it */
                r = image_base_unchanged(b, &copy->error);
        if (r == 0 && at < b->base_bytes) {
                /* What the size was rounded up by is read as a piece of its own. */
                uint64_t length = at < have ? extent.length : b->base_bytes - at;
                uint64_t most = extent.zero ? ZERO_BYTES : PIECE_BYTES - at % PIECE_BYTES;

                *p = (struct piece){at, length < most ? length : most, extent.zero};
                some = true;
        }
        if (r == 0)
                b->next = some ? p->offset + p->length : b->base_bytes;
        else
                copy->result = r;
        co_unlock(&copy->next_lock);
        return some;
}

/* Zeroes that a block holds beside data are copied with it. */
static int co_do_piece(struct copy *copy, const struct piece *p, uint64_t *copied,
                       struct error *err)
{
        struct image_base *b = copy->b;
        int r = 0;

        if (p->zero)
                r = co_pool_base_zero(b->hp->pool, b->id, p->offset, p->length, err);
        if (r == 0 && (!p->zero || p->offset % POOL_BLOCK || p->length % POOL_BLOCK)) {
                uint64_t end = p->offset + p->length;
                uint64_t first = p->zero ? end / POOL_BLOCK * POOL_BLOCK : p->offset;

                if (p->zero && p->offset % POOL_BLOCK)
                        r = co_pool_base_copy(b->hp->pool, b->id, p->offset, 1, copied, err);
                if (r == 0 && first < end)
                        r = co_pool_base_copy(b->hp->pool, b->id, first, end - first, copied, err);
        }
        return r;
}

/* In the background of guests, which may write meanwhile. */
static int leave_space(const struct copy *copy)
{
        struct pool_info info;

        if (copy->command)
                return 0;
        pool_get_info(copy->b->hp->pool, &info);
        return info.free_bytes < info.size_bytes / SPARE_PARTS ? -ENOSPC : 0;
}

static const char *path_of(const struct image_base *b)
{
        const char *path = json_string_value(json_object_get(b->about, "path"));

        return path ? path : "";
}

/* The first failure of all counts, in words that tell whose image it is. */
static void copy_failed(struct copy *copy, int r, const struct error *why)
{
        const struct image_base *b = copy->b;

        if (copy->result < 0)
                return;
        copy->result = r;
        copy->error = *why;
        if (r == -EIO && b->unreadable)
                error_set(&copy->error, r, "%s", b->problem);
        if (r != -ENOSPC)
                return;
        error_set(&copy->error, r, "pool '%s' has no space for more of image '%s'", b->hp->name,
                  path_of(b));
        error_hint(&copy->error, "'tarn pool add' gives it more disks; deleting volumes and "
                                 "snapshots gives space back");
}

/* As much as the limit allows by now; in small steps, so that a stop is seen. */
static void co_wait_for_bandwidth(struct copy *copy)
{
        while (copy->bandwidth && !is_to_stop(copy)) {
                uint64_t past_ns = loop_now_ns(copy->b->hp->loop) - copy->began_ns;

                if (copy->copied_bytes <= (unsigned __int128)copy->bandwidth * past_ns / 1000000000)
                        return;
                co_sleep_ns(10000000);
        }
}

static void co_worker(void *arg)
{
        struct copy *copy = arg;
        struct piece p;

        while (co_next_piece(copy, &p)) {
                struct error e = ERROR_INIT;
                uint64_t copied = 0;
                int r = p.zero ? 0 : leave_space(copy);

                if (r == 0)
                        r = co_do_piece(copy, &p, &copied, &e);
                if (r < 0)
                        copy_failed(copy, r, &e);
                copy->copied_bytes += copied;
                if (r == 0 && copy->command)
                        command_progress(copy->command, copy->b->next, copy->b->base_bytes, NULL);
                co_wait_for_bandwidth(copy);
        }
        copy->n_running--;
        co_wake_one(&copy->ended);
}

/* 0: all of the image is in the pool, and it is closed. */
static int co_copy_once(struct copy *copy)
{
        struct image_base *b = copy->b;

        b->next = 0;
        if (!image_is_remote(b->image)) /* of an export it is said when it is connected again */
                b->problem[0] = 0;
        copy->result = 0;
        copy->copied_bytes = 0;
        copy->began_ns = loop_now_ns(b->hp->loop);
        co_mutex_init(&copy->next_lock);
        co_queue_init(&copy->ended);
        for (unsigned i = 0; i < WORKERS && copy->result == 0; i++) {
                copy->n_running++;
                if (co_spawn(b->hp->loop, co_worker, copy) < 0) {
                        copy->n_running--;
                        copy->result = error_set(&copy->error, -ENOMEM, "out of memory");
                }
        }
        while (copy->n_running > 0)
                co_wait(&copy->ended);
        if (copy->result == 0 && (b->stop || (copy->cancelled && *copy->cancelled)))
                copy->result = error_set(&copy->error, -ECANCELED, "interrupted");
        if (copy->result == 0)
                copy->result = co_pool_base_complete(b->hp->pool, b->id, &copy->error);
        if (copy->result < 0)
                return copy->result;
        b->complete = true;
        b->problem[0] = 0;
        co_image_base_close(b);
        return 0;
}

static uint64_t bandwidth_of(const struct image_base *b)
{
        return (uint64_t)json_integer_value(json_object_get(b->about, "bandwidth"));
}

static void tell(struct image_base *b)
{
        log_info("pool '%s': image '%s' is copied, and not needed any more", b->hp->name,
                 path_of(b));
        events_emit(b->hp, "base-complete", json_pack("{s:s}", "path", path_of(b)));
}

/* ---- in the background ---- */

static void co_wait_to_retry(struct image_base *b)
{
        for (unsigned i = 0; i < 100 && !b->stop; i++)
                co_sleep_ns(RETRY_NS / 100);
}

/* There may be space later, or a server that is not there now. */
static bool may_go_on(const struct image_base *b, int r)
{
        return r == -ENOSPC ||
               (r != -ENOENT && image_is_remote(b->image) && remote_may_come_back(b->image));
}

static void co_background(void *arg)
{
        struct image_base *b = arg;
        struct copy copy = {.b = b, .bandwidth = bandwidth_of(b)};
        bool told = false;
        int r;

        while ((r = co_copy_once(&copy)) < 0 && !b->stop && may_go_on(b, r)) {
                if (r == -ENOSPC && !told)
                        log_warning("%s", copy.error.message);
                if (r == -ENOSPC) {
                        told = true;
                        snprintf(b->problem, sizeof(b->problem), "%s", copy.error.message);
                }
                co_wait_to_retry(b);
                if (r == -ENOSPC)
                        b->problem[0] = 0;
                copy.error = (struct error)ERROR_INIT;
        }
        if (r == 0)
                tell(b);
        else if (r != -ECANCELED && r != -ENOENT) {
                snprintf(b->problem, sizeof(b->problem), "%s", copy.error.message);
                log_error("pool '%s': an image is not copied any further: %s", b->hp->name,
                          copy.error.message);
        }
        b->copying = false;
        co_wake_all(&b->stopped);
}

int image_base_copy_start(struct image_base *b, struct error *err)
{
        if (b->copying)
                return 0;
        b->stop = false;
        b->copying = true;
        if (co_spawn(b->hp->loop, co_background, b) == 0)
                return 0;
        b->copying = false;
        return error_set(err, -ENOMEM, "out of memory");
}

void co_image_base_copy_stop(struct image_base *b)
{
        b->stop = true;
        while (b->copying)
                co_wait(&b->stopped);
}

/* ---- by command ---- */

int co_image_base_copy_all(struct image_base *b, struct command *c, struct error *err)
{
        struct copy copy = {
            .b = b, .bandwidth = bandwidth_of(b), .cancelled = c->caller->cancelled, .command = c};
        int r;

        b->stop = false;
        b->copying = true;
        r = co_copy_once(&copy);
        b->copying = false;
        co_wake_all(&b->stopped);
        if (r < 0 && err)
                *err = copy.error;
        return r;
}

static int co_find_base(struct command *c, const char *volume, uint64_t id, struct image_base **ret,
                        struct error *err)
{
        *ret = image_base_find(c->hp, id);
        if (id == 0)
                return error_set(err, -EINVAL, "volume '%s/%s' does not stand on an image",
                                 c->hp->name, volume);
        if (*ret && !(*ret)->complete && (*ret)->image && image_is_remote((*ret)->image))
                return co_remote_check((*ret)->image, err);
        if (!*ret || (!(*ret)->complete && !(*ret)->image))
                return error_set(err, -EIO, "the image of '%s/%s' cannot be copied: %s",
                                 c->hp->name, volume, *ret ? (*ret)->problem : "it is not known");
        return 0;
}

/* The limit is remembered, and with it that copying goes on after a restart. */
static int co_set_bandwidth(struct command *c, struct image_base *b, bool stop, struct error *err)
{
        uint64_t bandwidth = 0;
        int r = 0;

        if (json_object_get(c->request, "bandwidth"))
                r = command_size(c, "bandwidth", &bandwidth, err);
        if (r < 0)
                return r;
        if (stop)
                json_object_del(b->about, "bandwidth");
        else
                json_object_set_new(b->about, "bandwidth", json_integer((json_int_t)bandwidth));
        return co_image_base_save(b, err);
}

static int co_hydrate(struct command *c, struct image_base *b, struct error *err)
{
        bool stop = command_flag(c, "stop");
        int r;

        if (!b->complete)
                co_image_base_copy_stop(b); /* and it may have become complete */
        json_object_set_new(c->reply, "complete", json_boolean(b->complete));
        if (b->complete)
                return 0;
        r = co_set_bandwidth(c, b, stop, err);
        if (r < 0 || stop)
                return r;
        if (c->host->control_path)
                return image_base_copy_start(b, err);
        r = co_image_base_copy_all(b, c, err);
        if (r == 0)
                json_object_set_new(c->reply, "complete", json_true());
        return r;
}

static int co_find_and_hydrate(struct command *c, const char *volume, struct error *err)
{
        struct image_base *b = NULL;
        uint64_t id = 0;
        int r = co_image_base_of(c->hp, volume, &id, err);

        if (r == 0)
                r = co_find_base(c, volume, id, &b, err);
        if (r < 0)
                return r;
        assert(b); /* co_find_base() refuses what is not there */
        b->n_busy++;
        r = co_hydrate(c, b, err);
        b->n_busy--;
        return r;
}

int co_volume_hydrate(struct command *c, struct error *err)
{
        const char *volume;
        int r = command_volume(c, "volume", &volume, err);

        if (r < 0)
                return r;
        co_lock(&c->hp->bases_lock);
        r = co_find_and_hydrate(c, volume, err);
        co_unlock(&c->hp->bases_lock);
        return r;
}
