/* confine.h - giving up all that a process does not need any more, once it has opened what it needs.
 *
 * Afterwards nothing but what the profile names can be opened by a path, no program can be started, no
 * process looked into or sent a signal, no network address be bound or connected to, no privilege come
 * back; and a system call that is not on the list does not happen. What is open stays so, and what
 * comes as a descriptor may be used.
 *
 *     no_new_privs     always
 *     capabilities     none, but for those that the profile's paths need; the bounding set likewise
 *     Landlock(7)      by the ABI that the kernel has (1 to 6); nothing where it has none
 *     seccomp(2)       a list of what is allowed; dangerous calls end the process (SIGSYS), all others
 *                      fail by ENOSYS. Not in builds with a sanitizer, which makes calls of its own,
 *                      nor where the profile says so
 *
 * Nothing of it in builds with ThreadSanitizer, which holds back the signals by which threads are called
 * and has a thread that takes none.
 *
 * io_uring's operations pass seccomp by: each ring is restricted where it is made (loop_uring.c).
 *
 * Threads    holds for all threads of the process; call it from one.
 * Errors     one way that is refused leaves the others in force.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "common/error.h"

/* What stays possible at a path, and below it where it is a folder. */
enum {
        CONFINE_READ = 1,    /* to read files and list folders */
        CONFINE_FILES = 2,   /* to make, write, rename and remove files */
        CONFINE_SOCKETS = 4, /* to make, rename and remove sockets */
        CONFINE_REMOVE = 8,  /* to remove files and sockets */
};

struct confine_path {
        const char *path; /* one that is not there is left out */
        unsigned rights;
};

struct confine_profile {
        const struct confine_path *paths;
        size_t n_paths;
        gid_t socket_group;    /* to which sockets are given later; -1: to none */
        bool vmm;              /* a virtual machine's process: confine_vmm.c */
        bool vsock;            /* vsock sockets, beside Unix ones */
        bool abstract_sockets; /* connecting to abstract sockets of processes outside */
        /* It connects for others: by TCP, to sockets of any user where it may now, and starts processes that
         * go on as it does. No filter: what the C library calls to look a name up
         * is the administrator's to choose (nsswitch.conf(5)). */
        bool connects;
};

/* The calling thread, beyond what confine() has done to the process: one that runs a virtual processor
 * makes fewer calls than the one that serves its devices. */
int confine_vcpu(struct error *err);

/* 0, or the first error with a sentence. */
int confine(const struct confine_profile *profile, struct error *err);
