/* cgroup.c - the CPU time that a machine gets, by a control group of its own. */
#include "vm/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MOUNT     "/sys/fs/cgroup"
#define REST      "tarn-supervisor" /* where those go that were in our group itself */
#define PERIOD_US 100000u
/* Of a file of ours to read: more processes than these are not ours. */
#define TEXT_MAX 4096u
/* Who is born while others are moved is moved in the next round. */
#define ROUNDS_MAX 8u

__attribute__((format(printf, 3, 4))) static int make_path(char path[PATH_MAX], struct error *err,
                                                           const char *format, ...)
{
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(path, PATH_MAX, format, ap);
        va_end(ap);
        return n >= 0 && n < PATH_MAX
                   ? 0
                   : error_set(err, -ENAMETOOLONG, "the path of the control group is too long");
}

/* A text that is longer is cut. */
static int read_text(const char *path, char text[TEXT_MAX])
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t length = 0;
        ssize_t n = -1;

        text[0] = '\0';
        if (fd < 0)
                return -errno;
        while (length < TEXT_MAX - 1 && (n = read(fd, text + length, TEXT_MAX - 1 - length)) > 0)
                length += (size_t)n;
        n = n < 0 ? -errno : 0;
        text[length] = '\0';
        close(fd);
        return (int)n;
}

/* The kernel takes such a text as a whole, or refuses it. */
static int write_text(const char *folder, const char *file, const char *text)
{
        char path[PATH_MAX];
        int fd, r = make_path(path, NULL, "%s/%s", folder, file);

        if (r < 0)
                return r;
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
        close(fd);
        return r;
}

static int set(const char *folder, const char *file, const char *text, struct error *err)
{
        int r = write_text(folder, file, text);

        return r < 0 ? error_set(err, r, "cannot write '%s' to '%s/%s': %s", text, folder, file,
                                 strerror(-r))
                     : 0;
}

/* The folder of the group that this process is in, or was in before another machine's supervisor divided
 * it. */
static int find_own(const char *root, char own[PATH_MAX], struct error *err)
{
        char path[PATH_MAX], text[TEXT_MAX];
        const char *line;
        char *last;
        int r = make_path(path, err, "%s/proc/self/cgroup", root);

        if (r < 0)
                return r;
        if (read_text(path, text) < 0)
                text[0] = '\0';
        line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
        if (!line)
                return error_set(err, -EOPNOTSUPP, "this system has no cgroup v2");
        line = strstr(line, "0::") + 3;
        r = make_path(own, err, "%s" MOUNT "%.*s", root, (int)strcspn(line, "\n"), line);
        if (r < 0)
                return r;
        last = strrchr(own, '/');
        if (last[1] == '\0' || strcmp(last, "/" REST) == 0)
                *last = '\0';
        return 0;
}

static int check_controller(const char *own, struct error *err)
{
        char path[PATH_MAX], text[TEXT_MAX], *at = NULL;
        int r = make_path(path, err, "%s/cgroup.controllers", own);

        if (r < 0)
                return r;
        if (read_text(path, text) < 0)
                return error_set(err, -EOPNOTSUPP, "this system has no cgroup v2 at " MOUNT);
        for (const char *word = strtok_r(text, " \n", &at); word; word = strtok_r(NULL, " \n", &at))
                if (strcmp(word, "cpu") == 0)
                        return 0;
        error_set(err, -EOPNOTSUPP, "the control group '%s' has no CPU controller", own);
        return error_hint(err, "a service gets it by Delegate=cpu");
}

/* systemd says so of a group that it leaves to whoever is in it. */
static bool is_delegated(const char *own)
{
        char value[2] = "";

        return getxattr(own, "user.delegate", value, sizeof(value)) == 1 && value[0] == '1';
}

/* This process, or a child of it. */
static bool is_ours(const char *root, long pid)
{
        char path[PATH_MAX], text[TEXT_MAX];
        const char *end;
        int r;

        if (pid == (long)getpid())
                return true;
        r = make_path(path, NULL, "%s/proc/%ld/stat", root, pid);
        if (r == 0)
                r = read_text(path, text);
        if (r < 0)
                return r == -ENOENT || r == -ESRCH; /* it has ended */
        end = strrchr(text, ')');                   /* of its name, which may have others in it */
        return end && strlen(end) > 4 && strtol(end + 4, NULL, 10) == (long)getpid();
}

static int make_folder(const char *path, struct error *err)
{
        if (mkdir(path, 0755) == 0 || errno == EEXIST)
                return 0;
        return error_set(err, -errno, "cannot make the control group '%s': %s", path,
                         strerror(errno));
}

/* How many there were. */
static int move_all(const char *root, const char *own, const char *rest, struct error *err)
{
        const bool delegated = is_delegated(own);
        char path[PATH_MAX], text[TEXT_MAX], *at = NULL;
        int n = 0, r = make_path(path, err, "%s/cgroup.procs", own);

        if (r < 0)
                return r;
        r = read_text(path, text);
        if (r < 0)
                return error_set(err, r, "cannot read '%s': %s", path, strerror(-r));
        if (strlen(text) == TEXT_MAX - 1)
                return error_set(err, -EBUSY, "there are many processes in '%s'", own);
        for (const char *p = text; *p && !delegated; p += strcspn(p, "\n"), p += *p == '\n')
                if (!is_ours(root, strtol(p, NULL, 10))) {
                        error_set(err, -EBUSY, "others' processes are in the control group '%s'",
                                  own);
                        return error_hint(err, "a service with Delegate=cpu has one of its own");
                }
        r = text[0] ? make_folder(rest, err) : 0;
        if (r < 0)
                return r;
        for (const char *word = strtok_r(text, "\n", &at); word; word = strtok_r(NULL, "\n", &at)) {
                n++;
                r = write_text(rest, "cgroup.procs", word);
                if (r < 0 && r != -ESRCH)
                        return error_set(err, r, "cannot move process %s to '%s': %s", word, rest,
                                         strerror(-r));
        }
        return n;
}

/* The group at the root of all has processes whatever its children have, and no type. */
static bool is_root(const char *own)
{
        char path[PATH_MAX];

        return make_path(path, NULL, "%s/cgroup.type", own) == 0 && access(path, F_OK) < 0;
}

/* So that children of our group have the controller. A group that divides itself has no processes of its
 * own, or none can be moved to its children: the kernel refuses the division with -EBUSY, or, where no
 * controller but such as tell threads apart is given, takes it and makes of the group the root of a
 * tree of threads (Documentation/admin-guide/cgroup-v2.rst, "Threads"). */
static int give_to_children(const char *root, const char *own, struct error *err)
{
        const bool may_have = is_root(own);
        char rest[PATH_MAX];
        int r = make_path(rest, err, "%s/" REST, own);

        if (r < 0)
                return r;
        for (unsigned i = 0; i < ROUNDS_MAX; i++) {
                r = may_have ? 0 : move_all(root, own, rest, err);
                if (r < 0) {
                        (void)rmdir(rest);
                        return r;
                }
                /* Until there are none: who was born meanwhile is here, or where its parent went. */
                r = r > 0 ? -EBUSY : write_text(own, "cgroup.subtree_control", "+cpu");
                if (r != -EBUSY)
                        break;
        }
        return r < 0 ? error_set(err, r, "cannot divide the control group '%s': %s", own,
                                 strerror(-r))
                     : 0;
}

static int fill(const char *path, pid_t pid, unsigned weight, unsigned max_percent,
                struct error *err)
{
        char text[32];
        int r = 0;

        if (weight > 0) {
                snprintf(text, sizeof(text), "%u", weight);
                r = set(path, "cpu.weight", text, err);
        }
        if (r == 0 && max_percent > 0) {
                snprintf(text, sizeof(text), "%u %u", max_percent * (PERIOD_US / 100), PERIOD_US);
                r = set(path, "cpu.max", text, err);
        }
        if (r < 0)
                return r;
        snprintf(text, sizeof(text), "%ld", (long)pid);
        return set(path, "cgroup.procs", text, err);
}

int cgroup_enter(const char *root, const char *name, pid_t pid, unsigned weight,
                 unsigned max_percent, struct cgroup *ret_cgroup, struct error *err)
{
        struct cgroup cgroup = {0};
        char own[PATH_MAX];
        int r = find_own(root, own, err);

        if (r == 0)
                r = check_controller(own, err);
        if (r == 0)
                r = make_path(cgroup.path, err, "%s/tarn-%s", own, name);
        if (r == 0)
                r = give_to_children(root, own, err);
        if (r == 0)
                r = make_folder(cgroup.path, err);
        if (r < 0)
                return r;
        r = fill(cgroup.path, pid, weight, max_percent, err);
        if (r < 0)
                cgroup_remove(&cgroup);
        else
                *ret_cgroup = cgroup;
        return r;
}

void cgroup_remove(struct cgroup *cgroup)
{
        if (cgroup->path[0])
                (void)rmdir(cgroup->path); /* one that is left is taken again */
        cgroup->path[0] = '\0';
}
