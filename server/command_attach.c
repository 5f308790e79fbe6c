/* command_attach.c - attach and detach. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/attach.h"
#include "server/command.h"

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
        if (r == 0 && c->n_fds != 1)
                r = error_set(err, -EINVAL, "the request lacks the listening socket");
        if (r < 0)
                return r;
        snprintf(wanted.target, sizeof(wanted.target), "%s", target);
        wanted.path = (char *)path;
        return co_attach(c->hp, &wanted, c->fds[0], err);
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
