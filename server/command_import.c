/* command_import.c - image files into volumes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "pool/base.h"
#include "server/attach.h"
#include "server/import_snapshots.h"

/* A volume is filled under this name and renamed when all of it is durable: so that the name the
 * user asked for never stands for half an image, whatever is killed meanwhile. */
#define IMPORT_SUFFIX ".importing"
/* A property that tells such a volume from one that a user gave that name. */
#define IMPORT_MARK "importing"

static void import_name(const char *volume, char name[POOL_NAME_MAX + 1])
{
        snprintf(name, POOL_NAME_MAX + 1, "%.*s%s", (int)(POOL_NAME_MAX - strlen(IMPORT_SUFFIX)),
                 volume, IMPORT_SUFFIX);
}

bool import_is_under_way(const struct root_info *info)
{
        size_t length = strlen(info->volume), suffix = strlen(IMPORT_SUFFIX);

        return length > suffix && strcmp(info->volume + length - suffix, IMPORT_SUFFIX) == 0 &&
               root_property(info, IMPORT_MARK);
}

static int ignore_root(const struct root_info *info, void *arg)
{
        return 0;
}

static int find_mark(const char *key, const char *value, void *arg)
{
        if (strcmp(key, IMPORT_MARK) == 0)
                *(bool *)arg = true;
        return 0;
}

static int look_empty(const struct root_info *info, void *arg)
{
        *(bool *)arg = info->referenced_bytes == 0 && root_base(info) == 0;
        return 0;
}

/* What an import that was killed left behind goes. Killed between creating and marking, it left an empty
 * volume: of that nobody loses anything. */
static int co_remove_leftover(struct command *c, const char *volume, const char *name,
                              struct error *err)
{
        struct error e = ERROR_INIT;
        bool marked = false, empty = false;
        int r;

        r = co_volume_get_properties(c->hp->pool, name, find_mark, &marked, err);
        if (r == 0)
                r = co_root_get(c->hp->pool, name, look_empty, &empty, err);
        if (r < 0)
                return r;
        r = marked || empty ? co_volume_delete(c->hp->pool, name, marked, &e) : -EEXIST;
        if (r == 0)
                return 0;
        error_set(err, r, "cannot import into '%s/%s': volume '%s/%s' is in the way", c->hp->name,
                  volume, c->hp->name, name);
        return error_hint(err,
                          "an import is filled under that name: 'tarn volume rename %s/%s "
                          "NEW' keeps the volume that has it",
                          c->hp->name, name);
}

static int co_create_for_import(struct command *c, const char *volume, const char *name,
                                uint64_t size, struct error *err)
{
        struct error e = ERROR_INIT;
        int r;

        if (co_root_get(c->hp->pool, volume, ignore_root, NULL, NULL) == 0)
                return error_set(err, -EEXIST, "volume '%s/%s' exists", c->hp->name, volume);
        r = co_volume_create(c->hp->pool, name, size, &e);
        if (r == -EEXIST) {
                r = co_remove_leftover(c, volume, name, &e);
                if (r == 0)
                        r = co_volume_create(c->hp->pool, name, size, &e);
        }
        if (r == 0) {
                r = co_volume_set(c->hp->pool, name, IMPORT_MARK, "yes", &e);
                if (r < 0)
                        co_volume_delete(c->hp->pool, name, false, NULL);
        }
        if (r < 0 && err)
                *err = e;
        return r;
}

static int import_size(struct command *c, const struct image *image, uint64_t *ret_size,
                       struct error *err)
{
        uint64_t least = import_bytes(image);
        char has[SIZE_TEXT_MAX], asked[SIZE_TEXT_MAX];

        *ret_size = least;
        if (least == 0)
                return error_set(err, -EINVAL, "'%s' is empty", image->path);
        if (!json_object_get(c->request, "size"))
                return 0;
        if (command_size(c, "size", ret_size, err) < 0)
                return -EINVAL;
        if (*ret_size < least)
                return error_set(err, -EINVAL,
                                 "'%s' holds %s (%llu bytes), which does not fit into %s "
                                 "(%llu bytes)",
                                 image->path, size_format(least, has), (unsigned long long)least,
                                 size_format(*ret_size, asked), (unsigned long long)*ret_size);
        return 0;
}

struct import {
        struct list link; /* in hp->imports */
        struct command *command;
        struct image_request *request;
        struct image *image;
        const char *volume;
        char name[POOL_NAME_MAX + 1]; /* until it is complete */
        uint64_t size;
        json_t *snapshots; /* NULL: none are wanted */
};

/* First what the image was, then what it is. */
static int co_fill(struct import *m, struct error *err)
{
        size_t n = m->snapshots ? m->image->info.n_snapshots : 0;
        int r = 0;

        m->request->n_states = n + 1;
        if (n > 0)
                r = co_import_snapshots(m->request, m->image, m->name, m->snapshots, err);
        if (r == 0 && n > 0)
                r = co_volume_resize(m->command->hp->pool, m->name, m->size, err);
        return r < 0 ? r
                     : co_import_state(m->request, m->image,
                                       image_request_text(m->request, "snapshot"), m->name, n > 0,
                                       err);
}

static int co_complete(const struct import *m, struct error *err)
{
        const struct host_pool *hp = m->command->hp;
        int r = co_volume_rename(hp->pool, m->name, m->volume, err);

        if (r < 0)
                return r;
        /* The import is complete; where the mark stays, it stays without a meaning. */
        if (co_volume_set(hp->pool, m->volume, IMPORT_MARK, NULL, NULL) < 0)
                log_warning("property '" IMPORT_MARK "' of '%s/%s' could not be taken away",
                            hp->name, m->volume);
        return 0;
}

static int co_import_as(struct import *m, struct error *err)
{
        struct command *c = m->command;
        int r = co_create_for_import(c, m->volume, m->name, m->size, err);
        if (r < 0)
                return r;
        r = co_fill(m, err);
        if (r == 0)
                r = co_complete(m, err);
        if (r < 0) {
                if (co_volume_delete(c->hp->pool, m->name, true, NULL) < 0)
                        log_warning("'%s/%s', which an import that failed has left, could not be "
                                    "deleted",
                                    c->hp->name, m->name);
                return r;
        }
        attach_volume_made(c->hp, m->volume);
        json_object_set_new(c->reply, "size", json_integer((json_int_t)m->size));
        json_object_set_new(c->reply, "format", json_string(m->image->driver->name));
        json_object_set_new(c->reply, "guessed", json_boolean(m->image->guessed));
        if (command_flag(c, "verify"))
                json_object_set_new(c->reply, "verified", json_true());
        if (m->snapshots)
                json_object_set(c->reply, "snapshots", m->snapshots);
        return 0;
}

/* While it runs, nobody else is to take its volume for what a killed one has left. */
static int co_import(struct import *m, struct error *err)
{
        struct host_pool *hp = m->command->hp;
        int r = import_size(m->command, m->image, &m->size, err);

        if (r < 0)
                return r;
        import_name(m->volume, m->name);
        list_for_each (it, &hp->imports)
                if (strcmp(container_of(it, struct import, link)->name, m->name) == 0)
                        return error_set(err, -EBUSY, "another import into '%s/%s' is under way",
                                         hp->name, m->volume);
        list_append(&hp->imports, &m->link);
        r = co_import_as(m, err);
        list_remove(&m->link);
        return r;
}

static int co_import_image(struct command *c, struct image_request *q, const char *volume,
                           struct error *err)
{
        const char *snapshot = image_request_text(q, "snapshot");
        struct import m = {.command = c, .request = q, .volume = volume};
        int r = 0;

        if (command_flag(c, "snapshots") && snapshot)
                return error_set(err, -EINVAL, "either all snapshots can be imported, or one");
        if (command_flag(c, "snapshots") && !(m.snapshots = json_array()))
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_request_open(q, snapshot, &m.image, err);
        if (r == 0) {
                r = co_import(&m, err);
                image_close(m.image);
        }
        json_decref(m.snapshots);
        return r;
}

int co_image_import(struct command *c, struct error *err)
{
        struct image_request q;
        const char *volume;
        int r = command_volume(c, "volume", &volume, err);

        if (r == 0)
                r = image_request_init(&q, c, err);
        if (r < 0)
                return r;
        r = co_import_image(c, &q, volume, err);
        image_request_end(&q);
        return r;
}
