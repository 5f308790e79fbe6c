/* file.c - VM files: from the disk or a text to a struct, and released again. */
#include "vm/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/file_internal.h"

int vm_file_parse(const void *text, size_t length, const char *name, const char *folder,
                  struct vm_file **ret_file, struct error *err)
{
        struct vm_yaml yaml = {.name = name};
        struct raw_file *raw = NULL;
        int r;

        if (length > VM_FILE_MAX)
                return error_set(err, -EFBIG, "%s: the file is larger than %u KiB", name,
                                 VM_FILE_MAX >> 10);
        r = vm_yaml_read(&yaml, text, length, err);
        if (r == 0)
                r = vm_yaml_match(&yaml, err);
        if (r == 0)
                r = raw_load(text, length, name, &raw, err);
        if (r == 0)
                r = vm_file_check(&yaml, raw, folder, ret_file, err);
        raw_free(raw);
        vm_yaml_release(&yaml);
        return r;
}

ssize_t vm_read_all(int fd, char *text, size_t size)
{
        size_t n = 0;

        while (n < size) {
                ssize_t r = read(fd, text + n, size - n);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        break;
                n += (size_t)r;
        }
        return (ssize_t)n;
}

/* The folder that the file really lies in, not that of a link to it; NULL and errno. */
static char *folder_of(const char *path)
{
        char *folder, *slash, *real = realpath(path, NULL);

        if (!real)
                return NULL;
        slash = strrchr(real, '/');
        assert(slash);
        folder = strndup(real, slash == real ? 1 : (size_t)(slash - real));
        free(real);
        return folder;
}

static int load(int fd, const char *path, struct vm_file **ret_file, struct error *err)
{
        char *folder = folder_of(path), *text = NULL;
        ssize_t n = -errno; /* of the folder */
        int r;

        if (folder) {
                text = malloc(VM_FILE_MAX + 1);
                n = text ? vm_read_all(fd, text, VM_FILE_MAX + 1) : -ENOMEM;
        }
        if (n >= 0)
                r = vm_file_parse(text, (size_t)n, path, folder, ret_file, err);
        else
                r = error_set(err, (int)n, "cannot read '%s': %s", path, strerror((int)-n));
        free(text);
        free(folder);
        return r;
}

int vm_file_load(const char *path, struct vm_file **ret_file, struct error *err)
{
        int fd, r;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        r = load(fd, path, ret_file, err);
        close(fd);
        return r;
}

static void seed_free(struct vm_seed *seed)
{
        if (!seed)
                return;
        for (size_t i = 0; i < seed->n_ssh_keys; i++)
                free(seed->ssh_keys[i]);
        free(seed->ssh_keys);
        free(seed->user_data);
        free(seed->meta_data);
        free(seed->network_config);
        free(seed);
}

void vm_file_free(struct vm_file *file)
{
        if (!file)
                return;
        for (size_t i = 0; i < file->n_disks; i++)
                free(file->disks[i].from_image);
        for (size_t i = 0; i < file->n_nics; i++)
                free(file->nics[i].forwards);
        free(file->disks);
        free(file->nics);
        free(file->kernel);
        free(file->initrd);
        free(file->cmdline);
        free(file->firmware);
        free(file->console_log);
        seed_free(file->seed);
        free(file);
}

char *vm_disk_text(const struct vm_disk *disk, char buffer[VM_DISK_TEXT_SIZE])
{
        snprintf(buffer, VM_DISK_TEXT_SIZE, "%s/%s%s%s", disk->pool, disk->volume,
                 disk->snapshot[0] ? "@" : "", disk->snapshot);
        return buffer;
}

bool vm_disk_is_same(const struct vm_disk *a, const struct vm_disk *b)
{
        return strcmp(a->pool, b->pool) == 0 && strcmp(a->volume, b->volume) == 0 &&
               strcmp(a->snapshot, b->snapshot) == 0;
}
