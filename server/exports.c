/* exports.c - what NBD export names mean: POOL/VOL, VOL where unique, "" for a server's only
 * volume, each with @SNAP for a snapshot, read-only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "server/command.h"
#include "server/events.h"
#include "server/image_base.h"

#define NAMES_MAX 64u /* that a client's certificate gives it; the NBD server has a lower limit */

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
                int r;

                co_move(hp->loop);
                r = co_pool_list(hp->pool, count_volume, &only, err);
                co_move(host->loop);
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

                co_move(hp->loop);
                if (co_root_get(hp->pool, name, check_complete, NULL, NULL) == 0 && n++ == 0)
                        found = hp;
                co_move(host->loop);
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

int co_host_open_volume(struct host_pool *hp, const char *target, struct volume **ret_volume,
                        struct error *err)
{
        struct host_opening opening = {.target = target};
        bool barred = host_is_barred(hp, target);
        struct volume *volume = NULL;
        int r = 0;

        if (!barred) {
                list_append(&hp->openings, &opening.link);
                r = co_volume_open(hp->pool, target, &volume, err);
                if (r == 0)
                        r = co_image_base_check(hp, volume, err);
                barred = host_is_barred(hp, target); /* also what began as the above waited */
                if (volume && (r < 0 || barred))
                        co_volume_close(volume);
                list_remove(&opening.link);
                co_wake_all(&hp->opened);
        }
        if (r == 0 && barred)
                return error_set(err, -EPERM, "'%s/%s' is being changed; try again", hp->name,
                                 target);
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

static enum access_right right_of(const struct access_list *access, const struct nbd_client *client,
                                  const char *export)
{
        const char *names[NAMES_MAX];
        size_t n = 0;

        while (n < NAMES_MAX && (names[n] = nbd_client_identity(client, (unsigned)n)))
                n++;
        return access_decide(access, names, n, export);
}

static void tell(const struct host_export *e, const char *event)
{
        events_emit(e->pool, event,
                    json_pack("{s:s, s:s, s:b}", "volume", volume_name(e->volume), "user", e->user,
                              "readonly", e->readonly));
}

/* On the pool's loop. */
static int co_open_target(struct host_pool *hp, const char *target, bool readonly, bool to_use,
                          const struct nbd_client *client, struct nbd_export *ret_export,
                          struct error *err)
{
        const char *peer = nbd_client_peer(client);
        struct host_export *e = calloc(1, sizeof(*e));
        int r;

        if (!e)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_host_open_volume(hp, target, &e->volume, err);
        if (r < 0) {
                free(e);
                return r;
        }
        e->pool = hp;
        e->to_use = to_use;
        e->client = client;
        e->readonly = readonly || volume_is_readonly(e->volume);
        snprintf(e->peer, sizeof(e->peer), "%s", peer);
        snprintf(e->user, sizeof(e->user), "nbd %s", peer);
        volume_set_user(e->volume, e->user);
        list_append(&hp->exports, &e->link);
        if (to_use)
                tell(e, "client-connected");
        *ret_export = (struct nbd_export){.volume = e->volume, .readonly = e->readonly, .priv = e};
        snprintf(ret_export->name, sizeof(ret_export->name), "%s/%s", hp->name, target);
        describe(strchr(target, '@') != NULL, volume_size(e->volume), ret_export->description,
                 sizeof(ret_export->description));
        return 0;
}

static int co_open_right(struct host *host, const char *name, bool to_use,
                         struct nbd_client *client, struct nbd_export *ret_export,
                         struct error *err)
{
        char target[2 * POOL_NAME_MAX + 2], canonical[sizeof(ret_export->name)];
        struct host_pool *hp = NULL;
        enum access_right right;
        int r;

        r = co_resolve(host, name, &hp, target, sizeof(target), err);
        if (r < 0)
                return r;
        snprintf(canonical, sizeof(canonical), "%s/%s", hp->name, target);
        right = right_of(host->access, client, canonical);
        if (right == ACCESS_NONE)
                return error_set(err, -ENOENT, "'%s' is not for this client", name);
        co_move(hp->loop);
        r = co_open_target(hp, target, right == ACCESS_READ, to_use, client, ret_export, err);
        co_move(host->loop);
        return r;
}

/* Who may not open everything gets the same answer for what there is not and for what is not for
 * him. */
static int co_export_open(void *arg, const char *name, bool to_use, struct nbd_client *client,
                          struct nbd_export *ret_export, struct error *err)
{
        struct host *host = arg;
        int r = co_open_right(host, name, to_use, client, ret_export, err);

        if (r == -ENOENT && host->access)
                error_set(err, r, "there is no export '%s' for this client", name);
        return r;
}

static void co_export_close(void *arg, struct nbd_export *export)
{
        struct host_export *e = export->priv;
        struct host_pool *hp = e->pool;
        struct loop *from = co_move(hp->loop);

        if (e->to_use)
                tell(e, "client-disconnected");
        co_volume_close(e->volume);
        list_remove(&e->link); /* not before: who finds no export expects no handle */
        free(e);
        co_wake_all(&hp->opened);
        co_move(from);
}

struct listing {
        struct access_list *access; /* held: what is in force may be read anew meanwhile */
        struct nbd_client *client;
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
        if (right_of(l->access, l->client, name) == ACCESS_NONE)
                return 0;
        describe(info->kind == ROOT_SNAPSHOT, info->size_bytes, description, sizeof(description));
        return l->each(name, description, l->arg);
}

static int co_export_list(void *arg, struct nbd_client *client,
                          int (*each)(const char *name, const char *description, void *each_arg),
                          void *each_arg, struct error *err)
{
        struct host *host = arg;

        struct listing l = {
            .access = access_ref(host->access), .client = client, .each = each, .arg = each_arg};
        int r = 0;

        for (struct list *it = host->pools.next; r == 0 && it != &host->pools; it = it->next) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                l.pool = hp->name;
                co_move(hp->loop);
                r = co_pool_list(hp->pool, list_root, &l, err);
                co_move(host->loop);
        }
        access_unref(l.access);
        return r;
}

/* ---- snapshots of an export's volume ---- */

/* Of VOL or VOL@SNAP as it is named now: a rename may have come between. -ENOENT: it was deleted. */
static int export_volume_name(const struct nbd_export *export, char name[POOL_NAME_MAX + 1])
{
        const char *full = volume_name(export->volume);

        snprintf(name, POOL_NAME_MAX + 1, "%.*s", (int)strcspn(full, "@"), full);
        return pool_name_check(name, "volume", NULL) < 0 ? -ENOENT : 0;
}

/* On the pool's loop. */
static int co_open_snapshot(const struct nbd_export *export, const char *snapshot,
                            struct volume **ret_volume, struct error *err)
{
        const struct host_export *e = export->priv;
        char volume[POOL_NAME_MAX + 1], target[2 * POOL_NAME_MAX + 2];

        if (export_volume_name(export, volume) < 0 ||
            pool_name_check(snapshot, "snapshot", NULL) < 0)
                return error_set(err, -ENOENT, "there is no such snapshot");
        snprintf(target, sizeof(target), "%s@%s", volume, snapshot);
        return co_host_open_volume(e->pool, target, ret_volume, err);
}

/* Who may open an export may know what changed since the snapshots of its volume. */
static int co_export_snapshot_open(void *arg, const struct nbd_export *export, const char *snapshot,
                                   struct volume **ret_volume, struct error *err)
{
        const struct host_export *e = export->priv;
        struct loop *from = co_move(e->pool->loop);
        int r = co_open_snapshot(export, snapshot, ret_volume, err);

        co_move(from);
        return r;
}

static void co_export_snapshot_close(void *arg, struct volume *snapshot)
{
        co_volume_close(snapshot);
}

struct snapshot_listing {
        const char *volume;
        int (*each)(const char *snapshot, void *arg);
        void *arg;
};

static int list_snapshot(const struct root_info *info, void *arg)
{
        const struct snapshot_listing *l = arg;

        if (info->kind != ROOT_SNAPSHOT || strcmp(info->volume, l->volume) != 0)
                return 0;
        return l->each(info->snapshot, l->arg);
}

static int co_export_snapshot_list(void *arg, const struct nbd_export *export,
                                   int (*each)(const char *snapshot, void *each_arg),
                                   void *each_arg, struct error *err)
{
        const struct host_export *e = export->priv;
        char volume[POOL_NAME_MAX + 1];
        struct snapshot_listing l = {.volume = volume, .each = each, .arg = each_arg};
        struct loop *from = co_move(e->pool->loop);
        int r = 0;

        if (export_volume_name(export, volume) == 0)
                r = co_pool_list(e->pool->pool, list_snapshot, &l, err);
        co_move(from);
        return r;
}

struct nbd_exports host_exports(struct host *host)
{
        return (struct nbd_exports){.co_open = co_export_open,
                                    .co_close = co_export_close,
                                    .co_list = co_export_list,
                                    .co_snapshot_open = co_export_snapshot_open,
                                    .co_snapshot_close = co_export_snapshot_close,
                                    .co_snapshot_list = co_export_snapshot_list,
                                    .arg = host};
}
