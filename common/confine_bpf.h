/* confine_bpf.h - a list of rules for system calls as a program of seccomp(2).
 *
 * libseccomp does that for any machine and any expression, and takes a million instructions for it: a
 * virtual machine's process has two such lists at its start, for x86-64, and of few kinds of conditions.
 *
 * Units      none.
 * Threads    [any thread]
 * Errors     negative errno; no sentence.
 * Ownership  everything is the caller's.
 * Source     Linux, Documentation/userspace-api/seccomp_filter.rst; Documentation/networking/filter.rst,
 *            the classic instruction set; include/uapi/linux/seccomp.h.
 */
#pragma once
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>

/* An argument of which some bits have a value. */
struct confine_check {
        uint8_t argument; /* 0 to 5 */
        uint64_t mask, value;
};

/* For a call with @number @action (SECCOMP_RET_*) where any of the checks holds, or there is none; else what
 * is done to any other call. */
struct confine_rule {
        int number;
        uint32_t action;
        const struct confine_check *checks;
        size_t n_checks;
};

/* Sorts @rules, and writes the program. Calls of another machine's (i386, x32) end the process; those that
 * no rule is for get @otherwise. The number of instructions, or
 *
 * -EINVAL  two rules are of one number, a number is negative or x32's, an argument is none
 * -E2BIG   @max are too few */
int confine_bpf_make(struct confine_rule *rules, size_t n, uint32_t otherwise,
                     struct sock_filter *program, size_t max);
