/* memory_file.c - the files that a guest's memory is in. */
#include "vmm-glue/vmm/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "tarn-guest" /* as /proc/PID/maps has it */

int memory_file_new(uint64_t size, bool hugetlb, struct error *err)
{
        int fd = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugetlb ? MFD_HUGETLB : 0));

        if (fd < 0)
                return error_set(err, -errno, "cannot make the guest's memory: %s",
                                 strerror(errno));
        /* A back end that could shrink it would kill us by SIGBUS. */
        if (ftruncate(fd, (off_t)size) < 0 ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
                int r = error_set(err, -errno, "cannot make %llu MiB of memory for the guest: %s",
                                  (unsigned long long)(size >> 20), strerror(errno));

                close(fd);
                return r;
        }
        return fd;
}

/* ---- of transparent huge pages ----
 *
 * A memfd gets them only where the administrator has said so for all of them (shmem_enabled). A mount of
 * tmpfs says so for itself. It is attached nowhere, and ends with its last file.
 */

static int set(int context, const char *key, const char *value)
{
        return fsconfig(context, FSCONFIG_SET_STRING, key, value, 0);
}

static int open_in_tmpfs(void)
{
        int context = fsopen("tmpfs", FSOPEN_CLOEXEC), mount = -1, fd = -1, r;

        if (context < 0)
                return -errno;
        /* A size of 0 is no limit: else it would be half of the computer's memory. */
        if (set(context, "huge", "always") == 0 && set(context, "size", "0") == 0 &&
            fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
                mount = fsmount(context, FSMOUNT_CLOEXEC,
                                MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        if (mount >= 0)
                fd = openat(mount, NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        r = fd >= 0 ? fd : -errno;
        if (fd >= 0)
                unlinkat(mount, NAME, 0);
        if (mount >= 0)
                close(mount);
        close(context);
        return r;
}

struct helper {
        unsigned uid, gid;
        int result;
};

static int put(const char *path, const char *text)
{
        int fd = open(path, O_WRONLY | O_CLOEXEC), r;

        if (fd < 0)
                return -errno;
        r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
        close(fd);
        return r;
}

/* Runs in our memory and with our descriptors, as we wait, but in a user namespace of its own: there it
 * may mount. */
static int helper_main(void *arg)
{
        struct helper *helper = arg;
        char users[32], groups[32];
        int r;

        snprintf(users, sizeof(users), "0 %u 1", helper->uid);
        snprintf(groups, sizeof(groups), "0 %u 1", helper->gid);
        r = put("/proc/self/uid_map", users);
        if (r == 0)
                r = put("/proc/self/setgroups", "deny");
        if (r == 0)
                r = put("/proc/self/gid_map", groups);
        helper->result = r == 0 ? open_in_tmpfs() : r;
        return 0;
}

static int open_by_helper(void)
{
        struct helper helper = {.uid = geteuid(), .gid = getegid(), .result = -EPERM};
        static char stack[16384] __attribute__((aligned(16)));
        const int flags =
            CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWUSER | CLONE_NEWNS | SIGCHLD;
        sigset_t all, before;
        pid_t pid;

        /* A signal's handler of ours has nothing to do there. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pid = clone(helper_main, stack + sizeof(stack), flags, &helper);
        if (pid < 0)
                helper.result = -errno;
        while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return helper.result;
}

int memory_file_huge(uint64_t size)
{
        int fd = open_in_tmpfs();

        if (fd == -EPERM)
                fd = open_by_helper();
        if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
                int r = -errno;

                close(fd);
                return r;
        }
        return fd;
}
