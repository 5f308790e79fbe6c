/* sim_shortage.c - see sim_shortage.h. The linker puts __wrap_X in place of X in all objects, and
 * meson.build sim_X in those that are not the engine's. */
#undef malloc
#undef calloc
#undef realloc
#undef aligned_alloc
#undef posix_memalign
#undef strdup
#include "tests/sim/sim_shortage.h"
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_random.h"

/* 2026-01-01: a plausible date for what is created. */
#define WALL_CLOCK_SECONDS 1767225600

static uint64_t n_skip, n_fail, n_hits;
static unsigned n_paused;
static struct sim_random random_bytes;
static uint64_t wall_clock_ns;

void *__real_malloc(size_t length);
void *__real_calloc(size_t n, size_t length);
void *__real_realloc(void *old, size_t length);
void *__real_aligned_alloc(size_t alignment, size_t length);
int __real_posix_memalign(void **ret, size_t alignment, size_t length);
void *__real_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
int __real_clock_gettime(clockid_t clock, struct timespec *ret);
void *__wrap_malloc(size_t length);
void *__wrap_calloc(size_t n, size_t length);
void *__wrap_realloc(void *old, size_t length);
void *__wrap_aligned_alloc(size_t alignment, size_t length);
int __wrap_posix_memalign(void **ret, size_t alignment, size_t length);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
ssize_t __wrap_getrandom(void *buffer, size_t length, unsigned flags);
void *sim_malloc(size_t length);
void *sim_calloc(size_t n, size_t length);
void *sim_realloc(void *old, size_t length);
void *sim_aligned_alloc(size_t alignment, size_t length);
int sim_posix_memalign(void **ret, size_t alignment, size_t length);
char *sim_strdup(const char *text);

/* ---- the engine's ---- */

static bool fails(void)
{
        if (n_fail == 0 || n_paused > 0)
                return false;
        if (n_skip > 0) {
                n_skip--;
                return false;
        }
        n_fail--;
        n_hits++;
        errno = ENOMEM;
        return true;
}

void *__wrap_malloc(size_t length)
{
        return fails() ? NULL : __real_malloc(length);
}

void *__wrap_calloc(size_t n, size_t length)
{
        return fails() ? NULL : __real_calloc(n, length);
}

void *__wrap_realloc(void *old, size_t length)
{
        return fails() ? NULL : __real_realloc(old, length);
}

void *__wrap_aligned_alloc(size_t alignment, size_t length)
{
        return fails() ? NULL : __real_aligned_alloc(alignment, length);
}

int __wrap_posix_memalign(void **ret, size_t alignment, size_t length)
{
        return fails() ? ENOMEM : __real_posix_memalign(ret, alignment, length);
}

void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
        return fails() ? MAP_FAILED : __real_mmap(at, length, protection, flags, fd, offset);
}

void shortage_arm(uint64_t skip, uint64_t count)
{
        n_skip = skip;
        n_fail = count;
}

void shortage_off(void)
{
        n_fail = 0;
}

uint64_t shortage_hits(void)
{
        return n_hits;
}

void shortage_pause(void)
{
        n_paused++;
}

void shortage_resume(void)
{
        n_paused--;
}

/* ---- the simulator's ---- */

void *sim_malloc(size_t length)
{
        return sim_must(__real_malloc(length > 0 ? length : 1));
}

void *sim_calloc(size_t n, size_t length)
{
        return sim_must(__real_calloc(n > 0 ? n : 1, length));
}

void *sim_realloc(void *old, size_t length)
{
        return sim_must(__real_realloc(old, length));
}

void *sim_aligned_alloc(size_t alignment, size_t length)
{
        return sim_must(__real_aligned_alloc(alignment, length));
}

int sim_posix_memalign(void **ret, size_t alignment, size_t length)
{
        int r = __real_posix_memalign(ret, alignment, length);

        return r != 0 ? (sim_must(NULL), r) : 0;
}

char *sim_strdup(const char *text)
{
        size_t length = strlen(text) + 1;

        return memcpy(sim_malloc(length), text, length);
}

/* ---- clocks and random numbers ---- */

void shortage_seed(uint64_t seed)
{
        sim_random_init(&random_bytes, seed);
        wall_clock_ns = 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t length, unsigned flags)
{
        uint8_t *bytes = buffer;

        for (size_t i = 0; i < length; i++)
                bytes[i] = (uint8_t)sim_random_next(&random_bytes);
        return (ssize_t)length;
}

/* Each look at the wall clock is a millisecond later. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
        if (clock != CLOCK_REALTIME)
                return __real_clock_gettime(clock, ret);
        wall_clock_ns += 1000000;
        ret->tv_sec = WALL_CLOCK_SECONDS + (time_t)(wall_clock_ns / 1000000000);
        ret->tv_nsec = (long)(wall_clock_ns % 1000000000);
        return 0;
}
