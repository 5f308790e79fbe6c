/* command_export.c - volumes and snapshots into image files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "server/image_base.h"
#include "server/image_request.h"
#include "server/verify.h"

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

static int co_export_volume(struct image_request *q, struct volume *volume, struct error *err)
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
        const struct transfer_side from = {.volume = volume, .pool = c->hp->name};
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

static int co_export(struct command *c, struct image_request *q, const char *name,
                     struct error *err)
{
        char frozen[2 * POOL_NAME_MAX + 64];
        bool temporary;
        struct volume *volume;
        int r = co_freeze(c, name, frozen, sizeof(frozen), &temporary, err);

        if (r < 0)
                return r;
        r = co_volume_open(c->hp->pool, frozen, &volume, err);
        if (r == 0) {
                r = co_image_base_check(c->hp, volume, err);
                if (r == 0)
                        r = image_base_explain(c->hp, volume, co_export_volume(q, volume, err),
                                               err);
                co_volume_close(volume);
        }
        if (temporary && co_snapshot_delete(c->hp->pool, frozen, NULL) < 0)
                log_warning("snapshot '%s/%s', made for an export, could not be deleted",
                            c->hp->name, frozen);
        return r;
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
