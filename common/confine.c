/* confine.c - giving up all that a process does not need any more. */
#include "common/confine.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "common/all_threads.h"
#include "common/confine_internal.h"
#include "common/log.h"
#include "common/sanitizers.h"

/* ---- capabilities: capabilities(7), by the calls themselves, as each thread has to make them ---- */

#define CAPABILITY(number) (UINT64_C(1) << (number))

struct capabilities {
        uint64_t permitted, effective;
};

static int capabilities_get(struct capabilities *ret)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];

        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        ret->permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
        ret->effective = (uint64_t)data[1].effective << 32 | data[0].effective;
        return 0;
}

/* Those that might be inherited go in any case. */
static int capabilities_set(const struct capabilities *c)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        const struct __user_cap_data_struct data[2] = {
            {.permitted = (uint32_t)c->permitted, .effective = (uint32_t)c->effective},
            {.permitted = (uint32_t)(c->permitted >> 32),
             .effective = (uint32_t)(c->effective >> 32)}};

        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* Whether files are used as the user whose they are. */
static bool needs_override(const struct confine_profile *profile)
{
        for (size_t i = 0; i < profile->n_paths; i++) {
                const struct confine_path *p = &profile->paths[i];
                bool change = p->rights & (CONFINE_FILES | CONFINE_SOCKETS | CONFINE_REMOVE);
                int mode = (p->rights & CONFINE_READ ? R_OK : 0) | (change ? W_OK | X_OK : 0);

                if (faccessat(AT_FDCWD, p->path, mode, AT_EACCESS) < 0 && errno == EACCES) {
                        log_debug("'%s' is not this user's: CAP_DAC_OVERRIDE is kept", p->path);
                        return true;
                }
        }
        return false;
}

/* Who is in the group may give it his files; else it takes a capability. */
static bool needs_chown(gid_t group)
{
        int n = getgroups(0, NULL);
        gid_t *groups;
        bool needed;

        if (group == (gid_t)-1 || group == getegid())
                return false;
        groups = n < 0 ? NULL : calloc((size_t)n + 1, sizeof(*groups));
        if (!groups || getgroups(n, groups) != n) {
                free(groups);
                return true;
        }
        groups[n] = group;
        needed = true;
        for (int i = 0; i < n; i++)
                if (groups[i] == group)
                        needed = false;
        if (needed)
                needed = setgroups((size_t)n + 1, groups) < 0;
        free(groups);
        return needed;
}

static uint64_t capabilities_needed(const struct confine_profile *profile)
{
        struct capabilities all = {0}, none;
        uint64_t needed;

        if (capabilities_get(&all) < 0 || all.permitted == 0)
                return 0;
        needed = needs_chown(profile->socket_group) ? CAPABILITY(CAP_CHOWN) : 0;
        none = all;
        none.effective = 0;
        if (profile->connects || (capabilities_set(&none) == 0 && needs_override(profile)))
                needed |= CAPABILITY(CAP_DAC_OVERRIDE);
        capabilities_set(&all);
        return needed & all.permitted;
}

/* ---- each thread ---- */

struct confinement {
        uint64_t capabilities;
        int ruleset_fd; /* negative: none */
};

/* The bounding set cannot be changed without CAP_SETPCAP, nor does it matter without privileges and
 * with no_new_privs. */
static int confine_thread(void *arg)
{
        const struct confinement *c = arg;
        const struct capabilities left = {c->capabilities, c->capabilities};
        int r;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
                if (!(c->capabilities & CAPABILITY(i)))
                        prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
        r = capabilities_set(&left);
        if (r == 0 && c->ruleset_fd >= 0)
                r = confine_landlock_enter(c->ruleset_fd);
        return r;
}

int confine(const struct confine_profile *profile, struct error *err)
{
        struct error later = ERROR_INIT;
        struct confinement c = {.ruleset_fd = -1};
        int r, r2;

        if (WITH_TSAN)
                return 0;
        c.ruleset_fd = confine_landlock_rules(profile, err);
        r = c.ruleset_fd < 0 && c.ruleset_fd != -ENOSYS ? c.ruleset_fd : 0;
        if (c.ruleset_fd == -ENOSYS)
                log_debug("the kernel has no Landlock");
        c.capabilities = capabilities_needed(profile);
        tzset(); /* reads /etc/localtime, once */
        r2 = all_threads_call(confine_thread, &c, r == 0 ? err : &later);
        if (c.ruleset_fd >= 0)
                close(c.ruleset_fd);
        r = r < 0 ? r : r2;
        if (profile->connects)
                return r;
        r2 = profile->vmm ? confine_vmm_seccomp(r == 0 ? err : &later)
                          : confine_seccomp(profile, r == 0 ? err : &later);
        return r < 0 ? r : r2;
}
