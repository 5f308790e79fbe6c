/* restore.c - snapshots of machines that do not run. */
#include "vm/restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "server/command.h"
#include "server/session.h"

/* The server of a machine that has just ended has yet to see that. */
#define BUSY_LOOKS   100u
#define BUSY_WAIT_MS 100u

/* The request is taken over; the reply may be NULL. */
static int ask(const char *pool, json_t *request, json_t **ret_reply, struct error *err)
{
        const struct session session = {.pool = pool, .request = request};
        json_t *reply = NULL;
        int r =
            request ? session_run(&session, &reply, err) : error_set(err, -ENOMEM, "out of memory");

        json_decref(request);
        if (r == 0 && ret_reply)
                *ret_reply = reply;
        else
                json_decref(reply);
        return r;
}

/* Whether it is worth another look; waits until then. */
static bool is_busy(int r, unsigned *looks)
{
        const struct timespec pause = {.tv_nsec = BUSY_WAIT_MS * 1000000L};

        if (r != -EBUSY || ++*looks == BUSY_LOOKS)
                return false;
        nanosleep(&pause, NULL);
        return true;
}

static int ask_while_busy(const char *pool, json_t *request, struct error *err)
{
        unsigned looks = 0;
        int r;

        do
                r = ask(pool, json_incref(request), NULL, err);
        while (is_busy(r, &looks));
        json_decref(request);
        return r;
}

/* What was made for something that has failed since. The request is taken over. */
static void take_back(const char *pool, json_t *request)
{
        struct error e = ERROR_INIT;

        if (ask(pool, request, NULL, &e) < 0)
                log_warning("what is not needed is left: %s", e.message);
}

static json_t *about_snapshot(const char *command, const struct vm_disk *disk, const char *snapshot)
{
        return json_pack("{s:s, s:o}", "command", command, "snapshot",
                         json_sprintf("%s@%s", disk->volume, snapshot));
}

/* Each volume that the machine writes to. */
static int for_each_volume(const struct vm_file *file, const char *snapshot,
                           int (*act)(const struct vm_disk *disk, const char *snapshot, void *arg,
                                      struct error *err),
                           void *arg, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < file->n_disks; i++)
                if (saved_disk_is_written(&file->disks[i]))
                        r = act(&file->disks[i], snapshot, arg, err);
        return r;
}

/* *ret_n: so many of the file's disks, the pools of which were cut. */
static int cut_disks(const struct vm_file *file, const char *snapshot, size_t *ret_n,
                     struct error *err)
{
        for (size_t i = 0; i < file->n_disks; i++) {
                const char *pool = file->disks[i].pool;
                int r = 0;

                if (saved_disk_leads(file, i))
                        r = ask_while_busy(pool,
                                           json_pack("{s:s, s:o}", "command", "snapshot-create",
                                                     "names", saved_disks(file, pool, snapshot)),
                                           err);
                if (r < 0)
                        return r;
                *ret_n = i + 1;
        }
        return 0;
}

static void uncut_disks(const struct vm_file *file, const char *snapshot, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                const char *pool = file->disks[i].pool;
                json_t *names =
                    saved_disk_leads(file, i) ? saved_disks(file, pool, snapshot) : NULL;
                json_t *name;
                size_t j;

                json_array_foreach (names, j, name)
                        take_back(pool, json_pack("{s:s, s:O}", "command", "snapshot-delete",
                                                  "snapshot", name));
                json_decref(names);
        }
}

int restore_take_disks(const struct known *k, const char *snapshot, struct error *err)
{
        struct saving saving;
        char *text = NULL;
        size_t n_cut = 0;
        int r = saving_begin(&saving, k->name, snapshot, err);

        if (r == 0)
                r = vm_file_write(k->file, &text, err);
        if (r == 0)
                r = cut_disks(k->file, snapshot, &n_cut, err);
        if (r == 0)
                r = saving_commit(&saving, text, NULL, 0, err);
        if (r < 0)
                uncut_disks(k->file, snapshot, n_cut);
        saving_abandon(&saving);
        free(text);
        return r;
}

/* For its volume, and its @snapshot; empty: none is needed. @idle: nobody may use it. */
static int look(const struct vm_disk *disk, const char *snapshot, bool idle, struct error *err)
{
        json_t *request = json_pack("{s:s, s:s}", "command", "volume-show", "volume", disk->volume);
        char name[VM_DISK_TEXT_SIZE];
        const char *users;
        json_t *reply = NULL;
        int r = ask(disk->pool, request, &reply, err);

        if (r < 0)
                return r;
        snprintf(name, sizeof(name), "%s/%s@%s", disk->pool, disk->volume, snapshot);
        users = json_string_value(json_object_get(reply, "used_by"));
        if (snapshot[0] && !json_lists(json_object_get(reply, "snapshots"), name))
                r = error_set(err, -ENOENT, "there is no snapshot '%s' any more", name);
        else if (idle && users && users[0])
                r = error_set(err, -EBUSY, "cannot go back to '%s': its volume is in use by %s",
                              name, users);
        json_decref(reply);
        return r;
}

static int look_while_busy(const struct vm_disk *disk, const char *snapshot, struct error *err)
{
        unsigned looks = 0;
        int r;

        do
                r = look(disk, snapshot, true, err);
        while (is_busy(r, &looks));
        return r;
}

static bool is_made_where_it_lacks(const struct vm_disk *disk)
{
        return disk->from_image || disk->from_volume[0] || disk->size_bytes > 0;
}

/* Can the disks be as they were? @runs: it goes on at once, also with those that it only reads. */
static int look_at_all(const struct vm_file *file, const char *snapshot, bool runs,
                       struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < file->n_disks; i++) {
                const struct vm_disk *disk = &file->disks[i];

                if (saved_disk_is_written(disk))
                        r = look_while_busy(disk, snapshot, err);
                else if (runs && !is_made_where_it_lacks(disk))
                        r = look(disk, disk->snapshot, false, err);
        }
        return r;
}

static int go_back(const struct vm_disk *disk, const char *snapshot, void *arg, struct error *err)
{
        return ask_while_busy(disk->pool, about_snapshot("snapshot-restore", disk, snapshot), err);
}

int restore_machine(struct known *k, const char *snapshot, struct error *err)
{
        bool memory = saved_has_memory(k->name, snapshot);
        struct vm_file *file;
        int r = saved_load(k->name, snapshot, &file, err);

        if (r < 0)
                return r;
        if (memory)
                r = saved_load_numbers(k->name, snapshot, file->n_disks, k->disk_numbers, err);
        /* One that lacks, or that another machine has by now, is noticed before others are changed. */
        if (r == 0)
                r = look_at_all(file, snapshot, memory, err);
        if (r == 0)
                r = for_each_volume(file, snapshot, go_back, NULL, err);
        if (r < 0) {
                vm_file_free(file);
                return r;
        }
        vm_file_free(k->file);
        k->file = file;
        k->resume[0] = '\0';
        if (memory)
                snprintf(k->resume, sizeof(k->resume), "%s", snapshot);
        return known_save(k, err);
}

/* ---- another machine ---- */

struct clone {
        char pool[POOL_NAME_MAX + 1], volume[POOL_NAME_MAX + 1];
        bool made;
};

/* -ENAMETOOLONG */
static int name_clone(const char *name, const struct vm_disk *disk, bool first,
                      char volume[POOL_NAME_MAX + 1], struct error *err)
{
        char text[2 * (POOL_NAME_MAX + 1)];

        snprintf(text, sizeof(text), "%s%s%s", name, first ? "" : "-", first ? "" : disk->volume);
        if (strlen(text) > POOL_NAME_MAX)
                return error_set(err, -ENAMETOOLONG, "'%s' is too long for a volume's name", text);
        memcpy(volume, text, strlen(text) + 1);
        return 0;
}

static int name_clones(const struct vm_file *file, const char *name, struct clone *clones,
                       struct error *err)
{
        bool first = true;
        int r = 0;

        for (size_t i = 0; r == 0 && i < file->n_disks; i++) {
                const struct vm_disk *disk = &file->disks[i];

                if (!saved_disk_is_written(disk))
                        continue;
                memcpy(clones[i].pool, disk->pool, sizeof(disk->pool));
                r = name_clone(name, disk, first, clones[i].volume, err);
                first = false;
        }
        return r;
}

static int clone_disk(struct vm_disk *disk, const char *snapshot, struct clone *clone,
                      struct error *err)
{
        json_t *request = about_snapshot("volume-clone", disk, snapshot);
        int r;

        if (request)
                json_object_set_new(request, "volume", json_string(clone->volume));
        r = ask(disk->pool, request, NULL, err);
        if (r < 0)
                return r;
        clone->made = true;
        memcpy(disk->volume, clone->volume, sizeof(disk->volume));
        disk->serial[0] = '\0';
        free(disk->from_image);
        disk->from_image = NULL;
        disk->from_volume[0] = disk->from_snapshot[0] = '\0';
        return 0;
}

/* A name that cannot be is noticed before anything is made. */
static int clone_disks(struct vm_file *file, const char *snapshot, const char *name,
                       struct clone *clones, struct error *err)
{
        int r = name_clones(file, name, clones, err);

        for (size_t i = 0; r == 0 && i < file->n_disks; i++)
                if (saved_disk_is_written(&file->disks[i]))
                        r = clone_disk(&file->disks[i], snapshot, &clones[i], err);
        return r;
}

static void drop_clones(const struct clone *clones)
{
        for (size_t i = 0; i < VM_DISKS_MAX; i++)
                if (clones[i].made)
                        take_back(clones[i].pool,
                                  json_pack("{s:s, s:s}", "command", "volume-delete", "volume",
                                            clones[i].volume));
}

/* What only one machine can have. */
static void make_another(struct vm_file *file, const char *name)
{
        snprintf(file->name, sizeof(file->name), "%s", name);
        memset(file->uuid, 0, sizeof(file->uuid));
        file->vsock_cid = 0;
        for (size_t i = 0; i < file->n_nics; i++) {
                file->nics[i].has_mac = false;
                file->nics[i].n_forwards = 0;
        }
}

int restore_clone(const char *machine, const char *snapshot, const char *name,
                  struct known **ret_known, struct error *err)
{
        struct clone clones[VM_DISKS_MAX] = {0};
        struct known *there = NULL;
        struct vm_file *file;
        int r = saved_load(machine, snapshot, &file, err);

        if (r < 0)
                return r;
        if (pool_name_check(name, "machine", err) < 0)
                r = -EINVAL;
        else if (known_open(name, &there, NULL) == 0)
                r = error_set(err, -EEXIST, "there is a machine '%s' already", name);
        known_free(there);
        if (r == 0)
                r = clone_disks(file, snapshot, name, clones, err);
        if (r < 0) {
                vm_file_free(file);
        } else {
                make_another(file, name);
                r = known_take(file, ret_known, err);
        }
        if (r < 0)
                drop_clones(clones);
        return r;
}

/* ---- the end of one ---- */

static int delete_one(const struct vm_disk *disk, const char *snapshot, void *arg,
                      struct error *err)
{
        struct error e = ERROR_INIT;
        int r = ask(disk->pool, about_snapshot("snapshot-delete", disk, snapshot), NULL, &e);

        if (r == -ENOENT)
                return 0;
        if (r < 0 && err)
                *err = e;
        return r;
}

int restore_delete(const char *machine, const char *snapshot, struct error *err)
{
        struct vm_file *file;
        int r = saved_load(machine, snapshot, &file, err);

        if (r < 0)
                return r;
        r = for_each_volume(file, snapshot, delete_one, NULL, err);
        vm_file_free(file);
        return r < 0 ? r : saved_remove(machine, snapshot, err);
}
