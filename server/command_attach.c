/* command_attach.c - attach and detach. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/attach.h"
#include "server/command.h"

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

/* The client has made the socket as it is to be; the next server makes it so again, and says so if
 * there is no such group, which this one cannot look up (confined.c). Where no group is named it is the
 * server's, which the client is told. */
static int read_group(const struct command *c, char *group, struct error *err)
{
        const char *name = NULL;
        int r;

        if (!json_object_get(c->request, "group"))
                return 0;
        r = command_string(c, "group", &name, err);
        if (r == 0 && (!name[0] || strlen(name) >= STATE_GROUP_SIZE))
                r = error_set(err, -EINVAL, "there is no group of such a name");
        if (r == 0)
                memcpy(group, name, strlen(name) + 1);
        return r;
}

static int read_serial(const struct command *c, char serial[VHOST_SERIAL_MAX + 1],
                       struct error *err)
{
        const char *text = NULL;
        int r;

        if (!json_object_get(c->request, "serial"))
                return 0;
        r = command_string(c, "serial", &text, err);
        if (r == 0 && strlen(text) > VHOST_SERIAL_MAX)
                r = error_set(err, -EINVAL, "a serial number has at most %u characters",
                              VHOST_SERIAL_MAX);
        if (r == 0)
                memcpy(serial, text, strlen(text) + 1);
        return r;
}

static int read_machine(const struct command *c, char machine[POOL_NAME_MAX + 1], struct error *err)
{
        const char *name = NULL;
        int r;

        if (!json_object_get(c->request, "machine"))
                return 0;
        r = command_string(c, "machine", &name, err);
        if (r == 0)
                r = pool_name_check(name, "VM", err);
        if (r == 0)
                memcpy(machine, name, strlen(name) + 1);
        return r;
}

static int read_identity(const struct command *c, char identity[ATTACH_IDENTITY_SIZE],
                         struct error *err)
{
        const char *text = NULL;
        int r;

        if (!json_object_get(c->request, "identity"))
                return 0;
        r = command_string(c, "identity", &text, err);
        if (r == 0 && strlen(text) >= ATTACH_IDENTITY_SIZE)
                r = error_set(err, -EINVAL, "an identity has less than %u characters",
                              ATTACH_IDENTITY_SIZE);
        if (r == 0)
                memcpy(identity, text, strlen(text) + 1);
        return r;
}

int co_volume_attach(struct command *c, struct error *err)
{
        struct attach_passing passing = {.wanted.readonly = command_flag(c, "readonly")};
        bool remember = !json_is_false(json_object_get(c->request, "remember"));
        struct state_attachment *wanted = &passing.wanted;
        const char *target, *path;
        int r;

        r = command_root(c, "volume", &target, err);
        if (r == 0)
                r = command_string(c, "path", &path, err);
        if (r == 0 && path[0] != '/')
                r = error_set(err, -EINVAL, "the socket's path '%.200s' is not absolute", path);
        if (r == 0)
                r = read_queues(c, &wanted->n_queues, err);
        if (r == 0)
                r = read_group(c, wanted->group, err);
        if (r == 0)
                r = read_serial(c, passing.serial, err);
        if (r == 0)
                r = read_machine(c, passing.machine, err);
        if (r == 0)
                r = read_identity(c, passing.identity, err);
        if (r == 0 && remember && (passing.serial[0] || passing.machine[0] || passing.identity[0]))
                r = error_set(err, -EINVAL,
                              "serial number, machine and identity are not remembered");
        if (r == 0 && c->n_fds != 1)
                r = error_set(err, -EINVAL, "the request lacks the listening socket");
        if (r < 0)
                return r;
        snprintf(wanted->target, sizeof(wanted->target), "%s", target);
        wanted->path = (char *)path;
        r = remember ? co_attach(c->hp, wanted, c->fds[0], err)
                     : co_attach_passing(c->hp, &passing, c->fds[0], err);
        if (r == 0 && remember && !wanted->group[0] && c->hp->host->vhost_group != (gid_t)-1)
                json_object_set_new(c->reply, "group",
                                    json_integer((json_int_t)c->hp->host->vhost_group));
        if (r == 0 && !remember)
                json_object_set_new(c->reply, "identity", json_string(passing.identity));
        return r;
}

int co_volume_detach(struct command *c, struct error *err)
{
        const char *target;
        char *path = NULL;
        int r = command_root(c, "volume", &target, err);

        if (r == 0)
                r = co_detach(c->hp, target, command_flag(c, "force"), &path, err);
        if (r == 0 && path)
                json_object_set_new(c->reply, "path", json_string(path));
        free(path);
        return r;
}
