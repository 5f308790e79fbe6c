/* saved.c - snapshots of whole machines: their folders. */
#include "vm/saved.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/command.h"
#include "server/state.h"

#define FOLDER     "snapshots"
#define FILE_NAME  "vm.yaml"
#define DISKS_NAME "disks"
/* Of a disk: far more than a machine is ever given. */
#define DISK_NUMBER_MAX 1000000000

static int folder_of(const char *machine, const char *prefix, const char *snapshot,
                     const char *file, char *path, size_t size, struct error *err)
{
        char within[4 * POOL_NAME_MAX];
        int r = pool_name_check(snapshot, "snapshot", err);

        if (r < 0)
                return r;
        snprintf(within, sizeof(within), FOLDER "/%s%s%s%s", prefix, snapshot, file ? "/" : "",
                 file ? file : "");
        return known_path(machine, within, path, size, err);
}

int saved_path(const char *machine, const char *snapshot, const char *file, char *path, size_t size,
               struct error *err)
{
        return folder_of(machine, "", snapshot, file, path, size, err);
}

static bool is_there(const char *machine, const char *snapshot, const char *file)
{
        char path[PATH_MAX];

        return saved_path(machine, snapshot, file, path, sizeof(path), NULL) == 0 &&
               access(path, F_OK) == 0;
}

bool saved_is_there(const char *machine, const char *snapshot)
{
        return is_there(machine, snapshot, FILE_NAME);
}

bool saved_has_memory(const char *machine, const char *snapshot)
{
        return is_there(machine, snapshot, "state");
}

/* ---- removing ---- */

static int cannot_remove(const char *path, struct error *err)
{
        return error_set(err, -errno, "cannot remove '%s': %s", path, strerror(errno));
}

/* One that is not there has none. */
static int for_each_entry(const char *folder, int (*act)(const char *path, struct error *err),
                          struct error *err)
{
        char path[PATH_MAX + NAME_MAX + 2];
        DIR *dir = opendir(folder);
        const struct dirent *entry;
        int r = 0;

        if (!dir)
                return errno == ENOENT ? 0
                                       : error_set(err, -errno, "cannot open '%s': %s", folder,
                                                   strerror(errno));
        while (r == 0 && (entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                r = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) < (int)sizeof(path)
                        ? act(path, err)
                        : error_set(err, -ENAMETOOLONG, "the path of a file in '%s' is too long",
                                    folder);
        }
        closedir(dir);
        return r;
}

static int remove_file(const char *path, struct error *err)
{
        return unlink(path) < 0 && errno != ENOENT ? cannot_remove(path, err) : 0;
}

/* A folder of ours: it has files alone. */
static int remove_folder(const char *path, struct error *err)
{
        int r = for_each_entry(path, remove_file, err);

        return r == 0 && rmdir(path) < 0 && errno != ENOENT ? cannot_remove(path, err) : r;
}

static int remove_either(const char *path, struct error *err)
{
        if (unlink(path) == 0)
                return 0;
        return errno == EISDIR ? remove_folder(path, err) : cannot_remove(path, err);
}

static int sync_folder(const char *path, struct error *err)
{
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r =
            fd < 0 || fsync(fd) < 0
                ? error_set(err, -errno, "cannot write '%s' to the disk: %s", path, strerror(errno))
                : 0;

        if (fd >= 0)
                close(fd);
        return r;
}

/* ---- making one ---- */

int saving_begin(struct saving *saving, const char *machine, const char *snapshot,
                 struct error *err)
{
        char base[PATH_MAX];
        int r;

        *saving =
            (struct saving){.machine = machine, .snapshot = snapshot, .memory = -1, .state = -1};
        r = pool_name_check(snapshot, "snapshot", err);
        if (r == 0)
                r = known_path(machine, FOLDER, base, sizeof(base), err);
        if (r < 0)
                return r;
        if (saved_is_there(machine, snapshot)) {
                error_set(err, -EEXIST, "machine '%s' has a snapshot '%s' already", machine,
                          snapshot);
                return error_hint(err, "'tarn vm delete %s@%s' deletes it", machine, snapshot);
        }
        if (mkdir(base, 0700) < 0 && errno != EEXIST)
                return error_set(err, -errno, "cannot make the folder '%s': %s", base,
                                 strerror(errno));
        r = folder_of(machine, ".", snapshot, NULL, saving->folder, sizeof(saving->folder), err);
        /* What one that was killed had begun. */
        if (r == 0)
                r = remove_folder(saving->folder, err);
        if (r == 0 && mkdir(saving->folder, 0700) < 0)
                r = error_set(err, -errno, "cannot make the folder '%s': %s", saving->folder,
                              strerror(errno));
        if (r < 0)
                saving->folder[0] = '\0';
        return r;
}

static int make_file(const struct saving *saving, const char *name, int *ret_fd, struct error *err)
{
        char path[PATH_MAX + 16];

        snprintf(path, sizeof(path), "%s/%s", saving->folder, name);
        *ret_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        return *ret_fd < 0 ? error_set(err, -errno, "cannot make '%s': %s", path, strerror(errno))
                           : 0;
}

int saving_open_memory(struct saving *saving, struct error *err)
{
        int r = make_file(saving, "memory", &saving->memory, err);

        return r < 0 ? r : make_file(saving, "state", &saving->state, err);
}

static int close_synced(int *fd, const char *what, struct error *err)
{
        int r = 0;

        if (*fd < 0)
                return 0;
        if (fsync(*fd) < 0)
                r = error_set(err, -errno, "cannot write the machine's %s: %s", what,
                              strerror(errno));
        close(*fd);
        *fd = -1;
        return r;
}

static int write_file(const struct saving *saving, const char *name, const char *text,
                      struct error *err)
{
        int fd, r = make_file(saving, name, &fd, err);

        if (r < 0)
                return r;
        r = known_write(fd, text);
        if (r < 0)
                error_set(err, r, "cannot write '%s/%s': %s", saving->folder, name, strerror(-r));
        close(fd);
        return r;
}

static int write_numbers(const struct saving *saving, const unsigned *numbers, size_t n,
                         struct error *err)
{
        json_t *list = json_array();
        char *text;
        int r;

        for (size_t i = 0; i < n; i++)
                json_array_append_new(list, json_integer(numbers[i]));
        text = json_array_size(list) == n ? json_dumps(list, 0) : NULL;
        r = text ? write_file(saving, DISKS_NAME, text, err)
                 : error_set(err, -ENOMEM, "out of memory");
        free(text);
        json_decref(list);
        return r;
}

int saving_commit(struct saving *saving, const char *text, const unsigned *numbers, size_t n_disks,
                  struct error *err)
{
        char path[PATH_MAX] = "";
        int r = close_synced(&saving->memory, "memory", err);

        if (r == 0)
                r = close_synced(&saving->state, "state", err);
        if (r == 0)
                r = write_file(saving, FILE_NAME, text, err);
        if (r == 0 && numbers)
                r = write_numbers(saving, numbers, n_disks, err);
        if (r == 0)
                r = sync_folder(saving->folder, err);
        if (r == 0)
                r = saved_path(saving->machine, saving->snapshot, NULL, path, sizeof(path), err);
        /* One without its file is none. */
        if (r == 0)
                r = remove_folder(path, err);
        if (r == 0 && rename(saving->folder, path) < 0)
                r = error_set(err, -errno, "cannot rename '%s': %s", saving->folder,
                              strerror(errno));
        if (r < 0)
                return r;
        saving->folder[0] = '\0';
        *strrchr(path, '/') = '\0';
        return sync_folder(path, err);
}

void saving_abandon(struct saving *saving)
{
        if (saving->memory >= 0)
                close(saving->memory);
        if (saving->state >= 0)
                close(saving->state);
        saving->memory = saving->state = -1;
        if (saving->folder[0])
                remove_folder(saving->folder, NULL);
        saving->folder[0] = '\0';
}

/* ---- those that there are ---- */

int saved_load(const char *machine, const char *snapshot, struct vm_file **ret_file,
               struct error *err)
{
        char path[PATH_MAX] = "";
        int r = saved_path(machine, snapshot, FILE_NAME, path, sizeof(path), err);

        if (r < 0)
                return r;
        if (access(path, F_OK) < 0 && errno == ENOENT) {
                error_set(err, -ENOENT, "machine '%s' has no snapshot '%s'", machine, snapshot);
                return error_hint(err, "'tarn vm show %s' lists those that it has", machine);
        }
        return vm_file_load(path, ret_file, err);
}

static bool is_before(const unsigned *numbers, size_t n, unsigned number)
{
        for (size_t i = 0; i < n; i++)
                if (numbers[i] == number)
                        return true;
        return false;
}

static int read_numbers(const json_t *list, size_t n_disks, unsigned numbers[VM_DISKS_MAX])
{
        if (!json_is_array(list) || json_array_size(list) != n_disks)
                return -EINVAL;
        for (size_t i = 0; i < n_disks; i++) {
                const json_t *one = json_array_get(list, i);
                json_int_t number = json_integer_value(one);

                if (!json_is_integer(one) || number < 0 || number > DISK_NUMBER_MAX ||
                    is_before(numbers, i, (unsigned)number))
                        return -EINVAL;
                numbers[i] = (unsigned)number;
        }
        return 0;
}

int saved_load_numbers(const char *machine, const char *snapshot, size_t n_disks,
                       unsigned numbers[VM_DISKS_MAX], struct error *err)
{
        char path[PATH_MAX];
        json_t *list;
        int r = saved_path(machine, snapshot, DISKS_NAME, path, sizeof(path), err);

        if (r < 0)
                return r;
        if (access(path, F_OK) < 0 && errno == ENOENT) {
                for (size_t i = 0; i < n_disks; i++)
                        numbers[i] = (unsigned)i;
                return 0;
        }
        list = json_load_file(path, 0, NULL);
        r = read_numbers(list, n_disks, numbers);
        json_decref(list);
        return r < 0 ? error_set(err, r, "'%s' does not name the %zu disks of the snapshot", path,
                                 n_disks)
                     : 0;
}

int saved_remove(const char *machine, const char *snapshot, struct error *err)
{
        char path[PATH_MAX] = "", other[PATH_MAX] = "";
        int r = saved_path(machine, snapshot, NULL, path, sizeof(path), err);

        /* Not as saving_begin() calls what it makes: one of that name may be taken meanwhile. */
        if (r == 0)
                r = folder_of(machine, "..", snapshot, NULL, other, sizeof(other), err);
        if (r == 0)
                r = remove_folder(other, err);
        /* From here on there is none, also where this is killed. */
        if (r == 0 && rename(path, other) < 0 && errno != ENOENT)
                r = cannot_remove(path, err);
        return r < 0 ? r : remove_folder(other, err);
}

int saved_names(const char *machine, char ***ret_names, size_t *ret_n, struct error *err)
{
        char path[PATH_MAX];
        int r = known_path(machine, FOLDER, path, sizeof(path), err);

        return r < 0 ? r : known_list(path, ret_names, ret_n, err);
}

static json_t *describe(const char *machine, const char *snapshot)
{
        struct stat file, memory;
        char path[PATH_MAX];
        json_t *created = json_null(), *bytes = json_null();

        if (saved_path(machine, snapshot, FILE_NAME, path, sizeof(path), NULL) == 0 &&
            stat(path, &file) == 0)
                created = json_time((int64_t)file.st_mtim.tv_sec * 1000000000);
        if (saved_has_memory(machine, snapshot) &&
            saved_path(machine, snapshot, "memory", path, sizeof(path), NULL) == 0 &&
            stat(path, &memory) == 0)
                bytes = json_integer((json_int_t)memory.st_blocks * 512);
        return json_pack("{s:s, s:o, s:o}", "name", snapshot, "created", created, "memory", bytes);
}

int saved_list(const char *machine, json_t **ret_list, struct error *err)
{
        json_t *list;
        char **names;
        size_t n;
        int r = saved_names(machine, &names, &n, err);

        if (r < 0)
                return r;
        list = json_array();
        if (!list)
                r = -ENOMEM;
        for (size_t i = 0; r == 0 && i < n; i++)
                if (json_array_append_new(list, describe(machine, names[i])) < 0)
                        r = -ENOMEM;
        state_names_free(names, n);
        if (r < 0) {
                json_decref(list);
                return error_set(err, r, "out of memory");
        }
        *ret_list = list;
        return 0;
}

int saved_remove_all(const char *machine, struct error *err)
{
        char path[PATH_MAX] = "";
        int r = known_path(machine, FOLDER, path, sizeof(path), err);

        /* Also what others that were killed had begun, or not removed to the end. */
        if (r == 0)
                r = for_each_entry(path, remove_either, err);
        return r < 0 ? r : remove_folder(path, err);
}

/* ---- their disks ---- */

bool saved_disk_is_written(const struct vm_disk *disk)
{
        return !disk->readonly && disk->snapshot[0] == '\0';
}

json_t *saved_disks(const struct vm_file *file, const char *pool, const char *snapshot)
{
        json_t *names = json_array();

        for (size_t i = 0; names && i < file->n_disks; i++) {
                const struct vm_disk *disk = &file->disks[i];

                if (!saved_disk_is_written(disk) || strcmp(disk->pool, pool) != 0)
                        continue;
                if (json_array_append_new(names, json_sprintf("%s@%s", disk->volume, snapshot)) <
                    0) {
                        json_decref(names);
                        return NULL;
                }
        }
        return names;
}

bool saved_disk_leads(const struct vm_file *file, size_t i)
{
        if (!saved_disk_is_written(&file->disks[i]))
                return false;
        for (size_t j = 0; j < i; j++)
                if (saved_disk_is_written(&file->disks[j]) &&
                    strcmp(file->disks[j].pool, file->disks[i].pool) == 0)
                        return false;
        return true;
}
