/* vm_autostart.c - tarn vm start --autostart: the machines that are to start with the host. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/vm.h"
#include "server/state.h"

struct autostart {
        const char *folder; /* NULL: none */
        int status;
        bool interrupted;
};

/* A name of the folder, or of what is known. */
typedef int start_one(const char *folder, const char *name, struct error *err);

/* What is wrong with one is told, and keeps none of the others back. */
static void start(struct autostart *a, start_one *one, const char *name)
{
        struct error e = ERROR_INIT;
        int r;

        if (a->interrupted)
                return;
        r = one(a->folder, name, &e);
        if (r < 0)
                a->status = cli_fail(&e);
        a->interrupted = r == -ECANCELED;
        fflush(stdout); /* the next one may take its time */
}

static int make_path(char path[PATH_MAX], const char *folder, const char *name, const char *end,
                     struct error *err)
{
        return snprintf(path, PATH_MAX, "%s/%s%s", folder, name, end) < PATH_MAX
                   ? 0
                   : error_set(err, -ENAMETOOLONG, "the path of '%s' in '%s' is too long", name,
                               folder);
}

/* ---- those that have a file in the folder ---- */

static int is_yaml(const struct dirent *entry)
{
        const char *dot = strrchr(entry->d_name, '.');

        return entry->d_name[0] != '.' && dot && strcmp(dot, ".yaml") == 0;
}

static int start_file(const char *folder, const char *name, struct error *err)
{
        struct vm_file *file = NULL;
        struct known *known;
        char path[PATH_MAX];
        int r = make_path(path, folder, name, "", err);

        if (r == 0)
                r = vm_file_load(path, &file, err);
        if (r < 0 || !file->autostart || known_runner(file->name) > 0) {
                vm_file_free(file);
                return r;
        }
        r = known_take(file, &known, err);
        return r < 0 ? r : cli_run_known(known, true, err);
}

/* A folder that is not there has none. */
static void start_files(struct autostart *a)
{
        struct dirent **entries;
        int n = scandir(a->folder, &entries, is_yaml, alphasort);
        struct error e = ERROR_INIT;

        if (n < 0 && errno != ENOENT) {
                error_set(&e, -errno, "cannot list '%s': %s", a->folder, strerror(errno));
                a->status = cli_fail(&e);
        }
        for (int i = 0; i < n; i++) {
                start(a, start_file, entries[i]->d_name);
                free(entries[i]);
        }
        if (n >= 0)
                free(entries);
}

/* ---- those that are known ---- */

static int start_known(const char *folder, const char *name, struct error *err)
{
        struct known *known;
        char path[PATH_MAX];
        bool wanted;
        int r = folder ? make_path(path, folder, name, ".yaml", err) : 0;

        if (r < 0)
                return r;
        if ((folder && access(path, F_OK) == 0) || known_runner(name) > 0)
                return 0; /* its file in the folder counts */
        r = known_open(name, &known, err);
        if (r < 0)
                return r;
        wanted = known->file->autostart;
        known_free(known);
        if (!wanted)
                return 0;
        r = known_lock(name, &known, err);
        return r < 0 ? r : cli_run_known(known, true, err);
}

int cli_autostart(const char *folder)
{
        struct autostart a = {.folder = folder, .status = EXIT_SUCCESS};
        struct error e = ERROR_INIT;
        char **names;
        size_t n;

        if (folder)
                start_files(&a);
        if (known_names(&names, &n, &e) < 0)
                return cli_fail(&e);
        for (size_t i = 0; i < n; i++)
                start(&a, start_known, names[i]);
        state_names_free(names, n);
        return a.status;
}
