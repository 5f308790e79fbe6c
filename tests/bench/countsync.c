/* countsync - preloaded into a peer, counts the flushes that it asks of its disk.
 *
 * The file named by BENCH_SYNC_COUNT holds one 64-bit counter in host order, which the benchmark
 * reads while the server runs. tarn needs none of this: 'pool status' counts for itself.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int fsync(int fd);
int fdatasync(int fd);

static _Atomic uint64_t *counter;
static int (*real_fsync)(int), (*real_fdatasync)(int);

__attribute__((constructor)) static void start_counting(void)
{
        const char *path = getenv("BENCH_SYNC_COUNT");

        real_fsync = (int (*)(int))(intptr_t)dlsym(RTLD_NEXT, "fsync");
        real_fdatasync = (int (*)(int))(intptr_t)dlsym(RTLD_NEXT, "fdatasync");
        if (!path)
                return;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return;
        if (ftruncate(fd, sizeof(*counter)) == 0) {
                void *map = mmap(NULL, sizeof(*counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                counter = map == MAP_FAILED ? NULL : map;
        }
        close(fd);
}

static void count(void)
{
        if (counter)
                atomic_fetch_add(counter, 1);
}

int fsync(int fd)
{
        count();
        return real_fsync(fd);
}

int fdatasync(int fd)
{
        count();
        return real_fdatasync(fd);
}
