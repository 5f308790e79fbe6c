/* confine_landlock.c - what may be opened by a path, by Landlock (Documentation/userspace-api/landlock.rst).
 *
 * All rights that the kernel knows are handled, so that what no rule gives is refused. Constants and
 * the structure are those of include/uapi/linux/landlock.h, written out as the headers that a build
 * has are often older than the kernel that it meets. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "common/confine_internal.h"
#include "common/log.h"

#define ABI_MAX 6

#define FS_READ     (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_REMOVE   LANDLOCK_ACCESS_FS_REMOVE_FILE
#define FS_TRUNCATE (UINT64_C(1) << 14) /* ABI 3 */
#define FS_FILES                                                                                   \
        (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | FS_REMOVE | FS_TRUNCATE)
#define FS_SOCKETS (LANDLOCK_ACCESS_FS_MAKE_SOCK | FS_REMOVE)
/* What means something where the path is no folder. */
#define FS_OF_FILE (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)

#define NET_BIND              UINT64_C(1) /* of TCP */
#define NET_ALL               UINT64_C(3) /* and connect */
#define SCOPE_ABSTRACT_SOCKET UINT64_C(1)
#define SCOPE_SIGNAL          UINT64_C(2)

struct ruleset_attr {
        uint64_t handled_access_fs;
        uint64_t handled_access_net; /* ABI 4 */
        uint64_t scoped;             /* ABI 6 */
};

/* Each ABI adds bits at the top: REFER, TRUNCATE, IOCTL_DEV. */
static uint64_t handled_fs(int abi)
{
        const unsigned n_bits[ABI_MAX + 1] = {0, 13, 14, 15, 15, 16, 16};

        return (UINT64_C(1) << n_bits[abi]) - 1;
}

static uint64_t rights_of(unsigned rights)
{
        return (rights & CONFINE_READ ? FS_READ : 0) | (rights & CONFINE_FILES ? FS_FILES : 0) |
               (rights & CONFINE_SOCKETS ? FS_SOCKETS : 0) |
               (rights & CONFINE_REMOVE ? FS_REMOVE : 0);
}

static int add_path(int ruleset_fd, const struct confine_path *path, uint64_t handled,
                    struct error *err)
{
        struct landlock_path_beneath_attr rule = {.allowed_access =
                                                      rights_of(path->rights) & handled};
        struct stat st;
        int r = 0;

        rule.parent_fd = open(path->path, O_PATH | O_CLOEXEC);
        if (rule.parent_fd < 0) {
                log_debug("'%s' cannot be opened from now on: %s", path->path, strerror(errno));
                return 0;
        }
        if (fstat(rule.parent_fd, &st) == 0 && !S_ISDIR(st.st_mode))
                rule.allowed_access &= FS_OF_FILE;
        if (rule.allowed_access &&
            syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
                r = error_set(err, -errno, "Landlock refuses a rule for '%s': %s", path->path,
                              strerror(errno));
        close(rule.parent_fd);
        return r;
}

int confine_landlock_rules(const struct confine_profile *profile, struct error *err)
{
        long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
        struct ruleset_attr attr = {0};
        size_t size;
        int fd, r = 0;

        if (abi < 1)
                return -ENOSYS;
        if (abi > ABI_MAX)
                abi = ABI_MAX;
        attr.handled_access_fs = handled_fs((int)abi);
        attr.handled_access_net = abi < 4 ? 0 : profile->connects ? NET_BIND : NET_ALL;
        if (abi >= 6)
                attr.scoped =
                    SCOPE_SIGNAL | (profile->abstract_sockets ? 0 : SCOPE_ABSTRACT_SOCKET);
        size = abi >= 6   ? sizeof(attr)
               : abi >= 4 ? offsetof(struct ruleset_attr, scoped)
                          : offsetof(struct ruleset_attr, handled_access_net);
        fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
        if (fd < 0)
                return error_set(err, -errno, "Landlock refuses a ruleset: %s", strerror(errno));
        for (size_t i = 0; r == 0 && i < profile->n_paths; i++)
                r = add_path(fd, &profile->paths[i], attr.handled_access_fs, err);
        if (r < 0) {
                close(fd);
                return r;
        }
        log_debug("confined by Landlock, ABI %ld", abi);
        return fd;
}

int confine_landlock_enter(int ruleset_fd)
{
        return syscall(SYS_landlock_restrict_self, ruleset_fd, 0) < 0 ? -errno : 0;
}
