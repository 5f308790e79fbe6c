/* A confined process tries what it must not be able to do, and what it must.
 *
 * Each trial is in a child, as nothing of this can be taken back. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/all_threads.h"
#include "common/confine_internal.h"
#include "common/sanitizers.h"
#include "tests/unit/loop_fixture.h"

#define FILTERED (!(WITH_ASAN || WITH_TSAN))

#define CHECK(condition)                                                                           \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno);   \
                        return 1;                                                                  \
                }                                                                                  \
        } while (0)
/* It fails, and in this way. */
#define FAILS(code, call) CHECK((errno = 0, (call) < 0) && errno == (code))

/* ---- children ---- */

static char folder[] = "/tmp/tarn-confine.XXXXXX";

static const char *in_folder(const char *name)
{
        static char path[4][128];
        static unsigned next;
        char *p = path[next++ % 4];

        snprintf(p, sizeof(path[0]), "%s/%s", folder, name);
        return p;
}

static int confine_to(const struct confine_path *paths, size_t n)
{
        const struct confine_profile profile = {
            .paths = paths, .n_paths = n, .socket_group = (gid_t)-1};
        struct error e = ERROR_INIT;

        if (confine(&profile, &e) < 0) {
                fprintf(stderr, "%s\n", e.message);
                return -1;
        }
        return 0;
}

static int confine_to_nothing(void)
{
        return confine_to(NULL, 0);
}

static int wait_status(int (*body)(void))
{
        const struct rlimit no_core = {0};
        int status;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                setrlimit(RLIMIT_CORE, &no_core);
                signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on with the next test */
                alarm(30);
                _exit(body());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static void passes(int (*body)(void))
{
        assert_int_equal(wait_status(body), 0);
}

static void dies(int (*body)(void))
{
        int status = wait_status(body);

        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
}

static int landlock_abi(void)
{
        return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static void needs_landlock(int abi)
{
        if (landlock_abi() >= abi)
                return;
        print_message("SKIP: the kernel has no Landlock of ABI %d\n", abi);
        skip();
}

static void needs_filter(void)
{
        if (FILTERED)
                return;
        print_message("SKIP: no filter of system calls in builds with a sanitizer\n");
        skip();
}

/* A number of /proc/self/task/THREAD/status, in hexadecimal. */
static int thread_status(const char *thread, const char *name, unsigned long long *ret)
{
        char path[64], line[256];
        FILE *file;
        int r = -1;

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", thread);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
                if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
                        r = sscanf(line + strlen(name) + 1, "%llx", ret) == 1 ? 0 : -1;
        if (file)
                fclose(file);
        return r;
}

static void make_file(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, "content", 7), 7);
        close(fd);
}

static int make_folder(void **state)
{
        static const char *const folders[] = {"read", "files", "sockets", "remove", "other"};

        assert_non_null(mkdtemp(folder));
        for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
                char file[64];

                assert_int_equal(mkdir(in_folder(folders[i]), 0700), 0);
                snprintf(file, sizeof(file), "%s/old", folders[i]);
                make_file(in_folder(file));
        }
        return 0;
}

static int remove_folder(void **state)
{
        char command[128];

        snprintf(command, sizeof(command), "rm -rf %s", folder);
        return system(command);
}

/* ---- paths ---- */

static int confine_to_folders(void)
{
        const struct confine_path paths[] = {
            {in_folder("read"), CONFINE_READ},
            {in_folder("files"), CONFINE_READ | CONFINE_FILES},
            {in_folder("sockets"), CONFINE_SOCKETS},
            {in_folder("remove"), CONFINE_REMOVE},
        };

        return confine_to(paths, 4);
}

static int bind_unix(const char *path)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;

        snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
        r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof(a));
        if (r < 0 && fd >= 0) {
                int saved = errno;

                close(fd);
                errno = saved;
        }
        return r;
}

static int try_other_paths(void)
{
        char path[] = "/proc/self/fd/0123456789";
        int other = open(in_folder("other"), O_PATH | O_DIRECTORY);

        CHECK(other >= 0 && confine_to_folders() == 0);
        FAILS(EACCES, open("/etc/passwd", O_RDONLY));
        FAILS(EACCES, open("/dev/null", O_RDWR));
        FAILS(EACCES, open("/", O_RDONLY | O_DIRECTORY));
        FAILS(EACCES, open("/tmp/tarn-confine-new", O_WRONLY | O_CREAT, 0600));
        FAILS(EACCES, open(in_folder("other/old"), O_RDONLY));
        FAILS(EACCES, openat(other, "old", O_RDONLY));
        snprintf(path, sizeof(path), "/proc/self/fd/%d", other);
        FAILS(EACCES, open(path, O_RDONLY | O_DIRECTORY));
        CHECK(truncate(in_folder("other/old"), 0) < 0);
        FAILS(EACCES, unlink(in_folder("other/old")));
        FAILS(EACCES, mkdir(in_folder("other/new"), 0700));
        FAILS(EACCES, bind_unix(in_folder("other/new")));
        return 0;
}

static void opens_nothing_that_is_not_named(void **state)
{
        needs_landlock(3);
        passes(try_other_paths);
}

static int try_named_folders(void)
{
        int fd;

        CHECK(confine_to_folders() == 0);
        CHECK(close(open(in_folder("read/old"), O_RDONLY)) == 0);
        FAILS(EACCES, open(in_folder("read/old"), O_RDWR));
        FAILS(EACCES, unlink(in_folder("read/old")));

        fd = open(in_folder("files/new"), O_RDWR | O_CREAT | O_TRUNC, 0600);
        CHECK(fd >= 0 && write(fd, "x", 1) == 1 && ftruncate(fd, 0) == 0 && fsync(fd) == 0);
        CHECK(rename(in_folder("files/new"), in_folder("files/old")) == 0);
        FAILS(EACCES, mkdir(in_folder("files/folder"), 0700));
        FAILS(EACCES, bind_unix(in_folder("files/socket")));
        CHECK(symlink("/etc", in_folder("files/link")) < 0);
        CHECK(unlink(in_folder("files/old")) == 0);

        CHECK(bind_unix(in_folder("sockets/new")) == 0);
        CHECK(rename(in_folder("sockets/new"), in_folder("sockets/newer")) == 0);
        CHECK(unlink(in_folder("sockets/newer")) == 0);
        FAILS(EACCES, open(in_folder("sockets/file"), O_WRONLY | O_CREAT, 0600));
        FAILS(EACCES, open(in_folder("sockets/old"), O_RDONLY));

        FAILS(EACCES, open(in_folder("remove/old"), O_RDONLY));
        FAILS(EACCES, bind_unix(in_folder("remove/new")));
        CHECK(unlink(in_folder("remove/old")) == 0);
        return 0;
}

static void has_in_a_folder_what_it_was_given(void **state)
{
        needs_landlock(3);
        passes(try_named_folders);
}

static int try_descriptors(void)
{
        int fd = open(in_folder("other/old"), O_RDWR);
        char text[8];

        CHECK(fd >= 0 && confine_to_nothing() == 0);
        CHECK(pread(fd, text, sizeof(text), 0) == 7);
        CHECK(pwrite(fd, "CONTENT", 7, 0) == 7 && fdatasync(fd) == 0 && ftruncate(fd, 7) == 0);
        return 0;
}

static void uses_what_is_open(void **state)
{
        passes(try_descriptors);
}

/* ---- the network, other processes ---- */

static int try_network(void)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t length = sizeof(a);
        int listener = socket(AF_INET, SOCK_STREAM, 0), before = socket(AF_INET, SOCK_STREAM, 0);

        CHECK(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 1) == 0);
        CHECK(getsockname(listener, (struct sockaddr *)&a, &length) == 0);
        CHECK(confine_to_nothing() == 0);
        FAILS(EACCES, connect(before, (struct sockaddr *)&a, sizeof(a)));
        a.sin_port = 0;
        FAILS(EACCES, bind(before, (struct sockaddr *)&a, sizeof(a)));
        return 0;
}

static void a_tcp_socket_that_it_has_connects_nowhere(void **state)
{
        needs_landlock(4);
        passes(try_network);
}

/* The process that connects for a server: anywhere, with names and keys from anywhere, and that is all. */
static int try_connecting(void)
{
        const struct confine_path all = {"/", CONFINE_READ};
        const struct confine_profile profile = {.paths = &all,
                                                .n_paths = 1,
                                                .socket_group = (gid_t)-1,
                                                .abstract_sockets = true,
                                                .connects = true};
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t length = sizeof(a);
        int listener = socket(AF_INET, SOCK_STREAM, 0), status;
        char *const none[] = {NULL};
        unsigned long long value;
        char self[32];
        pid_t pid;

        CHECK(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 1) == 0);
        CHECK(getsockname(listener, (struct sockaddr *)&a, &length) == 0);
        CHECK(confine(&profile, NULL) == 0);
        CHECK(connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof(a)) == 0);
        CHECK(close(open(in_folder("read/old"), O_RDONLY)) == 0);
        pid = fork();
        if (pid == 0)
                _exit(7);
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 7 << 8);

        a.sin_port = 0;
        FAILS(EACCES, bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof(a)));
        FAILS(EACCES, open(in_folder("read/old"), O_WRONLY));
        FAILS(EACCES, open(in_folder("files/new"), O_WRONLY | O_CREAT, 0600));
        FAILS(EACCES, unlink(in_folder("read/old")));
        FAILS(EACCES, mkdir(in_folder("new"), 0700));
        FAILS(EACCES, execve("/bin/true", none, none));
        FAILS(EPERM, mount("none", "/", "tmpfs", 0, NULL));
        snprintf(self, sizeof(self), "%d", (int)getpid());
        CHECK(thread_status(self, "CapEff", &value) == 0);
        CHECK((value & ~(1ull << CAP_DAC_OVERRIDE)) == 0);
        CHECK(thread_status(self, "NoNewPrivs", &value) == 0 && value == 1);
        return 0;
}

static void what_connects_for_others_does_nothing_else(void **state)
{
        needs_landlock(4);
        passes(try_connecting);
}

static int try_sockets(void)
{
        CHECK(confine_to_nothing() == 0);
        FAILS(ENOSYS, socket(AF_INET, SOCK_STREAM, 0));
        FAILS(ENOSYS, socket(AF_INET6, SOCK_DGRAM, 0));
        FAILS(ENOSYS, socket(AF_NETLINK, SOCK_RAW, 0));
        FAILS(ENOSYS, socket(AF_PACKET, SOCK_RAW, 0));
        FAILS(ENOSYS, socket(AF_VSOCK, SOCK_STREAM, 0));
        CHECK(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
        return 0;
}

static void makes_unix_sockets_only(void **state)
{
        needs_filter();
        passes(try_sockets);
}

static int try_signals(void)
{
        CHECK(confine_to_nothing() == 0);
        CHECK(kill(getppid(), 0) < 0 && (errno == ENOSYS || errno == EPERM));
        CHECK(syscall(SYS_tgkill, getppid(), getppid(), 0) < 0);
        CHECK(errno == (FILTERED ? ENOSYS : EPERM));
        CHECK(syscall(SYS_tgkill, getpid(), getpid(), 0) == 0);
        return 0;
}

static void signals_nobody_else(void **state)
{
        needs_landlock(FILTERED ? -1 : 6);
        passes(try_signals);
}

/* ---- calls that end it ---- */

/* Called by number where the C library would do something else first. */
static int call_deadly(long number)
{
        if (confine_to_nothing() < 0)
                return 2;
        syscall(number, 0, 0, 0, 0, 0, 0);
        return 1;
}

#define DEADLY(name)                                                                               \
        static int call_##name(void)                                                               \
        {                                                                                          \
                return call_deadly(SYS_##name);                                                    \
        }
DEADLY(execve)
DEADLY(execveat)
DEADLY(ptrace)
DEADLY(process_vm_writev)
DEADLY(mount)
DEADLY(umount2)
DEADLY(chroot)
DEADLY(unshare)
DEADLY(setns)
DEADLY(init_module)
DEADLY(finit_module)
DEADLY(kexec_load)
DEADLY(bpf)
DEADLY(perf_event_open)
DEADLY(userfaultfd)
DEADLY(keyctl)
DEADLY(open_by_handle_at)
DEADLY(mknodat)
DEADLY(io_uring_setup)

static void a_call_that_a_server_never_makes_ends_it(void **state)
{
        static int (*const calls[])(void) = {call_execve,
                                             call_execveat,
                                             call_ptrace,
                                             call_process_vm_writev,
                                             call_mount,
                                             call_umount2,
                                             call_chroot,
                                             call_unshare,
                                             call_setns,
                                             call_init_module,
                                             call_finit_module,
                                             call_kexec_load,
                                             call_bpf,
                                             call_perf_event_open,
                                             call_userfaultfd,
                                             call_keyctl,
                                             call_open_by_handle_at,
                                             call_mknodat,
                                             call_io_uring_setup};

        needs_filter();
        for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
                dies(calls[i]);
}

/* getpid() of i386, whose numbers are others'. */
static long getpid_i386(void)
{
        long result = -1;

#ifdef __x86_64__
        __asm__ volatile("int $0x80"
                         : "=a"(result)
                         : "0"(20L)
                         : "r8", "r9", "r10", "r11", "memory");
#endif
        return result;
}

static int has_i386(void)
{
        return getpid_i386() == (long)getpid() ? 0 : 1;
}

static int call_i386(void)
{
        if (confine_to_nothing() < 0)
                return 2;
        getpid_i386();
        return 1;
}

static void a_call_by_another_architectures_numbers_ends_it(void **state)
{
        needs_filter();
        if (wait_status(has_i386) != 0) {
                print_message("SKIP: the kernel takes no calls of i386\n");
                skip();
        }
        dies(call_i386);
}

/* ---- calls that fail ---- */

static int try_unlisted(void)
{
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int fds[2], n = 1;

        CHECK(confine_to_nothing() == 0);
        FAILS(ENOSYS, syscall(SYS_setuid, 0));
        FAILS(ENOSYS, syscall(SYS_setresuid, 0, 0, 0));
        FAILS(ENOSYS, syscall(SYS_setgroups, 0, NULL));
        FAILS(ENOSYS, syscall(SYS_capset, NULL, NULL));
        FAILS(ENOSYS, syscall(SYS_seccomp, 0, 0, NULL));
        FAILS(ENOSYS, syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); /* a process, not a thread */
        FAILS(ENOSYS, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
        FAILS(ENOSYS, syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &(struct rlimit){1, 1}, NULL));
        FAILS(ENOSYS, syscall(SYS_ioctl, 0, TIOCSTI, "x"));
        FAILS(ENOSYS, syscall(SYS_ioctl, 0, TIOCSTI | 1UL << 32, "x"));
        FAILS(ENOSYS, syscall(SYS_ioctl, 0, TIOCSTI | 1UL << 16, "x"));
        CHECK(pipe(fds) == 0 && ioctl(fds[0], FIONREAD, &n) == 0 && n == 0);
        CHECK(mmap(NULL, page, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
              MAP_FAILED);
        CHECK(mprotect(memory, page, PROT_READ | PROT_EXEC) < 0);
        CHECK(mprotect(memory, page, PROT_READ) == 0);
        return 0;
}

static void a_call_that_is_not_listed_fails(void **state)
{
        needs_filter();
        passes(try_unlisted);
}

/* ---- where it is refused ---- */

/* As a container may. */
static int refuse_seccomp(void)
{
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_seccomp, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0
                   ? -1
                   : 0;
}

static int try_refused(void)
{
        const struct confine_profile profile = {.socket_group = (gid_t)-1};
        struct error e = ERROR_INIT;

        CHECK(refuse_seccomp() == 0);
        CHECK(confine(&profile, &e) < 0);
        CHECK(strstr(e.message, "no filter of system calls"));
        if (landlock_abi() >= 1)
                FAILS(EACCES, open("/etc/passwd", O_RDONLY));
        FAILS(EPERM, chown(in_folder("read"), 1, 1));
        return 0;
}

static void what_is_refused_leaves_the_rest_in_force(void **state)
{
        needs_filter();
        passes(try_refused);
}

/* ---- privileges, in all threads ---- */

static int count_confined(void)
{
        static const char *const empty[] = {"CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"};
        DIR *threads = opendir("/proc/self/task");
        const struct dirent *entry;
        int n = 0;

        while (threads && (entry = readdir(threads))) {
                unsigned long long value;

                if (entry->d_name[0] == '.')
                        continue;
                n++;
                if (thread_status(entry->d_name, "NoNewPrivs", &value) < 0 || value != 1)
                        return -1;
                if (FILTERED && (thread_status(entry->d_name, "Seccomp", &value) < 0 || value != 2))
                        return -2;
                /* Who is not root cannot lower his bounding set. */
                for (int i = 0; i < (geteuid() == 0 ? 5 : 4); i++)
                        if (thread_status(entry->d_name, empty[i], &value) < 0 || value != 0)
                                return -3;
        }
        if (threads)
                closedir(threads);
        return n;
}

static int gate[2];

static void *wait_at_gate(void *arg)
{
        char byte;
        int fd;

        if (read(gate[0], &byte, 1) != 1)
                return "the read was disturbed";
        if (landlock_abi() < 1)
                return NULL;
        fd = open("/etc/passwd", O_RDONLY);
        return fd < 0 && errno == EACCES ? NULL : "a thread can still open files";
}

#define THREADS 5

static int try_threads(void)
{
        const struct confine_path proc = {"/proc", CONFINE_READ};
        pthread_t threads[2 * THREADS];
        sigset_t blocked, before;
        void *result;

        CHECK(pipe(gate) == 0);
        all_threads_blocked(&blocked);
        pthread_sigmask(SIG_SETMASK, &blocked, &before);
        for (int i = 0; i < THREADS; i++)
                CHECK(pthread_create(&threads[i], NULL, wait_at_gate, NULL) == 0);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        CHECK(confine_to(&proc, 1) == 0);
        for (int i = THREADS; i < 2 * THREADS; i++)
                CHECK(pthread_create(&threads[i], NULL, wait_at_gate, NULL) == 0);
        CHECK(count_confined() >= 2 * THREADS + 1);
        CHECK(write(gate[1], "0123456789", 2 * THREADS) == 2 * THREADS);
        for (int i = 0; i < 2 * THREADS; i++) {
                CHECK(pthread_join(threads[i], &result) == 0);
                if (result)
                        fprintf(stderr, "%s\n", (const char *)result);
                CHECK(result == NULL);
        }
        return 0;
}

static void holds_in_threads_of_before_and_after(void **state)
{
        passes(try_threads);
}

static int try_override(void)
{
        const struct confine_path paths[] = {{in_folder("files"), CONFINE_READ | CONFINE_FILES},
                                             {"/proc", CONFINE_READ}};
        unsigned long long value;
        char self[32];

        CHECK(chown(in_folder("files"), 65534, 65534) == 0);
        CHECK(confine_to(paths, 2) == 0);
        snprintf(self, sizeof(self), "%d", (int)getpid());
        CHECK(thread_status(self, "CapEff", &value) == 0);
        CHECK(value == 1 << CAP_DAC_OVERRIDE);
        CHECK(close(open(in_folder("files/mine"), O_WRONLY | O_CREAT, 0600)) == 0);
        FAILS(EACCES, open("/etc/shadow", O_RDONLY));
        return 0;
}

static void keeps_what_it_takes_to_use_another_users_folder(void **state)
{
        if (geteuid() != 0) {
                print_message("SKIP: needs root\n");
                skip();
        }
        needs_landlock(1);
        passes(try_override);
}

static int try_group(void)
{
        const struct confine_path sockets = {in_folder("sockets"), CONFINE_SOCKETS};
        const struct confine_profile profile = {
            .paths = &sockets, .n_paths = 1, .socket_group = 4242};

        CHECK(confine(&profile, NULL) == 0);
        CHECK(bind_unix(in_folder("sockets/group")) == 0);
        CHECK(chown(in_folder("sockets/group"), (uid_t)-1, 4242) == 0);
        FAILS(EPERM, chown(in_folder("sockets/group"), (uid_t)-1, 4243));
        FAILS(EPERM, chown(in_folder("sockets/group"), 1, (gid_t)-1));
        return 0;
}

static void gives_sockets_to_their_group_without_a_capability(void **state)
{
        if (geteuid() != 0) {
                print_message("SKIP: needs root\n");
                skip();
        }
        passes(try_group);
}

/* ---- each thread ---- */

static atomic_uint n_called;

static int count_call(void *arg)
{
        atomic_fetch_add(&n_called, 1);
        return 0;
}

static atomic_bool churning;

static void *come_and_go(void *arg)
{
        return NULL;
}

static void *churn(void *arg)
{
        pthread_t thread;

        while (atomic_load(&churning))
                if (pthread_create(&thread, NULL, come_and_go, NULL) == 0)
                        pthread_join(thread, NULL);
        return NULL;
}

static int try_churn(void)
{
        pthread_t threads[3];

        atomic_store(&churning, true);
        for (int i = 0; i < 3; i++)
                CHECK(pthread_create(&threads[i], NULL, churn, NULL) == 0);
        for (int i = 0; i < 20; i++) {
                atomic_store(&n_called, 0);
                CHECK(all_threads_call(count_call, NULL, NULL) == 0);
                CHECK(atomic_load(&n_called) >= 4);
        }
        atomic_store(&churning, false);
        for (int i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
        return 0;
}

static void calls_each_thread_while_others_come_and_go(void **state)
{
        passes(try_churn);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(opens_nothing_that_is_not_named),
            cmocka_unit_test(has_in_a_folder_what_it_was_given),
            cmocka_unit_test(uses_what_is_open),
            cmocka_unit_test(a_tcp_socket_that_it_has_connects_nowhere),
            cmocka_unit_test(what_connects_for_others_does_nothing_else),
            cmocka_unit_test(makes_unix_sockets_only),
            cmocka_unit_test(signals_nobody_else),
            cmocka_unit_test(a_call_that_a_server_never_makes_ends_it),
            cmocka_unit_test(a_call_by_another_architectures_numbers_ends_it),
            cmocka_unit_test(a_call_that_is_not_listed_fails),
            cmocka_unit_test(what_is_refused_leaves_the_rest_in_force),
            cmocka_unit_test(holds_in_threads_of_before_and_after),
            cmocka_unit_test(keeps_what_it_takes_to_use_another_users_folder),
            cmocka_unit_test(gives_sockets_to_their_group_without_a_capability),
            cmocka_unit_test(calls_each_thread_while_others_come_and_go),
        };

        if (WITH_TSAN) {
                printf("SKIP: nothing is confined in builds with ThreadSanitizer\n");
                return 77;
        }
        return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
