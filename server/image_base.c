/* image_base.c - the images that volumes stand on: attached to their pool, found again, told of. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/offload.h"
#include "formats/nbd.h"
#include "server/image_base_internal.h"

/* ---- attached ---- */

static int co_read_image(struct pool_image *reader, void *buffer, uint64_t length, uint64_t offset)
{
        struct image_base *b = container_of(reader, struct image_base, reader);
        uint64_t have = b->image->virtual_bytes, n = 0;
        struct error e = ERROR_INIT;
        struct error changed = ERROR_INIT;
        int r = 0;

        b->n_reads++;
        if (offset < have)
                n = length < have - offset ? length : have - offset;
        if (n > 0)
                r = b->image->driver->co_read(b->image, buffer, n, offset, &e);
        memset((char *)buffer + n, 0, length - n);
        /* Behind the read: what changes later was not in it. */
        if (image_base_unchanged(b, &changed) < 0) {
                r = changed.code;
                e = changed;
        }
        if (r != -ECANCELED) /* the image's own fault */
                b->unreadable = r < 0;
        if (r < 0 && r != -ECANCELED)
                image_base_problem(b, &e);
        if (--b->n_reads == 0)
                co_wake_all(&b->unread);
        return r;
}

int image_base_attach(struct image_base *b, struct image_base *was, struct error *err)
{
        int r;

        b->reader.co_read = co_read_image;
        r = was && was->attached ? pool_base_replace(b->hp->pool, b->id, &b->reader, err)
                                 : pool_base_attach(b->hp->pool, b->id, &b->reader, err);
        b->attached = r == 0;
        if (was && r == 0)
                was->attached = false;
        return r;
}

struct image_base *image_base_new(struct host_pool *hp)
{
        struct image_base *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->hp = hp;
        b->fd = -1;
        list_init(&b->parts);
        co_queue_init(&b->stopped);
        co_queue_init(&b->unread);
        co_queue_init(&b->idle);
        list_append(&hp->image_bases, &b->link);
        return b;
}

static void close_image(struct image_base *b)
{
        image_close(b->image);
        b->image = NULL;
        if (b->fd >= 0)
                close(b->fd);
        b->fd = -1;
        image_parts_close(b);
        offload_free(b->offload);
        b->offload = NULL;
}

void co_image_base_close(struct image_base *b)
{
        if (b->image && image_is_remote(b->image))
                co_remote_stop(b->image);
        if (b->attached)
                co_pool_base_detach(b->hp->pool, b->id);
        b->attached = false;
        while (b->n_reads > 0) /* of one that another has replaced */
                co_wait(&b->unread);
        close_image(b);
}

void co_image_base_forget(struct image_base *b)
{
        /* First, so that nobody else finds it while this waits. */
        list_remove(&b->link);
        while (b->n_busy > 0)
                co_wait(&b->idle);
        b->stop = true;
        if (b->image && image_is_remote(b->image))
                co_remote_stop(b->image); /* so that copying does not wait for it */
        co_image_base_copy_stop(b);
        co_image_base_close(b);
        json_decref(b->about);
        free(b);
}

struct image_base *image_base_find(struct host_pool *hp, uint64_t id)
{
        if (id == 0) /* as one has that is being made */
                return NULL;
        list_for_each (it, &hp->image_bases) {
                struct image_base *b = container_of(it, struct image_base, link);

                if (b->id == id)
                        return b;
        }
        return NULL;
}

/* ---- known from before ---- */

static int take_base(const struct pool_base_info *info, void *arg)
{
        struct host_pool *hp = arg;
        struct image_base *b = image_base_new(hp);

        if (!b)
                return -ENOMEM;
        b->id = info->id;
        b->base_bytes = info->size_bytes;
        b->complete = info->complete;
        b->about = json_loads(info->description, 0, NULL);
        return 0;
}

bool image_base_is_as_it_was(const struct image_base *b, const struct image_identity *now)
{
        json_t *identity = json_object_get(b->about, "identity");
        json_t *sample = json_object_get(b->about, "sample");

        if (now->is_block_device && (uint32_t)json_integer_value(sample) != now->sample)
                return false;
        return (uint64_t)json_integer_value(json_object_get(b->about, "size")) == now->size &&
               json_integer_value(json_object_get(b->about, "mtime")) == now->mtime_ns &&
               (uint32_t)json_integer_value(identity) == now->crc;
}

/* It is connected to when it is read, or once the server has begun: opening a pool waits for nobody. */
static int find_export(struct image_base *b, const char *uri, struct error *err)
{
        const json_t *size = json_object_get(b->about, "size");
        const json_t *sample = json_object_get(b->about, "sample");
        const struct image_identity was = {.size = (uint64_t)json_integer_value(size),
                                           .sample = (uint32_t)json_integer_value(sample)};
        int r = image_base_remote(b, uri, &was, NULL, err);

        return r == 0 ? image_base_attach(b, NULL, err) : r;
}

static int co_find_again(struct image_base *b, struct error *err)
{
        const char *path = json_string_value(json_object_get(b->about, "path"));
        const struct image_options options = {
            .format = json_string_value(json_object_get(b->about, "format")),
            .backing_format = json_string_value(json_object_get(b->about, "backing_format")),
            .snapshot = json_string_value(json_object_get(b->about, "snapshot"))};
        struct image_identity now;
        int r;

        if (!path)
                return error_set(err, -EUCLEAN, "the description of base %llu makes no sense",
                                 (unsigned long long)b->id);
        if (nbd_is_uri(path))
                return find_export(b, path, err);
        r = co_image_base_open_file(b, NULL, path, &options, &now, err);
        if (r < 0)
                return r;
        if (!image_base_is_as_it_was(b, &now)) {
                error_set(err, -ESTALE, "image '%s', on which volumes stand, was changed", path);
                return error_hint(err, "bring it back as it was; what volumes have not copied is "
                                       "nowhere else");
        }
        return image_base_attach(b, NULL, err);
}

void co_image_bases_open(struct host_pool *hp)
{
        struct error e = ERROR_INIT;

        if (co_pool_bases(hp->pool, take_base, hp, &e) < 0)
                log_error("pool '%s': the images of its volumes are not known: %s", hp->name,
                          e.message);
        list_for_each (it, &hp->image_bases) {
                struct image_base *b = container_of(it, struct image_base, link);
                struct error why = ERROR_INIT;

                if (!b->complete && co_find_again(b, &why) < 0) {
                        snprintf(b->problem, sizeof(b->problem), "%s", why.message);
                        close_image(b);
                }
        }
}

void co_image_bases_go(struct host_pool *hp)
{
        struct loop *from = co_move(hp->loop);

        list_for_each (it, &hp->image_bases) {
                struct image_base *b = container_of(it, struct image_base, link);
                struct error e = ERROR_INIT;

                if (b->problem[0])
                        log_error("pool '%s': %s", hp->name, b->problem);
                if (b->image && image_is_remote(b->image))
                        remote_go(b->image);
                if (b->image && json_object_get(b->about, "bandwidth") &&
                    image_base_copy_start(b, &e) < 0)
                        image_base_problem(b, &e);
        }
        co_move(from);
}

void co_image_bases_close(struct host_pool *hp)
{
        while (!list_empty(&hp->image_bases)) {
                struct image_base *b = container_of(hp->image_bases.next, struct image_base, link);

                b->is_kept = true;
                co_image_base_forget(b);
        }
}

static struct image_base *find_unneeded(struct host_pool *hp)
{
        list_for_each (it, &hp->image_bases) {
                struct image_base *b = container_of(it, struct image_base, link);

                if (b->n_busy == 0 && !pool_base_is_needed(hp->pool, b->id))
                        return b;
        }
        return NULL;
}

void co_image_bases_tidy(struct host_pool *hp)
{
        struct image_base *b;

        /* From the beginning each time: other commands do the same meanwhile. */
        while ((b = find_unneeded(hp)))
                co_image_base_forget(b);
}

/* ---- told ---- */

static int keep_base(const struct root_info *info, void *arg)
{
        *(uint64_t *)arg = root_base(info);
        return 0;
}

int co_image_base_of(struct host_pool *hp, const char *volume, uint64_t *ret_id, struct error *err)
{
        return co_root_get(hp->pool, volume, keep_base, ret_id, err);
}

static int keep_copied(const struct pool_base_info *info, void *arg)
{
        *(uint64_t *)arg = info->copied_bytes;
        return 0;
}

json_t *co_image_base_json(struct host_pool *hp, uint64_t base_id)
{
        struct image_base *b = image_base_find(hp, base_id);
        uint64_t copied = 0;
        json_t *json;

        if (!b || co_pool_base_get(hp->pool, base_id, keep_copied, &copied, NULL) < 0)
                return NULL;
        json = json_object();
        json_object_set(json, "path", json_object_get(b->about, "path"));
        json_object_set(json, "format", json_object_get(b->about, "format"));
        json_object_set_new(json, "size", json_integer((json_int_t)b->base_bytes));
        json_object_set_new(json, "copied", json_integer((json_int_t)copied));
        json_object_set_new(json, "complete", json_boolean(b->complete));
        json_object_set_new(json, "hydrating", json_boolean(b->copying));
        if (b->copying)
                json_object_set_new(json, "reached", json_integer((json_int_t)b->next));
        if (b->problem[0])
                json_object_set_new(json, "problem", json_string(b->problem));
        return json;
}

int co_image_base_check(struct host_pool *hp, const struct volume *volume, struct error *err)
{
        struct image_base *b = image_base_find(hp, volume_base(volume));

        if (!b || b->complete)
                return 0;
        if (b->image)
                return image_is_remote(b->image) ? co_remote_check(b->image, err) : 0;
        error_set(err, -EIO, "volume '%s/%s' cannot be used: %s", hp->name, volume_name(volume),
                  b->problem);
        return error_hint(err, "bring the image back as it was, and say where it is: 'tarn volume "
                               "rebase'");
}

int image_base_explain(struct host_pool *hp, const struct volume *volume, int r, struct error *err)
{
        struct image_base *b = image_base_find(hp, volume_base(volume));

        if (r != -EIO || !b || b->complete || !b->unreadable)
                return r;
        return error_set(err, r, "volume '%s/%s' cannot be read: %s", hp->name, volume_name(volume),
                         b->problem);
}
