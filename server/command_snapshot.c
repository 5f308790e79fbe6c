/* command_snapshot.c - create, list, restore, delete, diff. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/attach.h"
#include "server/command.h"
#include "server/roots.h"

#define SNAPSHOT_GROUP_MAX 1024u
/* 64 MiB of JSON; a diff of more pieces is for a block-status client. */
#define DIFF_RANGES_MAX 1000000u
#define KEEP_ATTEMPTS   100

int co_snapshot_create_all(struct command *c, struct error *err)
{
        json_t *names = json_object_get(c->request, "names");
        size_t n = json_array_size(names);
        const char **list;
        int r = 0;

        if (n == 0 || n > SNAPSHOT_GROUP_MAX)
                return error_set(err, -EINVAL, "a snapshot is of 1 to %u volumes",
                                 SNAPSHOT_GROUP_MAX);
        list = calloc(n, sizeof(*list));
        if (!list)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < n; i++) {
                struct snapshot_name parsed;

                list[i] = json_string_value(json_array_get(names, i));
                r = list[i] ? snapshot_name_parse(list[i], &parsed, err)
                            : error_set(err, -EINVAL, "'names' holds what is not a text");
        }
        if (r == 0)
                r = co_snapshot_create(c->hp->pool, list, n, err);
        free(list);
        return r;
}

int co_snapshot_list_all(struct command *c, struct error *err)
{
        struct roots roots;
        int r = co_roots_list(c->hp, &roots, err);

        if (r == 0) {
                json_object_set(c->reply, "snapshots", roots.snapshots);
                json_object_set(c->reply, "volumes", roots.volumes);
        }
        roots_release(&roots);
        return r;
}

/* "before-restore-20261122-102030", with "-2" and so on where that is taken: several restores a
 * second. */
static int co_restore_keeping(struct command *c, const char *name, char *keep, size_t size,
                              struct error *err)
{
        char stamp[32];
        time_t now = time(NULL);
        struct tm tm;
        int r = -EEXIST;

        localtime_r(&now, &tm);
        strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
        for (int i = 1; r == -EEXIST && i <= KEEP_ATTEMPTS; i++) {
                if (i == 1)
                        snprintf(keep, size, "before-restore-%s", stamp);
                else
                        snprintf(keep, size, "before-restore-%s-%d", stamp, i);
                r = co_snapshot_restore(c->hp->pool, name, keep, err);
        }
        return r;
}

int co_snapshot_restore_one(struct command *c, struct error *err)
{
        struct snapshot_name parsed;
        char keep[POOL_NAME_MAX + 1];
        struct host_bar bar;
        const char *name;
        int r = command_snapshot(c, "snapshot", &name, &parsed, err);

        if (r == 0)
                r = co_host_bar(&bar, c->hp, parsed.volume, "restore", command_flag(c, "force"),
                                err);
        if (r < 0)
                return r;
        if (command_flag(c, "discard_current"))
                r = co_snapshot_restore(c->hp->pool, name, NULL, err);
        else
                r = co_restore_keeping(c, name, keep, sizeof(keep), err);
        host_unbar(&bar);
        if (r == 0 && !command_flag(c, "discard_current"))
                json_object_set_new(c->reply, "kept",
                                    json_sprintf("%s/%s@%s", c->hp->name, parsed.volume, keep));
        return r;
}

int co_snapshot_delete_one(struct command *c, struct error *err)
{
        struct snapshot_name parsed;
        const char *name;
        int r = command_snapshot(c, "snapshot", &name, &parsed, err);

        /* Whoever reads it over NBD goes on; an attachment goes with its name. */
        if (r == 0 && !command_flag(c, "force"))
                r = co_attach_refuse_gone(c->hp, name, err);
        if (r == 0)
                r = co_snapshot_delete(c->hp->pool, name, err);
        if (r == 0)
                co_attach_volume_gone(c->hp, name);
        return r;
}

struct diff {
        json_t *ranges;
        uint64_t changed_bytes;
};

static int add_range(uint64_t offset, uint64_t length, void *arg)
{
        struct diff *d = arg;

        if (json_array_size(d->ranges) >= DIFF_RANGES_MAX)
                return -E2BIG;
        d->changed_bytes += length;
        return json_array_append_new(d->ranges,
                                     json_pack("{s:I, s:I}", "offset", (json_int_t)offset, "length",
                                               (json_int_t)length)) < 0
                   ? -ENOMEM
                   : 0;
}

int co_snapshot_diff(struct command *c, struct error *err)
{
        struct diff d = {.ranges = json_array()};
        const char *a, *b;
        int r;

        json_object_set_new(c->reply, "ranges", d.ranges);
        r = command_root(c, "a", &a, err);
        if (r == 0)
                r = command_root(c, "b", &b, err);
        if (r < 0)
                return r;
        r = co_pool_diff(c->hp->pool, a, b, add_range, &d, err);
        if (r == -E2BIG)
                return error_set(err, r, "'%s' and '%s' differ in more than %u places", a, b,
                                 DIFF_RANGES_MAX);
        if (r < 0)
                return r;
        json_object_set_new(c->reply, "a", json_sprintf("%s/%s", c->hp->name, a));
        json_object_set_new(c->reply, "b", json_sprintf("%s/%s", c->hp->name, b));
        json_object_set_new(c->reply, "changed_bytes", json_integer((json_int_t)d.changed_bytes));
        return 0;
}
