/* shim.c - see shim.h. Allocations are counted from main() on: what libraries do in constructors,
 * before the program has anything to say, is theirs. Disks are reached by the loop's threads
 * (TARN_LOOP=threads): io_uring's operations pass through no function. */
#include "tests/exhaustion/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct shim *shim;      /* NULL: nobody orders anything */
static atomic_bool in_program; /* main() has begun */

static uint64_t get(enum shim_field field)
{
        return shim ? atomic_load(&shim->field[field]) : 0;
}

/* libseccomp 2.5 uses a page that it could not allocate: its allocations are neither counted nor
 * fail. A server needs it before it serves anybody. */
static uintptr_t spared_from, spared_to;

static int find_spared(struct dl_phdr_info *info, size_t size, void *arg)
{
        (void)size;
        (void)arg;
        if (!strstr(info->dlpi_name, "/libseccomp.so"))
                return 0;
        spared_from = info->dlpi_addr;
        for (unsigned i = 0; i < info->dlpi_phnum; i++) {
                uintptr_t end =
                    info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;

                if (info->dlpi_phdr[i].p_type == PT_LOAD && end > spared_to)
                        spared_to = end;
        }
        return 1;
}

__attribute__((constructor)) static void attach(void)
{
        const char *path = getenv("SHIM");
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        void *at =
            fd < 0 ? MAP_FAILED : mmap(NULL, SHIM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (fd >= 0)
                close(fd);
        if (at != MAP_FAILED)
                shim = at;
        dl_iterate_phdr(find_spared, NULL);
}

/* ---- from main() on ---- */

typedef int main_function(int, char **, char **);
static main_function *real_main;

static int counted_main(int argc, char **argv, char **envp)
{
        atomic_store(&in_program, true);
        int status = real_main(argc, argv, envp);
        atomic_store(&in_program, false);
        return status;
}

int __libc_start_main(main_function *entry, int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*end)(void), void *stack);
int __libc_start_main(main_function *entry, int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*end)(void), void *stack)
{
        typeof(&__libc_start_main) real = dlsym(RTLD_NEXT, "__libc_start_main");

        real_main = entry;
        return real(counted_main, argc, argv, init, fini, end, stack);
}

/* ---- allocations ---- */

void *__libc_malloc(size_t length);
void *__libc_calloc(size_t n, size_t length);
void *__libc_realloc(void *old, size_t length);
void *__libc_memalign(size_t alignment, size_t length);

static bool allocation_fails(const void *caller)
{
        uintptr_t at = (uintptr_t)caller;

        if (!shim || !atomic_load(&in_program) || (at >= spared_from && at < spared_to))
                return false;
        if (atomic_fetch_add(&shim->field[SHIM_ALLOCATIONS], 1) + 1 != get(SHIM_FAIL_AT))
                return false;
        atomic_fetch_add(&shim->field[SHIM_STRUCK], 1);
        errno = ENOMEM;
        return true;
}

void *malloc(size_t length)
{
        return allocation_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(length);
}

void *calloc(size_t n, size_t length)
{
        return allocation_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, length);
}

void *realloc(void *old, size_t length)
{
        return allocation_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, length);
}

void *aligned_alloc(size_t alignment, size_t length)
{
        return allocation_fails(__builtin_return_address(0)) ? NULL
                                                             : __libc_memalign(alignment, length);
}

int posix_memalign(void **ret, size_t alignment, size_t length)
{
        void *memory = allocation_fails(__builtin_return_address(0))
                           ? NULL
                           : __libc_memalign(alignment, length);

        if (!memory)
                return ENOMEM;
        *ret = memory;
        return 0;
}

/* ---- a disk ---- */

/* 0, or the errno that an operation on @fd is to fail with. */
static int disk_error(int fd, enum shim_field error)
{
        uint64_t delay = get(SHIM_DELAY_NS), times;
        struct stat st;

        if (get(SHIM_INODE) == 0 || fstat(fd, &st) < 0 || st.st_ino != get(SHIM_INODE))
                return 0;
        atomic_fetch_add(&shim->field[SHIM_OPERATIONS], 1);
        if (delay > 0)
                nanosleep(
                    &(struct timespec){(time_t)(delay / 1000000000), (long)(delay % 1000000000)},
                    NULL);
        if (get(error) == 0)
                return 0;
        times = get(SHIM_TIMES);
        while (times > 0 &&
               !atomic_compare_exchange_weak(&shim->field[SHIM_TIMES], &times, times - 1))
                ;
        return times > 0 ? (int)get(error) : 0;
}

static ssize_t failed(int error)
{
        errno = error;
        return -1;
}

ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t offset)
{
        int error = disk_error(fd, SHIM_READ_ERROR);

        return error ? failed(error) : syscall(SYS_preadv, fd, iov, (long)n, offset, 0L);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t offset)
{
        int error = disk_error(fd, SHIM_WRITE_ERROR);

        return error ? failed(error) : syscall(SYS_pwritev, fd, iov, (long)n, offset, 0L);
}

int fdatasync(int fd)
{
        int error = disk_error(fd, SHIM_FLUSH_ERROR);

        return (int)(error ? failed(error) : syscall(SYS_fdatasync, fd));
}
