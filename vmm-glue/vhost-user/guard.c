/* guard.c - memory that another process can take away while it is mapped here.
 *
 * Whoever has a memfd can shrink it, unless it is sealed; touching what is gone then is a SIGBUS,
 * at any place that works with guest memory: here, and in the engine, which checks checksums in it.
 * The handler puts private zeroes in the place of the whole mapping and marks it, and the access
 * goes on. The front end is cut off as soon as its mark is seen. (The kernel's own accesses fail
 * with EFAULT and signal nothing.)
 *
 * The table below is the only state of this library that is global, as the signal's handler is. It
 * is read by the handler without a lock: slots are never freed, and a slot's fields are cleared
 * before its mapping goes. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "vmm-glue/vhost-user/internal.h"

#define GUARDS_A_BLOCK 64u

struct guard {
        _Atomic uintptr_t start, end; /* end 0: not in use */
        _Atomic(atomic_bool *) hit;
        struct guard *next_free;
};

struct guard_block {
        struct guard guards[GUARDS_A_BLOCK];
        struct guard_block *next; /* never changes */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all below but for the handler */
static _Atomic(struct guard_block *) blocks;
static struct guard *free_guards;
static bool installed;
static struct sigaction before;

static struct guard *find(uintptr_t address)
{
        for (struct guard_block *b = atomic_load(&blocks); b; b = b->next)
                for (unsigned i = 0; i < GUARDS_A_BLOCK; i++)
                        if (address >= atomic_load(&b->guards[i].start) &&
                            address < atomic_load(&b->guards[i].end))
                                return &b->guards[i];
        return NULL;
}

/* A fault that is not ours is whoever's it was before: by default the end of the process, when the
 * access is repeated. */
static void pass_on(int number, siginfo_t *info, void *context)
{
        if (before.sa_flags & SA_SIGINFO)
                before.sa_sigaction(number, info, context);
        else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
                before.sa_handler(number);
        else
                signal(SIGBUS, SIG_DFL);
}

static void bus_error(int number, siginfo_t *info, void *context)
{
        struct guard *guard = find((uintptr_t)info->si_addr);
        int saved = errno;

        if (guard) {
                uintptr_t start = atomic_load(&guard->start);
                void *p =
                    mmap((void *)start, atomic_load(&guard->end) - start, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);

                if (p == MAP_FAILED)
                        guard = NULL;
                else
                        atomic_store(atomic_load(&guard->hit), true);
        }
        errno = saved;
        if (!guard)
                pass_on(number, info, context);
}

int guard_init(void)
{
        struct sigaction action = {.sa_sigaction = bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};
        int r = 0;

        pthread_mutex_lock(&mutex);
        sigemptyset(&action.sa_mask);
        if (!installed && sigaction(SIGBUS, &action, &before) < 0)
                r = -errno;
        installed = installed || r == 0;
        pthread_mutex_unlock(&mutex);
        return r;
}

static int add_block(void)
{
        struct guard_block *block = calloc(1, sizeof(*block));

        if (!block)
                return -ENOMEM;
        for (unsigned i = 0; i < GUARDS_A_BLOCK; i++) {
                block->guards[i].next_free = free_guards;
                free_guards = &block->guards[i];
        }
        block->next = atomic_load(&blocks);
        atomic_store(&blocks, block);
        return 0;
}

int guard_watch(void *start, size_t length, atomic_bool *hit, struct guard **ret_guard)
{
        struct guard *guard = NULL;
        int r = 0;

        pthread_mutex_lock(&mutex);
        if (!free_guards)
                r = add_block();
        if (r == 0) {
                guard = free_guards;
                free_guards = guard->next_free;
        }
        pthread_mutex_unlock(&mutex);
        if (r < 0)
                return r;
        atomic_store(&guard->hit, hit);
        atomic_store(&guard->start, (uintptr_t)start);
        atomic_store(&guard->end, (uintptr_t)start + length);
        *ret_guard = guard;
        return 0;
}

void guard_release(struct guard *guard)
{
        if (!guard)
                return;
        atomic_store(&guard->end, 0);
        atomic_store(&guard->start, 0);
        pthread_mutex_lock(&mutex);
        guard->next_free = free_guards;
        free_guards = guard;
        pthread_mutex_unlock(&mutex);
}
