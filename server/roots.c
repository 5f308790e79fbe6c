/* roots.c - volumes and snapshots as JSON. */
#include "server/roots.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct walk {
        struct host_pool *hp;
        struct roots *roots;
        json_t *by_name; /* full name -> object, borrowed by way of a reference */
};

static void full_name(const struct host_pool *hp, const char *volume, const char *snapshot,
                      char text[FULL_NAME_MAX])
{
        snprintf(text, FULL_NAME_MAX, "%s/%s%s%s", hp->name, volume, snapshot ? "@" : "",
                 snapshot ? snapshot : "");
}

static json_t *common_json(const struct walk *w, const struct root_info *info)
{
        char name[FULL_NAME_MAX], origin[FULL_NAME_MAX] = "";

        full_name(w->hp, info->volume, info->snapshot, name);
        if (info->origin_volume && info->origin_snapshot)
                full_name(w->hp, info->origin_volume, info->origin_snapshot, origin);
        return json_pack("{s:s, s:s, s:s, s:o, s:I, s:o, s:I, s:I, s:s?}", "name", name, "pool",
                         w->hp->name, "volume", info->volume, "uuid", json_uuid(info->uuid), "size",
                         (json_int_t)info->size_bytes, "created", json_time(info->created_ns),
                         "referenced", (json_int_t)info->referenced_bytes, "freed_if_deleted",
                         (json_int_t)info->freed_if_deleted_bytes, "parent",
                         origin[0] ? origin : NULL);
}

static int add_root(const struct root_info *info, void *arg)
{
        struct walk *w = arg;
        json_t *j = common_json(w, info);

        if (!j)
                return -ENOMEM;
        json_object_set(w->by_name, json_string_value(json_object_get(j, "name")), j);
        if (info->kind == ROOT_VOLUME) {
                char users[256];

                json_object_set_new(j, "snapshots", json_integer(0));
                json_object_set_new(
                    j, "users",
                    json_integer(host_users(w->hp, info->volume, users, sizeof(users))));
                json_array_append_new(w->roots->volumes, j);
        } else {
                json_object_set_new(j, "snapshot", json_string(info->snapshot));
                json_object_set_new(j, "children", json_integer(info->n_children));
                json_object_set_new(j, "clones", json_array());
                json_array_append_new(w->roots->snapshots, j);
        }
        return 0;
}

/* A volume whose parent is a snapshot of another volume is its clone. */
static void connect_clones(struct walk *w)
{
        json_t *v;
        size_t i;

        json_array_foreach (w->roots->volumes, i, v) {
                const char *parent = json_string_value(json_object_get(v, "parent"));
                json_t *snapshot = parent ? json_object_get(w->by_name, parent) : NULL;

                if (snapshot && strcmp(json_string_value(json_object_get(snapshot, "volume")),
                                       json_string_value(json_object_get(v, "volume"))) != 0)
                        json_array_append(json_object_get(snapshot, "clones"),
                                          json_object_get(v, "name"));
        }
}

static void count_snapshots(struct walk *w)
{
        json_t *s;
        size_t i;

        json_array_foreach (w->roots->snapshots, i, s) {
                char name[FULL_NAME_MAX];
                json_t *volume, *count;

                full_name(w->hp, json_string_value(json_object_get(s, "volume")), NULL, name);
                volume = json_object_get(w->by_name, name);
                count = json_object_get(volume, "snapshots");
                if (count)
                        json_integer_set(count, json_integer_value(count) + 1);
        }
}

int co_roots_list(struct host_pool *hp, struct roots *roots, struct error *err)
{
        struct walk w = {.hp = hp, .roots = roots, .by_name = json_object()};
        int r;

        *roots = (struct roots){.volumes = json_array(), .snapshots = json_array()};
        r = co_pool_list(hp->pool, add_root, &w, err);
        if (r == 0) {
                connect_clones(&w);
                count_snapshots(&w);
        }
        json_decref(w.by_name);
        return r;
}

void roots_release(struct roots *roots)
{
        json_decref(roots->volumes);
        json_decref(roots->snapshots);
        *roots = (struct roots){0};
}

json_t *roots_find(json_t *array, const char *name)
{
        json_t *j;
        size_t i;

        json_array_foreach (array, i, j)
                if (strcmp(json_string_value(json_object_get(j, "name")), name) == 0)
                        return j;
        return NULL;
}
