/* command_export.c - volumes and snapshots into image files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "server/image_base.h"
#include "server/image_request.h"
#include "server/verify.h"

#define FROZEN_NAME_MAX (2 * POOL_NAME_MAX + 64)

/* Whether nobody writes to it, and nobody can begin to. */
static bool is_still(const struct command *c, const char *name)
{
        struct pool_info info;

        if (strchr(name, '@') || !c->host->control_path)
                return true;
        pool_get_info(c->hp->pool, &info);
        return info.readonly || info.failed;
}

static int co_export_volume(struct image_request *q, struct volume *volume, const char *name,
                            struct error *err)
{
        const struct command *c = q->command;
        const char *format = image_request_text(q, "format");
        struct image_create_options options = {
            .format = format ? format : "raw",
            .virtual_bytes = volume_size(volume),
            .variant = image_request_text(q, "variant"),
            .compression = image_request_text(q, "compression"),
            .opener = &q->opener,
            .offload = q->offload,
        };
        const struct transfer_side from = {.volume = volume, .name = name, .pool = c->hp->name};
        uint64_t cluster_bytes = 0;
        struct image *image = NULL;
        int r = 0;

        if (json_object_get(c->request, "cluster_size"))
                r = command_size(c, "cluster_size", &cluster_bytes, err);
        if (r == 0 && cluster_bytes > UINT32_MAX)
                r = error_set(err, -EINVAL, "the cluster size is too large");
        options.cluster_bytes = (uint32_t)cluster_bytes;
        if (r == 0)
                r = co_image_request_create(q, &options, &image, err);
        if (r < 0)
                return r;
        r = co_transfer(from, (struct transfer_side){.image = image}, &q->watch, err);
        if (r == 0 && command_flag(c, "verify")) {
                r = co_verify_image(from, image, &q->opener, &q->watch, err);
                json_object_set_new(c->reply, "verified", json_true());
        }
        if (r == 0)
                json_object_set_new(c->reply, "size",
                                    json_integer((json_int_t)image->virtual_bytes));
        image_close(image);
        return r;
}

static int co_export_here(struct image_request *q, struct volume *volume, const char *name,
                          struct error *err)
{
        int r = co_export_volume(q, volume, name, err);

        return image_base_explain(q->command->hp, volume, r, err);
}

/* A full pool has no room for a snapshot. What nobody uses can be kept so instead. */
static int co_export_barred(const struct command *c, struct image_request *q, const char *name,
                            struct error *err)
{
        struct error busy = ERROR_INIT;
        struct volume *volume;
        struct host_bar bar;
        int r;

        if (co_host_bar(&bar, c->hp, name, "export", false, &busy) < 0)
                return -ENOSPC;
        r = co_volume_open(c->hp->pool, name, &volume, err);
        if (r == 0) {
                r = co_export_here(q, volume, name, err);
                co_volume_close(volume);
        }
        host_unbar(&bar);
        return r;
}

/* @name may be another by now, as the volume's: @opened has it. */
static void co_unname(struct host_pool *hp, char name[FROZEN_NAME_MAX], const struct volume *opened)
{
        int r = co_snapshot_delete(hp->pool, name, NULL);

        while (r == -ENOENT && opened && strcmp(name, volume_name(opened)) != 0) {
                snprintf(name, FROZEN_NAME_MAX, "%s", volume_name(opened));
                r = co_snapshot_delete(hp->pool, name, NULL);
        }
        if (r < 0)
                log_warning("snapshot '%s/%s', made for an export, could not be deleted: %s",
                            hp->name, name, strerror(-r));
}

/* What may be opened at any time is exported as it was at one instant: from a snapshot, whose name is
 * gone as soon as it is open, so that none stays behind a server that is killed. */
static int co_export_frozen(const struct command *c, struct image_request *q, const char *name,
                            struct error *err)
{
        struct host_pool *hp = c->hp;
        char frozen[FROZEN_NAME_MAX];
        const char *list[1] = {frozen};
        struct volume *volume;
        int r;

        snprintf(frozen, sizeof(frozen), "%s@export-%lld-%llu", name, (long long)time(NULL),
                 (unsigned long long)(loop_now_ns(hp->loop) % 1000000));
        r = co_snapshot_create(hp->pool, list, 1, err);
        if (r == -ENOSPC)
                return co_export_barred(c, q, name, err);
        if (r < 0)
                return r;
        r = co_volume_open(hp->pool, frozen, &volume, err);
        if (r < 0) {
                co_unname(hp, frozen, NULL);
                return r;
        }
        co_unname(hp, frozen, volume);
        r = co_export_here(q, volume, name, err);
        co_volume_close(volume);
        return r;
}

static int co_export(struct command *c, struct image_request *q, const char *name,
                     struct error *err)
{
        bool still = is_still(c, name);
        struct volume *volume;
        int r = co_volume_open(c->hp->pool, name, &volume, err);

        if (r < 0)
                return r;
        r = co_image_base_check(c->hp, volume, err);
        if (r == 0 && still)
                r = co_export_here(q, volume, name, err);
        co_volume_close(volume);
        return r < 0 || still ? r : co_export_frozen(c, q, name, err);
}

int co_image_export(struct command *c, struct error *err)
{
        struct image_request q = {0};
        const char *name;
        int r = command_string(c, "name", &name, err);

        if (r == 0)
                r = image_request_init(&q, c, err);
        if (r < 0)
                return r;
        r = co_export(c, &q, name, err);
        image_request_end(&q);
        return r;
}
