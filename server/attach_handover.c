/* attach_handover.c - attachments that go on in another server, with those who are connected. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "server/attach_internal.h"

/* ---- out ---- */

/* Front ends that there is no memory for: they see their connection end, and come back. */
static void lose(struct attachment *a)
{
        log_error("'%s/%s': no memory to keep a front end: it is disconnected", a->hp->name,
                  a->target);
        a->n_lost++;
}

static void keep(struct vhost_saved *saved, void *arg)
{
        struct attachment *a = arg;
        struct vhost_saved *more = reallocarray(a->saved, a->n_saved + 1, sizeof(*more));

        if (!more) {
                lose(a);
                vhost_saved_free(saved);
                return;
        }
        a->saved = more;
        a->saved[a->n_saved++] = *saved;
}

static json_t *one_json(const struct attachment *a, struct handover *h)
{
        int fd = handover_add_dup(h, vhost_device_fd(a->device));

        if (fd < 0)
                return NULL;
        return json_pack(
            "{s:s, s:s, s:s, s:i, s:b, s:b, s:b, s:s, s:s, s:s, s:b, s:I, s:I, s:i, s:[]}",
            "target", a->target, "path", a->path, "group", a->group, "queues", (int)a->n_queues,
            "readonly", (int)a->readonly, "remembered", (int)a->remembered, "passing",
            (int)a->passing, "serial", a->serial, "machine", a->machine, "identity", a->identity,
            "own_socket", (int)a->made_here, "device", (json_int_t)a->device_number, "inode",
            (json_int_t)a->inode, "fd", fd, "clients");
}

json_t *attach_prepare(struct host_pool *hp, struct handover *h)
{
        json_t *all = json_array();

        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                a->entry = one_json(a, h);
                if (json_array_append_new(all, a->entry) < 0) {
                        json_decref(all);
                        return NULL;
                }
        }
        return all;
}

void attach_save_begin(struct host_pool *hp)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                a->kept = true;
                loop_timer_cancel(hp->loop, &a->end);
                vhost_device_save(a->device, keep, a);
        }
}

/* What was saved is empty then. */
static json_t *client_json(struct vhost_saved *saved, struct handover *h)
{
        json_t *fds = json_array();
        int number = fds ? 0 : -ENOMEM;

        for (size_t i = 0; number >= 0 && i < saved->n_fds; i++) {
                number = handover_add(h, saved->fds[i]);
                saved->fds[i] = -1;
                if (number >= 0 && json_array_append_new(fds, json_integer(number)) < 0)
                        number = -ENOMEM;
        }
        if (number < 0) {
                json_decref(fds);
                return NULL;
        }
        return json_pack("{s:o, s:o}", "state", hex_json(saved->bytes, saved->n_bytes), "fds", fds);
}

static void co_save_clients(struct attachment *a, struct handover *h, json_t *json)
{
        json_t *clients = json_object_get(json, "clients");

        close(co_vhost_device_save_end(a->device)); /* @h has it */
        for (size_t i = 0; i < a->n_saved; i++) {
                if (json_array_append_new(clients, client_json(&a->saved[i], h)) < 0)
                        lose(a);
                vhost_saved_free(&a->saved[i]);
        }
}

int co_attach_save(struct host_pool *hp, struct handover *h, struct error *err)
{
        size_t n_lost = 0;

        /* Those that have ended since attach_prepare() have an entry without front ends: they end there too. */
        while (!list_empty(&hp->attachments)) {
                struct attachment *a = container_of(hp->attachments.next, struct attachment, link);

                co_save_clients(a, h, a->entry);
                n_lost += a->n_lost;
                list_remove(&a->link);
                free(a->saved);
                free(a->path);
                free(a);
        }
        co_passing_settle(hp);
        vhost_server_free(hp->vhost);
        hp->vhost = NULL;
        if (n_lost > 0)
                return error_set(err, -ENOMEM, "no memory for %zu front ends of pool '%s'", n_lost,
                                 hp->name);
        return 0;
}

/* ---- in ---- */

static bool is_ours_to_blame(int code)
{
        return code == -ENOMEM || code == -EMFILE || code == -ENFILE || code == -EOPNOTSUPP;
}

static int saved_of_json(struct handover *h, const json_t *json, struct vhost_saved *ret)
{
        const json_t *fds = json_object_get(json, "fds");
        int r = 0;

        *ret = (struct vhost_saved){.fds = calloc(json_array_size(fds) + 1, sizeof(*ret->fds))};
        ret->bytes = hex_bytes(json_object_get(json, "state"), &ret->n_bytes);
        if (!ret->fds || !ret->bytes)
                r = -ENOMEM;
        for (size_t i = 0; r == 0 && i < json_array_size(fds); i++) {
                ret->fds[i] = handover_take(h, json_array_get(fds, i));
                if (ret->fds[i] < 0)
                        r = ret->fds[i];
                else
                        ret->n_fds++;
        }
        if (r < 0)
                vhost_saved_free(ret);
        return r;
}

static int co_restore_clients(struct attachment *a, struct handover *h, const json_t *clients,
                              struct error *err)
{
        for (size_t i = 0; i < json_array_size(clients); i++) {
                struct error e = ERROR_INIT;
                struct vhost_saved saved;
                int r = saved_of_json(h, json_array_get(clients, i), &saved);

                if (r < 0)
                        return error_set(err, r, "a front end of '%s/%s' cannot be taken over: %s",
                                         a->hp->name, a->target, strerror(-r));
                r = co_vhost_device_restore(a->device, &saved, &e);
                if (is_ours_to_blame(r))
                        return error_set(err, r, "a front end of '%s/%s' cannot be taken over: %s",
                                         a->hp->name, a->target, e.message);
                if (r < 0)
                        log_warning("a front end of '%s/%s' is disconnected: %s", a->hp->name,
                                    a->target, e.message);
        }
        return 0;
}

static int co_restore_one(struct host_pool *hp, struct handover *h, json_t *json, struct error *err)
{
        const char *target = NULL, *path = NULL, *group = "", *serial = "", *machine = "";
        const char *identity = "";
        struct state_attachment wanted = {0};
        json_int_t device = 0, inode = 0;
        int readonly = 0, remembered = 0, passing = 0, own_socket = 0, queues = 0, fd;
        struct attachment *a;
        int r;

        if (json_unpack(json, "{s:s, s:s, s?s, s:i, s:b, s:b, s?b, s?s, s?s, s?s, s:b, s:I, s:I}",
                        "target", &target, "path", &path, "group", &group, "queues", &queues,
                        "readonly", &readonly, "remembered", &remembered, "passing", &passing,
                        "serial", &serial, "machine", &machine, "identity", &identity, "own_socket",
                        &own_socket, "device", &device, "inode", &inode) < 0 ||
            strlen(target) >= sizeof(wanted.target) || strlen(group) >= sizeof(wanted.group) ||
            strlen(serial) > VHOST_SERIAL_MAX || strlen(machine) > POOL_NAME_MAX ||
            strlen(identity) >= ATTACH_IDENTITY_SIZE || queues < 1 ||
            queues > (int)VHOST_QUEUES_MAX)
                return error_set(err, -EBADMSG, "an attachment was passed on that makes no sense");
        fd = handover_take(h, json_object_get(json, "fd"));
        if (fd < 0)
                return error_set(err, fd, "the socket of '%s' was not passed on", target);
        snprintf(wanted.target, sizeof(wanted.target), "%s", target);
        snprintf(wanted.group, sizeof(wanted.group), "%s", group);
        wanted.path = (char *)path;
        wanted.n_queues = (unsigned)queues;
        wanted.readonly = readonly;
        r = attachment_new(hp, &wanted, fd, remembered, true, &a, err);
        if (r < 0)
                return r;
        a->device_number = (dev_t)device;
        a->inode = (ino_t)inode;
        a->to_be_ours = own_socket;
        if (passing)
                passing_start(a, serial, machine, identity);
        return co_restore_clients(a, h, json_object_get(json, "clients"), err);
}

int co_attach_restore(struct host_pool *hp, struct handover *h, const json_t *attachments,
                      struct error *err)
{
        int r = vhost_server_new(hp->loop, NULL, &hp->vhost, err);

        for (size_t i = 0; r == 0 && i < json_array_size(attachments); i++)
                r = co_restore_one(hp, h, json_array_get(attachments, i), err);
        return r;
}

void attach_go(struct host_pool *hp)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                a->made_here = a->to_be_ours;
                vhost_device_go(a->device);
        }
}
