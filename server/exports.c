/* exports.c - what NBD export names mean: POOL/VOL, VOL where unique, "" for a server's only
 * volume, each with @SNAP for a snapshot, read-only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "server/command.h"

static int check_complete(const struct root_info *info, void *arg)
{
        return import_is_under_way(info) ? -ENOENT : 0;
}

struct only {
        unsigned n;
        char name[POOL_NAME_MAX + 1];
};

static int count_volume(const struct root_info *info, void *arg)
{
        struct only *only = arg;

        if (info->kind == ROOT_VOLUME && !import_is_under_way(info) && only->n++ == 0)
                snprintf(only->name, sizeof(only->name), "%s", info->volume);
        return 0;
}

/* The server's only volume. */
static int co_find_only(struct host *host, struct host_pool **ret_pool, char *ret_name, size_t size,
                        struct error *err)
{
        struct only only = {0};
        struct host_pool *found = NULL;

        list_for_each (it, &host->pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);
                int r = co_pool_list(hp->pool, count_volume, &only, err);

                if (r < 0)
                        return r;
                if (only.n > 0 && !found)
                        found = hp;
        }
        if (only.n != 1)
                return error_set(err, -ENOENT,
                                 "the empty export name is for a server with one volume; this one "
                                 "has %u",
                                 only.n);
        snprintf(ret_name, size, "%s", only.name);
        *ret_pool = found;
        return 0;
}

/* VOL or VOL@SNAP in any pool, if only one has it. */
static int co_find_bare(struct host *host, const char *name, struct host_pool **ret_pool,
                        struct error *err)
{
        struct host_pool *found = NULL;
        unsigned n = 0;

        list_for_each (it, &host->pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                if (co_root_get(hp->pool, name, check_complete, NULL, NULL) == 0 && n++ == 0)
                        found = hp;
        }
        if (n == 0)
                return error_set(err, -ENOENT, "there is no volume '%s'", name);
        if (n > 1)
                return error_set(err, -ENOENT, "%u pools have a volume '%s': say POOL/%s", n, name,
                                 name);
        *ret_pool = found;
        return 0;
}

static int co_resolve(struct host *host, const char *name, struct host_pool **ret_pool,
                      char *ret_name, size_t size, struct error *err)
{
        const char *slash = strchr(name, '/');
        char pool[POOL_NAME_MAX + 1];

        if (name[0] == '\0')
                return co_find_only(host, ret_pool, ret_name, size, err);
        if (!slash) {
                if ((size_t)snprintf(ret_name, size, "%s", name) >= size)
                        return error_set(err, -ENOENT, "there is no volume of so long a name");
                return co_find_bare(host, name, ret_pool, err);
        }
        if ((size_t)(slash - name) >= sizeof(pool) ||
            (size_t)snprintf(ret_name, size, "%s", slash + 1) >= size)
                return error_set(err, -ENOENT, "there is no volume of so long a name");
        snprintf(pool, sizeof(pool), "%.*s", (int)(slash - name), name);
        return host_find(host, pool, ret_pool, err);
}

static bool is_barred(const struct host_pool *hp, const char *name)
{
        list_for_each (it, &hp->host->bars) {
                const struct host_bar *bar = container_of(it, struct host_bar, link);

                if (bar->pool == hp && host_name_is_of(name, bar->volume))
                        return true;
        }
        return false;
}

int co_host_open_volume(struct host_pool *hp, const char *target, struct volume **ret_volume,
                        struct error *err)
{
        struct host_opening opening = {.pool = hp, .target = target};
        bool barred = is_barred(hp, target);
        struct volume *volume = NULL;
        int r = 0;

        if (!barred) {
                list_append(&hp->host->openings, &opening.link);
                r = co_volume_open(hp->pool, target, &volume, err);
                barred = is_barred(hp, target);
                if (r == 0 && barred)
                        co_volume_close(volume);
                list_remove(&opening.link);
                co_wake_all(&hp->host->opened);
        }
        if (r == 0 && barred)
                return error_set(err, -EPERM, "'%s/%s' is being changed; try again",
                                 hp->state->name, target);
        if (r == 0)
                *ret_volume = volume;
        return r;
}

static void describe(bool snapshot, uint64_t size_bytes, char *text, size_t size)
{
        char size_text[SIZE_TEXT_MAX];

        snprintf(text, size, "%s, %s", snapshot ? "snapshot" : "volume",
                 size_format(size_bytes, size_text));
}

static int co_export_open(void *arg, const char *name, struct nbd_client *client,
                          struct nbd_export *ret_export, struct error *err)
{
        struct host *host = arg;
        char target[2 * POOL_NAME_MAX + 2];
        struct host_export *e;
        struct host_pool *hp = NULL;
        int r;

        r = co_resolve(host, name, &hp, target, sizeof(target), err);
        if (r < 0)
                return r;
        e = calloc(1, sizeof(*e));
        if (!e)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_host_open_volume(hp, target, &e->volume, err);
        if (r < 0) {
                free(e);
                return r;
        }
        e->pool = hp;
        e->client = client;
        e->readonly = volume_is_readonly(e->volume);
        snprintf(e->name, sizeof(e->name), "%s/%s", hp->state->name, target);
        list_append(&host->exports, &e->link);
        *ret_export = (struct nbd_export){.volume = e->volume, .readonly = e->readonly, .priv = e};
        memcpy(ret_export->name, e->name, sizeof(ret_export->name));
        describe(strchr(target, '@') != NULL, volume_size(e->volume), ret_export->description,
                 sizeof(ret_export->description));
        return 0;
}

static void co_export_close(void *arg, struct nbd_export *export)
{
        struct host_export *e = export->priv;

        list_remove(&e->link);
        co_volume_close(e->volume);
        free(e);
}

struct listing {
        const char *pool;
        int (*each)(const char *name, const char *description, void *arg);
        void *arg;
};

static int list_root(const struct root_info *info, void *arg)
{
        struct listing *l = arg;
        char name[256], description[256];

        if (import_is_under_way(info))
                return 0;
        if (info->kind == ROOT_SNAPSHOT)
                snprintf(name, sizeof(name), "%s/%s@%s", l->pool, info->volume, info->snapshot);
        else
                snprintf(name, sizeof(name), "%s/%s", l->pool, info->volume);
        describe(info->kind == ROOT_SNAPSHOT, info->size_bytes, description, sizeof(description));
        return l->each(name, description, l->arg);
}

static int co_export_list(void *arg,
                          int (*each)(const char *name, const char *description, void *each_arg),
                          void *each_arg, struct error *err)
{
        struct host *host = arg;

        list_for_each (it, &host->pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);
                struct listing l = {.pool = hp->state->name, .each = each, .arg = each_arg};
                int r = co_pool_list(hp->pool, list_root, &l, err);

                if (r != 0)
                        return r;
        }
        return 0;
}

struct nbd_exports host_exports(struct host *host)
{
        return (struct nbd_exports){.co_open = co_export_open,
                                    .co_close = co_export_close,
                                    .co_list = co_export_list,
                                    .arg = host};
}
