/* opener.c - which other files an image may have opened. */
#include "formats/opener.h"
#include "formats/nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct wanted {
        const char *from, *name, *what;
        char path[PATH_MAX]; /* where the name leads to, as it stands there */
        char real[PATH_MAX]; /* where that is */
};

bool opener_has_protocol(const char *name)
{
        const char *colon = strchr(name, ':'), *slash = strchr(name, '/');

        return colon && (!slash || colon < slash);
}

static int refuse(const struct wanted *w, const char *why, struct error *err)
{
        error_set(err, -EPERM, "'%s' names '%.200s' as its %s, which %s", w->from, w->name, w->what,
                  why);
        return error_hint(err, "'--allow PATH' permits a file, or a folder with all below it");
}

static int cannot_open(const struct wanted *w, int r, struct error *err)
{
        return error_set(err, r, "cannot open '%.200s', which '%s' names as its %s: %s", w->name,
                         w->from, w->what, strerror(-r));
}

/* What is left of @path below @folder, "." for the same; NULL: it is elsewhere. Both are real. */
static const char *below(const char *folder, const char *path)
{
        size_t n = strlen(folder);

        if (strcmp(folder, "/") == 0)
                return path[1] ? path + 1 : ".";
        if (strncmp(folder, path, n) != 0)
                return NULL;
        return path[n] == '/' ? path + n + 1 : path[n] == '\0' ? "." : NULL;
}

/* Only as a place, without touching what is there. Nothing on the way may have become a link since
 * the path was found to be the real one. */
static int open_place(const char *folder, const char *rest)
{
        struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                               .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
        int folder_fd, fd;

        if (strcmp(rest, ".") == 0)
                return open(folder, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (folder_fd < 0)
                return folder_fd;
        fd = (int)syscall(SYS_openat2, folder_fd, rest, &how, sizeof(how));
        close(folder_fd);
        return fd;
}

/* Devices only where the user has named them: some do things by being opened. */
static int open_kind(const struct wanted *w, int place, bool named, int *ret_fd, struct error *err)
{
        char proc[32];
        struct stat st;
        int fd;

        if (fstat(place, &st) < 0)
                return cannot_open(w, -errno, err);
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return error_set(
                    err, -EINVAL,
                    "'%s' names '%.200s' as its %s, which is neither a regular file nor "
                    "a block device",
                    w->from, w->name, w->what);
        if (S_ISBLK(st.st_mode) && !named)
                return refuse(w, "is a device", err);
        snprintf(proc, sizeof(proc), "/proc/self/fd/%d", place);
        fd = open(proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
                return cannot_open(w, -errno, err);
        *ret_fd = fd;
        return 0;
}

/* 1 where it is not in there. */
static int try_folder(const struct wanted *w, const char *folder, bool named, int *ret_fd,
                      struct error *err)
{
        char real[PATH_MAX];
        const char *rest;
        int place, r;

        if (!realpath(folder, real))
                return named ? error_set(err, -errno, "cannot open '%s', which is allowed: %s",
                                         folder, strerror(errno))
                             : cannot_open(w, -errno, err);
        rest = below(real, w->real);
        if (!rest)
                return 1;
        place = open_place(real, rest);
        if (place < 0)
                return cannot_open(w, -errno, err);
        r = open_kind(w, place, named, ret_fd, err);
        close(place);
        return r;
}

static void folder_of(const char *path, char folder[PATH_MAX])
{
        const char *slash = strrchr(path, '/');

        if (!slash)
                snprintf(folder, PATH_MAX, ".");
        else
                snprintf(folder, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static int find(struct wanted *w, const char *folder, struct error *err)
{
        int n = w->name[0] == '/' || strcmp(folder, ".") == 0
                    ? snprintf(w->path, sizeof(w->path), "%s", w->name)
                    : snprintf(w->path, sizeof(w->path), "%s/%s", folder, w->name);

        if (n < 0 || (size_t)n >= sizeof(w->path))
                return cannot_open(w, -ENAMETOOLONG, err);
        return realpath(w->path, w->real) ? 0 : cannot_open(w, -errno, err);
}

static int refuse_address(const char *from, const char *name, const char *what, int code,
                          struct error *err)
{
        return error_set(
            err, code,
            "'%s' names '%.200s' as its %s, which is no file's name but a protocol's address", from,
            name, what);
}

static int check_name(const struct wanted *w, struct error *err)
{
        if (w->name[0] == '\0')
                return error_set(err, -EINVAL, "'%s' does not name the file that is its %s",
                                 w->from, w->what);
        if (opener_has_protocol(w->name))
                return refuse_address(w->from, w->name, w->what, -EINVAL, err);
        return 0;
}

int opener_open(const char *from, const char *name, enum image_use use, const char *const *allowed,
                size_t n_allowed, int *ret_fd, char **ret_path, struct error *err)
{
        struct wanted w = {
            .from = from, .name = name, .what = use == IMAGE_BACKING ? "backing file" : "part"};
        char folder[PATH_MAX], *path;
        int fd = -1, r;

        r = check_name(&w, err);
        if (r < 0)
                return r;
        folder_of(from, folder);
        r = find(&w, folder, err);
        if (r < 0)
                return r;
        r = 1;
        for (size_t i = 0; r == 1 && i < n_allowed; i++)
                if (!nbd_is_uri(allowed[i]))
                        r = try_folder(&w, allowed[i], true, &fd, err);
        if (r == 1)
                r = try_folder(&w, folder, false, &fd, err);
        if (r == 1)
                return refuse(&w, "lies outside of its folder", err);
        if (r < 0)
                return r;
        path = strdup(w.path);
        if (!path) {
                close(fd);
                return error_set(err, -ENOMEM, "out of memory");
        }
        *ret_fd = fd;
        *ret_path = path;
        return 0;
}

/* A host's name ends where the allowed one does: "nbd://host/" is none of host.example's or of user@host's. */
static bool permits(const char *allowed, const char *uri)
{
        const char *host = strstr(allowed, "://") + 3;
        size_t n = strlen(allowed);

        if (strcmp(allowed, uri) == 0)
                return true;
        return host[0] && allowed[n - 1] == '/' && strncmp(allowed, uri, n) == 0 &&
               !strpbrk(uri + n, "?&#");
}

int opener_export(const char *from, const char *name, const char *const *allowed, size_t n_allowed,
                  struct error *err)
{
        int r;

        for (size_t i = 0; i < n_allowed; i++)
                if (nbd_is_uri(allowed[i]) && permits(allowed[i], name))
                        return 0;
        r = refuse_address(from, name, "backing file", -EPERM, err);
        error_hint(err, "'--allow URI' permits an NBD export, 'nbd://HOST/' all of a server");
        return r;
}
