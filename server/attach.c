/* attach.c - volumes offered over vhost-user. */
#include "server/attach_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "server/command.h"
#include "server/control.h"
#include "server/events.h"
#include "server/listen.h"

/* ---- what a front end gets ---- */

struct facts {
        uint8_t uuid[16];
        char identity[ATTACH_IDENTITY_SIZE];
        bool discard;
};

static int keep_facts(const struct root_info *info, void *arg)
{
        struct facts *facts = arg;
        const char *discard = root_property(info, "discard");

        memcpy(facts->uuid, info->uuid, sizeof(facts->uuid));
        attach_identity(info, facts->identity);
        facts->discard = !discard || strcmp(discard, "off") != 0;
        return 0;
}

/* The name where it fits, as that is what people look for under /dev/disk/by-id; else the beginning
 * of the uuid. */
static void make_serial(const char *target, const uint8_t uuid[16], char *serial, size_t size)
{
        if (strlen(target) < size) {
                snprintf(serial, size, "%s", target);
                return;
        }
        for (size_t i = 0; 2 * i + 2 < size; i++)
                snprintf(serial + 2 * i, 3, "%02x", uuid[i]);
}

static void tell(const struct attachment *a, const struct vhost_volume *v, const char *event)
{
        events_emit(a->hp, event,
                    json_pack("{s:s, s:s, s:b}", "volume", volume_name(v->volume), "user",
                              volume_user(v->volume), "readonly", v->readonly));
}

static int co_open(void *arg, struct vhost_client *client, struct vhost_volume *ret_volume,
                   struct error *err)
{
        struct attachment *a = arg;
        struct facts facts = {.discard = true};
        struct volume *volume;
        char user[POOL_NAME_MAX + 40];
        int r = co_host_open_volume(a->hp, a->target, &volume, err);

        if (r == 0) {
                r = co_root_get(a->hp->pool, a->target, keep_facts, &facts, err);
                if (r == 0)
                        r = attach_check_identity(a->hp, a->target, a->identity, facts.identity,
                                                  err);
                if (r < 0)
                        co_volume_close(volume);
        }
        if (r < 0)
                return r;
        *ret_volume = (struct vhost_volume){.volume = volume,
                                            .readonly = a->readonly || volume_is_readonly(volume),
                                            .discard = facts.discard};
        if (a->serial[0])
                memcpy(ret_volume->serial, a->serial, sizeof(a->serial));
        else
                make_serial(a->target, facts.uuid, ret_volume->serial, sizeof(ret_volume->serial));
        snprintf(user, sizeof(user), "%s%s pid %d", a->machine[0] ? "vm " : "vhost-user",
                 a->machine, (int)vhost_client_pid(client));
        volume_set_user(volume, user);
        tell(a, ret_volume, "client-connected");
        return 0;
}

static void co_close(void *arg, struct vhost_volume *volume)
{
        tell(arg, volume, "client-disconnected");
        co_volume_close(volume->volume);
        passing_left(arg);
}

/* ---- attachments ---- */

static struct attachment *find(const struct host_pool *hp, const char *target, bool remembered)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (!a->passing && a->remembered == remembered && strcmp(a->target, target) == 0)
                        return a;
        }
        return NULL;
}

static bool is_of(const struct attachment *a, const char *volume)
{
        return strcmp(a->target, volume) == 0;
}

static void full_name(const struct attachment *a, char *text, size_t size)
{
        snprintf(text, size, "%s/%s", a->hp->name, a->target);
}

int attachment_new(struct host_pool *hp, const struct state_attachment *wanted, int fd,
                   bool remembered, bool held, struct attachment **ret, struct error *err)
{
        struct attachment *a = calloc(1, sizeof(*a));
        struct vhost_device_options options = {.n_queues = wanted->n_queues, .held = held};
        char name[3 * (POOL_NAME_MAX + 1)];
        int r;

        if (a)
                a->path = strdup(wanted->path);
        if (!a || !a->path) {
                free(a);
                close(fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        a->hp = hp;
        memcpy(a->target, wanted->target, sizeof(a->target));
        a->n_queues = wanted->n_queues;
        a->readonly = wanted->readonly;
        memcpy(a->group, wanted->group, sizeof(a->group));
        a->remembered = remembered;
        full_name(a, name, sizeof(name));
        options.name = name;
        options.volumes =
            (struct vhost_volumes){.co_open = co_open, .co_close = co_close, .arg = a};
        list_append(&hp->attachments, &a->link);
        r = vhost_device_new(hp->vhost, &options, fd, &a->device, err);
        if (r < 0) {
                list_remove(&a->link);
                free(a->path);
                free(a);
                return r;
        }
        *ret = a;
        return 0;
}

static bool is_still_there(const struct attachment *a)
{
        struct stat st;

        return lstat(a->path, &st) == 0 && st.st_dev == a->device_number && st.st_ino == a->inode;
}

void co_attachment_free(struct attachment *a)
{
        loop_timer_cancel(a->hp->loop, &a->end);
        /* First, so that nobody else finds it while this waits; and that its front ends, who leave now,
         * do not end it once more. */
        list_remove(&a->link);
        a->passing = false;
        if (a->made_here && is_still_there(a))
                unlink(a->path);
        co_vhost_device_free(a->device);
        free(a->path);
        free(a);
}

/* On a socket of this process's own making. */
static int attachment_listen(struct host_pool *hp, const struct state_attachment *wanted,
                             bool remembered, struct error *err)
{
        gid_t group = hp->host->vhost_group;
        struct attachment *a;
        struct stat st;
        int fd, r = 0;

        if (wanted->group[0])
                r = group_find(wanted->group, &group, err);
        if (r == 0)
                r = socket_listen_unix(wanted->path, group, &fd, err);
        if (r < 0)
                return r;
        if (lstat(wanted->path, &st) < 0) {
                r = -errno;
                close(fd);
                return error_set(err, r, "cannot look at '%s': %s", wanted->path, strerror(-r));
        }
        r = attachment_new(hp, wanted, fd, remembered, false, &a, err);
        if (r < 0) {
                unlink(wanted->path);
                return r;
        }
        a->made_here = true;
        a->device_number = st.st_dev;
        a->inode = st.st_ino;
        return 0;
}

/* ---- the state file ---- */

/* Change what is remembered: @forget (may be NULL) goes, @wanted (may be NULL) comes. */
static int remember(struct host_pool *hp, const char *forget, const struct state_attachment *wanted,
                    struct error *err)
{
        struct pool_state *state = NULL;
        int lock = state_lock(err), r;

        if (lock < 0)
                return lock;
        r = state_load(hp->name, &state, err);
        if (r == 0 && forget)
                state_drop_attachment(state, forget);
        if (r == 0 && wanted) {
                r = state_set_attachment(state, wanted);
                if (r < 0)
                        error_set(err, r, "cannot remember another attachment: %s", strerror(-r));
        }
        if (r == 0)
                r = state_save(state, err);
        state_free(state);
        state_unlock(lock);
        return r;
}

static void remember_or_log(struct host_pool *hp, const char *forget,
                            const struct state_attachment *wanted)
{
        struct error e = ERROR_INIT;

        if (remember(hp, forget, wanted, &e) < 0)
                log_warning("what is attached of pool '%s' is not written down: %s", hp->name,
                            e.message);
}

/* ---- the folder ---- */

/* FOLDER/VOL.sock; FOLDER/POOL/VOL.sock where several pools are served, which may have volumes of
 * one name. */
static int folder_path(const struct host_pool *hp, const char *volume, char *path, size_t size)
{
        const struct host *host = hp->host;
        int n = host->n_pools == 1
                    ? snprintf(path, size, "%s/%s.sock", host->vhost_folder, volume)
                    : snprintf(path, size, "%s/%s/%s.sock", host->vhost_folder, hp->name, volume);

        return (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static void folder_add(struct host_pool *hp, const char *volume)
{
        struct state_attachment wanted = {.n_queues = ATTACH_QUEUES_DEFAULT};
        struct error e = ERROR_INIT;
        char path[PATH_MAX];
        int r;

        snprintf(wanted.target, sizeof(wanted.target), "%s", volume);
        wanted.path = path;
        r = folder_path(hp, volume, path, sizeof(path));
        if (r == 0)
                r = attachment_listen(hp, &wanted, false, &e);
        if (r < 0)
                log_warning("volume '%s/%s' is not offered over vhost-user: %s", hp->name, volume,
                            e.code ? e.message : strerror(-r));
}

static int folder_make(const char *path, gid_t group, struct error *err)
{
        if (mkdir(path, group == (gid_t)-1 ? 0700 : 0750) < 0)
                return errno == EEXIST ? 0
                                       : error_set(err, -errno, "cannot make the folder '%s': %s",
                                                   path, strerror(errno));
        if (group != (gid_t)-1 && chown(path, (uid_t)-1, group) < 0)
                return error_set(err, -errno, "cannot give the folder '%s' to its group: %s", path,
                                 strerror(errno));
        return 0;
}

/* Names first: the list must not be walked while sockets are made. */
struct names {
        char (*name)[POOL_NAME_MAX + 1];
        size_t n, room;
};

static int keep_name(const struct root_info *info, void *arg)
{
        struct names *names = arg;

        if (info->kind != ROOT_VOLUME || import_is_under_way(info))
                return 0;
        if (names->n == names->room) {
                size_t room = names->room ? 2 * names->room : 64;
                void *more = reallocarray(names->name, room, sizeof(*names->name));

                if (!more)
                        return -ENOMEM;
                names->name = more;
                names->room = room;
        }
        snprintf(names->name[names->n++], sizeof(*names->name), "%s", info->volume);
        return 0;
}

static int co_folder_start(struct host_pool *hp, struct error *err)
{
        struct host *host = hp->host;
        struct names names = {0};
        char path[PATH_MAX];
        int r = folder_make(host->vhost_folder, host->vhost_group, err);

        if (r == 0 && host->n_pools > 1) {
                snprintf(path, sizeof(path), "%s/%s", host->vhost_folder, hp->name);
                r = folder_make(path, host->vhost_group, err);
        }
        if (r == 0)
                r = co_pool_list(hp->pool, keep_name, &names, err);
        for (size_t i = 0; r == 0 && i < names.n; i++)
                folder_add(hp, names.name[i]);
        free(names.name);
        return r;
}

/* ---- start and stop ---- */

static void remembered_start(struct host_pool *hp)
{
        struct error e = ERROR_INIT;
        struct pool_state *state;

        /* A pool that was opened by a path may have no file. */
        if (state_load(hp->name, &state, NULL) < 0)
                return;
        for (size_t i = 0; i < state->n_attachments; i++)
                if (attachment_listen(hp, &state->attachments[i], true, &e) < 0)
                        log_warning("'%s/%s' is not attached: %s", hp->name,
                                    state->attachments[i].target, e.message);
        state_free(state);
}

static int co_pool_start(struct host_pool *hp, struct error *err)
{
        int r = vhost_server_new(hp->loop, NULL, &hp->vhost, err);

        if (r < 0)
                return r;
        remembered_start(hp);
        return hp->host->vhost_folder ? co_folder_start(hp, err) : 0;
}

int co_attach_start(struct host *host, struct error *err)
{
        int r = 0;

        for (struct list *it = host->pools.next; r == 0 && it != &host->pools; it = it->next) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                r = co_pool_start(hp, err);
                co_move(host->loop);
        }
        return r;
}

static void co_pool_stop(struct host_pool *hp)
{
        /* New front ends find nobody; and what is in flight for all ends at a time. */
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (a->made_here && is_still_there(a))
                        unlink(a->path);
                a->made_here = false;
        }
        while (!list_empty(&hp->attachments))
                co_attachment_free(container_of(hp->attachments.next, struct attachment, link));
        co_passing_settle(hp);
        vhost_server_free(hp->vhost);
        hp->vhost = NULL;
}

void co_attach_stop(struct host *host)
{
        list_for_each (it, &host->pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                co_pool_stop(hp);
                co_move(host->loop);
        }
}

void attach_each_socket(struct host_pool *hp, void (*each)(const char *path, void *arg), void *arg)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (a->made_here)
                        each(a->path, arg);
        }
}

/* ---- attach and detach ---- */

static int keep_identity(const struct root_info *info, void *arg)
{
        attach_identity(info, arg);
        return 0;
}

int co_attach_check(struct host_pool *hp, const char *target,
                    char ret_identity[ATTACH_IDENTITY_SIZE], struct error *err)
{
        if (!hp->vhost) {
                error_set(err, -ENOTCONN, "'%s/%s' cannot be attached, as nobody serves pool '%s'",
                          hp->name, target, hp->name);
                return error_hint(err, "'tarn serve %s' serves it", hp->name);
        }
        return co_root_get(hp->pool, target, keep_identity, ret_identity, err);
}

int co_attach(struct host_pool *hp, const struct state_attachment *wanted, int fd,
              struct error *err)
{
        char identity[ATTACH_IDENTITY_SIZE];
        struct attachment *a;
        int own, r;

        r = co_attach_check(hp, wanted->target, identity, err);
        if (r < 0)
                return r;
        a = find(hp, wanted->target, true);
        if (a) {
                error_set(err, -EEXIST, "'%s/%s' is attached already, at '%s'", hp->name,
                          wanted->target, a->path);
                return error_hint(err, "'tarn volume detach %s/%s' ends that", hp->name,
                                  wanted->target);
        }
        own = dup(fd);
        if (own < 0)
                return error_set(err, -errno, "cannot keep the socket: %s", strerror(errno));
        r = attachment_new(hp, wanted, own, true, false, &a, err);
        if (r < 0)
                return r;
        r = remember(hp, NULL, wanted, err);
        if (r < 0)
                co_attachment_free(a);
        return r;
}

struct user_list {
        const struct attachment *of;
        char *text;
        size_t size;
        unsigned n;
};

static void add_user(const struct vhost_client_info *info, void *arg)
{
        struct user_list *list = arg;
        size_t used = strlen(list->text);
        char user[PASSING_USER_SIZE];

        passing_user_text(list->of, info->pid, user);
        if (used < list->size)
                snprintf(list->text + used, list->size - used, "%s%s", used ? ", " : "", user);
        list->n++;
}

static int refuse_connected(const struct attachment *a, struct error *err)
{
        char text[256] = "";
        struct user_list users = {.of = a, .text = text, .size = sizeof(text)};

        vhost_device_each_client(a->device, add_user, &users);
        return host_refuse_used(a->hp, "detach", a->target, users.n, text, err);
}

static int is_not_attached(const struct host_pool *hp, const char *target, struct error *err)
{
        error_set(err, -ENOENT, "'%s/%s' is not attached", hp->name, target);
        if (find(hp, target, false))
                return error_hint(err, "it is offered as all volumes are, by 'serve --vhost-user'");
        return err ? err->code : -ENOENT;
}

int co_detach(struct host_pool *hp, const char *target, bool force, char **ret_path,
              struct error *err)
{
        struct pool_state *state = NULL;
        const struct state_attachment *kept;
        struct attachment *a;
        bool known;
        char *path = NULL;
        int r;

        if (!force)
                co_host_await_leavers(hp, target);
        a = find(hp, target, true);
        r = state_load(hp->name, &state, err);
        if (r < 0)
                return r;
        kept = state_find_attachment(state, target);
        known = kept != NULL;
        if (kept)
                path = strdup(kept->path);
        state_free(state);
        if (!known && !a)
                a = passing_find(hp, target);
        if (!known && !a) {
                free(path);
                return is_not_attached(hp, target, err);
        }
        if (a && !force)
                r = refuse_connected(a, err);
        if (r == 0 && known)
                r = remember(hp, target, NULL, err);
        if (r < 0) {
                free(path);
                return r;
        }
        if (a)
                co_attachment_free(a);
        *ret_path = path;
        return 0;
}

/* ---- what happens to volumes ---- */

void attach_volume_made(struct host_pool *hp, const char *volume)
{
        if (hp->host->vhost_folder && !find(hp, volume, false))
                folder_add(hp, volume);
}

/* The socket in the folder has the new name, and whoever is connected stays. */
static void move_socket(struct attachment *a)
{
        char path[PATH_MAX];
        char *copy;

        if (folder_path(a->hp, a->target, path, sizeof(path)) < 0)
                return;
        copy = strdup(path);
        if (!copy || !is_still_there(a) || rename(a->path, path) < 0) {
                log_warning("the socket '%s' keeps its name: its volume is '%s' now", a->path,
                            a->target);
                free(copy);
                return;
        }
        free(a->path);
        a->path = copy;
}

/* VOL or VOL@SNAP under the volume's new name. */
static void new_target(const char *target, const char *new_name, char *text, size_t size)
{
        const char *at = strchr(target, '@');

        snprintf(text, size, "%s%s", new_name, at ? at : "");
}

static void rename_remembered(struct host_pool *hp, const char *volume, const char *new_name)
{
        struct pool_state *state;

        if (state_load(hp->name, &state, NULL) < 0)
                return;
        for (size_t i = 0; i < state->n_attachments; i++) {
                struct state_attachment moved = state->attachments[i];

                if (!host_name_is_of(moved.target, volume))
                        continue;
                new_target(state->attachments[i].target, new_name, moved.target,
                           sizeof(moved.target));
                remember_or_log(hp, state->attachments[i].target, &moved);
        }
        state_free(state);
}

void attach_volume_renamed(struct host_pool *hp, const char *volume, const char *new_name)
{
        rename_remembered(hp, volume, new_name);
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);
                char target[sizeof(a->target)], name[3 * (POOL_NAME_MAX + 1)];

                if (!host_name_is_of(a->target, volume))
                        continue;
                new_target(a->target, new_name, target, sizeof(target));
                memcpy(a->target, target, sizeof(target));
                full_name(a, name, sizeof(name));
                vhost_device_rename(a->device, name);
                if (!a->remembered && !a->passing)
                        move_socket(a);
        }
}

static bool goes_with(const char *target, const char *gone)
{
        return strchr(gone, '@') ? strcmp(target, gone) == 0 : host_name_is_of(target, gone);
}

static struct attachment *find_gone(const struct host_pool *hp, const char *gone)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (goes_with(a->target, gone))
                        return a;
        }
        return NULL;
}

void co_attach_volume_gone(struct host_pool *hp, const char *target)
{
        struct pool_state *state;
        struct attachment *a;

        if (state_load(hp->name, &state, NULL) == 0) {
                for (size_t i = 0; i < state->n_attachments; i++)
                        if (goes_with(state->attachments[i].target, target))
                                remember_or_log(hp, state->attachments[i].target, NULL);
                state_free(state);
        }
        /* The list changes while a device ends: look again from its beginning. */
        while ((a = find_gone(hp, target)))
                co_attachment_free(a);
}

int co_attach_refuse_gone(struct host_pool *hp, const char *target, struct error *err)
{
        char text[256] = "";
        struct user_list users = {.text = text, .size = sizeof(text)};

        co_host_await_leavers(hp, target);
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (!goes_with(a->target, target))
                        continue;
                users.of = a;
                vhost_device_each_client(a->device, add_user, &users);
        }
        return host_refuse_used(hp, "delete", target, users.n, text, err);
}

void attach_volume_resized(struct host_pool *hp, const char *volume)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (is_of(a, volume))
                        vhost_device_config_changed(a->device);
        }
}

/* ---- who uses it ---- */

unsigned attach_users(struct host_pool *hp, const char *volume, bool writers, char *text,
                      size_t size)
{
        struct user_list users = {.text = text, .size = size};

        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (!is_of(a, volume) || (writers && a->readonly))
                        continue;
                users.of = a;
                vhost_device_each_client(a->device, add_user, &users);
        }
        return users.n;
}

static void look_whether_left(const struct vhost_client_info *info, void *left)
{
        *(bool *)left = *(bool *)left || vhost_client_has_left(info->client);
}

bool attach_is_left(struct host_pool *hp, const char *volume)
{
        bool left = false;

        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (!host_name_is_of(a->target, volume))
                        continue;
                left = left || passing_is_ending(a);
                vhost_device_each_client(a->device, look_whether_left, &left);
        }
        return left;
}

void co_attach_disconnect(struct host_pool *hp, const char *volume)
{
        bool again = true;

        while (again) {
                char text[1] = "";

                again = false;
                list_for_each (it, &hp->attachments) {
                        struct attachment *a = container_of(it, struct attachment, link);
                        struct user_list users = {.of = a, .text = text, .size = sizeof(text)};

                        if (!is_of(a, volume))
                                continue;
                        vhost_device_each_client(a->device, add_user, &users);
                        if (users.n == 0)
                                continue;
                        /* The list changes meanwhile: look again from its beginning. */
                        co_vhost_device_disconnect(a->device);
                        again = true;
                        break;
                }
        }
}

static void add_client(const struct vhost_client_info *info, void *arg)
{
        json_array_append_new(
            arg,
            json_pack("{s:i, s:b, s:i, s:I, s:I, s:I, s:I, s:I}", "pid", (int)info->pid, "readonly",
                      (int)info->readonly, "queues", (int)info->n_queues_started, "reads",
                      (json_int_t)info->reads, "writes", (json_int_t)info->writes, "flushes",
                      (json_int_t)info->flushes, "read_bytes", (json_int_t)info->read_bytes,
                      "write_bytes", (json_int_t)info->write_bytes));
}

static json_t *one_json(const char *path, unsigned n_queues, bool readonly, const char *group,
                        const char *machine, bool remembered, json_t *clients)
{
        return json_pack("{s:s, s:i, s:b, s:s?, s:s?, s:b, s:o}", "path", path, "queues",
                         (int)n_queues, "readonly", (int)readonly, "group", group[0] ? group : NULL,
                         "machine", machine[0] ? machine : NULL, "remembered", (int)remembered,
                         "clients", clients);
}

json_t *attach_json(struct host_pool *hp, const char *volume)
{
        json_t *all = json_array();
        const struct state_attachment *known;
        struct pool_state *state;

        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);
                json_t *clients;

                if (!is_of(a, volume))
                        continue;
                clients = json_array();
                vhost_device_each_client(a->device, add_client, clients);
                json_array_append_new(all, one_json(a->path, a->n_queues, a->readonly, a->group,
                                                    a->machine, a->remembered, clients));
        }
        if (hp->vhost || state_load(hp->name, &state, NULL) < 0)
                return all;
        known = state_find_attachment(state, volume);
        if (known)
                json_array_append_new(all, one_json(known->path, known->n_queues, known->readonly,
                                                    known->group, "", true, json_array()));
        state_free(state);
        return all;
}

json_t *attach_machines_json(struct host_pool *hp)
{
        json_t *names = json_array();

        list_for_each (it, &hp->attachments) {
                const struct attachment *a = container_of(it, struct attachment, link);

                if (a->machine[0] && !json_lists(names, a->machine))
                        json_array_append_new(names, json_string(a->machine));
        }
        return names;
}
