/* confine_internal.h - the ways of confinement, for confine.c. */
#pragma once
#include "common/confine.h"

/* A descriptor of the ruleset; -ENOSYS where the kernel has no Landlock. */
int confine_landlock_rules(const struct confine_profile *profile, struct error *err);
/* The calling thread; a signal handler may do it. */
int confine_landlock_enter(int ruleset_fd);

/* All threads: of a server (confine_seccomp.c), and of a virtual machine's process (confine_vmm.c). */
int confine_vmm_seccomp(struct error *err);
int confine_seccomp(const struct confine_profile *profile, struct error *err);
