/* confine_vmm.c - which system calls a virtual machine's process may make: those of its loop, of its
 * virtual processors, and of devices.
 *
 * It has all descriptors that it will ever need, or gets them over a socket; so it opens, connects,
 * binds and listens to nothing. What a device does at an access of the guest, the thread of that
 * virtual processor does; so that its list lacks only what belongs to the loop: threads, and its
 * ring. */
#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "common/confine_bpf.h"
#include "common/confine_internal.h"
#include "common/log.h"
#include "common/sanitizers.h"

#ifdef __x86_64__

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#define N(array)     (sizeof(array) / sizeof((array)[0]))
#define ALL          UINT64_MAX
#define RULES_MAX    256u
#define INSTRUCTIONS 2048u
#define SUITS(...)                                                                                 \
        (const struct confine_check[])                                                             \
        {                                                                                          \
                __VA_ARGS__                                                                        \
        }
#define RULE(call, ...)                                                                            \
        {                                                                                          \
                SYS_##call, SECCOMP_RET_ALLOW, SUITS(__VA_ARGS__), N(SUITS(__VA_ARGS__))           \
        }

/* Of both kinds of threads. */
static const int allowed[] = {
    /* descriptors */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev,
    SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_fallocate, SYS_ftruncate,
    SYS_fadvise64, SYS_close, SYS_close_range, SYS_dup, SYS_dup3, SYS_fcntl, SYS_poll, SYS_ppoll,
    SYS_eventfd2, SYS_memfd_create,
    /* sockets, which are connected */
    SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_sendto, SYS_sendmsg,
    SYS_sendmmsg, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg,
    /* memory; nothing becomes executable */
    SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise, SYS_msync, SYS_mincore, SYS_membarrier,
    /* a thread's own */
    SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_futex, SYS_futex_waitv, SYS_exit,
    SYS_exit_group, SYS_sched_yield, SYS_sched_getaffinity, SYS_gettid, SYS_getpid, SYS_getcpu,
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday,
    SYS_time, SYS_timer_settime, SYS_timerfd_settime, SYS_timerfd_gettime,
    /* signals, of its own */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait,
    SYS_sigaltstack, SYS_restart_syscall,
    /* asking */
    SYS_getrandom, SYS_sysinfo, SYS_getrusage, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid};

/* Of the loop's; and, for confine_vcpu(), the call by which a filter is added, which only narrows. */
static const int loop_only[] = {SYS_seccomp,           SYS_io_uring_enter, SYS_io_uring_register,
                                SYS_set_tid_address,   SYS_timerfd_create, SYS_sched_getparam,
                                SYS_sched_getscheduler};

/* What ends the process: as for a server (confine_seccomp.c), whose list this is. */
static const int deadly[] = {
    /* programs and other processes */
    SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev,
    SYS_pidfd_getfd,
    /* the file system */
    SYS_mount, SYS_umount2, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsmount, SYS_fsconfig,
    SYS_mount_setattr, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns, SYS_open_by_handle_at,
    SYS_mknod, SYS_mknodat, SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_acct,
    /* the kernel */
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
    SYS_reboot, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_add_key,
    SYS_request_key, SYS_keyctl, SYS_iopl, SYS_ioperm, SYS_settimeofday, SYS_clock_settime,
    SYS_sethostname, SYS_setdomainname};

/* Of both, with such arguments. Of ioctl(2) the types in bits 8 to 15: what each may do is bounded by what
 * is open. A pair's ends are both here: for a back end to tell of its disk's size. */
static const struct confine_rule allowed_so[] = {
    RULE(ioctl, {1, 0xff00, 0xae00 /* KVM */}, {1, 0xff00, 0xaf00 /* vhost */},
         {1, UINT32_MAX, FIONREAD}, {1, UINT32_MAX, 0x5401 /* TCGETS: isatty(3) */},
         {1, UINT32_MAX, 0x400454d0 /* TUNSETOFFLOAD */}),
    RULE(socketpair, {0, UINT32_MAX, AF_UNIX}),
    RULE(mmap, {2, PROT_EXEC, 0}),
    RULE(mprotect, {2, PROT_EXEC, 0}),
};

/* A new thread, not a process: the flags of clone3(2) are in memory, where no filter sees them, so the C
 * library is told that there is no such call. Of limits only asking, which a new one of NULL is. */
static const struct confine_rule loop_only_so[] = {
    RULE(clone, {0, CLONE_THREAD, CLONE_THREAD}),
    RULE(prctl, {0, ALL, PR_SET_NAME}, {0, ALL, PR_GET_NAME}, {0, ALL, PR_SET_VMA}),
    RULE(prlimit64, {2, ALL, 0}),
};

struct rules {
        struct confine_rule rules[RULES_MAX];
        size_t n;
};

static void add(struct rules *list, const int *numbers, size_t n, uint32_t action)
{
        for (size_t i = 0; i < n; i++)
                list->rules[list->n++] =
                    (struct confine_rule){.number = numbers[i], .action = action};
}

static void add_so(struct rules *list, const struct confine_rule *rules, size_t n)
{
        memcpy(&list->rules[list->n], rules, n * sizeof(*rules));
        list->n += n;
}

static int load(struct rules *list, unsigned flags, struct error *err)
{
        /* To a thread of the process: abort(3), and pthread_kill(3). */
        const struct confine_check own = {0, ALL, (uint64_t)getpid()};
        const struct confine_rule signals = {SYS_tgkill, SECCOMP_RET_ALLOW, &own, 1};
        struct sock_filter program[INSTRUCTIONS];
        struct sock_fprog whole = {.filter = program};
        int n;

        _Static_assert(N(allowed) + N(loop_only) + N(deadly) + N(allowed_so) + N(loop_only_so) <
                           RULES_MAX,
                       "there is room for all");
        add(list, allowed, N(allowed), SECCOMP_RET_ALLOW);
        add_so(list, allowed_so, N(allowed_so));
        add_so(list, &signals, 1);
        errno = 0;
        n = confine_bpf_make(list->rules, list->n, SECCOMP_RET_ERRNO | ENOSYS, program,
                             INSTRUCTIONS);
        if (n < 0)
                return error_set(err, n, "no filter of system calls: %s", strerror(-n));
        whole.len = (unsigned short)n;
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &whole) != 0)
                return error_set(err, errno ? -errno : -EIO, "no filter of system calls: %s",
                                 strerror(errno));
        return 0;
}

/* In all threads; not slowed down by defences meant for foreign code (SSB). */
int confine_vmm_seccomp(struct error *err)
{
        struct rules list = {.n = 0};
        int r;

        if (WITH_ASAN || WITH_TSAN)
                return 0;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_set(err, -errno, "no filter of system calls: %s", strerror(errno));
        add(&list, loop_only, N(loop_only), SECCOMP_RET_ALLOW);
        add_so(&list, loop_only_so, N(loop_only_so));
        add(&list, deadly, N(deadly), SECCOMP_RET_KILL_PROCESS);
        r = load(&list,
                 SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
                     SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                 err);
        if (r == 0)
                log_debug("confined by seccomp");
        return r;
}

/* A second filter: both have to allow a call. That nobody gets new privileges is set, and setting it is
 * not on the first list. */
int confine_vcpu(struct error *err)
{
        struct rules list = {.n = 0};

        return WITH_ASAN || WITH_TSAN ? 0 : load(&list, 0, err);
}

#else /* there are virtual machines on x86-64 alone */

int confine_vmm_seccomp(struct error *err)
{
        return error_set(err, -EOPNOTSUPP, "no filter of system calls: not for this processor");
}

int confine_vcpu(struct error *err)
{
        return confine_vmm_seccomp(err);
}

#endif
