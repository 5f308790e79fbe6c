/* What a virtual machine's process may still do, and what a virtual processor's thread may not.
 *
 * Each trial is in a child, as nothing of this can be taken back. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/confine.h"
#include "common/sanitizers.h"

#define CHECK(condition)                                                                           \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno);   \
                        return 1;                                                                  \
                }                                                                                  \
        } while (0)
/* It fails, and in this way. */
#define FAILS(code, call) CHECK((errno = 0, (call) < 0) && errno == (code))

#define KVM_GET_API_VERSION 0xae00u
#define VHOST_SET_OWNER     0xaf01u

static int confined(int (*trial)(void))
{
        const struct confine_profile profile = {.socket_group = (gid_t)-1, .vmm = true};
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                _exit(confine(&profile, NULL) < 0 ? 2 : trial());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

/* ---- the process ---- */

static int try_to_open(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/x"};
        int pair[2];

        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        FAILS(ENOSYS, open("/dev/null", O_RDONLY));
        FAILS(ENOSYS, socket(AF_UNIX, SOCK_STREAM, 0));
        FAILS(ENOSYS, socket(AF_INET, SOCK_STREAM, 0));
        FAILS(ENOSYS, socketpair(AF_INET, SOCK_STREAM, 0, pair));
        FAILS(ENOSYS, connect(pair[0], (struct sockaddr *)&address, sizeof(address)));
        FAILS(ENOSYS, bind(pair[0], (struct sockaddr *)&address, sizeof(address)));
        FAILS(ENOSYS, listen(pair[0], 1));
        FAILS(ENOSYS, unlink("/run/x"));
        FAILS(ENOSYS, kill(getppid(), 0));
        FAILS(ENOSYS, fork());
        FAILS(ENOSYS, ioctl(pair[0], TIOCSTI, "x"));
        CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
              MAP_FAILED);
        CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) < 0); /* not on the list either */
        return 0;
}

static void *nothing(void *arg)
{
        return arg;
}

static int use_what_devices_need(void)
{
        pthread_t thread;
        int memory = memfd_create("x", MFD_CLOEXEC), event = eventfd(0, EFD_CLOEXEC);
        void *mapped;

        CHECK(memory >= 0 && event >= 0);
        CHECK(ftruncate(memory, 8192) == 0 && fallocate(memory, 0, 0, 4096) == 0);
        mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        CHECK(mapped != MAP_FAILED && munmap(mapped, 4096) == 0);
        FAILS(ENOTTY, ioctl(memory, KVM_GET_API_VERSION, 0));
        FAILS(ENOTTY, ioctl(memory, VHOST_SET_OWNER, 0));
        CHECK(pthread_create(&thread, NULL, nothing, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        return 0;
}

static int start_a_program(void)
{
        char *const words[] = {(char *)"true", NULL};

        execv("/bin/true", words);
        return 0;
}

static void opens_and_connects_to_nothing(void **state)
{
        assert_int_equal(confined(try_to_open), 0);
}

static void has_what_its_devices_need(void **state)
{
        assert_int_equal(confined(use_what_devices_need), 0);
}

static void a_program_ends_it(void **state)
{
        int status = confined(start_a_program);

        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* ---- a virtual processor ---- */

static int be_a_vcpu(void)
{
        pthread_t thread;
        int memory;

        CHECK(confine_vcpu(NULL) == 0);
        CHECK(pthread_create(&thread, NULL, nothing, NULL) != 0);
        FAILS(ENOSYS, (int)syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0));
        FAILS(ENOSYS, (int)syscall(SYS_seccomp, 0, 0, NULL));
        memory = memfd_create("x", MFD_CLOEXEC);
        CHECK(memory >= 0);
        FAILS(ENOTTY, ioctl(memory, KVM_GET_API_VERSION, 0));
        FAILS(ENOSYS, open("/dev/null", O_RDONLY));
        return 0;
}

static void *vcpu_thread(void *arg)
{
        *(int *)arg = be_a_vcpu();
        return NULL;
}

/* What one thread gives up the others keep. */
static int try_as_vcpu(void)
{
        pthread_t thread;
        int result = 1;

        CHECK(pthread_create(&thread, NULL, vcpu_thread, &result) == 0);
        CHECK(pthread_join(thread, NULL) == 0 && result == 0);
        CHECK(pthread_create(&thread, NULL, nothing, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        return 0;
}

static void a_vcpu_makes_no_threads_and_has_no_ring(void **state)
{
        assert_int_equal(confined(try_as_vcpu), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(opens_and_connects_to_nothing),
            cmocka_unit_test(has_what_its_devices_need),
            cmocka_unit_test(a_program_ends_it),
            cmocka_unit_test(a_vcpu_makes_no_threads_and_has_no_ring),
        };

        if (WITH_ASAN || WITH_TSAN) {
                printf("SKIP: there is no filter in builds with a sanitizer\n");
                return 77;
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
