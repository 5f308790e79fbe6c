/* guarded_map.c - shared mappings lie between pages that cannot be touched, so that an access
 * beside one is seen at once. The linker leads mmap() and munmap() through here (--wrap). */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE     4096u
#define MAPS_MAX 256u

void *__real_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t length);
int __wrap_munmap(void *address, size_t length);

static void *guarded[MAPS_MAX];

static void **find(const void *address)
{
        for (unsigned i = 0; i < MAPS_MAX; i++)
                if (guarded[i] == address)
                        return &guarded[i];
        return NULL;
}

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
        void **place = find(NULL), *p;
        uint8_t *around;

        if (!(flags & MAP_SHARED) || (flags & MAP_FIXED) || length % PAGE || !place)
                return __real_mmap(address, length, protection, flags, fd, offset);
        around = __real_mmap(NULL, length + 2 * PAGE, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (around == MAP_FAILED)
                return MAP_FAILED;
        p = __real_mmap(around + PAGE, length, protection, flags | MAP_FIXED, fd, offset);
        if (p == MAP_FAILED) {
                int saved = errno;
                __real_munmap(around, length + 2 * PAGE);
                errno = saved;
                return MAP_FAILED;
        }
        *place = p;
        return p;
}

int __wrap_munmap(void *address, size_t length)
{
        void **place = address ? find(address) : NULL;

        if (!place)
                return __real_munmap(address, length);
        *place = NULL;
        return __real_munmap((uint8_t *)address - PAGE, length + 2 * PAGE);
}
