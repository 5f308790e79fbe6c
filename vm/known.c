/* known.c - the virtual machines that were started before. */
#include "vm/known.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/state.h"

#define FILE_NAME "vm.yaml"
#define NAMES_MAX 65536u
/* Who only looks whether a machine runs holds its lock for an instant. */
#define LOCK_TRIES    5
#define LOCK_PAUSE_NS 20000000

/* ---- places ---- */

static int too_long(const char *name, struct error *err)
{
        return error_set(err, -ENAMETOOLONG, "the path of machine '%s' is too long", name);
}

static int make_folder(const char *path, struct error *err)
{
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return error_set(err, -errno, "cannot make the folder '%s': %s", path,
                                 strerror(errno));
        return 0;
}

/* The folder of all. */
static int base_folder(char *path, size_t size, struct error *err)
{
        size_t n;
        int r = state_dir(path, size, err);

        if (r < 0)
                return r;
        n = strlen(path);
        if ((size_t)snprintf(path + n, size - n, "/vm") >= size - n)
                return too_long("vm", err);
        return make_folder(path, err);
}

static int folder_of(const char *name, char *path, size_t size, struct error *err)
{
        size_t n;
        int r = pool_name_check(name, "machine", err);

        if (r == 0)
                r = base_folder(path, size, err);
        if (r < 0)
                return r;
        n = strlen(path);
        return (size_t)snprintf(path + n, size - n, "/%s", name) >= size - n ? too_long(name, err)
                                                                             : 0;
}

int known_path(const char *name, const char *file, char *path, size_t size, struct error *err)
{
        size_t n;
        int r = folder_of(name, path, size, err);

        if (r < 0)
                return r;
        n = strlen(path);
        return (size_t)snprintf(path + n, size - n, "/%s", file) >= size - n ? too_long(name, err)
                                                                             : 0;
}

int known_socket(const char *name, char *path, size_t size, struct error *err)
{
        size_t n;
        int r = pool_name_check(name, "machine", err);

        if (r == 0)
                r = runtime_dir(path, size, err);
        if (r < 0)
                return r;
        n = strlen(path);
        if ((size_t)snprintf(path + n, size - n, "/vm") >= size - n)
                return too_long(name, err);
        r = make_folder(path, err);
        n = strlen(path);
        if (r == 0 && (size_t)snprintf(path + n, size - n, "/%s.sock", name) >= size - n)
                r = too_long(name, err);
        return r;
}

/* ---- the lock ---- */

static int open_lock(const char *name, int flags, struct error *err)
{
        char path[PATH_MAX];
        int fd, r = known_path(name, "lock", path, sizeof(path), err);

        if (r < 0)
                return r;
        fd = open(path, flags | O_CLOEXEC, 0600);
        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        return fd;
}

static pid_t read_pid(int fd)
{
        char text[16] = "";
        ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

        return n > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

pid_t known_runner(const char *name)
{
        int fd = open_lock(name, O_RDONLY, NULL);
        pid_t pid = 0;

        if (fd < 0)
                return 0;
        if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
                pid = read_pid(fd);
        close(fd);
        return pid;
}

int known_is_ours(const struct known *k, struct error *err)
{
        char text[16];
        int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

        if (ftruncate(k->lock, 0) < 0 || pwrite(k->lock, text, (size_t)n, 0) != n)
                return error_set(err, -EIO, "cannot write the lock of machine '%s'", k->name);
        return 0;
}

static int try_lock(int fd)
{
        const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
        int r = -EWOULDBLOCK;

        for (unsigned i = 0; r == -EWOULDBLOCK && i < LOCK_TRIES; i++) {
                if (i > 0)
                        nanosleep(&pause, NULL);
                r = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
        }
        return r == -EWOULDBLOCK ? -EBUSY : r;
}

/* Who deletes a machine deletes its lock, too: whoever waited for that has one that nobody else sees. */
static bool lock_is_its(const struct known *k)
{
        struct stat held, there;
        char path[PATH_MAX];

        return known_path(k->name, "lock", path, sizeof(path), NULL) == 0 &&
               fstat(k->lock, &held) == 0 && stat(path, &there) == 0 &&
               held.st_dev == there.st_dev && held.st_ino == there.st_ino;
}

static void drop_lock(struct known *k)
{
        close(k->lock);
        k->lock = -1;
}

static int take_lock(struct known *k, struct error *err)
{
        int r;

        k->lock = open_lock(k->name, O_RDWR | O_CREAT, err);
        if (k->lock < 0)
                return k->lock;
        r = try_lock(k->lock);
        if (r < 0) {
                pid_t pid = read_pid(k->lock);

                drop_lock(k);
                if (r != -EBUSY)
                        return error_set(err, r, "cannot lock machine '%s': %s", k->name,
                                         strerror(-r));
                error_set(err, r, "machine '%s' runs already, by process %d", k->name, (int)pid);
                return error_hint(err, "'tarn vm stop %s' stops it", k->name);
        }
        if (!lock_is_its(k)) {
                drop_lock(k);
                return error_set(err, -ENOENT, "machine '%s' was deleted meanwhile", k->name);
        }
        return known_is_ours(k, err);
}

/* ---- its file ---- */

static int load(struct known *k, struct error *err)
{
        char path[PATH_MAX];
        int r = known_path(k->name, FILE_NAME, path, sizeof(path), err);

        if (r < 0)
                return r;
        if (access(path, F_OK) < 0 && errno == ENOENT) {
                error_set(err, -ENOENT, "there is no machine '%s'", k->name);
                return error_hint(err, "'tarn vm list' shows those that were started before");
        }
        return vm_file_load(path, &k->file, err);
}

int known_write(int fd, const char *text)
{
        size_t left = strlen(text);

        while (left > 0) {
                ssize_t n = write(fd, text, left);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                text += n;
                left -= (size_t)n;
        }
        return fsync(fd) < 0 ? -errno : 0;
}

static int replace(const struct known *k, const char *text)
{
        int folder = open(k->folder, O_PATH | O_DIRECTORY | O_CLOEXEC), fd, r;

        if (folder < 0)
                return -errno;
        fd = openat(folder, FILE_NAME ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        r = fd < 0 ? -errno : known_write(fd, text);
        if (fd >= 0)
                close(fd);
        if (r == 0 && renameat(folder, FILE_NAME ".new", folder, FILE_NAME) < 0)
                r = -errno;
        close(folder);
        return r;
}

int known_save(const struct known *k, struct error *err)
{
        char *text = NULL;
        int r = vm_file_write(k->file, &text, err);

        if (r < 0)
                return r;
        r = replace(k, text);
        free(text);
        return r < 0
                   ? error_set(err, r, "cannot write down machine '%s': %s", k->name, strerror(-r))
                   : 0;
}

/* ---- identity ---- */

static bool is_zero(const uint8_t uuid[16])
{
        static const uint8_t zero[16];

        return memcmp(uuid, zero, sizeof(zero)) == 0;
}

/* A machine keeps its uuid, and so its MAC addresses, for as long as it is known. */
static int identify(struct known *k, struct error *err)
{
        struct known before = {.lock = -1};
        uint8_t *uuid = k->file->uuid;

        if (!is_zero(uuid))
                return 0;
        snprintf(before.name, sizeof(before.name), "%s", k->name);
        if (load(&before, NULL) == 0)
                memcpy(uuid, before.file->uuid, 16);
        vm_file_free(before.file);
        if (!is_zero(uuid))
                return 0;
        if (getrandom(uuid, 16, 0) != 16)
                return error_set(err, -EIO, "cannot make a uuid");
        uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 4122, section 4.4 */
        uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
        return 0;
}

/* ---- the whole ---- */

static int known_new(const char *name, struct known **ret, struct error *err)
{
        struct known *k = calloc(1, sizeof(*k));
        int r;

        if (!k)
                return error_set(err, -ENOMEM, "out of memory");
        k->lock = -1;
        r = folder_of(name, k->folder, sizeof(k->folder), err);
        if (r < 0) {
                known_free(k);
                return r;
        }
        snprintf(k->name, sizeof(k->name), "%s", name);
        *ret = k;
        return 0;
}

void known_free(struct known *k)
{
        if (!k)
                return;
        vm_file_free(k->file);
        if (k->lock >= 0)
                close(k->lock);
        free(k);
}

int known_take(struct vm_file *file, struct known **ret, struct error *err)
{
        struct known *k = NULL;
        int r = known_new(file->name, &k, err);

        if (r < 0) {
                vm_file_free(file);
                return r;
        }
        k->file = file;
        r = make_folder(k->folder, err);
        if (r == 0)
                r = take_lock(k, err);
        if (r == 0)
                r = identify(k, err);
        if (r == 0)
                r = known_save(k, err);
        if (r < 0)
                known_free(k);
        else
                *ret = k;
        return r;
}

int known_open(const char *name, struct known **ret, struct error *err)
{
        struct known *k = NULL;
        int r = known_new(name, &k, err);

        if (r < 0)
                return r;
        r = load(k, err);
        if (r < 0)
                known_free(k);
        else
                *ret = k;
        return r;
}

int known_lock(const char *name, struct known **ret, struct error *err)
{
        struct known *k = NULL;
        int r = known_open(name, &k, err);

        if (r < 0)
                return r;
        r = take_lock(k, err);
        /* What another one has changed while it had the lock counts. */
        if (r == 0) {
                vm_file_free(k->file);
                k->file = NULL;
                r = load(k, err);
        }
        if (r < 0)
                known_free(k);
        else
                *ret = k;
        return r;
}

int known_remove(struct known *k, struct error *err)
{
        static const char *const files[] = {FILE_NAME, FILE_NAME ".new", "log", "lock"};

        for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
                char path[PATH_MAX];

                if (known_path(k->name, files[i], path, sizeof(path), NULL) == 0 &&
                    unlink(path) < 0 && errno != ENOENT)
                        return error_set(err, -errno, "cannot remove '%s': %s", path,
                                         strerror(errno));
        }
        if (rmdir(k->folder) < 0)
                return error_set(err, -errno, "cannot remove '%s': %s", k->folder, strerror(errno));
        return 0;
}

static int compare(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static int collect(DIR *folder, char ***names, size_t *n)
{
        const struct dirent *entry;

        while ((entry = readdir(folder)) && *n < NAMES_MAX) {
                char within[sizeof(entry->d_name) + sizeof(FILE_NAME)], **more, *name;

                snprintf(within, sizeof(within), "%s/" FILE_NAME, entry->d_name);
                if (pool_name_check(entry->d_name, "machine", NULL) < 0 ||
                    faccessat(dirfd(folder), within, F_OK, 0) < 0)
                        continue;
                more = reallocarray(*names, *n + 1, sizeof(**names));
                if (!more)
                        return -ENOMEM;
                *names = more;
                name = strdup(entry->d_name);
                if (!name)
                        return -ENOMEM;
                more[(*n)++] = name;
        }
        return 0;
}

int known_list(const char *path, char ***ret_names, size_t *ret_n, struct error *err)
{
        char **names = NULL;
        size_t n = 0;
        DIR *folder = opendir(path);
        int r;

        if (!folder && errno != ENOENT)
                return error_set(err, -errno, "cannot list '%s': %s", path, strerror(errno));
        r = folder ? collect(folder, &names, &n) : 0;
        if (folder)
                closedir(folder);
        if (r < 0) {
                state_names_free(names, n);
                return error_set(err, r, "out of memory");
        }
        if (n > 0)
                qsort(names, n, sizeof(names[0]), compare);
        *ret_names = names;
        *ret_n = n;
        return 0;
}

int known_names(char ***ret_names, size_t *ret_n, struct error *err)
{
        char path[PATH_MAX];
        int r = base_folder(path, sizeof(path), err);

        return r < 0 ? r : known_list(path, ret_names, ret_n, err);
}
