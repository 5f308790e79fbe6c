/* image_file.c - the files that images consist of, kept open. */
#include "server/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct image_file {
        struct list link; /* in host->image_files, the newest first */
        char *from, *name, *path;
        int fd;
        unsigned n_users;
};

/* Of the hosts' lists: pools of one host have several loops. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_called(const struct image_file *file, const char *from, const char *name)
{
        return strcmp(file->from, from) == 0 && strcmp(file->name, name) == 0;
}

static struct image_file *file_find(struct host *host, const char *from, const char *name)
{
        list_for_each (it, &host->image_files) {
                struct image_file *file = container_of(it, struct image_file, link);

                if (is_called(file, from, name))
                        return file;
        }
        return NULL;
}

static void file_free(struct image_file *file)
{
        if (file->fd >= 0)
                close(file->fd);
        free(file->from);
        free(file->name);
        free(file->path);
        free(file);
}

static int file_new(const char *from, const char *name, const char *path, int fd,
                    struct image_file **ret_file, struct error *err)
{
        struct image_file *file = calloc(1, sizeof(*file));

        if (!file)
                return error_set(err, -ENOMEM, "out of memory");
        *file = (struct image_file){.from = strdup(from),
                                    .name = strdup(name),
                                    .path = strdup(path),
                                    .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)};
        if (file->from && file->name && file->path && file->fd >= 0) {
                *ret_file = file;
                return 0;
        }
        file_free(file);
        return error_set(err, -ENOMEM, "out of memory");
}

static bool is_same(int a, int b)
{
        struct stat x, y;

        return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
               x.st_ino == y.st_ino;
}

int image_file_get(struct host *host, const char *from, const char *name, int *ret_fd,
                   char **ret_path, struct image_file **ret_file, struct error *err)
{
        struct image_file *file;
        char *path = NULL;
        int fd = -1;

        pthread_mutex_lock(&lock);
        file = file_find(host, from, name);
        if (file) {
                fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
                path = strdup(file->path);
        }
        if (fd >= 0 && path)
                file->n_users++;
        pthread_mutex_unlock(&lock);
        if (file && (fd < 0 || !path)) {
                if (fd >= 0)
                        close(fd);
                free(path);
                return error_set(err, -ENOMEM, "out of memory");
        }
        *ret_file = file;
        if (file) {
                *ret_fd = fd;
                *ret_path = path;
        }
        return 0;
}

/* Of another time, and nobody has it any more. */
static void forget_older(struct host *host, const char *from, const char *name)
{
        list_for_each_safe (it, &host->image_files) {
                struct image_file *file = container_of(it, struct image_file, link);

                if (file->n_users == 0 && is_called(file, from, name)) {
                        list_remove(&file->link);
                        file_free(file);
                }
        }
}

int image_file_keep(struct host *host, const char *from, const char *name, const char *path, int fd,
                    struct image_file **ret_file, struct error *err)
{
        struct image_file *file;
        int r = 0;

        pthread_mutex_lock(&lock);
        file = file_find(host, from, name);
        if (!file || !is_same(file->fd, fd)) {
                forget_older(host, from, name);
                r = file_new(from, name, path, fd, &file, err);
                if (r == 0)
                        list_prepend(&host->image_files, &file->link);
        }
        if (r == 0) {
                file->n_users++;
                *ret_file = file;
        }
        pthread_mutex_unlock(&lock);
        return r;
}

void image_file_put(struct host *host, struct image_file *file, bool needed)
{
        bool gone;

        pthread_mutex_lock(&lock);
        gone = --file->n_users == 0 && !needed;
        if (gone)
                list_remove(&file->link);
        pthread_mutex_unlock(&lock);
        if (gone)
                file_free(file);
}

void image_files_close(struct host *host)
{
        list_for_each_safe (it, &host->image_files) {
                struct image_file *file = container_of(it, struct image_file, link);

                list_remove(&file->link);
                file_free(file);
        }
}
