/* cgroup.h - the CPU time that a machine gets, by a control group of its own.
 *
 * It is made below this process's own, which has to be ours: a service with Delegate=cpu has one, and so
 * has root in a container. The kernel gives controllers only to the children of a group that has no
 * processes itself, so where there are some they move into another child: all of a group that systemd
 * has delegated; of another only this process and its children, and with others in it nothing is done.
 *
 * Units      a weight as cgroup v2's cpu.weight, 100 is usual; percent of one CPU.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence: the machine can run without.
 * Ownership  release with cgroup_remove().
 * Source     Linux, Documentation/admin-guide/cgroup-v2.rst.
 */
#pragma once
#include <limits.h>
#include <sys/types.h>

#include "common/error.h"

struct cgroup {
        char path[PATH_MAX]; /* empty: there is none */
};

/* Put process @pid into the group "tarn-@name", with limits that are not 0. @root goes in front of /proc
 * and /sys: "", but for tests.
 *
 * -EOPNOTSUPP  there is no cgroup v2, or it has no CPU controller for us
 * -EACCES      our group is not ours to divide
 * -EBUSY       others' processes are in it */
int cgroup_enter(const char *root, const char *name, pid_t pid, unsigned weight,
                 unsigned max_percent, struct cgroup *ret_cgroup, struct error *err);
/* When its processes have ended; fine with none. */
void cgroup_remove(struct cgroup *cgroup);
