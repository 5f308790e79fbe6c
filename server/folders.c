/* folders.c - where state and sockets are kept. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/state.h"

/* mkdir -p. What exists is taken as it is. */
static int make_folder(char *path, mode_t mode, const char *what, struct error *err)
{
        for (char *p = path + 1; *p; p++) {
                if (*p != '/')
                        continue;
                *p = '\0';
                if (mkdir(path, 0755) < 0 && errno != EEXIST) {
                        int r = error_set(err, -errno, "cannot make the %s folder '%s': %s", what,
                                          path, strerror(errno));
                        *p = '/';
                        return r;
                }
                *p = '/';
        }
        if (mkdir(path, mode) < 0 && errno != EEXIST)
                return error_set(err, -errno, "cannot make the %s folder '%s': %s", what, path,
                                 strerror(errno));
        return 0;
}

static const char *environment(const char *name)
{
        const char *value = secure_getenv(name);

        return value && value[0] != '\0' ? value : NULL;
}

static int take(char *ret_path, size_t size, struct error *err, const char *a, const char *b)
{
        if ((size_t)snprintf(ret_path, size, "%s%s", a, b) >= size)
                return error_set(err, -ENAMETOOLONG, "the path '%s%s' is too long", a, b);
        return 0;
}

int state_dir(char *ret_path, size_t size, struct error *err)
{
        const char *base;
        int r;

        if ((base = environment("TARN_STATE_DIR")))
                r = take(ret_path, size, err, base, "");
        else if (geteuid() == 0)
                r = take(ret_path, size, err, "/var/lib/tarn", "");
        else if ((base = environment("XDG_STATE_HOME")))
                r = take(ret_path, size, err, base, "/tarn");
        else if ((base = environment("HOME")))
                r = take(ret_path, size, err, base, "/.local/state/tarn");
        else
                return error_set(err, -ENOENT,
                                 "neither TARN_STATE_DIR nor HOME says where to keep state");
        return r < 0 ? r : make_folder(ret_path, 0755, "state", err);
}

int runtime_dir(char *ret_path, size_t size, struct error *err)
{
        const char *base;
        int r;

        if ((base = environment("TARN_RUNTIME_DIR")))
                r = take(ret_path, size, err, base, "");
        else if (geteuid() == 0)
                r = take(ret_path, size, err, "/run/tarn", "");
        else if ((base = environment("XDG_RUNTIME_DIR")))
                r = take(ret_path, size, err, base, "/tarn");
        else {
                /* A login without a session manager (su, cron,
                 * a container) has no XDG_RUNTIME_DIR. */
                r = state_dir(ret_path, size, err);
                if (r == 0 && strlen(ret_path) + 5 > size)
                        r = error_set(err, -ENAMETOOLONG, "the state folder's path is too long");
                if (r == 0)
                        strcat(ret_path, "/run");
        }
        return r < 0 ? r : make_folder(ret_path, 0755, "socket", err);
}
