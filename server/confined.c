/* confined.c - what a server still needs once it serves; all else it gives up (common/confine.h).
 *
 * Members, images and sockets come as descriptors from who runs a command. By their paths it uses its
 * state folder, the sockets that it makes and removes, certificates and access lists, which SIGHUP has
 * read anew, and /proc and /sys, where it looks whether a disk that is to be added is in use. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/confine.h"
#include "common/coroutine.h"
#include "common/log.h"
#include "server/attach.h"
#include "server/serve_internal.h"

struct places {
        struct confine_path *path;
        size_t n, room;
        bool out_of_memory;
};

static void add(struct places *places, const char *path, unsigned rights)
{
        char *copy;

        for (size_t i = 0; i < places->n; i++)
                if (places->path[i].rights == rights && strcmp(places->path[i].path, path) == 0)
                        return;
        if (places->n == places->room) {
                size_t room = places->room ? 2 * places->room : 16;
                struct confine_path *more = reallocarray(places->path, room, sizeof(*more));

                if (!more) {
                        places->out_of_memory = true;
                        return;
                }
                places->path = more;
                places->room = room;
        }
        copy = strdup(path);
        if (copy)
                places->path[places->n++] = (struct confine_path){copy, rights};
        else
                places->out_of_memory = true;
}

static void add_folder_of(struct places *places, const char *path, unsigned rights)
{
        char copy[PATH_MAX];

        if ((size_t)snprintf(copy, sizeof(copy), "%s", path) < sizeof(copy))
                add(places, dirname(copy), rights);
}

static void add_socket(const char *path, void *places)
{
        add_folder_of(places, path, CONFINE_REMOVE);
}

/* Such a file is replaced by another of its name, or by a symbolic link that leads elsewhere. */
static void add_credential(struct places *places, const char *path)
{
        char real[PATH_MAX];

        if (!path)
                return;
        add(places, path, CONFINE_READ);
        add_folder_of(places, path, CONFINE_READ);
        if (realpath(path, real))
                add_folder_of(places, real, CONFINE_READ);
}

static int co_add_all(struct server *s, struct places *places, struct error *err)
{
        const struct serve_options *o = s->options;
        char folder[PATH_MAX];
        int r = state_dir(folder, sizeof(folder), err);

        if (r < 0)
                return r;
        add(places, folder, CONFINE_READ | CONFINE_FILES);
        add(places, "/proc", CONFINE_READ);
        add(places, "/sys", CONFINE_READ);
        if (s->host.vhost_folder)
                add(places, s->host.vhost_folder, CONFINE_SOCKETS);
        for (size_t i = 0; i < s->sockets.n_files; i++)
                add_socket(s->sockets.files[i].path, places);
        list_for_each (it, &s->host.pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                attach_each_socket(hp, add_socket, places);
                co_move(s->host.loop);
        }
        add_credential(places, o->tls.certificate);
        add_credential(places, o->tls.key);
        add_credential(places, o->tls.ca);
        add_credential(places, o->tls.psk);
        add_credential(places, o->tls_access);
        return places->out_of_memory ? error_set(err, -ENOMEM, "out of memory") : 0;
}

void co_server_confine(struct server *s)
{
        const char *notify = getenv("NOTIFY_SOCKET"); /* sd_notify(3)'s */
        struct confine_profile profile = {.socket_group = s->host.vhost_folder ? s->host.vhost_group
                                                                               : (gid_t)-1,
                                          .abstract_sockets = notify && notify[0] == '@',
                                          .vsock = notify && strncmp(notify, "vsock", 5) == 0};
        struct error e = ERROR_INIT;
        struct places places = {0};
        int r = co_add_all(s, &places, &e);

        if (r == 0) {
                profile.paths = places.path;
                profile.n_paths = places.n;
                r = confine(&profile, &e);
        }
        for (size_t i = 0; i < places.n; i++)
                free((char *)places.path[i].path);
        free(places.path);
        if (r < 0)
                log_warning("the server keeps more privileges than it needs: %s", e.message);
}
