/* import_snapshots.c - the snapshots inside of an image. */
#include "server/import_snapshots.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/nbd.h"
#include "server/verify.h"

uint64_t import_bytes(const struct image *image)
{
        return (image->virtual_bytes + VOLUME_SECTOR - 1) / VOLUME_SECTOR * VOLUME_SECTOR;
}

/* A file is opened anew: what is known of the places in it may be of the first time, and they may have
 * changed. An export has but the one connection. */
static int co_verify_state(struct image_request *q, struct image *image, const char *snapshot,
                           struct transfer_side made, struct error *err)
{
        struct image *again = NULL;
        int r = 0;

        if (image->fd >= 0)
                r = co_image_request_open(q, snapshot, &again, err);
        else
                nbd_forget_map(image);
        if (r == 0)
                r = co_verify((struct transfer_side){.image = again ? again : image}, made,
                              &q->watch, err);
        image_close(again);
        return r;
}

int co_import_state(struct image_request *q, struct image *image, const char *snapshot,
                    const char *name, bool over, struct error *err)
{
        const struct host_pool *hp = q->command->hp;
        struct transfer_side to = {.pool = hp->name, .over = over};
        int r = co_volume_open(hp->pool, name, &to.volume, err);

        if (r < 0)
                return r;
        r = co_transfer((struct transfer_side){.image = image}, to, &q->watch, err);
        if (r == 0 && command_flag(q->command, "verify"))
                r = co_verify_state(q, image, snapshot, to, err);
        co_volume_close(to.volume);
        return r;
}

/* ---- names ---- */

static bool is_alphanumeric(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* What pool_name_check() takes: other characters become '-', and what is there already has a number
 * behind it. */
static void legal_name(const json_t *taken, const char *name, char legal[POOL_NAME_MAX + 1])
{
        char base[POOL_NAME_MAX + 1];
        size_t n = 0;

        for (const char *p = name; *p && n < POOL_NAME_MAX; p++) {
                bool keep = is_alphanumeric(*p) || *p == '.' || *p == '_' || *p == '-';

                if (n == 0 && !is_alphanumeric(*p))
                        base[n++] = 's';
                if (n < POOL_NAME_MAX)
                        base[n++] = (char)(keep ? *p : '-');
        }
        if (n == 0)
                base[n++] = 's';
        base[n] = '\0';
        snprintf(legal, POOL_NAME_MAX + 1, "%s", base);
        for (unsigned i = 2; json_object_get(taken, legal); i++) {
                char number[16];
                int length = snprintf(number, sizeof(number), "-%u", i);

                snprintf(legal, POOL_NAME_MAX + 1, "%.*s%s", (int)(POOL_NAME_MAX - (size_t)length),
                         base, number);
        }
}

/* JSON is UTF-8, and what stands in the image need not be. */
static json_t *text_of(const char *name, const char *otherwise)
{
        json_t *text = json_string(name);

        return text ? text : json_string(otherwise);
}

/* ---- snapshots ---- */

/* @taken has the names that there are as its keys. */
static int co_take(struct image_request *q, const struct image_snapshot *s, const char *name,
                   json_t *taken, json_t *ret_snapshots, struct error *err)
{
        char legal[POOL_NAME_MAX + 1], full[2 * POOL_NAME_MAX + 2];
        const char *list[1] = {full};
        int r;

        legal_name(taken, s->name && s->name[0] ? s->name : s->id, legal);
        snprintf(full, sizeof(full), "%s@%s", name, legal);
        r = co_snapshot_create(q->command->hp->pool, list, 1, err);
        if (r == 0 && (json_object_set_new(taken, legal, json_true()) < 0 ||
                       json_array_append_new(ret_snapshots, json_pack("{s:o, s:s}", "name",
                                                                      text_of(s->name, legal),
                                                                      "snapshot", legal)) < 0))
                r = error_set(err, -ENOMEM, "out of memory");
        return r;
}

static int co_import_one(struct image_request *q, const struct image_snapshot *s, const char *name,
                         bool over, struct error *err)
{
        struct image *image;
        uint64_t bytes;
        int r;

        r = co_image_request_open(q, s->id, &image, err);
        if (r < 0)
                return r;
        bytes = import_bytes(image);
        if (bytes == 0)
                r = error_set(err, -EINVAL, "snapshot '%s' of '%s' is empty", s->name, q->path);
        if (r == 0)
                r = co_volume_resize(q->command->hp->pool, name, bytes, err);
        if (r == 0)
                r = co_import_state(q, image, s->id, name, over, err);
        image_close(image);
        return r;
}

int co_import_snapshots(struct image_request *q, const struct image *image, const char *name,
                        json_t *ret_snapshots, struct error *err)
{
        const struct image_info *info = &image->info;
        json_t *taken;
        int r = 0;

        if (info->n_snapshots > IMPORT_SNAPSHOTS_MAX)
                return error_set(err, -E2BIG, "'%s' has %zu snapshots, more than %u", q->path,
                                 info->n_snapshots, IMPORT_SNAPSHOTS_MAX);
        taken = json_object();
        if (!taken)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < info->n_snapshots; i++) {
                q->n_done = i;
                r = co_import_one(q, &info->snapshots[i], name, i > 0, err);
                if (r == 0)
                        r = co_take(q, &info->snapshots[i], name, taken, ret_snapshots, err);
        }
        json_decref(taken);
        q->n_done = info->n_snapshots;
        return r;
}
