/* command_volume.c - create, list, show, resize, rename, delete, set, clone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "server/attach.h"
#include "server/command.h"
#include "server/image_base.h"
#include "server/property.h"
#include "server/roots.h"

int co_volume_create_one(struct command *c, struct error *err)
{
        const char *volume;
        bool on_base = command_flag(c, "base");
        uint64_t size = 0;
        int r;

        r = command_volume(c, "volume", &volume, err);
        if (r == 0 && (!on_base || json_object_get(c->request, "size")))
                r = command_size(c, "size", &size, err);
        if (r == 0 && on_base)
                r = co_image_base_create(c, volume, size, &size, err);
        else if (r == 0)
                r = co_volume_create(c->hp->pool, volume, size, err);
        if (r < 0)
                return r;
        attach_volume_made(c->hp, volume);
        json_object_set_new(c->reply, "size", json_integer((json_int_t)size));
        return on_base && json_object_get(c->request, "bandwidth") ? co_volume_hydrate(c, err) : 0;
}

static int keep_property(const char *key, const char *value, void *arg)
{
        return json_object_set_new(arg, key, json_string(value));
}

/* What is in force: what was set, and the defaults of the rest. */
static int co_properties(struct command *c, const char *volume, json_t **ret, struct error *err)
{
        json_t *properties = property_defaults();
        int r = co_volume_get_properties(c->hp->pool, volume, keep_property, properties, err);

        if (r < 0) {
                json_decref(properties);
                return r;
        }
        *ret = properties;
        return 0;
}

int co_volume_list_all(struct command *c, struct error *err)
{
        struct roots roots;
        int r = co_roots_list(c->hp, &roots, err);

        if (r == 0)
                json_object_set(c->reply, "volumes", roots.volumes);
        roots_release(&roots);
        return r;
}

static bool is_of_volume(json_t *snapshot, const char *volume)
{
        return strcmp(json_string_value(json_object_get(snapshot, "volume")), volume) == 0;
}

static void co_show_base(struct command *c, const char *volume)
{
        uint64_t id = 0;

        if (co_image_base_of(c->hp, volume, &id, NULL) == 0 && id)
                json_object_set_new(c->reply, "base", co_image_base_json(c->hp, id));
}

int co_volume_show(struct command *c, struct error *err)
{
        json_t *v = NULL, *properties = NULL, *snapshots, *s;
        struct roots roots = {0};
        char name[2 * POOL_NAME_MAX + 2];
        const char *volume;
        size_t i;
        int r;

        r = command_volume(c, "volume", &volume, err);
        if (r == 0)
                r = co_roots_list(c->hp, &roots, err);
        if (r == 0) {
                snprintf(name, sizeof(name), "%s/%s", c->hp->name, volume);
                v = roots_find(roots.volumes, name);
                if (!v)
                        r = error_set(err, -ENOENT, "there is no volume '%s'", name);
        }
        if (r == 0)
                r = co_properties(c, volume, &properties, err);
        if (r == 0) {
                char users[512];

                json_object_update(c->reply, v);
                json_object_set_new(c->reply, "properties", properties);
                snapshots = json_array();
                json_array_foreach (roots.snapshots, i, s)
                        if (is_of_volume(s, volume))
                                json_array_append(snapshots, json_object_get(s, "name"));
                json_object_set_new(c->reply, "snapshots", snapshots);
                host_users(c->hp, volume, users, sizeof(users));
                json_object_set_new(c->reply, "used_by", json_string(users));
                json_object_set_new(c->reply, "attached", attach_json(c->hp, volume));
                co_show_base(c, volume);
        }
        roots_release(&roots);
        return r;
}

static int keep_size(const struct root_info *info, void *arg)
{
        *(uint64_t *)arg = info->size_bytes;
        return 0;
}

int co_volume_resize_one(struct command *c, struct error *err)
{
        uint64_t size, now = 0;
        struct host_bar bar;
        const char *volume;
        int r;

        r = command_volume(c, "volume", &volume, err);
        if (r == 0)
                r = command_size(c, "size", &size, err);
        if (r == 0)
                r = co_root_get(c->hp->pool, volume, keep_size, &now, err);
        if (r < 0)
                return r;
        if (size >= now) {
                r = co_volume_grow(c->hp->pool, volume, size, err);
                if (r == 0)
                        attach_volume_resized(c->hp, volume);
                return r;
        }
        if (!command_flag(c, "shrink"))
                return error_set(err, -EPERM, "'%s/%s' would lose what lies behind %llu bytes",
                                 c->hp->name, volume, (unsigned long long)size);
        r = co_host_bar(&bar, c->hp, volume, "shrink", command_flag(c, "force"), err);
        if (r < 0)
                return r;
        r = co_volume_resize(c->hp->pool, volume, size, err);
        host_unbar(&bar);
        if (r == 0)
                attach_volume_resized(c->hp, volume);
        return r;
}

int co_volume_rename_one(struct command *c, struct error *err)
{
        const char *volume, *new_name;
        int r;

        r = command_volume(c, "volume", &volume, err);
        if (r == 0)
                r = command_volume(c, "new_name", &new_name, err);
        if (r == 0)
                r = attach_check_rename(c->hp, volume, err);
        if (r == 0 && host_is_barred(c->hp, volume))
                r = error_set(err, -EBUSY, "'%s/%s' is being changed, or exported", c->hp->name,
                              volume);
        if (r == 0)
                r = co_volume_rename(c->hp->pool, volume, new_name, err);
        if (r == 0) {
                co_host_renamed(c->hp, volume, new_name);
                attach_volume_renamed(c->hp, volume, new_name);
        }
        return r;
}

int co_volume_delete_one(struct command *c, struct error *err)
{
        const char *volume;
        struct host_bar bar;
        int r;

        r = command_volume(c, "volume", &volume, err);
        if (r == 0)
                r = co_host_bar(&bar, c->hp, volume, "delete", command_flag(c, "force"), err);
        if (r < 0)
                return r;
        if (!command_flag(c, "force")) /* the snapshots */
                r = co_attach_refuse_gone(c->hp, volume, err);
        if (r == 0)
                r = co_volume_delete(c->hp->pool, volume, command_flag(c, "snapshots"), err);
        host_unbar(&bar);
        if (r == 0)
                co_attach_volume_gone(c->hp, volume);
        if (r == -ENOTEMPTY) {
                error_set(err, r, "volume '%s/%s' has snapshots", c->hp->name, volume);
                error_hint(err, "'tarn volume delete --snapshots %s/%s' deletes them with it",
                           c->hp->name, volume);
        }
        return r;
}

/* All are checked before the first is set: they take effect one by one, and none where one is
 * wrong. */
int co_volume_set_all(struct command *c, struct error *err)
{
        json_t *properties = json_object_get(c->request, "properties"), *value;
        json_t *notes = json_array();
        const char *volume, *key;
        int r;

        json_object_set_new(c->reply, "notes", notes);
        r = command_volume(c, "volume", &volume, err);
        if (r == 0 && !json_is_object(properties))
                r = error_set(err, -EINVAL, "the request lacks 'properties'");
        if (r < 0)
                return r;
        json_object_foreach (properties, key, value) {
                char note[256] = "";

                if (!json_is_string(value))
                        return error_set(err, -EINVAL, "property '%.64s' is not a text", key);
                r = property_check(key, json_string_value(value), note, sizeof(note), err);
                if (r < 0)
                        return r;
                if (note[0])
                        json_array_append_new(notes, json_string(note));
        }
        json_object_foreach (properties, key, value) {
                const char *text = json_string_value(value);
                bool none = text[0] == '\0' || strcmp(text, "none") == 0;

                r = co_volume_set(c->hp->pool, volume, key, none ? NULL : text, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int co_volume_clone_one(struct command *c, struct error *err)
{
        struct snapshot_name parsed;
        const char *name, *volume;
        int r = command_snapshot(c, "snapshot", &name, &parsed, err);

        if (r == 0)
                r = command_volume(c, "volume", &volume, err);
        if (r == 0)
                r = co_snapshot_clone(c->hp->pool, name, volume, err);
        if (r == 0)
                attach_volume_made(c->hp, volume);
        return r;
}
