/* confine_seccomp.c - which system calls may be made, by libseccomp.
 *
 * What is not on the list fails by ENOSYS: the C library takes it for a kernel that is older than
 * itself, and does otherwise. A call that a server never makes, and who has taken it over might, ends
 * it: its clients lose no more than by kill -9. */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/confine_internal.h"
#include "common/log.h"
#include "common/sanitizers.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* A machine has only some of these; others are newer than libseccomp. */
static const char *const allowed[] = {
    /* descriptors */
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
    "pwritev2", "lseek", "_llseek", "fsync", "fdatasync", "sync_file_range", "sync_file_range2",
    "fallocate", "ftruncate", "ftruncate64", "fadvise64", "fadvise64_64", "close", "close_range",
    "dup", "dup2", "dup3", "fcntl", "fcntl64", "flock", "poll", "ppoll", "ppoll_time64", "pipe2",
    "eventfd2", "memfd_create", "signalfd4", "io_uring_enter", "io_uring_register", "io_setup",
    "io_submit", "io_getevents", "io_destroy",
    /* files: which, is Landlock's to say */
    "open", "openat", "stat", "stat64", "lstat", "lstat64", "fstat", "fstat64", "newfstatat",
    "fstatat64", "statx", "statfs", "statfs64", "fstatfs", "fstatfs64", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getdents", "getdents64", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "chmod", "fchmod", "fchmodat",
    "fchmodat2", "chown", "chown32", "lchown", "lchown32", "fchown", "fchown32", "fchownat",
    "umask", "getcwd",
    /* sockets; which families, see below */
    "bind", "connect", "listen", "accept", "accept4", "shutdown", "getsockname", "getpeername",
    "getsockopt", "setsockopt", "send", "sendto", "sendmsg", "sendmmsg", "recv", "recvfrom",
    "recvmsg", "recvmmsg", "recvmmsg_time64",
    /* memory; nothing becomes executable, see below */
    "brk", "munmap", "mremap", "madvise", "msync", "mincore", "membarrier",
    /* threads and time */
    "set_robust_list", "get_robust_list", "rseq", "futex", "futex_time64", "futex_waitv", "exit",
    "exit_group", "sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
    "gettid", "getpid", "set_tid_address", "set_tls", "cacheflush", "getcpu", "clock_gettime",
    "clock_gettime64", "clock_getres", "clock_getres_time64", "clock_nanosleep",
    "clock_nanosleep_time64", "nanosleep", "gettimeofday", "time",
    /* signals, of its own */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "rt_sigpending",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "sigaltstack", "restart_syscall",
    /* asking */
    "uname", "sysinfo", "getrandom", "getrlimit", "ugetrlimit", "getrusage", "getuid", "geteuid",
    "getgid", "getegid", "getuid32", "geteuid32", "getgid32", "getegid32", "getgroups",
    "getgroups32", "getppid", "capget"};

static const char *const deadly[] = {
    /* programs and other processes */
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
    /* the file system */
    "mount", "umount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig",
    "mount_setattr", "pivot_root", "chroot", "unshare", "setns", "open_by_handle_at", "mknod",
    "mknodat", "swapon", "swapoff", "quotactl", "acct",
    /* the kernel */
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "add_key", "request_key", "keyctl",
    "iopl", "ioperm", "settimeofday", "clock_settime", "sethostname", "setdomainname"};

static int add_names(scmp_filter_ctx filter, uint32_t action, const char *const *names, size_t n)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < n; i++) {
                int number = seccomp_syscall_resolve_name(names[i]);

                if (number != __NR_SCMP_ERROR)
                        r = seccomp_rule_add(filter, action, number, 0);
        }
        return r;
}

/* An argument's value, or some of its bits. */
static int add_value(scmp_filter_ctx filter, int number, unsigned argument, uint64_t value)
{
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1,
                                SCMP_CMP64(argument, SCMP_CMP_EQ, value));
}

static int add_bits(scmp_filter_ctx filter, int number, unsigned argument, uint64_t mask,
                    uint64_t bits)
{
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1,
                                SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, mask, bits));
}

static int add_sockets(scmp_filter_ctx filter, const struct confine_profile *profile)
{
        int r = add_value(filter, SCMP_SYS(socket), 0, AF_UNIX);

        if (r == 0)
                r = add_value(filter, SCMP_SYS(socketpair), 0, AF_UNIX);
        if (r == 0 && profile->vsock)
                r = add_value(filter, SCMP_SYS(socket), 0, AF_VSOCK);
        return r;
}

static int add_memory(scmp_filter_ctx filter)
{
        int r = add_bits(filter, SCMP_SYS(mmap), 2, PROT_EXEC, 0);

        if (r == 0)
                r = add_bits(filter, SCMP_SYS(mmap2), 2, PROT_EXEC, 0);
        return r < 0 ? r : add_bits(filter, SCMP_SYS(mprotect), 2, PROT_EXEC, 0);
}

/* To a thread of the process: abort(3), and pthread_kill(3). */
static int add_own_signals(scmp_filter_ctx filter)
{
        return add_value(filter, SCMP_SYS(tgkill), 0, (uint64_t)getpid());
}

/* A new thread, not a process: the flags of clone3(2) are in memory, where no filter sees them, so the
 * C library is told that there is no such call. */
static int add_threads(scmp_filter_ctx filter)
{
#ifdef __s390x__
        const unsigned flags_argument = 1;
#else
        const unsigned flags_argument = 0;
#endif
        static const int options[] = {PR_SET_NAME, PR_GET_NAME, PR_SET_VMA};
        int r = add_bits(filter, SCMP_SYS(clone), flags_argument, CLONE_THREAD, CLONE_THREAD);

        for (size_t i = 0; r == 0 && i < sizeof(options) / sizeof(options[0]); i++)
                r = add_value(filter, SCMP_SYS(prctl), 0, (uint64_t)options[i]);
        if (r == 0)
                r = add_own_signals(filter);
        if (r == 0) /* asking for a limit, which is all that a new one of NULL does */
                r = add_value(filter, SCMP_SYS(prlimit64), 2, 0);
        return r;
}

/* What disks are asked, by the type in bits 8 to 15, and of what is open how much there is to read.
 * Not terminals' (TIOCSTI types for the user). Bits above 32 the kernel does not look at, so that they
 * must not make a difference here. */
static int add_ioctls(scmp_filter_ctx filter)
{
        static const uint64_t types[] = {0x03 /* HDIO_GETGEO */, 0x12 /* BLK... */};
        static const uint64_t exactly[] = {FIONREAD, TCGETS /* isatty(3) */};
        int r = 0;

        for (size_t i = 0; r == 0 && i < sizeof(types) / sizeof(types[0]); i++)
                r = add_bits(filter, SCMP_SYS(ioctl), 1, 0xff00, types[i] << 8);
        for (size_t i = 0; r == 0 && i < sizeof(exactly) / sizeof(exactly[0]); i++)
                r = add_bits(filter, SCMP_SYS(ioctl), 1, UINT32_MAX, exactly[i]);
        return r;
}

static int add_server(scmp_filter_ctx filter, const struct confine_profile *profile)
{
        int r = add_names(filter, SCMP_ACT_ALLOW, allowed, sizeof(allowed) / sizeof(allowed[0]));

        if (r == 0)
                r = add_sockets(filter, profile);
        if (r == 0)
                r = add_memory(filter);
        if (r == 0)
                r = add_threads(filter);
        if (r == 0)
                r = add_ioctls(filter);
        return r;
}

static int fill(scmp_filter_ctx filter, const struct confine_profile *profile)
{
        int r = add_server(filter, profile);

        if (r == 0)
                r = add_names(filter, SCMP_ACT_KILL_PROCESS, deadly,
                              sizeof(deadly) / sizeof(deadly[0]));
        /* In all threads; not slowed down by defences meant for foreign code (SSB); sought as a tree. */
        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (r == 0) {
                (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
                (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        }
        return r;
}

int confine_seccomp(const struct confine_profile *profile, struct error *err)
{
        scmp_filter_ctx filter;
        int r;

        if (WITH_ASAN || WITH_TSAN)
                return 0;
        filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
        if (!filter)
                return error_set(err, -ENOMEM, "no filter of system calls: out of memory");
        r = fill(filter, profile);
        if (r == 0)
                r = seccomp_load(filter);
        seccomp_release(filter);
        if (r < 0)
                return error_set(err, r, "no filter of system calls: %s", strerror(-r));
        log_debug("confined by seccomp");
        return 0;
}
