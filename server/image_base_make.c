/* image_base_make.c - images that came along with a request: volumes made on them, or bases that are there
 * now. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/image_base_internal.h"
#include "server/import_snapshots.h"

/* ---- made ---- */

static json_t *about_new(const struct image_base *b, const struct image_options *options,
                         const struct image_identity *identity)
{
        return json_pack("{s:s, s:s, s:s*, s:s*, s:I, s:I, s:I, s:I}", "path", b->image->path,
                         "format", b->image->driver->name, "backing_format",
                         options->backing_format, "snapshot", options->snapshot, "size",
                         (json_int_t)identity->size, "mtime", (json_int_t)identity->mtime_ns,
                         "identity", (json_int_t)identity->crc, "sample",
                         (json_int_t)identity->sample);
}

int co_image_base_save(struct image_base *b, struct error *err)
{
        char *text = json_dumps(b->about, JSON_COMPACT);
        int r = text ? co_pool_base_describe(b->hp->pool, b->id, text, err)
                     : error_set(err, -ENOMEM, "out of memory");

        free(text);
        return r;
}

/* One that other volumes stand on already, of the same image as it is now. */
static bool same_text(const json_t *about, const char *key, const char *text)
{
        const char *known = json_string_value(json_object_get(about, key));

        return known && text ? strcmp(known, text) == 0 : !known && !text;
}

static struct image_base *find_same(struct host_pool *hp, const struct image *image,
                                    const struct image_options *options,
                                    const struct image_identity *identity)
{
        list_for_each (it, &hp->image_bases) {
                struct image_base *b = container_of(it, struct image_base, link);

                if (same_text(b->about, "path", image->path) &&
                    same_text(b->about, "format", image->driver->name) &&
                    same_text(b->about, "backing_format", options->backing_format) &&
                    same_text(b->about, "snapshot", options->snapshot) &&
                    image_base_is_as_it_was(b, identity) && (b->image || b->complete))
                        return b;
        }
        return NULL;
}

static int co_create_new(struct image_base *b, const char *volume, uint64_t size,
                         const struct image_options *options, const struct image_identity *identity,
                         struct error *err)
{
        char *text;
        int r;

        b->about = about_new(b, options, identity);
        text = b->about ? json_dumps(b->about, JSON_COMPACT) : NULL;
        if (!text)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_volume_create_on_new(b->hp->pool, volume, size, b->base_bytes, text, &b->id, err);
        free(text);
        return r == 0 ? image_base_attach(b, NULL, err) : r;
}

static int co_create_on(struct image_base *b, const char *volume, uint64_t size, struct error *err)
{
        int r;

        b->n_busy++; /* it may have no volume now and then */
        r = co_volume_create_on(b->hp->pool, volume, size, b->id, err);
        if (--b->n_busy == 0)
                co_wake_all(&b->idle);
        return r;
}

static int take_size(struct image_base *b, struct error *err)
{
        b->base_bytes = import_bytes(b->image);
        return b->base_bytes > 0 ? 0 : error_set(err, -EINVAL, "'%s' is empty", b->image->path);
}

static int co_create(struct command *c, struct image_request *request, const char *volume,
                     uint64_t *size, struct error *err)
{
        const struct image_options options = image_request_options(request);
        struct image_base *b = image_base_new(c->hp), *same = NULL;
        struct image_identity identity;
        int r;

        if (!b)
                return error_set(err, -ENOMEM, "out of memory");
        b->n_busy++;
        r = co_image_base_open_request(b, request, &identity, err);
        if (r == 0)
                r = take_size(b, err);
        if (r == 0 && *size == 0)
                *size = b->base_bytes;
        if (r == 0)
                same = find_same(c->hp, b->image, &options, &identity);
        if (same)
                r = co_create_on(same, volume, *size, err);
        if (r == -ENOENT && same) { /* its last volume was deleted meanwhile */
                same = NULL;
                r = 0;
        }
        if (r == 0 && !same)
                r = co_create_new(b, volume, *size, &options, &identity, err);
        b->n_busy--;
        if (r < 0 || same)
                co_image_base_forget(b);
        return r;
}

int co_image_base_create(struct command *c, const char *volume, uint64_t size, uint64_t *ret_size,
                         struct error *err)
{
        struct image_request request;
        int r = image_request_init(&request, c, err);

        if (r < 0)
                return r;
        r = co_create(c, &request, volume, &size, err);
        image_request_end(&request);
        *ret_size = size;
        return r;
}

/* ---- elsewhere ---- */

static int co_is_the_same(struct image_base *was, struct image_base *is,
                          const struct image_identity *identity, struct error *err)
{
        const json_t *sample = json_object_get(was->about, "sample");
        int r = take_size(is, err);

        if (r < 0)
                return r;
        if (is->base_bytes != was->base_bytes)
                return error_set(err, -EINVAL, "'%s' has %llu bytes, and the image had %llu",
                                 is->image->path, (unsigned long long)is->base_bytes,
                                 (unsigned long long)was->base_bytes);
        if ((uint32_t)json_integer_value(sample) != identity->sample)
                return error_set(err, -EINVAL, "'%s' has other content than the image had",
                                 is->image->path);
        return 0;
}

/* From here on @is is the base, or nothing has changed. */
static int co_replace(struct image_base *was, struct image_base *is, struct error *err)
{
        int r = co_image_base_save(is, err);

        return r == 0 ? image_base_attach(is, was, err) : r;
}

static int refuse_complete(const struct image_base *b, const char *volume, struct error *err)
{
        return b->complete ? error_set(err, -EALREADY,
                                       "all of volume '%s/%s' is in the pool: its image is not "
                                       "needed",
                                       b->hp->name, volume)
                           : 0;
}

static int co_rebase(struct image_base *was, const char *volume, struct image_request *request,
                     struct error *err)
{
        const struct image_options options = image_request_options(request);
        struct image_base *is = image_base_new(was->hp);
        struct image_identity identity;
        json_t *bandwidth;
        int r;

        if (!is)
                return error_set(err, -ENOMEM, "out of memory");
        is->n_busy++;
        was->n_busy++;
        r = co_image_base_open_request(is, request, &identity, err);
        if (r == 0)
                r = co_is_the_same(was, is, &identity, err);
        if (r == 0 && !(is->about = about_new(is, &options, &identity)))
                r = error_set(err, -ENOMEM, "out of memory");
        if (r == 0) {
                co_image_base_copy_stop(was);
                r = refuse_complete(was, volume, err); /* by now */
        }
        if (r == 0) {
                bandwidth = json_object_get(was->about, "bandwidth");
                if (bandwidth)
                        json_object_set(is->about, "bandwidth", bandwidth);
                is->id = was->id;
                r = co_replace(was, is, err);
        }
        is->n_busy--;
        was->n_busy--;
        co_image_base_forget(r < 0 ? is : was);
        return r;
}

static int co_find_and_rebase(struct command *c, const char *volume, struct error *err)
{
        struct image_request request;
        struct image_base *b;
        uint64_t id = 0;
        int r = co_image_base_of(c->hp, volume, &id, err);

        if (r < 0)
                return r;
        b = image_base_find(c->hp, id);
        if (!b)
                return error_set(err, -EINVAL, "volume '%s/%s' does not stand on an image",
                                 c->hp->name, volume);
        r = refuse_complete(b, volume, err);
        if (r < 0)
                return r;
        r = image_request_init(&request, c, err);
        if (r < 0)
                return r;
        r = co_rebase(b, volume, &request, err);
        image_request_end(&request);
        b = image_base_find(c->hp, id);
        if (b && b->image && json_object_get(b->about, "bandwidth") && c->host->control_path)
                return image_base_copy_start(b, err) < 0 ? -ENOMEM : r;
        return r;
}

int co_volume_rebase(struct command *c, struct error *err)
{
        const char *volume;
        int r = command_volume(c, "volume", &volume, err);

        if (r < 0)
                return r;
        co_lock(&c->hp->bases_lock);
        r = co_find_and_rebase(c, volume, err);
        co_unlock(&c->hp->bases_lock);
        return r;
}
