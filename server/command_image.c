/* command_image.c - image files into volumes, volumes and snapshots into image files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "common/size.h"
#include "server/attach.h"
#include "server/transfer.h"

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

static int keep_referenced(const struct root_info *info, void *arg)
{
        *(uint64_t *)arg = info->referenced_bytes;
        return 0;
}

/* What an import that was killed left behind goes. One that still runs has it open. Killed between
 * creating and marking, it left an empty volume: of that nobody loses anything. */
static int co_remove_leftover(struct command *c, const char *volume, const char *name,
                              struct error *err)
{
        struct error e = ERROR_INIT;
        uint64_t referenced = 0;
        bool marked = false;
        int r;

        r = co_volume_get_properties(c->hp->pool, name, find_mark, &marked, err);
        if (r == 0)
                r = co_root_get(c->hp->pool, name, keep_referenced, &referenced, err);
        if (r < 0)
                return r;
        r = marked || referenced == 0 ? co_volume_delete(c->hp->pool, name, marked, &e) : -EEXIST;
        if (r == 0)
                return 0;
        if (marked && r == -EBUSY)
                return error_set(err, r, "another import into '%s/%s' is under way", c->hp->name,
                                 volume);
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
        uint64_t least = (image->virtual_bytes + VOLUME_SECTOR - 1) / VOLUME_SECTOR * VOLUME_SECTOR;
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

static int co_fill(struct command *c, struct image *image, const char *name, const char *volume,
                   struct error *err)
{
        struct volume *v;
        int r = co_volume_open(c->hp->pool, name, &v, err);

        if (r < 0)
                return r;
        r = co_transfer_import(c, image, v, err);
        co_volume_close(v);
        if (r == 0)
                r = co_volume_rename(c->hp->pool, name, volume, err);
        if (r < 0)
                return r;
        /* The import is complete; where the mark stays, it stays without a meaning. */
        if (co_volume_set(c->hp->pool, volume, IMPORT_MARK, NULL, NULL) < 0)
                log_warning("property '" IMPORT_MARK "' of '%s/%s' could not be taken away",
                            c->hp->name, volume);
        return 0;
}

int co_image_import(struct command *c, struct error *err)
{
        const char *volume, *path = json_string_value(json_object_get(c->request, "path"));
        const char *format = json_string_value(json_object_get(c->request, "format"));
        char name[POOL_NAME_MAX + 1];
        struct image *image = NULL;
        uint64_t size = 0;
        int r;

        r = command_volume(c, "volume", &volume, err);
        if (r == 0 && c->n_fds != 1)
                r = error_set(err, -EINVAL, "the request lacks the image's descriptor");
        if (r == 0)
                r = co_image_open(c->fds[0], path ? path : "image", format, &image, err);
        if (r == 0)
                r = import_size(c, image, &size, err);
        if (r == 0) {
                import_name(volume, name);
                r = co_create_for_import(c, volume, name, size, err);
        }
        if (r == 0) {
                r = co_fill(c, image, name, volume, err);
                if (r < 0 && co_volume_delete(c->hp->pool, name, true, NULL) < 0)
                        log_warning("'%s/%s', which an import that failed has left, could not be "
                                    "deleted",
                                    c->hp->name, name);
        }
        if (r == 0) {
                attach_volume_made(c->hp, volume);
                json_object_set_new(c->reply, "size", json_integer((json_int_t)size));
                json_object_set_new(c->reply, "format", json_string(image->driver->name));
                json_object_set_new(c->reply, "guessed", json_boolean(image->guessed));
        }
        image_close(image);
        return r;
}

/* ---- export ---- */

/* A volume that somebody writes to is exported as it was at one instant: from a snapshot, deleted
 * afterwards. ret_name holds the name to export, ret_temporary whether it is such a snapshot. */
static int co_freeze(struct command *c, const char *name, char *ret_name, size_t size,
                     bool *ret_temporary, struct error *err)
{
        const char *list[1] = {ret_name};
        char users[64];

        snprintf(ret_name, size, "%s", name);
        *ret_temporary = false;
        if (strchr(name, '@') || host_users(c->hp, name, users, sizeof(users)) == 0)
                return 0;
        snprintf(ret_name, size, "%s@export-%lld-%llu", name, (long long)time(NULL),
                 (unsigned long long)(loop_now_ns(c->hp->loop) % 1000000));
        *ret_temporary = true;
        return co_snapshot_create(c->hp->pool, list, 1, err);
}

int co_image_export(struct command *c, struct error *err)
{
        const char *format = json_string_value(json_object_get(c->request, "format"));
        const char *name, *path = json_string_value(json_object_get(c->request, "path"));
        char frozen[2 * POOL_NAME_MAX + 64];
        struct image *image = NULL;
        struct volume *volume = NULL;
        bool temporary = false;
        int r;

        r = command_string(c, "name", &name, err);
        if (r == 0 && c->n_fds != 1)
                r = error_set(err, -EINVAL, "the request lacks the file's descriptor");
        if (r == 0)
                r = co_freeze(c, name, frozen, sizeof(frozen), &temporary, err);
        if (r < 0)
                return r;
        r = co_volume_open(c->hp->pool, frozen, &volume, err);
        if (r == 0)
                r = co_image_create(c->fds[0], path ? path : "image", format ? format : "raw",
                                    volume_size(volume), &image, err);
        if (r == 0)
                r = co_transfer_export(c, volume, image, err);
        if (r == 0)
                json_object_set_new(c->reply, "size",
                                    json_integer((json_int_t)image->virtual_bytes));
        image_close(image);
        co_volume_close(volume);
        if (temporary && co_snapshot_delete(c->hp->pool, frozen, NULL) < 0)
                log_warning("snapshot '%s/%s', made for an export, could not be deleted",
                            c->hp->name, frozen);
        return r;
}
