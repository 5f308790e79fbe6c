/* command_attach.c - attach and detach. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/attach.h"
#include "server/command.h"
#include "server/listen.h"

/* "volume": VOL or VOL@SNAP. */
static int read_target(const struct command *c, const char **ret, struct error *err)
{
        struct snapshot_name parsed;
        int r = command_string(c, "volume", ret, err);

        if (r < 0)
                return r;
        return strchr(*ret, '@') ? snapshot_name_parse(*ret, &parsed, err)
                                 : pool_name_check(*ret, "volume", err);
}

static int read_queues(const struct command *c, unsigned *ret, struct error *err)
{
        uint64_t n;

        *ret = ATTACH_QUEUES_DEFAULT;
        if (!json_object_get(c->request, "queues"))
                return 0;
        if (command_size(c, "queues", &n, err) < 0)
                return -EINVAL;
        if (n < 1 || n > VHOST_QUEUES_MAX)
                return error_set(err, -EINVAL, "a device has 1 to %u queues, not %llu",
                                 VHOST_QUEUES_MAX, (unsigned long long)n);
        *ret = (unsigned)n;
        return 0;
}

/* The client has made the socket as it is to be; the next server makes it so again. Where no group
 * is named it is the server's, which the client is told. */
static int read_group(const struct command *c, char *group, struct error *err)
{
        const char *name = NULL;
        gid_t number;
        int r;

        if (!json_object_get(c->request, "group"))
                return 0;
        r = command_string(c, "group", &name, err);
        if (r == 0 && (!name[0] || strlen(name) >= STATE_GROUP_SIZE))
                r = error_set(err, -EINVAL, "there is no group of such a name");
        if (r == 0)
                r = group_find(name, &number, err);
        if (r == 0)
                memcpy(group, name, strlen(name) + 1);
        return r;
}

int co_volume_attach(struct command *c, struct error *err)
{
        struct state_attachment wanted = {.readonly = command_flag(c, "readonly")};
        const char *target, *path;
        int r;

        r = read_target(c, &target, err);
        if (r == 0)
                r = command_string(c, "path", &path, err);
        if (r == 0 && path[0] != '/')
                r = error_set(err, -EINVAL, "the socket's path '%.200s' is not absolute", path);
        if (r == 0)
                r = read_queues(c, &wanted.n_queues, err);
        if (r == 0)
                r = read_group(c, wanted.group, err);
        if (r == 0 && c->n_fds != 1)
                r = error_set(err, -EINVAL, "the request lacks the listening socket");
        if (r < 0)
                return r;
        snprintf(wanted.target, sizeof(wanted.target), "%s", target);
        wanted.path = (char *)path;
        r = co_attach(c->hp, &wanted, c->fds[0], err);
        if (r == 0 && !wanted.group[0] && c->hp->host->vhost_group != (gid_t)-1)
                json_object_set_new(c->reply, "group",
                                    json_integer((json_int_t)c->hp->host->vhost_group));
        return r;
}

int co_volume_detach(struct command *c, struct error *err)
{
        const char *target;
        char *path = NULL;
        int r = read_target(c, &target, err);

        if (r == 0)
                r = co_detach(c->hp, target, command_flag(c, "force"), &path, err);
        if (r == 0 && path)
                json_object_set_new(c->reply, "path", json_string(path));
        free(path);
        return r;
}
